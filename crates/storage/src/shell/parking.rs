//! Futures that wait until somebody names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll, Waker},
};

/// Who waits, by numbers of the caller's, and who was named meanwhile.
#[derive(Debug, Default)]
pub(super) struct Parking {
    named: BTreeSet<u64>,
    wakers: BTreeMap<u64, Waker>,
}

impl Parking {
    /// Whether `id` was named; it is not any more then. Else it is woken when it is.
    pub(super) fn poll(&mut self, id: u64, cx: &Context<'_>) -> Poll<()> {
        if self.named.remove(&id) {
            self.wakers.remove(&id);
            return Poll::Ready(());
        }
        self.wakers.insert(id, cx.waker().clone());
        Poll::Pending
    }

    /// Names `id`. Who is returned is to be woken, after locks are released.
    pub(super) fn name(&mut self, id: u64) -> Option<Waker> {
        self.named.insert(id);
        self.wakers.remove(&id)
    }

    /// `id` waits no longer. Says whether it was named, and has not noticed.
    pub(super) fn leave(&mut self, id: u64) -> bool {
        self.wakers.remove(&id);
        self.named.remove(&id)
    }
}
