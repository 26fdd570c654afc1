//! Snapshots from store to store.

use std::num::NonZeroU64;

use bytes::Bytes;
use prost::Message as _;
use proto::internal::{
    SnapshotBegin, SnapshotData, SnapshotEnd, SnapshotPart, snapshot_part::Part,
};
use raft::MessageBody;
use raftstore::message::MessageBody as StoreBody;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use types::{StoreId, limits};

use super::{
    messages::{OWN, peer},
    node::{CLUSTER, Directory, Made, Node, describe},
};
use crate::transport::{Counter, Options, wire};

const OTHER: StoreId = StoreId(2);

async fn pair() -> (Node, Node) {
    let directory = Directory::default();
    (Node::start(OWN, &directory).await, Node::start(OTHER, &directory).await)
}

/// Bytes that differ from place to place.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn begin(node: &Node, made: &Made) -> SnapshotPart {
    let message = Bytes::from(wire::to_wire(made.message.clone()).encode_to_vec());
    let crc32c = crc32c::crc32c(&message);
    let begin = SnapshotBegin { hello: Some(node.hello()), message, crc32c };
    SnapshotPart { part: Some(Part::Begin(begin)) }
}

fn data(offset: u64, data: &[u8]) -> SnapshotPart {
    let crc32c = crc32c::crc32c(data);
    let data = Bytes::copy_from_slice(data);
    SnapshotPart { part: Some(Part::Data(SnapshotData { offset, data, crc32c })) }
}

fn end(bytes: &[u8]) -> SnapshotPart {
    let end = SnapshotEnd { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) };
    SnapshotPart { part: Some(Part::End(end)) }
}

/// What `node` answers to these parts.
async fn say(node: &Node, parts: Vec<SnapshotPart>) -> Result<(), Status> {
    let answer = node.client().await.snapshot(tokio_stream::iter(parts)).await;
    answer.map(|_| ())
}

fn told_of(made: &Made, arrived: bool) -> (types::RegionId, types::PeerId, bool) {
    (made.message.region_id, made.message.to.id, arrived)
}

#[tokio::test]
async fn a_snapshot_arrives_byte_for_byte_before_its_message() {
    let (own, other) = pair().await;
    let bytes = content(5 * limits::SNAPSHOT_PART_BYTES + 12_345);
    let made = own.make(4, OTHER, &bytes);
    own.send_snapshot(&made);
    let told = other.told(|told| !told.messages.is_empty()).await;
    assert_eq!(told.messages, std::slice::from_ref(&made.message));
    assert!(other.received(&made).as_ref() == Some(&bytes));
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, true)]);
    assert_eq!(own.count(Counter::SnapshotsSent), 1);
    assert_eq!(own.count(Counter::SnapshotBytesSent), bytes.len() as u64);
    other.until(|other| other.count(Counter::SnapshotsReceived) == 1).await;
    assert_eq!(other.count(Counter::SnapshotBytesReceived), bytes.len() as u64);
    assert_eq!(other.files().len(), 1);
}

#[tokio::test]
async fn many_snapshots_wait_for_their_turn_and_each_is_told_of_once() {
    let (own, other) = pair().await;
    let count = 3 * limits::SNAPSHOT_SENDS_MAX as u64;
    let all: Vec<Made> =
        (1..=count).map(|region| own.make(region, OTHER, &content(100_000))).collect();
    all.iter().for_each(|made| own.send_snapshot(made));
    let mut told = own.told(|told| told.snapshots.len() == all.len()).await.snapshots;
    told.sort();
    assert_eq!(told, all.iter().map(|made| told_of(made, true)).collect::<Vec<_>>());
    assert_eq!(other.told_now().messages.len(), all.len());
}

#[tokio::test]
async fn a_snapshot_without_a_file_or_a_receiver_is_told_of_as_lost() {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    let nowhere = own.make(1, OTHER, b"bytes");
    own.send_snapshot(&nowhere);
    let told = own.told(|told| told.snapshots.len() == 1).await;
    assert_eq!(told.snapshots, [told_of(&nowhere, false)]);
    let other = Node::start(OTHER, &directory).await;
    let no_file = describe(2, OTHER, 5);
    own.send_snapshot(&no_file);
    let told = own.told(|told| told.snapshots.len() == 2).await;
    assert_eq!(told.snapshots[1], told_of(&no_file, false));
    let mut other_file = own.make(3, OTHER, b"bytes");
    other_file.descriptor.bytes += 1;
    own.send_snapshot(&other_file);
    let told = own.told(|told| told.snapshots.len() == 3).await;
    assert_eq!(told.snapshots[2], told_of(&other_file, false));
    assert!(other.files().is_empty());
    assert_eq!(own.count(Counter::SnapshotsNotSent), 3);
}

#[tokio::test]
async fn a_full_disk_ends_the_snapshot_and_leaves_nothing() {
    let (own, other) = pair().await;
    other.fs.set_capacity(Some(1 << 20));
    let made = own.make(1, OTHER, &content(3 << 20));
    own.send_snapshot(&made);
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, false)]);
    other.until(|other| other.files().is_empty()).await;
    assert!(other.told_now().messages.is_empty());
}

#[tokio::test]
async fn a_sync_that_fails_is_no_arrival() {
    let (own, other) = pair().await;
    other.fs.fail_sync(0);
    let made = own.make(1, OTHER, b"bytes");
    own.send_snapshot(&made);
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, false)]);
    assert!(other.told_now().messages.is_empty());
}

#[tokio::test]
async fn a_store_with_too_much_to_do_has_not_got_the_snapshot() {
    let (own, other) = pair().await;
    *other.inbox.room.lock().unwrap() = 0;
    let made = own.make(1, OTHER, b"bytes");
    own.send_snapshot(&made);
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, false)]);
    assert_eq!(other.count(Counter::SnapshotsNotReceived), 1);
}

#[tokio::test]
async fn a_sender_that_goes_away_in_the_middle_leaves_nothing() {
    let (_own, other) = pair().await;
    let made = describe(1, OTHER, 1000);
    let (parts, sent) = mpsc::channel(8);
    parts.send(begin(&other, &made)).await.unwrap();
    parts.send(data(0, &content(500))).await.unwrap();
    let mut client = other.client().await;
    let answer = tokio::spawn(async move { client.snapshot(ReceiverStream::new(sent)).await });
    other.until(|other| other.count(Counter::SnapshotBytesReceived) == 500).await;
    assert_eq!(other.files().len(), 1);
    answer.abort();
    other.until(|other| other.files().is_empty()).await;
    assert!(other.told_now().messages.is_empty());
}

#[tokio::test]
async fn a_receiver_that_stops_in_the_middle_is_told_of_and_leaves_nothing() {
    let directory = Directory::default();
    // So slow that it does not arrive while the test runs.
    let options = Options { snapshot_bytes_per_second: NonZeroU64::new(1000) };
    let own = Node::start_in(CLUSTER, OWN, &directory, options).await;
    let other = Node::start(OTHER, &directory).await;
    let made = own.make(1, OTHER, &content(2 * limits::SNAPSHOT_PART_BYTES));
    own.send_snapshot(&made);
    other.until(|other| 0 < other.count(Counter::SnapshotBytesReceived)).await;
    other.transport.stop();
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, false)]);
    other.until(|other| other.files().is_empty()).await;
}

#[tokio::test]
async fn a_snapshot_keeps_to_its_rate() {
    let directory = Directory::default();
    let rate = 10 * limits::SNAPSHOT_PART_BYTES as u64;
    let options = Options { snapshot_bytes_per_second: NonZeroU64::new(rate) };
    let own = Node::start_in(CLUSTER, OWN, &directory, options).await;
    let other = Node::start(OTHER, &directory).await;
    let made = own.make(1, OTHER, &content(3 * limits::SNAPSHOT_PART_BYTES));
    let began = Instant::now();
    own.send_snapshot(&made);
    other.told(|told| !told.messages.is_empty()).await;
    // The third part begins no sooner than two parts' time after the first.
    assert!(std::time::Duration::from_millis(200) <= began.elapsed());
}

#[tokio::test]
async fn more_than_a_few_at_once_are_refused() {
    let (own, other) = pair().await;
    let mut streams = Vec::new();
    for region in 1..=limits::SNAPSHOT_RECEIVES_MAX as u64 {
        let (parts, sent) = mpsc::channel(8);
        parts.send(begin(&other, &describe(region, OTHER, 10))).await.unwrap();
        let mut client = other.client().await;
        let answer = tokio::spawn(async move { client.snapshot(ReceiverStream::new(sent)).await });
        streams.push((parts, answer));
    }
    other.until(|other| other.files().len() == streams.len()).await;
    let one_more = describe(9, OTHER, 10);
    let status = say(&other, vec![begin(&other, &one_more)]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let made = own.make(9, OTHER, b"bytes");
    own.send_snapshot(&made);
    let told = own.told(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [told_of(&made, false)]);
    // One ends, and there is room.
    let (parts, answer) = streams.remove(0);
    parts.send(data(0, b"0123456789")).await.unwrap();
    parts.send(end(b"0123456789")).await.unwrap();
    assert!(answer.await.unwrap().is_ok());
    own.send_snapshot(&made);
    let told = own.told(|told| told.snapshots.len() == 2).await;
    assert_eq!(told.snapshots[1], told_of(&made, true));
}

#[tokio::test]
async fn parts_that_do_not_make_the_whole_file_are_refused() {
    let (_own, other) = pair().await;
    let bytes = content(1000);
    let made = describe(1, OTHER, 1000);
    let refused = async |parts: Vec<SnapshotPart>, code: Code| {
        let mut all = vec![begin(&other, &made)];
        all.extend(parts);
        assert_eq!(say(&other, all).await.unwrap_err().code(), code);
        other.until(|other| other.files().is_empty()).await;
    };
    let (first, second) = (data(0, &bytes[..500]), data(500, &bytes[500..]));
    let mut damaged = second.clone();
    if let Some(Part::Data(data)) = &mut damaged.part {
        data.crc32c ^= 1;
    }
    refused(vec![first.clone(), damaged, end(&bytes)], Code::DataLoss).await;
    refused(vec![second.clone(), end(&bytes)], Code::InvalidArgument).await;
    refused(vec![first.clone(), first.clone(), end(&bytes)], Code::InvalidArgument).await;
    refused(vec![first.clone(), second.clone()], Code::DataLoss).await;
    refused(vec![first.clone(), end(&bytes[..500])], Code::InvalidArgument).await;
    refused(vec![first.clone(), end(&bytes)], Code::DataLoss).await;
    let other_bytes = vec![1; 1000];
    refused(vec![first.clone(), second.clone(), end(&other_bytes)], Code::DataLoss).await;
    refused(vec![data(0, &[bytes.clone(), bytes.clone()].concat())], Code::Internal).await;
    refused(vec![begin(&other, &made)], Code::InvalidArgument).await;
    refused(vec![SnapshotPart { part: None }], Code::InvalidArgument).await;
    assert!(other.told_now().messages.is_empty());
    let whole = vec![begin(&other, &made), first, second, end(&bytes)];
    say(&other, whole).await.unwrap();
    assert_eq!(other.told_now().messages.len(), 1);
}

/// A store stops when its own files make no sense, so that these must not become its files.
#[tokio::test]
async fn what_is_not_the_snapshot_of_its_message_is_refused() {
    let (_own, other) = pair().await;
    let refused = async |spoil: fn(&mut Made)| {
        let mut made = describe(1, OTHER, 10);
        spoil(&mut made);
        let status = say(&other, vec![begin(&other, &made)]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    };
    fn snapshot(made: &mut Made) -> &mut raft::Snapshot {
        let StoreBody::Raft { message, .. } = &mut made.message.body else { panic!("it is one") };
        let MessageBody::Snapshot(snapshot) = &mut message.body else { panic!("it is one") };
        snapshot
    }
    refused(|made| snapshot(made).data = Bytes::from_static(b"garbage")).await;
    refused(|made| snapshot(made).meta.index += 1).await;
    refused(|made| made.message.region_id.0 += 1).await;
    refused(|made| made.message.to = peer(1, StoreId(3))).await;
    refused(|made| made.message.to.id.0 += 1).await;
    refused(|made| made.message.body = StoreBody::AmIMember).await;
    let mut wrong = begin(&other, &describe(1, OTHER, 10));
    if let Some(Part::Begin(begin)) = &mut wrong.part {
        begin.hello.as_mut().unwrap().cluster_id += 1;
    }
    assert_eq!(say(&other, vec![wrong]).await.unwrap_err().code(), Code::FailedPrecondition);
    let status = say(&other, vec![data(0, b"bytes")]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(other.files().is_empty());
}
