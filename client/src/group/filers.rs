//! The filers of a group as one. Each call is one try, and where it fails the next call goes to the next member: only the
//! caller knows what an unanswered try of a command means (see [`crate::FilerClient`]), so only it repeats.

use std::sync::Arc;

use hay_common::clock::SharedClock;
use hay_common::random::SharedRandom;
use hay_proto::rpc::{Credentials, DynFiler, remote_filer};
use hay_proto::v1;
use hay_proto::v1::filer_server::Filer;
use tonic::{Request, Response, Status};

use super::{Group, Members};

/// The filers among `members` that lead, whichever they are.
pub fn filers(
    members: Members,
    credentials: &Credentials,
    clock: SharedClock,
    random: SharedRandom,
) -> DynFiler {
    let credentials = credentials.clone();
    let serve = move |channels| -> Arc<dyn Filer> { remote_filer(channels, credentials.clone()) };
    Arc::new(Filers(members.into_group(serve, clock, random)))
}

struct Filers(Group<dyn Filer>);

macro_rules! every_call {
    ($($method:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Filer for Filers {
            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$reply>, Status> {
                    self.0.ask_once(|filer| filer.$method(request)).await
                }
            )*
        }
    };
}

every_call! {
    whoami(WhoamiRequest) -> WhoamiReply;
    begin(BeginRequest) -> BeginReply;
    commit_batch(CommitBatchRequest) -> CommitBatchReply;
    resolve_batch(ResolveBatchRequest) -> ResolveBatchReply;
    read_manifest(ReadManifestRequest) -> ReadManifestReply;
    find_own(FindOwnRequest) -> FindOwnReply;
    list(ListRequest) -> ListReply;
    open_sessions(OpenSessionsRequest) -> OpenSessionsReply;
    filer_status(FilerStatusRequest) -> FilerStatusReply;
}
