//! `taskrun-operator check`: whether the API server asks the webhook, and goes by what it says.

use crate::client::ApiServer;
use crate::crd::TaskNames;
use crate::telemetry;
use clap::Args;
use serde_json::{Value, json};
use std::error::Error;

/// The last that a task may have, so that none is likely to be in the way.
const TASK_ID: u32 = u32::MAX;
const SERVICE: &str = "check";
const SWITCHED_OFF: &str = "is the webhook switched off, or do its configurations not say `failurePolicy: Fail`?";

#[derive(Args)]
pub struct CheckArgs {
    /// Namespace for the TaskRuns that are tried; none is stored
    #[arg(long, short, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,

    /// How TaskRuns are named, as with `run`
    #[arg(long, value_enum, default_value_t, env = "TASKRUN_TASK_NAMES")]
    task_names: TaskNames,
}

/// Tries a TaskRun without a version, which has to get one, and one without content, which has to be refused.
#[tokio::main(flavor = "current_thread")]
pub async fn run(args: &CheckArgs) -> Result<(), Box<dyn Error>> {
    telemetry::init("error");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (api_server, _) = ApiServer::connect_in(None).await?;
    let names = args.task_names;
    match api_server.try_task_run(&args.namespace, &task_run(names, "Is anybody there?")).await? {
        Ok(stored) if stored.data["spec"]["contextVersion"] == 1 => println!("a TaskRun gets its version"),
        Ok(_) => return Err(format!("a TaskRun without a version did not get version 1: {SWITCHED_OFF}").into()),
        Err(message) => return Err(format!("a TaskRun in which nothing is wrong was refused: {message}").into()),
    }
    match api_server.try_task_run(&args.namespace, &task_run(names, "<!-- nothing -->")).await? {
        Err(message) if message.contains("spec.markdownFiles[0].content") => println!("one without content is refused"),
        Err(message) => {
            return Err(format!("a TaskRun without content was refused for another reason: {message}").into());
        }
        Ok(_) => return Err(format!("a TaskRun without content was taken: {SWITCHED_OFF}").into()),
    }
    Ok(())
}

fn task_run(names: TaskNames, content: &str) -> Value {
    json!({
        "apiVersion": "orchestrator.io/v1",
        "kind": "TaskRun",
        "metadata": {"name": names.task_run(SERVICE, TASK_ID.into())},
        "spec": {
            "taskId": TASK_ID,
            "serviceName": SERVICE,
            "agentName": SERVICE,
            "markdownFiles": [{"filename": "task.md", "content": content}],
        },
    })
}
