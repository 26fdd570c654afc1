//! What all scenarios share: start the product, connect, read everything back, and collect the report.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, anyhow};
use bytes::Bytes;

use crate::{
    kv::{Answer, Dial, Kv},
    load::{Ledgers, Load, Shape},
    model::Violation,
    process::{Launch, Process, log_tail},
    report::Report,
};

/// How long a start may take before the process counts as not coming back.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a process may take to end by itself.
pub const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// Pairs of one page of a scan: small enough for pages of the largest values.
const PAGE: u32 = 64;

/// One run: how to start the product, what was promised so far, and what is known about the run.
pub struct Session<D> {
    /// How the product is started.
    pub launch: Launch,
    /// How it is dialled.
    pub dial: D,
    /// What it promised. Lives over all its starts.
    pub ledgers: Ledgers,
    /// The keys of the load.
    pub shape: Shape,
    /// Decides moments and loads.
    pub rng: fastrand::Rng,
    /// What was done and found.
    pub report: Report,
    /// Called after each round with the number of rounds executed.
    pub progress: Box<dyn Fn(u32)>,
    last_start: Duration,
}

impl<D: Dial> Session<D> {
    /// A run of `rounds` rounds of `scenario`.
    pub fn new(scenario: &str, launch: Launch, dial: D, rounds: u32, seed: u64) -> Session<D> {
        Session {
            report: Report::new(scenario, launch.engine.as_deref(), seed, rounds),
            launch,
            dial,
            ledgers: Ledgers::default(),
            shape: Shape::default(),
            rng: fastrand::Rng::with_seed(seed),
            progress: Box::new(|_| {}),
            last_start: Duration::from_millis(200),
        }
    }

    /// Starts the product, waits until it serves, and connects.
    ///
    /// # Errors
    /// It does not come up, or cannot be dialled.
    pub async fn start(&mut self) -> anyhow::Result<(Process, D::Kv)> {
        let mut process = self.launch.spawn()?;
        let (ready, took) = process.ready(READY_WITHIN).await?;
        self.report.started(took);
        self.last_start = took;
        let kv = self
            .dial
            .dial(&ready.scheduler)
            .await
            .map_err(|failure| anyhow!("cannot connect: {failure}"))?;
        Ok((process, kv))
    }

    /// A moment during the next start or shortly after it.
    pub fn moment_of_start(&mut self) -> Duration {
        self.last_start.mul_f64(self.rng.f64() * 1.3)
    }

    /// A moment between `from` and `to` milliseconds.
    pub fn moment(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.u64(from * 1000..to * 1000))
    }

    /// Starts writers.
    pub fn load(&mut self, kv: &D::Kv) -> Load {
        let seed = self.rng.u64(..);
        Load::start(kv, &self.ledgers, self.shape, seed)
    }

    /// Reads everything back and holds it against the ledger.
    ///
    /// # Errors
    /// A read failed.
    pub async fn check(&mut self, kv: &D::Kv, when: When) -> anyhow::Result<()> {
        let checked = check_all(kv, &self.ledgers, when)
            .await
            .map_err(|failure| anyhow!("cannot read back: {failure}"))?;
        self.report.reads_checked += checked;
        Ok(())
    }

    /// Counts a round as executed.
    pub fn executed(&mut self) {
        self.report.rounds_executed += 1;
        (self.progress)(self.report.rounds_executed);
    }

    /// The last act of a scenario whose process is down: start once more, check, and stop gracefully.
    ///
    /// # Errors
    /// The process does not come up, or a read failed.
    pub async fn last_check(&mut self) -> anyhow::Result<()> {
        let (mut process, kv) = self.start().await.context("after the last round")?;
        self.check(&kv, When::AfterDeath).await?;
        process.terminate()?;
        match process.ended(ENDED_WITHIN).await? {
            Some(status) if status.success() => {}
            Some(status) => {
                self.misbehaved(format!("after SIGTERM the process ended with {status}"))
            }
            None => self
                .misbehaved(format!("after SIGTERM the process still runs after {ENDED_WITHIN:?}")),
        }
        Ok(())
    }

    /// Notes something that the process must not do.
    pub fn misbehaved(&mut self, what: String) {
        self.ledgers.model().report(Violation::Misbehaved(what));
    }

    /// Makes the report. An error that ended the run early is a violation: the product was asked for something that
    /// it has to do.
    pub fn finish(mut self, outcome: anyhow::Result<()>) -> Report {
        if let Err(error) = outcome {
            self.misbehaved(format!("round {}: {error:#}", self.report.rounds_executed + 1));
        }
        self.report.finish(&self.ledgers.model());
        if !self.report.violations.is_empty() {
            self.report.log_tail = Some(log_tail(&self.launch.log()));
        }
        self.report
    }
}

/// What is known about writes that were never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The process that got them still runs: they may take effect later.
    Running,
    /// The process that got them is dead: what is there now is all that will ever be.
    AfterDeath,
}

/// Reads every key of the ledger, alone and by scan, and notes all violations. Returns how many keys it read.
///
/// # Errors
/// A read failed, so nothing is known.
pub async fn check_all(kv: &impl Kv, ledgers: &Ledgers, when: When) -> Answer<u64> {
    let mut scanned = scan_all(kv).await?;
    let (registers, counters) = {
        let model = ledgers.model();
        (model.registers(), model.counters())
    };
    let keys = u64::try_from(registers.len() + counters.len()).unwrap_or(u64::MAX);
    for key in registers {
        let found = kv.get(key.clone()).await?;
        let in_scan = scanned.remove(&key);
        let mut model = ledgers.model();
        // A write that is still on its way may arrive between the scan and the get.
        let steady = when == When::AfterDeath || !model.is_unanswered(&key);
        if steady && in_scan != found {
            model.report(Violation::ScanDisagrees { key: key.clone() });
        }
        match when {
            When::Running => model.check(&key, found.as_deref()),
            When::AfterDeath => model.settle(&key, found.as_deref()),
        };
    }
    for key in counters {
        let found = kv.get(key.clone()).await?;
        let in_scan = scanned.remove(&key);
        let mut model = ledgers.model();
        if when == When::AfterDeath && in_scan != found {
            model.report(Violation::ScanDisagrees { key: key.clone() });
        }
        model.check_counter(&key, found.as_deref());
    }
    for (key, value) in scanned {
        // Nobody wrote these.
        ledgers.model().check(&key, Some(&value));
    }
    Ok(keys)
}

async fn scan_all(kv: &impl Kv) -> Answer<BTreeMap<Bytes, Bytes>> {
    let mut pairs = BTreeMap::new();
    let mut start = Bytes::from_static(Shape::PREFIX.as_bytes());
    loop {
        let page = kv.scan(start, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(pairs) };
        start = [last, &b"\0"[..]].concat().into();
        for (key, value) in page {
            if !key.starts_with(Shape::PREFIX.as_bytes()) {
                return Ok(pairs);
            }
            pairs.insert(key, value);
        }
    }
}
