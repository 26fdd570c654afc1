//! Assembles a scheduler: its state on disk, its services, its clock.

use std::{net::SocketAddr, sync::Arc};

use proto::{
    etcdserverpb::{cluster_server::ClusterServer, kv_server::KvServer},
    health::health_server::HealthServer,
    internal::placement_server::PlacementServer,
    keyspacepb::keyspace_server::KeyspaceServer,
    pdpb::pd_server::PdServer,
};
use runtime::Rng;
use scheduler::SchedulerHandle;
use tokio::task::JoinSet;
use types::limits;

use crate::{
    Config, StartError, StopCause,
    config::advertised,
    http::{self, probes::Probes},
    listen::{self, Protocol},
    metrics::Metrics,
    mux::SchedulerMux,
    placement::Local,
    server::Process,
    service::{
        etcd::EtcdService,
        health::HealthService,
        keyspace::KeyspaceService,
        pd::{Member, PdService},
        placement::PlacementService,
    },
    store_node::{bind, blocking, local_addr},
};

/// A running scheduler member.
#[derive(Debug)]
pub(crate) struct SchedulerNode {
    addr: Option<SocketAddr>,
    scheduler: SchedulerHandle,
    local: Arc<Local>,
}

impl SchedulerNode {
    /// Starts a scheduler; what it runs goes into `tasks`. An empty address opens no socket.
    pub(crate) async fn start(
        config: &Arc<Config>,
        process: &Process,
        tasks: &mut JoinSet<()>,
    ) -> Result<SchedulerNode, StartError> {
        let listener = bind(&config.scheduler.addr).await?;
        let addr = local_addr(listener.as_ref())?;
        let scheduler = open(config, process).await?;
        tasks.spawn(keep_time(scheduler.clone(), process.clone()));
        let member = Member {
            name: config.node.name.clone(),
            id: scheduler.member_id(),
            client_address: match addr {
                Some(addr) => advertised(&config.scheduler.advertise_addr, addr),
                None => "embedded-scheduler".to_owned(),
            },
        };
        let cluster_id = scheduler.cluster_id();
        let max_replicas = u32::try_from(config.replication.max_replicas).unwrap_or(u32::MAX);
        let pd =
            PdService::new(scheduler.clone(), cluster_id, member, max_replicas, process.phase());
        tasks.spawn(push_orders(pd.clone(), process.clone()));
        let internal = PlacementService::new(scheduler.clone(), pd.clone());
        if let Some(listener) = listener {
            let probes = Probes::new(process, Metrics::new(Vec::new()));
            let mux = SchedulerMux {
                pd: PdServer::new(pd.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
                keyspace: KeyspaceServer::new(KeyspaceService::new(pd.clone())),
                etcd_kv: KvServer::new(EtcdService::new(pd.clone())),
                etcd_cluster: ClusterServer::new(EtcdService::new(pd.clone())),
                placement: PlacementServer::new(internal.clone()),
                health: HealthServer::new(HealthService::new(
                    SchedulerMux::SERVICES,
                    process.phase(),
                )),
                http: http::pd_api::router(probes, pd.clone()),
            };
            tasks.spawn(listen::serve(listener, Protocol::Any, mux, process.phase()));
        }
        let (stopper, watched) = (process.clone(), scheduler.clone());
        tasks.spawn(async move {
            tokio::select! {
                error = watched.stopped() => stopper.stop(StopCause { code: error.code(), message: error.to_string() }),
                () = listen::until_draining(stopper.phase()) => {}
            }
        });
        let local = Arc::new(Local { cluster_id, pd, internal });
        Ok(SchedulerNode { addr, scheduler, local })
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Its services, for a store in the same process.
    pub(crate) fn local(&self) -> Arc<Local> {
        Arc::clone(&self.local)
    }

    /// Makes its state durable and stops. Blocks.
    pub(crate) fn stop(self) {
        if let Err(error) = self.scheduler.shutdown() {
            tracing::error!(%error, code = %error.code(), "the scheduler had stopped before");
        }
    }
}

async fn open(config: &Arc<Config>, process: &Process) -> Result<SchedulerHandle, StartError> {
    let mut options = scheduler::Options::new(config.storage.api, Rng::from_entropy());
    config.schedule.apply_to(&mut options.schedule);
    if config.keeps_nothing() {
        return Ok(SchedulerHandle::in_memory(process.clock.clone(), options));
    }
    let (fs, clock) = (process.fs.clone(), process.clock.clone());
    let dir = config.node.data_dir.join("scheduler");
    blocking(move || SchedulerHandle::open(fs, clock, &dir, options)).await
}

/// Lets time pass, until the process drains: the window of timestamps stays ahead of the requests, and placement does
/// its work.
async fn keep_time(scheduler: SchedulerHandle, process: Process) {
    let mut ticks = tokio::time::interval(limits::TSO_UPDATE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = std::pin::pin!(listen::until_draining(process.phase()));
    loop {
        tokio::select! {
            _ = ticks.tick() => scheduler.tick(),
            () = &mut draining => return,
        }
    }
}

/// Pushes the orders that placement has for stores, until the process drains. Not in the task that lets time pass:
/// orders wait for the ids in them to be durable.
async fn push_orders(pd: PdService, process: Process) {
    let mut ticks = tokio::time::interval(limits::PATROL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = std::pin::pin!(listen::until_draining(process.phase()));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut draining => return,
        }
        // Whoever watches the scheduler says why it has stopped.
        if pd.push_orders().await.is_err() {
            return;
        }
    }
}
