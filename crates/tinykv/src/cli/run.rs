//! `tinykv dev` and `tinykv start`: flags in, a running process out. What the process does is in `process.rs`.
//!
//! Ctrl-C is how one stops `tinykv dev`: after a clean stop the exit code is 0, whichever signal it was.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, value_parser};
use server::{
    Roles,
    config::{Base, Flag},
};
use types::Code;

use super::{
    CliError, Format, Global, config,
    output::Style,
    process::{self, FlagNames, Launch},
};

/// Arguments of `tinykv dev`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    tinykv dev                              data in ./tinykv-data\n  \
    tinykv dev --memory                     keeps nothing\n  \
    tinykv dev --stores 3                   three replicas of everything\n  \
    tinykv dev --config storage.api=v2      raw and transactional data side by side\n  \
    tinykv dev --scheduler-addr 127.0.0.1:0 --store-addr 127.0.0.1:0 --status-addr 127.0.0.1:0 --ready-file ready.json")]
pub(super) struct DevArgs {
    /// How many stores.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    stores: u16,
    /// How many scheduler members.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    schedulers: u16,
    /// Folder of the data [default: ./tinykv-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep nothing.
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Where the scheduler listens; clients connect here. Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    scheduler_addr: Option<String>,
    /// Where the store listens; others take the ports after it.
    #[arg(long, value_name = "HOST:PORT")]
    store_addr: Option<String>,
    /// Where the store's HTTP server listens.
    #[arg(long, value_name = "HOST:PORT")]
    status_addr: Option<String>,
    /// Write the addresses as JSON into this file when everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Arguments of `tinykv start`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    tinykv start --roles scheduler --data /var/lib/tinykv\n  \
    tinykv start --roles store --data /var/lib/tinykv -e 10.0.0.1:2379 --addr 10.0.0.2:20160")]
pub(super) struct StartArgs {
    /// What the node is.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "scheduler,store")]
    roles: Vec<Role>,
    /// Folder of the data [default: ./tinykv-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep nothing.
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Where the store listens.
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// What clients and other nodes dial to reach the store.
    #[arg(long, value_name = "HOST:PORT")]
    advertise_addr: Option<String>,
    /// Where the store's HTTP server listens.
    #[arg(long, value_name = "HOST:PORT")]
    status_addr: Option<String>,
    /// Where the scheduler listens.
    #[arg(long, value_name = "HOST:PORT")]
    scheduler_addr: Option<String>,
    /// What clients and stores dial to reach the scheduler.
    #[arg(long, value_name = "HOST:PORT")]
    advertise_scheduler_addr: Option<String>,
    /// Write the addresses as JSON into this file when everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// A part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Places regions, hands out timestamps and ids.
    Scheduler,
    /// Keeps data.
    Store,
}

/// Starts a whole cluster in this process, and returns when it has stopped.
pub(super) fn dev(global: &Global, args: DevArgs) -> Result<(), CliError> {
    if args.schedulers > 1 {
        let message = format!("--schedulers {}: this version runs one scheduler", args.schedulers);
        return Err(
            CliError::new(Code::NotAvailableYet, message).with_remedy("leave --schedulers out")
        );
    }
    let launch = Launch {
        loaded: config::load(global, Base::Dev, Roles::ALL, dev_flags(&args))?,
        roles: Roles::ALL,
        ready_file: args.ready_file,
        print_ready: global.output == Format::Json,
        watched: !global.quiet,
        color: global.color.stderr() == Style::Coloured,
        flags: FlagNames {
            scheduler_addr: "--scheduler-addr",
            store_addr: "--store-addr",
            status_addr: "--status-addr",
        },
    };
    process::run(&launch).map(|_| ())
}

/// Starts one node, and returns when it has stopped.
pub(super) fn start(global: &Global, args: StartArgs) -> Result<(), CliError> {
    let roles = Roles {
        scheduler: args.roles.contains(&Role::Scheduler),
        store: args.roles.contains(&Role::Store),
    };
    let launch = Launch {
        loaded: config::load(global, Base::Server, roles, start_flags(global, &args))?,
        roles,
        ready_file: args.ready_file,
        print_ready: global.output == Format::Json,
        watched: false,
        color: global.color.stderr() == Style::Coloured,
        flags: FlagNames {
            scheduler_addr: "--scheduler-addr",
            store_addr: "--addr",
            status_addr: "--status-addr",
        },
    };
    process::run(&launch).map(|_| ())
}

fn dev_flags(args: &DevArgs) -> Vec<Flag> {
    let mut flags = storage_flags(args.data.as_deref(), args.memory);
    if args.stores != 1 {
        flags.push(Flag::new("--stores", "node.stores", args.stores.to_string()));
    }
    push(&mut flags, "--scheduler-addr", "scheduler.addr", args.scheduler_addr.as_ref());
    push(&mut flags, "--store-addr", "server.addr", args.store_addr.as_ref());
    push(&mut flags, "--status-addr", "server.status-addr", args.status_addr.as_ref());
    flags
}

fn start_flags(global: &Global, args: &StartArgs) -> Vec<Flag> {
    let mut flags = storage_flags(args.data.as_deref(), args.memory);
    push(&mut flags, "--addr", "server.addr", args.addr.as_ref());
    push(&mut flags, "--advertise-addr", "server.advertise-addr", args.advertise_addr.as_ref());
    push(&mut flags, "--status-addr", "server.status-addr", args.status_addr.as_ref());
    push(&mut flags, "--scheduler-addr", "scheduler.addr", args.scheduler_addr.as_ref());
    let advertise_scheduler = args.advertise_scheduler_addr.as_ref();
    push(&mut flags, "--advertise-scheduler-addr", "scheduler.advertise-addr", advertise_scheduler);
    if !global.named_endpoints.is_empty() {
        let endpoints = global.named_endpoints.join(",");
        flags.push(Flag::new("--endpoints", "scheduler.endpoints", endpoints));
    }
    flags
}

fn storage_flags(data: Option<&Path>, memory: bool) -> Vec<Flag> {
    let mut flags = Vec::new();
    if let Some(data) = data {
        flags.push(Flag::new("--data", "node.data-dir", data.display().to_string()));
    }
    if memory {
        flags.push(Flag::new("--memory", "storage.engine", "memory"));
    }
    flags
}

fn push(flags: &mut Vec<Flag>, flag: &str, setting: &str, value: Option<&String>) {
    flags.extend(value.map(|value| Flag::new(flag, setting, value)));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Cli, Command, Exit},
        *,
    };

    fn parse(line: &str) -> (Global, Command) {
        let cli = Cli::try_parse_from(line.split_ascii_whitespace()).unwrap();
        (cli.global, cli.command)
    }

    #[test]
    fn more_than_one_scheduler_is_refused() {
        let (global, Command::Dev(args)) = parse("tinykv dev --schedulers 3") else {
            panic!("not dev")
        };
        let error = dev(&global, args).unwrap_err();
        assert_eq!((error.code(), error.exit()), (Some(Code::NotAvailableYet), Exit::Refused));
        for line in
            ["tinykv dev --stores 0", "tinykv dev --memory --data x", "tinykv start --roles cook"]
        {
            assert!(Cli::try_parse_from(line.split_ascii_whitespace()).is_err(), "{line}");
        }
    }

    #[test]
    fn dev_flags_become_settings() {
        let line = "tinykv dev --memory --scheduler-addr 127.0.0.1:0 --store-addr 127.0.0.1:0 --status-addr 127.0.0.1:0";
        let (global, Command::Dev(args)) = parse(line) else { panic!("not dev") };
        let loaded = config::load(&global, Base::Dev, Roles::ALL, dev_flags(&args)).unwrap();
        assert!(loaded.config.keeps_nothing());
        for setting in ["scheduler.addr", "server.addr", "server.status-addr"] {
            assert!(loaded.origin(setting).to_string().starts_with("flag --"), "{setting}");
        }
    }

    #[test]
    fn start_flags_become_settings() {
        let line = "tinykv start --roles store --data d --addr h:1 --advertise-addr h:2 -e 10.0.0.1:2379,10.0.0.2:2379 -v";
        let (global, Command::Start(args)) = parse(line) else { panic!("not start") };
        assert_eq!(args.roles, [Role::Store]);
        let config = config::load(&global, Base::Server, Roles::ALL, start_flags(&global, &args))
            .unwrap()
            .config;
        assert_eq!(config.node.data_dir, PathBuf::from("d"));
        assert_eq!(
            (config.server.addr.as_str(), config.server.advertise_addr.as_str()),
            ("h:1", "h:2")
        );
        assert_eq!(config.scheduler.endpoints, ["10.0.0.1:2379", "10.0.0.2:2379"]);
        assert_eq!(config.log.level, server::config::LogLevel::Debug);

        let (global, Command::Start(args)) = parse("tinykv start") else { panic!("not start") };
        assert_eq!(args.roles, [Role::Scheduler, Role::Store]);
        assert!(start_flags(&global, &args).is_empty(), "what nobody named hides no file");
        let line = "tinykv start -e 127.0.0.1:2379";
        let (global, Command::Start(args)) = parse(line) else { panic!("not start") };
        assert_eq!(
            start_flags(&global, &args).len(),
            1,
            "the usual endpoint hides a file's, if named"
        );
    }
}
