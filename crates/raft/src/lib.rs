//! Raft: a group of nodes agrees on one log, and keeps it as long as a majority of them keeps its disks.
//!
//! This crate is the algorithm and nothing else. A [`Node`] is a step machine: its owner gives it ticks, messages,
//! proposals and the news that something is durable or applied, and gets back [`Ready`]: what to write, what to send,
//! what to apply. It reads no clock, draws no random number of its own, starts nothing, waits for nothing and does no
//! I/O but reads of its own past through [`Storage`]. So a run can be repeated exactly, which is how it is tested.
//!
//! # The protocol, as it is here
//!
//! Time is cut into **terms**, each with at most one **leader**. A follower that hears from no leader for a random time
//! asks the others first whether it could win (pre-vote), then raises its term and asks for their votes; who has a
//! majority leads. A node votes once a term, and only for a candidate whose log ends no earlier than its own, so every
//! leader has everything that is committed (*election*).
//!
//! The leader appends proposals to its log and sends them to the others, each append with the index and the term of the
//! entry before it; a follower that has another entry there refuses, and the two find where their logs meet, a term at a
//! time. An entry of the leader's term is **committed** when a majority has it on disk; with it all before it are. The
//! leader begins its term with an empty entry to get there at once (*replication*).
//!
//! Reads need no entry: the leader proves that it still leads, by a round of heartbeats, or by a lease that rests on
//! the followers' promise not to vote for a while (*read*). Leadership is handed over by asking an up-to-date follower
//! to campaign at once (*transfer*). Members change one at a time, or several at once through a joint state; learners
//! get the log without a vote (*membership*). A follower whose entries are compacted gets a snapshot (*snapshot*).
//!
//! The disk works beside all that: several Readies may be under way, a leader sends its appends before its own write is
//! durable, and nobody counts, votes or answers with what its disk does not have (*ready*, *output*, *log*).
//!
//! # The owner's loop
//!
//! ```
//! # use raft::{Config, ConfChange, EntryKind, MemStorage, Node, Rng};
//! # struct Fixed;
//! # impl Rng for Fixed { fn range(&mut self, low: u32, _: u32) -> u32 { low } }
//! # let (mut state, mut sent) = (Vec::new(), Vec::new());
//! let mut node = Node::new(Config::new(1), MemStorage::new([1]), Fixed)?;
//! for _ in 0..10 {
//!     node.tick();                                        // and step, propose, read_index, as things arrive
//!     while node.has_ready() {
//!         let ready = node.ready();
//!         let disk = node.storage_mut();                  // 1: write; it is readable from now on
//!         if let Some(snapshot) = ready.snapshot { disk.apply_snapshot(snapshot)? }
//!         if let Some(hard_state) = ready.hard_state { disk.set_hard_state(hard_state) }
//!         disk.append(&ready.entries);
//!         sent.extend(ready.messages);                    // 2: send, while the disk works
//!         node.persisted(ready.number);                   // when 1 is synced, which may be many Readies later
//!         sent.extend(ready.messages_after_persist);      // 3: send what promises what is synced now
//!         for entry in ready.committed {                  // 4: apply
//!             match entry.kind {
//!                 EntryKind::ConfChange => drop(node.apply_conf_change(&ConfChange::decode(&entry.data)?)),
//!                 EntryKind::Normal => state.push(entry.data),
//!             }
//!             node.applied(entry.index);
//!         }
//!     }
//! }
//! # assert_eq!(node.role().leader, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The owner stores what is applied, and the members as of there, in one step, and starts the node with both. It begins
//! a group with a snapshot at an index above 0, so that members who join later begin with one too: the log does not
//! say who the first members were, and a node that knows none takes nothing but a snapshot. It keeps a leader that
//! was removed running until that has stepped down, or loses up to an election timeout. A read that was answered by a lease
//! is as good as the ticks: after a pause the owner delivers those that it owes before anything else.
//!
//! # Where it differs from the thesis
//!
//! - A change of the members takes effect when it is applied and not when it is appended; membership.rs says why that
//!   is safe and what it needs.
//! - A vote response, an append response and the candidate's own vote wait for the disk by the numbering of Readies;
//!   the thesis writes first and speaks then. The leader's appends don't wait (thesis 10.2.1).
//! - Requests for votes wait too: they speak of a log that a crash could take back.
//! - A node that restarts keeps to the promise on which a lease may rest, for an election timeout.
//! - A follower that learns of a newer term from a candidate goes on waiting as before: it votes, or is next itself.
//! - Who asks for a vote says what it knows to be committed, and who refuses one says what is committed of the
//!   candidate's log. It may be the change of the members that lets the other lead, and nobody may lead who could tell.
//! - Nobody acts on a change of the members, or tells others that it is committed, before it durably knows so: the one
//!   commit index that is synced. Who is removed destroys itself for good, and those who stay would wait for its vote.
//! - A removed leader stays until a majority of the others knows that its removal is committed; one that a single step
//!   removes does not apply that before.
//! - A leader whose disk stands still for an election timeout steps down.
//!
//! # What is left out
//!
//! Forwarding of proposals (its outcome is not known to who forwards: the owner sends clients to the leader),
//! compression, witnesses, flexible quorums, replication from follower to follower, and quiescence of idle groups, which
//! is the business of who owns many of them. Messages are plain values: encoding and checksums are the transport's.
#![forbid(unsafe_code)]

mod conf_change;
mod config;
mod election;
mod entry;
mod error;
mod invariants;
mod log;
mod membership;
mod message;
mod mutants;
mod node;
mod output;
mod progress;
mod quorum;
mod read;
mod ready;
mod replication;
mod role;
mod snapshot;
mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod transfer;

pub use config::{Config, ReadMode};
pub use entry::{Entry, EntryKind, HardState, NUMBER_MAX, Snapshot, SnapshotMeta};
pub use error::{Error, ProposeError, ReadError, StorageError, TransferError};
pub use membership::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition};
pub use message::{Message, MessageBody, RejectHint};
pub use mutants::MUTANTS;
pub use node::{Node, PeerStatus, ProgressKind, Rng, Status};
pub use read::Lease;
pub use ready::{ReadState, Ready, RoleKind, RoleState, SnapshotStatus};
pub use storage::{MemStorage, Storage};
