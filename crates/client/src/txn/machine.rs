//! What the machines of this module have in common.
//!
//! A machine does one thing at a time: every [`Output`] but `Done` is answered by exactly one [`Input`]. What goes to
//! many stores at once is one command, which a [`Call`](crate::Call) carries out.

use std::time::Duration;

use types::TimeStamp;

use super::command::{Answered, Command, KeyError};
use crate::{
    Error,
    backoff::{Backoff, Obstacle},
};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin. The first input, once.
    Start,
    /// The command is carried out, or was given up.
    Ran(Result<Answered, Error>),
    /// A timestamp, later than every one that was given out before it was asked for.
    Timestamp(Result<TimeStamp, Error>),
    /// The wait is over.
    Timer,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<T> {
    /// Carry out a command, within `timeout`; answer `Ran`.
    Run {
        /// What.
        command: Command,
        /// How long it may take, retries included.
        timeout: Duration,
    },
    /// Draw a timestamp; answer `Timestamp`.
    Timestamp,
    /// Answer `Timer` after so long.
    Wait(Duration),
    /// The machine is at its end.
    Done(T),
}

/// A step machine of this module.
pub trait Machine {
    /// What it comes to.
    type Result;

    /// Takes in what happened at `now` (a monotonic reading) and says what to do.
    fn step(&mut self, now: Duration, input: Input) -> Output<Self::Result>;
}

/// A machine whose timestamps are asked for until there is one, as long as there is time.
#[derive(Debug)]
pub struct Insistent<M> {
    machine: M,
    patience: Patience,
    is_waiting: bool,
}

impl<M> Insistent<M> {
    /// `machine`, and how long one timestamp may take. The seed decides how waits are spread, nothing else.
    pub fn new(machine: M, timeout: Duration, seed: u64) -> Insistent<M> {
        let patience = Patience::new("timestamp", timeout, seed);
        Insistent { machine, patience, is_waiting: false }
    }
}

impl<M: Machine> Machine for Insistent<M> {
    type Result = M::Result;

    fn step(&mut self, now: Duration, input: Input) -> Output<M::Result> {
        let output = match input {
            Input::Timestamp(Err(error)) if error.is_retryable() => {
                match self.patience.wait(now, Obstacle::Scheduler, Duration::MAX, error) {
                    Ok(wait) => {
                        self.is_waiting = true;
                        return Output::Wait(wait);
                    }
                    Err(error) => self.machine.step(now, Input::Timestamp(Err(error))),
                }
            }
            Input::Timer if self.is_waiting => {
                self.is_waiting = false;
                return Output::Timestamp;
            }
            input => self.machine.step(now, input),
        };
        if let Output::Timestamp = output {
            self.patience.start(now);
        }
        output
    }
}

/// How long a machine goes on: its time, its waits, and what first went wrong.
#[derive(Debug)]
pub(super) struct Patience {
    operation: &'static str,
    timeout: Duration,
    started: Duration,
    backoff: Backoff,
    first_error: Option<Error>,
}

impl Patience {
    pub(super) fn new(operation: &'static str, timeout: Duration, seed: u64) -> Patience {
        let (started, backoff) = (Duration::ZERO, Backoff::new(seed));
        Patience { operation, timeout, started, backoff, first_error: None }
    }

    /// Its time begins.
    pub(super) fn start(&mut self, now: Duration) {
        self.started = now;
    }

    fn left(&self, now: Duration) -> Duration {
        self.started.saturating_add(self.timeout).saturating_sub(now)
    }

    /// Runs a command in the time that is left.
    ///
    /// # Errors
    /// None is.
    pub(super) fn run<T>(&mut self, now: Duration, command: Command) -> Result<Output<T>, Error> {
        match self.left(now) {
            Duration::ZERO => Err(self.give_up(now)),
            timeout => Ok(Output::Run { command, timeout }),
        }
    }

    /// How long to wait because of `error`, at most `at_most`.
    ///
    /// # Errors
    /// The wait would last longer than there is time; with the first reason.
    pub(super) fn wait(
        &mut self,
        now: Duration,
        obstacle: Obstacle,
        at_most: Duration,
        error: Error,
    ) -> Result<Duration, Error> {
        self.first_error.get_or_insert(error);
        let duration = self.backoff.next(obstacle).min(at_most);
        if self.left(now) <= duration {
            return Err(self.give_up(now));
        }
        Ok(duration)
    }

    fn give_up(&mut self, now: Duration) -> Error {
        Error::Timeout {
            operation: self.operation.to_owned(),
            after: now.saturating_sub(self.started),
            cause: self.first_error.take().map(Box::new),
        }
    }
}

/// The error of a transaction for one that stores gave.
pub(super) fn error_of(error: &KeyError, start_ts: TimeStamp) -> Error {
    let aborted = |reason: &str| Error::Aborted { start_ts, reason: reason.to_owned() };
    match error {
        KeyError::Locked(lock) => Error::Locked { lock_ts: lock.start_ts, key: lock.key.clone() },
        KeyError::Conflict { commit_ts: TimeStamp::ZERO, .. } => {
            aborted("somebody who met its locks has ended it")
        }
        KeyError::Conflict { key, commit_ts } => {
            Error::WriteConflict { start_ts, conflict_commit_ts: *commit_ts, key: key.clone() }
        }
        KeyError::Exists { key } => Error::KeyExists { key: key.clone() },
        KeyError::Deadlock { key, lock_ts } => {
            Error::Deadlock { start_ts, lock_ts: *lock_ts, key: key.clone() }
        }
        KeyError::CommitTooEarly { .. } => aborted("its commit came too early"),
        KeyError::Unknown => aborted("its primary does not know it"),
        KeyError::LockNotFound { .. } => aborted("its locks are gone"),
        KeyError::NotPrimary => aborted("it has another primary"),
        KeyError::Aborted(reason) => aborted(reason),
    }
}

/// An answer of another kind than the command's would be a bug of `plan.rs`.
pub(super) fn surprise(answered: &Answered) -> Error {
    Error::BadAnswer { who: "this client".to_owned(), what: format!("{:?}", answered.reply) }
}
