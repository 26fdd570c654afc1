//! The data of a store: its folder, engine, Raft log and snapshots, and who it is.

use std::{path::PathBuf, sync::Arc};

use engine::{
    Engine, Kind,
    data_dir::{DataDir, Expected, Identity, LockedDir, Owner, Role},
    raft_log::{self, RaftLog, RaftLogWriter},
};
use raftstore::snapshot::Snapshots;
use runtime::{Fs, sim::SimFs};
use storage::{StoreIdent, identity};
use types::{Code, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId};

use crate::{
    Config, StartError,
    config::{EngineKind, SyncMode},
    placement::{ClusterState, Placement},
    server::Process,
    store_node::blocking,
    unsynced::{Unsynced, UnsyncedFs},
};

/// Everything that a store keeps.
#[derive(Debug)]
pub(crate) struct StoreData {
    pub(crate) ident: StoreIdent,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) log: RaftLog,
    pub(crate) log_writer: RaftLogWriter,
    pub(crate) snapshots: Snapshots,
    /// Locked as long as this lives. `None`: nothing is kept.
    pub(crate) dir: Option<DataDir>,
}

impl StoreData {
    /// Opens the data of a store, making it somebody if it is new: the first store of the cluster, or one more.
    ///
    /// # Errors
    /// The folder is in use, damaged, of a newer format, or of something else; the scheduler gives no ids.
    pub(crate) async fn open(
        config: &Arc<Config>,
        nth: usize,
        process: &Process,
        placement: &Placement,
        cluster: &ClusterState,
    ) -> Result<StoreData, StartError> {
        let path = config.node.data_dir.join(format!("store-{}", nth + 1));
        let opened = open_engine(config, process, placement, cluster, path.clone()).await?;
        let (engine, ident, dir) = opened;
        let keeps = dir.is_some();
        let fs: Arc<dyn Fs> = match (keeps, config.storage.sync) {
            (false, _) => Arc::new(SimFs::new()),
            (true, SyncMode::Os) => Arc::new(UnsyncedFs(process.fs.clone())),
            (true, SyncMode::Always) => process.fs.clone(),
        };
        let engine: Arc<dyn Engine> = match config.storage.sync {
            SyncMode::Always => engine,
            SyncMode::Os => Arc::new(Unsynced(engine)),
        };
        // Reads what the log has: seconds, after a long life.
        let (log, log_writer, snapshots) = blocking(move || {
            if !keeps {
                fs.create_dir_all(&path).map_err(|error| io(&path, error))?;
            }
            let options = match keeps {
                true => raft_log::Options::default(),
                false => raft_log::Options {
                    spares_max: 0,
                    grow_bytes: 0,
                    ..raft_log::Options::default()
                },
            };
            let opened = RaftLog::open(Arc::clone(&fs), &path.join("raft"), &options, &mut |_| {});
            let (log, log_writer) = opened.map_err(raftstore::Error::Log)?;
            let snapshots = Snapshots::open(fs, &path.join("snapshots"))?;
            Ok::<_, raftstore::Error>((log, log_writer, snapshots))
        })
        .await?;
        Ok(StoreData { ident, engine, log, log_writer, snapshots, dir })
    }
}

fn io(path: &std::path::Path, error: std::io::Error) -> raftstore::Error {
    raftstore::Error::Engine(engine::Error::Io {
        operation: "creation of a folder",
        path: path.to_owned(),
        source: Arc::new(error),
    })
}

/// Larger memtables only cost: every step of a search in them misses the processor's caches. (A write took a quarter more
/// with memtables of hundreds of megabytes than with this.)
const MEMTABLE_BYTES_MAX: u64 = 32 << 20;

/// Opens the engine and says who the store is, making it somebody if it is new.
async fn open_engine(
    config: &Arc<Config>,
    process: &Process,
    placement: &Placement,
    cluster: &ClusterState,
    path: PathBuf,
) -> Result<(Arc<dyn Engine>, StoreIdent, Option<DataDir>), StartError> {
    let kind = match config.storage.engine {
        EngineKind::Memory => Kind::Memory,
        EngineKind::Fjall => Kind::Fjall,
        EngineKind::RocksDb => Kind::RocksDb,
    };
    let options = engine::Options {
        cache_bytes: config.memory.block_cache().0,
        memtable_bytes: (config.memory.memtables().0 / 2).min(MEMTABLE_BYTES_MAX),
        // The store stops writing earlier; what is committed has to be applied.
        disk_reserve_bytes: 0,
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

/// Makes an empty engine a store of the cluster, durably. The first store begins with the first regions; others begin
/// with none, and are given replicas by the scheduler.
async fn new_identity(
    engine: &dyn Engine,
    placement: &Placement,
    cluster: &ClusterState,
) -> Result<StoreIdent, StartError> {
    let is_first = !placement.is_bootstrapped().await?;
    let store_id = StoreId(placement.alloc_id().await?);
    let mut regions = Vec::new();
    if is_first {
        for range in identity::bootstrap_ranges(cluster.api) {
            let id = RegionId(placement.alloc_id().await?);
            let peer =
                Peer { id: PeerId(placement.alloc_id().await?), store_id, role: PeerRole::Voter };
            regions.push(Region { id, range, epoch: RegionEpoch::FIRST, peers: vec![peer] });
        }
    }
    let ident = StoreIdent { cluster_id: cluster.cluster_id, store_id, api: cluster.api };
    identity::bootstrap(engine, &ident, &regions)?;
    Ok(ident)
}
