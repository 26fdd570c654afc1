//! Messages from store to store, and streams that are refused.

use bytes::Bytes;
use proto::internal::{MessageBatch, StreamHello};
use raftstore::{StoreMessage, shell::Transport as _};
use tonic::{Code, Status};
use types::{ClusterId, StoreId, limits};

use super::{
    messages::{OWN, append, commit, heartbeat, numbered},
    node::{CLUSTER, Directory, Node, describe, numbers},
};
use crate::transport::{Counter, Options, wire};

const OTHER: StoreId = StoreId(2);

async fn pair() -> (Node, Node, Directory) {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    let other = Node::start(OTHER, &directory).await;
    (own, other, directory)
}

fn batch(hello: Option<StreamHello>, messages: &[StoreMessage]) -> MessageBatch {
    let mut payload = Vec::new();
    messages.iter().cloned().for_each(|message| wire::put(message, &mut payload));
    let payload = Bytes::from(payload);
    MessageBatch { hello, crc32c: crc32c::crc32c(&payload), payload }
}

/// What `node` answers to a stream of these batches.
async fn say(node: &Node, batches: Vec<MessageBatch>) -> Result<(), Status> {
    let answer = node.client().await.messages(tokio_stream::iter(batches)).await;
    answer.map(|_| ())
}

#[tokio::test]
async fn messages_arrive_in_the_order_in_which_they_were_sent() {
    let (own, other, _directory) = pair().await;
    for start in (0..10_000).step_by(100) {
        let sent = (start..start + 100).map(|number| numbered(number % 7, OTHER, number));
        own.transport.send(sent.collect());
    }
    let told = other.told(|told| told.messages.len() == 10_000).await;
    assert_eq!(numbers(&told.messages), (0..10_000).collect::<Vec<_>>());
    assert_eq!(own.count(Counter::Sent), 10_000);
    assert_eq!(other.count(Counter::Received), 10_000);
    assert_eq!(own.count(Counter::SentBatches), other.count(Counter::ReceivedBatches));
    assert_eq!(own.count(Counter::SentBytes), other.count(Counter::ReceivedBytes));
}

#[tokio::test]
async fn what_is_sent_at_once_goes_to_each_store_in_order() {
    let (own, other, directory) = pair().await;
    let third = Node::start(StoreId(3), &directory).await;
    let to = |number: u64| if number.is_multiple_of(3) { StoreId(3) } else { OTHER };
    own.transport.send((0..3000).map(|number| numbered(1, to(number), number)).collect());
    let told = third.told(|told| told.messages.len() == 1000).await;
    assert_eq!(numbers(&told.messages), (0..3000).step_by(3).collect::<Vec<_>>());
    let told = other.told(|told| told.messages.len() == 2000).await;
    let those: Vec<u64> = (0..3000).filter(|number| to(*number) == OTHER).collect();
    assert_eq!(numbers(&told.messages), those);
}

#[tokio::test]
async fn the_largest_entry_arrives_as_it_was() {
    let (own, other, _directory) = pair().await;
    let data = Bytes::from(vec![5; limits::ENTRY_BYTES_MAX]);
    let sent = vec![append(1, OTHER, data.clone()), append(1, OTHER, data), commit(1, OTHER)];
    own.transport.send(sent.clone());
    let told = other.told(|told| told.messages.len() == 3).await;
    assert!(told.messages == sent);
}

#[tokio::test]
async fn a_store_that_restarts_elsewhere_is_found_and_its_peers_were_told_of() {
    let (own, other, directory) = pair().await;
    own.transport.send(vec![heartbeat(1, OTHER)]);
    other.told(|told| !told.messages.is_empty()).await;
    other.kill().await;
    let told =
        own.send_until(|| heartbeat(1, OTHER), own.told(|told| !told.unreachable.is_empty())).await;
    assert_eq!(told.unreachable[0], (heartbeat(1, OTHER).region_id, heartbeat(1, OTHER).to.id));
    let other = Node::start(OTHER, &directory).await;
    own.send_until(|| heartbeat(1, OTHER), other.told(|told| !told.messages.is_empty())).await;
}

/// With its own patience alone a store would dial 30 times a minute, and this test would run out of its own.
#[tokio::test]
async fn a_store_that_is_heard_of_is_dialled_at_once() {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    let enough = own.until(|own| {
        own.transport.send(vec![heartbeat(1, OTHER)]);
        own.transport.shared.hear(OTHER);
        200 <= directory.asked()
    });
    enough.await;
}

#[tokio::test]
async fn the_address_is_asked_for_only_if_dialling_fails() {
    let (own, other, directory) = pair().await;
    own.transport.send(vec![heartbeat(1, OTHER)]);
    other.told(|told| !told.messages.is_empty()).await;
    // It ends the stream because of this, and is where it was.
    let mut wrong = heartbeat(2, OTHER);
    wrong.from.store_id = StoreId(9);
    own.transport.send(vec![wrong]);
    own.until(|own| 0 < own.count(Counter::Disconnects)).await;
    let again = other.told(|told| 1 < told.messages.len());
    own.send_until(|| heartbeat(1, OTHER), again).await;
    assert_eq!(directory.asked(), 1);
}

#[tokio::test]
async fn nobody_is_told_of_lost_answers() {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    own.transport.send(vec![numbered(1, OTHER, 1), heartbeat(2, OTHER)]);
    let told = own.told(|told| !told.unreachable.is_empty()).await;
    assert_eq!(told.unreachable, [(heartbeat(2, OTHER).region_id, heartbeat(2, OTHER).to.id)]);
    assert_eq!(own.count(Counter::DroppedDisconnected), 2);
}

#[tokio::test]
async fn a_store_that_takes_nothing_makes_the_queue_full_and_its_peers_are_told_of() {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    // It accepts connections, and reads nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    directory.set(OTHER, silent.local_addr().unwrap().to_string());
    let data = Bytes::from(vec![0; 1 << 20]);
    for region in 0..40 {
        own.transport.send(vec![append(region, OTHER, data.clone())]);
    }
    let dropped = own.count(Counter::DroppedFull);
    assert!((40 - 32..).contains(&dropped), "32 MiB fit: {dropped} were dropped");
    let told = own.told(|told| dropped as usize <= told.unreachable.len()).await;
    let last = append(39, OTHER, data);
    assert!(told.unreachable.contains(&(last.region_id, last.to.id)));
}

#[tokio::test]
async fn what_the_store_has_no_room_for_is_lost() {
    let (own, other, _directory) = pair().await;
    *other.inbox.room.lock().unwrap() = 3;
    own.transport.send((0..10).map(|number| numbered(1, OTHER, number)).collect());
    other.until(|other| other.count(Counter::Received) == 10).await;
    other.until(|other| other.count(Counter::ReceivedDropped) == 7).await;
    assert_eq!(numbers(&other.told_now().messages), [0, 1, 2]);
}

#[tokio::test]
async fn a_store_of_another_cluster_is_refused() {
    let directory = Directory::default();
    let own = Node::start(OWN, &directory).await;
    let other = Node::start_in(ClusterId(8), OTHER, &directory, Options::default()).await;
    own.transport.send(vec![heartbeat(1, OTHER)]);
    own.until(|own| 0 < own.count(Counter::Disconnects)).await;
    assert_eq!(other.count(Counter::Refused), 1);
    assert!(other.told_now().messages.is_empty());
}

#[tokio::test]
async fn a_stream_that_begins_wrongly_is_refused_with_a_reason() {
    let (_own, other, _directory) = pair().await;
    let refused = async |spoil: fn(&mut StreamHello), code: Code, reason: &str| {
        let mut hello = other.hello();
        spoil(&mut hello);
        let sent = vec![batch(Some(hello), &[heartbeat(1, OTHER)])];
        let status = say(&other, sent).await.expect_err("it is refused");
        assert_eq!((status.code(), status.message()), (code, reason));
    };
    let code = Code::FailedPrecondition;
    refused(|hello| hello.cluster_id = 8, code, "this is a store of cluster 7, not of 8").await;
    refused(|hello| hello.to_store = 3, code, "this is store 2, not 3").await;
    refused(|hello| hello.version = 9, code, "this is version 1 of the transport, not 9").await;
    let copied = "there is another store 2: was a data directory copied?";
    refused(|hello| hello.from_store = 2, code, copied).await;
    let status = say(&other, vec![batch(None, &[heartbeat(1, OTHER)])]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(other.count(Counter::Refused), 5);
    assert!(other.told_now().messages.is_empty());
    assert_eq!(CLUSTER, ClusterId(other.hello().cluster_id));
}

#[tokio::test]
async fn a_damaged_batch_ends_its_stream_and_nothing_of_it_is_delivered() {
    let (_own, other, _directory) = pair().await;
    let good = batch(Some(other.hello()), &[heartbeat(1, OTHER)]);
    let mut damaged = batch(None, &[heartbeat(2, OTHER)]);
    damaged.crc32c ^= 1;
    let after = batch(None, &[heartbeat(3, OTHER)]);
    let status = say(&other, vec![good, damaged, after]).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert_eq!(other.count(Counter::Damaged), 1);
    let told = other.told_now();
    assert_eq!(told.messages, [heartbeat(1, OTHER)]);
}

#[tokio::test]
async fn what_no_store_says_ends_the_stream() {
    let (_own, other, _directory) = pair().await;
    let third = StoreId(3);
    let mut of_another = heartbeat(1, OTHER);
    of_another.from.store_id = third;
    let snapshot = describe(1, OTHER, 10).message;
    for message in [heartbeat(1, third), of_another, snapshot] {
        let sent = batch(Some(other.hello()), &[heartbeat(9, OTHER), message]);
        let status = say(&other, vec![sent]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let payload = Bytes::from_static(b"\x05garbage");
    let crc32c = crc32c::crc32c(&payload);
    let garbage = MessageBatch { hello: Some(other.hello()), payload, crc32c };
    assert_eq!(say(&other, vec![garbage]).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(other.told_now().messages.is_empty());
}

#[tokio::test]
async fn a_snapshot_among_messages_is_not_sent() {
    let (own, other, _directory) = pair().await;
    own.transport.send(vec![describe(1, OTHER, 10).message, numbered(1, OTHER, 1)]);
    let told = other.told(|told| !told.messages.is_empty()).await;
    assert_eq!(numbers(&told.messages), [1]);
    assert_eq!(own.count(Counter::DroppedInvalid), 1);
}

#[tokio::test]
async fn streams_end_when_the_transport_stops_so_that_the_process_can() {
    let (own, other, _directory) = pair().await;
    own.transport.send(vec![heartbeat(1, OTHER)]);
    other.told(|told| !told.messages.is_empty()).await;
    other.transport.stop();
    other.drain().await;
    own.transport.stop();
    own.transport.send(vec![heartbeat(1, OTHER), heartbeat(1, StoreId(3))]);
}
