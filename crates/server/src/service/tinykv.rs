//! `tinykvpb.TinyKv`: the course's family. The messages are TiKV's where the wire agrees; RawScan, CheckTxnStatus and two
//! numbers of a mutation's `op` differ. CheckTxnStatus rolls back what it does not find, and a lock's time is over a
//! millisecond earlier. A commit of what was never prewritten is an error, or, with `compat.tinykv-commit-missing`, none.

use proto::{coprocessor, kvrpcpb, tinykv::kvrpc, tinykvpb::tiny_kv_server::TinyKv};
use tonic::{Request, Response, Status};
use txn::commands::TtlRule;

use super::{kv::KvService, refused::Refused, rpc_times::Method, txn::OnMissing};
use crate::errors::Answer;

/// The service of a store, as the course's clients call it.
#[derive(Clone, Debug)]
pub(crate) struct TinyKvService {
    kv: KvService,
    /// What a commit of a key that was never prewritten is answered.
    on_missing: OnMissing,
}

impl TinyKvService {
    pub(crate) fn new(kv: KvService, on_missing: OnMissing) -> TinyKvService {
        TinyKvService { kv, on_missing }
    }
}

#[tonic::async_trait]
impl TinyKv for TinyKvService {
    async fn raw_get(
        &self,
        request: Request<kvrpcpb::RawGetRequest>,
    ) -> Result<Response<kvrpcpb::RawGetResponse>, Status> {
        let answer = self.kv.raw_get(request.into_inner());
        self.kv.times().timed(Method::RawGet, answer).await.into_unary()
    }

    async fn raw_put(
        &self,
        request: Request<kvrpcpb::RawPutRequest>,
    ) -> Result<Response<kvrpcpb::RawPutResponse>, Status> {
        let answer = self.kv.raw_put(request.into_inner());
        self.kv.times().timed(Method::RawPut, answer).await.into_unary()
    }

    async fn raw_delete(
        &self,
        request: Request<kvrpcpb::RawDeleteRequest>,
    ) -> Result<Response<kvrpcpb::RawDeleteResponse>, Status> {
        let answer = self.kv.raw_delete(request.into_inner());
        self.kv.times().timed(Method::RawDelete, answer).await.into_unary()
    }

    async fn raw_scan(
        &self,
        request: Request<kvrpc::RawScanRequest>,
    ) -> Result<Response<kvrpc::RawScanResponse>, Status> {
        let request = request.into_inner();
        let answer = self.kv.raw_scan(kvrpcpb::RawScanRequest {
            context: request.context,
            start_key: request.start_key,
            limit: request.limit,
            cf: request.cf,
            ..kvrpcpb::RawScanRequest::default()
        });
        let scanned = self.kv.times().timed(Method::RawScan, answer).await;
        // TiKV reports a text as one pair with an abort; the course has a field for it.
        let (failed, kvs): (Vec<_>, Vec<_>) =
            scanned.kvs.into_iter().partition(|pair| pair.error.is_some());
        let error = failed
            .into_iter()
            .find_map(|pair| pair.error)
            .map(|error| error.abort)
            .unwrap_or_default();
        kvrpc::RawScanResponse { region_error: scanned.region_error, error, kvs }.into_unary()
    }

    async fn kv_get(
        &self,
        request: Request<kvrpcpb::GetRequest>,
    ) -> Result<Response<kvrpcpb::GetResponse>, Status> {
        let answer = self.kv.kv_get(request.into_inner());
        self.kv.times().timed(Method::KvGet, answer).await.into_unary()
    }

    async fn kv_scan(
        &self,
        request: Request<kvrpcpb::ScanRequest>,
    ) -> Result<Response<kvrpcpb::ScanResponse>, Status> {
        let answer = self.kv.kv_scan(request.into_inner());
        self.kv.times().timed(Method::KvScan, answer).await.into_unary()
    }

    async fn kv_prewrite(
        &self,
        request: Request<kvrpcpb::PrewriteRequest>,
    ) -> Result<Response<kvrpcpb::PrewriteResponse>, Status> {
        let mut request = request.into_inner();
        for mutation in &mut request.mutations {
            mutation.op = op_of_the_course(mutation.op);
        }
        let answer = self.kv.kv_prewrite(request);
        self.kv.times().timed(Method::KvPrewrite, answer).await.into_unary()
    }

    async fn kv_commit(
        &self,
        request: Request<kvrpcpb::CommitRequest>,
    ) -> Result<Response<kvrpcpb::CommitResponse>, Status> {
        let answer = self.kv.commit(request.into_inner(), self.on_missing);
        self.kv.times().timed(Method::KvCommit, answer).await.into_unary()
    }

    async fn kv_check_txn_status(
        &self,
        request: Request<kvrpc::CheckTxnStatusRequest>,
    ) -> Result<Response<kvrpc::CheckTxnStatusResponse>, Status> {
        let request = request.into_inner();
        let answer = self.kv.check_txn_status(
            kvrpcpb::CheckTxnStatusRequest {
                context: request.context,
                primary_key: request.primary_key,
                lock_ts: request.lock_ts,
                current_ts: request.current_ts,
                // The course's clients know no transaction that is still to come.
                rollback_if_not_exist: true,
                ..kvrpcpb::CheckTxnStatusRequest::default()
            },
            TtlRule::TinyKv,
        );
        let status = self.kv.times().timed(Method::KvCheckTxnStatus, answer).await;
        if let Some(error) = &status.error {
            // The course's answer has no place for it.
            return Err(Status::failed_precondition(format!("{error:?}")));
        }
        status.into_unary().map(|answer| {
            let status = answer.into_inner();
            Response::new(kvrpc::CheckTxnStatusResponse {
                region_error: status.region_error,
                lock_ttl: status.lock_ttl,
                commit_version: status.commit_version,
                action: status.action,
            })
        })
    }

    async fn kv_batch_rollback(
        &self,
        request: Request<kvrpcpb::BatchRollbackRequest>,
    ) -> Result<Response<kvrpcpb::BatchRollbackResponse>, Status> {
        let answer = self.kv.kv_batch_rollback(request.into_inner());
        self.kv.times().timed(Method::KvBatchRollback, answer).await.into_unary()
    }

    async fn kv_resolve_lock(
        &self,
        request: Request<kvrpcpb::ResolveLockRequest>,
    ) -> Result<Response<kvrpcpb::ResolveLockResponse>, Status> {
        let answer = self.kv.kv_resolve_lock(request.into_inner());
        self.kv.times().timed(Method::KvResolveLock, answer).await.into_unary()
    }

    async fn coprocessor(
        &self,
        _: Request<coprocessor::Request>,
    ) -> Result<Response<coprocessor::Response>, Status> {
        Ok(Response::new(Refused::refused()))
    }
}

/// TiKV's number for a mutation's `op`: the course has Rollback and Lock the other way round.
fn op_of_the_course(op: i32) -> i32 {
    match kvrpcpb::Op::try_from(op) {
        Ok(kvrpcpb::Op::Lock) => kvrpcpb::Op::Rollback.into(),
        Ok(kvrpcpb::Op::Rollback) => kvrpcpb::Op::Lock.into(),
        _ => op,
    }
}
