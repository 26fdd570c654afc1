//! Moves peers from stores that hold much to stores that hold little. The rules are the course's:
//!
//! 1. Stores that are up and not down take part. With fewer than two there is nothing to do.
//! 2. The store that holds most gives first; if nothing there can be moved, the next one.
//! 3. Of its regions one in which its peer lags behind is preferred, then one that it does not lead, then one that it
//!    leads.
//! 4. The region must have all of its replicas, and all but the one that goes must be well.
//! 5. The store that holds least and has no peer of that region takes it.
//! 6. The difference must be more than twice the region: afterwards the giver still holds more than the taker, so that
//!    nothing is ever moved back.

use std::cmp::Reverse;

use runtime::Rng;
use types::{StoreId, limits, marks::mutant};

use super::{draw, plan};
use crate::{
    cluster::{Liveness, Part, Picture, RegionInfo, StoreState},
    operator::{Change, Plan},
};

/// A move that makes stores more equal, if there is one among those that were tried.
pub(crate) fn balance(picture: &Picture<'_>, rng: &mut Rng) -> Option<Plan> {
    let weight = |store: StoreId| picture.load(store).weight;
    let takes_part = |store: &StoreId| {
        picture.health.state(*store) == Some(StoreState::Up)
            && picture.health.liveness(*store) != Liveness::Down
    };
    let mut sources: Vec<StoreId> = picture.stores().filter(takes_part).collect();
    if sources.len() < 2 {
        return None;
    }
    sources.sort_by_key(|&store| Reverse(weight(store)));
    let lightest = weight(*picture.targets().first()?);
    for source in sources {
        // Where no region is light enough to be moved none has to be looked at, and the next stores hold less still.
        if weight(source) - lightest <= least_difference(limits::REGION_WEIGHT_MIN.cast_signed()) {
            return None;
        }
        if picture.refuses_removal(source).is_some() {
            continue;
        }
        for part in [Part::Pending, Part::Follower, Part::Leader] {
            for id in draw(picture, source, part, rng) {
                let Some(region) = picture.regions.get(id) else { continue };
                if let Some(to) = target(picture, region, source) {
                    let change = Change::Replace { from: source, to };
                    return Some(plan(region, "balance-region", change));
                }
            }
        }
    }
    None
}

/// Two stores must differ by more than this for a region of that weight to be moved.
fn least_difference(weight: i64) -> i64 {
    if mutant!("balance_without_tolerance") { 0 } else { 2 * weight }
}

/// Where the peer on `source` should go, if anywhere.
fn target(picture: &Picture<'_>, region: &RegionInfo, source: StoreId) -> Option<StoreId> {
    let target = picture.best_target(region)?;
    let difference = picture.load(source).weight - picture.load(target).weight;
    let may_move = least_difference(region.weight()) < difference
        && picture.is_settled(region, source)
        && picture.is_workable(region)
        && !picture.has_operator(region.region.id)
        && !snapshots_wait(picture, region);
    may_move.then_some(target)
}

/// Whether the store that would send the new peer its data is sending enough already.
fn snapshots_wait(picture: &Picture<'_>, region: &RegionInfo) -> bool {
    let Some(leader) = region.leader else { return true };
    let stats = picture.health.store(leader.store_id).and_then(|known| known.stats.as_ref());
    stats.is_some_and(|stats| picture.config.max_snapshot_count <= stats.sending_snapshots)
}
