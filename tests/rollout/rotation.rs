//! Certificates that are replaced while they are in use.

use super::line::{Line, trusting};
use crate::support::Cluster;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The old CA, the present one and the next.
const MOST_TRUSTED: usize = 3;
const THE_SECRET: &str = "the Secret";

/// Waits until the Secret's certificate and those that the replicas serve have changed so many times, within this time;
/// at every look each replica serves one that both webhook configurations trust.
pub async fn follow(cluster: &Cluster, replicas: &[SocketAddr], rotations: usize, within: Duration) {
    let (client, started) = (cluster.client().await, Instant::now());
    let mut seen: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let is_over = |seen: &BTreeMap<String, Vec<Vec<u8>>>| {
        seen.len() == replicas.len() + 1 && seen.values().all(|certificates| certificates.len() > rotations)
    };
    while !is_over(&seen) {
        let counts = seen.iter().map(|(place, certificates)| (place, certificates.len())).collect::<Vec<_>>();
        assert!(started.elapsed() < within, "certificates seen within {within:?}, to be {}: {counts:?}", rotations + 1);
        let bundles = fetch_bundles(&client).await;
        for replica in replicas {
            for bundle in &bundles {
                let roots = String::from_utf8_lossy(bundle).matches("BEGIN CERTIFICATE").count();
                assert!((1..=MOST_TRUSTED).contains(&roots), "{roots} trusted CAs");
                let line = Line::open(*replica, &trusting(bundle)).map_err(|error| format!("{replica}: {error}"));
                note(&mut seen, &replica.to_string(), &line.expect("its certificate is trusted").leaf());
            }
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "taskrun-system");
        match secrets.get_opt("taskrun-operator-tls").await.expect("an answer") {
            Some(secret) => {
                let data = secret.data.unwrap_or_default();
                note(&mut seen, THE_SECRET, &data.get("tls.crt").expect("a certificate").0);
            }
            // it was deleted just before, and a new leader may have to be elected first
            None => assert!(!seen.contains_key(THE_SECRET), "the Secret is gone again"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    println!("{rotations} rotations in {:.1?}", started.elapsed());
}

fn note(seen: &mut BTreeMap<String, Vec<Vec<u8>>>, place: &str, certificate: &[u8]) {
    let certificates = seen.entry(place.to_owned()).or_default();
    if certificates.last().is_none_or(|last| last != certificate) {
        assert!(!certificates.iter().any(|earlier| earlier == certificate), "{place} went back to an earlier one");
        certificates.push(certificate.to_vec());
    }
}

/// Whom the API server trusts to be the webhook: what each of the two configurations says.
pub async fn fetch_bundles(client: &Client) -> [Vec<u8>; 2] {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating = mutating.get("taskrun-operator").await.expect("it is there").webhooks.unwrap_or_default();
    let validating = validating.get("taskrun-operator").await.expect("it is there").webhooks.unwrap_or_default();
    let configs = [mutating[0].client_config.clone(), validating[0].client_config.clone()];
    configs.map(|config| config.ca_bundle.expect("a bundle").0)
}
