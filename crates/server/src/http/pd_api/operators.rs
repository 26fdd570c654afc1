//! What is being done to regions, and what somebody wants done to them.

use axum::{
    Json,
    extract::{Path, State},
};
use scheduler::{Change, OperatorInfo, Status};
use serde_json::{Map, Value, json};
use types::{Bytes, RegionId, StoreId};

use super::{Answer, Refused, ask, done, object, regions::from_hex};
use crate::service::pd::PdService;

/// Everything that is being done, one line each.
pub(super) async fn all(State(pd): State<PdService>) -> Answer {
    let operators = ask(&pd, |scheduler, _| Ok(scheduler.operators())).await?;
    Ok(Json(operators.iter().map(line).collect()))
}

/// What is being done to a region, or was done in the last minutes.
pub(super) async fn one(State(pd): State<PdService>, Path(region): Path<u64>) -> Answer {
    let info = ask(&pd, move |scheduler, _| scheduler.operator(RegionId(region))).await?;
    let status = match info.status {
        Status::Running => "RUNNING".to_owned(),
        Status::Success => "SUCCESS".to_owned(),
        Status::Timeout => "TIMEOUT".to_owned(),
        Status::Replaced => "REPLACED".to_owned(),
        Status::Canceled(why) => format!("CANCEL ({why})"),
    };
    Ok(Json(format!("status: {status}, operator: {}", line(&info)).into()))
}

/// Has something done to a region.
pub(super) async fn add(State(pd): State<PdService>, body: String) -> Answer {
    let (region, change) = wanted(&object(&body)?)?;
    ask(&pd, move |scheduler, _| scheduler.add_operator(region, change)).await?;
    done("The operator is created.")
}

/// Gives up what is being done to a region.
pub(super) async fn cancel(State(pd): State<PdService>, Path(region): Path<u64>) -> Answer {
    ask(&pd, move |scheduler, _| scheduler.cancel_operator(RegionId(region))).await?;
    done("The pending operator is canceled.")
}

/// What balances by itself. It is always there; its limits turn it off.
pub(super) async fn schedulers() -> Json<Value> {
    Json(json!(["balance-leader-scheduler", "balance-region-scheduler"]))
}

fn line(info: &OperatorInfo) -> String {
    let OperatorInfo { region, desc, kinds, steps, done, .. } = info;
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    format!(
        "{desc} (kind:{}, region:{region}, currentStep:{done}, steps:[{}])",
        kinds.join(","),
        steps.join(", ")
    )
}

/// The change that a request wants, in PD's words.
fn wanted(request: &Map<String, Value>) -> Result<(RegionId, Change), Refused> {
    let number = |name: &str| {
        let value = request.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| Refused::bad_request(format!("missing {name}")))
    };
    let store = |name: &str| number(name).map(StoreId);
    let name = request.get("name").and_then(Value::as_str);
    let change = match name.ok_or_else(|| Refused::bad_request("missing operator name"))? {
        "transfer-leader" => Change::TransferLeader { to: store("to_store_id")? },
        "add-peer" => Change::Add { store: store("store_id")? },
        "remove-peer" => Change::Remove { store: store("store_id")? },
        "transfer-peer" => {
            Change::Replace { from: store("from_store_id")?, to: store("to_store_id")? }
        }
        "split-region" => Change::Split { keys: split_keys(request)? },
        other => {
            let message = format!(
                "there is no operator {other} here, but transfer-leader, transfer-peer, add-peer, remove-peer and \
                 split-region"
            );
            return Err(Refused::bad_request(message));
        }
    };
    Ok((RegionId(number("region_id")?), change))
}

/// The keys at which a region is to be split, in hex and in stored form; none: in the middle.
fn split_keys(request: &Map<String, Value>) -> Result<Vec<Bytes>, Refused> {
    let by_key = request
        .get("policy")
        .and_then(Value::as_str)
        .is_some_and(|policy| policy.eq_ignore_ascii_case("usekey"));
    let keys = request.get("keys").and_then(Value::as_array);
    let keys = match (by_key, keys) {
        (true, Some(keys)) if !keys.is_empty() => keys,
        (true, _) => return Err(Refused::bad_request("missing keys")),
        (false, _) => return Ok(Vec::new()),
    };
    let key = |key: &Value| {
        let text = key.as_str().ok_or_else(|| Refused::bad_request("keys are texts in hex"))?;
        from_hex(text).map(Bytes::from)
    };
    keys.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: Value) -> Result<(RegionId, Change), String> {
        wanted(request.as_object().expect("is an object")).map_err(|refused| refused.1)
    }

    #[test]
    fn requests_are_pds() {
        let store = |id| StoreId(id);
        let cases = [
            (
                json!({ "name": "transfer-leader", "region_id": 2, "to_store_id": 3 }),
                Change::TransferLeader { to: store(3) },
            ),
            (
                json!({ "name": "add-peer", "region_id": 2, "store_id": 4 }),
                Change::Add { store: store(4) },
            ),
            (
                json!({ "name": "remove-peer", "region_id": 2, "store_id": 4 }),
                Change::Remove { store: store(4) },
            ),
            (
                json!({ "name": "transfer-peer", "region_id": 2, "from_store_id": 1, "to_store_id": 4 }),
                Change::Replace { from: store(1), to: store(4) },
            ),
            (
                json!({ "name": "split-region", "region_id": 2, "policy": "USEKEY", "keys": ["6b", "6D"] }),
                Change::Split { keys: vec!["k".into(), "m".into()] },
            ),
            (
                json!({ "name": "split-region", "region_id": 2, "policy": "approximate" }),
                Change::Split { keys: Vec::new() },
            ),
        ];
        for (request, change) in cases {
            assert_eq!(read(request), Ok((RegionId(2), change)));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (request, why) in [
            (json!({ "region_id": 2 }), "missing operator name"),
            (json!({ "name": "add-peer", "store_id": 4 }), "missing region_id"),
            (json!({ "name": "add-peer", "region_id": 2 }), "missing store_id"),
            (json!({ "name": "merge-region", "source_region_id": 2 }), "no operator merge-region"),
            (json!({ "name": "split-region", "region_id": 2, "policy": "usekey" }), "missing keys"),
            (
                json!({ "name": "split-region", "region_id": 2, "policy": "usekey", "keys": ["x"] }),
                "no key in hex",
            ),
        ] {
            let error = read(request).expect_err("is no request");
            assert!(error.contains(why), "{error}");
        }
    }
}
