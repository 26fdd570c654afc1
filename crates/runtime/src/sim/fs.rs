//! A file system in memory that keeps after a crash what the contract of [`crate::fs`] promises, and no more.
//!
//! [`SimFs::crash`] draws one of the states that a power cut at this moment may leave. It does not disturb the file
//! system it is called on: a test may take a crash of every moment of one run. What was not synced is drawn part by
//! part: sectors of files (`image.rs`) and names. A name that was created, renamed or removed is either way until its
//! folder was synced; a rename is one change, never half of it.
//!
//! Faults are asked for by the test: the n-th sync fails ([`SimFs::fail_sync`]), the disk is full
//! ([`SimFs::set_capacity`]), a bit flips ([`SimFs::flip_bit`]), syncs hang ([`SimFs::hold_syncs`]), the power goes
//! after n more operations ([`SimFs::cut_power_after`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::image::{Fate, Image};
use crate::{File, Fs, Rng, fs::FileLock};

/// A file system in memory that can crash. Clones are handles to the same disk.
#[derive(Clone, Default)]
pub struct SimFs {
    disk: Arc<Disk>,
}

#[derive(Default)]
struct Disk {
    state: Mutex<State>,
    /// Announces changes of `held` and `syncs_waiting`.
    gate: Condvar,
}

#[derive(Default)]
struct State {
    /// The names as everybody sees them.
    names: BTreeMap<PathBuf, Entry>,
    /// The names that are on the disk for certain.
    synced_names: BTreeMap<PathBuf, Entry>,
    /// What happened to names whose folder was not synced since, in order.
    name_changes: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    /// Syncs that still succeed before one fails.
    syncs_until_failure: Option<u64>,
    supply: Supply,
    held: bool,
    syncs_waiting: usize,
    operations: u64,
    syncs: u64,
}

#[derive(Clone)]
enum Entry {
    Dir,
    File(Arc<Mutex<Image>>),
}

/// `entry` appeared as `to`, or disappeared, or both at once.
struct NameChange {
    from: Option<PathBuf>,
    to: Option<PathBuf>,
    entry: Entry,
}

/// The power supply.
#[derive(Clone, Copy, Default)]
enum Supply {
    #[default]
    Steady,
    /// It goes during the operation after so many more.
    CutAfter(u64),
    Off,
}

/// What the power supply has to say about an operation.
#[derive(PartialEq)]
enum Power {
    On,
    /// It goes during this operation: writes have happened, and nothing vouches for them.
    Failing,
}

impl SimFs {
    /// An empty disk.
    pub fn new() -> SimFs {
        SimFs::default()
    }

    /// A disk that a power cut at this moment may leave. This one goes on undisturbed.
    pub fn crash(&self, rng: &mut Rng) -> SimFs {
        let state = self.state();
        let mut names = state.synced_names.clone();
        let fate = Fate::draw(rng);
        for change in &state.name_changes {
            let kept = match fate {
                Fate::AllOld => false,
                Fate::AllNew => true,
                Fate::Mixed => rng.chance(0.5),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        // What lies in a folder that was lost is lost.
        let reachable: BTreeSet<PathBuf> = names
            .keys()
            .filter(|path| {
                path.ancestors().skip(1).all(|dir| is_root(dir) || names.contains_key(dir))
            })
            .cloned()
            .collect();
        names.retain(|path, _| reachable.contains(path));
        for entry in names.values_mut() {
            if let Entry::File(image) = entry {
                let left = lock(image).crash(rng);
                *entry = Entry::File(Arc::new(Mutex::new(Image::synced(left))));
            }
        }
        let state = State { synced_names: names.clone(), names, ..State::default() };
        SimFs { disk: Arc::new(Disk { state: Mutex::new(state), gate: Condvar::new() }) }
    }

    /// Lets `successes` more syncs (of files or folders) succeed and the one after fail. Later ones succeed again, but
    /// do not cover what the failed one should have covered.
    pub fn fail_sync(&self, successes: u64) {
        self.state().syncs_until_failure = Some(successes);
    }

    /// Limits the bytes of all files together. A write that exceeds it writes what fits, then fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Turns one bit of a stored file. Nothing happens beyond its end.
    ///
    /// # Errors
    /// There is no such file.
    pub fn flip_bit(&self, path: &Path, bit: usize) -> io::Result<()> {
        lock(&*self.state().file(path)?).flip_bit(bit);
        Ok(())
    }

    /// Lets every sync hang from now on.
    pub fn hold_syncs(&self) {
        self.state().held = true;
    }

    /// Lets the hanging syncs go on, and later ones pass.
    pub fn release_syncs(&self) {
        self.state().held = false;
        self.disk.gate.notify_all();
    }

    /// Returns once a sync hangs.
    pub fn wait_for_held_sync(&self) {
        let state = self.state();
        let waited = self.disk.gate.wait_while(state, |state| state.syncs_waiting == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Cuts the power during the operation that comes after `operations` more. From then on everything fails; only
    /// [`crash`](SimFs::crash) is of use.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().supply = Supply::CutAfter(operations);
    }

    /// Operations so far that change something or sync.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs so far, of files and folders, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.disk.state()
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts a sync, waits while syncs are held, and says whether it succeeds.
    fn pass_sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.operate()? == Power::Failing {
            return Err(power_is_off());
        }
        state.syncs += 1;
        let fails = match &mut state.syncs_until_failure {
            Some(0) => {
                state.syncs_until_failure = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if state.held {
            state.syncs_waiting += 1;
            self.gate.notify_all();
            let waited = self.gate.wait_while(state, |state| state.held);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.syncs_waiting -= 1;
            state.check_power()?;
        }
        if fails { Err(io::Error::other("the disk reports an error (injected)")) } else { Ok(()) }
    }
}

impl State {
    fn operate(&mut self) -> io::Result<Power> {
        self.check_power()?;
        self.operations += 1;
        match &mut self.supply {
            Supply::CutAfter(0) => {
                self.supply = Supply::Off;
                Ok(Power::Failing)
            }
            Supply::CutAfter(left) => {
                *left -= 1;
                Ok(Power::On)
            }
            Supply::Steady | Supply::Off => Ok(Power::On),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if matches!(self.supply, Supply::Off) { Err(power_is_off()) } else { Ok(()) }
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Image>>> {
        match self.names.get(path) {
            Some(Entry::File(image)) => Ok(Arc::clone(image)),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        match self.names.get(dir) {
            _ if is_root(dir) => Ok(()),
            Some(Entry::Dir) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn room(&self) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let used: u64 = self
            .names
            .values()
            .map(|entry| match entry {
                Entry::File(image) => lock(image).len() as u64,
                Entry::Dir => 0,
            })
            .sum();
        capacity.saturating_sub(used)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        // After a crash the old name may belong to something that was created there later.
        if let Some(from) = &self.from
            && names.get(from).is_some_and(|entry| entry.is(&self.entry))
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.entry.clone());
        }
    }

    /// Whether a sync of `dir` makes it durable.
    fn belongs_to(&self, dir: &Path) -> bool {
        self.to.as_ref().or(self.from.as_ref()).is_some_and(|path| parent(path) == dir)
    }
}

impl Entry {
    fn is(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Dir, Entry::Dir) => true,
            (Entry::File(a), Entry::File(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|dir| state.check_dir(dir).is_err()).collect();
        for dir in missing.into_iter().rev() {
            if state.names.contains_key(dir) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let power = state.operate()?;
            state.change_name(NameChange {
                from: None,
                to: Some(dir.to_owned()),
                entry: Entry::Dir,
            });
            power.check()?;
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.check_power()?;
        if !state.names.contains_key(path) {
            state.check_dir(parent(path))?;
            let power = state.operate()?;
            let entry = Entry::File(Arc::default());
            state.change_name(NameChange { from: None, to: Some(path.to_owned()), entry });
            power.check()?;
        }
        let image = state.file(path)?;
        Ok(Arc::new(SimFile { disk: Arc::clone(&self.disk), image }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.check_power()?;
        Ok(is_root(path) || state.names.contains_key(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        state.check_power()?;
        state.check_dir(dir)?;
        Ok(state.names.keys().filter(|path| parent(path) == dir).cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let image = state.file(from)?;
        state.check_dir(parent(to))?;
        if matches!(state.names.get(to), Some(Entry::Dir)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let power = state.operate()?;
        let (from, to) = (Some(from.to_owned()), Some(to.to_owned()));
        state.change_name(NameChange { from, to, entry: Entry::File(image) });
        power.check()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let image = state.file(path)?;
        let power = state.operate()?;
        state.change_name(NameChange {
            from: Some(path.to_owned()),
            to: None,
            entry: Entry::File(image),
        });
        power.check()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().check_dir(dir)?;
        self.disk.pass_sync()?;
        let mut state = self.state();
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes {
            if change.belongs_to(dir) {
                change.apply(&mut state.synced_names);
            } else {
                state.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        let file = self.open(path)?;
        if !self.state().locked.insert(path.to_owned()) {
            return Ok(None);
        }
        let lock = FileLock::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned() });
        let holder = b"pid 1, simulated\n";
        file.set_len(holder.len() as u64)?;
        file.write_all_at(holder, 0)?;
        Ok(Some(lock))
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.state().names.keys()).finish()
    }
}

impl Power {
    fn check(self) -> io::Result<()> {
        if self == Power::On { Ok(()) } else { Err(power_is_off()) }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off (injected)")
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The folders that are always there: `/` and the current one.
fn is_root(dir: &Path) -> bool {
    dir == Path::new("") || dir == Path::new("/") || dir == Path::new(".")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct SimFile {
    disk: Arc<Disk>,
    image: Arc<Mutex<Image>>,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state().check_power()?;
        Ok(lock(&self.image).len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state().check_power()?;
        lock(&self.image).read(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let power = state.operate()?;
        let room = state.room();
        let mut image = lock(&self.image);
        let fits = (image.len() as u64).saturating_add(room).saturating_sub(offset);
        let written = bytes.len().min(usize::try_from(fits).unwrap_or(usize::MAX));
        image.write(&bytes[..written], offset)?;
        power.check()?;
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let power = state.operate()?;
        let room = state.room();
        let mut image = lock(&self.image);
        if (image.len() as u64).saturating_add(room) < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        image.set_len(len)?;
        power.check()
    }

    fn sync(&self) -> io::Result<()> {
        let began = lock(&self.image).begin_sync();
        let result = self.disk.pass_sync();
        let mut image = lock(&self.image);
        match &result {
            Ok(()) => image.finish_sync(began),
            Err(_) => image.fail_sync(began),
        }
        result
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({} bytes)", lock(&self.image).len())
    }
}

/// A taken lock; frees it when dropped.
struct SimLock {
    disk: Arc<Disk>,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}
