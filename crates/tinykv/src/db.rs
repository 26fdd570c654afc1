//! A database inside the caller's process, without a network.

use std::{path::Path, sync::Arc};

use server::{Config, Roles, Server, config::EngineKind};
use storage::{KvPair, RawScan, Storage};
use tokio::runtime::Runtime;
use types::{ApiMode, ApiVersion, Bytes, Code, ErrorClass, PeerId, Region, RequestContext, limits};

use crate::{Cf, Error, Result, cluster::stop_runtime};

/// How often something is tried again whose region changes, and how long it waits before that.
const ATTEMPTS_MAX: u32 = 5_000;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// Bytes of a kind and the id of a keyspace, at the front of a key in API mode v2.
const KEYSPACE_PREFIX: usize = 4;

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
        Ok(Db { storage, server: Some(server), runtime: Some(Arc::new(runtime)) })
    }
}

/// A database: ordered keys and values, on disk, in this process. Writes return once they are durable; those of
/// several threads share a sync. Its folder is that of a whole cluster, which `tinykv dev --data DIR` serves later.
///
/// In API mode v2 keys carry their keyspace prefix, as clients send them.
#[derive(Debug)]
pub struct Db {
    storage: Storage,
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
        self.at(key, |context| self.storage.view()?.raw_get(context, "", key))
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
        let (key, value) = (key.into(), value.into());
        self.at(&key, |context| {
            self.storage.raw_put(context, "", key.clone(), value.clone(), ttl_s).wait()
        })
    }

    /// Removes `key`, if it is there.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        self.at(&key, |context| self.storage.raw_delete(context, "", key.clone()).wait())
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
        let swapped = self.at(&key, |context| {
            let (key, expected, new) = (key.clone(), expected.clone(), new.clone());
            self.storage.raw_compare_and_swap(context, "", key, expected, new, 0).wait()
        })?;
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
        let (mut start, end): (Bytes, Bytes) = (start.into(), end.into());
        let mut found = Vec::new();
        loop {
            let left = limit - found.len();
            let scan = RawScan {
                start: start.clone(),
                end: end.clone(),
                limit: left,
                ..RawScan::default()
            };
            let (pairs, region) =
                self.in_region(&start, |context| self.storage.view()?.raw_scan(context, &scan))?;
            found.extend(pairs.into_iter().map(|KvPair { key, value }| (key, value)));
            match self.user_bound(&start, &region.range.end) {
                Some(next) if found.len() < limit && (end.is_empty() || next < end) => start = next,
                _ => return Ok(found),
            }
        }
    }

    /// Removes every key from `start` up to but without `end` (empty: no bound).
    pub fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        let (mut start, end): (Bytes, Bytes) = (start.into(), end.into());
        loop {
            let mut next = None;
            self.in_region(&start, |context| {
                let region = self.storage.region_at(&self.stored(&start));
                let bound = region.and_then(|region| self.user_bound(&start, &region.range.end));
                next = bound.filter(|bound| end.is_empty() || *bound < end);
                let last = next.clone().unwrap_or_else(|| end.clone());
                self.storage
                    .raw_delete_range(context, Cf::Default.name(), start.clone(), last)
                    .wait()
            })?;
            match next {
                Some(next) => start = next,
                None => return Ok(()),
            }
        }
    }

    /// Makes everything durable and stops. Dropping does the same without telling of a failure.
    pub fn close(mut self) -> Result<()> {
        self.stop()
    }

    /// Does something where `key` lies.
    fn at<T>(
        &self,
        key: &[u8],
        what: impl FnMut(&RequestContext) -> storage::Result<T>,
    ) -> Result<T> {
        self.in_region(key, what).map(|(done, _)| done)
    }

    /// Does something in the region of `key`, again if that changes meanwhile; returns the region too.
    fn in_region<T>(
        &self,
        key: &[u8],
        mut what: impl FnMut(&RequestContext) -> storage::Result<T>,
    ) -> Result<(T, Arc<Region>)> {
        let stored = self.stored(key);
        let ident = self.storage.ident();
        let api_version = match ident.api {
            ApiMode::V1 => ApiVersion::V1,
            ApiMode::V1Ttl => ApiVersion::V1Ttl,
            ApiMode::V2 => ApiVersion::V2,
        };
        let mut attempts = 0;
        loop {
            let region = self.storage.region_at(&stored).unwrap_or_default();
            let context = RequestContext {
                region_id: region.id,
                epoch: Some(region.epoch),
                peer_id: region
                    .peer_on(ident.store_id)
                    .map_or_else(PeerId::default, |peer| peer.id),
                store_id: ident.store_id,
                api_version,
                replica_read: false,
                stale_read: false,
            };
            match what(&context) {
                Ok(done) => return Ok((done, region)),
                Err(error) if attempts < ATTEMPTS_MAX && is_passing(&error) => {
                    attempts += 1;
                    std::thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn stored(&self, key: &[u8]) -> Bytes {
        match self.storage.ident().api {
            ApiMode::V1 | ApiMode::V1Ttl => Bytes::copy_from_slice(key),
            ApiMode::V2 => types::key::encode(key),
        }
    }

    /// The key that a user knows at the end of the region of `start`; `None`: nothing more is to be looked for.
    fn user_bound(&self, start: &[u8], bound: &Bytes) -> Option<Bytes> {
        if bound.is_empty() {
            return None;
        }
        match self.storage.ident().api {
            ApiMode::V1 | ApiMode::V1Ttl => Some(bound.clone()),
            // Nothing leaves the keyspace in which it begins.
            ApiMode::V2 => types::key::decode_exact(bound)
                .filter(|bound| bound.get(..KEYSPACE_PREFIX) == start.get(..KEYSPACE_PREFIX))
                .map(Bytes::from),
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

/// Whether a region was being cut, or was not led yet.
fn is_passing(error: &storage::Error) -> bool {
    matches!(error.class(), ErrorClass::Reroute | ErrorClass::BackOff)
}

impl Drop for Db {
    fn drop(&mut self) {
        // A failure here was, or will be, the answer to a write.
        let _ = self.stop();
    }
}
