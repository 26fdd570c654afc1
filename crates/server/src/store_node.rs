//! Assembles a store: data, place in the cluster, replication, services, reports.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use engine::{Engine, data_dir::DataDir};
use proto::{
    deadlock::deadlock_server::DeadlockServer, health::health_server::HealthServer,
    tikvpb::tikv_server::TikvServer, tinykvpb::tiny_kv_server::TinyKvServer,
};
use raftstore::{Lease, RegionReport, StoreConfig, shell::Events, split_check::SplitLimits};
use runtime::Rng;
use storage::{RaftHandle, Replication, Storage, StorageOptions, identity};
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, task::JoinSet};
use types::{Bytes, Code, Region, RegionId, StoreId, limits};

use crate::{
    Config, StartError, StopCause,
    config::advertised,
    deadlocks::DeadlockDetector,
    http::{self, probes::Probes},
    listen::{self, Protocol},
    metrics::{Metrics, StoreMetrics, TransportMetrics},
    mux::{HttpMux, StoreMux},
    placement::{
        Placement, StoreMeta, StoreReport,
        heartbeats::{Heartbeats, Reporting},
        orders::Orders,
    },
    server::Process,
    service::{
        deadlock::DeadlockService, health::HealthService, kv::KvService, rpc_times::RpcTimes,
        tikv::TikvService, tinykv::TinyKvService, txn::OnMissing,
    },
    store_data::StoreData,
    timer,
    transport::{self, StoreTransport},
    unreported::Unreported,
    version_gc,
};

/// Keys that one step of the search for expired keys looks at, between which it makes room for others.
const SWEEP_KEYS: usize = 4096;

/// How long a store that has regions for itself may take to lead them before it is called ready nevertheless, and how
/// many of them are waited for.
const LED_WITHIN: Duration = Duration::from_secs(3);
const LED_REGIONS: usize = 16;

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
    /// Starts a store, the one of this process that is counted `nth` from 0; what it runs goes into `tasks`. Empty addresses
    /// open no sockets.
    pub(crate) async fn start(
        config: &Arc<Config>,
        nth: usize,
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
        let data = StoreData::open(config, nth, process, &placement, &cluster).await?;
        let StoreData { ident, engine, log, log_writer, snapshots, dir } = data;
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
        join(&placement, &store, &*engine).await?;

        let addresses = Arc::new(placement.clone());
        let (transport, transport_service) = StoreTransport::new(
            ident.cluster_id,
            ident.store_id,
            addresses,
            transport::Options::default(),
        );
        let unreported = Unreported::default();
        let events = Arc::new(StoreEvents {
            process: process.clone(),
            placement: placement.clone(),
            runtime: Handle::current(),
            unreported: unreported.clone(),
            lookups: Arc::new(Semaphore::new(limits::REGION_LOOKUPS_MAX)),
            told: OnceLock::new(),
        });
        let replication = Replication {
            config: store_config(config, ident.store_id),
            tick: config.raftstore.raft_base_tick_interval,
            log,
            log_writer,
            snapshots: snapshots.clone(),
            transport: Arc::clone(&transport) as Arc<dyn raftstore::shell::Transport>,
            events: Arc::clone(&events) as Arc<dyn Events>,
            rng: Rng::from_entropy(),
            has_room: {
                let dir = dir.as_ref().map(|dir| dir.path().to_owned());
                Arc::new(move || dir.as_deref().is_none_or(has_room))
            },
        };
        let options = StorageOptions {
            latch: Some(Arc::new(placement.clone())),
            timestamps: Some(Arc::new(placement.clone())),
            replication: Some(replication),
            ..StorageOptions::default()
        };
        let (opened, clock) = (Arc::clone(&engine), process.clock.clone());
        let storage = blocking(move || Storage::open(opened, clock, options)).await?;
        let raft = storage.raft().expect("was opened with replication").clone();
        transport.start(Arc::new(raft.clone()), snapshots);

        let orders = Orders::new(placement.clone(), {
            let raft = raft.clone();
            Arc::new(move |region, epoch, kind| raft.admin(region, epoch, kind))
        });
        let reporting = Reporting {
            store_id: ident.store_id,
            tick: config.raftstore.raft_base_tick_interval,
            store_interval: config.raftstore.pd_store_heartbeat_tick_interval,
            store_report: {
                let store = Reported {
                    engine: Arc::clone(&engine),
                    storage: storage.clone(),
                    dir: dir.as_ref().map(|dir| dir.path().to_owned()),
                    start_timestamp_s,
                };
                Box::new(move || store.report())
            },
            resend: {
                let raft = raft.clone();
                Box::new(move || raft.report_all())
            },
            on_order: {
                let orders = orders.clone();
                Box::new(move |order| orders.carry_out(order))
            },
        };
        let (told, gc_placement) = (placement.clone(), placement.clone());
        let heartbeats = Heartbeats::start(placement, reporting, process, tasks);
        let _ = events.told.set(Told { heartbeats, orders, raft: raft.clone() });
        // What was said before nobody has heard.
        raft.report_all();
        let led = until_led(&raft, &told, ident.store_id);
        if tokio::time::timeout(LED_WITHIN, led).await.is_err() {
            tracing::warn!("the regions of this store are not served yet");
        }

        let times = RpcTimes::new(process.clock.clone());
        if let Some(listener) = listener {
            let detector =
                DeadlockDetector::new(storage.clone(), told.clone(), process.clock.clone());
            let kv = KvService::new(storage.clone(), told, unreported, times.clone())
                .with_detector(detector.clone());
            let on_missing = match config.compat.tinykv_commit_missing {
                true => OnMissing::Succeed,
                false => OnMissing::Fail,
            };
            let mux = StoreMux {
                tikv: TikvServer::new(TikvService::new(kv.clone(), process.phase()))
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
                tinykv: TinyKvServer::new(TinyKvService::new(kv, on_missing))
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
                health: HealthServer::new(HealthService::new(StoreMux::SERVICES, process.phase())),
                deadlock: DeadlockServer::new(DeadlockService::new(detector)),
                transport: transport_service,
            };
            tasks.spawn(listen::serve(listener, Protocol::Http2, mux, process.phase()));
        }
        if let Some(listener) = status_listener {
            let store = StoreMetrics { storage: storage.clone(), engine };
            let transport = TransportMetrics(transport.counters());
            let metrics = Metrics::new(vec![Box::new(store), Box::new(times), Box::new(transport)]);
            let probes = Probes::new(process, metrics);
            let router = http::status::router(probes, config.clone(), storage.clone());
            tasks.spawn(listen::serve(listener, Protocol::Any, HttpMux(router), process.phase()));
        }
        tasks.spawn(version_gc::run(
            storage.clone(),
            gc_placement,
            config.gc.poll_safe_point_interval,
            process.clone(),
        ));
        if config.storage.api.has_ttl() {
            tasks.spawn(sweep(
                storage.clone(),
                config.storage.ttl_check_poll_interval,
                process.clone(),
            ));
        }
        Ok(StoreNode { addr, status_addr, storage, transport, _data_dir: dir })
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

    /// Ends the streams of other stores, which never end by themselves. What is proposed from here on is not answered.
    pub(crate) fn disconnect(&self) {
        self.transport.stop();
    }

    /// Answers what waits and stops. Blocks.
    pub(crate) fn stop(self) {
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

/// Takes the store's place in the cluster, at every start: clients must find it before it serves.
///
/// Two stores that begin at once may both hold first regions. The scheduler takes those of one; the other forgets its
/// own, also after a crash in between: the scheduler does not know it then.
async fn join(
    placement: &Placement,
    store: &StoreMeta,
    engine: &dyn Engine,
) -> Result<(), StartError> {
    let regions: Vec<Region> =
        identity::load(engine)?.map_or(Vec::new(), |identity| identity.serving());
    let is_first =
        !placement.is_bootstrapped().await? && placement.bootstrap(store, &regions).await?;
    let is_new =
        regions.iter().any(|region| region.epoch.conf_ver == 1 && region.epoch.version == 1);
    if !is_first && is_new {
        match placement.store_address(store.id).await {
            Ok(_) => {}
            // Only if the scheduler says so: one that does not answer may know the store well.
            Err(error) if error.code == Code::InvalidRequest => {
                identity::forget_regions(engine, &regions)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    placement.put_store(store).await?;
    Ok(())
}

/// Waits until the regions of which nobody else has a replica are led, and the scheduler knows it: who is told that the
/// store is ready may use them.
async fn until_led(raft: &RaftHandle, placement: &Placement, own: StoreId) {
    let mut views = raft.views().all();
    views.retain(|view| view.region.peers.iter().all(|peer| peer.store_id == own));
    for view in views.iter().take(LED_REGIONS) {
        let id = view.region.id;
        while raft.views().find(id).is_some_and(|view| view.lease == Lease::None)
            || matches!(placement.knows_leader(id).await, Ok(false))
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The settings of replication.
fn store_config(config: &Config, store_id: StoreId) -> StoreConfig {
    let raftstore = &config.raftstore;
    let regions = &config.coprocessor;
    let tick = raftstore.raft_base_tick_interval;
    let ticks = |interval: Duration| {
        u32::try_from(interval.as_millis().div_ceil(tick.as_millis().max(1))).unwrap_or(u32::MAX)
    };
    let mut settings = StoreConfig::new(store_id);
    settings.core.election_ticks =
        u32::try_from(raftstore.raft_election_timeout_ticks).unwrap_or(8);
    settings.core.heartbeat_ticks = u32::try_from(raftstore.raft_heartbeat_ticks).unwrap_or(2);
    settings.log_gc_ticks = ticks(raftstore.raft_log_gc_tick_interval);
    settings.log_gc_entries = raftstore.raft_log_gc_count_limit as u64;
    settings.log_gc_spare = raftstore.raft_log_gc_count_limit as u64;
    settings.report_ticks = ticks(raftstore.pd_heartbeat_tick_interval);
    settings.split_check_ticks = ticks(raftstore.split_region_check_tick_interval);
    settings.stale_ticks = 4 * settings.core.election_ticks;
    settings.split = SplitLimits {
        max_bytes: regions.region_max_size.0,
        split_bytes: regions.region_split_size.0,
        max_keys: regions.region_max_keys as u64,
        split_keys: regions.region_split_keys as u64,
    };
    settings
}

/// Passes on what the replicated store says.
#[derive(Debug)]
struct StoreEvents {
    process: Process,
    placement: Placement,
    runtime: Handle,
    unreported: Unreported,
    /// Questions about regions that may be under way.
    lookups: Arc<Semaphore>,
    /// Set once the store runs; what it says before is said again.
    told: OnceLock<Told>,
}

/// Who is told what the replicated store says.
#[derive(Debug)]
struct Told {
    heartbeats: Heartbeats,
    orders: Orders,
    raft: RaftHandle,
}

impl Events for StoreEvents {
    fn report(&self, report: RegionReport) {
        if let Some(told) = self.told.get() {
            told.heartbeats.send(report);
        }
    }

    fn ask_region(&self, region: RegionId) {
        let Some(told) = self.told.get() else { return };
        // With so many under way, it is left to the next time.
        let Ok(permit) = Arc::clone(&self.lookups).try_acquire_owned() else { return };
        let (placement, raft) = (self.placement.clone(), told.raft.clone());
        self.runtime.spawn(async move {
            match placement.region_by_id(region).await {
                Ok(Some(found)) => raft.region_known(found),
                Ok(None) => {}
                Err(error) => tracing::debug!(%region, %error, "a region could not be looked up"),
            }
            drop(permit);
        });
    }

    fn ask_split(&self, region: Region, keys: Vec<Bytes>) {
        if let Some(told) = self.told.get() {
            told.orders.split(region, keys);
        }
    }

    fn was_split(&self, regions: Vec<Region>) {
        let report = self.unreported.begin(&regions);
        let placement = self.placement.clone();
        self.runtime.spawn(async move {
            if let Err(error) = placement.report_batch_split(&regions).await {
                // The heartbeats of the regions say it again.
                tracing::debug!(%error, "the scheduler did not take the report of a split");
            }
            drop(report);
        });
    }

    fn stopped(&self, error: &raftstore::Error) {
        self.process.stop(StopCause { code: error.code(), message: error.to_string() });
    }
}

/// What a store heartbeat says.
struct Reported {
    engine: Arc<dyn Engine>,
    storage: Storage,
    dir: Option<PathBuf>,
    start_timestamp_s: u64,
}

impl Reported {
    fn report(&self) -> StoreReport {
        let (capacity, available) = self.dir.as_deref().map_or((0, 0), disk_space);
        StoreReport {
            store_id: self.storage.ident().store_id,
            capacity,
            available,
            used: self.engine.statistics().disk_bytes,
            regions: u32::try_from(self.storage.regions().len()).unwrap_or(u32::MAX),
            start_timestamp_s: self.start_timestamp_s,
            ..StoreReport::default()
        }
    }
}

/// Looks for expired keys every `interval` and removes them, a few at a time.
async fn sweep(storage: Storage, interval: Duration, process: Process) {
    let mut tick = timer::ticks(interval);
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

/// Whether so much of the disk under `path` is free that the store may go on writing. A machine that does not say has.
fn has_room(path: &std::path::Path) -> bool {
    let (capacity, available) = disk_space(path);
    capacity == 0 || limits::DISK_RESERVE_BYTES <= available
}

/// Bytes of the disk under `path` and how many of them are free; 0 where the machine does not say.
pub(crate) fn disk_space(path: &std::path::Path) -> (u64, u64) {
    rustix::fs::statvfs(path)
        .map_or((0, 0), |disk| (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}
