//! Transactional commands from request to answer: latches, a snapshot, the decision, one proposal.
//!
//! A command is decided on the leader by looking at what is applied (`txn::commands`), and what it wants to change is
//! proposed for the term in which the leader had applied it ([`raftstore::store::RequestKind::WriteIn`]). Its latches
//! are held until the proposal is answered, also if the caller has gone: nobody else decides by what is about to change.
//! So whatever lies before the proposal in the log was seen by the decision.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::Snapshot;
use txn::{
    Concurrency, KeyError, Lock, Read,
    commands::{Command as TxnCommand, Outcome, PessimisticLock, PessimisticLockAnswer},
};
use types::{
    Bytes, Cf, KeyMode, KeyRange, Modify, Region, RegionError, RegionId, RequestContext, TimeStamp,
    key, limits,
};

use super::{
    LockWait, Storage,
    latched::{LatchTable, Latched},
    lock_waits::WaitTable,
    ts_limit::TsLimit,
};
use crate::{
    Error, Result,
    command::{Action, Command},
    regions,
    safe_point::SafePoint,
};

/// A timestamp that is being asked for, or why there is none.
pub type Asking = Pin<Box<dyn Future<Output = Result<TimeStamp, String>> + Send>>;

/// Where a cluster's timestamps come from.
pub trait Timestamps: Send + Sync {
    /// A timestamp that is later than all that were given out before.
    fn timestamp(&self) -> Asking;
}

/// How often a command looks again when the leader changes under it.
const ATTEMPTS: u32 = 3;

/// What transactional commands of a store share.
#[derive(Default)]
pub(super) struct Executor {
    latches: LatchTable,
    waits: WaitTable,
    memory: Arc<Concurrency>,
    /// The terms in which a leader has made sure that no earlier one has served a later read than it knows.
    synced: Mutex<BTreeMap<RegionId, u64>>,
    pub(super) timestamps: Option<Arc<dyn Timestamps>>,
    pub(super) ts_limit: TsLimit,
    safe_point: SafePoint,
}

/// What holds while what was decided is on its way: dropped when the proposal is answered.
#[derive(Debug)]
pub(super) struct Decided {
    _published: Published,
    _latched: Latched,
    _unlocks: Unlocks,
}

/// Locks that are going to be removed. Dropped after the latches: who waits for one then looks again.
#[derive(Debug)]
struct Unlocks {
    waits: WaitTable,
    keys: Vec<Bytes>,
}

impl Unlocks {
    /// What `changes` remove of the locks that somebody waits for.
    fn of(changes: &[Modify], waits: &WaitTable) -> Unlocks {
        let mut keys = Vec::new();
        if !waits.is_empty() {
            keys.extend(changes.iter().filter_map(|change| match change {
                Modify::Delete { cf: Cf::Lock, key } => key::decode_exact(key),
                _ => None,
            }));
        }
        Unlocks { waits: waits.clone(), keys: keys.into_iter().map(Bytes::from).collect() }
    }
}

impl Drop for Unlocks {
    fn drop(&mut self) {
        for key in &self.keys {
            self.waits.wake_next(key);
        }
    }
}

/// Locks that are there for readers before they are applied.
struct Published {
    memory: Arc<Concurrency>,
    keys: Vec<Bytes>,
}

impl Drop for Published {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.memory.release(&self.keys);
        }
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.keys).finish()
    }
}

/// What came of a request for locks.
#[derive(Debug)]
pub enum Locking {
    /// It has them, or the state of a key is against it.
    Done(Result<PessimisticLockAnswer, KeyError>),
    /// Another transaction has one of the keys. In its turn the request is to be made again.
    Waits(LockWait),
}

/// What the caller of a transactional read wants to see.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// These keys, as users name them.
    Keys(&'a [Bytes]),
    /// These keys, as far as they lie in the region; the bounds as users name them.
    Range(&'a KeyRange),
}

impl Executor {
    pub(super) fn new(timestamps: Option<Arc<dyn Timestamps>>, safe_point: SafePoint) -> Executor {
        Executor { timestamps, safe_point, ..Executor::default() }
    }

    fn synced(&self) -> MutexGuard<'_, BTreeMap<RegionId, u64>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Carries out a transactional command. The inner error is about the state of its keys: nothing was written.
    ///
    /// # Errors
    /// As of raw writes.
    pub async fn txn_write<C: TxnCommand>(
        &self,
        ctx: &RequestContext,
        command: C,
    ) -> Result<Result<C::Answer, KeyError>> {
        self.decide_and_write(ctx, &command, |error| error).await
    }

    /// Takes locks for a pessimistic transaction, or a place in the queue of a key that another transaction has.
    ///
    /// # Errors
    /// As of raw writes.
    pub async fn txn_lock(
        &self,
        ctx: &RequestContext,
        command: &PessimisticLock,
    ) -> Result<Locking> {
        let waits = &self.inner().executor().waits;
        let enqueue = |error| match error {
            KeyError::Locked(locked) if waits.len() < limits::LOCK_WAITS_MAX => {
                Locking::Waits(waits.wait(locked, command.start_ts))
            }
            error => Locking::Done(Err(error)),
        };
        match self.decide_and_write(ctx, command, enqueue).await? {
            Ok(answer) => Ok(Locking::Done(Ok(answer))),
            Err(refused) => Ok(refused),
        }
    }

    /// Lets the next one have its turn who waits for the lock of a user's key: the one before has not taken it.
    pub fn wake_next(&self, key: &Bytes) {
        self.inner().executor().waits.wake_next(key);
    }

    /// How many requests wait for locks.
    pub fn lock_waits(&self) -> usize {
        self.inner().executor().waits.len()
    }

    /// Decides a command and has its changes applied. What the state of its keys is against is made into something else
    /// while the latches are held.
    async fn decide_and_write<C: TxnCommand, E>(
        &self,
        ctx: &RequestContext,
        command: &C,
        refuse: impl FnOnce(KeyError) -> E,
    ) -> Result<Result<C::Answer, E>> {
        let inner = self.inner();
        let keys = command.keys();
        inner.checks().layout.check_txn(ctx.api_version, &keys)?;
        let region = inner.checks().regions.check(ctx)?;
        for key in &keys {
            regions::check_key(&region, &key::encode(key))?;
        }
        if let Some(ts) = command.latest_ts()
            && let Err(error) = self.check_given_out(ts).await?
        {
            return Ok(Err(refuse(error)));
        }
        let key_mode = inner.latch(KeyMode::Txn).await?;
        let executor = inner.executor();
        let latched = executor.latches.acquire(keys).await;
        if let Some(ts) = command.raises_max_ts() {
            executor.memory.raise_max_ts(ts);
        }
        let collects_below = command.collects_below();
        let mut attempts = 0;
        let (term, Outcome { changes, answer }) = loop {
            attempts += 1;
            if ATTEMPTS < attempts {
                return Err(RegionError::NotLeader { region: region.id, leader: None }.into());
            }
            if command.needs_max_ts() {
                self.sync_max_ts(&region).await?;
            }
            let Some((snapshot, term)) = inner.to_decide_on(&region)? else {
                // It leads and has not applied anything of its term: whoever asks it waits for that.
                self.view_by_index(ctx).await?;
                continue;
            };
            if command.needs_max_ts() && executor.synced().get(&region.id).copied() != term {
                continue;
            }
            if let Some(start_ts) = command.begins_at()
                && let Err(error) = executor.safe_point.check_start(start_ts)
            {
                return Ok(Err(refuse(error)));
            }
            match command.run(&*snapshot, &executor.memory) {
                Ok(outcome) => break (term, outcome),
                Err(txn::Error::Key(error)) => return Ok(Err(refuse(error))),
                Err(error) => return Err(self.txn_error(error)),
            }
        };
        let keys = C::published(&answer).to_vec();
        let published = Published { memory: Arc::clone(&executor.memory), keys };
        let unlocks = Unlocks::of(&changes, &executor.waits);
        let decided = Decided { _published: published, _latched: latched, _unlocks: unlocks };
        if !changes.is_empty() {
            let action = match collects_below {
                None => Action::Changes(changes),
                Some(safe_point) => {
                    // The replicated form does it again, at every replica, when it is applied.
                    executor.safe_point.raise(safe_point);
                    Action::Collect { safe_point, changes }
                }
            };
            let command = Command { action, key_mode };
            inner.propose_decided((region, command), term, decided).await?;
        }
        Ok(Ok(answer))
    }

    /// Reads as of a version. From when this is called on nobody commits below it who has not begun to. The inner error is
    /// about the state of a key.
    ///
    /// # Errors
    /// As of raw reads.
    pub async fn txn_read<T>(
        &self,
        ctx: &RequestContext,
        wanted: Wanted<'_>,
        at: &Read<'_>,
        read: impl FnOnce(&dyn Snapshot, &Region) -> Result<T, txn::Error>,
    ) -> Result<Result<T, KeyError>> {
        // A follower would have to tell the leader of the version first.
        let ctx = &RequestContext { replica_read: false, ..*ctx };
        let inner = self.inner();
        let region = inner.checks().regions.check(ctx)?;
        match wanted {
            Wanted::Keys(keys) => {
                inner.check_txn_read(ctx, keys)?;
                for key in keys {
                    regions::check_key(&region, &key::encode(key))?;
                }
            }
            Wanted::Range(_) => inner.check_txn_read(ctx, &[])?,
        }
        if let Err(error) = self.check_given_out(at.version).await? {
            return Ok(Err(error));
        }
        let locked = {
            let memory = &inner.executor().memory;
            if at.version != TimeStamp::MAX {
                memory.raise_max_ts(at.version);
            }
            match wanted {
                Wanted::Keys(keys) => keys.iter().try_for_each(|key| memory.check_key(key, at)),
                Wanted::Range(range) => memory.check_range(range, at),
            }
        };
        if let Err(error) = locked {
            return Ok(Err(error));
        }
        let view = match self.view()?.region(ctx) {
            Err(Error::LeaseLapsed) => self.view_by_index(ctx).await?.region(ctx)?,
            view => view?,
        };
        let (snapshot, region) = view;
        if let Err(error) = inner.executor().safe_point.check_read(at.version) {
            return Ok(Err(error));
        }
        match read(&*snapshot, &region) {
            Ok(found) => Ok(Ok(found)),
            Err(txn::Error::Key(error)) => Ok(Err(error)),
            Err(error) => Err(self.txn_error(error)),
        }
    }

    /// Locks of the user's keys in `range`, as far as they lie in the region, that `filter` wants; at most `limit`, and where
    /// to go on.
    ///
    /// # Errors
    /// As of raw reads.
    pub async fn txn_locks(
        &self,
        ctx: &RequestContext,
        range: &KeyRange,
        filter: impl Fn(&Lock) -> bool,
        limit: usize,
    ) -> Result<(Vec<(Bytes, Lock)>, Option<Bytes>)> {
        let (snapshot, region) = self.txn_snapshot(ctx).await?;
        let range = range.intersect(&user_range(&region));
        txn::find_locks(&*snapshot, &range, filter, limit).map_err(|error| self.txn_error(error))
    }

    /// From when this is called on nobody commits at `version` or below who has not begun to.
    ///
    /// # Errors
    /// Inner: somebody has begun to, on a key of `range`, or no such version was given out yet. Outer: nobody knows whether
    /// it was.
    pub async fn txn_raise(
        &self,
        range: &KeyRange,
        version: TimeStamp,
    ) -> Result<Result<(), KeyError>> {
        if let Err(error) = self.check_given_out(version).await? {
            return Ok(Err(error));
        }
        let memory = &self.inner().executor().memory;
        if version != TimeStamp::MAX {
            memory.raise_max_ts(version);
        }
        Ok(memory.check_no_lock(range, version))
    }

    /// Makes sure that max_ts is not below what an earlier leader of the region has let be read: a transaction that chooses
    /// its commit timestamp here would else commit in somebody's past.
    async fn sync_max_ts(&self, region: &Region) -> Result<()> {
        let executor = self.inner().executor();
        let Some(term) = self.inner().leads_in(region.id) else { return Ok(()) };
        if executor.synced().get(&region.id) == Some(&term) {
            return Ok(());
        }
        let Some(timestamps) = &executor.timestamps else {
            // Nobody else has ever served a read.
            executor.synced().insert(region.id, term);
            return Ok(());
        };
        let now = timestamps.timestamp().await.map_err(|reason| {
            let reason = format!("the scheduler gives no timestamp: {reason}");
            RegionError::ServerIsBusy { reason, retry_after: limits::RETRY_STOPPED_AFTER }
        })?;
        executor.ts_limit.learn(now);
        executor.memory.raise_max_ts(now);
        executor.synced().insert(region.id, term);
        Ok(())
    }

    pub(super) fn txn_error(&self, error: txn::Error) -> Error {
        let error = match error {
            txn::Error::Engine(error) => error,
            other => engine::Error::Corrupt {
                path: "transactional records".into(),
                detail: other.to_string(),
            },
        };
        self.inner().on_engine_error(&error);
        error.into()
    }
}

/// The keys of a region as users name them. Bounds that are no transactional keys are no bounds: such regions hold none.
pub fn user_range(region: &Region) -> KeyRange {
    let decode = |bound: &Bytes| key::decode_exact(bound).map(Bytes::from).unwrap_or_default();
    KeyRange { start: decode(&region.range.start), end: decode(&region.range.end) }
}
