//! What concerns ranges of keys and not single ones: KvDeleteRange, SplitRegion.

use proto::kvrpcpb::{
    DeleteRangeRequest, DeleteRangeResponse, SplitRegionRequest, SplitRegionResponse,
};
use storage::Error;
use txn::{commands::DeleteKeys, mvcc};
use types::{
    ApiVersion, Bytes, KeyRange, Region, RegionError, RequestContext, key,
    limits::{RETRY_STOPPED_AFTER, SPLIT_REGIONS_MAX},
};

use super::kv::KvService;
use crate::{convert, convert::context, errors::Answer, placement::orders::split_children};

/// Keys that one step of a deletion removes, and about how many changes it proposes at once.
const DELETED_AT_ONCE: usize = 256;
const CHANGES_AT_ONCE: usize = 2048;

impl KvService {
    /// Removes all transactional data of a range that lies in the region: every version, and locks. `notify_only` has nothing
    /// to tell to anybody here.
    pub(crate) async fn kv_delete_range(&self, request: DeleteRangeRequest) -> DeleteRangeResponse {
        let context = context(request.context.as_ref());
        let range = KeyRange { start: request.start_key, end: request.end_key };
        let checked = async { self.storage().check_txn_range(&context, &range) };
        match self.known(checked).await {
            Ok(()) if request.notify_only => return DeleteRangeResponse::default(),
            Ok(()) => {}
            Err(error) => return DeleteRangeResponse::failed(&error),
        }
        match self.known(self.delete_range(&context, range)).await {
            Ok(None) => DeleteRangeResponse::default(),
            Ok(Some(error)) => DeleteRangeResponse { error, ..Default::default() },
            Err(error) => DeleteRangeResponse::failed(&error),
        }
    }

    /// A page of keys at a time. Returns what a key has against it.
    async fn delete_range(
        &self,
        context: &RequestContext,
        mut range: KeyRange,
    ) -> Result<Option<String>, Error> {
        loop {
            let page = self.storage().txn_look(context, |snapshot, region| {
                let range = range.intersect(&storage::user_range(region));
                mvcc::find_keys(snapshot, &range, DELETED_AT_ONCE)
            });
            let mut keys = page.await?;
            let Some(last) = keys.last().cloned() else { return Ok(None) };
            while !keys.is_empty() {
                let command = DeleteKeys { keys, limit: CHANGES_AT_ONCE };
                keys = match self.storage().txn_write(context, command).await? {
                    Ok(rest) => rest,
                    Err(error) => return Ok(Some(error.to_string())),
                };
            }
            range.start = [&last[..], b"\0"].concat().into();
        }
    }

    /// Cuts a region at keys that lie in it, and answers what has come of it. Its own first key is passed over.
    pub(crate) async fn split_region(&self, request: SplitRegionRequest) -> SplitRegionResponse {
        let context = context(request.context.as_ref());
        let keys = match request.split_keys.is_empty() {
            true => vec![request.split_key],
            false => request.split_keys,
        };
        let is_stored_as_is = request.is_raw_kv && context.api_version != ApiVersion::V2;
        let stored = |name: Bytes| if is_stored_as_is { name } else { key::encode(&name) };
        if keys.iter().any(Bytes::is_empty) {
            let error = Error::InvalidRequest("an empty key is no key to split at".to_owned());
            return SplitRegionResponse::failed(&error);
        }
        let keys = keys.into_iter().map(stored).collect();
        match self.known(self.split(&context, keys)).await {
            Ok(regions) => {
                // Whoever hears of the regions may ask the scheduler for them.
                self.unreported().wait(&regions).await;
                let regions: Vec<_> = regions.iter().map(convert::region_to_proto).collect();
                let mut response = SplitRegionResponse::default();
                if let [left, right] = &regions[..] {
                    (response.left, response.right) = (Some(left.clone()), Some(right.clone()));
                }
                SplitRegionResponse { regions, ..response }
            }
            Err(error) => SplitRegionResponse::failed(&error),
        }
    }

    async fn split(
        &self,
        context: &RequestContext,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Region>, Error> {
        let (region, keys) = self.storage().check_split(context, keys)?;
        if keys.is_empty() {
            return Ok(vec![region]);
        }
        if (SPLIT_REGIONS_MAX as usize) < keys.len() {
            let reason = format!("a region is cut at {SPLIT_REGIONS_MAX} keys at most at once");
            return Err(Error::InvalidRequest(reason));
        }
        let children = split_children(self.placement(), &region, keys).await.map_err(|error| {
            let reason = format!("the scheduler gives no ids for new regions: {error}");
            RegionError::ServerIsBusy { reason, retry_after: RETRY_STOPPED_AFTER }
        })?;
        self.storage().split(&region, children).await
    }
}
