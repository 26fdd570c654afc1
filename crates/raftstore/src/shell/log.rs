//! The thread that syncs the Raft log, and keeps house in it while nothing waits.
//!
//! The poll thread syncs the log itself when it has nothing else to do; it hands a sync over only if the writer is
//! free, so that the two never wait for each other.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::inbox::{Inbox, Mail};
use crate::store::Input;
use engine::raft_log::RaftLogWriter;

/// Bytes of housekeeping between two looks at what waits.
const HOUSEKEEPING_BYTES: u64 = 512 << 10;

/// What the thread is asked for.
#[derive(Debug, Default)]
struct Asked {
    sync: bool,
    keep_house: bool,
    end: bool,
}

/// The log's writer, and what it is asked for.
#[derive(Debug)]
pub(super) struct LogWriter {
    writer: Mutex<RaftLogWriter>,
    asked: Mutex<Asked>,
    bell: Condvar,
}

impl LogWriter {
    pub(super) fn new(writer: RaftLogWriter) -> LogWriter {
        LogWriter { writer: Mutex::new(writer), asked: Mutex::default(), bell: Condvar::new() }
    }

    /// Syncs on the caller's thread, which knows that the writer is free.
    pub(super) fn sync(&self) -> engine::raft_log::Result<engine::raft_log::Ticket> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).sync()
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
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let done = match asked.sync {
                true => writer.sync().map(|ticket| (ticket, false)),
                false => writer
                    .maintain(HOUSEKEEPING_BYTES)
                    .map(|maintenance| (maintenance.durable, maintenance.more)),
            };
            drop(writer);
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
