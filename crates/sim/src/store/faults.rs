//! Faults of machines with stores that strike from time to time, and their ends.
//!
//! The rule of the *atlas*: no fault destroys more copies of a region than its group promises to survive. A machine
//! loses its disks for good only if every region that may count on it keeps a quorum without it, whoever one asks.

use std::collections::BTreeMap;

use runtime::Rng;

use super::{Action, options::Options, world::World};
use crate::{
    rng::{Seed, index, log_uniform, shuffle},
    swarm::SECOND,
    world::MachineId,
};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The power of one machine goes.
    Crash,
    /// It goes at one of the next operations of the disk.
    CutPower,
    /// A process is killed; what it wrote is there.
    Kill,
    /// The power of several machines goes, or of all.
    PowerLoss,
    /// A process is killed as soon as it is started, several times.
    CrashLoop,
    /// The network falls into parts, or lets through one direction only.
    Partition,
    /// The machine that leads some region is cut off, in one direction or in both.
    IsolateLeader,
    /// All links to a machine, or one, hold everything back.
    Clog,
    /// A process stands still, or its store alone, and gets everything at once afterwards.
    Freeze,
    /// A disk stands still.
    Stall,
    /// An applier stands still.
    StallApplier,
    /// A sync fails.
    SyncError,
    /// A machine is off for so long that placement gives its store up.
    Death,
    /// A machine loses its disks and comes back as another store.
    Wipe,
}

impl FaultKind {
    /// All of them, with the seconds between two strikes: fierce, and mild.
    pub const ALL: [(FaultKind, f64, f64); 14] = [
        (FaultKind::Crash, 1.5, 20.0),
        (FaultKind::CutPower, 1.5, 20.0),
        (FaultKind::Kill, 1.5, 20.0),
        (FaultKind::PowerLoss, 5.0, 40.0),
        (FaultKind::CrashLoop, 5.0, 40.0),
        (FaultKind::Partition, 2.0, 20.0),
        (FaultKind::IsolateLeader, 2.0, 20.0),
        (FaultKind::Clog, 1.0, 10.0),
        (FaultKind::Freeze, 2.0, 20.0),
        (FaultKind::Stall, 2.0, 20.0),
        (FaultKind::StallApplier, 0.5, 10.0),
        (FaultKind::SyncError, 3.0, 20.0),
        (FaultKind::Death, 10.0, 30.0),
        (FaultKind::Wipe, 8.0, 30.0),
    ];
}

/// What is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A fault of this kind strikes, and the next one is planned.
    Strike(FaultKind),
    /// The network is whole again.
    Join,
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    Nothing,
    /// A machine loses its disks, if that can be survived.
    Wipe(MachineId),
}

/// Strikes while it is active.
#[derive(Debug)]
pub(super) struct Nemesis {
    rng: Rng,
    every: BTreeMap<FaultKind, u64>,
    duration: u64,
    down_after: u64,
    /// The longest time until a follower that hears nothing campaigns.
    patience: u64,
    active: bool,
    pub(super) strikes: BTreeMap<FaultKind, u64>,
}

impl Nemesis {
    pub(super) fn new(root: Seed, options: &Options) -> Nemesis {
        let mut rng = root.stream("store faults");
        let share = [0.0, 0.25, 0.5, 0.5, 0.75][index(&mut rng, 5)];
        let every = FaultKind::ALL
            .iter()
            .filter_map(|&(kind, fierce, mild)| {
                let every = (log_uniform(&mut rng, fierce, mild) * SECOND as f64) as u64;
                rng.chance(share).then_some((kind, every))
            })
            .collect();
        let duration = (log_uniform(&mut rng, 0.05, 5.0) * SECOND as f64) as u64;
        let down_after = options.down_after;
        Nemesis {
            rng,
            every,
            duration,
            down_after,
            patience: options.election_max(),
            active: false,
            strikes: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self, world: &mut World) {
        self.active = true;
        let kinds: Vec<FaultKind> = self.every.keys().copied().collect();
        for kind in kinds {
            self.plan_next(world, kind);
        }
    }

    pub(super) fn end(&mut self) {
        self.active = false;
    }

    fn plan_next(&mut self, world: &mut World, kind: FaultKind) {
        let mean = self.every[&kind] as f64;
        let delay = -(1.0 - self.rng.f64()).ln() * mean;
        world.schedule(delay as u64 + 1, Action::Fault(Plan::Strike(kind)));
    }

    fn lasts(&mut self) -> u64 {
        let mean = self.duration as f64;
        log_uniform(&mut self.rng, mean * 0.1, mean * 3.0) as u64 + 1
    }

    pub(super) fn act(&mut self, world: &mut World, plan: Plan) -> Blow {
        match plan {
            Plan::Join => world.network.heal(),
            Plan::Strike(kind) if self.active => {
                self.plan_next(world, kind);
                return self.strike(world, kind);
            }
            Plan::Strike(_) => {}
        }
        Blow::Nothing
    }

    /// A machine that leads something.
    fn draw_leader(&mut self, world: &World) -> Option<MachineId> {
        let leaders: Vec<MachineId> = world
            .processes()
            .filter(|(_, _, process)| {
                process.store.regions().any(|region| {
                    let status = process.store.raft_status(region.id);
                    status.is_some_and(|status| status.role == raft::RoleKind::Leader)
                })
            })
            .map(|(machine, ..)| machine)
            .collect();
        (!leaders.is_empty()).then(|| leaders[index(&mut self.rng, leaders.len())])
    }

    fn strike(&mut self, world: &mut World, kind: FaultKind) -> Blow {
        let machines = world.machines.len();
        let drawn = index(&mut self.rng, machines);
        let leader = self.draw_leader(world).unwrap_or(drawn);
        let machine = if self.rng.chance(0.5) { leader } else { drawn };
        let lasts = self.lasts();
        let runs = world.process(machine).is_some();
        let mut blow = Blow::Nothing;
        match kind {
            FaultKind::Partition | FaultKind::IsolateLeader if machines < 2 => return blow,
            FaultKind::Crash
            | FaultKind::CutPower
            | FaultKind::Kill
            | FaultKind::Freeze
            | FaultKind::SyncError
            | FaultKind::Death
            | FaultKind::Wipe
            | FaultKind::CrashLoop
                if !runs =>
            {
                return blow;
            }
            FaultKind::Crash => {
                world.crash(machine);
                world.schedule(lasts, Action::Boot(machine));
            }
            FaultKind::CutPower => {
                let slot = &mut world.machines[machine];
                slot.is_doomed = true;
                slot.disks.fs.cut_power_after(self.rng.range(0..60));
            }
            FaultKind::Kill => {
                world.kill(machine);
                world.schedule(lasts / 10 + 1, Action::Boot(machine));
            }
            FaultKind::PowerLoss => {
                let share = if self.rng.chance(0.5) { 1.0 } else { 0.6 };
                for machine in 0..machines {
                    if world.process(machine).is_some() && self.rng.chance(share) {
                        world.crash(machine);
                        let later = if self.rng.chance(0.5) { lasts } else { lasts / 50 + 1 };
                        let delay = self.rng.range(0..=later);
                        world.schedule(delay, Action::Boot(machine));
                    }
                }
            }
            FaultKind::CrashLoop => {
                world.crash(machine);
                let mut at = 1;
                for _ in 0..1 + index(&mut self.rng, 5) {
                    world.schedule(at, Action::Boot(machine));
                    at += 1 + self.rng.range(0..300_000);
                    world.schedule(at, Action::Crash(machine));
                    at += 1;
                }
                world.schedule(at, Action::Boot(machine));
            }
            FaultKind::Partition => {
                self.partition(world, machine);
                world.schedule(lasts, Action::Fault(Plan::Join));
            }
            FaultKind::IsolateLeader => {
                let side = index(&mut self.rng, 4);
                for other in (0..machines).filter(|other| *other != leader) {
                    if side != 1 {
                        world.network.set_blocked(leader, other, true);
                    }
                    if side != 2 {
                        world.network.set_blocked(other, leader, true);
                    }
                }
                world.schedule(lasts, Action::Fault(Plan::Join));
            }
            FaultKind::Clog => {
                let until = world.now() + lasts;
                for other in 0..machines {
                    if self.rng.chance(0.6) {
                        world.network.clog(other, machine, until);
                    }
                }
            }
            FaultKind::Freeze => {
                // Just long enough for others to give it up, or for as long as anything.
                let lasts = match self.rng.chance(0.6) {
                    true => self.rng.range(self.patience / 2..2 * self.patience),
                    false => lasts,
                };
                let readers_go_on = self.rng.chance(0.4);
                world.freeze(machine, lasts, readers_go_on);
            }
            FaultKind::Stall => world.machines[machine].stalled_until = world.now() + lasts,
            FaultKind::StallApplier => {
                world.machines[machine].applier_stalled_until = world.now() + lasts;
            }
            FaultKind::SyncError => {
                let slot = &mut world.machines[machine];
                slot.is_doomed = true;
                slot.disks.fs.fail_sync(self.rng.range(0..3));
            }
            FaultKind::Death => {
                world.kill(machine);
                let lasts = self.down_after + self.rng.range(0..2 * self.down_after);
                world.schedule(lasts, Action::Boot(machine));
            }
            FaultKind::Wipe => blow = Blow::Wipe(machine),
        }
        *self.strikes.entry(kind).or_default() += 1;
        blow
    }

    fn partition(&mut self, world: &mut World, machine: MachineId) {
        let machines = world.machines.len();
        if self.rng.chance(0.25) {
            // One link, one direction.
            let other = (machine + 1 + index(&mut self.rng, machines - 1)) % machines;
            world.network.set_blocked(machine, other, true);
            return;
        }
        let mut order: Vec<MachineId> = (0..machines).collect();
        shuffle(&mut self.rng, &mut order);
        let cut = 1 + index(&mut self.rng, machines - 1);
        let both = self.rng.chance(0.7);
        for &one in &order[..cut] {
            for &other in &order[cut..] {
                world.network.set_blocked(one, other, true);
                world.network.set_blocked(other, one, both);
            }
        }
    }
}
