//! The front of a store: reads, writes, start and stop.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use engine::{Engine, Snapshot};
use raftstore::state::PeerState;
use runtime::Clock;
use types::{ApiMode, Bytes, KeyMode, Region, RegionId, RequestContext};

use super::{
    Proposal, View,
    executor::{Decided, Executor, Timestamps},
    proposal::{FromAnswer, ReadTerm, Slot},
    replicated::{RaftHandle, Replicated, Replication},
    writer::{OnStopped, Writer},
};
use crate::{
    Error, KeyModeLatch, KvPair, Result, Statistics, StoreIdent, Swapped, Sweep,
    command::{Action, Command},
    expiry::{self, Cursor},
    identity,
    key_mode::KeyModeCell,
    layout::Layout,
    machine::CommandMachine,
    raw::{Checks, Routed},
    regions::{Access, Regions},
    safe_point::SafePoint,
};

/// Who commits groups of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commits {
    /// A thread of the storage's own, "storage-write"; but a write that comes while nobody else is about is committed
    /// by who polls or waits for its [`Proposal`], which then blocks for a sync (on a disk whose last sync was quick).
    #[default]
    Adaptive,
    /// The thread alone: no poll ever blocks.
    OnThread,
    /// Nobody but callers of [`Storage::commit_once`]: tests and simulation.
    ByCaller,
}

/// How to open a storage.
#[derive(Default)]
pub struct StorageOptions {
    /// Who commits.
    pub commits: Commits,
    /// Asked before the first write in mode v1. `None`: this store decides alone (no scheduler).
    pub latch: Option<Arc<dyn KeyModeLatch>>,
    /// Asked before a transaction is let choose its commit timestamp here for the first time in a term. `None`: no other
    /// store has ever led a region.
    pub timestamps: Option<Arc<dyn Timestamps>>,
    /// How the regions are replicated, be it to nobody. `None`: the standalone form, with a group commit and no log, for
    /// the course's first project and for tests.
    pub replication: Option<Replication>,
    /// Called once, with the cause, when a failure has stopped this storage for good; on the thread that found it,
    /// after everything that waited was answered. Must not block.
    pub on_stopped: Option<OnStopped>,
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageOptions").field("commits", &self.commits).finish_non_exhaustive()
    }
}

/// The data of a store. Clones share it.
///
/// Writes return a [`Proposal`], a future that needs no runtime. End it with [`shutdown`](Storage::shutdown); dropping
/// the last clone lets the thread commit what waits and end by itself.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    ident: StoreIdent,
    checks: Checks,
    backend: Backend,
    latch: Option<Arc<dyn KeyModeLatch>>,
    executor: Executor,
    /// Where the removal of expired keys goes on: a region's first key, and a place in it.
    sweep: Mutex<Option<(Bytes, Option<Cursor>)>>,
}

/// A snapshot to decide on, and the term for which what is decided is proposed.
type Decidable = (Arc<dyn Snapshot>, Option<u64>);

/// Who writes.
pub(super) enum Backend {
    Standalone { writer: Arc<Writer>, commits: Commits, thread: Mutex<Option<JoinHandle<()>>> },
    Replicated(Box<Replicated>),
}

impl Storage {
    /// Opens the data of a store that was bootstrapped ([`crate::identity::bootstrap`]).
    ///
    /// # Errors
    /// [`engine::Error::Corrupt`] if there is no identity; the machine gives no thread.
    pub fn open(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        options: StorageOptions,
    ) -> Result<Storage> {
        let Some(identity) = identity::load(&*engine)? else {
            return Err(Error::Engine(engine::Error::Corrupt {
                path: "store meta data".into(),
                detail: "the store has no identity".to_owned(),
            }));
        };
        let ident = identity.ident;
        let layout = Layout::new(ident.api);
        let key_mode = KeyModeCell::recorded(identity.key_mode);
        let safe_point = SafePoint::default();
        safe_point.raise(raftstore::state::newest_safe_point(&*engine.snapshot()?)?);
        let (backend, regions) = match options.replication {
            Some(replication) => {
                let has_latch = options.latch.is_some();
                let machine = CommandMachine { api: ident.api, safe_point: safe_point.clone() };
                let replicated =
                    Replicated::start(machine, engine, clock, key_mode, has_latch, replication)?;
                let regions = Regions::live(ident.store_id, replicated.handle.views().clone());
                (Backend::Replicated(Box::new(replicated)), regions)
            }
            None => {
                let serving =
                    identity.regions.into_iter().filter(|region| region.state == PeerState::Normal);
                let regions =
                    Regions::new(ident.store_id, serving.map(|state| state.region).collect());
                let on_stopped = options.on_stopped;
                let writer = Arc::new(Writer::new(engine, clock, ident.api, key_mode, on_stopped)?);
                (Backend::standalone(writer, options.commits)?, regions)
            }
        };
        let inner = Inner {
            ident,
            checks: Checks { layout, regions },
            backend,
            latch: options.latch,
            executor: Executor::new(options.timestamps, safe_point),
            sweep: Mutex::new(None),
        };
        Ok(Storage { inner: Arc::new(inner) })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Who this store is.
    pub fn ident(&self) -> &StoreIdent {
        &self.inner.ident
    }

    /// The regions that this store serves, in the order of their keys.
    pub fn regions(&self) -> Vec<Region> {
        self.inner.checks.regions.in_key_order()
    }

    /// The region that has a stored key, if this store has it.
    pub fn region_at(&self, stored_key: &[u8]) -> Option<Arc<Region>> {
        self.inner.checks.regions.at(stored_key)
    }

    /// What kind of data this cluster holds, as far as this store knows; always `None` but in mode v1.
    pub fn key_mode(&self) -> Option<KeyMode> {
        self.inner.backend.key_mode().get()
    }

    /// The scheduler says what kind of data this cluster holds, which this store may not have found out by a write.
    pub fn learn_key_mode(&self, held: KeyMode) {
        self.inner.backend.key_mode().learn(held);
    }

    /// The way in for other stores and the scheduler; `None` in the standalone form.
    pub fn raft(&self) -> Option<&RaftHandle> {
        match &self.inner.backend {
            Backend::Standalone { .. } => None,
            Backend::Replicated(replicated) => Some(&replicated.handle),
        }
    }

    /// The present moment, to read from: everything that was acknowledged, and nothing that is not durable. Cheap:
    /// no call of the engine.
    ///
    /// # Errors
    /// [`engine::Error::Poisoned`] once the store has stopped.
    pub fn view(&self) -> Result<View> {
        // The moment first, then the snapshot; the clock and all checks after them.
        let (access, snapshot) = match &self.inner.backend {
            Backend::Standalone { writer, .. } => match writer.stopped() {
                Some(stopped) => return Err(stopped.clone().into()),
                None => (Access::Everything, writer.durable()),
            },
            Backend::Replicated(replicated) => {
                if let Some(stopped) = replicated.stopped() {
                    return Err(stopped.into());
                }
                let moment = replicated.handle.views().moment();
                (Access::Leases(moment), replicated.snapshot()?)
            }
        };
        let now_ms = self.inner.now_ms();
        Ok(View::new(self.inner.clone(), snapshot, access, now_ms))
    }

    /// A view of one region for which its leader has been asked: for reads that were refused with
    /// [`Error::LeaseLapsed`], and at followers (`ctx.replica_read`).
    ///
    /// # Errors
    /// Those of the region: it is not here, has changed, or has no leader.
    pub async fn view_by_index(&self, ctx: &RequestContext) -> Result<View> {
        let Backend::Replicated(replicated) = &self.inner.backend else { return self.view() };
        if let Some(stopped) = replicated.stopped() {
            return Err(stopped.into());
        }
        let regions = &self.inner.checks.regions;
        let region = match ctx.replica_read {
            true => regions.check_replica(ctx)?,
            false => regions.check(ctx)?,
        };
        let asked = Proposal::proposed(replicated.ask(&region, ctx.replica_read), None);
        let ReadTerm(term) = asked.await?;
        let (snapshot, region) = replicated.granted(&region, term)?;
        let now_ms = self.inner.now_ms();
        Ok(View::new(self.inner.clone(), snapshot, Access::Granted(region), now_ms))
    }

    /// The failure that has stopped this storage, if one has.
    pub fn stopped(&self) -> Option<engine::Error> {
        match &self.inner.backend {
            Backend::Standalone { writer, .. } => writer.stopped().cloned(),
            Backend::Replicated(replicated) => replicated.stopped(),
        }
    }

    /// Counters of the write path.
    pub fn statistics(&self) -> Statistics {
        match &self.inner.backend {
            Backend::Standalone { writer, .. } => writer.statistics(),
            Backend::Replicated(replicated) => replicated.statistics(),
        }
    }

    /// Refuses further writes, answers what waits, and joins the threads. Blocks; calling it again is harmless. Reads of
    /// the standalone form go on.
    pub fn shutdown(&self) {
        match &self.inner.backend {
            Backend::Standalone { writer, commits, thread } => {
                writer.close();
                match commits {
                    Commits::Adaptive | Commits::OnThread => {
                        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(thread) = thread {
                            // A panic of the thread has stopped the store and answered everything already.
                            let _ = thread.join();
                        }
                    }
                    Commits::ByCaller => while self.commit_once() {},
                }
            }
            Backend::Replicated(replicated) => replicated.close(),
        }
    }

    /// Commits one group of the standalone form on this thread, if one waits and nobody else commits at the moment;
    /// says whether it did.
    pub fn commit_once(&self) -> bool {
        match &self.inner.backend {
            Backend::Standalone { writer, .. } => writer.commit_once(),
            Backend::Replicated(_) => false,
        }
    }

    /// Sets `key` to `value`, for `ttl_s` seconds (0: for good).
    pub fn raw_put(
        &self,
        ctx: &RequestContext,
        cf: &str,
        key: Bytes,
        value: Bytes,
        ttl_s: u64,
    ) -> Proposal<()> {
        let now_ms = self.inner.now_ms();
        self.write(|checks| checks.put(ctx, cf, KvPair { key, value }, ttl_s, now_ms))
    }

    /// Sets several keys of one region, all or none; the last one wins when a key comes twice. `ttls`: none, one for
    /// all, or one each.
    pub fn raw_batch_put(
        &self,
        ctx: &RequestContext,
        cf: &str,
        pairs: Vec<KvPair>,
        ttls: &[u64],
    ) -> Proposal<()> {
        let now_ms = self.inner.now_ms();
        self.write(|checks| checks.batch_put(ctx, cf, pairs, ttls, now_ms))
    }

    /// Removes `key`; succeeds if it is absent.
    pub fn raw_delete(&self, ctx: &RequestContext, cf: &str, key: Bytes) -> Proposal<()> {
        self.write(|checks| checks.delete(ctx, cf, key))
    }

    /// Removes several keys of one region, all or none.
    pub fn raw_batch_delete(
        &self,
        ctx: &RequestContext,
        cf: &str,
        keys: Vec<Bytes>,
    ) -> Proposal<()> {
        self.write(|checks| checks.batch_delete(ctx, cf, keys))
    }

    /// Removes the keys from `start` up to but without `end`, which must lie in the region as a whole. After a crash
    /// before the answer, some of them may be gone.
    pub fn raw_delete_range(
        &self,
        ctx: &RequestContext,
        cf: &str,
        start: Bytes,
        end: Bytes,
    ) -> Proposal<()> {
        self.write(|checks| checks.delete_range(ctx, cf, &start, &end))
    }

    /// Sets `key` to `new` (`None`: removes it) if its value is `expected` (`None`: if there is no such key).
    ///
    /// Decided when it takes effect, in one order with all other writes: linearizable with them.
    pub fn raw_compare_and_swap(
        &self,
        ctx: &RequestContext,
        cf: &str,
        key: Bytes,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        ttl_s: u64,
    ) -> Proposal<Swapped> {
        let now_ms = self.inner.now_ms();
        self.write(|checks| checks.compare_and_swap(ctx, cf, key, expected, new, ttl_s, now_ms))
    }

    /// Removes every key between the bounds from all column families of this store, without regard to regions and to
    /// the kind of data; empty bounds are no bounds. Does not latch the key mode.
    pub fn unsafe_destroy_range(&self, start: Bytes, end: Bytes) -> Proposal<()> {
        match self.inner.checks.destroy_range(&start, &end, self.key_mode()) {
            Ok(command) => self.inner.destroy(command),
            Err(error) => Proposal::refused(error),
        }
    }

    /// Looks at up to `keys_max` keys from where the last call stopped, and removes those that have expired. For a
    /// timer: reads on the calling thread, then waits for one write. Nothing to do in mode v1.
    pub async fn sweep_expired(&self, keys_max: usize) -> Result<Sweep> {
        if !self.inner.ident.api.has_ttl() {
            return Ok(Sweep { finished: true, ..Sweep::default() });
        }
        let mut sweep = Sweep::default();
        while !sweep.finished && self.sweep_region(keys_max, &mut sweep).await? {}
        Ok(sweep)
    }

    /// Goes on with a pass in the next region that is led here. Returns whether it came to the region's end.
    async fn sweep_region(&self, keys_max: usize, sweep: &mut Sweep) -> Result<bool> {
        let inner = &self.inner;
        let now_ms = inner.now_ms();
        let (from, cursor) = inner.sweep_cursor().take().unwrap_or_default();
        let mut led = inner.checks.regions.led();
        led.sort_by(|one, other| one.range.start.cmp(&other.range.start));
        let Some(region) = led.into_iter().find(|region| from <= region.range.start) else {
            sweep.finished = true;
            return Ok(true);
        };
        let cursor = cursor.filter(|_| from == region.range.start);
        let found = {
            let snapshot = self.view()?.into_snapshot();
            let left = keys_max - sweep.examined as usize;
            expiry::find(inner.checks.layout, &*snapshot, &region.range, cursor, left, now_ms)
                .inspect_err(|error| inner.on_engine_error(error))?
        };
        let ended = found.next.is_none();
        let next = match found.next {
            Some(next) => Some((region.range.start.clone(), Some(next))),
            None => Some((region.range.end.clone(), None)).filter(|(end, _)| !end.is_empty()),
        };
        sweep.examined += found.examined as u64;
        sweep.finished = next.is_none();
        if !found.expired.is_empty() {
            let command = Command::new(Action::RemoveExpired { now_ms, keys: found.expired });
            match inner.propose::<u64>((region, command)).await {
                Ok(removed) => sweep.removed += removed,
                // The region has moved or changed: whoever leads it now looks there.
                Err(Error::Region(_)) => {}
                Err(error) => return Err(error),
            }
        }
        *inner.sweep_cursor() = next;
        Ok(ended)
    }

    /// Proposes a raw write that passes the checks.
    fn write<T: FromAnswer>(&self, check: impl FnOnce(&Checks) -> Result<Routed>) -> Proposal<T> {
        match check(&self.inner.checks) {
            Ok(command) if self.inner.ident.api == ApiMode::V1 => self.write_latched(command),
            Ok(command) => self.inner.propose(command),
            Err(error) => Proposal::refused(error),
        }
    }

    /// Proposes a raw write of a v1 cluster once it is known that it holds raw data.
    fn write_latched<T: FromAnswer>(&self, command: Routed) -> Proposal<T> {
        match (self.inner.backend.key_mode().get(), &self.inner.latch) {
            (Some(held), _) => self.inner.propose_latched(Ok(held), command),
            (None, None) => self.inner.propose_latched(Ok(KeyMode::Raw), command),
            (None, Some(latch)) => {
                Proposal::latching(latch.latch(KeyMode::Raw), self.inner.clone(), command)
            }
        }
    }
}

impl Inner {
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(super) fn on_engine_error(&self, error: &engine::Error) {
        match &self.backend {
            Backend::Standalone { writer, .. } => writer.on_engine_error(error),
            Backend::Replicated(replicated) => replicated.on_engine_error(error),
        }
    }

    /// Goes on with a raw write of a v1 cluster when the latch has answered.
    pub(super) fn propose_latched<T>(
        &self,
        held: Result<KeyMode, String>,
        (region, mut command): Routed,
    ) -> Proposal<T> {
        let key_mode = self.backend.key_mode();
        match held.map(|held| key_mode.learn(held)) {
            Ok(KeyMode::Raw) => {
                // Until a record of the mode is durable every write brings it along.
                command.key_mode = (!key_mode.is_recorded()).then_some(KeyMode::Raw);
                self.propose((region, command))
            }
            Ok(held) => Proposal::refused(Error::KeyModeConflict { held, wanted: KeyMode::Raw }),
            Err(reason) => Proposal::refused(Error::KeyModeUnavailable { reason }),
        }
    }

    fn propose<T>(&self, (region, command): Routed) -> Proposal<T> {
        let (slot, ticket) = Slot::new();
        let duty = match &self.backend {
            Backend::Standalone { writer, commits, .. } => {
                writer.propose(command, ticket, *commits == Commits::Adaptive)
            }
            Backend::Replicated(replicated) => {
                replicated.propose(&region, command, None, ticket);
                None
            }
        };
        Proposal::proposed(slot, duty)
    }

    /// Proposes what was decided by what was applied in `term`.
    pub(super) fn propose_decided(
        &self,
        (region, command): Routed,
        term: Option<u64>,
        decided: Decided,
    ) -> Proposal<()> {
        let (slot, ticket) = Slot::keeping(decided);
        match &self.backend {
            Backend::Standalone { writer, .. } => drop(writer.propose(command, ticket, false)),
            Backend::Replicated(replicated) => replicated.propose(&region, command, term, ticket),
        }
        Proposal::proposed(slot, None)
    }

    /// What is applied now, and the term in which what is decided by it is to be proposed; the standalone form has none.
    /// `None`: this peer does not lead, or has not applied everything that earlier leaders have left.
    pub(super) fn to_decide_on(&self, region: &Region) -> Result<Option<Decidable>> {
        match &self.backend {
            Backend::Standalone { writer, .. } => match writer.stopped() {
                Some(stopped) => Err(stopped.clone().into()),
                None => Ok(Some((writer.durable(), None))),
            },
            Backend::Replicated(replicated) => {
                if let Some(stopped) = replicated.stopped() {
                    return Err(stopped.into());
                }
                let found = replicated.to_decide_on(region.id)?;
                Ok(found.map(|(snapshot, term)| (snapshot, Some(term))))
            }
        }
    }

    /// The term in which this store leads a region, if it does.
    pub(super) fn leads_in(&self, region: RegionId) -> Option<u64> {
        match &self.backend {
            Backend::Standalone { .. } => None,
            Backend::Replicated(replicated) => {
                replicated.handle.views().find(region).and_then(|view| view.leads_in)
            }
        }
    }

    /// Agrees with the cluster that it holds `wanted`, where it can hold one kind of data only. Returns the record that is
    /// to be written with the first commands.
    pub(super) async fn latch(&self, wanted: KeyMode) -> Result<Option<KeyMode>> {
        if self.ident.api != ApiMode::V1 {
            return Ok(None);
        }
        let key_mode = self.backend.key_mode();
        let held = match (key_mode.get(), &self.latch) {
            (Some(held), _) => held,
            (None, None) => key_mode.learn(wanted),
            (None, Some(latch)) => match latch.latch(wanted).await {
                Ok(held) => key_mode.learn(held),
                Err(reason) => return Err(Error::KeyModeUnavailable { reason }),
            },
        };
        match held == wanted {
            true => Ok((!key_mode.is_recorded()).then_some(wanted)),
            false => Err(Error::KeyModeConflict { held, wanted }),
        }
    }

    /// Refuses a request to look at transactional records of keys that can't be there: a cluster in mode v1 holds one kind
    /// of data, and what clients of the raw interface have put into these column families are no records.
    pub(super) fn check_txn_read(&self, ctx: &RequestContext, keys: &[Bytes]) -> Result<()> {
        self.checks.layout.check_txn(ctx.api_version, keys)?;
        match self.backend.key_mode().get() {
            Some(held @ KeyMode::Raw) if self.ident.api == ApiMode::V1 => {
                Err(Error::KeyModeConflict { held, wanted: KeyMode::Txn })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Removes ranges of this store, whatever its regions are.
    fn destroy(&self, command: Command) -> Proposal<()> {
        let (slot, ticket) = Slot::new();
        let duty = match &self.backend {
            Backend::Standalone { writer, commits, .. } => {
                writer.propose(command, ticket, *commits == Commits::Adaptive)
            }
            Backend::Replicated(replicated) => {
                replicated.destroy(command, ticket);
                None
            }
        };
        Proposal::proposed(slot, duty)
    }

    /// Only values that end need the time.
    fn now_ms(&self) -> u64 {
        if self.ident.api.has_ttl() { self.backend.clock().wall_ms() } else { 0 }
    }

    fn sweep_cursor(&self) -> std::sync::MutexGuard<'_, Option<(Bytes, Option<Cursor>)>> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    fn standalone(writer: Arc<Writer>, commits: Commits) -> Result<Backend> {
        let thread = match commits {
            Commits::Adaptive | Commits::OnThread => {
                let writer = writer.clone();
                let run = move || writer.run();
                Some(runtime::task::spawn("storage-write", run).map_err(no_thread)?)
            }
            Commits::ByCaller => None,
        };
        Ok(Backend::Standalone { writer, commits, thread: Mutex::new(thread) })
    }

    fn key_mode(&self) -> &KeyModeCell {
        match self {
            Backend::Standalone { writer, .. } => &writer.key_mode,
            Backend::Replicated(replicated) => &replicated.key_mode,
        }
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        match self {
            Backend::Standalone { writer, .. } => &writer.clock,
            Backend::Replicated(replicated) => &replicated.clock,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &self.backend {
            Backend::Standalone { writer, .. } => writer.close(),
            Backend::Replicated(replicated) => replicated.close(),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inner = f.debug_struct("Inner");
        inner.field("ident", &self.ident);
        match &self.backend {
            Backend::Standalone { writer, .. } => inner.field("writer", writer),
            Backend::Replicated(replicated) => inner.field("replicated", replicated),
        };
        inner.finish_non_exhaustive()
    }
}

fn no_thread(error: io::Error) -> Error {
    Error::Engine(engine::Error::Io {
        operation: "start of the thread storage-write",
        path: "the process".into(),
        source: Arc::new(error),
    })
}
