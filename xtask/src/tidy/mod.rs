//! Facts about the repository that no compiler checks. Not taste: each can be decided by a program, and each has
//! cost somebody a day somewhere.
//!
//! A rule is a function from the repository to a list of findings, so that rules are tested with planted ones.

pub(crate) mod dependencies;
mod formats;
mod lexer;
mod product;
mod sources;
mod walks;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::run::{Executed, capture, limited};

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, from the root, and the line if there is one.
    pub place: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { place: place.into(), message: message.into() }
    }
}

/// A file of the repository: its path from the root, and its text if it is text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub path: String,
    pub bytes: u64,
    pub text: Option<String>,
}

impl File {
    /// The lines of its text with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .as_deref()
            .unwrap_or_default()
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    #[cfg(test)]
    pub(crate) fn fake(path: &str, text: &str) -> File {
        File { path: path.into(), bytes: text.len() as u64, text: Some(text.into()) }
    }
}

/// Checks everything. Returns how many files were looked at.
pub(crate) fn run(root: &Path) -> anyhow::Result<Executed> {
    let files = files(root)?;
    let mut findings = sources::check(&files);
    findings.extend(formats::check(&files));
    findings.extend(walks::check(&files));
    findings.extend(dependencies::check(root, &files)?);
    findings.extend(product::check(root, &files)?);
    for finding in &findings {
        println!("{}: {}", finding.place, finding.message);
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(Executed::new(files.len() as u64, "files looked at"))
}

/// Every file that is or would be committed.
fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut command = limited(Duration::from_secs(60), "git");
    command.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let mut files = Vec::new();
    for path in capture(&mut command)?.split('\0').filter(|path| !path.is_empty()) {
        let full: PathBuf = root.join(path);
        // Listed but gone: removed and not yet committed.
        let Ok(facts) = fs::symlink_metadata(&full) else { continue };
        if !facts.is_file() {
            continue;
        }
        let text =
            String::from_utf8(fs::read(&full).with_context(|| format!("cannot read {path}"))?).ok();
        files.push(File { path: path.into(), bytes: facts.len(), text });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
