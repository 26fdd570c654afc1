//! `tinykv bench` without the rest of tinykv: for work on the load generator itself.
//!
//! `cargo run --release -p bench --example bench -- bench raw-get --target echo`

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    /// Scheduler addresses, separated by commas.
    #[arg(
        short = 'e',
        long,
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// `json` or `table`.
    #[arg(short = 'o', long, global = true, default_value = "table")]
    output: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load generator with a latency report.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Command::Bench(args) = cli.command;
    match bench::run(args, &cli.endpoints, cli.output == "json") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}
