//! What must be so after each plan: the same end as that of a clean run, the same acts, and silence.

use crate::call::Call;
use crate::proxy::Write;
use crate::support::ApiWrite;
use crate::witness::{Room, label};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Acts by what they do and to which object.
pub type Acts = BTreeMap<String, usize>;

/// What a clean run leaves and does.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub end: Value,
    pub acts: Acts,
}

impl Reference {
    /// What differs from it.
    pub fn differences(&self, end: &Value, acts: &Acts) -> Vec<String> {
        let mut differences = vec![];
        if *end != self.end {
            differences.push(format!("the end is {end}, in a clean run {}", self.end));
        }
        if *acts != self.acts {
            differences.push(format!("the acts are {acts:?}, in a clean run {:?}", self.acts));
        }
        differences
    }
}

/// What is left, without times, uids and the names of pods. Of versions that were passed over it does not matter
/// whether their ConfigMap was made.
pub fn end_state(room: &Room) -> Value {
    let name = |object: &Value| object["metadata"]["name"].clone();
    let owner = |object: &Value| room.task_run().is_some_and(|task_run| is_owned(object, task_run));
    let jobs = room.of("jobs").map(|job| {
        let ends = list(&job["status"]["conditions"]).filter(|c| c["status"] == "True").map(|c| c["type"].clone());
        json!({"name": name(job), "owned": owner(job), "suspend": job["spec"]["suspend"], "is": ends.collect::<Value>()})
    });
    let config_maps = room.of("configmaps").filter(|map| room.has_run(label(map, "context-version")));
    let config_maps = config_maps.map(|map| json!({"name": name(map), "owned": owner(map)}));
    let pods = room.of("pods").map(|pod| json!([label(pod, "job-name"), pod["status"]["phase"]]).to_string());
    let mut pods: Vec<String> = pods.collect();
    pods.sort_unstable();
    json!({
        "taskRun": room.task_run().map(task_run_end),
        "jobs": jobs.collect::<Value>(), "configMaps": config_maps.collect::<Value>(), "pods": pods,
    })
}

fn task_run_end(task_run: &Value) -> Value {
    let (metadata, status) = (&task_run["metadata"], &task_run["status"]);
    let conditions = list(&status["conditions"]).map(|c| json!([c["type"], c["status"], c["reason"]]));
    let runs = list(&status["runs"]).map(|run| json!([run["contextVersion"], run["outcome"], run["attempts"]]));
    let said = ["phase", "contextVersion", "jobName", "attempts", "message"].map(|field| status[field].clone());
    json!({
        "status": said, "conditions": conditions.collect::<Value>(), "runs": runs.collect::<Value>(),
        "isCurrent": status["observedGeneration"] == metadata["generation"],
        "finalizers": metadata["finalizers"], "isDeleted": metadata["deletionTimestamp"].is_string(),
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_owned(object: &Value, task_run: &Value) -> bool {
    list(&object["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == task_run["metadata"]["uid"])
}

/// The releases, suspensions and deletions that the API server carried out. That of a Job which never started is none: a
/// stray that lost a race costs an object, never a run. Where two operators act, each may delete what both see: bound to
/// a uid, that is one deletion. Whether a predecessor's ConfigMap goes by the operator or by the garbage collector is
/// theirs to settle.
pub fn acts(record: &[Write], room: &Room, by_two: bool) -> Acts {
    let is_stray = |call: &&Call| call.verb == "delete" && call.resource == "jobs" && !room.has_started(&call.uid);
    let is_act = |call: &&Call| (call.verb == "delete" && call.resource != "configmaps") || !call.meaning.is_empty();
    let mut done: Vec<&Call> = record.iter().filter(|write| write.is_done()).map(|write| &write.call).collect();
    if by_two {
        let mut deleted = BTreeSet::new();
        done.retain(|call| call.verb != "delete" || deleted.insert(&call.uid));
    }
    let acts = done.into_iter().filter(is_act).filter(|call| !is_stray(call));
    count(acts.map(|call| format!("{} {}", call.masked(), call.name)))
}

/// The proxy's record against the API server's audit log: the operators wrote nothing beside the proxy.
pub fn unrecorded(record: &[Write], audit: &[&ApiWrite]) -> Option<String> {
    let recorded = record.iter().filter(|write| write.is_done()).map(|write| &write.call);
    let recorded = count(recorded.map(|c| format!("{} {}/{} {}", c.verb, c.resource, c.subresource, c.name)));
    let audited = audit.iter().filter(|write| (200..300).contains(&write.code));
    let audited = count(audited.map(|w| format!("{} {}/{} {}", w.verb, w.resource, w.subresource, w.name)));
    (recorded != audited).then(|| format!("the audit log has {audited:?}, the record {recorded:?}"))
}

fn count(what: impl Iterator<Item = String>) -> Acts {
    let mut counts = Acts::new();
    for what in what {
        *counts.entry(what).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn write(verb: &'static str, meaning: &'static str, uid: &str, code: Option<u16>) -> Write {
        let (resource, name) = ("jobs".to_owned(), "svc-1-v1".to_owned());
        Write { call: Call { verb, resource, name, uid: uid.to_owned(), meaning, ..Call::default() }, code }
    }

    #[test]
    fn a_second_release_and_a_second_deletion_are_seen() {
        let mut room = Room::default();
        let job = json!({"metadata": {"name": "svc-1-v1", "uid": "run"}, "spec": {"suspend": false}});
        room.note("jobs", &job, true);
        let clean = [write("patch", "release", "run", Some(200)), write("delete", "", "run", Some(200))];
        let reference = Reference { end: Value::Null, acts: acts(&clean, &room, false) };
        let differences = |extra: Write| {
            let record: Vec<Write> = clean.iter().cloned().chain([extra]).collect();
            reference.differences(&Value::Null, &acts(&record, &room, false))
        };
        for allowed in [
            write("patch", "release", "run", Some(409)),
            write("patch", "release", "run", None),
            write("create", "", "stray", Some(201)),
            write("delete", "", "stray", Some(200)),
        ] {
            assert_eq!(differences(allowed), Vec::<String>::new());
        }
        for twice in clean.clone() {
            let differences = differences(twice);
            assert!(differences[0].contains("svc-1-v1\": 2"), "{differences:?}");
        }
        let by_two = [&clean[..], &clean[1..]].concat();
        assert_eq!(acts(&by_two, &room, true), reference.acts, "two operators may each delete it");
        assert_eq!(reference.differences(&json!("other"), &reference.acts).len(), 1);
    }

    #[test]
    fn a_write_beside_the_proxy_is_seen() {
        let write = ApiWrite {
            verb: "patch".to_owned(),
            resource: "jobs".to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: "svc-1-v1".to_owned(),
            code: 200,
            credential: String::new(),
            at: Timestamp::UNIX_EPOCH,
        };
        assert!(unrecorded(&[], &[&write]).is_some());
        assert_eq!(unrecorded(&[self::write("patch", "release", "run", Some(200))], &[&write]), None);
    }
}
