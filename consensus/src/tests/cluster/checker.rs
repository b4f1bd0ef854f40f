//! Whether a history of appends and reads of one log is linearizable. Commands are unique, so the order is known from the
//! log itself, and what remains is to compare it with the order in which things were seen to happen.

/// Something a client did; times in any unit that grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) began: u64,
    /// `None`: whether it happened is not known.
    pub(super) ended: Option<u64>,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Appended the command, and was told its index.
    Append(String, Option<usize>),
    /// Was told that the command was not taken, for certain.
    Refused(String),
    /// Read so many commands.
    Read(usize),
}

/// The first contradiction.
pub(super) fn check(log: &[String], history: &[Seen]) -> Result<(), String> {
    let mut at = std::collections::HashMap::new();
    for (index, command) in log.iter().enumerate() {
        if let Some(before) = at.insert(command, index) {
            return Err(format!("{command} was applied twice, at {before} and {index}"));
        }
    }
    // Each event takes place between `began` and `ended`; what it must not precede is what ended before it began.
    let mut events = Vec::new();
    for seen in history {
        let (lowest, highest) = match &seen.what {
            What::Append(command, told) => match (at.get(command), told) {
                (Some(index), Some(told)) if index != told => {
                    return Err(format!("{command} is at {index}, its client was told {told}"));
                }
                (None, Some(_)) => return Err(format!("{command} was acknowledged and is lost")),
                (None, None) => continue,
                // An append at i makes the log i + 1 long.
                (Some(index), _) => (index + 1, index + 1),
            },
            What::Refused(command) => match at.get(command) {
                Some(index) => return Err(format!("{command} was refused, and is at {index}")),
                None => continue,
            },
            What::Read(length) if *length > log.len() => return Err(format!("{seen:?} saw what is gone")),
            What::Read(length) => (*length, *length),
        };
        events.push((seen, lowest, highest));
    }
    for (a, _, after_a) in &events {
        let Some(ended) = a.ended else { continue };
        for (b, before_b, _) in &events {
            let strictly = matches!(b.what, What::Append(..)) as usize;
            if ended < b.began && *before_b < after_a + strictly {
                return Err(format!("{b:?} came after {a:?} and does not see it"));
            }
        }
    }
    Ok(())
}

mod tests {
    use super::*;

    fn log() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn append(command: &str, told: Option<usize>, began: u64, ended: Option<u64>) -> Seen {
        Seen { began, ended, what: What::Append(command.to_owned(), told) }
    }

    fn read(length: usize, began: u64, ended: u64) -> Seen {
        Seen { began, ended: Some(ended), what: What::Read(length) }
    }

    #[test]
    fn a_good_history_passes() {
        let history = [
            append("a", Some(0), 0, Some(10)),
            append("b", None, 1, None),
            read(1, 5, 20),
            read(2, 5, 20),
            append("c", Some(2), 15, Some(30)),
            append("never", None, 2, None),
            read(3, 31, 32),
        ];
        check(&log(), &history).unwrap();
    }

    #[test]
    fn stale_reads_lost_writes_and_double_applies_are_caught() {
        let stale = [append("a", Some(0), 0, Some(1)), append("b", Some(1), 2, Some(3)), read(1, 4, 5)];
        assert!(check(&log(), &stale).is_err());
        let lost = [append("d", Some(3), 0, Some(1))];
        assert!(check(&log(), &lost).is_err());
        let twice = ["a", "b", "a"].map(str::to_owned);
        assert!(check(&twice, &[]).is_err());
        let back = [read(2, 0, 1), read(1, 2, 3)];
        assert!(check(&log(), &back).is_err());
        let order = [append("b", Some(1), 0, Some(1)), append("a", Some(0), 2, Some(3))];
        assert!(check(&log(), &order).is_err());
        let future = [read(3, 0, 1), append("c", Some(2), 2, Some(3))];
        assert!(check(&log(), &future).is_err());
        let refused = Seen { began: 0, ended: Some(1), what: What::Refused("a".to_owned()) };
        assert!(check(&log(), &[refused]).is_err());
        let told = [append("a", Some(1), 0, Some(1))];
        assert!(check(&log(), &told).is_err());
    }
}
