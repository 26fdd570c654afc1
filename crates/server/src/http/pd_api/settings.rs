//! The settings of placement: of this process (`schedule`) and of the cluster (`replication`).
//!
//! The former are those of the configuration; a change holds until the scheduler is started again. The latter are
//! recorded.

use axum::{Json, extract::State};
use scheduler::{Answer as Resting, ClusterConfig, LogPosition};
use serde_json::{Map, Value, json};

use super::{Answer, Refused, ask, done, object};
use crate::{
    config::{change_schedule as change, schedule_to_json},
    service::pd::PdService,
};

const MAX_REPLICAS: &str = "max-replicas";

/// All settings, by section.
pub(super) async fn all(State(pd): State<PdService>) -> Answer {
    let Json(schedule) = schedule(State(pd.clone())).await?;
    let Json(replication) = replication(State(pd)).await?;
    Ok(Json(json!({ "schedule": schedule, "replication": replication })))
}

/// Changes settings of any section: `NAME` or `SECTION.NAME`.
pub(super) async fn change_any(State(pd): State<PdService>, body: String) -> Answer {
    let (mut schedule, mut replication) = (Map::new(), Map::new());
    for (name, value) in object(&body)? {
        let (section, key) = name.split_once('.').unwrap_or(("", &name));
        let to = match section {
            "replication" => &mut replication,
            "" if key == MAX_REPLICAS => &mut replication,
            "" | "schedule" => &mut schedule,
            _ => return Err(Refused::bad_request(format!("config item {name} not found"))),
        };
        to.insert(key.to_owned(), value);
    }
    if !schedule.is_empty() {
        put_schedule(&pd, schedule).await?;
    }
    if !replication.is_empty() {
        put_replication(&pd, &replication).await?;
    }
    done("The config is updated.")
}

/// How much is done at once.
pub(super) async fn schedule(State(pd): State<PdService>) -> Answer {
    let shown = ask(&pd, |scheduler, _| {
        let value = schedule_to_json(scheduler.schedule_config());
        Ok(Resting { value, after: LogPosition::default() })
    });
    Ok(Json(json!(shown.await?)))
}

/// Changes how much is done at once.
pub(super) async fn change_schedule(State(pd): State<PdService>, body: String) -> Answer {
    put_schedule(&pd, object(&body)?).await?;
    done("The config is updated.")
}

/// How many replicas a region has.
pub(super) async fn replication(State(pd): State<PdService>) -> Answer {
    let config = ask(&pd, |scheduler, _| scheduler.cluster_config()).await?;
    Ok(Json(json!({ MAX_REPLICAS: config.max_peer_count })))
}

/// Changes how many replicas a region has.
pub(super) async fn change_replication(State(pd): State<PdService>, body: String) -> Answer {
    put_replication(&pd, &object(&body)?).await?;
    done("The config is updated.")
}

async fn put_schedule(pd: &PdService, values: Map<String, Value>) -> Result<(), Refused> {
    let changed = ask(pd, move |scheduler, _| {
        let mut schedule = scheduler.schedule_config().clone();
        let changed = change(&mut schedule, &values);
        if changed.is_ok() {
            scheduler.set_schedule_config(schedule);
        }
        Ok(Resting { value: changed, after: LogPosition::default() })
    });
    changed.await?.map_err(Refused::bad_request)
}

async fn put_replication(pd: &PdService, values: &Map<String, Value>) -> Result<(), Refused> {
    if let Some(name) = values.keys().find(|name| *name != MAX_REPLICAS) {
        return Err(Refused::bad_request(format!("config item {name} not found")));
    }
    // pd-ctl writes every value as a text.
    let number = values.get(MAX_REPLICAS).and_then(|value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    });
    let max_peer_count = number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Refused::bad_request(format!("{MAX_REPLICAS} takes a whole number")))?;
    let config = ClusterConfig { max_peer_count };
    ask(pd, move |scheduler, _| scheduler.put_cluster_config(config)).await
}
