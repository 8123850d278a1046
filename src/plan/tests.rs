//! The run protocol, played in a small cluster in memory.

mod adopt;
mod agents;
mod deletion;
mod history;
mod laws;
mod objects;
mod operator;
mod scenarios;
mod standing;
mod waiting;
mod world;

use super::*;
use crate::crd::reason;
use crate::crd::{AgentSpec, ContextUpdatePolicy, MarkdownFile, Outcome, Phase, TaskRunSpec};
use k8s_openapi::api::batch::v1::JobTemplateSpec;
use serde_json::{Value, json};

/// A TaskRun as admission leaves it.
fn task_run() -> TaskRun {
    let spec = TaskRunSpec {
        task_id: 7,
        service_name: "auth".into(),
        agent_name: "coder".into(),
        context_version: 1,
        markdown_files: vec![MarkdownFile { filename: "task.md".into(), content: "# Do it".into(), request_id: None }],
        ..TaskRunSpec::default()
    };
    let mut task_run = TaskRun::new("task-7", spec);
    task_run.metadata.namespace = Some("default".into());
    task_run.metadata.generation = Some(1);
    task_run.metadata.finalizers = Some(vec![FINALIZER.into()]);
    task_run
}

/// An Agent whose Job tries twice.
fn agent() -> Agent {
    let template: JobTemplateSpec = serde_json::from_value(json!({
        "spec": {
            "backoffLimit": 1,
            "template": {"spec": {"containers": [{"name": "agent", "image": "agent:1"}]}},
        },
    }))
    .unwrap();
    Agent::new("coder", AgentSpec { job_template: template, context_mount_path: None, workspace: None })
}

/// The task's ConfigMaps, where its history is to be cut.
fn config_maps(task_run: &TaskRun, world: &world::World) -> Option<Vec<ObjectMeta>> {
    let is_due = task_run.present_run().is_some() && !task_run.surplus_runs().is_empty();
    is_due.then(|| world.config_maps.values().map(|config_map| config_map.metadata.clone()).collect())
}

/// All that there is, read at once.
fn observed(world: &world::World) -> Observed {
    let task_run = world.task_run.clone().unwrap();
    let name = task_run.present_job();
    Observed {
        job: world.jobs.get(&name).cloned(),
        adopted: task_run.adoption().and_then(|adoption| world.jobs.get(adoption.job).cloned()),
        other_jobs: world.jobs.values().filter(|job| job.name_any() != name).cloned().collect(),
        pods: world.pods.values().cloned().collect(),
        config_map: world
            .config_maps
            .get(&task_run.spec.run_id().to_string())
            .map(|config_map| config_map.metadata.clone()),
        config_maps: config_maps(&task_run, world),
        workload: world.workload.clone().filter(|_| is_suspended(&task_run)),
        agent: world.agent.clone().map(Ok),
        task_run,
        refused: None,
        names: TaskNames::ById,
        now: world.now(),
    }
}
