//! What kind of a day it is.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{FIRST_SERVER, Place, World};

/// What kind of a day it is.
pub struct Mood {
    /// Nothing fails but that servers and writers are cut off from the masters.
    pub is_only_cut_off: bool,
    /// The greatest time between two faults, in ms.
    pub pause_ms: u64,
    /// Who is killed.
    pub mortal: std::ops::Range<Place>,
    /// Of the faults that may be either, so many in a hundred are of machines, the others of links.
    pub kills_percent: u32,
    /// Disks of servers become full.
    pub fills_up: bool,
    /// A disk is lost.
    pub wipes: bool,
}

impl Mood {
    pub fn new(rng: &mut StdRng, world: &World) -> Self {
        let (all, masters, servers) = (0..world.mortal(), 0..FIRST_SERVER, FIRST_SERVER..world.mortal());
        Self {
            is_only_cut_off: rng.random_bool(0.25),
            pause_ms: [1_000, 3_000, 6_000][rng.random_range(0..3)],
            mortal: [all.clone(), all, masters, servers][rng.random_range(0..4)].clone(),
            kills_percent: [10, 40, 70][rng.random_range(0..3)],
            fills_up: rng.random_bool(0.25),
            wipes: rng.random_bool(0.25),
        }
    }
}
