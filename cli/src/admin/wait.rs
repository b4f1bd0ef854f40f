//! `hay wait`.

use std::path::Path;
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::random::SharedRandom;

use crate::api::{ApiError, Client};
use crate::config::{self, Sources, Target};
use crate::flags::WaitArgs;
use crate::output::Output;
use crate::stop::{Exit, Stop};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until the server, or each of several, can do its work. Its credentials may still have to be written.
pub async fn wait(
    args: WaitArgs,
    sources: Sources,
    random: SharedRandom,
    out: Output,
    clock: SharedClock,
) -> Result<Exit, Stop> {
    let started = clock.monotonic();
    loop {
        let stop = match look(&sources, &random).await {
            Ok(server) => {
                let seconds = (clock.monotonic() - started).as_secs_f64();
                if out.json() {
                    out.value(&serde_json::json!({ "ready": true, "server": server, "seconds": seconds }))?;
                } else {
                    out.line(format_args!("{server} is ready"))?;
                }
                return Ok(Exit::Ok);
            }
            Err(Look::Never(stop)) => return Err(stop),
            Err(Look::NotYet(stop)) => stop,
        };
        if let Some(pid) = args.pid.filter(|pid| !is_running(*pid)) {
            return Err(Stop { exit: Exit::Unreachable, ..stop }.about(&format!("process {pid} has ended")));
        }
        if clock.monotonic() - started >= args.timeout {
            return Err(stop.about(&format!("not ready after {:.0?}", args.timeout)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

enum Look {
    NotYet(Stop),
    Never(Stop),
}

async fn look(sources: &Sources, random: &SharedRandom) -> Result<String, Look> {
    let target = match config::resolve(sources, Path::new(".")) {
        Ok(target) => target,
        Err(error) if error.may_appear() => {
            return Err(Look::NotYet(Stop { exit: Exit::Unreachable, ..error.into() }));
        }
        Err(error) => return Err(Look::Never(error.into())),
    };
    for server in &target.servers {
        let one = Target { servers: vec![server.clone()], ..target.clone() };
        let client = Client::new(one, random.clone()).map_err(|error| Look::Never(error.into()))?;
        match client.ready().await {
            Ok(()) => {}
            // Something else listens there.
            Err(error @ ApiError::Refused { status: 404, .. }) => return Err(Look::Never(error.into())),
            Err(error) => return Err(Look::NotYet(Stop { exit: Exit::Unreachable, ..error.into() })),
        }
    }
    Ok(target.servers.join(", "))
}

/// Whether a process is there and not only waiting to be collected by its parent.
fn is_running(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state stands behind the name, which may hold anything, brackets too.
        Ok(stat) => !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::clock::SystemClock;
    use hay_common::random::SeededRandom;

    #[test]
    fn a_process_that_is_gone_or_unburied_does_not_run() {
        assert!(is_running(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while is_running(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_running(pid));
    }

    #[tokio::test]
    async fn it_gives_up_when_the_process_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let args = WaitArgs { timeout: Duration::from_secs(600), pid: Some(pid) };
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources { credentials: Some(dir.path().join("none")), ..Sources::default() };
        let stop = wait(args, sources, SeededRandom::shared(1), Output::new(false), SystemClock::shared())
            .await
            .unwrap_err();
        assert_eq!(stop.exit, Exit::Unreachable);
        assert!(stop.message.contains("has ended"), "{}", stop.message);
    }
}
