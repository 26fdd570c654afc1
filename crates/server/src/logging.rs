//! Log records: text for people, JSON for collectors, TiKV's unified format for tools that parse it.
//!
//! Records go through a bounded queue to a thread of their own. When the disk or the terminal does not keep up,
//! records are dropped, on purpose: a log must never stop the process that it describes, also not when its disk is
//! full.
//!
//! The library emits records and never installs a subscriber: only binaries call [`install`]. Programs that embed a
//! cluster keep theirs.

use std::{
    fmt::{self, Write as _},
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use runtime::{Clock, real::RealClock};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
};
use types::limits::LOG_RECORDS_WAITING_MAX;

use crate::config::{LogFormat, LogLevel, LogSettings};

/// The crates of this workspace. Others' records are written from `warn` on: their debug records are for their
/// authors.
const OURS: [&str; 11] = [
    "bench",
    "chaos",
    "client",
    "engine",
    "raft",
    "runtime",
    "scheduler",
    "server",
    "storage",
    "tinykv",
    "types",
];

/// Why records cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file.
    #[error("cannot open log file {}: {source}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program installs its subscriber once.
    #[error("a subscriber is installed already")]
    Installed,
}

/// Writes what is still in the queue when it is dropped. Keep it until the process ends.
#[must_use = "records that wait are lost unless this is dropped last"]
#[derive(Debug)]
pub struct LogGuard(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Installs the subscriber of this process. `color`: whether text on standard error may be coloured.
///
/// # Errors
/// The log file cannot be opened, or a subscriber is installed.
pub fn install(settings: &LogSettings, color: bool) -> Result<LogGuard, LogError> {
    let (output, guard, to_file) = if settings.file.as_os_str().is_empty() {
        let (output, guard) = queue(io::stderr());
        (output, guard, false)
    } else {
        let (output, guard) = queue(open(&settings.file)?);
        (output, guard, true)
    };
    let subscriber = subscriber(settings, color && !to_file && io::stderr().is_terminal(), output);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Installed)?;
    Ok(LogGuard(guard))
}

fn queue(output: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_RECORDS_WAITING_MAX)
        .thread_name("log")
        .finish(output)
}

fn open(path: &PathBuf) -> Result<fs::File, LogError> {
    let open = || {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(path)
    };
    open().map_err(|source| LogError::Open { path: path.clone(), source })
}

/// The subscriber for these settings, writing to `output`.
fn subscriber<W>(settings: &LogSettings, color: bool, output: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let level = filter(settings.level);
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OURS.iter().map(|target| (*target, level)));
    let layer = tracing_subscriber::fmt::layer().with_writer(output).with_ansi(color);
    let layer = match settings.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Tikv => layer.event_format(TikvFormat).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    }
}

/// TiKV's unified log format: `[time] [LEVEL] [file.rs:line] ["message"] [key=value]...`.
struct TikvFormat;

impl<S, N> FormatEvent<S, N> for TikvFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let file =
            metadata.file().map_or("unknown", |file| file.rsplit('/').next().unwrap_or(file));
        let line = metadata.line().unwrap_or(0);
        write!(
            writer,
            "[{}] [{}] [{file}:{line}]",
            tikv_time(RealClock::new().wall()),
            metadata.level()
        )?;
        let mut fields = TikvFields::default();
        event.record(&mut fields);
        writeln!(writer, " [{}]{}", tikv_quoted(&fields.message), fields.rest)
    }
}

/// `2026/11/22 10:02:03.123 +00:00`.
fn tikv_time(wall: Duration) -> String {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + wall).to_string();
    time.replace('-', "/").replace('T', " ").replace('Z', " +00:00")
}

/// A value of the unified format: a JSON string if it has characters that the format uses itself.
fn tikv_quoted(text: &str) -> String {
    let is_special = |c: char| c <= ' ' || matches!(c, '"' | '=' | '[' | ']');
    if text.is_empty() || text.contains(is_special) {
        serde_json::Value::from(text).to_string()
    } else {
        text.to_owned()
    }
}

#[derive(Default)]
struct TikvFields {
    message: String,
    rest: String,
}

impl Visit for TikvFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            let _ = write!(self.rest, " [{}={}]", tikv_quoted(field.name()), tikv_quoted(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Config;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: LogLevel, emit: impl FnOnce()) -> String {
        let sink = Sink::default();
        let settings = LogSettings { format, level, ..Config::default().log };
        let maker = {
            let sink = sink.clone();
            move || sink.clone()
        };
        tracing::subscriber::with_default(subscriber(&settings, false, maker), emit);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_level_message_and_fields() {
        let text = written(LogFormat::Text, LogLevel::Info, || {
            tracing::info!(target: "server", store_id = 1, "store is up");
        });
        assert!(text.contains("INFO server: store is up store_id=1"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(LogFormat::Json, LogLevel::Info, || {
            tracing::warn!(target: "server", code = "TK1010", "low \"limit\"");
            tracing::info!(target: "server", "second");
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "low \"limit\"");
        assert_eq!(lines[0]["code"], "TK1010");
        assert!(lines[0]["timestamp"].is_string() && lines[0]["target"] == "server");
    }

    #[test]
    fn tikv_format_quotes_what_its_parsers_would_trip_over() {
        let text = written(LogFormat::Tikv, LogLevel::Info, || {
            tracing::error!(target: "server", region_id = 7, key = "a b", plain = "x", "disk [sda] failed");
        });
        let (time, rest) = text.split_once("] ").unwrap();
        assert_eq!(time.len(), "[2026/11/22 10:02:03.123 +00:00".len());
        assert!(rest.starts_with("[ERROR] [logging.rs:"), "{rest}");
        assert!(
            rest.ends_with("] [\"disk [sda] failed\"] [region_id=7] [key=\"a b\"] [plain=x]\n"),
            "{rest}"
        );
        assert_eq!(
            tikv_time(Duration::from_millis(1_545_862_811_015)),
            "2018/12/26 22:20:11.015 +00:00"
        );
    }

    #[test]
    fn levels_filter_ours_as_set_and_others_from_warn_on() {
        let emit = || {
            tracing::debug!(target: "storage::raw", "ours debug");
            tracing::info!(target: "h2", "theirs info");
            tracing::warn!(target: "h2", "theirs warn");
            tracing::error!(target: "server", "ours error");
        };
        let debug = written(LogFormat::Text, LogLevel::Debug, emit);
        assert!(
            debug.contains("ours debug")
                && debug.contains("theirs warn")
                && !debug.contains("theirs info")
        );
        let error = written(LogFormat::Text, LogLevel::Error, emit);
        assert!(
            error.contains("ours error")
                && !error.contains("theirs warn")
                && !error.contains("ours debug")
        );
        assert_eq!(written(LogFormat::Text, LogLevel::Off, emit), "");
    }

    #[test]
    fn a_log_file_is_created_with_its_folder_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/tinykv.log");
        for _ in 0..2 {
            let (mut output, guard) = queue(open(&path).unwrap());
            output.write_all(b"line\n").unwrap();
            drop(guard);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n");
        assert!(matches!(open(&folder.path().to_owned()), Err(LogError::Open { .. })));
    }
}
