//! A scheduler and stores in a few lines, as real gRPC servers on ports of their own. Each runs on its own runtime, so
//! that killing one cuts its connections as a killed process would.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::{
    errorpb, internal,
    internal::placement_server::{Placement, PlacementServer},
    kvrpcpb as pb, metapb, pdpb,
    pdpb::pd_server::{Pd, PdServer},
    tikvpb::tikv_server::{Tikv, TikvServer},
};
use tokio::runtime::Runtime;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};
use types::{ApiMode, Bytes, KeyMode};

pub(crate) const CLUSTER_ID: u64 = 77;

/// An address at which nobody listens: port 1 is privileged and unused.
pub(crate) fn nobody() -> String {
    "127.0.0.1:1".to_owned()
}

/// What happens to the next request to a store.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is executed, and the answer is this.
    AfterWork(Status),
    /// It is refused with this text.
    Text(String),
    /// There is no answer, ever.
    Silence,
}

#[derive(Default)]
struct World {
    regions: Vec<(metapb::Region, u64)>,
    stores: BTreeMap<u64, String>,
    schedulers: Vec<String>,
    /// By column family and request key: value and seconds to live.
    data: BTreeMap<(String, Bytes), (Bytes, u64)>,
    state: Option<(ApiMode, KeyMode)>,
    faults: VecDeque<Fault>,
    requests: BTreeMap<u64, u64>,
    last_context: pb::Context,
    last_timestamp: i64,
    streams: Vec<tokio::sync::watch::Sender<()>>,
}

type Shared = Arc<Mutex<World>>;

pub(crate) struct Cluster {
    world: Shared,
    timestamp_requests: Arc<AtomicU64>,
    schedulers: Vec<Option<Runtime>>,
    stores: Mutex<BTreeMap<u64, Runtime>>,
}

impl Cluster {
    /// One region over everything, led by store 1.
    pub(crate) fn start(schedulers: usize, stores: u64) -> Cluster {
        let world = Shared::default();
        let timestamp_requests = Arc::new(AtomicU64::new(0));
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.set_nonblocking(true).expect("sockets can be non-blocking");
            let address = listener.local_addr().expect("a bound listener has an address");
            (listener, address)
        };
        let mut running = Vec::new();
        for _ in 0..schedulers {
            let (listener, address) = listen();
            world.lock().unwrap().schedulers.push(address.to_string());
            let scheduler =
                Scheduler { world: world.clone(), timestamp_requests: timestamp_requests.clone() };
            let router = Server::builder()
                .add_service(PdServer::new(scheduler.clone()))
                .add_service(PlacementServer::new(scheduler));
            running.push(Some(serve(listener, router)));
        }
        let mut serving = BTreeMap::new();
        for id in 1..=stores {
            let (listener, address) = listen();
            world.lock().unwrap().stores.insert(id, address.to_string());
            let service = TikvServer::new(Store { id, world: world.clone() })
                .max_decoding_message_size(16 << 20);
            serving.insert(id, serve(listener, Server::builder().add_service(service)));
        }
        if stores > 0 {
            let region = metapb::Region {
                id: 1,
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
                peers: (1..=stores).map(|store| peer(1, store)).collect(),
                ..Default::default()
            };
            world.lock().unwrap().regions.push((region, 1));
        }
        Cluster { world, timestamp_requests, schedulers: running, stores: Mutex::new(serving) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.world().schedulers.clone()
    }

    /// Splits the last region; `store` leads the right half.
    pub(crate) fn split(&self, at: &'static str, store: u64) {
        let mut world = self.world();
        let id = world.regions.len() as u64 + 1;
        let (left, _) = world.regions.last_mut().expect("there is a region");
        left.end_key = at.into();
        let epoch = left.region_epoch.as_mut().expect("regions have an epoch");
        epoch.version += 1;
        let mut right = left.clone();
        (right.id, right.start_key, right.end_key) = (id, at.into(), Bytes::new());
        right.peers = right.peers.iter().map(|old| peer(id, old.store_id)).collect();
        world.regions.push((right, store));
    }

    pub(crate) fn lead(&self, key: &str, store: u64) {
        let mut world = self.world();
        let at = world
            .regions
            .iter()
            .position(|(region, _)| contains(region, key.as_bytes()))
            .expect("a region");
        world.regions[at].1 = store;
    }

    pub(crate) fn move_store(&self, store: u64, address: String) {
        self.world().stores.insert(store, address);
    }

    pub(crate) fn set_state(&self, state: Option<(ApiMode, KeyMode)>) {
        self.world().state = state;
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.world().faults.push_back(fault);
    }

    pub(crate) fn requests_to(&self, store: u64) -> u64 {
        self.world().requests.get(&store).copied().unwrap_or(0)
    }

    pub(crate) fn stored_keys(&self) -> Vec<Bytes> {
        self.world().data.keys().map(|(_, key)| key.clone()).collect()
    }

    /// API version and keyspace of the last request.
    pub(crate) fn last_context(&self) -> (i32, Option<u32>) {
        let context = self.world().last_context.clone();
        let keyspace = match context.keyspace {
            Some(pb::context::Keyspace::KeyspaceId(id)) => Some(id),
            _ => None,
        };
        (context.api_version, keyspace)
    }

    pub(crate) fn timestamp_requests(&self) -> &AtomicU64 {
        &self.timestamp_requests
    }

    pub(crate) fn break_timestamp_streams(&self) {
        self.world().streams.clear();
    }

    pub(crate) async fn kill_scheduler(&mut self, number: usize) {
        kill(self.schedulers[number].take()).await;
    }

    pub(crate) async fn kill_store(&self, store: u64) {
        let runtime = self.stores.lock().unwrap().remove(&store);
        kill(runtime).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stores = std::mem::take(&mut *self.stores.lock().unwrap());
        self.schedulers
            .drain(..)
            .flatten()
            .chain(stores.into_values())
            .for_each(Runtime::shutdown_background);
    }
}

/// Returns when the port is closed and every connection is cut.
async fn kill(runtime: Option<Runtime>) {
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .expect("dropping a runtime does not panic");
}

fn serve(listener: std::net::TcpListener, router: tonic::transport::server::Router) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
        router
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .expect("serves until it is killed");
    });
    runtime
}

fn peer(region: u64, store: u64) -> metapb::Peer {
    metapb::Peer { id: region * 10 + store, store_id: store, ..Default::default() }
}

fn contains(region: &metapb::Region, key: &[u8]) -> bool {
    &region.start_key[..] <= key && (region.end_key.is_empty() || key < &region.end_key[..])
}

#[derive(Clone)]
struct Scheduler {
    world: Shared,
    timestamp_requests: Arc<AtomicU64>,
}

impl Scheduler {
    fn header(&self) -> Option<pdpb::ResponseHeader> {
        let error = self.world.lock().unwrap().stores.is_empty().then(|| pdpb::Error {
            r#type: pdpb::ErrorType::NotBootstrapped.into(),
            message: "no store has joined".to_owned(),
        });
        Some(pdpb::ResponseHeader { cluster_id: CLUSTER_ID, error })
    }

    fn check(header: Option<&pdpb::RequestHeader>) -> Result<(), Status> {
        match header.map(|header| header.cluster_id) {
            Some(CLUSTER_ID) => Ok(()),
            other => Err(Status::failed_precondition(format!(
                "mismatch cluster id, need {CLUSTER_ID} but got {other:?}"
            ))),
        }
    }

    fn region(&self, found: Option<&(metapb::Region, u64)>) -> pdpb::GetRegionResponse {
        pdpb::GetRegionResponse {
            region: found.map(|(region, _)| region.clone()),
            leader: found.map(|(region, leader)| peer(region.id, *leader)),
            ..Default::default()
        }
    }
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Pd for Scheduler {
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Answered<pdpb::GetMembersResponse> {
        let urls = self.world.lock().unwrap().schedulers.clone();
        let member = |(id, url): (usize, String)| pdpb::Member {
            name: format!("pd-{id}"),
            member_id: id as u64 + 1,
            client_urls: vec![format!("http://{url}")],
            ..Default::default()
        };
        let members: Vec<_> = urls.into_iter().enumerate().map(member).collect();
        let header = Some(pdpb::ResponseHeader { cluster_id: CLUSTER_ID, error: None });
        Ok(Response::new(pdpb::GetMembersResponse {
            header,
            leader: members.first().cloned(),
            members,
            ..Default::default()
        }))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answered<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        Scheduler::check(request.header.as_ref())?;
        let header = self.header();
        let world = self.world.lock().unwrap();
        let found = world.regions.iter().find(|(region, _)| contains(region, &request.region_key));
        Ok(Response::new(pdpb::GetRegionResponse { header, ..self.region(found) }))
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answered<pdpb::GetRegionResponse> {
        let request = request.into_inner();
        let header = self.header();
        let world = self.world.lock().unwrap();
        let before = world
            .regions
            .iter()
            .take_while(|(region, _)| !contains(region, &request.region_key))
            .last();
        Ok(Response::new(pdpb::GetRegionResponse { header, ..self.region(before) }))
    }

    async fn scan_regions(
        &self,
        _: Request<pdpb::ScanRegionsRequest>,
    ) -> Answered<pdpb::ScanRegionsResponse> {
        let header = self.header();
        let world = self.world.lock().unwrap();
        let regions = world.regions.iter().map(|(region, leader)| pdpb::Region {
            region: Some(region.clone()),
            leader: Some(peer(region.id, *leader)),
            ..Default::default()
        });
        Ok(Response::new(pdpb::ScanRegionsResponse {
            header,
            regions: regions.collect(),
            ..Default::default()
        }))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Answered<pdpb::GetStoreResponse> {
        let id = request.into_inner().store_id;
        let header = self.header();
        let address = self.world.lock().unwrap().stores.get(&id).cloned();
        Ok(Response::new(pdpb::GetStoreResponse {
            header,
            store: address.map(|address| metapb::Store { id, address, ..Default::default() }),
            stats: Some(pdpb::StoreStats { store_id: id, capacity: 1 << 40, ..Default::default() }),
        }))
    }

    async fn get_all_stores(
        &self,
        _: Request<pdpb::GetAllStoresRequest>,
    ) -> Answered<pdpb::GetAllStoresResponse> {
        let header = self.header();
        let stores = self.world.lock().unwrap().stores.clone();
        let store = |(id, address)| metapb::Store { id, address, ..Default::default() };
        Ok(Response::new(pdpb::GetAllStoresResponse {
            header,
            stores: stores.into_iter().map(store).collect(),
        }))
    }

    async fn get_cluster_config(
        &self,
        _: Request<pdpb::GetClusterConfigRequest>,
    ) -> Answered<pdpb::GetClusterConfigResponse> {
        let cluster = Some(metapb::Cluster { id: CLUSTER_ID, max_peer_count: 3 });
        Ok(Response::new(pdpb::GetClusterConfigResponse { header: self.header(), cluster }))
    }

    async fn tso(
        &self,
        request: Request<tonic::Streaming<pdpb::TsoRequest>>,
    ) -> Answered<tonic::codegen::BoxStream<pdpb::TsoResponse>> {
        let (world, requests) = (self.world.clone(), self.timestamp_requests.clone());
        let (alive, mut broken) = tokio::sync::watch::channel(());
        world.lock().unwrap().streams.push(alive);
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            Scheduler::check(request.header.as_ref())?;
            requests.fetch_add(1, Ordering::Relaxed);
            let mut world = world.lock().unwrap();
            world.last_timestamp += i64::from(request.count);
            let timestamp =
                pdpb::Timestamp { physical: 1000, logical: world.last_timestamp, suffix_bits: 0 };
            Ok(pdpb::TsoResponse { header: None, count: request.count, timestamp: Some(timestamp) })
        });
        // Ends when the test drops the sender.
        let until = async move { while broken.changed().await.is_ok() {} };
        Ok(Response::new(Box::pin(futures_util::StreamExt::take_until(answers, Box::pin(until)))))
    }
}

#[tonic::async_trait]
impl Placement for Scheduler {
    async fn get_cluster_state(
        &self,
        _: Request<internal::GetClusterStateRequest>,
    ) -> Answered<internal::GetClusterStateResponse> {
        let Some((api_mode, key_mode)) = self.world.lock().unwrap().state else {
            return Err(Status::unimplemented("a PD"));
        };
        let api_mode = match api_mode {
            ApiMode::V1 => internal::ApiMode::V1,
            ApiMode::V1Ttl => internal::ApiMode::V1ttl,
            ApiMode::V2 => internal::ApiMode::V2,
        };
        let key_mode = match key_mode {
            KeyMode::Raw => internal::KeyMode::Raw,
            KeyMode::Txn => internal::KeyMode::Txn,
        };
        Ok(Response::new(internal::GetClusterStateResponse {
            cluster_id: CLUSTER_ID,
            api_mode: api_mode.into(),
            key_mode: key_mode.into(),
        }))
    }
}

struct Store {
    id: u64,
    world: Shared,
}

/// What became of a request before it was executed.
enum Admitted<'a> {
    Work(MutexGuard<'a, World>, Option<Status>),
    Region(Box<errorpb::Error>),
    Text(String),
}

impl Store {
    /// Checks what a store checks. The guard never lives over an await.
    fn admit(&self, context: Option<&pb::Context>) -> Result<Admitted<'_>, Status> {
        let mut world = self.world.lock().unwrap();
        *world.requests.entry(self.id).or_default() += 1;
        let context = context.cloned().unwrap_or_default();
        world.last_context = context.clone();
        let Some((region, leader)) =
            world.regions.iter().find(|(region, _)| region.id == context.region_id)
        else {
            let region_not_found = Some(errorpb::RegionNotFound { region_id: context.region_id });
            return Ok(Admitted::Region(Box::new(errorpb::Error {
                region_not_found,
                ..Default::default()
            })));
        };
        if context.peer.as_ref().is_none_or(|peer| peer.store_id != self.id) {
            return Ok(Admitted::Region(Box::new(errorpb::Error {
                store_not_match: Some(errorpb::StoreNotMatch::default()),
                ..Default::default()
            })));
        }
        if *leader != self.id {
            let not_leader =
                errorpb::NotLeader { region_id: region.id, leader: Some(peer(region.id, *leader)) };
            return Ok(Admitted::Region(Box::new(errorpb::Error {
                not_leader: Some(not_leader),
                ..Default::default()
            })));
        }
        if context.region_epoch != region.region_epoch {
            let current_regions = world.regions.iter().map(|(region, _)| region.clone()).collect();
            let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            return Ok(Admitted::Region(Box::new(errorpb::Error {
                epoch_not_match,
                ..Default::default()
            })));
        }
        Ok(match world.faults.pop_front() {
            None => Admitted::Work(world, None),
            Some(Fault::AfterWork(status)) => Admitted::Work(world, Some(status)),
            Some(Fault::Text(text)) => Admitted::Text(text),
            Some(Fault::Silence) => return Err(Status::cancelled("silence")),
        })
    }
}

/// The body of a method: admission, then `$work` with the world.
macro_rules! answer {
    ($self:ident, $request:ident, $response:ident { $($text:ident)? }, |$world:ident| $work:expr) => {{
        let $request = $request.into_inner();
        let admitted = match $self.admit($request.context.as_ref()) {
            Ok(admitted) => Some(admitted),
            Err(_) => None,
        };
        #[allow(unused_mut)]
        let mut response = pb::$response::default();
        let status = match admitted {
            None => {
                drop(admitted);
                return std::future::pending().await;
            }
            Some(Admitted::Region(error)) => {
                response.region_error = Some(error);
                None
            }
            Some(Admitted::Text(_text)) => {
                $(response.$text = _text;)?
                None
            }
            #[allow(unused_mut)]
            Some(Admitted::Work(mut $world, status)) => {
                response = $work;
                status
            }
        };
        match status {
            Some(status) => Err(status),
            None => Ok(Response::new(response)),
        }
    }};
}

fn pair(key: &Bytes, value: &Bytes) -> pb::KvPair {
    pb::KvPair { key: key.clone(), value: value.clone(), ..Default::default() }
}

#[tonic::async_trait]
impl Tikv for Store {
    async fn raw_get(&self, request: Request<pb::RawGetRequest>) -> Answered<pb::RawGetResponse> {
        answer!(self, request, RawGetResponse { error }, |world| {
            match world.data.get(&(request.cf.clone(), request.key.clone())) {
                Some((value, _)) => {
                    pb::RawGetResponse { value: value.clone(), ..Default::default() }
                }
                None => pb::RawGetResponse { not_found: true, ..Default::default() },
            }
        })
    }

    async fn raw_batch_get(
        &self,
        request: Request<pb::RawBatchGetRequest>,
    ) -> Answered<pb::RawBatchGetResponse> {
        answer!(self, request, RawBatchGetResponse {}, |world| {
            let found = |key: &Bytes| {
                Some(pair(key, &world.data.get(&(request.cf.clone(), key.clone()))?.0))
            };
            pb::RawBatchGetResponse {
                pairs: request.keys.iter().filter_map(found).collect(),
                ..Default::default()
            }
        })
    }

    async fn raw_put(&self, request: Request<pb::RawPutRequest>) -> Answered<pb::RawPutResponse> {
        answer!(self, request, RawPutResponse { error }, |world| {
            world.data.insert((request.cf, request.key), (request.value, request.ttl));
            pb::RawPutResponse::default()
        })
    }

    async fn raw_batch_put(
        &self,
        request: Request<pb::RawBatchPutRequest>,
    ) -> Answered<pb::RawBatchPutResponse> {
        answer!(self, request, RawBatchPutResponse { error }, |world| {
            let ttl = request.ttls.first().copied().unwrap_or(0);
            let entries = request
                .pairs
                .into_iter()
                .map(|pair| ((request.cf.clone(), pair.key), (pair.value, ttl)));
            world.data.extend(entries);
            pb::RawBatchPutResponse::default()
        })
    }

    async fn raw_delete(
        &self,
        request: Request<pb::RawDeleteRequest>,
    ) -> Answered<pb::RawDeleteResponse> {
        answer!(self, request, RawDeleteResponse { error }, |world| {
            world.data.remove(&(request.cf, request.key));
            pb::RawDeleteResponse::default()
        })
    }

    async fn raw_batch_delete(
        &self,
        request: Request<pb::RawBatchDeleteRequest>,
    ) -> Answered<pb::RawBatchDeleteResponse> {
        answer!(self, request, RawBatchDeleteResponse { error }, |world| {
            for key in request.keys {
                world.data.remove(&(request.cf.clone(), key));
            }
            pb::RawBatchDeleteResponse::default()
        })
    }

    async fn raw_delete_range(
        &self,
        request: Request<pb::RawDeleteRangeRequest>,
    ) -> Answered<pb::RawDeleteRangeResponse> {
        answer!(self, request, RawDeleteRangeResponse { error }, |world| {
            let inside = |key: &Bytes| {
                request.start_key <= *key && (request.end_key.is_empty() || *key < request.end_key)
            };
            world.data.retain(|(cf, key), _| *cf != request.cf || !inside(key));
            pb::RawDeleteRangeResponse::default()
        })
    }

    async fn raw_scan(
        &self,
        request: Request<pb::RawScanRequest>,
    ) -> Answered<pb::RawScanResponse> {
        answer!(self, request, RawScanResponse {}, |world| {
            let (low, high) = match request.reverse {
                false => (request.start_key, request.end_key),
                true => (request.end_key, request.start_key),
            };
            let inside = |key: &Bytes| low <= *key && (high.is_empty() || *key < high);
            let mut kvs: Vec<pb::KvPair> = world
                .data
                .iter()
                .filter(|((cf, key), _)| *cf == request.cf && inside(key))
                .map(|((_, key), (value, _))| match request.key_only {
                    true => pair(key, &Bytes::new()),
                    false => pair(key, value),
                })
                .collect();
            if request.reverse {
                kvs.reverse();
            }
            kvs.truncate(request.limit as usize);
            pb::RawScanResponse { kvs, ..Default::default() }
        })
    }

    async fn raw_get_key_ttl(
        &self,
        request: Request<pb::RawGetKeyTtlRequest>,
    ) -> Answered<pb::RawGetKeyTtlResponse> {
        answer!(self, request, RawGetKeyTtlResponse { error }, |world| {
            match world.data.get(&(request.cf, request.key)) {
                Some((_, ttl)) => pb::RawGetKeyTtlResponse { ttl: *ttl, ..Default::default() },
                None => pb::RawGetKeyTtlResponse { not_found: true, ..Default::default() },
            }
        })
    }

    async fn raw_compare_and_swap(
        &self,
        request: Request<pb::RawCasRequest>,
    ) -> Answered<pb::RawCasResponse> {
        answer!(self, request, RawCasResponse { error }, |world| {
            let at = (request.cf, request.key);
            let previous = world.data.get(&at).map(|(value, _)| value.clone());
            let expected = (!request.previous_not_exist).then_some(request.previous_value);
            let succeed = previous == expected;
            match (succeed, request.delete) {
                (true, true) => drop(world.data.remove(&at)),
                (true, false) => drop(world.data.insert(at, (request.value, request.ttl))),
                (false, _) => {}
            }
            pb::RawCasResponse {
                succeed,
                previous_not_exist: previous.is_none(),
                previous_value: previous.unwrap_or_default(),
                ..Default::default()
            }
        })
    }

    async fn raw_checksum(
        &self,
        request: Request<pb::RawChecksumRequest>,
    ) -> Answered<pb::RawChecksumResponse> {
        answer!(self, request, RawChecksumResponse { error }, |world| {
            let range = request.ranges[0].clone();
            let inside = |key: &Bytes| {
                range.start_key <= *key && (range.end_key.is_empty() || *key < range.end_key)
            };
            let mut sum = pb::RawChecksumResponse::default();
            for ((_, key), (value, _)) in world.data.iter().filter(|((_, key), _)| inside(key)) {
                sum.total_kvs += 1;
                sum.total_bytes += (key.len() + value.len()) as u64;
            }
            sum
        })
    }
}
