//! Which role may call what, and how long a call lives. What is not listed is refused.

use super::{Role, Rpc};

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// A small call: [`hay_common::limits::RPC_TIMEOUT`].
    Call,
    /// A bulk stream: [`hay_common::limits::RPC_BULK_TIMEOUT`].
    Bulk,
    /// A stream that lives as long as its connection. Its first answer is due as a small call's.
    Lasting,
}

use Role::{Admin, Filer, Gateway, Master, VolumeServer};

/// The roles that may call `rpc`.
pub fn roles(rpc: Rpc) -> &'static [Role] {
    match rpc {
        Rpc::VolumeAppendBatch | Rpc::VolumeAppend => &[Gateway],
        // Volume servers append to each other as primary and replica, and copy from each other.
        Rpc::VolumeReplicateBatch | Rpc::VolumeReplicate | Rpc::VolumeListNeedles => &[VolumeServer],
        Rpc::VolumeReadBatch | Rpc::VolumeRead => &[Gateway, VolumeServer, Filer],
        Rpc::VolumeVolumeStatus => &[Gateway, VolumeServer, Filer, Admin],

        // The filer takes principals only from gateways.
        Rpc::FilerWhoami
        | Rpc::FilerBegin
        | Rpc::FilerCommitBatch
        | Rpc::FilerResolveBatch
        | Rpc::FilerReadManifest
        | Rpc::FilerFindOwn
        | Rpc::FilerList
        | Rpc::FilerOpenSessions => &[Gateway],
        Rpc::FilerFilerStatus => &[Gateway, Admin],

        Rpc::MasterHeartbeat => &[VolumeServer],
        Rpc::MasterLeaseWrite => &[Gateway],
        Rpc::MasterVolumeMap | Rpc::MasterWatchVolumeMap => &[Gateway, VolumeServer, Filer, Admin],
        Rpc::MasterClusterStatus => &[Master, Gateway, VolumeServer, Filer, Admin],
        Rpc::MasterRepairVolume | Rpc::MasterChangeMasters => &[Gateway, Admin],

        // Of these two, only the role that the named group belongs to: the receiver of the group looks.
        Rpc::RaftAppendEntries
        | Rpc::RaftRequestVote
        | Rpc::RaftInstallSnapshot
        | Rpc::RaftDescribe
        | Rpc::RaftPromise
        | Rpc::RaftJoin => &[Master, Filer],
    }
}

/// How long a call of `rpc` may take.
pub fn lifetime(rpc: Rpc) -> Lifetime {
    match rpc {
        Rpc::VolumeAppend | Rpc::VolumeRead | Rpc::VolumeReplicate => Lifetime::Bulk,
        // A snapshot takes as long as it takes; both ends give up when nothing moves.
        Rpc::MasterHeartbeat | Rpc::MasterWatchVolumeMap | Rpc::RaftInstallSnapshot => Lifetime::Lasting,
        Rpc::VolumeAppendBatch
        | Rpc::VolumeReadBatch
        | Rpc::VolumeVolumeStatus
        | Rpc::VolumeReplicateBatch
        | Rpc::VolumeListNeedles
        | Rpc::FilerWhoami
        | Rpc::FilerBegin
        | Rpc::FilerCommitBatch
        | Rpc::FilerResolveBatch
        | Rpc::FilerReadManifest
        | Rpc::FilerFindOwn
        | Rpc::FilerList
        | Rpc::FilerOpenSessions
        | Rpc::FilerFilerStatus
        | Rpc::MasterLeaseWrite
        | Rpc::MasterVolumeMap
        | Rpc::MasterClusterStatus
        | Rpc::RaftAppendEntries
        | Rpc::RaftRequestVote
        | Rpc::RaftDescribe
        | Rpc::RaftPromise
        | Rpc::RaftJoin
        | Rpc::MasterRepairVolume
        | Rpc::MasterChangeMasters => Lifetime::Call,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOS: [&str; 4] = [
        include_str!("../../proto/haystore/v1/volume.proto"),
        include_str!("../../proto/haystore/v1/filer.proto"),
        include_str!("../../proto/haystore/v1/master.proto"),
        include_str!("../../proto/haystore/v1/raft.proto"),
    ];

    /// (service, method, whether a stream goes either way), read from the .proto files themselves.
    fn declared() -> Vec<(String, String, bool)> {
        let mut found = Vec::new();
        for text in PROTOS {
            let mut service = "";
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("service ") {
                    service = rest.trim_end_matches(" {");
                }
                if let Some((name, rest)) = line.trim().strip_prefix("rpc ").and_then(|r| r.split_once('(')) {
                    found.push((service.to_owned(), name.to_owned(), rest.contains("stream ")));
                }
            }
        }
        found
    }

    #[test]
    fn every_declared_method_is_in_the_table() {
        let declared = declared();
        let listed: Vec<String> = Rpc::ALL.iter().map(|rpc| format!("{rpc:?}")).collect();
        let named: Vec<String> =
            declared.iter().map(|(service, method, _)| format!("{service}{method}")).collect();
        assert_eq!(listed, named);
        for (rpc, (_, _, streams)) in Rpc::ALL.iter().zip(&declared) {
            assert!(!roles(*rpc).is_empty(), "{rpc:?} can be called by nobody");
            assert_eq!(lifetime(*rpc) != Lifetime::Call, *streams, "{rpc:?}");
        }
    }

    #[test]
    fn each_index_is_a_place_in_the_list() {
        for (index, rpc) in Rpc::ALL.iter().enumerate() {
            assert_eq!(*rpc as usize, index);
        }
    }

    #[test]
    fn only_gateways_bring_principals() {
        for rpc in Rpc::ALL.iter().filter(|rpc| rpc.service() == "filer" && **rpc != Rpc::FilerFilerStatus) {
            assert_eq!(roles(*rpc), [Gateway], "{rpc:?}");
        }
        assert_eq!(roles(Rpc::MasterHeartbeat), [VolumeServer]);
    }

    #[test]
    fn only_those_that_have_groups_speak_of_them() {
        for rpc in Rpc::ALL.iter().filter(|rpc| rpc.service() == "raft") {
            assert_eq!(roles(*rpc), [Master, Filer], "{rpc:?}");
        }
    }
}
