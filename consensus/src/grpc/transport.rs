//! The calling end: connections to the other members, signed as this process's role.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use hay_common::limits::{RAFT_MEMBERS_MAX, RAFT_REDIAL_AFTER};
use hay_proto::rpc::transport::{AddressError, Channels};
use hay_proto::rpc::{Credentials, DynRaft, in_process, remote_raft, set_timeout};
use parking_lot::Mutex;
use tonic::{Request, Status};

use crate::transport::{Acks, CallKind, Envelope, Parts, Transport, TransportError};

use super::convert::{ack_in, envelope_out, error_in, part_out};

/// Carries a group's messages over gRPC. Connections are opened at first use and kept; one that has gone silent is made
/// anew, because TCP may take minutes to notice that its other end has come back.
pub struct GrpcTransport {
    credentials: Credentials,
    dial: Dial,
    peers: Arc<Peers>,
}

/// Makes connections to an address, to be opened at first use.
pub type Dial = fn(&str) -> Result<Channels, AddressError>;

#[derive(Default)]
struct Peers(Mutex<HashMap<String, Dialled>>);

struct Dialled {
    service: DynRaft,
    /// Calls in a row that nothing came back for.
    silent: u32,
}

impl GrpcTransport {
    /// Signs its calls with `credentials`: those of the role that the groups belong to.
    pub fn shared(credentials: Credentials) -> Arc<dyn Transport> {
        Self::dialling(credentials, Channels::lazy)
    }

    /// The same over connections of another kind.
    pub fn dialling(credentials: Credentials, dial: Dial) -> Arc<dyn Transport> {
        Arc::new(Self { credentials, dial, peers: Arc::default() })
    }

    fn service(&self, address: &str) -> Result<DynRaft, TransportError> {
        let mut peers = self.peers.0.lock();
        if let Some(known) = peers.get(address) {
            return Ok(known.service.clone());
        }
        let channels = (self.dial)(address).map_err(|e| TransportError::Unreachable(e.to_string()))?;
        // Addresses come from the members and the static list; those that left don't stay for ever.
        if peers.len() >= 4 * RAFT_MEMBERS_MAX {
            peers.clear();
        }
        let service = remote_raft(channels, self.credentials.clone());
        peers.insert(address.to_owned(), Dialled { service: service.clone(), silent: 0 });
        Ok(service)
    }
}

/// Counts a call as silent unless it is told otherwise: the library drops calls that take too long.
struct Watched {
    peers: Arc<Peers>,
    address: String,
    answered: bool,
}

impl Watched {
    fn answered(&mut self, answer: &Result<Bytes, TransportError>) {
        self.answered = !matches!(answer, Err(TransportError::TimedOut));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut peers = self.peers.0.lock();
        let Some(dialled) = peers.get_mut(&self.address) else { return };
        dialled.silent = if self.answered { 0 } else { dialled.silent + 1 };
        if dialled.silent >= RAFT_REDIAL_AFTER {
            peers.remove(&self.address);
        }
    }
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        address: &str,
        kind: CallKind,
        envelope: Envelope,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let service = match self.service(address) {
            Ok(service) => service,
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        let mut watched = Watched { peers: self.peers.clone(), address: address.to_owned(), answered: false };
        async move {
            let mut request = Request::new(envelope_out(envelope));
            set_timeout(&mut request, timeout);
            let answer = match kind {
                CallKind::Append => service.append_entries(request).await,
                CallKind::Vote => service.request_vote(request).await,
                CallKind::Describe => service.describe(request).await,
                CallKind::Promise => service.promise(request).await,
                CallKind::Join => service.join(request).await,
            };
            let answer = answer.map(|answer| answer.into_inner().body).map_err(|status| error_in(&status));
            watched.answered(&answer);
            answer
        }
        .boxed()
    }

    fn snapshot(&self, address: &str, parts: Parts) -> BoxFuture<'static, Result<Acks, TransportError>> {
        let service = match self.service(address) {
            Ok(service) => service,
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        async move {
            let parts = parts.map(|part| part.map(part_out).map_err(|e| Status::unavailable(e.to_string())));
            let acks = service.install_snapshot(Request::new(in_process(parts))).await;
            let acks = acks.map_err(|status| error_in(&status))?.into_inner();
            Ok(acks.map(|ack| ack.map(ack_in).map_err(|status| error_in(&status))).boxed())
        }
        .boxed()
    }
}
