//! Load on a TLS port: requests over kept connections, with the time that each takes.
//!
//! An open loop sends by a timetable whatever has been answered: a request that finds all connections busy waits, and
//! its time runs from when it was due. A closed loop sends as fast as it is answered.

use crate::machine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// As many as are in flight at most.
pub const CONNECTIONS: usize = 16;
/// The longest that an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server, and how it is trusted.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// One whose certificate, for localhost, is of this CA.
    pub fn new(address: SocketAddr, ca: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca).flatten());
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { address, tls: Arc::new(tls) }
    }
}

/// What came of it.
pub struct Outcome {
    /// Seconds of each answer, in ascending order.
    pub seconds: Vec<f64>,
    /// From the first request to the last answer.
    pub elapsed: f64,
}

impl Outcome {
    /// Answers a second.
    #[expect(clippy::cast_precision_loss, reason = "millions at most")]
    pub fn rate(&self) -> f64 {
        self.seconds.len() as f64 / self.elapsed
    }
}

/// Sends these requests in turn, as fast as they are answered, for this long.
pub fn closed(to: &Target, requests: &[Vec<u8>], time: Duration) -> Outcome {
    let began = Instant::now();
    run(to, requests, |_| (began.elapsed() < time).then_some(None))
}

/// Sends these requests in turn, evenly, so many a second for this long.
#[expect(clippy::cast_precision_loss, reason = "millions at most")]
pub fn open(to: &Target, requests: &[Vec<u8>], rate: f64, time: Duration) -> Outcome {
    // when all connections are there
    let began = Instant::now() + Duration::from_millis(200);
    run(to, requests, |number| {
        let due = Duration::from_secs_f64(number as f64 / rate);
        (due < time).then_some(Some(began + due))
    })
}

/// Sends request after request: `next` tells when its number is due, and when there are no more.
fn run(to: &Target, requests: &[Vec<u8>], next: impl Fn(usize) -> Option<Option<Instant>> + Sync) -> Outcome {
    let number = AtomicUsize::new(0);
    let send = || {
        machine::pin_this_thread(machine::CLIENT);
        let (mut line, mut seconds, mut answer) = (connect(to), vec![], vec![0; 64 * 1024]);
        let mut first = None;
        loop {
            let mine = number.fetch_add(1, Ordering::Relaxed);
            let Some(due) = next(mine) else { break };
            let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
            // one that slept is late by the sleep's own fault, one that was busy by the server's
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            let began = due.filter(|_| wait.is_zero()).unwrap_or_else(Instant::now);
            first.get_or_insert(began);
            exchange(&mut line, &requests[mine % requests.len()], &mut answer);
            seconds.push(began.elapsed().as_secs_f64());
        }
        (first, Instant::now(), seconds)
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let first = all.iter().filter_map(|(first, ..)| *first).min().expect("a request");
    let last = all.iter().map(|(_, last, _)| *last).max().expect("a request");
    let mut seconds: Vec<f64> = all.into_iter().flat_map(|(.., seconds)| seconds).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    Outcome { seconds, elapsed: (last - first).as_secs_f64() }
}

type Line = StreamOwned<ClientConnection, TcpStream>;

fn connect(to: &Target) -> Line {
    let socket = TcpStream::connect(to.address).expect("it listens");
    socket.set_nodelay(true).expect("a TCP socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a TCP socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(to.tls.clone(), name).expect("a client");
    client.set_buffer_limit(None);
    StreamOwned::new(client, socket)
}

/// Sends a request and reads its answer, which must let the write through.
fn exchange(line: &mut Line, request: &[u8], answer: &mut Vec<u8>) {
    line.write_all(request).expect("sent");
    line.flush().expect("sent");
    let mut have = 0;
    let all = loop {
        if have == answer.len() {
            answer.resize(2 * have, 0);
        }
        let more = line.read(&mut answer[have..]).expect("an answer");
        assert!(more > 0, "the connection ended: {}", String::from_utf8_lossy(&answer[..have]));
        have += more;
        if let Some(all) = length(&answer[..have]).filter(|all| have >= *all) {
            break all;
        }
    };
    let answer = &answer[..all];
    let allowed = answer.windows(14).any(|window| window == b"\"allowed\":true");
    assert!(answer.starts_with(b"HTTP/1.1 200") && allowed, "{}", String::from_utf8_lossy(answer));
}

/// Bytes of an answer, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head").to_ascii_lowercase();
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
    Some(head + length.expect("a length").trim().parse::<usize>().expect("a number"))
}
