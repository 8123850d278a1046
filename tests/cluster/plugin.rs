//! `kubectl taskrun` in a pipe, as scripts use it: what each verb prints, how it ends, and what it says when it
//! cannot.

use crate::reconcile::{end, pods, until_told};
use crate::support::{Cluster, Namespace, Output};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The binary that ships.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-taskrun");

/// Runs the plugin in a namespace.
pub fn taskrun(ns: &Namespace<'_>, args: &[&str]) -> Output {
    taskrun_on(ns, args, "")
}

/// The same with this on its standard input.
fn taskrun_on(ns: &Namespace<'_>, args: &[&str], stdin: &str) -> Output {
    let mut plugin = ns.cluster.command(PLUGIN);
    plugin.args(["-n", &ns.name]).args(args);
    Output::of(plugin, stdin)
}

/// Its exit code and all that it said.
#[track_caller]
fn said(output: &Output) -> (i32, String) {
    (output.code.expect("it was not killed"), format!("{}{}", output.stdout, output.stderr))
}

/// A folder of this test, with these files.
fn folder(ns: &Namespace<'_>, files: &[(&str, &str)]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("taskrun-plugin-{}-{}", std::process::id(), ns.name));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("a file");
    }
    folder
}

/// Submits task 7 of service `svc` for `agent`.
pub fn submit(ns: &Namespace<'_>, file: &Path, more: &[&str]) -> Output {
    let file = file.to_string_lossy();
    taskrun(ns, &[&["submit", &file, "--id", "7", "--service", "svc", "--agent", "agent"], more].concat())
}

#[test]
fn a_task_is_submitted_once_and_another_one_is_told_apart() {
    let ns = until_told();
    let files = folder(&ns, &[("task.md", "# Do it\n"), ("design.md", "So.\n"), ("notes.txt", "not markdown")]);
    let created = "taskrun.orchestrator.io/task-7 created\n";
    assert_eq!(submit(&ns, &files, &["--env", "MODEL=m", "--title", "Tokens"]).ok(), created);
    let unchanged = "taskrun.orchestrator.io/task-7 unchanged\n";
    assert_eq!(submit(&ns, &files, &["--env", "MODEL=m"]).ok(), unchanged);
    assert_eq!(submit(&ns, &files, &["--env=MODEL=m", "-o", "name"]).ok(), "taskrun.orchestrator.io/task-7\n");
    let task = ns.get("taskrun/task-7");
    let names: Vec<&str> = task["spec"]["markdownFiles"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|f| f["filename"].as_str())
        .collect();
    assert_eq!(
        (names, &task["metadata"]["annotations"]["orchestrator.io/title"]),
        (vec!["design.md", "task.md"], &json!("Tokens"))
    );

    std::fs::write(files.join("task.md"), "# Do another thing, secretly\n").expect("a file");
    let (code, text) = said(&submit(&ns, &files, &[]));
    assert_eq!(code, 1);
    assert!(text.contains("task.md differs, env differs") && !text.contains("secretly"), "{text}");

    let tasks = r#"{"master": {"tasks": [{"id": 8, "title": "Licences", "description": "Update them."}]}}"#;
    std::fs::write(files.join("tasks.json"), tasks).expect("a file");
    let json_file = files.join("tasks.json").to_string_lossy().into_owned();
    let submit_8 = ["submit", &json_file, "--service", "svc", "--agent", "agent", "--id"];
    assert_eq!(taskrun(&ns, &[&submit_8[..], &["8"]].concat()).ok(), "taskrun.orchestrator.io/task-8 created\n");
    let task = ns.get("taskrun/task-8");
    assert_eq!(task["spec"]["markdownFiles"][0]["content"], "# Licences\n\nUpdate them.\n");
    let (code, text) = said(&taskrun(&ns, &[&submit_8[..], &["9"]].concat()));
    assert!(code == 1 && text.ends_with("tasks.json: has no task 9: it has 8\n"), "{text}");
    std::fs::remove_dir_all(files).expect("removed");
}

#[test]
fn a_task_is_followed_from_version_to_version() {
    let ns = until_told();
    let files = folder(&ns, &[("task.md", "one\ntwo\n")]);
    submit(&ns, &files, &[]).ok();
    ns.wait_phase("taskrun/task-7", 1, "Running");
    let line = |args: &[&str]| taskrun(&ns, args).ok().replace("taskrun.orchestrator.io/task-7 ", "");

    let add = ["add-context", "7", "-m", "Mind the gap.", "--request-id", "r1"];
    assert_eq!(line(&add), "version 2: added context-v2.md\n");
    let again = line(&add);
    assert_eq!(again, "unchanged: this request added context-v2.md before, as version 2\n");
    let (code, other) = said(&taskrun(&ns, &["add-context", "7", "-m", "Another.", "--request-id", "r1"]));
    assert!(code == 1 && other.starts_with("error: the request id (Idempotency-Key) was used with another"), "{other}");
    ns.wait_phase("taskrun/task-7", 2, "Running");
    let diff = taskrun(&ns, &["diff", "7"]);
    assert_eq!(diff.code, Some(1), "{}", diff.stderr);
    assert_eq!(diff.stdout, "--- /dev/null\n+++ version 2/context-v2.md\n@@ -0,0 +1 @@\n+Mind the gap.\n");
    assert_eq!(said(&taskrun(&ns, &["diff", "taskrun/task-7", "1", "1"])), (0, String::new()));
    assert_eq!(taskrun(&ns, &["diff", "7", "1", "9"]).code, Some(2));

    assert_eq!(line(&["suspend", "7"]), "suspended: the pod of version 2 ends, and it goes on when resumed\n");
    assert_eq!(line(&["suspend", "7"]), "unchanged: it is suspended already\n");
    let held = line(&["add-context", "7", "-m", "More."]);
    assert!(held.contains("it is suspended and does not run before \"kubectl taskrun resume task-7\""), "{held}");
    assert_eq!(line(&["resume", "7"]), "resumed: version 3 goes on\n");
    assert_eq!(line(&["resume", "7"]), "unchanged: it is not suspended\n");
    ns.wait_phase("taskrun/task-7", 3, "Running");

    assert_eq!(line(&["rollback", "7", "1"]), "rolled back: version 4 has the files of version 1\n");
    assert_eq!(line(&["rollback", "7", "1"]), "unchanged: version 4 has the files of version 1 already\n");
    ns.wait_phase("taskrun/task-7", 4, "Running");
    assert_eq!(line(&["cancel", "7"]), "cancelled: version 4 ends for good\n");
    ns.wait_phase("taskrun/task-7", 4, "Failed");
    assert!(line(&["cancel", "7"]).starts_with("unchanged: "));
    assert_eq!(
        said(&taskrun(&ns, &["rerun", "7", "--if-version", "3"])),
        (1, "error: the present version is 4, not 3\n".into())
    );
    assert_eq!(line(&["rerun", "7", "--if-version", "4"]), "run again: version 5 has the files of version 4\n");
    ns.wait_phase("taskrun/task-7", 5, "Running");
    end(&ns, 5, "failed");
    let watched = taskrun(&ns, &["watch", "7", "--until-done"]);
    assert_eq!(watched.code, Some(1), "a failed task");
    assert!(
        watched.stdout.lines().last().is_some_and(|line| line.starts_with("task-7 ") && line.contains("Failed")),
        "{}",
        watched.stdout
    );
    history_tells_all(&ns);
    std::fs::remove_dir_all(files).expect("removed");
}

fn history_tells_all(ns: &Namespace<'_>) {
    let history = taskrun(ns, &["history", "7"]).ok();
    let rows: Vec<Vec<&str>> = history.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["VERSION", "STATE", "ATTEMPTS", "STARTED", "TOOK", "BY", "CHANGES"], "{history}");
    let told: Vec<(&str, &str, String)> = rows[1..].iter().map(|row| (row[0], row[1], row[6..].join(" "))).collect();
    let expected = [
        ("1", "Superseded", "+task.md"),
        ("2", "Superseded", "+context-v2.md"),
        ("3", "Superseded", "+context-v3.md"),
        ("4", "Cancelled", "-context-v2.md -context-v3.md"),
        ("5", "Failed", "none"),
    ];
    let expected = expected.map(|(version, state, changes)| (version, state, changes.to_owned()));
    assert_eq!(told, expected, "{history}");
    let json: Value = serde_json::from_str(&taskrun(ns, &["history", "7", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(json["versions"][3]["changes"], json!({"context-v2.md": "removed", "context-v3.md": "removed"}));
}

#[test]
fn a_log_goes_on_over_the_runs_that_come() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &[]).ok();
    let pod = |version| {
        ns.wait_phase("taskrun/task-7", version, "Running");
        pods(&ns, version)[0]["metadata"]["name"].as_str().expect("a name").to_owned()
    };
    let (first, log) = (pod(1), ["logs", "7", "--follow"]);
    ns.log(&first, "one");
    let mut follower = ns.cluster.command(PLUGIN);
    follower.args(["-n", &ns.name]).args(log).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = follower.spawn().expect("it was built");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "one");
    ns.log(&first, "more");
    assert_eq!(next(), "more");
    taskrun(&ns, &["add-context", "7", "-m", "Mind the gap."]).ok();
    let second = pod(2);
    ns.log(&second, "two");
    assert_eq!(next(), "two");
    end(&ns, 2, "succeeded");
    assert!(lines.next().is_none(), "it ends when the task is at rest");
    let output = follower.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, format!("==> version 1, pod {first} <==\n==> version 2, pod {second} <==\n"));
    assert!(output.status.success());

    ns.log(&second, "three");
    assert_eq!(taskrun(&ns, &["logs", "7"]).ok(), "two\nthree\n");
    assert_eq!(taskrun(&ns, &["logs", "7", "--version", "2", "--tail", "1"]).ok(), "three\n");
    let refused = taskrun(&ns, &["logs", "7", "--version", "1"]).refused();
    assert!(
        refused.contains("version 1 of TaskRun \"task-7\" was superseded: its pod and its log are gone"),
        "{refused}"
    );
}

#[test]
fn lists_are_tables_names_and_objects() {
    let ns = Cluster::shared().namespace(&json!({}));
    assert_eq!(taskrun(&ns, &["list"]).stderr, format!("No tasks found in namespace {:?}.\n", ns.name));
    for id in ["10", "9"] {
        let args = [
            "submit",
            "-",
            "--id",
            id,
            "--service",
            "svc",
            "--agent",
            "agent",
            "--title",
            "A \u{1b}[31mred\u{202e} one",
        ];
        taskrun_on(&ns, &args, "do it").ok();
    }
    for id in [9, 10] {
        ns.wait_phase(&format!("taskrun/task-{id}"), 1, "Succeeded");
    }
    let table = taskrun(&ns, &["list"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "SERVICE", "VERSION", "PHASE", "ATTEMPTS", "ELAPSED", "TITLE"]
    );
    assert!(lines[1].starts_with("task-9 ") && lines[2].starts_with("task-10 "), "{table}");
    assert!(lines[1].ends_with("A [31mred\\u{202e} one") && !table.contains(['\u{1b}', '\u{202e}']), "{table}");
    assert!(taskrun(&ns, &["ls", "-o", "wide"]).ok().contains("Job svc-9-v1 succeeded"));
    let names = "taskrun.orchestrator.io/task-9\ntaskrun.orchestrator.io/task-10\n";
    assert_eq!(taskrun(&ns, &["list", "--phase", "succeeded", "-o", "name"]).ok(), names);
    assert_eq!(taskrun(&ns, &["list", "--service", "other", "-o", "name"]).ok(), "");
    let list: Value = serde_json::from_str(&taskrun(&ns, &["list", "-o", "json"]).ok()).expect("JSON");
    let kubectl: Value = serde_json::from_str(&ns.kubectl(&["get", "taskruns", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(
        (&list["kind"], &list["items"][0], &list["items"][1]),
        (&json!("List"), &kubectl["items"][1], &kubectl["items"][0])
    );
    assert!(
        taskrun(&ns, &["list", "-o", "yaml"])
            .ok()
            .starts_with("apiVersion: v1\nitems:\n- apiVersion: orchestrator.io/v1\n")
    );
    let mut everywhere = ns.cluster.command(PLUGIN);
    everywhere.args(["list", "-A"]);
    let everywhere = Output::of(everywhere, "").ok();
    assert!(everywhere.starts_with("NAMESPACE ") && everywhere.contains(&format!("\n{} ", ns.name)), "{everywhere}");
}

/// What `submit` takes for a task of this number on standard input.
const SUBMIT_8: [&str; 8] = ["submit", "-", "--id", "8", "--service", "svc", "--agent", "agent"];
const SUBMIT_9: [&str; 8] = ["submit", "-", "--id", "9", "--service", "svc", "--agent", "agent"];

/// Kubeconfigs that do not work, each with what is said of it.
fn unusable(ns: &Namespace<'_>) -> [(PathBuf, &'static str); 5] {
    ns.kubectl(&["create", "serviceaccount", "nobody"]).ok();
    let token = ns.kubectl(&["create", "token", "nobody"]).ok();
    let with_token = |name: &str, token: &str| {
        let change = |config: &mut Value| config["users"][0]["user"] = json!({"token": token});
        ns.cluster.kubeconfig(&format!("{}-{name}", ns.name), change)
    };
    let (nobody, unknown) = (with_token("nobody", token.trim()), with_token("unknown", "nonsense"));
    let away = ns.cluster.kubeconfig(&format!("{}-away", ns.name), |config| {
        config["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:1");
    });
    let broken = nobody.with_extension("broken");
    std::fs::write(&broken, "users: [{name: a, user: {token: SECRET").expect("a file");
    [
        (nobody, "ask whoever runs the cluster for this right"),
        (unknown, "sign in again, or check the user in your kubeconfig"),
        (away, "(https://127.0.0.1:1/): is it up, and the one that your kubeconfig means?"),
        (broken, "the kubeconfig cannot be read as YAML"),
        ("/nowhere".into(), "failed to read /nowhere: No such file or directory"),
    ]
}

#[test]
fn who_cannot_do_it_is_told_on_one_line_why_and_what_helps() {
    let ns = until_told();
    taskrun_on(&ns, &SUBMIT_8, "do it").ok();
    let verbs: [&[&str]; 10] = [
        &["list"],
        &["watch"],
        &["cancel", "8"],
        &["rollback", "8", "1"],
        &["rerun", "8"],
        &["add-context", "8", "-m", "x"],
        &["logs", "8"],
        &["history", "8"],
        &["diff", "8"],
        &SUBMIT_9,
    ];
    for (kubeconfig, words) in unusable(&ns) {
        for verb in verbs {
            let kubeconfig = kubeconfig.to_string_lossy();
            let (code, text) = said(&taskrun_on(&ns, &[verb, &["--kubeconfig", &kubeconfig]].concat(), "do it"));
            let expected = if verb[0] == "diff" { 2 } else { 1 };
            assert_eq!((code, text.lines().count()), (expected, 1), "{verb:?}: {text}");
            assert!(
                text.starts_with("error: ") && text.contains(words) && !text.contains("SECRET"),
                "{verb:?}: {text}"
            );
        }
    }
    assert_eq!(
        taskrun(&ns, &["list", "--context", "other"]).stderr,
        "error: the kubeconfig has no context \"other\"\n"
    );
}

#[test]
fn what_is_not_there_or_not_allowed_is_named() {
    let ns = until_told();
    let refused = submit(&ns, Path::new("examples/agent.yaml"), &[]).refused();
    assert!(refused.contains("\n  spec.markdownFiles[0].filename: "), "{refused}");
    let (code, text) = said(&taskrun_on(&ns, &SUBMIT_9, "<!-- todo -->"));
    let empty = "error: refused:\n  spec.markdownFiles[0].content: \"task.md\" is empty: ";
    assert!(code == 1 && text.starts_with(empty), "{text}");
    for verb in [&["cancel", "99"][..], &["watch", "99"], &["history", "99"], &["logs", "99"]] {
        let (code, text) = said(&taskrun(&ns, verb));
        let expected = format!("error: TaskRun \"task-99\" not found in namespace {:?}: ", ns.name);
        assert!(code == 1 && text.starts_with(&expected), "{verb:?}: {text}");
    }
    let nowhere = Namespace { cluster: ns.cluster, name: "nowhere".into() };
    for verb in [&["list"][..], &["list", "-o", "json"], &["watch"], &["cancel", "8"], &SUBMIT_9] {
        let expected = "error: namespace \"nowhere\" not found: choose another with -n, or create it\n";
        assert_eq!(said(&taskrun_on(&nowhere, verb, "do it")), (1, expected.into()), "{verb:?}");
    }
    for usage in [&["cancel"][..], &["cancel", "a b"], &["nonsense"], &["submit", "-", "--id", "0"]] {
        assert_eq!(taskrun(&ns, usage).code, Some(2), "{usage:?}");
    }
}

#[test]
fn a_cluster_without_the_crd_is_told() {
    let cluster = Cluster::start();
    let ns = Namespace { cluster: &cluster, name: "default".into() };
    for verb in [&["list"][..], &["watch"], &["cancel", "1"]] {
        let text = "error: the cluster does not have TaskRuns: apply crds/\n";
        assert_eq!(said(&taskrun(&ns, verb)), (1, text.into()), "{verb:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let ns = until_told();
    let text = "a line of some length, so that a pipe cannot hold them all\n".repeat(5_000);
    let (file, args) = (folder(&ns, &[("task.md", &text)]), ["diff", "7", "1", "2"]);
    submit(&ns, &file, &[]).ok();
    taskrun_on(&ns, &["add-context", "7", "-"], &text).ok();
    ns.wait_phase("taskrun/task-7", 2, "Running");
    let mut plugin = ns.cluster.command(PLUGIN);
    plugin.args(["-n", &ns.name]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut plugin = plugin.spawn().expect("it was built");
    let mut first = [0; 3];
    plugin.stdout.take().expect("a pipe").read_exact(&mut first).expect("a line");
    let output = plugin.wait_with_output().expect("it ends");
    assert_eq!((&first, output.status.code(), output.stderr), (b"---", Some(141), vec![]));
    std::fs::remove_dir_all(file).expect("removed");
}

#[test]
fn kubectl_finds_it_and_completes_it() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &["--title", "Words"]).ok();
    let bin = folder(&ns, &[]);
    for name in ["kubectl-taskrun", "kubectl_complete-taskrun"] {
        std::os::unix::fs::symlink(PLUGIN, bin.join(name)).expect("a link");
    }
    let kubectl = |args: &[&str]| {
        let mut shell = ns.cluster.command("sh");
        shell.args(["-c", "PATH=$1:$PATH; shift; exec kubectl \"$@\"", "sh"]).arg(&bin).args(args);
        Output::of(shell, "")
    };
    assert!(kubectl(&["plugin", "list"]).stdout.contains("/kubectl-taskrun\n"));
    assert!(kubectl(&["taskrun", "list", "-n", &ns.name]).ok().contains("\ntask-7 "));
    assert_eq!(kubectl(&["taskrun", "cancel", "99", "-n", &ns.name]).code, Some(1));
    let complete = |words: &[&str]| kubectl(&[&["__complete", "taskrun"], words].concat()).ok();
    assert_eq!(complete(&["lo"]), "logs\tPrint what a task's agent says\n:4\n");
    assert_eq!(
        complete(&["watch", "--until"]),
        "--until-done\tEnd when all of them are at rest; the exit code is 1 if one did not succeed\n:4\n"
    );
    assert_eq!(complete(&["list", "--phase", "Fai"]), "Failed\n:4\n");
    let tasks = complete(&["logs", "-n", &ns.name, "task"]);
    assert!(tasks.starts_with("task-7\tsvc ") && tasks.ends_with(" Words\n:4\n"), "{tasks}");
    let started = std::time::Instant::now();
    let nothing = complete(&["logs", "--kubeconfig", "/nowhere", ""]);
    assert!(nothing == ":4\n" && started.elapsed().as_secs() < 5, "{nothing}");
    assert!(taskrun(&ns, &["completion", "fish"]).ok().starts_with("complete "));
    std::fs::remove_dir_all(bin).expect("removed");
}
