//! Transactional requests: one async function per RPC, as in `kv.rs`.
//!
//! What a command decides is in `txn::commands`, how it comes about in `storage`'s executor. Here requests are turned
//! into commands and results into answers. A key error about a whole request is an answer's `error`, and, where an
//! answer has pairs, a pair as well: client-rust looks only there.

use std::collections::BTreeMap;

use proto::kvrpcpb::{
    Assertion, BatchGetRequest, BatchGetResponse, BatchRollbackRequest, BatchRollbackResponse,
    CheckSecondaryLocksRequest, CheckSecondaryLocksResponse, CheckTxnStatusRequest,
    CheckTxnStatusResponse, CleanupRequest, CleanupResponse, CommitRequest, CommitResponse,
    GetRequest, GetResponse, PessimisticLockKeyResult, PessimisticLockKeyResultType,
    PessimisticLockRequest, PessimisticLockResponse, PessimisticLockWakeUpMode,
    PessimisticRollbackRequest, PessimisticRollbackResponse, PrewriteRequest, PrewriteResponse,
    ResolveLockRequest, ResolveLockResponse, ScanLockRequest, ScanLockResponse, ScanRequest,
    ScanResponse, TxnHeartBeatRequest, TxnHeartBeatResponse,
};
use storage::Wanted;
use txn::{
    KeyError, KvPair, ScanOptions,
    commands::{
        BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Command, Commit, LockedKey,
        PessimisticKey, PessimisticLock, PessimisticRollback, Prewrite, ResolveLocks, TtlRule,
        TxnAction, TxnHeartBeat, WaitTimeout, WakeUpMode,
    },
};
use types::{KeyRange, RequestContext, TimeStamp, limits};

use super::kv::{INLINE_SCAN_PAIRS, KvService};
use crate::{
    convert::context,
    convert_txn::{self, found_lock, key_error, lock_to_proto, pair},
    errors::{Answer, KeyAnswer},
};

/// What is answered to a commit of a key that was never prewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnMissing {
    /// That there is no lock to commit: what TiKV's clients need, or a prewrite that got lost would go unnoticed.
    Fail,
    /// Success, and nothing is written: what the course's tests want.
    Succeed,
}

/// Locks that are resolved at once when a request names no keys.
const RESOLVED_AT_ONCE: usize = 256;
/// Locks that are listed from one snapshot, between which others get their turn.
const LOCKS_LISTED_AT_ONCE: usize = 4096;

impl KvService {
    pub(crate) async fn kv_get(&self, request: GetRequest) -> GetResponse {
        let context = context(request.context.as_ref());
        let read = convert_txn::read(request.context.as_ref(), request.version);
        let key = &request.key;
        let wanted = Wanted::Keys(std::slice::from_ref(key));
        let got =
            self.storage().txn_read(&context, wanted, &read, |snapshot, _| read.get(snapshot, key));
        match self.known(got).await {
            Ok(Ok(Some(value))) => GetResponse { value, ..GetResponse::default() },
            Ok(Ok(None)) => GetResponse { not_found: true, ..GetResponse::default() },
            Ok(Err(error)) => GetResponse::refused_by(error),
            Err(error) => GetResponse::failed(&error),
        }
    }

    pub(crate) async fn kv_batch_get(&self, request: BatchGetRequest) -> BatchGetResponse {
        if request.keys.len() <= INLINE_SCAN_PAIRS as usize {
            return self.batch_get(request).await;
        }
        let this = self.clone();
        on_pool(async move || this.batch_get(request).await).await
    }

    async fn batch_get(&self, request: BatchGetRequest) -> BatchGetResponse {
        let context = context(request.context.as_ref());
        let read = convert_txn::read(request.context.as_ref(), request.version);
        let keys = &request.keys;
        let got = self.storage().txn_read(&context, Wanted::Keys(keys), &read, |snapshot, _| {
            read.batch_get(snapshot, keys)
        });
        match self.known(got).await {
            Ok(Ok(found)) => BatchGetResponse {
                pairs: found.into_iter().map(|(key, found)| pair(key, found)).collect(),
                ..BatchGetResponse::default()
            },
            Ok(Err(error)) => BatchGetResponse::refused_by(error),
            Err(error) => BatchGetResponse::failed(&error),
        }
    }

    pub(crate) async fn kv_scan(&self, request: ScanRequest) -> ScanResponse {
        if request.limit <= INLINE_SCAN_PAIRS {
            return self.scan(request).await;
        }
        let this = self.clone();
        on_pool(async move || this.scan(request).await).await
    }

    async fn scan(&self, request: ScanRequest) -> ScanResponse {
        let context = context(request.context.as_ref());
        let read = convert_txn::read(request.context.as_ref(), request.version);
        // Backwards, the start is the upper bound.
        let range = match request.reverse {
            false => KeyRange { start: request.start_key, end: request.end_key },
            true => KeyRange { start: request.end_key, end: request.start_key },
        };
        let options = ScanOptions {
            limit: (request.limit as usize).min(limits::SCAN_PAIRS_MAX + 1),
            reverse: request.reverse,
            key_only: request.key_only,
            sample_step: request.sample_step as usize,
            max_bytes: limits::SCAN_BYTES_MAX + 1,
        };
        let wanted = Wanted::Range(&range);
        let scanned = self.storage().txn_read(&context, wanted, &read, |snapshot, region| {
            read.scan(snapshot, &range.intersect(&storage::user_range(region)), &options)
        });
        match self.known(scanned).await {
            Ok(Ok(found)) if is_too_large(&found) => {
                let why = "the answer is too large: ask for fewer pairs at once";
                ScanResponse::failed(&storage::Error::InvalidRequest(why.to_owned()))
            }
            Ok(Ok(found)) => ScanResponse {
                pairs: found
                    .into_iter()
                    .map(|found| match found {
                        Ok(found) => pair(found.key, Ok(found.value)),
                        Err(error) => pair(convert_txn::key_of(&error), Err(error)),
                    })
                    .collect(),
                ..ScanResponse::default()
            },
            Ok(Err(error)) => ScanResponse::refused_by(error),
            Err(error) => ScanResponse::failed(&error),
        }
    }

    pub(crate) async fn kv_prewrite(&self, request: PrewriteRequest) -> PrewriteResponse {
        let context = context(request.context.as_ref());
        let is_retry = request.context.as_ref().is_some_and(|context| context.is_retry_request);
        let command = match prewrite(request, is_retry) {
            Ok(command) => command,
            Err(reason) => return PrewriteResponse::refused_by(KeyError::InvalidRequest(reason)),
        };
        self.run(&context, command, |answer, response: &mut PrewriteResponse| {
            response.errors = answer.errors.into_iter().map(key_error).collect();
            response.min_commit_ts = answer.min_commit_ts.0;
            response.one_pc_commit_ts = answer.one_pc_commit_ts.0;
        })
        .await
    }

    pub(crate) async fn kv_commit(&self, request: CommitRequest) -> CommitResponse {
        self.commit(request, OnMissing::Fail).await
    }

    pub(super) async fn commit(
        &self,
        request: CommitRequest,
        on_missing: OnMissing,
    ) -> CommitResponse {
        let context = context(request.context.as_ref());
        let command = Commit {
            keys: request.keys,
            start_ts: TimeStamp(request.start_version),
            commit_ts: TimeStamp(request.commit_version),
            missing_is_success: on_missing == OnMissing::Succeed,
        };
        self.run(&context, command, |commit_ts, response: &mut CommitResponse| {
            response.commit_version = commit_ts.0;
        })
        .await
    }

    pub(crate) async fn kv_batch_rollback(
        &self,
        request: BatchRollbackRequest,
    ) -> BatchRollbackResponse {
        let context = context(request.context.as_ref());
        let start_ts = TimeStamp(request.start_version);
        self.run(&context, BatchRollback { keys: request.keys, start_ts }, |(), _| {}).await
    }

    pub(crate) async fn kv_cleanup(&self, request: CleanupRequest) -> CleanupResponse {
        let context = context(request.context.as_ref());
        let command = Cleanup {
            key: request.key,
            start_ts: TimeStamp(request.start_version),
            current_ts: TimeStamp(request.current_ts),
        };
        self.run(&context, command, |commit_ts, response: &mut CleanupResponse| {
            response.commit_version = commit_ts.map_or(0, |ts| ts.0);
        })
        .await
    }

    pub(crate) async fn kv_check_txn_status(
        &self,
        request: CheckTxnStatusRequest,
    ) -> CheckTxnStatusResponse {
        self.check_txn_status(request, TtlRule::Tikv).await
    }

    pub(super) async fn check_txn_status(
        &self,
        request: CheckTxnStatusRequest,
        ttl_rule: TtlRule,
    ) -> CheckTxnStatusResponse {
        let context = context(request.context.as_ref());
        let command = CheckTxnStatus {
            primary: request.primary_key,
            lock_ts: TimeStamp(request.lock_ts),
            caller_start_ts: TimeStamp(request.caller_start_ts),
            current_ts: TimeStamp(request.current_ts),
            rollback_if_not_exist: request.rollback_if_not_exist,
            force_sync_commit: request.force_sync_commit,
            resolving_pessimistic_lock: request.resolving_pessimistic_lock,
            verify_is_primary: request.verify_is_primary,
            ttl_rule,
        };
        self.run(&context, command, |status, response: &mut CheckTxnStatusResponse| {
            response.lock_ttl = status.lock_ttl;
            response.commit_version = status.commit_ts.0;
            response.action = action(status.action).into();
            response.lock_info = status.lock.map(|lock| lock_to_proto(lock).into());
        })
        .await
    }

    pub(crate) async fn kv_txn_heart_beat(
        &self,
        request: TxnHeartBeatRequest,
    ) -> TxnHeartBeatResponse {
        let context = context(request.context.as_ref());
        let command = TxnHeartBeat {
            primary: request.primary_lock,
            start_ts: TimeStamp(request.start_version),
            advise_ttl: request.advise_lock_ttl,
        };
        self.run(&context, command, |ttl, response: &mut TxnHeartBeatResponse| {
            response.lock_ttl = ttl;
        })
        .await
    }

    pub(crate) async fn kv_check_secondary_locks(
        &self,
        request: CheckSecondaryLocksRequest,
    ) -> CheckSecondaryLocksResponse {
        let context = context(request.context.as_ref());
        let start_ts = TimeStamp(request.start_version);
        let command = CheckSecondaryLocks { keys: request.keys, start_ts };
        self.run(&context, command, |found, response: &mut CheckSecondaryLocksResponse| {
            response.locks = found.locks.into_iter().map(lock_to_proto).collect();
            response.commit_ts = found.commit_ts.0;
        })
        .await
    }

    /// Locks keys for a pessimistic transaction, and waits for those that others have (`lock_waits.rs`).
    pub(crate) async fn kv_pessimistic_lock(
        &self,
        request: PessimisticLockRequest,
    ) -> PessimisticLockResponse {
        let context = context(request.context.as_ref());
        let is_forced = request.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock;
        let (with_values, with_existence) = (request.return_values, request.check_existence);
        let command = PessimisticLock {
            keys: request
                .mutations
                .into_iter()
                .map(|mutation| PessimisticKey {
                    should_not_exist: mutation.assertion() == Assertion::NotExist,
                    key: mutation.key,
                })
                .collect(),
            primary: request.primary_lock,
            start_ts: TimeStamp(request.start_version),
            for_update_ts: TimeStamp(request.for_update_ts),
            ttl: request.lock_ttl,
            min_commit_ts: TimeStamp(request.min_commit_ts),
            is_first_lock: request.is_first_lock,
            wait_timeout: match request.wait_timeout {
                0 => WaitTimeout::Default,
                millis => u64::try_from(millis).map_or(WaitTimeout::NoWait, WaitTimeout::Millis),
            },
            wake_up_mode: if is_forced { WakeUpMode::ForceLock } else { WakeUpMode::Normal },
            return_values: request.return_values,
            check_existence: request.check_existence,
            lock_only_if_exists: request.lock_only_if_exists,
        };
        let answer = self.known(self.lock(&context, command)).await;
        answered(answer, |answer, response: &mut PessimisticLockResponse| {
            if is_forced {
                response.results = answer.results.into_iter().map(forced).collect();
                return;
            }
            for locked in answer.results {
                if with_values || with_existence {
                    response.not_founds.push(!locked.exists);
                }
                if with_values {
                    response.values.push(locked.value.unwrap_or_default());
                }
            }
        })
    }

    pub(crate) async fn kv_pessimistic_rollback(
        &self,
        request: PessimisticRollbackRequest,
    ) -> PessimisticRollbackResponse {
        let context = context(request.context.as_ref());
        let command = PessimisticRollback {
            keys: request.keys,
            start_ts: TimeStamp(request.start_version),
            for_update_ts: TimeStamp(request.for_update_ts),
        };
        self.run(&context, command, |(), _| {}).await
    }

    pub(crate) async fn kv_resolve_lock(&self, request: ResolveLockRequest) -> ResolveLockResponse {
        let context = context(request.context.as_ref());
        let txns: BTreeMap<TimeStamp, TimeStamp> = match request.txn_infos.is_empty() {
            true => [(TimeStamp(request.start_version), TimeStamp(request.commit_version))].into(),
            false => {
                let of =
                    |txn: &proto::kvrpcpb::TxnInfo| (TimeStamp(txn.txn), TimeStamp(txn.status));
                request.txn_infos.iter().map(of).collect()
            }
        };
        if !request.keys.is_empty() {
            let command = ResolveLocks { keys: request.keys, txns };
            return self.run(&context, command, |_, _| {}).await;
        }
        // The whole region, a page at a time. What is resolved is not found again.
        let mut from = KeyRange::all();
        loop {
            let found = self.storage().txn_locks(
                &context,
                &from,
                |lock| txns.contains_key(&lock.start_ts),
                RESOLVED_AT_ONCE,
            );
            let (locks, next) = match self.known(found).await {
                Ok(found) => found,
                Err(error) => return ResolveLockResponse::failed(&error),
            };
            if !locks.is_empty() {
                let keys = locks.into_iter().map(|(key, _)| key).collect();
                let command = ResolveLocks { keys, txns: txns.clone() };
                let resolved: ResolveLockResponse = self.run(&context, command, |_, _| {}).await;
                if resolved.region_error.is_some() || resolved.error.is_some() {
                    return resolved;
                }
            }
            match next {
                Some(next) => from.start = next,
                None => return ResolveLockResponse::default(),
            }
        }
    }

    pub(crate) async fn kv_scan_lock(&self, request: ScanLockRequest) -> ScanLockResponse {
        let context = context(request.context.as_ref());
        let version = TimeStamp(request.max_version);
        let mut range = KeyRange { start: request.start_key, end: request.end_key };
        match self.storage().txn_raise(&range, version).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return ScanLockResponse::refused_by(error),
            Err(error) => return ScanLockResponse::failed(&error),
        }
        // Clients take fewer than they asked for as the end of the region: nothing is cut short.
        let limit = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut response = ScanLockResponse::default();
        while response.locks.len() < limit {
            let left = (limit - response.locks.len()).min(LOCKS_LISTED_AT_ONCE);
            let found =
                self.storage().txn_locks(&context, &range, |lock| lock.start_ts <= version, left);
            let (locks, next) = match self.known(found).await {
                Ok(found) => found,
                Err(error) => return ScanLockResponse::failed(&error),
            };
            response.locks.extend(locks.into_iter().map(found_lock));
            match next {
                Some(next) => range.start = next,
                None => break,
            }
            tokio::task::yield_now().await;
        }
        response
    }

    /// Carries out a command and fills its answer into a response.
    async fn run<C: Command, A: KeyAnswer>(
        &self,
        context: &RequestContext,
        command: C,
        fill: impl FnOnce(C::Answer, &mut A),
    ) -> A {
        answered(self.known(self.storage().txn_write(context, command)).await, fill)
    }
}

/// What came of a command, as a response.
fn answered<T, A: KeyAnswer>(
    answer: Result<Result<T, KeyError>, storage::Error>,
    fill: impl FnOnce(T, &mut A),
) -> A {
    match answer {
        Ok(Ok(answer)) => {
            let mut response = A::default();
            fill(answer, &mut response);
            response
        }
        Ok(Err(error)) => A::refused_by(error),
        Err(error) => A::failed(&error),
    }
}

/// Answers a request that reads much where it holds up nobody.
async fn on_pool<A: Answer + Send + 'static>(work: impl AsyncFnOnce() -> A + Send + 'static) -> A {
    let runtime = tokio::runtime::Handle::current();
    match tokio::task::spawn_blocking(move || runtime.block_on(work())).await {
        Ok(answer) => answer,
        // The pool refuses work only while the process stops.
        Err(_) => A::failed(&storage::Error::InvalidRequest("the store is stopping".to_owned())),
    }
}

/// Whether a scan was ended by a bound of its answer: who takes that for the end of the region would miss the rest
/// (docs/decisions/0004). One pair may be as large as it likes.
fn is_too_large(found: &[Result<KvPair, KeyError>]) -> bool {
    let pairs = found.iter().flatten();
    let bytes: usize = pairs.map(|pair| pair.key.len() + pair.value.len()).sum();
    limits::SCAN_PAIRS_MAX < found.len() || (1 < found.len() && limits::SCAN_BYTES_MAX < bytes)
}

fn prewrite(request: PrewriteRequest, is_retry: bool) -> Result<Prewrite, String> {
    let actions: Vec<_> = request.pessimistic_actions().collect();
    if !actions.is_empty() && actions.len() != request.mutations.len() {
        return Err("pessimistic_actions: none, or one for each mutation".to_owned());
    }
    let assertion_level = convert_txn::assertion_level(request.assertion_level());
    let mut mutations = Vec::with_capacity(request.mutations.len());
    for (at, mutation) in request.mutations.into_iter().enumerate() {
        let action = actions.get(at).copied().unwrap_or_default();
        mutations.push(convert_txn::mutation(mutation, action)?);
    }
    let constraints = request.for_update_ts_constraints.into_iter();
    Ok(Prewrite {
        mutations,
        primary: request.primary_lock,
        start_ts: TimeStamp(request.start_version),
        lock_ttl: request.lock_ttl,
        txn_size: request.txn_size,
        for_update_ts: TimeStamp(request.for_update_ts),
        min_commit_ts: TimeStamp(request.min_commit_ts),
        max_commit_ts: TimeStamp(request.max_commit_ts),
        use_async_commit: request.use_async_commit,
        try_one_pc: request.try_one_pc,
        secondaries: request.secondaries,
        assertion_level,
        is_retry,
        for_update_ts_constraints: constraints
            .map(|one| (one.index as usize, TimeStamp(one.expected_for_update_ts)))
            .collect(),
        skip_constraint_check: request.skip_constraint_check,
    })
}

/// What became of a key that was to be locked in any case.
fn forced(locked: LockedKey) -> PessimisticLockKeyResult {
    let kind = match locked.locked_with_conflict_ts {
        TimeStamp::ZERO => PessimisticLockKeyResultType::LockResultNormal,
        _ => PessimisticLockKeyResultType::LockResultLockedWithConflict,
    };
    PessimisticLockKeyResult {
        r#type: kind.into(),
        value: locked.value.unwrap_or_default(),
        existence: locked.exists,
        locked_with_conflict_ts: locked.locked_with_conflict_ts.0,
        ..PessimisticLockKeyResult::default()
    }
}

fn action(action: TxnAction) -> proto::kvrpcpb::Action {
    use proto::kvrpcpb::Action;
    match action {
        TxnAction::None => Action::NoAction,
        TxnAction::TtlExpireRollback => Action::TtlExpireRollback,
        TxnAction::LockNotExistRollback => Action::LockNotExistRollback,
        TxnAction::MinCommitTsPushed => Action::MinCommitTsPushed,
        TxnAction::TtlExpirePessimisticRollback => Action::TtlExpirePessimisticRollback,
        TxnAction::LockNotExistDoNothing => Action::LockNotExistDoNothing,
    }
}

#[cfg(test)]
mod tests {
    use types::Bytes;

    use super::*;

    #[test]
    fn an_answer_that_would_be_cut_short_is_refused() {
        let pair = |bytes: usize| {
            let value = Bytes::from(vec![0; bytes]);
            Ok(KvPair { key: Bytes::new(), value })
        };
        let half = pair(limits::SCAN_BYTES_MAX / 2);
        assert!(!is_too_large(&[half.clone(), half.clone()]));
        assert!(is_too_large(&[half.clone(), half, pair(1)]));
        assert!(!is_too_large(&[pair(limits::SCAN_BYTES_MAX + 1)]), "one pair may be that large");
        let small = pair(0);
        assert!(!is_too_large(&vec![small.clone(); limits::SCAN_PAIRS_MAX]));
        assert!(is_too_large(&vec![small; limits::SCAN_PAIRS_MAX + 1]));
    }
}
