//! One window of measurement: start the load, let it settle, measure, stop, wait for what is in flight.
//!
//! The window's moments are fixed beforehand. Processor time of both sides is read at the two edges, so costs and
//! counts belong to the same stretch of time. What is in flight at the end gets a grace time; what is still not
//! answered then is given up and counted as failed.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    clock,
    error::Error,
    interrupt, metrics,
    open_loop::Arrivals,
    process::{self, Costs, MachineTicks},
    progress::Progress,
    record::{Loop, Recorder, Recording},
    target::{OpError, Target},
    workload::{Generator, Op},
};

/// How long requests that are in flight at the end may take.
const GRACE: Duration = Duration::from_secs(10);

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Turns of the scheduler that cancelled requests get to vanish.
const CANCEL_TURNS: usize = 10_000;

/// When requests begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many are in flight; the next begins when one ends.
    Closed {
        /// Over all connections.
        in_flight: usize,
    },
    /// At fixed times, whatever the target does.
    Open {
        /// Per second.
        rate: f64,
        /// How the times are drawn.
        arrivals: Arrivals,
        /// More than so many unanswered requests are not begun.
        outstanding_max: usize,
        /// Where the times come from.
        seed: u64,
    },
}

/// One window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// When requests begin.
    pub(crate) pace: Pace,
    /// Load that is not measured, before.
    pub(crate) ramp: Duration,
    /// Load that is measured.
    pub(crate) length: Duration,
}

/// What all requests of one window share.
#[derive(Debug)]
pub(crate) struct Shared {
    recorder: RefCell<Recorder>,
    generator: RefCell<Generator>,
    stopped: Cell<bool>,
    in_flight: Cell<usize>,
}

impl Shared {
    fn new(recorder: Recorder, generator: Generator) -> Rc<Shared> {
        Rc::new(Shared {
            recorder: RefCell::new(recorder),
            generator: RefCell::new(generator),
            stopped: Cell::new(false),
            in_flight: Cell::new(0),
        })
    }

    /// Whether no request may begin any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Requests that have begun and not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// The next request.
    pub(crate) fn next_op(&self) -> Op {
        self.generator.borrow_mut().next_op()
    }

    /// A request begins; latency counts from `began`. Dropping the ticket says that it was given up.
    pub(crate) fn begin(self: &Rc<Shared>, began: Instant, is_put: bool) -> Ticket {
        self.in_flight.set(self.in_flight.get() + 1);
        Ticket { shared: Some(self.clone()), began, is_put }
    }

    /// `count` requests begin that have no tickets.
    pub(crate) fn begin_many(&self, count: usize) {
        self.in_flight.set(self.in_flight.get() + count);
    }

    /// A request that has no ticket has ended.
    pub(crate) fn completed(
        &self,
        now: Instant,
        began: Instant,
        is_put: bool,
        result: Result<(), OpError>,
    ) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.recorder.borrow_mut().completed(now, began, is_put, result);
    }

    /// A request that has no ticket was given up.
    pub(crate) fn unanswered(&self, now: Instant, began: Instant) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.recorder.borrow_mut().unanswered(now, began);
    }

    /// The recorder, for what is no end of a request.
    pub(crate) fn record(&self, body: impl FnOnce(&mut Recorder)) {
        body(&mut self.recorder.borrow_mut());
    }

    /// When the window ends.
    pub(crate) fn end(&self) -> Instant {
        self.recorder.borrow().end()
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Option<Rc<Shared>>,
    began: Instant,
    is_put: bool,
}

impl Ticket {
    /// It has ended; returns when.
    pub(crate) fn end(mut self, result: Result<(), OpError>) -> Instant {
        let now = clock::now();
        if let Some(shared) = self.shared.take() {
            shared.completed(now, self.began, self.is_put, result);
        }
        now
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.unanswered(clock::now(), self.began);
        }
    }
}

/// What a window showed, costs included.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// What happened to the requests.
    pub(crate) recording: Recording,
    /// What the servers spent; `None` if their processes are not known.
    pub(crate) server: Option<Costs>,
    /// What this process spent.
    pub(crate) client: Option<Costs>,
    /// Syncs of the servers per successful write; `None` if they do not say, or nothing was written.
    pub(crate) syncs_per_put: Option<f64>,
    /// Processor time that other virtual machines took, in percent.
    pub(crate) steal_percent: Option<f64>,
    /// Whether a person ended the window early.
    pub(crate) interrupted: bool,
}

/// Puts the load of `plan` on `target` and measures.
///
/// # Errors
/// The measurement was interrupted before it began.
pub(crate) async fn measure(
    target: &dyn Target,
    generator: Generator,
    plan: &Plan,
    progress: &Progress,
) -> Result<Measurement, Error> {
    let servers = target.servers();
    let syncs_before = metrics::syncs(&servers.status).await;

    let kind = match plan.pace {
        Pace::Closed { .. } => Loop::Closed,
        Pace::Open { .. } => Loop::Open,
    };
    let start = clock::now() + plan.ramp;
    let end = start + plan.length;
    let shared = Shared::new(Recorder::new(kind, start, end), generator);
    let workers = target.spawn(plan, &shared);

    let interrupt = interrupt::signalled();
    tokio::pin!(interrupt);
    let mut interrupted = tokio::select! {
        () = tokio::time::sleep_until(start.into()) => false,
        () = &mut interrupt => true,
    };
    if interrupted {
        stop(&shared, workers, Duration::ZERO).await;
        return Err(Error::Interrupted);
    }

    let server_before = process::costs(&servers.pids);
    let client_before = process::costs(&[std::process::id()]);
    let machine_before = MachineTicks::read();
    while !interrupted && clock::now() < end {
        let next = (clock::now() + PROGRESS_INTERVAL).min(end);
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = &mut interrupt => interrupted = true,
        }
        let recorder = shared.recorder.borrow();
        progress.window(
            clock::now().saturating_duration_since(start),
            plan.length,
            recorder.ops(),
            recorder.errors(),
        );
    }
    let server_after = process::costs(&servers.pids);
    let client_after = process::costs(&[std::process::id()]);
    let machine_after = MachineTicks::read();
    if interrupted {
        shared.record(|recorder| recorder.cut(clock::now()));
    }
    stop(&shared, workers, GRACE).await;

    let syncs_after = metrics::syncs(&servers.status).await;
    let recording = match Rc::try_unwrap(shared) {
        Ok(shared) => shared.recorder.into_inner().finish(),
        // Something still holds a cancelled request: take what was recorded, leave an empty recorder behind.
        Err(shared) => shared.recorder.replace(Recorder::new(kind, start, start)).finish(),
    };
    let syncs_per_put = match (syncs_before, syncs_after) {
        (Some(before), Some(after)) if recording.puts > 0 => {
            Some((after - before) / recording.puts as f64)
        }
        _ => None,
    };
    Ok(Measurement {
        recording,
        server: Costs::between(server_before, server_after),
        client: Costs::between(client_before, client_after),
        syncs_per_put,
        steal_percent: MachineTicks::steal_percent(machine_before, machine_after),
        interrupted,
    })
}

/// Ends the load: no request begins any more, those in flight get `grace` or until a signal comes, the rest is
/// cancelled.
async fn stop(shared: &Rc<Shared>, workers: Vec<JoinHandle<()>>, grace: Duration) {
    shared.stopped.set(true);
    let impatient = async {
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            () = interrupt::signalled() => {}
        }
    };
    tokio::pin!(impatient);
    let mut patience = true;
    for mut worker in workers {
        if patience {
            tokio::select! {
                _ = &mut worker => continue,
                () = &mut impatient => patience = false,
            }
        }
        worker.abort();
    }
    // Cancelled tasks are dropped by the scheduler, and count their requests as unanswered then.
    for _ in 0..CANCEL_TURNS {
        if Rc::strong_count(shared) == 1 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
