//! Tests of the look at regions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use engine::{MemoryEngine, WriteBatch};

use super::*;

fn limits(max_bytes: u64, split_bytes: u64) -> SplitLimits {
    SplitLimits { max_bytes, split_bytes, max_keys: u64::MAX, split_keys: u64::MAX }
}

fn engine(pairs: impl IntoIterator<Item = (Family, Vec<u8>, usize)>) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    for (family, key, len) in pairs {
        batch.put(family, key, vec![b'v'; len]);
    }
    engine.write(batch).unwrap();
    engine
}

/// Keys `k000`, `k001`, ..., each with a value that makes its pair 10 bytes long.
fn tens(count: usize) -> MemoryEngine {
    engine((0..count).map(|number| (Family::Default, format!("k{number:03}").into_bytes(), 6)))
}

fn cuts(found: &SplitCheck) -> Vec<String> {
    found.split_keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
}

#[test]
fn a_region_is_cut_where_its_size_passes_the_limit() {
    let engine = tens(14);
    let all = KeyRange::all();
    let found = check(&engine, &all, &limits(141, 100), KeyForm::Raw).unwrap();
    assert_eq!(found, SplitCheck { size: 140, keys: 14, split_keys: vec![] });
    let found = check(&engine, &all, &limits(140, 100), KeyForm::Raw).unwrap();
    assert_eq!(cuts(&found), ["k010"]);
    // By the number of keys.
    let by_keys = SplitLimits { max_keys: 10, split_keys: 7, ..limits(u64::MAX, u64::MAX) };
    assert_eq!(cuts(&check(&engine, &all, &by_keys, KeyForm::Raw).unwrap()), ["k007"]);
}

#[test]
fn a_region_of_many_times_the_limit_is_cut_into_many() {
    let engine = tens(100);
    let found = check(&engine, &KeyRange::all(), &limits(140, 100), KeyForm::Raw).unwrap();
    let expected: Vec<String> = (1..10).map(|tens| format!("k0{tens}0")).collect();
    assert_eq!(cuts(&found), expected);
    // What is left at the end is not worth a region of its own.
    let engine = tens(102);
    let found = check(&engine, &KeyRange::all(), &limits(140, 100), KeyForm::Raw).unwrap();
    assert_eq!(cuts(&found), expected);
    let engine = tens(999);
    let found = check(&engine, &KeyRange::all(), &limits(20, 10), KeyForm::Raw).unwrap();
    assert_eq!(found.split_keys.len(), SPLIT_KEYS_MAX);
}

#[test]
fn cuts_lie_strictly_inside_of_the_range() {
    // One large pair, at the very start of the region.
    let engine = engine([(Family::Default, b"k".to_vec(), 1000)]);
    for start in ["", "k"] {
        let range = KeyRange::new(start, "");
        let found = check(&engine, &range, &limits(100, 50), KeyForm::Raw).unwrap();
        assert_eq!((found.size, cuts(&found).len()), (1001, 0));
        assert!(halve(&engine, &range, KeyForm::Raw).unwrap().split_keys.is_empty());
    }
    let engine = tens(40);
    let range = KeyRange::new("k010", "k030");
    let found = check(&engine, &range, &limits(140, 100), KeyForm::Raw).unwrap();
    assert_eq!((found.size, cuts(&found)), (200, vec!["k020".to_string()]));
    assert_eq!(cuts(&halve(&engine, &range, KeyForm::Raw).unwrap()), ["k020"]);
}

/// Versions of one key stay together, and all families count.
#[test]
fn a_cut_is_never_between_versions_of_a_key() {
    let versioned =
        |key: &str, ts: u64| [&key::encode(key.as_bytes())[..], &(!ts).to_be_bytes()].concat();
    let mut pairs = Vec::new();
    for key in ["a", "b", "c"] {
        for ts in 1..=10 {
            pairs.push((Family::Default, versioned(key, ts), 20));
            pairs.push((Family::Write, versioned(key, ts + 1), 3));
        }
        pairs.push((Family::Lock, key::encode(key.as_bytes()).to_vec(), 5));
    }
    let engine = engine(pairs);
    let all = KeyRange::all();
    // A key has 584 bytes.
    let found = check(&engine, &all, &limits(1000, 590), KeyForm::Encoded).unwrap();
    assert_eq!((found.size, found.keys), (3 * 584, 3));
    assert_eq!(found.split_keys, [key::encode(b"b"), key::encode(b"c")]);
    assert_eq!(halve(&engine, &all, KeyForm::Encoded).unwrap().split_keys, [key::encode(b"b")]);
    // One key can't be cut, whatever its versions come to.
    let one = KeyRange::new(key::encode(b"a"), key::encode(b"b"));
    let found = check(&engine, &one, &limits(10, 5), KeyForm::Encoded).unwrap();
    assert_eq!((found.keys, found.split_keys.len()), (1, 0));
    assert!(halve(&engine, &one, KeyForm::Encoded).unwrap().split_keys.is_empty());
}

#[test]
fn an_empty_region_is_left_alone() {
    let engine = tens(0);
    let nothing = SplitCheck::default();
    assert_eq!(check(&engine, &KeyRange::all(), &limits(0, 0), KeyForm::Raw).unwrap(), nothing);
    assert_eq!(halve(&engine, &KeyRange::all(), KeyForm::Raw).unwrap(), nothing);
}

/// Of a region that is far from too large only the beginning is read.
#[test]
fn the_size_of_a_middling_region_is_estimated() {
    let key = |number: u32| format!("k{number:05}").into_bytes();
    let engine = engine((0..4000).map(|number| (Family::Default, key(number), 1018)));
    let size = 4000 * 1024;
    let keys = SplitLimits { max_keys: 1 << 20, ..limits(12 << 20, 8 << 20) };
    let found = check(&engine, &KeyRange::all(), &keys, KeyForm::Raw).unwrap();
    assert_eq!((found.size, found.split_keys.len()), (size, 0));
    assert!((3990..=4010).contains(&found.keys), "{found:?}");
    let found = check(&engine, &KeyRange::all(), &limits(2 << 20, 1 << 20), KeyForm::Raw).unwrap();
    assert_eq!((found.size, found.keys, found.split_keys.len()), (size, 4000, 2));
}
