//! The webhook's connections: in turn, and the one that has been silent longest makes room for a new one.
//!
//! actix bounds the handshake in time, but hardly a head, nor what is left of a body that nobody reads; and idle ones the API
//! server needs to stay. So what is silent is closed when others need its place.

use super::State;
use crate::metrics::Metrics;
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use rustix::net::sockopt::set_tcp_user_timeout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::task::coop::consume_budget;

/// Connections of a worker from which on a new one takes the place of the most silent.
const MANY: usize = 256;
/// Milliseconds after which a peer that takes none of its answer is given up.
const UNREAD: u32 = 15_000;
/// What a request costs of the 128 units after which tokio lets another connection go on.
const UNITS: usize = 16;

thread_local! {
    /// Those of this worker.
    static OPEN: RefCell<Vec<Weak<Connection>>> = const { RefCell::new(Vec::new()) };
}

/// A connection, as its requests see it.
struct Connection {
    /// The same socket again, to close it.
    socket: std::net::TcpStream,
    /// When its last request began.
    heard: Cell<Instant>,
    /// It was told that it will be closed.
    ended: Cell<bool>,
}

impl Connection {
    fn close(&self) {
        // closed already, otherwise
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A connection has done its handshake.
pub fn opened(io: &dyn Any, data: &mut Extensions, metrics: &Metrics) {
    let Some(stream) = io.downcast_ref::<TlsStream<TcpStream>>() else { return };
    let socket = stream.get_ref().0.as_fd();
    // where the kernel cannot, the peer is closed as a silent one
    let _ = set_tcp_user_timeout(socket, UNREAD);
    let Ok(socket) = socket.try_clone_to_owned() else { return };
    let connection = Connection { socket: socket.into(), heard: Cell::new(Instant::now()), ended: Cell::new(false) };
    let connection = Rc::new(connection);
    OPEN.with_borrow_mut(|open| {
        make_room(open, metrics);
        open.push(Rc::downgrade(&connection));
    });
    data.insert(connection);
}

fn make_room(open: &mut Vec<Weak<Connection>>, metrics: &Metrics) {
    if open.len() >= MANY {
        open.retain(|connection| connection.strong_count() > 0);
    }
    if open.len() >= MANY {
        let heard = |connection: &Weak<Connection>| connection.upgrade().map(|connection| connection.heard.get());
        let silent = (0..open.len()).min_by_key(|&place| heard(&open[place]));
        if let Some(connection) = silent.and_then(|place| open.swap_remove(place).upgrade()) {
            connection.close();
            metrics.admission.connection_closed();
        }
    }
}

/// Carries out a request when it is its connection's turn: many may have been sent ahead. After an error the
/// connection ends, whatever was sent behind it.
pub async fn in_turn(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    for _ in 0..UNITS {
        consume_budget().await;
    }
    let Some(connection) = request.conn_data::<Rc<Connection>>().cloned() else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    if connection.ended.get() {
        // first the answer before this one is sent
        tokio::task::yield_now().await;
        connection.close();
        return Ok(request.into_response(HttpResponse::BadRequest().finish()));
    }
    connection.heard.set(Instant::now());
    let state = request.app_data::<Data<State>>().cloned();
    let mut response = next.call(request).await?;
    let status = response.status();
    let is_error = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
    connection.ended.set(is_error);
    if is_error || state.is_some_and(|state| state.is_leaving.load(Ordering::Relaxed)) {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_into_boxed_body())
}
