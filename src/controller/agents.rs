//! The Agent's `Valid` condition: each generation is tried once, as a dry run.

use super::cache::unquoted;
use super::{BACKOFF, PAGE_SIZE};
use crate::client::{ApiServer, Error, WATCH_SECONDS};
use crate::clock::now;
use crate::crd::{Agent, AgentStatus};
use crate::leader::Leadership;
use crate::plan::{build_trial_job, is_judged, judge_agent};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use std::future::Future;
use std::sync::Arc;

/// Dry runs at the same time.
const CONCURRENCY: u16 = 4;

/// Tries the Agents of a namespace, or of all, until `shutdown` resolves.
pub async fn run(
    api_server: ApiServer,
    namespace: Option<&str>,
    leadership: Leadership,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let watch = watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_SECONDS);
    // as it came: what cannot be read has a status all the same
    let (api, resource) = api_server.dynamic_api::<Agent>(namespace);
    Controller::new_with(api, watch, resource)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, Arc::new((api_server, leadership)))
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(agent: Arc<DynamicObject>, ctx: Arc<(ApiServer, Leadership)>) -> Result<Action, Error> {
    let (api_server, leadership) = &*ctx;
    if !leadership.acquired().await {
        return Ok(Action::await_change());
    }
    let status = serde_json::from_value::<AgentStatus>(agent.data["status"].clone()).ok();
    if is_judged(&agent.metadata, status.as_ref()) {
        return Ok(Action::await_change());
    }
    let namespace = agent.namespace().unwrap_or_default();
    let verdict = match read(&agent).and_then(|agent| build_trial_job(&agent)) {
        Ok(job) => api_server.try_job(&namespace, &job).await?,
        Err(message) => Err(message),
    };
    if let Some(patch) = judge_agent(&agent.metadata, status.as_ref(), &verdict, now()) {
        match api_server.patch_agent_status(&namespace, &agent.name_any(), &patch).await {
            // a newer one comes by the watch
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Action::await_change())
}

fn read(agent: &DynamicObject) -> Result<Agent, String> {
    let spec = serde_json::from_value(agent.data["spec"].clone());
    let spec = spec.map_err(|error| format!("cannot be read: {}", unquoted(&error.to_string())))?;
    Ok(Agent { metadata: agent.metadata.clone(), ..Agent::new("", spec) })
}

#[expect(clippy::needless_pass_by_value, reason = "kube calls it so")]
fn error_policy(agent: Arc<DynamicObject>, error: &Error, _: Arc<(ApiServer, Leadership)>) -> Action {
    tracing::warn!(%error, agent = agent.name_any(), namespace = agent.namespace(), "failed to try an Agent");
    Action::requeue(BACKOFF.1)
}
