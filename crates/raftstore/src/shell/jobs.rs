//! What takes long and nobody's turn waits for: syncs of the engine, and making and removing snapshots.

use std::sync::{Arc, mpsc};

use engine::Engine;
use types::RegionId;

use super::inbox::{Inbox, Mail};
use crate::{error::Result, snapshot::Snapshots, state::ApplyState, store::Input};

/// Something that takes long.
#[derive(Debug)]
pub(super) enum Job {
    SyncEngine,
    MakeSnapshot { region_id: RegionId },
    ForgetSnapshot { region_id: RegionId, applied: ApplyState },
}

/// Does jobs, in order, until nobody can give any more.
pub(super) fn run<A, W>(
    jobs: &mpsc::Receiver<Job>,
    engine: &Arc<dyn Engine>,
    snapshots: &Snapshots,
    inbox: &Arc<Inbox<A, W>>,
) {
    for job in jobs {
        match work(job, engine, snapshots) {
            Ok(Some(input)) => inbox.done(Mail::Done(input)),
            Ok(None) => {}
            Err(error) => {
                inbox.fail(error);
                return;
            }
        }
    }
}

fn work<A>(job: Job, engine: &Arc<dyn Engine>, snapshots: &Snapshots) -> Result<Option<Input<A>>> {
    match job {
        Job::SyncEngine => {
            engine.sync()?;
            Ok(Some(Input::EngineSynced))
        }
        Job::MakeSnapshot { region_id } => {
            let descriptor = snapshots.make(&**engine, region_id)?;
            Ok(Some(Input::SnapshotMade { region_id, descriptor }))
        }
        Job::ForgetSnapshot { region_id, applied } => {
            snapshots.forget_received(region_id, applied)?;
            Ok(None)
        }
    }
}
