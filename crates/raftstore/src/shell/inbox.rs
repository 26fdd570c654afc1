//! The poll thread's inbox: bounded for those outside, always open for the store's own threads.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use raft::MessageBody as RaftBody;
use runtime::Bell;
use types::{RegionError, limits};

use crate::{
    error::Error,
    message::{MessageBody, StoreMessage},
    store::{Input, RequestKind},
};

use super::poll::Wanted;

/// When a caller whom a full inbox has refused may come again: a few turns later.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// What a message takes beside the data of its entries.
const MESSAGE_COST: usize = 256;

/// Something for the poll thread.
#[derive(Debug)]
pub(super) enum Mail<A, W> {
    /// A client or the scheduler wants something.
    Request(Wanted<W>),
    /// A message of another store.
    Message(Box<StoreMessage>),
    /// Another thread of the store has done something.
    Done(Input<A>),
    /// The apply thread has done so many pieces of work.
    Applied { applied: Input<A>, pieces: usize },
    /// The log's writer is free again.
    LogIdle,
}

#[derive(Debug)]
struct Queue<A, W> {
    mail: VecDeque<Mail<A, W>>,
    requests: usize,
    request_bytes: usize,
    message_bytes: usize,
    /// The poll thread sleeps: whoever puts something rings.
    is_asleep: bool,
    is_closed: bool,
}

/// What waits for the poll thread.
#[derive(Debug)]
pub(super) struct Inbox<A, W> {
    queue: Mutex<Queue<A, W>>,
    bell: Bell,
    failure: OnceLock<Error>,
}

impl<A, W> Inbox<A, W> {
    pub(super) fn new() -> Inbox<A, W> {
        let queue = Queue {
            mail: VecDeque::new(),
            requests: 0,
            request_bytes: 0,
            message_bytes: 0,
            is_asleep: false,
            is_closed: false,
        };
        Inbox { queue: Mutex::new(queue), bell: Bell::default(), failure: OnceLock::new() }
    }

    /// Puts a request; gives it back with the reason if there is no room.
    pub(super) fn request(&self, wanted: Wanted<W>) -> Result<(), Box<(Wanted<W>, RegionError)>> {
        let bytes = cost(&wanted.kind);
        let mut queue = self.queue();
        let reason = if queue.is_closed {
            "the store is stopping"
        } else if limits::WRITES_WAITING_MAX <= queue.requests {
            "too many requests wait"
        } else if 0 < queue.requests
            && limits::WRITE_BYTES_WAITING_MAX < queue.request_bytes + bytes
        {
            "too many bytes wait to be written"
        } else {
            queue.requests += 1;
            queue.request_bytes += bytes;
            queue.mail.push_back(Mail::Request(wanted));
            self.ring(queue);
            return Ok(());
        };
        drop(queue);
        let reason = reason.to_owned();
        Err(Box::new((wanted, RegionError::ServerIsBusy { reason, retry_after: RETRY_AFTER })))
    }

    /// Puts as many messages as there is room for; returns how many.
    pub(super) fn messages(&self, messages: Vec<StoreMessage>) -> usize {
        let mut queue = self.queue();
        let mut taken = 0;
        for message in messages {
            let cost = message_cost(&message);
            let is_full = 0 < queue.message_bytes
                && limits::RAFT_BYTES_WAITING_MAX < queue.message_bytes + cost;
            if queue.is_closed || is_full {
                break;
            }
            queue.message_bytes += cost;
            queue.mail.push_back(Mail::Message(Box::new(message)));
            taken += 1;
        }
        if 0 < taken {
            self.ring(queue);
        }
        taken
    }

    /// Puts what one of the store's own threads has done.
    pub(super) fn done(&self, mail: Mail<A, W>) {
        let mut queue = self.queue();
        queue.mail.push_back(mail);
        self.ring(queue);
    }

    /// Takes everything, into `into`, which is empty. Waits for something for as long as `patience`.
    pub(super) fn take(&self, into: &mut VecDeque<Mail<A, W>>, patience: Duration) {
        let mut queue = self.queue();
        if queue.mail.is_empty() && !queue.is_closed && !patience.is_zero() {
            queue.is_asleep = true;
            queue = self.bell.wait(queue, patience);
            queue.is_asleep = false;
        }
        std::mem::swap(&mut queue.mail, into);
        (queue.requests, queue.request_bytes, queue.message_bytes) = (0, 0, 0);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue().mail.is_empty()
    }

    /// How many requests wait.
    pub(super) fn requests(&self) -> usize {
        self.queue().requests
    }

    /// Takes nothing from outside any more.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.is_closed = true;
        self.ring(queue);
    }

    /// The store can't go on. Only the first cause counts.
    pub(super) fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        self.close();
    }

    /// Why the store can't go on.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue().is_closed
    }

    fn ring(&self, queue: MutexGuard<'_, Queue<A, W>>) {
        let rings = queue.is_asleep;
        drop(queue);
        if rings {
            self.bell.ring();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<A, W>> {
        // Nothing in here panics between two changes that belong together.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(kind: &RequestKind) -> usize {
    match kind {
        RequestKind::Write { command, .. }
        | RequestKind::WriteIn { command, .. }
        | RequestKind::Free { command, .. } => command.len(),
        _ => 0,
    }
}

fn message_cost(message: &StoreMessage) -> usize {
    let data = match &message.body {
        MessageBody::Raft { message, .. } => match &message.body {
            RaftBody::Append { entries, .. } => entries.iter().map(|entry| entry.data.len()).sum(),
            RaftBody::Snapshot(snapshot) => snapshot.data.len(),
            _ => 0,
        },
        _ => 0,
    };
    MESSAGE_COST + data
}
