//! PD's HTTP paths on the scheduler's port, with PD's shapes, as far as clients, scripts and pd-ctl use them.
//!
//! Everything is asked of the scheduler behind [`PdService`]: HTTP and gRPC cannot tell different stories. Keys are
//! upper-case hex, as PD prints them. What can be changed is where the replicas are (`stores.rs`, `operators.rs`) and
//! how much is done about it at once (`settings.rs`).

mod operators;
mod regions;
mod settings;
mod stores;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use proto::pdpb::{self, pd_server::Pd as _};
use scheduler::{Now, Scheduler};
use serde_json::{Map, Value, json};
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
        .route("/stores", get(stores::all))
        .route("/stores/remove-tombstone", delete(stores::forget_tombstones))
        .route("/store/{id}", get(stores::one).delete(stores::remove))
        .route("/store/{id}/state", post(stores::set_state))
        .route("/regions", get(regions::all))
        .route("/regions/count", get(regions::count))
        .route("/regions/key", get(regions::from_key))
        .route("/regions/store/{id}", get(regions::of_store))
        .route("/regions/check/{what}", get(regions::with_trouble))
        .route("/region/id/{id}", get(regions::by_id))
        .route("/region/key/{key}", get(regions::by_key))
        .route("/operators", get(operators::all).post(operators::add))
        .route("/operators/{region}", get(operators::one).delete(operators::cancel))
        .route("/schedulers", get(operators::schedulers))
        .route("/config", get(settings::all).post(settings::change_any))
        .route("/config/schedule", get(settings::schedule).post(settings::change_schedule))
        .route("/config/replicate", get(settings::replication).post(settings::change_replication))
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
#[derive(Debug)]
struct Refused(StatusCode, String);

impl Refused {
    fn bad_request(why: impl Into<String>) -> Refused {
        Refused(StatusCode::BAD_REQUEST, why.into())
    }
}

impl From<scheduler::Error> for Refused {
    fn from(error: scheduler::Error) -> Refused {
        use scheduler::Error;
        let code = match &error {
            Error::StoreNotFound { .. } | Error::OperatorNotFound { .. } => StatusCode::NOT_FOUND,
            Error::StoreTombstone { .. } => StatusCode::GONE,
            Error::Invalid { .. } => StatusCode::BAD_REQUEST,
            Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused(code, format!("{error} [{}]", error.code()))
    }
}

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

/// Asks the core, and waits until the answer is durable.
async fn ask<T: Send + 'static>(
    pd: &PdService,
    call: impl FnOnce(&mut Scheduler, Now) -> scheduler::Result<scheduler::Answer<T>> + Send,
) -> Result<T, Refused> {
    Ok(pd.scheduler().run(call).await?)
}

/// The object in a request's body, whatever its content type says: curl calls everything a form.
fn object(body: &str) -> Result<Map<String, Value>, Refused> {
    serde_json::from_str(body).map_err(|error| Refused::bad_request(format!("the body: {error}")))
}

/// PD's answer to a change that was made: a sentence.
fn done(sentence: &str) -> Answer {
    Ok(Json(sentence.into()))
}

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
