//! What the process takes of the machine, read from /proc when somebody asks.

use std::fs;

use metrics::gauge;

/// Ticks a second in /proc/PID/stat: fixed in Linux' interface to user space.
const TICKS_PER_S: f64 = 100.0;

/// Sets the process gauges. Reads files: not for async threads.
pub fn observe() {
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (field, name) in
            [("VmRSS:", "process_resident_memory_bytes"), ("VmHWM:", "process_resident_memory_peak_bytes")]
        {
            if let Some(kib) = kib_of(&status, field) {
                gauge!(name).set(kib * 1024.0);
            }
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

/// User and system time; the name in parentheses may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

fn kib_of(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_understood() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(kib_of("Name:\thay\nVmHWM:\t  1234 kB\nVmRSS:\t 12 kB\n", "VmHWM:"), Some(1234.0));
        assert!(cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
        assert!(kib_of(&fs::read_to_string("/proc/self/status").unwrap(), "VmRSS:").unwrap() > 0.0);
    }
}
