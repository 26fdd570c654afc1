//! Golden scripts of placement: a cluster in a few lines, then what the scheduler decides about it, drawn to be read.
//!
//! Each file under `golden/` shows one property, which its first line states. `UPDATE_GOLDENFILES=1 cargo test -p
//! scheduler --test placement` writes the outcomes anew; commit only a difference that you can explain.
//!
//! Peers are `STORE` with a mark: `1*` leads, `4l` is a learner, `4i` and `4d` come and go in a joint change. Drawn,
//! they have their ids before: `11@1*`. Region 1 begins with the peers 11@1, 12@2 and so on; `new@4` has no id yet.
//! Nothing happens by itself: `check` and `balance` ask for one decision and change nothing, `run` lets time pass.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod board;
mod draw;

use std::{error::Error, fmt::Write as _, fs, path::Path, time::Duration};

use goldenscript::{Context, Runner};
use scheduler::{ChangeStyle, ClusterConfig, RegionInfo, Store, StoreFilter, testing::Question};
use types::{KeyRange, Region, RegionEpoch, RegionId, StoreId};

use board::Board;
use draw::{draw_change, draw_info, draw_operator, draw_region, parse_change, parse_peers};

/// The script language.
#[derive(goldenscript::Command)]
enum Command {
    /// Stores that are well. Example: stores 1-4
    Stores(String),
    /// One store: what it says of itself, and what it is pretended to hold (MiB). Example: store 4 weight=160 busy=true
    Store {
        id: u64,
        #[arg(key)]
        weight: Option<u64>,
        #[arg(key)]
        leaders: Option<u64>,
        #[arg(key)]
        silent: Option<bool>,
        #[arg(key)]
        busy: Option<bool>,
        #[arg(key)]
        capacity: Option<u64>,
        #[arg(key)]
        available: Option<u64>,
        #[arg(key)]
        sending: Option<u32>,
        #[arg(key)]
        receiving: Option<u32>,
        #[arg(key)]
        regions: Option<u32>,
        #[arg(key)]
        address: Option<String>,
        #[arg(key)]
        version: Option<String>,
    },
    /// A region as its leader reports it; size in MiB. Example: region 1 "1* 2 3" keys=a-m size=10 pending="3" down="2:1900"
    Region {
        id: u64,
        peers: String,
        #[arg(key, optional)]
        keys: String,
        #[arg(key)]
        size: Option<u64>,
        #[arg(key, optional)]
        pending: String,
        #[arg(key, optional)]
        down: String,
        #[arg(key)]
        epoch: Option<String>,
        #[arg(key, optional)]
        term: u64,
    },
    /// Settings. Example: set max=5 style=one-by-one tolerance=1
    Set {
        #[arg(key)]
        max: Option<u32>,
        #[arg(key)]
        style: Option<String>,
        #[arg(key)]
        tolerance: Option<u64>,
        #[arg(key)]
        add_limit: Option<usize>,
        #[arg(key)]
        remove_limit: Option<usize>,
        #[arg(key)]
        replica_limit: Option<usize>,
        #[arg(key)]
        region_limit: Option<usize>,
        #[arg(key)]
        leader_limit: Option<usize>,
    },
    /// Time passes in which the scheduler does nothing but take heartbeats. Example: pass 40
    Pass(u64),
    /// Time passes in which it works; shows what it asks for. Example: run 30
    Run(f64),
    /// What it would do about the replicas of a region, or of all. Example: check 1
    Check(Option<u64>),
    /// Which move it would make. Example: balance region
    Balance(String),
    /// Which stores take part in what.
    Filters,
    /// The leader of a region reports it as it is. Example: report 1
    Report(u64),
    /// The leader of a region does what it was told last, and reports. Example: do 1
    Do(u64),
    /// The leaders of all regions do what they were told, again and again, and those who lag behind catch up.
    DoAll,
    /// Nothing is heard of a region's leader any more. Example: mute 1
    Mute(u64),
    /// Whoever lagged behind in a region has caught up; its leader reports. Example: caught_up 1
    CaughtUp(u64),
    /// What is being done to a region. Example: operator 1
    Operator(u64),
    /// What is being done.
    Operators,
    /// Somebody wants a region changed. Example: admin 1 move=1-4
    Admin {
        region: u64,
        #[arg(key)]
        add: Option<String>,
        #[arg(key)]
        remove: Option<String>,
        #[arg(key)]
        promote: Option<String>,
        #[arg(key = "move")]
        to: Option<String>,
        #[arg(key)]
        transfer: Option<String>,
        #[arg(key)]
        split: Option<String>,
    },
    /// A store is sent away. Example: remove_store 2
    RemoveStore(u64),
    /// That is taken back. Example: restore_store 2
    RestoreStore(u64),
    /// Stores that are gone for good are forgotten.
    Forget,
    /// The stores and what they hold.
    ListStores,
    /// The regions.
    ListRegions,
    /// The oldest version of the stores.
    OldestVersion,
    /// A leader wants to split. Example: ask_split 1 count=2
    AskSplit {
        region: u64,
        #[arg(key)]
        count: Option<u32>,
        #[arg(key)]
        epoch: Option<String>,
    },
    /// A leader has split. Example: report_split 9:a-g 1:g-m version=2
    ReportSplit {
        regions: Vec<String>,
        #[arg(key)]
        version: Option<u64>,
    },
    /// The scheduler is started again.
    Restart,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

impl Runner for Board {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Fallible<String> {
        let mut out = self.execute(command)?;
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        Ok(out)
    }
}

impl Board {
    fn execute(&mut self, command: &Command) -> Fallible<String> {
        let mut out = String::new();
        match command {
            Command::Stores(range) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                for id in first.parse::<u64>()?..=last.parse()? {
                    self.put_store(id)?;
                }
            }
            Command::Store {
                id,
                weight,
                leaders,
                silent,
                busy,
                capacity,
                available,
                sending,
                receiving,
                regions,
                address,
                version,
            } => {
                if address.is_some() || version.is_some() || !self.stores.contains_key(id) {
                    let store = self.store(*id);
                    let address = address.clone().unwrap_or(store.address);
                    let version = version.clone().unwrap_or_default();
                    let store = Store { address, version, ..store };
                    if let Err(error) = self.scheduler.put_store(store) {
                        return Ok(format!("refused: {error}"));
                    }
                }
                let machine = self.stores.entry(*id).or_default();
                machine.silent = silent.unwrap_or(machine.silent);
                let stats = &mut machine.stats;
                stats.store_id = StoreId(*id);
                stats.is_busy = busy.unwrap_or(stats.is_busy);
                stats.capacity = capacity.unwrap_or(stats.capacity);
                stats.available = available.unwrap_or(stats.available);
                stats.sending_snapshots = sending.unwrap_or(stats.sending_snapshots);
                stats.receiving_snapshots = receiving.unwrap_or(stats.receiving_snapshots);
                stats.region_count = regions.unwrap_or(stats.region_count);
                if weight.is_some() || leaders.is_some() {
                    let held = self.pretended.entry(StoreId(*id)).or_default();
                    held.weight = weight.map_or(held.weight, |weight| weight << 20);
                    held.leaders = leaders.unwrap_or(held.leaders);
                }
                self.store_heartbeat(*id);
            }
            Command::Region { id, peers, keys, size, pending, down, epoch, term } => {
                let (peers, leader) = parse_peers(*id, peers)?;
                let on = |store: &str| -> Fallible<_> {
                    let store = StoreId(store.parse()?);
                    Ok(*peers.iter().find(|peer| peer.store_id == store).ok_or("no such peer")?)
                };
                let pending = pending.split_whitespace().map(on).collect::<Fallible<_>>()?;
                let down_peer = |text: &str| -> Fallible<_> {
                    let (store, seconds) = text.split_once(':').ok_or("STORE:SECONDS")?;
                    Ok((on(store)?, seconds.parse()?))
                };
                let down = down.split_whitespace().map(down_peer).collect::<Fallible<_>>()?;
                let epoch = epoch.as_deref().map_or(Ok(RegionEpoch::FIRST), parse_epoch)?;
                let info = RegionInfo {
                    region: Region {
                        id: RegionId(*id),
                        range: parse_range(keys),
                        epoch,
                        peers: peers.clone(),
                    },
                    leader,
                    term: *term,
                    pending_peers: pending,
                    down_peers: down,
                    approximate_size: size.unwrap_or(1) << 20,
                    ..RegionInfo::default()
                };
                out = self.report(info);
            }
            Command::Set {
                max,
                style,
                tolerance,
                add_limit,
                remove_limit,
                replica_limit,
                region_limit,
                leader_limit,
            } => {
                if let Some(max_peer_count) = *max {
                    let _ = self.scheduler.put_cluster_config(ClusterConfig { max_peer_count })?;
                }
                let mut config = self.scheduler.schedule_config().clone();
                config.change_style = match style.as_deref() {
                    None => config.change_style,
                    Some("joint") => ChangeStyle::Joint,
                    Some("one-by-one") => ChangeStyle::OneByOne,
                    Some("direct") => ChangeStyle::Direct,
                    Some(other) => return Err(format!("no style: {other}").into()),
                };
                config.leader_tolerance = tolerance.unwrap_or(config.leader_tolerance);
                config.store_add_limit = add_limit.unwrap_or(config.store_add_limit);
                config.store_remove_limit = remove_limit.unwrap_or(config.store_remove_limit);
                config.replica_schedule_limit =
                    replica_limit.unwrap_or(config.replica_schedule_limit);
                config.region_schedule_limit = region_limit.unwrap_or(config.region_schedule_limit);
                config.leader_schedule_limit = leader_limit.unwrap_or(config.leader_schedule_limit);
                self.scheduler.set_schedule_config(config);
            }
            Command::Pass(seconds) => self.pass(*seconds),
            Command::Run(seconds) => out = self.run_for(Duration::from_secs_f64(*seconds)),
            Command::Check(Some(id)) => {
                out = draw_operator(self.decide(Question::Replicas(RegionId(*id))).as_ref());
            }
            Command::Check(None) => {
                let ids: Vec<u64> = self.regions.keys().copied().collect();
                for id in ids {
                    let decision =
                        draw_operator(self.decide(Question::Replicas(RegionId(id))).as_ref());
                    writeln!(out, "region {id}: {decision}")?;
                }
            }
            Command::Balance(what) => {
                let question = match what.as_str() {
                    "region" => Question::BalanceRegion,
                    "leader" => Question::BalanceLeader,
                    other => return Err(format!("balance {other}?").into()),
                };
                out = match self.decide(question) {
                    Some(plan) => format!("region {}: {}", plan.region, draw_operator(Some(&plan))),
                    None => draw_operator(None),
                };
            }
            Command::Filters => out = self.filters(),
            Command::Report(id) => {
                let info = self.regions[id].clone();
                out = self.report(info);
            }
            Command::Do(id) => {
                let order = self.orders.get(id).ok_or("nothing was asked for")?.clone();
                out = self.execute_order(*id, &order);
            }
            Command::DoAll => out = self.do_all(),
            Command::Mute(id) => {
                self.muted.insert(*id);
            }
            Command::CaughtUp(id) => {
                let mut info = self.regions[id].clone();
                info.pending_peers.clear();
                out = self.report(info);
            }
            Command::Operator(id) => {
                out = match self.scheduler.operator(RegionId(*id)) {
                    Ok(answer) => draw_info(&answer.value),
                    Err(error) => format!("refused: {error}"),
                };
            }
            Command::Operators => {
                for info in self.scheduler.operators().value {
                    writeln!(out, "region {}: {}", info.region, draw_info(&info))?;
                }
            }
            Command::Admin { region, add, remove, promote, to, transfer, split } => {
                let change = parse_change([add, remove, promote, to, transfer, split])?;
                let drawn = draw_change(&change);
                out = match self.scheduler.add_operator(RegionId(*region), change) {
                    Ok(_) => format!("{drawn}: ok\n{}", self.take_orders()),
                    Err(error) => format!("{drawn}: refused: {error}"),
                };
            }
            Command::RemoveStore(id) => out = shown(self.scheduler.remove_store(StoreId(*id))),
            Command::RestoreStore(id) => out = shown(self.scheduler.restore_store(StoreId(*id))),
            Command::Forget => {
                let gone = self.scheduler.forget_tombstones()?.value;
                out = format!("forgotten: {gone:?}");
            }
            Command::ListStores => {
                for info in self.scheduler.all_stores(StoreFilter::All)?.value {
                    let (store, held) = (&info.store, info.regions);
                    writeln!(
                        out,
                        "store {} {}: {} regions, leads {}",
                        store.id,
                        store.state.name(),
                        held.regions,
                        held.leaders
                    )?;
                }
            }
            Command::ListRegions => {
                for info in self.scheduler.scan_regions(&KeyRange::all(), 0)?.value {
                    writeln!(out, "{}", draw_region(&info))?;
                }
            }
            Command::OldestVersion => {
                out = self.scheduler.oldest_version()?.value.unwrap_or("unknown".to_owned());
            }
            Command::AskSplit { region, count, epoch } => {
                let mut asking = self.regions[region].region.clone();
                if let Some(epoch) = epoch {
                    asking.epoch = parse_epoch(epoch)?;
                }
                match self.scheduler.ask_batch_split(&asking, count.unwrap_or(1)) {
                    Ok(answer) => {
                        for ids in answer.value {
                            let peers: Vec<u64> = ids.peers.iter().map(|peer| peer.0).collect();
                            writeln!(out, "region {} with peers {peers:?}", ids.region)?;
                        }
                    }
                    Err(error) => out = format!("refused: {error}"),
                }
            }
            Command::ReportSplit { regions, version } => {
                let regions = regions.iter().map(|text| -> Fallible<Region> {
                    let (id, keys) = text.split_once(':').ok_or("ID:KEYS")?;
                    let (peers, _) = parse_peers(id.parse()?, "1 2 3")?;
                    let epoch = RegionEpoch { conf_ver: 1, version: version.unwrap_or(2) };
                    Ok(Region { id: RegionId(id.parse()?), range: parse_range(keys), epoch, peers })
                });
                let regions = regions.collect::<Fallible<_>>()?;
                out = shown(self.scheduler.report_batch_split(regions));
            }
            Command::Restart => self.restart(),
        }
        Ok(out)
    }
}

fn shown<T>(answer: scheduler::Result<T>) -> String {
    match answer {
        Ok(_) => "ok".into(),
        Err(error) => format!("refused: {error}"),
    }
}

fn parse_epoch(text: &str) -> Fallible<RegionEpoch> {
    let (conf_ver, version) = text.split_once('/').ok_or("an epoch is CONF_VER/VERSION")?;
    Ok(RegionEpoch { conf_ver: conf_ver.parse()?, version: version.parse()? })
}

/// `a-m`, `-m`, `a-`, or nothing for all keys.
fn parse_range(text: &str) -> KeyRange {
    let (start, end) = text.split_once('-').unwrap_or(("", ""));
    KeyRange::new(start.to_owned(), end.to_owned())
}

#[test]
fn golden_scripts() {
    let root = Path::new("tests/placement/golden");
    let mut scripts = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        let folder = fs::read_dir(folder.unwrap().path()).unwrap();
        scripts.extend(folder.map(|script| script.unwrap().path()));
    }
    scripts.sort();
    assert!(scripts.len() >= 40, "only {} scripts were found", scripts.len());
    for path in scripts {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} does not begin with its property", path.display());
        println!("{}", path.display());
        goldenscript::run(&mut Board::new(), &path).unwrap();
    }
}
