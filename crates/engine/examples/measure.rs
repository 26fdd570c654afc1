//! What the engines cost: point reads, snapshots, writes, syncs, opening.
//!
//! `cargo run --release -p engine --example measure -- [memory|fjall|rocksdb] [KEYS] [DIR] [ROW CACHE BYTES] [MEMTABLE BYTES]`
//!
//! Keys have 40 bytes, values 256. Every figure of a read is processor time, the median of several rounds over all
//! keys in random order, in one thread, with everything in the page cache; everything else is elapsed time.

use std::{env, hint::black_box, path::PathBuf, sync::Arc, time::Duration};

use engine::{Engine, Family, Kind, Options, WriteBatch};
use runtime::{Clock, Rng, real::RealClock};
use types::{Bytes, KeyRange};

const ROUNDS: usize = 5;
const BATCH: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let kind: Kind = args.next().unwrap_or_else(|| "fjall".to_owned()).parse()?;
    let keys: u64 = args.next().map_or(Ok(100_000), |keys| keys.parse())?;
    let dir = args.next().map_or_else(|| env::temp_dir().join("tinykv-measure"), PathBuf::from);
    let clock = RealClock::new();
    let mut options = Options::default();
    options.row_cache_bytes =
        args.next().map_or(Ok(options.row_cache_bytes), |bytes| bytes.parse())?;
    options.memtable_bytes =
        args.next().map_or(Ok(options.memtable_bytes), |bytes| bytes.parse())?;
    let _ = std::fs::remove_dir_all(&dir);

    let start = clock.monotonic();
    let engine = engine::open(kind, &dir, &options)?;
    report("open an empty folder", clock.monotonic() - start, 1);
    println!("resident {:.1} MiB", resident_mib());

    let mut rng = Rng::new(1);
    let mut order: Vec<u64> = (0..keys).collect();
    shuffle(&mut order, &mut rng);
    let start = clock.monotonic();
    for chunk in order.chunks(BATCH) {
        let mut batch = WriteBatch::new();
        for &id in chunk {
            batch.put(Family::Default, key(id), value(id));
        }
        engine.write(batch)?;
    }
    report("put, batches of 100", clock.monotonic() - start, keys);
    reads("memtable", &*engine, &order)?;

    let start = clock.monotonic();
    engine.flush()?;
    report("flush", clock.monotonic() - start, 1);
    reads("table", &*engine, &order)?;
    let middle = engine.middle_key(Family::Default, &KeyRange::all())?;
    let size = engine.approximate_size(Family::Default, &KeyRange::all())?;
    let start = clock.monotonic();
    for _ in 0..10 {
        engine.middle_key(Family::Default, &KeyRange::all())?;
    }
    report("middle key", clock.monotonic() - start, 10);
    println!(
        "size {:.1} MB, middle {:?}",
        size as f64 / 1e6,
        middle.map(|key| String::from_utf8_lossy(&key).into_owned())
    );

    let mut median = Vec::new();
    for id in 0..1000 {
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, key(id), value(id + 1));
        let start = clock.monotonic();
        engine.write(batch)?;
        let written = clock.monotonic();
        engine.sync()?;
        median.push((clock.monotonic() - written, written - start));
    }
    median.sort();
    report("sync after one put, median", median[500].0, 1);
    report("sync after one put, p99", median[990].0, 1);
    median.sort_by_key(|(_, write)| *write);
    report("write of one put, median", median[500].1, 1);

    let churn = churn(&engine, keys)?;
    report("get beside a writer (tables and memtable)", churn, 1);

    println!("{:?}", engine.statistics());
    println!("resident {:.1} MiB", resident_mib());
    drop(engine);
    let start = clock.monotonic();
    let engine = engine::open(kind, &dir, &options)?;
    report("open again", clock.monotonic() - start, 1);
    println!("resident {:.1} MiB", resident_mib());
    drop(engine);
    std::fs::remove_dir_all(&dir)
        .or_else(|error| if dir.exists() { Err(error) } else { Ok(()) })?;
    Ok(())
}

fn reads(place: &str, engine: &dyn Engine, order: &[u64]) -> engine::Result<()> {
    let keys: Vec<Bytes> = order.iter().map(|&id| key(id)).collect();
    let missing: Vec<Bytes> =
        order.iter().map(|&id| Bytes::from([&key(id)[..], b"x"].concat())).collect();
    let count = keys.len() as u64;
    let snapshot = engine.snapshot()?;
    let hits = rounds(|| {
        keys.iter().try_for_each(|key| {
            snapshot.get(Family::Default, key).map(|v| assert!(black_box(v).is_some()))
        })
    })?;
    report(&format!("get from {place}"), hits, count);
    let hits = rounds(|| {
        keys.iter().try_for_each(|key| {
            engine.snapshot()?.get(Family::Default, key).map(|v| assert!(black_box(v).is_some()))
        })
    })?;
    report(&format!("snapshot and get from {place}"), hits, count);
    let misses = rounds(|| {
        missing
            .iter()
            .try_for_each(|key| snapshot.get(Family::Default, key).map(|v| assert!(v.is_none())))
    })?;
    report(&format!("get of a missing key, {place}"), misses, count);
    let snapshots =
        rounds(|| keys.iter().try_for_each(|_| engine.snapshot().map(|s| drop(black_box(s)))))?;
    report("snapshot", snapshots, count);
    let mut iter = snapshot.iter(Family::Default, &KeyRange::all())?;
    let seeks = rounds(|| {
        keys[..1000].iter().try_for_each(|key| iter.seek(key).map(|found| assert!(found)))
    })?;
    report(&format!("seek, {place}"), seeks, 1000);
    let steps = rounds(|| {
        let mut more = iter.seek_to_first()?;
        while more {
            black_box(iter.value());
            more = iter.next()?;
        }
        Ok(())
    })?;
    report(&format!("next, {place}"), steps, count);
    let steps = rounds(|| {
        let mut more = iter.seek_to_last()?;
        while more {
            black_box(iter.value());
            more = iter.prev()?;
        }
        Ok(())
    })?;
    report(&format!("prev, {place}"), steps, count);
    Ok(())
}

/// Gets per second beside one writer at full speed.
fn churn(engine: &Arc<dyn Engine>, keys: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let writer = runtime::task::spawn("writer", {
        let engine = engine.clone();
        move || -> engine::Result<()> {
            let mut rng = Rng::new(7);
            for _ in 0..keys / 100 {
                let mut batch = WriteBatch::new();
                for _ in 0..100 {
                    let id = rng.range(0..keys);
                    batch.put(Family::Default, key(id), value(id));
                }
                engine.write(batch)?;
            }
            Ok(())
        }
    })?;
    let (mut rng, mut gets) = (Rng::new(8), 0);
    let start = processor_time();
    while !writer.is_finished() {
        let key = key(rng.range(0..keys));
        assert!(engine.snapshot()?.get(Family::Default, &key)?.is_some());
        gets += 1;
    }
    let took = processor_time() - start;
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(took / gets)
}

fn rounds(mut round: impl FnMut() -> engine::Result<()>) -> engine::Result<Duration> {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let start = processor_time();
        round()?;
        taken.push(processor_time() - start);
    }
    taken.sort();
    Ok(taken[ROUNDS / 2])
}

/// What this thread has used of the processor: other processes on the machine count less than in elapsed time.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn report(what: &str, took: Duration, count: u64) {
    let each = took.as_secs_f64() * 1e6 / count as f64;
    println!("{what:<44} {each:>10.3} µs");
}

fn key(id: u64) -> Bytes {
    Bytes::from(format!("table-{:016x}-record-{id:010}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn value(id: u64) -> Bytes {
    let mut value = vec![0; 256];
    Rng::new(id).fill(&mut value);
    value.into()
}

fn shuffle(order: &mut [u64], rng: &mut Rng) {
    for i in (1..order.len()).rev() {
        order.swap(i, rng.range(0..=i as u64) as usize);
    }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / (1 << 20) as f64
}
