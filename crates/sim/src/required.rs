//! What a run over many seeds must have seen. A simulator that never gets there proves nothing about there.

/// What a run over so many seeds must have seen.
#[derive(Clone, Copy, Debug)]
pub struct Required {
    /// With fewer seeds nothing of this is required.
    pub from_seeds: u64,
    /// Names of rare events that must have happened.
    pub marks: &'static [&'static str],
    /// Names of counters that must not be 0.
    pub counts: &'static [&'static str],
}

/// Rare events of Raft groups, by their names in the code's `sometimes!`.
pub const REQUIRED: &[&str] = &[
    "raft: a conflict is truncated",
    "raft: a follower gets a snapshot",
    "raft: a joint state begins",
    "raft: a leader is elected",
    "raft: a leader steps down because it hears from no quorum",
    "raft: a leader steps down because its disk stands still",
    "raft: a proposal is refused because too much is under way",
    "raft: a read is answered from the lease",
    "raft: a read is given up with the leadership",
    "raft: a read is refused before the first commit of a term",
    "raft: a removed leader leaves",
    "raft: a snapshot replaces a log",
    "raft: a snapshot says only that entries are committed",
    "raft: a transfer begins",
    "raft: a transfer is abandoned",
    "raft: a vote is refused because of the log",
    "raft: a vote is refused because the leader is alive",
    "raft: a write under way is replaced",
    "raft: an append is rejected",
    "raft: an append that was sent ahead is rejected",
    "raft: an election is lost",
    "raft: no campaign before a change of the members is applied",
    "raft: nobody said what became of a snapshot",
    "raft: several Readies are under way",
];

/// Counters that must not be 0: each kind of fault, and what must come of it.
pub const REQUIRED_COUNTS: &[&str] = &[
    "bit_flips_noticed",
    "clock_jumps",
    "clogs",
    "compactions",
    "conf_changes_applied",
    "crashes",
    "disk_stalls",
    "disks_lost",
    "frames_damage_noticed",
    "frames_doubled",
    "frames_lost",
    "freezes",
    "full_disks",
    "leaders_isolated",
    "new_leaders_struck",
    "partitions",
    "power_losses",
    "reads_answered",
    "snapshots_installed",
    "sync_errors",
    "torn_logs",
    "usurpations",
    "writes_acknowledged",
    "writes_lost_for_certain",
];
