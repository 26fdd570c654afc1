//! Many seeds, on all cores: each seed on one thread, a thread taking the next seed when it is done with one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use runtime::{Clock, real::RealClock};

use crate::{
    raft::group::{self, Outcome, Settings},
    report::Totals,
};

/// Which seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// The first one.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// No seed is begun after this much time.
    pub time: Option<Duration>,
    /// No seed is begun after so many have failed.
    pub failures_max: u64,
}

/// Runs `seeds` with `settings`, on `threads` threads.
pub fn run(seeds: Seeds, settings: Settings, threads: usize) -> Totals {
    let clock = Arc::new(RealClock::new());
    let next = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(AtomicU64::new(0));
    let totals = Arc::new(Mutex::new(Totals::new(seeds.from)));
    let worker = |number: usize| {
        let (clock, next) = (Arc::clone(&clock), Arc::clone(&next));
        let (failed, totals) = (Arc::clone(&failed), Arc::clone(&totals));
        let body = move || {
            loop {
                let begin = clock.monotonic();
                let offset = next.fetch_add(1, Ordering::Relaxed);
                let is_over = seeds.count <= offset
                    || seeds.time.is_some_and(|time| time <= begin)
                    || seeds.failures_max <= failed.load(Ordering::Relaxed);
                if is_over {
                    return;
                }
                let outcome = group::run(seeds.from.wrapping_add(offset), settings);
                failed.fetch_add(u64::from(outcome.violation.is_some()), Ordering::Relaxed);
                let busy = clock.monotonic().saturating_sub(begin);
                totals.lock().unwrap_or_else(PoisonError::into_inner).add(outcome, &settings, busy);
            }
        };
        runtime::task::spawn(&format!("seeds-{number}"), body).expect("a thread for each core")
    };
    let workers: Vec<thread::JoinHandle<()>> = (0..threads.max(1)).map(worker).collect();
    for worker in workers {
        worker.join().expect("a worker catches the panics of what it runs");
    }
    let totals = std::mem::take(&mut *totals.lock().unwrap_or_else(PoisonError::into_inner));
    totals.ended(clock.monotonic())
}

/// As many threads as the machine has cores.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What became of a mutant.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MutantResult {
    /// Its name.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// How many seeds were run until it was caught, or at all.
    pub seeds: u64,
    /// The seed that caught it.
    pub caught_by: Option<u64>,
    /// The property that did not hold.
    pub property: Option<String>,
    /// What happened.
    pub details: Option<String>,
}

/// Runs each of `mutants` (name, and what it breaks) over at most `most` seeds from `from` on, until one fails that
/// holds without the mutant.
pub fn mutants(
    mutants: &[(&'static str, &'static str)],
    from: u64,
    most: u64,
    threads: usize,
) -> Vec<MutantResult> {
    mutants.iter().map(|mutant| hunt(*mutant, from, most, threads)).collect()
}

fn hunt(
    (name, breaks): (&'static str, &'static str),
    from: u64,
    most: u64,
    threads: usize,
) -> MutantResult {
    let mut result =
        MutantResult { name, breaks, seeds: 0, caught_by: None, property: None, details: None };
    while result.seeds < most && result.caught_by.is_none() {
        let seeds = Seeds {
            from: from + result.seeds,
            count: most - result.seeds,
            time: None,
            failures_max: 1,
        };
        let totals = run(seeds, Settings { mutant: Some(name), ..Settings::USUAL }, threads);
        result.seeds += totals.seeds;
        let holds = |seed| group::run(seed, Settings::USUAL).violation.is_none();
        if let Some(red) = totals.violations.into_iter().find(|red| holds(red.seed)) {
            result.caught_by = Some(red.seed);
            result.property = Some(red.property);
            result.details = Some(red.details);
        }
    }
    result
}

/// Runs a seed twice and gives both hashes.
pub fn twice(seed: u64, settings: Settings) -> (Outcome, Outcome) {
    (group::run(seed, settings), group::run(seed, settings))
}

/// Adds counts.
pub(crate) fn add_counts<K: Ord>(
    into: &mut BTreeMap<K, u64>,
    from: impl IntoIterator<Item = (K, u64)>,
) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}
