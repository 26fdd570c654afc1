//! Words that the course's tests share.
#![allow(dead_code, reason = "each test file uses some of them")]

use raft::{
    Entry, EntryKind, MemStorage, Message, MessageBody, RoleKind, testing::course::CourseNode,
};

/// Nobody.
pub(crate) const NONE: u64 = 0;

/// An entry without data.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    data(term, index, b"")
}

/// An entry with data.
pub(crate) fn data(term: u64, index: u64, data: &'static [u8]) -> Entry {
    Entry { term, index, kind: EntryKind::Normal, data: data.into() }
}

/// Entries from index 1 on, of these terms.
pub(crate) fn entries(terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(&term, index)| entry(term, index)).collect()
}

/// A storage with these entries.
pub(crate) fn storage(entries: &[Entry]) -> MemStorage {
    let mut storage = MemStorage::new([]);
    storage.append(entries);
    storage
}

/// Node 1 of `peers`, timeouts of 10 and 1 ticks, nothing in its storage.
pub(crate) fn node(peers: &[u64]) -> CourseNode {
    CourseNode::new(1, peers, 10, 1, MemStorage::new([]))
}

/// The ids of a group.
pub(crate) fn ids(size: u64) -> Vec<u64> {
    (1..=size).collect()
}

/// An append.
pub(crate) fn append(index: u64, log_term: u64, entries: Vec<Entry>, commit: u64) -> MessageBody {
    MessageBody::Append { index, log_term, entries, commit }
}

/// A request for a vote.
pub(crate) fn vote(last_index: u64, last_term: u64) -> MessageBody {
    MessageBody::Vote { last_index, last_term, commit: 0, commit_term: 0, transfer: false }
}

/// A follower has everything up to `index`.
pub(crate) fn has(index: u64) -> MessageBody {
    MessageBody::AppendResponse { index, commit: 0, reject: None }
}

/// Whether an answer is a refusal.
pub(crate) fn is_rejected(message: &Message) -> bool {
    match message.body {
        MessageBody::AppendResponse { reject, .. } => reject.is_some(),
        MessageBody::VoteResponse { granted } => !granted,
        _ => panic!("no answer: {message:?}"),
    }
}

/// The receiver of an append takes it: its answer, given to the leader.
pub(crate) fn accept(leader: &mut CourseNode, message: &Message) {
    let MessageBody::Append { index, entries, .. } = &message.body else {
        panic!("no append: {message:?}");
    };
    leader.step(message.to, message.term, has(index + entries.len() as u64)).unwrap();
}

/// All followers take the no-op of a new leader, and it is applied.
pub(crate) fn commit_no_op(leader: &mut CourseNode) {
    assert_eq!(leader.role(), RoleKind::Leader);
    for message in leader.read_messages() {
        accept(leader, &message);
    }
    leader.read_messages();
    leader.next_entries();
    leader.unstable_entries();
}
