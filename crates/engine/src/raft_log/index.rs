//! What the log holds, region by region: where each entry lies, the base, the state.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use types::Bytes;

use super::{
    Error, Result,
    cache::{Cache, Recent},
    log::{Bounds, Ticket},
    segments::{Location, Ordinal, RECORD_COST, Segments},
};

/// The log of one region.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) base: Base,
    /// The entries from the one after the base on.
    pub(super) entries: VecDeque<Location>,
    /// The bytes of their data.
    pub(super) bytes: u64,
    /// The last of them, as far as they are in memory.
    pub(super) recent: VecDeque<Recent>,
    pub(super) state: Option<State>,
}

/// The place before the first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) index: u64,
    pub(super) term: u64,
    /// Where it is recorded.
    pub(super) segment: Ordinal,
}

/// The owner's small value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) value: Bytes,
    /// Where it is recorded.
    pub(super) segment: Ordinal,
}

impl State {
    fn cost(&self) -> u64 {
        // It lies in the digest and in the footer.
        2 * self.value.len() as u64 + RECORD_COST
    }
}

impl Region {
    pub(super) fn new(base: Base) -> Region {
        let (entries, recent) = (VecDeque::new(), VecDeque::new());
        Region { base, entries, bytes: 0, recent, state: None }
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            base_index: self.base.index,
            base_term: self.base.term,
            last_index: self.last_index(),
        }
    }

    /// The bytes of the data of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last entry before those at the end whose data have `bytes` together, at most.
    pub(super) fn before_last(&self, bytes: u64) -> u64 {
        let mut sum = 0;
        let fits = |location: &&Location| {
            sum += u64::from(location.len);
            sum <= bytes
        };
        self.last_index() - self.entries.iter().rev().take_while(fits).count() as u64
    }

    pub(super) fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// The index of the first entry that is in memory; the one after the last if none is.
    pub(super) fn first_recent(&self) -> u64 {
        self.last_index() + 1 - self.recent.len() as u64
    }

    /// Where the entry at `index` lies.
    pub(super) fn location(&self, index: u64) -> Option<&Location> {
        self.entries.get(self.position(index)?)
    }

    pub(super) fn location_mut(&mut self, index: u64) -> Option<&mut Location> {
        let position = self.position(index)?;
        self.entries.get_mut(position)
    }

    /// The entry at `index`, if it is in memory.
    pub(super) fn recent(&self, index: u64) -> Option<&Recent> {
        let position = index.checked_sub(self.first_recent())?;
        self.recent.get(usize::try_from(position).ok()?)
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok()
    }
}

/// The bytes of the data of entries.
fn sum<'a>(entries: impl Iterator<Item = &'a Location>) -> u64 {
    entries.map(|location| u64::from(location.len)).sum()
}

/// The log of all regions, and what it needs of the segments.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) regions: BTreeMap<u64, Region>,
    pub(super) segments: Segments,
    pub(super) cache: Cache,
}

/// A new entry.
pub(super) struct NewEntry {
    pub(super) location: Location,
    pub(super) kind: u8,
    pub(super) data: Bytes,
}

impl Index {
    /// The region, which is created with base (0, 0), recorded in `segment`, if it is new. Says whether it was.
    pub(super) fn touch(&mut self, region: u64, segment: Ordinal) -> Created {
        if self.regions.contains_key(&region) {
            return Created::No;
        }
        self.regions.insert(region, Region::new(Base { index: 0, term: 0, segment }));
        self.segments.hold_record(region, segment, RECORD_COST);
        Created::Yes
    }

    /// Appends entries of one segment from `first` on, in the place of what is there. They continue the log.
    pub(super) fn append(
        &mut self,
        id: u64,
        first: u64,
        ticket: Ticket,
        entries: impl Iterator<Item = NewEntry>,
    ) {
        let Index { regions, segments, cache } = self;
        let region = regions.get_mut(&id).expect("the region was touched");
        let kept = (first - region.base.index - 1) as usize;
        if kept < region.entries.len() {
            let kept_recent = first.saturating_sub(region.first_recent()) as usize;
            cache.forget(region.recent.drain(kept_recent.min(region.recent.len())..));
            region.bytes -= sum(region.entries.range(kept..));
            segments.release_entries(id, region.entries.drain(kept..));
        }
        let mut index = first;
        let Region { entries: there, bytes, recent, .. } = region;
        let locations = entries.map(|NewEntry { location, kind, data }| {
            there.push_back(location);
            *bytes += u64::from(location.len);
            cache.push(recent, ticket, (id, index), (kind, data));
            index += 1;
            location
        });
        segments.hold_entries(id, locations);
    }

    /// Drops the entries up to `base.index`, and sets the base.
    pub(super) fn compact(&mut self, id: u64, base: Base) {
        let region = self.regions.get_mut(&id).expect("the region was touched");
        let first_recent = region.first_recent();
        let dropped = (base.index - region.base.index) as usize;
        let dropped_recent = (base.index + 1).saturating_sub(first_recent) as usize;
        self.cache.forget(region.recent.drain(..dropped_recent.min(region.recent.len())));
        region.bytes -= sum(region.entries.range(..dropped));
        self.segments.release_entries(id, region.entries.drain(..dropped));
        shrink(&mut region.entries);
        self.move_base(id, base);
    }

    /// Drops all entries, and sets the base.
    pub(super) fn reset(&mut self, id: u64, base: Base) {
        let region = self.regions.get_mut(&id).expect("the region was touched");
        self.cache.forget(region.recent.drain(..));
        region.bytes = 0;
        self.segments.release_entries(id, region.entries.drain(..));
        self.move_base(id, base);
    }

    fn move_base(&mut self, id: u64, base: Base) {
        let region = self.regions.get_mut(&id).expect("the region was touched");
        if region.base.segment != base.segment {
            self.segments.release_record(id, region.base.segment, RECORD_COST);
            self.segments.hold_record(id, base.segment, RECORD_COST);
        }
        region.base = base;
    }

    pub(super) fn put_state(&mut self, id: u64, state: State) {
        let region = self.regions.get_mut(&id).expect("the region was touched");
        let new = (state.segment, state.cost());
        let old = region.state.replace(state).map(|old| (old.segment, old.cost()));
        // Mostly the new one takes the place of the old one.
        if old != Some(new) {
            if let Some((segment, cost)) = old {
                self.segments.release_record(id, segment, cost);
            }
            self.segments.hold_record(id, new.0, new.1);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(region) = self.regions.remove(&id) else { return };
        self.cache.forget(region.recent.into_iter());
        self.segments.release_entries(id, region.entries.into_iter());
        self.segments.release_record(id, region.base.segment, RECORD_COST);
        if let Some(state) = &region.state {
            self.segments.release_record(id, state.segment, state.cost());
        }
    }

    /// The entry at `index` lies at `new` now, if it still was at `old`.
    pub(super) fn relocate(&mut self, id: u64, index: u64, old: &Location, new: Location) {
        let Some(region) = self.regions.get_mut(&id) else { return };
        if let Some(location) = region.location_mut(index).filter(|location| *location == old) {
            *location = new;
            self.segments.release_entries(id, std::iter::once(*old));
            self.segments.hold_entries(id, std::iter::once(new));
        }
    }

    /// A region as a start has found it.
    pub(super) fn restore(&mut self, id: u64, mut region: Region) {
        region.bytes = sum(region.entries.iter());
        self.segments.hold_record(id, region.base.segment, RECORD_COST);
        if let Some(state) = &region.state {
            self.segments.hold_record(id, state.segment, state.cost());
        }
        self.segments.hold_entries(id, region.entries.iter().copied());
        self.regions.insert(id, region);
    }

    /// Where the log of a region begins and ends, also if it has nothing.
    pub(super) fn bounds(&self, id: u64) -> Bounds {
        self.regions.get(&id).map(Region::bounds).unwrap_or_default()
    }

    /// Checks that all of `range`, which is not empty, is there.
    pub(super) fn find(&self, id: u64, range: &Range<u64>) -> Result<&Region> {
        let Bounds { base_index, last_index, .. } = self.bounds(id);
        if range.start <= base_index {
            return Err(Error::Compacted { region: id, index: range.start, base_index });
        }
        if last_index < range.end - 1 {
            return Err(Error::Unavailable { region: id, index: range.end - 1, last_index });
        }
        Ok(&self.regions[&id])
    }
}

/// A log that was long once does not keep its memory for ever.
fn shrink(entries: &mut VecDeque<Location>) {
    const SMALL: usize = 64;
    if SMALL.max(4 * entries.len()) < entries.capacity() {
        entries.shrink_to(2 * entries.len());
    }
}

/// Whether something was created just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    Yes,
    No,
}
