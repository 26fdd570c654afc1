//! The product as a process, killed and paused under 8 writers: every acknowledged write is there afterwards.
//!
//! The short form of the proofs that `cargo xtask ci` makes with the release build (docs/TESTING.md).

use chaos::{dial::TinykvDial, kill, pause, process::Launch, report::Report, session::Session};

fn session(scenario: &str, rounds: u32) -> (tempfile::TempDir, Session<TinykvDial>) {
    let dir =
        tempfile::Builder::new().prefix("tinykv-crash-").tempdir().expect("a temporary folder");
    let launch = Launch {
        binary: env!("CARGO_BIN_EXE_tinykv").into(),
        data: dir.path().join("data"),
        scratch: dir.path().to_owned(),
        engine: None,
        settings: Vec::new(),
    };
    let seed = 7;
    (dir, Session::new(scenario, launch, TinykvDial::patient(seed), rounds, seed))
}

fn run(work: impl Future<Output = Report>) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(work)
}

#[track_caller]
fn assert_passed(dir: tempfile::TempDir, report: &Report) {
    if !report.passed() {
        panic!("{}\nkept in {}", report.to_text(), dir.keep().display());
    }
    print!("{}", report.to_text());
}

#[test]
fn twenty_kills_under_load_lose_no_acknowledged_write() {
    let (dir, session) = session("kill", 20);
    let report = run(kill::run(session));
    assert_passed(dir, &report);
    assert!(
        0 < report.counts["kills during the start"] && 0 < report.counts["kills under load"],
        "{report:?}"
    );
}

#[test]
fn a_process_that_stood_still_goes_on_without_a_wrong_answer() {
    let (dir, session) = session("pause", 4);
    let report = run(pause::run(session));
    assert_passed(dir, &report);
}
