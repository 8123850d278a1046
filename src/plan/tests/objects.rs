//! The objects of a run: what is forced, what is a default, what is refused.

use super::*;
use crate::crd::{EnvVar, Workspace};
use crate::crd::{RELEASE_GATE, TASK_RUN_UID_LABEL, TRACEPARENT};
use k8s_openapi::api::core::v1::Container;

/// An Agent of which this much is said, the rest left out.
fn agent_with(spec: &Value) -> Agent {
    let mut template = json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "agent:1"}]}}}});
    json_patch::merge(&mut template, &json!({ "spec": spec }));
    let mut agent = agent();
    agent.spec.job_template = serde_json::from_value(template).unwrap();
    agent
}

fn job_of(agent: &Agent) -> Job {
    let mut task_run = task_run();
    task_run.metadata.uid = Some("uid-7".into());
    build_job(&task_run, agent).unwrap()
}

fn json_of(agent: &Agent) -> Value {
    serde_json::to_value(job_of(agent)).unwrap()
}

fn with_workspace() -> Agent {
    let mut agent = agent_with(&json!({"template": {"spec": {
        "initContainers": [{"name": "clone"}, {"name": "sidecar", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}, {"name": "b"}],
    }}}));
    agent.spec.workspace =
        Some(Workspace { mount_path: None, claim_template: serde_json::from_value(json!({})).unwrap() });
    agent
}

#[test]
fn silence_gets_safe_defaults() {
    let spec = &json_of(&agent_with(&json!({})))["spec"];
    assert_eq!(spec["backoffLimit"], 0);
    assert_eq!(spec["activeDeadlineSeconds"], 7200);
    assert_eq!(spec["ttlSecondsAfterFinished"], 604_800);
    assert_eq!(spec["template"]["spec"]["automountServiceAccountToken"], false);
}

#[test]
fn what_the_agent_says_is_kept_where_it_may_choose() {
    let spec = &json_of(&agent_with(&json!({
        "backoffLimit": 3,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 301,
        "template": {"spec": {"automountServiceAccountToken": true, "schedulingGates": [{"name": "example.com/own"}]}},
    })))["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["activeDeadlineSeconds"]), (&json!(3), &json!(60)));
    assert_eq!(spec["ttlSecondsAfterFinished"], 301);
    assert_eq!(spec["template"]["spec"]["automountServiceAccountToken"], true);
    assert_eq!(
        spec["template"]["spec"]["schedulingGates"],
        json!([{"name": "example.com/own"}, {"name": RELEASE_GATE}])
    );
}

#[test]
fn what_the_protocol_needs_is_forced() {
    let spec = &json_of(&agent_with(&json!({
        "parallelism": 3,
        "completions": 5,
        "podReplacementPolicy": "TerminatingOrFailed",
        "ttlSecondsAfterFinished": 0,
        "template": {"spec": {"restartPolicy": "OnFailure"}},
    })))["spec"];
    assert_eq!((&spec["parallelism"], &spec["completions"], &spec["suspend"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(spec["podReplacementPolicy"], "Failed");
    assert_eq!(spec["ttlSecondsAfterFinished"], 300);
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
    assert_eq!(spec["template"]["spec"]["schedulingGates"], json!([{ "name": RELEASE_GATE }]));
}

#[test]
fn what_cannot_be_run_is_refused_with_its_path() {
    let cases = [
        ("selector", json!({"selector": {"matchLabels": {"a": "b"}}})),
        ("manualSelector", json!({"manualSelector": true})),
        ("managedBy", json!({"managedBy": "example.com/x"})),
        ("suspend", json!({"suspend": false})),
        ("completionMode", json!({"completionMode": "Indexed"})),
        ("template.spec.nodeName", json!({"template": {"spec": {"nodeName": "n1"}}})),
        ("template.spec.volumes", json!({"template": {"spec": {"volumes": [{"name": "taskrun-context"}]}}})),
        ("template.spec", json!({"template": {"spec": null}})),
    ];
    for (field, spec) in cases {
        let error = build_job(&task_run(), &agent_with(&spec)).expect_err(field);
        assert!(error.starts_with(&format!("spec.jobTemplate.spec.{field}: ")), "{error}");
    }
    let both = build_job(&task_run(), &agent_with(&json!({"suspend": true, "manualSelector": true}))).unwrap_err();
    assert!(both.contains("spec.suspend: ") && both.contains("spec.manualSelector: "), "{both}");
    assert!(build_job(&task_run(), &agent_with(&json!({"completionMode": "NonIndexed"}))).is_ok());
}

#[test]
fn environment_is_ours_then_the_tasks_then_the_agents() {
    let mut task_run = task_run();
    let var = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
    task_run.spec.env = vec![var("MODEL", "$(API_KEY) $$5"), var("BRANCH", "main")];
    let env = json!([
        {"name": "TASK_ID", "value": "spoofed"},
        {"name": "MODEL", "value": "small"},
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
        {"name": "DIR", "value": "$(CONTEXT_DIR)/x"},
    ]);
    let agent = agent_with(&json!({"template": {"spec": {"containers": [{"name": "agent", "env": env}]}}}));
    let job = serde_json::to_value(build_job(&task_run, &agent).unwrap()).unwrap();
    let expected = json!([
        {"name": "TASK_ID", "value": "7"},
        {"name": "SERVICE_NAME", "value": "auth"},
        {"name": "AGENT_NAME", "value": "coder"},
        {"name": "CONTEXT_VERSION", "value": "1"},
        {"name": "CONTEXT_DIR", "value": "/context"},
        {"name": "MODEL", "value": "$$(API_KEY) $$$$5"},
        {"name": "BRANCH", "value": "main"},
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
        {"name": "DIR", "value": "$(CONTEXT_DIR)/x"},
    ]);
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["env"], expected);
}

#[test]
fn an_agent_can_go_on_with_the_trace_of_its_version() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let found = |task_run: &TaskRun| {
        let job = build_job(task_run, &agent_with(&json!({}))).unwrap();
        let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        env.into_iter().filter(|var| var.name == "TRACEPARENT").filter_map(|var| var.value).collect::<Vec<_>>()
    };
    let mut task_run = task_run();
    assert!(found(&task_run).is_empty());
    for (annotation, expected) in [("$(API_KEY)", vec![]), (trace, vec![trace])] {
        task_run.metadata.annotations = Some([(TRACEPARENT.into(), annotation.into())].into());
        assert_eq!(found(&task_run), expected);
    }
    task_run.spec.env = vec![EnvVar { name: "TRACEPARENT".into(), value: "my own".into() }];
    assert_eq!(found(&task_run), ["my own"], "who sets another wants another");
}

#[test]
fn every_container_finds_context_and_workspace() {
    let job = job_of(&with_workspace());
    let pod = job.spec.unwrap().template.spec.unwrap();
    let all: Vec<&Container> = pod.containers.iter().chain(pod.init_containers.iter().flatten()).collect();
    assert_eq!(all.len(), 4);
    for container in all {
        let mounts = container.volume_mounts.as_ref().unwrap();
        let find = |path: &str| mounts.iter().find(|mount| mount.mount_path == path).unwrap();
        assert_eq!((find("/context").name.as_str(), find("/context").read_only), ("taskrun-context", Some(true)));
        assert_eq!((find("/workspace").name.as_str(), find("/workspace").read_only), ("taskrun-workspace", None));
        assert_eq!(container.env.as_ref().unwrap()[0].name, "TASK_ID");
    }
    let volumes = serde_json::to_value(pod.volumes).unwrap();
    assert_eq!(volumes[0]["configMap"]["name"], "auth-7-v1");
    assert_eq!(volumes[1]["persistentVolumeClaim"]["claimName"], "workspace-auth-7");
}

#[test]
fn the_agents_labels_stay_and_ours_win() {
    let mut agent = agent_with(&json!({"template": {"metadata": {"labels": {"team": "x", "task-id": "8"}}}}));
    agent.spec.job_template.metadata = Some(ObjectMeta {
        name: Some("not-this".into()),
        labels: Some([("team".into(), "x".into()), (TASK_RUN_UID_LABEL.into(), "forged".into())].into()),
        annotations: Some([("note".into(), "kept".into())].into()),
        finalizers: Some(vec!["example.com/x".into()]),
        ..ObjectMeta::default()
    });
    let job = job_of(&agent);
    let pod = job.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    for labels in [job.labels(), pod.labels.as_ref().unwrap()] {
        assert_eq!((labels["team"].as_str(), labels["task-id"].as_str()), ("x", "7"));
        assert_eq!((labels[TASK_RUN_UID_LABEL].as_str(), labels["context-version"].as_str()), ("uid-7", "1"));
    }
    assert_eq!((job.name_any().as_str(), job.annotations()["note"].as_str()), ("auth-7-v1", "kept"));
    assert_eq!(job.metadata.finalizers, None);
    let [owner] = job.owner_references() else { panic!("one owner") };
    assert_eq!((owner.uid.as_str(), owner.kind.as_str(), owner.controller), ("uid-7", "TaskRun", Some(true)));
    let selected = |part: &str| part.split_once('=').is_some_and(|(key, value)| job.labels()[key] == value);
    assert!(task_selector(&task_run().spec.run_id()).split(',').all(selected));
}

#[test]
fn the_workspace_belongs_to_the_task_not_to_a_run() {
    let claim = build_claim(&task_run(), &with_workspace()).unwrap();
    assert_eq!((claim.name_any().as_str(), claim.owner_references().len()), ("workspace-auth-7", 0));
    assert_eq!(claim.labels()["task-id"], "7");
    for of_a_run in ["context-version", TASK_RUN_UID_LABEL] {
        assert!(!claim.labels().contains_key(of_a_run), "{of_a_run}");
    }
    assert_eq!(build_claim(&task_run(), &agent()), None);
}

#[test]
fn the_config_map_holds_the_files_and_cannot_change() {
    let config_map = build_config_map(&task_run());
    assert_eq!(
        config_map.data.unwrap().into_iter().collect::<Vec<_>>(),
        [("task.md".to_owned(), "# Do it".to_owned())]
    );
    assert_eq!((config_map.immutable, config_map.metadata.name.as_deref()), (Some(true), Some("auth-7-v1")));
}
