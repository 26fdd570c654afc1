//! Region heartbeats: one stream of each store, on which its reports come in and its orders go out.
//!
//! The two directions do not wait for each other. Reports are taken as they come, in the order of the stream; nobody
//! acknowledges them. What there is to say (an order, a refusal) goes into a bounded queue; what does not fit is
//! dropped, since an order is repeated until a report shows that it was carried out.
//!
//! Invariant: a store has one stream at most. It belongs to the store from its first report on; a newer stream of the
//! same store ends it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
};
use proto::{pdpb, pdpb::RegionHeartbeatResponse as Said};
use scheduler::{Error, Order};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, codegen::BoxStream};
use types::{
    StoreId,
    limits::{ORDERS_OF_STORE_WAITING_MAX, REGION_HEARTBEATS_WAITING_MAX},
};

use super::{PdService, error_type, messages::region_info_from_proto, status};
use crate::convert;

/// One thing that is said on a stream; an error ends it.
type Item = Result<Said, Status>;

/// The streams of all stores. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    /// How many streams there have been.
    opened: u64,
    by_store: BTreeMap<StoreId, Arc<Outlet>>,
}

/// The end of a stream where things are said.
#[derive(Debug)]
struct Outlet {
    /// Greater than that of each stream before.
    number: u64,
    queue: mpsc::Sender<Item>,
    /// A newer stream has taken its place.
    replaced: Notify,
}

/// A stream as long as it is open.
#[derive(Debug)]
struct Open {
    streams: Streams,
    outlet: Arc<Outlet>,
}

impl Streams {
    fn open(&self) -> (Open, mpsc::Receiver<Item>) {
        let (queue, said) = mpsc::channel(ORDERS_OF_STORE_WAITING_MAX);
        let mut inside = self.lock();
        inside.opened += 1;
        let outlet = Outlet { number: inside.opened, queue, replaced: Notify::new() };
        (Open { streams: self.clone(), outlet: Arc::new(outlet) }, said)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The stream brings reports of `store`: it gets that store's orders from now on, unless a newer stream does.
    fn bind(&self, store: StoreId) {
        let mut inside = self.streams.lock();
        match inside.by_store.get(&store) {
            Some(bound) if self.outlet.number <= bound.number => return,
            Some(older) => older.replaced.notify_one(),
            None => {}
        }
        inside.by_store.insert(store, Arc::clone(&self.outlet));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let own = self.outlet.number;
        self.streams.lock().by_store.retain(|_, outlet| outlet.number != own);
    }
}

impl Outlet {
    /// Says something, unless too much waits already or the other side is gone.
    fn offer(&self, item: Item) {
        let _ = self.queue.try_send(item);
    }
}

impl PdService {
    /// Serves a stream of a store: takes its reports, and returns what there is to say to it. It ends when the reports
    /// end, at the first request that is none (its status comes last), or when a newer stream takes its place.
    pub(crate) fn serve_heartbeats(
        &self,
        reports: BoxStream<pdpb::RegionHeartbeatRequest>,
    ) -> BoxStream<Said> {
        let (open, said) = self.streams.open();
        // A task of its own: reports are taken also while the store does not read what is said to it.
        tokio::spawn(self.clone().take_reports(reports, open));
        Box::pin(ReceiverStream::new(said))
    }

    /// Pushes the orders that nobody has asked for to the streams of their leaders' stores.
    ///
    /// # Errors
    /// The scheduler has stopped.
    pub(crate) async fn push_orders(&self) -> Result<(), Error> {
        for order in self.scheduler.take_orders().await? {
            let outlet = self.streams.lock().by_store.get(&order.leader.store_id).cloned();
            if let Some(outlet) = outlet {
                outlet.offer(Ok(self.order_to_proto(order)));
            }
        }
        Ok(())
    }

    async fn take_reports(self, reports: BoxStream<pdpb::RegionHeartbeatRequest>, open: Open) {
        let open = Arc::new(open);
        let outlet = Arc::clone(&open.outlet);
        let taken = reports.map(|report| self.take_report(report, &open));
        let mut taken = std::pin::pin!(taken.buffered(REGION_HEARTBEATS_WAITING_MAX));
        let last = loop {
            let answer = tokio::select! {
                answer = taken.next() => answer,
                () = outlet.queue.closed() => break None,
                () = outlet.replaced.notified() => {
                    break Some(Err(Status::aborted("the store has opened a newer stream")));
                }
            };
            match answer {
                Some(Ok(None)) => {}
                Some(Ok(Some(said))) => outlet.offer(Ok(said)),
                Some(Err(last)) => break Some(last),
                None => break None,
            }
        };
        if let Some(last) = last {
            outlet.offer(last);
        }
    }

    /// Takes one report, now. What there is to say to it comes when it may be seen; an error is the last thing that is
    /// said.
    fn take_report(
        &self,
        report: Result<pdpb::RegionHeartbeatRequest, Status>,
        open: &Arc<Open>,
    ) -> BoxFuture<'static, Result<Option<Said>, Item>> {
        let checked = report.and_then(|report| self.check(&report.header).map(|()| report));
        let report = match checked {
            Ok(report) => report,
            Err(status) => return ready(Err(Err(status))).boxed(),
        };
        let region_id = report.region.as_ref().map_or(0, |region| region.id);
        let target_peer = report.leader;
        let refused = move |header| Said { header, region_id, target_peer, ..Said::default() };
        let Some(leader) = target_peer else {
            // Only leaders report; one that names none is on its way out.
            return ready(Ok(None)).boxed();
        };
        let Some(info) = region_info_from_proto(report) else {
            let message = "invalid region heartbeat: the region is missing";
            let refusal = refused(self.failed(pdpb::ErrorType::Unknown, message));
            return ready(Ok(Some(refusal))).boxed();
        };
        let order = self.scheduler.submit(move |scheduler, _| scheduler.region_heartbeat(info));
        let (this, open) = (self.clone(), Arc::clone(open));
        async move {
            let error = match order.await {
                Ok(order) => {
                    open.bind(StoreId(leader.store_id));
                    return Ok(order.map(|order| this.order_to_proto(order)));
                }
                Err(error) => error,
            };
            let kind = error_type(&error);
            let refusal = refused(this.failed(kind, status(error).message()));
            match kind {
                // Without stores there is nothing that a stream could report.
                pdpb::ErrorType::NotBootstrapped => Err(Ok(refusal)),
                _ => Ok(Some(refusal)),
            }
        }
        .boxed()
    }

    fn order_to_proto(&self, order: Order) -> Said {
        Said { header: self.header(), ..convert::order_to_proto(order) }
    }
}
