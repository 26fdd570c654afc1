//! Everything at once, against a map per family.

use std::{collections::BTreeMap, sync::Arc};

use runtime::Rng;
use types::KeyRange;

use super::{Subject, pairs};
use crate::{Engine, Family, Snapshot, WriteBatch};

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 4];

/// Thousands of random changes in batches, delete-ranges, flushes and restarts; snapshots are compared with the
/// model as it was when they were taken, at once and again later.
pub fn equals_a_map(subject: &dyn Subject) {
    for seed in 0..2 {
        let mut rng = Rng::new(seed);
        let mut engine = subject.open();
        let mut model = Model::default();
        for family in Family::ALL {
            engine.delete_range(family, &KeyRange::all()).unwrap();
        }
        let mut snapshots: Vec<(Arc<dyn Snapshot>, Model)> = Vec::new();
        for step in 0..600 {
            match rng.range(0..100) {
                0..80 => change(&*engine, &mut model, &mut rng),
                80..88 => {
                    let family = Family::ALL[rng.range(0..4) as usize];
                    let range = random_range(&mut rng);
                    engine.delete_range(family, &range).unwrap();
                    model[family as usize].retain(|key, _| !range.contains(key));
                }
                88..94 => snapshots.push((engine.snapshot().unwrap(), model.clone())),
                94..96 => engine.sync().unwrap(),
                96 => engine.flush().unwrap(),
                97 => {
                    snapshots.clear();
                    drop(engine);
                    engine = subject.open();
                }
                _ => compare(
                    &*engine.snapshot().unwrap(),
                    &model,
                    &mut rng,
                    &format!("seed {seed}, step {step}"),
                ),
            }
            if snapshots.len() == 8 {
                for (snapshot, model) in snapshots.drain(..) {
                    compare(
                        &*snapshot,
                        &model,
                        &mut rng,
                        &format!("seed {seed}, step {step}, an older snapshot"),
                    );
                }
            }
        }
        compare(&*engine.snapshot().unwrap(), &model, &mut rng, &format!("seed {seed}, the end"));
    }
}

fn change(engine: &dyn Engine, model: &mut Model, rng: &mut Rng) {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.range(1..20) {
        let family = Family::ALL[rng.range(0..4) as usize];
        let key = random_key(rng);
        if rng.chance(0.75) {
            let mut value =
                vec![0; if rng.chance(0.05) { 10_000 } else { rng.range(0..40) as usize }];
            rng.fill(&mut value);
            batch.put(family, key.clone(), value.clone());
            model[family as usize].insert(key, value);
        } else {
            batch.delete(family, key.clone());
            model[family as usize].remove(&key);
        }
    }
    engine.write(batch).unwrap();
}

fn compare(snapshot: &dyn Snapshot, model: &Model, rng: &mut Rng, when: &str) {
    for family in Family::ALL {
        let expected = &model[family as usize];
        let found = pairs(snapshot, family);
        assert!(found.iter().map(|(k, v)| (k, v)).eq(expected), "{when}: {family:?} forward");
        let mut iter = snapshot.iter(family, &KeyRange::all()).unwrap();
        let mut more = iter.seek_to_last().unwrap();
        for (key, value) in expected.iter().rev() {
            assert!(
                more && iter.key() == key && iter.value() == value,
                "{when}: {family:?} backward at {key:?}"
            );
            more = iter.prev().unwrap();
        }
        assert!(!more, "{when}: {family:?} backward");
        for _ in 0..20 {
            let key = random_key(rng);
            // Twice: the first answer may enter a cache, from which the second one comes.
            for _ in 0..2 {
                let found = snapshot.get(family, &key).unwrap();
                assert_eq!(
                    found.as_deref(),
                    expected.get(&key).map(|v| &v[..]),
                    "{when}: {family:?} {key:?}"
                );
            }
        }
    }
}

fn random_key(rng: &mut Rng) -> Vec<u8> {
    (0..rng.range(1..5)).map(|_| b"\x00\x01abz\xfe\xff"[rng.range(0..7) as usize]).collect()
}

fn random_range(rng: &mut Rng) -> KeyRange {
    match rng.range(0..10) {
        0 => KeyRange::new(random_key(rng), ""),
        1 => KeyRange::new("", random_key(rng)),
        _ => KeyRange::new(random_key(rng), random_key(rng)),
    }
}
