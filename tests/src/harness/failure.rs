//! What a failed test shows of the processes it started, and why it failed, as the last thing: whoever reads only the
//! end of a long output still sees it.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Once;

/// Lines of a log that are shown.
const LOG_LINES_SHOWN: usize = 25;
/// Characters of each of them.
const LOG_LINE_CHARS_SHOWN: usize = 400;

thread_local! {
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on it is remembered why a test panicked.
pub fn remember_why() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The first reason is the one; what drops afterwards may panic because of it.
            WHY.with_borrow_mut(|why| _ = why.get_or_insert_with(|| panic.to_string()));
            before(panic);
        }));
    });
}

/// While this thread panics: the ends of the logs of `processes` (their names and logs), and then why it does.
pub fn show<'a>(processes: impl IntoIterator<Item = (&'a str, &'a Path)>) {
    if !std::thread::panicking() {
        return;
    }
    for (name, log) in processes {
        println!("---- {name} ({}), its last lines:\n{}", log.display(), tail(log));
    }
    if let Some(why) = WHY.with_borrow(Clone::clone) {
        println!("---- the test failed: {why}");
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<String> = text
        .lines()
        .rev()
        .take(LOG_LINES_SHOWN)
        .map(|line| line.chars().take(LOG_LINE_CHARS_SHOWN).collect())
        .collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
