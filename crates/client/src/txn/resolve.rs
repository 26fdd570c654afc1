//! Locks in the way: what became of their transactions, and ending those whose client is gone.
//!
//! A lock names a primary, and the primary decides. A transaction whose time is over is rolled back there, unless it
//! commits asynchronously: then it is committed if all its keys are prewritten, and the keys say so together. What was
//! decided is carried out on the keys that were met.
//!
//! Invariant: nothing is done to a lock but what the primary (or all keys together) decided. Doing it twice, or by
//! several clients at once, comes to the same.
//!
//! It does not wait: who met locks waits as long as the transactions under way may still live.

use std::{collections::VecDeque, time::Duration};

use types::{Bytes, TimeStamp};

use super::{
    command::{Action, Answered, CheckStatus, Command, KeyError, Lock, Reply},
    machine::{error_of, surprise},
};
use crate::{Error, Result};

/// What came of the locks.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Transactions that live, and commit later than the reader reads: their locks are none to it.
    pub(super) pushed: Vec<TimeStamp>,
    /// The first of those that live and are in the way, and how long the one lives that ends first.
    pub(super) alive: Option<(Error, Duration)>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    Run(Command),
    Timestamp,
    Done(Resolved),
}

/// What happened.
#[derive(Debug)]
pub(super) enum Told {
    Start,
    Ran(Answered),
    Timestamp(TimeStamp),
}

/// A transaction that was met.
#[derive(Debug)]
struct Met {
    /// One of its locks.
    lock: Lock,
    /// The keys that it has locked, as far as they were met.
    keys: Vec<Bytes>,
    /// Its primary does not know it, and its time is over: it is to be rolled back.
    rollback_if_unknown: bool,
    /// It is known to have fallen back to two phases.
    force_two_phases: bool,
    /// It is the asking client's own, which has given it up: it is to end whatever time it has.
    is_own: bool,
}

#[derive(Debug)]
enum State {
    /// Waiting for the time.
    Clock,
    /// The primary is asked.
    Status(Met),
    /// All keys of an asynchronous commit are asked.
    Secondaries(Met, Box<Lock>),
    /// A decision is carried out.
    Ending,
}

/// Resolves locks.
#[derive(Debug)]
pub(super) struct Resolver {
    queue: VecDeque<Met>,
    caller_ts: TimeStamp,
    now_ts: TimeStamp,
    state: State,
    resolved: Resolved,
    /// When a transaction of whose fate this is about was committed; zero: rolled back.
    decision: Option<TimeStamp>,
}

impl Resolver {
    /// For whoever reads at `caller_ts`; zero: for a writer, who can't be let past.
    pub(super) fn new(locks: Vec<Lock>, caller_ts: TimeStamp) -> Resolver {
        let mut queue: VecDeque<Met> = VecDeque::new();
        for lock in locks {
            let known = queue.iter_mut().find(|met| {
                met.lock.start_ts == lock.start_ts
                    && met.lock.is_pessimistic == lock.is_pessimistic
                    && met.lock.primary == lock.primary
            });
            match known {
                Some(met) => met.keys.push(lock.key),
                None => queue.push_back(Met {
                    keys: vec![lock.key.clone()],
                    lock,
                    rollback_if_unknown: false,
                    force_two_phases: false,
                    is_own: false,
                }),
            }
        }
        for met in &mut queue {
            met.keys.sort_unstable();
            met.keys.dedup();
        }
        let (state, resolved) = (State::Clock, Resolved::default());
        Resolver { queue, caller_ts, now_ts: TimeStamp::ZERO, state, resolved, decision: None }
    }

    /// To find out what became of a transaction of one's own, and to end it if nothing did.
    pub(super) fn of_own(start_ts: TimeStamp, primary: Bytes) -> Resolver {
        let lock = Lock { key: primary.clone(), primary, start_ts, ..Lock::default() };
        let mut resolver = Resolver::new(vec![lock], TimeStamp::ZERO);
        if let Some(met) = resolver.queue.front_mut() {
            met.is_own = true;
            met.rollback_if_unknown = true;
        }
        resolver
    }

    /// What became of the last transaction: committed, rolled back (zero), or not known.
    pub(super) fn decision(&self) -> Option<TimeStamp> {
        self.decision
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// Stores say something that can't be.
    pub(super) fn step(&mut self, told: Told) -> Result<Step> {
        let answered = match told {
            // Who ends his own needs no clock.
            Told::Start if self.queue.iter().all(|met| met.is_own) => return self.next(),
            Told::Start => return Ok(Step::Timestamp),
            Told::Timestamp(now) => {
                self.now_ts = now;
                return self.next();
            }
            Told::Ran(answered) => answered,
        };
        match std::mem::replace(&mut self.state, State::Clock) {
            State::Status(met) => self.on_status(met, answered),
            State::Secondaries(met, primary) => self.on_secondaries(met, &primary, answered),
            State::Clock | State::Ending => match answered.errors.first() {
                Some(error) => Err(error_of(error, TimeStamp::ZERO)),
                None => self.next(),
            },
        }
    }

    /// Goes on with the next transaction.
    fn next(&mut self) -> Result<Step> {
        match self.queue.pop_front() {
            Some(met) => Ok(self.ask(met)),
            None => Ok(Step::Done(std::mem::take(&mut self.resolved))),
        }
    }

    fn ask(&mut self, met: Met) -> Step {
        let lock = &met.lock;
        let check = CheckStatus {
            primary: lock.primary.clone(),
            lock_ts: lock.start_ts,
            caller_ts: self.caller_ts,
            // A time to live of zero is how a store asks to end the transaction at once.
            current_ts: if lock.ttl_ms == 0 { TimeStamp::MAX } else { self.now_ts },
            rollback_if_unknown: met.rollback_if_unknown,
            force_two_phases: met.force_two_phases,
            met_pessimistic: lock.is_pessimistic,
        };
        self.state = State::Status(met);
        Step::Run(Command::CheckStatus(check))
    }

    fn on_status(&mut self, mut met: Met, answered: Answered) -> Result<Step> {
        match answered.errors.into_iter().next() {
            None => {}
            Some(KeyError::Unknown) => {
                // Its prewrite of the primary may still be on its way, as long as it lives.
                let left = self.left(met.lock.start_ts, met.lock.ttl_ms);
                if !left.is_zero() {
                    return self.let_live(&met, left);
                }
                met.rollback_if_unknown = true;
                return Ok(self.ask(met));
            }
            // The transaction took another key for its primary after it had failed to lock the first. That lock
            // decides nothing.
            Some(KeyError::NotPrimary) if met.lock.is_pessimistic => {
                return Ok(self.unlock(met));
            }
            Some(error) => return Err(error_of(&error, met.lock.start_ts)),
        }
        let Reply::Status { ttl_ms, commit_ts, action, lock } = answered.reply else {
            return Err(surprise(&Answered::ok(answered.reply)));
        };
        if ttl_ms == 0 {
            return Ok(match action {
                Action::Undecided => self.unlock(met),
                // What it has locked and not written is nothing to commit.
                Action::None | Action::Pushed if met.lock.is_pessimistic => self.unlock(met),
                Action::None | Action::Pushed => self.end(met.lock.start_ts, met.keys, commit_ts),
            });
        }
        let left = match met.is_own {
            true => Duration::ZERO,
            false => self.left(met.lock.start_ts, ttl_ms),
        };
        match lock {
            Some(primary) if primary.is_async && !met.force_two_phases && left.is_zero() => {
                self.ask_secondaries(met, primary)
            }
            _ if action == Action::Pushed && self.caller_ts != TimeStamp::ZERO => {
                self.resolved.pushed.push(met.lock.start_ts);
                self.next()
            }
            _ => self.let_live(&met, left),
        }
    }

    fn ask_secondaries(&mut self, met: Met, primary: Box<Lock>) -> Result<Step> {
        if primary.secondaries.is_empty() {
            let commit_ts = primary.min_commit_ts;
            return Ok(self.end_all(met, &primary, commit_ts));
        }
        let mut keys = primary.secondaries.clone();
        keys.sort_unstable();
        let start_ts = met.lock.start_ts;
        self.state = State::Secondaries(met, primary);
        Ok(Step::Run(Command::CheckSecondaries { keys, start_ts }))
    }

    fn on_secondaries(&mut self, mut met: Met, primary: &Lock, answered: Answered) -> Result<Step> {
        if let Some(error) = answered.errors.first() {
            return Err(error_of(error, met.lock.start_ts));
        }
        let Reply::Secondaries { locks, commit_ts } = answered.reply else {
            return Err(surprise(&answered));
        };
        if commit_ts != TimeStamp::ZERO {
            return Ok(self.end_all(met, primary, commit_ts));
        }
        if locks.len() < primary.secondaries.len() {
            // One is not prewritten, and now never will be.
            return Ok(self.end_all(met, primary, TimeStamp::ZERO));
        }
        if locks.iter().any(|lock| !lock.is_async) {
            met.force_two_phases = true;
            return Ok(self.ask(met));
        }
        let earliest = locks.iter().map(|lock| lock.min_commit_ts).max().unwrap_or_default();
        Ok(self.end_all(met, primary, earliest.max(primary.min_commit_ts)))
    }

    /// Carries out the decision about an asynchronous commit on all its keys.
    fn end_all(&mut self, met: Met, primary: &Lock, commit_ts: TimeStamp) -> Step {
        let mut keys = primary.secondaries.clone();
        keys.push(primary.key.clone());
        keys.extend(met.keys);
        keys.sort_unstable();
        keys.dedup();
        self.end(met.lock.start_ts, keys, commit_ts)
    }

    fn end(&mut self, start_ts: TimeStamp, keys: Vec<Bytes>, commit_ts: TimeStamp) -> Step {
        self.decision = Some(commit_ts);
        self.state = State::Ending;
        Step::Run(Command::Resolve { keys, start_ts, commit_ts })
    }

    /// Removes pessimistic locks.
    fn unlock(&mut self, met: Met) -> Step {
        self.state = State::Ending;
        let for_update_ts = match met.lock.for_update_ts {
            TimeStamp::ZERO => TimeStamp::MAX,
            ts => ts,
        };
        Step::Run(Command::Unlock { keys: met.keys, start_ts: met.lock.start_ts, for_update_ts })
    }

    /// The transaction lives.
    fn let_live(&mut self, met: &Met, left: Duration) -> Result<Step> {
        let error = Error::Locked { lock_ts: met.lock.start_ts, key: met.lock.key.clone() };
        self.resolved.alive = Some(match self.resolved.alive.take() {
            Some((first, shortest)) => (first, shortest.min(left)),
            None => (error, left),
        });
        self.next()
    }

    /// How long the transaction may still live. What the store counts in whole milliseconds is over one later.
    fn left(&self, start_ts: TimeStamp, ttl_ms: u64) -> Duration {
        let end = start_ts.physical_ms().saturating_add(ttl_ms).saturating_add(1);
        Duration::from_millis(end.saturating_sub(self.now_ts.physical_ms()))
    }
}
