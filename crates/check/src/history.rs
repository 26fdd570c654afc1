//! Linearizability of one key: there is an order of its operations that respects real time and explains every answer.
//!
//! How that is found out: `history/search.rs`.
//!
//! Moments are all different: use a counter, not a clock.

mod search;

use std::collections::{BTreeMap, BTreeSet};

use self::search::{Certain, Search, Stuck};
use crate::{Verdict, Violation};

/// What a key holds: nothing, or a value. A value is written once in a history.
pub type Content = Option<u64>;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It looks.
    Read,
    /// It writes this value.
    Put(u64),
    /// It removes what is there.
    Delete,
    /// It writes `new`, if `expected` is there.
    Swap {
        /// What has to be there.
        expected: Content,
        /// What is there afterwards.
        new: u64,
    },
}

/// What an answer says of the content before the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// This was there.
    Was(Content),
    /// This was not there.
    WasNot(Content),
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation(usize);

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Answered { end: u64, seen: Seen },
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    action: Action,
    begin: u64,
    state: State,
}

/// The operations on one key, which was empty before them.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
}

impl History {
    /// An operation begins.
    pub fn begin(&mut self, action: Action, begin: u64) -> Operation {
        self.entries.push(Entry { action, begin, state: State::Open });
        Operation(self.entries.len() - 1)
    }

    /// It was answered at `end`; the answer says what was there before.
    pub fn answered(&mut self, operation: Operation, end: u64, seen: Seen) {
        self.entries[operation.0].state = State::Answered { end, seen };
    }

    /// It was refused for certain: it has not happened and never will.
    pub fn refused(&mut self, operation: Operation) {
        self.entries[operation.0].state = State::Refused;
    }

    /// How many operations began.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none began.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many were never answered.
    pub fn open(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.state, State::Open)).count()
    }

    /// Whether the answers have an explanation.
    ///
    /// # Errors
    /// They have none. The error names the first answer at which that is certain.
    pub fn check(&self) -> Verdict {
        let first_seen = self.first_seen()?;
        let has_not = self
            .entries
            .iter()
            .any(|entry| matches!(entry.state, State::Answered { seen: Seen::WasNot(_), .. }));
        let mut certain: BTreeMap<usize, Certain> = BTreeMap::new();
        // What happens next: a beginning, or the end of what is certain.
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let Entry { action, begin, state } = *entry;
            let (end, seen) = match (state, written(action)) {
                (State::Refused, _) => continue,
                (State::Answered { end, seen }, _) => (end, seen),
                (State::Open, Some(value)) => match first_seen.get(&value) {
                    // A swap that took place has seen what it expected.
                    Some(end) => (*end, succeeded(action)),
                    // With answers that say what was not there, it may be what was.
                    None if has_not => (u64::MAX, Seen::Nothing),
                    None => continue,
                },
                (State::Open, None) if action == Action::Read => continue,
                (State::Open, None) => (u64::MAX, Seen::Nothing),
            };
            certain.insert(number, Certain { action, seen, end });
            moments.push((begin, false, number));
            if end != u64::MAX {
                moments.push((end, true, number));
            }
        }
        moments.sort_unstable();
        let search = Search::new(certain, &moments);
        search.run().map_err(|stuck| match stuck {
            Stuck::Unexplained { answer, held } => {
                self.unexplained(answer.number, answer.moment, &held)
            }
            Stuck::TooMany { worlds, answer } => {
                let details = format!("{worlds} explanations until moment {}", answer.moment);
                Violation::new("a history can be judged", details)
            }
        })
    }

    /// Whether every acknowledged write is there, or was overwritten, when `last` is there after all operations.
    ///
    /// Weaker than [`History::check`] with a read at the end, but its answer has one meaning: a loss.
    ///
    /// # Errors
    /// A write was acknowledged that began after the one that wrote `last` was over.
    pub fn check_lost(&self, last: Content) -> Verdict {
        // When the content came to be at the latest; the key was empty at the beginning.
        let mut latest = if last.is_none() { Some(0) } else { None };
        for entry in &self.entries {
            let makes_it = match last {
                None => entry.action == Action::Delete,
                Some(_) => written(entry.action) == last,
            };
            let end = match entry.state {
                State::Open => u64::MAX,
                State::Answered { end, .. } => end,
                State::Refused => continue,
            };
            if makes_it {
                latest = latest.max(Some(end));
            }
        }
        // What nobody wrote is no loss; `check` names it.
        let Some(latest) = latest else { return Ok(()) };
        let lost = self.entries.iter().find(|entry| {
            let State::Answered { seen, .. } = entry.state else { return false };
            let has_written = match entry.action {
                Action::Read => false,
                Action::Put(_) | Action::Delete => true,
                Action::Swap { expected, .. } => seen == Seen::Was(expected),
            };
            has_written && latest < entry.begin
        });
        match lost {
            None => Ok(()),
            Some(entry) => {
                let details = format!("{last:?} is there, was there by {latest}; lost: {entry:?}");
                Err(Violation::new("no acknowledged write is lost", details))
            }
        }
    }

    /// The earliest end of an operation that saw each value.
    fn first_seen(&self) -> Result<BTreeMap<u64, u64>, Violation> {
        let mut writers: BTreeMap<u64, &Entry> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(value) = written(entry.action) {
                let before = writers.insert(value, entry);
                assert!(before.is_none(), "value {value} is written once");
            }
        }
        let mut seen_at: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in &self.entries {
            let State::Answered { end, seen: Seen::Was(Some(value)) } = entry.state else {
                continue;
            };
            let (property, why) = match writers.get(&value) {
                None => ("reads give written values", "never written".to_owned()),
                Some(Entry { state: State::Refused, action, .. }) => {
                    ("what was refused for certain never happens", format!("refused: {action:?}"))
                }
                Some(Entry { begin, .. }) if end < *begin => {
                    ("reads give written values", format!("written from {begin} on"))
                }
                Some(_) => {
                    let first = seen_at.entry(value).or_insert(end);
                    *first = end.min(*first);
                    continue;
                }
            };
            let details = format!("value {value} was seen at {end} by {:?}; {why}", entry.action);
            return Err(Violation::new(property, details));
        }
        // A swap without answer whose value was seen has itself seen what it expected.
        let mut left: Vec<u64> = seen_at.keys().copied().collect();
        while let Some(value) = left.pop() {
            let Entry { action, state: State::Open, .. } = writers[&value] else { continue };
            let Action::Swap { expected: Some(expected), .. } = action else { continue };
            let end = seen_at[&value];
            let is_news = seen_at.get(expected).is_none_or(|known| end < *known);
            if writers.contains_key(expected) && is_news {
                seen_at.insert(*expected, end);
                left.push(*expected);
            }
        }
        Ok(seen_at)
    }

    fn unexplained(&self, number: usize, moment: u64, held: &BTreeSet<Content>) -> Violation {
        let entry = &self.entries[number];
        let near: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|other| {
                let end = match other.state {
                    State::Answered { end, .. } => end,
                    _ => u64::MAX,
                };
                !matches!(other.state, State::Refused) && entry.begin < end && other.begin < moment
            })
            .collect();
        let last = &near[near.len().saturating_sub(12)..];
        let details = format!(
            "no order explains {entry:?}, answered at {moment}; before it the key held one of {held:?}; what overlaps: \
             {last:?}"
        );
        Violation::new("linearizability", details)
    }
}

fn written(action: Action) -> Content {
    match action {
        Action::Put(value) | Action::Swap { new: value, .. } => Some(value),
        Action::Read | Action::Delete => None,
    }
}

fn succeeded(action: Action) -> Seen {
    match action {
        Action::Swap { expected, .. } => Seen::Was(expected),
        _ => Seen::Nothing,
    }
}

#[cfg(test)]
mod tests;
