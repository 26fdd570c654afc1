//! The verbs of a node.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    ConfChange, ConfState, Config, Error, Message, ProposeError, ReadError, Ready, RoleKind,
    SnapshotStatus, Storage, TransferError,
};

/// Random numbers for election timeouts. Injected, so that a run can be repeated.
pub trait Rng {
    /// A number of `low .. high`; `low < high`.
    fn range(&mut self, low: u32, high: u32) -> u32;
}

/// One node of a Raft group.
#[derive(Debug)]
pub struct Node<S, R> {
    config: Config,
    storage: S,
    rng: R,
}

/// What a node believes at the moment, for people, metrics and schedulers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// Whom it voted for in that term; 0 is nobody.
    pub vote: u64,
    /// Its role.
    pub role: RoleKind,
    /// The leader, if it knows one; 0 is nobody.
    pub leader: u64,
    /// The first entry that is not compacted.
    pub first_index: u64,
    /// The last entry.
    pub last_index: u64,
    /// The last entry that is durable here.
    pub persisted: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that the owner has applied.
    pub applied: u64,
    /// The members.
    pub conf: ConfState,
    /// A leader's view of its followers, by id; empty elsewhere.
    pub peers: Vec<PeerStatus>,
    /// To whom the leadership is being transferred; 0 is nobody.
    pub transferee: u64,
    /// Whether the leader could answer a read from its lease now.
    pub has_lease: bool,
}

/// A leader's view of one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its id.
    pub id: u64,
    /// The last entry that it is known to have.
    pub matched: u64,
    /// The next entry that it will be sent.
    pub next: u64,
    /// The last entry that it is known to know as committed.
    pub committed: u64,
    /// How it is being replicated to.
    pub kind: ProgressKind,
    /// Whether it was heard of since the last check of the quorum.
    pub is_active: bool,
}

/// How a follower is being replicated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgressKind {
    /// Where the logs meet is not known: one append at a time.
    Probe,
    /// It is: appends are sent ahead of their answers.
    Replicate,
    /// A snapshot is on its way.
    Snapshot,
}

/// Known bugs that the feature `mutants` can bring back: the name of the switch, and what it breaks.
pub const MUTANTS: &[(&str, &str)] = &[];

impl<S: Storage, R: Rng> Node<S, R> {
    /// A node as its storage remembers it, as a follower.
    pub fn new(config: Config, storage: S, rng: R) -> Result<Node<S, R>, Error> {
        config.validate()?;
        Ok(Node { config, storage, rng })
    }
    /// One tick of the owner's clock has passed.
    pub fn tick(&mut self) {}
    /// Takes a message of a peer.
    pub fn step(&mut self, _message: Message) -> Result<(), Error> {
        unreachable!()
    }
    /// Proposes.
    pub fn propose(&mut self, _data: Bytes) -> Result<(u64, u64), ProposeError> {
        unreachable!()
    }
    /// Proposes many, all or none: their indexes, and the term.
    pub fn propose_batch(
        &mut self,
        _data: impl IntoIterator<Item = Bytes>,
    ) -> Result<(Range<u64>, u64), ProposeError> {
        unreachable!()
    }
    /// Proposes a change of the members.
    pub fn propose_conf_change(&mut self, _change: ConfChange) -> Result<(u64, u64), ProposeError> {
        unreachable!()
    }
    /// Asks for a read index.
    pub fn read_index(&mut self, _context: u64) -> Result<(), ReadError> {
        unreachable!()
    }
    /// Transfers the leadership.
    pub fn transfer_leader(&mut self, _to: u64) -> Result<(), TransferError> {
        unreachable!()
    }
    /// Campaigns at once.
    pub fn campaign(&mut self) {}
    /// A message to `peer` could not be sent.
    pub fn report_unreachable(&mut self, _peer: u64) {}
    /// How the sending of a snapshot ended.
    pub fn report_snapshot(&mut self, _peer: u64, _status: SnapshotStatus) {}
    /// Whether `ready` has anything.
    pub fn has_ready(&self) -> bool {
        false
    }
    /// What to do.
    pub fn ready(&mut self) -> Ready {
        let _ = &mut self.rng;
        Ready::default()
    }
    /// Everything up to this Ready is durable.
    pub fn persisted(&mut self, _number: u64) {}
    /// Everything up to `index` is applied.
    pub fn applied(&mut self, _index: u64) {}
    /// Makes a change of the members take effect; gives the members after it.
    pub fn apply_conf_change(&mut self, _change: &ConfChange) -> ConfState {
        ConfState::default()
    }
    /// What it believes.
    pub fn status(&self) -> Status {
        let _ = &self.config;
        unreachable!()
    }
    /// The storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }
    /// The storage, to write what a Ready says.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }
}
