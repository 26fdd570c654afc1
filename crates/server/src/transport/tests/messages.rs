//! Messages to send.

use bytes::Bytes;
use raft::{Entry, EntryKind, Message, MessageBody};
use raftstore::{StoreMessage, message::MessageBody as StoreBody};
use types::{KeyRange, Peer, PeerId, PeerRole, RegionEpoch, RegionId, StoreId};

/// The store that sends.
pub(crate) const OWN: StoreId = StoreId(1);

/// The peer of a region on a store.
pub(crate) fn peer(region: u64, store: StoreId) -> Peer {
    Peer { id: PeerId(region * 10 + store.0), store_id: store, role: PeerRole::Voter }
}

/// A message of `region` from [`OWN`] to `to`.
pub(crate) fn raft(region: u64, to: StoreId, body: MessageBody) -> StoreMessage {
    let (from, to) = (peer(region, OWN), peer(region, to));
    let message = Message { from: from.id.0, to: to.id.0, term: 1, body };
    let body = StoreBody::Raft { message, range: KeyRange::new("a", "b") };
    StoreMessage { region_id: RegionId(region), from, to, epoch: RegionEpoch::FIRST, body }
}

/// An append of one entry.
pub(crate) fn append(region: u64, to: StoreId, data: Bytes) -> StoreMessage {
    let entries = vec![Entry { term: 1, index: 6, kind: EntryKind::Normal, data }];
    raft(region, to, MessageBody::Append { index: 5, log_term: 1, entries, commit: 5 })
}

/// An append without entries.
pub(crate) fn commit(region: u64, to: StoreId) -> StoreMessage {
    let entries = Vec::new();
    raft(region, to, MessageBody::Append { index: 6, log_term: 1, entries, commit: 6 })
}

/// A heartbeat.
pub(crate) fn heartbeat(region: u64, to: StoreId) -> StoreMessage {
    raft(region, to, MessageBody::Heartbeat { commit: 5, round: 1 })
}

/// A message on which nobody counts, with a number to know it by.
pub(crate) fn numbered(region: u64, to: StoreId, number: u64) -> StoreMessage {
    raft(region, to, MessageBody::HeartbeatResponse { round: number })
}

/// A vote.
pub(crate) fn vote(region: u64, to: StoreId) -> StoreMessage {
    raft(region, to, MessageBody::VoteResponse { granted: true })
}
