//! Reviews as the API server sends them, of a given size: of a creation, and of a change of one file of many.

use serde_json::{Value, json};

/// A kind of review.
#[derive(Clone, Copy)]
pub struct Kind {
    /// As it stands in tables.
    pub name: &'static str,
    /// Bytes of its body.
    pub bytes: usize,
    /// Of a change: with the old object in it.
    pub is_update: bool,
}

const KIB: usize = 1024;
/// Bytes of text in an object: the smallest reviews are somewhat larger than they are called.
const LEAST: usize = 160;
/// And at most: a ConfigMap has no room for more.
const MOST: usize = 900 * KIB;

/// Those that are measured.
pub const KINDS: [Kind; 6] = [
    Kind { name: "create, 1 KiB", bytes: KIB, is_update: false },
    Kind { name: "update, 1 KiB", bytes: KIB, is_update: true },
    Kind { name: "create, 64 KiB", bytes: 64 * KIB, is_update: false },
    Kind { name: "update, 64 KiB", bytes: 64 * KIB, is_update: true },
    Kind { name: "create, 1 MiB", bytes: 1024 * KIB, is_update: false },
    Kind { name: "update, 1 MiB", bytes: 1024 * KIB, is_update: true },
];

impl Kind {
    /// Both reviews of such a write, as whole HTTP requests: first it is mutated, then validated.
    pub fn requests(self) -> Vec<Vec<u8>> {
        ["mutate", "validate"].map(|webhook| request(webhook, &self.body(webhook == "validate"))).to_vec()
    }

    fn body(self, is_mutated: bool) -> String {
        let objects = 1 + usize::from(self.is_update);
        let mut text = 0;
        // twice: the second time what is around the text is known
        for _ in 0..2 {
            let around = self.review(is_mutated, text).len() - objects * text;
            text = (self.bytes.saturating_sub(around) / objects).clamp(LEAST, MOST);
        }
        self.review(is_mutated, text)
    }

    fn review(self, is_mutated: bool, text: usize) -> String {
        let files = match self.bytes {
            ..=1024 => 1,
            1_025..=65_536 => 4,
            _ => 16,
        };
        let mut old = task_run(files, text);
        let mut new = old.clone();
        let user = "system:serviceaccount:orchestrator:pm";
        let (mut labels, mut annotations) = (json!({}), json!({}));
        if is_mutated || self.is_update {
            labels = json!({"task-id": "4711", "service-name": "checkout"});
            annotations = json!({"orchestrator.io/context-changed-by": user});
        }
        for object in [&mut old, &mut new] {
            object["metadata"]["labels"] = labels.clone();
            object["metadata"]["annotations"] = annotations.clone();
            if self.is_update || is_mutated {
                object["metadata"]["finalizers"] = json!(["orchestrator.io/run-cleanup"]);
                object["spec"]["contextVersion"] = json!(1);
            }
        }
        if self.is_update {
            let last = &mut new["spec"]["markdownFiles"][files - 1]["content"];
            let changed = last.as_str().expect("text").replacen('t', "T", 1);
            *last = json!(changed);
            if is_mutated {
                new["spec"]["contextVersion"] = json!(2);
            }
        }
        let kind = json!({"group": "orchestrator.io", "version": "v1", "kind": "TaskRun"});
        let resource = json!({"group": "orchestrator.io", "version": "v1", "resource": "taskruns"});
        let mut request = json!({
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource,
            "requestKind": kind, "requestResource": resource, "name": "task-4711", "namespace": "orchestrator",
            "operation": if self.is_update { "UPDATE" } else { "CREATE" },
            "userInfo": {"username": user, "groups": ["system:serviceaccounts", "system:authenticated"]},
            "object": new, "dryRun": false,
            "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "pm"},
        });
        if self.is_update {
            request["oldObject"] = old;
        }
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request});
        // as Go writes it
        review.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

/// Markdown that somebody wrote, as long as this is as JSON: this project's README, again and again.
pub fn markdown(bytes: usize) -> String {
    let mut length = 0;
    let fits = |character: &char| {
        length += match character {
            '\n' | '"' | '\\' => 2,
            '<' | '>' | '&' => 6,
            other => other.len_utf8(),
        };
        length <= bytes
    };
    include_str!("../README.md").chars().cycle().take_while(fits).collect()
}

/// One whose files have so many bytes of text in all.
fn task_run(files: usize, bytes: usize) -> Value {
    let file = |number: usize| {
        let share = bytes / files + usize::from(number < bytes % files);
        json!({"filename": format!("context-{number:02}.md"), "content": markdown(share)})
    };
    json!({
        "apiVersion": "orchestrator.io/v1", "kind": "TaskRun",
        "metadata": {
            "name": "task-4711", "namespace": "orchestrator", "uid": "1c7a1dc2-07d1-4d26-9d8a-5a1b0c5e8c11",
            "resourceVersion": "48213", "generation": 1, "creationTimestamp": "2026-11-02T09:00:00Z",
        },
        "spec": {
            "taskId": 4711, "serviceName": "checkout", "agentName": "claude-code",
            "markdownFiles": (0..files).map(file).collect::<Vec<_>>(),
        },
    })
}

fn request(webhook: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /{webhook}?timeout=5s HTTP/1.1\r\nHost: taskrun-operator.taskrun-system.svc:443\r\n\
         User-Agent: kube-apiserver-admission\r\nContent-Length: {length}\r\nAccept: application/json, */*\r\n\
         Content-Type: application/json\r\n\r\n{body}"
    )
    .into_bytes()
}
