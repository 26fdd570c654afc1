//! Elections (Raft paper, 5.2 and 5.4.1; thesis 9.6 and 6.2).
//!
//! - Timeouts are random, so that one node is usually first; a lower priority waits longer.
//! - **Pre-vote**: a node first asks whether it could win, and raises its term only then. Who comes back from a
//!   partition disturbs nobody.
//! - **Check of the quorum**: a leader that hears from no quorum steps down, and a node that hears from a leader does
//!   not vote, except for the successor that the leader has chosen.
//! - A vote counts, also the candidate's own, and is told to anybody, only when it is durable. A request for votes
//!   speaks of the candidate's log, so it waits for the disk as well.

use types::marks::{buggify, mutant, sometimes};

use crate::{
    config::Config,
    entry::{EntryKind, NUMBER_MAX},
    error::{Error, StorageError},
    message::{Message, MessageBody},
    node::{Node, Rng},
    quorum::{self, Outcome},
    role::Role,
    storage::Storage,
};

/// How an election begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// With the question whether it could be won, if so configured.
    Timeout,
    /// At once: the old leader wants it.
    Transfer,
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// Campaigns at once, without waiting for the timeout. Does nothing at a leader, at a node that is no voter,
    /// while a committed change of the members is not applied here, and, with `check_quorum`, for an election timeout
    /// after the last word of a leader.
    pub fn campaign(&mut self) {
        self.start_campaign(Campaign::Timeout);
        self.check_invariants();
    }

    pub(crate) fn reset_election_timeout(&mut self) {
        let ticks = self.config.election_ticks;
        let handicap = u32::from(Config::PRIORITY_MAX - self.config.priority) * ticks;
        self.election_elapsed = 0;
        self.election_timeout = match buggify!("raft: the shortest election timeout") {
            true => ticks,
            false => ticks + handicap + self.rng.range(0, ticks),
        };
    }

    pub(crate) fn tick_election(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.election_timeout <= self.election_elapsed && self.is_promotable() {
            self.election_elapsed = 0;
            self.start_campaign(Campaign::Timeout);
        }
    }

    /// Whether the node may lead: it votes, and it has a log to lead with.
    pub(crate) fn is_promotable(&self) -> bool {
        self.conf.is_voter(self.config.id) && !self.log.has_snapshot_under_way()
    }

    /// Whether a leader, or its lease, may count on this node not to vote.
    pub(crate) fn has_promised_not_to_vote(&self) -> bool {
        if !self.config.check_quorum {
            return false;
        }
        // A leader that is cut off steps down by itself.
        matches!(self.role, Role::Leader(_)) || self.leader_silent < self.config.election_ticks
    }

    pub(crate) fn start_campaign(&mut self, campaign: Campaign) {
        if matches!(self.role, Role::Leader(_)) || !self.is_promotable() {
            return;
        }
        if NUMBER_MAX <= self.term || NUMBER_MAX / 2 <= self.log.last_index() {
            return; // hardly a number is left to lead with; no correct group gets here
        }
        // The node's own vote is a vote: a leader's lease may rest on it.
        if campaign == Campaign::Timeout && self.has_promised_not_to_vote() {
            return;
        }
        if !mutant!("campaign_with_unapplied_conf") && self.must_apply_first() {
            sometimes!("raft: no campaign before a change of the members is applied");
            return;
        }
        if campaign == Campaign::Timeout && self.config.pre_vote {
            self.become_pre_candidate();
            self.ask_for_votes(campaign);
            self.count_votes();
        } else {
            self.become_candidate();
            self.ask_for_votes(campaign);
        }
    }

    /// Whether there is a committed change of the members that is not applied here: quorums would be counted among the
    /// wrong members. What the log proves to be committed counts as committed: a change is only proposed when the one
    /// before it is applied, so of two in the log the first is committed, even if the commit index was lost.
    fn must_apply_first(&mut self) -> bool {
        match self.last_changes() {
            Ok((before, last)) => {
                if let Some(index) = before {
                    self.log.commit_to(index);
                }
                before.is_some() || last.is_some_and(|index| index <= self.log.agreed())
            }
            // What can't be read can't be trusted to be none; the next timeout tries again.
            Err(_) => true,
        }
    }

    /// The last change of the members in the log that is not applied, and the one before it.
    fn last_changes(&self) -> Result<(Option<u64>, Option<u64>), StorageError> {
        let (mut before, mut last) = (None, None);
        let end = self.log.last_index() + 1;
        let mut next = self.log.applied() + 1;
        while next < end {
            let entries = self.log.entries(next, end, self.config.max_apply_bytes)?;
            let Some(entry) = entries.last() else { return Err(StorageError::Unavailable) };
            next = entry.index + 1;
            for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
                before = last;
                last = Some(entry.index);
            }
        }
        Ok((before, last))
    }

    fn ask_for_votes(&mut self, campaign: Campaign) {
        let Ok(last_term) = self.log.last_term() else { return };
        let (last_index, commit) = (self.log.last_index(), self.log.committed());
        let Ok(commit_term) = self.log.term(commit) else { return };
        let is_pre_vote = matches!(self.role, Role::PreCandidate(_));
        let (term, body) = match is_pre_vote {
            true => {
                let body = MessageBody::PreVote { last_index, last_term, commit, commit_term };
                (self.term + 1, body)
            }
            false => {
                let transfer = campaign == Campaign::Transfer;
                let body =
                    MessageBody::Vote { last_index, last_term, commit, commit_term, transfer };
                (self.term, body)
            }
        };
        let id = self.config.id;
        for to in self.conf.members() {
            if to != id && self.conf.is_voter(to) {
                let message = Message { from: id, to, term, body: body.clone() };
                self.messages_after_persist.push(message);
            }
        }
    }

    pub(crate) fn on_vote(
        &mut self,
        from: u64,
        last_index: u64,
        last_term: u64,
        transfer: bool,
    ) -> Result<(), Error> {
        // The term may have risen by another way than a vote; the promise to the old leader still holds.
        if !transfer && self.leader == 0 && self.has_promised_not_to_vote() {
            return Ok(());
        }
        let is_free = self.vote == from || (self.vote == 0 && self.leader == 0);
        let is_up_to_date =
            mutant!("vote_for_any_log") || self.log.is_up_to_date(last_index, last_term)?;
        let granted = (is_free || mutant!("vote_twice")) && is_up_to_date;
        if granted {
            self.vote = from;
            self.election_elapsed = 0;
        } else if is_free {
            sometimes!("raft: a vote is refused because of the log");
        }
        self.send(from, MessageBody::VoteResponse { granted });
        if !granted {
            self.send_committed(from, last_index);
        }
        Ok(())
    }

    /// Tells a refused candidate what is committed of its log. Without that, one that is left alone by a change of the
    /// members could wait for ever for the vote of one that has left, and whose log is longer.
    fn send_committed(&mut self, to: u64, last_index: u64) {
        if mutant!("refusals_say_nothing") {
            return;
        }
        let index = self.log.committed().min(last_index);
        if let Ok(term) = self.log.term(index)
            && 0 < term
        {
            self.send(to, MessageBody::Committed { index, term });
        }
    }

    /// A voter or a candidate knows that this entry is committed. If it is in this log, everything before it is too.
    pub(crate) fn on_committed(&mut self, index: u64, term: u64) -> Result<(), Error> {
        let is_leader = matches!(self.role, Role::Leader(_));
        let is_news = self.log.committed().min(self.told_commit) < index;
        if !is_leader && is_news && self.log.has(index, term)? {
            sometimes!("raft: an election tells what is committed");
            self.hear_commit(index);
        }
        Ok(())
    }

    /// `term` is the one that is asked for; the node's own stays.
    pub(crate) fn on_pre_vote(
        &mut self,
        from: u64,
        term: u64,
        last_index: u64,
        last_term: u64,
    ) -> Result<(), Error> {
        let is_free = self.term < term || self.vote == from || (self.vote == 0 && self.leader == 0);
        let granted = is_free && self.log.is_up_to_date(last_index, last_term)?;
        let own_term = self.term;
        let term = if granted { term } else { own_term };
        if term == 0 {
            return Ok(()); // a node that has never seen a term has nothing to say
        }
        let body = MessageBody::PreVoteResponse { granted };
        let message = Message { from: self.config.id, to: from, term, body };
        match self.role {
            Role::Leader(_) => self.messages.push(message),
            _ => self.messages_after_persist.push(message),
        }
        if !granted {
            self.send_committed(from, last_index);
        }
        Ok(())
    }

    /// An answer in this node's term.
    pub(crate) fn on_vote_response(&mut self, from: u64, granted: bool) -> Result<(), Error> {
        let Role::Candidate(votes) = &mut self.role else { return Ok(()) }; // decided meanwhile
        votes.note(from, granted);
        self.count_votes();
        Ok(())
    }

    /// Granted: for a term after this node's. Refused: in this node's term.
    pub(crate) fn on_pre_vote_response(
        &mut self,
        from: u64,
        term: u64,
        granted: bool,
    ) -> Result<(), Error> {
        if granted && term != self.term + 1 {
            return Ok(()); // of an earlier attempt
        }
        let Role::PreCandidate(votes) = &mut self.role else { return Ok(()) };
        votes.note(from, granted);
        self.count_votes();
        Ok(())
    }

    /// The hard state that is durable now has the node's own vote, or not.
    pub(crate) fn count_own_vote(&mut self) {
        let id = self.config.id;
        let Role::Candidate(votes) = &mut self.role else { return };
        votes.note(id, true);
        self.count_votes();
    }

    pub(crate) fn count_votes(&mut self) {
        let (votes, is_pre_vote) = match &self.role {
            Role::PreCandidate(votes) => (votes, true),
            Role::Candidate(votes) => (votes, false),
            Role::Follower | Role::Leader(_) => return,
        };
        match quorum::tally(&self.conf, |id| votes.of(id)) {
            Outcome::Open => {}
            Outcome::Lost => {
                sometimes!("raft: an election is lost");
                self.become_follower(self.term, 0);
            }
            Outcome::Won if is_pre_vote => {
                self.become_candidate();
                self.ask_for_votes(Campaign::Timeout);
            }
            // The own vote is part of the promise that a leader's messages rest on.
            Outcome::Won if votes.of(self.config.id) != Some(true) => {}
            Outcome::Won => self.become_leader(),
        }
    }

    /// A message that only a leader of this term sends.
    pub(crate) fn hear_leader(&mut self, from: u64) -> Result<(), Error> {
        if matches!(self.role, Role::Leader(_)) || (self.leader != 0 && self.leader != from) {
            // Two leaders in one term: somebody has voted twice.
            return Err(Error::Divergence { from, index: self.log.committed() });
        }
        if !matches!(self.role, Role::Follower) || self.leader != from {
            self.become_follower(self.term, from);
        }
        self.election_elapsed = 0;
        self.leader_silent = 0;
        Ok(())
    }

    /// Whether a quorum was heard of since the last check. Begins the next one.
    pub(crate) fn check_quorum(&mut self) {
        let (now, id) = (self.now, self.config.id);
        let Role::Leader(leader) = &mut self.role else { return };
        let is_there = quorum::agree(&self.conf, |member| {
            member == id || leader.get(member).is_some_and(|progress| progress.is_active)
        });
        for progress in &mut leader.progress {
            progress.is_active = progress.id == id;
        }
        // A leader whose disk stands still can neither apply nor answer; somebody else can.
        let is_stuck = self
            .log
            .oldest_write()
            .is_some_and(|write| u64::from(self.config.election_ticks) < now - write.since)
            && !mutant!("leader_ignores_its_disk");
        if is_stuck {
            sometimes!("raft: a leader steps down because its disk stands still");
        }
        if !is_there {
            sometimes!("raft: a leader steps down because it hears from no quorum");
        }
        if !is_there || is_stuck {
            self.become_follower(self.term, 0);
        }
    }
}
