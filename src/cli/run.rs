//! `taskrun-operator run`: webhook, reconciler, PM API and admin endpoints in one process.

use crate::api;
use crate::client::{ApiServer, Endpoint};
use crate::clock::now;
use crate::controller::{self, Settings};
use crate::crd::{TaskNames, is_label};
use crate::leader::{Candidate, Leadership};
use crate::metrics::Metrics;
use crate::server::{self, Readiness, tls};
use crate::{telemetry, webhook};
use actix_web::dev::Server;
use clap::{Args, ValueEnum};
use futures::future::{BoxFuture, FutureExt, Shared, join_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often to see whether the webhook configurations still name us.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long to wait before what must be there at the start is looked for again.
const RETRY: Duration = Duration::from_secs(2);

/// Each option can be given as an environment variable, too.
#[derive(Args)]
pub struct RunArgs {
    /// Namespace whose TaskRuns are reconciled; repeatable. Without it: all namespaces
    #[arg(long = "namespace", value_name = "NAME", env = "TASKRUN_NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,

    /// Address of the admission webhook (TLS)
    #[arg(long, value_name = "IP:PORT", env = "TASKRUN_WEBHOOK_ADDR", default_value = "0.0.0.0:9443")]
    webhook_addr: SocketAddr,

    /// URL under which the API server reaches the webhook, without a path: for an operator outside the
    /// cluster. Written into the webhook configurations instead of the Service
    #[arg(long, value_name = "https://HOST:PORT", env = "TASKRUN_WEBHOOK_URL", value_parser = https_url)]
    webhook_url: Option<String>,

    /// Address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(long, value_name = "IP:PORT", env = "TASKRUN_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    admin_addr: SocketAddr,

    #[command(flatten)]
    api: ApiArgs,

    /// Namespace of the operator's own Service, which its certificate names, and of its Lease
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "taskrun-system")]
    operator_namespace: String,

    /// Name of this process among the replicas, of which one leads: its pod's. A process takes the Lease of
    /// an earlier one of its name over at once, so no two that live may share it. Without it: a random name,
    /// and the Lease of one that was killed is waited for, 15 s
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: Option<String>,

    /// How TaskRuns are named: task-{taskId}, or {serviceName}-task-{taskId} where services number
    /// their tasks apart
    #[arg(long, value_name = "SCHEME", env = "TASKRUN_TASK_NAMES", value_enum, default_value_t)]
    task_names: TaskNames,

    /// Agent that runs tasks whose own Agent does not exist
    #[arg(long, value_name = "NAME", env = "TASKRUN_DEFAULT_AGENT")]
    default_agent: Option<String>,

    /// Seconds to go on serving after SIGTERM, with /readyz failing, until no one sends any more
    #[arg(long, value_name = "SECONDS", env = "TASKRUN_SHUTDOWN_DELAY", default_value_t = 10)]
    shutdown_delay: u64,

    /// Log filter: a level, or module=level pairs
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info,actix_server=warn")]
    log: String,
}

/// The PM API: off without an address.
#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "clap makes the options' names of them")]
struct ApiArgs {
    /// Address of the PM API (TLS, by the webhook's certificate). Callers send their own Kubernetes token
    #[arg(long, value_name = "IP:PORT", env = "TASKRUN_API_ADDR")]
    api_addr: Option<SocketAddr>,

    /// Namespace whose tasks the PM API speaks of
    #[arg(long, value_name = "NAME", env = "TASKRUN_API_NAMESPACE", default_value = "orchestrator", value_parser = namespace)]
    api_namespace: String,

    /// Requests a second that the PM API takes from one token; four times as many may come at once
    #[arg(long, value_name = "REQUESTS", env = "TASKRUN_API_RATE_LIMIT", default_value = "50")]
    api_rate_limit: NonZeroU32,

    /// Serve the PM API as plain HTTP: only on a loopback address, since tokens would be readable
    #[arg(long, env = "TASKRUN_API_PLAIN_HTTP", requires = "api_addr")]
    api_plain_http: bool,
}

/// Runs until SIGTERM or Ctrl-C.
pub fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    telemetry::init(&args.log);
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "TLS is set up twice")?;
    raise_open_files();
    actix_web::rt::System::new().block_on(serve(args))
}

/// The soft limit is often 1024, for programs that use `select`; webhook and PM API share it.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "failed to raise the limit of open files");
    }
}

async fn serve(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let (metrics, readiness) = (Arc::new(Metrics::new()?), Readiness::default());
    let api_server = ApiServer::connect().await?;
    let names = args.task_names;
    let (tls, ca) = tls::self_signed(&args.hosts(), now())?;
    let state = webhook::State { names, metrics: metrics.clone() };
    let webhook =
        server::webhook(args.webhook_addr, tls.clone(), state).map_err(|e| listen_error(args.webhook_addr, &e))?;
    let admin = server::admin(args.admin_addr, readiness.clone(), metrics.clone())
        .map_err(|e| listen_error(args.admin_addr, &e))?;
    let stop = stop_signal()?.boxed().shared();
    let mut servers = vec![webhook.handle(), admin.handle()];
    actix_web::rt::spawn(webhook);
    actix_web::rt::spawn(admin);
    if let Some(api) = args.api(tls, stop.clone()).await? {
        servers.push(api.handle());
        actix_web::rt::spawn(api);
    }

    tokio::select! {
        checked = check_names(&api_server, &args) => checked?,
        () = stop.clone() => return Ok(()),
    }
    let (namespace, pod) = (args.operator_namespace.clone(), args.pod_name.clone());
    let candidate = Candidate::new(ApiServer::connect().await?, namespace, pod, metrics.clone());
    let leadership = candidate.leadership();
    let settings = Settings { names, default_agent: args.default_agent.clone() };
    let controllers = args.watched().into_iter().map(|namespace| {
        let (metrics, leadership, stop) = (metrics.clone(), leadership.clone(), stop.clone());
        controller::run(api_server.clone(), namespace, settings.clone(), metrics, leadership, stop)
    });
    let controllers = actix_web::rt::spawn(join_all(controllers));
    let mut leading = actix_web::rt::spawn(candidate.run(stop.clone(), controllers));
    let url = args.webhook_url.clone();
    let registering = actix_web::rt::spawn(register(api_server, ca, url, leadership, readiness.clone()));
    tracing::info!(webhook = %args.webhook_addr, admin = %args.admin_addr, "started");

    tokio::select! {
        () = stop => {}
        _ = &mut leading => return Err("the reconciler has ended".into()),
    }
    tracing::info!(seconds = args.shutdown_delay, "stopping: serving on for a while");
    registering.abort();
    readiness.set(Err("stopping"));
    // the Lease is released meanwhile
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.shutdown_delay)) => {}
        () = stop_signal()? => {}
    }
    for server in servers {
        server.stop(true).await;
    }
    leading.await??;
    Ok(())
}

/// Refuses to run where TaskRuns are named otherwise: the name is what makes one object a task.
async fn check_names(api_server: &ApiServer, args: &RunArgs) -> Result<(), Box<dyn Error>> {
    for namespace in args.watched() {
        let misnamed = loop {
            match api_server.find_misnamed(namespace.as_deref(), args.task_names).await {
                Ok(misnamed) => break misnamed,
                Err(error) => tracing::warn!(%error, "failed to list TaskRuns"),
            }
            tokio::time::sleep(RETRY).await;
        };
        if let Some(name) = misnamed {
            let scheme = args.task_names.to_possible_value().map(|value| value.get_name().to_owned());
            let scheme = scheme.unwrap_or_default();
            return Err(format!(
                "TaskRun \"{name}\" is not named by --task-names={scheme}: all of an installation are named alike"
            )
            .into());
        }
    }
    Ok(())
}

/// Keeps the webhook known while this process leads: each has a certificate of its own.
async fn register(
    api_server: ApiServer,
    ca: String,
    url: Option<String>,
    leadership: Leadership,
    readiness: Readiness,
) {
    readiness.set(Err("standby"));
    while leadership.acquired().await {
        tokio::select! {
            biased;
            () = leadership.lost() => readiness.set(Err("standby")),
            () = keep_registered(&api_server, &ca, url.as_deref(), &readiness) => {}
        }
    }
}

/// Ready while the webhook is known.
async fn keep_registered(api_server: &ApiServer, ca: &str, url: Option<&str>, readiness: &Readiness) {
    loop {
        match api_server.register_webhooks(ca, url).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("wrote the webhook configurations: ready"),
            Err(error) => {
                tracing::warn!(%error, "failed to write the webhook configurations: is webhook-config/ applied?");
                readiness.set(Err("the webhook is not registered"));
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        readiness.set(Ok(()));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl RunArgs {
    /// What the API server may call the webhook.
    fn hosts(&self) -> Vec<String> {
        let service = format!("taskrun-operator.{}.svc", self.operator_namespace);
        let url = self.webhook_url.as_ref().and_then(|url| url.parse::<actix_web::http::Uri>().ok());
        let host = url.and_then(|url| url.host().map(|host| host.trim_matches(['[', ']']).to_owned()));
        [Some(service), host].into_iter().flatten().collect()
    }

    /// The PM API's listener, if there is to be one.
    async fn api(
        &self,
        tls: rustls::ServerConfig,
        stop: Shared<BoxFuture<'static, ()>>,
    ) -> Result<Option<Server>, Box<dyn Error>> {
        let Some(addr) = self.api.api_addr else { return Ok(None) };
        let is_plain = self.api.api_plain_http;
        if is_plain && !addr.ip().is_loopback() {
            return Err("--api-plain-http needs a loopback address in --api-addr: tokens would be readable".into());
        }
        let endpoint = Endpoint::infer(self.api.api_namespace.clone(), self.task_names).await?;
        let sessions = api::Sessions::new(endpoint, self.api.api_rate_limit);
        let tls = (!is_plain).then_some(tls);
        let server = server::api(addr, tls, api::State { sessions, stop }).map_err(|e| listen_error(addr, &e))?;
        tracing::info!(api = %addr, namespace = self.api.api_namespace, "serving the PM API");
        Ok(Some(server))
    }

    /// One watch a namespace; one for all if none is named.
    fn watched(&self) -> Vec<Option<String>> {
        match self.namespaces.is_empty() {
            true => vec![None],
            false => self.namespaces.iter().cloned().map(Some).collect(),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let is_name = is_label(text) && text.len() <= 63;
    is_name.then(|| text.to_owned()).ok_or_else(|| "must be lower-case letters, digits and '-'".to_owned())
}

fn https_url(text: &str) -> Result<String, String> {
    let url: actix_web::http::Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    match (url.scheme_str(), url.host(), url.path()) {
        (Some("https"), Some(_), "/" | "") => Ok(text.to_owned()),
        _ => Err("must be https://HOST:PORT, without a path".to_owned()),
    }
}

fn listen_error(addr: SocketAddr, error: &std::io::Error) -> String {
    format!("failed to listen on {addr}: {error}")
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + Sync + 'static> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
