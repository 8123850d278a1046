//! Whose rights a call is made with: the process' own, a user's kubeconfig, or the token of a request.

use super::error::Error;
use super::tasks::{Queues, Tasks};
use crate::crd::TaskNames;
use crate::task;
use kube::Config;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::path::PathBuf;

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
        let unusable = |error: &dyn std::error::Error| {
            let message = format!("failed to read the kubeconfig: {}", super::error::root(error));
            task::Error::new(task::Code::InvalidRequest, message)
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))?
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error))?
            }
            None => infer().await.map_err(|error| unusable(&error))?,
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Tasks::new(config, namespace, PLUGIN_MANAGER, names, Queues::default())
    }
}

/// From `KUBECONFIG`, `~/.kube/config` or the pod's service account.
pub(super) async fn infer() -> Result<Config, Error> {
    Config::infer().await.map_err(|_| Error::NoConfiguration)
}
