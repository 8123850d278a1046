//! The routes about tasks: each reads its request, calls [`crate::client::Tasks`] and says what came of it.

use super::answer::{
    Acted, Answer, ContextAdded, Failure, File, History, KubernetesEvents, Name, Run, Status, Submitted, TaskList,
    TaskSummary, VersionFiles, WholeTask,
};
use super::caller::Caller;
use super::request::{AddContext, Expect, ListTasks, Rollback, SubmitTask};
use super::{Errors, TaskPath};
use crate::client::{Expected, Filter, PAGE};
use crate::crd::is_label;
use crate::task::{self, Code, Held, Submission};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Bytes, Json, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use kube::ResourceExt;
use uuid::Uuid;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

type Result<T = HttpResponse, E = Failure> = std::result::Result<T, E>;

/// Submit a task. The same again changes nothing; another task of the same number is refused.
#[utoipa::path(post, path = "/pm/tasks", request_body = SubmitTask, responses(
    (status = 200, description = "submitted, or there already (data.created)", body = Answer<Submitted>), Errors))]
pub async fn submit(caller: Caller, body: Json<SubmitTask>) -> Result {
    let task = body.into_inner();
    let has_token = task.has_token();
    let (task_run, created) = caller.submit(&Submission::from(task)).await?;
    let agent = &task_run.spec.agent_name;
    let waits = created && caller.lacks_agent(agent).await;
    let waits = if waits { format!("; it waits for the Agent {agent:?}, which is not there") } else { String::new() };
    let message = match (created, has_token) {
        (true, false) => "Task submitted successfully",
        (true, true) => {
            "Task submitted successfully; the token in repository was not stored: secrets belong to the Agent"
        }
        (false, _) => "The same task was submitted before",
    };
    let data = Submitted {
        name: task_run.name_any(),
        namespace: caller.namespace.clone(),
        service: task_run.spec.service_name.clone(),
        task_id: task_run.spec.task_id,
        context_version: task_run.spec.context_version,
        created,
    };
    Ok(Answer::ok(message.to_owned() + &waits, data))
}

/// Add context to a task: one more file, never less than what others add meanwhile.
#[utoipa::path(post, path = "/pm/tasks/{task}/context", request_body = AddContext,
    params(TaskPath, ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, pattern = "^[!-~]+$",
        description = "names this request: sent again with the same key, it adds nothing twice")),
    responses((status = 200, description = "added", body = Answer<ContextAdded>), Errors))]
pub async fn add_context(caller: Caller, request: HttpRequest, task: Path<String>, body: Json<AddContext>) -> Result {
    let name = task::parse_name(&task)?;
    let request_id = match super::only(request.headers(), &IDEMPOTENCY_KEY)? {
        None => Uuid::new_v4().to_string(),
        Some(key) => idempotency_key(key)?,
    };
    let added = caller.add_context(&name, &body.additional_context, &request_id, body.uid.as_deref()).await?;
    let message = if added.created { "Context added successfully" } else { "Context was added before" };
    let message = with_held(message, added.held);
    let data = ContextAdded {
        name: added.name,
        context_version: added.version,
        filename: added.filename,
        created: added.created,
    };
    Ok(Answer::ok(message, data))
}

/// What was done, and why it shows no effect yet.
fn with_held(done: &str, held: Option<Held>) -> String {
    match held {
        None => done.to_owned(),
        Some(Held::Cancelled) => format!("{done}; it does not run before the task is run again: it is cancelled"),
        Some(Held::Suspended) => format!("{done}; it does not run before the task is resumed: it is suspended"),
        Some(Held::Waiting) => format!("{done}; it runs when the run that goes on has ended"),
    }
}

fn idempotency_key(key: &HeaderValue) -> Result<String> {
    let key = key.to_str().ok().filter(|key| task::is_request_id(key));
    let most = task::MAX_REQUEST_ID;
    let message = || format!("Idempotency-Key must be 1 to {most} visible ASCII characters");
    key.map(str::to_owned).ok_or_else(|| Failure::new(Code::InvalidRequest, message()))
}

/// List tasks, page by page.
#[utoipa::path(get, path = "/pm/tasks", params(ListTasks), responses(
    (status = 200, description = "one page", body = Answer<TaskList>), Errors))]
pub async fn list(caller: Caller, query: Query<ListTasks>) -> Result {
    let query = query.into_inner();
    let invalid = |message: String| Failure::new(Code::InvalidRequest, message);
    if query.limit.is_some_and(|limit| !(1..=PAGE.1).contains(&limit)) {
        return Err(invalid(format!("limit must be 1 to {}", PAGE.1)));
    }
    if query.service.as_ref().is_some_and(|service| !is_label(service) || service.len() > 63) {
        return Err(invalid("service must be a DNS-1123 label".to_owned()));
    }
    let filter = Filter { service: query.service, phase: query.phase, limit: query.limit, after: query.after };
    let page = caller.list(&filter).await?;
    let tasks = page.tasks.into_iter().map(TaskSummary::from).collect();
    Ok(Answer::ok("ok", TaskList { tasks, next: page.next }))
}

/// A whole task, with its context.
#[utoipa::path(get, path = "/pm/tasks/{task}", params(TaskPath), responses(
    (status = 200, description = "the task", body = Answer<WholeTask>), Errors))]
pub async fn get(caller: Caller, task: Path<String>) -> Result {
    let task_run = caller.get(&task::parse_name(&task)?).await?;
    Ok(Answer::ok("ok", WholeTask::from(task_run)))
}

/// Where a task stands.
#[utoipa::path(get, path = "/pm/tasks/{task}/status", params(TaskPath), responses(
    (status = 200, description = "its status", body = Answer<Status>), Errors))]
pub async fn status(caller: Caller, task: Path<String>) -> Result {
    let task_run = caller.get(&task::parse_name(&task)?).await?;
    Ok(Answer::ok("ok", Status::from(&task_run)))
}

/// The versions of a task and what became of them.
#[utoipa::path(get, path = "/pm/tasks/{task}/history", params(TaskPath), responses(
    (status = 200, description = "its runs", body = Answer<History>), Errors))]
pub async fn history(caller: Caller, task: Path<String>) -> Result {
    let task_run = caller.get(&task::parse_name(&task)?).await?;
    let stored_at = caller.stored_at(&task_run).await?;
    let data = History {
        name: task_run.name_any(),
        context_version: task_run.spec.context_version,
        stored_at,
        runs: task_run.status.unwrap_or_default().runs.into_iter().map(Run::from).collect(),
    };
    Ok(Answer::ok("ok", data))
}

/// What the cluster has told of a task lately: its Events, and those of its present Job.
#[utoipa::path(get, path = "/pm/tasks/{task}/kubernetes-events", params(TaskPath), responses(
    (status = 200, description = "its Events", body = Answer<KubernetesEvents>), Errors))]
pub async fn kubernetes_events(caller: Caller, task: Path<String>) -> Result {
    let task_run = caller.get(&task::parse_name(&task)?).await?;
    let events = caller.events(&task_run).await?;
    Ok(Answer::ok("ok", KubernetesEvents::new(task_run.name_any(), events)))
}

/// The files of a version, for as long as they are kept (`historyLimit`).
#[utoipa::path(get, path = "/pm/tasks/{task}/history/{version}",
    params(TaskPath, ("version" = u32, Path, minimum = 1, maximum = 4_294_967_295_i64, format = Int64, description = "the version")),
    responses((status = 200, description = "its files", body = Answer<VersionFiles>), Errors))]
pub async fn version(caller: Caller, path: Path<(String, u32)>) -> Result {
    let (task, context_version) = path.into_inner();
    let task_run = caller.get(&task::parse_name(&task)?).await?;
    let files = caller.files(&task_run, context_version).await?;
    let markdown_files = files.into_iter().map(File::from).collect();
    let data = VersionFiles { name: task_run.name_any(), context_version, markdown_files };
    Ok(Answer::ok("ok", data))
}

/// End the present run for good; its Job is kept, and nothing starts until the task is run again.
#[utoipa::path(post, path = "/pm/tasks/{task}/cancel", params(TaskPath), request_body = Option<Expect>, responses(
    (status = 200, description = "is being cancelled, or has ended", body = Answer<Acted>), Errors))]
pub async fn cancel(caller: Caller, task: Path<String>, body: Bytes) -> Result {
    let name = task::parse_name(&task)?;
    let task_run = caller.cancel(&name, &expected(&body)?).await?;
    let message = match task_run.spec.cancel {
        Some(true) => "Task is cancelled: its run ends, and none starts until the task is run again",
        _ => "The run had ended already",
    };
    Ok(Answer::ok(message, Acted::from(&task_run)))
}

/// Run the present context once more, as the next version.
#[utoipa::path(post, path = "/pm/tasks/{task}/rerun", params(TaskPath), request_body = Option<Expect>, responses(
    (status = 200, description = "is run again", body = Answer<Acted>), Errors))]
pub async fn rerun(caller: Caller, task: Path<String>, body: Bytes) -> Result {
    let name = task::parse_name(&task)?;
    let task_run = caller.rerun(&name, &expected(&body)?).await?;
    Ok(Answer::ok(with_held("Task is run again", task::held(&task_run)), Acted::from(&task_run)))
}

/// What a body expects, which may be missing.
fn expected(body: &[u8]) -> std::result::Result<Expected, Failure> {
    let read = |body: &[u8]| serde_json::from_slice(body).map_err(|error| super::unreadable(&error));
    let expect: Option<Expect> = if body.is_empty() { None } else { read(body)? };
    Ok(expect.unwrap_or_default().into())
}

/// Suspend the task: its pod ends, and the run goes on when it is resumed.
#[utoipa::path(post, path = "/pm/tasks/{task}/suspend", params(TaskPath), request_body = Option<Expect>, responses(
    (status = 200, description = "is suspended", body = Answer<Acted>), Errors))]
pub async fn suspend(caller: Caller, task: Path<String>, body: Bytes) -> Result {
    let name = task::parse_name(&task)?;
    let task_run = caller.suspend(&name, true, &expected(&body)?).await?;
    Ok(Answer::ok("Task is suspended", Acted::from(&task_run)))
}

/// Resume a suspended task.
#[utoipa::path(post, path = "/pm/tasks/{task}/resume", params(TaskPath), request_body = Option<Expect>, responses(
    (status = 200, description = "is resumed", body = Answer<Acted>), Errors))]
pub async fn resume(caller: Caller, task: Path<String>, body: Bytes) -> Result {
    let name = task::parse_name(&task)?;
    let task_run = caller.suspend(&name, false, &expected(&body)?).await?;
    Ok(Answer::ok(with_held("Task is resumed", task::held(&task_run)), Acted::from(&task_run)))
}

/// Make the files of an older version the present ones, as the next version.
#[utoipa::path(post, path = "/pm/tasks/{task}/rollback", params(TaskPath), request_body = Rollback, responses(
    (status = 200, description = "the files are the present ones", body = Answer<Acted>), Errors))]
pub async fn rollback(caller: Caller, task: Path<String>, body: Json<Rollback>) -> Result {
    let Rollback { context_version: version, present_version, uid } = body.into_inner();
    let expected = Expected { uid, version: present_version };
    let task_run = caller.rollback(&task::parse_name(&task)?, version, &expected).await?;
    let message = format!("The files are those of version {version}");
    Ok(Answer::ok(with_held(&message, task::held(&task_run)), Acted::from(&task_run)))
}

/// Delete a task and its history: its run ends first.
#[utoipa::path(delete, path = "/pm/tasks/{task}", params(TaskPath), responses(
    (status = 200, description = "is being deleted", body = Answer<Name>), Errors))]
pub async fn delete(caller: Caller, task: Path<String>) -> Result {
    let name = task::parse_name(&task)?;
    caller.delete(&name).await?;
    Ok(Answer::ok("Task is being deleted", Name { name }))
}
