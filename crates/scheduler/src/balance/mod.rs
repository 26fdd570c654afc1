//! Balance: stores should hold about the same, and lead about as many regions.
//!
//! Each move makes a difference between two stores smaller and none larger, by more than what rounding and late reports
//! come to. So a cluster that is balanced stays still.

mod leader;
mod region;

pub(crate) use leader::balance as balance_leader;
pub(crate) use region::balance as balance_region;

use runtime::Rng;
use types::{RegionId, StoreId};

use crate::{
    cluster::{Part, Picture, RegionInfo},
    operator::{Cause, Change, Plan, Priority},
};

/// How many regions are tried for a store: of those that come up some can't be moved.
const TRIES: usize = 5;

fn plan(region: &RegionInfo, desc: &'static str, change: Change) -> Plan {
    let (cause, priority) = (Cause::Balance, Priority::Normal);
    Plan { region: region.region.id, desc, cause, priority, change }
}

/// Up to [`TRIES`] regions in which `store` has that part, taken at random.
fn draw(picture: &Picture<'_>, store: StoreId, part: Part, rng: &mut Rng) -> Vec<RegionId> {
    let all = picture.regions.on_store(store, part);
    if all.is_empty() {
        return Vec::new();
    }
    (0..TRIES).map(|_| all[rng.range(0..all.len() as u64) as usize]).collect()
}
