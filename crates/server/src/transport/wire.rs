//! Messages between stores as protobuf, and back.
//!
//! What comes in is not trusted beyond its checksum: what no store of this version says is an error, never a panic and
//! never a guess. Keys and the data of entries stay slices of the buffer that they arrived in, as long as that costs no
//! more memory than copies: entries are kept for long, in the log's cache, and each slice keeps its whole buffer.
//!
//! A payload is a sequence of messages, each with its length before it, so that one is converted before the next is
//! decoded: what a damaged payload can make us allocate is one message.

use bytes::Bytes;
use prost::Message as _;
use proto::{
    internal::{self as wire, raft_message, store_message},
    metapb,
};
use raft::{ConfState, Entry, EntryKind, Message, MessageBody, RejectHint, Snapshot, SnapshotMeta};
use raftstore::{StoreMessage, message::MessageBody as StoreBody};
use types::{KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId, limits};

use crate::convert;

/// The version of the messages; another one is refused.
pub(super) const VERSION: u32 = 1;

/// What a batch takes beside its payload, at most.
pub(super) const BATCH_OVERHEAD: usize = 256;

/// Bytes of a payload from which on entries may stay in it: a connection reads at least 8 KiB into one buffer.
const PAYLOAD_KEPT_MIN: usize = 8 << 10;

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
            StoreBody::AmIMember | StoreBody::Sleep { .. } | StoreBody::Wake | StoreBody::Ping => 0,
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
pub(super) fn put(message: StoreMessage, payload: &mut Vec<u8>) {
    to_wire(message).encode_length_delimited(payload).expect("a vector has room");
}

/// All messages of a payload, in order.
///
/// # Errors
/// One of them is not valid; nothing of such a payload is to be used.
pub(super) fn messages(mut payload: Bytes) -> Result<Vec<StoreMessage>> {
    let bytes = payload.len();
    let mut messages = Vec::new();
    while !payload.is_empty() {
        messages.push(from_wire(wire::StoreMessage::decode_length_delimited(&mut payload)?)?);
    }
    detach_entries(&mut messages, bytes);
    Ok(messages)
}

/// Copies the data of entries out of a payload that is mostly something else: one small entry, kept for long, would keep
/// a megabyte of heartbeats. In a payload of entries they stay; they are forgotten at about the same time.
fn detach_entries(messages: &mut [StoreMessage], payload_bytes: usize) {
    let data: usize = entries(messages).map(|entry| entry.data.len()).sum();
    let are_most = PAYLOAD_KEPT_MIN <= payload_bytes && payload_bytes <= 2 * data;
    if !are_most {
        for entry in entries(messages) {
            entry.data = Bytes::copy_from_slice(&entry.data);
        }
    }
}

fn entries(messages: &mut [StoreMessage]) -> impl Iterator<Item = &mut Entry> {
    messages.iter_mut().flat_map(|message| match &mut message.body {
        StoreBody::Raft {
            message: Message { body: MessageBody::Append { entries, .. }, .. },
            ..
        } => entries.as_mut_slice(),
        _ => &mut [],
    })
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
        StoreBody::Sleep { term, index } => store_message::Body::Sleep(wire::Sleep { term, index }),
        StoreBody::Wake => store_message::Body::Wake(wire::Nothing {}),
        StoreBody::Ping => store_message::Body::Ping(wire::Nothing {}),
        StoreBody::Gone { region } => store_message::Body::Gone(wire::Gone {
            region: Some(convert::region_to_proto(&region)),
        }),
    };
    wire::StoreMessage {
        region_id: region_id.0,
        from_peer: from.id.0,
        from_store: from.store_id.0,
        from_role: from.role.to_byte().into(),
        to_peer: to.id.0,
        to_store: to.store_id.0,
        to_role: to.role.to_byte().into(),
        conf_ver: epoch.conf_ver,
        version: epoch.version,
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
    let body = match message.body.ok_or(WireError::Invalid("body of a message"))? {
        store_message::Body::Raft(raft) => {
            let (message, range) = raft_from_wire(raft)?;
            StoreBody::Raft { message, range }
        }
        store_message::Body::AmIMember(_) => StoreBody::AmIMember,
        store_message::Body::Sleep(wire::Sleep { term, index }) => StoreBody::Sleep { term, index },
        store_message::Body::Wake(_) => StoreBody::Wake,
        store_message::Body::Ping(_) => StoreBody::Ping,
        store_message::Body::Gone(wire::Gone { region }) => {
            let region = region.ok_or(WireError::Invalid("region"))?;
            StoreBody::Gone { region: region_from_wire(region)? }
        }
    };
    Ok(StoreMessage {
        region_id: RegionId(message.region_id),
        from: peer(message.from_peer, message.from_store, message.from_role)?,
        to: peer(message.to_peer, message.to_store, message.to_role)?,
        epoch: RegionEpoch { conf_ver: message.conf_ver, version: message.version },
        body,
    })
}

fn peer(id: u64, store: u64, role: i32) -> Result<Peer> {
    Ok(Peer { id: PeerId(id), store_id: StoreId(store), role: peer_role(role)? })
}

/// An unknown role is refused: among stores it would be another member than the sender means.
fn peer_role(role: i32) -> Result<PeerRole> {
    let role = u8::try_from(role).ok().and_then(PeerRole::from_byte);
    role.ok_or(WireError::Invalid("role of a peer"))
}

fn region_from_wire(region: metapb::Region) -> Result<Region> {
    for member in &region.peers {
        peer_role(member.role)?;
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
