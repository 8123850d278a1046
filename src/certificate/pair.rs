//! A certificate with its chain and its key, as it is stored and as it is served.

use super::Error;
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate, its chain and its key.
#[derive(Clone)]
pub struct Pair {
    /// As rustls serves it.
    pub served: Arc<CertifiedKey>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// PEM: the leaf, then whatever is between it and its CA.
    pub certificate: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
}

impl Pair {
    /// Reads both; they must belong together.
    ///
    /// # Errors
    /// Says which of the two is wrong, and never shows what it holds.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| Error::unreadable("tls.crt", "is not PEM"))?;
        let leaf = chain.first().ok_or_else(|| Error::unreadable("tls.crt", "holds no certificate"))?;
        let (not_before, not_after) =
            validity(leaf).ok_or_else(|| Error::unreadable("tls.crt", "is no certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::unreadable("tls.key", "holds no key"))?;
        let served = CertifiedKey::from_der(chain, private, &default_provider())
            .map_err(|error| Error::unreadable("tls.key", format!("does not fit tls.crt: {error}")))?;
        let (certificate, key) = (certificate.to_vec(), key.to_vec());
        Ok(Self { served: Arc::new(served), not_before, not_after, certificate, key })
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        (&self.certificate, &self.key) == (&other.certificate, &other.key)
    }
}

impl Debug for Pair {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({} to {})", self.not_before, self.not_after)
    }
}

/// From when and until when a certificate is valid.
pub(super) fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(certificate.validity().not_before)?, time(certificate.validity().not_after)?))
}

/// A certificate's common name, if it has one.
#[must_use]
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    names.next()?.as_str().ok().map(ToOwned::to_owned)
}
