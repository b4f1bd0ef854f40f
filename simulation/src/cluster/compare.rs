//! What the machines hold, looked at behind their services' backs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hay_client::master::{VolumeInfo, VolumeMember};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, NeedleKey, NodeId, VolumeId};
use hay_volume_server::VolumeServer;
use hay_volume_server::store::ReadError;

use super::World;
use super::history::{Needle, data};
use super::judge::whole;

type Names = BTreeSet<(NeedleKey, Cookie, u32)>;

/// The names that servers hold of a volume or of all.
pub type Held = BTreeMap<(NodeId, VolumeId), Names>;

/// The masters have the same state within this time once nothing happens any more.
const AGREED: Duration = Duration::from_secs(30);

fn names(server: &VolumeServer, volume: VolumeId) -> Option<Names> {
    let page = server.store().names(volume, None, usize::MAX).ok()?;
    Some(page.names.into_iter().collect())
}

fn server(world: &World, node: NodeId) -> Option<Arc<VolumeServer>> {
    let running = world.servers.iter().filter_map(|machine| machine.server.lock().clone());
    running.into_iter().find(|server| server.node() == node)
}

fn held_by(world: &World, member: &VolumeMember, volume: VolumeId) -> Option<Names> {
    server(world, member.node).and_then(|server| names(&server, volume))
}

/// The bytes of a needle as a member has them.
pub async fn read(world: &World, member: &VolumeMember, needle: &Needle) -> Result<Bytes, Failure> {
    let server = server(world, member.node)
        .ok_or_else(|| Failure::new(ErrorCode::Unavailable, "its server does not run"))?;
    let read = server.store().read(needle.volume, needle.key, needle.cookie).await;
    let code = |error: &ReadError| match error {
        ReadError::Absent(_) | ReadError::NoVolume(_) => ErrorCode::NotFound,
        ReadError::Corrupt { .. } | ReadError::Lost(_) | ReadError::Broken { .. } => ErrorCode::Corrupt,
        ReadError::Io { .. } | ReadError::Closing | ReadError::Unconfirmed(_) => ErrorCode::Unavailable,
    };
    read.map(|needle| needle.data).map_err(|error| Failure::new(code(&error), error.to_string()))
}

/// What all servers hold.
pub fn held(world: &World) -> Held {
    let mut held = Held::new();
    for server in world.servers.iter().filter_map(|machine| machine.server.lock().clone()) {
        for info in server.store().infos() {
            held.extend(names(&server, info.id).map(|names| ((server.node(), info.id), names)));
        }
    }
    held
}

/// What a server had once, it has still.
pub fn nothing_was_lost(world: &World, before: &Held) {
    let now = held(world);
    for (of, before) in before {
        let lost = now.get(of).map_or(before.len(), |now| before.difference(now).count());
        if lost > 0 {
            let (node, volume) = of;
            world.history.violation(format_args!(
                "{lost} needles of volume {volume} on server {node} were not on its disk"
            ));
        }
    }
}

/// What the whole members of a volume hold.
pub fn held_by_members(world: &World, info: &VolumeInfo) -> Held {
    let held =
        |member: &VolumeMember| held_by(world, member, info.id).map(|names| ((member.node, info.id), names));
    whole(world, info).into_iter().filter_map(held).collect()
}

/// A server that has been filled with a volume has all that any whole replica had before. `before`: for each volume.
pub fn copies_have_all(
    world: &World,
    volumes: &BTreeMap<VolumeId, VolumeInfo>,
    before: &BTreeMap<VolumeId, Held>,
) {
    for (volume, before) in before {
        let Some(info) = volumes.get(volume) else { continue };
        let all: Names = before.values().flatten().copied().collect();
        let is_new = |member: &&VolumeMember| !before.contains_key(&(member.node, *volume));
        for member in whole(world, info).into_iter().filter(is_new) {
            let has = held_by(world, member, *volume).unwrap_or_default();
            let lacks = all.difference(&has).count();
            if lacks > 0 {
                world.history.violation(format_args!(
                    "{} was filled with volume {volume} and lacks {lacks} needles of it",
                    member.address
                ));
            }
        }
    }
}

/// Whoever holds a needle holds the bytes that were written under its name: those too that were never
/// acknowledged, and that only some have.
pub async fn replicas_agree(world: &World, volumes: &BTreeMap<VolumeId, VolumeInfo>) {
    let acknowledged = world.history.acknowledged();
    let of = |needle: &Needle| (needle.volume, needle.key, needle.cookie, needle.length);
    let acknowledged: BTreeSet<_> = acknowledged.iter().map(of).collect();
    for info in volumes.values() {
        for member in whole(world, info) {
            let Some(server) = server(world, member.node) else { continue };
            for (key, cookie, length) in names(&server, info.id).unwrap_or_default() {
                world.history.compared.fetch_add(1, Ordering::Relaxed);
                // Those the judge has read.
                if acknowledged.contains(&(info.id, key, cookie, length)) {
                    continue;
                }
                let is = match server.store().read(info.id, key, cookie).await {
                    Ok(needle) if needle.data == data(key, length) => continue,
                    Ok(_) => "other bytes".to_owned(),
                    Err(error) => error.to_string(),
                };
                world.history.violation(format_args!(
                    "{} has of {:x} {cookie:?}, which nobody was told is stored: {is}",
                    member.address, key.0
                ));
            }
        }
    }
}

/// Masters that have applied the same commands have the same state, and they all come to the last one.
pub async fn masters_agree(world: &World) {
    let began = world.time.now();
    loop {
        let masters: Vec<_> =
            world.masters.iter().filter_map(|machine| machine.master.lock().clone()).collect();
        let applied: Vec<_> =
            masters.iter().map(|master| master.group().status().applied.map(|last| last.index)).collect();
        let states: Vec<_> = masters.iter().map(|master| master.state()).collect();
        let are_all = masters.len() == world.masters.len();
        let are_equal = states.windows(2).all(|two| *two[0].read() == *two[1].read());
        if are_all && are_equal && applied.windows(2).all(|two| two[0] == two[1]) {
            return;
        }
        if world.time.now() - began > AGREED {
            world.history.violation(format_args!(
                "the masters have applied {applied:?}, and their states are the same: {are_equal}"
            ));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
