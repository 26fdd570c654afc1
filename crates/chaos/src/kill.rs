//! SIGKILL at a random moment, over and over, on one data directory.
//!
//! Most rounds kill under load, some during the start, which is when the recovery from the round before runs. The
//! kernel keeps what the process has written, so this proves that every state a process can leave behind is
//! recovered from; that the disk has it is what [`crate::power_cut`] proves.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    kv::Dial,
    report::Report,
    session::{Session, When},
};

/// One round in so many kills during the start.
const KILL_DURING_START_EVERY: u32 = 4;

/// Runs all rounds of the session.
pub async fn run<D: Dial>(mut session: Session<D>) -> Report {
    let outcome = rounds(&mut session).await;
    session.finish(outcome)
}

async fn rounds<D: Dial>(session: &mut Session<D>) -> anyhow::Result<()> {
    for round in 0..session.report.rounds_requested {
        if 0 < round && session.rng.u32(0..KILL_DURING_START_EVERY) == 0 {
            let moment = session.moment_of_start();
            let mut process = session.launch.spawn()?;
            sleep(moment).await;
            if let Some(status) = process.ended(Duration::ZERO).await? {
                anyhow::bail!(
                    "the process ended by itself during the start: {status}\n{}",
                    process.log_tail()
                );
            }
            process.kill()?;
            session.report.count("kills during the start");
        } else {
            let (process, kv) = session.start().await?;
            session.check(&kv, When::AfterDeath).await?;
            let load = session.load(&kv);
            sleep(session.moment(20, 500)).await;
            process.kill()?;
            session.report.add(load.stop().await);
            session.report.count("kills under load");
        }
        session.executed();
    }
    session.last_check().await
}
