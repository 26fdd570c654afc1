//! Calls that concern a range: delete-range, sizes, the middle.

use types::KeyRange;

use super::{Subject, get, keys, put};
use crate::{Engine, Family, WriteBatch};

use std::sync::Arc;

/// The start goes, the end stays; other families are untouched; again does no harm; new keys may come.
pub fn delete_range_keeps_the_rest(subject: &dyn Subject) {
    for flushed in [false, true] {
        let engine = subject.open();
        for family in [Family::Default, Family::Lock] {
            for key in ["a", "b", "c", "d", "e"] {
                put(&*engine, family, key.as_bytes(), b"1");
            }
        }
        if flushed {
            engine.flush().unwrap();
        }
        let left = |family| keys(&*engine.snapshot().unwrap(), family, &KeyRange::all());
        let range = KeyRange::new("b", "d");
        for _ in 0..2 {
            engine.delete_range(Family::Default, &range).unwrap();
            assert_eq!(left(Family::Default), ["a", "d", "e"]);
        }
        assert_eq!(left(Family::Lock), ["a", "b", "c", "d", "e"]);
        assert_eq!(get(&*engine, Family::Default, b"b"), None);
        for nothing in [KeyRange::new("d", "b"), KeyRange::new("d", "d"), KeyRange::new("x", "")] {
            engine.delete_range(Family::Default, &nothing).unwrap();
        }
        assert_eq!(left(Family::Default), ["a", "d", "e"]);
        put(&*engine, Family::Default, b"c", b"2");
        assert_eq!(left(Family::Default), ["a", "c", "d", "e"]);
        engine.delete_range(Family::Default, &KeyRange::new("", "c")).unwrap();
        assert_eq!(left(Family::Default), ["c", "d", "e"]);
        engine.delete_range(Family::Default, &KeyRange::new("d", "")).unwrap();
        assert_eq!(left(Family::Default), ["c"]);
        engine.delete_range(Family::Default, &KeyRange::all()).unwrap();
        assert!(left(Family::Default).is_empty());
        let after = || keys(&*subject.open().snapshot().unwrap(), Family::Lock, &KeyRange::all());
        drop(engine);
        assert_eq!(after(), ["a", "b", "c", "d", "e"]);
    }
}

/// Without bounds, and more than one batch of deletions: nothing is left, also after a restart.
pub fn delete_range_takes_large_ranges(subject: &dyn Subject) {
    let engine = subject.open();
    let long = "k".repeat(1000);
    for chunk in 0..60 {
        let mut batch = WriteBatch::new();
        for i in 0..100 {
            batch.put(Family::Default, format!("{long}{:06}", chunk * 100 + i), "v");
            batch.put(Family::Write, format!("{:06}", chunk * 100 + i), "v");
        }
        engine.write(batch).unwrap();
    }
    engine.delete_range(Family::Default, &KeyRange::new(long.clone(), "")).unwrap();
    engine.delete_range(Family::Write, &KeyRange::new("001000", "005000")).unwrap();
    let check = |engine: &dyn Engine| {
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(keys(&*snapshot, Family::Default, &KeyRange::all()).len(), 0);
        assert_eq!(keys(&*snapshot, Family::Write, &KeyRange::all()).len(), 2000);
    };
    check(&*engine);
    drop(engine);
    let engine = subject.open();
    check(&*engine);
    engine.flush().unwrap();
    check(&*engine);
}

/// How many pairs [`filled`] writes: more than engines look at one by one.
const PAIRS: u32 = 6000;

/// [`PAIRS`] keys of about 1 KiB, in three tables and the memtable.
fn filled(subject: &dyn Subject) -> Arc<dyn Engine> {
    let engine = subject.open();
    let mut rng = runtime::Rng::new(3);
    for part in 0..4_u32 {
        let mut batch = WriteBatch::new();
        for i in (part..PAIRS).step_by(4) {
            let mut value = vec![0; 1000];
            rng.fill(&mut value); // nothing that compresses
            batch.put(Family::Default, format!("key-{i:06}"), value);
        }
        engine.write(batch).unwrap();
        if part < 3 {
            engine.flush().unwrap();
        }
    }
    engine
}

/// Within a third of the truth as far as tables go, and off by what is in memory at most; nothing is nothing.
pub fn sizes_are_plausible(subject: &dyn Subject) {
    let engine = filled(subject);
    let size = |start: &str, end: &str| {
        engine
            .approximate_size(Family::Default, &KeyRange::new(start.to_owned(), end.to_owned()))
            .unwrap() as f64
    };
    let check = |pair_in_memory: f64| {
        for (start, end, pairs) in
            [("", "", 6000.0), ("key-001500", "key-004500", 3000.0), ("key-003000", "", 3000.0)]
        {
            let (found, truth) = (size(start, end), pairs * 1010.0);
            let low = truth * (0.67 - pair_in_memory);
            // The edges of a range are known to a table's index, whose steps are up to 256 KiB.
            assert!(
                low - 800e3 <= found && found <= truth * 1.33 + 800e3,
                "{start}..{end}: {found}, really {truth}"
            );
        }
        assert!(size("key-001500", "key-004500") < size("", "") + 1.0);
    };
    check(0.25);
    engine.flush().unwrap();
    check(0.0);
    for nothing in [("x", ""), ("key-003000", "key-001500"), ("", "a")] {
        assert!(size(nothing.0, nothing.1) < 1000.0, "{nothing:?}");
    }
    assert_eq!(engine.approximate_size(Family::Lock, &KeyRange::all()).unwrap(), 0);
}

/// Of few keys: none or one have no middle, and the first is never it.
pub fn the_middle_key_is_inside(subject: &dyn Subject) {
    for flushed in [false, true] {
        let engine = subject.open();
        engine.delete_range(Family::Lock, &KeyRange::all()).unwrap();
        let middle = |range: &KeyRange| {
            if flushed {
                engine.flush().unwrap();
            }
            engine.middle_key(Family::Lock, range).unwrap()
        };
        assert_eq!(middle(&KeyRange::all()), None);
        put(&*engine, Family::Lock, b"a", &[b'x'; 1000]);
        assert_eq!(middle(&KeyRange::all()), None);
        put(&*engine, Family::Lock, b"b", b"");
        assert_eq!(middle(&KeyRange::all()).unwrap(), "b");
        put(&*engine, Family::Lock, b"c", b"");
        let found = middle(&KeyRange::all()).unwrap();
        assert!(found == "b" || found == "c", "{found:?}");
        assert_eq!(middle(&KeyRange::new("b", "")).unwrap(), "c");
        assert_eq!(middle(&KeyRange::new("", "b")), None);
        assert_eq!(middle(&KeyRange::new("c", "")), None);
        assert_eq!(middle(&KeyRange::new("c", "a")), None);
        put(&*engine, Family::Lock, b"d", &[b'x'; 1000]);
        put(&*engine, Family::Lock, b"e", &[b'x'; 1000]);
        let found = middle(&KeyRange::all()).unwrap();
        assert!("a" < found && found <= "e", "{found:?}");
    }
}

/// Of many keys: a third to two thirds of the bytes are to the left, over tables and memory, whole and in part.
pub fn the_middle_key_halves(subject: &dyn Subject) {
    let engine = filled(subject);
    let number = |key: &[u8]| std::str::from_utf8(&key[4..]).unwrap().parse::<f64>().unwrap();
    for _ in 0..2 {
        for (start, end, low, high) in [
            ("", "", 0.0, 6000.0),
            ("key-000400", "key-001000", 400.0, 1000.0),
            ("key-001", "", 1000.0, 6000.0),
        ] {
            let middle =
                engine.middle_key(Family::Default, &KeyRange::new(start, end)).unwrap().unwrap();
            let share = (number(&middle) - low) / (high - low);
            assert!((0.33..0.67).contains(&share), "{start}..{end}: {middle:?}");
            assert!(get(&*engine, Family::Default, &middle).is_some(), "the middle exists");
        }
        engine.flush().unwrap();
    }
    // What is deleted does not draw the middle to itself for ever, and never makes it leave the range.
    engine.delete_range(Family::Default, &KeyRange::new("key-000100", "")).unwrap();
    let middle = engine.middle_key(Family::Default, &KeyRange::all()).unwrap().unwrap();
    assert!(0.0 < number(&middle) && number(&middle) < 100.0, "{middle:?}");
}
