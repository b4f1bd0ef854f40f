//! A new member on its way into a group: asks its peers, again and again, until it belongs to one.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use hay_common::ids::MemberId;
use hay_common::limits::{RAFT_FORMATION_EVERY, RAFT_FORMATION_TIMEOUT};
use hay_common::random::SharedRandom;
use openraft::BasicNode;
use tokio::sync::watch;

use crate::network::Network;
use crate::transport::CallKind;
use crate::types::Raft;
use crate::wire::{self, JoinRequest};

use super::decide::{Me, Step, decide};
use super::{Description, Formation, FormationId, Formed};

/// A new member on its way into a group.
pub(crate) struct Forming {
    pub(crate) me: MemberId,
    pub(crate) address: String,
    /// The other addresses of the static list.
    pub(crate) peers: Vec<String>,
    /// Whether its own address is in that list.
    pub(crate) listed: bool,
    pub(crate) formed: Arc<Formed>,
    pub(crate) network: Network,
    pub(crate) raft: Raft,
    pub(crate) random: SharedRandom,
    /// What it waits for, for people; `None` once it belongs to a group.
    pub(crate) news: watch::Sender<Option<String>>,
}

impl Forming {
    /// Until this member belongs to a group: it has a log of it.
    pub(crate) async fn run(self) {
        loop {
            if !self.formed.pristine() {
                self.news.send_replace(None);
                return self.announce().await;
            }
            let waiting = self.step().await;
            if let Some(waiting) = waiting
                && self.news.borrow().as_ref() != Some(&waiting)
            {
                tracing::info!(group = self.network.group, member = %self.me, waiting, "no member of a group yet");
                self.news.send_replace(Some(waiting));
            }
            // Members that start together must not ask in step for ever.
            let share = f64::from(self.random.u32()) / f64::from(u32::MAX);
            tokio::time::sleep(RAFT_FORMATION_EVERY.mul_f64(0.5 + share)).await;
        }
    }

    /// A member that came back at another address says so, until the group knows.
    async fn announce(&self) {
        loop {
            tokio::time::sleep(RAFT_FORMATION_EVERY * 4).await;
            let (recorded, leads) = {
                let metrics = self.raft.server_metrics();
                let now = metrics.borrow();
                let node = now.membership_config.membership().get_node(&self.me.0);
                (node.map(|node| node.addr.clone()), now.state.is_leader())
            };
            // One that was removed does not ask to be taken in again; a leader sets its own right.
            if leads || recorded.is_none_or(|recorded| recorded == self.address) {
                return;
            }
            let peers = self.ask_peers().await;
            let leader = peers.values().flatten().filter_map(|said| said.leader.clone()).next();
            if let Some((_, address)) = leader
                && let Err(why) = self.join(&address).await
            {
                tracing::info!(
                    group = self.network.group,
                    why,
                    "the group does not know this member's address yet"
                );
            }
        }
    }

    /// One look at the peers and what follows; what it waits for, for people.
    async fn step(&self) -> Option<String> {
        let peers = self.ask_peers().await;
        let me = Me { member: self.me.0, address: self.address.clone(), voted: self.formed.voted() };
        match decide(&me, self.listed, &peers) {
            Step::Wait(why) => Some(why),
            Step::Form(members) => self.form(members).await.err(),
            Step::Enter(formation) => {
                self.enter(formation).await.err().or_else(|| Some("the leader has not come yet".to_owned()))
            }
            Step::Join(formation, address) => match self.enter(formation).await {
                Ok(()) => self.join(&address).await.err(),
                Err(why) => Some(why),
            },
        }
    }

    async fn ask_peers(&self) -> BTreeMap<String, Option<Description>> {
        let asked = self.peers.iter().map(|address| async move {
            let said = self.ask(address, CallKind::Describe, None, bytes::Bytes::new()).await;
            let said = said.and_then(|said| wire::decode::<Description>(&said).map_err(|e| e.to_string()));
            if let Err(error) = &said {
                tracing::debug!(group = self.network.group, address, error, "a peer did not answer");
            }
            (address.clone(), said.ok())
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn ask(
        &self,
        address: &str,
        kind: CallKind,
        to: Option<MemberId>,
        body: bytes::Bytes,
    ) -> Result<bytes::Bytes, String> {
        let envelope = self.network.envelope(to, body);
        let call = self.network.transport.call(address, kind, envelope, RAFT_FORMATION_TIMEOUT);
        // The transport keeps the time too; a peer that hangs must not hold up the others.
        match tokio::time::timeout(RAFT_FORMATION_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Takes every peer's promise, and forms the group. Broken off anywhere, nothing has happened: promises of a formation
    /// that never was bind nobody.
    async fn form(&self, members: BTreeMap<u64, String>) -> Result<(), String> {
        let formation = Formation { id: FormationId(self.random.u128()), members };
        self.formed.enter(formation.clone()).await.map_err(|e| e.to_string())?;
        let body = wire::encode(&formation).map_err(|e| e.to_string())?;
        let others = formation.members.iter().filter(|(id, _)| **id != self.me.0);
        let promises = others.map(|(id, address)| {
            let body = body.clone();
            async move {
                let promised = self.ask(address, CallKind::Promise, Some(MemberId(*id)), body).await;
                promised.map_err(|e| format!("{address} does not promise: {e}"))
            }
        });
        join_all(promises).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        // While this is held nobody else can have this member's promise.
        let record = self.formed.lock().await;
        if record.as_ref() != Some(&formation) || !self.formed.pristine() || self.formed.voted() {
            return Err("another member formed a group meanwhile".to_owned());
        }
        let nodes: BTreeMap<u64, BasicNode> =
            formation.members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        tracing::info!(group = self.network.group, formation = %formation.id, members = ?formation.members, "forms the group");
        self.raft.initialize(nodes).await.map_err(|e| e.to_string())
    }

    async fn enter(&self, formation: FormationId) -> Result<(), String> {
        if self.formed.id() == Some(formation) {
            return Ok(());
        }
        let formation = Formation { id: formation, members: BTreeMap::new() };
        self.formed.enter(formation).await.map_err(|e| e.to_string())
    }

    async fn join(&self, address: &str) -> Result<(), String> {
        let request =
            wire::encode(&JoinRequest { address: self.address.clone() }).map_err(|e| e.to_string())?;
        let asked = self.ask(address, CallKind::Join, None, request).await;
        asked.map(drop).map_err(|e| format!("{address} did not take this member in: {e}"))
    }
}
