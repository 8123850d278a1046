//! Counts calls, around all else that a client does with them.

use crate::metrics::Calls;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use std::task::{Context, Poll};
use tower::Service;

/// A service whose calls are counted.
pub struct Counted<S> {
    service: S,
    calls: Calls,
}

impl<S> Counted<S> {
    pub fn new(service: S, calls: Calls) -> Self {
        Self { service, calls }
    }
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.calls.begin(request.method(), request.uri());
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            call.answered(answer.status());
            Ok(answer)
        })
    }
}
