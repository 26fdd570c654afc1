//! A cluster of real processes: a scheduler and some stores, each with its folder, log and ports, over all starts.
//!
//! Ports are chosen once, outside of the range from which the kernel takes the ports of outgoing connections, so that
//! nobody takes one while its process is down. Everybody dials a node by its advertised address, which belongs to
//! [`super::network`].
//!
//! Invariant: a dropped cluster has no process left.

use std::{
    collections::BTreeSet,
    fmt,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    process::{Process, log_tail},
    session::{ENDED_WITHIN, READY_WITHIN},
};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The scheduler.
    Scheduler,
    /// The store that is counted so.
    Store(usize),
    /// Everybody else.
    Client,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Scheduler => f.write_str("scheduler"),
            Place::Store(number) => write!(f, "store-{number}"),
            Place::Client => f.write_str("client"),
        }
    }
}

/// How the product is started.
#[derive(Clone, Debug)]
pub struct ClusterLaunch {
    /// Its executable.
    pub binary: PathBuf,
    /// Where folders and logs lie.
    pub dir: PathBuf,
    /// How many stores.
    pub stores: usize,
    /// Settings of the stores, as `KEY=VALUE`.
    pub settings: Vec<String>,
}

/// A node: what stays of it over its starts, and its process if it runs.
#[derive(Debug)]
pub struct Node {
    /// Which one it is.
    pub place: Place,
    /// Where it listens.
    pub addr: String,
    /// What others dial.
    pub advertised: String,
    /// Its data; may be moved before the first start.
    pub data: PathBuf,
    status_addr: String,
    log: PathBuf,
    ready_file: PathBuf,
    process: Option<Process>,
}

/// The nodes.
#[derive(Debug)]
pub struct Cluster {
    launch: ClusterLaunch,
    /// The scheduler first, then the stores.
    nodes: Vec<Node>,
}

/// Ports are taken from here: below those of outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

impl Cluster {
    /// Chooses ports and makes folders. Nothing runs yet.
    ///
    /// # Errors
    /// There are not enough free ports, or the folder can't be used.
    pub fn new(launch: ClusterLaunch, rng: &mut fastrand::Rng) -> anyhow::Result<Cluster> {
        let places = std::iter::once(Place::Scheduler).chain((1..=launch.stores).map(Place::Store));
        let mut taken = BTreeSet::new();
        let mut port = || -> anyhow::Result<String> {
            for _ in 0..1000 {
                let port = rng.u16(PORTS);
                if taken.insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                    return Ok(format!("127.0.0.1:{port}"));
                }
            }
            bail!("no free port in {PORTS:?}")
        };
        let mut nodes = Vec::new();
        for place in places {
            let folder = launch.dir.join(place.to_string());
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            nodes.push(Node {
                place,
                addr: port()?,
                advertised: port()?,
                status_addr: port()?,
                data: folder.join("data"),
                log: launch.dir.join(format!("{place}.log")),
                ready_file: folder.join("ready.json"),
                process: None,
            });
        }
        Ok(Cluster { launch, nodes })
    }

    /// All nodes, the scheduler first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The stores' places.
    pub fn stores(&self) -> Vec<Place> {
        self.nodes.iter().skip(1).map(|node| node.place).collect()
    }

    /// The node at `place`, which is none of the clients.
    pub fn node(&self, place: Place) -> &Node {
        self.nodes.iter().find(|node| node.place == place).expect("a node of this cluster")
    }

    /// Like [`Cluster::node`].
    pub fn node_mut(&mut self, place: Place) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.place == place).expect("a node of this cluster")
    }

    /// Starts a node that is down. It is not ready yet.
    ///
    /// # Errors
    /// The executable or the folder can't be used.
    pub fn start(&mut self, place: Place) -> anyhow::Result<()> {
        let scheduler = self.nodes[0].advertised.clone();
        let launch = self.launch.clone();
        let node = self.node_mut(place);
        let mut command = Command::new(&launch.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TINYKV_") {
                command.env_remove(name);
            }
        }
        command
            .arg("start")
            .arg("--data")
            .arg(&node.data)
            .arg("--ready-file")
            .arg(&node.ready_file);
        match place {
            Place::Scheduler => {
                command.args(["--roles", "scheduler", "--scheduler-addr", &node.addr]);
                command.args(["--advertise-scheduler-addr", &node.advertised]);
            }
            _ => {
                command.args(["--roles", "store", "--endpoints", &scheduler]);
                command.args(["--addr", &node.addr, "--advertise-addr", &node.advertised]);
                command.args(["--status-addr", &node.status_addr]);
                for setting in &launch.settings {
                    command.args(["--config", setting]);
                }
            }
        }
        node.process = Some(Process::spawn(command, node.ready_file.clone(), node.log.clone())?);
        Ok(())
    }

    /// Waits until every node that was started is ready. Returns the longest time since a start.
    ///
    /// # Errors
    /// One ended, or was not ready in time.
    pub async fn ready(&mut self) -> anyhow::Result<Duration> {
        let mut longest = Duration::ZERO;
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                let (_, took) = process
                    .ready(READY_WITHIN)
                    .await
                    .with_context(|| format!("{} does not come up", node.place))?;
                longest = longest.max(took);
            }
        }
        Ok(longest)
    }

    /// SIGKILL to all of `places`, and waits for their end.
    ///
    /// # Errors
    /// One of them is down, or can't be waited for.
    pub fn kill(&mut self, places: &[Place]) -> anyhow::Result<()> {
        // All get the signal before the first is waited for.
        let mut dying = Vec::new();
        for place in places {
            let process = self.node_mut(*place).process.take();
            let process = process.with_context(|| format!("{place} does not run"))?;
            process.strike()?;
            dying.push(process);
        }
        for process in dying {
            process.kill()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end in order.
    ///
    /// # Errors
    /// It runs on, or ended otherwise.
    pub async fn stop(&mut self, place: Place) -> anyhow::Result<()> {
        let node = self.node_mut(place);
        let mut process = node.process.take().with_context(|| format!("{place} does not run"))?;
        process.terminate()?;
        match process.ended(ENDED_WITHIN).await? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                bail!("after SIGTERM {place} ended with {status}\n{}", log_tail(&node.log))
            }
            None => bail!("after SIGTERM {place} still runs after {ENDED_WITHIN:?}"),
        }
    }

    /// The node's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&mut self, place: Place) -> anyhow::Result<&mut Process> {
        self.node_mut(place).process.as_mut().with_context(|| format!("{place} does not run"))
    }

    /// Whether the node has a process, as far as is known.
    pub fn runs(&self, place: Place) -> bool {
        self.node(place).process.is_some()
    }

    /// Takes note that the node's process has ended.
    pub fn forget(&mut self, place: Place) {
        self.node_mut(place).process = None;
    }

    /// The process ids of the nodes that run.
    pub fn ids(&self) -> Vec<(Place, u32)> {
        self.nodes
            .iter()
            .filter_map(|node| Some((node.place, node.process.as_ref()?.id())))
            .collect()
    }

    /// Notices nodes that ended by themselves: returns them with what they said last.
    ///
    /// # Errors
    /// A process can't be asked.
    pub async fn ended_by_themselves(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Some(status) = process.ended(Duration::ZERO).await? {
                node.process = None;
                ended.push(format!(
                    "{} ended by itself: {status}\n{}",
                    node.place,
                    log_tail(&node.log)
                ));
            }
        }
        Ok(ended)
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        self.nodes.iter().map(|node| log_tail(&node.log) + "\n").collect()
    }

    /// Where folders and logs lie.
    pub fn dir(&self) -> &Path {
        &self.launch.dir
    }
}
