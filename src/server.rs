//! The listeners: webhook (TLS), PM API (TLS, or plain HTTP on loopback) and admin (plain HTTP: `/livez`, `/readyz`,
//! `/metrics`).

mod clients;
pub mod tls;

pub use clients::Clients;
pub use tls::Served;

use crate::metrics::Metrics;
use crate::{api, webhook};
use actix_web::dev::Server;
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Of the webhook. Longer than the 90 s for which the API server keeps an idle connection: the side that closes first
/// loses a request now and then.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// Workers of the webhook: more than cores, so that the kernel lets a short review go before what keeps another one busy.
/// Under a flood on two cores the 99th percentile is half of what it is with two.
const WEBHOOK_WORKERS: usize = 8;
/// Connections that one of these holds at once, with those that are still shaking hands: far more than API servers
/// open, since each of a flood keeps its place for the three seconds of a handshake.
const WEBHOOK_CONNECTIONS: usize = 1024;
/// Workers of the PM API, which waits for the API server most of the time.
const API_WORKERS: usize = 2;
/// Connections that one of these serves at once: each may cost one to the API server as well, and what the webhook
/// needs must be left.
const API_CONNECTIONS: usize = 128;
/// How long a caller's idle connection is kept.
const API_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The longest that a request in flight is waited for at the end.
const STOP_SECONDS: u64 = 15;

const STARTING: &str = "starting";
const STOPPING: &str = "stopping";

/// Whether this process can do its work, as `/readyz` says, or why not.
#[derive(Clone)]
pub struct Readiness(Arc<RwLock<Result<(), String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Err(STARTING.to_owned()))))
    }
}

impl Readiness {
    /// This process is ending: it is not ready again.
    pub fn stop(&self) {
        self.set(Err(STOPPING.to_owned()));
    }

    /// Says so, or why not.
    pub fn set(&self, ready: Result<(), String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *known != ready && !known.as_ref().is_err_and(|why| why == STOPPING) {
            match &ready {
                Ok(()) => tracing::info!("ready"),
                Err(why) if why == STOPPING || known.as_ref().is_err_and(|why| why == STARTING) => {
                    tracing::info!(why, "not ready");
                }
                Err(why) => tracing::warn!(why, "not ready"),
            }
            *known = ready;
        }
    }

    fn get(&self) -> Result<(), String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Listens for admission reviews.
///
/// # Errors
/// If the address cannot be bound.
pub fn webhook(addr: SocketAddr, tls: rustls::ServerConfig, state: webhook::State) -> io::Result<Server> {
    let metrics = state.metrics.clone();
    let server = HttpServer::new(move || App::new().app_data(Data::new(state.clone())).configure(webhook::routes))
        .workers(WEBHOOK_WORKERS)
        .max_connections(WEBHOOK_CONNECTIONS)
        // of handshakes at once, in truth: or some that say nothing would keep out all others
        .max_connection_rate(WEBHOOK_CONNECTIONS)
        .keep_alive(KEEP_ALIVE)
        // for the first request, too: the API server opens a connection now and then that it needs only later
        .client_request_timeout(KEEP_ALIVE)
        // or the first answer of a connection waits 40 ms for the receipt of the handshake's last words
        .tcp_nodelay(true)
        .h1_allow_half_closed(false)
        .on_connect(move |io, data| webhook::connections::opened(io, data, &metrics))
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals()
        .bind_rustls_0_23(addr, tls)?;
    Ok(server.run())
}

/// Listens for the PM API; without TLS only where nobody else can listen to it.
///
/// # Errors
/// If the address cannot be bound.
pub fn api(addr: SocketAddr, tls: Option<rustls::ServerConfig>, state: api::State) -> io::Result<Server> {
    let server = HttpServer::new(move || App::new().app_data(Data::new(state.clone())).configure(api::routes))
        .workers(API_WORKERS)
        .max_connections(API_CONNECTIONS)
        .keep_alive(API_KEEP_ALIVE)
        // or a client that goes away would not end its streams
        .h1_allow_half_closed(false)
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.bind_rustls_0_23(addr, tls)?,
        None => server.bind(addr)?,
    };
    Ok(server.run())
}

/// Listens for probes and scrapes.
///
/// # Errors
/// If the address cannot be bound.
pub fn admin(addr: SocketAddr, readiness: Readiness, metrics: Arc<Metrics>) -> io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(readiness.clone()))
            .app_data(Data::from(metrics.clone()))
            .route("/livez", web::get().to(HttpResponse::Ok))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(render_metrics))
    });
    Ok(server.workers(1).shutdown_timeout(1).disable_signals().bind(addr)?.run())
}

async fn readyz(readiness: Data<Readiness>) -> HttpResponse {
    match readiness.get() {
        Ok(()) => HttpResponse::Ok().body("ok"),
        Err(why) => HttpResponse::ServiceUnavailable().body(format!("not ready: {why}")),
    }
}

async fn render_metrics(metrics: Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(metrics.render())
}
