//! Transactions as functions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinHandle;
use types::{Bytes, KeyRange, TimeStamp};

use super::Client;
use crate::{
    Answer, CallOptions, Direction, Error, Pair, Request, Result,
    txn::{
        Answered, Command, Commit, CommitMode, Input, Insistent, Lock, Locking, Lookup, Machine,
        Output, Read, Transaction as Core, lock::Wish, read,
    },
};

/// Transactions of a cluster. Cheap to clone.
///
/// A transaction sees the cluster as of the moment at which it began, and commits all it wrote or nothing. An
/// *optimistic* one hears at its commit whether somebody else was first ([`Error::WriteConflict`]); a *pessimistic* one
/// locks what it writes, or reads for update, and waits for others. After an error of kind
/// [`Kind::Conflict`](crate::error::Kind::Conflict) the same in a new transaction may succeed. After
/// [`Error::Undetermined`] the commit may have happened; after every other error it has not.
#[derive(Clone, Debug)]
pub struct TxnClient {
    client: Client,
    options: CallOptions,
    mode: CommitMode,
    background: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl TxnClient {
    pub(super) fn new(client: Client, options: CallOptions) -> TxnClient {
        TxnClient { client, options, mode: CommitMode::default(), background: Arc::default() }
    }

    /// The same with another limit of time for each operation. A commit may take twice as long: if it was given up, it
    /// is found out what came of it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> TxnClient {
        self.options.timeout = timeout;
        self
    }

    /// The same with commits in not fewer phases than this.
    #[must_use]
    pub fn with_commit_mode(mut self, mode: CommitMode) -> TxnClient {
        self.mode = mode;
        self
    }

    /// Begins an optimistic transaction.
    ///
    /// # Errors
    /// The scheduler is unreachable.
    pub async fn begin(&self) -> Result<Transaction> {
        self.begin_with(Locking::Optimistic).await
    }

    /// Begins a pessimistic transaction.
    ///
    /// # Errors
    /// The scheduler is unreachable.
    pub async fn begin_pessimistic(&self) -> Result<Transaction> {
        self.begin_with(Locking::Pessimistic).await
    }

    async fn begin_with(&self, locking: Locking) -> Result<Transaction> {
        let start_ts = self.client.timestamp().await?;
        let core = Core::new(start_ts, locking, self.mode, self.now());
        Ok(Transaction { txns: self.clone(), core, heart_beat: None })
    }

    /// What was committed at or before `version`, for reading. A version that garbage collection has passed may miss
    /// things; one from the future ends asynchronous commits above it.
    pub fn snapshot(&self, version: TimeStamp) -> Snapshot {
        Snapshot { txns: self.clone(), version }
    }

    /// A timestamp, to read as of now.
    ///
    /// # Errors
    /// The scheduler is unreachable.
    pub async fn timestamp(&self) -> Result<TimeStamp> {
        self.client.timestamp().await
    }

    /// Waits until what commits and failures have left to be done is done: locks of committed transactions that
    /// nobody waits for. A program that ends without it leaves them to whoever meets them.
    pub async fn idle(&self) {
        loop {
            let next = self.background().pop();
            match next {
                Some(task) => drop(task.await),
                None => return,
            }
        }
    }

    fn background(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.background.lock().expect("no code under this lock panics")
    }

    /// Carries out in the background what nobody waits for.
    fn leave(&self, then: Option<Command>) {
        let Some(command) = then else { return };
        let (client, options) = (self.client.clone(), self.options);
        let task = tokio::spawn(async move {
            // If it fails, those who meet the locks do it.
            let _ = client.run(Request::Txn(command), options).await;
        });
        let mut background = self.background();
        background.retain(|task| !task.is_finished());
        background.push(task);
    }

    fn now(&self) -> Duration {
        self.client.inner.epoch.elapsed()
    }

    async fn read(&self, command: Command) -> Result<Vec<Pair>> {
        let seed = self.client.next_seed();
        self.drive(Read::new(command, self.options.timeout, seed)).await
    }

    /// Drives a machine to its end.
    async fn drive<M: Machine>(&self, machine: M) -> M::Result {
        let mut machine = Insistent::new(machine, self.options.timeout, self.client.next_seed());
        let mut input = Input::Start;
        loop {
            input = match machine.step(self.now(), input) {
                Output::Done(result) => return result,
                Output::Run { command, timeout } => {
                    let options = CallOptions { timeout, ..self.options };
                    let answer = self.client.run(Request::Txn(command), options).await;
                    Input::Ran(answer.and_then(answered))
                }
                Output::Timestamp => Input::Timestamp(self.client.timestamp().await),
                Output::Wait(duration) => {
                    tokio::time::sleep(duration).await;
                    Input::Timer
                }
            };
        }
    }
}

/// A call whose result is not that of its request would be a bug of `raw::Merge`.
fn answered(answer: Answer) -> Result<Answered> {
    match answer {
        Answer::Txn(answered) => Ok(*answered),
        other => {
            let what = format!("{other:?}");
            Err(Error::BadAnswer { who: "this client".to_owned(), what })
        }
    }
}

/// The cluster as of a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    txns: TxnClient,
    version: TimeStamp,
}

impl Snapshot {
    /// The moment.
    pub fn version(&self) -> TimeStamp {
        self.version
    }

    /// The value of `key`; `None` if it did not exist.
    ///
    /// # Errors
    /// It could not be read in time.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let command = Command::Get { key: key.into(), at: read::at(self.version) };
        Ok(self.txns.read(command).await?.pop().map(|pair| pair.value))
    }

    /// The pairs of those `keys` that existed, in the order of `keys`.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn batch_get<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Pair>> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let at = read::at(self.version);
        let found = self.txns.read(Command::BatchGet { keys: sorted, at }).await?;
        Ok(in_order(&keys, found))
    }

    /// The first `limit` pairs of `range`, in order.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Pair>> {
        self.scan_with(range, limit, Direction::Forward, false).await
    }

    /// As [`Snapshot::scan`], from either end of the range, and without the values if `keys_only`.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn scan_with(
        &self,
        range: KeyRange,
        limit: usize,
        direction: Direction,
        keys_only: bool,
    ) -> Result<Vec<Pair>> {
        let at = read::at(self.version);
        self.txns.read(Command::Scan { range, limit, keys_only, direction, at }).await
    }
}

/// The pairs of `keys` in their order.
fn in_order(keys: &[Bytes], mut found: Vec<Pair>) -> Vec<Pair> {
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let pair = |key: &Bytes| {
        let at = found.binary_search_by(|pair| pair.key.cmp(key)).ok()?;
        found.get(at).cloned()
    };
    keys.iter().filter_map(pair).collect()
}

/// A transaction under way. Dropped without [`Transaction::commit`] or [`Transaction::rollback`] it is not committed;
/// pessimistic locks of it then stay until their time is over, or somebody who met them has seen that it is.
#[derive(Debug)]
pub struct Transaction {
    txns: TxnClient,
    core: Core,
    /// Prolongs its locks.
    heart_beat: Option<JoinHandle<()>>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.stop_heart_beat();
    }
}

impl Transaction {
    /// What it sees was committed at or before this; it is its name as well.
    pub fn start_ts(&self) -> TimeStamp {
        self.core.start_ts()
    }

    /// The value of `key` as it was at the start, or as this transaction wrote it.
    ///
    /// # Errors
    /// It could not be read in time.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        match self.core.get(&key.into()) {
            Lookup::Known(value) => Ok(value),
            Lookup::Ask(command) => Ok(self.txns.read(command).await?.pop().map(|pair| pair.value)),
        }
    }

    /// The pairs of those `keys` that exist, in the order of `keys`.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn batch_get<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Pair>> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let (mut found, ask) = self.core.batch_get(&keys);
        if let Some(command) = ask {
            found.extend(self.txns.read(command).await?);
        }
        Ok(in_order(&keys, found))
    }

    /// The first `limit` pairs of `range`, in order.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Pair>> {
        self.scan_with(range, limit, Direction::Forward, false).await
    }

    /// The last `limit` pairs of `range`, the last one first.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn scan_reverse(&self, range: KeyRange, limit: usize) -> Result<Vec<Pair>> {
        self.scan_with(range, limit, Direction::Reverse, false).await
    }

    /// As [`Transaction::scan`], from either end of the range, and without the values if `keys_only`.
    ///
    /// # Errors
    /// They could not be read in time.
    pub async fn scan_with(
        &self,
        range: KeyRange,
        limit: usize,
        direction: Direction,
        keys_only: bool,
    ) -> Result<Vec<Pair>> {
        let found = self.txns.read(self.core.scan(&range, limit, direction, keys_only)).await?;
        Ok(self.core.lay_over(found, &range, limit, direction, keys_only))
    }

    /// Sets `key` to `value`. A pessimistic transaction locks it first.
    ///
    /// # Errors
    /// It could not be locked; the transaction is as it was before.
    pub async fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        self.lock([key.clone()], Wish::Nothing).await?;
        self.core.put(key, value.into());
        Ok(())
    }

    /// Sets `key` to `value`; it must not exist. A pessimistic transaction hears here if it does, an optimistic one at
    /// its commit.
    ///
    /// # Errors
    /// [`Error::KeyExists`], or it could not be locked; the transaction is as it was before.
    pub async fn insert(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        if self.core.locking() == Locking::Pessimistic {
            match self.core.locked_value(&key) {
                Some(None) => {}
                Some(Some(_)) => return Err(Error::KeyExists { key }),
                None => self.lock([key.clone()], Wish::Absence).await?,
            }
        }
        self.core.insert(key, value.into())
    }

    /// Removes `key`, if it exists. A pessimistic transaction locks it first.
    ///
    /// # Errors
    /// It could not be locked; the transaction is as it was before.
    pub async fn delete(&mut self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        self.lock([key.clone()], Wish::Nothing).await?;
        self.core.delete(key);
        Ok(())
    }

    /// Lets nobody else change `keys` until the commit: a pessimistic transaction locks them now, an optimistic one
    /// hears at its commit if somebody did.
    ///
    /// # Errors
    /// They could not be locked; the transaction is as it was before.
    pub async fn lock_keys<K: Into<Bytes>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<()> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        match self.core.locking() {
            Locking::Optimistic => self.core.touch(keys),
            Locking::Pessimistic => self.lock(keys, Wish::Nothing).await?,
        }
        Ok(())
    }

    /// The value of `key`, which nobody else changes until the commit. In a pessimistic transaction it is the newest
    /// one, in an optimistic one that of the start.
    ///
    /// # Errors
    /// It could not be locked or read; the transaction is as it was before.
    pub async fn get_for_update(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        if self.core.locking() == Locking::Optimistic {
            let value = self.get(key.clone()).await?;
            self.core.touch([key]);
            return Ok(value);
        }
        if self.core.locked_value(&key).is_none() {
            self.lock([key.clone()], Wish::Values).await?;
        }
        Ok(self.core.locked_value(&key).flatten())
    }

    async fn lock(&mut self, keys: impl IntoIterator<Item = Bytes>, wish: Wish) -> Result<()> {
        if self.core.locking() == Locking::Optimistic {
            return Ok(());
        }
        let Some(plan) = self.core.lock_plan(keys, wish) else {
            return Ok(());
        };
        let (timeout, seed) = (self.txns.options.timeout, self.txns.client.next_seed());
        let finished = self.txns.drive(Lock::new(plan.clone(), timeout, seed)).await;
        self.txns.leave(finished.then);
        self.core.on_locked(plan, finished.result?);
        if let (None, Some(machine)) = (&self.heart_beat, self.core.heart_beat()) {
            let txns = self.txns.clone();
            self.heart_beat = Some(tokio::spawn(async move { txns.drive(machine).await }));
        }
        Ok(())
    }

    fn stop_heart_beat(&mut self) {
        if let Some(task) = self.heart_beat.take() {
            task.abort();
        }
    }

    /// Commits: all that was written is visible from the returned timestamp on. `None`: nothing was written or locked.
    ///
    /// # Errors
    /// [`Error::Undetermined`]: it may be committed. Every other: it is not, and never will be.
    pub async fn commit(mut self) -> Result<Option<TimeStamp>> {
        let (timeout, seed) = (self.txns.options.timeout, self.txns.client.next_seed());
        let finished = self.txns.drive(Commit::new(self.core.commit_plan(), timeout, seed)).await;
        self.stop_heart_beat();
        self.txns.leave(finished.then);
        finished.result
    }

    /// Gives it up. Locks are taken back in the background.
    pub fn rollback(mut self) {
        self.stop_heart_beat();
        self.txns.leave(self.core.rollback());
    }
}
