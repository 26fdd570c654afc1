//! What users ask and what stores answer, without protobuf.
//!
//! The same [`Request`] travels twice: from the user with user keys, and from a call to a store with the keys that the
//! wire has (`key_mode.rs`) and narrowed to what one region holds.

use std::{sync::Arc, time::Duration};

use types::{Bytes, Cf, Code, KeyRange, Region, RegionError, RequestContext, StoreId};

use crate::{
    Error,
    txn::command::{Answered, Command},
};

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// The value; empty in scans of keys only.
    pub value: Bytes,
}

impl Pair {
    /// A pair.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Pair {
        Pair { key: key.into(), value: value.into() }
    }
}

/// Which end of a range comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key to the greatest.
    #[default]
    Forward,
    /// From the greatest key to the smallest.
    Reverse,
}

/// One raw operation, or one of the protocol of transactions.
///
/// Times to live are in whole seconds; 0 is "for ever".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value of a key. Answer: [`Answer::Value`].
    Get {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
    },
    /// The values of several keys. Answer: [`Answer::Pairs`], those that exist, in the order of the keys.
    BatchGet {
        /// Where.
        cf: Cf,
        /// Which.
        keys: Vec<Bytes>,
    },
    /// Sets a key. Answer: [`Answer::Done`].
    Put {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
        /// To what.
        value: Bytes,
        /// How long it lives.
        ttl_secs: u64,
    },
    /// Sets several keys; the last value of a key counts. Atomic at most within one region: when it fails, part of
    /// the pairs may be written. Answer: [`Answer::Done`].
    BatchPut {
        /// Where.
        cf: Cf,
        /// Which, to what.
        pairs: Vec<Pair>,
        /// How long they live.
        ttl_secs: u64,
    },
    /// Removes a key, if it exists. Answer: [`Answer::Done`].
    Delete {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
    },
    /// Removes several keys; as [`Request::BatchPut`] when it fails. Answer: [`Answer::Done`].
    BatchDelete {
        /// Where.
        cf: Cf,
        /// Which.
        keys: Vec<Bytes>,
    },
    /// Removes every key of a range, region by region. Answer: [`Answer::Done`].
    DeleteRange {
        /// Where.
        cf: Cf,
        /// Which.
        range: KeyRange,
    },
    /// The pairs of a range, in order, each region at a moment of its own. Answer: [`Answer::Pairs`].
    Scan {
        /// Where.
        cf: Cf,
        /// Which.
        range: KeyRange,
        /// At most so many.
        limit: usize,
        /// Leaves the values out.
        keys_only: bool,
        /// From which end.
        direction: Direction,
    },
    /// Sets a key if its value is the expected one. Answer: [`Answer::Swapped`].
    CompareAndSwap {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
        /// What must be there; `None`: nothing may be.
        expected: Option<Bytes>,
        /// What is there afterwards; `None` deletes the key.
        new: Option<Bytes>,
        /// How long it lives.
        ttl_secs: u64,
    },
    /// How long a key still lives. Answer: [`Answer::Ttl`].
    Ttl {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
    },
    /// A checksum over the pairs of a range, column family default. Answer: [`Answer::Checksum`].
    Checksum {
        /// Which.
        range: KeyRange,
    },
    /// What a transaction asks. Answer: [`Answer::Txn`].
    Txn(Command),
}

/// What happens when a request is executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is changed by it, or nothing that anybody who does not know its fate has to mind.
    Read,
    /// A transaction may be decided by it. The second time changes nothing, whatever others do in between, and says
    /// what the first time came to.
    Decides,
    /// The second time changes nothing, as long as nobody else writes the same keys in between.
    Idempotent,
    /// The second time may do something else, or answer something else.
    Once,
}

impl Request {
    /// What happens when it is executed twice.
    pub fn effect(&self) -> Effect {
        match self {
            Request::Get { .. }
            | Request::BatchGet { .. }
            | Request::Scan { .. }
            | Request::Ttl { .. }
            | Request::Checksum { .. } => Effect::Read,
            Request::Put { .. }
            | Request::BatchPut { .. }
            | Request::Delete { .. }
            | Request::BatchDelete { .. }
            | Request::DeleteRange { .. } => Effect::Idempotent,
            Request::CompareAndSwap { .. } => Effect::Once,
            Request::Txn(command) => command.effect(),
        }
    }

    /// The word for it in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Get { .. } => "get",
            Request::BatchGet { .. } => "batch get",
            Request::Put { .. } => "put",
            Request::BatchPut { .. } => "batch put",
            Request::Delete { .. } => "delete",
            Request::BatchDelete { .. } => "batch delete",
            Request::DeleteRange { .. } => "delete range",
            Request::Scan { .. } => "scan",
            Request::CompareAndSwap { .. } => "compare and swap",
            Request::Ttl { .. } => "time to live",
            Request::Checksum { .. } => "checksum",
            Request::Txn(command) => command.name(),
        }
    }
}

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    NotFound,
    /// It never expires.
    Forever,
    /// It expires in so many seconds, rounded up.
    Seconds(u64),
}

/// A checksum over key-value pairs, equal for equal sets of pairs in whatever regions they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// CRC-64/XZ over key and value of each pair, combined by XOR. Keys as the wire has them.
    pub crc64_xor: u64,
    /// How many pairs.
    pub pairs: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// The result of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A value; `None` if there is no such key.
    Value(Option<Bytes>),
    /// Pairs.
    Pairs(Vec<Pair>),
    /// It is done.
    Done,
    /// Whether the value was the expected one, and what was there before.
    Swapped {
        /// Whether the new value is there now.
        swapped: bool,
        /// What was there.
        previous: Option<Bytes>,
    },
    /// How long a key lives.
    Ttl(TimeToLive),
    /// A checksum.
    Checksum(Checksum),
    /// What a command of a transaction came to.
    Txn(Box<Answered>),
}

/// Where a request goes: a store, and what the request says about the region it is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The store.
    pub store: StoreId,
    /// Its address, `host:port`.
    pub address: Arc<str>,
    /// Region, epoch and peer.
    pub context: RequestContext,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The region refused it. `Undetermined` is the only one after which it may have been executed.
    Region(RegionError),
    /// It was certainly not executed and may be sent again after a while.
    NotNow(String),
    /// It will not do it.
    Refused {
        /// Why, by the catalogue.
        code: Code,
        /// Why, in the store's words.
        message: String,
    },
    /// The answer does not fit the request.
    Nonsense(String),
}

/// Why no answer of a store arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made: the store never saw the request.
    NotSent(String),
    /// The connection broke, or time ran out: the store may have executed the request.
    NoAnswer(String),
}

impl Failure {
    /// What happened.
    pub fn reason(&self) -> &str {
        match self {
            Failure::NotSent(reason) | Failure::NoAnswer(reason) => reason,
        }
    }
}

/// What only the scheduler knows. Keys in the form that region bounds have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The region that contains a key.
    RegionOf(Bytes),
    /// The region before the one that contains a key.
    RegionBefore(Bytes),
    /// The address of a store.
    Store(StoreId),
}

/// The scheduler's answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A region and the store of its leader, if it has one.
    Region {
        /// The region.
        region: Region,
        /// Where its leader is.
        leader: Option<StoreId>,
    },
    /// No region contains that key: the scheduler has not heard of it yet.
    NoRegion,
    /// The address of a store.
    Store {
        /// Which.
        store: StoreId,
        /// `host:port`.
        address: String,
    },
    /// The store does not exist, or not any more.
    NoStore(StoreId),
}

/// A store's answer or refusal.
pub type Reply = Result<Answer, StoreError>;

/// The scheduler's answer or failure.
pub type RouteReply = Result<Route, Error>;

/// Whole seconds of a time to live, rounded up; a time to live of less than a second must not become "for ever".
pub fn ttl_secs(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
        .max(u64::from(ttl.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_rounded_up_and_never_become_eternal() {
        assert_eq!(ttl_secs(None), 0);
        assert_eq!(ttl_secs(Some(Duration::ZERO)), 1);
        assert_eq!(ttl_secs(Some(Duration::from_millis(1))), 1);
        assert_eq!(ttl_secs(Some(Duration::from_millis(1001))), 2);
        assert_eq!(ttl_secs(Some(Duration::from_secs(10))), 10);
    }
}
