//! What a process says and writes when it starts, without starting one.

use types::ClusterId;

use super::*;

fn ready(scheduler: bool, store: bool) -> Ready {
    let at = |is_on: bool, addr: &str| is_on.then(|| addr.parse().unwrap());
    Ready {
        cluster_id: ClusterId(7_312_099),
        scheduler: at(scheduler, "127.0.0.1:2379"),
        stores: at(store, "0.0.0.0:20160").into_iter().collect(),
        statuses: at(store, "127.0.0.1:20180").into_iter().collect(),
    }
}

fn launch(config: Config) -> Launch {
    let loaded = Loaded { config, origins: Default::default(), warnings: Vec::new() };
    Launch {
        loaded,
        roles: Roles::ALL,
        ready_file: None,
        print_ready: false,
        watched: true,
        color: false,
        flags: FlagNames {
            scheduler_addr: "--scheduler-addr",
            store_addr: "--addr",
            status_addr: "--status-addr",
        },
    }
}

#[test]
fn the_ready_file_has_the_addresses_that_others_dial() {
    let mut config = Config::default();
    config.server.advertise_addr = "10.0.0.5:0".to_owned();
    let json: serde_json::Value =
        serde_json::from_str(&Addresses::new(&config, &ready(true, true)).to_json()).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["scheduler"], "127.0.0.1:2379");
    assert_eq!(json["schedulers"], serde_json::json!(["127.0.0.1:2379"]));
    assert_eq!(json["stores"], serde_json::json!(["10.0.0.5:20160"]));
    assert_eq!(json["status"], serde_json::json!(["127.0.0.1:20180"]));

    config.scheduler.endpoints = vec!["10.0.0.1:2379".to_owned(), "10.0.0.2:2379".to_owned()];
    let alone: serde_json::Value =
        serde_json::from_str(&Addresses::new(&config, &ready(false, true)).to_json()).unwrap();
    assert_eq!(alone["scheduler"], "10.0.0.1:2379");
    assert_eq!(alone["schedulers"].as_array().unwrap().len(), 2);
    let scheduler = Addresses::new(&config, &ready(true, false));
    assert!(scheduler.stores.is_empty() && scheduler.status.is_empty());
}

#[test]
fn the_ready_file_appears_whole_and_a_stale_one_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ready.json");
    remove_stale(&path).unwrap();
    write_ready_file(&path, "{}\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
    remove_stale(&path).unwrap();
    assert!(!path.exists());

    let error = write_ready_file(&folder.path().join("missing/ready.json"), "{}").unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
}

#[test]
fn the_banner_says_where_to_connect_and_what_to_try() {
    let config = Config::default();
    let addresses = Addresses::new(&config, &ready(true, true));
    let banner = |data, addresses, memory_used| {
        Banner {
            version: "0.1.0",
            cluster_id: 7_312_099,
            data,
            addresses,
            memory_limit: 256 << 20,
            memory_used,
            elapsed: Duration::from_millis(137),
        }
        .to_string()
    };
    insta::assert_snapshot!(banner(Some(Path::new("./tinykv-data")), &addresses, Some(38 << 20)), @r"
    tinykv 0.1.0 · dev cluster 7312099 · data in ./tinykv-data (--memory keeps nothing)

      scheduler  127.0.0.1:2379     any TiKV client connects here
      store      127.0.0.1:20160
      status     http://127.0.0.1:20180/metrics
      memory     256 MiB limit · 38.0 MiB used

    ready in 0.14 s — try:  tinykv put hello world && tinykv get hello
    Ctrl-C stops it; twice stops it now.
    ");
    let elsewhere = Addresses {
        scheduler: Some("127.0.0.1:41001".to_owned()),
        schedulers: vec!["127.0.0.1:41001".to_owned()],
        stores: vec!["127.0.0.1:41002".to_owned()],
        status: Vec::new(),
    };
    insta::assert_snapshot!(banner(None, &elsewhere, None), @r"
    tinykv 0.1.0 · dev cluster 7312099 · data in memory, nothing is kept

      scheduler  127.0.0.1:41001    any TiKV client connects here
      store      127.0.0.1:41002
      memory     256 MiB limit

    ready in 0.14 s — try:  tinykv put hello world -e 127.0.0.1:41001 && tinykv get hello -e 127.0.0.1:41001
    Ctrl-C stops it; twice stops it now.
    ");
}

#[test]
fn few_files_are_a_warning_and_too_few_an_error() {
    let judge = |before, after| {
        judge_file_limit(before, after).map(|warning| warning.map(|problem| problem.message))
    };
    assert_eq!(judge(Some(1024), Some(1_048_576)).unwrap(), None);
    assert_eq!(judge(Some(1024), None).unwrap(), None);
    assert_eq!(
        judge(Some(256), Some(1024)).unwrap().unwrap(),
        "the limit of open files raised 256 to 1024 (the hard limit)"
    );
    assert_eq!(
        judge(Some(256), Some(256)).unwrap().unwrap(),
        "the limit of open files is 256 (the hard limit)"
    );
    assert_eq!(judge(Some(255), Some(255)).unwrap_err().code(), Some(Code::LowFileLimit));
}

#[test]
fn a_taken_port_says_who_has_it_and_which_flag_moves_ours() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut config = Config::default();
    config.server.addr = addr.clone();
    let error = StartError::new(
        Code::AddressInUse,
        format!("cannot listen on {addr}: Address already in use"),
    );
    let text = explain_start(&launch(config), &error).to_text(output::Style::Plain);
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(&format!(
        "error[TK1004]: cannot listen on {addr}: in use by pid {} (",
        std::process::id()
    )));
    assert!(text.contains("--addr 127.0.0.1:0, or: tinykv status"), "{text}");

    assert!(names("cannot listen on 127.0.0.1:2379: taken", "127.0.0.1:2379"));
    assert!(!names("cannot listen on 127.0.0.1:23790: taken", "127.0.0.1:2379"));
    assert!(!names("anything", ""));
}

#[tokio::test]
async fn a_store_waits_for_its_scheduler_and_names_every_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = listener.local_addr().unwrap().to_string();
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().to_string()
    };
    find_scheduler(&[closed.clone(), listening], 1, Duration::from_secs(10)).await.unwrap();

    let endpoints = [closed.clone(), "nowhere.invalid:1".to_owned()];
    let error = find_scheduler(&endpoints, 2, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::SchedulerUnreachable));
    let text = error.to_text(output::Style::Plain);
    assert!(text.contains(&format!("no scheduler answered: {closed} ")), "{text}");
    assert!(text.contains(", nowhere.invalid:1 "), "{text}");
}

#[test]
fn people_are_spoken_to_only_where_no_program_reads() {
    let talks = |change: fn(&mut Launch)| {
        let mut launch = launch(Config::default());
        change(&mut launch);
        (launch.talks(), launch.is_log_watched())
    };
    assert_eq!(talks(|_| ()), (true, true));
    assert_eq!(talks(|launch| launch.watched = false), (false, false));
    assert_eq!(talks(|launch| launch.loaded.config.log.format = LogFormat::Json), (false, false));
    let to_file = talks(|launch| {
        launch.loaded.config.log.format = LogFormat::Json;
        launch.loaded.config.log.file = PathBuf::from("tinykv.log");
    });
    assert_eq!(to_file, (true, false));
}
