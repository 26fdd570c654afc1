//! Removal of old versions under a safe point, step by step, in the regions that are led here.
//!
//! A step looks at a bounded number of records and has what can go removed by a command like any other: decided under the
//! latches of its keys, and proposed with the safe point, so that every replica removes the same and knows that it did.

use txn::{commands::Gc, gc::find_garbage};
use types::{
    ApiMode, ApiVersion, Bytes, KeyMode, KeyRange, Region, RegionError, RequestContext, TimeStamp,
};

use super::{Storage, user_range};
use crate::{Error, Result};

/// Keys of one step, records that it looks at for them, and about how many changes it proposes at once.
const KEYS_AT_ONCE: usize = 256;
const LOOKED_AT_ONCE: usize = 4096;
const CHANGES_AT_ONCE: usize = 2048;

/// One pass over the regions of a store for a safe point.
#[derive(Clone, Debug)]
pub struct VersionCollection {
    safe_point: TimeStamp,
    /// Where transactional data lie that were not looked at yet, by users' keys, and how requests for them are made.
    left: Vec<(ApiVersion, KeyRange)>,
}

impl VersionCollection {
    /// A pass that begins at the first key of `storage`.
    pub fn new(storage: &Storage, safe_point: TimeStamp) -> VersionCollection {
        let left = match (storage.ident().api, storage.key_mode()) {
            (ApiMode::V1, Some(KeyMode::Txn)) => vec![(ApiVersion::V1, KeyRange::all())],
            // Raw keys have no versions.
            (ApiMode::V1, _) | (ApiMode::V1Ttl, _) => Vec::new(),
            // From behind, since they are taken from there.
            (ApiMode::V2, _) => vec![
                (ApiVersion::V2, KeyRange::new("x", "y")),
                (ApiVersion::V1, KeyRange::new("t", "u")),
                (ApiVersion::V1, KeyRange::new("m", "n")),
            ],
        };
        VersionCollection { safe_point, left }
    }

    /// What the pass is for.
    pub fn safe_point(&self) -> TimeStamp {
        self.safe_point
    }

    /// Whether everything that was led here when its turn came was looked at.
    pub fn is_finished(&self) -> bool {
        self.left.is_empty()
    }

    /// Goes on for a bounded while. Reads on the calling thread, and waits for one command at a time. Returns the number of
    /// keys of which something was removed.
    ///
    /// # Errors
    /// The engine failed, or the safe point lies in the future. A region that has moved or changed is left to who leads it
    /// now.
    pub async fn step(&mut self, storage: &Storage) -> Result<usize> {
        let Some((api_version, range)) = self.left.last_mut() else { return Ok(0) };
        let Some(region) = first_led(storage, range) else {
            self.left.pop();
            return Ok(0);
        };
        let ctx = context(storage, &region, *api_version);
        let part = range.intersect(&user_range(&region));
        let (removed, next) = match collect_page(storage, &ctx, &part, self.safe_point).await {
            Ok((removed, next)) => (removed, next.unwrap_or(part.end)),
            // It was cut: its pieces are looked at next.
            Err(Error::Region(RegionError::EpochNotMatch { .. })) => return Ok(0),
            Err(Error::Region(_)) => (0, part.end),
            Err(error) => return Err(error),
        };
        match next {
            end if end.is_empty() || end == range.end => drop(self.left.pop()),
            next => range.start = next,
        }
        Ok(removed)
    }
}

/// Removes what can go of the first keys of `part`. Returns of how many, and where to go on in `part`.
async fn collect_page(
    storage: &Storage,
    ctx: &RequestContext,
    part: &KeyRange,
    safe_point: TimeStamp,
) -> Result<(usize, Option<Bytes>)> {
    let looked = storage.txn_look(ctx, |snapshot, _| {
        find_garbage(snapshot, part, safe_point, KEYS_AT_ONCE, LOOKED_AT_ONCE)
    });
    let (keys, next) = looked.await?;
    let removed = keys.len();
    collect(storage, ctx, keys, safe_point).await?;
    Ok((removed, next))
}

/// Removes what can go of some keys, as many commands as it takes.
async fn collect(
    storage: &Storage,
    ctx: &RequestContext,
    mut keys: Vec<Bytes>,
    safe_point: TimeStamp,
) -> Result<()> {
    while !keys.is_empty() {
        let command = Gc { keys, safe_point, limit: CHANGES_AT_ONCE };
        keys = match storage.txn_write(ctx, command).await? {
            Ok(rest) => rest,
            Err(refused) => return Err(Error::InvalidRequest(refused.to_string())),
        };
    }
    Ok(())
}

/// The first region that is led here and has some of the user's keys of `range`.
fn first_led(storage: &Storage, range: &KeyRange) -> Option<Region> {
    let stored = txn::layout::stored_range(range);
    let mut led = storage.inner().checks().regions.led();
    led.retain(|region| !region.range.intersect(&stored).is_empty());
    let first = led.into_iter().min_by(|one, other| one.range.start.cmp(&other.range.start));
    first.map(|region| Region::clone(&region))
}

/// The context of a request of this store to itself.
fn context(storage: &Storage, region: &Region, api_version: ApiVersion) -> RequestContext {
    let store_id = storage.ident().store_id;
    RequestContext {
        region_id: region.id,
        epoch: Some(region.epoch),
        peer_id: region.peer_on(store_id).map(|peer| peer.id).unwrap_or_default(),
        store_id,
        api_version,
        ..RequestContext::default()
    }
}
