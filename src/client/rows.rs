//! All tasks of a namespace as rows of their table: what is there, page by page, then each change.
//!
//! The API server makes the rows, so no markdown leaves it, whatever the tasks weigh.

use super::WATCH_SECONDS;
use super::tasks::{Filter, MAX_REFUSALS, PAGE, Tasks, as_table, call, of, unavailable};
use crate::crd::TaskRun;
use crate::task::{Code, Error, Summary};
use futures::StreamExt;
use kube::Resource;
use kube::api::{Request, WatchEvent, WatchParams};
use serde_json::Value;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// Rows of the first page: somebody waits for it.
const FIRST_PAGE: u32 = 100;
/// Most changes that are told at once.
const MOST: usize = 500;
/// How long changes are gathered, so that a burst is told in a few parts.
const GATHER: Duration = Duration::from_millis(100);
/// The wait after the first failure; each further one takes twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A part of what goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// A page of all that is there. What was told before the first page, and is in none, is gone.
    Page {
        /// The rows, by name.
        rows: Vec<Summary>,
        /// Whether a list begins with it.
        first: bool,
        /// Whether the list ends with it.
        last: bool,
    },
    /// What has changed since: each name once, with nothing where it was deleted.
    Changes(BTreeMap<String, Option<Summary>>),
}

impl Tasks {
    /// Sends all rows and then each change until nobody reads any more. The last item may be an error: one that would
    /// only come again.
    pub async fn rows(&self, sink: &Sender<Result<Rows, Error>>) {
        tokio::select! {
            biased;
            () = sink.closed() => {}
            error = self.send_rows(sink) => { let _ = sink.send(Err(error)).await; }
        }
    }

    async fn send_rows(&self, sink: &Sender<Result<Rows, Error>>) -> Error {
        // where to go on; nothing where it has to be listed anew
        let (mut version, mut failures, mut has_seen) = (None, 0, false);
        loop {
            let went = match version.take() {
                None => self.send_list(sink).await,
                Some(from) => self.send_changes(from, sink).await,
            };
            match went {
                Ok(next) => (version, failures, has_seen) = (next, 0, true),
                // an API server that starts refuses what it does not know yet
                Err((error, from)) => {
                    failures += 1;
                    if failures > MAX_REFUSALS || (!has_seen && !error.is_passing()) {
                        return error;
                    }
                    version = from;
                    tokio::time::sleep(FIRST_WAIT * 2_u32.pow(failures - 1)).await;
                }
            }
        }
    }

    /// Sends all pages; returns where changes go on from.
    async fn send_list(&self, sink: &Sender<Result<Rows, Error>>) -> Went {
        let (mut filter, mut first) = (Filter { limit: Some(FIRST_PAGE), ..Filter::default() }, true);
        loop {
            let page = match self.list(&filter).await {
                Ok(page) => page,
                Err(error) if is_too_old(&error) && !first => return Ok(None),
                Err(error) => return Err((error, None)),
            };
            let last = page.next.is_none();
            // a send that fails means that nobody reads: then this is dropped
            let _ = sink.send(Ok(Rows::Page { rows: page.tasks, first, last })).await;
            if last {
                return Ok(Some(page.version));
            }
            filter = Filter { limit: Some(PAGE.1), after: page.next, ..Filter::default() };
            first = false;
        }
    }

    /// Sends changes until the watch ends; returns where the next one goes on from.
    async fn send_changes(&self, mut version: String, sink: &Sender<Result<Rows, Error>>) -> Went {
        let params = WatchParams { bookmarks: false, ..WatchParams::default().timeout(WATCH_SECONDS) };
        let path = TaskRun::url_path(&(), Some(self.namespace.as_str()));
        let request = Request::new(path).watch(&params, &version).map_err(|error| unavailable(&error));
        let request = match request.and_then(|request| as_table(request, "None")) {
            Ok(request) => request,
            Err(error) => return Err((error, None)),
        };
        let events = match call(self.client.request_events::<Value>(request)).await {
            Ok(events) => events,
            Err(error) if is_too_old(&error) => return Ok(None),
            Err(error) => return Err((error, Some(version))),
        };
        let mut columns = Value::Null;
        let mut events = pin!(events.ready_chunks(MOST));
        while let Some(chunk) = events.next().await {
            let (mut changes, mut wrong) = (BTreeMap::new(), None);
            for event in chunk {
                let (table, is_there) = match event {
                    Ok(WatchEvent::Added(table) | WatchEvent::Modified(table)) => (table, true),
                    Ok(WatchEvent::Deleted(table)) => (table, false),
                    Ok(WatchEvent::Bookmark(_)) => continue,
                    Ok(WatchEvent::Error(status)) => {
                        wrong = Some(Error::from_status(&status));
                        break;
                    }
                    Err(error) => {
                        wrong = Some(of(&error));
                        break;
                    }
                };
                let rows = with_columns(table, &mut columns, &mut version);
                changes.extend(rows.into_iter().map(|row| (row.name.clone(), is_there.then_some(row))));
            }
            if !changes.is_empty() {
                let _ = sink.send(Ok(Rows::Changes(changes))).await;
                tokio::time::sleep(GATHER).await;
            }
            match wrong {
                None => {}
                Some(error) if is_too_old(&error) => return Ok(None),
                Some(error) => return Err((error, Some(version))),
            }
        }
        // an API server that ends each watch at once is not asked without a pause
        tokio::time::sleep(GATHER).await;
        Ok(Some(version))
    }
}

/// Whether the place in a list, or among the changes, is one that the API server does not know any more.
fn is_too_old(error: &Error) -> bool {
    error.code == Code::InvalidRequest
}

/// Where to go on, or an error with the same.
type Went = Result<Option<String>, (Error, Option<String>)>;

/// The rows of one event: only the first of a watch names its columns.
fn with_columns(mut table: Value, columns: &mut Value, version: &mut String) -> Vec<Summary> {
    match table["columnDefinitions"].as_array() {
        Some(named) if !named.is_empty() => *columns = table["columnDefinitions"].clone(),
        _ => table["columnDefinitions"] = columns.clone(),
    }
    if let Some(new) = table["metadata"]["resourceVersion"].as_str() {
        new.clone_into(version);
    }
    Summary::of_table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn later_events_of_a_watch_have_the_columns_of_the_first() {
        let (mut columns, mut version) = (Value::Null, "1".to_owned());
        let named = json!([{"name": "Name"}, {"name": "Task"}, {"name": "Phase"}]);
        let event = |columns: Value, phase: &str, version: &str| {
            json!({"metadata": {"resourceVersion": version}, "columnDefinitions": columns,
                "rows": [{"cells": ["task-7", 7, phase]}]})
        };
        let first = with_columns(event(named, "Pending", "5"), &mut columns, &mut version);
        let later = with_columns(event(Value::Null, "Running", "6"), &mut columns, &mut version);
        assert_eq!((first[0].phase.as_str(), later[0].phase.as_str()), ("Pending", "Running"));
        assert_eq!((later[0].task_id, version.as_str()), (7, "6"));
    }
}
