//! What is known without asking: pruned copies of the objects we watch.
//!
//! They wake the reconciler and let it see that nothing is to be done. No markdown is kept, and
//! nothing is decided on them alone that writes.

use crate::clock::now;
use crate::crd::{Agent, QUEUE_ANNOTATION, TASK_LABEL, TASK_RUN_LABEL, TaskNames, TaskRun};
use crate::plan::{Next, Observed, RECHECK, is_finished, is_known, is_owned, plan};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{OnceCell, watch};

/// A TaskRun, or what is left of one that cannot be read.
pub type Guarded = DeserializeGuard<TaskRun>;
/// An Agent, or what is left of one that cannot be read: one must not stop the others' watch.
pub type GuardedAgent = DeserializeGuard<Agent>;

/// Older versions whose Jobs are looked up by name: strays of still older ones can never start, and
/// end with their TaskRun.
const OLDER_VERSIONS: u32 = 64;

/// The copies, cheap to clone.
#[derive(Clone)]
pub struct Caches {
    /// Without markdown.
    pub task_runs: Store<Guarded>,
    /// Without their pod template's containers.
    pub jobs: Store<Job>,
    /// As they are.
    pub agents: Store<GuardedAgent>,
    /// By task.
    pub pods: Arc<PodIndex>,
    ready: Arc<OnceCell<()>>,
}

/// The ends of the copies that watches write to.
pub struct Writers {
    pub task_runs: Writer<Guarded>,
    pub jobs: Writer<Job>,
    pub agents: Writer<GuardedAgent>,
}

impl Caches {
    pub fn new() -> (Self, Writers) {
        let (task_runs, task_runs_writer) = store();
        let (jobs, jobs_writer) = store();
        let (agents, agents_writer) = store();
        let caches = Self { task_runs, jobs, agents, pods: Arc::default(), ready: Arc::default() };
        (caches, Writers { task_runs: task_runs_writer, jobs: jobs_writer, agents: agents_writer })
    }

    /// When to look again, if the copies say that there is nothing to do now. A version that is not
    /// recorded and waits for no other always has something to do, and so have a deletion and a history
    /// that is too long.
    pub async fn look(&self, task_run: &TaskRun, names: TaskNames) -> Option<Next> {
        self.ready().await;
        let is_started = task_run.present_run().or(task_run.run_waited_for()).is_some();
        let is_surplus = !task_run.surplus_runs().is_empty();
        // pods of an adopted Job are found only live, until they are labelled
        let runs = task_run.status.iter().flat_map(|status| &status.runs);
        let is_adopted = runs.filter(|run| run.outcome.is_none()).any(|run| task_run.is_adopted(run));
        let is_ending = task_run.metadata.deletion_timestamp.is_some();
        if !is_ending && self.waits_for_job_controller(task_run) {
            return Some(Next::After(RECHECK));
        }
        if !is_started || is_adopted || is_surplus || is_ending {
            return None;
        }
        let observed = Observed {
            task_run: task_run.clone(),
            job: self.job(task_run, task_run.spec.context_version),
            adopted: None,
            other_jobs: self.other_jobs(task_run),
            pods: self.pods.of_task(task_run),
            config_map: None,
            config_maps: None,
            workload: None,
            agent: None,
            refused: None,
            names,
            now: now(),
        };
        let plan = plan(&observed);
        plan.steps.is_empty().then_some(plan.next)
    }

    /// Waits until every copy was filled once. One caller at a time waits for a store: it wakes only the
    /// one that asked last (kube-runtime 5.0 polls one oneshot receiver for all).
    async fn ready(&self) {
        let all = async || {
            // an error means that the watch has ended, and with it the reconciler
            let _ = self.jobs.wait_until_ready().await;
            let _ = self.agents.wait_until_ready().await;
            let _ = self.pods.ready.subscribe().wait_for(|ready| *ready).await;
        };
        self.ready.get_or_init(all).await;
    }

    /// Whether the version's Job has just been made, and nothing is left to do before the Job controller has seen it: what
    /// that writes then wakes us. Should its event be missed, a live look follows when the Job is older.
    fn waits_for_job_controller(&self, task_run: &TaskRun) -> bool {
        let spec = &task_run.spec;
        let is_held = spec.suspend == Some(true) || spec.cancel == Some(true);
        let job = self.job(task_run, spec.context_version).filter(|job| is_owned(&job.metadata, &task_run.metadata));
        !is_held
            && task_run.present_run().is_none()
            && job.is_some_and(|job| is_new(&job) && !is_known(&job) && job.metadata.deletion_timestamp.is_none())
            && self.other_jobs(task_run).iter().all(is_finished)
    }

    /// The Job of a version, by its name.
    pub fn job(&self, task_run: &TaskRun, version: u32) -> Option<Job> {
        let name = task_run.spec.run_id_of(version).to_string();
        let job = ObjectRef::new(&name).within(&task_run.namespace().unwrap_or_default());
        self.jobs.get(&job).map(|job| (*job).clone())
    }

    /// Jobs that this TaskRun owns, of other versions than its present one.
    pub fn other_jobs(&self, task_run: &TaskRun) -> Vec<Job> {
        let present = task_run.spec.context_version;
        let recorded = task_run.status.iter().flat_map(|status| &status.runs).map(|run| run.context_version);
        let mut versions: Vec<u32> =
            (present.saturating_sub(OLDER_VERSIONS)..present).chain(recorded).filter(|v| *v != present).collect();
        versions.sort_unstable();
        versions.dedup();
        let jobs = versions.into_iter().filter_map(|version| self.job(task_run, version));
        jobs.filter(|job| is_owned(&job.metadata, &task_run.metadata)).collect()
    }

    /// An Agent of the TaskRun's namespace.
    pub fn agent(&self, task_run: &TaskRun, name: &str) -> Option<Result<Agent, String>> {
        let agent = ObjectRef::new(name).within(&task_run.namespace().unwrap_or_default());
        let found = self.agents.get(&agent)?;
        Some(found.0.clone().map_err(|invalid| format!("cannot be read: {}", unquoted(&invalid.error))))
    }

    /// TaskRuns that could start now that this Agent is there or has changed.
    pub fn waiting_for(&self, agent: &GuardedAgent, default_agent: Option<&str>) -> Vec<ObjectRef<Guarded>> {
        let name = agent.name_any();
        let is_default = default_agent == Some(&name);
        let waits = |task_run: &TaskRun| {
            let is_started = task_run.present_run().is_some();
            task_run.namespace() == agent.namespace() && !is_started && (is_default || task_run.spec.agent_name == name)
        };
        let all = self.task_runs.state();
        let waiting = all.iter().filter(|guarded| guarded.0.as_ref().is_ok_and(waits));
        waiting.map(|guarded| ObjectRef::from_obj(&**guarded)).collect()
    }
}

/// Whether a Job is younger than the time after which it is looked at again.
fn is_new(job: &Job) -> bool {
    let age = job.metadata.creation_timestamp.as_ref().map(|created| now().duration_since(created.0));
    age.is_some_and(|age| !age.is_negative() && age.unsigned_abs() < RECHECK)
}

/// An error without what it quotes, which may be anything that the object holds.
pub fn unquoted(error: &str) -> String {
    error.split('"').step_by(2).collect::<Vec<_>>().join("…")
}

/// The TaskRun that a Job or pod belongs to, by its owner or else by its label: a pod may be orphaned, and an adopted
/// Job has no owner of ours.
pub fn task_run_of<K: Resource>(of: &K) -> Option<ObjectRef<Guarded>> {
    let owner = of.owner_references().iter().find(|owner| owner.kind == "TaskRun").map(|owner| &owner.name);
    let name = owner.or_else(|| of.labels().get(TASK_RUN_LABEL))?;
    Some(ObjectRef::new(name).within(&of.namespace().unwrap_or_default()))
}

/// Pods by namespace and task.
#[derive(Default)]
pub struct PodIndex {
    pods: RwLock<PodsByTask>,
    /// Filled while a new list comes in, then swapped.
    listing: RwLock<PodsByTask>,
    ready: watch::Sender<bool>,
}

type PodsByTask = HashMap<(String, String), HashMap<String, Pod>>;

impl PodIndex {
    /// Takes note of what a watch of pods says.
    pub fn apply(&self, event: &Result<watcher::Event<Pod>, watcher::Error>) {
        let write = |map: &RwLock<PodsByTask>, change: &dyn Fn(&mut PodsByTask)| {
            change(&mut map.write().unwrap_or_else(PoisonError::into_inner));
        };
        match event {
            Ok(watcher::Event::Apply(pod)) => write(&self.pods, &|map| insert(map, pod)),
            Ok(watcher::Event::Delete(pod)) => write(&self.pods, &|map| remove(map, pod)),
            Ok(watcher::Event::Init) => write(&self.listing, &HashMap::clear),
            Ok(watcher::Event::InitApply(pod)) => write(&self.listing, &|map| insert(map, pod)),
            Ok(watcher::Event::InitDone) => {
                let listed = std::mem::take(&mut *self.listing.write().unwrap_or_else(PoisonError::into_inner));
                *self.pods.write().unwrap_or_else(PoisonError::into_inner) = listed;
                self.ready.send_replace(true);
            }
            Err(_) => {}
        }
    }

    /// The pods of a task, whoever owns them.
    pub fn of_task(&self, task_run: &TaskRun) -> Vec<Pod> {
        let key = (task_run.namespace().unwrap_or_default(), task_run.spec.run_id().task());
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(&key).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }
}

fn key(pod: &Pod) -> (String, String) {
    let task = pod.labels().get(TASK_LABEL).cloned();
    (pod.namespace().unwrap_or_default(), task.unwrap_or_default())
}

fn insert(map: &mut PodsByTask, pod: &Pod) {
    map.entry(key(pod)).or_default().insert(pod.name_any(), pod.clone());
}

fn remove(map: &mut PodsByTask, pod: &Pod) {
    let key = key(pod);
    if let Some(pods) = map.get_mut(&key) {
        pods.remove(&pod.name_any());
        if pods.is_empty() {
            map.remove(&key);
        }
    }
}

/// Leaves out what no decision needs: the markdown above all, also in kubectl's own copy of it.
pub fn prune_task_run(task_run: &mut Guarded) {
    task_run.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut task_run.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if let Ok(task_run) = &mut task_run.0 {
        task_run.spec.markdown_files = Vec::new();
        task_run.spec.env = Vec::new();
    }
}

/// Leaves out what no decision needs: all of the template but its gates.
pub fn prune_job(job: &mut Job) {
    job.metadata.managed_fields = None;
    if let Some(annotations) = &mut job.metadata.annotations {
        annotations.retain(|key, _| key == QUEUE_ANNOTATION);
    }
    if let Some(pod) = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) {
        keep_gates(pod);
    }
}

/// Leaves out what no decision needs.
pub fn prune_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        keep_gates(spec);
    }
}

fn keep_gates(spec: &mut PodSpec) {
    *spec = PodSpec { scheduling_gates: spec.scheduling_gates.take(), ..PodSpec::default() };
}
