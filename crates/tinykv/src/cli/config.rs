//! `tinykv config show|check|sample`, and how every subcommand that needs a configuration gets it.
//!
//! This is the one place that reads the file and the environment; `server::config` merges and judges them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::json;
use server::{
    Roles,
    config::{self, Base, File, Flag, LoadError, Loaded, Machine, Problem, Sources},
};
use types::Code;

use super::{
    CliError, Exit, Format, Global,
    output::{Align, table},
};

/// Arguments of `tinykv config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting with its effective value: what `tinykv start` would run with here and now.
    Show {
        /// Also say where each value came from.
        #[arg(long)]
        origin: bool,
        /// What `tinykv dev` would run with instead.
        #[arg(long)]
        dev: bool,
    },
    /// Check a file without using it. Exit code 3 if something is wrong.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a file with every setting, its documentation and its default.
    Sample,
}

/// Runs `tinykv config`.
pub(super) fn run(global: &Global, args: ConfigArgs) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match args.command {
        ConfigCommand::Show { origin, dev } => {
            let base = if dev { Base::Dev } else { Base::Server };
            let loaded = load(global, base, Roles::ALL, Vec::new())?;
            out.write_all(show(&loaded, origin, global.output).as_bytes())?;
        }
        ConfigCommand::Check { file } => {
            let sources = Sources {
                machine: Machine::detect(),
                file: Some(read(&file)?),
                ..Sources::new(Base::Server)
            };
            let loaded = config::load(sources).map_err(CliError::from)?;
            out.write_all(checked(&file, &loaded, global.output).as_bytes())?;
        }
        ConfigCommand::Sample => out.write_all(config::sample().as_bytes())?,
    }
    Ok(())
}

/// The configuration of this process: defaults, `--config-file`, environment, `--config`, and `flags` of the
/// subcommand, in this order.
///
/// # Errors
/// The file cannot be read, or a source is wrong; all problems at once, exit code 3 (7 if nothing is wrong but that
/// this version cannot do it yet).
pub(super) fn load(
    global: &Global,
    base: Base,
    roles: Roles,
    mut flags: Vec<Flag>,
) -> Result<Loaded, CliError> {
    match (global.quiet, global.verbose) {
        (true, _) => flags.push(Flag::new("--quiet", "log.level", "error")),
        (false, 0) => {}
        (false, 1) => flags.push(Flag::new("-v", "log.level", "debug")),
        (false, _) => flags.push(Flag::new("-vv", "log.level", "trace")),
    }
    let file = global.config_file.as_deref().map(read).transpose()?;
    let sources = Sources {
        base,
        machine: Machine::detect(),
        roles,
        file,
        environment: environment(),
        settings: global.settings.clone(),
        flags,
    };
    Ok(config::load(sources)?)
}

/// The environment, without what is no text.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads a configuration file.
pub(super) fn read(path: &Path) -> Result<File, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(File { name: path.to_owned(), text }),
        Err(error) => {
            let message = format!("cannot read configuration file {}: {error}", path.display());
            Err(CliError::new(Code::InvalidSetting, message)
                .with_cause("The file was named with --config-file or TINYKV_CONFIG_FILE.")
                .with_remedy("check the path; `tinykv config sample` prints a file to begin with"))
        }
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> CliError {
        let only_early = error.problems.iter().all(|problem| problem.code == Code::NotAvailableYet);
        let report = |problem: &Problem| {
            CliError::new(problem.code, problem.to_string()).with_remedy(problem.remedy())
        };
        let reports = error.problems.iter().map(report).reduce(CliError::and);
        let all = reports.unwrap_or_else(|| CliError::new(error.code(), error.to_string()));
        all.with_exit(if only_early { Exit::Refused } else { Exit::Config })
    }
}

fn show(loaded: &Loaded, with_origin: bool, format: Format) -> String {
    match format {
        Format::Table => {
            let mut columns = vec![("", Align::Left), ("", Align::Left)];
            if with_origin {
                columns.push(("", Align::Left));
            }
            let rows = loaded.rows().map(|(name, value, origin)| {
                let value = if value.is_empty() { "\"\"".to_owned() } else { value };
                let mut row = vec![name.to_owned(), value];
                if with_origin {
                    row.push(origin.to_string());
                }
                row
            });
            table(&columns, rows)
        }
        Format::Plain => loaded
            .rows()
            .map(|(name, value, origin)| match with_origin {
                true => format!("{name}\t{value}\t{origin}\n"),
                false => format!("{name}\t{value}\n"),
            })
            .collect(),
        Format::Json => {
            let mut object = json!({ "format": 1, "config": loaded.config });
            if with_origin {
                let origins: BTreeMap<&str, String> =
                    loaded.rows().map(|(name, _, origin)| (name, origin.to_string())).collect();
                object["origin"] = json!(origins);
            }
            format!("{object}\n")
        }
    }
}

fn checked(file: &Path, loaded: &Loaded, format: Format) -> String {
    let set =
        loaded.origins.values().filter(|origin| matches!(origin, config::Origin::File(_))).count();
    match format {
        Format::Json => {
            let warnings: Vec<_> = loaded
                .warnings
                .iter()
                .map(|warning| {
                    json!({ "code": warning.code.to_string(), "message": warning.to_string(), "try": warning.remedy() })
                })
                .collect();
            format!(
                "{}\n",
                json!({ "format": 1, "ok": true, "settings": set, "warnings": warnings })
            )
        }
        Format::Table | Format::Plain => {
            let mut text: String = loaded.warnings.iter().map(warning_text).collect();
            let warnings = super::output::count(loaded.warnings.len(), "warning");
            let set = super::output::count(set, "setting");
            text.push_str(&format!("{}: valid, {set}, {warnings}\n", file.display()));
            text
        }
    }
}

/// A warning as people see it.
pub(super) fn warning_text(warning: &Problem) -> String {
    format!("warn[{}]: {warning}\n  try    {}\n", warning.code, warning.remedy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        let file = File { name: PathBuf::from("tinykv.toml"), text: text.to_owned() };
        config::load(Sources {
            file: Some(file),
            flags: vec![Flag::new("--addr", "server.addr", "127.0.0.1:7")],
            ..Sources::new(Base::Server)
        })
        .unwrap()
    }

    #[test]
    fn show_names_the_origin_of_every_value() {
        let loaded = loaded("[memory]\nlimit = \"1GB\"\n");
        let table = show(&loaded, true, Format::Table);
        let some: Vec<&str> = table
            .lines()
            .filter(|line| line.contains("addr") || line.starts_with("memory"))
            .collect();
        insta::assert_snapshot!(some.join("\n"), @r#"
        server.addr                                 127.0.0.1:7      flag --addr
        server.advertise-addr                       ""               default
        server.status-addr                          127.0.0.1:20180  default
        scheduler.addr                              127.0.0.1:2379   default
        scheduler.advertise-addr                    ""               default
        memory.limit                                1GiB             file tinykv.toml:2
        "#);
        let plain = show(&loaded, false, Format::Plain);
        assert!(
            plain.contains("memory.limit\t1GiB\n") && plain.contains("log.file\t\n"),
            "{plain}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&show(&loaded, true, Format::Json)).unwrap();
        assert_eq!(json["config"]["memory"]["limit"], "1GiB");
        assert_eq!(json["origin"]["server.addr"], "flag --addr");
        assert_eq!(json["origin"]["storage.api"], "default");
    }

    #[test]
    fn check_counts_settings_and_shows_warnings() {
        let loaded = loaded("[memory]\nlimit = \"1GB\"\n[rocksdb]\nmax-open-files = 1\n");
        insta::assert_snapshot!(checked(Path::new("tinykv.toml"), &loaded, Format::Table), @"
        warn[TK1024]: tinykv.toml:4:1 rocksdb.max-open-files has no effect here
          try    they are TiKV's or PD's; `tinykv config sample` prints ours
        tinykv.toml: valid, 1 setting, 1 warning
        ");
        let json: serde_json::Value =
            serde_json::from_str(&checked(Path::new("f"), &loaded, Format::Json)).unwrap();
        assert_eq!((&json["ok"], &json["settings"]), (&true.into(), &1.into()));
        assert_eq!(json["warnings"][0]["code"], "TK1024");
    }

    #[test]
    fn all_problems_of_a_configuration_are_one_error_with_exit_code_3() {
        let exit = |settings: &[&str]| {
            let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
            let error = config::load(Sources { settings, ..Sources::new(Base::Dev) }).unwrap_err();
            CliError::from(error)
        };
        let error = exit(&["security.ca-path=x", "server.adr=y"]);
        assert_eq!((error.exit(), error.code()), (Exit::Config, Some(Code::NotAvailableYet)));
        insta::assert_snapshot!(error.to_text(super::super::output::Style::Plain), @"
        error[TK1023]: --config security.ca-path=x: security.ca-path asks for TLS, which this version does not have: connections would be plain text
          cause  The option is part of the interface, the feature behind it is not built yet.
          try    leave it out; the changelog says which version brings it
        error[TK1021]: --config server.adr=y: unknown setting server.adr
          cause  The name is not one of this version's settings.
          try    server.addr
        ");
        assert_eq!(exit(&["security.ca-path=x"]).exit(), Exit::Refused);
    }

    #[test]
    fn a_file_that_is_not_there_is_a_configuration_error() {
        assert_eq!(read(Path::new("/nowhere/tinykv.toml")).unwrap_err().exit(), Exit::Config);
    }
}
