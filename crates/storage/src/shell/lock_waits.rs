//! Requests that wait for a lock of another transaction: who waits is a future, who releases a lock wakes one of them.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use txn::{LockInfo, LockWaits};
use types::{Bytes, TimeStamp};

use super::parking::Parking;

/// The requests of a store that wait. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitTable(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    waits: LockWaits,
    last: u64,
    parking: Parking,
}

/// A request that found a lock and waits for it to go. Dropped, it waits no longer.
pub struct LockWait {
    /// The lock.
    pub locked: Box<LockInfo>,
    id: u64,
    table: WaitTable,
}

impl LockWait {
    /// Waits until it is this request's turn: the lock has gone, perhaps. The request is to be made again, and whoever
    /// does not get the lock then lets the next one have its turn ([`Storage::wake_next`](super::Storage::wake_next)).
    pub async fn turn(&mut self) {
        poll_fn(|cx| self.table.table().parking.poll(self.id, cx)).await;
    }
}

impl WaitTable {
    /// A request of `start_ts` waits from now on. Its latches are still held: nobody has released the lock meanwhile.
    pub(super) fn wait(&self, locked: Box<LockInfo>, start_ts: TimeStamp) -> LockWait {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        table.waits.wait(id, locked.key.clone(), start_ts);
        LockWait { locked, id, table: self.clone() }
    }

    /// The lock of a key has gone: wakes whose turn it is.
    pub(super) fn wake_next(&self, key: &Bytes) {
        let waker = {
            let mut table = self.table();
            table.waits.next(key).and_then(|id| table.parking.name(id))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.table().waits.is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.table().waits.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        let had_its_turn = {
            let mut table = self.table.table();
            table.waits.leave(self.id);
            table.parking.leave(self.id)
        };
        // It will not make use of it.
        if had_its_turn {
            self.table.wake_next(&self.locked.key);
        }
    }
}

impl fmt::Debug for LockWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockWait").field(&self.locked).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use txn::LockKind;

    use super::*;

    fn locked(key: &'static str) -> Box<LockInfo> {
        let lock = txn::Lock::new(LockKind::Put, Bytes::from_static(b"p"), TimeStamp(1), 3000);
        Box::new(lock.info(&txn::Key::new(Bytes::from_static(key.as_bytes()))))
    }

    fn has_turn(wait: &mut LockWait) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(wait.turn()).poll(&mut cx) == Poll::Ready(())
    }

    #[test]
    fn the_turn_goes_to_the_oldest_and_on_if_it_has_gone() {
        let table = WaitTable::default();
        let mut young = table.wait(locked("a"), TimeStamp(20));
        let mut old = table.wait(locked("a"), TimeStamp(10));
        let mut other = table.wait(locked("b"), TimeStamp(5));
        table.wake_next(&Bytes::from_static(b"a"));
        assert!(!has_turn(&mut young) && !has_turn(&mut other));
        // It was woken and gives up before it has noticed.
        drop(old);
        assert!(has_turn(&mut young));
        assert!(!table.is_empty());
        drop((young, other));
        assert!(table.is_empty());
        old = table.wait(locked("a"), TimeStamp(10));
        table.wake_next(&Bytes::from_static(b"a"));
        assert!(has_turn(&mut old) && !has_turn(&mut old));
    }
}
