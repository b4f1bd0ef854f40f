//! Which volume server answers at which address: in this process, or at the other end of a connection.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::PEERS_MAX;
use hay_proto::rpc::transport::Channels;
use hay_proto::rpc::{Credentials, DynVolume, remote_volume};

/// The volume servers by their addresses. Clones share them.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    /// Read at every call, changed hardly ever.
    known: ArcSwap<HashMap<String, DynVolume>>,
    credentials: Option<Credentials>,
}

impl Peers {
    /// None yet. With `credentials` unknown addresses are dialled; without, only registered ones answer.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self(Arc::new(Inner { known: ArcSwap::default(), credentials }))
    }

    /// The server at `address` is this one.
    pub fn register(&self, address: &str, volume: DynVolume) {
        self.0.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(address.to_owned(), volume.clone());
            known
        });
    }

    /// The server at `address`. A connection is opened by the first call, not here.
    pub fn volume(&self, address: &str) -> Result<DynVolume, Failure> {
        match self.0.known.load().get(address) {
            Some(volume) => Ok(volume.clone()),
            None => self.dial(address),
        }
    }

    fn dial(&self, address: &str) -> Result<DynVolume, Failure> {
        let unavailable = |text: String| Failure::new(ErrorCode::Unavailable, text);
        let credentials = self.0.credentials.clone().ok_or_else(|| {
            unavailable(format!("the volume server {address} is not in this process, and no other is known"))
        })?;
        if self.0.known.load().len() >= PEERS_MAX {
            return Err(unavailable(format!(
                "more than {PEERS_MAX} volume servers; {address} is not dialled"
            )));
        }
        let channels = Channels::lazy(address).map_err(|error| unavailable(error.to_string()))?;
        self.register(address, remote_volume(channels, credentials));
        // Whoever registered last stands; both are good.
        self.0
            .known
            .load()
            .get(address)
            .cloned()
            .ok_or_else(|| unavailable(format!("{address} is gone again")))
    }
}
