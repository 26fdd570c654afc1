//! `tinykv bench competition`: the course's competition, on a cluster of this process.
//!
//! Three stores, sixteen clients, a log that is compacted beyond 100 entries and regions that are cut beyond 300 bytes.
//! Task `j` puts `x j y` under the client's two digits and the eight digits of `j`, and half of the tasks read it
//! back. The keys of a client rise, so that every client writes at the right edge of its part and thousands of regions
//! come about. The score is tasks per second.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bench::CompetitionArgs;
use client::{Client, RawClient};
use runtime::{Clock, real::RealClock};
use server::config::ByteSize;
use types::{Bytes, KeyRange, PeerRole, limits};

use super::{CliError, Global, output::Format};
use crate::Cluster;

/// Stores of the cluster.
const STORES: usize = 3;

/// Most regions that are counted.
const REGIONS_MAX: usize = 1_000_000;

/// What a run came to.
#[derive(Debug, serde::Serialize)]
struct Report {
    tasks: u64,
    gets: u64,
    seconds: f64,
    tasks_per_second: f64,
    put_p50_ms: f64,
    put_p99_ms: f64,
    regions: usize,
    resident_bytes: u64,
}

/// Runs the competition and prints its score.
pub(super) fn run(global: &Global, args: CompetitionArgs) -> Result<(), CliError> {
    let runtime = crate::runtime(1)?;
    let report = runtime.block_on(compete(args))?;
    let mut stdout = std::io::stdout().lock();
    if global.output == Format::Json {
        let json = serde_json::to_string_pretty(&report).unwrap_or_default();
        writeln!(stdout, "{json}")?;
        return Ok(());
    }
    let Report { tasks, gets, seconds, tasks_per_second, put_p50_ms, put_p99_ms, .. } = report;
    writeln!(
        stdout,
        "{tasks} tasks ({gets} gets) in {seconds:.2} s: {tasks_per_second:.0} tasks/s\n\
         put p50 {put_p50_ms:.2} ms, p99 {put_p99_ms:.2} ms\n\
         {} regions, {} MiB resident",
        report.regions,
        report.resident_bytes >> 20,
    )?;
    Ok(())
}

async fn compete(args: CompetitionArgs) -> Result<Report, CliError> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::builder()
        .data_dir(folder.path())
        .stores(STORES)
        .configure(|config| {
            config.raftstore.raft_log_gc_count_limit = 100;
            config.raftstore.split_region_check_tick_interval = Duration::from_millis(100);
            config.coprocessor.region_max_size = ByteSize(300);
            config.coprocessor.region_split_size = ByteSize(200);
        })
        .start()
        .await?;
    let client = cluster.client().await?;
    until_replicated(&client).await?;

    let clock = Arc::new(RealClock::new());
    let shared = Arc::new(Shared {
        next: AtomicU64::new(0),
        tasks: if args.seconds.is_some() { u64::MAX } else { args.tasks },
        until: args.seconds.map(|seconds| clock.monotonic() + seconds),
        clock: Arc::clone(&clock),
    });
    let began = clock.monotonic();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..args.clients {
        clients.spawn(compete_alone(client.raw(), number, Arc::clone(&shared)));
    }
    let (mut gets, mut puts) = (0, Vec::new());
    while let Some(done) = clients.join_next().await {
        let done = done.map_err(|error| CliError::new(types::Code::Bug, error.to_string()))??;
        gets += done.gets;
        puts.extend(done.puts);
    }
    let seconds = (clock.monotonic() - began).as_secs_f64();
    puts.sort_unstable();
    let at = |share: f64| {
        let index = ((puts.len() as f64 * share) as usize).min(puts.len().saturating_sub(1));
        puts.get(index).map_or(0.0, |took: &Duration| took.as_secs_f64() * 1e3)
    };
    let regions = client.regions(KeyRange::all(), REGIONS_MAX).await?.len();
    let report = Report {
        tasks: puts.len() as u64,
        gets,
        seconds,
        tasks_per_second: puts.len() as f64 / seconds,
        put_p50_ms: at(0.5),
        put_p99_ms: at(0.99),
        regions,
        resident_bytes: super::process::resident_bytes().unwrap_or(0),
    };
    cluster.shutdown().await?;
    Ok(report)
}

/// What the clients share.
struct Shared {
    next: AtomicU64,
    tasks: u64,
    until: Option<Duration>,
    clock: Arc<RealClock>,
}

/// What one client did.
#[derive(Default)]
struct Done {
    puts: Vec<Duration>,
    gets: u64,
}

async fn compete_alone(raw: RawClient, number: u32, shared: Arc<Shared>) -> Result<Done, CliError> {
    let raw = raw.with_timeout(limits::DRAIN_TIMEOUT);
    let mut done = Done::default();
    loop {
        let began = shared.clock.monotonic();
        let task = shared.next.fetch_add(1, Ordering::Relaxed);
        if shared.tasks <= task || shared.until.is_some_and(|until| until <= began) {
            return Ok(done);
        }
        let key = Bytes::from(format!("{number:02}{task:08}"));
        raw.put(key.clone(), format!("x {task} y")).await?;
        done.puts.push(shared.clock.monotonic() - began);
        // Half of them, whichever.
        if task.is_multiple_of(2) {
            done.gets += 1;
            if raw.get(key.clone()).await?.is_none() {
                let message = format!("{} was put and is not there", types::key::display(&key));
                return Err(CliError::new(types::Code::Bug, message));
            }
        }
    }
}

/// Waits until every key has as many replicas as there are stores.
async fn until_replicated(client: &Client) -> Result<(), CliError> {
    loop {
        let regions = client.regions(KeyRange::all(), REGIONS_MAX).await?;
        let is_whole = |peers: &[types::Peer]| {
            peers.len() == STORES && peers.iter().all(|peer| peer.role == PeerRole::Voter)
        };
        if regions.iter().all(|region| is_whole(&region.region.peers)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
