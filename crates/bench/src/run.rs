//! `tinykv bench`: opens the target, loads the keys, measures, prints.

use std::{
    io::{ErrorKind, Write},
    rc::Rc,
    time::Duration,
};

use serde::Serialize;
use tokio::runtime::{Builder, LocalOptions};
use types::ApiMode;

use crate::{
    args::{BenchArgs, BenchCommand, CompareArgs, LoadArgs, PeerName, RunArgs, TargetName},
    compare::{self, Comparison, Peer},
    echo_server,
    error::Error,
    interrupt::unless_signalled,
    keys::Dataset,
    progress::Progress,
    report::{Report, Setting},
    target::{
        Target, echo,
        etcd::EtcdTarget,
        tikv::{TikvOptions, TikvTarget},
    },
    window::measure,
    workload::{Generator, Workload},
};

/// Runs a benchmark and prints its report to standard output: JSON if `json`, else a table. `endpoints` are the
/// schedulers of the cluster that is measured (host:port).
///
/// Blocks until the benchmark ends. Ctrl-C ends a measurement early and reports what there is.
///
/// # Errors
/// The benchmark could not run (see [`Error`]). Failed requests are no error; they are in the report.
pub fn run(args: BenchArgs, endpoints: &[String], json: bool) -> Result<(), Error> {
    if let BenchCommand::EchoServer(args) = &args.command {
        return echo_server::run(args);
    }
    let machine = |source| Error::Machine { what: "an event loop", source };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(machine)?;
    let result = runtime.block_on(async {
        match args.command {
            BenchCommand::RawGet(args) => single(Workload::RawGet, args, endpoints, json).await,
            BenchCommand::RawPut(args) => single(Workload::RawPut, args, endpoints, json).await,
            BenchCommand::RawMixed(args) => single(Workload::RawMixed, args, endpoints, json).await,
            BenchCommand::RawScan(args) => single(Workload::RawScan, args, endpoints, json).await,
            BenchCommand::Compare(args) => two(args, endpoints, json).await,
            BenchCommand::EchoServer(_) => Ok(()), // above
            BenchCommand::Competition(_) => Err(Error::Usage(
                "the competition has a cluster of its own, which this crate can't start".to_owned(),
            )),
        }
    });
    // Connections of a server that is gone need no farewell.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// Measures one target.
async fn single(
    workload: Workload,
    args: RunArgs,
    endpoints: &[String],
    json: bool,
) -> Result<(), Error> {
    args.load.check()?;
    if args.target == TargetName::Etcd && args.load.batch.is_some() {
        return Err(Error::Usage("etcd has no BatchCommands: leave --batch out".to_owned()));
    }
    let open = open(args.target, workload, &args.load, endpoints);
    let target = unless_signalled(open).await?;
    let generator = generator(workload, &args.load, &*target);
    let setting = Setting::new(workload, target.name(), target.batch(), &args.load);
    let progress = Progress::new(&format!("{workload} on {}", target.name()));
    let measurement =
        measure(&*target, generator, &args.load.plan(args.load.warmup), &progress).await?;
    drop(progress);
    print(&Report::new(setting, &measurement), json)
}

/// Compares the cluster with a peer.
async fn two(args: CompareArgs, endpoints: &[String], json: bool) -> Result<(), Error> {
    args.load.check()?;
    let ours = open(TargetName::Tinykv, args.workload, &args.load, endpoints);
    let ours = unless_signalled(ours).await?;
    // etcd knows no batches: it is asked one by one, with as many in flight.
    let batch = args.load.batch.filter(|_| args.with.target() != TargetName::Etcd);
    let theirs = open(
        args.with.target(),
        args.workload,
        &LoadArgs { batch, ..args.load.clone() },
        endpoints,
    )
    .await?;
    let plan = args.load.plan(Duration::ZERO);
    let generate = |target: &dyn Target| generator(args.workload, &args.load, target);
    let rounds = compare::run(&*ours, &*theirs, generate, plan, args.rounds).await?;
    let setting = Setting::new(args.workload, ours.name(), ours.batch(), &args.load);
    let peer = Peer {
        with: theirs.name(),
        with_batch: theirs.batch().unwrap_or(0),
        with_members: (args.with == PeerName::Etcd).then_some(args.load.members),
    };
    print(&Comparison::new(setting, peer, rounds), json)
}

/// Opens a target and writes the keys to it if the workload reads them.
async fn open(
    name: TargetName,
    workload: Workload,
    load: &LoadArgs,
    endpoints: &[String],
) -> Result<Box<dyn Target>, Error> {
    let prefix: &[u8] = match (name, load.api) {
        // The raw keys of keyspace 0.
        (TargetName::Tinykv, ApiMode::V2) => b"r\0\0\0",
        _ => b"",
    };
    let dataset = Dataset::new(prefix, load.keys, load.value_size);
    let target: Box<dyn Target> = match name {
        TargetName::Tinykv => {
            let options = TikvOptions {
                endpoints: endpoints.to_vec(),
                api: load.api,
                connections: load.connections(),
                batch: load.batch,
                server_pids: load.server_pid.clone(),
                status: load.status.clone(),
            };
            Box::new(TikvTarget::open(options, Rc::new(dataset)).await?)
        }
        TargetName::Echo => {
            Box::new(echo::open(dataset, load.connections(), load.batch, load.echo_workers)?)
        }
        TargetName::Etcd => {
            let (members, data_dir) = (usize::from(load.members), load.data_dir.as_deref());
            Box::new(
                EtcdTarget::open(members, data_dir, Rc::new(dataset), load.connections()).await?,
            )
        }
    };
    // The echo server has every key from the start, which the sample shows.
    if workload.reads() && !load.no_load {
        target.load(load.seed).await?;
    }
    Ok(target)
}

/// The operations of one window.
fn generator(workload: Workload, load: &LoadArgs, target: &dyn Target) -> Generator {
    Generator::new(
        workload,
        target.dataset(),
        load.choice(),
        load.read_percent,
        load.scan_limit,
        load.seed,
    )
}

fn print(report: &(impl Serialize + std::fmt::Display), json: bool) -> Result<(), Error> {
    let text = match json {
        true => serde_json::to_string_pretty(report)
            .expect("a report has string keys and finite numbers"),
        false => report.to_string(),
    };
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Error::Machine { what: "to print", source }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
