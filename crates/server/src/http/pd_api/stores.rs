//! The stores: how they are, and their way out of the cluster.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use scheduler::{Now, ScheduleConfig, Scheduler, StoreFilter, StoreInfo, StoreState};
use serde_json::{Value, json};
use types::StoreId;

use super::{Answer, Refused, ask, done};
use crate::service::pd::PdService;

type Parameters = Query<Vec<(String, String)>>;

/// All stores but those that are gone for good; with `?state=N`, which may be there several times, those in that state.
pub(super) async fn all(State(pd): State<PdService>, Query(parameters): Parameters) -> Answer {
    let wanted: Vec<u8> = parameters
        .iter()
        .filter(|(name, _)| name == "state")
        .map(|(_, value)| value.parse().map_err(|_| Refused::bad_request("state is a number")))
        .collect::<Result<_, _>>()?;
    let filter = match wanted.is_empty() {
        true => StoreFilter::ExceptTombstone,
        false => StoreFilter::All,
    };
    let stores = ask(&pd, move |scheduler, now| {
        let stores = scheduler.all_stores(filter)?;
        let shown = stores
            .value
            .iter()
            .filter(|info| wanted.is_empty() || wanted.contains(&info.store.state.to_byte()));
        let value: Vec<Value> = shown.map(|info| store_json(scheduler, info, now)).collect();
        Ok(scheduler::Answer { value, after: stores.after })
    });
    let stores = stores.await?;
    Ok(Json(json!({ "count": stores.len(), "stores": stores })))
}

/// One store, also one that is gone for good.
pub(super) async fn one(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    let store = ask(&pd, move |scheduler, now| {
        let store = scheduler.get_store(StoreId(id))?;
        let value = store_json(scheduler, &store.value, now);
        Ok(scheduler::Answer { value, after: store.after })
    });
    Ok(Json(store.await?))
}

/// Sends a store away.
pub(super) async fn remove(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    ask(&pd, move |scheduler, _| scheduler.remove_store(StoreId(id))).await?;
    done("The store is set as Offline.")
}

/// `?state=Offline` sends a store away, `?state=Up` takes that back.
pub(super) async fn set_state(
    State(pd): State<PdService>,
    Path(id): Path<u64>,
    Query(parameters): Parameters,
) -> Answer {
    let state = parameters.iter().find(|(name, _)| name == "state");
    let state = state.map(|(_, state)| state.to_ascii_lowercase()).unwrap_or_default();
    let id = StoreId(id);
    match state.as_str() {
        "up" => ask(&pd, move |scheduler, _| scheduler.restore_store(id)).await?,
        "offline" => ask(&pd, move |scheduler, _| scheduler.remove_store(id)).await?,
        _ => return Err(Refused::bad_request("state must be Up or Offline")),
    }
    done("The store's state is updated.")
}

/// Forgets the stores that are gone for good.
pub(super) async fn forget_tombstones(State(pd): State<PdService>) -> Answer {
    ask(&pd, |scheduler, _| scheduler.forget_tombstones()).await?;
    done("Remove tombstone successfully.")
}

fn store_json(scheduler: &Scheduler, info: &StoreInfo, now: Now) -> Value {
    let StoreInfo { store, stats, last_heartbeat, regions } = info;
    let stats = stats.clone().unwrap_or_default();
    let labels: Vec<_> =
        store.labels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    let (node_state, node_state_name) = match store.state {
        StoreState::Up => (1, "Serving"),
        StoreState::Offline => (2, "Removing"),
        StoreState::Tombstone => (3, "Removed"),
    };
    let nanoseconds = |now: &Now| now.wall_ms.saturating_mul(1_000_000);
    let silence = last_heartbeat.map(|heard| now.monotonic.saturating_sub(heard.monotonic));
    json!({
        "store": {
            "id": store.id.0,
            "address": store.address,
            "peer_address": store.peer_address,
            "labels": labels,
            "version": store.version,
            "status_address": store.status_address,
            "start_timestamp": store.start_timestamp,
            "last_heartbeat": last_heartbeat.as_ref().map_or(0, nanoseconds),
            "state": store.state.to_byte(),
            "state_name": state_name(store.state, silence, scheduler.schedule_config()),
            "node_state": node_state,
            "node_state_name": node_state_name,
        },
        "status": {
            "capacity": bytes(stats.capacity),
            "available": bytes(stats.available),
            "used_size": bytes(stats.used),
            "leader_count": regions.leaders,
            "leader_size": regions.leader_bytes >> 20,
            "region_count": regions.regions,
            "region_size": regions.region_bytes >> 20,
            "pending_peer_count": regions.pending,
            "sending_snap_count": stats.sending_snapshots,
            "receiving_snap_count": stats.receiving_snapshots,
            "applying_snap_count": stats.applying_snapshots,
            "is_busy": stats.is_busy,
        },
    })
}

/// PD's word for how a store is: of one in service also whether it was heard of.
fn state_name(
    state: StoreState,
    silence: Option<Duration>,
    config: &ScheduleConfig,
) -> &'static str {
    match silence {
        _ if state != StoreState::Up => state.name(),
        Some(silence) if silence <= config.store_disconnect_time => "Up",
        Some(silence) if config.max_store_down_time < silence => "Down",
        Some(_) | None => "Disconnected",
    }
}

/// A size as PD prints it.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.4}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_look_like_pds() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1536), "1.5000KiB");
        assert_eq!(bytes(80 << 30), "80.0000GiB");
    }

    #[test]
    fn a_store_that_is_not_heard_of_says_so() {
        let config = ScheduleConfig::default();
        let name = |state, seconds: Option<u64>| {
            state_name(state, seconds.map(Duration::from_secs), &config)
        };
        assert_eq!(name(StoreState::Up, Some(20)), "Up");
        assert_eq!(name(StoreState::Up, Some(21)), "Disconnected");
        assert_eq!(name(StoreState::Up, None), "Disconnected");
        assert_eq!(name(StoreState::Up, Some(1801)), "Down");
        assert_eq!(name(StoreState::Offline, Some(1801)), "Offline");
        assert_eq!(name(StoreState::Tombstone, None), "Tombstone");
    }
}
