//! Crashes: what was acknowledged is there afterwards, and what is there is a prefix of what was proposed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use engine::{Engine, Family, MemoryEngine, Result, Snapshot, Statistics, WriteBatch};
use runtime::Rng;
use storage::{Commits, Proposal, StorageOptions, Swapped};
use types::{ApiMode, Bytes, KeyRange};

use support::{Store, bytes};

/// What the data should be after some of the commands.
type State = BTreeMap<Bytes, Bytes>;

/// What was proposed so far, and what a crash may leave.
#[derive(Default)]
struct History {
    /// The data after 0, 1, 2, … commands.
    states: Vec<State>,
    /// Commands whose answers were not seen yet, with their numbers.
    pending: Vec<(usize, Write)>,
    /// Commands that were acknowledged, from the first on.
    acknowledged: usize,
    /// The image of a crash, with what had been acknowledged by then.
    images: Vec<(MemoryEngine, usize, usize)>,
}

enum Write {
    Done(Proposal<()>),
    Swapped(Proposal<Swapped>),
}

impl History {
    /// Takes the answers that are there. They come in order: a group is answered as a whole, groups in order.
    fn collect(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for (number, mut write) in std::mem::take(&mut self.pending) {
            let answer = match &mut write {
                Write::Done(proposal) => {
                    Pin::new(proposal).poll(&mut cx).map(|answer| answer.map(drop))
                }
                Write::Swapped(proposal) => {
                    Pin::new(proposal).poll(&mut cx).map(|answer| answer.map(drop))
                }
            };
            match answer {
                Poll::Ready(answer) => {
                    answer.unwrap();
                    assert_eq!(number, self.acknowledged, "an answer overtook another one");
                    self.acknowledged += 1;
                }
                Poll::Pending => self.pending.push((number, write)),
            }
        }
    }
}

/// An engine that may crash in front of and behind every call.
struct Crashing {
    engine: MemoryEngine,
    rng: Mutex<Rng>,
    history: Arc<Mutex<History>>,
}

impl Crashing {
    fn crash_perhaps(&self) {
        let mut rng = self.rng.lock().unwrap();
        if rng.chance(0.2) {
            let mut history = self.history.lock().unwrap();
            // First what was acknowledged, then the crash.
            history.collect();
            let (acknowledged, proposed) = (history.acknowledged, history.states.len() - 1);
            let image = self.engine.crash(&mut rng);
            history.images.push((image, acknowledged, proposed));
        }
    }

    fn around<T>(&self, call: impl FnOnce(&MemoryEngine) -> T) -> T {
        self.crash_perhaps();
        let result = call(&self.engine);
        self.crash_perhaps();
        result
    }
}

impl fmt::Debug for Crashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crashing")
    }
}

impl Engine for Crashing {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.around(Engine::snapshot)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.around(|engine| engine.write(batch))
    }

    fn sync(&self) -> Result<()> {
        self.around(Engine::sync)
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        self.around(|engine| engine.delete_range(family, range))
    }

    fn flush(&self) -> Result<()> {
        self.engine.flush()
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.engine.approximate_size(family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.engine.middle_key(family, range)
    }

    fn statistics(&self) -> Statistics {
        self.engine.statistics()
    }
}

/// One store, many commands, crashes at every step of their commits.
fn round(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let history =
        Arc::new(Mutex::new(History { states: vec![State::new()], ..History::default() }));
    let lock = || -> MutexGuard<'_, History> { history.lock().unwrap() };

    let memory = MemoryEngine::with_journal();
    support::bootstrap(&memory, ApiMode::V1);
    let crashing =
        Crashing { engine: memory, rng: Mutex::new(rng.fork()), history: history.clone() };
    let options = StorageOptions { commits: Commits::ByCaller, ..Default::default() };
    let clock = Arc::new(runtime::sim::SimClock::new(std::time::Duration::from_secs(1)));
    let store = Store::open(Arc::new(crashing), clock.clone(), options);
    let ctx = store.context(b"k");

    for number in 0..40 {
        let key = bytes(["a", "b", "c", "d"][rng.range(0..4) as usize]);
        let value = bytes(&number.to_string());
        let mut state = lock().states.last().cloned().unwrap();
        let write = match rng.range(0..4) {
            0 => {
                state.remove(&key);
                Write::Done(store.storage.raw_delete(&ctx, "", key))
            }
            1 => {
                let expected =
                    if rng.chance(0.7) { state.get(&key).cloned() } else { Some(bytes("never")) };
                if state.get(&key).cloned() == expected {
                    state.insert(key.clone(), value.clone());
                }
                Write::Swapped(store.storage.raw_compare_and_swap(
                    &ctx,
                    "",
                    key,
                    expected,
                    Some(value),
                    0,
                ))
            }
            2 => {
                // Two keys that must come or go together.
                let pairs = vec![
                    support::pair("x", &number.to_string()),
                    support::pair("y", &number.to_string()),
                ];
                state.extend(pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())));
                Write::Done(store.storage.raw_batch_put(&ctx, "", pairs, &[]))
            }
            _ => {
                state.insert(key.clone(), value.clone());
                Write::Done(store.storage.raw_put(&ctx, "", key, value, 0))
            }
        };
        let mut history = lock();
        history.states.push(state);
        history.pending.push((number, write));
        drop(history);
        if rng.chance(0.4) {
            store.storage.commit_once();
            lock().collect();
        }
    }

    let images = std::mem::take(&mut lock().images);
    let states = lock().states.clone();
    for (image, acknowledged, proposed) in &images {
        let options = StorageOptions { commits: Commits::ByCaller, ..Default::default() };
        let found = Store::open(Arc::new(image.clone()), clock.clone(), options);
        let found: State = found.all().into_iter().map(|pair| (pair.key, pair.value)).collect();
        assert!(
            states[*acknowledged..=*proposed].contains(&found),
            "seed {seed}: {acknowledged} commands were acknowledged and {proposed} proposed, found {found:?}"
        );
    }
    images.len()
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_step() {
    let images: usize = (0..150).map(round).sum();
    assert!(1000 < images, "only {images} crashes");
    println!("{images} crashes");
}

#[test]
fn what_was_acknowledged_to_threads_survives_a_crash_at_any_moment() {
    const WRITERS: usize = 4;
    const CRASHES: usize = 60;

    let engine = MemoryEngine::with_journal();
    let store = Store::with(ApiMode::V1, Arc::new(engine.clone()), StorageOptions::default());
    let acknowledged: [AtomicU64; WRITERS] = Default::default();
    let stop = AtomicBool::new(false);
    let mut rng = Rng::new(3);
    let images = std::thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let key = bytes(&format!("writer {writer}"));
                let ctx = store.context(&key);
                for n in 1_u64.. {
                    let value = Bytes::copy_from_slice(&n.to_be_bytes());
                    store.storage.raw_put(&ctx, "", key.clone(), value, 0).wait().unwrap();
                    acknowledged.store(n, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
        }
        let images: Vec<_> = (0..CRASHES)
            .map(|round| {
                // Lets the writers get on before each crash: at least one of them has written again.
                let target = round as u64;
                while acknowledged.iter().all(|n| n.load(Ordering::SeqCst) <= target) {
                    std::thread::yield_now();
                }
                let before = acknowledged.each_ref().map(|n| n.load(Ordering::SeqCst));
                let seen: [u64; WRITERS] = std::array::from_fn(|writer| number(&store, writer));
                (engine.crash(&mut rng), before, seen)
            })
            .collect();
        stop.store(true, Ordering::SeqCst);
        images
    });
    store.storage.shutdown();

    for (image, before, seen) in images {
        let options = StorageOptions { commits: Commits::ByCaller, ..Default::default() };
        let found = Store::open(Arc::new(image), store.clock.clone(), options);
        for writer in 0..WRITERS {
            let (before, seen, there) = (before[writer], seen[writer], number(&found, writer));
            assert!(
                before <= there,
                "writer {writer}: {before} was acknowledged, {there} is there"
            );
            assert!(seen <= there, "writer {writer}: {seen} was read, {there} is there");
        }
    }
}

/// What a writer has written last.
fn number(store: &Store, writer: usize) -> u64 {
    let value = store.get(&format!("writer {writer}"));
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}
