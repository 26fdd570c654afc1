//! The course's project 3C, test by test: the names and what is expected are the course's.
//!
//! Ids begin with 1 here, since 0 is nobody's; sizes are bytes; a region has at least one peer. The course moves a peer by
//! adding a voter and removing the old one: that is our style [`Direct`](ChangeStyle::Direct), which the four tests of
//! balance use. docs/divergence.md says what else differs.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use runtime::Rng;
use scheduler::{
    Change, ChangeStyle, ClusterConfig, Error, Instruction, Now, OperatorInfo, Options, RegionInfo,
    ScheduleConfig, Scheduler, SchedulerHandle, Step, Store, StoreFilter, StoreRegions, StoreState,
    StoreStats,
    testing::{self, Pretended, Question},
};
use types::{
    ApiMode, ClusterId, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId,
};

const MIB: u64 = 1 << 20;

/// A cluster of `n` stores that knows no regions yet.
fn cluster(n: u64) -> Scheduler {
    let mut scheduler = Scheduler::new(ClusterId(7), ApiMode::V1);
    let _ = scheduler.bootstrap(store(1), Vec::new(), ApiMode::V1).unwrap();
    for id in 2..=n {
        let _ = scheduler.put_store(store(id)).unwrap();
    }
    scheduler
}

fn store(id: u64) -> Store {
    Store { id: StoreId(id), address: format!("127.0.0.1:{id}"), ..Store::default() }
}

fn peer(id: u64, store: u64) -> Peer {
    Peer { id: PeerId(id), store_id: StoreId(store), role: PeerRole::Voter }
}

/// `n` regions with `np` peers each, one key wide, in a circle on `n` stores; the first peer leads.
fn regions(n: u64, np: u64) -> Vec<RegionInfo> {
    let region = |i: u64| {
        let peers: Vec<Peer> = (0..np).map(|j| peer(1 + i * np + j, 1 + (i + j) % n)).collect();
        RegionInfo {
            region: Region {
                id: RegionId(1 + i),
                range: KeyRange::new(vec![i as u8], vec![i as u8 + 1]),
                epoch: RegionEpoch { conf_ver: 2, version: 2 },
                peers: peers.clone(),
            },
            leader: Some(peers[0]),
            ..RegionInfo::default()
        }
    };
    (0..n).map(region).collect()
}

fn heartbeat(scheduler: &mut Scheduler, region: &RegionInfo) {
    let answer = scheduler.region_heartbeat(region.clone()).unwrap();
    assert_eq!(answer.value, None, "nothing is wanted of it");
}

fn refused(scheduler: &mut Scheduler, region: &RegionInfo) {
    let refused = scheduler.region_heartbeat(region.clone()).unwrap_err();
    assert!(matches!(refused, Error::StaleRegion { .. }), "{refused}");
}

/// What is known is exactly `regions`, by id, by key and by store.
fn check(scheduler: &Scheduler, regions: &[RegionInfo]) {
    assert_eq!(scheduler.region_count().unwrap().value, regions.len());
    let mut held: BTreeMap<StoreId, StoreRegions> = BTreeMap::new();
    for region in regions {
        let by_id = scheduler.get_region_by_id(region.region.id).unwrap().value.unwrap();
        let by_key = scheduler.get_region(&region.region.range.start).unwrap().value.unwrap();
        assert_eq!((&*by_id, &*by_key), (region, region));
        let mut on = |peer: &Peer, change: &dyn Fn(&mut StoreRegions)| {
            change(held.entry(peer.store_id).or_default());
        };
        for peer in &region.region.peers {
            on(peer, &|held| {
                held.regions += 1;
                held.region_bytes += region.approximate_size;
            });
        }
        if let Some(leader) = &region.leader {
            on(leader, &|held| {
                held.leaders += 1;
                held.leader_bytes += region.approximate_size;
            });
        }
        region.pending_peers.iter().for_each(|peer| on(peer, &|held| held.pending += 1));
    }
    for info in scheduler.all_stores(StoreFilter::All).unwrap().value {
        let expected = held.get(&info.store.id).copied().unwrap_or_default();
        assert_eq!(info.regions, expected, "store {}", info.store.id);
    }
}

/// Reports three regions of three peers one after the other, each as it is and then changed by `change`; both times all
/// must be known as reported.
fn changed_regions(change: impl Fn(&mut RegionInfo)) {
    let mut scheduler = cluster(3);
    let mut regions = regions(3, 3);
    for i in 0..regions.len() {
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
        change(&mut regions[i]);
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
    }
}

/// The same, but what `change` makes of a region is refused and changes nothing.
fn stale_regions(change: impl Fn(&mut RegionInfo)) {
    let mut scheduler = cluster(3);
    let regions = regions(3, 3);
    for i in 0..regions.len() {
        heartbeat(&mut scheduler, &regions[i]);
        let mut stale = regions[i].clone();
        change(&mut stale);
        refused(&mut scheduler, &stale);
        check(&scheduler, &regions[..=i]);
    }
}

#[test]
fn test_region_not_update_3c() {
    changed_regions(|_| {});
}

#[test]
fn test_region_update_version_3c() {
    changed_regions(|info| info.region.epoch.version += 1);
}

#[test]
fn test_region_with_stale_version_3c() {
    stale_regions(|info| {
        info.region.epoch.version -= 1;
        info.region.epoch.conf_ver += 1;
    });
}

#[test]
fn test_region_update_version_and_confver_3c() {
    changed_regions(|info| {
        info.region.epoch.version += 1;
        info.region.epoch.conf_ver += 1;
    });
}

#[test]
fn test_region_with_stale_conf_ver_3c() {
    stale_regions(|info| info.region.epoch.conf_ver -= 1);
    stale_regions(|info| {
        info.region.epoch.conf_ver -= 1;
        info.region.epoch.version += 1;
    });
}

#[test]
fn test_region_add_pending_peer_3c() {
    changed_regions(|info| info.pending_peers = vec![info.region.peers[1]]);
}

#[test]
fn test_region_remove_pending_peer_3c() {
    let mut scheduler = cluster(3);
    let mut regions = regions(3, 3);
    for i in 0..regions.len() {
        regions[i].pending_peers = vec![regions[i].region.peers[1]];
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
        regions[i].pending_peers.clear();
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
    }
    let stores = scheduler.all_stores(StoreFilter::All).unwrap().value;
    assert!(stores.iter().all(|info| info.regions.pending == 0));
}

#[test]
fn test_region_remove_peers_3c() {
    changed_regions(|info| info.region.peers.truncate(1));
}

#[test]
fn test_region_add_back_peers_3c() {
    let mut scheduler = cluster(3);
    let mut regions = regions(3, 3);
    for i in 0..regions.len() {
        let all = regions[i].region.peers.clone();
        regions[i].region.peers.truncate(1);
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
        regions[i].region.peers = all;
        heartbeat(&mut scheduler, &regions[i]);
        check(&scheduler, &regions[..=i]);
    }
}

#[test]
fn test_region_change_leader_3c() {
    changed_regions(|info| info.leader = Some(info.region.peers[1]));
}

#[test]
fn test_region_change_approximate_size_3c() {
    changed_regions(|info| info.approximate_size = 144 * MIB);
    changed_regions(|info| info.approximate_keys = 144_000);
}

/// Three regions of three peers that have reported.
fn three_by_three() -> (Scheduler, Vec<RegionInfo>) {
    let (mut scheduler, mut regions) = (cluster(3), regions(3, 3));
    for region in &mut regions {
        region.approximate_size = 10 * MIB;
        heartbeat(&mut scheduler, region);
    }
    (scheduler, regions)
}

#[test]
fn test_region_counts_3c() {
    let (scheduler, regions) = three_by_three();
    assert_eq!(scheduler.region_count().unwrap().value, 3);
    for info in scheduler.all_stores(StoreFilter::All).unwrap().value {
        let on_it = |region: &&RegionInfo| region.region.peer_on(info.store.id).is_some();
        assert_eq!(info.regions.regions, regions.iter().filter(on_it).count() as u64);
    }
}

#[test]
fn test_region_get_regions_3c() {
    let (scheduler, regions) = three_by_three();
    let known = scheduler.scan_regions(&KeyRange::all(), 0).unwrap().value;
    assert!(known.iter().map(|info| &**info).eq(&regions));
    for region in &regions {
        let found = scheduler.get_region_by_id(region.region.id).unwrap().value;
        assert_eq!(found.as_deref(), Some(region));
    }
}

#[test]
fn test_region_get_stores_3c() {
    let (scheduler, regions) = three_by_three();
    for region in &regions {
        let on = region.region.peers.iter().map(|peer| peer.store_id);
        let found = on.map(|id| scheduler.get_store(id).unwrap().value.store.id);
        assert!(found.eq(region.region.peers.iter().map(|peer| peer.store_id)));
        // Those that follow, and the one that leads.
        let leader = region.leader.unwrap().store_id;
        let mut followers = region.region.peers.iter().filter(|peer| peer.store_id != leader);
        assert!(followers.all(|peer| scheduler.get_store(peer.store_id).is_ok()));
    }
}

#[test]
fn test_region_get_stores_info_3c() {
    let (scheduler, regions) = three_by_three();
    for info in scheduler.all_stores(StoreFilter::All).unwrap().value {
        let id = info.store.id;
        let on_it = || regions.iter().filter(|region| region.region.peer_on(id).is_some());
        let led = || regions.iter().filter(|region| region.leader.unwrap().store_id == id);
        let size = |regions: &mut dyn Iterator<Item = &RegionInfo>| -> u64 {
            regions.map(|region| region.approximate_size).sum()
        };
        let expected = StoreRegions {
            regions: on_it().count() as u64,
            leaders: led().count() as u64,
            pending: 0,
            region_bytes: size(&mut on_it()),
            leader_bytes: size(&mut led()),
        };
        assert_eq!(info.regions, expected);
    }
}

#[test]
fn test_heartbeat_split_3c() {
    let mut scheduler = cluster(1);
    let region = |id: u64, start: &str, end: &str, version: u64| {
        let range = KeyRange::new(start.to_owned(), end.to_owned());
        let epoch = RegionEpoch { conf_ver: 1, version };
        let region = Region { id: RegionId(id), range, epoch, peers: vec![peer(id, 1)] };
        RegionInfo { region, ..RegionInfo::default() }
    };
    let by_key = |scheduler: &Scheduler, key: &str| {
        let found = scheduler.get_region(key.as_bytes()).unwrap().value;
        found.map(|info| RegionInfo::clone(&info))
    };
    let whole = region(1, "", "", 1);
    heartbeat(&mut scheduler, &whole);
    assert_eq!(by_key(&scheduler, "foo"), Some(whole));

    // The new region has the left half and reports first: the right half is missing until its own report.
    let (left, right) = (region(2, "", "m", 1), region(1, "m", "", 2));
    heartbeat(&mut scheduler, &left);
    assert_eq!(by_key(&scheduler, "a"), Some(left.clone()));
    assert_eq!(by_key(&scheduler, "z"), None);
    heartbeat(&mut scheduler, &right);
    assert_eq!(by_key(&scheduler, "z"), Some(right));

    // Now the old region reports first: the new one is missing.
    let (middle, right) = (region(3, "m", "q", 1), region(1, "q", "", 3));
    heartbeat(&mut scheduler, &right);
    assert_eq!(by_key(&scheduler, "z"), Some(right));
    assert_eq!(by_key(&scheduler, "a"), Some(left));
    assert_eq!(by_key(&scheduler, "n"), None);
    heartbeat(&mut scheduler, &middle);
    assert_eq!(by_key(&scheduler, "n"), Some(middle));
}

/// Each region in two, the left half new.
fn split(regions: &[RegionInfo], next_id: &mut u64) -> Vec<RegionInfo> {
    let mut halves = Vec::new();
    for region in regions {
        let KeyRange { start, end } = &region.region.range;
        let low = start.first().map_or(0, |&byte| u32::from(byte));
        let high = end.first().map_or(256, |&byte| u32::from(byte));
        let middle = vec![((low + high) / 2) as u8];
        let (mut left, mut right) = (region.clone(), region.clone());
        *next_id += 1;
        left.region.id = RegionId(*next_id);
        left.region.range.end = middle.clone().into();
        right.region.range.start = middle.into();
        for half in [&mut left, &mut right] {
            half.region.epoch.version += 1;
        }
        halves.extend([left, right]);
    }
    halves
}

/// Each pair of regions in one, the left one's.
fn merge(regions: &[RegionInfo]) -> Vec<RegionInfo> {
    let merged = |pair: &[RegionInfo]| {
        let mut merged = pair[0].clone();
        merged.region.range.end = pair[1].region.range.end.clone();
        let version = pair[0].region.epoch.version.max(pair[1].region.epoch.version);
        merged.region.epoch.version = version + 1;
        merged
    };
    regions.chunks(2).map(merged).collect()
}

/// All report, one after the other; in the end that is what is known.
fn all_report(scheduler: &mut Scheduler, regions: &[RegionInfo]) {
    for region in regions {
        heartbeat(scheduler, region);
        let found = scheduler.get_region(&region.region.range.start).unwrap().value;
        assert_eq!(found.as_deref(), Some(region));
    }
    check(scheduler, regions);
}

#[test]
fn test_region_split_and_merge_3c() {
    const LEVELS: usize = 7;
    let (mut scheduler, mut next_id) = (cluster(1), 1);
    let region = Region {
        id: RegionId(1),
        range: KeyRange::all(),
        epoch: RegionEpoch::FIRST,
        peers: vec![peer(1, 1)],
    };
    let mut regions = vec![RegionInfo { region, ..RegionInfo::default() }];
    all_report(&mut scheduler, &regions);
    for _ in 0..LEVELS {
        regions = split(&regions, &mut next_id);
        all_report(&mut scheduler, &regions);
    }
    assert_eq!(regions.len(), 1 << LEVELS);
    for _ in 0..LEVELS {
        regions = merge(&regions);
        all_report(&mut scheduler, &regions);
    }
    assert_eq!(regions.len(), 1);
    for i in 1..=2 * LEVELS {
        regions = match i % 3 {
            0 => merge(&regions),
            _ => split(&regions, &mut next_id),
        };
        all_report(&mut scheduler, &regions);
    }
}

#[test]
fn test_concurrent_handle_region_3c() {
    const REGIONS: u64 = 1000;
    const THREADS: u64 = 8;
    let options = Options::new(ApiMode::V1, Rng::new(1));
    let handle = SchedulerHandle::in_memory(
        Arc::new(runtime::sim::SimClock::new(Duration::from_secs(1_000_000))),
        options,
    );
    let regions: Vec<RegionInfo> = (0..REGIONS)
        .map(|i| {
            let range = KeyRange::new(i.to_be_bytes().to_vec(), (i + 1).to_be_bytes().to_vec());
            let peers = vec![peer(1 + 2 * i, 1 + i % 3), peer(2 + 2 * i, 1 + (i + 1) % 3)];
            let leader = Some(peers[0]);
            let region = Region { id: RegionId(1 + i), range, epoch: RegionEpoch::FIRST, peers };
            RegionInfo { region, leader, ..RegionInfo::default() }
        })
        .collect();
    handle
        .run_blocking(|scheduler, _| {
            let answer = scheduler.bootstrap(store(1), Vec::new(), ApiMode::V1)?;
            for id in 2..=3 {
                let _ = scheduler.put_store(store(id))?;
            }
            Ok(answer)
        })
        .unwrap();
    let all = |regions: &[RegionInfo]| -> u64 {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let mine =
                        regions.iter().filter(move |info| info.region.id.0 % THREADS == thread);
                    let handle = &handle;
                    let report = move |info: &RegionInfo| {
                        handle.run_blocking(|s, _| s.region_heartbeat(info.clone())).unwrap()
                    };
                    scope.spawn(move || mine.filter_map(report).count() as u64)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    };
    assert_eq!(all(&regions), 0, "nothing is wanted");
    // The leader of region 1, on store 1, is wanted to hand over. Of the second thousand heartbeats one is answered.
    handle
        .run_blocking(|scheduler, now| {
            for store in 1..=3 {
                let stats = StoreStats { store_id: StoreId(store), ..StoreStats::default() };
                let _ = scheduler.store_heartbeat(now, stats)?;
            }
            scheduler.add_operator(RegionId(1), Change::TransferLeader { to: StoreId(2) })
        })
        .unwrap();
    assert_eq!(all(&regions), 1);
    let order =
        handle.run_blocking(|s, _| s.region_heartbeat(regions[0].clone())).unwrap().unwrap();
    assert_eq!((order.leader.store_id, order.region), (StoreId(1), RegionId(1)));
    assert!(matches!(order.instruction, Instruction::TransferLeader { .. }));
    assert_eq!(handle.run_blocking(|s, _| s.region_count()).unwrap(), 1000);
}

/// What the course calls a mock cluster: stores hold what they are said to hold.
struct Mock {
    scheduler: Scheduler,
    now: Duration,
    held: BTreeMap<StoreId, Pretended>,
    silent: Vec<u64>,
}

impl Mock {
    fn new(max_replicas: u32) -> Mock {
        let mut scheduler = cluster(1);
        let change_style = ChangeStyle::Direct;
        scheduler.set_schedule_config(ScheduleConfig { change_style, ..ScheduleConfig::default() });
        let now = Duration::from_secs(10_000);
        let mut mock = Mock { scheduler, now, held: BTreeMap::new(), silent: Vec::new() };
        mock.set_max_replicas(max_replicas);
        mock
    }

    fn set_max_replicas(&mut self, max_peer_count: u32) {
        let _ = self.scheduler.put_cluster_config(ClusterConfig { max_peer_count }).unwrap();
    }

    /// A store that is up and holds so many regions of 10 MiB.
    fn add_region_store(&mut self, id: u64, regions: u64) {
        let _ = self.scheduler.put_store(store(id)).unwrap();
        self.update_region_count(id, regions);
        self.heartbeats();
    }

    fn update_region_count(&mut self, id: u64, regions: u64) {
        self.held.insert(StoreId(id), Pretended { weight: 10 * MIB * regions, leaders: 0 });
    }

    fn heartbeats(&mut self) {
        testing::set_time(&mut self.scheduler, self.now);
        let now = Now { monotonic: self.now, wall_ms: 0 };
        for &id in self.held.keys().filter(|id| !self.silent.contains(&id.0)) {
            let stats = StoreStats { store_id: id, ..StoreStats::default() };
            let _ = self.scheduler.store_heartbeat(now, stats).unwrap();
        }
    }

    fn set_store_offline(&mut self, id: u64) {
        let _ = self.scheduler.remove_store(StoreId(id)).unwrap();
        let info = self.scheduler.get_store(StoreId(id)).unwrap().value;
        assert_eq!(info.store.state, StoreState::Offline);
    }

    /// A store is silent for longer than a store may be.
    fn set_store_down(&mut self, id: u64, regions: &[RegionInfo]) {
        self.silent.push(id);
        self.now += Duration::from_secs(30 * 60 + 1);
        self.heartbeats();
        regions.iter().for_each(|region| heartbeat(&mut self.scheduler, region));
    }

    /// A region of 10 MiB that the first of these stores leads.
    fn add_leader_region(&mut self, id: u64, stores: &[u64]) -> RegionInfo {
        let peers: Vec<Peer> = stores.iter().map(|&store| peer(10 * id + store, store)).collect();
        let leader = Some(peers[0]);
        let range = KeyRange::new(vec![id as u8], vec![id as u8 + 1]);
        let region = Region { id: RegionId(id), range, epoch: RegionEpoch::FIRST, peers };
        let approximate_size = 10 * MIB;
        let info = RegionInfo { region, leader, approximate_size, ..RegionInfo::default() };
        heartbeat(&mut self.scheduler, &info);
        info
    }

    fn schedule(&self) -> Option<OperatorInfo> {
        let mut rng = Rng::new(1);
        testing::decide(&self.scheduler, Question::BalanceRegion, &self.held, &mut rng)
    }
}

fn check_transfer_peer(operator: Option<OperatorInfo>, source: u64, target: u64) {
    let operator = operator.unwrap();
    let [Step::AddPeer { peer: new }, Step::RemovePeer { peer: old }] = operator.steps[..] else {
        panic!("{operator:?}");
    };
    assert_eq!((old.store_id, new.store_id), (StoreId(source), StoreId(target)));
    assert_eq!(operator.kinds, ["region", "balance"]);
}

fn check_transfer_peer_with_leader_transfer(
    operator: Option<OperatorInfo>,
    source: u64,
    target: u64,
) {
    let operator = operator.unwrap();
    let [
        Step::AddPeer { peer: new },
        Step::TransferLeader { from, to },
        Step::RemovePeer { peer: old },
    ] = operator.steps[..]
    else {
        panic!("{operator:?}");
    };
    assert_eq!((old.store_id, new.store_id), (StoreId(source), StoreId(target)));
    assert!(from == old.store_id && to != from);
    assert_eq!(operator.kinds, ["leader", "region", "balance"]);
}

#[test]
fn test_replicas_1_3c() {
    let mut mock = Mock::new(1);
    for (store, regions) in [(1, 6), (2, 8), (3, 8), (4, 16)] {
        mock.add_region_store(store, regions);
    }
    mock.add_leader_region(1, &[4]);
    check_transfer_peer_with_leader_transfer(mock.schedule(), 4, 1);

    // The emptiest store is on its way out: the next one takes the peer.
    mock.set_store_offline(1);
    mock.update_region_count(2, 6);
    check_transfer_peer_with_leader_transfer(mock.schedule(), 4, 2);

    // With fewer peers than there should be a region is not moved about.
    mock.set_max_replicas(3);
    assert_eq!(mock.schedule(), None);
    mock.set_max_replicas(1);
    assert!(mock.schedule().is_some());
}

#[test]
fn test_replicas_3_3c() {
    let mut mock = Mock::new(3);
    for (store, regions) in [(1, 16), (2, 15), (3, 14)] {
        mock.add_region_store(store, regions);
    }
    let region = mock.add_leader_region(1, &[2, 1, 3]);
    // Store 1 holds most, but there is no store that could take its peer.
    assert_eq!(mock.schedule(), None);

    mock.add_region_store(4, 14);
    assert_eq!(mock.schedule(), None, "two regions of difference are not enough");
    mock.update_region_count(4, 13);
    check_transfer_peer(mock.schedule(), 1, 4);
    mock.add_region_store(5, 10);
    check_transfer_peer(mock.schedule(), 1, 5);
    mock.add_region_store(6, 2);
    check_transfer_peer(mock.schedule(), 1, 6);

    // Stores that are down neither give nor take.
    mock.set_store_down(6, std::slice::from_ref(&region));
    check_transfer_peer(mock.schedule(), 1, 5);
    mock.set_store_down(5, std::slice::from_ref(&region));
    check_transfer_peer(mock.schedule(), 1, 4);
    mock.set_store_down(4, &[region]);
    assert_eq!(mock.schedule(), None);
}

#[test]
fn test_replicas_5_3c() {
    let mut mock = Mock::new(5);
    for (store, regions) in [(1, 4), (2, 5), (3, 6), (4, 7), (5, 28)] {
        mock.add_region_store(store, regions);
    }
    mock.add_leader_region(1, &[1, 2, 3, 4, 5]);
    assert_eq!(mock.schedule(), None);

    mock.add_region_store(6, 1);
    check_transfer_peer(mock.schedule(), 5, 6);
    mock.add_region_store(7, 5);
    check_transfer_peer(mock.schedule(), 5, 6);

    // Another store holds most now, and its peer goes.
    mock.update_region_count(1, 33);
    check_transfer_peer_with_leader_transfer(mock.schedule(), 1, 6);
    mock.update_region_count(1, 4);
    mock.update_region_count(2, 33);
    check_transfer_peer(mock.schedule(), 2, 6);
}

#[test]
fn test_replace_pending_region_3c() {
    let mut mock = Mock::new(3);
    for (store, regions) in [(1, 16), (2, 7), (3, 15), (4, 10)] {
        mock.add_region_store(store, regions);
    }
    // Store 1 holds most. Of its three regions the one in which its peer lags behind is moved.
    mock.add_leader_region(1, &[1, 2, 3]);
    mock.add_leader_region(2, &[1, 2, 3]);
    let mut region = mock.add_leader_region(3, &[2, 1, 3]);
    region.pending_peers = vec![*region.region.peer_on(StoreId(1)).unwrap()];
    heartbeat(&mut mock.scheduler, &region);
    for _ in 0..10 {
        let operator = mock.schedule();
        assert_eq!(operator.as_ref().unwrap().region, RegionId(3));
        check_transfer_peer(operator, 1, 4);
    }
}
