//! The course's two programs: its flags and exit codes in front of the same process.
//!
//! They differ from the originals where those surprise: they listen where they are told and not on every interface,
//! create their folders, keep data in `./tinykv-data` and not in a temporary folder, stop gracefully, and report
//! every mistake in the configuration at once. Exit codes: 0 after SIGTERM, 1 after other signals and failures, 2 for
//! the command line, 3 for the configuration.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, FromArgMatches, Parser};
use server::{
    Roles,
    config::{self, Base, Flag, Machine, Sources},
};

use super::{
    CliError, Exit, Format, Global,
    config::{environment, read, warning_text},
    output::{Color, Style},
    process::{self, FlagNames, Launch, Stopped},
};
use crate::course_flags::{normalise, parse_bool};

/// The course's store.
#[derive(Debug, Parser)]
#[command(name = "tinykv-server", disable_version_flag = true, max_term_width = 100)]
#[command(
    after_help = "One dash or two, -x v or -x=v. LOG_LEVEL sets the log level, TINYKV_SECTION__KEY any setting."
)]
struct StoreFlags {
    /// Scheduler addresses, separated by commas [default: 127.0.0.1:2379].
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: Option<String>,
    /// Where the store listens, and what others dial [default: 127.0.0.1:20160].
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// Folder of the data [default: ./tinykv-data].
    #[arg(long, value_name = "DIR")]
    path: Option<String>,
    /// Log level: debug, info, warn, error, fatal [default: info].
    #[arg(long, value_name = "LEVEL")]
    loglevel: Option<String>,
    /// Where the store's HTTP server listens [default: a free port of 127.0.0.1].
    #[arg(long, value_name = "HOST:PORT")]
    status_addr: Option<String>,
    /// Configuration file (TOML), ours or TiKV's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the addresses as JSON into this file when everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print the version.
    #[arg(long = "V", visible_alias = "version")]
    version: bool,
}

/// The course's scheduler.
#[derive(Debug, Parser)]
#[command(name = "tinyscheduler-server", disable_version_flag = true, max_term_width = 100)]
#[command(
    after_help = "One dash or two, -x v or -x=v. LOG_LEVEL sets the log level, TINYKV_SECTION__KEY any setting."
)]
struct SchedulerFlags {
    /// Configuration file (TOML), ours, the course's or PD's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = parse_bool, action = clap::ArgAction::Set)]
    config_check: bool,
    /// Name of the member [default: pd-HOSTNAME].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Folder of the data [default: ./tinykv-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the scheduler listens [default: http://127.0.0.1:2379].
    #[arg(long, value_name = "URL")]
    client_urls: Option<String>,
    /// What clients and stores dial [default: as --client-urls].
    #[arg(long, value_name = "URL")]
    advertise_client_urls: Option<String>,
    /// Where other members would reach this one; without effect.
    #[arg(long, value_name = "URL")]
    peer_urls: Option<String>,
    /// What other members would dial; without effect.
    #[arg(long, value_name = "URL")]
    advertise_peer_urls: Option<String>,
    /// The members; more than one is refused by this version.
    #[arg(long, value_name = "NAME=URL,...")]
    initial_cluster: Option<String>,
    /// Log level: debug, info, warn, error, fatal [default: info].
    #[arg(long = "L", value_name = "LEVEL")]
    level: Option<String>,
    /// Log file [default: standard error].
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
    /// TLS: certificate of the authority; refused by this version.
    #[arg(long, value_name = "FILE")]
    cacert: Option<String>,
    /// TLS: certificate; refused by this version.
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
    /// TLS: key; refused by this version.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// Begin a new cluster from old data; without effect.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, action = clap::ArgAction::Set)]
    force_new_cluster: Option<bool>,
    /// Write the addresses as JSON into this file when everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print the version.
    #[arg(long = "V", visible_alias = "version")]
    version: bool,
}

/// A program of the course.
#[derive(Debug)]
struct Program {
    name: &'static str,
    roles: Roles,
    names: FlagNames,
    config: Option<PathBuf>,
    config_check: bool,
    flags: Vec<Flag>,
    ready_file: Option<PathBuf>,
    version: bool,
}

/// Runs `tinykv-server` with the arguments of this process.
pub fn tinykv_server() -> ExitCode {
    main::<StoreFlags>()
}

/// Runs `tinyscheduler-server` with the arguments of this process.
pub fn tinyscheduler_server() -> ExitCode {
    main::<SchedulerFlags>()
}

fn main<F: CommandFactory + FromArgMatches + Into<Program>>() -> ExitCode {
    match parse::<F>(std::env::args_os()) {
        Ok(flags) => run(flags.into()),
        Err(error) => {
            // Help, or what is wrong with the flags. Nobody is left to hear that standard error is closed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
        }
    }
}

fn parse<F: CommandFactory + FromArgMatches>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<F, clap::Error> {
    let mut command = F::command();
    let args = normalise(&command, args);
    let matches = command.try_get_matches_from_mut(args)?;
    F::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

impl From<StoreFlags> for Program {
    fn from(flags: StoreFlags) -> Program {
        let settings = [
            ("-scheduler", "pd.endpoints", flags.scheduler),
            ("-addr", "server.addr", flags.addr.map(every_interface)),
            ("-path", "node.data-dir", flags.path),
            ("-loglevel", "log.level", flags.loglevel),
            ("-status-addr", "server.status-addr", flags.status_addr),
        ];
        Program {
            name: "tinykv-server",
            roles: Roles { scheduler: false, store: true },
            names: FlagNames {
                scheduler_addr: "-scheduler",
                store_addr: "-addr",
                status_addr: "-status-addr",
            },
            config: flags.config,
            config_check: false,
            flags: given(settings),
            ready_file: flags.ready_file,
            version: flags.version,
        }
    }
}

impl From<SchedulerFlags> for Program {
    fn from(flags: SchedulerFlags) -> Program {
        let settings = [
            ("-name", "name", flags.name),
            ("-data-dir", "data-dir", flags.data_dir),
            ("-client-urls", "client-urls", flags.client_urls),
            ("-advertise-client-urls", "advertise-client-urls", flags.advertise_client_urls),
            ("-peer-urls", "peer-urls", flags.peer_urls),
            ("-advertise-peer-urls", "advertise-peer-urls", flags.advertise_peer_urls),
            ("-initial-cluster", "initial-cluster", flags.initial_cluster),
            ("-L", "log.level", flags.level),
            ("-log-file", "log.file", flags.log_file),
            ("-cacert", "security.ca-path", flags.cacert),
            ("-cert", "security.cert-path", flags.cert),
            ("-key", "security.key-path", flags.key),
            (
                "-force-new-cluster",
                "force-new-cluster",
                flags.force_new_cluster.map(|force| force.to_string()),
            ),
        ];
        Program {
            name: "tinyscheduler-server",
            roles: Roles { scheduler: true, store: false },
            names: FlagNames {
                scheduler_addr: "-client-urls",
                store_addr: "-addr",
                status_addr: "-status-addr",
            },
            config: flags.config,
            config_check: flags.config_check,
            flags: given(settings),
            ready_file: flags.ready_file,
            version: flags.version,
        }
    }
}

/// The flags that were given. An empty value is the course's way to say "the default".
fn given<const N: usize>(settings: [(&str, &str, Option<String>); N]) -> Vec<Flag> {
    settings
        .into_iter()
        .filter_map(|(flag, setting, value)| {
            let value = value.filter(|value| !value.is_empty())?;
            Some(Flag::new(flag, setting, value))
        })
        .collect()
}

/// `:20160` is Go's way to write the port on every interface.
fn every_interface(addr: String) -> String {
    if addr.starts_with(':') { format!("0.0.0.0{addr}") } else { addr }
}

fn run(program: Program) -> ExitCode {
    match try_run(program) {
        Ok(code) => code,
        Err(error) => {
            // The course knows 1 for everything that fails; scripts may tell usage and configuration from it.
            let exit = match error.exit() {
                exit @ (Exit::Ok | Exit::Usage | Exit::Config | Exit::Refused) => exit,
                _ => Exit::Failed,
            };
            error.with_exit(exit).report(&plain())
        }
    }
}

fn try_run(program: Program) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    if program.version {
        writeln!(out, "{} {}", program.name, env!("CARGO_PKG_VERSION"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = config::load(Sources {
        machine: Machine::detect(),
        roles: program.roles,
        file: program.config.as_deref().map(read).transpose()?,
        environment: environment(),
        flags: program.flags,
        ..Sources::new(Base::Course)
    })?;
    if program.config_check {
        for warning in &loaded.warnings {
            out.write_all(warning_text(warning).as_bytes())?;
        }
        writeln!(out, "the configuration is valid")?;
        return Ok(ExitCode::SUCCESS);
    }
    drop(out);
    let launch = Launch {
        loaded,
        roles: program.roles,
        ready_file: program.ready_file,
        print_ready: false,
        watched: false,
        color: Color::Auto.stderr() == Style::Coloured,
        flags: program.names,
    };
    Ok(match process::run(&launch)? {
        Stopped::Terminated => ExitCode::SUCCESS,
        Stopped::Interrupted => Exit::Failed.into(),
    })
}

/// The global options that the course's programs don't have.
fn plain() -> Global {
    Global {
        named_endpoints: Vec::new(),
        output: Format::Table,
        timeout: Duration::ZERO,
        config_file: None,
        settings: Vec::new(),
        verbose: 0,
        quiet: false,
        color: Color::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program<F: CommandFactory + FromArgMatches + Into<Program>>(line: &str) -> Program {
        let args =
            std::iter::once("program").chain(line.split_ascii_whitespace()).map(OsString::from);
        parse::<F>(args).unwrap().into()
    }

    fn configured(program: Program) -> Result<config::Loaded, config::LoadError> {
        config::load(Sources {
            roles: program.roles,
            flags: program.flags,
            ..Sources::new(Base::Course)
        })
    }

    #[test]
    fn flags_of_the_store() {
        let line = "-scheduler http://10.0.0.1:2379,10.0.0.2:2379 --addr=127.0.0.1:20161 -path=d -loglevel warn";
        let config = configured(program::<StoreFlags>(line)).unwrap().config;
        assert_eq!(config.scheduler.endpoints, ["10.0.0.1:2379", "10.0.0.2:2379"]);
        assert_eq!(config.server.addr, "127.0.0.1:20161");
        assert_eq!(config.node.data_dir, PathBuf::from("d"));
        assert_eq!(config.log.level, config::LogLevel::Warn);

        let config = configured(program::<StoreFlags>("-addr= -path=")).unwrap().config;
        assert_eq!(
            (config.server.addr.as_str(), config.node.data_dir),
            ("127.0.0.1:20160", "./tinykv-data".into())
        );
        let everywhere = configured(program::<StoreFlags>("-addr :20160")).unwrap().config;
        assert_eq!(everywhere.server.addr, "0.0.0.0:20160");
    }

    #[test]
    fn flags_of_the_scheduler() {
        let line = "-name pd -data-dir d -client-urls http://127.0.0.1:1234 -advertise-client-urls http://h:1234 \
                    -peer-urls http://127.0.0.1:2380 -initial-cluster pd=http://127.0.0.1:2380 -L debug -log-file f \
                    -force-new-cluster=false -config-check -cacert=";
        let program = program::<SchedulerFlags>(line);
        assert!(program.config_check);
        let loaded = configured(program).unwrap();
        assert_eq!(loaded.config.node.name, "pd");
        assert_eq!(loaded.config.scheduler.addr, "127.0.0.1:1234");
        assert_eq!(loaded.config.scheduler.advertise_addr, "h:1234");
        assert_eq!(loaded.config.log.file, PathBuf::from("f"));
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for line in [
            "-cacert ca.pem",
            "-client-urls https://127.0.0.1:2379",
            "-initial-cluster a=http://h:1,b=http://h:2",
        ] {
            let error = CliError::from(configured(program::<SchedulerFlags>(line)).unwrap_err());
            assert_eq!(error.exit(), Exit::Refused, "{line}");
        }
    }

    #[test]
    fn words_and_unknown_flags_are_errors_of_usage() {
        let parsed = |line: &str| {
            let args = std::iter::once("program").chain(line.split(' ')).map(OsString::from);
            parse::<SchedulerFlags>(args)
        };
        for line in [
            "word",
            "-L info word",
            "-adr x",
            "-force-new-cluster false",
            "-config-check=maybe",
            "-name",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(parsed("-V").unwrap().version && parsed("--version").unwrap().version);
    }
}
