//! Messages between stores as protobuf, and back.
//!
//! What comes in is not trusted beyond its checksum: what no store of this version says is an error, never a panic and
//! never a guess. Keys and the data of entries stay slices of the buffer that they arrived in.
//!
//! A payload is a sequence of messages, each with its length before it, so that one is converted before the next is
//! decoded: what a damaged payload can make us allocate is one message.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use proto::{
    internal::{self as wire, raft_message, store_message},
    metapb,
};
use raft::{ConfState, Entry, EntryKind, Message, MessageBody, RejectHint, Snapshot, SnapshotMeta};
use raftstore::{StoreMessage, message::MessageBody as StoreBody};
use types::{KeyRange, Peer, PeerRole, Region, RegionId, limits};

use crate::convert;

/// The version of the messages; another one is refused.
pub(super) const VERSION: u32 = 1;

/// What a batch takes beside its payload, at most.
pub(super) const BATCH_OVERHEAD: usize = 256;

/// Why bytes of another store are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// They are not what was sent.
    #[error("checksum mismatch: sent {sent:08x}, computed {computed:08x}")]
    Checksum {
        /// What the sender says.
        sent: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// They are no protobuf.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    /// No store of this version says that.
    #[error("no valid {0}")]
    Invalid(&'static str),
}

type Result<T, E = WireError> = std::result::Result<T, E>;

/// Compares bytes with what the sender says of them.
pub(super) fn check(bytes: &[u8], sent: u32) -> Result<()> {
    match crc32c::crc32c(bytes) {
        computed if computed == sent => Ok(()),
        computed => Err(WireError::Checksum { sent, computed }),
    }
}

/// What a message weighs while it waits: at least what it takes in a batch, and about what it takes in memory.
pub(super) fn weight(message: &StoreMessage) -> usize {
    const FIXED: usize = 256;
    const MEMBER: usize = 40;
    FIXED
        + match &message.body {
            StoreBody::AmIMember => 0,
            StoreBody::Gone { region } => range_bytes(&region.range) + region.peers.len() * MEMBER,
            StoreBody::Raft { message, range } => {
                range_bytes(range)
                    + match &message.body {
                        MessageBody::Append { entries, .. } => {
                            entries.iter().map(Entry::cost).sum()
                        }
                        MessageBody::Snapshot(snapshot) => {
                            snapshot.data.len() + snapshot.meta.conf.members().len() * MEMBER
                        }
                        _ => 0,
                    }
            }
        }
}

fn range_bytes(range: &KeyRange) -> usize {
    range.start.len() + range.end.len()
}

/// Appends a message to a payload.
pub(super) fn put(message: StoreMessage, payload: &mut BytesMut) {
    to_wire(message).encode_length_delimited(payload).expect("a buffer that grows has room");
}

/// All messages of a payload, in order.
///
/// # Errors
/// One of them is not valid; nothing of such a payload is to be used.
pub(super) fn messages(mut payload: Bytes) -> Result<Vec<StoreMessage>> {
    let mut messages = Vec::new();
    while !payload.is_empty() {
        messages.push(from_wire(wire::StoreMessage::decode_length_delimited(&mut payload)?)?);
    }
    Ok(messages)
}

/// One message, alone.
///
/// # Errors
/// It is not valid.
pub(super) fn message(bytes: Bytes) -> Result<StoreMessage> {
    from_wire(wire::StoreMessage::decode(bytes)?)
}

pub(super) fn to_wire(message: StoreMessage) -> wire::StoreMessage {
    let StoreMessage { region_id, from, to, epoch, body } = message;
    let body = match body {
        StoreBody::Raft { message, range } => {
            store_message::Body::Raft(raft_to_wire(message, range))
        }
        StoreBody::AmIMember => store_message::Body::AmIMember(wire::Nothing {}),
        StoreBody::Gone { region } => store_message::Body::Gone(wire::Gone {
            region: Some(convert::region_to_proto(&region)),
        }),
    };
    wire::StoreMessage {
        region_id: region_id.0,
        from: Some(convert::peer_to_proto(&from)),
        to: Some(convert::peer_to_proto(&to)),
        epoch: Some(convert::epoch_to_proto(epoch)),
        body: Some(body),
    }
}

fn raft_to_wire(message: Message, range: KeyRange) -> wire::RaftMessage {
    use raft_message::Body;

    let body = match message.body {
        MessageBody::Append { index, log_term, entries, commit } => {
            let entries = entries.into_iter().map(entry_to_wire).collect();
            Body::Append(wire::Append { index, log_term, entries, commit })
        }
        MessageBody::AppendResponse { index, commit, reject } => {
            let reject = reject.map(|RejectHint { index, term }| wire::RejectHint { index, term });
            Body::AppendResponse(wire::AppendResponse { index, commit, reject })
        }
        MessageBody::Vote { last_index, last_term, commit, commit_term, transfer } => {
            Body::Vote(wire::Vote { last_index, last_term, commit, commit_term, transfer })
        }
        MessageBody::VoteResponse { granted } => Body::VoteResponse(wire::VoteResponse { granted }),
        MessageBody::PreVote { last_index, last_term, commit, commit_term } => {
            Body::PreVote(wire::PreVote { last_index, last_term, commit, commit_term })
        }
        MessageBody::PreVoteResponse { granted } => {
            Body::PreVoteResponse(wire::PreVoteResponse { granted })
        }
        MessageBody::Committed { index, term } => Body::Committed(wire::Committed { index, term }),
        MessageBody::Heartbeat { commit, round } => {
            Body::Heartbeat(wire::Heartbeat { commit, round })
        }
        MessageBody::HeartbeatResponse { round } => {
            Body::HeartbeatResponse(wire::HeartbeatResponse { round })
        }
        MessageBody::Snapshot(snapshot) => Body::Snapshot(snapshot_to_wire(*snapshot)),
        MessageBody::TimeoutNow => Body::TimeoutNow(wire::Nothing {}),
        MessageBody::TransferLeader { target } => {
            Body::TransferLeader(wire::TransferLeader { target })
        }
        MessageBody::ReadIndex { id } => Body::ReadIndex(wire::ReadIndex { id }),
        MessageBody::ReadIndexResponse { id, index } => {
            Body::ReadIndexResponse(wire::ReadIndexResponse { id, index })
        }
    };
    wire::RaftMessage {
        from: message.from,
        to: message.to,
        term: message.term,
        start_key: range.start,
        end_key: range.end,
        body: Some(body),
    }
}

fn entry_to_wire(entry: Entry) -> wire::Entry {
    let Entry { term, index, kind, data } = entry;
    let kind = match kind {
        EntryKind::Normal => wire::EntryKind::Normal,
        EntryKind::ConfChange => wire::EntryKind::ConfChange,
    };
    wire::Entry { term, index, kind: kind.into(), data }
}

fn snapshot_to_wire(snapshot: Snapshot) -> wire::RaftSnapshot {
    let Snapshot { meta: SnapshotMeta { index, term, conf }, data } = snapshot;
    let ConfState { voters, voters_outgoing, learners, learners_next, auto_leave } = conf;
    let conf = wire::ConfState { voters, voters_outgoing, learners, learners_next, auto_leave };
    wire::RaftSnapshot { index, term, conf: Some(conf), data }
}

fn from_wire(message: wire::StoreMessage) -> Result<StoreMessage> {
    let wire::StoreMessage { region_id, from, to, epoch, body } = message;
    let body = match body.ok_or(WireError::Invalid("body of a message"))? {
        store_message::Body::Raft(raft) => {
            let (message, range) = raft_from_wire(raft)?;
            StoreBody::Raft { message, range }
        }
        store_message::Body::AmIMember(_) => StoreBody::AmIMember,
        store_message::Body::Gone(wire::Gone { region }) => {
            let region = region.ok_or(WireError::Invalid("region"))?;
            StoreBody::Gone { region: region_from_wire(region)? }
        }
    };
    Ok(StoreMessage {
        region_id: RegionId(region_id),
        from: peer(from.as_ref().ok_or(WireError::Invalid("sender"))?)?,
        to: peer(to.as_ref().ok_or(WireError::Invalid("receiver"))?)?,
        epoch: convert::epoch(epoch.as_ref().ok_or(WireError::Invalid("epoch"))?),
        body,
    })
}

/// Unlike [`convert::peer`] it refuses an unknown role: among stores it would be another member than the sender means.
fn peer(peer: &metapb::Peer) -> Result<Peer> {
    match u8::try_from(peer.role).ok().and_then(PeerRole::from_byte) {
        Some(_) => Ok(convert::peer(peer)),
        None => Err(WireError::Invalid("role of a peer")),
    }
}

fn region_from_wire(region: metapb::Region) -> Result<Region> {
    for member in &region.peers {
        peer(member)?;
    }
    match region.region_epoch {
        Some(_) => Ok(convert::region(region)),
        None => Err(WireError::Invalid("epoch of a region")),
    }
}

fn raft_from_wire(message: wire::RaftMessage) -> Result<(Message, KeyRange)> {
    use raft_message::Body;

    let wire::RaftMessage { from, to, term, start_key, end_key, body } = message;
    let body = match body.ok_or(WireError::Invalid("body of a Raft message"))? {
        Body::Append(wire::Append { index, log_term, entries, commit }) => {
            let entries = entries.into_iter().map(entry_from_wire).collect::<Result<_>>()?;
            MessageBody::Append { index, log_term, entries, commit }
        }
        Body::AppendResponse(wire::AppendResponse { index, commit, reject }) => {
            let reject = reject.map(|wire::RejectHint { index, term }| RejectHint { index, term });
            MessageBody::AppendResponse { index, commit, reject }
        }
        Body::Vote(wire::Vote { last_index, last_term, commit, commit_term, transfer }) => {
            MessageBody::Vote { last_index, last_term, commit, commit_term, transfer }
        }
        Body::VoteResponse(wire::VoteResponse { granted }) => MessageBody::VoteResponse { granted },
        Body::PreVote(wire::PreVote { last_index, last_term, commit, commit_term }) => {
            MessageBody::PreVote { last_index, last_term, commit, commit_term }
        }
        Body::PreVoteResponse(wire::PreVoteResponse { granted }) => {
            MessageBody::PreVoteResponse { granted }
        }
        Body::Committed(wire::Committed { index, term }) => MessageBody::Committed { index, term },
        Body::Heartbeat(wire::Heartbeat { commit, round }) => {
            MessageBody::Heartbeat { commit, round }
        }
        Body::HeartbeatResponse(wire::HeartbeatResponse { round }) => {
            MessageBody::HeartbeatResponse { round }
        }
        Body::Snapshot(snapshot) => MessageBody::Snapshot(Box::new(snapshot_from_wire(snapshot)?)),
        Body::TimeoutNow(_) => MessageBody::TimeoutNow,
        Body::TransferLeader(wire::TransferLeader { target }) => {
            MessageBody::TransferLeader { target }
        }
        Body::ReadIndex(wire::ReadIndex { id }) => MessageBody::ReadIndex { id },
        Body::ReadIndexResponse(wire::ReadIndexResponse { id, index }) => {
            MessageBody::ReadIndexResponse { id, index }
        }
    };
    Ok((Message { from, to, term, body }, KeyRange { start: start_key, end: end_key }))
}

fn entry_from_wire(entry: wire::Entry) -> Result<Entry> {
    let kind = match wire::EntryKind::try_from(entry.kind) {
        Ok(wire::EntryKind::Normal) => EntryKind::Normal,
        Ok(wire::EntryKind::ConfChange) => EntryKind::ConfChange,
        Err(_) => return Err(WireError::Invalid("kind of an entry")),
    };
    // The log would refuse it, and a store whose log refuses something stops.
    if limits::ENTRY_BYTES_MAX < entry.data.len() {
        return Err(WireError::Invalid("length of an entry"));
    }
    Ok(Entry { term: entry.term, index: entry.index, kind, data: entry.data })
}

fn snapshot_from_wire(snapshot: wire::RaftSnapshot) -> Result<Snapshot> {
    let wire::RaftSnapshot { index, term, conf, data } = snapshot;
    let conf = conf.ok_or(WireError::Invalid("members of a snapshot"))?;
    let wire::ConfState { voters, voters_outgoing, learners, learners_next, auto_leave } = conf;
    let conf = ConfState { voters, voters_outgoing, learners, learners_next, auto_leave };
    Ok(Snapshot { meta: SnapshotMeta { index, term, conf }, data })
}

#[cfg(test)]
mod tests;
