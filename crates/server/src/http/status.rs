//! The status port of a store: probes, metrics, and TiKV's `/status` and `/config`.

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use serde_json::json;
use storage::Storage;

use super::probes::{self, Probes};
use crate::{Config, TIKV_VERSION};

/// The paths of the status port.
pub(crate) fn router(probes: Probes, config: Arc<Config>, storage: Storage) -> Router {
    let shown = config.to_json();
    let status = move || {
        let ident = *storage.ident();
        let regions = storage.regions().len();
        async move {
            Json(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "tikv_version": TIKV_VERSION,
                "cluster_id": ident.cluster_id.0,
                "store_id": ident.store_id.0,
                "regions": regions,
            }))
        }
    };
    // Clients read storage.api-version here; it is a number in TiKV.
    let config = move || {
        let mut shown = shown.clone();
        let version = match config.storage.api {
            types::ApiMode::V1 | types::ApiMode::V1Ttl => 1,
            types::ApiMode::V2 => 2,
        };
        if let Some(storage) = shown.get_mut("storage").and_then(|storage| storage.as_object_mut())
        {
            storage.insert("api-version".to_owned(), version.into());
            storage.insert("enable-ttl".to_owned(), config.storage.api.has_ttl().into());
        }
        async move { Json(shown) }
    };
    probes::router(probes).route("/status", get(status)).route("/config", get(config))
}
