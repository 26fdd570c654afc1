//! The life sign of a transaction that takes long: as long as it is given, nobody ends the transaction.
//!
//! Whoever drives it stops when the transaction ends. It ends by itself when the primary does not know the transaction
//! any more, or when the transaction is older than any should be.

use std::time::Duration;

use types::{Bytes, TimeStamp, limits};

use super::{
    command::Command,
    machine::{Input, Machine, Output},
};

/// Prolongs a transaction.
#[derive(Debug)]
pub struct HeartBeat {
    primary: Bytes,
    start_ts: TimeStamp,
    began: Duration,
    ttl: Duration,
}

impl HeartBeat {
    /// For the transaction `start_ts` that began at `began`, on the clock of [`Machine::step`], and whose locks live
    /// for `ttl` after each beat.
    pub fn new(primary: Bytes, start_ts: TimeStamp, began: Duration, ttl: Duration) -> HeartBeat {
        HeartBeat { primary, start_ts, began, ttl }
    }
}

impl Machine for HeartBeat {
    type Result = ();

    fn step(&mut self, now: Duration, input: Input) -> Output<()> {
        let lives = now.saturating_sub(self.began);
        match input {
            _ if limits::CLIENT_TXN_LIFE < lives => Output::Done(()),
            Input::Ran(Ok(answered)) if !answered.errors.is_empty() => Output::Done(()),
            Input::Timer => Output::Run {
                command: Command::HeartBeat {
                    primary: self.primary.clone(),
                    start_ts: self.start_ts,
                    ttl_ms: u64::try_from((lives + self.ttl).as_millis()).unwrap_or(u64::MAX),
                },
                timeout: self.ttl / 2,
            },
            // Also after a failure: the next one may get through.
            Input::Start | Input::Ran(_) | Input::Timestamp(_) => Output::Wait(self.ttl / 2),
        }
    }
}
