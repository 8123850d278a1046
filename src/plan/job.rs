//! The objects of a run: ConfigMap, Job, workspace claim.
//!
//! Each is a pure function of the TaskRun and its Agent. Nothing that a user wrote reaches a shell
//! string: files are mounted, environment is passed as literal values.

use super::CONTROLLER_UID_LABEL;
use crate::crd::{
    Agent, EnvVar as TaskEnv, MANAGED_BY, QUEUE_ANNOTATION, QUEUE_LABEL, RELEASE_GATE, REQUEST_IDS, RunId, TASK_LABEL,
    TASK_RUN_LABEL, TASK_RUN_UID_LABEL, TaskRun,
};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EnvVar, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource,
    PodSchedulingGate, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// Most bytes of the annotation that says who added what: all annotations together may have 256 KiB.
const MAX_REQUEST_IDS: usize = 128 * 1024;
/// Names of the volumes that the operator adds; an Agent may not use them.
const CONTEXT_VOLUME: &str = "taskrun-context";
const WORKSPACE_VOLUME: &str = "taskrun-workspace";
/// A finished Job is kept this long at least: its end must be seen.
const MIN_TTL_SECONDS: i32 = 300;
const DEFAULT_TTL_SECONDS: i32 = 7 * 24 * 3600;
const DEFAULT_DEADLINE_SECONDS: i64 = 2 * 3600;

/// The labels of all that belongs to a run. The task's own are shared by all its runs, whichever
/// TaskRun they come from.
#[must_use]
pub fn run_labels(task_run: &TaskRun) -> BTreeMap<String, String> {
    let run = task_run.spec.run_id();
    let labels = [
        ("task-id", run.task_id.to_string()),
        ("service-name", run.service_name.clone()),
        ("context-version", run.version.to_string()),
        ("app.kubernetes.io/name", "taskrun".to_owned()),
        ("app.kubernetes.io/instance", run.task()),
        ("app.kubernetes.io/managed-by", MANAGED_BY.to_owned()),
        (TASK_LABEL, run.task()),
        (TASK_RUN_LABEL, task_run.name_any()),
        (TASK_RUN_UID_LABEL, task_run.uid().unwrap_or_default()),
    ];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Selects the Jobs and pods of all runs of a task, also of those of another TaskRun.
#[must_use]
pub fn task_selector(run: &RunId) -> String {
    format!("{TASK_LABEL}={}", run.task())
}

/// Selects the pods that a Job has made, by its uid.
#[must_use]
pub fn pods_of_job(uid: &str) -> String {
    format!("{CONTROLLER_UID_LABEL}={uid}")
}

/// The ConfigMap of the present version: immutable, so that what a run was given can be read later.
#[must_use]
pub fn build_config_map(task_run: &TaskRun) -> ConfigMap {
    let files = task_run.spec.markdown_files.iter();
    ConfigMap {
        metadata: ObjectMeta { annotations: request_ids(task_run), ..run_metadata(task_run) },
        data: Some(files.map(|file| (file.filename.clone(), file.content.clone())).collect()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// Who added what, so that a rollback brings it back with the files. Where there is no place for all, none is kept.
fn request_ids(task_run: &TaskRun) -> Option<BTreeMap<String, String>> {
    let files = task_run.spec.markdown_files.iter();
    let ids: BTreeMap<_, _> = files.filter_map(|file| Some((&file.filename, file.request_id.as_ref()?))).collect();
    let json = serde_json::to_string(&ids).ok().filter(|json| !ids.is_empty() && json.len() <= MAX_REQUEST_IDS)?;
    Some(BTreeMap::from([(REQUEST_IDS.to_owned(), json)]))
}

/// The claim that all runs of the task share, if the Agent wants one. Nobody owns it: it outlives the
/// TaskRun, since it holds the agent's work.
#[must_use]
pub fn build_claim(task_run: &TaskRun, agent: &Agent) -> Option<PersistentVolumeClaim> {
    let workspace = agent.spec.workspace.as_ref()?;
    let mut labels = run_labels(task_run);
    for of_one_run in ["context-version", TASK_RUN_LABEL, TASK_RUN_UID_LABEL] {
        labels.remove(of_one_run);
    }
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(task_run.spec.run_id().workspace()),
            namespace: task_run.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(workspace.claim_template.clone()),
        ..PersistentVolumeClaim::default()
    })
}

/// The Job of the present version: suspended, and behind a scheduling gate, so that nothing starts
/// before it is released, whoever unsuspends it.
///
/// # Errors
/// What in the Agent cannot be run, with its path and the remedy.
pub fn build_job(task_run: &TaskRun, agent: &Agent) -> Result<Job, String> {
    let template = &agent.spec.job_template;
    let mut spec = template.spec.clone().ok_or("spec.jobTemplate.spec: must be set")?;
    refuse(&spec)?;
    let mut pod = spec.template.spec.take().ok_or("spec.jobTemplate.spec.template.spec: must be set")?;
    add_volumes(&mut pod, task_run, agent)?;
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        add_to_container(container, task_run, agent);
    }
    pod.restart_policy = Some("Never".to_owned());
    pod.automount_service_account_token.get_or_insert(false);
    let gate = PodSchedulingGate { name: RELEASE_GATE.to_owned() };
    pod.scheduling_gates.get_or_insert_default().push(gate);
    let pod_metadata = spec.template.metadata.get_or_insert_default();
    pod_metadata.labels.get_or_insert_default().extend(run_labels(task_run));
    spec.template.spec = Some(pod);
    Ok(Job {
        metadata: job_metadata(task_run, template.metadata.clone().unwrap_or_default()),
        spec: Some(force(spec)),
        ..Job::default()
    })
}

/// What the run protocol needs, and safe values where the Agent is silent.
fn force(spec: JobSpec) -> JobSpec {
    JobSpec {
        parallelism: Some(1),
        completions: Some(1),
        suspend: Some(true),
        pod_replacement_policy: Some("Failed".to_owned()),
        backoff_limit: spec.backoff_limit.or(Some(0)),
        active_deadline_seconds: spec.active_deadline_seconds.or(Some(DEFAULT_DEADLINE_SECONDS)),
        ttl_seconds_after_finished: Some(
            spec.ttl_seconds_after_finished.map_or(DEFAULT_TTL_SECONDS, |ttl| ttl.max(MIN_TTL_SECONDS)),
        ),
        ..spec
    }
}

fn refuse(spec: &JobSpec) -> Result<(), String> {
    let pod = spec.template.spec.as_ref();
    let refused = [
        ("selector", spec.selector.is_some()),
        ("manualSelector", spec.manual_selector.is_some()),
        ("managedBy", spec.managed_by.is_some()),
        ("suspend", spec.suspend.is_some()),
        ("completionMode", spec.completion_mode.as_deref() == Some("Indexed")),
        ("template.spec.nodeName", pod.is_some_and(|pod| pod.node_name.is_some())),
    ];
    let found: Vec<String> = refused
        .iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(field, _)| format!("spec.jobTemplate.spec.{field}: must be left out, the operator sets it"))
        .collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}

fn add_volumes(pod: &mut PodSpec, task_run: &TaskRun, agent: &Agent) -> Result<(), String> {
    let volumes = pod.volumes.get_or_insert_default();
    if let Some(taken) = volumes.iter().find(|v| [CONTEXT_VOLUME, WORKSPACE_VOLUME].contains(&&*v.name)) {
        let name = &taken.name;
        return Err(format!(
            "spec.jobTemplate.spec.template.spec.volumes: the name \"{name}\" is the operator's, choose another"
        ));
    }
    let run = task_run.spec.run_id();
    volumes.push(Volume {
        name: CONTEXT_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: run.to_string(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    });
    if agent.spec.workspace.is_some() {
        volumes.push(Volume {
            name: WORKSPACE_VOLUME.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: run.workspace(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    Ok(())
}

fn add_to_container(container: &mut Container, task_run: &TaskRun, agent: &Agent) {
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.push(VolumeMount {
        name: CONTEXT_VOLUME.to_owned(),
        mount_path: agent.spec.context_mount_path().to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    if let Some(workspace) = &agent.spec.workspace {
        mounts.push(VolumeMount {
            name: WORKSPACE_VOLUME.to_owned(),
            mount_path: workspace.mount_path().to_owned(),
            ..VolumeMount::default()
        });
    }
    // ours come first, so that the Agent's own may refer to them as $(TASK_ID)
    let mut env = task_env(task_run, agent);
    let of_agent = container.env.take().unwrap_or_default();
    let kept = of_agent.into_iter().filter(|var| env.iter().all(|ours| ours.name != var.name));
    let kept: Vec<EnvVar> = kept.collect();
    env.extend(kept);
    container.env = Some(env);
}

fn task_env(task_run: &TaskRun, agent: &Agent) -> Vec<EnvVar> {
    let spec = &task_run.spec;
    let ours = [
        ("TASK_ID", spec.task_id.to_string()),
        ("SERVICE_NAME", spec.service_name.clone()),
        ("AGENT_NAME", spec.agent_name.clone()),
        ("CONTEXT_VERSION", spec.context_version.to_string()),
        ("CONTEXT_DIR", agent.spec.context_mount_path().to_owned()),
    ];
    // the trace of its version, for an agent that goes on with it; who sets another wants another
    let is_set = spec.env.iter().any(|var| var.name == "TRACEPARENT");
    let traceparent = task_run.traceparent().filter(|_| !is_set).map(|text| ("TRACEPARENT", text.to_owned()));
    let ours = ours.into_iter().chain(traceparent).map(|(name, value)| (name.to_owned(), value));
    // "$$" is a literal "$": a value must not be able to quote the Agent's secrets as $(NAME)
    let literal = |var: &TaskEnv| (var.name.clone(), var.value.replace('$', "$$"));
    let all = ours.chain(spec.env.iter().map(literal));
    all.map(|(name, value)| EnvVar { name, value: Some(value), value_from: None }).collect()
}

fn run_metadata(task_run: &TaskRun) -> ObjectMeta {
    ObjectMeta {
        name: Some(task_run.spec.run_id().to_string()),
        namespace: task_run.namespace(),
        labels: Some(run_labels(task_run)),
        owner_references: task_run.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Of the template's metadata only labels and annotations are taken, and ours win. The queue, which the
/// TaskRun's label names or else the template's, waits in an annotation: Kueue must not see the Job before
/// its release.
fn job_metadata(task_run: &TaskRun, template: ObjectMeta) -> ObjectMeta {
    let ours = run_metadata(task_run);
    let mut labels = template.labels.unwrap_or_default();
    let of_template = labels.remove(QUEUE_LABEL);
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.remove(QUEUE_ANNOTATION);
    let queue = task_run.labels().get(QUEUE_LABEL).cloned().or(of_template);
    annotations.extend(queue.map(|queue| (QUEUE_ANNOTATION.to_owned(), queue)));
    labels.extend(ours.labels.clone().unwrap_or_default());
    let annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    ObjectMeta { labels: Some(labels), annotations, ..ours }
}
