//! How the API server calls a webhook of a Service: heard by a server that offers more than it takes.

use super::endpoints::slice;
use super::line::SERVER_NAME;
use crate::support::{Cluster, PATIENCE, task_run};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[derive(Debug)]
struct Heard {
    from: SocketAddr,
    protocol: Option<String>,
    request: String,
}

/// From an address that is not loopback, by HTTP/1.1 though HTTP/2 is offered. Leaves the webhook without endpoints.
pub fn assert_called_as_in_clusters(cluster: &Cluster, at: SocketAddr) {
    let pair = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key);
    let mut tls = tls.expect("a configuration");
    tls.alpn_protocols = ["h2", "http/1.1"].map(Into::into).to_vec();
    let (listener, (tell, heard)) = (TcpListener::bind(at).expect("an address"), mpsc::channel());
    std::thread::spawn(move || tell.send(hear(&listener, tls)));

    trust(cluster, &json!(BASE64_STANDARD.encode(pair.cert.pem())));
    let endpoint = json!({"addresses": [at.ip()], "conditions": {"ready": true}});
    cluster.kubectl_on(&["create"], &slice("heard", "webhook", &[endpoint])).ok();
    let ns = cluster.namespace(&json!({}));
    // it hangs up before it answers
    let mut said = String::new();
    let heard = (0..PATIENCE.as_secs()).find_map(|_| {
        said = ns.create(&task_run(1, &[("task.md", "do it")])).refused();
        heard.recv_timeout(Duration::from_secs(1)).ok()
    });
    assert!(heard.is_some(), "the API server did not call: {said}");
    let heard = heard.expect("somebody called");
    assert!(!heard.from.ip().is_loopback(), "{heard:?}");
    assert_eq!(heard.protocol.as_deref(), Some("http/1.1"), "{heard:?}");
    assert!(
        heard.request.starts_with("POST /mutate?timeout=") && heard.request.trim().ends_with("HTTP/1.1"),
        "{heard:?}"
    );
    println!("{heard:?}");
    trust(cluster, &Value::Null);
    cluster.kubectl(&["-n", "taskrun-system", "delete", "endpointslice", "heard"]).ok();
}

fn trust(cluster: &Cluster, bundle: &Value) {
    let webhook = json!({"name": "mutate.taskruns.orchestrator.io", "clientConfig": {"caBundle": bundle}});
    let patch = json!({"webhooks": [webhook]}).to_string();
    cluster.kubectl(&["patch", "mutatingwebhookconfiguration", "taskrun-operator", "-p", &patch]).ok();
}

fn hear(listener: &TcpListener, tls: ServerConfig) -> Heard {
    let (socket, from) = listener.accept().expect("a caller");
    let connection = ServerConnection::new(Arc::new(tls)).expect("a connection");
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    let mut request = String::new();
    stream.read_line(&mut request).expect("a request");
    let protocol = stream.get_ref().conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    Heard { from, protocol, request }
}
