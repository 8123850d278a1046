//! What is compared afterwards, and what is told.

use super::*;

fn expected() -> TaskRun {
    created(&row(&seen(&[stored()]))).clone()
}

#[test]
fn what_was_made_is_equal_and_each_difference_is_told() {
    let with = |change: fn(&mut TaskRun)| {
        let mut live = expected();
        change(&mut live);
        verify(&expected(), &live, None)
    };
    assert_eq!(with(|_| ()), Vec::<String>::new());
    assert_eq!(with(|live| live.spec.markdown_files.reverse()), Vec::<String>::new(), "order does not count");
    for (change, told) in [
        ((|live| live.spec.task_id = 7) as fn(&mut TaskRun), "taskId differs"),
        (|live| live.spec.service_name = "other".into(), "serviceName differs"),
        (|live| live.spec.agent_name = "other".into(), "agentName differs"),
        (|live| live.metadata.annotations = None, "orchestrator.io/helm-release differs"),
        (|live| live.metadata.name = None, "name differs"),
        (|live| live.spec.markdown_files.push(file("more.md", "x")), "more.md is there besides"),
        (|live| _ = live.spec.markdown_files.pop(), "task.md is not there"),
        (
            |live| live.spec.markdown_files[1].content = "# Do it\n".into(),
            "task.md differs from byte 7 on: 9 bytes in Helm, 8 stored",
        ),
        (
            |live| live.spec.env = serde_json::from_value(json!([{"name": "A", "value": "b"}])).expect("env"),
            "env differs",
        ),
    ] {
        assert_eq!(with(change), [told]);
    }
}

#[test]
fn a_later_version_is_judged_by_its_first_files() {
    let mut live = expected();
    live.spec.context_version = 3;
    live.spec.agent_name = "other".into();
    live.spec.markdown_files = vec![file("task.md", "# Do it\r\n"), file("more.md", "x")];
    assert_eq!(verify(&expected(), &live, None), ["design-spec.md is not there"]);
    let first = config_map(&[("task.md", "# Do it\r\n"), ("design-spec.md", "As <planned>\n")]).data.expect("data");
    assert_eq!(verify(&expected(), &live, Some(&first)), Vec::<String>::new());
    let torn = config_map(&[("task.md", ""), ("design-spec.md", "As <planned>\n")]).data.expect("data");
    assert_eq!(verify(&expected(), &live, Some(&torn)), ["task.md differs from byte 0 on: 9 bytes in Helm, 0 stored"]);
    live.spec.service_name = "other".into();
    assert_eq!(verify(&expected(), &live, Some(&first)), ["serviceName differs"]);
}

fn rows() -> Vec<Row> {
    let mut other = stored_as("billing", "9");
    other["chart"]["metadata"]["name"] = "orchestrator".into();
    let mut seen = seen(&[stored(), other]);
    seen.releases.push(("od\u{1b}[31md\n\u{202e}".into(), Err("is not base64".into())));
    judged(&seen)
}

#[test]
fn people_see_a_table_with_reasons_and_notes_below() {
    let expected = "\
RELEASE                      REV   STATUS     JOB       TASKRUN     FILES   ACTION
auth-service-task-1001       1     deployed   Running   task-1001   2       Create
   note: secrets.anthropicApiKey is not copied: put it into a Secret that the Agent refers to
   note: its work lies in claim shared-workspace: an Agent that mounts it goes on there
od\\u{1b}[31md\\u{a}\\u{202e}   -     -          -         -           0       Skipped
   why: is not base64
1 of other charts, left alone
";
    assert_eq!(table(&entries(&rows())), expected);
    assert_eq!(table(&[]), "");
}

#[test]
fn programs_read_json() {
    let report = serde_json::to_value(entries(&rows())).expect("JSON");
    let expected = json!({
        "release": RELEASE, "revision": 1, "status": "deployed", "chart": "claude-code-0.2.0", "serviceName": "auth-service",
        "taskRun": "task-1001", "job": {"name": JOB, "uid": "u1", "state": "Running"}, "files": 2, "action": "create",
        "reason": null, "notes": report[0]["notes"],
    });
    assert_eq!(report[0], expected);
    assert_eq!((&report[1]["action"], &report[2]["action"]), (&json!("otherChart"), &json!("skipped")));
}
