//! A database inside the caller's process, without a network.

use std::{path::Path, sync::Arc};

use server::{Config, Roles, Server, config::EngineKind};
use storage::{KvPair, RawScan, Storage};
use tokio::runtime::Runtime;
use types::{ApiMode, ApiVersion, Bytes, Code, PeerId, Region, RequestContext, limits};

use crate::{Cf, Error, Result, cluster::stop_runtime};

/// How to open a [`Db`].
#[derive(Clone, Debug)]
pub struct DbBuilder {
    config: Config,
}

impl DbBuilder {
    /// Budget for caches and buffers together.
    pub fn memory_limit(mut self, bytes: u64) -> DbBuilder {
        self.config.memory.limit = server::config::ByteSize(bytes);
        self
    }

    /// Stores values with a time to live (API mode v1ttl). Fixed when the database is created.
    pub fn with_ttl(mut self) -> DbBuilder {
        self.config.storage.api = ApiMode::V1Ttl;
        self
    }

    /// Every other setting.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> DbBuilder {
        change(&mut self.config);
        self
    }

    /// Opens the database in `dir`, creating it if it is missing.
    ///
    /// # Errors
    /// The folder is in use by another process, damaged, of a newer format, or of something else.
    pub fn open(mut self, dir: impl AsRef<Path>) -> Result<Db> {
        self.config.node.data_dir = dir.as_ref().to_path_buf();
        let runtime = crate::runtime(1)?;
        let config = self.config;
        // On a thread of the runtime, since the caller's may belong to another one, which forbids waiting.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            let _ = sender.send(Server::start(config, Roles::ALL).await);
        });
        let server =
            receiver.recv().map_err(|_| Error::new(Code::Bug, "the start did not end"))??;
        let storage = server.storage().expect("has the store's role").clone();
        let regions = storage.regions();
        Ok(Db { storage, regions, server: Some(server), runtime: Some(Arc::new(runtime)) })
    }
}

/// A database: ordered keys and values, on disk, in this process. Writes return once they are durable; those of
/// several threads share a sync. Its folder is that of a whole cluster, which `tinykv dev --data DIR` serves later.
///
/// In API mode v2 keys carry their keyspace prefix, as clients send them.
#[derive(Debug)]
pub struct Db {
    storage: Storage,
    /// In the order of their keys; an embedded store never changes them.
    regions: Vec<Region>,
    server: Option<Server>,
    runtime: Option<Arc<Runtime>>,
}

impl Db {
    /// A database to configure.
    pub fn builder() -> DbBuilder {
        let mut config = Config::default();
        config.storage.engine = EngineKind::Fjall;
        // No sockets.
        config.server.addr = String::new();
        config.server.status_addr = String::new();
        config.scheduler.addr = String::new();
        DbBuilder { config }
    }

    /// Opens the database in `dir` with default settings, creating it if it is missing.
    ///
    /// # Errors
    /// As [`DbBuilder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Db> {
        Db::builder().open(dir)
    }

    /// The value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        Ok(self.storage.view()?.raw_get(&self.context(key), "", key)?)
    }

    /// Sets `key` to `value`.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.put_for(key, value, 0)
    }

    /// Sets `key` to `value` for `ttl_s` seconds; 0 is for good.
    pub fn put_for(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl_s: u64,
    ) -> Result<()> {
        let key = key.into();
        Ok(self.storage.raw_put(&self.context(&key), "", key, value.into(), ttl_s).wait()?)
    }

    /// Removes `key`, if it is there.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        Ok(self.storage.raw_delete(&self.context(&key), "", key).wait()?)
    }

    /// Sets `key` to `new` (`None`: removes it) if its value is `expected` (`None`: if there is none). Returns
    /// whether it did, and the value that was there.
    pub fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<(bool, Option<Bytes>)> {
        let key = key.into();
        let context = self.context(&key);
        let swapped =
            self.storage.raw_compare_and_swap(&context, "", key, expected, new, 0).wait()?;
        Ok((swapped.succeeded, swapped.previous))
    }

    /// Up to `limit` pairs from `start` up to but without `end` (empty: no bound), in order.
    ///
    /// One answer has at most [`limits::SCAN_PAIRS_MAX`] pairs and about [`limits::SCAN_BYTES_MAX`] bytes; to go on,
    /// scan from behind its last key.
    pub fn scan(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let scan = RawScan { start: start.into(), end: end.into(), limit, ..RawScan::default() };
        let pairs = self.storage.view()?.raw_scan(&self.context(&scan.start), &scan)?;
        Ok(pairs.into_iter().map(|KvPair { key, value }| (key, value)).collect())
    }

    /// Removes every key from `start` up to but without `end` (empty: no bound).
    pub fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        let (start, end) = (start.into(), end.into());
        Ok(self
            .storage
            .raw_delete_range(&self.context(&start), Cf::Default.name(), start, end)
            .wait()?)
    }

    /// Makes everything durable and stops. Dropping does the same without telling of a failure.
    pub fn close(mut self) -> Result<()> {
        self.stop()
    }

    /// The region of `key`, as a client would name it.
    fn context(&self, key: &[u8]) -> RequestContext {
        let ident = self.storage.ident();
        let (stored, api_version) = match ident.api {
            ApiMode::V1 => (Bytes::copy_from_slice(key), ApiVersion::V1),
            ApiMode::V1Ttl => (Bytes::copy_from_slice(key), ApiVersion::V1Ttl),
            ApiMode::V2 => (types::key::encode(key), ApiVersion::V2),
        };
        let found =
            self.regions.partition_point(|region| region.range.start <= stored).saturating_sub(1);
        let region = &self.regions[found];
        RequestContext {
            region_id: region.id,
            epoch: Some(region.epoch),
            peer_id: region.peer_on(ident.store_id).map_or_else(PeerId::default, |peer| peer.id),
            store_id: ident.store_id,
            api_version,
        }
    }

    fn stop(&mut self) -> Result<()> {
        let (Some(server), Some(runtime)) = (self.server.take(), self.runtime.take()) else {
            return Ok(());
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            server.shutdown(limits::DRAIN_TIMEOUT).await;
            let _ = sender.send(());
        });
        let stopped = receiver.recv();
        stop_runtime(runtime);
        stopped.map_err(|_| Error::new(Code::Bug, "the stop did not end"))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // A failure here was, or will be, the answer to a write.
        let _ = self.stop();
    }
}
