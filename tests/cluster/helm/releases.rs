//! Sixty releases, in every state that a migration may find one in, half by Helm 3, half by Helm 4.

use super::{CHARTS, Driver, Helm};
use crate::support::{Namespace, PATIENCE};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The API key in the values of releases. It must be nowhere else.
pub const KEY: &str = "sk-test-NEVER-COPY-THIS";

/// What a release is, and what has become of its Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its pod runs until told.
    Running,
    Suspended,
    Succeeded,
    JobFailed,
    /// Its Job ended, and was removed by its time to live.
    Expired,
    /// `failed`: the API server took all but the Job.
    InstallFailed,
    /// `failed`: `--wait` gave up. The Job is there; its pod waits for a volume.
    GaveUpOnVolume,
    /// `failed`: `--wait --wait-for-jobs` gave up. The Job runs.
    GaveUpOnJob,
    /// `pending-install`, since seconds; the Job runs.
    Pending,
    /// `pending-install`, since yesterday; the Job runs.
    PendingLong,
    /// `pending-install`, since yesterday; no Job.
    PendingGone,
    /// Revision 2 is `pending-upgrade`, revision 1 `deployed`; its Job runs.
    PendingUpgrade,
    /// Revision 3 is `deployed`, two are `superseded`.
    Upgraded,
    /// Revision 2 is `failed`, as a Job's template cannot change. Revision 1 is `deployed`; its Job runs.
    UpgradeFailed,
    /// `uninstalled`, with `--keep-history`.
    Uninstalled,
    /// `uninstalling`, and so left; the Job is gone.
    Uninstalling,
    /// The ConfigMap with the task's files is not there.
    NoFiles,
    /// Files `notes.txt` and `CLAUDE.md`.
    BadFilenames,
    /// One of two files holds only whitespace.
    BlankFile,
    /// One of two files is in binaryData.
    BinaryFile,
    /// taskId is not job.taskId, which is 1000 more.
    TaskIdsDiffer,
    /// By `--set`.
    TaskIdIsNumber,
    /// By a file of values, and more than 999999: Helm writes it as 1.5e+06, which is no label.
    TaskIdIsLargeNumber,
    TaskIdIsEmpty,
    TaskIdIsUnknown,
    /// More than 32 bits.
    TaskIdIsTooLarge,
    /// Only job.taskId and job.microservice are set, and what it takes to be placed.
    OnlyJobIsSet,
    /// Only job.taskId and job.microservice are set: `failed`, as the chart's affinity is invalid.
    OnlyJobIsSetAndNotPlaced,
    /// taskConfigMapName is not set: the files are in `<service>-task-<id>-run-<attempt>-files`.
    FilesByAttempt,
    /// Its name is that of another task of another service.
    NameDiffers,
    /// The next release has the same task id, of another service.
    SameTaskId,
    /// Not a task at all.
    OtherChart,
    /// Its stored form has nearly the size that a Secret may have.
    Large,
    /// job.enabled is false.
    JobDisabled,
    /// Stored without compression.
    NotCompressed,
}

/// How many of each there are, by Helm 3 and Helm 4 in turn, from task 1001 on.
const KINDS: &[(Kind, usize)] = &[
    (Kind::Running, 4),
    (Kind::Suspended, 2),
    (Kind::Succeeded, 6),
    (Kind::JobFailed, 2),
    (Kind::Expired, 2),
    (Kind::InstallFailed, 2),
    (Kind::GaveUpOnVolume, 2),
    (Kind::GaveUpOnJob, 2),
    (Kind::Pending, 2),
    (Kind::PendingLong, 1),
    (Kind::PendingGone, 1),
    (Kind::PendingUpgrade, 1),
    (Kind::Upgraded, 2),
    (Kind::UpgradeFailed, 2),
    (Kind::Uninstalled, 2),
    (Kind::Uninstalling, 1),
    (Kind::NoFiles, 2),
    (Kind::BadFilenames, 2),
    (Kind::BlankFile, 1),
    (Kind::BinaryFile, 1),
    (Kind::TaskIdsDiffer, 2),
    (Kind::TaskIdIsNumber, 1),
    (Kind::TaskIdIsLargeNumber, 1),
    (Kind::TaskIdIsEmpty, 1),
    (Kind::TaskIdIsUnknown, 1),
    (Kind::TaskIdIsTooLarge, 1),
    (Kind::OnlyJobIsSet, 1),
    (Kind::OnlyJobIsSetAndNotPlaced, 1),
    (Kind::FilesByAttempt, 2),
    (Kind::NameDiffers, 1),
    (Kind::SameTaskId, 4),
    (Kind::OtherChart, 1),
    (Kind::Large, 1),
    (Kind::JobDisabled, 1),
    (Kind::NotCompressed, 1),
];

/// What a Job should have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Absent,
    /// Its pod runs, or waits.
    Active,
    Suspended,
    Complete,
    Failed,
}

/// A release, and what it should be.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub kind: Kind,
    pub helm: Helm,
    pub release: String,
    /// As its values have it, or would; a number where it is one.
    pub task_id: Value,
    pub service: String,
}

impl Fixture {
    /// Revision 1 to this one are stored.
    pub fn revision(&self) -> u32 {
        match self.kind {
            Kind::Upgraded => 3,
            Kind::PendingUpgrade | Kind::UpgradeFailed => 2,
            _ => 1,
        }
    }

    /// The status of its last revision.
    pub fn status(&self) -> &'static str {
        match self.kind {
            Kind::GaveUpOnVolume | Kind::GaveUpOnJob | Kind::UpgradeFailed => "failed",
            _ if self.is_refused() => "failed",
            Kind::Pending | Kind::PendingLong | Kind::PendingGone => "pending-install",
            Kind::PendingUpgrade => "pending-upgrade",
            Kind::Uninstalled => "uninstalled",
            Kind::Uninstalling => "uninstalling",
            _ => "deployed",
        }
    }

    /// Whether the API server refuses its Job, after it took all else of the chart.
    fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::InstallFailed | Kind::TaskIdIsLargeNumber | Kind::OnlyJobIsSetAndNotPlaced)
    }

    /// What its Job has come to.
    pub fn job(&self) -> Job {
        match self.kind {
            Kind::Expired
            | Kind::PendingGone
            | Kind::Uninstalled
            | Kind::Uninstalling
            | Kind::OtherChart
            | Kind::JobDisabled => Job::Absent,
            _ if self.is_refused() => Job::Absent,
            Kind::Suspended => Job::Suspended,
            Kind::Succeeded => Job::Complete,
            Kind::JobFailed => Job::Failed,
            _ => Job::Active,
        }
    }

    /// The name of its Job.
    pub fn job_name(&self) -> String {
        format!("{}-claude-code", self.release)
    }

    /// The name of the ConfigMap with its task's files.
    pub fn files_name(&self) -> String {
        let id = plain(&self.task_id);
        let attempt = if self.kind == Kind::FilesByAttempt { "-run-1" } else { "" };
        format!("{}-task-{id}{attempt}-files", self.service)
    }

    /// That ConfigMap, which is not part of the release.
    fn files(&self) -> Option<Value> {
        let mut files = files(&self.files_name(), &self.task_id, &self.service);
        match self.kind {
            Kind::NoFiles | Kind::OnlyJobIsSet | Kind::OnlyJobIsSetAndNotPlaced | Kind::OtherChart => return None,
            Kind::BadFilenames => {
                files["data"] = json!({"task.md": "# Do it", "notes.txt": "so", "CLAUDE.md": "@task.md"});
            }
            Kind::BlankFile => files["data"]["notes.md"] = json!(" \n"),
            Kind::BinaryFile => files["binaryData"] = json!({"design.md": "/w=="}),
            _ => {}
        }
        Some(files)
    }

    /// The values it is installed with.
    fn values(&self) -> Value {
        let mut values = values(&self.task_id, &self.service, &json!({"kwok.test/run-for": "until-told"}));
        match self.kind {
            Kind::Succeeded => values["podAnnotations"] = json!({"kwok.test/run-for": "100ms"}),
            Kind::JobFailed => values["job"]["activeDeadlineSeconds"] = json!(1),
            Kind::Expired => {
                values["podAnnotations"] = json!({"kwok.test/run-for": "100ms"});
                values["job"]["ttlSecondsAfterFinished"] = json!(1);
            }
            Kind::InstallFailed => values["job"]["backoffLimit"] = json!(-1),
            Kind::GaveUpOnVolume => values["persistence"]["enabled"] = json!(true),
            Kind::TaskIdsDiffer => {
                let id: u32 = self.task_id.as_str().and_then(|id| id.parse().ok()).expect("a number");
                values["job"]["taskId"] = json!((id + 1000).to_string());
            }
            Kind::TaskIdIsNumber => {
                values.as_object_mut().map(|values| values.remove("taskId"));
                values["job"].as_object_mut().map(|job| job.remove("taskId"));
            }
            Kind::OnlyJobIsSet | Kind::OnlyJobIsSetAndNotPlaced => {
                let job = json!({"taskId": self.task_id, "microservice": self.service});
                let pods = values["podAnnotations"].take();
                values = json!({"job": job, "podAnnotations": pods});
                if self.kind == Kind::OnlyJobIsSet {
                    values["nodeAffinity"] = json!({"enabled": false});
                    values["persistence"] = json!({"enabled": false});
                }
            }
            Kind::FilesByAttempt => values["taskConfigMapName"] = json!(""),
            Kind::OtherChart => values = json!({}),
            Kind::Large => values["context"] = json!(noise(890_000)),
            Kind::JobDisabled => values["job"]["enabled"] = json!(false),
            _ => {}
        }
        values
    }

    /// Has Helm make it, and changes it to what it should be.
    fn make(&self, ns: &Namespace<'_>) {
        let (helm, release, values) = (self.helm, self.release.as_str(), &self.values());
        let install = |more: &[&str]| helm.install_with(ns, "claude-code", release, values, more);
        match self.kind {
            _ if self.is_refused() => {
                install(&[]).refused();
            }
            Kind::GaveUpOnVolume => {
                install(&["--wait", "--timeout=2s"]).refused();
            }
            Kind::GaveUpOnJob => {
                install(&["--wait", "--wait-for-jobs", "--timeout=2s"]).refused();
            }
            Kind::Pending | Kind::PendingLong | Kind::PendingGone => {
                let chart = format!("{CHARTS}/claude-code");
                let args = ["install", release, &chart, "-f=-", "--wait", "--wait-for-jobs"];
                helm.run_and_die(ns, &args, values, &format!("job/{}", self.job_name()), Value::is_object);
            }
            Kind::TaskIdIsNumber => {
                let set = format!("taskId={0},job.taskId={0}", self.task_id);
                install(&["--set", &set]).ok();
            }
            Kind::OtherChart => {
                helm.install_with(ns, "orchestrator", release, values, &[]).ok();
            }
            _ => {
                install(&[]).ok();
            }
        }
        self.change(ns, values);
    }

    /// What happens to it after its installation.
    fn change(&self, ns: &Namespace<'_>, values: &Value) {
        let (helm, release, job) = (self.helm, self.release.as_str(), format!("job/{}", self.job_name()));
        let mut values = values.clone();
        match self.kind {
            Kind::Suspended => {
                ns.merge(&job, &json!({"spec": {"suspend": true}})).ok();
            }
            Kind::PendingLong => self.make_old(ns),
            Kind::PendingGone => {
                self.make_old(ns);
                ns.kubectl(&["delete", &job, "--wait=false"]).ok();
            }
            Kind::PendingUpgrade => {
                let chart = format!("{CHARTS}/claude-code");
                let args = ["upgrade", release, &chart, "-f=-", "--wait", "--wait-for-jobs"];
                helm.run_and_die(ns, &args, &values, &helm.object(release, 2), Value::is_object);
            }
            Kind::Upgraded => {
                for agent in ["claude-agent-2", "claude-agent-3"] {
                    values["agentName"] = json!(agent);
                    helm.upgrade(ns, release, &values).ok();
                }
            }
            Kind::UpgradeFailed => {
                values["secrets"]["anthropicApiKey"] = json!(format!("{KEY}-2"));
                helm.upgrade(ns, release, &values).refused();
            }
            Kind::Uninstalled => {
                helm.uninstall(ns, release, &["--keep-history"]).ok();
            }
            Kind::Uninstalling => {
                let finalizers = |names: Value| json!({"metadata": {"finalizers": names}});
                ns.merge(&job, &finalizers(json!(["helm.test/held"]))).ok();
                let is_so = |stored: &Value| stored["metadata"]["labels"]["status"] == "uninstalling";
                let args = ["uninstall", release, "--wait"];
                helm.run_and_die(ns, &args, &Value::Null, &helm.object(release, 1), is_so);
                // it may not have come to the Job
                ns.kubectl(&["delete", &job, "--wait=false"]).ok();
                ns.merge(&job, &finalizers(Value::Null)).ok();
            }
            Kind::NotCompressed => {
                let mut stored = helm.stored(ns, release, 1);
                stored.is_compressed = false;
                stored.rewrite(ns);
            }
            _ => {}
        }
    }

    /// Moves its times into the past, but for its object's creationTimestamp, which the API server sets.
    fn make_old(&self, ns: &Namespace<'_>) {
        let mut stored = self.helm.stored(ns, &self.release, 1);
        for time in ["first_deployed", "last_deployed"] {
            stored.release["info"][time] = json!("2025-07-01T10:00:00.123456789Z");
        }
        stored.object["metadata"]["labels"]["createdAt"] = json!("1751364000");
        stored.rewrite(ns);
    }

    /// What its Job has come to by now, of these.
    fn job_among(&self, jobs: &[Value]) -> Job {
        let name = self.job_name();
        let Some(job) = jobs.iter().find(|job| job["metadata"]["name"] == name.as_str()) else { return Job::Absent };
        let has = |type_: &str| {
            let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
        };
        match (has("Complete"), has("Failed"), has("Suspended")) {
            (true, _, _) => Job::Complete,
            (_, true, _) => Job::Failed,
            (_, _, true) => Job::Suspended,
            _ => Job::Active,
        }
    }
}

/// A task id as text.
fn plain(task_id: &Value) -> String {
    task_id.as_str().map_or_else(|| task_id.to_string(), str::to_owned)
}

/// Starts a task as the predecessor did, and returns the name of its release.
#[track_caller]
pub fn start_task(ns: &Namespace<'_>, helm: Helm, task_id: &str, service: &str, pods: &Value) -> String {
    let (release, id) = (format!("{service}-task-{task_id}"), json!(task_id));
    ns.create(&files(&format!("{release}-files"), &id, service)).ok();
    helm.install(ns, &release, &values(&id, service, pods)).ok();
    release
}

/// The ConfigMap that the predecessor made before it called Helm.
pub fn files(name: &str, task_id: &Value, service: &str) -> Value {
    let id = plain(task_id);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"task-id": id, "service": service, "managed-by": "orchestrator"}},
        "data": {"task.md": format!("# Task {id} of {service}\n"), "design-spec.md": "As it was.\n"},
    })
}

/// The values with which the predecessor called Helm, and annotations of the pods.
pub fn values(task_id: &Value, service: &str, pods: &Value) -> Value {
    let id = plain(task_id);
    json!({
        "serviceName": service, "taskId": task_id, "attempt": "1", "agentName": "claude-agent-1",
        "taskConfigMapName": format!("{service}-task-{id}-files"),
        "job": {
            "enabled": true, "taskType": "implementation", "taskId": task_id, "microservice": service,
            "agentType": "claude", "backoffLimit": 3, "activeDeadlineSeconds": 3600, "ttlSecondsAfterFinished": 86400,
            "skipPrepare": false,
        },
        "sharedWorkspace": {"enabled": true, "claimName": "shared-workspace", "existingClaim": "shared-workspace"},
        "nodeAffinity": {"enabled": false, "required": false, "key": "kubernetes.io/hostname", "values": []},
        "persistence": {
            "enabled": false, "storageClass": "local-path", "accessMode": "ReadWriteOnce", "size": "10Gi",
        },
        "replicaCount": 0,
        "command": ["claude"],
        "args": ["-p", "Read the task context in CLAUDE.md and begin."],
        "secrets": {"anthropicApiKey": KEY},
        "podAnnotations": pods,
    })
}

/// A bound volume claim. Nothing here binds any.
pub fn create_claim(ns: &Namespace<'_>, name: &str) {
    let volume = format!("{}-{name}", ns.name);
    let spec = json!({
        "capacity": {"storage": "50Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": ns.name, "name": name},
    });
    ns.create(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec}))
        .ok();
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}, "storageClassName": "",
        "volumeName": volume,
    });
    let metadata = json!({"name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
    ns.create(&claim).ok();
}

/// Sixty releases, each as it should be. Besides, the ConfigMap `orphan-task-999-files` of a task without one.
pub fn sixty(ns: &Namespace<'_>) -> Vec<Fixture> {
    let fixtures = plan();
    for claim in ["shared-workspace", "shared-workspace-pvc"] {
        create_claim(ns, claim);
    }
    let mut items: Vec<Value> = fixtures.iter().filter_map(Fixture::files).collect();
    items.push(files("orphan-task-999-files", &json!("999"), "orphan"));
    ns.create(&json!({"apiVersion": "v1", "kind": "List", "items": items})).ok();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(fixture) = fixtures.get(next.fetch_add(1, Ordering::SeqCst)) {
                    fixture.make(ns);
                }
            });
        }
    });
    wait_for_jobs(ns, &fixtures);
    fixtures
}

/// What is to be made.
fn plan() -> Vec<Fixture> {
    let kinds = KINDS.iter().flat_map(|(kind, count)| (0..*count).map(|number| (*kind, number)));
    kinds.zip(0..).map(|((kind, number), index)| Fixture::planned(kind, number, index)).collect()
}

impl Fixture {
    /// The release of this index, the `number`th of its kind.
    fn planned(kind: Kind, number: usize, index: u32) -> Self {
        let id = 1001 + index;
        let mut helm = if index.is_multiple_of(2) { Helm::V3 } else { Helm::V4 };
        if index % 13 == 4 {
            helm = helm.storing_in(Driver::ConfigMaps);
        }
        let mut service = if index.is_multiple_of(3) { "auth-service" } else { "billing" };
        let mut task_id = json!(id.to_string());
        match kind {
            Kind::TaskIdIsNumber => task_id = json!(id),
            Kind::TaskIdIsLargeNumber => task_id = json!(1_500_000),
            Kind::TaskIdIsEmpty => task_id = json!(""),
            Kind::TaskIdIsUnknown => task_id = json!("unknown"),
            Kind::TaskIdIsTooLarge => task_id = json!("99999999999"),
            Kind::SameTaskId => {
                service = if number.is_multiple_of(2) { "auth-service" } else { "billing" };
                task_id = json!((7 + number / 2).to_string());
            }
            _ => {}
        }
        let release = match kind {
            Kind::TaskIdIsEmpty => format!("{service}-task-none"),
            Kind::NameDiffers => format!("search-api-task-{}", id + 2000),
            Kind::OtherChart => "orchestrator-task-1".to_owned(),
            _ => format!("{service}-task-{}", plain(&task_id)),
        };
        Self { kind, helm, release, task_id, service: service.to_owned() }
    }
}

/// Waits until each Job is what it should come to.
fn wait_for_jobs(ns: &Namespace<'_>, fixtures: &[Fixture]) {
    let started = Instant::now();
    loop {
        let jobs = ns.list("jobs");
        let not_yet = |fixture: &&Fixture| fixture.job_among(&jobs) != fixture.job();
        let Some(fixture) = fixtures.iter().find(not_yet) else { return };
        assert!(started.elapsed() < PATIENCE, "{fixture:?} is {:?}", fixture.job_among(&jobs));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Text that no compression makes much smaller, the same each time.
fn noise(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}
