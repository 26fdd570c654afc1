//! The thread "scheduler-log": writes what requests recorded, with one sync for all who wait.
//!
//! While one sync is under way the next batch collects. When the log has grown too long this thread replaces it by a
//! snapshot; requests that must wait for the log wait that much longer, all others do not notice.

use std::sync::Arc;

use super::Shared;
use crate::{
    Error, LogPosition, Record, Result,
    storage::{Batch, Storage},
};

/// Runs until the scheduler is shut down and everything is written, or until something fails.
pub(super) fn run(shared: &Shared, mut storage: Storage) {
    let cause = match serve(shared, &mut storage) {
        Ok(()) => Error::ShutDown,
        Err(error) => error,
    };
    shared.progress.stop(&cause);
}

fn serve(shared: &Shared, storage: &mut Storage) -> Result<()> {
    while let Some(batch) = next_batch(shared)? {
        let end = batch.end();
        storage.append(batch).map_err(poisoned)?;
        shared.progress.advance(end);
        if storage.needs_snapshot() {
            let (records, position) = snapshot(shared)?;
            storage.put_snapshot(&records, position).map_err(poisoned)?;
            shared.progress.advance(position);
        }
    }
    Ok(())
}

/// Waits for records; `None` when no more will come.
fn next_batch(shared: &Shared) -> Result<Option<Batch>> {
    let inside = shared.lock()?;
    let waited =
        shared.work.wait_while(inside, |inside| inside.batch.is_empty() && !inside.closing);
    // As in `Shared::lock`: what a panic has left is not written.
    let mut inside = waited.map_err(|_| Error::Panicked)?;
    let batch = inside.take_batch();
    Ok((!batch.is_empty()).then_some(batch))
}

/// The present state. It stands for the batch that is being collected, too.
fn snapshot(shared: &Shared) -> Result<(Vec<Record>, LogPosition)> {
    let mut inside = shared.lock()?;
    drop(inside.take_batch());
    Ok((inside.scheduler.snapshot(), inside.scheduler.position()))
}

fn poisoned(cause: engine::Error) -> Error {
    Error::Poisoned { cause: Arc::new(cause) }
}
