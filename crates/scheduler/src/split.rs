//! Splits: ids for the new regions, and the news of them before clients hear it from a store.

use types::{KeyRange, Peer, PeerId, Region, RegionId, limits};

use crate::{
    Answer, Error, Record, RegionInfo, Result, Scheduler,
    cluster::{News, is_behind},
};

/// The ids for one new region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitIds {
    /// Its own.
    pub region: RegionId,
    /// Of its peers, in the order of the peers of the region that is split.
    pub peers: Vec<PeerId>,
}

impl Scheduler {
    /// Takes the ids for a region that the leader of `region` wants to split off.
    ///
    /// # Errors
    /// As [`ask_batch_split`](Scheduler::ask_batch_split).
    pub fn ask_split(&mut self, region: &Region) -> Result<Answer<SplitIds>> {
        let Answer { mut value, after } = self.ask_batch_split(region, 1)?;
        Ok(Answer { value: value.pop().expect("one was asked for"), after })
    }

    /// Takes the ids for `count` regions that the leader of `region` wants to split off. Whether it does so is its own
    /// business: ids that are not used are lost.
    ///
    /// # Errors
    /// `NotBootstrapped`; `StaleRegion` if more is known about that region; `Invalid` if nothing is known of one that
    /// begins there, or for a `count` that is 0 or too large; `Exhausted`.
    pub fn ask_batch_split(
        &mut self,
        region: &Region,
        count: u32,
    ) -> Result<Answer<Vec<SplitIds>>> {
        self.cluster.check_bootstrapped()?;
        // By key, as PD does it: after a split the one who asks may know itself under another id.
        let known = self.cluster.regions.find(&region.range.start);
        let Some(known) = known.filter(|known| known.region.range.start == region.range.start)
        else {
            let start = types::key::display(&region.range.start);
            return Err(Error::invalid(format!("no region is known that begins at {start}")));
        };
        if is_behind(region.epoch, known.region.epoch) {
            return Err(Error::StaleRegion {
                region: region.id,
                epoch: region.epoch,
                known_region: known.region.id,
                known: known.region.epoch,
            });
        }
        let peers = u32::try_from(region.peers.len()).unwrap_or(u32::MAX);
        let ids = peers.checked_add(1).and_then(|each| each.checked_mul(count));
        let (1..=limits::SPLIT_REGIONS_MAX, Some(ids)) = (count, ids) else {
            return Err(Error::invalid(format!(
                "a region is split into 1 to {} others at once",
                limits::SPLIT_REGIONS_MAX
            )));
        };
        let Answer { value: batch, after } = self.alloc_id(ids)?;
        let mut ids = batch.first..=batch.last;
        let mut id = || ids.next().expect("as many as were counted");
        let value = (0..count)
            .map(|_| SplitIds {
                region: RegionId(id()),
                peers: region.peers.iter().map(|_| PeerId(id())).collect(),
            })
            .collect();
        Ok(Answer { value, after })
    }

    /// A region was split in two.
    ///
    /// # Errors
    /// As [`report_batch_split`](Scheduler::report_batch_split).
    pub fn report_split(&mut self, left: Region, right: Region) -> Result<Answer<()>> {
        self.report_batch_split(vec![left, right])
    }

    /// A region was split into `regions`, in key order. They are known from now on; what is known to be newer stays.
    /// The answer comes when they will be found after a restart, too: a store that waits for it may then send clients
    /// here.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` if there are none or one does not begin where the one before ends.
    pub fn report_batch_split(&mut self, regions: Vec<Region>) -> Result<Answer<()>> {
        self.cluster.check_bootstrapped()?;
        let adjacent = |pair: &[Region]| {
            let KeyRange { start, .. } = &pair[1].range;
            !start.is_empty() && pair[0].range.end == start
        };
        if regions.is_empty() || !regions.windows(2).all(adjacent) {
            return Err(Error::invalid("the regions of a split follow each other"));
        }
        // Until they report, they are as large as they can be together, and led where the one before was led.
        let before = self.cluster.regions.find(&regions[0].range.start).cloned();
        let share = |of: fn(&RegionInfo) -> u64| {
            before.as_deref().map_or(0, of) / u64::try_from(regions.len()).unwrap_or(u64::MAX)
        };
        let (approximate_size, approximate_keys) =
            (share(|info| info.approximate_size), share(|info| info.approximate_keys));
        let led_on = before.as_ref().and_then(|info| info.leader).map(|leader| leader.store_id);
        for region in regions {
            let leader: Option<Peer> = match region.peers[..] {
                // A region of one peer has no choice of leader.
                [only] => Some(only),
                _ => led_on.and_then(|store| region.peer_on(store).copied()),
            };
            let info = RegionInfo {
                region,
                leader,
                approximate_size,
                approximate_keys,
                ..RegionInfo::default()
            };
            match self.cluster.check_region_heartbeat(&info) {
                Ok(News::Region) => {
                    let region = info.region.clone();
                    self.commit(Record::RegionPut { region, leader });
                    // Nothing is done to it before its leader says how its peers are, and what was being done ends.
                    let id = info.region.id;
                    self.cluster.regions.put(info, None);
                    let _ = self.next_order(id);
                }
                // Its own report was here first, and says more.
                Ok(_) | Err(Error::StaleRegion { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Answer { value: (), after: self.rests_on.regions })
    }
}
