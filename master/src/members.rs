//! Changing who belongs to the masters: a master that follows gets a vote, or one is taken out.

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::MemberId;
use hay_consensus::{GroupMember, MembersError};

use crate::core::MasterCore;

/// What to do with a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MastersChange {
    /// One that follows gets a vote.
    Add,
    /// It belongs to the group no more.
    Remove,
}

/// What was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MastersChanged {
    /// Whom it was about, as it was before.
    pub master: GroupMember,
    /// Whether it leads.
    pub led: bool,
    /// Masters with a vote before.
    pub voters_before: usize,
    /// … and after.
    pub voters_after: usize,
}

/// Why the masters were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeMastersError {
    /// Nobody is called so.
    #[error(
        "no master is {0:?}, by its id or its address; a new one joins by itself when it is started with --peers naming those \
         that are there, and is listed by `hay cluster members`"
    )]
    Unknown(String),
    /// Several are, one of them most likely gone.
    #[error("{} masters are at {name}: {}. Name one by its id", ids.len(), list(ids))]
    Several {
        /// The address.
        name: String,
        /// Who is there.
        ids: Vec<MemberId>,
    },
    /// The group says no.
    #[error(transparent)]
    Group(#[from] MembersError),
}

fn list(ids: &[MemberId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<ChangeMastersError> for Failure {
    fn from(error: ChangeMastersError) -> Self {
        match error {
            ChangeMastersError::Unknown(_) => Self::new(ErrorCode::NotFound, error.to_string()),
            ChangeMastersError::Several { .. } => Self::new(ErrorCode::InvalidArgument, error.to_string()),
            ChangeMastersError::Group(error) => error.into(),
        }
    }
}

/// The member that is called `name`: its id, or the address of one only. A master that lost its directory comes back at its
/// address under a new id: the one without a vote can be added, both can be removed.
fn find<'a>(
    members: &'a [GroupMember],
    name: &str,
    change: MastersChange,
) -> Result<&'a GroupMember, ChangeMastersError> {
    if let Some(member) = members.iter().find(|member| member.id.to_string() == name) {
        return Ok(member);
    }
    let mut there: Vec<&GroupMember> = members.iter().filter(|member| member.address == name).collect();
    if change == MastersChange::Add && there.iter().any(|member| !member.voter) {
        there.retain(|member| !member.voter);
    }
    match there.as_slice() {
        [] => Err(ChangeMastersError::Unknown(name.to_owned())),
        [only] => Ok(only),
        several => Err(ChangeMastersError::Several {
            name: name.to_owned(),
            ids: several.iter().map(|member| member.id).collect(),
        }),
    }
}

impl MasterCore {
    /// Changes the masters, or with `dry_run` says what that would do. Only the leader can.
    ///
    /// # Errors
    /// See [`ChangeMastersError`].
    pub async fn change_masters(
        &self,
        name: &str,
        change: MastersChange,
        dry_run: bool,
    ) -> Result<MastersChanged, ChangeMastersError> {
        let status = self.group.status();
        if !status.leading {
            let leader = self.group.leader();
            return Err(MembersError::NotLeader { group: self.group.name().to_owned(), leader }.into());
        }
        let master = find(&status.members, name, change)?.clone();
        match (change, dry_run) {
            (MastersChange::Add, true) => self.group.may_promote(master.id)?,
            (MastersChange::Add, false) => self.group.promote(master.id).await?,
            (MastersChange::Remove, true) => self.group.may_remove(master.id)?,
            (MastersChange::Remove, false) => self.group.remove_member(master.id).await?,
        }
        let voters = status.members.iter().filter(|member| member.voter).count();
        let voters_after = match change {
            MastersChange::Add => voters + 1,
            MastersChange::Remove => voters - usize::from(master.voter),
        };
        let led = status.leader == Some(master.id);
        Ok(MastersChanged { master, led, voters_before: voters, voters_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, address: &str, voter: bool) -> GroupMember {
        GroupMember {
            id: MemberId(id),
            address: address.to_owned(),
            voter,
            lag: None,
            heard_ago: None,
            problem: None,
        }
    }

    #[test]
    fn a_master_is_named_by_its_id_or_by_its_address_where_only_one_is_there() {
        let members = [member(1, "a:1", true), member(2, "b:1", true), member(3, "b:1", false)];
        let id = |name: &str, change| find(&members, name, change).map(|member| member.id.0);
        assert_eq!(id("2", MastersChange::Remove), Ok(2));
        assert_eq!(id("a:1", MastersChange::Remove), Ok(1));
        assert_eq!(id("b:1", MastersChange::Add), Ok(3), "the one that came back");
        let ids = vec![MemberId(2), MemberId(3)];
        let several = ChangeMastersError::Several { name: "b:1".to_owned(), ids };
        assert_eq!(several.to_string(), "2 masters are at b:1: 2, 3. Name one by its id");
        assert_eq!(id("b:1", MastersChange::Remove), Err(several));
        assert_eq!(id("c:1", MastersChange::Add), Err(ChangeMastersError::Unknown("c:1".to_owned())));
    }
}
