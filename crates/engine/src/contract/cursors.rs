//! Cursors, against lists that one can read and against a model.

use std::collections::BTreeMap;

use runtime::Rng;
use types::KeyRange;

use super::{Subject, pair, put};
use crate::{Engine, Family, Iter, KEY_BYTES_MAX};

use std::sync::Arc;

const F: Family = Family::Write;

/// An engine with `keys` in [`F`], half of them in tables, and other keys in its neighbours.
fn with_keys(subject: &dyn Subject, keys: &[&str]) -> Arc<dyn Engine> {
    let engine = subject.open();
    for (i, key) in keys.iter().enumerate() {
        if i % 2 == 0 {
            put(&*engine, F, key.as_bytes(), key.as_bytes());
        }
    }
    put(&*engine, Family::Lock, b"a0", b"");
    put(&*engine, Family::Meta, b"a0", b"");
    engine.flush().unwrap();
    for (i, key) in keys.iter().enumerate() {
        if i % 2 == 1 {
            put(&*engine, F, key.as_bytes(), key.as_bytes());
        }
    }
    engine
}

fn cursor(engine: &dyn Engine, start: &'static str, end: &'static str) -> Box<dyn Iter> {
    engine.snapshot().unwrap().iter(F, &KeyRange::new(start, end)).unwrap()
}

/// Where a move led: the key, or "-" for nowhere.
fn at(iter: &dyn Iter, moved: bool) -> String {
    assert_eq!(moved, iter.valid());
    if moved { String::from_utf8(pair(iter).0).unwrap() } else { "-".to_owned() }
}

/// `iter.$verb(..)` as text.
macro_rules! go {
    ($iter:ident . $verb:ident ( $($key:expr)? )) => {{
        let moved = $iter.$verb($($key.as_bytes())?).unwrap();
        at(&*$iter, moved)
    }};
}

/// First to last and last to first.
pub fn walks_both_ways(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c", "d", "e"]);
    let mut iter = cursor(&*engine, "", "");
    assert!(!iter.valid(), "in front of the first key until it is moved");
    assert_eq!(go!(iter.seek_to_first()), "a");
    let forward: Vec<String> = (0..5).map(|_| go!(iter.next())).collect();
    assert_eq!(forward, ["b", "c", "d", "e", "-"]);
    assert_eq!(go!(iter.seek_to_last()), "e");
    let backward: Vec<String> = (0..5).map(|_| go!(iter.prev())).collect();
    assert_eq!(backward, ["d", "c", "b", "a", "-"]);
}

/// On every key, also right after a seek.
pub fn turns_round_anywhere(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c", "d", "e"]);
    let mut iter = cursor(&*engine, "", "");
    assert_eq!(go!(iter.seek("b")), "b");
    assert_eq!(go!(iter.prev()), "a");
    assert_eq!(go!(iter.next()), "b");
    assert_eq!(go!(iter.next()), "c");
    assert_eq!(go!(iter.prev()), "b");
    assert_eq!(go!(iter.prev()), "a");
    assert_eq!(go!(iter.next()), "b");
    assert_eq!(go!(iter.seek_for_prev("cc")), "c");
    assert_eq!(go!(iter.next()), "d");
    assert_eq!(go!(iter.next()), "e");
    assert_eq!(go!(iter.prev()), "d");
}

/// The start belongs to a range, the end does not, whether or not they exist.
pub fn stops_at_its_bounds(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c", "d", "e"]);
    for (start, end, expected) in
        [("b", "d", "bc"), ("aa", "cc", "bc"), ("b", "", "bcde"), ("", "c", "ab"), ("e", "f", "e")]
    {
        let mut iter = cursor(&*engine, start, end);
        let mut out = String::new();
        let mut more = iter.seek_to_first().unwrap();
        while more {
            out.push_str(&at(&*iter, true));
            more = iter.next().unwrap();
        }
        assert_eq!(out, expected, "{start}..{end}");
        let mut more = iter.seek_to_last().unwrap();
        while more {
            assert_eq!(
                out.pop().map(String::from),
                Some(at(&*iter, true)),
                "{start}..{end} backward"
            );
            more = iter.prev().unwrap();
        }
        assert_eq!(out, "");
    }
}

/// A gap between keys, a range whose end is its start or lies before it.
pub fn sees_nothing_in_an_empty_range(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c"]);
    for (start, end) in [("aa", "ab"), ("b", "b"), ("c", "a"), ("d", ""), ("d", "z")] {
        let mut iter = cursor(&*engine, start, end);
        assert_eq!(go!(iter.seek_to_first()), "-");
        assert_eq!(go!(iter.seek_to_last()), "-");
        for key in ["", "a", "b", "c", "d", "z"] {
            assert_eq!(go!(iter.seek(key)), "-");
            assert_eq!(go!(iter.seek_for_prev(key)), "-");
        }
    }
}

/// Off the end a cursor is nowhere; the next seek brings it back.
pub fn runs_off_both_ends_and_comes_back(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b"]);
    let mut iter = cursor(&*engine, "", "");
    assert_eq!(go!(iter.seek_to_last()), "b");
    assert_eq!(go!(iter.next()), "-");
    assert_eq!(go!(iter.seek("a")), "a");
    assert_eq!(go!(iter.prev()), "-");
    assert_eq!(go!(iter.seek_for_prev("z")), "b");
    assert_eq!(go!(iter.next()), "-");
    assert_eq!(go!(iter.seek_to_first()), "a");
    assert_eq!(go!(iter.seek("c")), "-");
    assert_eq!(go!(iter.seek_for_prev("A")), "-");
    assert_eq!(go!(iter.seek_to_last()), "b");
}

/// Seeks can't leave the range.
pub fn seeks_outside_stop_at_the_bounds(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c", "d", "e"]);
    let mut iter = cursor(&*engine, "b", "d");
    assert_eq!(go!(iter.seek("")), "b");
    assert_eq!(go!(iter.seek("a")), "b");
    assert_eq!(go!(iter.seek("d")), "-");
    assert_eq!(go!(iter.seek("z")), "-");
    assert_eq!(go!(iter.seek_for_prev("z")), "c");
    assert_eq!(go!(iter.seek_for_prev("d")), "c");
    assert_eq!(go!(iter.seek_for_prev("a")), "-");
    assert_eq!(go!(iter.seek_for_prev("")), "-");
    assert_eq!(go!(iter.seek_for_prev("b")), "b");
}

/// A key or bound longer than any stored key is in order with them.
pub fn long_keys_are_only_looked_for(subject: &dyn Subject) {
    let engine = with_keys(subject, &["a", "b", "c"]);
    let long = |first: char| format!("{first}{}", "x".repeat(KEY_BYTES_MAX + 10));
    let mut longest = long('b').into_bytes();
    longest.truncate(KEY_BYTES_MAX);
    put(&*engine, F, &longest, b"");
    let snapshot = engine.snapshot().unwrap();
    let mut iter = snapshot.iter(F, &KeyRange::all()).unwrap();
    assert_eq!(go!(iter.seek(long('b'))), "c");
    assert_eq!(go!(iter.seek(long('a'))), "b");
    assert!(iter.seek_for_prev(long('b').as_bytes()).unwrap());
    assert_eq!(iter.key(), longest);
    let mut iter = snapshot.iter(F, &KeyRange::new(long('a'), long('b'))).unwrap();
    assert_eq!(go!(iter.seek_to_first()), "b");
    assert!(iter.next().unwrap());
    assert_eq!(iter.key(), longest);
    assert_eq!(go!(iter.next()), "-");
    assert!(iter.seek_to_last().unwrap());
    assert_eq!(iter.key(), longest);
    assert_eq!(engine.snapshot().unwrap().get(F, long('b').as_bytes()).unwrap(), None);
}

/// Thousands of random moves over tables, memtable, deletions and old versions.
pub fn moves_like_a_model(subject: &dyn Subject) {
    let engine = subject.open();
    let mut rng = Rng::new(7);
    let mut model = BTreeMap::new();
    let random_key = |rng: &mut Rng| -> Vec<u8> {
        (0..rng.range(1..4)).map(|_| b"\x00\x01az\xff"[rng.range(0..5) as usize]).collect()
    };
    for round in 0..400_u32 {
        let key = random_key(&mut rng);
        if rng.chance(0.7) {
            put(&*engine, F, &key, &round.to_be_bytes());
            model.insert(key, round.to_be_bytes().to_vec());
        } else {
            let mut batch = crate::WriteBatch::new();
            batch.delete(F, key.clone());
            engine.write(batch).unwrap();
            model.remove(&key);
        }
        if round == 150 || round == 300 {
            engine.flush().unwrap();
        }
    }
    let snapshot = engine.snapshot().unwrap();
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let (start, end) = match rng.range(0..4) {
            0 => (vec![], vec![]),
            1 => (random_key(&mut rng), vec![]),
            2 => (vec![], random_key(&mut rng)),
            _ => (random_key(&mut rng), random_key(&mut rng)),
        };
        let range = KeyRange::new(start, end);
        let inside: Vec<_> = model.iter().filter(|(key, _)| range.contains(key)).collect();
        let mut iter = snapshot.iter(F, &range).unwrap();
        let mut place: Option<usize> = None;
        for step in 0..60 {
            let key = random_key(&mut rng);
            let (verb, expected, moved) = match (rng.range(0..10), place) {
                (0..2, _) | (4..10, None) => {
                    ("seek", inside.iter().position(|(k, _)| **k >= key), iter.seek(&key).unwrap())
                }
                (2, _) => (
                    "seek_for_prev",
                    inside.iter().rposition(|(k, _)| **k <= key),
                    iter.seek_for_prev(&key).unwrap(),
                ),
                (3, _) if rng.chance(0.5) => {
                    ("first", (!inside.is_empty()).then_some(0), iter.seek_to_first().unwrap())
                }
                (3, _) => ("last", inside.len().checked_sub(1), iter.seek_to_last().unwrap()),
                (4..7, Some(i)) => {
                    ("next", Some(i + 1).filter(|i| *i < inside.len()), iter.next().unwrap())
                }
                (_, Some(i)) => ("prev", i.checked_sub(1), iter.prev().unwrap()),
                (_, None) => unreachable!("the first arm"),
            };
            assert_eq!(moved, iter.valid());
            let found = moved.then(|| pair(&*iter));
            let expected_pair = expected.map(|i| (inside[i].0.clone(), inside[i].1.clone()));
            assert_eq!(
                found, expected_pair,
                "seed {seed}, step {step}: {verb} {key:?} in {range:?}"
            );
            place = expected;
        }
    }
}
