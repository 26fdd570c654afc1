//! Assembles a store: data directory, engine, place in the cluster, storage, services, reports.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use engine::{
    Engine, Family, Kind,
    data_dir::{DataDir, Expected, Identity, LockedDir, Owner, Role},
};
use prometheus_client::collector::Collector;
use proto::{
    health::health_server::HealthServer, tikvpb::tikv_server::TikvServer,
    tinykvpb::tiny_kv_server::TinyKvServer,
};
use storage::{Storage, StorageOptions, StoreIdent, identity};
use tokio::{net::TcpListener, task::JoinSet};
use types::{Code, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId, limits};

use crate::{
    Config, StartError, StopCause,
    config::{EngineKind, SyncMode, advertised},
    http::{self, probes::Probes},
    listen::{self, Protocol},
    metrics::{Metrics, StoreMetrics, TransportMetrics},
    mux::{HttpMux, StoreMux},
    placement::{ClusterState, Placement, RegionReport, StoreMeta, StoreReport},
    server::Process,
    service::{
        health::HealthService, kv::KvService, rpc_times::RpcTimes, tikv::TikvService,
        tinykv::TinyKvService,
    },
    transport::{Options as TransportOptions, StoreTransport},
    unsynced::Unsynced,
};

/// Keys that one step of the search for expired keys looks at, between which it makes room for others.
const SWEEP_KEYS: usize = 4096;

/// A running store.
#[derive(Debug)]
pub(crate) struct StoreNode {
    addr: Option<SocketAddr>,
    status_addr: Option<SocketAddr>,
    storage: Storage,
    transport: Arc<StoreTransport>,
    /// Locked as long as this lives. `None`: nothing is kept.
    _data_dir: Option<DataDir>,
}

impl StoreNode {
    /// Starts a store; what it runs goes into `tasks`. Empty addresses open no sockets.
    pub(crate) async fn start(
        config: &Arc<Config>,
        process: &Process,
        placement: Placement,
        tasks: &mut JoinSet<()>,
    ) -> Result<StoreNode, StartError> {
        let listener = bind(&config.server.addr).await?;
        let status_listener = bind(&config.server.status_addr).await?;
        let addr = local_addr(listener.as_ref())?;
        let status_addr = local_addr(status_listener.as_ref())?;

        let cluster = placement.cluster_state().await?;
        if cluster.api != config.storage.api {
            let message = format!(
                "the cluster was created with storage.api = \"{}\", this store is started with \"{}\"",
                cluster.api, config.storage.api
            );
            return Err(StartError::new(Code::DataDirMismatch, message));
        }
        let start_timestamp_s = process.clock.wall().as_secs();
        let (engine, ident, data_dir) = open_data(config, process, &placement, &cluster).await?;
        let store = StoreMeta {
            id: ident.store_id,
            address: match addr {
                Some(addr) => advertised(&config.server.advertise_addr, addr),
                None => format!("embedded-store-{}", ident.store_id),
            },
            status_address: status_addr.map(|addr| addr.to_string()).unwrap_or_default(),
            labels: config.node.labels.clone().into_iter().collect(),
            start_timestamp_s,
        };
        let engine: Arc<dyn Engine> = match config.storage.sync {
            SyncMode::Always => engine,
            SyncMode::Os => Arc::new(Unsynced(engine)),
        };
        let storage = open_storage(process, &placement, engine.clone())?;
        let reporter = Reporter {
            placement,
            engine: engine.clone(),
            storage: storage.clone(),
            dir: data_dir.as_ref().map(|dir| dir.path().to_owned()),
            start_timestamp_s,
        };
        reporter.join(&store).await?;

        let (transport, incoming) = StoreTransport::new(
            cluster.cluster_id,
            store.id,
            Arc::new(reporter.placement.clone()),
            TransportOptions::default(),
        );
        let times = RpcTimes::new(process.clock.clone());
        if let Some(listener) = listener {
            let kv = KvService::new(storage.clone(), times.clone());
            let mux = StoreMux {
                tikv: TikvServer::new(TikvService::new(kv.clone(), process.phase()))
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
                tinykv: TinyKvServer::new(TinyKvService::new(kv))
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
                transport: incoming,
                health: HealthServer::new(HealthService::new(StoreMux::SERVICES, process.phase())),
            };
            tasks.spawn(listen::serve(listener, Protocol::Http2, mux, process.phase()));
        }
        if let Some(listener) = status_listener {
            let store = StoreMetrics { storage: storage.clone(), engine };
            let transport = TransportMetrics(transport.counters());
            let parts: Vec<Box<dyn Collector>> =
                vec![Box::new(store), Box::new(times), Box::new(transport)];
            let probes = Probes::new(process, Metrics::new(parts));
            let router = http::status::router(probes, config.clone(), storage.clone());
            tasks.spawn(listen::serve(listener, Protocol::Any, HttpMux(router), process.phase()));
        }
        tasks.spawn(reporter.run(
            config.raftstore.pd_store_heartbeat_tick_interval,
            config.raftstore.pd_heartbeat_tick_interval,
            process.clone(),
        ));
        if config.storage.api.has_ttl() {
            tasks.spawn(sweep(
                storage.clone(),
                config.storage.ttl_check_poll_interval,
                process.clone(),
            ));
        }
        Ok(StoreNode { addr, status_addr, storage, transport, _data_dir: data_dir })
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    pub(crate) fn status_addr(&self) -> Option<SocketAddr> {
        self.status_addr
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Commits what waits and stops. Blocks.
    pub(crate) fn stop(self) {
        self.transport.stop();
        self.storage.shutdown();
    }
}

/// Opens a socket; none for an empty address.
pub(crate) async fn bind(addr: &str) -> Result<Option<TcpListener>, StartError> {
    if addr.is_empty() {
        return Ok(None);
    }
    listen::bind(addr).await.map(Some).map_err(|error| StartError::bind(addr, &error))
}

/// Where a socket listens, with the port that it got.
pub(crate) fn local_addr(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>, StartError> {
    listener
        .map(TcpListener::local_addr)
        .transpose()
        .map_err(|error| StartError::bind("a new socket", &error))
}

/// Opens the engine and says who the store is, making it somebody if it is new.
async fn open_data(
    config: &Arc<Config>,
    process: &Process,
    placement: &Placement,
    cluster: &ClusterState,
) -> Result<(Arc<dyn Engine>, StoreIdent, Option<DataDir>), StartError> {
    let kind = match config.storage.engine {
        EngineKind::Memory => Kind::Memory,
        EngineKind::Fjall => Kind::Fjall,
        EngineKind::RocksDb => Kind::RocksDb,
    };
    let path = config.node.data_dir.join("store-1");
    let options = engine::Options {
        cache_bytes: config.memory.block_cache().0,
        memtable_bytes: config.memory.memtables().0 / 2,
        ..engine::Options::default()
    };
    if kind == Kind::Memory {
        let engine = engine::open(kind, &path, &options)?;
        let ident = new_identity(&*engine, placement, cluster).await?;
        return Ok((engine, ident, None));
    }
    // Opening recovers a journal: seconds, after a crash.
    let (fs, engine_path) = (process.fs.clone(), path.join("engine"));
    let (locked, engine) = blocking(move || {
        let locked = LockedDir::lock(fs, &path)?;
        Ok::<_, StartError>((locked, engine::open(kind, &engine_path, &options)?))
    })
    .await?;
    if locked.is_new() {
        let ident = match identity::load(&*engine)? {
            // A creation that was cut short just before its last step, or FORMAT was removed: never begin again over
            // what may be data.
            Some(found)
                if found.ident.cluster_id == cluster.cluster_id
                    && found.ident.api == cluster.api =>
            {
                found.ident
            }
            Some(found) => {
                let message = format!(
                    "{} has no FORMAT file, but its engine holds store {} of cluster {}",
                    locked.path().display(),
                    found.ident.store_id,
                    found.ident.cluster_id
                );
                return Err(StartError::new(Code::DataDirMismatch, message));
            }
            None => new_identity(&*engine, placement, cluster).await?,
        };
        let owner = Owner::Store { id: ident.store_id, engine: kind };
        // Last: a folder with this file is complete.
        let identity = Identity { cluster_id: ident.cluster_id, api_mode: ident.api, owner };
        let dir = blocking(move || locked.create(identity)).await?;
        return Ok((engine, ident, Some(dir)));
    }
    let expected = Expected {
        role: Role::Store { engine: Some(kind) },
        cluster_id: Some(cluster.cluster_id),
        api_mode: Some(cluster.api),
    };
    let dir = blocking(move || locked.open(&expected, &mut |_| Ok(()))).await?;
    let Some(found) = identity::load(&*engine)? else {
        let message =
            format!("{} says that it is complete, but its engine is empty", dir.path().display());
        return Err(StartError::new(Code::Corrupt, message));
    };
    Ok((engine, found.ident, Some(dir)))
}

/// Makes an empty engine a store of the cluster: ids, identity, first regions, durably.
async fn new_identity(
    engine: &dyn Engine,
    placement: &Placement,
    cluster: &ClusterState,
) -> Result<StoreIdent, StartError> {
    if placement.is_bootstrapped().await? {
        let message = "the cluster has its store already, and this one's data directory is new";
        return Err(StartError::new(Code::NotAvailableYet, message)
            .with_remedy("start with the data directory of the first store; several stores come with replication"));
    }
    let store_id = StoreId(placement.alloc_id().await?);
    let mut regions = Vec::new();
    for range in identity::bootstrap_ranges(cluster.api) {
        let id = RegionId(placement.alloc_id().await?);
        let peer =
            Peer { id: PeerId(placement.alloc_id().await?), store_id, role: PeerRole::Voter };
        regions.push(Region { id, range, epoch: RegionEpoch::FIRST, peers: vec![peer] });
    }
    let ident = StoreIdent { cluster_id: cluster.cluster_id, store_id, api: cluster.api };
    identity::bootstrap(engine, &ident, &regions)?;
    Ok(ident)
}

fn open_storage(
    process: &Process,
    placement: &Placement,
    engine: Arc<dyn Engine>,
) -> Result<Storage, StartError> {
    let stopper = process.clone();
    let options = StorageOptions {
        latch: Some(Arc::new(placement.clone())),
        on_stopped: Some(Box::new(move |error| {
            stopper.stop(StopCause { code: error.code(), message: error.to_string() });
        })),
        ..StorageOptions::default()
    };
    Ok(Storage::open(engine, process.clock.clone(), options)?)
}

/// Runs something that blocks where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static, E: Into<StartError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StartError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => {
            Err(StartError::new(Code::Bug, format!("a start-up step did not end: {error}")))
        }
    }
}

/// Tells the scheduler of the store and its regions. The store serves on while the scheduler is away.
#[derive(Debug)]
struct Reporter {
    placement: Placement,
    engine: Arc<dyn Engine>,
    storage: Storage,
    dir: Option<PathBuf>,
    start_timestamp_s: u64,
}

impl Reporter {
    /// Takes the store's place in the cluster, at every start: clients must find it before it serves.
    async fn join(&self, store: &StoreMeta) -> Result<(), StartError> {
        if !self.placement.is_bootstrapped().await?
            && !self.placement.bootstrap(store, &self.storage.regions()).await?
        {
            return Err(StartError::new(
                Code::ClusterMismatch,
                "another store has just begun the same cluster",
            ));
        }
        self.placement.put_store(store).await?;
        self.report_regions().await?;
        self.report_store().await?;
        Ok(())
    }

    async fn report_store(&self) -> Result<(), StartError> {
        let (capacity, available) = self.dir.as_deref().map_or((0, 0), disk_space);
        let report = StoreReport {
            store_id: self.storage.ident().store_id,
            capacity,
            available,
            used: self.engine.statistics().disk_bytes,
            regions: u32::try_from(self.storage.regions().len()).unwrap_or(u32::MAX),
            start_timestamp_s: self.start_timestamp_s,
        };
        Ok(self.placement.report_store(&report).await?)
    }

    async fn report_regions(&self) -> Result<(), StartError> {
        let (engine, storage) = (self.engine.clone(), self.storage.clone());
        // Sizes may be read from disk.
        let reports = blocking(move || {
            let report = |region: Region| {
                let mut approximate_size = 0;
                for family in [Family::Default, Family::Lock, Family::Write] {
                    approximate_size += engine.approximate_size(family, &region.range)?;
                }
                let store_id = storage.ident().store_id;
                Ok(RegionReport { region, store_id, approximate_size, approximate_keys: 0 })
            };
            storage.regions().into_iter().map(report).collect::<engine::Result<Vec<_>>>()
        })
        .await?;
        Ok(self.placement.report_regions(&reports).await?)
    }

    /// Reports until the process drains.
    async fn run(self, store_interval: Duration, region_interval: Duration, process: Process) {
        let mut store_tick = ticks(store_interval);
        let mut region_tick = ticks(region_interval);
        let draining = listen::until_draining(process.phase());
        let mut draining = std::pin::pin!(draining);
        loop {
            let reported = tokio::select! {
                _ = store_tick.tick() => self.report_store().await,
                _ = region_tick.tick() => self.report_regions().await,
                () = &mut draining => return,
            };
            if let Err(error) = reported {
                tracing::warn!(%error, code = %error.code(), "the scheduler did not take a report");
            }
        }
    }
}

/// A timer whose first tick is one interval away.
fn ticks(interval: Duration) -> tokio::time::Interval {
    let interval = interval.max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Looks for expired keys every `interval` and removes them, a few at a time.
async fn sweep(storage: Storage, interval: Duration, process: Process) {
    let mut tick = ticks(interval);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = listen::until_draining(process.phase()) => return,
        }
        loop {
            match storage.sweep_expired(SWEEP_KEYS).await {
                Ok(step) if step.finished => break,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::warn!(%error, code = %error.code(), "expired keys could not be removed");
                    break;
                }
            }
            if *process.phase().borrow() != listen::Phase::Running {
                return;
            }
        }
    }
}

/// Bytes of the disk under `path` and how many of them are free; 0 where the machine does not say.
pub(crate) fn disk_space(path: &std::path::Path) -> (u64, u64) {
    rustix::fs::statvfs(path)
        .map_or((0, 0), |disk| (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}
