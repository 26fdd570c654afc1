//! Reads: which locks they mind, and how they go over a range.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use txn::{
    ConflictReason, Error, Isolation, KeyError, KvPair, LastChange, Lock, LockKind, Read,
    ScanOptions, Write, WriteKind,
};
use types::{Bytes, KeyRange, TimeStamp};

use support::{Store, bytes, key_error, list, put_record, ts};

/// A put's lock of transaction 10 with a short value, and the version 5 below it.
fn locked() -> Store {
    let store = Store::new();
    store.put_write("k", 5, &put_record(4, "old"));
    store.put_lock("k", &lock());
    store
}

fn lock() -> Lock {
    Lock { short_value: Some(bytes("new")), ..Lock::new(LockKind::Put, "p", ts(10), 3) }
}

fn get(store: &Store, read: &Read<'_>) -> Result<Option<Bytes>, Error> {
    read.get(store.snapshot().as_ref(), &bytes("k"))
}

fn names(items: Vec<Result<KvPair, KeyError>>) -> String {
    let name = |item| match item {
        Ok(KvPair { key, .. }) => String::from_utf8(key.to_vec()).unwrap(),
        Err(KeyError::Locked(lock)) => format!("{}!", String::from_utf8_lossy(&lock.key)),
        Err(error) => error.to_string(),
    };
    items.into_iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_lock_is_in_the_way_of_reads_at_or_above_it() {
    let store = locked();
    assert_eq!(get(&store, &Read::at(ts(9))).unwrap(), Some(bytes("old")));
    for version in [10, 11, u64::MAX] {
        let error = key_error(get(&store, &Read::at(ts(version))));
        let KeyError::Locked(info) = error else { panic!("{error}") };
        assert_eq!((&info.key, &info.primary, info.ttl), (&bytes("k"), &bytes("p"), 3));
    }
}

#[test]
fn locks_that_change_nothing_or_commit_later_are_not_in_the_way() {
    for kind in [LockKind::Lock, LockKind::Pessimistic] {
        let store = locked();
        store.put_lock("k", &Lock { kind, ..lock() });
        assert_eq!(get(&store, &Read::at(ts(20))).unwrap(), Some(bytes("old")));
    }
    let store = locked();
    store.put_lock("k", &Lock { min_commit_ts: ts(21), ..lock() });
    assert_eq!(get(&store, &Read::at(ts(20))).unwrap(), Some(bytes("old")));
    key_error(get(&store, &Read::at(ts(21))));
}

#[test]
fn what_the_client_found_out_is_believed() {
    let store = locked();
    let resolved = Read { resolved: &[10], ..Read::at(ts(20)) };
    assert_eq!(get(&store, &resolved).unwrap(), Some(bytes("old")));
    let committed = Read { committed: &[10], ..Read::at(ts(20)) };
    assert_eq!(get(&store, &committed).unwrap(), Some(bytes("new")));
    store.put_lock("k", &Lock { kind: LockKind::Delete, short_value: None, ..lock() });
    assert_eq!(get(&store, &committed).unwrap(), None);
    store.put_lock("k", &Lock { short_value: None, ..lock() });
    assert!(matches!(get(&store, &committed), Err(Error::ValueMissing { .. })));
    store.put_value("k", 10, "long");
    assert_eq!(get(&store, &committed).unwrap(), Some(bytes("long")));
    let scan = committed.scan(store.snapshot().as_ref(), &KeyRange::all(), &ScanOptions::limit(9));
    assert_eq!(scan.unwrap()[0].as_ref().unwrap().value, bytes("long"));
}

#[test]
fn who_reads_the_newest_passes_the_primary_unless_it_may_be_committed() {
    let store = locked();
    store.put_lock("k", &Lock { primary: bytes("k"), ..lock() });
    assert_eq!(get(&store, &Read::at(TimeStamp::MAX)).unwrap(), Some(bytes("old")));
    store.put_lock("k", &Lock { primary: bytes("k"), use_async_commit: true, ..lock() });
    key_error(get(&store, &Read::at(TimeStamp::MAX)));
}

#[test]
fn isolation_says_what_is_minded() {
    let store = locked();
    let read = Read { isolation: Isolation::ReadCommitted, ..Read::at(ts(20)) };
    assert_eq!(get(&store, &read).unwrap(), Some(bytes("old")));
    let check = Read { isolation: Isolation::ReadCommittedCheckTs, ..Read::at(ts(20)) };
    let reason = |error| match error {
        KeyError::WriteConflict { reason, conflict_commit_ts, .. } => (reason, conflict_commit_ts),
        error => panic!("{error}"),
    };
    let found = reason(key_error(get(&store, &check)));
    assert_eq!(found, (ConflictReason::RcCheckTs, TimeStamp::ZERO));
    let store = Store::new();
    store.put_write("k", 5, &put_record(4, "old"));
    assert_eq!(get(&store, &check).unwrap(), Some(bytes("old")));
    store.put_write("k", 30, &put_record(25, "newer"));
    let found = reason(key_error(get(&store, &check)));
    assert_eq!(found, (ConflictReason::RcCheckTs, ts(30)));
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::limit(9) };
        let snapshot = store.snapshot();
        let mut items = check.scan(snapshot.as_ref(), &KeyRange::all(), &options).unwrap();
        assert_eq!(reason(items.remove(0).unwrap_err()).1, ts(30));
    }
}

#[test]
fn one_locked_key_does_not_keep_the_others_from_being_read() {
    let store = locked();
    store.put_write("a", 5, &put_record(4, "va"));
    let snapshot = store.snapshot();
    let keys = list(["k", "none", "a"]);
    let found = Read::at(ts(20)).batch_get(snapshot.as_ref(), &keys).unwrap();
    assert_eq!(found.len(), 2);
    assert!(matches!(&found[0], (key, Err(KeyError::Locked(_))) if key == "k"));
    assert_eq!(found[1], (bytes("a"), Ok(bytes("va"))));
}

#[test]
fn a_row_of_records_that_change_nothing_is_passed_and_jumped_over() {
    let store = Store::new();
    store.put_write("k", 5, &put_record(4, "v"));
    for at in 10..40 {
        store.put_write("k", at, &Write::rollback(ts(at), at % 2 == 0));
    }
    assert_eq!(store.got("k", 100), Some(bytes("v")));
    let jump = Write { last_change: LastChange::At(ts(5)), ..Write::new(WriteKind::Lock, ts(50)) };
    store.put_write("k", 51, &jump);
    assert_eq!(store.got("k", 100), Some(bytes("v")));
    let nothing = Write { last_change: LastChange::None, ..Write::new(WriteKind::Lock, ts(50)) };
    store.put_write("l", 51, &nothing);
    assert_eq!(store.got("l", 100), None);
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::limit(9) };
        assert_eq!(names(store.scan("", "", 100, &options)), "k");
    }
}

/// Keys a to h; b is removed, d has a lock only, f is locked above its version, and h has many versions.
fn mixed() -> Store {
    let store = Store::new();
    for key in ["a", "b", "c", "e", "f", "g"] {
        store.put_write(key, 5, &put_record(4, key));
    }
    store.put_write("b", 7, &Write::new(WriteKind::Delete, ts(6)));
    store.put_lock("d", &lock());
    store.put_lock("f", &lock());
    for at in 1..60 {
        store.put_write("h", at * 2, &put_record(at * 2 - 1, at.to_string()));
    }
    store
}

#[test]
fn scans_go_both_ways_over_locks_and_records() {
    let store = mixed();
    let forward = ScanOptions::limit(100);
    let backward = ScanOptions { reverse: true, ..forward };
    assert_eq!(names(store.scan("", "", 20, &forward)), "a c d! e f! g h");
    assert_eq!(names(store.scan("", "", 20, &backward)), "h g f! e d! c a");
    assert_eq!(names(store.scan("b", "g", 20, &forward)), "c d! e f!");
    assert_eq!(names(store.scan("b", "g", 20, &backward)), "f! e d! c");
    assert_eq!(names(store.scan("", "", 6, &forward)), "a b c e f g h");
    assert_eq!(names(store.scan("", "", 6, &backward)), "h g f e c b a");
    assert_eq!(names(store.scan("g", "b", 20, &forward)), "", "a range that is none");
    for options in [forward, backward] {
        let items = store.scan("h", "", 41, &options);
        assert_eq!(items[0].as_ref().unwrap().value, bytes("20"));
    }
}

#[test]
fn a_limit_counts_errors_and_a_sample_does_not() {
    let store = mixed();
    assert_eq!(names(store.scan("", "", 20, &ScanOptions::limit(3))), "a c d!");
    let sample = ScanOptions { sample_step: 2, ..ScanOptions::limit(4) };
    assert_eq!(names(store.scan("", "", 20, &sample)), "a d! e f!");
    let bytes_max = ScanOptions { max_bytes: 3, ..ScanOptions::limit(100) };
    assert_eq!(names(store.scan("", "", 6, &bytes_max)), "a b", "the last may go beyond");
}

#[test]
fn keys_alone_need_no_values_and_mind_locks() {
    let store = mixed();
    store.put_write("i", 5, &Write::new(WriteKind::Put, ts(4)));
    let options = ScanOptions { key_only: true, ..ScanOptions::limit(100) };
    let items = store.scan("f", "", 20, &options);
    assert!(items.iter().flatten().all(|pair| pair.value.is_empty()));
    assert_eq!(names(items), "f! g h i");
}

#[test]
fn a_value_that_is_missing_is_not_taken_for_none() {
    let store = Store::new();
    store.put_write("k", 5, &Write::new(WriteKind::Put, ts(4)));
    assert!(matches!(store.get("k", 9), Err(Error::ValueMissing { .. })));
}

#[test]
fn a_damaged_record_is_an_error_that_names_its_place() {
    let store = Store::new();
    let key = txn::Key::new("k").at(ts(5));
    store.apply(&[types::Modify::Put {
        cf: types::Cf::Write,
        key: key.clone(),
        value: bytes("?"),
    }]);
    let Err(Error::Corrupt { cf, key: found, .. }) = store.get("k", 9) else { panic!() };
    assert_eq!((cf, found), (types::Cf::Write, key));
}
