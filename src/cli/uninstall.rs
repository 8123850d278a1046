//! `taskrun-operator uninstall`: nothing is left that would hold up a write or a deletion.

use crate::client::{ApiServer, WEBHOOK_CONFIGURATION, Webhook};
use crate::crd::FINALIZER;
use crate::leader::{Candidate, LEASE};
use crate::metrics::Metrics;
use crate::rotator::SECRET;
use crate::telemetry;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

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
    let api_server = ApiServer::connect().await?;
    if api_server.is_ending(&args.operator_namespace).await? {
        // no operator can lead, and nobody can hold its Lease
        return take_out(&api_server, args).await;
    }
    // whoever holds the Lease is alone: a running operator would put back what is taken away
    let namespace = args.operator_namespace.clone();
    let candidate = Candidate::new(ApiServer::connect().await?, namespace, None, Arc::new(Metrics::new()?));
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
        take_out(&api_server, args).await
    };
    Box::pin(candidate.run(pending(), work)).await?;
    tell(api_server.remove::<Lease>(&args.operator_namespace, LEASE).await?, &format!("lease/{LEASE}"));
    Ok(())
}

async fn take_out(api_server: &ApiServer, args: &UninstallArgs) -> Result<(), Box<dyn Error>> {
    for webhook in Webhook::ALL {
        tell(api_server.delete_webhook(webhook).await?, &format!("{}/{WEBHOOK_CONFIGURATION}", webhook.kind()));
    }
    let namespaces: Vec<Option<&str>> = match args.namespaces.is_empty() {
        true => vec![None],
        false => args.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut freed = 0;
    for namespace in namespaces {
        freed += api_server.remove_finalizer(namespace, FINALIZER).await?;
    }
    println!("finalizer {FINALIZER} taken off {freed} TaskRuns");
    tell(api_server.remove::<Secret>(&args.operator_namespace, SECRET).await?, &format!("secret/{SECRET}"));
    Ok(())
}

fn tell(was_there: bool, what: &str) {
    println!("{what} {}", if was_there { "deleted" } else { "is not there" });
}
