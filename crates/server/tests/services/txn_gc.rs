//! Removal of old versions under the scheduler's safe point, and what is refused for it.

use std::time::Duration;

use proto::{
    kvrpcpb::{
        self, BatchGetRequest, GcRequest, MvccGetByKeyRequest, Op, PrewriteRequest, ScanLockRequest,
    },
    pdpb,
};
use server::{Config, Server, config::EngineKind};
use storage::VersionCollection;
use tonic::Code;
use types::{ApiMode, TimeStamp};

use crate::{
    common::{cluster, cluster_with, header, pd},
    txn::{Txn, mutation},
};

const TOO_OLD: &str = "GC life time is shorter than transaction duration";

/// Commit timestamps of the records of a key.
async fn versions(txn: &mut Txn, key: &'static str) -> Vec<u64> {
    let request = MvccGetByKeyRequest { context: Some(txn.context.clone()), key: key.into() };
    let found = txn.client.mvcc_get_by_key(request).await.unwrap().into_inner();
    assert_eq!((found.region_error, &found.error[..]), (None, ""));
    found.info.unwrap().writes.iter().map(|write| write.commit_ts).collect()
}

async fn set_safe_point(server: &Server, safe_point: u64) {
    let update = pdpb::UpdateGcSafePointRequest { header: header(server), safe_point };
    let answer = pd(server).await.update_gc_safe_point(update).await.unwrap().into_inner();
    assert_eq!(answer.new_safe_point, safe_point);
}

/// Three versions of `a` and `b`; `c` is deleted after its first; `d` was rolled back.
async fn some(txn: &mut Txn) {
    for (start, value) in [(10, "1"), (20, "2"), (30, "3")] {
        txn.put(start, start + 1, &["a", "b"], value).await;
    }
    txn.put(12, 13, &["c"], "1").await;
    assert_eq!(txn.prewrite(14, vec![mutation(Op::Del, "c", "")]).await, []);
    assert_eq!(txn.commit(14, 15, &["c"]).await.error, None);
    let rollback = kvrpcpb::BatchRollbackRequest {
        context: Some(txn.context.clone()),
        keys: vec!["d".into()],
        start_version: 16,
        ..Default::default()
    };
    assert_eq!(txn.client.kv_batch_rollback(rollback).await.unwrap().into_inner().error, None);
}

/// Once the last key of a pass is clean the others are.
async fn until_collected(txn: &mut Txn) {
    while !versions(txn, "d").await.is_empty() {}
}

fn often(config: &mut Config) {
    config.gc.poll_safe_point_interval = Duration::from_millis(10);
}

#[tokio::test]
async fn versions_under_the_safe_point_go_and_reads_below_it_are_refused() {
    let server = cluster_with(ApiMode::V1, often).await;
    let mut txn = Txn::at(&server, b"a").await;
    some(&mut txn).await;
    assert_eq!(versions(&mut txn, "c").await, [15, 13]);
    set_safe_point(&server, 25).await;
    until_collected(&mut txn).await;
    for key in ["a", "b"] {
        assert_eq!(versions(&mut txn, key).await, [31, 21]);
        assert_eq!(
            (txn.get(25, key).await.value, txn.get(31, key).await.value),
            ("2".into(), "3".into())
        );
        assert_eq!(txn.get(u64::MAX, key).await.value, "3");
        let refused = txn.get(24, key).await.error.unwrap();
        assert!(refused.abort.contains(TOO_OLD), "{refused:?}");
    }
    assert_eq!(versions(&mut txn, "c").await, [0; 0]);
    // A scan and a batch say it in a pair too: some clients look nowhere else.
    let pairs = txn.scan(24).await;
    assert!(pairs[0].error.as_ref().unwrap().abort.contains(TOO_OLD), "{pairs:?}");
    let batch = BatchGetRequest {
        context: Some(txn.context.clone()),
        keys: vec!["a".into()],
        version: 24,
        ..BatchGetRequest::default()
    };
    let pairs = txn.client.kv_batch_get(batch).await.unwrap().into_inner().pairs;
    assert!(pairs[0].error.as_ref().unwrap().abort.contains(TOO_OLD), "{pairs:?}");
    // A prewrite that was rolled back and comes late finds no record of it, and is refused all the same.
    for start in [16, 25] {
        let refused = txn.prewrite(start, vec![mutation(Op::Put, "d", "late")]).await;
        assert!(refused[0].abort.contains(TOO_OLD), "{refused:?}");
    }
    txn.put(26, 27, &["d"], "in time").await;
    assert_eq!(txn.get(27, "d").await.value, "in time");
}

#[tokio::test]
async fn a_store_that_starts_again_knows_its_safe_point_without_the_scheduler() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |config: &mut Config| {
        config.node.data_dir = folder.path().to_owned();
        config.storage.engine = EngineKind::Fjall;
    };
    let first = cluster_with(ApiMode::V1, |config| (settings(config), often(config)).0).await;
    let mut txn = Txn::at(&first, b"a").await;
    some(&mut txn).await;
    set_safe_point(&first, 25).await;
    until_collected(&mut txn).await;
    drop(txn);
    first.shutdown(Duration::from_secs(10)).await;

    let second = cluster_with(ApiMode::V1, |config| {
        settings(config);
        config.gc.poll_safe_point_interval = Duration::from_secs(3600);
    })
    .await;
    let mut txn = Txn::at(&second, b"a").await;
    let refused = txn.get(24, "a").await.error.unwrap();
    assert!(refused.abort.contains(TOO_OLD), "{refused:?}");
    assert_eq!(txn.get(25, "a").await.value, "2");
}

#[tokio::test]
async fn versions_go_in_v2_and_raw_data_stay() {
    const KEY: &str = "x\0\0\0a";
    let server = cluster_with(ApiMode::V2, often).await;
    let mut raw = Txn::at(&server, b"r\0\0\0a").await;
    raw.context.api_version = kvrpcpb::ApiVersion::V2.into();
    let put = kvrpcpb::RawPutRequest {
        context: Some(raw.context.clone()),
        key: "r\0\0\0a".into(),
        value: "raw".into(),
        cf: "write".into(),
        ..Default::default()
    };
    assert_eq!(raw.client.raw_put(put.clone()).await.unwrap().into_inner().error, "");
    let mut txn = Txn::at(&server, KEY.as_bytes()).await;
    txn.context.api_version = kvrpcpb::ApiVersion::V2.into();
    txn.put(10, 11, &[KEY], "1").await;
    txn.put(20, 21, &[KEY], "2").await;
    set_safe_point(&server, 25).await;
    while versions(&mut txn, KEY).await != [21] {}
    let get = kvrpcpb::RawGetRequest { context: put.context, key: put.key, cf: put.cf };
    assert_eq!(raw.client.raw_get(get).await.unwrap().into_inner().value, "raw");
}

#[tokio::test]
async fn kv_gc_is_not_served_as_in_tikv() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    let gc = GcRequest { context: Some(txn.context.clone()), safe_point: 10 };
    assert_eq!(txn.client.kv_gc(gc).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_timestamp_that_was_not_given_out_moves_nobody() {
    const FUTURE: &str = "in the future";
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    let asked = pdpb::GetMinTsRequest { header: header(&server) };
    let now = pd(&server).await.get_min_ts(asked).await.unwrap().into_inner().timestamp.unwrap();
    let seconds = |ahead: i64| ((now.physical + 1000 * ahead) as u64) << 18;
    for far in [seconds(3600), u64::MAX - 1] {
        let refused = txn.get(far, "a").await.error.unwrap();
        assert!(refused.abort.contains(FUTURE), "{refused:?}");
        let refused = txn.prewrite(far, vec![mutation(Op::Put, "a", "1")]).await;
        assert!(refused[0].abort.contains(FUTURE), "{refused:?}");
        let refused = txn.commit(10, far, &["a"]).await.error.unwrap();
        assert!(refused.abort.contains(FUTURE), "{refused:?}");
        let scan = ScanLockRequest {
            context: Some(txn.context.clone()),
            max_version: far,
            ..ScanLockRequest::default()
        };
        let refused = txn.client.kv_scan_lock(scan).await.unwrap().into_inner().error.unwrap();
        assert!(refused.abort.contains(FUTURE), "{refused:?}");
    }
    // "The newest" is to read at, and not to write at.
    let refused = txn.prewrite(u64::MAX, vec![mutation(Op::Put, "a", "1")]).await;
    assert!(refused[0].abort.contains(FUTURE), "{refused:?}");
    let refused = txn.commit(10, u64::MAX, &["a"]).await.error.unwrap();
    assert!(refused.abort.contains(FUTURE), "{refused:?}");
    // The newest there is, and what the scheduler may have given out on another way.
    assert!(txn.get(u64::MAX, "a").await.not_found);
    assert!(txn.get(seconds(30), "a").await.not_found);
    let one_phase = PrewriteRequest {
        context: Some(txn.context.clone()),
        mutations: vec![mutation(Op::Put, "a", "1")],
        primary_lock: "a".into(),
        start_version: 10,
        lock_ttl: 3000,
        try_one_pc: true,
        ..PrewriteRequest::default()
    };
    let committed = txn.client.kv_prewrite(one_phase).await.unwrap().into_inner();
    assert_eq!(committed.errors, []);
    let at = committed.one_pc_commit_ts;
    assert!(seconds(30) < at && at < seconds(120), "{at}");

    // A safe point in the future removes nothing, and no read is refused for it.
    txn.put(at, at + 1, &["a"], "2").await;
    let storage = server.storage().unwrap();
    for far in [u64::MAX - 1, u64::MAX] {
        let mut pass = VersionCollection::new(storage, TimeStamp(far));
        let refused = loop {
            assert!(!pass.is_finished(), "there is something to remove");
            if let Err(error) = pass.step(storage).await {
                break error;
            }
        };
        assert!(refused.to_string().contains(FUTURE), "{refused}");
    }
    assert_eq!(versions(&mut txn, "a").await, [at + 1, at]);
    assert_eq!(txn.get(at, "a").await.value, "1");
}
