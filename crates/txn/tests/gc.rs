//! What goes under a safe point, and what stays.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use engine::Family;
use txn::{Lock, LockKind, Write, WriteKind, commands::Gc, find_locks, gc::find_garbage};
use types::{Bytes, KeyRange};

use support::{Store, bytes, list, put_record, ts};

fn gc(store: &mut Store, keys: &[&str], safe_point: u64, limit: usize) -> Vec<Bytes> {
    store.run(&Gc { keys: list(keys), safe_point: ts(safe_point), limit }).unwrap()
}

/// Three versions, the oldest with a long value; a rollback and a lock between.
fn versions() -> Store {
    let store = Store::new();
    store.put_committed("k", 4, 5, "oldest");
    store.put_write("k", 10, &put_record(9, "old"));
    store.put_write("k", 12, &Write::rollback(ts(12), true));
    store.put_write("k", 15, &Write::new(WriteKind::Lock, ts(14)));
    store.put_write("k", 20, &put_record(19, "new"));
    store
}

#[test]
fn the_newest_version_under_the_safe_point_stays() {
    let mut store = versions();
    assert_eq!(gc(&mut store, &["k"], 16, 100), list::<&str>([]));
    assert_eq!((store.got("k", 16), store.got("k", 20)), (Some(bytes("old")), Some(bytes("new"))));
    assert_eq!((store.len(Family::Write), store.len(Family::Default)), (2, 0));
    assert_eq!(gc(&mut store, &["k"], 20, 100), list::<&str>([]));
    assert_eq!(store.all().len(), 1);
}

#[test]
fn nothing_above_the_safe_point_is_touched() {
    let mut store = versions();
    let before = store.all();
    gc(&mut store, &["k"], 4, 100);
    assert_eq!(store.all(), before);
    gc(&mut store, &["k"], 5, 100);
    assert_eq!(store.all(), before, "one version at the safe point is the newest");
}

#[test]
fn a_deletion_goes_with_what_it_hides_and_never_before_it() {
    for limit in 1..8 {
        let mut store = versions();
        store.put_write("k", 30, &Write::new(WriteKind::Delete, ts(29)));
        loop {
            let rest = gc(&mut store, &["k"], 40, limit);
            assert_eq!(store.got("k", 40), None, "cut off at {limit}");
            if rest.is_empty() {
                break;
            }
            assert_eq!(rest, list(["k"]));
        }
        assert_eq!(store.all(), []);
    }
}

#[test]
fn keys_with_garbage_are_found_page_by_page() {
    let store = versions();
    store.put_write("a", 5, &put_record(4, "only"));
    store.put_write("b", 5, &Write::new(WriteKind::Delete, ts(4)));
    store.put_write("m", 5, &Write::rollback(ts(5), false));
    store.put_write("z", 50, &Write::rollback(ts(50), false));
    let snapshot = store.snapshot();
    let mut range = KeyRange::all();
    let mut found = Vec::new();
    for _ in 0..10 {
        let (keys, rest) = find_garbage(snapshot.as_ref(), &range, ts(16), 1, 100).unwrap();
        found.extend(keys);
        let Some(next) = rest else { break };
        range.start = next;
    }
    assert_eq!(found, list(["b", "k", "m"]));
    let (keys, rest) = find_garbage(snapshot.as_ref(), &KeyRange::all(), ts(16), 10, 1).unwrap();
    assert_eq!((keys, rest), (list::<&str>([]), Some(bytes("b"))), "a page takes bounded time");
}

#[test]
fn locks_are_found_page_by_page() {
    let store = Store::new();
    for (key, start_ts) in [("a", 5), ("b", 6), ("c", 5), ("d", 50)] {
        store.put_lock(key, &Lock::new(LockKind::Put, key, ts(start_ts), 1));
    }
    let snapshot = store.snapshot();
    let old = |lock: &Lock| lock.start_ts <= ts(10);
    let find = |range: &KeyRange, limit| {
        let (found, rest) = find_locks(snapshot.as_ref(), range, old, limit).unwrap();
        (found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), rest)
    };
    assert_eq!(find(&KeyRange::all(), 2), (list(["a", "b"]), Some(bytes("c"))));
    assert_eq!(find(&KeyRange::new("c", ""), 2), (list(["c"]), None));
    assert_eq!(find(&KeyRange::new("a", "b"), 2), (list(["a"]), None), "the end is not in it");
    assert_eq!(find(&KeyRange::new("c", "a"), 2), (list::<&str>([]), None));
}
