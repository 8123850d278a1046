//! What a release says of its task: read by the mapping, or not at all.

use super::mapping::{self, Mapping};
use super::release::{Object, Release};
use crate::crd::{EnvVar, MAX_SERVICE_NAME, is_label, is_subdomain};
use k8s_openapi::api::batch::v1::Job;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What must be read from the cluster before a release can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The ConfigMap of this name.
    pub config_map: Option<String>,
    /// The Job of this name.
    pub job: Option<String>,
}

/// The objects that [`judge`](super::judge()) looks for. A release of another chart needs none.
#[must_use]
pub fn needs(release: &Release, mapping: &Mapping) -> Needs {
    if !mapping.charts.contains(&release.chart.name) {
        return Needs::default();
    }
    // that of a task which cannot be read is needed all the same: nobody may take it for one that is left over
    let said = || mapping::read(&release.values, &mapping.config_map).ok()?.map(|(_, name)| name);
    let config_map = TaskValues::read(release, mapping).ok().map(|task| task.config_map).or_else(said);
    Needs {
        config_map: config_map.filter(|name| is_subdomain(name)),
        job: job_of(release).ok().map(|job| job.name.clone()),
    }
}

/// A release's Job, as it is now.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// Its uid; none where it is gone.
    pub uid: Option<String>,
    /// What it does.
    pub state: JobState,
}

/// What a Job does.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Running,
    /// It waits, by its `suspend`.
    Suspended,
    /// It ended well.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// It is not there: by its TTL, by hand, or never made. Nothing tells which.
    Gone,
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl JobSeen {
    pub(super) fn new(name: &str, job: Option<&Job>) -> Self {
        let state = job.map_or(JobState::Gone, |job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let has = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
            match () {
                () if has("Complete") => JobState::Succeeded,
                () if has("Failed") => JobState::Failed,
                () if job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) => JobState::Suspended,
                () => JobState::Running,
            }
        });
        Self { name: name.to_owned(), uid: job.and_then(|job| job.metadata.uid.clone()), state }
    }
}

/// The one Job of a release's manifest.
pub(super) fn job_of(release: &Release) -> Result<&Object, String> {
    let is_job = |object: &&Object| object.kind == "Job" && object.api_version.starts_with("batch/");
    let mut jobs = release.objects.iter().filter(is_job);
    let job =
        jobs.next().ok_or("has no Job in its manifest: there is nothing that a TaskRun could take the place of")?;
    match &job.namespace {
        _ if jobs.next().is_some() => Err("has several Jobs in its manifest: a TaskRun is one".to_owned()),
        Some(other) if *other != release.namespace => Err("has its Job in another namespace".to_owned()),
        _ if !is_subdomain(&job.name) => Err("has a Job whose name is not a legal one".to_owned()),
        _ => Ok(job),
    }
}

/// A task as its release's values say it.
pub(super) struct TaskValues {
    pub service_name: String,
    pub task_id: u32,
    pub agent_name: String,
    pub config_map: String,
    pub env: Vec<EnvVar>,
    /// What does not come along, and where it is.
    pub notes: Vec<String>,
}

impl TaskValues {
    /// The first thing that keeps it from being read, if any; it names the path, never the value.
    pub fn read(release: &Release, mapping: &Mapping) -> Result<Self, String> {
        let values = &release.values;
        let (path, id) = required(values, "taskId", &mapping.task_id)?;
        let task_id = task_id(&id).ok_or_else(|| format!("value {path} is not a number from 1 to 4294967295"))?;
        let (path, service_name) = required(values, "serviceName", &mapping.service_name)?;
        if !is_label(&service_name) || service_name.len() > MAX_SERVICE_NAME {
            return Err(format!(
                "value {path} is not lower-case letters, digits and '-', at most {MAX_SERVICE_NAME} long"
            ));
        }
        let agent_name = match (mapping::read(values, &mapping.agent_name)?, &mapping.agent_name_default) {
            (Some((_, name)), _) => name,
            (None, Some(default)) => default.clone(),
            (None, None) => return Err("names no agent: the mapping may have an agentNameDefault".to_owned()),
        };
        let attempt = mapping::read(values, &mapping.attempt)?.map_or_else(|| "1".to_owned(), |(_, attempt)| attempt);
        let config_map = match mapping::read(values, &mapping.config_map)? {
            Some((_, name)) => name,
            None => mapping.config_map_name(&service_name, task_id, &attempt),
        };
        if !is_subdomain(&config_map) {
            return Err("names a ConfigMap whose name is not a legal one".to_owned());
        }
        let mut env = vec![];
        for (name, paths) in &mapping.env {
            let value = mapping::read(values, paths)?.map(|(_, value)| value);
            env.extend(value.map(|value| EnvVar { name: name.clone(), value }));
        }
        let mut task = Self { service_name, task_id, agent_name, config_map, env, notes: vec![] };
        task.has_name(&release.name)?;
        if attempt != "1" {
            task.notes.push("its attempts are not counted on: versions begin at 1".to_owned());
        }
        task.note_secrets(values, mapping);
        task.note_workspace(values, mapping);
        Ok(task)
    }

    /// The predecessor's names say service and number, too.
    fn has_name(&mut self, release: &str) -> Result<(), String> {
        let says =
            release.rsplit_once("-task-").filter(|(_, id)| id.bytes().all(|b| b.is_ascii_digit()) && !id.is_empty());
        match says {
            Some((service, id)) if service == self.service_name && id == self.task_id.to_string() => {}
            Some(_) => return Err("its name says another service or task than its values".to_owned()),
            None => {
                self.notes.push("its name is not {service}-task-{id}: only its values say which task it is".to_owned());
            }
        }
        Ok(())
    }

    fn note_secrets(&mut self, values: &Value, mapping: &Mapping) {
        let mut paths = vec![];
        for path in &mapping.secrets {
            leaves(path, mapping::at(values, path), &mut paths);
        }
        let note = |path| format!("{path} is not copied: put it into a Secret that the Agent refers to");
        self.notes.extend(paths.into_iter().map(note));
    }

    fn note_workspace(&mut self, values: &Value, mapping: &Mapping) {
        let claims = mapping.workspace_claim.iter().filter_map(|path| mapping::at(values, path)?.as_str());
        if let Some(claim) = claims.into_iter().find(|claim| is_subdomain(claim)) {
            self.notes.push(format!("its work lies in claim {claim}: an Agent that mounts it goes on there"));
        }
    }
}

fn required<'a>(values: &Value, field: &str, paths: &'a [String]) -> Result<(&'a str, String), String> {
    mapping::read(values, paths)?.ok_or_else(|| format!("no value says its {field}: {} not set", paths.join(", ")))
}

/// A number without sign or leading zeros, as release names have it.
fn task_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id: &u32| *id > 0 && id.to_string() == text)
}

/// The paths of all that is set at or below one.
fn leaves(path: &str, value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                leaves(&format!("{path}.{key}"), Some(value), found);
            }
        }
        Some(_) => found.push(path.to_owned()),
    }
}
