//! `taskrun-operator uninstall`: nothing is left that would hold up a write or a deletion.

use crate::client::{ApiServer, Entry, WEBHOOK_CONFIGURATION, Webhook};
use crate::crd::FINALIZER;
use crate::leader::{Candidate, LEASE};
use crate::metrics::Metrics;
use crate::rotator::SECRET;
use crate::telemetry;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[derive(Args)]
pub struct UninstallArgs {
    /// Namespace that the operator ran in, with its Lease and its Secret
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "taskrun-system")]
    operator_namespace: String,

    /// Namespace whose TaskRuns are freed; repeatable. Without it: all namespaces
    #[arg(long = "namespace", value_name = "NAME", env = "TASKRUN_NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,

    /// Seconds to wait for an operator that is still running; one that was killed is waited for 15
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Does all of it; what is gone already is no error.
#[tokio::main(flavor = "current_thread")]
pub async fn run(args: &UninstallArgs) -> Result<(), Box<dyn Error>> {
    telemetry::init("error");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Arc::new(Metrics::new()?);
    let api_server = ApiServer::connect(&metrics.calls).await?;
    let namespace = args.operator_namespace.clone();
    let is_ending = api_server.is_ending(&namespace).await?;
    if let Some(other) = elsewhere(&api_server, &namespace, is_ending).await? {
        return Err(format!(
            "the operator does not run in namespace {namespace} but {other}: say so by --operator-namespace"
        )
        .into());
    }
    if is_ending {
        // no operator can lead, and nobody can hold its Lease
        return take_out(&api_server, args).await;
    }
    // whoever holds the Lease is alone: a running operator would put back what is taken away
    let had_lease = api_server.fetch::<Lease>(&namespace, LEASE).await?;
    if let Some(holder) = had_lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.as_ref()) {
        eprintln!("waiting for the end of the operator {holder}, or of its Lease");
    }
    let candidate = Candidate::new(ApiServer::connect(&metrics.calls).await?, namespace, None, metrics);
    let leadership = candidate.leadership();
    let work = async {
        let patience = Duration::from_secs(args.timeout);
        if timeout(patience, leadership.acquired()).await.is_err() {
            return Err(format!(
                "an operator still runs, or the Lease {}/{LEASE} cannot be written: end it first, such as with \
                 `kubectl -n {0} delete deployment taskrun-operator`",
                args.operator_namespace
            )
            .into());
        }
        // one that waits for the Lease would put all of it back
        if timeout(patience, no_pods(&api_server, &args.operator_namespace)).await.is_err() {
            return Err(format!(
                "pods of the operator are still there in namespace {}: wait for their end",
                args.operator_namespace
            )
            .into());
        }
        take_out(&api_server, args).await
    };
    Box::pin(candidate.run(pending(), work)).await?;
    api_server.remove::<Lease>(&args.operator_namespace, LEASE).await?;
    tell(had_lease.is_some(), &format!("lease/{LEASE}"));
    Ok(())
}

/// Where else the operator runs, by what a webhook configuration says. One outside the cluster has a Lease in a namespace
/// that is there.
async fn elsewhere(api_server: &ApiServer, given: &str, is_ending: bool) -> Result<Option<String>, Box<dyn Error>> {
    for webhook in Webhook::ALL {
        let found = api_server.webhooks(webhook).get_opt(WEBHOOK_CONFIGURATION).await?;
        let Some(entry) = found.as_ref().and_then(|found| Entry::of(found, webhook)) else { continue };
        match entry.namespace() {
            Some(named) if named != given => return Ok(Some(named.to_owned())),
            None if is_ending => return Ok(Some("another".to_owned())),
            _ => {}
        }
    }
    Ok(None)
}

/// Waits until no pod of the operator is there.
async fn no_pods(api_server: &ApiServer, namespace: &str) {
    loop {
        match api_server.list::<Pod>(namespace, "app.kubernetes.io/name=taskrun-operator").await {
            Ok(pods) if pods.is_empty() => return,
            Ok(_) => {}
            Err(error) => eprintln!("taskrun-operator: {error}"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn take_out(api_server: &ApiServer, args: &UninstallArgs) -> Result<(), Box<dyn Error>> {
    for webhook in Webhook::ALL {
        tell(api_server.delete_webhook(webhook).await?, &format!("{}/{WEBHOOK_CONFIGURATION}", webhook.kind()));
    }
    let namespaces: Vec<Option<&str>> = match args.namespaces.is_empty() {
        true => vec![None],
        false => args.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let (mut freed, mut failed) = (0, vec![]);
    for namespace in namespaces {
        freed += api_server.remove_finalizer(namespace, FINALIZER, &mut failed).await?;
    }
    println!("finalizer {FINALIZER} taken off {freed} TaskRuns");
    if let Some(first) = failed.first() {
        return Err(format!("{} TaskRuns keep it, such as {first}: run this again", failed.len()).into());
    }
    tell(api_server.remove::<Secret>(&args.operator_namespace, SECRET).await?, &format!("secret/{SECRET}"));
    Ok(())
}

fn tell(was_there: bool, what: &str) {
    println!("{what} {}", if was_there { "deleted" } else { "is not there" });
}
