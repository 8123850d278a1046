//! `taskrun-operator run`: webhook, reconciler, PM API and admin endpoints in one process.

use crate::api;
use crate::certificate::Rotation;
use crate::client::{Address, ApiServer, Endpoint, SERVICE, host};
use crate::controller::{self, Settings};
use crate::crd::{TaskNames, is_label};
use crate::leader::Candidate;
use crate::metrics::Metrics;
use crate::rotator::{Rotator, Source, write_limit};
use crate::server::{self, Clients, Readiness, Served, tls};
use crate::telemetry::{self, Traces};
use crate::webhook;
use actix_web::dev::{Server, ServerHandle};
use clap::{Args, ValueEnum};
use futures::future::{BoxFuture, FutureExt, Shared, join_all};
use k8s_openapi::jiff::SignedDuration;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

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

    #[command(flatten)]
    tls: TlsArgs,

    /// Namespace of the operator's own Service, which its certificate names, of its Lease and of its Secret
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

/// The certificate: by default a replica makes one, keeps it in the Secret taskrun-operator-tls for all, renews it when
/// two thirds of its life are over, and writes its CA into the webhook configurations.
#[derive(Args)]
struct TlsArgs {
    /// How long a certificate is good, in hours, minutes and seconds: at least 10s
    #[arg(long, value_name = "DURATION", env = "TASKRUN_CERT_LIFETIME", default_value = "2160h", value_parser = lifetime)]
    cert_lifetime: SignedDuration,

    /// Folder with tls.crt and tls.key that somebody else renews, such as cert-manager, and whose CA somebody else
    /// writes into the webhook configurations. Both files are read anew when they change
    #[arg(long, value_name = "DIR", env = "TASKRUN_CERT_DIR", conflicts_with = "cert_lifetime")]
    cert_dir: Option<PathBuf>,

    /// File with the CAs (PEM) of clients that may call the webhook: those of the certificate that the API server is
    /// given by --admission-control-config-file. Without it everybody may who reaches the port
    #[arg(long, value_name = "FILE", env = "TASKRUN_CLIENT_CA")]
    client_ca: Option<PathBuf>,

    /// Common name that such a client's certificate must have; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "TASKRUN_CLIENT_NAME",
        default_value = "kube-apiserver",
        value_delimiter = ','
    )]
    client_name: Vec<String>,
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
    let traces = Traces::start()?;
    actix_web::rt::System::new().block_on(async {
        let served = serve(args).await;
        traces.stop().await;
        served
    })
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
    let api_server = ApiServer::connect(&metrics.calls).await?;
    let names = args.task_names;
    let (served, clients) = (Arc::new(Served::default()), args.tls.clients()?);
    let is_leaving = Arc::new(AtomicBool::new(false));
    let state = webhook::State { names, metrics: metrics.clone(), is_leaving: is_leaving.clone() };
    let known = clients.as_ref().map(|(_, clients)| clients.clone());
    let webhook = server::webhook(args.webhook_addr, tls::config(served.clone(), known), state)
        .map_err(|e| listen_error(args.webhook_addr, &e))?;
    let admin = server::admin(args.admin_addr, readiness.clone(), metrics.clone())
        .map_err(|e| listen_error(args.admin_addr, &e))?;
    let stop = stop_signal()?.boxed().shared();
    let mut servers = vec![webhook.handle(), admin.handle()];
    actix_web::rt::spawn(webhook);
    actix_web::rt::spawn(admin);
    if let Some(api) = args.api(tls::config(served.clone(), None), stop.clone()).await? {
        servers.push(api.handle());
        actix_web::rt::spawn(api);
    }

    tokio::select! {
        checked = check_names(&api_server, &args) => checked?,
        () = stop.clone() => return Ok(()),
    }
    let (namespace, pod) = (args.operator_namespace.clone(), args.pod_name.clone());
    let candidate = Candidate::new(ApiServer::connect(&metrics.calls).await?, namespace, pod, metrics.clone());
    let leadership = candidate.leadership();
    let settings = Settings { names, default_agent: args.default_agent.clone() };
    let controllers = args.watched().into_iter().map(|namespace| {
        let (metrics, leadership, stop) = (metrics.clone(), leadership.clone(), stop.clone());
        controller::run(api_server.clone(), namespace, settings.clone(), metrics, leadership, stop)
    });
    let controllers = actix_web::rt::spawn(join_all(controllers));
    let mut leading = actix_web::rt::spawn(candidate.run(stop.clone(), controllers));
    let rotator = Rotator {
        api_server,
        address: Address { namespace: args.operator_namespace.clone(), url: args.webhook_url.clone() },
        source: args.source(),
        served,
        clients,
        readiness: readiness.clone(),
        metrics,
        leadership,
        writes: write_limit(),
    };
    let mut rotating = actix_web::rt::spawn(rotator.run());
    tracing::info!(webhook = %args.webhook_addr, admin = %args.admin_addr, "started");

    tokio::select! {
        () = stop => {}
        _ = &mut leading => return Err("the reconciler has ended".into()),
        _ = &mut rotating => return Err("nobody sees to the certificate any more".into()),
    }
    tracing::info!(seconds = args.shutdown_delay, "stopping: serving on for a while");
    readiness.stop();
    is_leaving.store(true, Ordering::Relaxed);
    // the Lease is released meanwhile
    drain(Duration::from_secs(args.shutdown_delay), servers).await?;
    leading.await??;
    Ok(())
}

/// Serves on until nobody sends any more, or until one is asked again to end.
async fn drain(delay: Duration, servers: Vec<ServerHandle>) -> std::io::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = stop_signal()? => {}
    }
    join_all(servers.iter().map(|server| server.stop(true))).await;
    Ok(())
}

/// Refuses to run where TaskRuns are named otherwise: the name is what makes one object a task.
async fn check_names(api_server: &ApiServer, args: &RunArgs) -> Result<(), Box<dyn Error>> {
    for namespace in args.watched() {
        let misnamed = loop {
            match api_server.find_misnamed(namespace.as_deref(), args.task_names).await {
                Ok(misnamed) => break misnamed,
                // a namespace that is gone, or lost its binding, is no reason to serve the others no webhook
                Err(error) if error.is_forbidden() && namespace.is_some() => {
                    tracing::warn!(%error, namespace, "may not list TaskRuns: they are not run until it may");
                    break None;
                }
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

impl RunArgs {
    /// What the API server may call the webhook.
    fn hosts(&self) -> Vec<String> {
        let service = format!("{SERVICE}.{}.svc", self.operator_namespace);
        let host = self.webhook_url.as_deref().and_then(host);
        [Some(service), host].into_iter().flatten().collect()
    }

    /// Where the certificate comes from.
    fn source(&self) -> Source {
        match &self.tls.cert_dir {
            Some(folder) => Source::Mounted(folder.clone()),
            None => Source::Managed(Rotation { hosts: self.hosts(), lifetime: self.tls.cert_lifetime }),
        }
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

impl TlsArgs {
    /// Who may call the webhook, if that is to be checked.
    fn clients(&self) -> Result<Option<(PathBuf, Arc<Clients>)>, String> {
        let Some(file) = &self.client_ca else { return Ok(None) };
        let read = std::fs::read(file).map_err(|error| error.to_string());
        let clients = read.and_then(|bundle| Clients::new(&bundle, self.client_name.clone()));
        let clients = clients.map_err(|problem| format!("--client-ca {}: {problem}", file.display()))?;
        Ok(Some((file.clone(), Arc::new(clients))))
    }
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let lifetime: SignedDuration = text.parse().map_err(|_| "must be such as 2160h, 90m or 45s".to_owned())?;
    let (least, most) = (SignedDuration::from_secs(10), SignedDuration::from_hours(24 * 3650));
    let is_bounded = (least..=most).contains(&lifetime);
    is_bounded.then_some(lifetime).ok_or_else(|| "must be from 10s to 87600h (ten years)".to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    let is_name = is_label(text) && text.len() <= 63;
    is_name.then(|| text.to_owned()).ok_or_else(|| "must be lower-case letters, digits and '-'".to_owned())
}

fn https_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    let Some(host) = host(text).filter(|_| url.scheme_str() == Some("https") && ["/", ""].contains(&url.path())) else {
        return Err("must be https://HOST:PORT, without a path".to_owned());
    };
    match ServerName::try_from(host.as_str()) {
        Ok(_) if !host.ends_with('.') => Ok(text.to_owned()),
        _ => Err(format!("no certificate can be made for the host \"{host}\": a DNS name or an IP address is needed")),
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
