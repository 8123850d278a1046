//! The PM HTTP API: tasks for people and programs that know nothing of Kubernetes.
//!
//! It has no rights of its own: each request acts with the caller's bearer token, so Kubernetes RBAC is the only
//! judge and audit logs name the real user. Handlers carry; decisions are in [`crate::task`], calls in
//! [`crate::client`]. Every error has the same typed body.

mod answer;
mod caller;
mod gate;
mod page;
mod request;
mod stream;
mod tasks;
mod trace;

pub use caller::Sessions;

use crate::task::Code;
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
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
/// Most characters of what a library says of a request: it may quote it.
const MAX_QUOTE: usize = 200;

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
        tasks::version, tasks::kubernetes_events, tasks::cancel, tasks::rerun, tasks::suspend, tasks::resume, tasks::rollback,
        stream::all_events, stream::events, stream::logs
    ),
    components(schemas(answer::Failure)),
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
        .service(web::redirect("/api/v1/docs", "/api/v1/docs/"))
        .service(docs())
        .configure(page::routes)
        .service(resource("/health", "GET").get(health))
        .service(
            web::scope(BASE)
                .wrap(middleware::from_fn(trace::trace))
                .service(resource("/health", "GET").get(health))
                .service(web::scope("/pm").wrap(middleware::from_fn(gate::admit)).configure(tasks_routes)),
        )
        .default_service(web::to(nowhere));
}

/// The description, to browse. Its validator, a site that it would send the description's address to, is off.
fn docs() -> SwaggerUi {
    let docs = SwaggerUi::new("/api/v1/docs/{_:.*}").url("/api/v1/openapi.json", Document::openapi());
    docs.config(utoipa_swagger_ui::Config::default().validator_url("none"))
}

fn tasks_routes(config: &mut ServiceConfig) {
    config
        .service(resource("/tasks", "GET, POST").get(tasks::list).post(tasks::submit))
        // no TaskRun can be called so
        .service(resource("/tasks/events", "GET").get(stream::all_events))
        .service(resource("/tasks/{task}", "GET, DELETE").get(tasks::get).delete(tasks::delete))
        .service(resource("/tasks/{task}/status", "GET").get(tasks::status))
        .service(resource("/tasks/{task}/context", "POST").post(tasks::add_context))
        .service(resource("/tasks/{task}/history", "GET").get(tasks::history))
        .service(resource("/tasks/{task}/history/{version}", "GET").get(tasks::version))
        .service(resource("/tasks/{task}/events", "GET").get(stream::events))
        .service(resource("/tasks/{task}/kubernetes-events", "GET").get(tasks::kubernetes_events))
        .service(resource("/tasks/{task}/logs", "GET").get(stream::logs))
        .service(resource("/tasks/{task}/cancel", "POST").post(tasks::cancel))
        .service(resource("/tasks/{task}/rerun", "POST").post(tasks::rerun))
        .service(resource("/tasks/{task}/suspend", "POST").post(tasks::suspend))
        .service(resource("/tasks/{task}/resume", "POST").post(tasks::resume))
        .service(resource("/tasks/{task}/rollback", "POST").post(tasks::rollback));
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

/// A header that a request may have once: of two, one would be dropped in silence.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Failure> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Failure::new(Code::InvalidRequest, format!("the header {name} must not be sent twice"))),
        (value, None) => Ok(value),
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(Code::InvalidRequest, format!("the body cannot be read: {}", without_quotes(error)))
}

/// What is wrong with a body, not what stands in it: that may be a secret.
fn without_quotes(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let is_about_fields = ["unknown field", "missing field", "duplicate field"].iter().any(|it| text.starts_with(it));
    match text.rsplit_once(", expected") {
        _ if is_about_fields || !error.is_data() => cut(&text),
        Some((_, expected)) => cut(&format!("expected{expected}")),
        None => format!("line {} column {}", error.line(), error.column()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
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
    Failure::new(Code::InvalidRequest, format!("the path cannot be read: {}", cut(&error.to_string())))
}

fn of_query(error: &QueryPayloadError) -> Failure {
    Failure::new(Code::InvalidRequest, format!("the query cannot be read: {}", cut(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever calls what is described meets a handler: it asks who calls first.
    #[actix_web::test]
    async fn every_path_that_is_described_is_served() {
        use actix_web::{App, test};
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
                assert_eq!(status, 503, "{method} {path}: no handler looked for its caller");
                count += 1;
            }
        }
        assert_eq!(count, 17);
        let page = test::TestRequest::get().uri("/api/v1/docs/").to_request();
        assert_eq!(test::call_service(&app, page).await.status(), 200);
    }

    #[test]
    fn every_type_that_is_spoken_of_is_described() {
        let document = serde_json::to_value(Document::openapi()).expect("JSON");
        let text = document.to_string();
        let names = text.split("#/components/schemas/").skip(1);
        let names: Vec<&str> = names.filter_map(|rest| rest.split('"').next()).collect();
        assert!(names.contains(&"Failure"));
        for name in names {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_body_does_not_quote_it() {
        let long = "x".repeat(1_000);
        for (body, told) in [
            (r#"{"context_version": "se, expected cret"}"#, "expected u32 at line 1 column 39"),
            (r#"{"context_version": -7}"#, "expected u32 at line 1 column 22"),
            (
                r#"{"contextVersion": "secret"}"#,
                "unknown field `contextVersion`, expected one of `context_version`, `present_version`, `uid` at",
            ),
            ("{}", "missing field `context_version` at line 1 column 2"),
            (r#"{"context_version": 1, "context_version": 2}"#, "duplicate field `context_version`"),
            (r#"{"context_version": secret}"#, "expected value at line 1 column 21"),
            (&format!("{{\"{long}\": 1}}"), "unknown field `xxx"),
        ] {
            let error = serde_json::from_str::<request::Rollback>(body).err().expect("an error");
            let said = without_quotes(&error);
            assert!(said.starts_with(told) && said.len() <= MAX_QUOTE && !said.contains("cret"), "{body}: {said}");
        }
    }
}
