//! Decides for each release: the `TaskRun` to make, or why none is made.
//!
//! A second look after the first was carried out must decide to do nothing, whatever has gone since: a Job by its
//! TTL, an Agent by hand.

use super::mapping::Mapping;
use super::release::{Chart, Release, Status};
use super::task::{JobSeen, JobState, TaskValues, job_of};
use crate::admission::{Subject, json_bytes, validate};
use crate::crd::{ADOPTS, HELM_RELEASE, MarkdownFile, TaskNames, TaskRun, TaskRunSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Longest that Helm is thought to be at an installation whose Job is not there yet, in seconds. The predecessor waited
/// 10 minutes at most.
const INSTALLING: i64 = 15 * 60;

/// What there is in one namespace. Releases by their names, each in its governing revision; objects by their names.
pub struct Seen {
    /// The namespace.
    pub namespace: String,
    /// Its releases, or why one cannot be read.
    pub releases: Vec<(String, Result<Release, String>)>,
    /// Those that the releases need.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Those that the releases need.
    pub jobs: BTreeMap<String, Job>,
    /// Those that the releases would become.
    pub task_runs: BTreeMap<String, TaskRun>,
    /// The names of those of them that cannot be read.
    pub unreadable: BTreeSet<String>,
    /// The names of all Agents.
    pub agents: BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// What becomes of a release. Its texts have names from outside: print them by way of an [`Entry`](super::Entry).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub release: String,
    /// Its governing revision, if it can be read; so for all that follows.
    pub revision: Option<u32>,
    /// What Helm says of it.
    pub status: Option<Status>,
    /// What it was made of.
    pub chart: Option<Chart>,
    /// The service of its task.
    pub service_name: Option<String>,
    /// The name of its `TaskRun`.
    pub task_run: Option<String>,
    /// Its Job.
    pub job: Option<JobSeen>,
    /// How many files its task has.
    pub files: usize,
    /// What is to be done.
    pub verdict: Verdict,
    /// What people must know.
    pub notes: Vec<String>,
}

/// What is to be done with a release.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Make this; its `contextVersion` is admission's to say.
    Create(Box<TaskRun>),
    /// Nothing: what was made of it is there. It must be equal to this, but for what came later.
    Migrated(Box<TaskRun>),
    /// Nothing: it is not a task.
    OtherChart,
    /// Nothing, for this reason.
    Skip(String),
}

/// What becomes of each release, in the order of their names.
#[must_use]
pub fn judge(seen: &Seen, mapping: &Mapping, names: TaskNames) -> Vec<Row> {
    let judge = Judge { seen, mapping, names };
    let mut rows: Vec<Row> = seen.releases.iter().map(|(name, release)| judge.row(name, release)).collect();
    rows.sort_by(|a, b| a.release.cmp(&b.release));
    part_rivals(&mut rows);
    rows
}

struct Judge<'a> {
    seen: &'a Seen,
    mapping: &'a Mapping,
    names: TaskNames,
}

impl Judge<'_> {
    fn row(&self, name: &str, release: &Result<Release, String>) -> Row {
        let known = release.as_ref().ok();
        let mut row = Row {
            release: name.to_owned(),
            revision: known.map(|release| release.revision),
            status: known.map(|release| release.status.clone()),
            chart: known.map(|release| release.chart.clone()),
            service_name: None,
            task_run: None,
            job: None,
            files: 0,
            verdict: Verdict::OtherChart,
            notes: vec![],
        };
        match release {
            Err(error) => row.verdict = Verdict::Skip(error.clone()),
            Ok(release) if self.mapping.charts.contains(&release.chart.name) => {
                row.verdict = self.verdict(release, &mut row).unwrap_or_else(Verdict::Skip);
            }
            Ok(_) => {}
        }
        row
    }

    /// An error is why the release is left alone.
    fn verdict(&self, release: &Release, row: &mut Row) -> Result<Verdict, String> {
        if release.name != row.release || release.namespace != self.seen.namespace {
            return Err("holds a release of another name or namespace".to_owned());
        }
        match &release.status {
            Status::Uninstalling => return Err("is being uninstalled".to_owned()),
            Status::Uninstalled => return Err("is uninstalled, only its history is kept".to_owned()),
            Status::Other(_) => return Err("has a status that is not known".to_owned()),
            Status::Deployed | Status::Superseded | Status::Failed | Status::Pending(_) => {}
        }
        let job = self.job(release);
        row.job = job.as_ref().ok().cloned();
        let task = TaskValues::read(release, self.mapping)?;
        row.service_name = Some(task.service_name.clone());
        row.task_run = Some(self.names.task_run(&task.service_name, task.task_id.into()));
        row.notes.clone_from(&task.notes);
        let job = job?;
        if job.state == JobState::Gone && self.is_being_installed(release) {
            return Err("is being installed: run this again later".to_owned());
        }
        let files = self.files(&task, &mut row.notes)?;
        row.files = files.len();
        let verdict = self.settle(self.task_run(release, task, files, &job), &job)?;
        if let Verdict::Create(task_run) = &verdict {
            row.notes.extend(self.notes(task_run, &job));
        }
        Ok(verdict)
    }

    fn job(&self, release: &Release) -> Result<JobSeen, String> {
        let name = &job_of(release)?.name;
        let job = self.seen.jobs.get(name);
        let is_of_it = |job: &Job| {
            let says = |key: &str| job.metadata.annotations.as_ref().and_then(|all| all.get(key));
            // which only Helm sets; labels are anybody's
            says("meta.helm.sh/release-name") == Some(&release.name)
                && says("meta.helm.sh/release-namespace") == Some(&release.namespace)
        };
        match job {
            Some(job) if !is_of_it(job) => Err(format!("Job {name} is there, but not of this release")),
            Some(job) if job.metadata.deletion_timestamp.is_some() => {
                Err(format!("Job {name} is being deleted: run this again later"))
            }
            _ => Ok(JobSeen::new(name, job)),
        }
    }

    /// What is so now, and for the operator to tell once the `TaskRun` is there.
    fn notes(&self, task_run: &TaskRun, job: &JobSeen) -> Vec<String> {
        let agent = &task_run.spec.agent_name;
        let mut notes = vec![];
        match job.state {
            JobState::Gone => {
                notes.push("its Job is gone: how it ended, or whether it ever ran, is not known".to_owned());
            }
            JobState::Suspended => {
                notes.push(format!("Job {} is suspended: version 1 waits until you resume it", job.name));
            }
            JobState::Running | JobState::Succeeded | JobState::Failed => {}
        }
        if !self.seen.agents.contains(agent) {
            notes.push(format!(
                "Agent {agent:?} is not there: new context waits until it is, or the operator has a --default-agent"
            ));
        }
        notes
    }

    fn is_being_installed(&self, release: &Release) -> bool {
        let age = |time: Timestamp| self.seen.now.as_second().saturating_sub(time.as_second());
        matches!(release.status, Status::Pending(_)) && release.last_deployed.is_none_or(|time| age(time) < INSTALLING)
    }

    /// The markdown, byte for byte, in the order of the names.
    fn files(&self, task: &TaskValues, notes: &mut Vec<String>) -> Result<Vec<MarkdownFile>, String> {
        let name = &task.config_map;
        let missing = || format!("ConfigMap {name} is not there: its markdown is nowhere else");
        let config_map = self.seen.config_maps.get(name).ok_or_else(missing)?;
        let binary: Vec<&str> = config_map.binary_data.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        if !binary.is_empty() {
            return Err(format!("ConfigMap {name} has what is not text: {}", binary.join(", ")));
        }
        let mut files = vec![];
        for (key, content) in config_map.data.iter().flatten() {
            let filename = self.mapping.files.get(key).unwrap_or(key);
            if filename != key {
                notes.push(format!("file {key} becomes {filename}"));
            }
            files.push(MarkdownFile { filename: filename.clone(), content: content.clone(), request_id: None });
        }
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(files)
    }

    fn task_run(&self, release: &Release, task: TaskValues, files: Vec<MarkdownFile>, job: &JobSeen) -> TaskRun {
        let name = self.names.task_run(&task.service_name, task.task_id.into());
        let spec = TaskRunSpec {
            task_id: task.task_id,
            service_name: task.service_name,
            agent_name: task.agent_name,
            context_version: 1,
            markdown_files: files,
            env: task.env,
            ..TaskRunSpec::default()
        };
        let mut task_run = TaskRun::new(&name, spec);
        let adopts = job.uid.as_ref().map_or_else(|| job.name.clone(), |uid| format!("{}/{uid}", job.name));
        task_run.metadata.namespace = Some(self.seen.namespace.clone());
        task_run.metadata.annotations =
            Some(BTreeMap::from([(HELM_RELEASE.to_owned(), release.name.clone()), (ADOPTS.to_owned(), adopts)]));
        task_run
    }

    /// Against the rules, and against what is there.
    fn settle(&self, task_run: TaskRun, job: &JobSeen) -> Result<Verdict, String> {
        let name = task_run.metadata.name.clone().unwrap_or_default();
        if self.seen.unreadable.contains(&name) {
            return Err(format!("TaskRun {name} is there and does not fit its schema: mend or delete it"));
        }
        if let Some(live) = self.seen.task_runs.get(&name) {
            is_made_of(live, &task_run, job)?;
            return Ok(Verdict::Migrated(task_run.into()));
        }
        let violations = validate(&Subject::from(&task_run), None, self.names, json_bytes(&task_run));
        if violations.is_empty() {
            return Ok(Verdict::Create(task_run.into()));
        }
        let mut reasons: Vec<String> = violations.iter().map(ToString::to_string).collect();
        if violations.iter().any(|violation| violation.field.ends_with(".filename")) {
            reasons.push("the mapping can rename files, by files: {old: new.md}".to_owned());
        }
        Err(reasons.join("; "))
    }
}

/// Whether what is there was made of this release while this was its Job.
fn is_made_of(live: &TaskRun, expected: &TaskRun, job: &JobSeen) -> Result<(), String> {
    let name = expected.metadata.name.as_deref().unwrap_or_default();
    let annotation = |task_run: &TaskRun, key| task_run.metadata.annotations.as_ref()?.get(key).cloned();
    let adopted =
        annotation(live, ADOPTS).filter(|_| annotation(live, HELM_RELEASE) == annotation(expected, HELM_RELEASE));
    let Some(adopted) = adopted else {
        return Err(format!(
            "TaskRun {name} is there and was not made of this release: which of the two is the task, people must say"
        ));
    };
    let (job_name, uid) = adopted.split_once('/').map_or((&*adopted, None), |(name, uid)| (name, Some(uid)));
    // gone since is no difference; there again is one
    if job_name != job.name || (job.uid.is_some() && job.uid.as_deref() != uid) {
        return Err(format!(
            "was installed again after TaskRun {name} was made of it: its Job is another one now; give it new context there instead"
        ));
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Err(format!("TaskRun {name} was made of it and is being deleted"));
    }
    Ok(())
}

/// Of several releases that say to be one `TaskRun` none is made: which one is meant, people must say.
fn part_rivals(rows: &mut [Row]) {
    let mut claims: BTreeMap<String, Vec<(String, Option<String>)>> = BTreeMap::new();
    for row in &*rows {
        if let Some(name) = &row.task_run {
            claims.entry(name.clone()).or_default().push((row.release.clone(), row.service_name.clone()));
        }
    }
    for row in rows {
        let Some(rivals) = row.task_run.as_ref().and_then(|name| claims.get(name)).filter(|all| all.len() > 1) else {
            continue;
        };
        let others: Vec<&str> =
            rivals.iter().map(|(release, _)| release.as_str()).filter(|name| *name != row.release).collect();
        let is_of_others = rivals.iter().any(|(_, service)| *service != row.service_name);
        let remedy = match is_of_others {
            true => "services that number their tasks apart need --task-names=by-service",
            false => "remove those that are not meant once their Jobs have ended, since `helm uninstall` deletes a Job",
        };
        let reason = format!("is the same task as {}: {remedy}", others.join(", "));
        match &mut row.verdict {
            Verdict::Create(_) => row.verdict = Verdict::Skip(reason),
            Verdict::Skip(first) => *first = format!("{first}; {reason}"),
            Verdict::Migrated(_) | Verdict::OtherChart => {}
        }
    }
}
