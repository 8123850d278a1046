//! Whole objects on standard output, as kubectl prints them.

use super::error::Error;
use crate::crd::TaskRun;
use clap::ValueEnum;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// Forms of an object for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The object as JSON
    Json,
    /// The object as YAML
    Yaml,
    /// Only its name: taskrun.orchestrator.io/task-7
    Name,
}

/// Prints a sentence about a TaskRun or, if a form is asked for, the object instead.
pub fn print_changed(task_run: &TaskRun, sentence: &str, format: Option<Format>) -> Result<(), Error> {
    let mut task_run = task_run.clone();
    task_run.metadata.managed_fields = None;
    match format {
        None => Ok(writeln!(stdout(), "{} {sentence}", full_name(&task_run.name_any()))?),
        Some(Format::Name) => Ok(writeln!(stdout(), "{}", full_name(&task_run.name_any()))?),
        Some(Format::Json) => print_json(&task_run),
        Some(Format::Yaml) => print_yaml(&task_run),
    }
}

/// As kubectl names it.
pub fn full_name(name: &str) -> String {
    format!("taskrun.orchestrator.io/{name}")
}

/// Prints JSON, as a text that ends with its line.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(value)?;
    Ok(writeln!(stdout(), "{json}")?)
}

/// Prints YAML.
pub fn print_yaml(value: &impl Serialize) -> Result<(), Error> {
    let yaml = serde_saphyr::to_string(value).map_err(|error| Error::Input(format!("cannot be YAML: {error}")))?;
    Ok(write!(stdout(), "{yaml}")?)
}

/// Objects as a `v1` List.
pub fn list_of(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}
