//! The commit of a transaction: one phase, asynchronous, or two phases, whichever the stores allow.
//!
//! 1. All keys are prewritten, wherever they are; locks of others in the way are resolved. If one region has all keys,
//!    that may be the commit already. If every store gave a timestamp, the transaction is committed at the largest.
//! 2. Else a timestamp is drawn and the primary is committed at it. This step decides.
//! 3. The other keys follow. Nobody has to wait for that, and if nobody does it, those who meet the locks will
//!    ([`Finished::then`]).
//!
//! Invariants:
//! 1. The result is a commit only if the transaction is committed, and a failure only if it never will be; everything
//!    else is [`Error::Undetermined`].
//! 2. Nothing is rolled back blindly that may be committed: what may be, is asked for as anybody would who met the
//!    locks (`Resolver::of_own`).

use std::time::Duration;

use types::{Bytes, TimeStamp};

use super::{
    command::{Answered, Command, CommitMode, KeyError, Mutation, Op, Prewrite, Reply},
    machine::{Input, Machine, Output, Patience, error_of, surprise},
    plan,
    resolve::{Resolver, Step, Told},
};
use crate::{Error, Result, backoff::Obstacle, error::Kind};

/// What is to be committed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The changes, sorted by key, each key once.
    pub mutations: Vec<Mutation>,
    /// One of the keys that get a lock. `None`: none does.
    pub primary: Option<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// As of when its keys were locked; zero: it is optimistic.
    pub for_update_ts: TimeStamp,
    /// When it began, on the clock of [`Machine::step`].
    pub began: Duration,
    /// How long its locks live from now on.
    pub ttl: Duration,
    /// The fewest phases that it asks for.
    pub mode: CommitMode,
}

/// How the commit ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// When the transaction committed; `None`: it had nothing to write. Or why it did not.
    pub result: Result<Option<TimeStamp>>,
    /// What is to be done about its locks. If it is not, others do it when they meet them.
    pub then: Option<Command>,
}

/// Where the commit is.
#[derive(Debug)]
enum State {
    /// The timestamp above which it has to commit is drawn.
    Floor,
    /// Keys are prewritten.
    Prewriting,
    /// Locks in the way are resolved.
    Resolving(Resolver),
    /// Locks in the way may live a while.
    Waiting,
    /// The commit timestamp is drawn.
    Drawing,
    /// The primary is committed.
    Committing(TimeStamp),
    /// Something went wrong, and it is asked what the transaction came to.
    Settling(Resolver, Error),
}

/// A commit on its way.
#[derive(Debug)]
pub struct Commit {
    plan: Plan,
    timeout: Duration,
    /// What is still to be prewritten.
    left: Prewrite,
    /// The largest timestamp that stores gave.
    min_commit_ts: TimeStamp,
    /// A prewrite was sent that asks for less than two phases.
    may_be_decided: bool,
    state: State,
    patience: Patience,
    seed: u64,
}

impl Commit {
    /// A commit that may take `timeout`, and as long again to find out what happened if that is not enough. The seed
    /// decides how waits are spread, nothing else.
    pub fn new(plan: Plan, timeout: Duration, seed: u64) -> Commit {
        let primary = plan.primary.clone().unwrap_or_default();
        let mut secondaries = locked_keys(&plan.mutations);
        let mut mode = plan.mode;
        // A check leaves no lock. Whoever meets the others could not know that it failed, and would commit them.
        let checks = secondaries.len() < plan.mutations.len();
        if checks || !plan::may_be_async(&secondaries) {
            mode = CommitMode::TwoPhase;
        }
        match mode {
            CommitMode::TwoPhase => secondaries.clear(),
            CommitMode::Async | CommitMode::OnePhase => secondaries.retain(|key| *key != primary),
        }
        let left = Prewrite {
            mutations: plan.mutations.clone(),
            primary,
            start_ts: plan.start_ts,
            for_update_ts: plan.for_update_ts,
            ttl_ms: 0,
            size: plan.mutations.len() as u64,
            min_commit_ts: TimeStamp(plan.start_ts.max(plan.for_update_ts).0 + 1),
            mode,
            secondaries,
            is_retry: false,
        };
        let patience = Patience::new("commit", timeout, seed);
        let state = State::Floor;
        let min_commit_ts = TimeStamp::ZERO;
        let may_be_decided = false;
        Commit { plan, timeout, left, min_commit_ts, may_be_decided, state, patience, seed }
    }

    fn advance(&mut self, now: Duration, input: Input) -> Result<Output<Finished>, Error> {
        if let Input::Start = input {
            return self.start(now);
        }
        match (std::mem::replace(&mut self.state, State::Waiting), input) {
            (State::Floor, Input::Timestamp(Ok(ts))) => {
                // Whoever committed before this commit began, has committed at or below `ts`.
                self.left.min_commit_ts = self.left.min_commit_ts.max(TimeStamp(ts.0 + 1));
                self.prewrite(now)
            }
            (State::Prewriting, Input::Ran(Ok(answered))) => self.on_prewritten(now, answered),
            (State::Resolving(resolver), Input::Ran(Ok(answered))) => {
                self.resolve(now, resolver, Told::Ran(answered))
            }
            (State::Resolving(resolver), Input::Timestamp(Ok(ts))) => {
                self.resolve(now, resolver, Told::Timestamp(ts))
            }
            (State::Waiting, _) => self.prewrite(now),
            (State::Drawing, Input::Timestamp(Ok(ts))) => self.on_commit_ts(now, ts),
            (State::Drawing, Input::Timer) => self.draw(),
            (State::Committing(commit_ts), Input::Ran(ran)) => self.on_committed(commit_ts, ran),
            (State::Settling(resolver, error), input) => {
                self.on_settled(now, resolver, error, input)
            }
            (_, Input::Ran(Err(error)) | Input::Timestamp(Err(error))) => Err(error),
            (state, _) => {
                let what = format!("an input that nobody asked for, in {state:?}");
                Err(Error::BadAnswer { who: "this client".to_owned(), what })
            }
        }
    }

    fn start(&mut self, now: Duration) -> Result<Output<Finished>, Error> {
        self.patience.start(now);
        if self.plan.mutations.is_empty() {
            return Ok(Output::Done(Finished { result: Ok(None), then: None }));
        }
        match self.left.mode {
            CommitMode::TwoPhase => self.prewrite(now),
            // The stores choose the timestamp, each by what it has seen.
            CommitMode::Async | CommitMode::OnePhase => {
                self.state = State::Floor;
                Ok(Output::Timestamp)
            }
        }
    }

    fn prewrite(&mut self, now: Duration) -> Result<Output<Finished>, Error> {
        let lives = now.saturating_sub(self.plan.began).saturating_add(self.plan.ttl);
        self.left.ttl_ms = u64::try_from(lives.as_millis()).unwrap_or(u64::MAX);
        self.may_be_decided |= self.left.mode != CommitMode::TwoPhase;
        self.state = State::Prewriting;
        self.patience.run(now, Command::Prewrite(self.left.clone()))
    }

    fn on_prewritten(
        &mut self,
        now: Duration,
        answered: Answered,
    ) -> Result<Output<Finished>, Error> {
        match answered.reply {
            Reply::Prewritten { one_phase_ts, .. } if one_phase_ts != TimeStamp::ZERO => {
                return Ok(Output::Done(Finished { result: Ok(Some(one_phase_ts)), then: None }));
            }
            // One that falls back takes all with it: the timestamps of the others decide nothing then.
            Reply::Prewritten { min_commit_ts: TimeStamp::ZERO, .. } => {
                self.left.mode = CommitMode::TwoPhase;
            }
            Reply::Prewritten { min_commit_ts, .. } => {
                self.min_commit_ts = self.min_commit_ts.max(min_commit_ts);
            }
            Reply::Refused => {}
            _ => return Err(surprise(&answered)),
        }
        let mut locks = Vec::new();
        for error in answered.errors {
            match error {
                KeyError::Locked(lock) => locks.push(*lock),
                error => return Err(error_of(&error, self.plan.start_ts)),
            }
        }
        if let Some(Command::Prewrite(left)) = answered.left.map(|left| *left) {
            let mode = left.mode.min(self.left.mode);
            self.left = Prewrite { mode, is_retry: true, ..left };
            return self.resolve(now, Resolver::new(locks, TimeStamp::ZERO), Told::Start);
        }
        if self.plan.primary.is_none() {
            // Nothing was written; what must not exist does not.
            return Ok(Output::Done(Finished { result: Ok(None), then: None }));
        }
        match self.left.mode {
            CommitMode::TwoPhase => self.draw(),
            CommitMode::Async | CommitMode::OnePhase => {
                let commit_ts = self.min_commit_ts;
                let then = Some(self.commit(locked_keys(&self.plan.mutations), commit_ts, false));
                Ok(Output::Done(Finished { result: Ok(Some(commit_ts)), then }))
            }
        }
    }

    fn resolve(
        &mut self,
        now: Duration,
        mut resolver: Resolver,
        told: Told,
    ) -> Result<Output<Finished>, Error> {
        let output = match resolver.step(told)? {
            Step::Run(command) => self.patience.run(now, command)?,
            Step::Timestamp => Output::Timestamp,
            Step::Done(resolved) => {
                return match resolved.alive {
                    None => self.prewrite(now),
                    Some((error, left)) => {
                        self.state = State::Waiting;
                        let wait = self.patience.wait(now, Obstacle::Lock, left, error)?;
                        Ok(Output::Wait(wait))
                    }
                };
            }
        };
        self.state = State::Resolving(resolver);
        Ok(output)
    }

    fn draw(&mut self) -> Result<Output<Finished>, Error> {
        self.state = State::Drawing;
        Ok(Output::Timestamp)
    }

    fn on_commit_ts(&mut self, now: Duration, ts: TimeStamp) -> Result<Output<Finished>, Error> {
        self.state = State::Drawing;
        if ts < self.min_commit_ts {
            // Somebody who read in the future pushed it; time passes.
            let error = error_of(
                &KeyError::CommitTooEarly { min_commit_ts: self.min_commit_ts },
                self.plan.start_ts,
            );
            let wait = self.patience.wait(now, Obstacle::Scheduler, Duration::MAX, error)?;
            return Ok(Output::Wait(wait));
        }
        self.state = State::Committing(ts);
        let command = self.commit(vec![self.left.primary.clone()], ts, true);
        self.patience.run(now, command)
    }

    fn commit(&self, keys: Vec<Bytes>, commit_ts: TimeStamp, decides: bool) -> Command {
        Command::Commit { keys, decides, start_ts: self.plan.start_ts, commit_ts }
    }

    fn on_committed(
        &mut self,
        commit_ts: TimeStamp,
        ran: Result<Answered>,
    ) -> Result<Output<Finished>, Error> {
        match ran?.errors.first() {
            None => {
                let mut keys = locked_keys(&self.plan.mutations);
                keys.retain(|key| *key != self.left.primary);
                let then = (!keys.is_empty()).then(|| self.commit(keys, commit_ts, false));
                Ok(Output::Done(Finished { result: Ok(Some(commit_ts)), then }))
            }
            Some(KeyError::CommitTooEarly { min_commit_ts }) => {
                self.min_commit_ts = self.min_commit_ts.max(*min_commit_ts);
                self.draw()
            }
            Some(error) => Err(error_of(error, self.plan.start_ts)),
        }
    }

    /// The transaction can't go on, because of `error`.
    fn fail(&mut self, now: Duration, error: Error) -> Output<Finished> {
        // A key that somebody else has written since will never be prewritten; of everything else an earlier sending
        // may still be on its way.
        let is_over = match self.may_be_decided {
            true => matches!(error, Error::WriteConflict { .. }),
            false => error.kind() != Kind::Undetermined,
        };
        match is_over {
            true => Output::Done(Finished { result: Err(error), then: self.rollback() }),
            false => self.settle(now, error),
        }
    }

    fn rollback(&self) -> Option<Command> {
        let keys = locked_keys(&self.plan.mutations);
        (!keys.is_empty()).then(|| Command::Rollback { keys, start_ts: self.plan.start_ts })
    }

    /// Asks what became of the transaction, and ends it if nothing did.
    fn settle(&mut self, now: Duration, error: Error) -> Output<Finished> {
        self.patience = Patience::new("commit", self.timeout, self.seed.wrapping_add(1));
        self.patience.start(now);
        let resolver = Resolver::of_own(self.plan.start_ts, self.left.primary.clone());
        self.settle_on(now, resolver, error, Told::Start)
    }

    fn on_settled(
        &mut self,
        now: Duration,
        resolver: Resolver,
        error: Error,
        input: Input,
    ) -> Result<Output<Finished>, Error> {
        let told = match input {
            Input::Ran(Ok(answered)) => Told::Ran(answered),
            Input::Timestamp(Ok(ts)) => Told::Timestamp(ts),
            _ => return Ok(self.settled(&resolver, error)),
        };
        Ok(self.settle_on(now, resolver, error, told))
    }

    fn settle_on(
        &mut self,
        now: Duration,
        mut resolver: Resolver,
        error: Error,
        told: Told,
    ) -> Output<Finished> {
        let output = match resolver.step(told) {
            Ok(Step::Run(command)) => self.patience.run(now, command),
            Ok(Step::Timestamp) => Ok(Output::Timestamp),
            Ok(Step::Done(_)) | Err(_) => return self.settled(&resolver, error),
        };
        match output {
            Ok(output) => {
                self.state = State::Settling(resolver, error);
                output
            }
            Err(_) => self.settled(&resolver, error),
        }
    }

    fn settled(&self, resolver: &Resolver, error: Error) -> Output<Finished> {
        let finished = match resolver.decision() {
            Some(TimeStamp::ZERO) => {
                let start_ts = self.plan.start_ts;
                let result = Err(match error {
                    Error::Undetermined { reason, .. } => Error::Aborted { start_ts, reason },
                    error => error,
                });
                Finished { result, then: self.rollback() }
            }
            Some(commit_ts) => {
                let then = Some(self.commit(locked_keys(&self.plan.mutations), commit_ts, false));
                Finished { result: Ok(Some(commit_ts)), then }
            }
            None => {
                let operation = "commit".to_owned();
                let result = Err(match error {
                    Error::Undetermined { .. } => error,
                    error => Error::Undetermined { operation, reason: error.to_string() },
                });
                Finished { result, then: None }
            }
        };
        Output::Done(finished)
    }
}

/// The keys that get a lock.
fn locked_keys(mutations: &[Mutation]) -> Vec<Bytes> {
    let locks = |mutation: &&Mutation| mutation.op != Op::CheckNotExists;
    mutations.iter().filter(locks).map(|mutation| mutation.key.clone()).collect()
}

impl Machine for Commit {
    type Result = Finished;

    fn step(&mut self, now: Duration, input: Input) -> Output<Finished> {
        match self.advance(now, input) {
            Ok(output) => output,
            Err(error) => self.fail(now, error),
        }
    }
}
