//! The webhook configurations: whom the API server trusts, and where it finds us.

use super::{ApiServer, Error, bounded};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};

/// Name of both webhook configurations, as in `webhook-config/`.
pub const WEBHOOK_CONFIGURATION: &str = "taskrun-operator";
/// Name of the Service, as in `deploy/`.
pub const SERVICE: &str = "taskrun-operator";
/// Field manager of the webhook configurations' `clientConfig`.
pub const WEBHOOK_FIELD_MANAGER: &str = "taskrun-operator-webhook";

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// Gives versions.
    Mutating,
    /// Refuses mistakes.
    Validating,
}

/// Where the API server is to find us.
#[derive(Clone, Debug)]
pub struct Address {
    /// Namespace of the Service.
    pub namespace: String,
    /// Without a path, for an operator outside the cluster: instead of the Service.
    pub url: Option<String>,
}

impl Webhook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mutating, Self::Validating];

    /// As kubectl calls it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfiguration",
            Self::Validating => "validatingwebhookconfiguration",
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Mutating => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            Self::Validating => ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Mutating => "mutate",
            Self::Validating => "validate",
        }
    }

    /// As it ships.
    fn shipped(self) -> &'static str {
        match self {
            Self::Mutating => include_str!("../../webhook-config/mutating.yaml"),
            Self::Validating => include_str!("../../webhook-config/validating.yaml"),
        }
    }
}

/// The CAs that a webhook configuration names, PEM.
#[must_use]
pub fn ca_bundle(configuration: &DynamicObject) -> Vec<u8> {
    let bundle = client_config(configuration).get("caBundle").cloned().unwrap_or_default();
    serde_json::from_value(bundle).map(|ByteString(bytes)| bytes).unwrap_or_default()
}

/// Whether the API server calls us at this address.
#[must_use]
pub fn is_addressed(configuration: &DynamicObject, webhook: Webhook, address: &Address) -> bool {
    difference(client_config(configuration), webhook, address, None).is_empty()
}

/// The name that the API server asks for, as whom it calls.
#[must_use]
pub fn server_name(configuration: &DynamicObject) -> String {
    let config = client_config(configuration);
    if let Some(url) = config["url"].as_str() {
        return host(url).unwrap_or_default();
    }
    let part = |field: &str| config["service"][field].as_str().unwrap_or_default();
    format!("{}.{}.svc", part("name"), part("namespace"))
}

/// The host of a URL, an IPv6 address without its brackets.
#[must_use]
pub fn host(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    url.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

fn client_config(configuration: &DynamicObject) -> &Value {
    &configuration.data["webhooks"][0]["clientConfig"]
}

/// What is to be changed of `clientConfig`: nothing where it says so already.
fn difference(stored: &Value, webhook: Webhook, address: &Address, bundle: Option<&[u8]>) -> Map<String, Value> {
    let mut wanted = Map::new();
    if let Some(bundle) = bundle {
        wanted.insert("caBundle".to_owned(), json!(ByteString(bundle.to_vec())));
    }
    let verb = webhook.verb();
    match &address.url {
        Some(url) => {
            wanted.insert("url".to_owned(), json!(format!("{}/{verb}", url.trim_end_matches('/'))));
            wanted.insert("service".to_owned(), Value::Null);
        }
        // it was run outside the cluster before
        None if stored["service"].is_null() => {
            let path = format!("/{verb}");
            let service = json!({"namespace": address.namespace, "name": SERVICE, "path": path, "port": 443});
            wanted.insert("service".to_owned(), service);
            wanted.insert("url".to_owned(), Value::Null);
        }
        None => {}
    }
    wanted.retain(|field, value| stored.get(field).unwrap_or(&Value::Null) != value);
    wanted
}

impl ApiServer {
    /// The configurations of this kind.
    #[must_use]
    pub fn webhooks(&self, webhook: Webhook) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &webhook.resource())
    }

    /// Makes a configuration name us and, where it is given, this bundle of CAs; under its resourceVersion. Returns
    /// what was written, if anything had to be.
    ///
    /// # Errors
    /// See [`Error`]: a conflict if somebody else was faster.
    pub async fn register_webhook(
        &self,
        webhook: Webhook,
        stored: &DynamicObject,
        address: &Address,
        bundle: Option<&[u8]>,
    ) -> Result<Option<DynamicObject>, Error> {
        let config = difference(client_config(stored), webhook, address, bundle);
        if config.is_empty() {
            return Ok(None);
        }
        // a strategic merge patch: webhooks are merged by name
        let patch = json!({
            "metadata": {"resourceVersion": stored.metadata.resource_version},
            "webhooks": [{"name": stored.data["webhooks"][0]["name"], "clientConfig": config}],
        });
        let params = PatchParams { field_manager: Some(WEBHOOK_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (api, patch) = (self.webhooks(webhook), Patch::Strategic(patch));
        bounded(api.patch(WEBHOOK_CONFIGURATION, &params, &patch)).await.map(Some)
    }

    /// Creates a configuration that is gone, as it was (`last`) or else as it ships.
    ///
    /// # Errors
    /// See [`Error`]: a conflict if somebody else was faster.
    pub async fn restore_webhook(
        &self,
        webhook: Webhook,
        last: Option<DynamicObject>,
        address: &Address,
        bundle: &[u8],
    ) -> Result<DynamicObject, Error> {
        let mut configuration = last.unwrap_or_else(|| shipped(webhook, &address.namespace));
        configuration.metadata = ObjectMeta {
            name: configuration.metadata.name,
            labels: configuration.metadata.labels,
            annotations: configuration.metadata.annotations,
            ..ObjectMeta::default()
        };
        let changed = difference(client_config(&configuration), webhook, address, Some(bundle));
        if let Some(config) = configuration.data["webhooks"][0]["clientConfig"].as_object_mut() {
            config.extend(changed);
            config.retain(|_, value| !value.is_null());
        }
        let params = PostParams { field_manager: Some(WEBHOOK_FIELD_MANAGER.to_owned()), ..PostParams::default() };
        bounded(self.webhooks(webhook).create(&params, &configuration)).await
    }

    /// Deletes a configuration; returns whether it was there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_webhook(&self, webhook: Webhook) -> Result<bool, Error> {
        let deleted = bounded(self.webhooks(webhook).delete(WEBHOOK_CONFIGURATION, &DeleteParams::default())).await;
        super::was_there(deleted)
    }
}

/// A configuration as it ships, for a Service in this namespace.
fn shipped(webhook: Webhook, namespace: &str) -> DynamicObject {
    let mut configuration: DynamicObject = serde_saphyr::from_str(webhook.shipped()).unwrap_or_else(|_| {
        unreachable!("a test reads webhook-config/");
    });
    configuration.data["webhooks"][0]["clientConfig"]["service"]["namespace"] = json!(namespace);
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: Option<&str>) -> Address {
        Address { namespace: "ops".to_owned(), url: url.map(ToOwned::to_owned) }
    }

    #[test]
    fn what_ships_can_be_restored() {
        for webhook in Webhook::ALL {
            let shipped = shipped(webhook, "ops");
            assert_eq!(shipped.metadata.name.as_deref(), Some(WEBHOOK_CONFIGURATION));
            assert_eq!(server_name(&shipped), "taskrun-operator.ops.svc");
            assert_eq!(client_config(&shipped)["service"]["path"], format!("/{}", webhook.verb()));
            assert!(ca_bundle(&shipped).is_empty());
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let changed = |stored: &Value, url, bundle| difference(stored, Webhook::Mutating, &address(url), bundle);
        let service = json!({"service": {"namespace": "x", "name": "y"}, "caBundle": "YQ=="});
        assert!(changed(&service, None, None).is_empty());
        assert!(changed(&service, None, Some(b"a")).is_empty());
        assert_eq!(json!(changed(&service, None, Some(b"b"))), json!({"caBundle": "Yg=="}));
        let url = json!({"url": "https://[::1]:9443/mutate", "service": null});
        assert_eq!(json!(changed(&service, Some("https://[::1]:9443/"), None)), url);
        assert!(changed(&url, Some("https://[::1]:9443"), None).is_empty());
        let back = json!({"url": null, "service": {
            "namespace": "ops", "name": "taskrun-operator", "path": "/mutate", "port": 443}});
        assert_eq!(json!(changed(&json!({"url": "https://a/mutate"}), None, None)), back);
    }

    #[test]
    fn the_name_is_that_which_the_api_server_asks_for() {
        let mut configuration = shipped(Webhook::Validating, "ops");
        configuration.data["webhooks"][0]["clientConfig"] = json!({"url": "https://[::1]:9443/validate"});
        assert_eq!(server_name(&configuration), "::1");
        configuration.data["webhooks"][0]["clientConfig"] = json!({"url": "https://a.example/validate"});
        assert_eq!(server_name(&configuration), "a.example");
    }
}
