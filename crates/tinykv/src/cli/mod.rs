//! The command line: what people type, what they see, and the exit codes that scripts rely on.
//!
//! Data go to stdout, everything else to stderr. Each subcommand has a file of its own: arguments on top, then
//! `run`. Errors are printed in one place, here.

mod competition;
mod config;
pub mod course;
mod data;
mod error;
mod explain;
mod output;
mod port_owner;
mod process;
mod run;
mod shell;
mod status;
mod txn_data;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

pub use error::{CliError, Exit};
pub use output::Format;

/// A TiKV-compatible transactional key-value store.
#[derive(Debug, Parser)]
#[command(name = "tinykv", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Scheduler addresses, separated by commas [default: 127.0.0.1:2379].
    #[arg(
        short = 'e',
        long = "endpoints",
        global = true,
        env = "TINYKV_ENDPOINTS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub named_endpoints: Vec<String>,
    /// How results are printed.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// How long a request may take, retries included.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = output::parse_duration)]
    pub timeout: Duration,
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "TINYKV_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<std::path::PathBuf>,
    /// One setting, by its full name; may be repeated.
    #[arg(long = "config", global = true, value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// More log lines (-v debug, -vv trace).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colours: auto, always, never. NO_COLOR is respected.
    #[arg(long, global = true, value_enum, default_value_t = output::Color::Auto)]
    pub color: output::Color,
}

impl Global {
    /// Where the scheduler is: as named, else on this machine.
    pub fn endpoints(&self) -> Vec<String> {
        match self.named_endpoints.as_slice() {
            [] => vec!["127.0.0.1:2379".to_owned()],
            named => named.to_vec(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster in this process.
    Dev(run::DevArgs),
    /// Start one node: scheduler, store, or both.
    Start(run::StartArgs),
    /// Print the value of a key.
    Get(data::GetArgs),
    /// Set a key.
    Put(data::PutArgs),
    /// Remove a key.
    Delete(data::DeleteArgs),
    /// List keys in order.
    Scan(data::ScanArgs),
    /// Set a key only if it has the expected value.
    Cas(data::CasArgs),
    /// Interactive client; reads commands from standard input when that is no terminal.
    Shell(shell::ShellArgs),
    /// One-screen health of the cluster.
    Status(status::StatusArgs),
    /// Load generator with a latency report.
    Bench(bench::BenchArgs),
    /// Show, check or sample the configuration.
    Config(config::ConfigArgs),
    /// Cause and remedy of an error code.
    Explain(explain::ExplainArgs),
    /// Completions for a shell.
    Completions(explain::CompletionsArgs),
    /// Version, build and compiled-in features.
    Version,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let global = &cli.global;
    let result = match cli.command {
        Command::Dev(args) => run::dev(global, args),
        Command::Start(args) => run::start(global, args),
        Command::Get(args) => data::get(global, args),
        Command::Put(args) => data::put(global, args),
        Command::Delete(args) => data::delete(global, args),
        Command::Scan(args) => data::scan(global, args),
        Command::Cas(args) => data::cas(global, args),
        Command::Shell(args) => shell::run(global, args),
        Command::Status(args) => status::run(global, args),
        Command::Bench(args) => match args.competition() {
            Some(args) => competition::run(global, *args),
            None => bench::run(args, &global.endpoints(), global.output == Format::Json)
                .map_err(CliError::from),
        },
        Command::Config(args) => config::run(global, args),
        Command::Explain(args) => explain::explain(global, args),
        Command::Completions(args) => explain::completions::<Cli>(args),
        Command::Version => explain::version(global),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(global),
    }
}
