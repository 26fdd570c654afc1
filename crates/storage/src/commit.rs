//! The queue of the group commit: what waits, what the next group is, and who may commit it.
//!
//! Commands that arrive while a group is written and synced gather here and form the next group, so that one sync
//! answers all of them. At most one caller leads at a time; leadership is a flag in this queue, never a mutex, since
//! nobody may hold a mutex while the disk works.
//!
//! Bounded by [`limits::WRITES_WAITING_MAX`] and [`limits::WRITE_BYTES_WAITING_MAX`]: what does not fit is refused
//! with `ServerIsBusy`. A group has at most [`limits::WRITE_BATCH_BYTES_MAX`], or one command that is larger.
//!
//! This is a core: the shell (`shell/writer.rs`) owns the lock, the thread and the engine.

use std::{collections::VecDeque, time::Duration};

use types::{RegionError, limits};

use crate::{Error, Statistics, command::Command};

/// When a client may try again after a refusal: a few syncs later the queue has room.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// A caller commits in place only if no more requests than these (its own write among them) came since the last
/// group: more mean that others are about, whom a thread that waits for the disk would hold up.
const ALONE_REQUESTS_MAX: u64 = 4;

/// A caller commits in place only if the last sync was no slower: handing a write to the thread and back costs some
/// 60 us, and a disk that is slow now shall stop nothing but writes.
const IN_PLACE_SYNC_MAX: Duration = Duration::from_millis(2);

/// Commands that wait, each with a ticket by which it is answered.
#[derive(Debug)]
pub(crate) struct CommitQueue<T> {
    waiting: VecDeque<(Command, T)>,
    waiting_cost: usize,
    /// Somebody commits a group at the moment.
    is_led: bool,
    /// The count of requests when the last group ended.
    requests_at_release: u64,
    /// How long the last sync took.
    last_sync: Duration,
    state: State,
    statistics: Statistics,
}

#[derive(Debug)]
enum State {
    Open,
    /// Takes nothing more; what waits is still committed.
    Closing,
    /// The engine has failed; everything is answered with this.
    Stopped(engine::Error),
}

/// A group that was committed, for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Committed {
    /// Commands.
    pub(crate) commands: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: usize,
    /// How long the sync took; `None` if there was nothing to sync.
    pub(crate) sync: Option<Duration>,
}

impl<T> CommitQueue<T> {
    /// An empty queue.
    pub(crate) fn new() -> CommitQueue<T> {
        CommitQueue {
            waiting: VecDeque::new(),
            waiting_cost: 0,
            is_led: false,
            requests_at_release: 0,
            last_sync: Duration::ZERO,
            state: State::Open,
            statistics: Statistics::default(),
        }
    }

    /// Puts a command at the end; returns the ticket with the reason if it can't be taken.
    pub(crate) fn push(&mut self, command: Command, ticket: T) -> Result<(), (T, Error)> {
        let refusal = match &self.state {
            State::Stopped(error) => return Err((ticket, error.clone().into())),
            State::Closing => Some("the store is stopping"),
            State::Open if limits::WRITES_WAITING_MAX <= self.waiting.len() => {
                Some("too many writes wait")
            }
            // An empty queue takes any command, so that every command that is allowed has its turn.
            State::Open if !self.waiting.is_empty() && self.exceeds_bytes(&command) => {
                Some("too many bytes wait to be written")
            }
            State::Open => None,
        };
        if let Some(reason) = refusal {
            self.statistics.refused += 1;
            return Err((ticket, busy(reason)));
        }
        self.waiting_cost += command.cost();
        self.waiting.push_back((command, ticket));
        Ok(())
    }

    fn exceeds_bytes(&self, command: &Command) -> bool {
        limits::WRITE_BYTES_WAITING_MAX < self.waiting_cost + command.cost()
    }

    /// Makes the caller the leader and gives it the next group, unless there is a leader or nothing waits.
    ///
    /// The caller must end its lead with [`release`](CommitQueue::release).
    pub(crate) fn lead(&mut self) -> Option<Vec<(Command, T)>> {
        if !self.has_work() {
            return None;
        }
        let (mut count, mut cost) = (0, 0);
        for (command, _) in &self.waiting {
            cost += command.cost();
            if 0 < count && limits::WRITE_BATCH_BYTES_MAX < cost {
                cost -= command.cost();
                break;
            }
            count += 1;
        }
        self.is_led = true;
        self.waiting_cost -= cost;
        Some(self.waiting.drain(..count).collect())
    }

    /// Ends the caller's lead. `requests` counts the reads and writes that the store was ever asked for.
    pub(crate) fn release(&mut self, committed: Committed, requests: u64) {
        debug_assert!(self.is_led, "only the leader releases");
        self.is_led = false;
        self.requests_at_release = requests;
        self.last_sync = committed.sync.unwrap_or(self.last_sync);
        self.statistics.add(committed);
    }

    /// Whether who has just pushed had better commit by itself than hand over to a thread: nobody commits, nothing
    /// else waits, few have asked for anything since the last group, and the disk is quick.
    pub(crate) fn is_alone(&self, requests: u64) -> bool {
        self.has_work()
            && self.waiting.len() == 1
            && requests.saturating_sub(self.requests_at_release) <= ALONE_REQUESTS_MAX
            && self.last_sync <= IN_PLACE_SYNC_MAX
    }

    /// Closes the queue for good because the engine has failed; returns the tickets of what waits. None of it was
    /// handed to the engine. The first cause stays. A leader goes on to its end.
    pub(crate) fn stop(&mut self, cause: engine::Error) -> Vec<T> {
        if !matches!(self.state, State::Stopped(_)) {
            self.state = State::Stopped(cause);
        }
        self.waiting_cost = 0;
        self.waiting.drain(..).map(|(_, ticket)| ticket).collect()
    }

    /// Takes nothing more. What waits is still to be committed.
    pub(crate) fn close(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closing;
        }
    }

    /// Whether a group waits for a leader.
    pub(crate) fn has_work(&self) -> bool {
        !self.is_led && !self.waiting.is_empty()
    }

    /// Whether nothing will ever have to be committed again.
    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.state, State::Open) && self.waiting.is_empty() && !self.is_led
    }

    /// Counters.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            waiting: self.waiting.len() as u64,
            waiting_bytes: self.waiting_cost as u64,
            ..self.statistics.clone()
        }
    }
}

fn busy(reason: &str) -> Error {
    RegionError::ServerIsBusy { reason: reason.to_owned(), retry_after: RETRY_AFTER }.into()
}

#[cfg(test)]
mod tests {
    use types::{Bytes, Cf, Modify};

    use super::*;
    use crate::command::Action;

    fn put(value_bytes: usize) -> Command {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from(vec![0; value_bytes]));
        Command::new(Action::Change(Modify::Put { cf: Cf::Default, key, value }))
    }

    fn queue(sizes: &[usize]) -> CommitQueue<usize> {
        let mut queue = CommitQueue::new();
        for (ticket, size) in sizes.iter().enumerate() {
            queue.push(put(*size), ticket).unwrap();
        }
        queue
    }

    fn tickets(group: Vec<(Command, usize)>) -> Vec<usize> {
        group.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn reason(error: Error) -> String {
        let Error::Region(RegionError::ServerIsBusy { reason, .. }) = error else {
            panic!("busy: {error}")
        };
        reason
    }

    #[test]
    fn one_leads_and_takes_everything_that_waits() {
        let mut queue = queue(&[1, 2, 3]);
        assert_eq!(tickets(queue.lead().unwrap()), [0, 1, 2]);
        queue.push(put(1), 3).unwrap();
        assert!(queue.lead().is_none(), "somebody leads");
        assert_eq!(queue.statistics().waiting, 1);
        queue.release(
            Committed { commands: 3, bytes: 9, sync: Some(Duration::from_micros(100)) },
            3,
        );
        assert_eq!(tickets(queue.lead().unwrap()), [3]);
        queue.release(Committed { commands: 1, bytes: 2, sync: None }, 4);
        assert!(queue.lead().is_none(), "nothing waits");
        let statistics = queue.statistics();
        assert_eq!(
            (statistics.groups, statistics.commands, statistics.bytes, statistics.syncs),
            (2, 4, 11, 1)
        );
        assert_eq!((statistics.waiting, statistics.waiting_bytes), (0, 0));
    }

    #[test]
    fn a_group_is_bounded_by_bytes_and_holds_at_least_one_command() {
        let half = limits::WRITE_BATCH_BYTES_MAX / 2;
        let mut queue = queue(&[half, half, 3 * half, 1, 1]);
        let mut groups = Vec::new();
        while let Some(group) = queue.lead() {
            groups.push(tickets(group));
            queue.release(Committed::default(), 0);
        }
        // Keys and overhead push the second half over the bound.
        assert_eq!(groups, [vec![0], vec![1], vec![2], vec![3, 4]]);
    }

    #[test]
    fn the_queue_is_bounded_by_commands() {
        let mut queue = queue(&[0; limits::WRITES_WAITING_MAX]);
        let (ticket, error) = queue.push(put(0), 99).unwrap_err();
        assert_eq!((ticket, reason(error).as_str()), (99, "too many writes wait"));
        assert_eq!(queue.statistics().refused, 1);
        queue.lead().unwrap();
        queue.push(put(0), 99).unwrap();
    }

    #[test]
    fn the_queue_is_bounded_by_bytes_and_takes_any_command_when_empty() {
        let mut queue = queue(&[2 * limits::WRITE_BYTES_WAITING_MAX]);
        let (_, error) = queue.push(put(0), 1).unwrap_err();
        assert_eq!(reason(error), "too many bytes wait to be written");
    }

    #[test]
    fn one_writer_after_another_is_alone_and_a_crowd_is_not() {
        let mut queue = queue(&[1]);
        assert!(queue.is_alone(1), "the first write of all");
        queue.push(put(1), 1).unwrap();
        assert!(!queue.is_alone(2), "two wait");
        queue.lead().unwrap();
        queue.push(put(1), 2).unwrap();
        assert!(!queue.is_alone(3), "somebody commits");
        queue.release(Committed::default(), 3);
        assert!(queue.is_alone(3 + ALONE_REQUESTS_MAX));
        assert!(!queue.is_alone(3 + ALONE_REQUESTS_MAX + 1), "others read");
        queue.lead().unwrap();
        assert!(!queue.is_alone(4), "nothing waits");
    }

    #[test]
    fn nobody_waits_in_place_for_a_slow_disk() {
        let synced = |sync: Option<Duration>| Committed { sync, ..Committed::default() };
        let mut queue = queue(&[1, 1, 1]);
        let mut group = |sync| {
            queue.lead().unwrap();
            queue.release(synced(sync), 0);
            queue.push(put(1), 9).unwrap();
            queue.is_alone(0)
        };
        assert!(group(Some(IN_PLACE_SYNC_MAX)));
        assert!(!group(Some(IN_PLACE_SYNC_MAX + Duration::from_micros(1))));
        assert!(!group(None), "no sync says nothing about the disk");
        assert!(group(Some(Duration::from_micros(100))));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_takes_nothing_more() {
        let mut queue = queue(&[1]);
        queue.close();
        assert_eq!(reason(queue.push(put(1), 1).unwrap_err().1), "the store is stopping");
        assert!(!queue.is_finished());
        queue.lead().unwrap();
        assert!(!queue.is_finished(), "a group is under way");
        queue.release(Committed::default(), 0);
        assert!(queue.is_finished());
    }

    #[test]
    fn a_stopped_queue_gives_its_tickets_back_and_keeps_the_first_cause() {
        let failure =
            |detail: &str| engine::Error::Corrupt { path: "f".into(), detail: detail.to_owned() };
        let mut queue = queue(&[1, 1]);
        assert_eq!(queue.stop(failure("first")), [0, 1]);
        assert_eq!(queue.stop(failure("second")), Vec::<usize>::new());
        let (_, error) = queue.push(put(1), 2).unwrap_err();
        assert!(error.to_string().contains("first"), "{error}");
        assert!(queue.is_finished());
    }
}
