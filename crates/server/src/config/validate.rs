//! What the types of single settings cannot say: addresses that others can dial, values that contradict each other.

use std::{collections::BTreeMap, time::Duration};

use types::Code;

use crate::Roles;

use super::{
    Address, ByteSize, Config, EngineKind, Machine, Origin, Problem, SyncMode,
    load::{find, is_compiled_in},
};

/// More stores in one process are a mistake: each has threads and files of its own.
const STORES_MAX: usize = 100;

/// The least memory with which caches and memtables of useful size are left.
const MEMORY_LIMIT_MIN: ByteSize = ByteSize::mib(32);

/// More replicas of a region than anybody needs: each write waits for more than half of them.
const REPLICAS_MAX: usize = 64;

/// A finding about a setting; its place is that setting's origin.
pub(crate) struct Finding {
    setting: &'static str,
    code: Code,
    message: String,
    remedy: Option<String>,
}

impl Finding {
    fn invalid(setting: &'static str, what: impl std::fmt::Display) -> Finding {
        Finding {
            setting,
            code: Code::InvalidSetting,
            message: format!("{setting} {what}"),
            remedy: None,
        }
    }

    fn with_remedy(self, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self }
    }

    /// The problem, at the place where the setting's value came from.
    pub(crate) fn at(self, origins: &BTreeMap<&'static str, Origin>) -> Problem {
        debug_assert!(find(self.setting).is_some(), "{} is no setting", self.setting);
        Problem {
            code: self.code,
            origin: origins.get(self.setting).cloned(),
            message: self.message,
            remedy: self.remedy,
        }
    }
}

/// What makes a configuration unusable.
pub(crate) fn errors(config: &Config, machine: &Machine, roles: Roles) -> Vec<Finding> {
    let mut found = Vec::new();
    addresses(config, machine, roles, &mut found);

    if config.node.data_dir.as_os_str().is_empty() {
        found.push(
            Finding::invalid("node.data-dir", "is empty")
                .with_remedy("node.data-dir = \"./tinykv-data\""),
        );
    }
    if config.node.name.is_empty() {
        found.push(Finding::invalid("node.name", "is empty"));
    }
    if !is_compiled_in(config.storage.engine) {
        let engine = config.storage.engine;
        found.push(
            Finding::invalid(
                "storage.engine",
                format_args!("is {engine}, which this binary does not contain"),
            )
            .with_remedy(format!("build with `--features {engine}`, or choose another engine")),
        );
    }
    if config.memory.limit < MEMORY_LIMIT_MIN {
        let message = format!("is {}, less than {MEMORY_LIMIT_MIN}", config.memory.limit);
        found.push(Finding::invalid("memory.limit", message));
    }
    if let Err((setting, why)) = config.schedule.check() {
        found.push(Finding::invalid(setting, why));
    }
    if !(1..=REPLICAS_MAX).contains(&config.replication.max_replicas) {
        let message = format!("is not between 1 and {REPLICAS_MAX}");
        found.push(Finding::invalid("replication.max-replicas", message));
    }
    for (setting, interval) in [
        ("storage.ttl-check-poll-interval", config.storage.ttl_check_poll_interval),
        ("gc.poll-safe-point-interval", config.gc.poll_safe_point_interval),
        (
            "raftstore.pd-store-heartbeat-tick-interval",
            config.raftstore.pd_store_heartbeat_tick_interval,
        ),
        ("raftstore.pd-heartbeat-tick-interval", config.raftstore.pd_heartbeat_tick_interval),
        ("raftstore.raft-base-tick-interval", config.raftstore.raft_base_tick_interval),
        ("raftstore.raft-log-gc-tick-interval", config.raftstore.raft_log_gc_tick_interval),
        (
            "raftstore.split-region-check-tick-interval",
            config.raftstore.split_region_check_tick_interval,
        ),
    ] {
        // Shorter would be a busy loop, not a timer.
        if interval < Duration::from_millis(10) {
            found.push(Finding::invalid(setting, "is shorter than 10ms"));
        }
    }
    if !(1..=STORES_MAX).contains(&config.node.stores) {
        let message = format!("is {}, which is not 1 to {STORES_MAX}", config.node.stores);
        found.push(Finding::invalid("node.stores", message));
    }
    replication(config, &mut found);
    found
}

fn replication(config: &Config, found: &mut Vec<Finding>) {
    let raftstore = &config.raftstore;
    let (heartbeat, election) =
        (raftstore.raft_heartbeat_ticks, raftstore.raft_election_timeout_ticks);
    if heartbeat == 0 || election <= heartbeat || 1000 < election {
        let message =
            format!("is {election}: more than the {heartbeat} of a heartbeat, up to 1000");
        found.push(Finding::invalid("raftstore.raft-election-timeout-ticks", message));
    }
    let regions = &config.coprocessor;
    for (setting, split, max) in [
        ("coprocessor.region-split-size", regions.region_split_size.0, regions.region_max_size.0),
        (
            "coprocessor.region-split-keys",
            regions.region_split_keys as u64,
            regions.region_max_keys as u64,
        ),
    ] {
        if split == 0 || max < split {
            found.push(Finding::invalid(setting, "is 0, or more than a region may have"));
        }
    }
}

fn addresses(config: &Config, machine: &Machine, roles: Roles, found: &mut Vec<Finding>) {
    let mut listeners: Vec<(&'static str, Address)> = Vec::new();
    let mut listen = |setting: &'static str, text: &str, found: &mut Vec<Finding>| match text
        .parse::<Address>()
    {
        Err(why) => found.push(Finding::invalid(setting, why)),
        Ok(address) => {
            let clash = listeners.iter().find(|(_, other)| {
                let same_host =
                    other.host == address.host || other.is_wildcard() || address.is_wildcard();
                address.port != 0 && other.port == address.port && same_host
            });
            if let Some((other, _)) = clash {
                found.push(
                    Finding::invalid(setting, format_args!("is {text}, where {other} listens too"))
                        .with_remedy("give each a port of its own; port 0 takes a free one"),
                );
            }
            listeners.push((setting, address));
        }
    };
    if roles.scheduler {
        listen("scheduler.addr", &config.scheduler.addr, found);
    }
    if roles.store {
        listen("server.addr", &config.server.addr, found);
        if !config.server.status_addr.is_empty() {
            listen("server.status-addr", &config.server.status_addr, found);
        }
    }

    for (setting, flag, text) in [
        (
            "scheduler.advertise-addr",
            "--advertise-scheduler-addr",
            &config.scheduler.advertise_addr,
        ),
        ("server.advertise-addr", "--advertise-addr", &config.server.advertise_addr),
    ] {
        if text.is_empty() {
            continue;
        }
        match text.parse::<Address>() {
            Err(why) => found.push(Finding::invalid(setting, why)),
            Ok(address) if address.is_wildcard() => {
                let remedy = machine.address.map(|ip| {
                    let dialled = Address { host: ip.to_string(), port: address.port };
                    format!("{flag} {dialled} (address of this host's default route)")
                });
                found.push(Finding {
                    setting,
                    code: Code::AdvertisedWildcard,
                    message: format!("other nodes cannot dial {address}"),
                    remedy,
                });
            }
            Ok(_) => {}
        }
    }

    if config.scheduler.endpoints.is_empty() {
        found.push(
            Finding::invalid("scheduler.endpoints", "is empty; a store has to find its scheduler")
                .with_remedy("scheduler.endpoints = [\"127.0.0.1:2379\"]"),
        );
    }
    for endpoint in &config.scheduler.endpoints {
        match endpoint.parse::<Address>() {
            Err(why) => found.push(Finding::invalid("scheduler.endpoints", why)),
            Ok(address) if address.port == 0 || address.is_wildcard() => {
                found.push(Finding::invalid(
                    "scheduler.endpoints",
                    format_args!("has {address}, which nobody can dial"),
                ));
            }
            Ok(_) => {}
        }
    }
}

/// What is allowed and should be known.
pub(crate) fn warnings(config: &Config, roles: Roles) -> Vec<Finding> {
    let mut found = Vec::new();
    for (is_ours, setting, text) in [
        (roles.store, "server.addr", &config.server.addr),
        (roles.scheduler, "scheduler.addr", &config.scheduler.addr),
    ] {
        if is_ours && text.parse::<Address>().is_ok_and(|address| !address.is_loopback()) {
            found.push(Finding {
                setting,
                code: Code::PlainText,
                message: format!("{text} takes plain text from everybody who reaches it"),
                remedy: None,
            });
        }
    }
    if config.storage.sync == SyncMode::Os && config.storage.engine != EngineKind::Memory {
        found.push(Finding {
            setting: "storage.sync",
            code: Code::UnsyncedWrites,
            message: "storage.sync = \"os\": a power cut loses acknowledged writes".to_owned(),
            remedy: None,
        });
    }
    found
}
