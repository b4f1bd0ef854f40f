//! What can go wrong between members, and with changing them.

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, MemberId};

use crate::wire::Malformed;

use super::{Leader, who_leads};

/// Why a message of another member was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("this server belongs to cluster {ours}, the message to cluster {theirs}")]
    OtherCluster {
        /// This server's.
        ours: ClusterId,
        /// The sender's.
        theirs: ClusterId,
    },
    /// It belongs to another group.
    #[error("this is group {ours}, the message is for group {theirs}")]
    OtherGroup {
        /// This member's.
        ours: String,
        /// The sender's.
        theirs: String,
    },
    /// It is for another member: the one that was here is gone, or the sender has a wrong address.
    #[error(
        "the message is for member {meant}; here is member {here}: a member that lost its directory has a new id"
    )]
    OtherMember {
        /// Who was meant.
        meant: MemberId,
        /// Who is here.
        here: MemberId,
    },
    /// The sender has this member's id.
    #[error(
        "two servers are member {0}: one of them has a copy of the other's directory. Stop it, and give it an empty one"
    )]
    SameMember(MemberId),
    /// This member belongs to no group yet.
    #[error("this member belongs to no group yet")]
    NotFormed,
    /// This member belongs to a group of the same name that was formed at another time.
    #[error("this member belongs to another formation of the group: the two must never be joined")]
    OtherFormation,
    /// This member belongs to a group already.
    #[error("this member belongs to a group already")]
    Initialised,
    /// The message can't be read.
    #[error("the message can't be read: is the other server of another version?")]
    Malformed,
    /// A snapshot is arriving already.
    #[error("another snapshot is arriving; try again later")]
    Busy,
    /// It still works on what it was sent before.
    #[error("this member still works on what it was sent before: is its disk slow or full?")]
    Behind,
    /// A group is to be formed with other members than this one was told of.
    #[error(
        "this member was given {ours} as its peers, the one that forms the group {theirs}: give all the same list"
    )]
    OtherList {
        /// This member's list.
        ours: String,
        /// The list of the one that forms the group.
        theirs: String,
    },
    /// What was asked for can't be done by or to this group.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The disk said no.
    #[error("can't write {0}")]
    Disk(String),
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Refusal> for Failure {
    fn from(error: Refusal) -> Self {
        let code = match &error {
            Refusal::OtherCluster { .. }
            | Refusal::OtherGroup { .. }
            | Refusal::OtherMember { .. }
            | Refusal::SameMember(_)
            | Refusal::NotFormed
            | Refusal::OtherFormation
            | Refusal::Initialised
            | Refusal::OtherList { .. } => ErrorCode::PreconditionFailed,
            Refusal::Malformed => ErrorCode::InvalidArgument,
            Refusal::Busy | Refusal::Behind => ErrorCode::Overloaded,
            Refusal::Members(error) => return error.clone().into(),
            Refusal::Disk(_) | Refusal::Stopped(_) => ErrorCode::Unavailable,
        };
        Failure::new(code, error.to_string())
    }
}

/// Why the members of a group were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Another member leads, or none.
    #[error("this member does not lead group {group}{}", who_leads(leader.as_ref()))]
    NotLeader {
        /// The name of the group.
        group: String,
        /// Who leads, where known.
        leader: Option<Leader>,
    },
    /// There is no such member.
    #[error("group {group} has no member {member}")]
    Unknown {
        /// The name of the group.
        group: String,
        /// Who was named.
        member: MemberId,
    },
    /// It votes already.
    #[error("member {0} is a voter already")]
    Voter(MemberId),
    /// It has to catch up first.
    #[error("member {member} {}", lag.map_or("has not been reached yet".to_owned(), |lag| format!("lacks {lag} entries: wait until it has caught up")))]
    Behind {
        /// Which.
        member: MemberId,
        /// Entries that it lacks, where known.
        lag: Option<u64>,
    },
    /// The group would have no voter.
    #[error("member {0} is the only voter: a group without one can never decide anything again")]
    LastVoter(MemberId),
    /// Too few of the voters that would be left are reached: the group could not decide anything any more.
    #[error(
        "of the {voters} voters that would be left only {reached} are reached: bring the others back first"
    )]
    NoMajority {
        /// Voters that would be left.
        voters: usize,
        /// Those of them that answer.
        reached: usize,
    },
    /// No more members fit.
    #[error("the group has {0} members already: remove those that are gone first")]
    TooMany(usize),
    /// Another change is under way.
    #[error("another change of the members is under way")]
    InProgress,
    /// An address that can't be recorded.
    #[error("{0:?} is not an address of the form HOST:PORT")]
    Address(String),
    /// It took too long. Whether it is done is not known.
    #[error("whether the members were changed is not known: no majority answered in time")]
    TimedOut,
    /// The group stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl From<MembersError> for Failure {
    fn from(error: MembersError) -> Self {
        let code = match &error {
            MembersError::NotLeader { .. } => ErrorCode::NotLeader,
            MembersError::Unknown { .. } => ErrorCode::NotFound,
            MembersError::Voter(_)
            | MembersError::Behind { .. }
            | MembersError::LastVoter(_)
            | MembersError::NoMajority { .. }
            | MembersError::TooMany(_) => ErrorCode::PreconditionFailed,
            MembersError::Address(_) => ErrorCode::InvalidArgument,
            MembersError::InProgress => ErrorCode::Overloaded,
            MembersError::TimedOut => ErrorCode::DeadlineExceeded,
            MembersError::Stopped(_) => ErrorCode::Unavailable,
        };
        Failure::new(code, error.to_string())
    }
}
