//! The regions as the scheduler knows them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use proto::metapb;
use scheduler::RegionInfo;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Bytes, KeyRange, Peer, PeerRole, RegionId, StoreId};

use super::{Answer, Refused, ask};
use crate::service::pd::PdService;

/// How many regions a scan shows that names no limit.
const SCAN_LIMIT: usize = 16;

/// How many regions are looked at together.
const PART: usize = 1024;

/// All regions.
pub(super) async fn all(State(pd): State<PdService>) -> Answer {
    regions_where(&pd, |_, _| true).await
}

/// How many regions there are.
pub(super) async fn count(State(pd): State<PdService>) -> Answer {
    let count = ask(&pd, |scheduler, _| scheduler.region_count()).await?;
    Ok(Json(json!({ "count": count })))
}

#[derive(Debug, Deserialize)]
pub(super) struct Scan {
    #[serde(default)]
    key: String,
    #[serde(default)]
    end_key: String,
    limit: Option<usize>,
    #[serde(default)]
    format: String,
}

/// The regions from `key` on, up to `end_key`: `limit` of them at most.
pub(super) async fn from_key(State(pd): State<PdService>, Query(scan): Query<Scan>) -> Answer {
    let key = |text| stored_key(text, &scan.format);
    let range = KeyRange { start: key(&scan.key)?, end: key(&scan.end_key)? };
    let limit = scan.limit.unwrap_or(SCAN_LIMIT);
    list(&ask(&pd, move |scheduler, _| scheduler.scan_regions(&range, limit)).await?)
}

/// The regions with a replica on a store.
pub(super) async fn of_store(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    regions_where(&pd, move |info, _| info.region.peer_on(StoreId(id)).is_some()).await
}

/// The regions that lack something, or have too much of it, in PD's words.
pub(super) async fn with_trouble(State(pd): State<PdService>, Path(what): Path<String>) -> Answer {
    let has_trouble: fn(&RegionInfo, usize) -> bool = match what.as_str() {
        "miss-peer" => |info, wanted| info.region.peers.len() < wanted,
        "extra-peer" => |info, wanted| wanted < info.region.peers.len(),
        "down-peer" => |info, _| !info.down_peers.is_empty(),
        "pending-peer" => |info, _| !info.pending_peers.is_empty(),
        "learner-peer" => {
            |info, _| info.region.peers.iter().any(|peer| peer.role == PeerRole::Learner)
        }
        "empty-region" => |info, _| info.approximate_size <= 1 << 20,
        _ => return Err(Refused::bad_request(format!("no check is called {what}"))),
    };
    regions_where(&pd, has_trouble).await
}

/// One region by its id; null if there is none, as PD has it.
pub(super) async fn by_id(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    let found = ask(&pd, move |scheduler, _| scheduler.get_region_by_id(RegionId(id))).await?;
    Ok(Json(found.map_or(Value::Null, |info| region_json(&info))))
}

#[derive(Debug, Deserialize)]
pub(super) struct Format {
    #[serde(default)]
    format: String,
}

/// The region that has a key, in stored form: percent-encoded, or with `?format=hex` in hex.
pub(super) async fn by_key(
    State(pd): State<PdService>,
    Path(key): Path<String>,
    Query(Format { format }): Query<Format>,
) -> Answer {
    let key = stored_key(&key, &format)?;
    let found = ask(&pd, move |scheduler, _| scheduler.get_region(&key)).await?;
    Ok(Json(found.map_or(Value::Null, |info| region_json(&info))))
}

/// The regions of which `is_wanted` says so, given how many replicas a region should have. They are looked at in parts:
/// timestamps wait meanwhile.
async fn regions_where(
    pd: &PdService,
    is_wanted: impl Fn(&RegionInfo, usize) -> bool + Send,
) -> Answer {
    let config = ask(pd, |scheduler, _| scheduler.cluster_config()).await?;
    let replicas = usize::try_from(config.max_peer_count).unwrap_or(usize::MAX);
    let mut shown = Vec::new();
    let mut rest = KeyRange::all();
    loop {
        let range = rest.clone();
        let part = ask(pd, move |scheduler, _| scheduler.scan_regions(&range, PART)).await?;
        shown.extend(part.iter().filter(|info| is_wanted(info, replicas)).cloned());
        match part.last() {
            Some(last) if !last.region.range.end.is_empty() => {
                rest.start = last.region.range.end.clone();
            }
            _ => return list(&shown),
        }
    }
}

fn list(regions: &[Arc<RegionInfo>]) -> Answer {
    let shown: Vec<Value> = regions.iter().map(|info| region_json(info)).collect();
    Ok(Json(json!({ "count": shown.len(), "regions": shown })))
}

fn region_json(info: &RegionInfo) -> Value {
    let RegionInfo { region, leader, pending_peers, down_peers, .. } = info;
    let down =
        |(peer, seconds): &(Peer, u64)| json!({ "peer": peer_json(peer), "down_seconds": seconds });
    json!({
        "id": region.id.0,
        "start_key": hex(&region.range.start),
        "end_key": hex(&region.range.end),
        "epoch": { "conf_ver": region.epoch.conf_ver, "version": region.epoch.version },
        "peers": region.peers.iter().map(peer_json).collect::<Vec<_>>(),
        "leader": leader.as_ref().map_or(json!({}), peer_json),
        "down_peers": down_peers.iter().map(down).collect::<Vec<_>>(),
        "pending_peers": pending_peers.iter().map(peer_json).collect::<Vec<_>>(),
        "written_bytes": info.bytes_written,
        "read_bytes": info.bytes_read,
        "written_keys": info.keys_written,
        "read_keys": info.keys_read,
        // MiB, and never none of what is there.
        "approximate_size": info.approximate_size.div_ceil(1 << 20),
        "approximate_keys": info.approximate_keys,
    })
}

fn peer_json(peer: &Peer) -> Value {
    let role = metapb::PeerRole::try_from(i32::from(peer.role.to_byte())).unwrap_or_default();
    json!({
        "id": peer.id.0,
        "store_id": peer.store_id.0,
        "role": peer.role.to_byte(),
        "role_name": role.as_str_name(),
        "is_learner": peer.role == PeerRole::Learner,
    })
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A key in a path or a question: as it is, or in hex.
fn stored_key(text: &str, format: &str) -> Result<Bytes, Refused> {
    match format {
        "hex" => from_hex(text).map(Bytes::from),
        _ => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// The bytes of a key in hex.
///
/// # Errors
/// It is not.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, Refused> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0);
    let digits = digits.ok_or_else(|| Refused::bad_request(format!("{text} is no key in hex")))?;
    let byte = |pair: &[u32]| u8::try_from(16 * pair[0] + pair[1]).expect("two digits of hex");
    Ok(digits.chunks_exact(2).map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_look_like_pds() {
        assert_eq!(hex(b"r\x00\xff"), "7200FF");
        assert_eq!(from_hex("7200fF").expect("is hex"), b"r\x00\xff");
        for wrong in ["7", "7x", "é"] {
            assert!(from_hex(wrong).is_err(), "{wrong}");
        }
    }
}
