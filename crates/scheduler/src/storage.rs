//! The log and the snapshot of a scheduler member, on [`runtime::Fs`].
//!
//! `SNAPSHOT` holds the records of a state and the sequence number of the log that follows it, `LOG-n`. The log holds
//! *batches* of records. A batch is written only after the sync of the one before has returned, so at most the last
//! one can be torn. When the log has grown too long, a new one is created first and then named by a new snapshot,
//! which replaces the old one in one step: at every moment one snapshot and one log belong together.
//!
//! Recovery cuts off a torn batch at the end. A damaged batch that is followed by a whole one was synced once, and
//! people rely on it: recovery refuses. (Damage to the very last batch can't be told from a torn one.)
//!
//! The bytes are described in docs/formats.md. Not a general log: one writer, one reader, at start.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{Error, Result};
use runtime::{File, Fs};
use types::codec::{self, DecodeError, Reader, Writer};

use crate::{LogPosition, Record};

/// The version of all records of these files.
const VERSION: u8 = 1;

const SNAPSHOT_FILE: &str = "SNAPSHOT";
const LOG_PREFIX: &str = "LOG-";

/// The first byte of a payload.
mod kind {
    pub(super) const SNAPSHOT: u8 = 1;
    pub(super) const LOG_HEADER: u8 = 2;
    pub(super) const BATCH: u8 = 3;
}

/// Records that become durable together, or not at all.
#[derive(Debug)]
pub struct Batch {
    before: LogPosition,
    count: u32,
    records: Writer,
    len: usize,
}

impl Batch {
    /// No records yet, at this point of the log.
    pub fn new(before: LogPosition) -> Batch {
        Batch { before, count: 0, records: Writer::new(), len: 0 }
    }

    /// Appends a record.
    pub fn push(&mut self, record: &Record) {
        let mut bytes = Writer::new();
        record.encode_into(&mut bytes);
        let bytes = bytes.finish();
        self.len += bytes.len();
        self.count += 1;
        self.records.bytes(&bytes);
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of its records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The point of the log after it.
    pub fn end(&self) -> LogPosition {
        LogPosition(self.before.0 + u64::from(self.count))
    }

    fn encode(mut self) -> Vec<u8> {
        let mut payload = Writer::new().u8(kind::BATCH).u64(self.before.0).u32(self.count).finish();
        payload.extend_from_slice(&self.records.finish());
        let mut out = Vec::with_capacity(codec::RECORD_HEADER + payload.len());
        codec::put_record(&mut out, VERSION, &payload);
        out
    }
}

/// What a start finds.
#[derive(Debug)]
pub struct Recovered {
    /// The log, ready for the next batch.
    pub storage: Storage,
    /// The records of the snapshot, then those of the log.
    pub records: Vec<Record>,
    /// The end of the log.
    pub position: LogPosition,
    /// Bytes of a torn batch that were cut off.
    pub cut: u64,
}

/// The log of a scheduler member, open for appending.
#[derive(Debug)]
pub struct Storage {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    log: Arc<dyn File>,
    log_path: PathBuf,
    sequence: u64,
    len: u64,
    position: LogPosition,
    snapshot_len: u64,
    /// Bytes of the log from which on a snapshot is worth it, if that is not larger.
    log_bytes: u64,
    poisoned: Option<Arc<Error>>,
}

impl Storage {
    /// Begins the log of a new member in an existing folder, in the place of what an unfinished start left there.
    /// `records` are a snapshot at `position`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        records: &[Record],
        position: LogPosition,
        log_bytes: u64,
    ) -> Result<Storage> {
        Storage::begin_log(fs, dir, 1, records, position, log_bytes)
    }

    /// Whether a member's state is in the folder: its snapshot is put there in one step, when its log exists.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_begun(fs: &dyn Fs, dir: &Path) -> Result<bool> {
        let path = dir.join(SNAPSHOT_FILE);
        let found = fs.read(&path).map_err(|source| Error::Io {
            operation: "read",
            path: path.clone(),
            source: Arc::new(source),
        })?;
        Ok(found.is_some())
    }

    /// Opens what [`create`](Storage::create) began.
    ///
    /// # Errors
    /// `Corrupt` with file and offset, `Io`.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, log_bytes: u64) -> Result<Recovered> {
        let snapshot_path = dir.join(SNAPSHOT_FILE);
        let snapshot = read(&*fs, &snapshot_path)?;
        let (sequence, snapshot_position, mut records) = decode_snapshot(&snapshot)
            .map_err(|error| corrupt(&snapshot_path, 0, &error.to_string()))?;
        // A process that died between a rename and the sync of its folder left a name that may still be lost.
        fs.sync_dir(dir).map_err(|error| failed("sync", dir, error))?;

        let log_path = dir.join(log_name(sequence));
        let bytes = read(&*fs, &log_path)?;
        let replayed = replay(&bytes, &log_path, sequence, snapshot_position, &mut records)?;
        let log = fs.open(&log_path).map_err(|error| failed("open", &log_path, error))?;
        let cut = bytes.len() as u64 - replayed.len;
        if cut > 0 {
            log.set_len(replayed.len)
                .map_err(|error| failed("cut of a torn batch", &log_path, error))?;
        }
        // A process that died before its sync left bytes that are read here and may still be lost.
        log.sync().map_err(|error| failed("sync", &log_path, error))?;
        remove_leftovers(&*fs, dir, sequence)?;
        let storage = Storage {
            fs,
            dir: dir.to_owned(),
            log,
            log_path,
            sequence,
            len: replayed.len,
            position: replayed.position,
            snapshot_len: snapshot.len() as u64,
            log_bytes,
            poisoned: None,
        };
        Ok(Recovered { storage, records, position: replayed.position, cut })
    }

    /// Appends a batch and returns once it is durable. After an error what is durable is not known, and every later
    /// call fails.
    ///
    /// # Errors
    /// `Io`; `Poisoned` after an error.
    pub fn append(&mut self, batch: Batch) -> Result<()> {
        self.check_poison()?;
        assert_eq!(batch.before, self.position, "batches are appended in order");
        let end = batch.end();
        let bytes = batch.encode();
        let written = self
            .log
            .write_all_at(&bytes, self.len)
            .map_err(|error| failed("write", &self.log_path, error));
        let synced = written
            .and_then(|()| self.log.sync().map_err(|error| failed("sync", &self.log_path, error)));
        self.keep_poison(synced)?;
        self.len += bytes.len() as u64;
        self.position = end;
        Ok(())
    }

    /// Whether the log is so long that a snapshot is worth it.
    pub fn needs_snapshot(&self) -> bool {
        self.log_bytes.max(self.snapshot_len) < self.len
    }

    /// Replaces log and snapshot by a snapshot at `position` and an empty log; returns once that is durable.
    /// `position` may be beyond what was appended: the snapshot then stands for the rest.
    ///
    /// # Errors
    /// `Io`; `Poisoned` after an error.
    pub fn put_snapshot(&mut self, records: &[Record], position: LogPosition) -> Result<()> {
        self.check_poison()?;
        assert!(self.position <= position, "a snapshot stands for everything before it");
        let (fs, sequence) = (Arc::clone(&self.fs), self.sequence + 1);
        let begun = Storage::begin_log(fs, &self.dir, sequence, records, position, self.log_bytes);
        let old_path = self.log_path.clone();
        *self = self.keep_poison(begun)?;
        // If this fails the next start does it.
        let _ = self.fs.remove(&old_path);
        Ok(())
    }

    fn begin_log(
        fs: Arc<dyn Fs>,
        dir: &Path,
        sequence: u64,
        records: &[Record],
        position: LogPosition,
        log_bytes: u64,
    ) -> Result<Storage> {
        let log_path = dir.join(log_name(sequence));
        let header = encode_log_header(sequence, position);
        let log = begin_file(&*fs, dir, &log_path, &header)
            .map_err(|error| failed("creation", &log_path, error))?;
        let snapshot_path = dir.join(SNAPSHOT_FILE);
        let snapshot = encode_snapshot(sequence, position, records);
        fs.replace(&snapshot_path, &snapshot)
            .map_err(|error| failed("write", &snapshot_path, error))?;
        Ok(Storage {
            fs,
            dir: dir.to_owned(),
            log,
            log_path,
            sequence,
            len: header.len() as u64,
            position,
            snapshot_len: snapshot.len() as u64,
            log_bytes,
            poisoned: None,
        })
    }

    fn check_poison(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    fn keep_poison<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.poisoned = Some(Arc::new(error.clone()));
        }
        result
    }
}

fn begin_file(fs: &dyn Fs, dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let file = fs.open(path)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    fs.sync_dir(dir)?;
    Ok(file)
}

/// Reads a file that a complete member has.
fn read(fs: &dyn Fs, path: &Path) -> Result<Vec<u8>> {
    let bytes = fs.read(path).map_err(|error| failed("read", path, error))?;
    bytes.ok_or_else(|| Error::Corrupt {
        path: path.to_owned(),
        detail: "the file is missing".into(),
    })
}

/// Removes logs that no snapshot names, and half-written snapshots.
fn remove_leftovers(fs: &dyn Fs, dir: &Path, sequence: u64) -> Result<()> {
    let current = log_name(sequence);
    for path in fs.list(dir).map_err(|error| failed("read", dir, error))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_old_log = name.starts_with(LOG_PREFIX) && name != *current;
        if is_old_log || name == "SNAPSHOT.tmp" {
            fs.remove(&path).map_err(|error| failed("removal", &path, error))?;
        }
    }
    Ok(())
}

fn log_name(sequence: u64) -> String {
    format!("{LOG_PREFIX}{sequence}")
}

fn encode_log_header(sequence: u64, position: LogPosition) -> Vec<u8> {
    let payload = Writer::new().u8(kind::LOG_HEADER).u64(sequence).u64(position.0).finish();
    let mut out = Vec::new();
    codec::put_record(&mut out, VERSION, &payload);
    out
}

fn encode_snapshot(sequence: u64, position: LogPosition, records: &[Record]) -> Vec<u8> {
    let mut payload = Writer::new();
    payload.u8(kind::SNAPSHOT).u64(sequence).u64(position.0).u64(records.len() as u64);
    for record in records {
        let mut bytes = Writer::new();
        record.encode_into(&mut bytes);
        payload.bytes(&bytes.finish());
    }
    let mut out = Vec::new();
    codec::put_record(&mut out, VERSION, &payload.finish());
    out
}

fn decode_snapshot(bytes: &[u8]) -> Result<(u64, LogPosition, Vec<Record>), DecodeError> {
    let (mut payload, read) = get_payload(bytes, kind::SNAPSHOT)?;
    if read < bytes.len() {
        return Err(DecodeError::Invalid("end of the snapshot: bytes are left over"));
    }
    let (sequence, position, count) = (payload.u64()?, LogPosition(payload.u64()?), payload.u64()?);
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(get_record(&mut payload)?);
    }
    payload.finish()?;
    Ok((sequence, position, records))
}

/// What a log holds.
struct Replayed {
    /// Bytes up to the end of its last whole batch.
    len: u64,
    position: LogPosition,
}

/// Appends the records of a log to `records`.
fn replay(
    bytes: &[u8],
    path: &Path,
    sequence: u64,
    position: LogPosition,
    records: &mut Vec<Record>,
) -> Result<Replayed> {
    let expected = encode_log_header(sequence, position);
    if !bytes.starts_with(&expected) {
        return Err(corrupt(path, 0, "it does not begin as the log that SNAPSHOT names"));
    }
    let (mut offset, mut position) = (expected.len(), position);
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        if let Err(error) = codec::get_record(rest) {
            return match find_batch_after(rest, position) {
                None => Ok(Replayed { len: offset as u64, position }),
                Some(distance) => {
                    let next = offset + distance;
                    let detail = format!(
                        "{error}; the log goes on at offset {next}, so this is no torn end"
                    );
                    Err(corrupt(path, offset, &detail))
                }
            };
        }
        let (end, read) = get_batch(rest, position, records)
            .map_err(|e| corrupt(path, offset, &e.to_string()))?;
        position = end;
        offset += read;
    }
    Ok(Replayed { len: offset as u64, position })
}

/// Reads the batch at the front of `bytes`: the point of the log after it, and how many bytes it took.
fn get_batch(
    bytes: &[u8],
    position: LogPosition,
    records: &mut Vec<Record>,
) -> Result<(LogPosition, usize), DecodeError> {
    let (mut payload, read) = get_payload(bytes, kind::BATCH)?;
    if payload.u64()? != position.0 {
        return Err(DecodeError::Invalid("batch: it does not follow the one before"));
    }
    let count = payload.u32()?;
    for _ in 0..count {
        records.push(get_record(&mut payload)?);
    }
    payload.finish()?;
    Ok((LogPosition(position.0 + u64::from(count)), read))
}

/// Where a whole batch begins that was written after the one at `position`, which is damaged.
fn find_batch_after(bytes: &[u8], position: LogPosition) -> Option<usize> {
    (1..bytes.len()).find(|&distance| {
        // Cheap checks first: almost no place gets as far as the checksum.
        let candidate = &bytes[distance..];
        let mut front = Reader::new(candidate);
        let is_later_batch = || -> Result<bool, DecodeError> {
            front.take(codec::RECORD_HEADER - 1)?;
            Ok(front.u8()? == VERSION && front.u8()? == kind::BATCH && position.0 < front.u64()?)
        }();
        is_later_batch == Ok(true) && codec::get_record(candidate).is_ok()
    })
}

fn get_payload(bytes: &[u8], kind: u8) -> Result<(Reader<'_>, usize), DecodeError> {
    let (version, payload, read) = codec::get_record(bytes)?;
    if version != VERSION {
        return Err(DecodeError::Newer { found: version.into(), known: VERSION.into() });
    }
    let mut payload = Reader::new(payload);
    if payload.u8()? != kind {
        return Err(DecodeError::Invalid("kind of payload"));
    }
    Ok((payload, read))
}

fn get_record(payload: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let mut bytes = Reader::new(payload.bytes()?);
    let record = Record::decode(&mut bytes)?;
    bytes.finish()?;
    Ok(record)
}

fn corrupt(path: &Path, offset: usize, detail: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), detail: format!("at offset {offset}: {detail}") }
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Io { operation, path: path.to_owned(), source: Arc::new(error) }
}

#[cfg(test)]
mod tests;
