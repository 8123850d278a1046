//! Whose rights a call is made with: the process' own, a user's kubeconfig, or the token of a request.

use super::counted::Counted;
use super::error::Error;
use super::queues::Queues;
use super::tasks::Tasks;
use crate::crd::TaskNames;
use crate::metrics::Calls;
use crate::task;
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tower::layer::layer_fn;

/// Field manager of what the PM API writes.
const API_MANAGER: &str = "taskrun-api";
/// Field manager of what the plugin writes.
const PLUGIN_MANAGER: &str = "kubectl-taskrun";

/// Where the API server is, with nobody's credentials.
#[derive(Clone)]
pub struct Endpoint {
    config: Config,
    namespace: String,
    names: TaskNames,
    queues: Queues,
}

impl Endpoint {
    /// From where the process itself finds the API server; its own credentials are left out.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn infer(namespace: String, names: TaskNames) -> Result<Self, Error> {
        let mut config = infer().await?;
        config.auth_info = AuthInfo::default();
        config.headers.clear();
        Ok(Self { config, namespace, names, queues: Queues::default() })
    }

    /// The tasks, with the rights of whom this token belongs to.
    ///
    /// # Errors
    /// If it cannot be a token.
    pub fn tasks(&self, token: &str) -> Result<Tasks, task::Error> {
        let unusable = |_| task::Error::new(task::Code::Unauthenticated, "the bearer token cannot be used");
        let mut config = self.config.clone();
        config.auth_info = serde_json::from_value(json!({"token": token})).map_err(unusable)?;
        Tasks::new(config, self.namespace.clone(), API_MANAGER, self.names, self.queues.clone())
    }
}

/// What a user chooses on the command line, as with kubectl.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// A file instead of `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context instead of the present one.
    pub context: Option<String>,
    /// A namespace instead of the context's.
    pub namespace: Option<String>,
}

impl User {
    /// The tasks, with the user's own rights.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn tasks(&self, names: TaskNames) -> Result<Tasks, task::Error> {
        let config = self.config().await.map_err(|error| task::Error::new(task::Code::InvalidRequest, error))?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Tasks::new(config, namespace, PLUGIN_MANAGER, names, Queues::default())
    }

    async fn config(&self) -> Result<Config, String> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let found = match &self.kubeconfig {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
                Err(error) => Err(error),
            },
            None => Config::from_kubeconfig(&options).await,
        };
        match found {
            Ok(config) => Ok(config),
            Err(error) if self.kubeconfig.is_some() || self.context.is_some() => Err(unusable(&error)),
            // in a pod there is no kubeconfig
            Err(error) => infer().await.map_err(|_| format!("{}: set KUBECONFIG or --kubeconfig", unusable(&error))),
        }
    }
}

/// Why a kubeconfig cannot be used. What the parser says is left out: it may quote the file, with its tokens.
fn unusable(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "the kubeconfig cannot be read as YAML".to_owned(),
        KubeconfigError::LoadContext(context) => format!("the kubeconfig has no context {context:?}"),
        KubeconfigError::ReadConfig(error, path) => format!("failed to read {}: {error}", path.display()),
        other => other.to_string(),
    }
}

/// A client that repeats nothing by itself, and notices a connection that was silent for too long.
pub(super) fn client(config: Config, read_timeout: Option<Duration>) -> Result<Client, kube::Error> {
    Client::try_from(plain(config, read_timeout))
}

/// The same, whose calls are counted.
pub(super) fn counted_client(config: Config, read_timeout: Duration, calls: Calls) -> Result<Client, kube::Error> {
    let counted = layer_fn(move |service| Counted::new(service, calls.clone()));
    Ok(ClientBuilder::try_from(plain(config, Some(read_timeout)))?.with_layer(&counted).build())
}

fn plain(mut config: Config, read_timeout: Option<Duration>) -> Config {
    config.default_retry = false;
    config.read_timeout = read_timeout;
    // or the time that a connection was idle before the request would count
    config.reset_reader_on_write = true;
    config
}

/// From `KUBECONFIG`, `~/.kube/config` or the pod's service account.
pub(super) async fn infer() -> Result<Config, Error> {
    Config::infer().await.map_err(|_| Error::NoConfiguration)
}
