//! The regions of this store, and whether a request was meant for one of them.
//!
//! A request says which store, region, peer and epoch its client believes in. All of it is compared before a key is
//! looked at; any difference sends the client back to its route. In a replicated store regions change all the time: a
//! write is compared again when it is proposed and when it is applied, and a read is checked against what was true of
//! the snapshot that it looks at ([`Access`]).

use std::sync::Arc;

use raftstore::{
    PeerView,
    shell::{Moment, Views},
};
use types::{Bytes, Region, RegionEpoch, RegionError, RequestContext, StoreId};

use crate::{Error, Result};

/// The regions that this store serves.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    store_id: StoreId,
    known: Known,
}

#[derive(Clone, Debug)]
enum Known {
    /// They never change. In the order of their ids, to find one; there are few.
    Fixed(Vec<Arc<Region>>),
    /// As the replicated store makes them known.
    Live(Arc<Views>),
}

/// What a read may rest on.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// The snapshot is what was acknowledged, for all regions: there is nobody else.
    Everything,
    /// The leases that held at or after this moment, which was before the snapshot.
    Leases(Moment),
    /// The leader was asked; this is the region as it is in the snapshot.
    Granted(Arc<Region>),
}

impl Regions {
    /// The regions that the store `store_id` serves, for good. Each has a peer there.
    pub(crate) fn new(store_id: StoreId, mut regions: Vec<Region>) -> Regions {
        regions.sort_by_key(|region| region.id);
        Regions { store_id, known: Known::Fixed(regions.into_iter().map(Arc::new).collect()) }
    }

    /// The regions of a replicated store.
    pub(crate) fn live(store_id: StoreId, views: Arc<Views>) -> Regions {
        Regions { store_id, known: Known::Live(views) }
    }

    /// The regions in the order of their keys.
    pub(crate) fn in_key_order(&self) -> Vec<Region> {
        match &self.known {
            Known::Fixed(regions) => {
                let mut regions: Vec<Region> =
                    regions.iter().map(|region| Region::clone(region)).collect();
                regions.sort_by(|a, b| a.range.start.cmp(&b.range.start));
                regions
            }
            Known::Live(views) => {
                views.all().into_iter().map(|view| Region::clone(&view.region)).collect()
            }
        }
    }

    /// The region that has a stored key, if it is here.
    pub(crate) fn at(&self, stored_key: &[u8]) -> Option<Arc<Region>> {
        match &self.known {
            Known::Fixed(regions) => {
                regions.iter().find(|region| region.range.contains(stored_key)).cloned()
            }
            Known::Live(views) => views.at(stored_key).map(|view| view.region),
        }
    }

    /// The regions for whose keys this store acts on its own: those that it leads.
    pub(crate) fn led(&self) -> Vec<Arc<Region>> {
        match &self.known {
            Known::Fixed(regions) => regions.clone(),
            Known::Live(views) => {
                let all = views.all().into_iter();
                all.filter(leads).map(|view| view.region).collect()
            }
        }
    }

    /// The region that a write was meant for.
    ///
    /// Order of the checks: store, region, peer, epoch, leader. A context that names nothing at all is answered with
    /// `RegionNotFound`; one that names a region but no peer is for store 0, as in TiKV. A wrong peer means that the
    /// client's region was another incarnation: it refreshes its route as for an unknown region.
    pub(crate) fn check(&self, ctx: &RequestContext) -> Result<Arc<Region>> {
        let (region, leader) = self.find(ctx)?;
        match leader {
            Ok(()) => Ok(region),
            Err(error) => Err(error.into()),
        }
    }

    /// The region that a read was meant for, if it may be answered from a snapshot to which there is this `access`.
    ///
    /// # Errors
    /// Those of [`check`](Regions::check), [`Error::LeaseLapsed`], and `DataIsNotReady` for stale reads: they need a
    /// timestamp up to which the data are known to be complete, which nobody keeps yet.
    pub(crate) fn check_read(&self, ctx: &RequestContext, access: &Access) -> Result<Arc<Region>> {
        if ctx.stale_read {
            return Err(
                RegionError::DataIsNotReady { region: ctx.region_id, peer: ctx.peer_id }.into()
            );
        }
        match (access, &self.known) {
            (Access::Granted(region), _) => {
                self.check_store(ctx)?;
                self.check_peer(ctx, region)?;
                check_epoch(ctx, region, || vec![Region::clone(region)])?;
                Ok(Arc::clone(region))
            }
            (Access::Leases(moment), Known::Live(views)) => {
                let (region, leader) = self.find(ctx)?;
                let may_read = views.check(region.id, *moment, |view, holds| {
                    // The view may be another one by now.
                    holds && view.region.epoch.version == region.epoch.version
                });
                match (leader, may_read) {
                    (Ok(()), Some(true)) => Ok(region),
                    (Err(error), _) if !ctx.replica_read => Err(error.into()),
                    _ => Err(Error::LeaseLapsed),
                }
            }
            (Access::Everything | Access::Leases(_), _) => self.check(ctx),
        }
    }

    /// The region that a read is for which any member may answer, after it has asked the leader.
    pub(crate) fn check_replica(&self, ctx: &RequestContext) -> Result<Arc<Region>> {
        self.find(ctx).map(|(region, _)| region)
    }

    /// The region of a request, and whether this store leads it.
    fn find(&self, ctx: &RequestContext) -> Result<(Arc<Region>, Result<(), RegionError>)> {
        self.check_store(ctx)?;
        let not_found = || RegionError::RegionNotFound { region: ctx.region_id };
        match &self.known {
            Known::Fixed(regions) => {
                let found = regions.binary_search_by_key(&ctx.region_id, |region| region.id);
                let region = &regions[found.map_err(|_| not_found())?];
                self.check_peer(ctx, region)?;
                check_epoch(ctx, region, || vec![Region::clone(region)])?;
                Ok((Arc::clone(region), Ok(())))
            }
            Known::Live(views) => {
                let view = views.find(ctx.region_id).ok_or_else(not_found)?;
                let region = &view.region;
                self.check_peer(ctx, region)?;
                check_epoch(ctx, region, || {
                    let version = ctx.epoch.map_or(0, |epoch| epoch.version);
                    views.since(region, version)
                })?;
                let leader = match leads(&view) {
                    true => Ok(()),
                    false => Err(RegionError::NotLeader { region: region.id, leader: view.leader }),
                };
                Ok((view.region, leader))
            }
        }
    }

    fn check_store(&self, ctx: &RequestContext) -> Result<()> {
        if ctx.store_id != self.store_id && !(ctx.store_id.is_none() && ctx.region_id.is_none()) {
            return Err(RegionError::StoreNotMatch {
                request: ctx.store_id,
                actual: self.store_id,
            }
            .into());
        }
        Ok(())
    }

    fn check_peer(&self, ctx: &RequestContext, region: &Region) -> Result<()> {
        if region.peer_on(self.store_id).is_none_or(|peer| peer.id != ctx.peer_id) {
            return Err(RegionError::RegionNotFound { region: ctx.region_id }.into());
        }
        Ok(())
    }
}

/// Reads and writes concern keys: only the range's version counts, and a newer one than ours is as wrong as an older
/// one.
fn check_epoch(
    ctx: &RequestContext,
    region: &Region,
    covering: impl FnOnce() -> Vec<Region>,
) -> Result<()> {
    let Some(RegionEpoch { version, .. }) = ctx.epoch else {
        return Err(Error::InvalidRequest("the request's context has no region epoch".to_owned()));
    };
    if version != region.epoch.version {
        return Err(RegionError::EpochNotMatch { regions: covering() }.into());
    }
    Ok(())
}

fn leads(view: &PeerView) -> bool {
    view.leader.is_some_and(|leader| leader.id == view.peer_id)
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
    use types::{ApiVersion, KeyRange, Peer, PeerId, PeerRole, RegionId};

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
            replica_read: false,
            stale_read: false,
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
    fn a_stale_read_is_refused_and_not_answered_as_another_one() {
        let stale = RequestContext { stale_read: true, ..context() };
        let refused = regions().check_read(&stale, &Access::Everything);
        let error = RegionError::DataIsNotReady { region: RegionId(7), peer: PeerId(107) };
        assert!(matches!(refused, Err(Error::Region(found)) if found == error));
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
        assert!(check_key(&region, b"m").is_ok());
        assert!(matches!(
            check_key(&region, b"l\xff"),
            Err(Error::Region(RegionError::KeyNotInRegion { .. }))
        ));
    }
}
