//! Raft messages as bytes, for the simulated network. The frame around them has the checksum.
//!
//! `from u64 | to u64 | term u64 | kind u8 | fields`, numbers big-endian, lists with their length before them
//! ([`types::codec`]). Nothing but the simulator reads this, and only its own version; the stores' format is their own.

use bytes::Bytes;
use raft::{
    ConfState, Entry, EntryKind, HardState, Message, MessageBody, RejectHint, Snapshot,
    SnapshotMeta,
};
use types::codec::{DecodeError, Reader, Writer};

/// The bytes of a message.
pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut writer = Writer::new();
    let out = &mut writer;
    out.u64(message.from).u64(message.to).u64(message.term);
    match &message.body {
        MessageBody::Append { index, log_term, entries, commit } => {
            out.u8(1).u64(*index).u64(*log_term).u64(*commit);
            put_entries(out, entries);
        }
        MessageBody::AppendResponse { index, commit, reject } => {
            out.u8(2).u64(*index).u64(*commit);
            match reject {
                None => out.u8(0),
                Some(hint) => out.u8(1).u64(hint.index).u64(hint.term),
            };
        }
        MessageBody::Vote { last_index, last_term, commit, commit_term, transfer } => {
            out.u8(3).u64(*last_index).u64(*last_term).u64(*commit).u64(*commit_term);
            out.u8(u8::from(*transfer));
        }
        MessageBody::VoteResponse { granted } => {
            out.u8(4).u8(u8::from(*granted));
        }
        MessageBody::PreVote { last_index, last_term, commit, commit_term } => {
            out.u8(5).u64(*last_index).u64(*last_term).u64(*commit).u64(*commit_term);
        }
        MessageBody::PreVoteResponse { granted } => {
            out.u8(6).u8(u8::from(*granted));
        }
        MessageBody::Committed { index, term } => {
            out.u8(14).u64(*index).u64(*term);
        }
        MessageBody::Heartbeat { commit, round } => {
            out.u8(7).u64(*commit).u64(*round);
        }
        MessageBody::HeartbeatResponse { round } => {
            out.u8(8).u64(*round);
        }
        MessageBody::Snapshot(snapshot) => {
            out.u8(9);
            put_snapshot(out, snapshot);
        }
        MessageBody::TimeoutNow => {
            out.u8(10);
        }
        MessageBody::TransferLeader { target } => {
            out.u8(11).u64(*target);
        }
        MessageBody::ReadIndex { id } => {
            out.u8(12).u64(*id);
        }
        MessageBody::ReadIndexResponse { id, index } => {
            out.u8(13).u64(*id);
            match index {
                None => out.u8(0),
                Some(index) => out.u8(1).u64(*index),
            };
        }
    }
    writer.finish()
}

/// Reads what [`encode`] has written. The data of entries share the memory of `payload`.
///
/// # Errors
/// The bytes are no message.
pub(crate) fn decode(payload: &Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(payload);
    let input = &mut reader;
    let (from, to, term) = (input.u64()?, input.u64()?, input.u64()?);
    let body = match input.u8()? {
        1 => {
            let (index, log_term, commit) = (input.u64()?, input.u64()?, input.u64()?);
            let entries = get_entries(input, payload)?;
            MessageBody::Append { index, log_term, entries, commit }
        }
        2 => {
            let (index, commit) = (input.u64()?, input.u64()?);
            let reject = match flag(input)? {
                false => None,
                true => Some(RejectHint { index: input.u64()?, term: input.u64()? }),
            };
            MessageBody::AppendResponse { index, commit, reject }
        }
        3 => {
            let (last_index, last_term) = (input.u64()?, input.u64()?);
            let (commit, commit_term) = (input.u64()?, input.u64()?);
            let transfer = flag(input)?;
            MessageBody::Vote { last_index, last_term, commit, commit_term, transfer }
        }
        4 => MessageBody::VoteResponse { granted: flag(input)? },
        5 => {
            let (last_index, last_term) = (input.u64()?, input.u64()?);
            let (commit, commit_term) = (input.u64()?, input.u64()?);
            MessageBody::PreVote { last_index, last_term, commit, commit_term }
        }
        6 => MessageBody::PreVoteResponse { granted: flag(input)? },
        7 => MessageBody::Heartbeat { commit: input.u64()?, round: input.u64()? },
        8 => MessageBody::HeartbeatResponse { round: input.u64()? },
        9 => MessageBody::Snapshot(Box::new(get_snapshot(input, payload)?)),
        10 => MessageBody::TimeoutNow,
        11 => MessageBody::TransferLeader { target: input.u64()? },
        12 => MessageBody::ReadIndex { id: input.u64()? },
        13 => {
            let id = input.u64()?;
            let index = match flag(input)? {
                false => None,
                true => Some(input.u64()?),
            };
            MessageBody::ReadIndexResponse { id, index }
        }
        14 => MessageBody::Committed { index: input.u64()?, term: input.u64()? },
        _ => return Err(DecodeError::Invalid("kind of message")),
    };
    reader.finish()?;
    Ok(Message { from, to, term, body })
}

/// Appends entries.
pub(crate) fn put_entries(out: &mut Writer, entries: &[Entry]) {
    out.u32(u32::try_from(entries.len()).expect("a message has few entries"));
    for entry in entries {
        out.u64(entry.term).u64(entry.index);
        out.u8(match entry.kind {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
        });
        out.bytes(&entry.data);
    }
}

/// Reads entries out of `whole`, whose memory they share.
pub(crate) fn get_entries(
    input: &mut Reader<'_>,
    whole: &Bytes,
) -> Result<Vec<Entry>, DecodeError> {
    let count = input.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (term, index) = (input.u64()?, input.u64()?);
        let kind = match input.u8()? {
            0 => EntryKind::Normal,
            1 => EntryKind::ConfChange,
            _ => return Err(DecodeError::Invalid("kind of entry")),
        };
        entries.push(Entry { term, index, kind, data: whole.slice_ref(input.bytes()?) });
    }
    Ok(entries)
}

/// Appends a hard state.
pub(crate) fn put_hard_state(out: &mut Writer, hard_state: &HardState) {
    out.u64(hard_state.term).u64(hard_state.vote).u64(hard_state.commit);
}

/// Reads a hard state.
pub(crate) fn get_hard_state(input: &mut Reader<'_>) -> Result<HardState, DecodeError> {
    Ok(HardState { term: input.u64()?, vote: input.u64()?, commit: input.u64()? })
}

/// Appends a snapshot.
pub(crate) fn put_snapshot(out: &mut Writer, snapshot: &Snapshot) {
    let SnapshotMeta { index, term, conf } = &snapshot.meta;
    out.u64(*index).u64(*term);
    put_conf(out, conf);
    out.bytes(&snapshot.data);
}

/// Reads a snapshot out of `whole`, whose memory its data share.
pub(crate) fn get_snapshot(input: &mut Reader<'_>, whole: &Bytes) -> Result<Snapshot, DecodeError> {
    let (index, term) = (input.u64()?, input.u64()?);
    let conf = get_conf(input)?;
    let data = whole.slice_ref(input.bytes()?);
    Ok(Snapshot { meta: SnapshotMeta { index, term, conf }, data })
}

fn put_conf(out: &mut Writer, conf: &ConfState) {
    for list in [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next] {
        out.u32(u32::try_from(list.len()).expect("a group has few members"));
        for id in list {
            out.u64(*id);
        }
    }
    out.u8(u8::from(conf.auto_leave));
}

fn get_conf(input: &mut Reader<'_>) -> Result<ConfState, DecodeError> {
    let mut list = || {
        let count = input.u32()?;
        (0..count).map(|_| input.u64()).collect::<Result<Vec<u64>, DecodeError>>()
    };
    let (voters, voters_outgoing, learners, learners_next) = (list()?, list()?, list()?, list()?);
    let auto_leave = flag(input)?;
    Ok(ConfState { voters, voters_outgoing, learners, learners_next, auto_leave })
}

fn flag(input: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("flag")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, kind: EntryKind, data: &'static [u8]) -> Entry {
        Entry { term: 3, index, kind, data: Bytes::from_static(data) }
    }

    fn every_body() -> Vec<MessageBody> {
        let conf = ConfState {
            voters: vec![1, 2],
            voters_outgoing: vec![1, 3],
            learners: vec![4],
            learners_next: vec![3],
            auto_leave: true,
        };
        let meta = SnapshotMeta { index: 8, term: 2, conf };
        let hint = RejectHint { index: 4, term: 1 };
        vec![
            MessageBody::Append {
                index: 5,
                log_term: 2,
                entries: vec![
                    entry(6, EntryKind::Normal, b"data"),
                    entry(7, EntryKind::ConfChange, b""),
                ],
                commit: 4,
            },
            MessageBody::AppendResponse { index: 7, commit: 4, reject: None },
            MessageBody::AppendResponse { index: 7, commit: 4, reject: Some(hint) },
            MessageBody::Vote {
                last_index: 7,
                last_term: 3,
                commit: 5,
                commit_term: 2,
                transfer: true,
            },
            MessageBody::VoteResponse { granted: true },
            MessageBody::PreVote { last_index: 7, last_term: 3, commit: 5, commit_term: 2 },
            MessageBody::PreVoteResponse { granted: false },
            MessageBody::Committed { index: 3, term: 2 },
            MessageBody::Heartbeat { commit: 4, round: 9 },
            MessageBody::HeartbeatResponse { round: 9 },
            MessageBody::Snapshot(Box::new(Snapshot { meta, data: Bytes::from_static(b"state") })),
            MessageBody::TimeoutNow,
            MessageBody::TransferLeader { target: 2 },
            MessageBody::ReadIndex { id: 77 },
            MessageBody::ReadIndexResponse { id: 77, index: Some(4) },
            MessageBody::ReadIndexResponse { id: 77, index: None },
        ]
    }

    #[test]
    fn every_message_comes_back() {
        for body in every_body() {
            let message = Message { from: 1, to: 2, term: 3, body };
            assert_eq!(decode(&Bytes::from(encode(&message))), Ok(message));
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        for body in every_body() {
            let bytes = Bytes::from(encode(&Message { from: 1, to: 2, term: 3, body }));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes.slice(..cut)).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(decode(&Bytes::from(longer)).is_err());
        }
    }
}
