//! Whole runs against an echo server in this process: real sockets, a fifth of a second each.

use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;

use super::*;
use crate::{
    echo_server::{Echo, serve},
    report::Figures,
    target::Servers,
    window::Measurement,
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn parse(line: &str) -> (Workload, LoadArgs) {
    let words = std::iter::once("bench").chain(line.split_ascii_whitespace());
    match Cli::try_parse_from(words).unwrap().bench.command {
        BenchCommand::RawGet(args) => (Workload::RawGet, args.load),
        BenchCommand::RawPut(args) => (Workload::RawPut, args.load),
        BenchCommand::RawMixed(args) => (Workload::RawMixed, args.load),
        BenchCommand::RawScan(args) => (Workload::RawScan, args.load),
        other => panic!("{other:?}"),
    }
}

/// An echo server in this process, as target.
async fn echo_target(load: &LoadArgs) -> TikvTarget {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, Echo::new(load.value_size)));
    let dataset = Dataset::new(b"", load.keys, load.value_size);
    echo::target(address, Servers::default(), dataset, load.connections(), load.batch, None)
        .unwrap()
}

/// Runs the load of a command line for a fifth of a second.
fn run_for_a_moment(line: &str) -> Measurement {
    let (workload, load) = parse(&format!("{line} --keys 1000 --seconds 0.2 --warmup 0.02"));
    load.check().unwrap();
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let target = echo_target(&load).await;
        target.load(load.seed).await.unwrap();
        let generator = generator(workload, &load, &target);
        measure(&target, generator, &load.plan(load.warmup), &Progress::hidden()).await.unwrap()
    })
}

fn assert_healthy(measurement: &Measurement) -> Figures {
    let figures = Figures::new(measurement);
    assert!(figures.ops > 0, "nothing was done: {figures:?}");
    assert_eq!(figures.errors, 0, "{:?}", figures.first_error);
    assert!(
        figures.p50_us > 0 && figures.p50_us <= figures.p99_us && figures.p99_us <= figures.max_us
    );
    assert!(figures.client_cpu_us_per_op.is_some());
    assert_eq!(
        figures.server_cpu_us_per_op, None,
        "the server is this process: its costs are not known"
    );
    figures
}

#[test]
fn unary_requests_of_every_workload() {
    for workload in ["raw-get", "raw-put", "raw-mixed", "raw-scan --scan-limit 5"] {
        let measurement = run_for_a_moment(&format!("{workload} --clients 8"));
        let figures = assert_healthy(&measurement);
        assert_eq!(figures.shed, 0);
        assert_eq!(
            measurement.recording.puts > 0,
            workload == "raw-put" || workload == "raw-mixed"
        );
    }
}

#[test]
fn batches_of_every_workload() {
    for workload in
        ["raw-get", "raw-put", "raw-mixed --distribution zipfian", "raw-scan --scan-limit 5"]
    {
        assert_healthy(&run_for_a_moment(&format!("{workload} --clients 64 --batch 16")));
    }
    // One message at a time over one of four connections.
    assert_healthy(&run_for_a_moment("raw-get --clients 16 --batch 16"));
    assert_healthy(&run_for_a_moment("raw-get --clients 1 --batch 1"));
}

#[test]
fn open_loops_keep_their_rate() {
    for line in ["raw-get --rate 1000", "raw-mixed --rate 1000 --batch 4 --arrivals constant"] {
        let measurement = run_for_a_moment(line);
        assert_healthy(&measurement);
        // Every request that was due has a latency, whatever the machine did meanwhile.
        let due = measurement.recording.latencies.len();
        assert!((120..=280).contains(&due), "{line}: {due} of 200 requests");
    }
}

#[test]
fn a_full_open_loop_sheds_and_says_so() {
    let measurement = run_for_a_moment("raw-get --rate 100000 --outstanding 1");
    let figures = Figures::new(&measurement);
    assert!(figures.shed > 0);
    assert_eq!(figures.errors, 0);
    // 20,000 were due; those that never began are in the histogram with their waiting time.
    let due = measurement.recording.latencies.len();
    assert!((19_000..=21_000).contains(&due), "{due} latencies");
    assert!(figures.p50_us > 10_000, "waiting is latency: {} us", figures.p50_us);
}

#[test]
fn values_of_the_wrong_key_are_counted() {
    let (workload, load) = parse("raw-get --clients 4 --keys 10 --seconds 0.2 --warmup 0");
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let figures = runtime.block_on(async {
        let target = echo_target(&load).await;
        // Asked with the checks of a real store, the echo server's values are wrong for all keys but one.
        let strict = Rc::new(Dataset::new(b"", load.keys, load.value_size));
        let target = target.with_dataset(strict);
        let generator = generator(workload, &load, &target);
        let measurement = measure(&target, generator, &load.plan(load.warmup), &Progress::hidden())
            .await
            .unwrap();
        Figures::new(&measurement)
    });
    assert!(figures.error_kinds.checksum > 0);
    assert_eq!(figures.errors, figures.error_kinds.checksum);
    assert!(figures.ops > 0, "those of key 0 are right");
}

#[test]
fn a_server_that_is_gone_is_errors_not_a_hang() {
    for line in ["raw-get --clients 4", "raw-get --clients 4 --batch 2"] {
        let (workload, load) = parse(&format!("{line} --keys 10 --seconds 0.2 --warmup 0"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let figures = runtime.block_on(async {
            // Bound and closed again: nobody listens there.
            let address =
                TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
            let dataset = Dataset::new(b"", load.keys, load.value_size);
            let target = echo::target(
                address,
                Servers::default(),
                dataset,
                load.connections(),
                load.batch,
                None,
            )
            .unwrap();
            let generator = generator(workload, &load, &target);
            let measurement =
                measure(&target, generator, &load.plan(load.warmup), &Progress::hidden())
                    .await
                    .unwrap();
            Figures::new(&measurement)
        });
        assert_eq!(figures.ops, 0);
        assert!(figures.error_kinds.rpc > 0, "{line}: {figures:?}");
        // The loops pause after a failure.
        assert!(figures.errors < 10_000, "{line}: {} errors", figures.errors);
    }
}

#[test]
fn two_targets_in_turns() {
    let (workload, load) = parse("raw-get --clients 8 --keys 100 --seconds 0.2");
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let rounds = runtime.block_on(async {
        let (ours, theirs) = (echo_target(&load).await, echo_target(&load).await);
        let generate = |target: &dyn Target| generator(workload, &load, target);
        compare::run(&ours, &theirs, generate, load.plan(Duration::ZERO), 2).await.unwrap()
    });
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert!(round.ours.ops > 0 && round.theirs.ops > 0);
        assert_eq!(round.ours.errors + round.theirs.errors, 0);
        assert!(round.ratio.unwrap() > 0.0);
    }
}

#[test]
fn contradicting_options_are_refused_before_anything_starts() {
    let run = |line: &str| {
        let words = std::iter::once("bench").chain(line.split_ascii_whitespace());
        run(Cli::try_parse_from(words).unwrap().bench, &[], true)
    };
    for line in ["raw-get --target etcd --batch 16", "raw-get --target echo --clients 3 --batch 2"]
    {
        assert!(matches!(run(line), Err(Error::Usage(_))), "{line}");
    }
    let error = run("raw-get").unwrap_err();
    assert!(matches!(error, Error::Scheduler { .. }), "no address was given: {error}");
}
