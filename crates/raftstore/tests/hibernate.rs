//! Regions that sleep: they cost nothing, wake when they have to, and nobody reads what is old.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{config, converge, must, must_get, must_put};
use raft::ReadMode;
use raftstore::{
    StoreConfig,
    store::RequestKind,
    testing::{Cluster, Fate},
};
use types::{Bytes, Region, RegionId, StoreId};

fn ticks(cluster: &mut Cluster, count: u32) {
    let mut left = count;
    cluster.until(count, "ticks", |_| {
        left -= 1;
        left == 0
    });
}

/// A cluster whose one region sleeps everywhere.
fn asleep(seed: u64, config: StoreConfig) -> (Cluster, StoreId, Region) {
    let mut cluster = Cluster::new(seed, 3, 3, config);
    must_put(&mut cluster, "a", "1");
    all_sleep(&mut cluster);
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    (cluster, leader, region)
}

fn all_sleep(cluster: &mut Cluster) {
    cluster.until(80, "all sleep", |cluster| {
        let sleeps =
            |node: &raftstore::testing::Node| node.store.sleeping() == node.store.regions().count();
        cluster.nodes.values().all(sleeps)
    });
}

#[test]
fn an_idle_region_sleeps_and_wakes_when_something_is_wanted() {
    let (mut cluster, leader, region) = asleep(1, config());
    let term = cluster.nodes[&leader].store.raft_status(region.id).unwrap().term;
    let before = cluster.sent;
    ticks(&mut cluster, 100);
    // Six pings in two ticks, and nothing else.
    assert_eq!(cluster.sent - before, 300);
    must_put(&mut cluster, "b", "2");
    assert_eq!(must_get(&mut cluster, "a").as_deref(), Some("1"));
    assert!(cluster.nodes.values().all(|node| node.store.sleeping() == 0));
    all_sleep(&mut cluster);
    let follower = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let token = cluster.get(follower, &region, "b", true);
    cluster.until(20, "a follower reads", |cluster| cluster.fates.contains_key(&token));
    assert_eq!(cluster.fates[&token], Fate::Read(Some(Bytes::from_static(b"2"))));
    // Who asks the wrong store wakes nobody.
    all_sleep(&mut cluster);
    let token = cluster.put(follower, &region, "c", "3");
    assert!(matches!(cluster.fates[&token], Fate::Error(_)));
    assert!(cluster.nodes.values().all(|node| node.store.sleeping() == 1));
    let status = cluster.nodes[&leader].store.raft_status(region.id).unwrap();
    assert_eq!(status.term, term, "nobody had to be elected");
}

#[test]
fn many_sleeping_regions_cost_no_more_than_one() {
    let mut cluster = Cluster::new(2, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let keys: Vec<String> = (0..50).map(|number| format!("k{number:02}")).collect();
    must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: keys.iter().map(|key| cluster.split_child(region, key)).collect(),
    });
    converge(&mut cluster);
    all_sleep(&mut cluster);
    let before = cluster.sent;
    ticks(&mut cluster, 100);
    assert_eq!(cluster.sent - before, 300);
}

#[test]
fn the_regions_of_a_store_that_is_silent_wake_and_elect() {
    for seed in 0..10 {
        let (mut cluster, leader, region) = asleep(seed, config());
        cluster.crash(leader);
        // 8 ticks of silence are an election timeout; the next 8 tell who is first, mostly.
        cluster.until(60, "another one leads", |cluster| {
            cluster.leader_of(b"a").is_some_and(|(other, _)| other != leader)
        });
        must_put(&mut cluster, "b", "2");
        cluster.start(leader);
        converge(&mut cluster);
        assert_eq!(cluster.leader_of(b"a").unwrap().1, region);
    }
}

#[test]
fn who_was_away_while_all_slept_catches_up() {
    let (mut cluster, leader, _) = asleep(3, config());
    let away = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.crash(away);
    ticks(&mut cluster, 50);
    cluster.start(away);
    must_put(&mut cluster, "b", "2");
    converge(&mut cluster);
    all_sleep(&mut cluster);
    // Nor does a region sleep that has a member that does not answer.
    cluster.cut.insert(away);
    must_put(&mut cluster, "c", "3");
    ticks(&mut cluster, 100);
    assert_eq!(cluster.nodes[&leader].store.sleeping(), 0);
    cluster.cut.clear();
    converge(&mut cluster);
}

/// A leader that sleeps has no lease when it wakes, though it has counted no tick: another one may lead.
#[test]
fn a_leader_that_wakes_asks_before_it_reads() {
    for seed in 0..10 {
        let mut config = config();
        config.core.read_mode = ReadMode::Lease { ticks: 7, drift_percent: 5 };
        let (mut cluster, leader, region) = asleep(seed, config);
        let term =
            |cluster: &Cluster| cluster.nodes[&leader].store.raft_status(RegionId(1)).unwrap().term;
        let old = term(&cluster);
        cluster.cut.insert(leader);
        let others = |cluster: &Cluster| {
            let leads = |node: &raftstore::testing::Node| {
                node.store.raft_status(RegionId(1)).unwrap().role == raft::RoleKind::Leader
            };
            cluster.nodes.iter().find(|(id, node)| **id != leader && leads(node)).map(|(id, _)| *id)
        };
        cluster.until(40, "another one leads", |cluster| others(cluster).is_some());
        let other = others(&cluster).unwrap();
        let token = cluster.put(other, &region, "a", "2");
        cluster.until(20, "it is written", |cluster| cluster.fates.contains_key(&token));
        assert!(matches!(cluster.fates[&token], Fate::Written(_)));
        assert_eq!(term(&cluster), old, "it has heard nothing");
        assert_eq!(cluster.nodes[&leader].store.sleeping(), 1);
        let token = cluster.get(leader, &region, "a", false);
        assert!(!matches!(cluster.fates.get(&token), Some(Fate::Read(_))), "seed {seed}");
        ticks(&mut cluster, 40);
        assert!(!matches!(cluster.fates.get(&token), Some(Fate::Read(_))), "seed {seed}");
        cluster.cut.clear();
        converge(&mut cluster);
    }
}

/// A follower that sleeps under a leader that is none any more finds out.
#[test]
fn who_sleeps_looks_now_and_then() {
    let (mut cluster, leader, region) = asleep(4, StoreConfig { doze_ticks: 200, ..config() });
    let term = cluster.nodes[&leader].store.raft_status(region.id).unwrap().term;
    ticks(&mut cluster, 400);
    all_sleep(&mut cluster);
    assert_eq!(cluster.nodes[&leader].store.raft_status(region.id).unwrap().term, term);
    assert!(1200 + 20 < cluster.sent, "{} messages: nobody woke", cluster.sent);
}
