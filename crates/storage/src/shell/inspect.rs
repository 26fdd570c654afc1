//! Transactional records as they lie there, for who lists or repairs them: no version is read at, and nobody's commit is
//! held back.

use std::sync::Arc;

use engine::Snapshot;
use types::{KeyRange, Region, RequestContext, key};

use super::Storage;
use crate::{Error, Result, regions};

impl Storage {
    /// Looks at what is applied in a region that is led here, now. Of a long look, a part at a time: it runs on the calling
    /// thread.
    ///
    /// # Errors
    /// As of raw reads.
    pub async fn txn_look<T>(
        &self,
        ctx: &RequestContext,
        look: impl FnOnce(&dyn Snapshot, &Region) -> Result<T, txn::Error>,
    ) -> Result<T> {
        let (snapshot, region) = self.txn_snapshot(ctx).await?;
        look(&*snapshot, &region).map_err(|error| self.txn_error(error))
    }

    /// Looks at what is applied on this store, whatever its regions are and whoever leads them.
    ///
    /// # Errors
    /// Those of the engine, and the mode does not keep transactional data.
    pub fn look_locally<T>(
        &self,
        ctx: &RequestContext,
        look: impl FnOnce(&dyn Snapshot) -> Result<T, txn::Error>,
    ) -> Result<T> {
        self.inner().check_txn_read(ctx, &[])?;
        let snapshot = self.view()?.into_snapshot();
        look(&*snapshot).map_err(|error| self.txn_error(error))
    }

    /// Whether the user's keys of `range` lie in the region that a request is for; empty bounds are no bounds.
    ///
    /// # Errors
    /// `KeyNotInRegion`, and as of raw writes.
    pub fn check_txn_range(&self, ctx: &RequestContext, range: &KeyRange) -> Result<()> {
        let checks = self.inner().checks();
        self.inner().check_txn_read(ctx, &[])?;
        let region = checks.regions.check(ctx)?;
        let stored = txn::layout::stored_range(range);
        if stored.is_empty() || region.range.covers(&stored) {
            return Ok(());
        }
        let is_start_inside = region.range.contains(&stored.start);
        let outside = if is_start_inside { &range.end } else { &range.start };
        Err(regions::key_not_in_region(&region, &key::encode(outside)))
    }

    /// The present moment of a region that is led here.
    pub(super) async fn txn_snapshot(
        &self,
        ctx: &RequestContext,
    ) -> Result<(Arc<dyn Snapshot>, Arc<Region>)> {
        let ctx = &RequestContext { replica_read: false, ..*ctx };
        self.inner().check_txn_read(ctx, &[])?;
        match self.view()?.region(ctx) {
            Err(Error::LeaseLapsed) => self.view_by_index(ctx).await?.region(ctx),
            view => view,
        }
    }
}
