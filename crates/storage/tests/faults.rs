//! What a store promises when its disk is slow, full, failing or wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/planned.rs"]
mod planned;
mod support;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use engine::{
    Engine,
    faulty::{Event, FaultyEngine},
};
use storage::{Commits, Error, KeyModeLatch, KvPair, Latching, Proposal, Result, StorageOptions};
use types::{ApiMode, Bytes, ErrorClass, KeyMode, RegionError, RequestContext, limits};

use planned::{Change, PlannedEngine};
use support::{Store, bytes, pair};

/// A store on an engine with faults, and what its notification of the end was told.
struct Faulty {
    store: Store,
    /// Holds and fails syncs, fails writes.
    engine: Arc<FaultyEngine>,
    /// Below it: refuses changes.
    below: Arc<PlannedEngine>,
    stops: Arc<Mutex<Vec<String>>>,
    ctx: RequestContext,
}

impl Faulty {
    fn new(commits: Commits) -> Faulty {
        let below = PlannedEngine::new();
        let engine = FaultyEngine::new(below.clone());
        let stops = Arc::new(Mutex::new(Vec::new()));
        let told = stops.clone();
        let options = StorageOptions {
            commits,
            on_stopped: Some(Box::new(move |cause| told.lock().unwrap().push(cause.to_string()))),
            ..Default::default()
        };
        let store = Store::with(ApiMode::V1, engine.clone(), options);
        let ctx = store.context(b"k");
        Faulty { store, engine, below, stops, ctx }
    }

    fn propose(&self, key: &str, value: &str) -> Proposal<()> {
        self.store.storage.raw_put(&self.ctx, "", bytes(key), bytes(value), 0)
    }

    fn put(&self, key: &str, value: &str) {
        self.propose(key, value).wait().unwrap();
    }

    fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.store.storage.view()?.raw_get(&self.ctx, "", key.as_bytes())
    }

    fn stops(&self) -> Vec<String> {
        self.stops.lock().unwrap().clone()
    }

    /// Nothing is acknowledged any more, and nothing can be read.
    fn assert_stopped(&self) {
        let storage = &self.store.storage;
        assert!(matches!(storage.stopped(), Some(engine::Error::Poisoned { .. })));
        for _ in 0..3 {
            assert_poisoned(self.propose("later", "x").wait());
            assert_poisoned(storage.raw_delete(&self.ctx, "", bytes("later")).wait());
            assert_poisoned(
                storage.raw_compare_and_swap(&self.ctx, "", bytes("later"), None, None, 0).wait(),
            );
            assert_poisoned(self.get("later"));
        }
        // Joins the thread, which tells after it has answered.
        storage.shutdown();
        assert_eq!(self.stops().len(), 1, "told once: {:?}", self.stops());
    }
}

fn poll<T>(proposal: &mut Proposal<T>) -> Poll<Result<T>>
where
    Proposal<T>: Future<Output = Result<T>>,
{
    Pin::new(proposal).poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn assert_poisoned<T: std::fmt::Debug>(answer: Result<T>) {
    match answer {
        Err(Error::Engine(engine::Error::Poisoned { .. })) => {}
        other => panic!("not poisoned: {other:?}"),
    }
}

#[track_caller]
fn assert_undetermined<T: std::fmt::Debug>(answer: Result<T>) {
    match answer {
        Err(error @ Error::Region(RegionError::Undetermined { .. })) => {
            assert_eq!(error.class(), ErrorClass::Undetermined);
        }
        other => panic!("not undetermined: {other:?}"),
    }
}

/// Notes that somebody was woken.
struct NoteAnswer(Arc<FaultyEngine>);

impl Wake for NoteAnswer {
    fn wake(self: Arc<NoteAnswer>) {
        self.0.note("answered");
    }
}

#[test]
fn no_answer_leaves_and_nothing_is_seen_before_its_sync_has_returned() {
    let faulty = Faulty::new(Commits::OnThread);
    faulty.put("a", "old");
    let before = faulty.engine.events().len();
    let (write, sync) = (faulty.engine.writes() + 1, faulty.engine.syncs() + 1);

    faulty.engine.hold_syncs();
    let mut proposal = faulty.propose("a", "new");
    let waker = Waker::from(Arc::new(NoteAnswer(faulty.engine.clone())));
    assert!(Pin::new(&mut proposal).poll(&mut Context::from_waker(&waker)).is_pending());
    faulty.engine.wait_for_held_syncs(1);
    assert_eq!(faulty.below.memory.unsynced(), 1, "it is written");
    assert!(Pin::new(&mut proposal).poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(
        faulty.get("a").unwrap(),
        Some(bytes("old")),
        "a read must not see what a crash takes back"
    );
    faulty.engine.note("held");

    faulty.engine.release_syncs();
    // Joins the thread: everything has happened.
    faulty.store.storage.shutdown();
    assert!(matches!(poll(&mut proposal), Poll::Ready(Ok(()))));
    assert_eq!(faulty.get("a").unwrap(), Some(bytes("new")));
    let note = |text: &str| Event::Note(text.to_owned());
    assert_eq!(
        faulty.engine.events()[before..],
        [
            Event::Written(write),
            Event::SyncBegan(sync),
            note("held"),
            Event::Synced(sync),
            note("answered")
        ]
    );
}

#[test]
fn writes_that_gather_during_a_sync_share_the_next_one() {
    const WRITES: u64 = 500;
    let faulty = Faulty::new(Commits::OnThread);
    let (syncs, before) = (faulty.engine.syncs(), faulty.store.storage.statistics());

    faulty.engine.hold_syncs();
    let first = faulty.propose("first", "x");
    faulty.engine.wait_for_held_syncs(1);
    let mut gathered: Vec<_> =
        (0..WRITES).map(|n| faulty.propose(&format!("key {n}"), "x")).collect();
    assert!(gathered.iter_mut().all(|proposal| poll(proposal).is_pending()));
    assert_eq!(faulty.store.storage.statistics().waiting, WRITES);

    faulty.engine.release_syncs();
    first.wait().unwrap();
    gathered.into_iter().for_each(|proposal| proposal.wait().unwrap());
    assert_eq!(faulty.engine.syncs(), syncs + 2);
    faulty.store.storage.shutdown();
    let after = faulty.store.storage.statistics();
    assert_eq!((after.groups - before.groups, after.syncs - before.syncs), (2, 2));
    assert_eq!(after.commands - before.commands, WRITES + 1);
    assert_eq!((after.waiting, after.waiting_bytes), (0, 0));
    assert_eq!(after.group_sizes.buckets[9], 1, "one group of 256 to 511: {:?}", after.group_sizes);
}

#[test]
fn a_write_that_comes_alone_is_committed_by_who_waits_for_it() {
    let faulty = Faulty::new(Commits::Adaptive);
    let syncs = faulty.engine.syncs();
    for n in 1..=3 {
        let mut proposal = faulty.propose("a", &n.to_string());
        assert!(poll(&mut proposal).is_pending(), "others may still come");
        assert_eq!(faulty.engine.syncs(), syncs + n - 1);
        assert!(matches!(poll(&mut proposal), Poll::Ready(Ok(()))));
        assert_eq!(faulty.engine.syncs(), syncs + n);
        assert_eq!(faulty.get("a").unwrap(), Some(bytes(&n.to_string())));
    }
    faulty.put("a", "by a thread that blocks");
    assert_eq!(faulty.engine.syncs(), syncs + 4);
}

#[test]
fn a_write_that_is_not_alone_or_that_nobody_waits_for_is_committed_by_the_thread() {
    let faulty = Faulty::new(Commits::Adaptive);
    // Only the thread can come to a held sync: this one never polls.
    let by_thread = |proposals: Vec<Proposal<()>>| {
        faulty.engine.wait_for_held_syncs(1);
        faulty.engine.release_syncs();
        proposals.into_iter().for_each(|proposal| proposal.wait().unwrap());
        faulty.put("behind all others", "x");
        faulty.engine.hold_syncs();
    };
    faulty.engine.hold_syncs();

    drop(faulty.propose("nobody waits", "x"));
    by_thread(Vec::new());

    by_thread(vec![faulty.propose("one", "x"), faulty.propose("two", "x")]);

    (0..5).for_each(|_| drop(faulty.get("readers are about")));
    by_thread(vec![faulty.propose("three", "x")]);

    faulty.engine.release_syncs();
    faulty.store.storage.shutdown();
    for key in ["nobody waits", "one", "two", "three"] {
        assert_eq!(faulty.get(key).unwrap(), Some(bytes("x")), "{key}");
    }
}

#[test]
fn a_failed_sync_in_place_stops_the_store() {
    let faulty = Faulty::new(Commits::Adaptive);
    faulty.put("a", "old");
    faulty.engine.fail_sync(1);
    let mut proposal = faulty.propose("a", "new");
    assert!(poll(&mut proposal).is_pending());
    assert_undetermined(proposal.wait());
    faulty.assert_stopped();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let faulty = Faulty::new(Commits::OnThread);
    faulty.put("a", "old");
    let syncs = faulty.engine.syncs();

    faulty.engine.hold_syncs();
    let in_sync: Vec<_> = vec![faulty.propose("a", "new")];
    faulty.engine.wait_for_held_syncs(1);
    let waiting: Vec<_> = (0..10).map(|_| faulty.propose("b", "x")).collect();
    // The one that is held.
    faulty.engine.fail_sync(0);
    faulty.engine.release_syncs();

    // It was written, and nobody knows whether it is durable.
    in_sync.into_iter().for_each(|proposal| assert_undetermined(proposal.wait()));
    // These never came to the engine: a definite answer.
    waiting.into_iter().for_each(|proposal| assert_poisoned(proposal.wait()));
    faulty.assert_stopped();
    assert_eq!(faulty.engine.syncs(), syncs + 1, "a failed sync is never tried again");
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    let faulty = Faulty::new(Commits::ByCaller);
    let storage = &faulty.store.storage;
    faulty.store.settle(faulty.propose("first", "the key mode is recorded")).unwrap();
    faulty.engine.fail_write(2);
    let written = faulty.propose("a", "1");
    let deleted = storage.raw_delete_range(&faulty.ctx, "", bytes("a"), bytes("b"));
    let failed = faulty.propose("b", "1");
    // In a step behind the failure: never tried.
    let behind = storage.raw_delete_range(&faulty.ctx, "", bytes("x"), bytes("y"));
    assert!(storage.commit_once());
    assert_undetermined(written.wait());
    assert_undetermined(deleted.wait());
    assert_undetermined(failed.wait());
    assert_poisoned(behind.wait());
    faulty.assert_stopped();
}

#[test]
fn a_full_disk_is_a_definite_refusal_and_passes() {
    let faulty = Faulty::new(Commits::ByCaller);
    let storage = &faulty.store.storage;
    let settle = |proposal| faulty.store.settle::<Proposal<()>>(proposal);
    settle(faulty.propose("a", "old")).unwrap();
    let syncs = faulty.engine.syncs();

    faulty.below.plan(&[Change::DiskFull]);
    let refused = settle(faulty.propose("a", "new")).unwrap_err();
    assert!(matches!(refused, Error::Engine(engine::Error::DiskFull { .. })), "{refused}");
    assert_eq!(refused.class(), ErrorClass::BackOff);
    assert_eq!(faulty.get("a").unwrap(), Some(bytes("old")), "reads go on");
    assert_eq!(faulty.engine.syncs(), syncs, "nothing was written, nothing to sync");

    // Room again.
    settle(faulty.propose("a", "new")).unwrap();
    assert_eq!(faulty.get("a").unwrap(), Some(bytes("new")));
    assert!(storage.stopped().is_none() && faulty.stops().is_empty());
}

#[test]
fn a_disk_that_fills_up_in_a_group_refuses_what_was_not_done() {
    let faulty = Faulty::new(Commits::ByCaller);
    let storage = &faulty.store.storage;
    faulty.store.settle(faulty.propose("first", "the key mode is recorded")).unwrap();
    let propose_all = || {
        (
            faulty.propose("a", "1"),
            storage.raw_delete_range(&faulty.ctx, "", bytes("x"), bytes("y")),
            faulty.propose("b", "1"),
            storage.raw_compare_and_swap(
                &faulty.ctx,
                "",
                bytes("b"),
                Some(bytes("1")),
                Some(bytes("2")),
                0,
            ),
        )
    };

    // In the delete-range, which may be half done.
    faulty.below.plan(&[Change::Done, Change::DiskFull]);
    let (first, range, put, cas) = propose_all();
    assert!(storage.commit_once());
    first.wait().unwrap();
    assert_undetermined(range.wait());
    assert_eq!(put.wait().unwrap_err().class(), ErrorClass::BackOff);
    assert_eq!(
        cas.wait().unwrap_err().class(),
        ErrorClass::BackOff,
        "it was decided by a put that was refused"
    );
    assert_eq!((faulty.get("a").unwrap(), faulty.get("b").unwrap()), (Some(bytes("1")), None));
    assert_eq!(faulty.below.memory.unsynced(), 0, "what was answered is durable");

    // In the batch behind it.
    faulty.below.plan(&[Change::Done, Change::Done, Change::DiskFull]);
    let (first, range, put, cas) = propose_all();
    assert!(storage.commit_once());
    first.wait().unwrap();
    range.wait().unwrap();
    assert_eq!(put.wait().unwrap_err().class(), ErrorClass::BackOff);
    assert_eq!(cas.wait().unwrap_err().class(), ErrorClass::BackOff);
    assert!(storage.stopped().is_none());
}

#[test]
fn a_range_of_all_families_that_is_cut_by_a_full_disk_is_undetermined() {
    let faulty = Faulty::new(Commits::ByCaller);
    let storage = &faulty.store.storage;
    faulty.store.settle(faulty.propose("a", "1")).unwrap();
    faulty.below.plan(&[Change::Done, Change::DiskFull]);
    assert_undetermined(
        faulty.store.settle(storage.unsafe_destroy_range(Bytes::new(), Bytes::new())),
    );
    assert_eq!(faulty.below.memory.unsynced(), 0, "what can be seen is durable");
    assert_eq!(faulty.get("a").unwrap(), None);
}

#[test]
fn a_read_that_finds_damage_stops_the_store() {
    let faulty = Faulty::new(Commits::OnThread);
    faulty.put("a", "1");
    let view = faulty.store.storage.view().unwrap();
    faulty.below.memory.corrupt_next_read();
    let error = view.raw_get(&faulty.ctx, "", b"a").unwrap_err();
    assert!(matches!(error, Error::Engine(engine::Error::Corrupt { .. })), "{error}");
    faulty.assert_stopped();
}

#[test]
fn a_stored_value_that_nobody_wrote_stops_the_store() {
    let store = Store::new(ApiMode::V1Ttl);
    let mut batch = engine::WriteBatch::new();
    batch.put(types::Cf::Default, "a", "no flags \x7f");
    store.engine.write(batch).unwrap();
    let cas =
        store.storage.raw_compare_and_swap(&store.context(b"a"), "", bytes("a"), None, None, 0);
    assert!(store.storage.commit_once());
    assert_poisoned(cas.wait());
    assert!(store.storage.stopped().unwrap().to_string().contains("flags"));
}

#[test]
fn a_panic_in_the_engine_hangs_nobody() {
    let faulty = Faulty::new(Commits::OnThread);
    faulty.put("a", "1");
    faulty.below.plan(&[Change::Panic]);
    assert_undetermined(faulty.propose("a", "2").wait());
    // The thread is gone, and with it the last word.
    faulty.store.storage.shutdown();
    faulty.assert_stopped();
}

#[test]
fn a_store_that_is_shut_down_answers_what_waits() {
    let faulty = Faulty::new(Commits::OnThread);
    faulty.engine.hold_syncs();
    let first = faulty.propose("first", "x");
    faulty.engine.wait_for_held_syncs(1);
    let waiting: Vec<_> = (0..20).map(|n| faulty.propose(&format!("key {n}"), "x")).collect();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| faulty.store.storage.shutdown());
        // Whether it was taken before or refused after the end of the queue: nothing hangs.
        let late = faulty.propose("late", "x");
        faulty.engine.release_syncs();
        stopping.join().unwrap();
        match late.wait() {
            Ok(()) | Err(Error::Region(RegionError::ServerIsBusy { .. })) => {}
            other => panic!("{other:?}"),
        }
    });
    first.wait().unwrap();
    waiting.into_iter().for_each(|proposal| proposal.wait().unwrap());
    let refused = faulty.propose("after", "x").wait().unwrap_err();
    assert_eq!(refused.class(), ErrorClass::BackOff);
    assert_eq!(faulty.get("key 19").unwrap(), Some(bytes("x")));
    assert!(faulty.store.storage.stopped().is_none());
}

#[test]
fn a_dropped_proposal_is_carried_out() {
    let faulty = Faulty::new(Commits::OnThread);
    drop(faulty.propose("a", "1"));
    faulty.put("b", "1");
    assert_eq!(faulty.get("a").unwrap(), Some(bytes("1")));
    faulty.store.storage.shutdown();
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let faulty = Faulty::new(Commits::ByCaller);
    let waiting: Vec<_> =
        (0..limits::WRITES_WAITING_MAX).map(|_| faulty.propose("a", "1")).collect();
    let refused = faulty.propose("a", "2").wait().unwrap_err();
    assert!(matches!(&refused, Error::Region(RegionError::ServerIsBusy { .. })), "{refused}");
    while faulty.store.storage.commit_once() {}
    waiting.into_iter().for_each(|proposal| proposal.wait().unwrap());
    faulty.store.settle(faulty.propose("a", "2")).unwrap();

    let large = Bytes::from(vec![0; limits::VALUE_BYTES_MAX]);
    let put_large =
        || faulty.store.storage.raw_put(&faulty.ctx, "", bytes("large"), large.clone(), 0);
    let fits = limits::WRITE_BYTES_WAITING_MAX / limits::VALUE_BYTES_MAX;
    let waiting: Vec<_> = (0..fits).map(|_| put_large()).collect();
    assert!(matches!(put_large().wait(), Err(Error::Region(RegionError::ServerIsBusy { .. }))));
    while faulty.store.storage.commit_once() {}
    waiting.into_iter().for_each(|proposal| proposal.wait().unwrap());
    assert_eq!(faulty.store.storage.statistics().refused, 2);
}

/// Counts its calls.
#[derive(Default)]
struct Counter(AtomicU64);

impl Wake for Counter {
    fn wake(self: Arc<Counter>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_last_waker_is_woken_once_for_answers_that_come_together() {
    let faulty = Faulty::new(Commits::ByCaller);
    let (old, new) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let (old_waker, new_waker) = (Waker::from(old.clone()), Waker::from(new.clone()));
    let mut proposals: Vec<_> = (0..10).map(|_| faulty.propose("a", "1")).collect();
    for proposal in &mut proposals {
        assert!(Pin::new(&mut *proposal).poll(&mut Context::from_waker(&old_waker)).is_pending());
        assert!(Pin::new(&mut *proposal).poll(&mut Context::from_waker(&new_waker)).is_pending());
        assert!(Pin::new(&mut *proposal).poll(&mut Context::from_waker(&new_waker)).is_pending());
    }
    assert!(faulty.store.storage.commit_once());
    assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
    assert!(proposals.iter_mut().all(|proposal| matches!(poll(proposal), Poll::Ready(Ok(())))));
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let faulty = Faulty::new(Commits::OnThread);
    let answer = faulty.propose("a", "1");
    let engine = Arc::downgrade(&faulty.engine);
    drop(faulty);
    // What was proposed is carried out, and the engine is let go.
    answer.wait().unwrap();
    while engine.upgrade().is_some() {
        std::thread::yield_now();
    }
}

/// A scheduler that answers when it is told to.
#[derive(Default)]
struct SlowLatch {
    content: Arc<Mutex<LatchContent>>,
}

#[derive(Default)]
struct LatchContent {
    held: Option<KeyMode>,
    waiting: Vec<Waker>,
}

impl SlowLatch {
    fn answer(&self, mode: KeyMode) {
        let mut content = self.content.lock().unwrap();
        content.held = Some(mode);
        content.waiting.drain(..).for_each(Waker::wake);
    }
}

impl KeyModeLatch for SlowLatch {
    fn latch(&self, _: KeyMode) -> Latching {
        let content = self.content.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut content = content.lock().unwrap();
            match content.held {
                Some(mode) => Poll::Ready(Ok(mode)),
                None => {
                    content.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

fn latched(engine: Arc<PlannedEngine>, latch: Arc<SlowLatch>) -> Store {
    let options =
        StorageOptions { commits: Commits::ByCaller, latch: Some(latch), ..Default::default() };
    Store::with(ApiMode::V1, engine, options)
}

#[test]
fn first_writes_wait_for_the_latch_and_hold_nobody_else() {
    for (mode, taken) in [(KeyMode::Raw, true), (KeyMode::Txn, false)] {
        let latch = Arc::new(SlowLatch::default());
        let store = latched(PlannedEngine::new(), latch.clone());
        let ctx = store.context(b"a");
        let mut first = store.storage.raw_put(&ctx, "", bytes("a"), bytes("1"), 0);
        let mut second = store.storage.raw_batch_put(&ctx, "", vec![pair("b", "1")], &[]);
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert!(!store.storage.commit_once(), "nothing is in the queue yet");
        assert_eq!((store.get("a"), store.storage.key_mode()), (None, None));

        latch.answer(mode);
        let answers = [store.settle(first), store.settle(second)];
        assert_eq!(store.storage.key_mode(), Some(mode));
        if taken {
            answers.into_iter().for_each(|answer| answer.unwrap());
            assert_eq!(
                store.all(),
                [KvPair { key: bytes("a"), value: bytes("1") }, pair("b", "1")]
            );
        } else {
            for answer in answers {
                assert!(
                    matches!(answer, Err(Error::KeyModeConflict { held: KeyMode::Txn, .. })),
                    "{answer:?}"
                );
            }
            assert_eq!(store.all(), []);
        }
    }
}

#[test]
fn the_record_of_the_latch_travels_until_it_is_durable() {
    let engine = PlannedEngine::new();
    let latch = Arc::new(SlowLatch::default());
    latch.answer(KeyMode::Raw);
    let store = latched(engine.clone(), latch);
    let recorded = || storage::identity::load(&*engine as &dyn Engine).unwrap().unwrap().key_mode;

    engine.plan(&[Change::DiskFull]);
    let put =
        |key: &str| store.storage.raw_put(&store.context(b"a"), "", bytes(key), bytes("1"), 0);
    assert!(store.settle(put("a")).is_err());
    assert_eq!(recorded(), None);
    // The mode is known, its record is not there: the next write brings it.
    store.settle(put("b")).unwrap();
    assert_eq!(recorded(), Some(KeyMode::Raw));
}
