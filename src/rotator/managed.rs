//! Our own certificate, in a Secret that all replicas share.

use super::{Known, LOOK_AGAIN, RETRY, Rotator, Source};
use crate::certificate::{Observed, Rotation, Step, Stored};
use crate::client::{Error, Webhook, ca_bundle};
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
        let Some(Some(secret)) = &known.secret else { return };
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
            let Some(configuration) = &known.configurations[number] else { return Ok(LOOK_AGAIN) };
            if let Some(stored) = configuration.clone() {
                self.register(number, &stored, None, known).await?;
            }
        }
        let Source::Managed(rotation) = &self.source else { return Ok(LOOK_AGAIN) };
        for _ in 0..MAX_STEPS {
            match self.plan(rotation, known)? {
                None => return Ok(LOOK_AGAIN),
                Some(Step::Rest(rest)) => return Ok(rest.try_into().unwrap_or(RETRY)),
                Some(Step::Publish) => self.publish(known).await?,
                Some(Step::Store(stored)) => self.store(&stored, known).await?,
            }
        }
        Ok(RETRY)
    }

    /// What is next, if all is known that it depends on.
    fn plan(&self, rotation: &Rotation, known: &mut Known) -> Result<Option<Step>, Error> {
        let Some(secret) = &known.secret else { return Ok(None) };
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref());
        let stored = data.and_then(|data| Stored::parse(data).ok());
        let live: Vec<Vec<u8>> = known.configurations.iter().flatten().map(bundle).collect();
        let wanted = stored.as_ref().map(|stored| stored.bundle.as_bytes());
        let is_published = wanted.is_some_and(|wanted| live.iter().all(|live| live == wanted));
        known.published = match known.published.take() {
            Some((bundle, since)) if is_published && Some(bundle.as_slice()) == wanted => Some((bundle, since)),
            _ => is_published.then(|| (live[0].clone(), Instant::now())),
        };
        let settled = known.published.as_ref().map(|(_, since)| since.elapsed());
        let observed = Observed {
            stored: stored.as_ref(),
            last: known.stored.as_ref(),
            live: &live.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            settled: settled.and_then(|settled| SignedDuration::try_from(settled).ok()),
            now: now(),
        };
        match rotation.step(observed) {
            Ok(step) => Ok(Some(step)),
            Err(error) => {
                tracing::warn!(%error, "failed to renew the certificate");
                Ok(None)
            }
        }
    }

    async fn store(&self, stored: &Stored, known: &mut Known) -> Result<(), Error> {
        let found = known.secret.clone().flatten();
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
        let written = self.api_server.write(&self.address.namespace, &secret).await?;
        tracing::info!(rotating = stored.next.is_some(), "wrote the certificate's Secret");
        known.secret = Some(Some(written));
        self.read_secret(known);
        Ok(())
    }

    async fn publish(&self, known: &mut Known) -> Result<(), Error> {
        let Some(wanted) = known.stored.as_ref().map(|stored| stored.bundle.clone().into_bytes()) else {
            return Ok(());
        };
        for (number, webhook) in Webhook::ALL.into_iter().enumerate() {
            match known.configurations[number].clone().flatten() {
                Some(stored) => self.register(number, &stored, Some(&wanted), known).await?,
                None => {
                    let last = known.last[number].clone();
                    let restored = self.api_server.restore_webhook(webhook, last, &self.address, &wanted).await?;
                    tracing::warn!(kind = webhook.kind(), "the webhook configuration was gone: made it again");
                    known.note_configuration(number, Some(restored));
                }
            }
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
        if let Some(written) = self.api_server.register_webhook(webhook, stored, &self.address, bundle).await? {
            tracing::info!(kind = webhook.kind(), "wrote the webhook configuration");
            known.note_configuration(number, Some(written));
        }
        Ok(())
    }
}

/// What a configuration names; nothing where it is gone.
fn bundle(configuration: &Option<DynamicObject>) -> Vec<u8> {
    configuration.as_ref().map(ca_bundle).unwrap_or_default()
}
