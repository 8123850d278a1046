//! What people do to a task while things go wrong. A scenario is a name here and a few lines in [`play`].

use crate::proxy::Proxy;
use crate::support::{markdown, task_run};
use crate::witness::{PATIENCE, Room, is_alive, label};
use crate::{Bench, witness};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const SCENARIOS: [&str; 9] = [
    "first-run",
    "context-during-run",
    "context-after-completion",
    "burst-of-contexts",
    "delete-during-run",
    "delete-and-recreate",
    "suspend-and-resume",
    "cancel-during-run",
    "job-deleted-during-run",
];

/// Plays a scenario to its end. A run goes on until it is finished here, so that its outcome is the same however long
/// a fault lasts.
pub async fn play(scenario: &str, task: &mut Task<'_>) -> Result<(), String> {
    if scenario == "context-after-completion" {
        task.policy = json!("AfterCompletion");
    }
    task.create().await?;
    match scenario {
        "first-run" => task.finish(1).await,
        "context-during-run" => {
            task.running(1).await?;
            task.change(2).await?;
            task.finish(2).await
        }
        "context-after-completion" => {
            task.running(1).await?;
            task.change(2).await?;
            task.end(1).await?;
            task.finish(2).await
        }
        "burst-of-contexts" => {
            task.running(1).await?;
            for version in 2..=6 {
                task.change(version).await?;
            }
            task.finish(6).await
        }
        "delete-during-run" => {
            task.running(1).await?;
            task.delete().await?;
            task.gone().await
        }
        "delete-and-recreate" => {
            task.running(1).await?;
            task.delete().await?;
            task.create().await?;
            task.finish(1).await
        }
        "suspend-and-resume" => {
            task.running(1).await?;
            task.suspend(true).await?;
            task.wait("suspended", |task| condition(task, "Suspended")).await?;
            task.suspend(false).await?;
            task.finish(1).await
        }
        "cancel-during-run" => {
            task.running(1).await?;
            task.merge(json!({"spec": {"cancel": true}})).await?;
            task.phase(1, "Failed").await
        }
        "job-deleted-during-run" => {
            task.running(1).await?;
            task.delete_job("svc-1-v1").await?;
            task.phase(1, "Failed").await
        }
        other => Err(format!("there is no scenario {other}")),
    }
}

fn condition(task_run: &Value, type_: &str) -> bool {
    let conditions = task_run["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// Whether it is this version's, and is not being ended.
fn is_of(pod: &Value, version: u64) -> bool {
    *label(pod, "context-version") == json!(version.to_string()) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The one task of a namespace, as its user sees it.
pub struct Task<'a> {
    witness: &'a witness::Witness,
    proxy: &'a Proxy,
    namespace: &'a str,
    api: Api<DynamicObject>,
    jobs: Api<Job>,
    pods: Api<Pod>,
    uid: String,
    policy: Value,
}

impl<'a> Task<'a> {
    pub fn new(bench: &'a Bench, proxy: &'a Proxy, namespace: &'a str) -> Self {
        let resource = crate::support::task_run_resource();
        Self {
            witness: &bench.witness,
            proxy,
            namespace,
            api: Api::namespaced_with(bench.admin.clone(), namespace, &resource),
            jobs: Api::namespaced(bench.admin.clone(), namespace),
            pods: Api::namespaced(bench.admin.clone(), namespace),
            uid: String::new(),
            policy: json!("Restart"),
        }
    }

    /// Creates it, as soon as one that is being deleted has gone.
    async fn create(&mut self) -> Result<(), String> {
        let mut manifest = task_run(1, &[("task.md", "do it")]);
        // the webhook is not there to say it
        manifest["spec"]["contextVersion"] = json!(1);
        manifest["spec"]["contextUpdatePolicy"] = self.policy.clone();
        let object = serde_json::from_value(manifest).expect("an object");
        let started = Instant::now();
        loop {
            match self.api.create(&PostParams::default(), &object).await {
                Ok(created) => {
                    self.uid = created.metadata.uid.unwrap_or_default();
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(format!("not created: {error}")),
            }
        }
    }

    async fn change(&self, version: u64) -> Result<(), String> {
        let files = markdown(&[("task.md", &format!("do it, {version}"))]);
        self.merge(json!({"spec": {"contextVersion": version, "markdownFiles": files}})).await
    }

    async fn suspend(&self, suspend: bool) -> Result<(), String> {
        self.merge(json!({"spec": {"suspend": suspend}})).await
    }

    async fn merge(&self, patch: Value) -> Result<(), String> {
        self.proxy.strike();
        let patched = self.api.patch("task-1", &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(|error| format!("not changed: {error}"))
    }

    async fn delete(&self) -> Result<(), String> {
        self.proxy.strike();
        let deleted = self.api.delete("task-1", &DeleteParams::background()).await;
        deleted.map(|_| ()).map_err(|error| format!("not deleted: {error}"))
    }

    /// Deletes a Job and its pods, as anybody may.
    async fn delete_job(&self, name: &str) -> Result<(), String> {
        self.proxy.strike();
        let deleted = self.jobs.delete(name, &DeleteParams::background()).await;
        deleted.map(|_| ()).map_err(|error| format!("not deleted: {error}"))
    }

    /// Waits until it is as it should be.
    async fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<(), String> {
        let is_ours = |task_run: &&Value| task_run["metadata"]["uid"] == self.uid.as_str();
        self.witness.wait(self.namespace, what, |room| room.task_run().filter(is_ours).is_some_and(&is_so)).await
    }

    /// Waits until the status says so and it is so.
    async fn running(&self, version: u64) -> Result<(), String> {
        self.phase(version, "Running").await?;
        let runs = |room: &Room| room.of("pods").any(|pod| is_of(pod, version) && pod["status"]["phase"] == "Running");
        self.witness.wait(self.namespace, "running", runs).await
    }

    async fn phase(&self, version: u64, phase: &str) -> Result<(), String> {
        let what = format!("{phase} at version {version}");
        let is_so = |task: &Value| task["status"]["contextVersion"] == version && task["status"]["phase"] == phase;
        self.wait(&what, is_so).await
    }

    /// Lets the run of this version succeed once it is running.
    async fn finish(&self, version: u64) -> Result<(), String> {
        self.running(version).await?;
        self.end(version).await?;
        self.phase(version, "Succeeded").await
    }

    /// Lets the pods of this version succeed.
    async fn end(&self, version: u64) -> Result<(), String> {
        let of_run = |room: &Room| -> Vec<String> {
            let pods = room.of("pods").filter(|pod| is_alive(pod) && is_of(pod, version));
            pods.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
        };
        for pod in self.witness.look(self.namespace, of_run) {
            let outcome = json!({"metadata": {"annotations": {"kwok.test/outcome": "succeeded"}}});
            let told = self.pods.patch(&pod, &PatchParams::default(), &Patch::Merge(outcome)).await;
            told.map_err(|error| format!("not finished: {error}"))?;
        }
        Ok(())
    }

    /// Waits until nothing is left of it.
    async fn gone(&self) -> Result<(), String> {
        let kinds = ["taskruns", "jobs", "pods", "configmaps"];
        let is_gone = |room: &Room| kinds.iter().all(|kind| room.of(kind).next().is_none());
        self.witness.wait(self.namespace, "gone", is_gone).await
    }
}
