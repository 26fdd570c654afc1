//! The driver: performs what calls ask for, over gRPC, on tokio.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`Client`]: connects, and drives calls |
//! | `raw.rs` | [`RawClient`]: the raw operations as functions |
//! | `txn.rs` | [`TxnClient`]: transactions as functions |
//! | `cluster.rs` | what the scheduler knows: members, stores, regions |
//! | `pd.rs` | the scheduler's services: members, fail-over, errors |
//! | `tso.rs` | timestamps, many callers to a request |
//! | `send.rs` | one request to one store: protobuf there and back |
//! | `send_txn.rs` | the same for commands of transactions |
//! | `convert.rs` | protobuf to the inside's types |
//! | `connections.rs` | addresses, connections, and what went wrong with them |
//!
//! Nothing here decides anything about routes or retries of requests to stores; that is `call.rs`. Dropping a future
//! of the client at any point is safe; a write that was under way then has an unknown outcome.

mod cluster;
mod connections;
mod convert;
mod pd;
mod raw;
mod send;
mod send_txn;
mod tso;
mod txn;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;
use types::{ApiMode, ClusterId, KeyMode, TimeStamp};

use crate::{
    Answer, Call, CallOptions, Error, Input, KeyLayout, Output, RegionCache, Request, Result,
    request::Failure,
};

pub use cluster::{MemberInfo, RegionInfo, StoreInfo, StoreState, StoreStats};
pub use raw::RawClient;
pub use txn::{Snapshot, Transaction, TxnClient};

use connections::Connections;
use pd::Scheduler;
use tso::TimestampOracle;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How patient an operation is.
    pub call: CallOptions,
    /// Connections to each store. One is enough for little traffic; several use several cores of the store.
    pub connections_per_store: usize,
    /// How long a connection may take to come about, and a scheduler to answer one question.
    pub connect_timeout: Duration,
    /// The cluster's API mode. `None` asks the scheduler; one that cannot say (a PD) counts as v1.
    pub api_mode: Option<ApiMode>,
    /// Spreads the waits of retries. `None` draws it, so that no two clients wait alike.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            call: CallOptions::default(),
            connections_per_store: 4,
            connect_timeout: Duration::from_secs(3),
            api_mode: None,
            seed: None,
        }
    }
}

/// What is fixed or latched for the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// Which commands it takes.
    pub api_mode: ApiMode,
    /// What kind of data it holds in API mode v1; `None` is undecided, or not known.
    pub key_mode: Option<KeyMode>,
}

/// A client of one cluster. Cheap to clone; clones share connections and routes.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    scheduler: Arc<Scheduler>,
    timestamps: TimestampOracle,
    connections: Connections,
    /// Held for one step of a call, never over I/O.
    routes: Mutex<RegionCache>,
    layout: KeyLayout,
    txn_layout: KeyLayout,
    call: CallOptions,
    seed: u64,
    calls: AtomicU64,
    /// Calls count time from here.
    epoch: Instant,
}

impl Client {
    /// Connects to the cluster behind `endpoints` (`host:port` or `http://host:port` of schedulers). One answer is
    /// enough; stores are dialled when they are needed. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::SchedulerUnreachable`] with the reason of each address, after one try each. An address that is none.
    pub async fn connect<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client> {
        let scheduler = Arc::new(Scheduler::connect(endpoints, options.connect_timeout).await?);
        let api_mode = match options.api_mode {
            Some(mode) => mode,
            None => scheduler.cluster_state().await?.api_mode,
        };
        let inner = Inner {
            timestamps: TimestampOracle::new(Arc::clone(&scheduler)),
            scheduler,
            connections: Connections::new(options.connections_per_store, options.connect_timeout),
            routes: Mutex::new(RegionCache::new()),
            layout: KeyLayout::raw(api_mode),
            txn_layout: KeyLayout::txn(api_mode),
            call: options.call,
            seed: options.seed.unwrap_or_else(draw_seed),
            calls: AtomicU64::new(0),
            epoch: Instant::now(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// Which cluster this is.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.scheduler.cluster_id()
    }

    /// The layout of raw keys.
    pub fn layout(&self) -> KeyLayout {
        self.inner.layout
    }

    /// Raw operations on column family `default`, with the client's patience.
    pub fn raw(&self) -> RawClient {
        RawClient::new(self.clone(), self.inner.call)
    }

    /// The layout of transactional keys.
    pub fn txn_layout(&self) -> KeyLayout {
        self.inner.txn_layout
    }

    /// Transactions, with the client's patience.
    pub fn txn(&self) -> TxnClient {
        TxnClient::new(self.clone(), self.inner.call)
    }

    /// A timestamp that is greater than every one given out before this call, to anybody.
    ///
    /// # Errors
    /// The scheduler is unreachable.
    pub async fn timestamp(&self) -> Result<TimeStamp> {
        self.inner.timestamps.get().await
    }

    /// What is fixed or latched for the whole cluster, as of now. A PD, which has no such call, counts as v1.
    ///
    /// # Errors
    /// The scheduler is unreachable.
    pub async fn cluster_state(&self) -> Result<ClusterState> {
        self.inner.scheduler.cluster_state().await
    }

    /// Runs one operation to its end.
    pub(crate) async fn run(&self, request: Request, options: CallOptions) -> Result<Answer> {
        let inner = &*self.inner;
        let layout = inner.layout_of(&request);
        let mut call = Call::new(request, layout, options, self.next_seed());
        let mut outputs = Vec::with_capacity(1);
        let mut under_way = FuturesUnordered::new();
        let mut input = Input::Start;
        loop {
            {
                let mut routes = inner.routes.lock().expect("no step of a call panics");
                call.step(inner.epoch.elapsed(), input, &mut routes, &mut outputs);
            }
            // Most operations are one request at a time; they need no set of futures.
            input = match outputs.pop() {
                Some(Output::Done(result)) => return result,
                Some(output) if outputs.is_empty() && under_way.is_empty() => {
                    self.perform(output).await
                }
                output => {
                    under_way.extend(
                        output
                            .into_iter()
                            .chain(outputs.drain(..))
                            .map(|output| self.perform(output)),
                    );
                    under_way.next().await.expect("a call that is not done has something under way")
                }
            };
        }
    }

    /// A number that no other operation of this client has.
    fn next_seed(&self) -> u64 {
        self.inner.seed.wrapping_add(self.inner.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// Performs an output; gives the input that answers it.
    async fn perform(&self, output: Output) -> Input {
        let inner = &*self.inner;
        match output {
            Output::Send { piece, target, request, timeout } => {
                let connection = match inner.connections.get(&target.address) {
                    Ok(connection) => connection,
                    Err(reason) => return Input::Failed(piece, Failure::NotSent(reason)),
                };
                let layout = inner.layout_of(&request);
                let answered = send::to_store(connection, &target, request, layout);
                match tokio::time::timeout(timeout, answered).await {
                    Ok(Ok(reply)) => Input::Reply(piece, reply),
                    Ok(Err(failure)) => Input::Failed(piece, failure),
                    Err(_) => Input::Failed(
                        piece,
                        Failure::NoAnswer(format!("timed out after {timeout:?}")),
                    ),
                }
            }
            Output::Ask { piece, question, timeout } => {
                let route =
                    match tokio::time::timeout(timeout, inner.scheduler.route(question)).await {
                        Ok(route) => route,
                        Err(_) => Err(Error::Timeout {
                            operation: "a question to the scheduler".to_owned(),
                            after: timeout,
                            cause: None,
                        }),
                    };
                Input::Route(piece, route)
            }
            Output::Wait { piece, duration } => {
                tokio::time::sleep(duration).await;
                Input::Timer(piece)
            }
            Output::Done(_) => unreachable!("the loop returns with it"),
        }
    }
}

impl Inner {
    fn layout_of(&self, request: &Request) -> KeyLayout {
        match request {
            Request::Txn(_) => self.txn_layout,
            _ => self.layout,
        }
    }
}

/// A number that no other client has, from the standard library's per-process entropy.
fn draw_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
