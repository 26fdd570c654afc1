//! How long nothing can be written: writers with short patience on one key, and the moments of their answers.
//!
//! A gap is the longest time between two acknowledged writes around a fault, the last one before it included. It is
//! measured as a client sees it, with its connections and its knowledge of leaders.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::kv::Kv;

/// The key. It lies behind all keys of the load, in their last region.
pub const PROBE_KEY: Bytes = Bytes::from_static(b"chaos/probe");

/// How long a writer waits between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(10);

/// The writers. They end when this is dropped.
#[derive(Debug)]
pub struct Probe {
    /// Moments of acknowledgements: the last one before the window was opened, and those since.
    moments: Arc<Mutex<Vec<Instant>>>,
    /// When the latest of the acknowledged writes began.
    begun: watch::Receiver<Option<Instant>>,
    _tasks: JoinSet<()>,
}

impl Probe {
    /// Starts one writer for each of `clients`, whose calls should have little patience.
    pub fn start<K: Kv>(clients: &[K]) -> Probe {
        let moments = Arc::new(Mutex::new(Vec::new()));
        let (change, begun) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for client in clients {
            let (client, moments, change) = (client.clone(), Arc::clone(&moments), change.clone());
            tasks.spawn(async move {
                loop {
                    let begun = Instant::now();
                    let value = Bytes::from_static(b"probe");
                    if client.put(PROBE_KEY, value).await.is_ok() {
                        moments.lock().expect("nobody panics with it").push(Instant::now());
                        change.send_modify(|last| *last = (*last).max(Some(begun)));
                    }
                    tokio::time::sleep(WRITE_EVERY).await;
                }
            });
        }
        Probe { moments, begun, _tasks: tasks }
    }

    /// Opens a new window: what was before counts no more, but the last write.
    pub fn open_window(&self) {
        let mut moments = self.moments.lock().expect("nobody panics with it");
        let old = moments.len().saturating_sub(1);
        moments.drain(..old);
    }

    /// The longest time without an acknowledged write since the window was opened, up to now.
    pub fn longest_gap(&self) -> Duration {
        let moments = self.moments.lock().expect("nobody panics with it");
        longest(&moments, Instant::now())
    }

    /// Waits for a write that begins after now and is acknowledged. Whether there was one in time.
    pub async fn written_within(&self, limit: Duration) -> bool {
        let now = Instant::now();
        let mut begun = self.begun.clone();
        let written = begun.wait_for(|begun| begun.is_some_and(|begun| now < begun));
        matches!(tokio::time::timeout(limit, written).await, Ok(Ok(_)))
    }
}

fn longest(seen: &[Instant], now: Instant) -> Duration {
    let ends = seen.iter().skip(1).chain(std::iter::once(&now));
    seen.iter()
        .zip(ends)
        .map(|(from, to)| to.saturating_duration_since(*from))
        .max()
        .unwrap_or_default()
}

/// The value that so many percent of `sorted` do not exceed.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_the_write_before_and_the_time_since() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(
            longest(&[at(0), at(10), at(700), at(720)], at(730)),
            Duration::from_millis(690)
        );
        assert_eq!(longest(&[at(5)], at(30)), Duration::from_millis(25));
        assert_eq!(longest(&[], at(30)), Duration::ZERO);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let values: Vec<u64> = (1..=30).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (15, 30));
        assert_eq!((percentile(&[7], 50), percentile(&[], 99)), (7, 0));
    }
}
