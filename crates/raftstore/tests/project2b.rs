//! The course's project 2B on our stores, test by test, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use course::{Course, Settings, generic::GenericTest};
use types::StoreId;

#[test]
fn test_basic_2b() {
    GenericTest { clients: 1, ..GenericTest::NONE }.run();
}

#[test]
fn test_concurrent_2b() {
    GenericTest { clients: 5, ..GenericTest::NONE }.run();
}

#[test]
fn test_unreliable_2b() {
    GenericTest { clients: 5, unreliable: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_one_partition_2b() {
    let mut course = Course::new(1, 5, Settings::default());
    let leader = course.leader("").0;
    let mut others: Vec<u64> = (1..=5).filter(|store| *store != leader).collect();
    let minority = others.split_off(2);
    let majority = [leader, others[0], others[1]];
    // The leader is with the majority: nothing changes for clients.
    course.partition(&majority, &minority);
    course.must_put("k1", "v1");
    course.must_get("k1", "v1");
    for store in &minority {
        course.must_have_none(*store, "k1");
    }
    course.heal();
    // It is with the minority: another one is elected, and the old one learns nothing.
    let (minority, majority) = ([leader, others[0]], [others[1], minority[0], minority[1]]);
    course.partition(&minority, &majority);
    course.must_get("k1", "v1");
    course.must_put("k1", "changed");
    for store in minority {
        assert_eq!(
            course.cluster.value(StoreId(store), types::Cf::Default, "k1").as_deref(),
            Some(&b"v1"[..])
        );
    }
    course.heal();
    // When the network is whole again, the old leader gets it all.
    course.must_put("k2", "v2");
    course.must_get("k2", "v2");
    course.must_have(leader, "k2", "v2");
    course.must_have(leader, "k1", "changed");
}

#[test]
fn test_many_partitions_one_client_2b() {
    GenericTest { clients: 1, partitions: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_many_partitions_many_clients_2b() {
    GenericTest { clients: 5, partitions: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_persist_one_client_2b() {
    GenericTest { clients: 1, crash: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_persist_concurrent_2b() {
    GenericTest { clients: 5, crash: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_persist_concurrent_unreliable_2b() {
    GenericTest { clients: 5, unreliable: true, crash: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_persist_partition_2b() {
    GenericTest { clients: 5, crash: true, partitions: true, ..GenericTest::NONE }.run();
}

#[test]
fn test_persist_partition_unreliable_2b() {
    let network = GenericTest { unreliable: true, partitions: true, ..GenericTest::NONE };
    GenericTest { clients: 5, crash: true, ..network }.run();
}
