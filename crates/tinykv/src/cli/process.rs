//! A server process from its first line to its exit code: logs, limits, start, ready file, signals, drain.
//!
//! `tinykv dev`, `tinykv start` and the two front ends of the course differ in their flags and in what they say; what
//! they do is here. The first signal (INT, TERM, HUP, QUIT) stops gracefully: no new requests, those under way get
//! [`DRAIN_TIMEOUT`], everything is made durable. The second one stops at once; nothing that was acknowledged is lost
//! then either.
//!
//! `tinykv dev` talks to people: sentences on standard error, unless that carries log records for programs. The others
//! are services and write log records only.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::{Clock, real::RealClock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::{
    Config, Ready, Roles, Server, StartError,
    config::{Loaded, LogFormat, Origin, Problem, advertised},
    logging,
};
use tokio::{
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
};
use types::{Code, limits::DRAIN_TIMEOUT};

use super::{CliError, Exit, config::warning_text, output, port_owner};

/// Below this, a large data set may run out of files: worth a warning.
const FILES_WARN: u64 = 4096;

/// Below this, a store can't work.
const FILES_MIN: u64 = 256;

/// How often a store looks for its scheduler when it starts, and the time in between: the course's figures.
const SCHEDULER_TRIES: u32 = 10;
const SCHEDULER_INTERVAL: Duration = Duration::from_secs(1);

/// What to start, and how to talk about it.
#[derive(Debug)]
pub(super) struct Launch {
    /// The configuration with its origins and warnings.
    pub(super) loaded: Loaded,
    /// Scheduler, store, or both.
    pub(super) roles: Roles,
    /// Where the addresses go once everything listens.
    pub(super) ready_file: Option<PathBuf>,
    /// Whether the addresses go to standard output as well.
    pub(super) print_ready: bool,
    /// Whether somebody watches, who wants sentences rather than log records.
    pub(super) watched: bool,
    /// Whether text may be coloured.
    pub(super) color: bool,
    /// Names of flags in remedies.
    pub(super) flags: FlagNames,
}

/// What this front end calls the flags that help when a port is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlagNames {
    /// Where the scheduler listens.
    pub(super) scheduler_addr: &'static str,
    /// Where the store listens.
    pub(super) store_addr: &'static str,
    /// Where the store's HTTP server listens.
    pub(super) status_addr: &'static str,
}

/// Why a process that had no failure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// SIGTERM, and everything ended in order.
    Terminated,
    /// Ctrl-C or another signal, and everything ended in order.
    Interrupted,
}

/// Runs a process until a signal or a failure ends it.
///
/// # Errors
/// It did not start; it failed for good; or it was stopped at once by a second signal ([`Exit::Interrupted`]).
pub(super) fn run(launch: &Launch) -> Result<Stopped, CliError> {
    let clock = RealClock::new();
    let began = clock.monotonic();
    let log = logging::install(&launch.loaded.config.log, launch.color).map_err(|error| {
        CliError::new(Code::InvalidSetting, error.to_string())
            .with_remedy("choose another log.file")
    })?;

    for warning in &launch.loaded.warnings {
        launch.warn(warning);
    }
    if let Some(warning) = raise_file_limit()? {
        launch.warn(&warning);
    }
    let config = &launch.loaded.config;
    log_settings(&launch.loaded);
    if let Some(path) = &launch.ready_file {
        // Whoever waits for it must not see the one of the start before.
        remove_stale(path)?;
    }

    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = crate::runtime(config.server.threads(processors))
        .map_err(|error| CliError::new(error.code(), error.to_string()))?;
    let result = runtime.block_on(serve(launch, &|| clock.monotonic().saturating_sub(began)));
    // What still runs is either idle or was told to stop at once.
    runtime.shutdown_background();
    if let Err(error) = &result
        && let Some(code) = error.code()
        && !launch.is_log_watched()
    {
        tracing::error!(%code, "{error}");
    }
    drop(log);
    result
}

async fn serve(launch: &Launch, elapsed: &dyn Fn() -> Duration) -> Result<Stopped, CliError> {
    let mut signals = Signals::new()?;
    let server = tokio::select! {
        biased;
        stopped = signals.next() => return Ok(stopped),
        started = start(launch) => started?,
    };
    announce(launch, server.ready(), elapsed())?;

    let failed = server.stopped();
    tokio::select! {
        stopped = signals.next() => {
            launch.say("stopping: requests under way may end (Ctrl-C stops now)\n");
            tracing::info!("stopping, requests under way may end");
            let mut shutdown = Box::pin(server.shutdown(DRAIN_TIMEOUT));
            tokio::select! {
                () = &mut shutdown => Ok(stopped),
                _ = signals.next() => {
                    // Dropping it would wait for threads that may sit in a sync; the process ends instead.
                    std::mem::forget(shutdown);
                    tracing::warn!("stopped at once by a second signal");
                    Err(CliError::silent(Exit::Interrupted))
                }
            }
        }
        cause = failed => {
            // The failed part joins threads when it is dropped, and one may hang in the disk.
            std::mem::forget(server);
            Err(CliError::new(cause.code, cause.message))
        }
    }
}

async fn start(launch: &Launch) -> Result<Server, CliError> {
    let config = &launch.loaded.config;
    if launch.roles.store && !launch.roles.scheduler {
        find_scheduler(&config.scheduler.endpoints, SCHEDULER_TRIES, SCHEDULER_INTERVAL).await?;
    }
    Server::start(config.clone(), launch.roles).await.map_err(|error| explain_start(launch, &error))
}

/// Waits until something listens at one of the endpoints.
///
/// # Errors
/// Nothing did, in `tries` rounds; one reason for each endpoint.
async fn find_scheduler(
    endpoints: &[String],
    tries: u32,
    interval: Duration,
) -> Result<(), CliError> {
    let mut reasons = String::new();
    for round in 1..=tries {
        reasons.clear();
        for endpoint in endpoints {
            let reason = match tokio::time::timeout(interval, TcpStream::connect(endpoint)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    "refused".to_owned()
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("timed out after {}", output::duration(interval)),
            };
            let separator = if reasons.is_empty() { "" } else { ", " };
            reasons.push_str(&format!("{separator}{endpoint} {reason}"));
        }
        if round < tries {
            tracing::warn!(round, tries, "waiting for a scheduler: {reasons}");
            tokio::time::sleep(interval).await;
        }
    }
    Err(CliError::new(Code::SchedulerUnreachable, format!("no scheduler answered: {reasons}"))
        .with_remedy(
            "start the scheduler first, or name another one (--scheduler HOST:PORT, -e HOST:PORT)",
        ))
}

/// A failed start for people: a taken port says who has it, and which flag moves ours.
fn explain_start(launch: &Launch, error: &StartError) -> CliError {
    let plain = CliError::new(error.code(), error.to_string()).with_remedy(error.remedy());
    if error.code() != Code::AddressInUse {
        return plain;
    }
    let config = &launch.loaded.config;
    let listeners = [
        (launch.roles.scheduler, &config.scheduler.addr, launch.flags.scheduler_addr),
        (launch.roles.store, &config.server.addr, launch.flags.store_addr),
        (launch.roles.store, &config.server.status_addr, launch.flags.status_addr),
    ];
    let message = error.to_string();
    let Some((_, addr, flag)) =
        listeners.into_iter().find(|(is_ours, addr, _)| *is_ours && names(&message, addr))
    else {
        return plain;
    };
    let owner = addr.to_socket_addrs().ok().and_then(|mut addrs| addrs.find_map(port_owner::owner));
    let by = owner.map_or_else(
        || "in use by another process".to_owned(),
        |owner| format!("in use by {owner}"),
    );
    let free = format!("{}:0", addr.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host));
    CliError::new(Code::AddressInUse, format!("cannot listen on {addr}: {by}"))
        .with_remedy(format!("{flag} {free}, or: tinykv status to see if it is your cluster"))
}

/// Whether a message names exactly this address: `127.0.0.1:2379` is not in a text about `127.0.0.1:23790`.
fn names(message: &str, addr: &str) -> bool {
    !addr.is_empty()
        && message.match_indices(addr).any(|(at, _)| {
            let after = message[at + addr.len()..].chars().next();
            !after.is_some_and(|c| c.is_ascii_digit())
        })
}

/// Says that everything listens: to the ready file, to standard output, to people, to the log.
fn announce(launch: &Launch, ready: Ready, elapsed: Duration) -> Result<(), CliError> {
    let config = &launch.loaded.config;
    let addresses = Addresses::new(config, &ready);
    let json = addresses.to_json();
    if let Some(path) = &launch.ready_file {
        write_ready_file(path, &json)?;
    }
    if launch.print_ready {
        std::io::Write::write_all(&mut std::io::stdout().lock(), json.as_bytes())?;
    }
    if launch.talks() {
        let banner = Banner {
            version: env!("CARGO_PKG_VERSION"),
            cluster_id: ready.cluster_id.0,
            data: (!config.keeps_nothing()).then_some(config.node.data_dir.as_path()),
            addresses: &addresses,
            memory_limit: config.memory.limit.bytes(),
            memory_used: resident_bytes(),
            elapsed,
        };
        launch.say(&banner.to_string());
    }
    let Addresses { stores, status, .. } = &addresses;
    let scheduler = addresses.scheduler.as_deref().unwrap_or_default();
    let elapsed = output::duration(elapsed);
    tracing::info!(cluster_id = ready.cluster_id.0, scheduler, ?stores, ?status, elapsed, "ready");
    Ok(())
}

impl Launch {
    /// Whether sentences for people go to standard error.
    fn talks(&self) -> bool {
        let log = &self.loaded.config.log;
        self.watched && (log.format == LogFormat::Text || !log.file.as_os_str().is_empty())
    }

    /// Whether log records go where the sentences go: then nothing is said twice.
    fn is_log_watched(&self) -> bool {
        self.talks() && self.loaded.config.log.file.as_os_str().is_empty()
    }

    /// A sentence for people.
    fn say(&self, text: &str) {
        if self.talks() {
            // Nobody is left to hear that standard error is closed.
            let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
        }
    }

    fn warn(&self, warning: &Problem) {
        self.say(&warning_text(warning));
        if !self.is_log_watched() {
            tracing::warn!(code = %warning.code, remedy = warning.remedy(), "{warning}");
        }
    }
}

/// The settings that somebody or something set: one record, not one per setting.
fn log_settings(loaded: &Loaded) {
    let set: Vec<String> = loaded
        .rows()
        .filter(|(.., origin)| *origin != Origin::Default)
        .map(|(name, value, _)| format!("{name}={value}"))
        .collect();
    let data = if loaded.config.keeps_nothing() {
        "memory".into()
    } else {
        loaded.config.node.data_dir.display().to_string()
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data, settings = set.join(" "), "starting");
}

/// The addresses that others dial.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    scheduler: Option<String>,
    schedulers: Vec<String>,
    stores: Vec<String>,
    status: Vec<String>,
}

impl Addresses {
    fn new(config: &Config, ready: &Ready) -> Addresses {
        let dial = |setting: &str, bound: SocketAddr| advertised(setting, bound);
        let schedulers: Vec<String> = match ready.scheduler {
            Some(bound) => vec![dial(&config.scheduler.advertise_addr, bound)],
            None => config.scheduler.endpoints.clone(),
        };
        Addresses {
            scheduler: schedulers.first().cloned(),
            schedulers,
            stores: ready
                .stores
                .iter()
                .copied()
                .map(|bound| dial(&config.server.advertise_addr, bound))
                .collect(),
            status: ready.statuses.iter().copied().map(|bound| dial("", bound)).collect(),
        }
    }

    /// One line of JSON: the ready file.
    fn to_json(&self) -> String {
        let object = serde_json::json!({
            "format": 1,
            "pid": std::process::id(),
            "scheduler": self.scheduler,
            "schedulers": self.schedulers,
            "stores": self.stores,
            "status": self.status,
        });
        format!("{object}\n")
    }
}

/// Writes the ready file in one step: whoever sees it sees all of it.
fn write_ready_file(path: &Path, json: &str) -> Result<(), CliError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, json)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| ready_file_error(path, &error))
}

fn remove_stale(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ready_file_error(path, &error))
        }
        _ => Ok(()),
    }
}

fn ready_file_error(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(
        Code::InvalidSetting,
        format!("cannot write ready file {}: {error}", path.display()),
    )
    .with_cause("It was named with --ready-file.")
    .with_remedy("name a file in a folder that exists and that this user may write to")
}

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// There are too few for a store at all.
fn raise_file_limit() -> Result<Option<Problem>, CliError> {
    let before = getrlimit(Resource::Nofile);
    // Not allowed to, or no need: the limit stays as it is.
    let _ =
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    let after = getrlimit(Resource::Nofile).current;
    judge_file_limit(before.current, after)
}

/// `None` as a limit: unlimited.
fn judge_file_limit(before: Option<u64>, after: Option<u64>) -> Result<Option<Problem>, CliError> {
    let Some(limit) = after.filter(|limit| *limit < FILES_WARN) else { return Ok(None) };
    let raised = match before {
        Some(before) if before < limit => format!("raised {before} to {limit}"),
        _ => format!("is {limit}"),
    };
    let message = format!("the limit of open files {raised} (the hard limit)");
    if limit < FILES_MIN {
        let message = format!("{message}, a store needs {FILES_MIN}");
        return Err(CliError::new(Code::LowFileLimit, message));
    }
    Ok(Some(Problem { code: Code::LowFileLimit, origin: None, message, remedy: None }))
}

/// Bytes of this process that lie in memory, if the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// The signals that stop a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> Result<Signals, CliError> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one. Cancel-safe.
    async fn next(&mut self) -> Stopped {
        tokio::select! {
            _ = self.terminate.recv() => Stopped::Terminated,
            _ = self.interrupt.recv() => Stopped::Interrupted,
            _ = self.hang_up.recv() => Stopped::Interrupted,
            _ = self.quit.recv() => Stopped::Interrupted,
        }
    }
}

/// What `tinykv dev` greets with.
struct Banner<'a> {
    version: &'a str,
    cluster_id: u64,
    data: Option<&'a Path>,
    addresses: &'a Addresses,
    memory_limit: u64,
    memory_used: Option<u64>,
    elapsed: Duration,
}

impl std::fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let data = match self.data {
            Some(path) => format!("data in {} (--memory keeps nothing)", path.display()),
            None => "data in memory, nothing is kept".to_owned(),
        };
        writeln!(f, "tinykv {} · dev cluster {} · {data}\n", self.version, self.cluster_id)?;
        let schedulers = self.addresses.schedulers.join("  ");
        writeln!(f, "  scheduler  {schedulers:<18} any TiKV client connects here")?;
        writeln!(f, "  store      {}", self.addresses.stores.join("  "))?;
        for status in &self.addresses.status {
            writeln!(f, "  status     http://{status}/metrics")?;
        }
        write!(f, "  memory     {} limit", output::bytes(self.memory_limit))?;
        match self.memory_used {
            Some(used) => writeln!(f, " · {} used\n", output::bytes(used))?,
            None => writeln!(f, "\n")?,
        }
        let endpoint = match self.addresses.scheduler.as_deref() {
            None | Some("127.0.0.1:2379") => String::new(),
            Some(other) => format!(" -e {other}"),
        };
        writeln!(
            f,
            "ready in {:.2} s — try:  tinykv put hello world{endpoint} && tinykv get hello{endpoint}",
            self.elapsed.as_secs_f64()
        )?;
        writeln!(f, "Ctrl-C stops it; twice stops it now.")
    }
}

#[cfg(test)]
mod tests;
