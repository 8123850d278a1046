//! Events, told aside: nobody waits for one, and in a burst the runs go first, since each takes its turn in one line with the
//! reconciles that start and end them.

use super::turns::Turns;
use crate::client::ApiServer;
use crate::crd::TaskRun;
use crate::plan::Notice;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::mpsc::{Sender, channel};

/// Most that wait. What comes then is only logged.
const MOST: usize = 10_000;

/// What is to be told, in its order.
pub struct Notices(Sender<(ObjectReference, Notice)>);

impl Notices {
    /// Tells of them, each in its turn, until this is dropped.
    pub fn new(api_server: ApiServer, turns: Turns) -> Self {
        let (tell, mut told) = channel(MOST);
        tokio::spawn(async move {
            while let Some((regarding, notice)) = told.recv().await {
                // none is given any more where the reconciler ends
                let _turn = turns.wait().await;
                api_server.publish(&regarding, &notice).await;
            }
        });
        Self(tell)
    }

    /// Tells of this, after all that was told before.
    pub fn tell(&self, task_run: &TaskRun, notice: &Notice) {
        let regarding = task_run.object_ref(&());
        let (reason, job) = (&notice.reason, &notice.job);
        tracing::info!(task_run = regarding.name, namespace = regarding.namespace, job, reason, "task run");
        if self.0.try_send((regarding, notice.clone())).is_err() {
            tracing::warn!(reason, "failed to publish an event: too many wait");
        }
    }
}
