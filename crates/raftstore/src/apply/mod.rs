//! Applies committed entries of many regions: one engine batch for all of them.
//!
//! The [`Applier`] owns what is applied. It reads no log and sends nothing: it is given entries in order, changes the
//! engine, and says what came of them. Data, region state and apply state of an entry are in one batch (invariant 10 of
//! docs/ARCHITECTURE.md), which is not synced: the Raft log is the journal, and what a crash takes is applied again.
//!
//! The effect of an entry depends on the entry and the state before it alone. It is refused if the region has changed
//! since it was proposed; a failing engine stops the store. There is no third way.

mod admin;
mod changes;
mod region;

use std::{collections::BTreeMap, fmt, sync::Arc};

use engine::{Engine, Family, WriteBatch};
use raft::{ConfChange, Entry, EntryKind};
use types::{
    Bytes, Cf, KeyRange, PeerId, Region, RegionId, TimeStamp, limits,
    marks::{mutant, sometimes},
};

use crate::{
    command::Payload,
    error::{Error, Result},
    hash::HashJob,
    snapshot::SnapshotSource,
    state::{self, ApplyState, PeerState, RegionState},
};

pub use changes::Changes;
use region::AppliedRegion;

/// What commands mean. `storage` implements it for raw and transactional commands.
pub trait Machine: Send {
    /// What a command is answered.
    type Answer: fmt::Debug + Send;

    /// Makes the changes of one command. Must depend on the command and the state only: every replica does it.
    ///
    /// # Errors
    /// Those of the engine, which stop the store. A command that makes no sense is answered so.
    fn apply(
        &mut self,
        command: &Bytes,
        changes: &mut Changes<'_>,
    ) -> Result<Self::Answer, engine::Error>;

    /// The data of a region are about to be replaced by those of another store, where versions were removed that reads
    /// below `safe_point` would need ([`Changes::raise_safe_point`]).
    fn installing(&mut self, _safe_point: TimeStamp) {}
}

/// Something to apply. Tasks are done in the order in which they were given.
#[derive(Debug)]
pub enum Task {
    /// A peer begins to live here, as the engine has it.
    Register {
        /// The region.
        region: Region,
        /// Its peer on this store.
        peer_id: PeerId,
        /// How far it is applied.
        applied: ApplyState,
    },
    /// Committed entries, without a gap after those before.
    Entries {
        /// Of this region.
        region_id: RegionId,
        /// For this peer of it.
        peer_id: PeerId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Replaces the data of a region.
    Install {
        /// The peer that the snapshot is for.
        peer_id: PeerId,
        /// The region as of the snapshot.
        region: Region,
        /// Where the snapshot stands.
        applied: ApplyState,
        /// The data.
        source: Box<dyn SnapshotSource>,
    },
    /// Removes the data of a peer that is gone.
    Destroy {
        /// The region as of its end.
        region: Region,
        /// What no other region of this store has.
        ranges: Vec<KeyRange>,
    },
    /// Removes what lies in these ranges, which no region of this store has. Nothing is said of it.
    Sweep {
        /// The ranges.
        ranges: Vec<KeyRange>,
    },
}

/// What came of a task.
#[derive(Debug)]
pub struct Applied<A> {
    /// The region.
    pub region_id: RegionId,
    /// The peer that applied it.
    pub peer_id: PeerId,
    /// What is applied now.
    pub state: ApplyState,
    /// The entries of this task that may have been waited for, in order.
    pub answers: Vec<Answered<A>>,
    /// What has changed, in order.
    pub effects: Vec<Effect>,
    /// How much was written.
    pub written: Written,
}

/// How much commands have put: by so much the region has grown at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Pairs.
    pub keys: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Written) {
        self.bytes += other.bytes;
        self.keys += other.keys;
    }
}

/// What became of an entry.
#[derive(Debug)]
pub struct Answered<A> {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What became of it.
    pub outcome: Outcome<A>,
}

/// What became of an entry.
#[derive(Debug)]
pub enum Outcome<A> {
    /// The command was carried out.
    Written(A),
    /// The region itself was changed, to this.
    Changed(Vec<Region>),
    /// The region had changed since: nothing happened.
    EpochNotMatch,
    /// The change makes no sense: nothing happened.
    Refused(&'static str),
}

/// What an entry has changed beside the data.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The core has to be told of this change of the members; the region is this now.
    Members {
        /// The change; one of nobody if it was refused.
        change: ConfChange,
        /// The region afterwards.
        region: Region,
    },
    /// The region was cut into these; the first one keeps its id.
    Split {
        /// In the order of their keys.
        regions: Vec<Region>,
    },
    /// The log is not needed up to here.
    CompactLog {
        /// The last entry.
        index: u64,
    },
    /// A snapshot has replaced the data: the region is this now.
    Installed {
        /// The region.
        region: Region,
    },
    /// The replica is to be hashed as it was.
    Hash(HashJob),
    /// The leader has hashed its own.
    VerifyHash {
        /// As of before this entry.
        index: u64,
        /// The hash.
        hash: u64,
    },
    /// The data of a peer that is gone are removed.
    Destroyed,
}

/// Applies tasks.
pub struct Applier<M> {
    engine: Arc<dyn Engine>,
    machine: M,
    regions: BTreeMap<RegionId, AppliedRegion>,
    batch: WriteBatch,
}

impl<M> fmt::Debug for Applier<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("regions", &self.regions.len()).finish_non_exhaustive()
    }
}

impl<M: Machine> Applier<M> {
    /// An applier that knows no region yet.
    pub fn new(engine: Arc<dyn Engine>, machine: M) -> Applier<M> {
        Applier { engine, machine, regions: BTreeMap::new(), batch: WriteBatch::new() }
    }

    /// Does `tasks`. When this returns, everything of them is in the engine, not synced.
    ///
    /// # Errors
    /// The engine failed, or an entry makes no sense: the store stops.
    pub fn apply(&mut self, tasks: Vec<Task>) -> Result<Vec<Applied<M::Answer>>> {
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            match task {
                Task::Register { region, peer_id, applied } => {
                    self.register(region, peer_id, applied)?;
                }
                Task::Entries { region_id, peer_id, entries } => {
                    // A peer that is gone, or whose successor lives here, applies nothing any more.
                    let Some(mut known) = self.regions.remove(&region_id) else { continue };
                    if known.peer_id == peer_id {
                        results.push(self.apply_entries(&mut known, entries)?);
                    }
                    self.regions.insert(region_id, known);
                }
                Task::Install { peer_id, region, applied, source } => {
                    results.push(self.install(peer_id, region, applied, source)?);
                }
                Task::Destroy { region, ranges } => {
                    results.push(self.destroy(region, &ranges)?);
                }
                Task::Sweep { ranges } => self.sweep(&ranges)?,
            }
        }
        self.flush()?;
        Ok(results)
    }

    fn register(&mut self, region: Region, peer_id: PeerId, applied: ApplyState) -> Result<()> {
        let id = region.id;
        // What a split has just made may not be in the engine yet.
        let safe_point = match self.regions.get(&id).filter(|known| known.peer_id == peer_id) {
            Some(known) => known.safe_point,
            None => state::safe_point(&*self.engine.snapshot()?, id)?,
        };
        self.regions.insert(id, AppliedRegion::new(region, peer_id, applied, safe_point));
        Ok(())
    }

    fn apply_entries(
        &mut self,
        known: &mut AppliedRegion,
        entries: Vec<Entry>,
    ) -> Result<Applied<M::Answer>> {
        let (region_id, peer_id) = (known.region.id, known.peer_id);
        let (mut answers, mut effects) = (Vec::new(), Vec::new());
        let mut written = Written::default();
        if mutant!("applied_index_before_its_effects")
            && let Some(last) = entries.last()
        {
            let state = ApplyState { index: last.index, term: last.term };
            state::put_apply_state(&mut self.batch, region_id, state);
            self.flush()?;
        }
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            if index <= known.applied.index || known.is_removed {
                continue;
            }
            assert_eq!(index, known.applied.index + 1, "region {region_id}: entries have a gap");
            let outcome = match entry.kind {
                EntryKind::Normal => {
                    self.apply_normal(known, &entry, &mut effects, &mut written)?
                }
                EntryKind::ConfChange => {
                    let change = ConfChange::decode(&entry.data)
                        .map_err(|error| Error::damaged(region_id, error))?;
                    Some(self.change_members(known, change, &mut effects)?)
                }
            };
            known.applied = ApplyState { index, term };
            if let Some(outcome) = outcome {
                answers.push(Answered { index, term, outcome });
            }
            if limits::WRITE_BATCH_BYTES_MAX < self.batch.bytes() {
                state::put_apply_state(&mut self.batch, region_id, known.applied);
                self.flush()?;
            }
        }
        state::put_apply_state(&mut self.batch, region_id, known.applied);
        Ok(Applied { region_id, peer_id, state: known.applied, answers, effects, written })
    }

    fn apply_normal(
        &mut self,
        known: &mut AppliedRegion,
        entry: &Entry,
        effects: &mut Vec<Effect>,
        written: &mut Written,
    ) -> Result<Option<Outcome<M::Answer>>> {
        let region_id = known.region.id;
        let payload =
            Payload::decode(&entry.data).map_err(|error| Error::damaged(region_id, error))?;
        match payload {
            Payload::Nothing => Ok(None),
            Payload::Write { version, .. }
                if version != known.region.epoch.version
                    && !mutant!("write_applied_after_a_split") =>
            {
                sometimes!("store: a write is refused when it is applied");
                Ok(Some(Outcome::EpochNotMatch))
            }
            Payload::Write { command, .. } => {
                let (applied, safe_point) = (known.applied, &mut known.safe_point);
                let (engine, batch) = (&*self.engine, &mut self.batch);
                let mut changes = Changes::new(engine, batch, region_id, applied, safe_point);
                let answer = self.machine.apply(&command, &mut changes)?;
                *written += changes.finish()?;
                Ok(Some(Outcome::Written(answer)))
            }
            Payload::Admin { epoch, command } => {
                self.apply_admin(known, epoch, command, effects, entry.index).map(Some)
            }
        }
    }

    fn install(
        &mut self,
        peer_id: PeerId,
        region: Region,
        applied: ApplyState,
        mut source: Box<dyn SnapshotSource>,
    ) -> Result<Applied<M::Answer>> {
        let region_id = region.id;
        let safe_point = source.safe_point();
        self.machine.installing(safe_point);
        let before = self.regions.remove(&region_id).map(|known| known.region.range);
        // What was there may have been more than what comes.
        for range in before.iter().chain([&region.range]) {
            if !mutant!("snapshot_keeps_old_data") {
                self.clear(range)?;
            }
        }
        if mutant!("snapshot_state_before_its_data") {
            self.put_installed(&region, applied, safe_point);
            self.flush()?;
        }
        while let Some(pairs) = source.next()? {
            for (cf, key, value) in pairs {
                self.batch.put(cf, key, value);
            }
            self.flush()?;
        }
        self.put_installed(&region, applied, safe_point);
        self.flush()?;
        let known = AppliedRegion::new(region.clone(), peer_id, applied, safe_point);
        self.regions.insert(region_id, known);
        Ok(Applied {
            region_id,
            peer_id,
            state: applied,
            answers: Vec::new(),
            effects: vec![Effect::Installed { region }],
            written: Written::default(),
        })
    }

    fn put_installed(&mut self, region: &Region, applied: ApplyState, safe_point: TimeStamp) {
        let state = RegionState { state: PeerState::Normal, region: region.clone() };
        state::put_region_state(&mut self.batch, &state);
        state::put_apply_state(&mut self.batch, region.id, applied);
        match safe_point {
            TimeStamp::ZERO => state::delete_safe_point(&mut self.batch, region.id),
            safe_point => state::put_safe_point(&mut self.batch, region.id, safe_point),
        }
    }

    fn destroy(&mut self, mut region: Region, ranges: &[KeyRange]) -> Result<Applied<M::Answer>> {
        let region_id = region.id;
        let known = self.regions.remove(&region_id);
        let peer_id = known.as_ref().map_or(PeerId(0), |known| known.peer_id);
        // The store may not have heard of what was applied last: after a split the rest is other regions'.
        let own = known.map(|known| [known.region.range]);
        let ranges = match &own {
            Some(own) => {
                region.range = own[0].clone();
                &own[..]
            }
            None => ranges,
        };
        let state = RegionState { state: PeerState::Tombstone, region };
        state::put_region_state(&mut self.batch, &state);
        self.flush()?;
        for range in ranges {
            self.clear(range)?;
        }
        // From here on a start finds nothing to remove.
        state::delete_apply_state(&mut self.batch, region_id);
        state::delete_safe_point(&mut self.batch, region_id);
        Ok(Applied {
            region_id,
            peer_id,
            state: ApplyState::default(),
            answers: Vec::new(),
            effects: vec![Effect::Destroyed],
            written: Written::default(),
        })
    }

    fn sweep(&mut self, ranges: &[KeyRange]) -> Result<()> {
        self.flush()?;
        let snapshot = self.engine.snapshot()?;
        for cf in Cf::ALL {
            for range in ranges {
                if snapshot.iter(Family::from(cf), range)?.seek_to_first()? {
                    sometimes!("store: a start removes what no region has");
                    self.engine.delete_range(Family::from(cf), range)?;
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self, range: &KeyRange) -> Result<()> {
        self.flush()?;
        for cf in Cf::ALL {
            self.engine.delete_range(Family::from(cf), range)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.engine.write(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
