//! `kubectl taskrun submit`: a task from files.

use super::error::{Error, note};
use super::in_namespace;
use super::object::{Format, print_changed};
use crate::client::User;
use crate::crd::{EnvVar, MAX_OBJECT_BYTES, MarkdownFile, TaskNames};
use crate::task::{self, Submission};
use clap::Args;
use clap::builder::ValueHint;
use std::fs;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file that a task is read from where no name is given.
const TASK_FILE: &str = "task.md";

/// What `submit` takes.
#[derive(Args)]
#[command(after_help = "Submitting the same again changes nothing; context that was added since does not count.

Examples:
  kubectl taskrun submit task.md design-spec.md --id 7 --service auth-service --agent coder
  kubectl taskrun submit .taskmaster/tasks/tasks.json --id 7 --service auth-service --agent coder
  echo 'Update the licence headers.' | kubectl taskrun submit - --id 8 --service web --agent coder")]
pub struct SubmitArgs {
    /// Markdown files; a folder stands for its *.md, - for standard input (as task.md), and a Task Master
    /// tasks.json for the task in it that has the number --id
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// Number of the task
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    id: u32,
    /// Service that the task belongs to
    #[arg(long, value_name = "NAME", add = super::completion::services())]
    service: String,
    /// Agent that works on it
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// Environment variable for the agent; repeatable. Secrets belong to the Agent
    #[arg(long, value_name = "NAME=VALUE", value_parser = env_var)]
    env: Vec<EnvVar>,
    /// What the task is about, on a line; otherwise that of tasks.json
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Tag in tasks.json; otherwise its only one, or master
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// How tasks are named here: task-{id}, or {service}-task-{id} where services number their tasks apart
    #[arg(long, value_name = "SCHEME", env = "TASKRUN_TASK_NAMES", value_enum, default_value_t)]
    task_names: TaskNames,
    /// Print the object instead of a sentence
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// Submits the task.
pub async fn run(args: SubmitArgs, user: &User) -> Result<ExitCode, Error> {
    let (names, output) = (args.task_names, args.output);
    let submission = args.submission()?;
    let tasks = user.tasks(names).await?;
    match tasks.submit(&submission).await {
        Ok((task_run, created)) => {
            print_changed(&task_run, if created { "created" } else { "unchanged" }, output)?;
            let agent = &task_run.spec.agent_name;
            if created && tasks.lacks_agent(agent).await {
                note(&format!(
                    "warning: there is no Agent {agent:?} in namespace {:?}: the task waits for it",
                    tasks.namespace
                ));
            }
        }
        Err(error) => return Err(in_namespace(&tasks, error).await),
    }
    Ok(ExitCode::SUCCESS)
}

impl SubmitArgs {
    fn submission(self) -> Result<Submission, Error> {
        let mut title = self.title;
        let mut files: Vec<MarkdownFile> = vec![];
        for path in &self.files {
            for file in read(path, self.id, self.tag.as_deref(), &mut title)? {
                if files.iter().any(|other| other.filename == file.filename) {
                    let message = format!("{:?} is given twice: rename one, a task has each name once", file.filename);
                    return Err(Error::Input(message));
                }
                files.push(file);
            }
        }
        let title = title.unwrap_or_default();
        let (task_id, service_name, agent_name) = (self.id, self.service, self.agent);
        Ok(Submission { task_id, service_name, agent_name, title, files, env: self.env })
    }
}

/// The markdown that a FILE stands for.
fn read(path: &Path, id: u32, tag: Option<&str>, title: &mut Option<String>) -> Result<Vec<MarkdownFile>, Error> {
    let file = |filename: &str, content| MarkdownFile { filename: filename.to_owned(), content, request_id: None };
    if path.is_dir() {
        let paths = markdown_in(path)?;
        return paths.iter().map(|path| Ok(file(&name_of(path), read_text(path)?))).collect();
    }
    let text = read_text(path)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        let (content, found) = from_task_master(path, &text, id, tag)?;
        title.get_or_insert(found);
        return Ok(vec![file(TASK_FILE, content)]);
    }
    let name = if path == Path::new("-") { TASK_FILE.to_owned() } else { name_of(path) };
    Ok(vec![file(&name, text)])
}

/// The task of this number, as markdown, and its title.
fn from_task_master(path: &Path, json: &str, id: u32, tag: Option<&str>) -> Result<(String, String), Error> {
    let failed = |message: String| Error::Input(format!("{}: {message}", path.display()));
    let tasks = task::parse_task_master(json, tag).map_err(|error| failed(error.message))?;
    let Some(found) = tasks.iter().find(|task| task.id == id) else {
        let ids: Vec<String> = tasks.iter().map(|task| task.id.to_string()).collect();
        return Err(failed(format!("has no task {id}: it has {}", ids.join(", "))));
    };
    match found.is_empty() {
        true => Err(failed(format!("task {id} is empty: write what there is to do"))),
        false => Ok((found.markdown(), found.title.clone())),
    }
}

/// The markdown files of a folder, by name.
fn markdown_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::Input(format!("failed to read {}: {error}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed)?.filter_map(Result::ok).map(|entry| entry.path());
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md") && path.is_file();
    let mut paths: Vec<PathBuf> = entries.filter(is_markdown).collect();
    paths.sort();
    match paths.is_empty() {
        true => Err(Error::Input(format!("{} has no *.md", folder.display()))),
        false => Ok(paths),
    }
}

/// A file's text, or standard input's for `-`. Nothing is read that could not be stored.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let is_stdin = path == Path::new("-");
    let failed = |error: &dyn std::fmt::Display| match is_stdin {
        true => Error::Input(format!("failed to read standard input: {error}")),
        false => Error::Input(format!("failed to read {}: {error}", path.display())),
    };
    let reader: Box<dyn Read> = match is_stdin {
        true => Box::new(stdin()),
        false => Box::new(fs::File::open(path).map_err(|error| failed(&error))?),
    };
    let (mut bytes, limit) = (vec![], 4 * MAX_OBJECT_BYTES);
    reader.take(limit as u64).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() == limit {
        return Err(failed(&"too large, a task's files may have 900 KiB together"));
    }
    String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8 text"))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn env_var(text: &str) -> Result<EnvVar, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok(EnvVar { name: name.to_owned(), value: value.to_owned() })
}
