//! Where a chart's values say what a `TaskRun` needs. The default is the predecessor's own chart.

use crate::crd::is_env_name;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is read where, for a chart that was changed. A path is a value's keys with dots between; of several the first
/// that is set counts, and no other may say something else.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mapping {
    /// Names of the charts whose releases are tasks.
    pub charts: Vec<String>,
    /// Paths of the task's number.
    pub task_id: Vec<String>,
    /// Paths of its service.
    pub service_name: Vec<String>,
    /// Paths of its agent.
    pub agent_name: Vec<String>,
    /// The agent of a release that names none.
    pub agent_name_default: Option<String>,
    /// Paths of the attempt, which is 1 where there is none.
    pub attempt: Vec<String>,
    /// Paths of the name of the ConfigMap that holds the markdown.
    pub config_map: Vec<String>,
    /// Its name where no path says it: `{serviceName}`, `{taskId}` and `{attempt}` are filled in.
    pub config_map_default: String,
    /// Paths of the claim that the task's work lies in. Here several may differ: the first is meant.
    pub workspace_claim: Vec<String>,
    /// Paths below which there are secrets: they are named, never copied.
    pub secrets: Vec<String>,
    /// Variables for `spec.env`, each with its paths.
    pub env: BTreeMap<String, Vec<String>>,
    /// Files that get another name, such as `CLAUDE.md: instructions.md`.
    pub files: BTreeMap<String, String>,
}

impl Default for Mapping {
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
        Self {
            charts: paths(&["claude-code"]),
            task_id: paths(&["taskId", "job.taskId"]),
            service_name: paths(&["serviceName", "job.microservice"]),
            agent_name: paths(&["agentName"]),
            agent_name_default: None,
            attempt: paths(&["attempt"]),
            config_map: paths(&["taskConfigMapName"]),
            config_map_default: "{serviceName}-task-{taskId}-run-{attempt}-files".to_owned(),
            workspace_claim: paths(&["sharedWorkspace.existingClaim", "sharedWorkspace.claimName"]),
            secrets: paths(&["secrets"]),
            env: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }
}

impl Mapping {
    /// Reads a mapping; a field that is left out keeps its default. The error names the field.
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let mapping: Option<Self> = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        let mapping = mapping.unwrap_or_default();
        mapping.mistake().map_or(Ok(mapping), Err)
    }

    /// What cannot be meant.
    fn mistake(&self) -> Option<String> {
        let fields = [
            ("taskId", &self.task_id),
            ("serviceName", &self.service_name),
            ("agentName", &self.agent_name),
            ("attempt", &self.attempt),
            ("configMap", &self.config_map),
            ("workspaceClaim", &self.workspace_claim),
            ("secrets", &self.secrets),
        ];
        let env = self.env.iter().map(|(name, paths)| (format!("env.{name}"), paths));
        let all = fields.into_iter().map(|(field, paths)| (field.to_owned(), paths)).chain(env.clone());
        for (field, path) in all.flat_map(|(field, paths)| paths.iter().map(move |path| (field.clone(), path))) {
            if path.split('.').any(str::is_empty) {
                return Some(format!("{field}: {path:?} is not a path: keys with dots between"));
            }
        }
        for (field, path) in env.flat_map(|(field, paths)| paths.iter().map(move |path| (field.clone(), path))) {
            if let Some(secret) = self.secrets.iter().find(|secret| is_at_or_below(path, secret)) {
                return Some(format!("{field}: {path:?} lies in {secret:?}, which is never copied"));
            }
        }
        if let Some(name) = self.env.keys().find(|name| !is_env_name(name)) {
            return Some(format!("env: {name:?} is not a variable's name"));
        }
        let name = self.config_map_name("s", 1, "1");
        let is_odd = name.contains(['{', '}']);
        is_odd.then(|| "configMapDefault: only {serviceName}, {taskId} and {attempt} can be filled in".to_owned())
    }

    /// The ConfigMap of a task whose values name none.
    pub(super) fn config_map_name(&self, service_name: &str, task_id: u32, attempt: &str) -> String {
        let name = self.config_map_default.replace("{serviceName}", service_name);
        name.replace("{taskId}", &task_id.to_string()).replace("{attempt}", attempt)
    }
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The value at a path. What templates take for empty counts as not set: nothing, null and "".
pub(super) fn at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    let value = path.split('.').try_fold(values, |value, key| value.get(key))?;
    (!value.is_null() && value != "").then_some(value)
}

/// What the paths of a field say, with the first that does. No error tells a value.
pub(super) fn read<'a>(values: &Value, paths: &'a [String]) -> Result<Option<(&'a str, String)>, String> {
    let mut found: Option<(&str, String)> = None;
    for path in paths {
        let Some(value) = at(values, path) else { continue };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("value {path} is not a word or a number")),
        };
        match &found {
            Some((first, other)) if *other != text => {
                return Err(format!(
                    "values {first} and {path} differ: mend the release, or leave one out of the mapping"
                ));
            }
            Some(_) => {}
            None => found = Some((path, text)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_printed_reads_back() {
        let mut mapping = Mapping::default();
        mapping.env.insert("MODEL".into(), vec!["job.model".into()]);
        mapping.files.insert("CLAUDE.md".into(), "instructions.md".into());
        for mapping in [Mapping::default(), mapping] {
            let yaml = serde_saphyr::to_string(&mapping).expect("YAML");
            assert_eq!(Mapping::parse(&yaml).expect(&yaml), mapping);
        }
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        assert_eq!(Mapping::parse("").expect("nothing"), Mapping::default());
        assert_eq!(Mapping::parse("# nothing\n").expect("a comment"), Mapping::default());
        let mapping = Mapping::parse("charts: [agent]\nagentNameDefault: coder").expect("two fields");
        let expected =
            Mapping { charts: vec!["agent".into()], agent_name_default: Some("coder".into()), ..Mapping::default() };
        assert_eq!(mapping, expected);
    }

    #[test]
    fn a_mistake_is_told_with_its_field() {
        for (yaml, told) in [
            ("chart: [x]", "chart"),
            ("charts: {}", "charts"),
            ("taskId: taskId", "taskId"),
            ("taskId: [a..b]", "taskId: \"a..b\" is not a path"),
            ("workspaceClaim: ['']", "workspaceClaim: \"\" is not a path"),
            ("env: {KEY: [secrets.anthropicApiKey]}", "env.KEY: \"secrets.anthropicApiKey\" lies in \"secrets\""),
            ("env: {KEY: [secrets]}", "env.KEY"),
            ("env: {A-B: [x]}", "env: \"A-B\" is not a variable's name"),
            ("configMapDefault: '{service}-files'", "configMapDefault: only {serviceName}"),
        ] {
            let error = Mapping::parse(yaml).expect_err(yaml);
            assert!(error.contains(told), "{yaml}: {error}");
        }
        Mapping::parse("env: {KEY: [secretsOfOthers.x]}").expect("a path beside");
    }

    #[test]
    fn paths_of_a_field_agree_or_nothing_is_read() {
        let paths: Vec<String> = ["a", "b.c", "d"].map(Into::into).into();
        let read =
            |values: Value| read(&values, &paths).map(|found| found.map(|(path, text)| format!("{path}={text}")));
        for (values, found) in [
            (json!({}), None),
            (json!({"a": null, "b": {"c": ""}}), None),
            (json!({"a": "", "b": {"c": "7"}}), Some("b.c=7")),
            (json!({"a": "7", "b": {"c": 7}, "d": "7"}), Some("a=7")),
            (json!({"b": "text", "d": true}), Some("d=true")),
        ] {
            assert_eq!(read(values.clone()).expect("agreed").as_deref(), found, "{values}");
        }
        let error = read(json!({"a": "sk-1", "d": "sk-2"})).expect_err("two");
        assert!(error.starts_with("values a and d differ") && !error.contains("sk-"), "{error}");
        let error = read(json!({"a": {"key": "sk-1"}})).expect_err("a map");
        assert_eq!(error, "value a is not a word or a number");
    }
}
