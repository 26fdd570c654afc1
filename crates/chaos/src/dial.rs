//! The calls of chaos on the product: through the client crate, and for ids, which applications do not ask for,
//! through the scheduler's own service.
//!
//! Writes without an answer are reported, never sent again by the client: the ledger must know of every sending. What
//! the client calls a failure it must mean: an error that is not "undetermined" counts as certainly without effect, so
//! that a client or server that says so wrongly is found out.

use std::time::Duration;

use bytes::Bytes;
use client::{
    CallOptions, Client, Kind, Options, RawClient, RegionInfo, StoreInfo, call::AmbiguousWrites,
};
use proto::pdpb::{AllocIdRequest, RequestHeader, pd_client::PdClient};
use tonic::transport::{Channel, Endpoint};
use types::KeyRange;

use crate::kv::{Answer, Dial, Failure, Kv, Swapped};

/// How long a call may take: longer than any pause, so that a paused process answers everything afterwards.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Dials `tinykv` by the address of its scheduler.
#[derive(Clone, Copy, Debug)]
pub struct TinykvDial {
    /// Decides the waits of retries.
    pub seed: u64,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long one store may take to answer before another one is tried.
    pub attempt: Duration,
}

impl TinykvDial {
    /// For one process: there is nobody else to ask, so every call waits for it.
    pub fn patient(seed: u64) -> TinykvDial {
        TinykvDial { seed, timeout: CALL_TIMEOUT, attempt: CALL_TIMEOUT }
    }
}

impl Dial for TinykvDial {
    type Kv = Tinykv;

    async fn dial(&self, address: &str) -> Answer<Tinykv> {
        let options = Options {
            call: CallOptions {
                timeout: self.timeout,
                attempt: self.attempt,
                ambiguous_writes: AmbiguousWrites::Report,
            },
            seed: Some(self.seed),
            ..Options::default()
        };
        let client = Client::connect([address], options).await.map_err(failure)?;
        let scheduler = Endpoint::try_from(format!("http://{address}"))
            .map_err(|error| Failure::Refused(error.to_string()))?
            .timeout(self.timeout)
            .connect_lazy();
        Ok(Tinykv { raw: client.raw(), scheduler: PdClient::new(scheduler), client })
    }
}

/// A connection to `tinykv`.
#[derive(Clone, Debug)]
pub struct Tinykv {
    client: Client,
    raw: RawClient,
    scheduler: PdClient<Channel>,
}

impl Tinykv {
    /// All regions, as the scheduler knows them.
    pub async fn regions(&self) -> Answer<Vec<RegionInfo>> {
        let everything = KeyRange { start: Bytes::new(), end: Bytes::new() };
        self.client.regions(everything, REGIONS_MAX).await.map_err(failure)
    }

    /// All stores, as the scheduler knows them.
    pub async fn stores(&self) -> Answer<Vec<StoreInfo>> {
        self.client.stores().await.map_err(failure)
    }
}

/// How many regions are looked at. Few keys make few regions.
const REGIONS_MAX: usize = 1000;

fn failure(error: client::Error) -> Failure {
    let text = format!("{}: {error}", error.code());
    match error.kind() {
        Kind::Undetermined | Kind::Bug => Failure::Unknown(text),
        Kind::Unavailable | Kind::Refused | Kind::Conflict => Failure::Refused(text),
    }
}

impl Kv for Tinykv {
    async fn get(&self, key: Bytes) -> Answer<Option<Bytes>> {
        self.raw.get(key).await.map_err(failure)
    }

    async fn put(&self, key: Bytes, value: Bytes) -> Answer<()> {
        self.raw.put(key, value).await.map_err(failure)
    }

    async fn delete(&self, key: Bytes) -> Answer<()> {
        self.raw.delete(key).await.map_err(failure)
    }

    async fn compare_and_swap(
        &self,
        key: Bytes,
        previous: Option<Bytes>,
        value: Bytes,
    ) -> Answer<Swapped> {
        let (done, previous) =
            self.raw.compare_and_swap(key, previous, Some(value), None).await.map_err(failure)?;
        Ok(Swapped { done, previous })
    }

    async fn scan(&self, start: Bytes, limit: u32) -> Answer<Vec<(Bytes, Bytes)>> {
        let range = KeyRange { start, end: Bytes::new() };
        let pairs = self.raw.scan(range, limit as usize).await.map_err(failure)?;
        Ok(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect())
    }

    async fn timestamp(&self) -> Answer<u64> {
        Ok(self.client.timestamp().await.map_err(failure)?.0)
    }

    async fn id(&self) -> Answer<u64> {
        let header =
            RequestHeader { cluster_id: self.client.cluster_id().0, ..RequestHeader::default() };
        let request = AllocIdRequest { header: Some(header), ..AllocIdRequest::default() };
        let answer = self.scheduler.clone().alloc_id(request).await;
        // Whether an id was handed out that nobody got does not matter: it must not be handed out again.
        let answer = answer.map_err(|status| Failure::Refused(status.to_string()))?.into_inner();
        match answer.header.and_then(|header| header.error) {
            Some(error) => Err(Failure::Refused(error.message)),
            None => Ok(answer.id),
        }
    }
}
