//! Processes and wires: the only gRPC server of the project.
//!
//! [`Server::start`] assembles a scheduler, a store, or both in one process; `service/` has one function per RPC;
//! `convert.rs` and `errors.rs` are the only places where protobuf messages and the inside's types meet.
//!
//! Order of start: sockets first (a port that is taken costs nothing), then the scheduler's state, then the store's
//! engine, its place in the cluster, and last the services. Order of stop: no new requests, those under way end, the
//! store writes what waits, the scheduler last.
#![forbid(unsafe_code)]

pub mod config;
mod convert;
mod convert_txn;
mod deadlocks;
mod error;
mod errors;
mod handlers;
mod http;
mod listen;
pub mod logging;
mod metrics;
mod mux;
mod placement;
mod scheduler_node;
mod server;
mod service;
mod store_data;
mod store_node;
mod timer;
mod transport;
mod unreported;
mod unsynced;
mod version_gc;

pub use config::Config;
pub use error::{StartError, StopCause};
pub use server::{Ready, Roles, Server};

/// The version that this server reports to TiKV clients: the one whose interfaces it has.
pub const TIKV_VERSION: &str = "8.5.0";
