//! What goes on for as long as the client listens: progress as server-sent events, and logs.

use super::answer::{Changes, Failure, Snapshot, Status, TaskSummary};
use super::caller::Caller;
use super::request::ReadLog;
use super::{Errors, State, TaskPath};
use crate::client::{LogItem, LogOptions, Rows};
use crate::crd::TaskRun;
use crate::task::{self, Error};
use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpResponse, rt};
use futures::{Stream, StreamExt, stream};
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// Silence after which a comment says that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
const HEARTBEAT_COMMENT: &[u8] = b": still here\n\n";
/// What tells nginx, where it stands before the API, to hold nothing back.
const UNBUFFERED: (&str, &str) = ("X-Accel-Buffering", "no");
/// How long to wait for the first part before the answer begins.
const FIRST_PART: Duration = Duration::from_secs(2);
/// Failures of a watch in a row after which its listener is told.
const FAILURES: u32 = 4;
/// Parts of a log that are read ahead.
const AHEAD: usize = 4;

/// Follow a task's status as server-sent events: `status` now and after each change, `deleted` at its end, `error`
/// if it cannot go on.
#[utoipa::path(get, path = "/pm/tasks/{task}/events", params(TaskPath), responses(
    (status = 200, description = "events", body = String, content_type = "text/event-stream"), Errors))]
pub async fn events(caller: Caller, state: Data<State>, task: Path<String>) -> Result<HttpResponse, Failure> {
    let name = task::parse_name(&task)?;
    let held = caller.stream()?;
    caller.get(&name).await?;
    let (sender, mut receiver) = channel(AHEAD);
    let news = caller.watch(Some(&name));
    rt::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = tell(news, &sender) => {}
        }
    });
    let first = first(&mut receiver).await?;
    Ok(server_sent(stream::iter(first).chain(rest(receiver)), held, &state))
}

/// Follow all tasks as server-sent events: `snapshot`, page by page, is all there is, without markdown; `changes` is what
/// happens then; `error` if it cannot go on.
#[utoipa::path(get, path = "/pm/tasks/events", responses(
    (status = 200, description = "events", body = String, content_type = "text/event-stream"), Errors))]
pub async fn all_events(caller: Caller, state: Data<State>) -> Result<HttpResponse, Failure> {
    let held = caller.stream()?;
    let (sender, mut receiver) = channel(AHEAD);
    rt::spawn(async move { caller.rows(&sender).await });
    let first = first(&mut receiver).await?;
    let parts = stream::iter(first).chain(rest(receiver)).map(|rows| rows.map(of_rows));
    Ok(server_sent(with_heartbeat(parts), held, &state))
}

fn of_rows(rows: Rows) -> Bytes {
    match rows {
        Rows::Page { rows, first, last } => {
            let tasks = rows.into_iter().map(TaskSummary::from).collect();
            event("snapshot", &Snapshot { tasks, first, last })
        }
        Rows::Changes(changes) => {
            let mut told = Changes::default();
            for (name, row) in changes {
                match row {
                    Some(row) => told.tasks.push(row.into()),
                    None => told.deleted.push(name),
                }
            }
            event("changes", &told)
        }
    }
}

/// With a comment wherever nothing comes for a while.
fn with_heartbeat<T>(parts: impl Stream<Item = Result<Bytes, T>>) -> impl Stream<Item = Result<Bytes, T>> {
    stream::unfold(Box::pin(parts), async |mut parts| {
        let part = match timeout(HEARTBEAT, parts.next()).await {
            Err(_) => Ok(Bytes::from_static(HEARTBEAT_COMMENT)),
            Ok(part) => part?,
        };
        Some((part, parts))
    })
}

/// An answer that goes on; its place among the caller's streams is free when it is dropped.
fn server_sent(
    parts: impl Stream<Item = Result<Bytes, Error>> + 'static,
    held: OwnedSemaphorePermit,
    state: &State,
) -> HttpResponse {
    let parts = parts.map(move |part| {
        let _ = &held;
        Ok::<_, Infallible>(part.unwrap_or_else(|error| event("error", &Failure::from(error))))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(UNBUFFERED)
        .streaming(parts.take_until(state.stop.clone()))
}

/// Sends what is news to somebody who knows only what was sent before.
async fn tell(news: impl Stream<Item = Result<Event<DynamicObject>, Error>>, sender: &Sender<Result<Bytes, Error>>) {
    let mut news = std::pin::pin!(news);
    let (mut last, mut uid, mut is_listed, mut failures) = (None, None, false, 0);
    loop {
        let part = match timeout(HEARTBEAT, news.next()).await {
            Err(_) => Bytes::from_static(HEARTBEAT_COMMENT),
            Ok(Some(Ok(event))) if is_gone(&event, is_listed, uid.as_ref()) => {
                let _ = sender.send(Ok(self::event("deleted", &()))).await;
                return;
            }
            Ok(Some(Ok(Event::Apply(object) | Event::InitApply(object)))) => {
                (is_listed, failures) = (true, 0);
                uid.clone_from(&object.metadata.uid);
                match status(object) {
                    status if status.is_none() || status == last => continue,
                    status => {
                        let part = event("status", &status);
                        last = status;
                        part
                    }
                }
            }
            Ok(Some(Ok(_))) => {
                is_listed = false;
                continue;
            }
            Ok(Some(Err(error))) if error.is_passing() && failures < FAILURES => {
                failures += 1;
                continue;
            }
            // whoever listens is not to take what he knows for what is
            Ok(Some(Err(error))) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
            Ok(None) => return,
        };
        // a failed send means that nobody listens: then this is dropped
        let _ = sender.send(Ok(part)).await;
    }
}

/// Whether the task is gone: seen to go, or missing or another one where the watch had to begin anew.
fn is_gone(event: &Event<DynamicObject>, is_listed: bool, uid: Option<&String>) -> bool {
    match event {
        Event::Delete(_) => true,
        Event::InitDone => !is_listed,
        Event::Apply(object) | Event::InitApply(object) => uid.is_some() && uid != object.metadata.uid.as_ref(),
        Event::Init => false,
    }
}

/// The first part, if it comes soon: what is wrong from the beginning becomes the answer's status.
async fn first<T>(receiver: &mut Receiver<Result<T, Error>>) -> Result<Option<Result<T, Error>>, Failure> {
    match timeout(FIRST_PART, receiver.recv()).await {
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(first) => Ok(first),
        Err(_) => Ok(None),
    }
}

fn rest<T>(mut receiver: Receiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

fn status(object: DynamicObject) -> Option<Status> {
    let mut json = serde_json::to_value(object).ok()?;
    json["spec"]["markdownFiles"] = serde_json::json!([]);
    let task_run: TaskRun = serde_json::from_value(json).ok()?;
    Some(Status::from(&task_run))
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// Read a run's log.
#[utoipa::path(get, path = "/pm/tasks/{task}/logs", params(TaskPath, ReadLog), responses(
    (status = 200, description = "the log; between two runs a line that names the next", body = String,
        content_type = "text/plain"), Errors))]
pub async fn logs(
    caller: Caller,
    state: Data<State>,
    task: Path<String>,
    query: Query<ReadLog>,
) -> Result<HttpResponse, Failure> {
    let name = task::parse_name(&task)?;
    let options = LogOptions {
        version: query.version,
        follow: query.follow,
        tail: query.tail_lines.map(i64::from),
        container: query.container.clone(),
    };
    let held = caller.stream()?;
    let (sender, mut receiver) = channel(AHEAD);
    let tasks = caller.clone();
    rt::spawn(async move { tasks.logs(&name, &options, &sender).await });
    let first = first(&mut receiver).await?;
    let mut is_first = true;
    let text = stream::iter(first).chain(rest(receiver)).filter_map(move |item| {
        let _ = &held; // until the stream is dropped
        std::future::ready(text(item, &mut is_first).map(Ok::<_, Infallible>))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header(UNBUFFERED)
        .streaming(text.take_until(state.stop.clone())))
}

/// The first log alone needs no title.
fn text(item: Result<LogItem, Error>, is_first: &mut bool) -> Option<Bytes> {
    match item {
        Ok(LogItem::Bytes(bytes)) => Some(Bytes::from(bytes)),
        Ok(LogItem::Waits(_)) => None,
        Ok(LogItem::Begins(_)) if std::mem::take(is_first) => None,
        Ok(LogItem::Begins(source)) => {
            Some(Bytes::from(format!("==> version {}, pod {} <==\n", source.version, source.pod)))
        }
        Err(error) => Some(Bytes::from(format!("==> {error} <==\n"))),
    }
}
