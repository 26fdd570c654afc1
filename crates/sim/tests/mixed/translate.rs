//! The interpreter between the two kinds: messages. The table in the file above says what becomes of what.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{Message, MessageBody, RejectHint};
use raft_rs::{
    CAMPAIGN_TRANSFER,
    eraftpb::{Message as Theirs, MessageType as Type},
};

use super::values::{
    bytes_to_number, entry_to_ours, entry_to_theirs, number_to_bytes, snapshot_to_ours,
    snapshot_to_theirs,
};

/// Translates, and remembers what the other side is to give back unchanged.
///
/// Their contexts of reads are bytes and come back in answers to heartbeats; our rounds and ids of reads are numbers.
/// So each context of theirs gets a number when it is first seen.
#[derive(Debug, Default)]
pub(crate) struct Interpreter {
    contexts: Vec<Bytes>,
    numbers: BTreeMap<Bytes, u64>,
}

impl Interpreter {
    /// What a node of ours says at once, to nodes of theirs.
    pub(crate) fn for_theirs(&mut self, messages: Vec<Message>) -> Vec<Theirs> {
        let mut translated: Vec<Theirs> = Vec::new();
        for message in messages {
            if let MessageBody::Committed { index, term } = message.body {
                // Theirs says it in the refusal itself.
                let refusal = translated
                    .iter_mut()
                    .rfind(|earlier| earlier.to == message.to && is_refusal(earlier))
                    .expect("what is committed is said right after a refusal");
                (refusal.commit, refusal.commit_term) = (index, term);
                continue;
            }
            translated.extend(self.one_for_theirs(message));
        }
        translated
    }

    fn one_for_theirs(&mut self, message: Message) -> Option<Theirs> {
        let Message { from, to, term, body } = message;
        let plain = |msg_type| Theirs { msg_type, from, to, term, ..Theirs::default() };
        Some(match body {
            MessageBody::Append { index, log_term, entries, commit } => {
                let entries: Vec<_> = entries.iter().map(entry_to_theirs).collect();
                let entries = entries.into();
                Theirs { index, log_term, entries, commit, ..plain(Type::MsgAppend) }
            }
            MessageBody::AppendResponse { index, commit, reject: None } => {
                Theirs { index, commit, ..plain(Type::MsgAppendResponse) }
            }
            MessageBody::AppendResponse { index, commit, reject: Some(hint) } => {
                // Who needs a snapshot has an empty log: their leader looks at the beginning of its own and finds that
                // it is compacted, as that of every group is that began with a snapshot.
                let hint = match hint == RejectHint::NEEDS_SNAPSHOT {
                    true => RejectHint { index: 0, term: 0 },
                    false => hint,
                };
                Theirs {
                    index,
                    commit,
                    reject: true,
                    reject_hint: hint.index,
                    log_term: hint.term,
                    ..plain(Type::MsgAppendResponse)
                }
            }
            MessageBody::Vote { last_index, last_term, commit, commit_term, transfer } => Theirs {
                index: last_index,
                log_term: last_term,
                commit,
                commit_term,
                context: Bytes::from_static(if transfer { CAMPAIGN_TRANSFER } else { b"" }),
                ..plain(Type::MsgRequestVote)
            },
            MessageBody::VoteResponse { granted } => {
                Theirs { reject: !granted, ..plain(Type::MsgRequestVoteResponse) }
            }
            MessageBody::PreVote { last_index, last_term, commit, commit_term } => Theirs {
                index: last_index,
                log_term: last_term,
                commit,
                commit_term,
                ..plain(Type::MsgRequestPreVote)
            },
            MessageBody::PreVoteResponse { granted } => {
                Theirs { reject: !granted, ..plain(Type::MsgRequestPreVoteResponse) }
            }
            MessageBody::Committed { .. } => unreachable!("it is part of a refusal"),
            MessageBody::Heartbeat { commit, round } => {
                Theirs { commit, context: number_to_bytes(round), ..plain(Type::MsgHeartbeat) }
            }
            MessageBody::HeartbeatResponse { round } => {
                Theirs { context: self.context(round), ..plain(Type::MsgHeartbeatResponse) }
            }
            MessageBody::Snapshot(snapshot) => {
                let mut message = plain(Type::MsgSnapshot);
                message.set_snapshot(snapshot_to_theirs(&snapshot));
                message
            }
            MessageBody::TimeoutNow => plain(Type::MsgTimeoutNow),
            // Theirs puts the successor where the sender stands.
            MessageBody::TransferLeader { target } => {
                Theirs { from: target, ..plain(Type::MsgTransferLeader) }
            }
            MessageBody::ReadIndex { id } => {
                let context: Vec<u8> = [from.to_be_bytes(), id.to_be_bytes()].concat();
                let entry = raft_rs::eraftpb::Entry { data: context.into(), ..Default::default() };
                // Their requests have no term, and must not have one: a follower passes them on.
                Theirs { term: 0, entries: vec![entry].into(), ..plain(Type::MsgReadIndex) }
            }
            MessageBody::ReadIndexResponse { id, index } => {
                let data = self.context(id);
                let entry = raft_rs::eraftpb::Entry { data, ..Default::default() };
                // Theirs has no word for "I can't tell": the read is never answered.
                let index = index?;
                Theirs { index, entries: vec![entry].into(), ..plain(Type::MsgReadIndexResp) }
            }
        })
    }

    /// What a node of theirs says to one of ours. `sender` and `sender_term` are those of the node that says it: not
    /// every message has them.
    pub(crate) fn for_ours(
        &mut self,
        sender: u64,
        sender_term: u64,
        message: &Theirs,
    ) -> Vec<Message> {
        let (to, term) = (message.to, message.term);
        let plain = |body| Message { from: sender, to, term, body };
        let granted = !message.reject;
        let mut translated = vec![plain(match message.msg_type {
            Type::MsgAppend => MessageBody::Append {
                index: message.index,
                log_term: message.log_term,
                entries: message.entries.iter().map(entry_to_ours).collect(),
                commit: message.commit,
            },
            Type::MsgAppendResponse => {
                assert_eq!(message.request_snapshot, 0, "nobody is told to ask for a snapshot");
                let hint = RejectHint { index: message.reject_hint, term: message.log_term };
                let reject = message.reject.then_some(hint);
                MessageBody::AppendResponse { index: message.index, commit: message.commit, reject }
            }
            Type::MsgRequestVote => MessageBody::Vote {
                last_index: message.index,
                last_term: message.log_term,
                commit: message.commit,
                commit_term: message.commit_term,
                transfer: message.context == CAMPAIGN_TRANSFER,
            },
            Type::MsgRequestPreVote => MessageBody::PreVote {
                last_index: message.index,
                last_term: message.log_term,
                commit: message.commit,
                commit_term: message.commit_term,
            },
            Type::MsgRequestVoteResponse => MessageBody::VoteResponse { granted },
            Type::MsgRequestPreVoteResponse => MessageBody::PreVoteResponse { granted },
            Type::MsgHeartbeat => MessageBody::Heartbeat {
                commit: message.commit,
                round: self.number(&message.context),
            },
            // Our round comes back as it was.
            Type::MsgHeartbeatResponse => {
                MessageBody::HeartbeatResponse { round: bytes_to_number(&message.context) }
            }
            Type::MsgSnapshot => {
                MessageBody::Snapshot(Box::new(snapshot_to_ours(message.get_snapshot())))
            }
            Type::MsgTimeoutNow => MessageBody::TimeoutNow,
            Type::MsgTransferLeader => MessageBody::TransferLeader { target: message.from },
            Type::MsgReadIndex => return self.read_for_ours(sender_term, message),
            Type::MsgReadIndexResp => {
                let (_, id) = our_read(&message.entries[0].data).expect("the answer to our read");
                MessageBody::ReadIndexResponse { id, index: Some(message.index) }
            }
            Type::MsgPropose => unreachable!("proposals are made where the leader is"),
            Type::MsgHup
            | Type::MsgBeat
            | Type::MsgUnreachable
            | Type::MsgSnapStatus
            | Type::MsgCheckQuorum => unreachable!("these are not sent"),
        })];
        // A refusal of theirs says what is committed; ours says it separately.
        if is_refusal(message) && message.commit != 0 && message.commit_term != 0 {
            let (index, term) = (message.commit, message.commit_term);
            translated.push(plain(MessageBody::Committed { index, term }));
        }
        translated
    }

    /// A request for a read, which may have been passed on: whoever wants it stands in `from`.
    fn read_for_ours(&mut self, sender_term: u64, message: &Theirs) -> Vec<Message> {
        if message.from == message.to {
            return Vec::new(); // it leads by now; ours asks itself only what it has been asked by its owner
        }
        let context = &message.entries[0].data;
        let id = match our_read(context) {
            Some((_, id)) => id,
            None => self.number(context),
        };
        let body = MessageBody::ReadIndex { id };
        vec![Message { from: message.from, to: message.to, term: sender_term, body }]
    }

    /// The number of a context of theirs; 0 is none.
    fn number(&mut self, context: &Bytes) -> u64 {
        if context.is_empty() {
            return 0;
        }
        if let Some(&number) = self.numbers.get(context) {
            return number;
        }
        self.contexts.push(context.clone());
        let number = self.contexts.len() as u64;
        self.numbers.insert(context.clone(), number);
        number
    }

    /// The context of theirs that has this number.
    fn context(&self, number: u64) -> Bytes {
        match number {
            0 => Bytes::new(),
            number => self.contexts[number as usize - 1].clone(),
        }
    }
}

/// What a node of theirs in `term` does not say to a sender of an older term: that there is a newer one. Ours says it.
///
/// - To a candidate it never does. One that all must vote for can go on being ignored for as long as somebody else, who
///   can't win, raises the term as fast as it does.
/// - To a leader it does only with pre-vote or the check of the quorum (`answers_leaders`). A learner that has heard of a
///   newer term would hear nothing else any more: it does not campaign, by which voters make themselves heard.
pub(crate) fn unsaid(message: &Theirs, term: u64, answers_leaders: bool) -> Option<Theirs> {
    let (msg_type, reject) = match message.msg_type {
        Type::MsgRequestVote => (Type::MsgRequestVoteResponse, true),
        Type::MsgAppend | Type::MsgHeartbeat if !answers_leaders => {
            (Type::MsgAppendResponse, false)
        }
        _ => return None,
    };
    let (from, to) = (message.to, message.from);
    (message.term < term).then(|| Theirs { msg_type, from, to, term, reject, ..Theirs::default() })
}

/// Whether a message of theirs refuses a vote.
fn is_refusal(message: &Theirs) -> bool {
    let is_answer =
        matches!(message.msg_type, Type::MsgRequestVoteResponse | Type::MsgRequestPreVoteResponse);
    is_answer && message.reject
}

/// Who of ours reads, and its number of the attempt, if the context is that of a read of ours.
fn our_read(context: &[u8]) -> Option<(u64, u64)> {
    let (from, id) = context.split_at_checked(8).filter(|(_, id)| id.len() == 8)?;
    Some((bytes_to_number(from), bytes_to_number(id)))
}
