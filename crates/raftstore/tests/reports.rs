//! What the scheduler is told of regions, and regions that are cut because they have grown.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{config, converge, member, must, must_put};
use raftstore::{
    RegionReport, StoreConfig,
    split_check::SplitLimits,
    store::RequestKind,
    testing::{Cluster, Fate},
};
use types::{PeerRole, RegionId, StoreId};

fn last(cluster: &Cluster) -> &RegionReport {
    &cluster.reports[&RegionId(1)]
}

fn ticks(cluster: &mut Cluster, count: u32) {
    let mut left = count;
    cluster.until(count, "ticks", |_| {
        left -= 1;
        left == 0
    });
}

#[test]
fn a_leader_reports_its_region_when_it_begins_and_then_now_and_then() {
    let mut cluster = Cluster::new(1, 3, 3, StoreConfig { report_ticks: 50, ..config() });
    must_put(&mut cluster, "a", "1");
    ticks(&mut cluster, 5);
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let report = last(&cluster);
    assert_eq!((&report.region, report.leader.store_id), (&region, leader));
    assert_eq!((report.pending_peers.len(), report.down_peers.len()), (0, 0));
    let before = cluster.reported;
    ticks(&mut cluster, 50);
    assert_eq!(cluster.reported, before + 1);

    // Another one leads.
    let to = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    cluster.request(leader, &region, RequestKind::TransferLeader { to: to.id });
    let term = last(&cluster).term;
    cluster.until(20, "the new leader reports", |cluster| last(cluster).leader == to);
    assert!(term < last(&cluster).term);
}

#[test]
fn members_that_lack_much_or_are_silent_are_reported_at_once() {
    let config = StoreConfig { down_ticks: 30, report_ticks: 100_000, ..config() };
    let mut cluster = Cluster::new(2, 4, 3, config);
    must_put(&mut cluster, "a", "1");
    // A learner on a store that can't be reached has nothing.
    cluster.cut.insert(StoreId(4));
    let learner = member(44, 4, PeerRole::Learner);
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
        changes: vec![(Some(PeerRole::Learner), learner)],
    });
    cluster.until(3, "it is pending", |cluster| last(cluster).pending_peers == [learner]);
    assert_eq!(last(&cluster).region.peers.len(), 4);
    cluster.until(40, "it is down", |cluster| {
        last(cluster).down_peers.iter().any(|(peer, ticks)| *peer == learner && 30 <= *ticks)
    });
    cluster.cut.clear();
    cluster.until(50, "it has caught up", |cluster| {
        last(cluster).pending_peers.is_empty() && last(cluster).down_peers.is_empty()
    });

    // A follower whose entries are compacted away.
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let away = *region
        .peers
        .iter()
        .find(|peer| peer.store_id != leader && peer.role == PeerRole::Voter)
        .unwrap();
    cluster.cut.insert(away.store_id);
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number:03}"), "v");
    }
    cluster.until(100, "it lacks what is gone", |cluster| last(cluster).pending_peers == [away]);
    cluster.cut.clear();
    cluster.until(100, "it has caught up", |cluster| last(cluster).pending_peers.is_empty());
    converge(&mut cluster);
}

/// Tiny regions: the limits of a region in bytes, and of its pieces.
fn tiny(max_bytes: u64, split_bytes: u64) -> StoreConfig {
    let split = SplitLimits { max_bytes, split_bytes, ..SplitLimits::default() };
    StoreConfig { split, split_check_ticks: 10, ..config() }
}

#[test]
fn a_region_that_grows_is_split_and_the_last_one_too() {
    let mut cluster = Cluster::new(3, 3, 3, tiny(300, 200));
    cluster.splits = true;
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number:03}"), "123456");
    }
    ticks(&mut cluster, 60);
    converge(&mut cluster);
    let regions: Vec<_> =
        cluster.nodes[&StoreId(1)].store.regions().map(|region| region.range.clone()).collect();
    assert!(5 <= regions.len() && regions.len() <= 8, "{regions:?}");
    let reported: u64 =
        cluster.reports.values().map(|report| report.region.range.start.len() as u64).sum();
    assert!(0 < reported, "regions are reported after a split");
    assert_eq!(cluster.reports.len(), regions.len());
    let told: usize = cluster.was_split.iter().map(|regions| regions.len() - 1).sum();
    assert_eq!(told, regions.len() - 1);
    // The sizes are known to the scheduler with the next report.
    ticks(&mut cluster, 650);
    let size: u64 = cluster.reports.values().map(|report| report.approximate_size).sum();
    let keys: u64 = cluster.reports.values().map(|report| report.approximate_keys).sum();
    assert_eq!((size, keys), (1000, 100));
}

#[test]
fn a_region_is_cut_into_many_at_once() {
    let mut cluster = Cluster::new(4, 3, 3, tiny(300, 200));
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number:03}"), "123456");
    }
    cluster.until(30, "the scheduler is asked", |cluster| !cluster.asked.is_empty());
    ticks(&mut cluster, 10);
    let asked = cluster.asked.len();
    let (region, keys) = cluster.asked[asked - 1].clone();
    assert_eq!((keys.len(), &keys[0][..]), (4, &b"k020"[..]));
    // It had no ids: it is asked again.
    ticks(&mut cluster, 10);
    assert_eq!(cluster.asked[asked], (region, keys));
    cluster.splits = true;
    cluster.until(30, "it is split", |cluster| {
        cluster.nodes[&StoreId(1)].store.regions().count() == 5
    });
    assert_eq!(cluster.was_split.len(), 1);
}

#[test]
fn a_region_is_halved_when_the_scheduler_wants_it() {
    let mut cluster = Cluster::new(5, 3, 3, config());
    for number in 0..40 {
        must_put(&mut cluster, &format!("k{number:03}"), "123456");
    }
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let follower = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let token = cluster.request(follower, &region, RequestKind::SplitHalf);
    assert!(matches!(cluster.fates[&token], Fate::Error(_)));
    let token = cluster.request(leader, &region, RequestKind::SplitHalf);
    assert_eq!(cluster.fates[&token], Fate::Begun);
    cluster.until(5, "ids are wanted", |cluster| !cluster.asked.is_empty());
    assert_eq!(cluster.asked, [(region, vec!["k020".into()])]);
    ticks(&mut cluster, 120);
    assert_eq!(cluster.asked.len(), 1, "nobody wants more");
}
