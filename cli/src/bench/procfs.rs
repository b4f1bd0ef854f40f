//! What the kernel says of CPU time: that of a process, and that which the host took away.

/// A reading of the first line of `/proc/stat`, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineTime {
    total: u64,
    steal: u64,
}

impl MachineTime {
    /// Reads it; nothing where there is no such file.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what follows (guest) is in user already.
        Some(Self { total: ticks.iter().take(8).sum(), steal: *ticks.get(7)? })
    }

    /// The share of time since `before` that the host took away, in percent.
    pub fn steal_percent_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        if total == 0 {
            return 0.0;
        }
        100.0 * self.steal.saturating_sub(before.steal) as f64 / total as f64
    }
}

/// CPU seconds that a process has used, user and system, all threads.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let ticks = parse_cpu_ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    // The name stands in brackets and may hold brackets and spaces; the state is the first field behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_all_time() {
        let before = MachineTime::parse("cpu  100 0 100 700 50 0 0 50 0 0\ncpu0 1 2 3\n").unwrap();
        let after = MachineTime::parse("cpu  150 0 130 750 50 0 0 120 0 0\n").unwrap();
        assert_eq!(before, MachineTime { total: 1000, steal: 50 });
        assert!((after.steal_percent_since(before) - 35.0).abs() < 1e-9);
        assert!(after.steal_percent_since(after).abs() < 1e-9);
        assert_eq!(MachineTime::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert!(cpu_seconds(std::process::id()).is_some());
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}
