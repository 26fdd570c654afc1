//! Whether a region has the replicas that it should have.
//!
//! One thing at a time: the next look at the region sees what that has led to. In this order:
//!
//! 1. A joint change that nobody finishes is finished.
//! 2. Too many voters: the worst goes.
//! 3. A learner that somebody has left behind and that is of no use goes.
//! 4. Too few voters: such a learner becomes one, or waits until it has caught up; or one comes, on the store that holds
//!    least.
//! 5. A voter on a store that is down or on its way out is replaced, by such a learner or by a new one.
//!
//! Without a majority nothing can be done, and nothing is tried (`Picture::is_workable`).

use types::{Peer, PeerRole, StoreId, marks::mutant};

use crate::{
    cluster::{Liveness, Picture, RegionInfo},
    operator::{Cause, Change, Plan, Priority},
};

/// What to do about a region, if anything.
pub(crate) fn check(picture: &Picture<'_>, region: &RegionInfo) -> Option<Plan> {
    if !picture.is_workable(region) {
        return None;
    }
    let (desc, change) = find(picture, region)?;
    let (cause, priority) = (Cause::Replica, Priority::High);
    Some(Plan { region: region.region.id, desc, cause, priority, change })
}

fn find(picture: &Picture<'_>, region: &RegionInfo) -> Option<(&'static str, Change)> {
    let health = &picture.health;
    if region.is_joint() {
        let change = ("leave-joint-state", Change::LeaveJoint);
        return (!mutant!("joint_states_stay")).then_some(change);
    }
    let is_bad = |peer: &Peer| health.is_lost(region, peer) || health.is_leaving(peer);
    let (voters, learners): (Vec<&Peer>, Vec<&Peer>) = region
        .region
        .peers
        .iter()
        .partition(|peer| peer.role == PeerRole::Voter || mutant!("learners_are_replicas"));
    if picture.max_replicas < voters.len() {
        let store = worst(picture, region, &voters)?;
        return Some(("remove-extra-replica", Change::Remove { store }));
    }

    let good = voters.iter().filter(|voter| !is_bad(voter)).count();
    // The learners that will become voters, the one that can do so first in front.
    let mut heirs: Vec<&Peer> = learners
        .iter()
        .copied()
        .filter(|learner| health.is_serving(learner.store_id) && !health.is_lost(region, learner))
        .collect();
    heirs.sort_by_key(|heir| !health.is_healthy(region, heir));
    heirs.truncate(picture.max_replicas - good);
    if let Some(extra) = learners.iter().find(|learner| !heirs.contains(learner)) {
        return Some(("remove-learner", Change::Remove { store: extra.store_id }));
    }

    if voters.len() < picture.max_replicas {
        if let Some(heir) = heirs.first().filter(|heir| health.is_healthy(region, heir)) {
            return Some(("promote-learner", Change::Promote { store: heir.store_id }));
        }
        if picture.max_replicas <= voters.len() + heirs.len() {
            return None;
        }
        let store = picture.best_target(region)?;
        return Some(("make-up-replica", Change::Add { store }));
    }

    // The dead ones first: the others still help.
    let bad = voters.iter().filter(|voter| is_bad(voter));
    let bad = bad.max_by_key(|voter| health.is_lost(region, voter))?;
    let desc = match health.is_lost(region, bad) {
        true => "replace-down-replica",
        false => "replace-offline-replica",
    };
    let to = match heirs.first() {
        Some(heir) => heir.store_id,
        None => picture.best_target(region)?,
    };
    Some((desc, Change::Replace { from: bad.store_id, to }))
}

/// The store of the voter that is missed least: one that is lost, one that is on its way out, one on a silent store, one
/// that has not caught up, the one on the store that holds most. What is left must have a majority.
fn worst(picture: &Picture<'_>, region: &RegionInfo, voters: &[&Peer]) -> Option<StoreId> {
    let health = &picture.health;
    let rank = |peer: &Peer| {
        let weight = picture.load(peer.store_id).weight;
        if mutant!("removals_ignore_health") {
            return ([false; 4], weight);
        }
        let is_silent = health.liveness(peer.store_id) != Liveness::Serving;
        let faults = [
            health.is_lost(region, peer),
            health.is_leaving(peer),
            is_silent,
            !health.is_healthy(region, peer),
        ];
        (faults, weight)
    };
    let may_go = |peer: &Peer| {
        let rest = voters.iter().copied().filter(|other| other.id != peer.id);
        health.has_majority(region, rest) || mutant!("removals_ignore_the_majority")
    };
    let worst = voters.iter().filter(|peer| may_go(peer)).max_by_key(|peer| rank(peer))?;
    let store = worst.store_id;
    let is_bad = health.is_lost(region, worst) || health.is_leaving(worst);
    (is_bad || picture.refuses_removal(store).is_none()).then_some(store)
}
