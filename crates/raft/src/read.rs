//! Linearizable reads without the log (thesis 6.4).
//!
//! A **read index** is a commit index of a leader that is known to have led after the read began. The leader begins a
//! round of heartbeats; when a quorum has answered it in this term, nobody else was elected before it began, and the
//! reads that it carries may see the state at their index. All reads that wait share the next round, and a round has a
//! number of its own: the answer to one that began earlier says nothing about a read that came later.
//!
//! A **lease** saves the round. A follower that has heard from its leader does not vote for an election timeout. So
//! after a quorum has answered a round, nobody is elected for that long after it was *sent*, less what the clocks may
//! differ: with `drift_percent` d, `elapsed × (100 + d) ≤ 100 × ticks`. A tick has begun when it is counted and a
//! follower's promise may begin right before a tick ends, so the leader counts one tick more, and `ticks` is less than
//! the election timeout. The lease ends with a transfer: the successor's voters need not wait, and since the request to
//! campaign may arrive at any later time, there is none for the rest of the term.
//!
//! Neither is possible before the leader has committed an entry of its term: until then its commit index may lie behind
//! what was acknowledged.

use std::collections::VecDeque;

use types::marks::{mutant, sometimes};

use crate::{
    config::{Config, ReadMode},
    error::{Error, ReadError},
    message::MessageBody,
    node::{Forwarded, Node, Rng},
    quorum,
    ready::ReadState,
    role::Role,
    storage::Storage,
};

/// Reads that wait at one node. More are refused: whoever sends so many has to share one read index among them.
const WAITING_MAX: usize = 1 << 16;

/// Rounds whose sending is remembered. Older ones make no lease: a quorum that answers so late made it useless.
const ROUNDS_MAX: usize = 64;

/// On what a read of this moment may rest without asking anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    /// Nothing.
    #[default]
    None,
    /// The promises of a quorum, in answers to a round that was sent since this many ticks ago had begun (0: the present
    /// tick).
    Ticks(u64),
    /// The node is a quorum by itself.
    Alone,
}

/// A leader's reads.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The last round that began.
    round: u64,
    /// The last round that a quorum has answered.
    confirmed: u64,
    /// Rounds that are not confirmed, and the tick at which each began; with leases only.
    sent: VecDeque<(u64, u64)>,
    /// A quorum has promised not to vote from this tick on.
    lease_from: Option<u64>,
    /// Reads of rounds that are not confirmed, in order.
    waiting: VecDeque<Waiting>,
    /// Reads for the next round.
    unsent: Vec<Origin>,
    /// A follower has asked in this term.
    pub(crate) serves_followers: bool,
}

#[derive(Debug)]
struct Waiting {
    round: u64,
    index: u64,
    origin: Origin,
}

/// Who wants a read index.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The owner of this node.
    Local { context: u64 },
    /// A follower.
    Peer { from: u64, id: u64 },
}

impl Reads {
    pub(crate) fn last_round(&self) -> u64 {
        self.round
    }

    /// Begins a round, which carries all reads that are unsent. Returns its number.
    pub(crate) fn begin_round(&mut self, now: u64, committed: u64, config: &Config) -> u64 {
        self.round += 1;
        if matches!(config.read_mode, ReadMode::Lease { .. }) {
            if self.sent.len() == ROUNDS_MAX {
                self.sent.pop_front();
            }
            self.sent.push_back((self.round, now));
        }
        for origin in self.unsent.drain(..) {
            self.waiting.push_back(Waiting { round: self.round, index: committed, origin });
        }
        self.round
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.unsent.len()
    }
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// Asks for an index that, once applied, shows everything that was committed when the call was made. The answer
    /// comes as [`Ready::reads`](crate::Ready) with `context`, or `reads_refused`; it may also never come, if messages
    /// are lost. A follower asks its leader. Contexts need not differ.
    pub fn read_index(&mut self, context: u64) -> Result<(), ReadError> {
        let result = self.begin_read(context);
        self.check_invariants();
        result
    }

    fn begin_read(&mut self, context: u64) -> Result<(), ReadError> {
        if !matches!(self.role, Role::Leader(_)) {
            if self.leader == 0 {
                return Err(ReadError::NoLeader);
            }
            if WAITING_MAX <= self.forwarded.len() {
                return Err(ReadError::Busy);
            }
            let id = self.next_read_id;
            self.next_read_id += 1;
            self.forwarded.push(Forwarded { id, context, since: self.now });
            self.send(self.leader, MessageBody::ReadIndex { id });
            return Ok(());
        }
        self.take_read(Origin::Local { context })
    }

    fn take_read(&mut self, origin: Origin) -> Result<(), ReadError> {
        let committed = self.log.committed();
        let has_lease = self.has_lease();
        let Role::Leader(leader) = &mut self.role else { return Err(ReadError::NoLeader) };
        if !leader.has_committed_own(&self.log) && !mutant!("read_before_first_commit") {
            sometimes!("raft: a read is refused before the first commit of a term");
            return Err(ReadError::NotReady);
        }
        if matches!(origin, Origin::Peer { .. }) {
            leader.reads.serves_followers = true;
        }
        let id = self.config.id;
        if has_lease || quorum::agree(&self.conf, |member| member == id) {
            if has_lease {
                sometimes!("raft: a read is answered from the lease");
            }
            self.answer_read(origin, Some(committed));
            return Ok(());
        }
        if WAITING_MAX <= leader.reads.len() {
            return Err(ReadError::Busy);
        }
        leader.reads.unsent.push(origin);
        Ok(())
    }

    fn answer_read(&mut self, origin: Origin, index: Option<u64>) {
        match (origin, index) {
            (Origin::Local { context }, Some(index)) => {
                self.reads.push(ReadState { context, index, term: self.term });
            }
            (Origin::Local { context }, None) => self.reads_refused.push(context),
            (Origin::Peer { from, id }, index) => {
                self.send(from, MessageBody::ReadIndexResponse { id, index });
            }
        }
    }

    /// Whether a quorum has promised not to elect anybody else, at least until the end of this tick.
    pub(crate) fn has_lease(&self) -> bool {
        let ReadMode::Lease { ticks, drift_percent } = self.config.read_mode else { return false };
        let Role::Leader(leader) = &self.role else { return false };
        let is_given_up = leader.transfer.is_some() || leader.has_abdicated;
        if (is_given_up && !mutant!("lease_kept_on_transfer"))
            || !leader.has_committed_own(&self.log)
        {
            return false;
        }
        let Some(from) = leader.reads.lease_from else { return false };
        let elapsed = self.now + 1 - from;
        elapsed * (100 + u64::from(drift_percent)) <= 100 * u64::from(ticks)
    }

    /// On what a reader on another thread may rest, as long as that thread knows by a clock of its own how long the ticks
    /// have taken: for less than the election timeout less one tick, less the drift, from the beginning of the tick in
    /// which the round was sent. A leader has none before it has committed an entry of its term.
    pub fn lease(&self) -> Lease {
        let Role::Leader(leader) = &self.role else { return Lease::None };
        let id = self.config.id;
        if quorum::agree(&self.conf, |member| member == id) {
            return match leader.has_committed_own(&self.log) {
                true => Lease::Alone,
                false => Lease::None,
            };
        }
        match leader.reads.lease_from {
            Some(from) if self.has_lease() => Lease::Ticks(self.now - from),
            Some(_) | None => Lease::None,
        }
    }

    /// Whether the node leads, and has been asked by a follower for a read index in its term.
    ///
    /// A follower that reads may be further with applying than the leader. So from then on an owner who answers reads
    /// from what it has applied, under a lease, has to have applied all that is committed: else it would show what was
    /// before something that a follower has shown. Who has asked the leader of an earlier term, and reads late, must not
    /// show entries of this one ([`ReadState::term`]).
    pub fn serves_followers(&self) -> bool {
        self.role.leader().is_some_and(|leader| leader.reads.serves_followers)
    }

    /// The last entry that the node knows to be committed.
    pub fn committed(&self) -> u64 {
        self.log.committed()
    }

    /// Whether there are reads for which a round should begin: none is under way.
    pub(crate) fn wants_round(&self) -> bool {
        self.role.leader().is_some_and(|leader| {
            !leader.reads.unsent.is_empty() && leader.reads.waiting.is_empty()
        })
    }

    /// Begins a round for the reads that wait, if none is under way.
    pub(crate) fn send_read_round(&mut self) {
        if self.wants_round() {
            self.broadcast_heartbeat();
        }
    }

    /// Somebody has answered a round: answers the reads of all rounds that a quorum has answered now.
    pub(crate) fn confirm_rounds(&mut self) {
        let id = self.config.id;
        let Role::Leader(leader) = &mut self.role else { return };
        let last = leader.reads.round;
        let confirmed = quorum::reached(&self.conf, |member| match leader.get(member) {
            Some(_) if member == id => last,
            Some(progress) if mutant!("stale_read_ack_counts") && 0 < progress.acked_round => last,
            Some(progress) => progress.acked_round,
            None => 0,
        });
        let reads = &mut leader.reads;
        if confirmed <= reads.confirmed {
            return;
        }
        reads.confirmed = confirmed;
        while let Some(&(round, since)) = reads.sent.front() {
            if confirmed < round {
                break;
            }
            reads.sent.pop_front();
            let from = if mutant!("lease_from_the_answer") { self.now } else { since };
            reads.lease_from = reads.lease_from.max(Some(from));
        }
        while let Role::Leader(leader) = &mut self.role
            && let Some(waiting) = leader.reads.waiting.pop_front_if(|read| read.round <= confirmed)
        {
            self.answer_read(waiting.origin, Some(waiting.index));
        }
    }

    /// A follower wants a read index.
    pub(crate) fn on_read_index(&mut self, from: u64, id: u64) -> Result<(), Error> {
        if !matches!(self.role, Role::Leader(_)) {
            return Ok(()); // it asks again when it knows the leader
        }
        if !self.conf.contains(from) {
            return Err(Error::UnknownPeer { from });
        }
        let origin = Origin::Peer { from, id };
        if self.take_read(origin).is_err() {
            self.answer_read(origin, None);
        }
        Ok(())
    }

    /// The leader's answer.
    pub(crate) fn on_read_index_response(
        &mut self,
        id: u64,
        index: Option<u64>,
    ) -> Result<(), Error> {
        let Some(at) = self.forwarded.iter().position(|request| request.id == id) else {
            return Ok(()); // of an attempt that was given up
        };
        let context = self.forwarded.remove(at).context;
        self.answer_read(Origin::Local { context }, index);
        Ok(())
    }

    /// Requests that the leader has not answered for an election timeout are lost.
    pub(crate) fn expire_forwarded_reads(&mut self) {
        let limit = u64::from(self.config.election_ticks);
        while let Some(request) = self.forwarded.first()
            && limit <= self.now - request.since
        {
            self.reads_refused.push(self.forwarded.remove(0).context);
        }
    }

    /// The role or the term changes: no read that waits here will be answered.
    pub(crate) fn give_up_reads(&mut self) {
        for request in self.forwarded.drain(..) {
            self.reads_refused.push(request.context);
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let waiting = std::mem::take(&mut leader.reads.waiting);
        let unsent = std::mem::take(&mut leader.reads.unsent);
        let origins = waiting.into_iter().map(|read| read.origin).chain(unsent);
        for origin in origins {
            // Followers notice the new term by themselves.
            if let Origin::Local { context } = origin {
                sometimes!("raft: a read is given up with the leadership");
                self.reads_refused.push(context);
            }
        }
    }

    /// The owner has slept, and will not deliver all ticks that have passed: there is no lease until a round that begins
    /// from now on is answered. (Else a lease that is counted in ticks would seem to last.)
    pub fn forget_lease(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.reads.lease_from = None;
            leader.reads.sent.clear();
        }
    }

    /// A transfer begins: there is no lease until another round has begun after it has ended.
    pub(crate) fn drop_lease(&mut self) {
        if mutant!("lease_kept_on_transfer") {
            return;
        }
        self.forget_lease();
    }
}
