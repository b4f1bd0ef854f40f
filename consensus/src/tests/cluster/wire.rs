//! The same over gRPC on loopback, with guards and credentials.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::clock::{SharedClock, SystemClock};
use hay_common::disk::RealDisk;
use hay_common::ids::{ClusterId, MemberId, NodeId};
use hay_common::limits::MIB;
use hay_common::random::SystemRandom;
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::{Credentials, Guard, Peer, Role, serve_raft, transport};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{eventually, fast_dir};
use crate::tests::Journal;
use crate::transport::{CallKind, Envelope, TransportError};
use crate::{Group, GroupConfig, GroupDeps, GrpcTransport, RaftEndpoint};

fn key(seed: u8) -> Arc<ClusterKey> {
    Arc::new(ClusterKey::from_seed(ClusterId::from_random(1), &[seed; 32]).unwrap())
}

fn credentials(key: &Arc<ClusterKey>, role: Role, clock: &SharedClock) -> Credentials {
    Credentials::new(key.clone(), Peer { role, node: NodeId::from_random(role as u128) }, clock.clone())
}

struct Server {
    address: String,
    group: Group,
    journal: Journal,
    serving: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Connections end with it: those of a process that dies would.
    async fn stop(self) -> String {
        let _ = self.stop.send(());
        self.group.crash().await;
        self.serving.await.unwrap();
        self.address
    }
}

/// Binds first: the addresses stand in every member's list.
async fn listeners(count: usize) -> (Vec<TcpListener>, Vec<String>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    (listeners, addresses)
}

async fn serve(dir: &TempDir, n: usize, listener: TcpListener, peers: &[String]) -> Server {
    let (key, clock) = (key(1), SystemClock::shared());
    let address = listener.local_addr().unwrap().to_string();
    let config =
        GroupConfig::member_of("master", dir.path().join(n.to_string()), key.cluster(), &address, peers);
    let config = GroupConfig { snapshot_every_entries: 5, heartbeat: Duration::from_millis(100), ..config };
    let journal = Journal::default();
    let deps = GroupDeps {
        disk: RealDisk::shared(),
        random: SystemRandom::shared().unwrap(),
        clock: clock.clone(),
        transport: GrpcTransport::shared(credentials(&key, Role::Master, &clock)),
    };
    let group = Group::open(config.with_slot(n), Box::new(journal.clone()), deps).await.unwrap();
    let endpoint = RaftEndpoint::new();
    endpoint.add(Role::Master, group.clone());
    let guard = Arc::new(Guard::new(&key, clock));
    let incoming = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let router = transport::server().add_service(serve_raft(endpoint, guard));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let serving =
        tokio::spawn(async move { router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap() });
    Server { address, group, journal, serving, stop }
}

async fn leader(servers: &[Server]) -> Group {
    eventually("a leader", || {
        servers.iter().find(|s| s.group.leading().borrow().is_some()).map(|s| s.group.clone())
    })
    .await
}

async fn write(servers: &[Server], command: Bytes) {
    let write = async {
        while let Err(error) = leader(servers).await.propose(command.clone()).await {
            println!("{error}");
        }
    };
    tokio::time::timeout(super::PATIENCE, write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_over_grpc_forms_writes_fails_over_and_sends_snapshots() {
    let dir = fast_dir();
    let (listeners, addresses) = listeners(3).await;
    let mut servers = Vec::new();
    for (n, listener) in listeners.into_iter().enumerate() {
        servers.push(serve(&dir, n, listener, &addresses).await);
    }
    for n in 0..3 {
        write(&servers, Bytes::from(format!("{n}"))).await;
    }
    // The largest command there may be, in one entry.
    write(&servers, Bytes::from(vec![7; hay_common::limits::COMMAND_BYTES_MAX])).await;
    let first = leader(&servers).await;
    first.read_barrier().await.unwrap();
    let dead = servers.iter().position(|s| s.group.member() == first.member()).unwrap();
    let dead = servers.remove(dead).stop().await;
    for n in 0..10u8 {
        write(&servers, Bytes::from(vec![n; MIB / 2])).await;
    }
    let expected = {
        let leader = leader(&servers).await;
        leader.read_barrier().await.unwrap();
        servers.iter().find(|s| s.group.member() == leader.member()).unwrap().journal.commands()
    };
    let has_purged = |group: &Group| {
        let purged = group.inner.raft.metrics().borrow().purged;
        purged.is_some_and(|at| at.index > 3)
    };
    eventually("the log is purged", || servers.iter().all(|s| has_purged(&s.group)).then_some(())).await;
    // Back at the same address, as one that was restarted; its part of the log is gone elsewhere.
    let listener = loop {
        match TcpListener::bind(&dead).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let n = addresses.iter().position(|address| *address == dead).unwrap();
    let back = serve(&dir, n, listener, &addresses).await;
    eventually("it has all", || (back.journal.commands() == expected).then_some(())).await;
    assert!(back.group.status().snapshot.is_some());
    for server in servers.into_iter().chain([back]) {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_groups_own_role_and_cluster_is_heard() {
    let dir = fast_dir();
    let (mut listeners, _) = listeners(1).await;
    let server = serve(&dir, 0, listeners.remove(0), &[]).await;
    let clock = SystemClock::shared();
    let envelope = |cluster| Envelope {
        cluster,
        group: "master".to_owned(),
        formation: None,
        from: MemberId(5),
        to: None,
        body: Bytes::new(),
    };
    let ask = |key: Arc<ClusterKey>, role, envelope| {
        let transport = GrpcTransport::shared(credentials(&key, role, &clock));
        transport.call(&server.address, CallKind::Describe, envelope, Duration::from_secs(5))
    };
    let ours = key(1).cluster();
    ask(key(1), Role::Master, envelope(ours)).await.unwrap();
    for (key, role, named) in [
        (key(1), Role::Filer, ours),
        (key(1), Role::Gateway, ours),
        (key(2), Role::Master, ours),
        (key(1), Role::Master, ClusterId::from_random(9)),
    ] {
        let error = ask(key, role, envelope(named)).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused(_)), "{role:?}: {error}");
    }
    let unknown = Envelope { group: "filer".to_owned(), ..envelope(ours) };
    let error = ask(key(1), Role::Filer, unknown).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable(_)), "{error}");
    server.stop().await;
}
