//! The load generator behind `tinykv bench`: one client against tinykv (or any TiKV), a bare echo server and etcd.
//!
//! The one idea: figures only mean something as ratios, and ratios only mean something if both sides were asked by
//! the same client, on the same machine, in the same minute. So every target stands behind one trait
//! (`target`), the loops that produce load (`closed_loop`, `open_loop`) know none of them, and
//! `compare` measures two targets in turns.
//!
//! What holds for every figure:
//! - Latency of the open loop counts from the intended start: a stall is charged to every request that should have
//!   run during it.
//! - A put counts when its answer says so, a get when the value's checksum fits its key.
//! - The client is one thread: on a small machine it competes with the server, so it is kept cheap (prebuilt keys,
//!   values from an arena, one recorder).
//! - Processor time per operation, of the servers and of this process, stands beside every rate: it holds when the
//!   machine is noisy.
//!
//! It is no test of correctness beyond the checksums, and one thread does not saturate a large machine: start
//! several there.
#![forbid(unsafe_code)]

mod args;
mod clock;
mod closed_loop;
mod compare;
mod echo_server;
mod error;
mod interrupt;
mod keys;
mod load;
mod metrics;
mod open_loop;
mod process;
mod progress;
mod record;
mod report;
mod run;
mod target;
mod window;
mod workload;
mod zipf;

pub use args::{BenchArgs, CompetitionArgs};
pub use error::Error;
pub use run::run;
