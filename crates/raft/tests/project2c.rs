//! The raft part of the course's project 2C, test by test: names, inputs and expected values are the course's.
//!
//! The course sends a snapshot of term 11 in a message of term 2. No leader has entries of terms after its own, so that
//! message is refused, which is tested too, and the same one in term 11 is taken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use bytes::Bytes;
use raft::{
    ConfState, Error, HardState, MemStorage, Message, MessageBody, RoleKind, Snapshot,
    SnapshotMeta,
    testing::course::{CourseNode, Network},
};

use course::*;

/// A snapshot at the course's magic numbers.
fn snapshot(members: &[u64]) -> Snapshot {
    at(11, 11, members)
}

fn at(index: u64, term: u64, members: &[u64]) -> Snapshot {
    let conf = ConfState::of_voters(members.iter().copied());
    Snapshot { meta: SnapshotMeta { index, term, conf }, data: Bytes::new() }
}

#[test]
fn test_restore_snapshot_2c() {
    let mut r = node(&ids(2));
    r.handle_snapshot(snapshot(&[1, 2, 3]));
    assert_eq!(r.last_index(), 11);
    assert_eq!(r.node.log_term(11), Some(11));
    assert_eq!(r.node.conf().members(), [1, 2, 3]);
}

#[test]
fn test_restore_ignore_snapshot_2c() {
    let mut r = CourseNode::new(1, &ids(2), 10, 1, storage(&entries(&[1, 1, 1])));
    r.set_committed(3);
    r.handle_snapshot(at(1, 1, &[1, 2]));
    assert_eq!(r.committed(), 3);
}

#[test]
fn test_provide_snap_2c() {
    let mut r = node(&[1]);
    r.handle_snapshot(snapshot(&[1, 2]));
    r.become_candidate();
    r.become_leader();
    r.read_messages();
    r.set_next(2, 10);
    r.propose(b"somedata").unwrap();
    let messages = r.read_messages();
    assert_eq!(messages.len(), 1);
    assert!(matches!(messages[0].body, MessageBody::Snapshot(_)), "{messages:?}");
}

/// Gives node 2 the message of the course, which it refuses, and then one that a leader could send.
fn take_snapshot(r: &mut CourseNode, snapshot: Snapshot) {
    let before = r.node.status();
    let message = |term| Message {
        from: 1,
        to: 2,
        term,
        body: MessageBody::Snapshot(snapshot.clone().into()),
    };
    assert!(matches!(r.node.step(message(2)), Err(Error::Malformed(_))));
    assert_eq!(r.node.status(), before);
    r.node.step(message(11)).unwrap();
    r.pump();
}

#[test]
fn test_restore_from_snap_msg_2c() {
    let mut r = CourseNode::new(2, &ids(2), 10, 1, MemStorage::new([]));
    take_snapshot(&mut r, snapshot(&[1, 2]));
    assert_eq!(r.leader(), 1);
}

#[test]
fn test_restore_from_snap_with_overlaping_peers_msg_2c() {
    let mut r = CourseNode::new(2, &ids(3), 10, 1, MemStorage::new([]));
    take_snapshot(&mut r, snapshot(&[2, 3, 4]));
    assert_eq!(r.leader(), 1);
    assert_eq!(r.node.conf().members(), [2, 3, 4]);
}

#[test]
fn test_slow_node_restore_2c() {
    let mut network = Network::new(&[true; 3]);
    network.at(1, CourseNode::hup);
    network.isolate(3);
    let propose = |network: &mut Network| {
        network.at(1, |r| {
            r.propose(b"").unwrap();
        });
    };
    for _ in 0..=100 {
        propose(&mut network);
    }
    let lead = network.node(1);
    lead.next_entries();
    let (applied, conf) = (lead.node.status().applied, lead.node.conf().clone());
    lead.node.storage_mut().create_snapshot(applied, conf, Bytes::new()).unwrap();
    lead.node.storage_mut().compact(applied).unwrap();
    network.recover();
    network.at(1, CourseNode::beat);
    propose(&mut network);
    propose(&mut network);
    let committed = network.node(1).committed();
    assert_eq!(network.node(3).committed(), committed);
    assert_eq!(network.node(3).role(), RoleKind::Follower);
}

#[test]
fn test_raw_node_restart_from_snapshot_2c() {
    let log = [data(1, 3, b"foo")];
    let mut storage = MemStorage::new([]);
    storage.set_hard_state(HardState { term: 1, vote: 0, commit: 3 });
    storage.apply_snapshot(at(2, 1, &[1, 2])).unwrap();
    storage.append(&log);
    let mut r = CourseNode::new(1, &[], 10, 1, storage);
    let ready = r.node.ready();
    let expected = raft::Ready { number: 1, committed: log.to_vec(), ..Default::default() };
    assert_eq!(ready, expected);
    r.node.persisted(ready.number);
    r.node.applied(3);
    assert!(!r.node.has_ready());
}
