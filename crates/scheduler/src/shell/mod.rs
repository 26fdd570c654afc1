//! The scheduler of a process: the core behind a mutex, its log behind a thread.
//!
//! A request takes the mutex for the call alone, never over I/O; its records join the batch that the log writer takes
//! next. If its answer rests on something that is not durable yet it waits, outside of the mutex.
//!
//! Invariant: the order of records in the batch is the order of the calls, since both happen under the same mutex.

mod log_writer;
mod progress;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use engine::data_dir::{DataDir, Expected, Identity, LockedDir, Owner, Role};
use runtime::{Clock, Fs, Rng, task};
use types::{
    ApiMode, ClusterId, TimeStamp,
    limits::{SCHEDULER_LOG_BYTES, SCHEDULER_LOG_BYTES_WAITING_MAX},
};

use crate::{
    Answer, Error, LogPosition, Now, Order, Result, ScheduleConfig, Scheduler,
    storage::{Batch, Recovered, Storage},
};
use progress::{Progress, Wait};

/// How a scheduler is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which commands the cluster takes. Fixed by the first start.
    pub api_mode: ApiMode,
    /// The id of this member. Fixed by the first start; not 0, which clients take for "none".
    pub member_id: u64,
    /// Draws the cluster id at the first start, and then what placement chooses among equals.
    pub rng: Rng,
    /// Bytes of the log from which on it is replaced by a snapshot.
    pub log_bytes: u64,
    /// The settings of placement.
    pub schedule: ScheduleConfig,
}

impl Options {
    /// The usual ones.
    pub fn new(api_mode: ApiMode, rng: Rng) -> Options {
        let (log_bytes, schedule) = (SCHEDULER_LOG_BYTES, ScheduleConfig::default());
        Options { api_mode, member_id: 1, rng, log_bytes, schedule }
    }

    /// Gives a scheduler what is not recorded.
    fn apply(mut self, scheduler: &mut Scheduler) {
        scheduler.set_schedule_config(self.schedule);
        scheduler.set_rng(self.rng.fork());
    }
}

/// The scheduler of a process. Clones are handles to the same one; when the last is dropped it shuts down.
#[derive(Clone, Debug)]
pub struct SchedulerHandle {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    cluster_id: ClusterId,
    api_mode: ApiMode,
    member_id: u64,
    log_writer: Mutex<Option<JoinHandle<()>>>,
    /// Locked until the log writer is gone. `None`: everything is in memory.
    _dir: Option<DataDir>,
}

/// What requests and the log writer share.
struct Shared {
    clock: Arc<dyn Clock>,
    inside: Mutex<Inside>,
    /// There are records to write, or no more will come.
    work: Condvar,
    progress: Progress,
    /// Nothing is written, and everything counts as durable.
    in_memory: bool,
}

struct Inside {
    scheduler: Scheduler,
    /// What the log writer takes next.
    batch: Batch,
    /// No more requests are taken.
    closing: bool,
}

impl SchedulerHandle {
    /// Starts the scheduler in its own folder `dir`, a new one or one that an earlier start left.
    ///
    /// # Errors
    /// `Storage`: the folder is locked, belongs to something else, has a newer format, is damaged; or the machine
    /// refuses an operation.
    pub fn open(
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        mut options: Options,
    ) -> Result<SchedulerHandle> {
        let locked = LockedDir::lock(Arc::clone(&fs), dir)?;
        let (data_dir, mut scheduler, storage) = if locked.is_new() && Storage::is_begun(&*fs, dir)?
        {
            // A creation that was cut short just before its last step, or FORMAT was removed: never begin again over
            // what may be a cluster's ids and timestamps.
            let (scheduler, storage) = recover(fs, dir, options.log_bytes)?;
            if scheduler.api_mode() != options.api_mode {
                let (cluster, request) = (scheduler.api_mode(), options.api_mode);
                return Err(Error::ApiModeMismatch { cluster, request });
            }
            let owner = Owner::Scheduler { id: options.member_id };
            let (cluster_id, api_mode) = (scheduler.cluster_id(), scheduler.api_mode());
            let data_dir = locked.create(Identity { cluster_id, api_mode, owner })?;
            (data_dir, scheduler, storage)
        } else if locked.is_new() {
            let cluster_id = draw_cluster_id(&*clock, &mut options.rng);
            let scheduler = Scheduler::new(cluster_id, options.api_mode);
            let (records, position) = (scheduler.snapshot(), scheduler.position());
            let storage = Storage::create(fs, dir, &records, position, options.log_bytes)?;
            let owner = Owner::Scheduler { id: options.member_id };
            let data_dir =
                locked.create(Identity { cluster_id, api_mode: options.api_mode, owner })?;
            (data_dir, scheduler, storage)
        } else {
            let api_mode = Some(options.api_mode);
            let expected = Expected { role: Role::Scheduler, cluster_id: None, api_mode };
            let data_dir = locked.open(&expected, &mut |_| Ok(()))?;
            let (scheduler, storage) = recover(fs, data_dir.path(), options.log_bytes)?;
            let identity = data_dir.identity();
            if (scheduler.cluster_id(), scheduler.api_mode())
                != (identity.cluster_id, identity.api_mode)
            {
                let detail = "SNAPSHOT is of another cluster than FORMAT".to_owned();
                return Err(engine::Error::Corrupt { path: dir.to_owned(), detail }.into());
            }
            (data_dir, scheduler, storage)
        };
        let member_id = match data_dir.identity().owner {
            Owner::Scheduler { id } => id,
            Owner::Store { .. } => options.member_id,
        };
        options.apply(&mut scheduler);
        let shared = Arc::new(Shared::new(clock, scheduler, false));
        let for_writer = Arc::clone(&shared);
        let log_writer =
            task::spawn("scheduler-log", move || log_writer::run(&for_writer, storage));
        let log_writer = log_writer.map_err(|error| engine::Error::Io {
            operation: "start of a thread",
            path: dir.to_owned(),
            source: Arc::new(error),
        })?;
        Ok(SchedulerHandle::new(shared, member_id, Some(log_writer), Some(data_dir)))
    }

    /// Starts a new cluster's scheduler that keeps nothing.
    pub fn in_memory(clock: Arc<dyn Clock>, mut options: Options) -> SchedulerHandle {
        let cluster_id = draw_cluster_id(&*clock, &mut options.rng);
        let mut scheduler = Scheduler::new(cluster_id, options.api_mode);
        let member_id = options.member_id;
        options.apply(&mut scheduler);
        let shared = Arc::new(Shared::new(clock, scheduler, true));
        SchedulerHandle::new(shared, member_id, None, None)
    }

    fn new(
        shared: Arc<Shared>,
        member_id: u64,
        log_writer: Option<JoinHandle<()>>,
        dir: Option<DataDir>,
    ) -> SchedulerHandle {
        let (cluster_id, api_mode) = {
            let inside = shared.inside.lock().unwrap_or_else(PoisonError::into_inner);
            (inside.scheduler.cluster_id(), inside.scheduler.api_mode())
        };
        let log_writer = Mutex::new(log_writer);
        SchedulerHandle {
            inner: Arc::new(Inner {
                shared,
                cluster_id,
                api_mode,
                member_id,
                log_writer,
                _dir: dir,
            }),
        }
    }

    /// The id of the cluster. Never changes, never 0.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster_id
    }

    /// Which commands the cluster takes. Never changes.
    pub fn api_mode(&self) -> ApiMode {
        self.inner.api_mode
    }

    /// The id of this member. Never changes.
    pub fn member_id(&self) -> u64 {
        self.inner.member_id
    }

    /// Makes a request: calls a method of [`Scheduler`], waits until its answer may be seen, returns it.
    ///
    /// The call happens when the future is first polled; if the answer rests on durable records, which is the rule,
    /// the future is ready there and then. Dropping it later does not undo the call.
    ///
    /// # Errors
    /// Those of the call; `Busy` while the disk is too slow; `Poisoned`, `Panicked` or `ShutDown` once it has stopped.
    pub async fn run<T>(
        &self,
        call: impl FnOnce(&mut Scheduler, Now) -> Result<Answer<T>>,
    ) -> Result<T> {
        self.submit(call).await
    }

    /// [`run`](SchedulerHandle::run) for whoever makes many requests in a row: the call happens now, in the order of
    /// the submissions, and what is returned waits until the answer may be seen. One sync then serves all of them.
    ///
    /// # Errors
    /// As `run`, when it is waited for.
    pub fn submit<T, F>(&self, call: F) -> impl Future<Output = Result<T>> + use<T, F>
    where
        F: FnOnce(&mut Scheduler, Now) -> Result<Answer<T>>,
    {
        let stepped = self.inner.shared.step(call);
        async move {
            let (answer, wait) = stepped?;
            wait.over().await?;
            answer
        }
    }

    /// [`run`](SchedulerHandle::run) for threads. Must not be called by a task of a runtime.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_blocking<T>(
        &self,
        call: impl FnOnce(&mut Scheduler, Now) -> Result<Answer<T>>,
    ) -> Result<T> {
        let (answer, wait) = self.inner.shared.step(call)?;
        wait.over_blocking()?;
        answer
    }

    /// [`Scheduler::tso`].
    ///
    /// # Errors
    /// As `run` and [`Scheduler::tso`].
    pub async fn tso(&self, count: u32) -> Result<TimeStamp> {
        self.run(|scheduler, now| scheduler.tso(now, count)).await
    }

    /// [`Scheduler::take_orders`]: waits until they may be seen.
    ///
    /// # Errors
    /// As `run`.
    pub async fn take_orders(&self) -> Result<Vec<Order>> {
        self.run(|scheduler, _| Ok(scheduler.take_orders())).await
    }

    /// Lets time pass ([`Scheduler::tick`]). Whoever owns the process calls this every
    /// [`TSO_UPDATE_INTERVAL`](types::limits::TSO_UPDATE_INTERVAL), from a timer that it has anyway; it returns at
    /// once. Without it there is no placement, and some requests for timestamps wait for a sync.
    pub fn tick(&self) {
        let ticked = self.inner.shared.step(|scheduler, now| {
            scheduler.tick(now);
            Ok(Answer { value: (), after: LogPosition::default() })
        });
        // A stopped scheduler has no time.
        drop(ticked);
    }

    /// Is ready once the scheduler has stopped: with the failure, or `ShutDown`. Does not keep it alive.
    pub fn stopped(&self) -> impl Future<Output = Error> + Send + use<> {
        let shared = Arc::clone(&self.inner.shared);
        async move { shared.progress.stopped().await }
    }

    /// Takes no more requests, writes and syncs what was recorded, and returns when that is done and the thread is
    /// gone. Blocks. The folder stays locked until the last handle is dropped.
    ///
    /// # Errors
    /// The failure by which it had stopped before.
    pub fn shutdown(&self) -> Result<()> {
        self.inner.close();
        match self.inner.shared.progress.check() {
            Ok(()) | Err(Error::ShutDown) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    fn close(&self) {
        let shared = &self.shared;
        shared.inside.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        shared.work.notify_all();
        let mut log_writer = self.log_writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = log_writer.take()
            && thread.join().is_err()
        {
            shared.progress.stop(&Error::Panicked);
        }
        shared.progress.stop(&Error::ShutDown);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn new(clock: Arc<dyn Clock>, scheduler: Scheduler, in_memory: bool) -> Shared {
        let position = scheduler.position();
        let batch = Batch::new(position);
        Shared {
            clock,
            inside: Mutex::new(Inside { scheduler, batch, closing: false }),
            work: Condvar::new(),
            progress: Progress::new(position),
            in_memory,
        }
    }

    /// Makes a call; returns its answer and what to wait for before anybody may see it.
    fn step<T>(
        &self,
        call: impl FnOnce(&mut Scheduler, Now) -> Result<Answer<T>>,
    ) -> Result<(Result<T>, Wait)> {
        let mut inside = self.lock()?;
        self.progress.check()?;
        if inside.closing {
            return Err(Error::ShutDown);
        }
        if SCHEDULER_LOG_BYTES_WAITING_MAX <= inside.batch.len() {
            return Err(Error::Busy { reason: "the disk of the scheduler's log is too slow" });
        }
        let now = Now { monotonic: self.clock.monotonic(), wall_ms: self.clock.wall_ms() };
        let answer = call(&mut inside.scheduler, now);
        self.collect(&mut inside);
        let (answer, after) = match answer {
            Ok(Answer { value, after }) => (Ok(value), after),
            // A refusal rests on everything before it.
            Err(error) => (Err(error), inside.scheduler.position()),
        };
        drop(inside);
        Ok((answer, self.progress.wait_for(after)))
    }

    /// Hands the records of a call to the log writer.
    fn collect(&self, inside: &mut Inside) {
        let records = inside.scheduler.take_outbox();
        if self.in_memory {
            return self.progress.advance(inside.scheduler.position());
        }
        if records.is_empty() {
            return;
        }
        let was_empty = inside.batch.is_empty();
        records.iter().for_each(|record| inside.batch.push(record));
        if was_empty {
            self.work.notify_one();
        }
    }

    /// Fails for good once a call has panicked while it held the mutex: the state is in nobody knows which shape.
    fn lock(&self) -> Result<MutexGuard<'_, Inside>> {
        self.inside.lock().map_err(|_| {
            self.progress.stop(&Error::Panicked);
            Error::Panicked
        })
    }
}

impl Inside {
    fn take_batch(&mut self) -> Batch {
        std::mem::replace(&mut self.batch, Batch::new(self.scheduler.position()))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Scheduler(cluster {}, {}, member {})",
            self.cluster_id, self.api_mode, self.member_id
        )
    }
}

/// What an earlier start left in its folder.
fn recover(fs: Arc<dyn Fs>, dir: &Path, log_bytes: u64) -> Result<(Scheduler, Storage)> {
    let corrupt =
        |detail: &str| engine::Error::Corrupt { path: dir.to_owned(), detail: detail.to_owned() };
    let Recovered { storage, records, position, .. } = Storage::open(fs, dir, log_bytes)?;
    let scheduler = Scheduler::recover(records, position).map_err(corrupt)?;
    Ok((scheduler, storage))
}

/// Seconds since 1970 and 32 random bits, as PD has it: unique without asking anybody, and never 0.
fn draw_cluster_id(clock: &dyn Clock, rng: &mut Rng) -> ClusterId {
    let seconds = clock.wall().as_secs() & u64::from(u32::MAX);
    ClusterId((seconds << 32 | rng.range(0..=u64::from(u32::MAX))).max(1))
}

#[cfg(test)]
mod tests;
