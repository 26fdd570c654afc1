//! Steps: when one is done, when it may be asked for, and what is asked.
//!
//! Whether a step is done is seen in the region's report alone, so that it does not matter who did it, when, or how
//! often it was asked for. `conf_ver` grows by one for each peer that a change concerns, as in TiKV; an operator whose
//! region has changed more often than its own steps explain is not alone with it.

use std::fmt;

use types::{
    Bytes, Peer, PeerRole, RegionEpoch, StoreId,
    marks::{mutant, sometimes},
};

use super::{Instruction, PeerChangeKind, peer_by_id};
use crate::cluster::{Health, Liveness, RegionInfo, StoreState, is_joint, is_pending};

/// One step of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A store gets a peer that only receives.
    AddLearner {
        /// The new peer.
        peer: Peer,
    },
    /// A store gets a peer that votes from the beginning.
    AddPeer {
        /// The new peer.
        peer: Peer,
    },
    /// A learner that has caught up becomes a voter.
    PromoteLearner {
        /// The learner.
        peer: Peer,
    },
    /// A peer goes.
    RemovePeer {
        /// The peer.
        peer: Peer,
    },
    /// Another store leads.
    TransferLeader {
        /// The store that leads now.
        from: StoreId,
        /// The store that shall.
        to: StoreId,
    },
    /// A learner that has caught up and a voter begin to change places.
    EnterJoint {
        /// The learner.
        promote: Peer,
        /// The voter.
        demote: Peer,
    },
    /// That change comes to its end.
    LeaveJoint {
        /// How many peers change by it.
        peers: u64,
    },
    /// The region becomes several.
    Split {
        /// Where; none: in the middle.
        keys: Vec<Bytes>,
    },
}

/// Whether a step may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Given,
    /// Not while the region is in this state, which will pass.
    Wait,
    /// The state will not pass; says why.
    Never(&'static str),
}

impl Step {
    /// Whether it changes who has a replica.
    pub(super) fn changes_peers(&self) -> bool {
        !matches!(self, Step::TransferLeader { .. } | Step::Split { .. })
    }

    /// Whether a report shows that it is done. `origin` is the region's epoch when its operator began.
    pub(super) fn is_done(&self, region: &RegionInfo, origin: RegionEpoch) -> bool {
        let role = |peer: &Peer| peer_by_id(region, peer.id).map(|peer| peer.role);
        match self {
            Step::AddLearner { peer } => match role(peer) {
                None => false,
                Some(PeerRole::Learner) => !is_pending(region, peer),
                Some(_) => true,
            },
            Step::AddPeer { peer } => role(peer).is_some() && !is_pending(region, peer),
            Step::PromoteLearner { peer } => role(peer) == Some(PeerRole::Voter),
            Step::RemovePeer { peer } => role(peer).is_none(),
            Step::TransferLeader { to, .. } => region.is_led_by(*to),
            Step::EnterJoint { promote, demote } => {
                matches!(role(promote), Some(PeerRole::Voter | PeerRole::IncomingVoter))
                    && !matches!(role(demote), Some(PeerRole::Voter | PeerRole::IncomingVoter))
            }
            Step::LeaveJoint { .. } => !region.is_joint(),
            Step::Split { .. } => origin.version < region.region.epoch.version,
        }
    }

    /// By how much a report shows that `conf_ver` has grown through it.
    pub(super) fn conf_ver_changes(&self, region: &RegionInfo) -> u64 {
        let role = |peer: &Peer| peer_by_id(region, peer.id).map(|peer| peer.role);
        match self {
            Step::AddLearner { peer } | Step::AddPeer { peer } => u64::from(role(peer).is_some()),
            Step::PromoteLearner { peer } => {
                u64::from(!matches!(role(peer), None | Some(PeerRole::Learner)))
            }
            Step::RemovePeer { peer } => u64::from(role(peer).is_none()),
            Step::EnterJoint { promote, demote } => {
                u64::from(!matches!(role(promote), None | Some(PeerRole::Learner)))
                    + u64::from(role(demote) != Some(PeerRole::Voter))
            }
            Step::LeaveJoint { peers } if !region.is_joint() => *peers,
            Step::LeaveJoint { .. } | Step::TransferLeader { .. } | Step::Split { .. } => 0,
        }
    }

    /// Whether it may be asked for in the state that a report shows.
    pub(super) fn permission(&self, region: &RegionInfo, health: &Health<'_>) -> Permission {
        let peers = &region.region.peers;
        let voters = || peers.iter().filter(|peer| peer.role != PeerRole::Learner);
        let known = |peer: &Peer| peer_by_id(region, peer.id);
        match self {
            Step::AddLearner { peer } | Step::AddPeer { peer } => {
                if known(peer).is_some() {
                    // It is there and has to catch up. No use in waiting for one that nobody hears of.
                    return match health.liveness(peer.store_id) {
                        Liveness::Down => Permission::Never("the new peer's store is down"),
                        Liveness::Disconnected | Liveness::Serving => Permission::Wait,
                    };
                }
                if region.region.peer_on(peer.store_id).is_some() {
                    return Permission::Never("the store has another peer");
                }
                if !health.is_serving(peer.store_id) {
                    return Permission::Never("the new peer's store is not there");
                }
                let with_it = voters().chain([peer]);
                match self {
                    Step::AddPeer { .. } if !majority_beside(health, region, with_it, peer) => {
                        Permission::Wait
                    }
                    _ => Permission::Given,
                }
            }
            Step::PromoteLearner { peer } => {
                let Some(learner) = known(peer) else {
                    return Permission::Never("the learner is gone");
                };
                becoming_voter(region, health, learner, voters().chain([learner]))
            }
            Step::EnterJoint { promote, demote } => {
                let Some(learner) = known(promote) else {
                    return Permission::Never("the learner is gone");
                };
                if known(demote).is_none_or(|voter| voter.role != PeerRole::Voter) {
                    return Permission::Never("the old peer is no voter any more");
                }
                let afterwards = voters().filter(|voter| voter.id != demote.id).chain([learner]);
                becoming_voter(region, health, learner, afterwards)
            }
            Step::LeaveJoint { .. } => {
                let leader_goes = region.leader.is_some_and(|leader| {
                    peer_by_id(region, leader.id)
                        .is_some_and(|leader| leader.role == PeerRole::DemotingVoter)
                });
                let afterwards = voters().filter(|peer| peer.role != PeerRole::DemotingVoter);
                if leader_goes {
                    Permission::Never("the leader would lose its vote")
                } else if health.has_majority(region, afterwards) {
                    Permission::Given
                } else {
                    Permission::Wait
                }
            }
            Step::RemovePeer { peer } => {
                let Some(peer) = known(peer) else { return Permission::Wait };
                if region.is_led_by(peer.store_id) && !mutant!("leaders_are_removed") {
                    return Permission::Never("the peer leads");
                }
                if is_joint(peer.role) {
                    return Permission::Never("the peer is in a joint change");
                }
                let rest = voters().filter(|voter| voter.id != peer.id);
                if peer.role == PeerRole::Learner
                    || health.has_majority(region, rest)
                    || mutant!("removals_ignore_the_majority")
                {
                    Permission::Given
                } else {
                    sometimes!("a removal waits for a majority");
                    Permission::Wait
                }
            }
            Step::TransferLeader { to, .. } => {
                let voter = region
                    .region
                    .peer_on(*to)
                    .filter(|peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter));
                let Some(voter) = voter else {
                    return Permission::Never("there is no voter to lead");
                };
                if health.is_healthy(region, voter) {
                    Permission::Given
                } else if health.liveness(*to) == Liveness::Serving {
                    Permission::Wait
                } else {
                    Permission::Never("the new leader's store is not there")
                }
            }
            Step::Split { .. } => Permission::Given,
        }
    }

    /// What the leader is asked to do.
    pub(super) fn instruction(&self, region: &RegionInfo) -> Instruction {
        let change = Instruction::change;
        match self {
            Step::AddLearner { peer } => {
                Instruction::ChangePeer(change(PeerChangeKind::Learner, *peer))
            }
            Step::AddPeer { peer } | Step::PromoteLearner { peer } => {
                Instruction::ChangePeer(change(PeerChangeKind::Voter, *peer))
            }
            Step::RemovePeer { peer } => {
                Instruction::ChangePeer(change(PeerChangeKind::Remove, *peer))
            }
            Step::TransferLeader { to, .. } => Instruction::TransferLeader {
                to: *region.region.peer_on(*to).expect("a transfer is permitted to a voter"),
            },
            Step::EnterJoint { promote, demote } => Instruction::ChangePeers(vec![
                change(PeerChangeKind::Voter, *promote),
                change(PeerChangeKind::Learner, *demote),
            ]),
            Step::LeaveJoint { .. } => Instruction::ChangePeers(Vec::new()),
            Step::Split { keys } => Instruction::Split { keys: keys.clone() },
        }
    }
}

/// Whether `learner` may become a voter, one of `afterwards`.
fn becoming_voter<'p>(
    region: &RegionInfo,
    health: &Health<'_>,
    learner: &Peer,
    afterwards: impl IntoIterator<Item = &'p Peer>,
) -> Permission {
    match health.state(learner.store_id) {
        Some(StoreState::Up) => {}
        Some(StoreState::Offline | StoreState::Tombstone) | None => {
            return Permission::Never("the learner's store is on its way out");
        }
    }
    if health.is_lost(region, learner) {
        Permission::Never("the learner's store is down")
    } else if health.is_healthy(region, learner) && health.has_majority(region, afterwards) {
        Permission::Given
    } else {
        Permission::Wait
    }
}

/// Whether `voters` have a majority even while one of them has no data yet.
fn majority_beside<'p>(
    health: &Health<'_>,
    region: &RegionInfo,
    voters: impl IntoIterator<Item = &'p Peer>,
    empty: &Peer,
) -> bool {
    let voters: Vec<_> = voters.into_iter().collect();
    let healthy = voters
        .iter()
        .filter(|voter| voter.id != empty.id && health.is_healthy(region, voter))
        .count();
    voters.len() < 2 * healthy
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AddLearner { peer } => write!(f, "add learner {}@{}", peer.id, peer.store_id),
            Step::AddPeer { peer } => write!(f, "add peer {}@{}", peer.id, peer.store_id),
            Step::PromoteLearner { peer } => {
                write!(f, "promote learner {}@{}", peer.id, peer.store_id)
            }
            Step::RemovePeer { peer } => write!(f, "remove peer {}@{}", peer.id, peer.store_id),
            Step::TransferLeader { from, to } => {
                write!(f, "transfer leader from store {from} to store {to}")
            }
            Step::EnterJoint { promote, demote } => write!(
                f,
                "enter joint state: promote {}@{}, demote {}@{}",
                promote.id, promote.store_id, demote.id, demote.store_id
            ),
            Step::LeaveJoint { .. } => f.write_str("leave joint state"),
            Step::Split { keys } if keys.is_empty() => f.write_str("split in the middle"),
            Step::Split { keys } => write!(f, "split at {} keys", keys.len()),
        }
    }
}
