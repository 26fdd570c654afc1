//! A whole cluster inside the caller's process.

use std::{path::PathBuf, sync::Arc};

use client::Client;
use server::{Config, Ready, Roles, Server, config::EngineKind};
use tokio::runtime::Runtime;
use types::{ApiMode, Code, limits};

use crate::{Error, Result};

/// How to start a [`Cluster`]. Made by [`Cluster::builder`]; ports are free ones unless set.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    config: Config,
    schedulers: usize,
    threads: usize,
}

impl ClusterBuilder {
    fn new() -> ClusterBuilder {
        let mut config = Config::default();
        config.scheduler.addr = "127.0.0.1:0".to_owned();
        config.server.addr = "127.0.0.1:0".to_owned();
        config.server.status_addr = "127.0.0.1:0".to_owned();
        ClusterBuilder { config, schedulers: 1, threads: 1 }.in_memory()
    }

    /// How many stores. Beyond the first, each takes the ports after those of the one before, if they are not free ones.
    pub fn stores(mut self, stores: usize) -> ClusterBuilder {
        self.config.node.stores = stores;
        self
    }

    /// How many scheduler members. More than one is refused by this version.
    pub fn schedulers(mut self, schedulers: usize) -> ClusterBuilder {
        self.schedulers = schedulers;
        self
    }

    /// Keeps nothing. The default.
    pub fn in_memory(mut self) -> ClusterBuilder {
        self.config.storage.engine = EngineKind::Memory;
        self
    }

    /// Keeps its data in `dir`, which is created if it is missing.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> ClusterBuilder {
        self.config.node.data_dir = dir.into();
        if self.config.storage.engine == EngineKind::Memory {
            self.config.storage.engine = EngineKind::Fjall;
        }
        self
    }

    /// Which commands it takes. Fixed when the data directory is created.
    pub fn api(mut self, api: ApiMode) -> ClusterBuilder {
        self.config.storage.api = api;
        self
    }

    /// Where the scheduler listens; this is what clients dial. Port 0 takes a free one.
    pub fn scheduler_addr(mut self, addr: impl Into<String>) -> ClusterBuilder {
        self.config.scheduler.addr = addr.into();
        self
    }

    /// Every other setting.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> ClusterBuilder {
        change(&mut self.config);
        self
    }

    /// Starts it on threads of its own, and returns when clients may dial it.
    ///
    /// # Errors
    /// A taken port, or a data directory that is locked, damaged or of something else.
    pub async fn start(self) -> Result<Cluster> {
        let schedulers = self.schedulers;
        if schedulers != 1 {
            let message = format!("{schedulers} schedulers in one process");
            return Err(Error::new(Code::NotAvailableYet, message));
        }
        let runtime = crate::runtime(self.threads)?;
        let server = runtime
            .spawn(Server::start(self.config, Roles::ALL))
            .await
            .map_err(|error| Error::new(Code::Bug, error.to_string()))??;
        Ok(Cluster { server: Some(server), runtime: Some(Arc::new(runtime)) })
    }
}

/// A cluster in this process: a scheduler and stores that any TiKV client may dial. Several can run side by side.
///
/// Dropping it stops its threads at once, as a kill would; [`Cluster::shutdown`] stops it in order.
#[derive(Debug)]
pub struct Cluster {
    server: Option<Server>,
    runtime: Option<Arc<Runtime>>,
}

impl Cluster {
    /// A cluster to configure.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    fn ready(&self) -> Ready {
        self.server.as_ref().expect("runs until shutdown takes it").ready()
    }

    /// What clients dial: the schedulers' addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.ready().scheduler.iter().map(ToString::to_string).collect()
    }

    /// The stores' addresses.
    pub fn stores(&self) -> Vec<String> {
        self.ready().stores.iter().map(ToString::to_string).collect()
    }

    /// The addresses of the stores' HTTP servers.
    pub fn status_addresses(&self) -> Vec<String> {
        self.ready().statuses.iter().map(ToString::to_string).collect()
    }

    /// A client of this cluster.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoints(), client::Options::default()).await?)
    }

    /// Resolves when a failure of the disk has stopped the cluster; what was acknowledged is safe.
    pub async fn stopped(&self) -> Error {
        let cause = self.server.as_ref().expect("runs until shutdown takes it").stopped().await;
        Error::new(cause.code, cause.message)
    }

    /// Takes no new requests, finishes those under way, makes everything durable and stops.
    pub async fn shutdown(mut self) -> Result<()> {
        let (Some(server), Some(runtime)) = (self.server.take(), self.runtime.take()) else {
            return Ok(());
        };
        let stopped = runtime.spawn(server.shutdown(limits::DRAIN_TIMEOUT)).await;
        stop_runtime(runtime);
        stopped.map_err(|error| Error::new(Code::Bug, error.to_string()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            stop_runtime(runtime);
        }
    }
}

/// Ends a runtime from anywhere, also from inside another one, where waiting is forbidden.
pub(crate) fn stop_runtime(runtime: Arc<Runtime>) {
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
}
