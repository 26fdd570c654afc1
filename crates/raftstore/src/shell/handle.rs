//! The way into a store, for callers on any thread.

use std::{fmt, sync::Arc};

use types::{Bytes, PeerId, Region, RegionEpoch, RegionId, StoreId};

use super::{
    Inbox as InboxTrait, Views, Waiter,
    inbox::{Inbox, Mail},
    log::{LogSyncs, LogWriter},
    poll::Wanted,
};
use crate::{
    message::StoreMessage,
    store::{Input, RequestKind},
};

/// A way into a store. Clones are the same way. No call blocks.
pub struct StoreHandle<A, W> {
    pub(super) inbox: Arc<Inbox<A, W>>,
    pub(super) views: Arc<Views>,
    pub(super) log: Arc<LogWriter>,
}

impl<A, W> Clone for StoreHandle<A, W> {
    fn clone(&self) -> StoreHandle<A, W> {
        let (inbox, views, log) = (&self.inbox, &self.views, &self.log);
        StoreHandle { inbox: Arc::clone(inbox), views: Arc::clone(views), log: Arc::clone(log) }
    }
}

impl<A, W> fmt::Debug for StoreHandle<A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle").field("views", &self.views).finish_non_exhaustive()
    }
}

impl<A: Send + 'static, W: Waiter<A>> StoreHandle<A, W> {
    /// Proposes a command that concerns keys from `first` to `last`, in stored form.
    pub fn write(
        &self,
        (region_id, epoch): (RegionId, RegionEpoch),
        (first, last): (Bytes, Bytes),
        command: Bytes,
        waiter: W,
    ) {
        let kind = RequestKind::Write { first, last, command };
        self.put(Wanted { region_id, epoch, kind, waiter: Some(waiter) });
    }

    /// Asks when a read may go on. `replica_read`: a follower may answer, after it has asked its leader.
    pub fn read(&self, (region_id, epoch): (RegionId, RegionEpoch), replica_read: bool, waiter: W) {
        let kind = RequestKind::Read { replica_read };
        self.put(Wanted { region_id, epoch, kind, waiter: Some(waiter) });
    }

    /// Asks for something and waits for the answer.
    pub fn ask(&self, region_id: RegionId, epoch: RegionEpoch, kind: RequestKind, waiter: W) {
        self.put(Wanted { region_id, epoch, kind, waiter: Some(waiter) });
    }

    /// Does what the scheduler wants. Nobody waits; what can't be done is asked for again.
    pub fn admin(&self, region_id: RegionId, epoch: RegionEpoch, kind: RequestKind) {
        self.put(Wanted { region_id, epoch, kind, waiter: None });
    }

    /// Has every region reported that is led here.
    pub fn report_all(&self) {
        self.inbox.done(Mail::Done(Input::ReportAll));
    }

    /// A region as the scheduler knows it: what [`Events::ask_region`](super::Events::ask_region) wanted.
    pub fn region_known(&self, region: Region) {
        self.inbox.done(Mail::Done(Input::RegionKnown(region)));
    }

    /// What is known of the peers of this store.
    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }

    /// What the syncs of the Raft log have come to.
    pub fn log_syncs(&self) -> LogSyncs {
        self.log.syncs()
    }

    /// Why the store has stopped, if it has.
    pub fn failure(&self) -> Option<&crate::Error> {
        self.inbox.failure()
    }

    /// Stops the store because somebody else has found that it can't go on.
    pub fn fail(&self, error: crate::Error) {
        self.inbox.fail(error);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.inbox.requests()
    }

    fn put(&self, wanted: Wanted<W>) {
        let Err(refused) = self.inbox.request(wanted) else { return };
        let (wanted, error) = *refused;
        if let Some(waker) = wanted.waiter.and_then(|waiter| waiter.answer(Err(error))) {
            waker.wake();
        }
    }
}

impl<A: Send + 'static, W: Waiter<A>> InboxTrait for StoreHandle<A, W>
where
    Inbox<A, W>: Send + Sync,
{
    fn deliver(&self, messages: Vec<StoreMessage>) -> usize {
        self.inbox.messages(messages)
    }

    fn snapshot_sent(&self, region_id: RegionId, to: PeerId, arrived: bool) {
        self.inbox.done(Mail::Done(Input::SnapshotSent { region_id, to, arrived }));
    }

    fn unreachable(&self, region_id: RegionId, peer: PeerId) {
        self.inbox.done(Mail::Done(Input::Unreachable { region_id, peer }));
    }
}

/// A request is for whichever store it reaches: the caller has compared the store already.
pub(super) const ANY_STORE: StoreId = StoreId(0);
