//! `chaos`: runs one scenario against the product's binary and reports what it executed and found.
//!
//! Exit code 0: everything was executed and nothing was broken, or the machine does not permit the scenario, which
//! the report says. 1: something was broken, or not everything could be executed.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use chaos::{
    dial::TinykvDial, disk_full, kill, pause, power_cut, process::Launch, report::Report,
    session::Session,
};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Faults against the product as a real process.
#[derive(Debug, Parser)]
#[command(name = "chaos", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Clone, Debug, Subcommand)]
enum Scenario {
    /// kill -9 under load and during the start.
    Kill(Options),
    /// SIGSTOP for seconds under load.
    Pause(Options),
    /// The file system forgets what was not synced. Needs root and loop devices.
    PowerCut(Options),
    /// The disk fills up under load. Needs root and loop devices.
    DiskFull(Options),
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// The product's executable.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// How many times.
    #[arg(long, default_value_t = 20, value_name = "N")]
    rounds: u32,
    /// Repeats the decisions of a run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// The product's storage.engine [default: the product's].
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// One more setting of the product; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Tasks that write at the same time.
    #[arg(long, default_value_t = 8, value_name = "N")]
    writers: u32,
    /// Where data and logs go [default: a temporary folder, kept if something was broken].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How the report is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Write the report as JSON into this file as well.
    #[arg(long, value_name = "FILE")]
    report_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let scenario = Cli::parse().scenario;
    let (name, options) = match &scenario {
        Scenario::Kill(options) => ("kill", options),
        Scenario::Pause(options) => ("pause", options),
        Scenario::PowerCut(options) => ("power-cut", options),
        Scenario::DiskFull(options) => ("disk-full", options),
    };
    let mut temporary = None;
    let scratch = match &options.dir {
        Some(dir) => dir.clone(),
        None => {
            temporary.insert(tempfile::Builder::new().prefix("chaos-").tempdir()?).path().to_owned()
        }
    };
    let launch = Launch {
        binary: options
            .binary
            .canonicalize()
            .with_context(|| format!("no {}", options.binary.display()))?,
        data: scratch.join("data"),
        scratch,
        engine: options.engine.clone(),
        settings: options.settings.clone(),
    };
    let mut session =
        Session::new(name, launch, TinykvDial { seed: options.seed }, options.rounds, options.seed);
    session.shape.writers = options.writers;
    let bar = progress_bar(options.rounds);
    let shown = bar.clone();
    session.progress = Box::new(move |rounds| shown.set_position(rounds.into()));

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        match scenario {
            Scenario::Kill(_) => kill::run(session).await,
            Scenario::Pause(_) => pause::run(session).await,
            Scenario::PowerCut(_) => power_cut::run(session).await,
            Scenario::DiskFull(_) => disk_full::run(session).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    bar.finish_and_clear();

    let good = report.passed() || report.skipped.is_some();
    if !good && let Some(dir) = temporary {
        eprintln!("data and logs are kept in {}", dir.keep().display());
    }
    print(&report, options)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, options: &Options) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    if let Some(file) = &options.report_file {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut stdout = std::io::stdout().lock();
    match options.output {
        Output::Text => write!(stdout, "{}", report.to_text())?,
        Output::Json => writeln!(stdout, "{json}")?,
    }
    Ok(())
}

/// Shown on a terminal only.
fn progress_bar(rounds: u32) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    indicatif::ProgressBar::new(rounds.into()).with_message("rounds")
}
