//! Transactions over the wire, by hand: what a client's two phases come to.

use crate::common::{cluster, cluster_with, context, dial, header, pd, tikv};
use proto::{
    kvrpcpb::{
        self, CheckTxnStatusRequest, CommitRequest, GetRequest, Mutation, Op, PrewriteRequest,
        ResolveLockRequest, ScanLockRequest, ScanRequest,
    },
    pdpb,
    tikvpb::tikv_client::TikvClient,
    tinykv::kvrpc,
    tinykvpb::tiny_kv_client::TinyKvClient,
};
use server::Server;
use tonic::transport::Channel;
use types::{ApiMode, key};

/// A client that has found its region.
pub(crate) struct Txn {
    pub(crate) client: TikvClient<Channel>,
    pub(crate) context: kvrpcpb::Context,
}

pub(crate) fn mutation(op: Op, key: &'static str, value: &'static str) -> Mutation {
    Mutation { op: op.into(), key: key.into(), value: value.into(), ..Mutation::default() }
}

impl Txn {
    /// A client of the region that has the user's `key`.
    pub(crate) async fn at(server: &Server, key: &[u8]) -> Txn {
        let context = context(server, &key::encode(key)).await;
        Txn { client: tikv(server).await, context }
    }

    /// Sets keys in a transaction.
    pub(crate) async fn put(
        &mut self,
        start: u64,
        commit: u64,
        keys: &[&'static str],
        value: &'static str,
    ) {
        let mutations = keys.iter().map(|key| mutation(Op::Put, key, value)).collect();
        assert_eq!(self.prewrite(start, mutations).await, []);
        assert_eq!(self.commit(start, commit, keys).await.error, None);
    }

    pub(crate) async fn prewrite(
        &mut self,
        start: u64,
        mutations: Vec<Mutation>,
    ) -> Vec<kvrpcpb::KeyError> {
        let request = PrewriteRequest {
            context: Some(self.context.clone()),
            primary_lock: mutations[0].key.clone(),
            mutations,
            start_version: start,
            lock_ttl: 3000,
            ..PrewriteRequest::default()
        };
        let answer = self.client.kv_prewrite(request).await.unwrap().into_inner();
        assert_eq!(answer.region_error, None);
        answer.errors
    }

    pub(crate) async fn commit(
        &mut self,
        start: u64,
        commit: u64,
        keys: &[&'static str],
    ) -> kvrpcpb::CommitResponse {
        let request = CommitRequest {
            context: Some(self.context.clone()),
            start_version: start,
            keys: keys.iter().map(|key| (*key).into()).collect(),
            commit_version: commit,
            ..CommitRequest::default()
        };
        self.client.kv_commit(request).await.unwrap().into_inner()
    }

    pub(crate) async fn get(&mut self, version: u64, key: &'static str) -> kvrpcpb::GetResponse {
        let context = Some(self.context.clone());
        let request = GetRequest { context, key: key.into(), version, ..GetRequest::default() };
        self.client.kv_get(request).await.unwrap().into_inner()
    }

    pub(crate) async fn scan(&mut self, version: u64) -> Vec<kvrpcpb::KvPair> {
        let context = Some(self.context.clone());
        let request = ScanRequest { context, limit: 10, version, ..ScanRequest::default() };
        let few = self.client.kv_scan(request.clone()).await.unwrap().into_inner();
        // Long ones take another way.
        let many = ScanRequest { limit: 1_000, ..request };
        assert_eq!(few.pairs, self.client.kv_scan(many).await.unwrap().into_inner().pairs);
        few.pairs
    }
}

#[tokio::test]
async fn two_phases_commit_and_readers_see_moments() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, &key::encode(b"a")).await;
    let mut txn = Txn { client: tikv(&server).await, context };
    let both = || vec![mutation(Op::Put, "a", "1"), mutation(Op::Put, "b", "2")];
    assert_eq!(txn.prewrite(10, both()).await, []);
    assert_eq!(txn.prewrite(10, both()).await, [], "again");
    // Nobody who reads later passes; who reads earlier does.
    let locked = txn.get(11, "a").await.error.unwrap().locked.unwrap();
    assert_eq!((locked.lock_version, &locked.primary_lock[..]), (10, &b"a"[..]));
    assert!(txn.get(9, "a").await.not_found);
    let pairs = txn.scan(11).await;
    assert!(pairs.len() == 2 && pairs.iter().all(|pair| pair.error.is_some()), "{pairs:?}");
    assert_eq!(txn.commit(10, 20, &["a", "b"]).await.error, None);
    assert_eq!(txn.commit(10, 20, &["a", "b"]).await.error, None, "again");
    assert_eq!(txn.get(20, "a").await.value, "1");
    assert!(txn.get(19, "a").await.not_found);
    assert_eq!(txn.scan(u64::MAX).await.len(), 2);

    let conflict = txn.prewrite(15, vec![mutation(Op::Put, "a", "x")]).await;
    let conflict = conflict[0].conflict.as_ref().unwrap();
    assert_eq!((conflict.start_ts, conflict.conflict_commit_ts), (15, 20));
    assert_eq!(txn.prewrite(30, vec![mutation(Op::Del, "a", "")]).await, []);
    assert_eq!(txn.commit(30, 31, &["a"]).await.error, None);
    assert!(txn.get(31, "a").await.not_found);
    assert_eq!(txn.get(30, "a").await.value, "1");
    // A commit of what was never prewritten is refused.
    let missing = txn.commit(40, 41, &["c"]).await.error.unwrap();
    assert!(missing.txn_lock_not_found.is_some() && !missing.retryable.is_empty());
}

#[tokio::test]
async fn what_a_client_has_left_is_resolved() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, &key::encode(b"a")).await;
    let mut txn = Txn { client: tikv(&server).await, context: context.clone() };
    let start = 100 << 18;
    assert_eq!(
        txn.prewrite(start, vec![mutation(Op::Put, "a", "1"), mutation(Op::Put, "b", "2")]).await,
        []
    );
    let status = |current_ts| CheckTxnStatusRequest {
        context: Some(context.clone()),
        primary_key: "a".into(),
        lock_ts: start,
        current_ts,
        rollback_if_not_exist: true,
        ..CheckTxnStatusRequest::default()
    };
    let alive = txn.client.kv_check_txn_status(status(101 << 18)).await.unwrap().into_inner();
    assert_eq!((alive.lock_ttl, alive.action()), (3000, kvrpcpb::Action::NoAction));
    let over = txn.client.kv_check_txn_status(status(5000 << 18)).await.unwrap().into_inner();
    assert_eq!((over.lock_ttl, over.action()), (0, kvrpcpb::Action::TtlExpireRollback));
    let scan = || ScanLockRequest {
        context: Some(context.clone()),
        max_version: u64::MAX,
        ..ScanLockRequest::default()
    };
    let locks = txn.client.kv_scan_lock(scan()).await.unwrap().into_inner().locks;
    assert_eq!(locks.iter().map(|lock| &lock.key[..]).collect::<Vec<_>>(), [b"b"]);
    let resolve = ResolveLockRequest {
        context: Some(context.clone()),
        start_version: start,
        ..ResolveLockRequest::default()
    };
    let resolved = txn.client.kv_resolve_lock(resolve).await.unwrap().into_inner();
    assert_eq!((resolved.region_error, resolved.error), (None, None));
    assert!(txn.client.kv_scan_lock(scan()).await.unwrap().into_inner().locks.is_empty());
    assert!(txn.get(5001 << 18, "b").await.not_found);
    // It comes too late.
    let late = txn.prewrite(start, vec![mutation(Op::Put, "a", "1")]).await;
    assert!(late[0].conflict.is_some(), "{late:?}");
}

#[tokio::test]
async fn one_phase_and_asynchronous_commits_get_a_timestamp_above_every_read() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, &key::encode(b"a")).await;
    let mut txn = Txn { client: tikv(&server).await, context: context.clone() };
    // Later than anything that was given out, but not by much.
    let asked = pdpb::GetMinTsRequest { header: header(&server) };
    let now = pd(&server).await.get_min_ts(asked).await.unwrap().into_inner().timestamp.unwrap();
    let read_at = ((now.physical + 30_000) as u64) << 18;
    assert!(txn.get(read_at, "a").await.not_found);
    let request = |key: &'static str, try_one_pc| PrewriteRequest {
        context: Some(context.clone()),
        mutations: vec![mutation(Op::Put, key, "1")],
        primary_lock: key.into(),
        start_version: 10,
        lock_ttl: 3000,
        use_async_commit: true,
        try_one_pc,
        ..PrewriteRequest::default()
    };
    let one = txn.client.kv_prewrite(request("a", true)).await.unwrap().into_inner();
    assert!(one.errors.is_empty() && read_at < one.one_pc_commit_ts, "{one:?}");
    assert!(txn.get(read_at, "a").await.not_found);
    assert_eq!(txn.get(one.one_pc_commit_ts, "a").await.value, "1");
    let asynchronous = txn.client.kv_prewrite(request("b", false)).await.unwrap().into_inner();
    assert!(read_at < asynchronous.min_commit_ts, "{asynchronous:?}");
    let at = asynchronous.min_commit_ts;
    assert_eq!(txn.commit(10, at, &["b"]).await.error, None);
    assert_eq!(txn.get(at, "b").await.value, "1");
}

#[tokio::test]
async fn a_cluster_holds_one_kind_of_data() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, b"").await;
    let mut client = tikv(&server).await;
    let put = kvrpcpb::RawPutRequest {
        context: Some(context.clone()),
        key: "k".into(),
        value: "v".into(),
        ..kvrpcpb::RawPutRequest::default()
    };
    for cf in ["default", "lock", "write"] {
        let put = kvrpcpb::RawPutRequest { cf: cf.into(), ..put.clone() };
        assert_eq!(client.raw_put(put).await.unwrap().into_inner().error, "");
    }
    let mut txn = Txn { client, context };
    let refused = txn.prewrite(10, vec![mutation(Op::Put, "a", "1")]).await;
    assert!(refused[0].abort.contains("raw data"), "{refused:?}");
    // What lies in these column families is not taken for records, and harms nobody.
    let scanned = txn.scan(u64::MAX).await;
    let why = &scanned[0].error.as_ref().unwrap().abort;
    assert!(why.contains("raw data"), "{scanned:?}");
    let context = Some(txn.context.clone());
    let get = kvrpcpb::RawGetRequest { context, key: "k".into(), ..Default::default() };
    assert_eq!(txn.client.raw_get(get).await.unwrap().into_inner().value, "v");
}

#[tokio::test]
async fn the_course_has_its_own_numbers() {
    let server = cluster(ApiMode::V1).await;
    let context = context(&server, &key::encode(b"a")).await;
    let mut client = TinyKvClient::new(dial(server.ready().store()).await);
    // 3 is Lock there, and Rollback in TiKV.
    let prewrite = PrewriteRequest {
        context: Some(context.clone()),
        mutations: vec![Mutation { op: 3, key: "a".into(), ..Mutation::default() }],
        primary_lock: "a".into(),
        start_version: 10,
        lock_ttl: 3000,
        ..PrewriteRequest::default()
    };
    assert!(client.kv_prewrite(prewrite).await.unwrap().into_inner().errors.is_empty());
    let status = kvrpc::CheckTxnStatusRequest {
        context: Some(context),
        primary_key: "z".into(),
        lock_ts: 50,
        current_ts: 60,
    };
    let status = client.kv_check_txn_status(status).await.unwrap().into_inner();
    assert_eq!(status.action(), kvrpcpb::Action::LockNotExistRollback);
}

#[tokio::test]
async fn a_commit_of_what_was_never_prewritten_is_an_error_unless_the_course_is_to_be_pleased() {
    for pleases in [false, true] {
        let server =
            cluster_with(ApiMode::V1, |config| config.compat.tinykv_commit_missing = pleases).await;
        let context = context(&server, &key::encode(b"a")).await;
        let commit = CommitRequest {
            context: Some(context.clone()),
            start_version: 10,
            keys: vec!["a".into()],
            commit_version: 11,
            ..CommitRequest::default()
        };
        let mut course = TinyKvClient::new(dial(server.ready().store()).await);
        let answer = course.kv_commit(commit.clone()).await.unwrap().into_inner();
        assert_eq!((answer.error.is_none(), answer.region_error), (pleases, None));
        let answer = tikv(&server).await.kv_commit(commit).await.unwrap().into_inner();
        let error = answer.error.expect("TiKV's family knows no such switch");
        assert!(error.txn_lock_not_found.is_some() && !error.retryable.is_empty(), "{error:?}");
        // Nothing was written, in either case.
        let mut txn = Txn { client: tikv(&server).await, context };
        assert!(txn.get(u64::MAX, "a").await.not_found);
    }
}
