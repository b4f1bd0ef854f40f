//! What a leading master does on its own: looks at state and reports whenever either changes, and acts.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hay_common::limits::{HEARTBEAT_EVERY, HEARTBEAT_GONE};

use crate::core::MasterCore;
use crate::plan::decide;
use crate::state::{Command, Outcome};

/// After a change that was refused or failed, so that a stubborn fault does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until the master closes. The one task that decides: no two plans meet.
pub(crate) async fn run(core: Arc<MasterCore>) {
    let mut closing = core.closing.subscribe();
    let mut news = core.news.subscribe();
    let mut leading = core.group.leading();
    // A leadership that is there already has begun with the master itself; only its configuration is not recorded yet.
    let mut led = *leading.borrow_and_update();
    let mut configured = false;
    loop {
        let term = *leading.borrow_and_update();
        if term != led {
            led = term;
            configured = false;
            if term.is_some() {
                let now = core.clock.monotonic();
                let version = core.shared.state.read().version;
                {
                    let mut live = core.live.lock();
                    live.begin(now);
                    // Who reports hears then what the map says; so nobody has missed anything.
                    live.tell(version);
                }
            }
        }
        if term.is_some() && !configured {
            match core.configure().await {
                Ok(()) => configured = true,
                Err(error) => {
                    tracing::warn!(%error, "the configuration could not be recorded; it is tried again")
                }
            }
        }
        news.mark_unchanged();
        if term.is_some() {
            act(&core).await;
        }
        let before = core.clock.monotonic();
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            _ = news.changed() => {}
            changed = leading.changed() => if changed.is_err() { return },
            // Time alone changes plans too: a command that was not followed, a server that fell silent.
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
        }
        let now = core.clock.monotonic();
        if now.saturating_sub(before) > HEARTBEAT_GONE {
            core.live.lock().was_held_up(now);
        }
    }
}

/// Decides and acts until there is nothing left to propose.
async fn act(core: &MasterCore) {
    loop {
        let (plan, version) = {
            let (state, live) = (core.shared.state.read(), core.live.lock());
            (decide(&core.view(&state, &live)), state.version)
        };
        {
            let now = core.clock.monotonic();
            let mut live = core.live.lock();
            plan.down.into_iter().for_each(|(node, down)| live.send(node, down, now));
            live.tell(version);
        }
        if plan.commands.is_empty() {
            return;
        }
        // Together: they share a log entry.
        let mut failed = false;
        for (command, outcome) in
            plan.commands.iter().zip(join_all(plan.commands.iter().map(|c| core.change(c))).await)
        {
            match outcome {
                Ok(outcome) => {
                    if let (Command::Create(volumes), Outcome::Created(ids)) = (command, &outcome) {
                        let now = core.clock.monotonic();
                        let mut live = core.live.lock();
                        ids.iter().zip(volumes).for_each(|(id, volume)| live.made(*id, volume, now));
                    }
                    tracing::info!(?command, ?outcome, "changed the volume map");
                }
                Err(error) => {
                    failed = true;
                    tracing::warn!(?command, %error, "a change of the volume map failed");
                }
            }
        }
        core.tell();
        if failed {
            tokio::time::sleep(PAUSE).await;
            return;
        }
    }
}
