//! The course's way of testing a node: inputs one by one, no Readies between them, messages and fields looked at
//! afterwards. [`CourseNode`] is a node whose disk syncs at once, so that what the course expects in one Ready is there;
//! the core itself has no such mode. Some tests set fields, for which there are doors here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    ConfChange, ConfState, Config, Entry, Error, HardState, MemStorage, Message, MessageBody, Node,
    ProposeError, Ready, Rng, RoleKind, Snapshot, Storage, TransferError,
    invariants::Audit,
    progress::ProgressState,
    role::{Leader, Role},
};

/// A small generator with a seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct SeededRng(u64);

impl SeededRng {
    /// A generator that repeats itself for the same seed.
    pub fn new(seed: u64) -> SeededRng {
        SeededRng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

impl Rng for SeededRng {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        low + ((u64::from(self.bits()) * u64::from(high - low)) >> 32) as u32
    }
}

/// A node as the course's tests see it.
#[derive(Debug)]
pub struct CourseNode {
    /// The node.
    pub node: Node<MemStorage, SeededRng>,
    messages: Vec<Message>,
    /// Entries that Readies have given to persist, since they were last looked at.
    persisted: Vec<Entry>,
    /// Committed entries that were handed out and not taken.
    committed: Vec<Entry>,
}

/// The course's settings: no pre-vote and no check of the quorum, which it does not know.
pub fn config(id: u64, election_ticks: u32, heartbeat_ticks: u32) -> Config {
    Config {
        election_ticks,
        heartbeat_ticks,
        pre_vote: false,
        check_quorum: false,
        ..Config::new(id)
    }
}

impl CourseNode {
    /// A node in a group of `peers`, with what the storage has.
    ///
    /// # Panics
    /// If the storage can't be that of a node.
    pub fn new(
        id: u64,
        peers: &[u64],
        election_ticks: u32,
        heartbeat_ticks: u32,
        mut storage: MemStorage,
    ) -> CourseNode {
        if !peers.is_empty() {
            storage.set_conf_state(ConfState::of_voters(peers.iter().copied()));
        }
        // The course's tests fill logs without a term; a node's term is never behind its log.
        let log_term = storage.log().map(|entry| entry.term).max().unwrap_or(0);
        let hard_state = storage.hard_state();
        storage.set_hard_state(HardState { term: hard_state.term.max(log_term), ..hard_state });
        let config = config(id, election_ticks, heartbeat_ticks);
        let node = Node::new(config, storage, SeededRng::new(id)).expect("a node of the course");
        CourseNode { node, messages: Vec::new(), persisted: Vec::new(), committed: Vec::new() }
    }

    /// Does everything that the node wants, at once.
    pub fn pump(&mut self) {
        while self.node.has_ready() {
            let ready = self.node.ready();
            self.write(ready);
        }
    }

    /// Takes Readies until there is no more to do and gives all of them as one: the course's Ready, in which an entry
    /// may be both to persist and committed.
    pub fn merged_ready(&mut self) -> Ready {
        let mut merged = Ready::default();
        while self.node.has_ready() {
            let ready = self.node.ready();
            merged.number = ready.number;
            merged.hard_state = ready.hard_state.or(merged.hard_state);
            merged.role = ready.role.or(merged.role);
            merged.entries.extend(ready.entries.iter().cloned());
            merged.committed.extend(ready.committed.iter().cloned());
            self.write(ready);
        }
        merged
    }

    fn write(&mut self, ready: Ready) {
        let storage = self.node.storage_mut();
        if let Some(snapshot) = ready.snapshot {
            storage.apply_snapshot(snapshot).expect("a node takes only newer snapshots");
        }
        if let Some(hard_state) = ready.hard_state {
            storage.set_hard_state(hard_state);
        }
        storage.append(&ready.entries);
        self.node.persisted(ready.number);
        self.messages.extend(ready.messages);
        self.messages.extend(ready.messages_after_persist);
        self.persisted.extend(ready.entries);
        self.committed.extend(ready.committed);
    }

    /// What the node has sent since the last call, ordered by receiver.
    pub fn read_messages(&mut self) -> Vec<Message> {
        self.pump();
        let mut messages = std::mem::take(&mut self.messages);
        messages.sort_by_key(|message| message.to);
        messages
    }

    /// The same in the order of sending, for a network.
    fn take_messages(&mut self) -> Vec<Message> {
        self.pump();
        std::mem::take(&mut self.messages)
    }

    /// Entries that were given to persist since the last call: the course's unstable entries.
    pub fn unstable_entries(&mut self) -> Vec<Entry> {
        self.pump();
        std::mem::take(&mut self.persisted)
    }

    /// Committed entries that were not applied, which are applied now.
    pub fn next_entries(&mut self) -> Vec<Entry> {
        self.pump();
        let entries = std::mem::take(&mut self.committed);
        if let Some(last) = entries.last() {
            self.node.applied(last.index);
        }
        entries
    }

    /// The course's MsgHup.
    pub fn hup(&mut self) {
        self.node.campaign();
        self.pump();
    }

    /// The course's MsgBeat.
    pub fn beat(&mut self) {
        self.node.broadcast_heartbeat();
        self.pump();
    }

    /// A tick.
    pub fn tick(&mut self) {
        self.node.tick();
        self.pump();
    }

    /// The course's MsgPropose.
    pub fn propose(&mut self, data: &'static [u8]) -> Result<(u64, u64), ProposeError> {
        let result = self.node.propose(Bytes::from_static(data));
        self.pump();
        result
    }

    /// A change of the members.
    pub fn propose_conf_change(&mut self, change: ConfChange) -> Result<(u64, u64), ProposeError> {
        let result = self.node.propose_conf_change(change);
        self.pump();
        result
    }

    /// The course's MsgTransferLeader, sent to this node for `target`.
    pub fn transfer_leader(&mut self, target: u64) -> Result<(), TransferError> {
        let result = self.node.transfer_leader(target);
        self.pump();
        result
    }

    /// A message; also one that no correct peer sends, of which the course has some.
    pub fn step(&mut self, from: u64, term: u64, body: MessageBody) -> Result<(), Error> {
        let message = Message { from, to: self.node.id(), term, body };
        let result = self.node.step_unchecked(message);
        self.pump();
        result
    }

    /// Follows `leader` in `term`.
    pub fn become_follower(&mut self, term: u64, leader: u64) {
        self.node.become_follower(term, leader);
        self.forget_audit();
    }

    /// Campaigns in the next term, without asking anybody.
    pub fn become_candidate(&mut self) {
        if matches!(self.node.role, Role::Leader(_)) {
            self.node.become_follower(self.node.term, 0);
        }
        self.node.become_candidate();
        self.forget_audit();
    }

    /// Leads, without having been elected.
    pub fn become_leader(&mut self) {
        self.node.become_leader();
        self.forget_audit();
        self.pump();
    }

    /// Sets the term.
    pub fn set_term(&mut self, term: u64) {
        self.node.term = term;
        self.forget_audit();
    }

    /// Sets the vote.
    pub fn set_vote(&mut self, vote: u64) {
        self.node.vote = vote;
        self.forget_audit();
    }

    /// Sets the commit index.
    pub fn set_committed(&mut self, index: u64) {
        self.node.log.commit_to(index);
    }

    /// Makes a leader believe that a follower needs `next`.
    pub fn set_next(&mut self, id: u64, next: u64) {
        if let Some(progress) = self.node.role.leader_mut().and_then(|leader| leader.get_mut(id)) {
            progress.matched = 0;
            progress.next = next;
            progress.state = ProgressState::Probe { is_waiting: false };
        }
    }

    /// What a leader knows of a member: `matched` and `next`.
    pub fn progress(&self, id: u64) -> Option<(u64, u64)> {
        let progress = self.node.role.leader().and_then(|leader: &Leader| leader.get(id));
        progress.map(|progress| (progress.matched, progress.next))
    }

    /// Handles a snapshot, whoever sends it.
    pub fn handle_snapshot(&mut self, snapshot: Snapshot) {
        // A leader that has it is at least in its term.
        self.node.term = self.node.term.max(snapshot.meta.term);
        self.forget_audit();
        self.node.restore(snapshot).expect("a storage in memory");
        self.pump();
    }

    /// The role.
    pub fn role(&self) -> RoleKind {
        self.node.role().role
    }

    /// The leader; 0 is nobody.
    pub fn leader(&self) -> u64 {
        self.node.role().leader
    }

    /// The last index.
    pub fn last_index(&self) -> u64 {
        self.node.log.last_index()
    }

    /// The commit index.
    pub fn committed(&self) -> u64 {
        self.node.log.committed()
    }

    /// The whole log.
    ///
    /// # Panics
    /// If the storage fails.
    pub fn log(&self) -> Vec<Entry> {
        let (first, last) = (self.node.log.first_index(), self.node.log.last_index());
        match first <= last {
            true => self.node.log.entries(first, last + 1, usize::MAX).expect("it is there"),
            false => Vec::new(),
        }
    }

    /// Commit index and log, to be compared: the course's `ltoa`.
    pub fn log_state(&self) -> (u64, Vec<(u64, u64, Bytes)>) {
        let entries = self.log().into_iter().map(|entry| (entry.term, entry.index, entry.data));
        (self.committed(), entries.collect())
    }

    /// Fields were set by hand: rules about steps begin anew.
    fn forget_audit(&mut self) {
        self.node.audit = Audit::default();
    }
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// A step without [`Message::check`].
    fn step_unchecked(&mut self, message: Message) -> Result<(), Error> {
        let result = self.dispatch(message);
        self.check_invariants();
        result
    }
}

/// The course's network: nodes, and holes that swallow everything.
#[derive(Debug, Default)]
pub struct Network {
    /// The nodes; holes have none.
    pub nodes: BTreeMap<u64, CourseNode>,
    cuts: BTreeSet<(u64, u64)>,
    ignored: BTreeSet<&'static str>,
}

impl Network {
    /// A network of fresh nodes 1, 2, … where `true`, and holes where `false`.
    pub fn new(is_node: &[bool]) -> Network {
        let ids: Vec<u64> = (1..=is_node.len() as u64).collect();
        let nodes = ids.iter().zip(is_node).filter(|(_, is_node)| **is_node);
        let node = |id: u64| CourseNode::new(id, &ids, 10, 1, MemStorage::new([]));
        Network { nodes: nodes.map(|(&id, _)| (id, node(id))).collect(), ..Network::default() }
    }

    /// A network of these nodes.
    pub fn of(nodes: impl IntoIterator<Item = CourseNode>) -> Network {
        let nodes = nodes.into_iter().map(|node| (node.node.id(), node)).collect();
        Network { nodes, ..Network::default() }
    }

    /// The node.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&mut self, id: u64) -> &mut CourseNode {
        self.nodes.get_mut(&id).expect("there is such a node")
    }

    /// Does something at a node and delivers all that follows.
    pub fn at(&mut self, id: u64, act: impl FnOnce(&mut CourseNode)) {
        act(self.node(id));
        self.deliver(&[id]);
    }

    /// Sends messages and delivers all that follows.
    pub fn send(&mut self, from: u64, to: u64, term: u64, body: MessageBody) {
        if let Some(node) = self.nodes.get_mut(&to) {
            // What it refuses it ignores.
            let _ = node.step(from, term, body);
        }
        self.deliver(&[to]);
    }

    /// Delivers what these nodes have said, and all that follows.
    pub fn deliver(&mut self, ids: &[u64]) {
        let mut queue = std::collections::VecDeque::new();
        for id in ids {
            if let Some(node) = self.nodes.get_mut(id) {
                queue.extend(node.take_messages());
            }
        }
        while let Some(message) = queue.pop_front() {
            let Message { from, to, .. } = message;
            if self.cuts.contains(&(from, to)) || self.ignored.contains(message.body.name()) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            let _ = node.step(from, message.term, message.body);
            queue.extend(node.take_messages());
        }
    }

    /// Nothing passes between the two any more.
    pub fn cut(&mut self, a: u64, b: u64) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Nothing passes between the node and all others any more.
    pub fn isolate(&mut self, id: u64) {
        for other in (1..=8).filter(|&other| other != id) {
            self.cut(id, other);
        }
    }

    /// Messages of this kind get lost.
    pub fn ignore(&mut self, kind: &'static str) {
        self.ignored.insert(kind);
    }

    /// Everything passes again.
    pub fn recover(&mut self) {
        self.cuts.clear();
        self.ignored.clear();
    }
}
