//! The course's project 2C on our stores, test by test, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use course::{Course, Settings, generic::GenericTest, log_bases};
use types::{Cf, StoreId};

const LIMIT: Option<u64> = Some(100);

#[test]
fn test_one_snapshot_2c() {
    let cf = Cf::Lock;
    let mut course = Course::new(1, 3, Settings { log_gc_limit: Some(10), split: None });
    course.must_put_cf(cf, "k1", "v1");
    course.must_put_cf(cf, "k2", "v2");
    course.must_have_cf(1, cf, "k1", Some("v1"));
    course.must_have_cf(1, cf, "k2", Some("v2"));
    let bases = log_bases(&course, 1);
    assert_eq!(bases.into_values().collect::<Vec<_>>(), [(5, 5); 3]);

    course.partition(&[1], &[2, 3]);
    for number in 100..115 {
        course.must_put_cf(cf, &format!("k{number}"), &format!("v{number}"));
    }
    course.must_delete_cf(cf, "k2");
    course.pass(500);
    course.must_have_cf(1, cf, "k100", None);
    let bases = log_bases(&course, 1);
    let last = course.cluster.nodes[&StoreId(1)].log.bounds(1).unwrap().last_index;
    assert!(last < bases[&StoreId(2)].0.min(bases[&StoreId(3)].0), "only a snapshot can help");
    course.heal();

    course.must_have_cf(1, cf, "k1", Some("v1"));
    course.must_have_cf(1, cf, "k100", Some("v100"));
    course.must_have_cf(1, cf, "k2", None);

    course.cluster.crash(StoreId(1));
    course.cluster.start(StoreId(1));
    course.must_have_cf(1, cf, "k1", Some("v1"));
    course.check_logs(10);
}

#[test]
fn test_snapshot_recover_2c() {
    GenericTest { clients: 1, crash: true, maxraftlog: LIMIT, ..GenericTest::NONE }.run();
}

#[test]
fn test_snapshot_recover_many_clients_2c() {
    GenericTest { clients: 20, crash: true, maxraftlog: LIMIT, ..GenericTest::NONE }.run();
}

#[test]
fn test_snapshot_unreliable_2c() {
    GenericTest { clients: 5, unreliable: true, maxraftlog: LIMIT, ..GenericTest::NONE }.run();
}

#[test]
fn test_snapshot_unreliable_recover_2c() {
    let network = GenericTest { unreliable: true, ..GenericTest::NONE };
    GenericTest { clients: 5, crash: true, maxraftlog: LIMIT, ..network }.run();
}

#[test]
fn test_snapshot_unreliable_recover_concurrent_partition_2c() {
    let network = GenericTest { unreliable: true, partitions: true, ..GenericTest::NONE };
    GenericTest { clients: 5, crash: true, maxraftlog: LIMIT, ..network }.run();
}
