//! What became of each version of a task, and whether anything is still to come.

use crate::crd::{CHANGED_BY, Phase, RunStatus, TaskRun};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

/// One version and its run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Version {
    /// Its number.
    pub number: u32,
    /// How its run ended or, until then, its phase; `Ending` while a newer version waits for its pod to end.
    pub state: &'static str,
    /// Its run as the operator recorded it.
    pub run: RunStatus,
}

/// The versions that the operator has recorded, and the present one, oldest first.
#[must_use]
pub fn versions(task_run: &TaskRun) -> Vec<Version> {
    let status = task_run.status.clone().unwrap_or_default();
    let present = task_run.spec.context_version;
    let judged = status.context_version;
    let phase = |version: u32| status.phase.filter(|_| judged == Some(version)).unwrap_or(Phase::Pending);
    let state = |run: &RunStatus| match run.outcome {
        Some(outcome) => outcome.as_str(),
        None if run.context_version < present && judged == Some(present) => "Ending",
        None => phase(run.context_version).as_str(),
    };
    let recorded =
        status.runs.iter().map(|run| Version { number: run.context_version, state: state(run), run: run.clone() });
    let mut versions: Vec<Version> = recorded.collect();
    if task_run.present_run().is_none() {
        let annotations = task_run.metadata.annotations.as_ref();
        let run = RunStatus {
            context_version: present,
            changed_by: annotations.and_then(|annotations| annotations.get(CHANGED_BY)).cloned(),
            message: status.message.clone().filter(|_| judged == Some(present)),
            ..RunStatus::default()
        };
        versions.push(Version { number: present, state: phase(present).as_str(), run });
    }
    versions
}

impl Version {
    /// Seconds that its run took, until now if it goes on.
    #[must_use]
    pub fn seconds(&self, now: &Time) -> Option<i64> {
        let end = self.run.completion_time.as_ref().unwrap_or(now);
        let start = self.run.start_time.as_ref()?;
        Some((end.0.as_second() - start.0.as_second()).max(0))
    }
}

/// Whether no pod will come any more: of this version or, without one, as things are. Of a TaskRun as JSON.
#[must_use]
pub fn is_at_rest(task_run: &Value, version: Option<u32>) -> bool {
    let (spec, status) = (&task_run["spec"], &task_run["status"]);
    let has_ended = ["Succeeded", "Failed"].iter().any(|phase| status["phase"] == *phase);
    let Some(version) = version else {
        return has_ended && status["contextVersion"] == spec["contextVersion"];
    };
    let mut runs = status["runs"].as_array().into_iter().flatten();
    (has_ended && status["contextVersion"] == version)
        || runs.any(|run| run["contextVersion"] == version && run["outcome"].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task_run(version: u32, status: &Value) -> TaskRun {
        let spec = json!({"taskId": 1, "serviceName": "auth", "agentName": "a", "contextVersion": version});
        let metadata = json!({"name": "task-1", "annotations": {"orchestrator.io/context-changed-by": "eve"}});
        let object = json!({"apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "metadata": metadata,
            "spec": spec, "status": status});
        serde_json::from_value(object).expect("a TaskRun")
    }

    fn states(version: u32, status: &Value) -> Vec<(u32, &'static str)> {
        versions(&task_run(version, status)).iter().map(|version| (version.number, version.state)).collect()
    }

    #[test]
    fn each_version_has_its_outcome_or_its_phase() {
        assert_eq!(states(1, &json!({})), [(1, "Pending")]);
        let runs = json!([{"contextVersion": 1, "outcome": "Superseded"}, {"contextVersion": 2}]);
        assert_eq!(
            states(2, &json!({"phase": "Running", "contextVersion": 2, "runs": runs})),
            [(1, "Superseded"), (2, "Running")]
        );
        // nobody has looked at version 3 yet, then its predecessor's pod ends
        assert_eq!(
            states(3, &json!({"phase": "Running", "contextVersion": 2, "runs": runs})),
            [(1, "Superseded"), (2, "Running"), (3, "Pending")]
        );
        let waiting = json!({"phase": "Pending", "contextVersion": 3, "message": "waiting", "runs": runs});
        assert_eq!(states(3, &waiting), [(1, "Superseded"), (2, "Ending"), (3, "Pending")]);
        let last = versions(&task_run(3, &waiting)).pop().expect("one");
        assert_eq!((last.run.message.as_deref(), last.run.changed_by.as_deref()), (Some("waiting"), Some("eve")));
    }

    #[test]
    fn a_run_takes_until_its_end_or_until_now() {
        let time = |text: &str| Time(text.parse().expect("a time"));
        let start = time("2026-01-01T00:00:10Z");
        let mut version = Version::default();
        assert_eq!(version.seconds(&start), None);
        version.run.start_time = Some(start);
        assert_eq!(version.seconds(&time("2026-01-01T00:00:15Z")), Some(5));
        // clocks differ
        assert_eq!(version.seconds(&time("2026-01-01T00:00:05Z")), Some(0));
        version.run.completion_time = Some(time("2026-01-01T00:01:10Z"));
        assert_eq!(version.seconds(&time("2026-01-02T00:00:00Z")), Some(60));
    }

    #[test]
    fn rest_is_the_end_of_the_newest_version() {
        let object = |version: u32, phase: &str, of: u32| {
            json!({"spec": {"contextVersion": version}, "status":
            {"phase": phase, "contextVersion": of, "runs": [{"contextVersion": 1, "outcome": "Superseded"}]}})
        };
        assert!(is_at_rest(&object(2, "Failed", 2), None));
        assert!(!is_at_rest(&object(3, "Failed", 2), None) && !is_at_rest(&object(2, "Running", 2), None));
        assert!(is_at_rest(&object(3, "Running", 3), Some(1)) && !is_at_rest(&object(3, "Running", 3), Some(3)));
    }
}
