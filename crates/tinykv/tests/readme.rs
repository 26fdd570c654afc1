//! The README tells the truth: its transcripts are executed, in order, against one cluster, and what they print is
//! compared line by line.
//!
//! A transcript is a fenced block marked `console`. Its lines that begin with `$ ` are commands, what follows up to
//! the next command is what a person sees. Commands run in a shell, with `tinykv` in the path and the cluster's address
//! in the environment, so that they are exactly what a reader types. Commands that begin with `cargo` are left out:
//! they are how a reader gets there.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use chaos::process::Launch;

/// A command and what it must print.
#[derive(Debug, PartialEq, Eq)]
struct Exchange {
    line: usize,
    command: String,
    output: String,
}

/// The transcripts of a Markdown text.
fn transcripts(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            exchanges.push(Exchange {
                line: index + 1,
                command: command.into(),
                output: String::new(),
            });
        } else if let (true, Some(exchange)) = (inside, exchanges.last_mut()) {
            exchange.output += line;
            exchange.output += "\n";
        }
    }
    exchanges.retain(|exchange| !exchange.command.starts_with("cargo "));
    exchanges
}

/// Cargo runs tests in the folder of their package.
const README: &str = "../../README.md";

#[test]
fn transcripts_are_found() {
    let text =
        "a\n```console\n$ cargo run\n$ one two\nthree\nfour\n$ five\n```\n```sh\n$ six\n```\n";
    let exchange = |line, command: &str, output: &str| Exchange {
        line,
        command: command.into(),
        output: output.into(),
    };
    assert_eq!(
        transcripts(text),
        [exchange(4, "one two", "three\nfour\n"), exchange(7, "five", "")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transcript_of_the_readme_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tinykv"));
    let launch = Launch {
        binary: binary.clone(),
        data: dir.path().join("data"),
        scratch: dir.path().to_owned(),
        engine: None,
        settings: Vec::new(),
    };
    let mut process = launch.spawn().unwrap();
    let (ready, _) = process.ready(Duration::from_secs(30)).await.unwrap();

    let exchanges = transcripts(&fs::read_to_string(README).unwrap());
    assert!(3 < exchanges.len(), "the README has a transcript");
    let folder = binary.parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    for exchange in exchanges {
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {}; }} 2>&1", exchange.command)])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("TINYKV_ENDPOINTS", &ready.scheduler)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, exchange.output, "README.md:{}: $ {}", exchange.line, exchange.command);
    }
}
