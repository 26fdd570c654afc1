//! What the memory engine models: crashes and failures. Seeded; the same seeds give the same runs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, io, sync::Arc};

use engine::{Engine, Error, Family, MemoryEngine, Op, WriteBatch, contract::disk};
use runtime::Rng;
use types::{ErrorClass, KeyRange};

type Model = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

fn random_batch(rng: &mut Rng) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.range(1..6) {
        let family = Family::ALL[rng.range(0..4) as usize];
        let key = vec![rng.range(0..40) as u8];
        if rng.chance(0.7) {
            batch.put(family, key, rng.u64().to_be_bytes().to_vec());
        } else {
            batch.delete(family, key);
        }
    }
    batch
}

fn apply(model: &mut Model, batch: &WriteBatch) {
    for op in batch.ops() {
        match op {
            Op::Put(family, key, value) => {
                drop(model.insert((*family, key.to_vec()), value.to_vec()))
            }
            Op::Delete(family, key) => drop(model.remove(&(*family, key.to_vec()))),
        }
    }
}

fn contents(engine: &MemoryEngine) -> Model {
    let snapshot = engine.snapshot().unwrap();
    let mut out = Model::new();
    for family in Family::ALL {
        let mut iter = snapshot.iter(family, &KeyRange::all()).unwrap();
        let mut more = iter.seek_to_first().unwrap();
        while more {
            out.insert((family, iter.key().to_vec()), iter.value().to_vec());
            more = iter.next().unwrap();
        }
    }
    out
}

/// After any number of crashes the engine holds a prefix of what was written since the one before, with everything
/// that was synced or flushed; every such prefix comes up.
#[test]
fn a_crash_keeps_a_prefix_with_everything_synced() {
    let mut kept = [0_u32; 3];
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut engine = MemoryEngine::with_journal();
        // The states after each batch since the last sync; the first of them is durable.
        let mut states = vec![Model::new()];
        for _ in 0..120 {
            match rng.range(0..12) {
                0 => {
                    engine.sync().unwrap();
                    states.drain(..states.len() - 1);
                }
                1 if rng.chance(0.3) => {
                    engine.flush().unwrap();
                    states.drain(..states.len() - 1);
                }
                2 => {
                    let before = contents(&engine);
                    let found = engine.crash(&mut rng);
                    assert_eq!(
                        contents(&engine),
                        before,
                        "the crashed engine itself stays as it is"
                    );
                    let state = contents(&found);
                    let place = states.iter().rposition(|known| *known == state);
                    let place = place
                        .unwrap_or_else(|| panic!("seed {seed}: no prefix of what was written"));
                    kept[if place == states.len() - 1 { 2 } else { usize::from(0 < place) }] += 1;
                    assert_eq!(found.unsynced(), 0, "what is found after a crash is durable");
                    (engine, states) = (found, vec![state]);
                }
                _ => {
                    let batch = random_batch(&mut rng);
                    let mut state = states.last().unwrap().clone();
                    apply(&mut state, &batch);
                    engine.write(batch).unwrap();
                    states.push(state);
                }
            }
        }
        assert_eq!(&contents(&engine), states.last().unwrap());
    }
    assert!(kept.iter().all(|n| 200 < *n), "nothing, a part and everything kept: {kept:?}");
}

/// The same calls and the same seed leave the same engine.
#[test]
fn crashes_are_reproducible() {
    let run = |seed| {
        let mut rng = Rng::new(seed);
        let engine = MemoryEngine::with_journal();
        (0..50).for_each(|_| engine.write(random_batch(&mut rng)).unwrap());
        contents(&engine.crash(&mut rng))
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_failed_sync_is_final() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let engine = MemoryEngine::with_journal();
        disk::write_numbered(&engine, 0).unwrap();
        engine.sync().unwrap();
        disk::write_numbered(&engine, 1).unwrap();
        engine.fail_next_sync(kind);
        let old = engine.snapshot().unwrap();
        let error = engine.sync().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
        disk::is_poisoned(&engine);
        assert!(matches!(old.get(Family::Default, b"k"), Err(Error::Poisoned { .. })));
        let counts: Vec<u32> = (0..20)
            .map(|seed| disk::count_numbered(&engine.crash(&mut Rng::new(seed))).unwrap())
            .collect();
        assert!(
            counts.contains(&1) && counts.contains(&2),
            "the batch may be lost or not: {counts:?}"
        );
    }
}

#[test]
fn a_failed_write_is_final_and_leaves_nothing() {
    let engine = MemoryEngine::with_journal();
    disk::write_numbered(&engine, 0).unwrap();
    engine.fail_next_write(io::ErrorKind::Other);
    assert!(matches!(disk::write_numbered(&engine, 1), Err(Error::Io { .. })));
    disk::is_poisoned(&engine);
    assert!(
        (0..20).all(|seed| disk::count_numbered(&engine.crash(&mut Rng::new(seed))).unwrap() <= 1)
    );
}

#[test]
fn a_damaged_read_is_final() {
    let engine: Arc<MemoryEngine> = Arc::new(MemoryEngine::new());
    disk::write_numbered(&*engine, 0).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let mut iter = snapshot.iter(Family::Default, &KeyRange::all()).unwrap();
    assert!(iter.seek_to_first().unwrap());
    engine.corrupt_next_read();
    assert!(
        matches!(iter.next(), Err(Error::Corrupt { .. })),
        "an error, not the end of the range"
    );
    assert!(!iter.valid());
    disk::is_poisoned(&*engine);
    assert!(matches!(snapshot.get(Family::Default, b"k"), Err(Error::Poisoned { .. })));
}
