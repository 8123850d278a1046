//! Who may call the webhook, where that is to be checked: the API server, by its own certificate.

use crate::certificate::common_name;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::sync::{Arc, PoisonError, RwLock};

/// Clients with a certificate of a CA, and one of some names as its common name.
#[derive(Debug)]
pub struct Clients {
    trusted: RwLock<Arc<dyn ClientCertVerifier>>,
    names: Vec<String>,
}

impl Clients {
    /// `bundle` is PEM.
    ///
    /// # Errors
    /// If there is no CA in it.
    pub fn new(bundle: &[u8], names: Vec<String>) -> Result<Self, String> {
        Ok(Self { trusted: RwLock::new(verifier(bundle)?), names })
    }

    /// Trusts these CAs from now on.
    ///
    /// # Errors
    /// If there is none: the former ones are kept.
    pub fn trust(&self, bundle: &[u8]) -> Result<(), String> {
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = verifier(bundle)?;
        Ok(())
    }

    fn trusted(&self) -> Arc<dyn ClientCertVerifier> {
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn verifier(bundle: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(bundle) {
        let ca = ca.map_err(|error| format!("is not PEM: {error}"))?;
        roots.add(ca).map_err(|error| format!("has a CA that cannot be used: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    verifier.map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| format!("has no CA: {error}"))
}

impl ClientCertVerifier for Clients {
    /// None: they may change, and a client that has one certificate sends it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.trusted().verify_client_cert(leaf, between, now)?;
        match common_name(leaf).is_some_and(|name| self.names.contains(&name)) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted().supported_verify_schemes()
    }
}
