//! Layers, origins, problems and spelling of the configuration, from text in to text out.

use super::*;
use types::Code;

fn with_file(text: &str) -> Sources {
    Sources {
        file: Some(File { name: PathBuf::from("tinykv.toml"), text: text.to_owned() }),
        ..Sources::new(Base::Dev)
    }
}

fn errors_of(text: &str) -> String {
    report(&load(with_file(text)).unwrap_err().problems)
}

/// Code, place, message and remedy of each problem, as the command line shows them.
fn report(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {problem} / {}", problem.code, problem.remedy()))
        .collect();
    lines.join("\n")
}

#[test]
fn later_layers_win_and_every_value_remembers_its_source() {
    let loaded = load(Sources {
        environment: vec![
            ("PATH".to_owned(), "/bin".to_owned()),
            ("TINYKV_ENDPOINTS".to_owned(), "10.0.0.9:2379".to_owned()),
            ("TINYKV_LOG__LEVEL".to_owned(), "warn".to_owned()),
            ("TINYKV_RAFTSTORE__PD_HEARTBEAT_TICK_INTERVAL".to_owned(), "30s".to_owned()),
        ],
        settings: vec!["log.level=debug".to_owned(), "memory.limit=96MB".to_owned()],
        flags: vec![Flag::new("--addr", "server.addr", "127.0.0.1:0")],
        ..with_file(
            "[server]\naddr = \"127.0.0.1:1\"\n\n[log]\nlevel = \"error\"\nformat = \"json\"\n",
        )
    })
    .unwrap();

    assert_eq!(loaded.config.server.addr, "127.0.0.1:0");
    assert_eq!(loaded.config.log.level, LogLevel::Debug);
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.config.memory.limit, ByteSize::mib(96));
    assert_eq!(loaded.config.raftstore.pd_heartbeat_tick_interval, Duration::from_secs(30));

    let origin = |setting| loaded.origin(setting).to_string();
    assert_eq!(origin("server.addr"), "flag --addr");
    assert_eq!(origin("log.level"), "flag --config log.level=debug");
    assert_eq!(origin("log.format"), "file tinykv.toml:6");
    assert_eq!(
        origin("raftstore.pd-heartbeat-tick-interval"),
        "env TINYKV_RAFTSTORE__PD_HEARTBEAT_TICK_INTERVAL"
    );
    assert_eq!(origin("storage.api"), "default");
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.rows().count(), SETTINGS.len());
}

#[test]
fn every_form_of_a_table_is_read() {
    for text in [
        "[server]\nstatus-addr = \"127.0.0.1:9\"\n[node]\nlabels = { zone = \"a\", host = \"h\" }\n",
        "server.status-addr = \"127.0.0.1:9\"\n[node.labels]\nzone = \"a\"\nhost = \"h\"\n",
        "server = { status-addr = \"127.0.0.1:9\" }\nnode.labels.zone = \"a\"\nnode.labels.host = \"h\"\n",
    ] {
        let config = load(with_file(text)).unwrap().config;
        assert_eq!(config.server.status_addr, "127.0.0.1:9");
        assert_eq!(config.node.labels.len(), 2);
        assert_eq!(config.node.labels["zone"], "a");
    }
    let flags = Sources {
        settings: vec![
            "node.labels=zone=a,host=h".to_owned(),
            "scheduler.endpoints=a:1, b:2".to_owned(),
        ],
        ..Sources::new(Base::Dev)
    };
    let config = load(flags).unwrap().config;
    assert_eq!(config.node.labels["host"], "h");
    assert_eq!(config.scheduler.endpoints, ["a:1", "b:2"]);
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let text = "\
[server]
adr = \"127.0.0.1:20160\"
status-addr = \"20180\"
grpc-concurrency = -1

[memory]
limit = \"lots\"

[storage]
api = \"v3\"
sync = true
ttl-check-poll-interval = \"soon\"

[nonsense]
x = 1
";
    insta::assert_snapshot!(errors_of(text), @r#"
    TK1021: tinykv.toml:2:1 unknown setting server.adr / server.addr
    TK1022: tinykv.toml:3:1 server.status-addr takes HOST:PORT, not "20180" / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:4:1 server.grpc-concurrency takes a whole number, not negative, not -1 / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:7:1 memory.limit is wrong: "lots" is not a size: write a number and a unit, such as 256MiB / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:10:1 storage.api takes one of v1, v1ttl, v2, not "v3" / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:11:1 storage.sync takes one of always, os, not a truth value / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:12:1 storage.ttl-check-poll-interval takes a duration such as "10s" or "1h30m", not "soon" / `tinykv config sample` shows what each setting takes
    TK1021: tinykv.toml:15:1 unknown setting nonsense.x / `tinykv config sample` prints all of them
    "#);
}

#[test]
fn flags_and_environment_are_named_in_errors() {
    let error = load(Sources {
        environment: vec![("TINYKV_SERVER__ADR".to_owned(), "x".to_owned())],
        settings: vec!["log.level=loud".to_owned(), "no-value".to_owned()],
        flags: vec![Flag::new("--addr", "server.addr", "20160")],
        ..Sources::new(Base::Dev)
    })
    .unwrap_err();
    insta::assert_snapshot!(report(&error.problems), @r#"
    TK1021: TINYKV_SERVER__ADR: unknown setting server.adr / server.addr
    TK1022: --config log.level=loud: log.level takes one of trace, debug, info, warn, error, off, not "loud" / `tinykv config sample` shows what each setting takes
    TK1022: --config no-value: takes KEY=VALUE / --config server.addr=127.0.0.1:20160
    TK1022: --addr: server.addr takes HOST:PORT, not "20160" / `tinykv config sample` shows what each setting takes
    "#);
    assert_eq!(error.code(), Code::UnknownSetting);
}

#[test]
fn the_course_s_log_level_is_the_weakest_variable() {
    let level = |environment: &[(&str, &str)]| {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        load(Sources { environment, ..Sources::new(Base::Dev) }).unwrap().config.log.level
    };
    assert_eq!(level(&[]), LogLevel::Warn);
    assert_eq!(level(&[("LOG_LEVEL", "Warning")]), LogLevel::Warn);
    assert_eq!(level(&[("LOG_LEVEL", "fatal")]), LogLevel::Error);
    assert_eq!(level(&[("TINYKV_LOG__LEVEL", "debug"), ("LOG_LEVEL", "info")]), LogLevel::Debug);
}

#[test]
fn text_that_is_no_toml_gives_every_syntax_error() {
    insta::assert_snapshot!(errors_of("[server\naddr = \"x\"\n\n[log]\nlevel = \nformat = \"json\"\nformat = \"text\"\n"), @"
    TK1022: tinykv.toml:1:8 unclosed table, expected `]` / `tinykv config sample` prints a file that is valid
    TK1022: tinykv.toml:5:9 string values must be quoted, expected literal string / `tinykv config sample` prints a file that is valid
    TK1022: tinykv.toml:7:1 duplicate key / `tinykv config sample` prints a file that is valid
    ");
}

#[test]
fn suggestions_name_the_nearest_setting() {
    let nearest = |name: &str| {
        let sources = Sources { settings: vec![format!("{name}=x")], ..Sources::new(Base::Dev) };
        load(sources).unwrap_err().problems.remove(0).remedy
    };
    assert_eq!(nearest("server.adr").as_deref(), Some("server.addr"));
    assert_eq!(nearest("sever.addr").as_deref(), Some("server.addr"));
    assert_eq!(nearest("log.levle").as_deref(), Some("log.level"));
    assert_eq!(nearest("data_dir").as_deref(), Some("node.data-dir"));
    assert_eq!(nearest("status-addr").as_deref(), Some("server.status-addr"));
    assert_eq!(
        nearest("raftstore.pd-heartbeat-tick-intervall").as_deref(),
        Some("raftstore.pd-heartbeat-tick-interval")
    );
    assert_eq!(nearest("something.else.entirely"), None);
}

#[test]
fn files_of_tikv_start_with_a_few_warnings() {
    let text = "\
log-level = \"warn\"
slow-log-file = \"slow.log\"
memory-usage-limit = \"1GB\"
[log.file]
filename = \"tikv.log\"
max-size = 300
[server]
addr = \"127.0.0.1:20160\"
grpc-concurrency = 4
grpc-compression-type = \"none\"
labels = { zone = \"z\" }
[storage]
data-dir = \"/data\"
engine = \"raft-kv\"
api-version = 2
enable-ttl = true
scheduler-worker-pool-size = 4
[storage.block-cache]
capacity = \"1GB\"
[pd]
endpoints = [\"http://10.0.0.1:2379\", \"10.0.0.2:2379\"]
[raftstore]
pd-heartbeat-tick-interval = \"20s\"
store-pool-size = 2
apply-pool-size = 2
[rocksdb.defaultcf]
block-size = \"64KB\"
write-buffer-size = \"128MB\"
[security]
ca-path = \"\"
cert-path = \"\"
redact-info-log = \"marker\"
";
    let loaded = load(with_file(text)).unwrap();
    let config = &loaded.config;
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.log.file, PathBuf::from("tikv.log"));
    assert_eq!(config.memory.limit, ByteSize::gib(1));
    assert_eq!(config.server.grpc_concurrency, 4);
    assert_eq!(config.node.labels["zone"], "z");
    assert_eq!(config.node.data_dir, PathBuf::from("/data"));
    assert_eq!(config.storage.api, ApiMode::V2);
    assert_eq!(config.scheduler.endpoints, ["10.0.0.1:2379", "10.0.0.2:2379"]);
    assert_eq!(config.raftstore.pd_heartbeat_tick_interval, Duration::from_secs(20));
    assert_eq!(loaded.origin("node.data-dir").to_string(), "file tinykv.toml:13");
    insta::assert_snapshot!(report(&loaded.warnings), @"
    TK1024: tinykv.toml:2:1 slow-log-file has no effect here / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:6:1 log.file.max-size has no effect here / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:10:1 server.grpc-compression-type has no effect here / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:14:1 storage.engine has no effect here: the engines here are fjall, rocksdb and memory / leave it out, or leave it in: it does no harm; `tinykv config sample` prints the settings that count
    TK1024: tinykv.toml:16:1 storage.enable-ttl has no effect here: storage.api = \"v1ttl\" turns time to live on / leave it out, or leave it in: it does no harm; `tinykv config sample` prints the settings that count
    TK1024: tinykv.toml:17:1 2 settings of [storage] have no effect here, storage.scheduler-worker-pool-size is the first / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:24:1 2 settings of [raftstore] have no effect here, raftstore.store-pool-size is the first / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:27:1 2 settings of [rocksdb] have no effect here, rocksdb.defaultcf.block-size is the first / they are TiKV's or PD's; `tinykv config sample` prints ours
    TK1024: tinykv.toml:30:1 3 settings of [security] have no effect here, security.ca-path is the first / they are TiKV's or PD's; `tinykv config sample` prints ours
    ");
}

#[test]
fn files_of_the_course_and_of_pd_start_too() {
    let text = "\
name = \"pd-1\"
data-dir = \"/pd\"
client-urls = \"http://127.0.0.1:1234\"
peer-urls = \"http://127.0.0.1:2380\"
initial-cluster = \"pd=http://127.0.0.1:2380\"
lease = 3
tso-save-interval = \"3s\"
[log]
level = \"debug\"
[schedule]
max-store-down-time = \"1h\"
leader-schedule-limit = 4
[[schedule.schedulers]]
type = \"balance-region\"
[replication]
max-replicas = 5
location-labels = []
";
    let loaded = load(with_file(text)).unwrap();
    assert_eq!(loaded.config.node.name, "pd-1");
    assert_eq!(loaded.config.scheduler.addr, "127.0.0.1:1234");
    assert_eq!(loaded.config.schedule.max_store_down_time, Duration::from_secs(3600));
    assert_eq!(loaded.origin("schedule.leader-schedule-limit").to_string(), "file tinykv.toml:12");
    assert_eq!(loaded.config.replication.max_replicas, 5);
    assert_eq!(loaded.warnings.len(), 3, "{}", report(&loaded.warnings));
    assert!(loaded.warnings.iter().all(|warning| warning.code == Code::IgnoredSetting));
}

#[test]
fn what_would_be_less_safe_than_it_says_is_refused() {
    let text = "\
initial-cluster = \"a=http://10.0.0.1:2380,b=http://10.0.0.2:2380\"
client-urls = \"https://127.0.0.1:2379\"
[security]
ca-path = \"ca.pem\"
";
    insta::assert_snapshot!(errors_of(text), @"
    TK1023: tinykv.toml:1:1 initial-cluster names several schedulers; this version runs one / leave it out; the changelog says which version brings it
    TK1023: tinykv.toml:2:1 client-urls: https asks for TLS, which this version does not have / leave it out; the changelog says which version brings it
    TK1023: tinykv.toml:4:1 security.ca-path asks for TLS, which this version does not have: connections would be plain text / leave it out; the changelog says which version brings it
    ");
    assert!(
        load(with_file(text))
            .unwrap_err()
            .problems
            .iter()
            .all(|problem| problem.code == Code::NotAvailableYet)
    );
}

#[test]
fn our_own_name_wins_over_theirs_in_one_file() {
    for text in [
        "data-dir = \"/theirs\"\n[node]\ndata-dir = \"/ours\"\n",
        "node.data-dir = \"/ours\"\ndata-dir = \"/theirs\"\n",
    ] {
        assert_eq!(load(with_file(text)).unwrap().config.node.data_dir, PathBuf::from("/ours"));
    }
}

#[test]
fn an_advertised_wildcard_is_refused_and_a_listening_one_resolved() {
    let machine = Machine { address: Some([10, 0, 0, 5].into()), ..Machine::default() };
    let sources = |text: &str| Sources { machine: machine.clone(), ..with_file(text) };

    let error = load(sources("[server]\nadvertise-addr = \"0.0.0.0:20160\"\n")).unwrap_err();
    insta::assert_snapshot!(report(&error.problems), @"TK1031: tinykv.toml:2:1 other nodes cannot dial 0.0.0.0:20160 / --advertise-addr 10.0.0.5:20160 (address of this host's default route)");

    let loaded =
        load(sources("[server]\naddr = \"0.0.0.0:20160\"\n[scheduler]\naddr = \"[::]:0\"\n"))
            .unwrap();
    assert_eq!(loaded.config.server.advertise_addr, "10.0.0.5:20160");
    assert_eq!(loaded.config.scheduler.advertise_addr, "10.0.0.5:0");
    assert_eq!(
        loaded.origin("server.advertise-addr").to_string(),
        "detected: the address of the default route"
    );
    // Both listen beyond this machine, in plain text.
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings.iter().all(|warning| warning.code == Code::PlainText));

    let alone = load(with_file("server.addr = \"0.0.0.0:20160\"\n")).unwrap();
    assert_eq!(alone.config.server.advertise_addr, "127.0.0.1:20160");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let text = "\
[server]
addr = \"127.0.0.1:2379\"
status-addr = \"0.0.0.0:2379\"
[scheduler]
endpoints = [\"0.0.0.0:2379\", \"here\"]
[node]
data-dir = \"\"
[memory]
limit = \"1MB\"
[raftstore]
pd-heartbeat-tick-interval = \"0s\"
";
    insta::assert_snapshot!(errors_of(text), @r#"
    TK1022: tinykv.toml:2:1 server.addr is 127.0.0.1:2379, where scheduler.addr listens too / give each a port of its own; port 0 takes a free one
    TK1022: tinykv.toml:3:1 server.status-addr is 0.0.0.0:2379, where scheduler.addr listens too / give each a port of its own; port 0 takes a free one
    TK1022: tinykv.toml:5:1 scheduler.endpoints has 0.0.0.0:2379, which nobody can dial / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:5:1 scheduler.endpoints takes HOST:PORT, not "here" / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:7:1 node.data-dir is empty / node.data-dir = "./tinykv-data"
    TK1022: tinykv.toml:9:1 memory.limit is 1MiB, less than 32MiB / `tinykv config sample` shows what each setting takes
    TK1022: tinykv.toml:11:1 raftstore.pd-heartbeat-tick-interval is shorter than 10ms / `tinykv config sample` shows what each setting takes
    "#);
    // Only the listeners of this process clash.
    let alone = Sources {
        roles: crate::Roles { scheduler: false, store: true },
        settings: vec!["server.addr=127.0.0.1:2379".to_owned()],
        ..Sources::new(Base::Server)
    };
    assert!(load(alone).is_ok());
    // Free ports never clash.
    let free = "server.addr = \"127.0.0.1:0\"\nserver.status-addr = \"127.0.0.1:0\"\nscheduler.addr = \"127.0.0.1:0\"\n";
    assert!(load(with_file(free)).is_ok());
}

#[test]
fn unsynced_writes_are_allowed_with_a_warning() {
    let loaded = load(with_file("storage.sync = \"os\"\n")).unwrap();
    assert_eq!(loaded.warnings[0].code, Code::UnsyncedWrites);
    assert!(
        load(with_file("storage.sync = \"os\"\nstorage.engine = \"memory\"\n"))
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn the_memory_limit_follows_the_machine_of_a_server_only() {
    let limit = |base, memory| {
        let machine = Machine { memory, ..Machine::default() };
        load(Sources { machine, ..Sources::new(base) }).unwrap()
    };
    assert_eq!(limit(Base::Dev, Some(ByteSize::gib(64))).config.memory.limit, ByteSize::mib(256));
    let server = limit(Base::Server, Some(ByteSize::gib(4)));
    assert_eq!(server.config.memory.limit, ByteSize::gib(1));
    assert_eq!(
        server.origin("memory.limit").to_string(),
        "detected: a quarter of 4GiB of the machine, within bounds"
    );
    assert_eq!(limit(Base::Server, Some(ByteSize::gib(64))).config.memory.limit, ByteSize::gib(8));
    assert_eq!(
        limit(Base::Server, Some(ByteSize::mib(100))).config.memory.limit,
        ByteSize::mib(128)
    );
    assert_eq!(limit(Base::Server, None).config.memory.limit, ByteSize::mib(256));
}

#[test]
fn the_course_s_programs_have_its_names_and_no_fixed_status_port() {
    let machine = Machine { hostname: Some("host".to_owned()), ..Machine::default() };
    let config = load(Sources { machine, ..Sources::new(Base::Course) }).unwrap().config;
    assert_eq!(
        (config.node.name.as_str(), config.server.status_addr.as_str()),
        ("pd-host", "127.0.0.1:0")
    );
    assert_eq!(config.log.level, LogLevel::Info);
}

#[test]
fn the_sample_is_the_defaults_whether_settings_are_on_or_off() {
    let with_file = |text: &str| Sources { base: Base::Server, ..with_file(text) };
    let sample = sample();
    let off = load(with_file(&sample)).unwrap();
    assert_eq!((&off.config, off.origins.len()), (&Config::default(), 0));

    let switched_on: String = sample
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let on = load(with_file(&switched_on)).unwrap();
    assert_eq!((&on.config, on.origins.len()), (&Config::default(), SETTINGS.len()));
    assert_eq!(on.warnings, []);
    insta::assert_snapshot!("sample", sample);
}

#[test]
fn json_has_every_setting_under_its_name() {
    let json = Config::default().to_json();
    for setting in SETTINGS {
        let (section, key) = setting.name.split_once('.').unwrap();
        assert!(json[section].get(key).is_some(), "{}", setting.name);
    }
    assert_eq!(json["server"]["addr"], "127.0.0.1:20160");
    assert_eq!(json["scheduler"]["endpoints"][0], "127.0.0.1:2379");
    assert_eq!(json["raftstore"]["pd-heartbeat-tick-interval"], "1m");
}

#[test]
fn names_are_unique_and_have_the_section_they_stand_in() {
    let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    for name in &names {
        let (section, key) = name.split_once('.').unwrap();
        assert!(SECTIONS.iter().any(|(known, _)| *known == section), "{name}");
        assert!(!key.contains(['_', '.']), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SETTINGS.len());
}

#[test]
fn shares_of_the_memory_limit() {
    let memory = MemorySettings { limit: ByteSize::mib(256) };
    assert_eq!((memory.block_cache(), memory.memtables()), (ByteSize::mib(96), ByteSize::mib(64)));
    let mut server = Config::default().server;
    assert_eq!((server.threads(1), server.threads(8)), (1, 4));
    server.grpc_concurrency = 3;
    assert_eq!(server.threads(8), 3);
}
