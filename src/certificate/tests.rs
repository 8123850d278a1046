//! Rotation in a small world: a Secret, two configurations, API servers that see them late, replicas that see the
//! Secret late, and people who delete things.

use super::*;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::VecDeque;

const NAME: &str = "taskrun-operator.taskrun-system.svc";
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

fn rotation() -> Rotation {
    Rotation { hosts: vec![NAME.to_owned()], lifetime: LIFETIME }
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Everything that outlives a process, and one replica that serves.
struct World {
    now: Timestamp,
    secret: Option<Stored>,
    live: [Vec<u8>; 2],
    published: Option<(Vec<u8>, Timestamp)>,
    /// What API servers have known, by when they knew it: each is at most so long behind.
    seen: VecDeque<(Timestamp, [Vec<u8>; 2])>,
    last: Option<Stored>,
    served: Option<Pair>,
    switches: usize,
}

impl World {
    fn new() -> Self {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (secret, live, served) = (None, [vec![], vec![]], None);
        Self { now, secret, live, published: None, seen: VecDeque::new(), last: None, served, switches: 0 }
    }

    /// What the leader does until it rests; returns for how long.
    fn lead(&mut self) -> SignedDuration {
        for _ in 0..10 {
            let wanted = self.secret.as_ref().map(|secret| secret.bundle.clone().into_bytes());
            let is_published = wanted.as_ref().is_some_and(|wanted| self.live.iter().all(|live| live == wanted));
            let since = self.published.take().filter(|(bundle, _)| is_published && Some(bundle) == wanted.as_ref());
            self.published = since.or_else(|| Some((wanted.filter(|_| is_published)?, self.now)));
            let step = rotation().step(Observed {
                stored: self.secret.as_ref(),
                last: self.last.as_ref(),
                served: self.served.as_ref(),
                live: &self.live.each_ref().map(Vec::as_slice),
                settled: self.published.as_ref().map(|(_, since)| self.now.duration_since(*since)),
                now: self.now,
            });
            match step.expect("a step") {
                Step::Rest(rest) => return rest,
                Step::Publish => {
                    let bundle = self.secret.as_ref().expect("a Secret").bundle.clone().into_bytes();
                    self.live = [bundle.clone(), bundle];
                    self.seen.push_back((self.now, self.live.clone()));
                }
                Step::Store(stored) => self.secret = Some(*stored),
            }
            self.read();
        }
        panic!("it never rests: {:?}", self.secret);
    }

    /// What each replica does.
    fn read(&mut self) {
        if let Some(secret) = &self.secret {
            self.last = Some(secret.clone());
            if self.served.as_ref() != Some(&secret.current) {
                self.switches += 1;
                self.served = Some(secret.current.clone());
            }
        }
    }

    /// Whether every API server accepts what is served, as far behind as they may be.
    fn check(&self, behind: SignedDuration) -> Result<(), Error> {
        let served = self.served.as_ref().expect("served");
        let known = |at: Timestamp| self.seen.iter().rev().find(|(since, _)| *since <= at).map(|(_, live)| live);
        let possible = [self.now, self.now - behind].into_iter().filter_map(known);
        possible.flatten().try_for_each(|bundle| check(served, bundle, NAME, self.now))
    }

    fn cas(&self) -> usize {
        self.secret.as_ref().map_or(0, |secret| secret.bundle.matches("BEGIN").count())
    }
}

#[test]
fn what_is_issued_is_accepted_for_its_names_and_its_life() {
    let now: Timestamp = "2026-03-01T10:00:00Z".parse().expect("a time");
    let hosts = [NAME.to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let issued = issue(&hosts, LIFETIME, now).expect("a certificate");
    let pair = Pair::parse(issued.certificate.as_bytes(), issued.key.as_bytes()).expect("a pair");
    let check = |name: &str, at: Timestamp| check(&pair, issued.ca.as_bytes(), name, at).map_err(|e| e.to_string());
    for name in &hosts {
        assert_eq!(check(name, now), Ok(()), "{name}");
    }
    assert_eq!(check(NAME, now - CLOCK_SKEW), Ok(()), "an API server's clock may be behind");
    assert_eq!(check(NAME, now + LIFETIME - seconds(1)), Ok(()));
    assert!(check(NAME, now + LIFETIME + seconds(1)).expect_err("its end").contains("expired"));
    assert!(check(NAME, now - CLOCK_SKEW - seconds(1)).expect_err("its beginning").contains("not valid yet"));
    assert!(check("other.svc", now).expect_err("a name").contains("not valid for name"));
    assert_eq!((pair.not_before, pair.not_after), (now - CLOCK_SKEW, now + LIFETIME));
    assert_eq!(common_name(&pair.served.cert[0]).as_deref(), Some("taskrun-operator"));

    let other = issue(&hosts, LIFETIME, now).expect("a certificate");
    assert!(super::check(&pair, other.ca.as_bytes(), NAME, now).is_err(), "another CA");
    assert!(super::check(&pair, b"", NAME, now).is_err(), "no CA");
    let both = format!("{}{}", other.ca, issued.ca);
    assert!(super::check(&pair, both.as_bytes(), NAME, now).is_ok(), "one of two");
}

#[test]
fn what_cannot_be_served_is_told_without_showing_it() {
    let now: Timestamp = "2026-03-01T10:00:00Z".parse().expect("a time");
    let [one, two] = [1, 2].map(|_| issue(&[NAME.to_owned()], LIFETIME, now).expect("a certificate"));
    let parse = |certificate: &str, key: &str| {
        Pair::parse(certificate.as_bytes(), key.as_bytes()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(parse(&one.certificate, &one.key), Ok(()));
    assert_eq!(parse("", &one.key), Err("tls.crt holds no certificate".to_owned()));
    assert_eq!(parse(&one.certificate[..200], &one.key), Err("tls.crt is not PEM".to_owned()));
    assert_eq!(parse(&one.certificate, ""), Err("tls.key holds no key".to_owned()));
    assert!(parse(&one.certificate, &two.key).expect_err("a key").starts_with("tls.key does not fit tls.crt"));
    let chain = format!("{}{}", one.certificate, one.ca);
    assert_eq!(parse(&chain, &one.key), Ok(()), "a chain");
    assert_eq!(parse(&format!("{}{}", one.key, one.certificate), &one.key), Ok(()), "all in one file");
}

#[test]
fn a_secret_holds_all_of_it() {
    let mut world = World::new();
    world.lead();
    world.now += LIFETIME * 2 / 3;
    world.lead();
    let stored = world.secret.clone().expect("a Secret");
    assert!(stored.next.is_some());
    assert_eq!(Stored::parse(&stored.data()).expect("readable"), stored);
    let mut data = stored.data();
    data.remove("next.key");
    assert_eq!(Stored::parse(&data).expect("readable"), Stored { next: None, ..stored.clone() });
    data.remove("tls.key");
    assert!(Stored::parse(&data).is_err());
    let secrets = format!("{stored:?}");
    assert!(!secrets.contains("KEY") && !secrets.contains("BEGIN PRIVATE"), "no key in a log: {secrets}");
}

#[test]
fn the_first_is_published_and_served_at_once() {
    let mut world = World::new();
    let rest = world.lead();
    world.check(seconds(0)).expect("accepted");
    assert_eq!((world.switches, world.cas()), (1, 1));
    assert_eq!(rest, LIFETIME * 2 / 3);
}

#[test]
fn the_next_is_published_a_while_before_it_is_served() {
    let mut world = World::new();
    world.lead();
    world.now += LIFETIME * 2 / 3;
    let rest = world.lead();
    assert_eq!((rest, world.switches, world.cas()), (seconds(60), 1, 2));
    world.now += seconds(59);
    assert_eq!((world.lead(), world.switches), (seconds(1), 1));
    world.now += seconds(1);
    world.lead();
    assert_eq!((world.switches, world.cas()), (2, 2), "the former CA is trusted until it ends");
    world.now += LIFETIME / 3;
    world.lead();
    assert_eq!((world.switches, world.cas()), (2, 1));
}

#[test]
fn a_bundle_that_somebody_changes_counts_anew() {
    let mut world = World::new();
    world.lead();
    world.now += LIFETIME * 2 / 3;
    world.lead();
    world.now += seconds(50);
    world.live[1].clear();
    world.lead();
    assert!(!world.live[1].is_empty(), "healed");
    world.now += seconds(50);
    assert_eq!((world.lead(), world.switches), (seconds(10), 1));
}

#[test]
fn what_is_over_or_for_another_name_is_replaced_without_waiting() {
    let mut world = World::new();
    world.lead();
    world.now += LIFETIME * 2;
    world.lead();
    world.check(seconds(0)).expect("accepted");
    assert_eq!((world.switches, world.cas()), (2, 1));

    // a clock that was ahead is set right
    world.now -= LIFETIME * 2;
    world.lead();
    world.check(seconds(0)).expect("accepted");
    assert_eq!(world.switches, 3);

    let moved = Rotation { hosts: vec!["new.svc".to_owned()], ..rotation() };
    let bundle = world.live[0].clone();
    let observed = Observed {
        stored: world.secret.as_ref(),
        last: None,
        served: None,
        live: &[&bundle, &bundle],
        settled: None,
        now: world.now,
    };
    let Step::Store(stored) = moved.step(observed).expect("a step") else { panic!("a new one is due") };
    check(stored.next.as_ref().expect("the next"), stored.bundle.as_bytes(), "new.svc", world.now).expect("accepted");
}

#[test]
fn deleting_the_secret_asks_for_a_new_certificate_and_interrupts_nothing() {
    let mut world = World::new();
    world.lead();
    let first = world.served.clone();
    world.now += seconds(1_000);
    world.secret = None;
    assert_eq!(world.lead(), seconds(60));
    assert_eq!(world.secret.as_ref().map(|secret| &secret.current), first.as_ref());
    world.now += seconds(60);
    world.lead();
    assert_eq!((world.switches, world.cas()), (2, 2));

    // again and again before the next one is served: only the last of these is trusted beside those that were
    for _ in 0..20 {
        world.secret = None;
        world.lead();
        assert_eq!(world.cas(), 3);
        world.check(seconds(60)).expect("accepted by all who are a minute behind");
    }
    world.now += seconds(60);
    world.lead();
    world.check(seconds(60)).expect("accepted by all who are a minute behind");

    // by an operator that has never seen the Secret: others may still serve what the configurations trust
    (world.secret, world.last) = (None, None);
    world.lead();
    assert_eq!(world.cas(), 4);
}

#[test]
fn a_secret_that_does_not_fit_together_is_never_published() {
    let mut world = World::new();
    world.lead();
    let (first, before) = (world.secret.clone().expect("a Secret"), world.live.clone());
    world.secret = Some(Stored { bundle: String::new(), ..first.clone() });
    let observed = |world: &World| {
        rotation().step(Observed {
            stored: world.secret.as_ref(),
            last: world.last.as_ref(),
            served: world.served.as_ref(),
            live: &world.live.each_ref().map(Vec::as_slice),
            settled: None,
            now: world.now,
        })
    };
    let Step::Store(mended) = observed(&world).expect("a step") else { panic!("first the Secret is mended") };
    assert!(mended.bundle.contains(first.bundle.trim()), "what is served stays trusted");
    world.lead();
    world.check(seconds(0)).expect("accepted");
    assert!(before.iter().all(|before| world.live[0].starts_with(b"-----") && world.live[0] != *before));

    // one from a backup, which knows nothing of what is served
    let mut old = World::new();
    old.lead();
    world.secret = old.secret;
    let Step::Store(mended) = observed(&world).expect("a step") else { panic!("first the Secret is mended") };
    check(world.served.as_ref().expect("served"), mended.bundle.as_bytes(), NAME, world.now).expect("still trusted");
}

#[test]
fn a_name_that_no_client_accepts_is_an_error_and_no_rotation() {
    for host in ["localhost.", "a..b", "-x", "1.2.3"] {
        let rotation = Rotation { hosts: vec![host.to_owned()], lifetime: LIFETIME };
        let now = World::new().now;
        let (stored, last, served, settled) = (None, None, None, None);
        let step = rotation.step(Observed { stored, last, served, live: &[b"", b""], settled, now });
        assert!(step.is_err(), "{host}: {step:?}");
    }
}

#[test]
fn a_leaf_that_is_trusted_itself_is_accepted_though_it_is_a_ca() {
    let now: Timestamp = "2026-03-01T10:00:00Z".parse().expect("a time");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let pair = Pair::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair");
    check(&pair, pem.as_bytes(), NAME, now).expect("accepted, as by the API server");
    assert!(check(&pair, pem.as_bytes(), "other.svc", now).is_err());
    assert!(check(&pair, pem.as_bytes(), NAME, "1960-01-01T00:00:00Z".parse().expect("a time")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever happens to Secret and configurations, and however long the leader sleeps: a certificate that is good is
    /// never exchanged for one that some API server does not accept yet, and all is well again after one look.
    #[test]
    fn nobody_is_served_what_he_does_not_trust(events in prop::collection::vec((0..6_u8, 1..30_000_i64), 1..20)) {
        let mut world = World::new();
        world.lead();
        let mut hurried = world.now;
        for (event, pause) in events {
            match event {
                0 => world.secret = None,
                1 => world.last = None,
                2 => world.published = None,
                3 => (world.secret, world.last) = (None, None),
                _ => {}
            }
            // a leader looks at least every ten seconds; now and then it is away for hours
            let steps = if pause % 5 == 0 { vec![pause] } else { vec![10; 8] };
            for step in steps {
                world.now += seconds(step);
                let nobody_knows = world.last.is_none() && world.secret.is_none();
                if nobody_knows || world.check(seconds(0)).is_err() {
                    hurried = world.now;
                }
                world.lead();
                world.check(seconds(0)).expect("accepted by all who are up to date");
                if world.now.duration_since(hurried) > seconds(60) {
                    world.check(seconds(60)).expect("accepted by all who are a minute behind");
                }
                prop_assert!(world.cas() <= 16);
            }
        }
    }
}
