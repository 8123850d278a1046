//! The page in a real browser (`tests/page/`): headless Chromium on the operator that serves it, with real RBAC.
//!
//! What is done and looked at stands in the scripts there; here are the control plane, the operator, and the tokens of
//! those who sign in.

use crate::support::{Cluster, Namespace, Operator, PATIENCE, free_port, get, task_run};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Tasks of the long list.
const TASKS: u32 = 5_000;
/// Writes that are on their way at once.
const AT_ONCE: usize = 32;
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page");

/// A control plane with an operator that serves the page for a namespace.
struct Site<'a> {
    ns: &'a Namespace<'a>,
    args: Vec<String>,
    port: u16,
    operator: Option<Operator>,
}

impl<'a> Site<'a> {
    fn start(ns: &'a Namespace<'a>, more: &[&str]) -> Self {
        let port = free_port();
        let mut args = vec![
            format!("--api-addr=127.0.0.1:{port}"),
            "--api-plain-http".to_owned(),
            format!("--api-namespace={}", ns.name),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let operator = Operator::start(ns.cluster, &refs(&args));
        let index = get(([127, 0, 0, 1], port).into(), "/").expect("it listens");
        assert!(index.starts_with("HTTP/1.1 200"), "the operator was built without the page: make page; {index}");
        Self { ns, args, port, operator: Some(operator) }
    }

    /// Runs a script, which may have the operator end and start again.
    fn run(&mut self, script: &str, env: &[(&str, &str)]) {
        let build = Command::new("./build.sh").current_dir(FOLDER).stderr(Stdio::inherit()).output();
        assert!(build.expect("tests/page/build.sh is there").status.success(), "there is no browser");
        let mut node = self.ns.cluster.command("node");
        node.arg(script).current_dir(FOLDER).envs(env.iter().copied());
        node.env("PAGE_URL", format!("http://127.0.0.1:{}", self.port)).env("PAGE_NAMESPACE", &self.ns.name);
        node.env("PAGE_LOGS", self.ns.cluster.file("logs")).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(folder) = screenshots() {
            node.env("PAGE_SCREENSHOTS", folder);
        }
        let mut node = node.spawn().expect("node is on PATH");
        let mut stdin = node.stdin.take().expect("a pipe");
        for line in BufReader::new(node.stdout.take().expect("a pipe")).lines() {
            match line.expect("text").as_str() {
                "@stop" => self.operator.as_ref().expect("it runs").signal("TERM"),
                "@start" => self.operator = self.operator.take().map(|old| old.restart(&refs(&self.args))),
                line => {
                    println!("{line}");
                    continue;
                }
            }
            stdin.write_all(b"done\n").expect("it listens");
        }
        let ended = node.wait().expect("it ends");
        assert!(ended.success(), "{script} found something wrong; the operator says: {}", self.log());
    }

    fn log(&self) -> String {
        let log = self.operator.as_ref().map(Operator::log).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    /// Somebody with one of the cluster's own roles, by his token.
    fn user(&self, name: &str, role: &str) -> String {
        self.ns.kubectl(&["create", "serviceaccount", name]).ok();
        let account = format!("--serviceaccount={}:{name}", self.ns.name);
        self.ns.kubectl(&["create", "rolebinding", name, &format!("--clusterrole={role}"), &account]).ok();
        self.ns.kubectl(&["create", "token", name]).ok().trim().to_owned()
    }
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Where to keep what is seen, if that is asked for.
#[expect(clippy::disallowed_methods, reason = "make screenshots asks for it so")]
fn screenshots() -> Option<OsString> {
    std::env::var_os("TASKRUN_SCREENSHOTS")
}

/// What pods of the Agent `agent` do.
fn until_told() -> Value {
    json!({"kwok.test/run-for": "until-told", "kwok.test/stop-after": "500ms"})
}

#[test]
fn a_days_work_over_an_api_that_ends_and_a_token_that_does() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&until_told());
    let mut site = Site::start(&ns, &[]);
    let editor = site.user("editor", "edit");
    site.run("work.js", &[("PAGE_EDITOR", &editor)]);
}

#[test]
fn who_may_not_act_sees_all_that_he_may_see() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&until_told());
    let mut site = Site::start(&ns, &[]);
    let reader = site.user("reader", "view");
    let narrow = ns.user("narrow", &[("get,list,watch", "taskruns.orchestrator.io")]);
    site.run("reader.js", &[("PAGE_READER", &reader), ("PAGE_NARROW", &narrow)]);
}

#[test]
fn nothing_that_somebody_wrote_runs() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&until_told());
    let mut site = Site::start(&ns, &[]);
    let editor = site.user("editor", "edit");
    site.run("hostile.js", &[("PAGE_EDITOR", &editor)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_tasks_scroll_as_fifty_do() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&json!({}));
    // nobody runs them: they are as they are made
    let mut site = Site::start(&ns, &["--namespace=default"]);
    create_many(&ns).await;
    let editor = site.user("editor", "edit");
    let tasks = TASKS.to_string();
    tokio::task::block_in_place(|| site.run("many.js", &[("PAGE_EDITOR", &editor), ("PAGE_TASKS", &tasks)]));
}

/// Tasks in all phases, as an operator would have left them.
async fn create_many(ns: &Namespace<'_>) {
    const SERVICES: [&str; 6] = ["auth-service", "billing", "search-index", "web", "notifications", "ledger"];
    const TITLES: [&str; 7] = [
        "Refresh tokens for the auth service",
        "Move invoices to the new ledger",
        "Rebuild the index without downtime",
        "Dark mode for the settings",
        "Limit requests per customer",
        "Send receipts in the customer's language",
        "Take the old export away",
    ];
    let (api, started) = (ns.task_runs().await, Instant::now());
    let create = async |id: u32| {
        let at = id as usize;
        let mut task = task_run(id, &[("task.md", "# Do it\n")]);
        task["metadata"]["annotations"] = json!({"orchestrator.io/title": TITLES[at * 31 % TITLES.len()]});
        task["spec"]["serviceName"] = json!(SERVICES[at * 17 % SERVICES.len()]);
        task["spec"]["agentName"] = json!(["coder", "reader", "coder-large"][at % 3]);
        let task = serde_json::from_value(task).expect("an object");
        api.create(&PostParams::default(), &task).await.expect("created");
        let status = json!({"status": status(id)});
        api.patch_status(&format!("task-{id}"), &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
    };
    stream::iter(1..=TASKS).map(create).buffer_unordered(AT_ONCE).for_each(async |()| {}).await;
    println!("{TASKS} tasks were made in {:.0?}", started.elapsed());
    assert!(started.elapsed() < PATIENCE * 4);
}

/// Each began half a minute after the one before, until now.
#[expect(clippy::disallowed_methods, reason = "how long a task runs is told until now")]
fn status(id: u32) -> Value {
    let second =
        |seconds: i64| Timestamp::from_second(Timestamp::now().as_second() - seconds).expect("a time").to_string();
    let ago = i64::from(TASKS - id) * 30 + 5;
    let took = ago.min(40 + i64::from(id * 7 % 900));
    let (phase, message) = match id % 20 {
        0 => ("Running", "its Job is running"),
        16 => ("Pending", "there is no Agent \"coder\" in this namespace"),
        12 | 18 => ("Failed", "Job has reached the specified backoff limit; container agent ended with exit code 1"),
        _ => ("Succeeded", "its Job succeeded"),
    };
    let (has_started, has_ended) = (phase != "Pending", ["Failed", "Succeeded"].contains(&phase));
    json!({"phase": phase, "message": message, "contextVersion": 1, "attempts": u32::from(has_started),
        "startTime": has_started.then(|| second(ago)), "completionTime": has_ended.then(|| second(ago - took))})
}
