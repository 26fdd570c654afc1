//! Disks that fail, fill up, or have been tampered with.

use std::path::PathBuf;

use engine::raft_log::{Error, LogBatch, Maintenance, Options, RaftLog, RaftLogWriter, Ticket};
use runtime::{Fs, Rng, sim::SimFs};
use types::Bytes;

use crate::model::{Model, dir, entries, open, small};

fn append(log: &RaftLog, index: u64) -> Result<Ticket, Error> {
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, index, &["0123456789012345678901234567890123456789"]));
    log.append(batch)
}

/// A log with several segments; the first ones are finished.
fn filled(fs: &SimFs) -> (RaftLog, RaftLogWriter) {
    let (log, mut writer) = open(fs, &small()).unwrap();
    for index in 1..=60 {
        append(&log, index).unwrap();
        writer.sync().unwrap();
        while writer.maintain(1 << 20).unwrap().more {}
    }
    assert!(3 < log.statistics().segments);
    (log, writer)
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    let mut files = fs.list(dir()).unwrap();
    files.retain(|path| path.extension().unwrap() == "log");
    files
}

fn is_poisoned<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Failed(engine::Error::Poisoned { .. })))
}

#[test]
fn nothing_is_durable_after_a_failed_sync_and_everything_is_refused() {
    for failing in 0..3 {
        let fs = SimFs::new();
        let (log, mut writer) = open(&fs, &small()).unwrap();
        for index in 1..=3 {
            append(&log, index).unwrap();
            writer.sync().unwrap();
        }
        // The third one comes when the segment changes.
        fs.fail_sync(failing);
        let mut index = 3;
        let failure = loop {
            index += 1;
            append(&log, index).unwrap();
            if let Err(error) = writer.sync() {
                break error;
            }
        };
        assert!(failure.to_string().contains("sync of the raft log"), "{failure}");
        let durable = log.durable();
        assert_eq!(durable, Ticket(index - 1));
        // Syncs succeed again, and prove nothing.
        assert!(is_poisoned(append(&log, index + 1)));
        assert!(is_poisoned(writer.sync()));
        assert!(is_poisoned(writer.maintain(1000)));
        assert!(is_poisoned(log.entries(1, 1, 2, 0)));
        assert_eq!(log.durable(), durable);

        // What the failed sync should have covered may be there or not; a start makes certain what it finds.
        for seed in 0..20 {
            let fs = fs.crash(&mut Rng::new(seed));
            let (log, _writer) = open(&fs, &small()).unwrap();
            let last = log.bounds(1).unwrap().last_index;
            assert!(last == index || last == index - 1, "{last}");
            let again = open(&fs.crash(&mut Rng::new(seed)), &small()).unwrap().0;
            assert_eq!(again.bounds(1).unwrap().last_index, last);
        }
    }
}

#[test]
fn a_start_after_a_failed_sync_makes_certain_what_it_finds() {
    // Syncs of the group, of the folder of a new segment, and of its first group.
    for failing in 0..4 {
        let fs = SimFs::new();
        let (log, mut writer) = open(&fs, &small()).unwrap();
        append_long(&log, 1).unwrap();
        writer.sync().unwrap();
        fs.fail_sync(failing);
        let mut index = 1;
        loop {
            index += 1;
            append_long(&log, index).unwrap();
            if writer.sync().is_err() {
                break;
            }
        }
        drop((log, writer));
        // The process starts again on the same machine: what it finds is in its memory, but no sync will write it.
        let (log, mut writer) = open(&fs, &small()).unwrap();
        let last = log.bounds(1).unwrap().last_index;
        assert!(last == index || last == index - 1, "{last}");
        append_long(&log, last + 1).unwrap();
        writer.sync().unwrap();
        for seed in 0..50 {
            let (log, _writer) = open(&fs.crash(&mut Rng::new(seed)), &small()).unwrap();
            assert_eq!(log.bounds(1).unwrap().last_index, last + 1);
        }
    }
}

/// Groups that have sectors of their own.
fn append_long(log: &RaftLog, index: u64) -> Result<Ticket, Error> {
    let mut batch = LogBatch::new();
    batch.append(1, entries(1, index, &[&"x".repeat(700)]));
    log.append(batch)
}

#[test]
fn a_torn_end_is_overwritten() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    append_long(&log, 1).unwrap();
    writer.sync().unwrap();
    let path = &segments(&fs)[0];
    let end = fs.open(path).unwrap().len().unwrap() as usize;
    append_long(&log, 2).unwrap();
    writer.sync().unwrap();
    drop((log, writer));
    let len = fs.open(path).unwrap().len().unwrap() as usize;
    fs.flip_bit(path, 8 * (len - 1)).unwrap();
    open(&fs, &small()).unwrap();
    let bytes = fs.read(path).unwrap().unwrap();
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
    // Also if the damage is gone again.
    fs.flip_bit(path, 8 * (len - 1)).unwrap();
    assert_eq!(open(&fs, &small()).unwrap().0.bounds(1).unwrap().last_index, 1);
}

#[test]
fn a_failure_of_housekeeping_stops_the_log_too() {
    let fs = SimFs::new();
    let (log, mut writer) = filled(&fs);
    let mut batch = LogBatch::new();
    batch.compact_to(1, 60);
    log.append(batch).unwrap();
    writer.sync().unwrap();
    fs.fail_sync(0);
    writer.maintain(1 << 20).unwrap_err();
    assert!(is_poisoned(append(&log, 61)));
}

#[test]
fn a_full_disk_only_means_that_no_segment_is_prepared() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    // The first segment is grown by its groups.
    for index in 1..=8 {
        append(&log, index).unwrap();
        writer.sync().unwrap();
    }
    let used = fs.open(&segments(&fs)[0]).unwrap().len().unwrap();
    assert!(1024 <= used);
    fs.set_capacity(Some(used + 500));
    assert!(writer.maintain(300).unwrap().more, "a part of it fits");
    let Maintenance { more, .. } = writer.maintain(300).unwrap();
    assert!(!more, "it is not tried again and again");
    assert_eq!(log.statistics().spares, 0);
    assert_eq!(fs.list(dir()).unwrap().len(), 1);

    fs.set_capacity(None);
    for index in 9..=50 {
        append(&log, index).unwrap();
        writer.sync().unwrap();
        while writer.maintain(1 << 20).unwrap().more {}
    }
    assert!(0 < log.statistics().spares_used, "it is tried again for the next segment");
}

#[test]
fn a_full_disk_may_cost_a_footer() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    let mut index = 0;
    while log.statistics().segments < 2 {
        index += 1;
        append(&log, index).unwrap();
        writer.sync().unwrap();
    }
    let len = |path: &PathBuf| fs.open(path).unwrap().len().unwrap();
    let used: u64 = segments(&fs).iter().map(len).sum();
    fs.set_capacity(Some(used + 10));
    writer.maintain(1000).unwrap();
    fs.set_capacity(None);
    index += 1;
    append(&log, index).unwrap();
    writer.sync().unwrap();
    let before = Model::of(&log).unwrap();
    drop((log, writer));
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
}

#[test]
fn a_disk_that_fills_up_under_a_group_stops_the_log_and_loses_nothing() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    append(&log, 1).unwrap();
    writer.sync().unwrap();
    fs.set_capacity(Some(fs.open(&segments(&fs)[0]).unwrap().len().unwrap() + 20));
    append(&log, 2).unwrap();
    writer.sync().unwrap_err();
    assert!(is_poisoned(append(&log, 3)));
    drop((log, writer));
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(log.bounds(1).unwrap().last_index, 1, "a start needs no room");
}

#[test]
fn a_missing_segment_is_noticed() {
    let fs = SimFs::new();
    drop(filled(&fs));
    let segments = segments(&fs);
    // The last one is missed too, since the one before has its footer.
    for missing in &segments {
        let fs = fs.crash(&mut Rng::new(0));
        fs.remove(missing).unwrap();
        let refused = open(&fs, &small()).unwrap_err().to_string();
        let position = segments.iter().position(|path| path == missing).unwrap();
        let expected = match position.checked_sub(1) {
            None => format!("/raft is damaged: groups 1 to {} of the raft log are missing", {
                let next = segments[1].file_stem().unwrap().to_str().unwrap();
                next.parse::<u64>().unwrap() - 1
            }),
            Some(before) => format!("{} is damaged: at offset ", segments[before].display()),
        };
        assert!(refused.starts_with(&expected), "{refused}");
    }
}

#[test]
fn the_first_segment_is_missed_also_if_nothing_else_tells() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    // This region is mentioned in the first segment only; of the other one nothing is left.
    let mut batch = LogBatch::new();
    batch.put_state(5, Bytes::from_static(b"vote"));
    log.append(batch).unwrap();
    for _ in 0..40 {
        let mut batch = LogBatch::new();
        batch.append(1, entries(1, 1, &["a", "b"])).remove(1);
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    drop((log, writer));
    let segments = segments(&fs);
    assert!(1 < segments.len());
    fs.remove(&segments[0]).unwrap();
    let refused = open(&fs, &small()).unwrap_err().to_string();
    assert!(refused.contains("are missing"), "{refused}");
}

#[test]
fn a_footer_that_is_gone_is_not_needed() {
    let fs = SimFs::new();
    let (log, writer) = filled(&fs);
    let before = Model::of(&log).unwrap();
    drop((log, writer));
    for path in segments(&fs) {
        let file = fs.open(&path).unwrap();
        let len = file.len().unwrap();
        file.write_all_at(&[0; 48], len - 48).unwrap();
    }
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    append(&log, 1).unwrap();
    writer.sync().unwrap();
    drop((log, writer));
    let path = &segments(&fs)[0];
    let mut frame = fs.read(path).unwrap().unwrap();
    frame[3] = 2;
    let crc = crc32c::crc32c(&frame[..44]);
    frame[44..48].copy_from_slice(&crc.to_be_bytes());
    fs.open(path).unwrap().write_all_at(&frame, 0).unwrap();
    let refused = open(&fs, &small()).unwrap_err();
    assert!(
        matches!(refused, Error::Failed(engine::Error::NewerFormat { found: 2, known: 1, .. })),
        "{refused}"
    );
}

#[test]
fn damage_that_a_read_finds_names_the_entry_and_stops_the_log() {
    let fs = SimFs::new();
    drop(filled(&fs));
    let path = segments(&fs)[0].clone();
    let bytes = fs.read(&path).unwrap().unwrap();
    let data = b"0123456789012345678901234567890123456789";
    let at = bytes.windows(data.len()).position(|window| window == data).unwrap();
    fs.flip_bit(&path, at * 8 + 3).unwrap();
    let (log, _writer) = open(&fs, &small()).unwrap();
    let damaged = log.entries(1, 1, 2, 0).unwrap_err().to_string();
    let offset = at - 1;
    assert_eq!(
        damaged,
        format!(
            "{} is damaged: at offset {offset}: entry 1 of region 1 does not match its checksum",
            path.display()
        )
    );
    assert!(is_poisoned(append(&log, 61)));
}

#[test]
fn files_of_others_are_left_alone() {
    let fs = SimFs::new();
    drop(filled(&fs));
    let note = dir().join("note.txt");
    fs.open(&note).unwrap();
    let (log, mut writer) = open(&fs, &small()).unwrap();
    append(&log, 61).unwrap();
    writer.sync().unwrap();
    assert!(fs.exists(&note).unwrap());
}

#[test]
fn other_settings_take_an_existing_log() {
    let fs = SimFs::new();
    let (log, writer) = filled(&fs);
    let before = Model::of(&log).unwrap();
    drop((log, writer));
    for segment_bytes in [1024, 100_000, 2048] {
        let options = Options { segment_bytes, ..small() };
        let (log, mut writer) = open(&fs, &options).unwrap();
        assert_eq!(Model::of(&log).unwrap(), before);
        for id in 2..20 {
            let mut batch = LogBatch::new();
            batch.append(id, entries(1, 1, &["abc"])).remove(id);
            log.append(batch).unwrap();
            writer.sync().unwrap();
            while writer.maintain(10_000).unwrap().more {}
        }
    }
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), before);
}
