//! The product's release builds: one as users get it, one with RocksDB, side by side.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    run::{cargo, now, stream},
    tidy::dependencies,
};

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// With the default features.
    Default,
    /// With RocksDB as well.
    RocksDb,
}

impl Build {
    /// The name of its folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Build::Default => "default",
            Build::RocksDb => "rocksdb",
        }
    }
}

/// Cargo's target folder.
pub(crate) fn target_dir(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(dependencies::metadata(root)?.target_directory)
}

fn folder(root: &Path, build: Build) -> anyhow::Result<PathBuf> {
    Ok(target_dir(root)?.join("xtask").join(build.name()))
}

/// How long a build may take: a first build of RocksDB needs a quarter of an hour on two cores.
pub(crate) const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Builds `tinykv`, if it is not fresh, and puts a copy aside, since the next build takes its place. Returns where.
pub(crate) fn build(root: &Path, build: Build) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root, BUILD_LIMIT);
    command.args(["build", "--release", "-p", "tinykv"]);
    if build == Build::RocksDb {
        command.args(["--features", "rocksdb"]);
    }
    stream(&mut command)?;
    let folder = folder(root, build)?;
    fs::create_dir_all(&folder)?;
    let (from, to) = (target_dir(root)?.join("release/tinykv"), folder.join("tinykv"));
    // Another name first: an executable that runs cannot be overwritten, but replaced.
    let temporary = folder.join("tinykv.new");
    fs::copy(&from, &temporary).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&temporary, &to)?;
    Ok(to)
}

/// A cluster for a client to talk to. Dead and its data gone when dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    child: Child,
    folder: PathBuf,
    /// The scheduler's address: what clients dial.
    pub scheduler: String,
}

#[derive(Debug, Deserialize)]
struct Ready {
    scheduler: String,
}

/// How long a start may take.
const READY_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Starts one on free ports, with its data in `folder`, which is emptied first.
    pub(crate) fn start(
        binary: &Path,
        folder: &Path,
        settings: &[&str],
    ) -> anyhow::Result<Cluster> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let ready_file = folder.join("ready.json");
        let log = folder.join("tinykv.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(binary);
        command
            .arg("dev")
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready_file);
        command.args(["--scheduler-addr", "127.0.0.1:0"]);
        for setting in
            ["server.addr=127.0.0.1:0", "server.status-addr=127.0.0.1:0"].iter().chain(settings)
        {
            command.args(["--config", setting]);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
        let mut cluster = Cluster { child, folder: folder.into(), scheduler: String::new() };
        let begin = now();
        loop {
            if let Ok(text) = fs::read(&ready_file)
                && let Ok(ready) = serde_json::from_slice::<Ready>(&text)
            {
                cluster.scheduler = ready.scheduler;
                return Ok(cluster);
            }
            if let Some(status) = cluster.child.try_wait()? {
                bail!(
                    "tinykv dev ended: {status}\n{}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            if now() - begin > READY_WITHIN {
                bail!("tinykv dev is not ready after {READY_WITHIN:?}");
            }
            #[expect(clippy::disallowed_methods, reason = "a file gives no event to wait for")]
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("tinykv.log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Both fail if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
