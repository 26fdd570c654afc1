//! Which store serves a key: what clients of TiKV keep of the scheduler's knowledge.
//!
//! A [`Route`] is a region with its leader's store and the context that requests to it carry. Routes come from the
//! scheduler by the calls every client makes (GetMembers, GetRegion, GetStore, GetAllStores), are kept until a store refuses one,
//! and are then asked for again. The echo server has one route for all keys and no scheduler.
//!
//! Invariant: the routes of the table do not overlap; a gap means that somebody has to ask.
//!
//! This is deliberately smaller than the client crate: the same few instructions per request against every target.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use bytes::Bytes;
use proto::{errorpb, kvrpcpb, metapb, pdpb, pdpb::pd_client::PdClient};
use tokio::sync::Mutex;
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use types::{ApiMode, KeyRange, key, limits};

use super::{
    OpError,
    wire::{self, UnaryClient, context_field},
};
use crate::error::Error;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a look-up is tried while the scheduler knows no leader.
const LOOK_UP_ATTEMPTS: u32 = 50;

/// Pause between those tries.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

/// Opens channels that connect when they are used. All targets get the same settings.
pub(super) fn channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    let uri =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(limits::GRPC_WINDOW_BYTES)
        .initial_connection_window_size(limits::GRPC_WINDOW_BYTES)
        .connect_lazy())
}

/// A store with its connections.
#[derive(Debug)]
pub(crate) struct Store {
    /// Its id.
    pub(crate) id: u64,
    /// Where it listens (host:port).
    pub(crate) address: String,
    /// Where it offers metrics; empty if it does not say.
    pub(crate) status_address: String,
    /// One channel per connection.
    pub(super) channels: Vec<Channel>,
}

impl Store {
    fn open(store: metapb::Store, connections: usize) -> Result<Store, tonic::transport::Error> {
        let channels =
            (0..connections).map(|_| channel(&store.address)).collect::<Result<_, _>>()?;
        Ok(Store {
            id: store.id,
            address: store.address,
            status_address: store.status_address,
            channels,
        })
    }

    /// A client for streams on connection number `connection`.
    pub(super) fn stream_client(&self, connection: usize) -> Grpc<Channel> {
        Grpc::new(self.channels[connection].clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }

    /// A client for unary calls on connection number `connection`.
    pub(super) fn unary_client(&self, connection: usize) -> UnaryClient {
        wire::unary_client(self.channels[connection].clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

/// A region, where its leader is, and what requests to it carry.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its keys, as clients send them.
    range: KeyRange,
    /// Goes with every request.
    pub(crate) context: kvrpcpb::Context,
    /// The same, encoded as the field of a request.
    pub(crate) context_field: Bytes,
    /// The leader's store.
    pub(crate) store: Rc<Store>,
}

impl Route {
    fn new(range: KeyRange, context: kvrpcpb::Context, store: Rc<Store>) -> Rc<Route> {
        let context_field = context_field(&context);
        Rc::new(Route { range, context, context_field, store })
    }

    /// Whether `key` belongs to it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.range.contains(key)
    }

    /// The end of its keys, or `end` if that comes first.
    pub(crate) fn end_before<'a>(&'a self, end: &'a Bytes) -> &'a Bytes {
        let own = &self.range.end;
        if own.is_empty() || end < own { end } else { own }
    }
}

/// Disjoint routes in ascending order.
#[derive(Debug, Default)]
struct RouteTable(Vec<Rc<Route>>);

impl RouteTable {
    fn find(&self, key: &[u8]) -> Option<&Rc<Route>> {
        let after = self.0.partition_point(|route| &route.range.start[..] <= key);
        self.0[..after].last().filter(|route| route.contains(key))
    }

    /// Adds a route in place of all that it overlaps.
    fn insert(&mut self, route: Rc<Route>) {
        self.0.retain(|old| old.range.intersect(&route.range).is_empty());
        let at = self.0.partition_point(|old| old.range.start < route.range.start);
        self.0.insert(at, route);
    }
}

/// The routes of a cluster, shared by all connections to it.
#[derive(Debug)]
pub(crate) struct Routes {
    api: ApiMode,
    connections: usize,
    table: RefCell<RouteTable>,
    /// `None` for the echo server. One look-up at a time: the others find its result.
    scheduler: Option<Mutex<Scheduler>>,
}

/// The connection to the scheduler's leader, and what it said about stores.
#[derive(Debug)]
struct Scheduler {
    endpoint: String,
    client: PdClient<Channel>,
    cluster_id: u64,
    stores: HashMap<u64, Rc<Store>>,
}

impl Routes {
    /// One store for all keys, without a scheduler.
    pub(crate) fn fixed(address: String, connections: usize) -> Result<Routes, Error> {
        let store = Store::open(
            metapb::Store { id: 1, address: address.clone(), ..Default::default() },
            connections,
        )
        .map_err(|error| Error::Store { address, reason: error.to_string() })?;
        let context = kvrpcpb::Context {
            region_id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peer: Some(metapb::Peer { id: 1, store_id: 1, ..Default::default() }),
            ..Default::default()
        };
        let route = Route::new(KeyRange::all(), context, Rc::new(store));
        let table = RefCell::new(RouteTable(vec![route]));
        Ok(Routes { api: ApiMode::V1, connections, table, scheduler: None })
    }

    /// Finds the scheduler's leader through any of `endpoints`.
    pub(crate) async fn connect(
        endpoints: &[String],
        api: ApiMode,
        connections: usize,
    ) -> Result<Routes, Error> {
        let scheduler = Scheduler::connect(endpoints).await?;
        let scheduler = Some(Mutex::new(scheduler));
        Ok(Routes { api, connections, table: RefCell::default(), scheduler })
    }

    /// Looks up every route of the keys from `first` to `last`.
    pub(crate) async fn prefetch(&self, first: &Bytes, last: &Bytes) -> Result<(), Error> {
        let Some(scheduler) = &self.scheduler else { return Ok(()) };
        let mut scheduler = scheduler.lock().await;
        let mut key = first.clone();
        loop {
            let route = self.look_up(&mut scheduler, &key, None).await?;
            let end = route.range.end.clone();
            self.table.borrow_mut().insert(route);
            if end.is_empty() || *last < end {
                return Ok(());
            }
            key = end;
        }
    }

    /// The route of a key, if it is known.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Rc<Route>> {
        self.table.borrow().find(key).cloned()
    }

    /// Every store that a route leads to.
    pub(crate) fn stores(&self) -> Vec<Rc<Store>> {
        let mut stores: Vec<Rc<Store>> =
            self.table.borrow().0.iter().map(|route| route.store.clone()).collect();
        stores.sort_by_key(|store| store.id);
        stores.dedup_by_key(|store| store.id);
        stores
    }

    /// Addresses and status addresses of all stores of the cluster: those that only follow have their part in a write
    /// too. If the scheduler does not say, of those that routes lead to.
    pub(crate) async fn addresses(&self) -> Vec<(String, String)> {
        if let Some(scheduler) = &self.scheduler
            && let Some(stores) = scheduler.lock().await.all_stores().await
        {
            return stores;
        }
        let of = |store: Rc<Store>| (store.address.clone(), store.status_address.clone());
        self.stores().into_iter().map(of).collect()
    }

    /// A store does not answer: asks for its routes again when they are needed. Does nothing without a scheduler.
    pub(crate) fn forget(&self, store_id: u64) {
        if self.scheduler.is_some() {
            self.table.borrow_mut().0.retain(|route| route.store.id != store_id);
        }
    }

    /// Asks for the route of `key` again after `failed` was refused with `leader` as a hint. Returns at once if
    /// somebody else has done so meanwhile.
    pub(crate) async fn refresh(
        &self,
        key: &[u8],
        failed: Option<&Rc<Route>>,
        leader: Option<&metapb::Peer>,
    ) -> Result<Rc<Route>, OpError> {
        let known = |table: &RouteTable| {
            table
                .find(key)
                .filter(|route| failed.is_none_or(|failed| !Rc::ptr_eq(route, failed)))
                .cloned()
        };
        let Some(scheduler) = &self.scheduler else {
            return self.find(key).ok_or_else(|| OpError::Region("no route".to_owned()));
        };
        let mut scheduler = scheduler.lock().await;
        if let Some(route) = known(&self.table.borrow()) {
            return Ok(route);
        }
        let route = self
            .look_up(&mut scheduler, key, leader)
            .await
            .map_err(|error| OpError::Region(error.to_string()))?;
        self.table.borrow_mut().insert(route.clone());
        Ok(route)
    }

    /// The route of `key` as the scheduler knows it, or with the leader that a store named.
    async fn look_up(
        &self,
        scheduler: &mut Scheduler,
        key: &[u8],
        hint: Option<&metapb::Peer>,
    ) -> Result<Rc<Route>, Error> {
        let stored_key =
            if self.api == ApiMode::V2 { key::encode(key) } else { Bytes::copy_from_slice(key) };
        let mut reason = String::new();
        for attempt in 0..LOOK_UP_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(LOOK_UP_PAUSE).await;
            }
            let request = pdpb::GetRegionRequest {
                header: Some(scheduler.header()),
                region_key: stored_key.clone(),
                need_buckets: false,
            };
            let response = scheduler
                .client
                .get_region(request)
                .await
                .map_err(|status| scheduler.failed(&status))?;
            let response = response.into_inner();
            let Some(region) = response.region else {
                let error =
                    response.header.and_then(|header| header.error).map(|error| error.message);
                reason = error
                    .filter(|message| !message.is_empty())
                    .unwrap_or_else(|| "no region".to_owned());
                continue;
            };
            let hint = hint.filter(|hint| region.peers.iter().any(|peer| peer.id == hint.id));
            let Some(leader) = hint.cloned().or(response.leader).filter(|leader| leader.id != 0)
            else {
                reason = format!("region {} has no leader", region.id);
                continue;
            };
            let store = scheduler.store(leader.store_id, self.connections).await?;
            return Ok(Route::new(
                self.client_range(&region)?,
                self.context(&region, leader),
                store,
            ));
        }
        Err(Error::NotBootstrapped { endpoint: scheduler.endpoint.clone(), reason })
    }

    /// A region's bounds as clients know keys.
    fn client_range(&self, region: &metapb::Region) -> Result<KeyRange, Error> {
        let bound = |bound: &Bytes| match self.api {
            ApiMode::V2 if !bound.is_empty() => {
                key::decode_exact(bound).map(Bytes::from).ok_or_else(|| {
                    Error::Usage(format!(
                        "the bound {} of region {} is no V2 key: is the cluster's storage.api v2?",
                        key::display(bound),
                        region.id
                    ))
                })
            }
            _ => Ok(bound.clone()),
        };
        Ok(KeyRange { start: bound(&region.start_key)?, end: bound(&region.end_key)? })
    }

    fn context(&self, region: &metapb::Region, leader: metapb::Peer) -> kvrpcpb::Context {
        let api_version = match self.api {
            ApiMode::V1 => kvrpcpb::ApiVersion::V1,
            ApiMode::V1Ttl => kvrpcpb::ApiVersion::V1ttl,
            ApiMode::V2 => kvrpcpb::ApiVersion::V2,
        };
        kvrpcpb::Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            api_version: api_version.into(),
            ..Default::default()
        }
    }
}

impl Scheduler {
    async fn connect(endpoints: &[String]) -> Result<Scheduler, Error> {
        let mut reason = "no address was given".to_owned();
        for endpoint in endpoints {
            match Scheduler::connect_to(endpoint).await {
                Ok(scheduler) => return Ok(scheduler),
                Err(error) => reason = error,
            }
        }
        Err(Error::Scheduler { endpoints: endpoints.join(","), reason })
    }

    /// Asks one member who leads, and connects there.
    async fn connect_to(endpoint: &str) -> Result<Scheduler, String> {
        let mut client = PdClient::new(channel(endpoint).map_err(|error| error.to_string())?);
        let request = client.get_members(pdpb::GetMembersRequest::default());
        let members = tokio::time::timeout(CONNECT_TIMEOUT, request)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| describe(&status))?
            .into_inner();
        let cluster_id = members.header.map_or(0, |header| header.cluster_id);
        let leader = members.leader.and_then(|leader| leader.client_urls.into_iter().next());
        let leader = leader.ok_or("it knows no leader")?;
        if leader.trim_start_matches("http://").trim_end_matches('/') != endpoint {
            client = PdClient::new(channel(&leader).map_err(|error| error.to_string())?);
        }
        Ok(Scheduler { endpoint: leader, client, cluster_id, stores: HashMap::new() })
    }

    fn header(&self) -> pdpb::RequestHeader {
        pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() }
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        Error::Scheduler { endpoints: self.endpoint.clone(), reason: describe(status) }
    }

    async fn all_stores(&mut self) -> Option<Vec<(String, String)>> {
        let header = Some(self.header());
        let request = pdpb::GetAllStoresRequest { header, exclude_tombstone_stores: true };
        let stores = self.client.get_all_stores(request).await.ok()?.into_inner().stores;
        Some(stores.into_iter().map(|store| (store.address, store.status_address)).collect())
    }

    async fn store(&mut self, store_id: u64, connections: usize) -> Result<Rc<Store>, Error> {
        if let Some(store) = self.stores.get(&store_id) {
            return Ok(store.clone());
        }
        let request = pdpb::GetStoreRequest { header: Some(self.header()), store_id };
        let response = self
            .client
            .get_store(request)
            .await
            .map_err(|status| self.failed(&status))?
            .into_inner();
        let store = response.store.ok_or_else(|| Error::NotBootstrapped {
            endpoint: self.endpoint.clone(),
            reason: format!("it does not know store {store_id}"),
        })?;
        let address = store.address.clone();
        let store = Store::open(store, connections)
            .map_err(|error| Error::Store { address, reason: error.to_string() })?;
        let store = Rc::new(store);
        self.stores.insert(store_id, store.clone());
        Ok(store)
    }
}

fn describe(status: &tonic::Status) -> String {
    // tonic hides the cause (connection refused, say) in the source.
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What a region error asks the client to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Retry {
    /// Ask for the route again; the store may have named the leader.
    Reroute(Option<metapb::Peer>),
    /// Wait.
    BackOff,
    /// Give up.
    Never,
}

/// Classifies a region error.
pub(super) fn retry(error: &errorpb::Error) -> Retry {
    if let Some(not_leader) = &error.not_leader {
        return Retry::Reroute(not_leader.leader);
    }
    let reroute = error.region_not_found.is_some()
        || error.key_not_in_region.is_some()
        || error.epoch_not_match.is_some()
        || error.store_not_match.is_some()
        || error.stale_command.is_some();
    if reroute {
        Retry::Reroute(None)
    } else if error.raft_entry_too_large.is_some() || error.undetermined_result.is_some() {
        Retry::Never
    } else {
        Retry::BackOff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(start: &str, end: &str) -> Rc<Route> {
        let (address, status_address) = (String::new(), String::new());
        let store = Store { id: 1, address, status_address, channels: Vec::new() };
        let range = KeyRange::new(start.to_owned(), end.to_owned());
        Route::new(range, kvrpcpb::Context::default(), Rc::new(store))
    }

    fn ranges(table: &RouteTable) -> Vec<(&str, &str)> {
        table
            .0
            .iter()
            .map(|route| {
                let (start, end) = (&route.range.start, &route.range.end);
                (std::str::from_utf8(start).unwrap(), std::str::from_utf8(end).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_new_route_replaces_what_it_overlaps() {
        let mut table = RouteTable::default();
        table.insert(route("", ""));
        table.insert(route("m", ""));
        assert_eq!(ranges(&table), [("m", "")], "the old one overlapped");
        table.insert(route("", "g"));
        table.insert(route("g", "m"));
        assert_eq!(ranges(&table), [("", "g"), ("g", "m"), ("m", "")]);
        table.insert(route("f", "n"));
        assert_eq!(ranges(&table), [("f", "n")]);
    }

    #[test]
    fn gaps_are_not_found() {
        let mut table = RouteTable::default();
        table.insert(route("b", "d"));
        table.insert(route("f", ""));
        let found = |key: &str| table.find(key.as_bytes()).is_some();
        assert_eq!(
            ["a", "b", "c", "d", "e", "f", "z"].map(found),
            [false, true, true, false, false, true, true]
        );
    }

    #[test]
    fn region_errors_say_what_to_do() {
        let peer = metapb::Peer { id: 3, store_id: 2, ..Default::default() };
        let not_leader = errorpb::NotLeader { region_id: 1, leader: Some(peer) };
        let error = errorpb::Error { not_leader: Some(not_leader), ..Default::default() };
        assert_eq!(retry(&error), Retry::Reroute(Some(peer)));
        let error =
            errorpb::Error { epoch_not_match: Some(Default::default()), ..Default::default() };
        assert_eq!(retry(&error), Retry::Reroute(None));
        let error =
            errorpb::Error { server_is_busy: Some(Default::default()), ..Default::default() };
        assert_eq!(retry(&error), Retry::BackOff);
        let error =
            errorpb::Error { undetermined_result: Some(Default::default()), ..Default::default() };
        assert_eq!(retry(&error), Retry::Never);
    }
}
