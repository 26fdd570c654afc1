//! What only engines on disk can show: killed processes, torn journals, damaged files, dead threads.
#![cfg(any(feature = "fjall", feature = "rocksdb"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    Engine, Error, Family, Kind, Options, Result,
    contract::disk::{self, copy_dir, count_numbered, files, write_numbered},
};
use runtime::Rng;
use types::ErrorClass;

/// A temporary folder and how to open an engine in it.
fn folder(kind: Kind) -> (tempfile::TempDir, impl Fn(&Path) -> Result<Arc<dyn Engine>>) {
    (tempfile::tempdir().unwrap(), move |dir: &Path| engine::open(kind, dir, &Options::default()))
}

/// Journal files and where their records end.
fn journals(dir: &Path, extension: &str) -> Vec<(PathBuf, usize)> {
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let end = |path: &Path| disk::content_end(&fs::read(path).unwrap());
    files(dir).into_iter().filter(is_journal).map(|path| (path.clone(), end(&path))).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    if path.extension().is_some_and(|name| name == "jnl") {
        // fjall reserves 64 MiB; the zeros behind its records need not be written again.
        bytes.truncate(disk::content_end(&bytes));
    }
    fs::write(path, bytes).unwrap();
}

/// An engine with `count` numbered batches in `dir`, whose folder is copied while it runs.
fn killed_after(count: u32, flush: bool, dir: &Path, open: &disk::Open) -> PathBuf {
    let (live, copy) = (dir.join("live"), dir.join("copy"));
    let engine = open(&live).unwrap();
    (0..count).for_each(|number| write_numbered(&*engine, number).unwrap());
    if flush {
        engine.flush().unwrap();
    }
    copy_dir(&live, &copy).unwrap();
    copy
}

macro_rules! disk_tests {
    ($module:ident, $kind:expr, $journal:literal, $table:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn a_killed_process_loses_nothing() {
                let (dir, open) = folder($kind);
                disk::a_killed_process_loses_nothing(dir.path(), &open);
            }

            #[test]
            fn a_folder_opens_once() {
                let (dir, open) = folder($kind);
                disk::a_folder_opens_once(dir.path(), &open);
            }

            #[test]
            fn a_torn_tail_is_dropped() {
                let (dir, open) = folder($kind);
                let engine = open(&dir.path().join("live")).unwrap();
                let mut ends = Vec::new();
                for number in 0..20 {
                    write_numbered(&*engine, number).unwrap();
                    ends.push(journals(&dir.path().join("live"), $journal).last().unwrap().1);
                }
                for cut in [1, 10, 200, 1300, 3000] {
                    let copy = dir.path().join(format!("cut-{cut}"));
                    copy_dir(&dir.path().join("live"), &copy).unwrap();
                    let (journal, end) = journals(&copy, $journal).pop().unwrap();
                    change(&journal, |bytes| bytes.truncate(end - cut));
                    let whole = ends.iter().filter(|at| **at <= end - cut).count() as u32;
                    for round in 0..2 {
                        let found =
                            open(&copy).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
                        assert_eq!(count_numbered(&*found).unwrap(), whole + round, "cut {cut}");
                        write_numbered(&*found, whole + round).unwrap();
                    }
                }
            }

            #[test]
            fn a_flipped_bit_in_the_journal_is_refused() {
                for place in [0.3, 0.5, 0.8] {
                    let (dir, open) = folder($kind);
                    let copy = killed_after(100, false, dir.path(), &open);
                    let (journal, end) = journals(&copy, $journal).pop().unwrap();
                    // In a value, wherever the records begin: values are runs of one byte.
                    change(&journal, |bytes| {
                        let from = (end as f64 * place) as usize;
                        let at = (from..end)
                            .find(|&i| bytes[i - 40..i + 40].iter().all(|b| *b == bytes[i]))
                            .unwrap();
                        bytes[at] ^= 0x10;
                    });
                    let error = open(&copy).unwrap_err();
                    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                    assert_eq!(error.class(), ErrorClass::Fatal);
                    assert!(error.to_string().contains(copy.to_str().unwrap()), "{error}");
                }
            }

            /// Every single flipped bit in tables and their manifests: an error, at once or when it is read, or
            /// no difference. Never another answer, never fewer.
            #[test]
            fn damaged_tables_never_answer_wrongly() {
                let (dir, open) = folder($kind);
                let copy = killed_after(60, true, dir.path(), &open);
                let mut rng = Rng::new(11);
                let tables: Vec<_> = files(&copy).into_iter().filter($table).collect();
                assert!(4 <= tables.len(), "{tables:?}");
                let (mut refused, mut harmless) = (0, 0);
                for round in 0..60 {
                    let damaged = dir.path().join(format!("damaged-{round}"));
                    copy_dir(&copy, &damaged).unwrap();
                    let table =
                        damaged.join(tables[round % tables.len()].strip_prefix(&copy).unwrap());
                    let mut place = String::new();
                    change(&table, |bytes| {
                        if !bytes.is_empty() {
                            let bit = rng.range(0..bytes.len() as u64 * 8) as usize;
                            bytes[bit / 8] ^= 1 << (bit % 8);
                            place = format!("bit {bit} of {}", table.display());
                        }
                    });
                    match open(&damaged)
                        .and_then(|engine| count_numbered(&*engine).map(|count| (engine, count)))
                    {
                        Ok((_, count)) => {
                            assert_eq!(count, 60, "{place}: data are missing without a word");
                            harmless += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.class(), ErrorClass::Fatal, "{place}: {error}");
                            refused += 1;
                        }
                    }
                    fs::remove_dir_all(&damaged).unwrap();
                }
                println!("{refused} refused, {harmless} without consequence");
                assert!(10 < refused, "{refused} refused, {harmless} without consequence");
            }

            #[test]
            fn a_damaged_block_poisons() {
                let (dir, open) = folder($kind);
                let copy = killed_after(60, true, dir.path(), &open);
                for table in files(&copy).into_iter().filter($table) {
                    change(&table, |bytes| {
                        let values = (40..bytes.len().saturating_sub(40))
                            .filter(|&i| {
                                bytes[i - 40..i + 40].iter().all(|b| *b == bytes[i] && *b != 0)
                            })
                            .collect::<Vec<_>>();
                        values.into_iter().for_each(|i| bytes[i] ^= 1);
                    });
                }
                let engine = open(&copy).unwrap();
                let old = engine.snapshot().unwrap();
                let error = count_numbered(&*engine).unwrap_err();
                assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                disk::is_poisoned(&*engine);
                assert!(matches!(old.get(Family::Default, b"k"), Err(Error::Poisoned { .. })));
            }

            /// A flush that can't write its table stops the engine, and nobody waits for ever.
            #[test]
            fn a_failed_flush_poisons() {
                let (dir, open) = folder($kind);
                let live = dir.path().join("live");
                let engine = open(&live).unwrap();
                write_numbered(&*engine, 0).unwrap();
                engine.flush().unwrap();
                write_numbered(&*engine, 1).unwrap();
                fs::rename(&live, dir.path().join("gone")).unwrap();
                let error = engine.flush().unwrap_err();
                assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
                disk::is_poisoned(&*engine);
            }

            #[test]
            fn a_full_disk_refuses_writes_and_nothing_else() {
                let (dir, open) = folder($kind);
                write_numbered(&*open(dir.path()).unwrap(), 0).unwrap();
                let options = Options { disk_reserve_bytes: 1 << 60, ..Options::default() };
                let engine = engine::open($kind, dir.path(), &options).unwrap();
                for _ in 0..2 {
                    let error = write_numbered(&*engine, 1).unwrap_err();
                    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                    assert_eq!(error.class(), ErrorClass::BackOff);
                }
                engine.sync().unwrap();
                assert_eq!(count_numbered(&*engine).unwrap(), 1);
            }
        }
    };
}

#[cfg(feature = "fjall")]
disk_tests!(fjall, Kind::Fjall, "jnl", |path: &PathBuf| path
    .to_str()
    .unwrap()
    .contains("/keyspaces/"));

#[cfg(feature = "rocksdb")]
disk_tests!(rocksdb, Kind::RocksDb, "log", |path: &PathBuf| path
    .extension()
    .is_some_and(|e| e == "sst"));

/// Contents of a block of zeros in the middle of fjall's journal: fjall takes them for its end and drops what
/// follows without a word. What is left is a prefix. The store sees that its applied index is too old; see
/// docs/decisions.
#[cfg(feature = "fjall")]
#[test]
fn zeros_in_the_journal_of_fjall_leave_a_prefix() {
    let (dir, open) = folder(Kind::Fjall);
    let copy = killed_after(100, false, dir.path(), &open);
    let (journal, end) = journals(&copy, "jnl").pop().unwrap();
    change(&journal, |bytes| bytes[end / 2 / 4096 * 4096..][..4096].fill(0));
    match open(&copy).and_then(|engine| count_numbered(&*engine)) {
        Ok(count) => assert!((20..60).contains(&count), "{count} batches"),
        Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
    }
}

/// RocksDB refuses the same.
#[cfg(feature = "rocksdb")]
#[test]
fn zeros_in_the_journal_of_rocksdb_are_refused() {
    let (dir, open) = folder(Kind::RocksDb);
    let copy = killed_after(100, false, dir.path(), &open);
    let (journal, end) = journals(&copy, "log").pop().unwrap();
    change(&journal, |bytes| bytes[end / 2 / 4096 * 4096..][..4096].fill(0));
    let error = open(&copy).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
