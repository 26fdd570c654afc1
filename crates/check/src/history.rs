//! Linearizability of one key: there is an order of its operations that respects real time and explains every answer.
//!
//! The history is walked in the order of time with the set of *worlds* that are still possible: what the key holds, and
//! which of the operations under way have already happened. When an operation is answered it must have happened, so
//! every world is extended by the orders that make it so, and worlds in which that is impossible end (Lowe, "Testing for
//! linearizability", 2017). No world left: the answers have no explanation. The cost is linear in the length of the
//! history, times the worlds, which are few while few operations overlap.
//!
//! A value is written once, so that a world in which it is gone before everybody saw it who says so is none.
//!
//! What was never answered may have happened at any time from its beginning on, or never. That would keep worlds apart
//! for ever; three facts avoid it. Values are written once: who sees one says that its write has happened. A write whose
//! value nobody saw explains nothing, and is left out. Deletions without answer are all alike: a world counts how many
//! of them it has used, and of two worlds that differ in that alone the thriftier one is kept.
//!
//! Moments are all different: use a counter, not a clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Verdict, Violation};

/// What a key holds: nothing, or a value. A value is written once in a history.
pub type Content = Option<u64>;

/// With more worlds than this the history is not judged; so many operations never overlap on one key.
const WORLDS_MAX: usize = 2_000_000;

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

/// An operation that has certainly happened before `end`.
#[derive(Clone, Copy, Debug)]
struct Certain {
    action: Action,
    seen: Seen,
    end: u64,
}

/// One explanation of everything so far, as far as what comes can tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    content: Content,
    /// Operations under way that have happened already.
    happened: BTreeSet<usize>,
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
        let mut seers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, operation) in &certain {
            if let Seen::Was(Some(value)) = operation.seen {
                seers.entry(value).or_default().push(*number);
            }
        }
        let mut search = Search {
            certain,
            seers,
            under_way: BTreeSet::new(),
            over: BTreeSet::new(),
            deletes: 0,
        };
        let begin = World { content: None, happened: BTreeSet::new() };
        // How many open deletions each world has used.
        let mut worlds = BTreeMap::from([(begin, 0)]);
        for (moment, is_end, number) in moments {
            if !is_end {
                search.begins(number);
                continue;
            }
            let after = search.ends(&worlds, number);
            if after.is_empty() {
                return Err(self.unexplained(number, moment, &worlds));
            }
            if WORLDS_MAX < after.len() {
                let details = format!("{} explanations at moment {moment}", after.len());
                return Err(Violation::new("a history can be judged", details));
            }
            worlds = after;
        }
        Ok(())
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

    fn unexplained(&self, number: usize, moment: u64, worlds: &BTreeMap<World, u32>) -> Violation {
        let entry = &self.entries[number];
        let held: BTreeSet<Content> = worlds.keys().map(|world| world.content).collect();
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

/// What overlaps at a moment.
struct Search {
    certain: BTreeMap<usize, Certain>,
    /// Who sees each value, sooner or later.
    seers: BTreeMap<u64, Vec<usize>>,
    /// Operations that have begun and not ended. Deletions without answer are only counted.
    under_way: BTreeSet<usize>,
    /// Operations that have ended.
    over: BTreeSet<usize>,
    deletes: u32,
}

impl Search {
    fn begins(&mut self, number: usize) {
        let operation = self.certain[&number];
        if operation.action == Action::Delete && operation.end == u64::MAX {
            self.deletes += 1;
        } else {
            self.under_way.insert(number);
        }
    }

    /// The worlds in which `number` has happened, which is over now.
    fn ends(&mut self, worlds: &BTreeMap<World, u32>, number: usize) -> BTreeMap<World, u32> {
        let mut after: BTreeMap<World, u32> = BTreeMap::new();
        let mut visited: BTreeMap<World, u32> = BTreeMap::new();
        let mut left: Vec<(World, u32)> = Vec::new();
        for (world, used) in worlds {
            left.push((world.clone(), *used));
        }
        while let Some((mut world, used)) = left.pop() {
            if world.happened.contains(&number) {
                world.happened.remove(&number);
                keep_thrifty(&mut after, world, used);
                continue;
            }
            // Who looks, and sees what is there, does no harm.
            let looks = |other: &&usize| {
                let operation = self.certain[*other];
                operation.action == Action::Read && fits(operation, world.content)
            };
            let readers: Vec<usize> = self
                .under_way
                .iter()
                .filter(|other| !world.happened.contains(other))
                .filter(looks)
                .copied()
                .collect();
            if !readers.is_empty() {
                world.happened.extend(readers);
                left.push((world, used));
                continue;
            }
            if !keep_thrifty(&mut visited, world.clone(), used) {
                continue;
            }
            if WORLDS_MAX < visited.len() {
                return visited;
            }
            for other in self.under_way.iter().filter(|other| !world.happened.contains(other)) {
                let operation = self.certain[other];
                let content = effect(operation.action, world.content);
                let is_possible = operation.action != Action::Read
                    && fits(operation, world.content)
                    && (content == world.content || self.may_go(&world, *other));
                if !is_possible {
                    continue;
                }
                let mut next = world.clone();
                next.happened.insert(*other);
                next.content = content;
                left.push((next, used));
            }
            if used < self.deletes && world.content.is_some() && self.may_go(&world, usize::MAX) {
                left.push((World { content: None, ..world }, used + 1));
            }
        }
        self.under_way.remove(&number);
        self.over.insert(number);
        after
    }

    /// Whether what the key holds may be replaced by operation `by`: a value never comes back, so that everybody who
    /// sees it must have seen it by then.
    fn may_go(&self, world: &World, by: usize) -> bool {
        let seers = world.content.and_then(|value| self.seers.get(&value));
        seers.is_none_or(|seers| {
            seers.iter().all(|seer| {
                *seer == by || self.over.contains(seer) || world.happened.contains(seer)
            })
        })
    }
}

/// Keeps `world` unless it is known with as few deletions used. Whether it was kept.
fn keep_thrifty(worlds: &mut BTreeMap<World, u32>, world: World, used: u32) -> bool {
    match worlds.get_mut(&world) {
        Some(known) if *known <= used => false,
        Some(known) => {
            *known = used;
            true
        }
        None => {
            worlds.insert(world, used);
            true
        }
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

fn fits(operation: Certain, content: Content) -> bool {
    match operation.seen {
        Seen::Nothing => true,
        Seen::Was(was) => was == content,
        Seen::WasNot(was) => was != content,
    }
}

fn effect(action: Action, content: Content) -> Content {
    match action {
        Action::Read => content,
        Action::Put(value) => Some(value),
        Action::Delete => None,
        Action::Swap { expected, new } if expected == content => Some(new),
        Action::Swap { .. } => content,
    }
}

#[cfg(test)]
mod tests;
