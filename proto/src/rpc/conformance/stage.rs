//! A service behind its guard, reached by one of the two bindings, as whatever caller.

use std::future::Future;
use std::sync::Arc;

use hay_common::clock::ManualClock;
use hay_common::ids::ClusterId;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::control::node;
use crate::rpc::credential::ClusterKey;
use crate::rpc::sign::CREDENTIAL_KEY;
use crate::rpc::{Credentials, Guard, Layer, Payload, Peer, Role, Rpc, Sign};

pub const NOW_MS: u64 = 1_800_000_000_000;

/// How calls travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// By a call.
    Direct,
    /// By tonic over loopback TCP.
    Wire,
}

pub const BINDINGS: [Binding; 2] = [Binding::Direct, Binding::Wire];

/// Who calls.
#[derive(Clone)]
pub enum Caller {
    /// A part of the cluster.
    Role(Role),
    /// Somebody without a credential.
    Nobody,
    /// Somebody with these bytes for a credential.
    Token(Vec<u8>),
}

/// What the checks of one service share.
pub struct Cluster {
    pub key: Arc<ClusterKey>,
    pub clock: Arc<ManualClock>,
}

impl Cluster {
    pub fn new() -> Self {
        let key = ClusterKey::from_seed(ClusterId::from_random(1), &[1; 32]).unwrap();
        Self { key: Arc::new(key), clock: ManualClock::at(NOW_MS) }
    }

    pub fn guard(&self, calls_max: usize) -> Arc<Guard> {
        Arc::new(Guard::new(&self.key, self.clock.clone()).with_calls_max(calls_max))
    }

    pub fn peer(role: Role) -> Peer {
        Peer { role, node: node(role as u128 + 1) }
    }

    pub fn sign(&self, binding: Binding, role: Role) -> Sign {
        let peer = Self::peer(role);
        match binding {
            Binding::Direct => Sign::in_process(peer),
            Binding::Wire => Sign::wire(Credentials::new(self.key.clone(), peer, self.clock.clone())),
        }
    }
}

/// A client layer that sends whatever bytes as its credential.
pub struct WithToken(pub Vec<u8>);

impl Layer for WithToken {
    async fn around<Q, R, F, Fut>(
        &self,
        _: Rpc,
        mut request: Request<Q>,
        next: F,
    ) -> Result<Response<R>, Status>
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        request.metadata_mut().insert_bin(CREDENTIAL_KEY, MetadataValue::from_bytes(&self.0));
        next(request).await
    }
}

/// A listener on a free port, and its address.
pub async fn listen() -> (TcpListenerStream, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (TcpListenerStream::new(listener), address)
}

/// Defines the stage of one service.
macro_rules! stage {
    ($stage:ident, $core:ty, $dyn:ty, $remote:ident, $serve:ident) => {
        pub struct $stage {
            pub core: std::sync::Arc<$core>,
            pub cluster: $crate::rpc::conformance::stage::Cluster,
            pub binding: $crate::rpc::conformance::stage::Binding,
            base: $dyn,
            _server: Option<$crate::rpc::conformance::stage::AbortOnDrop>,
        }

        impl $stage {
            pub async fn new(binding: $crate::rpc::conformance::stage::Binding, calls_max: usize) -> Self {
                use $crate::rpc::conformance::stage::{Binding, Cluster, listen};
                let cluster = Cluster::new();
                let core = std::sync::Arc::new(<$core>::default());
                let guard = cluster.guard(calls_max);
                let (base, server): ($dyn, _) = match binding {
                    Binding::Direct => (
                        std::sync::Arc::new($crate::rpc::Layered { inner: core.clone(), layer: guard }),
                        None,
                    ),
                    Binding::Wire => {
                        let (incoming, address) = listen().await;
                        let service = $crate::rpc::$serve(core.clone(), guard);
                        let router = $crate::rpc::transport::server().add_service(service);
                        let task =
                            tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
                        let channels = $crate::rpc::transport::Channels::lazy(&address).unwrap();
                        let remote = $crate::rpc::$remote::new(channels.small, channels.bulk);
                        (
                            std::sync::Arc::new(remote),
                            Some($crate::rpc::conformance::stage::AbortOnDrop(task)),
                        )
                    }
                };
                Self { core, cluster, binding, base, _server: server }
            }

            /// The service as `caller` reaches it.
            pub fn client(&self, caller: $crate::rpc::conformance::stage::Caller) -> $dyn {
                use $crate::rpc::Layered;
                use $crate::rpc::conformance::stage::{Caller, WithToken};
                let inner = self.base.clone();
                match caller {
                    Caller::Role(role) => {
                        std::sync::Arc::new(Layered { inner, layer: self.cluster.sign(self.binding, role) })
                    }
                    Caller::Nobody => inner,
                    Caller::Token(token) => std::sync::Arc::new(Layered { inner, layer: WithToken(token) }),
                }
            }
        }
    };
}
pub(crate) use stage;

/// Ends a server's task with its stage.
pub struct AbortOnDrop(pub tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
