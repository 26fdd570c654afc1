//! The product as a process: start it, wait until it is ready, and do to it what the world does.
//!
//! Every start takes free ports, which the process writes into its ready file. Its output goes to a log file that
//! lives outside of the data directory and over all starts, so that a failure comes with what the process said.
//!
//! Invariant: a dropped [`Process`] is dead and reaped.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

/// How the product is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its executable.
    pub binary: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Where the ready file and the log lie. Must not be in the data directory.
    pub scratch: PathBuf,
    /// `storage.engine`; the product's default if `None`.
    pub engine: Option<String>,
    /// More settings, as `KEY=VALUE`.
    pub settings: Vec<String>,
}

/// What the ready file says.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// 1.
    pub format: u32,
    /// Address of the first scheduler.
    pub scheduler: String,
    /// Addresses of the stores.
    pub stores: Vec<String>,
    /// Addresses of the status servers.
    pub status: Vec<String>,
}

/// The product, running.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ready_file: PathBuf,
    log: PathBuf,
    started: Instant,
}

/// How often a file or an exit status is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(1);

/// How much of the log an error shows.
const LOG_TAIL_BYTES: usize = 4096;

impl Launch {
    /// Where the process's output goes.
    pub fn log(&self) -> PathBuf {
        self.scratch.join("tinykv.log")
    }

    /// Starts the process. It is not ready yet.
    ///
    /// # Errors
    /// The executable or the scratch folder cannot be used.
    pub fn spawn(&self) -> anyhow::Result<Process> {
        fs::create_dir_all(&self.scratch)
            .with_context(|| format!("cannot create {}", self.scratch.display()))?;
        let ready_file = self.scratch.join("ready.json");
        let mut command = Command::new(&self.binary);
        command.arg("dev").arg("--data").arg(&self.data).arg("--ready-file").arg(&ready_file);
        command.args(["--scheduler-addr", "127.0.0.1:0"]);
        command.args([
            "--config",
            "server.addr=127.0.0.1:0",
            "--config",
            "server.status-addr=127.0.0.1:0",
        ]);
        if let Some(engine) = &self.engine {
            command.arg("--config").arg(format!("storage.engine={engine}"));
        }
        for setting in &self.settings {
            command.arg("--config").arg(setting);
        }
        Process::spawn(command, ready_file, self.log())
    }
}

impl Process {
    /// Starts `command`, which will write `ready_file`; what it says is added to `log`.
    ///
    /// # Errors
    /// The executable, the log or the ready file of an earlier start can't be used.
    pub fn spawn(
        mut command: Command,
        ready_file: PathBuf,
        log: PathBuf,
    ) -> anyhow::Result<Process> {
        match fs::remove_file(&ready_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let output: File = OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let program = command.get_program().to_owned();
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { child, ready_file, log, started: Instant::now() })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process serves. Returns what it says about itself, and the time since its start.
    ///
    /// # Errors
    /// It ended, or was not ready in time; with the end of its log.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<(Ready, Duration)> {
        loop {
            // The product renames the file into place, so what is there is whole; an empty or partial file would
            // be a bug worth failing for, but not before it had the time to become whole.
            if let Ok(text) = fs::read(&self.ready_file)
                && let Ok(ready) = serde_json::from_slice::<Ready>(&text)
            {
                return Ok((ready, self.started.elapsed()));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended before it was ready: {status}\n{}", self.log_tail());
            }
            if self.started.elapsed() > within {
                bail!("the process was not ready within {within:?}\n{}", self.log_tail());
            }
            sleep(POLL).await;
        }
    }

    /// SIGKILL, without waiting for the end.
    ///
    /// # Errors
    /// The process can't be signalled.
    pub fn strike(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGKILL, and waits for the end: afterwards it can do nothing more.
    ///
    /// # Errors
    /// The process cannot be signalled or waited for.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: every thread stands still until [`Process::resume`].
    ///
    /// # Errors
    /// The process is gone.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Waits until every thread stands still after [`Process::pause`]: a system call that was under way is over.
    ///
    /// # Errors
    /// The process is gone, or does not come to rest within `limit`.
    pub async fn stands_still(&self, limit: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !self.is_stopped()? {
            if limit < begin.elapsed() {
                bail!("the process does not stand still within {limit:?}");
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn is_stopped(&self) -> anyhow::Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has just ended does nothing more.
            let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
            // The name is in parentheses and may hold anything.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if state != Some('T') {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM: the graceful way.
    ///
    /// # Errors
    /// The process is gone.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for the process to end by itself; `None` if it still runs after `within`.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if begin.elapsed() > within {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }

    /// The end of what the process has said.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if the process was reaped already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log file, for a message.
pub fn log_tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
    format!("end of {}:\n{}", log.display(), String::from_utf8_lossy(tail))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for the product: a shell script that gets the same arguments.
    fn launch(dir: &Path, script: &str) -> Launch {
        let binary = dir.join("product");
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        Launch {
            binary,
            data: dir.join("data"),
            scratch: dir.join("scratch"),
            engine: Some("fjall".into()),
            settings: vec!["a.b=c".into()],
        }
    }

    /// Starts it. A script that was just written may still be open for writing in a child that another test is
    /// about to start.
    fn spawn(launch: &Launch) -> Process {
        loop {
            match launch.spawn() {
                Ok(process) => return process,
                Err(error) => {
                    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                    assert_eq!(kind, Some(std::io::ErrorKind::ExecutableFileBusy), "{error:#}");
                }
            }
        }
    }

    const SERVE: &str = r#"
echo "$@"
printf '{"format":1,"scheduler":"127.0.0.1:1","schedulers":["127.0.0.1:1"],"stores":[],"status":[]}' > "$5.tmp"
mv "$5.tmp" "$5"
exec sleep 60"#;

    #[tokio::test]
    async fn a_process_is_ready_when_its_file_is_there_and_dies_when_killed() {
        let dir = tempfile::tempdir().unwrap();
        let launch = launch(dir.path(), SERVE);
        let mut process = spawn(&launch);
        let (ready, _) = process.ready(Duration::from_secs(10)).await.unwrap();
        assert_eq!((ready.format, ready.scheduler.as_str()), (1, "127.0.0.1:1"));
        process.pause().unwrap();
        process.stands_still(Duration::from_secs(10)).await.unwrap();
        process.resume().unwrap();
        assert_eq!(process.ended(Duration::ZERO).await.unwrap(), None);
        let log = process.log_tail();
        assert!(log.contains("--scheduler-addr 127.0.0.1:0"), "{log}");
        assert!(log.contains("--config storage.engine=fjall --config a.b=c"), "{log}");
        process.terminate().unwrap();
        assert!(process.ended(Duration::from_secs(10)).await.unwrap().is_some());
        spawn(&launch).kill().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ends_early_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = spawn(&launch(dir.path(), "echo no luck today >&2; exit 3"));
        let error = process.ready(Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no luck today"), "{error}");
    }
}
