//! What takes long and nobody's turn waits for: syncs of the engine, making and removing snapshots, looks at regions.

use std::sync::{Arc, mpsc};

use engine::Engine;
use types::RegionId;

use super::inbox::{Inbox, Mail};
use crate::{
    error::Result,
    hash::HashJob,
    snapshot::Snapshots,
    split_check::{KeyForm, SplitJob, SplitLimits},
    state::ApplyState,
    store::Input,
};

/// Something that takes long.
#[derive(Debug)]
pub(super) enum Job {
    SyncEngine,
    MakeSnapshot { region_id: RegionId },
    ForgetSnapshot { region_id: RegionId, applied: ApplyState },
    ForgetMade { region_id: RegionId, applied: ApplyState },
    CheckSplit(SplitJob),
    ComputeHash(Box<HashJob>),
}

/// How keys are stored at the moment: what kind of data a cluster has may be decided late.
pub type KeyFormNow = Arc<dyn Fn() -> KeyForm + Send + Sync>;

/// What jobs need.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) snapshots: Snapshots,
    pub(super) limits: SplitLimits,
    pub(super) key_form: KeyFormNow,
}

/// Does jobs, in order, until nobody can give any more.
pub(super) fn run<A, W>(jobs: &mpsc::Receiver<Job>, tools: &Tools, inbox: &Arc<Inbox<A, W>>) {
    for job in jobs {
        match work(job, tools) {
            Ok(Some(input)) => inbox.done(Mail::Done(input)),
            Ok(None) => {}
            Err(error) => {
                inbox.fail(error);
                return;
            }
        }
    }
}

fn work<A>(job: Job, tools: &Tools) -> Result<Option<Input<A>>> {
    let Tools { engine, snapshots, limits, key_form } = tools;
    match job {
        Job::SyncEngine => {
            engine.sync()?;
            Ok(Some(Input::EngineSynced))
        }
        Job::MakeSnapshot { region_id } => {
            let descriptor = match snapshots.make(&**engine, region_id) {
                Ok(descriptor) => descriptor,
                // Its file could not be written (the disk may be full), which harms nobody: it is tried again. An engine
                // that has failed says so from now on.
                Err(_) => engine.snapshot().map(|_| None)?,
            };
            Ok(Some(Input::SnapshotMade { region_id, descriptor }))
        }
        Job::ForgetSnapshot { region_id, applied } => {
            snapshots.forget_received(region_id, applied)?;
            Ok(None)
        }
        Job::ForgetMade { region_id, applied } => {
            snapshots.forget_made(region_id, applied)?;
            Ok(None)
        }
        Job::ComputeHash(job) => {
            let (region_id, index, hash) = (job.region.id, job.index, job.run()?);
            Ok(Some(Input::HashComputed { region_id, index, hash }))
        }
        Job::CheckSplit(job) => {
            let found = job.run(&**engine, limits, key_form())?;
            let SplitJob { region_id, epoch, .. } = job;
            Ok(Some(Input::SplitChecked { region_id, epoch, found }))
        }
    }
}
