//! The walks in docs/walks name files and functions that exist: who follows one must find each step.
//!
//! In the column "file · function" a place is a crate and a file or folder of it, crate/`file.rs`, or a crate alone,
//! followed by the names of functions in backticks: `name` or `Type::name`.

use super::{File, Finding};

/// The column that is checked, counted from 0.
const COLUMN: usize = 2;

/// Checks all walks.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for walk in files.iter().filter(|file| file.path.starts_with("docs/walks/")) {
        for (number, line) in walk.lines().filter(|(_, line)| line.starts_with("| ")) {
            let Some(cell) = line.trim_matches('|').split(" | ").nth(COLUMN) else { continue };
            let place = format!("{}:{number}", walk.path);
            findings.extend(
                check_cell(cell, files).into_iter().map(|message| Finding::new(&place, message)),
            );
        }
    }
    findings
}

fn check_cell(cell: &str, files: &[File]) -> Vec<String> {
    let mut messages = Vec::new();
    // Where the next names are looked for: the beginning of a path.
    let mut place = None;
    let mut rest = cell;
    while let Some((words, after)) = rest.split_once('`') {
        let Some((quoted, after)) = after.split_once('`') else { break };
        rest = after;
        let krate = words.rsplit([' ', '(']).find(|word| !word.is_empty() && is_crate(word, files));
        let is_path = words.ends_with('/') || quoted.ends_with(".rs");
        if is_path {
            let krate = krate.map(|krate| krate.trim_end_matches('/').to_owned());
            let Some(krate) = krate.or_else(|| place.as_deref().and_then(crate_of)) else {
                messages.push(format!("`{quoted}` is in no crate"));
                continue;
            };
            let path = format!("crates/{krate}/src/{quoted}");
            if files.iter().all(|file| !is_at(file, &path)) {
                messages.push(format!("there is no {path}"));
            }
            place = Some(path);
            continue;
        }
        if let Some(krate) = krate {
            place = Some(format!("crates/{}/src", krate.trim_end_matches('/')));
        }
        let name = quoted.rsplit("::").next().unwrap_or(quoted);
        let Some(place) = &place else { continue };
        let definition = [format!("fn {name}("), format!("fn {name}<")];
        let is_there = |file: &File| {
            let text = file.text.as_deref().unwrap_or_default();
            is_at(file, place) && definition.iter().any(|definition| text.contains(definition))
        };
        // Functions that a macro makes are named there and defined nowhere.
        let in_macro = |file: &File| {
            file.path == *place
                && file.lines().any(|(_, line)| line.trim().starts_with(&format!("{name}: ")))
        };
        if !files.iter().any(|file| is_there(file) || in_macro(file)) {
            messages.push(format!("there is no function `{name}` in {place}"));
        }
    }
    messages
}

fn is_crate(word: &str, files: &[File]) -> bool {
    let manifest = format!("crates/{}/Cargo.toml", word.trim_end_matches('/'));
    files.iter().any(|file| file.path == manifest)
}

fn crate_of(path: &str) -> Option<String> {
    path.strip_prefix("crates/")?.split('/').next().map(str::to_owned)
}

/// Whether the file is at the path, or in the folder of that name.
fn is_at(file: &File, path: &str) -> bool {
    file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(walk: &str) -> Vec<File> {
        vec![
            File::fake("crates/storage/Cargo.toml", ""),
            File::fake("crates/server/Cargo.toml", ""),
            File::fake("crates/storage/src/raw.rs", "fn put(&self) {}"),
            File::fake("crates/storage/src/shell/a.rs", "pub fn write<T>() {}"),
            File::fake(
                "crates/server/src/service/tikv.rs",
                "unary! {\n    raw_get: RawGet => X,\n}",
            ),
            File::fake("docs/walks/put.md", walk),
        ]
    }

    fn messages(cell: &str) -> Vec<String> {
        let walk = format!(
            "| # | thread | file · function | x |\n|---|---|---|---|\n| 1 | a | {cell} | b |\n"
        );
        check(&files(&walk)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn what_exists_is_found() {
        assert_eq!(
            messages("storage/`raw.rs` `Checks::put` → storage/`shell` `write`"),
            Vec::<String>::new()
        );
        assert_eq!(
            messages("storage `write`; or server/`service/tikv.rs` `raw_get`"),
            Vec::<String>::new()
        );
        assert_eq!(messages("storage/`shell/a.rs` `write` → `raw.rs` `put`"), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_reported() {
        assert_eq!(
            messages("storage/`raw.rs` `get`"),
            ["there is no function `get` in crates/storage/src/raw.rs"]
        );
        assert_eq!(messages("storage/`gone.rs`"), ["there is no crates/storage/src/gone.rs"]);
        assert_eq!(messages("`raw.rs` `put`"), ["`raw.rs` is in no crate"]);
        assert_eq!(
            messages("server/`service/tikv.rs` `raw_put`"),
            ["there is no function `raw_put` in crates/server/src/service/tikv.rs"]
        );
    }
}
