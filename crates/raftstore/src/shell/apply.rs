//! The thread that applies committed entries.
//!
//! The poll thread applies short work itself when nothing was handed over that is not done yet, so that work is always
//! done in the order in which it was given.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use types::PeerId;

use super::inbox::{Inbox, Mail};
use crate::{
    apply::{Applied, Applier, Machine, Task},
    error::Result,
    snapshot::{Descriptor, Snapshots},
    store::Input,
};

/// Entries of one piece of work that the poll thread does itself; an entry costs a few microseconds.
const INLINE_ENTRIES: usize = 64;

/// Something to apply.
#[derive(Debug)]
pub(super) enum Work {
    Task(Task),
    /// A snapshot that was received; its file is opened by who applies it.
    Install {
        peer_id: PeerId,
        descriptor: Descriptor,
    },
}

impl Work {
    /// What it costs, in entries; `None`: as long as it takes.
    fn entries(&self) -> Option<usize> {
        match self {
            Work::Task(Task::Entries { entries, .. }) => Some(entries.len()),
            Work::Task(Task::Register { .. }) => Some(0),
            Work::Task(Task::Install { .. } | Task::Destroy { .. } | Task::Sweep { .. })
            | Work::Install { .. } => None,
        }
    }
}

/// Whether the poll thread may do this itself.
pub(super) fn is_short(work: &[Work]) -> bool {
    let entries = work.iter().try_fold(0, |sum, work| Some(sum + work.entries()?));
    entries.is_some_and(|entries| entries <= INLINE_ENTRIES)
}

#[derive(Debug, Default)]
struct Asked {
    work: Vec<Work>,
    end: bool,
}

/// The applier, and what waits for it.
#[derive(Debug)]
pub(super) struct ApplyWorker<M: Machine> {
    applier: Mutex<Applier<M>>,
    snapshots: Snapshots,
    asked: Mutex<Asked>,
    bell: Condvar,
}

impl<M: Machine> ApplyWorker<M> {
    pub(super) fn new(applier: Applier<M>, snapshots: Snapshots) -> ApplyWorker<M> {
        let (asked, bell) = (Mutex::default(), Condvar::new());
        ApplyWorker { applier: Mutex::new(applier), snapshots, asked, bell }
    }

    /// Does it on the caller's thread, which knows that nothing is being done by the other.
    pub(super) fn apply(&self, work: Vec<Work>) -> Result<Vec<Applied<M::Answer>>> {
        let task = |work| match work {
            Work::Task(task) => Ok(task),
            Work::Install { peer_id, descriptor } => {
                let source = self.snapshots.source(&descriptor)?;
                let Descriptor { region, applied, .. } = descriptor;
                Ok(Task::Install { peer_id, region, applied, source })
            }
        };
        let tasks = work.into_iter().map(task).collect::<Result<Vec<Task>>>()?;
        self.applier.lock().unwrap_or_else(PoisonError::into_inner).apply(tasks)
    }

    /// Has the thread do it. It says [`Input::Applied`] once for everything that it takes at once.
    pub(super) fn ask(&self, work: Vec<Work>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.work.extend(work);
        drop(asked);
        self.bell.notify_one();
    }

    pub(super) fn end(&self) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).end = true;
        self.bell.notify_one();
    }

    /// The body of the thread.
    pub(super) fn run<W>(&self, inbox: &Arc<Inbox<M::Answer, W>>) {
        loop {
            let work = {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                while asked.work.is_empty() && !asked.end {
                    asked = self.bell.wait(asked).unwrap_or_else(PoisonError::into_inner);
                }
                if asked.end {
                    return;
                }
                std::mem::take(&mut asked.work)
            };
            let pieces = work.len();
            match self.apply(work) {
                Ok(applied) => {
                    inbox.done(Mail::Applied { applied: Input::Applied(applied), pieces })
                }
                Err(error) => {
                    inbox.fail(error);
                    return;
                }
            }
        }
    }
}
