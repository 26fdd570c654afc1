//! The few calls that chaos makes, and what it must know of their failures.
//!
//! The one distinction that counts: a request that was certainly refused had no effect, every other failure leaves
//! the outcome open. In doubt an implementation must say [`Failure::Unknown`]; to say [`Failure::Refused`] wrongly
//! would turn an honest server's write into a violation.

use std::{fmt, future::Future};

use bytes::Bytes;

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It certainly had no effect. Holds the code of the catalogue (`TK6002`) if there is one, and the message.
    Refused(String),
    /// It may have taken effect, or may do so later.
    Unknown(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(why) => write!(f, "refused: {why}"),
            Failure::Unknown(why) => write!(f, "outcome unknown: {why}"),
        }
    }
}

/// The result of a call.
pub type Answer<T> = Result<T, Failure>;

/// The answer of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// Whether the new value is there now.
    pub done: bool,
    /// What was there before.
    pub previous: Option<Bytes>,
}

/// A connection to one cluster. Clones share it.
pub trait Kv: Clone + Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, key: Bytes) -> impl Future<Output = Answer<Option<Bytes>>> + Send;

    /// Sets `key`.
    fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = Answer<()>> + Send;

    /// Removes `key`.
    fn delete(&self, key: Bytes) -> impl Future<Output = Answer<()>> + Send;

    /// Sets `key` to `value` if it has `previous`.
    fn compare_and_swap(
        &self,
        key: Bytes,
        previous: Option<Bytes>,
        value: Bytes,
    ) -> impl Future<Output = Answer<Swapped>> + Send;

    /// Up to `limit` pairs in the order of their keys, from `start` on.
    fn scan(
        &self,
        start: Bytes,
        limit: u32,
    ) -> impl Future<Output = Answer<Vec<(Bytes, Bytes)>>> + Send;

    /// A timestamp of the cluster.
    fn timestamp(&self) -> impl Future<Output = Answer<u64>> + Send;

    /// An id of the cluster that nobody else has.
    fn id(&self) -> impl Future<Output = Answer<u64>> + Send;
}

/// Something that can dial a cluster by its scheduler's address.
pub trait Dial: Send + Sync {
    /// What it gives.
    type Kv: Kv;

    /// Connects to the scheduler at `address` (`host:port`).
    fn dial(&self, address: &str) -> impl Future<Output = Answer<Self::Kv>> + Send;
}

#[cfg(test)]
pub(crate) mod fake {
    //! A key-value store in memory that can be told to break its promises.

    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// What the fake does wrong.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) enum Fault {
        #[default]
        None,
        /// Acknowledges every hundredth put without doing it.
        DropsPuts,
        /// Acknowledges every tenth delete without doing it.
        DropsDeletes,
        /// Compares and swaps without comparing.
        SwapsBlindly,
        /// Hands out the same ids again and again.
        RepeatsIds,
        /// Hands out the same timestamp twice.
        StopsTime,
        /// Leaves keys out of scans.
        ScansBadly,
        /// Answers no write, and does half of them.
        AnswersNothing,
        /// Every twentieth get shows what was there before the last write.
        ReadsStale,
    }

    #[derive(Debug, Default)]
    struct State {
        data: BTreeMap<Bytes, Bytes>,
        /// What was there before the last write.
        before: BTreeMap<Bytes, Option<Bytes>>,
        gets: u64,
        calls: u64,
        deletes: u64,
        clock: u64,
        ids: u64,
    }

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Fake {
        state: Arc<Mutex<State>>,
        fault: Fault,
    }

    impl Fake {
        pub(crate) fn new(fault: Fault) -> Fake {
            Fake { state: Arc::default(), fault }
        }

        fn write(&self, key: Bytes, value: Option<Bytes>) -> Answer<()> {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            state.deletes += u64::from(value.is_none());
            let dropped = match self.fault {
                Fault::DropsPuts => value.is_some() && state.calls.is_multiple_of(100),
                Fault::DropsDeletes => value.is_none() && state.deletes.is_multiple_of(10),
                Fault::AnswersNothing => state.calls.is_multiple_of(2),
                _ => false,
            };
            if !dropped {
                let before = state.data.get(&key).cloned();
                state.before.insert(key.clone(), before);
                match value {
                    Some(value) => state.data.insert(key, value),
                    None => state.data.remove(&key),
                };
            }
            if self.fault == Fault::AnswersNothing {
                Err(Failure::Unknown("planted".into()))
            } else {
                Ok(())
            }
        }
    }

    impl Kv for Fake {
        async fn get(&self, key: Bytes) -> Answer<Option<Bytes>> {
            tokio::task::yield_now().await;
            let mut state = self.state.lock().unwrap();
            state.gets += 1;
            if self.fault == Fault::ReadsStale && state.gets.is_multiple_of(20) {
                return Ok(state.before.get(&key).cloned().flatten());
            }
            Ok(state.data.get(&key).cloned())
        }

        async fn put(&self, key: Bytes, value: Bytes) -> Answer<()> {
            tokio::task::yield_now().await;
            self.write(key, Some(value))
        }

        async fn delete(&self, key: Bytes) -> Answer<()> {
            tokio::task::yield_now().await;
            self.write(key, None)
        }

        async fn compare_and_swap(
            &self,
            key: Bytes,
            previous: Option<Bytes>,
            value: Bytes,
        ) -> Answer<Swapped> {
            tokio::task::yield_now().await;
            let mut state = self.state.lock().unwrap();
            let found = state.data.get(&key).cloned();
            if self.fault == Fault::SwapsBlindly {
                state.data.insert(key, value);
                return Ok(Swapped { done: true, previous });
            }
            let done = found == previous;
            if done {
                state.before.insert(key.clone(), found.clone());
                state.data.insert(key, value);
            }
            Ok(Swapped { done, previous: found })
        }

        async fn scan(&self, start: Bytes, limit: u32) -> Answer<Vec<(Bytes, Bytes)>> {
            let state = self.state.lock().unwrap();
            let skipped = usize::from(self.fault == Fault::ScansBadly);
            let pairs = state.data.range(start..).skip(skipped).take(limit as usize);
            Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
        }

        async fn timestamp(&self) -> Answer<u64> {
            let mut state = self.state.lock().unwrap();
            state.clock += u64::from(self.fault != Fault::StopsTime || state.clock == 0);
            Ok(state.clock)
        }

        async fn id(&self) -> Answer<u64> {
            let mut state = self.state.lock().unwrap();
            state.ids += 1;
            Ok(if self.fault == Fault::RepeatsIds { state.ids % 5 } else { state.ids })
        }
    }
}
