//! Live lists of what belongs to a task, many tasks at a time.
//!
//! The API server goes through all objects of a namespace for each list by label, so that a burst of tasks would cost the
//! square of its size. Tasks that ask while a list is under way share the next one: what each gets was read after it had
//! asked, as if it had listed by itself.

use crate::client::{ApiServer, Error};
use crate::crd::{RunId, TASK_LABEL};
use crate::plan::task_selector;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Most tasks that share a list: their names must fit a URL.
const MOST: usize = 50;

/// Those of one kind, by namespace.
pub struct Lists<K>(Arc<Mutex<HashMap<String, Vec<Asked<K>>>>>);

/// A task whose objects are asked for, and who asks.
struct Asked<K> {
    task: String,
    answer: oneshot::Sender<Vec<K>>,
}

impl<K> Default for Lists<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Lists<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// All objects of this task as they are now, whoever owns them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn of_task(&self, api_server: &ApiServer, namespace: &str, run: &RunId) -> Result<Vec<K>, Error> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { task: run.task(), answer };
        let is_first = {
            let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = !lists.contains_key(namespace);
            lists.entry(namespace.to_owned()).or_default().push(asked);
            is_first
        };
        if is_first {
            // a task of its own: whoever asked may be gone before it is done
            tokio::spawn(answer_all(self.0.clone(), api_server.clone(), namespace.to_owned()));
        }
        match answered.await {
            Ok(found) => Ok(found),
            // it failed: each finds out why by itself
            Err(_) => api_server.list(namespace, &task_selector(run)).await,
        }
    }
}

/// Lists until nobody asks any more. While it does, the namespace has an entry.
async fn answer_all<K>(lists: Arc<Mutex<HashMap<String, Vec<Asked<K>>>>>, api_server: ApiServer, namespace: String)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    loop {
        let asked = {
            let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
            let mut waiting = lists.remove(&namespace).unwrap_or_default();
            if waiting.is_empty() {
                return;
            }
            let later = waiting.split_off(waiting.len().min(MOST));
            lists.insert(namespace.clone(), later);
            waiting
        };
        let tasks: Vec<&str> = asked.iter().map(|asked| asked.task.as_str()).collect();
        let Ok(found) = api_server.list::<K>(&namespace, &format!("{TASK_LABEL} in ({})", tasks.join(","))).await
        else {
            continue;
        };
        let mut by_task: HashMap<String, Vec<K>> = HashMap::new();
        for object in found {
            let task = object.labels().get(TASK_LABEL).cloned().unwrap_or_default();
            by_task.entry(task).or_default().push(object);
        }
        for Asked { task, answer } in asked {
            // two may ask for one task, where it has two TaskRuns
            let _ = answer.send(by_task.get(&task).cloned().unwrap_or_default());
        }
    }
}
