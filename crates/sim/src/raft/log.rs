//! The Raft log of one simulated node: a file that grows until the next one takes over.
//!
//! A file `log-N` begins with a *checkpoint*: the state machine at the last applied index, the members as of there, the
//! hard state, and the entries after the compacted prefix. *Groups* follow, one for each Ready: a hard state, entries
//! that replace what is there from the first of them on. Compaction and the arrival of a snapshot begin a new file; the
//! file `current` says which one counts and is replaced, in one step, after the new one is durable.
//!
//! Every record has a checksum ([`types::codec`]). After a crash the end of the file may be anything: it is cut off at
//! the first bad record. Unless that record was durable: then somebody has been told of it, and the replica must not
//! be served. So each group says up to where the file was durable when it was written; a bad record before such a mark
//! is damage. (Damage to the very last durable group has no later witness. It looks like a torn write, and the
//! simulator spares it; so would a real log that has nothing but itself.)
//!
//! What is handed over is readable at once through [`raft::Storage`]. Durability is the disk's and the driver's matter.

use bytes::Bytes;
use raft::{
    ConfState, Entry, HardState, MemStorage, Snapshot, SnapshotMeta, Storage, StorageError,
};
use types::codec::{DecodeError, Reader, Writer, get_record, put_record};

use super::{
    codec::{get_entries, get_hard_state, get_snapshot, put_entries, put_hard_state, put_snapshot},
    command::{FOUNDED, State},
};
use crate::world::{Disk, DiskOp};

/// The version of all records.
const VERSION: u8 = 1;

/// The name of the file that says which log counts.
const CURRENT: &str = "current";

/// Durable data are damaged. The replica must not be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub String);

/// The log, in memory, and how it lies on the disk.
#[derive(Debug)]
pub(crate) struct DiskLog {
    memory: MemStorage,
    /// The number of the file that is written to.
    generation: u64,
    /// Bytes of that file once all jobs are done.
    len: u64,
    /// Bytes of that file that are durable.
    durable: u64,
    /// What the file needs before anything else is written to it.
    cut: Option<u64>,
    /// Records that wait for the next job.
    waiting: Vec<u8>,
    /// A snapshot of at least this index is wanted by somebody. Set through a shared reference.
    wanted: std::cell::Cell<u64>,
}

/// What a start has found.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The log.
    pub(crate) log: DiskLog,
    /// The state machine as of the last checkpoint.
    pub(crate) state: State,
    /// Whether an end that was not durable was cut off.
    pub(crate) torn: bool,
}

impl DiskLog {
    /// The log of a node that is new and waits to be told everything. The first thing to write is what
    /// [`begin`](DiskLog::begin) says.
    pub(crate) fn create() -> DiskLog {
        DiskLog::with(MemStorage::default())
    }

    /// The log of one of the first members of a group, with its state.
    pub(crate) fn found(voters: &[u64]) -> DiskLog {
        let (index, term) = FOUNDED;
        let conf = ConfState::of_voters(voters.iter().copied());
        let mut memory = MemStorage::default();
        memory
            .apply_snapshot(Snapshot {
                meta: SnapshotMeta { index, term, conf },
                data: State::founding().encode(),
            })
            .expect("an empty storage takes every snapshot");
        DiskLog::with(memory)
    }

    fn with(memory: MemStorage) -> DiskLog {
        DiskLog {
            memory,
            generation: 0,
            len: 0,
            durable: 0,
            cut: None,
            waiting: Vec::new(),
            wanted: std::cell::Cell::new(0),
        }
    }

    /// Reads what lies on a disk; `None` if nothing was ever made durable there.
    ///
    /// # Errors
    /// Something that was durable is damaged.
    pub(crate) fn open(disk: &Disk) -> Result<Option<Recovered>, Damaged> {
        let Some(current) = disk.read(CURRENT) else { return Ok(None) };
        let generation = get_record(&current)
            .and_then(|(_, payload, _)| Reader::new(payload).u64())
            .map_err(|error| Damaged(format!("{CURRENT}: {error}")))?;
        let name = file_name(generation);
        let bytes = Bytes::from(disk.read(&name).ok_or_else(|| Damaged(format!("no {name}")))?);
        let (checkpoint, start) = Checkpoint::read(&bytes)
            .map_err(|error| Damaged(format!("{name}: checkpoint: {error}")))?;
        let mut memory = MemStorage::new([]);
        let mut hard_state = checkpoint.hard_state;
        checkpoint.restore(&mut memory);
        let mut at = start;
        while let Some((group, length)) = Group::read(&bytes.slice(at..)) {
            memory.append(&group.entries);
            hard_state = group.hard_state.unwrap_or(hard_state);
            at += length;
        }
        if let Some(witness) = witness_beyond(&bytes, at) {
            let details = format!("{name}: bad record at {at}, durable up to {witness}");
            return Err(Damaged(details));
        }
        memory.set_hard_state(hard_state);
        let torn = at < bytes.len();
        let mut log = DiskLog::with(memory);
        log.generation = generation;
        log.len = at as u64;
        log.durable = at as u64;
        log.cut = Some(at as u64);
        Ok(Some(Recovered { log, state: checkpoint.state, torn }))
    }

    /// The damage of which bytes a start must notice: a file, and how many bytes from its beginning.
    pub(crate) fn vouched(disk: &Disk) -> Option<(String, u64)> {
        let current = disk.read(CURRENT)?;
        let (_, payload, _) = get_record(&current).ok()?;
        let name = file_name(Reader::new(payload).u64().ok()?);
        let bytes = Bytes::from(disk.read(&name)?);
        let (_, start) = Checkpoint::read(&bytes).ok()?;
        let witness = witness_beyond(&bytes, start).unwrap_or(0);
        Some((name, witness.max(start as u64)))
    }

    /// Takes over part 1 of a Ready: readable at once, on the disk with the next [`flush`](DiskLog::flush).
    pub(crate) fn append(&mut self, hard_state: Option<HardState>, entries: Vec<Entry>) {
        if hard_state.is_none() && entries.is_empty() {
            return;
        }
        if let Some(hard_state) = hard_state {
            self.memory.set_hard_state(hard_state);
        }
        let group = Group { durable: self.durable, hard_state, entries };
        group.write(&mut self.waiting);
        self.memory.append_owned(group.entries);
    }

    /// The writes that wait, and the sync that makes them durable.
    pub(crate) fn flush(&mut self) -> Vec<DiskOp> {
        let mut ops = Vec::new();
        let file = file_name(self.generation);
        if let Some(len) = self.cut.take() {
            ops.push(DiskOp::Truncate { file: file.clone(), len });
        }
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        let offset = self.len;
        self.len += bytes.len() as u64;
        ops.push(DiskOp::Write { file: file.clone(), offset, bytes });
        ops.push(DiskOp::Sync { file });
        ops
    }

    /// The bytes of the current file once everything that was handed over is durable: what
    /// [`synced`](DiskLog::synced) is told when it is.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.generation, self.len)
    }

    /// Everything up to `position` is durable.
    pub(crate) fn synced(&mut self, position: (u64, u64)) {
        if position.0 == self.generation {
            self.durable = self.durable.max(position.1);
        }
    }

    /// Replaces log and state by a snapshot, with the hard state as of then. The jobs that do it.
    pub(crate) fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<HardState>,
    ) -> Vec<DiskOp> {
        self.memory
            .apply_snapshot(snapshot.clone())
            .expect("the core installs only what is newer than all it has");
        if let Some(hard_state) = hard_state {
            self.memory.set_hard_state(hard_state);
        }
        let state = State::decode(&snapshot.data).expect("a snapshot is what somebody has encoded");
        self.begin(&state, &snapshot.meta.conf)
    }

    /// Makes `state` the beginning of the log and forgets the entries up to `compact_to`, which is not beyond it. The
    /// jobs that do it.
    pub(crate) fn checkpoint(
        &mut self,
        state: &State,
        conf: &ConfState,
        compact_to: u64,
    ) -> Vec<DiskOp> {
        self.offer_snapshot(state, conf);
        if self.memory.first_index() <= compact_to {
            self.memory.compact(compact_to).expect("what is applied is in the log");
        }
        self.begin(state, conf)
    }

    /// Makes `state` the snapshot that followers get, if it is newer.
    pub(crate) fn offer_snapshot(&mut self, state: &State, conf: &ConfState) {
        if self.memory.first_index() <= state.applied {
            // A snapshot at the same index is as good.
            let _ = self.memory.create_snapshot(state.applied, conf.clone(), state.encode());
        }
        self.wanted.set(0);
    }

    /// The index that a wanted snapshot has to cover, if one is wanted.
    pub(crate) fn wanted_snapshot(&self) -> Option<u64> {
        Some(self.wanted.get()).filter(|index| *index > 0)
    }

    /// The hard state as it was handed over last.
    pub(crate) fn hard_state(&self) -> HardState {
        self.memory.hard_state()
    }

    /// Begins the next file with everything that counts. The jobs that do it.
    pub(crate) fn begin(&mut self, state: &State, conf: &ConfState) -> Vec<DiskOp> {
        let mut hard_state = self.memory.hard_state();
        // What is applied is committed; the state and the hard state become durable together.
        hard_state.commit = hard_state.commit.max(state.applied);
        self.memory.set_hard_state(hard_state);
        self.memory.set_conf_state(conf.clone());
        let before = self.memory.first_index() - 1;
        let checkpoint = Checkpoint {
            state: state.clone(),
            conf: conf.clone(),
            hard_state,
            base: (before, self.memory.term(before).expect("the term before the log is known")),
            entries: self.memory.log().cloned().collect(),
        };
        let mut bytes = Vec::new();
        checkpoint.write(&mut bytes);
        let old = file_name(self.generation);
        self.generation += 1;
        let file = file_name(self.generation);
        self.len = bytes.len() as u64;
        self.durable = 0;
        self.cut = None;
        // All of it is in the checkpoint.
        self.waiting.clear();
        let mut current = Vec::new();
        put_record(&mut current, VERSION, &self.generation.to_be_bytes());
        vec![
            // An attempt before a crash may have left something.
            DiskOp::Truncate { file: file.clone(), len: 0 },
            DiskOp::Write { file: file.clone(), offset: 0, bytes: Bytes::from(bytes) },
            DiskOp::Sync { file },
            DiskOp::SyncNames,
            DiskOp::Replace { file: CURRENT.into(), bytes: Bytes::from(current) },
            DiskOp::Remove { file: old },
        ]
    }
}

impl Storage for DiskLog {
    fn initial_state(&self) -> Result<(HardState, ConfState), StorageError> {
        self.memory.initial_state()
    }

    fn entries(&self, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        self.memory.entries(low, high, max_bytes)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.memory.term(index)
    }

    fn first_index(&self) -> u64 {
        self.memory.first_index()
    }

    fn last_index(&self) -> u64 {
        self.memory.last_index()
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot, StorageError> {
        let snapshot = self.memory.snapshot(request_index, to);
        if snapshot.is_err() {
            self.wanted.set(self.wanted.get().max(request_index).max(1));
        }
        snapshot
    }
}

fn file_name(generation: u64) -> String {
    format!("log-{generation:06}")
}

/// The beginning of a file.
struct Checkpoint {
    state: State,
    conf: ConfState,
    hard_state: HardState,
    /// The index and the term before the first entry.
    base: (u64, u64),
    entries: Vec<Entry>,
}

impl Checkpoint {
    fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new();
        writer.u8(1);
        put_hard_state(&mut writer, &self.hard_state);
        writer.u64(self.base.0).u64(self.base.1);
        let State { applied, term, .. } = self.state;
        let meta = SnapshotMeta { index: applied, term, conf: self.conf.clone() };
        put_snapshot(&mut writer, &Snapshot { meta, data: self.state.encode() });
        put_entries(&mut writer, &self.entries);
        put_record(out, VERSION, &writer.finish());
    }

    fn read(bytes: &Bytes) -> Result<(Checkpoint, usize), DecodeError> {
        let (_, payload, length) = get_record(bytes)?;
        let mut reader = Reader::new(payload);
        if reader.u8()? != 1 {
            return Err(DecodeError::Invalid("checkpoint"));
        }
        let hard_state = get_hard_state(&mut reader)?;
        let base = (reader.u64()?, reader.u64()?);
        let snapshot = get_snapshot(&mut reader, bytes)?;
        let state = State::decode(&snapshot.data)?;
        let entries = get_entries(&mut reader, bytes)?;
        reader.finish()?;
        Ok((Checkpoint { state, conf: snapshot.meta.conf, hard_state, base, entries }, length))
    }

    fn restore(&self, memory: &mut MemStorage) {
        let (index, term) = self.base;
        if index > 0 {
            // The place before the log. If the state is not of there, it becomes the snapshot below.
            let meta = SnapshotMeta { index, term, conf: self.conf.clone() };
            memory
                .apply_snapshot(Snapshot { meta, data: self.state.encode() })
                .expect("an empty storage takes every snapshot");
        }
        memory.append(&self.entries);
        if index < self.state.applied {
            memory
                .create_snapshot(self.state.applied, self.conf.clone(), self.state.encode())
                .expect("the state lies within the log");
        }
        memory.set_conf_state(self.conf.clone());
    }
}

/// What one Ready has brought.
struct Group {
    /// Up to where the file was durable when this was written.
    durable: u64,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
}

impl Group {
    fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new();
        writer.u8(2).u64(self.durable);
        match &self.hard_state {
            None => {
                writer.u8(0);
            }
            Some(hard_state) => {
                writer.u8(1);
                put_hard_state(&mut writer, hard_state);
            }
        }
        put_entries(&mut writer, &self.entries);
        put_record(out, VERSION, &writer.finish());
    }

    fn read(bytes: &Bytes) -> Option<(Group, usize)> {
        let (_, payload, length) = get_record(bytes).ok()?;
        let mut reader = Reader::new(payload);
        if reader.u8().ok()? != 2 {
            return None;
        }
        let durable = reader.u64().ok()?;
        let hard_state = match reader.u8().ok()? {
            0 => None,
            _ => Some(get_hard_state(&mut reader).ok()?),
        };
        let entries = get_entries(&mut reader, bytes).ok()?;
        reader.finish().ok()?;
        Some((Group { durable, hard_state, entries }, length))
    }
}

/// The highest mark of durability beyond `from` that any intact group in the file has, wherever it begins.
fn witness_beyond(bytes: &Bytes, from: usize) -> Option<u64> {
    let mut highest = None;
    let mut at = from;
    while at < bytes.len() {
        match Group::read(&bytes.slice(at..)) {
            Some((group, length)) => {
                highest = highest.max(Some(group.durable).filter(|mark| *mark > from as u64));
                at += length;
            }
            // Where the next record begins is not known behind a bad one.
            None => at += 1,
        }
    }
    highest
}

#[cfg(test)]
mod tests;
