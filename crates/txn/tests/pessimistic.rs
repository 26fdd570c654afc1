//! Pessimistic transactions: taking, keeping and letting go of keys, and the prewrite that turns locks into others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use txn::{
    Assertion, ConflictReason, KeyError, LastChange, Lock, LockKind, Write, WriteKind,
    commands::{
        AssertionLevel, CheckSecondaryLocks, CheckTxnStatus, Commit, LockedKey, MutationOp,
        PessimisticAction, PessimisticKey, PessimisticLock, PessimisticRollback, Prewrite,
        ResolveLocks, TxnAction, TxnHeartBeat, WakeUpMode,
    },
};
use types::TimeStamp;

use support::{Store, bytes, key_error, list, mutation, prewrite, put, put_record, ts};

fn lock(start_ts: u64, for_update_ts: u64, keys: &[&str]) -> PessimisticLock {
    let wanted = |key: &&str| PessimisticKey { key: bytes(key), should_not_exist: false };
    PessimisticLock {
        keys: keys.iter().map(wanted).collect(),
        primary: bytes(keys[0]),
        start_ts: ts(start_ts),
        for_update_ts: ts(for_update_ts),
        ttl: 1000,
        ..PessimisticLock::default()
    }
}

fn force(request: PessimisticLock) -> PessimisticLock {
    PessimisticLock { wake_up_mode: WakeUpMode::ForceLock, ..request }
}

fn prewrite_locked(start_ts: u64, for_update_ts: u64, key: &str) -> Prewrite {
    let mut request = prewrite(start_ts, vec![put(key, "v")]);
    request.for_update_ts = ts(for_update_ts);
    request.mutations[0].pessimistic = PessimisticAction::DoPessimisticCheck;
    request
}

fn conflict_of(error: KeyError) -> (ConflictReason, TimeStamp) {
    match error {
        KeyError::WriteConflict { reason, conflict_commit_ts, .. } => (reason, conflict_commit_ts),
        error => panic!("{error}"),
    }
}

#[test]
fn a_key_is_locked_prewritten_and_committed() {
    let mut store = Store::new();
    store.put_write("k", 5, &put_record(4, "old"));
    store.run(&lock(10, 12, &["k"])).unwrap();
    let taken = store.lock("k").unwrap();
    assert_eq!((taken.kind, taken.for_update_ts), (LockKind::Pessimistic, ts(12)));
    assert_eq!(taken.last_change, LastChange::At(ts(5)));
    assert_eq!(store.got("k", 20), Some(bytes("old")), "readers do not mind it");
    store.prewritten(&prewrite_locked(10, 12, "k"));
    assert_eq!(store.lock("k").unwrap().kind, LockKind::Put);
    let (keys, start_ts, commit_ts) = (list(["k"]), ts(10), ts(20));
    store.run(&Commit { keys, start_ts, commit_ts, missing_is_success: false }).unwrap();
    assert_eq!(store.got("k", 20), Some(bytes("v")));
}

#[test]
fn a_key_that_somebody_has_or_wrote_is_refused() {
    let mut store = Store::new();
    store.run(&lock(10, 12, &["k"])).unwrap();
    let error = key_error(store.run(&lock(11, 13, &["a", "k"])));
    assert!(matches!(error, KeyError::Locked(info) if info.key == "k"));
    assert_eq!(store.lock("a"), None, "all keys or none");
    store.put_write("b", 30, &put_record(25, "v"));
    let error = key_error(store.run(&lock(10, 12, &["b"])));
    assert_eq!(conflict_of(error), (ConflictReason::PessimisticRetry, ts(30)));
    store.run(&lock(10, 30, &["b"])).unwrap();
}

#[test]
fn asked_again_a_lock_only_gets_later() {
    let mut store = Store::new();
    store.run(&lock(10, 20, &["k"])).unwrap();
    for (for_update_ts, kept) in [(20, 20), (15, 20), (25, 25)] {
        store.run(&lock(10, for_update_ts, &["k"])).unwrap();
        assert_eq!(store.lock("k").unwrap().for_update_ts, ts(kept));
    }
}

#[test]
fn values_and_existence_are_answered_key_by_key() {
    let mut store = Store::new();
    store.put_write("a", 5, &put_record(4, ""));
    store.put_write("b", 5, &Write::new(WriteKind::Delete, ts(4)));
    let asked = PessimisticLock { return_values: true, ..lock(10, 12, &["a", "b"]) };
    let there = LockedKey { value: Some(bytes("")), exists: true, ..LockedKey::default() };
    for _ in 0..2 {
        let answer = store.run(&asked).unwrap();
        assert_eq!(answer.results, [there.clone(), LockedKey::default()], "an empty value is one");
    }
    let asked = PessimisticLock { check_existence: true, ..lock(10, 12, &["a", "b"]) };
    let exist: Vec<_> = store.run(&asked).unwrap().results.iter().map(|key| key.exists).collect();
    assert_eq!(exist, [true, false]);
}

#[test]
fn keys_that_do_not_exist_are_left_alone_if_so_asked() {
    let mut store = Store::new();
    store.put_write("a", 5, &put_record(4, "v"));
    let mut asked = PessimisticLock { lock_only_if_exists: true, ..lock(10, 12, &["a", "b"]) };
    assert!(matches!(key_error(store.run(&asked)), KeyError::InvalidRequest(_)));
    asked.return_values = true;
    store.run(&asked).unwrap();
    assert!(store.lock("a").is_some() && store.lock("b").is_none());
    let mut asked = lock(10, 12, &["a"]);
    asked.keys[0].should_not_exist = true;
    assert_eq!(key_error(store.run(&asked)), KeyError::AlreadyExist { key: bytes("a") });
}

#[test]
fn a_forced_lock_says_as_of_when_it_is_and_what_it_found() {
    let mut store = Store::new();
    store.put_write("k", 30, &put_record(25, "newer"));
    let request = force(lock(10, 12, &["k"]));
    let found =
        LockedKey { value: Some(bytes("newer")), exists: true, locked_with_conflict_ts: ts(30) };
    for _ in 0..2 {
        assert_eq!(store.run(&request).unwrap().results, std::slice::from_ref(&found));
    }
    let taken = store.lock("k").unwrap();
    assert_eq!((taken.for_update_ts, taken.is_locked_with_conflict), (ts(30), true));
    let error = key_error(store.run(&lock(10, 12, &["k"])));
    assert_eq!(conflict_of(error).0, ConflictReason::PessimisticRetry);
    store.run(&lock(10, 31, &["k"])).unwrap();
    assert!(!store.lock("k").unwrap().is_locked_with_conflict);
    let two = force(lock(10, 12, &["k", "l"]));
    assert!(matches!(key_error(store.run(&two)), KeyError::InvalidRequest(_)));
}

#[test]
fn a_rollback_of_pessimistic_locks_leaves_no_trace() {
    let mut store = Store::new();
    store.run(&lock(10, 20, &["a", "b"])).unwrap();
    store.prewritten(&prewrite_locked(10, 20, "b"));
    store.run(&lock(11, 20, &["c"])).unwrap();
    let keys = list(["a", "b", "c", "d"]);
    let mut request = PessimisticRollback { keys, start_ts: ts(10), for_update_ts: ts(19) };
    assert_eq!(store.decide(&request).unwrap().changes, [], "taken later than that");
    request.for_update_ts = ts(20);
    store.run(&request).unwrap();
    assert_eq!(store.lock("a"), None);
    assert!(store.lock("b").is_some() && store.lock("c").is_some());
    assert_eq!(store.all().len(), 2);
}

#[test]
fn a_lost_lock_is_made_up_for_only_if_nobody_can_have_written() {
    let mut store = Store::new();
    store.put_write("a", 5, &put_record(4, "v"));
    store.prewritten(&prewrite_locked(10, 12, "a"));
    store.put_write("b", 11, &put_record(9, "v"));
    let lost = |key: &str| KeyError::PessimisticLockNotFound { start_ts: ts(10), key: bytes(key) };
    assert_eq!(store.refused(&prewrite_locked(10, 12, "b")), lost("b"));
    store.run(&lock(11, 12, &["c"])).unwrap();
    assert_eq!(store.refused(&prewrite_locked(10, 12, "c")), lost("c"));
}

#[test]
fn a_key_that_needs_no_lock_is_checked_when_it_is_asked_or_sent_again() {
    let mut store = Store::new();
    store.put_write("k", 30, &put_record(25, "v"));
    let mut request = prewrite_locked(10, 12, "k");
    request.mutations[0].pessimistic = PessimisticAction::DoConstraintCheck;
    let reason = conflict_of(store.refused(&request)).0;
    assert_eq!(reason, ConflictReason::LazyUniquenessCheck);
    request.mutations[0].pessimistic = PessimisticAction::Skip;
    request.is_retry = true;
    assert!(matches!(store.refused(&request), KeyError::PessimisticLockNotFound { .. }));
    store.put_write("l", 30, &Write::rollback(ts(30), true));
    request.mutations[0].key = bytes("l");
    store.prewritten(&request);
    request.mutations[0] = mutation(MutationOp::CheckNotExists, "m", "");
    assert!(matches!(store.refused(&request), KeyError::InvalidRequest(_)));
}

#[test]
fn another_lock_is_to_be_resolved_at_once_by_a_pessimistic_transaction() {
    let mut store = Store::new();
    store.prewritten(&prewrite(5, vec![put("k", "v")]));
    let mut request = prewrite_locked(10, 12, "k");
    request.mutations[0].pessimistic = PessimisticAction::Skip;
    assert!(matches!(store.refused(&request), KeyError::Locked(info) if info.ttl == 0));
    let optimistic = prewrite(10, vec![put("k", "v")]);
    assert!(matches!(store.refused(&optimistic), KeyError::Locked(info) if info.ttl == 1000));
}

#[test]
fn what_was_pushed_and_lengthened_stays_so_through_the_prewrite() {
    let mut store = Store::new();
    store.run(&PessimisticLock { min_commit_ts: ts(13), ..lock(10, 12, &["k"]) }).unwrap();
    let beat = TxnHeartBeat { primary: bytes("k"), start_ts: ts(10), advise_ttl: 9000 };
    assert_eq!(store.run(&beat).unwrap(), 9000);
    assert_eq!(store.run(&TxnHeartBeat { advise_ttl: 5, ..beat.clone() }).unwrap(), 9000);
    let push = CheckTxnStatus {
        primary: bytes("k"),
        lock_ts: ts(10),
        caller_start_ts: ts(50),
        current_ts: ts(20),
        ..CheckTxnStatus::default()
    };
    assert_eq!(store.run(&push).unwrap().action, TxnAction::MinCommitTsPushed);
    store.prewritten(&prewrite_locked(10, 12, "k"));
    let lock = store.lock("k").unwrap();
    assert_eq!((lock.ttl, lock.min_commit_ts), (9000, ts(51)));
    let unknown = TxnHeartBeat { start_ts: ts(11), ..beat };
    let missing = KeyError::TxnNotFound { start_ts: ts(11), primary: bytes("k") };
    assert_eq!(key_error(store.run(&unknown)), missing);
}

fn status(start_ts: u64) -> CheckTxnStatus {
    CheckTxnStatus {
        primary: bytes("k"),
        lock_ts: ts(start_ts),
        current_ts: TimeStamp::MAX,
        rollback_if_not_exist: true,
        verify_is_primary: true,
        ..CheckTxnStatus::default()
    }
}

#[test]
fn who_meets_a_pessimistic_lock_only_removes_it_and_others_end_the_transaction() {
    let mut store = Store::new();
    store.run(&lock(10, 12, &["k"])).unwrap();
    let resolving = CheckTxnStatus { resolving_pessimistic_lock: true, ..status(10) };
    let action = store.run(&resolving).unwrap().action;
    assert_eq!(action, TxnAction::TtlExpirePessimisticRollback);
    assert_eq!(store.all(), []);
    assert_eq!(store.run(&resolving).unwrap().action, TxnAction::LockNotExistDoNothing);
    assert_eq!(store.all(), []);
    store.run(&lock(10, 12, &["k"])).unwrap();
    assert_eq!(store.run(&status(10)).unwrap().action, TxnAction::TtlExpireRollback);
    assert_eq!(store.write("k", 10), Some(Write::rollback(ts(10), true)));
}

#[test]
fn a_key_that_is_not_the_primary_does_not_decide() {
    let mut store = Store::new();
    let lock_of = |kind| Lock::new(kind, "other", ts(10), 5);
    store.put_lock("k", &lock_of(LockKind::Put));
    assert!(matches!(key_error(store.run(&status(10))), KeyError::PrimaryMismatch(_)));
    store.put_lock("k", &lock_of(LockKind::Pessimistic));
    let resolving = CheckTxnStatus { resolving_pessimistic_lock: true, ..status(10) };
    assert!(matches!(key_error(store.run(&resolving)), KeyError::PrimaryMismatch(_)));
    assert_eq!(store.run(&status(10)).unwrap().action, TxnAction::LockNotExistRollback);
    assert_eq!(store.lock("k"), None);
    let mut unknown = status(11);
    unknown.rollback_if_not_exist = false;
    assert!(matches!(key_error(store.run(&unknown)), KeyError::TxnNotFound { .. }));
}

#[test]
fn a_forced_lock_of_a_transaction_that_has_ended_is_stale() {
    let mut store = Store::new();
    let stale =
        Lock { is_locked_with_conflict: true, ..Lock::new(LockKind::Pessimistic, "k", ts(10), 5) };
    store.put_write("k", 20, &put_record(10, "v"));
    store.put_lock("k", &stale);
    assert_eq!(store.run(&status(10)).unwrap().commit_ts, ts(20));
    assert_eq!(store.lock("k"), None);
}

#[test]
fn a_leftover_pessimistic_lock_goes_without_a_record() {
    let mut store = Store::new();
    store.run(&lock(10, 12, &["a", "b", "c"])).unwrap();
    let (keys, start_ts, commit_ts) = (list(["a"]), ts(10), ts(20));
    store.run(&Commit { keys, start_ts, commit_ts, missing_is_success: false }).unwrap();
    let keys = list(["b", "none"]);
    let resolved = store.run(&ResolveLocks { keys, txns: [(start_ts, commit_ts)].into() });
    assert_eq!(resolved.unwrap(), 1);
    assert_eq!((store.lock("a"), store.lock("b")), (None, None));
    assert_eq!(store.all().len(), 1);
    // Asked whether it is committed: a key that is only locked is not.
    let check = CheckSecondaryLocks { keys: list(["c"]), start_ts };
    assert_eq!(store.run(&check).unwrap(), Default::default());
    assert_eq!(
        (store.lock("c"), store.write("c", 10)),
        (None, Some(Write::rollback(ts(10), true)))
    );
}

#[test]
fn assertions_are_checked_as_far_as_was_asked() {
    let mut store = Store::new();
    store.put_write("k", 5, &put_record(4, "v"));
    let request = |level, skip| {
        let mut request = prewrite(10, vec![put("k", "w")]);
        request.mutations[0].assertion = Assertion::NotExist;
        Prewrite { assertion_level: level, skip_constraint_check: skip, ..request }
    };
    let failed = KeyError::AssertionFailed {
        start_ts: ts(10),
        key: bytes("k"),
        assertion: Assertion::NotExist,
        existing_start_ts: ts(4),
        existing_commit_ts: ts(5),
    };
    assert_eq!(store.refused(&request(AssertionLevel::Fast, false)), failed);
    assert_eq!(store.refused(&request(AssertionLevel::Strict, true)), failed);
    let mut exist = request(AssertionLevel::Strict, false);
    exist.mutations[0].assertion = Assertion::Exist;
    exist.mutations[0].key = bytes("none");
    let error = store.refused(&exist);
    assert!(matches!(error, KeyError::AssertionFailed { existing_commit_ts: TimeStamp(0), .. }));
    // A rollback is the better reason.
    store.put_write("k", 10, &Write::rollback(ts(10), false));
    let reason = conflict_of(store.refused(&request(AssertionLevel::Strict, true))).0;
    assert_eq!(reason, ConflictReason::SelfRolledBack);
    store.prewritten(&request(AssertionLevel::Fast, true));
}

#[test]
fn what_must_not_exist_is_checked_and_a_check_leaves_nothing() {
    let mut store = Store::new();
    store.put_write("a", 5, &put_record(4, "v"));
    store.put_write("b", 5, &Write::new(WriteKind::Delete, ts(4)));
    store.put_write("b", 6, &Write::new(WriteKind::Lock, ts(5)));
    for op in [MutationOp::Insert, MutationOp::CheckNotExists] {
        let error = store.refused(&prewrite(10, vec![mutation(op, "a", "w")]));
        assert_eq!(error, KeyError::AlreadyExist { key: bytes("a") });
    }
    store.prewritten(&prewrite(10, vec![mutation(MutationOp::CheckNotExists, "b", "")]));
    assert_eq!(store.lock("b"), None);
    store.prewritten(&prewrite(10, vec![mutation(MutationOp::Insert, "b", "w")]));
    assert_eq!(store.lock("b").unwrap().kind, LockKind::Put);
}

#[test]
fn locks_that_are_in_the_way_are_named_all_at_once() {
    let mut store = Store::new();
    store.prewritten(&prewrite(10, vec![put("a", "v"), put("b", "v")]));
    let mut request = prewrite(20, vec![put("a", "w"), put("b", "w"), put("c", "w")]);
    request.use_async_commit = true;
    let answer = store.prewrite(&request);
    assert_eq!(answer.errors.len(), 2);
    assert!(store.memory.is_empty());
    assert_eq!(store.lock("c"), None);
}
