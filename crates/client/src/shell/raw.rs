//! The raw operations as functions.

use std::time::Duration;

use types::{Bytes, Cf, KeyRange};

use super::Client;
use crate::{
    Answer, CallOptions, Checksum, Direction, Error, Pair, Request, Result, TimeToLive,
    call::AmbiguousWrites, request::ttl_secs,
};

/// Raw operations on one column family. Cheap to clone.
///
/// Every operation is retried until its time is over. When a write fails with [`Error::Undetermined`], it may have
/// taken effect or still do so; after every other error it has not, except that of a batch or a range a part may be
/// done. An empty value is a value.
#[derive(Clone, Debug)]
pub struct RawClient {
    client: Client,
    cf: Cf,
    options: CallOptions,
}

impl RawClient {
    pub(super) fn new(client: Client, options: CallOptions) -> RawClient {
        RawClient { client, cf: Cf::Default, options }
    }

    /// The same on another column family.
    #[must_use]
    pub fn with_cf(mut self, cf: Cf) -> RawClient {
        self.cf = cf;
        self
    }

    /// The same with another limit of time for each operation.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> RawClient {
        self.options.timeout = timeout;
        self
    }

    /// The same with another treatment of writes that got no answer.
    #[must_use]
    pub fn with_ambiguous_writes(mut self, ambiguous_writes: AmbiguousWrites) -> RawClient {
        self.options.ambiguous_writes = ambiguous_writes;
        self
    }

    async fn run(&self, request: Request) -> Result<Answer> {
        self.client.run(request, self.options).await
    }

    async fn done(&self, request: Request) -> Result<()> {
        match self.run(request).await? {
            Answer::Done => Ok(()),
            other => Err(surprise(&other)),
        }
    }

    /// The value of `key`; `None` if there is no such key.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        match self.run(Request::Get { cf: self.cf, key: key.into() }).await? {
            Answer::Value(value) => Ok(value),
            other => Err(surprise(&other)),
        }
    }

    /// The pairs of those `keys` that exist, in the order of `keys`.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn batch_get<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Pair>> {
        let keys = keys.into_iter().map(Into::into).collect();
        match self.run(Request::BatchGet { cf: self.cf, keys }).await? {
            Answer::Pairs(pairs) => Ok(pairs),
            other => Err(surprise(&other)),
        }
    }

    /// Sets `key` to `value`, for ever.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.put_with_ttl(key, value, None).await
    }

    /// Sets `key` to `value`, for ever or for `ttl` (rounded up to whole seconds; API modes v1ttl and v2).
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn put_with_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        self.done(Request::Put { cf: self.cf, key, value, ttl_secs: ttl_secs(ttl) }).await
    }

    /// Sets all `pairs`, for ever or for `ttl`. Of several values of a key the last counts.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn batch_put(
        &self,
        pairs: impl IntoIterator<Item = Pair>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let pairs = pairs.into_iter().collect();
        self.done(Request::BatchPut { cf: self.cf, pairs, ttl_secs: ttl_secs(ttl) }).await
    }

    /// Removes `key`, if it exists.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.done(Request::Delete { cf: self.cf, key: key.into() }).await
    }

    /// Removes those `keys` that exist.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn batch_delete<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<()> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.done(Request::BatchDelete { cf: self.cf, keys }).await
    }

    /// Removes every key of `range`. Not atomic: regions are emptied one after the other.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn delete_range(&self, range: KeyRange) -> Result<()> {
        self.done(Request::DeleteRange { cf: self.cf, range }).await
    }

    /// The first `limit` pairs of `range`, in order. Each region is read at a moment of its own.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Pair>> {
        self.scan_with(range, limit, Direction::Forward, false).await
    }

    /// As [`RawClient::scan`], from either end of the range, and without the values if `keys_only`.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn scan_with(
        &self,
        range: KeyRange,
        limit: usize,
        direction: Direction,
        keys_only: bool,
    ) -> Result<Vec<Pair>> {
        match self.run(Request::Scan { cf: self.cf, range, limit, keys_only, direction }).await? {
            Answer::Pairs(pairs) => Ok(pairs),
            other => Err(surprise(&other)),
        }
    }

    /// Sets `key` to `new` (`None` deletes it) if its value is `expected` (`None`: if there is no such key). Returns
    /// whether it did, and what was there before. Linearizable with every write of a value.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<(bool, Option<Bytes>)> {
        let key = key.into();
        let request =
            Request::CompareAndSwap { cf: self.cf, key, expected, new, ttl_secs: ttl_secs(ttl) };
        match self.run(request).await? {
            Answer::Swapped { swapped, previous } => Ok((swapped, previous)),
            other => Err(surprise(&other)),
        }
    }

    /// How long `key` still lives.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn ttl(&self, key: impl Into<Bytes>) -> Result<TimeToLive> {
        match self.run(Request::Ttl { cf: self.cf, key: key.into() }).await? {
            Answer::Ttl(ttl) => Ok(ttl),
            other => Err(surprise(&other)),
        }
    }

    /// A checksum over the pairs of `range` in column family `default`.
    ///
    /// # Errors
    /// See [`RawClient`].
    pub async fn checksum(&self, range: KeyRange) -> Result<Checksum> {
        match self.run(Request::Checksum { range }).await? {
            Answer::Checksum(sum) => Ok(sum),
            other => Err(surprise(&other)),
        }
    }
}

/// A call whose result is not that of its request would be a bug of `raw::Merge`.
fn surprise(answer: &Answer) -> Error {
    Error::BadAnswer { who: "this client".to_owned(), what: format!("{answer:?}") }
}
