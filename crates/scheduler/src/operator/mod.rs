//! Operators: what is wanted done to a region, step by step.
//!
//! A decision is a [`Plan`]: one [`Change`] of one region, without ids. It becomes an [`Operator`], a list of steps
//! (`build.rs`), when nothing else is being done to that region (`controller.rs`). The leader of the region is then
//! asked for the next step until its reports say that the step is done. Every step can be asked for twice, and an
//! operator that is forgotten in any step leaves a region that the checkers know how to tidy up.
//!
//! Invariant: no step takes a region's majority away. What a step needs for that is checked against the latest report
//! each time before it is asked for (`step.rs`).

mod build;
mod controller;
mod step;

use std::{collections::BTreeMap, time::Duration};

use types::{
    Bytes, Peer, PeerId, PeerRole, RegionEpoch, RegionId, StoreId,
    marks::{mutant, sometimes},
};

pub(crate) use build::{Draft, build};
pub use controller::Status;
pub(crate) use controller::{Class, Operators};
use step::Permission;
pub use step::Step;

use crate::{
    LogPosition,
    cluster::{Health, Load, RegionInfo},
};

/// One change of one region that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) region: RegionId,
    /// What for, in a word or two.
    pub(crate) desc: &'static str,
    pub(crate) cause: Cause,
    pub(crate) priority: Priority,
    pub(crate) change: Change,
}

/// A change of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One voter more.
    Add {
        /// On which store.
        store: StoreId,
    },
    /// A learner becomes a voter.
    Promote {
        /// On which store.
        store: StoreId,
    },
    /// One peer less.
    Remove {
        /// On which store.
        store: StoreId,
    },
    /// A voter on another store takes the place of one.
    Replace {
        /// The store that has the peer now.
        from: StoreId,
        /// The store that gets one; it may have a learner already.
        to: StoreId,
    },
    /// Another voter leads.
    TransferLeader {
        /// On which store.
        to: StoreId,
    },
    /// A joint change that somebody began comes to its end.
    LeaveJoint,
    /// It becomes several regions.
    Split {
        /// Where, in the form in which keys are stored; none: in the middle.
        keys: Vec<Bytes>,
    },
}

/// Why something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Stores should be equally loaded.
    Balance,
    /// A region should have its replicas.
    Replica,
    /// Somebody has asked for it.
    Admin,
}

impl Cause {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Balance => "balance",
            Cause::Replica => "replica",
            Cause::Admin => "admin",
        }
    }
}

/// What takes the place of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Waits until nothing else is being done to the region.
    Normal,
    /// Takes the place of what is normal.
    High,
}

/// What the leader of a region is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Change one peer: a simple change of the members.
    ChangePeer(PeerChange),
    /// Change several peers at once, by way of a joint state. None: leave that state.
    ChangePeers(Vec<PeerChange>),
    /// Let another voter lead.
    TransferLeader {
        /// That voter.
        to: Peer,
    },
    /// Split the region.
    Split {
        /// Where, in the form in which keys are stored; none: in the middle.
        keys: Vec<Bytes>,
    },
}

/// The change of one peer. Doing it again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// What becomes of it.
    pub kind: PeerChangeKind,
    /// The peer, with the role that it gets.
    pub peer: Peer,
}

/// What becomes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChangeKind {
    /// It is a voter from now on, whether it is new or a learner.
    Voter,
    /// It is a learner from now on, whether it is new or a voter.
    Learner,
    /// It is gone from now on.
    Remove,
}

/// An instruction and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which region.
    pub region: RegionId,
    /// Its epoch as last reported. Whoever finds another one ignores the order.
    pub epoch: RegionEpoch,
    /// Its leader as last reported.
    pub leader: Peer,
    /// What to do.
    pub instruction: Instruction,
}

/// What is being done to a region, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// Which region.
    pub region: RegionId,
    /// What for.
    pub desc: &'static str,
    /// The words on the wire: what it touches, and why it is done.
    pub kinds: Vec<&'static str>,
    /// All of its steps.
    pub steps: Vec<Step>,
    /// How many of them are done.
    pub done: usize,
    /// How it stands.
    pub status: Status,
}

/// What is being done to a region.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) region: RegionId,
    pub(crate) desc: &'static str,
    pub(crate) cause: Cause,
    pub(crate) priority: Priority,
    /// Of the region when this was decided.
    origin: RegionEpoch,
    steps: Vec<Step>,
    done: usize,
    started: Duration,
    /// When to ask for the next step again.
    next_push: Duration,
    /// The ids in it are not shown to anybody before the log is durable up to here.
    rests_on: LogPosition,
}

/// What a report means to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Ask for this.
    Ask(Instruction),
    /// Nothing to ask for now.
    Wait,
    /// It is over.
    Over(Status),
}

impl Operator {
    pub(crate) fn new(plan: &Plan, draft: Draft, origin: RegionEpoch, now: Duration) -> Operator {
        let Draft { steps, rests_on } = draft;
        assert!(!steps.is_empty(), "an operator does something");
        let Plan { region, desc, cause, priority, .. } = *plan;
        let (started, next_push) = (now, now);
        Operator {
            region,
            desc,
            cause,
            priority,
            origin,
            steps,
            done: 0,
            started,
            next_push,
            rests_on,
        }
    }

    /// Whether it changes who has a replica, and not only who leads.
    pub(crate) fn moves_peers(&self) -> bool {
        self.steps.iter().any(Step::changes_peers)
    }

    /// How long it may take.
    fn timeout(&self) -> Duration {
        const MOVE: Duration = Duration::from_secs(10 * 60);
        const TRANSFER: Duration = Duration::from_secs(10);
        if self.moves_peers() { MOVE } else { TRANSFER }
    }

    /// Its words on the wire.
    fn kinds(&self) -> Vec<&'static str> {
        let transfers = self.steps.iter().any(|step| matches!(step, Step::TransferLeader { .. }));
        let mut kinds = Vec::new();
        kinds.extend(transfers.then_some("leader"));
        kinds.extend(self.moves_peers().then_some("region"));
        kinds.push(self.cause.name());
        kinds
    }

    pub(crate) fn info(&self, status: Status) -> OperatorInfo {
        OperatorInfo {
            region: self.region,
            desc: self.desc,
            kinds: self.kinds(),
            steps: self.steps.clone(),
            done: self.done,
            status,
        }
    }

    /// Counts the steps that a report shows to be done, and says what comes next.
    fn judge(&mut self, region: &RegionInfo, health: &Health<'_>) -> Verdict {
        while let Some(step) = self.steps.get(self.done)
            && step.is_done(region, self.origin)
        {
            self.done += 1;
        }
        let Some(step) = self.steps.get(self.done) else { return Verdict::Over(Status::Success) };
        let epoch = region.region.epoch;
        if !mutant!("operators_ignore_the_epoch") {
            if epoch.version != self.origin.version {
                sometimes!("an operator ends because its region was split");
                return Verdict::Over(Status::Canceled("the region has another range"));
            }
            let ours: u64 =
                self.steps[..=self.done].iter().map(|step| step.conf_ver_changes(region)).sum();
            if self.origin.conf_ver + ours < epoch.conf_ver {
                sometimes!("an operator ends because somebody else changed the peers");
                return Verdict::Over(Status::Canceled("somebody else changed the peers"));
            }
        }
        match step.permission(region, health) {
            Permission::Given => Verdict::Ask(step.instruction(region)),
            Permission::Wait => Verdict::Wait,
            Permission::Never(why) => Verdict::Over(Status::Canceled(why)),
        }
    }

    /// Adds to `loads` what stores will hold once this is done and do not hold yet.
    pub(crate) fn weigh(&self, region: &RegionInfo, loads: &mut BTreeMap<StoreId, Load>) {
        let weight = region.weight();
        let mut change = |store: StoreId, change: &dyn Fn(&mut Load)| {
            if let Some(load) = loads.get_mut(&store) {
                change(load);
            }
        };
        for step in &self.steps[self.done..] {
            match step {
                Step::AddLearner { peer } | Step::AddPeer { peer } => {
                    if region.region.peer_on(peer.store_id).is_none() {
                        change(peer.store_id, &|load| load.weight += weight);
                    }
                }
                Step::RemovePeer { peer } => {
                    if region.region.peer_on(peer.store_id).is_some() {
                        change(peer.store_id, &|load| load.weight -= weight);
                    }
                    change(peer.store_id, &|load| load.removing += 1);
                }
                Step::TransferLeader { from, to } => {
                    if region.is_led_by(*from) {
                        change(*from, &|load| load.leaders -= 1);
                        change(*to, &|load| load.leaders += 1);
                    }
                }
                Step::PromoteLearner { .. }
                | Step::EnterJoint { .. }
                | Step::LeaveJoint { .. }
                | Step::Split { .. } => {}
            }
        }
        // A peer that was added still needs its data, from a snapshot as a rule.
        for step in &self.steps {
            let (Step::AddLearner { peer } | Step::AddPeer { peer }) = step else { continue };
            let has_caught_up = region
                .region
                .peers
                .iter()
                .any(|known| known.id == peer.id && known.role != PeerRole::Learner);
            if !has_caught_up {
                change(peer.store_id, &|load| load.adding += 1);
            }
        }
    }
}

impl Instruction {
    fn change(kind: PeerChangeKind, peer: Peer) -> PeerChange {
        let role = match kind {
            PeerChangeKind::Voter => PeerRole::Voter,
            PeerChangeKind::Learner => PeerRole::Learner,
            PeerChangeKind::Remove => peer.role,
        };
        PeerChange { kind, peer: Peer { role, ..peer } }
    }
}

/// The peer with that id.
fn peer_by_id(region: &RegionInfo, id: PeerId) -> Option<&Peer> {
    region.region.peers.iter().find(|peer| peer.id == id)
}
