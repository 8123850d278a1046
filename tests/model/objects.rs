//! Abstract state to Kubernetes objects, for `plan` and admission to decide on, and their steps back.

use super::world::{Change, HELM, HELM_JOB, Job, JobUid, Link, Outcome, Phase, Pod, Run, TWIN, TaskRun, Write};
use k8s_openapi::api::batch::v1::{Job as KubeJob, JobCondition, JobSpec, JobStatus, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Pod as KubePod, PodSchedulingGate, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, from_value, json, to_value};
use std::collections::BTreeMap;
use taskrun_operator::admission::{Subject, Writer, mutate, validate};
use taskrun_operator::crd::{self, Agent, AgentSpec, FINALIZER, RELEASE_GATE, RunStatus, TaskNames, TaskRunSpec};
use taskrun_operator::plan::{CLEANUP_DEADLINE, Observed, Step};

/// What an operator has read before it decides.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Read {
    pub task_run: TaskRun,
    pub job: Option<Job>,
    pub others: Vec<Job>,
    pub pods: Vec<Pod>,
    /// The uid of its TaskRun.
    pub config_map: Option<u8>,
}

/// The one resourceVersion that there is: that of an object which has not changed since.
const VERSION: &str = "1";

/// What `plan` is given.
pub fn observed(read: &Read, policy: Option<crd::ContextUpdatePolicy>) -> Observed {
    let name = |version: u8| format!("auth-7-v{version}");
    let config_map = |owner: u8| {
        metadata(&name(read.task_run.version), &format!("config-map-{owner}"), Some(owner_reference(owner)))
    };
    let adopted = read.others.iter().find(|job| job.uid.is_helms() && read.task_run.runs.is_empty());
    Observed {
        adopted: adopted.filter(|_| read.task_run.adopts).map(job),
        task_run: task_run(&read.task_run, policy),
        job: read.job.as_ref().map(job),
        other_jobs: read.others.iter().map(job).collect(),
        pods: read.pods.iter().copied().map(pod).collect(),
        config_map: read.config_map.map(config_map),
        config_maps: None,
        workload: None,
        agent: Some(Ok(agent())),
        refused: None,
        names: TaskNames::ById,
        now: now(),
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24)
}

fn task_run(of: &TaskRun, policy: Option<crd::ContextUpdatePolicy>) -> crd::TaskRun {
    let spec = TaskRunSpec {
        task_id: 7,
        service_name: "auth".to_owned(),
        agent_name: "coder".to_owned(),
        context_version: of.version.into(),
        markdown_files: vec![file(of.version)],
        suspend: of.suspend.then_some(true),
        cancel: of.cancel.then_some(true),
        context_update_policy: policy,
        ..TaskRunSpec::default()
    };
    let waited = if of.is_overdue { CLEANUP_DEADLINE } else { SignedDuration::ZERO };
    let mut task_run = crd::TaskRun::new(task_run_name(of.uid), spec);
    task_run.metadata = ObjectMeta {
        namespace: Some("default".to_owned()),
        generation: Some(i64::from(of.version) - i64::from(of.first) + 1),
        finalizers: of.has_finalizer.then(|| vec![FINALIZER.to_owned()]),
        deletion_timestamp: of.deleting.then(|| Time(now() - waited)),
        annotations: of.adopts.then(|| [(crd::ADOPTS.to_owned(), format!("{HELM_NAME}/{}", uid(HELM_JOB)))].into()),
        ..metadata(&task_run.name_any(), &format!("task-run-{}", of.uid), None)
    };
    let runs: Vec<RunStatus> = of.runs.iter().copied().map(run_status).collect();
    task_run.status = (!runs.is_empty()).then(|| crd::TaskRunStatus { runs, ..crd::TaskRunStatus::default() });
    task_run
}

fn file(content: u8) -> crd::MarkdownFile {
    crd::MarkdownFile { filename: "task.md".to_owned(), content: format!("# Context {content}"), request_id: None }
}

fn run_status(run: Run) -> RunStatus {
    RunStatus {
        context_version: run.version.into(),
        job_name: run.job.map(job_name),
        job_uid: run.job.map(uid),
        outcome: run.outcome.map(|outcome| match outcome {
            Outcome::Succeeded => crd::Outcome::Succeeded,
            Outcome::Failed => crd::Outcome::Failed,
            Outcome::Superseded => crd::Outcome::Superseded,
            Outcome::Cancelled => crd::Outcome::Cancelled,
            Outcome::Unknown => crd::Outcome::Unknown,
        }),
        ..RunStatus::default()
    }
}

fn metadata(name: &str, uid: &str, owner: Option<OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        resource_version: Some(VERSION.to_owned()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn task_run_name(uid: u8) -> &'static str {
    if uid == TWIN { "auth-task-7" } else { "task-7" }
}

fn owner_reference(task_run: u8) -> OwnerReference {
    let (kind, name) = ("TaskRun".to_owned(), task_run_name(task_run).to_owned());
    OwnerReference { kind, name, uid: format!("task-run-{task_run}"), ..OwnerReference::default() }
}

fn job(of: &Job) -> KubeJob {
    let condition = |type_: &str, reason: &str| JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        ..JobCondition::default()
    };
    let conditions = match of.end {
        Some(Outcome::Succeeded) => vec![condition("Complete", "CompletionsReached")],
        Some(Outcome::Cancelled) => vec![condition("Failed", "DeadlineExceeded")],
        Some(_) => vec![condition("Failed", "BackoffLimitExceeded")],
        None => vec![condition("Suspended", "JobSuspended")],
    };
    let spec = PodSpec { scheduling_gates: gates(of.gated), ..PodSpec::default() };
    KubeJob {
        metadata: ObjectMeta {
            deletion_timestamp: of.deleting.then(|| Time(now())),
            labels: of.uid.is_helms().then(|| {
                let labels = [(crd::TASK_LABEL, "auth-7"), (crd::TASK_RUN_LABEL, "task-7")];
                labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
            }),
            ..metadata(&job_name(of.uid), &uid(of.uid), (of.owner != HELM).then(|| owner_reference(of.owner)))
        },
        spec: Some(JobSpec {
            suspend: Some(of.suspended),
            active_deadline_seconds: of.cancelled.then_some(1),
            template: PodTemplateSpec { spec: Some(spec), ..PodTemplateSpec::default() },
            ..JobSpec::default()
        }),
        status: of.known.then(|| JobStatus { conditions: Some(conditions), ..JobStatus::default() }),
    }
}

fn gates(gated: bool) -> Option<Vec<PodSchedulingGate>> {
    gated.then(|| vec![PodSchedulingGate { name: RELEASE_GATE.to_owned() }])
}

fn pod(of: Pod) -> KubePod {
    let name = format!("{}-{}", uid(of.job), of.n);
    let job = OwnerReference { kind: "Job".to_owned(), uid: uid(of.job), ..OwnerReference::default() };
    let mut labels = vec![("batch.kubernetes.io/controller-uid", uid(of.job))];
    if of.owner != HELM {
        labels.extend([
            (crd::TASK_LABEL, "auth-7".to_owned()),
            (crd::TASK_RUN_LABEL, task_run_name(of.owner).to_owned()),
            (crd::TASK_RUN_UID_LABEL, format!("task-run-{}", of.owner)),
            ("context-version", of.job.run().to_string()),
        ]);
    }
    let phase = match of.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    };
    KubePod {
        metadata: ObjectMeta {
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            deletion_timestamp: of.deleting.then(|| Time(now())),
            ..metadata(&name, &name, (of.link == Link::Owned).then_some(job))
        },
        spec: Some(PodSpec { scheduling_gates: gates(of.gated), ..PodSpec::default() }),
        status: Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }),
    }
}

fn agent() -> Agent {
    let template: JobTemplateSpec =
        from_value(json!({"spec": {"template": {"spec": {"containers": [{"name": "agent"}]}}}})).unwrap();
    Agent::new("coder", AgentSpec { job_template: template, context_mount_path: None, workspace: None })
}

/// The name of Helm's Job.
const HELM_NAME: &str = "auth-task-7-claude-code";

fn job_name(job: JobUid) -> String {
    if job.is_helms() { HELM_NAME.to_owned() } else { format!("auth-7-v{}", job.version) }
}

fn uid(job: JobUid) -> String {
    format!("job-{}-{}", job.version, job.n)
}

/// The write that a step is; none where nothing comes of it that is held here.
pub fn write(step: &Step, read: &Read) -> Option<Write> {
    Some(match step {
        Step::SetFinalizers { finalizers, .. } => Write::Finalizer(!finalizers.is_empty()),
        Step::PatchStatus(patch) => {
            let runs: Vec<RunStatus> = from_value(patch["status"].get("runs")?.clone()).unwrap();
            let runs: Vec<Run> = runs.iter().map(run).collect();
            if runs == read.task_run.runs {
                return None;
            }
            Write::Status { runs, locked: is_locked(patch) }
        }
        Step::CreateConfigMap(config_map) => {
            Write::CreateConfigMap { version: numbers(&config_map.name_any())[1], owner: read.task_run.uid }
        }
        Step::DeleteConfigMap { name, uid } => {
            Write::DeleteConfigMap { version: numbers(name)[1], owner: numbers(uid)[0] }
        }
        Step::CreateJob(job) => Write::CreateJob(new_job(job, read.task_run.uid)),
        Step::DeleteJob { uid, resource_version, .. } => {
            Write::DeleteJob { uid: job_uid(uid), locked: resource_version.is_some() }
        }
        Step::PatchJob { name, patch } => {
            let by_uid = patch["metadata"]["uid"].as_str();
            let named = if name == HELM_NAME { HELM_JOB } else { JobUid { version: numbers(name)[1], n: 0 } };
            let (uid, locked) = (by_uid.map_or(named, job_uid), is_locked(patch));
            Write::PatchJob { uid, by_uid: by_uid.is_some(), locked, change: change(&patch["spec"]) }
        }
        Step::ReleasePod { name, .. } => Write::ReleasePod(job_uid(name), numbers(name)[2]),
        Step::LabelPod { name, .. } => {
            Write::LabelPod { job: job_uid(name), n: numbers(name)[2], owner: read.task_run.uid }
        }
        Step::DeletePod { name, .. } => Write::DeletePod(job_uid(name), numbers(name)[2]),
        // there are no workspaces, no Kueue and no expiry here
        Step::CreateClaim(_) | Step::PatchWorkload { .. } | Step::DeleteTaskRun { .. } | Step::Publish(_) => {
            return None;
        }
    })
}

fn is_locked(patch: &Value) -> bool {
    patch["metadata"]["resourceVersion"] == VERSION
}

fn run(status: &RunStatus) -> Run {
    Run {
        version: status.context_version.try_into().unwrap(),
        job: status.job_uid.as_deref().map(job_uid),
        outcome: status.outcome.map(|outcome| match outcome {
            crd::Outcome::Succeeded => Outcome::Succeeded,
            crd::Outcome::Failed => Outcome::Failed,
            crd::Outcome::Superseded => Outcome::Superseded,
            crd::Outcome::Cancelled => Outcome::Cancelled,
            crd::Outcome::Unknown => Outcome::Unknown,
        }),
    }
}

fn new_job(job: &KubeJob, owner: u8) -> Job {
    let spec = job.spec.as_ref().unwrap();
    let gates = spec.template.spec.as_ref().and_then(|pod| pod.scheduling_gates.as_deref()).unwrap_or_default();
    Job {
        uid: JobUid { version: numbers(&job.name_any())[1], n: 0 },
        owner,
        suspended: spec.suspend == Some(true),
        gated: gates.iter().any(|gate| gate.name == RELEASE_GATE),
        cancelled: false,
        known: false,
        end: None,
        deleting: false,
    }
}

fn change(spec: &Value) -> Change {
    let gates = spec.pointer("/template/spec/schedulingGates").and_then(Value::as_array);
    Change {
        suspend: spec["suspend"].as_bool(),
        gated: gates.map(|gates| !gates.is_empty()),
        cancel: spec["activeDeadlineSeconds"] == 1,
    }
}

fn job_uid(text: &str) -> JobUid {
    let numbers = numbers(text);
    JobUid { version: numbers[0], n: numbers[1] }
}

/// The numbers that a name is made of.
fn numbers(name: &str) -> Vec<u8> {
    let parts = name.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap()).collect()
}

/// What admission makes of a change: the version that it gets. None where it is refused.
pub fn admit_update(before: &TaskRun, edited: bool, written: u8) -> Option<u8> {
    let (old, mut new) = (task_run(before, None), task_run(before, None));
    new.spec.context_version = written.into();
    new.spec.markdown_files = vec![file(if edited { before.version + 1 } else { before.version })];
    let admitted = admit(&new, Some(&old), "someone")?;
    Some(admitted.spec.context_version.try_into().unwrap())
}

/// What admission makes of a creation: whether it is suspended. None where it is refused.
pub fn admit_creation(of: &TaskRun, author: Option<&str>, writer: &str) -> Option<bool> {
    let mut new = task_run(of, None);
    let author = author.map(|author| (crd::CHANGED_BY.to_owned(), author.to_owned()));
    new.metadata.annotations = Some(author.into_iter().collect::<BTreeMap<_, _>>());
    admit(&new, None, writer).map(|admitted| admitted.spec.suspend == Some(true))
}

fn admit(new: &crd::TaskRun, old: Option<&crd::TaskRun>, username: &str) -> Option<crd::TaskRun> {
    let old = old.map(|old| to_value(old).unwrap().to_string());
    let old = old.as_deref().map(|old| serde_json::from_str::<Subject<'_>>(old).unwrap());
    let mut json = to_value(new).unwrap();
    let text = json.to_string();
    let subject = serde_json::from_str::<Subject<'_>>(&text).unwrap();
    let mutation = mutate(&subject, old.as_ref(), Writer { username, manager: None, traceparent: None });
    json_patch::patch(&mut json, &mutation.patch).unwrap();
    let text = json.to_string();
    let subject = serde_json::from_str::<Subject<'_>>(&text).unwrap();
    validate(&subject, old.as_ref(), TaskNames::ById, text.len()).is_empty().then(|| from_value(json).unwrap())
}
