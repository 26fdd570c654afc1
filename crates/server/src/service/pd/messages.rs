//! What the scheduler knows, in PD's messages, and back.

use std::sync::Arc;

use proto::{metapb, pdpb};
use scheduler::{Error, Now, RegionInfo, Scheduler, Store, StoreInfo, StoreState, StoreStats};
use tonic::Status;
use types::{KeyRange, RegionId, StoreId, TimeStamp};

use crate::{config::Address, convert};

/// Regions by key, by the key before, and by id, each region once.
pub(super) fn query_regions(
    scheduler: &Scheduler,
    request: &pdpb::QueryRegionRequest,
) -> Result<scheduler::Answer<pdpb::QueryRegionResponse>, Error> {
    let mut value = pdpb::QueryRegionResponse::default();
    let mut after = scheduler::LogPosition::default();
    let mut note = |found: scheduler::Answer<Option<Arc<RegionInfo>>>| {
        after = after.max(found.after);
        let Some(info) = found.value else { return 0 };
        let id = info.region.id.0;
        value.regions_by_id.entry(id).or_insert_with(|| region_response(&info));
        id
    };
    let mut by_key = Vec::with_capacity(request.keys.len());
    for key in &request.keys {
        by_key.push(note(scheduler.get_region(key)?));
    }
    let mut by_key_before = Vec::with_capacity(request.prev_keys.len());
    for key in &request.prev_keys {
        by_key_before.push(note(scheduler.get_prev_region(key)?));
    }
    for id in &request.ids {
        note(scheduler.get_region_by_id(RegionId(*id))?);
    }
    (value.key_id_map, value.prev_key_id_map) = (by_key, by_key_before);
    Ok(scheduler::Answer { value, after })
}

/// The regions of several ranges, up to `limit` (0: all). Neighbouring ranges may share a region; it is there once.
pub(super) fn batch_scan_regions(
    scheduler: &Scheduler,
    ranges: &[KeyRange],
    limit: usize,
) -> Result<scheduler::Answer<Vec<Arc<RegionInfo>>>, Error> {
    let mut value: Vec<Arc<RegionInfo>> = Vec::new();
    let mut after = scheduler::LogPosition::default();
    for range in ranges {
        let found = scheduler.scan_regions(range, limit)?;
        after = after.max(found.after);
        for info in found.value {
            if value.last().is_none_or(|last| last.region.id != info.region.id) {
                value.push(info);
            }
        }
        if limit > 0 && value.len() >= limit {
            value.truncate(limit);
            break;
        }
    }
    Ok(scheduler::Answer { value, after })
}

/// What a leader reports; `None` if it says of no region.
pub(super) fn region_info_from_proto(report: pdpb::RegionHeartbeatRequest) -> Option<RegionInfo> {
    let down =
        |down: &pdpb::PeerStats| Some((convert::peer(down.peer.as_ref()?), down.down_seconds));
    Some(RegionInfo {
        region: convert::region(report.region?),
        leader: report.leader.as_ref().map(convert::peer),
        term: report.term,
        pending_peers: report.pending_peers.iter().map(convert::peer).collect(),
        down_peers: report.down_peers.iter().filter_map(down).collect(),
        approximate_size: report.approximate_size,
        approximate_keys: report.approximate_keys,
        bytes_written: report.bytes_written,
        bytes_read: report.bytes_read,
        keys_written: report.keys_written,
        keys_read: report.keys_read,
    })
}

/// What is or was being done to a region. The kinds are words, as PD has them.
pub(super) fn operator_to_proto(info: scheduler::OperatorInfo) -> pdpb::GetOperatorResponse {
    let status = match info.status {
        scheduler::Status::Running => pdpb::OperatorStatus::Running,
        scheduler::Status::Success => pdpb::OperatorStatus::Success,
        scheduler::Status::Timeout => pdpb::OperatorStatus::Timeout,
        scheduler::Status::Canceled(_) => pdpb::OperatorStatus::Cancel,
        scheduler::Status::Replaced => pdpb::OperatorStatus::Replace,
    };
    pdpb::GetOperatorResponse {
        header: None,
        region_id: info.region.0,
        desc: info.desc.into(),
        status: status.into(),
        kind: info.kinds.join(",").into(),
    }
}

pub(super) fn split_ids_to_proto(ids: scheduler::SplitIds) -> pdpb::SplitId {
    pdpb::SplitId {
        new_region_id: ids.region.0,
        new_peer_ids: ids.peers.iter().map(|id| id.0).collect(),
    }
}

pub(super) fn timestamp_to_proto(timestamp: TimeStamp) -> pdpb::Timestamp {
    pdpb::Timestamp {
        physical: i64::try_from(timestamp.physical_ms()).unwrap_or(i64::MAX),
        logical: i64::try_from(timestamp.logical()).unwrap_or(i64::MAX),
        suffix_bits: 0,
    }
}

pub(super) fn leader_to_proto(info: &RegionInfo) -> Option<metapb::Peer> {
    info.leader.as_ref().map(convert::peer_to_proto)
}

pub(super) fn down_peers_to_proto(info: &RegionInfo) -> Vec<pdpb::PeerStats> {
    let down = |(peer, down_seconds): &(types::Peer, u64)| pdpb::PeerStats {
        peer: Some(convert::peer_to_proto(peer)),
        down_seconds: *down_seconds,
    };
    info.down_peers.iter().map(down).collect()
}

pub(super) fn region_to_proto(info: &RegionInfo) -> pdpb::Region {
    pdpb::Region {
        region: Some(convert::region_to_proto(&info.region)),
        leader: leader_to_proto(info),
        down_peers: down_peers_to_proto(info),
        pending_peers: info.pending_peers.iter().map(convert::peer_to_proto).collect(),
        buckets: None,
    }
}

pub(super) fn region_response(info: &RegionInfo) -> pdpb::RegionResponse {
    let pdpb::Region { region, leader, down_peers, pending_peers, buckets } = region_to_proto(info);
    pdpb::RegionResponse { region, leader, down_peers, pending_peers, buckets }
}

/// Refuses a store that nobody could dial: every client would be sent there. A store inside of the scheduler's process
/// has a name instead.
pub(super) fn check_address(store: &metapb::Store) -> Result<(), Status> {
    if store.address.starts_with("embedded-store-") {
        return Ok(());
    }
    match store.address.parse::<Address>() {
        Ok(address) if !address.is_wildcard() && address.port != 0 => Ok(()),
        _ => Err(Status::unknown(format!(
            "invalid store address \"{}\": it must be HOST:PORT that clients can dial",
            store.address
        ))),
    }
}

/// The regions that a request is about: newer clients name several.
pub(super) fn scattered(request: &pdpb::ScatterRegionRequest) -> Vec<RegionId> {
    let ids = match request.regions_id.as_slice() {
        [] => std::slice::from_ref(&request.region_id),
        several => several,
    };
    ids.iter().map(|id| RegionId(*id)).collect()
}

pub(super) fn store_from_proto(store: metapb::Store) -> Store {
    Store {
        id: StoreId(store.id),
        address: store.address,
        state: u8::try_from(store.state).ok().and_then(StoreState::from_byte).unwrap_or_default(),
        labels: store.labels.into_iter().map(|label| (label.key, label.value)).collect(),
        version: store.version,
        git_hash: store.git_hash,
        peer_address: store.peer_address,
        status_address: store.status_address,
        deploy_path: store.deploy_path,
        start_timestamp: store.start_timestamp,
    }
}

pub(super) fn store_to_proto(info: StoreInfo) -> metapb::Store {
    let store = info.store;
    let node_state = node_state(store.state);
    let nanoseconds =
        |now: Now| i64::try_from(now.wall_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    metapb::Store {
        id: store.id.0,
        address: store.address,
        state: i32::from(store.state.to_byte()),
        labels: store
            .labels
            .into_iter()
            .map(|(key, value)| metapb::StoreLabel { key, value })
            .collect(),
        version: store.version,
        peer_address: store.peer_address,
        status_address: store.status_address,
        git_hash: store.git_hash,
        start_timestamp: store.start_timestamp,
        deploy_path: store.deploy_path,
        last_heartbeat: info.last_heartbeat.map_or(0, nanoseconds),
        physically_destroyed: false,
        node_state: node_state.into(),
    }
}

/// The newer name of where a store is in its life.
pub(super) fn node_state(state: StoreState) -> metapb::NodeState {
    match state {
        StoreState::Up => metapb::NodeState::Serving,
        StoreState::Offline => metapb::NodeState::Removing,
        StoreState::Tombstone => metapb::NodeState::Removed,
    }
}

pub(super) fn stats_from_proto(stats: &pdpb::StoreStats) -> StoreStats {
    StoreStats {
        store_id: StoreId(stats.store_id),
        capacity: stats.capacity,
        available: stats.available,
        used: stats.used_size,
        region_count: stats.region_count,
        sending_snapshots: stats.sending_snap_count,
        receiving_snapshots: stats.receiving_snap_count,
        applying_snapshots: stats.applying_snap_count,
        start_time: stats.start_time,
        is_busy: stats.is_busy,
        bytes_written: stats.bytes_written,
        keys_written: stats.keys_written,
        bytes_read: stats.bytes_read,
        keys_read: stats.keys_read,
    }
}

pub(super) fn stats_to_proto(info: &StoreInfo) -> pdpb::StoreStats {
    let stats = info.stats.clone().unwrap_or_default();
    pdpb::StoreStats {
        store_id: info.store.id.0,
        capacity: stats.capacity,
        available: stats.available,
        used_size: stats.used,
        region_count: stats.region_count,
        sending_snap_count: stats.sending_snapshots,
        receiving_snap_count: stats.receiving_snapshots,
        applying_snap_count: stats.applying_snapshots,
        start_time: stats.start_time,
        is_busy: stats.is_busy,
        bytes_written: stats.bytes_written,
        keys_written: stats.keys_written,
        bytes_read: stats.bytes_read,
        keys_read: stats.keys_read,
        ..pdpb::StoreStats::default()
    }
}
