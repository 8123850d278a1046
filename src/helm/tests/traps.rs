//! The traps of reading the predecessor's releases, each by its number; 2 and 8 stand beside the decoder as well.

use super::*;
use crate::crd::ADOPTS;

#[test]
fn trap_1_each_task_run_names_the_job_that_it_must_not_double() {
    let row = row(&seen(&[stored()]));
    assert_eq!(annotation(created(&row), ADOPTS), format!("{JOB}/u1"));
}

#[test]
fn trap_3_the_outcome_of_a_job_that_is_gone_is_said_not_to_be_known() {
    let mut seen = seen(&[stored()]);
    seen.jobs.clear();
    let row = row(&seen);
    assert_eq!(annotation(created(&row), ADOPTS), JOB);
    assert_eq!(row.job, Some(JobSeen { name: JOB.into(), uid: None, state: JobState::Gone }));
    assert!(row.notes.iter().any(|note| note.contains("is not known")), "{:?}", row.notes);
}

#[test]
fn trap_4_releases_of_other_charts_are_told_apart() {
    let row = row_with(|json| json["chart"]["metadata"]["name"] = "orchestrator".into());
    assert_eq!(row.verdict, Verdict::OtherChart);
    let mut json = stored();
    json["chart"]["metadata"]["name"] = "orchestrator".into();
    let release = decode(&pack(json.to_string().as_bytes())).expect("a release");
    assert_eq!(needs(&release, &Mapping::default()), Needs::default());
}

#[test]
fn trap_5_numbers_are_read_from_words_and_numbers_and_nothing_else() {
    let with = |id: Value| {
        row_with(|json| {
            json["config"]["taskId"] = id.clone();
            json["config"]["job"]["taskId"] = id.clone();
        })
    };
    assert_eq!(created(&with(json!("1001"))).spec.task_id, 1001);
    assert_eq!(created(&with(json!(1001))).spec.task_id, 1001);
    for bad in
        [json!("unknown"), json!(0), json!("0"), json!(-7), json!(7.5), json!("007"), json!("+7"), json!(u64::MAX)]
    {
        assert_eq!(reason(&with(bad)), "value taskId is not a number from 1 to 4294967295");
    }
    assert_eq!(reason(&with(json!(["7"]))), "value taskId is not a word or a number");
    for unset in [json!(""), json!(null)] {
        assert_eq!(reason(&with(unset)), "no value says its taskId: taskId, job.taskId not set");
    }
}

#[test]
fn trap_5_values_that_differ_are_told_not_resolved() {
    let row = row_with(|json| json["config"]["job"]["taskId"] = "1002".into());
    assert!(reason(&row).starts_with("values taskId and job.taskId differ"), "{row:?}");
    let row = row_with(|json| json["config"]["job"]["microservice"] = "billing".into());
    assert!(reason(&row).starts_with("values serviceName and job.microservice differ"), "{row:?}");
    let by_hand = row_with(|json| {
        json["config"]["taskId"] = Value::Null;
        json["config"]["serviceName"] = "".into();
    });
    assert_eq!(created(&by_hand).metadata.name.as_deref(), Some("task-1001"), "as the chart's templates read it");
}

#[test]
fn trap_5_a_name_that_contradicts_the_values_is_told() {
    for name in ["auth-service-task-1002", "billing-task-1001"] {
        let row = row_with(|json| json["name"] = name.into());
        assert_eq!(reason(&row), "its name says another service or task than its values", "{name}");
    }
    for name in ["by-hand", "x-task-y", "-task-"] {
        let row = row_with(|json| json["name"] = name.into());
        created(&row);
        assert!(row.notes.iter().any(|note| note.starts_with("its name is not")), "{name}: {row:?}");
    }
}

#[test]
fn trap_6_two_services_with_one_number_are_parted_by_the_scheme_of_names() {
    let seen = seen(&[stored_as("auth", "7"), stored_as("billing", "7"), stored_as("auth", "8")]);
    let rows = judged(&seen);
    let told = |other| {
        format!("is the same task as {other}: services that number their tasks apart need --task-names=by-service")
    };
    assert_eq!(reason(&rows[0]), told("billing-task-7"));
    assert_eq!(created(&rows[1]).metadata.name.as_deref(), Some("task-8"));
    assert_eq!(reason(&rows[2]), told("auth-task-7"));
    let rows = judge(&seen, &Mapping::default(), TaskNames::ByService);
    let names: Vec<&str> = rows.iter().map(|row| created(row).metadata.name.as_deref().expect("a name")).collect();
    assert_eq!(names, ["auth-task-7", "auth-task-8", "billing-task-7"]);
}

#[test]
fn trap_7_filenames_that_are_not_legal_are_told_with_the_remedy() {
    let mut seen = seen(&[stored()]);
    seen.config_maps.insert(FILES.into(), config_map(&[("CLAUDE.md", "x"), ("notes", "y"), ("task.md", "  ")]));
    let row = row(&seen);
    for told in
        ["\"CLAUDE.md\" is reserved", "\"notes\" must end in .md", "\"task.md\" is empty", "the mapping can rename"]
    {
        assert!(reason(&row).contains(told), "{told}: {row:?}");
    }
    let mapping = Mapping::parse("files: {CLAUDE.md: instructions.md, notes: a.md}").expect("a mapping");
    seen.config_maps.insert(FILES.into(), config_map(&[("CLAUDE.md", "x"), ("notes", "y")]));
    let rows = judge(&seen, &mapping, TaskNames::ById);
    assert_eq!(created(&rows[0]).spec.markdown_files, [file("a.md", "y"), file("instructions.md", "x")]);
    assert!(rows[0].notes.contains(&"file CLAUDE.md becomes instructions.md".to_owned()), "{rows:?}");
}

#[test]
fn trap_8_the_key_is_named_and_neither_copied_nor_told() {
    let rows = judged(&seen(&[stored()]));
    let note = "secrets.anthropicApiKey is not copied: put it into a Secret that the Agent refers to";
    assert!(rows[0].notes.contains(&note.to_owned()), "{rows:?}");
    for told in [serde_json::to_string(&entries(&rows)).expect("JSON"), table(&entries(&rows)), format!("{rows:#?}")] {
        assert!(!told.contains("sk-ant"), "{told}");
    }
}

#[test]
fn trap_9_a_task_run_has_no_label_by_which_the_predecessor_deletes() {
    assert_eq!(created(&row(&seen(&[stored()]))).metadata.labels, None);
}

#[test]
fn trap_10_attempts_find_the_config_map_and_are_not_versions() {
    let mut json = stored();
    json["config"]["taskConfigMapName"] = Value::Null;
    json["config"]["attempt"] = json!(3);
    let seen = seen(&[json]);
    assert_eq!(seen.config_maps.keys().collect::<Vec<_>>(), ["auth-service-task-1001-run-3-files"]);
    let row = row(&seen);
    assert_eq!(created(&row).spec.context_version, 1);
    assert!(row.notes.iter().any(|note| note.contains("versions begin at 1")), "{row:?}");
}

#[test]
fn trap_11_the_claim_of_the_work_is_told() {
    let told = |row: Row| row.notes.into_iter().find(|note| note.contains("claim"));
    let claim = |name: &str| Some(format!("its work lies in claim {name}: an Agent that mounts it goes on there"));
    assert_eq!(told(row(&seen(&[stored()]))), claim("shared-workspace"));
    let by_default = row_with(|json| json["config"]["sharedWorkspace"] = json!({"enabled": true}));
    assert_eq!(told(by_default), claim("shared-workspace-pvc"));
    let none = row_with(|json| json["config"]["sharedWorkspace"] = Value::Null);
    assert_eq!(told(none), None);
}
