//! What agents see, and what their ends say: the run protocol where processes are real.

use crate::agents::{Agents, TASK};
use crate::installed::node;
use crate::support::{Namespace, Output, task_run, wait_until};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Says in the workspace what it does, in lines of one write each, in which version: `begin`, `alive` ten times a
/// second, and `end` two seconds after it was told to end. A `lock` that is there at the begin is an overlap.
const LIVING: &str = r#"
say() { echo "$CONTEXT_VERSION $1" >>"$W/lines"; }
mkdir "$W/lock" 2>/dev/null || say overlap
say begin
ending=0
trap 'ending=1' TERM
while [ $ending -lt 21 ]; do
  [ ! -e "$W/finish-$CONTEXT_VERSION" ] || break
  [ $ending = 0 ] || ending=$((ending + 1))
  say alive
  sleep 0.1
done
say end
rmdir "$W/lock"
"#;

fn add_context(ns: &Namespace<'_>, text: &str) {
    let mut files = ns.get(TASK)["spec"]["markdownFiles"].as_array().cloned().expect("files");
    let filename = format!("note-{}.md", files.len());
    files.push(json!({"filename": filename, "content": text}));
    ns.merge(TASK, &json!({"spec": {"markdownFiles": files}})).ok();
}

fn message(task: &Value) -> &str {
    task["status"]["message"].as_str().unwrap_or_default()
}

/// What is wrong with the lines of agents that must have lived one after the other, in the order of their versions.
fn overlaps(lines: &str) -> Vec<String> {
    let lines: Vec<(u64, &str)> = lines
        .lines()
        .map(|line| line.split_once(' ').expect("two words"))
        .map(|(version, word)| (version.parse().expect("a version"), word))
        .collect();
    let mut wrong = vec![];
    for pair in lines.windows(2) {
        let ((before, _), (version, word)) = (pair[0], pair[1]);
        let follows = version > before && word == "begin";
        let goes_on = version == before && word != "begin";
        if !follows && !goes_on {
            wrong.push(format!("{version} {word} after {before}"));
        }
    }
    wrong.extend(lines.iter().filter(|(_, word)| *word == "overlap").map(|(version, _)| format!("{version} overlaps")));
    wrong
}

#[test]
fn overlaps_are_seen() {
    assert_eq!(overlaps("1 begin\n1 alive\n1 end\n2 begin\n2 alive"), Vec::<String>::new());
    assert_eq!(overlaps("1 begin\n2 begin\n1 alive\n2 alive").len(), 2);
    assert_eq!(overlaps("1 begin\n1 end\n1 begin").len(), 1);
    assert_eq!(overlaps("1 begin\n2 overlap").len(), 2);
}

#[test]
fn an_agent_reads_every_file_byte_for_byte_and_has_its_variables_and_a_workspace() {
    let node = node();
    let script = r#"
        cd "$CONTEXT_DIR" || exit 1
        sha256sum -- * >"$W/sums"
        cat /proc/self/environ >"$W/environ"
        touch "$CONTEXT_DIR/written" 2>/dev/null && echo writable >"$W/writable"
        exit 0"#;
    let agents = Agents::running(&node.cluster, script);
    let large = "All work and no play.\n".repeat(20_000);
    let files = [
        ("task.md", "# Do it\n"),
        ("no-newline.md", "the last line has no end"),
        ("utf-8.md", "\u{feff}Grüße, 漢字, 🦀, e\u{301}, \u{202e}right to left\u{2028}\n"),
        ("white-space.md", " \tindented\r\nby Windows\r\n\n\n  \n"),
        ("control.md", "a bell \u{7}, an escape \u{1b}[31m, a DEL \u{7f}, U+0085 \u{85}\n"),
        ("shell.md", "$(touch /tmp/x) `id` ${HOME} $TASK_ID \"quoted\" 'so' \\n %s !! & | ; <>\n"),
        ("yaml.md", "---\nkey: [value\n---\n- {{ .Values.x }}\n# %YAML 1.2\n&a *b !!tag\n"),
        ("-rf.md", "an odd name\n"),
        ("__.md", "another\n"),
        ("large.md", &large),
    ];
    let mut task = task_run(1, &files);
    let odd = "a b\t$(SERVICE_NAME) $$HOME 'quoted' \"so\" ünï\nsecond line";
    task["spec"]["env"] = json!([{"name": "ODD", "value": odd}, {"name": "EMPTY", "value": ""}]);
    agents.ns.create(&task).ok();
    agents.ns.wait_phase(TASK, 1, "Succeeded");

    let mut expected: Vec<String> =
        files.iter().map(|(name, content)| format!("{}  {name}", sha256(content))).collect();
    let sums = agents.read("sums");
    let mut sums: Vec<&str> = sums.lines().collect();
    expected.sort_unstable();
    sums.sort_unstable();
    assert_eq!(sums, expected);
    let environ = agents.read("environ");
    let environ: Vec<&str> = environ.split('\0').collect();
    let odd = format!("ODD={odd}");
    for variable in [
        "TASK_ID=1",
        "SERVICE_NAME=svc",
        "AGENT_NAME=agent",
        "CONTEXT_VERSION=1",
        "CONTEXT_DIR=/context",
        &odd,
        "EMPTY=",
    ] {
        assert!(environ.contains(&variable), "{variable:?} is not in {environ:?}");
    }
    assert_eq!(agents.read("writable"), "");
}

fn sha256(content: &str) -> String {
    let mut text = String::new();
    for byte in digest(&SHA256, content.as_bytes()).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[test]
fn the_old_process_is_gone_before_the_next_begins_and_the_workspace_stays() {
    let node = node();
    let agents = Agents::running(&node.cluster, LIVING);
    let begun = |version: u64| agents.read("lines").contains(&format!("{version} begin\n"));
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || begun(1));
    agents.touch("kept");
    add_context(&agents.ns, "more");
    wait_until("version 2 begins", || begun(2));
    assert!(agents.files().contains(&"kept".to_owned()));
    // while the old one ends
    add_context(&agents.ns, "and more");
    add_context(&agents.ns, "and yet more");
    wait_until("version 4 begins", || begun(4));
    agents.touch("finish-4");
    agents.ns.wait_phase(TASK, 4, "Succeeded");

    let lines = agents.read("lines");
    assert_eq!(overlaps(&lines), Vec::<String>::new(), "{lines}");
    for version in [1, 2, 4] {
        assert!(lines.contains(&format!("{version} end\n")), "it had the time to end: {lines}");
    }
    // each said so while it was ending
    assert!(lines.matches("1 alive").count() >= 20, "{lines}");
    let outcomes = [1, 2, 3, 4].map(|version| agents.run(version)["outcome"].clone());
    assert_eq!(outcomes, ["Superseded", "Superseded", "Superseded", "Succeeded"]);
}

#[test]
fn an_agent_that_does_not_end_is_killed_before_the_next_begins() {
    let node = node();
    let script = LIVING.replace("trap 'ending=1' TERM", "trap '' TERM");
    let agents = Agents::running_with(&node.cluster, &script, |pod| pod["terminationGracePeriodSeconds"] = json!(3));
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || agents.read("lines").contains("1 begin\n"));
    add_context(&agents.ns, "more");
    wait_until("version 2 begins", || agents.read("lines").contains("2 begin\n"));
    agents.touch("finish-2");
    agents.ns.wait_phase(TASK, 2, "Succeeded");
    // who is killed leaves its lock
    let lines = agents.read("lines").replace("2 overlap\n", "");
    assert_eq!(overlaps(&lines), Vec::<String>::new(), "{lines}");
    assert!(!lines.contains("1 end"), "{lines}");
}

#[test]
fn a_cancelled_agent_and_that_of_a_deleted_task_end() {
    let node = node();
    let agents = Agents::running(&node.cluster, LIVING);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    wait_until("version 1 begins", || agents.read("lines").contains("1 begin\n"));
    agents.ns.merge(TASK, &json!({"spec": {"cancel": true}})).ok();
    agents.ns.wait_phase(TASK, 1, "Failed");
    wait_until("it ends", || agents.read("lines").contains("1 end\n"));
    agents.ns.merge(TASK, &json!({"spec": {"cancel": false}})).ok();
    add_context(&agents.ns, "more");
    wait_until("version 2 begins", || agents.read("lines").contains("2 begin\n"));
    agents.ns.kubectl(&["delete", TASK, "--timeout=60s"]).ok();
    let lines = agents.read("lines");
    assert!(lines.contains("2 end\n"), "a TaskRun is gone when its process is: {lines}");
    assert_eq!(overlaps(&lines), Vec::<String>::new(), "{lines}");
}

#[test]
fn exit_codes_and_last_words_are_in_the_status() {
    let node = node();
    let script = r"
        case $CONTEXT_VERSION in
        1) echo '3 of 7 tests fail' >/dev/termination-log; exit 42 ;;
        2) echo 'all tests pass' >/dev/termination-log ;;
        3) sleep 9 & kill -SEGV $!; wait $!; exit $? ;;
        esac";
    let agents = Agents::running(&node.cluster, script);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let task = agents.ns.wait_phase(TASK, 1, "Failed");
    assert!(message(&task).contains("container agent ended with exit code 42: 3 of 7 tests fail"), "{task}");
    add_context(&agents.ns, "try again");
    let task = agents.ns.wait_phase(TASK, 2, "Succeeded");
    assert!(message(&task).contains("all tests pass"), "{task}");
    add_context(&agents.ns, "once more");
    let task = agents.ns.wait_phase(TASK, 3, "Failed");
    assert!(message(&task).contains("ended with exit code 139"), "{task}");
    assert_eq!([1, 2, 3].map(|version| agents.run(version)["attempts"].clone()), [1, 1, 1]);
}

#[test]
fn an_agent_that_needs_too_much_memory_is_said_to_be_killed_for_it() {
    let node = node();
    let agents = Agents::running_with(&node.cluster, "exec tail /dev/zero", |pod| {
        pod["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi"}});
    });
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let task = agents.ns.wait_phase(TASK, 1, "Failed");
    assert!(message(&task).contains("container agent ended with exit code 137 (OOMKilled)"), "{task}");
}

#[test]
fn an_image_that_cannot_be_had_is_told_and_the_next_version_can_have_another() {
    let node = node();
    let policies = [("Never", "ErrImageNeverPull"), ("IfNotPresent", "ImagePullBackOff")];
    for (policy, reason) in policies {
        let agents = Agents::running_with(&node.cluster, "exit 0", |pod| {
            pod["containers"][0]["image"] = json!("registry.invalid/agent:1");
            pod["containers"][0]["imagePullPolicy"] = json!(policy);
        });
        agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
        let is_told = |task: &Value| message(task).contains(reason);
        let task = agents.ns.wait(TASK, reason, is_told);
        let stalled = task["status"]["conditions"].as_array().expect("conditions").iter();
        let stalled = stalled.filter(|condition| condition["type"] == "Stalled" && condition["status"] == "True");
        assert_eq!(stalled.map(|condition| condition["reason"].clone()).collect::<Vec<_>>(), [reason]);
        let image = json!([{"op": "replace", "value": "localhost/busybox:1",
            "path": "/spec/jobTemplate/spec/template/spec/containers/0/image"}]);
        agents.ns.kubectl(&["patch", "agent/agent", "--type=json", "-p", &image.to_string()]).ok();
        add_context(&agents.ns, "now with an image that is there");
        agents.ns.wait_phase(TASK, 2, "Succeeded");
    }
}

#[test]
fn kubectl_taskrun_follows_the_logs_of_all_versions() {
    let node = node();
    let script = r#"
        echo "version $CONTEXT_VERSION, first line"
        trap 'echo "version $CONTEXT_VERSION ends"; exit 0' TERM
        while [ ! -e "$W/finish-$CONTEXT_VERSION" ]; do sleep 0.1; done
        printf 'version %s has no end of line' "$CONTEXT_VERSION""#;
    let agents = Agents::running(&node.cluster, script);
    agents.ns.create(&task_run(1, &[("task.md", "do it")])).ok();
    let mut follower = agents.ns.cluster.command(env!("CARGO_BIN_EXE_kubectl-taskrun"));
    follower.args(["-n", &agents.ns.name, "logs", "1", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = follower.spawn().expect("it was built");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().map(|line| line.expect("text"));
    assert_eq!(next().as_deref(), Some("version 1, first line"));
    add_context(&agents.ns, "more");
    assert_eq!(next().as_deref(), Some("version 1 ends"));
    assert_eq!(next().as_deref(), Some("version 2, first line"));
    agents.touch("finish-2");
    assert_eq!(next().as_deref(), Some("version 2 has no end of line"));
    assert_eq!(next(), None, "it ends when the task is at rest");
    assert!(follower.wait().expect("it ends").success());
    let mut again = agents.ns.cluster.command(env!("CARGO_BIN_EXE_kubectl-taskrun"));
    again.args(["-n", &agents.ns.name, "logs", "1", "--tail", "1"]);
    assert_eq!(Output::of(again, "").ok().trim_end(), "version 2 has no end of line");
}
