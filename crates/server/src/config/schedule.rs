//! The settings of placement as the scheduler has them, and their names for those who ask for them over HTTP.

use std::collections::BTreeMap;

use scheduler::{ChangeStyle, ScheduleConfig};
use serde_json::Value;

use super::{Config, Input, SETTINGS, ScheduleSettings};

const SECTION: &str = "schedule.";

impl ScheduleSettings {
    /// Puts these settings into the scheduler's; what has no setting stays.
    pub(crate) fn apply_to(&self, schedule: &mut ScheduleConfig) {
        let ScheduleSettings {
            max_store_down_time,
            leader_schedule_limit,
            region_schedule_limit,
            replica_schedule_limit,
            max_snapshot_count,
            max_pending_peer_count,
            low_space_ratio,
            enable_joint_consensus,
        } = *self;
        *schedule = ScheduleConfig {
            max_store_down_time,
            leader_schedule_limit,
            region_schedule_limit,
            replica_schedule_limit,
            max_snapshot_count: u32::try_from(max_snapshot_count).unwrap_or(u32::MAX),
            max_pending_peer_count: max_pending_peer_count as u64,
            low_space_ratio,
            change_style: match enable_joint_consensus {
                true => ChangeStyle::Joint,
                false => ChangeStyle::OneByOne,
            },
            ..schedule.clone()
        };
    }

    /// The settings that the scheduler has.
    fn of(schedule: &ScheduleConfig) -> ScheduleSettings {
        ScheduleSettings {
            max_store_down_time: schedule.max_store_down_time,
            leader_schedule_limit: schedule.leader_schedule_limit,
            region_schedule_limit: schedule.region_schedule_limit,
            replica_schedule_limit: schedule.replica_schedule_limit,
            max_snapshot_count: schedule.max_snapshot_count as usize,
            max_pending_peer_count: usize::try_from(schedule.max_pending_peer_count)
                .unwrap_or(usize::MAX),
            low_space_ratio: schedule.low_space_ratio,
            enable_joint_consensus: schedule.change_style == ChangeStyle::Joint,
        }
    }
}

/// The settings of a running scheduler, by their names without the section.
pub(crate) fn schedule_to_json(schedule: &ScheduleConfig) -> BTreeMap<&'static str, Value> {
    let config = Config { schedule: ScheduleSettings::of(schedule), ..Config::default() };
    let settings = SETTINGS.iter();
    settings
        .filter_map(|setting| {
            Some((setting.name.strip_prefix(SECTION)?, (setting.to_json)(&config)))
        })
        .collect()
}

/// Changes settings of a running scheduler, all of `values` or none.
///
/// # Errors
/// A clause that says which name is unknown, or which value is wrong and how.
pub(crate) fn change_schedule(
    schedule: &mut ScheduleConfig,
    values: &serde_json::Map<String, Value>,
) -> Result<(), String> {
    let mut config = Config { schedule: ScheduleSettings::of(schedule), ..Config::default() };
    for (key, value) in values {
        let name = format!("{SECTION}{key}");
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| format!("config item {key} not found"))?;
        (setting.set)(&mut config, &input(value)).map_err(|why| format!("{key} {why}"))?;
    }
    config.schedule.check().map_err(|(name, why)| format!("{name} {why}"))?;
    config.schedule.apply_to(schedule);
    Ok(())
}

impl ScheduleSettings {
    /// What a type can't say of a value.
    ///
    /// # Errors
    /// The setting, and a clause about its value.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match 0.0 < self.low_space_ratio && self.low_space_ratio <= 1.0 {
            true => Ok(()),
            false => Err(("schedule.low-space-ratio", "is a share: more than 0, at most 1")),
        }
    }
}

/// Numbers and truth values as text, which every setting reads.
fn input(value: &Value) -> Input {
    match value {
        Value::String(text) => Input::Text(text.clone()),
        Value::Number(number) => Input::Text(number.to_string()),
        Value::Bool(value) => Input::Boolean(*value),
        Value::Null | Value::Array(_) | Value::Object(_) => Input::Other("something else"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(schedule: &mut ScheduleConfig, values: Value) -> Result<(), String> {
        change_schedule(schedule, values.as_object().expect("is an object"))
    }

    #[test]
    fn the_defaults_are_the_schedulers() {
        let mut schedule = ScheduleConfig { max_snapshot_count: 77, ..ScheduleConfig::default() };
        Config::default().schedule.apply_to(&mut schedule);
        assert_eq!(schedule, ScheduleConfig::default());
        assert_eq!(schedule_to_json(&schedule)["leader-schedule-limit"], 4);
        assert_eq!(schedule_to_json(&schedule)["max-store-down-time"], "30m");
    }

    #[test]
    fn settings_change_all_or_none() {
        let mut schedule = ScheduleConfig::default();
        let values = json!({ "leader-schedule-limit": 8, "max-store-down-time": "5m",
            "low-space-ratio": 0.5, "enable-joint-consensus": "false" });
        change(&mut schedule, values.clone()).expect("all of them exist");
        let shown = schedule_to_json(&schedule);
        assert_eq!(
            (&shown["leader-schedule-limit"], &shown["low-space-ratio"]),
            (&json!(8), &json!(0.5))
        );
        assert_eq!(schedule.change_style, ChangeStyle::OneByOne);

        let before = schedule.clone();
        for (wrong, why) in [
            (json!({ "leader-schedule-limit": 1, "nonsense": 1 }), "nonsense not found"),
            (json!({ "leader-schedule-limit": 1, "max-snapshot-count": -1 }), "not negative"),
            (json!({ "low-space-ratio": 2 }), "is a share"),
            (json!({ "low-space-ratio": [] }), "takes a number"),
        ] {
            let error = change(&mut schedule, wrong).expect_err("is wrong");
            assert!(error.contains(why), "{error}");
            assert_eq!(schedule, before);
        }
    }
}
