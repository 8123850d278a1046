//! The proxy between the operators of one plan and the API server: it numbers their writes, keeps a record of what was
//! answered, and lets one thing go wrong.
//!
//! What it was given it carries to its end, also when the operator is killed meanwhile: so the record is complete.

use crate::call::Call;
use crate::plan::{Fault, ReadFault, WATCHED, WatchFault, WriteFault};
use crate::process::Operators;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How late the events of a frozen watch are.
const FREEZE: Duration = Duration::from_secs(6);
/// The longest that an operator is stopped: three times the life of a lease.
const STANDSTILL: Duration = Duration::from_secs(45);
/// How long a 410 waits for an event in whose place it comes.
const NEXT_EVENT: Duration = Duration::from_secs(1);
/// Of so many reads one fails: an observation takes about five.
const READS: usize = 7;

type Answer = Response<UnsyncBoxBody<Bytes, Gone>>;

/// No answer: the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
pub struct Gone;

/// A write of the operators and what the API server said to it, if it got there.
#[derive(Clone, Debug)]
pub struct Write {
    pub call: Call,
    pub code: Option<u16>,
}

impl Write {
    /// Whether it was carried out.
    pub fn is_done(&self) -> bool {
        self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

pub struct Proxy {
    fault: Fault,
    /// Without credentials: each request brings the operator's own.
    upstream: Client,
    pub operators: Operators,
    record: Mutex<Vec<Write>>,
    /// Writes so far.
    asked: watch::Sender<usize>,
    reads: AtomicUsize,
    /// Kinds whose watch was opened.
    open: watch::Sender<BTreeSet<String>>,
    /// Whether the watch's fault has begun.
    struck: watch::Sender<bool>,
    /// Faults that go on.
    going_on: watch::Sender<usize>,
    /// Whether the scenario is over.
    over: watch::Sender<bool>,
    fired: AtomicBool,
}

impl Proxy {
    pub fn new(fault: Fault, upstream: Client, operators: Operators) -> Arc<Self> {
        Arc::new(Self {
            fault,
            upstream,
            operators,
            record: Mutex::default(),
            asked: watch::Sender::default(),
            reads: AtomicUsize::default(),
            open: watch::Sender::default(),
            struck: watch::Sender::default(),
            going_on: watch::Sender::default(),
            over: watch::Sender::default(),
            fired: AtomicBool::default(),
        })
    }

    /// Serves until it is aborted.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let proxy = self.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = tokio::spawn(proxy.clone().answer(request));
                async { answer.await.unwrap_or(Err(Gone)) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }

    /// Waits until the operator watches all that it watches.
    pub async fn watches_are_open(&self) {
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| WATCHED.iter().all(|kind| open.contains(*kind))).await;
    }

    /// Lets the fault of a watch begin.
    pub fn strike(&self) {
        self.struck.send_replace(true);
    }

    /// Says that the scenario is over, and waits until the fault is.
    pub async fn calm_down(&self) {
        self.over.send_replace(true);
        let _ = self.going_on.subscribe().wait_for(|faults| *faults == 0).await;
    }

    /// Whether the fault came to pass.
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }

    pub fn writes_so_far(&self) -> usize {
        *self.asked.borrow()
    }

    pub fn record(&self) -> Vec<Write> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Gone> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
        let call = Call::of(&head, &body);
        if call.is_write() {
            self.write(call, head, body).await
        } else if call.is_watch {
            self.watch(call, head).await
        } else if call.resource.ends_with("webhookconfigurations") {
            // they are not installed, and each operator would ask every two seconds
            Ok(status(404, "NotFound"))
        } else {
            self.read(&call, head, body).await
        }
    }

    async fn read(&self, call: &Call, head: Parts, body: Bytes) -> Result<Answer, Gone> {
        let is_hit = !call.is_aside() && (self.reads.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(READS);
        match self.fault {
            Fault::Reads(fault) if is_hit => {
                self.fired.store(true, Ordering::SeqCst);
                match fault {
                    ReadFault::Refused => Ok(status(500, "InternalError")),
                    ReadFault::Lost => Err(Gone),
                }
            }
            _ => whole(self.forward(head, body).await?).await,
        }
    }

    async fn write(&self, call: Call, head: Parts, body: Bytes) -> Result<Answer, Gone> {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        match self.fault {
            Fault::Write(at, fault) if at == number => {
                self.fired.store(true, Ordering::SeqCst);
                self.going_on.send_modify(|faults| *faults += 1);
                let answer = self.fail(fault, call, head, body).await;
                self.going_on.send_modify(|faults| *faults -= 1);
                answer
            }
            _ => self.carry_out(call, head, body).await,
        }
    }

    async fn fail(&self, fault: WriteFault, call: Call, head: Parts, body: Bytes) -> Result<Answer, Gone> {
        match fault {
            WriteFault::CrashBefore => {
                self.note(call, None);
                self.operators.crash();
                Err(Gone)
            }
            WriteFault::CrashAfter => {
                self.carry_out(call, head, body).await?;
                self.operators.crash();
                Err(Gone)
            }
            WriteFault::AnswerLost => {
                self.carry_out(call, head, body).await?;
                Err(Gone)
            }
            WriteFault::Refused(code) => {
                let reason = match (code, call.verb) {
                    (409, "create") => "AlreadyExists",
                    (409, _) => "Conflict",
                    (429, _) => "TooManyRequests",
                    (504, _) => "Timeout",
                    _ => "InternalError",
                };
                self.note(call, None);
                Ok(status(code, reason))
            }
            WriteFault::TimeoutAfter => {
                self.carry_out(call, head, body).await?;
                Ok(status(504, "Timeout"))
            }
            WriteFault::StoppedBefore | WriteFault::StoppedBeforeLong => {
                self.stand_still(fault == WriteFault::StoppedBeforeLong).await;
                let answer = self.carry_out(call, head, body).await;
                self.operators.signal("CONT");
                answer
            }
            WriteFault::StoppedAfter | WriteFault::StoppedAfterLong => {
                let answer = self.carry_out(call, head, body).await;
                self.stand_still(fault == WriteFault::StoppedAfterLong).await;
                self.operators.signal("CONT");
                answer
            }
        }
    }

    /// Stops the first operator and starts another, until that one writes or, if `long`, all is over.
    async fn stand_still(&self, long: bool) {
        self.operators.signal("STOP");
        self.operators.take_over();
        let (mut asked, mut over) = (self.asked.subscribe(), self.over.subscribe());
        let before = *asked.borrow_and_update();
        let until = async {
            tokio::select! {
                _ = asked.wait_for(|asked| *asked > before), if !long => {}
                _ = over.wait_for(|over| *over) => {}
            }
        };
        let _ = timeout(STANDSTILL, until).await;
    }

    async fn carry_out(&self, call: Call, head: Parts, body: Bytes) -> Result<Answer, Gone> {
        let answer = whole(self.forward(head, body).await?).await?;
        self.note(call, Some(answer.status().as_u16()));
        Ok(answer)
    }

    fn note(&self, call: Call, code: Option<u16>) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(Write { call, code });
    }

    async fn forward(&self, head: Parts, body: Bytes) -> Result<Response<Body>, Gone> {
        let mut request = Request::from_parts(head, Body::from(body));
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        self.upstream.send(request).await.map_err(|_| Gone)
    }

    async fn watch(self: Arc<Self>, call: Call, head: Parts) -> Result<Answer, Gone> {
        let response = self.forward(head, Bytes::new()).await?;
        if !response.status().is_success() {
            return whole(response).await;
        }
        let (mut head, body) = response.into_parts();
        head.headers.remove(header::TRANSFER_ENCODING);
        let (to, from) = mpsc::channel(16);
        let mut stroke = self.struck.subscribe();
        // a watch that is opened after the stroke is whole
        let fault = match self.fault {
            Fault::Watch(of, fault, _) if of == call.resource && !*stroke.borrow_and_update() => Some(fault),
            _ => None,
        };
        self.open.send_modify(|open| {
            open.insert(call.resource.clone());
        });
        tokio::spawn(self.pump(fault, Lines { body, rest: vec![] }, to, stroke));
        let frames = futures::stream::unfold(from, async |mut from| from.recv().await.map(|frame| (frame, from)));
        Ok(Response::from_parts(head, StreamBody::new(frames).boxed_unsync()))
    }

    /// Carries a watch's events to the operator until one of both ends hangs up.
    async fn pump(
        self: Arc<Self>,
        mut fault: Option<WatchFault>,
        mut lines: Lines,
        to: Events,
        mut stroke: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = to.closed() => return,
                Ok(()) = stroke.changed(), if fault.is_some() => {
                    self.fired.store(true, Ordering::SeqCst);
                    self.going_on.send_modify(|faults| *faults += 1);
                    let goes_on = interfere(fault.take(), &mut lines, &to).await;
                    self.going_on.send_modify(|faults| *faults -= 1);
                    if !goes_on {
                        return;
                    }
                }
                line = lines.next() => match line {
                    // the client's end is seen above
                    Some(line) => drop(to.send(Ok(Frame::data(line))).await),
                    None => return,
                }
            }
        }
    }
}

type Events = mpsc::Sender<Result<Frame<Bytes>, Gone>>;

/// Whether the watch goes on afterwards.
async fn interfere(fault: Option<WatchFault>, lines: &mut Lines, to: &Events) -> bool {
    match fault {
        Some(WatchFault::Dropped) => drop(to.send(Err(Gone)).await),
        Some(WatchFault::HalfOpen) => to.closed().await,
        Some(WatchFault::Expired) => {
            let _ = timeout(NEXT_EVENT, lines.next()).await;
            let event = json!({"type": "ERROR", "object": status_object(410, "Expired")});
            drop(to.send(Ok(Frame::data(Bytes::from(format!("{event}\n"))))).await);
        }
        Some(WatchFault::Frozen) => {
            let _ = timeout(FREEZE, to.closed()).await;
            return true;
        }
        None => return true,
    }
    false
}

/// The events of a watch, whole.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    /// May be dropped and called again.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Some(self.rest.drain(..=end).collect::<Vec<u8>>().into());
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(frame.data_ref()?);
        }
    }
}

async fn whole(response: Response<Body>) -> Result<Answer, Gone> {
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::TRANSFER_ENCODING);
    let body = body.collect_bytes().await.map_err(|_| Gone)?;
    Ok(Response::from_parts(head, full(body)))
}

fn full(body: Bytes) -> UnsyncBoxBody<Bytes, Gone> {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// An answer as the API server gives it.
fn status(code: u16, reason: &str) -> Answer {
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    let response = if code == 429 { response.header(header::RETRY_AFTER, "1") } else { response };
    response.body(full(Bytes::from(status_object(code, reason).to_string()))).expect("a response")
}

fn status_object(code: u16, reason: &str) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code,
        "message": format!("{reason}: by the fault proxy")})
}
