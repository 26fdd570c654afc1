//! Known bugs of this field that the feature `mutants` can bring back, each with what it breaks (numbers: the catalogue
//! of real bugs, M for those of regions, R for those of Raft and its storage). The simulator of stores must find each.

/// The name of each switch, and the promise that it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    ("alone_answers_before_sync", "a store alone acknowledges what a crash takes (R9)"),
    ("applied_index_before_its_effects", "a crash leaves the index without what it says (R8)"),
    ("leader_ignores_its_disk", "a leader whose disk stands still goes on leading (R11)"),
    ("lease_behind_followers", "a leader shows what was before what a follower has shown (M8)"),
    ("lease_newer_than_the_snapshot", "a snapshot is read that is older than the lease (M10)"),
    ("lease_outlives_its_time", "a machine that stood still believes in its lease (M11)"),
    ("log_compacted_before_engine_sync", "entries go that a crash of the engine will need (R7)"),
    ("nobody_asks_whether_it_is_a_member", "a removed peer that nobody tells stays for ever (M5)"),
    ("overlap_is_not_checked", "a snapshot takes keys of a region that has them here (M1)"),
    ("read_before_applied", "a read sees a state from before what was acknowledged (M8)"),
    ("read_of_a_tombstone", "a read sees what a destroyed peer has left, nothing (M7)"),
    ("read_without_region_check", "a read sees keys that have left the region by a split (M9)"),
    ("snapshot_before_its_range_is_settled", "a crash brings back who had the keys before (M6)"),
    ("snapshot_forgotten_before_engine_sync", "a crash finds a log that begins after nothing (M6)"),
    ("snapshot_keeps_old_data", "what was deleted is back after a snapshot (M6)"),
    ("snapshot_state_before_its_data", "a crash leaves half of a snapshot that seems whole (M6)"),
    (
        "split_resets_log",
        "after a crash, a split that is applied again takes its child's entries (R7)",
    ),
    ("split_revives_who_moved_away", "a late split puts an orphan where a later peer lives (M12)"),
    ("tombstone_forgets_who_lived_there", "a removed peer comes back (M3)"),
    ("tombstone_is_written_late", "a crash makes a removed peer a member again (M4)"),
    ("unknown_outcome_is_refused", "a write is refused for certain and takes effect"),
    (
        "write_applied_after_a_split",
        "a write lands in a region that does not have its key any more",
    ),
];
