//! Many writers at once on one TaskRun: every commit that changes content is a version of its own.

use crate::support::{Cluster, task_run};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const WRITERS: usize = 64;
const EDITS: usize = 10;
/// Writers whose patches the API server repeats by itself: each keeps it busy until it wins.
const PATCHERS: usize = 2;
/// Conflicts of one edit before something must be wrong.
const MOST_ATTEMPTS: usize = 60;

/// 64 writers make 10 edits each, two of them by JSON patches, the others by reads and replaces. A version stands for one content, and none is given twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_edit_of_many_writers_gets_a_version_of_its_own() {
    let ns = Cluster::shared().namespace(&json!({}));
    let files: Vec<String> = (0..WRITERS).map(|writer| format!("w{writer}.md")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "first")).collect();
    let mut task = task_run(1, &files);
    task["spec"]["suspend"] = json!(true);
    ns.create_task_run(&task).await;
    let api = ns.task_runs().await;
    let first = api.get("task-1").await.expect("there").metadata.resource_version.expect("a version");
    let watched = tokio::spawn(contents_by_version(api.clone(), first));

    let started = Instant::now();
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(api.clone(), writer)));
    let results: Vec<(u64, usize)> =
        join_all(writers).await.into_iter().flat_map(|result| result.expect("no panic")).collect();
    let attempts: usize = results.iter().map(|(_, attempts)| attempts).sum();
    println!("{} edits in {:?}, {attempts} requests", results.len(), started.elapsed());

    let versions: BTreeSet<u64> = results.iter().map(|(version, _)| *version).collect();
    let expected: BTreeSet<u64> = (2..2 + (WRITERS * EDITS) as u64).collect();
    assert_eq!(versions, expected, "each commit has a version of its own, and none is left out");
    let contents = watched.await.expect("no panic");
    assert_eq!(contents.keys().copied().collect::<BTreeSet<u64>>(), expected);
    for (version, contents) in contents {
        assert_eq!(contents.len(), 1, "version {version} has one content");
    }
    let stored = api.get("task-1").await.expect("there");
    let last = format!("edit {}", EDITS - 1);
    let is_last = |file: &Value| file["content"] == last;
    assert!(stored.data["spec"]["markdownFiles"].as_array().expect("files").iter().all(is_last), "no edit is lost");
}

/// All edits of one writer: the version that each got, and how often it asked for it. After a
/// conflict it waits for a random time, as clients do.
async fn write(api: Api<DynamicObject>, writer: usize) -> Vec<(u64, usize)> {
    let mut results = vec![];
    for edit in 0..EDITS {
        for attempt in 1.. {
            let text = format!("edit {edit}");
            let written =
                if writer < PATCHERS { patch(&api, writer, &text).await } else { replace(&api, writer, &text).await };
            match written {
                Ok(stored) => {
                    results.push((version(&stored), attempt));
                    break;
                }
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < MOST_ATTEMPTS => {
                    let most = 20_u64 << attempt.min(9);
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(..most))).await;
                }
                Err(error) => unreachable!("{error}"),
            }
        }
    }
    results
}

/// Edits its file without a precondition.
async fn patch(api: &Api<DynamicObject>, writer: usize, text: &str) -> Result<DynamicObject, kube::Error> {
    let path = format!("/spec/markdownFiles/{writer}/content");
    let patch = json!([{"op": "replace", "path": path, "value": text}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
    api.patch("task-1", &PatchParams::default(), &Patch::<Value>::Json(patch)).await
}

/// Reads, edits its file and replaces.
async fn replace(api: &Api<DynamicObject>, writer: usize, text: &str) -> Result<DynamicObject, kube::Error> {
    let mut task = api.get("task-1").await?;
    task.data["spec"]["markdownFiles"][writer]["content"] = json!(text);
    api.replace("task-1", &PostParams::default(), &task).await
}

fn version(task: &DynamicObject) -> u64 {
    task.data["spec"]["contextVersion"].as_u64().expect("a version")
}

/// What a watcher sees: all contents that each version ever had, until the last version has come.
async fn contents_by_version(api: Api<DynamicObject>, from: String) -> BTreeMap<u64, BTreeSet<String>> {
    let mut seen: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut events = api.watch(&WatchParams::default(), &from).await.expect("a watch").boxed();
    while let Some(event) = events.try_next().await.expect("an event") {
        if let WatchEvent::Modified(task) = event {
            let version = version(&task);
            if version > 1 {
                seen.entry(version).or_default().insert(task.data["spec"]["markdownFiles"].to_string());
            }
            if version == 1 + (WRITERS * EDITS) as u64 {
                break;
            }
        }
    }
    seen
}
