//! What a raft log must hold, kept in ordered maps; and what a log does hold, read through its interface.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use engine::raft_log::{Bounds, Error, LogBatch, LogEntry, Options, RaftLog, RaftLogWriter};
use runtime::{Fs, Rng, sim::SimFs};
use types::Bytes;

/// Where the tests' logs lie.
pub(crate) fn dir() -> &'static Path {
    Path::new("/raft")
}

/// Small segments, and a log that is soon too large.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 2048,
        cache_bytes: 1024,
        purge_bytes: 8192,
        spares_max: 2,
        grow_bytes: 0,
    }
}

/// Opens the log of the tests.
pub(crate) fn open(fs: &SimFs, options: &Options) -> Result<(RaftLog, RaftLogWriter), Error> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    RaftLog::open(fs, dir(), options, &mut |_| {})
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Append { region: u64, entries: Vec<LogEntry> },
    PutState { region: u64, state: Bytes },
    CompactTo { region: u64, index: u64 },
    Reset { region: u64, index: u64, term: u64 },
    Remove { region: u64 },
}

/// A batch of these operations.
pub(crate) fn batch(ops: &[Op]) -> LogBatch {
    let mut batch = LogBatch::new();
    for op in ops.iter().cloned() {
        match op {
            Op::Append { region, entries } => batch.append(region, entries),
            Op::PutState { region, state } => batch.put_state(region, state),
            Op::CompactTo { region, index } => batch.compact_to(region, index),
            Op::Reset { region, index, term } => batch.reset(region, index, term),
            Op::Remove { region } => batch.remove(region),
        };
    }
    batch
}

/// Entries of one term from `first` on.
pub(crate) fn entries(term: u64, first: u64, data: &[&str]) -> Vec<LogEntry> {
    (first..)
        .zip(data)
        .map(|(index, data)| LogEntry {
            term,
            index,
            kind: 1,
            data: Bytes::copy_from_slice(data.as_bytes()),
        })
        .collect()
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) regions: BTreeMap<u64, Region>,
}

/// What it holds of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) base: (u64, u64),
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) state: Option<Bytes>,
}

impl Region {
    pub(crate) fn last_index(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }
}

impl Model {
    /// Applies operations that make sense.
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op.clone() {
                Op::Append { region, entries } => {
                    let region = self.regions.entry(region).or_default();
                    region.entries.truncate((entries[0].index - region.base.0 - 1) as usize);
                    region.entries.extend(entries);
                }
                Op::PutState { region, state } => {
                    self.regions.entry(region).or_default().state = Some(state);
                }
                Op::CompactTo { region, index } => {
                    if let Some(region) = self.regions.get_mut(&region)
                        && region.base.0 < index
                    {
                        let dropped = region.entries.drain(..(index - region.base.0) as usize);
                        region.base = (index, dropped.last().unwrap().term);
                    }
                }
                Op::Reset { region, index, term } => {
                    let region = self.regions.entry(region).or_default();
                    region.entries.clear();
                    region.base = (index, term);
                }
                Op::Remove { region } => {
                    self.regions.remove(&region);
                }
            }
        }
    }

    /// Reads all that a log holds.
    pub(crate) fn of(log: &RaftLog) -> Result<Model, Error> {
        let mut regions = BTreeMap::new();
        for id in log.regions() {
            let Bounds { base_index, base_term, last_index } = log.bounds(id).unwrap();
            let entries = log.entries(id, base_index + 1, last_index + 1, usize::MAX)?;
            assert_eq!(log.term(id, base_index)?, base_term);
            for entry in &entries {
                assert_eq!(log.term(id, entry.index)?, entry.term);
            }
            regions.insert(
                id,
                Region { base: (base_index, base_term), entries, state: log.state(id) },
            );
        }
        Ok(Model { regions })
    }

    /// Some operations that make sense, on a few regions, with data of such lengths.
    pub(crate) fn random_ops(&self, rng: &mut Rng, len: fn(&mut Rng) -> usize) -> Vec<Op> {
        let mut model = self.clone();
        let mut ops = Vec::new();
        for _ in 0..rng.range(1..4) {
            let op = model.random_op(rng, len);
            model.apply(std::slice::from_ref(&op));
            ops.push(op);
        }
        ops
    }

    fn random_op(&self, rng: &mut Rng, len: fn(&mut Rng) -> usize) -> Op {
        let region = rng.range(1..5);
        let known = self.regions.get(&region).cloned().unwrap_or_default();
        let last = known.last_index();
        let last_term = known.entries.last().map_or(known.base.1, |entry| entry.term);
        match rng.range(0..20) {
            0 => Op::Remove { region },
            1 => Op::Reset { region, index: last + rng.range(0..5), term: last_term + 1 },
            2..=4 => Op::CompactTo { region, index: rng.range(0..=last) },
            5..=7 => {
                let mut state = vec![0; rng.range(0..30) as usize];
                rng.fill(&mut state);
                Op::PutState { region, state: Bytes::from(state) }
            }
            kind => {
                // Sometimes a new leader overwrites the end.
                let overwrites = kind == 8 && known.base.0 < last;
                let first = if overwrites { rng.range(known.base.0 + 1..=last) } else { last + 1 };
                let mut term = last_term + u64::from(overwrites);
                let entries = (first..first + rng.range(1..4))
                    .map(|index| {
                        term += u64::from(rng.chance(0.1));
                        let mut data = vec![0; len(rng)];
                        rng.fill(&mut data);
                        LogEntry { term, index, kind: rng.range(0..3) as u8, data: data.into() }
                    })
                    .collect();
                Op::Append { region, entries }
            }
        }
    }
}

/// Mostly short, seldom longer than a small segment.
pub(crate) fn any_len(rng: &mut Rng) -> usize {
    match rng.range(0..100) {
        0 => rng.range(0..5000) as usize,
        1..10 => rng.range(0..600) as usize,
        _ => rng.range(0..60) as usize,
    }
}
