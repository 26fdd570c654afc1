//! The simulator's commands. `cargo run --release -p sim -- help` lists them.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use sim::{
    raft::group::{self, Settings},
    report::Totals,
    required::REQUIRED_FROM_SEEDS,
    runner::{self, Seeds},
    swarm::SECOND,
    world::TraceText,
};

/// Runs the cores of the project under every fault, from one seed.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
        /// Virtual seconds of chaos in each seed.
        #[arg(long, default_value_t = 16)]
        chaos: u64,
        /// Threads; as many as there are cores if it is not given.
        #[arg(long)]
        threads: Option<usize>,
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
        /// Virtual seconds of chaos.
        #[arg(long, default_value_t = 16)]
        chaos: u64,
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
        /// Threads; as many as there are cores if it is not given.
        #[arg(long)]
        threads: Option<usize>,
        /// How the result is printed.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let succeeded = match Arguments::parse().command {
        Command::Run { seeds, from, minutes, chaos, threads, mutant, output } => {
            let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
            let seeds = Seeds { from, count: seeds, time, failures_max: 10 };
            let settings = settings(chaos, mutant.as_deref());
            let totals = runner::run(seeds, settings, threads.unwrap_or_else(runner::cores));
            print_run(&totals, output)
        }
        Command::Replay { seed, until, trace, chaos, mutant } => {
            let text = if trace { TraceText::Print } else { TraceText::Off };
            replay(seed, Settings { text, until, ..settings(chaos, mutant.as_deref()) })
        }
        Command::Mutants { from, seeds, only, threads, output } => {
            mutants(from, seeds, &only, threads.unwrap_or_else(runner::cores), output)
        }
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn settings(chaos: u64, mutant: Option<&str>) -> Settings {
    let mutant = mutant.map(|name| {
        let known = raft::MUTANTS.iter().find(|mutant| mutant.0 == name);
        known.unwrap_or_else(|| panic!("no mutant is called {name}; `mutants` lists them")).0
    });
    Settings { chaos: chaos * SECOND, mutant, ..Settings::USUAL }
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
    let too_tame = REQUIRED_FROM_SEEDS <= totals.seeds && !missing.is_empty();
    if too_tame {
        eprintln!("never happened, and must: {missing:?}");
    }
    totals.violations.is_empty() && !too_tame && totals.seeds > 0
}

fn replay(seed: u64, settings: Settings) -> bool {
    let outcome = group::run(seed, settings);
    let counters = &outcome.counters;
    println!(
        "seed {seed}: {} events, {:.3} virtual seconds, hash {:016x}",
        counters.events,
        counters.virtual_time as f64 / SECOND as f64,
        outcome.hash
    );
    match outcome.violation {
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

fn mutants(from: u64, seeds: u64, only: &str, threads: usize, output: Output) -> bool {
    let chosen: Vec<_> =
        raft::MUTANTS.iter().copied().filter(|mutant| mutant.0.contains(only)).collect();
    let results = runner::mutants(&chosen, from, seeds, threads);
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
