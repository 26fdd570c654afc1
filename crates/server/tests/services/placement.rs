//! Placement over the wire: stores report on a stream, are told what to do on it, split, and leave.

use std::time::Duration;

use proto::{eraftpb::ConfChangeType, metapb, pdpb, pdpb::pd_client::PdClient};
use server::{Config, Roles, Server, config::EngineKind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use crate::common::{dial, header, pd};

/// A scheduler alone.
pub(crate) async fn scheduler(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.scheduler.addr = "127.0.0.1:0".to_owned();
    config.storage.engine = EngineKind::Memory;
    change(&mut config);
    Server::start(config, Roles { scheduler: true, store: false }).await.expect("starts")
}

fn store(id: u64) -> metapb::Store {
    metapb::Store { id, address: format!("127.0.0.1:{}", 20_000 + id), ..Default::default() }
}

fn peer(id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id, store_id, ..Default::default() }
}

fn region(peers: &[metapb::Peer]) -> metapb::Region {
    let conf_ver = peers.len() as u64;
    let region_epoch = Some(metapb::RegionEpoch { conf_ver, version: 1 });
    metapb::Region { id: 10, region_epoch, peers: peers.to_vec(), ..Default::default() }
}

/// Three empty stores, and the first region on the first of them.
pub(crate) async fn bootstrapped(server: &Server) -> PdClient<Channel> {
    let mut pd = pd(server).await;
    let request = pdpb::BootstrapRequest {
        header: header(server),
        store: Some(store(1)),
        region: Some(region(&[peer(11, 1)])),
    };
    pd.bootstrap(request).await.unwrap();
    for id in 1..=3 {
        let request = pdpb::PutStoreRequest { header: header(server), store: Some(store(id)) };
        pd.put_store(request).await.unwrap();
        assert!(beat(server, &mut pd, id).await.is_ok());
    }
    pd
}

/// A store heartbeat; the error in the answer's header.
async fn beat(
    server: &Server,
    pd: &mut PdClient<Channel>,
    store_id: u64,
) -> Result<metapb::NodeState, pdpb::ErrorType> {
    let (capacity, available) = (1 << 40, 1 << 40);
    let stats = pdpb::StoreStats { store_id, capacity, available, ..Default::default() };
    let request = pdpb::StoreHeartbeatRequest {
        header: header(server),
        stats: Some(stats),
        ..Default::default()
    };
    let answer = pd.store_heartbeat(request).await.unwrap().into_inner();
    match answer.header.clone().unwrap().error {
        Some(error) => Err(error.r#type()),
        None => Ok(answer.state()),
    }
}

/// The heartbeats of a leader.
struct Stream {
    header: Option<pdpb::RequestHeader>,
    reports: mpsc::UnboundedSender<pdpb::RegionHeartbeatRequest>,
    said: Streaming<pdpb::RegionHeartbeatResponse>,
}

impl Stream {
    async fn open(server: &Server) -> Stream {
        let (reports, requests) = mpsc::unbounded_channel();
        let requests = UnboundedReceiverStream::new(requests);
        let said = pd(server).await.region_heartbeat(requests).await.unwrap().into_inner();
        Stream { header: header(server), reports, said }
    }

    fn report(&self, region: &metapb::Region, pending_peers: &[metapb::Peer]) {
        let request = pdpb::RegionHeartbeatRequest {
            header: self.header.clone(),
            leader: region.peers.first().cloned(),
            region: Some(region.clone()),
            pending_peers: pending_peers.to_vec(),
            term: 6,
            ..Default::default()
        };
        self.reports.send(request).unwrap();
    }

    async fn next(&mut self) -> pdpb::RegionHeartbeatResponse {
        let said = self.said.message().await.unwrap().expect("something is said");
        assert!(said.header.clone().unwrap().error.is_none(), "{said:?}");
        said
    }

    /// The next order, which is a change of one peer.
    async fn next_change(&mut self) -> (ConfChangeType, metapb::Peer) {
        let change = self.next().await.change_peer.expect("changes one peer");
        (change.change_type(), change.peer.unwrap())
    }
}

#[tokio::test]
async fn a_region_that_lacks_replicas_gets_a_learner_that_is_promoted_once_it_has_caught_up() {
    let server = scheduler(|_| {}).await;
    let mut pd = bootstrapped(&server).await;
    let mut stream = Stream::open(&server).await;
    let mut region = region(&[peer(11, 1)]);
    stream.report(&region, &[]);

    let order = stream.next().await;
    let target = order.target_peer.unwrap();
    assert_eq!(
        (order.region_id, target, order.region_epoch),
        (10, peer(11, 1), region.region_epoch)
    );
    let change = order.change_peer.unwrap();
    assert_eq!(change.change_type(), ConfChangeType::AddLearnerNode);
    let learner = change.peer.unwrap();
    assert!([2, 3].contains(&learner.store_id) && learner.id != 0, "{learner:?}");
    assert_eq!(learner.role(), metapb::PeerRole::Learner);
    let operator = pdpb::GetOperatorRequest { header: header(&server), region_id: 10 };
    let operator = pd.get_operator(operator).await.unwrap().into_inner();
    assert_eq!(operator.status(), pdpb::OperatorStatus::Running);
    assert_eq!(operator.kind, "region,replica");

    // It is there and lags behind: nothing to say. Then it has caught up.
    region.peers.push(learner);
    region.region_epoch.as_mut().unwrap().conf_ver += 1;
    stream.report(&region, &[learner]);
    stream.report(&region, &[]);
    let (kind, voter) = loop {
        // What was asked for before may have been on its way still.
        let change = stream.next_change().await;
        if change.0 != ConfChangeType::AddLearnerNode {
            break change;
        }
    };
    assert_eq!(
        (kind, voter.id, voter.role()),
        (ConfChangeType::AddNode, learner.id, metapb::PeerRole::Voter)
    );

    let unknown = pdpb::GetOperatorRequest { header: header(&server), region_id: 77 };
    let unknown = pd.get_operator(unknown).await.unwrap().into_inner();
    let error = unknown.header.unwrap().error.unwrap();
    assert_eq!(
        (error.r#type(), error.message.as_str()),
        (pdpb::ErrorType::RegionNotFound, "Not Found")
    );
}

#[tokio::test]
async fn a_newer_stream_of_a_store_takes_the_place_of_the_older_one() {
    let server = scheduler(|_| {}).await;
    bootstrapped(&server).await;
    let (mut older, mut newer) = (Stream::open(&server).await, Stream::open(&server).await);
    let region = region(&[peer(11, 1)]);
    older.report(&region, &[]);
    assert_eq!(older.next_change().await.0, ConfChangeType::AddLearnerNode);
    newer.report(&region, &[]);
    assert_eq!(newer.next_change().await.0, ConfChangeType::AddLearnerNode);
    let end = loop {
        match older.said.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends with its reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Aborted, "{end}");
    // Orders that nobody has asked for come on the newer one: it is told again without having reported.
    assert_eq!(newer.next_change().await.0, ConfChangeType::AddLearnerNode);
}

#[tokio::test]
async fn the_courses_stream_is_the_same() {
    let server = scheduler(|_| {}).await;
    bootstrapped(&server).await;
    let mut grpc = tonic::client::Grpc::new(dial(server.ready().scheduler).await);
    grpc.ready().await.unwrap();
    let report = pdpb::RegionHeartbeatRequest {
        header: header(&server),
        region: Some(region(&[peer(11, 1)])),
        leader: Some(peer(11, 1)),
        ..Default::default()
    };
    let reports =
        tokio_stream::StreamExt::chain(tokio_stream::iter([report]), tokio_stream::pending());
    let path = "/schedulerpb.Scheduler/RegionHeartbeat".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<_, pdpb::RegionHeartbeatResponse>::default();
    let mut said =
        grpc.streaming(tonic::Request::new(reports), path, codec).await.unwrap().into_inner();
    let order = said.message().await.unwrap().unwrap();
    assert_eq!(order.change_peer.unwrap().change_type(), ConfChangeType::AddLearnerNode);
}

#[tokio::test]
async fn a_stream_of_a_cluster_without_stores_is_told_so_and_ends() {
    let server = scheduler(|_| {}).await;
    let mut stream = Stream::open(&server).await;
    stream.report(&region(&[peer(11, 1)]), &[]);
    let said = stream.said.message().await.unwrap().unwrap();
    let error = said.header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), pdpb::ErrorType::NotBootstrapped);
    assert_eq!(stream.said.message().await.unwrap(), None);
}

/// Two halves of the region, cut at `key`.
fn halves(key: &'static str) -> [metapb::Region; 2] {
    let region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 2 });
    let whole = metapb::Region { region_epoch, ..region(&[peer(11, 1)]) };
    let left = metapb::Region { end_key: key.into(), ..whole.clone() };
    let peers = vec![peer(21, 1)];
    [left, metapb::Region { id: 20, start_key: key.into(), peers, ..whole }]
}

async fn region_of(
    server: &Server,
    pd: &mut PdClient<Channel>,
    key: &'static str,
) -> metapb::Region {
    let request = pdpb::GetRegionRequest {
        header: header(server),
        region_key: key.into(),
        need_buckets: false,
    };
    pd.get_region(request).await.unwrap().into_inner().region.expect("every key has a region")
}

#[tokio::test]
async fn splits_get_ids_and_are_known_from_then_on_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let durable = |config: &mut Config| {
        config.storage.engine = EngineKind::Fjall;
        config.node.data_dir = dir.path().to_owned();
    };
    let server = scheduler(durable).await;
    let mut pd = bootstrapped(&server).await;
    let whole = region(&[peer(11, 1)]);
    let ask = pdpb::AskBatchSplitRequest {
        header: header(&server),
        region: Some(whole.clone()),
        split_count: 2,
        ..Default::default()
    };
    let ids = pd.ask_batch_split(ask.clone()).await.unwrap().into_inner().ids;
    assert!(ids.len() == 2 && ids.iter().all(|ids| ids.new_peer_ids.len() == 1), "{ids:?}");
    let ask_one = pdpb::AskSplitRequest { header: header(&server), region: Some(whole) };
    let one = pd.ask_split(ask_one).await.unwrap().into_inner();
    assert!(ids[1].new_region_id < one.new_region_id, "{one:?}");
    assert_eq!(one.new_peer_ids.len(), 1);

    let [left, right] = halves("m");
    let report = pdpb::ReportSplitRequest {
        header: header(&server),
        left: Some(left.clone()),
        right: Some(right.clone()),
    };
    assert!(pd.report_split(report).await.unwrap().into_inner().header.unwrap().error.is_none());
    assert_eq!(pd.ask_batch_split(ask).await.unwrap_err().code(), Code::Unknown, "it is stale");
    let apart = pdpb::ReportBatchSplitRequest {
        header: header(&server),
        regions: vec![right.clone(), left.clone()],
    };
    assert_eq!(pd.report_batch_split(apart).await.unwrap_err().code(), Code::Unknown);

    server.shutdown(Duration::from_secs(10)).await;
    let server = scheduler(durable).await;
    let mut pd = crate::common::pd(&server).await;
    assert_eq!(region_of(&server, &mut pd, "a").await, left);
    assert_eq!(region_of(&server, &mut pd, "z").await, right);
}

#[tokio::test]
async fn clients_have_regions_split_by_their_leaders() {
    let server = scheduler(|config| config.replication.max_replicas = 1).await;
    let mut pd = bootstrapped(&server).await;
    let mut stream = Stream::open(&server).await;
    stream.report(&region(&[peer(11, 1)]), &[]);
    let mut client = pd.clone();
    let request = pdpb::SplitRegionsRequest {
        header: header(&server),
        split_keys: vec!["m".into()],
        retry_limit: 100,
    };
    let splitting = tokio::spawn(async move { client.split_regions(request).await });
    let order = stream.next().await.split_region.expect("it is to be split");
    assert_eq!((order.policy(), &order.keys[..]), (pdpb::CheckPolicy::Usekey, &["m".into()][..]));
    let regions = halves("m").to_vec();
    let report = pdpb::ReportBatchSplitRequest { header: header(&server), regions };
    pd.report_batch_split(report).await.unwrap();
    let answer = splitting.await.unwrap().unwrap().into_inner();
    assert_eq!((answer.finished_percentage, answer.regions_id), (100, vec![20]));
}

#[tokio::test]
async fn the_number_of_replicas_is_that_of_the_configuration_when_the_cluster_begins() {
    let dir = tempfile::tempdir().unwrap();
    let config = |replicas: usize| {
        let data_dir = dir.path().to_owned();
        move |config: &mut Config| {
            config.storage.engine = EngineKind::Fjall;
            config.node.data_dir = data_dir;
            config.replication.max_replicas = replicas;
        }
    };
    let replicas = async |server: &Server| {
        let request = pdpb::GetClusterConfigRequest { header: header(server) };
        let answer = pd(server).await.get_cluster_config(request).await.unwrap().into_inner();
        answer.cluster.unwrap().max_peer_count
    };
    let server = scheduler(config(5)).await;
    bootstrapped(&server).await;
    assert_eq!(replicas(&server).await, 5);
    server.shutdown(Duration::from_secs(10)).await;
    let server = scheduler(config(3)).await;
    assert_eq!(replicas(&server).await, 5, "it is part of the cluster");
}

#[tokio::test]
async fn a_store_that_is_sent_away_and_empty_is_gone_for_good() {
    let server = scheduler(|_| {}).await;
    let mut pd = bootstrapped(&server).await;
    let stream = Stream::open(&server).await;
    stream.report(&region(&[peer(11, 1)]), &[]);
    let addr = server.ready().scheduler;
    let (status, answer) = crate::common::http(addr, "DELETE", "/pd/api/v1/store/3", "").await;
    assert_eq!((status, answer.as_str()), (200, "\"The store is set as Offline.\""));
    loop {
        match beat(&server, &mut pd, 3).await {
            Ok(state) => assert_eq!(state, metapb::NodeState::Removing),
            Err(error) => {
                assert_eq!(error, pdpb::ErrorType::StoreTombstone);
                break;
            }
        }
    }
    assert_eq!(beat(&server, &mut pd, 2).await, Ok(metapb::NodeState::Serving));
    let put = pdpb::PutStoreRequest { header: header(&server), store: Some(store(3)) };
    let refused = pd.put_store(put).await.unwrap().into_inner().header.unwrap().error.unwrap();
    assert_eq!(refused.r#type(), pdpb::ErrorType::StoreTombstone);
    assert_eq!(crate::common::http(addr, "DELETE", "/pd/api/v1/store/3", "").await.0, 410);
}
