//! The operator's processes of one plan: killed, stopped, taken over from.

use crate::support::spawn_operator;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// What the processes of one plan have in common.
pub struct Settings {
    pub kubeconfig: PathBuf,
    pub namespace: String,
    pub log: PathBuf,
}

/// One operator, and another once it was called for.
pub struct Operators {
    settings: Settings,
    first: Mutex<Option<Process>>,
    second: Mutex<Option<Process>>,
}

impl Operators {
    pub fn new(settings: Settings) -> Self {
        Self { settings, first: Mutex::default(), second: Mutex::default() }
    }

    pub fn log(&self) -> &PathBuf {
        &self.settings.log
    }

    pub fn start(&self) {
        put(&self.first, Process::start(&self.settings, "operator-0"));
    }

    /// SIGKILL, and what restarts a pod's container: the same pod, again.
    pub fn crash(&self) {
        self.signal("KILL");
        self.start();
    }

    /// A second one beside the first.
    pub fn take_over(&self) {
        put(&self.second, Process::start(&self.settings, "operator-1"));
    }

    /// Ends both.
    pub fn stop(&self) {
        for place in [&self.first, &self.second] {
            place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    pub fn signal(&self, signal: &str) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = &first.as_ref().expect("a process").pid;
        // one that has lost its lease may have ended by itself
        let _ = Command::new("kill").args([&format!("-{signal}"), pid]).stderr(Stdio::null()).status();
    }
}

fn put(place: &Mutex<Option<Process>>, process: Process) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
}

struct Process {
    wrapper: Child,
    pid: String,
}

impl Process {
    fn start(settings: &Settings, pod: &str) -> Self {
        let (webhook, admin) = ("--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0");
        let namespace = format!("--namespace={}", settings.namespace);
        // a lease of its own: the plans' operators are no replicas of each other
        let own = format!("--operator-namespace={}", settings.namespace);
        let args = [webhook, admin, &namespace, &own].into_iter();
        let (wrapper, pid) = spawn_operator(&settings.kubeconfig, &settings.log, pod, &[], args);
        Self { wrapper, pid }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}
