//! Facts about what the product is built from: none of our testing features is in it, and no library that sits on
//! the way of a request is in it twice.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::ensure;

use super::{File, Finding};
use crate::run::{capture, cargo};

/// Features that exist for tests. They must not reach the product.
const TEST_FEATURES: [&str; 3] = ["testing", "sim", "mutants"];

/// Libraries of which one version is enough: two of them are two stacks of code on the way of one request.
const ONE_VERSION: [&str; 9] =
    ["axum", "bytes", "h2", "http", "hyper", "prost", "rustls", "tokio", "tonic"];

/// Checks the product's dependencies.
pub(super) fn check(root: &Path, files: &[File]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for features in ["default", "default,rocksdb"] {
        let mut command = cargo(root, Duration::from_secs(300));
        command.args([
            "tree",
            "-p",
            "tinykv",
            "--features",
            features,
            "-e",
            "normal,features",
            "--prefix",
            "none",
        ]);
        let tree = capture(&mut command)?;
        ensure!(tree.lines().count() > 50, "cargo tree speaks another format");
        findings.extend(test_features(&tree));
    }
    let lock =
        files.iter().find(|file| file.path == "Cargo.lock").and_then(|file| file.text.as_deref());
    match lock {
        Some(lock) => findings.extend(versions(lock)),
        None => findings.push(Finding::new("Cargo.lock", "is missing")),
    }
    findings.dedup();
    Ok(findings)
}

/// Lines are `name v1.2.3 (path)` or `name feature "x"`. Only our own crates count: others may call a feature `sim`.
fn test_features(tree: &str) -> Vec<Finding> {
    let ours: Vec<&str> = tree
        .lines()
        .filter(|line| line.contains(" (/"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut findings = Vec::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (Some(krate), Some("feature"), Some(feature)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let feature = feature.trim_matches('"');
        if ours.contains(&krate) && TEST_FEATURES.contains(&feature) {
            findings.push(Finding::new(
                format!("crates/{krate}"),
                format!("its feature {feature} is compiled into the product"),
            ));
        }
    }
    findings
}

fn versions(lock: &str) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = ") else { continue };
        let version =
            lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap_or_default();
        versions.entry(name.trim_matches('"')).or_default().push(version.trim_matches('"'));
    }
    let twice = ONE_VERSION
        .iter()
        .filter_map(|name| versions.get_key_value(name))
        .filter(|(_, versions)| versions.len() > 1);
    twice
        .map(|(name, versions)| {
            Finding::new(
                "Cargo.lock",
                format!("{name} is there in versions {}", versions.join(", ")),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_testing_feature_of_ours_is_found_and_one_of_others_is_not() {
        let tree = "tinykv v0.1.0 (/x)\nengine v0.1.0 (/x)\nengine feature \"testing\"\nother feature \"sim\"\nother v1.0.0\n\
                    engine feature \"fjall\"\n";
        let findings = test_features(tree);
        assert_eq!(
            findings,
            [Finding::new("crates/engine", "its feature testing is compiled into the product")]
        );
    }

    #[test]
    fn a_library_that_is_there_twice_is_found() {
        let lock = "[[package]]\nname = \"tonic\"\nversion = \"0.13.0\"\n\n[[package]]\nname = \"tonic\"\nversion = \"0.14.0\"\n\n\
                    [[package]]\nname = \"syn\"\nversion = \"1.0.0\"\n[[package]]\nname = \"syn\"\nversion = \"2.0.0\"\n";
        assert_eq!(
            versions(lock),
            [Finding::new("Cargo.lock", "tonic is there in versions 0.13.0, 0.14.0")]
        );
    }
}
