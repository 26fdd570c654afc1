//! How golden scripts draw what happens, to be read by people.
//!
//! `n1@2` is node 1 in term 2, `3@2` the entry with index 3 and term 2, `a → b` a message that arrived and `a ⇥ b` one
//! that did not.

use super::{Event, Machine};
use crate::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Message, MessageBody,
    ProgressKind, Ready, RejectHint, RoleKind, RoleState, Transition,
};

/// One line for an event.
pub fn event(event: &Event) -> String {
    match event {
        Event::Delivered(message) => draw_message(message, '→'),
        Event::Lost(message) => draw_message(message, '⇥'),
        Event::Refused(id, error) => format!("n{id} refuses: {error}"),
        Event::Applied(id, entry) => format!("n{id} applies {}", draw_entry(entry)),
        Event::Restored(id, meta) => {
            format!("n{id} restores {}@{} {}", meta.index, meta.term, draw_conf(&meta.conf))
        }
        Event::Read(id, read) => format!("n{id} answers read {} at {}", read.context, read.index),
        Event::ReadRefused(id, context) => format!("n{id} gives up read {context}"),
        Event::Role(id, term, state) => draw_role(*id, *term, *state),
    }
}

/// `n1@2 leads`, `n2@2 follows n1`, `n3 is down`.
pub fn role(machine: &Machine) -> String {
    match &machine.node {
        Some(node) => draw_role(node.id(), node.term(), node.role()),
        None => format!("n{} is down", machine.config.id),
    }
}

fn draw_role(id: u64, term: u64, state: RoleState) -> String {
    let role = match (state.role, state.leader) {
        (RoleKind::Leader, _) => "leads".to_owned(),
        (RoleKind::PreCandidate, _) => "asks for pre-votes".to_owned(),
        (RoleKind::Candidate, _) => "campaigns".to_owned(),
        (RoleKind::Follower, 0) => "follows nobody".to_owned(),
        (RoleKind::Follower, leader) => format!("follows n{leader}"),
    };
    format!("n{id}@{term} {role}")
}

/// Everything about a node in one line.
pub fn status(machine: &Machine) -> String {
    let Some(node) = &machine.node else { return role(machine) };
    let status = node.status();
    let last_term = node.log_term(status.last_index).unwrap_or(0);
    let mut line = format!(
        "{}  vote={} last={}@{last_term} commit={} applied={}",
        role(machine),
        status.vote,
        status.last_index,
        status.committed,
        status.applied
    );
    if status.persisted != status.last_index {
        line += &format!(" durable={}", status.persisted);
    }
    if 1 < status.first_index {
        line += &format!(" first={}", status.first_index);
    }
    if status.transferee != 0 {
        line += &format!(" transfer→n{}", status.transferee);
    }
    if status.has_lease {
        line += " lease";
    }
    line
}

/// A leader's view of the others, one line each.
pub fn progress(machine: &Machine) -> Vec<String> {
    let Some(node) = &machine.node else { return Vec::new() };
    let status = node.status();
    let others = status.peers.iter().filter(|peer| peer.id != status.id);
    others
        .map(|peer| {
            let kind = match peer.kind {
                ProgressKind::Probe => "probe",
                ProgressKind::Replicate => "replicate",
                ProgressKind::Snapshot => "snapshot",
            };
            let silent = if peer.is_active { "" } else { " silent" };
            format!("n{} {kind} matched={} next={}{silent}", peer.id, peer.matched, peer.next)
        })
        .collect()
}

/// The parts of a Ready, one line each.
pub fn ready(ready: &Ready) -> Vec<String> {
    let mut lines =
        vec![format!("ready {}{}", ready.number, if ready.must_sync { " sync" } else { "" })];
    if let Some(snapshot) = &ready.snapshot {
        let meta = &snapshot.meta;
        lines.push(format!("  persist snapshot {}@{}", meta.index, meta.term));
    }
    if let Some(HardState { term, vote, commit }) = ready.hard_state {
        lines.push(format!("  persist term={term} vote={vote} commit={commit}"));
    }
    if !ready.entries.is_empty() {
        lines.push(format!("  persist {}", entries(&ready.entries)));
    }
    lines.extend(ready.messages.iter().map(|m| format!("  send {}", draw_message(m, '→'))));
    let later = &ready.messages_after_persist;
    lines.extend(later.iter().map(|m| format!("  send when durable {}", draw_message(m, '→'))));
    if !ready.committed.is_empty() {
        lines.push(format!("  apply {}", entries(&ready.committed)));
    }
    for read in &ready.reads {
        lines.push(format!("  answer read {} at {}", read.context, read.index));
    }
    for context in &ready.reads_refused {
        lines.push(format!("  give up read {context}"));
    }
    lines
}

/// Entries, with a blank between them.
pub fn entries(entries: &[Entry]) -> String {
    entries.iter().map(draw_entry).collect::<Vec<_>>().join(" ")
}

/// `3@2 "data"`, or `3@2` without data, or `3@2 {+4}` for a change of the members.
pub fn draw_entry(entry: &Entry) -> String {
    let Entry { term, index, kind, data } = entry;
    match kind {
        EntryKind::Normal if data.is_empty() => format!("{index}@{term}"),
        EntryKind::Normal => {
            let text = String::from_utf8_lossy(data);
            match text.len() {
                0..=20 => format!("{index}@{term} \"{text}\""),
                n => format!("{index}@{term} {n} bytes"),
            }
        }
        EntryKind::ConfChange => match ConfChange::decode(data) {
            Ok(change) => format!("{index}@{term} {{{}}}", draw_change(&change)),
            Err(_) => format!("{index}@{term} {{damaged}}"),
        },
    }
}

/// `+4 ~5 -1`, `leave`.
pub fn draw_change(change: &ConfChange) -> String {
    let mut parts: Vec<String> = change
        .changes
        .iter()
        .map(|single| match single.kind {
            ConfChangeKind::AddVoter => format!("+{}", single.id),
            ConfChangeKind::AddLearner => format!("~{}", single.id),
            ConfChangeKind::Remove => format!("-{}", single.id),
        })
        .collect();
    match change.transition {
        _ if parts.is_empty() => parts.push("leave".to_owned()),
        Transition::Auto => {}
        Transition::JointImplicit => parts.push("joint".to_owned()),
        Transition::JointExplicit => parts.push("explicit".to_owned()),
    }
    parts.join(" ")
}

/// `{1 2 3}`, `{1 2 4 | 1 2 3, learners 5}`.
pub fn draw_conf(conf: &ConfState) -> String {
    let list = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let mut text = list(&conf.voters);
    if conf.is_joint() {
        text += &format!(" | {}", list(&conf.voters_outgoing));
    }
    if !conf.learners.is_empty() {
        text += &format!(", learners {}", list(&conf.learners));
    }
    if !conf.learners_next.is_empty() {
        text += &format!(", learners then {}", list(&conf.learners_next));
    }
    format!("{{{text}}}")
}

/// `n1@2 → n2 Append 3@2 [4@2 "x"] commit=3`.
pub fn draw_message(message: &Message, arrow: char) -> String {
    let Message { from, to, term, body } = message;
    let what = match body {
        MessageBody::Append { index, log_term, entries: list, commit } => {
            format!("{index}@{log_term} [{}] commit={commit}", entries(list))
        }
        MessageBody::AppendResponse { index, reject: None, .. } => format!("has {index}"),
        MessageBody::AppendResponse { reject: Some(RejectHint::NEEDS_SNAPSHOT), .. } => {
            "needs a snapshot".to_owned()
        }
        MessageBody::AppendResponse { index, reject: Some(hint), .. } => {
            format!("rejects {index}, perhaps {}@{}", hint.index, hint.term)
        }
        MessageBody::Vote { last_index, last_term, transfer, .. } => {
            format!("last={last_index}@{last_term}{}", if *transfer { " transfer" } else { "" })
        }
        MessageBody::PreVote { last_index, last_term, .. } => {
            format!("last={last_index}@{last_term}")
        }
        MessageBody::VoteResponse { granted } | MessageBody::PreVoteResponse { granted } => {
            if *granted { "yes" } else { "no" }.to_owned()
        }
        MessageBody::Committed { index, term } => format!("{index}@{term}"),
        MessageBody::Heartbeat { commit, round } => format!("round={round} commit={commit}"),
        MessageBody::HeartbeatResponse { round } => format!("round={round}"),
        MessageBody::Snapshot(snapshot) => {
            let meta = &snapshot.meta;
            format!("{}@{} {}", meta.index, meta.term, draw_conf(&meta.conf))
        }
        MessageBody::TimeoutNow => String::new(),
        MessageBody::TransferLeader { target } => format!("target=n{target}"),
        MessageBody::ReadIndex { id } => format!("attempt {}", id & 0xffff_ffff),
        MessageBody::ReadIndexResponse { id, index } => match index {
            Some(index) => format!("attempt {} at {index}", id & 0xffff_ffff),
            None => format!("attempt {} not yet", id & 0xffff_ffff),
        },
    };
    format!("n{from}@{term} {arrow} n{to} {} {what}", body.name()).trim_end().to_owned()
}
