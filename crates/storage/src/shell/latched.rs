//! Latches for commands that run concurrently: who waits is a future, who holds is a guard.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use txn::Latches;
use types::Bytes;

use super::parking::Parking;

/// The latches of a store. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct LatchTable(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    latches: Latches,
    last: u64,
    /// Commands that wait, or have waited and may go on.
    parking: Parking,
}

/// Latches that are held, or a place in the queue for them. Given back when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Latched(#[expect(dead_code, reason = "held until it is dropped")] Arc<Place>);

struct Place {
    id: u64,
    table: LatchTable,
}

impl LatchTable {
    /// Waits until nobody else has a latch of any of `keys`.
    pub(super) async fn acquire(&self, keys: Vec<Bytes>) -> Latched {
        let (id, has_all) = {
            let mut table = self.table();
            table.last += 1;
            let id = table.last;
            (id, table.latches.acquire(id, keys))
        };
        let latched = Latched(Arc::new(Place { id, table: self.clone() }));
        if !has_all {
            poll_fn(|cx| self.table().parking.poll(id, cx)).await;
        }
        latched
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let wakers: Vec<Waker> = {
            let mut table = self.table.table();
            table.parking.leave(self.id);
            let next = table.latches.release(self.id);
            next.into_iter().filter_map(|id| table.parking.name(id)).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Latched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latched")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll},
    };

    use super::*;

    fn keys(names: &[&'static str]) -> Vec<Bytes> {
        names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
    }

    #[test]
    fn who_waits_goes_on_when_the_last_holder_is_through() {
        let table = LatchTable::default();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(table.acquire(keys(&["a", "b"]))).poll(&mut cx) else {
            panic!("nobody else is there")
        };
        let mut second = pin!(table.acquire(keys(&["b", "c"])));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        // A proposal that is under way holds them as well as its caller.
        let proposed = first.clone();
        drop(first);
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(proposed);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn who_gives_up_waiting_lets_others_pass() {
        let table = LatchTable::default();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(table.acquire(keys(&["a"]))).poll(&mut cx) else {
            panic!("nobody else is there")
        };
        {
            let mut second = pin!(table.acquire(keys(&["a", "b"])));
            assert!(second.as_mut().poll(&mut cx).is_pending());
        }
        let mut third = pin!(table.acquire(keys(&["b"])));
        assert!(third.as_mut().poll(&mut cx).is_ready());
        drop(first);
        assert!(pin!(table.acquire(keys(&["a"]))).poll(&mut cx).is_ready());
    }
}
