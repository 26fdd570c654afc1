//! The course's project 4C, test by test, in terms of this crate: KvBatchRollback, KvCheckTxnStatus, KvResolveLock,
//! KvScan. Every change must be of a key whose latch the command holds (`Store::decide` checks it).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use engine::Family;
use txn::{
    Error, KeyError, Lock, LockKind, ScanOptions, Write, WriteKind,
    commands::{BatchRollback, CheckTxnStatus, ResolveLocks, TtlRule, TxnAction, TxnStatus},
    find_locks,
};
use types::{KeyRange, TimeStamp};

use support::{Store, bytes, key_error, list, ms, ts};

fn rollback(store: &mut Store, start_ts: u64, keys: &[u8]) -> Result<(), Error> {
    let keys = list(keys.iter().map(|key| [*key]));
    store.run(&BatchRollback { keys, start_ts: ts(start_ts) })
}

fn check(store: &mut Store, lock_ts: TimeStamp, current_ts: TimeStamp) -> TxnStatus {
    let status = CheckTxnStatus {
        primary: bytes([3]),
        lock_ts,
        current_ts,
        rollback_if_not_exist: true,
        ttl_rule: TtlRule::TinyKv,
        ..CheckTxnStatus::default()
    };
    store.run(&status).unwrap()
}

/// As the executor does it: find the locks, then end them under their latches.
fn resolve(store: &mut Store, start_ts: u64, commit_ts: u64) {
    let (start_ts, commit_ts) = (ts(start_ts), ts(commit_ts));
    let snapshot = store.snapshot();
    let is_meant = |lock: &Lock| lock.start_ts == start_ts;
    let (found, rest) = find_locks(snapshot.as_ref(), &KeyRange::all(), is_meant, 16).unwrap();
    assert_eq!(rest, None);
    let keys = found.into_iter().map(|(key, _)| key).collect();
    store.run(&ResolveLocks { keys, txns: [(start_ts, commit_ts)].into() }).unwrap();
}

/// TestEmptyRollback4C
#[test]
fn test_empty_rollback_4c() {
    let mut store = Store::new();
    rollback(&mut store, 0, &[]).unwrap();
    assert_eq!(store.all(), []);
}

/// TestRollback4C
#[test]
fn test_rollback_4c() {
    let mut store = Store::new();
    store.put_prewritten([3], 100, [42]);
    rollback(&mut store, 100, &[3]).unwrap();
    assert_eq!((store.value([3], 100), store.lock([3])), (None, None));
    assert_eq!(store.write([3], 100), Some(Write::rollback(ts(100), false)));
    assert_eq!(store.all().len(), 1);
}

/// TestRollbackDuplicateKeys4C
#[test]
fn test_rollback_duplicate_keys_4c() {
    let mut store = Store::new();
    store.put_prewritten([3], 100, [42]);
    store.put_prewritten([15], 100, [51]);
    rollback(&mut store, 100, &[3, 15, 3]).unwrap();
    for key in [3, 15] {
        assert_eq!(store.write([key], 100), Some(Write::rollback(ts(100), false)));
    }
    assert_eq!(store.all().len(), 2);
}

/// TestRollbackMissingPrewrite4C
#[test]
fn test_rollback_missing_prewrite_4c() {
    let mut store = Store::new();
    rollback(&mut store, 100, &[3]).unwrap();
    assert_eq!(store.write([3], 100), Some(Write::rollback(ts(100), false)));
    assert_eq!(store.all().len(), 1);
}

/// TestRollbackCommitted4C
#[test]
fn test_rollback_committed_4c() {
    let mut store = Store::new();
    store.put_committed([3], 100, 110, [42]);
    let before = store.all();
    let error = key_error(rollback(&mut store, 100, &[3]));
    // Abort on the wire.
    let (start_ts, commit_ts) = (ts(100), ts(110));
    assert_eq!(error, KeyError::Committed { start_ts, commit_ts, key: bytes([3]) });
    assert_eq!(store.all(), before);
}

/// TestRollbackDuplicate4C
#[test]
fn test_rollback_duplicate_4c() {
    let mut store = Store::new();
    store.put_write([3], 100, &Write::rollback(ts(100), false));
    let before = store.all();
    rollback(&mut store, 100, &[3]).unwrap();
    assert_eq!(store.all(), before);
}

/// TestRollbackOtherTxn4C
#[test]
fn test_rollback_other_txn_4c() {
    let mut store = Store::new();
    store.put_prewritten([3], 80, [42]);
    rollback(&mut store, 100, &[3]).unwrap();
    assert_eq!(store.value([3], 80), Some(bytes([42])));
    assert_eq!(store.lock([3]).unwrap().start_ts, ts(80));
    assert_eq!(store.write([3], 100), Some(Write::rollback(ts(100), false)));
}

/// TestCheckTxnStatusTtlExpired4C
#[test]
fn test_check_txn_status_ttl_expired_4c() {
    let mut store = Store::new();
    let start_ts = ms(100);
    store.put_value([3], start_ts.0, [42]);
    store.put_lock([3], &Lock::new(LockKind::Put, &[3][..], start_ts, 8));
    let status = check(&mut store, start_ts, ms(110));
    assert_eq!(status.action, TxnAction::TtlExpireRollback);
    assert_eq!((status.lock_ttl, status.commit_ts), (0, TimeStamp::ZERO));
    assert_eq!((store.len(Family::Default), store.len(Family::Lock)), (0, 0));
    assert_eq!(store.write([3], start_ts.0), Some(Write::rollback(start_ts, true)));
}

/// TestCheckTxnStatusTtlNotExpired4C
#[test]
fn test_check_txn_status_ttl_not_expired_4c() {
    let mut store = Store::new();
    let start_ts = ms(100);
    store.put_value([3], start_ts.0, [42]);
    store.put_lock([3], &Lock::new(LockKind::Put, &[3][..], start_ts, 8));
    let before = store.all();
    let status = check(&mut store, start_ts, ms(104));
    assert_eq!(status.action, TxnAction::None);
    assert_eq!((status.lock_ttl, status.commit_ts), (8, TimeStamp::ZERO));
    assert_eq!(store.all(), before);
}

/// TestCheckTxnStatusRolledBack4C
#[test]
fn test_check_txn_status_rolled_back_4c() {
    let mut store = Store::new();
    let (start_ts, other_ts) = (ms(100), ms(110));
    store.put_value([3], other_ts.0, [42]);
    store.put_lock([3], &Lock::new(LockKind::Put, &[3][..], other_ts, 8));
    store.put_write([3], start_ts.0, &Write::rollback(start_ts, false));
    let before = store.all();
    assert_eq!(check(&mut store, start_ts, ms(111)), TxnStatus::default());
    assert_eq!(store.all(), before);
}

/// TestCheckTxnStatusCommitted4C
#[test]
fn test_check_txn_status_committed_4c() {
    let mut store = Store::new();
    let start_ts = ms(100);
    store.put_committed([3], start_ts.0, start_ts.0, [42]);
    let before = store.all();
    let status = check(&mut store, start_ts, ms(111));
    assert_eq!(status, TxnStatus { commit_ts: start_ts, ..TxnStatus::default() });
    assert_eq!(store.all(), before);
}

/// TestCheckTxnStatusNoLockNoWrite4C
#[test]
fn test_check_txn_status_no_lock_no_write_4c() {
    let mut store = Store::new();
    let start_ts = ms(100);
    let status = check(&mut store, start_ts, ms(111));
    assert_eq!(status.action, TxnAction::LockNotExistRollback);
    assert_eq!((status.lock_ttl, status.commit_ts), (0, TimeStamp::ZERO));
    assert_eq!(store.write([3], start_ts.0), Some(Write::rollback(start_ts, true)));
    assert_eq!(store.all().len(), 1);
}

/// TestEmptyResolve4C
#[test]
fn test_empty_resolve_4c() {
    let mut store = Store::new();
    resolve(&mut store, 0, 0);
    assert_eq!(store.all(), []);
}

/// Two keys that transaction 100 has, and one that transaction 110 has.
fn three_locks() -> Store {
    let store = Store::new();
    store.put_prewritten([3], 100, [42]);
    store.put_prewritten([7], 100, [43]);
    store.put_prewritten([8], 110, [44]);
    store
}

/// TestResolveCommit4C
#[test]
fn test_resolve_commit_4c() {
    let mut store = three_locks();
    resolve(&mut store, 100, 120);
    for key in [3, 7] {
        assert_eq!(store.write([key], 120), Some(Write::new(WriteKind::Put, ts(100))));
        assert_eq!(store.lock([key]), None);
    }
    assert_eq!(store.lock([8]).unwrap().start_ts, ts(110));
    assert_eq!((store.len(Family::Default), store.len(Family::Lock)), (3, 1));
}

/// TestResolveRollback4C
#[test]
fn test_resolve_rollback_4c() {
    let mut store = three_locks();
    resolve(&mut store, 100, 0);
    for key in [3, 7] {
        assert_eq!(store.write([key], 100), Some(Write::rollback(ts(100), false)));
        assert_eq!((store.lock([key]), store.value([key], 100)), (None, None));
    }
    assert_eq!(store.lock([8]).unwrap().start_ts, ts(110));
    assert_eq!((store.len(Family::Default), store.len(Family::Lock)), (1, 1));
}

/// What transaction 100 left behind when it ended, and a lock of transaction 110.
fn ended(write: &Write, at: u64) -> Store {
    let store = Store::new();
    for key in [3, 7] {
        store.put_value([key], 100, [42]);
        store.put_write([key], at, write);
    }
    store.put_prewritten([8], 110, [44]);
    store
}

/// TestResolveCommitWritten4C
#[test]
fn test_resolve_commit_written_4c() {
    let mut store = ended(&Write::new(WriteKind::Put, ts(100)), 120);
    let before = store.all();
    resolve(&mut store, 100, 120);
    assert_eq!(store.all(), before);
}

/// TestResolveRollbackWritten4C
#[test]
fn test_resolve_rollback_written_4c() {
    let mut store = ended(&Write::rollback(ts(100), false), 100);
    let before = store.all();
    resolve(&mut store, 100, 0);
    assert_eq!(store.all(), before);
}

/// Eleven keys that are there at 100, and others that are not or not yet.
fn scanned() -> Store {
    let store = Store::new();
    let there: [(&[u8], u8); 11] = [
        (&[1], 50),
        (&[1, 23], 55),
        (&[3], 51),
        (&[3, 45], 56),
        (&[3, 46], 57),
        (&[3, 47], 58),
        (&[3, 48], 59),
        (&[4], 52),
        (&[5], 60),
        (&[150], 53),
        (&[199], 54),
    ];
    for (key, value) in there {
        store.put_committed(key, 80, 99, [value]);
    }
    // Committed after 100, though begun before; and begun after 100.
    store.put_committed([4, 45], 99, 101, [61]);
    store.put_committed([3, 45], 99, 101, [62]);
    store.put_committed([2], 101, 102, [63]);
    store.put_committed([200], 101, 102, [64]);
    // Removed, and there again.
    store.put_write([150], 102, &Write::new(WriteKind::Delete, ts(101)));
    store.put_committed([150], 110, 112, [65]);
    store
}

fn scan(store: &Store, start: &[u8], limit: usize, version: u64) -> Vec<(Vec<u8>, u8)> {
    store
        .scan(start, [], version, &ScanOptions::limit(limit))
        .into_iter()
        .map(|item| item.map(|pair| (pair.key.to_vec(), pair.value[0])).unwrap())
        .collect()
}

/// TestScanEmpty4C
#[test]
fn test_scan_empty_4c() {
    assert_eq!(scan(&scanned(), &[200, 1], 10_000, 100), []);
}

/// TestScanLimitZero4C
#[test]
fn test_scan_limit_zero_4c() {
    assert_eq!(scan(&scanned(), &[3], 0, 100), []);
}

/// TestScanAll4C
#[test]
fn test_scan_all_4c() {
    let pairs = scan(&scanned(), &[0], 10_000, 100);
    assert_eq!(pairs.len(), 11);
    assert_eq!(pairs.first(), Some(&(vec![1], 50)));
    assert_eq!(pairs.last(), Some(&(vec![199], 54)));
    assert!(pairs.is_sorted());
}

/// TestScanLimit4C
#[test]
fn test_scan_limit_4c() {
    let pairs = scan(&scanned(), &[2], 6, 100);
    assert_eq!(pairs.len(), 6);
    assert_eq!(pairs.first(), Some(&(vec![3], 51)));
    assert_eq!(pairs.last(), Some(&(vec![4], 52)));
}

/// TestScanDeleted4C
#[test]
fn test_scan_deleted_4c() {
    let store = scanned();
    let at = |version| {
        let pairs = scan(&store, &[100], 10_000, version);
        pairs.into_iter().find(|(key, _)| key[..] == [150]).map(|(_, value)| value)
    };
    assert_eq!((at(100), at(105), at(120)), (Some(53), None, Some(65)));
}
