//! What stands before a service on the wire: nothing of a message is read, let alone kept, for a caller whose credential is
//! not good. The guard behind it comes too late for that: tonic has the whole message in memory before a handler runs.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use super::{Guard, Peer};

/// Who the caller is, by its credential.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verified(pub(super) Peer);

/// A service that is reached by those only whose credential is good.
#[derive(Clone)]
pub struct Gate<S> {
    service: S,
    guard: Arc<Guard>,
}

impl<S> Gate<S> {
    /// Puts `guard`'s eyes before `service`.
    pub fn new(service: S, guard: Arc<Guard>) -> Self {
        Self { service, guard }
    }
}

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.guard.verify(request.headers()) {
            Ok(peer) => {
                request.extensions_mut().insert(Verified(peer));
                Either::Left(self.service.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}
