//! The course's project 3B on our stores, test by test, in virtual time.
//!
//! The course uses the ids of removed peers again. Here an id is never used again, so that an old message never reaches
//! a new peer: where the course adds peer 2 to store 2 again, the tests take an id that was never used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use course::{Course, Settings, bytes, generic::GenericTest};
use raftstore::testing::Fate;
use types::RegionError;

const LIMIT: Option<u64> = Some(100);

#[test]
fn test_transfer_leader_3b() {
    let mut course = Course::new(1, 5, Settings::default());
    course.must_transfer_leader(1, 1);
    course.pass(course::SECOND);
    for peer in 2..=5 {
        course.must_transfer_leader(1, peer);
    }
}

#[test]
fn test_basic_conf_change_3b() {
    let mut course = Course::new(1, 5, Settings::default());
    course.must_transfer_leader(1, 1);
    for store in 2..=5 {
        course.must_remove_peer(1, store, store);
    }
    // Peer 1 is alone.
    course.must_put("k1", "v1");
    course.must_get("k1", "v1");
    course.must_have_none(2, "k1");

    course.must_add_peer(1, 2, 12);
    course.must_put("k2", "v2");
    course.must_get("k2", "v2");
    course.must_have(2, "k1", "v1");
    course.must_have(2, "k2", "v2");
    assert!(course.region("k1").epoch.conf_ver > 1);
    course.must_have_none(5, "k1");

    course.must_add_peer(1, 3, 13);
    course.must_remove_peer(1, 2, 12);
    course.must_put("k3", "v3");
    course.must_get("k3", "v3");
    for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
        course.must_have(3, key, value);
    }
    // What was removed takes its data with it.
    course.must_have_none(2, "k1");
    course.must_have_none(2, "k2");

    course.must_add_peer(1, 2, 22);
    for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
        course.must_have(2, key, value);
    }
    course.must_remove_peer(1, 2, 22);
    course.must_add_peer(1, 2, 32);
    course.must_remove_peer(1, 3, 13);
    course.must_put("k4", "v4");
    course.must_have(2, "k1", "v1");
    course.must_have(2, "k4", "v4");
    course.must_have_none(3, "k1");
    course.must_have_none(3, "k4");
}

#[test]
fn test_conf_change_remove_leader_3b() {
    let mut course = Course::new(1, 5, Settings { log_gc_limit: Some(10), split: None });
    course.must_transfer_leader(1, 1);
    course.must_remove_peer(1, 1, 1);
    course.must_put("k0", "v0");
    course.must_have(2, "k0", "v0");
    course.must_have_none(1, "k0");
    course.must_add_peer(1, 1, 11);
    course.must_have(1, "k0", "v0");

    // The leader of a group of two is removed.
    course.must_transfer_leader(1, 2);
    for store in 3..=5 {
        course.must_remove_peer(1, store, store);
    }
    course.must_remove_peer(1, 2, 2);
    course.must_put("k1", "v1");
    course.must_have(1, "k1", "v1");
    course.must_have_none(2, "k1");
    course.must_add_peer(1, 2, 12);
    course.must_have(2, "k1", "v1");
}

/// Members come and go.
const CONF_CHANGE: GenericTest = GenericTest { confchange: true, ..GenericTest::NONE };

#[test]
fn test_conf_change_recover_3b() {
    GenericTest { clients: 1, crash: true, ..CONF_CHANGE }.run();
}

#[test]
fn test_conf_change_recover_many_clients_3b() {
    GenericTest { clients: 20, crash: true, ..CONF_CHANGE }.run();
}

#[test]
fn test_conf_change_unreliable_3b() {
    GenericTest { clients: 5, unreliable: true, ..CONF_CHANGE }.run();
}

#[test]
fn test_conf_change_unreliable_recover_3b() {
    GenericTest { clients: 5, unreliable: true, crash: true, ..CONF_CHANGE }.run();
}

#[test]
fn test_conf_change_snapshot_unreliable_recover_3b() {
    let test = GenericTest { clients: 5, unreliable: true, crash: true, ..CONF_CHANGE };
    GenericTest { maxraftlog: LIMIT, ..test }.run();
}

#[test]
fn test_conf_change_snapshot_unreliable_recover_concurrent_partition_3b() {
    let test = GenericTest { clients: 5, unreliable: true, crash: true, ..CONF_CHANGE };
    GenericTest { partitions: true, maxraftlog: LIMIT, ..test }.run();
}

#[test]
fn test_one_split_3b() {
    let mut course = Course::new(1, 5, Settings { log_gc_limit: None, split: Some((800, 500)) });
    course.must_put("k1", "v1");
    course.must_put("k2", "v2");
    let region = course.region("k1");
    assert_eq!(course.region("k2").id, region.id);

    course.partition(&[1, 2, 3, 4], &[5]);
    for number in 100..200 {
        course.must_put(&format!("k{number}"), &format!("v{number}"));
    }
    course.pass(200);
    course.heal();

    let (left, right) = (course.region("k1"), course.region("k2"));
    assert_ne!(left.id, right.id);
    assert_eq!(left.range.start, region.range.start);
    assert_eq!(left.range.end, right.range.start);
    assert_eq!(right.range.end, region.range.end);

    let leader = course.leader("k1");
    let fate = course.once(|cluster| cluster.get(leader, &left, "k2", false));
    let Fate::Error(RegionError::KeyNotInRegion { key, region }) = fate else { panic!("{fate:?}") };
    assert_eq!((key, *region), (bytes("k2"), left));

    course.must_have(5, "k100", "v100");
}

/// Regions are split.
const SPLIT: GenericTest = GenericTest { split: true, ..GenericTest::NONE };

#[test]
fn test_split_recover_3b() {
    GenericTest { clients: 1, crash: true, ..SPLIT }.run();
}

#[test]
fn test_split_recover_many_clients_3b() {
    GenericTest { clients: 20, crash: true, ..SPLIT }.run();
}

#[test]
fn test_split_unreliable_3b() {
    GenericTest { clients: 5, unreliable: true, ..SPLIT }.run();
}

#[test]
fn test_split_unreliable_recover_3b() {
    GenericTest { clients: 5, unreliable: true, crash: true, ..SPLIT }.run();
}

#[test]
fn test_split_conf_change_snapshot_unreliable_recover_3b() {
    let test = GenericTest { clients: 5, unreliable: true, crash: true, ..SPLIT };
    GenericTest { confchange: true, maxraftlog: LIMIT, ..test }.run();
}

#[test]
fn test_split_conf_change_snapshot_unreliable_recover_concurrent_partition_3b() {
    let test = GenericTest { clients: 5, unreliable: true, crash: true, ..SPLIT };
    GenericTest { partitions: true, confchange: true, maxraftlog: LIMIT, ..test }.run();
}
