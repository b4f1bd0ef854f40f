//! Several servers over real files, with links between them that fail as they are told.
//!
//! Fault model: a link of one server to another carries a call, or refuses it before it arrives, or lets it happen and loses
//! the answer, or delays it. Either direction for itself. A server may be killed: what its files hold then is what it starts
//! with. The masters' part is played by the tests, but for the heartbeat, which is quiet.

mod fills;
mod histories;
mod links;
mod plain;
mod wire;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hay_client::{Peers, VolumeClient};
use hay_common::clock::SystemClock;
use hay_common::disk::RealDisk;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, Epoch, NeedleKey, NodeId, VolumeId};
use hay_common::model::{Codec, LeasedVolume, SizeClass, VolumeState};
use hay_common::random::SeededRandom;
use hay_proto::rpc::lease::LeaseToken;
use hay_proto::rpc::{Guard, Peer, Role, direct_volume};
use hay_proto::v1;

use super::standing::Part;
use super::{Confirmation, Member};
use crate::grpc::tests::key;
use crate::grpc::tests::master::TestMaster;
use crate::store::{ReadError, StoreConfig};
use crate::{Deps, VolumeServer, VolumeServerConfig};
use links::{Fate, Links};

const VOLUME: VolumeId = VolumeId(7);
const FIRST: Epoch = Epoch(1);
const COOKIE: Cookie = Cookie(9);

pub(super) fn data(key: u128, len: usize) -> Bytes {
    (0..len).map(|i| (key as usize * 31 + i + i / 251) as u8).collect::<Vec<u8>>().into()
}

struct Server {
    dir: tempfile::TempDir,
    node: NodeId,
}

/// Servers that share a volume.
struct World {
    links: Arc<Links>,
    servers: Vec<Server>,
    client: VolumeClient,
    class: SizeClass,
    /// The first so many have it.
    holders: usize,
}

fn address(n: usize) -> String {
    format!("server-{n}:1")
}

/// A master that hears and says that it did.
fn hears() -> Arc<TestMaster> {
    let (master, mut sessions) = TestMaster::played();
    tokio::spawn(async move {
        while let Some(mut session) = sessions.recv().await {
            tokio::spawn(async move {
                while let Some(Ok(_)) = futures::StreamExt::next(&mut session.reports).await {
                    let heard = v1::Acknowledge { sequence: 0, lease_key: Bytes::new() };
                    session.say(v1::heartbeat_command::Command::Acknowledge(heard)).await;
                }
            });
        }
    });
    master
}

async fn start(n: usize, dir: &Path, links: &Arc<Links>, reserve_bytes: u64) -> Arc<VolumeServer> {
    let store =
        StoreConfig { zero_ahead_bytes: 1 << 20, reserve_bytes, ..StoreConfig::new(dir, key().cluster()) };
    let config = VolumeServerConfig {
        store,
        address: address(n),
        rack: String::new(),
        zone: String::new(),
        tier: "hot".to_owned(),
    };
    let to_others = links.clone();
    let deps = Deps {
        disk: RealDisk::shared(),
        clock: SystemClock::shared(),
        random: SeededRandom::shared(n as u64 + 100),
        lease_key: key().public(),
        master: Box::new(move |_| hears()),
        peers: Box::new(move |node| to_others.peers(n, node)),
    };
    VolumeServer::start(config, deps).await.unwrap()
}

impl World {
    /// `count` servers, all of which have the volume.
    async fn new(count: usize, class: SizeClass) -> Self {
        Self::spread(count, count, class).await
    }

    async fn spread(count: usize, holders: usize, class: SizeClass) -> Self {
        let links = Links::between(count);
        let mut servers = Vec::new();
        for n in 0..count {
            let dir = tempfile::tempdir().unwrap();
            let core = start(n, dir.path(), &links, 0).await;
            servers.push(Server { dir, node: core.node() });
            links.place(n, Some(core));
        }
        let peers = Peers::new(None);
        let guard = Arc::new(Guard::new(&key(), SystemClock::shared()));
        for n in 0..count {
            let gateway = Peer { role: Role::Gateway, node: NodeId::from_random(77) };
            peers.register(&address(n), direct_volume(links.behind(count, n), guard.clone(), gateway));
        }
        let world = Self { links, servers, client: VolumeClient::new(peers), class, holders };
        for n in 0..holders {
            world.create(n).await;
        }
        world
    }

    fn core(&self, n: usize) -> Arc<VolumeServer> {
        self.links.core(n).unwrap()
    }

    fn members(&self) -> Vec<Member> {
        let member = |(n, server): (usize, &Server)| Member { node: server.node, address: address(n) };
        self.servers.iter().take(self.holders).enumerate().map(member).collect()
    }

    async fn create(&self, n: usize) {
        let (core, members, class) = (self.core(n), self.members(), self.class);
        let made = move || core.replication.create(VOLUME, FIRST, class, &members);
        tokio::task::spawn_blocking(made).await.unwrap().unwrap();
    }

    /// A master says to a server what the map says.
    async fn confirm(&self, n: usize, epoch: Epoch, state: VolumeState, part: Part) {
        let core = self.core(n);
        let confirmation = Confirmation { volume: VOLUME, epoch, state, part, members: self.members() };
        let done = move || core.replication.confirm(&confirmation);
        tokio::task::spawn_blocking(done).await.unwrap().unwrap();
    }

    async fn seal(&self, n: usize, epoch: Epoch) {
        let core = self.core(n);
        tokio::task::spawn_blocking(move || core.store().seal(VOLUME, epoch)).await.unwrap().unwrap();
    }

    /// Appends as a gateway does, with the server in front as primary.
    async fn append_at(&self, primary: usize, epoch: Epoch, needle: u128, len: usize) -> Result<(), Failure> {
        let token = LeaseToken { cluster: key().cluster(), volumes: vec![(VOLUME, epoch)], expires_ms: 1 };
        let mut replicas: Vec<String> = (0..self.servers.len()).map(address).collect();
        replicas.swap(0, primary);
        let target = LeasedVolume { volume: VOLUME, epoch, class: self.class, replicas };
        let (name, token) = (NeedleKey(needle), token.sign(&key()));
        self.client.append(&target, &token, name, COOKIE, Codec::PLAIN, data(needle, len)).await
    }

    async fn append(&self, needle: u128, len: usize) -> Result<(), Failure> {
        self.append_at(0, FIRST, needle, len).await
    }

    fn has(&self, n: usize, needle: u128) -> bool {
        self.core(n).store().has(VOLUME, NeedleKey(needle), COOKIE)
    }

    async fn holds(&self, n: usize, needle: u128, len: usize) -> bool {
        match self.core(n).store().read(VOLUME, NeedleKey(needle), COOKIE).await {
            Ok(found) => {
                assert!(found.data == data(needle, len), "needle {needle} on server {n} differs");
                true
            }
            Err(ReadError::Absent(_)) => false,
            Err(error) => panic!("needle {needle} on server {n}: {error}"),
        }
    }

    /// Kills a server and starts it again on what its files hold.
    async fn kill_and_start(&mut self, n: usize) {
        self.links.place(n, None);
        let copy = tempfile::tempdir().unwrap();
        for name in std::fs::read_dir(self.servers[n].dir.path()).unwrap() {
            let name = name.unwrap();
            match std::fs::copy(name.path(), copy.path().join(name.file_name())) {
                // Published, or removed, since the names were read.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
        self.servers[n].dir = copy;
        self.start(n).await;
    }

    /// Stops a server in order, so that its directory is free.
    async fn halt(&self, n: usize) {
        let core = self.core(n);
        self.links.place(n, None);
        core.shutdown().await;
        // What is left of it ends with the last of its tasks.
        while Arc::strong_count(core.store()) > 2 {
            tokio::task::yield_now().await;
        }
    }

    fn stop(&self, n: usize) {
        self.links.place(n, None);
    }

    async fn start(&mut self, n: usize) {
        self.start_with(n, 0).await;
    }

    async fn start_with(&mut self, n: usize, reserve_bytes: u64) {
        let core = start(n, self.servers[n].dir.path(), &self.links, reserve_bytes).await;
        assert_eq!(core.node(), self.servers[n].node);
        self.links.place(n, Some(core));
    }
}
