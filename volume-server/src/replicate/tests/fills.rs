//! Volumes copied to other servers, and completed where they are.

use hay_client::volume::NeedleRange;

use super::super::Fill;
use super::*;

const SEALED: Epoch = Epoch(2);
const REPAIR: Epoch = Epoch(3);

impl World {
    fn fill_of(&self, epoch: Epoch, sources: &[usize], members: &[usize]) -> Fill {
        let all = self.members();
        let pick = |of: &[usize]| of.iter().map(|n| all[*n].clone()).collect();
        Fill { volume: VOLUME, epoch, class: self.class, sources: pick(sources), members: pick(members) }
    }

    /// Fills a server, and waits until it says how it went.
    async fn fill(&self, n: usize, sources: &[usize], members: &[usize]) -> Result<(), String> {
        self.fill_in(REPAIR, n, sources, members).await
    }

    async fn fill_in(
        &self,
        epoch: Epoch,
        n: usize,
        sources: &[usize],
        members: &[usize],
    ) -> Result<(), String> {
        let core = self.core(n);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let is_over = || core.replication.fills.available_permits() > 0;
        while !is_over() {
            tokio::task::yield_now().await;
        }
        core.replication.fill(self.fill_of(epoch, sources, members), stopped);
        while !is_over() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let info = self.info(n);
        if info.filling {
            return Err(info.fill_problem.unwrap());
        }
        assert_eq!((info.state, info.epoch >= epoch), (VolumeState::Sealed, true), "{info:?}");
        Ok(())
    }

    fn info(&self, n: usize) -> crate::store::VolumeInfo {
        let infos = self.core(n).replication.infos();
        infos.into_iter().find(|info| info.id == VOLUME).unwrap()
    }

    /// Damages a needle on a server's disk. Found at the start, because no checkpoint covers it.
    async fn damage(&mut self, n: usize, needle: u128, len: usize) {
        self.halt(n).await;
        let path = self.servers[n].dir.path().join("00000007.vol");
        let mut bytes = std::fs::read(&path).unwrap();
        let wanted = data(needle, len);
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        bytes[at + len / 2] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_file(path.with_extension("checkpoint")).unwrap();
        self.start(n).await;
        assert!(self.info(n).read_only.is_some());
    }

    /// Three sealed replicas with 20 needles each.
    async fn sealed() -> Self {
        let world = Self::new(3, SizeClass::Small).await;
        for needle in 0..20 {
            world.append(needle, 3000).await.unwrap();
        }
        for n in 0..3 {
            world.seal(n, SEALED).await;
        }
        world
    }

    async fn holds_all(&self, n: usize) -> bool {
        for needle in 0..20 {
            if !self.holds(n, needle, 3000).await {
                return false;
            }
        }
        true
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
        // Said again when it is done: it stays what it is, whether its source is still there or not.
        let incarnation = world.core(2).store().state(VOLUME).unwrap();
        world.stop(0);
        world.fill(2, &[0], &[0, 2]).await.unwrap();
        assert_eq!(world.core(2).store().infos().remove(0).size_bytes, info.size_bytes);
        assert_eq!(world.core(2).store().state(VOLUME).unwrap(), incarnation);
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
    world.confirm(1, REPAIR, VolumeState::Sealed, Part::Filling).await;
    let absent = NeedleRange { volume: VOLUME, key: NeedleKey(7), cookie: COOKIE, offset: 0, length: 500 };
    let failure = world.client.read_whole(&[address(1)], absent).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable, "a volume that is being filled calls nothing absent");
    // What a master has said before the fill began gives nothing up.
    world.confirm(1, SEALED, VolumeState::Sealed, Part::Whole).await;
    assert!(world.core(1).store().state(VOLUME).unwrap().filling);
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
async fn a_needle_that_no_source_can_give_is_named_and_the_others_are_copied() {
    let mut world = World::sealed().await;
    // Server 2 has lost everything; servers 0 and 1 are damaged in different places.
    world.damage(0, 3, 3000).await;
    world.damage(1, 4, 3000).await;
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
    // The other source may have what the first can't give: it is waited for.
    world.links.set(2, 1, Fate::Cut);
    let why = world.fill(2, &[0, 1], &[0, 1, 2]).await.unwrap_err();
    assert!(why.contains("not all of its sources"), "{why}");
    assert_eq!(world.info(2).fill_failures, 0, "no other server would do better");
    world.links.heal();
    // For it is gone for good.
    world.fill(2, &[0], &[0, 1, 2]).await.unwrap();
    let info = world.info(2);
    let why = info.fill_problem.unwrap();
    assert!(why.starts_with("1 needles can't be read from any source, the first: 0000"), "{why}");
    assert_eq!((info.needles, info.incomplete, info.read_only), (19, true, None));
    for needle in (0..20).filter(|needle| *needle != 3) {
        assert!(world.holds(2, needle, 3000).await, "{needle}");
    }
    // Asked for again with a source that has it.
    world.fill_in(Epoch(4), 2, &[0, 1], &[0, 1, 2]).await.unwrap();
    assert!(world.holds_all(2).await);
    assert_eq!((world.info(2).incomplete, world.info(2).fill_problem), (false, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_can_not_be_written_to_are_written_anew_from_each_other() {
    let mut world = World::sealed().await;
    world.damage(0, 3, 3000).await;
    world.damage(1, 4, 3000).await;
    world.confirm_sources(&[1]).await;
    world.confirm(0, REPAIR, VolumeState::Sealed, Part::Filling).await;
    let before = world.core(0).store().state(VOLUME).unwrap();
    assert!(before.read_only.is_some());
    // While that goes on, and when it breaks off, the old file is what is read.
    world.links.set(0, 1, Fate::Cut);
    let why = world.fill(0, &[1], &[0, 1]).await.unwrap_err();
    assert!(why.contains("not all of its sources"), "{why}");
    assert!(world.info(0).filling && world.info(0).read_only.is_some());
    let held = NeedleRange { volume: VOLUME, key: NeedleKey(7), cookie: COOKIE, offset: 0, length: 3000 };
    assert_eq!(world.client.read_whole(&[address(0)], held).await.unwrap(), data(7, 3000));
    world.links.heal();
    world.kill_and_start(0).await;
    assert!(world.info(0).read_only.is_some() && !world.info(0).filling, "begun again from nothing");
    world.fill(0, &[1], &[0, 1]).await.unwrap();
    assert!(world.holds_all(0).await);
    // And now the other one from the first.
    world.confirm(0, REPAIR, VolumeState::Sealed, Part::Whole).await;
    world.fill_in(Epoch(4), 1, &[0], &[0, 1]).await.unwrap();
    for n in 0..2 {
        for _ in 0..2 {
            assert!(world.holds_all(n).await);
            let state = world.core(n).store().state(VOLUME).unwrap();
            assert!(state.read_only.is_none() && !state.incomplete && state.sealed.is_some(), "{state:?}");
            assert_ne!(state.incarnation, before.incarnation);
            let names = std::fs::read_dir(world.servers[n].dir.path()).unwrap();
            let names: Vec<String> =
                names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
            assert!(
                !names.iter().any(|name| name.contains("anew") || name.contains("replaced")),
                "{names:?}"
            );
            world.kill_and_start(n).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_copy_is_written_anew_from_itself_and_the_old_file_kept_where_it_lacks_something() {
    let mut world = World::sealed().await;
    world.damage(0, 3, 3000).await;
    world.fill(0, &[], &[0]).await.unwrap();
    let info = world.info(0);
    assert_eq!((info.needles, info.incomplete, info.read_only), (19, true, None));
    assert!(info.fill_problem.unwrap().starts_with("1 needles"));
    let names = std::fs::read_dir(world.servers[0].dir.path()).unwrap();
    let kept = names.filter(|name| {
        name.as_ref().unwrap().file_name().to_str().unwrap().starts_with("00000007.replaced-")
    });
    assert_eq!(kept.count(), 1);
    // A volume that can't even be opened: what others have.
    world.halt(1).await;
    let path = world.servers[1].dir.path().join("00000007.state");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    world.start(1).await;
    assert_eq!(world.core(1).store().broken().len(), 1);
    world.confirm_sources(&[2]).await;
    world.fill(1, &[2], &[1, 2]).await.unwrap();
    assert!(world.holds_all(1).await);
    assert_eq!(world.core(1).store().broken().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_is_given_up_leaves_the_replica_that_was_there() {
    let mut world = World::sealed().await;
    world.damage(1, 4, 3000).await;
    // One is being completed, the other written anew; their source dies.
    for n in 0..2 {
        world.confirm(n, REPAIR, VolumeState::Sealed, Part::Filling).await;
        world.links.set(n, 2, Fate::Cut);
        world.fill(n, &[2], &[0, 1, 2]).await.unwrap_err();
        assert!(world.info(n).filling);
    }
    world.stop(2);
    world.confirm(0, REPAIR, VolumeState::Sealed, Part::Whole).await;
    let state = world.core(0).store().state(VOLUME).unwrap();
    assert!(!state.filling && state.sealed.is_some() && state.incomplete, "{state:?}");
    world.confirm(1, REPAIR, VolumeState::Sealed, Part::Whole).await;
    assert!(!world.info(1).filling && world.info(1).read_only.is_some());
    assert_eq!((world.info(0).fill_problem, world.info(1).fill_problem), (None, None));
    assert!(world.holds_all(0).await);
    // They are what there is to copy from.
    let fresh = tempfile::tempdir().unwrap();
    world.servers[2].dir = fresh;
    let core = start(2, world.servers[2].dir.path(), &world.links, 0).await;
    world.servers[2].node = core.node();
    world.links.place(2, Some(core));
    world.links.heal();
    world.confirm_sources(&[0, 1]).await;
    world.fill(2, &[0, 1], &[0, 1, 2]).await.unwrap();
    assert!(world.holds_all(2).await);
}
