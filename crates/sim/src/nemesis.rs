//! Faults that strike from time to time, and their ends.
//!
//! The nemesis knows machines, links, disks and clocks. Of what runs on them it is told through [`Target`]: who leads,
//! whose disk may be lost. The rule of the *atlas* stands there: no fault destroys more copies than the group promises
//! to survive, so that every loss is a bug.

use std::collections::BTreeMap;

use runtime::Rng;

use crate::{
    rng::{index, log_uniform, pick, shuffle},
    swarm::{FaultKind, SECOND, Swarm},
    world::{Disk, MachineId, Node, World},
};

/// Microseconds in which what is on its way to a machine that dozes still arrives.
const DOZE_HEARS: u64 = 4_000;
/// Microseconds that a machine is off if all that matters is what it forgets.
const BLINK: u64 = 20;

/// What the nemesis has planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A fault of this kind strikes, and the next of its kind is planned.
    Strike(FaultKind),
    /// A machine that leads is cut off on this side, or loses its power.
    Depose(MachineId, Side),
    /// A machine that dozes hears nothing more.
    Deafen(MachineId),
    /// The network is whole again.
    Join,
    /// A machine that was cut off is so no more.
    Rejoin(MachineId),
    /// A disk has room again.
    Room(MachineId),
    /// A machine is switched on again; its owner does it.
    Boot(MachineId),
}

/// What the nemesis waits for, to strike at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ambush {
    /// A machine that was just elected is cut off, or loses its power, as soon as it knows something to be committed.
    FirstCommit(MachineId),
    /// A machine that leads falls asleep when an answer is on its way to it, and hears nothing more: it wakes up with
    /// the answers of before and does not know what has happened since.
    Answer(MachineId),
    /// As soon as the second campaigns, the first, which leads, is cut off and all others restart.
    Campaign(MachineId, MachineId),
}

/// What machines do, as far as the nemesis waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It knows something to be committed.
    Commits(MachineId),
    /// Its question whether it still leads was answered; the answer is on its way.
    IsAnswered(MachineId),
    /// It wants to lead.
    Campaigns(MachineId),
}

/// What must be known of the machines.
pub trait Target {
    /// The machine that leads, if one does.
    fn leader(&self) -> Option<MachineId>;

    /// Whether the group survives that this machine loses its disk now.
    fn may_lose_disk(&self, machine: MachineId) -> bool;

    /// Bytes of a file on the disk of a machine without process, damage of which has to be noticed at a start: the
    /// file, and how many bytes from its beginning.
    fn vouched(&self, disk: &Disk) -> Option<(String, u64)>;
}

/// What an owner has to do after a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Nothing.
    Nothing,
    /// The machine's disk is gone: what ran there comes back as somebody new.
    DiskLost(MachineId),
    /// A bit of the machine's durable data has flipped: its next start must notice.
    BitFlipped(MachineId),
}

/// Strikes while it is active.
#[derive(Debug)]
pub struct Nemesis {
    rng: Rng,
    patience: u64,
    every: BTreeMap<FaultKind, u64>,
    duration: u64,
    active: bool,
    ambush: Option<Ambush>,
    calm_until: u64,
    /// How often each kind of fault was done to something.
    pub strikes: BTreeMap<FaultKind, u64>,
}

impl Nemesis {
    /// The nemesis of a swarm. It begins with [`begin`](Nemesis::begin). `patience` is how many microseconds machines
    /// wait before they give up one that is silent.
    pub fn new(swarm: &Swarm, patience: u64, rng: Rng) -> Nemesis {
        Nemesis {
            rng,
            patience,
            every: swarm.faults.iter().copied().collect(),
            duration: swarm.fault_duration,
            active: false,
            ambush: None,
            calm_until: 0,
            strikes: BTreeMap::new(),
        }
    }

    /// Plans the first strikes.
    pub fn begin<N: Node, A: std::fmt::Debug + From<Plan>>(&mut self, world: &mut World<N, A>) {
        self.active = true;
        let kinds: Vec<FaultKind> = self.every.keys().copied().collect();
        for kind in kinds {
            self.plan_next(world, kind);
        }
    }

    /// A machine was elected. Perhaps it does not enjoy it for long.
    pub fn elected<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        machine: MachineId,
    ) {
        // The mean time between strikes serves as odds here: up to 0.5 s is certain, 3 s is one in six.
        let Some(every) = self.every.get(&FaultKind::NewLeader).filter(|_| self.active) else {
            return;
        };
        if self.rng.chance(0.5 * SECOND as f64 / *every as f64) {
            let delay = match self.rng.range(0..3) {
                // Nobody hears of its first entry.
                0 => 1,
                // Nobody hears that something is committed.
                1 => {
                    self.ambush = Some(Ambush::FirstCommit(machine));
                    return;
                }
                _ => log_uniform(&mut self.rng, 50.0, 20_000.0) as u64,
            };
            world.schedule(delay, A::from(Plan::Depose(machine, Side::Both)));
        }
    }

    /// A machine does something that may have been waited for.
    pub fn notice<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        moment: Moment,
    ) {
        let Some(ambush) = self.ambush.filter(|_| self.active) else { return };
        match (ambush, moment) {
            (Ambush::FirstCommit(doomed), Moment::Commits(machine)) if doomed == machine => {
                world.schedule(1, A::from(Plan::Depose(machine, Side::Both)));
            }
            (Ambush::Answer(leader), Moment::IsAnswered(machine)) if leader == machine => {
                self.doze(world, machine);
            }
            (Ambush::Campaign(leader, usurper), Moment::Campaigns(machine))
                if usurper == machine =>
            {
                self.calm_until = 0;
                isolate(world, leader, Side::Both);
                world.schedule(2 * self.patience, A::from(Plan::Join));
                for machine in (0..world.len()).filter(|&other| other != leader && other != usurper)
                {
                    if world.process(machine).is_some() {
                        self.switch_off(world, machine, BLINK);
                    }
                }
                *self.strikes.entry(FaultKind::Usurp).or_default() += 1;
            }
            _ => return,
        }
        self.ambush = None;
    }

    /// A leader is asked to hand over. Perhaps it does not hear what comes of it.
    pub fn hands_over<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        machine: MachineId,
    ) {
        if self.every.contains_key(&FaultKind::IsolateLeader) && self.rng.chance(0.3) {
            let delay = log_uniform(&mut self.rng, 50.0, 10_000.0) as u64;
            world.schedule(delay, A::from(Plan::Depose(machine, Side::In)));
        }
    }

    /// No more strikes; what was broken is repaired, save for machines that are off.
    pub fn end<N: Node, A: std::fmt::Debug>(&mut self, world: &mut World<N, A>, swarm: &Swarm) {
        self.active = false;
        world.network.heal();
        world.network.set_options(swarm.healthy_network.clone());
        for machine in 0..world.len() {
            world.disk_mut(machine).set_room(None);
            world.disk_mut(machine).set_options(swarm.healthy_disk.clone());
            world.thaw(machine);
        }
    }

    /// Whether clients should write nothing now: a machine is to be elected that hears nothing of the leader, and who
    /// misses entries is not.
    pub fn is_calm(&self, now: u64) -> bool {
        now < self.calm_until
    }

    /// How often faults of this kind struck.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.strikes.get(&kind).copied().unwrap_or(0)
    }

    /// Does what was planned. [`Plan::Boot`] is the owner's.
    pub fn act<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        target: &impl Target,
        plan: Plan,
    ) -> Blow {
        match plan {
            Plan::Join => world.network.heal(),
            Plan::Rejoin(machine) if self.active => {
                set_isolated(world, machine, Side::Both, false);
            }
            Plan::Room(machine) => world.disk_mut(machine).set_room(None),
            Plan::Strike(kind) if self.active => {
                self.plan_next(world, kind);
                return self.strike(world, target, kind);
            }
            Plan::Depose(machine, side) if self.active && world.process(machine).is_some() => {
                // Back soon after it was given up: what it has kept to itself meets what the others have done since.
                let lasts = log_uniform(&mut self.rng, 1.0, 8.0) * self.patience as f64;
                let lasts = lasts as u64 + 1;
                if side == Side::Both && self.rng.chance(0.5) {
                    self.switch_off(world, machine, lasts);
                } else {
                    set_isolated(world, machine, side, true);
                    world.schedule(lasts, A::from(Plan::Rejoin(machine)));
                }
                *self.strikes.entry(FaultKind::NewLeader).or_default() += 1;
            }
            Plan::Deafen(machine) if self.active => {
                isolate(world, machine, Side::In);
                world.schedule(3 * self.patience, A::from(Plan::Join));
            }
            // Later the owner alone decides who reaches whom.
            Plan::Strike(_)
            | Plan::Rejoin(_)
            | Plan::Deafen(_)
            | Plan::Depose(..)
            | Plan::Boot(_) => {}
        }
        Blow::Nothing
    }

    fn plan_next<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        kind: FaultKind,
    ) {
        let mean = self.every[&kind] as f64;
        let delay = -(1.0 - self.rng.f64()).ln() * mean;
        world.schedule(delay as u64 + 1, A::from(Plan::Strike(kind)));
    }

    /// How long this fault lasts.
    fn lasts(&mut self) -> u64 {
        let mean = self.duration as f64;
        log_uniform(&mut self.rng, mean * 0.1, mean * 3.0) as u64 + 1
    }

    fn strike<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        target: &impl Target,
        kind: FaultKind,
    ) -> Blow {
        let machines = world.len();
        let machine = index(&mut self.rng, machines);
        let lasts = self.lasts();
        let runs = world.process(machine).is_some();
        let mut blow = Blow::Nothing;
        match kind {
            // Done when somebody is elected.
            FaultKind::NewLeader => return Blow::Nothing,
            FaultKind::Crash => {
                if !runs {
                    return Blow::Nothing;
                }
                self.switch_off(world, machine, lasts);
            }
            FaultKind::PowerLoss => {
                for machine in 0..machines {
                    if world.process(machine).is_some() {
                        // Machines come back one by one, or nearly together.
                        let later = if self.rng.chance(0.5) { lasts } else { lasts / 50 + 1 };
                        let delay = self.rng.range(0..=later);
                        self.switch_off(world, machine, delay);
                    }
                }
            }
            FaultKind::Partition => {
                if machines < 2 {
                    return Blow::Nothing;
                }
                self.partition(world, machine);
                world.schedule(lasts, A::from(Plan::Join));
            }
            FaultKind::IsolateLeader => {
                let Some(leader) = target.leader().filter(|_| machines > 1) else {
                    return Blow::Nothing;
                };
                let side = *pick(&mut self.rng, &[Side::Both, Side::Both, Side::In, Side::Out]);
                isolate(world, leader, side);
                world.schedule(lasts, A::from(Plan::Join));
            }
            FaultKind::Clog => {
                let until = world.now() + lasts;
                if self.rng.chance(0.5) {
                    let other = index(&mut self.rng, machines);
                    world.network.clog(machine, other, until);
                } else {
                    // Answers come late, all at once: to the leader, mostly.
                    let to = target.leader().filter(|_| self.rng.chance(0.8)).unwrap_or(machine);
                    for from in 0..machines {
                        world.network.clog(from, to, until);
                    }
                }
            }
            FaultKind::Freeze => {
                if !runs {
                    return Blow::Nothing;
                }
                // Leaders are the interesting ones: they wake up believing that they still lead.
                match target.leader() {
                    Some(leader) if self.rng.chance(0.4) => {
                        self.ambush = Some(Ambush::Answer(leader));
                        return Blow::Nothing;
                    }
                    Some(leader) if self.rng.chance(0.5) => world.freeze(leader, lasts),
                    _ => world.freeze(machine, lasts),
                }
            }
            FaultKind::WallJump => {
                let by = self.rng.range(0..7_200 * SECOND) as i64 - 3_600 * SECOND as i64;
                world.clock_mut(machine).jump_wall(by);
            }
            FaultKind::Stall => {
                let until = world.now() + lasts;
                world.disk_mut(machine).stall(until);
            }
            FaultKind::SyncError => world.disk_mut(machine).fail_next_sync(),
            FaultKind::FullDisk => {
                let room = self.rng.range(0..2_000);
                world.disk_mut(machine).set_room(Some(room));
                world.schedule(lasts, A::from(Plan::Room(machine)));
            }
            FaultKind::Usurp => {
                let Some(leader) = target.leader().filter(|&leader| leader != machine) else {
                    return Blow::Nothing;
                };
                world.network.set_blocked(leader, machine, true);
                self.ambush = Some(Ambush::Campaign(leader, machine));
                self.calm_until = world.now() + 3 * self.patience;
                return Blow::Nothing;
            }
            FaultKind::BitFlip => {
                if !runs || !target.may_lose_disk(machine) {
                    return Blow::Nothing;
                }
                self.switch_off(world, machine, lasts);
                let vouched = target.vouched(world.disk(machine));
                let Some((file, bytes)) = vouched.filter(|(_, bytes)| *bytes > 0) else {
                    return Blow::Nothing;
                };
                let bit = self.rng.range(0..bytes * 8);
                world.disk_mut(machine).flip_bit(&file, bit);
                blow = Blow::BitFlipped(machine);
            }
            FaultKind::Wipe => {
                if !runs || !target.may_lose_disk(machine) {
                    return Blow::Nothing;
                }
                self.switch_off(world, machine, lasts);
                world.wipe(machine);
                blow = Blow::DiskLost(machine);
            }
        }
        *self.strikes.entry(kind).or_default() += 1;
        blow
    }

    fn doze<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        machine: MachineId,
    ) {
        // Long enough for others to give it up, short enough for it not to give itself up.
        let lasts = self.patience + self.rng.range(self.patience / 10..=self.patience);
        world.freeze(machine, lasts);
        // What is on its way arrives; what others say later does not, until a while after it woke up.
        world.schedule(DOZE_HEARS, A::from(Plan::Deafen(machine)));
        *self.strikes.entry(FaultKind::Freeze).or_default() += 1;
    }

    fn switch_off<N: Node, A: std::fmt::Debug + From<Plan>>(
        &mut self,
        world: &mut World<N, A>,
        machine: MachineId,
        lasts: u64,
    ) {
        world.crash(machine);
        world.schedule(lasts, A::from(Plan::Boot(machine)));
    }

    fn partition<N: Node, A: std::fmt::Debug>(
        &mut self,
        world: &mut World<N, A>,
        machine: MachineId,
    ) {
        let machines = world.len();
        match self.rng.range(0..5) {
            // One link, one direction.
            0 => {
                let other = (machine + 1 + index(&mut self.rng, machines - 1)) % machines;
                world.network.set_blocked(machine, other, true);
            }
            // One machine.
            1 => {
                let side = *pick(&mut self.rng, &[Side::Both, Side::In, Side::Out]);
                isolate(world, machine, side);
            }
            // A ring: everybody reaches its neighbours only.
            2 => {
                for from in 0..machines {
                    for to in 0..machines {
                        let apart = from.abs_diff(to);
                        let neighbours = apart <= 1 || apart == machines - 1;
                        world.network.set_blocked(from, to, !neighbours);
                    }
                }
            }
            // Two parts, cut in both directions or in one.
            _ => {
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
    }
}

/// Which direction of a machine's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Both.
    Both,
    /// What others send to it is lost.
    In,
    /// What it sends is lost.
    Out,
}

fn isolate<N: Node, A: std::fmt::Debug>(world: &mut World<N, A>, machine: MachineId, side: Side) {
    set_isolated(world, machine, side, true);
}

fn set_isolated<N: Node, A: std::fmt::Debug>(
    world: &mut World<N, A>,
    machine: MachineId,
    side: Side,
    isolated: bool,
) {
    for other in (0..world.len()).filter(|&other| other != machine) {
        if side != Side::Out {
            world.network.set_blocked(other, machine, isolated);
        }
        if side != Side::In {
            world.network.set_blocked(machine, other, isolated);
        }
    }
}
