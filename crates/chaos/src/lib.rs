//! Chaos: the product as a real process, killed, paused, cut from its disk, out of space, and then held to its word.
//!
//! The one idea is a ledger ([`model`]): writers note every write before they send it and every answer when they
//! get it. After each fault the whole data set is read back and compared: a key may have the value of its last
//! acknowledged write, or of a write that was sent later and never answered, and no other. Ids and timestamps of the
//! scheduler are held to theirs in the same way ([`oracle`]).
//!
//! Invariants: a fault is counted only after it has happened, a check only after it has read every key, and the
//! report of a run that did nothing says so ([`report`]). The checkers are themselves tested with planted losses.
//!
//! What each scenario proves:
//! - [`kill`]: SIGKILL keeps the kernel's page cache, so this proves recovery, not durability.
//! - [`power_cut`]: the file system forgets everything that was not synced. This proves durability. Needs root.
//! - [`pause`]: a process that stood still for seconds goes on without a wrong answer.
//! - [`cluster`]: three stores and a scheduler stay linearizable and lose nothing whatever happens to some of them.
//! - [`disk_full`]: a full disk refuses writes with its own error, keeps reads, and costs no acknowledged write.
//!
//! Nothing here is linked into the product, and nothing of the product but its client is linked in here.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod dial;
pub mod disk;
pub mod disk_full;
pub mod kill;
pub mod kv;
pub mod load;
pub mod model;
pub mod oracle;
pub mod pause;
pub mod power_cut;
pub mod process;
pub mod report;
pub mod session;
