//! The client: which store has a key, what to send there, and what to do when the answer is "not here, not now".
//!
//! The logic is pure and drives nothing: a [`Call`] is one operation of a user, from its first request to its result.
//! It is a step machine. Inputs are the start, the answer of a store, a failure, the answer of the scheduler, and the
//! end of a wait; outputs are "send this to that store", "ask the scheduler", "wait", and "done". What a call learns
//! about routes stays in the [`RegionCache`], which all calls of a client share. The gRPC driver (feature `grpc`,
//! module [`shell`]) and the simulator perform the same outputs.
//!
//! Invariants:
//! 1. A write that may have been executed is never sent again unless it may happen twice ([`request::Effect`]), and
//!    if its fate stays unknown the result is [`Error::Undetermined`], never a plain failure.
//! 2. Every loop is bounded by the time of the call, and every retry but the first waits ([`backoff`]).
//! 3. The error of a call that ran out of time carries the first cause, not the last symptom.
//!
//! Cores (everything but `shell`) read no clock, draw no randomness and know no protobuf: time and seeds are inputs.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod call;
pub mod error;
pub mod key_mode;
mod raw;
pub mod region_cache;
pub mod request;
#[cfg(feature = "grpc")]
pub mod shell;
pub mod txn;

pub use call::{AmbiguousWrites, Call, CallOptions, Input, Output};
pub use error::{Error, Kind, Result};
pub use key_mode::KeyLayout;
pub use region_cache::RegionCache;
pub use request::{Answer, Checksum, Direction, Pair, Request, TimeToLive};

#[cfg(feature = "grpc")]
pub use shell::{
    Client, ClusterState, MemberInfo, Options, RawClient, RegionInfo, Snapshot, StoreInfo,
    StoreState, StoreStats, Transaction, TxnClient,
};
