//! Objects in little memory: compressed JSON, without what no decision needs.
//!
//! A settled TaskRun takes 5 KiB as a struct, of which the most is room for what it might have; here it takes less than
//! one, and 10 µs to look into.

use crate::crd::{EnvVar, MarkdownFile, Phase, QUEUE_ANNOTATION, TaskRun};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Words that these objects share, in an order in which they stand: what is compressed begins as if it followed them.
const WORDS: &[u8] = include_bytes!("words.json");

/// What may be kept so.
pub trait Keep: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned {
    /// What is asked of many at a time.
    type Gist: Clone;

    /// Leaves out what no decision needs.
    fn prune(object: &mut Value);

    /// What is asked of many at a time.
    fn gist(object: &Value) -> Self::Gist;
}

/// An object of this kind. Of its metadata only what names it can be read as it is.
#[derive(Clone, Debug)]
pub struct Packed<K: Keep> {
    metadata: ObjectMeta,
    gist: K::Gist,
    /// Of the JSON, in bytes.
    length: usize,
    compressed: Box<[u8]>,
}

impl<K: Keep> Packed<K> {
    fn pack(mut object: Value) -> Result<Self, serde_json::Error> {
        K::prune(&mut object);
        let ObjectMeta { name, namespace, uid, resource_version, .. } = ObjectMeta::deserialize(&object["metadata"])?;
        let json = serde_json::to_vec(&object)?;
        Ok(Self {
            metadata: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() },
            gist: K::gist(&object),
            length: json.len(),
            compressed: compress_with_dict(&json, WORDS).into(),
        })
    }

    /// The object, as far as it is kept.
    ///
    /// # Errors
    /// Where it does not fit our types.
    pub fn unpack(&self) -> Result<K, String> {
        serde_json::from_slice(&self.json()?).map_err(|error| error.to_string())
    }

    /// Its metadata alone, of one that does not fit our types as well.
    ///
    /// # Errors
    /// None, since these were read when it was packed.
    pub fn unpack_metadata(&self) -> Result<ObjectMeta, String> {
        #[derive(Deserialize)]
        struct Object {
            metadata: ObjectMeta,
        }
        let object: Result<Object, _> = serde_json::from_slice(&self.json()?);
        object.map(|object| object.metadata).map_err(|error| error.to_string())
    }

    /// What is asked of many at a time.
    pub fn gist(&self) -> &K::Gist {
        &self.gist
    }

    fn json(&self) -> Result<Vec<u8>, String> {
        decompress_with_dict(&self.compressed, self.length, WORDS).map_err(|error| error.to_string())
    }
}

impl<'de, K: Keep> Deserialize<'de> for Packed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::pack(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<K: Keep> Resource for Packed<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Of a TaskRun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gist {
    pub phase: Phase,
    pub is_stalled: bool,
    /// Whether its present version has a run.
    pub has_run: bool,
}

/// The markdown above all, also in kubectl's own copy of it. What does not fit stays, to be seen.
impl Keep for TaskRun {
    /// None where it cannot be read.
    type Gist = Option<Gist>;

    fn prune(object: &mut Value) {
        prune_metadata(object, |key| key != "kubectl.kubernetes.io/last-applied-configuration");
        let Some(spec) = object.get_mut("spec") else { return };
        if let Some(files) =
            spec.get_mut("markdownFiles").filter(|files| Vec::<MarkdownFile>::deserialize(&**files).is_ok())
        {
            *files = json!([]);
        }
        if let Some(env) = spec.get_mut("env").filter(|env| Vec::<EnvVar>::deserialize(&**env).is_ok()) {
            *env = json!([]);
        }
    }

    fn gist(object: &Value) -> Self::Gist {
        let task_run = Self::deserialize(object).ok()?;
        let (phase, is_stalled) = (task_run.phase(), task_run.is_stalled());
        Some(Gist { phase, is_stalled, has_run: task_run.present_run().is_some() })
    }
}

/// All of the template but its gates.
impl Keep for Job {
    type Gist = ();

    fn prune(object: &mut Value) {
        prune_metadata(object, |key| key == QUEUE_ANNOTATION);
        keep_gates(object, "/spec/template/spec");
    }

    fn gist(_: &Value) {}
}

impl Keep for Pod {
    type Gist = ();

    fn prune(object: &mut Value) {
        prune_metadata(object, |_| false);
        keep_gates(object, "/spec");
    }

    fn gist(_: &Value) {}
}

fn prune_metadata(object: &mut Value, is_kept: impl Fn(&str) -> bool) {
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
    metadata.remove("managedFields");
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|key, _| is_kept(key));
    }
}

fn keep_gates(object: &mut Value, pod: &str) {
    if let Some(Value::Object(pod)) = object.pointer_mut(pod) {
        pod.retain(|key, _| key == "schedulingGates");
        pod.insert("containers".to_owned(), json!([]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::TaskRunStatus;

    fn packed<K: Keep>(object: Value) -> Packed<K> {
        serde_json::from_value(object).expect("metadata")
    }

    fn task_run() -> Value {
        json!({
            "apiVersion": "orchestrator.io/v1", "kind": "TaskRun",
            "metadata": {
                "name": "task-71", "namespace": "agents", "uid": "0e3dbf4f-6a35-4f3c-9a55-8f3c9e8d1b27", "resourceVersion": "918273",
                "generation": 1, "creationTimestamp": "2026-03-04T05:06:07Z", "finalizers": ["orchestrator.io/run-cleanup"],
                "labels": {"task-id": "71", "service-name": "auth"},
                "annotations": {
                    "orchestrator.io/context-changed-by": "system:serviceaccount:ci:bot",
                    "kubectl.kubernetes.io/last-applied-configuration": "secret",
                },
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "taskId": 71, "serviceName": "auth", "agentName": "coder", "contextVersion": 1,
                "markdownFiles": [{"filename": "task.md", "content": "secret"}], "env": [{"name": "A", "value": "secret"}],
            },
            "status": settled(),
        })
    }

    fn settled() -> Value {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-03-04T05:16:17Z", "observedGeneration": 1,
            })
        };
        let message = "Job auth-71-v1 succeeded";
        json!({
            "phase": "Succeeded", "jobName": "auth-71-v1", "attempts": 1, "message": message, "contextVersion": 1,
            "lastUpdated": "2026-03-04T05:16:17.123456Z", "observedGeneration": 1,
            "startTime": "2026-03-04T05:06:08Z", "completionTime": "2026-03-04T05:16:17Z",
            "conditions": [
                condition("Complete", "True", "Succeeded", message), condition("Failed", "False", "AsExpected", ""),
                condition("Suspended", "False", "AsExpected", ""), condition("Reconciling", "False", "AsExpected", ""),
                condition("Stalled", "False", "AsExpected", ""),
            ],
            "runs": [{
                "contextVersion": 1, "jobName": "auth-71-v1", "jobUid": "7c2f0c61-52bb-47c1-a1a2-4a1c0f5e9d33",
                "outcome": "Succeeded", "attempts": 1, "startTime": "2026-03-04T05:06:08Z",
                "completionTime": "2026-03-04T05:16:17Z", "message": message, "changedBy": "system:serviceaccount:ci:bot",
            }],
        })
    }

    #[test]
    fn what_is_kept_comes_back_and_nothing_that_is_secret() {
        let packed = packed::<TaskRun>(task_run());
        let json = String::from_utf8(packed.json().expect("ours")).expect("text");
        assert!(!json.contains("secret"), "{json}");
        let found = packed.unpack().expect("it fits");
        assert_eq!(found.status, Some(TaskRunStatus::deserialize(settled()).expect("it fits")));
        assert_eq!((found.spec.context_version, found.spec.agent_name.as_str()), (1, "coder"));
        assert_eq!(found.metadata.labels.map(|labels| labels.len()), Some(2));
        assert_eq!(packed.gist(), &Some(Gist { phase: Phase::Succeeded, is_stalled: false, has_run: true }));
        assert_eq!(packed.metadata.name.as_deref(), Some("task-71"));
    }

    #[test]
    fn a_settled_one_takes_a_fraction_of_its_json() {
        let packed = packed::<TaskRun>(task_run());
        assert!(packed.compressed.len() * 4 < packed.length, "{} of {}", packed.compressed.len(), packed.length);
    }

    #[test]
    fn what_does_not_fit_is_kept_with_its_metadata() {
        for (path, wrong) in [("/spec/markdownFiles", json!(123)), ("/spec/env", json!([1])), ("/spec", json!("no"))] {
            let mut object = task_run();
            object["metadata"]["deletionTimestamp"] = json!("2026-03-04T05:06:07Z");
            *object.pointer_mut(path).expect("it is there") = wrong;
            let packed = packed::<TaskRun>(object);
            assert!(packed.unpack().is_err() && packed.gist().is_none(), "{path}");
            assert!(packed.unpack_metadata().expect("it fits").deletion_timestamp.is_some());
        }
        assert!(serde_json::from_value::<Packed<TaskRun>>(json!({"metadata": 1})).is_err());
        assert!(serde_json::from_value::<Packed<TaskRun>>(json!(1)).is_err());
    }

    #[test]
    fn of_jobs_and_pods_the_gates_are_kept() {
        let pod =
            json!({"schedulingGates": [{"name": "a"}], "containers": [{"name": "b", "env": []}], "nodeName": "c"});
        let metadata = json!({"name": "d", "annotations": {"e": "f", QUEUE_ANNOTATION: "g"}, "labels": {"h": "i"}});
        let job = packed::<Job>(json!({"metadata": metadata, "spec": {"suspend": true, "template": {"spec": pod}}}));
        let pod = packed::<Pod>(json!({"metadata": metadata, "spec": pod, "status": {"phase": "Running"}})).unpack();
        let (job, pod) = (job.unpack().expect("a Job"), pod.expect("a pod"));
        assert_eq!(job.metadata.annotations, Some([(QUEUE_ANNOTATION.to_owned(), "g".to_owned())].into()));
        let spec = job.spec.expect("a spec");
        assert_eq!(spec.suspend, Some(true));
        for spec in [pod.spec, spec.template.spec] {
            let spec = spec.expect("a spec");
            assert_eq!((spec.containers.len(), spec.node_name), (0, None));
            assert_eq!(spec.scheduling_gates.map(|gates| gates.len()), Some(1));
        }
        assert_eq!(pod.metadata.labels.map(|labels| labels.len()), Some(1));
        assert_eq!(pod.status.and_then(|status| status.phase).as_deref(), Some("Running"));
    }
}
