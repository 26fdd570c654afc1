//! Linearizability of registers: every read gives what some order of the operations allows that respects real time.
//!
//! Each value is written at most once, so a read says which write it saw, and the question has an answer in
//! n log n (Gibbons and Korach, "Testing Shared Memories", 1997). The operations of one value, the write and the reads
//! that saw it, form a cluster. Let `f` be the earliest end of one of them and `s` the latest beginning. If `f < s`,
//! the register must hold the value from `f` to `s`: a *forward* zone. Otherwise all of them overlap at some moment
//! between `s` and `f`, and one such moment is enough: a *backward* zone. The history is linearizable if and only if
//! no read ends before its write begins, no two forward zones overlap, and no backward zone lies inside a forward one.
//!
//! An operation without answer is open: a write may have happened at any time from its beginning on, or never; a read
//! saw nothing. Moments are all different (use a counter, not a clock).

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// The end of an operation that was never answered.
const OPEN: u64 = u64::MAX;

/// The operations on one register.
#[derive(Clone, Debug, Default)]
pub struct Register {
    writes: BTreeMap<u64, Span>,
    /// The value that was read, or 0 for the empty register.
    reads: Vec<(u64, Span)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    begin: u64,
    end: u64,
}

impl Register {
    /// A write of `value` (not 0, never written before) began at `begin`. It is open until it is answered.
    pub fn write_begins(&mut self, value: u64, begin: u64) {
        assert!(value != 0, "0 is the empty register");
        let before = self.writes.insert(value, Span { begin, end: OPEN });
        assert!(before.is_none(), "values are unique");
    }

    /// The write of `value` was answered at `end`.
    pub fn write_ends(&mut self, value: u64, end: u64) {
        self.writes.get_mut(&value).expect("the write has begun").end = end;
    }

    /// The write of `value` has certainly not happened and never will.
    pub fn write_failed(&mut self, value: u64) {
        self.writes.remove(&value);
    }

    /// A read that began at `begin` was answered at `end` with `value`; 0 for the empty register.
    pub fn read(&mut self, value: u64, begin: u64, end: u64) {
        self.reads.push((value, Span { begin, end }));
    }

    /// How many operations are known.
    pub fn operations(&self) -> u64 {
        (self.writes.len() + self.reads.len()) as u64
    }

    /// How many of them were never answered.
    pub fn open(&self) -> u64 {
        self.writes.values().filter(|write| write.end == OPEN).count() as u64
    }

    /// Whether the operations so far are linearizable.
    ///
    /// # Errors
    /// They are not, with one reason.
    pub fn check(&self) -> Verdict {
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        for (value, zone) in self.zones()? {
            match zone {
                Zone::Forward { from, to } => forward.push((from, to, value)),
                Zone::Backward { from, to } => backward.push((from, to, value)),
            }
        }
        forward.sort_unstable();
        for pair in forward.windows(2) {
            let [(_, until, one), (from, _, other)] = [pair[0], pair[1]];
            if from <= until {
                let details = format!(
                    "value {one} was certainly there until moment {until}, value {other} from {from} on"
                );
                return Err(stale(details));
            }
        }
        for (from, to, value) in backward {
            // The last forward zone that begins before.
            let before = forward.partition_point(|zone| zone.0 < from);
            if let Some((since, until, other)) = before.checked_sub(1).map(|at| forward[at])
                && to < until
            {
                let details = format!(
                    "value {value} was there between {from} and {to}, value {other} certainly from {since} \
                     until {until}"
                );
                return Err(stale(details));
            }
        }
        Ok(())
    }

    /// The zone of each value that was certainly written or seen.
    fn zones(&self) -> Result<Vec<(u64, Zone)>, Violation> {
        // The empty register is a write that ended before everything.
        let mut clusters: BTreeMap<u64, (Span, Span)> = BTreeMap::new();
        clusters.insert(0, (Span { begin: 0, end: 0 }, Span { begin: 0, end: 0 }));
        for (value, write) in &self.writes {
            clusters.insert(*value, (*write, *write));
        }
        for (value, read) in &self.reads {
            let Some((write, bounds)) = clusters.get_mut(value) else {
                let details = format!("value {value} was read at {} and never written", read.end);
                return Err(Violation::new("reads give written values", details));
            };
            if read.end < write.begin {
                let details =
                    format!("value {value} was read at {}, written from {}", read.end, write.begin);
                return Err(Violation::new("reads give written values", details));
            }
            // `bounds` has the latest beginning and the earliest end.
            bounds.begin = bounds.begin.max(read.begin);
            bounds.end = bounds.end.min(read.end);
        }
        let zone = |(value, (_, bounds)): (u64, (Span, Span))| {
            let Span { begin, end } = bounds;
            let zone = match end {
                OPEN => return None, // Neither answered nor seen: perhaps it never happens.
                _ if end < begin => Zone::Forward { from: end, to: begin },
                _ => Zone::Backward { from: begin, to: end },
            };
            Some((value, zone))
        };
        Ok(clusters.into_iter().filter_map(zone).collect())
    }
}

enum Zone {
    /// The register had the value all the time.
    Forward { from: u64, to: u64 },
    /// The register had the value at some moment within.
    Backward { from: u64, to: u64 },
}

fn stale(details: String) -> Violation {
    Violation::new("reads are linearizable", details)
}

#[cfg(test)]
mod tests {
    use runtime::Rng;

    use super::*;
    use crate::rng::{index, shuffle};

    fn written(writes: &[(u64, u64, u64)]) -> Register {
        let mut register = Register::default();
        for &(value, begin, end) in writes {
            register.write_begins(value, begin);
            register.write_ends(value, end);
        }
        register
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut register = written(&[(1, 1, 2), (2, 3, 4)]);
        register.read(2, 5, 6);
        register.check().unwrap();
        register.read(1, 7, 8);
        assert!(register.check().is_err());
    }

    #[test]
    fn a_read_of_the_empty_register_after_a_write_is_found() {
        let mut register = written(&[(1, 1, 2)]);
        register.read(0, 3, 4);
        assert!(register.check().is_err());
    }

    #[test]
    fn invented_and_future_values_are_found() {
        let mut register = Register::default();
        register.read(9, 1, 2);
        assert!(register.check().is_err());
        let mut register = written(&[(9, 5, 6)]);
        register.read(9, 1, 2);
        assert!(register.check().is_err());
    }

    #[test]
    fn a_value_that_was_reported_lost_and_is_read_is_found() {
        let mut register = Register::default();
        register.write_begins(1, 1);
        register.write_failed(1);
        register.check().unwrap();
        register.read(1, 3, 4);
        assert!(register.check().is_err());
    }

    #[test]
    fn an_open_write_may_happen_late_or_never_but_not_come_and_go() {
        let mut register = written(&[(2, 3, 4)]);
        register.write_begins(1, 1);
        register.read(2, 5, 6);
        register.check().unwrap();
        register.read(1, 7, 8);
        register.check().unwrap();
        register.read(2, 9, 10);
        assert!(register.check().is_err());
    }

    /// Tries every order: the definition itself.
    fn by_definition(register: &Register) -> bool {
        let mut operations: Vec<(u64, bool, Span)> = Vec::new();
        operations.extend(register.writes.iter().map(|(value, span)| (*value, true, *span)));
        operations.extend(register.reads.iter().map(|(value, span)| (*value, false, *span)));
        fn search(left: &mut Vec<(u64, bool, Span)>, value: u64) -> bool {
            if left.iter().all(|(_, is_write, span)| *is_write && span.end == OPEN) {
                return true;
            }
            let first_end = left.iter().map(|(_, _, span)| span.end).min().unwrap();
            for at in 0..left.len() {
                let (of, is_write, span) = left[at];
                if span.begin > first_end || (!is_write && of != value) {
                    continue;
                }
                let taken = left.remove(at);
                let fits = search(left, if is_write { of } else { value });
                left.insert(at, taken);
                if fits {
                    return true;
                }
            }
            false
        }
        search(&mut operations, 0)
    }

    #[test]
    fn the_verdict_is_the_definitions_on_small_histories() {
        let mut rng = Rng::new(1);
        let mut verdicts = [0, 0];
        for _ in 0..20_000 {
            let writes = 1 + rng.range(0..3);
            let reads = 1 + rng.range(0..4);
            let mut moments: Vec<u64> = (1..=2 * (writes + reads)).collect();
            // Mostly short operations, so that real time says much.
            for _ in 0..index(&mut rng, 6) {
                let at = index(&mut rng, moments.len() - 1);
                moments.swap(at, at + 1);
            }
            let mut spans: Vec<(u64, u64)> = moments
                .chunks(2)
                .map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1])))
                .collect();
            shuffle(&mut rng, &mut spans);
            let mut register = Register::default();
            for (value, (begin, end)) in (1..).zip(spans.drain(..writes as usize)) {
                register.write_begins(value, begin);
                if rng.chance(0.8) {
                    register.write_ends(value, end);
                }
            }
            for (begin, end) in spans {
                register.read(rng.range(0..=writes), begin, end);
            }
            let verdict = register.check().is_ok();
            assert_eq!(verdict, by_definition(&register), "{register:?}");
            verdicts[usize::from(verdict)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 1000), "{verdicts:?}");
    }
}
