//! The write path of a replicated store: commands become entries of their region's log.
//!
//! A region with one voter takes the same way: its log is the journal of the engine, and one sync of it answers all
//! writes that came together (docs/walks/put.md).

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use engine::{Engine, Snapshot, WriteBatch, raft_log::RaftLog};
use raftstore::{
    StoreConfig, StoreMessage,
    shell::{
        self, Events, HasRoom, Inbox, Parts, StoreHandle, StoreShell, Transport, Views, Waiter,
    },
    snapshot::Snapshots,
    split_check::KeyForm,
    store::{RequestKind, Response, check_read},
};
use runtime::{Clock, Rng};
use types::{ApiMode, ErrorClass, KeyMode, PeerId, Region, RegionEpoch, RegionError, RegionId};

use super::proposal::{Slot, Ticket};
use crate::{
    Error, Result,
    command::{Answer, Command},
    entry, identity,
    key_mode::KeyModeCell,
    machine::CommandMachine,
};

/// What a replicated store is made of, beside its engine.
pub struct Replication {
    /// The store's settings.
    pub config: StoreConfig,
    /// The interval of its ticks.
    pub tick: std::time::Duration,
    /// The log of all regions.
    pub log: RaftLog,
    /// Its other end.
    pub log_writer: engine::raft_log::RaftLogWriter,
    /// The files of region snapshots.
    pub snapshots: Snapshots,
    /// The way to other stores.
    pub transport: Arc<dyn Transport>,
    /// Who hears of what happens.
    pub events: Arc<dyn Events>,
    /// Draws election timeouts.
    pub rng: Rng,
    /// Whether the disk has room for more than what is under way.
    pub has_room: HasRoom,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The way into the replicated store of a [`Storage`](super::Storage): for messages of other stores, and for what the
/// scheduler wants. Clones are the same way. No call blocks.
#[derive(Clone, Debug)]
pub struct RaftHandle(pub(super) StoreHandle<Answer, Ticket>);

impl RaftHandle {
    /// Does what the scheduler wants. Nobody waits; what can't be done is asked for again.
    pub fn admin(&self, region: RegionId, epoch: RegionEpoch, kind: RequestKind) {
        self.0.admin(region, epoch, kind);
    }

    /// Has every region reported that is led here.
    pub fn report_all(&self) {
        self.0.report_all();
    }

    /// A region as the scheduler knows it, as [`Events::ask_region`] wanted.
    pub fn region_known(&self, region: Region) {
        self.0.region_known(region);
    }

    /// What is known of the peers of this store.
    pub fn views(&self) -> &Arc<Views> {
        self.0.views()
    }
}

impl Inbox for RaftHandle {
    fn deliver(&self, messages: Vec<StoreMessage>) -> usize {
        self.0.deliver(messages)
    }

    fn snapshot_sent(&self, region_id: RegionId, to: PeerId, arrived: bool) {
        self.0.snapshot_sent(region_id, to, arrived);
    }

    fn unreachable(&self, region_id: RegionId, peer: PeerId) {
        self.0.unreachable(region_id, peer);
    }
}

/// A store whose regions are replicated.
pub(super) struct Replicated {
    engine: Arc<dyn Engine>,
    pub(super) handle: RaftHandle,
    shell: Mutex<Option<StoreShell<Answer, Ticket>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) key_mode: Arc<KeyModeCell>,
    log: RaftLog,
    /// Whether the scheduler remembers the key mode beside this store.
    has_latch: bool,
    /// That were proposed.
    commands: AtomicU64,
}

impl fmt::Debug for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Replicated {
    pub(super) fn start(
        machine: CommandMachine,
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        key_mode: KeyModeCell,
        has_latch: bool,
        replication: Replication,
    ) -> Result<Replicated> {
        let Replication {
            config,
            tick,
            log,
            log_writer,
            snapshots,
            transport,
            events,
            rng,
            has_room,
        } = replication;
        let api = machine.api;
        let parts = Parts {
            engine: Arc::clone(&engine),
            log: log.clone(),
            log_writer,
            snapshots,
            machine,
            transport,
            events,
            clock: Arc::clone(&clock),
            rng,
        };
        let key_mode = Arc::new(key_mode);
        let mode = Arc::clone(&key_mode);
        let key_form = Arc::new(move || match (api, mode.get()) {
            (ApiMode::V2, _) | (ApiMode::V1, Some(KeyMode::Txn)) => KeyForm::Encoded,
            (ApiMode::V1 | ApiMode::V1Ttl, _) => KeyForm::Raw,
        });
        let shell = StoreShell::start(shell::Options { config, tick, key_form, has_room }, parts)
            .map_err(|error| Error::Engine(to_engine(&error)))?;
        let handle = RaftHandle(shell.handle().clone());
        let shell = Mutex::new(Some(shell));
        let commands = AtomicU64::new(0);
        Ok(Replicated { engine, handle, shell, clock, key_mode, log, has_latch, commands })
    }

    /// Proposes a command to the region for which it was checked; only in `term`, if it was decided by what was applied
    /// in that.
    pub(super) fn propose(
        &self,
        region: &Region,
        command: Command,
        term: Option<u64>,
        ticket: Ticket,
    ) {
        if let Some(mode) = command.key_mode
            && let Err(error) = self.record_key_mode(mode)
        {
            if let Some(waker) = ticket.answer(Err(error.into())) {
                waker.wake();
            }
            return;
        }
        let keys = command.key_bounds().unwrap_or_else(|| {
            // A batch of nothing is still written by the leader only.
            (region.range.start.clone(), region.range.start.clone())
        });
        let entry = entry::encode(&command.action);
        self.commands.fetch_add(1, Ordering::Relaxed);
        let (first, last) = keys;
        let kind = match (term, command.frees()) {
            (Some(term), frees) => {
                RequestKind::WriteIn { term, frees, first, last, command: entry }
            }
            (None, true) => RequestKind::Free { first, last, command: entry },
            (None, false) => RequestKind::Write { first, last, command: entry },
        };
        self.handle.0.ask(region.id, region.epoch, kind, ticket);
    }

    /// Writes down what the scheduler has decided. If that gets lost, the scheduler is asked again; if there is none,
    /// it must not get lost.
    fn record_key_mode(&self, mode: KeyMode) -> engine::Result<()> {
        let mut batch = WriteBatch::new();
        identity::record_key_mode(&mut batch, mode);
        self.engine.write(batch)?;
        if !self.has_latch {
            self.engine.sync()?;
        }
        self.key_mode.note_recorded();
        Ok(())
    }

    /// Asks the leader whether a read may see the state; the slot is answered when it may.
    pub(super) fn ask(&self, region: &Region, replica_read: bool) -> Arc<Slot> {
        let (slot, ticket) = Slot::new();
        self.handle.0.read((region.id, region.epoch), replica_read, ticket);
        slot
    }

    /// Has a region cut.
    pub(super) fn ask_split(&self, region: &Region, kind: RequestKind, ticket: Ticket) {
        self.handle.0.ask(region.id, region.epoch, kind, ticket);
    }

    /// What is applied now, and the term in which what is decided by it may be proposed. `None`: this peer does not lead,
    /// or has not applied everything that earlier leaders have left.
    pub(super) fn to_decide_on(
        &self,
        region: RegionId,
    ) -> engine::Result<Option<(Arc<dyn Snapshot>, u64)>> {
        let views = self.handle.views();
        let moment = views.moment();
        let snapshot = self.engine.snapshot()?;
        Ok(views.leads_in(region, moment).map(|term| (snapshot, term)))
    }

    /// What is applied now.
    pub(super) fn snapshot(&self) -> engine::Result<Arc<dyn Snapshot>> {
        self.engine.snapshot()
    }

    /// A snapshot for a read that was granted in a term, and the region in it.
    pub(super) fn granted(
        &self,
        region: &Region,
        term: u64,
    ) -> Result<(Arc<dyn Snapshot>, Arc<Region>)> {
        let snapshot = self.engine.snapshot()?;
        match check_read(&*snapshot, region.id, region.epoch.version, term) {
            Ok(region) => Ok((snapshot, Arc::new(region))),
            Err(Ok(error)) => Err(error.into()),
            Err(Err(error)) => Err(to_engine(&error).into()),
        }
    }

    /// Removes ranges from this store alone, on a thread of its own.
    pub(super) fn destroy(&self, command: Command, ticket: Ticket) {
        let engine = Arc::clone(&self.engine);
        let ticket = Arc::new(Mutex::new(Some(ticket)));
        let answer = {
            let ticket = Arc::clone(&ticket);
            move |result| {
                let ticket = ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waker) = ticket.and_then(|ticket: Ticket| ticket.answer(result)) {
                    waker.wake();
                }
            }
        };
        let work = answer.clone();
        let spawned = runtime::task::spawn("destroy-range", move || {
            let done =
                command.ranges().try_for_each(|(family, range)| engine.delete_range(family, range));
            work(done.and_then(|()| engine.sync()).map(|()| Answer::Done).map_err(Error::from));
        });
        if let Err(error) = spawned {
            answer(Err(Error::InvalidRequest(format!("the machine gives no thread: {error}"))));
        }
    }

    /// Stops the store if `error` is one that it can't go on after.
    pub(super) fn on_engine_error(&self, error: &engine::Error) {
        if error.class() == ErrorClass::Fatal {
            self.handle.0.fail(raftstore::Error::Engine(error.clone()));
        }
    }

    /// Why the store has stopped, as an answer.
    pub(super) fn stopped(&self) -> Option<engine::Error> {
        let cause = Arc::new(to_engine(self.handle.0.failure()?));
        Some(engine::Error::Poisoned { cause })
    }

    pub(super) fn statistics(&self) -> crate::Statistics {
        let log = self.log.statistics();
        let syncs = self.handle.0.log_syncs();
        crate::Statistics {
            groups: log.groups,
            commands: self.commands.load(Ordering::Relaxed),
            syncs: log.groups,
            bytes: log.written_bytes,
            waiting: self.handle.0.waiting() as u64,
            group_sizes: syncs.entries,
            sync_micros: syncs.micros,
            ..crate::Statistics::default()
        }
    }

    pub(super) fn close(&self) {
        let shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(shell) = shell {
            shell.stop();
        }
    }
}

impl Waiter<Answer> for Ticket {
    fn answer(self, result: Result<Response<Answer>, RegionError>) -> Option<Waker> {
        Ticket::answer(
            self,
            match result {
                Ok(Response::Written(answer)) => Ok(answer),
                Ok(Response::Changed(regions)) => Ok(Answer::Changed(regions)),
                Ok(Response::Begun) => Ok(Answer::Done),
                Err(error) => Err(error.into()),
            },
        )
    }

    fn may_read(self, term: u64) -> Option<Waker> {
        Ticket::answer(self, Ok(Answer::Readable { term }))
    }
}

/// The engine's form of what has stopped a store.
pub(super) fn to_engine(error: &raftstore::Error) -> engine::Error {
    match error {
        raftstore::Error::Engine(error) => error.clone(),
        raftstore::Error::Log(engine::raft_log::Error::Failed(error)) => error.clone(),
        other => engine::Error::Corrupt {
            path: Path::new("the store").to_owned(),
            detail: other.to_string(),
        },
    }
}
