//! The cluster under load, and what is done to it.
//!
//! Each nemesis ends when all nodes run, all links are open, and a write that began afterwards was acknowledged; that
//! this takes no longer than [`SERVES_WITHIN`] is part of the proof. Nothing is taken for executed before that.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::{
    direct::{Direct, ReadAs, Regions},
    disks::Disks,
    nemesis::{Nemesis, partition},
    network::{Flow, Network},
    probe::{PROBE_KEY, Probe},
    processes::{Cluster, Place},
    report::Event,
};

/// How soon a cluster without faults must acknowledge a write.
pub const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// How long a store may take to say whether it leads.
const LEADS_WITHIN: Duration = Duration::from_millis(500);

/// How often the leader is looked for while there is none.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a store whose disk fails may go on.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// The delay of slow links.
const SLOW_MS: std::ops::Range<u64> = 20..200;

/// Everything that runs.
pub struct Stage {
    /// The processes.
    pub cluster: Cluster,
    /// What is between them.
    pub network: Network,
    /// What is below them, where that is permitted.
    pub disks: Option<Disks>,
    /// Measures how long nothing can be written.
    pub probe: Probe,
    /// A connection to each store, in the order of their places.
    pub direct: Vec<Direct>,
    /// The regions.
    pub regions: Regions,
    /// Decides.
    pub rng: fastrand::Rng,
    /// When the load began.
    pub begin: Instant,
}

impl Stage {
    /// Executes a nemesis.
    ///
    /// # Errors
    /// The product did not do what it must: the run can't go on.
    pub async fn execute(&mut self, nemesis: Nemesis) -> anyhow::Result<Event> {
        let at = Instant::now();
        self.probe.open_window();
        let whom = match nemesis {
            Nemesis::KillLeader => {
                let leader = self.leader().await?;
                self.kill(&[leader]).await?
            }
            Nemesis::KillOne => {
                let store = self.any_store();
                self.kill(&[store]).await?
            }
            Nemesis::KillAll => self.kill(&self.cluster.stores()).await?,
            Nemesis::Pause => {
                let store = self.any_store();
                self.pause(store).await?
            }
            Nemesis::PauseLeader => {
                let leader = self.leader().await?;
                self.pause(leader).await?
            }
            Nemesis::KillScheduler => self.kill_scheduler().await?,
            Nemesis::RollingRestart => self.rolling_restart().await?,
            Nemesis::Partition => self.partition().await?,
            Nemesis::PowerCut => {
                let store = self.any_store();
                self.power_cut(&[store]).await?
            }
            Nemesis::PowerCutAll => self.power_cut(&self.cluster.stores()).await?,
            Nemesis::SyncFailure => self.sync_failure().await?,
            Nemesis::DiskFull => self.disk_full().await?,
        };
        self.serves().await.with_context(|| format!("after {} {whom}", nemesis.name()))?;
        let gap = self.probe.longest_gap();
        Ok(Event {
            nemesis: nemesis.name().to_owned(),
            whom,
            at_ms: millis(at.duration_since(self.begin)),
            took_ms: millis(at.elapsed()),
            gap_ms: millis(gap),
        })
    }

    /// A moment without faults between two of them. Returns the longest time in it without an acknowledged write, in
    /// milliseconds.
    ///
    /// # Errors
    /// See `Stage::serves`.
    pub async fn rest(&mut self) -> anyhow::Result<u64> {
        self.probe.open_window();
        sleep(self.moment(200, 800)).await;
        // What comes is not to be blamed for what was before.
        self.serves().await.context("without a fault")?;
        Ok(millis(self.probe.longest_gap()))
    }

    fn any_store(&mut self) -> Place {
        let stores = self.cluster.stores();
        stores[self.rng.usize(0..stores.len())]
    }

    fn moment(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    /// The store that leads the probe's region: the one that reads there as leader.
    async fn leader(&self) -> anyhow::Result<Place> {
        let begin = Instant::now();
        while begin.elapsed() < SERVES_WITHIN {
            if let Some(region) = self.regions.of(&PROBE_KEY) {
                for store in &self.direct {
                    let read = store.get(&region, PROBE_KEY, ReadAs::Leader, LEADS_WITHIN);
                    if read.await.is_ok() {
                        return Ok(store.place);
                    }
                }
            }
            sleep(LOOK_AGAIN).await;
        }
        bail!("no store leads the region of the probe for {SERVES_WITHIN:?}")
    }

    /// Waits until nodes that were started are ready, and a write is acknowledged.
    async fn serves(&mut self) -> anyhow::Result<()> {
        self.network.know(&self.cluster);
        self.cluster.ready().await?;
        if !self.probe.written_within(SERVES_WITHIN).await {
            bail!("no write was acknowledged for {SERVES_WITHIN:?} while all nodes run");
        }
        let ended = self.cluster.ended_by_themselves().await?;
        if !ended.is_empty() {
            bail!("{}", ended.join("\n"));
        }
        Ok(())
    }

    fn start(&mut self, places: &[Place]) -> anyhow::Result<()> {
        for place in places {
            self.cluster.start(*place)?;
        }
        self.network.know(&self.cluster);
        Ok(())
    }

    async fn kill(&mut self, places: &[Place]) -> anyhow::Result<String> {
        self.cluster.kill(places)?;
        sleep(self.moment(100, 2500)).await;
        self.start(places)?;
        Ok(names(places))
    }

    async fn pause(&mut self, place: Place) -> anyhow::Result<String> {
        self.cluster.process(place)?.pause()?;
        let moment = self.moment(500, 4000);
        sleep(moment).await;
        self.cluster.process(place)?.resume()?;
        Ok(format!("{place} for {} ms", moment.as_millis()))
    }

    async fn kill_scheduler(&mut self) -> anyhow::Result<String> {
        self.cluster.kill(&[Place::Scheduler])?;
        let moment = self.moment(500, 3000);
        sleep(moment).await;
        // The stores need nobody to serve.
        if !self.probe.written_within(SERVES_WITHIN).await {
            bail!("no write was acknowledged for {SERVES_WITHIN:?} without the scheduler");
        }
        self.start(&[Place::Scheduler])?;
        Ok(format!("for {} ms", moment.as_millis()))
    }

    async fn rolling_restart(&mut self) -> anyhow::Result<String> {
        for place in self.cluster.stores() {
            self.cluster.stop(place).await?;
            self.start(&[place])?;
            self.serves().await?;
            // Others may be restarted when this one has what they have.
            sleep(self.moment(300, 600)).await;
        }
        Ok(names(&self.cluster.stores()))
    }

    async fn partition(&mut self) -> anyhow::Result<String> {
        let center = if self.rng.bool() { self.leader().await? } else { self.any_store() };
        let partition = partition(center, &self.cluster.stores(), &mut self.rng);
        let flow = if partition.is_slow {
            Flow::Slow(self.moment(SLOW_MS.start, SLOW_MS.end))
        } else {
            Flow::Cut
        };
        for (from, to) in partition.links {
            self.network.set(from, to, flow);
        }
        sleep(self.moment(1500, 4500)).await;
        self.network.heal();
        Ok(partition.name)
    }

    async fn power_cut(&mut self, places: &[Place]) -> anyhow::Result<String> {
        // Dead before the disk is: while a file system is shut down, a sync that is under way may return success for
        // nothing (docs/TESTING.md), and a store that lives would say so to the others.
        self.cluster.kill(places)?;
        let disks = self.disks.as_mut().context("no disks")?;
        for place in places {
            disks.cut_power(*place)?;
        }
        for place in places {
            disks.remount(*place)?;
        }
        sleep(self.moment(100, 1500)).await;
        self.start(places)?;
        Ok(names(places))
    }

    async fn sync_failure(&mut self) -> anyhow::Result<String> {
        let place = if self.rng.bool() { self.leader().await? } else { self.any_store() };
        // While it stands still no sync is under way that could return success for nothing.
        let process = self.cluster.process(place)?;
        process.pause()?;
        process.stands_still(STOPS_WITHIN).await?;
        self.disks.as_mut().context("no disks")?.cut_power(place)?;
        let process = self.cluster.process(place)?;
        process.resume()?;
        let Some(status) = process.ended(STOPS_WITHIN).await? else {
            bail!("{place} still runs {STOPS_WITHIN:?} after its disk failed");
        };
        if status.success() {
            bail!("{place} ended with {status} although its disk failed");
        }
        // What is left of it is an exit status.
        self.cluster.forget(place);
        self.disks.as_mut().context("no disks")?.remount(place)?;
        self.start(&[place])?;
        Ok(format!("{place} ({status})"))
    }

    async fn disk_full(&mut self) -> anyhow::Result<String> {
        let place = if self.rng.bool() { self.leader().await? } else { self.any_store() };
        let to_the_last_byte = self.rng.u32(0..3) == 0;
        let disks = self.disks.as_mut().context("no disks")?;
        disks.fill(place, to_the_last_byte)?;
        sleep(self.moment(1000, 3000)).await;
        let mut how = if to_the_last_byte { "to the last byte" } else { "nearly" }.to_owned();
        let ended = self.cluster.process(place)?.ended(Duration::ZERO).await?;
        if let Some(status) = ended {
            // It may stop rather than write half of something; with a little space it must not.
            if !to_the_last_byte {
                bail!("{place} ended with {status} although its disk has some space");
            }
            how = format!("{how}, ended with {status}");
            self.cluster.forget(place);
        } else if self.rng.bool() {
            // A start needs no space either, or at least says so.
            self.cluster.kill(&[place])?;
            how += ", killed";
        }
        self.disks.as_mut().context("no disks")?.free(place)?;
        if !self.cluster.runs(place) {
            self.start(&[place])?;
        }
        Ok(format!("{place} {how}"))
    }
}

fn names(places: &[Place]) -> String {
    places.iter().map(Place::to_string).collect::<Vec<_>>().join(" ")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
