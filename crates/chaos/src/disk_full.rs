//! The disk fills up: writes are refused with an error of their own, reads go on, and nothing acknowledged is lost.
//!
//! A file beside the data takes the space, as another program would. In most rounds it leaves a little: then the
//! product must refuse writes before it runs into the wall, keep serving reads, and take writes again by itself when
//! the space comes back. In every third round it takes the last byte: then the product may stop, saying why, but what
//! was acknowledged must be there after the next start.

use std::{fs::File, path::Path};

use anyhow::bail;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    disk::{LoopDisk, allowed},
    kv::{Dial, Failure, Kv},
    model::{Effect, LARGE},
    report::Report,
    session::{Session, When},
};

/// Size of the disk: room for journals and tables of some rounds, and filled quickly.
const DISK_MIB: u64 = 512;

/// What a program beside the product leaves free: too little to go on, enough to stop in order.
pub(crate) const LEFT_BYTES: u64 = 12 << 20;

/// How many large values are put before the harness gives up waiting for a refusal: journals may have space that was
/// reserved before.
const PUTS_MAX: u32 = 4096;

/// Keys that these puts go to.
const FILL_KEYS: u32 = 64;

/// How soon writes must be taken again when the space is back.
const WRITES_BACK_WITHIN: Duration = Duration::from_secs(10);

/// The code of the error that a full disk must give.
const DISK_FULL: &str = "TK6002";

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
    let disk = LoopDisk::create(&session.launch.scratch, DISK_MIB)?;
    session.launch.data = disk.path().join("data");
    let filler = disk.path().join("filler");
    for round in 0..session.report.rounds_requested {
        let to_the_last_byte = round % 3 == 2;
        let (mut process, kv) = session.start().await?;
        session.check(&kv, When::AfterDeath).await?;
        let load = session.load(&kv);
        sleep(session.moment(100, 400)).await;
        session.report.add(load.stop().await);

        fill(&disk, &filler, if to_the_last_byte { 0 } else { LEFT_BYTES })?;
        let failure = put_until_refused(session, &kv).await?;
        if to_the_last_byte {
            session.report.count("filled to the last byte");
            if let Some(status) = process.ended(Duration::from_secs(1)).await? {
                session.report.count(&format!("stopped at the last byte ({status})"));
            } else {
                session.check(&kv, When::Running).await?;
            }
            std::fs::remove_file(&filler)?;
        } else {
            match &failure {
                Failure::Refused(why) if why.contains(DISK_FULL) => {
                    session.report.count("refused as disk full")
                }
                other => session.misbehaved(format!(
                    "a disk with little space gave \"{other}\", not {DISK_FULL}"
                )),
            }
            session.check(&kv, When::Running).await?;
            session.report.count("read back on the full disk");
            std::fs::remove_file(&filler)?;
            writes_come_back(session, &kv).await?;
        }

        drop(process);
        let (process, kv) = session.start().await?;
        session.check(&kv, When::AfterDeath).await?;
        if let Err(failure) = put(session, &kv, fill_key(0)).await {
            bail!(
                "a write failed after the space was freed and the process started anew: {failure}"
            );
        }
        process.kill()?;
        session.executed();
    }
    session.last_check().await
}

fn fill_key(number: u32) -> Bytes {
    format!("{LARGE}{number:05}").into()
}

/// Takes all space but `left` bytes.
pub(crate) fn fill(disk: &LoopDisk, path: &Path, left: u64) -> anyhow::Result<()> {
    let file = File::create(path)?;
    let mut taken = 0;
    // In pieces that become smaller, since what is free is not what a single file gets.
    for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
        while left + piece <= disk.free_bytes()? {
            match fallocate(&file, FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                Err(rustix::io::Errno::NOSPC) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Puts the next value of `key`.
async fn put<D: Dial>(session: &Session<D>, kv: &D::Kv, key: Bytes) -> Result<(), Failure> {
    let (ticket, value) = session.ledgers.model().begin(&key, Effect::Put);
    let answer = kv.put(key, value.expect("a put has a value")).await;
    match &answer {
        Ok(()) => session.ledgers.model().acknowledge(ticket),
        Err(Failure::Refused(_)) => session.ledgers.model().refuse(ticket),
        Err(Failure::Unknown(_)) => {}
    }
    answer
}

async fn put_until_refused<D: Dial>(session: &Session<D>, kv: &D::Kv) -> anyhow::Result<Failure> {
    for number in 0..PUTS_MAX {
        let key = fill_key(number % FILL_KEYS);
        if session.ledgers.model().is_unanswered(&key) {
            continue;
        }
        if let Err(failure) = put(session, kv, key).await {
            return Ok(failure);
        }
    }
    bail!("a full disk took {PUTS_MAX} more writes")
}

async fn writes_come_back<D: Dial>(session: &mut Session<D>, kv: &D::Kv) -> anyhow::Result<()> {
    let freed = Instant::now();
    loop {
        match put(session, kv, fill_key(1)).await {
            Ok(()) => {
                session.report.count("writes came back");
                return Ok(());
            }
            Err(Failure::Refused(_)) if freed.elapsed() < WRITES_BACK_WITHIN => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(failure) => bail!(
                "writes are not taken {WRITES_BACK_WITHIN:?} after the space was freed: {failure}"
            ),
        }
    }
}
