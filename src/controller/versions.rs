//! When each context version came, for the metrics alone: no object says it, and a second's precision would not do.

use crate::crd::{ContextUpdatePolicy, Phase, TaskRun};
use kube::runtime::watcher::Event;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Versions that this process saw come, until they run, by the TaskRun's uid. A standby keeps them as well: it may lead
/// when they do.
#[derive(Default)]
pub struct Versions(Mutex<HashMap<String, Came>>);

struct Came {
    version: u32,
    at: Instant,
    has_job: bool,
}

/// What is new in a word of the watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// By how much the version was raised.
    pub raised: u32,
    /// The version runs, so long after it came.
    pub runs_after: Option<Duration>,
}

impl Versions {
    /// Takes note of a word of the watch: an object in it, and as it was in the cache before, if it was.
    pub fn note<K>(&self, event: &Event<K>, told: &TaskRun, known: Option<&TaskRun>) -> News {
        let (spec, mut came) = (&told.spec, self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let uid = told.metadata.uid.clone().unwrap_or_default();
        let known = known.filter(|known| known.metadata.uid == told.metadata.uid);
        let raised = known.map_or(0, |known| spec.context_version.saturating_sub(known.spec.context_version));
        let is_told_to_wait = spec.suspend == Some(true)
            || (known.is_some() && spec.context_update_policy == Some(ContextUpdatePolicy::AfterCompletion));
        match event {
            // in a list it may have been there for long
            Event::Apply(_) if (raised > 0 || known.is_none()) && !is_told_to_wait => {
                came.insert(uid, Came { version: spec.context_version, at: Instant::now(), has_job: false });
                return News { raised, runs_after: None };
            }
            // nor is it our time that it waits for somebody, or for a run to end
            Event::Apply(_) if raised == 0 && spec.suspend != Some(true) && !waits(told) => {}
            _ => drop(came.remove(&uid)),
        }
        let status = told.status.as_ref().filter(|status| status.context_version == Some(spec.context_version));
        let phase = status.and_then(|status| status.phase).unwrap_or(Phase::Pending);
        let ran = came.get(&uid).filter(|_| phase != Phase::Pending).map(|came| came.at.elapsed());
        if ran.is_some() {
            came.remove(&uid);
        }
        News { raised, runs_after: ran.filter(|_| phase == Phase::Running) }
    }

    /// Forgets all: a list begins, which does not say what is gone, nor since when the rest is there.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The Job of this version is created. Returns how long after it came.
    pub fn has_job(&self, task_run: &TaskRun) -> Option<Duration> {
        let mut came = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let came = came.get_mut(task_run.metadata.uid.as_ref()?)?;
        let is_first = came.version == task_run.spec.context_version && !std::mem::replace(&mut came.has_job, true);
        is_first.then(|| came.at.elapsed())
    }
}

fn waits(task_run: &TaskRun) -> bool {
    task_run.is_stalled() || task_run.run_waited_for().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn task_run(version: u32, more: &Value, phase: Option<&str>) -> TaskRun {
        let mut object = json!({
            "apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "metadata": {"name": "task-1", "uid": "a"},
            "spec": {"taskId": 1, "serviceName": "svc", "agentName": "agent",
                     "contextVersion": version, "markdownFiles": []},
            "status": {"contextVersion": version, "phase": phase},
        });
        let fields = more.as_object().expect("fields").clone();
        object["spec"].as_object_mut().expect("a spec").extend(fields);
        serde_json::from_value(object).expect("a TaskRun")
    }

    fn version(version: u32) -> TaskRun {
        task_run(version, &json!({}), None)
    }

    #[test]
    fn a_version_is_followed_from_its_coming_to_its_job_and_to_its_run() {
        let versions = Versions::default();
        let nothing_new = || News::default();
        assert_eq!(versions.note(&Event::Apply(()), &version(1), None), nothing_new(), "a creation raises nothing");
        assert!(versions.has_job(&version(1)).is_some());
        assert_eq!(versions.has_job(&version(1)), None, "once");
        let running = task_run(1, &json!({}), Some("Running"));
        let news = versions.note(&Event::Apply(()), &running, Some(&version(1)));
        assert!(news.runs_after.is_some() && news.raised == 0, "{news:?}");
        assert_eq!(versions.note(&Event::Apply(()), &running, Some(&running)), nothing_new(), "once");
        assert_eq!(versions.note(&Event::Apply(()), &version(4), Some(&running)).raised, 3);
        assert_eq!(versions.has_job(&version(3)), None, "of a version that is not the newest");
        versions.note(&Event::Delete(()), &version(4), Some(&version(4)));
        assert!(versions.0.lock().expect("no panic").is_empty(), "forgotten");
    }

    #[test]
    fn what_came_unseen_or_waits_as_it_was_told_is_counted_and_not_timed() {
        let versions = Versions::default();
        versions.note(&Event::InitApply(()), &version(1), None);
        assert_eq!(versions.has_job(&version(1)), None, "in the first list");
        assert_eq!(versions.note(&Event::InitApply(()), &version(3), Some(&version(1))).raised, 2, "in a later one");
        assert_eq!(versions.has_job(&version(3)), None);
        for told in [json!({"suspend": true}), json!({"contextUpdatePolicy": "AfterCompletion"})] {
            let waits = task_run(2, &told, None);
            assert_eq!(versions.note(&Event::Apply(()), &waits, Some(&version(1))).raised, 1);
            assert_eq!(versions.has_job(&waits), None, "{told}");
        }
        versions.note(&Event::Apply(()), &version(1), None);
        versions.note(&Event::Apply(()), &task_run(1, &json!({"suspend": true}), None), Some(&version(1)));
        assert_eq!(versions.has_job(&version(1)), None, "suspended before it had one");
        let mut stalled = version(1);
        let condition = json!({"type": "Stalled", "status": "True", "reason": "AgentNotFound", "message": "",
                               "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"contextVersion": 1, "phase": "Pending", "conditions": [condition], "runs": []});
        stalled.status = serde_json::from_value(status).expect("a status");
        versions.note(&Event::Apply(()), &version(1), None);
        versions.note(&Event::Apply(()), &stalled, Some(&version(1)));
        assert_eq!(versions.has_job(&version(1)), None, "somebody had to act first");
        let other = TaskRun { metadata: kube::core::ObjectMeta::default(), ..version(1) };
        assert_eq!(
            versions.note(&Event::Apply(()), &version(2), Some(&other)).raised,
            0,
            "a former object of its name"
        );
        let done = task_run(2, &json!({}), Some("Succeeded"));
        assert_eq!(
            versions.note(&Event::Apply(()), &done, Some(&version(2))).runs_after,
            None,
            "when it ran is not known"
        );
    }
}
