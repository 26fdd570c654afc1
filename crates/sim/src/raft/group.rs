//! One seed, from the first event to the verdict.
//!
//! 1. **Chaos**: faults strike while clients write and read and an operator changes the members.
//! 2. **A quorum**: faults end, but only machines that make a quorum are there. A write must be committed and a read
//!    answered before a bound.
//! 3. **All**: every machine comes back, clients fall silent. All members must come to the same state before a bound.
//!
//! Checkers listen all the time; a panic of the code under test is a violation like any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use raft::{ConfState, EntryKind, Storage};
use runtime::Rng;

use super::{
    command::Command,
    judge::{Answers, Judge},
    log::DiskLog,
    members::{draw_change, draw_core, survives_loss},
    node::{self, RaftNode, Report, Request, peer_id},
    options::Options,
};
use crate::{
    checker::{Verdict, Violation},
    hash::{fingerprint, mix},
    nemesis::{Blow, Moment, Nemesis, Plan, Target},
    panics,
    rng::{Seed, index, pick},
    runner::Settings,
    swarm::{FaultKind, SECOND, Swarm},
    switches::{self, Buggify},
    world::{Disk, MachineId, NetworkCounters, Step, World},
};

/// A usual run has 20,000 to 100,000 events. More than this is a storm of messages.
const EVENTS_MAX: u64 = 3_000_000;

/// Entries that are not applied yet where clients add no more.
const BACKLOG_MAX: u64 = 200;

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Stands for everything that happened.
    pub hash: u64,
    /// What did not hold, and the number of the event at which that was noticed.
    pub violation: Option<(Violation, u64)>,
    /// Counts of what happened.
    pub counters: Counters,
    /// Named rare events of the code under test and of the simulator.
    pub marks: BTreeMap<&'static str, u64>,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Events.
    pub events: u64,
    /// Virtual microseconds.
    pub virtual_time: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The network's own.
    pub network: NetworkCounters,
    /// Terms with a leader.
    pub elections: u64,
    /// Changes of the members that took effect.
    pub changes: u64,
    /// Snapshots that replaced a state.
    pub snapshots: u64,
    /// Compactions.
    pub compactions: u64,
    /// Starts of processes.
    pub starts: u64,
    /// Ends of logs that were cut off at a start.
    pub torn: u64,
    /// Damaged logs that were noticed.
    pub damaged: u64,
    /// Entries committed.
    pub committed: u64,
    /// Operations that the register checker judged.
    pub operations: u64,
    /// Those of them that were never answered.
    pub open: u64,
    /// Answers.
    pub answers: Answers,
}

#[derive(Clone, Debug)]
enum Action {
    Fault(Plan),
    Write,
    Read,
    Change,
    Transfer,
    Look,
}

impl From<Plan> for Action {
    fn from(plan: Plan) -> Action {
        Action::Fault(plan)
    }
}

/// What a machine is to its group.
#[derive(Clone, Copy, Debug, Default)]
struct Home {
    /// Counts the disks that it had.
    disk: u64,
    /// A bit of its disk has flipped, and no start has noticed yet.
    flipped: bool,
    /// It stays off for now.
    dead: bool,
    /// Its peer has been in the group.
    was_member: bool,
    /// The term in which it leads.
    leads_in: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Chaos,
    /// From which write and read on one has to succeed; whether one has.
    Quorum {
        from: u64,
        written: bool,
        read: bool,
    },
    All,
    Done,
}

struct Group<'a> {
    swarm: &'a Swarm,
    options: &'a Options,
    world: World<RaftNode, Action>,
    nemesis: Nemesis,
    /// Of clients and operators.
    rng: Rng,
    judge: Judge,
    homes: Vec<Home>,
    /// Peers whose disks are gone.
    lost: BTreeSet<u64>,
    phase: Phase,
    /// When the phase must have reached its aim.
    deadline: u64,
    /// Names writes and reads.
    operations: u64,
    counters: Counters,
}

/// Runs a seed.
pub fn run(seed: u64, settings: Settings) -> Outcome {
    let root = Seed(seed);
    let swarm = Swarm::draw(root, settings.machines);
    let options = Options::draw(root, &swarm);
    switches::set(buggify(root, options.buggify), settings.mutant);
    let mut group = Group::new(root, &swarm, &options, settings);
    group.world.trace.line(0, || format!("{swarm:#?}\n{options:#?}"));
    let verdict = panics::catch(|| catch_unwind(AssertUnwindSafe(|| group.run(settings))));
    let marks = switches::reset();
    let violation = match verdict {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("no panic", panic)),
    };
    let event = group.world.trace.events();
    if let Some(violation) = &violation {
        group.world.trace.line(group.world.now(), || format!("VIOLATION {violation}"));
    }
    Outcome {
        seed,
        hash: group.world.trace.hash(),
        violation: violation.map(|violation| (violation, event)),
        counters: group.count(),
        marks,
    }
}

/// Each point is on in a quarter of the seeds, and makes trouble with the given probability then.
fn buggify(seed: Seed, probability: f64) -> Buggify {
    let mut rng = seed.stream("buggify");
    Box::new(move |name| {
        let is_on = mix(fingerprint(name.as_bytes()) ^ mix(seed.0)).is_multiple_of(4);
        is_on && rng.chance(probability)
    })
}

impl<'a> Group<'a> {
    fn new(root: Seed, swarm: &'a Swarm, options: &'a Options, settings: Settings) -> Group<'a> {
        let first = ConfState::of_voters((0..options.voters).map(|machine| peer_id(machine, 0)));
        Group {
            swarm,
            options,
            world: World::new(root, swarm.world_options(settings.text)),
            nemesis: Nemesis::new(swarm, options.election_min(), root.stream("faults")),
            rng: root.stream("workload"),
            judge: Judge::new(first),
            homes: (0..swarm.machines)
                .map(|machine| Home { was_member: machine < options.voters, ..Home::default() })
                .collect(),
            lost: BTreeSet::new(),
            phase: Phase::Chaos,
            deadline: settings.chaos,
            operations: 0,
            counters: Counters::default(),
        }
    }

    fn run(&mut self, settings: Settings) -> Verdict {
        for machine in 0..self.swarm.machines {
            self.boot(machine)?;
        }
        self.listen()?;
        self.nemesis.begin(&mut self.world);
        for action in [Action::Write, Action::Read, Action::Change, Action::Transfer, Action::Look]
        {
            self.again(action);
        }
        while self.phase != Phase::Done {
            if settings.until.is_some_and(|until| until <= self.world.trace.events()) {
                return Ok(());
            }
            if EVENTS_MAX < self.world.trace.events() {
                let details = format!("{EVENTS_MAX} events and no end; {}", self.describe());
                return Err(Violation::new("a run ends", details));
            }
            if self.world.next_time().is_none_or(|time| self.deadline < time) {
                self.deadline_passed()?;
                continue;
            }
            if let Some(Step::Action(action)) = self.world.step() {
                self.act(action)?;
            }
            self.listen()?;
        }
        self.judge.finish()
    }

    fn act(&mut self, action: Action) -> Verdict {
        // Planned before the phase ended.
        if self.pause_before(&action).is_none() && !matches!(action, Action::Fault(_)) {
            return Ok(());
        }
        match &action {
            Action::Fault(Plan::Boot(machine)) => {
                let machine = *machine;
                if !self.homes[machine].dead && self.world.process(machine).is_none() {
                    self.boot(machine)?;
                }
            }
            Action::Fault(plan) => self.strike(*plan),
            Action::Write => self.write(),
            Action::Read => self.read(),
            Action::Change => self.change(),
            Action::Transfer => self.transfer(),
            Action::Look => self.look()?,
        }
        if !matches!(action, Action::Fault(_)) {
            self.again(action);
        }
        Ok(())
    }

    /// Plans the next one of a kind of action, unless its time is over.
    fn again(&mut self, action: Action) {
        if let Some(mean) = self.pause_before(&action) {
            let delay = (-(1.0 - self.rng.f64()).ln() * mean as f64) as u64 + 1;
            self.world.schedule(delay, action);
        }
    }

    /// Microseconds between two actions of a kind, on average; none if there are none in this phase.
    fn pause_before(&self, action: &Action) -> Option<u64> {
        match action {
            Action::Fault(_) => None,
            Action::Write => Some(self.options.write_every).filter(|_| self.phase != Phase::All),
            Action::Read => Some(self.options.read_every).filter(|_| self.phase != Phase::All),
            Action::Change => self.options.change_every.filter(|_| self.phase == Phase::Chaos),
            Action::Transfer => self.options.transfer_every.filter(|_| self.phase == Phase::Chaos),
            Action::Look => Some(50_000),
        }
    }

    /// Starts the process of a machine from what its disk has.
    fn boot(&mut self, machine: MachineId) -> Verdict {
        let home = self.homes[machine];
        let found = match DiskLog::open(self.world.disk(machine)) {
            Ok(_) if home.flipped => {
                let details = format!("machine {machine} has a flipped bit and starts");
                return Err(Violation::new("damage is noticed", details));
            }
            Ok(found) => found,
            Err(damage) if home.flipped => {
                self.counters.damaged += 1;
                self.world.trace.line(self.world.now(), || format!("m{machine}: {damage:?}"));
                self.world.wipe(machine);
                self.new_disk(machine);
                None
            }
            Err(damage) => {
                let details = format!("machine {machine}: {}", damage.0);
                return Err(Violation::new("a crash damages nothing durable", details));
            }
        };
        let home = self.homes[machine];
        self.counters.torn += u64::from(found.as_ref().is_some_and(|found| found.torn));
        let first: Vec<u64> = match home.disk {
            0 if machine < self.options.voters => {
                (0..self.options.voters).map(|machine| peer_id(machine, 0)).collect()
            }
            _ => Vec::new(),
        };
        let rng = self.world.fork_rng(machine);
        let peer = peer_id(machine, home.disk);
        let process = RaftNode::new(peer, self.options, found, &first, rng)
            .map_err(|error| Violation::new("a node starts", format!("{peer}: {error}")))?;
        self.counters.starts += 1;
        self.world.start(machine, process);
        Ok(())
    }

    /// What lives on the machine from now on is somebody new.
    fn new_disk(&mut self, machine: MachineId) {
        let home = &mut self.homes[machine];
        self.lost.insert(peer_id(machine, home.disk));
        *home = Home { disk: home.disk + 1, dead: home.dead, ..Home::default() };
    }

    fn strike(&mut self, plan: Plan) {
        let view = self.view();
        match self.nemesis.act(&mut self.world, &view, plan) {
            Blow::Nothing => {}
            Blow::DiskLost(machine) => self.new_disk(machine),
            Blow::BitFlipped(machine) => {
                let home = &mut self.homes[machine];
                home.flipped = true;
                self.lost.insert(peer_id(machine, home.disk));
            }
        }
    }

    /// Hears what processes have to say, and starts those again that ended themselves.
    fn listen(&mut self) -> Verdict {
        for (machine, report) in self.world.take_reports() {
            match &report {
                Report::Leads { term, .. } => {
                    self.homes[machine].leads_in = Some(*term);
                    self.nemesis.elected(&mut self.world, machine);
                }
                Report::Committed { .. } => {
                    self.nemesis.notice(&mut self.world, Moment::Commits(machine));
                }
                Report::Confirms { leader } => {
                    self.nemesis
                        .notice(&mut self.world, Moment::IsAnswered(node::machine_of(*leader)));
                }
                Report::Campaigns => {
                    self.homes[machine].leads_in = None;
                    self.nemesis.notice(&mut self.world, Moment::Campaigns(machine));
                }
                Report::Started { .. } | Report::Follows => {
                    self.homes[machine].leads_in = None;
                }
                Report::Members { conf, .. } => {
                    for (machine, home) in self.homes.iter_mut().enumerate() {
                        home.was_member |= conf.contains(peer_id(machine, home.disk));
                    }
                }
                Report::Written { value, .. } => self.succeeded(*value, true),
                Report::Read { id, .. } => self.succeeded(*id, false),
                _ => {}
            }
            let log = self.world.process(machine).map(RaftNode::log);
            self.judge.hear(report, log)?;
        }
        for machine in self.world.take_stopped() {
            let delay = self.rng.range(1_000..2 * SECOND);
            self.world.schedule(delay, Action::Fault(Plan::Boot(machine)));
        }
        match self.world.unnoticed_damage() {
            0 => Ok(()),
            _ => Err(Violation::new("damage is noticed", "a damaged frame had a right checksum")),
        }
    }

    fn succeeded(&mut self, operation: u64, is_write: bool) {
        if let Phase::Quorum { from, written, read } = &mut self.phase
            && *from < operation
        {
            *(if is_write { written } else { read }) = true;
        }
    }

    // Clients.

    /// The machine that a client asks: one that believes to lead, mostly. There may be several, and those who are
    /// wrong are the interesting ones.
    fn ask(&mut self) -> MachineId {
        if self.rng.chance(self.options.ask_leader) {
            let leads = |&machine: &MachineId| {
                self.homes[machine].leads_in.is_some() && self.world.process(machine).is_some()
            };
            let leaders: Vec<MachineId> = (0..self.homes.len()).filter(leads).collect();
            if !leaders.is_empty() {
                return *pick(&mut self.rng, &leaders);
            }
        }
        index(&mut self.rng, self.homes.len())
    }

    fn write(&mut self) {
        if self.nemesis.is_calm(self.world.now()) {
            return;
        }
        let machine = self.ask();
        // Where nothing runs, a client gets no connection. And clients wait for answers: nobody piles up more than a
        // slow group can take.
        if self.world.process(machine).is_none_or(|process| BACKLOG_MAX < process.backlog()) {
            return;
        }
        let count = self.rng.range(1..=self.options.batch);
        let mut commands = Vec::new();
        for _ in 0..count {
            self.operations += 1;
            let key = self.rng.range(0..self.options.keys);
            let command = Command { key, value: self.operations };
            self.judge.write_begins(command);
            commands.push((command, self.rng.range(0..=self.options.padding) as usize));
        }
        let delay = self.rng.range(10..1_000);
        self.world.request(delay, machine, Request::Write(commands));
    }

    fn read(&mut self) {
        let machine = self.ask();
        if self.world.process(machine).is_none() {
            return;
        }
        self.operations += 1;
        let id = self.operations;
        let key = self.rng.range(0..self.options.keys);
        self.judge.read_begins(id, key);
        let delay = self.rng.range(10..1_000);
        self.world.request(delay, machine, Request::Read { id, key });
    }

    // The operator.

    fn change(&mut self) {
        self.retire();
        let Some(leader) = self.leader() else { return };
        let Some(process) = self.world.process(leader) else { return };
        // A change that waits somewhere would be made when the world is another one.
        if self.world.is_frozen(leader) {
            return;
        }
        let conf = process.conf().clone();
        let others: Vec<u64> = self
            .world
            .processes()
            .map(|(_, process)| process.peer())
            .filter(|peer| !conf.contains(*peer) && !self.lost.contains(peer))
            .collect();
        if let Some(change) = draw_change(&mut self.rng, &conf, &others, &self.lost) {
            self.world.request_now(leader, Request::Change(change));
        }
    }

    /// Gives a machine whose peer was removed a new disk and a new peer.
    fn retire(&mut self) {
        let (_, conf) = self.judge.members();
        let retired: Vec<MachineId> = (0..self.homes.len())
            .filter(|&machine| {
                let home = &self.homes[machine];
                home.was_member && !conf.contains(peer_id(machine, home.disk)) && !home.flipped
            })
            .collect();
        if retired.is_empty() || self.rng.chance(0.7) || !self.is_settled() {
            return;
        }
        let machine = *pick(&mut self.rng, &retired);
        if self.world.process(machine).is_some() {
            self.world.crash(machine);
            self.world.wipe(machine);
            self.new_disk(machine);
            self.world.schedule(SECOND / 10, Action::Fault(Plan::Boot(machine)));
        }
    }

    fn transfer(&mut self) {
        let (_, conf) = self.judge.members();
        let target = *pick(&mut self.rng, &conf.members());
        let machine = self.ask();
        let request = match self.rng.chance(0.15) {
            true => Request::Campaign,
            false => Request::Transfer(target),
        };
        if let (Request::Transfer(_), Some(leader)) = (&request, self.leader()) {
            self.nemesis.hands_over(&mut self.world, leader);
        }
        self.world.request(100, machine, request);
    }

    /// The machine that leads in the highest term.
    fn leader(&self) -> Option<MachineId> {
        (0..self.homes.len())
            .filter(|&machine| self.world.process(machine).is_some())
            .max_by_key(|&machine| self.homes[machine].leads_in)
            .filter(|&machine| self.homes[machine].leads_in.is_some())
    }

    /// Whether any log has a change of the members that nobody has applied.
    fn is_changing(&self) -> bool {
        let (applied, _) = self.judge.members();
        let has_change = |log: &DiskLog| {
            let (low, high) = (log.first_index().max(applied + 1), log.last_index() + 1);
            low < high
                && log
                    .entries(low, high, usize::MAX)
                    .is_ok_and(|entries| entries.iter().any(|e| e.kind == EntryKind::ConfChange))
        };
        (0..self.homes.len()).any(|machine| match self.world.process(machine) {
            // What the core has not handed over yet may be anything.
            Some(process) => {
                process.log().last_index() < process.status().last_index
                    || has_change(process.log())
            }
            None => DiskLog::open(self.world.disk(machine))
                .is_ok_and(|found| found.is_some_and(|found| has_change(&found.log))),
        })
    }

    /// Whether every member runs, knows the members, and will know them after a restart; and nothing is changing. Only
    /// then may somebody who was removed really go, or a disk be lost: until then a member may count on him.
    fn is_settled(&self) -> bool {
        let (index, conf) = self.judge.members();
        let knows = |peer: &u64| {
            let process = self.world.processes().find(|(_, process)| process.peer() == *peer);
            process.is_some_and(|(_, process)| {
                process.conf() == conf && index <= self.judge.durable_commit(*peer)
            })
        };
        conf.members().iter().all(knows) && !self.is_changing()
    }

    fn view(&self) -> View {
        let (_, conf) = self.judge.members();
        let wounded = conf.members().iter().any(|peer| self.lost.contains(peer));
        let may_lose = !wounded && self.is_settled();
        let survives = |(machine, home): (MachineId, &Home)| {
            may_lose && survives_loss(conf, peer_id(machine, home.disk))
        };
        View {
            leader: self.leader(),
            survives: self.homes.iter().enumerate().map(survives).collect(),
        }
    }

    // Phases.

    fn deadline_passed(&mut self) -> Verdict {
        match self.phase {
            Phase::Chaos => self.heal_quorum(),
            Phase::Quorum { written, read, .. } => {
                let details = format!(
                    "with a healthy quorum for {} s: a write was committed: {written}, a read answered: \
                     {read}; {}",
                    self.options.liveness_bound() / SECOND,
                    self.describe()
                );
                Err(Violation::new("a healthy quorum makes progress", details))
            }
            Phase::All => {
                let details = format!(
                    "all healthy for {} s; {}",
                    self.options.liveness_bound() / SECOND,
                    self.describe()
                );
                Err(Violation::new("all replicas become equal", details))
            }
            Phase::Done => Ok(()),
        }
    }

    fn heal_quorum(&mut self) -> Verdict {
        self.nemesis.end(&mut self.world, self.swarm);
        self.listen()?;
        let (_, conf) = self.judge.members();
        let conf = conf.clone();
        // While somebody counts on other members than these, all are needed, also those who were removed.
        let is_settled = self.is_settled();
        let core = draw_core(&mut self.rng, &conf, &self.lost, !is_settled);
        for machine in 0..self.homes.len() {
            let peer = peer_id(machine, self.homes[machine].disk);
            let is_there = match conf.contains(peer) {
                true => core.contains(&peer),
                false if !is_settled => true,
                false => !self.disturbs(machine) && self.rng.chance(0.5),
            };
            if is_there {
                if self.world.process(machine).is_none() {
                    self.boot(machine)?;
                }
            } else if self.rng.chance(0.5) {
                self.homes[machine].dead = true;
                if self.world.process(machine).is_some() {
                    self.world.crash(machine);
                }
            } else {
                for other in (0..self.homes.len()).filter(|&other| other != machine) {
                    self.world.network.set_blocked(machine, other, true);
                    self.world.network.set_blocked(other, machine, true);
                }
            }
        }
        self.phase = Phase::Quorum { from: self.operations, written: false, read: false };
        self.deadline = self.world.now() + self.options.liveness_bound();
        Ok(())
    }

    /// Without pre-vote and check-quorum an operator has to switch off those who were removed.
    fn switch_off_disturbers(&mut self) {
        for machine in 0..self.homes.len() {
            let is_on = self.world.process(machine).is_some();
            if is_on && self.disturbs(machine) && self.is_settled() {
                self.homes[machine].dead = true;
                self.world.crash(machine);
            }
        }
    }

    /// Whether what lives there was removed from the group, may not know it, and keeps the others from electing a
    /// leader. With pre-vote and check-quorum it must not; without, an operator has to switch it off.
    fn disturbs(&self, machine: MachineId) -> bool {
        let core = &self.options.core;
        let (_, conf) = self.judge.members();
        let home = &self.homes[machine];
        let is_removed = home.was_member && !conf.contains(peer_id(machine, home.disk));
        is_removed && !(core.pre_vote && core.check_quorum)
    }

    fn heal_all(&mut self) -> Verdict {
        self.world.network.heal();
        for machine in 0..self.homes.len() {
            self.homes[machine].dead = false;
            if self.world.process(machine).is_none() {
                self.boot(machine)?;
            }
        }
        self.phase = Phase::All;
        self.deadline = self.world.now() + self.options.liveness_bound();
        Ok(())
    }

    /// Looks whether the aim of the phase is reached.
    fn look(&mut self) -> Verdict {
        match self.phase {
            Phase::Quorum { written: true, read: true, .. } => self.heal_all(),
            Phase::All if self.are_equal()? => {
                self.phase = Phase::Done;
                Ok(())
            }
            Phase::Quorum { .. } | Phase::All => {
                self.switch_off_disturbers();
                Ok(())
            }
            Phase::Chaos | Phase::Done => Ok(()),
        }
    }

    /// Whether all members are up to date; an error if they are, and differ.
    fn are_equal(&self) -> Result<bool, Violation> {
        let (_, conf) = self.judge.members();
        let last = self.judge.last_committed();
        for peer in conf.members().into_iter().filter(|peer| !self.lost.contains(peer)) {
            let process = self.world.processes().find(|(_, process)| process.peer() == peer);
            let Some((_, process)) = process else { return Ok(false) };
            if process.state().applied != last || process.conf() != conf {
                return Ok(false);
            }
            let state = process.state().fingerprint();
            if self.judge.state(last) != Some(state) {
                let details = format!("peer {peer} differs at {last}");
                return Err(Violation::new("all replicas become equal", details));
            }
        }
        Ok(true)
    }

    /// Where everybody is, for a report.
    fn describe(&self) -> String {
        let (index, conf) = self.judge.members();
        let mut words = format!("members at {index}: {conf:?}; lost: {:?}", self.lost);
        for (machine, process) in self.world.processes() {
            let status = process.status();
            let differs = if process.conf() == conf { "" } else { " (other members)" };
            words += &format!(
                "; m{machine}{differs} peer {} {:?} term {} leader {} applied {} committed {} last {}",
                status.id,
                status.role,
                status.term,
                status.leader,
                process.state().applied,
                status.committed,
                status.last_index
            );
        }
        words
    }

    fn count(&mut self) -> Counters {
        let mut counters = std::mem::take(&mut self.counters);
        let (operations, open) = self.judge.operations();
        counters.events = self.world.trace.events();
        counters.virtual_time = self.world.now();
        counters.faults = self.nemesis.strikes.clone();
        counters.network = self.world.network.counters.clone();
        counters.elections = self.judge.elections();
        counters.committed = self.judge.last_committed();
        (counters.operations, counters.open) = (operations, open);
        counters.answers = self.judge.answers;
        for (_, process) in self.world.processes() {
            counters.changes += process.counters.changes;
            counters.snapshots += process.counters.snapshots;
            counters.compactions += process.counters.compactions;
        }
        counters
    }
}

/// What the nemesis is told.
struct View {
    leader: Option<MachineId>,
    survives: Vec<bool>,
}

impl Target for View {
    fn leader(&self) -> Option<MachineId> {
        self.leader
    }

    fn may_lose_disk(&self, machine: MachineId) -> bool {
        self.survives[machine]
    }

    fn vouched(&self, disk: &Disk) -> Option<(String, u64)> {
        DiskLog::vouched(disk)
    }
}
