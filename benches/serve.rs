//! Servers that the bench starts as processes of their own: the webhook as it ships, and the floor.

use crate::memory;
use actix_web::web::{self, Bytes, PayloadConfig};
use actix_web::{App, HttpResponse, HttpServer};
use clap::ValueEnum;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use taskrun_operator::admission::MAX_REVIEW_BYTES;
use taskrun_operator::certificate::Pair;
use taskrun_operator::metrics::Metrics;
use taskrun_operator::server::{self, Served, tls};
use taskrun_operator::{telemetry, webhook};

/// As many as the webhook has.
const WORKERS: usize = 8;

/// Which.
#[derive(Clone, Copy, ValueEnum)]
pub enum Side {
    Ours,
    Floor,
    Reflector,
}

/// Serves one of them, by the certificate in this folder or as the user of this kubeconfig, until the process is killed.
pub fn serve(side: Side, address: SocketAddr, file: &Path) {
    telemetry::init("info,actix_server=warn");
    actix_web::rt::System::new().block_on(async {
        match side {
            Side::Ours => ours(address, file).await,
            Side::Floor => floor(address, file).await,
            Side::Reflector => {
                memory::reflect(address, file).await;
                Ok(())
            }
        }
        .expect("it serves");
    });
}

async fn ours(address: SocketAddr, certificate: &Path) -> std::io::Result<()> {
    let read = |file: &str| std::fs::read(certificate.join(file)).expect("a file");
    let pair = Pair::parse(&read("tls.crt"), &read("tls.key")).expect("a certificate");
    let served = Arc::new(Served::default());
    served.set(pair);
    let state = webhook::State {
        names: taskrun_operator::crd::TaskNames::default(),
        metrics: Arc::new(Metrics::new().expect("metrics")),
        is_leaving: Arc::new(AtomicBool::new(false)),
    };
    server::webhook(address, tls::config(served, None), state)?.await
}

/// Reads the body, and lets all through.
async fn floor(address: SocketAddr, certificate: &Path) -> std::io::Result<()> {
    let chain = CertificateDer::pem_file_iter(certificate.join("tls.crt")).expect("a file").flatten().collect();
    let key = PrivateKeyDer::from_pem_file(certificate.join("tls.key")).expect("a key");
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a certificate");
    let echo = async |review: Bytes| HttpResponse::Ok().content_type("application/json").body(allowed(&review));
    let app = move || App::new().app_data(PayloadConfig::new(MAX_REVIEW_BYTES)).default_service(web::post().to(echo));
    HttpServer::new(app)
        .workers(WORKERS)
        .tcp_nodelay(true)
        .disable_signals()
        .bind_rustls_0_23(address, tls)?
        .run()
        .await
}

/// The answer to a review, of which only its uid is looked for.
fn allowed(review: &[u8]) -> String {
    const UID: &[u8] = b"\"uid\":\"";
    let uid = review.windows(UID.len()).position(|window| window == UID).map_or(0, |place| place + UID.len());
    let uid = String::from_utf8_lossy(review.get(uid..uid + 36).unwrap_or_default());
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"allowed":true,"uid":"{uid}"}}}}"#
    )
}
