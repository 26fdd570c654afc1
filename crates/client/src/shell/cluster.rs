//! What the scheduler knows: members, stores, regions. For `tinykv status` and the like; requests do not need it.

use std::collections::BTreeMap;

use proto::{
    metapb,
    pdpb::{self, pd_client::PdClient},
};
use types::{Bytes, KeyRange, Peer, Region, StoreId};

use super::{Client, convert, pd};
use crate::{KeyLayout, Result, request::Question, request::Route};

/// A member of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Where clients reach it, with `http://`.
    pub client_urls: Vec<String>,
    /// Whether it leads.
    pub is_leader: bool,
}

/// What an operator has decided about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It serves.
    Up,
    /// It gives its regions away.
    Offline,
    /// It is gone for good.
    Tombstone,
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its id.
    pub id: StoreId,
    /// Where clients reach it, `host:port`.
    pub address: String,
    /// Where its HTTP server is, `host:port`; may be empty.
    pub status_address: String,
    /// Its version.
    pub version: String,
    /// What an operator has decided.
    pub state: StoreState,
    /// When the scheduler last heard of it, by the scheduler's clock, in milliseconds since 1970; 0 is never.
    pub last_heartbeat_ms: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a store reported of itself with its last heartbeat; all zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of its disk.
    pub capacity: u64,
    /// Bytes that are free.
    pub available: u64,
    /// Bytes that its data take.
    pub used: u64,
    /// Bytes of memory that it may take; 0 is not known.
    pub memory_total: u64,
    /// Bytes of memory that it takes.
    pub memory_used: u64,
    /// Whether it has too much to do.
    pub is_busy: bool,
}

/// A region as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// The region.
    pub region: Region,
    /// The store of its leader, if it has one.
    pub leader: Option<StoreId>,
    /// Peers that do not answer their leader.
    pub down: Vec<Peer>,
    /// Peers that lag behind.
    pub pending: Vec<Peer>,
}

impl Client {
    /// The members of the scheduler.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn members(&self) -> Result<Vec<MemberInfo>> {
        let answer = self.inner.scheduler.ask(pd::get_members).await?;
        pd::check(answer.header.as_ref())?;
        let leader = answer.leader.map(|leader| leader.member_id);
        Ok(answer
            .members
            .into_iter()
            .map(|member| MemberInfo {
                is_leader: leader == Some(member.member_id),
                name: member.name,
                id: member.member_id,
                client_urls: member.client_urls,
            })
            .collect())
    }

    /// The stores that are not gone for good, by id.
    ///
    /// # Errors
    /// The scheduler is unreachable or has no store yet.
    pub async fn stores(&self) -> Result<Vec<StoreInfo>> {
        let scheduler = &self.inner.scheduler;
        let request = pdpb::GetAllStoresRequest {
            header: scheduler.header(),
            exclude_tombstone_stores: true,
        };
        let answer = scheduler
            .ask(|channel| {
                let request = request.clone();
                async move { PdClient::new(channel).get_all_stores(request).await }
            })
            .await?;
        pd::check(answer.header.as_ref())?;
        let mut stores: Vec<StoreInfo> = answer.stores.into_iter().map(store).collect();
        stores.retain(|store| store.state != StoreState::Tombstone);
        stores.sort_by_key(|store| store.id);
        Ok(stores)
    }

    /// What a store last reported of itself.
    ///
    /// # Errors
    /// The scheduler is unreachable or does not know the store.
    pub async fn store_stats(&self, store: StoreId) -> Result<StoreStats> {
        let scheduler = &self.inner.scheduler;
        let answer =
            scheduler.ask(|channel| pd::get_store(channel, scheduler.header(), store)).await?;
        pd::check(answer.header.as_ref())?;
        let stats = answer.stats.unwrap_or_default();
        Ok(StoreStats {
            capacity: stats.capacity,
            available: stats.available,
            used: stats.used_size,
            memory_total: stats.total_memory,
            memory_used: stats.used_memory,
            is_busy: stats.is_busy,
        })
    }

    /// Up to `limit` regions that have a key in common with `range` (stored keys), in order.
    ///
    /// # Errors
    /// The scheduler is unreachable or has no store yet.
    pub async fn regions(&self, range: KeyRange, limit: usize) -> Result<Vec<RegionInfo>> {
        let scheduler = &self.inner.scheduler;
        let request = pdpb::ScanRegionsRequest {
            header: scheduler.header(),
            start_key: range.start,
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            end_key: range.end,
        };
        let answer = scheduler
            .ask(|channel| {
                let request = request.clone();
                async move { PdClient::new(channel).scan_regions(request).await }
            })
            .await?;
        pd::check(answer.header.as_ref())?;
        if answer.regions.is_empty() {
            // An older server fills only the two other lists.
            let leaders = answer.leaders.into_iter().map(Some).chain(std::iter::repeat(None));
            let pair = |(region, leader): (metapb::Region, Option<metapb::Peer>)| RegionInfo {
                region: convert::region(region),
                leader: convert::leader(leader.as_ref()),
                down: Vec::new(),
                pending: Vec::new(),
            };
            return Ok(answer.region_metas.into_iter().zip(leaders).map(pair).collect());
        }
        Ok(answer.regions.into_iter().map(region).collect())
    }

    /// The region of a user key of that layout; `None` if the scheduler knows none.
    ///
    /// # Errors
    /// The scheduler is unreachable or has no store yet.
    pub async fn region_of(
        &self,
        layout: KeyLayout,
        key: impl Into<Bytes>,
    ) -> Result<Option<RegionInfo>> {
        let key = layout.region_key(&layout.request_key(key.into()));
        Ok(match self.inner.scheduler.route(Question::RegionOf(key)).await? {
            Route::Region { region, leader } => {
                Some(RegionInfo { region, leader, down: Vec::new(), pending: Vec::new() })
            }
            Route::NoRegion | Route::Store { .. } | Route::NoStore(_) => None,
        })
    }

    /// How many replicas a region should have.
    ///
    /// # Errors
    /// The scheduler is unreachable or has no store yet.
    pub async fn max_peer_count(&self) -> Result<usize> {
        let scheduler = &self.inner.scheduler;
        let request = pdpb::GetClusterConfigRequest { header: scheduler.header() };
        let answer = scheduler
            .ask(|channel| {
                let request = request.clone();
                async move { PdClient::new(channel).get_cluster_config(request).await }
            })
            .await?;
        pd::check(answer.header.as_ref())?;
        Ok(answer.cluster.map_or(1, |cluster| cluster.max_peer_count.max(1) as usize))
    }
}

fn store(store: metapb::Store) -> StoreInfo {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    StoreInfo {
        id: StoreId(store.id),
        state: match store.state() {
            metapb::StoreState::Up => StoreState::Up,
            metapb::StoreState::Offline => StoreState::Offline,
            metapb::StoreState::Tombstone => StoreState::Tombstone,
        },
        address: store.address,
        status_address: store.status_address,
        version: store.version,
        last_heartbeat_ms: u64::try_from(store.last_heartbeat).unwrap_or(0) / NANOS_PER_MILLI,
        labels: store.labels.into_iter().map(|label| (label.key, label.value)).collect(),
    }
}

fn region(info: pdpb::Region) -> RegionInfo {
    RegionInfo {
        region: convert::region(info.region.unwrap_or_default()),
        leader: convert::leader(info.leader.as_ref()),
        down: info
            .down_peers
            .iter()
            .filter_map(|down| down.peer.as_ref())
            .map(convert::peer)
            .collect(),
        pending: info.pending_peers.iter().map(convert::peer).collect(),
    }
}
