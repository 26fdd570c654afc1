//! Tests of the judge: small histories whose verdict is known.

use super::{
    search::{effect, fits},
    *,
};

/// A history from lines: action, beginning, end (0: never answered), what was seen.
fn history(lines: &[(Action, u64, u64, Seen)]) -> History {
    let mut history = History::default();
    for &(action, begin, end, seen) in lines {
        let operation = history.begin(action, begin);
        if end > 0 {
            history.answered(operation, end, seen);
        }
    }
    history
}

const NOTHING: Seen = Seen::Nothing;

fn was(content: Content) -> Seen {
    Seen::Was(content)
}

fn property(lines: &[(Action, u64, u64, Seen)]) -> &'static str {
    history(lines).check().unwrap_err().property
}

#[test]
fn what_follows_in_time_sees_what_was_before() {
    let good = [
        (Action::Read, 1, 2, was(None)),
        (Action::Put(1), 3, 4, was(None)),
        (Action::Swap { expected: Some(1), new: 2 }, 5, 6, was(Some(1))),
        (Action::Delete, 7, 8, was(Some(2))),
        (Action::Read, 9, 10, was(None)),
    ];
    history(&good).check().unwrap();
}

#[test]
fn a_lost_write_is_found() {
    assert_eq!(
        property(&[(Action::Put(1), 1, 2, NOTHING), (Action::Read, 3, 4, was(None))]),
        "linearizability"
    );
}

#[test]
fn a_stale_read_is_found() {
    let lines = [
        (Action::Put(1), 1, 2, NOTHING),
        (Action::Put(2), 3, 4, NOTHING),
        (Action::Read, 5, 6, was(Some(1))),
    ];
    assert_eq!(property(&lines), "linearizability");
}

#[test]
fn a_read_that_goes_back_while_a_write_is_open_is_found() {
    let lines = [
        (Action::Put(1), 1, 2, NOTHING),
        (Action::Put(2), 3, 0, NOTHING),
        (Action::Read, 4, 5, was(Some(2))),
        (Action::Read, 6, 7, was(Some(1))),
    ];
    assert_eq!(property(&lines), "linearizability");
    history(&lines[..3]).check().unwrap();
}

#[test]
fn a_deletion_without_answer_may_come_late_and_only_once() {
    let late = [
        (Action::Delete, 1, 0, NOTHING),
        (Action::Put(1), 2, 3, NOTHING),
        (Action::Read, 4, 5, was(Some(1))),
        (Action::Read, 6, 7, was(None)),
    ];
    history(&late).check().unwrap();
    let mut twice = late.to_vec();
    twice.push((Action::Put(2), 8, 9, NOTHING));
    twice.push((Action::Read, 10, 11, was(None)));
    assert_eq!(property(&twice), "linearizability");
    twice.insert(0, (Action::Delete, 0, 0, NOTHING));
    history(&twice).check().unwrap();
}

#[test]
fn a_refused_write_that_shows_up_is_found() {
    let mut history = History::default();
    let put = history.begin(Action::Put(1), 1);
    history.refused(put);
    let read = history.begin(Action::Read, 2);
    history.answered(read, 3, was(Some(1)));
    let property = history.check().unwrap_err().property;
    assert_eq!(property, "what was refused for certain never happens");
}

#[test]
fn an_invented_value_and_one_from_the_future_are_found() {
    assert_eq!(property(&[(Action::Read, 1, 2, was(Some(9)))]), "reads give written values");
    let early = [(Action::Read, 1, 2, was(Some(1))), (Action::Put(1), 3, 4, NOTHING)];
    assert_eq!(property(&early), "reads give written values");
}

#[test]
fn two_swaps_that_both_took_place_are_found() {
    let lines = [
        (Action::Swap { expected: None, new: 1 }, 1, 5, was(None)),
        (Action::Swap { expected: None, new: 2 }, 2, 6, was(None)),
    ];
    assert_eq!(property(&lines), "linearizability");
}

#[test]
fn a_failed_swap_that_says_only_that_it_failed_is_explained_or_not() {
    let fails = (Action::Swap { expected: None, new: 2 }, 3, 4, Seen::WasNot(None));
    history(&[(Action::Put(1), 1, 0, NOTHING), fails]).check().unwrap();
    assert_eq!(property(&[fails]), "linearizability");
}

/// Tries every order of everything.
fn by_definition(history: &History) -> bool {
    fn search(left: &mut Vec<Entry>, content: Content) -> bool {
        if left.iter().all(|entry| matches!(entry.state, State::Open)) {
            return true;
        }
        let end = |entry: &Entry| match entry.state {
            State::Answered { end, .. } => end,
            _ => u64::MAX,
        };
        let first_end = left.iter().map(end).min().unwrap_or(u64::MAX);
        for at in 0..left.len() {
            let entry = left[at];
            let seen = match entry.state {
                State::Answered { seen, .. } => seen,
                _ => Seen::Nothing,
            };
            let certain = Certain { action: entry.action, seen, end: 0 };
            if entry.begin > first_end || !fits(certain, content) {
                continue;
            }
            let taken = left.remove(at);
            let found = search(left, effect(taken.action, content));
            left.insert(at, taken);
            if found {
                return true;
            }
        }
        false
    }
    let refused = |entry: &Entry| matches!(entry.state, State::Refused);
    search(&mut history.entries.iter().copied().filter(|entry| !refused(entry)).collect(), None)
}

/// A small generator (xorshift), so that this crate depends on nothing.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

#[test]
fn the_verdict_is_the_definitions_on_small_histories() {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut verdicts = [0u32, 0];
    for _ in 0..30_000 {
        let count = 2 + numbers.below(5);
        let mut moments: Vec<u64> = (1..=2 * count).collect();
        for _ in 0..numbers.below(8) {
            let at = numbers.below(2 * count - 1) as usize;
            moments.swap(at, at + 1);
        }
        let mut history = History::default();
        for number in 0..count {
            let pair = &moments[2 * number as usize..][..2];
            let (begin, end) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let content = |value: u64| Some(value).filter(|value| *value > 0);
            let value = number + 1;
            let action = match numbers.below(5) {
                0 | 1 => Action::Read,
                2 => Action::Put(value),
                3 => Action::Delete,
                _ => Action::Swap { expected: content(numbers.below(value)), new: value },
            };
            let operation = history.begin(action, begin);
            if numbers.below(5) == 0 {
                continue;
            }
            let seen = content(numbers.below(count));
            let seen = match (action, numbers.below(4)) {
                (Action::Read, _) | (_, 0) => was(seen),
                (Action::Swap { expected, .. }, 1) => Seen::WasNot(expected),
                (Action::Swap { expected, .. }, _) => was(expected),
                _ => Seen::Nothing,
            };
            history.answered(operation, end, seen);
        }
        let verdict = history.check().is_ok();
        assert_eq!(verdict, by_definition(&history), "{history:#?}");
        verdicts[usize::from(verdict)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 3000), "{verdicts:?}");
}

#[test]
fn long_histories_cost_little() {
    let mut history = History::default();
    let mut now = 0;
    let mut last = None;
    for value in 1..20_000 {
        let put = history.begin(Action::Put(value), now + 1);
        if value % 50 == 0 {
            // Never answered, and never seen.
            now += 1;
            continue;
        }
        let read = history.begin(Action::Read, now + 2);
        history.answered(put, now + 3, was(last));
        history.answered(read, now + 4, was(Some(value)));
        if value % 500 == 0 {
            history.begin(Action::Delete, now + 5);
        }
        last = Some(value);
        now += 5;
    }
    history.check().unwrap();
}

#[test]
fn forty_that_change_nothing_at_once_cost_little() {
    let mut history = History::default();
    let mut late = Vec::new();
    for number in 0..40 {
        let action = match number % 2 {
            0 => Action::Delete,
            _ => Action::Swap { expected: Some(1), new: 100 + number },
        };
        late.push(history.begin(action, 1 + number));
    }
    for value in 0..10 {
        let (put, begin) =
            (history.begin(Action::Put(10 + value), 100 + 4 * value), 100 + 4 * value);
        history.answered(put, begin + 1, was(None));
        let delete = history.begin(Action::Delete, begin + 2);
        history.answered(delete, begin + 3, was(Some(10 + value)));
    }
    for (number, operation) in (0..).zip(late) {
        history.answered(operation, 200 + number, was(None));
    }
    history.check().unwrap();
}

/// Rounds of a put, a swap that failed and two deletions, which all begin before the first is answered.
#[test]
fn a_hundred_answers_that_come_late_and_together_cost_little() {
    let mut history = History::default();
    let mut late = Vec::new();
    for round in 0..25 {
        let value = 1 + 2 * round;
        let swap = Action::Swap { expected: None, new: value + 1 };
        for (action, seen) in [
            (Action::Put(value), None),
            (swap, Some(value)),
            (Action::Delete, Some(value)),
            (Action::Delete, None),
        ] {
            late.push((history.begin(action, 1 + late.len() as u64), seen));
        }
    }
    // In about the order in which it happened.
    let count = late.len();
    for at in (0..count - 3).step_by(3) {
        late.swap(at, at + 3);
    }
    for (moment, (operation, seen)) in (1000..).zip(late) {
        history.answered(operation, moment, was(seen));
    }
    history.check().unwrap();
}

#[test]
fn a_write_that_is_gone_at_the_end_is_lost() {
    let lost = |lines: &[(Action, u64, u64, Seen)], last| history(lines).check_lost(last);
    let swap = Action::Swap { expected: Some(1), new: 2 };
    let put_twice = [(Action::Put(1), 1, 2, NOTHING), (Action::Put(2), 3, 4, NOTHING)];
    lost(&put_twice, Some(2)).unwrap();
    assert_eq!(lost(&put_twice, Some(1)).unwrap_err().property, "no acknowledged write is lost");
    lost(&put_twice, None).unwrap_err();
    let swapped = [(Action::Put(1), 1, 2, NOTHING), (swap, 3, 4, was(Some(1)))];
    lost(&swapped, Some(1)).unwrap_err();
    let deleted = [(Action::Put(1), 1, 2, NOTHING), (Action::Delete, 3, 4, NOTHING)];
    lost(&deleted, Some(1)).unwrap_err();
    lost(&deleted, None).unwrap();
}

#[test]
fn what_overlaps_was_not_answered_or_did_nothing_is_not_lost() {
    let lost = |lines: &[(Action, u64, u64, Seen)], last| history(lines).check_lost(last);
    let overlap = [(Action::Put(1), 1, 4, NOTHING), (Action::Put(2), 3, 6, NOTHING)];
    lost(&overlap, Some(1)).unwrap();
    let open = [(Action::Put(1), 1, 2, NOTHING), (Action::Put(2), 3, 0, NOTHING)];
    lost(&open, Some(1)).unwrap();
    let late = [(Action::Delete, 1, 0, NOTHING), (Action::Put(2), 3, 4, NOTHING)];
    lost(&late, None).unwrap();
    let swap = Action::Swap { expected: Some(7), new: 2 };
    let failed = [(Action::Put(1), 1, 2, NOTHING), (swap, 3, 4, was(Some(1)))];
    lost(&failed, Some(1)).unwrap();
}
