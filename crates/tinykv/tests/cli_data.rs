//! The data commands, the shell and `status` against a real cluster: what goes in comes out, byte for byte.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use tinykv::{ApiMode, Cluster};

struct World {
    cluster: Cluster,
    _runtime: tokio::runtime::Runtime,
}

/// What a command printed, and its exit code.
struct Done {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl World {
    fn start(api: ApiMode) -> World {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cluster = runtime.block_on(Cluster::builder().api(api).start()).unwrap();
        World { cluster, _runtime: runtime }
    }

    fn run_with(&self, stdin: &[u8], args: &[&str]) -> Done {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tinykv"))
            .args(args)
            .env("TINYKV_ENDPOINTS", self.cluster.endpoints().join(","))
            .env_remove("TINYKV_CONFIG_FILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, args: &[&str]) -> Done {
        self.run_with(b"", args)
    }

    /// What a command printed that must succeed in silence on stderr.
    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{args:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

#[test]
fn what_is_put_is_got() {
    let world = World::start(ApiMode::V1);
    assert_eq!(world.ok(&["put", "hello", "world"]), "");
    assert_eq!(world.ok(&["get", "hello"]), "world\n");
    assert_eq!(
        world.ok(&["get", "0x68656c6c6f", "-o", "json"]),
        "{\"key\":\"hello\",\"value\":\"world\"}\n"
    );
    let every_byte: Vec<u8> = (0..=255).collect();
    assert_eq!(world.run_with(&every_byte, &["put", "\\x00\\xff", "-"]).code, Some(0));
    assert_eq!(world.run(&["get", "\\x00\\xff"]).stdout, [&every_byte[..], b"\n"].concat());
    world.ok(&["put", "empty", ""]);
    assert_eq!(world.ok(&["get", "empty"]), "\n");
    assert_eq!(world.ok(&["scan", "--keys-only", "-o", "plain"]), "\\x00\\xff\nempty\nhello\n");
    assert_eq!(world.ok(&["scan", "e", "h", "--limit", "5"]), "KEY    VALUE\nempty\n");
    assert_eq!(world.ok(&["scan", "--prefix", "h", "--reverse"]), "KEY    VALUE\nhello  world\n");
    world.ok(&["delete", "hello"]);
    let missing = world.run(&["get", "hello"]);
    assert_eq!((missing.code, missing.stdout.len()), (Some(5), 0));
    assert!(
        missing.stderr.starts_with("error[TK4001]: no such key: hello\n"),
        "{}",
        missing.stderr
    );
    world.ok(&["put", "hello", "elsewhere", "--cf", "write"]);
    assert_eq!(world.run(&["get", "hello"]).code, Some(5), "column families are apart");
}

#[test]
fn a_lost_comparison_is_exit_code_6() {
    let world = World::start(ApiMode::V1);
    world.ok(&["cas", "--absent", "k", "1"]);
    world.ok(&["cas", "k", "1", "2"]);
    let lost = world.run(&["cas", "k", "1", "3", "-o", "json"]);
    assert_eq!(lost.code, Some(6));
    assert_eq!(lost.stdout, b"{\"previous\":\"2\",\"swapped\":false}\n");
    assert!(!lost.stderr.contains("\"2\""), "errors must not show values: {}", lost.stderr);
    assert_eq!(world.ok(&["get", "k"]), "2\n");
}

#[test]
fn long_scans_come_in_pages_without_gaps() {
    let world = World::start(ApiMode::V2);
    let script: String = (0..2500).map(|i| format!("put k{i:04} {i}\n")).collect();
    let done = world.run_with(script.as_bytes(), &["shell"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let forward = world.ok(&["scan", "-o", "plain"]);
    let expected: String = (0..2500).map(|i| format!("k{i:04}\t{i}\n")).collect();
    assert_eq!(forward, expected);
    let reverse = world.ok(&["scan", "-o", "plain", "--reverse", "--limit", "2000", "--keys-only"]);
    assert_eq!(reverse.lines().count(), 2000);
    assert_eq!((reverse.lines().next(), reverse.lines().last()), (Some("k2499"), Some("k0500")));
}

#[test]
fn scripts_stop_at_the_first_error_unless_told_to_go_on() {
    let world = World::start(ApiMode::V2);
    let script = b"# a comment\nput a '1 2'\nget nope\nget a\n";
    let done = world.run_with(script, &["shell"]);
    assert_eq!((done.code, &done.stdout[..]), (Some(5), &b""[..]));
    assert!(
        done.stderr.starts_with("error[TK4001]: line 3: no such key: nope\n"),
        "{}",
        done.stderr
    );
    let done = world.run_with(script, &["shell", "--keep-going"]);
    assert_eq!((done.code, &done.stdout[..]), (Some(5), &b"1 2\n"[..]));
    let script = b"put t v ttl 100s\nttl t\nttl a\n\\out json\nttl a\n\\q\nget nope\n";
    let done = world.run_with(script, &["shell"]);
    assert_eq!(
        String::from_utf8(done.stdout).unwrap(),
        "100 s\nnever expires\n{\"key\":\"a\",\"ttl_seconds\":null}\n"
    );
    assert_eq!(done.code, Some(0));
}

#[test]
fn status_has_what_scripts_read() {
    let world = World::start(ApiMode::V2);
    let status: serde_json::Value =
        serde_json::from_str(&world.ok(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["api_mode"], "v2");
    assert!(status["cluster_id"].as_u64().unwrap() > 0);
    assert_eq!(
        status["stores"][0]["address"].as_str(),
        world.cluster.stores().first().map(String::as_str)
    );
    assert_eq!(status["stores"][0]["state"], "up");
    assert_eq!(status["regions"]["count"], 5);
    assert_eq!(
        (&status["regions"]["leaderless"], &status["regions"]["under_replicated"]),
        (&0.into(), &0.into())
    );
    let text = world.ok(&["status"]);
    assert!(text.contains(" · 1 store · 5 regions · healthy\nSTORE  ADDRESS"), "{text}");
}

#[test]
fn a_shell_works_in_transactions() {
    let world = World::start(ApiMode::V1);
    let script = "begin\nput a 1\nput b 2\nget a\nscan\ncommit\n\\txn\nscan\n\
        begin pessimistic\ndelete a\nrollback\nput c 3\nscan\n";
    let done = world.run_with(script.as_bytes(), &["shell", "-o", "plain"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let printed = String::from_utf8(done.stdout).unwrap();
    insta::assert_snapshot!(printed, @r"
    1
    a	1
    b	2
    a	1
    b	2
    a	1
    b	2
    c	3
    ");
    // The cluster holds transactional data now, and every command knows.
    assert_eq!(world.ok(&["get", "c"]), "3\n");
    world.ok(&["put", "d", "4"]);
    assert_eq!(world.ok(&["get", "d", "--txn"]), "4\n");
    for (script, code) in [("commit\n", 2), ("begin\nbegin\n", 2), ("cas a 1 2\n", 7)] {
        assert_eq!(world.run_with(script.as_bytes(), &["shell"]).code, Some(code), "{script}");
    }
}
