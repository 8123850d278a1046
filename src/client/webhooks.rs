//! The webhook configurations: whom the API server trusts, and where it finds us.

use super::{ApiServer, Error, WEBHOOK_CONFIGURATION, WEBHOOK_FIELD_MANAGER, bounded};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

impl ApiServer {
    /// Writes into both webhook configurations whom to trust and, where the operator runs outside the
    /// cluster, where to find it (`url`, without a path); nothing where they say so. Returns whether it
    /// wrote.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register_webhooks(&self, ca_bundle: &str, url: Option<&str>) -> Result<bool, Error> {
        let ca_bundle = ByteString(ca_bundle.as_bytes().to_vec());
        let client = || self.client.clone();
        let mutating = register::<MutatingWebhookConfiguration>(Api::all(client()), "mutate", &ca_bundle, url).await?;
        let validating =
            register::<ValidatingWebhookConfiguration>(Api::all(client()), "validate", &ca_bundle, url).await?;
        Ok(mutating || validating)
    }
}

/// Makes a webhook configuration name us, by a strategic merge patch: webhooks are merged by name.
async fn register<K>(api: Api<K>, verb: &str, ca_bundle: &ByteString, url: Option<&str>) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let stored = serde_json::to_value(bounded(api.get(WEBHOOK_CONFIGURATION)).await?).unwrap_or_default();
    let stored = &stored["webhooks"][0]["clientConfig"];
    let mut wanted = json!({ "caBundle": ca_bundle });
    if let Some(url) = url {
        wanted["url"] = json!(format!("{}/{verb}", url.trim_end_matches('/')));
        wanted["service"] = Value::Null;
    }
    let is_so = |(field, value): (&String, &Value)| stored.get(field).unwrap_or(&Value::Null) == value;
    if wanted.as_object().is_some_and(|wanted| wanted.iter().all(is_so)) {
        return Ok(false);
    }
    let patch = json!({"webhooks": [{"name": format!("{verb}.taskruns.orchestrator.io"), "clientConfig": wanted}]});
    let params = PatchParams { field_manager: Some(WEBHOOK_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    bounded(api.patch(WEBHOOK_CONFIGURATION, &params, &Patch::Strategic(patch))).await?;
    Ok(true)
}
