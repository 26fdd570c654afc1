//! What must hold of one node after each of its verbs. Checked in debug builds and with the feature `sim`; a broken
//! one stops the replica before it can do harm.

use crate::{
    node::{Node, Rng},
    storage::Storage,
};
#[cfg(any(debug_assertions, feature = "sim"))]
use crate::{progress::ProgressState, ready::RoleKind, role::Role};

/// What the last check has seen, for rules about steps from one state to the next.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    #[cfg(any(debug_assertions, feature = "sim"))]
    last: Option<Seen>,
}

#[cfg(any(debug_assertions, feature = "sim"))]
#[derive(Clone, Copy, Debug)]
struct Seen {
    term: u64,
    vote: u64,
    leader: u64,
    committed: u64,
    applied: u64,
    role: RoleKind,
}

impl<S: Storage, R: Rng> Node<S, R> {
    /// Stops if an invariant is broken.
    #[cfg(any(debug_assertions, feature = "sim"))]
    pub(crate) fn check_invariants(&mut self) {
        self.check_log();
        self.check_role();
        self.check_step();
    }

    /// Without debug assertions and the feature `sim` nothing is checked.
    #[cfg(not(any(debug_assertions, feature = "sim")))]
    pub(crate) fn check_invariants(&mut self) {}

    #[cfg(any(debug_assertions, feature = "sim"))]
    fn check_log(&self) {
        let log = &self.log;
        let (applied, delivered, committed) = (log.applied(), log.delivered(), log.committed());
        let (persisted, handed, last) = (log.persisted(), log.handed(), log.last_index());
        assert!(applied <= delivered, "applied {applied} <= delivered {delivered}");
        assert!(delivered <= committed, "delivered {delivered} <= committed {committed}");
        assert!(committed <= last, "committed {committed} <= last {last}");
        assert!(persisted <= handed, "persisted {persisted} <= handed {handed}");
        assert!(handed <= last, "handed {handed} <= last {last}");
        if let Some(change) = log.unsynced_change() {
            assert!(committed < change, "committed {committed} < change {change} is not synced");
        }
        if !log.has_snapshot_under_way() {
            let first = log.first_index();
            assert!(first <= applied + 1, "compacted up to {first}, beyond applied {applied}");
        }
        if let Ok(term) = log.last_term() {
            assert!(term <= self.term, "term {term} of the log <= term {}", self.term);
        }
    }

    #[cfg(any(debug_assertions, feature = "sim"))]
    fn check_role(&self) {
        let id = self.config.id;
        assert!(self.vote == 0 || 0 < self.term, "nobody votes in term 0");
        match &self.role {
            Role::Follower => {
                assert!(self.leader != id, "a follower does not follow itself");
            }
            Role::PreCandidate(_) => assert_eq!(self.leader, 0, "a candidate has no leader"),
            Role::Candidate(_) => {
                assert_eq!(self.leader, 0, "a candidate has no leader");
                assert_eq!(self.vote, id, "a candidate has voted for itself");
            }
            Role::Leader(leader) => {
                assert_eq!(
                    (self.leader, self.vote),
                    (id, id),
                    "a leader was elected by itself too"
                );
                let last = self.log.last_index();
                assert!(leader.first_own <= last, "a leader's log has an entry of its term");
                assert!(
                    leader.progress.windows(2).all(|pair| pair[0].id < pair[1].id),
                    "a leader knows each member once"
                );
                for member in self.conf.members() {
                    assert!(leader.get(member).is_some(), "a leader knows member {member}");
                }
                for progress in &leader.progress {
                    let (matched, next) = (progress.matched, progress.next);
                    assert!(matched < next, "matched {matched} < next {next}");
                    assert!(matched <= last, "matched {matched} <= last {last}");
                    let is_snapshot = matches!(progress.state, ProgressState::Snapshot { .. });
                    assert!(is_snapshot || next <= last + 1, "next {next} <= last {last} + 1");
                }
            }
        }
    }

    #[cfg(any(debug_assertions, feature = "sim"))]
    fn check_step(&mut self) {
        let now = Seen {
            term: self.term,
            vote: self.vote,
            leader: self.leader,
            committed: self.log.committed(),
            applied: self.log.applied(),
            role: self.role.kind(),
        };
        if let Some(last) = self.audit.last.replace(now) {
            assert!(last.term <= now.term, "the term {} goes back to {}", last.term, now.term);
            assert!(last.committed <= now.committed, "the commit index goes back");
            assert!(last.applied <= now.applied, "what is applied goes back");
            if last.term == now.term {
                let kept = last.vote == 0 || last.vote == now.vote;
                assert!(kept, "a vote for {} becomes one for {}", last.vote, now.vote);
                let one = last.leader == 0 || now.leader == 0 || last.leader == now.leader;
                assert!(one, "term {} has leaders {} and {}", now.term, last.leader, now.leader);
                let led = last.role == RoleKind::Leader;
                assert!(
                    !led || matches!(now.role, RoleKind::Leader | RoleKind::Follower),
                    "a leader becomes nothing but a follower"
                );
            }
            // Only in a new term of its own is a node a candidate: a pre-vote changes no term.
            if now.role == RoleKind::PreCandidate && last.role != RoleKind::PreCandidate {
                assert_eq!(last.term, now.term, "a pre-vote changes the term");
            }
        }
    }
}
