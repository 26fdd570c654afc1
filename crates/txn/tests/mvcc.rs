//! What is shown of a key to people, and how everything of it goes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use txn::{
    Lock, LockKind, Write, WriteKind,
    commands::DeleteKeys,
    mvcc::{find_keys, find_txn, records_of},
};
use types::{Bytes, KeyRange};

use support::{Store, bytes, list, put_record, ts};

/// `a`: two versions, one with a value of its own. `b`: a prewrite. `c`: a rollback.
fn some() -> Store {
    let store = Store::new();
    store.put_committed("a", 4, 5, "long");
    store.put_write("a", 10, &put_record(9, "short"));
    store.put_prewritten("b", 20, "new");
    store.put_write("c", 30, &Write::rollback(ts(30), true));
    store
}

#[test]
fn everything_of_a_key_is_shown() {
    let store = some();
    let snapshot = store.snapshot();
    let a = records_of(snapshot.as_ref(), &bytes("a")).unwrap();
    assert_eq!(a.lock, None);
    let old = Write::new(WriteKind::Put, ts(4));
    assert_eq!(a.writes, [(ts(10), put_record(9, "short")), (ts(5), old)]);
    assert_eq!(a.values, [(ts(4), bytes("long"))]);
    let b = records_of(snapshot.as_ref(), &bytes("b")).unwrap();
    assert_eq!(b.lock, Some(Lock::new(LockKind::Put, "", ts(20), 0)));
    assert_eq!((b.writes, b.values), (vec![], vec![(ts(20), bytes("new"))]));
    assert_eq!(records_of(snapshot.as_ref(), &bytes("aa")).unwrap(), Default::default());
}

/// Looks for a transaction a few records at a time.
fn found(store: &Store, start_ts: u64, looked_at_max: usize) -> Option<Bytes> {
    let snapshot = store.snapshot();
    let mut range = KeyRange::all();
    for _ in 0..20 {
        let (key, next) = find_txn(snapshot.as_ref(), &range, ts(start_ts), looked_at_max).unwrap();
        match (key, next) {
            (Some(key), _) => return Some(key),
            (None, Some(next)) => {
                assert!(range.start < next || looked_at_max == 1, "it goes on");
                range.start = next;
            }
            (None, None) => return None,
        }
    }
    panic!("it never ends");
}

#[test]
fn a_transaction_is_found_by_its_lock_or_record_however_few_are_looked_at() {
    let store = some();
    for looked_at_max in [2, 3, 100] {
        for (start_ts, key) in [(4, "a"), (9, "a"), (20, "b"), (30, "c")] {
            assert_eq!(found(&store, start_ts, looked_at_max), Some(bytes(key)), "{start_ts}");
        }
        assert_eq!(found(&store, 10, looked_at_max), None, "a commit timestamp is none");
    }
}

#[test]
fn all_keys_are_found_in_order_page_by_page() {
    let store = some();
    for version in 100..120 {
        store.put_write("a", version, &put_record(version, "again"));
    }
    let snapshot = store.snapshot();
    let keys = |start: &str, end: &str, limit| {
        let range = KeyRange::new(bytes(start), bytes(end));
        find_keys(snapshot.as_ref(), &range, limit).unwrap()
    };
    assert_eq!(keys("", "", 10), list(["a", "b", "c"]));
    assert_eq!(keys("", "", 2), list(["a", "b"]));
    assert_eq!(keys("b", "c", 2), list(["b"]));
    assert_eq!(keys("d", "", 2), list::<&str>([]));
}

#[test]
fn nothing_is_left_of_deleted_keys_and_no_old_version_shows_meanwhile() {
    for limit in 1..8 {
        let mut store = some();
        let before = store.got("a", 100);
        let mut keys = list(["a", "b"]);
        while !keys.is_empty() {
            keys = store.run(&DeleteKeys { keys, limit }).unwrap();
            let now = store.got("a", 100);
            assert!(now == before || now.is_none(), "limit {limit}: {now:?}");
        }
        assert_eq!(store.all().len(), 1, "the rollback of c");
    }
}
