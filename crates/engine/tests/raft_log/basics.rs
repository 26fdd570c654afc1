//! What each call does, one property a test.

use std::sync::Arc;

use engine::raft_log::{Bounds, Error, LogBatch, Options, RaftLog, STATE_BYTES_MAX, Ticket};
use runtime::{Fs, Rng, real::RealFs, sim::SimFs};
use types::Bytes;

use crate::model::{Model, any_len, batch, dir, entries, open, small};

fn text(log: &RaftLog, region: u64, low: u64, high: u64, max_bytes: usize) -> Vec<String> {
    let entries = log.entries(region, low, high, max_bytes).unwrap();
    let text = |data: &Bytes| String::from_utf8(data.to_vec()).unwrap();
    entries.iter().map(|entry| format!("{}:{}", entry.index, text(&entry.data))).collect()
}

#[test]
fn entries_are_readable_at_once_and_durable_after_the_sync() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &Options::default()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(7, entries(1, 1, &["a", "b"])).put_state(7, Bytes::from_static(b"hard"));
    assert_eq!(log.append(batch).unwrap(), Ticket(1));
    assert_eq!(text(&log, 7, 1, 3, usize::MAX), ["1:a", "2:b"]);
    assert_eq!(log.state(7).unwrap(), "hard");
    assert_eq!((log.durable(), 0 < log.pending_bytes()), (Ticket(0), true));
    assert_eq!(writer.sync().unwrap(), Ticket(1));
    assert_eq!((log.durable(), log.pending_bytes()), (Ticket(1), 0));

    let syncs = fs.syncs();
    assert_eq!(writer.sync().unwrap(), Ticket(1));
    assert_eq!(fs.syncs(), syncs, "nothing to do costs nothing");
}

#[test]
fn all_that_waits_is_one_write_and_one_sync() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &Options::default()).unwrap();
    log.append(LogBatch::new()).unwrap();
    writer.sync().unwrap();
    for region in 1..100 {
        let mut batch = LogBatch::new();
        batch.append(region, entries(1, 1, &["x", "y"]));
        log.append(batch).unwrap();
    }
    let (operations, syncs) = (fs.operations(), fs.syncs());
    assert_eq!(writer.sync().unwrap(), Ticket(100));
    assert_eq!((fs.operations() - operations, fs.syncs() - syncs), (2, 1));
}

#[test]
fn a_new_log_costs_nothing_to_open() {
    let fs = SimFs::new();
    drop(open(&fs, &Options::default()).unwrap());
    assert_eq!(fs.list(dir()).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn reads_stop_at_the_limit_and_give_one_at_least() {
    let (log, _writer) = open(&SimFs::new(), &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, 1, &["12345678", "12345678", "12345678"]));
    log.append(batch).unwrap();
    let cost = 8 + RaftLog::ENTRY_OVERHEAD;
    let count = |max| log.entries(1, 1, 4, max).unwrap().len();
    assert_eq!([count(0), count(2 * cost - 1), count(2 * cost), count(usize::MAX)], [1, 1, 2, 3]);
    assert_eq!(log.entries(1, 3, 3, 0).unwrap(), []);
}

#[test]
fn what_is_not_there_is_compacted_or_unavailable() {
    let (log, _writer) = open(&SimFs::new(), &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(3, 1, &["a", "b", "c", "d"])).compact_to(1, 2);
    log.append(batch).unwrap();
    let bounds = Bounds { base_index: 2, base_term: 3, last_index: 4 };
    assert_eq!(log.bounds(1), Some(bounds));
    assert_eq!((log.term(1, 2).unwrap(), log.term(1, 4).unwrap()), (3, 3));
    for (low, high) in [(2, 4), (0, 1), (1, 9)] {
        let refused = log.entries(1, low, high, 0);
        assert!(matches!(refused, Err(Error::Compacted { base_index: 2, .. })), "{refused:?}");
    }
    assert!(matches!(log.term(1, 1), Err(Error::Compacted { index: 1, .. })));
    assert!(matches!(log.term(1, 5), Err(Error::Unavailable { last_index: 4, .. })));
    assert!(matches!(log.entries(1, 3, 6, 0), Err(Error::Unavailable { index: 5, .. })));
    assert!(matches!(log.term(1, u64::MAX), Err(Error::Unavailable { .. })));

    assert_eq!((log.bounds(2), log.state(2)), (None, None));
    assert_eq!(log.term(2, 0).unwrap(), 0);
    assert!(matches!(log.term(2, 1), Err(Error::Unavailable { last_index: 0, .. })));
    assert!(matches!(log.entries(2, 1, 2, 0), Err(Error::Unavailable { .. })));
}

#[test]
fn an_append_replaces_the_end_of_the_log() {
    let (log, mut writer) = open(&SimFs::new(), &small()).unwrap();
    for (term, first, data) in
        [(1, 1, &["a", "b", "c"][..]), (2, 2, &["B"][..]), (3, 3, &["C", "D"][..])]
    {
        let mut batch = LogBatch::new();
        batch.append(1, entries(term, first, data));
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    assert_eq!(text(&log, 1, 1, 5, usize::MAX), ["1:a", "2:B", "3:C", "4:D"]);
    assert_eq!([1, 2, 3].map(|index| log.term(1, index).unwrap()), [1, 2, 3]);
}

#[test]
fn a_reset_empties_the_log_and_keeps_the_state() {
    let (log, _writer) = open(&SimFs::new(), &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, 1, &["a"])).put_state(1, Bytes::from_static(b"s")).reset(1, 50, 4);
    batch.append(1, entries(4, 51, &["b"]));
    log.append(batch).unwrap();
    let bounds = Bounds { base_index: 50, base_term: 4, last_index: 51 };
    assert_eq!((log.bounds(1), log.state(1).unwrap()), (Some(bounds), Bytes::from_static(b"s")));
}

#[test]
fn a_removed_region_is_gone_and_may_come_again() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, 1, &["a"])).put_state(1, Bytes::new()).remove(1).remove(9);
    log.append(batch).unwrap();
    assert_eq!((log.regions(), log.bounds(1), log.state(1)), (vec![], None, None));
    let mut batch = LogBatch::new();
    batch.put_state(1, Bytes::from_static(b"new"));
    log.append(batch).unwrap();
    writer.sync().unwrap();
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(log.bounds(1), Some(Bounds::default()));
    assert_eq!(log.state(1).unwrap(), "new");
}

#[test]
fn a_batch_that_makes_no_sense_is_refused_as_a_whole() {
    let (log, _writer) = open(&SimFs::new(), &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.reset(1, 10, 2).append(1, entries(2, 11, &["a", "b"]));
    log.append(batch).unwrap();
    let before = Model::of(&log).unwrap();
    let refuse = |build: &dyn Fn(&mut LogBatch) -> &mut LogBatch| {
        let mut batch = LogBatch::new();
        batch.put_state(1, Bytes::from_static(b"x")).reset(5, 1, 1);
        build(&mut batch);
        let error = log.append(batch).unwrap_err();
        assert_eq!(Model::of(&log).unwrap(), before, "something was taken");
        error.to_string()
    };
    let gap = "region 1: entry 14 can't be appended, the next one is 13";
    assert_eq!(refuse(&|batch| batch.append(1, entries(2, 14, &["d"]))), gap);
    let mut torn = entries(2, 13, &["c"]);
    torn.extend(entries(2, 15, &["e"]));
    let gap = "region 1: entry 15 can't be appended, the next one is 14";
    assert_eq!(refuse(&|batch| batch.append(1, torn.clone())), gap);
    let gap = "region 3: entry 2 can't be appended, the next one is 1";
    assert_eq!(refuse(&|batch| batch.append(3, entries(1, 2, &["d"]))), gap);
    let compacted = "region 1: index 10 is compacted, the log begins after 10";
    assert_eq!(refuse(&|batch| batch.append(1, entries(2, 10, &["d"]))), compacted);
    let unavailable = "region 1: index 13 is beyond the last one, 12";
    assert_eq!(refuse(&|batch| batch.compact_to(1, 13)), unavailable);
    let large = "a state of 65537 bytes is too large, the limit is 65536";
    let state = Bytes::from(vec![0; STATE_BYTES_MAX + 1]);
    assert_eq!(refuse(&|batch| batch.put_state(1, state.clone())), large);
    // A batch sees what it has done itself.
    let unavailable = "region 1: index 11 is beyond the last one, 0";
    assert_eq!(refuse(&|batch| batch.remove(1).compact_to(1, 11)), unavailable);
}

#[test]
fn an_entry_that_no_segment_holds_gets_one_of_its_own() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    let large = "x".repeat(10_000);
    for (first, data) in [(1, "a"), (2, &large), (3, "c")] {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, first, &[data]));
        log.append(batch).unwrap();
    }
    writer.sync().unwrap();
    let before = Model::of(&log).unwrap();
    assert_eq!(log.statistics().segments, 3);
    while writer.maintain(1 << 20).unwrap().more {}
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
    assert_eq!(text(&log, 1, 3, 4, 0), ["3:c"]);
}

#[test]
fn what_leaves_the_cache_is_read_from_the_file() {
    let fs = SimFs::new();
    let options = Options { cache_bytes: 1, ..Options::default() };
    let (log, mut writer) = open(&fs, &options).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, 1, &["one", "", "three"])).append(2, entries(1, 1, &["other"]));
    log.append(batch).unwrap();
    assert_eq!(text(&log, 1, 1, 4, usize::MAX), ["1:one", "2:", "3:three"]);
    assert_eq!(log.statistics().entries_read, 0, "what is not written stays in memory");
    writer.sync().unwrap();
    assert_eq!(log.statistics().cache_bytes, 0);
    assert_eq!(text(&log, 1, 1, 4, usize::MAX), ["1:one", "2:", "3:three"]);
    assert_eq!(log.entries(1, 2, 3, 0).unwrap()[0].kind, 1);
    assert_eq!(log.statistics().entries_read, 4);
}

#[test]
fn the_entry_that_came_first_leaves_the_cache_first() {
    let options = Options { cache_bytes: 3 * (128 + 10), ..Options::default() };
    let (log, mut writer) = open(&SimFs::new(), &options).unwrap();
    for index in 1..=3 {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, index, &["0123456789"]));
        batch.append(2, entries(1, index, &["0123456789"]));
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    let reads = |region, index| {
        let before = log.statistics().entries_read;
        log.entries(region, index, index + 1, 0).unwrap();
        log.statistics().entries_read - before
    };
    assert_eq!([1, 2, 3].map(|index| reads(1, index)), [1, 1, 0]);
    assert_eq!([1, 2, 3].map(|index| reads(2, index)), [1, 0, 0]);
}

#[test]
fn segments_that_nobody_needs_are_freed_and_used_again() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    for index in 1..=200 {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, index, &["0123456789012345678901234567890123456789"]));
        batch.compact_to(1, index.saturating_sub(5));
        log.append(batch).unwrap();
        writer.sync().unwrap();
        while writer.maintain(512).unwrap().more {}
    }
    let statistics = log.statistics();
    assert!(statistics.segments <= 2, "{statistics:?}");
    assert!(10 < statistics.spares_used, "{statistics:?}");
    assert!(statistics.zeroed_bytes <= 2048, "there was one to recycle: {statistics:?}");
    let files = fs.list(dir()).unwrap();
    assert!(files.len() as u64 == statistics.segments + statistics.spares, "{files:?}");
    assert_eq!(statistics.rewritten_bytes, 0);
}

#[test]
fn a_file_without_a_spare_grows_ahead_of_what_is_written() {
    let fs = SimFs::new();
    let options = Options { segment_bytes: 2 << 20, grow_bytes: 256 << 10, ..small() };
    let (log, mut writer) = open(&fs, &options).unwrap();
    let path = dir().join("00000000000000000001.log");
    let len = || fs.open(&path).unwrap().len().unwrap();
    let data = "x".repeat(4000);
    let append = |log: &RaftLog, index| {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, index, &[data.as_str()]));
        log.append(batch)
    };
    let mut lengths = Vec::new();
    for index in 1.. {
        append(&log, index).unwrap();
        writer.sync().unwrap();
        if lengths.last() != Some(&len()) {
            lengths.push(len());
        }
        if 1 << 20 < log.statistics().written_bytes {
            break;
        }
    }
    // It doubles from 64 KiB on, and then grows by what the settings say.
    assert!((64 << 10..70 << 10).contains(&lengths[0]), "{lengths:?}");
    assert!(lengths.len() <= 8, "{lengths:?}");
    assert!(lengths.windows(2).all(|two| two[1] - two[0] < 270 << 10), "{lengths:?}");
    drop((log, writer));
    // What reaches ahead is found again, and used.
    let before = len();
    let (log, mut writer) = open(&fs, &options).unwrap();
    append(&log, log.bounds(1).unwrap().last_index + 1).unwrap();
    writer.sync().unwrap();
    assert!(len() < before + 4096 && log.statistics().zeroed_bytes == 0, "{}", len());
}

#[test]
fn a_lagging_region_is_rewritten_and_so_are_idle_ones() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, 1, &["a", "b", "c"])).put_state(1, Bytes::from_static(b"one"));
    batch.reset(2, 70, 7).put_state(3, Bytes::from_static(b"three"));
    log.append(batch).unwrap();
    for index in 1..=500 {
        let mut batch = LogBatch::new();
        batch.append(9, entries(1, index, &["0123456789012345678901234567890123456789"]));
        batch.compact_to(9, index.saturating_sub(5));
        log.append(batch).unwrap();
        writer.sync().unwrap();
        while writer.maintain(512).unwrap().more {}
    }
    let before = Model::of(&log).unwrap();
    assert_eq!(text(&log, 1, 1, 4, usize::MAX), ["1:a", "2:b", "3:c"]);
    let statistics = log.statistics();
    assert!(0 < statistics.rewritten_bytes && statistics.disk_bytes <= 8192 + 3 * 2048);
    let first = fs.list(dir()).unwrap()[0].clone();
    assert!(!first.ends_with("00000000000000000001.log"), "{first:?}");
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
    assert_eq!(log.bounds(2), Some(Bounds { base_index: 70, base_term: 7, last_index: 70 }));
}

#[test]
fn who_pins_the_oldest_segment_is_named() {
    let (log, mut writer) = open(&SimFs::new(), &small()).unwrap();
    let data = "x".repeat(300);
    for index in 1..=40 {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, index, &[&data]));
        batch.append(2, entries(1, index, &["small"]));
        log.append(batch).unwrap();
        writer.sync().unwrap();
        let more = writer.maintain(1 << 20).unwrap();
        if log.statistics().disk_bytes < 8192 {
            assert_eq!(more.pinning, []);
        }
    }
    // More than half is alive: nothing is gained by writing it again.
    while writer.maintain(1 << 20).unwrap().more {}
    assert_eq!(log.statistics().rewritten_bytes, 0);
    let pinning = writer.maintain(1 << 20).unwrap().pinning;
    let regions: Vec<u64> = pinning.iter().map(|pinning| pinning.region).collect();
    assert_eq!(regions, [1, 2], "by bytes, most first");

    let mut batch = LogBatch::new();
    batch.compact_to(1, 40).compact_to(2, 40);
    log.append(batch).unwrap();
    writer.sync().unwrap();
    while writer.maintain(1 << 20).unwrap().more {}
    assert!(log.statistics().segments <= 5, "{:?}", log.statistics());
}

#[test]
fn a_start_tells_how_far_it_is() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    for index in 1..=30 {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, index, &["0123456789012345678901234567890123456789"]));
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    let segments = log.statistics().segments;
    let mut seen = Vec::new();
    let progress = &mut |progress: engine::raft_log::Progress| {
        assert_eq!(progress.segments, segments);
        seen.push(progress.segments_read);
    };
    RaftLog::open(Arc::new(fs), dir(), &small(), progress).unwrap();
    assert_eq!(seen, (1..=segments).collect::<Vec<_>>());
}

#[test]
fn a_real_disk_is_as_good_as_a_simulated_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let fs = Arc::new(RealFs::new());
        RaftLog::open(fs, &dir.path().join("raft"), &small(), &mut |_| {}).unwrap()
    };
    let (mut rng, mut model) = (Rng::new(3), Model::default());
    let mut spares_used = 0;
    for _ in 0..4 {
        let (log, mut writer) = open();
        assert_eq!(Model::of(&log).unwrap(), model);
        for _ in 0..50 {
            let ops = model.random_ops(&mut rng, any_len);
            log.append(batch(&ops)).unwrap();
            model.apply(&ops);
            writer.sync().unwrap();
            while writer.maintain(1000).unwrap().more {}
        }
        assert_eq!(Model::of(&log).unwrap(), model);
        spares_used += log.statistics().spares_used;
    }
    assert!(0 < spares_used);
}

#[test]
fn segments_that_make_no_sense_are_refused() {
    for segment_bytes in [0, 1023, (1 << 30) + 1] {
        let refused = open(&SimFs::new(), &Options { segment_bytes, ..Options::default() });
        assert!(refused.unwrap_err().to_string().contains("segments of"));
    }
}
