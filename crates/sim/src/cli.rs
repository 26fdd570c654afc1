//! The commands that every kind of world has: many seeds, one seed again, known bugs.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use sim::{
    report::Totals,
    runner::{self, Seeds, Settings, Simulation},
    swarm::SECOND,
    world::TraceText,
};

/// What is done with seeds.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs many seeds and prints what they came to. Fails if one of them fails.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 500)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Begins no seed after so many minutes.
        #[arg(long)]
        minutes: Option<f64>,
        /// Virtual seconds of chaos in each seed; as many as is usual if it is not given.
        #[arg(long)]
        chaos: Option<u64>,
        /// Threads; as many as there are cores if it is not given.
        #[arg(long)]
        threads: Option<usize>,
        /// So many machines in each seed; as many as the seed says if it is not given.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
        machines: Option<u8>,
        /// A bug of the core to switch on.
        #[arg(long)]
        mutant: Option<String>,
        /// How the result is printed.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Runs one seed again.
    Replay {
        /// The seed.
        seed: u64,
        /// Ends after this event.
        #[arg(long)]
        until: Option<u64>,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
        /// Virtual seconds of chaos; as many as is usual if it is not given.
        #[arg(long)]
        chaos: Option<u64>,
        /// So many machines in each seed; as many as the seed says if it is not given.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
        machines: Option<u8>,
        /// A bug of the core to switch on.
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Switches on one known bug of the core after the other and sees whether it is caught.
    Mutants {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Seeds for each at most.
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
        /// Only those whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Begins with the mutant of this number, and with the first one again after the last.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// So many of them; all if it is not given.
        #[arg(long)]
        count: Option<usize>,
        /// Threads; as many as there are cores if it is not given.
        #[arg(long)]
        threads: Option<usize>,
        /// How the result is printed.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

impl Command {
    /// Does it. Whether all went well.
    pub(crate) fn execute<S: Simulation>(self) -> bool {
        match self {
            Command::Run { seeds, from, minutes, chaos, threads, machines, mutant, output } => {
                let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
                let seeds = Seeds { from, count: seeds, time, failures_max: 10 };
                let settings = settings::<S>(chaos, machines, mutant.as_deref());
                let threads = threads.unwrap_or_else(runner::cores);
                print_run(&runner::run::<S>(seeds, settings, threads), output)
            }
            Command::Replay { seed, until, trace, chaos, machines, mutant } => {
                let text = if trace { TraceText::Print } else { TraceText::Off };
                let settings = settings::<S>(chaos, machines, mutant.as_deref());
                replay::<S>(seed, Settings { text, until, ..settings })
            }
            Command::Mutants { from, seeds, only, first, count, threads, output } => {
                let chosen = chosen_mutants(S::MUTANTS, &only, first, count);
                let threads = threads.unwrap_or_else(runner::cores);
                mutants::<S>(&chosen, from, seeds, threads, output)
            }
        }
    }
}

fn settings<S: Simulation>(
    chaos: Option<u64>,
    machines: Option<u8>,
    mutant: Option<&str>,
) -> Settings {
    let mutant = mutant.map(|name| {
        let known = S::MUTANTS.iter().find(|mutant| mutant.0 == name);
        known.unwrap_or_else(|| panic!("no mutant is called {name}; `mutants` lists them")).0
    });
    let machines = machines.map(usize::from);
    let chaos = chaos.map_or(S::USUAL.chaos, |seconds| seconds * SECOND);
    Settings { chaos, mutant, machines, ..S::USUAL }
}

fn print_run(totals: &Totals, output: Output) -> bool {
    match output {
        Output::Json => println!("{}", totals.json()),
        Output::Table => {
            println!("{}", totals.table());
            for red in &totals.violations {
                println!("\nseed {} fails at event {}", red.seed, red.event);
                println!("  {}: {}\n  {}", red.property, red.details, red.replay);
            }
        }
    }
    let missing = totals.missing();
    if !missing.is_empty() {
        eprintln!("never happened, and must: {missing:?}");
    }
    totals.violations.is_empty() && missing.is_empty() && totals.seeds > 0
}

fn replay<S: Simulation>(seed: u64, settings: Settings) -> bool {
    let run = S::run(seed, settings);
    println!(
        "seed {seed}: {} events, {:.3} virtual seconds, hash {:016x}",
        run.counts["events"],
        run.counts["virtual_microseconds"] as f64 / SECOND as f64,
        run.hash
    );
    match run.violation {
        None => {
            println!("every property held");
            true
        }
        Some((violation, event)) => {
            println!("event {event}: {violation}");
            false
        }
    }
}

type Mutant = (&'static str, &'static str);

fn chosen_mutants(known: &[Mutant], only: &str, first: usize, count: Option<usize>) -> Vec<Mutant> {
    let mut chosen: Vec<Mutant> =
        known.iter().copied().filter(|mutant| mutant.0.contains(only)).collect();
    if !chosen.is_empty() {
        let first = first % chosen.len();
        chosen.rotate_left(first);
    }
    chosen.truncate(count.unwrap_or(usize::MAX));
    chosen
}

fn mutants<S: Simulation>(
    chosen: &[Mutant],
    from: u64,
    seeds: u64,
    threads: usize,
    output: Output,
) -> bool {
    let results = runner::mutants::<S>(chosen, from, seeds, threads);
    let caught = results.iter().filter(|result| result.caught_by.is_some()).count();
    match output {
        Output::Json => {
            let json = serde_json::json!({
                "caught": caught,
                "total": results.len(),
                "seeds_at_most": seeds,
                "mutants": results,
            });
            println!("{json:#}");
        }
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN).set_header([
                "mutant",
                "seeds",
                "caught by",
                "property",
            ]);
            for result in &results {
                table.add_row([
                    result.name.to_owned(),
                    result.seeds.to_string(),
                    result.caught_by.map_or("NOT CAUGHT".into(), |seed| format!("seed {seed}")),
                    result.property.clone().unwrap_or_default(),
                ]);
            }
            println!("{table}\n\ncaught {caught} of {}", results.len());
        }
    }
    caught == results.len() && !results.is_empty()
}
