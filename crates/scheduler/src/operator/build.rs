//! How a change becomes steps.
//!
//! A peer that leads does not go before another leads. A peer that comes does not vote before it has its data, and one
//! that goes does not go before the new one votes; save in the style [`Direct`](ChangeStyle::Direct), see there.

use types::{
    Peer, PeerId, PeerRole, StoreId,
    marks::{mutant, sometimes},
};

use super::{Change, Plan, Step};
use crate::{
    LogPosition,
    cluster::{Liveness, Picture, RegionInfo, is_joint},
    config::ChangeStyle,
};

/// What an operator will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    /// What must be durable before anybody sees the ids in it.
    pub(crate) rests_on: LogPosition,
}

impl Plan {
    /// Whether an id for a new peer is needed.
    pub(crate) fn needs_id(&self, region: &RegionInfo) -> bool {
        match self.change {
            Change::Add { store } | Change::Replace { to: store, .. } => {
                region.region.peer_on(store).is_none()
            }
            _ => false,
        }
    }
}

/// The steps of a plan. `new` is the id for a new peer. `None`: the region is not in a state in which it can be done.
pub(crate) fn build(
    plan: &Plan,
    region: &RegionInfo,
    picture: &Picture<'_>,
    new: PeerId,
) -> Option<Vec<Step>> {
    let peer_on = |store| region.region.peer_on(store).copied();
    let style = picture.config.change_style;
    if region.is_joint() && !matches!(plan.change, Change::LeaveJoint) {
        return None;
    }
    match plan.change {
        Change::Add { store } => {
            let peer = new_peer(region, store, new)?;
            Some(match style {
                ChangeStyle::Direct => vec![Step::AddPeer { peer }],
                ChangeStyle::Joint | ChangeStyle::OneByOne => {
                    vec![Step::AddLearner { peer }, Step::PromoteLearner { peer }]
                }
            })
        }
        Change::Promote { store } => {
            let peer = peer_on(store).filter(|peer| peer.role == PeerRole::Learner)?;
            Some(vec![Step::PromoteLearner { peer }])
        }
        Change::Remove { store } => {
            let peer = peer_on(store)?;
            let mut steps = Vec::new();
            if region.is_led_by(store) && !mutant!("leaders_are_removed") {
                let to = picture.best_leader(region, store)?;
                steps.push(Step::TransferLeader { from: store, to });
            }
            steps.push(Step::RemovePeer { peer });
            Some(steps)
        }
        Change::Replace { from, to } => replace(region, picture, from, to, new),
        Change::TransferLeader { to } => {
            let from = region.leader?.store_id;
            let voter = peer_on(to).filter(|peer| peer.role != PeerRole::Learner);
            (voter.is_some() && from != to).then(|| vec![Step::TransferLeader { from, to }])
        }
        Change::LeaveJoint => {
            let changing = |role| region.region.peers.iter().filter(move |peer| peer.role == role);
            let mut steps = Vec::new();
            let leaving = changing(PeerRole::DemotingVoter);
            if let Some(leader) = leaving.map(|peer| peer.store_id).find(|&s| region.is_led_by(s)) {
                sometimes!("a leader that loses its vote is found in a joint state");
                let to = picture.best_leader(region, leader)?;
                steps.push(Step::TransferLeader { from: leader, to });
            }
            let peers = region.region.peers.iter().filter(|peer| is_joint(peer.role)).count();
            steps.push(Step::LeaveJoint { peers: peers as u64 });
            Some(steps)
        }
        Change::Split { ref keys } => {
            let inside = |key: &types::Bytes| {
                region.region.range.contains(key) && region.region.range.start != key
            };
            let in_order = keys.windows(2).all(|pair| pair[0] < pair[1]);
            (in_order && keys.iter().all(inside)).then(|| vec![Step::Split { keys: keys.clone() }])
        }
    }
}

fn replace(
    region: &RegionInfo,
    picture: &Picture<'_>,
    from: StoreId,
    to: StoreId,
    new: PeerId,
) -> Option<Vec<Step>> {
    let old = region.region.peer_on(from).copied()?;
    if from == to || old.role != PeerRole::Voter {
        return None;
    }
    let mut steps = Vec::new();
    let style = picture.config.change_style;
    let promote = match region.region.peer_on(to) {
        Some(learner) if learner.role == PeerRole::Learner => *learner,
        Some(_) => return None,
        None => {
            let peer = new_peer(region, to, new)?;
            steps.push(match style {
                ChangeStyle::Direct => Step::AddPeer { peer },
                ChangeStyle::Joint | ChangeStyle::OneByOne => Step::AddLearner { peer },
            });
            peer
        }
    };
    let leads = region.is_led_by(from) && !mutant!("leaders_are_removed");
    // The new voter can lead as well; the others are preferred because they can do so now.
    let next_leader = picture.best_leader(region, from);
    let transfer = |to| Step::TransferLeader { from, to };
    let is_dead =
        picture.health.is_lost(region, &old) || picture.health.liveness(from) != Liveness::Serving;
    let remove = Step::RemovePeer { peer: old };
    match style {
        ChangeStyle::Joint => {
            steps.extend(next_leader.filter(|_| leads).map(transfer));
            steps.push(Step::EnterJoint { promote, demote: old });
            steps.extend((leads && next_leader.is_none()).then(|| transfer(to)));
            steps.push(Step::LeaveJoint { peers: 2 });
            steps.push(remove);
        }
        ChangeStyle::OneByOne => {
            steps.push(Step::PromoteLearner { peer: promote });
            steps.extend(leads.then(|| transfer(next_leader.unwrap_or(to))));
            steps.push(remove);
        }
        // A voter without data beside one that does not answer: that may be no majority. So the dead one goes first.
        ChangeStyle::Direct if is_dead => steps.insert(0, remove),
        ChangeStyle::Direct => {
            steps.extend(leads.then(|| transfer(next_leader.unwrap_or(to))));
            steps.push(remove);
        }
    }
    if mutant!("the_old_goes_before_the_new_comes") {
        let place = steps.iter().position(|step| matches!(step, Step::RemovePeer { .. }))?;
        let (remove, transfer) = (steps.remove(place), next_leader.filter(|_| leads).map(transfer));
        steps = transfer.into_iter().chain([remove, Step::AddLearner { peer: promote }]).collect();
        steps.push(Step::PromoteLearner { peer: promote });
    }
    Some(steps)
}

/// A new peer, if the store has none yet.
fn new_peer(region: &RegionInfo, store: StoreId, id: PeerId) -> Option<Peer> {
    let role = PeerRole::Voter;
    region.region.peer_on(store).is_none().then_some(Peer { id, store_id: store, role })
}
