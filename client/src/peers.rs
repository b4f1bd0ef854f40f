//! Which volume server answers at which address: in this process, or at the other end of a connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::NeedleKey;
use hay_common::limits::{ADDRESS_AVOIDED, PEERS_MAX};
use hay_proto::rpc::transport::Channels;
use hay_proto::rpc::{Credentials, DynVolume, remote_volume};
use parking_lot::Mutex;

/// The volume servers by their addresses. Clones share them.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    /// Read at every call, changed hardly ever.
    known: ArcSwap<HashMap<String, DynVolume>>,
    credentials: Option<Credentials>,
    /// Servers that failed a call lately: they are asked last.
    avoided: Mutex<Vec<String>>,
    /// How many there may be: mostly none, which costs no lock to see.
    avoided_count: AtomicUsize,
}

impl Peers {
    /// None yet. With `credentials` unknown addresses are dialled; without, only registered ones answer.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self(Arc::new(Inner {
            known: ArcSwap::default(),
            credentials,
            avoided: Mutex::default(),
            avoided_count: AtomicUsize::new(0),
        }))
    }

    /// The server at `address` is this one.
    pub fn register(&self, address: &str, volume: DynVolume) {
        self.0.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(address.to_owned(), volume.clone());
            known
        });
    }

    /// The server at `address` failed a call: others are asked first for a while.
    pub(crate) fn avoid(&self, address: &str) {
        let mut avoided = self.0.avoided.lock();
        if avoided.len() >= PEERS_MAX || avoided.iter().any(|known| known == address) {
            return;
        }
        avoided.push(address.to_owned());
        self.0.avoided_count.store(avoided.len(), Ordering::Relaxed);
        let (inner, address) = (Arc::downgrade(&self.0), address.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(ADDRESS_AVOIDED).await;
            if let Some(inner) = inner.upgrade() {
                let mut avoided = inner.avoided.lock();
                avoided.retain(|known| *known != address);
                inner.avoided_count.store(avoided.len(), Ordering::Relaxed);
            }
        });
    }

    /// The addresses in the order in which to ask them for a needle of that key. Keys fall evenly on the replicas, and always
    /// on the same one, whose page cache may have it; who failed lately comes last.
    pub(crate) fn order<'a>(&self, addresses: &'a [String], key: NeedleKey) -> Vec<&'a String> {
        let mut order: Vec<&String> = addresses.iter().collect();
        if order.len() > 1 {
            let first = (key.0 % order.len() as u128) as usize;
            order.rotate_left(first);
            if self.0.avoided_count.load(Ordering::Relaxed) > 0 {
                let avoided = self.0.avoided.lock();
                order.sort_by_key(|address| avoided.contains(*address));
            }
        }
        order
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
