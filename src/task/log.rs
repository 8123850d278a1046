//! Which pod's log is a task's.

use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;

/// Annotation: the container that people mean, as `kubectl logs` understands it.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A log to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogSource {
    /// Version of the run.
    pub version: u32,
    /// When the pod was made.
    created: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// The container, unless the caller names one.
    pub container: Option<String>,
}

/// The newest log, of one version or of any.
#[must_use]
pub fn latest_log(pods: &[Pod], version: Option<u32>) -> Option<LogSource> {
    sources(pods).filter(|source| version.is_none_or(|version| source.version == version)).max()
}

/// The oldest log that comes after this one and was not read.
#[must_use]
pub fn next_log(pods: &[Pod], version: Option<u32>, last: &LogSource, seen: &BTreeSet<String>) -> Option<LogSource> {
    let is_next = |source: &LogSource| {
        source > last && !seen.contains(&source.uid) && version.is_none_or(|version| source.version == version)
    };
    sources(pods).filter(is_next).min()
}

/// The pods whose container has started.
fn sources(pods: &[Pod]) -> impl Iterator<Item = LogSource> {
    pods.iter().filter_map(|pod| {
        let (metadata, status) = (&pod.metadata, pod.status.as_ref()?);
        let has_started = status.container_statuses.iter().flatten().any(|container| {
            let state = container.state.as_ref();
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        });
        let annotated = metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
        let first = || pod.spec.as_ref()?.containers.first().map(|container| container.name.clone());
        has_started.then_some(LogSource {
            version: metadata.labels.as_ref()?.get("context-version")?.parse().ok()?,
            created: metadata.creation_timestamp.as_ref()?.0.to_string(),
            pod: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            container: annotated.cloned().or_else(first),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(version: u32, number: u32, state: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "uid": format!("u{number}"),
                "labels": {"context-version": version.to_string()},
                "creationTimestamp": format!("2026-01-01T00:00:0{number}Z")},
            "spec": {"containers": [{"name": "agent"}, {"name": "sidecar"}]},
            "status": {"containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {state: {}}}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn the_newest_version_then_the_newest_pod_that_has_started() {
        let mut waiting = pod(3, 4, "running");
        waiting.status = Some(k8s_openapi::api::core::v1::PodStatus::default());
        let pods = [pod(2, 3, "running"), pod(1, 1, "running"), pod(2, 2, "running"), waiting];
        let latest = latest_log(&pods, None).expect("a log");
        assert_eq!((latest.pod.as_str(), latest.container.as_deref()), ("p3", Some("agent")));
        assert_eq!(latest_log(&pods, Some(1)).expect("a log").pod, "p1");
        assert_eq!(latest_log(&pods, Some(9)), None);
    }

    #[test]
    fn following_reads_each_log_once_and_in_order() {
        let pods = [pod(2, 3, "running"), pod(1, 1, "running"), pod(2, 2, "running")];
        let first = latest_log(&pods[1..2], None).expect("a log");
        let mut seen = BTreeSet::from([first.uid.clone()]);
        let second = next_log(&pods, None, &first, &seen).expect("a log");
        seen.insert(second.uid.clone());
        assert_eq!(second.pod, "p2");
        assert_eq!(next_log(&pods, None, &second, &seen).expect("a log").pod, "p3");
        assert_eq!(next_log(&pods, Some(1), &first, &seen), None);
    }
}
