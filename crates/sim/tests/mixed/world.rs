//! A group of both kinds in virtual time: events in order, each performed to its end. One seed decides everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use raft::{ConfChange, ConfState, EntryKind};
use runtime::Rng;
use sim::{
    hash::{fingerprint, mix},
    rng::{Seed, pick},
};

use super::{
    judge::{Judge, Seen, state_after},
    machine::Machine,
    network::Envelope,
    node::{Kind, View, Work},
    people::Rest,
    plan::{Plan, Scenario, TICK},
    translate::Interpreter,
};

/// What is due at some time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick(u64),
    Arrives(Envelope),
    /// The oldest write of a machine is durable, and its application may go on. Both are for one incarnation.
    Synced(u64, u64),
    Applies(u64, u64),
    /// A leader is told what became of what it sent to a peer.
    Unreachable(u64, u64),
    SnapshotSent(u64, u64, bool),
    Starts(u64),
    Acts,
}

/// What becomes of the trace of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing: it costs time.
    Off,
    /// It becomes a number.
    Hash,
    /// It is printed.
    Print,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) seen: Seen,
    pub(crate) trace: u64,
    /// Ticks from the end of the faults to the end of the run.
    pub(crate) calm_ticks: u64,
}

/// A group, its network and its people.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    pub(crate) machines: BTreeMap<u64, Machine>,
    pub(crate) interpreter: Interpreter,
    pub(crate) judge: Judge,
    /// Directions in which nothing arrives.
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    /// No faults any more.
    pub(crate) is_calm: bool,
    /// Reads that were not answered: where, and what they must show.
    pub(crate) reads: BTreeMap<u64, (u64, u64)>,
    /// The last number that was proposed or was the context of a read.
    pub(crate) numbers: u64,
    pub(crate) rest: Rest,
    trace: Trace,
    trace_hash: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64, trace: Trace) -> World {
        let mut rng = Seed(seed).stream(scenario.name);
        let plan = Plan::draw(&scenario, seed, &mut rng);
        let conf = ConfState::of_voters(1..=plan.members.len() as u64);
        let mut machines = BTreeMap::new();
        let members = plan.members.iter().map(|&kind| (kind, conf.clone()));
        let spares = plan.spares.iter().map(|&kind| (kind, ConfState::default()));
        for ((kind, conf), id) in members.chain(spares).zip(1..) {
            machines.insert(id, Machine::new(id, kind, plan.settings, &conf));
        }
        let mut world = World {
            scenario,
            plan,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            events: 0,
            machines,
            interpreter: Interpreter::default(),
            judge: Judge::new(conf),
            cuts: BTreeSet::new(),
            is_calm: false,
            reads: BTreeMap::new(),
            numbers: 0,
            rest: Rest::default(),
            trace,
            trace_hash: 0,
        };
        for id in world.ids() {
            world.start(id);
            let phase = world.up_to(TICK);
            world.after(phase, Event::Tick(id));
        }
        world.after(0, Event::Acts);
        world
    }

    /// Faults for `fault_ticks`, then none: the group has to come to rest.
    pub(crate) fn run(mut self, fault_ticks: u64) -> Outcome {
        let calm_ticks_max = self.plan.calm_ticks_max();
        while self.now < fault_ticks * TICK {
            self.next();
        }
        self.calm();
        let calm_since = self.now;
        while !self.is_at_rest() {
            let ticks = (self.now - calm_since) / TICK;
            assert!(ticks < calm_ticks_max, "no rest after {ticks} ticks:\n{}", self.describe());
            self.next();
        }
        let leader = self.last_leader().expect("a group at rest has a leader");
        self.judge.ended(self.machines[&leader].applied);
        let calm_ticks = (self.now - calm_since) / TICK;
        Outcome { seen: self.judge.seen, trace: self.trace_hash, calm_ticks }
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    /// A number from 0 to `max`.
    pub(crate) fn up_to(&mut self, max: u64) -> u64 {
        self.rng.range(0..=max)
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.chance(probability)
    }

    /// One of `items`; there is one.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        *pick(&mut self.rng, items)
    }

    pub(crate) fn view(&self, id: u64) -> Option<View> {
        self.machines[&id].node.as_ref().map(|node| node.view())
    }

    /// Who believes to lead.
    pub(crate) fn leaders(&self) -> Vec<u64> {
        let leads = |id: &u64| self.view(*id).is_some_and(|view| view.is_leader);
        self.ids().into_iter().filter(leads).collect()
    }

    pub(crate) fn machine(&mut self, id: u64) -> &mut Machine {
        self.machines.get_mut(&id).expect("ids are those of machines")
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + delay, self.events), event);
    }

    pub(crate) fn start_after(&mut self, delay: u64, id: u64) {
        self.after(delay, Event::Starts(id));
    }

    pub(crate) fn next_act_after(&mut self, delay: u64) {
        self.after(delay, Event::Acts);
    }

    pub(crate) fn start(&mut self, id: u64) {
        let rng = self.rng.fork();
        let machine = self.machine(id);
        if machine.node.is_none() {
            machine.start(rng);
        }
    }

    fn next(&mut self) {
        let ((now, _), event) = self.queue.pop_first().expect("clocks go on ticking");
        self.now = now;
        self.note(&event);
        let touched = self.perform(event);
        for id in touched {
            self.carry_out(id);
        }
    }

    /// Makes an event happen. To whom.
    fn perform(&mut self, event: Event) -> Vec<u64> {
        match event {
            Event::Tick(id) => {
                let drift = self.up_to(10);
                self.after(TICK - 5 + drift, Event::Tick(id));
                if let Some(node) = &mut self.machine(id).node {
                    node.tick();
                }
                vec![id]
            }
            Event::Arrives(envelope) => {
                let to = envelope.to;
                self.deliver(envelope);
                vec![to]
            }
            Event::Synced(id, incarnation) => {
                self.sync_what_is_due(id, incarnation);
                vec![id]
            }
            Event::Applies(id, incarnation) => {
                if self.machine(id).incarnation == incarnation {
                    self.apply(id);
                }
                vec![id]
            }
            Event::Unreachable(id, peer) => {
                if let Some(node) = &mut self.machine(id).node {
                    node.report_unreachable(peer);
                }
                vec![id]
            }
            Event::SnapshotSent(id, peer, has_arrived) => {
                if let Some(node) = &mut self.machine(id).node {
                    node.report_snapshot(peer, has_arrived);
                }
                vec![id]
            }
            Event::Starts(id) => {
                // Those who are down when the faults end are started then.
                if !self.is_calm {
                    self.start(id);
                }
                vec![id]
            }
            Event::Acts => {
                self.act();
                self.ids()
            }
        }
    }

    /// Does what a node wants done, until there is nothing.
    fn carry_out(&mut self, id: u64) {
        while let Some(work) = self.machine(id).node.as_mut().and_then(|node| node.work()) {
            self.carry_out_work(id, work);
        }
        if let Some(view) = self.view(id) {
            let machine = &self.machines[&id];
            let (kind, asked_by) = (machine.kind, machine.asked_by);
            if self.judge.look(id, kind, view)
                && let Some((from, term)) = asked_by
                && view.term == term + 1
            {
                self.judge.seen.note(format!("{from:?} hands over to {kind:?}"));
            }
            self.note(&view);
        }
    }

    fn carry_out_work(&mut self, id: u64, mut work: Work) {
        self.send(id, std::mem::take(&mut work.letters));
        for (context, index) in std::mem::take(&mut work.reads) {
            self.answer_read(id, context, index);
        }
        if work.has_replaced
            && let Some(view) = self.view(id)
            && view.leader != 0
        {
            let (kind, from) = (self.machines[&id].kind, self.machines[&view.leader].kind);
            self.judge.seen.note(format!("{from:?} replaces entries of {kind:?}"));
        }
        let has_snapshot = work.snapshot.is_some();
        let committed = std::mem::take(&mut work.committed);
        let delay = if work.must_sync { self.delay(self.plan.sync_max) } else { 0 };
        let now = self.now;
        let machine = self.machine(id);
        let (kind, incarnation) = (machine.kind, machine.incarnation);
        if has_snapshot {
            machine.to_apply.clear();
        }
        let has_committed = !committed.is_empty();
        machine.to_apply.extend(committed);
        let due = machine.writes.back().map_or(0, |write| write.due).max(now + delay);
        machine.order_write(due, work);
        if due <= now || (has_snapshot && kind == Kind::Theirs) {
            // Theirs wants nothing to happen between a snapshot and its application.
            self.sync_all(id);
        } else {
            self.after(due - now, Event::Synced(id, incarnation));
        }
        if has_committed {
            match self.delay(self.plan.apply_max) {
                0 => self.apply(id),
                delay => self.after(delay, Event::Applies(id, incarnation)),
            }
        }
    }

    fn delay(&mut self, max: u64) -> u64 {
        let max = if self.is_calm { max.min(10) } else { max };
        self.up_to(max)
    }

    fn sync_what_is_due(&mut self, id: u64, incarnation: u64) {
        let now = self.now;
        while self.machine(id).incarnation == incarnation
            && self.machine(id).writes.front().is_some_and(|write| write.due <= now)
        {
            self.sync_one(id);
        }
    }

    fn sync_all(&mut self, id: u64) {
        while !self.machine(id).writes.is_empty() {
            self.sync_one(id);
        }
    }

    fn sync_one(&mut self, id: u64) {
        let machine = self.machine(id);
        let synced = machine.synced();
        machine.keep_image();
        let (kind, state, from) = (machine.kind, machine.state, machine.snapshot_from);
        if let Some(hard_state) = synced.hard_state
            && let Some(candidate) = self.judge.persisted(id, hard_state)
        {
            let candidate = self.machines[&candidate].kind;
            self.judge.seen.note(format!("{kind:?} votes for {candidate:?}"));
        }
        if let Some(meta) = &synced.restored {
            self.judge.restored(id, meta, state);
            let from = from.expect("somebody has sent it");
            self.judge.seen.note(format!("{from:?} gives a snapshot to {kind:?}"));
        }
        self.send(id, synced.letters);
    }

    /// The application takes everything that was handed to it.
    fn apply(&mut self, id: u64) {
        let keep = self.plan.keep;
        let judge = &mut self.judge;
        let machine = self.machines.get_mut(&id).expect("ids are those of machines");
        while let Some(entry) = machine.to_apply.pop_front() {
            let Some(node) = &mut machine.node else { return };
            let state = state_after(machine.state, &entry);
            judge.applied(id, machine.kind, &entry, state);
            let mut conf = None;
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(&entry.data).expect("a change was proposed");
                let was_leader = node.view().is_leader;
                let members = node.apply_change(&change);
                if was_leader && !members.is_voter(id) {
                    judge.seen.note(format!("{:?} loses its vote while it leads", machine.kind));
                }
                judge.changed(id, entry.index, &members);
                if !machine.conf.is_joint() && members.is_joint() {
                    judge.seen.note(format!("{:?} is in a joint state", machine.kind));
                }
                conf = Some(members);
            }
            node.applied(entry.index);
            machine.note_applied(&entry, state, conf);
        }
        machine.keep_image();
        machine.compact(keep);
    }

    fn answer_read(&mut self, id: u64, context: u64, index: u64) {
        let Some((reader, least)) = self.reads.remove(&context) else { return };
        assert_eq!(reader, id, "a read is answered where it was asked");
        assert!(least <= index, "a read at {id} shows {index}, and {least} was committed before");
        if self.is_calm {
            self.rest.readers.insert(id);
        }
        let leader = self.view(id).map_or(0, |view| view.leader);
        if leader != 0 {
            let (kind, from) = (self.machines[&id].kind, self.machines[&leader].kind);
            let own = if leader == id { "itself" } else { "a follower" };
            self.judge.seen.note(format!("{from:?} answers a read of {kind:?}, {own}"));
        }
    }

    /// No faults any more: everybody is up, and everything arrives.
    fn calm(&mut self) {
        self.is_calm = true;
        self.cuts.clear();
        for id in self.ids() {
            self.start(id);
            self.carry_out(id);
        }
    }

    /// Stops a machine; what is not durable is lost.
    pub(crate) fn stop(&mut self, id: u64) {
        self.machine(id).stop();
        self.reads.retain(|_, (reader, _)| *reader != id);
    }

    fn note(&mut self, what: &dyn std::fmt::Debug) {
        match self.trace {
            Trace::Off => {}
            Trace::Hash => {
                let mut text = String::new();
                let _ = write!(text, "{} {what:?}", self.now);
                self.trace_hash = mix(self.trace_hash ^ fingerprint(text.as_bytes()));
            }
            Trace::Print => println!("{:>6} {what:?}", self.now),
        }
    }

    /// Where everybody stands, for whoever looks into a run that failed.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{:?}\n", self.plan);
        for (id, machine) in &self.machines {
            let (view, applied) = (self.view(*id), machine.applied);
            let _ = writeln!(
                text,
                "node {id} {:?}: {view:?}, applied {applied}, {:?}",
                machine.kind, machine.conf
            );
        }
        text
    }
}
