//! `kubectl taskrun list`: one line a task.

use super::error::{Error, note};
use super::object::{full_name, list_of, print_json, print_yaml};
use super::table::{Cell, Paper};
use super::{in_namespace, text};
use crate::client::{Filter, PAGE, Tasks, User};
use crate::clock::now;
use crate::crd::{Phase, TaskNames};
use crate::task::{self, Summary};
use clap::{Args, ValueEnum};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::process::ExitCode;

/// What `list` takes.
#[derive(Args)]
#[command(after_help = "VERSION is the newest one, PHASE that of the version that is being worked on.

Examples:
  kubectl taskrun list --phase failed
  kubectl taskrun list -A --service auth-service -o wide")]
pub struct ListArgs {
    /// Only tasks of this service
    #[arg(long, value_name = "NAME", add = super::completion::services())]
    service: Option<String>,
    /// Only tasks in this phase
    #[arg(long, value_enum, ignore_case = true)]
    phase: Option<Phase>,
    /// Tasks of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// More columns, the whole objects, or their names
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
    Yaml,
    Name,
}

/// Lists.
pub async fn run(args: ListArgs, user: &User) -> Result<ExitCode, Error> {
    let namespace = if args.all_namespaces { Some(String::new()) } else { user.namespace.clone() };
    let tasks = User { namespace, ..user.clone() }.tasks(TaskNames::ById).await?;
    let filter = Filter { service: args.service, phase: args.phase, limit: Some(PAGE.1), ..Filter::default() };
    let listed = match args.output {
        Some(Output::Json) => print_json(&list_of(&objects(&tasks, &filter).await?)),
        Some(Output::Yaml) => print_yaml(&list_of(&objects(&tasks, &filter).await?)),
        Some(Output::Name) => print_names(&rows(&tasks, filter).await?),
        output => print_table(&tasks, &rows(&tasks, filter).await?, output == Some(Output::Wide)),
    };
    listed.map(|()| ExitCode::SUCCESS)
}

/// The objects as `kubectl get` shows them, by namespace and name.
async fn objects(tasks: &Tasks, filter: &Filter) -> Result<Vec<Value>, Error> {
    let objects = found(tasks, tasks.list_objects(filter).await, Vec::is_empty).await?;
    let whole = |object| {
        let mut object = serde_json::to_value(object)?;
        object["apiVersion"] = json!("orchestrator.io/v1");
        object["kind"] = json!("TaskRun");
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        Ok(object)
    };
    let mut items = objects.into_iter().map(whole).collect::<Result<Vec<Value>, Error>>()?;
    let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    items.sort_by_cached_key(|object| (text(object, "namespace"), order(&text(object, "name"))));
    Ok(items)
}

/// All pages of the list, by namespace and name.
async fn rows(tasks: &Tasks, mut filter: Filter) -> Result<Vec<Summary>, Error> {
    let mut rows = vec![];
    loop {
        let page = found(tasks, tasks.list(&filter).await, |page| page.tasks.is_empty()).await?;
        rows.extend(page.tasks);
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    rows.sort_by_cached_key(|task| (task.namespace.clone(), order(&task.name)));
    Ok(rows)
}

/// What was found. A list in a namespace that is not there is merely empty: that is looked after here.
async fn found<T>(tasks: &Tasks, found: Result<T, task::Error>, is_empty: impl Fn(&T) -> bool) -> Result<T, Error> {
    match found {
        Ok(found) if is_empty(&found) && tasks.lacks_namespace().await => {
            Err(Error::NoNamespace(tasks.namespace.clone()))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(in_namespace(tasks, error).await),
    }
}

fn print_names(rows: &[Summary]) -> Result<(), Error> {
    for task in rows {
        writeln!(stdout(), "{}", full_name(&task.name))?;
    }
    Ok(())
}

fn print_table(tasks: &Tasks, found: &[Summary], wide: bool) -> Result<(), Error> {
    let (all, now) = (tasks.namespace.is_empty(), Time(now()));
    let rows: Vec<Vec<Cell>> = found.iter().map(|task| row(task, all, wide, &now)).collect();
    for line in Paper::stdout().table(&header(all, wide), &rows) {
        writeln!(stdout(), "{line}")?;
    }
    if rows.is_empty() {
        let place = if all { String::new() } else { format!(" in namespace {:?}", tasks.namespace) };
        note(&format!("No tasks found{place}."));
    }
    Ok(())
}

fn header(all: bool, wide: bool) -> Vec<&'static str> {
    let mut header = if all { vec!["NAMESPACE"] } else { vec![] };
    header.extend(["NAME", "SERVICE", "VERSION", "PHASE", "ATTEMPTS", "ELAPSED"]);
    header.extend(if wide { vec!["AGENT", "JOB", "TITLE", "MESSAGE"] } else { vec!["TITLE"] });
    header
}

fn row(task: &Summary, all: bool, wide: bool, now: &Time) -> Vec<Cell> {
    let mut row = if all { vec![Cell::from(&task.namespace)] } else { vec![] };
    row.extend([Cell::from(&task.name), Cell::from(&task.service), Cell::from(task.version.to_string())]);
    row.extend([Cell::state(&task.phase), Cell::from(task.attempts.to_string()), Cell::from(elapsed(task, now))]);
    let job = task.job.as_deref().unwrap_or_default();
    match wide {
        true => row.extend([&task.agent, job, &task.title, &task.message].map(Cell::from)),
        false => row.push(Cell::from(&task.title)),
    }
    row
}

/// How long a task's run has taken; empty before it began.
pub fn elapsed(task: &Summary, now: &Time) -> String {
    let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    let seconds = |start: Timestamp| time(&task.ended).unwrap_or(now.0).as_second() - start.as_second();
    time(&task.started).map(|start| text::elapsed(seconds(start).max(0))).unwrap_or_default()
}

/// What names are ordered by: `task-9` comes before `task-10`.
pub fn order(name: &str) -> (String, u64) {
    let numbered = name.rsplit_once('-').and_then(|(stem, number)| Some((stem.to_owned(), number.parse().ok()?)));
    numbered.unwrap_or_else(|| (name.to_owned(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Summary {
        Summary {
            name: "task-7".into(),
            service: "auth".into(),
            version: 2,
            phase: "Running".into(),
            attempts: 1,
            started: Some("2026-01-01T00:00:00Z".into()),
            title: "Tokens\u{1b}[2J".into(),
            ..Summary::default()
        }
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_and_no_escapes() {
        let now = Time("2026-01-01T00:01:05Z".parse().expect("a time"));
        for (all, wide) in [(false, false), (true, false), (false, true), (true, true)] {
            assert_eq!(header(all, wide).len(), row(&task(), all, wide, &now).len(), "{all} {wide}");
        }
        let paper = Paper { has_colour: false, columns: None };
        let lines = paper.table(&header(false, false), &[row(&task(), false, false, &now)]);
        assert_eq!(lines[1], "task-7   auth      2         Running   1          1m5s      Tokens\\u{1b}[2J");
    }

    #[test]
    fn elapsed_ends_with_the_run() {
        let now = Time("2026-01-02T00:00:00Z".parse().expect("a time"));
        let ended = Summary { ended: Some("2026-01-01T00:00:09Z".into()), ..task() };
        assert_eq!((elapsed(&ended, &now), elapsed(&Summary::default(), &now)), ("9s".into(), String::new()));
    }

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["task-10", "web-task-2", "task-9", "other"];
        names.sort_by_cached_key(|name| order(name));
        assert_eq!(names, ["other", "task-9", "task-10", "web-task-2"]);
    }
}
