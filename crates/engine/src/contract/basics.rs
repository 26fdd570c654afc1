//! Batches, snapshots, restarts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use types::{ErrorClass, KeyRange};

use super::{Subject, get, keys, pairs, put};
use crate::{Engine, Error, Family, KEY_BYTES_MAX, WriteBatch};

/// A batch over all families is there as a whole, under the same key in each.
pub fn a_batch_spans_families(subject: &dyn Subject) {
    let engine = subject.open();
    let before = engine.snapshot().unwrap();
    let mut batch = WriteBatch::new();
    for family in Family::ALL {
        batch.put(family, "key", family.name());
    }
    engine.write(batch).unwrap();
    for family in Family::ALL {
        assert_eq!(get(&*engine, family, b"key").unwrap(), family.name());
        assert_eq!(before.get(family, b"key").unwrap(), None);
    }
    engine.write(WriteBatch::new()).unwrap();
}

/// Within a batch and between batches.
pub fn the_last_change_of_a_key_wins(subject: &dyn Subject) {
    let engine = subject.open();
    let mut batch = WriteBatch::new();
    batch.put(Family::Default, "twice", "1");
    batch.put(Family::Default, "twice", "2");
    batch.put(Family::Default, "gone", "1");
    batch.delete(Family::Default, "gone");
    batch.delete(Family::Default, "back");
    batch.put(Family::Default, "back", "1");
    engine.write(batch).unwrap();
    let check = |engine: &dyn Engine| {
        assert_eq!(get(engine, Family::Default, b"twice").unwrap(), "2");
        assert_eq!(get(engine, Family::Default, b"gone"), None);
        assert_eq!(get(engine, Family::Default, b"back").unwrap(), "1");
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(keys(&*snapshot, Family::Default, &KeyRange::all()), ["back", "twice"]);
    };
    check(&*engine);
    drop(engine);
    let engine = subject.open();
    check(&*engine);
    engine.flush().unwrap();
    check(&*engine);

    put(&*engine, Family::Default, b"twice", b"3");
    assert_eq!(get(&*engine, Family::Default, b"twice").unwrap(), "3");
}

/// No value and an empty one are two things, in memory, in tables and for cursors.
pub fn an_empty_value_is_a_value(subject: &dyn Subject) {
    let engine = subject.open();
    put(&*engine, Family::Default, b"empty", b"");
    for _ in 0..2 {
        assert_eq!(get(&*engine, Family::Default, b"empty").unwrap(), "");
        assert_eq!(get(&*engine, Family::Default, b"missing"), None);
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(pairs(&*snapshot, Family::Default), [(b"empty".to_vec(), vec![])]);
        engine.flush().unwrap();
    }
}

/// Deleting is not reading: a key that is not there is no error, and stays away.
pub fn what_is_not_there_can_be_deleted(subject: &dyn Subject) {
    let engine = subject.open();
    let mut batch = WriteBatch::new();
    batch.delete(Family::Lock, "key");
    engine.write(batch.clone()).unwrap();
    put(&*engine, Family::Lock, b"key", b"1");
    engine.write(batch.clone()).unwrap();
    engine.write(batch).unwrap();
    assert_eq!(get(&*engine, Family::Lock, b"key"), None);
    engine.delete_range(Family::Lock, &KeyRange::all()).unwrap();
}

/// A batch with an empty or over-long key is refused as a whole, and the engine goes on.
pub fn keys_no_engine_takes_are_refused(subject: &dyn Subject) {
    let engine = subject.open();
    for bad in [vec![], vec![b'k'; KEY_BYTES_MAX + 1]] {
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, "good", "1");
        batch.put(Family::Default, bad.clone(), "1");
        let error = engine.write(batch).unwrap_err();
        assert!(matches!(error, Error::KeyLength { len } if len == bad.len()), "{error}");
        assert_eq!(error.class(), ErrorClass::Invalid);
        let mut batch = WriteBatch::new();
        batch.delete(Family::Default, bad.clone());
        engine.write(batch).unwrap_err();
        assert_eq!(get(&*engine, Family::Default, b"good"), None);
        assert_eq!(get(&*engine, Family::Default, &bad), None);
    }
    put(&*engine, Family::Default, b"good", b"1");
    engine.sync().unwrap();
}

/// Zeros, 0xFF and the longest key; order is that of bytes.
pub fn keys_may_have_any_bytes(subject: &dyn Subject) {
    let engine = subject.open();
    let mut all: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0, 0],
        vec![0, 0xff],
        vec![1],
        vec![0xfe, 0xff, 0xff],
        vec![0xff],
        vec![0xff, 0],
        vec![0xff; 9],
    ];
    all.push(vec![0xff; KEY_BYTES_MAX]);
    all.push([vec![b'm'; KEY_BYTES_MAX - 1], vec![0]].concat());
    all.extend((0..=255).map(|byte| vec![b'x', byte]));
    for key in &all {
        put(&*engine, Family::Write, key, &key[..key.len().min(3)]);
    }
    all.sort();
    for _ in 0..2 {
        for key in &all {
            assert_eq!(get(&*engine, Family::Write, key).unwrap(), key[..key.len().min(3)]);
        }
        assert_eq!(keys(&*engine.snapshot().unwrap(), Family::Write, &KeyRange::all()), all);
        engine.flush().unwrap();
    }
}

/// A mebibyte, several per batch.
pub fn values_may_be_large(subject: &dyn Subject) {
    let engine = subject.open();
    let value = |i: u8| -> Vec<u8> {
        (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ i).collect()
    };
    let mut batch = WriteBatch::new();
    for i in 0..5 {
        batch.put(Family::Default, vec![i], value(i));
    }
    engine.write(batch).unwrap();
    engine.sync().unwrap();
    for _ in 0..2 {
        for i in 0..5 {
            assert!(get(&*engine, Family::Default, &[i]).unwrap() == value(i), "value {i}");
        }
        engine.flush().unwrap();
    }
}

/// Not by writes, deletions, delete-ranges or flushes.
pub fn snapshots_do_not_change(subject: &dyn Subject) {
    let engine = subject.open();
    for i in 0..50_u8 {
        put(&*engine, Family::Default, &[i], b"old");
    }
    let snapshot = engine.snapshot().unwrap();
    let old = pairs(&*snapshot, Family::Default);
    let check = || {
        assert_eq!(pairs(&*snapshot, Family::Default), old);
        for i in 0..60_u8 {
            assert_eq!(snapshot.get(Family::Default, &[i]).unwrap().is_some(), i < 50);
        }
    };
    for i in 0..60_u8 {
        put(&*engine, Family::Default, &[i], b"new");
        assert_eq!(get(&*engine, Family::Default, &[i]).unwrap(), "new");
    }
    check();
    engine.flush().unwrap();
    check();
    let mut batch = WriteBatch::new();
    (0..20_u8).for_each(|i| batch.delete(Family::Default, vec![i]));
    engine.write(batch).unwrap();
    check();
    let between = engine.snapshot().unwrap();
    engine.delete_range(Family::Default, &KeyRange::all()).unwrap();
    check();
    engine.flush().unwrap();
    check();
    assert_eq!(pairs(&*between, Family::Default).len(), 40);
    assert!(pairs(&*engine.snapshot().unwrap(), Family::Default).is_empty());
}

/// A cursor that is half way goes on as if nothing had happened, also after its snapshot is gone.
pub fn iterators_do_not_change(subject: &dyn Subject) {
    let engine = subject.open();
    for i in 0..100_u8 {
        put(&*engine, Family::Default, &[i], &[i]);
    }
    let mut iter = engine.snapshot().unwrap().iter(Family::Default, &KeyRange::all()).unwrap();
    assert!(iter.seek(&[10]).unwrap());
    for i in 10..100_u8 {
        assert_eq!((iter.key(), iter.value()), (&[i][..], &[i][..]));
        match i {
            20 => engine.delete_range(Family::Default, &KeyRange::new(vec![15], vec![40])).unwrap(),
            30 => engine.flush().unwrap(),
            40 => put(&*engine, Family::Default, &[41, 0], b"between"),
            50 => (0..100).for_each(|i| put(&*engine, Family::Default, &[i], b"new")),
            _ => {}
        }
        assert_eq!(iter.next().unwrap(), i < 99);
    }
    assert!(iter.seek_for_prev(&[25]).unwrap());
    assert_eq!(iter.value(), [25]);
}

/// A snapshot is all that a reader needs.
pub fn snapshots_outlive_the_handle(subject: &dyn Subject) {
    let engine = subject.open();
    put(&*engine, Family::Meta, b"key", b"value");
    let snapshot = engine.snapshot().unwrap();
    drop(engine);
    assert_eq!(snapshot.get(Family::Meta, b"key").unwrap().unwrap(), "value");
    let mut iter = snapshot.iter(Family::Meta, &KeyRange::all()).unwrap();
    drop(snapshot);
    assert!(iter.seek_to_first().unwrap());
    assert_eq!(iter.value(), b"value");
}

/// Readers beside a writer, with tables being written meanwhile: every snapshot has all of a batch or nothing,
/// never goes back, and answers the same when asked again.
pub fn batches_are_seen_whole(subject: &dyn Subject) {
    const BATCHES: u64 = 150;
    const KEYS: u64 = 150;
    let engine = subject.open();
    let stop = Arc::new(AtomicBool::new(false));
    let write = |engine: &dyn Engine, number: u64| {
        let mut batch = WriteBatch::new();
        for i in 0..KEYS {
            for family in Family::ALL {
                batch.put(family, i.to_be_bytes().to_vec(), number.to_be_bytes().to_vec());
            }
        }
        engine.write(batch).unwrap();
    };
    write(&*engine, 0);
    let flusher = runtime::task::spawn("flusher", {
        let (engine, stop) = (engine.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                engine.flush().unwrap();
            }
        }
    });
    let reader = runtime::task::spawn("reader", {
        let (engine, stop) = (engine.clone(), stop.clone());
        move || {
            let mut last = [0; 8];
            while !stop.load(Ordering::Relaxed) {
                let snapshot = engine.snapshot().unwrap();
                let first: [u8; 8] =
                    snapshot.get(Family::Write, &[0; 8]).unwrap().unwrap()[..].try_into().unwrap();
                assert!(last <= first, "went back from {last:?} to {first:?}");
                last = first;
                for _ in 0..2 {
                    for family in Family::ALL {
                        let all = pairs(&*snapshot, family);
                        assert_eq!(all.len() as u64, KEYS);
                        assert!(all.iter().all(|(_, value)| *value == first), "a part of a batch");
                    }
                }
            }
        }
    });
    (1..=BATCHES).for_each(|number| write(&*engine, number));
    stop.store(true, Ordering::Relaxed);
    flusher.unwrap().join().unwrap();
    reader.unwrap().join().unwrap();
}

/// Closed in good order: what was flushed, what was synced and what was neither.
pub fn everything_is_there_after_a_restart(subject: &dyn Subject) {
    for round in 0..4_u8 {
        let engine = subject.open();
        for old in 0..round {
            for i in 0..100_u8 {
                assert_eq!(
                    get(&*engine, Family::ALL[i as usize % 4], &[old, i]).unwrap()[..],
                    [old; 7]
                );
            }
        }
        for i in 0..100_u8 {
            put(&*engine, Family::ALL[i as usize % 4], &[round, i], &[round; 7]);
        }
        match round {
            0 => engine.flush().unwrap(),
            1 => engine.sync().unwrap(),
            _ => {}
        }
    }
}

/// Batches, their bytes and syncs since the engine was opened.
pub fn statistics_count(subject: &dyn Subject) {
    let engine = subject.open();
    let before = engine.statistics();
    put(&*engine, Family::Default, b"four", b"sixsix");
    put(&*engine, Family::Lock, b"four", b"");
    engine.sync().unwrap();
    engine.sync().unwrap();
    engine.sync().unwrap();
    let after = engine.statistics();
    assert_eq!(after.batches - before.batches, 2);
    assert_eq!(after.batch_bytes - before.batch_bytes, 14);
    assert_eq!(after.syncs - before.syncs, 3);
    assert!(0 < after.memory_bytes + after.disk_bytes);
}
