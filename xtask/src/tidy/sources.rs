//! Facts about single files: first lines, sizes, notes to ourselves, purity of cores, unsafe code, machine paths.

use super::{
    File, Finding,
    lexer::{code_only, names, without_tests},
};

/// No file is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Crates whose files are cores, unless they lie in a folder `shell`.
const CORE_CRATES: [&str; 6] = ["client", "raft", "raftstore", "scheduler", "storage", "txn"];

/// What a core must not name: it waits for nothing, starts nothing and asks nobody for the time.
const NOT_IN_CORES: [&str; 16] = [
    "async",
    "await",
    "block_on",
    "Condvar",
    "crossbeam_channel",
    "Instant",
    "JoinHandle",
    "mpsc",
    "recv",
    "recv_timeout",
    "sleep",
    "spawn",
    "SystemTime",
    "thread",
    "tokio",
    "tonic",
];

/// Crates that may contain unsafe code.
const UNSAFE_CRATES: [&str; 2] = ["engine", "runtime"];

/// Folders that exist on somebody's machine. Spelled in two parts, so that this file does not contain them.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Checks all files.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.bytes > FILE_BYTES_MAX {
        findings.push(Finding::new(
            &file.path,
            format!("has {} bytes, at most {FILE_BYTES_MAX} are fine", file.bytes),
        ));
    }
    first_line(file, &mut findings);
    notes(file, &mut findings);
    machine_paths(file, &mut findings);
    if file.is_rust() {
        let code = code_only(file.text.as_deref().unwrap_or_default());
        unsafe_code(file, &code, &mut findings);
        core(file, &code, &mut findings);
    }
    findings
}

fn first_line(file: &File, findings: &mut Vec<Finding>) {
    let first = file.text.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
    if file.is_rust() && !first.starts_with("//!") {
        findings
            .push(Finding::new(&file.path, "does not begin with //!, which says what the file is"));
    }
    let in_golden = file.path.split('/').any(|folder| folder == "golden");
    if in_golden && !file.is_rust() && !first.starts_with('#') {
        findings.push(Finding::new(
            &file.path,
            "does not begin with #, which says the property that it shows",
        ));
    }
}

/// A note without an issue is a wish: nobody will ever find it.
fn notes(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.lines() {
        for note in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            for (at, _) in line.match_indices(note) {
                let end = &line[at + note.len()..];
                let digits =
                    end.strip_prefix("(#").map(|rest| rest.split(')').next().unwrap_or_default());
                let has_issue = digits.is_some_and(|digits| {
                    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
                });
                let is_word = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                    && !end.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                if is_word && !has_issue {
                    let place = format!("{}:{number}", file.path);
                    findings.push(Finding::new(
                        place,
                        format!("{note} without an issue; write {note}(#12)"),
                    ));
                }
            }
        }
    }
}

fn machine_paths(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.lines() {
        for path in MACHINE_PATHS {
            let is_start = |at: usize| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./}~".contains(c))
            };
            if line.match_indices(path).any(|(at, _)| is_start(at)) {
                findings.push(Finding::new(
                    format!("{}:{number}", file.path),
                    format!("names {path}…, a folder of one machine"),
                ));
            }
        }
    }
}

fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split('/').next()
}

fn unsafe_code(file: &File, code: &str, findings: &mut Vec<Finding>) {
    let krate = crate_of(&file.path);
    if krate.is_some_and(|krate| UNSAFE_CRATES.contains(&krate)) {
        return;
    }
    for (number, _) in names(code).filter(|(_, name)| *name == "unsafe") {
        findings.push(Finding::new(
            format!("{}:{number}", file.path),
            "unsafe code outside of engine and runtime",
        ));
    }
    let is_root = file.path.ends_with("/src/lib.rs")
        || file.path.ends_with("/src/main.rs")
        || file.path.contains("/src/bin/");
    if is_root && !code.contains("#![forbid(unsafe_code)]") {
        findings.push(Finding::new(
            &file.path,
            "is the root of a crate without #![forbid(unsafe_code)]",
        ));
    }
}

fn core(file: &File, code: &str, findings: &mut Vec<Finding>) {
    let Some(krate) = crate_of(&file.path).filter(|krate| CORE_CRATES.contains(krate)) else {
        return;
    };
    let Some(inside) = file.path.strip_prefix(&format!("crates/{krate}/src/")) else { return };
    let is_shell = inside.split('/').any(|part| part == "shell" || part == "shell.rs");
    let is_test = inside
        .split('/')
        .any(|part| ["tests.rs", "tests", "testing.rs", "testing"].contains(&part));
    if is_shell || is_test {
        return;
    }
    for (number, name) in names(without_tests(code)).filter(|(_, name)| NOT_IN_CORES.contains(name))
    {
        let place = format!("{}:{number}", file.path);
        findings
            .push(Finding::new(place, format!("a core names `{name}`; only files in shell/ may")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&[File::fake(path, text)])
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.message))
            .collect()
    }

    fn assert_finds(path: &str, text: &str, message: &str) {
        let messages = messages(path, text);
        assert!(messages.len() == 1 && messages[0].contains(message), "{messages:?}");
    }

    #[test]
    fn planted_faults_are_found() {
        assert_finds("crates/types/src/a.rs", "fn f() {}", "does not begin with //!");
        assert_finds("crates/raft/tests/golden/a.txt", "tick 1\n", "does not begin with #");
        assert_finds(
            "docs/a.md",
            concat!("x\nTO", "DO later"),
            concat!("docs/a.md:2 TO", "DO without an issue"),
        );
        assert_finds("docs/a.md", concat!("TO", "DO(#)"), "without an issue");
        assert_finds("docs/a.md", concat!("see /ro", "ot/x"), "a folder of one machine");
        assert_finds("crates/types/src/a.rs", "//! A\nunsafe {}", "a.rs:2 unsafe code");
        assert_finds("crates/types/src/lib.rs", "//! A\n", "without #![forbid(unsafe_code)]");
        assert_finds(
            "crates/storage/src/a.rs",
            "//! A\nasync fn f() {}",
            "a.rs:2 a core names `async`",
        );
        assert_finds("crates/storage/src/a.rs", "//! A\nuse std::thread;", "a core names `thread`");
        let large = File { bytes: FILE_BYTES_MAX + 1, ..File::fake("docs/a.md", "") };
        assert!(check(&[large])[0].message.contains("bytes"));
    }

    #[test]
    fn what_is_fine_is_not_found() {
        for (path, text) in [
            ("crates/raft/tests/golden/a.txt", "# A property.\ntick 1\n"),
            ("docs/a.md", concat!("TO", "DO(#12) and TO", "DOs, ~/ro", "ot/x")),
            ("crates/engine/src/a.rs", "//! A\nunsafe {}"),
            ("crates/types/src/lib.rs", "//! unsafe\n#![forbid(unsafe_code)]\n"),
            ("crates/storage/src/shell/a.rs", "//! A\nasync fn f() {}"),
            ("crates/storage/src/shell.rs", "//! A\nasync fn f() {}"),
            (
                "crates/storage/src/a.rs",
                "//! async\n// thread\n#[cfg(test)]\nmod tests { use std::thread; }",
            ),
            ("crates/storage/tests/a.rs", "//! A\nuse std::thread;"),
            ("crates/server/src/a.rs", "//! A\nasync fn f() {}"),
        ] {
            assert_eq!(messages(path, text), Vec::<String>::new(), "{path}");
        }
    }
}
