//! Leaving Helm, step by step: what a namespace's releases are, and the `TaskRun`s that take their places.
//!
//! `helm` decides; this reads, writes and reads again. Every step may be cut off anywhere and done again: a Job is
//! labelled before the `TaskRun` that adopts it is made, and a release's record is the last of it to go.

use crate::client::{ApiServer, Driver, Error, Revision};
use crate::clock::now;
use crate::crd::{Agent, Outcome, TASK_LABEL, TASK_RUN_LABEL, TaskNames, TaskRun};
use crate::helm::{
    Action, Entry, JobState, Mapping, Object, Release, Row, Seen, Verdict, decode, governing, judge, needs, verify,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Payloads that are read at once: each may have a megabyte.
const AT_ONCE: usize = 4;
/// What is not deleted with a release: it holds work, or much else.
const KEPT_KINDS: [&str; 4] = ["PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"];

/// The releases of one namespace.
pub struct Migration {
    /// Where they are.
    pub api_server: ApiServer,
    /// The namespace.
    pub namespace: String,
    /// How they are read.
    pub mapping: Mapping,
    /// How TaskRuns are named.
    pub names: TaskNames,
}

/// What to do.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Nothing but say what would be done.
    Plan,
    /// Make the TaskRuns that are not there, and compare each with its release.
    Apply,
    /// Compare all that are there with their releases.
    Verify,
    /// Delete the releases whose TaskRun is there, equal, and whose Job has ended.
    Delete,
}

/// What came of it.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The namespace.
    pub namespace: String,
    /// What was asked for.
    pub step: Step,
    /// Every release in it.
    pub releases: Vec<Entry>,
    /// ConfigMaps of the predecessor that no release refers to.
    pub orphan_config_maps: Vec<String>,
}

/// What became of a TaskRun's first version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    NotRecorded,
    GoesOn,
    Over,
    Unknown,
}

impl First {
    fn of(live: &TaskRun) -> Self {
        match live.runs().first() {
            None => Self::NotRecorded,
            Some(run) if run.context_version == 1 && run.outcome.is_none() => Self::GoesOn,
            Some(run) if run.context_version == 1 && run.outcome == Some(Outcome::Unknown) => Self::Unknown,
            // or its history has no place for it any more
            Some(_) => Self::Over,
        }
    }

    /// What is not known.
    fn unknown(self) -> Option<&'static str> {
        match self {
            Self::NotRecorded => Some("the operator has not recorded version 1 yet"),
            Self::Unknown => Some("how version 1 ended is not known: its Job was gone"),
            Self::GoesOn | Self::Over => None,
        }
    }
}

/// What is known of a namespace, and what is to be done with each release.
struct Look {
    seen: Seen,
    revisions: BTreeMap<String, Vec<Revision>>,
    rows: Vec<Row>,
}

impl Migration {
    /// Does one step for all releases. One that fails does not stop the others.
    ///
    /// # Errors
    /// If the releases cannot be read.
    pub async fn run(&self, step: Step) -> Result<Report, Error> {
        let look = self.look().await?;
        let mut releases = vec![];
        for row in &look.rows {
            let entry = Entry::from(row);
            let done = match (step, &row.verdict) {
                (Step::Apply, Verdict::Create(task_run)) => self.apply(entry.clone(), task_run).await,
                (Step::Verify | Step::Delete, Verdict::Create(_)) => {
                    Ok(entry.clone().because(Action::Skipped, "is not migrated yet"))
                }
                (Step::Verify, Verdict::Migrated(expected)) => {
                    self.compare(entry.clone(), expected, Action::Verified).await.map(|(entry, _)| entry)
                }
                (Step::Delete, Verdict::Migrated(expected)) => self.delete(entry.clone(), expected, row, &look).await,
                _ => Ok(entry.clone()),
            };
            releases.push(done.unwrap_or_else(|error| match error {
                Error::Conflict(what) => {
                    entry.because(Action::Failed, &format!("changed in the meantime, run this again: {what}"))
                }
                error => entry.because(Action::Failed, &error.to_string()),
            }));
        }
        let orphan_config_maps = self.orphans(&look).await?;
        Ok(Report { namespace: self.namespace.clone(), step, releases, orphan_config_maps })
    }

    async fn look(&self) -> Result<Look, Error> {
        let mut revisions: BTreeMap<String, Vec<Revision>> = BTreeMap::new();
        for revision in self.api_server.list_helm_revisions(&self.namespace).await? {
            revisions.entry(revision.release.clone()).or_default().push(revision);
        }
        let read = revisions.iter().map(async |(name, revisions)| {
            let release = self.release(revisions).await?;
            Ok::<_, Error>((name.clone(), release))
        });
        let releases: Vec<(String, Result<Release, String>)> =
            stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        let needs: Vec<_> =
            releases.iter().filter_map(|(_, release)| Some(needs(release.as_ref().ok()?, &self.mapping))).collect();
        let wanted = |name: fn(&crate::helm::Needs) -> &Option<String>| -> BTreeSet<String> {
            needs.iter().filter_map(|needs| name(needs).clone()).collect()
        };
        let agents = self.api_server.list_all_metadata::<Agent>(&self.namespace, ListParams::default()).await?;
        let mut seen = Seen {
            namespace: self.namespace.clone(),
            config_maps: self.api_server.fetch_all(&self.namespace, wanted(|needs| &needs.config_map)).await?,
            jobs: self.api_server.fetch_all(&self.namespace, wanted(|needs| &needs.job)).await?,
            task_runs: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            agents: agents.into_iter().filter_map(|agent| agent.name).collect(),
            releases,
            now: now(),
        };
        // which TaskRuns are meant is told by what they would be called
        let named = judge(&seen, &self.mapping, self.names).into_iter().filter_map(|row| row.task_run);
        let found = self.api_server.fetch_all(&self.namespace, named.collect::<BTreeSet<_>>()).await?;
        for (name, DeserializeGuard(found)) in found {
            match found {
                Ok(task_run) => drop(seen.task_runs.insert(name, task_run)),
                Err(_) => drop(seen.unreadable.insert(name)),
            }
        }
        let rows = judge(&seen, &self.mapping, self.names);
        Ok(Look { seen, revisions, rows })
    }

    /// The revision that says what runs.
    async fn release(&self, revisions: &[Revision]) -> Result<Result<Release, String>, Error> {
        let drivers: BTreeSet<Driver> = revisions.iter().map(|revision| revision.driver).collect();
        if drivers.len() > 1 {
            return Ok(Err("is stored twice, in Secrets and in ConfigMaps: which one runs is not known".to_owned()));
        }
        let words: Vec<(u32, &str)> = revisions.iter().map(|of| (of.number, of.status.as_str())).collect();
        let number = governing(&words);
        let Some(revision) = revisions.iter().find(|revision| Some(revision.number) == number) else {
            return Ok(Err("has no revision".to_owned()));
        };
        let payload = self.api_server.fetch_helm_payload(&self.namespace, revision).await?;
        Ok(payload.ok_or_else(|| "holds no release".to_owned()).and_then(|payload| decode(&payload)))
    }

    /// Labels the Job, by which its adoption is allowed, and then makes the `TaskRun`.
    async fn apply(&self, entry: Entry, task_run: &TaskRun) -> Result<Entry, Error> {
        if let Some((job, uid)) = task_run.adoption().and_then(|adoption| Some((adoption.job, adoption.uid?))) {
            let task = task_run.spec.run_id().task();
            let labels = [(TASK_LABEL.to_owned(), task), (TASK_RUN_LABEL.to_owned(), task_run.name_any())];
            self.api_server.label_job(&self.namespace, job, uid, &BTreeMap::from(labels)).await?;
        }
        self.api_server.create_task_run(&self.namespace, task_run).await?;
        Ok(self.compare(entry, task_run, Action::Created).await?.0)
    }

    /// Does what `done` says if the stored `TaskRun` is what it was to be; and what became of version 1.
    async fn compare(&self, mut entry: Entry, expected: &TaskRun, done: Action) -> Result<(Entry, First), Error> {
        let name = expected.name_any();
        let Some(live) = self.api_server.fetch::<TaskRun>(&self.namespace, &name).await? else {
            return Ok((entry.because(Action::Failed, &format!("TaskRun {name} is gone")), First::NotRecorded));
        };
        let first_files = match live.spec.context_version {
            1 => None,
            _ => self.api_server.fetch::<ConfigMap>(&self.namespace, &live.spec.run_id_of(1).to_string()).await?,
        };
        let is_cut = live.spec.context_version > 1 && first_files.is_none();
        let first = First::of(&live);
        if done != Action::Created {
            entry.notes.extend(first.unknown().map(str::to_owned));
        }
        let differences = verify(expected, &live, first_files.and_then(|first| first.data).as_ref());
        let entry = match differences.is_empty() {
            true => entry.done(done),
            false if is_cut => {
                let why = "cannot be compared any more: its history has no place for version 1 (historyLimit)";
                entry.because(Action::Skipped, why)
            }
            false => entry.because(Action::Failed, &differences.join("; ")),
        };
        Ok((entry, first))
    }

    /// Deletes what Helm and the predecessor have left of a release, its record last.
    async fn delete(&self, entry: Entry, expected: &TaskRun, row: &Row, look: &Look) -> Result<Entry, Error> {
        let (mut entry, first) = self.compare(entry, expected, Action::Verified).await?;
        if entry.action != Action::Verified {
            return Ok(entry);
        }
        let is_live = row.job.as_ref().is_some_and(|job| matches!(job.state, JobState::Running | JobState::Suspended));
        if is_live || matches!(first, First::NotRecorded | First::GoesOn) {
            let why = "its Job goes on, or its end is not recorded yet: run this again later";
            return Ok(entry.because(Action::Skipped, why));
        }
        let release =
            look.seen.releases.iter().find(|(name, _)| *name == row.release).and_then(|(_, of)| of.as_ref().ok());
        // the Job first: one that was made since is another agent's, which needs all the rest
        let mut objects: Vec<&Object> = release.into_iter().flat_map(|release| &release.objects).collect();
        objects.sort_by_key(|object| object.kind != "Job");
        for Object { api_version, kind, name, namespace, keep } in objects {
            let is_elsewhere = namespace.as_ref().is_some_and(|of| *of != self.namespace);
            if *keep || is_elsewhere || KEPT_KINDS.contains(&kind.as_str()) {
                entry.note(&format!("{kind} {name} is kept"));
                continue;
            }
            let object = (api_version.as_str(), kind.as_str(), name.as_str());
            let uid = row.job.as_ref().filter(|_| kind == "Job").map(|job| job.uid.as_deref().unwrap_or_default());
            match self.api_server.delete_helm_object(&self.namespace, &row.release, object, uid).await {
                Ok(None) => {}
                Ok(Some(why)) => entry.note(&format!("{kind} {name} is kept: {why}")),
                Err(error) => return Ok(entry.because(Action::Failed, &format!("{kind} {name}: {error}"))),
            }
        }
        let mut revisions = look.revisions.get(&row.release).cloned().unwrap_or_default();
        revisions.sort_by_key(|revision| (Some(revision.number) == row.revision, revision.number));
        for revision in &revisions {
            self.api_server.delete_helm_revision(&self.namespace, revision).await?;
        }
        match self.files_of(release, expected, row, look) {
            Some(Ok(files)) => self.api_server.delete_as_seen::<ConfigMap>(&self.namespace, files).await?,
            Some(Err(name)) => entry.note(&format!("ConfigMap {name} is kept: others may need it")),
            None => {}
        }
        Ok(entry.done(Action::Deleted))
    }

    /// The ConfigMap of the task's files; its name where it was not made for this task alone.
    fn files_of<'a>(
        &self,
        release: Option<&Release>,
        expected: &TaskRun,
        row: &Row,
        look: &'a Look,
    ) -> Option<Result<&'a ObjectMeta, String>> {
        let name = needs(release?, &self.mapping).config_map?;
        let metadata = &look.seen.config_maps.get(&name)?.metadata;
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let is_theirs =
            label("managed-by") == Some("orchestrator") && label("task-id") == Some(&expected.spec.task_id.to_string());
        let others = look.seen.releases.iter().filter(|(of, _)| *of != row.release);
        let mut others = others.filter_map(|(_, release)| needs(release.as_ref().ok()?, &self.mapping).config_map);
        Some(if is_theirs && others.all(|other| other != name) { Ok(metadata) } else { Err(name) })
    }

    /// The predecessor's ConfigMaps that belong to no release, not even to one that cannot be read or is of a chart
    /// that the mapping does not name.
    async fn orphans(&self, look: &Look) -> Result<Vec<String>, Error> {
        let found = self.api_server.list_predecessor_config_maps(&self.namespace).await?;
        let mut names = vec![];
        for found in found {
            let (name, labels) = (found.name.unwrap_or_default(), found.labels.unwrap_or_default());
            let task = labels.get("service").zip(labels.get("task-id")).map(|(of, id)| format!("{of}-task-{id}"));
            let is_of = |release: &String| task.as_ref() == Some(release) || name.starts_with(&format!("{release}-"));
            if !look.seen.config_maps.contains_key(&name) && !look.revisions.keys().any(is_of) {
                names.push(name);
            }
        }
        Ok(names)
    }
}
