//! Everything that is encoded for the disk is described: each type with an `encode` of its own, in the crates that
//! write files, must be named in docs/formats.md.

use super::{
    File, Finding,
    lexer::{code_only, without_tests},
};

/// Where the formats are described.
const FORMATS: &str = "docs/formats.md";

/// Crates that write files.
const CRATES: [&str; 7] =
    ["types", "runtime", "engine", "storage", "scheduler", "raftstore", "txn"];

/// Checks all files.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let formats =
        files.iter().find(|file| file.path == FORMATS).and_then(|file| file.text.as_deref());
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let inside =
            CRATES.iter().any(|krate| file.path.starts_with(&format!("crates/{krate}/src/")));
        if !inside {
            continue;
        }
        for (line, name) in encoded_types(file.text.as_deref().unwrap_or_default()) {
            if !formats.is_some_and(|formats| formats.contains(&format!("`{name}`"))) {
                let place = format!("{}:{line}", file.path);
                findings.push(Finding::new(
                    place,
                    format!("{name} is encoded, but `{name}` does not stand in {FORMATS}"),
                ));
            }
        }
    }
    findings
}

/// The types in whose `impl` block a function `encode` (or `encode_…`, taking `self`) is defined, with its line.
fn encoded_types(source: &str) -> Vec<(usize, String)> {
    let code = code_only(source);
    let mut types: Vec<(usize, String)> = Vec::new();
    let mut current: Option<String> = None;
    for (index, line) in without_tests(&code).lines().enumerate() {
        if line.starts_with("impl") {
            current = implemented_type(line);
        } else if line.starts_with('}') {
            current = None;
        }
        let defines =
            ["fn encode(&self", "fn encode(self", "fn encode_to(&self", "fn encode_into(&self"];
        if let Some(name) = &current
            && defines.iter().any(|definition| line.contains(definition))
            && types.iter().all(|(_, known)| known != name)
        {
            types.push((index + 1, name.clone()));
        }
    }
    types
}

/// `Name` of `impl<T> Trait for path::Name<T> {`.
fn implemented_type(line: &str) -> Option<String> {
    let mut rest = line.strip_prefix("impl")?.trim_start();
    if rest.starts_with('<') {
        rest = rest[rest.find('>')? + 1..].trim_start();
    }
    let path = rest.split_once(" for ").map_or(rest, |(_, path)| path);
    let path = path.split(['<', '{', ' ']).next()?;
    path.rsplit("::").next().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! A
impl Record {
    pub fn encode(&self) -> Vec<u8> {}
}
impl<T> Other<T> {
    fn f() {}
}
fn encode(&self) {}
impl Codec for deep::Frame<'_> {
    fn encode(self) {}
}
";

    #[test]
    fn types_with_an_encoding_are_found() {
        assert_eq!(encoded_types(SOURCE), [(3, "Record".to_owned()), (10, "Frame".to_owned())]);
    }

    #[test]
    fn an_undescribed_format_is_found() {
        let source = File::fake("crates/storage/src/a.rs", SOURCE);
        let formats = File::fake(FORMATS, "## `Record`\n");
        let findings = check(&[source.clone(), formats]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.starts_with("Frame is encoded"), "{findings:?}");
        assert_eq!(check(&[source]).len(), 2);
        assert_eq!(check(&[File::fake("crates/server/src/a.rs", SOURCE)]).len(), 0);
    }
}
