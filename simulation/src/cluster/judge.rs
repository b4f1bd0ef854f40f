//! What must hold once everything is healed.
//!
//! 1. Writing goes on soon.
//! 2. Every needle that was acknowledged is read with its bytes from *every* replica of its volume that the map calls whole,
//!    so no two of them hold different contents of it.
//! 3. Every volume that lacks a copy can be repaired, and the copy has them all too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use hay_client::master::{VolumeInfo, VolumeMember};
use hay_common::error::Failure;
use hay_common::ids::{NeedleKey, VolumeId};
use hay_common::model::VolumeState;

use super::clients::Client;
use super::history::Needle;
use super::{SERVERS, Stage, World};

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
    what_was_acknowledged_is_there(&world, &client, "after everything was healed").await;
    if repair_all(&world, &client).await {
        what_was_acknowledged_is_there(&world, &client, "after the repairs").await;
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
        if busy == 0 && alive == SERVERS {
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

async fn what_was_acknowledged_is_there(world: &World, client: &Client, when: &str) {
    let mut missing = world.history.acknowledged();
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
            .map(|needle| async { (*needle, is_whole(client, &volumes, needle).await) })
            .buffered(READS_AT_ONCE)
            .collect()
            .await;
        why = looked.iter().find_map(|(_, is)| is.as_ref().err().cloned()).unwrap_or_default();
        missing = looked.into_iter().filter(|(_, is)| is.is_err()).map(|(needle, _)| needle).collect();
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (count, first) = (missing.len(), missing.first());
    world.history.violation(format_args!("{when}: {count} needles, {first:?} among them: {why}"));
}

/// Whether every whole member of its volume gives the needle. One that is being completed need not.
async fn is_whole(
    client: &Client,
    volumes: &BTreeMap<VolumeId, VolumeInfo>,
    needle: &Needle,
) -> Result<(), String> {
    let info = volumes.get(&needle.volume).ok_or("its volume is not in the map")?;
    let whole: Vec<_> = info.members.iter().filter(|member| is_whole_member(member)).collect();
    if whole.is_empty() {
        return Err("its volume has no whole member".to_owned());
    }
    for member in whole {
        match client.read_at(std::slice::from_ref(&member.address), needle).await {
            Ok(bytes) if bytes == needle.data() => {}
            Ok(_) => return Err(format!("{} has other bytes", member.address)),
            Err(failure) => {
                let VolumeInfo { epoch, state, .. } = info;
                return Err(format!("{}, {state:?} in epoch {epoch}: {failure}", member.address));
            }
        }
    }
    Ok(())
}

fn is_whole_member(member: &VolumeMember) -> bool {
    !member.filling && !member.completing
}

/// Has every sealed volume repaired that lacks a copy. Whether there was any.
async fn repair_all(world: &World, client: &Client) -> bool {
    let began = world.time.now();
    let mut any = false;
    loop {
        let mut lacking = Vec::new();
        match map(client).await {
            Ok(volumes) => {
                let sealed: Vec<_> =
                    volumes.into_values().filter(|info| info.state == VolumeState::Sealed).collect();
                world.history.sealed.store(sealed.len(), Ordering::Relaxed);
                let lacks =
                    |info: &VolumeInfo| info.members.iter().filter(|m| is_whole_member(m)).count() < 2;
                lacking.extend(sealed.iter().filter(|info| lacks(info)).map(|info| info.id));
            }
            Err(failure) => world.trace.note(format_args!("judge: no map: {failure}")),
        }
        if lacking.is_empty() {
            return any;
        }
        any = true;
        if world.time.now() - began > REPAIRED {
            world.history.violation(format_args!("volumes {lacking:?} can't be repaired"));
            return any;
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
