//! Known bugs of this field that the feature `mutants` can bring back, each with what it breaks (numbers: the catalogue
//! of real bugs, M for those of regions). The chaos of stores must find them.

/// The name of each switch, and the promise that it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    ("log_compacted_before_engine_sync", "entries go that a crash of the engine will need"),
    ("read_before_applied", "a read sees a state from before what was acknowledged (M8)"),
    ("snapshot_forgotten_before_engine_sync", "a crash finds a log that begins after nothing"),
    ("split_resets_log", "after a crash, a split that is applied again takes its child's entries"),
    ("tombstone_forgets_who_lived_there", "a removed peer comes back (M3)"),
    ("unknown_outcome_is_refused", "a write is refused for certain and takes effect"),
    (
        "write_applied_after_a_split",
        "a write lands in a region that does not have its key any more",
    ),
];
