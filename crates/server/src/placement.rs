//! What a store asks of the scheduler: its place in the cluster, ids, the key mode; and what it reports.
//!
//! Two ways to the same services: [`Placement::Local`] calls those of this process, [`Placement::Remote`] dials them. A store never waits for the scheduler to serve data, with one exception: the very first write of a cluster in
//! API mode v1, which latches the key mode.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use proto::{
    internal::{self, placement_client::PlacementClient, placement_server::Placement as _},
    metapb,
    pdpb::{self, pd_client::PdClient, pd_server::Pd as _},
};
use storage::{KeyModeLatch, Latching};
use tokio::sync::Mutex;
use tonic::{
    Code as GrpcCode, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use types::{ApiMode, ClusterId, Code, KeyMode, Region, StoreId};

use crate::{
    convert,
    service::{pd::PdService, placement::PlacementService},
    transport::Addresses,
};

/// How long one question to the scheduler may take.
const TIMEOUT: Duration = Duration::from_secs(3);

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
}

/// What a store reports of a region that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionReport {
    pub(crate) region: Region,
    pub(crate) store_id: StoreId,
    pub(crate) approximate_size: u64,
    pub(crate) approximate_keys: u64,
}

/// A way to the scheduler. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// The scheduler of this process: its services, called without a network.
    Local(Local),
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
    /// PD's request has room for one region over all keys; several are reported afterwards.
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
        check(answer.header).map(|()| true)
    }

    /// Makes `store` known, or its new address.
    pub(crate) async fn put_store(&self, store: &StoreMeta) -> Result<()> {
        let answer = ask!(self, pd.put_store, |cluster_id| pdpb::PutStoreRequest {
            header: header(cluster_id),
            store: Some(store_to_proto(store)),
        })?;
        check(answer.header)
    }

    /// Where a store is.
    pub(crate) async fn store_address(&self, store: StoreId) -> Result<String> {
        let answer = ask!(self, pd.get_store, |cluster_id| pdpb::GetStoreRequest {
            header: header(cluster_id),
            store_id: store.0,
        })?;
        check(answer.header)?;
        let found = answer.store.filter(|found| !found.address.is_empty());
        found.map(|found| found.address).ok_or_else(|| {
            PlacementError::new(Code::ClusterMismatch, format!("there is no store {store}"))
        })
    }

    /// A store heartbeat.
    pub(crate) async fn report_store(&self, report: &StoreReport) -> Result<()> {
        let stats = pdpb::StoreStats {
            store_id: report.store_id.0,
            capacity: report.capacity,
            available: report.available,
            used_size: report.used,
            region_count: report.regions,
            start_time: u32::try_from(report.start_timestamp_s).unwrap_or(u32::MAX),
            ..pdpb::StoreStats::default()
        };
        let answer = ask!(self, pd.store_heartbeat, |cluster_id| pdpb::StoreHeartbeatRequest {
            header: header(cluster_id),
            stats: Some(stats.clone()),
            ..pdpb::StoreHeartbeatRequest::default()
        })?;
        check(answer.header)
    }

    /// Region heartbeats. One stream per round: regions are few and reports rare in this form of the store.
    pub(crate) async fn report_regions(&self, reports: &[RegionReport]) -> Result<()> {
        let requests = |cluster_id| {
            let request = move |report: &RegionReport| pdpb::RegionHeartbeatRequest {
                header: header(cluster_id),
                region: Some(convert::region_to_proto(&report.region)),
                leader: report.region.peer_on(report.store_id).map(convert::peer_to_proto),
                approximate_size: report.approximate_size,
                approximate_keys: report.approximate_keys,
                ..pdpb::RegionHeartbeatRequest::default()
            };
            reports.iter().map(request).collect::<Vec<_>>()
        };
        match self {
            Placement::Local(local) => {
                for request in requests(local.cluster_id.0) {
                    local.pd.on_region_heartbeat(request).await?;
                }
                Ok(())
            }
            Placement::Remote(remote) => {
                remote
                    .ask(async |connection| {
                        let requests = tokio_stream::iter(requests(connection.cluster_id));
                        let mut answers =
                            connection.pd().region_heartbeat(requests).await?.into_inner();
                        // The scheduler ends its side once it has taken all of ours; it has no orders for us yet.
                        while let Some(answer) = answers.message().await? {
                            if let Some(error) = answer.header.and_then(|header| header.error) {
                                return Err(Status::unknown(error.message));
                            }
                        }
                        Ok(())
                    })
                    .await
            }
        }
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

impl KeyModeLatch for Placement {
    fn latch(&self, wanted: KeyMode) -> Latching {
        let placement = self.clone();
        Box::pin(async move {
            placement.latch_key_mode(wanted).await.map_err(|error| error.to_string())
        })
    }
}

/// A scheduler elsewhere, dialled by the first of its addresses that answers.
#[derive(Debug)]
pub(crate) struct Remote {
    endpoints: Vec<String>,
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone, Debug)]
struct Connection {
    cluster_id: u64,
    channel: Channel,
}

impl Remote {
    pub(crate) fn new(endpoints: Vec<String>) -> Remote {
        Remote { endpoints, connection: Mutex::new(None) }
    }

    /// The connection that last worked, or a new one to the first address that answers.
    async fn connection(&self) -> Result<Connection> {
        // Held while dialling: callers that come meanwhile want the same connection.
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok(connection.clone());
        }
        let mut reasons = Vec::new();
        for endpoint in &self.endpoints {
            match dial(endpoint).await {
                Ok(dialled) => return Ok(connection.insert(dialled).clone()),
                Err(reason) => reasons.push(format!("{endpoint} {reason}")),
            }
        }
        let message = format!("no scheduler answered: {}", reasons.join(", "));
        Err(PlacementError::new(Code::SchedulerUnreachable, message))
    }

    /// Asks, and forgets the connection if the transport failed.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Connection) -> Result<T, Status>,
    ) -> Result<T> {
        let connection = self.connection().await?;
        match tokio::time::timeout(TIMEOUT, question(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => {
                if status.code() == GrpcCode::Unavailable {
                    *self.connection.lock().await = None;
                }
                Err(status.into())
            }
            Err(_) => {
                *self.connection.lock().await = None;
                let message =
                    format!("the scheduler did not answer within {} s", TIMEOUT.as_secs());
                Err(PlacementError::new(Code::SchedulerUnreachable, message))
            }
        }
    }
}

impl Connection {
    fn pd(&self) -> PdClient<Channel> {
        PdClient::new(self.channel.clone())
    }

    fn internal(&self) -> PlacementClient<Channel> {
        PlacementClient::new(self.channel.clone())
    }
}

fn header(cluster_id: u64) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader { cluster_id, ..pdpb::RequestHeader::default() })
}

/// Dials one address and asks which cluster it is of.
async fn dial(endpoint: &str) -> Result<Connection, String> {
    let uri =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(TIMEOUT).tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let mut pd = PdClient::new(channel.clone());
    let asked = pd.get_members(pdpb::GetMembersRequest::default());
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(members)) => {
            let cluster_id = members.into_inner().header.map_or(0, |header| header.cluster_id);
            Ok(Connection { cluster_id, channel })
        }
        Ok(Err(status)) => Err(format!("answered {}", status.message())),
        Err(_) => Err(format!("timed out after {} s", TIMEOUT.as_secs())),
    }
}

/// The innermost reason of a transport error: "Connection refused" instead of "transport error".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// An error in the header of an answer.
fn check(header: Option<pdpb::ResponseHeader>) -> Result<()> {
    let Some(error) = header.and_then(|header| header.error) else { return Ok(()) };
    match pdpb::ErrorType::try_from(error.r#type) {
        Ok(pdpb::ErrorType::Ok) => Ok(()),
        Ok(pdpb::ErrorType::NotBootstrapped) => {
            Err(PlacementError::new(Code::NotBootstrapped, error.message))
        }
        _ => Err(PlacementError::new(Code::ClusterMismatch, error.message)),
    }
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
