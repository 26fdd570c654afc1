//! The services over the wire, against a whole cluster in the test's process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;
mod lock_waits;
mod pd;
mod pd_http;
mod placement;
mod raw;
mod txn;
mod txn_gc;
mod txn_ranges;
mod txn_records;
