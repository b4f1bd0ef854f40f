//! Which volume server answers at which address: in this process, or at the other end of a connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::NeedleKey;
use hay_common::limits::{ADDRESS_AVOIDED, PEERS_MAX};
use hay_proto::rpc::transport::Channels;
use hay_proto::rpc::{Credentials, DynVolume, remote_volume};
use parking_lot::Mutex;

use crate::places::Places;

/// The volume servers by their addresses. Clones share them.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Peer {
    volume: DynVolume,
    /// It can be dialled again; the server of this process can't.
    is_dialled: bool,
    /// How many had been dialled when it was last asked for.
    used: AtomicU64,
}

struct Inner {
    /// Read at every call, changed hardly ever.
    known: ArcSwap<HashMap<String, Arc<Peer>>>,
    /// Held while it is changed.
    changing: Mutex<()>,
    /// How many were dialled so far: the time by which it is known who was not asked for in long.
    dialled: AtomicU64,
    peers_max: usize,
    credentials: Option<Credentials>,
    /// Servers that failed a call lately: they are asked last.
    avoided: Mutex<Vec<String>>,
    /// How many there may be: mostly none, which costs no lock to see.
    avoided_count: AtomicUsize,
}

impl Peers {
    /// None yet. With `credentials` unknown addresses are dialled; without, only registered ones answer.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self::up_to(PEERS_MAX, credentials)
    }

    fn up_to(peers_max: usize, credentials: Option<Credentials>) -> Self {
        Self(Arc::new(Inner {
            known: ArcSwap::default(),
            changing: Mutex::new(()),
            dialled: AtomicU64::new(0),
            peers_max,
            credentials,
            avoided: Mutex::default(),
            avoided_count: AtomicUsize::new(0),
        }))
    }

    /// The server at `address` is this one.
    pub fn register(&self, address: &str, volume: DynVolume) {
        let _changing = self.0.changing.lock();
        self.0.keep(address, Peer { volume, is_dialled: false, used: AtomicU64::new(0) });
    }

    /// The server at `address` failed a call: others are asked first for a while.
    pub(crate) fn avoid(&self, address: &str) {
        self.avoid_for(address, ADDRESS_AVOIDED);
    }

    /// The same, for another time.
    pub(crate) fn avoid_for(&self, address: &str, time: Duration) {
        let mut avoided = self.0.avoided.lock();
        if avoided.len() >= PEERS_MAX || avoided.iter().any(|known| known == address) {
            return;
        }
        avoided.push(address.to_owned());
        self.0.avoided_count.store(avoided.len(), Ordering::Relaxed);
        let (inner, address) = (Arc::downgrade(&self.0), address.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(inner) = inner.upgrade() {
                let mut avoided = inner.avoided.lock();
                avoided.retain(|known| *known != address);
                inner.avoided_count.store(avoided.len(), Ordering::Relaxed);
            }
        });
    }

    /// The addresses in the order in which to ask them for a needle of that key. Keys fall evenly on the replicas, and always
    /// on the same one, whose page cache may have it; who failed lately comes after the others, and whom the masters hold for
    /// dead comes last.
    pub(crate) fn order<'a>(&self, places: &'a Places, key: NeedleKey) -> Vec<&'a String> {
        let (living, dead) = places.by_life();
        let mut order: Vec<&String> = living.iter().collect();
        if order.len() > 1 {
            let first = (key.0 % order.len() as u128) as usize;
            order.rotate_left(first);
            if self.0.avoided_count.load(Ordering::Relaxed) > 0 {
                let avoided = self.0.avoided.lock();
                order.sort_by_key(|address| avoided.contains(*address));
            }
        }
        order.extend(dead);
        order
    }

    /// The server at `address`. A connection is opened by the first call, not here.
    pub fn volume(&self, address: &str) -> Result<DynVolume, Failure> {
        match self.0.known.load().get(address) {
            Some(peer) => Ok(self.0.used(peer)),
            None => self.dial(address),
        }
    }

    fn dial(&self, address: &str) -> Result<DynVolume, Failure> {
        let unavailable = |text: String| Failure::new(ErrorCode::Unavailable, text);
        let credentials = self.0.credentials.clone().ok_or_else(|| {
            unavailable(format!("the volume server {address} is not in this process, and no other is known"))
        })?;
        let channels = Channels::lazy(address).map_err(|error| unavailable(error.to_string()))?;
        let _changing = self.0.changing.lock();
        // Another caller may have been faster.
        if let Some(peer) = self.0.known.load().get(address) {
            return Ok(self.0.used(peer));
        }
        self.0.make_room();
        let now = self.0.dialled.fetch_add(1, Ordering::Relaxed) + 1;
        let volume = remote_volume(channels, credentials);
        self.0.keep(address, Peer { volume: volume.clone(), is_dialled: true, used: AtomicU64::new(now) });
        Ok(volume)
    }
}

impl Inner {
    fn used(&self, peer: &Peer) -> DynVolume {
        let now = self.dialled.load(Ordering::Relaxed);
        // Written hardly ever: all cores read it.
        if peer.used.load(Ordering::Relaxed) != now {
            peer.used.store(now, Ordering::Relaxed);
        }
        peer.volume.clone()
    }

    fn keep(&self, address: &str, peer: Peer) {
        let mut known = HashMap::clone(&self.known.load());
        known.insert(address.to_owned(), Arc::new(peer));
        self.known.store(Arc::new(known));
    }

    /// Where there are as many as may be, forgets the half that nobody has asked for in the longest time: servers come back at
    /// other addresses, and the old ones would pile up.
    fn make_room(&self) {
        let mut known = HashMap::clone(&self.known.load());
        if known.len() < self.peers_max {
            return;
        }
        let dialled = known.iter().filter(|(_, peer)| peer.is_dialled);
        let mut by_use: Vec<(u64, String)> =
            dialled.map(|(address, peer)| (peer.used.load(Ordering::Relaxed), address.clone())).collect();
        by_use.sort_unstable();
        let half = by_use.len().div_ceil(2);
        for (_, address) in by_use.into_iter().take(half) {
            known.remove(&address);
        }
        self.known.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use hay_common::clock::ManualClock;
    use hay_common::ids::ClusterId;
    use hay_proto::rpc::credential::ClusterKey;

    use super::*;
    use crate::testing::{FakeVolume, gateway};

    fn dialling(peers_max: usize) -> Peers {
        let key = Arc::new(ClusterKey::from_seed(ClusterId::from_random(1), &[1; 32]).unwrap());
        Peers::up_to(peers_max, Some(Credentials::new(key, gateway(), ManualClock::at(1))))
    }

    fn address(n: usize) -> String {
        format!("127.0.0.1:{}", n + 1)
    }

    #[tokio::test]
    async fn addresses_that_nobody_asks_for_any_more_make_room() {
        let peers = dialling(8);
        peers.register("here:1", Arc::new(FakeVolume::default()).served());
        // A server that comes back at another address again and again, beside one that stays.
        for n in 1..1000 {
            peers.volume(&address(0)).unwrap();
            peers.volume(&address(n)).unwrap();
        }
        let known = peers.0.known.load();
        assert!(known.len() <= 8 && known.contains_key("here:1"), "{:?}", known.keys());
        assert!(known.contains_key(&address(0)), "what is asked for stays");
    }

    #[tokio::test]
    async fn whom_the_masters_hold_for_dead_is_asked_last_whatever_the_key() {
        let peers = Peers::new(None);
        let places = Places::new(vec!["a:1".into(), "b:1".into()], vec!["dead:1".into()]);
        let order = |key| peers.order(&places, NeedleKey(key));
        assert_eq!(order(0), ["a:1", "b:1", "dead:1"]);
        assert_eq!(order(1), ["b:1", "a:1", "dead:1"]);
        assert_eq!(order(2), ["a:1", "b:1", "dead:1"]);
        peers.avoid("a:1");
        assert_eq!(order(0), ["b:1", "a:1", "dead:1"]);
    }
}
