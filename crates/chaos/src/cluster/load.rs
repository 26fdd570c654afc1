//! The load on a cluster: many tasks that write and read the same few keys, and note it all in the history.
//!
//! Few keys are hot, so that operations overlap; the others are many enough to make several regions. Values are unique,
//! so that a read says which write it saw. Every task belongs to one of several clients, which know of leaders what
//! they have learned themselves.

use std::time::Duration;

use bytes::Bytes;
use check::history::{Action, Content as Held, Seen};
use tokio::{sync::watch, task::JoinSet};

use super::history::Recorder;
use crate::{
    kv::{Answer, Failure, Kv},
    load::{Ledgers, ask, until_stopped},
};

/// Keys that most operations go to.
const HOT_KEYS: u32 = 4;

/// Keys altogether.
const KEYS: u32 = 64;

/// How long tasks pause: this sets how much load there is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two operations, at most.
    pub think_max: Duration,
    /// After a failure, in addition.
    pub after_failure: Duration,
}

impl Pace {
    /// Some hundred operations per second: enough to overlap, and the machine has other work.
    pub const CALM: Pace =
        Pace { think_max: Duration::from_millis(24), after_failure: Duration::from_millis(10) };

    /// No pauses, for what answers at once.
    pub const NONE: Pace = Pace { think_max: Duration::ZERO, after_failure: Duration::ZERO };
}

/// How often the scheduler is asked for an id and a timestamp.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The key that is counted `number`. They spread over regions in the order of their numbers.
pub fn key(number: u32) -> Bytes {
    format!("chaos/k/{:03}", number % KEYS).into()
}

/// A hot key, or with probability of a half another one.
pub fn draw_key(rng: &mut fastrand::Rng) -> Bytes {
    // Hot keys lie in different regions.
    if rng.bool() { hot_key(rng) } else { key(rng.u32(0..KEYS)) }
}

/// One of the hot keys.
pub fn hot_key(rng: &mut fastrand::Rng) -> Bytes {
    key(rng.u32(0..HOT_KEYS) * (KEYS / HOT_KEYS))
}

/// A running load.
#[derive(Debug)]
pub struct ClusterLoad {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl ClusterLoad {
    /// Starts `tasks_per_client` tasks for each of `clients`. `seed` decides what they do, not how it interleaves.
    pub fn start<K: Kv>(
        clients: &[K],
        tasks_per_client: u16,
        recorder: &Recorder,
        ledgers: &Ledgers,
        pace: Pace,
        seed: u64,
    ) -> ClusterLoad {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut who = 0;
        for client in clients {
            for _ in 0..tasks_per_client {
                let task = Task {
                    kv: client.clone(),
                    who,
                    pace,
                    recorder: recorder.clone(),
                    rng: seeds.fork(),
                    stopped: stopped.clone(),
                };
                who += 1;
                tasks.spawn(task.run());
            }
        }
        if let Some(client) = clients.first() {
            let asking = ask(client.clone(), ledgers.clone(), ASK_EVERY, stopped);
            tasks.spawn(async move {
                asking.await;
            });
        }
        ClusterLoad { stop, tasks }
    }

    /// Stops it. Operations under way are abandoned and stay open.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("no task of the load panics");
        }
    }
}

struct Task<K> {
    kv: K,
    who: u16,
    pace: Pace,
    recorder: Recorder,
    rng: fastrand::Rng,
    stopped: watch::Receiver<bool>,
}

impl<K: Kv> Task<K> {
    async fn run(mut self) {
        while !*self.stopped.borrow() {
            let key = draw_key(&mut self.rng);
            let result = match self.rng.u32(0..100) {
                0..35 => self.put(key).await,
                35..45 => self.delete(key).await,
                45..60 => self.swap(key).await,
                _ => self.read(key).await.map(|_| ()),
            };
            let mut pause = self.pace.think_max.mul_f64(self.rng.f64());
            if result.is_err() {
                pause += self.pace.after_failure;
            }
            if pause.is_zero() {
                tokio::task::yield_now().await;
                continue;
            }
            let _ = until_stopped(&mut self.stopped, async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await;
        }
    }

    async fn read(&mut self, key: Bytes) -> Answer<Option<Held>> {
        let begun = self.recorder.begin(self.who, &key, Action::Read);
        match until_stopped(&mut self.stopped, self.kv.get(key)).await {
            Ok(found) => Ok(self.recorder.read(begun, found.as_deref())),
            Err(failure) => {
                self.recorder.failed(begun, &failure);
                Err(failure)
            }
        }
    }

    async fn put(&mut self, key: Bytes) -> Answer<()> {
        let value = self.recorder.new_value();
        let bytes = Recorder::bytes(&key, value);
        let begun = self.recorder.begin(self.who, &key, Action::Put(value));
        let answer = until_stopped(&mut self.stopped, self.kv.put(key, bytes)).await;
        match &answer {
            Ok(()) => self.recorder.answered(begun, Seen::Nothing),
            Err(failure) => self.recorder.failed(begun, failure),
        }
        answer
    }

    async fn delete(&mut self, key: Bytes) -> Answer<()> {
        let begun = self.recorder.begin(self.who, &key, Action::Delete);
        let answer = until_stopped(&mut self.stopped, self.kv.delete(key)).await;
        match &answer {
            Ok(()) => self.recorder.answered(begun, Seen::Nothing),
            Err(failure) => self.recorder.failed(begun, failure),
        }
        answer
    }

    /// Reads, and swaps what was read for a new value.
    async fn swap(&mut self, key: Bytes) -> Answer<()> {
        let Some(expected) = self.read(key.clone()).await? else {
            return Err(Failure::Unknown("damaged".into()));
        };
        let new = self.recorder.new_value();
        let previous = expected.map(|value| Recorder::bytes(&key, value));
        let bytes = Recorder::bytes(&key, new);
        let begun = self.recorder.begin(self.who, &key, Action::Swap { expected, new });
        let swap = self.kv.compare_and_swap(key.clone(), previous, bytes);
        match until_stopped(&mut self.stopped, swap).await {
            Ok(swapped) => {
                let Some(held) = self.recorder.held(&key, swapped.previous.as_deref()) else {
                    return Ok(());
                };
                if swapped.done != (held == expected) {
                    self.recorder.report(format!(
                        "a swap of {expected:?} for {new} says done: {}, and that {held:?} was there",
                        swapped.done
                    ));
                }
                self.recorder.answered(begun, Seen::Was(held));
                Ok(())
            }
            Err(failure) => {
                self.recorder.failed(begun, &failure);
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cluster::history::Judgement,
        kv::fake::{Fake, Fault},
    };

    /// Loads a fake with `fault` until much was done, reads everything, and asks the judges.
    async fn judge(fault: Fault) -> (Recorder, Ledgers, Judgement) {
        let kv = Fake::new(fault);
        let ledgers = Ledgers::default();
        let recorder = Recorder::new(ledgers.clone());
        let load =
            ClusterLoad::start(&[kv.clone(), kv.clone()], 4, &recorder, &ledgers, Pace::NONE, 7);
        while recorder.counts().operations < 6_000 {
            tokio::task::yield_now().await;
        }
        load.stop().await;
        let mut last = BTreeMap::new();
        for key in recorder.keys() {
            let found = kv.get(key.clone()).await.unwrap();
            last.insert(key.clone(), recorder.held(&key, found.as_deref()).unwrap());
        }
        let judgement = recorder.judge(&last);
        (recorder, ledgers, judgement)
    }

    #[tokio::test]
    async fn an_honest_cluster_passes() {
        let (recorder, ledgers, judgement) = judge(Fault::None).await;
        assert_eq!((judgement.lost, judgement.unexplained), (0, 0), "{judgement:?}");
        assert_eq!(ledgers.model().violations(), []);
        assert!(recorder.counts().acknowledged_writes > 1_000, "{:?}", recorder.counts());
    }

    #[tokio::test]
    async fn a_planted_loss_is_found() {
        let (_, _, judgement) = judge(Fault::DropsPuts).await;
        assert!(0 < judgement.unexplained, "{judgement:?}");
        assert!(0 < judgement.lost, "{judgement:?}");
    }

    #[tokio::test]
    async fn a_planted_stale_read_is_found() {
        let (_, _, judgement) = judge(Fault::ReadsStale).await;
        assert!(0 < judgement.unexplained, "{judgement:?}");
    }

    #[tokio::test]
    async fn a_planted_blind_swap_is_found() {
        let (_, _, judgement) = judge(Fault::SwapsBlindly).await;
        assert!(0 < judgement.unexplained, "{judgement:?}");
    }

    #[tokio::test]
    async fn writes_without_answer_are_no_violation() {
        let (recorder, _, judgement) = judge(Fault::AnswersNothing).await;
        assert_eq!((judgement.lost, judgement.unexplained), (0, 0), "{judgement:?}");
        assert!(recorder.counts().unknown > 500, "{:?}", recorder.counts());
    }
}
