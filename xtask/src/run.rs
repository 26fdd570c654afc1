//! Running commands: what they print is passed on and kept, they end in bounded time, and they are counted.

use std::{
    fmt,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

/// What a step has executed. A step that executed nothing has proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executed {
    /// How many.
    pub count: u64,
    /// Of what.
    pub what: String,
    /// Why there was less than usual to execute on this machine.
    pub skipped: Option<String>,
}

impl Executed {
    /// `count` pieces of `what`.
    pub(crate) fn new(count: u64, what: impl Into<String>) -> Executed {
        Executed { count, what: what.into(), skipped: None }
    }
}

impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.what)?;
        match &self.skipped {
            Some(why) => write!(f, " (SKIPPED: {why})"),
            None => Ok(()),
        }
    }
}

/// The time since some fixed moment.
pub(crate) fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "chores have no simulated time")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// A command that is ended, with all its children, when it takes longer than `limit`.
pub(crate) fn limited(limit: Duration, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=10").arg(limit.as_secs().to_string()).arg(program.as_ref());
    command.stdin(Stdio::null());
    command
}

/// `cargo`, in the folder `root`.
pub(crate) fn cargo(root: &Path, limit: Duration) -> Command {
    let mut command = limited(limit, std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // What cargo tells this process about itself is not meant for its children.
    for variable in
        ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"]
    {
        command.env_remove(variable);
    }
    command
}

/// Runs the command. Passes on what it prints, and returns what it wrote to its standard output.
pub(crate) fn stream(command: &mut Command) -> anyhow::Result<String> {
    let name = describe(command);
    println!("$ {name}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run: {name}"))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut text = String::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{name}: {}", verdict(status));
    }
    Ok(text)
}

/// Runs the command quietly and returns what it wrote to its standard output.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let name = describe(command);
    let output = command.output().with_context(|| format!("cannot run: {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", verdict(output.status), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn verdict(status: std::process::ExitStatus) -> String {
    match status.code() {
        Some(124 | 137) => format!("took too long ({status})"),
        _ => status.to_string(),
    }
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    // The first two belong to `timeout`.
    let program = command.get_program().to_string_lossy();
    if program == "timeout" {
        words[2..].join(" ")
    } else {
        format!("{program} {}", words.join(" "))
    }
}

/// How many tests a `cargo test` has run, by what it printed.
///
/// # Errors
/// One of them failed.
pub(crate) fn tests_passed(output: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for line in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
        let (verdict, counts) =
            line.split_once(". ").with_context(|| format!("no verdict in \"{line}\""))?;
        if verdict != "ok" {
            bail!("test result: {line}");
        }
        let passed =
            counts.split_once(" passed").with_context(|| format!("no count in \"{line}\""))?.0;
        sum += passed.parse::<u64>()?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_over_all_binaries() {
        let output = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n\
                      test result: ok. 40 passed; 0 failed; 1 ignored\n";
        assert_eq!(tests_passed(output).unwrap(), 42);
        assert_eq!(tests_passed("").unwrap(), 0);
        assert!(tests_passed("test result: FAILED. 1 passed; 1 failed; 0 ignored\n").is_err());
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let error =
            capture(limited(Duration::from_secs(1), "sleep").arg("60")).unwrap_err().to_string();
        assert!(error.contains("sleep 60: took too long"), "{error}");
        assert_eq!(capture(limited(Duration::from_secs(10), "echo").arg("a")).unwrap(), "a\n");
    }
}
