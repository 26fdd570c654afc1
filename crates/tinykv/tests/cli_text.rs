//! What the command line says when there is no cluster: words, streams and exit codes, from the binary itself.

#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

/// Nobody listens there: the port is privileged and unused.
const NOBODY: &str = "127.0.0.1:1";

fn tinykv(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tinykv"))
        .args(args)
        .env_remove("TINYKV_ENDPOINTS")
        .env_remove("TINYKV_CONFIG_FILE")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for this test")
}

/// Exit code and stderr of a command that must print no data.
fn failure(args: &[&str]) -> (Option<i32>, String) {
    let output = tinykv(args);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "data on stdout: {args:?}");
    let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert!(!stderr.contains('\u{1b}'), "colours in a pipe: {stderr:?}");
    (output.status.code(), stderr)
}

#[test]
fn an_unreachable_cluster_is_exit_code_4_with_a_reason_for_each_address() {
    let (code, stderr) = failure(&["get", "hello", "-e", &format!("{NOBODY},localhost:1")]);
    assert_eq!(code, Some(4));
    insta::assert_snapshot!(stderr, @r"
    error[TK2001]: no scheduler answered: 127.0.0.1:1 refused, localhost:1 refused
      cause  The addresses refused the connection, timed out, or speak something else.
      try    tinykv dev starts a cluster here; -e HOST:PORT names another one
    ");
    for command in [
        &["put", "a", "b"][..],
        &["delete", "a"],
        &["scan"],
        &["cas", "a", "b", "c"],
        &["status"],
        &["shell"],
    ] {
        assert_eq!(failure(&[command, &["-e", NOBODY]].concat()).0, Some(4), "{command:?}");
    }
}

#[test]
fn programs_get_the_same_as_one_object_on_stderr() {
    let (code, stderr) = failure(&["get", "hello", "-e", NOBODY, "-o", "json"]);
    assert_eq!(code, Some(4));
    let json: serde_json::Value = serde_json::from_str(&stderr).expect("one JSON object");
    assert_eq!(json["error"]["code"], "TK2001");
    assert_eq!(json["error"]["retryable"], true);
    for field in ["message", "cause", "try"] {
        assert!(!json["error"][field].as_str().unwrap_or_default().is_empty(), "{field} in {json}");
    }
}

#[test]
fn senseless_command_lines_are_exit_code_2() {
    for args in [
        &["get"][..],
        &["get", "0xzz"],
        &["get", "a", "--cf", "nope"],
        &["get", "a", "--timeout", "soon"],
        &["get", "a", "-e", "nowhere"],
        &["put", "a"],
        &["cas", "a", "b"],
        &["cas", "--absent", "a", "b", "c"],
        &["scan", "a", "--prefix", "b"],
        &["frobnicate"],
    ] {
        assert_eq!(failure(args).0, Some(2), "{args:?}");
    }
    insta::assert_snapshot!(failure(&["get", "a", "-e", "nowhere"]).1, @r#"
    error[TK4108]: "nowhere" is no address: write HOST:PORT
      cause  The address of a scheduler is a name or number and a port.
      try    -e 127.0.0.1:2379, or TINYKV_ENDPOINTS=127.0.0.1:2379
    "#);
}

#[test]
fn what_this_version_cannot_do_is_exit_code_7() {
    let (code, stderr) = failure(&["get", "a", "-e", "https://localhost:1"]);
    assert_eq!(code, Some(7));
    assert!(stderr.starts_with("error[TK1023]: "), "{stderr}");
}

#[test]
fn colours_can_be_forced() {
    let output = tinykv(&["get", "a", "-e", NOBODY, "--color", "always"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("\u{1b}[1;31merror[TK2001]\u{1b}[0m: ")
    );
}
