//! A cluster in memory: what the API server, the Job controller, the kubelet and the garbage collector
//! do with the steps of a plan. It holds the laws of the run protocol whenever a pod starts.

use super::super::liveness::{is_gated, job_uid};
use super::super::*;
use crate::crd::{ADOPTS, MANAGED_BY, Outcome, RELEASE_GATE, TASK_LABEL, TASK_RUN_LABEL, TASK_RUN_UID_LABEL};
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{ConfigMap, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A Job that Helm made.
pub const HELM_JOB: &str = "auth-task-7-claude-code";

/// A run: uid of its TaskRun and its version.
pub type Run = (String, String);

/// How somebody deletes a Job.
#[derive(Clone, Copy, Debug)]
pub enum Cascade {
    /// The Job goes once its pods are gone.
    Foreground,
    /// The Job is gone at once, its pods follow.
    Background,
    /// The Job is gone at once, its pods stay.
    Orphan,
}

/// What is stored, and what happened.
#[derive(Clone)]
pub struct World {
    pub task_run: Option<TaskRun>,
    pub agent: Option<Agent>,
    pub jobs: BTreeMap<String, Job>,
    pub pods: BTreeMap<String, Pod>,
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// What Kueue made of the Job, where there is a Kueue.
    pub workload: Option<DynamicObject>,
    /// Writes of operators, without Events.
    pub writes: usize,
    /// The Job of which each run has started a pod, and how many it has.
    pub started: BTreeMap<Run, (String, usize)>,
    pub recorded: Vec<String>,
    pub outcomes: BTreeMap<Run, Outcome>,
    /// Whether the Job controller learns of a Job only when it is let: otherwise at once.
    pub job_controller_lags: bool,
    serial: i64,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            task_run: None,
            agent: Some(super::agent()),
            jobs: BTreeMap::new(),
            pods: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            workload: None,
            writes: 0,
            started: BTreeMap::new(),
            recorded: vec![],
            outcomes: BTreeMap::new(),
            job_controller_lags: false,
            serial: 0,
        };
        world.create_task_run();
        world
    }

    /// A world in which a Job that Helm made runs, and the TaskRun that adopts it is new.
    pub fn with_helm_job() -> Self {
        let mut world = Self::new();
        let uid = format!("job-{}", world.next());
        let job = json!({
            "metadata": {"name": HELM_JOB, "uid": uid, "labels": {TASK_LABEL: "auth-7", TASK_RUN_LABEL: "task-7"}, "resourceVersion": world.next()},
            "spec": {"suspend": false, "backoffLimit": 1, "template": {"metadata": {"labels": {}}, "spec": {"containers": []}}},
        });
        world.jobs.insert(HELM_JOB.into(), serde_json::from_value(job).unwrap());
        world.sync_job(HELM_JOB);
        let pod = world.pods.keys().next().unwrap().clone();
        world.start_pod(&pod);
        world.edit(|task_run| {
            let adopts = BTreeMap::from([(ADOPTS.to_owned(), format!("{HELM_JOB}/{uid}"))]);
            task_run.metadata.annotations = Some(adopts);
            task_run.metadata.generation = Some(1);
        });
        world
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.serial / 10).unwrap()
    }

    /// Counts what happens: with nothing happening it stands still.
    pub fn serial(&self) -> i64 {
        self.serial
    }

    fn next(&mut self) -> String {
        self.serial += 1;
        self.serial.to_string()
    }

    pub fn create_task_run(&mut self) {
        if self.task_run.is_none() {
            let mut task_run = super::task_run();
            task_run.metadata.uid = Some(format!("task-run-{}", self.next()));
            task_run.metadata.resource_version = Some(self.next());
            self.task_run = Some(task_run);
        }
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut TaskRun)) {
        let version = self.next();
        if let Some(task_run) = &mut self.task_run {
            change(task_run);
            task_run.metadata.resource_version = Some(version);
            task_run.metadata.generation = task_run.metadata.generation.map(|generation| generation + 1);
        }
    }

    pub fn new_version(&mut self) {
        self.edit(|task_run| {
            task_run.spec.context_version += 1;
            task_run.spec.markdown_files[0].content = format!("# Context {}", task_run.spec.context_version);
        });
    }

    pub fn delete_task_run(&mut self) {
        let now = self.now();
        self.edit(|task_run| mark_deleted(&mut task_run.metadata, now));
        self.task_run.take_if(|task_run| task_run.finalizers().is_empty());
    }

    /// Carries a step out, as the API server does: with all its preconditions.
    pub fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.writes += usize::from(!matches!(step, Step::Publish(_)));
        match step {
            Step::PatchStatus(patch) => self.patch_task_run(patch, "status"),
            Step::SetFinalizers { uid, resource_version, finalizers } => {
                let preconditions = json!({"uid": uid, "resourceVersion": resource_version, "finalizers": finalizers});
                self.patch_task_run(&json!({"metadata": preconditions}), "metadata")
            }
            Step::CreateConfigMap(config_map) => {
                let mut config_map = (**config_map).clone();
                config_map.metadata.uid = Some(self.next());
                insert(&mut self.config_maps, config_map.name_any(), config_map)
            }
            Step::CreateJob(job) => self.create_job((**job).clone()),
            Step::DeleteJob { name, uid, resource_version } => match self.jobs.get(name) {
                None => Ok(()),
                Some(job) if !is_as_seen(&job.metadata, uid, resource_version.as_ref()) => Err("another by now".into()),
                Some(_) => {
                    assert_ne!(name, HELM_JOB, "a Job that is not ours was deleted");
                    self.delete_job(name, Cascade::Foreground);
                    Ok(())
                }
            },
            Step::PatchJob { name, patch } => self.patch_job(name, patch),
            Step::ReleasePod { name, patch } | Step::LabelPod { name, patch } => {
                let pod = self.pods.get_mut(name).ok_or("no such pod")?;
                same(&pod.metadata, &patch["metadata"])?;
                merge(pod, patch);
                self.touch_pod(name, |_| {});
                Ok(())
            }
            Step::DeletePod { name, uid, resource_version } => match self.pods.get(name) {
                None => Ok(()),
                Some(pod) if !is_as_seen(&pod.metadata, uid, resource_version.as_ref()) => Err("another by now".into()),
                Some(_) => {
                    self.delete_pod(name);
                    Ok(())
                }
            },
            Step::DeleteConfigMap { name, uid } => {
                self.config_maps
                    .retain(|_, found| found.name_any() != *name || found.metadata.uid.as_ref() != Some(uid));
                self.next();
                Ok(())
            }
            Step::DeleteTaskRun { uid, resource_version } => match &self.task_run {
                Some(found) if is_as_seen(&found.metadata, uid, resource_version.as_ref()) => {
                    self.delete_task_run();
                    Ok(())
                }
                _ => Err("another by now".into()),
            },
            Step::PatchWorkload { patch, .. } => {
                let workload = self.workload.as_mut().ok_or("no such Workload")?;
                same(&workload.metadata, &patch["metadata"])?;
                merge(workload, patch);
                Ok(())
            }
            Step::CreateClaim(_) | Step::Publish(_) => Ok(()),
        }
    }

    fn patch_task_run(&mut self, patch: &Value, part: &str) -> Result<(), String> {
        let version = self.next();
        let task_run = self.task_run.as_mut().ok_or("no such TaskRun")?;
        same(&task_run.metadata, &patch["metadata"])?;
        assert!(patch["metadata"]["resourceVersion"].is_string(), "every write is under a resourceVersion");
        let before = task_run.status.clone().unwrap_or_default().runs;
        let mut part = json!({ part: patch[part] });
        part["metadata"]["resourceVersion"] = json!(version);
        merge(task_run, &part);
        let uid = task_run.uid().unwrap();
        let runs = task_run.status.clone().unwrap_or_default().runs;
        let (limit, present) = (task_run.spec.history_limit(), task_run.spec.context_version);
        let may_go = task_run.metadata.deletion_timestamp.is_some() && task_run.finalizers().is_empty();
        self.task_run.take_if(|_| may_go);
        for run in &runs {
            self.recorded.extend(run.job_uid.clone());
            let Some(outcome) = run.outcome else { continue };
            let known = *self.outcomes.entry((uid.clone(), run.context_version.to_string())).or_insert(outcome);
            assert_eq!(known, outcome, "the outcome of version {} changed", run.context_version);
        }
        let kept: Vec<u32> = runs.iter().map(|run| run.context_version).collect();
        let is_cut = before.iter().any(|run| !kept.contains(&run.context_version));
        let history = runs.iter().filter(|run| run.outcome.is_some() && run.context_version < present).count();
        assert!(!is_cut || history >= limit, "a run disappeared that has a place in the history");
        Ok(())
    }

    fn create_job(&mut self, mut job: Job) -> Result<(), String> {
        let spec = job.spec.as_ref().unwrap();
        let gates = spec.template.spec.as_ref().and_then(|pod| pod.scheduling_gates.as_ref());
        assert!(spec.suspend == Some(true) && gates.is_some_and(|gates| gates[0].name == RELEASE_GATE));
        job.metadata.uid = Some(format!("job-{}", self.next()));
        job.metadata.resource_version = Some(self.next());
        if !self.job_controller_lags {
            see(&mut job);
        }
        insert(&mut self.jobs, job.name_any(), job)
    }

    fn patch_job(&mut self, name: &str, patch: &Value) -> Result<(), String> {
        let version = self.next();
        let job = self.jobs.get_mut(name).ok_or("no such Job")?;
        same(&job.metadata, &patch["metadata"])?;
        assert!(patch["metadata"]["uid"].is_string() && patch["metadata"]["resourceVersion"].is_string());
        let before = job.spec.clone().unwrap();
        let mut change = patch.clone();
        change["metadata"].as_object_mut().unwrap().retain(|key, _| key == "labels");
        merge(job, &change);
        job.metadata.resource_version = Some(version);
        let gates = |spec: &k8s_openapi::api::batch::v1::JobSpec| {
            spec.template.spec.as_ref().and_then(|pod| pod.scheduling_gates.clone()).unwrap_or_default()
        };
        let after = job.spec.as_ref().unwrap();
        assert!(before.suspend == Some(true) || gates(&before) == gates(after), "the template is immutable");
        Ok(())
    }

    /// Somebody changes a Job, as the Job controller or by hand.
    pub fn touch_job(&mut self, name: &str, change: impl FnOnce(&mut Job)) {
        let version = self.next();
        if let Some(job) = self.jobs.get_mut(name) {
            change(job);
            job.metadata.resource_version = Some(version);
        }
    }

    fn touch_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let version = self.next();
        if let Some(pod) = self.pods.get_mut(name) {
            change(pod);
            pod.metadata.resource_version = Some(version);
        }
    }

    pub fn delete_job(&mut self, name: &str, cascade: Cascade) {
        let now = self.now();
        match cascade {
            Cascade::Foreground => self.touch_job(name, |job| mark_deleted(&mut job.metadata, now)),
            Cascade::Background => drop(self.jobs.remove(name)),
            Cascade::Orphan => {
                let uid = self.jobs.remove(name).and_then(|job| job.metadata.uid);
                let orphans = self.pods.values_mut().filter(|pod| job_uid(pod) == uid.as_deref());
                orphans.for_each(|pod| pod.metadata.owner_references = None);
            }
        }
        self.next();
    }

    /// A pod that has not started vanishes; one that runs takes its time to end.
    pub fn delete_pod(&mut self, name: &str) {
        let now = self.now();
        match self.pods.get(name) {
            Some(pod) if is_running(pod) => {
                self.touch_pod(name, |pod| mark_deleted(&mut pod.metadata, now));
            }
            _ => {
                self.pods.remove(name);
                self.next();
            }
        }
    }

    /// The Job controller looks at a Job.
    pub fn sync_job(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).cloned() else { return };
        let uid = job.metadata.uid.as_deref();
        let pods: Vec<Pod> = self.pods.values().filter(|pod| job_uid(pod) == uid).cloned().collect();
        let going = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        let phase = |word: &str| pods.iter().filter(|pod| phase_of(pod) == word).count();
        let active: Vec<&Pod> = pods.iter().filter(|pod| !matches!(phase_of(pod), "Succeeded" | "Failed")).collect();
        let spec = job.spec.as_ref().unwrap();
        let is_over = phase("Succeeded") > 0 || phase("Failed") > usize::try_from(spec.backoff_limit.unwrap()).unwrap();
        if job.status.is_none() {
            self.touch_job(name, see);
        }
        let is_late = spec.active_deadline_seconds == Some(1) && spec.suspend == Some(false);
        if job.metadata.deletion_timestamp.is_some() {
            pods.iter().filter(going).for_each(|pod| self.delete_pod(&pod.name_any()));
            if pods.is_empty() {
                self.delete_job(name, Cascade::Background);
            }
        } else if is_finished(&job) {
        } else if active.is_empty() && (is_over || is_late) {
            let (type_, why) = match (phase("Succeeded") > 0, is_over) {
                (true, _) => ("Complete", "CompletionsReached"),
                (_, true) => ("Failed", "BackoffLimitExceeded"),
                _ => ("Failed", "DeadlineExceeded"),
            };
            self.touch_job(name, |job| finish(job, type_, why));
        } else if is_late || spec.suspend == Some(true) {
            active.into_iter().filter(going).for_each(|pod| self.delete_pod(&pod.name_any()));
        } else if active.is_empty() {
            self.create_pod(&job);
        }
    }

    fn create_pod(&mut self, job: &Job) {
        let template = job.spec.as_ref().unwrap().template.clone();
        let mut metadata = template.metadata.unwrap();
        let uid = job.metadata.uid.clone().unwrap();
        metadata.name = Some(format!("{}-{}", job.name_any(), self.next()));
        metadata.uid = Some(format!("pod-{}", self.next()));
        metadata.labels.as_mut().unwrap().insert("batch.kubernetes.io/controller-uid".into(), uid.clone());
        metadata.owner_references =
            Some(vec![OwnerReference { kind: "Job".into(), name: job.name_any(), uid, ..OwnerReference::default() }]);
        let status = PodStatus { phase: Some("Pending".into()), ..PodStatus::default() };
        let pod = Pod { metadata, spec: template.spec, status: Some(status) };
        self.pods.insert(pod.name_any(), pod);
    }

    /// The kubelet starts a pod that may: here the laws are held.
    pub fn start_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name).cloned() else { return };
        if phase_of(&pod) != "Pending" || is_gated(&pod) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let job = pod.labels()["batch.kubernetes.io/controller-uid"].clone();
        let run = run_of(&pod);
        let beside = self.pods.values().find(|other| is_running(other) && run_of(other) != run);
        assert!(beside.is_none(), "law 2: {run:?} started beside {:?}", beside.map(ResourceExt::name_any));
        if run.0 == HELM_JOB {
            return self.touch_pod(name, |pod| pod.status.get_or_insert_default().phase = Some("Running".into()));
        }
        assert!(self.recorded.contains(&job), "{run:?} started before it was recorded");
        let is_orphan =
            job_uid(&pod).is_none_or(|uid| self.jobs.values().all(|job| job.metadata.uid.as_deref() != Some(uid)));
        let cancelled = self.outcomes.get(&run) == Some(&Outcome::Cancelled);
        assert!(!cancelled || is_orphan, "{run:?} started after it was cancelled");
        let (of, count) = self.started.entry(run.clone()).or_insert((job.clone(), 0));
        assert_eq!(*of, job, "law 1: {run:?} started again as another Job");
        *count += 1;
        self.touch_pod(name, |pod| pod.status.get_or_insert_default().phase = Some("Running".into()));
    }

    /// A pod's containers end; nothing is left of one that was to be deleted.
    pub fn end_pod(&mut self, name: &str, well: bool) {
        let Some(pod) = self.pods.get(name).filter(|pod| is_running(pod)) else { return };
        if pod.metadata.deletion_timestamp.is_some() {
            self.pods.remove(name);
            self.next();
        } else {
            let phase = if well { "Succeeded" } else { "Failed" };
            self.touch_pod(name, |pod| pod.status.get_or_insert_default().phase = Some(phase.into()));
        }
    }

    /// The garbage collector deletes what has lost its owner.
    pub fn collect_garbage(&mut self) {
        let has_owner = |metadata: &ObjectMeta, uids: &[Option<String>]| {
            let mut owners = metadata.owner_references.iter().flatten().peekable();
            owners.peek().is_none() || owners.any(|owner| uids.contains(&Some(owner.uid.clone())))
        };
        let task_run = [self.task_run.as_ref().and_then(|task_run| task_run.metadata.uid.clone())];
        let count = self.jobs.len() + self.config_maps.len();
        self.config_maps.retain(|_, config_map| has_owner(&config_map.metadata, &task_run));
        self.jobs.retain(|_, job| has_owner(&job.metadata, &task_run));
        self.serial += i64::from(self.jobs.len() + self.config_maps.len() < count);
        let jobs: Vec<_> = self.jobs.values().map(|job| job.metadata.uid.clone()).collect();
        let lost = self
            .pods
            .values()
            .filter(|pod| !has_owner(&pod.metadata, &jobs) && pod.metadata.deletion_timestamp.is_none());
        let lost: Vec<String> = lost.map(ResourceExt::name_any).collect();
        for name in lost {
            self.delete_pod(&name);
        }
    }

    /// Finished Jobs reach their TTL.
    pub fn expire_jobs(&mut self) {
        self.jobs.retain(|_, job| !is_finished(job));
    }

    /// All that goes on by itself goes on a little: every Job is looked at, every pod starts or ends.
    pub fn tick(&mut self) {
        for pod in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.end_pod(&pod, true);
            self.start_pod(&pod);
        }
        for job in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.sync_job(&job);
        }
        self.collect_garbage();
    }
}

fn mark_deleted(metadata: &mut ObjectMeta, now: Timestamp) {
    metadata.deletion_timestamp.get_or_insert(Time(now));
}

fn run_of(pod: &Pod) -> Run {
    if pod.name_any().starts_with(HELM_JOB) {
        return (HELM_JOB.to_owned(), String::new());
    }
    assert_eq!(pod.labels()["app.kubernetes.io/managed-by"], MANAGED_BY);
    assert!(pod.labels().contains_key(TASK_RUN_LABEL));
    (pod.labels()[TASK_RUN_UID_LABEL].clone(), pod.labels()["context-version"].clone())
}

pub fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap()
}

pub fn is_running(pod: &Pod) -> bool {
    phase_of(pod) == "Running"
}

/// What the Job controller writes when it first looks at a Job.
fn see(job: &mut Job) {
    let is_suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    let status = if is_suspended { "True" } else { "False" };
    let condition = JobCondition { type_: "Suspended".into(), status: status.into(), ..JobCondition::default() };
    job.status = Some(JobStatus { conditions: Some(vec![condition]), ..JobStatus::default() });
}

fn is_as_seen(metadata: &ObjectMeta, uid: &str, version: Option<&String>) -> bool {
    metadata.uid.as_deref() == Some(uid) && (version.is_none() || version == metadata.resource_version.as_ref())
}

pub fn finish(job: &mut Job, type_: &str, reason: &str) {
    let condition = JobCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        ..JobCondition::default()
    };
    job.status = Some(JobStatus { conditions: Some(vec![condition]), ..JobStatus::default() });
}

fn insert<T>(objects: &mut BTreeMap<String, T>, name: String, object: T) -> Result<(), String> {
    if objects.contains_key(&name) {
        return Err("there is one already".into());
    }
    objects.insert(name, object);
    Ok(())
}

/// Preconditions in a patch's metadata.
fn same(metadata: &ObjectMeta, patch: &Value) -> Result<(), String> {
    let is = |field: &str, value: &Option<String>| patch[field].is_null() || patch[field].as_str() == value.as_deref();
    match is("uid", &metadata.uid) && is("resourceVersion", &metadata.resource_version) {
        true => Ok(()),
        false => Err("the object is another by now".into()),
    }
}

fn merge<T: Serialize + DeserializeOwned>(object: &mut T, patch: &Value) {
    let mut json = serde_json::to_value(&*object).unwrap();
    json_patch::merge(&mut json, patch);
    *object = serde_json::from_value(json).unwrap();
}
