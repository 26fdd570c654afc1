//! The files of snapshots: how many at a time, and when they go.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{config, converge, must, must_put};
use raftstore::{StoreConfig, store::RequestKind, testing::Cluster};
use types::{RegionId, StoreId};

/// A cluster of five regions on two stores; a follower lacks entries of all of them that are compacted.
fn far_behind(seed: u64, config: StoreConfig) -> (Cluster, StoreId) {
    let mut cluster = Cluster::new(seed, 3, 3, config);
    for (from, at) in [("a", "c"), ("c", "e"), ("e", "g"), ("g", "i")] {
        must_put(&mut cluster, from, "1");
        must(&mut cluster, from, |cluster, region| RequestKind::Split {
            children: vec![cluster.split_child(region, at)],
        });
    }
    converge(&mut cluster);
    let (leader, _) = cluster.leader_of(b"a").unwrap();
    let away = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.cut.insert(away);
    for number in 0..40 {
        for prefix in ["a", "c", "e", "g", "i"] {
            must_put(&mut cluster, &format!("{prefix}{number}"), "v");
        }
    }
    cluster.until(100, "logs are compacted", |cluster| {
        let bounds = |node: &raftstore::testing::Node| {
            let regions = node.store.regions().map(|region| region.id.0).collect::<Vec<_>>();
            regions.iter().all(|region| 20 < node.log.bounds(*region).unwrap().base_index)
        };
        cluster.nodes.iter().filter(|(id, _)| **id != away).all(|(_, node)| bounds(node))
    });
    cluster.cut.clear();
    (cluster, away)
}

#[test]
fn few_snapshots_are_made_sent_and_taken_at_once_and_all_files_go() {
    let config = StoreConfig {
        snapshots_making_max: 1,
        snapshots_sending_max: 1,
        snapshots_receiving_max: 1,
        snapshot_ticks: 20,
        ..config()
    };
    let (mut cluster, _) = far_behind(1, config);
    converge(&mut cluster);
    for node in cluster.nodes.values() {
        assert!(node.most_makes <= 1, "{} at once", node.most_makes);
    }
    cluster.until(100, "nobody needs the files", |cluster| cluster.snapshot_files().is_empty());
}

/// What a store remembers of snapshots it has in memory: after a crash nobody knows of the files.
#[test]
fn a_start_removes_what_is_left() {
    let (mut cluster, away) = far_behind(2, config());
    cluster.until(100, "a snapshot was made", |cluster| !cluster.snapshot_files().is_empty());
    converge(&mut cluster);
    for id in 1..=3 {
        cluster.crash(StoreId(id));
    }
    for id in 1..=3 {
        cluster.start(StoreId(id));
        assert!(cluster.snapshot_files().iter().all(|(store, _)| *store != StoreId(id)));
    }
    converge(&mut cluster);
    assert!(0 < cluster.nodes[&away].store.regions().count());
}

#[test]
fn one_that_could_not_be_made_is_tried_again_later() {
    let (mut cluster, away) = far_behind(3, StoreConfig { snapshot_ticks: 20, ..config() });
    cluster.makes_fail = true;
    let mut ticks = 0;
    cluster.until(200, "it has caught up", |cluster| {
        ticks += 1;
        cluster.makes_fail = ticks < 10;
        let applied = |id: StoreId| cluster.nodes[&id].store.applied(RegionId(1));
        let (leader, _) = cluster.leader_of(b"a").unwrap();
        applied(away) == applied(leader)
    });
    assert!(20 <= ticks, "{ticks} ticks");
    converge(&mut cluster);
}
