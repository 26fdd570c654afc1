//! The search for an order that explains every answer.
//!
//! It walks along the answers in the order of time. When an operation is answered it must have happened, so the
//! search tries what may have happened before it, and it, one after the other and whoever was answered first before the
//! others; where nothing is left to try it goes back (Wing and Gong, "Testing and Verifying Concurrent Objects", 1993;
//! Lowe, "Testing for linearizability", 2017). A *world* is what it knows on its way: what the key holds, and which of
//! the operations under way have already happened. No world is entered twice. No way leads to the end: the answers have
//! no explanation. The cost is linear in the length of the history where the answers come in about the order in which
//! things happened, and at worst the number of worlds.
//!
//! A value is written once, so that a world in which it is gone before everybody saw it who says so is none.
//!
//! What was never answered may have happened at any time from its beginning on, or never. That would keep worlds apart
//! for ever; three facts avoid it. Values are written once: who sees one says that its write has happened. A write whose
//! value nobody saw explains nothing, and is left out. Deletions without answer are all alike: a world counts how many
//! of them it has used, and a world is entered again only with fewer of them used.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Content, Seen};

/// When the search has entered more worlds than one for each answer and so many, the history is not judged.
const WORLDS_MAX: usize = 2_000_000;

/// An operation that has certainly happened before `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Certain {
    pub(super) action: Action,
    pub(super) seen: Seen,
    pub(super) end: u64,
}

/// One explanation of everything so far, as far as what comes can tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    content: Content,
    /// Operations under way that have happened already, in order.
    happened: Vec<usize>,
}

impl World {
    fn has(&self, number: usize) -> bool {
        self.happened.binary_search(&number).is_ok()
    }

    fn happens(&mut self, number: usize) {
        if let Err(at) = self.happened.binary_search(&number) {
            self.happened.insert(at, number);
        }
    }
}

/// An answer that must be explained.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) moment: u64,
    /// Who was answered.
    pub(super) number: usize,
    /// Who had begun and not ended, and it, in the order of their ends. Deletions without answer are only counted.
    under_way: Vec<usize>,
    /// Deletions without answer that had begun.
    deletes: u32,
}

/// Why a search has no explanation.
pub(super) enum Stuck<'a> {
    /// There is none of this answer, whatever the key held before it.
    Unexplained { answer: &'a Answer, held: BTreeSet<Content> },
    /// The search has not come to an end.
    TooMany { worlds: usize, answer: &'a Answer },
}

/// A world in which an answer still has to be explained.
struct Place {
    answer: usize,
    world: World,
    /// Deletions without answer that have been used.
    used: u32,
    /// What is tried next: one of those under way, or after them a deletion without answer.
    next: usize,
}

pub(super) struct Search {
    certain: BTreeMap<usize, Certain>,
    /// Who sees each value, sooner or later.
    seers: BTreeMap<u64, Vec<usize>>,
    /// In the order of time.
    answers: Vec<Answer>,
}

impl Search {
    /// `moments` are beginnings (`false`) and ends of what is certain, in the order of time.
    pub(super) fn new(certain: BTreeMap<usize, Certain>, moments: &[(u64, bool, usize)]) -> Search {
        let mut seers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, operation) in &certain {
            if let Seen::Was(Some(value)) = operation.seen {
                seers.entry(value).or_default().push(*number);
            }
        }
        let mut answers = Vec::new();
        let mut under_way: BTreeSet<(u64, usize)> = BTreeSet::new();
        let mut deletes = 0;
        for &(moment, is_end, number) in moments {
            let operation = certain[&number];
            if is_end {
                let numbers = under_way.iter().map(|(_, number)| *number).collect();
                answers.push(Answer { moment, number, under_way: numbers, deletes });
                under_way.remove(&(moment, number));
            } else if operation.action == Action::Delete && operation.end == u64::MAX {
                deletes += 1;
            } else {
                under_way.insert((operation.end, number));
            }
        }
        Search { certain, seers, answers }
    }

    /// Looks for an order that explains every answer.
    pub(super) fn run(&self) -> Result<(), Stuck<'_>> {
        let mut known: BTreeMap<(usize, World), u32> = BTreeMap::new();
        let (mut furthest, mut held) = (0, BTreeSet::new());
        let begin = World { content: None, happened: Vec::new() };
        let mut path = Vec::new();
        let mut entered = Some(Place { answer: 0, world: begin, used: 0, next: 0 });
        loop {
            if let Some(mut place) = entered.take() {
                self.settle(&mut place);
                if place.answer == self.answers.len() {
                    return Ok(());
                }
                if furthest < place.answer {
                    furthest = place.answer;
                    held.clear();
                }
                if furthest == place.answer {
                    held.insert(place.world.content);
                }
                let before = known.get(&(place.answer, place.world.clone()));
                if before.is_none_or(|used| place.used < *used) {
                    known.insert((place.answer, place.world.clone()), place.used);
                    path.push(place);
                }
                if self.answers.len() + WORLDS_MAX < known.len() {
                    let answer = &self.answers[furthest];
                    return Err(Stuck::TooMany { worlds: known.len(), answer });
                }
            }
            let Some(place) = path.last_mut() else {
                return Err(Stuck::Unexplained { answer: &self.answers[furthest], held });
            };
            entered = self.step(place);
            if entered.is_none() {
                path.pop();
            }
        }
    }

    /// Goes on to the next answer that is not explained. Who changes nothing and sees what is there does no harm.
    fn settle(&self, place: &mut Place) {
        while let Some(answer) = self.answers.get(place.answer) {
            for other in &answer.under_way {
                let operation = self.certain[other];
                if looks(operation) && fits(operation, place.world.content) {
                    place.world.happens(*other);
                }
            }
            let Ok(at) = place.world.happened.binary_search(&answer.number) else { return };
            place.world.happened.remove(at);
            place.answer += 1;
        }
    }

    /// What follows from the next thing that may happen; nothing if all has been tried.
    fn step(&self, place: &mut Place) -> Option<Place> {
        let Answer { under_way, deletes, moment, .. } = &self.answers[place.answer];
        let Place { answer, world, used, next } = place;
        while let Some(other) = under_way.get(*next) {
            *next += 1;
            let operation = self.certain[other];
            if world.has(*other) || looks(operation) || !fits(operation, world.content) {
                continue;
            }
            let content = effect(operation.action, world.content);
            if content == world.content || self.may_go(world, *other, *moment) {
                let mut world = World { content, happened: world.happened.clone() };
                world.happens(*other);
                return Some(Place { answer: *answer, world, used: *used, next: 0 });
            }
        }
        let is_tried = under_way.len() < *next;
        *next = under_way.len() + 1;
        let is_possible = *used < *deletes && world.content.is_some();
        if is_tried || !is_possible || !self.may_go(world, usize::MAX, *moment) {
            return None;
        }
        let world = World { content: None, happened: world.happened.clone() };
        Some(Place { answer: *answer, world, used: *used + 1, next: 0 })
    }

    /// Whether what the key holds may be replaced by operation `by`: a value never comes back, so that everybody who
    /// sees it must have seen it by then.
    fn may_go(&self, world: &World, by: usize, moment: u64) -> bool {
        let seers = world.content.and_then(|value| self.seers.get(&value));
        seers.is_none_or(|seers| {
            seers
                .iter()
                .all(|seer| *seer == by || self.certain[seer].end < moment || world.has(*seer))
        })
    }
}

/// Whether it changes nothing wherever its answer is true: a read, a swap that failed, a deletion of what was not there.
fn looks(operation: Certain) -> bool {
    match (operation.action, operation.seen) {
        (Action::Read, _) => true,
        (Action::Swap { expected, .. }, Seen::WasNot(was)) => was == expected,
        (action, Seen::Was(was)) => effect(action, was) == was,
        _ => false,
    }
}

pub(super) fn fits(operation: Certain, content: Content) -> bool {
    match operation.seen {
        Seen::Nothing => true,
        Seen::Was(was) => was == content,
        Seen::WasNot(was) => was != content,
    }
}

pub(super) fn effect(action: Action, content: Content) -> Content {
    match action {
        Action::Read => content,
        Action::Put(value) => Some(value),
        Action::Delete => None,
        Action::Swap { expected, new } if expected == content => Some(new),
        Action::Swap { .. } => content,
    }
}
