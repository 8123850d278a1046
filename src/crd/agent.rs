//! `Agent`: what a run executes.

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the context is mounted if the Agent does not say.
pub const DEFAULT_CONTEXT_MOUNT_PATH: &str = "/context";

/// What a run executes: a Job template, to which the operator adds the context, the workspace and
/// the task's environment.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "orchestrator.io",
    version = "v1",
    kind = "Agent",
    namespaced,
    status = "AgentStatus",
    derive = "PartialEq",
    doc = "What a run executes: a Job template, to which the operator adds the context, the workspace and the task's environment.",
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.jobTemplate.spec.template.spec.containers[0].image"
    ),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// The Job to run. The operator forces `parallelism` and `completions` 1, `restartPolicy: Never`
    /// and `podReplacementPolicy: Failed`; where the template is silent it sets `backoffLimit: 0`,
    /// `activeDeadlineSeconds: 7200`, `ttlSecondsAfterFinished: 604800` and
    /// `automountServiceAccountToken: false`. Refused: `selector`, `manualSelector`, `managedBy`,
    /// `suspend`, `completionMode: Indexed` and, in the pod, `nodeName`. Take secrets by
    /// `secretKeyRef`.
    pub job_template: JobTemplateSpec,

    /// Where every container finds the markdown files, read-only. Default: `/context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains(':')").message("must be an absolute path without ':'"))]
    #[schemars(length(min = 2, max = 512))]
    pub context_mount_path: Option<String>,

    /// A volume that all versions of a task share: what an agent leaves there is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
}

impl AgentSpec {
    /// `contextMountPath` or its default.
    #[must_use]
    pub fn context_mount_path(&self) -> &str {
        self.context_mount_path.as_deref().unwrap_or(DEFAULT_CONTEXT_MOUNT_PATH)
    }
}

/// A `PersistentVolumeClaim` per task, `workspace-{serviceName}-{taskId}`: made once, kept across
/// versions and after the `TaskRun` is deleted, since it holds the agent's work.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Where every container finds the workspace. Default: `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains(':')").message("must be an absolute path without ':'"))]
    #[schemars(length(min = 2, max = 512))]
    pub mount_path: Option<String>,

    /// The spec of the claim, used when the claim does not exist.
    pub claim_template: PersistentVolumeClaimSpec,
}

impl Workspace {
    /// `mountPath` or its default.
    #[must_use]
    pub fn mount_path(&self) -> &str {
        self.mount_path.as_deref().unwrap_or("/workspace")
    }
}

/// What is known of an Agent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// `Valid`: whether a Job could be made of the template.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
