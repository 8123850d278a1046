//! Keeps the certificate that is served good, and `/readyz` true to it.
//!
//! Every replica serves what the Secret, or the mounted folder, holds. The one that leads also renews the Secret, and
//! writes into the webhook configurations whom to trust and where to find us. All of it is looked at when the Secret,
//! a configuration or a file changes, and every few seconds by the time of day, which no timer follows.

mod managed;
mod mounted;

use crate::certificate::{Pair, Rotation, Stored, check};
use crate::client::{Address, ApiServer, Entry, Error, WEBHOOK_CONFIGURATION, Webhook, watch_one};
use crate::clock::now;
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::server::{Clients, Readiness, Served};
use futures::stream::{BoxStream, StreamExt, select_all};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DynamicObject;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

pub use managed::SECRET;

/// From one look to the next, if nothing happens before.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The same after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Where the certificate comes from.
pub enum Source {
    /// We make it, and keep it in a Secret.
    Managed(Rotation),
    /// Somebody else puts `tls.crt` and `tls.key` into this folder, and the CA into the webhook configurations.
    Mounted(PathBuf),
}

/// What the rotator works with.
pub struct Rotator {
    /// The API server.
    pub api_server: ApiServer,
    /// Where the API server finds us; the Secret is in the Service's namespace.
    pub address: Address,
    /// Where the certificate comes from.
    pub source: Source,
    /// What our listeners serve.
    pub served: Arc<Served>,
    /// Whom the webhook listens to: the file with their CAs.
    pub clients: Option<(PathBuf, Arc<Clients>)>,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// Where the end of the certificate is told.
    pub metrics: Arc<Metrics>,
    /// Whether we may write.
    pub leadership: Leadership,
    /// How fast: see [`write_limit`].
    pub writes: DefaultDirectRateLimiter,
}

/// Twenty writes at once, and one a second from then on: where somebody else writes what we do, neither wins.
#[must_use]
pub fn write_limit() -> DefaultDirectRateLimiter {
    const ONE: NonZeroU32 = NonZeroU32::MIN;
    RateLimiter::direct(Quota::per_second(ONE).allow_burst(ONE.saturating_add(19)))
}

enum Event {
    Secret(Option<Secret>),
    Configuration(usize, Option<DynamicObject>),
    Files,
}

/// An object, as far as it is known.
#[derive(Clone, Default)]
enum Seen<T> {
    #[default]
    NotYet,
    Gone,
    There(T),
}

/// What is known.
#[derive(Default)]
struct Known {
    secret: Seen<Secret>,
    /// What could last be read of it.
    stored: Option<Stored>,
    /// In the order of [`Webhook::ALL`].
    configurations: [Seen<DynamicObject>; 2],
    /// What each was when it was last there.
    last: [Option<DynamicObject>; 2],
    /// The bundle that both name, and since when.
    published: Option<(Vec<u8>, Instant)>,
    /// What is to be served as soon as it is trusted.
    candidate: Option<Pair>,
    /// The candidate that was told to wait.
    waiting: Option<Pair>,
    /// What could not be used, told once: a version of the Secret, or the bytes of files.
    broken: Option<Vec<u8>>,
    /// The CAs of clients, as they were last read, and what was wrong with the file.
    client_ca: Vec<u8>,
    client_ca_problem: Option<String>,
}

impl Rotator {
    /// Does so for as long as it is polled.
    pub async fn run(self) {
        let mut known = Known::default();
        let (mut events, _files) = self.events();
        loop {
            let rest = self.look(&mut known).await;
            tokio::select! {
                Some(event) = events.next() => known.note(event),
                () = sleep(rest.min(LOOK_AGAIN)) => {}
                true = self.leadership.acquired(), if !self.leadership.may_begin() => {}
            }
        }
    }

    fn events(&self) -> (impl futures::Stream<Item = Event> + Unpin + use<>, Option<mounted::Watch>) {
        let mut streams: Vec<BoxStream<'static, Event>> = Vec::new();
        for (number, webhook) in Webhook::ALL.into_iter().enumerate() {
            let watched = watch_one(self.api_server.webhooks(webhook), WEBHOOK_CONFIGURATION);
            streams.push(watched.map(move |found| Event::Configuration(number, found)).boxed());
        }
        let mut watch = None;
        match &self.source {
            Source::Managed(_) => {
                let secrets = self.api_server.api::<Secret>(Some(&self.address.namespace));
                streams.push(watch_one(secrets, SECRET).map(Event::Secret).boxed());
            }
            Source::Mounted(folder) => {
                let (files, changes) = mounted::watch(folder);
                streams.push(changes.map(|()| Event::Files).boxed());
                watch = files;
            }
        }
        (select_all(streams), watch)
    }

    /// Brings all of it up to date; returns how long it can rest.
    async fn look(&self, known: &mut Known) -> Duration {
        self.read_clients(known);
        match &self.source {
            Source::Managed(_) => self.read_secret(known),
            Source::Mounted(folder) => self.read_files(folder, known),
        }
        let led = match self.leadership.may_begin() {
            true => self.lead(known).await,
            false => Ok(LOOK_AGAIN),
        };
        let rest = led.unwrap_or_else(|error| {
            match error {
                Error::Conflict(message) => tracing::debug!(message, "somebody else was faster"),
                error => tracing::warn!(%error, "failed to see to the certificate or the webhook configurations"),
            }
            RETRY
        });
        self.serve(known);
        self.readiness.set(self.judge(known));
        rest
    }

    /// Serves the candidate as soon as the API server trusts it, and what is served no longer than it does.
    fn serve(&self, known: &mut Known) {
        let served = self.served.get();
        let Some(candidate) = known.candidate.as_ref().filter(|candidate| served.as_ref() != Some(*candidate)) else {
            return;
        };
        let is_trusted = |pair: &Pair| self.trusts(known, pair).is_ok();
        if let Err(why) = self.trusts(known, candidate)
            && served.as_ref().is_some_and(is_trusted)
        {
            if known.waiting.as_ref() != Some(candidate) {
                tracing::warn!(why, "a newer certificate waits until the API server accepts it");
                known.waiting = Some(candidate.clone());
            }
        } else {
            tracing::info!(not_after = %candidate.not_after, "serving a new certificate");
            self.metrics.certificate.served(candidate.not_after);
            self.served.set(candidate.clone());
        }
    }

    /// What `/readyz` says: whether the API server accepts what is served.
    fn judge(&self, known: &Known) -> Result<(), String> {
        let served = self.served.get().ok_or("there is no certificate yet")?;
        self.trusts(known, &served)
    }

    /// Whether the API server calls us and accepts this certificate, by what it was told.
    fn trusts(&self, known: &Known, pair: &Pair) -> Result<(), String> {
        for (webhook, configuration) in Webhook::ALL.into_iter().zip(&known.configurations) {
            let name = WEBHOOK_CONFIGURATION;
            let configuration = match configuration {
                Seen::NotYet => return Err("starting".to_owned()),
                Seen::Gone => {
                    return Err(format!("{} {name} is not there: apply what you have installed again", webhook.kind()));
                }
                Seen::There(configuration) => configuration,
            };
            let Some(entry) = Entry::of(configuration, webhook) else {
                return Err(format!(
                    "{} {name} has no webhook of ours: apply what you have installed again",
                    webhook.kind()
                ));
            };
            if !entry.says(webhook, &self.address, None) {
                return Err(format!(
                    "{} {name} says that the webhook is called at another address than --webhook-url, or the Service in \
                     --operator-namespace",
                    webhook.kind()
                ));
            }
            check(pair, &entry.ca_bundle(), &entry.server_name(), now())
                .map_err(|error| format!("by {} {name}, {error}", webhook.kind()))?;
        }
        Ok(())
    }

    /// What cannot be used is told once; what was served goes on being served.
    fn tell_broken(&self, known: &mut Known, what: &[u8], problem: &dyn std::fmt::Display) {
        if known.broken.as_deref() != Some(what) {
            known.broken = Some(what.to_vec());
            tracing::warn!(%problem, "failed to load a certificate: going on with the former one, if there is one");
            self.metrics.certificate.loaded(false);
        }
    }

    fn accept(&self, known: &mut Known, pair: Pair) {
        let was_broken = known.broken.take().is_some();
        if was_broken {
            tracing::info!("the certificate can be read again");
        }
        if was_broken || known.candidate.as_ref() != Some(&pair) {
            known.candidate = Some(pair);
            self.metrics.certificate.loaded(true);
        }
    }

    /// Waits until one more write is in order.
    async fn may_write(&self) {
        if self.writes.check().is_ok() {
            return;
        }
        tracing::warn!(
            "many writes of certificates and webhook configurations: does somebody else write caBundle, too?"
        );
        while self.writes.check().is_err() {
            sleep(RETRY).await;
        }
    }

    fn read_clients(&self, known: &mut Known) {
        let Some((file, clients)) = &self.clients else { return };
        let read = std::fs::read(file);
        if read.as_ref().is_ok_and(|bundle| *bundle == known.client_ca) {
            return;
        }
        let trusted = read.map_err(|error| error.to_string()).and_then(|bundle| {
            known.client_ca.clone_from(&bundle);
            clients.trust(&bundle)
        });
        let problem = trusted.err();
        let is_told = problem == known.client_ca_problem;
        known.client_ca_problem.clone_from(&problem);
        if let Some(problem) = problem.filter(|_| !is_told) {
            tracing::warn!(file = %file.display(), problem, "failed to load the CAs of clients: going on with the former");
        }
    }
}

/// Whether a watch tells of a time before our own last write: resourceVersions are numbers that grow (Kubernetes 1.35
/// promises it).
fn is_older<K: ResourceExt>(found: Option<&K>, known: Option<&K>) -> bool {
    let (Some(found), Some(known)) = (found, known) else { return false };
    let version = |object: &K| object.resource_version().and_then(|version| version.parse::<u64>().ok());
    found.uid() == known.uid() && version(found).zip(version(known)).is_some_and(|(found, known)| found < known)
}

impl<T> From<Option<T>> for Seen<T> {
    fn from(found: Option<T>) -> Self {
        found.map_or(Self::Gone, Self::There)
    }
}

impl<T> Seen<T> {
    fn there(&self) -> Option<&T> {
        match self {
            Self::There(found) => Some(found),
            Self::NotYet | Self::Gone => None,
        }
    }
}

impl Known {
    fn note(&mut self, event: Event) {
        match event {
            Event::Secret(found) => {
                if !is_older(found.as_ref(), self.secret.there()) {
                    self.secret = found.into();
                }
            }
            Event::Configuration(number, found) => self.note_configuration(number, found),
            Event::Files => {}
        }
    }

    fn note_configuration(&mut self, number: usize, found: Option<DynamicObject>) {
        if is_older(found.as_ref(), self.configurations[number].there()) {
            return;
        }
        if found.is_some() {
            self.last[number].clone_from(&found);
        }
        self.configurations[number] = found.into();
    }
}
