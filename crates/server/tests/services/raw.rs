//! Raw commands over the wire: unary, inside BatchCommands, and in the course's family.

use std::collections::BTreeMap;

use crate::common::{cluster, context, dial, tikv};
use proto::{
    kvrpcpb::{self, RawCasRequest, RawGetRequest, RawPutRequest, RawScanRequest},
    tikvpb::{
        BatchCommandsEmptyRequest, BatchCommandsRequest,
        batch_commands_request::{Request, request::Cmd as Command},
        batch_commands_response::response::Cmd as Reply,
    },
    tinykv::kvrpc,
    tinykvpb::tiny_kv_client::TinyKvClient,
};
use types::ApiMode;

fn put(context: &kvrpcpb::Context, key: &'static str, value: &'static str) -> RawPutRequest {
    RawPutRequest {
        context: Some(context.clone()),
        key: key.into(),
        value: value.into(),
        ..RawPutRequest::default()
    }
}

fn get(context: &kvrpcpb::Context, key: &'static str) -> RawGetRequest {
    RawGetRequest { context: Some(context.clone()), key: key.into(), ..RawGetRequest::default() }
}

#[tokio::test]
async fn unary_put_get_scan_and_cas() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, b"").await;
    let mut client = tikv(&server).await;
    for (key, value) in [("a", "1"), ("b", ""), ("c", "3")] {
        let answer = client.raw_put(put(&context, key, value)).await.unwrap().into_inner();
        assert_eq!((answer.region_error, answer.error.as_str()), (None, ""));
    }
    assert_eq!(client.raw_get(get(&context, "a")).await.unwrap().into_inner().value, "1");
    let empty = client.raw_get(get(&context, "b")).await.unwrap().into_inner();
    assert_eq!((empty.value.len(), empty.not_found), (0, false), "an empty value is a value");
    assert!(client.raw_get(get(&context, "x")).await.unwrap().into_inner().not_found);

    let scan = |reverse, start: &'static str, end: &'static str| RawScanRequest {
        context: Some(context.clone()),
        start_key: start.into(),
        end_key: end.into(),
        limit: 2,
        reverse,
        ..RawScanRequest::default()
    };
    let keys = |answer: kvrpcpb::RawScanResponse| {
        answer.kvs.into_iter().map(|pair| pair.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(client.raw_scan(scan(false, "", "")).await.unwrap().into_inner()), ["a", "b"]);
    assert_eq!(keys(client.raw_scan(scan(true, "", "b")).await.unwrap().into_inner()), ["c", "b"]);

    let cas = |expected: Option<&'static str>, new: &'static str| RawCasRequest {
        context: Some(context.clone()),
        key: "a".into(),
        value: new.into(),
        previous_not_exist: expected.is_none(),
        previous_value: expected.unwrap_or_default().into(),
        ..RawCasRequest::default()
    };
    let lost = client.raw_compare_and_swap(cas(None, "2")).await.unwrap().into_inner();
    assert!(!lost.succeed && lost.previous_value == "1");
    assert!(client.raw_compare_and_swap(cas(Some("1"), "2")).await.unwrap().into_inner().succeed);
    assert_eq!(client.raw_get(get(&context, "a")).await.unwrap().into_inner().value, "2");
}

#[tokio::test]
async fn a_batch_answers_every_command_once() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, b"").await;
    let mut client = tikv(&server).await;
    client.raw_put(put(&context, "k", "v")).await.unwrap();

    let commands = vec![
        Some(Command::RawGet(get(&context, "k"))),
        Some(Command::RawPut(put(&context, "p", "q"))),
        Some(Command::RawScan(RawScanRequest {
            context: Some(context.clone()),
            limit: 1000,
            ..RawScanRequest::default()
        })),
        Some(Command::Empty(BatchCommandsEmptyRequest { test_id: 7, delay_time: 0 })),
        Some(Command::Get(kvrpcpb::GetRequest::default())),
        None,
    ];
    let expected = commands.len();
    let ids: Vec<u64> = (100..100 + expected as u64).collect();
    let batch = BatchCommandsRequest {
        request_ids: ids.clone(),
        requests: commands.into_iter().map(|cmd| Request { cmd }).collect(),
        ..BatchCommandsRequest::default()
    };
    let mut answers =
        client.batch_commands(tokio_stream::iter([batch])).await.unwrap().into_inner();
    let mut replies = BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.request_ids.len(), answer.responses.len());
        for (id, response) in answer.request_ids.into_iter().zip(answer.responses) {
            assert!(replies.insert(id, response.cmd).is_none(), "{id} was answered twice");
        }
    }
    assert_eq!(replies.keys().copied().collect::<Vec<_>>(), ids);
    assert!(matches!(&replies[&100], Some(Reply::RawGet(answer)) if answer.value == "v"));
    assert!(matches!(&replies[&101], Some(Reply::RawPut(answer)) if answer.error.is_empty()));
    assert!(matches!(&replies[&102], Some(Reply::RawScan(answer)) if !answer.kvs.is_empty()));
    assert!(matches!(&replies[&103], Some(Reply::Empty(answer)) if answer.test_id == 7));
    assert!(matches!(&replies[&104], Some(Reply::Get(answer)) if answer.region_error.is_some()));
    assert_eq!(replies[&105], None, "an unknown command has an answer without content");
    assert_eq!(client.raw_get(get(&context, "p")).await.unwrap().into_inner().value, "q");
}

#[tokio::test]
async fn the_courses_family_is_served_on_the_same_port() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, b"").await;
    let mut client = TinyKvClient::new(dial(server.ready().store()).await);
    client.raw_put(put(&context, "k", "v")).await.unwrap();
    assert_eq!(client.raw_get(get(&context, "k")).await.unwrap().into_inner().value, "v");
    let scan = kvrpc::RawScanRequest {
        context: Some(context),
        limit: 10,
        cf: "default".into(),
        start_key: "".into(),
    };
    let answer = client.raw_scan(scan.clone()).await.unwrap().into_inner();
    assert_eq!((answer.error.as_str(), answer.kvs.len()), ("", 1));
    let answer = client
        .raw_scan(kvrpc::RawScanRequest { cf: "nonsense".into(), ..scan })
        .await
        .unwrap()
        .into_inner();
    assert!(answer.error.contains("TK4105") && answer.kvs.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn wrong_requests_get_typed_answers() {
    let server = cluster(ApiMode::V1).await;
    let good = context(&server, b"").await;
    let mut client = tikv(&server).await;

    let nowhere = RawGetRequest { key: "k".into(), ..RawGetRequest::default() };
    let error =
        client.raw_get(nowhere).await.unwrap().into_inner().region_error.expect("has no context");
    assert!(error.region_not_found.is_some() || error.store_not_match.is_some(), "{error:?}");

    let mut stale = good.clone();
    stale.region_epoch = Some(proto::metapb::RegionEpoch { conf_ver: 9, version: 9 });
    let error = client
        .raw_get(get(&stale, "k"))
        .await
        .unwrap()
        .into_inner()
        .region_error
        .expect("epoch differs");
    assert_eq!(error.epoch_not_match.expect("is typed").current_regions.len(), 1);

    let mut elsewhere = good.clone();
    elsewhere.peer.as_mut().unwrap().store_id += 77;
    let error = client
        .raw_get(get(&elsewhere, "k"))
        .await
        .unwrap()
        .into_inner()
        .region_error
        .expect("wrong store");
    assert!(error.store_not_match.is_some(), "{error:?}");

    let unknown_cf = RawGetRequest { cf: "nonsense".into(), ..get(&good, "k") };
    let error = client.raw_get(unknown_cf).await.unwrap().into_inner().error;
    assert!(error.contains("TK4105"), "{error}");

    let with_ttl = RawPutRequest { ttl: 10, ..put(&good, "k", "v") };
    let error = client.raw_put(with_ttl).await.unwrap().into_inner().error;
    assert!(error.contains("TK4104"), "{error}");

    let long_key = RawGetRequest { key: vec![b'k'; 9000].into(), ..get(&good, "k") };
    let error = client.raw_get(long_key).await.unwrap().into_inner().error;
    assert!(error.contains("TK4106"), "{error}");
    let long_key = RawPutRequest { key: vec![b'k'; 9000].into(), ..put(&good, "k", "v") };
    let error = client.raw_put(long_key).await.unwrap().into_inner().error;
    assert!(error.contains("TK4106"), "{error}");

    let status = client.kv_gc(kvrpcpb::GcRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn a_message_that_is_no_batch_ends_the_stream_with_a_status_after_all_answers() {
    let server = cluster(ApiMode::V1).await;
    let channel = dial(server.ready().store()).await;
    let batch = |id| BatchCommandsRequest {
        requests: vec![Request {
            cmd: Some(Command::Empty(BatchCommandsEmptyRequest { test_id: id, delay_time: 0 })),
        }],
        request_ids: vec![id],
        ..BatchCommandsRequest::default()
    };
    let messages = [Raw::Batch(batch(1)), Raw::Bytes(b"\xff\xff\xff"), Raw::Batch(batch(2))];
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = tonic::Request::new(tokio_stream::iter(messages));
    let path = "/tikvpb.Tikv/BatchCommands".parse().unwrap();
    let mut answers = client.streaming(request, path, RawCodec).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().expect("the first is answered").request_ids, [1]);
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal, "{status}");
}

#[tokio::test]
async fn what_is_not_served_is_refused_alike_on_all_ways() {
    let server = cluster(ApiMode::V1).await;
    let channel = dial(server.ready().store()).await;
    let request = || proto::coprocessor::Request::default();
    let unary = tikv(&server).await.coprocessor(request()).await.unwrap().into_inner();
    let course = TinyKvClient::new(channel).coprocessor(request()).await.unwrap().into_inner();
    let refused = &unary.other_error;
    assert!(refused.contains("not served by this version [TK4109]"), "{refused}");
    assert_eq!(unary, course);
}

#[tokio::test]
async fn an_unknown_checksum_is_refused() {
    let server = cluster(ApiMode::V1).await;
    let request = kvrpcpb::RawChecksumRequest {
        context: Some(context(&server, b"").await),
        algorithm: 5,
        ..Default::default()
    };
    let answer = tikv(&server).await.raw_checksum(request).await.unwrap().into_inner();
    assert!(answer.error.contains("algorithm 5"), "{}", answer.error);
}

/// A message of a stream, or bytes in its place.
enum Raw {
    Batch(BatchCommandsRequest),
    Bytes(&'static [u8]),
}

/// Sends [`Raw`], receives what the method answers.
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Raw;
    type Decode = proto::tikvpb::BatchCommandsResponse;
    type Encoder = RawCodec;
    type Decoder = tonic_prost::ProstDecoder<proto::tikvpb::BatchCommandsResponse>;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstDecoder::new(tonic::codec::BufferSettings::default())
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Raw;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Raw,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        match item {
            Raw::Batch(batch) => prost::Message::encode(&batch, out).unwrap(),
            Raw::Bytes(bytes) => bytes::BufMut::put_slice(out, bytes),
        }
        Ok(())
    }
}
