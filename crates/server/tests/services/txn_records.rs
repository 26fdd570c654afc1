//! Transactional records over the wire, as they lie there: MvccGetByKey, MvccGetByStartTs, ScanLock, PhysicalScanLock.

use proto::kvrpcpb::{
    LockInfo, MvccGetByKeyRequest, MvccGetByStartTsRequest, MvccInfo, MvccLock, MvccValue,
    MvccWrite, Op, PhysicalScanLockRequest, PrewriteRequest, ResolveLockRequest, ScanLockRequest,
    TxnInfo,
};
use types::ApiMode;

use crate::{
    common::cluster,
    txn::{Txn, mutation},
};

const LONG: &str = const {
    match std::str::from_utf8(&[b'l'; 300]) {
        Ok(text) => text,
        Err(_) => panic!("it is text"),
    }
};

/// `a` has two versions and a lock, `b` was rolled back by hand, `c` has nothing.
async fn some(txn: &mut Txn) {
    txn.put(10, 20, &["a"], LONG).await;
    txn.put(30, 40, &["a", "b"], "short").await;
    let context = Some(txn.context.clone());
    let prewrite = PrewriteRequest {
        context: context.clone(),
        mutations: vec![mutation(Op::Lock, "a", "")],
        primary_lock: "a".into(),
        start_version: 50,
        lock_ttl: 3000,
        txn_size: 7,
        min_commit_ts: 55,
        use_async_commit: true,
        secondaries: vec!["z".into()],
        ..PrewriteRequest::default()
    };
    let answer = txn.client.kv_prewrite(prewrite).await.unwrap().into_inner();
    assert_eq!(answer.errors, []);
    let rollback = proto::kvrpcpb::BatchRollbackRequest {
        context,
        keys: vec!["b".into()],
        start_version: 60,
        ..Default::default()
    };
    let answer = txn.client.kv_batch_rollback(rollback).await.unwrap().into_inner();
    assert_eq!((answer.error, answer.region_error), (None, None));
}

fn keys_of(locks: &[LockInfo]) -> Vec<&str> {
    locks.iter().map(|lock| std::str::from_utf8(&lock.key).unwrap()).collect()
}

fn info_of_a() -> MvccInfo {
    let lock = MvccLock {
        r#type: Op::Lock.into(),
        start_ts: 50,
        primary: "a".into(),
        ttl: 3000,
        txn_size: 7,
        use_async_commit: true,
        secondaries: vec!["z".into()],
        last_change_ts: 40,
        versions_to_last_change: 1,
        ..MvccLock::default()
    };
    let put = |start_ts, commit_ts, short_value: &'static str| MvccWrite {
        r#type: Op::Put.into(),
        start_ts,
        commit_ts,
        short_value: short_value.into(),
        ..MvccWrite::default()
    };
    MvccInfo {
        lock: Some(lock),
        writes: vec![put(30, 40, "short"), put(10, 20, "")],
        values: vec![MvccValue { start_ts: 10, value: LONG.into() }],
    }
}

#[tokio::test]
async fn everything_of_a_key_is_shown_by_key_and_by_transaction() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    some(&mut txn).await;
    let context = Some(txn.context.clone());
    let by_key =
        |key: &'static str| MvccGetByKeyRequest { context: context.clone(), key: key.into() };
    let a = txn.client.mvcc_get_by_key(by_key("a")).await.unwrap().into_inner();
    assert_eq!((a.region_error, &a.error[..]), (None, ""));
    assert_eq!(a.info, Some(info_of_a()));
    let c = txn.client.mvcc_get_by_key(by_key("c")).await.unwrap().into_inner();
    assert_eq!(c.info, Some(MvccInfo::default()));

    let by_ts = |start_ts| MvccGetByStartTsRequest { context: context.clone(), start_ts };
    for (start_ts, key) in [(10, "a"), (30, "a"), (50, "a"), (60, "b")] {
        let found = txn.client.mvcc_get_by_start_ts(by_ts(start_ts)).await.unwrap().into_inner();
        assert_eq!((&found.error[..], found.region_error), ("", None));
        assert_eq!(found.key, key, "{start_ts}");
        let has_it = found.info.is_some_and(|info| match key {
            "a" => info == info_of_a(),
            _ => info.writes[0].r#type() == Op::Rollback && info.writes[0].commit_ts == 60,
        });
        assert!(has_it, "{start_ts}");
    }
    let none = txn.client.mvcc_get_by_start_ts(by_ts(40)).await.unwrap().into_inner();
    assert!(none.key.is_empty() && none.info.is_none() && none.error.is_empty());

    let mut elsewhere = context.clone().unwrap();
    elsewhere.region_id += 1000;
    let by_key = MvccGetByKeyRequest { context: Some(elsewhere), key: "a".into() };
    let lost = txn.client.mvcc_get_by_key(by_key).await.unwrap().into_inner();
    assert!(lost.region_error.unwrap().region_not_found.is_some());
}

#[tokio::test]
async fn locks_are_listed_by_range_version_and_limit_and_resolved_by_transaction() {
    let server = cluster(ApiMode::V1).await;
    let mut txn = Txn::at(&server, b"a").await;
    let context = Some(txn.context.clone());
    for (start, key) in [(10, "a"), (20, "b"), (20, "c"), (30, "d")] {
        assert_eq!(txn.prewrite(start, vec![mutation(Op::Put, key, "1")]).await, []);
    }
    let cases: [(&str, &str, u64, u32, &[&str]); 6] = [
        ("", "", 1000, 0, &["a", "b", "c", "d"]),
        ("", "", 1000, 3, &["a", "b", "c"]),
        ("", "", 20, 0, &["a", "b", "c"]),
        ("b", "d", 1000, 0, &["b", "c"]),
        ("b", "", 1000, 1, &["b"]),
        ("e", "", 1000, 0, &[]),
    ];
    for (start, end, max_version, limit, keys) in cases {
        let scan = ScanLockRequest {
            context: context.clone(),
            max_version,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            limit,
        };
        let answer = txn.client.kv_scan_lock(scan).await.unwrap().into_inner();
        assert_eq!((answer.error, answer.region_error), (None, None));
        assert_eq!(keys_of(&answer.locks), keys);
        if end.is_empty() {
            let scan = PhysicalScanLockRequest {
                context: context.clone(),
                max_ts: max_version,
                start_key: start.to_owned().into(),
                limit,
            };
            let answer = txn.client.physical_scan_lock(scan).await.unwrap().into_inner();
            assert_eq!(answer.error, "");
            assert_eq!(keys_of(&answer.locks), keys);
        }
    }

    // One is committed, one rolled back, the third is another's.
    let infos =
        [(10, 15), (20, 0)].map(|(txn, status)| TxnInfo { txn, status, ..TxnInfo::default() });
    let resolve = ResolveLockRequest {
        context: context.clone(),
        txn_infos: infos.to_vec(),
        ..Default::default()
    };
    let answer = txn.client.kv_resolve_lock(resolve).await.unwrap().into_inner();
    assert_eq!((answer.error, answer.region_error), (None, None));
    assert_eq!(txn.get(15, "a").await.value, "1");
    assert!(txn.get(29, "b").await.not_found && txn.get(29, "c").await.not_found);
    assert!(txn.get(30, "d").await.error.unwrap().locked.is_some());
}
