//! What people change over HTTP: stores, operators, settings.

use serde_json::{Value, json};
use server::Server;
use types::ApiMode;

use crate::{
    common::{cluster, http},
    placement::{bootstrapped, scheduler},
};

/// What a request answers: status and JSON.
async fn call(server: &Server, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = http(server.ready().scheduler, method, path, &body).await;
    (status, serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{path}: {answer}")))
}

async fn get(server: &Server, path: &str) -> Value {
    let (status, answer) = call(server, "GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

#[tokio::test]
async fn regions_and_stores_are_shown_as_pd_shows_them() {
    let server = cluster(ApiMode::V2).await;
    let all = get(&server, "/pd/api/v1/regions").await;
    let first = &all["regions"][0];
    let id = first["id"].as_u64().unwrap();
    assert_eq!(get(&server, &format!("/pd/api/v1/region/id/{id}")).await, *first);
    for list in ["peers", "down_peers", "pending_peers"] {
        assert!(first[list].is_array(), "{first}");
    }
    assert_eq!(
        (&first["peers"][0], &first["peers"][0]["role_name"]),
        (&first["leader"], &json!("Voter"))
    );
    assert!(first["approximate_size"].is_u64() && first["epoch"]["version"].is_u64());

    // From the second region's first key on, two of them.
    let key = all["regions"][1]["start_key"].as_str().unwrap();
    let some = get(&server, &format!("/pd/api/v1/regions/key?key={key}&format=hex&limit=2")).await;
    assert_eq!((&some["count"], &some["regions"][0]), (&json!(2), &all["regions"][1]));
    let one = get(&server, &format!("/pd/api/v1/region/key/{key}?format=hex")).await;
    assert_eq!(one, all["regions"][1]);
    assert_eq!(get(&server, "/pd/api/v1/regions/check/miss-peer").await["count"], 5);
    assert_eq!(get(&server, "/pd/api/v1/regions/check/down-peer").await["count"], 0);
    assert_eq!(get(&server, "/pd/api/v1/region/id/99999").await, Value::Null);

    let stores = get(&server, "/pd/api/v1/stores").await;
    let store = &stores["stores"][0];
    let id = store["store"]["id"].as_u64().unwrap();
    assert_eq!(
        (&store["store"]["state_name"], &store["status"]["region_count"]),
        (&json!("Up"), &json!(5))
    );
    assert_eq!(get(&server, &format!("/pd/api/v1/store/{id}")).await["store"], store["store"]);
    assert_eq!(get(&server, "/pd/api/v1/stores?state=1&state=2").await["count"], 0);
    assert_eq!(call(&server, "GET", "/pd/api/v1/store/999", Value::Null).await.0, 404);
    assert_eq!(call(&server, "DELETE", "/pd/api/v1/store/999", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_store_can_be_sent_away_and_called_back() {
    let server = cluster(ApiMode::V1).await;
    let id = get(&server, "/pd/api/v1/stores").await["stores"][0]["store"]["id"].as_u64().unwrap();
    let path = format!("/pd/api/v1/store/{id}");
    let state = async || get(&server, &path).await["store"]["state_name"].clone();
    assert_eq!(call(&server, "DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(state().await, "Offline", "its region has nowhere to go");
    assert_eq!(call(&server, "POST", &format!("{path}/state?state=Up"), Value::Null).await.0, 200);
    assert_eq!(state().await, "Up");
    assert_eq!(call(&server, "POST", &format!("{path}/state?state=x"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn operators_are_added_shown_and_cancelled() {
    // No store is there that would carry them out.
    let server = scheduler(|_| {}).await;
    bootstrapped(&server).await;
    let region = get(&server, "/pd/api/v1/regions").await["regions"][0]["id"].clone();
    assert_eq!(get(&server, "/pd/api/v1/operators").await, json!([]));
    let one = format!("/pd/api/v1/operators/{region}");
    assert_eq!(call(&server, "GET", &one, Value::Null).await.0, 404);

    let split =
        json!({ "name": "split-region", "region_id": region, "policy": "usekey", "keys": ["6D"] });
    assert_eq!(
        call(&server, "POST", "/pd/api/v1/operators", split).await,
        (200, json!("The operator is created."))
    );
    let running = get(&server, "/pd/api/v1/operators").await;
    let text = running[0].as_str().unwrap();
    assert!(text.starts_with("admin-split-region (kind:admin, region:"), "{text}");
    assert!(text.contains("steps:[split at 1 keys]"), "{text}");
    assert!(get(&server, &one).await.as_str().unwrap().starts_with("status: RUNNING"), "{text}");
    assert_eq!(call(&server, "DELETE", &one, Value::Null).await.0, 200);
    assert!(get(&server, &one).await.as_str().unwrap().starts_with("status: CANCEL"));

    let nowhere = json!({ "name": "add-peer", "region_id": region, "store_id": 999 });
    assert_eq!(call(&server, "POST", "/pd/api/v1/operators", nowhere).await.0, 400);
    let (status, why) = call(&server, "POST", "/pd/api/v1/operators", json!({})).await;
    assert_eq!((status, why), (400, json!("missing operator name")));
    assert_eq!(get(&server, "/pd/api/v1/schedulers").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let server = cluster(ApiMode::V1).await;
    let config = get(&server, "/pd/api/v1/config").await;
    assert_eq!(config["schedule"]["leader-schedule-limit"], 4);
    assert_eq!(config["replication"]["max-replicas"], 3);

    for (path, body) in [
        ("/pd/api/v1/config/schedule", json!({ "leader-schedule-limit": 9 })),
        ("/pd/api/v1/config/replicate", json!({ "max-replicas": 5 })),
        // As pd-ctl writes them.
        (
            "/pd/api/v1/config",
            json!({ "schedule.max-store-down-time": "1h", "low-space-ratio": "0.7" }),
        ),
    ] {
        assert_eq!(call(&server, "POST", path, body).await, (200, json!("The config is updated.")));
    }
    let schedule = get(&server, "/pd/api/v1/config/schedule").await;
    assert_eq!(
        (&schedule["leader-schedule-limit"], &schedule["max-store-down-time"]),
        (&json!(9), &json!("1h"))
    );
    assert_eq!(schedule["low-space-ratio"], 0.7);
    assert_eq!(get(&server, "/pd/api/v1/config/replicate").await["max-replicas"], 5);

    for (path, body) in [
        ("/pd/api/v1/config/schedule", json!({ "leader-schedule-limit": "many" })),
        ("/pd/api/v1/config/replicate", json!({ "max-replicas": 0 })),
        ("/pd/api/v1/config/replicate", json!({ "location-labels": "zone" })),
        ("/pd/api/v1/config", json!({ "log.level": "debug" })),
    ] {
        assert_eq!(call(&server, "POST", path, body).await.0, 400);
    }
}
