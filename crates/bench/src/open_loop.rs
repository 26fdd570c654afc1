//! The open loop: requests begin at the times of a seeded schedule, whatever the target does. It shows the latency
//! that users of a certain rate would see.
//!
//! The one idea (no coordinated omission): latency counts from the moment at which a request was due, not from the
//! one at which it could be sent. A stall of the target, and one of this process, is charged to every request that
//! was due during it.
//!
//! Pacing: a tick of one millisecond releases everything that is due by then; nothing spins, because on a small
//! machine a spinning client takes the server's processor. So latencies carry up to a millisecond of pacing.
//!
//! A request that is due while too many are outstanding is counted as shed, begins as soon as there is room, and has
//! its waiting time in its latency; if it never begins, its waiting time is its latency. Any shed request says that
//! the target did not keep up.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet, spawn_local},
    time::MissedTickBehavior,
};

use crate::{
    clock,
    closed_loop::Abandon,
    target::{BatchConnection, Connection},
    window::Shared,
};

/// How often due requests are released.
const TICK: Duration = Duration::from_millis(1);

/// How the times of requests are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independent of each other, as many users are: exponential distances.
    Poisson,
}

/// The times at which requests are due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    rng: fastrand::Rng,
    start: Instant,
    /// Number of the next request.
    index: u64,
    /// When it is due, after the start.
    offset: Duration,
}

impl Schedule {
    /// `rate` requests per second (above 0) from `start` on.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64, start: Instant) -> Schedule {
        assert!(rate > 0.0, "checked with the arguments");
        Schedule {
            arrivals,
            rate,
            rng: fastrand::Rng::with_seed(seed),
            start,
            index: 0,
            offset: Duration::ZERO,
        }
    }

    /// When the next request is due.
    fn next_due(&self) -> Instant {
        self.start + self.offset
    }

    /// Goes on to the request after it.
    fn advance(&mut self) {
        self.index += 1;
        self.offset = match self.arrivals {
            // From the number, not from the last one: rounding does not add up.
            Arrivals::Constant => Duration::from_secs_f64(self.index as f64 / self.rate),
            // 1 - f is above 0, so the logarithm is finite.
            Arrivals::Poisson => {
                self.offset + Duration::from_secs_f64(-(1.0 - self.rng.f64()).ln() / self.rate)
            }
        };
    }
}

/// Decides which requests begin now. Knows no clock and no target.
#[derive(Debug)]
struct Pacer {
    schedule: Schedule,
    /// Runs ahead of `schedule` while there is no room: the first request not yet counted as shed.
    shed: Option<Schedule>,
}

impl Pacer {
    fn new(schedule: Schedule) -> Pacer {
        Pacer { schedule, shed: None }
    }

    /// Moves the due times of at most `room` requests that are due at `now` to `release`, and those of requests that
    /// are due, have no room, and were not reported before to `shed`.
    fn release(
        &mut self,
        now: Instant,
        room: usize,
        release: &mut Vec<Instant>,
        shed: &mut Vec<Instant>,
    ) {
        while release.len() < room && self.schedule.next_due() <= now {
            release.push(self.schedule.next_due());
            self.schedule.advance();
        }
        if self.schedule.next_due() > now {
            return;
        }
        let ahead = match &mut self.shed {
            Some(ahead) if ahead.index >= self.schedule.index => ahead,
            stale => stale.insert(self.schedule.clone()),
        };
        while ahead.next_due() <= now {
            shed.push(ahead.next_due());
            ahead.advance();
        }
    }

    /// The due times, before `end`, of requests that were never released.
    fn rest(mut self, end: Instant) -> impl Iterator<Item = Instant> {
        std::iter::from_fn(move || {
            let due = self.schedule.next_due();
            self.schedule.advance();
            (due < end).then_some(due)
        })
    }
}

/// Releases due requests to `begin` until the window's end.
async fn pace(
    schedule: Schedule,
    outstanding_max: usize,
    shared: &Shared,
    mut begin: impl FnMut(&[Instant]),
) {
    let mut pacer = Pacer::new(schedule);
    let mut release = Vec::new();
    let mut shed = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !shared.is_stopped() {
        tick.tick().await;
        // A late tick must not begin requests that were due after the window.
        let now = clock::now().min(shared.end());
        let room = outstanding_max.saturating_sub(shared.in_flight());
        pacer.release(now, room, &mut release, &mut shed);
        shared.record(|recorder| shed.drain(..).for_each(|due| recorder.shed(due)));
        if !release.is_empty() {
            begin(&release);
            release.clear();
        }
    }
    let now = clock::now();
    shared.record(|recorder| {
        pacer.rest(recorder.end()).for_each(|due| recorder.never_began(now, due))
    });
}

/// Starts the loop on connections that carry one request per clone.
pub(crate) fn calls<C: Connection>(
    connections: &[C],
    schedule: Schedule,
    outstanding_max: usize,
    shared: &Rc<Shared>,
) -> Vec<JoinHandle<()>> {
    let connections = connections.to_vec();
    let shared = shared.clone();
    vec![spawn_local(async move {
        // Callers that are not used at the moment; there are never more than requests outstanding.
        let idle: Rc<RefCell<Vec<C>>> = Rc::default();
        let mut requests = JoinSet::new();
        let mut next = 0;
        pace(schedule, outstanding_max, &shared, |due| {
            while requests.try_join_next().is_some() {}
            for &due in due {
                let mut connection = idle.borrow_mut().pop().unwrap_or_else(|| {
                    next += 1;
                    connections[next % connections.len()].clone()
                });
                let op = shared.next_op();
                let ticket = shared.begin(due, op.is_put());
                let idle = idle.clone();
                requests.spawn_local(async move {
                    let result = connection.call(op).await;
                    ticket.end(result);
                    idle.borrow_mut().push(connection);
                });
            }
        })
        .await;
        while requests.join_next().await.is_some() {}
    })]
}

/// Starts the loop on connections whose messages carry up to `batch` requests.
pub(crate) fn batches<B: BatchConnection>(
    connections: &[B],
    batch: usize,
    schedule: Schedule,
    outstanding_max: usize,
    shared: &Rc<Shared>,
) -> Vec<JoinHandle<()>> {
    let lanes: Vec<Rc<Lane<B>>> = connections
        .iter()
        .map(|connection| {
            let connection = connection.clone();
            Rc::new(Lane {
                connection,
                in_flight: Cell::new(0),
                last: Cell::new(false),
                changed: Notify::new(),
            })
        })
        .collect();
    let mut tasks: Vec<JoinHandle<()>> =
        lanes.iter().map(|lane| spawn_local(drain(lane.clone(), shared.clone()))).collect();
    let shared = shared.clone();
    tasks.push(spawn_local(async move {
        let mut ops = Vec::with_capacity(batch);
        let mut next = 0;
        pace(schedule, outstanding_max, &shared, |due| {
            for due in due.chunks(batch) {
                let lane = &lanes[next % lanes.len()];
                next += 1;
                ops.extend(due.iter().map(|due| (shared.next_op(), *due)));
                shared.begin_many(ops.len());
                lane.in_flight.set(lane.in_flight.get() + ops.len());
                lane.connection.start(&mut ops);
            }
        })
        .await;
        for lane in &lanes {
            lane.last.set(true);
            lane.changed.notify_one();
        }
    }));
    tasks
}

/// One connection of the loop in batches.
struct Lane<B> {
    connection: B,
    in_flight: Cell<usize>,
    /// No request will be added.
    last: Cell<bool>,
    changed: Notify,
}

/// Records the ends of a connection's requests.
async fn drain<B: BatchConnection>(lane: Rc<Lane<B>>, shared: Rc<Shared>) {
    let _guard = Abandon { connection: &lane.connection, shared: &shared };
    let mut completions = Vec::new();
    while !lane.last.get() || lane.in_flight.get() > 0 {
        tokio::select! {
            () = lane.connection.completed(&mut completions) => {}
            () = lane.changed.notified() => {}
        }
        let now = clock::now();
        lane.in_flight.set(lane.in_flight.get().saturating_sub(completions.len()));
        for completion in completions.drain(..) {
            shared.completed(now, completion.began, completion.is_put, completion.result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn due_times(mut schedule: Schedule, count: usize) -> Vec<Duration> {
        let start = schedule.start;
        (0..count)
            .map(|_| {
                let due = schedule.next_due() - start;
                schedule.advance();
                due
            })
            .collect()
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let times = due_times(Schedule::new(Arrivals::Constant, 3.0, 1, clock::now()), 3_000_001);
        assert_eq!(times[0], Duration::ZERO);
        assert_eq!(times[3], Duration::from_secs(1));
        assert_eq!(times[3_000_000], Duration::from_secs(1_000_000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let schedule = |seed| Schedule::new(Arrivals::Poisson, 1_000.0, seed, clock::now());
        let times = due_times(schedule(5), 100_001);
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1_000.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance =
            gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution has its mean as its standard deviation.
        assert!((mean - 1.0).abs() < 0.02, "mean gap {mean} ms");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
        assert_eq!(times[..100], due_times(schedule(5), 100)[..]);
        assert_ne!(times[..100], due_times(schedule(6), 100)[..]);
    }

    #[test]
    fn a_stall_of_the_pacer_is_charged_to_every_request_that_was_due() {
        let start = clock::now();
        let mut pacer = Pacer::new(Schedule::new(Arrivals::Constant, 1_000.0, 1, start));
        let (mut release, mut shed) = (Vec::new(), Vec::new());
        pacer.release(start, 100, &mut release, &mut shed);
        assert_eq!(release, [start]);
        release.clear();
        // The next tick comes 10 ms late: ten requests, each with its own due time.
        pacer.release(start + ms(10), 100, &mut release, &mut shed);
        assert_eq!(release, (1..=10).map(|i| start + ms(i)).collect::<Vec<_>>());
        assert!(shed.is_empty());
    }

    #[test]
    fn requests_without_room_are_shed_once_and_begin_later_with_their_own_time() {
        let start = clock::now();
        let mut pacer = Pacer::new(Schedule::new(Arrivals::Poisson, 1_000.0, 1, start));
        let (mut release, mut shed) = (Vec::new(), Vec::new());
        pacer.release(start + ms(50), 2, &mut release, &mut shed);
        assert_eq!(release.len(), 2);
        let first = shed.clone();
        assert!(first.len() > 20 && first[0] > release[1], "{} shed", first.len());
        // The same ones are not reported again, only what became due since.
        shed.clear();
        pacer.release(start + ms(60), 0, &mut Vec::new(), &mut shed);
        assert!(!shed.is_empty() && shed[0] > first[first.len() - 1]);
        // Room again: they begin in order, with the times at which they were due.
        let all = [first, shed.clone()].concat();
        release.clear();
        shed.clear();
        pacer.release(start + ms(60), 1_000, &mut release, &mut shed);
        assert_eq!(release, all);
        assert!(shed.is_empty());
        // A second stall is reported anew.
        pacer.release(start + ms(100), 0, &mut Vec::new(), &mut shed);
        assert!(shed.iter().all(|due| start + ms(60) < *due && *due <= start + ms(100)));
    }

    #[test]
    fn what_never_began_is_known_at_the_end() {
        let start = clock::now();
        let mut pacer = Pacer::new(Schedule::new(Arrivals::Constant, 1_000.0, 1, start));
        pacer.release(start + ms(9), 4, &mut Vec::new(), &mut Vec::new());
        let rest: Vec<Instant> = pacer.rest(start + ms(10)).collect();
        assert_eq!(rest, (4..10).map(|i| start + ms(i)).collect::<Vec<_>>());
    }
}
