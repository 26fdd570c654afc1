//! `tinykv explain`, `completions` and `version`: what the program knows of itself.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use serde_json::json;
use types::{
    Code,
    catalogue::{CATALOGUE, Entry},
};

use super::{
    CliError, Format, Global,
    output::{Align, Style, table},
};

/// Arguments of `tinykv explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The code, such as TK4101; all of them are listed without it.
    code: Option<String>,
}

/// Arguments of `tinykv completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints cause and remedy of an error code, or lists all codes.
pub(super) fn explain(global: &Global, args: ExplainArgs) -> Result<(), CliError> {
    let text = match args.code {
        None => list(global.output),
        Some(text) => {
            let code = Code::parse(&text).ok_or_else(|| {
                CliError::usage(format!("\"{text}\" is no error code"))
                    .with_cause("Codes are TK and four digits.")
                    .with_remedy("`tinykv explain` lists all of them")
            })?;
            one(code.entry(), global.output, global.color.stdout())
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn as_json(entry: &Entry) -> serde_json::Value {
    json!({
        "code": entry.code,
        "title": entry.title,
        "cause": entry.cause,
        "try": entry.remedy,
        "retryable": entry.retryable,
        "alias": entry.alias,
    })
}

fn one(entry: &Entry, format: Format, style: Style) -> String {
    match format {
        Format::Json => format!("{}\n", as_json(entry)),
        Format::Plain => line(entry),
        Format::Table => {
            let mut text = format!("{}: {}\n", style.error(entry.code), entry.title);
            let mut row = |label: &str, value: &str| {
                text.push_str(&format!("  {}{value}\n", style.label(&format!("{label:<7}"))));
            };
            row("cause", entry.cause);
            row("try", entry.remedy);
            row(
                "again",
                if entry.retryable { "may succeed later by itself" } else { "will fail again" },
            );
            if !entry.alias.is_empty() {
                row("alias", entry.alias);
            }
            text
        }
    }
}

fn line(entry: &Entry) -> String {
    format!("{}\t{}\t{}\t{}\n", entry.code, entry.title, entry.cause, entry.remedy)
}

fn list(format: Format) -> String {
    match format {
        Format::Json => CATALOGUE.iter().map(|entry| format!("{}\n", as_json(entry))).collect(),
        Format::Plain => CATALOGUE.iter().map(line).collect(),
        Format::Table => {
            let rows =
                CATALOGUE.iter().map(|entry| vec![entry.code.to_owned(), entry.title.to_owned()]);
            table(&[("CODE", Align::Left), ("MEANING", Align::Left)], rows)
        }
    }
}

/// Prints completions of the command line `C` for a shell.
pub(super) fn completions<C: CommandFactory>(args: CompletionsArgs) -> Result<(), CliError> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics if the reader closes the pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}

/// Prints the version and what is compiled in.
pub(super) fn version(global: &Global) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let text = match global.output {
        Format::Json => format!(
            "{}\n",
            json!({ "format": 1, "version": version, "build": profile, "target": target, "features": features() })
        ),
        Format::Plain => format!("{version}\n"),
        Format::Table => {
            format!("tinykv {version} ({profile}, {target})\nfeatures  {}\n", features().join(", "))
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// The Cargo features of this binary that a user can notice.
fn features() -> Vec<&'static str> {
    [
        ("fjall", cfg!(feature = "fjall")),
        ("rocksdb", cfg!(feature = "rocksdb")),
        ("jemalloc", cfg!(feature = "jemalloc")),
    ]
    .into_iter()
    .filter_map(|(name, is_in)| is_in.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_is_explained_in_every_format() {
        let entry = Code::NotLeader.entry();
        insta::assert_snapshot!(one(entry, Format::Table, Style::Plain), @"
        TK5001: another peer leads the region
          cause  Leadership moved since the client learnt its route.
          try    clients follow the hint by themselves
          again  may succeed later by itself
          alias  KV:Raftstore:NotLeader
        ");
        let json: serde_json::Value =
            serde_json::from_str(&one(entry, Format::Json, Style::Plain)).unwrap();
        assert_eq!((&json["code"], &json["retryable"]), (&"TK5001".into(), &true.into()));
        assert_eq!(one(entry, Format::Plain, Style::Plain).split('\t').count(), 4);
    }

    #[test]
    fn the_list_has_every_code() {
        for format in [Format::Table, Format::Json, Format::Plain] {
            let text = list(format);
            assert!(CATALOGUE.iter().all(|entry| text.contains(entry.code)), "{format:?}");
        }
        assert!(
            list(Format::Json)
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
    }

    #[test]
    fn completions_know_the_subcommands() {
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut super::super::Cli::command(),
            "tinykv",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("completions") && script.contains("--ready-file"));
    }
}
