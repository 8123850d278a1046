//! The API: the types `TaskRun` and `Agent`, their names, labels, limits and conditions.
//!
//! Every other room stands on this one, so it imports none of ours. Field documentation is written
//! for users: it becomes the CRD's schema and what `kubectl explain` shows. After a change run
//! `make generate`; a test fails while `crds/` is stale.

mod agent;
mod condition;
mod name;
mod task_run;

pub use agent::{Agent, AgentSpec, AgentStatus, Workspace};
pub use condition::{Conditions, reason};
pub use name::{
    RunId, TaskNames, is_env_name, is_filename, is_label, is_reserved_env_name, is_subdomain, is_traceparent,
};
pub use task_run::{
    Adoption, ContextUpdatePolicy, EnvVar, MarkdownFile, Outcome, Phase, RunStatus, TaskRun, TaskRunSpec, TaskRunStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// API group of both kinds, and prefix of our annotations, gate and finalizer.
pub const GROUP: &str = "orchestrator.io";
/// Value of `app.kubernetes.io/managed-by` on all we create.
pub const MANAGED_BY: &str = "taskrun-operator";
/// Finalizer on a `TaskRun`: its deletion waits until the operator has ended its pods.
pub const FINALIZER: &str = "orchestrator.io/run-cleanup";
/// Scheduling gate in every pod template of ours: no pod starts before the run is released.
pub const RELEASE_GATE: &str = "orchestrator.io/release";
/// Kueue's label: the queue that a `TaskRun`'s runs wait in; on a Job, that Kueue decides when it starts.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Annotation on a Job: the queue that it is put in at its release.
pub const QUEUE_ANNOTATION: &str = "orchestrator.io/queue-name";
/// Annotation on a `TaskRun`: the user who caused its present `contextVersion`.
pub const CHANGED_BY: &str = "orchestrator.io/context-changed-by";
/// Annotation on a `TaskRun`: the span of the admission that gave it its present `contextVersion`, where traces are on (W3C
/// Trace Context). All that happens to the version is told as a part of that.
pub const TRACEPARENT: &str = "orchestrator.io/traceparent";
/// Annotation on a `TaskRun`: files, separated by commas, that a write removes though requests added them. It counts in
/// the write that sets or changes it.
pub const REMOVE_FILES: &str = "orchestrator.io/remove-files";
/// Annotation on a run's ConfigMap: as a JSON object, which request added which file.
pub const REQUEST_IDS: &str = "orchestrator.io/request-ids";
/// Annotation on a `TaskRun`, read where it has no run yet: the Job of somebody else that its version 1 is, as
/// `{name}/{uid}`, or `{name}` where that is gone. The Job must carry our labels for the task and the `TaskRun`.
pub const ADOPTS: &str = "orchestrator.io/adopts-job";
/// Annotation on a `TaskRun`: the Helm release that it was made of.
pub const HELM_RELEASE: &str = "orchestrator.io/helm-release";
/// Label on all that belongs to a run: `{service}-{task}`, shared by all runs of the task. Our Jobs and
/// pods are watched and listed by it.
pub const TASK_LABEL: &str = "orchestrator.io/task";
/// Label on Jobs and pods: the name of the `TaskRun` that they belong to.
pub const TASK_RUN_LABEL: &str = "orchestrator.io/task-run";
/// Label on Jobs and pods: the uid of the `TaskRun` that they belong to.
pub const TASK_RUN_UID_LABEL: &str = "orchestrator.io/task-run-uid";

/// Most bytes that the contents of all files may have in sum: a ConfigMap holds 1 MiB.
pub const MAX_CONTENT_BYTES: usize = 900 * 1024;
/// Most bytes that a `TaskRun` may have as the API server's escaped JSON: etcd takes about 1.5 MiB
/// and each status write needs room as well.
pub const MAX_OBJECT_BYTES: usize = 1280 * 1024;
/// Most files of one `TaskRun`.
pub const MAX_FILES: usize = 1_000;
/// Longest filename, in characters.
pub const MAX_FILENAME: usize = 128;
/// Longest `serviceName`, in characters: `{service}-{task}-v{version}` then fits 63.
pub const MAX_SERVICE_NAME: usize = 40;
/// Most environment variables of one `TaskRun`.
pub const MAX_ENV: usize = 64;
/// Finished runs that are kept where `historyLimit` is not given.
pub const DEFAULT_HISTORY_LIMIT: u32 = 10;

/// The CRDs as they ship in `crds/`.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![polish(TaskRun::crd()), polish(Agent::crd())]
}

/// Takes away what derives add and users would stumble over: Rust's integer formats (the API server
/// warns of them), `nullable` and empty defaults (so that `null` and "not given" are one thing) and,
/// below what is Kubernetes' own, the descriptions (381 kB).
fn polish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.take()) else {
            continue;
        };
        let mut json = serde_json::to_value(schema).unwrap_or_default();
        drop_derived(&mut json);
        for borrowed in ["jobTemplate", "workspace/properties/claimTemplate"] {
            if let Some(schema) = json.pointer_mut(&format!("/properties/spec/properties/{borrowed}/properties")) {
                drop_descriptions(schema);
            }
        }
        if let Some(validation) = version.schema.as_mut() {
            validation.open_api_v3_schema = serde_json::from_value(json).ok();
        }
    }
    crd
}

fn drop_derived(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.retain(|key, value| match key.as_str() {
            "format" => !value.as_str().is_some_and(|format| format.starts_with("uint")),
            "nullable" => !value.is_boolean(),
            "default" => *value != Value::Array(vec![]),
            _ => true,
        });
    }
    each_child(schema, drop_derived);
}

fn drop_descriptions(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.retain(|key, value| key != "description" || !value.is_string());
    }
    each_child(schema, drop_descriptions);
}

fn each_child(value: &mut Value, change: fn(&mut Value)) {
    match value {
        Value::Object(map) => map.values_mut().for_each(change),
        Value::Array(list) => list.iter_mut().for_each(change),
        _ => {}
    }
}
