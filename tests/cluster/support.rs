//! A control plane, the operator's process on it, kubectl, and what tests need to say things briefly.

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A control plane of our own; it ends with this process, however that ends.
pub struct Cluster {
    launcher: Child,
    binaries: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The one that tests share, with the operator on it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<(Cluster, Operator)> = OnceLock::new();
        &SHARED
            .get_or_init(|| {
                let cluster = Self::start();
                cluster.install();
                let operator = Operator::start(&cluster, &[]);
                (cluster, operator)
            })
            .0
    }

    /// An empty one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// An empty one, whose API server gets these arguments, too.
    pub fn start_with(apiserver_args: &[&str]) -> Self {
        let args: Vec<String> = apiserver_args.iter().map(|arg| format!("--apiserver-arg={arg}")).collect();
        Self::start_in("control-plane", &args)
    }

    /// An empty one, of what `build.sh` builds by this name, started with these arguments of the launcher's.
    pub fn start_in(what: &str, args: &[String]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("taskrun-test-{}-{number}", std::process::id()));
        let binaries = build(what);
        let (launcher, kubeconfig) = launch(&binaries, &folder, args);
        Self { launcher, binaries, folder, kubeconfig }
    }

    /// Ends all of it, and starts it again with the same data, as the only node of a cluster does.
    pub fn restart(&mut self) {
        drop(self.launcher.stdin.take());
        let _ = self.launcher.wait();
        (self.launcher, self.kubeconfig) = launch(&self.binaries, &self.folder, &[]);
    }

    /// The process of one of its components.
    pub fn pid_of(&self, component: &str) -> String {
        let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let is_it = |pid: &String| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            // after the name in brackets come the state and the parent
            let parent = read("stat").rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            let is_ours = parent == Some(self.launcher.id());
            is_ours && read("cmdline").split('\0').next().is_some_and(|program| program.ends_with(component))
        };
        let mut pids = processes.map(|process| process.file_name().to_string_lossy().into_owned());
        pids.find(is_it).expect("a process of ours")
    }

    /// Installs what ships, as a user would.
    pub fn install(&self) {
        self.kubectl(&["apply", "--server-side", "-k", &format!("{ROOT}/deploy")]).ok();
    }

    /// Runs kubectl as admin.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "", &[])
    }

    /// Runs kubectl on a manifest given on its standard input.
    pub fn kubectl_on(&self, args: &[&str], manifest: &Value) -> Output {
        self.kubectl_with(&[args, &["-f", "-"]].concat(), &manifest.to_string(), &[])
    }

    /// The same for a text.
    pub fn kubectl_text(&self, args: &[&str], stdin: &str) -> Output {
        self.kubectl_with(args, stdin, &[])
    }

    /// What kstatus' own library says of an object: one word.
    pub fn kstatus(&self, object: &Value) -> String {
        let output = Output::of(Command::new(self.binaries.join("kstatus")), &object.to_string());
        output.ok().trim().to_owned()
    }

    /// What the shipped health check makes of an object in Argo CD's interpreter: a word and a message.
    pub fn argo_cd(&self, object: &Value) -> String {
        let file = "deploy/argo-cd/health.yaml";
        let settings = self.kubectl(&["create", "--dry-run=client", "--output=json", "--filename", file]).ok();
        let settings: Value = serde_json::from_str(&settings).expect("JSON");
        let kind = object["kind"].as_str().expect("a kind");
        let script = &settings["data"][format!("resource.customizations.health.orchestrator.io_{kind}")];
        let mut interpreter = Command::new(self.binaries.join("kstatus"));
        interpreter.arg(script.as_str().expect("a script"));
        Output::of(interpreter, &object.to_string()).ok().trim().to_owned()
    }

    /// Runs `kubectl edit`, with an editor that runs `sed EXPRESSION` on the file.
    pub fn kubectl_edit(&self, args: &[&str], expression: &str) -> Output {
        let editor = format!("sed -i {expression}");
        self.kubectl_with(&[&["edit"], args].concat(), "", &[("KUBE_EDITOR", &editor)])
    }

    /// The same, where somebody runs `kubectl COMMAND` on a manifest while the editor is open.
    pub fn kubectl_edit_while(&self, args: &[&str], expression: &str, command: &str, manifest: &Value) -> Output {
        let editor = format!("printf %s \"$MANIFEST\" | kubectl {command} -f - >/dev/null && sed -i {expression}");
        let env = [("KUBE_EDITOR", editor.as_str()), ("MANIFEST", &manifest.to_string())];
        self.kubectl_with(&[&["edit"], args].concat(), "", &env)
    }

    fn kubectl_with(&self, args: &[&str], stdin: &str, env: &[(&str, &str)]) -> Output {
        let mut kubectl = self.command("kubectl");
        kubectl.args(args).envs(env.iter().copied());
        Output::of(kubectl, stdin)
    }

    /// A program that is admin here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        command
    }

    /// The admin's kubeconfig, changed, as a file of this name.
    pub fn kubeconfig(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let admin = self.kubectl(&["config", "view", "--raw", "-o", "json"]).ok();
        let mut kubeconfig: Value = serde_json::from_str(&admin).expect("JSON");
        change(&mut kubeconfig);
        let path = self.folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, kubeconfig.to_string()).expect("a file");
        path
    }

    /// A path in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A client as admin.
    pub async fn client(&self) -> Client {
        client_of(&self.kubeconfig).await
    }

    /// A new namespace with an Agent `agent` in it, whose pods get these annotations.
    pub fn namespace(&self, annotations: &Value) -> Namespace<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        self.kubectl(&["create", "namespace", &name]).ok();
        let namespace = Namespace { cluster: self, name };
        namespace.create(&agent("agent", annotations)).ok();
        namespace
    }

    /// Writes of the operator that the API server carried out, in order, but for Events.
    pub fn operator_writes(&self) -> Vec<ApiWrite> {
        let is_write = |call: &ApiWrite| ["create", "update", "patch", "delete"].contains(&call.verb.as_str());
        self.operator_calls().into_iter().filter(is_write).collect()
    }

    /// Reads of the operator in a namespace, but for watches.
    pub fn operator_reads(&self, namespace: &str) -> Vec<ApiWrite> {
        let is_read = |call: &ApiWrite| call.namespace == namespace && ["get", "list"].contains(&call.verb.as_str());
        self.operator_calls().into_iter().filter(is_read).collect()
    }

    fn operator_calls(&self) -> Vec<ApiWrite> {
        self.calls_of("system:serviceaccount:taskrun-system:taskrun-operator")
    }

    /// Calls of a user, but for Events, the Lease and dry runs.
    pub fn calls_of(&self, user: &str) -> Vec<ApiWrite> {
        self.audit().iter().filter_map(|entry| ApiWrite::of(entry, user)).collect()
    }

    /// The audit log so far.
    pub fn audit(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.join("audit.log")).expect("an audit log");
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // the end of its standard input tells it to stop
        drop(self.launcher.stdin.take());
        let _ = self.launcher.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn launch(binaries: &Path, folder: &Path, args: &[String]) -> (Child, PathBuf) {
    let mut launcher = Command::new(binaries.join("control-plane"))
        .arg("--dir")
        .arg(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the launcher starts");
    let mut line = String::new();
    BufReader::new(launcher.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let kubeconfig = PathBuf::from(line.trim());
    assert!(kubeconfig.is_file(), "the control plane did not start");
    (launcher, kubeconfig)
}

/// A client by a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("usable");
    config.default_retry = false;
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).expect("a client")
}

/// A service account's kubeconfig in this namespace.
pub fn account_kubeconfig(cluster: &Cluster, namespace: &str, account: &str) -> PathBuf {
    let token = cluster.kubectl(&["-n", namespace, "create", "token", account]).ok();
    cluster.kubeconfig(&format!("{namespace}-{account}"), |kubeconfig| {
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(namespace);
    })
}

/// Waits, within bounds, until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of what `build.sh` builds by this name, built where it is not yet.
pub fn build(what: &str) -> PathBuf {
    let mut build = Command::new("tests/control-plane/build.sh");
    let build = build.arg(what).current_dir(ROOT).stderr(Stdio::inherit()).output();
    let build = build.expect("tests/control-plane/build.sh is there");
    assert!(build.status.success(), "it could not be built");
    PathBuf::from(String::from_utf8(build.stdout).expect("a path").trim())
}

/// A call, from the audit log.
#[derive(Debug, Clone)]
pub struct ApiWrite {
    pub verb: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub code: i64,
    /// Which token it was made with.
    pub credential: String,
    /// When the API server received it.
    pub at: Timestamp,
}

impl ApiWrite {
    fn of(entry: &Value, user: &str) -> Option<Self> {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let call = Self {
            verb: text("/verb"),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: entry.pointer("/responseStatus/code")?.as_i64()?,
            credential: text("/user/extra/authentication.kubernetes.io~1credential-id/0"),
            at: text("/requestReceivedTimestamp").parse().ok()?,
        };
        let is_theirs = text("/user/username") == user;
        let is_stored = !text("/requestURI").contains("dryRun=All");
        let is_told = !["events", "leases"].contains(&call.resource.as_str());
        (is_stored && is_theirs && is_told).then_some(call)
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    pub ok: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs a command with this on its standard input.
    pub fn of(mut command: Command, stdin: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it is on PATH, or was built");
        let mut input = child.stdin.take().expect("a pipe");
        // it may end without reading
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        Self {
            ok: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.ok, "{}", self.stderr);
        self.stdout
    }

    /// What a command that must fail said.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.ok, "was not refused: {}", self.stdout);
        self.stderr
    }
}

/// A namespace of one test.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.cluster.kubectl(&[&["-n", &self.name], args].concat())
    }

    pub fn kubectl_on(&self, args: &[&str], manifest: &Value) -> Output {
        self.cluster.kubectl_on(&[&["-n", &self.name], args].concat(), manifest)
    }

    pub fn edit(&self, object: &str, expression: &str) -> Output {
        self.cluster.kubectl_edit(&["-n", &self.name, object], expression)
    }

    pub fn create(&self, manifest: &Value) -> Output {
        self.kubectl_on(&["create"], manifest)
    }

    pub fn merge(&self, object: &str, patch: &Value) -> Output {
        self.kubectl(&["patch", object, "--type=merge", "-p", &patch.to_string()])
    }

    /// An object as JSON.
    #[track_caller]
    pub fn get(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"]).ok()).expect("JSON")
    }

    /// An object as JSON, if it is there.
    pub fn find(&self, object: &str) -> Option<Value> {
        let found = self.kubectl(&["get", object, "-o", "json", "--ignore-not-found"]).ok();
        serde_json::from_str(&found).ok()
    }

    /// Objects of a kind.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        self.get(kind)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until an object is as it should be, and returns it.
    #[track_caller]
    pub fn wait(&self, object: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let found = self.find(object).unwrap_or_default();
            if is_so(&found) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "{object} is not {what}: {}", found["status"]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a TaskRun's present version is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, task: &str, version: u64, phase: &str) -> Value {
        self.wait(task, &format!("{phase} at version {version}"), |t| {
            t["status"]["contextVersion"] == version && t["status"]["phase"] == phase
        })
    }

    /// Appends a line to the log of a pod, as its container does.
    pub fn log(&self, pod: &str, line: &str) {
        let folder = self.cluster.folder.join("logs").join(&self.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{pod}.log")));
        // in one write: a follower sees whole lines
        log.expect("a log file").write_all(format!("{line}\n").as_bytes()).expect("room for a line");
    }

    /// A new service account that may do this (`verbs` of `resources`, as kubectl takes them), by its token.
    pub fn user(&self, name: &str, rights: &[(&str, &str)]) -> String {
        self.kubectl(&["create", "serviceaccount", name]).ok();
        for (number, (verbs, resources)) in rights.iter().enumerate() {
            let role = format!("{name}-{number}");
            let (verbs, resources) = (format!("--verb={verbs}"), format!("--resource={resources}"));
            self.kubectl(&["create", "role", &role, &verbs, &resources]).ok();
            let account = format!("--serviceaccount={}:{name}", self.name);
            self.kubectl(&["create", "rolebinding", &role, &format!("--role={role}"), &account]).ok();
        }
        self.kubectl(&["create", "token", name]).ok().trim().to_owned()
    }

    pub async fn task_runs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client().await, &self.name, &task_run_resource())
    }

    pub async fn create_task_run(&self, manifest: &Value) {
        let object = serde_json::from_value(manifest.clone()).expect("an object");
        self.task_runs().await.create(&PostParams::default(), &object).await.expect("created");
    }
}

pub fn task_run_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("orchestrator.io", "v1", "TaskRun"))
}

/// An Agent whose pods get these annotations: they tell the fake node what to do.
pub fn agent(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "orchestrator.io/v1", "kind": "Agent", "metadata": {"name": name},
        "spec": {"jobTemplate": {"spec": {"template": {
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "agent", "image": "example.test/agent:1"}]},
        }}}},
    })
}

/// A TaskRun `task-{id}` of service `svc` with these files.
pub fn task_run(id: u32, files: &[(&str, &str)]) -> Value {
    json!({
        "apiVersion": "orchestrator.io/v1", "kind": "TaskRun", "metadata": {"name": format!("task-{id}")},
        "spec": {"taskId": id, "serviceName": "svc", "agentName": "agent", "markdownFiles": markdown(files)},
    })
}

pub fn markdown(files: &[(&str, &str)]) -> Value {
    files.iter().map(|(filename, content)| json!({"filename": filename, "content": content})).collect()
}

/// The operator's process, killed when dropped.
pub struct Operator {
    wrapper: Child,
    pub pid: String,
    webhook: SocketAddr,
    admin: SocketAddr,
    kubeconfig: PathBuf,
    log: PathBuf,
}

impl Operator {
    /// Starts it under the shipped RBAC and waits until it is ready.
    pub fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let operator = Self::launch(cluster, args);
        operator.wait_ready();
        operator
    }

    /// Starts it under the shipped RBAC.
    pub fn launch(cluster: &Cluster, args: &[&str]) -> Self {
        Self::launch_in(cluster, &[], args)
    }

    /// The same, with these files in its environment.
    pub fn launch_in(cluster: &Cluster, env: &[(&str, &Path)], args: &[&str]) -> Self {
        let loopback = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::launch_with(cluster, [loopback(), loopback()], env, args)
    }

    /// The same, with its webhook and admin endpoints there. On loopback the API server finds it by its URL, elsewhere
    /// by its Service.
    pub fn launch_at(cluster: &Cluster, addresses: [SocketAddr; 2], args: &[&str]) -> Self {
        Self::launch_with(cluster, addresses, &[], args)
    }

    fn launch_with(cluster: &Cluster, addresses: [SocketAddr; 2], env: &[(&str, &Path)], args: &[&str]) -> Self {
        let name = operator_name(addresses[0]);
        let kubeconfig = operator_kubeconfig(cluster, &name);
        Self::spawn(addresses, kubeconfig, cluster.folder.join(format!("{name}.log")), env, args)
    }

    /// Waits until it ends by itself, and returns its log.
    pub fn wait_end(&self) -> String {
        let (started, process) = (Instant::now(), PathBuf::from("/proc").join(&self.pid).join("stat"));
        // one that has ended and was not waited for is a zombie; its state stands after its name in brackets
        let state = || std::fs::read_to_string(&process).ok()?.rsplit(')').next()?.trim().chars().next();
        while state().is_some_and(|state| state != 'Z') {
            assert!(started.elapsed() < PATIENCE, "the operator does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.log()
    }

    /// Starts it again after its end, at the same address.
    pub fn restart(self, args: &[&str]) -> Self {
        let (addresses, kubeconfig, log) = ([self.webhook, self.admin], self.kubeconfig.clone(), self.log.clone());
        drop(self);
        Self::spawn(addresses, kubeconfig, log, &[], args)
    }

    fn spawn(
        [webhook, admin]: [SocketAddr; 2],
        kubeconfig: PathBuf,
        log: PathBuf,
        env: &[(&str, &Path)],
        args: &[&str],
    ) -> Self {
        let mut addresses = vec![format!("--webhook-addr={webhook}"), format!("--admin-addr={admin}")];
        if webhook.ip().is_loopback() {
            addresses.push(format!("--webhook-url=https://{webhook}"));
        }
        let args = addresses.iter().map(String::as_str).chain(args.iter().copied());
        // a name of its own, and the same after a restart: it need not wait for its own Lease
        let (wrapper, pid) = spawn_operator(&kubeconfig, &log, &operator_name(webhook), env, args);
        Self { wrapper, pid, webhook, admin, kubeconfig, log }
    }

    /// Where its webhook listens.
    pub fn webhook(&self) -> SocketAddr {
        self.webhook
    }

    /// Where its admin endpoints listen.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits for `/readyz`.
    pub fn wait_ready(&self) {
        let started = Instant::now();
        while self.http("/readyz").is_none_or(|answer| !answer.starts_with("HTTP/1.1 200")) {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "the operator is not ready: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What an admin endpoint answers, with its head.
    pub fn http(&self, path: &str) -> Option<String> {
        get(self.admin, path)
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Ends it without a warning, as SIGKILL does.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// What the audit log calls its token.
    pub fn credential(&self, cluster: &Cluster) -> String {
        let kubeconfig = self.kubeconfig.to_string_lossy();
        let whoami = ["auth", "whoami", "-o", "json"];
        let user: Value = serde_json::from_str(&cluster.kubectl_with(&whoami, "", &[("KUBECONFIG", &kubeconfig)]).ok())
            .expect("JSON");
        let ids = &user["status"]["userInfo"]["extra"]["authentication.kubernetes.io/credential-id"];
        ids[0].as_str().expect("a credential").to_owned()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

/// What an address answers, with its head.
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    std::io::read_to_string(stream).ok()
}

fn operator_name(webhook: SocketAddr) -> String {
    format!("operator-{webhook}").replace(['.', ':'], "-")
}

/// The operator's process in a shell that outlives nobody: it kills the operator when the end of its
/// standard input comes. Returns the operator's pid with it.
pub fn spawn_operator<'a>(
    kubeconfig: &Path,
    log: &Path,
    pod: &str,
    env: &[(&str, &Path)],
    args: impl Iterator<Item = &'a str>,
) -> (Child, String) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
    let mut wrapper = Command::new("sh")
        .args(["-c", "\"$@\" & echo $!; cat >/dev/null; kill -KILL $! 2>/dev/null; wait", "sh"])
        .arg(env!("CARGO_BIN_EXE_taskrun-operator"))
        .arg("run")
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env("TASKRUN_SHUTDOWN_DELAY", "0")
        .env("POD_NAME", pod)
        .envs(env.iter().copied())
        .env("RUST_LOG", "info,taskrun_operator=debug,actix_server=warn")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the operator starts");
    let mut pid = String::new();
    BufReader::new(wrapper.stdout.take().expect("a pipe")).read_line(&mut pid).expect("a pid");
    (wrapper, pid.trim().to_owned())
}

fn operator_kubeconfig(cluster: &Cluster, name: &str) -> PathBuf {
    let token = cluster.kubectl(&["-n", "taskrun-system", "create", "token", "taskrun-operator"]).ok();
    cluster.kubeconfig(name, |kubeconfig| {
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    })
}

/// A port that no other operator of these tests has, below those that the kernel gives to outgoing
/// connections: one of these could take it while the operator restarts.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let is_new = |port: &u16| GIVEN.lock().expect("no panic").insert(*port);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..100).map(|_| fastrand::u16(20_000..32_000)).find(|port| is_new(port) && is_free(port)).expect("a free port")
}
