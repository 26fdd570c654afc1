//! What waits for one store.
//!
//! Two queues: appends, and all other messages, which are small and go first. So the heartbeats, votes and answers of
//! a store do not wait for megabytes of entries, and the leases that hang on them do not end under load. Appends of a
//! region stay in order among each other, those without entries too: one that overtook entries would be rejected, and
//! make its leader slow. For all else Raft does not mind.
//!
//! Filled by the thread that steps the regions, which must never wait: what does not fit, or can't go because the store
//! is not there, is dropped at once. Whom that may have made unreachable is remembered and told later, by the task of the
//! connection: the thread that sends is the one that would have to hear it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use raft::MessageBody;
use raftstore::{StoreMessage, message::MessageBody as StoreBody};
use tokio::sync::Notify;
use types::{PeerId, RegionId, StoreId, limits};

use super::{
    counters::{Counter, Counters},
    wire,
};

/// Peers that messages could not be sent to.
pub(super) type Lost = BTreeSet<(RegionId, PeerId)>;

/// What waits for one store. Shared by those who send and the task that carries it away.
#[derive(Debug)]
pub(super) struct Outbox {
    store: StoreId,
    state: Mutex<State>,
    /// Something was lost, and nobody has taken note of it yet.
    lost: Notify,
    /// The store has just been heard of.
    heard: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// All messages but appends.
    control: Lane,
    appends: Lane,
    /// Whether messages are taken: not while the store is known not to be there.
    is_open: bool,
    /// Numbers the streams: what an ended one would still take is lost.
    stream: u64,
    /// Who carries away, if it waits.
    carrier: Option<Waker>,
    lost: Lost,
}

#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    message: StoreMessage,
    weight: usize,
}

impl Lane {
    fn fits(&self, weight: usize) -> bool {
        self.messages.len() < limits::TRANSPORT_MESSAGES_WAITING_MAX
            && self.bytes + weight <= limits::TRANSPORT_BYTES_WAITING_MAX
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.weight;
        self.messages.push_back(waiting);
    }

    /// Moves messages to `batch`, which weighs `bytes` so far, until it is full.
    fn fill(&mut self, batch: &mut Vec<StoreMessage>, bytes: &mut usize) {
        while let Some(next) = self.messages.front() {
            if !batch.is_empty() && limits::TRANSPORT_BATCH_BYTES < *bytes + next.weight {
                return;
            }
            let Some(Waiting { message, weight }) = self.messages.pop_front() else { return };
            self.bytes -= weight;
            *bytes += weight;
            batch.push(message);
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.control.messages.is_empty() && self.appends.messages.is_empty()
    }
}

impl Outbox {
    pub(super) fn new(store: StoreId) -> Outbox {
        Outbox { store, state: Mutex::default(), lost: Notify::new(), heard: Notify::new() }
    }

    /// Whom it is for.
    pub(super) fn store(&self) -> StoreId {
        self.store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes messages, or drops them. Never waits.
    pub(super) fn push(&self, messages: impl Iterator<Item = StoreMessage>, counters: &Counters) {
        let (mut disconnected, mut full, mut invalid) = (0, 0, 0);
        let mut state = self.state();
        let (nothing_waited, nothing_lost) = (state.is_empty(), state.lost.is_empty());
        for message in messages {
            let weight = wire::weight(&message);
            if !can_be_sent(&message, weight) {
                invalid += 1;
                continue;
            }
            let State { control, appends, is_open, lost, .. } = &mut *state;
            let lane = if is_append(&message) { appends } else { control };
            if *is_open && lane.fits(weight) {
                lane.push(Waiting { message, weight });
                continue;
            }
            *if *is_open { &mut full } else { &mut disconnected } += 1;
            note(lost, &message);
        }
        let carrier = if nothing_waited && !state.is_empty() { state.carrier.take() } else { None };
        let tell = nothing_lost && !state.lost.is_empty();
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        if tell {
            self.lost.notify_one();
        }
        counters.add(Counter::DroppedFull, full);
        counters.add(Counter::DroppedDisconnected, disconnected);
        if 0 < invalid {
            counters.add(Counter::DroppedInvalid, invalid);
            tracing::error!(store = %self.store, messages = invalid, "a bug: messages can't be sent");
        }
    }

    /// Takes messages from now on.
    pub(super) fn open(&self) {
        self.state().is_open = true;
    }

    /// Drops what waits and what comes. The stream that took from here ends.
    pub(super) fn shut(&self, counters: &Counters) {
        let mut state = self.state();
        let State { control, appends, lost, .. } = &mut *state;
        let mut dropped = 0;
        for lane in [control, appends] {
            for waiting in std::mem::take(lane).messages {
                note(lost, &waiting.message);
                dropped += 1;
            }
        }
        state.is_open = false;
        state.stream += 1;
        let carrier = state.carrier.take();
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        counters.add(Counter::DroppedDisconnected, dropped);
    }

    /// The number of the stream that may take messages until the next [`Outbox::shut`].
    pub(super) fn stream(&self) -> u64 {
        self.state().stream
    }

    /// Returns when something waits.
    pub(super) async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            if !state.is_empty() {
                return Poll::Ready(());
            }
            state.carrier = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Moves the next batch to `batch`, which is empty. `false`: the stream has ended.
    pub(super) fn poll_batch(
        &self,
        stream: u64,
        batch: &mut Vec<StoreMessage>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let mut state = self.state();
        if state.stream != stream {
            return Poll::Ready(false);
        }
        let mut bytes = 0;
        state.control.fill(batch, &mut bytes);
        state.appends.fill(batch, &mut bytes);
        if batch.is_empty() {
            state.carrier = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Returns when something was lost that is not taken note of; perhaps too often.
    pub(super) async fn wait_for_lost(&self) {
        self.lost.notified().await;
    }

    /// Whom messages were lost to since this was last asked, each once.
    pub(super) fn take_lost(&self) -> Lost {
        std::mem::take(&mut self.state().lost)
    }

    /// The store lives: whoever waits before dialling it again need not.
    pub(super) fn hear(&self) {
        self.heard.notify_waiters();
    }

    /// Returns when the store is heard of.
    pub(super) async fn wait_until_heard(&self) {
        self.heard.notified().await;
    }
}

/// Whether the receiver would take it: a snapshot goes its own way, and nothing may be larger than what gRPC takes.
fn can_be_sent(message: &StoreMessage, weight: usize) -> bool {
    let is_snapshot = matches!(
        &message.body,
        StoreBody::Raft { message, .. } if matches!(message.body, MessageBody::Snapshot(_))
    );
    !is_snapshot && weight <= limits::MESSAGE_BYTES_MAX - wire::BATCH_OVERHEAD
}

/// Whether the message must keep its place among those that carry the log.
fn is_append(message: &StoreMessage) -> bool {
    matches!(
        &message.body,
        StoreBody::Raft { message, .. } if matches!(message.body, MessageBody::Append { .. })
    )
}

/// Remembers whom a message is lost to, if its sender counts on it: a leader with a follower, which it then asks where
/// it stands before it sends more.
fn note(lost: &mut Lost, message: &StoreMessage) {
    let StoreBody::Raft { message: raft, .. } = &message.body else { return };
    if matches!(raft.body, MessageBody::Append { .. } | MessageBody::Heartbeat { .. }) {
        lost.insert((message.region_id, message.to.id));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::transport::tests::messages::{append, commit, heartbeat, vote};

    const OTHER: StoreId = StoreId(2);

    fn outbox() -> (Outbox, Counters) {
        let outbox = Outbox::new(OTHER);
        outbox.open();
        (outbox, Counters::default())
    }

    fn batch(outbox: &Outbox) -> Vec<StoreMessage> {
        let mut batch = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        match outbox.poll_batch(outbox.stream(), &mut batch, &mut cx) {
            Poll::Ready(is_open) => assert!(is_open),
            Poll::Pending => assert!(batch.is_empty()),
        }
        batch
    }

    fn large() -> Bytes {
        Bytes::from(vec![0; limits::TRANSPORT_BATCH_BYTES * 3 / 4])
    }

    #[test]
    fn appends_keep_their_order_and_all_others_go_before_them() {
        let (outbox, counters) = outbox();
        let sent =
            [append(1, OTHER, large()), commit(1, OTHER), heartbeat(2, OTHER), vote(1, OTHER)];
        outbox.push(sent.iter().cloned(), &counters);
        let [appended, committed, beat, voted] = sent;
        assert_eq!(batch(&outbox), [beat, voted, appended, committed]);
        assert!(batch(&outbox).is_empty());
    }

    #[test]
    fn a_batch_ends_before_it_is_too_large_and_has_one_message_at_least() {
        let (outbox, counters) = outbox();
        let huge = append(1, OTHER, Bytes::from(vec![0; limits::ENTRY_BYTES_MAX]));
        let sent = [huge, append(1, OTHER, large()), append(2, OTHER, large()), commit(1, OTHER)];
        outbox.push(sent.iter().cloned(), &counters);
        let [huge, first, second, last] = sent;
        assert_eq!(batch(&outbox), [huge]);
        assert_eq!(batch(&outbox), [first]);
        assert_eq!(batch(&outbox), [second, last]);
    }

    #[test]
    fn appends_that_do_not_fit_are_dropped_and_heartbeats_still_fit() {
        let (outbox, counters) = outbox();
        let fit = limits::TRANSPORT_BYTES_WAITING_MAX / (large().len() + 512);
        let sent = (0..fit as u64 + 3).map(|region| append(region, OTHER, large()));
        outbox.push(sent, &counters);
        outbox.push([heartbeat(1000, OTHER)].into_iter(), &counters);
        assert_eq!(counters.get(Counter::DroppedFull), 3);
        let lost = outbox.take_lost();
        assert_eq!(lost.len(), 3);
        assert!(lost.iter().all(|(region, _)| fit as u64 <= region.0 && region.0 != 1000));
        assert!(outbox.wait_for_lost().now_or_never().is_some());
        assert!(outbox.take_lost().is_empty());
        assert_eq!(batch(&outbox)[0].region_id, RegionId(1000));
    }

    #[test]
    fn too_many_small_messages_are_dropped_too() {
        let (outbox, counters) = outbox();
        let sent = limits::TRANSPORT_MESSAGES_WAITING_MAX + 5;
        outbox.push((0..sent).map(|_| vote(1, OTHER)), &counters);
        assert_eq!(counters.get(Counter::DroppedFull), 5);
        assert!(outbox.take_lost().is_empty(), "nobody counts on a vote");
    }

    #[test]
    fn a_shut_outbox_loses_what_waits_and_what_comes_and_names_each_peer_once() {
        let (outbox, counters) = outbox();
        let stream = outbox.stream();
        outbox.push([heartbeat(1, OTHER), commit(1, OTHER), vote(2, OTHER)].into_iter(), &counters);
        outbox.shut(&counters);
        outbox.push([heartbeat(1, OTHER), heartbeat(3, OTHER)].into_iter(), &counters);
        assert_eq!(counters.get(Counter::DroppedDisconnected), 5);
        let regions: Vec<u64> = outbox.take_lost().iter().map(|(region, _)| region.0).collect();
        assert_eq!(regions, [1, 3]);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_batch(stream, &mut Vec::new(), &mut cx), Poll::Ready(false));
        outbox.open();
        outbox.push([vote(1, OTHER)].into_iter(), &counters);
        assert!(outbox.wait().now_or_never().is_some());
        assert_eq!(batch(&outbox).len(), 1);
    }
}
