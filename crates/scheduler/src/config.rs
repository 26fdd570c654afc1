//! How much is done at once, when a store counts as gone, how even is even enough.

use std::time::Duration;

/// Settings of placement. Names and defaults are PD's where it has them. They are not recorded: whoever starts the
/// scheduler brings them. (How many replicas a region has is recorded:
/// [`ClusterConfig::max_peer_count`](crate::ClusterConfig).)
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// After this silence a store counts as down: its peers are replaced.
    pub max_store_down_time: Duration,
    /// After this silence a store gets nothing new, and its peers count for no majority. Two heartbeats.
    pub store_disconnect_time: Duration,
    /// After this silence a region is left alone: nobody leads it, or its leader does not hear us. Three heartbeats.
    pub region_silent_time: Duration,
    /// When nothing is decided yet because regions have not reported after a start, this ends the waiting.
    pub prepare_timeout: Duration,
    /// Operators that only move leaders to balance them, at once.
    pub leader_schedule_limit: usize,
    /// Operators that move peers to balance them, at once.
    pub region_schedule_limit: usize,
    /// Operators that repair regions, at once.
    pub replica_schedule_limit: usize,
    /// Peers that are on their way to one store, at once.
    pub store_add_limit: usize,
    /// Peers that are on their way out of one store, at once.
    pub store_remove_limit: usize,
    /// A store that sends, or receives and applies, so many snapshots takes part in nothing that needs another.
    pub max_snapshot_count: u32,
    /// A store with so many peers that lag behind gets no more.
    pub max_pending_peer_count: u64,
    /// A store whose disk is used beyond this share gets nothing new.
    pub low_space_ratio: f64,
    /// Leaders move between stores whose numbers of leaders differ by at least twice this.
    pub leader_tolerance: u64,
    /// How a peer comes to another store.
    pub change_style: ChangeStyle,
}

/// How a region gets a new voter, and gets rid of an old one in exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeStyle {
    /// The new peer is a learner until it has caught up. Then it takes the old one's place in one step, a joint change:
    /// the number of voters never differs from what was asked for.
    #[default]
    Joint,
    /// The new peer is a learner until it has caught up. It becomes a voter, then the old one is removed: for a moment
    /// there is one voter more.
    OneByOne,
    /// The new peer votes from the beginning, before it has any data. For stores that know no learners.
    Direct,
}

impl Default for ScheduleConfig {
    fn default() -> ScheduleConfig {
        ScheduleConfig {
            max_store_down_time: Duration::from_secs(30 * 60),
            store_disconnect_time: Duration::from_secs(20),
            region_silent_time: Duration::from_secs(3 * 60),
            prepare_timeout: Duration::from_secs(5 * 60),
            leader_schedule_limit: 4,
            region_schedule_limit: 2048,
            replica_schedule_limit: 64,
            store_add_limit: 8,
            store_remove_limit: 8,
            max_snapshot_count: 4,
            max_pending_peer_count: 16,
            low_space_ratio: 0.8,
            leader_tolerance: 5,
            change_style: ChangeStyle::Joint,
        }
    }
}
