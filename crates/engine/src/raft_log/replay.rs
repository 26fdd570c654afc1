//! What the operations of the remaining segments make of nothing.
//!
//! Segments are freed oldest first. So what is left is an end of the sequence of all operations, and what of the freed
//! part is still needed was written again, further behind. A log may thus begin in the middle and have holes, until
//! the entries that were rewritten come and fill them; at the end there must be none.

use std::collections::{BTreeMap, VecDeque};

use types::{Bytes, codec::Reader};

use super::{
    format::{self, BLOB_ENTRY_BYTES, DigestOp, EntryDigest, FRAME_BYTES, FooterGroup},
    index::{Base, Region, State},
    segments::{Location, Ordinal},
};

/// The operations so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    regions: BTreeMap<u64, Partial>,
}

/// A region of which not everything may be known yet.
#[derive(Debug, Default)]
struct Partial {
    base: Option<Base>,
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Location>,
    /// The value, and where it is recorded. Most values are overtaken by a later one, in the same memory.
    state: Option<(Vec<u8>, Ordinal)>,
}

/// A place in the log of which nothing is known yet.
const HOLE: Location = Location { segment: Ordinal::MAX, offset: 0, len: 0, crc: 0, term: 0 };

/// Most entries of a log that are missing in front of a known one: far more than a region ever has, and not so many
/// that a mistake takes all memory.
const HOLE_MAX: u64 = 1 << 28;

impl Replay {
    /// Applies the operations of a group in `segment`.
    ///
    /// # Errors
    /// A digest that nobody writes, in words.
    pub(super) fn apply(
        &mut self,
        segment: Ordinal,
        group: &FooterGroup<'_>,
    ) -> Result<(), String> {
        let mut offset = u64::from(group.offset) + FRAME_BYTES as u64;
        let mut reader = Reader::new(group.digest);
        while 0 < reader.remaining() {
            let op = format::read_op(&mut reader).map_err(|error| error.to_string())?;
            self.apply_op(segment, &mut offset, op)?;
        }
        // Else offsets above are not what they should be.
        u32::try_from(offset).map_err(|_| "a group is longer than a segment can be")?;
        Ok(())
    }

    fn apply_op(
        &mut self,
        segment: Ordinal,
        offset: &mut u64,
        op: DigestOp<'_>,
    ) -> Result<(), String> {
        let locate = |term| {
            move |EntryDigest { len, crc }| {
                let location = Location { segment, offset: *offset as u32, len, crc, term };
                *offset += BLOB_ENTRY_BYTES as u64 + u64::from(len);
                location
            }
        };
        match op {
            DigestOp::Entries { region, first, term, sizes } => {
                let partial = self.region(region);
                partial.truncate(first);
                partial.insert(first, sizes.iter().map(locate(term)))
            }
            DigestOp::Rewritten { region, first, term, sizes } => {
                self.region(region).insert(first, sizes.iter().map(locate(term)))
            }
            DigestOp::State { region, state } => {
                let (value, recorded) = self.region(region).state.get_or_insert_default();
                value.clear();
                value.extend_from_slice(state);
                *recorded = segment;
                Ok(())
            }
            DigestOp::Base { region, index, term } => {
                self.region(region).compact(Base { index, term, segment })
            }
            DigestOp::Reset { region, index, term } => {
                let partial = self.region(region);
                partial.slots.clear();
                partial.base = Some(Base { index, term, segment });
                Ok(())
            }
            DigestOp::Remove { region } => {
                self.regions.remove(&region);
                Ok(())
            }
        }
    }

    fn region(&mut self, region: u64) -> &mut Partial {
        self.regions.entry(region).or_default()
    }

    /// The regions, all of which must be whole.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn finish(self) -> Result<BTreeMap<u64, Region>, String> {
        let finish = |(id, partial): (u64, Partial)| {
            let region = partial.finish().map_err(|detail| format!("region {id}: {detail}"))?;
            Ok((id, region))
        };
        self.regions.into_iter().map(finish).collect()
    }
}

impl Partial {
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn truncate(&mut self, from: u64) {
        let kept = from.saturating_sub(self.first);
        self.slots.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Puts entries to their places, with holes between them and what is known if need be.
    fn insert(
        &mut self,
        first: u64,
        locations: impl ExactSizeIterator<Item = Location>,
    ) -> Result<(), String> {
        if self.base.is_some_and(|base| first <= base.index) {
            return Err(format!("entry {first} is at or below the base"));
        }
        if self.slots.is_empty() {
            self.first = first;
        }
        if first == self.end() {
            self.slots.extend(locations);
            return Ok(());
        }
        let last = first + locations.len() as u64;
        if HOLE_MAX < self.first.saturating_sub(first).max(last.saturating_sub(self.end())) {
            return Err(format!("entry {first} is too far from the others"));
        }
        while first < self.first {
            self.slots.push_front(HOLE);
            self.first -= 1;
        }
        while self.end() < last {
            self.slots.push_back(HOLE);
        }
        let start = (first - self.first) as usize;
        for (slot, location) in self.slots.range_mut(start..).zip(locations) {
            *slot = location;
        }
        Ok(())
    }

    fn compact(&mut self, base: Base) -> Result<(), String> {
        if self.base.is_some_and(|old| base.index < old.index) {
            return Err(format!("the base goes back to {}", base.index));
        }
        let dropped = (base.index + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.drain(..dropped as usize);
        self.first += dropped;
        self.base = Some(base);
        Ok(())
    }

    fn finish(self) -> Result<Region, String> {
        let base = self.base.ok_or("the beginning of its log is missing")?;
        if !self.slots.is_empty() && self.first != base.index + 1 {
            return Err(format!("entries {} to {} are missing", base.index + 1, self.first - 1));
        }
        if let Some(hole) = self.slots.iter().position(|slot| *slot == HOLE) {
            return Err(format!("entry {} is missing", self.first + hole as u64));
        }
        let state = self.state.map(|(value, segment)| State { value: Bytes::from(value), segment });
        Ok(Region { entries: self.slots, state, ..Region::new(base) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft_log::format::Origin;

    fn entries(origin: Origin, first: u64, count: usize, out: &mut Vec<u8>) {
        let sizes = vec![EntryDigest { len: 7, crc: 9 }; count];
        format::put_entries(out, origin, 1, first, 3, sizes.into_iter());
    }

    /// Writes the digest of a group.
    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);

    fn replay(groups: &[Write<'_>]) -> Result<BTreeMap<u64, Region>, String> {
        let mut replay = Replay::default();
        for (segment, group) in (0..).zip(groups) {
            let mut digest = Vec::new();
            group(&mut digest);
            replay.apply(segment, &FooterGroup { offset: 100 * segment, digest: &digest })?;
        }
        replay.finish()
    }

    fn segments(region: &Region) -> Vec<Ordinal> {
        region.entries.iter().map(|location| location.segment).collect()
    }

    #[test]
    fn entries_take_the_place_of_what_is_there() {
        let regions = replay(&[
            &|out| format::put_reset(out, 1, 10, 2),
            &|out| entries(Origin::New, 11, 5, out),
            &|out| entries(Origin::New, 13, 1, out),
            &|out| format::put_base(out, 1, 11, 3),
        ])
        .unwrap();
        let region = &regions[&1];
        assert_eq!(region.base, Base { index: 11, term: 3, segment: 3 });
        assert_eq!(segments(region), [1, 2]);
        assert_eq!(region.entries[0].offset, 100 + 48 + 8, "the second of its group");
    }

    #[test]
    fn rewritten_entries_fill_holes_and_truncate_nothing() {
        let regions = replay(&[
            &|out| entries(Origin::New, 7, 2, out),
            &|out| entries(Origin::Rewritten, 1, 2, out),
            &|out| entries(Origin::Rewritten, 5, 2, out),
            &|out| entries(Origin::Rewritten, 3, 2, out),
            &|out| format::put_base(out, 1, 0, 0),
        ])
        .unwrap();
        assert_eq!(segments(&regions[&1]), [1, 1, 3, 3, 2, 2, 0, 0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |groups: &[Write<'_>]| replay(groups).unwrap_err();
        assert_eq!(
            missing(&[&|out| entries(Origin::New, 7, 2, out)]),
            "region 1: the beginning of its log is missing"
        );
        assert_eq!(
            missing(&[&|out| format::put_reset(out, 1, 3, 1), &|out| {
                entries(Origin::New, 7, 2, out);
            }]),
            "region 1: entries 4 to 6 are missing"
        );
        assert_eq!(
            missing(&[&|out| format::put_reset(out, 1, 0, 0), &|out| {
                entries(Origin::Rewritten, 1, 1, out);
                entries(Origin::New, 3, 1, out);
            }]),
            "region 1: entry 2 is missing"
        );
        assert_eq!(
            missing(&[&|out| format::put_reset(out, 1, 5, 0), &|out| {
                entries(Origin::Rewritten, 5, 1, out);
            }]),
            "entry 5 is at or below the base"
        );
        assert_eq!(
            missing(&[&|out| format::put_base(out, 1, 5, 0), &|out| {
                format::put_base(out, 1, 4, 0);
            }]),
            "the base goes back to 4"
        );
        assert_eq!(
            missing(&[&|out| entries(Origin::New, 1, 1, out), &|out| {
                entries(Origin::New, u64::MAX / 2, 1, out);
            }]),
            format!("entry {} is too far from the others", u64::MAX / 2)
        );
    }

    #[test]
    fn a_region_that_is_removed_leaves_nothing() {
        let regions = replay(&[
            &|out| format::put_reset(out, 1, 5, 5),
            &|out| format::put_state(out, 1, b"old"),
            &|out| format::put_remove(out, 1),
            &|out| format::put_reset(out, 1, 0, 0),
        ])
        .unwrap();
        assert_eq!((&regions[&1].state, regions[&1].last_index()), (&None, 0));
    }
}
