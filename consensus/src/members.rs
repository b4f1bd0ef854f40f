//! Changing who belongs to a group. Only its leader can; every change is an entry of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use hay_common::clock::SharedClock;
use hay_common::ids::MemberId;
use hay_common::limits::{RAFT_CHANGE_TIMEOUT, RAFT_MEMBERS_MAX, RAFT_PROMOTE_LAG_MAX};
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};

use crate::error::{Leader, MembersError};
use crate::network::Contacts;
use crate::types::Raft;

type ChangeError = RaftError<u64, ClientWriteError<u64, BasicNode>>;

/// A member that answered within this many election timeouts counts as reached.
const REACHED_WITHIN: u32 = 3;

/// The members of one group, for its leader to change.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) group: String,
    pub(crate) member: MemberId,
    pub(crate) raft: Raft,
    pub(crate) contacts: Contacts,
    pub(crate) clock: SharedClock,
    pub(crate) election_max: std::time::Duration,
}

/// The members as this one knows them.
struct Now {
    nodes: BTreeMap<u64, String>,
    voters: BTreeSet<u64>,
}

impl Members {
    fn now(&self) -> Result<Now, MembersError> {
        let metrics = self.raft.server_metrics();
        let now = metrics.borrow();
        let nodes: BTreeMap<u64, String> =
            now.membership_config.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        if !now.state.is_leader() {
            let leader = now.current_leader;
            let node = leader.and_then(|id| nodes.get(&id)).map(BasicNode::new);
            let leader = Leader::of(leader, node.as_ref());
            return Err(MembersError::NotLeader { group: self.group.clone(), leader });
        }
        Ok(Now { nodes, voters: now.membership_config.voter_ids().collect() })
    }

    /// A new member asked for it: becomes a learner. One that is known has its address brought up to date.
    pub(crate) async fn take_in(&self, member: MemberId, address: &str) -> Result<(), MembersError> {
        let now = self.now()?;
        match now.nodes.get(&member.0) {
            Some(known) if known == address => Ok(()),
            Some(_) => self.readdress(member, address).await,
            None => self.add_learner(member, address).await,
        }
    }

    /// Has `member` reached at `address` from now on.
    pub(crate) async fn readdress(&self, member: MemberId, address: &str) -> Result<(), MembersError> {
        check_address(address)?;
        let nodes = BTreeMap::from([(member.0, BasicNode::new(address))]);
        // Only the address of a member that is known by its id: the library's warning is of giving an id to another.
        self.change(ChangeMembers::SetNodes(nodes), true).await
    }

    pub(crate) async fn add_learner(&self, member: MemberId, address: &str) -> Result<(), MembersError> {
        check_address(address)?;
        let now = self.now()?;
        if now.voters.contains(&member.0) {
            return Err(MembersError::Voter(member));
        }
        // Learners that were at the same address lost their directories before they ever counted for anything.
        let gone: BTreeSet<u64> = now
            .nodes
            .iter()
            .filter(|(id, at)| at.as_str() == address && **id != member.0 && !now.voters.contains(id))
            .map(|(id, _)| *id)
            .collect();
        if now.nodes.len() - gone.len() >= RAFT_MEMBERS_MAX {
            return Err(MembersError::TooMany(now.nodes.len()));
        }
        if !gone.is_empty() {
            tracing::info!(group = self.group, ?gone, address, "learners that are gone make place");
            self.change(ChangeMembers::RemoveNodes(gone), false).await?;
        }
        tracing::info!(group = self.group, %member, address, "a learner joins");
        let nodes = BTreeMap::from([(member.0, BasicNode::new(address))]);
        self.change(ChangeMembers::AddNodes(nodes), true).await
    }

    /// Whether a learner could become a voter.
    pub(crate) fn may_promote(&self, member: MemberId) -> Result<(), MembersError> {
        let now = self.now()?;
        if now.voters.contains(&member.0) {
            return Err(MembersError::Voter(member));
        }
        if !now.nodes.contains_key(&member.0) {
            return Err(MembersError::Unknown { group: self.group.clone(), member });
        }
        let lag = self.lags().get(&member.0).copied().flatten();
        if lag.is_none_or(|lag| lag > RAFT_PROMOTE_LAG_MAX) || !self.reaches(member.0) {
            return Err(MembersError::Behind { member, lag });
        }
        Ok(())
    }

    pub(crate) async fn promote(&self, member: MemberId) -> Result<(), MembersError> {
        self.may_promote(member)?;
        tracing::info!(group = self.group, %member, "a learner becomes a voter");
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member.0])), true).await
    }

    /// Whether a member could be removed, and whether it votes.
    pub(crate) fn may_remove(&self, member: MemberId) -> Result<bool, MembersError> {
        let now = self.now()?;
        if !now.nodes.contains_key(&member.0) {
            return Err(MembersError::Unknown { group: self.group.clone(), member });
        }
        if !now.voters.contains(&member.0) {
            return Ok(false);
        }
        let left: Vec<u64> = now.voters.iter().copied().filter(|id| *id != member.0).collect();
        if left.is_empty() {
            return Err(MembersError::LastVoter(member));
        }
        let reached = left.iter().filter(|id| self.reaches(**id)).count();
        if reached * 2 <= left.len() {
            return Err(MembersError::NoMajority { voters: left.len(), reached });
        }
        Ok(true)
    }

    pub(crate) async fn remove(&self, member: MemberId) -> Result<(), MembersError> {
        let votes = self.may_remove(member)?;
        let gone = BTreeSet::from([member.0]);
        tracing::info!(group = self.group, %member, "a member is removed");
        let change = match votes {
            true => ChangeMembers::RemoveVoters(gone),
            false => ChangeMembers::RemoveNodes(gone),
        };
        self.change(change, false).await
    }

    /// Finishes a change that stopped between its two steps, and records where this member is reached now.
    pub(crate) async fn set_right(&self, address: &str) -> Result<(), MembersError> {
        let now = self.now()?;
        let unfinished = {
            let metrics = self.raft.server_metrics();
            let configs = metrics.borrow().membership_config.membership().get_joint_config().clone();
            if configs.len() > 1 { configs.last().cloned() } else { None }
        };
        if let Some(voters) = unfinished {
            tracing::info!(group = self.group, ?voters, "finishes a change of the members");
            self.change(ChangeMembers::ReplaceAllVoters(voters), false).await?;
        }
        let known = now.nodes.get(&self.member.0);
        if !address.is_empty() && known.is_some_and(|known| known != address) {
            self.readdress(self.member, address).await?;
        }
        Ok(())
    }

    /// Entries that each other member lacks, as the leader knows it.
    pub(crate) fn lags(&self) -> BTreeMap<u64, Option<u64>> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        let last = now.last_log_index.unwrap_or(0);
        let matching = now.replication.iter().flatten();
        matching.map(|(id, log)| (*id, log.as_ref().map(|log| last.saturating_sub(log.index)))).collect()
    }

    fn reaches(&self, member: u64) -> bool {
        let within = self.election_max * REACHED_WITHIN;
        let heard = |id: u64| self.contacts.lock().get(&id).and_then(|contact| contact.heard);
        member == self.member.0
            || heard(member).is_some_and(|heard| self.clock.monotonic().saturating_sub(heard) <= within)
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>, retain: bool) -> Result<(), MembersError> {
        self.within_time(self.raft.change_membership(change, retain)).await
    }

    async fn within_time<T>(
        &self,
        change: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<(), MembersError> {
        match tokio::time::timeout(RAFT_CHANGE_TIMEOUT, change).await {
            Err(_) => Err(MembersError::TimedOut),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &ChangeError) -> MembersError {
        match error {
            RaftError::Fatal(fatal) => MembersError::Stopped(fatal.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => MembersError::NotLeader {
                group: self.group.clone(),
                leader: Leader::of(forward.leader_id, forward.leader_node.as_ref()),
            },
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
                ChangeMembershipError::InProgress(_) => MembersError::InProgress,
                ChangeMembershipError::EmptyMembership(_) => MembersError::LastVoter(self.member),
                ChangeMembershipError::LearnerNotFound(missing) => {
                    MembersError::Unknown { group: self.group.clone(), member: MemberId(missing.node_id) }
                }
            },
        }
    }
}

fn check_address(address: &str) -> Result<(), MembersError> {
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        (!host.is_empty() && address.len() <= hay_common::limits::NODE_TEXT_BYTES_MAX)
            .then(|| port.parse::<u16>().ok())
            .flatten()
    });
    port.map(drop).ok_or_else(|| MembersError::Address(address.to_owned()))
}
