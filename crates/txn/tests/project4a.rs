//! The course's project 4A, test by test, in terms of this crate: what its `MvccTxn` does, `Changes` and `Reader` do.
//! Records are compared through their decoders: the formats are ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use txn::{Changes, Key, Lock, LockKind, Reader, TxnRecord, Write, WriteKind};
use types::{Bytes, Cf, Modify, TimeStamp};

use support::{Store, bytes, ts};

const KEY: [u8; 2] = [16, 240];

fn key() -> Key {
    Key::new(bytes(KEY))
}

/// The one change.
fn only(changes: Changes) -> Modify {
    let mut modifies = changes.into_modifies();
    assert_eq!(modifies.len(), 1);
    modifies.remove(0)
}

fn put_of(change: Modify) -> (Cf, Bytes, Bytes) {
    match change {
        Modify::Put { cf, key, value } => (cf, key, value),
        other => panic!("{other:?} is no put"),
    }
}

fn get(store: &Store, key: impl AsRef<[u8]>, at: u64) -> Option<Bytes> {
    Reader::new(store.snapshot().as_ref()).get(&Key::new(bytes(key)), ts(at)).unwrap()
}

/// Two versions, committed at 42 and 52.
fn two_versions() -> Store {
    let store = Store::new();
    store.put_committed(KEY, 40, 42, [1, 1, 2, 3, 5, 8, 13]);
    store.put_committed(KEY, 50, 52, [255, 0, 255]);
    store
}

/// One version, committed at 42, and its deletion, committed at 52.
fn deleted() -> Store {
    let store = Store::new();
    store.put_committed(KEY, 40, 42, [1, 1, 2, 3, 5, 8, 13]);
    store.put_write(KEY, 52, &Write::new(WriteKind::Delete, ts(50)));
    store
}

/// TestEncodeKey
#[test]
fn test_encode_key() {
    let encoded = Key::new(&[42][..]).at(TimeStamp(0));
    assert_eq!(
        &encoded[..],
        [42, 0, 0, 0, 0, 0, 0, 0, 248, 255, 255, 255, 255, 255, 255, 255, 255]
    );
}

/// TestPutLock4A
#[test]
fn test_put_lock_4a() {
    let lock = Lock::new(LockKind::Put, &[16][..], ts(100), 100_000);
    let mut changes = Changes::new();
    changes.put_lock(&Key::new(&[1][..]), &lock);
    let (cf, stored, value) = put_of(only(changes));
    assert_eq!((cf, &stored), (Cf::Lock, Key::new(&[1][..]).encoded()));
    assert_eq!(Lock::decode(&value).unwrap(), lock);
}

/// TestPutWrite4A
#[test]
fn test_put_write_4a() {
    let write = Write::new(WriteKind::Put, ts(0));
    let mut changes = Changes::new();
    changes.put_write(&key(), ts(453_325_345), &write);
    let (cf, stored, value) = put_of(only(changes));
    assert_eq!((cf, stored), (Cf::Write, key().at(ts(453_325_345))));
    assert_eq!(Write::decode(&value).unwrap(), write);
}

/// TestPutValue4A
#[test]
fn test_put_value_4a() {
    let value = bytes([1, 1, 2, 3, 5, 8, 13]);
    let mut changes = Changes::new();
    changes.put_value(&key(), ts(453_325_345), value.clone());
    assert_eq!(put_of(only(changes)), (Cf::Default, key().at(ts(453_325_345)), value));
}

/// TestGetLock4A
#[test]
fn test_get_lock_4a() {
    let store = Store::new();
    let lock = Lock::new(LockKind::Put, &[16][..], ts(100), 100_000);
    store.put_lock([1], &lock);
    let snapshot = store.snapshot();
    let reader = Reader::new(snapshot.as_ref());
    assert_eq!(reader.load_lock(&Key::new(&[1][..])).unwrap(), Some(lock));
    assert_eq!(reader.load_lock(&Key::new(&[1, 2][..])).unwrap(), None);
}

/// TestDeleteLock4A
#[test]
fn test_delete_lock_4a() {
    let mut changes = Changes::new();
    changes.delete_lock(&Key::new(&[1][..]));
    let stored = Key::new(&[1][..]).encoded().clone();
    assert_eq!(only(changes), Modify::Delete { cf: Cf::Lock, key: stored });
}

/// TestDeleteValue4A
#[test]
fn test_delete_value_4a() {
    let mut changes = Changes::new();
    changes.delete_value(&key(), ts(63_453_463_457));
    let stored = key().at(ts(63_453_463_457));
    assert_eq!(only(changes), Modify::Delete { cf: Cf::Default, key: stored });
}

/// TestGetValueSimple4A
#[test]
fn test_get_value_simple_4a() {
    let store = Store::new();
    store.put_committed(KEY, 40, 42, [1, 1, 2, 3, 5, 8, 13]);
    assert_eq!(get(&store, KEY, 43), Some(bytes([1, 1, 2, 3, 5, 8, 13])));
}

/// TestGetValueMissing4A
#[test]
fn test_get_value_missing_4a() {
    let store = Store::new();
    store.put_committed(KEY, 40, 42, [1, 1, 2, 3, 5, 8, 13]);
    assert_eq!(get(&store, [16, 241], 43), None);
}

/// TestGetValueTooEarly4A
#[test]
fn test_get_value_too_early_4a() {
    let store = Store::new();
    store.put_committed(KEY, 40, 42, [1, 1, 2, 3, 5, 8, 13]);
    assert_eq!(get(&store, KEY, 41), None);
}

/// TestGetValueOverwritten4A
#[test]
fn test_get_value_overwritten_4a() {
    assert_eq!(get(&two_versions(), KEY, 52), Some(bytes([255, 0, 255])));
}

/// TestGetValueNotOverwritten4A
#[test]
fn test_get_value_not_overwritten_4a() {
    assert_eq!(get(&two_versions(), KEY, 50), Some(bytes([1, 1, 2, 3, 5, 8, 13])));
}

/// TestGetValueDeleted4A
#[test]
fn test_get_value_deleted_4a() {
    assert_eq!(get(&deleted(), KEY, 60), None);
}

/// TestGetValueNotDeleted4A
#[test]
fn test_get_value_not_deleted_4a() {
    assert_eq!(get(&deleted(), KEY, 45), Some(bytes([1, 1, 2, 3, 5, 8, 13])));
}

/// TestCurrentWrite4A
#[test]
fn test_current_write_4a() {
    let store = two_versions();
    let snapshot = store.snapshot();
    let mut reader = Reader::new(snapshot.as_ref());
    for (start_ts, commit_ts) in [(50, 52), (40, 42)] {
        let own = TxnRecord::Own {
            commit_ts: ts(commit_ts),
            write: Write::new(WriteKind::Put, ts(start_ts)),
        };
        assert_eq!(reader.txn_record(&key(), ts(start_ts)).unwrap(), own);
    }
    let none = TxnRecord::None { overlapped: None };
    assert_eq!(reader.txn_record(&key(), ts(41)).unwrap(), none);
}

/// TestMostRecentWrite4A
#[test]
fn test_most_recent_write_4a() {
    let newest = |store: &Store, key: &[u8]| {
        let snapshot = store.snapshot();
        let key = Key::new(bytes(key));
        Reader::new(snapshot.as_ref()).seek_write(&key, TimeStamp::MAX).unwrap()
    };
    assert_eq!(newest(&Store::new(), &KEY), None);
    let put = Write::new(WriteKind::Put, ts(50));
    assert_eq!(newest(&two_versions(), &KEY), Some((ts(52), put)));
    assert_eq!(newest(&two_versions(), &[16]), None, "a prefix is another key");
    let delete = Write::new(WriteKind::Delete, ts(50));
    assert_eq!(newest(&deleted(), &KEY), Some((ts(52), delete)));
}
