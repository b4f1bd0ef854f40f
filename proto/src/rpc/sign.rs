//! The client layer: says who calls, for whom, and how long the caller waits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{CREDENTIAL_TTL, RPC_CLIENT_GRACE};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, Binary, MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

use super::credential::ClusterKey;
use super::layer::{Layer, Payload, too_late, within_limit};
use super::meters::ClientMeters;
use super::permissions::{Lifetime, lifetime};
use super::{Peer, RequestContext, Role, Rpc, request_id, to_failure, to_status};

/// Metadata that carries a credential.
pub(crate) const CREDENTIAL_KEY: &str = "hay-credential-bin";
/// Metadata that carries the request id.
pub(crate) const REQUEST_ID_KEY: &str = "hay-request-id";
/// Metadata that carries how long the caller waits.
pub(crate) const TIMEOUT_KEY: &str = "hay-timeout-ms";

/// How calls of this side are signed.
pub struct Sign {
    by: By,
    meters: ClientMeters,
}

enum By {
    /// A request extension, which can't come from a connection.
    InProcess(Peer),
    /// A credential in the metadata.
    Wire(Credentials),
}

impl Sign {
    /// For calls within the process, as `peer`.
    pub fn in_process(peer: Peer) -> Self {
        Self { by: By::InProcess(peer), meters: ClientMeters::default() }
    }

    /// For calls over connections.
    pub fn wire(credentials: Credentials) -> Self {
        Self { by: By::Wire(credentials), meters: ClientMeters::default() }
    }
}

/// Names the time that the caller waits for the answer; without it the method's own limit holds.
pub fn set_timeout<T>(request: &mut Request<T>, timeout: Duration) {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    request.metadata_mut().insert(TIMEOUT_KEY, MetadataValue::from(ms));
}

/// The caller's time in the metadata, within the method's limit.
pub(crate) fn timeout(metadata: &MetadataMap, limit: Duration) -> Duration {
    let asked = metadata.get(TIMEOUT_KEY).and_then(|v| v.to_str().ok()).and_then(|text| text.parse().ok());
    asked.map_or(limit, |ms| Duration::from_millis(ms).min(limit))
}

impl Layer for Sign {
    async fn around<Q, R, F, Fut>(
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
        RequestContext::count_call();
        self.meters.called(rpc);
        match &self.by {
            By::InProcess(peer) => {
                request.extensions_mut().insert(*peer);
                next(request).await
            }
            By::Wire(credentials) => {
                // tonic would reset the connection's stream and say nothing of the size.
                within_limit(rpc, request.get_ref().size())?;
                let metadata = request.metadata_mut();
                metadata.insert_bin(CREDENTIAL_KEY, credentials.current());
                if let Some(id) =
                    request_id().and_then(|id| id.to_string().parse::<MetadataValue<Ascii>>().ok())
                {
                    metadata.insert(REQUEST_ID_KEY, id);
                }
                // The server keeps the deadline. This only ends calls to one that answers nothing at all.
                let limit = timeout(metadata, lifetime(rpc).limit()) + RPC_CLIENT_GRACE;
                match tokio::time::timeout(limit, next(request)).await {
                    Ok(reply) => reply.map_err(|status| named(rpc, credentials.role(), status)),
                    Err(_) => Err(too_late(rpc)),
                }
            }
        }
    }
}

/// Says of a refused credential whose it was and who refused it, which nobody knows but here.
fn named(rpc: Rpc, role: Role, status: Status) -> Status {
    if status.code() != Code::Unauthenticated {
        return status;
    }
    let failure = to_failure(&status);
    if failure.code != ErrorCode::CredentialRefused {
        return status;
    }
    let there = match rpc.service() {
        "volume" => "the volume server",
        "filer" => "the filer",
        "master" => "the master",
        _ => "another member of the group",
    };
    let text = format!("{there} does not take the credential of this {role}: {}", failure.message);
    to_status(Failure::new(failure.code, text))
}

impl Lifetime {
    /// How long the call may take until it answers.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::Call | Self::Lasting => hay_common::limits::RPC_TIMEOUT,
            Self::Bulk => hay_common::limits::RPC_BULK_TIMEOUT,
        }
    }
}

/// A role's credential, minted anew before it expires.
#[derive(Clone)]
pub struct Credentials(Arc<Minting>);

struct Minting {
    key: Arc<ClusterKey>,
    peer: Peer,
    clock: SharedClock,
    /// The token in use and when, on the wall clock in ms, it is replaced.
    current: Mutex<Option<(MetadataValue<Binary>, u64)>>,
}

impl Credentials {
    /// Credentials of `peer`, by the cluster's key.
    pub fn new(key: Arc<ClusterKey>, peer: Peer, clock: SharedClock) -> Self {
        Self(Arc::new(Minting { key, peer, clock, current: Mutex::new(None) }))
    }

    fn role(&self) -> Role {
        self.0.peer.role
    }

    fn current(&self) -> MetadataValue<Binary> {
        let Minting { key, peer, clock, current } = &*self.0;
        let now_ms = clock.wall_ms();
        let half_ms = CREDENTIAL_TTL.as_millis() as u64 / 2;
        let mut current = current.lock();
        match &*current {
            // A clock that went back a long way makes a token from the future: replaced too.
            Some((token, renew_ms)) if now_ms < *renew_ms && *renew_ms - now_ms <= half_ms => token.clone(),
            _ => {
                let token = MetadataValue::from_bytes(&key.mint(*peer, now_ms));
                *current = Some((token.clone(), now_ms + half_ms));
                token
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hay_common::clock::{Clock, ManualClock};
    use hay_common::ids::{ClusterId, NodeId};

    use super::*;
    use crate::rpc::credential::{CredentialError, CredentialVerifier};

    #[test]
    fn a_credential_is_renewed_before_it_expires() {
        let key = Arc::new(ClusterKey::from_seed(ClusterId::from_random(1), &[7; 32]).unwrap());
        let peer = Peer { role: Role::Gateway, node: NodeId::from_random(2) };
        let clock = ManualClock::at(1_000_000);
        let credentials = Credentials::new(key.clone(), peer, clock.clone());
        let verifier = CredentialVerifier::new(key.cluster(), key.public());
        let first = credentials.current();
        assert_eq!(first, credentials.current());
        for _ in 0..10 {
            clock.advance(CREDENTIAL_TTL.mul_f64(0.6));
            let token = credentials.current().to_bytes().unwrap();
            assert_eq!(verifier.verify(&token, clock.wall_ms()), Ok(peer));
        }
        assert_ne!(first, credentials.current());
    }

    #[test]
    fn a_refused_credential_names_both_sides_and_the_way_out() {
        let refused = to_status(CredentialError::Forged.into());
        let failure = to_failure(&named(Rpc::FilerBegin, Role::Gateway, refused));
        assert_eq!(failure.code, ErrorCode::CredentialRefused);
        for part in ["the filer", "this gateway", "--cluster-key"] {
            assert!(failure.message.contains(part), "{part}: {}", failure.message);
        }
        // A user without a token is another matter.
        let users = Failure::new(ErrorCode::Unauthenticated, "the bearer token is not known here");
        let status = named(Rpc::FilerBegin, Role::Gateway, to_status(users.clone()));
        assert_eq!(to_failure(&status), users);
    }

    #[test]
    fn the_shorter_time_holds() {
        let mut request = Request::new(());
        let limit = Duration::from_secs(10);
        assert_eq!(timeout(request.metadata(), limit), limit);
        set_timeout(&mut request, Duration::from_millis(1500));
        assert_eq!(timeout(request.metadata(), limit), Duration::from_millis(1500));
        set_timeout(&mut request, Duration::from_secs(1500));
        assert_eq!(timeout(request.metadata(), limit), limit);
    }
}
