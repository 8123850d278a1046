//! What a run's pods say: how many have started, what the last one's words were, why one is stuck.

use super::liveness::has_started;
use crate::crd::{RunStatus, reason};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// Most pods that are gone and that a run remembers having counted.
const MAX_POD_UIDS: usize = 32;

/// Adds the pods that have started since, told apart by uid: the Job's own counters forget some.
pub(super) fn count_attempts(run: &RunStatus, pods: &[&Pod]) -> RunStatus {
    let uids = pods.iter().filter(|pod| has_started(pod)).filter_map(|pod| pod.uid());
    let new: Vec<String> = uids.filter(|uid| !run.pod_uids.contains(uid)).collect();
    if new.is_empty() {
        return run.clone();
    }
    let attempts = run.attempts.unwrap_or(0) + u32::try_from(new.len()).unwrap_or(u32::MAX);
    // one that is still there must be remembered, or it would be counted again
    let is_there = |uid: &String| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid));
    let (there, mut gone): (Vec<_>, Vec<_>) = [run.pod_uids.clone(), new].concat().into_iter().partition(is_there);
    gone.drain(..gone.len().saturating_sub(MAX_POD_UIDS));
    let pod_uids = [gone, there].concat();
    RunStatus { attempts: Some(attempts), pod_uids, ..run.clone() }
}

/// What the containers of the last pod said at their end.
pub(super) fn last_word(pods: &[&Pod]) -> Option<String> {
    let last = pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0))?;
    let words: Vec<String> = container_statuses(last)
        .filter_map(|status| {
            let ended = status.state.as_ref()?.terminated.as_ref()?;
            let text = ended.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
            match (ended.exit_code, text) {
                (0, None) => None,
                (0, Some(text)) => Some(text.to_owned()),
                (code, text) => Some(format!(
                    "container {} ended with exit code {code}{}{}",
                    status.name,
                    // such as OOMKilled; the kubelet's "Error" tells no more than the code
                    ended
                        .reason
                        .as_deref()
                        .filter(|why| *why != "Error")
                        .map(|why| format!(" ({why})"))
                        .unwrap_or_default(),
                    text.map(|text| format!(": {text}")).unwrap_or_default()
                )),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Why a pod does not start, where it will not by itself.
pub(super) fn stuck(pod: &Pod) -> Option<(String, String)> {
    const HOPELESS: [&str; 6] = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    let waiting = container_statuses(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| HOPELESS.contains(&reason.as_str()))?;
        // the two alternate every few seconds: one word, or the status would be written each time
        let reason = if reason == "ErrImagePull" { "ImagePullBackOff".to_owned() } else { reason };
        let message = format!("container {} of pod {} does not start: {reason}", status.name, pod.name_any());
        Some((reason, message))
    });
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unscheduled =
        conditions.iter().find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some(reason::UNSCHEDULABLE));
    waiting.or_else(|| {
        // the scheduler's own message counts nodes: it would change the status with each of them
        let message = unscheduled?.message.as_deref().unwrap_or_default().to_lowercase();
        let (reason, why) = match message.contains("persistentvolumeclaim") {
            true => (reason::UNBOUND_CLAIM, "its volume claim is not bound"),
            false => (reason::UNSCHEDULABLE, "no node takes it"),
        };
        Some((reason.to_owned(), format!("pod {} does not start: {why}, see its events", pod.name_any())))
    })
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
}
