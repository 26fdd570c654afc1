//! The course's project 1, test by test, in terms of this crate: over the memory engine and over fjall.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{path::Path, sync::Arc};

use engine::{Engine, Kind, MemoryEngine, Options};
use storage::{Commits, KvPair, RawScan, Result, Storage, StorageOptions};
use types::{ApiMode, Bytes, RequestContext};

use support::{Store, bytes, pair};

/// Runs a test once per engine, on an empty store.
fn on_each_engine(test: impl Fn(&Course)) {
    let folder = tempfile::tempdir().unwrap();
    for engine in [Arc::new(MemoryEngine::new()) as Arc<dyn Engine>, fjall(folder.path())] {
        let options = StorageOptions { commits: Commits::OnThread, ..Default::default() };
        let store = Store::with(ApiMode::V1, engine, options);
        let course = Course { ctx: store.context(b""), storage: store.storage.clone() };
        test(&course);
        course.storage.shutdown();
    }
}

fn fjall(dir: &Path) -> Arc<dyn Engine> {
    engine::open(Kind::Fjall, dir, &Options::default()).unwrap()
}

/// The course's server: four raw commands.
struct Course {
    ctx: RequestContext,
    storage: Storage,
}

impl Course {
    fn put(&self, cf: &str, key: &str, value: &str) -> Result<()> {
        self.storage.raw_put(&self.ctx, cf, bytes(key), bytes(value), 0).wait()
    }

    fn get(&self, cf: &str, key: &str) -> Result<Option<Bytes>> {
        self.storage.view()?.raw_get(&self.ctx, cf, key.as_bytes())
    }

    fn delete(&self, cf: &str, key: &str) -> Result<()> {
        self.storage.raw_delete(&self.ctx, cf, bytes(key)).wait()
    }

    fn scan(&self, cf: &str, start: &str, limit: usize) -> Result<Vec<KvPair>> {
        let scan = RawScan { cf: cf.to_owned(), start: bytes(start), limit, ..RawScan::default() };
        self.storage.view()?.raw_scan(&self.ctx, &scan)
    }
}

#[test]
fn test_raw_get_1() {
    on_each_engine(|course| {
        course.put("default", "99", "42").unwrap();
        assert_eq!(course.get("default", "99").unwrap(), Some(bytes("42")));
    });
}

#[test]
fn test_raw_get_not_found_1() {
    on_each_engine(|course| assert_eq!(course.get("default", "99").unwrap(), None));
}

#[test]
fn test_raw_put_1() {
    on_each_engine(|course| {
        course.put("default", "99", "42").unwrap();
        assert_eq!(course.scan("default", "", 10).unwrap(), [pair("99", "42")]);
    });
}

#[test]
fn test_raw_get_after_raw_put_1() {
    on_each_engine(|course| {
        course.put("default", "a", "233").unwrap();
        course.put("write", "a", "2333").unwrap();
        assert_eq!(course.get("default", "a").unwrap(), Some(bytes("233")));
        assert_eq!(course.get("write", "a").unwrap(), Some(bytes("2333")));
    });
}

#[test]
fn test_raw_get_after_raw_delete_1() {
    on_each_engine(|course| {
        course.put("default", "a", "233").unwrap();
        course.delete("default", "a").unwrap();
        assert_eq!(course.get("default", "a").unwrap(), None);
    });
}

#[test]
fn test_raw_delete_1() {
    on_each_engine(|course| {
        course.put("default", "99", "42").unwrap();
        course.delete("default", "99").unwrap();
        assert_eq!(course.scan("default", "", 10).unwrap(), []);
        course.delete("default", "99").unwrap();
    });
}

#[test]
fn test_raw_scan_1() {
    on_each_engine(|course| {
        for n in 1..=5 {
            course.put("default", &n.to_string(), &format!("233{n}")).unwrap();
        }
        let first_three = [pair("1", "2331"), pair("2", "2332"), pair("3", "2333")];
        assert_eq!(course.scan("default", "1", 3).unwrap(), first_three);
    });
}

#[test]
fn test_raw_scan_after_raw_put_1() {
    on_each_engine(|course| {
        for n in [1, 2, 3, 4] {
            course.put("default", &n.to_string(), "233").unwrap();
        }
        course.put("default", "5", "233").unwrap();
        let keys: Vec<_> =
            course.scan("default", "1", 10).unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(keys, ["1", "2", "3", "4", "5"]);
    });
}

#[test]
fn test_raw_scan_after_raw_delete_1() {
    on_each_engine(|course| {
        for n in 1..=4 {
            course.put("default", &n.to_string(), "233").unwrap();
        }
        course.delete("default", "3").unwrap();
        let keys: Vec<_> =
            course.scan("default", "1", 10).unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(keys, ["1", "2", "4"]);
    });
}

#[test]
fn test_iter_with_raw_delete_1() {
    on_each_engine(|course| {
        for n in 1..=4 {
            course.put("default", &n.to_string(), "233").unwrap();
        }
        let before = course.storage.view().unwrap();
        course.delete("default", "3").unwrap();
        let scan = RawScan { start: bytes("1"), limit: 10, ..RawScan::default() };
        let keys: Vec<_> =
            before.raw_scan(&course.ctx, &scan).unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(keys, ["1", "2", "3", "4"], "a view taken before the delete");
        assert_eq!(before.raw_get(&course.ctx, "default", b"3").unwrap(), Some(bytes("233")));
        assert_eq!(course.get("default", "3").unwrap(), None);
    });
}
