//! The regions of this store, and whether a request was meant for one of them.
//!
//! A request says which store, region, peer and epoch its client believes in. All of it is compared before a key is
//! looked at; any difference sends the client back to its route. Ranges of regions do not change in a store with one
//! replica, so that a check made when a write is proposed still holds when it is applied.

use types::{Bytes, Region, RegionError, RegionId, RequestContext, StoreId};

use crate::{Error, Result};

/// The regions that this store serves.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    store_id: StoreId,
    /// In the order of their ids, to find one; there are few.
    by_id: Vec<Region>,
}

impl Regions {
    /// The regions that the store `store_id` serves. Each has a peer there.
    pub(crate) fn new(store_id: StoreId, mut regions: Vec<Region>) -> Regions {
        regions.sort_by_key(|region| region.id);
        Regions { store_id, by_id: regions }
    }

    /// The regions in the order of their keys.
    pub(crate) fn in_key_order(&self) -> Vec<Region> {
        let mut regions = self.by_id.clone();
        regions.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        regions
    }

    /// The region that a request was meant for.
    ///
    /// Order of the checks: store, region, peer, epoch. A context that names nothing at all is answered with
    /// `RegionNotFound`; one that names a region but no peer is for store 0, as in TiKV. A wrong peer means that the
    /// client's region was another incarnation: it refreshes its route as for an unknown region.
    pub(crate) fn check(&self, ctx: &RequestContext) -> Result<&Region> {
        if ctx.store_id != self.store_id && !(ctx.store_id.is_none() && ctx.region_id.is_none()) {
            return Err(RegionError::StoreNotMatch {
                request: ctx.store_id,
                actual: self.store_id,
            }
            .into());
        }
        let region = self
            .find(ctx.region_id)
            .ok_or(RegionError::RegionNotFound { region: ctx.region_id })?;
        if region.peer_on(self.store_id).is_none_or(|peer| peer.id != ctx.peer_id) {
            return Err(RegionError::RegionNotFound { region: ctx.region_id }.into());
        }
        let Some(epoch) = ctx.epoch else {
            return Err(Error::InvalidRequest(
                "the request's context has no region epoch".to_owned(),
            ));
        };
        // Reads and writes concern keys: only the range's version counts, and a newer one than ours is as wrong as
        // an older one.
        if epoch.version != region.epoch.version {
            // Without splits and merges, the region itself covers whatever the client's older version covered.
            return Err(RegionError::EpochNotMatch { regions: vec![region.clone()] }.into());
        }
        Ok(region)
    }

    fn find(&self, id: RegionId) -> Option<&Region> {
        self.by_id.binary_search_by_key(&id, |region| region.id).ok().map(|at| &self.by_id[at])
    }
}

/// Refuses a stored key that lies outside of `region`.
pub(crate) fn check_key(region: &Region, stored_key: &[u8]) -> Result<()> {
    if region.range.contains(stored_key) {
        Ok(())
    } else {
        Err(key_not_in_region(region, stored_key))
    }
}

/// The answer to a request for a key or bound that `region` does not hold.
pub(crate) fn key_not_in_region(region: &Region, stored_key: &[u8]) -> Error {
    let (key, region) = (Bytes::copy_from_slice(stored_key), Box::new(region.clone()));
    RegionError::KeyNotInRegion { key, region }.into()
}

#[cfg(test)]
mod tests {
    use types::{ApiVersion, KeyRange, Peer, PeerId, PeerRole, RegionEpoch};

    use super::*;

    fn regions() -> Regions {
        let region = |id: u64, start: &'static str, end: &'static str| Region {
            id: RegionId(id),
            range: KeyRange::new(start, end),
            epoch: RegionEpoch { conf_ver: 3, version: 5 },
            peers: vec![Peer { id: PeerId(id + 100), store_id: StoreId(1), role: PeerRole::Voter }],
        };
        Regions::new(StoreId(1), vec![region(9, "", "m"), region(7, "m", "")])
    }

    fn context() -> RequestContext {
        RequestContext {
            region_id: RegionId(7),
            epoch: Some(RegionEpoch { conf_ver: 3, version: 5 }),
            peer_id: PeerId(107),
            store_id: StoreId(1),
            api_version: ApiVersion::V1,
        }
    }

    fn region_error(ctx: RequestContext) -> RegionError {
        match regions().check(&ctx) {
            Err(Error::Region(error)) => error,
            other => panic!("no region error: {other:?}"),
        }
    }

    #[test]
    fn a_right_context_finds_its_region() {
        assert_eq!(regions().check(&context()).unwrap().id, RegionId(7));
        let other_members = RegionEpoch { conf_ver: 1, version: 5 };
        assert!(
            regions().check(&RequestContext { epoch: Some(other_members), ..context() }).is_ok()
        );
        assert_eq!(regions().in_key_order()[0].id, RegionId(9));
    }

    #[test]
    fn each_part_of_the_context_is_compared_in_order() {
        let nothing = RequestContext::default();
        assert_eq!(region_error(nothing), RegionError::RegionNotFound { region: RegionId(0) });
        let no_peer = RequestContext { store_id: StoreId(0), ..context() };
        assert_eq!(
            region_error(no_peer),
            RegionError::StoreNotMatch { request: StoreId(0), actual: StoreId(1) }
        );
        let all_wrong = RequestContext {
            store_id: StoreId(2),
            region_id: RegionId(8),
            peer_id: PeerId(1),
            epoch: None,
            ..context()
        };
        assert!(matches!(region_error(all_wrong), RegionError::StoreNotMatch { .. }));
        let all_but_store = RequestContext { store_id: StoreId(1), ..all_wrong };
        assert_eq!(
            region_error(all_but_store),
            RegionError::RegionNotFound { region: RegionId(8) }
        );
        let wrong_peer = RequestContext { region_id: RegionId(7), ..all_but_store };
        assert_eq!(region_error(wrong_peer), RegionError::RegionNotFound { region: RegionId(7) });
        assert!(matches!(
            regions().check(&RequestContext { epoch: None, ..context() }),
            Err(Error::InvalidRequest(_))
        ));
    }

    #[test]
    fn another_version_is_refused_whether_older_or_newer() {
        for version in [4, 6] {
            let epoch = Some(RegionEpoch { conf_ver: 3, version });
            let RegionError::EpochNotMatch { regions } =
                region_error(RequestContext { epoch, ..context() })
            else {
                panic!("an epoch error");
            };
            assert_eq!(regions.iter().map(|region| region.id).collect::<Vec<_>>(), [RegionId(7)]);
        }
    }

    #[test]
    fn keys_are_compared_with_the_bounds() {
        let regions = regions();
        let region = regions.check(&context()).unwrap();
        assert!(check_key(region, b"m").is_ok());
        assert!(matches!(
            check_key(region, b"l\xff"),
            Err(Error::Region(RegionError::KeyNotInRegion { .. }))
        ));
    }
}
