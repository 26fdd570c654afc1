//! The folder of one store or scheduler member: its `FORMAT` file and its lock.
//!
//! `FORMAT` says what lies in the folder and in which format, so that a process started with other settings, against
//! another cluster, or by an older program refuses with a sentence instead of reading bytes that it misunderstands.
//! `LOCK` is held from the first look to the last write, so that two processes never share a folder.
//!
//! Invariant: `FORMAT` is written last. A folder that has it is complete; one that has not was never finished, holds
//! nothing that anybody was told of, and may be begun again.
//!
//! docs/formats.md describes the bytes. What lies in the folder beside these two files is the business of others.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use runtime::{Fs, fs::FileLock};
use types::{
    ApiMode, ClusterId, StoreId,
    codec::{self, DecodeError, Reader, Writer},
};

use crate::{Error, Kind, Result};

/// The newest format of a data directory that this program knows, and the one it creates. 1: a store without a Raft log,
/// whose engine is synced for each write. 2: the regions of a store have logs; nothing else differs.
pub const FORMAT_VERSION: u32 = 2;

/// The oldest format that this program can upgrade.
const OLDEST_FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";

/// The first bytes of a `FORMAT` file, in every format for ever.
const MAGIC: &[u8; 8] = b"TINYKV\r\n";

/// The version of the record in `FORMAT`. Its first field is the format version, for ever.
const RECORD_VERSION: u8 = 1;

/// The engine byte of a scheduler, which has none.
const NO_ENGINE: u8 = 0xFF;

/// Names that an unfinished creation, or the machine, may leave in a folder without `FORMAT`.
const LEFTOVERS: [&str; 8] =
    [LOCK_FILE, "FORMAT.tmp", "engine", "raft", "snapshots", "LOG-", "SNAPSHOT", "lost+found"];

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A store, with its data in an engine.
    Store {
        /// Which store.
        id: StoreId,
        /// Which engine.
        engine: Kind,
    },
    /// A member of the scheduler.
    Scheduler {
        /// Which member.
        id: u64,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Store { id, .. } => write!(f, "store {id}"),
            Owner::Scheduler { id } => write!(f, "scheduler member {id}"),
        }
    }
}

/// What `FORMAT` says besides the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Which commands the cluster takes, and how their keys lie on disk.
    pub api_mode: ApiMode,
    /// The store or scheduler member.
    pub owner: Owner,
}

/// What a process expects to find. `None`: anything will do, the process takes what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The role of the process.
    pub role: Role,
    /// The cluster it was told to join.
    pub cluster_id: Option<ClusterId>,
    /// The API mode it was configured with.
    pub api_mode: Option<ApiMode>,
}

/// The role of a process, as it expects it of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A store that was configured with this engine.
    Store {
        /// Which engine; `None` takes the one that is there.
        engine: Option<Kind>,
    },
    /// A scheduler member.
    Scheduler,
}

impl Expected {
    /// Says in which way `found` is not what was expected, and what to do about it.
    fn refuse(&self, found: &Identity) -> Option<String> {
        match (self.role, found.owner) {
            (Role::Store { .. }, Owner::Store { .. })
            | (Role::Scheduler, Owner::Scheduler { .. }) => {}
            (Role::Store { .. }, Owner::Scheduler { .. }) => {
                return Some(
                    "belongs to a scheduler, not to a store: choose another folder".into(),
                );
            }
            (Role::Scheduler, Owner::Store { .. }) => {
                return Some(
                    "belongs to a store, not to a scheduler: choose another folder".into(),
                );
            }
        }
        if let Role::Store { engine: Some(expected) } = self.role
            && let Owner::Store { engine, .. } = found.owner
            && engine != expected
        {
            return Some(format!(
                "was created with engine {engine}, not {expected}: set storage.engine = \"{engine}\", or choose an \
                 empty folder"
            ));
        }
        if let Some(expected) = self.api_mode
            && expected != found.api_mode
        {
            let mode = found.api_mode;
            return Some(format!(
                "was created with storage.api = \"{mode}\", not \"{expected}\", and the mode of a cluster never \
                 changes: set storage.api = \"{mode}\", or choose an empty folder"
            ));
        }
        match self.cluster_id {
            Some(expected) if expected != found.cluster_id => Some(format!(
                "belongs to {} of cluster {}, not of cluster {expected}: use the scheduler of cluster {}, or choose \
                 an empty folder",
                found.owner, found.cluster_id, found.cluster_id
            )),
            _ => None,
        }
    }
}

/// A folder that no other process can open, and whose `FORMAT` was read, but not yet compared with anything.
///
/// Those who must ask somebody for their ids before they can create the folder hold this meanwhile.
#[derive(Debug)]
pub struct LockedDir {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    lock: FileLock,
    found: Option<(u32, Identity)>,
}

impl LockedDir {
    /// Creates the folder if it is missing, takes its lock and reads `FORMAT` if it is there.
    ///
    /// # Errors
    /// `Locked`; `Mismatch` for a folder with other people's files, which is not touched; `NewerFormat`; `Corrupt`;
    /// `Io`.
    pub fn lock(fs: Arc<dyn Fs>, path: &Path) -> Result<LockedDir> {
        refuse_foreign(&*fs, path)?;
        create_durably(&*fs, path)?;
        let lock_path = path.join(LOCK_FILE);
        let taken = fs.lock(&lock_path).map_err(|error| failed("lock", &lock_path, error))?;
        let Some(lock) = taken else {
            return Err(Error::Locked { path: path.to_owned(), holder: holder(&*fs, &lock_path) });
        };
        let format_path = path.join(FORMAT_FILE);
        let bytes = fs.read(&format_path).map_err(|error| failed("read", &format_path, error))?;
        let found = bytes.map(|bytes| decode(&bytes, &format_path)).transpose()?;
        Ok(LockedDir { fs, path: path.to_owned(), lock, found })
    }

    /// Whether the folder has no `FORMAT` yet: [`create`](LockedDir::create) it, do not [`open`](LockedDir::open) it.
    pub fn is_new(&self) -> bool {
        self.found.is_none()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Declares the folder complete: writes `FORMAT`, durably. Everything else in it must be durable already.
    ///
    /// # Errors
    /// `Mismatch` if it has a `FORMAT` file; `Io`.
    pub fn create(self, identity: Identity) -> Result<DataDir> {
        if let Some((_, found)) = self.found {
            return Err(Error::Mismatch {
                detail: format!(
                    "belongs to {} of cluster {} already",
                    found.owner, found.cluster_id
                ),
                path: self.path,
            });
        }
        let format_path = self.path.join(FORMAT_FILE);
        self.fs
            .replace(&format_path, &encode(FORMAT_VERSION, &identity))
            .map_err(|error| failed("write", &format_path, error))?;
        Ok(DataDir { path: self.path, identity, _lock: self.lock })
    }

    /// Compares `FORMAT` with what the caller expects, and upgrades an older format.
    ///
    /// `upgrade` is called once for each step from an older format to the next, with the older one. It must make that
    /// step as one atomic batch that does no harm when it is done twice: a crash may come before `FORMAT` is changed.
    /// Nothing is touched before the comparison.
    ///
    /// # Errors
    /// `Mismatch` with the remedy, also when there is no `FORMAT`; `Io`; what `upgrade` returns.
    pub fn open(
        self,
        expected: &Expected,
        upgrade: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<DataDir> {
        self.open_as(FORMAT_VERSION, expected, upgrade)
    }

    fn open_as(
        self,
        known: u32,
        expected: &Expected,
        upgrade: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<DataDir> {
        let mismatch = |detail: String| Error::Mismatch { path: self.path.clone(), detail };
        let Some((version, identity)) = self.found else {
            return Err(mismatch("is not a data directory: it has no FORMAT file".into()));
        };
        if let Some(detail) = expected.refuse(&identity) {
            return Err(mismatch(detail));
        }
        for older in version..known {
            upgrade(older)?;
            let format_path = self.path.join(FORMAT_FILE);
            self.fs
                .replace(&format_path, &encode(older + 1, &identity))
                .map_err(|error| failed("write", &format_path, error))?;
        }
        Ok(DataDir { path: self.path, identity, _lock: self.lock })
    }
}

/// The folder of a store or scheduler member, held by this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    _lock: FileLock,
}

impl DataDir {
    /// Takes a new folder and declares it complete: [`LockedDir::lock`], then [`LockedDir::create`]. For those whose
    /// folder needs nothing else first.
    ///
    /// # Errors
    /// As these two.
    pub fn create(fs: Arc<dyn Fs>, path: &Path, identity: Identity) -> Result<DataDir> {
        LockedDir::lock(fs, path)?.create(identity)
    }

    /// Takes a folder that exists: [`LockedDir::lock`], then [`LockedDir::open`].
    ///
    /// # Errors
    /// As these two.
    pub fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        expected: &Expected,
        upgrade: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<DataDir> {
        LockedDir::lock(fs, path)?.open(expected, upgrade)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a store's engine lies.
    pub fn engine_path(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Whose folder it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

fn encode(version: u32, identity: &Identity) -> Vec<u8> {
    let (kind, engine, id) = match identity.owner {
        Owner::Store { id, engine } => (1, engine.to_byte(), id.0),
        Owner::Scheduler { id } => (2, NO_ENGINE, id),
    };
    let payload = Writer::new()
        .u32(version)
        .u8(kind)
        .u8(engine)
        .u64(identity.cluster_id.0)
        .u64(id)
        .u8(identity.api_mode.to_byte())
        .finish();
    let mut bytes = MAGIC.to_vec();
    codec::put_record(&mut bytes, RECORD_VERSION, &payload);
    bytes
}

/// Reads a `FORMAT` file: the format, and the identity if this program knows the format.
fn decode(bytes: &[u8], path: &Path) -> Result<(u32, Identity)> {
    let corrupt = |detail: String| Error::Corrupt { path: path.to_owned(), detail };
    let record = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| corrupt("it does not begin as a FORMAT file".into()))?;
    let (record_version, payload) = match codec::get_record(record) {
        Ok((version, payload, read)) if read == record.len() => (version, payload),
        Ok((_, _, read)) => return Err(corrupt(format!("{} bytes too many", record.len() - read))),
        Err(error) => return Err(corrupt(error.to_string())),
    };
    let mut fields = Reader::new(payload);
    let invalid = |error: DecodeError| corrupt(error.to_string());
    let version = fields.u32().map_err(invalid)?;
    // The checksum was right, so a greater number is the truth and not a flipped bit.
    if version > FORMAT_VERSION || record_version > RECORD_VERSION {
        let dir = path.parent().unwrap_or(path).to_owned();
        return Err(Error::NewerFormat { path: dir, found: version, known: FORMAT_VERSION });
    }
    if version < OLDEST_FORMAT {
        return Err(corrupt(format!("format {version} never existed")));
    }
    let identity =
        decode_identity(&mut fields).and_then(|identity| fields.finish().map(|()| identity));
    Ok((version, identity.map_err(invalid)?))
}

fn decode_identity(fields: &mut Reader<'_>) -> Result<Identity, DecodeError> {
    let (kind, engine) = (fields.u8()?, fields.u8()?);
    let (cluster_id, id) = (ClusterId(fields.u64()?), fields.u64()?);
    let api_mode = ApiMode::from_byte(fields.u8()?).ok_or(DecodeError::Invalid("API mode"))?;
    let owner = match kind {
        1 => Owner::Store {
            id: StoreId(id),
            engine: Kind::from_byte(engine).ok_or(DecodeError::Invalid("engine"))?,
        },
        2 if engine == NO_ENGINE => Owner::Scheduler { id },
        _ => return Err(DecodeError::Invalid("kind of data directory")),
    };
    Ok(Identity { cluster_id, api_mode, owner })
}

/// Refuses a folder that has files and no `FORMAT`, unless they are what an unfinished creation leaves.
fn refuse_foreign(fs: &dyn Fs, path: &Path) -> Result<()> {
    let read_failed = |error| failed("read", path, error);
    if !fs.exists(path).map_err(read_failed)?
        || fs.exists(&path.join(FORMAT_FILE)).map_err(read_failed)?
    {
        return Ok(());
    }
    let entries = fs.list(path).map_err(read_failed)?;
    let names =
        entries.iter().filter_map(|entry| entry.file_name()).map(|name| name.to_string_lossy());
    match names.into_iter().find(|name| !is_leftover(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Mismatch {
            path: path.to_owned(),
            detail: format!(
                "has no FORMAT file but other files (\"{name}\"): choose an empty folder"
            ),
        }),
    }
}

fn is_leftover(name: &str) -> bool {
    LEFTOVERS.iter().any(|&leftover| match leftover.ends_with('-') {
        true => name.starts_with(leftover),
        false => name == leftover || name.strip_suffix(".tmp") == Some(leftover),
    })
}

/// Creates the folder and those above it, and makes their names durable.
fn create_durably(fs: &dyn Fs, path: &Path) -> Result<()> {
    let create_failed = |error| failed("creation", path, error);
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if fs.exists(dir).map_err(create_failed)? {
            break;
        }
        missing.push(dir);
    }
    fs.create_dir_all(path).map_err(create_failed)?;
    for dir in missing {
        fs.sync_dir(dir.parent().unwrap_or(Path::new(""))).map_err(create_failed)?;
    }
    Ok(())
}

/// What the lock file says about who holds it. It may be empty: the holder writes it after it has the lock.
fn holder(fs: &dyn Fs, lock_path: &Path) -> String {
    let line = fs.read(lock_path).ok().flatten().unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    match line.lines().next() {
        Some(line) if !line.trim().is_empty() => line.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Io { operation, path: path.to_owned(), source: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use runtime::{Rng, real::RealFs, sim::SimFs};

    use super::*;

    const STORE: Identity = Identity {
        cluster_id: ClusterId(0x0102_0304_0506_0708),
        api_mode: ApiMode::V2,
        owner: Owner::Store { id: StoreId(4), engine: Kind::Fjall },
    };
    const SCHEDULER: Identity = Identity {
        cluster_id: ClusterId(9),
        api_mode: ApiMode::V1,
        owner: Owner::Scheduler { id: 1 },
    };
    const ANY_STORE: Expected =
        Expected { role: Role::Store { engine: None }, cluster_id: None, api_mode: None };
    const ANY_SCHEDULER: Expected =
        Expected { role: Role::Scheduler, cluster_id: None, api_mode: None };

    fn sim() -> (SimFs, Arc<dyn Fs>) {
        let fs = SimFs::new();
        (fs.clone(), Arc::new(fs))
    }

    fn dir() -> &'static Path {
        Path::new("/data/store-1")
    }

    fn open(fs: &Arc<dyn Fs>, expected: &Expected) -> Result<DataDir> {
        DataDir::open(Arc::clone(fs), dir(), expected, &mut |_| panic!("nothing to upgrade"))
    }

    fn message<T: fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn format_has_its_golden_bytes() {
        let store = [
            b"TINYKV\r\n".as_slice(),
            &[0, 0, 0, 24],            // length of version and payload
            &[0x44, 0x8f, 0xd0, 0x25], // CRC32C
            &[1],                      // version of the record
            &[0, 0, 0, 1],             // format
            &[1, 1],                   // a store, fjall
            &[1, 2, 3, 4, 5, 6, 7, 8], // cluster
            &[0, 0, 0, 0, 0, 0, 0, 4], // store
            &[2],                      // API V2
        ]
        .concat();
        assert_eq!(encode(1, &STORE), store);
        let scheduler = encode(1, &SCHEDULER);
        assert_eq!(
            scheduler[17..],
            [0, 0, 0, 1, 2, 0xff, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0]
        );
        for identity in [STORE, SCHEDULER] {
            assert_eq!(decode(&encode(1, &identity), dir()).unwrap(), (1, identity));
        }
    }

    #[test]
    fn what_was_created_is_opened_again() {
        let (_, fs) = sim();
        let created = DataDir::create(Arc::clone(&fs), dir(), STORE).unwrap();
        assert_eq!((created.identity(), created.path()), (&STORE, dir()));
        drop(created);
        let exact = Expected {
            role: Role::Store { engine: Some(Kind::Fjall) },
            cluster_id: Some(STORE.cluster_id),
            api_mode: Some(ApiMode::V2),
        };
        assert_eq!(open(&fs, &exact).unwrap().identity(), &STORE);
        assert_eq!(open(&fs, &ANY_STORE).unwrap().engine_path(), dir().join("engine"));
        let again = message(DataDir::create(Arc::clone(&fs), dir(), STORE));
        assert!(
            again.ends_with("belongs to store 4 of cluster 72623859790382856 already"),
            "{again}"
        );
    }

    #[test]
    fn other_settings_are_refused_with_the_remedy() {
        let (_, fs) = sim();
        drop(DataDir::create(Arc::clone(&fs), dir(), STORE).unwrap());
        let refused = |expected| message(open(&fs, &expected));
        let cases = [
            (ANY_SCHEDULER, "belongs to a store, not to a scheduler"),
            (
                Expected { role: Role::Store { engine: Some(Kind::RocksDb) }, ..ANY_STORE },
                "was created with engine fjall, not rocksdb: set storage.engine = \"fjall\"",
            ),
            (Expected { api_mode: Some(ApiMode::V1), ..ANY_STORE }, "set storage.api = \"v2\""),
            (
                Expected { cluster_id: Some(ClusterId(5)), ..ANY_STORE },
                "belongs to store 4 of cluster 72623859790382856, not of cluster 5",
            ),
        ];
        for (expected, words) in cases {
            let refused = refused(expected);
            assert!(refused.starts_with("/data/store-1 ") && refused.contains(words), "{refused}");
        }
        let (_, fs) = sim();
        drop(DataDir::create(Arc::clone(&fs), dir(), SCHEDULER).unwrap());
        assert!(message(open(&fs, &ANY_STORE)).contains("belongs to a scheduler, not to a store"));
        open(&fs, &ANY_SCHEDULER).unwrap();
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        for (fs, dir) in [
            (Arc::new(SimFs::new()) as Arc<dyn Fs>, dir().to_owned()),
            (Arc::new(RealFs::new()), folder.path().join("store-1")),
        ] {
            let held = DataDir::create(Arc::clone(&fs), &dir, STORE).unwrap();
            let refused =
                DataDir::open(Arc::clone(&fs), &dir, &ANY_STORE, &mut |_| Ok(())).unwrap_err();
            match &refused {
                Error::Locked { path, holder } => {
                    assert_eq!(path, &dir);
                    assert!(holder.starts_with("pid ") && !holder.ends_with('\n'), "{holder}");
                }
                other => panic!("{other}"),
            }
            drop(held);
            DataDir::open(fs, &dir, &ANY_STORE, &mut |_| Ok(())).unwrap();
        }
    }

    #[test]
    fn a_newer_format_is_refused_even_if_the_rest_of_it_is_unknown() {
        let (_, fs) = sim();
        drop(LockedDir::lock(Arc::clone(&fs), dir()).unwrap());
        let format_path = dir().join(FORMAT_FILE);
        for (record_version, payload) in [
            (1, encode(7, &STORE)[17..].to_vec()),
            (9, Writer::new().u32(7).bytes(b"a field of format 7").finish()),
        ] {
            let mut bytes = MAGIC.to_vec();
            codec::put_record(&mut bytes, record_version, &payload);
            fs.replace(&format_path, &bytes).unwrap();
            let refused = open(&fs, &ANY_STORE).unwrap_err();
            assert!(
                matches!(refused, Error::NewerFormat { found: 7, known: FORMAT_VERSION, .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn every_damage_is_noticed_and_none_is_taken_for_a_newer_format() {
        let whole = encode(1, &STORE);
        let check = |bytes: &[u8]| match decode(bytes, dir()) {
            Err(Error::Corrupt { .. }) => {}
            other => panic!("{other:?} for {bytes:?}"),
        };
        (0..whole.len()).for_each(|cut| check(&whole[..cut]));
        check(&[&whole[..], &[0]].concat());
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            check(&damaged);
        }
        check(&encode(0, &STORE));
    }

    #[test]
    fn an_older_format_is_upgraded_step_by_step() {
        let (sim, fs) = sim();
        drop(DataDir::create(Arc::clone(&fs), dir(), STORE).unwrap());
        fs.replace(&dir().join(FORMAT_FILE), &encode(1, &STORE)).unwrap();
        let locked = |fs: &Arc<dyn Fs>| LockedDir::lock(Arc::clone(fs), dir()).unwrap();
        let format = |fs: &dyn Fs| fs.read(&dir().join(FORMAT_FILE)).unwrap().unwrap();

        // Nothing is touched before the comparison.
        let refused = locked(&fs).open_as(3, &ANY_SCHEDULER, &mut |_| panic!("touched"));
        assert!(refused.is_err());

        // A step that fails stops there, and a crash after the first step leaves format 2.
        let mut steps = Vec::new();
        let failed = locked(&fs).open_as(3, &ANY_STORE, &mut |older| {
            steps.push(older);
            if older == 2 { Err(Error::DiskFull { path: dir().to_owned() }) } else { Ok(()) }
        });
        assert!(matches!(failed, Err(Error::DiskFull { .. })));
        assert_eq!(steps, [1, 2]);
        let after_crash = sim.crash(&mut Rng::new(1));
        assert_eq!(format(&after_crash), encode(2, &STORE));
    }

    #[test]
    fn folders_of_others_are_not_touched() {
        let (sim, fs) = sim();
        fs.create_dir_all(dir()).unwrap();
        fs.open(&dir().join("notes.txt")).unwrap();
        let before = sim.operations();
        let refused = message(LockedDir::lock(Arc::clone(&fs), dir()));
        assert!(refused.contains("(\"notes.txt\"): choose an empty folder"), "{refused}");
        assert_eq!(sim.operations(), before);
        let not_there =
            message(DataDir::open(fs, Path::new("/empty"), &ANY_STORE, &mut |_| Ok(())));
        assert_eq!(not_there, "/empty is not a data directory: it has no FORMAT file");
    }

    #[test]
    fn a_creation_that_a_crash_cuts_short_is_begun_again() {
        let mut rng = Rng::new(5);
        let mut unfinished = 0;
        for operations in 0.. {
            let (sim, fs) = sim();
            sim.cut_power_after(operations);
            let done = DataDir::create(fs, dir(), STORE).is_ok();
            for _ in 0..20 {
                let fs: Arc<dyn Fs> = Arc::new(sim.crash(&mut rng));
                let locked = LockedDir::lock(fs, dir()).unwrap();
                if locked.is_new() {
                    assert!(!done, "it was created, and is gone");
                    unfinished += 1;
                    locked.create(STORE).unwrap();
                } else {
                    locked.open(&ANY_STORE, &mut |_| Ok(())).unwrap();
                }
            }
            if done {
                break;
            }
        }
        assert!(unfinished > 20, "the crashes came too late to prove anything");
    }

    #[test]
    fn leftovers_are_known_by_name() {
        for name in ["LOCK", "FORMAT.tmp", "LOG-12", "SNAPSHOT.tmp", "engine", "lost+found"] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["LOCKS", "engines", "photos", "LOG", ".git"] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
