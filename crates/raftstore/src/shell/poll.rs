//! The thread that owns the store: takes what waits, steps the machine, performs what it says.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

use runtime::Clock;
use types::{RegionEpoch, RegionError, RegionId, limits};

use super::{
    Events, HasRoom, Transport, Views, Waiter,
    apply::{self, ApplyWorker, Work},
    handle::ANY_STORE,
    inbox::{Inbox, Mail},
    jobs::Job,
    log::LogWriter,
    views::TickTimes,
};
use crate::{
    apply::Machine,
    error::Result,
    message::{MessageBody, StoreMessage},
    snapshot::{Descriptor, Snapshots},
    store::{Input, Output, Request, RequestKind, Response, Store, Token},
};

/// Pieces of mail between two turns: more only make everybody wait longer.
const MAIL_PER_TURN: usize = 4096;

/// With more requests waiting the log's thread syncs: so the next ones are taken meanwhile, which is worth its wake-up.
const INLINE_WAITERS: usize = 4;

/// Ticks that are made up for: less than the time after which somebody campaigns.
const TICKS_AT_ONCE: u32 = 4;

/// What somebody wants of a region.
#[derive(Debug)]
pub(super) struct Wanted<W> {
    pub(super) region_id: RegionId,
    pub(super) epoch: RegionEpoch,
    pub(super) kind: RequestKind,
    pub(super) waiter: Option<W>,
}

/// What the poll thread has.
pub(super) struct Poll<M: Machine, W> {
    pub(super) store: Store<M::Answer>,
    pub(super) inbox: Arc<Inbox<M::Answer, W>>,
    pub(super) views: Arc<Views>,
    pub(super) log: Arc<LogWriter>,
    pub(super) apply: Arc<ApplyWorker<M>>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) syncs: mpsc::Sender<Job>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) events: Arc<dyn Events>,
    pub(super) snapshots: Snapshots,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tick: Duration,
    pub(super) has_room: HasRoom,
    pub(super) state: PollState<W>,
}

/// What the poll thread remembers between turns.
pub(super) struct PollState<W> {
    waiters: HashMap<Token, W>,
    last_token: u64,
    ticks: TickTimes,
    next_tick: Duration,
    /// Something was handed to the log's thread, and the writer is not known to be free again.
    log_busy: bool,
    /// Something was appended since the log's thread kept house.
    log_grew: bool,
    /// What was said of the disk last.
    is_disk_full: bool,
    /// Pieces of work that were handed to the apply thread and are not done.
    applying: usize,
    /// What this turn has come to.
    letters: Vec<StoreMessage>,
    wakers: Vec<Waker>,
    work: Vec<Work>,
    must_sync: bool,
}

impl<W> PollState<W> {
    pub(super) fn new(now: Duration, tick: Duration) -> PollState<W> {
        PollState {
            waiters: HashMap::new(),
            last_token: 0,
            ticks: TickTimes::new(now),
            next_tick: now + tick,
            log_busy: false,
            log_grew: false,
            is_disk_full: false,
            applying: 0,
            letters: Vec::new(),
            wakers: Vec::new(),
            work: Vec::new(),
            must_sync: false,
        }
    }
}

impl<M: Machine, W: Waiter<M::Answer>> Poll<M, W> {
    /// Does what the store wants at its start, so that its regions are known when it is said to run.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.settle()
    }

    /// The body of the thread.
    pub(super) fn run(mut self) {
        if let Err(error) = self.poll() {
            self.inbox.fail(error);
        }
        self.end();
    }

    /// Turns until the inbox is closed or the store has failed.
    fn poll(&mut self) -> Result<()> {
        let mut mail = VecDeque::new();
        loop {
            let patience = self.state.next_tick.saturating_sub(self.clock.monotonic());
            self.inbox.take(&mut mail, patience);
            if self.inbox.failure().is_some() || (mail.is_empty() && self.inbox.is_closed()) {
                self.refuse(mail);
                return Ok(());
            }
            // Ticks first: a lease must not seem longer than it is.
            self.tick_if_due()?;
            while !mail.is_empty() {
                let batch = mail.len().min(MAIL_PER_TURN);
                for mail in mail.drain(..batch) {
                    self.step(mail)?;
                }
                self.settle()?;
            }
            self.settle()?;
        }
    }

    /// Delivers the ticks that are due: leases and promises are counted in them, so that none is left out. After a long
    /// pause only a few are, since the messages of that time are still to be read; leases are forgotten then.
    fn tick_if_due(&mut self) -> Result<()> {
        let now = self.clock.monotonic();
        if now < self.state.next_tick {
            return Ok(());
        }
        for _ in 0..TICKS_AT_ONCE {
            if now < self.state.next_tick {
                break;
            }
            self.state.next_tick += self.tick;
            self.state.ticks.begin(now);
            self.store.step(Input::Tick)?;
        }
        if self.state.next_tick <= now {
            self.state.next_tick = now + self.tick;
            self.store.step(Input::TimeLost)?;
        }
        let is_full = !(self.has_room)();
        if is_full != self.state.is_disk_full {
            self.state.is_disk_full = is_full;
            self.store.step(Input::DiskFull(is_full))?;
        }
        if self.state.log_grew && !self.state.log_busy {
            (self.state.log_grew, self.state.log_busy) = (false, true);
            self.log.ask_housekeeping();
        }
        Ok(())
    }

    fn step(&mut self, mail: Mail<M::Answer, W>) -> Result<()> {
        match mail {
            Mail::Request(Wanted { region_id, epoch, kind, waiter }) => {
                self.state.last_token += 1;
                let token = Token(self.state.last_token);
                if let Some(waiter) = waiter {
                    self.state.waiters.insert(token, waiter);
                }
                let store_id = ANY_STORE;
                self.store.step(Input::Request(Request { token, region_id, epoch, store_id, kind }))
            }
            Mail::Message(message) => self.store.step(Input::Message(message)),
            Mail::Done(input) => self.store.step(input),
            Mail::Applied { applied, pieces } => {
                self.state.applying -= pieces;
                self.store.step(applied)
            }
            Mail::LogIdle => {
                self.state.log_busy = false;
                Ok(())
            }
        }
    }

    /// Turns until there is nothing to do but wait.
    fn settle(&mut self) -> Result<()> {
        loop {
            for output in self.store.turn()? {
                self.perform(output);
            }
            self.send();
            let is_calm = self.inbox.is_empty();
            if !self.state.work.is_empty() {
                let work = std::mem::take(&mut self.state.work);
                if is_calm && self.state.applying == 0 && apply::is_short(&work) {
                    let applied = self.apply.apply(work)?;
                    self.store.step(Input::Applied(applied))?;
                    continue;
                }
                self.state.applying += work.len();
                self.apply.ask(work);
            }
            if !self.state.must_sync {
                return Ok(());
            }
            (self.state.must_sync, self.state.log_grew) = (false, true);
            let many = INLINE_WAITERS < self.state.waiters.len();
            if self.state.log_busy || !is_calm || many {
                self.state.log_busy = true;
                self.log.ask_sync();
                return Ok(());
            }
            let ticket = self.log.sync()?;
            self.store.step(Input::LogSynced(ticket))?;
        }
    }

    fn perform(&mut self, output: Output<M::Answer>) {
        match output {
            Output::Send(message) => self.post(message),
            Output::SyncLog => self.state.must_sync = true,
            Output::Apply(task) => self.state.work.push(Work::Task(task)),
            Output::Install { peer_id, descriptor } => {
                self.state.work.push(Work::Install { peer_id, descriptor });
            }
            // The threads end after this one.
            Output::SyncEngine => drop(self.syncs.send(Job::SyncEngine)),
            Output::MakeSnapshot { region_id } => {
                drop(self.jobs.send(Job::MakeSnapshot { region_id }));
            }
            Output::ForgetSnapshot { region_id, applied } => {
                drop(self.jobs.send(Job::ForgetSnapshot { region_id, applied }));
            }
            Output::ForgetMade { region_id, applied } => {
                drop(self.jobs.send(Job::ForgetMade { region_id, applied }));
            }
            Output::Reply { token, result } => self.answer(token, result),
            Output::Read { token, term, .. } => {
                let waiter = self.state.waiters.remove(&token);
                self.wake(waiter.and_then(|waiter| waiter.may_read(term)));
            }
            Output::View(view) => self.views.put(*view, &self.state.ticks),
            Output::Lease { region_id, lease } => {
                self.views.renew(region_id, lease, &self.state.ticks);
            }
            Output::Gone { region_id } => self.views.remove(region_id),
            Output::Report(report) => self.events.report(*report),
            Output::AskRegion { region_id } => self.events.ask_region(region_id),
            Output::CheckSplit(job) => drop(self.jobs.send(Job::CheckSplit(job))),
            Output::ComputeHash(job) => drop(self.jobs.send(Job::ComputeHash(job))),
            Output::Inconsistent { region, index, own, leaders } => {
                self.events.inconsistent(region, index, own, leaders);
            }
            Output::AskSplit { region, keys } => self.events.ask_split(region, keys),
            Output::WasSplit { regions } => self.events.was_split(regions),
        }
    }

    fn answer(&mut self, token: Token, result: Result<Response<M::Answer>, RegionError>) {
        let waiter = self.state.waiters.remove(&token);
        self.wake(waiter.and_then(|waiter| waiter.answer(result)));
    }

    fn wake(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker
            && !self.state.wakers.last().is_some_and(|last| last.will_wake(&waker))
        {
            self.state.wakers.push(waker);
        }
    }

    fn post(&mut self, message: Box<StoreMessage>) {
        if let MessageBody::Raft { message: raft, .. } = &message.body
            && let raft::MessageBody::Snapshot(snapshot) = &raft.body
        {
            // What this store has put together itself can be read.
            let Ok(descriptor) = Descriptor::decode(&snapshot.data) else { return };
            let file = self.snapshots.made(descriptor.region.id, descriptor.applied);
            self.transport.send_snapshot(message, descriptor, file);
            return;
        }
        self.state.letters.push(*message);
    }

    /// Sends the letters, after the views of the same turn are known, and wakes whoever was answered.
    fn send(&mut self) {
        if !self.state.letters.is_empty() {
            self.transport.send(std::mem::take(&mut self.state.letters));
        }
        for waker in self.state.wakers.drain(..) {
            waker.wake();
        }
    }

    /// What never reached the store: nothing has happened.
    fn refuse(&mut self, mail: VecDeque<Mail<M::Answer, W>>) {
        for mail in mail {
            if let Mail::Request(Wanted { waiter: Some(waiter), .. }) = mail {
                let reason = "the store has stopped".to_owned();
                let retry_after = limits::RETRY_STOPPED_AFTER;
                let error = RegionError::ServerIsBusy { reason, retry_after };
                self.wake(waiter.answer(Err(error)));
            }
        }
    }

    /// Answers everything that waits: nobody knows what becomes of it.
    fn end(mut self) {
        self.inbox.close();
        for region in self.views.all() {
            self.views.remove(region.region.id);
        }
        let mut mail = VecDeque::new();
        self.inbox.take(&mut mail, Duration::ZERO);
        self.refuse(mail);
        for waiter in std::mem::take(&mut self.state.waiters).into_values() {
            let reason = "the store stopped in the middle of it".to_owned();
            self.wake(waiter.answer(Err(RegionError::Undetermined { reason })));
        }
        self.send();
        self.log.end();
        self.apply.end();
        if let Some(error) = self.inbox.failure() {
            self.events.stopped(error);
        }
    }
}
