//! What must hold once everything is healed.
//!
//! 1. Writing goes on soon.
//! 2. Every needle that was acknowledged is read with its bytes from *every* replica of its volume that the map calls whole,
//!    so no two of them hold different contents of it; and again after all machines have lost their power at once.
//! 3. Every volume that lacks a copy can be repaired, and the copy has them all too.
//! 4. What the machines hold behind their services agrees: see `compare.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use hay_client::master::{VolumeInfo, VolumeMember};
use hay_common::error::Failure;
use hay_common::ids::{NeedleKey, VolumeId};
use hay_common::model::VolumeState;

use super::clients::Client;
use super::compare::{self, Held};
use super::history::Needle;
use super::writers::is_definite;
use super::{Stage, World};

/// Writing goes on within this time. The longest wait is for a server that was suspected: 30 s.
const WRITES_AGAIN: Duration = Duration::from_secs(45);
/// So long a server may take to be heard again, and what was asked for to be finished.
const SETTLED: Duration = Duration::from_secs(60);
/// So long a volume may take to be repaired.
const REPAIRED: Duration = Duration::from_secs(60);
/// Needles that are read at once.
const READS_AT_ONCE: usize = 16;

/// The judge's process. It sets the stages after [`Stage::Healed`].
pub async fn judge(world: Arc<World>) -> turmoil::Result {
    while world.stage() < Stage::Healed {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let client = Client::start(&world, &world.judge);
    writing_goes_on(&world, &client).await;
    world.enter(Stage::Quiet);
    all_settle(&world, &client).await;
    // The services are asked once, after the dark: that is work.
    let all = world.history.acknowledged();
    what_was_acknowledged_is_there(&world, &client, Ask::Stores, all, "after everything was healed").await;
    let held = compare::held(&world);
    world.enter(Stage::Dark);
    while world.stage() < Stage::Risen {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    all_settle(&world, &client).await;
    compare::nothing_was_lost(&world, &held);
    let all = world.history.acknowledged();
    what_was_acknowledged_is_there(&world, &client, Ask::Services, all, "after all had lost their power")
        .await;
    let repaired = repair_all(&world, &client).await;
    let mut copied = world.history.acknowledged();
    copied.retain(|needle| repaired.contains(&needle.volume));
    what_was_acknowledged_is_there(&world, &client, Ask::Services, copied, "after the repairs").await;
    compare::masters_agree(&world).await;
    if let Ok(volumes) = map(&client).await {
        compare::replicas_agree(&world, &volumes).await;
    }
    world.enter(Stage::Done);
    Ok(())
}

async fn writing_goes_on(world: &World, client: &Client) {
    let began = world.time.now();
    // One of each class of volumes.
    for (key, length) in [(1, 1_000), (2, 300 << 10)] {
        loop {
            match client.store(NeedleKey(key), length).await {
                Ok((needle, epoch)) => {
                    world.history.acknowledge(needle, epoch, &client.name);
                    break;
                }
                Err(failure) if world.time.now() - began > WRITES_AGAIN => {
                    let after = world.time.now() - began;
                    world.history.violation(format_args!(
                        "nothing can be written {after:?} after the end of all faults: {failure}"
                    ));
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    let took = world.time.now() - began;
    world.trace.note(format_args!("writing went on after {took:?}"));
}

/// Writers have ended, and every server is heard.
async fn all_settle(world: &World, client: &Client) {
    let began = world.time.now();
    loop {
        let busy = world.history.busy();
        let heard = client.master.cluster_status().await;
        let alive = heard.map_or(0, |status| status.nodes.iter().filter(|node| node.alive).count());
        let all_serve = world.machines().take(world.mortal()).all(|machine| machine.serves());
        if busy == 0 && all_serve && alive == world.servers.len() {
            return;
        }
        if world.time.now() - began > SETTLED {
            world.history.violation(format_args!(
                "{busy} writers wait, {alive} servers are heard long after the end of all faults"
            ));
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn map(client: &Client) -> Result<BTreeMap<VolumeId, VolumeInfo>, Failure> {
    let (mut volumes, mut after) = (BTreeMap::new(), VolumeId(0));
    loop {
        let page = client.master.volumes(after, 0).await?;
        after = page.volumes.last().map_or(after, |info| info.id);
        volumes.extend(page.volumes.into_iter().map(|info| (info.id, info)));
        if !page.more {
            return Ok(volumes);
        }
    }
}

async fn what_was_acknowledged_is_there(
    world: &World,
    client: &Client,
    ask: Ask,
    mut missing: Vec<Needle>,
    when: &str,
) {
    let mut why = String::new();
    // A server may have come back just now, and a volume may have lost a member while it was looked at.
    for _ in 0..20 {
        let volumes = match map(client).await {
            Ok(volumes) => volumes,
            Err(failure) => {
                why = format!("the map can't be read: {failure}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let looked: Vec<_> = futures::stream::iter(&missing)
            .map(|needle| async { (*needle, is_whole(world, client, ask, &volumes, needle).await) })
            .buffered(READS_AT_ONCE)
            .collect()
            .await;
        missing.clear();
        for (needle, is) in looked {
            match is {
                Ok(()) => {}
                Err(Lack::ForNow(reason)) => {
                    why = reason;
                    missing.push(needle);
                }
                Err(Lack::Definite(reason)) => {
                    world.history.violation(format_args!("{when}: {needle:?}: {reason}"));
                }
            }
        }
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (count, first) = (missing.len(), missing.first());
    world.history.violation(format_args!("{when}: {count} needles, {first:?} among them: {why}"));
}

/// Who is asked for a needle.
#[derive(Clone, Copy)]
enum Ask {
    /// One replica over the network, and what is behind the others.
    Services,
    /// What is behind all of them.
    Stores,
}

/// Why a needle is not whole everywhere.
enum Lack {
    /// Somebody says that it is not there, or gives something else.
    Definite(String),
    /// Somebody can't be asked.
    ForNow(String),
}

/// The members of a volume that should have all of it: not those that are being filled or completed. The one whose disk was
/// lost is no more.
pub fn whole<'a>(world: &World, info: &'a VolumeInfo) -> Vec<&'a VolumeMember> {
    let wiped = *world.wiped.lock();
    let is_whole =
        |member: &&VolumeMember| !member.filling && !member.completing && Some(member.node) != wiped;
    info.members.iter().filter(is_whole).collect()
}

/// Who must give what was acknowledged: the whole members, or where the disk of the last one was lost the one that was being
/// completed from it (decision 0015).
fn readable<'a>(world: &World, info: &'a VolumeInfo) -> Vec<&'a VolumeMember> {
    let whole = whole(world, info);
    if !whole.is_empty() {
        return whole;
    }
    let wiped = *world.wiped.lock();
    info.members.iter().filter(|member| member.completing && Some(member.node) != wiped).collect()
}

/// Whether everybody gives the needle who must.
async fn is_whole(
    world: &World,
    client: &Client,
    ask: Ask,
    volumes: &BTreeMap<VolumeId, VolumeInfo>,
    needle: &Needle,
) -> Result<(), Lack> {
    let not_there = || Lack::Definite("its volume is not in the map".to_owned());
    let info = volumes.get(&needle.volume).ok_or_else(not_there)?;
    let whole = readable(world, info);
    if whole.is_empty() {
        return Err(Lack::ForNow("its volume has no member that can be read".to_owned()));
    }
    let data = needle.data();
    // What is the service's is the same for all replicas: each answers for its share of the needles.
    let asked = needle.key.0 as usize % whole.len();
    for (place, member) in whole.into_iter().enumerate() {
        let read = match ask {
            Ask::Services if place == asked => {
                client.read_at(std::slice::from_ref(&member.address), needle).await
            }
            Ask::Services | Ask::Stores => compare::read(world, member, needle).await,
        };
        match read {
            Ok(bytes) if bytes == data => {}
            Ok(_) => return Err(Lack::Definite(format!("{} has other bytes", member.address))),
            Err(failure) => {
                let VolumeInfo { epoch, state, .. } = info;
                let reason = format!("{}, {state:?} in epoch {epoch}: {failure}", member.address);
                return Err(if is_definite(&failure) {
                    Lack::Definite(reason)
                } else {
                    Lack::ForNow(reason)
                });
            }
        }
    }
    Ok(())
}

/// Has every volume repaired that lacks a copy. Which there were.
async fn repair_all(world: &World, client: &Client) -> BTreeSet<VolumeId> {
    let began = world.time.now();
    let mut before: BTreeMap<VolumeId, Held> = BTreeMap::new();
    loop {
        let lacking: Vec<VolumeId> = match map(client).await {
            Ok(volumes) => {
                let is_sealed = |info: &&VolumeInfo| info.state == VolumeState::Sealed;
                world.history.sealed.store(volumes.values().filter(is_sealed).count(), Ordering::Relaxed);
                // One that never was everywhere was never leased, and waits for its servers until all are there.
                let lacks = |info: &&VolumeInfo| {
                    info.state != VolumeState::Creating
                        && whole(world, info).len() < usize::from(world.copies)
                };
                let lacking: Vec<_> = volumes.values().filter(lacks).cloned().collect();
                for info in &lacking {
                    before.entry(info.id).or_insert_with(|| compare::held_by_members(world, info));
                }
                if lacking.is_empty() {
                    compare::copies_have_all(world, &volumes, &before);
                    return before.into_keys().collect();
                }
                lacking.into_iter().map(|info| info.id).collect()
            }
            Err(failure) => {
                world.trace.note(format_args!("judge: no map: {failure}"));
                Vec::new()
            }
        };
        if world.time.now() - began > REPAIRED {
            world.history.violation(format_args!("volumes {lacking:?} can't be repaired"));
            return before.into_keys().collect();
        }
        for volume in lacking {
            match client.master.repair_volume(volume, false).await {
                Ok(_) => drop(world.history.repairs.fetch_add(1, Ordering::Relaxed)),
                Err(failure) => {
                    world.trace.note(format_args!("judge: volume {volume} is not repaired: {failure}"));
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
