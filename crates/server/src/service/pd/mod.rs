//! `pdpb.PD`: what clients and stores ask the scheduler. Also served as `schedulerpb.Scheduler` (see `mux.rs`).
//!
//! Every answer carries the cluster's id. A request for another cluster is refused with FAILED_PRECONDITION; a
//! cluster without stores answers with NOT_BOOTSTRAPPED in the header. What is not listed answers UNIMPLEMENTED.

mod messages;

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use proto::{metapb, pdpb, pdpb::pd_server::Pd};
use scheduler::{ClusterConfig, Error, Now, RegionInfo, Scheduler, SchedulerHandle, StoreFilter};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use types::{ClusterId, KeyRange, RegionId, StoreId, TimeStamp};

use messages::{
    batch_scan_regions, check_address, leader_to_proto, query_regions, region_response,
    region_to_proto, scattered, stats_from_proto, stats_to_proto, store_from_proto, store_to_proto,
    timestamp_to_proto,
};

use crate::{
    TIKV_VERSION, convert,
    listen::{self, Phase},
};

/// Who a scheduler member is, as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) id: u64,
    /// What clients dial: `host:port`.
    pub(crate) client_address: String,
}

impl Member {
    pub(crate) fn client_url(&self) -> String {
        format!("http://{}", self.client_address)
    }
}

/// The service of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct PdService {
    scheduler: SchedulerHandle,
    cluster_id: ClusterId,
    member: Member,
    phase: watch::Receiver<Phase>,
}

type Answer<T> = Result<Response<T>, Status>;

/// What the scheduler says no to, as gRPC has it: PD answers UNKNOWN with a text, ours has the code behind it.
pub(crate) fn status(error: Error) -> Status {
    match error.class() {
        types::ErrorClass::Fatal => {
            Status::unavailable(crate::errors::with_remedy(&error.to_string(), error.code()))
        }
        _ => Status::unknown(format!("{error} [{}]", error.code())),
    }
}

impl PdService {
    pub(crate) fn new(
        scheduler: SchedulerHandle,
        cluster_id: ClusterId,
        member: Member,
        phase: watch::Receiver<Phase>,
    ) -> PdService {
        PdService { scheduler, cluster_id, member, phase }
    }

    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// A header for a request to this service from inside the process.
    pub(crate) fn request_header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader {
            cluster_id: self.cluster_id.0,
            ..pdpb::RequestHeader::default()
        })
    }

    /// The requests of a stream, until the process drains.
    fn requests<T: Send + 'static>(&self, request: Request<Streaming<T>>) -> BoxStream<T> {
        listen::while_running(request.into_inner(), &self.phase)
    }

    /// Refuses a request for another cluster.
    pub(crate) fn check_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        if cluster_id == self.cluster_id.0 {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "mismatch cluster id, need {} but got {cluster_id}",
            self.cluster_id
        )))
    }

    fn check(&self, header: &Option<pdpb::RequestHeader>) -> Result<(), Status> {
        self.check_cluster(header.as_ref().map_or(0, |header| header.cluster_id))
    }

    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader { cluster_id: self.cluster_id.0, error: None })
    }

    /// Asks the core and waits until the answer is durable; every refusal is a status.
    async fn run<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Scheduler, Now) -> Result<scheduler::Answer<T>, Error> + Send + 'static,
    ) -> Result<T, Status> {
        self.scheduler.run(ask).await.map_err(status)
    }

    /// The header of an answer: refusals that PD puts there are there, others are a status.
    fn header_of(&self, result: Result<(), Error>) -> Result<Option<pdpb::ResponseHeader>, Status> {
        let kind = match &result {
            Ok(()) => return Ok(self.header()),
            Err(Error::NotBootstrapped) => pdpb::ErrorType::NotBootstrapped,
            Err(Error::AlreadyBootstrapped) => pdpb::ErrorType::AlreadyBootstrapped,
            Err(Error::StoreTombstone { .. }) => pdpb::ErrorType::StoreTombstone,
            Err(_) => pdpb::ErrorType::Unknown,
        };
        let error = result.expect_err("success was returned above");
        match kind {
            pdpb::ErrorType::Unknown => Err(status(error)),
            kind => Ok(self.failed(kind, error.to_string())),
        }
    }

    /// Header and content of an answer; no content if the header has an error.
    fn split<T: Default>(
        &self,
        result: Result<T, Error>,
    ) -> Result<(Option<pdpb::ResponseHeader>, T), Status> {
        match result {
            Ok(content) => Ok((self.header(), content)),
            Err(error) => Ok((self.header_of(Err(error))?, T::default())),
        }
    }

    fn failed(
        &self,
        kind: pdpb::ErrorType,
        message: impl Into<String>,
    ) -> Option<pdpb::ResponseHeader> {
        let error = pdpb::Error { r#type: kind.into(), message: message.into() };
        Some(pdpb::ResponseHeader { cluster_id: self.cluster_id.0, error: Some(error) })
    }
}

impl PdService {
    async fn on_tso(&self, request: pdpb::TsoRequest) -> Result<pdpb::TsoResponse, Status> {
        self.check(&request.header)?;
        let timestamp = self.scheduler.tso(request.count).await.map_err(status)?;
        Ok(pdpb::TsoResponse {
            header: self.header(),
            count: request.count,
            timestamp: Some(timestamp_to_proto(timestamp)),
        })
    }

    /// One heartbeat. An error is for the store that sent it and ends nothing.
    pub(crate) async fn on_region_heartbeat(
        &self,
        heartbeat: pdpb::RegionHeartbeatRequest,
    ) -> Result<(), Status> {
        let Some(region) = heartbeat.region else {
            return Err(Status::unknown("invalid region heartbeat: the region is missing"));
        };
        if heartbeat.leader.is_none() {
            // Only leaders report; one that names none is on its way out.
            return Ok(());
        }
        let info = RegionInfo {
            region: convert::region(region),
            leader: heartbeat.leader.as_ref().map(convert::peer),
            term: heartbeat.term,
            pending_peers: heartbeat.pending_peers.iter().map(convert::peer).collect(),
            down_peers: heartbeat
                .down_peers
                .iter()
                .filter_map(|down| Some((convert::peer(down.peer.as_ref()?), down.down_seconds)))
                .collect(),
            approximate_size: heartbeat.approximate_size,
            approximate_keys: heartbeat.approximate_keys,
            bytes_written: heartbeat.bytes_written,
            bytes_read: heartbeat.bytes_read,
            keys_written: heartbeat.keys_written,
            keys_read: heartbeat.keys_read,
        };
        self.run(move |scheduler, _| scheduler.region_heartbeat(info)).await.map(|_| ())
    }

    async fn on_query_region(
        &self,
        request: pdpb::QueryRegionRequest,
    ) -> Result<pdpb::QueryRegionResponse, Status> {
        self.check(&request.header)?;
        let found =
            self.scheduler.run(move |scheduler, _| query_regions(scheduler, &request)).await;
        let (header, answer) = self.split(found)?;
        Ok(pdpb::QueryRegionResponse { header, ..answer })
    }

    fn region_answer(
        &self,
        found: Result<Option<Arc<RegionInfo>>, Error>,
    ) -> Answer<pdpb::GetRegionResponse> {
        let (header, info) = self.split(found)?;
        let found = info.map(|info| region_response(&info)).unwrap_or_default();
        Ok(Response::new(pdpb::GetRegionResponse {
            header,
            region: found.region,
            leader: found.leader,
            down_peers: found.down_peers,
            pending_peers: found.pending_peers,
            buckets: None,
        }))
    }

    fn member_to_proto(&self) -> pdpb::Member {
        pdpb::Member {
            name: self.member.name.clone(),
            member_id: self.member.id,
            peer_urls: vec![self.member.client_url()],
            client_urls: vec![self.member.client_url()],
            binary_version: format!("v{TIKV_VERSION}"),
            ..pdpb::Member::default()
        }
    }
}

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
        let header = self.header_of(
            self.scheduler
                .run(move |scheduler, _| scheduler.bootstrap(store, regions, scheduler.api_mode()))
                .await,
        )?;
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
        let stats = stats_from_proto(&stats);
        let header = self.header_of(
            self.scheduler.run(move |scheduler, now| scheduler.store_heartbeat(now, stats)).await,
        )?;
        Ok(Response::new(pdpb::StoreHeartbeatResponse {
            header,
            cluster_version: TIKV_VERSION.to_owned(),
            ..pdpb::StoreHeartbeatResponse::default()
        }))
    }

    /// Answers only when there is something to say: an error about one heartbeat. The stream goes on after it.
    async fn region_heartbeat(
        &self,
        request: Request<Streaming<pdpb::RegionHeartbeatRequest>>,
    ) -> Answer<BoxStream<pdpb::RegionHeartbeatResponse>> {
        let this = self.clone();
        let answers = self.requests(request).filter_map(move |heartbeat| {
            let this = this.clone();
            async move {
                let heartbeat = match heartbeat {
                    Ok(heartbeat) => heartbeat,
                    Err(status) => return Some(Err(status)),
                };
                if let Err(status) = this.check(&heartbeat.header) {
                    return Some(Err(status));
                }
                let region_id = heartbeat.region.as_ref().map_or(0, |region| region.id);
                let target_peer = heartbeat.leader;
                let refused = this.on_region_heartbeat(heartbeat).await.err()?;
                Some(Ok(pdpb::RegionHeartbeatResponse {
                    header: this.failed(pdpb::ErrorType::Unknown, refused.message()),
                    region_id,
                    target_peer,
                    ..pdpb::RegionHeartbeatResponse::default()
                }))
            }
        });
        Ok(Response::new(ending_with_error(answers)))
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

    /// Nothing to scatter with one store: done at once.
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
        // There is one store: every region is where it can be.
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
        Ok(Response::new(pdpb::GetOperatorResponse {
            header: self.failed(pdpb::ErrorType::RegionNotFound, "Not Found"),
            region_id: request.region_id,
            ..pdpb::GetOperatorResponse::default()
        }))
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
