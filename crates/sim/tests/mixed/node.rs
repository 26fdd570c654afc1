//! A node of either kind, behind the same verbs. What it wants done comes as [`Work`], in our spelling but for messages.

use raft::{
    ConfChange, ConfState, Config, Entry, EntryKind, Error, HardState, MemStorage, Message, Node,
    RoleKind, Snapshot, SnapshotStatus,
};
use raft_rs::{
    Config as TheirConfig, INVALID_ID, RawNode, SnapshotStatus as TheirSnapshotStatus, StateRole,
    eraftpb as pb,
};
use runtime::Rng;
use slog::{Discard, Logger, o};

use super::{
    disk::Disk,
    values::{
        bytes_to_number, change_to_their_first, change_to_theirs, conf_to_ours, entry_to_ours,
        hard_state_to_ours, number_to_bytes, snapshot_to_ours,
    },
};

/// Whose implementation a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Theirs,
}

/// What the nodes of a group have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) pre_vote: bool,
    pub(crate) check_quorum: bool,
    /// Bytes of entries in one append.
    pub(crate) max_message_bytes: usize,
    /// Appends under way to one follower.
    pub(crate) max_inflight: usize,
    /// Of theirs: appends to one follower become one, and a commit index alone is not sent.
    pub(crate) is_lazy: bool,
}

/// Ticks after which a follower campaigns, at least.
pub(crate) const ELECTION_TICKS: u32 = 10;
/// Ticks between two heartbeats.
pub(crate) const HEARTBEAT_TICKS: u32 = 2;

/// A message, in the spelling of who sends it or of who gets it.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    Ours(Message),
    Theirs(pb::Message),
}

/// What a node wants done. The first part, what is to be written, is readable on its disk already.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) number: u64,
    pub(crate) hard_state: Option<HardState>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) must_sync: bool,
    pub(crate) letters: Vec<Letter>,
    pub(crate) letters_after_sync: Vec<Letter>,
    pub(crate) committed: Vec<Entry>,
    /// Contexts and indexes of reads that are answered.
    pub(crate) reads: Vec<(u64, u64)>,
    /// Whether entries that were there are replaced.
    pub(crate) has_replaced: bool,
}

/// What is looked at after every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) is_leader: bool,
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) last: u64,
}

/// A node of one of the two kinds.
pub(crate) enum AnyNode {
    Ours(Box<Node<Disk, CoreRng>>),
    Theirs(Box<TheirNode>),
}

/// A node of theirs, whose random numbers are replaced.
pub(crate) struct TheirNode {
    raw: RawNode<Disk>,
    rng: Rng,
    election_timeout: usize,
}

/// The generator of a node of ours.
#[derive(Debug)]
pub(crate) struct CoreRng(Rng);

impl raft::Rng for CoreRng {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        self.0.range(u64::from(low)..u64::from(high)) as u32
    }
}

impl AnyNode {
    /// Starts a node with what its disk has, `applied` being the last entry that its application has.
    pub(crate) fn start(
        kind: Kind,
        id: u64,
        settings: Settings,
        log: MemStorage,
        applied: u64,
        rng: Rng,
    ) -> AnyNode {
        match kind {
            Kind::Ours => {
                let config = Config {
                    election_ticks: ELECTION_TICKS,
                    heartbeat_ticks: HEARTBEAT_TICKS,
                    applied,
                    max_message_bytes: settings.max_message_bytes,
                    max_inflight_messages: settings.max_inflight,
                    pre_vote: settings.pre_vote,
                    check_quorum: settings.check_quorum,
                    snapshot_ticks: 2 * ELECTION_TICKS,
                    ..Config::new(id)
                };
                let node =
                    Node::new(config, Disk::new(log), CoreRng(rng)).expect("our node starts");
                AnyNode::Ours(Box::new(node))
            }
            Kind::Theirs => {
                AnyNode::Theirs(Box::new(TheirNode::start(id, settings, log, applied, rng)))
            }
        }
    }

    pub(crate) fn view(&self) -> View {
        match self {
            AnyNode::Ours(node) => {
                let (status, role) = (node.status(), node.role());
                View {
                    is_leader: role.role == RoleKind::Leader,
                    leader: role.leader,
                    term: node.term(),
                    committed: status.committed,
                    last: status.last_index,
                }
            }
            AnyNode::Theirs(node) => {
                let raft = &node.raw.raft;
                View {
                    is_leader: raft.state == StateRole::Leader,
                    leader: raft.leader_id,
                    term: raft.term,
                    committed: raft.raft_log.committed,
                    last: raft.raft_log.last_index(),
                }
            }
        }
    }

    pub(crate) fn disk(&self) -> &Disk {
        match self {
            AnyNode::Ours(node) => node.storage(),
            AnyNode::Theirs(node) => node.raw.store(),
        }
    }

    pub(crate) fn disk_mut(&mut self) -> &mut Disk {
        match self {
            AnyNode::Ours(node) => node.storage_mut(),
            AnyNode::Theirs(node) => node.raw.mut_store(),
        }
    }

    pub(crate) fn tick(&mut self) {
        match self {
            AnyNode::Ours(node) => node.tick(),
            AnyNode::Theirs(node) => {
                node.raw.tick();
                node.replace_timeout();
            }
        }
    }

    /// Takes a message. All that a correct peer may send is taken, but answers to who does not know the peer any more.
    pub(crate) fn step(&mut self, letter: Letter) {
        match (self, letter) {
            (AnyNode::Ours(node), Letter::Ours(message)) => match node.step(message) {
                Ok(()) | Err(Error::UnknownPeer { .. }) => {}
                Err(error) => panic!("our node {} refuses a message: {error}", node.id()),
            },
            (AnyNode::Theirs(node), Letter::Theirs(message)) => {
                match node.raw.step(message) {
                    Ok(()) | Err(raft_rs::Error::StepPeerNotFound) => {}
                    Err(error) => panic!("their node refuses a message: {error}"),
                }
                node.replace_timeout();
            }
            _ => unreachable!("a letter is in the spelling of who gets it"),
        }
    }

    /// Proposes a number. Where its entry is if it was taken: index and term.
    pub(crate) fn propose(&mut self, number: u64) -> Option<(u64, u64)> {
        match self {
            AnyNode::Ours(node) => node.propose(number_to_bytes(number)).ok(),
            AnyNode::Theirs(node) => {
                let data = number_to_bytes(number).to_vec();
                node.raw.propose(Vec::new(), data).ok()?;
                Some((node.raw.raft.raft_log.last_index(), node.raw.raft.term))
            }
        }
    }

    /// Proposes a change of the members. Where its entry is if it was taken: index and term.
    pub(crate) fn propose_change(
        &mut self,
        change: &ConfChange,
        in_first_spelling: bool,
    ) -> Option<(u64, u64)> {
        match self {
            AnyNode::Ours(node) => node.propose_conf_change(change.clone()).ok(),
            AnyNode::Theirs(node) => node.propose_change(change, in_first_spelling),
        }
    }

    pub(crate) fn transfer_leader(&mut self, target: u64) {
        match self {
            AnyNode::Ours(node) => {
                // Refused if there is no leader, or the target is no voter.
                let _ = node.transfer_leader(target);
            }
            AnyNode::Theirs(node) => node.raw.transfer_leader(target),
        }
    }

    pub(crate) fn read_index(&mut self, context: u64) {
        match self {
            AnyNode::Ours(node) => {
                // Refused if there is no leader, or it can't tell yet.
                let _ = node.read_index(context);
            }
            AnyNode::Theirs(node) => node.raw.read_index(number_to_bytes(context).to_vec()),
        }
    }

    pub(crate) fn report_unreachable(&mut self, peer: u64) {
        match self {
            AnyNode::Ours(node) => node.report_unreachable(peer),
            AnyNode::Theirs(node) => node.raw.report_unreachable(peer),
        }
    }

    pub(crate) fn report_snapshot(&mut self, peer: u64, has_arrived: bool) {
        match (self, has_arrived) {
            (AnyNode::Ours(node), true) => node.report_snapshot(peer, SnapshotStatus::Finished),
            (AnyNode::Ours(node), false) => node.report_snapshot(peer, SnapshotStatus::Failed),
            (AnyNode::Theirs(node), true) => {
                node.raw.report_snapshot(peer, TheirSnapshotStatus::Finish);
            }
            (AnyNode::Theirs(node), false) => {
                node.raw.report_snapshot(peer, TheirSnapshotStatus::Failure);
            }
        }
    }

    /// What the node wants done, if anything. What is to be written has been.
    pub(crate) fn work(&mut self) -> Option<Work> {
        match self {
            AnyNode::Ours(node) => {
                if !node.has_ready() {
                    return None;
                }
                let ready = node.ready();
                let to_letters = |messages: Vec<Message>| {
                    messages.into_iter().map(Letter::Ours).collect::<Vec<_>>()
                };
                let work = Work {
                    number: ready.number,
                    hard_state: ready.hard_state,
                    entries: ready.entries,
                    snapshot: ready.snapshot,
                    must_sync: ready.must_sync,
                    letters: to_letters(ready.messages),
                    letters_after_sync: to_letters(ready.messages_after_persist),
                    committed: ready.committed,
                    reads: ready.reads.iter().map(|read| (read.context, read.index)).collect(),
                    has_replaced: false,
                };
                Some(work.written(&mut node.storage_mut().log))
            }
            AnyNode::Theirs(node) => node.work(),
        }
    }

    /// This work and all before it are durable. `snapshot` is the index of the snapshot in it, or 0: that is applied.
    pub(crate) fn persisted(&mut self, number: u64, snapshot: u64) {
        match self {
            AnyNode::Ours(node) => node.persisted(number),
            AnyNode::Theirs(node) => {
                node.raw.on_persist_ready(number);
                if snapshot != 0 {
                    node.raw.advance_apply_to(snapshot);
                }
                node.replace_timeout();
            }
        }
    }

    pub(crate) fn applied(&mut self, index: u64) {
        match self {
            AnyNode::Ours(node) => node.applied(index),
            AnyNode::Theirs(node) => node.raw.advance_apply_to(index),
        }
    }

    /// Makes a change of the members take effect. The members from there on.
    pub(crate) fn apply_change(&mut self, change: &ConfChange) -> ConfState {
        match self {
            AnyNode::Ours(node) => node.apply_conf_change(change),
            AnyNode::Theirs(node) => node.apply_change(change),
        }
    }
}

impl Work {
    /// After the first part is written for the node to read.
    fn written(mut self, log: &mut MemStorage) -> Work {
        let first = self.entries.first().map(|entry| entry.index);
        self.has_replaced = first.is_some_and(|first| first <= raft::Storage::last_index(log));
        self.write(log);
        self
    }

    /// Writes the first part, in its order.
    pub(crate) fn write(&self, log: &mut MemStorage) {
        if let Some(snapshot) = &self.snapshot {
            log.apply_snapshot(snapshot.clone()).expect("a snapshot is newer than what there is");
        }
        if let Some(hard_state) = self.hard_state {
            log.set_hard_state(hard_state);
        }
        log.append(&self.entries);
    }
}

impl TheirNode {
    fn start(
        id: u64,
        settings: Settings,
        mut log: MemStorage,
        applied: u64,
        rng: Rng,
    ) -> TheirNode {
        // Theirs wants its owner to know that what is applied was committed.
        let hard_state = log.hard_state();
        log.set_hard_state(HardState { commit: hard_state.commit.max(applied), ..hard_state });
        let config = TheirConfig {
            id,
            election_tick: ELECTION_TICKS as usize,
            heartbeat_tick: HEARTBEAT_TICKS as usize,
            applied,
            max_size_per_msg: settings.max_message_bytes as u64,
            max_inflight_msgs: settings.max_inflight,
            pre_vote: settings.pre_vote,
            check_quorum: settings.check_quorum,
            batch_append: settings.is_lazy,
            skip_bcast_commit: settings.is_lazy,
            ..TheirConfig::default()
        };
        let logger = Logger::root(Discard, o!());
        let raw = RawNode::new(&config, Disk::new(log), &logger).expect("their node starts");
        let mut node = TheirNode { raw, rng, election_timeout: 0 };
        node.replace_timeout();
        node
    }

    /// Theirs draws its election timeout from a generator of the thread, always when it begins to wait anew. It is drawn
    /// again here whenever it begins to wait: how often that is does not depend on what was drawn there.
    fn replace_timeout(&mut self) {
        if self.raw.raft.election_elapsed == 0 {
            let shortest = u64::from(ELECTION_TICKS);
            self.election_timeout = self.rng.range(shortest..2 * shortest) as usize;
        }
        self.raw.raft.set_randomized_election_timeout(self.election_timeout);
    }

    fn propose_change(
        &mut self,
        change: &ConfChange,
        in_first_spelling: bool,
    ) -> Option<(u64, u64)> {
        match change_to_their_first(change).filter(|_| in_first_spelling) {
            Some(first) => self.raw.propose_conf_change(Vec::new(), first).ok()?,
            None => self.raw.propose_conf_change(Vec::new(), change_to_theirs(change)).ok()?,
        }
        let raft = &self.raw.raft;
        // A change that theirs does not want is proposed as an empty entry.
        let entry = raft.raft_log.unstable_entries().last()?;
        let is_taken = entry.entry_type != pb::EntryType::EntryNormal;
        is_taken.then_some((raft.raft_log.last_index(), raft.term))
    }

    fn work(&mut self) -> Option<Work> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let to_letters = |messages: Vec<pb::Message>| {
            messages.into_iter().map(Letter::Theirs).collect::<Vec<_>>()
        };
        let has_snapshot = !ready.snapshot().is_empty();
        let work = Work {
            number: ready.number(),
            hard_state: ready.hs().map(hard_state_to_ours),
            entries: ready.entries().iter().map(entry_to_ours).collect(),
            snapshot: has_snapshot.then(|| snapshot_to_ours(ready.snapshot())),
            must_sync: ready.must_sync(),
            letters: to_letters(ready.take_messages()),
            letters_after_sync: to_letters(ready.take_persisted_messages()),
            committed: ready.take_committed_entries().iter().map(entry_to_ours).collect(),
            reads: ready
                .take_read_states()
                .iter()
                .map(|read| (bytes_to_number(&read.request_ctx), read.index))
                .collect(),
            has_replaced: false,
        };
        let work = work.written(&mut self.raw.mut_store().log);
        self.raw.advance_append_async(ready);
        Some(work)
    }

    fn apply_change(&mut self, change: &ConfChange) -> ConfState {
        // A change that makes no sense changes nothing.
        let conf = match self.raw.apply_conf_change(&change_to_theirs(change)) {
            Ok(conf) => conf_to_ours(&conf),
            Err(_) => self.conf(),
        };
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader && !conf.is_voter(raft.id) {
            // Theirs would go on leading, and panic when it commits: its owners take the leadership from who leaves
            // before, or stop it here. Ours leads until the others know.
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
        self.replace_timeout();
        conf
    }

    fn conf(&self) -> ConfState {
        conf_to_ours(&self.raw.raft.prs().conf().to_conf_state())
    }
}

/// What an entry proposes: a number, or nothing.
pub(crate) fn number_of(entry: &Entry) -> Option<u64> {
    (entry.kind == EntryKind::Normal && !entry.data.is_empty())
        .then(|| bytes_to_number(&entry.data))
}
