//! A second opinion: nodes of crate `raft` and nodes of raft-rs 0.7 form one group, and must agree.
//!
//! What only one implementation would do, and what both would do but mean differently, shows when each leads, follows
//! and elects the other. Time is virtual, and one seed decides everything: a seed that has failed is run again with
//! `RAFT_MIXED_SEED`, which prints its trace. `RAFT_MIXED_SEEDS` says how many seeds are run; the usual number takes
//! seconds.
//!
//! The world, the clients and the operators are in `mixed/`. An owner of theirs has duties that one of ours has not: to
//! say what became of each snapshot, to let nothing happen between a snapshot and its application, and to take the
//! leadership from who is no voter any more. They are done where they are due, with the reason beside them.
//!
//! # What is translated into what
//!
//! `from`, `to` and `term` are the same, if nothing else is said. Requests of theirs for reads have no term: they are
//! given that of who sends them. Both begin with a snapshot at an index above 0, as both ask for.
//!
//! | ours | theirs | what has to be known |
//! |---|---|---|
//! | `Append` | `MsgAppend` | equal |
//! | `AppendResponse`, accepted | `MsgAppendResponse` | equal; to a leader of an older term theirs accepts index 0 and ours rejects it, which means nothing but the newer term; without pre-vote and check of the quorum theirs says nothing: that is said for it |
//! | `AppendResponse`, rejected: `index`, hint's `index` and `term` | `reject`: `index`, `reject_hint`, `log_term` | equal: both look for the last place whose term is not above the one that was asked for |
//! | the hint `NEEDS_SNAPSHOT` | a hint at index 0 | their leader finds the beginning of its log compacted, and sends a snapshot |
//! | - | `request_snapshot` | an owner of theirs may want a snapshot that the log does not call for; none does here |
//! | `Vote`, `transfer` | `MsgRequestVote`, `context` | equal; a voter of theirs takes what is committed from a request that it refuses, ours from all; `priority` is 0 |
//! | `PreVote` | `MsgRequestPreVote` | equal: both ask in the term after their own |
//! | `VoteResponse`, `PreVoteResponse` | `MsgRequestVoteResponse`, `MsgRequestPreVoteResponse` | equal: granted in the term that was asked for, refused in the own one; to a candidate of an older term ours says that there is a newer one, theirs nothing: that is said for it |
//! | `Committed`, after a refusal | `commit` and `commit_term` of the refusal | one message of theirs is two of ours; ours says the last entry that the candidate may have, theirs the last one |
//! | `Heartbeat`, `round` | `MsgHeartbeat`, `context` | our round becomes bytes, their context a number (0 if there is none), and each comes back as it was |
//! | `HeartbeatResponse`, `round` | `MsgHeartbeatResponse`, `context` | as above; `commit` of theirs is dropped: ours takes it from answers to appends |
//! | `Snapshot` | `MsgSnapshot` | equal; members are sorted, theirs come out of hash sets |
//! | `TimeoutNow` | `MsgTimeoutNow` | equal |
//! | `TransferLeader`, `target` | `MsgTransferLeader`, `from` | theirs has the successor in the sender's place |
//! | `ReadIndex`, `id` | `MsgReadIndex`, the entry's data | who reads and its id become bytes, their context a number; theirs passes requests on |
//! | `ReadIndexResponse` | `MsgReadIndexResp` | as above; "I can't tell" has no counterpart: who asked is not answered |
//! | an entry of kind `ConfChange` | `EntryConfChangeV2`, `EntryConfChange` | the same change in two encodings; an empty one leaves a joint state, in theirs only with the transition `Auto` |
//! | `Node::report_unreachable`, `Node::report_snapshot` | `MsgUnreachable`, `MsgSnapStatus` | not sent: what an owner says to its own node |
//! | - | `MsgPropose` | not sent: proposals are made where the leader is |
//!
//! Not here: leases, for which all members must make the same promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "mixed/disk.rs"]
mod disk;
#[path = "mixed/judge.rs"]
mod judge;
#[path = "mixed/machine.rs"]
mod machine;
#[path = "mixed/network.rs"]
mod network;
#[path = "mixed/node.rs"]
mod node;
#[path = "mixed/people.rs"]
mod people;
#[path = "mixed/plan.rs"]
mod plan;
#[path = "mixed/translate.rs"]
mod translate;
#[path = "mixed/values.rs"]
mod values;
#[path = "mixed/world.rs"]
mod world;

use judge::Seen;
use plan::{Act, ROUND, Scenario, TICK};
use world::{Trace, World};

/// Ticks with faults.
const FAULT_TICKS: u64 = 300;

/// What must have happened in every scenario.
const ALWAYS: &[&str] = &[
    "Ours leads",
    "Theirs leads",
    "Ours commits",
    "Theirs commits",
    "Ours votes for Theirs",
    "Theirs votes for Ours",
];

/// Says which seed has failed, and how to see it again.
struct Running {
    name: &'static str,
    seed: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Running { name, seed } = self;
            eprintln!("failed: RAFT_MIXED_SEED={seed} cargo test -p sim --test mixed {name}");
        }
    }
}

/// A number of the environment, if it is set.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("it is a number"))
}

/// Runs a scenario with many seeds. What must be seen must have happened in them.
fn run(scenario: Scenario) {
    let name = scenario.name;
    if let Some(seed) = number("RAFT_MIXED_SEED") {
        let _running = Running { name, seed };
        let outcome = World::new(scenario, seed, Trace::Print).run(FAULT_TICKS);
        println!("{outcome:#?}");
        return;
    }
    let seeds = number("RAFT_MIXED_SEEDS").unwrap_or(scenario.rounds * ROUND);
    let (mut seen, mut calm_ticks) = (Seen::default(), 0);
    for seed in 0..seeds {
        let _running = Running { name, seed };
        let outcome = World::new(scenario, seed, Trace::Off).run(FAULT_TICKS);
        seen.add(&outcome.seen);
        calm_ticks = calm_ticks.max(outcome.calm_ticks);
    }
    println!("{name}: {seeds} seeds, at rest after at most {calm_ticks} ticks, {:#?}", seen.0);
    for what in ALWAYS.iter().chain(scenario.must_see) {
        assert!(0 < seen.count(what), "{what}: never, in {seeds} seeds");
    }
}

#[test]
fn they_elect_each_other() {
    run(Scenario {
        name: "they_elect_each_other",
        rounds: 2,
        acts: &[(Act::Propose, 20), (Act::Crash, 2), (Act::Cut, 2), (Act::Mend, 3)],
        pause_max: TICK,
        loss_max: 0.3,
        has_short_logs: false,
        must_see: &["Ours replaces entries of Theirs", "Theirs replaces entries of Ours"],
    });
}

#[test]
fn they_replicate_over_a_network_that_loses_doubles_and_reorders() {
    run(Scenario {
        name: "they_replicate_over_a_network_that_loses_doubles_and_reorders",
        rounds: 1,
        acts: &[(Act::Propose, 20), (Act::Transfer, 1)],
        pause_max: 5 * TICK,
        loss_max: 0.3,
        has_short_logs: false,
        must_see: &[],
    });
}

#[test]
fn they_give_each_other_snapshots() {
    run(Scenario {
        name: "they_give_each_other_snapshots",
        rounds: 2,
        acts: &[
            (Act::Propose, 30),
            (Act::Crash, 2),
            (Act::Cut, 2),
            (Act::Mend, 2),
            (Act::Transfer, 1),
            (Act::LateSnapshot, 1),
        ],
        pause_max: TICK,
        loss_max: 0.1,
        has_short_logs: true,
        must_see: &[
            "Ours gives a snapshot to Ours",
            "Ours gives a snapshot to Theirs",
            "Theirs gives a snapshot to Ours",
            "Theirs gives a snapshot to Theirs",
        ],
    });
}

#[test]
fn they_hand_the_leadership_to_each_other() {
    run(Scenario {
        name: "they_hand_the_leadership_to_each_other",
        rounds: 2,
        acts: &[(Act::Propose, 10), (Act::Transfer, 4), (Act::Crash, 1)],
        pause_max: TICK,
        loss_max: 0.2,
        has_short_logs: false,
        must_see: &["Ours hands over to Theirs", "Theirs hands over to Ours"],
    });
}

#[test]
fn they_change_the_members_one_at_a_time() {
    run(Scenario {
        name: "they_change_the_members_one_at_a_time",
        rounds: 2,
        acts: &[
            (Act::Propose, 10),
            (Act::Step, 10),
            (Act::Transfer, 1),
            (Act::Crash, 1),
            (Act::Cut, 1),
            (Act::Mend, 1),
        ],
        pause_max: TICK,
        loss_max: 0.1,
        has_short_logs: true,
        must_see: &[
            "Ours changes the members",
            "Theirs changes the members",
            "Ours proposes a step, AddLearner",
            "Ours proposes a step, AddVoter",
            "Ours proposes a step, Remove",
            "Theirs proposes a step, AddLearner",
            "Theirs proposes a step, AddVoter",
            "Theirs proposes a step, Remove",
            "Ours loses its vote while it leads",
            "Theirs loses its vote while it leads",
        ],
    });
}

#[test]
fn they_change_the_members_through_joint_states() {
    run(Scenario {
        name: "they_change_the_members_through_joint_states",
        rounds: 2,
        acts: &[
            (Act::Propose, 10),
            (Act::Joint, 10),
            (Act::Transfer, 1),
            (Act::Crash, 1),
            (Act::Cut, 1),
            (Act::Mend, 1),
        ],
        pause_max: TICK,
        loss_max: 0.1,
        has_short_logs: true,
        must_see: &[
            "Ours changes the members",
            "Theirs changes the members",
            "Ours is in a joint state",
            "Theirs is in a joint state",
            "Ours proposes a joint change, JointImplicit",
            "Ours proposes a joint change, JointExplicit",
            "Theirs proposes a joint change, JointImplicit",
            "Theirs proposes a joint change, JointExplicit",
            "Ours proposes to leave",
            "Theirs proposes to leave",
            "Ours leaves a joint state by itself",
            "Theirs leaves a joint state by itself",
        ],
    });
}

#[test]
fn they_answer_each_others_reads() {
    run(Scenario {
        name: "they_answer_each_others_reads",
        rounds: 2,
        acts: &[
            (Act::Propose, 10),
            (Act::Read, 12),
            (Act::Transfer, 1),
            (Act::Crash, 1),
            (Act::Cut, 1),
            (Act::Mend, 1),
        ],
        pause_max: TICK,
        loss_max: 0.1,
        has_short_logs: false,
        must_see: &[
            "Ours answers a read of Ours, itself",
            "Theirs answers a read of Theirs, itself",
            "Ours answers a read of Theirs, a follower",
            "Theirs answers a read of Ours, a follower",
        ],
    });
}

const EVERYTHING: Scenario = Scenario {
    name: "they_agree_when_everything_happens",
    rounds: 2,
    acts: &[
        (Act::Propose, 24),
        (Act::Read, 8),
        (Act::Transfer, 2),
        (Act::Step, 4),
        (Act::Joint, 4),
        (Act::Crash, 2),
        (Act::Cut, 1),
        (Act::Mend, 1),
        (Act::LateSnapshot, 1),
    ],
    pause_max: TICK,
    loss_max: 0.2,
    has_short_logs: true,
    must_see: &[
        "Ours gives a snapshot to Theirs",
        "Theirs gives a snapshot to Ours",
        "Ours changes the members",
        "Theirs changes the members",
    ],
};

#[test]
fn they_agree_when_everything_happens() {
    run(EVERYTHING);
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..4 {
        let run = || World::new(EVERYTHING, seed, Trace::Hash).run(FAULT_TICKS);
        assert_eq!(run(), run(), "seed {seed}");
    }
}
