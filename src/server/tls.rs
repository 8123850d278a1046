//! The webhook's certificate: a CA of our own, made at start, and a leaf signed by it.

use k8s_openapi::jiff::{Span, Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate could not be made.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls does not take it.
    #[error("failed to set up TLS: {0}")]
    Use(#[from] rustls::Error),
}

/// A TLS configuration for these host names or IP addresses, and the CA to trust, as PEM. The key is
/// never written anywhere.
///
/// # Errors
/// If a host is neither a DNS name nor an IP address.
pub fn self_signed(hosts: &[String], now: Timestamp) -> Result<(ServerConfig, String), Error> {
    let ca = CertifiedIssuer::self_signed(ca_params(now)?, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = leaf_params(hosts, now)?.signed_by(&key, &ca)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    Ok((config, ca.pem()))
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = params(vec![], "taskrun-operator CA", now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(hosts: &[String], now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = params(hosts.to_vec(), "taskrun-operator", now)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn params(hosts: Vec<String>, name: &str, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let date = |span: Span| {
        let date = now.to_zoned(TimeZone::UTC).date().saturating_add(span);
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = date(-1.day());
    params.not_after = date(1.year());
    Ok(params)
}
