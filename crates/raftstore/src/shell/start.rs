//! Start and end of a store's threads.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use engine::{
    Engine,
    raft_log::{RaftLog, RaftLogWriter},
};
use raft::ReadMode;
use runtime::Clock;

use super::{
    Events, StoreHandle, Transport, Views, Waiter,
    apply::ApplyWorker,
    inbox::Inbox,
    jobs::{self, KeyFormNow, Tools},
    log::LogWriter,
    poll::{Poll, PollState},
};
use crate::{
    StoreConfig,
    apply::{Applier, Machine},
    error::{Error, Result},
    snapshot::Snapshots,
    store::Store,
};

/// By how many percent the clocks of two stores may differ in rate.
const DRIFT_PERCENT: u32 = 5;

/// Says whether the disk has room.
pub type HasRoom = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a store's threads are set.
#[derive(Clone)]
pub struct Options {
    /// The store's own settings. How reads are made safe is set here: by leases.
    pub config: StoreConfig,
    /// The interval of ticks.
    pub tick: Duration,
    /// How keys are stored, which says where a region may be cut.
    pub key_form: KeyFormNow,
    /// Whether the disk has room for more than what is under way. Asked with each tick; without room, leaders refuse what
    /// needs more.
    pub has_room: HasRoom,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("tick", &self.tick).finish_non_exhaustive()
    }
}

/// What a store is made of.
#[derive(Debug)]
pub struct Parts<M> {
    /// The data.
    pub engine: Arc<dyn Engine>,
    /// The log of all regions.
    pub log: RaftLog,
    /// Its other end.
    pub log_writer: RaftLogWriter,
    /// The files of snapshots.
    pub snapshots: Snapshots,
    /// What commands mean.
    pub machine: M,
    /// The way to other stores.
    pub transport: Arc<dyn Transport>,
    /// Who hears of what happens.
    pub events: Arc<dyn Events>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The store's randomness: election timeouts.
    pub rng: runtime::Rng,
}

/// A store that runs. End it with [`stop`](StoreShell::stop).
pub struct StoreShell<A, W> {
    handle: StoreHandle<A, W>,
    threads: Vec<JoinHandle<()>>,
}

impl<A, W> fmt::Debug for StoreShell<A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreShell").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<A: fmt::Debug + Send + 'static, W: Waiter<A>> StoreShell<A, W> {
    /// Opens the store that the parts remember, and starts its threads.
    ///
    /// # Errors
    /// What is remembered contradicts itself; the machine gives no thread.
    pub fn start<M>(options: Options, parts: Parts<M>) -> Result<StoreShell<A, W>>
    where
        M: Machine<Answer = A> + 'static,
    {
        let Options { mut config, tick, key_form, has_room } = options;
        let Parts { engine, log, log_writer, snapshots, machine, transport, events, clock, rng } =
            parts;
        let ticks = config.core.election_ticks - 1;
        config.core.read_mode = ReadMode::Lease { ticks, drift_percent: DRIFT_PERCENT };
        let lease = tick * ticks * (100 - DRIFT_PERCENT) / 100;
        let limits = config.split;
        let store = Store::open(config, Arc::clone(&engine), log.clone(), &snapshots, rng)?;
        let applier = Applier::new(Arc::clone(&engine), machine);

        let inbox = Arc::new(Inbox::new());
        let views = Arc::new(Views::new(Arc::clone(&clock), lease));
        let log = Arc::new(LogWriter::new(log, log_writer, Arc::clone(&clock)));
        let apply = Arc::new(ApplyWorker::new(applier, snapshots.clone()));
        let (jobs, jobs_to_do) = mpsc::channel();
        let (syncs, syncs_to_do) = mpsc::channel();
        let now = clock.monotonic();
        let handle = StoreHandle {
            inbox: Arc::clone(&inbox),
            views: Arc::clone(&views),
            log: Arc::clone(&log),
        };
        let mut poll = Poll {
            store,
            inbox,
            views,
            log: Arc::clone(&log),
            apply: Arc::clone(&apply),
            jobs,
            syncs,
            transport,
            events,
            snapshots: snapshots.clone(),
            clock,
            tick,
            has_room,
            state: PollState::new(now, tick),
        };

        let mut threads = Vec::new();
        let mut spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread =
                runtime::task::spawn(name, body).map_err(|error| no_thread(name, error))?;
            threads.push(thread);
            Ok::<(), Error>(())
        };
        for (name, to_do) in [("raft-jobs", jobs_to_do), ("raft-sync", syncs_to_do)] {
            let (engine, snapshots) = (Arc::clone(&engine), snapshots.clone());
            let key_form = Arc::clone(&key_form);
            let tools = Tools { engine, snapshots, limits, key_form };
            let inbox = Arc::clone(&handle.inbox);
            let run = move || jobs::run(&to_do, &tools, &inbox);
            spawn(name, Box::new(guarded(&handle, run)))?;
        }
        let inbox = Arc::clone(&handle.inbox);
        spawn("raft-log", Box::new(guarded(&handle, move || log.run(&inbox))))?;
        let inbox = Arc::clone(&handle.inbox);
        spawn("raft-apply", Box::new(guarded(&handle, move || apply.run(&inbox))))?;
        poll.begin()?;
        spawn("raft-poll", Box::new(guarded(&handle, move || poll.run())))?;
        Ok(StoreShell { handle, threads })
    }

    /// The way in.
    pub fn handle(&self) -> &StoreHandle<A, W> {
        &self.handle
    }

    /// Takes nothing more, answers what waits, and ends the threads. Blocks.
    pub fn stop(self) {
        self.handle.inbox.close();
        for thread in self.threads {
            // A panic has stopped the store already.
            let _ = thread.join();
        }
    }
}

/// A body that stops the store when it panics, so that nobody waits for ever.
fn guarded<A: Send + 'static, W: Waiter<A>>(
    handle: &StoreHandle<A, W>,
    body: impl FnOnce() + Send + 'static,
) -> impl FnOnce() + Send + 'static {
    struct Guard<A: Send + 'static, W: Waiter<A>>(StoreHandle<A, W>);
    impl<A: Send + 'static, W: Waiter<A>> Drop for Guard<A, W> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let detail = "a bug; see the message of the panic".to_owned();
                let path = Path::new("the store").to_owned();
                self.0.fail(Error::Engine(engine::Error::Corrupt { path, detail }));
            }
        }
    }
    let guard = Guard(handle.clone());
    move || {
        let _guard = guard;
        body();
    }
}

fn no_thread(name: &str, error: io::Error) -> Error {
    Error::Engine(engine::Error::Io {
        operation: "start of a thread",
        path: name.into(),
        source: Arc::new(error),
    })
}
