//! The crate graph is what docs/ARCHITECTURE.md says it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde::Deserialize;

use super::{File, Finding};
use crate::run::{capture, cargo};

/// Where the table stands.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// How the table begins.
const HEADER: &str = "| crate | depends on";

/// The part of `cargo metadata` that counts here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// The workspace's members.
    pub packages: Vec<Package>,
    /// Cargo's target folder.
    pub target_directory: PathBuf,
}

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`; normal if absent.
    kind: Option<String>,
    /// Set for crates of the workspace.
    path: Option<PathBuf>,
}

/// What cargo knows about the workspace.
pub(crate) fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let mut command = cargo(root, Duration::from_secs(300));
    let text = capture(command.args(["metadata", "--format-version", "1", "--no-deps"]))?;
    serde_json::from_str(&text).context("cargo metadata speaks another format")
}

/// Compares the table with what the manifests say.
pub(super) fn check(root: &Path, files: &[File]) -> anyhow::Result<Vec<Finding>> {
    let Some(text) =
        files.iter().find(|file| file.path == ARCHITECTURE).and_then(|file| file.text.as_deref())
    else {
        return Ok(vec![Finding::new(ARCHITECTURE, "is missing")]);
    };
    Ok(compare(&table(text), &graph(&metadata(root)?)))
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The rows of the table. Only names in backticks count, and only those outside of brackets.
fn table(text: &str) -> Graph {
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with(HEADER))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut graph = Graph::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let crates = quoted(cells.next().unwrap_or_default());
        let uses = quoted(cells.next().unwrap_or_default());
        for krate in crates {
            graph.insert(krate, uses.clone());
        }
    }
    graph
}

fn quoted(cell: &str) -> BTreeSet<String> {
    let mut outside = String::new();
    let mut depth = 0;
    for c in cell.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Normal and build dependencies inside the workspace. Tests may use more.
fn graph(metadata: &Metadata) -> Graph {
    let uses = |package: &Package| {
        let inside = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        inside
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.clone())
            .collect()
    };
    metadata.packages.iter().map(|package| (package.name.clone(), uses(package))).collect()
}

fn compare(table: &Graph, graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    let show = |uses: &BTreeSet<String>| {
        if uses.is_empty() {
            "-".to_owned()
        } else {
            uses.iter().cloned().collect::<Vec<_>>().join(", ")
        }
    };
    for (krate, uses) in graph {
        match table.get(krate) {
            None => findings.push(Finding::new(
                ARCHITECTURE,
                format!("its table has no row for the crate {krate}"),
            )),
            Some(written) if written != uses => findings.push(Finding::new(
                format!("crates/{krate}/Cargo.toml"),
                format!(
                    "{krate} depends on {}; the table in {ARCHITECTURE} allows {}",
                    show(uses),
                    show(written)
                ),
            )),
            Some(_) => {}
        }
    }
    for krate in table.keys().filter(|krate| !graph.contains_key(*krate)) {
        findings.push(Finding::new(
            ARCHITECTURE,
            format!("its table names the crate {krate}, which does not exist"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A
| crate | depends on | why |
|---|---|---|
| `types`, `proto` | - | words |
| `client` | `types`, `proto` (feature `grpc`) | driver |

| `not` | `in it` |
";

    fn graph_of(edges: &[(&str, &[&str])]) -> Graph {
        edges
            .iter()
            .map(|(krate, uses)| {
                ((*krate).to_owned(), uses.iter().map(|u| (*u).to_owned()).collect())
            })
            .collect()
    }

    #[test]
    fn the_table_is_read() {
        assert_eq!(
            table(TEXT),
            graph_of(&[("types", &[]), ("proto", &[]), ("client", &["types", "proto"])])
        );
    }

    #[test]
    fn planted_differences_are_found() {
        let real =
            graph_of(&[("types", &["proto"]), ("client", &["types", "proto"]), ("new", &[])]);
        let findings: Vec<_> =
            compare(&table(TEXT), &real).into_iter().map(|finding| finding.message).collect();
        assert_eq!(
            findings,
            [
                "its table has no row for the crate new",
                "types depends on proto; the table in docs/ARCHITECTURE.md allows -",
                "its table names the crate proto, which does not exist",
            ]
        );
        assert_eq!(compare(&table(TEXT), &table(TEXT)), []);
    }

    #[test]
    fn dependencies_of_tests_do_not_count() {
        let text = r#"{"target_directory": "t", "packages": [{"name": "a", "dependencies": [
            {"name": "types", "kind": null, "path": "p"},
            {"name": "chaos", "kind": "dev", "path": "p"},
            {"name": "bytes", "kind": null}]}]}"#;
        assert_eq!(graph(&serde_json::from_str(text).unwrap()), graph_of(&[("a", &["types"])]));
    }
}
