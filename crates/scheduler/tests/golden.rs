//! Golden scripts: requests to the scheduler, its answers, and what it recorded, drawn to be read.
//!
//! Each file under `tests/golden` shows one property, which its first line states. `UPDATE_GOLDENFILES=1 cargo test -p
//! scheduler` writes the outcomes anew; commit only a difference that you can explain.
//!
//! Records are drawn as `@position record`, and an answer that is held back until the log is durable as `(after
//! @position)`. By default the log is synced after every command; between `hold` and `sync` it is not.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{error::Error, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use goldenscript::{Context, Runner};
use scheduler::{
    Answer, ClusterConfig, LogPosition, Now, Record, RegionInfo, Result, Scheduler, Store,
    StoreFilter, StoreInfo, StoreState, StoreStats,
};
use types::{
    ApiMode, ClusterId, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    StoreId, TimeStamp, key,
};

/// The script language.
#[derive(goldenscript::Command)]
enum Command {
    /// Begins anew, with another API mode. Example: cluster v2
    Cluster(ApiMode),
    /// Lets milliseconds pass. Example: pass 50
    Pass(u64),
    /// Sets the clock on the wall. Example: clock 2000000
    Clock(u64),
    /// Takes timestamps, many times in a row; shows the last ones. Example: tso 10 times=100
    Tso {
        count: Option<u32>,
        #[arg(key)]
        times: Option<u32>,
    },
    /// The timer of the oracle.
    Tick,
    /// Takes ids. Example: id 5
    Id(Option<u32>),
    /// The first store joins, with regions split at the keys. Example: bootstrap 1 split=m api=v1
    Bootstrap {
        store: u64,
        #[arg(key)]
        split: Option<String>,
        #[arg(key)]
        api: Option<ApiMode>,
    },
    /// Like it, with one region as given. Example: bootstrap_region 1 2 start=a end=m peers=3@1
    BootstrapRegion {
        store: u64,
        region: u64,
        #[arg(key, optional)]
        start: String,
        #[arg(key, optional)]
        end: String,
        #[arg(key, optional)]
        peers: Peers,
    },
    /// Whether it has.
    IsBootstrapped,
    /// A store registers. Example: store 2 address=b.1 state=tombstone version=8.5
    Store {
        id: u64,
        #[arg(key)]
        address: Option<String>,
        #[arg(key)]
        state: Option<String>,
        #[arg(key, optional)]
        version: String,
    },
    /// Asks for a store. Example: get_store 2
    GetStore(u64),
    /// Lists stores. Example: stores alive
    Stores(Option<String>),
    /// A store reports. Example: store_heartbeat 1 available=100
    StoreHeartbeat {
        id: u64,
        #[arg(key, optional)]
        available: u64,
    },
    /// A region's leader reports. Example: region 1 start=a end=m epoch=1/2 peers=11@1/12@2 leader=11@1 size=100
    Region {
        id: u64,
        #[arg(key, optional)]
        start: String,
        #[arg(key, optional)]
        end: String,
        #[arg(key)]
        epoch: Option<String>,
        #[arg(key)]
        peers: Option<Peers>,
        #[arg(key, optional)]
        leader: Peers,
        #[arg(key, optional)]
        pending: Peers,
        #[arg(key, optional)]
        size: u64,
    },
    /// Which region has a key. Example: find k
    Find(String),
    /// Which region comes before the one that has a key. Example: prev k
    Prev(String),
    /// Asks for a region by its id. Example: get_region 1
    GetRegion(u64),
    /// Lists regions. Example: regions start=a end=m limit=2
    Regions {
        #[arg(key, optional)]
        start: String,
        #[arg(key, optional)]
        end: String,
        #[arg(key, optional)]
        limit: usize,
    },
    /// Reads or changes the settings. Example: config max_peer_count=5
    Config {
        #[arg(key)]
        max_peer_count: Option<u32>,
    },
    /// Reads or decides the key mode. Example: key_mode raw
    KeyMode(Option<String>),
    /// Reads or moves the GC safe point. Example: safe_point 100
    SafePoint(Option<u64>),
    /// A service wishes. Example: service backup ttl=10 safe_point=100
    Service {
        name: String,
        #[arg(key)]
        ttl: Option<String>,
        #[arg(key, optional)]
        safe_point: u64,
    },
    /// Asks what is being done to a region. Example: operator 1
    Operator(u64),
    /// Checks the cluster id of a request. Example: check_cluster 8
    CheckCluster(u64),
    /// The disk is slow from now on: nothing becomes durable.
    Hold,
    /// Now it does.
    Sync,
    /// Starts again with what is durable.
    Crash,
    /// Starts again with everything, by way of a snapshot.
    Restart,
    /// Shows the snapshot.
    Snapshot,
}

struct World {
    scheduler: Scheduler,
    now: Now,
    /// The log, from the creation of the cluster on.
    log: Vec<Record>,
    durable: usize,
    holding: bool,
}

impl World {
    fn new(api_mode: ApiMode) -> World {
        let scheduler = Scheduler::new(ClusterId(7), api_mode);
        let log: Vec<Record> = vec![Record::Created { cluster_id: ClusterId(7), api_mode }];
        let now = Now { monotonic: Duration::ZERO, wall_ms: 1_000_000 };
        World { durable: log.len(), scheduler, now, log, holding: false }
    }

    fn show<T>(&self, answer: Result<Answer<T>>, draw: impl FnOnce(T) -> String) -> String {
        match answer {
            Ok(Answer { value, after }) => match draw(value) {
                text if self.is_durable(after) => text,
                text => format!("{text} (after @{})", after.0),
            },
            Err(error) => format!("refused: {error}"),
        }
    }

    fn is_durable(&self, position: LogPosition) -> bool {
        position.0 <= self.durable as u64
    }

    fn restart_with(&mut self, records: Vec<Record>, position: usize) {
        self.scheduler = Scheduler::recover(records, LogPosition(position as u64)).unwrap();
        self.now.monotonic = Duration::ZERO;
    }
}

impl Runner for World {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut out = self.execute(command)?;
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        for record in self.scheduler.take_outbox() {
            self.log.push(record);
            writeln!(out, "  @{} {}", self.log.len(), draw_record(self.log.last().unwrap()))?;
        }
        if !self.holding {
            self.durable = self.log.len();
        }
        Ok(out)
    }
}

impl World {
    fn execute(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let now = self.now;
        let s = &mut self.scheduler;
        Ok(match command {
            Command::Cluster(api_mode) => {
                *self = World::new(*api_mode);
                String::new()
            }
            Command::Pass(ms) => {
                self.now.monotonic += Duration::from_millis(*ms);
                self.now.wall_ms += ms;
                String::new()
            }
            Command::Clock(ms) => {
                self.now.wall_ms = *ms;
                String::new()
            }
            Command::Tso { count, times } => {
                let count = count.unwrap_or(1);
                for _ in 1..times.unwrap_or(1) {
                    let _ = s.tso(now, count)?;
                    s.take_outbox().into_iter().for_each(|record| self.log.push(record));
                }
                let answer = s.tso(now, count);
                self.show(answer, |last| match count {
                    1 => draw_timestamp(last),
                    _ => format!(
                        "{} to {}",
                        draw_timestamp(TimeStamp(last.0 + 1 - u64::from(count))),
                        draw_timestamp(last)
                    ),
                })
            }
            Command::Tick => {
                s.tick(now);
                String::new()
            }
            Command::Id(count) => {
                let answer = s.alloc_id(count.unwrap_or(0));
                self.show(answer, |batch| match batch.last - batch.first {
                    0 => format!("{}", batch.first),
                    _ => format!("{} to {}", batch.first, batch.last),
                })
            }
            Command::Bootstrap { store, split, api } => {
                let peer =
                    |id| Peer { id: PeerId(id), store_id: StoreId(*store), role: PeerRole::Voter };
                let ranges = match split {
                    None => vec![],
                    Some(key) if key.is_empty() => vec![KeyRange::all()],
                    Some(key) => {
                        vec![KeyRange::new("", key.clone()), KeyRange::new(key.clone(), "")]
                    }
                };
                let region = |(i, range)| Region {
                    id: RegionId(i),
                    range,
                    epoch: RegionEpoch::FIRST,
                    peers: vec![peer(i + 10)],
                };
                let regions = (1..).zip(ranges).map(region).collect();
                let answer = s.bootstrap(new_store(*store), regions, api.unwrap_or_default());
                self.show(answer, |()| "ok".into())
            }
            Command::BootstrapRegion { store, region, start, end, peers } => {
                let region = Region {
                    id: RegionId(*region),
                    range: KeyRange::new(start.clone(), end.clone()),
                    epoch: RegionEpoch::FIRST,
                    peers: peers.0.clone(),
                };
                let answer = s.bootstrap(new_store(*store), vec![region], ApiMode::V1);
                self.show(answer, |()| "ok".into())
            }
            Command::IsBootstrapped => {
                let answer = s.is_bootstrapped();
                self.show(Ok(answer), |is| format!("{is}"))
            }
            Command::Store { id, address, state, version } => {
                let store = Store {
                    address: address.clone().unwrap_or(format!("host{id}")),
                    state: match state.as_deref() {
                        Some("tombstone") => StoreState::Tombstone,
                        Some("offline") => StoreState::Offline,
                        _ => StoreState::Up,
                    },
                    version: version.clone(),
                    ..new_store(*id)
                };
                let answer = s.put_store(store);
                self.show(answer, |()| "ok".into())
            }
            Command::GetStore(id) => {
                let answer = s.get_store(StoreId(*id));
                self.show(answer, |info| draw_store_info(&info))
            }
            Command::Stores(filter) => {
                let filter =
                    if filter.is_some() { StoreFilter::ExceptTombstone } else { StoreFilter::All };
                let answer = s.all_stores(filter);
                self.show(answer, |all| {
                    all.iter().map(draw_store_info).collect::<Vec<_>>().join("\n")
                })
            }
            Command::StoreHeartbeat { id, available } => {
                let stats = StoreStats {
                    store_id: StoreId(*id),
                    available: *available,
                    ..StoreStats::default()
                };
                let answer = s.store_heartbeat(now, stats);
                self.show(answer, |()| "ok".into())
            }
            Command::Region { id, start, end, epoch, peers, leader, pending, size } => {
                let report = RegionInfo {
                    region: Region {
                        id: RegionId(*id),
                        range: KeyRange::new(start.clone(), end.clone()),
                        epoch: parse_epoch(epoch.as_deref().unwrap_or("1/1"))?,
                        peers: peers
                            .as_ref()
                            .map_or_else(|| "11@1".parse().unwrap(), Peers::clone)
                            .0,
                    },
                    leader: leader.0.first().copied(),
                    pending_peers: pending.0.clone(),
                    approximate_size: *size,
                    ..RegionInfo::default()
                };
                let answer = s.region_heartbeat(report);
                self.show(answer, |_| "ok".into())
            }
            Command::Find(key) => {
                let answer = s.get_region(key.as_bytes());
                self.show(answer, |found| draw_found(found.as_ref()))
            }
            Command::Prev(key) => {
                let answer = s.get_prev_region(key.as_bytes());
                self.show(answer, |found| draw_found(found.as_ref()))
            }
            Command::GetRegion(id) => {
                let answer = s.get_region_by_id(RegionId(*id));
                self.show(answer, |found| draw_found(found.as_ref()))
            }
            Command::Regions { start, end, limit } => {
                let answer = s.scan_regions(&KeyRange::new(start.clone(), end.clone()), *limit);
                self.show(answer, |all| match &all[..] {
                    [] => "none".into(),
                    all => all.iter().map(draw_info).collect::<Vec<_>>().join("\n"),
                })
            }
            Command::Config { max_peer_count: Some(max_peer_count) } => {
                let answer =
                    s.put_cluster_config(ClusterConfig { max_peer_count: *max_peer_count });
                self.show(answer, |()| "ok".into())
            }
            Command::Config { max_peer_count: None } => {
                let answer = s.cluster_config();
                self.show(answer, |config| format!("max_peer_count={}", config.max_peer_count))
            }
            Command::KeyMode(Some(mode)) => {
                let answer =
                    s.latch_key_mode(if mode == "raw" { KeyMode::Raw } else { KeyMode::Txn });
                self.show(answer, |decided| format!("{decided}"))
            }
            Command::KeyMode(None) => {
                let answer = s.key_mode();
                self.show(answer, |mode| mode.map_or("undecided".into(), |mode| format!("{mode}")))
            }
            Command::SafePoint(Some(safe_point)) => {
                let answer = s.update_gc_safe_point(TimeStamp(*safe_point));
                self.show(answer, |safe_point| format!("{safe_point}"))
            }
            Command::SafePoint(None) => {
                let answer = s.gc_safe_point();
                self.show(answer, |safe_point| format!("{safe_point}"))
            }
            Command::Service { name, ttl, safe_point } => {
                let ttl = match ttl.as_deref() {
                    None | Some("never") => i64::MAX,
                    Some(ttl) => ttl.parse()?,
                };
                let answer =
                    s.update_service_safe_point(now, name.as_bytes(), ttl, TimeStamp(*safe_point));
                self.show(answer, |min| {
                    let ttl = match min.ttl_seconds {
                        seconds if seconds > 1 << 40 => "never".to_owned(),
                        seconds => format!("{seconds} s"),
                    };
                    format!(
                        "smallest: {} of {}, expires: {ttl}",
                        min.safe_point,
                        key::display(&min.service)
                    )
                })
            }
            Command::Operator(region) => {
                let answer = s.operator(RegionId(*region));
                self.show(answer, |info| info.desc.to_owned())
            }
            Command::CheckCluster(id) => match s.check_cluster(ClusterId(*id)) {
                Ok(()) => "ok".into(),
                Err(error) => format!("refused: {error}"),
            },
            Command::Hold => {
                self.holding = true;
                String::new()
            }
            Command::Sync => {
                self.holding = false;
                String::new()
            }
            Command::Crash => {
                let lost = self.log.split_off(self.durable);
                self.restart_with(self.log.clone(), self.durable);
                self.holding = false;
                lost.iter().map(|record| format!("lost: {}\n", draw_record(record))).collect()
            }
            Command::Restart => {
                self.restart_with(self.scheduler.snapshot(), self.log.len());
                String::new()
            }
            Command::Snapshot => {
                let records = s.snapshot();
                records.iter().map(draw_record).collect::<Vec<_>>().join("\n")
            }
        })
    }
}

/// `11@1/12@2`: peers and their stores.
#[derive(Clone, Default)]
struct Peers(Vec<Peer>);

impl std::str::FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Peers, String> {
        let peer = |text: &str| -> Option<Peer> {
            let (id, store) = text.split_once('@')?;
            let (id, store_id) = (PeerId(id.parse().ok()?), StoreId(store.parse().ok()?));
            Some(Peer { id, store_id, role: PeerRole::Voter })
        };
        let texts = text.split('/').filter(|text| !text.is_empty());
        texts
            .map(|text| peer(text).ok_or(format!("no peer: {text}")))
            .collect::<Result<_, _>>()
            .map(Peers)
    }
}

fn parse_epoch(text: &str) -> Result<RegionEpoch, Box<dyn Error>> {
    let (conf_ver, version) = text.split_once('/').ok_or("an epoch is CONF_VER/VERSION")?;
    Ok(RegionEpoch { conf_ver: conf_ver.parse()?, version: version.parse()? })
}

fn new_store(id: u64) -> Store {
    Store { id: StoreId(id), address: format!("host{id}"), ..Store::default() }
}

fn draw_timestamp(ts: TimeStamp) -> String {
    format!("{}.{}", ts.physical_ms(), ts.logical())
}

fn draw_store(store: &Store) -> String {
    let version = if store.version.is_empty() {
        String::new()
    } else {
        format!(" version {}", store.version)
    };
    format!("store {} {} at {}{version}", store.id, store.state.name(), store.address)
}

fn draw_store_info(info: &StoreInfo) -> String {
    let mut out = draw_store(&info.store);
    if let Some(stats) = &info.stats {
        write!(out, ", available {} at {}", stats.available, info.last_heartbeat.unwrap().wall_ms)
            .unwrap();
    }
    let held = info.regions;
    if held != scheduler::StoreRegions::default() {
        write!(
            out,
            ", {} regions ({} bytes), leads {} ({} bytes), {} pending",
            held.regions, held.region_bytes, held.leaders, held.leader_bytes, held.pending
        )
        .unwrap();
    }
    out
}

fn draw_peers(peers: &[Peer]) -> String {
    peers.iter().map(|peer| format!("{}@{}", peer.id, peer.store_id)).collect::<Vec<_>>().join(" ")
}

fn draw_region(region: &Region, leader: Option<Peer>) -> String {
    let bound = |bytes: &[u8], open: &str| {
        if bytes.is_empty() { open.to_owned() } else { key::display(bytes) }
    };
    let leader =
        leader.map_or("no leader".to_owned(), |leader| format!("leader {}", draw_peers(&[leader])));
    format!(
        "region {} [{}, {}) epoch {} peers {} {leader}",
        region.id,
        bound(&region.range.start, "-∞"),
        bound(&region.range.end, "+∞"),
        region.epoch,
        draw_peers(&region.peers)
    )
}

fn draw_info(info: &Arc<RegionInfo>) -> String {
    let mut out = draw_region(&info.region, info.leader);
    if !info.pending_peers.is_empty() {
        write!(out, " pending {}", draw_peers(&info.pending_peers)).unwrap();
    }
    if info.approximate_size > 0 {
        write!(out, " {} bytes", info.approximate_size).unwrap();
    }
    out
}

fn draw_found(found: Option<&Arc<RegionInfo>>) -> String {
    found.map_or("none".into(), draw_info)
}

fn draw_record(record: &Record) -> String {
    match record {
        Record::Created { cluster_id, api_mode } => {
            format!("cluster {cluster_id} created, api {api_mode}")
        }
        Record::Bootstrapped => "bootstrapped".into(),
        Record::StorePut(store) => draw_store(store),
        Record::RegionPut { region, leader } => draw_region(region, *leader),
        Record::ConfigPut(config) => format!("config max_peer_count={}", config.max_peer_count),
        Record::KeyModeLatched(mode) => format!("key mode {mode}"),
        Record::IdWindow { end } => format!("id window up to {end}"),
        Record::TsoWindow { end_ms } => format!("timestamp window up to {end_ms}"),
        Record::GcSafePoint(safe_point) => format!("GC safe point {safe_point}"),
        Record::ServiceSafePointPut { service, safe_point, expires_at } => {
            let until = if *expires_at > 1 << 40 {
                "for ever".to_owned()
            } else {
                format!("until {expires_at} s")
            };
            format!("service {} at {safe_point} {until}", key::display(service))
        }
        Record::ServiceSafePointRemoved { service } => {
            format!("service {} removed", key::display(service))
        }
        Record::StoreForgotten { store } => format!("store {store} forgotten"),
    }
}

#[test]
fn golden_scripts() {
    let root = Path::new("tests/golden");
    let mut scripts = 0;
    for folder in fs::read_dir(root).unwrap() {
        for script in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = script.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# "), "{} does not begin with its property", path.display());
            println!("{}", path.display());
            goldenscript::run(&mut World::new(ApiMode::V1), &path).unwrap();
            scripts += 1;
        }
    }
    assert!(scripts >= 25, "only {scripts} scripts were found");
}
