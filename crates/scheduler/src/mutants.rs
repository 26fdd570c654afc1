//! Known bugs of this field that the feature `mutants` can bring back, each with what it breaks. The convergence test
//! must find them all.

/// The name of each switch, and the promise that it breaks. One at a time is switched on with
/// `types::marks::set_mutant`.
pub const MUTANTS: &[(&str, &str)] = &[
    ("balance_without_tolerance", "a balanced cluster goes on moving peers and leaders"),
    ("ids_before_they_are_durable", "a leader learns of an id that a crash takes back"),
    ("ids_begin_again_within_the_window", "a restart hands out ids that were handed out"),
    ("joint_states_stay", "nobody finishes a joint change whose operator is forgotten"),
    ("leaders_are_removed", "a leader is removed without another to take its place"),
    ("learners_are_replicas", "a learner that is left behind counts as a replica"),
    ("operators_ignore_the_epoch", "an operator goes on though somebody else changed the region"),
    ("overlapped_regions_stay", "a region that was taken over is still found"),
    ("pending_peers_count", "a learner votes before it has its data"),
    ("removals_ignore_health", "of too many peers a healthy one goes, and a dead one stays"),
    ("removals_ignore_the_majority", "a removal leaves a region without a majority"),
    ("several_operators_for_a_region", "two operators work on one region"),
    ("silence_is_death", "a store that missed two heartbeats is emptied"),
    ("stale_reports_are_believed", "an old report takes the place of a newer one"),
    ("stale_reports_replace_others", "an old report takes the place of newer neighbours"),
    ("stores_are_buried_alive", "a store is gone for good while it holds regions"),
    ("the_old_goes_before_the_new_comes", "a move leaves a region with one replica less"),
    ("what_is_under_way_counts_nothing", "everything goes to the store that is empty now"),
];
