//! What the tests of stores in a box do again and again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses some of them")]

use raftstore::{
    StoreConfig,
    store::RequestKind,
    testing::{Cluster, Fate},
};
use types::{Peer, PeerId, PeerRole, Region, StoreId};

/// Settings that compact logs soon.
pub(crate) fn config() -> StoreConfig {
    StoreConfig {
        log_gc_ticks: 5,
        log_gc_entries: 20,
        log_gc_spare: 10,
        ..StoreConfig::new(StoreId(0))
    }
}

/// Puts a pair, trying again until it is there.
pub(crate) fn must_put(cluster: &mut Cluster, key: &str, value: &str) {
    let mut token = None;
    cluster.until(200, "a put", |cluster| {
        if let Some(token) = token
            && let Some(fate) = cluster.fates.get(&token)
        {
            if matches!(fate, Fate::Written(_)) {
                return true;
            }
        } else if token.is_some() {
            return false;
        }
        token = cluster
            .leader_of(key.as_bytes())
            .map(|(leader, region)| cluster.put(leader, &region, key, value));
        false
    });
}

/// Asks for something of the region with `key` until it is done.
pub(crate) fn must(
    cluster: &mut Cluster,
    key: &str,
    mut kind: impl FnMut(&mut Cluster, &Region) -> RequestKind,
) -> Vec<Region> {
    let mut token = None;
    let mut changed = Vec::new();
    cluster.until(300, "a change of the region", |cluster| {
        match token.and_then(|token| cluster.fates.get(&token)) {
            Some(Fate::Changed(regions)) => {
                changed = regions.clone();
                return true;
            }
            None if token.is_some() => return false,
            _ => {}
        }
        if let Some((leader, region)) = cluster.leader_of(key.as_bytes()) {
            let kind = kind(cluster, &region);
            token = Some(cluster.request(leader, &region, kind));
        }
        false
    });
    changed
}

/// Reads a key at whoever leads its region.
pub(crate) fn must_get(cluster: &mut Cluster, key: &str) -> Option<String> {
    let mut token = None;
    let mut found = None;
    cluster.until(200, "a get", |cluster| {
        match token.and_then(|token| cluster.fates.get(&token)) {
            Some(Fate::Read(value)) => {
                found = value.as_ref().map(|value| String::from_utf8(value.to_vec()).unwrap());
                return true;
            }
            None if token.is_some() => return false,
            _ => {}
        }
        token = cluster
            .leader_of(key.as_bytes())
            .map(|(leader, region)| cluster.get(leader, &region, key, false));
        false
    });
    found
}

/// A member of a region.
pub(crate) fn member(id: u64, store: u64, role: PeerRole) -> Peer {
    Peer { id: PeerId(id), store_id: StoreId(store), role }
}

/// Waits until every member of every region has the same pairs.
pub(crate) fn converge(cluster: &mut Cluster) {
    cluster.until(400, "all replicas are equal", |cluster| {
        let regions: Vec<Region> = cluster
            .nodes
            .values()
            .flat_map(|node| node.store.regions().cloned().collect::<Vec<_>>())
            .collect();
        regions.iter().all(|region| {
            region.peers.iter().all(|peer| {
                let Some(node) = cluster.nodes.get(&peer.store_id) else { return false };
                let leader = cluster.leader_of(&region.range.start);
                let Some((leader, _)) = leader else { return false };
                node.store.regions().any(|other| other == region)
                    && node.store.applied(region.id)
                        == cluster.nodes[&leader].store.applied(region.id)
                    && cluster.pairs(peer.store_id, region) == cluster.pairs(leader, region)
            })
        })
    });
}
