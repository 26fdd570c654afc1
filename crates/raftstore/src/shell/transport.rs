//! How messages leave a store and arrive there. `server` implements the one and uses the other.

use std::{fmt, path::PathBuf};

use types::{PeerId, RegionId};

use crate::{message::StoreMessage, snapshot::Descriptor};

/// Takes messages to other stores. Lossy: what does not fit or can't be sent is dropped.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends messages, each to `message.to.store_id`, in order for each store. Never blocks.
    fn send(&self, messages: Vec<StoreMessage>);

    /// Sends a message that carries a Raft snapshot, and beside it the bytes of `file`. Never blocks. What became of it
    /// is said once by [`Inbox::snapshot_sent`].
    fn send_snapshot(&self, message: Box<StoreMessage>, descriptor: Descriptor, file: PathBuf);
}

/// Where messages arrive. Calls never block.
pub trait Inbox: fmt::Debug + Send + Sync {
    /// Messages of other stores, in order. Of a snapshot: after its file lies where
    /// [`Snapshots::received`](crate::snapshot::Snapshots::received) says. Returns how many were taken: the store has
    /// too much to do for the rest, which is lost.
    fn deliver(&self, messages: Vec<StoreMessage>) -> usize;

    /// A snapshot was sent, or is lost.
    fn snapshot_sent(&self, region_id: RegionId, to: PeerId, arrived: bool);

    /// A message to this peer could not be sent.
    fn unreachable(&self, region_id: RegionId, peer: PeerId);
}
