//! The server layer: nothing reaches a handler but through it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::RPC_CALLS_MAX;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use super::credential::{ClusterKey, CredentialError, CredentialVerifier};
use super::gate::Verified;
use super::layer::{Layer, Payload, Place, Watch, too_late, within_limit};
use super::meters::ServerMeters;
use super::permissions::{Lifetime, lifetime, roles};
use super::sign::{CREDENTIAL_KEY, REQUEST_ID_KEY, timeout};
use super::{Peer, RequestContext, RequestId, Rpc, to_failure, to_status};

/// Authenticates, permits, limits, times and traces the calls of services, by either binding.
pub struct Guard {
    verifier: CredentialVerifier,
    clock: SharedClock,
    calls_max: usize,
    calls: InWork,
    meters: ServerMeters,
}

/// Calls in work, each service for itself: one guard may stand before several in a process, and a crowd of readers
/// must not keep a heartbeat out.
#[derive(Default)]
struct InWork {
    volume: Arc<AtomicUsize>,
    filer: Arc<AtomicUsize>,
    master: Arc<AtomicUsize>,
    raft: Arc<AtomicUsize>,
}

impl InWork {
    fn of(&self, rpc: Rpc) -> &Arc<AtomicUsize> {
        match rpc.service() {
            "volume" => &self.volume,
            "filer" => &self.filer,
            "raft" => &self.raft,
            _ => &self.master,
        }
    }
}

/// Who calls, and what came with the call.
struct Caller {
    peer: Peer,
    /// Only from the wire: within a process the caller's own context is in scope already.
    request_id: Option<RequestId>,
    wire: bool,
}

impl Guard {
    /// A guard that takes credentials of this key's cluster and [`RPC_CALLS_MAX`] calls of each service at once.
    pub fn new(key: &ClusterKey, clock: SharedClock) -> Self {
        Self {
            verifier: CredentialVerifier::new(key.cluster(), key.public()),
            clock,
            calls_max: RPC_CALLS_MAX,
            calls: InWork::default(),
            meters: ServerMeters::default(),
        }
    }

    /// The same with another number of calls of each service at once.
    pub fn with_calls_max(self, calls_max: usize) -> Self {
        Self { calls_max, ..self }
    }

    fn identify<Q>(&self, request: &mut Request<Q>) -> Result<Caller, Status> {
        if let Some(peer) = request.extensions().get::<Peer>() {
            return Ok(Caller { peer: *peer, request_id: None, wire: false });
        }
        let metadata = request.metadata();
        let peer = match request.extensions().get::<Verified>() {
            Some(Verified(peer)) => *peer,
            None => self.verified(metadata)?,
        };
        let id =
            metadata.get(REQUEST_ID_KEY).and_then(|v| v.to_str().ok()).and_then(|text| text.parse().ok());
        request.extensions_mut().insert(peer);
        Ok(Caller { peer, request_id: id, wire: true })
    }

    /// Whose credential the headers of a call carry.
    pub(super) fn verify(&self, headers: &HeaderMap) -> Result<Peer, Status> {
        let mut credential = MetadataMap::with_capacity(1);
        if let Some(value) = headers.get(CREDENTIAL_KEY) {
            credential.as_mut().insert(CREDENTIAL_KEY, value.clone());
        }
        let verified = self.verified(&credential);
        if verified.is_err() {
            metrics::counter!("hay_rpc_strangers_total").increment(1);
        }
        verified
    }

    fn verified(&self, metadata: &MetadataMap) -> Result<Peer, Status> {
        let token = metadata.get_bin(CREDENTIAL_KEY).and_then(|value| value.to_bytes().ok());
        let token = token.ok_or_else(|| refused(CredentialError::Missing))?;
        self.verifier.verify(&token, self.clock.wall_ms()).map_err(refused)
    }

    /// All that is decided before the handler runs.
    fn admit<Q: Payload>(&self, rpc: Rpc, request: &mut Request<Q>) -> Result<(Caller, Place), Status> {
        let caller = self.identify(request)?;
        permit(rpc, caller.peer)?;
        within_limit(rpc, request.get_ref().size())?;
        let place =
            Place::take(self.calls.of(rpc), self.calls_max).ok_or_else(|| overloaded(rpc, self.calls_max))?;
        Ok((caller, place))
    }

    async fn run<Q, R, F, Fut>(
        &self,
        rpc: Rpc,
        mut request: Request<Q>,
        next: F,
    ) -> Result<Response<R>, Status>
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let (caller, place) = self.admit(rpc, &mut request)?;
        let limit = timeout(request.metadata(), lifetime(rpc).limit());
        let began = self.clock.monotonic();
        let span = span(rpc, &caller);
        let call = next(request);
        let timed = async {
            match tokio::time::timeout(limit, call).await {
                Ok(reply) => reply,
                Err(_) => Err(too_late(rpc)),
            }
        };
        let reply = match caller.request_id {
            Some(id) => RequestContext::new(id).scope(timed.instrument(span)).await,
            None => timed.instrument(span).await,
        }?;
        within_limit(rpc, reply.get_ref().size())?;
        let time_left = match lifetime(rpc) {
            Lifetime::Lasting => None,
            Lifetime::Call | Lifetime::Bulk => {
                Some(limit.saturating_sub(self.clock.monotonic().saturating_sub(began)))
            }
        };
        Ok(reply.map(|payload| payload.held(Watch { rpc, place, time_left })))
    }
}

impl Layer for Guard {
    async fn around<Q, R, F, Fut>(
        &self,
        rpc: Rpc,
        request: Request<Q>,
        next: F,
    ) -> Result<Response<R>, Status>
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let began = self.clock.monotonic();
        let reply = self.run(rpc, request, next).await;
        self.meters.answered(rpc, self.clock.monotonic().saturating_sub(began));
        if let Err(status) = &reply {
            self.meters.failed(rpc, status);
            report(rpc, status);
        }
        reply
    }
}

fn permit(rpc: Rpc, peer: Peer) -> Result<(), Status> {
    if roles(rpc).contains(&peer.role) {
        return Ok(());
    }
    let text = format!("{:?} {} may not call {}.{}", peer.role, peer.node, rpc.service(), rpc.name());
    Err(to_status(Failure::new(ErrorCode::Forbidden, text)))
}

fn refused(error: CredentialError) -> Status {
    to_status(error.into())
}

fn overloaded(rpc: Rpc, max: usize) -> Status {
    let text = format!("{max} calls of the {} service are in work; try again later", rpc.service());
    to_status(Failure::new(ErrorCode::Overloaded, text))
}

/// A call within the process runs inside its caller's span, which has the request id; making another for every
/// call would cost more than many of the calls.
fn span(rpc: Rpc, caller: &Caller) -> Span {
    if !caller.wire {
        return tracing::debug_span!("rpc", service = rpc.service(), method = rpc.name());
    }
    let span = tracing::info_span!(
        "rpc",
        service = rpc.service(),
        method = rpc.name(),
        role = ?caller.peer.role,
        node = %caller.peer.node,
        request_id = tracing::field::Empty,
    );
    if let Some(id) = caller.request_id {
        span.record("request_id", tracing::field::display(id));
    }
    span
}

fn report(rpc: Rpc, status: &Status) {
    let failure = to_failure(status);
    let (service, method, code) = (rpc.service(), rpc.name(), failure.code.as_str());
    match failure.code {
        ErrorCode::Internal | ErrorCode::Corrupt => {
            tracing::error!(service, method, code, message = failure.message, "an inner call failed");
        }
        ErrorCode::CredentialRefused
        | ErrorCode::Unauthenticated
        | ErrorCode::Forbidden
        | ErrorCode::Overloaded
        | ErrorCode::DeadlineExceeded => {
            tracing::warn!(service, method, code, message = failure.message, "an inner call was refused");
        }
        _ => tracing::debug!(service, method, code, message = failure.message, "an inner call failed"),
    }
}

#[cfg(test)]
mod tests {
    use hay_common::clock::ManualClock;
    use hay_common::ids::{ClusterId, NodeId};

    use super::*;
    use crate::rpc::Role;
    use crate::v1;

    fn from<T>(role: Role, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Peer { role, node: NodeId::from_random(1) });
        request
    }

    #[test]
    fn a_crowded_service_keeps_nobody_out_of_another() {
        let key = ClusterKey::from_seed(ClusterId::from_random(1), &[1; 32]).unwrap();
        let guard = Guard::new(&key, ManualClock::at(1)).with_calls_max(1);
        let read = || from(Role::Gateway, v1::ReadBatchRequest::default());
        let held = guard.admit(Rpc::VolumeReadBatch, &mut read()).unwrap();
        assert!(guard.admit(Rpc::VolumeReadBatch, &mut read()).is_err());
        let mut whoami = from(Role::Gateway, v1::WhoamiRequest::default());
        let filer = guard.admit(Rpc::FilerWhoami, &mut whoami).unwrap();
        let mut lease = from(Role::Gateway, v1::LeaseWriteRequest::default());
        let master = guard.admit(Rpc::MasterLeaseWrite, &mut lease).unwrap();
        drop((held, filer, master));
        assert!(guard.admit(Rpc::VolumeReadBatch, &mut read()).is_ok());
    }
}
