//! tinykv, or any TiKV, by `BatchCommands`: messages of many requests in one stream per connection and store.
//!
//! Requests in flight lie in slots; a request's id is its slot and how often the slot was used, so that a late or
//! doubled answer is recognised. One task per stream reads answers, in whatever order and grouping they come, frees
//! the slots and puts the ends on a list that the loop empties. Nothing is spawned and no channel is made per request.
//!
//! When a stream breaks, everything in flight on it has failed, and the stream is opened again. A request with a
//! region error leaves the fast path: it keeps its slot, and a task of its own finds the new route and sends it again,
//! alone.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use proto::{
    errorpb,
    tikvpb::{BatchCommandsResponse, batch_commands_response as response},
};
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
    /// Where it was sent; `None` while that is being found out.
    route: Option<Rc<Route>>,
    /// How often it was turned away.
    attempt: u32,
}

impl InFlight {
    fn is_on(&self, store: &Store) -> bool {
        self.route.as_ref().is_some_and(|route| route.store.id == store.id)
    }

    fn complete(self, result: Result<(), OpError>) -> Completion {
        Completion { began: self.began, is_put: self.op.is_put(), result }
    }
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

    /// The request with this id, unless it has ended.
    fn get(&mut self, id: u64) -> Option<&mut InFlight> {
        let slot = self.slots.get_mut((id & u64::from(u32::MAX)) as usize)?;
        slot.request.as_mut().filter(|_| u64::from(slot.uses) == id >> 32)
    }

    /// Frees the slot of this id, unless the request has ended.
    fn remove(&mut self, id: u64) -> Option<InFlight> {
        self.get(id)?;
        let index = (id & u64::from(u32::MAX)) as u32;
        self.free.push(index);
        self.slots[index as usize].request.take()
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
            self.0.routes.forget(store.id);
        }
    }

    /// Finds the route of a request that has none, after `error` if it was turned away, and sends it in a message of
    /// its own.
    fn reroute(&self, id: u64, turned_away: Option<(Rc<Route>, errorpb::Error)>) {
        let stream = self.clone();
        spawn_local(async move {
            let inner = &stream.0;
            let found = {
                let mut slots = inner.slots.borrow_mut();
                let Some(request) = slots.get(id) else { return };
                (request.op.key().clone(), request.attempt)
            };
            let (key, attempt) = found;
            let route = match turned_away {
                Some((route, error)) => recover(&inner.routes, &key, route, error, attempt).await,
                None => inner.routes.refresh(&key, None, None).await,
            };
            match route {
                Ok(route) => {
                    let mut message = BatchMessage::with_capacity(1);
                    if inner.push(&mut message, id, &route) {
                        stream.send(&route.store, message);
                    }
                }
                Err(error) => {
                    inner.end(id, Err(error));
                    inner.changed.notify_one();
                }
            }
        });
    }
}

impl BatchConnection for BatchStream {
    fn start(&self, ops: &mut Vec<(Op, Instant)>) {
        // Usually one store, hence one message.
        let mut messages: Vec<(Rc<Store>, BatchMessage)> = Vec::with_capacity(1);
        let expected = ops.len();
        for (op, began) in ops.drain(..) {
            let route = self.0.routes.find(op.key());
            let request = InFlight { op, began, route: None, attempt: 0 };
            let id = self.0.slots.borrow_mut().insert(request);
            let Some(route) = route else {
                self.reroute(id, None);
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
            self.0.push(message, id, &route);
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

impl Inner {
    /// Adds a request, which goes to `route`, to a message. False if it has been given up.
    fn push(&self, message: &mut BatchMessage, id: u64, route: &Rc<Route>) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(request) = slots.get(id) else { return false };
        let scan_end = route.end_before(self.dataset.end());
        message.push(id, &route.context_field, &request.op, scan_end);
        request.route = Some(route.clone());
        true
    }

    /// The request with this id has ended, unless it was given up or answered before.
    fn end(&self, id: u64, result: Result<(), OpError>) {
        let request = self.slots.borrow_mut().remove(id);
        self.done.borrow_mut().extend(request.map(|request| request.complete(result)));
    }

    /// Takes in one message of answers.
    fn answered(self: &Rc<Inner>, message: BatchCommandsResponse) {
        for (id, answer) in message.request_ids.into_iter().zip(message.responses) {
            let mut slots = self.slots.borrow_mut();
            let Some(request) = slots.get(id) else { continue };
            match self.judge(&request.op, answer) {
                Answer::Done(result) => {
                    drop(slots);
                    self.end(id, result);
                }
                Answer::RegionError(error) => {
                    request.attempt += 1;
                    // Without a route it is being sent again already: the answer came twice.
                    let Some(route) = request.route.take() else { continue };
                    BatchStream(self.clone()).reroute(id, Some((route, *error)));
                }
            }
        }
        self.changed.notify_one();
    }

    fn judge(&self, op: &Op, answer: response::Response) -> Answer {
        use response::response::Cmd;
        match (answer.cmd, op) {
            (Some(Cmd::RawGet(answer)), Op::Get { key }) => get_answer(&self.dataset, key, answer),
            (Some(Cmd::RawPut(answer)), Op::Put { .. }) => put_answer(answer),
            (Some(Cmd::RawScan(answer)), Op::Scan { .. }) => scan_answer(&self.dataset, answer),
            _ => Answer::Done(Err(OpError::Refused("the answer is to another command".to_owned()))),
        }
    }

    /// The stream to a store is broken: everything in flight on it has failed, and its regions may be led by others.
    fn broken(&self, store: &Store, reason: &OpError) {
        let requests = self.slots.borrow_mut().remove_all(|request| request.is_on(store));
        let failed = requests.into_iter().map(|request| request.complete(Err(reason.clone())));
        self.done.borrow_mut().extend(failed);
        self.changed.notify_one();
        self.routes.forget(store.id);
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
    let mut client = store.stream_client(index);
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
        let route = routes.find(&key);
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
