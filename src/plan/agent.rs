//! Whether a Job can be made of an Agent: what only the API server can tell (`cpu: banana`).

use super::job::build_job;
use super::standing::{MAX_MESSAGE, cut};
use crate::crd::{Agent, AgentStatus, TaskRun, TaskRunSpec, reason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

/// The condition's type.
const VALID: &str = "Valid";
/// Name of the Job of a dry run: no run's, as those end in a version.
const TRIAL: &str = "taskrun-operator-trial";

/// A Job for a dry run: as for a task, but nobody's.
///
/// # Errors
/// What in the Agent cannot be run, with its path and the remedy.
pub fn build_trial_job(agent: &Agent) -> Result<Job, String> {
    let spec = TaskRunSpec {
        task_id: 1,
        service_name: "trial".to_owned(),
        agent_name: agent.name_any(),
        context_version: 1,
        ..TaskRunSpec::default()
    };
    let mut task_run = TaskRun::new("task-1", spec);
    task_run.metadata.namespace = agent.namespace();
    let job = build_job(&task_run, agent)?;
    let name = Some(TRIAL.to_owned());
    Ok(Job { metadata: ObjectMeta { name, owner_references: None, ..job.metadata }, ..job })
}

/// Whether the status speaks of this generation.
#[must_use]
pub fn is_judged(metadata: &ObjectMeta, status: Option<&AgentStatus>) -> bool {
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == VALID && c.observed_generation == metadata.generation)
}

/// The merge patch of the Agent's status that says what came of its dry run: nothing where it says so already.
#[must_use]
pub fn judge_agent(
    metadata: &ObjectMeta,
    status: Option<&AgentStatus>,
    verdict: &Result<(), String>,
    now: Timestamp,
) -> Option<Value> {
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let old = conditions.iter().find(|condition| condition.type_ == VALID);
    let (word, reason, message) = match verdict {
        Ok(()) => ("True", reason::VALID, ""),
        Err(message) => ("False", reason::INVALID_AGENT, message.as_str()),
    };
    let message = cut(message, MAX_MESSAGE);
    let since = old.filter(|old| old.status == word).map(|old| old.last_transition_time.clone());
    let condition = Condition {
        type_: VALID.to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    if old == Some(&condition) {
        return None;
    }
    let others = conditions.iter().filter(|condition| condition.type_ != VALID);
    Some(json!({
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": {"conditions": others.chain([&condition]).collect::<Vec<_>>()},
    }))
}
