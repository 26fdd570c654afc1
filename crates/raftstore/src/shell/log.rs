//! The thread that syncs the Raft log, and keeps house in it while nothing waits.
//!
//! The poll thread syncs the log itself when it has nothing else to do; it hands a sync over only if the writer is
//! free, so that the two never wait for each other.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use engine::raft_log::{RaftLog, RaftLogWriter, Ticket};
use runtime::Clock;
use types::Histogram;

use super::inbox::{Inbox, Mail};
use crate::store::Input;

/// Bytes of housekeeping between two looks at what waits.
const HOUSEKEEPING_BYTES: u64 = 512 << 10;

/// What the thread is asked for.
#[derive(Debug, Default)]
struct Asked {
    sync: bool,
    keep_house: bool,
    end: bool,
}

/// What syncs of the Raft log have come to since the store was opened.
#[derive(Clone, Debug, Default)]
pub struct LogSyncs {
    /// Syncs by the entries that they made durable.
    pub entries: Histogram<16>,
    /// Syncs by their microseconds.
    pub micros: Histogram<24>,
    /// Entries that were appended up to the last one.
    appended: u64,
}

/// The log's writer, and what it is asked for.
pub(super) struct LogWriter {
    log: RaftLog,
    writer: Mutex<RaftLogWriter>,
    clock: Arc<dyn Clock>,
    done: Mutex<LogSyncs>,
    asked: Mutex<Asked>,
    bell: Condvar,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl LogWriter {
    pub(super) fn new(log: RaftLog, writer: RaftLogWriter, clock: Arc<dyn Clock>) -> LogWriter {
        let (asked, bell) = (Mutex::default(), Condvar::new());
        let done = Mutex::new(LogSyncs::default());
        LogWriter { log, writer: Mutex::new(writer), clock, done, asked, bell }
    }

    /// What syncs have come to.
    pub(super) fn syncs(&self) -> LogSyncs {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Syncs on the caller's thread, which knows that the writer is free.
    pub(super) fn sync(&self) -> engine::raft_log::Result<Ticket> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (appended, begin) = (self.log.statistics().entries, self.clock.monotonic());
        let ticket = writer.sync()?;
        let took = self.clock.monotonic().saturating_sub(begin);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut done.appended, appended);
        done.entries.add(appended.saturating_sub(before));
        done.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        Ok(ticket)
    }

    /// Has the thread sync; it says [`Input::LogSynced`], and then [`Mail::LogIdle`].
    pub(super) fn ask_sync(&self) {
        self.ask(|asked| asked.sync = true);
    }

    /// Has the thread keep house until something waits; it says [`Mail::LogIdle`].
    pub(super) fn ask_housekeeping(&self) {
        self.ask(|asked| asked.keep_house = true);
    }

    pub(super) fn end(&self) {
        self.ask(|asked| asked.end = true);
    }

    fn ask(&self, change: impl FnOnce(&mut Asked)) {
        change(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    /// The body of the thread.
    pub(super) fn run<A, W>(&self, inbox: &Arc<Inbox<A, W>>) {
        loop {
            let asked = {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                while !asked.sync && !asked.keep_house && !asked.end {
                    asked = self.bell.wait(asked).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::take(&mut *asked)
            };
            if asked.end {
                return;
            }
            let done = match asked.sync {
                true => self.sync().map(|ticket| (ticket, false)),
                false => self
                    .writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .maintain(HOUSEKEEPING_BYTES)
                    .map(|maintenance| (maintenance.durable, maintenance.more)),
            };
            match done {
                Ok((ticket, more)) => {
                    inbox.done(Mail::Done(Input::LogSynced(ticket)));
                    let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                    if more && !asked.sync && !asked.end {
                        drop(asked);
                        self.ask(|asked| asked.keep_house = true);
                    } else if !asked.sync {
                        inbox.done(Mail::LogIdle);
                    }
                }
                Err(error) => {
                    inbox.fail(error.into());
                    return;
                }
            }
        }
    }
}
