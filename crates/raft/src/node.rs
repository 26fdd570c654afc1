//! The verbs of a node: everything that an owner may tell it. Each ends with a check of the invariants.
//!
//! What a verb means lies with its topic: elections in election.rs, and so on. Here is who gets what.

use bytes::Bytes;
use types::marks::sometimes;

use crate::{
    config::{Config, ReadMode},
    entry::{Entry, EntryKind, HardState},
    error::{Error, ProposeError},
    invariants::Audit,
    log::Log,
    membership::{ConfChange, ConfState},
    message::{Message, MessageBody, RejectHint},
    ready::{ReadState, RoleKind, RoleState, SnapshotStatus},
    role::Role,
    storage::Storage,
};

/// Random numbers for election timeouts. Injected, so that a run can be repeated.
pub trait Rng {
    /// A number of `low .. high`; `low < high`.
    fn range(&mut self, low: u32, high: u32) -> u32;
}

/// One node of a Raft group. It does nothing by itself: the owner calls its verbs and performs what
/// [`Node::ready`] says.
#[derive(Debug)]
pub struct Node<S, R> {
    pub(crate) config: Config,
    pub(crate) rng: R,
    pub(crate) log: Log<S>,
    pub(crate) conf: ConfState,
    pub(crate) term: u64,
    /// Whom it voted for in `term`; 0 is nobody.
    pub(crate) vote: u64,
    /// Who leads in `term`; 0 is nobody known.
    pub(crate) leader: u64,
    pub(crate) role: Role,

    /// Ticks since the start.
    pub(crate) now: u64,
    /// Ticks since it last had a reason not to campaign.
    pub(crate) election_elapsed: u32,
    /// After how many of them it campaigns.
    pub(crate) election_timeout: u32,
    /// Ticks since a leader was last heard of, whichever. While that is less than an election timeout, this node has
    /// promised not to vote: leases rest on it, so nothing but time ends it.
    pub(crate) leader_silent: u32,

    /// The last entry of which another node has said that it is committed.
    pub(crate) told_commit: u64,

    /// Requests for a read index that the leader was asked for.
    pub(crate) forwarded: Vec<Forwarded>,
    /// The next number of such a request.
    pub(crate) next_read_id: u64,

    pub(crate) messages: Vec<Message>,
    pub(crate) messages_after_persist: Vec<Message>,
    pub(crate) reads: Vec<ReadState>,
    pub(crate) reads_refused: Vec<u64>,
    /// The number of the last Ready.
    pub(crate) ready_number: u64,
    /// What the last Readies have said.
    pub(crate) said_hard_state: HardState,
    pub(crate) said_role: RoleState,
    #[cfg_attr(
        not(any(debug_assertions, feature = "sim")),
        expect(dead_code, reason = "empty then")
    )]
    pub(crate) audit: Audit,
}

/// A follower's request for a read index.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) id: u64,
    pub(crate) context: u64,
    pub(crate) since: u64,
}

/// What a node believes at the moment, for people, metrics and schedulers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// Whom it voted for in that term; 0 is nobody.
    pub vote: u64,
    /// Its role.
    pub role: RoleKind,
    /// The leader, if it knows one; 0 is nobody.
    pub leader: u64,
    /// The first entry that is not compacted.
    pub first_index: u64,
    /// The last entry.
    pub last_index: u64,
    /// The last entry that is durable here.
    pub persisted: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that the owner has applied.
    pub applied: u64,
    /// The members.
    pub conf: ConfState,
    /// A leader's view of the members, itself included, by id; empty elsewhere.
    pub peers: Vec<PeerStatus>,
    /// To whom the leadership is being transferred; 0 is nobody.
    pub transferee: u64,
    /// Whether the leader could answer a read from its lease now.
    pub has_lease: bool,
}

/// A leader's view of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its id.
    pub id: u64,
    /// The last entry that it is known to have, durably.
    pub matched: u64,
    /// The next entry that it will be sent.
    pub next: u64,
    /// The last entry that it is known to know as committed.
    pub committed: u64,
    /// How it is being replicated to.
    pub kind: ProgressKind,
    /// Whether it was heard of since the last check of the quorum.
    pub is_active: bool,
    /// For how many ticks nothing was heard of it; 0 for the leader itself.
    pub silent_ticks: u64,
}

/// How a follower is being replicated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgressKind {
    /// Where the logs meet is not known: one append at a time.
    Probe,
    /// It is: appends are sent ahead of their answers.
    Replicate,
    /// A snapshot is on its way.
    Snapshot,
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// A node as its storage remembers it, as a follower. Errors: [`Error::Config`] for the settings,
    /// [`Error::State`] and [`Error::Storage`] for what lies in the storage.
    pub fn new(config: Config, storage: S, mut rng: R) -> Result<Node<S, R>, Error> {
        config.validate()?;
        let (hard_state, conf) = storage.initial_state()?;
        // A group that this node is yet to join has no members here.
        if conf != ConfState::default() {
            conf.check().map_err(Error::State)?;
        }
        let mut log = Log::new(storage, hard_state.commit, config.applied).map_err(Error::State)?;
        log.find_changes(config.max_apply_bytes)?;
        if hard_state.term < log.last_term()? {
            return Err(Error::State("the term is older than the log: it was lost"));
        }
        // The numbers of reads before a restart must not come back; nothing else here survives it.
        let epoch = u64::from(rng.range(0, u32::MAX));
        let said_hard_state = HardState { commit: log.committed(), ..hard_state };
        // Before the restart the node may have promised a leader not to vote, and its lease may still run. Not so if it
        // led its last term itself: nobody else leads in that, and earlier leases had run out when it was elected.
        let has_led = hard_state.vote == config.id && log.last_term()? == hard_state.term;
        let has_promised = matches!(config.read_mode, ReadMode::Lease { .. })
            && config.first_term < hard_state.term
            && !has_led
            && !types::marks::mutant!("restart_forgets_promise");
        let mut node = Node {
            rng,
            log,
            conf,
            term: hard_state.term,
            vote: hard_state.vote,
            leader: 0,
            role: Role::Follower,
            now: 0,
            election_elapsed: 0,
            election_timeout: 0,
            leader_silent: if has_promised { 0 } else { config.election_ticks },
            told_commit: 0,
            forwarded: Vec::new(),
            next_read_id: epoch << 32,
            messages: Vec::new(),
            messages_after_persist: Vec::new(),
            reads: Vec::new(),
            reads_refused: Vec::new(),
            ready_number: 0,
            said_hard_state,
            said_role: RoleState::default(),
            audit: Audit::default(),
            config,
        };
        node.reset_election_timeout();
        node.check_invariants();
        Ok(node)
    }

    /// One tick of the owner's clock has passed. After a pause the owner delivers the ticks that it owes before
    /// anything else.
    pub fn tick(&mut self) {
        self.now += 1;
        self.leader_silent = self.leader_silent.saturating_add(1);
        match self.role {
            Role::Leader(_) => self.tick_leader(),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => self.tick_election(),
        }
        // Now and then is enough, and an idle tick touches little memory.
        if self.now.is_multiple_of(u64::from(self.config.heartbeat_ticks)) {
            self.expire_forwarded_reads();
            self.log.shrink();
        }
        self.check_invariants();
    }

    /// The owner gives no ticks for a while, because there is nothing to do. What rests on counting them ends: a leader
    /// has no lease any more, and asks a quorum before the next read. A follower keeps its promise not to vote.
    pub fn rest(&mut self) {
        self.drop_lease();
    }

    /// While this node got no ticks, so many have passed in which its leader, if it has one elsewhere, said nothing.
    pub fn hear_silence(&mut self, ticks: u32) {
        if !matches!(self.role, Role::Leader(_)) {
            self.leader_silent = self.leader_silent.saturating_add(ticks);
            self.election_elapsed = self.election_elapsed.saturating_add(ticks);
        }
    }

    /// Whether something is under way that may need ticks to end: reads, a transfer, a change of the members, an
    /// election.
    pub fn is_changing(&self) -> bool {
        let is_leading = self.role.leader().is_some_and(|leader| {
            leader.transfer.is_some()
                || leader.removed_at.is_some()
                || self.log.held().is_some()
                || 0 < leader.reads.len()
        });
        let is_electing = matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_));
        is_leading || is_electing || self.conf.is_joint() || self.leader == 0
    }

    /// Takes a message of a peer. A refused message ([`Error`] says why) changes nothing but, at most, the term.
    pub fn step(&mut self, message: Message) -> Result<(), Error> {
        let result = message.check().and_then(|()| self.dispatch(message));
        self.check_invariants();
        result
    }

    /// Hands a message to its topic.
    pub(crate) fn dispatch(&mut self, message: Message) -> Result<(), Error> {
        if message.to != self.config.id {
            return Err(Error::Misrouted { to: message.to, id: self.config.id });
        }
        if !self.catch_up_with_term(&message) {
            return Ok(());
        }
        let Message { from, term, body, .. } = message;
        if body.is_from_leader() {
            self.hear_leader(from)?;
        }
        match body {
            MessageBody::Append { index, log_term, entries, commit } => {
                self.on_append(from, index, log_term, entries, commit)
            }
            MessageBody::AppendResponse { index, commit, reject } => {
                self.on_append_response(from, index, commit, reject)
            }
            MessageBody::Vote { last_index, last_term, commit, commit_term, transfer } => {
                self.on_vote(from, last_index, last_term, transfer)?;
                self.on_committed(commit, commit_term)
            }
            MessageBody::PreVote { last_index, last_term, commit, commit_term } => {
                self.on_pre_vote(from, term, last_index, last_term)?;
                self.on_committed(commit, commit_term)
            }
            MessageBody::VoteResponse { granted } => self.on_vote_response(from, granted),
            MessageBody::PreVoteResponse { granted } => {
                self.on_pre_vote_response(from, term, granted)
            }
            MessageBody::Committed { index, term } => self.on_committed(index, term),
            MessageBody::Heartbeat { commit, round } => self.on_heartbeat(from, commit, round),
            MessageBody::HeartbeatResponse { round } => self.on_heartbeat_response(from, round),
            MessageBody::Snapshot(snapshot) => self.on_snapshot(from, *snapshot),
            MessageBody::TimeoutNow => self.on_timeout_now(from),
            MessageBody::TransferLeader { target } => self.on_transfer_leader(from, target),
            MessageBody::ReadIndex { id } => self.on_read_index(from, id),
            MessageBody::ReadIndexResponse { id, index } => self.on_read_index_response(id, index),
        }
    }

    /// Proposes a command. Returns the index and the term of its entry: when an entry with these two numbers is handed
    /// out as committed, it is this one; when another term is at the index, this one is lost.
    ///
    /// Nothing is sent before the next [`Node::ready`], so that proposals between two of them travel together.
    pub fn propose(&mut self, data: Bytes) -> Result<(u64, u64), ProposeError> {
        self.propose_batch([data]).map(|(indexes, term)| (indexes.start, term))
    }

    /// Proposes commands, all or none of them. Returns their indexes and their term; see [`Node::propose`].
    pub fn propose_batch(
        &mut self,
        data: impl IntoIterator<Item = Bytes>,
    ) -> Result<(std::ops::Range<u64>, u64), ProposeError> {
        let result = self.propose_normal(data);
        self.check_invariants();
        result
    }

    /// Proposes a change of the members: one that is under way must be applied first. Empty changes leave a joint
    /// state. Returns the index and the term of the entry.
    pub fn propose_conf_change(&mut self, change: ConfChange) -> Result<(u64, u64), ProposeError> {
        let result = self.propose_change(&change);
        self.check_invariants();
        result
    }

    /// A message to `peer` could not be sent. The leader then sends with care.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.on_unreachable(peer);
        self.check_invariants();
    }

    /// How the sending of a snapshot to `peer` ended. The leader sends nothing else to it before that.
    pub fn report_snapshot(&mut self, peer: u64, status: SnapshotStatus) {
        self.on_snapshot_sent(peer, status);
        self.check_invariants();
    }

    /// The owner has applied everything up to `index`, which was handed out to it.
    ///
    /// # Panics
    /// If it was not.
    pub fn applied(&mut self, index: u64) {
        self.log.apply_to(index);
        self.leave_joint_state();
        self.check_invariants();
    }

    /// What the node believes. Not for the fast path: it copies.
    pub fn status(&self) -> Status {
        let leader = self.role.leader();
        Status {
            id: self.config.id,
            term: self.term,
            vote: self.vote,
            role: self.role.kind(),
            leader: self.leader,
            first_index: self.log.first_index(),
            last_index: self.log.last_index(),
            persisted: self.log.persisted(),
            committed: self.log.committed(),
            applied: self.log.applied(),
            conf: self.conf.clone(),
            peers: self.peers().collect(),
            transferee: leader
                .and_then(|leader| leader.transfer.as_ref())
                .map_or(0, |transfer| transfer.target),
            has_lease: self.has_lease(),
        }
    }

    /// A leader's view of the members, itself included, by id; nothing elsewhere.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        let progress = self.role.leader().map_or(&[][..], |leader| &leader.progress);
        progress.iter().map(|progress| PeerStatus {
            id: progress.id,
            matched: progress.matched,
            next: progress.next,
            committed: progress.committed,
            kind: progress.kind(),
            is_active: progress.is_active,
            silent_ticks: match progress.id == self.config.id {
                true => 0,
                false => self.now.saturating_sub(progress.heard_at),
            },
        })
    }

    /// The first entry that is not compacted.
    pub fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    /// The last entry.
    pub fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    /// The id of the node.
    pub fn id(&self) -> u64 {
        self.config.id
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The role and the leader.
    pub fn role(&self) -> RoleState {
        RoleState { role: self.role.kind(), leader: self.leader }
    }

    /// The members, as of what is applied here.
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// The term of an entry, if the log has it.
    pub fn log_term(&self, index: u64) -> Option<u64> {
        self.log.term(index).ok()
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.log.storage
    }

    /// The storage, to write what a Ready says.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.log.storage
    }

    /// Makes term, message and role agree. Returns whether the message is still to be handled.
    fn catch_up_with_term(&mut self, message: &Message) -> bool {
        if message.term == self.term {
            return true;
        }
        if message.term < self.term {
            // What is committed stays committed: that is true in every term.
            if matches!(message.body, MessageBody::Committed { .. }) {
                return true;
            }
            self.answer_the_past(message);
            return false;
        }
        match &message.body {
            MessageBody::Vote { transfer: false, .. } | MessageBody::PreVote { .. }
                if self.has_promised_not_to_vote() =>
            {
                sometimes!("raft: a vote is refused because the leader is alive");
                false
            }
            // A question does not raise the term, nor does the answer to ours in the term that we asked for.
            MessageBody::PreVote { .. } => true,
            MessageBody::PreVoteResponse { granted: true } => true,
            body => {
                let leader = if body.is_from_leader() { message.from } else { 0 };
                self.become_follower(message.term, leader);
                true
            }
        }
    }

    /// Tells a sender of an older term that there is a newer one, if it acts in that belief.
    fn answer_the_past(&mut self, message: &Message) {
        let body = match message.body {
            MessageBody::Append { .. } => {
                // Of no use to anybody who leads in this term: nobody rejects index 0.
                let reject = Some(RejectHint { index: 0, term: 0 });
                MessageBody::AppendResponse { index: 0, commit: 0, reject }
            }
            // Its rounds are those of its old term: in this one it may lead again, and number its rounds anew.
            MessageBody::Heartbeat { .. } => MessageBody::HeartbeatResponse { round: 0 },
            MessageBody::Snapshot(_) => {
                let commit = self.log.committed();
                MessageBody::AppendResponse { index: commit, commit, reject: None }
            }
            MessageBody::Vote { .. } => MessageBody::VoteResponse { granted: false },
            MessageBody::PreVote { .. } => MessageBody::PreVoteResponse { granted: false },
            _ => return,
        };
        self.send(message.from, body);
    }

    /// Sends in the node's term. Only what a leader says may overtake its own disk: its term and its vote were durable
    /// before it was elected. What others say promises something.
    pub(crate) fn send(&mut self, to: u64, body: MessageBody) {
        let message = Message { from: self.config.id, to, term: self.term, body };
        match self.role {
            Role::Leader(_) => self.messages.push(message),
            _ => self.messages_after_persist.push(message),
        }
    }

    /// Appends an entry of this leader's term.
    pub(crate) fn append_own(&mut self, kind: EntryKind, data: Bytes) -> u64 {
        let index = self.log.last_index() + 1;
        self.log.push(Entry { term: self.term, index, kind, data });
        index
    }
}
