//! `tikvpb.Tikv` over tonic: unary calls and the BatchCommands stream. Thin callers of [`KvService`].
//!
//! What is not listed here answers UNIMPLEMENTED.

use proto::{
    coprocessor, kvrpcpb,
    tikvpb::{BatchCommandsRequest, BatchCommandsResponse, tikv_server::Tikv},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{batch_commands::BatchCommands, kv::KvService, refused::Refused, rpc_times::Method};
use crate::{
    errors::Answer,
    listen::{self, Phase},
};

/// The service of a store, as every TiKV client calls it.
#[derive(Clone, Debug)]
pub(crate) struct TikvService {
    kv: KvService,
    phase: watch::Receiver<Phase>,
}

impl TikvService {
    pub(crate) fn new(kv: KvService, phase: watch::Receiver<Phase>) -> TikvService {
        TikvService { kv, phase }
    }
}

macro_rules! unary {
    (
        served { $($method:ident: $variant:ident($request:ident) => $response:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl Tikv for TikvService {
            $(
                async fn $method(
                    &self,
                    request: Request<kvrpcpb::$request>,
                ) -> Result<Response<kvrpcpb::$response>, Status> {
                    let answer = self.kv.$method(request.into_inner());
                    self.kv.times().timed(Method::$variant, answer).await.into_unary()
                }
            )*

            async fn coprocessor(
                &self,
                _: Request<coprocessor::Request>,
            ) -> Result<Response<coprocessor::Response>, Status> {
                Ok(Response::new(Refused::refused()))
            }

            async fn get_store_safe_ts(
                &self,
                _: Request<kvrpcpb::StoreSafeTsRequest>,
            ) -> Result<Response<kvrpcpb::StoreSafeTsResponse>, Status> {
                // No stale reads yet: 0 is "nothing is safe".
                Ok(Response::new(kvrpcpb::StoreSafeTsResponse::default()))
            }

            async fn batch_commands(
                &self,
                request: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
                let requests = listen::while_running(request.into_inner(), &self.phase);
                Ok(Response::new(Box::pin(BatchCommands::new(self.kv.clone(), requests))))
            }
        }
    };
}

unary! {
    served {
        raw_get: RawGet(RawGetRequest) => RawGetResponse,
        raw_batch_get: RawBatchGet(RawBatchGetRequest) => RawBatchGetResponse,
        raw_put: RawPut(RawPutRequest) => RawPutResponse,
        raw_batch_put: RawBatchPut(RawBatchPutRequest) => RawBatchPutResponse,
        raw_delete: RawDelete(RawDeleteRequest) => RawDeleteResponse,
        raw_batch_delete: RawBatchDelete(RawBatchDeleteRequest) => RawBatchDeleteResponse,
        raw_delete_range: RawDeleteRange(RawDeleteRangeRequest) => RawDeleteRangeResponse,
        raw_scan: RawScan(RawScanRequest) => RawScanResponse,
        raw_batch_scan: RawBatchScan(RawBatchScanRequest) => RawBatchScanResponse,
        raw_get_key_ttl: RawGetKeyTtl(RawGetKeyTtlRequest) => RawGetKeyTtlResponse,
        raw_compare_and_swap: RawCompareAndSwap(RawCasRequest) => RawCasResponse,
        raw_checksum: RawChecksum(RawChecksumRequest) => RawChecksumResponse,
        raw_coprocessor: RawCoprocessor(RawCoprocessorRequest) => RawCoprocessorResponse,
        unsafe_destroy_range: UnsafeDestroyRange(UnsafeDestroyRangeRequest) => UnsafeDestroyRangeResponse,
        kv_get: KvGet(GetRequest) => GetResponse,
        kv_scan: KvScan(ScanRequest) => ScanResponse,
        kv_batch_get: KvBatchGet(BatchGetRequest) => BatchGetResponse,
        kv_prewrite: KvPrewrite(PrewriteRequest) => PrewriteResponse,
        kv_commit: KvCommit(CommitRequest) => CommitResponse,
        kv_cleanup: KvCleanup(CleanupRequest) => CleanupResponse,
        kv_batch_rollback: KvBatchRollback(BatchRollbackRequest) => BatchRollbackResponse,
        kv_scan_lock: KvScanLock(ScanLockRequest) => ScanLockResponse,
        kv_resolve_lock: KvResolveLock(ResolveLockRequest) => ResolveLockResponse,
        kv_check_txn_status: KvCheckTxnStatus(CheckTxnStatusRequest) => CheckTxnStatusResponse,
        kv_txn_heart_beat: KvTxnHeartBeat(TxnHeartBeatRequest) => TxnHeartBeatResponse,
        kv_check_secondary_locks: KvCheckSecondaryLocks(CheckSecondaryLocksRequest) => CheckSecondaryLocksResponse,
        kv_pessimistic_lock: KvPessimisticLock(PessimisticLockRequest) => PessimisticLockResponse,
        kv_delete_range: KvDeleteRange(DeleteRangeRequest) => DeleteRangeResponse,
        split_region: SplitRegion(SplitRegionRequest) => SplitRegionResponse,
        mvcc_get_by_key: MvccGetByKey(MvccGetByKeyRequest) => MvccGetByKeyResponse,
        mvcc_get_by_start_ts: MvccGetByStartTs(MvccGetByStartTsRequest) => MvccGetByStartTsResponse,
        physical_scan_lock: PhysicalScanLock(PhysicalScanLockRequest) => PhysicalScanLockResponse,
        kv_pessimistic_rollback: KvPessimisticRollback(PessimisticRollbackRequest) => PessimisticRollbackResponse,
    }
}
