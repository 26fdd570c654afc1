//! Known bugs of transactions that the feature `mutants` of crate `types` can bring back, each with what it breaks (numbers:
//! the catalogue of real bugs). The simulator of stores must find each.

/// The name of each switch, and the promise that it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    ("txn_chooses_below_reads", "an asynchronous commit lands in the past of a read (T3)"),
    ("txn_commits_before_its_minimum", "a transaction commits where a reader was let past (T3)"),
    ("txn_commits_without_its_lock", "a commit says yes to what was rolled back (T6)"),
    ("txn_latches_are_not_held", "two commands are decided by the same state (T5)"),
    ("txn_lock_is_not_published", "a read misses a lock that is under way into the log (T3)"),
    ("txn_max_ts_is_not_synced", "a new leader does not know what was read at the old one (T3)"),
    ("txn_missing_secondary_is_free", "a key that was found missing is prewritten later (T1)"),
    ("txn_passes_locks", "a read does not see what is about to be committed below it (T5)"),
    ("txn_retry_commits_again", "a repeated prewrite does not find its own commit (T4)"),
    ("txn_rollback_leaves_no_record", "a prewrite that comes late succeeds (T1)"),
    ("txn_writes_over_newer", "an update is lost (T5)"),
];
