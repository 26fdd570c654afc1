//! `tinykvpb.TinyKv`: the course's family. The messages are TiKV's where the wire agrees; RawScan differs.
//!
//! Transactional calls answer that they are not served, until transactions exist.

use proto::{coprocessor, kvrpcpb, tinykv::kvrpc, tinykvpb::tiny_kv_server::TinyKv};
use tonic::{Request, Response, Status};

use super::{kv::KvService, refused::Refused, rpc_times::Method};
use crate::errors::Answer;

/// The service of a store, as the course's clients call it.
#[derive(Clone, Debug)]
pub(crate) struct TinyKvService {
    kv: KvService,
}

impl TinyKvService {
    pub(crate) fn new(kv: KvService) -> TinyKvService {
        TinyKvService { kv }
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
        _: Request<kvrpcpb::GetRequest>,
    ) -> Result<Response<kvrpcpb::GetResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn kv_scan(
        &self,
        _: Request<kvrpcpb::ScanRequest>,
    ) -> Result<Response<kvrpcpb::ScanResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn kv_prewrite(
        &self,
        _: Request<kvrpcpb::PrewriteRequest>,
    ) -> Result<Response<kvrpcpb::PrewriteResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn kv_commit(
        &self,
        _: Request<kvrpcpb::CommitRequest>,
    ) -> Result<Response<kvrpcpb::CommitResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn kv_batch_rollback(
        &self,
        _: Request<kvrpcpb::BatchRollbackRequest>,
    ) -> Result<Response<kvrpcpb::BatchRollbackResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn kv_resolve_lock(
        &self,
        _: Request<kvrpcpb::ResolveLockRequest>,
    ) -> Result<Response<kvrpcpb::ResolveLockResponse>, Status> {
        Ok(Response::new(Refused::refused()))
    }

    async fn coprocessor(
        &self,
        _: Request<coprocessor::Request>,
    ) -> Result<Response<coprocessor::Response>, Status> {
        Ok(Response::new(Refused::refused()))
    }
}
