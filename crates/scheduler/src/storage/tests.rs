//! Tests of log and snapshot: bytes, torn ends, damage, the switch from one log to the next, failures.
//!
//! `tests/crash.rs` crashes the whole of core and storage many thousand times; here each rule has its own test.

use runtime::{Rng, sim::SimFs};
use types::{ApiMode, ClusterId};

use super::*;

const CREATED: Record = Record::Created { cluster_id: ClusterId(7), api_mode: ApiMode::V1 };

fn dir() -> &'static Path {
    Path::new("/s")
}

fn log_path() -> PathBuf {
    dir().join("LOG-1")
}

fn disk() -> (SimFs, Arc<dyn Fs>) {
    let fs = SimFs::new();
    fs.create_dir_all(dir()).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    (fs.clone(), Arc::new(fs))
}

fn create(fs: &Arc<dyn Fs>) -> Storage {
    Storage::create(Arc::clone(fs), dir(), &[CREATED], LogPosition(1), 10_000).unwrap()
}

fn open(fs: &Arc<dyn Fs>) -> Result<Recovered> {
    Storage::open(Arc::clone(fs), dir(), 10_000)
}

/// Windows of ids up to these ends.
fn records(ends: impl IntoIterator<Item = u64>) -> Vec<Record> {
    ends.into_iter().map(|end| Record::IdWindow { end }).collect()
}

fn append(storage: &mut Storage, ends: impl IntoIterator<Item = u64>) -> Result<()> {
    let mut batch = Batch::new(storage.position);
    records(ends).iter().for_each(|record| batch.push(record));
    storage.append(batch)
}

/// A log of three batches with records 2; 3, 4; 5.
fn three_batches() -> (SimFs, Arc<dyn Fs>, Vec<u64>) {
    let (sim, fs) = disk();
    let mut storage = create(&fs);
    let mut ends = vec![storage.len];
    for batch in [2..=2, 3..=4, 5..=5] {
        append(&mut storage, batch).unwrap();
        ends.push(storage.len);
    }
    (sim, fs, ends)
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn files_have_their_golden_bytes() {
    let (_, fs) = disk();
    let mut storage = create(&fs);
    append(&mut storage, [2, 3]).unwrap();
    let hex = |name: &str| {
        let bytes = fs.read(&dir().join(name)).unwrap().unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    // Length, checksum, version; kind, sequence, position, count; then each record with its length.
    let snapshot = "00000028 6e891990 01  01 0000000000000001 0000000000000001 0000000000000001 \
                    0000000a 01 0000000000000007 00";
    let header = "00000012 41fc942f 01  02 0000000000000001 0000000000000001";
    let batch = "00000028 02106f95 01  03 0000000000000001 00000002 \
                 00000009 07 0000000000000002 00000009 07 0000000000000003";
    assert_eq!(hex("SNAPSHOT"), snapshot.replace(' ', ""));
    assert_eq!(hex("LOG-1"), [header, batch].concat().replace(' ', ""));
}

#[test]
fn what_was_appended_is_there_after_a_crash() {
    let (sim, _, _) = three_batches();
    for seed in 0..100 {
        let fs: Arc<dyn Fs> = Arc::new(sim.crash(&mut Rng::new(seed)));
        let Recovered { records: found, position, cut, mut storage } = open(&fs).unwrap();
        assert_eq!(found, [vec![CREATED], records(2..=5)].concat());
        assert_eq!((position, cut), (LogPosition(5), 0));
        append(&mut storage, [6]).unwrap();
        assert_eq!(open(&fs).unwrap().position, LogPosition(6));
    }
}

#[test]
fn a_torn_batch_at_the_end_is_cut_off_wherever_it_is_torn() {
    let (sim, _, ends) = three_batches();
    let whole = sim.read(&log_path()).unwrap().unwrap();
    for len in ends[2]..ends[3] {
        let sim = sim.crash(&mut Rng::new(0));
        let torn = sim.open(&log_path()).unwrap();
        torn.set_len(len).unwrap();
        // What was lost may also read as zeros.
        torn.set_len(if len % 2 == 0 { len } else { whole.len() as u64 }).unwrap();
        let file_len = torn.len().unwrap();
        let fs: Arc<dyn Fs> = Arc::new(sim);
        let mut recovered = open(&fs).unwrap();
        assert_eq!((recovered.position, recovered.cut), (LogPosition(4), file_len - ends[2]));
        append(&mut recovered.storage, [50]).unwrap();
        let again = open(&fs).unwrap();
        assert_eq!(again.records, [vec![CREATED], records([2, 3, 4, 50])].concat());
        assert_eq!(again.cut, 0);
    }
}

#[test]
fn a_cut_is_durable_before_anything_is_appended() {
    // Else a crash could bring the torn bytes back behind the batches that were appended since.
    let (sim, fs, _) = three_batches();
    fs.open(&log_path())
        .unwrap()
        .write_all_at(&[0xee; 3000], sim.read(&log_path()).unwrap().unwrap().len() as u64)
        .unwrap();
    let recovered = open(&fs).unwrap();
    assert_eq!(recovered.cut, 3000);
    for seed in 0..100 {
        let after: Arc<dyn Fs> = Arc::new(sim.crash(&mut Rng::new(seed)));
        assert_eq!(open(&after).unwrap().cut, 0);
    }
}

#[test]
fn what_a_start_has_read_survives_the_next_crash() {
    // A process that is killed before its sync leaves bytes in the kernel. The next start answers by them.
    let (sim, fs, _) = three_batches();
    let mut storage = open(&fs).unwrap().storage;
    sim.fail_sync(0);
    append(&mut storage, [6]).unwrap_err();
    assert!(matches!(append(&mut storage, [6]), Err(Error::Poisoned { .. })));

    let (sim, fs, _) = three_batches();
    let batch = {
        let mut batch = Batch::new(LogPosition(5));
        batch.push(&Record::IdWindow { end: 6 });
        batch.encode()
    };
    let len = sim.read(&log_path()).unwrap().unwrap().len() as u64;
    sim.open(&log_path()).unwrap().write_all_at(&batch, len).unwrap();
    assert_eq!(open(&fs).unwrap().position, LogPosition(6));
    for seed in 0..100 {
        let after: Arc<dyn Fs> = Arc::new(sim.crash(&mut Rng::new(seed)));
        assert_eq!(open(&after).unwrap().position, LogPosition(6));
    }
}

#[test]
fn damage_before_the_last_batch_is_refused_with_file_and_offset() {
    let (sim, _, ends) = three_batches();
    for bit in 0..ends[2] as usize * 8 {
        let sim = sim.crash(&mut Rng::new(0));
        sim.flip_bit(&log_path(), bit).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(sim);
        let refused = message(open(&fs));
        let offset = ends.iter().rfind(|&&end| end as usize * 8 <= bit).copied().unwrap_or(0);
        let expected = format!("/s/LOG-1 is damaged: at offset {offset}: ");
        assert!(refused.starts_with(&expected), "bit {bit}: {refused}");
        assert_eq!(sim_len(&fs), ends[3], "nothing is touched");
    }
}

fn sim_len(fs: &Arc<dyn Fs>) -> u64 {
    fs.open(&log_path()).unwrap().len().unwrap()
}

#[test]
fn damage_to_the_snapshot_is_refused() {
    let (sim, _, _) = three_batches();
    let path = dir().join("SNAPSHOT");
    let len = sim.read(&path).unwrap().unwrap().len();
    for bit in 0..len * 8 {
        let sim = sim.crash(&mut Rng::new(0));
        sim.flip_bit(&path, bit).unwrap();
        let refused = message(open(&(Arc::new(sim) as Arc<dyn Fs>)));
        assert!(refused.starts_with("/s/SNAPSHOT is damaged: at offset 0: "), "{refused}");
    }
}

#[test]
fn a_missing_file_is_damage_and_not_a_new_member() {
    for name in ["SNAPSHOT", "LOG-1"] {
        let (_, fs, _) = three_batches();
        fs.remove(&dir().join(name)).unwrap();
        assert_eq!(message(open(&fs)), format!("/s/{name} is damaged: the file is missing"));
    }
}

#[test]
fn a_log_of_another_snapshot_is_refused() {
    let (_, fs, _) = three_batches();
    let mut storage = open(&fs).unwrap().storage;
    let old_log = fs.read(&log_path()).unwrap().unwrap();
    storage.put_snapshot(&[CREATED], LogPosition(5)).unwrap();
    fs.replace(&dir().join("LOG-2"), &old_log).unwrap();
    let refused = message(open(&fs));
    assert!(
        refused.contains("/s/LOG-2") && refused.contains("the log that SNAPSHOT names"),
        "{refused}"
    );
}

#[test]
fn a_snapshot_replaces_the_log_and_stands_for_what_was_not_appended() {
    let (_, fs, _) = three_batches();
    let mut storage = open(&fs).unwrap().storage;
    storage.put_snapshot(&[vec![CREATED], records([9])].concat(), LogPosition(9)).unwrap();
    append(&mut storage, [10]).unwrap();
    let names: Vec<_> = fs.list(dir()).unwrap();
    assert_eq!(names, [dir().join("LOG-2"), dir().join("SNAPSHOT")]);
    let recovered = open(&fs).unwrap();
    assert_eq!(recovered.records, [vec![CREATED], records([9, 10])].concat());
    assert_eq!(recovered.position, LogPosition(10));
}

#[test]
fn a_snapshot_is_wanted_when_the_log_is_longer_than_it_and_than_the_bound() {
    let (_, fs) = disk();
    let mut storage =
        Storage::create(Arc::clone(&fs), dir(), &[CREATED], LogPosition(1), 1000).unwrap();
    let mut end = 2;
    while !storage.needs_snapshot() {
        append(&mut storage, [end]).unwrap();
        end += 1;
    }
    assert!(storage.len > 1000);
    let large = [vec![CREATED], records(2..1000)].concat();
    storage.put_snapshot(&large, LogPosition(1000)).unwrap();
    while !storage.needs_snapshot() {
        append(&mut storage, [end]).unwrap();
        end += 1;
    }
    assert!(storage.len > storage.snapshot_len && storage.snapshot_len > 1000);
}

#[test]
fn the_switch_to_a_new_log_is_one_step_at_every_operation() {
    let mut rng = Rng::new(9);
    let mut seen = [0, 0];
    for operations in 0.. {
        let (sim, fs, _) = three_batches();
        let mut storage = open(&fs).unwrap().storage;
        sim.cut_power_after(operations);
        let done =
            storage.put_snapshot(&[vec![CREATED], records([6])].concat(), LogPosition(6)).is_ok();
        // Removing the old log comes last and is not needed.
        let whole = sim.operations();
        for _ in 0..30 {
            let fs: Arc<dyn Fs> = Arc::new(sim.crash(&mut rng));
            let mut recovered = open(&fs).unwrap();
            let is_new = recovered.records == [vec![CREATED], records([6])].concat();
            assert!(is_new || recovered.records == [vec![CREATED], records(2..=5)].concat());
            assert!(is_new || !done, "it was done, and is lost");
            seen[usize::from(is_new)] += 1;
            append(&mut recovered.storage, [100]).unwrap();
            let again = open(&fs).unwrap();
            assert_eq!(again.records.last(), Some(&Record::IdWindow { end: 100 }));
            assert_eq!(fs.list(dir()).unwrap().len(), 2, "leftovers are removed");
        }
        if done && sim.operations() == whole && operations > 20 {
            break;
        }
    }
    assert!(seen.iter().all(|&count| count > 50), "both must occur: {seen:?}");
}

#[test]
fn every_failure_poisons() {
    for failing in 0..4 {
        let (sim, fs, _) = three_batches();
        let mut storage = open(&fs).unwrap().storage;
        sim.fail_sync(failing);
        let failed = storage.put_snapshot(&[CREATED], LogPosition(5)).unwrap_err();
        assert!(matches!(failed, Error::Io { .. }), "{failed}");
        assert!(matches!(append(&mut storage, [6]), Err(Error::Poisoned { .. })));
        assert!(matches!(
            storage.put_snapshot(&[CREATED], LogPosition(5)),
            Err(Error::Poisoned { .. })
        ));
    }
    let (sim, fs, ends) = three_batches();
    let mut storage = open(&fs).unwrap().storage;
    sim.set_capacity(Some(sim_len(&fs) + 100));
    let failed = append(&mut storage, 6..100).unwrap_err();
    assert!(failed.to_string().contains("write failed for /s/LOG-1"), "{failed}");
    drop(storage);
    sim.set_capacity(None);
    assert_eq!(open(&fs).unwrap().position, LogPosition(5), "half a batch is a torn one");
    assert_eq!(sim_len(&fs), ends[3]);
}

#[test]
fn records_that_look_like_batches_do_no_harm() {
    // A service may be called what it likes, for instance like a batch. In a torn batch that looks as if the log went
    // on; refusing to start would be the worst that follows, and a batch of the past or the present is not even that.
    for position in [2, 5] {
        let (_, fs, ends) = three_batches();
        let mut storage = open(&fs).unwrap().storage;
        let mut inner = Batch::new(LogPosition(position));
        inner.push(&Record::IdWindow { end: 9 });
        let mut batch = Batch::new(LogPosition(5));
        let service = inner.encode().into();
        batch.push(&Record::ServiceSafePointPut {
            service,
            safe_point: types::TimeStamp(1),
            expires_at: 1,
        });
        storage.append(batch).unwrap();
        let torn = fs.open(&log_path()).unwrap();
        torn.set_len(torn.len().unwrap() - 1).unwrap();
        assert_eq!(open(&fs).unwrap().position, LogPosition(5));
        assert_eq!(sim_len(&fs), ends[3]);
    }
}
