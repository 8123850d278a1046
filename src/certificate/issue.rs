//! Making a CA and a leaf.

use super::Error;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::time::Duration;

/// How far the API server's clock may be behind ours: certificates are valid from so long before they are made.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(24);

/// A new certificate, as PEM.
pub struct Issued {
    /// Its CA, whose key is gone.
    pub ca: String,
    /// The leaf.
    pub certificate: String,
    /// The leaf's key.
    pub key: String,
}

/// A certificate for these DNS names and IP addresses, good for `lifetime` from now on.
///
/// # Errors
/// If a host is neither a DNS name nor an IP address.
pub fn issue(hosts: &[String], lifetime: SignedDuration, now: Timestamp) -> Result<Issued, Error> {
    // a subject of its own: clients find the CA by it
    let mut params = valid(CertificateParams::new([])?, &format!("taskrun-operator CA {now:.0}"), lifetime, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = valid(CertificateParams::new(hosts)?, "taskrun-operator", lifetime, now);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &ca)?;
    Ok(Issued { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() })
}

fn valid(mut params: CertificateParams, name: &str, life: SignedDuration, now: Timestamp) -> CertificateParams {
    params.distinguished_name.push(DnType::CommonName, name);
    let seconds = |time: Timestamp| Duration::from_secs(time.as_second().try_into().unwrap_or_default());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(now - CLOCK_SKEW);
    params.not_after = epoch + seconds(now + life);
    params
}
