//! What the raft log costs: synced appends, reads, a restart.
//!
//! `cargo run --release -p engine --example raft_log_bench -- DIR [SECONDS]`
//!
//! 200 regions in turn, entries of 300 bytes and a state of 24 bytes each, one thread. *Growing*: every segment is a new
//! file that grows, and nobody keeps house. *Steady*: logs are compacted and segments used again, and the time of the
//! housekeeping counts.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use engine::raft_log::{LogBatch, LogEntry, Options, RaftLog, RaftLogWriter};
use runtime::{
    Clock, Fs, Rng,
    real::{RealClock, RealFs},
};
use types::Bytes;

const REGIONS: u64 = 200;
const ENTRY_BYTES: usize = 300;
const STATE_BYTES: usize = 24;
/// Entries that a region keeps in the steady state.
const KEPT: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which folder?")?).join("raft-log-bench");
    let time = Duration::from_secs(args.next().map_or(Ok(5), |seconds| seconds.parse())?);
    let clock = RealClock::new();

    sync_floor(&clock, &dir)?;
    println!("              batch   entries/s   p50 us   p99 us   worst us   bytes/entry");
    for batch in [1, 16, 64] {
        let mut bench = Bench::new(&dir)?;
        bench.run(&clock, time, batch, House::Left).print("growing", batch);
    }
    for batch in [1, 16, 64] {
        let mut bench = Bench::new(&dir)?;
        // Until segments are used again.
        while bench.log.statistics().spares_used < 3 {
            bench.run(&clock, Duration::from_millis(100), 256, House::Kept);
        }
        bench.run(&clock, time, batch, House::Kept).print("steady", batch);
        restart(&clock, &dir, bench)?;
    }
    reads_and_restart(&clock, &dir)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Whether there is housekeeping.
#[derive(Clone, Copy, PartialEq)]
enum House {
    Left,
    Kept,
}

struct Bench {
    log: RaftLog,
    writer: RaftLogWriter,
    next_index: u64,
    next_region: u64,
}

#[derive(Default)]
struct Report {
    latencies: Vec<Duration>,
    elapsed: Duration,
    entries: u64,
    bytes: u64,
}

impl Bench {
    fn new(dir: &Path) -> Result<Bench, Box<dyn std::error::Error>> {
        let _ = std::fs::remove_dir_all(dir);
        let (log, writer) = open(dir)?;
        Ok(Bench { log, writer, next_index: 1, next_region: 1 })
    }

    fn run(&mut self, clock: &RealClock, time: Duration, batch: u64, house: House) -> Report {
        let data = Bytes::from(vec![b'x'; ENTRY_BYTES]);
        let state = Bytes::from(vec![b's'; STATE_BYTES]);
        let mut report = Report::default();
        let written = self.log.statistics().written_bytes;
        let start = clock.monotonic();
        while clock.monotonic() - start < time {
            let begin = clock.monotonic();
            let mut log_batch = LogBatch::new();
            for _ in 0..batch {
                let entry =
                    LogEntry { term: 1, index: self.next_index, kind: 0, data: data.clone() };
                log_batch.append(self.next_region, vec![entry]);
                log_batch.put_state(self.next_region, state.clone());
                self.next_region += 1;
                if REGIONS < self.next_region {
                    self.next_region = 1;
                    self.next_index += 1;
                }
            }
            self.log.append(log_batch).expect("the batch makes sense");
            self.writer.sync().expect("the disk works");
            report.latencies.push(clock.monotonic() - begin);
            report.entries += batch;
            if house == House::Kept {
                self.keep_house();
            }
        }
        report.elapsed = clock.monotonic() - start;
        report.bytes = self.log.statistics().written_bytes - written;
        report
    }

    fn keep_house(&mut self) {
        // Each region in its turn, as the regions of a store would be.
        if self.next_index.is_multiple_of(64) && self.next_region < 64 {
            let mut batch = LogBatch::new();
            for region in 1..=REGIONS {
                let last = self.log.bounds(region).map_or(0, |bounds| bounds.last_index);
                batch.compact_to(region, last.saturating_sub(KEPT));
            }
            self.log.append(batch).expect("the batch makes sense");
        }
        self.writer.maintain(1 << 20).expect("the disk works");
    }
}

impl Report {
    fn print(mut self, name: &str, batch: u64) {
        self.latencies.sort();
        let at = |quantile: f64| {
            let position = (self.latencies.len() as f64 * quantile) as usize;
            self.latencies[position.min(self.latencies.len() - 1)].as_secs_f64() * 1e6
        };
        println!(
            "{name:12}  {batch:5}   {:9.0}   {:6.0}   {:6.0}   {:8.0}   {:11.0}",
            self.entries as f64 / self.elapsed.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0),
            self.bytes as f64 / self.entries as f64,
        );
    }
}

fn open(dir: &Path) -> Result<(RaftLog, RaftLogWriter), engine::raft_log::Error> {
    RaftLog::open(Arc::new(RealFs::new()), dir, &Options::default(), &mut |_| {})
}

/// What a write and a sync cost without a log.
fn sync_floor(clock: &RealClock, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let fs = RealFs::new();
    fs.create_dir_all(dir)?;
    let path = dir.join("floor");
    let file = fs.open(&path)?;
    let zeros = vec![0; 64 << 20];
    for (name, prepared, len) in [
        ("4 KiB, growing", false, 4096),
        ("4 KiB, prepared", true, 4096),
        ("24 KiB, growing", false, 24_576),
        ("24 KiB, prepared", true, 24_576),
    ] {
        file.set_len(0)?;
        if prepared {
            file.write_all_at(&zeros, 0)?;
        }
        file.sync()?;
        let mut latencies = Vec::new();
        for i in 0..2000 {
            let begin = clock.monotonic();
            file.write_all_at(&zeros[..len], i * len as u64)?;
            file.sync()?;
            latencies.push(clock.monotonic() - begin);
        }
        latencies.sort();
        println!("write and sync, {name:16} p50 {:4.0} us", latencies[1000].as_secs_f64() * 1e6);
    }
    fs.remove(&path)?;
    Ok(())
}

fn reads_and_restart(clock: &RealClock, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut bench = Bench::new(dir)?;
    while bench.next_index < 10_000 {
        bench.run(clock, Duration::from_millis(100), 256, House::Left);
    }
    while bench.writer.maintain(1 << 20)?.more {}
    let mut rng = Rng::new(1);
    let mut median = |low: &mut dyn FnMut(&mut Rng, u64) -> u64| {
        let mut times = Vec::new();
        for _ in 0..1000 {
            let region = rng.range(1..=REGIONS);
            let last = bench.log.bounds(region).expect("it was appended to").last_index;
            let low = low(&mut rng, last);
            let begin = clock.monotonic();
            bench.log.entries(region, low, low + 100, usize::MAX).expect("they are there");
            times.push(clock.monotonic() - begin);
        }
        times.sort();
        times[500].as_secs_f64() * 1e6
    };
    println!("last 100 entries of a region, p50 {:.0} us", median(&mut |_, last| last - 99));
    let old = median(&mut |rng, last| rng.range(1..last / 2));
    println!("100 entries from an old place, p50 {old:.0} us");
    restart(clock, dir, bench)
}

fn restart(clock: &RealClock, dir: &Path, bench: Bench) -> Result<(), Box<dyn std::error::Error>> {
    let entries = bench.log.statistics().live_entries;
    drop(bench);
    let begin = clock.monotonic();
    let (log, _writer) = open(dir)?;
    let elapsed = clock.monotonic() - begin;
    assert_eq!(log.statistics().live_entries, entries);
    println!(
        "restart with {entries} entries in {} segments, {:.0} ms",
        log.statistics().segments,
        elapsed.as_secs_f64() * 1e3
    );
    Ok(())
}
