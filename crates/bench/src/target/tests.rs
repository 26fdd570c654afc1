//! The way to a cluster, against one that is made up here: two stores in memory behind a scheduler that knows two
//! regions. Regions split and change leaders while load runs, and no request may fail for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::StreamExt;
use proto::{
    errorpb, kvrpcpb, metapb, pdpb,
    pdpb::pd_server::{Pd, PdServer},
    tikvpb::{
        BatchCommandsRequest, BatchCommandsResponse, batch_commands_request as request,
        batch_commands_response as response,
        tikv_server::{Tikv, TikvServer},
    },
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream, transport::Server};
use types::{ApiMode, key};

use super::*;
use crate::{
    keys::Choice,
    progress::Progress,
    target::tikv::{TikvOptions, TikvTarget},
    window::{Measurement, Pace, measure},
    workload::{Generator, Workload},
};

const CLUSTER_ID: u64 = 7;
const KEYS: u64 = 2_000;

/// What both stores and the scheduler know. A store that is down answers UNAVAILABLE and ends its streams.
#[derive(Debug, Default)]
struct State {
    /// With the store that leads each.
    regions: Vec<(metapb::Region, u64)>,
    /// Leaders as the scheduler believes, where it lags behind.
    believed_leaders: BTreeMap<u64, u64>,
    addresses: BTreeMap<u64, String>,
    down: Option<u64>,
    data: BTreeMap<Bytes, Bytes>,
    /// Requests that were answered with a region error.
    turned_away: u64,
    /// Every API version that came in.
    api_versions: Vec<i32>,
    /// Whether region bounds, and keys at the scheduler, are encoded.
    encoded: bool,
}

#[derive(Clone, Debug, Default)]
struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Two stores, two regions that meet at key number `KEYS / 2`.
    async fn start(encoded: bool, split: Bytes) -> Cluster {
        let cluster = Cluster::default();
        cluster.state().encoded = encoded;
        for store_id in [1, 2] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            cluster.state().addresses.insert(store_id, address);
            let store = TikvServer::new(FakeStore { store_id, cluster: cluster.clone() });
            let scheduler = PdServer::new(FakeScheduler(cluster.clone()));
            let server = Server::builder().add_service(store).add_service(scheduler);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        cluster.state().regions =
            vec![(region(10, b"", &split, 1), 1), (region(20, &split, b"", 1), 2)];
        cluster
    }

    fn endpoints(&self) -> Vec<String> {
        // Nobody listens at the first one.
        vec!["127.0.0.1:1".to_owned(), self.state().addresses[&1].clone()]
    }

    /// Splits the first region: its left half stays with a new epoch, the right half is region 30.
    fn split_first(&self, at: &Bytes) {
        let mut state = self.state();
        let (first, leader) = state.regions[0].clone();
        state.regions[0] = (region(first.id, &first.start_key, at, 2), leader);
        state.regions.insert(1, (region(30, at, &first.end_key, 2), leader));
    }

    /// Store 2 dies and store 1 takes over.
    fn kill_store_2(&self) {
        let mut state = self.state();
        state.down = Some(2);
        state.regions.iter_mut().for_each(|(_, leader)| *leader = 1);
    }

    /// Store 1 leads every region; the scheduler does not know yet.
    fn move_leaders_secretly(&self) {
        let mut state = self.state();
        let believed = state.regions.iter().map(|(region, leader)| (region.id, *leader)).collect();
        state.believed_leaders = believed;
        state.regions.iter_mut().for_each(|(_, leader)| *leader = 1);
    }
}

fn region(id: u64, start: &[u8], end: &[u8], version: u64) -> metapb::Region {
    let peer = |store_id| metapb::Peer { id: id + store_id, store_id, ..Default::default() };
    metapb::Region {
        id,
        start_key: Bytes::copy_from_slice(start),
        end_key: Bytes::copy_from_slice(end),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers: vec![peer(1), peer(2)],
        ..Default::default()
    }
}

fn peer_of(region: &metapb::Region, store_id: u64) -> Option<metapb::Peer> {
    region.peers.iter().find(|peer| peer.store_id == store_id).copied()
}

fn contains(region: &metapb::Region, key: &[u8]) -> bool {
    region.start_key <= key && (region.end_key.is_empty() || key < region.end_key)
}

struct FakeScheduler(Cluster);

#[tonic::async_trait]
impl Pd for FakeScheduler {
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        // Both stores' ports serve the scheduler; the leader is at the second.
        let leader = pdpb::Member {
            client_urls: vec![format!("http://{}", self.0.state().addresses[&2])],
            ..Default::default()
        };
        Ok(Response::new(pdpb::GetMembersResponse {
            header: Some(pdpb::ResponseHeader { cluster_id: CLUSTER_ID, error: None }),
            leader: Some(leader),
            ..Default::default()
        }))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.header.unwrap().cluster_id, CLUSTER_ID);
        let state = self.0.state();
        let (region, leader) =
            state.regions.iter().find(|(region, _)| contains(region, &request.region_key)).unwrap();
        let leader = state.believed_leaders.get(&region.id).unwrap_or(leader);
        Ok(Response::new(pdpb::GetRegionResponse {
            region: Some(region.clone()),
            leader: peer_of(region, *leader),
            ..Default::default()
        }))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        let id = request.into_inner().store_id;
        let address = self.0.state().addresses[&id].clone();
        let store = Some(metapb::Store { id, address, ..Default::default() });
        Ok(Response::new(pdpb::GetStoreResponse { store, ..Default::default() }))
    }
}

#[derive(Clone)]
struct FakeStore {
    store_id: u64,
    cluster: Cluster,
}

impl FakeStore {
    fn alive(&self) -> Result<(), Status> {
        match self.cluster.state().down == Some(self.store_id) {
            true => Err(Status::unavailable("this store is down")),
            false => Ok(()),
        }
    }

    /// Why a request does not belong here.
    fn turn_away(
        &self,
        context: Option<kvrpcpb::Context>,
        user_key: &[u8],
    ) -> Option<Box<errorpb::Error>> {
        let context = context.unwrap();
        let mut state = self.cluster.state();
        let version = context.api_version;
        if !state.api_versions.contains(&version) {
            state.api_versions.push(version);
        }
        let stored =
            if state.encoded { key::encode(user_key) } else { Bytes::copy_from_slice(user_key) };
        let mut error = errorpb::Error { message: "elsewhere".into(), ..Default::default() };
        match state.regions.iter().find(|(region, _)| region.id == context.region_id) {
            None => error.region_not_found = Some(errorpb::RegionNotFound::default()),
            Some((region, leader)) if *leader != self.store_id => {
                let leader = peer_of(region, *leader);
                error.not_leader = Some(errorpb::NotLeader { region_id: region.id, leader });
            }
            Some((region, _)) if region.region_epoch != context.region_epoch => {
                error.epoch_not_match = Some(errorpb::EpochNotMatch::default());
            }
            Some((region, _)) if !contains(region, &stored) => {
                error.key_not_in_region = Some(errorpb::KeyNotInRegion::default());
            }
            Some((_, _)) => return None,
        }
        state.turned_away += 1;
        Some(Box::new(error))
    }

    fn get(&self, request: kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse {
        let region_error = self.turn_away(request.context, &request.key);
        let value = self.cluster.state().data.get(&request.key).cloned();
        kvrpcpb::RawGetResponse {
            region_error,
            not_found: value.is_none(),
            value: value.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn put(&self, request: kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse {
        let region_error = self.turn_away(request.context, &request.key);
        if region_error.is_none() {
            self.cluster.state().data.insert(request.key, request.value);
        }
        kvrpcpb::RawPutResponse { region_error, ..Default::default() }
    }

    fn scan(&self, request: kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse {
        let region_error = self.turn_away(request.context, &request.start_key);
        let state = self.cluster.state();
        let pairs = state.data.range(request.start_key..request.end_key);
        let pair = |(key, value): (&Bytes, &Bytes)| kvrpcpb::KvPair {
            key: key.clone(),
            value: value.clone(),
            ..Default::default()
        };
        let kvs = pairs.take(request.limit as usize).map(pair).collect();
        kvrpcpb::RawScanResponse { region_error, kvs }
    }

    fn answer(&self, request: request::Request) -> response::Response {
        use request::request::Cmd as Asked;
        use response::response::Cmd;
        let cmd = match request.cmd.unwrap() {
            Asked::RawGet(request) => Cmd::RawGet(self.get(request)),
            Asked::RawPut(request) => Cmd::RawPut(self.put(request)),
            Asked::RawScan(request) => Cmd::RawScan(self.scan(request)),
            other => panic!("unexpected {other:?}"),
        };
        response::Response { cmd: Some(cmd) }
    }
}

#[tonic::async_trait]
impl Tikv for FakeStore {
    async fn raw_get(
        &self,
        request: Request<kvrpcpb::RawGetRequest>,
    ) -> Result<Response<kvrpcpb::RawGetResponse>, Status> {
        self.alive()?;
        Ok(Response::new(self.get(request.into_inner())))
    }

    async fn raw_put(
        &self,
        request: Request<kvrpcpb::RawPutRequest>,
    ) -> Result<Response<kvrpcpb::RawPutResponse>, Status> {
        self.alive()?;
        Ok(Response::new(self.put(request.into_inner())))
    }

    async fn raw_scan(
        &self,
        request: Request<kvrpcpb::RawScanRequest>,
    ) -> Result<Response<kvrpcpb::RawScanResponse>, Status> {
        self.alive()?;
        Ok(Response::new(self.scan(request.into_inner())))
    }

    async fn raw_batch_put(
        &self,
        request: Request<kvrpcpb::RawBatchPutRequest>,
    ) -> Result<Response<kvrpcpb::RawBatchPutResponse>, Status> {
        let request = request.into_inner();
        let region_error = request
            .pairs
            .iter()
            .find_map(|pair| self.turn_away(request.context.clone(), &pair.key));
        if region_error.is_none() {
            let pairs = request.pairs.into_iter().map(|pair| (pair.key, pair.value));
            self.cluster.state().data.extend(pairs);
        }
        Ok(Response::new(kvrpcpb::RawBatchPutResponse { region_error, ..Default::default() }))
    }

    /// Answers from the last request of a message to the first, in two messages.
    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
        self.alive()?;
        let store = self.clone();
        let answers = request.into_inner().map(move |message| {
            if let Err(down) = store.alive() {
                return vec![Err(down)];
            }
            let Ok(message) = message else { return Vec::new() };
            let mut answers: Vec<(u64, response::Response)> = message
                .request_ids
                .into_iter()
                .zip(message.requests)
                .map(|(id, request)| (id, store.answer(request)))
                .collect();
            answers.reverse();
            let rest = answers.split_off(answers.len() / 2);
            let message = |answers: Vec<_>| {
                let (request_ids, responses) = answers.into_iter().unzip();
                Ok(BatchCommandsResponse { request_ids, responses, ..Default::default() })
            };
            vec![message(answers), message(rest)]
        });
        let answers = answers.flat_map(futures_util::stream::iter);
        Ok(Response::new(Box::pin(answers)))
    }
}

fn options(cluster: &Cluster, api: ApiMode, batch: Option<usize>) -> TikvOptions {
    TikvOptions {
        endpoints: cluster.endpoints(),
        api,
        connections: 2,
        batch,
        server_pids: Vec::new(),
        status: Vec::new(),
    }
}

/// Loads the keys, then runs a mix for 0.3 s, in the midst of which `disturb` happens.
fn run(
    workload: Workload,
    api: ApiMode,
    batch: Option<usize>,
    disturb: fn(&Cluster, &Dataset),
) -> (Cluster, Rc<Dataset>, Measurement) {
    let prefix: &[u8] = if api == ApiMode::V2 { b"r\0\0\0" } else { b"" };
    let dataset = Rc::new(Dataset::new(prefix, KEYS, 64));
    let middle = dataset.key(KEYS / 2);
    let encoded = api == ApiMode::V2;
    let split = if encoded { key::encode(&middle) } else { middle };
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let (cluster, measurement) = runtime.block_on(async {
        let cluster = Cluster::start(encoded, split).await;
        let target =
            TikvTarget::open(options(&cluster, api, batch), dataset.clone()).await.unwrap();
        target.load(1).await.unwrap();
        assert_eq!(cluster.state().data.len() as u64, KEYS);

        let choice = Choice::uniform(KEYS);
        let generator = Generator::new(workload, dataset.clone(), choice, 50, 5, 1);
        let plan = Plan {
            pace: Pace::Closed { in_flight: 16 },
            ramp: Duration::ZERO,
            length: Duration::from_millis(300),
        };
        let disturbed = cluster.clone();
        let keys = dataset.clone();
        spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            disturb(&disturbed, &keys);
        });
        let measurement = measure(&target, generator, &plan, &Progress::hidden()).await.unwrap();
        (cluster, measurement)
    });
    (cluster, dataset, measurement)
}

fn assert_all_served(cluster: &Cluster, dataset: &Dataset, measurement: &Measurement) {
    let recording = &measurement.recording;
    assert!(recording.ops > 0);
    assert_eq!(recording.errors.total(), 0, "{:?}", recording.first_error);
    for (key, value) in &cluster.state().data {
        dataset.verify(key, value).unwrap();
    }
}

#[test]
fn requests_find_their_regions() {
    for batch in [None, Some(8)] {
        for workload in [Workload::RawMixed, Workload::RawScan] {
            let (cluster, dataset, measurement) = run(workload, ApiMode::V1, batch, |_, _| {});
            assert_all_served(&cluster, &dataset, &measurement);
            assert_eq!(cluster.state().turned_away, 0, "routes were known beforehand");
        }
    }
}

#[test]
fn a_split_costs_no_request() {
    for batch in [None, Some(8)] {
        let (cluster, dataset, measurement) =
            run(Workload::RawMixed, ApiMode::V1, batch, |cluster, dataset| {
                cluster.split_first(&dataset.key(KEYS / 4));
            });
        assert_all_served(&cluster, &dataset, &measurement);
        assert!(cluster.state().turned_away > 0, "the old route was refused");
    }
}

#[test]
fn the_stores_word_on_the_leader_counts_more_than_the_schedulers() {
    for batch in [None, Some(8)] {
        let (cluster, dataset, measurement) =
            run(Workload::RawMixed, ApiMode::V1, batch, |cluster, _| {
                cluster.move_leaders_secretly();
            });
        assert_all_served(&cluster, &dataset, &measurement);
        let turned_away = cluster.state().turned_away;
        assert!((1..=64).contains(&turned_away), "{turned_away}: refused until the hint was taken");
    }
}

#[test]
fn a_store_that_dies_costs_what_was_in_flight_on_it() {
    for batch in [None, Some(8)] {
        let (_, _, measurement) = run(Workload::RawMixed, ApiMode::V1, batch, |cluster, _| {
            cluster.kill_store_2();
        });
        let recording = &measurement.recording;
        assert_eq!(recording.errors.total(), recording.errors.rpc);
        // 16 are in flight; a broken stream takes some that were started before it was known to be broken.
        assert!((1..=64).contains(&recording.errors.rpc), "{:?}", recording.errors);
        assert!(recording.ops > 0);
    }
}

#[test]
fn api_v2_encodes_keys_for_the_scheduler_only() {
    let (cluster, dataset, measurement) =
        run(Workload::RawMixed, ApiMode::V2, None, |cluster, dataset| {
            cluster.split_first(&key::encode(&dataset.key(KEYS / 4)));
        });
    assert_all_served(&cluster, &dataset, &measurement);
    let state = cluster.state();
    assert!(state.data.keys().all(|key| key.starts_with(b"r\0\0\0tinykv-bench:")));
    assert_eq!(state.api_versions, [i32::from(kvrpcpb::ApiVersion::V2)]);
}

#[test]
fn keys_that_are_there_are_not_written_again() {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let dataset = Rc::new(Dataset::new(b"", KEYS, 64));
        let cluster = Cluster::start(false, dataset.key(KEYS / 2)).await;
        let open = async || {
            TikvTarget::open(options(&cluster, ApiMode::V1, None), dataset.clone()).await.unwrap()
        };
        open().await.load(1).await.unwrap();
        let first = cluster.state().data.clone();
        open().await.load(2).await.unwrap();
        assert_eq!(cluster.state().data, first, "another seed would have written other values");
        cluster.state().data.remove(&dataset.key(KEYS - 1));
        open().await.load(3).await.unwrap();
        assert_ne!(cluster.state().data, first);
        assert_eq!(cluster.state().data.len() as u64, KEYS);
    });
}
