//! The PM HTTP API: tasks for people and programs that know nothing of Kubernetes.
//!
//! It has no rights of its own: each request acts with the caller's bearer token, so Kubernetes RBAC is the only
//! judge and audit logs name the real user. Handlers carry; decisions are in [`crate::task`], calls in
//! [`crate::client`]. Every error has the same typed body.

mod answer;
mod caller;
mod request;
mod stream;
mod tasks;
mod trace;

pub use caller::Sessions;

use crate::task::Code;
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::web::{self, JsonConfig, PathConfig, PayloadConfig, QueryConfig, ServiceConfig};
use actix_web::{HttpResponse, Resource, middleware};
use answer::Failure;
use futures::future::{BoxFuture, Shared};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

/// Most bytes of a request's body: the largest context, escaped as JSON.
const MAX_BODY: usize = 4 * 1024 * 1024;
const BASE: &str = "/api/v1";

/// What the handlers need.
#[derive(Clone)]
pub struct State {
    /// The callers.
    pub sessions: Sessions,
    /// Streams end when this does.
    pub stop: Shared<BoxFuture<'static, ()>>,
}

/// Which task.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is only described")]
pub(crate) struct TaskPath {
    /// Its number, or the name of its TaskRun.
    #[param(max_length = 253, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")]
    task: String,
}

/// What may be wrong with any request.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "they are only described")]
pub(crate) enum Errors {
    /// The request cannot be read.
    #[response(status = 400)]
    InvalidRequest(Failure),
    /// No token, or none that the API server knows.
    #[response(status = 401)]
    Unauthenticated(Failure),
    /// RBAC says no.
    #[response(status = 403)]
    Forbidden(Failure),
    /// There is no such task, version or log.
    #[response(status = 404)]
    NotFound(Failure),
    /// It is another one, or has changed meanwhile.
    #[response(status = 409)]
    Conflict(Failure),
    /// It does not fit: `bytes_left` says what would.
    #[response(status = 413)]
    TooLarge(Failure),
    /// Admission refuses it: `violations` has every reason.
    #[response(status = 422)]
    Invalid(Failure),
    /// Too many requests: `Retry-After` says when to come back.
    #[response(status = 429)]
    RateLimited(Failure),
    /// The API server does not answer: `Retry-After` says when to come back.
    #[response(status = 503)]
    Unavailable(Failure),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "taskrun-operator PM API", description = "Submit tasks and add context to them."),
    servers((url = "/api/v1")),
    paths(
        tasks::submit, tasks::list, tasks::get, tasks::delete, tasks::status, tasks::add_context, tasks::history,
        tasks::version, tasks::cancel, tasks::rerun, tasks::suspend, tasks::resume, tasks::rollback,
        stream::events, stream::logs
    ),
    security(("token" = [])),
    modifiers(&Finish)
)]
struct Document;

struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).description(Some("a Kubernetes token")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        document.info.license = None; // or it would be an empty name
    }
}

/// All routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .app_data(JsonConfig::default().limit(MAX_BODY).error_handler(|error, _| of_json(&error).into()))
        .app_data(PayloadConfig::new(MAX_BODY))
        .app_data(PathConfig::default().error_handler(|error, _| of_path(&error).into()))
        .app_data(QueryConfig::default().error_handler(|error, _| of_query(&error).into()))
        .service(SwaggerUi::new("/api/v1/docs/{_:.*}").url("/api/v1/openapi.json", Document::openapi()))
        .service(resource("/health", "GET").get(health))
        .service(
            web::scope(BASE)
                .wrap(middleware::from_fn(trace::trace))
                .service(resource("/health", "GET").get(health))
                .service(resource("/pm/tasks", "GET, POST").get(tasks::list).post(tasks::submit))
                .service(resource("/pm/tasks/{task}", "GET, DELETE").get(tasks::get).delete(tasks::delete))
                .service(resource("/pm/tasks/{task}/status", "GET").get(tasks::status))
                .service(resource("/pm/tasks/{task}/context", "POST").post(tasks::add_context))
                .service(resource("/pm/tasks/{task}/history", "GET").get(tasks::history))
                .service(resource("/pm/tasks/{task}/history/{version}", "GET").get(tasks::version))
                .service(resource("/pm/tasks/{task}/events", "GET").get(stream::events))
                .service(resource("/pm/tasks/{task}/logs", "GET").get(stream::logs))
                .service(resource("/pm/tasks/{task}/cancel", "POST").post(tasks::cancel))
                .service(resource("/pm/tasks/{task}/rerun", "POST").post(tasks::rerun))
                .service(resource("/pm/tasks/{task}/suspend", "POST").post(tasks::suspend))
                .service(resource("/pm/tasks/{task}/resume", "POST").post(tasks::resume))
                .service(resource("/pm/tasks/{task}/rollback", "POST").post(tasks::rollback)),
        )
        .default_service(web::to(nowhere));
}

async fn health() -> HttpResponse {
    answer::Answer::ok("ok", ())
}

/// A path that answers any method but these in our own words.
fn resource(path: &str, methods: &'static str) -> Resource {
    let refuse = move || std::future::ready(Err::<HttpResponse, _>(Failure::method(methods)));
    web::resource(path).default_service(web::to(refuse))
}

async fn nowhere() -> Result<HttpResponse, Failure> {
    Err(Failure::new(Code::NotFound, "there is no such path: see /api/v1/docs/"))
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(Code::InvalidRequest, format!("the body cannot be read: {error}"))
}

fn of_json(error: &JsonPayloadError) -> Failure {
    match error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => too_large(),
        JsonPayloadError::ContentType => Failure::new(Code::InvalidRequest, "Content-Type must be application/json"),
        JsonPayloadError::Deserialize(error) => unreadable(error),
        other => Failure::new(Code::InvalidRequest, format!("the body cannot be read: {other}")),
    }
}

fn too_large() -> Failure {
    Failure::new(Code::TooLarge, format!("the body has more than {MAX_BODY} bytes: a context has at most 900 KiB"))
}

fn of_path(error: &PathError) -> Failure {
    Failure::new(Code::InvalidRequest, format!("the path cannot be read: {error}"))
}

fn of_query(error: &QueryPayloadError) -> Failure {
    Failure::new(Code::InvalidRequest, format!("the query cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{App, test};

    /// Whoever calls what is described meets a handler: it asks for a token first.
    #[actix_web::test]
    async fn every_path_that_is_described_is_served() {
        let app = test::init_service(App::new().configure(routes)).await;
        let document = serde_json::to_value(Document::openapi()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let mut count = 0;
        for (path, methods) in paths {
            for method in methods.as_object().expect("methods").keys().filter(|key| *key != "parameters") {
                let path = format!("{BASE}{}", path.replace("{task}", "1").replace("{version}", "1"));
                let request =
                    test::TestRequest::default().uri(&path).method(method.to_uppercase().parse().expect("a method"));
                let status = test::call_service(&app, request.to_request()).await.status();
                assert_eq!(status, 503, "{method} {path}: no handler looked for its state");
                count += 1;
            }
        }
        assert_eq!(count, 15);
        let page = test::TestRequest::get().uri("/api/v1/docs/").to_request();
        assert_eq!(test::call_service(&app, page).await.status(), 200);
    }
}
