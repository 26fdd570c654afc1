//! Which belief wins, and what is asked when there is none.

use types::{PeerId, RegionEpoch};

use super::*;

/// Region `id` with range `start..end` at `version`, its peers on stores 1, 2, 3 (peer ids are 10 times region + store).
fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    let peer = |store: u64| Peer {
        id: PeerId(id * 10 + store),
        store_id: StoreId(store),
        role: PeerRole::Voter,
    };
    Region {
        id: RegionId(id),
        range: KeyRange::new(start, end),
        epoch: RegionEpoch { conf_ver: 1, version },
        peers: [1, 2, 3].map(peer).into(),
    }
}

fn cache(regions: impl IntoIterator<Item = Region>) -> RegionCache {
    let mut cache = RegionCache::new();
    for store in 1..=3 {
        cache.learn(Route::Store { store: StoreId(store), address: format!("s{store}:1") });
    }
    for region in regions {
        assert!(cache.insert(region, Some(StoreId(1))));
    }
    cache
}

/// Region and store of a key, or the question.
fn find(cache: &RegionCache, key: &str) -> String {
    show(cache.locate(key.as_bytes()))
}

fn find_before(cache: &RegionCache, end: &str) -> String {
    show(cache.locate_before(end.as_bytes()))
}

fn show(located: Located) -> String {
    match located {
        Located::At(location) => {
            let target = location.target;
            format!("region {} on {}", target.context.region_id, target.address)
        }
        Located::Ask(Question::RegionOf(key)) if key.len() > 100 => "region of the end?".to_owned(),
        Located::Ask(Question::RegionOf(key)) => {
            format!("region of {}?", types::key::display(&key))
        }
        Located::Ask(Question::RegionBefore(key)) => {
            format!("region before {}?", types::key::display(&key))
        }
        Located::Ask(Question::Store(store)) => format!("store {store}?"),
    }
}

#[test]
fn keys_are_found_between_the_bounds() {
    let cache = cache([region(1, "", "b", 1), region(2, "b", "d", 1), region(4, "x", "", 1)]);
    assert_eq!(find(&cache, ""), "region 1 on s1:1");
    assert_eq!(find(&cache, "azzz"), "region 1 on s1:1");
    assert_eq!(find(&cache, "b"), "region 2 on s1:1");
    assert_eq!(find(&cache, "d"), "region of d?");
    assert_eq!(find(&cache, "zz"), "region 4 on s1:1");
}

#[test]
fn the_region_before_a_bound_is_found_or_asked_for() {
    let cache = cache([region(1, "", "b", 1), region(2, "b", "d", 1), region(5, "m", "p", 1)]);
    assert_eq!(find_before(&cache, "b"), "region 1 on s1:1");
    assert_eq!(find_before(&cache, "c"), "region 2 on s1:1");
    assert_eq!(find_before(&cache, "d"), "region 2 on s1:1");
    // Somewhere inside of an unknown region; the answer tells whether it is its first key.
    assert_eq!(find_before(&cache, "g"), "region of g?");
    assert_eq!(find_before(&cache, "m"), "region before m?");
    assert_eq!(find_before(&cache, ""), "region of the end?");
    assert_eq!(find_before(&RegionCache::new(), ""), "region of the end?");
}

#[test]
fn newer_regions_throw_out_what_they_overlap() {
    let mut cache = cache([region(1, "", "m", 1), region(2, "m", "", 1)]);
    // 1 splits at "f": 3 takes the right half.
    assert!(cache.insert(region(3, "f", "m", 2), None));
    assert_eq!(
        find(&cache, "a"),
        "region of a?",
        "the old left half is older than what is known now"
    );
    assert!(cache.insert(region(1, "", "f", 2), None));
    assert_eq!(
        (find(&cache, "a").as_str(), find(&cache, "g").as_str()),
        ("region 1 on s1:1", "region 3 on s1:1")
    );
    // 2 merges everything.
    assert!(cache.insert(region(2, "", "", 3), None));
    assert_eq!(cache.len(), 1);
    assert_eq!(find(&cache, "a"), "region 2 on s1:1");
}

#[test]
fn older_regions_are_refused() {
    let mut cache = cache([region(3, "f", "m", 2)]);
    assert!(
        !cache.insert(region(1, "", "m", 1), None),
        "a scheduler that has not heard of the split"
    );
    assert_eq!(find(&cache, "g"), "region 3 on s1:1");
    let mut fewer = region(3, "f", "m", 2);
    fewer.epoch.conf_ver = 5;
    fewer.peers.pop();
    assert!(cache.insert(fewer, None));
    assert!(!cache.insert(region(3, "f", "m", 2), None), "an older membership");
}

#[test]
fn a_region_that_moved_leaves_nothing_behind() {
    let mut cache = cache([region(1, "", "m", 1)]);
    assert!(cache.insert(region(1, "f", "m", 2), None));
    assert_eq!(find(&cache, "a"), "region of a?");
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_region_that_nobody_may_lead_is_refused() {
    let mut cache = cache([]);
    let mut learners = region(1, "", "", 1);
    learners.peers.iter_mut().for_each(|peer| peer.role = PeerRole::Learner);
    assert!(!cache.insert(learners, Some(StoreId(1))));
    assert!(cache.is_empty());
}

#[test]
fn a_hint_moves_the_leader() {
    let mut cache = cache([region(1, "", "", 1)]);
    let leader = Peer { id: PeerId(13), store_id: StoreId(3), role: PeerRole::Voter };
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(1), Some(&leader)), Obstacle::Route);
    assert_eq!(find(&cache, "a"), "region 1 on s3:1");
    // A late answer of a store that is not believed any more changes nothing.
    let other = Peer { id: PeerId(12), store_id: StoreId(2), role: PeerRole::Voter };
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(1), Some(&other)), Obstacle::Route);
    assert_eq!(find(&cache, "a"), "region 1 on s3:1");
    // A leader that is no member: the region has changed.
    let stranger = Peer { id: PeerId(99), store_id: StoreId(9), role: PeerRole::Voter };
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(3), Some(&stranger)), Obstacle::Route);
    assert_eq!(find(&cache, "a"), "region of a?");
}

#[test]
fn without_a_hint_every_peer_gets_a_turn_and_then_the_scheduler() {
    let mut cache = cache([region(1, "", "", 1)]);
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(1), None), Obstacle::NoLeader);
    assert_eq!(find(&cache, "a"), "region 1 on s2:1");
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(2), None), Obstacle::NoLeader);
    assert_eq!(find(&cache, "a"), "region 1 on s3:1");
    assert_eq!(cache.on_not_leader(RegionId(1), StoreId(3), None), Obstacle::NoLeader);
    assert_eq!(find(&cache, "a"), "region of a?");
}

#[test]
fn learners_get_no_turn() {
    let mut learner = region(1, "", "", 1);
    learner.peers[1].role = PeerRole::Learner;
    let mut cache = cache([learner]);
    cache.on_not_leader(RegionId(1), StoreId(1), None);
    assert_eq!(find(&cache, "a"), "region 1 on s3:1");
}

#[test]
fn a_dead_store_is_left_and_its_address_asked_again() {
    let mut cache = cache([region(1, "", "", 1)]);
    cache.on_store_failure(RegionId(1), StoreId(1));
    assert_eq!(find(&cache, "a"), "region 1 on s2:1");
    cache.on_store_failure(RegionId(1), StoreId(1));
    assert_eq!(find(&cache, "a"), "region 1 on s2:1", "the second report of the same failure");
    cache.confirm(RegionId(1), StoreId(2));
    cache.on_store_failure(RegionId(1), StoreId(2));
    cache.on_store_failure(RegionId(1), StoreId(3));
    assert_eq!(find(&cache, "a"), "store 1?");
}

#[test]
fn a_store_that_is_gone_loses_its_regions() {
    let mut cache = cache([region(1, "", "m", 1), region(2, "m", "", 1)]);
    assert!(!cache.learn(Route::NoStore(StoreId(1))));
    assert_eq!(
        (find(&cache, "a").as_str(), find(&cache, "z").as_str()),
        ("region 1 on s2:1", "region 2 on s2:1")
    );
}

#[test]
fn the_regions_in_an_epoch_error_are_believed() {
    let mut cache = cache([region(1, "", "", 1)]);
    cache.on_epoch_not_match(
        RegionId(1),
        StoreId(2),
        &[region(1, "", "m", 2), region(7, "m", "", 2)],
    );
    assert_eq!(
        (find(&cache, "a").as_str(), find(&cache, "z").as_str()),
        ("region 1 on s2:1", "region 7 on s2:1")
    );
    // Nothing new in it: the store is behind, or the route is. Ask.
    cache.on_epoch_not_match(RegionId(1), StoreId(2), &[region(1, "", "", 1)]);
    assert_eq!(find(&cache, "a"), "region of a?");
    cache.on_epoch_not_match(RegionId(7), StoreId(2), &[]);
    assert_eq!(find(&cache, "z"), "region of z?");
}

#[test]
fn news_without_a_leader_keep_the_old_belief() {
    let mut cache = cache([region(1, "", "", 1)]);
    let leader = Peer { id: PeerId(12), store_id: StoreId(2), role: PeerRole::Voter };
    cache.on_not_leader(RegionId(1), StoreId(1), Some(&leader));
    assert!(cache.insert(region(1, "", "", 1), None));
    assert_eq!(find(&cache, "a"), "region 1 on s2:1");
}

#[test]
fn regions_never_overlap_whatever_comes_in() {
    let mut random = 42;
    let mut next = |n: u64| crate::backoff::splitmix64(&mut random) % n;
    let bounds = ["", "b", "d", "f", "h", "k", "m", ""];
    let mut cache = cache([]);
    for _ in 0..5_000 {
        let from = next(7) as usize;
        let to = from + 1 + next((7 - from) as u64) as usize;
        cache.insert(
            region(1 + next(9), bounds[from], bounds[to], 1 + next(50)),
            Some(StoreId(1 + next(4))),
        );
        if next(10) == 0 {
            cache.remove(RegionId(1 + next(9)));
        }
        if next(500) == 0 {
            cache = self::cache([]); // versions only grow; start over before everything is refused
        }
        let entries: Vec<&Region> = cache.regions.values().map(|entry| &entry.region).collect();
        for pair in entries.windows(2) {
            assert!(
                !pair[0].range.end.is_empty() && pair[0].range.end <= pair[1].range.start,
                "{entries:?}"
            );
        }
        assert_eq!(cache.starts.len(), cache.regions.len());
        for (id, start) in &cache.starts {
            assert_eq!(cache.regions[start].region.id, *id);
        }
    }
}
