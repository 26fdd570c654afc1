//! Raw reads: points, ranges and checksums of one engine snapshot.
//!
//! The snapshot was taken before any of these checks is made: what is found right here was right at a moment after
//! it. A value that has expired by the reader's clock is not there, in points and ranges alike.
//!
//! An answer that would be too large is refused as a whole. It is never cut short, since clients take the end of an
//! answer for the end of the region and would skip what is left.

use crc_fast::{CrcAlgorithm, Digest};
use engine::{Iter, Snapshot};
use types::{Bytes, Cf, KeyRange, Region, RequestContext, limits};

use crate::{
    Error, Result,
    raw::Checks,
    regions::{self, Access},
    value::{self, Parts},
};

/// A key and its value, both as the user gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvPair {
    /// The user's key.
    pub key: Bytes,
    /// The user's value; empty in key-only scans.
    pub value: Bytes,
}

/// One range to read, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawScan {
    /// The column family; `""` is `default`.
    pub cf: String,
    /// Forward: the first key. Reverse: the key after the greatest; empty for no bound.
    pub start: Bytes,
    /// Forward: the key after the last; empty for no bound. Reverse: the smallest key.
    pub end: Bytes,
    /// At most so many pairs; 0 asks for none.
    pub limit: usize,
    /// Leave the values out.
    pub key_only: bool,
    /// From the greatest key to the smallest.
    pub reverse: bool,
}

/// Several ranges to read, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBatchScan {
    /// The column family; `""` is `default`.
    pub cf: String,
    /// Bounds as in [`RawScan`] (reverse: `start` is the upper one). A range without an end goes up to the start of
    /// the next one.
    pub ranges: Vec<KeyRange>,
    /// At most so many pairs of each range.
    pub each_limit: usize,
    /// Leave the values out.
    pub key_only: bool,
    /// Each range from its greatest key to its smallest.
    pub reverse: bool,
}

/// The answer to a checksum request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// CRC-64/XZ over key and value of each pair, combined by XOR.
    pub checksum: u64,
    /// How many pairs.
    pub total_kvs: u64,
    /// Bytes of their keys and values.
    pub total_bytes: u64,
}

/// Reads of one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) checks: &'a Checks,
    pub(crate) access: &'a Access,
    pub(crate) snapshot: &'a dyn Snapshot,
    pub(crate) now_ms: u64,
}

/// How to walk over a range.
#[derive(Clone, Copy, Debug)]
struct Walk {
    cf: Cf,
    limit: usize,
    key_only: bool,
    reverse: bool,
}

/// An answer that grows up to its bounds.
#[derive(Debug, Default)]
struct Pairs {
    pairs: Vec<KvPair>,
    bytes: usize,
}

impl Pairs {
    fn push(&mut self, pair: KvPair) -> Result<()> {
        self.bytes += pair.key.len() + pair.value.len();
        if !self.pairs.is_empty() && limits::SCAN_BYTES_MAX < self.bytes {
            return Err(too_large(format!("{} bytes", limits::SCAN_BYTES_MAX)));
        }
        if limits::SCAN_PAIRS_MAX <= self.pairs.len() {
            return Err(too_large(format!("{} pairs", limits::SCAN_PAIRS_MAX)));
        }
        self.pairs.push(pair);
        Ok(())
    }
}

fn too_large(bound: String) -> Error {
    Error::InvalidRequest(format!("the answer is larger than {bound}: ask for fewer pairs at once"))
}

impl Reader<'_> {
    /// The value of a key.
    pub(crate) fn get(&self, ctx: &RequestContext, cf: &str, key: &[u8]) -> Result<Option<Bytes>> {
        let cf = self.checks.begin(ctx, cf)?;
        let stored_key = self.checks.layout.stored(key)?;
        let region = self.checks.regions.check_read(ctx, self.access)?;
        regions::check_key(&region, &stored_key)?;
        self.live(cf, &stored_key)
    }

    /// The pairs of those keys that exist, in the order of `keys`.
    pub(crate) fn batch_get(
        &self,
        ctx: &RequestContext,
        cf: &str,
        keys: &[Bytes],
    ) -> Result<Vec<KvPair>> {
        let cf = self.checks.begin(ctx, cf)?;
        let stored_keys =
            keys.iter().map(|key| self.checks.layout.stored(key)).collect::<Result<Vec<_>>>()?;
        let region = self.checks.regions.check_read(ctx, self.access)?;
        stored_keys.iter().try_for_each(|stored_key| regions::check_key(&region, stored_key))?;
        let mut found = Pairs::default();
        for (key, stored_key) in keys.iter().zip(&stored_keys) {
            if let Some(value) = self.live(cf, stored_key)? {
                found.push(KvPair { key: key.clone(), value })?;
            }
        }
        Ok(found.pairs)
    }

    /// The seconds that a key has left.
    pub(crate) fn key_ttl(
        &self,
        ctx: &RequestContext,
        cf: &str,
        key: &[u8],
    ) -> Result<Option<u64>> {
        let cf = self.checks.begin(ctx, cf)?;
        let stored_key = self.checks.layout.stored(key)?;
        if !self.checks.layout.api().has_ttl() {
            return Err(Error::TtlNotEnabled);
        }
        let region = self.checks.regions.check_read(ctx, self.access)?;
        regions::check_key(&region, &stored_key)?;
        let Some(stored) = self.snapshot.get(cf.into(), &stored_key)? else { return Ok(None) };
        let parts = self.parts(cf, &stored_key, &stored)?;
        Ok((!parts.is_expired(self.now_ms)).then(|| parts.ttl_s(self.now_ms)))
    }

    /// The pairs of a range.
    pub(crate) fn scan(&self, ctx: &RequestContext, scan: &RawScan) -> Result<Vec<KvPair>> {
        let cf = self.checks.begin(ctx, &scan.cf)?;
        let range = self.stored_range(&scan.start, &scan.end, scan.reverse)?;
        let region = self.checks.regions.check_read(ctx, self.access)?;
        let walk = Walk { cf, limit: scan.limit, key_only: scan.key_only, reverse: scan.reverse };
        let mut found = Pairs::default();
        self.walk(&region, &range, walk, &mut found)?;
        Ok(found.pairs)
    }

    /// The pairs of several ranges, one after the other.
    pub(crate) fn batch_scan(
        &self,
        ctx: &RequestContext,
        scan: &RawBatchScan,
    ) -> Result<Vec<KvPair>> {
        let cf = self.checks.begin(ctx, &scan.cf)?;
        let mut ranges = Vec::with_capacity(scan.ranges.len());
        for (at, KeyRange { start, end }) in scan.ranges.iter().enumerate() {
            let next = scan.ranges.get(at + 1).map(|next| &next.start);
            let end = if end.is_empty() { next.unwrap_or(end) } else { end };
            let range = self.stored_range(start, end, scan.reverse)?;
            if range.is_empty() {
                return Err(Error::InvalidRequest(format!(
                    "range {at} is empty, or ends before it begins"
                )));
            }
            ranges.push(range);
        }
        let region = self.checks.regions.check_read(ctx, self.access)?;
        let walk =
            Walk { cf, limit: scan.each_limit, key_only: scan.key_only, reverse: scan.reverse };
        let mut found = Pairs::default();
        for range in &ranges {
            self.walk(&region, range, walk, &mut found)?;
        }
        Ok(found.pairs)
    }

    /// The checksum over the pairs of several ranges of the column family default.
    pub(crate) fn checksum(&self, ctx: &RequestContext, ranges: &[KeyRange]) -> Result<Checksum> {
        let cf = self.checks.begin(ctx, "")?;
        let stored_range = |range: &KeyRange| self.stored_range(&range.start, &range.end, false);
        let ranges = ranges.iter().map(stored_range).collect::<Result<Vec<_>>>()?;
        let region = self.checks.regions.check_read(ctx, self.access)?;
        let mut sum = Checksum::default();
        for range in &ranges {
            let clipped = clip(&region, range, false)?;
            let walk = Walk { cf, limit: usize::MAX, key_only: false, reverse: false };
            self.each(&clipped, walk, |pair| {
                let mut digest = Digest::new(CrcAlgorithm::Crc64Xz);
                digest.update(&pair.key);
                digest.update(&pair.value);
                sum.checksum ^= digest.finalize();
                sum.total_kvs += 1;
                sum.total_bytes += (pair.key.len() + pair.value.len()) as u64;
                Ok(())
            })?;
        }
        Ok(sum)
    }

    /// The stored form of a range whose bounds are in the order of the walk.
    fn stored_range(&self, start: &[u8], end: &[u8], reverse: bool) -> Result<KeyRange> {
        let (lower, upper) = if reverse { (end, start) } else { (start, end) };
        self.checks.layout.stored_range(lower, upper)
    }

    fn walk(&self, region: &Region, range: &KeyRange, walk: Walk, found: &mut Pairs) -> Result<()> {
        self.each(&clip(region, range, walk.reverse)?, walk, |pair| found.push(pair))
    }

    /// Calls `visit` with every pair of `range` that has not expired.
    fn each(
        &self,
        range: &KeyRange,
        walk: Walk,
        mut visit: impl FnMut(KvPair) -> Result<()>,
    ) -> Result<()> {
        if range.is_empty() || walk.limit == 0 {
            return Ok(());
        }
        let mut left = walk.limit;
        let mut iter = self.snapshot.iter(walk.cf.into(), range)?;
        let mut valid = if walk.reverse { iter.seek_to_last()? } else { iter.seek_to_first()? };
        while valid {
            if let Some(pair) = self.pair(&*iter, walk)? {
                visit(pair)?;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            valid = if walk.reverse { iter.prev()? } else { iter.next()? };
        }
        Ok(())
    }

    /// The pair under the cursor, unless it has expired.
    fn pair(&self, iter: &dyn Iter, walk: Walk) -> Result<Option<KvPair>> {
        let parts = self.parts(walk.cf, iter.key(), iter.value())?;
        if parts.is_expired(self.now_ms) {
            return Ok(None);
        }
        let key = self.checks.layout.user_key(iter.key_bytes());
        let key = key.ok_or_else(|| value::damaged(walk.cf, iter.key(), "no memcomparable key"))?;
        let value =
            if walk.key_only { Bytes::new() } else { iter.value_bytes().slice(..parts.len) };
        Ok(Some(KvPair { key, value }))
    }

    fn live(&self, cf: Cf, stored_key: &[u8]) -> Result<Option<Bytes>> {
        let Some(stored) = self.snapshot.get(cf.into(), stored_key)? else { return Ok(None) };
        let api = self.checks.layout.api();
        Ok(value::live(api, stored, self.now_ms)
            .map_err(|error| value::damaged(cf, stored_key, error))?)
    }

    fn parts(&self, cf: Cf, stored_key: &[u8], stored: &[u8]) -> Result<Parts> {
        let api = self.checks.layout.api();
        Ok(value::decode(api, stored).map_err(|error| value::damaged(cf, stored_key, error))?)
    }
}

/// The part of `range` that lies in `region`, from where the walk begins. The end of the region ends the walk
/// silently; a walk that begins outside was routed wrongly.
fn clip(region: &Region, range: &KeyRange, reverse: bool) -> Result<KeyRange> {
    let bounds = &region.range;
    let begins_inside = match (reverse, range.end.is_empty()) {
        (false, _) => bounds.contains(&range.start),
        (true, true) => bounds.end.is_empty(),
        // The upper bound is exclusive, so that the region's own is inside.
        (true, false) => {
            bounds.start <= range.end && (bounds.end.is_empty() || range.end <= bounds.end)
        }
    };
    if !begins_inside {
        return Err(regions::key_not_in_region(
            region,
            if reverse { &range.end } else { &range.start },
        ));
    }
    Ok(region.range.intersect(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(value_bytes: usize) -> KvPair {
        KvPair { key: Bytes::from_static(b"k"), value: vec![0; value_bytes].into() }
    }

    #[test]
    fn an_answer_is_bounded_by_bytes_and_takes_one_pair_of_any_size() {
        let mut pairs = Pairs::default();
        pairs.push(pair(2 * limits::SCAN_BYTES_MAX)).unwrap();
        assert!(matches!(pairs.push(pair(0)), Err(Error::InvalidRequest(_))));

        let mut pairs = Pairs::default();
        pairs.push(pair(0)).unwrap();
        pairs.push(pair(limits::SCAN_BYTES_MAX - 2)).unwrap();
        assert!(pairs.push(pair(0)).is_err());
    }

    #[test]
    fn an_answer_is_bounded_by_pairs() {
        let mut pairs = Pairs::default();
        for _ in 0..limits::SCAN_PAIRS_MAX {
            pairs.push(pair(0)).unwrap();
        }
        assert!(pairs.push(pair(0)).is_err());
        assert_eq!(pairs.pairs.len(), limits::SCAN_PAIRS_MAX);
    }

    #[test]
    fn a_walk_begins_inside_of_the_region_and_ends_at_its_bound() {
        let region = Region { range: KeyRange::new("b", "d"), ..Region::default() };
        let clipped = |start: &'static str, end: &'static str, reverse| {
            clip(&region, &KeyRange::new(start, end), reverse).ok()
        };
        assert_eq!(clipped("b", "", false), Some(KeyRange::new("b", "d")));
        assert_eq!(clipped("c", "x", false), Some(KeyRange::new("c", "d")));
        assert_eq!(clipped("a", "c", false), None);
        assert_eq!(
            clipped("d", "", false),
            None,
            "the end of a region is the start of the next one"
        );
        assert_eq!(clipped("", "d", true), Some(KeyRange::new("b", "d")), "the end is exclusive");
        assert_eq!(clipped("a", "c", true), Some(KeyRange::new("b", "c")));
        assert_eq!(clipped("", "dd", true), None);
        assert_eq!(clipped("", "", true), None, "the last region is another one");
        let everything = Region::default();
        assert_eq!(clip(&everything, &KeyRange::all(), true).ok(), Some(KeyRange::all()));
    }
}
