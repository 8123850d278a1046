//! The log of a task, as one stream over all its runs.

use super::tasks::{Tasks, call};
use crate::crd::{Outcome, TaskRun};
use crate::task::{self, Code, Error, LogSource};
use futures::{AsyncReadExt, StreamExt};
use kube::ResourceExt;
use kube::api::LogParams;
use kube::runtime::watcher::Event;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// How long to wait for news of the task before its pods are looked at all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Bytes that are sent at once.
const CHUNK: usize = 16 * 1024;

/// Which log, and how much of it.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Of this version; otherwise of the newest run.
    pub version: Option<u32>,
    /// Whether to go on until the task is at rest, over all the runs that come.
    pub follow: bool,
    /// Only so many last lines of the first log.
    pub tail: Option<i64>,
    /// The container, otherwise the pod's default one.
    pub container: Option<String>,
}

/// A part of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum LogItem {
    /// What follows is of this pod.
    Begins(LogSource),
    /// Text.
    Bytes(Vec<u8>),
    /// Nothing yet, and why.
    Waits(String),
}

impl Tasks {
    /// Sends a task's log until it ends or nobody reads any more. The last item may be an error.
    pub async fn logs(&self, name: &str, options: &LogOptions, sink: &Sender<Result<LogItem, Error>>) {
        tokio::select! {
            biased;
            () = sink.closed() => {}
            result = self.send_logs(name, options, sink) => if let Err(error) = result {
                let _ = sink.send(Err(error)).await;
            }
        }
    }

    async fn send_logs(
        &self,
        name: &str,
        options: &LogOptions,
        sink: &Sender<Result<LogItem, Error>>,
    ) -> Result<(), Error> {
        let task_run = self.get(name).await?;
        let mut news = pin!(self.watch(Some(name)));
        let (mut last, mut seen): (Option<LogSource>, _) = (None, BTreeSet::new());
        let (mut is_over, mut has_told) = (false, false);
        loop {
            let pods = self.pods(&task_run).await?;
            let source = match &last {
                None => task::latest_log(&pods, options.version),
                Some(last) => task::next_log(&pods, options.version, last, &seen),
            };
            match (source, &last) {
                (Some(source), _) => {
                    seen.insert(source.uid.clone());
                    let tail = options.tail.filter(|_| last.is_none());
                    self.send_log(&source, options, tail, sink).await?;
                    last = Some(source);
                }
                (None, Some(_)) if is_over || !options.follow => return Ok(()),
                (None, None) if is_over || !options.follow => {
                    return Err(Error::new(Code::NotFound, no_log(&task_run, options.version)));
                }
                (None, None) if !has_told => {
                    has_told = true;
                    let _ = sink.send(Ok(LogItem::Waits(no_log(&task_run, options.version)))).await;
                }
                (None, _) => {}
            }
            if options.follow {
                // what comes after is looked at with what is known by then
                match tokio::time::timeout(LOOK_AGAIN, news.next()).await {
                    Ok(Some(Ok(Event::Apply(object) | Event::InitApply(object)))) => {
                        is_over = task::is_at_rest(&object.data, options.version);
                    }
                    Ok(Some(Err(error))) if !error.is_passing() => return Err(error),
                    Ok(Some(Ok(Event::Delete(_))) | None) => is_over = true,
                    Ok(Some(_)) | Err(_) => {}
                }
            }
        }
    }

    /// Sends one pod's log until it ends.
    async fn send_log(
        &self,
        source: &LogSource,
        options: &LogOptions,
        tail: Option<i64>,
        sink: &Sender<Result<LogItem, Error>>,
    ) -> Result<(), Error> {
        let params = LogParams {
            container: options.container.clone().or_else(|| source.container.clone()),
            follow: options.follow,
            tail_lines: tail,
            ..LogParams::default()
        };
        let mut log = pin!(call(self.patient_pods()?.log_stream(&source.pod, &params)).await?);
        // a send that fails means that nobody reads: then this is dropped
        let _ = sink.send(Ok(LogItem::Begins(source.clone()))).await;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = log.read(&mut chunk).await.map_err(|error| {
                Error::new(Code::Unavailable, format!("the log of pod {} broke off: {error}", source.pod))
            })?;
            if length == 0 {
                return Ok(());
            }
            let _ = sink.send(Ok(LogItem::Bytes(chunk[..length].to_vec()))).await;
        }
    }
}

fn no_log(task_run: &TaskRun, version: Option<u32>) -> String {
    let (name, present) = (task_run.name_any(), task_run.spec.context_version);
    let status = task_run.status.as_ref();
    let run = version.and_then(|version| status?.run(version));
    match (version, run.and_then(|run| run.outcome)) {
        (Some(version), _) if version > present => {
            format!("TaskRun {name:?} has no version {version}: the newest is {present}")
        }
        (Some(version), Some(Outcome::Superseded)) => {
            format!("version {version} of TaskRun {name:?} was superseded: its pod and its log are gone")
        }
        (Some(version), Some(_)) => {
            format!("the pod of version {version} of TaskRun {name:?} is gone, and its log with it")
        }
        _ => {
            let message =
                status.and_then(|status| status.message.clone()).unwrap_or_else(|| "not looked at yet".to_owned());
            format!("TaskRun {name:?} has no log yet: {message}")
        }
    }
}
