//! All peers of one store, as one step machine.
//!
//! [`Store::step`] takes one input; [`Store::turn`] then does what has come of all of them: one Ready of every peer that
//! has one, their log writes in one batch, as often as there is more. Nothing here waits. What must be waited for is an
//! output now and an input later: the sync of the log, the application of entries, the making of snapshots.
//!
//! A store and its applier are two machines so that entries are applied while others are being replicated. The store
//! believes what the applier has told it; who reads looks into the engine itself.

mod consistency;
mod hibernate;
mod life;
mod log_gc;
mod look;
mod messages;
mod open;
mod reports;
mod requests;
mod snapshots;
mod splits;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use engine::{
    Engine, Snapshot as EngineSnapshot,
    raft_log::{LogBatch, RaftLog, Ticket},
};
use types::{
    Bytes, KeyRange, PeerId, Region, RegionEpoch, RegionError, RegionId,
    marks::{mutant, sometimes},
};

use crate::{
    apply::{Applied, Effect, Task},
    config::StoreConfig,
    error::{Error, Result},
    hash::HashJob,
    message::StoreMessage,
    peer::{
        Peer,
        view::{Lease, PeerView},
    },
    report::RegionReport,
    snapshot::Descriptor,
    split_check::{SplitCheck, SplitJob},
    state::{self, ApplyState},
};

pub(crate) use consistency::Hashes;
pub use open::bootstrap;
pub(crate) use reports::Reported;
pub use requests::{Request, RequestKind};
pub(crate) use splits::Extent;

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a store is told.
#[derive(Debug)]
pub enum Input<A> {
    /// A tick of the owner's clock has passed.
    Tick,
    /// More time has passed than ticks are going to say: the owner was stopped for a while.
    TimeLost,
    /// A message of another store. Of a snapshot, after its file has arrived.
    Message(Box<StoreMessage>),
    /// A client wants something.
    Request(Request),
    /// The log is durable up to here.
    LogSynced(Ticket),
    /// What the applier has done.
    Applied(Vec<Applied<A>>),
    /// Everything that was in the engine when [`Output::SyncEngine`] was said is durable.
    EngineSynced,
    /// A snapshot was made; `None`: it could not be.
    SnapshotMade {
        /// Of this region.
        region_id: RegionId,
        /// What it is.
        descriptor: Option<Descriptor>,
    },
    /// A snapshot was sent, or got lost.
    SnapshotSent {
        /// Of this region.
        region_id: RegionId,
        /// To this peer.
        to: PeerId,
        /// Whether it has arrived.
        arrived: bool,
    },
    /// Somebody has looked at a region, as [`Output::CheckSplit`] wanted it.
    SplitChecked {
        /// Which.
        region_id: RegionId,
        /// Its epoch at that time.
        epoch: RegionEpoch,
        /// What was found.
        found: SplitCheck,
    },
    /// A replica is hashed, as [`Output::ComputeHash`] wanted it.
    HashComputed {
        /// Of this region.
        region_id: RegionId,
        /// As of before this entry.
        index: u64,
        /// The hash.
        hash: u64,
    },
    /// The disk is full, or is not any more. While it is, leaders here take no writes but those that only delete; reads and
    /// changes of regions go on, and so does everything that others lead.
    DiskFull(bool),
    /// The scheduler may have forgotten what it was told: every region that is led here is to be reported.
    ReportAll,
    /// A region as the scheduler knows it, which is how one of its leaders was: what [`Output::AskRegion`] wanted.
    RegionKnown(Region),
    /// A store can't be reached.
    Unreachable {
        /// Of this region.
        region_id: RegionId,
        /// This peer of it.
        peer: PeerId,
    },
}

/// What a store wants.
#[derive(Debug)]
pub enum Output<A> {
    /// Send this. A message with a snapshot travels with its file.
    Send(Box<StoreMessage>),
    /// Sync the log, and say [`Input::LogSynced`].
    SyncLog,
    /// Sync the engine, and say [`Input::EngineSynced`].
    SyncEngine,
    /// Give this to the applier.
    Apply(Task),
    /// Give the data of this snapshot, which was received, to the applier as [`Task::Install`].
    Install {
        /// For this peer.
        peer_id: PeerId,
        /// What it is.
        descriptor: Descriptor,
    },
    /// Make a snapshot of a region, and say [`Input::SnapshotMade`].
    MakeSnapshot {
        /// Which.
        region_id: RegionId,
    },
    /// Remove the files of snapshots that were received.
    ForgetSnapshot {
        /// Of this region.
        region_id: RegionId,
        /// Where the last of them stands.
        applied: ApplyState,
    },
    /// Remove the file of a snapshot that was made.
    ForgetMade {
        /// Of this region.
        region_id: RegionId,
        /// Where it stands.
        applied: ApplyState,
    },
    /// The answer to a request.
    Reply {
        /// Which.
        token: Token,
        /// The answer.
        result: Result<Response<A>, RegionError>,
    },
    /// A read may go on: take a snapshot of the engine, then see with [`check_read`] whether the region is still the one
    /// that was asked for, then read.
    Read {
        /// Which request.
        token: Token,
        /// The region.
        region_id: RegionId,
        /// Its version as the reader believes.
        version: u64,
        /// Nothing of a later term may be shown.
        term: u64,
    },
    /// What others may know of a peer has changed. To be made known before anything is sent that the same turn says.
    View(Box<PeerView>),
    /// The same, but only the lease is another one.
    Lease {
        /// Of this region.
        region_id: RegionId,
        /// Until when reads need no round.
        lease: Lease,
    },
    /// There is no peer of this region any more.
    Gone {
        /// The region.
        region_id: RegionId,
    },
    /// Tell the scheduler of a region that is led here.
    Report(Box<RegionReport>),
    /// Ask the scheduler for a region, and say [`Input::RegionKnown`] if it knows it: the peer here has heard of no leader
    /// for long. It asks again.
    AskRegion {
        /// Which.
        region_id: RegionId,
    },
    /// Look at a region ([`SplitJob::run`]), and say [`Input::SplitChecked`].
    CheckSplit(SplitJob),
    /// Ask the scheduler for ids, one for each key, and request [`RequestKind::Split`] with them.
    AskSplit {
        /// The region that is to be cut, as it is now.
        region: Region,
        /// Where.
        keys: Vec<Bytes>,
    },
    /// Hash a replica ([`HashJob::run`]), and say [`Input::HashComputed`].
    ComputeHash(Box<HashJob>),
    /// The replica here is another one than the leader's: one of the two is wrong, and nobody can tell which. The owner
    /// says so loudly, and stops, or has the replica replaced.
    Inconsistent {
        /// The region.
        region: Region,
        /// The entry before which they differ.
        index: u64,
        /// The hash of the replica here.
        own: u64,
        /// That of the leader's.
        leaders: u64,
    },
    /// A region that is led here was cut into these.
    WasSplit {
        /// In the order of their keys; the first one keeps its id.
        regions: Vec<Region>,
    },
}

/// What a request is answered.
#[derive(Debug)]
pub enum Response<A> {
    /// A write was carried out.
    Written(A),
    /// The region was changed; these are the ones that have come of it.
    Changed(Vec<Region>),
    /// It was begun.
    Begun,
}

/// What has to be durable in the engine first.
#[derive(Debug)]
enum AfterSync {
    /// Then the log may be compacted.
    Compact(RegionId, PeerId, u64),
    /// Then the log of a region that is gone may go.
    Remove(RegionId),
    /// Then the file of a snapshot may go.
    Forget(RegionId, ApplyState),
    /// Then nobody comes back to these keys who was there before.
    Settle(KeyRange),
}

/// A region whose peer here is being destroyed.
#[derive(Debug)]
struct Destroying {
    /// Its keys.
    range: KeyRange,
    /// How far it was.
    applied: ApplyState,
}

/// All peers of a store.
pub struct Store<A> {
    config: StoreConfig,
    engine: Arc<dyn Engine>,
    log: RaftLog,
    rng: runtime::Rng,
    peers: BTreeMap<RegionId, Peer>,
    /// The regions that are initialised here, by their first keys. They never overlap.
    ranges: BTreeMap<Bytes, RegionId>,
    /// Peers that may have a Ready.
    dirty: BTreeSet<RegionId>,
    /// Peers that get ticks; the others sleep (`hibernate.rs`).
    awake: BTreeSet<RegionId>,
    sleepers: hibernate::Sleepers,
    /// Peers whose Readies wait for the disk.
    flying: BTreeSet<RegionId>,
    /// Regions whose peer here is being destroyed: nobody new lives there before that is durable.
    destroying: BTreeMap<RegionId, Destroying>,
    /// Keys that splits have given to regions of their own: until that is durable, a start may find the old region with
    /// them and apply its entries again.
    unsettled: Vec<KeyRange>,
    /// The first votes for regions that a split is going to make here.
    early: VecDeque<StoreMessage>,
    after_sync: Vec<AfterSync>,
    /// Those of a sync that is under way.
    syncing: Option<Vec<AfterSync>>,
    /// Regions that the scheduler is told of, by the tick of each period in which it is (`reports.rs`).
    reporting: BTreeSet<(u64, RegionId)>,
    /// Regions that may have grown too much: they are looked at with the next check (`splits.rs`).
    grown: BTreeSet<RegionId>,
    /// Regions that are to be looked at, and how many are being looked at.
    to_check: BTreeSet<RegionId>,
    checking: usize,
    snapshots: snapshots::Snapshotting,
    is_disk_full: bool,
    ticks: u64,
    out: Vec<Output<A>>,
}

impl<A> std::fmt::Debug for Store<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("id", &self.config.store_id)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl<A> Store<A> {
    /// Takes one input.
    ///
    /// # Errors
    /// The store can't go on.
    pub fn step(&mut self, input: Input<A>) -> Result<()> {
        match input {
            Input::Tick => self.tick(),
            Input::TimeLost => {
                for (region_id, peer) in &mut self.peers {
                    peer.node.forget_lease();
                    self.dirty.insert(*region_id);
                }
            }
            Input::Message(message) => self.on_message(*message)?,
            Input::Request(request) => self.on_request(request),
            Input::LogSynced(ticket) => self.on_log_synced(ticket),
            Input::Applied(applied) => {
                for applied in applied {
                    self.on_applied(applied)?;
                }
            }
            Input::EngineSynced => self.on_engine_synced()?,
            Input::HashComputed { region_id, index, hash } => {
                self.on_hash_computed(region_id, index, hash);
            }
            Input::DiskFull(is_full) => self.is_disk_full = is_full,
            Input::ReportAll => self.report_all(),
            Input::RegionKnown(region) => self.on_region_known(&region),
            Input::SnapshotMade { region_id, descriptor } => {
                self.on_snapshot_made(region_id, descriptor);
            }
            Input::SnapshotSent { region_id, to, arrived } => {
                self.on_snapshot_sent(region_id, to, arrived);
            }
            Input::SplitChecked { region_id, epoch, found } => {
                self.on_split_checked(region_id, epoch, found);
            }
            Input::Unreachable { region_id, peer } => {
                if let Some(own) = self.peers.get_mut(&region_id) {
                    own.node.report_unreachable(peer.0);
                    self.dirty.insert(region_id);
                }
            }
        }
        Ok(())
    }

    /// Does what has come of the inputs so far, and says what is to be done.
    ///
    /// # Errors
    /// The store can't go on.
    pub fn turn(&mut self) -> Result<Vec<Output<A>>> {
        let mut must_sync = false;
        while !self.dirty.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            let mut batch = LogBatch::new();
            let mut persisting = Vec::new();
            for &region_id in &dirty {
                let Some(peer) = self.peers.get_mut(&region_id) else { continue };
                let (snapshots, most) = (&mut self.snapshots, self.config.snapshots_sending_max);
                let may_send = |to| snapshots.may_send(region_id, to, most);
                if let Some(ready) = peer.take_ready(&mut batch, &mut self.out, may_send)? {
                    must_sync |= ready.must_sync;
                    persisting.push((region_id, ready));
                }
            }
            let ticket = match batch.is_empty() {
                true => self.log.durable(),
                false => self.log.append(batch)?,
            };
            let durable = self.log.durable();
            for (region_id, ready) in persisting {
                let Some(peer) = self.peers.get_mut(&region_id) else { continue };
                peer.appended(ready, ticket);
                // Those that wait for nothing.
                let is_alone = peer.region.peers.len() == 1;
                let durable = match is_alone && mutant!("alone_answers_before_sync") {
                    true => ticket,
                    false => durable,
                };
                peer.synced(durable, &mut self.out);
                if peer.is_flying() {
                    self.flying.insert(region_id);
                }
            }
            for region_id in dirty {
                self.make_snapshot_if_wanted(region_id);
                let Some(peer) = self.peers.get_mut(&region_id) else { continue };
                peer.publish(self.ticks, &mut self.out);
                if peer.is_removed && !peer.leads() {
                    self.destroy(region_id);
                } else if peer.node.has_ready() {
                    self.dirty.insert(region_id);
                }
            }
        }
        if must_sync {
            self.out.push(Output::SyncLog);
        }
        if self.syncing.is_none() && !self.after_sync.is_empty() {
            self.syncing = Some(std::mem::take(&mut self.after_sync));
            self.out.push(Output::SyncEngine);
        }
        Ok(std::mem::take(&mut self.out))
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let looks = self.ticks.is_multiple_of(u64::from(self.config.log_gc_ticks.max(1)));
        let (mut lost, mut news, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let patience = self.config.stale_ticks;
        for region_id in &self.awake {
            let Some(peer) = self.peers.get_mut(region_id) else { continue };
            peer.node.tick();
            peer.idle = peer.idle.saturating_add(1);
            peer.leaderless = if peer.leads() { 0 } else { peer.leaderless + 1 };
            if patience <= peer.leaderless {
                peer.leaderless = 0;
                lost.push(*region_id);
            }
            self.dirty.insert(*region_id);
            if looks && peer.leads() {
                log_gc::compact_if_long(&self.config, &self.log, peer);
            }
            if looks && peer.node.storage().has_snapshot() {
                let patience = self.config.snapshot_ticks;
                if let Some(applied) = snapshots::drop_if_unused(peer, self.ticks, patience) {
                    self.out.push(Output::ForgetMade { region_id: *region_id, applied });
                }
            }
            if reports::has_news(&self.config, peer) {
                news.push(*region_id);
            }
            if hibernate::is_idle(&self.config, peer) {
                idle.push(*region_id);
            }
        }
        for region_id in lost {
            self.ask_membership(region_id);
        }
        for region_id in news {
            self.report_progress(region_id, true);
        }
        self.report_due();
        if self.ticks.is_multiple_of(u64::from(self.config.split_check_ticks.max(1))) {
            self.check_grown();
        }
        self.compare_some();
        self.let_sleep(idle);
        self.watch_sleepers();
    }

    fn on_log_synced(&mut self, ticket: Ticket) {
        for region_id in std::mem::take(&mut self.flying) {
            let Some(peer) = self.peers.get_mut(&region_id) else { continue };
            if peer.synced(ticket, &mut self.out) {
                self.dirty.insert(region_id);
            }
            if peer.is_flying() {
                self.flying.insert(region_id);
            }
        }
    }

    fn on_applied(&mut self, applied: Applied<A>) -> Result<()> {
        let region_id = applied.region_id;
        if applied.effects.iter().any(|effect| matches!(effect, Effect::Destroyed)) {
            self.after_sync.push(AfterSync::Remove(region_id));
            if let Some(Destroying { applied, .. }) = self.destroying.get(&region_id) {
                self.after_sync.push(AfterSync::Forget(region_id, *applied));
            }
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(&region_id).filter(|peer| peer.id == applied.peer_id)
        else {
            return self.on_applied_by_gone(&applied.effects);
        };
        let effects = applied.effects.clone();
        let epoch = peer.region.epoch;
        peer.extent.grow(applied.written);
        let mut splits = Vec::new();
        let (mut hashes, mut leaders) = (Vec::new(), Vec::new());
        for effect in &effects {
            let before = peer.region.range.clone();
            if let Some(applied) = peer.take_effect(effect) {
                self.out.push(Output::ForgetMade { region_id, applied });
            }
            match effect {
                Effect::CompactLog { index } if mutant!("log_compacted_before_engine_sync") => {
                    let mut batch = LogBatch::new();
                    batch.compact_to(region_id.0, *index);
                    self.log.append(batch)?;
                }
                Effect::CompactLog { index } => {
                    let compact = AfterSync::Compact(region_id, peer.id, *index);
                    self.after_sync.push(compact);
                }
                Effect::Installed { .. } if mutant!("snapshot_forgotten_before_engine_sync") => {
                    let applied = applied.state;
                    self.out.push(Output::ForgetSnapshot { region_id, applied });
                }
                Effect::Installed { .. } => {
                    let forget = AfterSync::Forget(region_id, applied.state);
                    self.after_sync.push(forget);
                }
                Effect::Split { regions } => splits.push(regions.clone()),
                Effect::Hash(job) => hashes.push(Output::ComputeHash(Box::new(job.clone()))),
                Effect::VerifyHash { index, hash } => leaders.push((*index, *hash)),
                Effect::Members { .. } | Effect::Destroyed => {}
            }
            if peer.region.range != before || matches!(effect, Effect::Installed { .. }) {
                peer.extent.forget();
                let range = peer.region.range.clone();
                if self.ranges.get(&before.start) == Some(&region_id) {
                    self.ranges.remove(&before.start);
                }
                self.ranges.insert(range.start, region_id);
            }
        }
        peer.on_applied(applied, &mut self.out);
        let leads = peer.leads();
        let is_changed = peer.region.epoch != epoch;
        if leads && peer.extent.is_due(&self.config.split) {
            self.grown.insert(region_id);
        }
        self.dirty.insert(region_id);
        self.report_progress(region_id, is_changed);
        self.out.append(&mut hashes);
        for (index, hash) in leaders {
            self.on_hash_of_leader(region_id, index, hash);
        }
        for regions in splits {
            self.begin_children(&regions, leads)?;
            if leads {
                self.out.push(Output::WasSplit { regions });
            }
        }
        Ok(())
    }

    fn on_engine_synced(&mut self) -> Result<()> {
        let mut batch = LogBatch::new();
        for after in self.syncing.take().unwrap_or_default() {
            match after {
                AfterSync::Compact(region_id, peer_id, index) => {
                    let lives = self.peers.get(&region_id).is_some_and(|peer| peer.id == peer_id);
                    let last = self.log.bounds(region_id.0).map_or(0, |bounds| bounds.last_index);
                    if lives && index <= last {
                        batch.compact_to(region_id.0, index);
                    }
                }
                AfterSync::Remove(region_id) => {
                    // Who lives here by now is a later peer, and the log is its own (see `begin_child`).
                    if !self.peers.contains_key(&region_id) {
                        batch.remove(region_id.0);
                    }
                    self.destroying.remove(&region_id);
                }
                AfterSync::Forget(region_id, applied) => {
                    self.out.push(Output::ForgetSnapshot { region_id, applied });
                }
                AfterSync::Settle(range) => {
                    if let Some(at) = self.unsettled.iter().position(|other| *other == range) {
                        self.unsettled.swap_remove(at);
                    }
                }
            }
        }
        if !batch.is_empty() {
            self.log.append(batch)?;
        }
        Ok(())
    }

    /// Whether keys of `range` are in an initialised region of this store, other than `except`.
    fn overlaps(&self, range: &KeyRange, except: RegionId) -> bool {
        if mutant!("overlap_is_not_checked") {
            return false;
        }
        self.ranges.values().filter(|id| **id != except).any(|id| {
            self.peers.get(id).is_some_and(|peer| !peer.region.range.intersect(range).is_empty())
        })
    }
}

/// The region that a read may look at, in a snapshot of the engine that was taken after [`Output::Read`].
///
/// Entries of a later term than the read's must not be shown: their leader may answer reads from what it has applied, which
/// may be less, as long as nobody has asked it.
///
/// # Errors
/// The region has changed, or is gone, or has a later leader. `Err(Err(_))`: the engine failed.
pub fn check_read(
    snapshot: &dyn EngineSnapshot,
    region_id: RegionId,
    version: u64,
    term: u64,
) -> Result<Region, Result<RegionError, Error>> {
    let found = state::region_state(snapshot, region_id).map_err(|error| Err(error.into()))?;
    match found {
        Some(found)
            if found.state == state::PeerState::Normal || mutant!("read_of_a_tombstone") =>
        {
            if found.region.epoch.version != version && !mutant!("read_without_region_check") {
                sometimes!("store: a read is refused in the snapshot because of a split");
                return Err(Ok(RegionError::EpochNotMatch { regions: vec![found.region] }));
            }
            let applied =
                state::apply_state(snapshot, region_id).map_err(|error| Err(error.into()))?;
            if applied.is_some_and(|applied| term < applied.term) {
                sometimes!("store: a read is refused in the snapshot because of a later leader");
                return Err(Ok(RegionError::NotLeader { region: region_id, leader: None }));
            }
            Ok(found.region)
        }
        _ => {
            sometimes!("store: a read is refused in the snapshot because the peer is gone");
            Err(Ok(RegionError::RegionNotFound { region: region_id }))
        }
    }
}
