//! Helm's own storage, and what its releases have left.

use super::{ApiServer, Error, bounded, was_there};
use crate::crd::TaskRun;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Field manager of what a migration writes.
const MANAGER: &str = "taskrun-operator-migration";
/// The label of all that Helm stores.
const OWNED_BY_HELM: &str = "owner=helm";
/// The type of Helm's Secrets.
const SECRET_TYPE: &str = "type=helm.sh/release.v1";
/// Annotation on all that Helm makes: the release that it belongs to.
const RELEASE_ANNOTATION: &str = "meta.helm.sh/release-name";
/// The same for its namespace.
const NAMESPACE_ANNOTATION: &str = "meta.helm.sh/release-namespace";
/// Objects that are read at once.
const AT_ONCE: usize = 8;

/// What Helm stores a release's revisions as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// Its default.
    Secret,
    /// `HELM_DRIVER=configmap`.
    ConfigMap,
}

/// One revision of a release, as its labels say it.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Name of the release.
    pub release: String,
    /// Its number.
    pub number: u32,
    /// Helm's word for it.
    pub status: String,
    /// What it is stored as.
    pub driver: Driver,
    metadata: ObjectMeta,
}

impl Revision {
    fn of(driver: Driver, metadata: ObjectMeta) -> Option<Self> {
        let labels = metadata.labels.clone().unwrap_or_default();
        let release = labels.get("name")?.clone();
        let number: u32 = labels.get("version")?.parse().ok()?;
        // what is not called so is not Helm's
        metadata.name.as_ref().filter(|name| **name == format!("sh.helm.release.v1.{release}.v{number}"))?;
        Some(Self { release, number, status: labels.get("status").cloned().unwrap_or_default(), driver, metadata })
    }
}

impl ApiServer {
    /// All revisions of all releases that are stored in a namespace, without their payloads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_helm_revisions(&self, namespace: &str) -> Result<Vec<Revision>, Error> {
        let secrets = ListParams::default().labels(OWNED_BY_HELM).fields(SECRET_TYPE);
        let config_maps = ListParams::default().labels(OWNED_BY_HELM);
        let secrets = self.list_all_metadata::<Secret>(namespace, secrets).await?;
        let config_maps = self.list_all_metadata::<ConfigMap>(namespace, config_maps).await?;
        let secrets = secrets.into_iter().map(|found| (Driver::Secret, found));
        let all = secrets.chain(config_maps.into_iter().map(|found| (Driver::ConfigMap, found)));
        Ok(all.filter_map(|(driver, metadata)| Revision::of(driver, metadata)).collect())
    }

    /// A revision's payload, without the Secret's own base64; none where it is gone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch_helm_payload(&self, namespace: &str, of: &Revision) -> Result<Option<Vec<u8>>, Error> {
        let name = of.metadata.name.as_deref().unwrap_or_default();
        Ok(match of.driver {
            Driver::Secret => {
                let found = self.fetch::<Secret>(namespace, name).await?;
                found.and_then(|found| Some(found.data?.remove("release")?.0))
            }
            Driver::ConfigMap => {
                let found = self.fetch::<ConfigMap>(namespace, name).await?;
                found.and_then(|found| Some(found.data?.remove("release")?.into_bytes()))
            }
        })
    }

    /// Deletes a revision, under its uid.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_helm_revision(&self, namespace: &str, of: &Revision) -> Result<(), Error> {
        match of.driver {
            Driver::Secret => self.delete_as_seen::<Secret>(namespace, &of.metadata).await,
            Driver::ConfigMap => self.delete_as_seen::<ConfigMap>(namespace, &of.metadata).await,
        }
    }

    /// Deletes an object, unless it has changed since it was seen.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_as_seen<K>(&self, namespace: &str, seen: &ObjectMeta) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (name, uid) = (seen.name.as_deref().unwrap_or_default(), seen.uid.as_deref().unwrap_or_default());
        let version = seen.resource_version.as_ref();
        self.delete::<K>(namespace, name, DeleteParams::background(), uid, version).await
    }

    /// Those of these objects that are there, by their names.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch_all<K>(
        &self,
        namespace: &str,
        names: impl IntoIterator<Item = String> + Send,
    ) -> Result<BTreeMap<String, K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
    {
        let fetch = async |name: String| {
            let found = self.fetch::<K>(namespace, &name).await?;
            Ok::<_, Error>(found.map(|found| (name, found)))
        };
        let names: Vec<String> = names.into_iter().collect();
        let found = stream::iter(names.into_iter().map(fetch)).buffered(AT_ONCE);
        found.try_filter_map(async |found| Ok(found)).try_collect().await
    }

    /// The metadata of all objects of a kind, in pages.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_all_metadata<K>(&self, namespace: &str, params: ListParams) -> Result<Vec<ObjectMeta>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (api, mut page, mut all) = (self.api::<K>(Some(namespace)), params.limit(500), vec![]);
        loop {
            let list = bounded(api.list_metadata(&page)).await?;
            all.extend(list.items.into_iter().map(|found| found.metadata));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Gives a Job labels, under its uid.
    ///
    /// # Errors
    /// See [`Error`]: a conflict where it is gone, or another has its name.
    pub async fn label_job(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": uid, "labels": labels}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = bounded(self.api::<Job>(Some(namespace)).patch(name, &params, &Patch::Merge(patch))).await;
        patched.map(|_| ()).map_err(super::gone_is_conflict)
    }

    /// Creates a TaskRun, whose version is admission's to say.
    ///
    /// # Errors
    /// See [`Error`]: a conflict where there is one of that name.
    pub async fn create_task_run(&self, namespace: &str, task_run: &TaskRun) -> Result<(), Error> {
        let mut object = serde_json::to_value(task_run).map_err(kube::Error::SerdeError)?;
        object["spec"].as_object_mut().and_then(|spec| spec.remove("contextVersion"));
        let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let (api, _) = self.dynamic_api::<TaskRun>(Some(namespace));
        bounded(api.create(&params, &object)).await.map(|_| ())
    }

    /// Deletes an object that Helm has made for this release; returns why it stays, where it does.
    ///
    /// # Errors
    /// See [`Error`]: a conflict where it must have a uid and has another.
    pub async fn delete_helm_object(
        &self,
        namespace: &str,
        release: &str,
        (api_version, kind, name): (&str, &str, &str),
        uid: Option<&str>,
    ) -> Result<Option<&'static str>, Error> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = match bounded(pinned_kind(&self.client, &kind)).await {
            // the API that it was of is gone, and all objects with it
            Err(Error::Call(kube::Error::Api(status))) if status.code == 404 => return Ok(None),
            Err(Error::Call(kube::Error::Discovery(_))) => return Ok(None),
            other => other?,
        };
        if capabilities.scope == Scope::Cluster {
            return Ok(Some("it is of no namespace"));
        }
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let Some(found) = bounded(api.get_metadata_opt(name)).await? else { return Ok(None) };
        let says = |key: &str| found.annotations().get(key).map(String::as_str);
        if says(RELEASE_ANNOTATION) != Some(release) || says(NAMESPACE_ANNOTATION) != Some(namespace) {
            return Ok(Some("it is not this release's"));
        }
        if uid.is_some() && found.metadata.uid.as_deref() != uid {
            return Err(Error::Conflict(format!("{} {name} is another one now", resource.kind)));
        }
        let preconditions = Preconditions { uid: found.metadata.uid, resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        was_there(bounded(api.delete(name, &params)).await).map(|_| None)
    }

    /// The metadata of the ConfigMaps that the predecessor made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_predecessor_config_maps(&self, namespace: &str) -> Result<Vec<ObjectMeta>, Error> {
        let theirs = ListParams::default().labels("managed-by=orchestrator");
        self.list_all_metadata::<ConfigMap>(namespace, theirs).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_revision_is_what_its_labels_say() {
        let metadata = |labels: Value| {
            let metadata = json!({"name": "sh.helm.release.v1.a.v12", "labels": labels});
            serde_json::from_value::<ObjectMeta>(metadata).expect("metadata")
        };
        let of = |labels| Revision::of(Driver::Secret, metadata(labels));
        let found =
            of(json!({"name": "a", "owner": "helm", "status": "deployed", "version": "12"})).expect("a revision");
        assert_eq!((found.release.as_str(), found.number, found.status.as_str()), ("a", 12, "deployed"));
        assert!(of(json!({"name": "a", "version": "x"})).is_none());
        assert!(of(json!({"name": "b", "version": "12"})).is_none(), "Helm calls that of b otherwise");
    }
}
