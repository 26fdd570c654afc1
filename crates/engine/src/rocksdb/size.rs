//! How large a range is and where its middle lies.
//!
//! RocksDB estimates the bytes of any range from the indexes of its tables and samples of its memtables. The middle
//! is found by bisecting the keys with that: some sixty estimates, no data read.

use ::rust_rocksdb::{Range, SizeApproximationFlags};
use types::{Bytes, KeyRange};

use super::{Core, View, iter::RocksIter};
use crate::{
    Family, Iter, KEY_BYTES_MAX, Result,
    middle::{EXACT_BYTES, every_pair, middle_of, settle},
};

/// Estimates that a bisection may take. Every one halves eight bytes of key.
const STEPS_MAX: usize = 128;

/// About how many bytes the keys and values of `range` take.
pub(super) fn bytes(core: &Core, family: Family, range: &KeyRange) -> Result<u64> {
    if range.is_empty() {
        return Ok(0);
    }
    let behind_all = [0xff; KEY_BYTES_MAX + 1];
    let end = if range.end.is_empty() { &behind_all[..] } else { &range.end[..] };
    let what = SizeApproximationFlags::INCLUDE_MEMTABLE | SizeApproximationFlags::INCLUDE_FILES;
    let found = core
        .database
        .get_approximate_sizes_cf_with_flags(
            core.family(family),
            what,
            &[Range::new(&range.start, end)],
        )
        .map_err(|error| core.fail("estimate of a size", error))?;
    Ok(found[0])
}

/// A key that halves `range`, roughly.
pub(super) fn middle_key(view: &View, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
    let core = &view.0.core;
    let mut iter = RocksIter::new(view, family, range);
    let total = bytes(core, family, range)?;
    if total <= EXACT_BYTES {
        let pairs = every_pair(&mut iter)?;
        return settle(&mut iter, &middle_of(&pairs));
    }
    if !iter.seek_to_first()? {
        return Ok(None);
    }
    let mut low = iter.key().to_vec();
    iter.seek_to_last()?;
    let mut high = iter.key().to_vec();
    for _ in 0..STEPS_MAX {
        let Some(middle) = between(&low, &high) else { break };
        let before = bytes(core, family, &KeyRange::new(range.start.clone(), middle.clone()))?;
        if before < total / 2 { low = middle } else { high = middle }
    }
    settle(&mut iter, &high)
}

/// A byte string about half way between two, by the eight bytes behind what they have in common; `None` if those
/// are neighbours.
fn between(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        let rest = &key[common..];
        let len = rest.len().min(8);
        bytes[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(bytes)
    };
    let (a, b) = (number(low), number(high));
    let middle = a + b.checked_sub(a)? / 2;
    (a < middle).then(|| [&low[..common], &middle.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_way_lies_between() {
        for (low, high) in [
            ("a", "c"),
            ("key-0001", "key-0009"),
            ("", "z"),
            ("ab", "abc"),
            ("k", "kkkkkkkkkkkkkkkk"),
        ] {
            let found = between(low.as_bytes(), high.as_bytes()).unwrap();
            assert!(
                low.as_bytes() < &found[..] && &found[..] < high.as_bytes(),
                "{low} {found:?} {high}"
            );
        }
        assert_eq!(between(b"same", b"same"), None);
        assert_eq!(between(b"a", b"a\0"), None);
        assert_eq!(between(b"b", b"a"), None);
    }

    #[test]
    fn bisection_ends() {
        let (mut low, high) = (b"a".to_vec(), b"zzzz".to_vec());
        let steps = std::iter::from_fn(|| {
            low = between(&low, &high)?;
            Some(())
        });
        assert!(steps.count() < STEPS_MAX);
    }
}
