//! Region snapshots: files that hold the data of a region as of one applied entry.
//!
//! A file is a sequence of records of `types::codec`: a header (region, index, term), chunks of pairs, and an end with
//! their number. It is written under a temporary name, synced and renamed, so that a file that has its name is whole;
//! its records are verified again when they are installed. What travels in the Raft message is the [`Descriptor`]:
//! the bytes of the file are carried beside it.

mod transfer;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use engine::{Engine, Family};
use raft::{Snapshot, SnapshotMeta};
use runtime::fs::{File, Fs};
use types::{
    Bytes, Cf, Region, RegionId, TimeStamp,
    codec::{self, DecodeError, RECORD_HEADER, Reader, Writer},
};

use crate::{
    error::{Error, Result},
    state::{self, ApplyState, PeerState, conf_of, get_region, put_region},
};

pub use transfer::{Receiving, Sending};

const VERSION: u8 = 1;
const HEADER: u8 = 0;
const CHUNK: u8 = 1;
const END: u8 = 2;

/// Bytes of keys and values of a chunk, roughly.
const CHUNK_BYTES: usize = 256 << 10;
/// The largest record: a chunk whose last pair is as large as a pair may be.
const RECORD_BYTES_MAX: usize = CHUNK_BYTES + types::limits::MESSAGE_BYTES_MAX;

/// Key-value pairs, in order.
pub type Pairs = Vec<(Cf, Bytes, Bytes)>;

/// The data of a snapshot, piece by piece.
pub trait SnapshotSource: fmt::Debug + Send {
    /// The next pairs; `None` after the last ones.
    ///
    /// # Errors
    /// The file is damaged, or can't be read.
    fn next(&mut self) -> Result<Option<Pairs>>;

    /// Below which timestamp versions may be missing.
    fn safe_point(&self) -> TimeStamp {
        TimeStamp::ZERO
    }
}

/// What a snapshot is, without its data: the data of the Raft snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The region as of the snapshot.
    pub region: Region,
    /// Where it stands in the log.
    pub applied: ApplyState,
    /// Bytes of its file.
    pub bytes: u64,
}

impl Descriptor {
    /// As the data of a Raft snapshot.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u64(self.applied.index).u64(self.applied.term).u64(self.bytes);
        put_region(&mut writer, &self.region);
        writer.finish().into()
    }

    /// Reads what [`Descriptor::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Descriptor, DecodeError> {
        let mut reader = Reader::new(bytes);
        let applied = ApplyState { index: reader.u64()?, term: reader.u64()? };
        let bytes = reader.u64()?;
        let region = get_region(&mut reader)?;
        reader.finish().map(|()| Descriptor { region, applied, bytes })
    }

    /// The Raft snapshot that carries it.
    pub fn to_raft(&self) -> Snapshot {
        let ApplyState { index, term } = self.applied;
        let meta = SnapshotMeta { index, term, conf: conf_of(&self.region) };
        Snapshot { meta, data: self.encode() }
    }
}

/// Where the files of snapshots lie.
#[derive(Clone, Debug)]
pub struct Snapshots {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Numbers the files that are being received.
    receiving: Arc<AtomicU64>,
}

impl Snapshots {
    /// The snapshots in `dir`, which is created, durably, if it is missing. The folder above it is there. Files that a
    /// crash has left half written are removed.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Snapshots> {
        let create = || {
            fs.create_dir_all(dir)?;
            dir.parent().map_or(Ok(()), |above| fs.sync_dir(above))?;
            Snapshots::remove_leftovers(&*fs, dir)
        };
        create().map_err(|error| io(dir, error))?;
        Ok(Snapshots { fs, dir: dir.to_owned(), receiving: Arc::default() })
    }

    /// The file of a snapshot that was made here.
    pub fn made(&self, region: RegionId, applied: ApplyState) -> PathBuf {
        self.dir.join(FileName { was_received: false, region, applied }.to_string())
    }

    /// The file of a snapshot that came from another store.
    pub fn received(&self, region: RegionId, applied: ApplyState) -> PathBuf {
        self.dir.join(FileName { was_received: true, region, applied }.to_string())
    }

    /// Makes the snapshot of a region from what the engine has now, and its file. `None`: the region is not here.
    ///
    /// # Errors
    /// The engine failed, or the disk.
    pub fn make(&self, engine: &dyn Engine, region: RegionId) -> Result<Option<Descriptor>> {
        let snapshot = engine.snapshot()?;
        let (Some(found), Some(applied)) =
            (state::region_state(&*snapshot, region)?, state::apply_state(&*snapshot, region)?)
        else {
            return Ok(None);
        };
        if found.state != PeerState::Normal {
            return Ok(None);
        }
        let region = found.region;
        let path = self.made(region.id, applied);
        if let Some(bytes) = self.size(&path)? {
            return Ok(Some(Descriptor { region, applied, bytes }));
        }
        let temporary = path.with_extension("tmp");
        let written = self.write(&*snapshot, &region, applied, &temporary);
        if written.is_err() {
            // What can't be written needs no room. That it stays does no harm before the next start.
            let _ = self.fs.remove(&temporary);
        }
        let bytes = written?;
        self.fs.rename(&temporary, &path).map_err(|error| io(&path, error))?;
        self.fs.sync_dir(&self.dir).map_err(|error| io(&self.dir, error))?;
        Ok(Some(Descriptor { region, applied, bytes }))
    }

    /// Writes and syncs a file. Returns its bytes.
    fn write(
        &self,
        snapshot: &dyn engine::Snapshot,
        region: &Region,
        applied: ApplyState,
        path: &Path,
    ) -> Result<u64> {
        let mut output = Output::begin(&*self.fs, path)?;
        let mut header = Writer::new();
        header.u8(HEADER).u64(applied.index).u64(applied.term);
        put_region(&mut header, region);
        header.u64(state::safe_point(snapshot, region.id)?.0);
        output.record(&header.finish())?;
        let mut total = 0u64;
        for cf in Cf::ALL {
            let mut iter = snapshot.iter(Family::from(cf), &region.range)?;
            let mut valid = iter.seek_to_first()?;
            let mut chunk = Chunk::new(cf);
            while valid {
                chunk.push(iter.key(), iter.value());
                total += 1;
                valid = iter.next()?;
                if !valid || CHUNK_BYTES <= chunk.bytes() {
                    output.record(&chunk.finish())?;
                    chunk = Chunk::new(cf);
                }
            }
        }
        output.record(&Writer::new().u8(END).u64(total).finish())?;
        output.finish()
    }

    /// The data of a snapshot that was received. Its first record says what it is.
    ///
    /// # Errors
    /// The file is missing, damaged or of another snapshot.
    pub fn source(&self, descriptor: &Descriptor) -> Result<Box<dyn SnapshotSource>> {
        let path = self.received(descriptor.region.id, descriptor.applied);
        let mut input = Input::begin(&*self.fs, &path)?;
        let header = input.record()?;
        let mut reader = Reader::new(&header);
        let parse = |reader: &mut Reader<'_>| {
            if reader.u8()? != HEADER {
                return Err(DecodeError::Invalid("first record"));
            }
            let applied = ApplyState { index: reader.u64()?, term: reader.u64()? };
            Ok((applied, get_region(reader)?, TimeStamp(reader.u64()?)))
        };
        let (applied, region, safe_point) =
            parse(&mut reader).map_err(|error| damaged(&path, error))?;
        if (applied, &region) != (descriptor.applied, &descriptor.region) {
            return Err(damaged(&path, DecodeError::Invalid("it is another snapshot")));
        }
        Ok(Box::new(FileSource { input, pairs: 0, safe_point }))
    }

    /// What the file of a received snapshot says it is; `None` if there is no such file.
    pub fn find_received(
        &self,
        region: RegionId,
        applied: ApplyState,
    ) -> Result<Option<Descriptor>> {
        let path = self.received(region, applied);
        let Some(bytes) = self.size(&path)? else { return Ok(None) };
        let header = Input::begin(&*self.fs, &path)?.record()?;
        let mut reader = Reader::new(&header);
        let region = reader
            .take(17)
            .and_then(|_| get_region(&mut reader))
            .map_err(|error| damaged(&path, error))?;
        Ok(Some(Descriptor { region, applied, bytes }))
    }

    /// Removes the files of snapshots of a region that were received and stand at `applied` or before: it is applied so
    /// far, and takes none of them any more.
    pub fn forget_received(&self, region: RegionId, applied: ApplyState) -> Result<()> {
        self.remove_if(|file| {
            file.was_received && file.region == region && file.applied.index <= applied.index
        })
    }

    /// Removes the file of a snapshot that was made here.
    pub fn forget_made(&self, region: RegionId, applied: ApplyState) -> Result<()> {
        self.remove_if(|file| *file == FileName { was_received: false, region, applied })
    }

    /// Removes all files but those of snapshots that were received and are `needed`: nobody knows of them after a start.
    pub(crate) fn remove_all_but(&self, needed: &BTreeSet<(RegionId, ApplyState)>) -> Result<()> {
        self.remove_if(|file| !(file.was_received && needed.contains(&(file.region, file.applied))))
    }

    fn remove_if(&self, goes: impl Fn(&FileName) -> bool) -> Result<()> {
        let paths = self.fs.list(&self.dir).map_err(|error| io(&self.dir, error))?;
        for path in paths {
            if FileName::parse(&path).is_some_and(|file| goes(&file)) {
                self.fs.remove(&path).map_err(|error| io(&path, error))?;
            }
        }
        Ok(())
    }

    fn size(&self, path: &Path) -> Result<Option<u64>> {
        let size = || match self.fs.exists(path)? {
            true => self.fs.open(path)?.len().map(Some),
            false => Ok(None),
        };
        size().map_err(|error| io(path, error))
    }
}

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileName {
    was_received: bool,
    region: RegionId,
    applied: ApplyState,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.was_received { "received" } else { "made" };
        let ApplyState { index, term } = self.applied;
        write!(f, "{kind}-{}-{term}-{index}.snapshot", self.region)
    }
}

impl FileName {
    /// `None` if it is not the name of a whole snapshot.
    fn parse(path: &Path) -> Option<FileName> {
        let name = path.file_name()?.to_str()?.strip_suffix(".snapshot")?;
        let mut parts = name.split('-');
        let was_received = match parts.next()? {
            "received" => true,
            "made" => false,
            _ => return None,
        };
        let mut number = || parts.next()?.parse().ok();
        let (region, term, index) = (RegionId(number()?), number()?, number()?);
        Some(FileName { was_received, region, applied: ApplyState { index, term } })
    }
}

/// Pairs of one column family, being put together.
struct Chunk {
    cf: Cf,
    pairs: Writer,
    count: u32,
    bytes: usize,
}

impl Chunk {
    fn new(cf: Cf) -> Chunk {
        Chunk { cf, pairs: Writer::new(), count: 0, bytes: 0 }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.pairs.bytes(key).bytes(value);
        self.count += 1;
        self.bytes += key.len() + value.len();
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn finish(mut self) -> Vec<u8> {
        let mut payload = Writer::new().u8(CHUNK).u8(self.cf.to_byte()).u32(self.count).finish();
        payload.extend_from_slice(&self.pairs.finish());
        payload
    }
}

/// A file being written.
struct Output<'a> {
    path: &'a Path,
    file: Arc<dyn File>,
    offset: u64,
}

impl<'a> Output<'a> {
    fn begin(fs: &dyn Fs, path: &'a Path) -> Result<Output<'a>> {
        let open = || {
            let file = fs.open(path)?;
            file.set_len(0)?;
            Ok(file)
        };
        let file = open().map_err(|error| io(path, error))?;
        Ok(Output { path, file, offset: 0 })
    }

    fn record(&mut self, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER + payload.len());
        codec::put_record(&mut bytes, VERSION, payload);
        self.file.write_all_at(&bytes, self.offset).map_err(|error| io(self.path, error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<u64> {
        self.file.sync().map_err(|error| io(self.path, error))?;
        Ok(self.offset)
    }
}

/// A file being read.
#[derive(Debug)]
struct Input {
    path: PathBuf,
    file: Arc<dyn File>,
    offset: u64,
    len: u64,
}

impl Input {
    fn begin(fs: &dyn Fs, path: &Path) -> Result<Input> {
        let open = || {
            let file = fs.open(path)?;
            let len = file.len()?;
            Ok((file, len))
        };
        let (file, len) = open().map_err(|error| io(path, error))?;
        Ok(Input { path: path.to_owned(), file, offset: 0, len })
    }

    /// The payload of the next record.
    fn record(&mut self) -> Result<Bytes> {
        let mut frame = [0; 4];
        self.read(&mut frame)?;
        let len = u32::from_be_bytes(frame) as usize;
        if RECORD_BYTES_MAX < len {
            return Err(damaged(&self.path, DecodeError::Invalid("length of a record")));
        }
        // The length counts the version, which is the last byte of the header.
        let mut bytes = vec![0; RECORD_HEADER - 1 + len];
        self.read(&mut bytes)?;
        let (_, payload, read) =
            codec::get_record(&bytes).map_err(|error| damaged(&self.path, error))?;
        let (start, len) = (payload.as_ptr() as usize - bytes.as_ptr() as usize, payload.len());
        self.offset += read as u64;
        Ok(Bytes::from(bytes).slice(start..start + len))
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        if self.len < self.offset + bytes.len() as u64 {
            return Err(damaged(&self.path, DecodeError::Invalid("end of file")));
        }
        self.file.read_exact_at(bytes, self.offset).map_err(|error| io(&self.path, error))
    }
}

/// The chunks of a file.
#[derive(Debug)]
struct FileSource {
    input: Input,
    pairs: u64,
    safe_point: TimeStamp,
}

impl SnapshotSource for FileSource {
    fn safe_point(&self) -> TimeStamp {
        self.safe_point
    }

    fn next(&mut self) -> Result<Option<Pairs>> {
        let payload = self.input.record()?;
        let mut reader = Reader::new(&payload);
        let parsed = (|| match reader.u8()? {
            CHUNK => {
                let cf = Cf::from_byte(reader.u8()?).ok_or(DecodeError::Invalid("family"))?;
                let count = reader.u32()?;
                let mut pairs = Vec::new();
                for _ in 0..count {
                    pairs.push((cf, reader.owned()?, reader.owned()?));
                }
                reader.finish().map(|()| Some(pairs))
            }
            END if reader.u64()? == self.pairs => Ok(None),
            END => Err(DecodeError::Invalid("number of pairs")),
            _ => Err(DecodeError::Invalid("kind of record")),
        })()
        .map_err(|error| damaged(&self.input.path, error))?;
        self.pairs += parsed.as_ref().map_or(0, |pairs: &Pairs| pairs.len() as u64);
        Ok(parsed)
    }
}

fn io(path: &Path, error: std::io::Error) -> Error {
    Error::Engine(engine::Error::Io {
        operation: "use of a snapshot",
        path: path.to_owned(),
        source: Arc::new(error),
    })
}

fn damaged(path: &Path, error: DecodeError) -> Error {
    Error::Engine(engine::Error::Corrupt { path: path.to_owned(), detail: error.to_string() })
}
