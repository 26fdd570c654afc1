//! The configuration: every setting, its default and its documentation in one table (`settings!` below).
//!
//! A setting's value comes from the last of these that names it: default, file, environment
//! (`TINYKV_SECTION__KEY`, and `LOG_LEVEL`), flag. [`load()`] merges them, remembers where each value came from ([`Origin`]), and reports
//! every problem at once. It is pure: file text, environment and facts of the machine are inputs.
//!
//! Names are TiKV's or PD's where the meaning is theirs. Their spelling of our settings is understood, their settings
//! without a meaning here are a warning, and anything else that is unknown is an error with the nearest name.
//!
//! A setting exists only if it has an effect.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use types::ApiMode;

mod address;
mod byte_size;
mod file;
mod foreign;
mod load;
mod machine;
mod problem;
mod sample;
mod schedule;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use address::{Address, advertised};
pub use byte_size::ByteSize;
pub use load::{Base, File, Flag, Loaded, Origin, Sources, load};
pub use machine::Machine;
pub use problem::{LoadError, Location, Problem};
pub use sample::sample;
pub(crate) use schedule::{change_schedule, schedule_to_json};
pub use value::{EngineKind, LogFormat, LogLevel, SyncMode};

use value::{Input, SettingValue};

/// One row of the table of settings.
pub(crate) struct Setting {
    /// The full name: section and key.
    pub(crate) name: &'static str,
    /// What it does, for the sample file.
    pub(crate) doc: &'static str,
    /// What people may write.
    pub(crate) takes: &'static str,
    /// Reads a value into a configuration.
    pub(crate) set: fn(&mut Config, &Input) -> Result<(), String>,
    /// The value as the right side of a line of the file.
    pub(crate) to_toml: fn(&Config) -> String,
    /// The value as people read it.
    pub(crate) to_text: fn(&Config) -> String,
    /// The value for programs.
    pub(crate) to_json: fn(&Config) -> serde_json::Value,
}

/// The table: sections with their settings, each with documentation, field, full name, type and default.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $($(#[doc = $doc:literal])* $field:ident $name:literal: $type:ty = $default:expr;)*
        }
    )*) => {
        /// All settings of a process. See [`load()`] for how it comes about.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $($(#[doc = $doc])* pub $field: $type,)*
            }
        )*

        /// The defaults of the table, on any machine the same.
        impl Default for Config {
            fn default() -> Config {
                Config { $($section: $Section { $($field: $default,)* },)* }
            }
        }

        /// Every section with its documentation, in the order of the sample file.
        pub(crate) const SECTIONS: &[(&str, &str)] =
            &[$((stringify!($section), concat!($($section_doc, "\n",)*)),)*];

        /// Every setting, in the order of the sample file.
        pub(crate) const SETTINGS: &[Setting] = &[$($(Setting {
            name: $name,
            doc: concat!($($doc, "\n",)*),
            takes: <$type as SettingValue>::TAKES,
            set: |config, input| <$type as SettingValue>::read(input).map(|value| config.$section.$field = value),
            to_toml: |config| config.$section.$field.to_toml(),
            to_text: |config| config.$section.$field.to_text(),
            to_json: |config| config.$section.$field.to_json(),
        },)*)*];
    };
}

settings! {
    /// The process and its data.
    node: NodeSettings {
        /// Folder of the data; created if missing. The scheduler and the store have a folder each inside.
        data_dir "node.data-dir": PathBuf = PathBuf::from("./tinykv-data");
        /// Stores of this process. Beyond the first, each takes the ports after those of the one before, if they are not
        /// free ones, and has a folder of its own.
        stores "node.stores": usize = 1;
        /// Name of the scheduler member in lists of members.
        name "node.name": String = "tinykv".to_owned();
        /// Labels of the store, such as zone and host.
        labels "node.labels": BTreeMap<String, String> = BTreeMap::new();
    }
    /// The store's servers.
    server: ServerSettings {
        /// Where the store listens. Port 0 takes a free one.
        addr "server.addr": String = "127.0.0.1:20160".to_owned();
        /// What clients and other nodes dial. Empty: the listening address, or the address of the default route if
        /// that is a wildcard.
        advertise_addr "server.advertise-addr": String = String::new();
        /// Where the store's HTTP server listens: metrics, health, status. Empty: nowhere.
        status_addr "server.status-addr": String = "127.0.0.1:20180".to_owned();
        /// Threads that serve the network. 0: half of the processors.
        grpc_concurrency "server.grpc-concurrency": usize = 0;
    }
    /// The scheduler: its own server, and where a store finds it.
    scheduler: SchedulerSettings {
        /// Where the scheduler listens, for gRPC and HTTP. Port 0 takes a free one.
        addr "scheduler.addr": String = "127.0.0.1:2379".to_owned();
        /// What clients and stores dial. Empty: as for server.advertise-addr.
        advertise_addr "scheduler.advertise-addr": String = String::new();
        /// Schedulers that a store joins when its process has none of its own.
        endpoints "scheduler.endpoints": Vec<String> = vec!["127.0.0.1:2379".to_owned()];
    }
    /// How much the scheduler does at once, and when a store counts as gone. Names and meaning are PD's.
    schedule: ScheduleSettings {
        /// After this silence a store counts as down: its replicas are made anew elsewhere.
        max_store_down_time "schedule.max-store-down-time": Duration = Duration::from_secs(30 * 60);
        /// Leaders that are moved at once to balance them. 0: none are.
        leader_schedule_limit "schedule.leader-schedule-limit": usize = 4;
        /// Replicas that are moved at once to balance them. 0: none are.
        region_schedule_limit "schedule.region-schedule-limit": usize = 2048;
        /// Regions that are repaired at once: too few replicas, too many, or on stores that are gone. 0: none are.
        replica_schedule_limit "schedule.replica-schedule-limit": usize = 64;
        /// A store that sends, or receives and applies, so many snapshots takes part in nothing that needs another.
        max_snapshot_count "schedule.max-snapshot-count": usize = 4;
        /// A store with so many replicas that lag behind gets no more.
        max_pending_peer_count "schedule.max-pending-peer-count": usize = 16;
        /// A store whose disk is used beyond this share gets nothing new.
        low_space_ratio "schedule.low-space-ratio": f64 = 0.8;
        /// Whether a new replica takes the place of an old one in one step. Otherwise there is one more for a moment.
        enable_joint_consensus "schedule.enable-joint-consensus": bool = true;
    }
    /// Replicas.
    replication: ReplicationSettings {
        /// Replicas of a region. Counts when the cluster is created, and is part of it from then on: see
        /// /pd/api/v1/config/replicate of the scheduler.
        max_replicas "replication.max-replicas": usize = 3;
    }
    /// How data are kept.
    storage: StorageSettings {
        /// API mode, fixed when the cluster is created. v1: the first write decides between raw and transactional.
        /// v1ttl: raw with time to live. v2: both, in keyspaces, with time to live.
        api "storage.api": ApiMode = ApiMode::V1;
        /// Engine of the store: fjall, rocksdb (if compiled in), or memory, which keeps nothing.
        engine "storage.engine": EngineKind = EngineKind::Fjall;
        /// When a write is acknowledged. always: once it is on disk. os: once the operating system has it, which
        /// loses the last seconds in a power cut.
        sync "storage.sync": SyncMode = SyncMode::Always;
        /// How often expired keys are looked for and removed. Expired keys are never visible, with or without this.
        ttl_check_poll_interval "storage.ttl-check-poll-interval": Duration = Duration::from_secs(12 * 3600);
    }
    /// Memory of the whole process.
    memory: MemorySettings {
        /// Budget for caches and buffers together. `tinykv dev` takes 256MiB, the others a quarter of what the
        /// machine or its control group has, 8GiB at most.
        limit "memory.limit": ByteSize = ByteSize::mib(256);
    }
    /// Times of a store.
    raftstore: RaftstoreSettings {
        /// How often a store reports itself to the scheduler.
        pd_store_heartbeat_tick_interval "raftstore.pd-store-heartbeat-tick-interval": Duration = Duration::from_secs(10);
        /// How often a region without changes is reported to the scheduler.
        pd_heartbeat_tick_interval "raftstore.pd-heartbeat-tick-interval": Duration = Duration::from_secs(60);
        /// The clock of replication: the other intervals are counted in it.
        raft_base_tick_interval "raftstore.raft-base-tick-interval": Duration = Duration::from_millis(100);
        /// Ticks between two heartbeats of a region's leader.
        raft_heartbeat_ticks "raftstore.raft-heartbeat-ticks": usize = 2;
        /// Ticks without a leader after which others campaign; up to twice as many, drawn at random.
        raft_election_timeout_ticks "raftstore.raft-election-timeout-ticks": usize = 8;
        /// How often regions are looked at whose log may be too long.
        raft_log_gc_tick_interval "raftstore.raft-log-gc-tick-interval": Duration = Duration::from_secs(3);
        /// Entries of a region's log beyond which it is compacted.
        raft_log_gc_count_limit "raftstore.raft-log-gc-count-limit": usize = 73_000;
        /// How often regions are looked at that may be too large.
        split_region_check_tick_interval "raftstore.split-region-check-tick-interval": Duration = Duration::from_secs(10);
    }
    /// When regions are cut.
    coprocessor: CoprocessorSettings {
        /// Size beyond which a region is cut.
        region_max_size "coprocessor.region-max-size": ByteSize = ByteSize::mib(144);
        /// Size of the pieces.
        region_split_size "coprocessor.region-split-size": ByteSize = ByteSize::mib(96);
        /// Keys beyond which a region is cut.
        region_max_keys "coprocessor.region-max-keys": usize = 1_440_000;
        /// Keys of the pieces.
        region_split_keys "coprocessor.region-split-keys": usize = 960_000;
    }
    /// Removal of old versions of transactional data.
    gc: GcSettings {
        /// How often a store asks the scheduler for the GC safe point. When it has moved, what nobody needs who reads
        /// at or above it is removed.
        poll_safe_point_interval "gc.poll-safe-point-interval": Duration = Duration::from_secs(10);
    }
    /// Where the families of the protocol differ and a client can live with one side only.
    compat: CompatSettings {
        /// What tinykvpb answers to a commit of a key that was never prewritten: false, an error, as TiKV does; true,
        /// success, as the course's tests want it. tikvpb always answers with an error.
        tinykv_commit_missing "compat.tinykv-commit-missing": bool = false;
    }
    /// Logs.
    log: LogSettings {
        /// Least important records that are written: trace, debug, info, warn, error, off. `tinykv dev` starts with
        /// warn.
        level "log.level": LogLevel = LogLevel::Info;
        /// How a record looks: text, json, or tikv for tools that parse TiKV's logs.
        format "log.format": LogFormat = LogFormat::Text;
        /// File that records are appended to. Empty: standard error.
        file "log.file": PathBuf = PathBuf::new();
    }
}

impl Config {
    /// Whether nothing is kept: neither the store's data nor the scheduler's state.
    pub fn keeps_nothing(&self) -> bool {
        self.storage.engine == EngineKind::Memory
    }

    /// The configuration of one store of several, counted from 0: its own ports and share of the memory.
    pub(crate) fn of_store(&self, nth: usize) -> Config {
        let mut config = self.clone();
        config.memory.limit = config.memory.limit.share(1, self.node.stores.max(1) as u64);
        for addr in [
            &mut config.server.addr,
            &mut config.server.advertise_addr,
            &mut config.server.status_addr,
        ] {
            *addr = address::nth(addr, nth);
        }
        config
    }

    /// The configuration for programs: an object per section.
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = serde_json::Map::new();
        for setting in SETTINGS {
            let (section, key) = setting.name.split_once('.').expect("settings have a section");
            let section = root.entry(section).or_insert_with(|| serde_json::Map::new().into());
            section
                .as_object_mut()
                .expect("sections are objects")
                .insert(key.to_owned(), (setting.to_json)(self));
        }
        root.into()
    }
}

impl MemorySettings {
    /// Bytes of the engine's block cache: 3/8 of the limit.
    pub fn block_cache(&self) -> ByteSize {
        self.limit.share(3, 8)
    }

    /// Bytes of the engine's memtables at most: 1/4 of the limit. The rest is for requests, answers and the program.
    pub fn memtables(&self) -> ByteSize {
        self.limit.share(1, 4)
    }
}

impl ServerSettings {
    /// Threads that serve the network on a machine with `processors`: as set, else half of them, at least one.
    pub fn threads(&self, processors: usize) -> usize {
        if self.grpc_concurrency == 0 { (processors / 2).max(1) } else { self.grpc_concurrency }
    }
}

impl serde::Serialize for Config {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}
