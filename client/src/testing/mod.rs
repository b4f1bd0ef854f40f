//! Services in memory behind real guards and the direct binding, for the tests of the clients. Each does what its
//! interface says, counts its calls, and fails where a test tells it to.

mod filer;
mod master;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use hay_common::clock::ManualClock;
use hay_common::ids::{ClusterId, NodeId};
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::{Guard, Peer, Role};

pub(crate) use filer::{FakeFiler, Fate};
pub(crate) use master::FakeMaster;
pub(crate) use volume::FakeVolume;

pub(crate) fn guard(clock: Arc<ManualClock>) -> Arc<Guard> {
    let key = ClusterKey::from_seed(ClusterId::from_random(1), &[1; 32]).unwrap();
    Arc::new(Guard::new(&key, clock))
}

pub(crate) fn gateway() -> Peer {
    Peer { role: Role::Gateway, node: NodeId::from_random(9) }
}

/// Waits until `done`. The bound only ends a test that would hang.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come");
}
