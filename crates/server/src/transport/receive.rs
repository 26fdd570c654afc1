//! The service that other stores dial.
//!
//! It runs in the task of the connection and waits for nobody: a batch is checked, converted and delivered, and what
//! the store has no room for is lost. A stream that says anything wrong is ended with a reason.

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use proto::internal::{
    MessageBatch, MessagesDone, SnapshotDone, SnapshotPart,
    store_transport_server::StoreTransport as Rpc,
};
use raft::MessageBody;
use raftstore::{StoreMessage, message::MessageBody as StoreBody};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use types::{StoreId, limits};

use super::{
    Shared,
    counters::Counter,
    handshake::Refusals,
    snapshots,
    wire::{self, WireError},
};

/// Takes what other stores send. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    refusals: Arc<Refusals>,
    /// Room for snapshots.
    places: Arc<Semaphore>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>) -> Receiver {
        let places = Arc::new(Semaphore::new(limits::SNAPSHOT_RECEIVES_MAX));
        Receiver { shared, refusals: Arc::default(), places }
    }

    async fn receive(&self, mut batches: Streaming<MessageBatch>) -> Result<(), Status> {
        let Some(mut batch) = batches.message().await? else { return Ok(()) };
        let sender = batch.hello.as_ref().map_or(0, |hello| hello.from_store);
        let from = self.greet(sender, self.shared.check_hello(batch.hello.take()))?;
        self.shared.hear(from);
        loop {
            // What is wrong now was right at the beginning: each time is news.
            self.take(from, batch).inspect_err(|status| log_refusal(sender, status))?;
            match batches.message().await? {
                Some(next) => batch = next,
                None => return Ok(()),
            }
        }
    }

    /// Delivers one batch, or as much of it as the store takes.
    fn take(&self, from: StoreId, batch: MessageBatch) -> Result<(), Status> {
        let counters = &self.shared.counters;
        let bytes = batch.payload.len() as u64;
        let messages = self.open(from, batch).map_err(|error| refuse(&self.shared, &error))?;
        let count = messages.len();
        counters.add(Counter::Received, count as u64);
        counters.add(Counter::ReceivedBatches, 1);
        counters.add(Counter::ReceivedBytes, bytes);
        let taken = self.shared.running().map_or(0, |running| running.inbox.deliver(messages));
        counters.add(Counter::ReceivedDropped, count.saturating_sub(taken) as u64);
        Ok(())
    }

    fn open(&self, from: StoreId, batch: MessageBatch) -> Result<Vec<StoreMessage>, WireError> {
        wire::check(&batch.payload, batch.crc32c)?;
        let messages = wire::messages(batch.payload)?;
        for message in &messages {
            check_stores(&self.shared, from, message)?;
            if let StoreBody::Raft { message, .. } = &message.body
                && let MessageBody::Snapshot(_) = message.body
            {
                return Err(WireError::Invalid("message: a snapshot comes with its file"));
            }
        }
        Ok(messages)
    }

    /// Notes who was refused, and who was not.
    fn greet<T>(&self, sender: u64, checked: Result<T, Status>) -> Result<T, Status> {
        match &checked {
            Ok(_) => self.refusals.forget(sender),
            Err(status) => {
                self.shared.counters.add(Counter::Refused, 1);
                if self.refusals.is_new(sender, status.message()) {
                    log_refusal(sender, status);
                }
            }
        }
        checked
    }
}

fn log_refusal(sender: u64, status: &Status) {
    tracing::warn!(sender, problem = status.message(), "a stream of another store was refused");
}

/// Whether a message is between the two stores that its stream is between.
///
/// # Errors
/// It is of another sender, or for another receiver.
pub(super) fn check_stores(
    shared: &Shared,
    from: StoreId,
    message: &StoreMessage,
) -> Result<(), WireError> {
    match message.from.store_id == from && message.to.store_id == shared.own {
        true => Ok(()),
        false => Err(WireError::Invalid("stores of a message")),
    }
}

/// The end of a stream that said something wrong.
pub(super) fn refuse(shared: &Shared, error: &WireError) -> Status {
    match error {
        WireError::Checksum { .. } => {
            shared.counters.add(Counter::Damaged, 1);
            Status::data_loss(error.to_string())
        }
        WireError::Decode(_) | WireError::Invalid(_) => {
            shared.counters.add(Counter::Refused, 1);
            Status::invalid_argument(error.to_string())
        }
    }
}

#[tonic::async_trait]
impl Rpc for Receiver {
    async fn messages(
        &self,
        request: Request<Streaming<MessageBatch>>,
    ) -> Result<Response<MessagesDone>, Status> {
        let stopped = pin!(self.shared.stopped());
        let receiving = pin!(self.receive(request.into_inner()));
        match select(stopped, receiving).await {
            Either::Left(((), _)) => {}
            Either::Right((received, _)) => received?,
        }
        Ok(Response::new(MessagesDone {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<SnapshotDone>, Status> {
        let counters = &self.shared.counters;
        let stopped = pin!(self.shared.stopped());
        let greet = |sender, checked| self.greet(sender, checked);
        let receiving =
            pin!(snapshots::receive(&self.shared, &self.places, greet, request.into_inner()));
        let received = match select(stopped, receiving).await {
            Either::Left(((), _)) => Err(Status::unavailable("the store stops")),
            Either::Right((received, _)) => received,
        };
        let counter = match &received {
            Ok(()) => Counter::SnapshotsReceived,
            Err(_) => Counter::SnapshotsNotReceived,
        };
        counters.add(counter, 1);
        received.map(|()| Response::new(SnapshotDone {}))
    }
}
