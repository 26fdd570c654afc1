//! Snapshots from store to store: a message, and the file that it speaks of.
//!
//! The sender says first what it has, and the receiver refuses at once what it can't take. Then the bytes follow, as
//! fast as the receiver's disk takes them: HTTP/2's windows hold back the sender, who reads its file only as fast. Each
//! part has its place and a checksum, and the end has the length and the checksum of the whole. The message is
//! delivered when the file is whole and durable under its name, and only then is the sender answered. Nothing is
//! resumed: what breaks is made and sent again when Raft asks again.
//!
//! All reads and writes of files run on the blocking pool.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use prost::Message as _;
use proto::internal::{
    SnapshotBegin, SnapshotData, SnapshotEnd, SnapshotPart, StreamHello, snapshot_part::Part,
    store_transport_client::StoreTransportClient,
};
use raft::MessageBody;
use raftstore::{
    StoreMessage,
    message::MessageBody as StoreBody,
    shell::Inbox,
    snapshot::{Descriptor, Receiving, Sending},
};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Status, Streaming};
use types::{PeerId, RegionId, StoreId, limits};

use super::{
    Addresses, Running, Shared,
    connect::dial_store,
    counters::Counter,
    receive::{check_stores, refuse},
    wire::{self, WireError},
};
use crate::store_node::disk_space;

/// Room for the snapshots that leave.
#[derive(Debug)]
pub(super) struct Sends {
    waiting: AtomicUsize,
    places: Semaphore,
}

impl Default for Sends {
    fn default() -> Sends {
        let places = Semaphore::new(limits::SNAPSHOT_SENDS_MAX);
        Sends { waiting: AtomicUsize::new(0), places }
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None`: too many wait already.
    fn begin(waiting: &'a AtomicUsize) -> Option<Waiting<'a>> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let counted = Waiting(waiting);
        (before < limits::SNAPSHOT_SENDS_WAITING_MAX).then_some(counted)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says once what became of a snapshot, however its sending ends.
struct Outcome {
    inbox: Arc<dyn Inbox>,
    region: RegionId,
    to: PeerId,
    arrived: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.inbox.snapshot_sent(self.region, self.to, self.arrived);
    }
}

/// Sends a snapshot, or gives it up, and says so.
pub(super) async fn send(
    shared: Arc<Shared>,
    addresses: Arc<dyn Addresses>,
    sends: Arc<Sends>,
    message: Box<StoreMessage>,
    descriptor: Descriptor,
    file: PathBuf,
) {
    let Some(running) = shared.wait_until_running().await else { return };
    let (region, to) = (message.region_id, message.to);
    let inbox = running.inbox.clone();
    let mut outcome = Outcome { inbox, region, to: to.id, arrived: false };
    let sent = tokio::select! {
        sent = send_one(&shared, &*addresses, &running, &sends, &message, &descriptor, &file) => sent,
        () = shared.stopped() => Err("the store stops".to_owned()),
    };
    match sent {
        Ok(()) => {
            outcome.arrived = true;
            shared.counters.add(Counter::SnapshotsSent, 1);
            tracing::info!(%region, store = %to.store_id, bytes = descriptor.bytes, "sent a snapshot");
        }
        Err(problem) => {
            shared.counters.add(Counter::SnapshotsNotSent, 1);
            tracing::warn!(%region, store = %to.store_id, problem, "a snapshot was not sent");
        }
    }
}

async fn send_one(
    shared: &Arc<Shared>,
    addresses: &dyn Addresses,
    running: &Running,
    sends: &Sends,
    message: &StoreMessage,
    descriptor: &Descriptor,
    file: &Path,
) -> Result<(), String> {
    let waiting = Waiting::begin(&sends.waiting).ok_or("too many wait to be sent")?;
    let place = timeout(limits::SNAPSHOT_WAIT_MAX, sends.places.acquire());
    let place = place.await.map_err(|_| "it waited too long to be sent")?;
    let _place = place.map_err(|error| error.to_string())?;
    drop(waiting);
    let (snapshots, path) = (running.snapshots.clone(), file.to_owned());
    let opened = blocking(move || snapshots.send(&path)).await?;
    let sending = opened.map_err(|error| error.to_string())?;
    if sending.bytes() != descriptor.bytes {
        let (found, said) = (sending.bytes(), descriptor.bytes);
        return Err(format!("its file has {found} bytes, not {said}"));
    }
    let slowest = match shared.options.snapshot_bytes_per_second {
        Some(rate) => rate.get().div_ceil(2).min(limits::SNAPSHOT_BYTES_PER_SECOND_MIN),
        None => limits::SNAPSHOT_BYTES_PER_SECOND_MIN,
    };
    let deadline = limits::SNAPSHOT_STALL_MAX + Duration::from_secs(descriptor.bytes / slowest);
    let store = message.to.store_id;
    let sent = timeout(deadline, async {
        // For itself: what travels on a connection shares its windows and its order.
        let channel = dial_store(addresses, store).await?;
        let parts = parts(shared.clone(), shared.hello(store), message, sending);
        let answer = StoreTransportClient::new(channel).snapshot(parts).await;
        answer.map_err(|status| format!("{}: {}", status.code(), status.message()))
    });
    sent.await.map_err(|_| "it took too long")??;
    Ok(())
}

/// What is sent of a file so far.
struct Progress {
    shared: Arc<Shared>,
    sending: Sending,
    next: Next,
    offset: u64,
    crc32c: u32,
    began: Instant,
}

enum Next {
    Begin(SnapshotPart),
    Data,
    Nothing,
}

/// The parts of a snapshot. If its file can't be read, they end without the last one, which no receiver takes.
fn parts(
    shared: Arc<Shared>,
    hello: StreamHello,
    message: &StoreMessage,
    sending: Sending,
) -> impl Stream<Item = SnapshotPart> + Send + 'static {
    let message = Bytes::from(wire::to_wire(message.clone()).encode_to_vec());
    let crc32c = crc32c::crc32c(&message);
    let begin = Part::Begin(SnapshotBegin { hello: Some(hello), message, crc32c });
    let next = Next::Begin(SnapshotPart { part: Some(begin) });
    let began = Instant::now();
    let progress = Progress { shared, sending, next, offset: 0, crc32c: 0, began };
    stream::unfold(progress, |mut progress| async {
        let part = progress.part().await?;
        Some((part, progress))
    })
}

impl Progress {
    async fn part(&mut self) -> Option<SnapshotPart> {
        match std::mem::replace(&mut self.next, Next::Data) {
            Next::Begin(part) => Some(part),
            Next::Nothing => None,
            Next::Data => {
                let part = match self.sending.bytes() - self.offset {
                    0 => {
                        self.next = Next::Nothing;
                        Part::End(SnapshotEnd { bytes: self.offset, crc32c: self.crc32c })
                    }
                    _ => Part::Data(self.data().await?),
                };
                Some(SnapshotPart { part: Some(part) })
            }
        }
    }

    async fn data(&mut self) -> Option<SnapshotData> {
        self.keep_to_rate().await;
        let (sending, offset) = (self.sending.clone(), self.offset);
        let read = blocking(move || sending.read(offset, limits::SNAPSHOT_PART_BYTES)).await;
        let data = match read.and_then(|read| read.map_err(|error| error.to_string())) {
            Ok(data) => data,
            Err(error) => {
                tracing::warn!(error, "the file of a snapshot cannot be read");
                return None;
            }
        };
        self.offset += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data);
        self.shared.counters.add(Counter::SnapshotBytesSent, data.len() as u64);
        Some(SnapshotData { offset, crc32c: crc32c::crc32c(&data), data })
    }

    /// Waits until what was sent so far is not more than its rate allows.
    async fn keep_to_rate(&self) {
        if let Some(rate) = self.shared.options.snapshot_bytes_per_second {
            let due = Duration::from_secs_f64(self.offset as f64 / rate.get() as f64);
            sleep_until(self.began + due).await;
        }
    }
}

/// Takes a snapshot: returns when it lies durably in its place and its message is delivered.
///
/// # Errors
/// It is refused, damaged, has stood still, or its end is missing. Nothing of it is left then, with one exception: a
/// whole file whose message finds no room stays. It may have just taken the place of the same snapshot, which is being
/// installed; the next one with its name takes its place.
pub(super) async fn receive(
    shared: &Arc<Shared>,
    places: &Semaphore,
    greet: impl Fn(u64, Result<StoreId, Status>) -> Result<StoreId, Status>,
    mut parts: Streaming<SnapshotPart>,
) -> Result<(), Status> {
    let Some(running) = shared.running() else {
        return Err(Status::unavailable("the store is starting"));
    };
    let Some(Part::Begin(begin)) = next(&mut parts).await? else {
        return Err(Status::invalid_argument("a snapshot begins with what it is"));
    };
    let sender = begin.hello.as_ref().map_or(0, |hello| hello.from_store);
    let from = greet(sender, shared.check_hello(begin.hello))?;
    let message = wire::check(&begin.message, begin.crc32c)
        .and_then(|()| wire::message(begin.message))
        .and_then(|message| check_stores(shared, from, &message).map(|()| message))
        .map_err(|error| refuse(shared, &error))?;
    let descriptor = descriptor(&message).map_err(|error| refuse(shared, &error))?;
    // Held to the end.
    let Ok(_place) = places.try_acquire() else {
        return Err(Status::resource_exhausted("other snapshots are being received"));
    };
    let snapshots = running.snapshots.clone();
    let begun = descriptor.clone();
    let mut file = Partial::new(
        on_disk(move || {
            match disk_space(snapshots.dir()) {
                // Both are 0 where nobody knows.
                (capacity, available) if 0 < capacity && available < begun.bytes => {
                    Err(Status::resource_exhausted("there is no room for it on the disk"))
                }
                _ => snapshots.receive(&begun).map_err(|error| failed(&error)),
            }
        })
        .await?,
    );
    let mut whole = 0;
    let end = loop {
        match next(&mut parts).await? {
            Some(Part::Data(part)) => {
                wire::check(&part.data, part.crc32c).map_err(|error| refuse(shared, &error))?;
                whole = crc32c::crc32c_append(whole, &part.data);
                shared.counters.add(Counter::SnapshotBytesReceived, part.data.len() as u64);
                file.write(part).await?;
            }
            Some(Part::End(end)) => break end,
            Some(Part::Begin(_)) => {
                return Err(Status::invalid_argument("a snapshot begins only once"));
            }
            None => return Err(Status::data_loss("the end of the snapshot is missing")),
        }
    };
    if end.bytes != descriptor.bytes {
        return Err(Status::invalid_argument("the snapshot is not as long as it was said to be"));
    }
    if end.crc32c != whole {
        let damaged = WireError::Checksum { sent: end.crc32c, computed: whole };
        return Err(refuse(shared, &damaged));
    }
    file.finish().await?;
    match running.inbox.deliver(vec![message]) {
        0 => Err(Status::resource_exhausted("the store has too much to do")),
        _ => Ok(()),
    }
}

/// The next part. An error if none comes for long.
async fn next(parts: &mut Streaming<SnapshotPart>) -> Result<Option<Part>, Status> {
    match timeout(limits::SNAPSHOT_STALL_MAX, parts.message()).await {
        Ok(Ok(Some(SnapshotPart { part: Some(part) }))) => Ok(Some(part)),
        Ok(Ok(Some(SnapshotPart { part: None }))) => {
            Err(Status::invalid_argument("a part of a kind that is not known"))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("the snapshot has stood still")),
    }
}

/// What the file will be, as the message says. Only what a store can do something with is taken: it stops when it finds
/// that its own files make no sense.
fn descriptor(message: &StoreMessage) -> Result<Descriptor, WireError> {
    let StoreBody::Raft { message: raft, .. } = &message.body else {
        return Err(WireError::Invalid("snapshot: its message is of another kind"));
    };
    let MessageBody::Snapshot(snapshot) = &raft.body else {
        return Err(WireError::Invalid("snapshot: its message is of another kind"));
    };
    let descriptor = Descriptor::decode(&snapshot.data)
        .map_err(|_| WireError::Invalid("description of a snapshot"))?;
    let region = &descriptor.region;
    let is_of_message = region.id == message.region_id
        && (descriptor.applied.index, descriptor.applied.term)
            == (snapshot.meta.index, snapshot.meta.term)
        && region.peer_on(message.to.store_id).is_some_and(|peer| peer.id == message.to.id);
    match is_of_message {
        true => Ok(descriptor),
        false => Err(WireError::Invalid("snapshot: its message speaks of another one")),
    }
}

/// A file that is being received. Dropped before its end it is removed, where that holds up nobody.
struct Partial {
    file: Option<Receiving>,
    pool: Handle,
}

impl Partial {
    fn new(file: Receiving) -> Partial {
        Partial { file: Some(file), pool: Handle::current() }
    }

    fn take(&mut self) -> Result<Receiving, Status> {
        self.file.take().ok_or_else(|| Status::internal("the file of the snapshot is gone"))
    }

    async fn write(&mut self, part: SnapshotData) -> Result<(), Status> {
        let mut file = self.take()?;
        if part.offset != file.written() {
            self.file = Some(file);
            return Err(Status::invalid_argument("a part of the snapshot is missing, or doubled"));
        }
        // If nobody waits for it any more, the file is dropped where it was written.
        let written =
            on_disk(move || file.write(&part.data).map(|()| file).map_err(|error| failed(&error)));
        self.file = Some(written.await?);
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Status> {
        let file = self.take()?;
        on_disk(move || file.finish().map_err(|error| failed(&error))).await
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            drop(self.pool.spawn_blocking(move || drop(file)));
        }
    }
}

fn failed(error: &raftstore::Error) -> Status {
    tracing::warn!(%error, "a snapshot was not received");
    Status::internal(error.to_string())
}

/// Runs something that uses a disk where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    blocking(work).await.unwrap_or_else(|error| Err(Status::internal(error)))
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, String>> {
    let work = tokio::task::spawn_blocking(work);
    async { work.await.map_err(|error| error.to_string()) }
}
