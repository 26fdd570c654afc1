//! Readers and appenders beside the writer, whose segments are freed and used again under their feet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use engine::raft_log::{Error, LogBatch, LogEntry, Options, RaftLog};
use runtime::{Rng, sim::SimFs, task};
use types::Bytes;

use crate::model::{Model, batch, open, small};

const READERS: u64 = 3;

/// The only data that the entry at `index` ever has.
fn data(region: u64, index: u64) -> Bytes {
    Bytes::from(format!("entry {index} of region {region}, and some more"))
}

fn read_at_random(log: &RaftLog, done: &AtomicBool, seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let mut read = 0;
    while !done.load(Ordering::Relaxed) {
        let region = rng.range(1..4);
        let Some(bounds) = log.bounds(region) else { continue };
        let low = rng.range(bounds.base_index..=bounds.last_index) + 1;
        match log.entries(region, low, bounds.last_index + 1, 1000) {
            Ok(entries) => {
                for (index, entry) in (low..).zip(&entries) {
                    assert_eq!((entry.index, &entry.data), (index, &data(region, index)));
                }
                read += entries.len() as u64;
            }
            // The log went on meanwhile.
            Err(Error::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    read
}

#[test]
fn readers_get_what_was_appended_however_segments_come_and_go() {
    let fs = SimFs::new();
    // Nothing stays in memory: every read goes to a file.
    let options = Options { cache_bytes: 0, ..small() };
    let (log, mut writer) = open(&fs, &options).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS)
        .map(|seed| {
            let (log, done) = (log.clone(), done.clone());
            task::spawn("reader", move || read_at_random(&log, &done, seed)).unwrap()
        })
        .collect();
    for index in 1..=2000 {
        let mut batch = LogBatch::new();
        for region in 1..4 {
            // Region 3 goes on rarely: what it has is written again.
            let index = if region == 3 { index / 50 } else { index };
            if log.bounds(region).map_or(0, |bounds| bounds.last_index) < index {
                let data = data(region, index);
                batch.append(region, vec![LogEntry { term: 1, index, kind: 0, data }]);
                batch.compact_to(region, index.saturating_sub(8));
            }
        }
        log.append(batch).unwrap();
        writer.sync().unwrap();
        while writer.maintain(500).unwrap().more {}
    }
    done.store(true, Ordering::Relaxed);
    let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    let statistics = log.statistics();
    println!("{read} entries read, {statistics:?}");
    assert!(0 < statistics.rewritten_bytes && 0 < statistics.spares_used);
}

#[test]
fn what_changes_while_it_is_written_again_stays_changed() {
    let fs = SimFs::new();
    let options = Options { cache_bytes: 0, ..small() };
    let (log, mut writer) = open(&fs, &options).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let appender = {
        let (log, done) = (log.clone(), done.clone());
        task::spawn("appender", move || {
            let (mut rng, mut model) = (Rng::new(1), Model::default());
            // As many as it takes for the two to meet, however the threads are scheduled.
            let mut appends = 0;
            while appends < 4000 || (appends < 400_000 && log.statistics().rewritten_bytes == 0) {
                appends += 1;
                let ops = model.random_ops(&mut rng, |rng| rng.range(0..60) as usize);
                log.append(batch(&ops)).unwrap();
                model.apply(&ops);
            }
            done.store(true, Ordering::Relaxed);
            model
        })
        .unwrap()
    };
    while !done.load(Ordering::Relaxed) {
        writer.sync().unwrap();
        writer.maintain(1000).unwrap();
    }
    let model = appender.join().unwrap();
    writer.sync().unwrap();
    while writer.maintain(1000).unwrap().more {}
    assert_eq!(Model::of(&log).unwrap(), model);
    assert!(0 < log.statistics().rewritten_bytes);
    let (log, _writer) = open(&fs, &options).unwrap();
    assert_eq!(Model::of(&log).unwrap(), model);
}

#[test]
fn appends_of_many_threads_are_all_there_in_the_order_of_their_tickets() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    let appenders: Vec<_> = (1..=4)
        .map(|region| {
            let log = log.clone();
            task::spawn("appender", move || {
                let mut last = None;
                for index in 1..=200 {
                    let mut batch = LogBatch::new();
                    let data = data(region, index);
                    batch.append(region, vec![LogEntry { term: 1, index, kind: 0, data }]);
                    last = last.max(Some(log.append(batch).unwrap()));
                }
                last
            })
            .unwrap()
        })
        .collect();
    // While the others append.
    for _ in 0..100 {
        writer.sync().unwrap();
        writer.maintain(1000).unwrap();
    }
    let last = appenders.into_iter().map(|appender| appender.join().unwrap()).max();
    assert_eq!(Some(writer.sync().unwrap()), last.flatten());
    assert_eq!(writer.sync().unwrap().0, 4 * 200);
    let before = Model::of(&log).unwrap();
    let (log, _writer) = open(&fs.crash(&mut Rng::new(1)), &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
    assert_eq!(log.bounds(4).unwrap().last_index, 200);
}
