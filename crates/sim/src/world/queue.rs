//! What happens next: events by virtual time.

use std::{cmp::Ordering, collections::BinaryHeap};

use runtime::Rng;

/// Microseconds since the run began.
pub type Time = u64;

/// Which of several events of the same moment comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieBreak {
    /// The one that was scheduled first.
    Fifo,
    /// Any.
    Random,
}

/// Events in the order in which they happen.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    tie_break: TieBreak,
    rng: Rng,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<E> {
    time: Time,
    tie: u64,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// An empty queue. `rng` is asked only for random ties.
    pub fn new(tie_break: TieBreak, rng: Rng) -> Queue<E> {
        Queue { heap: BinaryHeap::new(), tie_break, rng, scheduled: 0 }
    }

    /// `event` will happen at `time`.
    pub fn schedule(&mut self, time: Time, event: E) {
        self.scheduled += 1;
        let tie = match self.tie_break {
            TieBreak::Fifo => 0,
            TieBreak::Random => self.rng.u64(),
        };
        self.heap.push(Entry { time, tie, number: self.scheduled, event });
    }

    /// When the next event happens.
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.time)
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|entry| (entry.time, entry.event))
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing will ever happen.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Time, u64, u64) {
        (self.time, self.tie, self.number)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives its greatest, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mut queue: Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect()
    }

    fn filled(tie_break: TieBreak, seed: u64) -> Queue<u32> {
        let mut queue = Queue::new(tie_break, Rng::new(seed));
        queue.schedule(9, 100);
        for event in 0..20 {
            queue.schedule(5, event);
        }
        queue.schedule(1, 200);
        queue
    }

    #[test]
    fn time_decides_first_and_fifo_second() {
        let mut expected = vec![200];
        expected.extend(0..20);
        expected.push(100);
        assert_eq!(drain(filled(TieBreak::Fifo, 1)), expected);
    }

    #[test]
    fn random_ties_follow_the_seed() {
        let one = drain(filled(TieBreak::Random, 1));
        assert_eq!(one, drain(filled(TieBreak::Random, 1)));
        assert_ne!(one, drain(filled(TieBreak::Random, 2)));
        assert_eq!((one[0], one[21]), (200, 100), "time still decides first");
    }
}
