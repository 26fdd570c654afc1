//! What happened: a hash of every event, and, if asked for, a line of text for each.
//!
//! Two runs with the same hash did the same. The hash is not cryptographic; it must notice a difference, not an enemy.

use crate::hash::mix;

use super::queue::Time;

/// Whether lines of text are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceText {
    /// Only the hash.
    #[default]
    Off,
    /// Each line goes to standard output at once, so that it is there even if the run ends in a panic.
    Print,
}

/// Notes what happens.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    text: TraceText,
}

impl Trace {
    /// Nothing has happened.
    pub fn new(text: TraceText) -> Trace {
        Trace { hash: 0x243f_6a88_85a3_08d3, events: 0, text }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far. The last one has this number.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// An event begins: `kind` and `details` say which.
    pub fn event(&mut self, now: Time, kind: u64, details: [u64; 2]) {
        self.events += 1;
        self.note(now ^ kind.rotate_left(56));
        self.note(details[0]);
        self.note(details[1]);
    }

    /// Something that the current event has brought about.
    pub fn note(&mut self, what: u64) {
        self.hash = mix(self.hash ^ what);
    }

    /// Whether [`line`](Trace::line) prints: who builds expensive lines asks first.
    pub fn is_printed(&self) -> bool {
        self.text == TraceText::Print
    }

    /// A line of text: event number, milliseconds, words.
    pub fn line(&self, now: Time, words: impl FnOnce() -> String) {
        if self.is_printed() {
            let (millis, micros) = (now / 1000, now % 1000);
            println!("{:>8} {millis:>8}.{micros:03} {}", self.events, words());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_and_their_order_changes_the_hash() {
        let hash = |events: &[(u64, u64, [u64; 2])]| {
            let mut trace = Trace::new(TraceText::Off);
            events.iter().for_each(|&(now, kind, details)| trace.event(now, kind, details));
            trace.hash()
        };
        let base = hash(&[(1, 2, [3, 4]), (5, 6, [7, 8])]);
        assert_eq!(base, hash(&[(1, 2, [3, 4]), (5, 6, [7, 8])]));
        for other in [
            hash(&[(5, 6, [7, 8]), (1, 2, [3, 4])]),
            hash(&[(0, 2, [3, 4]), (5, 6, [7, 8])]),
            hash(&[(1, 0, [3, 4]), (5, 6, [7, 8])]),
            hash(&[(1, 2, [4, 3]), (5, 6, [7, 8])]),
            hash(&[(1, 2, [3, 4])]),
        ] {
            assert_ne!(base, other);
        }
    }
}
