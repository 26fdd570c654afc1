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
    checker::Violation, report::Totals, required::Required, swarm::SECOND, world::TraceText,
};

/// How a seed is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Microseconds of chaos.
    pub chaos: u64,
    /// Whether a trace is printed.
    pub text: TraceText,
    /// Ends the run after this event, without a verdict about the end.
    pub until: Option<u64>,
    /// The bug of the code under test that is switched on.
    pub mutant: Option<&'static str>,
    /// So many machines, instead of what the seed says.
    pub machines: Option<usize>,
}

impl Settings {
    /// So many microseconds of chaos, and nothing unusual.
    pub const fn of(chaos: u64) -> Settings {
        Settings { chaos, text: TraceText::Off, until: None, mutant: None, machines: None }
    }
}

/// A kind of world.
pub trait Simulation: Copy + Send + 'static {
    /// What its commands begin with, on the command line.
    const COMMAND: &'static str;
    /// The usual settings.
    const USUAL: Settings;
    /// What a run over many seeds must have seen.
    const REQUIRED: &'static [Required];
    /// Known bugs that can be switched on, each with what it breaks.
    const MUTANTS: &'static [(&'static str, &'static str)];

    /// Runs a seed.
    fn run(seed: u64, settings: Settings) -> Run;
}

/// The command that shows a seed again.
fn replay_command<S: Simulation>(seed: u64, settings: &Settings) -> String {
    let mut command = format!("cargo run --release -p sim -- {}replay {seed} --trace", S::COMMAND);
    if settings.chaos != S::USUAL.chaos {
        command += &format!(" --chaos {}", settings.chaos / SECOND);
    }
    if let Some(machines) = settings.machines {
        command += &format!(" --machines {machines}");
    }
    if let Some(mutant) = settings.mutant {
        command += &format!(" --mutant {mutant}");
    }
    command
}

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Stands for everything that happened.
    pub hash: u64,
    /// What did not hold, and the number of the event at which that was noticed.
    pub violation: Option<(Violation, u64)>,
    /// What happened, in numbers.
    pub counts: BTreeMap<&'static str, u64>,
    /// Named rare events of the code under test.
    pub marks: BTreeMap<&'static str, u64>,
}

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
pub fn run<S: Simulation>(seeds: Seeds, settings: Settings, threads: usize) -> Totals {
    let clock = Arc::new(RealClock::new());
    let next = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(AtomicU64::new(0));
    let totals = Arc::new(Mutex::new(Totals::new(seeds.from, S::REQUIRED)));
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
                let run = S::run(seeds.from.wrapping_add(offset), settings);
                failed.fetch_add(u64::from(run.violation.is_some()), Ordering::Relaxed);
                let busy = clock.monotonic().saturating_sub(begin);
                let replay = replay_command::<S>(run.seed, &settings);
                totals.lock().unwrap_or_else(PoisonError::into_inner).add(run, replay, busy);
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
pub fn mutants<S: Simulation>(
    mutants: &[(&'static str, &'static str)],
    from: u64,
    most: u64,
    threads: usize,
) -> Vec<MutantResult> {
    mutants.iter().map(|mutant| hunt::<S>(*mutant, from, most, threads)).collect()
}

fn hunt<S: Simulation>(
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
        let settings = Settings { mutant: Some(name), ..S::USUAL };
        let totals = run::<S>(seeds, settings, threads);
        result.seeds += totals.seeds;
        let holds = |seed| S::run(seed, S::USUAL).violation.is_none();
        if let Some(red) = totals.violations.into_iter().find(|red| holds(red.seed)) {
            result.caught_by = Some(red.seed);
            result.property = Some(red.property);
            result.details = Some(red.details);
        }
    }
    result
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
