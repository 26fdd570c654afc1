//! The state behind the log's mutex: index, pending groups, tickets. What is called here costs no I/O.

use std::{collections::BTreeMap, iter::Peekable};

use types::Bytes;

use super::{
    Error, LogEntry, Result, STATE_BYTES_MAX, Statistics, Ticket,
    batch::Operation,
    format::{self, EntryDigest, Origin},
    index::{Base, Created, Index, NewEntry, State as RegionState},
    pending::{BATCH_BYTES_MAX, Group, Pending, Size},
    segments::{Location, Ordinal},
};

/// Everything that is shared by readers, appenders and the writer.
#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) pending: Pending,
    /// Everything up to this ticket is durable.
    pub(super) durable: Ticket,
    /// The name of the oldest segment that counts, as the next group will say it.
    pub(super) oldest: u64,
    pub(super) statistics: Statistics,
}

/// A batch with the checksums of its entries, in order.
pub(super) struct Prepared {
    pub(super) operations: Vec<Operation>,
    pub(super) crcs: Vec<u32>,
}

impl Prepared {
    /// Computes the checksums; outside of the lock.
    pub(super) fn new(operations: Vec<Operation>) -> Prepared {
        let mut crcs = Vec::new();
        for operation in &operations {
            if let Operation::Append { region, entries } = operation {
                crcs.extend(entries.iter().map(|LogEntry { term, index, kind, data }| {
                    format::entry_crc(*region, *index, *term, *kind, data)
                }));
            }
        }
        Prepared { operations, crcs }
    }
}

impl State {
    /// Appends a batch, or refuses it and changes nothing.
    pub(super) fn append(&mut self, batch: Prepared) -> Result<Ticket> {
        self.check(&batch.operations)?;
        let size = size(&batch.operations);
        Pending::check(size)?;

        let ticket = Ticket(self.pending.ticket.0 + 1);
        self.pending.ticket = ticket;
        self.pending.bytes += (size.blob + size.digest) as usize;
        self.statistics.batches += 1;
        let State { index, pending, statistics, .. } = self;
        let group = pending.room(size, &mut index.segments);
        let mut crcs = batch.crcs.into_iter();
        for operation in batch.operations {
            match operation {
                Operation::Append { region, entries } => {
                    touch(index, group, region);
                    statistics.entries += entries.len() as u64;
                    append(index, group, ticket, region, entries, &mut crcs);
                }
                Operation::PutState { region, state } => {
                    touch(index, group, region);
                    format::put_state(&mut group.digest, region, &state);
                    let state = RegionState { value: state, segment: group.segment };
                    index.put_state(region, state);
                }
                Operation::CompactTo { region, index: to } => compact(index, group, region, to),
                Operation::Reset { region, index: at, term } => {
                    index.touch(region, group.segment);
                    format::put_reset(&mut group.digest, region, at, term);
                    index.reset(region, Base { index: at, term, segment: group.segment });
                }
                Operation::Remove { region } => {
                    format::put_remove(&mut group.digest, region);
                    index.remove(region);
                }
            }
        }
        self.index.cache.trim(&mut self.index.regions, self.durable);
        Ok(ticket)
    }

    /// Plays the operations on the bounds alone.
    fn check(&self, operations: &[Operation]) -> Result<()> {
        // Base and last index of the regions that the batch has mentioned.
        let mut changed: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for operation in operations {
            let region = operation.region();
            let (base_index, last_index) = changed.entry(region).or_insert_with(|| {
                let bounds = self.index.bounds(region);
                (bounds.base_index, bounds.last_index)
            });
            match operation {
                Operation::Append { entries, .. } => {
                    let first = entries[0].index;
                    if first <= *base_index {
                        return Err(Error::Compacted {
                            region,
                            index: first,
                            base_index: *base_index,
                        });
                    }
                    let mut next_index = first.min(*last_index + 1);
                    for LogEntry { index, data, .. } in entries {
                        if *index != next_index {
                            return Err(Error::Gap { region, index: *index, next_index });
                        }
                        next_index += 1;
                        check_len("an entry", data.len(), BATCH_BYTES_MAX)?;
                    }
                    *last_index = next_index - 1;
                }
                Operation::PutState { state, .. } => {
                    check_len("a state", state.len(), STATE_BYTES_MAX as u64)?;
                }
                Operation::CompactTo { index, .. } => {
                    if *last_index < *index {
                        return Err(Error::Unavailable {
                            region,
                            index: *index,
                            last_index: *last_index,
                        });
                    }
                    *base_index = (*base_index).max(*index);
                }
                Operation::Reset { index, .. } => (*base_index, *last_index) = (*index, *index),
                Operation::Remove { .. } => (*base_index, *last_index) = (0, 0),
            }
        }
        Ok(())
    }

    /// Writes again what is read of entries that have to leave their segment, if they still lie there, and the records
    /// of `region` in that segment. Gives where the entries lie as soon as the group is durable; until then they are
    /// read where they were.
    pub(super) fn rewrite(
        &mut self,
        segment: Ordinal,
        region: u64,
        entries: Vec<Rewrite>,
    ) -> Vec<Relocation> {
        let Some(known) = self.index.regions.get(&region) else { return Vec::new() };
        let still_there: Vec<Rewrite> = entries
            .into_iter()
            .filter(|entry| known.location(entry.index) == Some(&entry.location))
            .collect();
        let base = Some(known.base).filter(|base| base.segment == segment);
        let state = known.state.clone().filter(|state| state.segment == segment);

        let mut size = Size { blob: 0, digest: format::BASE_BYTES as u64 };
        size.digest += state.as_ref().map_or(0, |state| state_bytes(&state.value));
        for entry in &still_there {
            size.blob += entry_bytes(&entry.data);
            // At worst each has a term of its own.
            size.digest += (format::ENTRIES_BYTES + format::ENTRY_DIGEST_BYTES) as u64;
        }
        self.pending.bytes += (size.blob + size.digest) as usize;
        let State { index, pending, statistics, .. } = self;
        let group = pending.room(size, &mut index.segments);
        if let Some(Base { index: at, term, .. }) = base {
            format::put_base(&mut group.digest, region, at, term);
            index.compact(region, Base { index: at, term, segment: group.segment });
        }
        if let Some(state) = state {
            format::put_state(&mut group.digest, region, &state.value);
            index.put_state(region, RegionState { segment: group.segment, ..state });
        }
        let mut relocations = Vec::with_capacity(still_there.len());
        let mut rest = still_there.into_iter().peekable();
        while let Some(run) = next_run(&mut rest) {
            let (first, term) = (run[0].index, run[0].location.term);
            let sizes = run
                .iter()
                .map(|entry| EntryDigest { len: entry.location.len, crc: entry.location.crc });
            format::put_entries(&mut group.digest, Origin::Rewritten, region, first, term, sizes);
            for Rewrite { index, location, kind, data } in run {
                statistics.rewritten_bytes += location.cost();
                let new =
                    Location { segment: group.segment, offset: group.next_offset(), ..location };
                relocations.push(Relocation { region, index, old: location, new });
                group.push(kind, data);
            }
        }
        relocations
    }
}

/// An entry that has to leave its segment.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) index: u64,
    pub(super) location: Location,
    pub(super) kind: u8,
    pub(super) data: Bytes,
}

/// An entry that lies elsewhere once a group is durable.
#[derive(Debug)]
pub(super) struct Relocation {
    pub(super) region: u64,
    pub(super) index: u64,
    pub(super) old: Location,
    pub(super) new: Location,
}

/// The entries in front that have consecutive indexes and the same term.
fn next_run(rest: &mut Peekable<std::vec::IntoIter<Rewrite>>) -> Option<Vec<Rewrite>> {
    let mut run = vec![rest.next()?];
    let term = run[0].location.term;
    while let Some(next) = rest
        .next_if(|next| next.location.term == term && next.index == run[0].index + run.len() as u64)
    {
        run.push(next);
    }
    Some(run)
}

/// Creates the region if it is new, and says so in the digest.
fn touch(index: &mut Index, group: &mut Group, region: u64) {
    if index.touch(region, group.segment) == Created::Yes {
        format::put_reset(&mut group.digest, region, 0, 0);
    }
}

fn append(
    index: &mut Index,
    group: &mut Group,
    ticket: Ticket,
    region: u64,
    entries: Vec<LogEntry>,
    crcs: &mut impl Iterator<Item = u32>,
) {
    let first = entries[0].index;
    let digests: Vec<EntryDigest> = entries
        .iter()
        .zip(crcs)
        .map(|(entry, crc)| EntryDigest { len: entry.data.len() as u32, crc })
        .collect();
    // The digest has one operation for each term: the later ones continue the first.
    for run in entries.chunk_by(|a, b| a.term == b.term) {
        let start = (run[0].index - first) as usize;
        let sizes = digests[start..start + run.len()].iter().copied();
        let (out, origin) = (&mut group.digest, Origin::New);
        format::put_entries(out, origin, region, run[0].index, run[0].term, sizes);
    }
    let segment = group.segment;
    let placed = entries.into_iter().zip(digests).map(|(entry, EntryDigest { len, crc })| {
        let LogEntry { term, kind, data, .. } = entry;
        let location = Location { segment, offset: group.next_offset(), len, crc, term };
        group.push(kind, data.clone());
        NewEntry { location, kind, data }
    });
    index.append(region, first, ticket, placed);
}

fn compact(index: &mut Index, group: &mut Group, region: u64, to: u64) {
    let Some(known) = index.regions.get(&region).filter(|known| known.base.index < to) else {
        return;
    };
    let term = known.location(to).expect("the batch was checked").term;
    format::put_base(&mut group.digest, region, to, term);
    index.compact(region, Base { index: to, term, segment: group.segment });
}

fn check_len(what: &'static str, bytes: usize, limit: u64) -> Result<()> {
    let bytes = bytes as u64;
    if limit < bytes { Err(Error::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

fn entry_bytes(data: &Bytes) -> u64 {
    (data.len() + format::BLOB_ENTRY_BYTES) as u64
}

fn state_bytes(state: &Bytes) -> u64 {
    (format::STATE_BYTES + state.len()) as u64
}

/// The most that the operations take.
fn size(operations: &[Operation]) -> Size {
    let mut size = Size::default();
    for operation in operations {
        // The region may be new.
        size.digest += format::BASE_BYTES as u64;
        size.digest += match operation {
            Operation::Append { entries, .. } => {
                size.blob += entries.iter().map(|entry| entry_bytes(&entry.data)).sum::<u64>();
                let terms = entries.chunk_by(|a, b| a.term == b.term).count();
                (terms * format::ENTRIES_BYTES + entries.len() * format::ENTRY_DIGEST_BYTES) as u64
            }
            Operation::PutState { state, .. } => state_bytes(state),
            Operation::CompactTo { .. } | Operation::Reset { .. } => format::BASE_BYTES as u64,
            Operation::Remove { .. } => format::REMOVE_BYTES as u64,
        };
    }
    size
}
