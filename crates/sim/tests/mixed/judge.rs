//! What must hold, looked at after every event, and what has happened, counted.

use std::collections::{BTreeMap, BTreeSet};

use raft::{ConfState, Entry, EntryKind, HardState, SnapshotMeta};
use sim::hash::{fingerprint, mix};

use super::node::{Kind, View, number_of};

/// Where a group begins: with a snapshot, as both kinds want it.
pub(crate) const BASE_INDEX: u64 = 5;
/// The term of that.
pub(crate) const BASE_TERM: u64 = 1;

/// Knows everything that was ever committed, elected, voted and acknowledged.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The committed entries from `BASE_INDEX + 1` on, and the state after each.
    committed: Vec<(Entry, u64)>,
    /// The members from these indexes on.
    confs: BTreeMap<u64, ConfState>,
    /// Who leads in a term.
    leaders: BTreeMap<u64, (u64, Kind)>,
    votes: BTreeMap<(u64, u64), u64>,
    /// What was proposed where: index and term, and the entry's data.
    proposed: BTreeMap<(u64, u64), (u64, Vec<u8>)>,
    acknowledged: BTreeSet<u64>,
    numbers: BTreeSet<u64>,
    /// What is known to be committed, by anybody.
    known: u64,
    pub(crate) seen: Seen,
}

/// What has happened how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) BTreeMap<String, u64>);

impl Seen {
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Seen) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }
}

/// The state of an application after one more entry: a number that stands for all entries up to it.
pub(crate) fn state_after(state: u64, entry: &Entry) -> u64 {
    let kind = u64::from(entry.kind == EntryKind::ConfChange);
    let words = [entry.index, entry.term, kind, fingerprint(&entry.data)];
    words.iter().fold(state, |state, word| mix(state ^ word))
}

impl Judge {
    pub(crate) fn new(conf: ConfState) -> Judge {
        Judge {
            committed: Vec::new(),
            confs: BTreeMap::from([(BASE_INDEX, conf)]),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            proposed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            numbers: BTreeSet::new(),
            known: BASE_INDEX,
            seen: Seen::default(),
        }
    }

    /// A node of this kind, after an event. Whether it leads in a term in which nobody was seen to.
    pub(crate) fn look(&mut self, id: u64, kind: Kind, view: View) -> bool {
        self.known = self.known.max(view.committed);
        assert!(view.committed <= view.last, "node {id} has what it knows to be committed");
        if !view.is_leader {
            return false;
        }
        let is_new = !self.leaders.contains_key(&view.term);
        let (leader, _) = *self.leaders.entry(view.term).or_insert((id, kind));
        assert_eq!(leader, id, "term {} has two leaders", view.term);
        if is_new {
            self.seen.note(format!("{kind:?} leads"));
        }
        is_new
    }

    /// A hard state became durable. Whom it gives a vote that was not durable before.
    pub(crate) fn persisted(&mut self, id: u64, state: HardState) -> Option<u64> {
        if state.vote == 0 {
            return None;
        }
        let before = self.votes.insert((id, state.term), state.vote);
        assert!(
            before.is_none_or(|vote| vote == state.vote),
            "node {id} votes twice in term {}",
            state.term
        );
        before.is_none().then_some(state.vote)
    }

    /// Something was proposed at node `id`, and is at this place of its log.
    pub(crate) fn proposed(&mut self, id: u64, (index, term): (u64, u64), data: &[u8]) {
        let before = self.proposed.insert((index, term), (id, data.to_vec()));
        assert_eq!(before, None, "two proposals of term {term} are at index {index}");
    }

    /// A node applies an entry. Its state is `state` now.
    pub(crate) fn applied(&mut self, id: u64, kind: Kind, entry: &Entry, state: u64) {
        let at = (entry.index - BASE_INDEX - 1) as usize;
        if let Some((first, first_state)) = self.committed.get(at) {
            assert_eq!(entry, first, "node {id} applies what others have not");
            assert_eq!(state, *first_state, "node {id} has another state at {}", entry.index);
        } else {
            assert_eq!(at, self.committed.len(), "node {id} leaves entries out");
            self.committed.push((entry.clone(), state));
            self.first_applied(entry);
        }
        let place = (entry.index, entry.term);
        if self.proposed.get(&place).is_some_and(|(proposer, _)| *proposer == id)
            && self.acknowledged.insert(entry.index)
        {
            self.seen.note(match entry.kind {
                EntryKind::Normal => format!("{kind:?} commits"),
                EntryKind::ConfChange => format!("{kind:?} changes the members"),
            });
        }
    }

    fn first_applied(&mut self, entry: &Entry) {
        let proposal = self.proposed.get(&(entry.index, entry.term));
        if let Some((_, data)) = proposal {
            assert_eq!(entry.data, *data, "what is at {} was not proposed there", entry.index);
        }
        if let Some(number) = number_of(entry) {
            assert!(proposal.is_some(), "nobody has proposed {number}");
            assert!(self.numbers.insert(number), "{number} is committed twice");
        }
        if entry.kind == EntryKind::ConfChange && proposal.is_none() {
            let (_, kind) = self.leaders[&entry.term];
            self.seen.note(format!("{kind:?} leaves a joint state by itself"));
        }
    }

    /// The members of a node after it has applied a change at `index`.
    pub(crate) fn changed(&mut self, id: u64, index: u64, conf: &ConfState) {
        let first = self.confs.entry(index).or_insert_with(|| conf.clone());
        assert_eq!(first, conf, "node {id} has other members from {index} on");
    }

    /// A node has a snapshot in place of its log.
    pub(crate) fn restored(&self, id: u64, meta: &SnapshotMeta, state: u64) {
        let at = meta.index - BASE_INDEX - 1;
        let (entry, first_state) = &self.committed[at as usize];
        assert_eq!(meta.term, entry.term, "node {id} gets a snapshot of another term");
        assert_eq!(state, *first_state, "node {id} gets another state at {}", meta.index);
        assert_eq!(&meta.conf, self.conf_at(meta.index), "node {id} gets other members");
    }

    /// The members as of an index.
    pub(crate) fn conf_at(&self, index: u64) -> &ConfState {
        let (_, conf) = self.confs.range(..=index).next_back().expect("a group has members");
        conf
    }

    /// What a read that begins now must show.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Whether a proposal was acknowledged.
    pub(crate) fn is_acknowledged(&self, place: (u64, u64)) -> bool {
        self.acknowledged.contains(&place.0)
            && self.committed[(place.0 - BASE_INDEX - 1) as usize].0.term == place.1
    }

    /// The end: all members have applied everything up to `index`, and their logs end there.
    pub(crate) fn ended(&self, index: u64) {
        let last = self.acknowledged.last().copied().unwrap_or(0);
        assert!(last <= index, "what was acknowledged at {last} is lost: the log ends at {index}");
        assert_eq!(index, BASE_INDEX + self.committed.len() as u64, "something is lost");
    }
}
