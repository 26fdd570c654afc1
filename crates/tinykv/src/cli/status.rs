//! `tinykv status`: the health of a cluster on one screen.
//!
//! Everything comes from the scheduler: members, stores with their last heartbeat, and every region. Ages are judged
//! by the scheduler's clock (a timestamp), not by this machine's. A cluster is healthy when every store is up and
//! every region has a leader and as many living replicas as it should and could have.
//!
//! Gathering ([`gather`]) and printing ([`Status::to_text`]) are apart, so that the wording is tested without a server.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use client::{Client, ClusterState, MemberInfo, RegionInfo, StoreInfo, StoreState, StoreStats};
use serde::Serialize;
use types::{Bytes, KeyMode, KeyRange, PeerRole, StoreId};

use super::{
    CliError, Format, Global,
    data::{block_on, connect},
    output::{self, Align, Style, count, table},
};

/// Regions of one question to the scheduler.
const REGIONS_PAGE: usize = 1024;

/// A store is silent after three heartbeats of 10 s that did not come.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// And counts as down, so that its replicas are replaced, after half an hour.
const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);

/// Below this share of free disk a store is named.
const LOW_DISK: f64 = 0.05;

/// `tinykv status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {}

/// What `tinykv status` shows. The JSON form; fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Status {
    cluster_id: u64,
    healthy: bool,
    api_mode: &'static str,
    /// What the first write decided, in API mode v1.
    key_mode: Option<&'static str>,
    schedulers: Vec<Member>,
    stores: Vec<Store>,
    regions: Regions,
    /// What is not as it should be, for people.
    problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Member {
    id: u64,
    name: String,
    client_urls: Vec<String>,
    leader: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Store {
    id: u64,
    address: String,
    state: &'static str,
    version: String,
    regions: usize,
    leaders: usize,
    capacity: u64,
    available: u64,
    used: u64,
    memory_used: u64,
    memory_total: u64,
    last_heartbeat_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Regions {
    count: usize,
    /// Nobody leads them: reads and writes wait.
    leaderless: usize,
    /// They have fewer living replicas than they should and could have.
    under_replicated: usize,
}

/// `tinykv status`.
pub(super) fn run(global: &Global, _: StatusArgs) -> Result<(), CliError> {
    let status = block_on(async { gather(&connect(global).await?).await })?;
    let text = match global.output {
        Format::Json => status.to_json(),
        Format::Table => status.to_text(global.color.stdout()),
        Format::Plain => status.to_plain(),
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// Asks the scheduler for everything that is shown.
pub(super) async fn gather(client: &Client) -> Result<Status, CliError> {
    let state = client.cluster_state().await?;
    let members = client.members().await?;
    let now_ms = client.timestamp().await?.physical_ms();
    let replicas = client.max_peer_count().await?;
    let mut stores = Vec::new();
    for store in client.stores().await? {
        let stats = client.store_stats(store.id).await?;
        stores.push((store, stats));
    }
    let mut regions = Vec::new();
    let mut start = Bytes::new();
    loop {
        let page = client.regions(KeyRange { start, end: Bytes::new() }, REGIONS_PAGE).await?;
        let (Some(last), is_last) = (page.last(), page.len() < REGIONS_PAGE) else { break };
        start = last.region.range.end.clone();
        regions.extend(page);
        if is_last || start.is_empty() {
            break;
        }
    }
    Ok(Status::new(client.cluster_id().0, state, members, now_ms, replicas, stores, &regions))
}

impl Status {
    fn new(
        cluster_id: u64,
        state: ClusterState,
        members: Vec<MemberInfo>,
        now_ms: u64,
        replicas: usize,
        stores: Vec<(StoreInfo, StoreStats)>,
        infos: &[RegionInfo],
    ) -> Status {
        // A region cannot have more replicas than there are stores; a cluster of one store is whole.
        let replicas =
            replicas.min(stores.iter().filter(|(store, _)| store.state == StoreState::Up).count());
        let mut regions = Regions { count: infos.len(), ..Regions::default() };
        let mut held = BTreeMap::<StoreId, (usize, usize)>::new();
        for info in infos {
            regions.leaderless += usize::from(info.leader.is_none());
            let is_down = |id| info.down.iter().any(|down| down.id == id);
            let voters = info.region.peers.iter().filter(|peer| peer.role != PeerRole::Learner);
            let living = voters.filter(|peer| !is_down(peer.id)).count();
            regions.under_replicated += usize::from(living < replicas);
            for peer in &info.region.peers {
                held.entry(peer.store_id).or_default().0 += 1;
            }
            if let Some(leader) = info.leader {
                held.entry(leader).or_default().1 += 1;
            }
        }

        let mut problems = Vec::new();
        let stores = stores
            .into_iter()
            .map(|(info, stats)| {
                let state = store_state(&info, stats, now_ms);
                if let Some(problem) = store_problem(&info, stats, state, now_ms) {
                    problems.push(problem);
                }
                let (regions, leaders) = held.get(&info.id).copied().unwrap_or_default();
                Store {
                    id: info.id.0,
                    address: info.address,
                    state,
                    version: info.version,
                    regions,
                    leaders,
                    capacity: stats.capacity,
                    available: stats.available,
                    used: stats.used,
                    memory_used: stats.memory_used,
                    memory_total: stats.memory_total,
                    last_heartbeat_ms: info.last_heartbeat_ms,
                }
            })
            .collect();
        if !members.iter().any(|member| member.is_leader) {
            problems.push("the scheduler has no leader".to_owned());
        }
        if regions.leaderless > 0 {
            problems.push(format!("{} without a leader", count(regions.leaderless, "region")));
        }
        if regions.under_replicated > 0 {
            let few = count(regions.under_replicated, "region");
            problems.push(format!("{few} with fewer than {}", count(replicas, "living replica")));
        }
        Status {
            cluster_id,
            healthy: problems.is_empty(),
            api_mode: state.api_mode.name(),
            key_mode: state.key_mode.map(KeyMode::name),
            schedulers: members
                .into_iter()
                .map(|member| Member {
                    id: member.id,
                    name: member.name,
                    client_urls: member.client_urls,
                    leader: member.is_leader,
                })
                .collect(),
            stores,
            regions,
            problems,
        }
    }

    /// The screen.
    pub(super) fn to_text(&self, style: Style) -> String {
        let health = match self.problems.len() {
            0 => style.good("healthy"),
            problems => style.warning(&count(problems, "problem")),
        };
        let mut out = format!(
            "cluster {} · {} · {} · {health}\n",
            self.cluster_id,
            count(self.stores.len(), "store"),
            count(self.regions.count, "region"),
        );
        let has_memory = self.stores.iter().any(|store| store.memory_total > 0);
        let mut columns = vec![
            ("STORE", Align::Left),
            ("ADDRESS", Align::Left),
            ("STATE", Align::Left),
            ("REGIONS", Align::Right),
            ("LEADERS", Align::Right),
            ("USED / DISK", Align::Left),
            ("VERSION", Align::Left),
        ];
        if has_memory {
            columns.insert(6, ("MEM", Align::Left));
        }
        let row = |store: &Store| {
            let mut row = vec![
                store.id.to_string(),
                store.address.clone(),
                store.state.to_owned(),
                store.regions.to_string(),
                store.leaders.to_string(),
                format!("{} / {}", output::bytes(store.used), output::bytes(store.capacity)),
                store.version.clone(),
            ];
            if has_memory {
                let percent = match store.memory_total {
                    0 => String::new(),
                    total => format!("{:.0} %", store.memory_used as f64 * 100.0 / total as f64),
                };
                row.insert(6, percent);
            }
            row
        };
        if !self.stores.is_empty() {
            out.push_str(&table(&columns, self.stores.iter().map(row)));
        }
        for problem in &self.problems {
            out.push_str(&style.warning(&format!("! {problem}")));
            out.push('\n');
        }
        out
    }

    /// One line a store, columns as in the table, sizes in bytes.
    fn to_plain(&self) -> String {
        let line = |s: &Store| {
            format!(
                "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
                s.id, s.address, s.state, s.regions, s.leaders, s.used, s.capacity, s.version
            )
        };
        self.stores.iter().map(line).collect()
    }

    /// One object.
    pub(super) fn to_json(&self) -> String {
        let json = serde_json::to_string(self).expect("names and numbers are valid JSON");
        format!("{json}\n")
    }
}

/// One word for a store.
fn store_state(store: &StoreInfo, stats: StoreStats, now_ms: u64) -> &'static str {
    match store.state {
        StoreState::Offline => "leaving",
        StoreState::Tombstone => "gone",
        StoreState::Up => match silence(store, now_ms) {
            Some(silence) if silence >= DOWN_AFTER => "down",
            Some(silence) if silence >= SILENT_AFTER => "silent",
            _ if stats.is_busy => "busy",
            _ => "up",
        },
    }
}

/// How long a store has not been heard of; `None` if it never was, because it has only just joined.
fn silence(store: &StoreInfo, now_ms: u64) -> Option<Duration> {
    (store.last_heartbeat_ms > 0)
        .then(|| Duration::from_millis(now_ms.saturating_sub(store.last_heartbeat_ms)))
}

fn store_problem(store: &StoreInfo, stats: StoreStats, state: &str, now_ms: u64) -> Option<String> {
    let silence = || output::duration(silence(store, now_ms).unwrap_or_default());
    let free = stats.available as f64 / stats.capacity.max(1) as f64;
    match state {
        "silent" | "down" => Some(format!("store {}: no heartbeat for {}", store.id, silence())),
        "busy" => Some(format!("store {}: has too much to do", store.id)),
        _ if stats.capacity > 0 && free < LOW_DISK => {
            Some(format!("store {}: {} of disk left", store.id, output::bytes(stats.available)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use types::{ApiMode, Peer, PeerId, Region, RegionEpoch, RegionId};

    use super::*;

    const NOW: u64 = 1_763_800_000_000;

    fn store(id: u64, silent_for_secs: u64) -> (StoreInfo, StoreStats) {
        let info = StoreInfo {
            id: StoreId(id),
            address: format!("10.0.0.{id}:20160"),
            status_address: String::new(),
            version: "0.1.0".to_owned(),
            state: StoreState::Up,
            last_heartbeat_ms: NOW - silent_for_secs * 1000,
            labels: BTreeMap::new(),
        };
        let stats = StoreStats {
            capacity: 80 << 30,
            available: 70 << 30,
            used: 1_288_490_189,
            memory_total: 1 << 30,
            memory_used: 333_000_000,
            is_busy: false,
        };
        (info, stats)
    }

    fn region(id: u64, leader: Option<u64>, down: &[u64]) -> RegionInfo {
        let peer = |store| Peer {
            id: PeerId(id * 10 + store),
            store_id: StoreId(store),
            role: PeerRole::Voter,
        };
        RegionInfo {
            region: Region {
                id: RegionId(id),
                range: KeyRange::all(),
                epoch: RegionEpoch::FIRST,
                peers: [1, 2, 3].map(peer).into(),
            },
            leader: leader.map(StoreId),
            down: down.iter().copied().map(peer).collect(),
            pending: Vec::new(),
        }
    }

    fn status(stores: Vec<(StoreInfo, StoreStats)>, regions: &[RegionInfo]) -> Status {
        let member = MemberInfo {
            name: "scheduler-1".to_owned(),
            id: 5,
            client_urls: vec!["http://10.0.0.1:2379".to_owned()],
            is_leader: true,
        };
        let state = ClusterState { api_mode: ApiMode::V1, key_mode: Some(KeyMode::Raw) };
        Status::new(7_312_099, state, vec![member], NOW, 3, stores, regions)
    }

    #[test]
    fn a_healthy_cluster_is_one_table() {
        let regions: Vec<_> = (1..=42).map(|id| region(id, Some(id % 3 + 1), &[])).collect();
        let status = status(vec![store(1, 3), store(2, 9), store(3, 0)], &regions);
        insta::assert_snapshot!(status.to_text(Style::Plain), @r"
        cluster 7312099 · 3 stores · 42 regions · healthy
        STORE  ADDRESS         STATE  REGIONS  LEADERS  USED / DISK         MEM   VERSION
        1      10.0.0.1:20160  up          42       14  1.2 GiB / 80.0 GiB  31 %  0.1.0
        2      10.0.0.2:20160  up          42       14  1.2 GiB / 80.0 GiB  31 %  0.1.0
        3      10.0.0.3:20160  up          42       14  1.2 GiB / 80.0 GiB  31 %  0.1.0
        ");
        let plain = status.to_plain();
        assert_eq!(
            plain.lines().next(),
            Some("1\t10.0.0.1:20160\tup\t42\t14\t1288490189\t85899345920\t0.1.0")
        );
    }

    #[test]
    fn problems_stand_below_the_table() {
        let mut full = store(3, 0);
        full.1.available = 1 << 30;
        let regions = [region(1, None, &[2]), region(2, Some(1), &[2]), region(3, Some(1), &[])];
        let status = status(vec![store(1, 3), store(2, 41), full], &regions);
        insta::assert_snapshot!(status.to_text(Style::Plain), @r"
        cluster 7312099 · 3 stores · 3 regions · 4 problems
        STORE  ADDRESS         STATE   REGIONS  LEADERS  USED / DISK         MEM   VERSION
        1      10.0.0.1:20160  up            3        2  1.2 GiB / 80.0 GiB  31 %  0.1.0
        2      10.0.0.2:20160  silent        3        0  1.2 GiB / 80.0 GiB  31 %  0.1.0
        3      10.0.0.3:20160  up            3        0  1.2 GiB / 80.0 GiB  31 %  0.1.0
        ! store 2: no heartbeat for 41.0 s
        ! store 3: 1.0 GiB of disk left
        ! 1 region without a leader
        ! 2 regions with fewer than 3 living replicas
        ");
        assert_eq!(status.regions, Regions { count: 3, leaderless: 1, under_replicated: 2 });
    }

    #[test]
    fn one_store_is_a_whole_cluster() {
        let mut only = region(1, Some(1), &[]);
        only.region.peers.truncate(1);
        let mut fresh = store(1, 0);
        fresh.0.last_heartbeat_ms = 0;
        fresh.1 = StoreStats::default();
        let status = status(vec![fresh], &[only]);
        assert!(status.healthy);
        insta::assert_snapshot!(status.to_text(Style::Plain), @r"
        cluster 7312099 · 1 store · 1 region · healthy
        STORE  ADDRESS         STATE  REGIONS  LEADERS  USED / DISK  VERSION
        1      10.0.0.1:20160  up           1        1  0 B / 0 B    0.1.0
        ");
    }

    #[test]
    fn programs_get_one_object() {
        let status = status(vec![store(1, 4000)], &[region(1, Some(1), &[])]);
        insta::assert_snapshot!(status.to_json(), @r#"{"cluster_id":7312099,"healthy":false,"api_mode":"v1","key_mode":"raw","schedulers":[{"id":5,"name":"scheduler-1","client_urls":["http://10.0.0.1:2379"],"leader":true}],"stores":[{"id":1,"address":"10.0.0.1:20160","state":"down","version":"0.1.0","regions":1,"leaders":1,"capacity":85899345920,"available":75161927680,"used":1288490189,"memory_used":333000000,"memory_total":1073741824,"last_heartbeat_ms":1763796000000}],"regions":{"count":1,"leaderless":0,"under_replicated":0},"problems":["store 1: no heartbeat for 66.7 min"]}"#);
        let json: serde_json::Value = serde_json::from_str(&status.to_json()).unwrap();
        assert_eq!(json["stores"][0]["state"], "down");
        assert_eq!(json["regions"]["count"], 1);
    }
}
