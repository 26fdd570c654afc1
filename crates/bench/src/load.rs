//! The data set gets into the target before reads are measured.
//!
//! A sample of keys says whether it is there already: a second run against the same store need not write again. The
//! sample's values must verify and have the wanted length. If one is missing, everything is written, in batches.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    error::Error,
    keys::{Dataset, Values},
    progress::Progress,
    target::{Connection, OpError},
    workload::Op,
};

/// Keys that are read to learn whether the data set is there.
const SAMPLE: u64 = 64;

/// Pairs of one batch.
const BATCH_PAIRS: usize = 256;

/// Bytes of one batch, unless a single pair is larger.
const BATCH_BYTES: usize = 1 << 20;

/// Batches in flight per connection.
const BATCHES_PER_CONNECTION: usize = 4;

/// Writes the keys unless they are there.
///
/// # Errors
/// The target cannot be read or written.
pub(crate) async fn ensure<C: Connection>(
    connections: &[C],
    dataset: &Dataset,
    seed: u64,
) -> Result<(), Error> {
    let mut rng = fastrand::Rng::with_seed(seed);
    if is_loaded(connections[0].clone(), dataset, &mut rng).await? {
        return Ok(());
    }
    write_all(connections, dataset, &mut rng).await
}

async fn is_loaded<C: Connection>(
    mut connection: C,
    dataset: &Dataset,
    rng: &mut fastrand::Rng,
) -> Result<bool, Error> {
    let ends = [0, dataset.count() - 1];
    let random: Vec<u64> = (0..SAMPLE).map(|_| rng.u64(..dataset.count())).collect();
    for index in ends.into_iter().chain(random) {
        match connection.call(Op::Get { key: dataset.key(index) }).await {
            Ok(()) => {}
            // Absent, or from a run with other values: all are written anew.
            Err(OpError::Missing | OpError::Mismatch) => return Ok(false),
            Err(error) => return Err(Error::Load(error.to_string())),
        }
    }
    Ok(true)
}

async fn write_all<C: Connection>(
    connections: &[C],
    dataset: &Dataset,
    rng: &mut fastrand::Rng,
) -> Result<(), Error> {
    let progress = Progress::new("loading keys");
    let written = Rc::new(Cell::new(0));
    let mut values = Values::new(dataset.value_bytes(), rng);
    let batch_pairs = (BATCH_BYTES / dataset.value_bytes()).clamp(1, BATCH_PAIRS) as u64;
    let mut batches = JoinSet::new();
    let mut idle: Vec<C> = connections
        .iter()
        .flat_map(|connection| vec![connection.clone(); BATCHES_PER_CONNECTION])
        .collect();
    let mut first = 0;
    while first < dataset.count() || !batches.is_empty() {
        if first < dataset.count()
            && let Some(mut connection) = idle.pop()
        {
            let last = (first + batch_pairs).min(dataset.count());
            let pairs: Vec<(Bytes, Bytes)> = (first..last)
                .map(|index| {
                    let key = dataset.key(index);
                    let value = values.build(&key, rng);
                    (key, value)
                })
                .collect();
            first = last;
            let written = written.clone();
            batches.spawn_local(async move {
                let count = pairs.len() as u64;
                let result = connection.put_many(pairs).await;
                written.set(written.get() + count);
                (connection, result)
            });
            continue;
        }
        if let Some(Ok((connection, result))) = batches.join_next().await {
            result.map_err(|error| Error::Load(error.to_string()))?;
            idle.push(connection);
        }
        progress.count(written.get(), dataset.count());
    }
    Ok(())
}
