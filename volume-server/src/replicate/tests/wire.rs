//! The same over connections: credentials, codec, addresses that change.

use hay_proto::rpc::{Credentials, serve_volume, transport};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;

struct Served {
    core: Arc<VolumeServer>,
    address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Served {
    /// Ends it and its connections; its directory is free then.
    async fn end(self) {
        let Self { core, stop, serving, .. } = self;
        stop.send(()).unwrap();
        core.shutdown().await;
        serving.await.unwrap();
        let store = Arc::downgrade(core.store());
        drop(core);
        while store.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn credentials(role: Role, node: NodeId) -> Credentials {
    Credentials::new(Arc::new(key()), Peer { role, node }, SystemClock::shared())
}

async fn serve(n: u64, dir: &Path) -> Served {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let store =
        StoreConfig { zero_ahead_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::new(dir, key().cluster()) };
    let config = VolumeServerConfig {
        store,
        address: address.clone(),
        rack: String::new(),
        zone: String::new(),
        tier: "hot".to_owned(),
    };
    let deps = Deps {
        disk: RealDisk::shared(),
        clock: SystemClock::shared(),
        random: SeededRandom::shared(n),
        lease_key: key().public(),
        master: Box::new(move |_| hears()),
        peers: Box::new(|node| Peers::new(Some(credentials(Role::VolumeServer, node)))),
    };
    let core = VolumeServer::start(config, deps).await.unwrap();
    let service = serve_volume(core.clone(), Arc::new(Guard::new(&key(), SystemClock::shared())));
    let router = transport::server().add_service(service);
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
    });
    Served { core, address, stop, serving }
}

async fn tell(servers: &[Served], class: SizeClass, volume: VolumeId) {
    tell_first(servers, servers.len(), class, volume).await;
}

/// Tells the first so many.
async fn tell_first(servers: &[Served], count: usize, class: SizeClass, volume: VolumeId) {
    let members: Vec<Member> =
        servers.iter().map(|s| Member { node: s.core.node(), address: s.address.clone() }).collect();
    for server in servers.iter().take(count) {
        let (core, members) = (server.core.clone(), members.clone());
        let told = move || {
            if core.store().state(volume).is_none() {
                return core.replication.create(volume, FIRST, class, &members);
            }
            let (state, part) = (VolumeState::Writable, Part::Whole);
            core.replication.confirm(&Confirmation { volume, epoch: FIRST, state, part, members })
        };
        tokio::task::spawn_blocking(told).await.unwrap().unwrap();
    }
}

async fn append(
    client: &VolumeClient,
    servers: &[Served],
    volume: VolumeId,
    needle: u128,
    len: usize,
) -> Result<(), Failure> {
    let volumes = vec![(VOLUME, FIRST), (VolumeId(8), FIRST)];
    let token = LeaseToken { cluster: key().cluster(), volumes, expires_ms: 1 }.sign(&key());
    let replicas = servers.iter().map(|server| server.address.clone()).collect();
    let class = SizeClass::Small;
    let target = LeasedVolume { volume, epoch: FIRST, class, replicas };
    client.append(&target, &token, NeedleKey(needle), COOKIE, Codec::PLAIN, data(needle, len)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_find_each_other_again_under_other_addresses() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut servers = vec![serve(1, dirs[0].path()).await, serve(2, dirs[1].path()).await];
    let large = VolumeId(8);
    tell(&servers, SizeClass::Small, VOLUME).await;
    tell(&servers, SizeClass::Large, large).await;
    let client = VolumeClient::new(Peers::new(Some(credentials(Role::Gateway, NodeId::from_random(3)))));
    let len = (3 << 20) + 1;
    let both = async |servers: &[Served], needle: u128| {
        append(&client, servers, VOLUME, needle, 5000).await.unwrap();
        append(&client, servers, large, needle, len).await.unwrap();
        for server in servers {
            let small = server.core.store().read(VOLUME, NeedleKey(needle), COOKIE).await.unwrap();
            assert!(small.data == data(needle, 5000));
            let big = server.core.store().read(large, NeedleKey(needle), COOKIE).await.unwrap();
            assert!(big.data == data(needle, len));
        }
    };
    both(&servers, 1).await;
    servers.pop().unwrap().end().await;
    servers.push(serve(2, dirs[1].path()).await);
    // Not confirmed yet, it refuses: that is no failure, in one message or in a stream of which it takes nothing.
    for (volume, class, len) in [(VOLUME, SizeClass::Small, 10), (large, SizeClass::Large, len)] {
        tell_first(&servers, 1, class, volume).await;
        let refused = append(&client, &servers, volume, 77, len).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::VolumeNotWritable, "{}", refused.message);
        assert!(servers[0].core.replication.infos().iter().all(|info| info.failed_replica.is_none()));
    }
    tell(&servers, SizeClass::Small, VOLUME).await;
    tell(&servers, SizeClass::Large, large).await;
    both(&servers, 2).await;

    let gone = servers.pop().unwrap();
    let address = gone.address.clone();
    gone.end().await;
    let mut addresses = vec![servers[0].address.clone(), address];
    let lost = append(&client, &servers, VOLUME, 3, 10).await.unwrap_err();
    assert_eq!(lost.code, ErrorCode::VolumeNotWritable, "{}", lost.message);
    assert!(lost.message.contains(&addresses[1]), "{}", lost.message);
    // Readers go on, whichever is asked first.
    for _ in 0..2 {
        addresses.reverse();
        let range = hay_client::volume::NeedleRange {
            volume: VOLUME,
            key: NeedleKey(1),
            cookie: COOKIE,
            offset: 0,
            length: 5000,
        };
        assert_eq!(client.read_whole(&addresses, range).await.unwrap(), data(1, 5000));
    }
}
