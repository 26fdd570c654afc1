//! Tests of the log: what a crash, a full disk and a flipped bit leave of it.

use raft::EntryKind;
use runtime::Rng;

use super::*;
use crate::world::DiskOptions;

fn disk(seed: u64) -> Disk {
    Disk::new(DiskOptions { latency_min: 1, latency_mean: 1, slow: 0.0 }, Rng::new(seed))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { term, index, kind: EntryKind::Normal, data: Bytes::from(vec![index as u8; 100]) }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 1, commit }
}

fn perform(disk: &mut Disk, ops: Vec<DiskOp>) {
    disk.submit(0, 0, ops);
    disk.finish().1.unwrap();
}

/// Appends and waits for the disk.
fn append(disk: &mut Disk, log: &mut DiskLog, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    let commit = indexes.start() - 1;
    log.append(Some(hard_state(term, commit)), indexes.map(|index| entry(index, term)).collect());
    perform(disk, log.flush());
    log.synced(log.position());
}

fn started(seed: u64) -> (Disk, DiskLog) {
    let mut disk = disk(seed);
    let mut log = DiskLog::create();
    let conf = ConfState::of_voters([1, 2, 3]);
    perform(&mut disk, log.begin(&State::default(), &conf));
    log.synced(log.position());
    (disk, log)
}

fn applied(index: u64, term: u64) -> State {
    let mut state = State::default();
    for at in 1..=index {
        let data = Bytes::new();
        state.apply(&Entry { term, index: at, kind: EntryKind::Normal, data });
    }
    state
}

#[test]
fn a_new_disk_has_nothing_and_an_interrupted_beginning_is_nothing() {
    assert!(DiskLog::open(&disk(1)).unwrap().is_none());
    for seed in 0..50 {
        let mut disk = disk(seed);
        let mut log = DiskLog::create();
        let conf = ConfState::of_voters([1]);
        disk.submit(0, 1, log.begin(&State::default(), &conf));
        disk.crash();
        if let Some(found) = DiskLog::open(&disk).unwrap() {
            assert_eq!(found.log.initial_state().unwrap().1, conf);
        }
    }
}

#[test]
fn what_was_appended_comes_back_and_an_overlap_replaces() {
    let (mut disk, mut log) = started(1);
    append(&mut disk, &mut log, 1, 1..=5);
    append(&mut disk, &mut log, 2, 4..=6);
    disk.crash();
    let found = DiskLog::open(&disk).unwrap().unwrap();
    assert!(!found.torn);
    let terms: Vec<u64> = (1..=6).map(|index| found.log.term(index).unwrap()).collect();
    assert_eq!(terms, [1, 1, 1, 2, 2, 2]);
    assert_eq!(found.log.hard_state(), hard_state(2, 3));
}

#[test]
fn after_any_crash_the_durable_part_is_there_and_the_end_is_cut() {
    let mut torn = 0;
    for seed in 0..300 {
        let (mut disk, mut log) = started(seed);
        append(&mut disk, &mut log, 1, 1..=5);
        for index in 6..12 {
            log.append(None, vec![entry(index, 1)]);
            disk.submit(0, index, log.flush());
        }
        disk.crash();
        let found = DiskLog::open(&disk).unwrap().unwrap();
        assert!((5..=11).contains(&found.log.last_index()));
        torn += u64::from(found.torn);
        // What was cut off does not come back.
        let mut log = found.log;
        let next = log.last_index() + 1;
        append(&mut disk, &mut log, 2, next..=next);
        disk.crash();
        let found = DiskLog::open(&disk).unwrap().unwrap();
        assert_eq!((found.log.last_index(), found.log.term(next)), (next, Ok(2)));
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn a_checkpoint_forgets_a_prefix_and_a_crash_within_it_forgets_nothing_else() {
    for seed in 0..200 {
        let (mut disk, mut log) = started(seed);
        append(&mut disk, &mut log, 1, 1..=10);
        let conf = ConfState::of_voters([1, 2]);
        disk.submit(0, 1, log.checkpoint(&applied(8, 1), &conf, 6));
        log.append(None, vec![entry(11, 1)]);
        disk.submit(0, 2, log.flush());
        disk.crash();
        let found = DiskLog::open(&disk).unwrap().unwrap();
        let log = &found.log;
        match found.state.applied {
            0 => assert_eq!((log.first_index(), log.last_index()), (1, 10)),
            8 => {
                assert_eq!(log.first_index(), 7);
                assert!((10..=11).contains(&log.last_index()));
                assert_eq!((log.term(6), log.hard_state().commit), (Ok(1), 8));
                assert_eq!(log.initial_state().unwrap().1, conf);
                assert_eq!(log.snapshot(1, 2).unwrap().meta.index, 8);
            }
            other => panic!("nobody has applied {other}"),
        }
    }
}

#[test]
fn a_snapshot_replaces_log_and_state() {
    let (mut disk, mut log) = started(1);
    append(&mut disk, &mut log, 1, 1..=3);
    let state = applied(20, 4);
    let conf = ConfState::of_voters([7]);
    let meta = SnapshotMeta { index: 20, term: 4, conf: conf.clone() };
    let snapshot = Snapshot { meta, data: state.encode() };
    perform(&mut disk, log.install(&snapshot, Some(hard_state(5, 20))));
    log.synced(log.position());
    append(&mut disk, &mut log, 5, 21..=21);
    disk.crash();
    let found = DiskLog::open(&disk).unwrap().unwrap();
    assert_eq!((found.log.first_index(), found.log.last_index()), (21, 21));
    assert_eq!((found.state, found.log.initial_state().unwrap().1), (state, conf));
}

#[test]
fn every_flipped_bit_of_vouched_bytes_is_noticed() {
    let (mut disk, mut log) = started(1);
    append(&mut disk, &mut log, 1, 1..=2);
    append(&mut disk, &mut log, 1, 3..=4);
    append(&mut disk, &mut log, 1, 5..=5);
    let (file, bytes) = DiskLog::vouched(&disk).unwrap();
    let whole = disk.read(&file).unwrap().len() as u64;
    assert!(whole / 2 < bytes && bytes < whole, "all but the last group: {bytes} of {whole}");
    for bit in 0..bytes * 8 {
        disk.flip_bit(&file, bit);
        assert!(DiskLog::open(&disk).is_err(), "bit {bit}");
        disk.flip_bit(&file, bit);
    }
    assert!(DiskLog::open(&disk).is_ok());
    disk.flip_bit(CURRENT, 100);
    assert!(DiskLog::open(&disk).is_err());
}
