//! Replication and commitment (Raft paper, 5.3 and 5.4.2; thesis 3.5, 3.6 and 10.2.1).
//!
//! Nothing is sent when something is proposed or acknowledged; it is only noted that there may be something to send.
//! [`Node::ready`] then looks once at every follower and sends what it lacks: entries, the commit index, or a snapshot.
//! So the number of messages follows the number of Readies and not of proposals, and the leader's own disk, which
//! begins with the same Ready, works at the same time.
//!
//! A follower that rejects says where the logs may meet, by its terms; the leader answers with the same search in its
//! own log. Each exchange skips a whole term (Raft paper, end of 5.3).

use bytes::Bytes;
use types::marks::{buggify, mutant, sometimes};

use crate::{
    config::Config,
    entry::{Entry, EntryKind},
    error::{Error, ProposeError, StorageError},
    log::Log,
    membership::ConfState,
    message::{Message, MessageBody, RejectHint},
    node::{Node, ProgressKind, Rng},
    progress::{Progress, ProgressState},
    quorum,
    role::{Leader, Role},
    storage::Storage,
};

impl<S: Storage, R: Rng> Node<S, R> {
    pub(crate) fn propose_normal(
        &mut self,
        data: impl IntoIterator<Item = Bytes>,
    ) -> Result<(std::ops::Range<u64>, u64), ProposeError> {
        let mut uncommitted = self.may_propose()?;
        let start = self.log.last_index() + 1;
        for data in data {
            let refusal = if self.config.max_entry_bytes < data.len() {
                let (bytes, max) = (data.len(), self.config.max_entry_bytes);
                Some(ProposeError::TooLarge { bytes, max })
            // One entry always may, or a large one would never.
            } else if 0 < uncommitted
                && self.config.max_uncommitted_bytes < uncommitted.saturating_add(data.len())
            {
                sometimes!("raft: a proposal is refused because too much is under way");
                Some(ProposeError::Busy { uncommitted })
            } else {
                None
            };
            if let Some(refusal) = refusal {
                if start <= self.log.last_index() {
                    self.log.truncate(start);
                }
                return Err(refusal);
            }
            uncommitted += data.len();
            self.append_own(EntryKind::Normal, data);
        }
        self.proposed(uncommitted);
        Ok((start..self.log.last_index() + 1, self.term))
    }

    /// Whether this node takes proposals now: how many bytes are under way, or why not.
    pub(crate) fn may_propose(&self) -> Result<usize, ProposeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        if leader.transfer.is_some() || leader.removed_at.is_some() || self.log.held().is_some() {
            return Err(ProposeError::TransferInProgress);
        }
        Ok(leader.uncommitted_bytes)
    }

    /// Entries were appended by this leader; `uncommitted` bytes are under way now.
    pub(crate) fn proposed(&mut self, uncommitted: usize) {
        let (last, id) = (self.log.last_index(), self.config.id);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.uncommitted_bytes = uncommitted;
        leader.must_look = true;
        if let Some(own) = leader.get_mut(id) {
            own.next = last + 1;
        }
        if mutant!("leader_counts_unsynced") {
            self.note_own_progress();
            self.advance_commit();
        }
    }

    /// These entries were handed out as committed: so much less is under way.
    pub(crate) fn no_longer_uncommitted(&mut self, committed: &[Entry]) {
        let Role::Leader(leader) = &mut self.role else { return };
        for entry in committed.iter().filter(|entry| leader.first_own <= entry.index) {
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(entry.data.len());
        }
    }

    /// Sends every follower what it lacks.
    pub(crate) fn send_appends(&mut self) {
        let (id, term, now) = (self.config.id, self.term, self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.must_look {
            return;
        }
        leader.must_look = false;
        let to_tell = leader.to_tell(&self.log, &self.config);
        leader.to_tell = to_tell;
        let first_own = leader.first_own;
        let outbox = &mut self.messages;
        let (log, config) = (&self.log, &self.config);
        for progress in leader.progress.iter_mut().filter(|progress| progress.id != id) {
            let to = progress.id;
            let mut send = |body| outbox.push(Message { from: id, to, term, body });
            while lacks(progress, log, config, to_tell) {
                match append_for(progress, log, config, (first_own, term)) {
                    Ok(body) => send(body),
                    Err(StorageError::Compacted) => {
                        match log.storage.snapshot(log.first_index() - 1, to) {
                            Ok(snapshot) => {
                                sometimes!("raft: a follower gets a snapshot");
                                progress.become_snapshot(snapshot.meta.index, now);
                                send(MessageBody::Snapshot(Box::new(snapshot)));
                            }
                            // It is being made. The next answer to a heartbeat asks again.
                            Err(_) => progress.become_probe(progress.next, true),
                        }
                        break;
                    }
                    Err(_) => {
                        progress.become_probe(progress.next, true);
                        break;
                    }
                }
            }
        }
    }

    /// Whether some follower lacks something that may be sent now.
    pub(crate) fn has_appends(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let (id, log, config) = (self.config.id, &self.log, &self.config);
        let to_tell = leader.to_tell(log, config);
        leader.must_look
            && leader
                .progress
                .iter()
                .any(|progress| progress.id != id && lacks(progress, log, config, to_tell))
    }

    pub(crate) fn on_append(
        &mut self,
        from: u64,
        index: u64,
        log_term: u64,
        entries: Vec<Entry>,
        commit: u64,
    ) -> Result<(), Error> {
        if self.conf == ConfState::default() {
            return self.answer_append(from, index, Some(RejectHint::NEEDS_SNAPSHOT));
        }
        let matched = index + entries.len() as u64;
        if matched < self.log.committed() {
            // All of it is old: committed here, so the leader has it too.
            return self.answer_append(from, self.log.committed(), None);
        }
        if !self.log.has(index, log_term)?
            && self.log.committed() <= index
            && !(mutant!("append_skips_prev_check") && index <= self.log.last_index())
        {
            sometimes!("raft: an append is rejected");
            let (hint_index, hint_term) = self.log.meet(index, log_term)?;
            let hint = RejectHint { index: hint_index, term: hint_term };
            return self.answer_append(from, index, Some(hint));
        }
        if let Err(index) = self.log.merge(entries)? {
            return Err(Error::Divergence { from, index });
        }
        let known = match mutant!("commit_beyond_match") {
            true => self.log.last_index(),
            false => matched,
        };
        self.hear_commit(commit.min(known));
        self.answer_append(from, matched, None)
    }

    /// Another node says that everything up to `index` is committed; it is in this log.
    pub(crate) fn hear_commit(&mut self, index: u64) {
        self.told_commit = self.told_commit.max(index);
        self.log.commit_to(index);
    }

    /// Answers an append or a snapshot, when what was just taken is durable.
    pub(crate) fn answer_append(
        &mut self,
        to: u64,
        index: u64,
        reject: Option<RejectHint>,
    ) -> Result<(), Error> {
        let commit = self.log.committed();
        self.send(to, MessageBody::AppendResponse { index, commit, reject });
        Ok(())
    }

    pub(crate) fn on_append_response(
        &mut self,
        from: u64,
        index: u64,
        commit: u64,
        reject: Option<RejectHint>,
    ) -> Result<(), Error> {
        let (last, now) = (self.log.last_index(), self.now);
        let Role::Leader(leader) = &mut self.role else { return Ok(()) }; // deposed meanwhile
        let Some(progress) = leader.get_mut(from) else {
            return Err(Error::UnknownPeer { from }); // removed meanwhile
        };
        progress.hear(now);
        let Some(hint) = reject else {
            if last < index || index < commit {
                return Err(Error::Malformed("commit <= index <= what was sent"));
            }
            progress.committed = progress.committed.max(commit);
            progress.sent_commit = progress.sent_commit.max(progress.committed);
            return self.matched(from, index);
        };

        if hint == RejectHint::NEEDS_SNAPSHOT {
            if progress.matched == 0 && progress.kind() != ProgressKind::Snapshot {
                progress.become_probe(1, false);
                progress.needs_snapshot = true;
                leader.must_look = true;
            }
            return Ok(());
        }
        match progress.state {
            // An old answer: it has been sent more since, and has taken it.
            ProgressState::Replicate { .. } if index <= progress.matched => return Ok(()),
            ProgressState::Replicate { .. } => {
                sometimes!("raft: an append that was sent ahead is rejected");
                progress.ahead = 1;
            }
            // Only the answer to the one append that is under way counts.
            ProgressState::Probe { .. } if index != progress.next - 1 => return Ok(()),
            // It has acknowledged that: the answer is older still.
            ProgressState::Probe { .. } if index <= progress.matched => return Ok(()),
            ProgressState::Probe { .. } => {}
            ProgressState::Snapshot { .. } => return Ok(()),
        }
        let (meet, _) = self.log.meet(hint.index.min(index.saturating_sub(1)), hint.term)?;
        if let Some(progress) = self.role.leader_mut().and_then(|leader| leader.get_mut(from)) {
            progress.become_probe(meet + 1, false);
        }
        self.look();
        Ok(())
    }

    /// A follower has the log up to `index`, durably.
    fn matched(&mut self, from: u64, index: u64) -> Result<(), Error> {
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        let Some(progress) = leader.get_mut(from) else { return Ok(()) };
        let is_news = progress.matches(index);
        match progress.state {
            // The answer to the probe, or news: the logs meet at `matched`.
            ProgressState::Probe { .. } if is_news || progress.next == progress.matched + 1 => {
                progress.become_replicate();
            }
            ProgressState::Snapshot { index, .. } if index <= progress.matched => {
                progress.become_replicate();
            }
            _ => {}
        }
        leader.must_look = true;
        self.finish_transfer(from);
        if is_news {
            self.advance_commit();
        }
        self.leave_if_removed();
        Ok(())
    }

    /// Commits what a quorum has. Only an entry of the leader's own term is committed by counting; those before it are
    /// committed with it (Raft paper, figure 8 shows the loss otherwise).
    pub(crate) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let candidate =
            quorum::reached(&self.conf, |id| leader.get(id).map_or(0, |progress| progress.matched));
        if candidate < leader.first_own && !mutant!("commit_older_term_by_counting") {
            return;
        }
        if self.log.commit_to(candidate) {
            leader.must_look = true;
        }
    }

    /// A message to a follower was lost: what was sent ahead may be lost as well.
    pub(crate) fn on_unreachable(&mut self, peer: u64) {
        let Some(progress) = self.role.leader_mut().and_then(|leader| leader.get_mut(peer)) else {
            return;
        };
        if matches!(progress.state, ProgressState::Replicate { .. }) && peer != self.config.id {
            // Wait for a sign of life: an answer to a heartbeat.
            progress.become_probe(progress.matched + 1, true);
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        let (now, retry) = (self.now, self.config.snapshot_ticks);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_elapsed += 1;
        leader.quorum_elapsed += 1;
        for progress in &mut leader.progress {
            if let ProgressState::Snapshot { since, .. } = progress.state
                && 0 < retry
                && u64::from(retry) <= now - since
            {
                sometimes!("raft: nobody said what became of a snapshot");
                progress.become_probe(progress.matched + 1, true);
            }
        }
        self.tell_commit();
        self.tick_transfer();
        let Role::Leader(leader) = &mut self.role else { return };
        if self.config.election_ticks <= leader.quorum_elapsed {
            leader.quorum_elapsed = 0;
            leader.progress.iter_mut().for_each(Progress::shrink);
            if self.config.check_quorum {
                self.check_quorum();
            }
            self.leave_joint_state();
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if self.config.heartbeat_ticks <= leader.heartbeat_elapsed {
            self.broadcast_heartbeat();
        }
    }

    /// Begins a round of heartbeats.
    pub(crate) fn broadcast_heartbeat(&mut self) {
        let (id, term, now) = (self.config.id, self.term, self.now);
        let committed = self.log.committed();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_elapsed = 0;
        let round = leader.reads.begin_round(now, committed, &self.config);
        // Who leads only until others know something asks them without waiting for their answer.
        if let Some(awaited) = leader.removed_at.or(self.log.held()) {
            for progress in &mut leader.progress {
                if let ProgressState::Replicate { must_ask, .. } = &mut progress.state {
                    *must_ask |= progress.committed < awaited && progress.id != id;
                    leader.must_look = true;
                }
            }
        }
        for progress in leader.progress.iter().filter(|progress| progress.id != id) {
            let commit = match mutant!("heartbeat_commits_unmatched") {
                true => committed,
                false => committed.min(progress.matched),
            };
            let body = MessageBody::Heartbeat { commit, round };
            self.messages.push(Message { from: id, to: progress.id, term, body });
        }
    }

    pub(crate) fn on_heartbeat(&mut self, from: u64, commit: u64, round: u64) -> Result<(), Error> {
        let last = self.log.last_index();
        if mutant!("heartbeat_commits_unmatched") {
            self.hear_commit(commit.min(last));
        } else if last < commit {
            // The leader knows that this node has had it: the disk has lost what it had promised.
            return Err(Error::Divergence { from, index: commit });
        } else {
            self.hear_commit(commit);
        }
        self.send(from, MessageBody::HeartbeatResponse { round });
        Ok(())
    }

    pub(crate) fn on_heartbeat_response(&mut self, from: u64, round: u64) -> Result<(), Error> {
        let (last, now) = (self.log.last_index(), self.now);
        let Role::Leader(leader) = &mut self.role else { return Ok(()) }; // deposed meanwhile
        if leader.reads.last_round() < round {
            return Err(Error::Malformed("an answer to a round that has not begun"));
        }
        // A leader that is no member any more waits until the others know it; who was told may have answered in vain.
        let awaited_commit = leader.removed_at.or(self.log.held()).unwrap_or(0);
        let Some(progress) = leader.get_mut(from) else {
            return Err(Error::UnknownPeer { from });
        };
        progress.hear(now);
        progress.acked_round = progress.acked_round.max(round);
        let is_behind = progress.matched < last || progress.committed < awaited_commit;
        match &mut progress.state {
            ProgressState::Probe { is_waiting } => *is_waiting = false,
            // What was sent ahead may be lost. If it is not, the question costs one empty append.
            ProgressState::Replicate { must_ask, .. } => *must_ask = is_behind,
            ProgressState::Snapshot { .. } => {}
        }
        leader.must_look = true;
        self.confirm_rounds();
        self.leave_if_removed();
        Ok(())
    }

    /// Tells the followers what is committed, with the next Ready, though [`Config::lazy_commit`] would have it wait: it
    /// is more than data.
    pub fn tell_commit(&mut self) {
        let committed = self.log.committed();
        if let Role::Leader(leader) = &mut self.role
            && leader.to_tell < committed
        {
            leader.to_tell = committed;
            leader.must_look = true;
        }
    }

    /// Looks at the followers with the next Ready.
    pub(crate) fn look(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.must_look = true;
        }
    }
}

/// Whether there is something to send to this follower, and it may be sent. That something up to `to_tell` is committed
/// is worth a message of its own.
fn lacks<S: Storage>(progress: &Progress, log: &Log<S>, config: &Config, to_tell: u64) -> bool {
    let has_entries = progress.next <= log.last_index();
    let has_commit = progress.sent_commit < to_tell.min(progress.next - 1);
    match &progress.state {
        ProgressState::Probe { is_waiting } => {
            let is_unknown = progress.matched + 1 < progress.next;
            !is_waiting && (has_entries || has_commit || is_unknown)
        }
        ProgressState::Replicate { must_ask, .. } => {
            let may = progress.may_send_ahead(config);
            (has_entries && may) || (has_commit && !has_entries) || *must_ask
        }
        ProgressState::Snapshot { .. } => false,
    }
}

/// The next append for this follower; notes that it is sent. Errors: `Compacted` if what it needs is gone.
fn append_for<S: Storage>(
    progress: &mut Progress,
    log: &Log<S>,
    config: &Config,
    (first_own, term): (u64, u64),
) -> Result<MessageBody, StorageError> {
    if progress.needs_snapshot {
        return Err(StorageError::Compacted);
    }
    let index = progress.next - 1;
    // A leader's log has its own term from its first entry on; that saves the look-up.
    let log_term = if first_own <= index { term } else { log.term(index)? };
    let end = log.last_index() + 1;
    let may_have_entries = match &progress.state {
        ProgressState::Replicate { .. } => progress.may_send_ahead(config),
        _ => true,
    };
    let entries = if progress.next < end && may_have_entries {
        let max_bytes = match buggify!("raft: one entry an append") {
            true => 0,
            false => config.max_message_bytes,
        };
        log.entries(progress.next, end, max_bytes)?
    } else {
        Vec::new()
    };
    let commit = log.committed();
    let last = index + entries.len() as u64;
    progress.sent_commit = progress.sent_commit.max(commit.min(last));
    match &mut progress.state {
        ProgressState::Probe { is_waiting } => *is_waiting = true,
        ProgressState::Replicate { window, must_ask } => {
            *must_ask = false;
            if !entries.is_empty() {
                window.add(last, entries.iter().map(Entry::cost).sum());
                progress.next = last + 1;
            }
        }
        ProgressState::Snapshot { .. } => {}
    }
    Ok(MessageBody::Append { index, log_term, entries, commit })
}

impl Leader {
    /// Up to where followers are told at once what is committed.
    fn to_tell<S: Storage>(&self, log: &Log<S>, config: &Config) -> u64 {
        let committed = log.committed();
        // Its first commit says that it leads; who reads from followers, or waits for them to know, waits for this.
        let is_awaited = self.reads.serves_followers
            || self.to_tell < self.first_own
            || self.removed_at.is_some()
            || log.held().is_some()
            || self.transfer.is_some();
        if is_awaited || !config.lazy_commit { committed } else { self.to_tell.min(committed) }
    }

    /// The voter that is furthest, other than `id`: the best successor.
    pub(crate) fn furthest(&self, is_voter: impl Fn(u64) -> bool, id: u64) -> Option<u64> {
        let mut candidates: Vec<&Progress> = self
            .progress
            .iter()
            .filter(|progress| progress.id != id && is_voter(progress.id) && progress.is_active)
            .collect();
        candidates.sort_by_key(|progress| (std::cmp::Reverse(progress.matched), progress.id));
        candidates.first().map(|progress| progress.id)
    }
}
