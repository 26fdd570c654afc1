//! Requests: whether this peer may take them, and how they get into its log.

use raft::{
    ConfChange, ConfChangeKind, ConfChangeSingle, ProposeError, ReadError, TransferError,
    Transition,
};
use std::time::Duration;
use types::{Bytes, Peer as Member, PeerId, PeerRole, RegionEpoch, RegionError};

use super::{Peer, Read};
use crate::{
    command::{AdminCommand, EpochAndPeers, Payload, refuse_split},
    store::Token,
};

/// When somebody whom a full queue has refused may come again.
const BUSY: Duration = Duration::from_millis(50);

/// What a request is refused with.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// This, as it is.
    Error(RegionError),
    /// The region has changed; the store knows what lies there now.
    Epoch,
}

impl From<RegionError> for Refusal {
    fn from(error: RegionError) -> Refusal {
        Refusal::Error(error)
    }
}

type Taken = Result<(), Refusal>;

impl Peer {
    /// Proposes a write whose keys lie between `first` and `last`.
    pub(crate) fn write(
        &mut self,
        version: u64,
        (first, last): (&Bytes, &Bytes),
        command: Bytes,
        token: Token,
    ) -> Taken {
        self.check_leads()?;
        if version != self.region.epoch.version {
            return Err(Refusal::Epoch);
        }
        for key in [first, last] {
            if !self.region.range.contains(key) {
                let region = Box::new(self.region.clone());
                return Err(RegionError::KeyNotInRegion { key: key.clone(), region }.into());
            }
        }
        let data = Payload::Write { version, command }.encode();
        let result = self.node.propose(data);
        self.proposed(result, token)
    }

    /// Proposes a split.
    pub(crate) fn split(
        &mut self,
        epoch: RegionEpoch,
        children: Vec<crate::command::SplitChild>,
        token: Token,
    ) -> Taken {
        self.check_leads()?;
        if epoch != self.region.epoch {
            return Err(Refusal::Epoch);
        }
        if let Some(reason) = refuse_split(&self.region.range, self.region.peers.len(), &children) {
            return Err(self.invalid(reason).into());
        }
        let command = AdminCommand::Split { children };
        let result = self.node.propose(Payload::Admin { epoch, command }.encode());
        if let Ok((index, _)) = result {
            self.splitting = index;
        }
        self.proposed(result, token)
    }

    /// Proposes that the log is not needed up to `index`. Nobody waits for it; if the core refuses it now, it is proposed
    /// again when the log is looked at next.
    pub(crate) fn compact_log(&mut self, index: u64) {
        let command = AdminCommand::CompactLog { index };
        let payload = Payload::Admin { epoch: self.region.epoch, command };
        if self.node.propose(payload.encode()).is_ok() {
            self.compacting = index;
        }
    }

    /// Proposes that every replica is hashed. Nobody waits for it.
    pub(crate) fn compute_hash(&mut self) {
        let payload =
            Payload::Admin { epoch: self.region.epoch, command: AdminCommand::ComputeHash };
        let _ = self.node.propose(payload.encode());
    }

    /// Proposes that every replica compares with the leader's hash. If the core refuses it now, they don't this time.
    pub(crate) fn verify_hash(&mut self, index: u64, hash: u64) {
        let command = AdminCommand::VerifyHash { index, hash };
        let _ = self.node.propose(Payload::Admin { epoch: self.region.epoch, command }.encode());
    }

    /// Proposes that the members become `changes`: who is named there has that role afterwards, or is gone.
    ///
    /// A voter without members and log promises nothing, so that a group could be stranded whose majority has none. Who
    /// is to vote is therefore a learner first, until it has what the log begins with; a single change that asks for a
    /// new voter adds the learner, and promotes it when it is asked for again.
    pub(crate) fn change_members(
        &mut self,
        epoch: RegionEpoch,
        changes: &[(Option<PeerRole>, Member)],
        token: Token,
    ) -> Taken {
        self.check_leads()?;
        if epoch != self.region.epoch {
            return Err(Refusal::Epoch);
        }
        let mut singles = Vec::new();
        for (role, member) in changes {
            let kind = match role {
                Some(PeerRole::Learner) => ConfChangeKind::AddLearner,
                Some(_) if self.may_vote(member) => ConfChangeKind::AddVoter,
                Some(_) if changes.len() == 1 && self.find_member(member).is_none() => {
                    ConfChangeKind::AddLearner
                }
                Some(_) if self.find_member(member).is_none() => {
                    let reason = "who is to vote after a joint change is a learner before";
                    return Err(self.invalid(reason).into());
                }
                Some(_) => {
                    let reason = "who is to vote has not caught up yet";
                    return Err(self.busy(reason).into());
                }
                None => ConfChangeKind::Remove,
            };
            let votes = self.find_member(member).is_some_and(|peer| peer.role != PeerRole::Learner);
            if kind == ConfChangeKind::Remove && votes && 1 < changes.len() {
                let reason = "a voter is demoted by a joint change, and removed as a learner";
                return Err(self.invalid(reason).into());
            }
            let neighbour = self.region.peer_on(member.store_id);
            if kind != ConfChangeKind::Remove && neighbour.is_some_and(|peer| peer.id != member.id)
            {
                return Err(self.invalid("the store has a peer of the region").into());
            }
            singles.push(ConfChangeSingle { kind, id: member.id.0 });
        }
        let peers = changes.iter().map(|(_, member)| *member).collect();
        let context = EpochAndPeers { epoch, peers }.encode();
        let change = ConfChange { transition: Transition::Auto, changes: singles, context };
        let result = self.node.propose_conf_change(change);
        self.proposed(result, token)
    }

    fn find_member(&self, member: &Member) -> Option<&Member> {
        self.region.peers.iter().find(|peer| peer.id == member.id)
    }

    /// Whether a member has what the log begins with: then the log can bring it the rest.
    fn may_vote(&self, member: &Member) -> bool {
        let status = self.node.status();
        let matched = |peer: &raft::PeerStatus| {
            peer.id == member.id.0 && status.first_index <= peer.matched + 1
        };
        self.find_member(member).is_some() && status.peers.iter().any(matched)
    }

    /// Asks whether a read may see the state, and from which index on.
    pub(crate) fn read(&mut self, version: u64, token: Token, replica_read: bool) -> Taken {
        if !replica_read {
            self.check_leads()?;
        }
        if version != self.region.epoch.version {
            return Err(Refusal::Epoch);
        }
        match self.node.read_index(token.0) {
            Ok(()) => {
                self.reads.insert(token.0, Read { token, version, term: 0 });
                Ok(())
            }
            Err(ReadError::NoLeader) => Err(self.not_leader().into()),
            Err(ReadError::NotReady) => {
                Err(self.busy("nothing is committed in this term yet").into())
            }
            Err(ReadError::Busy) => Err(self.busy("too many reads wait").into()),
        }
    }

    /// Hands the leadership over.
    pub(crate) fn transfer_leader(&mut self, to: PeerId) -> Taken {
        self.check_leads()?;
        self.node.transfer_leader(to.0).map_err(|error| match error {
            TransferError::NoLeader => self.not_leader().into(),
            TransferError::NotVoter { .. } => self.invalid("only a voter can lead").into(),
        })
    }

    pub(crate) fn check_leads(&self) -> Taken {
        match self.leads() && !self.is_removed {
            true => Ok(()),
            false => Err(self.not_leader().into()),
        }
    }

    /// Whether it still leads in this term.
    pub(crate) fn check_leads_in(&self, term: u64) -> Taken {
        self.check_leads()?;
        match self.node.term() == term {
            true => Ok(()),
            false => Err(self.not_leader().into()),
        }
    }

    fn proposed(&mut self, result: Result<(u64, u64), ProposeError>, token: Token) -> Taken {
        let error = match result {
            Ok((index, term)) => {
                self.proposals.insert((index, term), token);
                return Ok(());
            }
            Err(error) => error,
        };
        let region = self.region_id();
        Err(match error {
            ProposeError::NotLeader { .. } => self.not_leader().into(),
            ProposeError::TooLarge { bytes, .. } => {
                RegionError::RaftEntryTooLarge { region, size: bytes as u64 }.into()
            }
            ProposeError::TransferInProgress => {
                self.busy("the leadership is being transferred").into()
            }
            ProposeError::Busy { .. } => {
                self.busy("too many proposals are not committed yet").into()
            }
            ProposeError::ConfChangePending => {
                self.busy("a change of the members is under way").into()
            }
            ProposeError::ConfChangeInvalid(reason) => self.invalid(reason).into(),
        })
    }

    pub(crate) fn invalid(&self, reason: &str) -> RegionError {
        RegionError::Invalid { region: self.region_id(), reason: reason.to_owned() }
    }

    fn busy(&self, reason: &str) -> RegionError {
        let reason = format!("region {}: {reason}", self.region_id());
        RegionError::ServerIsBusy { reason, retry_after: BUSY }
    }
}
