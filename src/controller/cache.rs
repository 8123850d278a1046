//! What is known without asking: pruned copies of the objects we watch.
//!
//! They wake the reconciler and let it see that nothing is to be done, or nothing but to say how a run goes. No markdown
//! is kept, and nothing is created, deleted, recorded, released or ended on them alone.

use super::packed::{Keep, Packed};
use crate::clock::now;
use crate::crd::{Agent, TASK_LABEL, TASK_RUN_LABEL, TaskNames, TaskRun};
use crate::plan::{Next, Observed, Plan, RECHECK, Step, is_finished, is_known, is_owned, is_suspended, plan};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{OnceCell, watch};

/// A TaskRun as it is kept.
pub type Kept = Packed<TaskRun>;
/// An Agent, or what is left of one that cannot be read: one must not stop the others' watch.
pub type GuardedAgent = DeserializeGuard<Agent>;

/// Older versions whose Jobs are looked up by name: strays of still older ones can never start, and
/// end with their TaskRun.
const OLDER_VERSIONS: u32 = 64;

/// The copies, cheap to clone.
#[derive(Clone)]
pub struct Caches {
    /// Without markdown.
    pub task_runs: Store<Kept>,
    /// Without their pod template's containers.
    pub jobs: Store<Packed<Job>>,
    /// As they are.
    pub agents: Store<GuardedAgent>,
    /// By task.
    pub pods: Arc<PodIndex>,
    ready: Arc<OnceCell<()>>,
}

/// The ends of the copies that watches write to.
pub struct Writers {
    pub task_runs: Writer<Kept>,
    pub jobs: Writer<Packed<Job>>,
    pub agents: Writer<GuardedAgent>,
}

/// What the copies say of a TaskRun.
pub enum Look {
    /// There is nothing to do now; when to look again.
    Settled(Next),
    /// Nothing but a status of a run that goes on, under the resourceVersion of the copy: if that is not what the API
    /// server has now, it refuses it.
    Tell(Plan),
    /// The API server is to be asked.
    Ask,
}

impl Caches {
    pub fn new() -> (Self, Writers) {
        let (task_runs, task_runs_writer) = store();
        let (jobs, jobs_writer) = store();
        let (agents, agents_writer) = store();
        let caches = Self { task_runs, jobs, agents, pods: Arc::default(), ready: Arc::default() };
        (caches, Writers { task_runs: task_runs_writer, jobs: jobs_writer, agents: agents_writer })
    }

    /// What is to be done. A version that is not recorded and waits for no other always has something to do, and so
    /// have a deletion and a history that is too long.
    pub fn look(&self, task_run: &TaskRun, names: TaskNames) -> Look {
        let is_started = task_run.present_run().or(task_run.run_waited_for()).is_some();
        let is_surplus = !task_run.surplus_runs().is_empty();
        // pods of an adopted Job are found only live, until they are labelled
        let mut go_on = task_run.runs().iter().filter(|run| run.outcome.is_none());
        let is_adopted = go_on.clone().any(|run| task_run.is_adopted(run));
        let is_ending = task_run.metadata.deletion_timestamp.is_some();
        let (job, other_jobs) = (self.job(task_run, task_run.spec.context_version), self.other_jobs(task_run));
        if !is_ending && waits_for_job_controller(task_run, job.as_ref(), &other_jobs) {
            return Look::Settled(Next::After(RECHECK));
        }
        if !is_started || is_adopted || is_surplus || is_ending {
            return Look::Ask;
        }
        let observed = Observed {
            task_run: task_run.clone(),
            job,
            adopted: None,
            other_jobs,
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
        let is_status = |step: &Step| matches!(step, Step::PatchStatus(_) | Step::Publish(_));
        // whether and how a run has ended is asked, and what Kueue holds
        let goes_on = |job: &&Job| !is_finished(job) && job.metadata.deletion_timestamp.is_none();
        let present = observed.job.as_ref().filter(goes_on).and_then(|job| job.metadata.uid.as_ref());
        let is_plain = present.is_some() && go_on.all(|run| run.job_uid.as_ref() == present) && !is_suspended(task_run);
        match plan.steps.as_slice() {
            [] => Look::Settled(plan.next),
            steps if is_plain && steps.iter().all(is_status) => Look::Tell(plan),
            _ => Look::Ask,
        }
    }

    /// Waits until every copy was filled once. One caller at a time waits for a store: it wakes only the
    /// one that asked last (kube-runtime 5.0 polls one oneshot receiver for all).
    pub async fn filled(&self) {
        let all = async || {
            // an error means that the watch has ended, and with it the reconciler
            let _ = self.jobs.wait_until_ready().await;
            let _ = self.agents.wait_until_ready().await;
            let _ = self.pods.ready.subscribe().wait_for(|ready| *ready).await;
        };
        self.ready.get_or_init(all).await;
    }

    /// Whether every copy was filled once.
    pub fn are_filled(&self) -> bool {
        self.ready.initialized()
    }

    /// The Job of a version, by its name.
    pub fn job(&self, task_run: &TaskRun, version: u32) -> Option<Job> {
        self.packed_job(task_run, version)?.unpack().ok()
    }

    /// The same as it is kept.
    pub fn packed_job(&self, task_run: &TaskRun, version: u32) -> Option<Arc<Packed<Job>>> {
        let name = task_run.spec.run_id_of(version).to_string();
        self.jobs.get(&ObjectRef::new(&name).within(&task_run.namespace().unwrap_or_default()))
    }

    /// Jobs that this TaskRun owns, of other versions than its present one.
    pub fn other_jobs(&self, task_run: &TaskRun) -> Vec<Job> {
        let present = task_run.spec.context_version;
        let recorded = task_run.runs().iter().map(|run| run.context_version);
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
    pub fn waiting_for(&self, agent: &GuardedAgent, default_agent: Option<&str>) -> Vec<ObjectRef<Kept>> {
        let name = agent.name_any();
        let is_default = default_agent == Some(&name);
        let is_named = |kept: &Kept| kept.unpack().is_ok_and(|task_run| task_run.spec.agent_name == name);
        let mut waiting = self.task_runs.state();
        waiting.retain(|kept| kept.namespace() == agent.namespace() && kept.gist().is_some_and(|gist| !gist.has_run));
        let waiting = waiting.iter().filter(|kept| is_default || is_named(kept));
        waiting.map(|kept| ObjectRef::from_obj(&**kept)).collect()
    }
}

/// Whether the version's Job has just been made, and nothing is left to do before the Job controller has seen it: what
/// that writes then wakes us. Should its event be missed, a live look follows when the Job is older.
fn waits_for_job_controller(task_run: &TaskRun, job: Option<&Job>, other_jobs: &[Job]) -> bool {
    let job = job.filter(|job| is_owned(&job.metadata, &task_run.metadata));
    !task_run.spec.is_held()
        && task_run.present_run().is_none()
        && job.is_some_and(|job| is_new(job) && !is_known(job) && job.metadata.deletion_timestamp.is_none())
        && other_jobs.iter().all(is_finished)
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
pub fn task_run_of<K: Keep>(of: &Packed<K>) -> Option<ObjectRef<Kept>> {
    let ObjectMeta { owner_references, labels, .. } = of.unpack_metadata().ok()?;
    let owner = owner_references.into_iter().flatten().find(|owner| owner.kind == "TaskRun").map(|owner| owner.name);
    let name = owner.or_else(|| labels?.remove(TASK_RUN_LABEL))?;
    Some(ObjectRef::new(&name).within(&of.namespace().unwrap_or_default()))
}

/// Pods by namespace and task.
#[derive(Default)]
pub struct PodIndex {
    pods: RwLock<PodsByTask>,
    /// Filled while a new list comes in, then swapped.
    listing: RwLock<PodsByTask>,
    ready: watch::Sender<bool>,
}

type PodsByTask = HashMap<(String, String), HashMap<String, Packed<Pod>>>;

impl PodIndex {
    /// Takes note of what a watch of pods says.
    pub fn apply(&self, event: &Result<watcher::Event<Packed<Pod>>, watcher::Error>) {
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
        pods.get(&key).into_iter().flat_map(HashMap::values).filter_map(|pod| pod.unpack().ok()).collect()
    }
}

fn key(pod: &Packed<Pod>) -> (String, String) {
    let task = pod.unpack_metadata().ok().and_then(|metadata| metadata.labels?.remove(TASK_LABEL));
    (pod.namespace().unwrap_or_default(), task.unwrap_or_default())
}

fn insert(map: &mut PodsByTask, pod: &Packed<Pod>) {
    map.entry(key(pod)).or_default().insert(pod.name_any(), pod.clone());
}

fn remove(map: &mut PodsByTask, pod: &Packed<Pod>) {
    let key = key(pod);
    if let Some(pods) = map.get_mut(&key) {
        pods.remove(&pod.name_any());
        if pods.is_empty() {
            map.remove(&key);
        }
    }
}
