//! Transfer of the leadership (thesis 3.10): the leader takes no proposals, waits until its successor has the whole
//! log, and asks it to campaign at once, without pre-vote; voters don't wait for the leader's silence. What does not
//! succeed within an election timeout is abandoned.

use types::marks::sometimes;

use crate::{
    election::Campaign,
    error::{Error, TransferError},
    message::MessageBody,
    node::{Node, Rng},
    progress::ProgressState,
    role::{Role, Transfer},
    storage::Storage,
};

impl<S: Storage, R: Rng> Node<S, R> {
    /// Asks that `target` lead. A follower passes that on to its leader. A transfer to the leader itself ends one that
    /// is under way; one to somebody else replaces it. Whether it succeeds shows in [`Ready::role`](crate::Ready).
    pub fn transfer_leader(&mut self, target: u64) -> Result<(), TransferError> {
        let result = self.begin_transfer(target);
        self.check_invariants();
        result
    }

    fn begin_transfer(&mut self, target: u64) -> Result<(), TransferError> {
        let id = self.config.id;
        let is_voter = self.conf.voters.contains(&target);
        let Role::Leader(leader) = &mut self.role else {
            if self.leader == 0 {
                return Err(TransferError::NoLeader);
            }
            self.send(self.leader, MessageBody::TransferLeader { target });
            return Ok(());
        };
        if target == id {
            leader.transfer = None;
            return Ok(());
        }
        if !is_voter {
            return Err(TransferError::NotVoter { target });
        }
        if leader.transfer.as_ref().is_some_and(|transfer| transfer.target == target) {
            return Ok(()); // it is under way
        }
        sometimes!("raft: a transfer begins");
        leader.transfer = Some(Transfer { target, elapsed: 0 });
        leader.must_look = true;
        // It may wait for a sign of life, or for entries that were lost on their way: look now.
        let last = self.log.last_index();
        if let Some(progress) = leader.get_mut(target) {
            let lacks_entries = progress.matched < last;
            match &mut progress.state {
                ProgressState::Probe { is_waiting } => *is_waiting = false,
                ProgressState::Replicate { must_ask, .. } => *must_ask |= lacks_entries,
                ProgressState::Snapshot { .. } => {}
            }
        }
        self.drop_lease();
        self.finish_transfer(target);
        Ok(())
    }

    /// `peer` has caught up further: if it is the successor and has everything, it may campaign.
    pub(crate) fn finish_transfer(&mut self, peer: u64) {
        let last = self.log.last_index();
        let Role::Leader(leader) = &mut self.role else { return };
        let is_ready = leader.transfer.as_ref().is_some_and(|transfer| transfer.target == peer)
            && leader.get(peer).is_some_and(|progress| progress.matched == last);
        if is_ready {
            leader.has_abdicated = true;
            self.send(peer, MessageBody::TimeoutNow);
        }
    }

    pub(crate) fn tick_transfer(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        transfer.elapsed += 1;
        if self.config.election_ticks <= transfer.elapsed {
            sometimes!("raft: a transfer is abandoned");
            leader.transfer = None;
        }
    }

    /// A follower passes on that somebody wants `target` to lead.
    pub(crate) fn on_transfer_leader(&mut self, from: u64, target: u64) -> Result<(), Error> {
        if !self.conf.contains(from) {
            return Err(Error::UnknownPeer { from });
        }
        if matches!(self.role, Role::Leader(_)) {
            // Who asked is told by what happens.
            let _ = self.begin_transfer(target);
        }
        Ok(())
    }

    pub(crate) fn on_timeout_now(&mut self, _from: u64) -> Result<(), Error> {
        self.start_campaign(Campaign::Transfer);
        Ok(())
    }
}
