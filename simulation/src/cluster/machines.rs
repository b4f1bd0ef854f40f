//! The machines, and the processes that run on them: put together as `hay master` and `hay volume-server` are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hay_client::Peers;
use hay_client::group::{Members, masters};
use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::ids::NodeId;
use hay_common::random::{SeededRandom, SharedRandom};
use hay_consensus::{GrpcTransport, RaftEndpoint};
use hay_master::plan::Policy;
use hay_master::{Master, MasterConfig, MasterCore, MasterDeps, MasterNetwork};
use hay_proto::rpc::{
    Credentials, Guard, Peer, Role, remote_volume, serve_master, serve_raft, serve_volume, transport,
};
use hay_volume_server::store::StoreConfig;
use hay_volume_server::{Deps, VolumeServer, VolumeServerConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{World, grants, replicas};
use crate::clock::{MachineClock, Time};
use crate::disk::MachineDisk;
use crate::net;

/// Small, so that volumes fill up, grow and are checkpointed within a minute.
const VOLUME_BYTES_MAX: u64 = 4 << 20;

/// What outlives the processes of one machine.
pub struct Machine {
    pub name: String,
    port: u16,
    seed: u64,
    pub disk: MachineDisk,
    pub clock: Arc<MachineClock>,
    runs: AtomicU64,
    /// The master that runs here.
    pub master: Mutex<Option<Arc<MasterCore>>>,
    /// The volume server that runs here.
    pub server: Mutex<Option<Arc<VolumeServer>>>,
    /// Asks the process of now to end in order: one of its own for each, since one that is never heard must not reach the next.
    stop: Mutex<Arc<Notify>>,
    /// It has ended so.
    pub has_stopped: AtomicBool,
}

/// What a process is started with.
pub struct Process {
    pub disk: SharedDisk,
    pub clock: SharedClock,
    pub random: SharedRandom,
    stop: Arc<Notify>,
}

impl Machine {
    pub fn new(name: String, port: u16, seed: u64, time: Arc<Time>) -> Self {
        Self {
            name,
            port,
            seed,
            disk: MachineDisk::new(seed),
            clock: MachineClock::new(time),
            runs: AtomicU64::new(0),
            master: Mutex::new(None),
            server: Mutex::new(None),
            stop: Mutex::default(),
            has_stopped: AtomicBool::new(false),
        }
    }

    /// Where the process on it is reached.
    pub fn address(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// A process starts here.
    pub fn start(&self) -> Process {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        self.has_stopped.store(false, Ordering::Relaxed);
        let stop = Arc::new(Notify::new());
        *self.stop.lock() = stop.clone();
        Process {
            disk: self.disk.switch_on(),
            clock: self.clock.clone(),
            random: SeededRandom::shared(self.seed.wrapping_add(run)),
            stop,
        }
    }

    /// Whether its process has got so far that it serves.
    pub fn serves(&self) -> bool {
        self.master.lock().is_some() || self.server.lock().is_some()
    }

    /// The process is asked to end in order.
    pub fn tell_to_stop(&self) {
        self.stop.lock().notify_one();
    }

    /// The process is gone, or will be at once.
    pub fn forget(&self) {
        self.master.lock().take();
        self.server.lock().take();
    }

    /// What a process does when it has ended in order: whoever runs the simulation takes it away.
    async fn ended(&self) -> turmoil::Result {
        self.has_stopped.store(true, Ordering::Relaxed);
        std::future::pending().await
    }
}

/// The servers' addresses, each with connections to it.
pub fn peers(world: &World, credentials: &Credentials) -> Peers {
    let peers = Peers::new(None);
    for server in &world.servers {
        let address = server.address();
        peers.register(&address, remote_volume(net::dial(&address).unwrap(), credentials.clone()));
    }
    peers
}

/// The masters, not called yet.
pub fn members(world: &World) -> Members {
    let dialled = world.master_addresses().into_iter().map(|address| {
        let channels = net::dial(&address).unwrap();
        (address, channels)
    });
    Members::over(dialled.collect()).unwrap()
}

/// The end of a process. One that finds itself without a disk because its machine has died says nothing any more.
async fn end_of(machine: &Machine, ended: turmoil::Result) -> turmoil::Result {
    match ended {
        Err(_) if machine.disk.has_died() => std::future::pending().await,
        ended => ended,
    }
}

/// The process of master `n`.
pub async fn master(world: Arc<World>, n: usize) -> turmoil::Result {
    let machine = world.masters[n].clone();
    end_of(&machine, run_master(world, &machine, n).await).await
}

/// The process of volume server `n`.
pub async fn volume_server(world: Arc<World>, n: usize) -> turmoil::Result {
    let machine = world.servers[n].clone();
    end_of(&machine, run_volume_server(world, &machine).await).await
}

async fn run_master(world: Arc<World>, machine: &Machine, n: usize) -> turmoil::Result {
    let incoming = net::listen(machine.port).await?;
    let Process { disk, clock, random, stop } = machine.start();
    // A range of its own for each, and drawn here: openraft would draw from the machine's randomness.
    let draw = Duration::from_millis(600 + 250 * n as u64 + u64::from(random.u32() % 100));
    let config = MasterConfig {
        address: machine.address(),
        replicas: Some(world.copies),
        policy: Policy { volume_bytes_max: VOLUME_BYTES_MAX, ..Policy::default() },
        election: Some((draw, draw + Duration::from_millis(1))),
        ..MasterConfig::sole("/master")
    };
    let deps = MasterDeps { disk, clock: clock.clone(), key: world.key.clone() };
    let peer = Peer { role: Role::Master, node: NodeId::from_random(random.u128()) };
    let credentials = Credentials::new(world.key.clone(), peer, clock.clone());
    let transport = GrpcTransport::dialling(credentials, net::dial);
    let network = MasterNetwork { peers: world.master_addresses(), random, transport };
    let core = Master::join(config, deps, network).await?;
    *machine.master.lock() = Some(core.clone());
    let endpoint = RaftEndpoint::new();
    endpoint.add(Role::Master, core.group().clone());
    let guard = Arc::new(Guard::new(&world.key, clock));
    let watched =
        Arc::new(grants::Watched { inner: core.clone(), world: world.clone(), name: machine.name.clone() });
    let services = transport::server()
        .add_service(serve_master(watched, guard.clone()))
        .add_service(serve_raft(endpoint, guard));
    tokio::select! {
        served = services.serve_with_incoming(incoming) => Ok(served?),
        () = stop.notified() => {
            core.shutdown().await;
            machine.ended().await
        }
    }
}

async fn run_volume_server(world: Arc<World>, machine: &Machine) -> turmoil::Result {
    let incoming = net::listen(machine.port).await?;
    let Process { disk, clock, random, stop } = machine.start();
    let store = StoreConfig {
        zero_ahead_bytes: 512 << 10,
        checkpoint_every_bytes: 64 << 10,
        volume_bytes_max: VOLUME_BYTES_MAX,
        reserve_bytes: 0,
        ..StoreConfig::new("/volumes", world.key.cluster())
    };
    let config = VolumeServerConfig {
        store,
        address: machine.address(),
        rack: String::new(),
        zone: String::new(),
        tier: "hot".to_owned(),
    };
    let (key, sign_clock) = (world.key.clone(), clock.clone());
    let sign = move |node| Credentials::new(key, Peer { role: Role::VolumeServer, node }, sign_clock);
    let (as_client, as_peer) = (sign.clone(), sign);
    let (to_masters, to_peers) = (world.clone(), world.clone());
    let (group_clock, group_random) = (clock.clone(), random.clone());
    let deps = Deps {
        disk,
        clock: clock.clone(),
        random,
        lease_key: world.key.public(),
        master: Box::new(move |node| {
            masters(members(&to_masters), &as_client(node), group_clock, group_random)
        }),
        peers: Box::new(move |node| peers(&to_peers, &as_peer(node))),
    };
    let core = VolumeServer::start(config, deps).await?;
    let guard = Arc::new(Guard::new(&world.key, clock));
    *machine.server.lock() = Some(core.clone());
    let service = Arc::new(replicas::Watched { inner: core.clone(), world: world.clone() });
    let services = transport::server().add_service(serve_volume(service, guard));
    tokio::select! {
        served = services.serve_with_incoming(incoming) => Ok(served?),
        () = stop.notified() => {
            core.shutdown().await;
            machine.ended().await
        }
    }
}
