//! A real Prometheus, which reads the operator and the API server, and promtool.

use crate::support::{Cluster, Output, PATIENCE, build, free_port};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The job of the operator's replicas.
pub const JOB: &str = "taskrun-operator";

/// It ends with this process, however that ends.
pub struct Prometheus {
    wrapper: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Reads these replicas each second, the API server every two, and evaluates the rules twice a second.
    pub fn start(cluster: &Cluster, replicas: &[SocketAddr], rules: &Value) -> Self {
        let folder = cluster.file("prometheus");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (config, rule_file) = (folder.join("prometheus.yml"), folder.join("rules.yml"));
        std::fs::write(&rule_file, rules.to_string()).expect("a file");
        std::fs::write(&config, config_of(cluster, replicas, &rule_file).to_string()).expect("a file");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let wrapper = Command::new("sh")
            .args(["-c", "\"$@\" >&2 & cat >/dev/null; kill -KILL $! 2>/dev/null; wait", "sh"])
            .arg(build("prometheus").join("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let prometheus = Self { wrapper, address };
        let started = Instant::now();
        while prometheus.http("/-/ready").is_none_or(|answer| !answer.starts_with("HTTP/1.0 200")) {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "Prometheus is not ready: {log}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        prometheus
    }

    /// What a query gives now: series, each with its value.
    pub fn query(&self, query: &str) -> Vec<Value> {
        self.result(&format!("query?query={}", encoded(query)))
    }

    /// What it gave each second between these times, in seconds since 1970: series, each with its values.
    pub fn query_range(&self, query: &str, start: f64, end: f64) -> Vec<Value> {
        self.result(&format!("query_range?query={}&start={start:.0}&end={end:.0}&step=1", encoded(query)))
    }

    fn result(&self, call: &str) -> Vec<Value> {
        let answer = self.api(call);
        assert_eq!(answer["status"], "success", "{call}: {answer}");
        answer["data"]["result"].as_array().expect("series").clone()
    }

    /// The alerts that fire, by name, and what they say.
    pub fn firing(&self) -> BTreeSet<(String, String)> {
        let answer = self.api("alerts");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["annotations"]["summary"]))).collect()
    }

    fn api(&self, call: &str) -> Value {
        let answer = self.http(&format!("/api/v1/{call}")).expect("an answer");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        serde_json::from_str(body).expect("JSON")
    }

    /// HTTP/1.0: nothing comes in chunks.
    fn http(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        std::io::read_to_string(stream).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

fn config_of(cluster: &Cluster, replicas: &[SocketAddr], rule_file: &Path) -> Value {
    let cluster_role = ["create", "clusterrole", "prometheus", "--verb=get", "--non-resource-url=/metrics"];
    cluster.kubectl(&cluster_role).ok();
    let user = "--serviceaccount=default:prometheus";
    cluster.kubectl(&["create", "serviceaccount", "prometheus"]).ok();
    cluster.kubectl(&["create", "clusterrolebinding", "prometheus", "--clusterrole=prometheus", user]).ok();
    let token = cluster.kubectl(&["create", "token", "prometheus", "--duration=1h"]).ok();
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let replicas: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
        "rule_files": [rule_file],
        "scrape_configs": [
            {"job_name": JOB, "static_configs": [{"targets": replicas, "labels": {"namespace": "taskrun-system"}}]},
            {
                "job_name": "apiserver", "scheme": "https", "scrape_interval": "2s", "scrape_timeout": "2s",
                "tls_config": {"insecure_skip_verify": true}, "authorization": {"credentials": token.trim()},
                "static_configs": [{"targets": [server.trim().trim_start_matches("https://")]}],
                // its other 20,000 series are of no interest here
                "metric_relabel_configs": [{
                    "source_labels": ["__name__"], "regex": "apiserver_admission_webhook_rejection_count",
                    "action": "keep",
                }],
            },
        ],
    })
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        // writing to a string cannot fail
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    })
}

/// Runs promtool on a file.
pub fn promtool(args: &[&str], file: &Path) -> Output {
    let mut promtool = Command::new(build("prometheus").join("promtool"));
    promtool.args(args).arg(file);
    Output::of(promtool, "")
}
