//! Stores in a box: what a cluster has to be able to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{config, converge, member, must, must_get, must_put};
use raftstore::{
    SplitChild, StoreConfig, StoreMessage,
    message::MessageBody,
    store::{Input, RequestKind},
    testing::{Cluster, Fate, command},
};
use types::{Peer, PeerId, PeerRole, Region, RegionError, RegionId, StoreId};

#[test]
fn a_store_alone_serves() {
    let mut cluster = Cluster::new(1, 1, 1, config());
    must_put(&mut cluster, "a", "1");
    assert_eq!(must_get(&mut cluster, "a").as_deref(), Some("1"));
    assert_eq!(must_get(&mut cluster, "b"), None);
    cluster.crash(StoreId(1));
    cluster.start(StoreId(1));
    assert_eq!(must_get(&mut cluster, "a").as_deref(), Some("1"));
}

#[test]
fn three_stores_agree_and_survive_the_loss_of_one() {
    let mut cluster = Cluster::new(2, 3, 3, config());
    for number in 0..50 {
        must_put(&mut cluster, &format!("k{number}"), "v");
    }
    let (leader, _) = cluster.leader_of(b"k1").unwrap();
    cluster.crash(leader);
    must_put(&mut cluster, "after", "v");
    cluster.start(leader);
    converge(&mut cluster);
    assert_eq!(must_get(&mut cluster, "k49").as_deref(), Some("v"));
}

#[test]
fn who_does_not_lead_says_who_does() {
    let mut cluster = Cluster::new(3, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let other = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let token = cluster.put(other, &region, "a", "2");
    let Fate::Error(RegionError::NotLeader { leader: hint, .. }) = &cluster.fates[&token] else {
        panic!("{:?}", cluster.fates[&token]);
    };
    assert_eq!(hint.map(|peer| peer.store_id), Some(leader));
    let token = cluster.put(leader, &Region { id: RegionId(9), ..region.clone() }, "a", "2");
    assert!(matches!(cluster.fates[&token], Fate::Error(RegionError::RegionNotFound { .. })));
    // A follower answers when it has asked.
    let token = cluster.get(other, &region, "a", true);
    cluster.until(20, "a follower reads", |cluster| cluster.fates.contains_key(&token));
    assert_eq!(cluster.fates[&token], Fate::Read(Some("1".into())));
}

#[test]
fn a_follower_that_was_away_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::new(4, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, _) = cluster.leader_of(b"a").unwrap();
    let away = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.cut.insert(away);
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number:03}"), "v");
    }
    cluster.until(100, "the log is compacted", |cluster| {
        let (leader, _) = cluster.leader_of(b"a").unwrap();
        cluster.nodes[&leader].store.raft_status(RegionId(1)).unwrap().first_index > 60
    });
    cluster.cut.clear();
    converge(&mut cluster);
    cluster.crash(away);
    cluster.start(away);
    converge(&mut cluster);
}

#[test]
fn a_region_is_split_and_both_parts_serve() {
    let mut cluster = Cluster::new(5, 3, 3, config());
    for key in ["a", "m", "z"] {
        must_put(&mut cluster, key, "1");
    }
    let (_, old) = cluster.leader_of(b"a").unwrap();
    let regions = must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: vec![cluster.split_child(region, "m")],
    });
    assert_eq!(regions.len(), 2);
    assert_eq!(regions[0].range.end, regions[1].range.start);
    assert_eq!((regions[0].epoch.version, regions[1].epoch.version), (2, 2));
    must_put(&mut cluster, "b", "2");
    must_put(&mut cluster, "n", "2");
    for (key, value) in [("a", "1"), ("b", "2"), ("m", "1"), ("n", "2"), ("z", "1")] {
        assert_eq!(must_get(&mut cluster, key).as_deref(), Some(value), "{key}");
    }
    // Who believes in the old region is told of both.
    let (leader, _) = cluster.leader_of(b"a").unwrap();
    let token = cluster.put(leader, &old, "z", "3");
    let Fate::Error(RegionError::EpochNotMatch { regions }) = &cluster.fates[&token] else {
        panic!("{:?}", cluster.fates[&token]);
    };
    assert_eq!(regions.len(), 2);
    for id in 1..=3 {
        cluster.crash(StoreId(id));
        cluster.start(StoreId(id));
    }
    assert_eq!(must_get(&mut cluster, "n").as_deref(), Some("2"));
    converge(&mut cluster);
}

#[test]
fn members_come_and_go() {
    let mut cluster = Cluster::new(6, 4, 3, config());
    for number in 0..30 {
        must_put(&mut cluster, &format!("k{number}"), "v");
    }
    let add = |role| {
        move |_: &mut Cluster, _: &Region| RequestKind::ChangeMembers {
            changes: vec![(Some(role), member(44, 4, role))],
        }
    };
    must(&mut cluster, "a", add(PeerRole::Learner));
    converge(&mut cluster);
    must(&mut cluster, "a", add(PeerRole::Voter));
    converge(&mut cluster);
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    assert_eq!(region.peers.len(), 4);
    let gone = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, gone)] });
    cluster.until(200, "the removed peer is gone", |cluster| {
        cluster.nodes[&gone.store_id].store.regions().count() == 0
    });
    assert!(cluster.pairs(gone.store_id, &region).is_empty(), "its data are gone");
    must_put(&mut cluster, "after", "v");
    converge(&mut cluster);
    // The store gets a new peer of the region.
    let again = member(55, gone.store_id.0, PeerRole::Voter);
    for _ in 0..2 {
        must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
            changes: vec![(Some(PeerRole::Voter), again)],
        });
        converge(&mut cluster);
    }
    let (_, region) = cluster.leader_of(b"a").unwrap();
    assert!(region.peers.contains(&again), "first a learner, then a voter");
    assert_eq!(cluster.nodes[&gone.store_id].store.regions().count(), 1);
}

#[test]
fn a_leader_that_is_removed_goes_and_another_leads() {
    let mut cluster = Cluster::new(7, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let own = *region.peer_on(leader).unwrap();
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, own)] });
    must_put(&mut cluster, "b", "2");
    cluster.until(200, "the old leader is gone", |cluster| {
        cluster.nodes[&leader].store.regions().count() == 0
    });
    assert_ne!(cluster.leader_of(b"a").unwrap().0, leader);
}

#[test]
fn a_peer_that_missed_its_removal_is_told() {
    let mut cluster = Cluster::new(8, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let gone = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    cluster.cut.insert(gone.store_id);
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, gone)] });
    cluster.cut.clear();
    cluster.until(200, "it has heard", |cluster| {
        cluster.nodes[&gone.store_id].store.regions().count() == 0
    });
}

#[test]
fn who_reaches_no_member_learns_from_the_scheduler_that_it_is_gone() {
    let mut cluster = Cluster::new(8, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, before) = cluster.leader_of(b"a").unwrap();
    let gone = *before.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    cluster.cut.insert(gone.store_id);
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, gone)] });
    cluster.until(200, "the scheduler is asked", |cluster| {
        cluster.looked_up.contains(&(gone.store_id, before.id))
    });
    let (_, after) = cluster.leader_of(b"a").unwrap();
    cluster.region_known(gone.store_id, before.clone());
    assert_eq!(cluster.nodes[&gone.store_id].store.regions().count(), 1, "that says nothing new");
    cluster.region_known(leader, after.clone());
    assert_eq!(cluster.nodes[&leader].store.regions().count(), 1, "a member stays");
    cluster.region_known(gone.store_id, after);
    cluster.until(200, "it is gone", |cluster| {
        cluster.nodes[&gone.store_id].store.regions().count() == 0
    });
    assert!(cluster.pairs(gone.store_id, &before).is_empty(), "its data are gone");
}

#[test]
fn a_peer_without_data_learns_from_the_scheduler_that_it_is_gone() {
    let mut cluster = Cluster::new(8, 4, 3, config());
    must_put(&mut cluster, "a", "1");
    cluster.makes_fail = true;
    let learner = member(44, 4, PeerRole::Learner);
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
        changes: vec![(Some(PeerRole::Learner), learner)],
    });
    let lives =
        |cluster: &Cluster, region| cluster.nodes[&StoreId(4)].store.raft_status(region).is_some();
    let region_id = cluster.leader_of(b"a").unwrap().1.id;
    cluster.until(200, "the learner is there", |cluster| lives(cluster, region_id));
    let (_, with) = cluster.leader_of(b"a").unwrap();
    cluster.cut.insert(StoreId(4));
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, learner)] });
    cluster.until(200, "the scheduler is asked", |cluster| {
        cluster.looked_up.contains(&(StoreId(4), region_id))
    });
    let (_, without) = cluster.leader_of(b"a").unwrap();
    let mut before = with.clone();
    before.peers.pop();
    before.epoch.conf_ver -= 1;
    for old in [before, with] {
        cluster.region_known(StoreId(4), old);
        assert!(lives(&cluster, region_id), "that says nothing new");
    }
    cluster.region_known(StoreId(4), without);
    assert!(!lives(&cluster, region_id));
}

#[test]
fn a_joint_change_replaces_a_member() {
    let mut cluster = Cluster::new(9, 4, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let old = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
        changes: vec![(Some(PeerRole::Learner), member(44, 4, PeerRole::Learner))],
    });
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
        changes: vec![
            (Some(PeerRole::Voter), member(44, 4, PeerRole::Voter)),
            (Some(PeerRole::Learner), old),
        ],
    });
    cluster.until(200, "the joint state is left", |cluster| {
        let (_, region) = cluster.leader_of(b"a").unwrap();
        region.peers.iter().all(|peer| matches!(peer.role, PeerRole::Voter | PeerRole::Learner))
    });
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, old)] });
    must_put(&mut cluster, "b", "2");
    converge(&mut cluster);
    let (_, region) = cluster.leader_of(b"a").unwrap();
    assert_eq!(region.peers.len(), 3);
    assert!(region.peer_on(StoreId(4)).is_some());
}

#[test]
fn changes_that_make_no_sense_are_refused_for_good() {
    let mut cluster = Cluster::new(13, 4, 3, config());
    must_put(&mut cluster, "m", "1");
    let (leader, region) = cluster.leader_of(b"m").unwrap();
    let old = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    let new = member(44, 4, PeerRole::Voter);
    let change = |changes| RequestKind::ChangeMembers { changes };
    let child = cluster.split_child(&region, "m");
    let all = region.peers.iter().map(|peer| (Some(PeerRole::Learner), *peer)).collect();
    for senseless in [
        // A split key at the start, or none; peers that don't match those of the region.
        RequestKind::Split { children: vec![] },
        RequestKind::Split { children: vec![child.clone(), child.clone()] },
        RequestKind::Split { children: vec![SplitChild { peer_ids: vec![], ..child }] },
        // Who was no learner before, a second peer on a store, a voter that goes at once, nobody who votes.
        change(vec![(Some(PeerRole::Voter), new), (Some(PeerRole::Learner), old)]),
        change(vec![(Some(PeerRole::Learner), member(45, 1, PeerRole::Learner))]),
        change(vec![(None, old), (Some(PeerRole::Learner), new)]),
        change(all),
        RequestKind::TransferLeader { to: PeerId(44) },
    ] {
        let what = format!("{senseless:?}");
        let token = cluster.request(leader, &region, senseless);
        let fate = &cluster.fates[&token];
        assert!(matches!(fate, Fate::Error(RegionError::Invalid { .. })), "{what}: {fate:?}");
    }
    // What may make sense later is not: the learner has to catch up.
    must(&mut cluster, "m", |_, _| change(vec![(Some(PeerRole::Voter), new)]));
    let (leader, region) = cluster.leader_of(b"m").unwrap();
    let token = cluster.request(leader, &region, change(vec![(Some(PeerRole::Voter), new)]));
    let fate = cluster.fates.get(&token);
    assert!(!matches!(fate, Some(Fate::Error(RegionError::Invalid { .. }))), "{fate:?}");
}

/// What a peer has acknowledged it has after a crash, also if its store had another peer of the region before.
#[test]
fn who_comes_back_keeps_what_it_has_acknowledged() {
    for seed in 0..30 {
        let mut cluster = Cluster::new(seed, 3, 3, config());
        must_put(&mut cluster, "a", "1");
        let (leader, region) = cluster.leader_of(b"a").unwrap();
        let gone = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
        must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, gone)] });
        cluster.until(200, "the removed peer is gone", |cluster| {
            cluster.nodes[&gone.store_id].store.regions().count() == 0
        });
        let (leader, region) = cluster.leader_of(b"a").unwrap();
        let again = Peer { id: PeerId(55), role: PeerRole::Learner, ..gone };
        let changes = vec![(Some(PeerRole::Learner), again)];
        cluster.request(leader, &region, RequestKind::ChangeMembers { changes });
        let mut matched = 0;
        while matched == 0 {
            cluster.anything(0.0, 0.0);
            let peers = cluster.nodes[&leader].store.raft_status(region.id).unwrap().peers;
            matched = peers.iter().find(|peer| peer.id == 55).map_or(0, |peer| peer.matched);
        }
        cluster.crash(gone.store_id);
        cluster.start(gone.store_id);
        let status = cluster.nodes[&gone.store_id].store.raft_status(region.id);
        let last = status.map(|status| status.last_index);
        assert!(
            Some(matched) <= last,
            "seed {seed}: {matched} was acknowledged, {last:?} is there"
        );
    }
}

/// A store whose log begins after what its engine has, without the snapshot that would say the rest.
#[test]
#[should_panic(expected = "entries are missing")]
fn a_store_whose_engine_has_lost_entries_refuses_to_start() {
    let mut cluster = Cluster::new(10, 1, 1, config());
    must_put(&mut cluster, "a", "1");
    let (_, first) = cluster.leader_of(b"a").unwrap();
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number}"), "v");
    }
    cluster.until(100, "the log is compacted", |cluster| {
        cluster.nodes[&StoreId(1)].store.raft_status(RegionId(1)).unwrap().first_index > 60
    });
    cluster.crash(StoreId(1));
    cluster.lose_engine(StoreId(1), &first);
    cluster.start(StoreId(1));
}

/// Gives a store a heartbeat, as if a leader of the region on another store had sent it.
fn give_heartbeat(cluster: &mut Cluster, region: &Region, to: Peer) {
    let from = *region.peers.iter().find(|peer| peer.store_id != to.store_id).unwrap();
    let body = raft::MessageBody::Heartbeat { commit: 0, round: 1 };
    let message = raft::Message { from: from.id.0, to: to.id.0, term: 90, body };
    let body = MessageBody::Raft { message, range: region.range.clone() };
    let message = StoreMessage { region_id: region.id, from, to, epoch: region.epoch, body };
    let store = &mut cluster.nodes.get_mut(&to.store_id).unwrap().store;
    store.step(Input::Message(Box::new(message))).unwrap();
}

#[test]
fn a_removed_peer_does_not_come_back_and_a_later_one_may() {
    let mut cluster = Cluster::new(11, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let gone = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, gone)] });
    cluster.until(200, "the removed peer is gone", |cluster| {
        cluster.nodes[&gone.store_id].store.regions().count() == 0
    });
    let (_, newer) = cluster.leader_of(b"a").unwrap();
    let lives =
        |cluster: &Cluster| cluster.nodes[&gone.store_id].store.raft_status(region.id).is_some();
    for restarts in [false, true] {
        if restarts {
            cluster.crash(gone.store_id);
            cluster.start(gone.store_id);
        }
        for known in [&region, &newer] {
            give_heartbeat(&mut cluster, known, gone);
            assert!(!lives(&cluster), "restarts: {restarts}");
        }
    }
    give_heartbeat(&mut cluster, &newer, Peer { id: PeerId(77), ..gone });
    assert!(lives(&cluster));
}

#[test]
fn a_region_that_a_split_will_bring_is_not_begun_by_a_message() {
    let mut cluster = Cluster::new(12, 3, 3, config());
    for key in ["a", "m", "z"] {
        must_put(&mut cluster, key, "1");
    }
    converge(&mut cluster);
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let away = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    cluster.cut.insert(away.store_id);
    let regions = must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: vec![cluster.split_child(region, "m")],
    });
    let child = regions[1].clone();
    let own = *child.peer_on(away.store_id).unwrap();
    give_heartbeat(&mut cluster, &child, own);
    let status = cluster.nodes[&away.store_id].store.raft_status(child.id);
    assert!(status.is_none(), "its keys are still those of the old region");
    cluster.cut.clear();
    converge(&mut cluster);
    assert_eq!(cluster.nodes[&away.store_id].store.regions().count(), 2);
}

#[test]
fn a_snapshot_waits_until_nobody_can_come_back_who_had_its_keys() {
    let mut cluster = Cluster::new(17, 3, 3, config());
    let third = StoreId(3);
    must_put(&mut cluster, "a", "1");
    cluster.cut.insert(third);
    let regions = must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: vec![cluster.split_child(region, "m")],
    });
    let child = regions[1].id;
    // So much that only a snapshot brings the new region up to date, while the log still brings the split.
    for number in 0..60 {
        must_put(&mut cluster, &format!("n{number}"), "v");
    }
    cluster.held.insert(third);
    cluster.cut.clear();
    let base = |cluster: &Cluster| {
        cluster.nodes[&third].log.bounds(child.0).map_or(0, |bounds| bounds.base_index)
    };
    cluster.until(200, "the split is applied", |cluster| {
        cluster.nodes[&third].store.regions().any(|region| region.id == child)
    });
    let mut rounds = 0;
    cluster.until(100, "some time passes", |cluster| {
        rounds += 1;
        assert_eq!(base(cluster), 5, "a crash would bring back the region with all keys");
        rounds == 60
    });
    // A power cut takes the split, and the old region comes back with its log.
    cluster.crash(third);
    cluster.start(third);
    cluster.held.clear();
    converge(&mut cluster);
    assert!(5 < base(&cluster), "the new region came by a snapshot");
}

/// A group of two becomes a group of one, and everybody loses power, at any moment of it: whoever is left leads.
#[test]
fn who_stays_alone_leads_after_a_power_cut() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed, 2, 2, config());
        must_put(&mut cluster, "a", "1");
        let (leader, region) = cluster.leader_of(b"a").unwrap();
        let goes_itself = seed % 2 == 0;
        let gone = region.peers.iter().find(|peer| (peer.store_id == leader) == goes_itself);
        let changes = vec![(None, *gone.unwrap())];
        cluster.request(leader, &region, RequestKind::ChangeMembers { changes });
        for _ in 0..(seed * 7 % 200) {
            cluster.anything(0.0, 0.0);
        }
        for store in [StoreId(1), StoreId(2)] {
            cluster.crash(store);
        }
        for store in [StoreId(1), StoreId(2)] {
            cluster.start(store);
        }
        must_put(&mut cluster, "b", "2");
    }
}

/// Entries that are few and large, while a follower is away that needs them.
#[test]
fn logs_are_bounded_by_bytes_too() {
    let config = StoreConfig {
        log_gc_entries: 1_000_000,
        log_gc_spare: 1_000_000,
        log_gc_bytes: 20_000,
        ..config()
    };
    let mut cluster = Cluster::new(14, 3, 3, config);
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let away = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let bytes = |cluster: &Cluster, id: StoreId| cluster.nodes[&id].log.bytes(region.id.0);
    cluster.cut.insert(away);
    let value = "v".repeat(1000);
    for number in 0..100 {
        must_put(&mut cluster, &format!("k{number:03}"), &value);
    }
    cluster.until(20, "the logs are compacted", |cluster| {
        cluster.nodes.keys().all(|id| *id == away || bytes(cluster, *id) <= 21_000)
    });
    // So much is kept for the one that is away.
    assert!(15_000 < bytes(&cluster, leader));
    cluster.cut.clear();
    converge(&mut cluster);
    // What is there after a start is counted.
    let before = bytes(&cluster, leader);
    cluster.crash(leader);
    cluster.start(leader);
    assert!(before <= bytes(&cluster, leader));
    converge(&mut cluster);
}

#[test]
fn a_store_without_space_takes_nothing_that_needs_more() {
    let mut cluster = Cluster::new(15, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let follower = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    let full = |cluster: &mut Cluster, id: StoreId, is_full: bool| {
        let store = &mut cluster.nodes.get_mut(&id).unwrap().store;
        store.step(Input::DiskFull(is_full)).unwrap();
    };
    // A follower goes on.
    full(&mut cluster, follower, true);
    must_put(&mut cluster, "b", "2");
    full(&mut cluster, leader, true);
    let token = cluster.put(leader, &region, "c", "3");
    assert_eq!(
        cluster.fates[&token],
        Fate::Error(RegionError::DiskFull { store: leader, region: region.id })
    );
    assert_eq!(must_get(&mut cluster, "b").as_deref(), Some("2"));
    let key = types::Bytes::from_static(b"b");
    let delete = types::Modify::Delete { cf: types::Cf::Default, key: key.clone() };
    let delete = command(&[delete]);
    let free = RequestKind::Free { first: key.clone(), last: key, command: delete };
    let token = cluster.request(leader, &region, free);
    cluster.until(20, "it is deleted", |cluster| cluster.fates.contains_key(&token));
    assert!(matches!(cluster.fates[&token], Fate::Written(_)));
    // What was decided in a term is taken if it only removes.
    let term = cluster.nodes[&leader].views[&region.id].leads_in.unwrap();
    for frees in [true, false] {
        let (key, command) = (types::Bytes::from_static(b"b"), command(&[]));
        let kind = RequestKind::WriteIn { term, frees, first: key.clone(), last: key, command };
        let token = cluster.request(leader, &region, kind);
        cluster.until(20, "it is answered", |cluster| cluster.fates.contains_key(&token));
        assert_eq!(matches!(cluster.fates[&token], Fate::Written(_)), frees);
    }
    must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: vec![cluster.split_child(region, "m")],
    });
    full(&mut cluster, leader, false);
    must_put(&mut cluster, "c", "3");
    assert_eq!(must_get(&mut cluster, "b"), None);
}

#[test]
fn what_a_split_has_made_outlives_a_parent_that_is_gone_before() {
    let mut cluster = Cluster::new(18, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    must_put(&mut cluster, "z", "2");
    converge(&mut cluster);
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let slow = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    cluster.stalled.insert(slow.store_id);
    must(&mut cluster, "a", |cluster, region| RequestKind::Split {
        children: vec![cluster.split_child(region, "m")],
    });
    // Its peer is replaced by another one before it has applied the split.
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers { changes: vec![(None, slow)] });
    let again = member(55, slow.store_id.0, PeerRole::Learner);
    must(&mut cluster, "a", |_, _| RequestKind::ChangeMembers {
        changes: vec![(Some(PeerRole::Learner), again)],
    });
    cluster.until(200, "the old peer is gone", |cluster| {
        let mut regions = cluster.nodes[&slow.store_id].store.regions();
        regions.all(|region| region.peer_on(slow.store_id).is_none_or(|peer| peer.id != slow.id))
    });
    cluster.stalled.clear();
    converge(&mut cluster);
    let (_, child) = cluster.leader_of(b"z").unwrap();
    assert_eq!(cluster.pairs(slow.store_id, &child).len(), 1, "the data of the new region stay");
}

#[test]
fn what_was_decided_in_one_term_is_not_written_in_another() {
    let mut cluster = Cluster::new(17, 3, 3, config());
    must_put(&mut cluster, "a", "1");
    let (leader, region) = cluster.leader_of(b"a").unwrap();
    let leads_in = |cluster: &Cluster, id: StoreId| cluster.nodes[&id].views[&region.id].leads_in;
    let before = leads_in(&cluster, leader).unwrap();
    let write_in = |cluster: &mut Cluster, id: StoreId, term: u64| {
        let key = types::Bytes::from_static(b"a");
        let put =
            types::Modify::Put { cf: types::Cf::Default, key: key.clone(), value: key.clone() };
        let command = command(&[put]);
        let kind =
            RequestKind::WriteIn { term, frees: false, first: key.clone(), last: key, command };
        let token = cluster.request(id, &region, kind);
        cluster.until(20, "it is answered", |cluster| cluster.fates.contains_key(&token));
        cluster.fates[&token].clone()
    };
    assert!(matches!(write_in(&mut cluster, leader, before), Fate::Written(_)));

    // Away and back: others may have written in between.
    let other = *region.peers.iter().find(|peer| peer.store_id != leader).unwrap();
    let own = *region.peer_on(leader).unwrap();
    for (from, to) in [(leader, other), (other.store_id, own)] {
        cluster.request(from, &region, RequestKind::TransferLeader { to: to.id });
        cluster.until(60, "another one leads", |cluster| {
            leads_in(cluster, to.store_id).is_some() && leads_in(cluster, from).is_none()
        });
    }
    let after = leads_in(&cluster, leader).unwrap();
    assert!(before < after);
    let refused = write_in(&mut cluster, leader, before);
    assert!(matches!(refused, Fate::Error(RegionError::NotLeader { .. })), "{refused:?}");
    assert!(matches!(write_in(&mut cluster, leader, after), Fate::Written(_)));
}

#[test]
fn replicas_that_differ_are_found() {
    for periodic in [false, true] {
        let check_hash_ticks = if periodic { 20 } else { 0 };
        let mut cluster = Cluster::new(16, 3, 3, StoreConfig { check_hash_ticks, ..config() });
        for number in 0..50 {
            must_put(&mut cluster, &format!("k{number:02}"), "v");
        }
        let check = |cluster: &mut Cluster, hashed: u64| {
            if !periodic {
                let (leader, region) = cluster.leader_of(b"a").unwrap();
                cluster.request(leader, &region, RequestKind::CheckConsistency);
            }
            cluster.until(60, "all are hashed", |cluster| hashed <= cluster.hashed);
            converge(cluster);
        };
        check(&mut cluster, 3);
        assert!(cluster.inconsistent.is_empty());
        // A disk that has changed a bit.
        let (leader, region) = cluster.leader_of(b"a").unwrap();
        let wrong = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
        let mut batch = engine::WriteBatch::new();
        batch.put(types::Cf::Lock, "k07", "what nobody has written");
        engine::Engine::write(&*cluster.nodes[&wrong].engine, batch).unwrap();
        let before = cluster.hashed;
        check(&mut cluster, before + 3);
        cluster.until(60, "it is found", |cluster| !cluster.inconsistent.is_empty());
        assert!(cluster.inconsistent.iter().all(|found| *found == (wrong, region.id)));
    }
}
