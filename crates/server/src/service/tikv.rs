//! `tikvpb.Tikv` over tonic: unary calls and the BatchCommands stream. Thin callers of [`KvService`].
//!
//! What is not listed here answers UNIMPLEMENTED.

use proto::{
    kvrpcpb,
    tikvpb::{BatchCommandsRequest, BatchCommandsResponse, tikv_server::Tikv},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{batch_commands::BatchCommands, kv::KvService};
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
    ($($method:ident: $request:ident => $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Tikv for TikvService {
            $(
                async fn $method(
                    &self,
                    request: Request<kvrpcpb::$request>,
                ) -> Result<Response<kvrpcpb::$response>, Status> {
                    self.kv.$method(request.into_inner()).await.into_unary()
                }
            )*

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
    raw_get: RawGetRequest => RawGetResponse,
    raw_batch_get: RawBatchGetRequest => RawBatchGetResponse,
    raw_put: RawPutRequest => RawPutResponse,
    raw_batch_put: RawBatchPutRequest => RawBatchPutResponse,
    raw_delete: RawDeleteRequest => RawDeleteResponse,
    raw_batch_delete: RawBatchDeleteRequest => RawBatchDeleteResponse,
    raw_delete_range: RawDeleteRangeRequest => RawDeleteRangeResponse,
    raw_scan: RawScanRequest => RawScanResponse,
    raw_batch_scan: RawBatchScanRequest => RawBatchScanResponse,
    raw_get_key_ttl: RawGetKeyTtlRequest => RawGetKeyTtlResponse,
    raw_compare_and_swap: RawCasRequest => RawCasResponse,
    raw_checksum: RawChecksumRequest => RawChecksumResponse,
    raw_coprocessor: RawCoprocessorRequest => RawCoprocessorResponse,
    unsafe_destroy_range: UnsafeDestroyRangeRequest => UnsafeDestroyRangeResponse,
}
