//! The group commit: from the queue into the engine, one sync, then the answers.
//!
//! [`Writer::commit_once`] commits one group and may be called by any thread: the queue lets one caller lead at a
//! time. The thread "storage-write" is a loop around it; a write that comes alone is committed by who waits for it
//! ([`Duty`]), which saves two changes of threads. While a group is written and synced, callers push the next
//! one; the queue's mutex is held for the pushing and taking only, never while the disk works.
//!
//! Invariants: a ticket is answered with success only after `engine.sync` has returned for everything that the answer
//! rests on. Reads use the snapshot that was taken after the last sync, so that nobody sees a value that a crash takes
//! back; it is replaced before the answers leave, so that everybody sees what was acknowledged.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use arc_swap::ArcSwap;
use engine::{Engine, Snapshot};
use runtime::Clock;
use types::{ApiMode, ErrorClass};

use super::proposal::{Ticket, undetermined};
use crate::{
    Error, Result, Statistics,
    applier::{self, Fate, Outcome, Plan, Step},
    command::{Answer, Command},
    commit::{CommitQueue, Committed},
    key_mode::KeyModeCell,
};

/// Called once with the failure that stopped the store.
pub(super) type OnStopped = Box<dyn Fn(&engine::Error) + Send + Sync>;

/// What commits. Shared by the storage and its thread.
pub(super) struct Writer {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) api: ApiMode,
    pub(super) key_mode: KeyModeCell,
    queue: Mutex<Queue>,
    /// Rung when the thread has something to do.
    work: Condvar,
    /// Taken after the last sync.
    durable: ArcSwap<Arc<dyn Snapshot>>,
    /// Reads and writes that were asked for.
    requests: AtomicU64,
    /// The failure that stopped the store.
    stopped: OnceLock<engine::Error>,
    on_stopped: Option<OnStopped>,
}

struct Queue {
    commands: CommitQueue<Ticket>,
    /// The thread waits for work. Saves the others a system call when it does not.
    thread_waits: bool,
}

type Group = Vec<(Command, Ticket)>;

/// The duty to commit a write that came alone. Whoever drops it passes it on to the thread.
pub(super) struct Duty(Arc<Writer>);

impl Duty {
    /// Commits on this thread, unless others have come meanwhile or somebody commits already.
    pub(super) fn commit(self) {
        let writer = &self.0;
        if writer.queue().commands.is_alone(writer.requests.load(Relaxed)) {
            writer.commit_once();
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        // Does nothing if the queue is empty or led by somebody.
        self.0.ring(self.0.queue());
    }
}

impl Writer {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        api: ApiMode,
        key_mode: KeyModeCell,
        on_stopped: Option<OnStopped>,
    ) -> Result<Writer, engine::Error> {
        // What an earlier process wrote and did not sync was not acknowledged. It is here now, and reads will see it:
        // from here on it must stay.
        engine.sync()?;
        let durable = engine.snapshot()?;
        Ok(Writer {
            engine,
            clock,
            api,
            key_mode,
            queue: Mutex::new(Queue { commands: CommitQueue::new(), thread_waits: false }),
            work: Condvar::new(),
            durable: ArcSwap::from_pointee(durable),
            requests: AtomicU64::new(0),
            stopped: OnceLock::new(),
            on_stopped,
        })
    }

    /// Queues a command. The ticket is answered when it is durable, or at once if it can't be taken.
    ///
    /// With `in_place`, the thread is not rung if the caller is alone: it is given the duty to commit instead.
    pub(super) fn propose(
        self: &Arc<Self>,
        command: Command,
        ticket: Ticket,
        in_place: bool,
    ) -> Option<Duty> {
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        let mut queue = self.queue();
        let refused = queue.commands.push(command, ticket);
        let duty = (in_place && queue.commands.is_alone(requests)).then(|| Duty(self.clone()));
        if duty.is_none() {
            self.ring(queue);
        }
        if let Err((ticket, error)) = refused
            && let Some(waker) = ticket.answer(Err(error))
        {
            waker.wake();
        }
        duty
    }

    /// Commits one group on this thread. False: nothing waits, or somebody else leads at the moment.
    pub(super) fn commit_once(&self) -> bool {
        let Some(group) = self.queue().commands.lead() else { return false };
        let lead = Lead { writer: self };
        let report = self.commit(group);
        lead.end(report);
        true
    }

    /// The newest moment that is durable as a whole. Reads see nothing that a crash could still take back.
    pub(super) fn durable(&self) -> Arc<dyn Snapshot> {
        self.requests.fetch_add(1, Relaxed);
        Arc::clone(&self.durable.load())
    }

    /// The body of the thread: commits until the queue is closed and empty.
    pub(super) fn run(&self) {
        loop {
            while self.commit_once() {}
            let mut queue = self.queue();
            while !queue.commands.has_work() {
                if queue.commands.is_finished() {
                    return;
                }
                queue.thread_waits = true;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.thread_waits = false;
            }
        }
    }

    /// Takes nothing more; the thread ends when everything that waits is committed.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.commands.close();
        self.ring(queue);
    }

    /// Stops the store if `error` is one that it can't go on after.
    pub(super) fn on_engine_error(&self, error: &engine::Error) {
        if error.class() == ErrorClass::Fatal {
            self.stop(error, |_| ());
        }
    }

    /// Why the store has stopped, as an answer.
    pub(super) fn stopped(&self) -> Option<&engine::Error> {
        self.stopped.get()
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.queue().commands.statistics()
    }

    fn commit(&self, group: Group) -> Committed {
        let (commands, tickets): (Vec<Command>, Vec<Ticket>) = group.into_iter().unzip();
        let mut report = Committed { commands: commands.len(), bytes: 0, sync: None };
        let records_key_mode = commands.iter().any(|command| command.key_mode.is_some());

        let mut plan = match self.plan(commands) {
            Ok(plan) => plan,
            Err(error) => {
                // Nothing of the group has touched the engine yet: a definite answer.
                let refuse = |poisoned: &engine::Error| {
                    answer_all(
                        tickets.into_iter().map(|ticket| (ticket, Err(poisoned.clone().into()))),
                    );
                };
                self.stop(&error, refuse);
                return report;
            }
        };
        report.bytes = plan.bytes;

        let full_disk = match self.perform(&mut plan) {
            Ok(full_disk) => full_disk,
            Err((failed, error)) => {
                self.fail(&plan, tickets, failed, &error);
                return report;
            }
        };
        if plan.leaves_something(full_disk.as_ref().map(|(refused, _)| *refused)) {
            match self.sync() {
                Ok(took) => report.sync = Some(took),
                Err(error) => {
                    self.fail(&plan, tickets, plan.steps.len(), &error);
                    return report;
                }
            }
        }

        match full_disk {
            None => {
                if records_key_mode {
                    self.key_mode.note_recorded();
                }
                let answers = plan.outcomes.into_iter().map(|outcome| Ok(outcome.answer));
                answer_all(tickets.into_iter().zip(answers));
            }
            Some((refused, error)) => {
                let answer = |outcome: &Outcome| match plan.fate_on_full_disk(outcome, refused) {
                    Fate::Done => Ok(outcome.answer.clone()),
                    Fate::Refused => Err(error.clone().into()),
                    Fate::Unknown => Err(undetermined(&error)),
                };
                answer_all(tickets.into_iter().zip(plan.outcomes.iter().map(answer)));
            }
        }
        report
    }

    /// Works out what a group does. Takes a snapshot only if one of its commands reads.
    fn plan(&self, commands: Vec<Command>) -> Result<Plan, engine::Error> {
        let reads = commands.iter().any(Command::is_conditional);
        let snapshot = if reads { Some(self.engine.snapshot()?) } else { None };
        applier::apply(self.api, commands, snapshot.as_deref())
    }

    /// Does the steps of `plan`, in order. `Some`: a step was refused because the disk is full, and those behind it
    /// were not tried. An error says at which step it came.
    fn perform(
        &self,
        plan: &mut Plan,
    ) -> Result<Option<(usize, engine::Error)>, (usize, engine::Error)> {
        for (at, step) in plan.steps.iter_mut().enumerate() {
            let result = match step {
                Step::Write(batch) => self.engine.write(std::mem::take(batch)),
                Step::DeleteRange(family, range) => self.engine.delete_range(*family, range),
            };
            match result {
                Ok(()) => {}
                Err(error @ engine::Error::DiskFull { .. }) => return Ok(Some((at, error))),
                Err(error) => return Err((at, error)),
            }
        }
        Ok(None)
    }

    /// Makes what was written durable, and then visible to reads.
    fn sync(&self) -> Result<Duration, engine::Error> {
        let began = self.clock.monotonic();
        self.engine.sync()?;
        let took = self.clock.monotonic().saturating_sub(began);
        // Only the leader writes: nothing has come in since the sync began.
        self.durable.store(Arc::new(self.engine.snapshot()?));
        Ok(took)
    }

    /// Stops the store because step `failed` of a group (or its sync) failed for good.
    fn fail(&self, plan: &Plan, tickets: Vec<Ticket>, failed: usize, error: &engine::Error) {
        let answer_group = |poisoned: &engine::Error| {
            let answer = |outcome: &Outcome| match plan.fate_on_failure(outcome, failed) {
                Fate::Refused => Err(poisoned.clone().into()),
                Fate::Done | Fate::Unknown => Err(undetermined(poisoned)),
            };
            answer_all(tickets.into_iter().zip(plan.outcomes.iter().map(answer)));
        };
        self.stop(error, answer_group);
    }

    /// Stops the store for good. `answer_group` answers the group that is under way, if the leader calls this, from
    /// what everything is answered with from now on. Only the first failure counts, and is notified.
    fn stop(&self, error: &engine::Error, answer_group: impl FnOnce(&engine::Error)) {
        let poisoned = match error {
            engine::Error::Poisoned { .. } => error.clone(),
            first => engine::Error::Poisoned { cause: Arc::new(first.clone()) },
        };
        let is_first = self.stopped.set(poisoned.clone()).is_ok();
        let poisoned = self.stopped.get().unwrap_or(&poisoned);
        let mut queue = self.queue();
        let waiting = queue.commands.stop(poisoned.clone());
        self.ring(queue);
        answer_group(poisoned);
        // Never handed to the engine: definitely not there.
        answer_all(
            waiting.into_iter().map(|ticket| (ticket, Err(Error::Engine(poisoned.clone())))),
        );
        if is_first && let Some(on_stopped) = &self.on_stopped {
            on_stopped(poisoned);
        }
    }

    /// Lets the queue go and wakes the thread if there is something for it.
    fn ring(&self, queue: MutexGuard<'_, Queue>) {
        let ring =
            queue.thread_waits && (queue.commands.has_work() || queue.commands.is_finished());
        drop(queue);
        if ring {
            self.work.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every method of the queue leaves it whole, also when an assertion in a test strikes.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lead of one group. Ends when it is dropped, so that a panic below stops the store instead of hanging it.
struct Lead<'w> {
    writer: &'w Writer,
}

impl Lead<'_> {
    fn end(self, report: Committed) {
        let mut queue = self.writer.queue();
        queue.commands.release(report, self.writer.requests.load(Relaxed));
        self.writer.ring(queue);
        std::mem::forget(self);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Only a panic comes here: `end` forgets the lead.
        self.writer.queue().commands.release(Committed::default(), 0);
        let bug = engine::Error::Corrupt {
            path: "the write path".into(),
            detail: "a bug ended the commit of a group half way; see the message of the panic"
                .to_owned(),
        };
        // The tickets of the group answer by themselves when the panic drops them.
        self.writer.stop(&bug, |_| ());
    }
}

/// Puts all answers before it wakes anybody: who waits for several finds them together, and is woken once if the
/// answers follow each other.
fn answer_all(answers: impl IntoIterator<Item = (Ticket, Result<Answer>)>) {
    let mut wakers: Vec<Waker> = Vec::new();
    for (ticket, answer) in answers {
        if let Some(waker) = ticket.answer(answer)
            && !wakers.last().is_some_and(|last| last.will_wake(&waker))
        {
            wakers.push(waker);
        }
    }
    for waker in wakers {
        waker.wake();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("engine", &self.engine)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}
