//! What a watch has seen: the tasks as they are, which of them a relist no longer has, and whether all are at rest.

use super::list::order;
use crate::task::{Summary, is_at_rest};
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One task on the board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What is said of it.
    pub summary: Summary,
    /// Whether no pod will come any more.
    pub is_at_rest: bool,
    /// Whether it was there and is no more.
    pub is_gone: bool,
}

/// The tasks that are watched.
#[derive(Debug, Default)]
pub struct Board {
    /// Those that were named; all if none was.
    named: BTreeSet<String>,
    rows: BTreeMap<(String, u64), Row>,
    /// What the present relist of each watch has named so far.
    listed: BTreeMap<Option<String>, BTreeSet<String>>,
    /// The watches that have told once all that there is.
    ready: BTreeSet<Option<String>>,
}

impl Board {
    /// A board for these tasks, or for all.
    pub fn new(named: &[String]) -> Self {
        Self { named: named.iter().cloned().collect(), ..Self::default() }
    }

    /// The watches that it takes: one a named task, or one.
    pub fn watches(&self) -> Vec<Option<String>> {
        match self.named.is_empty() {
            true => vec![None],
            false => self.named.iter().cloned().map(Some).collect(),
        }
    }

    /// Takes in what a watch has seen; returns the rows that are otherwise now.
    pub fn note(&mut self, watch: Option<&String>, event: Event<DynamicObject>) -> Vec<Row> {
        match event {
            Event::Init => {
                self.listed.insert(watch.cloned(), BTreeSet::new());
                vec![]
            }
            Event::InitApply(object) => {
                self.listed.entry(watch.cloned()).or_default().insert(object.name_any());
                self.put(&object).into_iter().collect()
            }
            Event::InitDone => {
                self.ready.insert(watch.cloned());
                let listed = self.listed.remove(&watch.cloned()).unwrap_or_default();
                let is_its = |name: &String| watch.is_none_or(|watched| watched == name);
                let names = self.rows.values().filter(|row| !row.is_gone).map(|row| row.summary.name.clone());
                let gone: Vec<String> = names.filter(|name| is_its(name) && !listed.contains(name)).collect();
                gone.iter().filter_map(|name| self.remove(name)).collect()
            }
            Event::Apply(object) => self.put(&object).into_iter().collect(),
            Event::Delete(object) => self.remove(&object.name_any()).into_iter().collect(),
        }
    }

    fn put(&mut self, object: &DynamicObject) -> Option<Row> {
        let value = serde_json::to_value(object).unwrap_or(Value::Null);
        let row = Row { summary: Summary::of(&value), is_at_rest: is_at_rest(&value, None), is_gone: false };
        let before = self.rows.insert(order(&row.summary.name), row.clone());
        (before.as_ref() != Some(&row)).then_some(row)
    }

    /// Of those that were named the row stays, and says that the task is gone.
    fn remove(&mut self, name: &str) -> Option<Row> {
        let mut row = self.rows.remove(&order(name))?;
        row.is_gone = true;
        row.summary.phase = "Gone".into();
        row.summary.message = "deleted".into();
        if self.named.contains(name) {
            self.rows.insert(order(name), row.clone());
        }
        Some(row)
    }

    /// The rows, by name.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Whether all that there is has been told once.
    pub fn is_ready(&self) -> bool {
        self.watches().iter().all(|watch| self.ready.contains(watch))
    }

    /// A named task that has never been there.
    pub fn missing(&self) -> Option<&String> {
        let is_known =
            |name: &&String| self.rows.contains_key(&order(name)) || !self.ready.contains(&Some((*name).clone()));
        self.named.iter().find(|name| !is_known(name))
    }

    /// Whether nothing is to come, and if so whether all ended well.
    pub fn result(&self) -> Option<bool> {
        let is_over = self.is_ready() && self.rows().all(|row| row.is_at_rest || row.is_gone);
        is_over.then(|| self.rows().all(|row| row.summary.phase == "Succeeded"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, version: u32, phase: &str) -> DynamicObject {
        serde_json::from_value(
            json!({"apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "metadata": {"name": name},
            "spec": {"contextVersion": version}, "status": {"phase": phase, "contextVersion": 1}}),
        )
        .expect("an object")
    }

    fn names(board: &Board) -> Vec<(&str, &str)> {
        board.rows().map(|row| (row.summary.name.as_str(), row.summary.phase.as_str())).collect()
    }

    #[test]
    fn a_relist_tells_what_is_gone_and_nothing_that_is_as_before() {
        let mut board = Board::new(&[]);
        for event in [
            Event::Init,
            Event::InitApply(object("task-10", 1, "Running")),
            Event::InitApply(object("task-9", 1, "Failed")),
        ] {
            board.note(None, event);
        }
        assert!(!board.is_ready());
        board.note(None, Event::InitDone);
        assert_eq!(names(&board), [("task-9", "Failed"), ("task-10", "Running")]);
        assert_eq!(board.result(), None);
        board.note(None, Event::Init);
        assert_eq!(board.note(None, Event::InitApply(object("task-10", 1, "Running"))), []);
        let gone = board.note(None, Event::InitDone);
        assert_eq!((gone.len(), gone[0].is_gone), (1, true));
        assert_eq!(names(&board), [("task-10", "Running")]);
        board.note(None, Event::Apply(object("task-10", 1, "Succeeded")));
        assert_eq!(board.result(), Some(true));
    }

    #[test]
    fn named_tasks_are_waited_for_missed_and_not_forgotten() {
        let mut board = Board::new(&["task-1".into(), "task-2".into()]);
        let watches = board.watches();
        for event in [Event::Init, Event::InitApply(object("task-1", 2, "Succeeded")), Event::InitDone] {
            board.note(watches[0].as_ref(), event);
        }
        assert_eq!((board.missing(), board.result()), (None, None));
        for event in [Event::Init, Event::InitDone] {
            board.note(watches[1].as_ref(), event);
        }
        assert_eq!(board.missing().map(String::as_str), Some("task-2"));
        board.note(watches[1].as_ref(), Event::Apply(object("task-2", 1, "Failed")));
        // version 2 of task-1 is still to come
        assert_eq!((board.missing(), board.result()), (None, None));
        board.note(watches[0].as_ref(), Event::Delete(object("task-1", 2, "Succeeded")));
        assert_eq!(names(&board), [("task-1", "Gone"), ("task-2", "Failed")]);
        assert_eq!(board.result(), Some(false));
    }
}
