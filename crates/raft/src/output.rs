//! Readies: what a node has to say is collected here, and what has become durable comes back here.

use types::marks::{mutant, sometimes};

use crate::{
    entry::{Entry, EntryKind, HardState},
    message::MessageBody,
    node::{Node, Rng},
    ready::Ready,
    role::Role,
    storage::Storage,
};

impl<S: Storage, R: Rng> Node<S, R> {
    /// Whether [`Node::ready`] has anything to say. It may turn out to be nothing if a follower needs a snapshot that the
    /// storage has not made yet; then there is no more until something happens.
    pub fn has_ready(&self) -> bool {
        !self.messages.is_empty()
            || !self.messages_after_persist.is_empty()
            || self.log.has_unhanded()
            || self.log.deliverable().is_some()
            || self.log.held().is_some_and(|index| self.is_removal_known(index))
            || !self.reads.is_empty()
            || !self.reads_refused.is_empty()
            || self.hard_state() != self.said_hard_state
            || self.role() != self.said_role
            || self.has_appends()
            || self.wants_round()
    }

    /// What to do now. The owner writes part 1 into the storage before it calls anything else here, so that it can be
    /// read; it need not be durable yet, and further Readies may be taken meanwhile. See [`Ready`] for the parts.
    pub fn ready(&mut self) -> Ready {
        self.send_appends();
        self.send_read_round();
        self.ready_number += 1;
        let number = self.ready_number;

        let hard_state = self.hard_state();
        let has_new_promise = (hard_state.term, hard_state.vote)
            != (self.said_hard_state.term, self.said_hard_state.vote);
        let mut said = (hard_state != self.said_hard_state).then_some(hard_state);
        self.said_hard_state = hard_state;
        if mutant!("ignore_vote_persistence")
            && let Some(said) = &mut said
        {
            said.vote = 0;
        }
        let role = self.role();
        let (entries, snapshot) = self.log.hand_out();
        let must_sync = has_new_promise
            || !entries.is_empty()
            || snapshot.is_some()
            || self.log.must_sync_commit();
        if must_sync {
            let index = snapshot.as_ref().map_or(0, |snapshot| snapshot.meta.index);
            self.log.write(number, index, hard_state, self.now);
        }

        let mut messages = std::mem::take(&mut self.messages);
        let mut messages_after_persist = std::mem::take(&mut self.messages_after_persist);
        // With nothing to wait for, nothing waits.
        if self.log.oldest_write().is_none() || mutant!("send_before_sync") {
            match messages.is_empty() {
                true => messages = std::mem::take(&mut messages_after_persist),
                false => messages.append(&mut messages_after_persist),
            }
        }
        let committed = self.deliver();
        self.no_longer_uncommitted(&committed);
        if mutant!("conf_change_applied_twice")
            && committed.last().is_some_and(|entry| entry.kind == EntryKind::ConfChange)
        {
            self.log.deliver_again();
        }
        let ready = Ready {
            number,
            hard_state: said,
            entries,
            snapshot,
            must_sync,
            messages,
            messages_after_persist,
            committed,
            reads: std::mem::take(&mut self.reads),
            reads_refused: std::mem::take(&mut self.reads_refused),
            role: (role != self.said_role).then_some(role),
        };
        self.said_role = role;
        self.check_invariants();
        ready
    }

    /// Hands out what is to be applied, but not the removal of this node before it is known.
    fn deliver(&mut self) -> Vec<Entry> {
        if self.log.held().is_some_and(|index| self.is_removal_known(index)) {
            self.log.release();
        }
        if self.log.held().is_some() {
            return Vec::new();
        }
        let mut entries = self.log.next_to_deliver(self.config.max_apply_bytes);
        let waits =
            |entry: &Entry| self.removes_this_node(entry) && !self.is_removal_known(entry.index);
        let held = entries.iter().position(waits).map(|at| entries.drain(at..).next());
        let held = held.flatten().map(|entry| entry.index);
        if held.is_some() {
            sometimes!("raft: a node waits until its removal is known");
            self.look();
        }
        self.log.deliver(entries.len(), held);
        entries
    }

    /// This Ready and all before it are durable.
    ///
    /// # Panics
    /// If there was no such Ready.
    pub fn persisted(&mut self, number: u64) {
        assert!(number <= self.ready_number, "only what was handed out becomes durable");
        let before = self.log.committed();
        let confirmed = self.log.persist(number);
        if before < self.log.committed() {
            self.tell_committed();
        }
        if let Some(HardState { term, vote, .. }) = confirmed.hard_state
            && term == self.term
            && vote == self.config.id
        {
            self.count_own_vote();
        }
        if self.log.oldest_write().is_some() {
            sometimes!("raft: several Readies are under way");
        }
        self.note_own_progress();
        self.advance_commit();
        self.check_invariants();
    }

    /// What was waiting for the commit index to be durable is committed: who is concerned hears of it at once. A leader
    /// that is removed waits for its followers to know.
    fn tell_committed(&mut self) {
        match self.role {
            Role::Leader(_) => self.look(),
            Role::Follower if self.leader != 0 => {
                let (index, commit) = (self.log.committed(), self.log.committed());
                let body = MessageBody::AppendResponse { index, commit, reject: None };
                self.send(self.leader, body);
            }
            _ => {}
        }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.agreed() }
    }
}
