//! Where transactions are lost that almost work: one test for each trap that lies in this crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use txn::{
    ConflictReason, KeyError, LastChange, Lock, LockKind, Read, ScanOptions, Write, WriteKind,
    commands::{
        BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Command, Commit, Gc,
        MutationOp, PessimisticAction, PessimisticKey, PessimisticLock, Prewrite, SecondaryLocks,
        TxnAction,
    },
};
use types::TimeStamp;

use support::{Store, bytes, key_error, list, ms, mutation, prewrite, put, put_record, ts};

fn commit(start_ts: u64, commit_ts: u64, keys: &[&str]) -> Commit {
    let (start_ts, commit_ts) = (ts(start_ts), ts(commit_ts));
    Commit { keys: list(keys), start_ts, commit_ts, missing_is_success: false }
}

fn status(primary: &str, lock_ts: TimeStamp, current_ts: TimeStamp) -> CheckTxnStatus {
    CheckTxnStatus { primary: bytes(primary), lock_ts, current_ts, ..CheckTxnStatus::default() }
}

fn asynchronous(start_ts: u64, keys: &[&str]) -> Prewrite {
    let mutations = keys.iter().map(|key| put(key, "v")).collect();
    let secondaries = list(&keys[1..]);
    Prewrite { use_async_commit: true, secondaries, ..prewrite(start_ts, mutations) }
}

fn pessimistic(start_ts: u64, for_update_ts: u64, key: &str) -> PessimisticLock {
    PessimisticLock {
        keys: vec![PessimisticKey { key: bytes(key), should_not_exist: false }],
        primary: bytes(key),
        start_ts: ts(start_ts),
        for_update_ts: ts(for_update_ts),
        ttl: 1000,
        ..PessimisticLock::default()
    }
}

fn is_self_rolled_back(error: &KeyError) -> bool {
    let reason = ConflictReason::SelfRolledBack;
    matches!(error, KeyError::WriteConflict { reason: found, .. } if *found == reason)
}

/// Trap 1: the record of a rollback that decided a transaction must last.
#[test]
fn a_late_prewrite_fails_after_any_number_of_other_rollbacks() {
    let mut store = Store::new();
    let check = CheckSecondaryLocks { keys: list(["k"]), start_ts: ts(10) };
    assert_eq!(store.run(&check).unwrap(), SecondaryLocks::default());
    for start_ts in 11..20 {
        store.run(&BatchRollback { keys: list(["k"]), start_ts: ts(start_ts) }).unwrap();
    }
    assert_eq!(store.write("k", 10), Some(Write::rollback(ts(10), true)));
    store.refused(&prewrite(10, vec![put("k", "v")]));
}

/// Trap 2: a rollback does not overwrite a commit at the same timestamp, and is not forgotten either.
#[test]
fn a_rollback_at_the_timestamp_of_a_commit_goes_into_the_commits_record() {
    let mut store = Store::new();
    store.put_write("k", 20, &put_record(10, "v"));
    store.run(&Cleanup { key: bytes("k"), start_ts: ts(20), current_ts: ts(0) }).unwrap();
    let record = store.write("k", 20).unwrap();
    assert_eq!(record, Write { has_overlapped_rollback: true, ..put_record(10, "v") });
    assert_eq!(store.got("k", 20), Some(bytes("v")));
    assert!(is_self_rolled_back(&store.refused(&prewrite(20, vec![put("k", "w")]))));
    let missing = store.run(&commit(20, 30, &["k"]));
    assert!(matches!(key_error(missing), KeyError::TxnLockNotFound { .. }));
    let again = Cleanup { key: bytes("k"), start_ts: ts(20), current_ts: ts(0) };
    let outcome = store.decide(&again).unwrap();
    assert_eq!((outcome.changes, outcome.answer), (vec![], None));
}

/// Trap 2: the same for a client that gives up before its prewrite arrives.
#[test]
fn a_prewrite_that_was_given_up_stays_so_at_the_timestamp_of_a_commit() {
    let mut store = Store::new();
    store.put_write("k", 20, &put_record(10, "v"));
    let give_up = BatchRollback { keys: list(["k"]), start_ts: ts(20) };
    assert_eq!(give_up.raises_max_ts(), Some(ts(20)));
    store.run(&give_up).unwrap();
    assert_eq!(store.got("k", 20), Some(bytes("v")));
    assert!(is_self_rolled_back(&store.refused(&asynchronous(20, &["k"]))));
}

/// Trap 2, the other way round.
#[test]
fn a_commit_at_the_timestamp_of_a_rollback_keeps_it() {
    let mut store = Store::new();
    store.prewritten(&asynchronous(10, &["k"]));
    assert_eq!(store.lock("k").unwrap().min_commit_ts, ts(11));
    // Transaction 20 is rolled back on the key that transaction 10 has.
    let mut check = status("k", ts(20), ts(25));
    check.rollback_if_not_exist = true;
    assert_eq!(store.run(&check).unwrap().action, TxnAction::LockNotExistRollback);
    assert_eq!(store.lock("k").unwrap().rollback_ts, [ts(20)]);
    assert_eq!(store.write("k", 20), Some(Write::rollback(ts(20), true)));
    store.run(&commit(10, 20, &["k"])).unwrap();
    assert!(store.write("k", 20).unwrap().has_overlapped_rollback);
    assert_eq!(store.got("k", 20), Some(bytes("v")));
    assert!(is_self_rolled_back(&store.refused(&prewrite(20, vec![put("k", "w")]))));
}

/// Trap 2: what can't happen is not written down.
#[test]
fn a_lock_that_commits_later_does_not_remember_a_rollback() {
    let mut store = Store::new();
    store.memory.raise_max_ts(ts(30));
    store.prewritten(&asynchronous(10, &["k"]));
    store.run(&Cleanup { key: bytes("k"), start_ts: ts(20), current_ts: ts(0) }).unwrap();
    assert_eq!(store.lock("k").unwrap().rollback_ts, []);
}

/// Trap 3: what GC removed does not come back, because GC is a command: every replica removes the same.
#[test]
fn a_rollback_after_gc_brings_nothing_back() {
    let mut store = Store::new();
    store.put_write("k", 20, &put_record(10, "v"));
    store.put_write("k", 30, &Write::new(WriteKind::Delete, ts(29)));
    let gc = Gc { keys: list(["k"]), safe_point: ts(40), limit: 100 };
    assert_eq!(store.run(&gc).unwrap(), Vec::<types::Bytes>::new());
    assert_eq!(store.all(), []);
    store.run(&Cleanup { key: bytes("k"), start_ts: ts(20), current_ts: ts(0) }).unwrap();
    assert_eq!(store.got("k", 100), None);
}

/// Trap 4: every command that decides about a timestamp says so before the snapshot.
#[test]
fn what_reads_or_ends_a_transaction_raises_max_ts() {
    let key = bytes("k");
    let raised = |command: &dyn Fn() -> Option<TimeStamp>| command();
    let cleanup = Cleanup { key: key.clone(), start_ts: ts(7), current_ts: ts(9) };
    assert_eq!(raised(&|| cleanup.raises_max_ts()), Some(ts(7)));
    let check = CheckSecondaryLocks { keys: vec![key.clone()], start_ts: ts(7) };
    assert_eq!(check.raises_max_ts(), Some(ts(7)));
    let mut check = status("k", ts(7), ts(9));
    assert_eq!(check.raises_max_ts(), Some(ts(9)));
    check.caller_start_ts = TimeStamp::MAX;
    assert_eq!(check.raises_max_ts(), Some(ts(9)), "the newest is no time");
    for (op, raises) in [
        (MutationOp::Put, None),
        (MutationOp::Insert, Some(ts(7))),
        (MutationOp::CheckNotExists, Some(ts(7))),
    ] {
        assert_eq!(prewrite(7, vec![mutation(op, "k", "")]).raises_max_ts(), raises);
    }
    assert_eq!(pessimistic(7, 8, "k").raises_max_ts(), Some(ts(8)));
}

/// Trap 4 and 13: no commit at the very timestamp as of which a lock was taken and lost.
#[test]
fn a_lock_that_was_lost_is_not_taken_again_over_a_commit_at_its_timestamp() {
    let mut store = Store::new();
    let request = pessimistic(3, 4, "k");
    store.run(&request).unwrap();
    let mut check = status("k", ts(3), TimeStamp::MAX);
    check.resolving_pessimistic_lock = true;
    store.run(&check).unwrap();
    let commit_ts = store.prewritten(&asynchronous(2, &["k"])).min_commit_ts;
    assert_eq!(commit_ts, ts(5));
    store.run(&commit(2, 5, &["k"])).unwrap();
    let again = store.run(&request);
    assert!(matches!(key_error(again), KeyError::WriteConflict { .. }));
}

/// Trap 4: the commit comes after every read, or the reader meets the lock.
#[test]
fn an_asynchronous_commit_is_above_every_read_and_in_the_way_of_later_ones() {
    let mut store = Store::new();
    store.memory.raise_max_ts(ts(50));
    let outcome = store.decide(&asynchronous(10, &["k"])).unwrap();
    assert_eq!(outcome.answer.min_commit_ts, ts(51));
    // Not applied yet: the snapshot has nothing, the table has the lock.
    assert_eq!(store.got("k", 60), None);
    let key = bytes("k");
    assert_eq!(store.memory.check_key(&key, &Read::at(ts(50))), Ok(()));
    let blocked = store.memory.check_key(&key, &Read::at(ts(51)));
    assert!(matches!(blocked, Err(KeyError::Locked(_))));
    let range = types::KeyRange::new("a", "z");
    assert!(store.memory.check_range(&range, &Read::at(ts(51))).is_err());
    assert!(store.memory.check_range(&types::KeyRange::new("l", ""), &Read::at(ts(51))).is_ok());
    assert!(store.memory.check_no_lock(&range, ts(10)).is_err());
    assert!(store.memory.check_no_lock(&range, ts(9)).is_ok());
    store.apply(&outcome.changes);
    store.memory.release(&outcome.answer.memory_locks);
    assert!(store.memory.is_empty());
    assert!(matches!(key_error(store.get("k", 51)), KeyError::Locked(_)));
}

/// Trap 7: the flags are honoured, and a list of secondaries is none.
#[test]
fn a_transaction_gets_the_commit_that_it_asks_for() {
    let mut store = Store::new();
    let plain = Prewrite { use_async_commit: false, ..asynchronous(10, &["a", "b"]) };
    assert_eq!(store.prewritten(&plain).min_commit_ts, TimeStamp::ZERO);
    assert!(!store.lock("a").unwrap().use_async_commit);
    let answer = store.prewritten(&asynchronous(20, &["c", "d"]));
    assert_eq!(answer.min_commit_ts, ts(21));
    assert_eq!(store.lock("c").unwrap().secondaries, list(["d"]));
    assert_eq!(store.lock("d").unwrap().secondaries, list::<&str>([]));
    let at_once = Prewrite { try_one_pc: true, ..asynchronous(30, &["e", "f"]) };
    let answer = store.prewritten(&at_once);
    assert_eq!((answer.one_pc_commit_ts, answer.min_commit_ts), (ts(31), TimeStamp::ZERO));
    assert_eq!((store.lock("e"), store.write("e", 31)), (None, Some(put_record(30, "v"))));
    assert_eq!(store.got("f", 31), Some(bytes("v")));
}

/// Trap 7: what can't be given is said, and leaves plain locks.
#[test]
fn a_timestamp_that_would_be_too_late_makes_the_request_fall_back() {
    for try_one_pc in [false, true] {
        let mut store = Store::new();
        store.memory.raise_max_ts(ts(50));
        let request =
            Prewrite { max_commit_ts: ts(40), try_one_pc, ..asynchronous(10, &["a", "b"]) };
        let answer = store.prewritten(&request);
        assert_eq!(answer, Default::default());
        assert!(store.memory.is_empty(), "nothing is left in memory");
        let lock = store.lock("a").unwrap();
        assert!(!lock.use_async_commit && lock.secondaries.is_empty());
        assert_eq!(lock.min_commit_ts, TimeStamp::ZERO);
        // Asked again with room enough: the locks that are there decide.
        let again = Prewrite { max_commit_ts: TimeStamp::ZERO, ..request };
        assert_eq!(store.prewritten(&again), Default::default());
    }
}

/// Trap 8: an answer was lost, and the request comes again.
#[test]
fn a_prewrite_that_is_sent_again_succeeds_with_the_same_timestamp() {
    let mut store = Store::new();
    let request = asynchronous(10, &["a", "b"]);
    let first = store.prewritten(&request);
    store.memory.raise_max_ts(ts(50));
    let before = store.all();
    assert_eq!(store.prewritten(&request).min_commit_ts, first.min_commit_ts);
    assert_eq!(store.all(), before);
    // Committed by somebody who resolved it.
    store.run(&commit(10, 11, &["a", "b"])).unwrap();
    let before = store.all();
    assert_eq!(store.prewritten(&request).min_commit_ts, ts(11));
    let at_once = Prewrite { try_one_pc: true, ..request };
    assert_eq!(store.prewritten(&at_once).one_pc_commit_ts, ts(11));
    assert_eq!(store.all(), before);
    assert!(store.memory.is_empty());
    // And overtaken.
    store.prewritten(&prewrite(60, vec![put("a", "w")]));
    assert_eq!(store.prewritten(&asynchronous(10, &["a", "b"])).min_commit_ts, ts(11));
}

/// Trap 9: a key that was locked and not changed conflicts nevertheless.
#[test]
fn a_lock_leaves_a_record_and_readers_see_through_it() {
    let mut store = Store::new();
    store.put_write("k", 5, &put_record(4, "v"));
    store.prewritten(&prewrite(10, vec![mutation(MutationOp::Lock, "k", "")]));
    assert_eq!(store.got("k", 15), Some(bytes("v")), "readers do not mind it");
    store.run(&commit(10, 20, &["k"])).unwrap();
    let last_change = LastChange::At(ts(5));
    let record = Write { last_change, ..Write::new(WriteKind::Lock, ts(10)) };
    assert_eq!(store.write("k", 20), Some(record));
    store.refused(&prewrite(15, vec![put("k", "w")]));
    assert_eq!(store.got("k", 25), Some(bytes("v")));
    let pairs = store.scan("", "", 25, &ScanOptions::limit(10));
    assert_eq!(pairs[0].as_ref().unwrap().value, bytes("v"));
}

/// Trap 10: its own rollback stops a transaction, also with newer versions above it.
#[test]
fn a_rollback_below_newer_versions_is_found() {
    let mut store = Store::new();
    store.put_write("k", 10, &Write::rollback(ts(10), false));
    store.put_write("k", 20, &put_record(15, "v"));
    store.refused(&prewrite(10, vec![put("k", "w")]));
    let mut retry = prewrite(10, vec![put("k", "w")]);
    (retry.for_update_ts, retry.is_retry) = (ts(30), true);
    assert!(is_self_rolled_back(&store.refused(&retry)));
    let late = store.run(&pessimistic(10, 30, "k"));
    assert!(matches!(key_error(late), KeyError::PessimisticLockRolledBack { .. }));
}

/// Trap 11: time is what the request says.
#[test]
fn the_time_of_a_lock_is_over_when_the_asking_client_says_so() {
    let mut store = Store::new();
    store.put_lock("k", &Lock::new(LockKind::Put, "k", ms(100), 8));
    let alive = store.run(&status("k", ms(100), ms(108))).unwrap();
    assert_eq!((alive.lock_ttl, alive.action), (8, TxnAction::None));
    let over = store.run(&status("k", ms(100), ms(109))).unwrap();
    assert_eq!(over.action, TxnAction::TtlExpireRollback);
    store.put_lock("l", &Lock::new(LockKind::Put, "l", ms(100), u64::MAX));
    let over = store.run(&status("l", ms(100), TimeStamp::MAX)).unwrap();
    assert_eq!(over.action, TxnAction::TtlExpireRollback, "the largest timestamp is after all");
}

/// Trap 12: a reader is let past only by what is written down.
#[test]
fn a_pushed_transaction_can_not_commit_below_the_reader() {
    let mut store = Store::new();
    let request = Prewrite { min_commit_ts: ts(11), ..prewrite(10, vec![put("k", "v")]) };
    store.prewritten(&request);
    let mut check = status("k", ts(10), ts(30));
    check.caller_start_ts = ts(50);
    let answer = store.run(&check).unwrap();
    assert_eq!(answer.action, TxnAction::MinCommitTsPushed);
    assert_eq!(store.lock("k").unwrap().min_commit_ts, ts(51));
    assert_eq!(store.got("k", 50), None, "the reader is past");
    let error = key_error(store.run(&commit(10, 50, &["k"])));
    let KeyError::CommitTsExpired { key, min_commit_ts, .. } = error else { panic!("{error}") };
    assert_eq!((key, min_commit_ts), (bytes("k"), ts(51)));
    store.run(&commit(10, 51, &["k"])).unwrap();
}

/// Trap 12: who promised nothing is not pushed.
#[test]
fn a_transaction_without_a_smallest_commit_timestamp_is_not_pushed() {
    let mut store = Store::new();
    store.prewritten(&prewrite(10, vec![put("k", "v")]));
    let mut check = status("k", ts(10), ts(30));
    check.caller_start_ts = ts(50);
    let outcome = store.decide(&check).unwrap();
    assert_eq!((outcome.changes, outcome.answer.action), (vec![], TxnAction::None));
}

/// Trap 13: the prewrite relies on the very lock that it knows.
#[test]
fn a_lock_that_was_taken_again_later_is_not_the_one_that_was_meant() {
    let mut store = Store::new();
    store.run(&pessimistic(10, 20, "k")).unwrap();
    let mut request = prewrite(10, vec![put("k", "v")]);
    request.mutations[0].pessimistic = PessimisticAction::DoPessimisticCheck;
    (request.for_update_ts, request.for_update_ts_constraints) = (ts(30), vec![(0, ts(15))]);
    let lost = KeyError::PessimisticLockNotFound { start_ts: ts(10), key: bytes("k") };
    assert_eq!(store.refused(&request), lost);
    request.for_update_ts_constraints = vec![(0, ts(20))];
    store.prewritten(&request);
}

/// Trap 14: a request that was on its way for long does not lock for a transaction that has ended.
#[test]
fn a_stale_pessimistic_lock_request_does_not_lock_again() {
    let mut store = Store::new();
    store.put_write("k", 20, &put_record(10, "v"));
    let late = store.run(&pessimistic(10, 30, "k"));
    assert!(matches!(key_error(late), KeyError::Committed { .. }));
    store.prewritten(&prewrite(40, vec![put("l", "v")]));
    let late = store.run(&pessimistic(40, 40, "l"));
    assert!(matches!(key_error(late), KeyError::InvalidRequest(_)), "a prewrite is not undone");
    assert_eq!(store.lock("l").unwrap().kind, LockKind::Put);
}

/// Trap 15: a lock is an item of a scan, in its place, and counts.
#[test]
fn a_scan_names_locked_keys_among_the_pairs() {
    let mut store = Store::new();
    store.put_write("a", 5, &put_record(4, "v"));
    store.put_write("b", 5, &put_record(4, "v"));
    store.put_write("d", 5, &put_record(4, "v"));
    store.prewritten(&prewrite(10, vec![put("b", "w"), put("c", "w")]));
    let items = store.scan("", "", 20, &ScanOptions::limit(3));
    let keys: Vec<_> = items
        .iter()
        .map(|item| match item {
            Ok(pair) => (pair.key.clone(), false),
            Err(KeyError::Locked(lock)) => (lock.key.clone(), true),
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(keys, [(bytes("a"), false), (bytes("b"), true), (bytes("c"), true)]);
}

/// Asynchronous commit: only the secondaries know.
#[test]
fn a_transaction_with_asynchronous_commit_is_never_ended_at_its_primary_alone() {
    let mut store = Store::new();
    store.prewritten(&asynchronous(10, &["a", "b"]));
    let mut check = status("a", ts(10), TimeStamp::MAX);
    let outcome = store.decide(&check).unwrap();
    assert_eq!(outcome.changes, []);
    let lock = outcome.answer.lock.unwrap();
    assert_eq!((lock.use_async_commit, lock.secondaries), (true, list(["b"])));
    let secondaries = CheckSecondaryLocks { keys: list(["b"]), start_ts: ts(10) };
    assert_eq!(store.run(&secondaries).unwrap().locks.len(), 1);
    check.force_sync_commit = true;
    assert_eq!(store.run(&check).unwrap().action, TxnAction::TtlExpireRollback);
}
