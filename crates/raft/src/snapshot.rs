//! Snapshots (Raft paper, section 7): the follower's side, and what becomes of one that was sent. When to send one is
//! replication's business: when the entries that a follower needs are gone.

use types::marks::{mutant, sometimes};

use crate::{
    entry::Snapshot,
    error::Error,
    node::{Node, Rng},
    progress::ProgressState,
    ready::SnapshotStatus,
    role::Role,
    storage::Storage,
};

impl<S: Storage, R: Rng> Node<S, R> {
    pub(crate) fn on_snapshot(&mut self, from: u64, snapshot: Snapshot) -> Result<(), Error> {
        self.restore(snapshot)?;
        // Everything up to the commit index is the leader's log; old or new, that is what it has to know.
        self.answer_append(from, self.log.committed(), None)
    }

    /// Takes a snapshot in place of the log, if it is newer than what is committed here. Returns whether it was.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) -> Result<bool, Error> {
        let meta = &snapshot.meta;
        if meta.index <= self.log.agreed() {
            return Ok(false);
        }
        if self.log.has(meta.index, meta.term)? {
            // The entries are all here; they need only be applied.
            sometimes!("raft: a snapshot says only that entries are committed");
            self.hear_commit(meta.index);
            return Ok(false);
        }
        sometimes!("raft: a snapshot replaces a log");
        if !mutant!("snapshot_keeps_old_conf") {
            self.conf = meta.conf.clone();
        }
        self.log.restore(snapshot);
        Ok(true)
    }

    /// The storage has a snapshot that it did not have: the followers that wait for one are looked at with the next
    /// Ready.
    pub fn snapshot_made(&mut self) {
        let first = self.log.first_index();
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in &mut leader.progress {
            let needs_one = progress.needs_snapshot || progress.next < first;
            if let ProgressState::Probe { is_waiting } = &mut progress.state
                && needs_one
            {
                *is_waiting = false;
            }
        }
        leader.must_look = true;
        self.check_invariants();
    }

    pub(crate) fn on_snapshot_sent(&mut self, peer: u64, status: SnapshotStatus) {
        let Some(progress) = self.role.leader_mut().and_then(|leader| leader.get_mut(peer)) else {
            return;
        };
        let ProgressState::Snapshot { index, .. } = progress.state else { return };
        // Its own answer is on its way and says more; or it is gone, and must not be hurried.
        match status {
            SnapshotStatus::Finished => progress.become_probe(index + 1, true),
            SnapshotStatus::Failed => progress.become_probe(progress.matched + 1, true),
        }
    }
}
