//! Known bugs of this field that the feature `mutants` can bring back, each with what it breaks. A test suite is worth
//! what it finds of these; the simulator must find them all.

/// The name of each switch, and the promise that it breaks. One at a time is switched on with
/// `types::marks::set_mutant`.
pub const MUTANTS: &[(&str, &str)] = &[
    (
        "acts_on_unsynced_change",
        "who is removed is gone for good, and those who stay forget that it was",
    ),
    (
        "append_skips_prev_check",
        "a follower appends behind an entry that differs from the leader's",
    ),
    ("apply_before_persist", "committed entries are applied before they are durable here"),
    ("campaign_with_unapplied_conf", "a candidate counts votes among members that are out of date"),
    ("commit_beyond_match", "a follower commits entries that the append did not confirm"),
    ("commit_older_term_by_counting", "an entry of an older term commits by being on a majority"),
    ("conf_change_applied_twice", "a change of the members is handed out for applying twice"),
    ("heartbeat_commits_unmatched", "a heartbeat commits entries that the leader does not know of"),
    ("ignore_vote_persistence", "a vote is forgotten by a restart"),
    ("joint_needs_one_majority_only", "in a joint state the new voters decide alone"),
    ("leader_counts_unsynced", "a leader counts entries that its own disk does not have"),
    ("learner_counts_in_quorum", "learners vote and count for commitment"),
    ("lease_from_the_answer", "a lease is counted from the answers and not from the sending"),
    ("lease_kept_on_transfer", "a leader keeps its lease while another is asked to campaign"),
    ("no_log_truncation_on_conflict", "entries that conflict with the leader's stay"),
    ("pre_vote_persists_term", "a pre-vote raises the term"),
    ("read_before_first_commit", "a new leader answers reads before it knows what is committed"),
    ("refusals_say_nothing", "who is left alone by a change of the members does not learn of it"),
    ("restart_forgets_promise", "a restarted node votes though a lease rests on its promise"),
    ("send_before_sync", "answers and votes leave before the disk has them"),
    ("snapshot_keeps_old_conf", "the members of a snapshot are not taken over"),
    ("stale_read_ack_counts", "an answer to an earlier round confirms a later read"),
    ("two_conf_changes_at_once", "a change of the members is proposed while another is under way"),
    ("vote_for_any_log", "a vote is given to a candidate that lacks entries"),
    ("vote_twice", "two candidates get a vote in one term"),
];
