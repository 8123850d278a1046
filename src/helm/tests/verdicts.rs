//! What becomes of a release, by what it says and by what is there.

use super::*;
use crate::crd::{ADOPTS, EnvVar, HELM_RELEASE};
use proptest::prelude::*;

#[test]
fn a_release_becomes_a_task_run_that_says_where_it_comes_from() {
    let row = row(&seen(&[stored()]));
    let task_run = created(&row);
    assert_eq!(task_run.metadata.name.as_deref(), Some("task-1001"));
    assert_eq!(task_run.metadata.namespace.as_deref(), Some("orchestrator"));
    assert_eq!(annotation(task_run, HELM_RELEASE), RELEASE);
    let spec = &task_run.spec;
    assert_eq!((spec.task_id, &*spec.service_name, &*spec.agent_name), (1001, "auth-service", "claude-agent-1"));
    assert_eq!(spec.markdown_files, [file("design-spec.md", "As <planned>\n"), file("task.md", "# Do it\r\n")]);
    assert_eq!((spec.suspend, spec.context_version, row.files), (None, 1, 2));
}

#[test]
fn variables_are_copied_where_the_mapping_says_so() {
    let mapping = Mapping::parse("env: {RETRIES: [job.backoffLimit], MODEL: [job.model]}").expect("a mapping");
    let rows = judge(&seen(&[stored()]), &mapping, TaskNames::ById);
    assert_eq!(created(&rows[0]).spec.env, [EnvVar { name: "RETRIES".into(), value: "3".into() }]);
}

#[test]
fn an_agent_comes_from_the_values_or_the_mapping() {
    let mut json = stored();
    json["config"]["agentName"] = "".into();
    let mut seen = seen(&[json]);
    seen.config_maps.insert(FILES.into(), config_map(&[("task.md", "x")]));
    assert_eq!(reason(&row(&seen)), "names no agent: the mapping may have an agentNameDefault");
    let mapping = Mapping::parse("agentNameDefault: coder").expect("a mapping");
    let rows = judge(&seen, &mapping, TaskNames::ById);
    assert_eq!(created(&rows[0]).spec.agent_name, "coder");
    let note = "Agent \"coder\" is not there: new context waits until it is, or the operator has a --default-agent";
    assert!(rows[0].notes.contains(&note.to_owned()), "{rows:?}");
}

#[test]
fn the_files_of_a_release_that_cannot_be_read_are_needed_all_the_same() {
    let mut json = stored();
    json["config"]["agentName"] = "".into();
    json["config"]["job"]["taskId"] = "1002".into();
    let of = |json: &Value| {
        needs(&decode(&pack(json.to_string().as_bytes())).expect("a release"), &Mapping::default()).config_map
    };
    assert_eq!(of(&json).as_deref(), Some(FILES));
    json["config"]["taskConfigMapName"] = "no name".into();
    assert_eq!(of(&json), None);
}

#[test]
fn helms_status_tells_whether_to_go_on() {
    let with = |status: &str| row_with(|json| json["info"]["status"] = status.into());
    for goes_on in ["deployed", "failed", "superseded", "pending-install", "pending-upgrade", "pending-rollback"] {
        created(&with(goes_on));
    }
    assert_eq!(reason(&with("uninstalling")), "is being uninstalled");
    assert_eq!(reason(&with("uninstalled")), "is uninstalled, only its history is kept");
    for other in ["unknown", "", "Deployed"] {
        assert_eq!(reason(&with(other)), "has a status that is not known", "{other}");
    }
}

#[test]
fn an_installation_without_a_job_is_waited_for_a_while() {
    let with = |time: &str, has_job: bool| {
        let mut json = stored();
        json["info"] = json!({"status": "pending-install", "last_deployed": time});
        let mut seen = seen(&[json]);
        seen.jobs.retain(|_, _| has_job);
        row(&seen)
    };
    for young in ["", "2025-07-14T08:45:01Z", "2025-07-14T09:00:05Z"] {
        assert_eq!(reason(&with(young, false)), "is being installed: run this again later", "{young}");
        created(&with(young, true));
    }
    created(&with("2025-07-14T08:45:00Z", false));
}

#[test]
fn a_job_is_taken_as_it_is() {
    let with = |job: Value| {
        let mut seen = seen(&[stored()]);
        let mut whole = serde_json::to_value(super::job(RELEASE)).expect("JSON");
        json_patch::merge(&mut whole, &job);
        seen.jobs.insert(JOB.into(), serde_json::from_value(whole).expect("a Job"));
        row(&seen)
    };
    let ended = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
    let is_suspended = json!({"spec": {"suspend": true, "template": {}}});
    for (job, state) in [
        (json!({}), JobState::Running),
        (json!({"status": {"failed": 1}}), JobState::Running),
        (ended("Complete", "False"), JobState::Running),
        (ended("Complete", "True"), JobState::Succeeded),
        (ended("Failed", "True"), JobState::Failed),
        (is_suspended, JobState::Suspended),
    ] {
        let row = with(job);
        assert_eq!(row.job.as_ref().expect("a Job").state, state);
        assert_eq!(created(&row).spec.suspend, None, "{state}: the Job is its people's to resume");
    }
    for (key, value) in [("meta.helm.sh/release-name", "other"), ("meta.helm.sh/release-namespace", "other")] {
        // a label is anybody's
        let of_another =
            json!({"metadata": {"labels": {"app.kubernetes.io/instance": RELEASE}, "annotations": {key: value}}});
        assert_eq!(reason(&with(of_another)), format!("Job {JOB} is there, but not of this release"));
    }
    let ending = with(json!({"metadata": {"deletionTimestamp": "2025-07-14T09:00:00Z"}}));
    assert_eq!(reason(&ending), format!("Job {JOB} is being deleted: run this again later"));
}

#[test]
fn a_manifest_has_one_job_in_the_releases_namespace() {
    let job = |more: &str| format!("\n---\n{{apiVersion: batch/v1, kind: Job, metadata: {{name: a{more}}}}}");
    for (manifest, told) in [
        (String::new(), "has no Job"),
        ("{apiVersion: example.org/v1, kind: Job, metadata: {name: a}}".to_owned(), "has no Job"),
        (job("") + &job("b"), "has several Jobs"),
        (job(", namespace: elsewhere"), "has its Job in another namespace"),
        (job("/../b"), "has a Job whose name is not a legal one"),
    ] {
        let row = row_with(|json| json["manifest"] = manifest.clone().into());
        assert!(reason(&row).starts_with(told), "{manifest}: {row:?}");
    }
    created(&row_with(|json| json["manifest"] = job(", namespace: orchestrator").into()));
}

#[test]
fn a_config_map_is_there_and_holds_text() {
    let mut seen = seen(&[stored()]);
    seen.config_maps.clear();
    assert_eq!(reason(&row(&seen)), format!("ConfigMap {FILES} is not there: its markdown is nowhere else"));
    let binary = json!({"data": {"task.md": "x"}, "binaryData": {"logo.png": "AA==", "b": "AA=="}});
    seen.config_maps.insert(FILES.into(), serde_json::from_value(binary).expect("a ConfigMap"));
    assert_eq!(reason(&row(&seen)), format!("ConfigMap {FILES} has what is not text: b, logo.png"));
    seen.config_maps.insert(FILES.into(), config_map(&[]));
    assert!(reason(&row(&seen)).contains("must have at least one file"));
    seen.config_maps.insert(FILES.into(), config_map(&[("task.md", &"<".repeat(300_000))]));
    assert!(reason(&row(&seen)).contains("bytes as JSON"), "judged as the API server writes it");
    for illegal in ["../x", "A", "a b"] {
        let row = row_with(|json| json["config"]["taskConfigMapName"] = illegal.into());
        assert_eq!(reason(&row), "names a ConfigMap whose name is not a legal one", "{illegal}");
    }
}

#[test]
fn names_that_cannot_be_are_told_by_their_path() {
    for service in ["Auth", "a_b", "../..", &"s".repeat(41)] {
        let row = row_with(|json| {
            json["name"] = "by-hand".into();
            json["config"]["serviceName"] = service.into();
            json["config"]["job"]["microservice"] = service.into();
        });
        assert!(reason(&row).starts_with("value serviceName is not lower-case"), "{service}: {row:?}");
    }
    let row = row_with(|json| json["config"]["agentName"] = "Claude Agent".into());
    assert!(reason(&row).starts_with("spec.agentName: "), "{row:?}");
}

#[test]
fn a_release_in_anothers_place_is_left_alone() {
    let mut seen = seen(&[stored()]);
    seen.releases[0].0 = "other".into();
    assert_eq!(reason(&row(&seen)), "holds a release of another name or namespace");
    let row = row_with(|json| json["namespace"] = "elsewhere".into());
    assert_eq!(reason(&row), "holds a release of another name or namespace");
    seen.releases[0].1 = Err("is not base64".into());
    assert_eq!(reason(&super::row(&seen)), "is not base64");
}

#[test]
fn of_two_releases_of_one_task_none_is_made() {
    let mut second = stored();
    second["name"] = "again".into();
    second["manifest"] = MANIFEST.replace(RELEASE, "again").into();
    let rows = judged(&seen(&[stored(), second]));
    assert!(reason(&rows[0]).starts_with(&format!("is the same task as {RELEASE}: remove those")), "{rows:?}");
    assert!(reason(&rows[1]).starts_with("is the same task as again: remove those"), "{rows:?}");
}

/// The namespace once its release was moved.
fn moved() -> Seen {
    let mut seen = seen(&[stored()]);
    let task_run = created(&row(&seen)).clone();
    seen.task_runs.insert("task-1001".into(), task_run);
    seen
}

#[test]
fn a_second_look_changes_nothing() {
    let mut seen = moved();
    let is_moved = |seen: &Seen| matches!(row(seen).verdict, Verdict::Migrated(_));
    assert!(is_moved(&seen));
    seen.agents.clear();
    seen.jobs.clear();
    assert!(is_moved(&seen), "the Job has gone since");
    assert!(!row(&seen).notes.iter().any(|note| note.contains("not known")), "the operator saw how it ended");
    let live = seen.task_runs.get_mut("task-1001").expect("one");
    live.metadata.annotations.as_mut().expect("some").insert(ADOPTS.into(), JOB.into());
    assert!(is_moved(&seen), "it was gone before");
}

#[test]
fn what_is_there_by_others_or_of_another_job_is_left_alone() {
    let with = |change: fn(&mut TaskRun)| {
        let mut seen = moved();
        change(seen.task_runs.get_mut("task-1001").expect("one"));
        row(&seen)
    };
    let annotate = |live: &mut TaskRun, key: &str, value: &str| {
        live.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    };
    let not_ours = "TaskRun task-1001 is there and was not made of this release";
    assert!(reason(&with(|live| live.metadata.annotations = None)).starts_with(not_ours));
    for (key, value, told) in [
        (HELM_RELEASE, "other", "TaskRun task-1001 is there and was not made"),
        (ADOPTS, "auth-service-task-1001-claude-code/u0", "was installed again"),
        (ADOPTS, "auth-service-task-1001-claude-code", "was installed again"),
        (ADOPTS, "other/u1", "was installed again"),
    ] {
        let mut seen = moved();
        annotate(seen.task_runs.get_mut("task-1001").expect("one"), key, value);
        let row = row(&seen);
        assert!(reason(&row).starts_with(told), "{key}={value}: {row:?}");
    }
    let mut seen = moved();
    seen.task_runs.clear();
    seen.unreadable.insert("task-1001".into());
    assert!(reason(&row(&seen)).contains("does not fit its schema"));
    let ending =
        with(|live| live.metadata.deletion_timestamp = serde_json::from_value(json!("2025-07-14T09:00:00Z")).ok());
    assert_eq!(reason(&ending), "TaskRun task-1001 was made of it and is being deleted");
}

#[test]
fn a_rival_of_what_was_moved_is_told_and_changes_nothing() {
    let mut seen = moved();
    let mut second = stored();
    second["name"] = "again".into();
    seen.releases.push(("again".into(), decode(&pack(second.to_string().as_bytes()))));
    seen.jobs.clear();
    let rows = judged(&seen);
    assert!(reason(&rows[0]).contains("people must say; is the same task as"), "{rows:?}");
    assert!(matches!(rows[1].verdict, Verdict::Migrated(_)));
}

proptest! {
    #[test]
    fn whatever_the_values_say_none_is_told(
        said in prop::collection::vec((0..PATHS.len(), prop::sample::select(vec![
            json!(null), json!(""), json!("sk ant"), json!(7), json!("7"), json!(-1.5), json!(["sk ant"]),
            json!({"existingClaim": "sk ant", "anthropicApiKey": "sk ant", "taskId": "7"}),
        ])), 0..4),
    ) {
        let row = row_with(|json| {
            for (path, value) in said {
                *json.pointer_mut(PATHS[path]).expect("a path") = value;
            }
        });
        let told = entries(&[row]);
        let told = table(&told) + &serde_json::to_string(&told).expect("JSON");
        prop_assert!(!told.contains("sk ant"), "{told}");
    }
}

const PATHS: [&str; 9] = [
    "/config/taskId",
    "/config/serviceName",
    "/config/agentName",
    "/config/attempt",
    "/config/taskConfigMapName",
    "/config/job",
    "/config/sharedWorkspace",
    "/config/secrets",
    "/chart/values/taskId",
];
