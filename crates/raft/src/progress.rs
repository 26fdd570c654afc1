//! What a leader knows of one follower, and what it may send to it.
//!
//! - **Probe**: where the logs meet is not known. One append at a time, until an answer says where.
//! - **Replicate**: it is known. Appends are sent ahead of their answers, within a window of messages and bytes.
//! - **Snapshot**: the follower needs entries that are gone. Nothing is sent until it has the snapshot.
//!
//! Invariant: `matched < next`, and everything up to `matched` is durable at the follower.

use std::collections::VecDeque;

use crate::{config::Config, node::ProgressKind};

/// Windows with more room than this give it back when the group is idle.
const IDLE_CAPACITY: usize = 8;

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: u64,
    /// The follower has the leader's log up to here, durably.
    pub(crate) matched: u64,
    /// The next entry to send.
    pub(crate) next: u64,
    pub(crate) state: ProgressState,
    /// The commit index that the follower has reported.
    pub(crate) committed: u64,
    /// The commit index that it will know when it has all that was sent.
    pub(crate) sent_commit: u64,
    /// The last round of heartbeats that it has answered.
    pub(crate) acked_round: u64,
    /// How many appends may be sent ahead, beside the limit of the settings: one after a reject, and one more with every
    /// answer that brings news (the slow start of TCP, RFC 5681). A network that reorders makes a follower reject what
    /// comes too early; sending the whole window again each time would bring about ever more rejects.
    pub(crate) ahead: usize,
    /// Whether it was heard of since the last check of the quorum.
    pub(crate) is_active: bool,
    /// The tick at which it was last heard of; at first, the one at which the leader began to wait for it.
    pub(crate) heard_at: u64,
    /// It has said that it knows no members, and has not been sent a snapshot since.
    pub(crate) needs_snapshot: bool,
}

#[derive(Debug)]
pub(crate) enum ProgressState {
    Probe {
        /// An append is under way; the next one waits for its answer or for that of a heartbeat.
        is_waiting: bool,
    },
    Replicate {
        window: Window,
        /// A heartbeat was answered though entries are missing: ask whether what was sent has arrived.
        must_ask: bool,
    },
    Snapshot {
        /// Where the snapshot stands.
        index: u64,
        /// The tick at which it was sent.
        since: u64,
    },
}

impl Progress {
    /// A member that nothing is known of; it is sent what follows `last_index`, until it says where it is.
    pub(crate) fn new(id: u64, last_index: u64, now: u64) -> Progress {
        Progress {
            id,
            matched: 0,
            next: last_index + 1,
            state: ProgressState::Probe { is_waiting: false },
            committed: 0,
            sent_commit: 0,
            acked_round: 0,
            ahead: usize::MAX,
            is_active: true,
            heard_at: now,
            needs_snapshot: false,
        }
    }

    /// It has spoken.
    pub(crate) fn hear(&mut self, now: u64) {
        self.is_active = true;
        self.heard_at = now;
    }

    /// Where the logs meet must be found again, from `next` at the latest.
    pub(crate) fn become_probe(&mut self, next: u64, is_waiting: bool) {
        self.next = next.max(self.matched + 1);
        self.sent_commit = self.committed;
        self.state = ProgressState::Probe { is_waiting };
    }

    pub(crate) fn become_replicate(&mut self) {
        self.next = self.matched + 1;
        self.sent_commit = self.committed;
        self.state = ProgressState::Replicate { window: Window::default(), must_ask: false };
    }

    pub(crate) fn become_snapshot(&mut self, index: u64, since: u64) {
        self.needs_snapshot = false;
        self.state = ProgressState::Snapshot { index, since };
        self.next = index + 1;
    }

    /// The follower has the log up to `index`. Returns whether that is news.
    pub(crate) fn matches(&mut self, index: u64) -> bool {
        let is_news = self.matched < index;
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched + 1);
        if let ProgressState::Replicate { window, .. } = &mut self.state {
            window.free_to(self.matched);
        }
        if is_news {
            self.ahead = self.ahead.saturating_add(1);
        }
        is_news
    }

    /// Whether one more append with entries may be sent ahead of its answer.
    pub(crate) fn may_send_ahead(&self, config: &Config) -> bool {
        let ProgressState::Replicate { window, .. } = &self.state else { return false };
        let max_messages = config.max_inflight_messages.min(self.ahead);
        !window.is_full(max_messages, config.max_inflight_bytes)
    }

    pub(crate) fn kind(&self) -> ProgressKind {
        match self.state {
            ProgressState::Probe { .. } => ProgressKind::Probe,
            ProgressState::Replicate { .. } => ProgressKind::Replicate,
            ProgressState::Snapshot { .. } => ProgressKind::Snapshot,
        }
    }

    /// Gives memory back that an idle group does not need.
    pub(crate) fn shrink(&mut self) {
        if let ProgressState::Replicate { window, .. } = &mut self.state
            && window.sent.is_empty()
            && IDLE_CAPACITY < window.sent.capacity()
        {
            window.sent = VecDeque::new();
        }
    }
}

/// Appends that were sent and not answered.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The last index of each, and its bytes.
    sent: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Window {
    fn is_full(&self, max_messages: usize, max_bytes: usize) -> bool {
        max_messages <= self.sent.len() || (max_bytes <= self.bytes && !self.sent.is_empty())
    }

    pub(crate) fn add(&mut self, last: u64, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_to(&mut self, index: u64) {
        while let Some(&(last, bytes)) = self.sent.front() {
            if index < last {
                break;
            }
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_full_by_messages_or_by_bytes_and_answers_free_it() {
        let mut window = Window::default();
        assert!(!window.is_full(2, 0), "one append always may");
        window.add(3, 10);
        assert!(window.is_full(2, 10) && !window.is_full(2, 11) && window.is_full(1, 100));
        window.add(5, 10);
        window.free_to(4);
        assert_eq!((window.sent.len(), window.bytes), (1, 10));
        window.free_to(9);
        assert_eq!((window.sent.len(), window.bytes), (0, 0));
    }

    #[test]
    fn what_is_matched_is_not_sent_again() {
        let mut progress = Progress::new(2, 10, 0);
        progress.become_probe(3, false);
        assert!(progress.matches(7));
        assert!(!progress.matches(5));
        assert_eq!((progress.matched, progress.next), (7, 8));
        progress.become_probe(2, true);
        assert_eq!(progress.next, 8);
    }
}
