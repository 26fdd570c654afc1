//! Who is in the group, and how that changes (Raft paper, section 6; thesis, chapter 4).
//!
//! A change takes effect at a node when the node **applies** it, not when it appends it (the thesis does the latter).
//! That is safe because of three rules, which the node keeps:
//! - at most one change is under way: the next is proposed when the last is applied by the leader, and none before the
//!   leader has applied the first entry of its term (Ongaro, "bug in single-server membership changes", 2015);
//! - nobody campaigns while it has a committed change that it has not applied;
//! - a log that has two changes proves that all but the last of them are committed.
//!
//! One voter at a time may change in a single step. Everything else goes through a **joint** state, in which both the
//! old and the new voters must agree, and which a second, empty change leaves.
//!
//! Applying is total and deterministic: a change that makes no sense changes nothing, at every node alike.

use bytes::Bytes;
use types::codec::{DecodeError, Reader, Writer};

/// The members of a group. Lists are sorted and have no id twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfState {
    /// Who votes; in a joint state, the new voters.
    pub voters: Vec<u64>,
    /// In a joint state, the old voters; otherwise empty.
    pub voters_outgoing: Vec<u64>,
    /// Who gets the log and does not vote.
    pub learners: Vec<u64>,
    /// Old voters that become learners when the joint state ends.
    pub learners_next: Vec<u64>,
    /// Whether the leader leaves the joint state by itself.
    pub auto_leave: bool,
}

/// A change of the members; the data of an entry of kind [`ConfChange`](crate::EntryKind::ConfChange).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// By a single step or by a joint state.
    pub transition: Transition,
    /// What changes; nothing: leaves the joint state.
    pub changes: Vec<ConfChangeSingle>,
    /// For the owner. The core never looks inside.
    pub context: Bytes,
}

/// How a change is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    /// One change: a single step. More: like `JointImplicit`.
    #[default]
    Auto,
    /// Through a joint state, which the leader leaves by itself.
    JointImplicit,
    /// Through a joint state, which lasts until an empty change is proposed.
    JointExplicit,
}

/// One member's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfChangeSingle {
    /// What changes.
    pub kind: ConfChangeKind,
    /// Whose; 0 is nobody, and changes nothing.
    pub id: u64,
}

/// What changes for a member. A change to what it is already changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfChangeKind {
    /// It votes from now on.
    AddVoter,
    /// It gets the log and does not vote.
    AddLearner,
    /// It is out.
    Remove,
}

impl ConfState {
    /// A group of voters alone.
    pub fn of_voters(voters: impl IntoIterator<Item = u64>) -> ConfState {
        let mut conf = ConfState::default();
        for id in voters {
            insert(&mut conf.voters, id);
        }
        conf
    }

    /// Whether two sets of voters have to agree.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether the node votes, in one of the two sets.
    pub fn is_voter(&self, id: u64) -> bool {
        contains(&self.voters, id) || contains(&self.voters_outgoing, id)
    }

    /// Whether the node gets the log without a vote.
    pub fn is_learner(&self, id: u64) -> bool {
        contains(&self.learners, id)
    }

    /// Whether the node is in the group.
    pub fn contains(&self, id: u64) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// All members, in order, each once.
    pub fn members(&self) -> Vec<u64> {
        let mut members = self.voters.clone();
        for &id in self.voters_outgoing.iter().chain(&self.learners) {
            insert(&mut members, id);
        }
        members
    }

    /// Whether this can be the members of a group that has any. Errors name the rule that is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        let lists = [&self.voters, &self.voters_outgoing, &self.learners, &self.learners_next];
        if lists.iter().any(|list| list.windows(2).any(|pair| pair[1] <= pair[0])) {
            return Err("members are sorted, each once");
        }
        if lists.iter().any(|list| list.contains(&0)) {
            return Err("no member has id 0");
        }
        if self.voters.is_empty() {
            return Err("a group has a voter");
        }
        if self.learners.iter().any(|&id| self.is_voter(id)) {
            return Err("a learner is no voter");
        }
        let next_votes =
            |id: &u64| contains(&self.voters_outgoing, *id) && !contains(&self.voters, *id);
        if !self.learners_next.iter().all(next_votes) {
            return Err("who becomes a learner was a voter, and is none of the new ones");
        }
        if self.auto_leave && !self.is_joint() {
            return Err("only a joint state is left");
        }
        Ok(())
    }

    /// The members after `change`. Errors say why it makes no sense from here.
    pub fn after(&self, change: &ConfChange) -> Result<ConfState, &'static str> {
        let mut next = self.clone();
        if change.changes.is_empty() {
            if !self.is_joint() {
                return Err("there is no joint state to leave");
            }
            next.voters_outgoing.clear();
            for id in std::mem::take(&mut next.learners_next) {
                insert(&mut next.learners, id);
            }
            next.auto_leave = false;
            return Ok(next);
        }
        if self.is_joint() {
            return Err("a joint state must be left first");
        }
        if change.is_joint() {
            next.voters_outgoing = self.voters.clone();
            next.auto_leave = change.transition != Transition::JointExplicit;
            if self.voters.is_empty() {
                return Err("a group without voters has nobody to agree");
            }
        }
        for single in change.changes.iter().filter(|single| single.id != 0) {
            next.make(*single);
        }
        if change.is_joint() && next.voters.is_empty() {
            return Err("a group keeps a voter");
        }
        Ok(next)
    }

    fn make(&mut self, single: ConfChangeSingle) {
        let ConfChangeSingle { kind, id } = single;
        match kind {
            ConfChangeKind::AddVoter => {
                remove(&mut self.learners, id);
                remove(&mut self.learners_next, id);
                insert(&mut self.voters, id);
            }
            ConfChangeKind::AddLearner => {
                remove(&mut self.voters, id);
                // Who still votes in the old set becomes a learner when that set is gone.
                match contains(&self.voters_outgoing, id) {
                    true => insert(&mut self.learners_next, id),
                    false => insert(&mut self.learners, id),
                }
            }
            ConfChangeKind::Remove => {
                remove(&mut self.voters, id);
                remove(&mut self.learners, id);
                remove(&mut self.learners_next, id);
            }
        }
    }
}

impl ConfChange {
    /// One member's change, by a single step.
    pub fn single(kind: ConfChangeKind, id: u64) -> ConfChange {
        ConfChange { changes: vec![ConfChangeSingle { kind, id }], ..ConfChange::default() }
    }

    /// The change that leaves a joint state.
    pub fn leave() -> ConfChange {
        ConfChange::default()
    }

    /// Whether the change goes through a joint state.
    pub fn is_joint(&self) -> bool {
        match self.transition {
            Transition::Auto => 1 < self.changes.len(),
            Transition::JointImplicit | Transition::JointExplicit => !self.changes.is_empty(),
        }
    }

    /// The bytes of an entry: `version u8 = 1 | transition u8 | n u32 | n × (kind u8, id u64) | context`, big-endian,
    /// the context with its length before it.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(1).u8(match self.transition {
            Transition::Auto => 0,
            Transition::JointImplicit => 1,
            Transition::JointExplicit => 2,
        });
        writer.u32(u32::try_from(self.changes.len()).expect("a change is of few members"));
        for single in &self.changes {
            writer.u8(match single.kind {
                ConfChangeKind::AddVoter => 0,
                ConfChangeKind::AddLearner => 1,
                ConfChangeKind::Remove => 2,
            });
            writer.u64(single.id);
        }
        writer.bytes(&self.context);
        Bytes::from(writer.finish())
    }

    /// Reads what [`ConfChange::encode`] has written.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => {}
            found => return Err(DecodeError::Newer { found: found.into(), known: 1 }),
        }
        let transition = match reader.u8()? {
            0 => Transition::Auto,
            1 => Transition::JointImplicit,
            2 => Transition::JointExplicit,
            _ => return Err(DecodeError::Invalid("transition")),
        };
        let count = reader.u32()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let kind = match reader.u8()? {
                0 => ConfChangeKind::AddVoter,
                1 => ConfChangeKind::AddLearner,
                2 => ConfChangeKind::Remove,
                _ => return Err(DecodeError::Invalid("kind of change")),
            };
            changes.push(ConfChangeSingle { kind, id: reader.u64()? });
        }
        let context = Bytes::copy_from_slice(reader.bytes()?);
        match reader.remaining() {
            0 => Ok(ConfChange { transition, changes, context }),
            _ => Err(DecodeError::Invalid("end of a change of members")),
        }
    }
}

fn contains(sorted: &[u64], id: u64) -> bool {
    // Groups have three or five members: looking at each is faster than a binary search.
    sorted.contains(&id)
}

fn insert(sorted: &mut Vec<u64>, id: u64) {
    if let Err(at) = sorted.binary_search(&id) {
        sorted.insert(at, id);
    }
}

fn remove(sorted: &mut Vec<u64>, id: u64) {
    sorted.retain(|&member| member != id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConfChangeKind::{AddLearner, AddVoter, Remove};

    fn change(transition: Transition, changes: &[(ConfChangeKind, u64)]) -> ConfChange {
        let changes = changes.iter().map(|&(kind, id)| ConfChangeSingle { kind, id }).collect();
        ConfChange { transition, changes, context: Bytes::new() }
    }

    #[test]
    fn a_joint_state_keeps_the_old_voters_until_it_is_left() {
        let start = ConfState::of_voters([1, 2, 3]);
        let joint = start
            .after(&change(Transition::Auto, &[(AddVoter, 4), (Remove, 1), (AddLearner, 2)]))
            .unwrap();
        assert_eq!((&joint.voters[..], &joint.voters_outgoing[..]), (&[3, 4][..], &[1, 2, 3][..]));
        assert_eq!((&joint.learners[..], &joint.learners_next[..]), (&[][..], &[2][..]));
        assert!(joint.auto_leave && joint.check().is_ok());
        assert_eq!(joint.members(), [1, 2, 3, 4]);
        assert!(joint.after(&ConfChange::single(AddVoter, 5)).is_err(), "one thing at a time");

        let left = joint.after(&ConfChange::leave()).unwrap();
        assert_eq!((&left.voters[..], &left.learners[..]), (&[3, 4][..], &[2][..]));
        assert!(!left.is_joint() && !left.auto_leave && left.check().is_ok());
        assert!(left.after(&ConfChange::leave()).is_err());
    }

    #[test]
    fn a_single_step_changes_one_member_and_repeats_change_nothing() {
        let start = ConfState::of_voters([1, 2]);
        let added = start.after(&ConfChange::single(AddLearner, 3)).unwrap();
        assert_eq!((added.is_learner(3), added.is_voter(3)), (true, false));
        let promoted = added.after(&ConfChange::single(AddVoter, 3)).unwrap();
        assert_eq!((promoted.is_learner(3), promoted.is_voter(3)), (false, true));
        assert_eq!(promoted.after(&ConfChange::single(AddVoter, 3)).unwrap(), promoted);
        assert_eq!(promoted.after(&ConfChange::single(AddVoter, 0)).unwrap(), promoted);
        let demoted = promoted.after(&ConfChange::single(AddLearner, 3)).unwrap();
        assert_eq!(demoted, added);
    }

    #[test]
    fn a_group_does_not_lose_its_last_voter_by_a_joint_change() {
        let start = ConfState::of_voters([1]);
        assert!(start.after(&change(Transition::JointExplicit, &[(Remove, 1)])).is_err());
        assert!(start.after(&ConfChange::single(Remove, 1)).unwrap().voters.is_empty());
    }

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_is() {
        let mut all =
            change(Transition::JointExplicit, &[(AddVoter, 1), (AddLearner, 2), (Remove, 3)]);
        all.context = Bytes::from_static(b"why");
        for change in [all, ConfChange::leave(), ConfChange::single(Remove, u64::MAX)] {
            let bytes = change.encode();
            assert_eq!(ConfChange::decode(&bytes), Ok(change));
            for end in 0..bytes.len() {
                assert!(ConfChange::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(ConfChange::decode(&longer).is_err());
        }
        assert_eq!(
            ConfChange::single(AddVoter, 2).encode()[..],
            *b"\x01\0\0\0\0\x01\0\0\0\0\0\0\0\0\x02\0\0\0\0"
        );
    }
}
