//! The load: writers that note every write before they send it and every answer when they get it.
//!
//! Each writer owns some registers, so that one write per register is under way at a time, and all of them share
//! the counters, which they raise by compare-and-swap. Now and then a writer reads one of its own registers back,
//! which must show its last acknowledged write. One more task asks the scheduler for ids and timestamps.
//!
//! Invariant: a register whose last write was not answered is left alone until the ledger says that it is settled.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    kv::{Answer, Failure, Kv},
    model::{Effect, Model, counter_value, decode_counter},
    oracle::Oracle,
};

/// Keys that one run writes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tasks that write at the same time.
    pub writers: u32,
    /// Registers of each writer.
    pub registers: u32,
    /// Counters that all writers share.
    pub counters: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { writers: 8, registers: 48, counters: 4 }
    }
}

impl Shape {
    /// A register's key.
    pub fn register(writer: u32, number: u32) -> Bytes {
        format!("chaos/r/{writer:03}/{number:05}").into()
    }

    /// A counter's key.
    pub fn counter(number: u32) -> Bytes {
        format!("chaos/c/{number:03}").into()
    }

    /// Every key of a run begins with this.
    pub const PREFIX: &'static str = "chaos/";
}

/// The ledgers of a run, shared by its tasks.
#[derive(Clone, Debug, Default)]
pub struct Ledgers {
    model: Arc<Mutex<Model>>,
    oracle: Arc<Mutex<Oracle>>,
}

impl Ledgers {
    /// The ledger of data. Must not be held over an `.await`.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no task panics while it holds the ledger")
    }

    /// The ledger of ids and timestamps. Must not be held over an `.await`.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().expect("no task panics while it holds the oracle's ledger")
    }
}

/// What the tasks of one load met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reads that were held against the ledger.
    pub reads: u64,
    /// Calls whose outcome stayed unknown.
    pub unanswered: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// The first refusals, for the report.
    pub refusals: Vec<String>,
}

/// How many different refusals a tally keeps.
const REFUSALS_MAX: usize = 3;

impl Tally {
    /// Adds what another load met.
    pub fn add(&mut self, other: Tally) {
        self.reads += other.reads;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        for refusal in other.refusals {
            self.keep(refusal);
        }
    }

    /// Takes note of a failure. Returns whether the call certainly had no effect.
    pub fn failure(&mut self, failure: Failure) -> bool {
        match failure {
            Failure::Refused(why) => {
                self.refused += 1;
                self.keep(why);
                true
            }
            Failure::Unknown(_) => {
                self.unanswered += 1;
                false
            }
        }
    }

    fn keep(&mut self, refusal: String) {
        if self.refusals.len() < REFUSALS_MAX && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Tally>,
}

impl Load {
    /// Starts the writers and the asker. `seed` decides what they do; how it interleaves is up to the machine.
    pub fn start(kv: &impl Kv, ledgers: &Ledgers, shape: Shape, seed: u64) -> Load {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut seeds = fastrand::Rng::with_seed(seed);
        for writer in 0..shape.writers {
            let writer = Writer {
                kv: kv.clone(),
                ledgers: ledgers.clone(),
                shape,
                writer,
                rng: seeds.fork(),
                stopped: stopped.clone(),
                tally: Tally::default(),
            };
            tasks.spawn(writer.run());
        }
        tasks.spawn(ask(kv.clone(), ledgers.clone(), Duration::from_millis(1), stopped));
        Load { stop, tasks }
    }

    /// Stops it. Calls under way are abandoned; their writes stay unanswered.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut tally = Tally::default();
        while let Some(done) = self.tasks.join_next().await {
            tally.add(done.expect("no task of the load panics"));
        }
        tally
    }
}

/// How long a task waits after a failure, so that a refusing server is not asked in a tight loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Waits for `call`, or for the end of the load: then the outcome is unknown.
pub(crate) async fn until_stopped<T>(
    stopped: &mut watch::Receiver<bool>,
    call: impl Future<Output = Answer<T>>,
) -> Answer<T> {
    tokio::select! {
        biased;
        answer = call => answer,
        _ = stopped.wait_for(|stopped| *stopped) => Err(Failure::Unknown("the load was stopped".into())),
    }
}

struct Writer<K> {
    kv: K,
    ledgers: Ledgers,
    shape: Shape,
    writer: u32,
    rng: fastrand::Rng,
    stopped: watch::Receiver<bool>,
    tally: Tally,
}

impl<K: Kv> Writer<K> {
    async fn run(mut self) -> Tally {
        while !*self.stopped.borrow() {
            let well = match self.rng.u32(0..100) {
                0..60 => self.write(Effect::Put).await,
                60..75 => self.write(Effect::Delete).await,
                75..85 => self.step().await,
                _ => self.read().await,
            };
            if !well {
                let pause = async {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    Ok(())
                };
                let _ = until_stopped(&mut self.stopped, pause).await;
            }
        }
        self.tally
    }

    /// A register of this writer that has no write under way.
    fn pick(&mut self) -> Option<Bytes> {
        let first = self.rng.u32(0..self.shape.registers);
        let model = self.ledgers.model();
        (0..self.shape.registers)
            .map(|number| Shape::register(self.writer, (first + number) % self.shape.registers))
            .find(|key| !model.is_unanswered(key))
    }

    async fn write(&mut self, effect: Effect) -> bool {
        let Some(key) = self.pick() else { return false };
        let (ticket, value) = self.ledgers.model().begin(&key, effect);
        let answer = match value {
            Some(value) => until_stopped(&mut self.stopped, self.kv.put(key, value)).await,
            None => until_stopped(&mut self.stopped, self.kv.delete(key)).await,
        };
        match answer {
            Ok(()) => {
                self.ledgers.model().acknowledge(ticket);
                true
            }
            Err(failure) => {
                if self.tally.failure(failure) {
                    self.ledgers.model().refuse(ticket);
                }
                false
            }
        }
    }

    async fn read(&mut self) -> bool {
        let Some(key) = self.pick() else { return false };
        match until_stopped(&mut self.stopped, self.kv.get(key.clone())).await {
            Ok(found) => {
                self.tally.reads += 1;
                self.ledgers.model().check(&key, found.as_deref());
                true
            }
            Err(failure) => {
                self.tally.failure(failure);
                false
            }
        }
    }

    /// Raises a counter by one, as a client does: read it, then swap if nobody was faster.
    async fn step(&mut self) -> bool {
        let key = Shape::counter(self.rng.u32(0..self.shape.counters));
        let previous = match until_stopped(&mut self.stopped, self.kv.get(key.clone())).await {
            Ok(previous) => previous,
            Err(failure) => {
                self.tally.failure(failure);
                return false;
            }
        };
        // A damaged counter is reported by the check at the end; writers leave it alone.
        let Some(at) = decode_counter(previous.as_deref()) else { return false };
        let step = at + 1;
        self.ledgers.model().begin_step(&key, step);
        let swap = self.kv.compare_and_swap(key.clone(), previous, counter_value(step));
        match until_stopped(&mut self.stopped, swap).await {
            Ok(swapped) => {
                if swapped.done {
                    self.ledgers.model().acknowledge_step(&key, step);
                }
                true
            }
            Err(failure) => {
                self.tally.failure(failure);
                false
            }
        }
    }
}

/// Asks for ids and timestamps, one after the other with `pause` between, and notes them.
pub(crate) async fn ask(
    kv: impl Kv,
    ledgers: Ledgers,
    pause: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Tally {
    let mut tally = Tally::default();
    while !*stopped.borrow() {
        let timestamp = until_stopped(&mut stopped, kv.timestamp()).await;
        let id = until_stopped(&mut stopped, kv.id()).await;
        let mut failed = false;
        let verdicts = [
            timestamp.map(|timestamp| ledgers.oracle().timestamp(timestamp)),
            id.map(|id| ledgers.oracle().id(id)),
        ];
        for verdict in verdicts {
            match verdict {
                Ok(verdict) => {
                    tally.reads += 1;
                    if let Err(violation) = verdict {
                        ledgers.model().report(violation);
                    }
                }
                Err(failure) => {
                    failed = true;
                    tally.failure(failure);
                }
            }
        }
        let _ = until_stopped(&mut stopped, async {
            tokio::time::sleep(if failed { PAUSE_AFTER_FAILURE } else { pause }).await;
            Ok(())
        })
        .await;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kv::fake::{Fake, Fault},
        model::Violation,
        session::{When, check_all},
    };

    /// Runs a load against a fake with `fault` until much was written, then checks everything.
    async fn violations(fault: Fault) -> (Ledgers, Vec<Violation>) {
        let kv = Fake::new(fault);
        let ledgers = Ledgers::default();
        let shape = Shape { writers: 4, registers: 16, counters: 2 };
        let load = Load::start(&kv, &ledgers, shape, 7);
        // The fake answers at once, so this ends by work done and not by time.
        for _ in 0..4_000 {
            tokio::task::yield_now().await;
        }
        load.stop().await;
        check_all(&kv, &ledgers, When::AfterDeath).await.unwrap();
        let violations = ledgers.model().violations().to_vec();
        (ledgers, violations)
    }

    #[tokio::test]
    async fn an_honest_store_passes() {
        let (ledgers, violations) = violations(Fault::None).await;
        assert_eq!(violations, []);
        assert!(ledgers.model().acknowledged() > 1000, "{} writes", ledgers.model().acknowledged());
        assert!(!ledgers.model().counters().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_drops_acknowledged_puts_is_seen() {
        let (_, violations) = violations(Fault::DropsPuts).await;
        assert!(
            violations.iter().any(|violation| matches!(violation, Violation::Lost { .. })),
            "{violations:?}"
        );
    }

    #[tokio::test]
    async fn a_store_that_drops_acknowledged_deletes_is_seen() {
        let (_, violations) = violations(Fault::DropsDeletes).await;
        assert!(
            violations.iter().any(|v| matches!(v, Violation::Resurrected { .. })),
            "{violations:?}"
        );
    }

    #[tokio::test]
    async fn a_store_that_swaps_without_comparing_is_seen() {
        let (_, violations) = violations(Fault::SwapsBlindly).await;
        assert!(
            violations.iter().any(|violation| matches!(violation, Violation::StepTwice { .. })),
            "{violations:?}"
        );
    }

    /// Lets the tasks run until `condition` holds.
    async fn until(condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the tasks get there");
    }

    #[tokio::test]
    async fn a_scheduler_that_repeats_ids_or_time_is_seen() {
        for (fault, is_it) in [
            (
                Fault::RepeatsIds,
                (|v| matches!(v, Violation::IdTwice { .. })) as fn(&Violation) -> bool,
            ),
            (Fault::StopsTime, |v| matches!(v, Violation::TimeWentBack { .. })),
        ] {
            let kv = Fake::new(fault);
            let ledgers = Ledgers::default();
            let load = Load::start(&kv, &ledgers, Shape { writers: 0, ..Shape::default() }, 7);
            until(|| ledgers.model().violations().iter().any(is_it)).await;
            load.stop().await;
        }
    }

    #[tokio::test]
    async fn a_scan_that_leaves_keys_out_is_seen() {
        let (_, violations) = violations(Fault::ScansBadly).await;
        assert!(
            violations.iter().any(|v| matches!(v, Violation::ScanDisagrees { .. })),
            "{violations:?}"
        );
    }

    #[tokio::test]
    async fn unanswered_writes_may_be_there_or_not() {
        let kv = Fake::new(Fault::AnswersNothing);
        let ledgers = Ledgers::default();
        let shape = Shape { writers: 4, registers: 50, counters: 2 };
        let load = Load::start(&kv, &ledgers, shape, 7);
        let keys: Vec<Bytes> =
            (0..4).flat_map(|writer| (0..50).map(move |n| Shape::register(writer, n))).collect();
        until(|| keys.iter().all(|key| ledgers.model().is_unanswered(key))).await;
        let tally = load.stop().await;
        check_all(&kv, &ledgers, When::AfterDeath).await.unwrap();
        assert_eq!(ledgers.model().violations(), []);
        assert!(tally.unanswered > 100, "{tally:?}");
    }
}
