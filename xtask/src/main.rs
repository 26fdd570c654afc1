//! The project's chores. `cargo xtask ci` is everything that a change must pass; `cargo xtask tidy` are the facts
//! about the repository that no compiler checks; `cargo xtask clients` runs other people's clients.
//!
//! This crate knows nothing of the others: it runs them as a user would, through cargo and their binaries.
#![forbid(unsafe_code)]

mod ci;
mod clients;
mod product;
mod run;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that a change must pass, in named steps.
    Ci(ci::CiArgs),
    /// Facts about the repository: the crate graph, purity of cores, formats that are written down, and the like.
    Tidy,
    /// TiKV clients by other people, from the package registries, against the release build.
    Clients,
}

fn main() -> ExitCode {
    let root = root();
    let result = match Cli::parse().command {
        Command::Ci(args) => ci::run(&root, &args),
        Command::Tidy => tidy::run(&root).map(|executed| println!("{executed}")),
        Command::Clients => clients::run(&root).map(|executed| println!("{executed}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace, as Cargo says when it starts this: a build that several checkouts share was made in
/// another one, perhaps.
fn root() -> PathBuf {
    let built_in = || env!("CARGO_MANIFEST_DIR").into();
    let mut root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built_in));
    root.pop();
    root
}
