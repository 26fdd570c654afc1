//! The simulator's commands. `cargo run --release -p sim -- help` lists them.

#![forbid(unsafe_code)]

mod cli;

use std::process::{self, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use cli::Output;
#[cfg(not(feature = "marks"))]
use comfy_table::{Table, presets};
use sim::{
    bench_raft::{Kind, measure_idle},
    raft::RaftGroup,
    store::Stores,
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
    /// One Raft group: runs seeds, one again, or known bugs.
    #[command(flatten)]
    Raft(cli::Command),
    /// Stores with regions: the same commands.
    Store {
        /// Which.
        #[command(subcommand)]
        command: cli::Command,
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

fn main() -> ExitCode {
    let succeeded = match Arguments::parse().command {
        Command::Raft(command) => command.execute::<RaftGroup>(),
        Command::Store { command } => command.execute::<Stores>(),
        Command::BenchRaft { rounds, output } => bench_raft(rounds, output),
        Command::BenchIdle { kind, groups } => {
            let result = measure_idle(whose(kind), groups);
            println!("{}", serde_json::json!(result));
            true
        }
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
