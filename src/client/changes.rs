//! Changes of tasks: each is decided on what was read, and sent on the condition that it is so still.

use super::tasks::{Tasks, call, no_answer, unavailable};
use crate::crd::TaskRun;
use crate::task::{self, Code, Error, Held, Submission};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long one change is tried, with all its conflicts and its place in the queue.
const PATIENCE: Duration = Duration::from_secs(50);
/// Longest wait between two attempts, in milliseconds; it begins at a fiftieth.
const MAX_WAIT: u64 = 1_000;
/// Answers that say nothing about the request, after which one is given up.
const MAX_FAILURES: usize = 3;

/// What context was added as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Name of the TaskRun.
    pub name: String,
    /// Its file.
    pub filename: String,
    /// The version that it brought.
    pub version: u32,
    /// Whether this request added it, and not an earlier one with the same id.
    pub created: bool,
    /// What holds the version, if anything does.
    pub held: Option<Held>,
}

/// What a request holds for: where it is otherwise, nothing is done.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Of the TaskRun: one that was deleted may have been created again under its name.
    pub uid: Option<String>,
    /// The present version.
    pub version: Option<u32>,
}

impl Expected {
    /// That all is as it was seen.
    fn of(seen: &TaskRun) -> Self {
        Self { uid: seen.metadata.uid.clone(), version: Some(seen.spec.context_version) }
    }

    /// # Errors
    /// `NotFound` if it is another TaskRun, `Conflict` if the version is another one.
    fn check(&self, task_run: &TaskRun) -> Result<(), Error> {
        if self.uid.is_some() && self.uid != task_run.metadata.uid {
            let name = task_run.name_any();
            return Err(Error::new(Code::NotFound, format!("the TaskRun is gone, and {name:?} is another one now")));
        }
        let present = task_run.spec.context_version;
        match self.version.filter(|version| *version != present) {
            Some(version) => {
                Err(Error::new(Code::Conflict, format!("the present version is {present}, not {version}")))
            }
            None => Ok(()),
        }
    }
}

impl Tasks {
    /// Creates a task, or finds that it is there already; says which.
    ///
    /// # Errors
    /// `AlreadyExists`, with all differences, where the task that is there is another one.
    pub async fn submit(&self, submission: &Submission) -> Result<(TaskRun, bool), Error> {
        let new = submission.task_run(self.names);
        let params = PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() };
        match call(self.api().create(&params, &new)).await {
            Ok(created) => return Ok((created, true)),
            Err(error) if error.code == Code::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let name = new.name_any();
        let exists = |why: &str| Error::new(Code::AlreadyExists, format!("TaskRun {name:?} exists already{why}"));
        let stored = match self.get(&name).await {
            Err(error) if error.code == Code::Forbidden => {
                return Err(exists(&format!(", and it cannot be compared: {}", error.message)));
            }
            other => other?,
        };
        if stored.metadata.deletion_timestamp.is_some() {
            return Err(exists(" and is being deleted: try again when it is gone"));
        }
        match submission.differences(&stored).join(", ") {
            none if none.is_empty() => Ok((stored, false)),
            found => Err(exists(&format!(" and is another one: {found}"))),
        }
    }

    /// Adds one file to a task's context, whatever others write meanwhile: it is appended, on the condition that the
    /// context is the one that was read. So it takes nobody's place, `context-v{N}.md` is what brought version N, and
    /// one request id adds one file, as often as it is repeated and through however many replicas.
    ///
    /// # Errors
    /// `TooLarge` if it does not fit, `Invalid` if the id was used with another text, `NotFound` if this is another TaskRun
    /// than the one with this uid.
    pub async fn add_context(
        &self,
        name: &str,
        text: &str,
        request_id: &str,
        uid: Option<&str>,
    ) -> Result<Added, Error> {
        let expected = Expected { uid: uid.map(str::to_owned), version: None };
        let place = self.queues.of(&self.namespace, name);
        let deadline = Instant::now() + PATIENCE;
        let Ok(_turn) = tokio::time::timeout_at(deadline, place.lock()).await else {
            return Err(busy());
        };
        let mut refused = None;
        let mut may_be_stored = false;
        retried(deadline, Error::is_passing, async || {
            let task_run = self.get(name).await?;
            expected.check(&task_run)?;
            let seen = (task_run.metadata.uid.clone(), task_run.spec.context_version);
            if let Some(file) = task::added_by(&task_run, request_id) {
                let is_same = file.content == text;
                let found = added(&task_run, file.filename.clone(), may_be_stored);
                return Ok(if is_same { Ok(found) } else { Err(reused()) });
            }
            if let Some((_, error)) = refused.take().filter(|(refused, _)| *refused == seen) {
                return Ok(Err(error));
            }
            match self.append(&task_run, text, request_id).await {
                // its condition did not hold, which nothing tells from other refusals: was it so?
                Err(error) if error.code == Code::Invalid && error.violations.is_empty() => {
                    let again = Error::new(Code::Conflict, "the context has changed");
                    refused = Some((seen, error));
                    Err(again)
                }
                Err(error) => {
                    may_be_stored |= error.code == Code::Unavailable;
                    Err(error)
                }
                Ok(added) => Ok(Ok(added)),
            }
        })
        .await
    }

    async fn append(&self, task_run: &TaskRun, text: &str, request_id: &str) -> Result<Added, Error> {
        let name = task_run.name_any();
        is_there(task_run)?;
        let room = task::room(task_run);
        if !room.fits(text) {
            return Err(Error::too_large(&name, text.len(), room.bytes_left()));
        }
        let (filename, version) = (task::next_filename(task_run), task_run.spec.context_version);
        let file = json!({"filename": filename, "content": text, "requestId": request_id});
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": task_run.metadata.uid},
            {"op": "test", "path": "/spec/contextVersion", "value": version},
            {"op": "add", "path": "/spec/markdownFiles/-", "value": file},
            // as the webhook would
            {"op": "replace", "path": "/spec/contextVersion", "value": version.saturating_add(1)},
        ]);
        let patch = serde_json::from_value(patch).map_err(|error| unavailable(&error))?;
        let stored = call(self.api().patch(&name, &self.manager(), &Patch::<()>::Json(patch))).await?;
        Ok(added(&stored, filename, true))
    }

    /// Suspends a task's runs, or resumes them.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn suspend(&self, name: &str, suspend: bool, expected: &Expected) -> Result<TaskRun, Error> {
        self.change(name, |task_run| {
            expected.check(task_run)?;
            let is_so = task_run.spec.suspend.unwrap_or_default() == suspend;
            Ok((!is_so).then(|| json!({"spec": {"suspend": suspend}})))
        })
        .await
    }

    /// Ends a task's present run for good. Nothing if that has ended: what is added later shall run.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn cancel(&self, name: &str, expected: &Expected) -> Result<TaskRun, Error> {
        self.change(name, |task_run| {
            expected.check(task_run)?;
            let has_ended = task_run.present_run().is_some_and(|run| run.outcome.is_some());
            let is_so = has_ended || task_run.spec.cancel == Some(true);
            Ok((!is_so).then(|| json!({"spec": {"cancel": true}})))
        })
        .await
    }

    /// Runs the present context once more, as the next version, also where it was cancelled.
    ///
    /// # Errors
    /// `Conflict` if the present version is not the one that the caller speaks of.
    pub async fn rerun(&self, name: &str, expected: &Expected) -> Result<TaskRun, Error> {
        // a change that comes in between makes a version by itself
        let expected = if expected.version.is_some() {
            expected.clone()
        } else {
            let seen = self.get(name).await?;
            expected.check(&seen)?;
            Expected::of(&seen)
        };
        self.change(name, |task_run| {
            expected.check(task_run)?;
            let next = task_run.spec.context_version.saturating_add(1);
            Ok(Some(json!({"spec": {"contextVersion": next, "cancel": null}})))
        })
        .await
    }

    /// Makes the files of an older version the present ones, as the next version, also where it was cancelled.
    /// Nothing where they are the present ones.
    ///
    /// # Errors
    /// `NotFound` if that version's files are not kept, `Conflict` if the context changes meanwhile.
    pub async fn rollback(&self, name: &str, version: u32, expected: &Expected) -> Result<TaskRun, Error> {
        let seen = self.get(name).await?;
        expected.check(&seen)?;
        let files = self.files(&seen, version).await?;
        let expected = Expected::of(&seen);
        self.change(name, |task_run| {
            expected.check(task_run)?;
            Ok(task::rollback(task_run, &files))
        })
        .await
    }

    /// Deletes a task: its pod ends first.
    ///
    /// # Errors
    /// See [`Code`].
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        call(self.api().delete(name, &DeleteParams::background())).await.map(|_| ())
    }

    fn manager(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() }
    }

    /// Patches metadata and spec with what is decided on the object as it is, if anything.
    async fn change(
        &self,
        name: &str,
        decide: impl Fn(&TaskRun) -> Result<Option<Value>, Error>,
    ) -> Result<TaskRun, Error> {
        // only what was certainly not carried out is tried again: a version more is a run more
        retried(
            Instant::now() + PATIENCE,
            |error| error.code == Code::Conflict,
            async || {
                let task_run = self.get(name).await?;
                is_there(&task_run)?;
                let mut patch = match decide(&task_run) {
                    Ok(Some(patch)) => patch,
                    Ok(None) => return Ok(Ok(task_run)),
                    Err(error) => return Ok(Err(error)),
                };
                patch["metadata"]["uid"] = json!(task_run.metadata.uid);
                patch["metadata"]["resourceVersion"] = json!(task_run.metadata.resource_version);
                call(self.api().patch(name, &self.manager(), &Patch::Merge(patch))).await.map(Ok)
            },
        )
        .await
    }
}

/// What is being deleted is as good as gone.
fn is_there(task_run: &TaskRun) -> Result<(), Error> {
    let gone = || Error::new(Code::NotFound, format!("TaskRun {:?} is being deleted", task_run.name_any()));
    if task_run.metadata.deletion_timestamp.is_some() { Err(gone()) } else { Ok(()) }
}

fn busy() -> Error {
    Error::new(Code::Unavailable, "too many are changing this task at once: try again")
}

fn reused() -> Error {
    Error::new(
        Code::Invalid,
        "the request id (Idempotency-Key) was used with another text: take a new one for each request",
    )
}

fn added(task_run: &TaskRun, filename: String, created: bool) -> Added {
    let version = task::version_of(&filename).unwrap_or(task_run.spec.context_version);
    let held = task::held(task_run);
    Added { name: task_run.name_any(), filename, version, created, held }
}

/// Tries again, with jitter and until the deadline, what failed on what was stored just then.
async fn retried<T>(
    deadline: Instant,
    is_worth_it: impl Fn(&Error) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<Result<T, Error>, Error>,
) -> Result<T, Error> {
    let (mut longest, mut failures) = (MAX_WAIT / 50, 0);
    loop {
        let error = match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(result)) => return result,
            Ok(Err(error)) => error,
            Err(_) => return Err(no_answer()),
        };
        failures += usize::from(error.code == Code::Unavailable);
        let wait = Duration::from_millis(fastrand::u64(longest / 2..=longest));
        if !is_worth_it(&error) || failures > MAX_FAILURES || Instant::now() + wait > deadline {
            // others were first each time: that says nothing against the request
            return Err(if error.code == Code::Conflict { busy() } else { error });
        }
        tokio::time::sleep(wait).await;
        longest = (longest * 2).min(MAX_WAIT);
    }
}
