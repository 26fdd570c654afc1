//! Processes as a shell sees them: what they print where, the ready file, signals, exit codes.
//!
//! Every process listens on free ports and keeps its data in a folder of its own or nowhere. Nothing waits for time:
//! a process says that it is ready, and everything else is waiting for its end.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    future::Future,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use proto::{
    health::{HealthCheckRequest, health_client::HealthClient},
    kvrpcpb::{RawGetRequest, RawGetResponse},
    pdpb::{self, pd_client::PdClient},
    tikvpb::{
        BatchCommandsRequest,
        batch_commands_request::{self, request::Cmd},
        tikv_client::TikvClient,
    },
};
use rustix::process::{Pid, Signal, kill_process};
use tokio_stream::StreamExt;

const TINYKV: &str = env!("CARGO_BIN_EXE_tinykv");
const STORE: &str = env!("CARGO_BIN_EXE_tinykv-server");
const SCHEDULER: &str = env!("CARGO_BIN_EXE_tinyscheduler-server");

/// A program without the variables of whoever runs the tests.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with("TINYKV_") || name == "LOG_LEVEL");
        if is_ours {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(program: &str, folder: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(program, folder).args(args).output().unwrap();
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A process that is killed when the test ends, however it ends.
struct Running(Child);

impl Running {
    /// Starts a process and returns when it has written its ready file.
    fn start(program: &str, folder: &Path, args: &[&str]) -> (Running, serde_json::Value) {
        let ready_file = folder.join("ready.json");
        let mut child = command(program, folder)
            .args(args)
            .arg("--ready-file")
            .arg(&ready_file)
            .spawn()
            .unwrap();
        // The line that says so is written after the file.
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        let mut seen = String::new();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| {
            seen.push_str(&line);
            seen.push('\n');
            line.contains("ready in ") || line.contains(": ready ")
        });
        assert!(is_ready, "{program} {args:?} said:\n{seen}");
        let text = std::fs::read_to_string(&ready_file).unwrap();
        (Running(child), serde_json::from_str(&text).unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Reads what the process says up to a line with `text`.
    fn wait_for(&mut self, text: &str) {
        let stderr = self.0.stderr.as_mut().unwrap();
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(text)), "it never said {text:?}");
    }

    fn exit_code(self) -> i32 {
        self.end().0
    }

    /// The exit code, and what it said on standard error since it was ready.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        let status = self.0.wait().unwrap();
        (status.code().unwrap_or_else(|| panic!("was killed; it said:\n{rest}")), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FREE: [&str; 6] = [
    "--scheduler-addr",
    "127.0.0.1:0",
    "--store-addr",
    "127.0.0.1:0",
    "--status-addr",
    "127.0.0.1:0",
];

#[test]
fn a_dev_cluster_says_where_it_is_and_ends_with_0_after_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let args: Vec<&str> = ["dev", "--memory"].into_iter().chain(FREE).collect();
    for signal in [Signal::INT, Signal::TERM] {
        let (process, ready) = Running::start(TINYKV, folder.path(), &args);
        assert_eq!(ready["format"], 1);
        assert_eq!(ready["pid"], process.0.id());
        for list in ["schedulers", "stores", "status"] {
            let addr: std::net::SocketAddr = ready[list][0].as_str().unwrap().parse().unwrap();
            assert_ne!(addr.port(), 0);
            std::net::TcpStream::connect(addr).unwrap();
        }
        assert_eq!(ready["scheduler"], ready["schedulers"][0]);
        process.signal(signal);
        assert_eq!(process.exit_code(), 0);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "--memory keeps nothing");
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn channel(addr: &serde_json::Value) -> tonic::transport::Channel {
    let uri = format!("http://{}", addr.as_str().unwrap());
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

/// Real clients keep such streams open as long as they live.
#[test]
fn streams_that_clients_never_end_do_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let args: Vec<&str> = ["dev", "--memory"].into_iter().chain(FREE).collect();
    let (process, ready) = Running::start(TINYKV, folder.path(), &args);
    block_on(async {
        let mut store = TikvClient::new(channel(&ready["stores"][0]).await);
        let command = batch_commands_request::Request { cmd: Some(Cmd::Empty(Default::default())) };
        let batch = BatchCommandsRequest {
            requests: vec![command],
            request_ids: vec![7],
            ..Default::default()
        };
        let batches = tokio_stream::once(batch).chain(tokio_stream::pending());
        let mut answers = store.batch_commands(batches).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().request_ids, [7]);

        let mut scheduler = PdClient::new(channel(&ready["scheduler"]).await);
        let members = scheduler.get_members(pdpb::GetMembersRequest::default()).await.unwrap();
        let cluster_id = members.into_inner().header.unwrap().cluster_id;
        let header = pdpb::RequestHeader { cluster_id, ..Default::default() };
        let wanted = pdpb::TsoRequest { header: Some(header), count: 1, ..Default::default() };
        let wanted = tokio_stream::once(wanted).chain(tokio_stream::pending());
        let mut timestamps = scheduler.tso(wanted).await.unwrap().into_inner();
        assert_eq!(timestamps.message().await.unwrap().unwrap().count, 1);

        process.signal(Signal::TERM);
        assert!(answers.message().await.unwrap().is_none(), "a stream ends in order");
        assert!(timestamps.message().await.unwrap().is_none());
    });
    let (code, said) = process.end();
    assert_eq!(code, 0);
    assert!(!said.contains("deadline"), "{said}");
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let args: Vec<&str> = ["dev", "--memory"].into_iter().chain(FREE).collect();
    let (mut process, ready) = Running::start(TINYKV, folder.path(), &args);
    block_on(async {
        let channel = channel(&ready["stores"][0]).await;
        let mut store = tonic::client::Grpc::new(channel.clone());
        store.ready().await.unwrap();
        // A unary call whose request never ends.
        let request = tonic::Request::new(tokio_stream::pending::<RawGetRequest>());
        let path = "/tikvpb.Tikv/RawGet".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<RawGetRequest, RawGetResponse>::default();
        let stuck = std::pin::pin!(store.client_streaming(request, path, codec));
        let mut health = HealthClient::new(channel);
        tokio::select! {
            biased;
            ended = stuck => panic!("ended with {:?}", ended.map(|_| ())),
            // Behind the other on the same connection: when it has its answer, the other has arrived.
            healthy = health.check(HealthCheckRequest::default()) => drop(healthy.unwrap()),
        }
        // Dropping the call would end it.
        process.signal(Signal::TERM);
        process.wait_for("stopping");
        process.signal(Signal::INT);
        assert_eq!(process.exit_code(), 130);
    });
}

/// A creation that was cut short, or a hand that removed the file: data is never begun over.
#[test]
fn a_folder_without_format_keeps_its_store_and_takes_no_other_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let args: Vec<&str> = ["dev", "--data", "data"].into_iter().chain(FREE).collect();
    let format = folder.path().join("data/store-1/FORMAT");

    let (process, ready) = Running::start(TINYKV, folder.path(), &args);
    let endpoint = ready["scheduler"].as_str().unwrap();
    let (code, _, said) = output(TINYKV, folder.path(), &["put", "k", "v", "-e", endpoint]);
    assert_eq!(code, 0, "{said}");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), 0);

    std::fs::remove_file(&format).unwrap();
    let (process, ready) = Running::start(TINYKV, folder.path(), &args);
    let endpoint = ready["scheduler"].as_str().unwrap();
    let (_, value, said) = output(TINYKV, folder.path(), &["get", "k", "-e", endpoint]);
    assert_eq!(value, "v\n", "{said}");
    assert!(format.exists());
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), 0);

    // Another scheduler is another cluster.
    std::fs::remove_file(&format).unwrap();
    std::fs::remove_dir_all(folder.path().join("data/scheduler")).unwrap();
    let (code, _, said) = output(TINYKV, folder.path(), &args);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("its engine holds store"), "{said}");
    assert!(!format.exists(), "it was left as it was");
}

#[test]
fn the_course_s_programs_run_as_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (scheduler, ready) = Running::start(
        SCHEDULER,
        &at("s"),
        &["-client-urls=http://127.0.0.1:0", "-data-dir", "data"],
    );
    let endpoint = ready["scheduler"].as_str().unwrap();
    assert_eq!(ready["stores"], serde_json::json!([]));

    let (store, ready) = Running::start(
        STORE,
        &at("kv"),
        &["-scheduler", endpoint, "--addr=127.0.0.1:0", "-path", "data"],
    );
    assert_eq!(ready["scheduler"], endpoint);
    assert_eq!(ready["stores"].as_array().unwrap().len(), 1);
    assert!(folder.path().join("kv/data/store-1/FORMAT").exists());
    assert!(folder.path().join("s/data/scheduler/FORMAT").exists());

    store.signal(Signal::TERM);
    assert_eq!(store.exit_code(), 0);
    scheduler.signal(Signal::INT);
    assert_eq!(scheduler.exit_code(), 1);
}

#[test]
fn a_taken_port_names_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let args: Vec<&str> = ["dev", "--memory"].into_iter().chain(FREE).collect();
    let args: Vec<&str> =
        args.iter().enumerate().map(|(i, arg)| if i == 3 { addr.as_str() } else { arg }).collect();
    let (code, stdout, stderr) = output(TINYKV, folder.path(), &args);
    assert_eq!((code, stdout.as_str()), (1, ""));
    let expected =
        format!("error[TK1004]: cannot listen on {addr}: in use by pid {} (", std::process::id());
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(stderr.contains("--scheduler-addr 127.0.0.1:0"), "{stderr}");
}

#[test]
fn configuration_errors_name_their_place_and_end_with_3() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("wrong.toml"),
        "[server]\nadr = \"127.0.0.1:1\"\n\n[log]\nlevel = 3\n",
    )
    .unwrap();
    for args in [&["config", "check", "wrong.toml"][..], &["dev", "--config-file", "wrong.toml"]] {
        let (code, stdout, stderr) = output(TINYKV, folder.path(), args);
        assert_eq!((code, stdout.as_str()), (3, ""), "{args:?}");
        assert!(
            stderr.starts_with("error[TK1021]: wrong.toml:2:1 unknown setting server.adr\n"),
            "{stderr}"
        );
        assert!(
            stderr.contains("error[TK1022]: wrong.toml:5:1 log.level takes one of"),
            "{stderr}"
        );
    }
    let (code, _, stderr) = output(TINYKV, folder.path(), &["dev", "--schedulers", "3"]);
    assert_eq!(code, 7, "{stderr}");
    let (code, _, stderr) = output(SCHEDULER, folder.path(), &["-L", "info", "word"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn the_sample_that_is_printed_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let (code, sample, _) = output(TINYKV, folder.path(), &["config", "sample"]);
    assert_eq!(code, 0);
    std::fs::write(folder.path().join("sample.toml"), sample).unwrap();
    let (code, stdout, stderr) = output(TINYKV, folder.path(), &["config", "check", "sample.toml"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "sample.toml: valid, 0 settings, 0 warnings\n");
}

#[test]
fn the_origin_of_a_value_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = command(TINYKV, folder.path())
        .env("TINYKV_LOG__FORMAT", "json")
        .args(["config", "show", "--origin", "-o", "plain", "--config", "storage.api=v2"])
        .output()
        .unwrap();
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert!(stdout.contains("log.format\tjson\tenv TINYKV_LOG__FORMAT\n"), "{stdout}");
    assert!(stdout.contains("storage.api\tv2\tflag --config storage.api=v2\n"), "{stdout}");
}
