//! What a node does about changes of the members. The rules of what they may be stand in membership.rs.
//!
//! A leader that is removed goes on leading the others, without a vote of its own, until a quorum of them knows that
//! its removal is committed. Otherwise, in a group of two, the one that stays would wait for ever for the vote of the
//! one that has left.
//!
//! Nobody hands out its own removal by single step before one who stays is known to know of it, durably: its owner
//! destroys it then. A follower has heard it from such a one; a leader waits for a quorum of the others, and is a member
//! until then, with everything that a member can do for those who are behind.

use types::marks::{mutant, sometimes};

use crate::{
    entry::{Entry, EntryKind},
    error::ProposeError,
    membership::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition},
    message::MessageBody,
    node::{Node, Rng},
    progress::Progress,
    quorum,
    role::Role,
    storage::Storage,
};

impl<S: Storage, R: Rng> Node<S, R> {
    pub(crate) fn propose_change(
        &mut self,
        change: &ConfChange,
    ) -> Result<(u64, u64), ProposeError> {
        let uncommitted = self.may_propose()?;
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        if self.log.applied() < leader.pending_conf_index && !mutant!("two_conf_changes_at_once") {
            return Err(ProposeError::ConfChangePending);
        }
        self.check_change(change).map_err(ProposeError::ConfChangeInvalid)?;
        let data = change.encode();
        let (bytes, max) = (data.len(), self.config.max_entry_bytes);
        if max < bytes {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let index = self.append_own(EntryKind::ConfChange, data);
        if let Role::Leader(leader) = &mut self.role {
            leader.pending_conf_index = index;
        }
        self.proposed(uncommitted + bytes);
        Ok((index, self.term))
    }

    /// Whether the change makes sense from here, and leaves a group that can go on.
    fn check_change(&self, change: &ConfChange) -> Result<(), &'static str> {
        let next = self.conf.after(change)?;
        if next.voters.is_empty() {
            return Err("a group keeps a voter");
        }
        Ok(())
    }

    /// Makes a change of the members take effect: the owner calls it when it applies the entry, once, in order, and
    /// stores the answer, the members from there on, with what it has applied. A change that makes no sense changes
    /// nothing.
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> ConfState {
        if let Ok(next) = self.conf.after(change)
            && next != self.conf
        {
            self.conf = next;
            self.members_changed();
        }
        self.check_invariants();
        self.conf.clone()
    }

    fn members_changed(&mut self) {
        let (id, last, committed) = (self.config.id, self.log.last_index(), self.log.committed());
        if self.conf.is_joint() {
            sometimes!("raft: a joint state begins");
        }
        let conf = &self.conf;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.progress.retain(|progress| progress.id == id || conf.contains(progress.id));
        for member in conf.members() {
            if leader.get(member).is_none() {
                leader.progress.push(Progress::new(member, last, self.now));
            }
        }
        leader.progress.sort_by_key(|progress| progress.id);
        leader.must_look = true;
        if leader.transfer.as_ref().is_some_and(|transfer| !conf.voters.contains(&transfer.target))
        {
            leader.transfer = None;
        }
        if !conf.is_voter(id) && leader.removed_at.is_none() {
            leader.removed_at = Some(committed);
        } else if conf.is_voter(id) {
            leader.removed_at = None;
        }
        // The quorum may be smaller now.
        self.advance_commit();
        self.confirm_rounds();
        self.leave_if_removed();
    }

    /// Leaves a joint state that is to be left by itself, as soon as that may be proposed.
    pub(crate) fn leave_joint_state(&mut self) {
        if !self.conf.auto_leave {
            return;
        }
        // A leader that may not propose now tries again with the next applied entry and the next check of the quorum.
        if let Role::Leader(leader) = &self.role
            && leader.pending_conf_index <= self.log.applied()
        {
            let leave = ConfChange { transition: Transition::Auto, ..ConfChange::leave() };
            let _ = self.propose_change(&leave);
        }
    }

    /// Whether this entry removes this node by a single step.
    pub(crate) fn removes_this_node(&self, entry: &Entry) -> bool {
        let id = self.config.id;
        let removes = |change: ConfChange| {
            let removal = ConfChangeSingle { kind: ConfChangeKind::Remove, id };
            !change.is_joint() && change.changes.contains(&removal)
        };
        entry.kind == EntryKind::ConfChange && ConfChange::decode(&entry.data).is_ok_and(removes)
    }

    /// Whether those who stay know that the removal of this node at `index` is committed.
    pub(crate) fn is_removal_known(&self, index: u64) -> bool {
        if index <= self.told_commit || self.is_followed_by_a_change(index) {
            return true;
        }
        let Role::Leader(leader) = &self.role else { return false };
        let removal = ConfChange::single(ConfChangeKind::Remove, self.config.id);
        let Ok(rest) = self.conf.after(&removal) else { return false };
        rest.voters.is_empty()
            || quorum::agree(&rest, |member| {
                leader.get(member).is_some_and(|progress| index <= progress.committed)
            })
    }

    /// Whether a change of the members that is committed lies behind the one at `index`: who proposed it had applied that
    /// one, and so knew it durably. (The owner has added a node again under the id of one that was removed.)
    fn is_followed_by_a_change(&self, index: u64) -> bool {
        let end = self.log.agreed() + 1;
        let mut next = index + 1;
        while next < end {
            let Ok(entries) = self.log.entries(next, end, self.config.max_apply_bytes) else {
                break;
            };
            if entries.iter().any(|entry| entry.kind == EntryKind::ConfChange) {
                return true;
            }
            let Some(last) = entries.last() else { break };
            next = last.index + 1;
        }
        false
    }

    /// A leader that is no voter any more leaves when the others can go on without it, and asks the best of them to
    /// lead.
    pub(crate) fn leave_if_removed(&mut self) {
        let id = self.config.id;
        let Role::Leader(leader) = &self.role else { return };
        let Some(index) = leader.removed_at else { return };
        let is_known = quorum::agree(&self.conf, |member| {
            leader.get(member).is_some_and(|progress| index <= progress.committed)
        });
        let is_alone = self.conf.voters.is_empty();
        if !is_known && !is_alone {
            return;
        }
        sometimes!("raft: a removed leader leaves");
        let successor = leader.furthest(|member| self.conf.voters.contains(&member), id);
        if let Some(successor) = successor {
            self.send(successor, MessageBody::TimeoutNow);
        }
        self.become_follower(self.term, 0);
    }
}
