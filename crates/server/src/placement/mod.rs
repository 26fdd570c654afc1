//! What a store asks of the scheduler: its place in the cluster, ids, the key mode; and what it reports.
//!
//! Two ways to the same services: [`Placement::Local`] calls those of this process, [`Placement::Remote`] dials them
//! (`remote.rs`). A store never waits for the scheduler to serve data, with one exception: the very first write of a
//! cluster in API mode v1, which latches the key mode.
//!
//! Questions are here; what goes on by itself is beside: `heartbeats.rs` keeps the scheduler informed, `orders.rs` does
//! what it wants done.

pub(crate) mod heartbeats;
pub(crate) mod orders;
pub(crate) mod remote;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{Stream, StreamExt, future::BoxFuture};
use proto::{
    internal::{self, placement_server::Placement as _},
    metapb,
    pdpb::{self, pd_server::Pd as _},
};
use scheduler::SplitIds;
use storage::{Asking, KeyModeLatch, Latching, Timestamps};
use tonic::{Code as GrpcCode, Request, Response, Status, codegen::BoxStream};
use types::{
    ApiMode, ClusterId, Code, KeyMode, PeerId, Region, RegionId, StoreId, TimeStamp,
    timestamp::LOGICAL_BITS,
};

pub(crate) use remote::Remote;

use crate::{
    convert,
    service::{pd::PdService, placement::PlacementService},
    transport::Addresses,
};

/// Why the scheduler did not answer, or said no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct PlacementError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl PlacementError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> PlacementError {
        PlacementError { code, message: message.into() }
    }
}

impl From<Status> for PlacementError {
    fn from(status: Status) -> PlacementError {
        let code = match status.code() {
            GrpcCode::FailedPrecondition => Code::ClusterMismatch,
            // Our scheduler says no like PD, and adds the code.
            GrpcCode::Unknown => {
                code_at_the_end(status.message()).unwrap_or(Code::SchedulerUnreachable)
            }
            _ => Code::SchedulerUnreachable,
        };
        PlacementError::new(code, status.message())
    }
}

/// What is fixed or latched for the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterState {
    pub(crate) cluster_id: ClusterId,
    pub(crate) api: ApiMode,
    pub(crate) key_mode: Option<KeyMode>,
}

/// What a store says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreMeta {
    pub(crate) id: StoreId,
    pub(crate) address: String,
    pub(crate) status_address: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) start_timestamp_s: u64,
}

/// What a store reports of itself now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreReport {
    pub(crate) store_id: StoreId,
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) regions: u32,
    pub(crate) start_timestamp_s: u64,
    /// Whether it wants to be left alone.
    pub(crate) is_busy: bool,
    pub(crate) sending_snapshots: u32,
    pub(crate) receiving_snapshots: u32,
    pub(crate) applying_snapshots: u32,
}

/// A way to the scheduler. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// The scheduler of this process: its services, called without a network.
    Local(Arc<Local>),
    /// A scheduler elsewhere.
    Remote(Arc<Remote>),
}

/// The services of the scheduler in this process.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) cluster_id: ClusterId,
    pub(crate) pd: PdService,
    pub(crate) internal: PlacementService,
}

type Result<T, E = PlacementError> = std::result::Result<T, E>;

/// Asks one of the scheduler's services, here or elsewhere. The request is made from the cluster's id.
macro_rules! ask {
    ($placement:ident, $service:ident.$method:ident, $request:expr) => {
        match $placement {
            Placement::Local(local) => local
                .$service
                .$method(Request::new($request(local.cluster_id.0)))
                .await
                .map(Response::into_inner)
                .map_err(PlacementError::from),
            Placement::Remote(remote) => {
                remote
                    .ask(async |connection| {
                        let request = $request(connection.cluster_id);
                        Ok(connection.$service().$method(request).await?.into_inner())
                    })
                    .await
            }
        }
    };
}

impl Placement {
    /// What is fixed or latched for the whole cluster.
    pub(crate) async fn cluster_state(&self) -> Result<ClusterState> {
        let state = ask!(self, internal.get_cluster_state, |cluster_id| {
            internal::GetClusterStateRequest { cluster_id }
        })?;
        let api = convert::api_mode(state.api_mode).ok_or_else(|| {
            PlacementError::new(
                Code::ApiVersionMismatch,
                "the cluster has an API mode that this version does not know",
            )
        })?;
        let key_mode = convert::key_mode(state.key_mode);
        Ok(ClusterState { cluster_id: ClusterId(state.cluster_id), api, key_mode })
    }

    /// Whether the cluster has a store already.
    pub(crate) async fn is_bootstrapped(&self) -> Result<bool> {
        let answer = ask!(self, pd.is_bootstrapped, |cluster_id| pdpb::IsBootstrappedRequest {
            header: header(cluster_id)
        })?;
        Ok(answer.bootstrapped)
    }

    /// An id that nobody else has or will have.
    pub(crate) async fn alloc_id(&self) -> Result<u64> {
        let answer = ask!(self, pd.alloc_id, |cluster_id| pdpb::AllocIdRequest {
            header: header(cluster_id),
            count: 1
        })?;
        check(answer.header)?;
        Ok(answer.id)
    }

    /// Makes `store` the first one of a new cluster. `false`: somebody else was first.
    ///
    /// PD's request has room for one region over all keys. Several are reported as if they had been one before; if that
    /// fails they are known once their leaders report.
    pub(crate) async fn bootstrap(&self, store: &StoreMeta, regions: &[Region]) -> Result<bool> {
        let region = match regions {
            [region] => Some(region),
            _ => None,
        };
        let answer = ask!(self, pd.bootstrap, |cluster_id| pdpb::BootstrapRequest {
            header: header(cluster_id),
            store: Some(store_to_proto(store)),
            region: region.map(convert::region_to_proto),
        })?;
        let error = answer.header.as_ref().and_then(|header| header.error.as_ref());
        if error
            .is_some_and(|error| error.r#type == i32::from(pdpb::ErrorType::AlreadyBootstrapped))
        {
            return Ok(false);
        }
        check(answer.header)?;
        if region.is_none() && !regions.is_empty() {
            self.report_batch_split(regions).await?;
        }
        Ok(true)
    }

    /// Makes `store` known, or its new address.
    pub(crate) async fn put_store(&self, store: &StoreMeta) -> Result<()> {
        let answer = ask!(self, pd.put_store, |cluster_id| pdpb::PutStoreRequest {
            header: header(cluster_id),
            store: Some(store_to_proto(store)),
        })?;
        check(answer.header)
    }

    /// Where other stores reach a store.
    ///
    /// # Errors
    /// `StoreRemoved`: it is gone for good. `InvalidRequest`: there is none with that id.
    pub(crate) async fn store_address(&self, id: StoreId) -> Result<String> {
        let answer = ask!(self, pd.get_store, |cluster_id| pdpb::GetStoreRequest {
            header: header(cluster_id),
            store_id: id.0,
        })?;
        check(answer.header)?;
        let store = answer.store.unwrap_or_default();
        if store.state() == metapb::StoreState::Tombstone {
            let message = format!("store {id} was removed from the cluster");
            return Err(PlacementError::new(Code::StoreRemoved, message));
        }
        Ok(if store.peer_address.is_empty() { store.address } else { store.peer_address })
    }

    /// The region with that id, as the scheduler knows it.
    pub(crate) async fn region_by_id(&self, id: RegionId) -> Result<Option<Region>> {
        let answer = ask!(self, pd.get_region_by_id, |cluster_id| pdpb::GetRegionByIdRequest {
            header: header(cluster_id),
            region_id: id.0,
            need_buckets: false,
        })?;
        check(answer.header)?;
        Ok(answer.region.map(convert::region))
    }

    /// The store that leads the region with the first key, as the scheduler knows it.
    pub(crate) async fn first_leader(&self) -> Result<Option<StoreId>> {
        let answer = ask!(self, pd.get_region, |cluster_id| pdpb::GetRegionRequest {
            header: header(cluster_id),
            ..pdpb::GetRegionRequest::default()
        })?;
        check(answer.header)?;
        let leader = answer.leader.map(|leader| StoreId(leader.store_id));
        Ok(leader.filter(|store| store.0 != 0))
    }

    /// Whether the scheduler knows who leads a region.
    pub(crate) async fn knows_leader(&self, id: RegionId) -> Result<bool> {
        let answer = ask!(self, pd.get_region_by_id, |cluster_id| pdpb::GetRegionByIdRequest {
            header: header(cluster_id),
            region_id: id.0,
            need_buckets: false,
        })?;
        check(answer.header)?;
        Ok(answer.leader.is_some_and(|leader| leader.id != 0))
    }

    /// Ids for `count` regions that are to be split off `region`, each with as many peers.
    pub(crate) async fn ask_batch_split(
        &self,
        region: &Region,
        count: u32,
    ) -> Result<Vec<SplitIds>> {
        let answer = ask!(self, pd.ask_batch_split, |cluster_id| pdpb::AskBatchSplitRequest {
            header: header(cluster_id),
            region: Some(convert::region_to_proto(region)),
            split_count: count,
            ..pdpb::AskBatchSplitRequest::default()
        })?;
        check(answer.header)?;
        let ids = |ids: pdpb::SplitId| SplitIds {
            region: RegionId(ids.new_region_id),
            peers: ids.new_peer_ids.into_iter().map(PeerId).collect(),
        };
        Ok(answer.ids.into_iter().map(ids).collect())
    }

    /// Says what a region was split into, in key order. Once this returns clients find all of them at the scheduler.
    pub(crate) async fn report_batch_split(&self, regions: &[Region]) -> Result<()> {
        let answer = ask!(self, pd.report_batch_split, |cluster_id| {
            let regions = regions.iter().map(convert::region_to_proto).collect();
            pdpb::ReportBatchSplitRequest { header: header(cluster_id), regions }
        })?;
        check(answer.header)
    }

    /// A store heartbeat.
    ///
    /// # Errors
    /// `StoreRemoved`: the store is gone for good, and has no business in the cluster any more.
    pub(crate) async fn report_store(&self, report: &StoreReport) -> Result<()> {
        let stats = pdpb::StoreStats {
            store_id: report.store_id.0,
            capacity: report.capacity,
            available: report.available,
            used_size: report.used,
            region_count: report.regions,
            start_time: u32::try_from(report.start_timestamp_s).unwrap_or(u32::MAX),
            is_busy: report.is_busy,
            sending_snap_count: report.sending_snapshots,
            receiving_snap_count: report.receiving_snapshots,
            applying_snap_count: report.applying_snapshots,
            ..pdpb::StoreStats::default()
        };
        let answer = ask!(self, pd.store_heartbeat, |cluster_id| pdpb::StoreHeartbeatRequest {
            header: header(cluster_id),
            stats: Some(stats.clone()),
            ..pdpb::StoreHeartbeatRequest::default()
        })?;
        check(answer.header)
    }

    /// Opens a stream of region heartbeats, to which this adds the headers; returns what the scheduler says on it.
    async fn open_heartbeats(
        &self,
        reports: impl Stream<Item = pdpb::RegionHeartbeatRequest> + Send + 'static,
    ) -> Result<BoxStream<pdpb::RegionHeartbeatResponse>> {
        let with_header = |cluster_id: u64| {
            move |report| pdpb::RegionHeartbeatRequest { header: header(cluster_id), ..report }
        };
        match self {
            Placement::Local(local) => {
                let reports = reports.map(with_header(local.cluster_id.0)).map(Ok);
                Ok(local.pd.serve_heartbeats(reports.boxed()))
            }
            Placement::Remote(remote) => {
                remote
                    .ask(async |connection| {
                        let reports = reports.map(with_header(connection.cluster_id));
                        let answers = connection.pd().region_heartbeat(reports).await?;
                        Ok(answers.into_inner().boxed())
                    })
                    .await
            }
        }
    }

    /// The connection has failed: the next question dials again.
    async fn forget_connection(&self) {
        match self {
            Placement::Local(_) => {}
            Placement::Remote(remote) => remote.forget_connection().await,
        }
    }

    /// A timestamp that is later than all that were given out.
    async fn timestamp_now(&self) -> Result<TimeStamp> {
        let answer = ask!(self, pd.get_min_ts, |cluster_id| pdpb::GetMinTsRequest {
            header: header(cluster_id)
        })?;
        check(answer.header)?;
        match answer.timestamp {
            Some(ts) => Ok(TimeStamp(((ts.physical as u64) << LOGICAL_BITS) + ts.logical as u64)),
            None => Err(PlacementError::new(Code::Bug, "the scheduler gave no timestamp")),
        }
    }

    /// The GC safe point: nobody reads below it any more.
    pub(crate) async fn gc_safe_point(&self) -> Result<TimeStamp> {
        let answer = ask!(self, pd.get_gc_safe_point, |cluster_id| pdpb::GetGcSafePointRequest {
            header: header(cluster_id)
        })?;
        check(answer.header)?;
        Ok(TimeStamp(answer.safe_point))
    }

    async fn latch_key_mode(&self, wanted: KeyMode) -> Result<KeyMode> {
        let answer =
            ask!(self, internal.latch_key_mode, |cluster_id| internal::LatchKeyModeRequest {
                cluster_id,
                wanted: convert::key_mode_to_proto(Some(wanted)).into(),
            })?;
        convert::key_mode(answer.decided).ok_or_else(|| {
            PlacementError::new(
                Code::Bug,
                "the scheduler latched no key mode although it was asked to",
            )
        })
    }
}

impl Addresses for Placement {
    fn address(&self, store: StoreId) -> BoxFuture<'static, Result<String>> {
        let placement = self.clone();
        Box::pin(async move { placement.store_address(store).await })
    }
}

impl Timestamps for Placement {
    fn timestamp(&self) -> Asking {
        let placement = self.clone();
        Box::pin(async move { placement.timestamp_now().await.map_err(|error| error.to_string()) })
    }
}

impl KeyModeLatch for Placement {
    fn latch(&self, wanted: KeyMode) -> Latching {
        let placement = self.clone();
        Box::pin(async move {
            placement.latch_key_mode(wanted).await.map_err(|error| error.to_string())
        })
    }
}

fn header(cluster_id: u64) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id, ..pdpb::RequestHeader::default() })
}

/// An error in the header of an answer.
fn check(header: Option<pdpb::ResponseHeader>) -> Result<()> {
    let Some(error) = header.and_then(|header| header.error) else { return Ok(()) };
    match pdpb::ErrorType::try_from(error.r#type) {
        Ok(pdpb::ErrorType::Ok) => Ok(()),
        Ok(pdpb::ErrorType::NotBootstrapped) => {
            Err(PlacementError::new(Code::NotBootstrapped, error.message))
        }
        Ok(pdpb::ErrorType::StoreTombstone) => {
            Err(PlacementError::new(Code::StoreRemoved, error.message))
        }
        _ => {
            let code = code_at_the_end(&error.message).unwrap_or(Code::ClusterMismatch);
            Err(PlacementError::new(code, error.message))
        }
    }
}

/// The code in a refusal's text, `why [TK1234]`.
fn code_at_the_end(text: &str) -> Option<Code> {
    let (_, code) = text.strip_suffix(']')?.rsplit_once('[')?;
    Code::parse(code)
}

fn store_to_proto(store: &StoreMeta) -> metapb::Store {
    metapb::Store {
        id: store.id.0,
        address: store.address.clone(),
        status_address: store.status_address.clone(),
        peer_address: store.address.clone(),
        version: crate::TIKV_VERSION.to_owned(),
        labels: store
            .labels
            .iter()
            .map(|(key, value)| metapb::StoreLabel { key: key.clone(), value: value.clone() })
            .collect(),
        start_timestamp: i64::try_from(store.start_timestamp_s).unwrap_or_default(),
        node_state: metapb::NodeState::Serving.into(),
        ..metapb::Store::default()
    }
}
