//! What is stored, in small numbers: the API server with all its preconditions.
//!
//! There are no resourceVersions here. What an operator has read is `fresh` until the object changes,
//! which is all that a resourceVersion tells, and makes many states one.

use std::fmt;

/// A Job, as only it is: its context version, which is its name, and which one of that name it is. Helm's Job has
/// no version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobUid {
    pub version: u8,
    pub n: u8,
}

impl JobUid {
    pub fn is_helms(self) -> bool {
        self == HELM_JOB
    }

    /// The version that it is the run of.
    pub fn run(self) -> u8 {
        self.version.max(1)
    }
}

/// The Job that a Helm release has made for the task.
pub const HELM_JOB: JobUid = JobUid { version: 0, n: 0 };
/// The owner of Helm's Job, and of its pods before they are labelled.
pub const HELM: u8 = 8;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Succeeded,
    Failed,
    Superseded,
    Cancelled,
    Unknown,
}

/// An entry of `status.runs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    pub version: u8,
    pub job: Option<JobUid>,
    pub outcome: Option<Outcome>,
}

/// All TaskRuns here are of one task. Only one name is that task's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskRun {
    pub is_twin: bool,
    pub uid: u8,
    /// The first version that this object had.
    pub first: u8,
    pub version: u8,
    pub suspend: bool,
    pub cancel: bool,
    /// Its annotation says that its first version is Helm's Job.
    pub adopts: bool,
    /// It is a copy of a stored one that nobody has resumed.
    pub is_copy: bool,
    pub has_finalizer: bool,
    pub deleting: bool,
    /// It is being deleted for longer than the operator waits.
    pub is_overdue: bool,
    pub runs: Vec<Run>,
}

impl TaskRun {
    pub fn run(&self, version: u8) -> Option<&Run> {
        self.runs.iter().find(|run| run.version == version)
    }

    pub fn present_run(&self) -> Option<&Run> {
        self.run(self.version)
    }

    /// The name of the present version's Job.
    pub fn present_job(&self) -> u8 {
        self.present_run().and_then(|run| run.job).map_or(self.version, |job| job.version)
    }

    /// Whether Helm's Job is a run of it, or is to be; with an end, or only while it has none.
    pub fn has_adopted(&self, also_ended: bool) -> bool {
        let is_it = |run: &Run| run.job.is_some_and(JobUid::is_helms) && (also_ended || run.outcome.is_none());
        (self.adopts && self.runs.is_empty()) || self.runs.iter().any(is_it)
    }
}

/// A Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    pub uid: JobUid,
    /// The uid of its TaskRun.
    pub owner: u8,
    pub suspended: bool,
    /// Whether its template has the gate.
    pub gated: bool,
    /// `activeDeadlineSeconds: 1`.
    pub cancelled: bool,
    /// The Job controller has written its status.
    pub known: bool,
    pub end: Option<Outcome>,
    pub deleting: bool,
}

/// Who would end a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// Its Job, or the garbage collector where that is gone.
    Owned,
    /// Nobody: a person deleted its Job without it.
    Orphaned,
    /// Nobody: the operator did.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    pub job: JobUid,
    /// Which one of its Job.
    pub n: u8,
    /// The uid of its TaskRun, by its label.
    pub owner: u8,
    pub link: Link,
    pub gated: bool,
    pub phase: Phase,
    pub deleting: bool,
}

impl Pod {
    pub fn id(&self) -> (JobUid, u8) {
        (self.job, self.n)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// How somebody deletes a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cascade {
    Foreground,
    Background,
    Orphan,
}

/// A law of the run protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Law {
    RunOnce,
    OneAtATime,
    RecordedFirst,
    OverIsOver,
    OutcomesStay,
    OwnJobs,
    CopiesWait,
    EndedFirst,
    OthersStay,
}

/// The uid of a TaskRun of the same task that has another name.
pub const TWIN: u8 = 9;

/// A write, and the preconditions that it has. `fresh` is kept with it by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Write {
    Finalizer(bool),
    Status { runs: Vec<Run>, locked: bool },
    CreateConfigMap { version: u8, owner: u8 },
    DeleteConfigMap { version: u8, owner: u8 },
    CreateJob(Job),
    DeleteJob { uid: JobUid, locked: bool },
    PatchJob { uid: JobUid, by_uid: bool, locked: bool, change: Change },
    ReleasePod(JobUid, u8),
    LabelPod { job: JobUid, n: u8, owner: u8 },
    DeletePod(JobUid, u8),
}

/// What a patch of a Job does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    pub suspend: Option<bool>,
    pub gated: Option<bool>,
    pub cancel: bool,
}

/// The precondition does not hold, or there is such an object already.
#[derive(Debug)]
pub struct Conflict;

/// What is stored, and what must be remembered to tell whether a law is broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub task_runs: Vec<TaskRun>,
    pub jobs: Vec<Job>,
    /// The Jobs as the Job controller knows them: as they were at some time before.
    pub seen: Vec<Job>,
    pub pods: Vec<Pod>,
    /// By version, with the uid of their TaskRun.
    pub config_maps: Vec<(u8, u8)>,
    /// Jobs that were ever created, by version.
    created: Vec<u8>,
    /// TaskRuns that were ever created.
    pub uids: u8,
    /// The last version of the TaskRun that is gone: somebody has a copy of it.
    pub backup: Option<u8>,
    /// The one Job of each TaskRun's version that was released or had a pod that started.
    pub started: Vec<(u8, JobUid)>,
    pub broken: Vec<Law>,
}

impl World {
    pub fn task_run(&self, is_twin: bool) -> Option<&TaskRun> {
        self.task_runs.iter().find(|task_run| task_run.is_twin == is_twin)
    }

    pub fn task_run_mut(&mut self, is_twin: bool) -> Option<&mut TaskRun> {
        self.task_runs.iter_mut().find(|task_run| task_run.is_twin == is_twin)
    }

    pub fn job(&self, uid: JobUid) -> Option<&Job> {
        self.jobs.iter().find(|job| job.uid == uid)
    }

    pub fn job_mut(&mut self, uid: JobUid) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.uid == uid)
    }

    pub fn job_named(&self, version: u8) -> Option<&Job> {
        self.jobs.iter().find(|job| job.uid.version == version)
    }

    pub fn pod(&self, id: (JobUid, u8)) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.id() == id)
    }

    pub fn has_owner(&self, uid: u8) -> bool {
        uid == HELM || self.task_runs.iter().any(|task_run| task_run.uid == uid)
    }

    /// Carries out a write of an operator for the TaskRun of this name. It was decided on what is so
    /// still, unless it is not locked to that.
    pub fn apply(&mut self, is_twin: bool, write: &Write, orphan: bool) -> Result<(), Conflict> {
        match write {
            Write::Finalizer(on) => {
                let task_run = self.task_run_mut(is_twin).ok_or(Conflict)?;
                task_run.has_finalizer = *on;
                let (uid, waited) = (task_run.uid, task_run.is_overdue || *on);
                let runs = |pod: &Pod| {
                    let is_ours = pod.owner == uid && !pod.job.is_helms();
                    is_ours && pod.phase == Phase::Running && self.job(pod.job).is_some()
                };
                let is_early = !waited && self.pods.iter().any(runs);
                self.breaks(Law::EndedFirst, is_early);
                self.let_go();
            }
            Write::Status { runs, .. } => self.write_status(is_twin, runs)?,
            Write::CreateConfigMap { version, owner } => {
                if self.config_maps.iter().any(|(taken, _)| taken == version) {
                    return Err(Conflict);
                }
                self.config_maps.push((*version, *owner));
                self.config_maps.sort_unstable();
            }
            Write::DeleteConfigMap { version, owner } => {
                self.config_maps.retain(|found| found != &(*version, *owner));
            }
            Write::CreateJob(job) => self.create_job(*job)?,
            Write::DeleteJob { uid: HELM_JOB, .. } => self.breaks(Law::OthersStay, true),
            Write::DeleteJob { uid, .. } => match self.job_named(uid.version) {
                Some(job) if job.uid != *uid => return Err(Conflict),
                Some(_) if orphan => self.delete_job(*uid, Cascade::Orphan, Link::Abandoned),
                Some(_) => self.delete_job(*uid, Cascade::Foreground, Link::Owned),
                None => {}
            },
            Write::PatchJob { uid, by_uid, change, .. } => self.patch_job(*uid, *by_uid, *change)?,
            Write::ReleasePod(job, n) => {
                let pod = self.pods.iter_mut().find(|pod| pod.id() == (*job, *n)).ok_or(Conflict)?;
                pod.gated = false;
                let owner = pod.owner;
                self.note_start(owner, *job);
            }
            Write::LabelPod { job, n, owner } => {
                let pod = self.pods.iter_mut().find(|pod| pod.id() == (*job, *n)).ok_or(Conflict)?;
                pod.owner = *owner;
            }
            Write::DeletePod(job, n) => self.delete_pod((*job, *n)),
        }
        Ok(())
    }

    fn write_status(&mut self, is_twin: bool, runs: &[Run]) -> Result<(), Conflict> {
        let task_run = self.task_run_mut(is_twin).ok_or(Conflict)?;
        let mut over = task_run.runs.iter().filter(|run| run.outcome.is_some());
        let changes = over.any(|run| runs.iter().all(|new| (new.version, new.outcome) != (run.version, run.outcome)));
        runs.clone_into(&mut task_run.runs);
        let uid = task_run.uid;
        let adopts = task_run.adopts;
        let others = |run: &Run| {
            run.job.and_then(|job| self.job(job)).is_some_and(|job| job.owner != uid)
                && !(adopts && run.version == 1 && run.job == Some(HELM_JOB))
        };
        let is_of_another = runs.iter().any(others);
        self.breaks(Law::OwnJobs, is_of_another);
        self.breaks(Law::OutcomesStay, changes);
        Ok(())
    }

    fn create_job(&mut self, mut job: Job) -> Result<(), Conflict> {
        if self.job_named(job.uid.version).is_some() {
            return Err(Conflict);
        }
        let index = usize::from(job.uid.version);
        self.created.resize(self.created.len().max(index + 1), 0);
        job.uid.n = self.created[index];
        self.created[index] += 1;
        self.jobs.push(job);
        self.jobs.sort_unstable();
        Ok(())
    }

    fn patch_job(&mut self, uid: JobUid, by_uid: bool, change: Change) -> Result<(), Conflict> {
        let found = self.jobs.iter_mut().find(|job| job.uid.version == uid.version);
        let job = found.filter(|job| !by_uid || job.uid == uid).ok_or(Conflict)?;
        let before = *job;
        if change.gated.is_some_and(|gated| gated != before.gated) && !before.suspended {
            return Err(Conflict); // the template is immutable
        }
        job.suspended = change.suspend.unwrap_or(job.suspended);
        job.gated = change.gated.unwrap_or(job.gated);
        job.cancelled |= change.cancel;
        let (owner, uid) = (job.owner, job.uid);
        if before.gated && !job.gated {
            self.note_start(owner, uid);
        }
        Ok(())
    }

    /// A Job is released, or its pod starts.
    pub fn note_start(&mut self, owner: u8, job: JobUid) {
        let other = self.started.iter().any(|(of, uid)| *of == owner && uid.run() == job.run() && *uid != job);
        self.breaks(Law::RunOnce, other);
        if !self.started.contains(&(owner, job)) {
            self.started.push((owner, job));
            self.started.sort_unstable();
        }
    }

    pub fn breaks(&mut self, law: Law, is_broken: bool) {
        if is_broken && !self.broken.contains(&law) {
            self.broken.push(law);
            self.broken.sort_unstable();
        }
    }

    /// A Job of a Helm release runs.
    pub fn add_helm_job(&mut self) {
        let job = Job {
            uid: HELM_JOB,
            owner: HELM,
            suspended: false,
            gated: false,
            cancelled: false,
            known: true,
            end: None,
            deleting: false,
        };
        self.jobs.push(job);
        self.catch_up();
        self.sync_job(HELM_JOB, false);
        self.pods.iter_mut().for_each(|pod| pod.phase = Phase::Running);
        self.note_start(0, HELM_JOB);
    }

    /// Whether Helm's Job may have pods that nobody would find who does not know the Job: they are labelled only once it
    /// is adopted.
    pub fn has_unknown_pods(&self) -> bool {
        self.seen.iter().chain(&self.jobs).any(|job| job.uid.is_helms())
            || self.pods.iter().any(|pod| pod.owner == HELM)
    }

    /// A TaskRun that is being deleted goes with its last finalizer.
    pub fn let_go(&mut self) {
        let goes = |task_run: &TaskRun| task_run.deleting && !task_run.has_finalizer;
        if let Some(gone) = self.task_runs.iter().find(|task_run| goes(task_run) && !task_run.is_twin) {
            self.backup = Some(gone.version);
        }
        self.task_runs.retain(|task_run| !goes(task_run));
    }

    pub fn delete_job(&mut self, uid: JobUid, cascade: Cascade, link: Link) {
        match cascade {
            Cascade::Foreground => {
                if let Some(job) = self.job_mut(uid) {
                    job.deleting = true;
                }
            }
            Cascade::Background | Cascade::Orphan => self.jobs.retain(|job| job.uid != uid),
        }
        if cascade == Cascade::Orphan {
            self.pods.iter_mut().filter(|pod| pod.job == uid).for_each(|pod| pod.link = link);
        }
    }

    /// A pod that no node has vanishes; another one takes its time to end.
    pub fn delete_pod(&mut self, id: (JobUid, u8)) {
        self.pods.retain(|pod| pod.id() != id || !(pod.gated || pod.has_ended()));
        self.pods.iter_mut().filter(|pod| pod.id() == id).for_each(|pod| pod.deleting = true);
    }
}

impl fmt::Debug for JobUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.version)?;
        if self.n == 0 { Ok(()) } else { write!(f, "#{}", self.n) }
    }
}
