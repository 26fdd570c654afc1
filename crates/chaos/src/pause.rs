//! SIGSTOP for seconds, then SIGCONT: a process that stood still goes on without a wrong answer.
//!
//! To everybody else such a process is dead, and then it is back with old beliefs: its clock has jumped, its
//! connections are full, its timers are late. Writers keep going meanwhile and must get their answers afterwards.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    kv::Dial,
    report::Report,
    session::{Session, When},
};

/// How long after SIGCONT a write must have been acknowledged.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);

/// Runs all rounds of the session.
pub async fn run<D: Dial>(mut session: Session<D>) -> Report {
    let outcome = rounds(&mut session).await;
    session.finish(outcome)
}

async fn rounds<D: Dial>(session: &mut Session<D>) -> anyhow::Result<()> {
    let (process, kv) = session.start().await?;
    for _ in 0..session.report.rounds_requested {
        let load = session.load(&kv);
        sleep(session.moment(50, 300)).await;
        process.pause()?;
        sleep(session.moment(500, 2500)).await;
        let before = session.ledgers.model().acknowledged();
        process.resume()?;
        let resumed = Instant::now();
        // More than the answers that were on their way: the process has really gone on.
        let enough = before + 2 * u64::from(session.shape.writers);
        while session.ledgers.model().acknowledged() < enough {
            if resumed.elapsed() > PROGRESS_WITHIN {
                session.misbehaved(format!("no progress within {PROGRESS_WITHIN:?} after SIGCONT"));
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        session.report.add(load.stop().await);
        session.check(&kv, When::Running).await?;
        session.executed();
    }
    process.kill()?;
    session.last_check().await
}
