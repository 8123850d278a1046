//! The webhook configurations: whom the API server trusts, and where it finds us.

use super::{ApiServer, Error, bounded};
use crate::crd::GROUP;
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

    /// Name of the webhook in it, as in `webhook-config/`.
    fn entry(self) -> String {
        format!("{}.taskruns.{GROUP}", self.verb())
    }

    /// As it ships.
    fn shipped(self) -> &'static str {
        match self {
            Self::Mutating => include_str!("../../webhook-config/mutating.yaml"),
            Self::Validating => include_str!("../../webhook-config/validating.yaml"),
        }
    }
}

/// What a webhook configuration says of us: its webhook of our name. Others in it are none of our business.
#[derive(Clone, Copy)]
pub struct Entry<'a>(&'a Value);

impl<'a> Entry<'a> {
    /// Ours, if it is there.
    #[must_use]
    pub fn of(configuration: &'a DynamicObject, webhook: Webhook) -> Option<Self> {
        let mut entries = configuration.data.get("webhooks")?.as_array()?.iter();
        entries.find(|entry| entry["name"] == webhook.entry()).map(|entry| Self(&entry["clientConfig"]))
    }

    /// The CAs that it trusts, PEM.
    #[must_use]
    pub fn ca_bundle(self) -> Vec<u8> {
        let bundle = self.0.get("caBundle").cloned().unwrap_or_default();
        serde_json::from_value(bundle).map(|ByteString(bytes)| bytes).unwrap_or_default()
    }

    /// Whether it has the API server call us at this address and, where it is given, trust this bundle.
    #[must_use]
    pub fn says(self, webhook: Webhook, address: &Address, bundle: Option<&[u8]>) -> bool {
        difference(self.0, webhook, address, bundle).is_empty()
    }

    /// The name that the API server asks for, as whom it calls.
    #[must_use]
    pub fn server_name(self) -> String {
        if let Some(url) = self.0["url"].as_str() {
            return host(url).unwrap_or_default();
        }
        let part = |field: &str| self.0["service"][field].as_str().unwrap_or_default();
        format!("{}.{}.svc", part("name"), part("namespace"))
    }

    /// The namespace of the Service that is called, if it is one.
    #[must_use]
    pub fn namespace(self) -> Option<&'a str> {
        self.0["service"]["namespace"].as_str()
    }
}

/// The host of a URL, an IPv6 address without its brackets.
#[must_use]
pub fn host(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    url.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// What is to be changed of `clientConfig`: nothing where it says so already.
fn difference(stored: &Value, webhook: Webhook, address: &Address, bundle: Option<&[u8]>) -> Map<String, Value> {
    let mut wanted = Map::new();
    if let Some(bundle) = bundle {
        wanted.insert("caBundle".to_owned(), json!(ByteString(bundle.to_vec())));
    }
    let verb = webhook.verb();
    if let Some(url) = &address.url {
        wanted.insert("url".to_owned(), json!(format!("{}/{verb}", url.trim_end_matches('/'))));
        wanted.insert("service".to_owned(), Value::Null);
    } else {
        // its port is whatever the Service has
        let port = stored["service"].get("port").cloned().unwrap_or(json!(443));
        let path = format!("/{verb}");
        let service = json!({"namespace": address.namespace, "name": SERVICE, "path": path, "port": port});
        wanted.insert("service".to_owned(), service);
        wanted.insert("url".to_owned(), Value::Null);
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

    /// Makes a configuration with our webhook in it name us and, where it is given, this bundle of CAs; under its
    /// resourceVersion. Returns what it is then.
    ///
    /// # Errors
    /// See [`Error`]: a conflict if somebody else was faster.
    pub async fn register_webhook(
        &self,
        webhook: Webhook,
        stored: &DynamicObject,
        address: &Address,
        bundle: Option<&[u8]>,
    ) -> Result<DynamicObject, Error> {
        let stored_config = Entry::of(stored, webhook).map_or(&Value::Null, |Entry(config)| config);
        let config = difference(stored_config, webhook, address, bundle);
        // a strategic merge patch: webhooks are merged by name
        let patch = json!({
            "metadata": {"resourceVersion": stored.metadata.resource_version},
            "webhooks": [{"name": webhook.entry(), "clientConfig": config}],
        });
        let params = PatchParams { field_manager: Some(WEBHOOK_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (api, patch) = (self.webhooks(webhook), Patch::Strategic(patch));
        bounded(api.patch(WEBHOOK_CONFIGURATION, &params, &patch)).await
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
        let last = last.filter(|last| Entry::of(last, webhook).is_some());
        let mut configuration = last.unwrap_or_else(|| shipped(webhook));
        configuration.metadata = ObjectMeta {
            name: configuration.metadata.name,
            labels: configuration.metadata.labels,
            annotations: configuration.metadata.annotations,
            ..ObjectMeta::default()
        };
        let entries = configuration.data["webhooks"].as_array_mut().into_iter().flatten();
        for entry in entries.filter(|entry| entry["name"] == webhook.entry()) {
            let config = &mut entry["clientConfig"];
            for (field, value) in difference(config, webhook, address, Some(bundle)) {
                config[field] = value;
            }
            if let Some(config) = config.as_object_mut() {
                config.retain(|_, value| !value.is_null());
            }
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

/// A configuration as it ships.
fn shipped(webhook: Webhook) -> DynamicObject {
    let read = serde_saphyr::from_str(webhook.shipped());
    read.unwrap_or_else(|_| unreachable!("a test reads webhook-config/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: Option<&str>) -> Address {
        Address { namespace: "ops".to_owned(), url: url.map(ToOwned::to_owned) }
    }

    fn entry(config: &Value) -> DynamicObject {
        let mut configuration = shipped(Webhook::Validating);
        let other = json!({"name": "other.example.com", "clientConfig": {"url": "https://other/", "caBundle": "YQ=="}});
        let ours = json!({"name": "validate.taskruns.orchestrator.io", "clientConfig": config});
        configuration.data = json!({"webhooks": [other, ours]});
        configuration
    }

    #[test]
    fn what_ships_can_be_restored() {
        for webhook in Webhook::ALL {
            let shipped = shipped(webhook);
            assert_eq!(shipped.metadata.name.as_deref(), Some(WEBHOOK_CONFIGURATION));
            let ours = Entry::of(&shipped, webhook).expect("our webhook");
            assert_eq!(ours.server_name(), "taskrun-operator.taskrun-system.svc");
            assert!(ours.ca_bundle().is_empty());
            let address = Address { namespace: "taskrun-system".to_owned(), url: None };
            assert!(ours.says(webhook, &address, None) && !ours.says(webhook, &self::address(None), None));
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let changed = |stored: &Value, url, bundle| difference(stored, Webhook::Mutating, &address(url), bundle);
        let ours = json!({"namespace": "ops", "name": "taskrun-operator", "path": "/mutate", "port": 8443});
        let service = json!({"service": ours, "caBundle": "YQ=="});
        assert!(changed(&service, None, None).is_empty());
        assert!(changed(&service, None, Some(b"a")).is_empty());
        assert_eq!(json!(changed(&service, None, Some(b"b"))), json!({"caBundle": "Yg=="}));
        for (field, wrong) in [("namespace", "other"), ("name", "other"), ("path", "/other")] {
            let mut stored = service.clone();
            stored["service"][field] = json!(wrong);
            assert_eq!(json!(changed(&stored, None, None)), json!({"service": ours}), "{field}");
        }
        let url = json!({"url": "https://[::1]:9443/mutate", "service": null});
        assert_eq!(json!(changed(&service, Some("https://[::1]:9443/"), None)), url);
        assert!(changed(&url, Some("https://[::1]:9443"), None).is_empty());
        let back = json!({"url": null, "service": {
            "namespace": "ops", "name": "taskrun-operator", "path": "/mutate", "port": 443}});
        assert_eq!(json!(changed(&json!({"url": "https://a/mutate"}), None, None)), back);
    }

    #[test]
    fn ours_is_found_by_its_name() {
        for (url, name) in [("https://[::1]:9443/validate", "::1"), ("https://a.example/validate", "a.example")] {
            let configuration = entry(&json!({"url": url}));
            let ours = Entry::of(&configuration, Webhook::Validating).expect("ours");
            assert_eq!((ours.server_name().as_str(), ours.ca_bundle()), (name, vec![]));
        }
        assert!(Entry::of(&entry(&json!({})), Webhook::Mutating).is_none());
        let mut none = shipped(Webhook::Mutating);
        none.data = json!({});
        assert!(Entry::of(&none, Webhook::Mutating).is_none());
    }
}
