//! Leaving Helm: releases of real Helm become TaskRuns, and no agent is killed, doubled or forgotten.

use crate::helm::releases::{Fixture, Job, KEY, Kind, create_claim, files, sixty, start_task, values};
use crate::helm::{Driver, Helm};
use crate::support::{Cluster, Namespace, Operator, Output, PATIENCE, agent};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const OPERATOR: &str = env!("CARGO_BIN_EXE_taskrun-operator");
/// What somebody who moves releases may do.
const RIGHTS: [(&str, &str); 4] = [
    ("get,list,delete", "secrets,configmaps,serviceaccounts"),
    ("get,patch,delete", "jobs.batch"),
    ("get,create", "taskruns.orchestrator.io"),
    ("list", "agents.orchestrator.io"),
];
const SKIPPED: Option<i32> = Some(4);
const NOTHING_TO_DO: Option<i32> = Some(3);

/// Somebody who moves a namespace's releases, by a service account whose calls the audit log tells.
struct Mover<'a> {
    ns: &'a Namespace<'a>,
    kubeconfig: PathBuf,
    /// ConfigMaps that belong to no release.
    orphans: Value,
}

impl<'a> Mover<'a> {
    fn new(ns: &'a Namespace<'a>) -> Self {
        let token = ns.user("mover", &RIGHTS);
        let kubeconfig = ns.cluster.kubeconfig(&format!("mover-{}", ns.name), |kubeconfig| {
            kubeconfig["users"][0]["user"] = json!({"token": token});
        });
        let is_orphan = |found: &Value| text(&found["metadata"]["name"]).starts_with("orphan");
        let orphans =
            ns.list("configmaps").into_iter().filter(is_orphan).map(|found| found["metadata"]["name"].clone());
        Self { orphans: orphans.collect(), ns, kubeconfig }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(OPERATOR);
        command.args(["migrate-helm", "-n", &self.ns.name]).args(args).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        Output::of(self.command(args), "")
    }

    /// A step's report, by release, with its exit code.
    #[track_caller]
    fn report(&self, args: &[&str]) -> (BTreeMap<String, Value>, Option<i32>) {
        let output = self.run(args);
        assert_eq!(output.stderr, "", "{args:?}");
        assert_silent(&output.stdout);
        let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(report["orphanConfigMaps"], self.orphans, "{args:?}");
        let releases = report["releases"].as_array().expect("releases").iter();
        (releases.map(|entry| (text(&entry["release"]).to_owned(), entry.clone())).collect(), output.code)
    }

    /// Its writes so far: verb, resource and name of each.
    fn writes(&self) -> Vec<(String, String, String)> {
        let user = format!("system:serviceaccount:{}:mover", self.ns.name);
        let calls = self.ns.cluster.calls_of(&user).into_iter();
        let writes = calls.filter(|call| !["get", "list", "watch"].contains(&call.verb.as_str()));
        writes.filter(|call| call.code < 300).map(|call| (call.verb, call.resource, call.name)).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Holds neither the API key nor its base64.
#[track_caller]
fn assert_silent(text: &str) {
    assert!(!text.contains(KEY) && !text.contains(&BASE64_STANDARD.encode(KEY)[..24]), "the API key is told");
}

/// `kubectl get jobs -w`: what becomes of the Jobs of a namespace.
struct Watch {
    child: Child,
    file: PathBuf,
}

impl Watch {
    fn start(ns: &Namespace<'_>) -> Self {
        let file = ns.cluster.file(&format!("jobs-{}.txt", ns.name));
        let mut kubectl = ns.cluster.command("kubectl");
        kubectl.args(["-n", &ns.name, "get", "jobs", "--watch", "--output-watch-events", "--no-headers"]);
        let child = kubectl.stdout(File::create(&file).expect("a file")).stdin(Stdio::null()).spawn();
        let watch = Self { child: child.expect("kubectl"), file };
        let (started, jobs) = (Instant::now(), ns.list("jobs").len());
        while watch.events().len() < jobs {
            assert!(started.elapsed() < PATIENCE, "the watch begins with all Jobs that there are");
            std::thread::sleep(Duration::from_millis(50));
        }
        watch
    }

    /// What happened, and to which Job.
    fn events(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.file).expect("a file");
        let columns =
            text.lines().filter_map(|line| line.split_whitespace().next().zip(line.split_whitespace().nth(1)));
        columns.map(|(event, job)| (event.to_owned(), job.to_owned())).collect()
    }

    /// The Jobs that have come, and those that have gone, since it began with so many.
    fn changes(&self, began_with: usize) -> BTreeSet<(String, String)> {
        self.events().into_iter().skip(began_with).filter(|(event, _)| event != "MODIFIED").collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the plan must say of a release.
fn expected_action(kind: Kind) -> &'static str {
    match kind {
        Kind::OtherChart => "otherChart",
        Kind::Uninstalled
        | Kind::Uninstalling
        | Kind::NoFiles
        | Kind::BadFilenames
        | Kind::BlankFile
        | Kind::BinaryFile
        | Kind::TaskIdsDiffer
        | Kind::TaskIdIsEmpty
        | Kind::TaskIdIsUnknown
        | Kind::TaskIdIsTooLarge
        | Kind::OnlyJobIsSet
        | Kind::OnlyJobIsSetAndNotPlaced
        | Kind::NameDiffers
        | Kind::SameTaskId
        | Kind::JobDisabled => "skipped",
        _ => "create",
    }
}

/// What a skip must say.
fn expected_reason(kind: Kind) -> &'static str {
    match kind {
        Kind::Uninstalled => "only its history is kept",
        Kind::Uninstalling => "is being uninstalled",
        Kind::NoFiles => "is not there",
        Kind::BadFilenames => "CLAUDE.md",
        Kind::BlankFile => "is empty",
        Kind::BinaryFile => "design.md",
        Kind::TaskIdsDiffer => "job.taskId",
        Kind::TaskIdIsEmpty => "taskId",
        Kind::TaskIdIsUnknown | Kind::TaskIdIsTooLarge => "is not a number from 1 to 4294967295",
        Kind::OnlyJobIsSet | Kind::OnlyJobIsSetAndNotPlaced => "names no agent",
        Kind::NameDiffers => "its name says another service or task",
        Kind::SameTaskId => "--task-names=by-service",
        Kind::JobDisabled => "has no Job",
        _ => "",
    }
}

fn is_moved(fixture: &Fixture) -> bool {
    expected_action(fixture.kind) == "create"
}

fn task_run_of(fixture: &Fixture) -> String {
    format!(
        "task-{}",
        text(&fixture.task_id).parse::<u64>().unwrap_or_else(|_| fixture.task_id.as_u64().expect("a number"))
    )
}

/// How the run of an adopted Job is told: its phase and its outcome.
fn expected_run(job: Job) -> (&'static [&'static str], Option<&'static str>) {
    match job {
        Job::Absent => (&["Failed"], Some("Unknown")),
        Job::Active | Job::Suspended => (&["Pending", "Running"], None),
        Job::Complete => (&["Succeeded"], Some("Succeeded")),
        Job::Failed => (&["Failed"], Some("Failed")),
    }
}

#[test]
fn sixty_releases_become_task_runs_and_no_agent_is_killed_doubled_or_forgotten() {
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    ns.create(&agent("claude-agent-1", &json!({}))).ok();
    let fixtures = sixty(&ns);
    let (mover, watch) = (Mover::new(&ns), Watch::start(&ns));
    let jobs = watch.events().len();

    let (plan, code) = mover.report(&[]);
    assert_eq!((plan.len(), code), (60, Some(4)), "some are skipped");
    for fixture in &fixtures {
        let entry = &plan[&fixture.release];
        assert_eq!(entry["action"], expected_action(fixture.kind), "{fixture:?}: {entry}");
        assert!(text(&entry["reason"]).contains(expected_reason(fixture.kind)), "{fixture:?}: {entry}");
    }
    assert_eq!(mover.writes(), [], "a plan writes nothing");

    let moved: Vec<&Fixture> = fixtures.iter().filter(|fixture| is_moved(fixture)).collect();
    let (applied, code) = mover.report(&["--apply"]);
    assert_eq!(code, SKIPPED);
    for fixture in &fixtures {
        let expected = if is_moved(fixture) { "created" } else { expected_action(fixture.kind) };
        assert_eq!(applied[&fixture.release]["action"], expected, "{fixture:?}: {}", applied[&fixture.release]);
    }
    let labelled = moved.iter().filter(|fixture| fixture.job() != Job::Absent).count();
    let writes = mover.writes();
    let count = |verb: &str, resource: &str| writes.iter().filter(|(v, r, _)| v == verb && r == resource).count();
    assert_eq!(
        (count("create", "taskruns"), count("patch", "jobs"), writes.len()),
        (moved.len(), labelled, moved.len() + labelled)
    );

    for fixture in &moved {
        assert_adopted(&ns, fixture);
    }
    assert_eq!(mover.report(&["--apply"]).1, SKIPPED);
    assert_eq!(mover.writes().len(), writes.len(), "a second time there is nothing to write");
    let (verified, code) = mover.report(&["--verify"]);
    assert_eq!(code, SKIPPED);
    for fixture in &moved {
        let entry = &verified[&fixture.release];
        assert_eq!(entry["action"], "verified", "{fixture:?}: {entry}");
        let is_unknown = entry["notes"].to_string().contains("how version 1 ended is not known");
        assert_eq!(is_unknown, fixture.job() == Job::Absent, "{fixture:?}: {entry}");
    }
    let table = mover.run(&["-o", "table"]).stdout;
    assert!(table.contains("orphan-task-999-files") && table.lines().count() > 60, "{table}");
    assert_eq!(watch.changes(jobs), BTreeSet::new(), "no Job came and none went");
    println!("{} of 60 releases moved, {} writes", moved.len(), writes.len());

    new_context_waits(&ns, moved[0]);
    assert_eq!(watch.changes(jobs), BTreeSet::new(), "not for new context either, while Helm's Job goes on");
    leave(&ns, &mover, &moved);
    let second = format!("{}-{}-v2", moved[0].service, text(&moved[0].task_id));
    let came: Vec<_> = watch.changes(jobs).into_iter().filter(|(event, _)| event == "ADDED").collect();
    assert_eq!(came, [("ADDED".to_owned(), second)], "the one new Job is that of the new context");

    let ours = ns.kubectl(&["get", "taskruns,events", "-o", "yaml"]).ok();
    let labels = "app.kubernetes.io/managed-by=taskrun-operator";
    let theirs = ns.kubectl(&["get", "configmaps,jobs,pods", "-l", labels, "-o", "yaml"]).ok();
    for told in [ours, theirs, operator.log()] {
        assert_silent(&told);
    }
}

/// The TaskRun is its release's, with its files byte for byte; its first run is Helm's Job.
#[track_caller]
fn assert_adopted(ns: &Namespace<'_>, fixture: &Fixture) {
    let (phases, outcome) = expected_run(fixture.job());
    let task_run =
        ns.wait(&format!("taskrun/{}", task_run_of(fixture)), &format!("adopted: {fixture:?}"), |task_run| {
            let run = &task_run["status"]["runs"][0];
            phases.contains(&text(&task_run["status"]["phase"])) && run["outcome"].as_str() == outcome
        });
    let (spec, status) = (&task_run["spec"], &task_run["status"]);
    assert_eq!((text(&spec["serviceName"]), &spec["contextVersion"]), (fixture.service.as_str(), &json!(1)));
    assert_eq!(
        (status["runs"].as_array().map(Vec::len), text(&status["jobName"])),
        (Some(1), fixture.job_name().as_str())
    );
    if fixture.job() != Job::Absent {
        let job = ns.get(&format!("job/{}", fixture.job_name()));
        assert_eq!(status["runs"][0]["jobUid"], job["metadata"]["uid"]);
    }
    let files = ns.get(&format!("configmap/{}", fixture.files_name()));
    let stored = spec["markdownFiles"].as_array().expect("files").iter();
    let stored: BTreeMap<&str, &Value> = stored.map(|file| (text(&file["filename"]), &file["content"])).collect();
    let expected = files["data"].as_object().expect("files").iter();
    assert_eq!(stored, expected.map(|(name, content)| (name.as_str(), content)).collect());
    let history = ns.get(&format!("configmap/{}-{}-v1", fixture.service, spec["taskId"]));
    assert_eq!(history["data"], files["data"]);
}

/// Context that is added while Helm's Job runs changes nothing of it.
fn new_context_waits(ns: &Namespace<'_>, fixture: &Fixture) {
    let object = format!("taskrun/{}", task_run_of(fixture));
    ns.wait(&object, "running", |task_run| {
        task_run["status"]["phase"] == "Running" && task_run["status"]["attempts"] == 1
    });
    let mut files = ns.get(&object)["spec"]["markdownFiles"].clone();
    files.as_array_mut().expect("files").push(json!({"filename": "more.md", "content": "more"}));
    ns.merge(&object, &json!({"spec": {"markdownFiles": files, "agentName": "agent"}})).ok();
    ns.wait(&object, "waiting", |task_run| {
        text(&task_run["status"]["message"]).contains("version 2 waits for its end")
    });
    assert_eq!(ns.get(&object)["status"]["contextVersion"], 1);
}

/// Releases go once their Jobs have ended, and nothing else goes.
fn leave(ns: &Namespace<'_>, mover: &Mover<'_>, moved: &[&Fixture]) {
    let goes_on = |fixture: &&&Fixture| matches!(fixture.job(), Job::Active | Job::Suspended);
    let (deleted, code) = mover.report(&["--delete-releases"]);
    assert_eq!(code, SKIPPED);
    for fixture in moved {
        let entry = &deleted[&fixture.release];
        let expected = if goes_on(&fixture) { "skipped" } else { "deleted" };
        assert_eq!(entry["action"], expected, "{fixture:?}: {entry}");
        let job = ns.find(&format!("job/{}", fixture.job_name()));
        assert!(job.is_some() == goes_on(&fixture), "{fixture:?}");
    }
    for fixture in moved.iter().filter(goes_on) {
        let selector = format!("job-name={}", fixture.job_name());
        ns.merge(&format!("job/{}", fixture.job_name()), &json!({"spec": {"suspend": false}})).ok();
        if fixture.kind == Kind::GaveUpOnVolume {
            // its volume will never be there
            let object = format!("taskrun/{}", task_run_of(fixture));
            ns.merge(&object, &json!({"spec": {"cancel": true}})).ok();
        } else {
            ns.wait(&format!("job/{}", fixture.job_name()), "running", |job| job["status"]["ready"] == 1);
            ns.kubectl(&["annotate", "pods", "-l", &selector, "kwok.test/outcome=succeeded"]).ok();
        }
    }
    for fixture in moved.iter().filter(goes_on) {
        let outcome = if fixture.kind == Kind::GaveUpOnVolume { "Cancelled" } else { "Succeeded" };
        let what = format!("{outcome}: {fixture:?}");
        ns.wait(&format!("taskrun/{}", task_run_of(fixture)), &what, |task_run| {
            task_run["status"]["runs"][0]["outcome"] == outcome
        });
    }
    ns.wait(&format!("taskrun/{}", task_run_of(moved[0])), "run again", |task_run| {
        task_run["status"]["runs"][1]["outcome"] == "Succeeded"
    });
    let (deleted, _) = mover.report(&["--delete-releases"]);
    for fixture in moved.iter().filter(goes_on) {
        assert_eq!(deleted[&fixture.release]["action"], "deleted", "{fixture:?}: {}", deleted[&fixture.release]);
    }
    let left = mover.report(&[]).0;
    for fixture in moved {
        assert!(!left.contains_key(&fixture.release), "{fixture:?}");
        assert!(ns.find(&format!("taskrun/{}", task_run_of(fixture))).is_some());
        for object in ["job", "secret", "serviceaccount"] {
            let suffix = if object == "secret" { "-secret" } else { "" };
            assert_eq!(ns.find(&format!("{object}/{}{suffix}", fixture.job_name())), None, "{fixture:?}");
        }
        assert_eq!(ns.find(&format!("configmap/{}", fixture.files_name())), None, "{fixture:?}");
    }
    for fixture in moved.iter().filter(|fixture| fixture.kind == Kind::GaveUpOnVolume) {
        assert!(ns.find(&format!("pvc/{}-data", fixture.job_name())).is_some(), "work stays: {fixture:?}");
    }
}

/// Counts writes: Jobs that are labelled and TaskRuns that are there, two a release.
struct Written {
    jobs: Api<KubeJob>,
    task_runs: Api<DynamicObject>,
}

impl Written {
    async fn count(&self) -> usize {
        let labelled = ListParams::default().labels("orchestrator.io/task");
        let jobs = self.jobs.list_metadata(&labelled).await.expect("Jobs").items.len();
        jobs + self.task_runs.list_metadata(&ListParams::default()).await.expect("TaskRuns").items.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_anywhere_goes_on_the_next_time() {
    const RELEASES: usize = 50;
    const KILLS: usize = 20;
    let cluster = Cluster::start();
    cluster.install();
    let operator = Operator::start(&cluster, &[]);
    let ns = cluster.namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    let releases: Vec<String> = (1..=RELEASES)
        .map(|id| {
            let helm = if id.is_multiple_of(2) { Helm::V3 } else { Helm::V4.storing_in(Driver::ConfigMaps) };
            start_task(&ns, helm, &id.to_string(), "svc", &json!({"kwok.test/run-for": "until-told"}))
        })
        .collect();
    let (mover, watch) = (Mover::new(&ns), Watch::start(&ns));
    let client = cluster.client().await;
    let written = Written { jobs: Api::namespaced(client, &ns.name), task_runs: ns.task_runs().await };
    let (jobs, mut random, mut killed_after) = (watch.events().len(), fastrand::Rng::new(), vec![0]);
    // between any two writes, or while one is on its way
    while killed_after.last() < Some(&(2 * RELEASES)) {
        let enough = written.count().await + random.usize(1..3);
        let mut child = mover.command(&["--apply"]).stdout(Stdio::null()).spawn().expect("the operator's binary");
        while written.count().await < enough && child.try_wait().expect("it is ours").is_none() {}
        sleep(Duration::from_micros(random.u64(0..3_000))).await;
        let _ = child.kill();
        child.wait().expect("it ends");
        killed_after.push(written.count().await);
        assert!(killed_after.is_sorted_by(|a, b| a < b), "it got nowhere: {killed_after:?}");
    }
    println!("killed after so many of {} writes: {killed_after:?}", 2 * RELEASES);
    assert!(killed_after.len() > KILLS, "killed too seldom");
    let report = mover.report(&["--apply"]).0;
    for release in &releases {
        assert!(["created", "migrated"].contains(&text(&report[release]["action"])), "{}", report[release]);
    }
    assert_eq!(mover.report(&["--apply"]).1, NOTHING_TO_DO);
    for id in 1..=RELEASES {
        let task_run = ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Running");
        assert_eq!(task_run["status"]["jobName"], format!("svc-task-{id}-claude-code"));
    }
    assert_eq!(watch.changes(jobs), BTreeSet::new());
    let made = mover.writes().into_iter().filter(|(verb, resource, _)| verb == "create" && resource == "taskruns");
    let names: Vec<String> = made.map(|(_, _, name)| name).collect();
    // of a request whose sender was killed the log may say that it failed
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "none was made twice");
    drop(operator);
}

/// Each service numbers its own tasks, charts are not quite the same, and the predecessor goes on making releases.
#[test]
fn services_with_the_same_numbers_move_by_service_and_odd_charts_by_a_mapping() {
    let cluster = Cluster::start();
    cluster.install();
    let _operator = Operator::start(&cluster, &["--task-names=by-service"]);
    let ns = cluster.namespace(&json!({}));
    create_claim(&ns, "shared-workspace");
    let until_told = json!({"kwok.test/run-for": "until-told"});
    let mover = Mover::new(&ns);
    assert_eq!(mover.report(&[]).1, NOTHING_TO_DO);
    let [auth, billing] = ["auth", "billing"].map(|service| start_task(&ns, Helm::V4, "7", service, &until_told));
    let (plan, code) = mover.report(&["--apply"]);
    assert_eq!(
        (&plan[&auth]["action"], &plan[&billing]["action"], code),
        (&json!("skipped"), &json!("skipped"), SKIPPED)
    );

    let by_service = ["--apply", "--task-names=by-service"];
    let (report, code) = mover.report(&by_service);
    assert_eq!(
        (&report[&auth]["taskRun"], &report[&billing]["taskRun"]),
        (&json!("auth-task-7"), &json!("billing-task-7"))
    );
    assert_eq!(code, Some(0));
    for release in [&auth, &billing] {
        let task_run = ns.wait_phase(&format!("taskrun/{release}"), 1, "Running");
        assert_eq!(task_run["status"]["jobName"], format!("{release}-claude-code"));
    }

    // weeks later: a release that calls things otherwise
    ns.create(&files("odd-files", &json!("8"), "auth")).ok();
    let mut values = values(&json!(""), "", &until_told);
    values["task"] = json!({"number": 8, "of": "auth", "files": "odd-files", "branch": "next"});
    values["job"]["taskId"] = json!("");
    values["job"]["microservice"] = json!("");
    values["taskConfigMapName"] = json!("");
    Helm::V3.install(&ns, "odd", &values).ok();
    let (report, code) = mover.report(&by_service);
    assert_eq!(
        (&report["odd"]["action"], &report[&auth]["action"], code),
        (&json!("skipped"), &json!("migrated"), SKIPPED)
    );
    let printed = mover.run(&["--print-mapping"]).ok();
    let mapping = cluster.file("mapping.yaml");
    std::fs::write(&mapping, &printed).expect("a file");
    let with_mapping = [by_service.as_slice(), &["--mapping", mapping.to_str().expect("a path")]].concat();
    assert_eq!(mover.report(&with_mapping).0, report, "what is printed is what is used");
    let ours = "{taskId: [task.number], serviceName: [task.of], configMap: [task.files], env: {BRANCH: [task.branch]}, files: {design-spec.md: design.md}}";
    std::fs::write(&mapping, ours).expect("a file");
    let (report, _) = mover.report(&with_mapping);
    assert_eq!(report["odd"]["action"], "created", "{}", report["odd"]);
    let spec = ns.wait_phase("taskrun/auth-task-8", 1, "Running")["spec"].clone();
    assert_eq!(spec["env"], json!([{"name": "BRANCH", "value": "next"}]));
    assert_eq!(spec["markdownFiles"][0]["filename"], "design.md");

    std::fs::write(&mapping, "taskIds: [a]").expect("a file");
    let refused = mover.run(&with_mapping);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("taskIds") && refused.stderr.contains("mapping.yaml"), "{}", refused.stderr);
    let both = mover.run(&["--apply", "--verify"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}
