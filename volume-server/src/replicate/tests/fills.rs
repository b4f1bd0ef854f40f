//! Volumes copied to other servers, and completed where they are.

use hay_client::volume::NeedleRange;

use super::super::Fill;
use super::*;

const SEALED: Epoch = Epoch(2);
const REPAIR: Epoch = Epoch(3);

impl World {
    fn fill_of(&self, sources: &[usize], members: &[usize]) -> Fill {
        let all = self.members();
        let pick = |of: &[usize]| of.iter().map(|n| all[*n].clone()).collect();
        Fill {
            volume: VOLUME,
            epoch: REPAIR,
            class: self.class,
            sources: pick(sources),
            members: pick(members),
        }
    }

    /// Fills a server, and waits until it says how it went.
    async fn fill(&self, n: usize, sources: &[usize], members: &[usize]) -> Result<(), String> {
        let core = self.core(n);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        while core.replication.fills.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        core.replication.fill(self.fill_of(sources, members), stopped);
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let info = core.replication.infos().into_iter().find(|info| info.id == VOLUME);
            match info {
                Some(info) if info.filling && info.read_only.is_some() => {
                    return Err(info.read_only.unwrap());
                }
                Some(info) if info.epoch >= REPAIR && !info.filling => {
                    assert_eq!(info.state, VolumeState::Sealed);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Sources answer only what a master has confirmed.
    async fn confirm_sources(&self, sources: &[usize]) {
        for n in sources {
            while self.core(*n).ready().is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            self.confirm(*n, REPAIR, VolumeState::Sealed, Part::Whole).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_gets_every_needle() {
    for (class, needles, len) in [(SizeClass::Small, 1500, 700), (SizeClass::Large, 5, (2 << 20) + 5)] {
        let mut world = World::spread(3, 2, class).await;
        for needle in 0..needles {
            world.append(needle, len).await.unwrap();
        }
        for n in 0..2 {
            world.seal(n, SEALED).await;
        }
        world.confirm_sources(&[0, 1]).await;
        world.holders = 3;
        world.stop(1);
        world.fill(2, &[1, 0], &[0, 2]).await.unwrap();
        for needle in 0..needles {
            assert!(world.holds(2, needle, len).await, "{needle}");
        }
        let info = world.core(2).store().infos().remove(0);
        assert_eq!((info.needles, info.epoch, info.state), (needles as u64, REPAIR, VolumeState::Sealed));
        // Said again when it is done: nothing comes twice.
        world.fill(2, &[0], &[0, 2]).await.unwrap();
        assert_eq!(world.core(2).store().infos().remove(0).size_bytes, info.size_bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_needles_is_completed_in_its_place() {
    let mut world = World::new(2, SizeClass::Small).await;
    for needle in 0..300 {
        world.append(needle, 500).await.unwrap();
    }
    // Server 1 loses all it has, its name apart; server 0 gets extras that were never acknowledged.
    world.links.set(0, 1, Fate::Cut);
    assert!(world.append(1000, 10).await.is_err());
    world.links.heal();
    world.halt(1).await;
    let dir = world.servers[1].dir.path().to_owned();
    for ending in ["vol", "state", "checkpoint"] {
        let _ = std::fs::remove_file(dir.join(format!("00000007.{ending}")));
    }
    let text = "haystore volumes 1\n";
    std::fs::write(dir.join("inventory"), format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes())))
        .unwrap();
    world.start(1).await;
    world.seal(0, SEALED).await;

    // The source is not confirmed: it may have been left behind itself.
    world.kill_and_start(0).await;
    let why = world.fill(1, &[0], &[0, 1]).await.unwrap_err();
    assert!(why.contains("not a sealed and confirmed replica"), "{why}");
    world.confirm_sources(&[0]).await;
    world.links.set(1, 0, Fate::Cut);
    world.fill(1, &[0], &[0, 1]).await.unwrap_err();
    world.links.heal();
    // Killed in the middle: what it has then vouches for nothing.
    world.kill_and_start(1).await;
    let state = world.core(1).store().state(VOLUME).unwrap();
    assert!(state.filling && state.sealed.is_none());
    world.confirm(1, REPAIR, VolumeState::Sealed, Part::Whole).await;
    let absent = NeedleRange { volume: VOLUME, key: NeedleKey(7), cookie: COOKIE, offset: 0, length: 500 };
    let failure = world.client.read_whole(&[address(1)], absent).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable, "a volume that is being filled calls nothing absent");
    world.fill(1, &[0], &[0, 1]).await.unwrap();
    for needle in (0..300).chain([1000]) {
        let len = if needle == 1000 { 10 } else { 500 };
        assert!(world.holds(1, needle, len).await, "{needle}");
    }
    world.kill_and_start(1).await;
    let state = world.core(1).store().state(VOLUME).unwrap();
    assert!(!state.filling && state.sealed.is_some() && state.epoch == REPAIR && !state.incomplete);
    assert!(world.holds(1, 299, 500).await);
    assert!(world.append_at(1, REPAIR, 5000, 1).await.is_err(), "sealed it stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_at_every_source_ends_a_fill_and_a_sound_source_mends_it() {
    let mut world = World::new(3, SizeClass::Small).await;
    for needle in 0..20 {
        world.append(needle, 3000).await.unwrap();
    }
    for n in 0..3 {
        world.seal(n, SEALED).await;
    }
    // Server 2 has lost everything; servers 0 and 1 are damaged in different places.
    for (n, needle) in [(0, 3u128), (1, 4)] {
        world.halt(n).await;
        let path = world.servers[n].dir.path().join("00000007.vol");
        let mut bytes = std::fs::read(&path).unwrap();
        let wanted = data(needle, 3000);
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        bytes[at + 100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        world.start(n).await;
    }
    world.stop(2);
    let fresh = tempfile::tempdir().unwrap();
    std::fs::copy(world.servers[2].dir.path().join("node"), fresh.path().join("node")).unwrap();
    let text = "haystore volumes 1\n";
    std::fs::write(
        fresh.path().join("inventory"),
        format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes())),
    )
    .unwrap();
    world.servers[2].dir = fresh;
    world.start(2).await;
    world.confirm_sources(&[0, 1]).await;
    let why = world.fill(2, &[0], &[0, 1, 2]).await.unwrap_err();
    assert!(why.contains("1 needles can't be read from any source"), "{why}");
    world.fill(2, &[0, 1], &[0, 1, 2]).await.unwrap();
    for needle in 0..20 {
        assert!(world.holds(2, needle, 3000).await, "{needle}");
    }
}
