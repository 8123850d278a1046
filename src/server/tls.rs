//! TLS as our listeners speak it: 1.2 and 1.3 with what rustls offers, all of it with forward secrecy and authenticated
//! encryption; no renegotiation, no compression, no early data. The certificate is exchanged while they run.

use super::clients::Clients;
use crate::certificate::Pair;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};

/// The certificate that is served from now on; none at the start.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Pair>>);

impl Served {
    /// Serves it to whoever connects from now on.
    pub fn set(&self, pair: Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
    }

    /// What is served.
    pub fn get(&self) -> Option<Pair> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get().map(|pair| pair.served)
    }
}

/// TLS by this certificate; where `clients` is given, for these alone.
pub fn config(served: Arc<Served>, clients: Option<Arc<Clients>>) -> ServerConfig {
    let builder = ServerConfig::builder();
    let mut config = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients).with_cert_resolver(served),
        None => builder.with_no_client_auth().with_cert_resolver(served),
    };
    // each connection proves anew who it is, on both sides
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}
