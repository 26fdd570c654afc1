//! What is measured of requests: latencies, counts and failures, per interval of one second and over the window.
//!
//! Latencies go into an HDR histogram (1 µs to 60 s, three digits). The current interval has a histogram of its own,
//! which is added to the whole when the interval ends; what stays of an interval is its summary. An interval in which
//! nothing completed is kept too: it is the one that matters.
//!
//! What counts when: a request counts towards the rate if it completed inside the window. Its latency counts
//! likewise in a closed loop; in an open loop the latency of every request that was due inside the window counts,
//! however late its answer came, because leaving the late ones out would hide the stall that made them late.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::target::OpError;

/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// An empty histogram of latencies in microseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("constant bounds are valid")
}

/// Failed requests by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Errors {
    /// No answer: connection or gRPC failure.
    pub(crate) rpc: u64,
    /// A region error that trying again did not cure.
    pub(crate) region: u64,
    /// An answer that says no.
    pub(crate) refused: u64,
    /// A key that should be there is not.
    pub(crate) missing: u64,
    /// A value that does not fit its key: data are wrong.
    pub(crate) checksum: u64,
    /// Still not answered when the grace time after the window had passed.
    pub(crate) unanswered: u64,
}

impl Errors {
    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.rpc + self.region + self.refused + self.missing + self.checksum + self.unanswered
    }

    fn count(&mut self, error: &OpError) {
        match error {
            OpError::Rpc(_) => self.rpc += 1,
            OpError::Region(_) => self.region += 1,
            OpError::Refused(_) => self.refused += 1,
            OpError::Missing => self.missing += 1,
            OpError::Mismatch => self.checksum += 1,
            OpError::Unanswered => self.unanswered += 1,
        }
    }
}

/// Summary of one interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// Its number; it begins so many seconds after the window's start.
    pub(crate) second: u64,
    /// Requests that succeeded.
    pub(crate) ops: u64,
    /// Requests that failed.
    pub(crate) errors: u64,
    /// Median latency; 0 if nothing completed.
    pub(crate) p50_us: u64,
    /// 99th percentile.
    pub(crate) p99_us: u64,
    /// The slowest.
    pub(crate) max_us: u64,
}

/// Which latencies count (see the module's doc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// A fixed number of requests is in flight.
    Closed,
    /// Requests begin at fixed times.
    Open,
}

/// Takes in what happens to requests during one window.
#[derive(Debug)]
pub(crate) struct Recorder {
    kind: Loop,
    start: Instant,
    end: Instant,
    total: Histogram<u64>,
    current: Histogram<u64>,
    current_errors: u64,
    intervals: Vec<Interval>,
    ops: u64,
    puts: u64,
    errors: Errors,
    shed: u64,
    first_error: Option<String>,
}

/// What a window showed.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    /// Latencies that count.
    pub(crate) latencies: Histogram<u64>,
    /// Whole seconds of the window, in order.
    pub(crate) intervals: Vec<Interval>,
    /// Length of the window.
    pub(crate) length: Duration,
    /// Requests that succeeded inside the window.
    pub(crate) ops: u64,
    /// Writes that succeeded, before and after the window included.
    pub(crate) puts: u64,
    /// Failed requests.
    pub(crate) errors: Errors,
    /// Requests of an open loop that could not begin when they were due.
    pub(crate) shed: u64,
    /// The first failure, in words.
    pub(crate) first_error: Option<String>,
}

impl Recorder {
    /// A window from `start` (possibly in the future: what completes earlier is not counted) to `end`.
    pub(crate) fn new(kind: Loop, start: Instant, end: Instant) -> Recorder {
        Recorder {
            kind,
            start,
            end,
            total: histogram(),
            current: histogram(),
            current_errors: 0,
            intervals: Vec::new(),
            ops: 0,
            puts: 0,
            errors: Errors::default(),
            shed: 0,
            first_error: None,
        }
    }

    /// When the window ends.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Ends the window early.
    pub(crate) fn cut(&mut self, now: Instant) {
        self.end = self.end.min(now).max(self.start);
    }

    /// Requests that succeeded in the window so far.
    pub(crate) fn ops(&self) -> u64 {
        self.ops
    }

    /// Failed requests so far.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.total()
    }

    /// A request that began (closed loop) or was due (open loop) at `began` has ended now.
    pub(crate) fn completed(
        &mut self,
        now: Instant,
        began: Instant,
        is_put: bool,
        result: Result<(), OpError>,
    ) {
        if is_put && result.is_ok() {
            self.puts += 1;
        }
        let inside = self.start <= now && now < self.end;
        if inside {
            self.advance(now);
        }
        match result {
            Ok(()) => {
                self.ops += u64::from(inside);
                let counts = match self.kind {
                    Loop::Closed => inside,
                    Loop::Open => self.start <= began && began < self.end,
                };
                if counts {
                    // A late answer of an open loop falls into the last interval.
                    self.current.saturating_record(micros(now.saturating_duration_since(began)));
                }
            }
            Err(error) => self.failed(inside, &error),
        }
    }

    /// A request of an open loop was due at `due` and could not begin: too many are outstanding. It is counted here
    /// once, and again by [`Recorder::completed`] if it begins later.
    pub(crate) fn shed(&mut self, due: Instant) {
        if self.start <= due && due < self.end {
            self.shed += 1;
        }
    }

    /// A request that was due at `due` never began or never ended: it has waited until now.
    pub(crate) fn unanswered(&mut self, now: Instant, due: Instant) {
        let counts = self.kind == Loop::Closed || (self.start <= due && due < self.end);
        if counts {
            self.failed(false, &OpError::Unanswered);
            self.current.saturating_record(micros(now.saturating_duration_since(due)));
        }
    }

    /// A request that was due inside the window had not begun at its end: its waiting time counts as its latency.
    pub(crate) fn never_began(&mut self, now: Instant, due: Instant) {
        if self.start <= due && due < self.end {
            self.current.saturating_record(micros(now.saturating_duration_since(due)));
        }
    }

    /// Ends the recording.
    pub(crate) fn finish(mut self) -> Recording {
        let length = self.end - self.start;
        // The last interval is kept if it is whole, or the only one. Closing it adds its latencies to the total.
        let whole = length.as_nanos() / INTERVAL.as_nanos();
        if length > Duration::ZERO {
            self.advance(self.end - Duration::from_nanos(1));
        }
        self.close_interval();
        self.intervals.truncate(usize::try_from(whole.max(1)).unwrap_or(usize::MAX));
        Recording {
            latencies: self.total,
            intervals: self.intervals,
            length,
            ops: self.ops,
            puts: self.puts,
            errors: self.errors,
            shed: self.shed,
            first_error: self.first_error,
        }
    }

    fn failed(&mut self, inside: bool, error: &OpError) {
        self.errors.count(error);
        self.current_errors += u64::from(inside);
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Closes the intervals that have ended by `now`.
    fn advance(&mut self, now: Instant) {
        let index = (now - self.start).as_secs();
        while (self.intervals.len() as u64) < index {
            self.close_interval();
        }
    }

    fn close_interval(&mut self) {
        let second = self.intervals.len() as u64;
        let counted: u64 = self.intervals.iter().map(|interval| interval.ops).sum();
        let empty = self.current.is_empty();
        let quantile = |q| if empty { 0 } else { self.current.value_at_quantile(q) };
        self.intervals.push(Interval {
            second,
            ops: self.ops - counted,
            errors: self.current_errors,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us: self.current.max(),
        });
        self.total.add(&self.current).expect("both have the same bounds");
        self.current.reset();
        self.current_errors = 0;
    }
}

impl Recording {
    /// Requests per second that succeeded.
    pub(crate) fn ops_per_s(&self) -> f64 {
        per_second(self.ops, self.length)
    }

    /// The interval in which the least was done, and its rate.
    pub(crate) fn worst_interval(&self) -> Option<(&Interval, f64)> {
        let worst = self.intervals.iter().min_by_key(|interval| interval.ops)?;
        Some((worst, per_second(worst.ops, self.length.min(INTERVAL))))
    }

    /// A latency quantile in microseconds; 0 if nothing completed.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        if self.latencies.is_empty() { 0 } else { self.latencies.value_at_quantile(quantile) }
    }
}

fn per_second(count: u64, length: Duration) -> f64 {
    if length.is_zero() { 0.0 } else { count as f64 / length.as_secs_f64() }
}

/// At least one: the histogram knows no zero.
fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A recorder of a window of `seconds`, and its start. The window's moments are made up; nothing waits.
    fn recorder(kind: Loop, seconds: u64) -> (Recorder, Instant) {
        let start = clock::now() + ms(1_000);
        (Recorder::new(kind, start, start + ms(seconds * 1_000)), start)
    }

    #[test]
    fn intervals_are_merged_into_the_whole() {
        let (mut recorder, start) = recorder(Loop::Closed, 3);
        for i in 0..3_000 {
            let now = start + ms(i);
            let latency = ms(1 + i / 1_000); // 1 ms in the first second, 2 in the next, 3 in the last
            recorder.completed(now, now - latency, false, Ok(()));
        }
        let recording = recorder.finish();
        assert_eq!(recording.ops, 3_000);
        assert_eq!(recording.latencies.len(), 3_000);
        assert_eq!(
            recording.intervals.iter().map(|i| i.ops).collect::<Vec<_>>(),
            [1_000, 1_000, 1_000]
        );
        assert_eq!(
            recording.intervals.iter().map(|i| i.p50_us / 1_000).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!(recording.quantile_us(0.5) / 1_000, 2);
        assert_eq!(recording.latencies.max() / 1_000, 3);
        assert!((recording.ops_per_s() - 1_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_silent_second_is_the_worst_one() {
        let (mut recorder, start) = recorder(Loop::Closed, 4);
        for i in [10, 20, 1_500, 3_900] {
            recorder.completed(start + ms(i), start, false, Ok(()));
        }
        let recording = recorder.finish();
        assert_eq!(recording.intervals.iter().map(|i| i.ops).collect::<Vec<_>>(), [2, 1, 0, 1]);
        let (worst, rate) = recording.worst_interval().unwrap();
        assert_eq!((worst.second, rate), (2, 0.0));
    }

    #[test]
    fn the_part_of_a_second_at_the_end_is_no_interval() {
        let start = clock::now();
        let mut recorder = Recorder::new(Loop::Closed, start, start + ms(1_500));
        recorder.completed(start + ms(100), start, false, Ok(()));
        recorder.completed(start + ms(1_400), start, false, Ok(()));
        let recording = recorder.finish();
        assert_eq!(recording.intervals.len(), 1);
        assert_eq!((recording.ops, recording.latencies.len()), (2, 2));

        let mut recorder = Recorder::new(Loop::Closed, start, start + ms(200));
        recorder.completed(start + ms(100), start, false, Ok(()));
        let recording = recorder.finish();
        assert_eq!(recording.intervals.len(), 1, "the only one is kept");
        assert_eq!(recording.worst_interval().unwrap().1, 5.0);
    }

    #[test]
    fn a_closed_loop_counts_what_ends_inside_the_window() {
        let (mut recorder, start) = recorder(Loop::Closed, 1);
        recorder.completed(start - ms(1), start - ms(5), true, Ok(()));
        recorder.completed(start, start - ms(5), true, Ok(()));
        recorder.completed(start + ms(999), start, true, Ok(()));
        recorder.completed(start + ms(1_000), start, true, Ok(()));
        let recording = recorder.finish();
        assert_eq!((recording.ops, recording.latencies.len()), (2, 2));
        assert_eq!(
            recording.puts, 4,
            "writes are counted from start to end: so are the server's syncs"
        );
    }

    #[test]
    fn an_open_loop_counts_every_latency_that_was_due() {
        let (mut recorder, start) = recorder(Loop::Open, 1);
        recorder.completed(start + ms(1), start - ms(1), false, Ok(())); // due before
        recorder.completed(start + ms(500), start + ms(100), false, Ok(()));
        recorder.completed(start + ms(3_000), start + ms(900), false, Ok(())); // after the end
        let recording = recorder.finish();
        assert_eq!(recording.ops, 2, "completed inside the window");
        assert_eq!(recording.latencies.len(), 2, "due inside the window");
        assert_eq!(recording.quantile_us(1.0) / 100_000, 21);
    }

    #[test]
    fn requests_that_never_began_or_ended_leave_their_waiting_time() {
        let (mut recorder, start) = recorder(Loop::Open, 1);
        recorder.shed(start + ms(500));
        recorder.never_began(start + ms(1_000), start + ms(500));
        recorder.unanswered(start + ms(2_000), start + ms(600));
        let recording = recorder.finish();
        assert_eq!(recording.shed, 1);
        assert_eq!((recording.errors.unanswered, recording.errors.total()), (1, 1));
        assert_eq!(recording.latencies.len(), 2);
        assert!(recording.quantile_us(0.5) >= 499_000 && recording.quantile_us(1.0) >= 1_399_000);
    }

    #[test]
    fn failures_are_told_apart_and_do_not_count_as_done() {
        let (mut recorder, start) = recorder(Loop::Closed, 1);
        let now = start + ms(1);
        recorder.completed(now, start, false, Err(OpError::Missing));
        recorder.completed(now, start, false, Err(OpError::Mismatch));
        recorder.completed(now, start, true, Err(OpError::Refused("no".into())));
        recorder.completed(now, start, true, Err(OpError::Rpc("gone".into())));
        let recording = recorder.finish();
        let expected = Errors { missing: 1, checksum: 1, refused: 1, rpc: 1, ..Errors::default() };
        assert_eq!(recording.errors, expected);
        assert_eq!((recording.ops, recording.puts, recording.intervals[0].errors), (0, 0, 4));
        assert_eq!(recording.first_error.as_deref(), Some("no value under a key that was loaded"));
    }

    #[test]
    fn latencies_beyond_the_histogram_are_kept_at_its_end() {
        let (mut recorder, start) = recorder(Loop::Open, 1);
        recorder.completed(start + ms(600_000), start, false, Ok(()));
        let recording = recorder.finish();
        assert!(recording.quantile_us(1.0) >= LATENCY_MAX_US);
    }
}
