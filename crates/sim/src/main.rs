//! The simulator's commands. `cargo run --release -p sim -- help` lists them.

#![forbid(unsafe_code)]

use std::{
    process::{self, ExitCode},
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use sim::{
    bench_raft::{Kind, measure_idle},
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
        #[arg(long, default_value_t = 20)]
        chaos: u64,
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
        /// Virtual seconds of chaos.
        #[arg(long, default_value_t = 20)]
        chaos: u64,
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
    /// Measures the core against raft-rs 0.7.
    BenchRaft {
        /// Rounds, of which medians are taken.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// How the result is printed.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Measures idle groups in this process, for `bench-raft`.
    #[command(hide = true)]
    BenchIdle {
        /// Whose.
        kind: Whose,
        /// How many.
        groups: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whose {
    Ours,
    RaftRs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let succeeded = match Arguments::parse().command {
        Command::Run { seeds, from, minutes, chaos, threads, machines, mutant, output } => {
            let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
            let seeds = Seeds { from, count: seeds, time, failures_max: 10 };
            let settings = settings(chaos, machines, mutant.as_deref());
            let totals = runner::run(seeds, settings, threads.unwrap_or_else(runner::cores));
            print_run(&totals, output)
        }
        Command::Replay { seed, until, trace, chaos, machines, mutant } => {
            let text = if trace { TraceText::Print } else { TraceText::Off };
            replay(seed, Settings { text, until, ..settings(chaos, machines, mutant.as_deref()) })
        }
        Command::Mutants { from, seeds, only, first, count, threads, output } => {
            let chosen = chosen_mutants(&only, first, count);
            mutants(&chosen, from, seeds, threads.unwrap_or_else(runner::cores), output)
        }
        Command::BenchRaft { rounds, output } => bench_raft(rounds, output),
        Command::BenchIdle { kind, groups } => {
            let result = measure_idle(whose(kind), groups);
            println!("{}", serde_json::json!(result));
            true
        }
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn settings(chaos: u64, machines: Option<u8>, mutant: Option<&str>) -> Settings {
    let mutant = mutant.map(|name| {
        let known = raft::MUTANTS.iter().find(|mutant| mutant.0 == name);
        known.unwrap_or_else(|| panic!("no mutant is called {name}; `mutants` lists them")).0
    });
    let machines = machines.map(usize::from);
    Settings { chaos: chaos * SECOND, mutant, machines, ..Settings::USUAL }
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

type Mutant = (&'static str, &'static str);

fn chosen_mutants(only: &str, first: usize, count: Option<usize>) -> Vec<Mutant> {
    let mut chosen: Vec<Mutant> =
        raft::MUTANTS.iter().copied().filter(|mutant| mutant.0.contains(only)).collect();
    if !chosen.is_empty() {
        let first = first % chosen.len();
        chosen.rotate_left(first);
    }
    chosen.truncate(count.unwrap_or(usize::MAX));
    chosen
}

fn mutants(chosen: &[Mutant], from: u64, seeds: u64, threads: usize, output: Output) -> bool {
    let results = runner::mutants(chosen, from, seeds, threads);
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

fn whose(kind: Whose) -> Kind {
    match kind {
        Whose::Ours => Kind::Ours,
        Whose::RaftRs => Kind::RaftRs,
    }
}

/// Measures without the marks: they are in no product. A build that has them builds one that has not.
#[cfg(feature = "marks")]
fn bench_raft(rounds: usize, output: Output) -> bool {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = if output == Output::Json { "json" } else { "table" };
    let status = process::Command::new(cargo)
        .args(["run", "-q", "--release", "-p", "sim", "--no-default-features", "--", "bench-raft"])
        .args(["--rounds", &rounds.to_string(), "-o", output])
        .status();
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cargo does not start, which is to build sim without marks: {error}");
            false
        }
    }
}

/// Measures.
#[cfg(not(feature = "marks"))]
fn bench_raft(rounds: usize, output: Output) -> bool {
    let result =
        sim::bench_raft::compare(rounds, |kind, groups| match idle_in_child(kind, groups) {
            Ok(result) => result,
            Err(error) => panic!("the measurement of idle groups failed: {error}"),
        });
    match output {
        Output::Json => println!("{:#}", serde_json::json!(result)),
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN).set_header([
                "variant",
                "batch",
                "proposals/s",
                "messages each",
            ]);
            for speed in &result.proposals_per_second {
                table.add_row([
                    speed.name.clone(),
                    speed.batch.to_string(),
                    format!("{:.0}", speed.proposals),
                    format!("{:.3}", speed.messages),
                ]);
            }
            println!("{table}\n");
            println!("batch 1, to raft-rs with batch_append:  {:.2}", result.batch1_ratio);
            println!("batch 64, to raft-rs by default:        {:.2}", result.batch64_ratio);
            println!("batch 64, to raft-rs with batch_append: {:.2}", result.batch64_append_ratio);
            for idle in &result.idle {
                println!(
                    "{} idle groups: {:.0} ns a group and tick (raft-rs {:.0}, ratio {:.2}), {:.0} bytes a \
                     peer (raft-rs {:.0})",
                    idle.groups,
                    idle.ours.nanoseconds,
                    idle.theirs.nanoseconds,
                    idle.time_ratio,
                    idle.ours.bytes,
                    idle.theirs.bytes
                );
            }
        }
    }
    true
}

/// In a process of its own, whose memory is nothing but the groups'.
#[cfg(not(feature = "marks"))]
fn idle_in_child(
    kind: Kind,
    groups: usize,
) -> Result<sim::bench_raft::IdleResult, Box<dyn std::error::Error>> {
    let kind = match kind {
        Kind::Ours => "ours",
        Kind::RaftRs => "raft-rs",
    };
    let output = process::Command::new(std::env::current_exe()?)
        .args(["bench-idle", kind, &groups.to_string()])
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
