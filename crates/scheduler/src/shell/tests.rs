//! Tests of the shell: who waits for a sync and who does not, what happens when one fails or hangs, start and stop.
//!
//! Syncs are held by a gate of the simulated disk, so nothing here depends on how fast anything is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use runtime::sim::{SimClock, SimFs};
use types::{KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId};

use super::*;
use crate::{ClusterConfig, Instruction, RegionInfo, Store, StoreFilter, StoreStats};

const START: Duration = Duration::from_secs(1_000_000);

struct World {
    fs: SimFs,
    clock: Arc<SimClock>,
}

impl World {
    fn new() -> World {
        World { fs: SimFs::new(), clock: Arc::new(SimClock::new(START)) }
    }

    /// Syncs hang until the result is dropped. A test that fails meanwhile drops it before it drops the scheduler,
    /// which would wait for them.
    fn hold_syncs(&self) -> Gate<'_> {
        self.fs.hold_syncs();
        Gate(&self.fs)
    }

    fn open_with(&self, options: Options) -> Result<SchedulerHandle> {
        SchedulerHandle::open(
            Arc::new(self.fs.clone()),
            self.clock.clone(),
            Path::new("/data/scheduler"),
            options,
        )
    }

    fn open(&self) -> SchedulerHandle {
        self.open_with(options()).unwrap()
    }

    fn bootstrapped(&self) -> SchedulerHandle {
        let handle = self.open();
        block_on(handle.run(|s, _| s.bootstrap(store(1), vec![region(2)], ApiMode::V1))).unwrap();
        handle
    }
}

struct Gate<'a>(&'a SimFs);

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.0.release_syncs();
    }
}

fn options() -> Options {
    Options::new(ApiMode::V1, Rng::new(1))
}

fn store(id: u64) -> Store {
    Store { id: StoreId(id), address: format!("host:{id}"), ..Store::default() }
}

fn region(id: u64) -> Region {
    Region {
        id: RegionId(id),
        range: KeyRange::all(),
        epoch: RegionEpoch::FIRST,
        peers: vec![Peer { id: PeerId(id + 1), store_id: StoreId(1), role: PeerRole::Voter }],
    }
}

async fn put_store(handle: &SchedulerHandle, id: u64) -> Result<()> {
    handle.run(|s, _| s.put_store(store(id))).await
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a request answers that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match poll(pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn an_answer_waits_for_the_sync_of_what_it_rests_on() {
    let world = World::new();
    let handle = world.bootstrapped();
    let gate = world.hold_syncs();
    let mut put = pin!(put_store(&handle, 5));
    assert!(poll(put.as_mut()).is_pending());
    world.fs.wait_for_held_sync();
    let mut read = pin!(handle.run(|s, _| s.get_store(StoreId(5))));
    assert!(poll(read.as_mut()).is_pending(), "nobody may see a store that a crash can take back");
    let refused = pin!(handle.run(|s, _| s.get_store(StoreId(6))));
    assert!(poll(refused).is_pending(), "a refusal rests on everything before it");

    let region = at_once(handle.run(|s, _| s.get_region(b"k"))).unwrap().unwrap();
    assert_eq!(region.region.id, RegionId(2), "regions do not wait");
    at_once(handle.run(|s, _| Ok(s.is_bootstrapped()))).unwrap();

    drop(gate);
    block_on(put).unwrap();
    assert_eq!(block_on(read).unwrap().store, store(5));
}

#[test]
fn timestamps_and_ids_wait_for_their_window_alone() {
    let world = World::new();
    let handle = world.bootstrapped();
    let first = block_on(handle.tso(1)).unwrap();
    let ids = block_on(handle.run(|s, _| s.alloc_id(1))).unwrap();
    let gate = world.hold_syncs();
    let put = pin!(put_store(&handle, 5));
    assert!(poll(put).is_pending());
    let mut last = first;
    for _ in 0..100 {
        let ts = at_once(handle.tso(10)).unwrap();
        assert!(last < ts);
        last = ts;
    }
    assert_eq!(at_once(handle.run(|s, _| s.alloc_id(5))).unwrap().first, ids.last + 1);

    world.clock.advance(Duration::from_secs(4));
    let mut beyond = pin!(handle.tso(1));
    assert!(poll(beyond.as_mut()).is_pending(), "its window is not durable");
    drop(gate);
    assert!(last < block_on(beyond).unwrap());
}

#[test]
fn one_sync_serves_all_who_wait() {
    let world = World::new();
    let handle = world.bootstrapped();
    let gate = world.hold_syncs();
    let mut first = pin!(put_store(&handle, 100));
    assert!(poll(first.as_mut()).is_pending());
    world.fs.wait_for_held_sync();
    let before = world.fs.syncs();
    let mut rest: Vec<_> = (200..300).map(|id| Box::pin(put_store(&handle, id))).collect();
    assert!(rest.iter_mut().all(|put| poll(put.as_mut()).is_pending()));
    drop(gate);
    block_on(first).unwrap();
    rest.into_iter().for_each(|put| block_on(put).unwrap());
    assert_eq!(world.fs.syncs() - before, 1);
}

#[test]
fn ticks_keep_the_window_ahead_so_that_nobody_waits() {
    let world = World::new();
    let handle = world.bootstrapped();
    block_on(handle.tso(1)).unwrap();
    for _ in 0..200 {
        world.clock.advance(Duration::from_millis(50));
        handle.tick();
        // Whatever the tick recorded is durable once this is.
        let config = ClusterConfig { max_peer_count: 1 + world.fs.syncs() as u32 };
        block_on(handle.run(|s, _| s.put_cluster_config(config))).unwrap();
        let gate = world.hold_syncs();
        at_once(handle.tso(1)).unwrap();
        drop(gate);
    }
}

#[test]
fn an_idle_scheduler_writes_nothing() {
    let world = World::new();
    let handle = world.bootstrapped();
    block_on(handle.tso(1)).unwrap();
    world.clock.advance(Duration::from_secs(2));
    handle.tick();
    put_and_count(&world, &handle, 1);
    let before = put_and_count(&world, &handle, 2);
    for _ in 0..1000 {
        world.clock.advance(Duration::from_secs(1));
        handle.tick();
    }
    assert_eq!(put_and_count(&world, &handle, 3), before + 1, "only this request");
}

/// A request that is durable once this returns, and with it everything before.
fn put_and_count(world: &World, handle: &SchedulerHandle, max_peer_count: u32) -> u64 {
    block_on(handle.run(|s, _| s.put_cluster_config(ClusterConfig { max_peer_count }))).unwrap();
    world.fs.syncs()
}

#[test]
fn a_failed_sync_stops_everything_for_good() {
    let world = World::new();
    let handle = world.bootstrapped();
    let mut stopped = pin!(handle.stopped());
    assert!(poll(stopped.as_mut()).is_pending());
    world.fs.fail_sync(0);
    let failed = block_on(put_store(&handle, 5)).unwrap_err();
    assert!(failed.to_string().contains("sync failed for /data/scheduler/LOG-1"), "{failed}");
    assert!(matches!(block_on(stopped), Error::Poisoned { .. }));
    let reads = at_once(handle.run(|s, _| s.get_region(b"")));
    assert!(matches!(reads, Err(Error::Poisoned { .. })), "not even reads");
    assert!(matches!(at_once(handle.tso(1)), Err(Error::Poisoned { .. })));
    assert!(matches!(handle.shutdown(), Err(Error::Poisoned { .. })));
    drop(handle);

    let again = world.open();
    let stores = block_on(again.run(|s, _| s.all_stores(StoreFilter::All))).unwrap();
    assert_eq!(stores[0].store.id, StoreId(1), "a restart clears it");
}

#[test]
fn all_who_wait_learn_of_the_failure() {
    let world = World::new();
    let handle = world.bootstrapped();
    let gate = world.hold_syncs();
    world.fs.fail_sync(0);
    let mut waiting: Vec<_> = (5..15).map(|id| Box::pin(put_store(&handle, id))).collect();
    assert!(waiting.iter_mut().all(|put| poll(put.as_mut()).is_pending()));
    world.fs.wait_for_held_sync();
    drop(gate);
    for put in waiting {
        assert!(matches!(block_on(put), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn shutting_down_writes_what_was_recorded() {
    let world = World::new();
    let handle = world.bootstrapped();
    let gate = world.hold_syncs();
    let mut put = Box::pin(put_store(&handle, 5));
    assert!(poll(put.as_mut()).is_pending());
    let closing = handle.clone();
    let thread = task::spawn("closing", move || closing.shutdown()).unwrap();
    world.fs.wait_for_held_sync();
    drop(gate);
    thread.join().unwrap().unwrap();
    block_on(put.as_mut()).unwrap();
    assert!(matches!(block_on(handle.stopped()), Error::ShutDown));
    assert!(matches!(at_once(handle.tso(1)), Err(Error::ShutDown)));
    handle.shutdown().unwrap();
    drop(put);
    drop(handle);
    assert_eq!(block_on(world.open().run(|s, _| s.get_store(StoreId(5)))).unwrap().store, store(5));
}

#[test]
fn a_restart_knows_everything_again_but_never_repeats() {
    let world = World::new();
    let handle = world.bootstrapped();
    let cluster_id = handle.cluster_id();
    let ts = block_on(handle.tso(100)).unwrap();
    let ids = block_on(handle.run(|s, _| s.alloc_id(3))).unwrap();
    drop(handle);

    world.clock.set_wall(START - Duration::from_secs(3600));
    let handle = world.open();
    assert_eq!(handle.cluster_id(), cluster_id);
    assert_eq!(handle.member_id(), 1);
    assert!(ts < block_on(handle.tso(1)).unwrap());
    assert!(ids.last < block_on(handle.run(|s, _| s.alloc_id(1))).unwrap().first);
    let found = at_once(handle.run(|s, _| s.get_region(b"k"))).unwrap().unwrap();
    assert_eq!(
        (found.region.clone(), found.leader.map(|leader| leader.store_id)),
        (region(2), Some(StoreId(1)))
    );
}

#[test]
fn cluster_ids_are_drawn_once_and_differ() {
    let ids: Vec<u64> = (0..100)
        .map(|seed| {
            World::new()
                .open_with(Options::new(ApiMode::V1, Rng::new(seed)))
                .unwrap()
                .cluster_id()
                .0
        })
        .collect();
    assert!(ids.iter().all(|id| id >> 32 == START.as_secs()));
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
}

#[test]
fn the_folder_has_one_user_and_one_api_mode() {
    let world = World::new();
    let handle = world.open();
    let locked = world.open_with(options()).unwrap_err();
    assert!(matches!(locked, Error::Storage(engine::Error::Locked { .. })), "{locked}");
    drop(handle);
    let mismatch = world.open_with(Options::new(ApiMode::V2, Rng::new(1))).unwrap_err();
    assert!(
        mismatch.to_string().contains("was created with storage.api = \"v1\", not \"v2\""),
        "{mismatch}"
    );
    world.open();
}

#[test]
fn a_folder_that_lost_its_format_keeps_its_cluster() {
    let world = World::new();
    let handle = world.bootstrapped();
    let cluster_id = handle.cluster_id();
    let ts = block_on(handle.tso(1)).unwrap();
    drop(handle);
    let format = Path::new("/data/scheduler/FORMAT");
    world.fs.remove(format).unwrap();

    let other = world.open_with(Options::new(ApiMode::V2, Rng::new(9))).unwrap_err();
    assert!(matches!(other, Error::ApiModeMismatch { .. }), "{other}");
    assert!(world.fs.read(format).unwrap().is_none(), "it was left as it was");

    let handle = world.open_with(Options::new(ApiMode::V1, Rng::new(9))).unwrap();
    assert_eq!(handle.cluster_id(), cluster_id);
    assert!(ts < block_on(handle.tso(1)).unwrap());
    assert!(world.fs.read(format).unwrap().is_some());
}

#[test]
fn an_unfinished_first_start_is_begun_again() {
    let mut rng = Rng::new(2);
    for operations in 0.. {
        let world = World::new();
        world.fs.cut_power_after(operations);
        let done = world.open_with(options()).is_ok();
        for _ in 0..10 {
            let after = World { fs: world.fs.crash(&mut rng), ..World::new() };
            let handle = after.bootstrapped();
            block_on(handle.tso(1)).unwrap();
            drop(handle);
            after.open();
        }
        if done {
            break;
        }
    }
}

#[test]
fn a_long_log_becomes_a_snapshot_while_requests_go_on() {
    let world = World::new();
    let options = Options { log_bytes: 2000, ..options() };
    let handle = world.open_with(options.clone()).unwrap();
    handle.run_blocking(|s, _| s.bootstrap(store(1), vec![], ApiMode::V1)).unwrap();
    for id in 2..300 {
        handle.run_blocking(|s, _| s.put_store(store(id))).unwrap();
    }
    handle.shutdown().unwrap();
    drop(handle);
    let names: Vec<String> = world
        .fs
        .list(Path::new("/data/scheduler"))
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(
        matches!(&names[..], [f, l, log, s] if f == "FORMAT" && l == "LOCK" && log != "LOG-1" && s == "SNAPSHOT")
    );
    let handle = world.open_with(options).unwrap();
    let stores = handle.run_blocking(|s, _| s.all_stores(StoreFilter::All)).unwrap();
    assert_eq!(stores.len(), 299);
}

#[test]
fn a_slow_disk_makes_requests_fail_before_memory_is_full() {
    let world = World::new();
    let handle = world.bootstrapped();
    let gate = world.hold_syncs();
    let first = pin!(put_store(&handle, 5));
    assert!(poll(first).is_pending());
    world.fs.wait_for_held_sync();
    let report = |version| {
        let key = vec![b'k'; 1 << 20];
        let epoch = RegionEpoch { conf_ver: 1, version };
        let region = Region { range: KeyRange::new(key, Vec::new()), epoch, ..region(2) };
        RegionInfo { region, ..RegionInfo::default() }
    };
    for version in 2..18 {
        assert!(poll(pin!(handle.run(|s, _| s.region_heartbeat(report(version))))).is_pending());
    }
    let refused = at_once(handle.run(|s, _| s.region_heartbeat(report(18)))).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    assert_eq!(refused.class(), types::ErrorClass::BackOff);
    drop(gate);
    // Once the disk has caught up requests are taken again.
    while matches!(block_on(put_store(&handle, 6)), Err(Error::Busy { .. })) {
        thread::yield_now();
    }
}

#[test]
fn orders_wait_until_the_ids_in_them_are_durable() {
    let world = World::new();
    let handle = world.bootstrapped();
    block_on(put_store(&handle, 5)).unwrap();
    let heartbeats = |s: &mut Scheduler, now| {
        for store_id in [StoreId(1), StoreId(5)] {
            let _ = s.store_heartbeat(now, StoreStats { store_id, ..StoreStats::default() })?;
        }
        let leader = region(2).peers.first().copied();
        let report = RegionInfo { region: region(2), leader, ..RegionInfo::default() };
        s.region_heartbeat(report)
    };
    assert_eq!(block_on(handle.run(heartbeats)).unwrap(), None);

    let gate = world.hold_syncs();
    handle.tick();
    let mut orders = pin!(handle.take_orders());
    assert!(poll(orders.as_mut()).is_pending(), "a crash may take the id back");
    drop(gate);
    let orders = block_on(orders).unwrap();
    assert_eq!(orders.len(), 1);
    assert!(matches!(orders[0].instruction, Instruction::ChangePeer(_)));
    assert_eq!(at_once(handle.take_orders()).unwrap(), []);
}

#[test]
fn after_a_bug_nothing_is_written_and_nothing_answered() {
    let world = World::new();
    let handle = world.bootstrapped();
    let syncs = world.fs.syncs();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        handle.run_blocking::<()>(|s, _| {
            let _ = s.put_store(store(5));
            panic!("a bug")
        })
    }));
    assert!(panicked.is_err());
    assert!(matches!(at_once(handle.tso(1)), Err(Error::Panicked)));
    assert!(matches!(at_once(handle.stopped()), Error::Panicked));
    assert!(matches!(handle.shutdown(), Err(Error::Panicked)));
    assert_eq!(world.fs.syncs(), syncs);
}

#[test]
fn in_memory_nothing_waits_and_no_file_is_touched() {
    let world = World::new();
    let handle = SchedulerHandle::in_memory(world.clock.clone(), options());
    at_once(handle.run(|s, _| s.bootstrap(store(1), vec![region(2)], ApiMode::V1))).unwrap();
    let first = at_once(handle.tso(1)).unwrap();
    handle.tick();
    assert!(first < at_once(handle.tso(1)).unwrap());
    assert!(at_once(handle.run(|s, _| s.bootstrap(store(1), vec![], ApiMode::V1))).is_err());
    assert_ne!(handle.cluster_id().0, 0);
    handle.shutdown().unwrap();
    assert!(matches!(at_once(handle.tso(1)), Err(Error::ShutDown)));
}
