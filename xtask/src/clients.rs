//! TiKV clients by other people, taken from the package registries at test time; nothing of theirs is committed.
//!
//! - surrealdb-tikv-client (Cargo): its published crate contains its integration tests; all of them run here. They need
//!   API v2 with time to live, the keyspace DEFAULT and the scheduler's HTTP interface.
//! - tikv-client (Python, bindings of the Rust client) and tikv-python (Python, on grpcio): scripts of our own in
//!   `tests/clients`.
//!
//! Everything is built under the user's cache folder, so that the next run has it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    product::{self, BUILD_LIMIT, Build, Cluster},
    run::{Executed, capture, cargo, limited, stream, tests_passed},
};

const SURREALDB: (&str, &str) = ("surrealdb-tikv-client", "0.5.0");

/// How many tests it has.
const SURREALDB_TESTS: u64 = 27;

/// Script, package with version, settings of the cluster it talks to.
const SCRIPTS: [(&str, &str, &[&str]); 4] = [
    ("tikv_client_raw.py", "tikv-client==0.0.4", &[]),
    ("tikv_client_txn.py", "tikv-client==0.0.4", &[]),
    ("tikv_python_raw.py", "tikv-python==0.1.1", &[]),
    ("tikv_python_ttl.py", "tikv-python==0.1.1", &["storage.api=v1ttl"]),
];

const RUN_LIMIT: Duration = Duration::from_secs(8 * 60);

/// Runs all of them against the default release build.
pub(crate) fn run(root: &Path) -> anyhow::Result<Executed> {
    let binary = product::build(root, Build::Default)?;
    let cache = cache()?;
    let surrealdb = surrealdb(&binary, &cache)?;
    let python = python(root, &binary, &cache)?;
    Ok(Executed::new(
        surrealdb + python,
        format!("tests: {surrealdb} of {}, {python} checks in Python", SURREALDB.0),
    ))
}

/// Where clients are built: beside the other caches of this user.
fn cache() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let cache = base.join("tinykv/clients");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

fn surrealdb(binary: &Path, cache: &Path) -> anyhow::Result<u64> {
    let source = crate_source(cache, SURREALDB.0, SURREALDB.1)?;
    let test = |limit| {
        let mut command = cargo(&source, limit);
        command.args([
            "test",
            "--locked",
            "--features",
            "integration-tests",
            "--test",
            "integration_tests",
        ]);
        // Debug information of a few hundred foreign crates helps nobody.
        command.env("CARGO_TARGET_DIR", cache.join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    };
    stream(test(BUILD_LIMIT).arg("--no-run"))?;

    let cluster = Cluster::start(binary, &cache.join("data"), &["storage.api=v2"])?;
    let mut command = test(RUN_LIMIT);
    command.env("PD_ADDRS", &cluster.scheduler);
    // Every test wipes the cluster, so they run one after the other.
    command.args(["--", "--test-threads=1"]);
    let output =
        stream(&mut command).inspect_err(|_| println!("log of the cluster:\n{}", cluster.log()))?;
    let passed = tests_passed(&output)?;
    ensure!(passed == SURREALDB_TESTS, "{passed} of {SURREALDB_TESTS} tests ran");
    Ok(passed)
}

/// A folder with the source of a published crate, tests included. Cargo fetches it; what lies in cargo's own folder
/// must not be built in place.
fn crate_source(cache: &Path, name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let source = cache.join(format!("{name}-{version}"));
    let complete = source.join(".complete");
    if complete.exists() {
        return Ok(source);
    }
    let fetch = cache.join("fetch");
    fs::create_dir_all(fetch.join("src"))?;
    fs::write(fetch.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{name} = \"={version}\"\n\n[workspace]\n"
    );
    fs::write(fetch.join("Cargo.toml"), manifest)?;
    let metadata = capture(cargo(&fetch, BUILD_LIMIT).args(["metadata", "--format-version", "1"]))?;
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let package = metadata
        .packages
        .into_iter()
        .find(|package| package.name == name)
        .context("cargo knows the crate")?;
    let original = package.manifest_path.parent().context("a manifest lies in a folder")?;
    let _ = fs::remove_dir_all(&source);
    copy_dir(original, &source)?;
    // This project's toolchain builds it: no other may be there.
    let _ = fs::remove_file(source.join("rust-toolchain.toml"));
    fs::write(complete, "")?;
    Ok(source)
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn python(root: &Path, binary: &Path, cache: &Path) -> anyhow::Result<u64> {
    let mut checks = 0;
    for (script, package, settings) in SCRIPTS {
        let python = environment(cache, package)?;
        let cluster = Cluster::start(binary, &cache.join("data"), settings)?;
        let mut command = limited(RUN_LIMIT, &python);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(root.join("tests/clients").join(script)).arg(&cluster.scheduler);
        let output = stream(&mut command)
            .inspect_err(|_| println!("log of the cluster:\n{}", cluster.log()))?;
        let passed = checks_passed(&output)
            .with_context(|| format!("{script} did not say how many checks passed"))?;
        ensure!(0 < passed, "{script} checked nothing");
        checks += passed;
    }
    Ok(checks)
}

/// The number in the last line of a script: `N checks passed`.
fn checks_passed(output: &str) -> Option<u64> {
    output.lines().last()?.strip_suffix(" checks passed")?.parse().ok()
}

/// The interpreter of a virtual environment with `package` (`name==version`) in it.
fn environment(cache: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let folder = cache.join(package.replace("==", "-"));
    let python = folder.join("bin/python");
    let complete = folder.join(".complete");
    if complete.exists() && capture(limited(RUN_LIMIT, &python).arg("--version")).is_ok() {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&folder);
    let interpreter = interpreter()?;
    stream(limited(RUN_LIMIT, &interpreter).args(["-m", "venv"]).arg(&folder))?;
    let arguments =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    stream(limited(BUILD_LIMIT, &python).args(arguments).arg(package))?;
    fs::write(complete, "")?;
    Ok(python)
}

/// A CPython 3.11: the only version that tikv-client has a wheel for.
fn interpreter() -> anyhow::Result<PathBuf> {
    for name in ["python3.11", "python3"] {
        let version = capture(
            limited(RUN_LIMIT, name)
                .args(["-c", "import sys, venv, ensurepip; print(sys.version)"]),
        );
        if version.is_ok_and(|version| version.starts_with("3.11.")) {
            return Ok(name.into());
        }
    }
    bail!("no CPython 3.11 with venv was found (Debian packages python3.11, python3.11-venv)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_checked_in_its_last_line() {
        assert_eq!(checks_passed("ok put\nok get\n2 checks passed\n"), Some(2));
        assert_eq!(checks_passed("2 checks passed\nTraceback\n"), None);
        assert_eq!(checks_passed(""), None);
    }
}
