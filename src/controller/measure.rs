//! What the metrics are told of the reconciler's work. It decides nothing.

use super::cache::Kept;
use super::{Context, Error};
use crate::crd::{Outcome, RunStatus, TaskRun};
use crate::metrics::{Failure, Seen};
use crate::plan::{Next, Step};
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

impl Context {
    /// A word of the watch of TaskRuns, before the cache has it.
    pub fn hear(&self, event: &Result<Event<Kept>, watcher::Error>) {
        if let Ok(Event::Init) = event {
            self.versions.clear();
        }
        let Ok(event @ (Event::Apply(told) | Event::InitApply(told) | Event::Delete(told))) = event else { return };
        let Ok(task_run) = told.unpack() else { return };
        let known = self.caches.task_runs.get(&ObjectRef::from_obj(told)).and_then(|known| known.unpack().ok());
        let news = self.versions.note(event, &task_run, known.as_ref());
        if self.leadership.may_act() {
            self.metrics.runs.bumped(news.raised);
            if let Some(after) = news.runs_after {
                self.metrics.runs.running(after);
            }
        }
    }

    /// A reconcile of this object is due.
    pub fn due(&self, object: &ObjectRef<Kept>) {
        self.queue.add(object.clone().erase(), Instant::now());
    }

    /// The same after this time.
    pub fn due_after(&self, object: ObjectRef<DynamicObject>, wait: Duration) {
        self.queue.add(object, Instant::now() + wait);
    }

    /// A reconcile of this object begins.
    pub fn begin(&self, object: &ObjectRef<DynamicObject>) {
        let now = Instant::now();
        let is_retry = self.failures.lock().unwrap_or_else(PoisonError::into_inner).contains_key(object);
        self.metrics.reconciler.began(self.queue.take(object).unwrap_or(now), is_retry);
    }

    /// It has ended.
    pub fn end(&self, object: ObjectRef<DynamicObject>, result: &Result<Next, Error>, took: Duration) {
        let failure = result.as_ref().err().map(Failure::from);
        self.metrics.reconciler.reconciled(failure.map_or(Ok(()), Err), took);
        match result {
            Ok(Next::Again) => self.due_after(object, Duration::ZERO),
            Ok(Next::After(wait)) => self.due_after(object, *wait),
            // what has failed is due as error_policy says
            Ok(Next::Wait) | Err(_) => {}
        }
    }

    /// A step was carried out for a TaskRun as it was observed.
    pub fn measure(&self, task_run: &TaskRun, step: &Step) {
        match step {
            Step::CreateJob(_) => {
                if let Some(after) = self.versions.has_job(task_run) {
                    self.metrics.runs.has_job(after);
                }
            }
            Step::PatchStatus(patch) => {
                for outcome in ended(task_run, patch) {
                    self.metrics.runs.ended(outcome);
                }
            }
            _ => {}
        }
    }

    /// What there is to be seen now.
    pub fn look(&self) -> Seen {
        let mut seen = Seen::waiting(self.queue.len());
        for task_run in self.caches.task_runs.state() {
            let gist = task_run.gist();
            seen.add(gist.map(|gist| gist.phase), gist.is_some_and(|gist| gist.is_stalled));
        }
        seen
    }
}

/// The outcomes that this patch is the first to write: it was made under the resourceVersion of what was observed.
fn ended(observed: &TaskRun, patch: &Value) -> Vec<Outcome> {
    let runs: Vec<RunStatus> = serde_json::from_value(patch["status"]["runs"].clone()).unwrap_or_default();
    let was_over = |run: &RunStatus| {
        let known = observed.status.as_ref().and_then(|status| status.run(run.context_version));
        known.is_some_and(|known| known.outcome.is_some())
    };
    runs.iter().filter(|run| !was_over(run)).filter_map(|run| run.outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{TaskRunSpec, TaskRunStatus};
    use serde_json::json;

    #[test]
    fn an_outcome_is_new_only_in_the_patch_that_writes_it_first() {
        let run = |version: u32, outcome: Option<Outcome>| RunStatus {
            context_version: version,
            outcome,
            ..RunStatus::default()
        };
        let observed = |runs: Vec<RunStatus>| {
            let status = Some(TaskRunStatus { runs, ..TaskRunStatus::default() });
            TaskRun { metadata: kube::core::ObjectMeta::default(), spec: TaskRunSpec::default(), status }
        };
        let patch = |runs: &[RunStatus]| json!({"status": {"runs": runs}});
        let (failed, goes_on) = (run(1, Some(Outcome::Failed)), run(2, None));
        let before = observed(vec![failed.clone(), goes_on.clone()]);
        let ends =
            patch(&[failed.clone(), run(2, Some(Outcome::Succeeded)), run(3, Some(Outcome::Superseded)), run(4, None)]);
        assert_eq!(ended(&before, &ends), [Outcome::Succeeded, Outcome::Superseded]);
        assert_eq!(ended(&before, &json!({"status": {"message": "is not about runs"}})), []);
        assert_eq!(ended(&before, &patch(&[failed, goes_on])), [], "the first was told before");
        let mut unobserved = before;
        unobserved.status = None;
        assert_eq!(ended(&unobserved, &patch(&[run(1, Some(Outcome::Cancelled))])), [Outcome::Cancelled]);
    }
}
