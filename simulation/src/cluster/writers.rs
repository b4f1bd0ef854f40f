//! Who writes and reads all the time, whatever happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::NeedleKey;
use hay_common::random::Random;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::Client;
use super::history::Needle;
use super::{Stage, World};

/// Contents on their way at once, from one writer.
const TASKS: usize = 3;

/// The process of writer `n`.
pub async fn writer(world: Arc<World>, n: usize) -> turmoil::Result {
    let client = Arc::new(Client::start(&world, &world.writers[n]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(write(world.clone(), client.clone()));
    }
    tasks.spawn(read(world.clone(), client.clone()));
    tasks.spawn(repair(world.clone(), client));
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

fn rng(random: &dyn Random) -> StdRng {
    StdRng::seed_from_u64(random.u64())
}

async fn pause(rng: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(ms))).await;
}

/// Mostly small, some on the other side of each border.
pub fn length(rng: &mut StdRng) -> u32 {
    match rng.random_range(0..1_000) {
        0..840 => rng.random_range(1..3_000),
        840..985 => rng.random_range(3_000..60_000),
        985..996 => rng.random_range(257 << 10..400 << 10),
        _ => rng.random_range(1 << 20..3 << 19),
    }
}

async fn write(world: Arc<World>, client: Arc<Client>) {
    let mut rng = rng(client.random.as_ref());
    while world.stage() <= Stage::Healed {
        let (key, length) = (NeedleKey(rng.random()), length(&mut rng));
        let at_work = world.history.at_work();
        match client.store(key, length).await {
            Ok((needle, epoch)) => world.history.acknowledge(needle, epoch, &client.name),
            Err(failure) => {
                world.trace.note(format_args!("{}: {:x} is not stored: {failure}", client.name, key.0));
            }
        }
        drop(at_work);
        let is_slow = world.stage() == Stage::Healed;
        pause(&mut rng, if is_slow { 500..2_000 } else { 20..600 }).await;
    }
}

/// What was acknowledged is never read otherwise than it was written, and nobody ever says that it is not there.
async fn read(world: Arc<World>, client: Arc<Client>) {
    let mut rng = rng(client.random.as_ref());
    while world.stage() <= Stage::Healed {
        pause(&mut rng, 50..500).await;
        let Some(needle) = world.history.any(&mut rng) else { continue };
        if rng.random_bool(0.5) {
            see(&world, &client, "a replica", &needle, client.read(&needle).await);
            continue;
        }
        // Each replica alone: with several the first good answer hides what the others say.
        let Ok(addresses) = client.master.locate(needle.volume).await else { continue };
        for address in addresses.all() {
            let read = client.read_at(std::slice::from_ref(address), &needle).await;
            if !see(&world, &client, address, &needle, read) {
                client.master.forget(needle.volume);
            }
        }
    }
}

/// Whether a read gave what was written. What else it may have given is that whoever has it can't be asked now.
fn see(world: &World, client: &Client, replica: &str, needle: &Needle, read: Result<Bytes, Failure>) -> bool {
    let name = &client.name;
    match read {
        Ok(bytes) if bytes == needle.data() => {
            world.history.read();
            return true;
        }
        Ok(_) => {
            world.history.violation(format_args!("{name} read other bytes of {needle:?} from {replica}"));
        }
        Err(failure) if is_definite(&failure) => {
            world.history.violation(format_args!("{name} read {needle:?} from {replica}: {failure}"));
        }
        // Those who have it may all be away.
        Err(_) => {}
    }
    false
}

/// Whether it says that a needle is not there, or not whole.
pub fn is_definite(failure: &Failure) -> bool {
    matches!(failure.code, ErrorCode::NotFound | ErrorCode::Corrupt)
}

/// An operator who has volumes repaired while everything fails.
async fn repair(world: Arc<World>, client: Arc<Client>) {
    let mut rng = rng(client.random.as_ref());
    while world.stage() == Stage::Faults {
        pause(&mut rng, 1_000..6_000).await;
        if let Some(needle) = world.history.any(&mut rng)
            && client.master.repair_volume(needle.volume, false).await.is_ok()
        {
            world.trace.note(format_args!("{}: volume {} is to be repaired", client.name, needle.volume));
            world.history.repairs.fetch_add(1, Ordering::Relaxed);
        }
    }
}
