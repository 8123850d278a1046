//! Our own certificate, in a Secret that all replicas share.

use super::{Known, LOOK_AGAIN, RETRY, Rotator, Seen, Source};
use crate::certificate::{Observed, Rotation, Step, Stored};
use crate::client::{Entry, Error, Webhook};
use crate::clock::now;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::SignedDuration;
use kube::api::DynamicObject;
use std::time::{Duration, Instant};

/// Name of the Secret, as in `deploy/rbac.yaml`.
pub const SECRET: &str = "taskrun-operator-tls";
/// Steps at a time: a rotation takes two.
const MAX_STEPS: usize = 6;

impl Rotator {
    /// Takes in what the Secret holds.
    pub(super) fn read_secret(&self, known: &mut Known) {
        let Some(secret) = known.secret.there() else { return };
        match Stored::parse(secret.data.as_ref().unwrap_or(&std::collections::BTreeMap::new())) {
            Ok(stored) => {
                self.accept(known, stored.current.clone());
                known.stored = Some(stored);
            }
            Err(problem) => {
                let version = secret.metadata.resource_version.clone().unwrap_or_default();
                self.tell_broken(known, version.as_bytes(), &problem);
            }
        }
    }

    /// What the replica that leads does: renews the Secret, and keeps the webhook configurations true to it.
    pub(super) async fn lead(&self, known: &mut Known) -> Result<Duration, Error> {
        for number in 0..known.configurations.len() {
            match known.configurations[number].clone() {
                Seen::NotYet => return Ok(LOOK_AGAIN),
                Seen::Gone => {}
                Seen::There(stored) => self.register(number, &stored, None, known).await?,
            }
        }
        let Source::Managed(rotation) = &self.source else { return Ok(LOOK_AGAIN) };
        for _ in 0..MAX_STEPS {
            match self.plan(rotation, known) {
                None => return Ok(LOOK_AGAIN),
                Some(Step::Rest(rest)) => return Ok(rest.try_into().unwrap_or(RETRY)),
                Some(Step::Publish) => self.publish(known).await?,
                Some(Step::Store(stored)) => self.store(&stored, known).await?,
            }
        }
        Ok(RETRY)
    }

    async fn store(&self, stored: &Stored, known: &mut Known) -> Result<(), Error> {
        let found = known.secret.there().cloned();
        let is_new = found.is_none();
        let secret = Secret {
            data: Some(stored.data()),
            ..found.unwrap_or_else(|| Secret {
                metadata: ObjectMeta {
                    name: Some(SECRET.to_owned()),
                    labels: Some([("app.kubernetes.io/name".to_owned(), "taskrun-operator".to_owned())].into()),
                    ..ObjectMeta::default()
                },
                type_: Some("kubernetes.io/tls".to_owned()),
                ..Secret::default()
            })
        };
        self.may_write().await;
        let written = self.api_server.write(&self.address.namespace, &secret).await?;
        tracing::info!(is_new, rotating = stored.next.is_some(), "wrote the certificate's Secret");
        known.secret = Seen::There(written);
        self.read_secret(known);
        Ok(())
    }

    async fn publish(&self, known: &mut Known) -> Result<(), Error> {
        let Some(wanted) = known.stored.as_ref().map(|stored| stored.bundle.clone().into_bytes()) else {
            return Ok(());
        };
        for (number, webhook) in Webhook::ALL.into_iter().enumerate() {
            if let Some(stored) = known.configurations[number].there().cloned() {
                self.register(number, &stored, Some(&wanted), known).await?;
                continue;
            }
            let last = known.last[number].clone();
            self.may_write().await;
            let restored = self.api_server.restore_webhook(webhook, last, &self.address, &wanted).await?;
            tracing::warn!(kind = webhook.kind(), "the webhook configuration was gone: made it again");
            known.note_configuration(number, Some(restored));
        }
        Ok(())
    }

    async fn register(
        &self,
        number: usize,
        stored: &DynamicObject,
        bundle: Option<&[u8]>,
        known: &mut Known,
    ) -> Result<(), Error> {
        let webhook = Webhook::ALL[number];
        // one without our webhook: somebody has switched it off
        if Entry::of(stored, webhook).is_none_or(|entry| entry.says(webhook, &self.address, bundle)) {
            return Ok(());
        }
        self.may_write().await;
        let written = self.api_server.register_webhook(webhook, stored, &self.address, bundle).await?;
        let what = if bundle.is_some() { "caBundle" } else { "address" };
        tracing::info!(kind = webhook.kind(), what, "wrote the webhook configuration");
        known.note_configuration(number, Some(written));
        Ok(())
    }

    /// What is next, if all is known that it depends on.
    fn plan(&self, rotation: &Rotation, known: &mut Known) -> Option<Step> {
        if matches!(known.secret, Seen::NotYet) {
            return None;
        }
        // it was read when it came
        let stored = known.stored.as_ref().filter(|_| known.secret.there().is_some() && known.broken.is_none());
        let bundle = |(webhook, configuration): (Webhook, &Seen<DynamicObject>)| match configuration {
            Seen::There(configuration) => Some(Entry::of(configuration, webhook)?.ca_bundle()),
            // one that is gone names nobody
            Seen::NotYet | Seen::Gone => Some(vec![]),
        };
        let live: Vec<Vec<u8>> = Webhook::ALL.into_iter().zip(&known.configurations).filter_map(bundle).collect();
        let wanted = stored.map(|stored| stored.bundle.as_bytes());
        let is_published = wanted.is_some_and(|wanted| live.iter().all(|live| live == wanted));
        known.published = match known.published.take() {
            Some((bundle, since)) if is_published && Some(bundle.as_slice()) == wanted => Some((bundle, since)),
            _ => wanted.filter(|_| is_published).map(|wanted| (wanted.to_vec(), Instant::now())),
        };
        let settled = known.published.as_ref().map(|(_, since)| since.elapsed());
        let served = self.served.get();
        let observed = Observed {
            stored,
            last: known.stored.as_ref(),
            served: served.as_ref(),
            live: &live.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            settled: settled.and_then(|settled| SignedDuration::try_from(settled).ok()),
            now: now(),
        };
        let step = rotation.step(observed);
        step.inspect_err(|error| tracing::warn!(%error, "failed to renew the certificate")).ok()
    }
}
