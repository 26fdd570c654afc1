//! What a node is, with what it knows only as that, and the ways from one role to another.
//!
//! ```text
//!               timeout                  could win              quorum
//!   follower ───────────▶ pre-candidate ───────────▶ candidate ────────▶ leader
//!      ▲                        │                        │                  │
//!      └────────────────────────┴────────────────────────┴──────────────────┘
//!                a leader of this term, a higher term, a quorum against it,
//!                          or (leader) no quorum heard of
//! ```

use types::marks::{mutant, sometimes};

use crate::{
    entry::EntryKind,
    log::Log,
    node::{Node, Rng},
    progress::{Progress, ProgressState},
    read::Reads,
    ready::RoleKind,
    storage::Storage,
};

/// A node's role and what it knows in it.
#[derive(Debug)]
pub(crate) enum Role {
    Follower,
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

/// Who has answered in an election, and how.
#[derive(Debug, Default)]
pub(crate) struct Votes(pub(crate) Vec<(u64, bool)>);

/// What only a leader knows.
#[derive(Debug)]
pub(crate) struct Leader {
    /// The members, and itself whether it is one or not, by id.
    pub(crate) progress: Vec<Progress>,
    /// The first entry of its term: the no-op.
    pub(crate) first_own: u64,
    /// Something may be there to send.
    pub(crate) must_look: bool,
    /// Followers are told that everything up to here is committed, even if nothing else is to be said.
    pub(crate) to_tell: u64,
    pub(crate) heartbeat_elapsed: u32,
    pub(crate) quorum_elapsed: u32,
    pub(crate) transfer: Option<Transfer>,
    /// A successor was asked to campaign in this term, and may do so at any later time: no lease any more.
    pub(crate) has_abdicated: bool,
    pub(crate) reads: Reads,
    /// Bytes of its own proposals that were not handed out as committed.
    pub(crate) uncommitted_bytes: usize,
    /// No change of the members is proposed before this is applied.
    pub(crate) pending_conf_index: u64,
    /// It is no voter any more. It leads until a quorum of the others knows that this index is committed.
    pub(crate) removed_at: Option<u64>,
}

/// A transfer of the leadership that is under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) target: u64,
    pub(crate) elapsed: u32,
}

impl Role {
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Role::Follower => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    pub(crate) fn leader(&self) -> Option<&Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }
}

impl Votes {
    /// Notes an answer; the first one of each voter counts.
    pub(crate) fn note(&mut self, id: u64, granted: bool) {
        if self.of(id).is_none() {
            self.0.push((id, granted));
        }
    }

    pub(crate) fn of(&self, id: u64) -> Option<bool> {
        self.0.iter().find(|(voter, _)| *voter == id).map(|&(_, granted)| granted)
    }
}

impl Leader {
    pub(crate) fn get(&self, id: u64) -> Option<&Progress> {
        self.progress.iter().find(|progress| progress.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|progress| progress.id == id)
    }

    /// Whether something of its own term is committed: then it knows all that is.
    pub(crate) fn has_committed_own<S: Storage>(&self, log: &Log<S>) -> bool {
        self.first_own <= log.committed()
    }
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// Follows `leader` (0: nobody known) in `term`, which is not before the node's own. A vote is kept within its
    /// term.
    ///
    /// A follower that only learns of a newer term goes on waiting as it did (Raft paper, 5.2): a candidate that can't
    /// win would otherwise keep everybody from campaigning who waits longer than it does.
    pub(crate) fn become_follower(&mut self, term: u64, leader: u64) {
        assert!(self.term <= term, "terms do not go back");
        let goes_on_waiting = leader == 0 && matches!(self.role, Role::Follower);
        if self.term < term {
            self.term = term;
            self.vote = 0;
        }
        self.give_up_reads();
        self.role = Role::Follower;
        self.leader = leader;
        if !goes_on_waiting {
            self.reset_election_timeout();
        }
    }

    pub(crate) fn become_pre_candidate(&mut self) {
        assert!(!matches!(self.role, Role::Leader(_)), "a leader does not campaign");
        self.give_up_reads();
        if mutant!("pre_vote_persists_term") {
            self.term += 1;
            self.vote = 0;
        }
        let mut votes = Votes::default();
        // Nothing is promised by a pre-vote, so the node's own counts at once.
        votes.note(self.config.id, true);
        self.role = Role::PreCandidate(votes);
        self.leader = 0;
        self.reset_election_timeout();
    }

    /// Begins a new term and votes for itself. The vote counts when it is durable.
    pub(crate) fn become_candidate(&mut self) {
        assert!(!matches!(self.role, Role::Leader(_)), "a leader does not campaign");
        self.give_up_reads();
        self.term += 1;
        self.vote = self.config.id;
        self.role = Role::Candidate(Votes::default());
        self.leader = 0;
        self.reset_election_timeout();
    }

    /// Leads, and begins with an entry of its own term: only with that the entries before it commit, and only then it
    /// knows what is committed (thesis 3.6.2, 6.4).
    pub(crate) fn become_leader(&mut self) {
        assert!(matches!(self.role, Role::Candidate(_)), "only a candidate is elected");
        sometimes!("raft: a leader is elected");
        let id = self.config.id;
        let last = self.log.last_index();
        let now = self.now;
        let begin = |member| Progress::new(member, last, now);
        let mut progress: Vec<Progress> = self.conf.members().into_iter().map(begin).collect();
        if !self.conf.contains(id) {
            progress.push(begin(id));
            progress.sort_by_key(|progress| progress.id);
        }
        let first_own = last + 1;
        self.role = Role::Leader(Box::new(Leader {
            progress,
            first_own,
            must_look: true,
            to_tell: 0,
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            transfer: None,
            has_abdicated: false,
            reads: Reads::default(),
            uncommitted_bytes: 0,
            // Somebody before may have proposed a change; it is settled when the no-op is applied.
            pending_conf_index: first_own,
            removed_at: None,
        }));
        self.leader = id;
        self.reset_election_timeout();
        let index = self.append_own(EntryKind::Normal, bytes::Bytes::new());
        debug_assert_eq!(index, first_own, "the no-op is the first entry of the term");
        self.note_own_progress();
    }

    /// The leader's own log, as far as it is durable, counts like a follower's.
    pub(crate) fn note_own_progress(&mut self) {
        let (last, id, now) = (self.log.last_index(), self.config.id, self.now);
        let durable = match mutant!("leader_counts_unsynced") {
            true => last,
            false => self.log.persisted(),
        };
        let Some(own) = self.role.leader_mut().and_then(|leader| leader.get_mut(id)) else {
            return;
        };
        own.matched = durable;
        own.next = last + 1;
        own.hear(now);
        if !matches!(own.state, ProgressState::Replicate { .. }) {
            own.become_replicate();
            own.next = last + 1;
        }
    }
}
