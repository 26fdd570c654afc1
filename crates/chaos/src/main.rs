//! `chaos`: runs one scenario against the product's binary and reports what it executed and found. Without a scenario,
//! faults of every kind against a cluster of processes.
//!
//! Exit code 0: everything was executed and nothing was broken, or the machine does not permit the scenario, which
//! the report says. 1: something was broken, or not everything could be executed.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use chaos::{
    cluster::nemesis::Nemesis, dial::TinykvDial, disk_full, kill, pause, power_cut,
    process::Launch, session::Session,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// Faults against the product as a real process.
#[derive(Debug, Parser)]
#[command(name = "chaos", max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Faults of every kind against three stores and a scheduler.
#[derive(Clone, Debug, Args)]
struct ClusterOptions {
    /// How many times stores are killed; everything else in proportion.
    #[arg(long, default_value_t = 30, value_name = "N")]
    kills: u32,
    /// Begin nothing after so many minutes. A run that has not executed all kills by then has not passed.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// The product's executable [default: tinykv in the folder of this program].
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Only these nemeses, separated by commas [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<Nemesis>,
    /// Repeats the decisions of a run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// One more setting of the stores; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// What all scenarios take.
#[derive(Clone, Debug, Args)]
struct Common {
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
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match cli.scenario {
        Some(scenario) => one_process(&scenario),
        None => cluster(cli.cluster),
    }
}

/// Where data and logs go.
enum Scratch {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Scratch {
    fn new(common: &Common) -> anyhow::Result<Scratch> {
        let Some(dir) = &common.dir else {
            return Ok(Scratch::Temporary(tempfile::Builder::new().prefix("chaos-").tempdir()?));
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Scratch::Given(dir.canonicalize()?))
    }

    fn path(&self) -> &Path {
        match self {
            Scratch::Given(dir) => dir,
            Scratch::Temporary(dir) => dir.path(),
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Scratch::Given(dir) => dir,
            Scratch::Temporary(dir) => dir.keep(),
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn existing(binary: &Path) -> anyhow::Result<PathBuf> {
    binary.canonicalize().with_context(|| format!("no {}", binary.display()))
}

fn cluster(options: ClusterOptions) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::new(&options.common)?;
    let binary = match options.binary {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("tinykv"),
    };
    let asked = chaos::cluster::Options {
        binary: existing(&binary)?,
        dir: scratch.path().to_owned(),
        kills: options.kills,
        limit: options.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        only: options.only,
        seed: options.seed,
        settings: options.settings,
    };
    let runtime = runtime()?;
    let run = chaos::cluster::run(asked, |event, planned| {
        eprintln!(
            "at {:7} ms of {planned} nemeses: {} {}: {} ms, no write for {} ms",
            event.at_ms, event.nemesis, event.whom, event.took_ms, event.gap_ms
        );
    });
    // Dropping the run ends its processes and gives its disks back.
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = run => Ok(report),
            _ = terminate.recv() => bail!("stopped by SIGTERM"),
            _ = tokio::signal::ctrl_c() => bail!("stopped by ctrl-c"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    let mut report = outcome?;
    let good = report.passed();
    if !good {
        report.kept_in = Some(scratch.keep().display().to_string());
    }
    print(&report, &report.to_text(), &options.common)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one_process(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let (name, options) = match scenario {
        Scenario::Kill(options) => ("kill", options),
        Scenario::Pause(options) => ("pause", options),
        Scenario::PowerCut(options) => ("power-cut", options),
        Scenario::DiskFull(options) => ("disk-full", options),
    };
    let scratch = Scratch::new(&options.common)?;
    let launch = Launch {
        binary: existing(&options.binary)?,
        data: scratch.path().join("data"),
        scratch: scratch.path().to_owned(),
        engine: options.engine.clone(),
        settings: options.settings.clone(),
    };
    let dial = TinykvDial::patient(options.seed);
    let mut session = Session::new(name, launch, dial, options.rounds, options.seed);
    session.shape.writers = options.writers;
    let bar = progress_bar(options.rounds);
    let shown = bar.clone();
    session.progress = Box::new(move |rounds| shown.set_position(rounds.into()));

    let runtime = runtime()?;
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
    if !good {
        eprintln!("data and logs are kept in {}", scratch.keep().display());
    }
    print(&report, &report.to_text(), &options.common)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &impl Serialize, text: &str, common: &Common) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    if let Some(file) = &common.report_file {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut stdout = std::io::stdout().lock();
    match common.output {
        Output::Text => write!(stdout, "{text}")?,
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
