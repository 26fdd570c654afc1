//! Splits: ids for stores that want to split a region, what came of it, and clients that want regions split.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::pdpb;
use scheduler::{Change, Error, LogPosition, Scheduler};
use tonic::Status;
use types::{Bytes, RegionId, limits::SPLIT_REGIONS_MAX};

use super::{PdService, messages::split_ids_to_proto};
use crate::convert;

/// How often it is looked whether regions were split, at most, whatever a client asks for.
const LOOKS_MAX: u64 = 30;

/// Between two looks: at first, and at most.
const LOOK_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How it stands with the keys at which a client wants regions to begin.
#[derive(Debug, Default)]
struct Splitting {
    /// The regions that begin at one of them.
    done: Vec<RegionId>,
    /// How many are not there yet.
    missing: usize,
}

impl Splitting {
    fn percentage(&self) -> u64 {
        let (done, all) = (self.done.len(), self.done.len() + self.missing);
        (100 * done).checked_div(all).map_or(100, |percentage| percentage as u64)
    }

    fn regions(&self) -> Vec<u64> {
        self.done.iter().map(|region| region.0).collect()
    }
}

impl PdService {
    pub(super) async fn on_ask_split(
        &self,
        request: pdpb::AskSplitRequest,
    ) -> Result<pdpb::AskSplitResponse, Status> {
        self.check(&request.header)?;
        let region = asking_region(request.region)?;
        let ids = self.scheduler.run(move |scheduler, _| scheduler.ask_split(&region)).await;
        let (header, ids) = self.split(ids.map(Some))?;
        let pdpb::SplitId { new_region_id, new_peer_ids } =
            ids.map(split_ids_to_proto).unwrap_or_default();
        Ok(pdpb::AskSplitResponse { header, new_region_id, new_peer_ids })
    }

    pub(super) async fn on_ask_batch_split(
        &self,
        request: pdpb::AskBatchSplitRequest,
    ) -> Result<pdpb::AskBatchSplitResponse, Status> {
        self.check(&request.header)?;
        let (region, count) = (asking_region(request.region)?, request.split_count);
        let ids =
            self.scheduler.run(move |scheduler, _| scheduler.ask_batch_split(&region, count)).await;
        let (header, ids) = self.split(ids)?;
        let ids = ids.into_iter().map(split_ids_to_proto).collect();
        Ok(pdpb::AskBatchSplitResponse { header, ids })
    }

    pub(super) async fn on_report_split(
        &self,
        request: pdpb::ReportSplitRequest,
    ) -> Result<pdpb::ReportSplitResponse, Status> {
        self.check(&request.header)?;
        let (Some(left), Some(right)) = (request.left, request.right) else {
            return Err(Status::unknown("invalid report of a split: a region is missing"));
        };
        let (left, right) = (convert::region(left), convert::region(right));
        let taken =
            self.scheduler.run(move |scheduler, _| scheduler.report_split(left, right)).await;
        Ok(pdpb::ReportSplitResponse { header: self.header_of(taken)? })
    }

    pub(super) async fn on_report_batch_split(
        &self,
        request: pdpb::ReportBatchSplitRequest,
    ) -> Result<pdpb::ReportBatchSplitResponse, Status> {
        self.check(&request.header)?;
        let regions = request.regions.into_iter().map(convert::region).collect();
        let taken =
            self.scheduler.run(move |scheduler, _| scheduler.report_batch_split(regions)).await;
        Ok(pdpb::ReportBatchSplitResponse { header: self.header_of(taken)? })
    }

    pub(super) async fn on_split_regions(
        &self,
        request: pdpb::SplitRegionsRequest,
    ) -> Result<pdpb::SplitRegionsResponse, Status> {
        self.check(&request.header)?;
        let splitting = self.split_at(request.split_keys, request.retry_limit).await;
        let (header, splitting) = self.split(splitting)?;
        let (finished_percentage, regions_id) = (splitting.percentage(), splitting.regions());
        Ok(pdpb::SplitRegionsResponse { header, finished_percentage, regions_id })
    }

    pub(super) async fn on_split_and_scatter_regions(
        &self,
        request: pdpb::SplitAndScatterRegionsRequest,
    ) -> Result<pdpb::SplitAndScatterRegionsResponse, Status> {
        self.check(&request.header)?;
        let splitting = self.split_at(request.split_keys, request.retry_limit).await;
        let (header, splitting) = self.split(splitting)?;
        Ok(pdpb::SplitAndScatterRegionsResponse {
            header,
            split_finished_percentage: splitting.percentage(),
            // The balancers scatter them as they scatter all others: nothing to wait for.
            scatter_finished_percentage: 100,
            regions_id: splitting.regions(),
        })
    }

    /// Asks for splits until a region begins at each of `keys`, looking `retries` times more than once; answers how far
    /// it has come by then. Stores go on with what they were asked for.
    async fn split_at(&self, keys: Vec<Bytes>, retries: u64) -> Result<Splitting, Error> {
        let keys: BTreeSet<Bytes> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let (mut interval, longest) = LOOK_INTERVAL;
        let mut looks = 1 + retries.min(LOOKS_MAX);
        loop {
            let found = self.scheduler.run(|scheduler, _| begin_splits(scheduler, &keys)).await?;
            looks -= 1;
            if found.missing == 0 || looks == 0 {
                return Ok(found);
            }
            tokio::time::sleep(interval).await;
            interval = (2 * interval).min(longest);
        }
    }
}

/// Looks which of the keys begin a region, and has the others' regions split.
fn begin_splits(
    scheduler: &mut Scheduler,
    keys: &BTreeSet<Bytes>,
) -> Result<scheduler::Answer<Splitting>, Error> {
    let mut found = Splitting::default();
    let mut wanted: BTreeMap<RegionId, Vec<Bytes>> = BTreeMap::new();
    for key in keys {
        let region = scheduler.get_region(key)?.value;
        if let Some(info) = region.as_ref().filter(|info| info.region.range.start == key) {
            found.done.push(info.region.id);
            continue;
        }
        found.missing += 1;
        if let Some(info) = region {
            wanted.entry(info.region.id).or_default().push(key.clone());
        }
    }
    for (region, mut keys) in wanted {
        keys.truncate(SPLIT_REGIONS_MAX as usize);
        // Refused while something else is done to the region: it is asked for again at the next look.
        let _ = scheduler.add_operator(region, Change::Split { keys });
    }
    Ok(scheduler::Answer { value: found, after: LogPosition::default() })
}

fn asking_region(region: Option<proto::metapb::Region>) -> Result<types::Region, Status> {
    region
        .map(convert::region)
        .ok_or_else(|| Status::unknown("invalid split request: the region is missing"))
}
