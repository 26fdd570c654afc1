//! The power goes: the file system forgets everything that was not synced, under load, over and over.
//!
//! This is the proof of durability: no answer may have left before its sync returned. The process meets I/O errors
//! meanwhile; a sync that fails must end it, since nothing it acknowledges afterwards could be there.
//!
//! Half of the cuts come under load; answers that arrive while the call that cuts the power is under way count as none
//! ([`Power::Failing`]). The others come right after the last answer, which must then be there.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    disk::{LoopDisk, allowed},
    kv::Dial,
    model::Power,
    report::Report,
    session::{ENDED_WITHIN, Session, When},
};

/// Size of the disk.
const DISK_MIB: u64 = 2048;

/// One round in so many cuts the power during the start.
const CUT_DURING_START_EVERY: u32 = 4;

/// How long writers go on after the cut: the process must notice by itself.
const LOAD_AFTER_CUT: Duration = Duration::from_millis(200);

/// Runs all rounds of the session, if this machine allows it.
pub async fn run<D: Dial>(mut session: Session<D>) -> Report {
    if let Err(why) = allowed() {
        return session.report.skip(why);
    }
    let outcome = rounds(&mut session).await;
    session.finish(outcome)
}

async fn rounds<D: Dial>(session: &mut Session<D>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&session.launch.scratch)?;
    let mut disk = LoopDisk::create(&session.launch.scratch, DISK_MIB)?;
    session.launch.data = disk.path().join("data");
    for round in 0..session.report.rounds_requested {
        if 0 < round && session.rng.u32(0..CUT_DURING_START_EVERY) == 0 {
            let moment = session.moment_of_start();
            let process = session.launch.spawn()?;
            sleep(moment).await;
            disk.cut_power()?;
            // Idle, it may not touch the disk for a long time.
            process.kill()?;
            session.report.count("cuts during the start");
        } else {
            let (mut process, kv) = session.start().await?;
            session.check(&kv, When::AfterDeath).await?;
            let load = session.load(&kv);
            sleep(session.moment(50, 800)).await;
            if session.rng.bool() {
                // Every answer is in before the power goes: not even the last one may be lost.
                session.report.add(load.stop().await);
                disk.cut_power()?;
                process.kill()?;
                session.report.count("cuts right after the last answer");
                disk.remount()?;
                session.executed();
                continue;
            }
            session.ledgers.model().set_power(Power::Failing);
            disk.cut_power()?;
            session.ledgers.model().set_power(Power::Off);
            sleep(LOAD_AFTER_CUT).await;
            session.report.add(load.stop().await);
            if process.ended(ENDED_WITHIN).await?.is_none() {
                session.misbehaved(format!(
                    "the process still runs {ENDED_WITHIN:?} after its disk failed"
                ));
                process.kill()?;
            }
            session.report.count("cuts under load");
        }
        disk.remount()?;
        session.ledgers.model().set_power(Power::On);
        session.executed();
    }
    let in_doubt = session.ledgers.model().in_doubt();
    session.report.counts.insert("answers while the power failed".into(), in_doubt);
    session.last_check().await
}
