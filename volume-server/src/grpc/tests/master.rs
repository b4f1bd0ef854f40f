//! The master's end of a heartbeat, in the hands of a test.

use std::sync::Arc;

use futures::{StreamExt, stream};
use hay_common::error::{ErrorCode, Failure};
use hay_proto::rpc::{BoxStream, to_status};
use hay_proto::v1::master_server::Master;
use hay_proto::v1::{self, heartbeat_command::Command};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// One heartbeat stream, as the master sees it.
pub(crate) struct Session {
    pub reports: Streaming<v1::HeartbeatReport>,
    commands: mpsc::Sender<Result<v1::HeartbeatCommand, Status>>,
}

impl Session {
    /// The next report, which is acknowledged.
    pub async fn report(&mut self) -> v1::HeartbeatReport {
        let report = self.reports.next().await.unwrap().unwrap();
        let heard = Command::Acknowledge(v1::Acknowledge { sequence: report.sequence, ..Default::default() });
        // A server that has so much to read hears from its master anyway.
        let _ = self.commands.try_send(Ok(v1::HeartbeatCommand { command: Some(heard) }));
        report
    }

    /// The next report that names volumes.
    pub async fn change(&mut self) -> v1::HeartbeatReport {
        loop {
            let report = self.report().await;
            if report.full || !report.volumes.is_empty() {
                return report;
            }
        }
    }

    pub async fn say(&self, command: Command) {
        self.commands.send(Ok(v1::HeartbeatCommand { command: Some(command) })).await.unwrap();
    }

    pub async fn refuse(&self, code: ErrorCode) {
        self.commands.send(Err(to_status(Failure::new(code, "refused as the test wants it")))).await.unwrap();
    }

    pub async fn fail(&self) {
        self.commands.send(Err(Status::unavailable("not the leader any more"))).await.unwrap();
    }
}

pub(crate) struct TestMaster {
    sessions: Mutex<Option<mpsc::Sender<Session>>>,
    /// Brings down whoever calls.
    is_faulty: bool,
}

impl TestMaster {
    /// Takes reports and says nothing.
    pub fn silent() -> Arc<Self> {
        Arc::new(Self { sessions: Mutex::new(None), is_faulty: false })
    }

    /// Hands each stream to the test.
    pub fn played() -> (Arc<Self>, mpsc::Receiver<Session>) {
        let (sender, sessions) = mpsc::channel(8);
        (Arc::new(Self { sessions: Mutex::new(Some(sender)), is_faulty: false }), sessions)
    }

    /// A fault of the program in whatever task calls it.
    pub fn faulty() -> Arc<Self> {
        Arc::new(Self { sessions: Mutex::new(None), is_faulty: true })
    }
}

#[tonic::async_trait]
impl Master for TestMaster {
    type HeartbeatStream = BoxStream<v1::HeartbeatCommand>;
    type WatchVolumeMapStream = BoxStream<v1::VolumeMapReply>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        assert!(!self.is_faulty, "a fault that the test wants");
        let sender = self.sessions.lock().clone();
        let Some(sender) = sender else {
            let mut reports = request.into_inner();
            let drained = stream::once(async move { while reports.next().await.is_some() {} });
            return Ok(Response::new(Box::pin(drained.flat_map(|()| stream::empty()))));
        };
        let (commands, said) = mpsc::channel(8);
        let session = Session { reports: request.into_inner(), commands };
        sender.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }

    async fn lease_write(
        &self,
        _: Request<v1::LeaseWriteRequest>,
    ) -> Result<Response<v1::WriteLease>, Status> {
        Err(Status::unimplemented("not asked for by a volume server"))
    }

    async fn volume_map(
        &self,
        _: Request<v1::VolumeMapRequest>,
    ) -> Result<Response<v1::VolumeMapReply>, Status> {
        Err(Status::unimplemented("not asked for by a volume server"))
    }

    async fn watch_volume_map(
        &self,
        _: Request<v1::WatchVolumeMapRequest>,
    ) -> Result<Response<Self::WatchVolumeMapStream>, Status> {
        Err(Status::unimplemented("not asked for by a volume server"))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusReply>, Status> {
        Err(Status::unimplemented("not asked for by a volume server"))
    }

    async fn repair_volume(
        &self,
        _: Request<v1::RepairVolumeRequest>,
    ) -> Result<Response<v1::RepairVolumeReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn change_masters(
        &self,
        _: Request<v1::ChangeMastersRequest>,
    ) -> Result<Response<v1::ChangeMastersReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}
