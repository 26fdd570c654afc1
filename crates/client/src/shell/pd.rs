//! The scheduler's services, whoever of its members answers.
//!
//! A question goes to the member that answered last, which is the leader in a quiet cluster, and on to the others if
//! it does not answer in time or says that it cannot. Whoever had to go on learns the members anew on the way: the
//! list never goes stale while one member of it is alive. An error names each address with its own reason.

use std::{collections::HashMap, future::Future, sync::Mutex, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use proto::{
    internal::{GetClusterStateRequest, placement_client::PlacementClient},
    metapb, pdpb,
    pdpb::pd_client::PdClient,
};
use tonic::{Code as GrpcCode, Response, Status, transport::Channel};
use types::{ApiMode, ClusterId, Code, StoreId};

use super::{ClusterState, connections, convert};
use crate::{
    Error, Result,
    error::EndpointFailure,
    request::{Question, Route},
};

/// The members of the scheduler of one cluster.
#[derive(Debug)]
pub(super) struct Scheduler {
    cluster_id: ClusterId,
    /// How long one member may take for one answer.
    timeout: Duration,
    members: Mutex<Members>,
}

/// Addresses are `host:port`.
#[derive(Debug, Default)]
struct Members {
    /// What the user gave. Never forgotten: the members may advertise addresses that cannot be dialled from here.
    given: Vec<String>,
    /// What the members say of themselves.
    advertised: Vec<String>,
    leader: Option<String>,
    /// Who answered last.
    preferred: Option<String>,
    channels: HashMap<String, Channel>,
}

impl Members {
    /// Whom to ask, best first, each once.
    fn in_order(&self) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        for address in
            self.preferred.iter().chain(&self.leader).chain(&self.given).chain(&self.advertised)
        {
            if !order.contains(address) {
                order.push(address.clone());
            }
        }
        order
    }

    fn learn(&mut self, response: &pdpb::GetMembersResponse) {
        let urls = |member: &pdpb::Member| -> Vec<String> {
            let known = |url: &String| connections::host_port(url).ok().map(str::to_owned);
            member.client_urls.iter().filter_map(known).collect()
        };
        let advertised: Vec<String> = response.members.iter().flat_map(urls).collect();
        if !advertised.is_empty() {
            self.advertised = advertised;
        }
        self.leader = response.leader.as_ref().and_then(|leader| urls(leader).into_iter().next());
    }

    fn channel(&mut self, address: &str, timeout: Duration) -> Result<Channel> {
        if let Some(channel) = self.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = connections::endpoint(address, timeout)?.connect_lazy();
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

impl Scheduler {
    /// Asks all `endpoints` at once who the members are; the first answer counts.
    pub(super) async fn connect<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        timeout: Duration,
    ) -> Result<Scheduler> {
        let mut members = Members::default();
        let mut asked = FuturesUnordered::new();
        for endpoint in endpoints {
            let address = connections::host_port(endpoint.as_ref())?.to_owned();
            let channel = members.channel(&address, timeout)?;
            asked.push(async move {
                let answer = within(timeout, get_members(channel)).await;
                (address, answer)
            });
        }
        let mut failures = Vec::new();
        let mut first = None;
        while let Some((address, answer)) = asked.next().await {
            let failed =
                match answer.and_then(|response| cluster_of(&response).map(|id| (id, response))) {
                    Ok(answer) => {
                        first = Some((address, answer));
                        break;
                    }
                    Err(reason) => reason,
                };
            failures.push(EndpointFailure { endpoint: address, reason: failed });
        }
        drop(asked);
        let Some((address, (cluster_id, response))) = first else {
            failures.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
            return Err(Error::SchedulerUnreachable { failures });
        };
        members.given = members.channels.keys().cloned().collect();
        members.learn(&response);
        if members.leader.as_ref().is_none_or(|leader| *leader == address) {
            members.preferred = Some(address);
        }
        Ok(Scheduler { cluster_id, timeout, members: Mutex::new(members) })
    }

    pub(super) fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The header of a request.
    pub(super) fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader {
            cluster_id: self.cluster_id.0,
            ..pdpb::RequestHeader::default()
        })
    }

    /// Whom to ask, best first.
    pub(super) fn in_order(&self) -> Vec<String> {
        self.members.lock().expect("no code under this lock panics").in_order()
    }

    /// A connection to a member.
    pub(super) fn channel(&self, address: &str) -> Result<Channel> {
        self.members.lock().expect("no code under this lock panics").channel(address, self.timeout)
    }

    /// Notes that `address` answered, and learns the members anew if that is somebody else than before.
    pub(super) async fn answered(&self, address: &str) {
        {
            let mut members = self.members.lock().expect("no code under this lock panics");
            if members.preferred.as_deref() == Some(address) {
                return;
            }
            members.preferred = Some(address.to_owned());
        }
        let Ok(channel) = self.channel(address) else { return };
        if let Ok(response) = within(self.timeout, get_members(channel)).await {
            self.members.lock().expect("no code under this lock panics").learn(&response);
        }
    }

    /// Asks one member after the other until one answers.
    pub(super) async fn ask<T, F>(&self, question: impl Fn(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut failures = Vec::new();
        for address in self.in_order() {
            let reason =
                match tokio::time::timeout(self.timeout, question(self.channel(&address)?)).await {
                    Ok(Ok(answer)) => {
                        self.answered(&address).await;
                        return Ok(answer.into_inner());
                    }
                    Ok(Err(status)) if is_elsewhere(&status) => connections::reason(&status),
                    Ok(Err(status)) => return Err(refusal(&status)),
                    Err(_) => format!("timed out after {:?}", self.timeout),
                };
            failures.push(EndpointFailure { endpoint: address, reason });
        }
        Err(Error::SchedulerUnreachable { failures })
    }

    /// Answers a call's question about routes.
    pub(super) async fn route(&self, question: Question) -> Result<Route> {
        match question {
            Question::RegionOf(key) => {
                let request = self.region_request(key);
                let answer = self.ask(|channel| get_region(channel, request.clone())).await?;
                region_route(answer)
            }
            Question::RegionBefore(key) => {
                let request = self.region_request(key);
                let answer = self.ask(|channel| get_prev_region(channel, request.clone())).await?;
                region_route(answer)
            }
            Question::Store(store) => {
                let answer = self.ask(|channel| get_store(channel, self.header(), store)).await?;
                check(answer.header.as_ref())?;
                Ok(match answer.store {
                    Some(found)
                        if found.state() != metapb::StoreState::Tombstone
                            && !found.address.is_empty() =>
                    {
                        Route::Store { store, address: found.address }
                    }
                    _ => Route::NoStore(store),
                })
            }
        }
    }

    fn region_request(&self, region_key: types::Bytes) -> pdpb::GetRegionRequest {
        pdpb::GetRegionRequest { header: self.header(), region_key, need_buckets: false }
    }

    /// What is fixed or latched for the whole cluster. A PD has no such call and holds what its stores say; v1 is
    /// their default.
    pub(super) async fn cluster_state(&self) -> Result<ClusterState> {
        let cluster_id = self.cluster_id.0;
        let asked = self.ask(|channel| async move {
            PlacementClient::new(channel)
                .get_cluster_state(GetClusterStateRequest { cluster_id })
                .await
        });
        match asked.await {
            Ok(state) => {
                let api_mode = convert::api_mode(state.api_mode).ok_or_else(|| {
                    let message = format!("the cluster's API mode has number {}", state.api_mode);
                    Error::Scheduler { code: Code::Unsupported, message }
                })?;
                Ok(ClusterState { api_mode, key_mode: convert::key_mode(state.key_mode) })
            }
            Err(Error::Scheduler { code: Code::Unsupported, .. }) => {
                Ok(ClusterState { api_mode: ApiMode::V1, key_mode: None })
            }
            Err(error) => Err(error),
        }
    }
}

pub(super) async fn get_members(
    channel: Channel,
) -> Result<Response<pdpb::GetMembersResponse>, Status> {
    PdClient::new(channel).get_members(pdpb::GetMembersRequest::default()).await
}

async fn get_region(
    channel: Channel,
    request: pdpb::GetRegionRequest,
) -> Result<Response<pdpb::GetRegionResponse>, Status> {
    PdClient::new(channel).get_region(request).await
}

async fn get_prev_region(
    channel: Channel,
    request: pdpb::GetRegionRequest,
) -> Result<Response<pdpb::GetRegionResponse>, Status> {
    PdClient::new(channel).get_prev_region(request).await
}

pub(super) async fn get_store(
    channel: Channel,
    header: Option<pdpb::RequestHeader>,
    store: StoreId,
) -> Result<Response<pdpb::GetStoreResponse>, Status> {
    PdClient::new(channel).get_store(pdpb::GetStoreRequest { header, store_id: store.0 }).await
}

fn region_route(answer: pdpb::GetRegionResponse) -> Result<Route> {
    match check(answer.header.as_ref()) {
        Err(Error::Scheduler { code: Code::RegionNotFound, .. }) => return Ok(Route::NoRegion),
        other => other?,
    }
    Ok(match answer.region {
        Some(region) if region.id != 0 => Route::Region {
            region: convert::region(region),
            leader: convert::leader(answer.leader.as_ref()),
        },
        _ => Route::NoRegion,
    })
}

/// The cluster that an answer speaks for; the reason if it cannot be used.
fn cluster_of(response: &pdpb::GetMembersResponse) -> Result<ClusterId, String> {
    check(response.header.as_ref()).map_err(|error| error.to_string())?;
    match response.header.as_ref().map_or(0, |header| header.cluster_id) {
        0 => Err("names no cluster".to_owned()),
        id => Ok(ClusterId(id)),
    }
}

/// An answer in time, or the reason in a few words.
async fn within<T>(
    timeout: Duration,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(connections::reason(&status)),
        Err(_) => Err(format!("timed out after {timeout:?}")),
    }
}

/// Whether another member may do better.
pub(super) fn is_elsewhere(status: &Status) -> bool {
    connections::is_transport(status) || status.code() == GrpcCode::Unavailable
}

/// A refusal by status.
pub(super) fn refusal(status: &Status) -> Error {
    let (code, message) = convert::coded(status.message());
    let code = code.unwrap_or(match status.code() {
        GrpcCode::Unimplemented => Code::Unsupported,
        GrpcCode::FailedPrecondition => Code::ClusterMismatch,
        GrpcCode::InvalidArgument | GrpcCode::OutOfRange => Code::InvalidRequest,
        _ => Code::SchedulerUnreachable,
    });
    Error::Scheduler {
        code,
        message: if message.is_empty() { format!("{:?}", status.code()) } else { message },
    }
}

/// A refusal in the header of an answer.
pub(super) fn check(header: Option<&pdpb::ResponseHeader>) -> Result<()> {
    let Some(error) = header.and_then(|header| header.error.as_ref()) else { return Ok(()) };
    let (code, message) = convert::coded(&error.message);
    let code = match error.r#type() {
        pdpb::ErrorType::Ok => return Ok(()),
        pdpb::ErrorType::NotBootstrapped => Code::NotBootstrapped,
        pdpb::ErrorType::RegionNotFound => Code::RegionNotFound,
        _ => code.unwrap_or(Code::InvalidRequest),
    };
    Err(Error::Scheduler { code, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(urls: &[&str]) -> pdpb::Member {
        pdpb::Member {
            client_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn members_are_asked_best_first_and_each_once() {
        let mut members = Members { given: vec!["a:1".into(), "b:1".into()], ..Members::default() };
        members.learn(&pdpb::GetMembersResponse {
            members: vec![
                member(&["http://a:1"]),
                member(&["http://b:1", "http://b.local:1"]),
                member(&["http://c:1"]),
            ],
            leader: Some(member(&["http://c:1"])),
            ..Default::default()
        });
        assert_eq!(members.in_order(), ["c:1", "a:1", "b:1", "b.local:1"]);
        members.preferred = Some("b:1".into());
        assert_eq!(members.in_order(), ["b:1", "c:1", "a:1", "b.local:1"]);
        // An answer without members forgets nobody.
        members.learn(&pdpb::GetMembersResponse::default());
        assert_eq!(members.in_order(), ["b:1", "a:1", "b.local:1", "c:1"]);
    }

    #[test]
    fn refusals_find_their_row_of_the_catalogue() {
        assert_eq!(
            refusal(&Status::failed_precondition("mismatch cluster id")).code(),
            Code::ClusterMismatch
        );
        assert_eq!(refusal(&Status::unimplemented("")).code(), Code::Unsupported);
        assert_eq!(
            refusal(&Status::unknown("it broke")).to_string(),
            "the scheduler says: it broke"
        );
        let header = |kind: pdpb::ErrorType| pdpb::ResponseHeader {
            cluster_id: 1,
            error: Some(pdpb::Error { r#type: kind.into(), message: "why".to_owned() }),
        };
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some(&header(pdpb::ErrorType::Ok))), Ok(()));
        assert_eq!(
            check(Some(&header(pdpb::ErrorType::NotBootstrapped))).unwrap_err().code(),
            Code::NotBootstrapped
        );
    }

    #[tokio::test]
    async fn nobody_there_is_said_for_each_address() {
        // Port 1 is privileged and nobody listens on it.
        let error =
            Scheduler::connect(["127.0.0.1:1", "http://localhost:1"], Duration::from_secs(3))
                .await
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no scheduler answered: 127.0.0.1:1 refused, localhost:1 refused"
        );
        let error =
            Scheduler::connect(Vec::<&str>::new(), Duration::from_secs(3)).await.unwrap_err();
        assert_eq!(error.to_string(), "no scheduler answered: no address was given");
    }
}
