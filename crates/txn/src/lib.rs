//! Transactions: many versions of every key, and Percolator's protocol on top.
//!
//! # What lies where
//!
//! `k` is a user's key in its memcomparable form, `!ts` a timestamp with all bits inverted, so that newer versions
//! come first ([`layout`]).
//!
//! | column family | key | value | while |
//! |---|---|---|---|
//! | `lock` | `k` | [`Lock`]: who has the key, what for, and the primary | the transaction is under way |
//! | `default` | `k !start_ts` | a value of more than 255 bytes | from the prewrite on |
//! | `write` | `k !commit_ts` | [`Write`]: put, deletion or lock, and `start_ts`; a short value | it is committed |
//! | `write` | `k !start_ts` | [`Write`]: rollback | the transaction must never prewrite the key |
//!
//! # A transaction
//!
//! A client takes a timestamp, reads at it, and keeps its writes to itself. To commit it *prewrites* every key: if
//! nobody has the key and nobody wrote it since the timestamp, a lock is put on it. One key is the *primary*; all
//! locks name it. Then the client takes the commit timestamp and *commits* the primary: its lock becomes a record,
//! in one step, and that step decides the transaction. The other keys follow.
//!
//! A reader that meets a lock older than its timestamp can't know whether it will be committed below it. It asks the
//! primary ([`commands::CheckTxnStatus`]), which ends the transaction if its time is over, and then ends it on the
//! key as the primary decided ([`commands::ResolveLocks`]). A rollback leaves a record, so that a prewrite which
//! comes late fails.
//!
//! With *asynchronous commit* the transaction is committed as soon as all keys are prewritten, at the largest of the
//! timestamps that the stores gave it; the primary lists the other keys, so that others can find out. *In one phase*
//! the prewrite of all keys commits them on the spot. Both rest on [`Concurrency`]: no timestamp is given that a
//! reader may have passed. A *pessimistic* transaction locks keys before it knows what to write
//! ([`commands::PessimisticLock`]), and turns these locks into others in its prewrite.
//!
//! # This crate
//!
//! Records and their codecs ([`lock`], [`mod@write`]), point reads ([`reader`]), reads that mind locks ([`read`],
//! [`scanner`]), reads that show everything ([`mvcc`]), and commands as functions over a snapshot ([`commands`]). Who
//! runs them holds the [`Latches`] of their keys meanwhile. Who asks for a lock that another has waits in [`LockWaits`],
//! unless the graph of who waits for whom says that it never ends ([`deadlock`]). There is no clock here: every time is
//! in a request.
#![forbid(unsafe_code)]

pub mod changes;
pub mod commands;
mod concurrency;
pub mod deadlock;
mod error;
mod find;
pub mod gc;
mod last_change;
mod latches;
pub mod layout;
pub mod lock;
mod lock_wait;
mod mutants;
pub mod mvcc;
pub mod read;
pub mod reader;
pub mod scanner;
pub mod write;

pub use changes::Changes;
pub use concurrency::Concurrency;
pub use error::{Assertion, ConflictReason, Error, KeyError, LockInfo, Result, WaitFor};
pub use find::{LocksPage, find_locks};
pub use last_change::LastChange;
pub use latches::Latches;
pub use layout::Key;
pub use lock::{Lock, LockKind};
pub use lock_wait::LockWaits;
pub use mutants::MUTANTS;
pub use read::{Isolation, KvPair, Read};
pub use reader::{Reader, TxnRecord};
pub use scanner::ScanOptions;
pub use write::{SHORT_VALUE_MAX, Write, WriteKind};
