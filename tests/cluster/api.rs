//! The PM API on a real API server, with real RBAC: two replicas, each caller with a token of his own.

use crate::support::{Cluster, Namespace, Operator, PATIENCE, free_port, markdown, task_run, wait_until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Adds at once, half through each replica.
const ADDS: u32 = 200;
/// What a caller needs for all routes.
const ALL: &[(&str, &str)] = &[("*", "taskruns.orchestrator.io"), ("get,list", "pods,pods/log,configmaps")];

/// Two replicas, and the namespace that they speak of.
struct Replicas {
    ns: Namespace<'static>,
    operators: [Operator; 2],
    ports: [u16; 2],
}

impl Replicas {
    fn shared() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static SHARED: OnceLock<Replicas> = OnceLock::new();
        SHARED.get_or_init(|| {
            let cluster = CLUSTER.get_or_init(Cluster::start);
            cluster.install();
            let ns = cluster.namespace(&json!({"kwok.test/run-for": "until-told"}));
            let ports = [free_port(), free_port()];
            let args = ports.map(|port| args(&ns, port, 1_000));
            let operators = [Operator::start(cluster, &refs(&args[0])), Operator::launch(cluster, &refs(&args[1]))];
            for port in ports {
                wait_for(port);
            }
            Self { ns, operators, ports }
        })
    }

    fn caller<'a>(&self, replica: usize, token: &'a str) -> Caller<'a> {
        Caller { port: self.ports[replica], token }
    }
}

fn args(ns: &Namespace<'_>, port: u16, rate: u32) -> Vec<String> {
    vec![
        format!("--api-addr=127.0.0.1:{port}"),
        "--api-plain-http".to_owned(),
        format!("--api-namespace={}", ns.name),
        format!("--api-rate-limit={rate}"),
    ]
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn wait_for(port: u16) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < PATIENCE, "the PM API does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Somebody who calls one replica.
#[derive(Clone, Copy)]
struct Caller<'a> {
    port: u16,
    token: &'a str,
}

struct Reply {
    status: u16,
    head: String,
    body: Value,
}

impl Caller<'_> {
    fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "", &body.to_string())
    }

    fn add(&self, task: &str, text: &str, key: Option<&str>) -> Reply {
        let head = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let body = json!({"additional_context": text}).to_string();
        self.send("POST", &format!("/pm/tasks/{task}/context"), &head, &body)
    }

    fn send(&self, method: &str, path: &str, head: &str, body: &str) -> Reply {
        let mut text = String::new();
        self.open(method, path, head, body).read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Reply { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(json!(body)) }
    }

    fn open(&self, method: &str, path: &str, head: &str, body: &str) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let token =
            if self.token.is_empty() { String::new() } else { format!("Authorization: Bearer {}\r\n", self.token) };
        let fixed = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\n{fixed}{token}{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // an answer may come before all of a large body was read
        let _ = (&stream).write_all(request.as_bytes());
        BufReader::new(stream)
    }
}

impl Reply {
    #[track_caller]
    fn ok(&self) -> &Value {
        assert_eq!((self.status, &self.body["success"]), (200, &json!(true)), "{}", self.body);
        &self.body["data"]
    }

    #[track_caller]
    fn is(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{}", self.body);
        assert_eq!(self.body["success"], false);
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.body["message"].as_str().expect("a message").contains(text), "{}", self.body);
        self
    }
}

/// The predecessor's request, as its client sent it.
fn old_request(id: u32, agent: &str) -> Value {
    json!({"id": id, "title": "Refresh tokens", "description": "", "details": "", "test_strategy": "", "priority": "high",
        "dependencies": [], "status": "pending", "subtasks": [{"id": 1, "title": "", "description": "",
        "dependencies": [], "details": "", "status": "", "test_strategy": ""}], "service_name": "auth-service",
        "agent_name": agent,
        "markdown_files": [{"content": "do it", "filename": "task.md", "file_type": "task"}]})
}

fn files(task: &Value) -> Vec<Value> {
    task["spec"]["markdownFiles"].as_array().cloned().expect("files")
}

fn version(task: &Value) -> u64 {
    task["spec"]["contextVersion"].as_u64().expect("a version")
}

/// Adds so many notes at once, half of them through each replica, while something else goes on; returns what each
/// caller was told. Whom a busy replica asks to come again comes again with the same key, as its clients do.
fn add_at_once(replicas: &Replicas, task: &str, user: &str, beside: impl FnOnce() + Send) -> Vec<Value> {
    let token = replicas.ns.user(user, &[("get,patch", "taskruns.orchestrator.io")]);
    let started = Instant::now();
    let told: Vec<Value> = thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let adds: Vec<_> = (0..ADDS)
            .map(|number| {
                let caller = replicas.caller(number as usize % 2, &token);
                scope.spawn(move || {
                    let (text, key) = (format!("note {number} of {user}"), format!("{user}-{number}"));
                    let mut told = caller.add(task, &text, Some(&key));
                    while told.status == 503 && started.elapsed() < 4 * PATIENCE {
                        thread::sleep(Duration::from_secs(1)); // what Retry-After says
                        told = caller.add(task, &text, Some(&key));
                    }
                    told.ok().clone()
                })
            })
            .collect();
        let told = adds.into_iter().map(|add| add.join().expect("no panic")).collect();
        beside.join().expect("no panic");
        told
    });
    let took = started.elapsed();
    let calls = replicas.ns.cluster.calls_of(&format!("system:serviceaccount:{}:{user}", replicas.ns.name));
    let conflicts = calls.iter().filter(|call| [409, 422].contains(&call.code)).count();
    println!(
        "{ADDS} adds by {user} in {took:.1?} ({:.0?} each): {:.1} API server requests each, {conflicts} conflicts",
        took / ADDS,
        f64::from(u32::try_from(calls.len()).expect("few")) / f64::from(ADDS)
    );
    told
}

fn distinct<'a>(told: &'a [Value], field: &str) -> BTreeSet<&'a str> {
    told.iter().map(|told| told[field].as_str().expect("text")).collect()
}

/// What each of them added is there, as it was told.
#[track_caller]
fn assert_all_there(told: &[Value], task: &Value, user: &str) {
    let stored = files(task);
    let contents: BTreeSet<&str> = stored.iter().map(|file| file["content"].as_str().expect("text")).collect();
    let lost: Vec<_> = (0..ADDS).filter(|number| !contents.contains(&*format!("note {number} of {user}"))).collect();
    assert_eq!(lost, Vec::<u32>::new(), "none is lost or merged");
    for (number, told) in told.iter().enumerate() {
        let file = stored.iter().find(|file| file["filename"] == told["filename"]).expect("its file");
        assert_eq!(file["content"], format!("note {number} of {user}"));
    }
}

#[test]
fn two_hundred_adds_at_once_through_two_replicas_are_two_hundred_files_and_versions() {
    let replicas = Replicas::shared();
    let task = "taskrun/task-200";
    replicas.ns.create(&task_run(200, &[("task.md", "do it")])).ok();
    let told = add_at_once(replicas, "200", "crowd", || {});
    let stored = replicas.ns.get(task);
    assert_eq!(version(&stored), 1 + u64::from(ADDS), "moved by exactly that");
    assert_eq!(files(&stored).len(), 1 + ADDS as usize);
    let versions: BTreeSet<u64> = told.iter().map(|told| told["context_version"].as_u64().expect("one")).collect();
    assert_eq!(versions, (2..2 + u64::from(ADDS)).collect(), "each has a version of its own");
    assert_eq!(distinct(&told, "filename").len(), ADDS as usize, "each has a file of its own");
    assert_all_there(&told, &stored, "crowd");
    replicas.ns.wait_phase(task, 1 + u64::from(ADDS), "Running");
}

#[test]
fn adds_lose_nothing_to_an_editor_and_a_gitops_manager() {
    let replicas = Replicas::shared();
    let (ns, task) = (&replicas.ns, "taskrun/task-201");
    let mut manifest = task_run(201, &[("task.md", "revision 0"), ("edited.md", "edit 0")]);
    let apply = |manifest: &Value| {
        ns.kubectl_on(&["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"], manifest)
    };
    ns.create(&manifest).ok();
    let mut moves = 0;
    let told = add_at_once(replicas, "201", "busy", || {
        for revision in 1..=8 {
            // what an editor does: read, take time, write the whole list back
            ns.edit(task, &format!("-e 's/edit [0-9]/edit {revision}/'")).ok();
            manifest["spec"]["markdownFiles"] = markdown(&[("task.md", &format!("revision {revision}"))]);
            apply(&manifest).ok();
            moves += 2;
        }
    });
    let stored = ns.get(task);
    assert_all_there(&told, &stored, "busy");
    assert_eq!(distinct(&told, "filename").len(), ADDS as usize);
    let content =
        |name: &str| files(&stored).into_iter().find(|file| file["filename"] == name).expect("it")["content"].clone();
    assert_eq!((content("task.md"), content("edited.md")), (json!("revision 8"), json!("edit 8")));
    assert_eq!(version(&stored), 1 + u64::from(ADDS) + moves, "each change is a version, and nothing else is");
}

#[test]
fn the_same_text_of_twenty_callers_is_twenty_files_and_the_same_request_one() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("same", ALL);
    let caller = |number: usize| replicas.caller(number % 2, &token);
    replicas.ns.create(&task_run(202, &[("task.md", "do it")])).ok();
    let at_once = |key: Option<&'static str>| -> Vec<Value> {
        thread::scope(|scope| {
            let adds: Vec<_> = (0..20)
                .map(|number| scope.spawn(move || caller(number).add("202", "the same", key).ok().clone()))
                .collect();
            adds.into_iter().map(|add| add.join().expect("no panic")).collect()
        })
    };
    assert_eq!(distinct(&at_once(None), "filename").len(), 20);
    assert_eq!(version(&replicas.ns.get("taskrun/task-202")), 21);

    let told = at_once(Some("retry-1"));
    assert_eq!(distinct(&told, "filename").len(), 1, "all speak of one file");
    assert!(told.iter().all(|told| told["context_version"] == 22), "and of its version");
    assert_eq!(told.iter().filter(|told| told["created"] == true).count(), 1, "which one of them added");
    let stored = replicas.ns.get("taskrun/task-202");
    assert_eq!((version(&stored), files(&stored).len()), (22, 22));
    caller(0).add("202", "later", None).ok();
    assert_eq!(caller(1).add("202", "the same", Some("retry-1")).ok()["context_version"], 22);
    caller(0).add("202", "another text", Some("retry-1")).is(422, "invalid").says("Idempotency-Key");
    let long = "x".repeat(129);
    for key in ["", "two words", "\u{e9}", &long] {
        caller(0).add("202", "text", Some(key)).is(400, "invalid_request").says("Idempotency-Key must be");
    }
}

#[test]
fn old_clients_bodies_are_taken_as_they_are() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("old", ALL);
    let caller = replicas.caller(0, &token);
    let submitted = caller.post("/pm/tasks", &old_request(1001, "agent"));
    let expected = json!({"name": "task-1001", "namespace": replicas.ns.name, "service": "auth-service",
        "task_id": 1001, "context_version": 1, "created": true});
    assert_eq!((submitted.ok(), &submitted.body["message"]), (&expected, &json!("Task submitted successfully")));
    let again = caller.post("/pm/tasks", &old_request(1001, "agent"));
    assert_eq!(again.ok()["created"], false);
    let added = caller.add("1001", "more", None);
    assert_eq!(added.body["message"], "Context added successfully");
    assert_eq!((&added.ok()["name"], &added.ok()["context_version"]), (&json!("task-1001"), &json!(2)));
    // after which the first request is still the same task
    assert_eq!(caller.post("/pm/tasks", &old_request(1001, "agent")).ok()["context_version"], 2);

    let mut later = old_request(1002, "agent");
    let more = json!({"model": "opus", "working_directory": "src", "prompt_mode": "append",
        "agent_tools": [{"name": "bash", "enabled": true}], "local_tools": "a,b", "tool_config": null,
        "repository": {"url": "https://bot:ghp-secret@git.example.test/a", "branch": "main", "githubUser": "bot", "token": "ghp-secret"}});
    later.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    caller.post("/pm/tasks", &later).says("the token in repository was not stored").ok();
    let stored = replicas.ns.get("taskrun/task-1002");
    assert!(!stored.to_string().contains("ghp-secret"));
    assert_eq!(stored["metadata"]["annotations"]["orchestrator.io/title"], "Refresh tokens");
    let env = |name: &str| {
        stored["spec"]["env"].as_array().expect("env").iter().find(|env| env["name"] == name).expect(name)["value"]
            .clone()
    };
    assert_eq!((env("MODEL"), env("REPOSITORY_BRANCH")), (json!("opus"), json!("main")));
    assert_eq!(env("AGENT_TOOLS"), r#"[{"enabled":true,"name":"bash"}]"#);

    let text = json!({"id": 1003, "service_name": "auth-service", "agent_name": "agent", "title": "Only words", "details": "Do it."});
    caller.post("/pm/tasks", &text).ok();
    assert_eq!(files(&replicas.ns.get("taskrun/task-1003"))[0]["content"], "# Only words\n\n## Details\n\nDo it.\n");
    let status = caller.get("/pm/tasks/1003/status");
    assert!(["Pending", "Running"].contains(&status.ok()["phase"].as_str().expect("a phase")));
}

#[test]
fn each_refusal_has_its_status_and_its_reason() {
    let replicas = Replicas::shared();
    let (ns, taskruns) = (&replicas.ns, "taskruns.orchestrator.io");
    let (all, reader) = (ns.user("all", ALL), ns.user("reader", &[("get,list,watch", taskruns)]));
    let submitter = ns.user("submitter", &[("create", taskruns)]);
    let [all, reader, submitter, nobody, unknown] =
        [&all, &reader, &submitter, "", "not-a-token"].map(|token| replicas.caller(1, token));
    submitter.post("/pm/tasks", &old_request(300, "agent")).ok();

    let bad = all.send("POST", "/pm/tasks", "", "{\"id\": 1");
    bad.is(400, "invalid_request").says("the body cannot be read");
    all.post("/pm/tasks", &json!({"id": 1, "service_name": "a", "agent_name": "b", "markdownFiles": []}))
        .is(400, "invalid_request")
        .says("unknown field `markdownFiles`");
    all.get("/pm/tasks/..%2Fagents").is(400, "invalid_request").says("the task must be its number");
    all.get("/pm/tasks?limit=501").is(400, "invalid_request").says("limit must be 1 to 500");
    all.get("/pm/tasks?continue=nonsense").is(400, "invalid_request");

    let refused = nobody.get("/pm/tasks");
    refused.is(401, "unauthenticated").says("Authorization: Bearer");
    assert!(refused.head.contains("www-authenticate: Bearer"), "{}", refused.head);
    unknown.get("/pm/tasks").is(401, "unauthenticated");

    reader.get("/pm/tasks/300").ok();
    let refused = reader.add("300", "more", None);
    refused.is(403, "forbidden").says("cannot patch resource \"taskruns\"").says("system:serviceaccount");
    reader.post("/pm/tasks", &old_request(301, "agent")).is(403, "forbidden").says("cannot create resource");
    reader.send("DELETE", "/pm/tasks/300", "", "").is(403, "forbidden");
    submitter.get("/pm/tasks").is(403, "forbidden");
    let looker = ns.user("looker", &[("get", taskruns)]);
    let looker = replicas.caller(0, &looker);
    looker.get("/pm/tasks/300/events").is(403, "forbidden").says("cannot list resource");
    looker.get("/pm/tasks/300/logs").is(403, "forbidden").says("cannot list resource \"pods\"");
    submitter.post("/pm/tasks", &old_request(300, "agent")).is(409, "already_exists").says("cannot be compared");

    all.add("999", "more", None).is(404, "not_found").says("\"task-999\" not found");
    all.get("/pm/tasks/300/history/7").is(404, "not_found").says("there is no version 7: the newest is 1");
    all.get("/nowhere").is(404, "not_found");
    let put = all.send("PUT", "/pm/tasks", "", "");
    assert!(put.is(405, "method_not_allowed").head.contains("allow: GET, POST"), "{}", put.head);

    all.post("/pm/tasks", &old_request(300, "other")).is(409, "already_exists").says("agent_name is \"agent\" there");
    all.post("/pm/tasks/300/rerun", &json!({"context_version": 9}))
        .is(409, "conflict")
        .says("the present version is 1");

    let refused = all.add("300", &"x".repeat(950_000), None);
    assert_eq!(refused.is(413, "too_large").body["bytes_left"], 900 * 1024 - 5);
    all.send("POST", "/pm/tasks", "", &"x".repeat(4 * 1024 * 1024 + 1)).is(413, "too_large");

    let refused = all.add("300", "<!-- todo -->", None);
    assert_eq!(refused.is(422, "invalid").body["violations"][0]["field"], "spec.markdownFiles[1].content");
    let mut request = old_request(302, "agent");
    request["markdown_files"] = json!([{"filename": "a.txt", "content": "x"}, {"filename": "b.md", "content": " "}]);
    assert_eq!(
        all.post("/pm/tasks", &request).is(422, "invalid").body["violations"][0]["field"],
        "spec.markdownFiles[0].filename"
    );
    request["markdown_files"] =
        json!([{"filename": "CLAUDE.md", "content": "x"}, {"filename": "b.md", "content": " "}]);
    assert_eq!(all.post("/pm/tasks", &request).is(422, "invalid").body["violations"].as_array().expect("all").len(), 2);

    let log = replicas.operators[1].log();
    assert!(log.contains("request_id") && !log.contains("not-a-token") && !log.contains(all.token));
    assert!(!log.contains("do it") && !log.contains("xxxxxxxx"));
}

#[test]
fn too_many_requests_and_an_api_server_that_is_away_are_told_with_a_time_to_come_back() {
    let cluster = Cluster::start();
    cluster.install();
    let ns = cluster.namespace(&json!({}));
    let port = free_port();
    let _operator = Operator::start(&cluster, &refs(&args(&ns, port, 1)));
    let (token, other, new) = (ns.user("hasty", ALL), ns.user("patient", ALL), ns.user("new", ALL));
    let caller = Caller { port, token: &token };
    let replies: Vec<Reply> = (0..20).map(|_| caller.get("/pm/tasks")).collect();
    let refused = replies.iter().find(|reply| reply.status != 200).expect("one too many");
    assert!(refused.is(429, "rate_limited").head.contains("retry-after: "), "{}", refused.head);
    Caller { port, token: &other }.get("/pm/tasks").ok();

    let stopped = cluster.pid_of("kube-apiserver");
    assert!(std::process::Command::new("kill").args(["-KILL", &stopped]).status().expect("kill").success());
    for token in [&other, &new] {
        let refused = Caller { port, token }.add("1", "text", None);
        assert!(refused.is(503, "unavailable").head.contains("retry-after: "), "{}", refused.head);
    }
}

#[test]
fn a_task_is_followed_acted_on_and_taken_back() {
    let replicas = Replicas::shared();
    let (ns, token) = (&replicas.ns, replicas.ns.user("worker", ALL));
    let caller = replicas.caller(1, &token);
    caller.post("/pm/tasks", &old_request(400, "agent")).ok();
    let mut events = caller.open("GET", "/pm/tasks/400/events", "", "");
    ns.wait_phase("taskrun/task-400", 1, "Running");
    let line = wait_line(&mut events, "\"phase\":\"Running\"");
    assert!(line.starts_with("data: {"), "{line}");

    let pod = |version: u32| {
        let job = format!("batch.kubernetes.io/job-name=auth-service-400-v{version}");
        ns.kubectl(&["get", "pods", "-l", &job, "-o", "jsonpath={.items[0].metadata.name}"]).ok()
    };
    ns.log(&pod(1), "first line");
    assert_eq!(caller.get("/pm/tasks/400/logs").status, 200);
    let mut log = caller.open("GET", "/pm/tasks/400/logs?follow=true", "", "");
    wait_line(&mut log, "first line");
    caller.add("400", "more", Some("note-1")).ok();
    ns.wait_phase("taskrun/task-400", 2, "Running");
    ns.log(&pod(2), "second line");
    wait_line(&mut log, "==> version 2, pod ");
    wait_line(&mut log, "second line");
    wait_line(&mut events, "\"latest_context_version\":2");
    caller.get("/pm/tasks/400/logs?version=9").is(404, "not_found").says("has no version 9");

    assert_eq!(caller.post("/pm/tasks/400/rollback", &json!({"context_version": 1})).ok()["context_version"], 3);
    assert_eq!(caller.post("/pm/tasks/400/rollback", &json!({"context_version": 1})).ok()["context_version"], 3);
    let stored = ns.wait_phase("taskrun/task-400", 3, "Running");
    assert_eq!(files(&stored).len(), 1, "what was added is taken away, knowingly");
    let history = caller.get("/pm/tasks/400/history/2");
    assert_eq!(history.ok()["markdown_files"].as_array().expect("files").len(), 2);
    assert_eq!(caller.post("/pm/tasks/400/rollback", &json!({"context_version": 2})).ok()["context_version"], 4);
    ns.wait_phase("taskrun/task-400", 4, "Running");
    let again = caller.add("400", "more", Some("note-1"));
    assert_eq!((&again.ok()["created"], &again.ok()["filename"]), (&json!(false), &json!("context-v2.md")));
    assert_eq!(caller.post("/pm/tasks/400/rollback", &json!({"context_version": 1})).ok()["context_version"], 5);
    assert_eq!(files(&ns.wait_phase("taskrun/task-400", 5, "Running")).len(), 1, "once more");
    caller.post("/pm/tasks/400/rollback", &json!({"context_version": 7})).is(404, "not_found");

    caller.post("/pm/tasks/400/suspend", &json!({})).ok();
    ns.wait("taskrun/task-400", "suspended", |task| task["status"]["conditions"].to_string().contains("\"Suspended\""));
    caller.post("/pm/tasks/400/resume", &json!({})).ok();
    ns.wait_phase("taskrun/task-400", 5, "Running");
    caller.post("/pm/tasks/400/cancel", &json!({})).says("is cancelled").ok();
    ns.wait_phase("taskrun/task-400", 5, "Failed");
    caller.add("400", "later", None).says("it does not run before the task is run again: it is cancelled").ok();
    ns.wait_phase("taskrun/task-400", 6, "Failed");
    assert_eq!(caller.post("/pm/tasks/400/rerun", &json!({"context_version": 6})).ok()["context_version"], 7);
    caller.post("/pm/tasks/400/rerun", &json!({"context_version": 6})).is(409, "conflict");
    ns.wait_phase("taskrun/task-400", 7, "Running");

    let listed = caller.get("/pm/tasks?phase=Running&service=auth-service");
    let tasks = listed.ok()["tasks"].as_array().expect("tasks");
    let task = tasks.iter().find(|task| task["name"] == "task-400").expect("listed");
    assert_eq!((&task["context_version"], &task["title"]), (&json!(7), &json!("Refresh tokens")));
    assert!(task["started_at"].is_string());
    let runs = caller.get("/pm/tasks/400/history").ok()["runs"].clone();
    let outcomes: Vec<&str> = runs.as_array().expect("runs").iter().filter_map(|run| run["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["Superseded", "Superseded", "Superseded", "Superseded", "Cancelled", "Cancelled"]);

    caller.send("DELETE", "/pm/tasks/400", "", "").ok();
    wait_line(&mut events, "event: deleted");
    ns.wait("taskrun/task-400", "gone", Value::is_null);
    caller.get("/pm/tasks/400").is(404, "not_found");
}

#[test]
fn nothing_is_done_to_a_task_or_a_version_that_the_caller_does_not_mean() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("precise", ALL);
    let caller = replicas.caller(1, &token);
    caller.post("/pm/tasks", &old_request(410, "agent")).ok();
    caller.add("410", "more", None).ok();
    let seen = || caller.get("/pm/tasks/410").ok().clone();
    let (before, another) = (seen(), "0e3dbf4f-6a35-4f3c-9a55-8f3c9e8d1b27");
    for (path, body, status) in [
        ("cancel", json!({"context_version": 1, "uid": before["uid"]}), 409),
        ("rollback", json!({"context_version": 1, "present_version": 1, "uid": before["uid"]}), 409),
        ("rerun", json!({"context_version": 1, "uid": before["uid"]}), 409),
        ("context", json!({"additional_context": "lost", "uid": another}), 404),
        ("cancel", json!({"uid": another}), 404),
        ("rerun", json!({"uid": another}), 404),
        ("suspend", json!({"uid": another}), 404),
        ("resume", json!({"uid": another}), 404),
        ("rollback", json!({"context_version": 1, "uid": another}), 404),
    ] {
        let code = if status == 409 { "conflict" } else { "not_found" };
        caller.post(&format!("/pm/tasks/410/{path}"), &body).is(status, code);
    }
    let of = |task: &Value| ["context_version", "cancel", "suspend", "markdown_files"].map(|field| task[field].clone());
    assert_eq!(of(&seen()), of(&before));
    let meant = json!({"context_version": 1, "present_version": 2, "uid": before["uid"]});
    assert_eq!(caller.post("/pm/tasks/410/rollback", &meant).ok()["context_version"], 3);
    let meant = json!({"context_version": 3, "uid": before["uid"]});
    caller.post("/pm/tasks/410/cancel", &meant).says("is cancelled").ok();
    caller.send("DELETE", "/pm/tasks/410", "", "").ok();
}

/// Reads until a line has this text.
#[track_caller]
fn wait_line(stream: &mut BufReader<TcpStream>, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).expect("in time"), 0, "ended before {text:?}: {seen}");
        if line.contains(text) {
            return line;
        }
        seen += &line;
    }
}

#[test]
fn all_tasks_are_followed_as_rows() {
    let cluster = Cluster::start();
    cluster.install();
    let (ns, port) = (cluster.namespace(&json!({"kwok.test/run-for": "until-told"})), free_port());
    let _operator = Operator::start(&cluster, &refs(&args(&ns, port, 1_000)));
    let token = ns.user("follower", &[("list,watch", "taskruns.orchestrator.io")]);
    let caller = Caller { port, token: &token };
    for id in 1..=120 {
        let mut task = task_run(id, &[("task.md", &"secret words ".repeat(100))]);
        task["spec"]["suspend"] = json!(true);
        ns.create(&task).ok();
    }
    let mut rows = caller.open("GET", "/pm/tasks/events", "", "");
    let page = wait_line(&mut rows, "\"first\":true");
    assert!(page.contains("\"last\":false") && page.contains("\"task_id\":1,"), "{page}");
    let last = wait_line(&mut rows, "\"last\":true");
    let names = format!("{page}{last}").matches("\"name\":\"task-").count();
    assert_eq!(names, 120, "all of them, in pages");
    assert!(!format!("{page}{last}").contains("secret words"), "no markdown is in a row");

    // what changes is told, and what is gone; over more than one watch of the API server
    let mut task = task_run(121, &[("task.md", "do it")]);
    task["metadata"]["annotations"] = json!({"orchestrator.io/title": "New"});
    ns.create(&task).ok();
    assert!(wait_line(&mut rows, "\"title\":\"New\"").contains("\"tasks\""));
    wait_line(&mut rows, "\"phase\":\"Running\"");
    ns.kubectl(&["delete", "taskrun", "task-5", "--wait=false"]).ok();
    wait_line(&mut rows, "\"deleted\":[\"task-5\"]");
    let follower = format!("system:serviceaccount:{}:follower", ns.name);
    // the log tells of a watch when it has ended
    wait_until("no watch has ended", || cluster.calls_of(&follower).iter().any(|call| call.verb == "watch"));
    ns.kubectl(&["annotate", "taskrun", "task-6", "orchestrator.io/title=Later"]).ok();
    let later = wait_line(&mut rows, "\"title\":\"Later\"");
    assert!(!later.contains("\"first\""), "it is not listed anew: {later}");

    let narrow = ns.user("narrow", &[("list", "taskruns.orchestrator.io")]);
    let mut seen = String::new();
    let mut refused = Caller { port, token: &narrow }.open("GET", "/pm/tasks/events", "", "");
    refused.read_to_string(&mut seen).expect("it ends in time");
    assert!(seen.contains("event: error") && seen.contains("cannot watch resource"), "{seen}");
    let nobody = ns.user("nobody", &[("get", "taskruns.orchestrator.io")]);
    let refused = Caller { port, token: &nobody }.get("/pm/tasks/events");
    refused.is(403, "forbidden").says("cannot list resource \"taskruns\"");
}

#[test]
fn what_the_cluster_tells_of_a_task_is_passed_on_as_far_as_the_caller_may_see_it() {
    let replicas = Replicas::shared();
    let (ns, taskruns) = (&replicas.ns, "taskruns.orchestrator.io");
    ns.create(&task_run(700, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-700", 1, "Running");
    let token = ns.user("told", &[("get", taskruns), ("list", "events,configmaps")]);
    let caller = replicas.caller(0, &token);
    wait_until("its Events are not told", || {
        let told = caller.get("/pm/tasks/700/kubernetes-events").ok()["events"].clone();
        let has = |kind: &str, reason: &str| {
            told.as_array().expect("a list").iter().any(|event| event["kind"] == kind && event["reason"] == reason)
        };
        has("TaskRun", "Running") && has("Job", "SuccessfulCreate")
    });
    let stored = caller.get("/pm/tasks/700/history").ok()["stored_at"].clone();
    assert!(stored["1"].as_str().expect("a time").ends_with('Z'), "{stored}");
    let whole = caller.get("/pm/tasks/700");
    assert_eq!(whole.ok()["context_update_policy"], "Restart");

    let token = ns.user("untold", &[("get", taskruns)]);
    let caller = replicas.caller(0, &token);
    let refused = caller.get("/pm/tasks/700/kubernetes-events");
    refused.is(403, "forbidden").says("cannot list resource \"events\"");
    assert_eq!(caller.get("/pm/tasks/700/history").ok()["stored_at"], json!({}));
}

#[test]
fn tls_is_by_the_webhooks_certificate_and_plain_http_only_on_loopback() {
    let cluster = Cluster::start();
    cluster.install();
    let port = free_port();
    let address = format!("--api-addr=127.0.0.1:{port}");
    let _operator = Operator::start(&cluster, &[&address]);
    let configuration = ["get", "mutatingwebhookconfiguration", "taskrun-operator", "-o"];
    let bundle = cluster.kubectl(
        &[&configuration[..], &["go-template={{(index .webhooks 0).clientConfig.caBundle | base64decode}}"]].concat(),
    );
    let authority = CertificateDer::from_pem_slice(bundle.ok().as_bytes()).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("a CA");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connection = ClientConnection::new(config.into(), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("TLS");
    let mut answer = vec![];
    // the server may close without TLS' goodbye
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    let plain = Operator::launch(&cluster, &[&format!("--api-addr=0.0.0.0:{}", free_port()), "--api-plain-http"]);
    let log = plain.wait_end();
    assert!(log.contains("--api-plain-http needs a loopback address"), "{log}");
}

#[test]
fn what_is_being_deleted_is_as_good_as_gone() {
    let replicas = Replicas::shared();
    let (ns, token) = (&replicas.ns, replicas.ns.user("late", ALL));
    let all = replicas.caller(0, &token);
    let mut held = task_run(303, &[("task.md", "do it")]);
    held["metadata"]["finalizers"] = json!(["example.test/hold"]);
    ns.create(&held).ok();
    all.send("DELETE", "/pm/tasks/303", "", "").ok();
    assert_eq!(all.get("/pm/tasks/303/status").ok()["deleting"], true);
    for path in ["context", "rerun", "cancel", "suspend"] {
        let body = if path == "context" { json!({"additional_context": "more"}) } else { json!({}) };
        all.post(&format!("/pm/tasks/303/{path}"), &body).is(404, "not_found").says("is being deleted");
    }
    ns.merge("taskrun/task-303", &json!({"metadata": {"finalizers": null}})).ok();
}

#[test]
fn pages_hold_all_tasks_once() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("pager", &[("list", "taskruns.orchestrator.io")]);
    for id in 500..507 {
        let mut task = task_run(id, &[("task.md", "do it")]);
        task["spec"]["serviceName"] = json!("paged");
        replicas.ns.create(&task).ok();
    }
    let (mut names, mut after) = (vec![], String::new());
    loop {
        let page = replicas.caller(0, &token).get(&format!("/pm/tasks?service=paged&limit=3{after}"));
        let tasks = page.ok()["tasks"].as_array().expect("tasks").clone();
        assert!(tasks.len() <= 3);
        names.extend(tasks.iter().map(|task| task["name"].as_str().expect("a name").to_owned()));
        match page.ok()["continue"].as_str() {
            Some(token) => after = format!("&continue={token}"),
            None => break,
        }
    }
    assert_eq!(names, (500..507).map(|id| format!("task-{id}")).collect::<Vec<_>>());
}

/// Most streams that a caller reads at once.
const STREAMS: usize = 16;

#[test]
fn nothing_of_a_body_is_read_for_a_token_that_nobody_knows() {
    let replicas = Replicas::shared();
    for length in ["Content-Length: 4000000", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(("127.0.0.1", replicas.ports[0])).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = "POST /api/v1/pm/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
        // and no more comes
        write!(stream, "{head}\r\nAuthorization: Bearer junk\r\nX-Request-Id: mine\r\n{length}\r\n\r\n")
            .expect("a head");
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        while !answer.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut answer).expect("in time"), 0, "{answer}");
        }
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("x-request-id: mine"), "{answer}");
    }
}

#[test]
fn two_headers_of_which_one_would_be_dropped_are_refused() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("twice", ALL);
    let caller = replicas.caller(0, &token);
    let refused = caller.send("GET", "/pm/tasks", "Authorization: Bearer other\r\n", "");
    refused.is(400, "invalid_request").says("authorization must not be sent twice");
    replicas.ns.create(&task_run(600, &[("task.md", "do it")])).ok();
    let refused = caller.add("600", "more", Some("one\r\nIdempotency-Key: two"));
    refused.is(400, "invalid_request").says("idempotency-key must not be sent twice");
}

#[test]
fn what_is_wrong_with_a_request_does_not_quote_it() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("quoted", ALL);
    let caller = replicas.caller(0, &token);
    let refused = caller.post("/pm/tasks", &json!({"id": "s3cret, expected", "service_name": "a", "agent_name": "b"}));
    refused.is(400, "invalid_request").says("expected u32 at line 1");
    assert!(!refused.body.to_string().contains("s3cret"), "{}", refused.body);
    let long = "x".repeat(4_000);
    let refused = caller.get(&format!("/pm/tasks?{long}=1"));
    assert!(refused.is(400, "invalid_request").body.to_string().len() < 400, "{}", refused.body);
    let log = replicas.operators[0].log();
    let user = format!("\"user\":\"system:serviceaccount:{}:quoted\"", replicas.ns.name);
    assert!(log.lines().any(|line| line.contains(&user) && line.contains("\"answered\"")), "who asked is in the log");
}

#[test]
fn a_caller_reads_sixteen_streams_at_once_and_one_more_when_one_ends() {
    let replicas = Replicas::shared();
    let token = replicas.ns.user("avid", ALL);
    let caller = replicas.caller(0, &token);
    replicas.ns.create(&task_run(601, &[("task.md", "do it")])).ok();
    let mut streams: Vec<_> = (0..STREAMS).map(|_| followed(&caller, "601/events", "data: ")).collect();
    let refused = caller.get("/pm/tasks/601/events");
    assert!(refused.is(429, "rate_limited").says("at most 16 streams").head.contains("retry-after: "));
    caller.get("/pm/tasks/601/logs").is(429, "rate_limited");
    caller.get("/pm/tasks/601").ok();

    drop(streams.pop());
    wait_until("the place of a stream that was left is not free", || {
        let mut head = String::new();
        caller.open("GET", "/pm/tasks/601/events", "", "").read_line(&mut head).expect("in time");
        head.starts_with("HTTP/1.1 200")
    });
    caller.send("DELETE", "/pm/tasks/601", "", "").ok();
    let mut seen = String::new();
    streams[0].read_to_string(&mut seen).expect("it ends in time");
    assert!(seen.contains("\"deleting\":true") && seen.contains("event: deleted"), "{seen}");
}

/// A stream that has begun.
fn followed(caller: &Caller<'_>, path: &str, text: &str) -> BufReader<TcpStream> {
    let mut stream = caller.open("GET", &format!("/pm/tasks/{path}"), "", "");
    wait_line(&mut stream, text);
    stream
}

#[test]
fn streams_that_their_clients_left_end() {
    let replicas = Replicas::shared();
    let (ns, port) = (&replicas.ns, free_port());
    // nobody else calls this one
    let _operator = Operator::launch(ns.cluster, &refs(&args(ns, port, 1_000)));
    wait_for(port);
    let process = process_with(port);
    let limits = std::fs::read_to_string(process.join("limits")).expect("it lives");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let [soft, hard] = [3, 4].map(|word| limit.split_whitespace().nth(word).expect("a number"));
    assert_eq!(soft, hard, "as many as it may have");
    let open = || std::fs::read_dir(process.join("fd")).expect("it lives").count();
    let token = ns.user("fickle", ALL);
    let caller = Caller { port, token: &token };
    ns.create(&task_run(602, &[("task.md", "do it")])).ok();
    ns.wait_phase("taskrun/task-602", 1, "Running");
    let pods = ["get", "pods", "-l", "batch.kubernetes.io/job-name=svc-602-v1"];
    let pod = ns.kubectl(&[&pods[..], &["-o", "jsonpath={.items[0].metadata.name}"]].concat()).ok();
    ns.log(&pod, "first line");
    caller.get("/pm/tasks/602").ok();
    let before = open();

    let mut half_closed: Vec<_> = (0..4).map(|_| followed(&caller, "602/events", "data: ")).collect();
    half_closed.extend((0..4).map(|_| followed(&caller, "602/logs?follow=true", "first line")));
    let mut closed: Vec<_> = (0..4).map(|_| followed(&caller, "602/events", "data: ")).collect();
    closed.extend((0..4).map(|_| followed(&caller, "602/logs?follow=true", "first line")));
    let during = open();
    assert!(during >= before + 28, "each has a connection, and one to the API server: {before} {during}");
    for stream in &half_closed {
        stream.get_ref().shutdown(std::net::Shutdown::Write).expect("a FIN");
    }
    drop(closed);
    // a few connections to the API server are kept for the next request
    wait_until("streams go on for nobody", || open() <= before + 4);
}

/// The operator's folder in `/proc`.
fn process_with(port: u16) -> PathBuf {
    let argument = format!("--api-addr=127.0.0.1:{port}");
    let processes = std::fs::read_dir("/proc").expect("Linux").filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |process: &PathBuf| {
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        // the shell around it has the same arguments
        !line.starts_with("sh\0") && line.split('\0').any(|word| word == argument)
    };
    processes.into_iter().find(is_it).expect("a process")
}

#[test]
fn tokens_that_somebody_makes_up_are_not_all_asked_about() {
    let (ns, port) = (&Replicas::shared().ns, free_port());
    let _operator = Operator::launch(ns.cluster, &refs(&args(ns, port, 1_000)));
    wait_for(port);
    let known = ns.user("known", ALL);
    Caller { port, token: &known }.get("/pm/tasks").ok();
    let told: Vec<u16> = thread::scope(|scope| {
        let ask =
            |number| scope.spawn(move || Caller { port, token: &format!("junk-{number}") }.get("/pm/tasks").status);
        let asked: Vec<_> = (0..300).map(ask).collect();
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
    });
    let count = |status| told.iter().filter(|told| **told == status).count();
    assert!(count(401) >= 100 && count(429) > 0 && count(401) + count(429) == 300, "{told:?}");
    Caller { port, token: &known }.get("/pm/tasks").ok();
}
