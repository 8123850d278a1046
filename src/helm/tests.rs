//! Judges releases as the predecessor made them, each with one thing otherwise.

mod traps;
mod verdicts;
mod verified;

use super::*;
use crate::crd::{MarkdownFile, TaskNames, TaskRun};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, write::GzEncoder};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

const RELEASE: &str = "auth-service-task-1001";
const JOB: &str = "auth-service-task-1001-claude-code";
const FILES: &str = "auth-service-task-1001-files";
const MANIFEST: &str = "---
# Source: claude-code/templates/serviceaccount.yaml
apiVersion: v1
kind: ServiceAccount
metadata:
  name: auth-service-task-1001-claude-code
---
apiVersion: v1
kind: Secret
metadata:
  name: auth-service-task-1001-claude-code-secret
stringData:
  ANTHROPIC_API_KEY: sk-ant-plain
---
# an empty document
---
apiVersion: batch/v1
kind: Job
metadata:
  name: auth-service-task-1001-claude-code
  labels: {task-id: \"1001\", task-id: \"1001\"}
spec: {backoffLimit: 3}
";

/// A payload as Helm stores it.
pub(super) fn pack(json: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    gzip.write_all(json).expect("memory");
    STANDARD.encode(gzip.finish().expect("memory")).into()
}

/// A release's JSON as the predecessor's PM handler had it made.
pub(super) fn stored() -> Value {
    json!({
        "name": RELEASE, "namespace": "orchestrator", "version": 1, "manifest": MANIFEST, "hooks": [],
        "info": {"status": "deployed", "last_deployed": "2025-07-14T10:00:00.5+02:00", "description": "Install complete"},
        "chart": {
            "metadata": {"name": "claude-code", "version": "0.2.0", "appVersion": "latest"},
            "values": {"serviceName": "", "taskId": "", "attempt": "1", "sharedWorkspace": {"claimName": "shared-workspace-pvc"}},
        },
        "config": {
            "serviceName": "auth-service", "taskId": "1001", "attempt": "1", "agentName": "claude-agent-1",
            "taskConfigMapName": FILES,
            "job": {"taskId": "1001", "microservice": "auth-service", "backoffLimit": 3},
            "sharedWorkspace": {"enabled": true, "claimName": "shared-workspace", "existingClaim": "shared-workspace"},
            "secrets": {"anthropicApiKey": "sk-ant-plain"},
        },
    })
}

/// The same of another service or task.
fn stored_as(service: &str, id: &str) -> Value {
    let text = stored().to_string().replace("auth-service", service).replace("1001", id);
    serde_json::from_str(&text).expect("JSON")
}

fn job(release: &str) -> Job {
    let job = json!({
        "metadata": {"name": format!("{release}-claude-code"), "uid": "u1", "annotations": {
            "meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": "orchestrator"}},
    });
    serde_json::from_value(job).expect("a Job")
}

fn config_map(data: &[(&str, &str)]) -> ConfigMap {
    let pair = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
    ConfigMap { data: Some(data.iter().map(pair).collect()), ..ConfigMap::default() }
}

/// A namespace with these releases, and with all that they need.
fn seen(releases: &[Value]) -> Seen {
    let mut seen = Seen {
        namespace: "orchestrator".into(),
        releases: vec![],
        config_maps: BTreeMap::new(),
        jobs: BTreeMap::new(),
        task_runs: BTreeMap::new(),
        unreadable: BTreeSet::new(),
        agents: BTreeSet::from(["claude-agent-1".to_owned()]),
        now: "2025-07-14T09:00:00Z".parse().expect("a time"),
    };
    for json in releases {
        let release = decode(&pack(json.to_string().as_bytes())).expect("a release");
        let needs = needs(&release, &Mapping::default());
        let files = config_map(&[("task.md", "# Do it\r\n"), ("design-spec.md", "As <planned>\n")]);
        seen.config_maps.extend(needs.config_map.map(|name| (name, files)));
        seen.jobs.extend(needs.job.map(|name| (name, job(&release.name))));
        seen.releases.push((release.name.clone(), Ok(release)));
    }
    seen
}

fn judged(seen: &Seen) -> Vec<Row> {
    judge(seen, &Mapping::default(), TaskNames::ById)
}

/// The row of a namespace with one release.
fn row(seen: &Seen) -> Row {
    let [row] = judged(seen).try_into().expect("one row");
    row
}

/// What is made of the release with its JSON changed so.
fn row_with(change: impl FnOnce(&mut Value)) -> Row {
    let mut json = stored();
    change(&mut json);
    row(&seen(&[json]))
}

fn created(row: &Row) -> &TaskRun {
    let Verdict::Create(task_run) = &row.verdict else { panic!("{row:?}") };
    task_run
}

fn reason(row: &Row) -> &str {
    let Verdict::Skip(reason) = &row.verdict else { panic!("{row:?}") };
    reason
}

fn annotation<'a>(task_run: &'a TaskRun, key: &str) -> &'a str {
    &task_run.metadata.annotations.as_ref().expect("annotations")[key]
}

fn file(filename: &str, content: &str) -> MarkdownFile {
    MarkdownFile { filename: filename.into(), content: content.into(), request_id: None }
}

fn entries(rows: &[Row]) -> Vec<Entry> {
    rows.iter().map(Entry::from).collect()
}
