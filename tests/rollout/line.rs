//! A connection straight to a webhook, as the API server's pool has them: asked, left idle, and asked again.

use crate::support::task_run;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const SERVER_NAME: &str = "taskrun-operator.taskrun-system.svc";
/// The longest that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const LINES: u32 = 400;
/// A little less than the API server keeps an idle connection, 90 s.
const SHORTEST: Duration = Duration::from_secs(85);
/// From the shortest time to the longest, which the webhook does not keep it.
const SPREAD: Duration = Duration::from_secs(40);
/// As long as the webhook keeps it.
const KEEP_ALIVE: Duration = Duration::from_mins(2);

/// Leaves many connections idle, each for another time, and asks over them again, in a few minutes. Every other one has
/// not been asked before: the API server opens some in advance. Returns what went wrong.
///
/// One that is closed must be seen to be closed, and another be had; none may be closed while the API server would keep
/// it. What happens in the very moment of closing is left out: no server can help it (RFC 9112, 9.5), and the API
/// server's 90 s never come near.
pub fn sweep(to: SocketAddr, config: &Arc<ClientConfig>) -> Vec<String> {
    let (mut failures, mut idle) = (vec![], vec![]);
    for number in 0..LINES {
        let opened = Line::open(to, config).and_then(|mut line| {
            if number % 2 == 0 {
                line.ask()?;
            }
            Ok(line)
        });
        match opened {
            Ok(line) => idle.push((Instant::now(), SHORTEST + SPREAD * number / LINES, line)),
            Err(error) => failures.push(format!("a new connection: {error}")),
        }
    }
    idle.sort_by_key(|(since, duration, _)| *since + *duration);
    let [mut kept, mut closed, mut left_out] = [0; 3];
    for (since, duration, mut line) in idle {
        sleep(duration.saturating_sub(since.elapsed()));
        let (duration, is_open) = (since.elapsed(), line.is_open());
        if duration.abs_diff(KEEP_ALIVE) < Duration::from_secs(1) {
            left_out += 1;
            continue;
        }
        *if is_open { &mut kept } else { &mut closed } += 1;
        let is_early = !is_open && duration < KEEP_ALIVE;
        let asked = match is_open {
            true => line.ask(),
            false => Line::open(to, config).and_then(|mut line| line.ask()),
        };
        let failed = asked.err().map(|error| format!("{error} (kept: {is_open})"));
        let failed = failed.or(is_early.then(|| "was closed".to_owned()));
        failures.extend(failed.map(|failed| format!("after {duration:.3?}: {failed}")));
    }
    println!("{LINES} idle connections: {kept} kept, {closed} closed, {left_out} left out; {} failed", failures.len());
    failures
}

/// Trusts these certificates, in PEM.
pub fn trusting(bundle: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).map(|root| root.expect("a certificate")));
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A connection, its handshake done.
pub struct Line(StreamOwned<ClientConnection, TcpStream>);

impl Line {
    pub fn open(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect_timeout(&to, TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_nodelay(true)?;
        tls.complete_io(&mut socket)?;
        Ok(Self(StreamOwned::new(tls, socket)))
    }

    /// The certificate that was served.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().expect("a handshake")[0].clone().into_owned()
    }

    /// Whether a request may be sent: nothing has come that was not asked for, and no end.
    fn is_open(&mut self) -> bool {
        let look = |tls: &mut ClientConnection, socket: &mut TcpStream| match tls.read_tls(socket) {
            Ok(0) => false,
            // tickets for a later handshake come by themselves
            Ok(_) => tls
                .process_new_packets()
                .is_ok_and(|state| !state.peer_has_closed() && state.plaintext_bytes_to_read() == 0),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        self.0.sock.set_nonblocking(true).expect("a socket");
        let is_open = (0..3).all(|_| look(&mut self.0.conn, &mut self.0.sock));
        self.0.sock.set_nonblocking(false).expect("a socket");
        is_open
    }

    /// Sends a review and reads the answer.
    pub fn ask(&mut self) -> io::Result<()> {
        let body = review().to_string();
        let head = format!(
            "POST /validate HTTP/1.1\r\nHost: {SERVER_NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all((head + &body).as_bytes())?;
        let (mut answer, mut buffer) = (vec![], [0; 4096]);
        while !is_whole(&answer) {
            match self.0.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let is_judged = answer.starts_with("HTTP/1.1 200") && answer.contains("\"uid\":\"idle\"");
        is_judged.then_some(()).ok_or_else(|| io::Error::other(answer.into_owned()))
    }
}

/// Whether an answer has come with as much of a body as its head says.
fn is_whole(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0_usize)
}

fn review() -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "idle", "operation": "CREATE", "namespace": "default", "name": "task-1",
        "kind": {"group": "orchestrator.io", "version": "v1", "kind": "TaskRun"},
        "resource": {"group": "orchestrator.io", "version": "v1", "resource": "taskruns"},
        "userInfo": {"username": "admin"}, "object": task_run(1, &[("task.md", "do it")]),
    }})
}
