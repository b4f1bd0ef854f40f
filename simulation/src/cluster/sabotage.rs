//! Rules broken on purpose: a simulation that does not find these finds nothing.

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A fenced replica, which has sealed the volume or is in a later epoch, says that it has stored what it has refused.
    Yielding,
    /// A replica says at once that it has stored needles, and stores them only then: if nothing comes in between.
    Hasty,
    /// The disks of the volume servers say that they have synced, and have not.
    LyingServers,
    /// The disks of the masters do.
    LyingMasters,
}

impl Sabotage {
    pub const ALL: [(&str, Self); 4] = [
        ("yielding", Self::Yielding),
        ("hasty", Self::Hasty),
        ("lying-servers", Self::LyingServers),
        ("lying-masters", Self::LyingMasters),
    ];

    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|(known, _)| *known == name).expect("a sabotage of that name").1
    }
}
