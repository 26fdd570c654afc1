//! `cargo xtask ci`: the steps, in the order in which they fail soonest.
//!
//! Each step prints what it executed and how long it took. A step that executed nothing fails, unless the machine
//! does not allow it (no root, no loop devices): then the step says so in the summary and proves nothing.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use crate::{
    clients,
    product::{self, BUILD_LIMIT},
    run::{Executed, capture, cargo, limited, now, stream, tests_passed},
    tidy,
};

/// Arguments of `cargo xtask ci`.
#[derive(Debug, Args)]
pub(crate) struct CiArgs {
    /// Leave out `cargo test --workspace`: it was run before.
    #[arg(long)]
    no_test: bool,
    /// Only this step; may be repeated.
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Print the names of the steps.
    #[arg(long)]
    list: bool,
    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,
}

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> anyhow::Result<Executed>,
}

const STEPS: &[Step] = &[
    Step { name: "tidy", what: "facts about the repository", run: tidy::run },
    Step { name: "fmt", what: "cargo fmt --check", run: fmt },
    Step { name: "clippy", what: "cargo clippy, warnings are errors", run: clippy },
    Step { name: TEST, what: "cargo test --workspace", run: test },
    Step { name: "doc", what: "cargo doc, warnings are errors", run: doc },
    Step { name: "rocksdb", what: "the engine contract on RocksDB", run: rocksdb },
    Step { name: "sim", what: "Raft groups under every fault, by seeds of this tree", run: sim },
    Step {
        name: "sim-store",
        what: "stores under every fault, by seeds of this tree",
        run: sim_store,
    },
    Step { name: "mutants", what: "known bugs of Raft that the simulator must see", run: mutants },
    Step {
        name: "mutants-store",
        what: "known bugs of stores that the simulator must see",
        run: mutants_store,
    },
    Step { name: "release", what: "the product's release build", run: release },
    Step { name: "kill", what: "kill -9 under load, default engine", run: kill },
    Step { name: "kill-rocksdb", what: "kill -9 under load, RocksDB", run: kill_rocksdb },
    Step { name: "pause", what: "SIGSTOP and SIGCONT under load", run: pause },
    Step { name: "power-cut", what: "power cuts under load, default engine", run: power_cut },
    Step {
        name: "power-cut-rocksdb",
        what: "power cuts under load, RocksDB",
        run: power_cut_rocksdb,
    },
    Step { name: "disk-full", what: "full disks", run: disk_full },
    Step {
        name: "chaos-cluster",
        what: "faults of every kind against a cluster",
        run: chaos_cluster,
    },
    Step { name: "clients", what: "TiKV clients by other people", run: clients::run },
];

/// The step that `--no-test` leaves out.
const TEST: &str = "test";

/// How long one scenario of chaos may take.
const CHAOS_LIMIT: Duration = Duration::from_secs(8 * 60);

/// Runs the steps that `args` select.
pub(crate) fn run(root: &Path, args: &CiArgs) -> anyhow::Result<()> {
    if args.list {
        for step in STEPS {
            println!("{:18} {}", step.name, step.what);
        }
        return Ok(());
    }
    if let Some(unknown) =
        args.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        bail!("no step has the name {unknown}; see cargo xtask ci --list");
    }
    let selected = |step: &&Step| {
        if args.only.is_empty() {
            !(args.no_test && step.name == TEST)
        } else {
            args.only.iter().any(|name| name == step.name)
        }
    };

    let mut summary = Vec::new();
    let mut passed = 0;
    let mut failed = 0;
    for step in STEPS.iter().filter(selected) {
        println!("\n=== {}: {}", step.name, step.what);
        let begin = now();
        let result = (step.run)(root).and_then(|executed| {
            if executed.count == 0 && executed.skipped.is_none() {
                bail!("executed nothing")
            }
            Ok(executed)
        });
        let seconds = (now() - begin).as_secs_f64();
        match result {
            Ok(executed) => {
                println!("=== {}: executed {executed} in {seconds:.1} s", step.name);
                passed += 1;
                summary.push(format!("ok      {:18} {seconds:8.1} s  {executed}", step.name));
            }
            Err(error) => {
                println!("=== {}: FAILED after {seconds:.1} s: {error:#}", step.name);
                failed += 1;
                summary.push(format!("FAILED  {:18} {seconds:8.1} s  {error:#}", step.name));
                if !args.keep_going {
                    break;
                }
            }
        }
    }
    println!("\n{}\n\nsteps: {passed} passed, {failed} failed", summary.join("\n"));
    if failed == 0 { Ok(()) } else { bail!("{failed} of the steps failed") }
}

fn packages(root: &Path) -> anyhow::Result<u64> {
    let metadata = tidy::dependencies::metadata(root)?;
    Ok(metadata.packages.len() as u64)
}

fn fmt(root: &Path) -> anyhow::Result<Executed> {
    stream(cargo(root, BUILD_LIMIT).args(["fmt", "--all", "--check"]))?;
    Ok(Executed::new(packages(root)?, "packages formatted"))
}

fn clippy(root: &Path) -> anyhow::Result<Executed> {
    stream(cargo(root, BUILD_LIMIT).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Executed::new(packages(root)?, "packages without a warning"))
}

fn test(root: &Path) -> anyhow::Result<Executed> {
    let output = stream(cargo(root, BUILD_LIMIT).args(["test", "--workspace"]))?;
    Ok(Executed::new(tests_passed(&output)?, "tests"))
}

fn doc(root: &Path) -> anyhow::Result<Executed> {
    let mut command = cargo(root, BUILD_LIMIT);
    // Private items too: the documentation that matters here is for those who work on the code.
    command
        .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    stream(&mut command)?;
    Ok(Executed::new(packages(root)?, "packages documented"))
}

fn rocksdb(root: &Path) -> anyhow::Result<Executed> {
    // In release, as everywhere: RocksDB is compiled once.
    let arguments = ["test", "--release", "-p", "engine", "--features", "rocksdb,testing"];
    let output = stream(cargo(root, BUILD_LIMIT).args(arguments))?;
    let on_rocksdb =
        output.lines().filter(|line| line.contains("rocksdb") && line.ends_with("... ok")).count();
    if on_rocksdb == 0 {
        bail!("no test has rocksdb in its name: the contract was not held against it");
    }
    Ok(Executed::new(
        tests_passed(&output)?,
        format!("tests of the engines, {on_rocksdb} of them on RocksDB"),
    ))
}

/// Seeds of one run. They take ten seconds on two cores; [`CHAOS_LIMIT`] is for slow machines.
const SIM_SEEDS: u64 = 500;

/// Seeds of one run with stores, of at least 60 virtual seconds each. They take about a minute on two cores.
const STORE_SEEDS: u64 = 200;

/// Mutants of stores of one run, other ones with each tree.
const STORE_MUTANTS: u64 = 4;

/// Mutants of one run, other ones with each tree. All are run once per release.
const MUTANTS: u64 = 8;

/// The part of the simulator's report that counts here.
#[derive(Debug, Deserialize)]
struct SimReport {
    seeds: u64,
    violations: u64,
    virtual_hours: f64,
}

/// The part of the report about mutants that counts here.
#[derive(Debug, Deserialize)]
struct MutantsReport {
    caught: u64,
    total: u64,
}

/// The simulator, built.
fn simulator(root: &Path) -> anyhow::Result<std::process::Command> {
    stream(cargo(root, BUILD_LIMIT).args(["build", "--release", "-p", "sim"]))?;
    Ok(limited(CHAOS_LIMIT, product::target_dir(root)?.join("release/sim")))
}

fn mutants(root: &Path) -> anyhow::Result<Executed> {
    hunt_mutants(simulator(root)?, root, MUTANTS)
}

fn mutants_store(root: &Path) -> anyhow::Result<Executed> {
    let mut command = simulator(root)?;
    command.arg("store");
    hunt_mutants(command, root, STORE_MUTANTS)
}

fn hunt_mutants(
    mut command: std::process::Command,
    root: &Path,
    count: u64,
) -> anyhow::Result<Executed> {
    let first = (seed(root) >> 16).to_string();
    command.args(["mutants", "--first", &first, "--count", &count.to_string(), "-o", "json"]);
    let report: MutantsReport = serde_json::from_str(&stream(&mut command)?)?;
    if report.caught != report.total || report.total != count {
        bail!("{} mutants of {} were caught", report.caught, report.total)
    }
    Ok(Executed::new(report.total, "mutants, all of them caught"))
}

fn sim(root: &Path) -> anyhow::Result<Executed> {
    run_seeds(simulator(root)?, root, SIM_SEEDS)
}

fn sim_store(root: &Path) -> anyhow::Result<Executed> {
    let mut command = simulator(root)?;
    command.arg("store");
    run_seeds(command, root, STORE_SEEDS)
}

fn run_seeds(
    mut command: std::process::Command,
    root: &Path,
    count: u64,
) -> anyhow::Result<Executed> {
    // Room for the seeds above the first one.
    let from = (seed(root) >> 16).to_string();
    command.args(["run", "--seeds", &count.to_string(), "--from", &from, "-o", "json"]);
    let report: SimReport = serde_json::from_str(&stream(&mut command)?)?;
    if report.violations > 0 {
        bail!("{} violations; each was printed with what replays it", report.violations)
    }
    Ok(Executed::new(
        report.seeds,
        format!("seeds, {:.1} virtual hours, no violation", report.virtual_hours),
    ))
}

fn release(root: &Path) -> anyhow::Result<Executed> {
    // RocksDB's own is made by the steps that need it.
    product::build(root, product::Build::Default)?;
    stream(cargo(root, BUILD_LIMIT).args(["build", "--release", "-p", "chaos"]))?;
    Ok(Executed::new(1, "build of the product"))
}

fn kill(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "kill", 20, product::Build::Default)
}

fn kill_rocksdb(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "kill", 20, product::Build::RocksDb)
}

fn pause(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "pause", 10, product::Build::Default)
}

fn power_cut(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "power-cut", 20, product::Build::Default)
}

fn power_cut_rocksdb(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "power-cut", 20, product::Build::RocksDb)
}

fn disk_full(root: &Path) -> anyhow::Result<Executed> {
    chaos(root, "disk-full", 5, product::Build::Default)
}

/// The part of chaos's report that counts here.
#[derive(Debug, Deserialize)]
struct ChaosReport {
    rounds_executed: u64,
    acknowledged_writes: u64,
    lost: u64,
    skipped: Option<String>,
}

fn chaos(
    root: &Path,
    scenario: &str,
    rounds: u32,
    build: product::Build,
) -> anyhow::Result<Executed> {
    let binary = product::build(root, build)?;
    stream(cargo(root, BUILD_LIMIT).args(["build", "--release", "-p", "chaos"]))?;
    let target = product::target_dir(root)?;
    let report_file = target.join("xtask").join(format!("chaos-{scenario}-{}.json", build.name()));
    let seed = seed(root);
    let mut command = limited(CHAOS_LIMIT, target.join("release/chaos"));
    command.arg(scenario).arg("--binary").arg(binary);
    command.args(["--rounds", &rounds.to_string(), "--seed", &seed.to_string()]);
    command.arg("--report-file").arg(&report_file);
    if build == product::Build::RocksDb {
        command.args(["--engine", "rocksdb"]);
    }
    // A report of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(&report_file);
    stream(&mut command)?;
    let report = fs::read(&report_file)
        .with_context(|| format!("no report in {}", report_file.display()))?;
    let report: ChaosReport = serde_json::from_slice(&report)?;
    let what =
        format!("rounds, {} writes acknowledged, {} lost", report.acknowledged_writes, report.lost);
    Ok(Executed { skipped: report.skipped, ..Executed::new(report.rounds_executed, what) })
}

/// Kills of one run against a cluster: contracts say 30, with 10 times SIGSTOP.
const CLUSTER_KILLS: u32 = 30;

/// How often processes must stand still in such a run.
const CLUSTER_PAUSES: u64 = 10;

/// After so many minutes no fault begins any more.
const CLUSTER_MINUTES: u32 = 5;

/// The part of the report about a cluster that counts here.
#[derive(Debug, Deserialize)]
struct ClusterReport {
    kills: u64,
    acknowledged_writes: u64,
    lost: u64,
    linearizable: bool,
    unavailable_p50_ms: u64,
    unavailable_p99_ms: u64,
    skipped: Vec<String>,
    nemeses: BTreeMap<String, u64>,
}

fn chaos_cluster(root: &Path) -> anyhow::Result<Executed> {
    let binary = product::build(root, product::Build::Default)?;
    stream(cargo(root, BUILD_LIMIT).args(["build", "--release", "-p", "chaos"]))?;
    let target = product::target_dir(root)?;
    let report_file = target.join("xtask").join("chaos-cluster.json");
    let mut command = limited(CHAOS_LIMIT, target.join("release/chaos"));
    command.args(["--kills", &CLUSTER_KILLS.to_string()]);
    command.args(["--minutes", &CLUSTER_MINUTES.to_string(), "--seed", &seed(root).to_string()]);
    command.arg("--binary").arg(binary).arg("--report-file").arg(&report_file);
    // A report of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(&report_file);
    stream(&mut command)?;
    let report = fs::read(&report_file)
        .with_context(|| format!("no report in {}", report_file.display()))?;
    let report: ClusterReport = serde_json::from_slice(&report)?;
    let count = |name: &str| report.nemeses.get(name).copied().unwrap_or(0);
    let pauses = count("pause") + count("pause-leader");
    if report.kills < u64::from(CLUSTER_KILLS) || pauses < CLUSTER_PAUSES {
        bail!("{} kills and {pauses} pauses were executed", report.kills)
    }
    // What needs root may be missing; the kills and pauses are a proof without it.
    for why in &report.skipped {
        println!("SKIPPED: {why}");
    }
    let others: u64 = report.nemeses.values().sum::<u64>() - report.kills - pauses;
    let what = format!(
        "kills, {pauses} pauses, {others} other faults, {} kinds skipped, {} writes acknowledged, {} lost, \
         linearizable: {}, unavailable p50 {} ms, p99 {} ms",
        report.skipped.len(),
        report.acknowledged_writes,
        report.lost,
        report.linearizable,
        report.unavailable_p50_ms,
        report.unavailable_p99_ms
    );
    Ok(Executed::new(report.kills, what))
}

/// The same tree gives the same seed, so that a run can be made before landing; another tree gives another.
fn seed(root: &Path) -> u64 {
    let mut command = limited(Duration::from_secs(30), "git");
    let tree =
        capture(command.current_dir(root).args(["rev-parse", "HEAD^{tree}"])).unwrap_or_default();
    tree.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(1)
}
