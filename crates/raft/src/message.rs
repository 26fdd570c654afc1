//! What the nodes of a group say to each other.
//!
//! A message carries the term of its sender: a receiver that is behind catches up, one that is ahead says so. Messages
//! may be lost, doubled, delayed and reordered at will. They must not be forged or damaged: who carries them protects
//! them with a checksum. What no correct peer sends is refused by [`Message::check`] and by the state it meets.

use crate::{
    entry::{Entry, NUMBER_MAX, Snapshot},
    error::Error,
};

/// A message from one node of a group to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
    /// The sender's term; of a pre-vote, the term that is asked for.
    pub term: u64,
    /// What is said.
    pub body: MessageBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Entries for a follower, or none: then it carries the commit index, or asks where the logs meet.
    Append {
        /// The index before the first entry.
        index: u64,
        /// The term of the entry at `index`.
        log_term: u64,
        /// Entries from `index + 1` on, without gaps.
        entries: Vec<Entry>,
        /// The leader's commit index; it may be beyond the entries.
        commit: u64,
    },
    /// The answer to an append or a snapshot, sent when everything up to `index` is durable.
    AppendResponse {
        /// Accepted: the follower has the leader's log up to here. Rejected: the `index` of the append.
        index: u64,
        /// The follower's commit index.
        commit: u64,
        /// Why it was rejected: the logs do not meet at `index`.
        reject: Option<RejectHint>,
    },
    /// Asks for a vote (RequestVote).
    Vote {
        /// The candidate's last index.
        last_index: u64,
        /// The term of that entry.
        last_term: u64,
        /// The last entry that the candidate knows to be committed. A voter that has it need not learn that from a
        /// leader: it may be the change of the members that lets it lead.
        commit: u64,
        /// The term of that entry.
        commit_term: u64,
        /// The old leader has asked for this election: a voter that still hears from it may vote.
        transfer: bool,
    },
    /// The answer to a vote.
    VoteResponse {
        /// Whether the vote is given.
        granted: bool,
    },
    /// Asks whether a vote would be given in `Message::term`; nobody's state changes (thesis 9.6).
    PreVote {
        /// The candidate's last index.
        last_index: u64,
        /// The term of that entry.
        last_term: u64,
        /// As of a vote.
        commit: u64,
        /// The term of that entry.
        commit_term: u64,
    },
    /// The answer to a pre-vote. Granted: in the term that was asked for. Refused: in the term of the voter.
    PreVoteResponse {
        /// Whether the vote would be given.
        granted: bool,
    },
    /// Said with a refusal of a vote: the entry with these two numbers is committed. It is to the candidate what the
    /// commit index of its request is to the voter.
    Committed {
        /// The index of the entry: the last that is committed, or the candidate's last one if that is before it.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The leader is there.
    Heartbeat {
        /// What the follower may commit: never beyond what the leader knows it to have.
        commit: u64,
        /// Numbers the rounds of a leader's term. Reads and the lease rest on the answers to a round.
        round: u64,
    },
    /// The answer to a heartbeat; round 0 answers one of an older term.
    HeartbeatResponse {
        /// The round of the heartbeat.
        round: u64,
    },
    /// A snapshot in place of entries that the leader does not have any more.
    Snapshot(Box<Snapshot>),
    /// The leader asks its successor to campaign at once (thesis 3.10).
    TimeoutNow,
    /// A follower asks the leader to transfer its leadership to `target`.
    TransferLeader {
        /// Who is to lead.
        target: u64,
    },
    /// A follower asks the leader for a read index (thesis 6.4).
    ReadIndex {
        /// The follower's own number of this attempt; never used twice, not even after a restart.
        id: u64,
    },
    /// The answer to that.
    ReadIndexResponse {
        /// The number of the attempt.
        id: u64,
        /// What must be applied before the read; `None` if the leader can't tell yet.
        index: Option<u64>,
    },
}

/// Where the logs of a leader and a follower may meet, as the follower sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectHint {
    /// The last index at which the follower's term is not above the term that was asked for.
    pub index: u64,
    /// The follower's term there.
    pub term: u64,
}

impl RejectHint {
    /// The follower knows no members, and takes only a snapshot: what is in the log says how the members have changed
    /// and not who they were at its beginning.
    pub const NEEDS_SNAPSHOT: RejectHint = RejectHint { index: 0, term: NUMBER_MAX };
}

impl MessageBody {
    /// The name of the kind, for traces and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            MessageBody::Append { .. } => "Append",
            MessageBody::AppendResponse { .. } => "AppendResponse",
            MessageBody::Vote { .. } => "Vote",
            MessageBody::VoteResponse { .. } => "VoteResponse",
            MessageBody::PreVote { .. } => "PreVote",
            MessageBody::PreVoteResponse { .. } => "PreVoteResponse",
            MessageBody::Committed { .. } => "Committed",
            MessageBody::Heartbeat { .. } => "Heartbeat",
            MessageBody::HeartbeatResponse { .. } => "HeartbeatResponse",
            MessageBody::Snapshot(_) => "Snapshot",
            MessageBody::TimeoutNow => "TimeoutNow",
            MessageBody::TransferLeader { .. } => "TransferLeader",
            MessageBody::ReadIndex { .. } => "ReadIndex",
            MessageBody::ReadIndexResponse { .. } => "ReadIndexResponse",
        }
    }

    /// Whether only a leader of the message's term sends it.
    pub fn is_from_leader(&self) -> bool {
        matches!(
            self,
            MessageBody::Append { .. }
                | MessageBody::Heartbeat { .. }
                | MessageBody::Snapshot(_)
                | MessageBody::TimeoutNow
                | MessageBody::ReadIndexResponse { .. }
        )
    }
}

impl Message {
    /// Whether the message can come from a correct peer at all, whatever the state of the receiver is. Errors are
    /// [`Error::Malformed`] with the rule that is broken.
    pub fn check(&self) -> Result<(), Error> {
        if self.from == 0 || self.to == 0 {
            return Err(Error::Malformed("a message has a sender and a receiver"));
        }
        if self.from == self.to {
            return Err(Error::Malformed("nobody sends messages to itself"));
        }
        if self.term == 0 || NUMBER_MAX < self.term {
            return Err(Error::Malformed("terms are from 1 to NUMBER_MAX"));
        }
        match &self.body {
            MessageBody::Append { index, log_term, entries, commit } => {
                self.check_append(*index, *log_term, entries, *commit)
            }
            MessageBody::AppendResponse { index, commit, reject } => {
                check_numbers(&[*index, *commit])?;
                reject.map_or(Ok(()), |hint| check_numbers(&[hint.index, hint.term]))
            }
            MessageBody::Vote { last_index, last_term, commit, commit_term, .. }
            | MessageBody::PreVote { last_index, last_term, commit, commit_term } => {
                check_numbers(&[*last_index, *last_term, *commit_term])?;
                if self.term < *last_term {
                    return Err(Error::Malformed("a candidate's log has no terms above its own"));
                }
                match commit <= last_index {
                    true => Ok(()),
                    false => Err(Error::Malformed("a candidate has what it knows to be committed")),
                }
            }
            MessageBody::Committed { index, term } => {
                check_numbers(&[*index])?;
                match 0 < *index && 0 < *term && *term <= self.term {
                    true => Ok(()),
                    false => Err(Error::Malformed("committed entries are of this term or before")),
                }
            }
            MessageBody::Heartbeat { commit, round } => check_numbers(&[*commit, *round]),
            MessageBody::HeartbeatResponse { round } => check_numbers(&[*round]),
            MessageBody::Snapshot(snapshot) => {
                let meta = &snapshot.meta;
                check_numbers(&[meta.index, meta.term])?;
                if meta.index == 0 || meta.term == 0 || self.term < meta.term {
                    return Err(Error::Malformed(
                        "a snapshot is of an entry of this term or before",
                    ));
                }
                meta.conf.check().map_err(Error::Malformed)
            }
            MessageBody::ReadIndexResponse { index, .. } => check_numbers(&[index.unwrap_or(0)]),
            MessageBody::VoteResponse { .. }
            | MessageBody::PreVoteResponse { .. }
            | MessageBody::TimeoutNow
            | MessageBody::TransferLeader { .. }
            | MessageBody::ReadIndex { .. } => Ok(()),
        }
    }

    fn check_append(
        &self,
        index: u64,
        log_term: u64,
        entries: &[Entry],
        commit: u64,
    ) -> Result<(), Error> {
        check_numbers(&[index, commit])?;
        if (index == 0) != (log_term == 0) {
            return Err(Error::Malformed("index 0 and term 0 are before the log, together"));
        }
        let (mut last_index, mut last_term) = (index, log_term);
        for entry in entries {
            if entry.index != last_index + 1 || entry.term == 0 || entry.term < last_term {
                return Err(Error::Malformed("indexes have no gaps and terms do not fall"));
            }
            (last_index, last_term) = (entry.index, entry.term);
        }
        if self.term < last_term {
            return Err(Error::Malformed("a leader's log has no terms above its own"));
        }
        check_numbers(&[last_index])
    }
}

fn check_numbers(numbers: &[u64]) -> Result<(), Error> {
    match numbers.iter().all(|&number| number <= NUMBER_MAX) {
        true => Ok(()),
        false => Err(Error::Malformed("indexes, terms and rounds are at most NUMBER_MAX")),
    }
}
