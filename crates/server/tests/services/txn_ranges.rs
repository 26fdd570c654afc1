//! What concerns ranges of keys, over the wire: KvDeleteRange, UnsafeDestroyRange, SplitRegion.

use proto::{
    kvrpcpb::{
        self, DeleteRangeRequest, Op, SplitRegionRequest, SplitRegionResponse,
        UnsafeDestroyRangeRequest,
    },
    tikvpb::{
        BatchCommandsRequest,
        batch_commands_request::{Request, request::Cmd},
        batch_commands_response::response::Cmd as Reply,
    },
};
use types::{ApiMode, key};

use crate::{
    common::{cluster, context, tikv},
    txn::{Txn, mutation},
};

#[tokio::test]
async fn a_deleted_range_has_neither_versions_nor_locks() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    txn.put(10, 11, &["a", "b", "c"], "old").await;
    txn.put(20, 21, &["a", "b", "c"], "new").await;
    assert_eq!(txn.prewrite(30, vec![mutation(Op::Put, "bb", "1")]).await, []);
    let context = txn.context.clone();
    let range = |start: &'static str, end: &'static str| DeleteRangeRequest {
        context: Some(context.clone()),
        start_key: start.into(),
        end_key: end.into(),
        ..DeleteRangeRequest::default()
    };
    let notify_only = DeleteRangeRequest { notify_only: true, ..range("", "") };
    let answer = txn.client.kv_delete_range(notify_only).await.unwrap().into_inner();
    assert_eq!((&answer.error[..], answer.region_error), ("", None));
    let answer = txn.client.kv_delete_range(range("b", "c")).await.unwrap().into_inner();
    assert_eq!((&answer.error[..], answer.region_error), ("", None));
    for (version, value) in [(11, "old"), (21, "new")] {
        let pairs = txn.scan(version).await;
        let found: Vec<_> = pairs.iter().map(|pair| (&pair.key[..], &pair.value[..])).collect();
        assert_eq!(found, [(&b"a"[..], value.as_bytes()), (b"c", value.as_bytes())]);
    }
    assert!(txn.get(100, "bb").await.not_found, "its lock is gone");

    // Through BatchCommands, and everything.
    let delete = Request { cmd: Some(Cmd::DeleteRange(range("", ""))) };
    let batch = BatchCommandsRequest {
        requests: vec![delete],
        request_ids: vec![7],
        ..BatchCommandsRequest::default()
    };
    let mut answers =
        txn.client.batch_commands(tokio_stream::iter([batch])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.request_ids, [7]);
    let Some(Reply::DeleteRange(answer)) = &answer.responses[0].cmd else {
        panic!("{answer:?} is another answer")
    };
    assert_eq!((&answer.error[..], answer.region_error.as_ref()), ("", None));
    assert!(txn.scan(100).await.is_empty());
}

#[tokio::test]
async fn a_destroyed_range_is_gone_whatever_was_in_it() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    txn.put(10, 11, &["a", "b"], "1").await;
    assert_eq!(txn.prewrite(30, vec![mutation(Op::Put, "b", "2")]).await, []);
    let destroy = UnsafeDestroyRangeRequest {
        start_key: "b".into(),
        end_key: "c".into(),
        ..UnsafeDestroyRangeRequest::default()
    };
    let answer = txn.client.unsafe_destroy_range(destroy).await.unwrap().into_inner();
    assert_eq!((&answer.error[..], answer.region_error), ("", None));
    assert_eq!(txn.scan(100).await.len(), 1);
}

/// The user's keys at which regions begin.
fn starts(response: &SplitRegionResponse) -> Vec<Vec<u8>> {
    let start = |region: &proto::metapb::Region| match region.start_key.is_empty() {
        true => Vec::new(),
        false => key::decode_exact(&region.start_key).expect("a transactional key"),
    };
    response.regions.iter().map(start).collect()
}

#[tokio::test]
async fn a_region_is_split_at_the_keys_of_users() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    txn.put(10, 11, &["a", "m", "z"], "1").await;
    let split = |context: &kvrpcpb::Context, keys: &[&'static str]| SplitRegionRequest {
        context: Some(context.clone()),
        split_keys: keys.iter().map(|key| (*key).into()).collect(),
        ..SplitRegionRequest::default()
    };
    let before = txn.context.clone();
    let answer =
        txn.client.split_region(split(&before, &["x", "m", "x"])).await.unwrap().into_inner();
    assert_eq!((answer.region_error.as_ref(), answer.errors.len()), (None, 0));
    assert_eq!(starts(&answer), [&b""[..], b"m", b"x"]);
    assert_eq!((&answer.left, &answer.right), (&None, &None), "there are three");
    let version = |region: &proto::metapb::Region| region.region_epoch.unwrap().version;
    assert!(answer.regions.iter().all(|region| version(region) == 3), "{answer:?}");
    assert_eq!(answer.regions[0].id, before.region_id);

    // Who comes with the old epoch hears of all of them; the scheduler knows them too.
    let stale = txn.client.split_region(split(&before, &["b"])).await.unwrap().into_inner();
    let current = stale.region_error.unwrap().epoch_not_match.unwrap().current_regions;
    assert_eq!(current.len(), 3);
    let mut last = Txn::at(&server, b"z").await;
    assert_eq!(last.context.region_id, answer.regions[2].id);
    while last.get(11, "z").await.region_error.is_some() {
        last = Txn::at(&server, b"z").await;
    }
    assert_eq!(last.get(11, "z").await.value, "1");

    // The old field; two regions are left and right. The first key of a region is passed over.
    let old = SplitRegionRequest {
        context: Some(last.context.clone()),
        split_key: "y".into(),
        ..SplitRegionRequest::default()
    };
    let two = last.client.split_region(old).await.unwrap().into_inner();
    assert_eq!(starts(&two), [&b"x"[..], b"y"]);
    assert_eq!(two.left.as_ref(), Some(&two.regions[0]));
    assert_eq!(two.right.as_ref(), Some(&two.regions[1]));
    let mut context = context(&server, &key::encode(b"x")).await;
    context.region_epoch = two.regions[0].region_epoch;
    let same = last.client.split_region(split(&context, &["x"])).await.unwrap().into_inner();
    assert_eq!(same.regions, [two.regions[0].clone()]);
    let outside = last.client.split_region(split(&context, &["a"])).await.unwrap().into_inner();
    assert!(outside.region_error.unwrap().key_not_in_region.is_some());
    let empty = last.client.split_region(split(&context, &[])).await.unwrap().into_inner();
    assert!(empty.errors[0].abort.contains("empty key"), "{empty:?}");

    let delete = DeleteRangeRequest {
        context: Some(context),
        start_key: "x".into(),
        end_key: "z".into(),
        ..DeleteRangeRequest::default()
    };
    let beyond = last.client.kv_delete_range(delete).await.unwrap().into_inner();
    assert!(beyond.region_error.unwrap().key_not_in_region.is_some());
}

#[tokio::test]
async fn raw_keys_are_split_as_they_are_stored() {
    for (api, stored) in
        [(ApiMode::V1, &b"r\0\0\0m"[..]), (ApiMode::V2, &b"r\0\0\0m\0\0\0\xfc"[..])]
    {
        let server = cluster(api).await;
        let at = if api == ApiMode::V1 { b"r".to_vec() } else { key::encode(b"r\0\0\0a").to_vec() };
        let mut context = context(&server, &at).await;
        if api == ApiMode::V2 {
            context.api_version = kvrpcpb::ApiVersion::V2.into();
        }
        let split = SplitRegionRequest {
            context: Some(context),
            split_keys: vec![b"r\0\0\0m"[..].into()],
            is_raw_kv: true,
            ..SplitRegionRequest::default()
        };
        let answer = tikv(&server).await.split_region(split).await.unwrap().into_inner();
        assert_eq!((answer.region_error.as_ref(), answer.errors.len()), (None, 0));
        assert_eq!(answer.regions[1].start_key, stored);
    }
}
