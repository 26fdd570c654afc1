//! A store to test: an engine, a clock that stands still, a storage, and contexts that fit.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use engine::{Engine, MemoryEngine};
use runtime::{Clock, sim::SimClock};
use storage::{Commits, KvPair, RawScan, Storage, StorageOptions, StoreIdent, identity};
use types::{
    ApiMode, ApiVersion, Bytes, ClusterId, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    RequestContext, StoreId, key,
};

/// The date at which every test begins, in seconds since 1970.
pub(crate) const BEGIN_S: u64 = 1_000_000;

/// The store's id. Regions are numbered 10, 20, …, their peers 11, 21, ….
pub(crate) const STORE: StoreId = StoreId(1);

/// A store.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) storage: Storage,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) api: ApiMode,
}

impl Store {
    /// A new store in memory. The caller commits.
    pub(crate) fn new(api: ApiMode) -> Store {
        Store::with(
            api,
            Arc::new(MemoryEngine::new()),
            StorageOptions { commits: Commits::ByCaller, ..Default::default() },
        )
    }

    /// A new store on an empty engine.
    pub(crate) fn with(api: ApiMode, engine: Arc<dyn Engine>, options: StorageOptions) -> Store {
        bootstrap(&*engine, api);
        let clock = Arc::new(SimClock::new(Duration::from_secs(BEGIN_S)));
        Store::open(engine, clock, options)
    }

    /// A store that was bootstrapped before.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        clock: Arc<SimClock>,
        options: StorageOptions,
    ) -> Store {
        let storage =
            Storage::open(engine.clone(), clock.clone() as Arc<dyn Clock>, options).unwrap();
        let api = storage.ident().api;
        Store { storage, engine, clock, api }
    }

    /// The context of a client that knows where `user_key` is.
    pub(crate) fn context(&self, user_key: &[u8]) -> RequestContext {
        let stored = if self.api == ApiMode::V2 {
            key::encode(user_key)
        } else {
            Bytes::copy_from_slice(user_key)
        };
        let regions = self.storage.regions();
        let region = regions
            .iter()
            .find(|region| region.range.contains(&stored))
            .expect("regions cover every key");
        RequestContext {
            region_id: region.id,
            epoch: Some(region.epoch),
            peer_id: region.peers[0].id,
            store_id: STORE,
            replica_read: false,
            stale_read: false,
            api_version: match self.api {
                ApiMode::V1 | ApiMode::V1Ttl => ApiVersion::V1,
                ApiMode::V2 => ApiVersion::V2,
            },
        }
    }

    /// Commits until `future` is ready.
    pub(crate) fn settle<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            assert!(self.storage.commit_once(), "nothing waits, and the future is not ready");
        }
    }

    /// Puts in the column family default.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let ctx = self.context(key.as_bytes());
        self.settle(self.storage.raw_put(&ctx, "", bytes(key), bytes(value), 0)).unwrap();
    }

    /// Gets from the column family default.
    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.storage
            .view()
            .unwrap()
            .raw_get(&self.context(key.as_bytes()), "", key.as_bytes())
            .unwrap()
    }

    /// Every pair of the column family default, where there is one region.
    pub(crate) fn all(&self) -> Vec<KvPair> {
        let scan = RawScan { limit: 10_000, ..RawScan::default() };
        self.storage.view().unwrap().raw_scan(&self.context(b""), &scan).unwrap()
    }
}

/// Makes `engine` a store of mode `api`.
pub(crate) fn bootstrap(engine: &dyn Engine, api: ApiMode) {
    let ident = StoreIdent { cluster_id: ClusterId(7), store_id: STORE, api };
    let regions: Vec<Region> = identity::bootstrap_ranges(api)
        .into_iter()
        .zip(1..)
        .map(|(range, n)| Region {
            id: RegionId(10 * n),
            range,
            epoch: RegionEpoch::FIRST,
            peers: vec![Peer { id: PeerId(10 * n + 1), store_id: STORE, role: PeerRole::Voter }],
        })
        .collect();
    identity::bootstrap(engine, &ident, &regions).unwrap();
}

/// `text` as bytes.
pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A pair of texts.
pub(crate) fn pair(key: &str, value: &str) -> KvPair {
    KvPair { key: bytes(key), value: bytes(value) }
}
