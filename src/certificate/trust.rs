//! Whether a client that trusts a bundle accepts what is served, judged as clients do: by a verifier of theirs.

use super::{Error, Pair};
use k8s_openapi::jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use std::sync::Arc;
use std::time::Duration;

/// Whether a client that trusts the CAs in `bundle` (PEM) and asks for `name` accepts this certificate now.
///
/// # Errors
/// Why not.
pub fn check(pair: &Pair, bundle: &[u8], name: &str, now: Timestamp) -> Result<(), Error> {
    let untrusted = |problem: String| Error::Untrusted { name: name.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).flatten());
    if roots.is_empty() {
        return Err(untrusted("the bundle of CAs is empty".to_owned()));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|error| untrusted(error.to_string()))?;
    let [leaf, between @ ..] = pair.served.cert.as_slice() else {
        return Err(untrusted("there is none".to_owned()));
    };
    let server = ServerName::try_from(name).map_err(|error| untrusted(error.to_string()))?;
    let seconds = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or_default()));
    match verifier.verify_server_cert(leaf, between, &server, &[], seconds) {
        Ok(_) => Ok(()),
        Err(_) if is_trusted_itself(pair, bundle, &server, now) => Ok(()),
        Err(error) => Err(untrusted(error.to_string())),
    }
}

/// Whether the leaf is one of the bundle: enough for the API server, though not for rustls where the leaf is also a CA, as
/// `openssl req -x509` makes them.
fn is_trusted_itself(pair: &Pair, bundle: &[u8], server: &ServerName<'_>, now: Timestamp) -> bool {
    let leaf = &pair.served.cert[0];
    let is_named = || ParsedCertificate::try_from(leaf).and_then(|leaf| verify_server_name(&leaf, server)).is_ok();
    CertificateDer::pem_slice_iter(bundle).flatten().any(|ca| ca == *leaf)
        && (pair.not_before..=pair.not_after).contains(&now)
        && is_named()
}
