//! The settings of one node. The members of the group are no setting: they come from the storage.

use crate::error::Error;

/// How a leader makes sure that it still is the leader before it answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// It asks a quorum, one round of heartbeats for all reads that wait (thesis 6.4).
    Index,
    /// While a quorum has promised not to vote, it asks nobody (thesis 6.4.1). All members must have this mode and
    /// `check_quorum`, and the owner delivers all ticks that are due before it asks for a read.
    Lease {
        /// For how many ticks after a round was sent its answers make a lease; less than `election_ticks`.
        ticks: u32,
        /// By how many percent the clock of one member may run faster than that of another.
        drift_percent: u32,
    },
}

/// Settings of a [`Node`](crate::Node). Times are in ticks of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's id in its group; not 0.
    pub id: u64,
    /// Without word from a leader for this long, at least, and less than twice this long, a follower campaigns.
    pub election_ticks: u32,
    /// How often a leader says that it is there; less than `election_ticks`.
    pub heartbeat_ticks: u32,
    /// The last entry that the owner has applied, durably. Entries after it are handed out (again).
    pub applied: u64,
    /// The term in which groups begin, without a leader: who knows no later one has heard no leader.
    pub first_term: u64,
    /// The largest cost of the entries of one append; one entry always fits.
    pub max_message_bytes: usize,
    /// The largest cost of the committed entries of one Ready; one entry always fits.
    pub max_apply_bytes: usize,
    /// How many appends may be under way to one follower.
    pub max_inflight_messages: usize,
    /// How many bytes of entries may be under way to one follower; one append always may.
    pub max_inflight_bytes: usize,
    /// Proposals are refused while this much of the leader's term is proposed and not yet handed out as committed.
    pub max_uncommitted_bytes: usize,
    /// The largest data of one proposal.
    pub max_entry_bytes: usize,
    /// Whether a node asks if it could win before it raises its term, so that one who was cut off disturbs nobody.
    pub pre_vote: bool,
    /// Whether a leader that hears from no quorum for an election timeout steps down, and voters who hear from a
    /// leader don't vote.
    pub check_quorum: bool,
    /// From 0 to [`Config::PRIORITY_MAX`]. Each step below the maximum makes a node wait one election timeout longer
    /// before it campaigns, so that others come first if they can. Less than the maximum needs `pre_vote`: a node whose
    /// log is too short to win would otherwise raise the term again and again before the one that waits longer campaigns.
    pub priority: u8,
    /// How reads are made safe.
    pub read_mode: ReadMode,
    /// Whether a follower that lacks no entries is told only with the next tick what is committed, if no entries come
    /// before. Saves a message and its answer for every write that comes alone. Followers are told at once as soon as
    /// one has asked for a read in the leader's term, and after [`Node::tell_commit`](crate::Node::tell_commit).
    pub lazy_commit: bool,
    /// After this many ticks without word about a snapshot under way the leader tries again; 0: it waits for
    /// [`Node::report_snapshot`](crate::Node::report_snapshot) as long as it takes.
    pub snapshot_ticks: u32,
}

impl Config {
    /// The highest priority, and the usual one.
    pub const PRIORITY_MAX: u8 = 3;

    /// The usual settings for node `id`: ticks of 100 ms, a heartbeat every second one, elections after 8 to 16.
    pub fn new(id: u64) -> Config {
        Config {
            id,
            election_ticks: 8,
            heartbeat_ticks: 2,
            applied: 0,
            first_term: 0,
            max_message_bytes: 1 << 20,
            max_apply_bytes: 4 << 20,
            max_inflight_messages: 256,
            max_inflight_bytes: 16 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_entry_bytes: types::limits::ENTRY_BYTES_MAX,
            pre_vote: true,
            check_quorum: true,
            priority: Config::PRIORITY_MAX,
            read_mode: ReadMode::Index,
            lazy_commit: false,
            snapshot_ticks: 600,
        }
    }

    /// Checks that the settings make sense together. Errors are [`Error::Config`] with the rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        let rule = |holds: bool, rule: &'static str| match holds {
            true => Ok(()),
            false => Err(Error::Config(rule)),
        };
        rule(self.id != 0, "an id is not 0")?;
        rule(0 < self.heartbeat_ticks, "heartbeat_ticks is not 0")?;
        rule(self.heartbeat_ticks < self.election_ticks, "heartbeat_ticks < election_ticks")?;
        rule(self.election_ticks <= 1 << 20, "election_ticks <= 1,048,576")?;
        rule(0 < self.max_inflight_messages, "max_inflight_messages is not 0")?;
        rule(self.priority <= Config::PRIORITY_MAX, "priority <= PRIORITY_MAX")?;
        rule(
            self.priority == Config::PRIORITY_MAX || self.pre_vote,
            "a low priority needs pre_vote",
        )?;
        if let ReadMode::Lease { ticks, drift_percent } = self.read_mode {
            rule(self.check_quorum, "a lease needs check_quorum")?;
            // A follower's promise begins inside a tick and may end a tick early; see read.rs.
            rule(0 < ticks && ticks < self.election_ticks, "0 < lease ticks < election_ticks")?;
            rule(drift_percent <= 1000, "drift_percent <= 1,000")?;
        }
        Ok(())
    }
}
