//! One function for each RPC, in the order of the service. What is longer than a question to the scheduler and its
//! answer lies in the files beside.

use futures_util::{Stream, StreamExt};
use proto::{metapb, pdpb, pdpb::pd_server::Pd};
use scheduler::{ClusterConfig, Error, StoreFilter};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use types::{KeyRange, RegionId, StoreId, TimeStamp};

use super::{
    Answer, PdService,
    messages::{
        batch_scan_regions, check_address, leader_to_proto, node_state, operator_to_proto,
        region_to_proto, scattered, stats_from_proto, stats_to_proto, store_from_proto,
        store_to_proto, timestamp_to_proto,
    },
    status,
};
use crate::{TIKV_VERSION, convert};

#[tonic::async_trait]
impl Pd for PdService {
    /// No header to check: this is how a client learns the cluster's id.
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Answer<pdpb::GetMembersResponse> {
        let member = self.member_to_proto();
        Ok(Response::new(pdpb::GetMembersResponse {
            header: self.header(),
            members: vec![member.clone()],
            leader: Some(member.clone()),
            etcd_leader: Some(member),
            ..pdpb::GetMembersResponse::default()
        }))
    }

    async fn get_cluster_info(
        &self,
        _: Request<pdpb::GetClusterInfoRequest>,
    ) -> Answer<pdpb::GetClusterInfoResponse> {
        Ok(Response::new(pdpb::GetClusterInfoResponse {
            header: self.header(),
            service_modes: vec![pdpb::ServiceMode::PdSvcMode.into()],
            tso_urls: Vec::new(),
        }))
    }

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Answer<BoxStream<pdpb::TsoResponse>> {
        let this = self.clone();
        let answers = self.requests(request).then(move |request| {
            let this = this.clone();
            async move { this.on_tso(request?).await }
        });
        Ok(Response::new(ending_with_error(answers)))
    }

    async fn get_min_ts(
        &self,
        request: Request<pdpb::GetMinTsRequest>,
    ) -> Answer<pdpb::GetMinTsResponse> {
        self.check(&request.get_ref().header)?;
        let timestamp = self.scheduler.tso(1).await.map_err(status)?;
        Ok(Response::new(pdpb::GetMinTsResponse {
            header: self.header(),
            timestamp: Some(timestamp_to_proto(timestamp)),
        }))
    }

    async fn bootstrap(
        &self,
        request: Request<pdpb::BootstrapRequest>,
    ) -> Answer<pdpb::BootstrapResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let Some(store) = request.store else {
            return Err(Status::unknown("invalid request: the store is missing"));
        };
        check_address(&store)?;
        let (store, regions) = (store_from_proto(store), request.region.map(convert::region));
        let regions: Vec<_> = regions.into_iter().collect();
        let config = ClusterConfig { max_peer_count: self.max_replicas };
        let begun = self.scheduler.run(move |scheduler, _| {
            let begun = scheduler.bootstrap(store, regions, scheduler.api_mode())?;
            let configured = scheduler.put_cluster_config(config)?;
            Ok(scheduler::Answer { value: (), after: begun.after.max(configured.after) })
        });
        let header = self.header_of(begun.await)?;
        Ok(Response::new(pdpb::BootstrapResponse { header, ..pdpb::BootstrapResponse::default() }))
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pdpb::IsBootstrappedRequest>,
    ) -> Answer<pdpb::IsBootstrappedResponse> {
        self.check(&request.get_ref().header)?;
        let bootstrapped = self.run(|scheduler, _| Ok(scheduler.is_bootstrapped())).await?;
        Ok(Response::new(pdpb::IsBootstrappedResponse { header: self.header(), bootstrapped }))
    }

    async fn alloc_id(
        &self,
        request: Request<pdpb::AllocIdRequest>,
    ) -> Answer<pdpb::AllocIdResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let ids = self.run(move |scheduler, _| scheduler.alloc_id(request.count)).await?;
        let count = u32::try_from(ids.last - ids.first + 1).unwrap_or(u32::MAX);
        Ok(Response::new(pdpb::AllocIdResponse { header: self.header(), id: ids.last, count }))
    }

    async fn put_store(
        &self,
        request: Request<pdpb::PutStoreRequest>,
    ) -> Answer<pdpb::PutStoreResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let Some(store) = request.store else {
            return Err(Status::unknown("invalid put store request: the store is missing"));
        };
        check_address(&store)?;
        let store = store_from_proto(store);
        let header = self
            .header_of(self.scheduler.run(move |scheduler, _| scheduler.put_store(store)).await)?;
        Ok(Response::new(pdpb::PutStoreResponse { header, ..pdpb::PutStoreResponse::default() }))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Answer<pdpb::GetStoreResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let id = StoreId(request.store_id);
        let found = self.scheduler.run(move |scheduler, _| scheduler.get_store(id)).await;
        match found {
            Ok(info) => Ok(Response::new(pdpb::GetStoreResponse {
                header: self.header(),
                stats: Some(stats_to_proto(&info)),
                store: Some(store_to_proto(info)),
            })),
            Err(error) => {
                let header = self.header_of(Err(error))?;
                Ok(Response::new(pdpb::GetStoreResponse {
                    header,
                    ..pdpb::GetStoreResponse::default()
                }))
            }
        }
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Answer<pdpb::GetAllStoresResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let filter = match request.exclude_tombstone_stores {
            true => StoreFilter::ExceptTombstone,
            false => StoreFilter::All,
        };
        let found = self.scheduler.run(move |scheduler, _| scheduler.all_stores(filter)).await;
        let (header, stores) = self.split(found)?;
        let stores = stores.into_iter().map(store_to_proto).collect();
        Ok(Response::new(pdpb::GetAllStoresResponse { header, stores }))
    }

    async fn store_heartbeat(
        &self,
        request: Request<pdpb::StoreHeartbeatRequest>,
    ) -> Answer<pdpb::StoreHeartbeatResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let Some(stats) = request.stats else {
            return Err(Status::unknown("invalid store heartbeat: the statistics are missing"));
        };
        let (id, stats) = (StoreId(stats.store_id), stats_from_proto(&stats));
        let taken = self.scheduler.run(move |scheduler, now| {
            let taken = scheduler.store_heartbeat(now, stats)?;
            let known = scheduler.get_store(id)?;
            Ok(scheduler::Answer { value: Some(known.value), after: taken.after.max(known.after) })
        });
        let (header, known) = self.split(taken.await)?;
        let state = known.map(|known| node_state(known.store.state)).unwrap_or_default();
        Ok(Response::new(pdpb::StoreHeartbeatResponse {
            header,
            cluster_version: TIKV_VERSION.to_owned(),
            state: state.into(),
            ..pdpb::StoreHeartbeatResponse::default()
        }))
    }

    /// Answers only when there is something to say: see `heartbeats.rs`.
    async fn region_heartbeat(
        &self,
        request: Request<Streaming<pdpb::RegionHeartbeatRequest>>,
    ) -> Answer<BoxStream<pdpb::RegionHeartbeatResponse>> {
        let reports = self.requests(request);
        Ok(Response::new(ending_with_error(self.serve_heartbeats(reports))))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let key = request.region_key;
        self.region_answer(self.scheduler.run(move |scheduler, _| scheduler.get_region(&key)).await)
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let key = request.region_key;
        self.region_answer(
            self.scheduler.run(move |scheduler, _| scheduler.get_prev_region(&key)).await,
        )
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let id = RegionId(request.region_id);
        self.region_answer(
            self.scheduler.run(move |scheduler, _| scheduler.get_region_by_id(id)).await,
        )
    }

    async fn query_region(
        &self,
        request: Request<Streaming<pdpb::QueryRegionRequest>>,
    ) -> Answer<BoxStream<pdpb::QueryRegionResponse>> {
        let this = self.clone();
        let answers = self.requests(request).then(move |request| {
            let this = this.clone();
            async move { this.on_query_region(request?).await }
        });
        Ok(Response::new(ending_with_error(answers)))
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Answer<pdpb::ScanRegionsResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let range = KeyRange { start: request.start_key, end: request.end_key };
        let limit = scan_limit(request.limit);
        let found =
            self.scheduler.run(move |scheduler, _| scheduler.scan_regions(&range, limit)).await;
        let (header, regions) = self.split(found)?;
        // Three lists of the same regions: clients of different ages read different ones.
        Ok(Response::new(pdpb::ScanRegionsResponse {
            header,
            region_metas: regions
                .iter()
                .map(|info| convert::region_to_proto(&info.region))
                .collect(),
            leaders: regions.iter().map(|info| leader_to_proto(info).unwrap_or_default()).collect(),
            regions: regions.iter().map(|info| region_to_proto(info)).collect(),
        }))
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Answer<pdpb::BatchScanRegionsResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let ranges: Vec<KeyRange> = request
            .ranges
            .into_iter()
            .map(|range| KeyRange { start: range.start_key, end: range.end_key })
            .collect();
        let limit = scan_limit(request.limit);
        let found = self
            .scheduler
            .run(move |scheduler, _| batch_scan_regions(scheduler, &ranges, limit))
            .await;
        let (header, regions) = self.split(found)?;
        let regions = regions.iter().map(|info| region_to_proto(info)).collect();
        Ok(Response::new(pdpb::BatchScanRegionsResponse { header, regions }))
    }

    async fn get_cluster_config(
        &self,
        request: Request<pdpb::GetClusterConfigRequest>,
    ) -> Answer<pdpb::GetClusterConfigResponse> {
        self.check(&request.get_ref().header)?;
        let found = self.scheduler.run(|scheduler, _| scheduler.cluster_config()).await;
        let (header, config) = self.split(found)?;
        let cluster =
            metapb::Cluster { id: self.cluster_id.0, max_peer_count: config.max_peer_count };
        Ok(Response::new(pdpb::GetClusterConfigResponse { header, cluster: Some(cluster) }))
    }

    async fn put_cluster_config(
        &self,
        request: Request<pdpb::PutClusterConfigRequest>,
    ) -> Answer<pdpb::PutClusterConfigResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let Some(cluster) = request.cluster else {
            return Err(Status::unknown(
                "invalid put cluster config request: the cluster is missing",
            ));
        };
        self.check_cluster(cluster.id)?;
        let config = ClusterConfig { max_peer_count: cluster.max_peer_count };
        let header = self.header_of(
            self.scheduler.run(move |scheduler, _| scheduler.put_cluster_config(config)).await,
        )?;
        Ok(Response::new(pdpb::PutClusterConfigResponse { header }))
    }

    async fn get_gc_safe_point(
        &self,
        request: Request<pdpb::GetGcSafePointRequest>,
    ) -> Answer<pdpb::GetGcSafePointResponse> {
        self.check(&request.get_ref().header)?;
        let (header, safe_point) =
            self.split(self.scheduler.run(|scheduler, _| scheduler.gc_safe_point()).await)?;
        Ok(Response::new(pdpb::GetGcSafePointResponse { header, safe_point: safe_point.0 }))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Answer<pdpb::UpdateGcSafePointResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let wanted = TimeStamp(request.safe_point);
        let updated =
            self.scheduler.run(move |scheduler, _| scheduler.update_gc_safe_point(wanted)).await;
        let (header, safe_point) = self.split(updated)?;
        Ok(Response::new(pdpb::UpdateGcSafePointResponse { header, new_safe_point: safe_point.0 }))
    }

    async fn get_gc_state(
        &self,
        request: Request<pdpb::GetGcStateRequest>,
    ) -> Answer<pdpb::GetGcStateResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let (header, safe_point) =
            self.split(self.scheduler.run(|scheduler, _| scheduler.gc_safe_point()).await)?;
        let safe_point = safe_point.0;
        let gc_state = pdpb::GcState {
            keyspace_scope: request.keyspace_scope,
            is_keyspace_level_gc: false,
            txn_safe_point: safe_point,
            gc_safe_point: safe_point,
            gc_barriers: Vec::new(),
        };
        Ok(Response::new(pdpb::GetGcStateResponse {
            header,
            gc_state: Some(gc_state),
            ..pdpb::GetGcStateResponse::default()
        }))
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateServiceGcSafePointRequest>,
    ) -> Answer<pdpb::UpdateServiceGcSafePointResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let (service, ttl, wanted) =
            (request.service_id, request.ttl, TimeStamp(request.safe_point));
        let found = self
            .scheduler
            .run(move |scheduler, now| {
                scheduler.update_service_safe_point(now, &service, ttl, wanted)
            })
            .await;
        let (header, smallest) = self.split(found.map(Some))?;
        let answer = smallest.map(|smallest| pdpb::UpdateServiceGcSafePointResponse {
            header: None,
            service_id: smallest.service,
            ttl: smallest.ttl_seconds,
            min_safe_point: smallest.safe_point.0,
        });
        Ok(Response::new(pdpb::UpdateServiceGcSafePointResponse {
            header,
            ..answer.unwrap_or_default()
        }))
    }

    /// The balancers scatter all regions in time: nothing is done beyond that, and it is done at once.
    async fn scatter_region(
        &self,
        request: Request<pdpb::ScatterRegionRequest>,
    ) -> Answer<pdpb::ScatterRegionResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        for id in scattered(&request) {
            let found = self.run(move |scheduler, _| scheduler.get_region_by_id(id)).await?;
            if found.is_none() {
                let message = format!("region {id} not found");
                return Ok(Response::new(pdpb::ScatterRegionResponse {
                    header: self.failed(pdpb::ErrorType::RegionNotFound, message),
                    ..pdpb::ScatterRegionResponse::default()
                }));
            }
        }
        Ok(Response::new(pdpb::ScatterRegionResponse {
            header: self.header(),
            finished_percentage: 100,
            failed_regions_id: Vec::new(),
        }))
    }

    async fn get_operator(
        &self,
        request: Request<pdpb::GetOperatorRequest>,
    ) -> Answer<pdpb::GetOperatorResponse> {
        let request = request.into_inner();
        self.check(&request.header)?;
        let region = RegionId(request.region_id);
        let header = match self.scheduler.run(move |scheduler, _| scheduler.operator(region)).await
        {
            Ok(info) => {
                let header = self.header();
                let answer = pdpb::GetOperatorResponse { header, ..operator_to_proto(info) };
                return Ok(Response::new(answer));
            }
            Err(Error::OperatorNotFound { .. }) => {
                self.failed(pdpb::ErrorType::RegionNotFound, "Not Found")
            }
            Err(error) => self.header_of(Err(error))?,
        };
        let region_id = region.0;
        Ok(Response::new(pdpb::GetOperatorResponse { header, region_id, ..Default::default() }))
    }

    async fn ask_split(
        &self,
        request: Request<pdpb::AskSplitRequest>,
    ) -> Answer<pdpb::AskSplitResponse> {
        self.on_ask_split(request.into_inner()).await.map(Response::new)
    }

    async fn ask_batch_split(
        &self,
        request: Request<pdpb::AskBatchSplitRequest>,
    ) -> Answer<pdpb::AskBatchSplitResponse> {
        self.on_ask_batch_split(request.into_inner()).await.map(Response::new)
    }

    async fn report_split(
        &self,
        request: Request<pdpb::ReportSplitRequest>,
    ) -> Answer<pdpb::ReportSplitResponse> {
        self.on_report_split(request.into_inner()).await.map(Response::new)
    }

    async fn report_batch_split(
        &self,
        request: Request<pdpb::ReportBatchSplitRequest>,
    ) -> Answer<pdpb::ReportBatchSplitResponse> {
        self.on_report_batch_split(request.into_inner()).await.map(Response::new)
    }

    async fn split_regions(
        &self,
        request: Request<pdpb::SplitRegionsRequest>,
    ) -> Answer<pdpb::SplitRegionsResponse> {
        self.on_split_regions(request.into_inner()).await.map(Response::new)
    }

    async fn split_and_scatter_regions(
        &self,
        request: Request<pdpb::SplitAndScatterRegionsRequest>,
    ) -> Answer<pdpb::SplitAndScatterRegionsResponse> {
        self.on_split_and_scatter_regions(request.into_inner()).await.map(Response::new)
    }

    /// TiKV asks this at its start; there is no such recovery here.
    async fn is_snapshot_recovering(
        &self,
        request: Request<pdpb::IsSnapshotRecoveringRequest>,
    ) -> Answer<pdpb::IsSnapshotRecoveringResponse> {
        self.check(&request.get_ref().header)?;
        let (header, marked) = (self.header(), false);
        Ok(Response::new(pdpb::IsSnapshotRecoveringResponse { header, marked }))
    }
}

/// A stream that ends after its first error, as gRPC streams do.
fn ending_with_error<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> BoxStream<T> {
    Box::pin(answers.scan(false, |ended, answer| {
        let item = (!*ended).then_some(answer);
        *ended |= item.as_ref().is_some_and(Result::is_err);
        std::future::ready(item)
    }))
}

/// How many regions a scan may return: 0 or less is no limit, which the core spells 0.
fn scan_limit(limit: i32) -> usize {
    usize::try_from(limit).unwrap_or(0)
}
