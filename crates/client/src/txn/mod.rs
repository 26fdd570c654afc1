//! Transactions: Percolator's protocol from the client's side.
//!
//! | file | what |
//! |---|---|
//! | `command.rs` | what is asked of stores, and what they answer |
//! | `plan.rs` | how a command is cut into regions, for [`Call`](crate::Call) |
//! | `transaction.rs` | what a transaction wrote and locked so far |
//! | `machine.rs` | what machines have in common |
//! | `read.rs` | one read of a snapshot |
//! | `commit.rs` | one commit |
//! | `lock.rs` | one request for pessimistic locks |
//! | `resolve.rs` | locks of others in the way of these three |
//! | `heart_beat.rs` | the life sign of a transaction that takes long |
//!
//! There are two layers of step machines. A machine of this module knows the protocol: which command is next, given
//! what the last one came to. It does one thing at a time and knows no regions. Each command is carried out by a
//! [`Call`](crate::Call), which knows regions, stores and retries, and no protocol. Every command may be executed
//! twice, so a call sends it until it is answered.
//!
//! A client may stop between any two steps. What it leaves behind are locks, and whoever meets them finds out from
//! the primary, or from all keys together, what became of the transaction.

pub mod command;
pub mod commit;
mod heart_beat;
pub mod lock;
mod machine;
pub(crate) mod plan;
pub mod read;
mod resolve;
mod transaction;

pub use command::{Answered, Command, CommitMode};
pub use commit::Commit;
pub use heart_beat::HeartBeat;
pub use lock::Lock;
pub use machine::{Input, Insistent, Machine, Output};
pub use read::Read;
pub use transaction::{Locking, Lookup, Transaction};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
