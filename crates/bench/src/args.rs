//! What people type after `tinykv bench`, and what it means.
//!
//! `-e` and `-o` are options of the whole command line and come in beside these. Every rule about how options go
//! together is checked in one place, [`LoadArgs::check`], before anything is started.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use types::{ApiMode, limits};

use crate::{
    error::Error,
    keys::{CHECKSUM_BYTES, Choice},
    open_loop::Arrivals,
    window::{Pace, Plan},
    workload::Workload,
};

/// Most keys: 2 GiB of them.
const KEYS_MAX: u64 = 50_000_000;

/// Arguments of `tinykv bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Point reads of 40-byte keys.
    RawGet(RunArgs),
    /// Writes.
    RawPut(RunArgs),
    /// Point reads and writes.
    RawMixed(RunArgs),
    /// Short scans.
    RawScan(RunArgs),
    /// Measure a cluster and a peer in turns and print the ratios.
    Compare(CompareArgs),
    /// The course's competition: three stores of this process, tiny regions that split all the time.
    Competition(CompetitionArgs),
    /// The bare echo server that `--target echo` starts.
    #[command(hide = true)]
    EchoServer(EchoServerArgs),
}

impl BenchArgs {
    /// What the course's competition was asked for, which starts a cluster of its own; `None`: another workload.
    pub fn competition(&self) -> Option<&CompetitionArgs> {
        match &self.command {
            BenchCommand::Competition(args) => Some(args),
            _ => None,
        }
    }
}

/// Arguments of the competition.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompetitionArgs {
    /// Tasks: a put each, and a get after half of them.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: u64,
    /// Run for so long instead.
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub seconds: Option<Duration>,
    /// Clients.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..100))]
    pub clients: u32,
}

/// Arguments of one run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to measure: the cluster at -e, a bare gRPC echo server, or etcd; the latter two are started here.
    #[arg(long, value_enum, default_value_t = TargetName::Tinykv)]
    pub(crate) target: TargetName,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of a comparison.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The mix of operations.
    #[arg(value_enum)]
    pub(crate) workload: Workload,
    /// What the cluster at -e is compared with.
    #[arg(long, value_enum, value_name = "PEER")]
    pub(crate) with: PeerName,
    /// How often both are measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What load is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetName {
    /// The cluster at -e.
    Tinykv,
    /// A bare gRPC server that stores nothing: the floor.
    Echo,
    /// etcd, started from PATH.
    Etcd,
}

/// What a cluster is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerName {
    /// A bare gRPC server that stores nothing: the floor.
    Echo,
    /// etcd, started from PATH.
    Etcd,
}

impl PeerName {
    /// The same as a target.
    pub(crate) fn target(self) -> TargetName {
        match self {
            PeerName::Echo => TargetName::Echo,
            PeerName::Etcd => TargetName::Etcd,
        }
    }
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Every key alike.
    Uniform,
    /// Zipf with exponent 0.99.
    Zipfian,
}

/// How much load of which kind, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Requests in flight, over all connections.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = parse_count)]
    pub(crate) clients: usize,
    /// Connections to each store (never more than clients).
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = parse_count)]
    pub(crate) connections: usize,
    /// Requests per BatchCommands message; unary requests without it. Clients must be a multiple.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) batch: Option<usize>,
    /// How long to measure.
    #[arg(long, default_value = "10", value_name = "S", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// Load before that, which is not measured.
    #[arg(long, default_value = "1", value_name = "S", value_parser = parse_seconds)]
    pub(crate) warmup: Duration,
    /// Begin so many requests per second, whatever the target does (open loop), instead of keeping clients busy.
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// How the times of an open loop are drawn.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub(crate) arrivals: Arrivals,
    /// Unanswered requests at which an open loop begins no more (counted as shed).
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = parse_count)]
    pub(crate) outstanding: usize,
    /// Number of keys.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(crate) keys: u64,
    /// Which keys are asked for.
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub(crate) distribution: Distribution,
    /// Bytes of a value, its checksum included.
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = parse_value_size)]
    pub(crate) value_size: usize,
    /// Share of reads in raw-mixed.
    #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) read_percent: u8,
    /// Pairs of one scan in raw-scan.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) scan_limit: u32,
    /// Everything random starts from it.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Do not write the keys before reads are measured.
    #[arg(long)]
    pub(crate) no_load: bool,
    /// The cluster's storage.api: v1, v1ttl or v2.
    #[arg(long, default_value = "v1", value_name = "MODE")]
    pub(crate) api: ApiMode,
    /// Process of the server, for its costs; found by itself on the same machine. May be repeated.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Vec<u32>,
    /// Where the server offers /metrics; the scheduler usually knows. May be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) status: Vec<String>,
    /// Members of the etcd cluster.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) members: u8,
    /// Where etcd keeps its data meanwhile: the disk that the cluster uses. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Worker threads of the echo server. Default: one per processor, as the product has.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) echo_workers: Option<usize>,
}

impl LoadArgs {
    /// Checks what clap cannot: options that do not go together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let usage = |text: String| Err(Error::Usage(text));
        if self.seconds.is_zero() {
            return usage("--seconds must be above 0".to_owned());
        }
        if let Some(batch) = self.batch
            && self.rate.is_none()
            && !self.clients.is_multiple_of(batch)
        {
            return usage(format!("--clients {} is no multiple of --batch {batch}", self.clients));
        }
        Ok(())
    }

    /// Connections to open: with fewer clients than connections the rest would be idle.
    pub(crate) fn connections(&self) -> usize {
        if self.rate.is_some() { self.connections } else { self.connections.min(self.clients) }
    }

    /// The window to measure, after `ramp` of load that is not measured.
    pub(crate) fn plan(&self, ramp: Duration) -> Plan {
        let pace = match self.rate {
            None => Pace::Closed { in_flight: self.clients },
            Some(rate) => Pace::Open {
                rate,
                arrivals: self.arrivals,
                outstanding_max: self.outstanding,
                seed: self.seed,
            },
        };
        Plan { pace, ramp, length: self.seconds }
    }

    /// Which keys are asked for.
    pub(crate) fn choice(&self) -> Choice {
        match self.distribution {
            Distribution::Uniform => Choice::uniform(self.keys),
            Distribution::Zipfian => Choice::zipfian(self.keys),
        }
    }
}

/// Arguments of the echo server.
#[derive(Debug, Args)]
pub(crate) struct EchoServerArgs {
    /// Where to listen; port 0 takes a free one. The address is the first line on standard output.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// Bytes of the value that every get returns.
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = parse_value_size)]
    pub(crate) value_size: usize,
    /// Worker threads. Default: one per processor.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) workers: Option<usize>,
    /// End when standard input ends, that is, with the process that started this one.
    #[arg(long)]
    pub(crate) until_stdin_ends: bool,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        Ok(_) => Err("must be 1 to 1,000,000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "a number of seconds is needed".to_owned())?;
    match (0.0..=86_400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("must be 0 to 86,400 seconds".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| "a number of requests per second is needed".to_owned())?;
    match (0.001..=10_000_000.0).contains(&rate) {
        true => Ok(rate),
        false => Err("must be 0.001 to 10,000,000 per second".to_owned()),
    }
}

fn parse_value_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bytes @ CHECKSUM_BYTES..=limits::VALUE_BYTES_MAX) => Ok(bytes),
        Ok(_) => Err(format!("must be {CHECKSUM_BYTES} to {} bytes", limits::VALUE_BYTES_MAX)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<BenchCommand, String> {
        let words = std::iter::once("bench").chain(line.split_ascii_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.bench.command).map_err(|error| error.to_string())
    }

    fn load(line: &str) -> LoadArgs {
        match parse(line).unwrap() {
            BenchCommand::RawGet(run) | BenchCommand::RawPut(run) => run.load,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_forms_parse() {
        let Ok(BenchCommand::RawGet(run)) = parse("raw-get --clients 64 --seconds 3") else {
            panic!()
        };
        assert_eq!(run.target, TargetName::Tinykv);
        assert_eq!((run.load.clients, run.load.seconds), (64, Duration::from_secs(3)));
        assert_eq!((run.load.connections, run.load.keys, run.load.value_size), (4, 100_000, 256));
        let line = "raw-put --target etcd --members 3 --clients 1 --seconds 0.5 --rate 2500 --value-size 1000 --keys 10";
        let Ok(BenchCommand::RawPut(run)) = parse(line) else { panic!() };
        assert_eq!(
            (run.target, run.load.members, run.load.rate),
            (TargetName::Etcd, 3, Some(2_500.0))
        );
        let line = "compare raw-mixed --with echo --clients 256 --batch 16 --seconds 2 --rounds 7";
        let Ok(BenchCommand::Compare(compare)) = parse(line) else { panic!() };
        assert_eq!(
            (compare.workload, compare.with, compare.rounds),
            (Workload::RawMixed, PeerName::Echo, 7)
        );
        assert!(matches!(
            parse("echo-server --listen 127.0.0.1:0"),
            Ok(BenchCommand::EchoServer(_))
        ));
        assert!(matches!(parse("raw-scan --scan-limit 7"), Ok(BenchCommand::RawScan(_))));
    }

    #[test]
    fn nonsense_is_refused_with_words() {
        for (line, words) in [
            ("raw-get --clients 0", "1 to 1,000,000"),
            ("raw-get --value-size 3", "4 to"),
            ("raw-get --keys 0", "0 is not in 1..="),
            ("raw-get --rate 0", "0.001"),
            ("raw-get --seconds=-1", "0 to 86,400"),
            ("raw-get --api v7", "unknown API mode"),
            ("compare raw-get --with tinykv", "possible values: echo, etcd"),
            ("compare --with echo", "<WORKLOAD>"),
            ("write-everything", "unrecognized subcommand"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_usage_errors() {
        assert!(load("raw-get --clients 256 --batch 16").check().is_ok());
        let error = load("raw-get --clients 100 --batch 16").check().unwrap_err();
        assert_eq!(error.to_string(), "--clients 100 is no multiple of --batch 16");
        assert!(
            load("raw-get --clients 1 --batch 16 --rate 100").check().is_ok(),
            "clients mean nothing there"
        );
        assert!(load("raw-get --seconds 0").check().is_err());
    }

    #[test]
    fn one_client_needs_one_connection() {
        assert_eq!(load("raw-get --clients 1").connections(), 1);
        assert_eq!(load("raw-get --clients 64").connections(), 4);
        assert_eq!(load("raw-get --clients 1 --rate 10").connections(), 4);
    }

    #[test]
    fn the_rate_decides_the_loop() {
        let plan = load("raw-get --clients 8").plan(Duration::ZERO);
        assert_eq!(plan.pace, Pace::Closed { in_flight: 8 });
        let plan = load("raw-get --rate 100 --arrivals constant --seed 9").plan(Duration::ZERO);
        let expected = Pace::Open {
            rate: 100.0,
            arrivals: Arrivals::Constant,
            outstanding_max: 4096,
            seed: 9,
        };
        assert_eq!(plan.pace, expected);
    }
}
