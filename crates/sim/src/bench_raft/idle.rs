//! Many groups that do nothing: what a tick costs, and how much memory a peer takes.

use std::fs;

use runtime::{Clock, real::RealClock};
use serde::{Deserialize, Serialize};

use super::{ours::Ours, theirs::Theirs};

/// Ticks that are measured.
const TICKS: usize = 60;

/// Whose groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project's.
    Ours,
    /// raft-rs's.
    RaftRs,
}

/// What idle groups cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdleResult {
    /// Nanoseconds for each group (three peers) and tick, heartbeats every second tick.
    pub nanoseconds: f64,
    /// Bytes of memory of the process for each peer, from what the kernel says.
    pub bytes: f64,
}

/// Measures `groups` groups in this process, which should have done nothing before.
pub fn measure(kind: Kind, groups: usize) -> IdleResult {
    match kind {
        Kind::Ours => measure_with(groups, Ours::new, Ours::tick),
        Kind::RaftRs => measure_with(groups, || Theirs::new(true), Theirs::tick),
    }
}

fn measure_with<G>(groups: usize, new: impl Fn() -> G, tick: impl Fn(&mut G)) -> IdleResult {
    let before = resident_bytes();
    let mut all: Vec<G> = (0..groups).map(|_| new()).collect();
    // Every buffer gets its usual size.
    for _ in 0..10 {
        all.iter_mut().for_each(&tick);
    }
    let bytes = resident_bytes().saturating_sub(before) as f64 / (groups * 3) as f64;
    let clock = RealClock::new();
    for _ in 0..TICKS {
        all.iter_mut().for_each(&tick);
    }
    let passed = clock.monotonic().as_secs_f64();
    IdleResult { nanoseconds: passed * 1e9 / (groups * TICKS) as f64, bytes }
}

/// What the kernel says that the process has in memory; 0 where it does not say.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
