//! The Agent's `Valid` condition: each generation is tried once, as a dry run.

use super::cache::{GuardedAgent, now};
use super::leader::Leadership;
use super::{BACKOFF, PAGE_SIZE, WATCH_SECONDS};
use crate::client::{ApiServer, Error};
use crate::plan::{build_trial_job, is_judged, judge_agent};
use futures::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
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
    Controller::new(api_server.api::<GuardedAgent>(namespace), watch)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, Arc::new((api_server, leadership)))
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(agent: Arc<GuardedAgent>, ctx: Arc<(ApiServer, Leadership)>) -> Result<Action, Error> {
    let (api_server, leadership) = &*ctx;
    if !leadership.acquired().await {
        return Ok(Action::await_change());
    }
    let namespace = agent.namespace().unwrap_or_default();
    let status = agent.0.as_ref().ok().and_then(|agent| agent.status.as_ref());
    if is_judged(agent.meta(), status) {
        return Ok(Action::await_change());
    }
    let verdict = match agent.0.as_ref().map(build_trial_job) {
        Ok(Ok(job)) => api_server.try_job(&namespace, &job).await?,
        Ok(Err(message)) => Err(message),
        Err(invalid) => Err(format!("cannot be read: {}", super::cache::unquoted(&invalid.error))),
    };
    if let Some(patch) = judge_agent(agent.meta(), status, &verdict, now()) {
        match api_server.patch_agent_status(&namespace, &agent.name_any(), &patch).await {
            // a newer one comes by the watch
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Action::await_change())
}

#[expect(clippy::needless_pass_by_value, reason = "kube calls it so")]
fn error_policy(agent: Arc<GuardedAgent>, error: &Error, _: Arc<(ApiServer, Leadership)>) -> Action {
    tracing::warn!(%error, agent = agent.name_any(), namespace = agent.namespace(), "failed to try an Agent");
    Action::requeue(BACKOFF.1)
}
