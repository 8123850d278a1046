//! Reviews made out of bytes: as the API server sends them, with something odd in a few places. Each byte is one choice,
//! and a missing byte is 0, the plainest of them: so what a fuzzer finds stays small.

use serde_json::{Value, json};

const NAMES: [&str; 6] = ["a.md", "b.md", "a-2.md", "CLAUDE.md", "", "\u{7f}\"\u{200b}"];
const CONTENTS: [&str; 6] = ["one", "two", "", "<!-- x -->", "---\na: b\n---\n", "[a]: b"];
const REQUESTS: [&str; 3] = ["r-1", "r-2", ""];
const VARIABLES: [&str; 5] = ["A", "B", "TASK_ID", "KUBERNETES_PORT", "=\n"];
const USERS: [&str; 4] = ["ana", "ben", "", "\u{1}\u{2028}"];
const MANAGERS: [&str; 3] = ["kubectl-edit", "pm", ""];
const CHANGED_BY: &str = "orchestrator.io/context-changed-by";
const REMOVE_FILES: &str = "orchestrator.io/remove-files";

/// What no `Value` holds, each where a string of its index and a NUL stands.
const RAW: [&str; 5] = [r#""\ud800""#, "1e999", "-0", r#"{"a":1,"a":null}"#, "123456789012345678901234567890"];
/// Deeper than `serde_json` reads a value, and deep enough to end the stack of whoever does not count.
const DEPTHS: [usize; 2] = [200, 100_000];

/// The bytes that are left to choose by.
struct Choices<'a>(std::slice::Iter<'a, u8>);

/// The body of a review.
pub fn review(choices: &[u8]) -> Vec<u8> {
    let mut choices = Choices(choices.iter());
    let old = choices.object();
    let mut new = if choices.one_in(4) { choices.object() } else { old.clone() };
    for _ in 0..choices.below(4) {
        choices.edit(&mut new);
    }
    let is_create = choices.one_in(4);
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": choices.text(&["705ab4f5", "", "\u{0}\"\\"]),
            "operation": if is_create { "CREATE" } else { "UPDATE" },
            "resource": {"group": "orchestrator.io", "version": "v1", "resource": "taskruns"},
            "subResource": choices.pick(&[Value::Null, json!(""), json!("status")]),
            "userInfo": {"username": choices.text(&USERS)},
            "options": {"fieldManager": choices.text(&MANAGERS)},
            "object": new,
            "oldObject": if is_create { Value::Null } else { old },
        },
    });
    for _ in 0..choices.below(4) {
        choices.spoil(&mut review);
    }
    let mut text = review.to_string();
    for (i, raw) in RAW.iter().enumerate() {
        text = text.replace(&format!(r#""{i}\u0000""#), raw);
    }
    for depth in DEPTHS {
        text = text.replace(&format!(r#""{depth}\u0000""#), &("[".repeat(depth) + &"]".repeat(depth)));
    }
    text.into_bytes()
}

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn one_in(&mut self, many: u8) -> bool {
        self.below(many) == many - 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()].clone()
    }

    /// Mostly one that is known, so that two objects have much in common; else the next bytes, or a long one.
    fn text(&mut self, known: &[&str]) -> String {
        match self.byte() {
            byte @ 0xf0..0xff => {
                let bytes: Vec<u8> = (0xf0..=byte).map(|_| self.byte()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            0xff => format!("{}.md", self.pick(&["x", "\u{7f}", "ä", "a, "]).repeat(200)),
            byte => known[usize::from(byte) % known.len()].to_owned(),
        }
    }

    fn list(&mut self, element: fn(&mut Self) -> Value) -> Value {
        (0..self.below(5)).map(|_| element(self)).collect()
    }

    fn file(&mut self) -> Value {
        let mut file = json!({"filename": self.text(&NAMES), "content": self.text(&CONTENTS)});
        if self.one_in(2) {
            file["requestId"] = json!(self.text(&REQUESTS));
        }
        file
    }

    fn variable(&mut self) -> Value {
        json!({"name": self.text(&VARIABLES), "value": self.text(&CONTENTS)})
    }

    fn annotations(&mut self) -> Value {
        let (user, name, other) = (self.text(&USERS), self.text(&NAMES), self.text(&NAMES));
        let names = json!(format!("{name},{other}"));
        let some = json!({"x": "y"});
        let both = json!({CHANGED_BY: user, REMOVE_FILES: names});
        self.pick(&[Value::Null, some, json!({CHANGED_BY: user}), json!({REMOVE_FILES: names}), both])
    }

    fn manager(&mut self) -> Value {
        let files: Value =
            (0..self.below(3)).map(|_| (format!("k:{}", json!({"filename": self.text(&NAMES)})), json!({}))).collect();
        json!({
            "manager": self.text(&MANAGERS),
            "operation": self.pick(&["Apply", "Update"]),
            "fieldsV1": {"f:spec": {"f:markdownFiles": files}},
        })
    }

    fn version(&mut self) -> Value {
        self.pick(&[
            json!(1),
            json!(2),
            json!(3),
            Value::Null,
            json!(0),
            json!(-1),
            json!(u32::MAX),
            json!(i64::MAX),
            json!(u64::MAX),
        ])
    }

    fn object(&mut self) -> Value {
        json!({
            "metadata": {
                "name": self.pick(&["task-7", "auth-task-7"]),
                "labels": self.pick(&[Value::Null, json!({"task-id": "7", "service-name": "auth"}), json!({"x": "y"})]),
                "annotations": self.annotations(),
                "finalizers": self.pick(&[Value::Null, json!(["orchestrator.io/run-cleanup"]), json!(["x"])]),
                "managedFields": self.list(Self::manager),
            },
            "spec": {
                "taskId": self.pick(&[7, 8, 0, -1]),
                "serviceName": self.pick(&["auth", "Auth", ""]),
                "agentName": self.pick(&["coder", "writer", ""]),
                "contextVersion": self.version(),
                "markdownFiles": self.list(Self::file),
                "env": self.list(Self::variable),
                "suspend": self.pick(&[Value::Null, json!(true), json!(false)]),
            },
            "status": self.pick(&[Value::Null, json!({"runs": [{}]}), json!({"runs": []})]),
        })
    }

    /// What somebody does to an object.
    fn edit(&mut self, object: &mut Value) {
        let edit = self.below(8);
        if let Some(files) = object["spec"]["markdownFiles"].as_array_mut() {
            let at = usize::from(self.byte()).checked_rem(files.len());
            match (edit, at) {
                (0, Some(at)) => drop(files.remove(at)),
                (1, Some(at)) => files[at]["content"] = json!(self.text(&CONTENTS)),
                (2, Some(at)) => files[at]["requestId"] = self.pick(&[Value::Null, json!("r-1"), json!("r-2")]),
                (3, Some(at)) => files[at]["filename"] = json!(self.text(&NAMES)),
                (4, _) => files.push(self.file()),
                (5, _) => files.reverse(),
                (6, _) => object["spec"]["contextVersion"] = self.version(),
                _ => object["metadata"]["annotations"] = self.annotations(),
            }
        }
    }

    /// Puts something odd anywhere.
    fn spoil(&mut self, value: &mut Value) {
        let size = value.as_object().map(serde_json::Map::len).or(value.as_array().map(Vec::len)).unwrap_or_default();
        let at = usize::from(self.byte()).checked_rem(size + 1).unwrap_or_default();
        match value {
            Value::Object(map) if at < size => map.values_mut().nth(at).into_iter().for_each(|value| self.spoil(value)),
            Value::Array(list) if at < size => self.spoil(&mut list[at]),
            _ => *value = self.odd(value),
        }
    }

    fn odd(&mut self, value: &Value) -> Value {
        match self.below(18) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(1.5),
            3 => json!(1e300),
            4 => self.version(),
            5 => json!(self.text(&NAMES)),
            6 => json!([]),
            7 => json!({}),
            8 => json!([value]),
            9 => json!([value, value]),
            // the fields without their names
            10 => value.as_object().map(|map| map.values().cloned().collect()).unwrap_or_default(),
            i @ 11..16 => json!(format!("{}\0", i - 11)),
            i => json!(format!("{}\0", DEPTHS[usize::from(i - 16)])),
        }
    }
}
