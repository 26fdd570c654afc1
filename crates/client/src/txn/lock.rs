//! Pessimistic locks: keys are taken before it is known what is written to them, and their newest values are read.
//!
//! A key that was written since the lock was asked for is asked for again as of a later time: the value that comes
//! back is always the newest, and nobody changes it any more.
//!
//! If it fails, what was locked by it is taken back ([`Finished::then`]); what the transaction had locked before stays.

use std::time::Duration;

use types::{Bytes, TimeStamp};

use super::{
    command::{Answered, Command, KeyError, LockKeys, Reply},
    machine::{Input, Machine, Output, Patience, error_of, surprise},
    resolve::{Resolver, Step, Told},
};
use crate::{Error, Result, backoff::Obstacle, request::Pair};

/// Longest that a store may let a lock request wait for somebody else: then the one who has the key is looked at.
const WAIT_AT_STORE: Duration = Duration::from_secs(1);

/// What a transaction wants to know of keys that it locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// Their newest values.
    Values,
    /// That none of them exists; else it does not want the locks.
    Absence,
}

/// What is to be locked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which keys, sorted, each once.
    pub keys: Vec<Bytes>,
    /// Those of them that the transaction has locked before: they stay locked whatever happens here.
    pub held: Vec<Bytes>,
    /// What is to be known of them.
    pub wish: Wish,
    /// The key at which the transaction will be decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// When it began, on the clock of [`Machine::step`].
    pub began: Duration,
    /// How long its locks live from now on.
    pub ttl: Duration,
    /// It has no other lock.
    pub is_first: bool,
}

/// The locked keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Locked {
    /// Those that exist, with their values, sorted, if values were asked for.
    pub pairs: Vec<Pair>,
    /// As of when they were locked.
    pub for_update_ts: TimeStamp,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The locked keys, or why they are not.
    pub result: Result<Locked>,
    /// What is to be done about those that were. If it is not, others do it when they meet them.
    pub then: Option<Command>,
}

#[derive(Debug)]
enum State {
    /// The time as of which is drawn.
    Drawing,
    /// Keys are being locked.
    Locking,
    /// Locks in the way are resolved.
    Resolving(Box<Resolver>),
}

/// Locks on their way.
#[derive(Debug)]
pub struct Lock {
    plan: Plan,
    for_update_ts: TimeStamp,
    /// What is still to be locked.
    left: Vec<Bytes>,
    pairs: Vec<Pair>,
    state: State,
    patience: Patience,
}

impl Lock {
    /// Locks in at most `timeout`. The seed decides how waits are spread, nothing else.
    pub fn new(plan: Plan, timeout: Duration, seed: u64) -> Lock {
        Lock {
            left: plan.keys.clone(),
            plan,
            for_update_ts: TimeStamp::ZERO,
            pairs: Vec::new(),
            state: State::Drawing,
            patience: Patience::new("lock", timeout, seed),
        }
    }

    fn advance(&mut self, now: Duration, input: Input) -> Result<Output<Finished>> {
        match (std::mem::replace(&mut self.state, State::Drawing), input) {
            (_, Input::Start) => {
                self.patience.start(now);
                Ok(Output::Timestamp)
            }
            (State::Drawing, Input::Timestamp(ts)) => {
                // As of this moment all is locked anew: what was seen before may be old.
                self.for_update_ts = ts?;
                self.left = self.plan.keys.clone();
                self.pairs.clear();
                self.lock(now)
            }
            (State::Drawing, _) => Ok(Output::Timestamp),
            (State::Locking, Input::Ran(answered)) => self.on_answer(now, answered?),
            (State::Locking, _) => self.lock(now),
            (State::Resolving(resolver), Input::Ran(answered)) => {
                self.resolve(now, resolver, Told::Ran(answered?))
            }
            (State::Resolving(resolver), Input::Timestamp(ts)) => {
                self.resolve(now, resolver, Told::Timestamp(ts?))
            }
            (State::Resolving(_), Input::Timer) => self.lock(now),
        }
    }

    fn lock(&mut self, now: Duration) -> Result<Output<Finished>> {
        let lives = now.saturating_sub(self.plan.began).saturating_add(self.plan.ttl);
        let command = Command::Lock(LockKeys {
            keys: self.left.clone(),
            must_not_exist: self.plan.wish == Wish::Absence,
            wants_values: self.plan.wish == Wish::Values,
            primary: self.plan.primary.clone(),
            start_ts: self.plan.start_ts,
            for_update_ts: self.for_update_ts,
            ttl_ms: u64::try_from(lives.as_millis()).unwrap_or(u64::MAX),
            is_first: self.plan.is_first && self.plan.keys.len() == 1,
            wait_ms: u64::try_from(WAIT_AT_STORE.as_millis()).unwrap_or(u64::MAX),
        });
        self.state = State::Locking;
        self.patience.run(now, command)
    }

    fn on_answer(&mut self, now: Duration, mut answered: Answered) -> Result<Output<Finished>> {
        match answered.reply {
            Reply::Pairs(ref mut pairs) => self.pairs.append(pairs),
            Reply::Refused => {}
            _ => return Err(surprise(&answered)),
        }
        let (mut locks, mut newer) = (Vec::new(), None);
        for error in answered.errors {
            match error {
                KeyError::Locked(lock) => locks.push(*lock),
                KeyError::Conflict { commit_ts, .. } if commit_ts != TimeStamp::ZERO => {
                    newer = Some(error_of(&error, self.plan.start_ts));
                }
                error => return Err(error_of(&error, self.plan.start_ts)),
            }
        }
        if let Some(error) = newer {
            let wait = self.patience.wait(now, Obstacle::Conflict, Duration::MAX, error)?;
            return Ok(match wait.is_zero() {
                true => Output::Timestamp,
                false => Output::Wait(wait),
            });
        }
        let Some(left) = answered.left else {
            self.pairs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            let pairs = std::mem::take(&mut self.pairs);
            let locked = Locked { pairs, for_update_ts: self.for_update_ts };
            return Ok(Output::Done(Finished { result: Ok(locked), then: None }));
        };
        if let Command::Lock(left) = *left {
            self.left = left.keys;
        }
        self.resolve(now, Box::new(Resolver::new(locks, TimeStamp::ZERO)), Told::Start)
    }

    fn resolve(
        &mut self,
        now: Duration,
        mut resolver: Box<Resolver>,
        told: Told,
    ) -> Result<Output<Finished>> {
        let output = match resolver.step(told)? {
            Step::Run(command) => self.patience.run(now, command)?,
            Step::Timestamp => Output::Timestamp,
            Step::Done(resolved) => {
                return match resolved.alive {
                    None => self.lock(now),
                    Some((error, left)) => {
                        self.state = State::Locking;
                        let wait = self.patience.wait(now, Obstacle::Lock, left, error)?;
                        Ok(Output::Wait(wait))
                    }
                };
            }
        };
        self.state = State::Resolving(resolver);
        Ok(output)
    }
}

impl Machine for Lock {
    type Result = Finished;

    fn step(&mut self, now: Duration, input: Input) -> Output<Finished> {
        self.advance(now, input).unwrap_or_else(|error: Error| {
            let (start_ts, for_update_ts) = (self.plan.start_ts, self.for_update_ts);
            let mut keys = self.plan.keys.clone();
            keys.retain(|key| !self.plan.held.contains(key));
            // Nothing was asked for before there was a time.
            let is_any = for_update_ts != TimeStamp::ZERO && !keys.is_empty();
            let then = is_any.then_some(Command::Unlock { keys, start_ts, for_update_ts });
            Output::Done(Finished { result: Err(error), then })
        })
    }
}
