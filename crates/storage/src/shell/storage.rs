//! The front of a store: reads, writes, start and stop.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use engine::Engine;
use raftstore::state::PeerState;
use runtime::Clock;
use types::{ApiMode, Bytes, KeyMode, Region, RequestContext};

use super::{
    Proposal, View,
    proposal::{FromAnswer, Slot},
    writer::{OnStopped, Writer},
};
use crate::{
    Error, KeyModeLatch, KvPair, Result, Statistics, StoreIdent, Swapped, Sweep,
    command::{Action, Command},
    expiry::{self, Cursor},
    identity,
    key_mode::KeyModeCell,
    layout::Layout,
    raw::Checks,
    regions::Regions,
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
    /// Called once, with the cause, when a failure has stopped this storage for good; on the thread that found it,
    /// after everything that waited was answered. Must not block.
    pub on_stopped: Option<OnStopped>,
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageOptions").field("commits", &self.commits).finish_non_exhaustive()
    }
}

/// The data of a store with one replica. Clones share it.
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
    writer: Arc<Writer>,
    commits: Commits,
    latch: Option<Arc<dyn KeyModeLatch>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Where the removal of expired keys goes on.
    sweep: Mutex<Option<Cursor>>,
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
        let serving =
            identity.regions.into_iter().filter(|region| region.state == PeerState::Normal);
        let regions = Regions::new(ident.store_id, serving.map(|state| state.region).collect());
        let checks = Checks { layout: Layout::new(ident.api), regions };
        let key_mode = KeyModeCell::recorded(identity.key_mode);
        let writer = Arc::new(Writer::new(engine, clock, ident.api, key_mode, options.on_stopped)?);
        let thread = match options.commits {
            Commits::Adaptive | Commits::OnThread => {
                let writer = writer.clone();
                Some(
                    runtime::task::spawn("storage-write", move || writer.run())
                        .map_err(no_thread)?,
                )
            }
            Commits::ByCaller => None,
        };
        let inner = Inner {
            ident,
            checks,
            writer,
            commits: options.commits,
            latch: options.latch,
            thread: Mutex::new(thread),
            sweep: Mutex::new(None),
        };
        Ok(Storage { inner: Arc::new(inner) })
    }

    /// Who this store is.
    pub fn ident(&self) -> &StoreIdent {
        &self.inner.ident
    }

    /// The regions that this store serves, in the order of their keys.
    pub fn regions(&self) -> Vec<Region> {
        self.inner.checks.regions.in_key_order()
    }

    /// What kind of data this cluster holds, as far as this store knows; always `None` but in mode v1.
    pub fn key_mode(&self) -> Option<KeyMode> {
        self.inner.writer.key_mode.get()
    }

    /// The present moment, to read from: everything that was acknowledged, and nothing that is not durable. Cheap:
    /// no call of the engine.
    ///
    /// # Errors
    /// [`engine::Error::Poisoned`] once the store has stopped.
    pub fn view(&self) -> Result<View> {
        let writer = &self.inner.writer;
        if let Some(stopped) = writer.stopped() {
            return Err(stopped.clone().into());
        }
        // The snapshot first, the clock and all checks after it.
        let snapshot = writer.durable();
        let now_ms = self.inner.now_ms();
        Ok(View::new(self.inner.clone(), snapshot, now_ms))
    }

    /// The failure that has stopped this storage, if one has.
    pub fn stopped(&self) -> Option<engine::Error> {
        self.inner.writer.stopped().cloned()
    }

    /// Counters of the write path.
    pub fn statistics(&self) -> Statistics {
        self.inner.writer.statistics()
    }

    /// Refuses further writes, commits and answers what waits, and joins the thread. Blocks; calling it again is
    /// harmless. Reads go on.
    pub fn shutdown(&self) {
        self.inner.writer.close();
        match self.inner.commits {
            Commits::Adaptive | Commits::OnThread => {
                let thread =
                    self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(thread) = thread {
                    // A panic of the thread has stopped the store and answered everything already.
                    let _ = thread.join();
                }
            }
            Commits::ByCaller => while self.commit_once() {},
        }
    }

    /// Commits one group on this thread, if one waits and nobody else commits at the moment; says whether it did.
    pub fn commit_once(&self) -> bool {
        self.inner.writer.commit_once()
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
            Ok(command) => self.inner.propose(command),
            Err(error) => Proposal::refused(error),
        }
    }

    /// Looks at up to `keys_max` keys from where the last call stopped, and removes those that have expired. For a
    /// timer: reads on the calling thread, then waits for one write. Nothing to do in mode v1.
    pub async fn sweep_expired(&self, keys_max: usize) -> Result<Sweep> {
        let inner = &self.inner;
        if !inner.ident.api.has_ttl() {
            return Ok(Sweep { finished: true, ..Sweep::default() });
        }
        let now_ms = inner.now_ms();
        let cursor = inner.sweep_cursor().take();
        let found = {
            let writer = &inner.writer;
            expiry::find(inner.checks.layout, &*writer.durable(), cursor, keys_max, now_ms)
                .inspect_err(|error| writer.on_engine_error(error))?
        };
        let mut sweep =
            Sweep { examined: found.examined as u64, removed: 0, finished: found.next.is_none() };
        if !found.expired.is_empty() {
            let command = Command::new(Action::RemoveExpired { now_ms, keys: found.expired });
            sweep.removed = inner.propose::<u64>(command).await?;
        }
        *inner.sweep_cursor() = found.next;
        Ok(sweep)
    }

    /// Proposes a raw write that passes the checks.
    fn write<T: FromAnswer>(&self, check: impl FnOnce(&Checks) -> Result<Command>) -> Proposal<T> {
        match check(&self.inner.checks) {
            Ok(command) if self.inner.ident.api == ApiMode::V1 => self.write_latched(command),
            Ok(command) => self.inner.propose(command),
            Err(error) => Proposal::refused(error),
        }
    }

    /// Proposes a raw write of a v1 cluster once it is known that it holds raw data.
    fn write_latched<T: FromAnswer>(&self, command: Command) -> Proposal<T> {
        match (self.inner.writer.key_mode.get(), &self.inner.latch) {
            (Some(held), _) => self.inner.propose_latched(Ok(held), command),
            (None, None) => self.inner.propose_latched(Ok(KeyMode::Raw), command),
            (None, Some(latch)) => {
                Proposal::latching(latch.latch(KeyMode::Raw), self.inner.clone(), command)
            }
        }
    }
}

impl Inner {
    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(super) fn on_engine_error(&self, error: &engine::Error) {
        self.writer.on_engine_error(error);
    }

    /// Goes on with a raw write of a v1 cluster when the latch has answered.
    pub(super) fn propose_latched<T>(
        &self,
        held: Result<KeyMode, String>,
        mut command: Command,
    ) -> Proposal<T> {
        let key_mode = &self.writer.key_mode;
        match held.map(|held| key_mode.learn(held)) {
            Ok(KeyMode::Raw) => {
                // Until a record of the mode is durable every write brings it along.
                command.key_mode = (!key_mode.is_recorded()).then_some(KeyMode::Raw);
                self.propose(command)
            }
            Ok(held) => Proposal::refused(Error::KeyModeConflict { held, wanted: KeyMode::Raw }),
            Err(reason) => Proposal::refused(Error::KeyModeUnavailable { reason }),
        }
    }

    fn propose<T>(&self, command: Command) -> Proposal<T> {
        let (slot, ticket) = Slot::new();
        let in_place = self.commits == Commits::Adaptive;
        let duty = self.writer.propose(command, ticket, in_place);
        Proposal::proposed(slot, duty)
    }

    /// Only values that end need the time.
    fn now_ms(&self) -> u64 {
        if self.ident.api.has_ttl() { self.writer.clock.wall_ms() } else { 0 }
    }

    fn sweep_cursor(&self) -> std::sync::MutexGuard<'_, Option<Cursor>> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writer.close();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("ident", &self.ident)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

fn no_thread(error: io::Error) -> Error {
    Error::Engine(engine::Error::Io {
        operation: "start of the thread storage-write",
        path: "the process".into(),
        source: Arc::new(error),
    })
}
