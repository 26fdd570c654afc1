//! The raft part of the course's project 3A, test by test: names, inputs and expected values are the course's.
//!
//! The course proposes changes of the members before the leader's first entry is applied. That is unsafe (two leaders
//! may then change the members in different ways), so the tests apply it first; docs/divergence.md says more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use raft::{
    ConfChange, ConfChangeKind, EntryKind, MemStorage, MessageBody, ProposeError, RoleKind,
    TransferError,
    testing::course::{CourseNode, Network},
};

use course::*;

fn add(id: u64) -> ConfChange {
    ConfChange::single(ConfChangeKind::AddVoter, id)
}

fn remove(id: u64) -> ConfChange {
    ConfChange::single(ConfChangeKind::Remove, id)
}

#[test]
fn test_add_node_3a() {
    let mut r = node(&[1]);
    assert_eq!(r.node.apply_conf_change(&add(2)).members(), [1, 2]);
}

#[test]
fn test_remove_node_3a() {
    let mut r = node(&ids(2));
    assert_eq!(r.node.apply_conf_change(&remove(2)).members(), [1]);
    assert_eq!(r.node.apply_conf_change(&remove(1)).members(), []);
}

#[test]
fn test_commit_after_remove_node_3a() {
    let mut r = CourseNode::new(1, &ids(2), 5, 1, MemStorage::new([]));
    r.become_candidate();
    r.become_leader();
    // The course proposes the change here, and the first entry is committed with it.
    assert_eq!(r.propose_conf_change(remove(2)), Err(ProposeError::ConfChangePending));
    r.step(2, 1, has(1)).unwrap();
    let mut entries = r.next_entries();

    let (index, term) = r.propose_conf_change(remove(2)).unwrap();
    assert!(r.next_entries().is_empty());
    r.propose(b"hello").unwrap();
    r.step(2, term, has(index)).unwrap();
    entries.extend(r.next_entries());
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0], entry(1, 1));
    assert_eq!(entries[1].kind, EntryKind::ConfChange);

    r.node.apply_conf_change(&remove(2));
    let entries = r.next_entries();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind, &entries[0].data[..]), (EntryKind::Normal, &b"hello"[..]));
}

/// Three nodes, of which the first leads.
fn led_by_1() -> Network {
    let mut network = Network::new(&[true; 3]);
    network.at(1, CourseNode::hup);
    assert_eq!(network.node(1).leader(), 1);
    network
}

/// The course's MsgTransferLeader{from: target, to: at}.
fn transfer(network: &mut Network, at: u64, target: u64) {
    network.at(at, |r| r.transfer_leader(target).unwrap());
}

fn assert_state(network: &mut Network, role: RoleKind, leader: u64) {
    let r = network.node(1);
    assert_eq!((r.role(), r.leader()), (role, leader));
}

fn propose(network: &mut Network) {
    // The course sends this to a node that does not lead any more, which drops it.
    network.at(1, |r| {
        let _ = r.propose(b"");
    });
}

#[test]
fn test_leader_transfer_to_up_to_date_node_3a() {
    let mut network = led_by_1();
    transfer(&mut network, 1, 2);
    assert_state(&mut network, RoleKind::Follower, 2);
    propose(&mut network);
    transfer(&mut network, 2, 1);
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_to_up_to_date_node_from_follower_3a() {
    let mut network = led_by_1();
    transfer(&mut network, 2, 2);
    assert_state(&mut network, RoleKind::Follower, 2);
    propose(&mut network);
    transfer(&mut network, 1, 1);
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_to_slow_follower_3a() {
    let mut network = led_by_1();
    network.isolate(3);
    propose(&mut network);
    network.recover();
    assert_eq!(network.node(1).progress(3).unwrap().0, 1);
    transfer(&mut network, 1, 3);
    assert_state(&mut network, RoleKind::Follower, 3);
}

#[test]
fn test_leader_transfer_after_snapshot_3a() {
    let mut network = led_by_1();
    network.isolate(3);
    propose(&mut network);
    let lead = network.node(1);
    lead.next_entries();
    let (applied, conf) = (lead.node.status().applied, lead.node.conf().clone());
    lead.node.storage_mut().create_snapshot(applied, conf, "".into()).unwrap();
    lead.node.storage_mut().compact(applied).unwrap();
    network.recover();
    assert_eq!(network.node(1).progress(3).unwrap().0, 1);
    transfer(&mut network, 1, 3);
    network.send(3, 1, 1, MessageBody::HeartbeatResponse { round: 0 });
    assert_state(&mut network, RoleKind::Follower, 3);
}

#[test]
fn test_leader_transfer_to_self_3a() {
    let mut network = led_by_1();
    transfer(&mut network, 1, 1);
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_to_non_existing_node_3a() {
    let mut network = led_by_1();
    network.at(1, |r| {
        assert_eq!(r.transfer_leader(4), Err(TransferError::NotVoter { target: 4 }));
    });
    network.send(4, 1, 1, MessageBody::TransferLeader { target: 4 });
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_receive_higher_term_vote_3a() {
    let mut network = led_by_1();
    network.isolate(3);
    transfer(&mut network, 1, 3);
    network.at(2, CourseNode::hup);
    assert_state(&mut network, RoleKind::Follower, 2);
}

#[test]
fn test_leader_transfer_remove_node_3a() {
    let mut network = led_by_1();
    network.node(1).node.apply_conf_change(&remove(3));
    network.at(1, |r| {
        assert_eq!(r.transfer_leader(3), Err(TransferError::NotVoter { target: 3 }));
    });
    network.send(3, 1, 1, MessageBody::TransferLeader { target: 3 });
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_back_3a() {
    let mut network = led_by_1();
    network.isolate(3);
    transfer(&mut network, 1, 3);
    transfer(&mut network, 1, 1);
    assert_state(&mut network, RoleKind::Leader, 1);
}

#[test]
fn test_leader_transfer_second_transfer_to_another_node_3a() {
    let mut network = led_by_1();
    network.isolate(3);
    transfer(&mut network, 1, 3);
    transfer(&mut network, 1, 2);
    assert_state(&mut network, RoleKind::Follower, 2);
}

#[test]
fn test_transfer_non_member_3a() {
    let mut r = CourseNode::new(1, &[2, 3, 4], 5, 1, MemStorage::new([]));
    r.step(2, r.node.term(), MessageBody::TimeoutNow).unwrap();
    r.step(2, r.node.term(), MessageBody::VoteResponse { granted: true }).unwrap();
    r.step(3, r.node.term(), MessageBody::VoteResponse { granted: true }).unwrap();
    assert_eq!(r.role(), RoleKind::Follower);
}

#[test]
fn test_raw_node_propose_and_conf_change_3a() {
    let mut r = node(&[1]);
    let ready = r.merged_ready();
    assert_eq!((ready.hard_state, ready.entries.len()), (None, 0));
    r.node.campaign();
    let ready = r.merged_ready();
    assert_eq!(ready.role.unwrap().leader, 1);
    r.next_entries();

    r.propose(b"somedata").unwrap();
    r.propose_conf_change(add(1)).unwrap();
    let log = r.log();
    let last = &log[log.len() - 2..];
    assert_eq!(&last[0].data[..], b"somedata");
    assert_eq!((last[1].kind, &last[1].data), (EntryKind::ConfChange, &add(1).encode()));
}

#[test]
fn test_raw_node_propose_add_duplicate_node_3a() {
    let mut r = node(&[1]);
    r.hup();
    assert_eq!(r.leader(), 1);
    r.next_entries();
    for change in [add(1), add(1), add(2)] {
        r.propose_conf_change(change).unwrap();
        for entry in r.next_entries() {
            if entry.kind == EntryKind::ConfChange {
                r.node.apply_conf_change(&ConfChange::decode(&entry.data).unwrap());
            }
        }
    }
    let log = r.log();
    let last: Vec<_> = log[log.len() - 3..].iter().map(|entry| entry.data.clone()).collect();
    assert_eq!(last, [add(1), add(1), add(2)].map(|change| change.encode()));
}
