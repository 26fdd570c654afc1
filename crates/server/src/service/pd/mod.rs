//! `pdpb.PD`: what clients and stores ask the scheduler. Also served as `schedulerpb.Scheduler` (see `mux.rs`).
//!
//! Every answer carries the cluster's id. A request for another cluster is refused with FAILED_PRECONDITION; a
//! cluster without stores answers with NOT_BOOTSTRAPPED in the header. What is not listed answers UNIMPLEMENTED.

mod heartbeats;
mod messages;
mod rpcs;
mod splits;

use std::sync::Arc;

use proto::pdpb;
use scheduler::{Error, Now, RegionInfo, Scheduler, SchedulerHandle};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use types::ClusterId;

use heartbeats::Streams;
use messages::{query_regions, region_response, timestamp_to_proto};

use crate::{
    TIKV_VERSION,
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
    /// How many replicas a region of a new cluster has.
    max_replicas: u32,
    phase: watch::Receiver<Phase>,
    streams: Streams,
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

/// How PD's headers name a refusal; those that it has no word for are a status, or the text of an UNKNOWN.
fn error_type(error: &Error) -> pdpb::ErrorType {
    match error {
        Error::NotBootstrapped => pdpb::ErrorType::NotBootstrapped,
        Error::AlreadyBootstrapped => pdpb::ErrorType::AlreadyBootstrapped,
        Error::StoreTombstone { .. } => pdpb::ErrorType::StoreTombstone,
        _ => pdpb::ErrorType::Unknown,
    }
}

impl PdService {
    pub(crate) fn new(
        scheduler: SchedulerHandle,
        cluster_id: ClusterId,
        member: Member,
        max_replicas: u32,
        phase: watch::Receiver<Phase>,
    ) -> PdService {
        let streams = Streams::default();
        PdService { scheduler, cluster_id, member, max_replicas, phase, streams }
    }

    /// The scheduler behind it, for other ways to ask it.
    pub(crate) fn scheduler(&self) -> &SchedulerHandle {
        &self.scheduler
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
        let Err(error) = result else { return Ok(self.header()) };
        match error_type(&error) {
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
