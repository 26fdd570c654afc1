//! What is to happen: scenarios, and what one seed makes of them.

use runtime::Rng;
use sim::rng::pick;

use super::node::{Kind, Settings};

/// One sort of thing that clients, operators and the world do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A few proposals at a leader.
    Propose,
    /// A read at any node.
    Read,
    /// Somebody is to lead.
    Transfer,
    /// A single step: a learner, a voter or nobody becomes something else.
    Step,
    /// A change through a joint state.
    Joint,
    /// A machine stops, and starts again later.
    Crash,
    /// Machines don't hear each other for a while.
    Cut,
    /// They do again.
    Mend,
    /// The next snapshots of a machine are not ready when they are asked for.
    LateSnapshot,
}

/// What a test is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How often each act is drawn, in proportion.
    pub(crate) acts: &'static [(Act, u64)],
    /// How many times each shape meets each combination of pre-vote and check of the quorum; see [`ROUND`].
    pub(crate) rounds: u64,
    /// The longest time between two acts.
    pub(crate) pause_max: u64,
    /// The largest part of the messages that can get lost; the same for those that come twice.
    pub(crate) loss_max: f64,
    /// Whether logs are kept short, so that who was away needs a snapshot.
    pub(crate) has_short_logs: bool,
    /// What must have happened in the runs of all seeds together.
    pub(crate) must_see: &'static [&'static str],
}

/// What one seed makes of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The first members, from id 1 on.
    pub(crate) members: &'static [Kind],
    /// Those who may join, from the next id on.
    pub(crate) spares: &'static [Kind],
    pub(crate) settings: Settings,
    /// The part of the messages that get lost, and that come twice.
    pub(crate) loss: f64,
    pub(crate) doubles: f64,
    /// The longest time that a message takes, a write, and the application: a tick is `TICK`.
    pub(crate) delay_max: u64,
    pub(crate) sync_max: u64,
    pub(crate) apply_max: u64,
    /// Entries that stay in a log.
    pub(crate) keep: u64,
}

/// The time between two ticks.
pub(crate) const TICK: u64 = 100;

/// The groups, by seed.
const SHAPES: [&[Kind]; 4] = [
    &[Kind::Ours, Kind::Ours, Kind::Theirs],
    &[Kind::Theirs, Kind::Theirs, Kind::Ours],
    &[Kind::Ours, Kind::Ours, Kind::Ours, Kind::Theirs, Kind::Theirs],
    &[Kind::Theirs, Kind::Theirs, Kind::Theirs, Kind::Ours, Kind::Ours],
];

/// One of each kind may join.
const SPARES: &[Kind] = &[Kind::Ours, Kind::Theirs];

/// Seeds after which every shape has had every combination of pre-vote and check of the quorum.
pub(crate) const ROUND: u64 = 16;

impl Scenario {
    /// Whether the members change.
    pub(crate) fn has_changes(&self) -> bool {
        self.acts.iter().any(|(act, _)| matches!(act, Act::Step | Act::Joint))
    }
}

impl Plan {
    /// Ticks that a group may take to come to rest when the faults are over.
    ///
    /// Without pre-vote who can't win still raises the term, and makes nodes of theirs wait anew with that; there may be
    /// only one who can win. How long that takes has no bound, but is ever less likely.
    pub(crate) fn calm_ticks_max(&self) -> u64 {
        if self.settings.pre_vote { 200 } else { 2000 }
    }

    pub(crate) fn draw(scenario: &Scenario, seed: u64, rng: &mut Rng) -> Plan {
        let settings = Settings {
            pre_vote: (seed / 4).is_multiple_of(2),
            check_quorum: (seed / 8).is_multiple_of(2),
            max_message_bytes: *pick(rng, &[60, 400, 1 << 20]),
            max_inflight: *pick(rng, &[2, 8, 256]),
            is_lazy: rng.chance(0.5),
        };
        Plan {
            members: SHAPES[(seed % 4) as usize],
            spares: if scenario.has_changes() { SPARES } else { &[] },
            settings,
            loss: scenario.loss_max * rng.f64(),
            doubles: scenario.loss_max * rng.f64(),
            delay_max: *pick(rng, &[20, 100, 400]),
            sync_max: *pick(rng, &[0, 50, 300]),
            apply_max: *pick(rng, &[0, 50, 300]),
            keep: if scenario.has_short_logs { 3 } else { 1000 },
        }
    }
}
