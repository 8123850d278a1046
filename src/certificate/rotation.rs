//! What the replica that leads does next with the Secret that all replicas serve from.
//!
//! Publish, wait, switch: a new CA is added to the bundle and the bundle is written into the webhook configurations;
//! once each API server has had time to see it, the new leaf takes the old one's place in the Secret; a CA leaves the
//! bundle when it expires. Every state of the Secret is safe to be found by a process that starts.

use super::pair::validity;
use super::{CLOCK_SKEW, Error, Pair, check, issue};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::cmp::min;
use std::collections::BTreeMap;

/// The longest that a bundle is published before what it adds is served: informers of API servers follow within
/// seconds. Of a short life it is a twelfth.
const SETTLING: SignedDuration = SignedDuration::from_secs(60);
/// Most CAs in a bundle; each rotation within the life of a certificate adds one.
const MAX_CAS: usize = 16;
const END: &str = "-----END CERTIFICATE-----";

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// `ca.crt`: whom to trust, PEM, newest first. What the webhook configurations are to name.
    pub bundle: String,
    /// `tls.crt` and `tls.key`: what every replica serves.
    pub current: Pair,
    /// `next.crt` and `next.key`: what is served next, once its CA is trusted.
    pub next: Option<Pair>,
}

/// What there is.
#[derive(Clone, Copy)]
pub struct Observed<'a> {
    /// The Secret, if it is there and can be read.
    pub stored: Option<&'a Stored>,
    /// What it held when it last could be.
    pub last: Option<&'a Stored>,
    /// What this replica serves, as others do.
    pub served: Option<&'a Pair>,
    /// The bundle in each webhook configuration.
    pub live: &'a [&'a [u8]],
    /// How long all of them have been `stored.bundle`.
    pub settled: Option<SignedDuration>,
    /// The time.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Write the Secret.
    Store(Box<Stored>),
    /// Write `stored.bundle` into the webhook configurations.
    Publish,
    /// Nothing, for so long.
    Rest(SignedDuration),
}

/// How certificates are made.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// How long each is good.
    pub lifetime: SignedDuration,
}

impl Rotation {
    /// What to do next.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub fn step(&self, observed: Observed<'_>) -> Result<Step, Error> {
        let Observed { stored, live, settled, now, .. } = observed;
        let Some(stored) = stored else { return self.first(observed) };
        let next = stored.next.as_ref().filter(|next| self.accepts(next, &stored.bundle, now) && now < renewal(next));
        let is_needed = !self.accepts(&stored.current, &stored.bundle, now);
        if is_needed && next.is_none() {
            // before a bundle is published that has no use
            return self.renew(stored, observed);
        }
        let with_live = merge(&[&[stored.bundle.as_str()], texts(live).as_slice()].concat(), now);
        if self.leaves_out(&stored.bundle, observed) && with_live != stored.bundle {
            return Ok(store(Stored { bundle: with_live, ..stored.clone() }));
        }
        if live.iter().any(|live| *live != stored.bundle.as_bytes()) {
            return Ok(Step::Publish);
        }
        match next {
            None if renewal(&stored.current) <= now || stored.next.is_some() => self.renew(stored, observed),
            Some(next) => {
                let settling = if is_needed { SignedDuration::ZERO } else { self.settling() };
                let left = settling - settled.unwrap_or_default();
                if left.is_positive() {
                    return Ok(Step::Rest(left));
                }
                Ok(store(Stored { current: next.clone(), next: None, ..stored.clone() }))
            }
            None => {
                let bundle = merge(&[&stored.bundle], now);
                if bundle != stored.bundle {
                    return Ok(store(Stored { bundle, ..stored.clone() }));
                }
                let ends = blocks(&bundle).filter_map(|block| Some(validity(&der(block)?)?.1));
                let wake = ends.fold(renewal(&stored.current), min);
                Ok(Step::Rest(wake.duration_since(now)))
            }
        }
    }

    /// A Secret where there is none: with what is being served as long as that is good, so that to delete the Secret
    /// is to ask for a new certificate, without an interruption.
    fn first(&self, observed: Observed<'_>) -> Result<Step, Error> {
        let is_good = |last: &&Stored| self.accepts(&last.current, &last.bundle, observed.now);
        if let Some(last) = observed.last.filter(is_good) {
            return self.renew(last, observed);
        }
        // other replicas may still serve what the configurations trust
        let (bundle, current) = self.issue(&texts(observed.live), observed.now)?;
        Ok(store(Stored { bundle, current, next: None }))
    }

    /// The same with a next pair.
    fn renew(&self, stored: &Stored, Observed { live, now, .. }: Observed<'_>) -> Result<Step, Error> {
        let former = match self.accepts(&stored.current, &stored.bundle, now) {
            true => vec![stored.bundle.as_str()],
            // nor does it say what others serve; the configurations do
            false => [&[stored.bundle.as_str()], texts(live).as_slice()].concat(),
        };
        // the CA of a pair that was never served is of no use
        let is_of_next = |ca: &&str| stored.next.as_ref().is_some_and(|next| self.accepts(next, ca, now));
        let former: Vec<&str> = former.into_iter().flat_map(blocks).filter(|ca| !is_of_next(ca)).collect();
        let (bundle, next) = self.issue(&former, now)?;
        Ok(store(Stored { bundle, current: stored.current.clone(), next: Some(next) }))
    }

    /// A new pair, and these bundles with its CA.
    fn issue(&self, bundles: &[&str], now: Timestamp) -> Result<(String, Pair), Error> {
        let new = issue(&self.hosts, self.lifetime, now)?;
        let pair = Pair::parse(new.certificate.as_bytes(), new.key.as_bytes())?;
        // one that no client would accept would be renewed for ever
        self.hosts.iter().try_for_each(|host| check(&pair, new.ca.as_bytes(), host, now))?;
        Ok((merge(&[&[new.ca.as_str()], bundles].concat(), now), pair))
    }

    /// Whether a client that trusts the bundle accepts this pair now, by each name.
    fn accepts(&self, pair: &Pair, bundle: &str, now: Timestamp) -> bool {
        self.hosts.iter().all(|host| check(pair, bundle.as_bytes(), host, now).is_ok())
    }

    /// Whether what is served is accepted now, and would not be by this bundle: somebody put an old Secret back.
    fn leaves_out(&self, bundle: &str, Observed { served, live, now, .. }: Observed<'_>) -> bool {
        let is_left = |served: &Pair| {
            texts(live).iter().any(|live| self.accepts(served, live, now)) && !self.accepts(served, bundle, now)
        };
        served.is_some_and(is_left)
    }

    fn settling(&self) -> SignedDuration {
        min(SETTLING, self.lifetime / 12)
    }
}

impl Stored {
    /// Reads a Secret. A next pair that cannot be read is as good as none.
    ///
    /// # Errors
    /// If what is to be served cannot be read.
    pub fn parse(data: &BTreeMap<String, ByteString>) -> Result<Self, Error> {
        let read = |key: &str| data.get(key).map(|value| value.0.as_slice()).unwrap_or_default();
        let current = Pair::parse(read("tls.crt"), read("tls.key"))?;
        let bundle = std::str::from_utf8(read("ca.crt")).map_err(|_| Error::unreadable("ca.crt", "is not PEM"))?;
        let next = Pair::parse(read("next.crt"), read("next.key")).ok();
        Ok(Self { bundle: bundle.to_owned(), current, next })
    }

    /// What a Secret holds of it.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let pair = |pair: &Pair, name: &str| {
            [(format!("{name}.crt"), pair.certificate.clone()), (format!("{name}.key"), pair.key.clone())]
        };
        let bundle = [("ca.crt".to_owned(), self.bundle.clone().into_bytes())];
        let next = self.next.iter().flat_map(|next| pair(next, "next"));
        let all = bundle.into_iter().chain(pair(&self.current, "tls")).chain(next);
        all.map(|(key, value)| (key, ByteString(value))).collect()
    }
}

fn store(stored: Stored) -> Step {
    Step::Store(Box::new(stored))
}

/// When two thirds of its life are over.
fn renewal(pair: &Pair) -> Timestamp {
    pair.not_after - pair.not_after.duration_since(pair.not_before + CLOCK_SKEW) / 3
}

/// The CAs of these bundles that have not expired, each once.
fn merge(bundles: &[&str], now: Timestamp) -> String {
    let mut merged: Vec<&str> = Vec::new();
    for block in bundles.iter().flat_map(|bundle| blocks(bundle)) {
        let is_good = || der(block).and_then(|ca| validity(&ca)).is_some_and(|(_, not_after)| now < not_after);
        if !merged.contains(&block) && merged.len() < MAX_CAS && is_good() {
            merged.push(block);
        }
    }
    merged.iter().flat_map(|block| [block, "\n"]).collect()
}

fn texts<'a>(bundles: &[&'a [u8]]) -> Vec<&'a str> {
    bundles.iter().filter_map(|bundle| std::str::from_utf8(bundle).ok()).collect()
}

fn blocks(bundle: &str) -> impl Iterator<Item = &str> {
    bundle.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END))
}

fn der(block: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(block.as_bytes()).ok()
}
