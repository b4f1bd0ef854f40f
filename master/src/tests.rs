//! A whole master over its service trait, with volume servers that exist as heartbeat streams.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use hay_common::clock::{ManualClock, SharedClock};
use hay_common::disk::RealDisk;
use hay_common::error::ErrorCode;
use hay_common::ids::{ClusterId, Epoch, NodeId, VolumeId};
use hay_common::limits::GIB;
use hay_common::model::volumes_digest;
use hay_common::random::SeededRandom;
use hay_consensus::transport::{Acks, CallKind, Envelope, Parts, Transport, TransportError};
use hay_proto::convert::{WireId, volume_state};
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::lease::LeaseVerifier;
use hay_proto::rpc::{BoxStream, DynMaster, Guard, Peer, Role, direct_master, in_process, to_failure};
use hay_proto::v1::{self, heartbeat_command::Command};
use tokio::sync::mpsc;
use tonic::{Request, Status};

use crate::{Master, MasterConfig, MasterCore, MasterDeps, MasterNetwork};

fn key() -> Arc<ClusterKey> {
    Arc::new(ClusterKey::from_seed(ClusterId::from_random(77), &[7; 32]).unwrap())
}

fn node(n: u8) -> NodeId {
    NodeId::from_random(u128::from(n) + 50)
}

struct Rig {
    core: Arc<MasterCore>,
    clock: Arc<ManualClock>,
}

impl Rig {
    async fn start(dir: &Path) -> Self {
        Self::start_with(dir, None).await
    }

    async fn start_with(dir: &Path, replicas: Option<u8>) -> Self {
        let clock = ManualClock::at(1_000_000);
        let shared: SharedClock = clock.clone();
        let deps = MasterDeps { disk: RealDisk::shared(), clock: shared, key: key() };
        let config = MasterConfig { replicas, ..MasterConfig::sole(dir) };
        let core = Master::start(config, deps).await.unwrap();
        Self { core, clock }
    }

    fn as_role(&self, role: Role, n: u8) -> DynMaster {
        let clock: SharedClock = self.clock.clone();
        direct_master(self.core.clone(), Arc::new(Guard::new(&key(), clock)), Peer { role, node: node(n) })
    }

    async fn lease(&self, avoid: &[u32]) -> Result<v1::WriteLease, Status> {
        let request = v1::LeaseWriteRequest { avoid: avoid.to_vec() };
        let gateway = self.as_role(Role::Gateway, 200);
        gateway.lease_write(Request::new(request)).await.map(tonic::Response::into_inner)
    }

    /// Looks again and again until `what` is there.
    async fn until<T>(&self, mut what: impl FnMut(&MasterCore) -> Option<T>) -> T {
        loop {
            if let Some(found) = what(&self.core) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A volume server as far as a master sees it.
struct Server {
    n: u8,
    reports: mpsc::Sender<Result<v1::HeartbeatReport, Status>>,
    commands: BoxStream<v1::HeartbeatCommand>,
    volumes: Vec<v1::VolumeReport>,
    sequence: u64,
}

impl Server {
    async fn connect(rig: &Rig, n: u8, volumes: Vec<v1::VolumeReport>) -> Self {
        let (reports, rest) = mpsc::channel(10);
        let stream = in_process(tokio_stream::wrappers::ReceiverStream::new(rest));
        let master = rig.as_role(Role::VolumeServer, n);
        let commands = master.heartbeat(Request::new(stream)).await.unwrap().into_inner();
        let mut server = Self { n, reports, commands, volumes, sequence: 0 };
        server.report(true).await;
        server
    }

    fn message(&mut self, full: bool) -> v1::HeartbeatReport {
        self.sequence += 1;
        let digest = self
            .volumes
            .iter()
            .map(|v| (VolumeId(v.id), Epoch(v.epoch), volume_state("state", v.state).unwrap()));
        v1::HeartbeatReport {
            full,
            node: node(self.n).to_wire(),
            cluster: key().cluster().to_wire(),
            address: format!("server-{}", self.n),
            volumes: if full { self.volumes.clone() } else { Vec::new() },
            free_bytes: 100 * GIB,
            total_bytes: 200 * GIB,
            digest: volumes_digest(digest),
            sequence: self.sequence,
            ..v1::HeartbeatReport::default()
        }
    }

    async fn report(&mut self, full: bool) {
        let message = self.message(full);
        self.reports.send(Ok(message)).await.unwrap();
    }

    /// The next command that asks for something.
    async fn told(&mut self) -> Result<Command, Status> {
        loop {
            match self.commands.next().await.unwrap()?.command.unwrap() {
                Command::Acknowledge(acknowledge) => {
                    assert_eq!(acknowledge.lease_key, key().public().0.to_vec())
                }
                Command::Confirm(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// Does the next `count` things it is told.
    async fn obey(&mut self, count: usize) {
        for _ in 0..count {
            match self.told().await.unwrap() {
                Command::Create(create) => {
                    assert_eq!(create.replicas, [format!("server-{}", self.n)]);
                    self.volumes.push(v1::VolumeReport {
                        id: create.volume,
                        epoch: create.epoch,
                        class: create.class,
                        state: v1::VolumeState::Writable.into(),
                        size_bytes: 4096,
                        ..v1::VolumeReport::default()
                    });
                }
                Command::Seal(seal) => {
                    let volume = self.volumes.iter_mut().find(|v| v.id == seal.volume).unwrap();
                    volume.epoch = seal.epoch;
                    volume.state = v1::VolumeState::Sealed.into();
                }
                other => panic!("{other:?}"),
            }
        }
        self.report(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cluster_is_ready_after_the_first_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    assert_eq!(rig.core.ready().unwrap_err(), "no volume server has reported yet");
    // Asked before there is anything: the answer comes with the volumes, not with the next try.
    let early = tokio::spawn({
        let gateway = rig.as_role(Role::Gateway, 200);
        async move { gateway.lease_write(Request::new(v1::LeaseWriteRequest::default())).await }
    });
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    let lease = early.await.unwrap().unwrap().into_inner();
    rig.core.ready().unwrap();
    assert_eq!(lease.volumes.len(), 4);
    let verifier = LeaseVerifier::new(key().cluster(), key().public());
    for volume in &lease.volumes {
        assert_eq!(volume.replicas, ["server-1"]);
        verifier.check(&lease.token, VolumeId(volume.volume), Epoch(volume.epoch)).unwrap();
    }
    assert_eq!(verifier.verify(&lease.token).unwrap().expires_ms, 1_000_000 + lease.ttl_ms);

    let admin = rig.as_role(Role::Admin, 201);
    let status = admin.cluster_status(Request::new(v1::ClusterStatusRequest {})).await.unwrap().into_inner();
    assert!(status.ready, "{}", status.not_ready_reason);
    assert_eq!((status.volumes_writable, status.volumes_creating, status.volumes_sealed), (4, 0, 0));
    assert_eq!((status.masters.len(), status.nodes.len()), (1, 1));
    assert!(status.masters[0].leader && status.nodes[0].alive);
    assert_eq!((status.nodes[0].volumes, status.durability.as_str()), (4, "sync"));
    assert_eq!((status.nodes[0].no_new_volumes.as_str(), status.replicas), ("", 1));
    assert_eq!((status.servers_unknown, status.volumes_lacking, status.warnings), (false, 0, Vec::new()));

    let page = |after, limit| v1::VolumeMapRequest { after, limit, ..Default::default() };
    let first = admin.volume_map(Request::new(page(0, 3))).await.unwrap().into_inner();
    assert_eq!(first.volumes.iter().map(|v| v.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(first.more && first.volumes[0].size_bytes == 4096 && first.volumes[0].members[0].alive);
    let rest = admin.volume_map(Request::new(page(3, 3))).await.unwrap().into_inner();
    assert_eq!((rest.volumes.len(), rest.more), (1, false));
    let named = v1::VolumeMapRequest { volumes: vec![2, 99], ..Default::default() };
    let named = admin.volume_map(Request::new(named)).await.unwrap().into_inner();
    assert_eq!(named.volumes.iter().map(|v| v.id).collect::<Vec<_>>(), [2]);
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_writer_avoids_is_left_out_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    let first = rig.lease(&[]).await.unwrap();
    let small = first.volumes[0].volume;
    let without = rig.lease(&[small]).await.unwrap();
    assert_eq!(without.volumes.len(), 3);
    assert_eq!(rig.core.state().read().volumes.len(), 4, "one of two is enough");

    let all: Vec<u32> = first.volumes.iter().map(|v| v.volume).collect();
    let (others, ()) = tokio::join!(rig.lease(&all), server.obey(4));
    let others = others.unwrap();
    assert!(others.volumes.iter().all(|volume| !all.contains(&volume.volume)));
    assert_eq!(others.volumes.len(), 4);
    let many: Vec<u32> = (0..100).collect();
    assert_eq!(to_failure(&rig.lease(&many).await.unwrap_err()).code, ErrorCode::InvalidArgument);
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_master_knows_the_map_and_learns_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.lease(&[]).await.unwrap();
    rig.core.shutdown().await;
    assert!(rig.lease(&[]).await.is_err());
    assert!(server.commands.next().await.is_none_or(|command| command.is_ok()), "the stream ends well");

    let rig = Rig::start(dir.path()).await;
    assert_eq!(rig.core.state().read().volumes.len(), 4);
    assert!(rig.core.ready().is_err(), "what servers hold is not known yet");
    assert_eq!(rig.core.status().nodes[0].heard_ago, None);
    let mut server = Server::connect(&rig, 1, server.volumes).await;
    let lease = rig.lease(&[]).await.unwrap();
    assert_eq!(lease.volumes.len(), 4, "one report tells of all");

    // Ids go on where they were.
    let all: Vec<u32> = lease.volumes.iter().map(|v| v.volume).collect();
    let (others, ()) = tokio::join!(rig.lease(&all), server.obey(4));
    assert!(others.unwrap().volumes.iter().all(|volume| volume.volume > 4));
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_hear_the_newest_state_of_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.lease(&[]).await.unwrap();
    let gateway = rig.as_role(Role::Gateway, 200);
    let request = Request::new(v1::WatchVolumeMapRequest { after_version: 0 });
    let mut watching = gateway.watch_volume_map(request).await.unwrap().into_inner();

    // A volume that its server sealed of its own accord is fenced, and everybody hears of it.
    server.volumes[0].state = v1::VolumeState::Sealed.into();
    let sealed = server.volumes[0].id;
    server.report(true).await;
    server.obey(2).await;
    let mut seen = 0;
    let last = loop {
        let page = watching.next().await.unwrap().unwrap();
        assert!(page.version > seen, "versions grow");
        seen = page.version;
        if let Some(volume) = page.volumes.into_iter().find(|volume| volume.id == sealed) {
            break volume;
        }
    };
    assert_eq!((last.state(), last.epoch), (v1::VolumeState::Sealed, 2));

    // From a version that is long past, everything that changed since comes.
    let request = Request::new(v1::WatchVolumeMapRequest { after_version: 1 });
    let mut late = gateway.watch_volume_map(request).await.unwrap().into_inner();
    let page = late.next().await.unwrap().unwrap();
    assert!(page.volumes.len() >= 4);
    rig.core.shutdown().await;
    assert!(late.next().await.is_none(), "streams end with the master");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_does_not_agree_is_asked_for_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.lease(&[]).await.unwrap();
    // The server has lost a volume, and its report of that was lost too.
    let lost = server.volumes.pop().unwrap().id;
    server.report(false).await;
    assert_eq!(server.told().await.unwrap(), Command::FullReport(v1::FullReport {}));
    server.report(true).await;
    server.obey(1).await;
    rig.until(|core| (core.status().volumes == (0, 5, 0)).then_some(())).await;
    let lease = rig.lease(&[]).await.unwrap();
    assert!(lease.volumes.iter().all(|volume| volume.volume != lost));
    assert_eq!(lease.volumes.len(), 4);
    // A stream that does not begin with everything is asked for it.
    let (reports, rest) = mpsc::channel(10);
    let stream = in_process(tokio_stream::wrappers::ReceiverStream::new(rest));
    let commands =
        rig.as_role(Role::VolumeServer, 1).heartbeat(Request::new(stream)).await.unwrap().into_inner();
    let mut second = Server { n: 1, reports, commands, volumes: server.volumes.clone(), sequence: 0 };
    second.report(false).await;
    assert_eq!(second.told().await.unwrap(), Command::FullReport(v1::FullReport {}));
    // The stream before it no longer speaks for the server.
    server.report(true).await;
    let refused = server.told().await.unwrap_err();
    assert!(refused.message().contains("another stream"), "{refused}");
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    type Change = fn(&mut v1::HeartbeatReport);
    let cases: [(ErrorCode, Change); 4] = [
        (ErrorCode::InvalidArgument, |report| report.cluster = ClusterId::from_random(1).to_wire()),
        (ErrorCode::Forbidden, |report| report.node = node(9).to_wire()),
        (ErrorCode::InvalidArgument, |report| report.node = vec![1, 2, 3].into()),
        (ErrorCode::InvalidArgument, |report| report.address = String::new()),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let (reports, rest) = mpsc::channel(10);
        let stream = in_process(tokio_stream::wrappers::ReceiverStream::new(rest));
        let commands =
            rig.as_role(Role::VolumeServer, 1).heartbeat(Request::new(stream)).await.unwrap().into_inner();
        let mut server = Server { n: 1, reports, commands, volumes: Vec::new(), sequence: 0 };
        let mut message = server.message(true);
        change(&mut message);
        server.reports.send(Ok(message)).await.unwrap();
        assert_eq!(to_failure(&server.told().await.unwrap_err()).code, code, "case {number}");
    }
    assert!(rig.core.state().read().nodes.is_empty());
    let gateway = rig.as_role(Role::Gateway, 1);
    let stream = in_process(futures::stream::pending::<Result<v1::HeartbeatReport, Status>>());
    let refused = gateway.heartbeat(Request::new(stream)).await.err().unwrap();
    assert_eq!(to_failure(&refused).code, ErrorCode::Forbidden);
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_dead_after_its_time_and_back_with_its_next_report() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.lease(&[]).await.unwrap();
    rig.clock.advance(Duration::from_secs(9));
    rig.core.ready().unwrap();
    // A clock that jumps looks to the master as if it had been held up itself: it may wait once more.
    rig.until(|core| {
        rig.clock.advance(Duration::from_secs(2));
        (core.ready().is_err() && !core.status().nodes[0].alive).then_some(())
    })
    .await;
    server.report(false).await;
    rig.until(|core| core.ready().ok()).await;
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_can_confirm_nothing_tells_readers_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let gateway = rig.as_role(Role::Gateway, 200);
    let map = |as_it_stands| {
        let request = v1::VolumeMapRequest { limit: 10, as_it_stands, ..Default::default() };
        gateway.volume_map(Request::new(request))
    };
    // One that knows nothing yet is no answer: others may know.
    let nothing = map(true).await.unwrap_err();
    assert_eq!(to_failure(&nothing).code, ErrorCode::Unavailable);
    assert!(map(false).await.unwrap().into_inner().volumes.is_empty());

    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.lease(&[]).await.unwrap();
    rig.core.group.shutdown().await.unwrap();
    rig.clock.advance(Duration::from_secs(3600));
    assert!(map(false).await.is_err());
    let known = map(true).await.unwrap().into_inner();
    assert_eq!(known.volumes.len(), 4);
    // It hears no server, so it calls none dead.
    assert!(known.volumes.iter().all(|volume| volume.members.iter().all(|member| member.alive)), "{known:?}");
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_less_free_than_its_own_reserve_gets_nothing_and_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    rig.until(|core| core.ready().ok()).await;
    assert_eq!(rig.core.status().nodes[0].reserve_bytes, GIB, "an older server has the usual one");
    let message = v1::HeartbeatReport { free_space_reserve_bytes: Some(150 * GIB), ..server.message(false) };
    server.reports.send(Ok(message)).await.unwrap();
    let reason = rig.until(|core| core.status().nodes[0].no_new_volumes.clone()).await;
    assert!(reason.contains("free-space reserve"), "{reason}");
    assert_eq!(rig.core.status().nodes[0].free_bytes, 100 * GIB);
    let refused = to_failure(&rig.lease(&[1, 2, 3, 4]).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::StorageFull, "{refused}");
    rig.core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_replicas_that_another_master_had_set_otherwise_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let warned = |rig: &Rig| rig.core.status().warnings.iter().any(|text| text.contains("was on 2 before"));
    let rig = Rig::start_with(dir.path(), Some(2)).await;
    let _server = Server::connect(&rig, 1, Vec::new()).await;
    rig.until(|core| (!core.status().nodes.is_empty()).then_some(())).await;
    assert!(!warned(&rig), "the first to say so");
    rig.core.shutdown().await;
    let rig = Rig::start_with(dir.path(), Some(3)).await;
    assert_eq!(rig.core.status().replicas, 3);
    assert!(warned(&rig), "{:?}", rig.core.status().warnings);
    rig.core.shutdown().await;
    let rig = Rig::start_with(dir.path(), None).await;
    assert_eq!((rig.core.status().replicas, warned(&rig)), (3, false), "what is set stays");
    rig.core.shutdown().await;
}

/// Nobody is there to be reached.
struct Nobody;

impl Transport for Nobody {
    fn call(
        &self,
        _address: &str,
        _kind: CallKind,
        _envelope: Envelope,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::TimedOut)))
    }

    fn snapshot(&self, _address: &str, _parts: Parts) -> BoxFuture<'static, Result<Acks, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::TimedOut)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_its_own_only_peer_records_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let clock: SharedClock = ManualClock::at(1_000_000);
    let address = "alone:1".to_owned();
    let config =
        MasterConfig { address: address.clone(), replicas: Some(3), ..MasterConfig::sole(dir.path()) };
    let deps = MasterDeps { disk: RealDisk::shared(), clock, key: key() };
    let network =
        MasterNetwork { peers: vec![address], random: SeededRandom::shared(1), transport: Arc::new(Nobody) };
    let core = Master::join(config, deps, network).await.unwrap();
    while core.state().read().configuration.replicas != 3 {
        tokio::task::yield_now().await;
    }
    core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_waited_for_is_not_granted_once_another_leads() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let mut server = Server::connect(&rig, 1, Vec::new()).await;
    server.obey(4).await;
    let first = rig.lease(&[]).await.unwrap();
    // All but one: there is something to be granted in the end, and others to be waited for.
    let avoid: Vec<u32> = first.volumes.iter().skip(1).map(|v| v.volume).collect();
    let waiting = tokio::spawn({
        let gateway = rig.as_role(Role::Gateway, 200);
        async move { gateway.lease_write(Request::new(v1::LeaseWriteRequest { avoid })).await }
    });
    // It has begun to wait: what it avoids is to be replaced.
    assert!(matches!(server.told().await.unwrap(), Command::Create(_)));
    rig.core.group.shutdown().await.unwrap();
    let refused = to_failure(&waiting.await.unwrap().unwrap_err());
    assert_eq!(refused.code, ErrorCode::NotLeader, "{refused}");
    assert!(!rig.core.leads());
    let reason = rig.core.status().not_ready.unwrap();
    assert!(reason.contains("it has stopped"), "{reason}");
    assert!(rig.core.status().servers_unknown, "it hears nobody");
    rig.core.shutdown().await;
}
