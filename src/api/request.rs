//! What clients send: the predecessor's bodies as they are, and little more.
//!
//! A field that is not known is refused: dropped in silence it would be lost.

use crate::client::Expected;
use crate::crd::{EnvVar, MarkdownFile, Phase};
use crate::task::{PmTask, Submission, Subtask};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// A task to submit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTask {
    /// Number of the task.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, format = Int64)]
    id: u32,
    /// The service that it belongs to: a DNS-1123 label.
    #[schema(max_length = 40, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    service_name: String,
    /// Name of the Agent that works on it.
    #[schema(max_length = 253, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")]
    agent_name: String,
    /// The context.
    #[serde(default)]
    markdown_files: Vec<SubmittedFile>,
    /// Variables for the agent. No secrets: these belong to the Agent.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// A line for people.
    #[serde(default)]
    title: Option<String>,
    /// Without `markdown_files`, `task.md` is made of title, description, details, `test_strategy` and subtasks.
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    test_strategy: Option<String>,
    #[serde(default)]
    subtasks: Option<Vec<SubmittedSubtask>>,
    /// Not used.
    #[serde(default, rename = "priority")]
    #[schema(value_type = Option<String>)]
    _priority: Option<Value>,
    /// Not used: submit a task when it may run.
    #[serde(default, rename = "dependencies")]
    #[schema(value_type = Option<Vec<Value>>)]
    _dependencies: Option<Value>,
    /// Not used.
    #[serde(default, rename = "status")]
    #[schema(value_type = Option<String>)]
    _status: Option<Value>,
    /// The agent's `MODEL`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    model: Option<Value>,
    /// The agent's `REPOSITORY_URL`, `REPOSITORY_BRANCH` and `REPOSITORY_USER`. A token in it is not stored.
    #[serde(default)]
    repository: Option<Repository>,
    /// The agent's `WORKING_DIRECTORY`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    working_directory: Option<Value>,
    /// The agent's `AGENT_TOOLS`, as JSON where it is not a string; so are the others below.
    #[serde(default)]
    agent_tools: Option<Value>,
    #[serde(default)]
    prompt_modification: Option<Value>,
    #[serde(default)]
    prompt_mode: Option<Value>,
    #[serde(default)]
    local_tools: Option<Value>,
    #[serde(default)]
    remote_tools: Option<Value>,
    #[serde(default)]
    tool_config: Option<Value>,
}

/// One markdown file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmittedFile {
    /// Name, ending in `.md`.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.md$")]
    filename: String,
    /// The markdown.
    content: String,
    /// Not used: the name says it.
    #[serde(default, rename = "file_type")]
    #[schema(value_type = Option<String>)]
    _file_type: Option<Value>,
}

/// A part of a task.
#[derive(Deserialize, ToSchema)]
pub struct SubmittedSubtask {
    id: u32,
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    test_strategy: Option<String>,
}

/// Where the agent works.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default, alias = "githubUser")]
    github_user: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

impl SubmitTask {
    /// Whether it holds a secret, which is not stored.
    pub fn has_token(&self) -> bool {
        let is_secret = |url: &String| without_user(url) != *url;
        let holds =
            |repository: &Repository| repository.token.is_some() || repository.url.as_ref().is_some_and(is_secret);
        self.repository.as_ref().is_some_and(holds)
    }
}

impl From<SubmitTask> for Submission {
    fn from(task: SubmitTask) -> Self {
        let env = task.environment();
        let stored =
            |file: SubmittedFile| MarkdownFile { filename: file.filename, content: file.content, request_id: None };
        let mut files: Vec<MarkdownFile> = task.markdown_files.into_iter().map(stored).collect();
        let part = |part: SubmittedSubtask| Subtask {
            id: part.id,
            title: part.title,
            description: part.description.unwrap_or_default(),
            details: part.details.unwrap_or_default(),
            test_strategy: part.test_strategy.unwrap_or_default(),
        };
        let text = PmTask {
            id: task.id,
            title: task.title.unwrap_or_default(),
            description: task.description.unwrap_or_default(),
            details: task.details.unwrap_or_default(),
            test_strategy: task.test_strategy.unwrap_or_default(),
            subtasks: task.subtasks.unwrap_or_default().into_iter().map(part).collect(),
        };
        if files.is_empty() && !text.is_empty() {
            files.push(MarkdownFile { filename: "task.md".to_owned(), content: text.markdown(), request_id: None });
        }
        Self {
            task_id: task.id,
            service_name: task.service_name,
            agent_name: task.agent_name,
            title: text.title,
            files,
            env,
        }
    }
}

impl SubmitTask {
    fn environment(&self) -> Vec<EnvVar> {
        let repository = self.repository.as_ref();
        let of_repository = [
            ("REPOSITORY_URL", repository.and_then(|repository| repository.url.as_deref().map(without_user))),
            ("REPOSITORY_BRANCH", repository.and_then(|repository| repository.branch.clone())),
            ("REPOSITORY_USER", repository.and_then(|repository| repository.github_user.clone())),
        ];
        let of_task = [
            ("MODEL", &self.model),
            ("WORKING_DIRECTORY", &self.working_directory),
            ("AGENT_TOOLS", &self.agent_tools),
            ("PROMPT_MODIFICATION", &self.prompt_modification),
            ("PROMPT_MODE", &self.prompt_mode),
            ("LOCAL_TOOLS", &self.local_tools),
            ("REMOTE_TOOLS", &self.remote_tools),
            ("TOOL_CONFIG", &self.tool_config),
        ];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let of_task = of_task.map(|(name, value)| (name, value.as_ref().map(text)));
        let given =
            of_repository.into_iter().chain(of_task).filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let mut all: BTreeMap<String, String> = given.collect();
        all.extend(self.env.clone());
        all.into_iter().map(|(name, value)| EnvVar { name, value }).collect()
    }
}

/// A URL without `user:password@`, where tokens stand (RFC 3986, 3.2.1).
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Context to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddContext {
    /// The markdown of the new file.
    pub additional_context: String,
    /// The task that it is for: not one that was made since under its name.
    pub uid: Option<String>,
}

/// What must be so for anything to be done.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The version that must be the present one: a repeated request then runs nothing twice, and ends nothing newer.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, format = Int64)]
    context_version: Option<u32>,
    /// The task that it is for: not one that was made since under its name.
    uid: Option<String>,
}

impl From<Expect> for Expected {
    fn from(expect: Expect) -> Self {
        Self { uid: expect.uid, version: expect.context_version }
    }
}

/// Where to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The version whose files become the present ones.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, format = Int64)]
    pub context_version: u32,
    /// The version that must be the present one: a repeated request then leaves out nothing newer.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, format = Int64)]
    pub present_version: Option<u32>,
    /// The task that it is for: not one that was made since under its name.
    pub uid: Option<String>,
}

/// Which tasks.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListTasks {
    /// Only those of this service.
    #[param(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    pub service: Option<String>,
    /// Only those in this phase.
    #[param(inline)]
    pub phase: Option<Phase>,
    /// At most so many. Default: 100.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `continue` of the page before.
    #[serde(rename = "continue")]
    pub after: Option<String>,
}

/// Which log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadLog {
    /// Go on with the runs that come, until the task is at rest.
    #[serde(default)]
    pub follow: bool,
    /// Of this version; otherwise of the newest run.
    #[param(minimum = 1, maximum = 4_294_967_295_i64, format = Int64)]
    pub version: Option<u32>,
    /// Only so many last lines.
    #[param(minimum = 0, maximum = 1_000_000)]
    pub tail_lines: Option<u32>,
    /// The container, otherwise the pod's default one.
    #[param(max_length = 63)]
    pub container: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn a_url_is_stored_without_what_may_be_a_token() {
        for (url, stored) in [
            ("https://x:tok@git.test/a/b", "https://git.test/a/b"),
            ("https://tok@git.test:8443?a=b@c", "https://git.test:8443?a=b@c"),
            ("https://git.test/a@b", "https://git.test/a@b"),
            ("git@git.test:a/b.git", "git@git.test:a/b.git"),
            ("", ""),
        ] {
            assert_eq!(without_user(url), stored);
        }
    }
}
