//! tinykv, or any TiKV, by `BatchCommands`: messages of many requests in one stream per connection and store.
//!
//! Requests in flight lie in slots; a request's id is its slot and how often the slot was used, so that a late or
//! doubled answer is recognised. One task per stream reads answers, in whatever order and grouping they come, frees
//! the slots and puts the ends on a list that the loop empties. Nothing is spawned and no channel is made per request.
//!
//! When a stream breaks, everything in flight on it has failed, and the stream is opened again. A request with a
//! region error leaves the fast path: a task of its own finds the new route and sends it again, alone.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use proto::tikvpb::{BatchCommandsResponse, batch_commands_response as response};
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_local,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, codegen::http::uri::PathAndQuery};

use super::{
    BatchConnection, Completion, OpError,
    routes::{Route, Routes, Store},
    tikv::{Answer, get_answer, put_answer, recover, scan_answer},
    wire::{self, BatchMessage, WireCodec},
};
use crate::{keys::Dataset, workload::Op};

/// Pause before a broken stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Messages that wait to be sent on one stream. There are never more than requests in flight, and the loops keep
/// those far below; beyond it requests fail.
const MESSAGES_WAITING_MAX: usize = 16 << 10;

/// One connection to each store, whose messages carry many requests.
#[derive(Clone)]
pub(crate) struct BatchStream(Rc<Inner>);

struct Inner {
    routes: Rc<Routes>,
    dataset: Rc<Dataset>,
    index: usize,
    slots: RefCell<Slots>,
    /// By store; absent until the first request to it. Senders of broken streams are closed.
    senders: RefCell<HashMap<u64, mpsc::Sender<BatchMessage>>>,
    done: RefCell<Vec<Completion>>,
    changed: Notify,
}

/// A request in flight.
struct Slot {
    /// How often the slot was used: the upper half of the request's id.
    uses: u32,
    request: Option<InFlight>,
}

struct InFlight {
    op: Op,
    began: Instant,
    route: Rc<Route>,
    /// Which try this is.
    attempt: u32,
}

/// The requests in flight.
#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// Takes a slot; returns the request's id.
    fn insert(&mut self, request: InFlight) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, request: None });
            u32::try_from(self.slots.len() - 1).expect("fewer requests in flight than 2^32")
        });
        let slot = &mut self.slots[index as usize];
        slot.uses = slot.uses.wrapping_add(1);
        slot.request = Some(request);
        u64::from(slot.uses) << 32 | u64::from(index)
    }

    /// The request with this id.
    fn get(&self, id: u64) -> Option<&InFlight> {
        self.slots.get((id & u64::from(u32::MAX)) as usize)?.request.as_ref()
    }

    /// Frees the slot of this id, if it is still the same request's.
    fn remove(&mut self, id: u64) -> Option<InFlight> {
        let index = (id & u64::from(u32::MAX)) as u32;
        let slot =
            self.slots.get_mut(index as usize).filter(|slot| u64::from(slot.uses) == id >> 32)?;
        let request = slot.request.take()?;
        self.free.push(index);
        Some(request)
    }

    /// Frees the slots of all requests that `which` picks.
    fn remove_all(&mut self, which: impl Fn(&InFlight) -> bool) -> Vec<InFlight> {
        let mut removed = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(request) = slot.request.take_if(|request| which(request)) {
                self.free.push(index as u32);
                removed.push(request);
            }
        }
        removed
    }
}

impl BatchStream {
    /// Connection number `index` to each store.
    pub(super) fn new(routes: Rc<Routes>, dataset: Rc<Dataset>, index: usize) -> BatchStream {
        BatchStream(Rc::new(Inner {
            routes,
            dataset,
            index,
            slots: RefCell::default(),
            senders: RefCell::default(),
            done: RefCell::default(),
            changed: Notify::new(),
        }))
    }

    /// Hands a message to the stream of its store.
    fn send(&self, store: &Rc<Store>, message: BatchMessage) {
        let mut senders = self.0.senders.borrow_mut();
        let sender = senders.entry(store.id).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
            spawn_local(run(Rc::downgrade(&self.0), store.clone(), receiver));
            sender
        });
        if let Err(error) = sender.try_send(message) {
            // Broken and not yet open again, or far too much in flight.
            let message = match error {
                mpsc::error::TrySendError::Full(message)
                | mpsc::error::TrySendError::Closed(message) => message,
            };
            for id in message.ids() {
                self.0.end(*id, Err(OpError::Rpc("the stream to the store is broken".to_owned())));
            }
            self.0.changed.notify_one();
        }
    }

    /// Sends one request in a message of its own.
    fn resend(&self, request: InFlight) {
        let store = request.route.store.clone();
        let mut message = BatchMessage::with_capacity(1);
        self.0.push(&mut message, request);
        self.send(&store, message);
    }
}

impl BatchConnection for BatchStream {
    fn start(&self, ops: &mut Vec<(Op, Instant)>) {
        // Usually one store, hence one message.
        let mut messages: Vec<(Rc<Store>, BatchMessage)> = Vec::with_capacity(1);
        let expected = ops.len();
        for (op, began) in ops.drain(..) {
            let Some(route) = self.0.routes.find(op.key()) else {
                self.find_route(op, began);
                continue;
            };
            let message =
                match messages.iter_mut().position(|(store, _)| store.id == route.store.id) {
                    Some(at) => &mut messages[at].1,
                    None => {
                        let message = BatchMessage::with_capacity(expected);
                        messages.push((route.store.clone(), message));
                        &mut messages.last_mut().expect("pushed above").1
                    }
                };
            self.0.push(message, InFlight { op, began, route, attempt: 0 });
        }
        for (store, message) in messages {
            self.send(&store, message);
        }
    }

    async fn completed(&self, out: &mut Vec<Completion>) {
        while self.0.done.borrow().is_empty() {
            self.0.changed.notified().await;
        }
        out.append(&mut self.0.done.borrow_mut());
    }

    fn abandon(&self) -> Vec<Instant> {
        let requests = self.0.slots.borrow_mut().remove_all(|_| true);
        let ended = std::mem::take(&mut *self.0.done.borrow_mut());
        let ended = ended.into_iter().map(|completion| completion.began);
        requests.into_iter().map(|request| request.began).chain(ended).collect()
    }
}

impl BatchStream {
    /// Asks for the route of a request that has none, then sends it.
    fn find_route(&self, op: Op, began: Instant) {
        let stream = self.clone();
        spawn_local(async move {
            match stream.0.routes.refresh(op.key(), None, None).await {
                Ok(route) => stream.resend(InFlight { op, began, route, attempt: 0 }),
                Err(error) => stream.0.complete(began, op.is_put(), Err(error)),
            }
        });
    }
}

impl Inner {
    /// Adds a request to a message and to the slots.
    fn push(&self, message: &mut BatchMessage, request: InFlight) {
        let mut slots = self.slots.borrow_mut();
        let id = slots.insert(request);
        let Some(InFlight { op, route, .. }) = slots.get(id) else { return };
        let scan_end = route.end_before(self.dataset.end());
        message.push(id, &route.context_field, op, scan_end);
    }

    /// The request with this id has ended.
    fn end(&self, id: u64, result: Result<(), OpError>) {
        let request = self.slots.borrow_mut().remove(id);
        // Not there: given up, or answered before.
        let Some(request) = request else { return };
        self.done.borrow_mut().push(Completion {
            began: request.began,
            is_put: request.op.is_put(),
            result,
        });
    }

    fn complete(&self, began: Instant, is_put: bool, result: Result<(), OpError>) {
        self.done.borrow_mut().push(Completion { began, is_put, result });
        self.changed.notify_one();
    }

    /// Takes in one message of answers.
    fn answered(self: &Rc<Inner>, message: BatchCommandsResponse) {
        for (id, answer) in message.request_ids.into_iter().zip(message.responses) {
            let request = self.slots.borrow_mut().remove(id);
            let Some(request) = request else { continue };
            let answer = match (answer.cmd, &request.op) {
                (Some(response::response::Cmd::RawGet(answer)), Op::Get { key }) => {
                    get_answer(&self.dataset, key, answer)
                }
                (Some(response::response::Cmd::RawPut(answer)), Op::Put { .. }) => {
                    put_answer(answer)
                }
                (Some(response::response::Cmd::RawScan(answer)), Op::Scan { .. }) => {
                    scan_answer(&self.dataset, answer)
                }
                _ => Answer::Done(Err(OpError::Refused(
                    "the answer is to another command".to_owned(),
                ))),
            };
            match answer {
                Answer::Done(result) => {
                    let is_put = request.op.is_put();
                    self.done.borrow_mut().push(Completion {
                        began: request.began,
                        is_put,
                        result,
                    });
                }
                Answer::RegionError(error) => {
                    let stream = BatchStream(self.clone());
                    let InFlight { op, began, route, attempt } = request;
                    let attempt = attempt + 1;
                    spawn_local(async move {
                        match recover(&stream.0.routes, op.key(), route, *error, attempt).await {
                            Ok(route) => stream.resend(InFlight { op, began, route, attempt }),
                            Err(error) => stream.0.complete(began, op.is_put(), Err(error)),
                        }
                    });
                }
            }
        }
        self.changed.notify_one();
    }

    /// The stream to a store is broken: everything in flight on it has failed.
    fn broken(&self, store: &Store, reason: &OpError) {
        let requests =
            self.slots.borrow_mut().remove_all(|request| request.route.store.id == store.id);
        let mut done = self.done.borrow_mut();
        done.extend(requests.into_iter().map(|request| Completion {
            began: request.began,
            is_put: request.op.is_put(),
            result: Err(reason.clone()),
        }));
        self.changed.notify_one();
    }
}

/// Keeps the stream to one store open and reads its answers, until the connection is dropped.
async fn run(
    connection: std::rc::Weak<Inner>,
    store: Rc<Store>,
    mut receiver: mpsc::Receiver<BatchMessage>,
) {
    loop {
        let reason = match read(&connection, &store, receiver).await {
            Ok(()) => OpError::Rpc("the store closed the stream".to_owned()),
            Err(status) => status.into(),
        };
        let Some(inner) = connection.upgrade() else { return };
        inner.broken(&store, &reason);
        drop(inner);
        tokio::time::sleep(REOPEN_PAUSE).await;
        let Some(inner) = connection.upgrade() else { return };
        let (sender, next) = mpsc::channel(MESSAGES_WAITING_MAX);
        inner.senders.borrow_mut().insert(store.id, sender);
        // What was handed to the old channel since is lost with it.
        inner.broken(&store, &reason);
        receiver = next;
    }
}

/// Opens the stream and reads answers until it ends.
async fn read(
    connection: &std::rc::Weak<Inner>,
    store: &Store,
    receiver: mpsc::Receiver<BatchMessage>,
) -> Result<(), Status> {
    let Some(index) = connection.upgrade().map(|inner| inner.index) else { return Ok(()) };
    let mut client = store.client(index);
    wire::ready(&mut client).await?;
    let path = PathAndQuery::from_static("/tikvpb.Tikv/BatchCommands");
    let messages = Request::new(ReceiverStream::new(receiver));
    let codec: WireCodec<BatchMessage, BatchCommandsResponse> = WireCodec::default();
    let mut answers = client.streaming(messages, path, codec).await?.into_inner();
    while let Some(message) = answers.message().await? {
        let Some(inner) = connection.upgrade() else { return Ok(()) };
        inner.answered(message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock;

    fn request(routes: &Routes) -> InFlight {
        let key = Bytes::from_static(b"k");
        let route = routes.find(&key).unwrap();
        InFlight { op: Op::Get { key }, began: clock::now(), route, attempt: 0 }
    }

    #[tokio::test(flavor = "local")]
    async fn late_and_doubled_answers_are_recognised() {
        let routes = Routes::fixed("127.0.0.1:1".to_owned(), 1).unwrap();
        let mut slots = Slots::default();
        let first = slots.insert(request(&routes));
        let second = slots.insert(request(&routes));
        assert_ne!(first, second);
        assert!(slots.remove(first).is_some());
        assert!(slots.remove(first).is_none(), "answered twice");
        let third = slots.insert(request(&routes));
        assert_eq!(slots.slots.len(), 2, "the slot is used again");
        assert!(slots.remove(first).is_none(), "an answer to the slot's earlier request");
        assert!(slots.remove(third).is_some());
        assert!(slots.remove(u64::MAX).is_none(), "an id that was never given");
        assert_eq!(slots.remove_all(|_| true).len(), 1);
        assert!(slots.remove(second).is_none());
    }
}
