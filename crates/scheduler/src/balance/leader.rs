//! Moves leaders from stores that lead many regions to stores that lead few. The rules are the course's:
//!
//! 1. Stores that are there give and take; one that is on its way out only gives.
//! 2. In turn the store that leads most looks for a region that it can give away, and the one that leads least for one
//!    that it can take; then the next ones.
//! 3. A region takes part only if all of its peers are well.
//! 4. The numbers of leaders must differ by at least twice the tolerance: afterwards the giver still leads no fewer.

use std::cmp::Reverse;

use runtime::Rng;
use types::{StoreId, marks::mutant};

use super::{draw, plan};
use crate::{
    cluster::{Liveness, Part, Picture, RegionInfo},
    operator::{Change, Plan},
};

/// A transfer that makes stores more equal, if there is one among those that were tried.
pub(crate) fn balance(picture: &Picture<'_>, rng: &mut Rng) -> Option<Plan> {
    let mut sources: Vec<StoreId> =
        picture.stores().filter(|&store| may_give(picture, store)).collect();
    let mut targets: Vec<StoreId> =
        picture.stores().filter(|&store| picture.refuses_leader(store).is_none()).collect();
    sources.sort_by_key(|&store| Reverse(picture.load(store).leaders));
    targets.sort_by_key(|&store| picture.load(store).leaders);
    let (&most, &least) = (sources.first()?, targets.first()?);
    if picture.load(most).leaders - picture.load(least).leaders < least_difference(picture) {
        return None;
    }
    for i in 0..sources.len().max(targets.len()) {
        if let Some(&source) = sources.get(i)
            && let Some(found) = give(picture, source, rng)
        {
            return Some(found);
        }
        if let Some(&target) = targets.get(i)
            && let Some(found) = take(picture, target, rng)
        {
            return Some(found);
        }
    }
    None
}

fn may_give(picture: &Picture<'_>, store: StoreId) -> bool {
    picture.health.liveness(store) == Liveness::Serving
}

/// Two stores must differ by at least this for a leader to be moved.
fn least_difference(picture: &Picture<'_>) -> i64 {
    if mutant!("balance_without_tolerance") {
        return 1;
    }
    i64::try_from(picture.config.leader_tolerance.max(1)).unwrap_or(i64::MAX).saturating_mul(2)
}

fn give(picture: &Picture<'_>, source: StoreId, rng: &mut Rng) -> Option<Plan> {
    draw(picture, source, Part::Leader, rng).into_iter().find_map(|id| {
        let region = picture.regions.get(id)?;
        let target = picture.best_leader(region, source)?;
        transfer(picture, region, source, target)
    })
}

fn take(picture: &Picture<'_>, target: StoreId, rng: &mut Rng) -> Option<Plan> {
    draw(picture, target, Part::Follower, rng).into_iter().find_map(|id| {
        let region = picture.regions.get(id)?;
        let source = region.leader?.store_id;
        may_give(picture, source).then(|| transfer(picture, region, source, target))?
    })
}

fn transfer(
    picture: &Picture<'_>,
    region: &RegionInfo,
    source: StoreId,
    target: StoreId,
) -> Option<Plan> {
    let difference = picture.load(source).leaders - picture.load(target).leaders;
    if difference < least_difference(picture) {
        return None;
    }
    let peers = &region.region.peers;
    let may_move = picture.is_workable(region)
        && !region.is_joint()
        && peers.iter().all(|peer| picture.health.is_healthy(region, peer))
        && !picture.has_operator(region.region.id)
        && picture.refuses_leader(target).is_none();
    let change = Change::TransferLeader { to: target };
    may_move.then(|| plan(region, "balance-leader", change))
}
