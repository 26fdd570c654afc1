//! Doors for tests: decisions one by one, and what a store does when it is told to.

use std::{collections::BTreeMap, time::Duration};

use runtime::Rng;
use types::{Peer, PeerId, PeerRole, RegionId, StoreId};

use crate::{
    Instruction, OperatorInfo, PeerChange, PeerChangeKind, Refusal, RegionInfo, Scheduler, Status,
    balance::{balance_leader, balance_region},
    checker,
    cluster::{Load, is_joint},
    operator::{Draft, Operator, build},
};

/// Which decision is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What to do about the replicas of a region.
    Replicas(RegionId),
    /// Which peer to move.
    BalanceRegion,
    /// Which leader to move.
    BalanceLeader,
}

/// What a store is pretended to hold, in place of the regions that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pretended {
    /// The sum of the sizes of its regions in bytes.
    pub weight: u64,
    /// Regions that it leads.
    pub leaders: u64,
}

/// Answers a question from the present picture; changes nothing. A new peer has the id 0.
pub fn decide(
    scheduler: &Scheduler,
    question: Question,
    pretended: &BTreeMap<StoreId, Pretended>,
    rng: &mut Rng,
) -> Option<OperatorInfo> {
    let mut picture = scheduler.picture();
    let load = |held: &Pretended| Load {
        weight: held.weight.cast_signed(),
        leaders: held.leaders.cast_signed(),
        ..Load::default()
    };
    picture.pretend(&pretended.iter().map(|(id, held)| (*id, load(held))).collect());
    let plan = match question {
        Question::Replicas(id) => checker::check(&picture, picture.regions.get(id)?),
        Question::BalanceRegion => balance_region(&picture, rng),
        Question::BalanceLeader => balance_leader(&picture, rng),
    }?;
    let region = picture.regions.get(plan.region)?;
    let steps = build(&plan, region, &picture, PeerId(0))?;
    let draft = Draft { steps, rests_on: crate::LogPosition::default() };
    let operator = Operator::new(&plan, draft, region.region.epoch, Duration::ZERO);
    Some(operator.info(Status::Running))
}

/// Sets the time without letting anything happen by itself.
pub fn set_time(scheduler: &mut Scheduler, now: Duration) {
    scheduler.set_placement_time(now);
}

/// Why a store may get no peer, give none away, and get no leader.
pub fn refusals(scheduler: &Scheduler, store: StoreId) -> [Option<Refusal>; 3] {
    let picture = scheduler.picture();
    [picture.refuses_peer(store), picture.refuses_removal(store), picture.refuses_leader(store)]
}

/// What a region becomes when its leader does what it is told, at once. `new_peers_lag`: whether a new peer has no data
/// yet. Splits are not done here.
///
/// # Errors
/// Why a leader refuses. Nothing has changed then.
pub fn execute(
    info: &mut RegionInfo,
    instruction: &Instruction,
    new_peers_lag: bool,
) -> Result<(), &'static str> {
    let was_joint = info.is_joint();
    let done = match instruction {
        Instruction::ChangePeer(_) if was_joint => Err("the region is in a joint state"),
        Instruction::ChangePeer(change) => change_peer(info, *change, new_peers_lag),
        Instruction::ChangePeers(changes) if changes.is_empty() => leave_joint(info),
        Instruction::ChangePeers(_) if was_joint => Err("the region is in a joint state already"),
        Instruction::ChangePeers(changes) => {
            let mut changed = info.clone();
            changes.iter().try_for_each(|change| enter_joint(&mut changed, *change))?;
            *info = changed;
            Ok(())
        }
        Instruction::TransferLeader { to } => {
            let peer = info.region.peers.iter().find(|peer| peer.id == to.id);
            let peer = peer.ok_or("there is no such peer")?;
            let votes = matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter);
            if !votes || info.pending_peers.iter().any(|pending| pending.id == peer.id) {
                return Err("the peer can't lead");
            }
            info.leader = Some(*peer);
            Ok(())
        }
        Instruction::Split { .. } => Err("splits are not done here"),
    };
    let leader = info.leader.map(|leader| leader.id);
    info.leader = info.region.peers.iter().find(|peer| Some(peer.id) == leader).copied();
    done
}

fn change_peer(
    info: &mut RegionInfo,
    change: PeerChange,
    new_peers_lag: bool,
) -> Result<(), &'static str> {
    let PeerChange { kind, peer } = change;
    let is_leader = info.leader.is_some_and(|leader| leader.id == peer.id);
    let there = info.region.peers.iter().position(|known| known.id == peer.id);
    let is_taken = info.region.peer_on(peer.store_id).is_some_and(|known| known.id != peer.id);
    match (kind, there) {
        (PeerChangeKind::Remove, None) => return Err("there is no such peer"),
        (PeerChangeKind::Remove, Some(_)) if is_leader => return Err("the peer leads"),
        (PeerChangeKind::Remove, Some(place)) => {
            info.region.peers.remove(place);
            info.pending_peers.retain(|pending| pending.id != peer.id);
            info.down_peers.retain(|(down, _)| down.id != peer.id);
        }
        (PeerChangeKind::Voter | PeerChangeKind::Learner, None) => {
            if is_taken {
                return Err("the store has another peer");
            }
            info.region.peers.push(peer);
            info.pending_peers.extend(new_peers_lag.then_some(peer));
        }
        (PeerChangeKind::Voter, Some(place)) => {
            let known = &mut info.region.peers[place];
            if known.role == PeerRole::Voter {
                return Err("it is a voter already");
            }
            known.role = PeerRole::Voter;
        }
        (PeerChangeKind::Learner, Some(_)) => return Err("it is there already"),
    }
    info.region.epoch.conf_ver += 1;
    Ok(())
}

fn enter_joint(info: &mut RegionInfo, change: PeerChange) -> Result<(), &'static str> {
    let known = info.region.peers.iter_mut().find(|known| known.id == change.peer.id);
    let known = known.ok_or("there is no such peer")?;
    known.role = match (change.kind, known.role) {
        (PeerChangeKind::Voter, PeerRole::Learner) => PeerRole::IncomingVoter,
        (PeerChangeKind::Learner, PeerRole::Voter) => PeerRole::DemotingVoter,
        _ => return Err("the peer has another role"),
    };
    info.region.epoch.conf_ver += 1;
    Ok(())
}

fn leave_joint(info: &mut RegionInfo) -> Result<(), &'static str> {
    let leads = |peer: &Peer| info.leader.is_some_and(|leader| leader.id == peer.id);
    let peers = &info.region.peers;
    if !info.is_joint() {
        return Err("the region is in no joint state");
    }
    if peers.iter().any(|peer| peer.role == PeerRole::DemotingVoter && leads(peer)) {
        return Err("the leader would lose its vote");
    }
    for peer in info.region.peers.iter_mut().filter(|peer| is_joint(peer.role)) {
        peer.role = match peer.role {
            PeerRole::IncomingVoter => PeerRole::Voter,
            _ => PeerRole::Learner,
        };
        info.region.epoch.conf_ver += 1;
    }
    Ok(())
}
