//! Pessimistic locks over the wire: who waits for whom, whose turn it is, and who must not wait.

use std::time::Duration;

use crate::common::{cluster, context, dial, tikv};
use proto::{
    deadlock::{
        DeadlockRequest, DeadlockRequestType, WaitForEntriesRequest, WaitForEntry,
        deadlock_client::DeadlockClient,
    },
    kvrpcpb::{
        self, CommitRequest, GetRequest, Mutation, Op, PessimisticLockKeyResultType,
        PessimisticLockRequest, PessimisticLockResponse, PessimisticLockWakeUpMode,
        PessimisticRollbackRequest, PrewriteRequest, prewrite_request::PessimisticAction,
    },
    tikvpb::tikv_client::TikvClient,
};
use tonic::transport::Channel;
use types::{ApiMode, Bytes, key};

#[derive(Clone)]
struct Client {
    client: TikvClient<Channel>,
    context: kvrpcpb::Context,
}

async fn client(server: &server::Server) -> Client {
    Client { client: tikv(server).await, context: context(server, &key::encode(b"a")).await }
}

impl Client {
    fn request(
        &self,
        start_ts: u64,
        for_update_ts: u64,
        key: &'static str,
    ) -> PessimisticLockRequest {
        let mutation =
            Mutation { op: Op::PessimisticLock.into(), key: key.into(), ..Mutation::default() };
        PessimisticLockRequest {
            context: Some(self.context.clone()),
            mutations: vec![mutation],
            primary_lock: "a".into(),
            start_version: start_ts,
            lock_ttl: 3000,
            for_update_ts,
            ..PessimisticLockRequest::default()
        }
    }

    async fn send(&self, request: PessimisticLockRequest) -> PessimisticLockResponse {
        let answer = self.client.clone().kv_pessimistic_lock(request).await.unwrap().into_inner();
        assert_eq!(answer.region_error, None);
        answer
    }

    /// Asks for a lock in the background.
    fn begin(
        &self,
        request: PessimisticLockRequest,
    ) -> tokio::task::JoinHandle<PessimisticLockResponse> {
        let this = self.clone();
        tokio::spawn(async move { this.send(request).await })
    }

    async fn lock(&self, start_ts: u64, key: &'static str) {
        assert_eq!(self.send(self.request(start_ts, start_ts, key)).await.errors, []);
    }

    async fn rollback(&self, start_ts: u64, key: &'static str) {
        let request = PessimisticRollbackRequest {
            context: Some(self.context.clone()),
            start_version: start_ts,
            for_update_ts: start_ts,
            keys: vec![key.into()],
        };
        let answer = self.client.clone().kv_pessimistic_rollback(request).await.unwrap();
        assert_eq!(answer.into_inner().errors, []);
    }

    /// Writes what is locked, and commits it.
    async fn commit(&self, (start_ts, for_update_ts, commit_ts): (u64, u64, u64), value: String) {
        let key = Bytes::from_static(b"a");
        let put = Mutation {
            op: Op::Put.into(),
            key: key.clone(),
            value: value.into(),
            ..Mutation::default()
        };
        let request = PrewriteRequest {
            context: Some(self.context.clone()),
            mutations: vec![put],
            primary_lock: key.clone(),
            start_version: start_ts,
            lock_ttl: 3000,
            for_update_ts,
            pessimistic_actions: vec![PessimisticAction::DoPessimisticCheck.into()],
            ..PrewriteRequest::default()
        };
        let answer = self.client.clone().kv_prewrite(request).await.unwrap().into_inner();
        assert_eq!((answer.region_error, answer.errors), (None, vec![]));
        let request = CommitRequest {
            context: Some(self.context.clone()),
            start_version: start_ts,
            keys: vec![key],
            commit_version: commit_ts,
            ..CommitRequest::default()
        };
        let answer = self.client.clone().kv_commit(request).await.unwrap().into_inner();
        assert_eq!((answer.region_error, answer.error), (None, None));
    }
}

/// Until so many requests wait in the graph of who waits for whom.
async fn until_waiting(server: &server::Server, count: usize) {
    let mut detector = DeadlockClient::new(dial(server.ready().store()).await);
    loop {
        let waiting = detector.get_wait_for_entries(WaitForEntriesRequest {}).await.unwrap();
        if waiting.into_inner().entries.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn who_waits_gets_the_lock_when_it_is_given_up() {
    let server = cluster(ApiMode::V1).await;
    let client = client(&server).await;
    client.lock(10, "a").await;
    let waits = client.begin(client.request(20, 20, "a"));
    until_waiting(&server, 1).await;
    client.rollback(10, "a").await;
    assert_eq!(waits.await.unwrap().errors, []);
    until_waiting(&server, 0).await;
    let locked =
        client.send(PessimisticLockRequest { wait_timeout: -1, ..client.request(30, 30, "a") });
    assert_eq!(locked.await.errors[0].locked.as_ref().unwrap().lock_version, 20);
}

#[tokio::test]
async fn who_waits_learns_what_was_committed_or_locks_it_all_the_same() {
    let server = cluster(ApiMode::V1).await;
    let client = client(&server).await;
    client.lock(10, "a").await;
    let normal = client.begin(client.request(20, 20, "a"));
    let forced = client.begin(PessimisticLockRequest {
        wake_up_mode: PessimisticLockWakeUpMode::WakeUpModeForceLock.into(),
        ..client.request(30, 30, "a")
    });
    until_waiting(&server, 2).await;
    client.commit((10, 10, 40), "1".into()).await;
    let conflict = normal.await.unwrap().errors.remove(0).conflict.unwrap();
    assert_eq!(conflict.conflict_commit_ts, 40);
    assert_eq!(conflict.reason(), kvrpcpb::write_conflict::Reason::PessimisticRetry);
    // Nobody has taken the key, and it is the next one's turn.
    let result = forced.await.unwrap().results.remove(0);
    assert_eq!(result.r#type(), PessimisticLockKeyResultType::LockResultLockedWithConflict);
    assert_eq!((result.locked_with_conflict_ts, &result.value[..]), (40, &b"1"[..]));
}

#[tokio::test]
async fn nobody_waits_longer_than_he_wants() {
    let server = cluster(ApiMode::V1).await;
    let client = client(&server).await;
    client.lock(10, "a").await;
    for wait_timeout in [-1, 5] {
        let request = PessimisticLockRequest { wait_timeout, ..client.request(20, 20, "a") };
        let locked = client.send(request).await.errors.remove(0).locked.unwrap();
        assert_eq!(locked.lock_version, 10);
    }
    until_waiting(&server, 0).await;
}

#[tokio::test]
async fn who_would_close_a_circle_is_told_so_at_once() {
    let server = cluster(ApiMode::V1).await;
    let client = client(&server).await;
    client.lock(10, "a").await;
    client.lock(20, "b").await;
    let waits = client.begin(client.request(10, 10, "b"));
    until_waiting(&server, 1).await;
    let deadlock =
        client.send(client.request(20, 20, "a")).await.errors.remove(0).deadlock.unwrap();
    assert_eq!((deadlock.lock_ts, &deadlock.lock_key[..]), (10, &b"a"[..]));
    let chain: Vec<_> =
        deadlock.wait_chain.iter().map(|wait| (wait.txn, wait.wait_for_txn)).collect();
    assert_eq!(chain, [(10, 20), (20, 10)]);
    assert_eq!(deadlock.deadlock_key_hash, deadlock.wait_chain[0].key_hash);
    client.rollback(20, "b").await;
    assert_eq!(waits.await.unwrap().errors, []);
}

#[tokio::test]
async fn the_detector_answers_other_stores_and_forgets_who_has_gone() {
    let server = cluster(ApiMode::V1).await;
    let edge = |txn, wait_for_txn| DeadlockRequest {
        tp: DeadlockRequestType::Detect.into(),
        entry: Some(WaitForEntry { txn, wait_for_txn, key: "k".into(), ..WaitForEntry::default() }),
        ..DeadlockRequest::default()
    };
    let mut detector = DeadlockClient::new(dial(server.ready().store()).await);
    let (first, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = detector.detect(requests).await.unwrap().into_inner();
    first.send(edge(1, 2)).await.unwrap();
    first.send(edge(2, 3)).await.unwrap();
    first.send(edge(3, 1)).await.unwrap();
    let found = answers.message().await.unwrap().unwrap();
    assert_eq!(found.wait_chain.len(), 3);
    assert_eq!(found.entry.unwrap().txn, 3);
    until_waiting(&server, 2).await;
    drop((first, answers));
    until_waiting(&server, 0).await;
}

/// Everybody adds one to the same key, under a lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_of_one_key_all_have_their_turn() {
    const CLIENTS: u64 = 24;
    let server = cluster(ApiMode::V1).await;
    let client = client(&server).await;
    let clock = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(100));
    let ticks = clock.clone();
    let now = move || ticks.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, now) = (client.clone(), now.clone());
        tasks.spawn(async move {
            let start_ts = now();
            loop {
                let for_update_ts = now();
                let mut request = client.request(start_ts, for_update_ts, "a");
                (request.return_values, request.is_first_lock) = (true, true);
                let answer = client.send(request).await;
                if let Some(error) = answer.errors.first() {
                    // Something newer, or a wait that was too long: once more.
                    assert!(error.conflict.is_some() || error.locked.is_some(), "{error:?}");
                    continue;
                }
                let before = std::str::from_utf8(&answer.values[0]).unwrap().parse().unwrap_or(0);
                let after: u64 = before + 1;
                let commit_ts = now();
                client.commit((start_ts, for_update_ts, commit_ts), after.to_string()).await;
                return;
            }
        });
    }
    tasks.join_all().await;
    let context = Some(client.context.clone());
    let get = GetRequest { context, key: "a".into(), version: now(), ..GetRequest::default() };
    let value = client.client.clone().kv_get(get).await.unwrap().into_inner().value;
    assert_eq!(value, CLIENTS.to_string());
}
