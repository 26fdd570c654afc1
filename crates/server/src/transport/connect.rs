//! The task that carries messages to one store.
//!
//! It dials when there is something to say, and sends until the connection ends. Then it drops what waits, tells the
//! leaders among the senders, and waits, longer each time, before it dials again; a store that has come back and speaks
//! first is dialled at once. The address is asked for again when dialling fails: a store that restarts elsewhere is
//! found, and a scheduler that is away does no harm while the address stays.
//!
//! Batches are made when the connection has room for one: whatever waits then leaves together, and HTTP/2's windows hold
//! back no more than one batch.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::{Either, select},
};
use proto::internal::{MessageBatch, StreamHello, store_transport_client::StoreTransportClient};
use raftstore::StoreMessage;
use runtime::Rng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code as GrpcCode, Status,
    transport::{Channel, Endpoint},
};
use types::{Code, StoreId, limits};

use super::{
    Addresses, Shared,
    counters::{Counter, Counters},
    outbox::Outbox,
    wire,
};

/// The connection to one store, made again as often as it takes.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    addresses: Arc<dyn Addresses>,
    outbox: Arc<Outbox>,
    backoff: Backoff,
    /// Where the store was last.
    address: Option<String>,
    /// Whether it may be elsewhere by now.
    is_stale: bool,
    /// What was last said of the connection, so that it is not said again.
    logged: Option<String>,
}

/// Why a connection ended.
#[derive(Debug)]
enum Ended {
    /// Nobody could be reached.
    NotConnected(String),
    /// It was a connection for so long, and broke or was ended.
    Broken(Status, Duration),
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        addresses: Arc<dyn Addresses>,
        outbox: Arc<Outbox>,
        rng: Rng,
    ) -> Connection {
        Connection {
            shared,
            addresses,
            outbox,
            backoff: Backoff::new(rng),
            address: None,
            is_stale: false,
            logged: None,
        }
    }

    /// Carries messages until the end of the transport.
    pub(super) async fn run(mut self) {
        let (shared, outbox) = (self.shared.clone(), self.outbox.clone());
        let stopped = pin!(shared.stopped());
        select(stopped, pin!(self.carry())).await;
        outbox.shut(&shared.counters);
    }

    async fn carry(&mut self) {
        loop {
            self.outbox.open();
            self.outbox.wait().await;
            let ended = self.connect_and_send().await;
            self.outbox.shut(&self.shared.counters);
            self.shared.counters.add(Counter::Disconnects, 1);
            self.learn(&ended);
            self.tell_lost();
            let heard = pin!(self.outbox.wait_until_heard());
            select(heard, pin!(sleep(self.backoff.next()))).await;
            self.tell_lost();
        }
    }

    /// Where to dial, and when, after this end; and says it to people once.
    fn learn(&mut self, ended: &Ended) {
        let problem = match ended {
            Ended::NotConnected(problem) => {
                self.is_stale = true;
                problem.clone()
            }
            Ended::Broken(status, lasted) => {
                if is_refusal(status) {
                    self.is_stale = true;
                    self.backoff.go_to_max();
                } else if limits::TRANSPORT_RETRY_MAX <= *lasted {
                    self.backoff.reset();
                    self.logged = None;
                }
                format!("{}: {}", status.code(), status.message())
            }
        };
        if self.logged.as_ref() != Some(&problem) {
            let address = self.address.as_deref().unwrap_or("unknown");
            tracing::warn!(store = %self.outbox.store(), address, problem, "no connection to a store");
            self.logged = Some(problem);
        }
    }

    async fn connect_and_send(&mut self) -> Ended {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(problem) => return Ended::NotConnected(problem),
        };
        let began = Instant::now();
        let mut client = StoreTransportClient::new(channel);
        let hello = self.shared.hello(self.outbox.store());
        let batches = Batches::new(self.outbox.clone(), self.shared.counters.clone(), hello);
        // The answer comes when the stream ends; what does not fit meanwhile is told now and then.
        let call = pin!(client.messages(batches));
        let status = match select(call, pin!(self.tell_what_is_lost())).await {
            Either::Left((Ok(_), _)) => Status::unavailable("the store has stopped"),
            Either::Left((Err(status), _)) => status,
            Either::Right((never, _)) => match never {},
        };
        Ended::Broken(status, began.elapsed())
    }

    async fn connect(&mut self) -> Result<Channel, String> {
        if self.address.is_none() || self.is_stale {
            match self.addresses.address(self.outbox.store()).await {
                Ok(address) => self.address = Some(address),
                // Nobody knows better: it may be where it was.
                Err(error)
                    if error.code == Code::SchedulerUnreachable && self.address.is_some() => {}
                Err(error) => return Err(error.to_string()),
            }
            self.is_stale = false;
        }
        dial(self.address.as_deref().unwrap_or_default()).await
    }

    async fn tell_what_is_lost(&self) -> std::convert::Infallible {
        loop {
            self.outbox.wait_for_lost().await;
            self.tell_lost();
            sleep(limits::TRANSPORT_RETRY_MAX / 4).await;
        }
    }

    /// Tells the store's peers whom their messages did not reach.
    fn tell_lost(&self) {
        let lost = self.outbox.take_lost();
        let Some(running) = self.shared.running() else { return };
        for (region, peer) in lost {
            running.inbox.unreachable(region, peer);
        }
    }
}

/// Opens a connection to a store.
///
/// # Errors
/// Why there is none.
pub(super) async fn dial(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is no address: {error}"))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits::TRANSPORT_PING_INTERVAL)
        .keep_alive_timeout(limits::TRANSPORT_PING_INTERVAL)
        .keep_alive_while_idle(true);
    match timeout(limits::TRANSPORT_DIAL_TIMEOUT, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(crate::placement::remote::root_cause(&error)),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// Whether the receiver is another one than was meant, or one that will not speak with this store.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), GrpcCode::FailedPrecondition | GrpcCode::Unimplemented)
}

/// The batches of one stream, made when the connection takes them.
struct Batches {
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    stream: u64,
    hello: Option<StreamHello>,
    /// Reused.
    messages: Vec<StoreMessage>,
    /// Reused.
    payload: Vec<u8>,
}

impl Batches {
    fn new(outbox: Arc<Outbox>, counters: Arc<Counters>, hello: StreamHello) -> Batches {
        let stream = outbox.stream();
        let (messages, payload) = (Vec::new(), Vec::new());
        Batches { outbox, counters, stream, hello: Some(hello), messages, payload }
    }

    fn encode(&mut self) -> Bytes {
        self.counters.add(Counter::Sent, self.messages.len() as u64);
        for message in self.messages.drain(..) {
            wire::put(message, &mut self.payload);
        }
        self.counters.add(Counter::SentBatches, 1);
        self.counters.add(Counter::SentBytes, self.payload.len() as u64);
        let payload = Bytes::copy_from_slice(&self.payload);
        self.payload.clear();
        // One large entry must not make every connection large for good.
        self.payload.shrink_to(2 * limits::TRANSPORT_BATCH_BYTES);
        payload
    }
}

impl Stream for Batches {
    type Item = MessageBatch;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MessageBatch>> {
        let this = &mut *self;
        if !ready!(this.outbox.poll_batch(this.stream, &mut this.messages, cx)) {
            return Poll::Ready(None);
        }
        let payload = this.encode();
        let crc32c = crc32c::crc32c(&payload);
        Poll::Ready(Some(MessageBatch { hello: this.hello.take(), payload, crc32c }))
    }
}

/// How long to wait before the next attempt: twice as long as before it, within limits, and not at the same time as
/// everybody else.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    rng: Rng,
}

impl Backoff {
    fn new(rng: Rng) -> Backoff {
        Backoff { next: limits::TRANSPORT_RETRY_MIN, rng }
    }

    fn reset(&mut self) {
        self.next = limits::TRANSPORT_RETRY_MIN;
    }

    fn go_to_max(&mut self) {
        self.next = limits::TRANSPORT_RETRY_MAX;
    }

    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(limits::TRANSPORT_RETRY_MAX);
        wait.mul_f64(0.5 + self.rng.f64() / 2.0)
    }
}

/// Asks the scheduler where a store is, and dials it.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn dial_store(
    addresses: &dyn Addresses,
    store: StoreId,
) -> Result<Channel, String> {
    let address = addresses.address(store).await.map_err(|error| error.to_string())?;
    dial(&address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_differ() {
        let mut backoff = Backoff::new(Rng::new(1));
        let waits: Vec<Duration> = (0..8).map(|_| backoff.next()).collect();
        for (number, wait) in waits.iter().enumerate() {
            let most =
                (limits::TRANSPORT_RETRY_MIN * (1 << number)).min(limits::TRANSPORT_RETRY_MAX);
            assert!(most / 2 <= *wait && *wait <= most, "{waits:?}");
        }
        assert_ne!(waits[6], waits[7]);
        backoff.reset();
        assert!(backoff.next() <= limits::TRANSPORT_RETRY_MIN);
        backoff.go_to_max();
        assert!(limits::TRANSPORT_RETRY_MAX / 2 <= backoff.next());
    }
}
