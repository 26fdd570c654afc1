//! tinykv, or any TiKV, by unary gRPC; and how the requests of both ways are made and their answers judged.
//!
//! A region error is followed as real clients do: ask the scheduler for the route again, or wait, and try again.
//! The time that takes is part of the request's latency. Only what is still wrong after [`ATTEMPTS`] tries is a failed
//! request.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use proto::{errorpb, kvrpcpb};
use tokio::task::JoinHandle;
use types::ApiMode;

use super::{
    Connection, LocalFuture, OpError, Servers, Target,
    routes::{Retry, Route, Routes, Store, retry},
    tikv_batch::BatchStream,
    wire::{self, EncodedOp, UnaryClient},
};
use crate::{
    clock, closed_loop,
    error::Error,
    keys::Dataset,
    load, open_loop,
    open_loop::Schedule,
    process,
    window::{Pace, Plan, Shared},
    workload::Op,
};

/// How often a request is tried.
pub(super) const ATTEMPTS: u32 = 12;

/// Pause before the `attempt`-th repetition: 10 ms, doubled each time, at most half a second.
pub(super) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(10 << attempt.min(6)).min(Duration::from_millis(500))
}

/// A store as target.
pub(crate) struct TikvTarget {
    name: &'static str,
    dataset: Rc<Dataset>,
    servers: Servers,
    connections: Vec<TikvConnection>,
    batch: Option<Batch>,
    /// Stops with the target.
    _owned: Option<Box<dyn std::any::Any>>,
}

struct Batch {
    size: usize,
    streams: Vec<BatchStream>,
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub(crate) struct TikvOptions {
    /// Scheduler addresses.
    pub(crate) endpoints: Vec<String>,
    /// The cluster's API mode.
    pub(crate) api: ApiMode,
    /// Connections to each store.
    pub(crate) connections: usize,
    /// Requests per message; `None` for unary requests.
    pub(crate) batch: Option<usize>,
    /// The servers' processes, where a person named them.
    pub(crate) server_pids: Vec<u32>,
    /// Where metrics are, where a person named it.
    pub(crate) status: Vec<String>,
}

impl TikvTarget {
    /// Finds the cluster and its stores.
    pub(crate) async fn open(
        options: TikvOptions,
        dataset: Rc<Dataset>,
    ) -> Result<TikvTarget, Error> {
        let routes = Routes::connect(&options.endpoints, options.api, options.connections).await?;
        routes.prefetch(&dataset.key(0), &dataset.key(dataset.count() - 1)).await?;
        let stores = routes.addresses().await;
        let mut servers = Servers { pids: options.server_pids, status: options.status };
        if servers.pids.is_empty() {
            let pids: Option<Vec<u32>> =
                stores.iter().map(|(address, _)| process::listener(address)).collect();
            servers.pids = pids.unwrap_or_default();
            // Stores of one process, or its scheduler, share a pid.
            servers.pids.sort_unstable();
            servers.pids.dedup();
        }
        if servers.status.is_empty() {
            servers.status = stores.into_iter().map(|(_, status)| status).collect();
            servers.status.sort_unstable();
            servers.status.dedup();
            servers.status.retain(|address| !address.is_empty());
        }
        Ok(TikvTarget::new(
            "tinykv",
            routes,
            servers,
            dataset,
            options.connections,
            options.batch,
            None,
        ))
    }

    /// A target with these routes; `owned` is dropped with it.
    pub(super) fn new(
        name: &'static str,
        routes: Routes,
        servers: Servers,
        dataset: Rc<Dataset>,
        connections: usize,
        batch: Option<usize>,
        owned: Option<Box<dyn std::any::Any>>,
    ) -> TikvTarget {
        let routes = Rc::new(routes);
        let connections: Vec<TikvConnection> = (0..connections)
            .map(|index| TikvConnection {
                routes: routes.clone(),
                dataset: dataset.clone(),
                index,
                client: None,
            })
            .collect();
        let batch = batch.map(|size| Batch {
            size,
            streams: (0..connections.len())
                .map(|i| BatchStream::new(routes.clone(), dataset.clone(), i))
                .collect(),
        });
        TikvTarget { name, dataset, servers, connections, batch, _owned: owned }
    }

    /// The same target, whose values are checked against another data set. For unary requests only.
    #[cfg(test)]
    pub(crate) fn with_dataset(mut self, dataset: Rc<Dataset>) -> TikvTarget {
        self.connections.iter_mut().for_each(|connection| connection.dataset = dataset.clone());
        TikvTarget { dataset, ..self }
    }
}

impl Target for TikvTarget {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dataset(&self) -> Rc<Dataset> {
        self.dataset.clone()
    }

    fn servers(&self) -> &Servers {
        &self.servers
    }

    fn batch(&self) -> Option<usize> {
        self.batch.as_ref().map(|batch| batch.size)
    }

    fn load(&self, seed: u64) -> LocalFuture<'_, Result<(), Error>> {
        Box::pin(load::ensure(&self.connections, &self.dataset, seed))
    }

    fn spawn(&self, plan: &Plan, shared: &Rc<Shared>) -> Vec<JoinHandle<()>> {
        match (plan.pace, &self.batch) {
            (Pace::Closed { in_flight }, None) => {
                closed_loop::calls(&self.connections, in_flight, shared)
            }
            (Pace::Closed { in_flight }, Some(batch)) => {
                closed_loop::batches(&batch.streams, in_flight, batch.size, shared)
            }
            (Pace::Open { rate, arrivals, outstanding_max, seed }, batch) => {
                let schedule = Schedule::new(arrivals, rate, seed, clock::now());
                match batch {
                    None => open_loop::calls(&self.connections, schedule, outstanding_max, shared),
                    Some(batch) => open_loop::batches(
                        &batch.streams,
                        batch.size,
                        schedule,
                        outstanding_max,
                        shared,
                    ),
                }
            }
        }
    }
}

/// One of the connections to each store.
#[derive(Clone)]
pub(crate) struct TikvConnection {
    routes: Rc<Routes>,
    dataset: Rc<Dataset>,
    index: usize,
    /// The client of the store that was asked last: cloning one costs an allocation.
    client: Option<(u64, UnaryClient)>,
}

impl TikvConnection {
    fn client(&mut self, store: &Store) -> &mut UnaryClient {
        let other_store = self.client.as_ref().is_none_or(|(id, _)| *id != store.id);
        if other_store {
            self.client = None;
        }
        &mut self.client.get_or_insert_with(|| (store.id, store.unary_client(self.index))).1
    }

    /// Sends the request once.
    async fn send(&mut self, route: &Route, op: &Op) -> Result<Answer, OpError> {
        let dataset = self.dataset.clone();
        let client = self.client(&route.store);
        let message = EncodedOp::new(&route.context_field, op, route.end_before(dataset.end()));
        match op {
            Op::Get { key } => {
                let response = wire::unary(client, "/tikvpb.Tikv/RawGet", message).await?;
                Ok(get_answer(&dataset, key, response))
            }
            Op::Put { .. } => {
                let response = wire::unary(client, "/tikvpb.Tikv/RawPut", message).await?;
                Ok(put_answer(response))
            }
            Op::Scan { .. } => {
                let response = wire::unary(client, "/tikvpb.Tikv/RawScan", message).await?;
                Ok(scan_answer(&dataset, response))
            }
        }
    }

    /// Where `key` is served.
    async fn route(&self, key: &[u8]) -> Result<Rc<Route>, OpError> {
        match self.routes.find(key) {
            Some(route) => Ok(route),
            None => self.routes.refresh(key, None, None).await,
        }
    }

    /// Does what a region error asks for; returns the route to try next.
    async fn recover(
        &self,
        key: &[u8],
        route: Rc<Route>,
        error: errorpb::Error,
        attempt: u32,
    ) -> Result<Rc<Route>, OpError> {
        recover(&self.routes, key, route, error, attempt).await
    }
}

/// See [`TikvConnection::recover`].
pub(super) async fn recover(
    routes: &Routes,
    key: &[u8],
    route: Rc<Route>,
    error: errorpb::Error,
    attempt: u32,
) -> Result<Rc<Route>, OpError> {
    if attempt >= ATTEMPTS {
        return Err(OpError::Region(error.message));
    }
    match retry(&error) {
        Retry::Never => Err(OpError::Region(error.message)),
        Retry::BackOff => {
            tokio::time::sleep(pause(attempt)).await;
            Ok(route)
        }
        Retry::Reroute(leader) => {
            // The first new route is tried at once; if it does not help, the scheduler may need a moment.
            if attempt > 1 {
                tokio::time::sleep(pause(attempt)).await;
            }
            routes.refresh(key, Some(&route), leader.as_ref()).await
        }
    }
}

impl Connection for TikvConnection {
    async fn call(&mut self, op: Op) -> Result<(), OpError> {
        let mut route = self.route(op.key()).await?;
        let mut attempt = 0;
        loop {
            let answer = self.send(&route, &op).await;
            if matches!(answer, Err(OpError::Rpc(_))) {
                self.routes.forget(route.store.id);
            }
            match answer? {
                Answer::Done(result) => return result,
                Answer::RegionError(error) => {
                    attempt += 1;
                    route = self.recover(op.key(), route, *error, attempt).await?;
                }
            }
        }
    }

    async fn put_many(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), OpError> {
        let mut rest = &pairs[..];
        let mut attempt = 0;
        let mut next = None;
        while let Some((first, _)) = rest.first() {
            let route = match next.take() {
                Some(route) => route,
                None => self.route(first).await?,
            };
            let here = rest.partition_point(|(key, _)| route.contains(key)).max(1);
            let request = kvrpcpb::RawBatchPutRequest {
                context: Some(route.context.clone()),
                pairs: rest[..here]
                    .iter()
                    .map(|(key, value)| kvrpcpb::KvPair {
                        key: key.clone(),
                        value: value.clone(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            };
            let client = self.client(&route.store);
            let response: kvrpcpb::RawBatchPutResponse =
                wire::unary(client, "/tikvpb.Tikv/RawBatchPut", request).await?;
            match written(response.region_error, response.error) {
                Answer::Done(result) => result?,
                Answer::RegionError(error) => {
                    attempt += 1;
                    next = Some(self.recover(first, route, *error, attempt).await?);
                    continue;
                }
            }
            attempt = 0;
            rest = &rest[here..];
        }
        Ok(())
    }
}

/// What an answer says.
#[derive(Debug)]
pub(super) enum Answer {
    /// The request has ended.
    Done(Result<(), OpError>),
    /// It went to the wrong place, or has to wait.
    RegionError(Box<errorpb::Error>),
}

pub(super) fn get_answer(
    dataset: &Dataset,
    key: &[u8],
    response: kvrpcpb::RawGetResponse,
) -> Answer {
    if let Some(error) = response.region_error {
        return Answer::RegionError(error);
    }
    Answer::Done(if !response.error.is_empty() {
        Err(OpError::Refused(response.error))
    } else if response.not_found {
        Err(OpError::Missing)
    } else {
        dataset.verify(key, &response.value)
    })
}

pub(super) fn put_answer(response: kvrpcpb::RawPutResponse) -> Answer {
    written(response.region_error, response.error)
}

fn written(region_error: Option<Box<errorpb::Error>>, error: String) -> Answer {
    match region_error {
        Some(error) => Answer::RegionError(error),
        None if error.is_empty() => Answer::Done(Ok(())),
        None => Answer::Done(Err(OpError::Refused(error))),
    }
}

pub(super) fn scan_answer(dataset: &Dataset, response: kvrpcpb::RawScanResponse) -> Answer {
    if let Some(error) = response.region_error {
        return Answer::RegionError(error);
    }
    if response.kvs.is_empty() {
        return Answer::Done(Err(OpError::Missing));
    }
    Answer::Done(response.kvs.iter().try_for_each(|pair| match &pair.error {
        Some(error) => Err(OpError::Refused(error.abort.clone())),
        None => dataset.verify(&pair.key, &pair.value),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Values;

    fn dataset() -> (Dataset, Bytes) {
        let dataset = Dataset::new(b"", 2, 64);
        let mut rng = fastrand::Rng::with_seed(1);
        let value = Values::new(64, &mut rng).build(&dataset.key(1), &mut rng);
        (dataset, value)
    }

    fn done(answer: Answer) -> Result<(), OpError> {
        match answer {
            Answer::Done(result) => result,
            Answer::RegionError(error) => panic!("region error {error:?}"),
        }
    }

    #[test]
    fn a_get_is_right_only_with_the_value_of_its_key() {
        let (dataset, value) = dataset();
        let found = kvrpcpb::RawGetResponse { value, ..Default::default() };
        assert_eq!(done(get_answer(&dataset, &dataset.key(1), found.clone())), Ok(()));
        assert_eq!(done(get_answer(&dataset, &dataset.key(0), found)), Err(OpError::Mismatch));
        let missing = kvrpcpb::RawGetResponse { not_found: true, ..Default::default() };
        assert_eq!(done(get_answer(&dataset, &dataset.key(1), missing)), Err(OpError::Missing));
        let refused = kvrpcpb::RawGetResponse { error: "no".into(), ..Default::default() };
        assert_eq!(
            done(get_answer(&dataset, &dataset.key(1), refused)),
            Err(OpError::Refused("no".into()))
        );
        // An answer without anything is no value: an empty one has no checksum.
        let empty = kvrpcpb::RawGetResponse::default();
        assert_eq!(done(get_answer(&dataset, &dataset.key(1), empty)), Err(OpError::Mismatch));
    }

    #[test]
    fn a_scan_checks_every_pair_and_wants_one() {
        let (dataset, value) = dataset();
        let pair = |index| kvrpcpb::KvPair {
            key: dataset.key(index),
            value: value.clone(),
            ..Default::default()
        };
        let scan =
            |kvs| scan_answer(&dataset, kvrpcpb::RawScanResponse { region_error: None, kvs });
        assert_eq!(done(scan(vec![pair(1), pair(1)])), Ok(()));
        assert_eq!(done(scan(vec![pair(1), pair(0)])), Err(OpError::Mismatch));
        assert_eq!(done(scan(vec![])), Err(OpError::Missing));
    }

    #[test]
    fn a_put_counts_only_when_the_answer_says_so() {
        assert_eq!(done(put_answer(kvrpcpb::RawPutResponse::default())), Ok(()));
        let refused = kvrpcpb::RawPutResponse { error: "full".into(), ..Default::default() };
        assert_eq!(done(put_answer(refused)), Err(OpError::Refused("full".into())));
        let moved =
            kvrpcpb::RawPutResponse { region_error: Some(Box::default()), ..Default::default() };
        assert!(matches!(put_answer(moved), Answer::RegionError(_)));
    }

    #[test]
    fn pauses_grow_and_stay_below_half_a_second() {
        assert_eq!(
            [1, 2, 6, 7, 100].map(|attempt| pause(attempt).as_millis()),
            [20, 40, 500, 500, 500]
        );
    }
}
