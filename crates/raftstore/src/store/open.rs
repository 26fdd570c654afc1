//! A store as its disk remembers it.
//!
//! The engine is not synced when entries are applied, so that after a crash it may lie behind the log, and the log is
//! replayed from where it is. Three things must hold, or the store refuses to start:
//!
//! - what the engine has applied was in the log: entries between the two are never missing;
//! - if the log of a region begins after what is applied, a snapshot was being installed, and its file is there, also if
//!   the engine knows of an earlier peer only, which was destroyed;
//! - a log without a region is one of a split that the engine has lost: it is made again when the entry is applied. If it
//!   stands where a snapshot does that was received and refused before the split came, the region's keys tell: those that
//!   are another region's here come by the split.

use std::{collections::VecDeque, sync::Arc};

use engine::{
    Engine, WriteBatch,
    raft_log::{LogBatch, RaftLog},
};
use types::{Bytes, KeyRange, Region, RegionId, marks::sometimes};

use super::{Destroying, Output, Store, life::first_log};
use crate::{
    apply::Task,
    config::StoreConfig,
    error::{Error, Result},
    peer::Peer,
    snapshot::Snapshots,
    state::{self, ApplyState, FIRST_INDEX, PeerState},
};

/// Writes the first regions of a store, each with one peer, in one batch, and syncs it.
///
/// # Errors
/// The engine failed.
pub fn bootstrap(engine: &dyn Engine, regions: &[Region]) -> Result<()> {
    let mut batch = WriteBatch::new();
    for region in regions {
        let normal = state::RegionState { state: PeerState::Normal, region: region.clone() };
        state::put_region_state(&mut batch, &normal);
        state::put_apply_state(&mut batch, region.id, ApplyState::FIRST);
    }
    engine.write(batch)?;
    engine.sync()?;
    Ok(())
}

impl<A> Store<A> {
    /// The store that `engine`, `log` and `snapshots` remember. Its first outputs come with the first
    /// [`Store::turn`].
    ///
    /// # Errors
    /// What is remembered contradicts itself; the error says what to do.
    pub fn open(
        config: StoreConfig,
        engine: Arc<dyn Engine>,
        log: RaftLog,
        snapshots: &Snapshots,
        rng: runtime::Rng,
    ) -> Result<Store<A>> {
        // A killed process may have left what is not on disk yet. Logs and files are removed below because the engine has
        // what they were for: the next crash must not take it.
        engine.sync()?;
        let mut store = Store {
            config,
            engine,
            log,
            rng,
            peers: Default::default(),
            ranges: Default::default(),
            dirty: Default::default(),
            awake: Default::default(),
            sleepers: Default::default(),
            flying: Default::default(),
            destroying: Default::default(),
            unsettled: Vec::new(),
            early: VecDeque::new(),
            after_sync: Vec::new(),
            syncing: None,
            reporting: Default::default(),
            grown: Default::default(),
            to_check: Default::default(),
            checking: 0,
            snapshots: Default::default(),
            is_disk_full: false,
            ticks: 0,
            out: Vec::new(),
        };
        let snapshot = store.engine.snapshot()?;
        let found = state::region_states(&*snapshot)?;
        let live: Vec<&Region> = found
            .iter()
            .filter(|found| found.state == PeerState::Normal)
            .map(|found| &found.region)
            .collect();
        for found in &found {
            let applied = state::apply_state(&*snapshot, found.region.id)?;
            match found.state {
                PeerState::Tombstone => {
                    store.finish_tombstone(&found.region, applied, &live, snapshots)?;
                }
                PeerState::Normal => {
                    let applied = applied.unwrap_or(ApplyState::FIRST);
                    store.open_peer(found.region.clone(), applied, snapshots)?;
                }
            }
        }
        store.open_orphans(snapshots)?;
        if !found.is_empty() {
            store.sweep();
        }
        let installing = store.peers.values().filter_map(|peer| peer.installing.as_ref());
        let needed = installing.map(|found| (found.region.id, found.applied)).collect();
        snapshots.remove_all_but(&needed)?;
        Ok(store)
    }

    /// Has removed what no region has. A crash can take that a snapshot has made a region smaller: what it no longer has is
    /// then nobody's, when the snapshot is installed again.
    fn sweep(&mut self) {
        let mut ranges = Vec::new();
        let mut start = Some(Bytes::new());
        for id in self.ranges.values() {
            let Some(peer) = self.peers.get(id) else { continue };
            let range = &peer.region.range;
            if let Some(start) = start.filter(|start| *start < range.start) {
                ranges.push(KeyRange::new(start, range.start.clone()));
            }
            start = Some(range.end.clone()).filter(|end| !end.is_empty());
        }
        ranges.extend(start.map(|start| KeyRange::new(start, Bytes::new())));
        if !ranges.is_empty() {
            self.out.push(Output::Apply(Task::Sweep { ranges }));
        }
    }

    /// A peer was destroyed, and perhaps not all of it was removed.
    fn finish_tombstone(
        &mut self,
        region: &Region,
        applied: Option<ApplyState>,
        live: &[&Region],
        snapshots: &Snapshots,
    ) -> Result<()> {
        if applied.is_none() {
            let Some(bounds) = self.log.bounds(region.id.0) else { return Ok(()) };
            if bounds.base_index < FIRST_INDEX {
                // The votes of a later peer that has no data yet.
                return Ok(());
            }
            let stands = ApplyState { index: bounds.base_index, term: bounds.base_term };
            let own = |region: &Region| region.peer_on(self.config.store_id).map(|peer| peer.id);
            // The log may be that of a later peer, which has acknowledged it.
            if let Some(descriptor) = snapshots.find_received(region.id, stands)?
                && own(region) < own(&descriptor.region)
            {
                return self.install_again(descriptor);
            }
            let mut batch = LogBatch::new();
            batch.remove(region.id.0);
            self.log.append(batch)?;
            return Ok(());
        }
        // Others may live in a part of the range by now.
        let is_free = live.iter().all(|other| other.range.intersect(&region.range).is_empty());
        let ranges = if is_free { vec![region.range.clone()] } else { Vec::new() };
        sometimes!("store: a peer is destroyed again after a crash");
        let applied = applied.unwrap_or_default();
        self.destroying.insert(region.id, Destroying { range: region.range.clone(), applied });
        self.out.push(Output::Apply(Task::Destroy { region: region.clone(), ranges }));
        Ok(())
    }

    fn open_peer(
        &mut self,
        region: Region,
        applied: ApplyState,
        snapshots: &Snapshots,
    ) -> Result<()> {
        let region_id = region.id;
        let Some(own) = region.peer_on(self.config.store_id).copied() else {
            // The state of a region is never written without the store's own peer, but as a tombstone.
            return Err(Error::Raft {
                region: region_id,
                error: raft::Error::State("the store is no member"),
            });
        };
        let bounds = self.log.bounds(region_id.0);
        let base = bounds.map_or(0, |bounds| bounds.base_index);
        if base < FIRST_INDEX {
            if applied.index != FIRST_INDEX {
                return Err(Error::Gap { region: region_id, applied: applied.index, base });
            }
            self.log.append(first_log(region_id, self.log.state(region_id.0)))?;
        }
        if let Some(bounds) = bounds
            && applied.index < bounds.base_index
        {
            let stands = ApplyState { index: bounds.base_index, term: bounds.base_term };
            let Some(descriptor) = snapshots.find_received(region_id, stands)? else {
                return Err(Error::Gap { region: region_id, applied: applied.index, base });
            };
            return self.install_again(descriptor);
        }
        if bounds.is_some_and(|bounds| FIRST_INDEX <= base && bounds.last_index < applied.index) {
            let last = bounds.map_or(0, |bounds| bounds.last_index);
            return Err(Error::Gap { region: region_id, applied: applied.index, base: last });
        }
        let task = Task::Register { region: region.clone(), peer_id: own.id, applied };
        self.out.push(Output::Apply(task));
        let alone = region.peers.len() == 1;
        let start = region.range.start.clone();
        let rng = self.rng.fork();
        let mut peer = Peer::new(&self.config, self.log.clone(), own.id, region, applied, rng)?;
        if alone {
            peer.node.campaign();
        }
        self.ranges.insert(start, region_id);
        self.peers.insert(region_id, peer);
        self.wake(region_id);
        Ok(())
    }

    /// A crash came between the log, which begins after a snapshot, and the engine, which does not have it.
    fn install_again(&mut self, descriptor: crate::snapshot::Descriptor) -> Result<()> {
        sometimes!("store: a snapshot is installed again after a crash");
        let region = descriptor.region.clone();
        let Some(own) = region.peer_on(self.config.store_id).copied() else {
            return Err(Error::Raft {
                region: region.id,
                error: raft::Error::State("the snapshot is for another store"),
            });
        };
        let (region_id, applied) = (region.id, descriptor.applied);
        let rng = self.rng.fork();
        let mut peer =
            Peer::new(&self.config, self.log.clone(), own.id, region.clone(), applied, rng)?;
        peer.installing = Some(descriptor.clone());
        self.ranges.insert(region.range.start, region_id);
        self.peers.insert(region_id, peer);
        self.wake(region_id);
        self.out.push(Output::Install { peer_id: own.id, descriptor });
        Ok(())
    }

    /// Logs of which the engine knows nothing. Those that stand where no split puts one come first: the others' keys are
    /// compared with theirs. (Of two that a split may have made, the one with the smaller id is the older.)
    fn open_orphans(&mut self, snapshots: &Snapshots) -> Result<()> {
        let stands_first =
            |id: &u64| self.log.bounds(*id).is_some_and(|bounds| bounds.base_index == FIRST_INDEX);
        let (first, later): (Vec<u64>, Vec<u64>) =
            self.log.regions().into_iter().partition(stands_first);
        for id in later.into_iter().chain(first) {
            let region_id = RegionId(id);
            if self.peers.contains_key(&region_id) || self.destroying.contains_key(&region_id) {
                continue;
            }
            // One that begins at the beginning has nothing but the votes of a peer that never had data.
            let Some(bounds) = self.log.bounds(id) else { continue };
            let stands = ApplyState { index: bounds.base_index, term: bounds.base_term };
            if let Some(descriptor) = snapshots.find_received(region_id, stands)? {
                if self.overlaps(&descriptor.region.range, region_id) {
                    sometimes!(
                        "store: a log is a split's that the engine has lost, not a snapshot's"
                    );
                    continue;
                }
                self.install_again(descriptor)?;
            }
        }
        Ok(())
    }
}
