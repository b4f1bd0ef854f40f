//! How commands change the state.

use std::collections::BTreeSet;

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{NODE_TEXT_BYTES_MAX, NODES_MAX, REPLICAS_MAX, VOLUMES_MAX};
use hay_common::model::VolumeState;

use super::{Command, Job, Member, NewVolume, Node, Outcome, Part, Refusal, State, Volume};

/// The epoch of a new volume.
const FIRST_EPOCH: Epoch = Epoch(1);

impl State {
    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let done = match command {
            Command::Configure(configuration) => {
                if configuration.replicas == 0 || usize::from(configuration.replicas) > REPLICAS_MAX {
                    Err(Refusal::Invalid)
                } else {
                    self.configuration = configuration;
                    Ok(Outcome::Done)
                }
            }
            Command::Register { node, info } => self.register(node, info),
            Command::Create(volumes) => self.create(volumes),
            Command::Opened { volume, epoch } => self.opened(volume, epoch),
            Command::Seal { volume, epoch, fence } => self.seal(volume, epoch, fence),
            Command::Sealed { volume, epoch } => self.sealed(volume, epoch),
            Command::Repair { volume, epoch, target, replaces } => {
                self.repair(volume, epoch, target, replaces)
            }
            Command::Filled { volume, epoch, target } => self.filled(volume, epoch, target, true),
            Command::FilledInPart { volume, epoch, target } => self.filled(volume, epoch, target, false),
            Command::CancelFill { volume, target } => self.cancel_fill(volume, target),
            Command::Complete { volume, epoch, target } => self.complete(volume, epoch, target),
            Command::Abandon { volume, epoch } => self.abandon(volume, epoch),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn register(&mut self, node: NodeId, info: Node) -> Result<Outcome, Refusal> {
        let texts = [&info.address, &info.rack, &info.zone, &info.tier];
        if info.address.is_empty() || texts.iter().any(|text| text.len() > NODE_TEXT_BYTES_MAX) {
            return Err(Refusal::Invalid);
        }
        let known = self.nodes.get(&node);
        if known.is_none() && self.nodes.len() >= NODES_MAX {
            return Err(Refusal::Limit);
        }
        let moved = known.is_some_and(|known| known.address != info.address);
        self.nodes.insert(node, info);
        if moved {
            // Its volumes are elsewhere now: whoever watches the map must hear of each.
            let held = |volume: &Volume| volume.members.iter().any(|member| member.node == node);
            let ids: Vec<VolumeId> =
                self.volumes.iter().filter(|(_, v)| held(v)).map(|(id, _)| *id).collect();
            ids.into_iter().for_each(|id| self.touch(id));
        }
        Ok(Outcome::Done)
    }

    /// All or none.
    fn create(&mut self, volumes: Vec<NewVolume>) -> Result<Outcome, Refusal> {
        if self.volumes.len() + volumes.len() > VOLUMES_MAX {
            return Err(Refusal::Limit);
        }
        for volume in &volumes {
            let nodes: BTreeSet<&NodeId> = volume.nodes.iter().collect();
            if nodes.is_empty()
                || nodes.len() != volume.nodes.len()
                || nodes.len() != usize::from(volume.class.replicas)
            {
                return Err(Refusal::Invalid);
            }
            if !nodes.iter().all(|node| self.nodes.contains_key(*node)) {
                return Err(Refusal::UnknownNode);
            }
        }
        let count = u32::try_from(volumes.len()).map_err(|_| Refusal::Limit)?;
        let last = self.last_volume.checked_add(count).ok_or(Refusal::Limit)?;
        let ids: Vec<VolumeId> = (self.last_volume + 1..=last).map(VolumeId).collect();
        self.last_volume = last;
        for (id, new) in ids.iter().zip(volumes) {
            let members = new.nodes.into_iter().map(|node| Member { node, part: Part::Replica }).collect();
            let state = VolumeState::Creating;
            let volume = Volume { class: new.class, state, epoch: FIRST_EPOCH, members, changed: 0 };
            self.volumes.insert(*id, volume);
            self.open.insert(*id);
            self.touch(*id);
        }
        Ok(Outcome::Created(ids))
    }

    fn opened(&mut self, id: VolumeId, epoch: Epoch) -> Result<Outcome, Refusal> {
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.state != VolumeState::Creating || volume.epoch != epoch {
            return Err(Refusal::Passed);
        }
        volume.state = VolumeState::Writable;
        self.touch(id);
        Ok(Outcome::Done)
    }

    fn seal(&mut self, id: VolumeId, epoch: Epoch, fence: Epoch) -> Result<Outcome, Refusal> {
        let volume = self.volumes.get(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.state != VolumeState::Writable || volume.epoch != epoch || self.sealing(id).is_some() {
            return Err(Refusal::Passed);
        }
        let next = epoch.0.checked_add(1).ok_or(Refusal::Limit)?;
        self.last_job += 1;
        self.jobs.insert(self.last_job, Job::Seal { volume: id, epoch: fence.max(Epoch(next)) });
        Ok(Outcome::Done)
    }

    fn sealed(&mut self, id: VolumeId, epoch: Epoch) -> Result<Outcome, Refusal> {
        let wanted = Job::Seal { volume: id, epoch };
        let number = self.jobs.iter().find(|(_, job)| **job == wanted).map(|(number, _)| *number);
        let number = number.ok_or(Refusal::Passed)?;
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        volume.state = VolumeState::Sealed;
        volume.epoch = epoch;
        self.jobs.remove(&number);
        self.open.remove(&id);
        self.touch(id);
        Ok(Outcome::Done)
    }

    /// Members change only while a volume is sealed, and a whole replica is left to copy from.
    fn repair(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        target: NodeId,
        replaces: Option<NodeId>,
    ) -> Result<Outcome, Refusal> {
        if !self.nodes.contains_key(&target) {
            return Err(Refusal::UnknownNode);
        }
        let taken =
            self.fills(id).any(|(filled, whose)| filled == target || (whose.is_some() && whose == replaces));
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.state != VolumeState::Sealed || volume.epoch != epoch || taken {
            return Err(Refusal::Passed);
        }
        let is_member = |node: NodeId| volume.members.iter().any(|member| member.node == node);
        let is_source = |m: &Member| m.part == Part::Replica && m.node != target && Some(m.node) != replaces;
        if volume.members.iter().any(|m| m.part == Part::Completing && Some(m.node) == replaces) {
            // Its own fill would go on without it.
            return Err(Refusal::Passed);
        }
        if replaces.is_some_and(|node| node == target || !is_member(node))
            || !volume.members.iter().any(is_source)
        {
            return Err(Refusal::Invalid);
        }
        if volume.members.len() >= REPLICAS_MAX && !is_member(target) {
            return Err(Refusal::Limit);
        }
        volume.epoch = Epoch(epoch.0.checked_add(1).ok_or(Refusal::Limit)?);
        match volume.members.iter_mut().find(|member| member.node == target) {
            Some(member) => member.part = Part::Filling,
            None => volume.members.push(Member { node: target, part: Part::Filling }),
        }
        self.last_job += 1;
        self.jobs.insert(self.last_job, Job::Fill { volume: id, target, replaces });
        self.touch(id);
        Ok(Outcome::Done)
    }

    fn fill_job(&self, id: VolumeId, wanted: NodeId) -> Result<(u64, Option<NodeId>), Refusal> {
        let found = self.jobs.iter().find_map(|(number, job)| match job {
            Job::Fill { volume, target, replaces } if *volume == id && *target == wanted => {
                Some((*number, *replaces))
            }
            Job::Fill { .. } | Job::Seal { .. } => None,
        });
        found.ok_or(Refusal::Passed)
    }

    /// Who is replaced leaves only when the target is whole: until then it may be the only one that has some needle.
    fn filled(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        target: NodeId,
        is_whole: bool,
    ) -> Result<Outcome, Refusal> {
        let (number, replaces) = self.fill_job(id, target)?;
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.epoch != epoch {
            return Err(Refusal::Passed);
        }
        for member in volume.members.iter_mut().filter(|member| member.node == target) {
            member.part = Part::Replica;
        }
        if is_whole {
            volume.members.retain(|member| Some(member.node) != replaces);
        }
        self.jobs.remove(&number);
        self.touch(id);
        Ok(Outcome::Done)
    }

    fn cancel_fill(&mut self, id: VolumeId, target: NodeId) -> Result<Outcome, Refusal> {
        let (number, _) = self.fill_job(id, target)?;
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        match volume.members.iter_mut().find(|m| m.node == target && m.part == Part::Completing) {
            Some(member) => member.part = Part::Replica,
            None => volume.members.retain(|member| member.node != target),
        }
        self.jobs.remove(&number);
        self.touch(id);
        Ok(Outcome::Done)
    }

    fn complete(&mut self, id: VolumeId, epoch: Epoch, target: NodeId) -> Result<Outcome, Refusal> {
        let taken = self.fills(id).any(|(filled, whose)| filled == target || whose == Some(target));
        let volume = self.volumes.get_mut(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.state != VolumeState::Sealed || volume.epoch != epoch || taken {
            return Err(Refusal::Passed);
        }
        let next = Epoch(epoch.0.checked_add(1).ok_or(Refusal::Limit)?);
        let member = volume.members.iter_mut().find(|m| m.node == target && m.part == Part::Replica);
        member.ok_or(Refusal::Invalid)?.part = Part::Completing;
        volume.epoch = next;
        self.last_job += 1;
        self.jobs.insert(self.last_job, Job::Fill { volume: id, target, replaces: None });
        self.touch(id);
        Ok(Outcome::Done)
    }

    /// Its id is never given again, so whoever has made it already holds a stranger's empty file.
    fn abandon(&mut self, id: VolumeId, epoch: Epoch) -> Result<Outcome, Refusal> {
        let volume = self.volumes.get(&id).ok_or(Refusal::UnknownVolume)?;
        if volume.state != VolumeState::Creating || volume.epoch != epoch {
            return Err(Refusal::Passed);
        }
        self.changes.remove(&volume.changed);
        self.volumes.remove(&id);
        self.open.remove(&id);
        Ok(Outcome::Done)
    }

    fn touch(&mut self, id: VolumeId) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            self.version += 1;
            self.changes.remove(&volume.changed);
            volume.changed = self.version;
            self.changes.insert(self.version, id);
        }
    }
}
