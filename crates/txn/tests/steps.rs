//! What a read costs, counted in calls of the engine: a point get, or a step or seek of a cursor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use engine::{Family, Iter, Snapshot};
use txn::{Read, ScanOptions, Write, WriteKind, commands::Gc};
use types::{Bytes, KeyRange};

use support::{Store, bytes, list, put_record, ts};

/// A snapshot that counts.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Snapshot>,
    steps: Arc<AtomicUsize>,
}

struct CountedIter {
    inner: Box<dyn Iter>,
    steps: Arc<AtomicUsize>,
}

impl Snapshot for Counted {
    fn get(&self, family: Family, key: &[u8]) -> engine::Result<Option<Bytes>> {
        self.steps.fetch_add(1, Relaxed);
        self.inner.get(family, key)
    }

    fn iter(&self, family: Family, range: &KeyRange) -> engine::Result<Box<dyn Iter>> {
        let inner = self.inner.iter(family, range)?;
        Ok(Box::new(CountedIter { inner, steps: Arc::clone(&self.steps) }))
    }
}

macro_rules! counted {
    ($($step:ident($($key:ident)?);)*) => {$(
        fn $step(&mut self $(, $key: &[u8])?) -> engine::Result<bool> {
            self.steps.fetch_add(1, Relaxed);
            self.inner.$step($($key)?)
        }
    )*};
}

impl Iter for CountedIter {
    counted! {
        seek(key);
        seek_for_prev(key);
        seek_to_first();
        seek_to_last();
        next();
        prev();
    }

    fn valid(&self) -> bool {
        self.inner.valid()
    }

    fn key(&self) -> &[u8] {
        self.inner.key()
    }

    fn value(&self) -> &[u8] {
        self.inner.value()
    }
}

/// How many steps `read` takes.
fn steps(store: &Store, read: impl FnOnce(&dyn Snapshot)) -> usize {
    let steps = Arc::default();
    read(&Counted { inner: store.snapshot(), steps: Arc::clone(&steps) });
    steps.load(Relaxed)
}

/// Steps of a get of `key` as of `version`, which finds something.
fn get(store: &Store, key: &str, version: u64) -> usize {
    steps(store, |snapshot| {
        assert!(Read::at(ts(version)).get(snapshot, &bytes(key)).unwrap().is_some());
    })
}

/// Steps of a scan of one key.
fn scan(store: &Store, key: &str, reverse: bool) -> usize {
    steps(store, |snapshot| {
        let range = KeyRange::new(bytes(key), [key.as_bytes(), b"\0"].concat());
        let options = ScanOptions { reverse, ..ScanOptions::limit(10) };
        let found = Read::at(ts(u64::MAX)).scan(snapshot, &range, &options).unwrap();
        assert_eq!(found.len(), 1);
    })
}

/// `one` has one version; `many` a thousand, every second of which only locked the key.
fn store() -> Store {
    let store = Store::new();
    store.put_write("one", 10, &put_record(9, "value"));
    for version in (10..20_010).step_by(20) {
        store.put_write("many", version, &put_record(version - 1, "value"));
        let lock = Write {
            last_change: txn::LastChange::At(ts(version)),
            ..Write::new(WriteKind::Lock, ts(version + 9))
        };
        store.put_write("many", version + 10, &lock);
    }
    store.put_write("behind", 10, &put_record(9, "value"));
    store
}

#[test]
fn a_key_with_a_thousand_versions_is_read_with_few_more_steps_than_one_with_a_single_version() {
    let mut store = store();
    let one = get(&store, "one", u64::MAX);
    for version in [10, 15, 25, 10_000, 10_005, 20_009, u64::MAX] {
        let many = get(&store, "many", version);
        assert!(many <= 5 * one, "{many} steps at {version}, {one} of a single version");
    }
    let gc = Gc { keys: list(["many"]), safe_point: ts(20_015), limit: 100 };
    let mut commands = 1;
    while !store.run(&gc).unwrap().is_empty() {
        commands += 1;
    }
    assert!(commands >= 1999 / 100, "{commands} commands of a bounded size");
    assert_eq!(store.len(Family::Write), 3);
    for version in [20_015, u64::MAX] {
        let many = get(&store, "many", version);
        assert!(many <= 2 * one, "{many} steps at {version}, {one} of a single version");
    }
}

#[test]
fn a_scan_passes_a_thousand_versions_by_seeking() {
    let mut store = store();
    for reverse in [false, true] {
        let one = scan(&store, "one", reverse);
        let many = scan(&store, "many", reverse);
        // Some steps to see that there are many, and a seek: to the version, and behind the key.
        assert!(many <= one + 20, "{many} steps, {one} of a single version");
    }
    while !store
        .run(&Gc { keys: list(["many"]), safe_point: ts(20_015), limit: 100 })
        .unwrap()
        .is_empty()
    {}
    for reverse in [false, true] {
        assert_eq!(scan(&store, "one", reverse), scan(&store, "many", reverse));
    }
}
