//! A TiKV-compatible key-value store: the product, as a library and as three binaries.
//!
//! - [`Cluster`] is a scheduler and a store inside the caller's process, which any TiKV client may dial: for tests.
//! - [`Db`] is the same store without a network: for programs that keep their data with them.
//!
//! ```
//! # fn main() -> tinykv::Result<()> {
//! # let dir = std::env::temp_dir().join(format!("tinykv-doc-{}", std::process::id()));
//! let db = tinykv::Db::open(&dir)?;
//! db.put("hello", "world")?;
//! assert_eq!(db.get("hello")?.as_deref(), Some(&b"world"[..]));
//! # drop(db);
//! # let _ = std::fs::remove_dir_all(&dir);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod cluster;
#[cfg(feature = "cli")]
pub mod course_flags;
mod db;
mod error;

pub use cluster::{Cluster, ClusterBuilder};
pub use db::{Db, DbBuilder};
pub use error::{Error, Result};
pub use server::Config;
pub use types::{ApiMode, Cf};

use tokio::runtime::{Builder, Runtime};
use types::Code;

/// A runtime of the given number of threads, named so that they can be told apart in the machine's tools.
fn runtime(threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("tinykv-net")
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::DiskIo, format!("cannot start threads: {error}")))
}
