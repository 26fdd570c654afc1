//! Reads of one moment, on the caller's thread.

use std::sync::Arc;

use engine::Snapshot;
use types::{Bytes, KeyRange, Region, RequestContext};

use super::storage::Inner;
use crate::{
    Checksum, Error, KvPair, RawBatchScan, RawScan, Result, read::Reader, regions::Access,
};

/// One moment of the data: an engine snapshot and a reading of the clock.
///
/// Every read sees the same moment, so that a batch of point reads costs one snapshot. Keep it no longer than a
/// request: it keeps old versions on disk. Reads block on the disk when what they need is not cached. They never
/// latch the key mode, and go on when the disk is full.
#[derive(Clone, Debug)]
pub struct View {
    inner: Arc<Inner>,
    snapshot: Arc<dyn Snapshot>,
    access: Access,
    now_ms: u64,
}

impl View {
    pub(super) fn new(
        inner: Arc<Inner>,
        snapshot: Arc<dyn Snapshot>,
        access: Access,
        now_ms: u64,
    ) -> View {
        View { inner, snapshot, access, now_ms }
    }

    /// The snapshot, and the region that a request is for, if a read may be answered from it.
    pub(super) fn region(self, ctx: &RequestContext) -> Result<(Arc<dyn Snapshot>, Arc<Region>)> {
        let region = self.inner.checks().regions.check_read(ctx, &self.access)?;
        Ok((self.snapshot, region))
    }

    pub(super) fn into_snapshot(self) -> Arc<dyn Snapshot> {
        self.snapshot
    }

    /// The value of `key`, `None` if there is none or it has expired. An empty value is a value.
    pub fn raw_get(&self, ctx: &RequestContext, cf: &str, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(|reader| reader.get(ctx, cf, key))
    }

    /// The pairs of those `keys` that exist, in the order of `keys`. All of them must lie in the region.
    pub fn raw_batch_get(
        &self,
        ctx: &RequestContext,
        cf: &str,
        keys: &[Bytes],
    ) -> Result<Vec<KvPair>> {
        self.read(|reader| reader.batch_get(ctx, cf, keys))
    }

    /// Seconds that `key` has left, rounded up; `Some(0)` if it never expires, `None` if there is no such key.
    ///
    /// # Errors
    /// [`Error::TtlNotEnabled`] in mode v1.
    pub fn raw_key_ttl(&self, ctx: &RequestContext, cf: &str, key: &[u8]) -> Result<Option<u64>> {
        self.read(|reader| reader.key_ttl(ctx, cf, key))
    }

    /// The pairs of one range.
    ///
    /// Stops silently at the bound of the region, which is where the caller goes on; begins inside of the region, or
    /// is answered with `KeyNotInRegion`. In v2 it never leaves the raw key space.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the answer would exceed [`types::limits::SCAN_BYTES_MAX`] or
    /// [`types::limits::SCAN_PAIRS_MAX`]: a shorter answer would be taken for the end of the region.
    pub fn raw_scan(&self, ctx: &RequestContext, scan: &RawScan) -> Result<Vec<KvPair>> {
        self.read(|reader| reader.scan(ctx, scan))
    }

    /// The pairs of several ranges of one region, one range after the other; bounds and errors as in
    /// [`raw_scan`](View::raw_scan), over the whole answer.
    pub fn raw_batch_scan(&self, ctx: &RequestContext, scan: &RawBatchScan) -> Result<Vec<KvPair>> {
        self.read(|reader| reader.batch_scan(ctx, scan))
    }

    /// The checksum over the pairs of `ranges`, column family default. Reads all of them: not for a thread that
    /// others wait for.
    pub fn raw_checksum(&self, ctx: &RequestContext, ranges: &[KeyRange]) -> Result<Checksum> {
        self.read(|reader| reader.checksum(ctx, ranges))
    }

    /// A read that finds the disk failing stops the store, as a write would.
    fn read<T>(&self, read: impl FnOnce(Reader<'_>) -> Result<T>) -> Result<T> {
        let (checks, access) = (self.inner.checks(), &self.access);
        let reader = Reader { checks, access, snapshot: &*self.snapshot, now_ms: self.now_ms };
        read(reader).inspect_err(|error| {
            if let Error::Engine(error) = error {
                self.inner.on_engine_error(error);
            }
        })
    }
}
