//! Requests for pessimistic locks, which wait for those that others have.
//!
//! Who waits is woken when the lock goes, the oldest transaction first, and asks again: it gets the lock, or learns that
//! there is something newer. Its client comes back in a moment and takes the lock then; so the next in the queue is woken
//! only if nobody has taken the key a little later. All at once would only find it locked again.

use std::time::Duration;

use storage::Locking;
use tokio::time::Instant;
use txn::{
    KeyError,
    commands::{PessimisticLock, PessimisticLockAnswer, WaitTimeout},
};
use types::{Bytes, RequestContext};

use super::kv::KvService;

/// How long is waited for a lock by default, and at most (TiKV: `pessimistic-txn.wait-for-lock-timeout`).
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long a key is left to the client of who was woken first (TiKV: `pessimistic-txn.wake-up-delay-duration`).
const WAKE_NEXT_AFTER: Duration = Duration::from_millis(20);

/// What ends a wait.
enum End {
    Turn,
    Deadlock(KeyError),
    TimedOut,
}

impl KvService {
    /// Takes locks, and waits for those of others for as long as the request wants.
    pub(super) async fn lock(
        &self,
        context: &RequestContext,
        command: PessimisticLock,
    ) -> Result<Result<PessimisticLockAnswer, KeyError>, storage::Error> {
        let patience = match command.wait_timeout {
            WaitTimeout::NoWait => return self.storage().txn_write(context, command).await,
            WaitTimeout::Default => WAIT_MAX,
            WaitTimeout::Millis(millis) => Duration::from_millis(millis).min(WAIT_MAX),
        };
        let deadline = Instant::now() + patience;
        // The key whose turn this request has had.
        let mut had: Option<Bytes> = None;
        loop {
            let locking = self.storage().txn_lock(context, &command).await;
            let mut wait = match locking {
                Ok(Locking::Waits(wait)) => wait,
                Ok(Locking::Done(Ok(answer))) => return Ok(Ok(answer)),
                Ok(Locking::Done(Err(error))) => {
                    self.pass_on(had);
                    return Ok(Err(error));
                }
                Err(error) => {
                    self.pass_on(had);
                    return Err(error);
                }
            };
            let locked = wait.locked.clone();
            let end = tokio::select! {
                biased;
                () = wait.turn() => End::Turn,
                error = self.detect(&command, &locked) => End::Deadlock(error),
                () = tokio::time::sleep_until(deadline) => End::TimedOut,
            };
            match end {
                End::Turn => had = Some(locked.key.clone()),
                End::Deadlock(error) => return Ok(Err(error)),
                End::TimedOut => return Ok(Err(KeyError::Locked(locked))),
            }
        }
    }

    /// Ends if the wait would never end. A transaction without other locks is in nobody's way.
    async fn detect(&self, command: &PessimisticLock, locked: &txn::LockInfo) -> KeyError {
        match self.detector() {
            Some(detector) if !command.is_first_lock => {
                detector.detect(command.start_ts, locked).await
            }
            _ => std::future::pending().await,
        }
    }

    /// A request has had its turn, and has not taken the lock: soon it is the next one's.
    fn pass_on(&self, key: Option<Bytes>) {
        let Some(key) = key else { return };
        let storage = self.storage().clone();
        tokio::spawn(async move {
            tokio::time::sleep(WAKE_NEXT_AFTER).await;
            storage.wake_next(&key);
        });
    }
}
