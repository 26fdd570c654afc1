//! `/livez`, `/readyz`, `/healthz` and `/metrics`, the same on every port.
//!
//! Live: the process turns. Ready: it takes requests. `?verbose` gives one line per reason.

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{StopCause, listen::Phase, metrics::Metrics, server::Process};

/// What the probes look at.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    pub(crate) metrics: Metrics,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) stopped: watch::Receiver<Option<StopCause>>,
}

impl Probes {
    pub(crate) fn new(process: &Process, metrics: Metrics) -> Probes {
        Probes { metrics, phase: process.phase(), stopped: process.stopped.subscribe() }
    }
}

#[derive(Debug, Deserialize)]
struct Verbosity {
    verbose: Option<String>,
}

/// The paths of the probes.
pub(crate) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

async fn ready(State(probes): State<Probes>, Query(verbosity): Query<Verbosity>) -> Response {
    let running = *probes.phase.borrow() == Phase::Running;
    let stopped = probes.stopped.borrow().clone();
    let mut lines = Vec::new();
    lines.push(if running { "+ takes requests".to_owned() } else { "- is stopping".to_owned() });
    lines.push(match &stopped {
        None => "+ storage is writable".to_owned(),
        Some(cause) => format!("- storage has stopped: {} [{}]", cause.message, cause.code),
    });
    let (status, word) = match running && stopped.is_none() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    match verbosity.verbose.is_some() || status != StatusCode::OK {
        true => (status, format!("{}\n{word}", lines.join("\n"))).into_response(),
        false => (status, word).into_response(),
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], probes.metrics.encode()).into_response()
}
