//! One read of a snapshot: asks, gets locks out of the way, and asks for the rest.
//!
//! Invariant: what is returned is what was committed at or before the version, whatever happens meanwhile.

use std::time::Duration;

use types::TimeStamp;

use super::{
    command::{Answered, Command, KeyError, ReadAt, Reply},
    machine::{Input, Machine, Output, Patience, error_of, surprise},
    resolve::{Resolver, Step, Told},
};
use crate::{Error, Result, backoff::Obstacle, request::Pair};

/// A read on its way.
#[derive(Debug)]
pub struct Read {
    /// What is still to be read.
    left: Option<Command>,
    pairs: Vec<Pair>,
    resolver: Option<Resolver>,
    patience: Patience,
}

impl Read {
    /// `command` is a get, batch get or scan. The seed decides how waits are spread, nothing else.
    pub fn new(command: Command, timeout: Duration, seed: u64) -> Read {
        let patience = Patience::new(command.name(), timeout, seed);
        Read { left: Some(command), pairs: Vec::new(), resolver: None, patience }
    }

    fn advance(&mut self, now: Duration, input: Input) -> Result<Output<Result<Vec<Pair>>>> {
        let told = match input {
            Input::Start => {
                self.patience.start(now);
                return self.ask(now);
            }
            Input::Timer => return self.ask(now),
            Input::Timestamp(ts) => Told::Timestamp(ts?),
            Input::Ran(answered) => Told::Ran(answered?),
        };
        match (self.resolver.take(), told) {
            (Some(resolver), told) => self.resolve(now, resolver, told),
            (None, Told::Ran(answered)) => self.on_answer(now, answered),
            (None, _) => self.ask(now),
        }
    }

    fn ask(&mut self, now: Duration) -> Result<Output<Result<Vec<Pair>>>> {
        match &self.left {
            Some(command) => self.patience.run(now, command.clone()),
            None => Ok(Output::Done(Ok(std::mem::take(&mut self.pairs)))),
        }
    }

    fn on_answer(
        &mut self,
        now: Duration,
        mut answered: Answered,
    ) -> Result<Output<Result<Vec<Pair>>>> {
        match answered.reply {
            Reply::Pairs(ref mut pairs) => self.pairs.append(pairs),
            Reply::Refused => {}
            _ => return Err(surprise(&answered)),
        }
        let version = self.at().map(|at| at.version).unwrap_or_default();
        self.left = answered.left.map(|left| *left);
        let mut locks = Vec::new();
        for error in answered.errors {
            match error {
                KeyError::Locked(lock) => locks.push(*lock),
                error => return Err(error_of(&error, version)),
            }
        }
        if locks.is_empty() {
            return self.ask(now);
        }
        self.resolve(now, Resolver::new(locks, version), Told::Start)
    }

    fn resolve(
        &mut self,
        now: Duration,
        mut resolver: Resolver,
        told: Told,
    ) -> Result<Output<Result<Vec<Pair>>>> {
        let output = match resolver.step(told)? {
            Step::Run(command) => self.patience.run(now, command)?,
            Step::Timestamp => Output::Timestamp,
            Step::Done(resolved) => {
                if let Some(at) = self.at() {
                    at.resolved.extend(resolved.pushed);
                    at.resolved.sort_unstable();
                    at.resolved.dedup();
                }
                return match resolved.alive {
                    None => self.ask(now),
                    Some((error, left)) => {
                        let wait = self.patience.wait(now, Obstacle::Lock, left, error)?;
                        Ok(Output::Wait(wait))
                    }
                };
            }
        };
        self.resolver = Some(resolver);
        Ok(output)
    }

    fn at(&mut self) -> Option<&mut ReadAt> {
        match self.left.as_mut()? {
            Command::Get { at, .. } | Command::BatchGet { at, .. } | Command::Scan { at, .. } => {
                Some(at)
            }
            _ => None,
        }
    }
}

impl Machine for Read {
    type Result = Result<Vec<Pair>>;

    fn step(&mut self, now: Duration, input: Input) -> Output<Result<Vec<Pair>>> {
        self.advance(now, input).unwrap_or_else(|error: Error| Output::Done(Err(error)))
    }
}

/// A read at `version` that knows nothing of locks.
pub fn at(version: TimeStamp) -> ReadAt {
    ReadAt { version, resolved: Vec::new() }
}
