//! One suite that every engine passes: the contract of the crate's documentation, as tests.
//!
//! Each test is a function of its own that takes a [`Subject`]. [`engine_contract!`](crate::engine_contract) makes
//! `#[test]`s of them for one engine; `tests/contract.rs` does that for all of them. What only a disk can show (a
//! killed process, a damaged file) is in [`disk`].
//!
//! The reference is a `BTreeMap` per family. Random choices come from seeds that a failure prints.
#![allow(clippy::unwrap_used, reason = "tests, which happen to live in the library")]

pub mod basics;
pub mod cursors;
pub mod disk;
pub mod model;
pub mod ranges;

use std::sync::Arc;

use types::{Bytes, KeyRange};

use crate::{Engine, Family, Iter, Snapshot, WriteBatch};

/// An engine under test.
pub trait Subject {
    /// Opens the engine: empty the first time, later with what the last one left, which is closed by then.
    fn open(&self) -> Arc<dyn Engine>;
}

/// Makes a module of `#[test]`s that run the suite against the [`Subject`] that an expression gives.
#[macro_export]
macro_rules! engine_contract {
    ($module:ident, $subject:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need them or not")]
            use super::*;

            $crate::engine_contract!(@basics $subject;
                a_batch_spans_families, the_last_change_of_a_key_wins, an_empty_value_is_a_value,
                what_is_not_there_can_be_deleted, keys_no_engine_takes_are_refused, keys_may_have_any_bytes,
                values_may_be_large, snapshots_do_not_change, iterators_do_not_change,
                snapshots_outlive_the_handle, batches_are_seen_whole, everything_is_there_after_a_restart,
                statistics_count);
            $crate::engine_contract!(@cursors $subject;
                walks_both_ways, turns_round_anywhere, stops_at_its_bounds, sees_nothing_in_an_empty_range,
                runs_off_both_ends_and_comes_back, seeks_outside_stop_at_the_bounds,
                long_keys_are_only_looked_for, moves_like_a_model);
            $crate::engine_contract!(@model $subject; equals_a_map);
            $crate::engine_contract!(@ranges $subject;
                delete_range_keeps_the_rest, delete_range_takes_large_ranges, sizes_are_plausible,
                the_middle_key_is_inside, the_middle_key_halves);
        }
    };
    (@$topic:ident $subject:expr; $($name:ident),+) => {
        $(
            #[test]
            fn $name() {
                $crate::contract::$topic::$name(&$subject);
            }
        )+
    };
}

pub(crate) fn put(engine: &dyn Engine, family: Family, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(family, key.to_vec(), value.to_vec());
    engine.write(batch).unwrap();
}

pub(crate) fn get(engine: &dyn Engine, family: Family, key: &[u8]) -> Option<Bytes> {
    engine.snapshot().unwrap().get(family, key).unwrap()
}

/// The keys of a range, walking forward.
pub(crate) fn keys(snapshot: &dyn Snapshot, family: Family, range: &KeyRange) -> Vec<Bytes> {
    let mut iter = snapshot.iter(family, range).unwrap();
    let mut out = Vec::new();
    let mut more = iter.seek_to_first().unwrap();
    while more {
        out.push(iter.key_bytes());
        more = iter.next().unwrap();
    }
    out
}

/// Everything in a family, walking forward.
pub(crate) fn pairs(snapshot: &dyn Snapshot, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut iter = snapshot.iter(family, &KeyRange::all()).unwrap();
    let mut out = Vec::new();
    let mut more = iter.seek_to_first().unwrap();
    while more {
        out.push(pair(&*iter));
        more = iter.next().unwrap();
    }
    out
}

/// The current pair, by each of the ways to ask for it.
pub(crate) fn pair(iter: &dyn Iter) -> (Vec<u8>, Vec<u8>) {
    assert!(iter.valid());
    assert_eq!((iter.key(), iter.value()), (&iter.key_bytes()[..], &iter.value_bytes()[..]));
    (iter.key().to_vec(), iter.value().to_vec())
}
