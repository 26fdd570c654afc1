//! Heartbeats, orders and splits of a store against a real scheduler: in this process, and over loopback.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use raftstore::store::RequestKind;
use scheduler::{Change, Instruction, Order, PeerChange, PeerChangeKind};
use tokio::{sync::mpsc, task::JoinSet};
use types::{Bytes, KeyRange, Peer, PeerRole, RegionEpoch};

use super::{
    heartbeats::{Heartbeats, Reporting},
    orders::{Orders, to_request},
    *,
};
use crate::{
    Config, StopCause, config::EngineKind, listen::Phase, scheduler_node::SchedulerNode,
    server::Process,
};

/// A scheduler that was started, and what stops it.
struct Running {
    node: SchedulerNode,
    process: Process,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(config: Config) -> Running {
        let (process, mut tasks) = (Process::new(), JoinSet::new());
        let node = SchedulerNode::start(&Arc::new(config), &process, &mut tasks).await.unwrap();
        Running { node, process, tasks }
    }

    fn addr(&self) -> SocketAddr {
        self.node.addr().expect("it listens")
    }

    fn local(&self) -> Placement {
        Placement::Local(self.node.local())
    }

    fn remote(&self) -> Placement {
        Placement::Remote(Arc::new(Remote::new(vec![self.addr().to_string()])))
    }

    async fn stop(mut self) {
        self.process.phase.send_replace(Phase::Draining);
        self.process.phase.send_replace(Phase::Stopped);
        while self.tasks.join_next().await.is_some() {}
        tokio::task::spawn_blocking(move || self.node.stop()).await.unwrap();
    }
}

/// A scheduler that keeps nothing. Not on 127.0.0.1: a port there that is given back may be somebody else's at once.
fn config() -> Config {
    let mut config = Config::default();
    config.scheduler.addr = "127.77.0.1:0".to_owned();
    config.storage.engine = EngineKind::Memory;
    config
}

fn store(id: u64) -> StoreMeta {
    StoreMeta {
        id: StoreId(id),
        address: format!("127.0.0.1:{}", 20_000 + id),
        ..StoreMeta::default()
    }
}

fn region() -> Region {
    let peers = vec![Peer { id: PeerId(11), store_id: StoreId(1), role: PeerRole::Voter }];
    Region { id: RegionId(10), range: KeyRange::all(), epoch: RegionEpoch::FIRST, peers }
}

fn report() -> raftstore::RegionReport {
    let (region, leader) = (region(), region().peers[0]);
    raftstore::RegionReport { region, leader, term: 6, ..raftstore::RegionReport::default() }
}

/// A cluster of three empty stores, and a region on the first of them that lacks replicas.
async fn bootstrap(placement: &Placement) {
    assert!(placement.bootstrap(&store(1), &[region()]).await.unwrap());
    for id in [2, 3] {
        placement.put_store(&store(id)).await.unwrap();
    }
    others_report(placement).await;
}

async fn others_report(placement: &Placement) {
    for id in [2, 3] {
        placement.report_store(&store_report(id)).await.unwrap();
    }
}

fn store_report(id: u64) -> StoreReport {
    let (capacity, available) = (1 << 40, 1 << 40);
    StoreReport { store_id: StoreId(id), capacity, available, ..StoreReport::default() }
}

/// The heartbeats of a store, and what it is told.
struct Reporter {
    heartbeats: Heartbeats,
    orders: mpsc::UnboundedReceiver<Order>,
    resends: mpsc::UnboundedReceiver<()>,
    process: Process,
    _tasks: JoinSet<()>,
}

impl Reporter {
    fn start(placement: Placement, id: u64) -> Reporter {
        let (on_order, orders) = mpsc::unbounded_channel();
        let (on_resend, resends) = mpsc::unbounded_channel();
        let reporting = Reporting {
            store_id: StoreId(id),
            tick: std::time::Duration::from_millis(100),
            store_interval: std::time::Duration::from_millis(20),
            store_report: Box::new(move || store_report(id)),
            resend: Box::new(move || on_resend.send(()).unwrap()),
            on_order: Box::new(move |order| drop(on_order.send(order))),
        };
        let (process, mut tasks) = (Process::new(), JoinSet::new());
        let heartbeats = Heartbeats::start(placement, reporting, &process, &mut tasks);
        Reporter { heartbeats, orders, resends, process, _tasks: tasks }
    }

    /// The next order, which adds a learner to the region.
    async fn expect_learner(&mut self) {
        let order = self.orders.recv().await.expect("an order comes");
        let Instruction::ChangePeer(PeerChange { kind: PeerChangeKind::Learner, peer }) =
            order.instruction
        else {
            panic!("{order:?}");
        };
        assert!([2, 3].contains(&peer.store_id.0), "{peer:?}");
        let expected = (region().id, region().epoch, region().peers[0]);
        assert_eq!((order.region, order.epoch, order.leader), expected);
    }

    async fn stopped(&self) -> StopCause {
        let mut stopped = self.process.stopped.subscribe();
        stopped.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
}

#[tokio::test]
async fn a_region_that_lacks_replicas_is_reported_and_its_leader_told_to_add_one() {
    let running = Running::start(config()).await;
    bootstrap(&running.local()).await;
    for placement in [running.local(), running.remote()] {
        let mut reporter = Reporter::start(placement, 1);
        reporter.heartbeats.send(report());
        reporter.expect_learner().await;
        // Nothing is reported any more: it is asked for again all the same.
        reporter.expect_learner().await;
        assert!(reporter.resends.is_empty(), "the connection was never lost");
    }
    running.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_the_scheduler_everything_is_reported_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.storage.engine = EngineKind::Fjall;
    config.node.data_dir = dir.path().to_owned();
    let running = Running::start(config.clone()).await;
    config.scheduler.addr = running.addr().to_string();
    let placement = running.remote();
    bootstrap(&placement).await;
    let mut reporter = Reporter::start(placement.clone(), 1);
    reporter.heartbeats.send(report());
    reporter.expect_learner().await;

    running.stop().await;
    let running = Running::start(config).await;
    reporter.resends.recv().await.expect("the new scheduler hears of everything");
    while reporter.orders.try_recv().is_ok() {}
    others_report(&running.local()).await;
    reporter.heartbeats.send(report());
    reporter.expect_learner().await;
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_was_removed_stops() {
    let running = Running::start(config()).await;
    bootstrap(&running.local()).await;
    let leader = Reporter::start(running.remote(), 1);
    leader.heartbeats.send(report());
    let removed = Reporter::start(running.remote(), 3);
    let scheduler = running.node.local().pd.scheduler().clone();
    scheduler.run(|scheduler, _| scheduler.remove_store(StoreId(3))).await.unwrap();
    let cause = removed.stopped().await;
    assert_eq!(cause.code, Code::StoreRemoved, "{cause:?}");
    assert!(leader.process.stopped.borrow().is_none());

    let placement = running.remote();
    let code = |error: PlacementError| error.code;
    assert_eq!(placement.put_store(&store(3)).await.map_err(code), Err(Code::StoreRemoved));
    assert_eq!(placement.store_address(StoreId(3)).await.map_err(code), Err(Code::StoreRemoved));
    running.stop().await;
}

#[tokio::test]
async fn stores_and_regions_are_found_and_refusals_keep_their_code() {
    let running = Running::start(config()).await;
    bootstrap(&running.local()).await;
    for placement in [running.local(), running.remote()] {
        assert_eq!(placement.store_address(StoreId(2)).await.unwrap(), "127.0.0.1:20002");
        let unknown = placement.store_address(StoreId(77)).await.unwrap_err();
        assert_eq!(unknown.code, Code::InvalidRequest, "{unknown}");
        assert_eq!(placement.region_by_id(RegionId(10)).await.unwrap(), Some(region()));
        assert_eq!(placement.region_by_id(RegionId(77)).await.unwrap(), None);
        let taken = StoreMeta { id: StoreId(4), ..store(1) };
        assert_eq!(placement.put_store(&taken).await.unwrap_err().code, Code::AddressTaken);
    }
    running.stop().await;
}

#[tokio::test]
async fn another_cluster_at_the_same_address_is_not_taken_for_ours() {
    let running = Running::start(config()).await;
    let placement = running.remote();
    bootstrap(&placement).await;
    let config = Config {
        scheduler: crate::config::SchedulerSettings {
            addr: running.addr().to_string(),
            ..config().scheduler
        },
        ..config()
    };
    running.stop().await;
    let running = Running::start(config).await;
    // The first question finds out that the connection is dead.
    let _ = placement.is_bootstrapped().await;
    let refused = placement.alloc_id().await.unwrap_err();
    assert_eq!(refused.code, Code::ClusterMismatch, "{refused}");
    running.stop().await;
}

/// What a store is asked to propose.
type Proposals = Arc<Mutex<mpsc::UnboundedSender<(RegionId, RegionEpoch, RequestKind)>>>;

fn orders(
    placement: Placement,
) -> (Orders, mpsc::UnboundedReceiver<(RegionId, RegionEpoch, RequestKind)>) {
    let (sender, proposals) = mpsc::unbounded_channel();
    let sender: Proposals = Arc::new(Mutex::new(sender));
    let admin = move |region, epoch, kind| {
        let sender = sender.lock().unwrap();
        sender.send((region, epoch, kind)).unwrap();
    };
    (Orders::new(placement, Arc::new(admin)), proposals)
}

fn order(instruction: Instruction) -> Order {
    let Region { id, epoch, peers, .. } = region();
    Order { region: id, epoch, leader: peers[0], instruction }
}

#[tokio::test]
async fn a_split_gets_ids_and_is_known_once_it_is_reported() {
    let running = Running::start(config()).await;
    bootstrap(&running.local()).await;
    for placement in [running.local(), running.remote()] {
        let (orders, mut proposals) = orders(placement);
        // Keys of nobody and keys that come twice are left out; the rest is in order.
        let keys: Vec<Bytes> = ["m", "", "d", "m"].map(Bytes::from).to_vec();
        orders.split(region(), keys.clone());
        let from_size = proposals.recv().await.unwrap();
        orders.carry_out(order(Instruction::Split { keys }));
        let from_order = proposals.recv().await.unwrap();
        for (id, epoch, kind) in [from_size, from_order] {
            assert_eq!((id, epoch), (region().id, region().epoch));
            let RequestKind::Split { children } = kind else { panic!("{kind:?}") };
            assert_eq!(
                children.iter().map(|child| &child.start[..]).collect::<Vec<_>>(),
                [b"d", b"m"]
            );
            let mut ids: Vec<u64> = children
                .iter()
                .flat_map(|child| [child.region_id.0, child.peer_ids[0].0])
                .collect();
            assert!(children.iter().all(|child| child.peer_ids.len() == 1));
            ids.dedup();
            assert!(ids.len() == 4 && ids.is_sorted(), "{ids:?}");
        }
    }

    let placement = running.remote();
    let epoch = RegionEpoch { version: 2, ..region().epoch };
    let range =
        |start: &'static str, end: &'static str| KeyRange { start: start.into(), end: end.into() };
    let left = Region { range: range("", "d"), epoch, ..region() };
    let right = Region { id: RegionId(20), range: range("d", ""), epoch, ..region() };
    placement.report_batch_split(&[left.clone(), right.clone()]).await.unwrap();
    assert_eq!(placement.region_by_id(left.id).await.unwrap(), Some(left));
    assert_eq!(placement.region_by_id(right.id).await.unwrap(), Some(right));
    let stale = placement.ask_batch_split(&region(), 1).await.unwrap_err();
    assert_eq!(stale.code, Code::EpochNotMatch, "{stale}");
    running.stop().await;
}

#[test]
fn orders_become_what_the_store_takes() {
    let peer = |id, role| Peer { id: PeerId(id), store_id: StoreId(id), role };
    let change = |kind, id, role| PeerChange { kind, peer: peer(id, role) };
    let (voter, learner) = (PeerRole::Voter, PeerRole::Learner);
    let promote = change(PeerChangeKind::Voter, 2, voter);
    let demote = change(PeerChangeKind::Learner, 3, learner);
    let remove = change(PeerChangeKind::Remove, 4, learner);
    let changes = |instruction| match to_request(&order(instruction)) {
        Some(RequestKind::ChangeMembers { changes }) => changes,
        other => panic!("{other:?}"),
    };
    assert_eq!(changes(Instruction::ChangePeer(promote)), [(Some(voter), peer(2, voter))]);
    assert_eq!(changes(Instruction::ChangePeer(remove)), [(None, peer(4, learner))]);
    assert_eq!(
        changes(Instruction::ChangePeers(vec![promote, demote])),
        [(Some(voter), peer(2, voter)), (Some(learner), peer(3, learner))]
    );
    let transfer = to_request(&order(Instruction::TransferLeader { to: peer(5, voter) }));
    assert!(matches!(transfer, Some(RequestKind::TransferLeader { to: PeerId(5) })));
    // The store leaves a joint state by itself.
    assert!(to_request(&order(Instruction::ChangePeers(Vec::new()))).is_none());
    assert!(to_request(&order(Instruction::Split { keys: vec!["k".into()] })).is_none());
    let half = to_request(&order(Instruction::Split { keys: Vec::new() }));
    assert!(matches!(half, Some(RequestKind::SplitHalf)));
}

#[tokio::test]
async fn admin_operators_reach_the_leader() {
    let running = Running::start(config()).await;
    bootstrap(&running.local()).await;
    let mut reporter = Reporter::start(running.remote(), 1);
    reporter.heartbeats.send(report());
    reporter.expect_learner().await;
    let scheduler = running.node.local().pd.scheduler().clone();
    let keys: Vec<Bytes> = vec!["k".into()];
    let split = Change::Split { keys: keys.clone() };
    let replace = scheduler.run(|scheduler, _| {
        // Repairs are as urgent as what somebody wants.
        let _ = scheduler.cancel_operator(RegionId(10))?;
        scheduler.add_operator(RegionId(10), split)
    });
    replace.await.unwrap();
    let mut instruction = reporter.orders.recv().await.unwrap().instruction;
    while matches!(instruction, Instruction::ChangePeer(_)) {
        instruction = reporter.orders.recv().await.unwrap().instruction;
    }
    assert_eq!(instruction, Instruction::Split { keys });
    running.stop().await;
}
