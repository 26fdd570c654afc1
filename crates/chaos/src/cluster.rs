//! Chaos for a cluster of real processes: three stores and a scheduler, under load, while everything happens to them.
//!
//! | file | what |
//! |---|---|
//! | `cluster.rs` | a run: start, load, nemeses, judgement |
//! | `processes.rs` | the nodes, their ports, folders and logs |
//! | `network.rs` | proxies between the nodes, which cut and slow links |
//! | `disks.rs` | a file system for each store, which loses power and fills up |
//! | `nemesis.rs` | which faults there are, and the plan of a run |
//! | `stage.rs` | how each fault is executed |
//! | `load.rs` | clients that write and read through the client crate |
//! | `direct.rs` | readers that ask each store past every route |
//! | `probe.rs` | how long nothing can be written |
//! | `history.rs` | what was done and answered, and the judges |
//! | `report.rs` | the result |
//!
//! Only the public API is used: the client crate, and reads of TiKV's own service. The same seed gives the same plan and
//! the same victims; how threads and processes interleave is up to the machine, so that a failure keeps logs and data.

pub mod direct;
pub mod disks;
pub mod history;
pub mod load;
pub mod nemesis;
pub mod network;
pub mod probe;
pub mod processes;
pub mod report;
pub mod stage;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use check::history::{Action, Content as Held};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    direct::{Direct, ReadAs, Readers, Regions},
    disks::Disks,
    history::{Judgement, Recorder},
    load::{ClusterLoad, Pace},
    nemesis::{Nemesis, plan},
    network::Network,
    probe::Probe,
    processes::{Cluster, ClusterLaunch, Place},
    report::{ClusterReport, Event},
    stage::{SERVES_WITHIN, Stage},
};
use crate::{
    dial::{Tinykv, TinykvDial},
    kv::{Answer, Dial, Kv},
    load::Ledgers,
};

/// How many stores a cluster has.
const STORES: usize = 3;

/// Clients of the load: each learns by itself where leaders are.
const CLIENTS: u64 = 3;

/// Tasks of each client.
const TASKS_PER_CLIENT: u16 = 4;

/// The readers' numbers in the history; tasks of the load have smaller ones.
const READERS_FROM: u16 = 1000;

/// The number in the history of who reads at the end.
const LAST_READER: u16 = 2000;

/// Writers of the probe.
const PROBES: u64 = 2;

/// Small regions, short logs: splits, compactions and snapshots in a run of minutes. Times of elections are the
/// product's own.
const SETTINGS: [&str; 6] = [
    "coprocessor.region-max-keys=24",
    "coprocessor.region-split-keys=12",
    "raftstore.split-region-check-tick-interval=1s",
    "raftstore.raft-log-gc-count-limit=300",
    "raftstore.raft-log-gc-tick-interval=1s",
    "memory.limit=128MiB",
];

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The product's executable.
    pub binary: PathBuf,
    /// Where folders and logs go.
    pub dir: PathBuf,
    /// Kills of stores; everything else in proportion.
    pub kills: u32,
    /// No nemesis begins after this time.
    pub limit: Option<Duration>,
    /// Only these nemeses; all if empty.
    pub only: Vec<Nemesis>,
    /// Decides.
    pub seed: u64,
    /// More settings of the stores, as `KEY=VALUE`.
    pub settings: Vec<String>,
}

/// Runs it. What goes wrong is in the report. `progress` gets each event after it is over, and how many are planned.
pub async fn run(options: Options, progress: impl Fn(&Event, usize)) -> ClusterReport {
    let mut report = ClusterReport::new(options.seed, options.kills);
    let ledgers = Ledgers::default();
    let recorder = Recorder::new(ledgers.clone());
    let begin = Instant::now();
    let mut run = Run { recorder, ledgers, last: BTreeMap::new() };
    let outcome = run.all(&options, &mut report, progress).await;
    report.seconds = begin.elapsed().as_secs();
    report.counts = run.recorder.counts();
    let judgement = run.recorder.judge(&run.last);
    let mut others: Vec<String> =
        run.ledgers.model().violations().iter().map(ToString::to_string).collect();
    if let Err(error) = outcome {
        others.push(format!("{error:#}"));
    }
    write_out(&options, &judgement, &others);
    report.finish(judgement, &others);
    report
}

/// Writes the operations of keys without explanation to a file.
fn write_out(options: &Options, judgement: &Judgement, others: &[String]) {
    if !judgement.violations.is_empty() || !others.is_empty() {
        let text = format!("{}\n{}", judgement.violations.join("\n"), judgement.written_out);
        // The violations themselves are in the report.
        let _ = std::fs::write(options.dir.join("history.txt"), text);
    }
}

struct Run {
    recorder: Recorder,
    ledgers: Ledgers,
    /// What each key held at the end.
    last: BTreeMap<Bytes, Held>,
}

impl Run {
    async fn all(
        &mut self,
        options: &Options,
        report: &mut ClusterReport,
        progress: impl Fn(&Event, usize),
    ) -> anyhow::Result<()> {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let mut settings: Vec<String> = SETTINGS.map(str::to_owned).into();
        settings.extend_from_slice(&options.settings);
        let launch = ClusterLaunch {
            binary: options.binary.clone(),
            dir: options.dir.clone(),
            stores: STORES,
            settings,
        };
        let mut cluster = Cluster::new(launch, &mut rng)?;
        let mut plan = plan(options.kills, &options.only, &mut rng);
        let mut disks = None;
        if plan.iter().any(|nemesis| nemesis.needs_disks()) {
            match Disks::create(&mut cluster) {
                Ok(made) => disks = Some(made),
                Err(why) => {
                    let needs = Nemesis::ALL.into_iter().filter(|nemesis| nemesis.needs_disks());
                    report.skipped = needs.map(|n| format!("{}: {why}", n.name())).collect();
                    plan.retain(|nemesis| !nemesis.needs_disks());
                }
            }
        }
        let network = Network::start(&cluster).await?;
        for place in cluster.nodes().iter().map(|node| node.place).collect::<Vec<_>>() {
            cluster.start(place)?;
        }
        cluster.ready().await?;
        network.know(&cluster);

        let scheduler = cluster.node(Place::Scheduler).addr.clone();
        let clients = dial_all(&scheduler, options.seed, CLIENTS, patient).await?;
        let probes = dial_all(&scheduler, options.seed, PROBES, impatient).await?;
        let direct = dial_stores(&cluster, &clients[0]).await?;
        let regions = Regions::default();
        replicated(&clients[0], &regions).await?;
        let mut watch = JoinSet::new();
        watch.spawn(watch_regions(clients[0].clone(), regions.clone()));

        let probe = Probe::start(&probes);
        if !probe.written_within(SERVES_WITHIN).await {
            bail!("a new cluster acknowledges no write for {SERVES_WITHIN:?}");
        }
        let begin = Instant::now();
        let mut stage = Stage { cluster, network, disks, probe, direct, regions, rng, begin };
        let seed = stage.rng.u64(..);
        let (recorder, ledgers) = (&self.recorder, &self.ledgers);
        let load =
            ClusterLoad::start(&clients, TASKS_PER_CLIENT, recorder, ledgers, Pace::CALM, seed);
        let readers = Readers::start(&stage.direct, &stage.regions, recorder, READERS_FROM, seed);

        let mut outcome = Ok(());
        for nemesis in &plan {
            if options.limit.is_some_and(|limit| limit < begin.elapsed()) {
                break;
            }
            match stage.rest().await {
                Ok(gap) => report.rested(gap),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            match stage.execute(*nemesis).await {
                Ok(event) => {
                    progress(&event, plan.len());
                    report.executed(*nemesis, event);
                }
                Err(error) => {
                    outcome = Err(error.context(format!("{} failed", nemesis.name())));
                    break;
                }
            }
        }
        load.stop().await;
        report.direct_reads = readers.stop().await;
        report.regions = stage.regions.count();
        if outcome.is_err() {
            let tails = stage.cluster.log_tails();
            return outcome.with_context(|| tails);
        }
        self.read_everything(&clients[0], &stage, report).await?;
        for place in stage.cluster.stores() {
            stage.cluster.stop(place).await?;
        }
        stage.cluster.stop(Place::Scheduler).await
    }

    /// Reads every key: from its leader, which is what must be there, and from every replica.
    async fn read_everything(
        &mut self,
        client: &Tinykv,
        stage: &Stage,
        report: &mut ClusterReport,
    ) -> anyhow::Result<()> {
        for key in self.recorder.keys() {
            let begun = self.recorder.begin(LAST_READER, &key, Action::Read);
            let found = client
                .get(key.clone())
                .await
                .map_err(|failure| anyhow!("cannot read at the end: {failure}"))?;
            if let Some(held) = self.recorder.read(begun, found.as_deref()) {
                self.last.insert(key.clone(), held);
            }
            for store in &stage.direct {
                self.read_replica(store, &stage.regions, &key).await?;
                report.replica_reads += 1;
            }
        }
        Ok(())
    }

    async fn read_replica(
        &self,
        store: &Direct,
        regions: &Regions,
        key: &Bytes,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let region = regions.of(key).context("a key without a region")?;
            let begun = self.recorder.begin(LAST_READER, key, Action::Read);
            match store.get(&region, key.clone(), ReadAs::Replica, SERVES_WITHIN).await {
                Ok(found) => {
                    self.recorder.read(begun, found.as_deref());
                    return Ok(());
                }
                // A split that has just happened, a leader that is just elected.
                Err(failure) => {
                    self.recorder.failed(begun, &failure);
                    if SERVES_WITHIN < begin.elapsed() {
                        bail!("{} gives no read of a replica at the end: {failure}", store.place);
                    }
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// How often something is asked for again while it is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often the scheduler is asked for its regions.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// A client that gives a write up when its store does not answer for seconds.
fn patient(seed: u64) -> TinykvDial {
    TinykvDial { seed, timeout: Duration::from_secs(10), attempt: Duration::from_secs(2) }
}

/// A client that soon tries again: what it can't write at once is not available.
fn impatient(seed: u64) -> TinykvDial {
    let soon = Duration::from_millis(250);
    TinykvDial { seed, timeout: soon, attempt: soon }
}

async fn dial_all(
    scheduler: &str,
    seed: u64,
    count: u64,
    dial: fn(u64) -> TinykvDial,
) -> anyhow::Result<Vec<Tinykv>> {
    let mut clients = Vec::new();
    for number in 0..count {
        let client = dial(seed.wrapping_add(number)).dial(scheduler).await;
        clients.push(client.map_err(|failure| anyhow!("cannot connect: {failure}"))?);
    }
    Ok(clients)
}

async fn dial_stores(cluster: &Cluster, client: &Tinykv) -> anyhow::Result<Vec<Direct>> {
    let known = until(async || {
        let stores = client.stores().await?;
        Ok((stores.len() == cluster.stores().len()).then_some(stores))
    })
    .await
    .context("the scheduler does not know all stores")?;
    let mut direct = Vec::new();
    for place in cluster.stores() {
        let node = cluster.node(place);
        let info = known.iter().find(|store| store.address == node.advertised);
        let info = info.with_context(|| format!("the scheduler does not know {place}"))?;
        direct.push(Direct::new(place, info.id.0, &node.addr)?);
    }
    Ok(direct)
}

/// Waits until every region has a replica on every store.
async fn replicated(client: &Tinykv, regions: &Regions) -> anyhow::Result<()> {
    let found = until(async || {
        let found = client.regions().await?;
        let is_done = !found.is_empty()
            && found.iter().all(|info| {
                info.region.peers.len() == STORES
                    && info.leader.is_some()
                    && info.pending.is_empty()
            });
        Ok(is_done.then_some(found))
    })
    .await
    .context("the regions do not get their replicas")?;
    regions.set(found.into_iter().map(|info| info.region).collect());
    Ok(())
}

async fn watch_regions(client: Tinykv, regions: Regions) {
    loop {
        sleep(WATCH_EVERY).await;
        // Without the scheduler, what was known before is all there is.
        if let Ok(found) = client.regions().await {
            regions.set(found.into_iter().map(|info| info.region).collect());
        }
    }
}

/// Asks again and again, for as long as a cluster may take to serve.
async fn until<T>(mut ask: impl AsyncFnMut() -> Answer<Option<T>>) -> anyhow::Result<T> {
    let begin = Instant::now();
    let mut last = "not yet".to_owned();
    while begin.elapsed() < SERVES_WITHIN {
        match ask().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(failure) => last = failure.to_string(),
        }
        sleep(LOOK_AGAIN).await;
    }
    bail!("after {SERVES_WITHIN:?}: {last}")
}
