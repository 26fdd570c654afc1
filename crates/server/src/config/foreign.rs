//! TiKV's and PD's settings: those that mean one of ours, those without an effect here, and those that are refused.
//!
//! People bring the files they have. A name that those systems know never stops a start, with one exception: what
//! would silently be less safe than it says (TLS, a cluster of several schedulers) is refused.

use super::{Input, Origin, Problem, SETTINGS, Setting, load::find};
use types::Code;

/// TiKV's name of the store's labels; a table like ours.
pub(crate) const LABELS: &str = "server.labels";

/// What a name means here.
pub(crate) enum Meaning {
    /// One of our settings, with the value in our form.
    Ours {
        /// The row.
        setting: &'static Setting,
        /// The value.
        input: Input,
    },
    /// Nothing: the name exists elsewhere.
    NoEffect {
        /// What to know about it, if there is something.
        why: Option<&'static str>,
    },
    /// Something that this version can't do and must not pretend to.
    Refused {
        /// What was asked for.
        message: String,
        /// The way out.
        remedy: String,
    },
    /// Nobody knows it.
    Unknown {
        /// The setting of ours that comes nearest.
        nearest: Option<&'static str>,
    },
}

/// Their name, our name, and how the value changes on the way.
type Alias = (&'static str, &'static str, fn(&Input) -> Result<Input, String>);

const ALIASES: &[Alias] = &[
    // TiKV
    ("storage.data-dir", "node.data-dir", same),
    (LABELS, "node.labels", same),
    ("pd.endpoints", "scheduler.endpoints", hosts_of_urls),
    ("storage.api-version", "storage.api", same),
    ("memory-usage-limit", "memory.limit", same),
    ("log-level", "log.level", same),
    ("log-format", "log.format", same),
    ("log-file", "log.file", same),
    ("log.file.filename", "log.file", same),
    // PD
    ("data-dir", "node.data-dir", same),
    ("name", "node.name", same),
    ("client-urls", "scheduler.addr", first_host_of_urls),
    ("advertise-client-urls", "scheduler.advertise-addr", first_host_of_urls),
];

/// Settings of theirs; a name is covered by an entry that equals it or is one of its sections. `*` ends a prefix.
const WITHOUT_EFFECT: &[&str] = &[
    // TiKV, whole sections
    "backup",
    "backup-stream",
    "cdc",
    "causal-ts",
    "coprocessor",
    "coprocessor-v2",
    "gc",
    "import",
    "in-memory-engine",
    "log-backup",
    "metric",
    "pd",
    "pessimistic-txn",
    "quota",
    "raft-engine",
    "raftdb",
    "raftstore",
    "range-cache-engine",
    "readpool",
    "resolved-ts",
    "resource-control",
    "resource-metering",
    "rocksdb",
    "security",
    "split",
    // TiKV, parts of sections that we have too
    "log.enable-timestamp",
    "log.file",
    "memory.enable-*",
    "memory.profiling-*",
    "server.advertise-status-addr",
    "server.background-*",
    "server.concurrent-*",
    "server.enable-*",
    "server.end-point-*",
    "server.forward-*",
    "server.graceful-*",
    "server.grpc-*",
    "server.health-*",
    "server.heavy-*",
    "server.inspect-*",
    "server.max-grpc-send-msg-len",
    "server.raft-*",
    "server.reject-*",
    "server.simplify-metrics",
    "server.snap-*",
    "server.stats-concurrency",
    "server.status-thread-pool-size",
    "storage.background-error-recovery-window",
    "storage.block-cache",
    "storage.enable-*",
    "storage.flow-control",
    "storage.gc-ratio-threshold",
    "storage.io-rate-limit",
    "storage.max-*",
    "storage.memory-quota",
    "storage.reserve-*",
    "storage.scheduler-*",
    "storage.txn-status-cache-capacity",
    // TiKV, outside of sections
    "abort-on-panic",
    "log-rotation-*",
    "memory-usage-high-water",
    "panic-when-unexpected-key-or-data",
    "slow-log-*",
    // PD
    "advertise-peer-urls",
    "auto-compaction-*",
    "cluster-version",
    "controller",
    "dashboard",
    "election-interval",
    "enable-*",
    "force-new-cluster",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "join",
    "keyspace",
    "label-property",
    "leader-lease",
    "leader-priority-check-interval",
    "lease",
    "log.development",
    "log.disable-*",
    "log.sampling",
    "max-concurrent-*",
    "max-request-bytes",
    "micro-service",
    "pd-server",
    "peer-urls",
    "quota-backend-bytes",
    "replication",
    "replication-mode",
    "schedule",
    "tick-interval",
    "tso-*",
];

/// Whether `name` is another system's name of one of our settings.
pub(crate) fn is_alias(name: &str) -> bool {
    ALIASES.iter().any(|(theirs, ..)| *theirs == name)
}

/// What `name` with this value means here.
pub(crate) fn translate(name: &str, input: &Input) -> Meaning {
    if name == "storage.engine"
        && matches!(input, Input::Text(text) if text == "raft-kv" || text == "partitioned-raft-kv")
    {
        return Meaning::NoEffect { why: Some("the engines here are fjall, rocksdb and memory") };
    }
    if let Some(setting) = find(name) {
        return Meaning::Ours { setting, input: input.clone() };
    }
    if let Some((_, ours, convert)) = ALIASES.iter().find(|(theirs, ..)| *theirs == name) {
        let setting = find(ours).expect("aliases name settings that exist");
        return match convert(input) {
            Ok(input) => Meaning::Ours { setting, input },
            Err(message) => Meaning::Refused {
                message: format!("{name}: {message}"),
                remedy: LEAVE_OUT.to_owned(),
            },
        };
    }
    if let Some(refused) = refused(name, input) {
        return refused;
    }
    if name == "storage.enable-ttl" && is_set(input) {
        return Meaning::NoEffect { why: Some("storage.api = \"v1ttl\" turns time to live on") };
    }
    // A slip of the keyboard in a section that both have must not pass as one of theirs.
    let nearest = nearest(name);
    let is_theirs = WITHOUT_EFFECT.iter().any(|pattern| covers(pattern, name));
    match nearest {
        Some((setting, distance)) if !is_theirs || distance <= 1 => {
            Meaning::Unknown { nearest: Some(setting) }
        }
        _ if is_theirs => Meaning::NoEffect { why: None },
        _ => Meaning::Unknown { nearest: None },
    }
}

const LEAVE_OUT: &str = "leave it out; the changelog says which version brings it";

/// What must not be ignored: it promises more than this version keeps.
fn refused(name: &str, input: &Input) -> Option<Meaning> {
    let message = match name {
        "security.ca-path"
        | "security.cacert-path"
        | "security.cert-path"
        | "security.key-path"
        | "security.ca"
        | "security.cert"
        | "security.key"
            if is_set(input) =>
        {
            format!(
                "{name} asks for TLS, which this version does not have: connections would be plain text"
            )
        }
        "initial-cluster" | "scheduler.initial" if several(input) => {
            format!("{name} names several schedulers; this version runs one")
        }
        "join" if is_set(input) => {
            "join asks for a second scheduler; this version runs one".to_owned()
        }
        _ => return None,
    };
    Some(Meaning::Refused { message, remedy: LEAVE_OUT.to_owned() })
}

fn is_set(input: &Input) -> bool {
    !matches!(input, Input::Boolean(false))
        && !matches!(input, Input::Text(text) if text.is_empty() || text == "false")
}

fn several(input: &Input) -> bool {
    match input {
        Input::Text(text) => text.contains(','),
        Input::List(items) => items.len() > 1,
        _ => false,
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => {
            name.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
    }
}

/// The setting of ours that comes nearest to `name`, with the distance, if it is near at all.
fn nearest(name: &str) -> Option<(&'static str, usize)> {
    let last = name.rsplit('.').next().unwrap_or(name);
    SETTINGS
        .iter()
        .map(|setting| {
            let (_, key) = setting.name.split_once('.').expect("settings have a section");
            let whole = strsim::osa_distance(name, setting.name);
            // The right key in the wrong section, or without one.
            let elsewhere = strsim::osa_distance(last, key) + 2;
            (setting.name, whole.min(elsewhere))
        })
        .min_by_key(|(_, distance)| *distance)
        .filter(|(_, distance)| *distance <= 3 && *distance * 2 < name.len())
}

fn same(input: &Input) -> Result<Input, String> {
    Ok(input.clone())
}

/// `http://HOST:PORT` without the scheme; other values as they are, for the setting to judge.
fn host_of_url(url: &str) -> Result<String, String> {
    let url = url.trim();
    if url.starts_with("https://") {
        return Err("https asks for TLS, which this version does not have".to_owned());
    }
    Ok(url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned())
}

fn hosts_of_urls(input: &Input) -> Result<Input, String> {
    let urls: Vec<&str> = match input {
        Input::Text(text) => text.split(',').collect(),
        Input::List(items) => items.iter().map(String::as_str).collect(),
        other => return Ok(other.clone()),
    };
    urls.into_iter().map(host_of_url).collect::<Result<Vec<_>, _>>().map(Input::List)
}

/// One listener is enough here: the first URL.
fn first_host_of_urls(input: &Input) -> Result<Input, String> {
    match hosts_of_urls(input)? {
        Input::List(hosts) => Ok(Input::Text(hosts.into_iter().next().unwrap_or_default())),
        other => Ok(other),
    }
}

/// Collects settings without effect, so that a full file of theirs gives a few lines and not hundreds.
#[derive(Default)]
pub(crate) struct Ineffective {
    /// Section, first name, its origin, how many; in the order of their first appearance.
    sections: Vec<(String, String, Origin, usize)>,
}

impl Ineffective {
    /// Notes one.
    pub(crate) fn add(&mut self, name: &str, origin: Origin) {
        let section = name.split_once('.').map_or("", |(section, _)| section);
        match self.sections.iter_mut().find(|(known, ..)| known == section) {
            Some((.., count)) => *count += 1,
            None => self.sections.push((section.to_owned(), name.to_owned(), origin, 1)),
        }
    }

    /// One warning a section.
    pub(crate) fn into_problems(self) -> impl Iterator<Item = Problem> {
        self.sections.into_iter().map(|(section, name, origin, count)| Problem {
            code: Code::IgnoredSetting,
            origin: Some(origin),
            message: match count {
                1 => format!("{name} has no effect here"),
                _ if section.is_empty() => {
                    format!("{name} and {} more settings have no effect here", count - 1)
                }
                _ => format!(
                    "{count} settings of [{section}] have no effect here, {name} is the first"
                ),
            },
            remedy: Some("they are TiKV's or PD's; `tinykv config sample` prints ours".to_owned()),
        })
    }
}
