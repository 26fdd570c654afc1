//! PD's HTTP paths on the scheduler's port, with PD's shapes, as far as clients and scripts read them.
//!
//! Everything is asked of [`PdService`]: HTTP and gRPC cannot tell different stories. Keys are upper-case hex, as PD
//! prints them.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use proto::{
    metapb,
    pdpb::{self, pd_server::Pd as _},
};
use serde_json::{Value, json};
use tonic::{Request, Status};
use types::catalogue::CATALOGUE;

use super::probes::{self, Probes};
use crate::{TIKV_VERSION, service::pd::PdService};

/// The paths of a scheduler.
pub(crate) fn router(probes: Probes, pd: PdService) -> Router {
    let api = Router::new()
        .route("/version", get(async || Json(json!({ "version": format!("v{TIKV_VERSION}") }))))
        .route("/status", get(status))
        .route("/ping", get(async || ""))
        .route("/health", get(health))
        .route("/members", get(members))
        .route("/leader", get(leader))
        .route("/cluster", get(cluster))
        .route("/cluster/status", get(cluster_status))
        .route("/stores", get(stores))
        .route("/store/{id}", get(store))
        .route("/regions", get(regions))
        .route("/regions/count", get(region_count))
        .route("/regions/key", get(regions))
        .route("/regions/store/{id}", get(regions_of_store))
        .route("/region/id/{id}", get(region_by_id))
        .route("/region/key/{key}", get(region_by_key))
        .route("/gc/safepoint", get(safe_point))
        .route(
            "/min-resolved-ts",
            get(async || Json(json!({ "is_real_time": false, "min_resolved_ts": 0 }))),
        )
        .with_state(pd);
    Router::new()
        .nest("/pd/api/v1", api)
        .route(
            "/api/v1/errors",
            get(async || Json(CATALOGUE.iter().map(error_entry).collect::<Vec<_>>())),
        )
        .route("/api/v1/errors/{code}", get(error_by_code))
        .merge(probes::router(probes))
}

/// A refusal with PD's body, a JSON string.
struct Refused(StatusCode, String);

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        let code = match status.code() {
            tonic::Code::NotFound | tonic::Code::Unknown => StatusCode::NOT_FOUND,
            tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused(code, status.message().to_owned())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

type Answer = Result<Json<Value>, Refused>;

async fn status() -> Json<Value> {
    Json(
        json!({ "version": format!("v{TIKV_VERSION}"), "git_hash": "", "build_ts": "", "start_timestamp": 0 }),
    )
}

async fn health(State(pd): State<PdService>) -> Json<Value> {
    let member = pd.member();
    Json(json!([{
        "name": member.name, "member_id": member.id, "client_urls": [member.client_url()], "health": true,
    }]))
}

fn member_json(pd: &PdService) -> Value {
    let member = pd.member();
    json!({
        "name": member.name,
        "member_id": member.id,
        "peer_urls": [member.client_url()],
        "client_urls": [member.client_url()],
        "binary_version": format!("v{TIKV_VERSION}"),
    })
}

async fn members(State(pd): State<PdService>) -> Json<Value> {
    let member = member_json(&pd);
    Json(json!({
        "header": { "cluster_id": pd.cluster_id().0 },
        "members": [member], "leader": member, "etcd_leader": member,
    }))
}

async fn leader(State(pd): State<PdService>) -> Json<Value> {
    Json(member_json(&pd))
}

async fn cluster(State(pd): State<PdService>) -> Answer {
    let request = Request::new(pdpb::GetClusterConfigRequest { header: pd.request_header() });
    let cluster = pd.get_cluster_config(request).await?.into_inner().cluster.unwrap_or_default();
    Ok(Json(json!({ "id": cluster.id, "max_peer_count": cluster.max_peer_count })))
}

async fn cluster_status(State(pd): State<PdService>) -> Answer {
    let request = Request::new(pdpb::IsBootstrappedRequest { header: pd.request_header() });
    let is_initialized = pd.is_bootstrapped(request).await?.into_inner().bootstrapped;
    Ok(Json(json!({ "is_initialized": is_initialized, "replication_status": "" })))
}

async fn stores(State(pd): State<PdService>) -> Answer {
    let request =
        pdpb::GetAllStoresRequest { header: pd.request_header(), exclude_tombstone_stores: true };
    let stores = pd.get_all_stores(Request::new(request)).await?.into_inner().stores;
    let regions = all_regions(&pd).await?;
    let mut shown = Vec::with_capacity(stores.len());
    for store in stores {
        shown.push(store_json(&pd, store.id, &regions).await?);
    }
    Ok(Json(json!({ "count": shown.len(), "stores": shown })))
}

async fn store(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    let regions = all_regions(&pd).await?;
    Ok(Json(store_json(&pd, id, &regions).await?))
}

async fn store_json(pd: &PdService, id: u64, regions: &[pdpb::Region]) -> Result<Value, Refused> {
    let request = pdpb::GetStoreRequest { header: pd.request_header(), store_id: id };
    let answer = pd.get_store(Request::new(request)).await?.into_inner();
    let (store, stats) = (answer.store.unwrap_or_default(), answer.stats.unwrap_or_default());
    let holds = |region: &&pdpb::Region| {
        region
            .region
            .as_ref()
            .is_some_and(|region| region.peers.iter().any(|peer| peer.store_id == id))
    };
    let leads =
        |region: &&pdpb::Region| region.leader.as_ref().is_some_and(|leader| leader.store_id == id);
    let state = metapb::StoreState::try_from(store.state).unwrap_or_default().as_str_name();
    let node_state =
        metapb::NodeState::try_from(store.node_state).unwrap_or_default().as_str_name();
    let labels: Vec<_> = store
        .labels
        .iter()
        .map(|label| json!({ "key": label.key, "value": label.value }))
        .collect();
    Ok(json!({
        "store": {
            "id": store.id,
            "address": store.address,
            "labels": labels,
            "version": store.version,
            "status_address": store.status_address,
            "start_timestamp": store.start_timestamp,
            "last_heartbeat": store.last_heartbeat,
            "state": store.state,
            "state_name": state,
            "node_state": store.node_state,
            "node_state_name": node_state,
        },
        "status": {
            "capacity": bytes(stats.capacity),
            "available": bytes(stats.available),
            "used_size": bytes(stats.used_size),
            "leader_count": regions.iter().filter(leads).count(),
            "region_count": regions.iter().filter(holds).count(),
        },
    }))
}

async fn all_regions(pd: &PdService) -> Result<Vec<pdpb::Region>, Refused> {
    let request = pdpb::ScanRegionsRequest {
        header: pd.request_header(),
        ..pdpb::ScanRegionsRequest::default()
    };
    Ok(pd.scan_regions(Request::new(request)).await?.into_inner().regions)
}

async fn regions(State(pd): State<PdService>) -> Answer {
    let regions: Vec<Value> = all_regions(&pd).await?.into_iter().map(region_json).collect();
    Ok(Json(json!({ "count": regions.len(), "regions": regions })))
}

async fn region_count(State(pd): State<PdService>) -> Answer {
    Ok(Json(json!({ "count": all_regions(&pd).await?.len() })))
}

async fn regions_of_store(State(pd): State<PdService>, Path(id): Path<u64>) -> Answer {
    let holds = |region: &pdpb::Region| {
        region
            .region
            .as_ref()
            .is_some_and(|region| region.peers.iter().any(|peer| peer.store_id == id))
    };
    let regions: Vec<Value> =
        all_regions(&pd).await?.into_iter().filter(holds).map(region_json).collect();
    Ok(Json(json!({ "count": regions.len(), "regions": regions })))
}

async fn region_by_id(State(pd): State<PdService>, Path(region_id): Path<u64>) -> Answer {
    let header = pd.request_header();
    let request =
        pdpb::GetRegionByIdRequest { header, region_id, ..pdpb::GetRegionByIdRequest::default() };
    one_region(pd.get_region_by_id(Request::new(request)).await?.into_inner())
}

/// The key is percent-encoded, in stored form; `?format=hex` is PD's other spelling and not needed by clients.
async fn region_by_key(State(pd): State<PdService>, Path(key): Path<String>) -> Answer {
    let header = pd.request_header();
    let request = pdpb::GetRegionRequest {
        header,
        region_key: key.into(),
        ..pdpb::GetRegionRequest::default()
    };
    one_region(pd.get_region(Request::new(request)).await?.into_inner())
}

fn one_region(answer: pdpb::GetRegionResponse) -> Answer {
    match answer.region {
        Some(region) => Ok(Json(region_json(pdpb::Region {
            region: Some(region),
            leader: answer.leader,
            ..pdpb::Region::default()
        }))),
        // PD answers null.
        None => Ok(Json(Value::Null)),
    }
}

fn region_json(region: pdpb::Region) -> Value {
    let leader = region.leader.unwrap_or_default();
    let region = region.region.unwrap_or_default();
    let epoch = region.region_epoch.unwrap_or_default();
    json!({
        "id": region.id,
        "start_key": hex(&region.start_key),
        "end_key": hex(&region.end_key),
        "epoch": { "conf_ver": epoch.conf_ver, "version": epoch.version },
        "peers": region.peers.iter().map(peer_json).collect::<Vec<_>>(),
        "leader": peer_json(&leader),
    })
}

fn peer_json(peer: &metapb::Peer) -> Value {
    let role = metapb::PeerRole::try_from(peer.role).unwrap_or_default().as_str_name();
    json!({ "id": peer.id, "store_id": peer.store_id, "role": peer.role, "role_name": role })
}

async fn safe_point(State(pd): State<PdService>) -> Answer {
    let request = Request::new(pdpb::GetGcSafePointRequest { header: pd.request_header() });
    let safe_point = pd.get_gc_safe_point(request).await?.into_inner().safe_point;
    Ok(Json(json!({ "gc_safe_point": safe_point, "service_gc_safe_points": [] })))
}

fn error_entry(entry: &types::catalogue::Entry) -> Value {
    json!({
        "code": entry.code, "title": entry.title, "cause": entry.cause, "try": entry.remedy,
        "retryable": entry.retryable,
    })
}

async fn error_by_code(Path(code): Path<String>) -> Response {
    match types::Code::parse(&code) {
        Some(code) => Json(error_entry(code.entry())).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            Json(json!({ "title": format!("no error has the code {code}") })),
        )
            .into_response(),
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02X}")).collect()
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
    fn sizes_and_keys_look_like_pds() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1536), "1.5000KiB");
        assert_eq!(bytes(80 << 30), "80.0000GiB");
        assert_eq!(hex(b"r\x00\xff"), "7200FF");
    }
}
