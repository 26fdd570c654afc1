//! Clients and operators, and the faults: what is done to a group beside its own ticks and messages.

use std::collections::BTreeSet;

use raft::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition};

use super::{
    node::Kind,
    plan::{Act, TICK},
    values::number_to_bytes,
    world::World,
};

/// Proposals that are made, one after the other, when the faults are over; all must be acknowledged.
const LAST_PROPOSALS: usize = 3;

/// How long somebody waits for an answer before trying again.
const PATIENCE: u64 = 20 * TICK;

/// What people do when the faults are over.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    acknowledged: usize,
    /// Where the proposal under way is, and since when.
    proposal: Option<((u64, u64), u64)>,
    /// Whose reads were answered.
    pub(crate) readers: BTreeSet<u64>,
}

impl World {
    /// Something is done, drawn by the weights of the scenario.
    pub(crate) fn act(&mut self) {
        if self.is_calm {
            self.next_act_after(TICK);
            return self.act_calmly();
        }
        let pause = 1 + self.up_to(self.scenario.pause_max);
        self.next_act_after(pause);
        let total: u64 = self.scenario.acts.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.up_to(total - 1);
        for &(act, weight) in self.scenario.acts {
            if drawn < weight {
                return self.perform_act(act);
            }
            drawn -= weight;
        }
    }

    fn perform_act(&mut self, act: Act) {
        match act {
            Act::Propose => {
                for _ in 0..=self.up_to(3) {
                    if let Some(leader) = self.some_leader() {
                        self.propose(leader);
                    }
                }
            }
            Act::Read => {
                let ids = self.ids();
                let reader = self.pick(&ids);
                self.read(reader);
            }
            Act::Transfer => self.transfer(),
            Act::Step => self.change(false),
            Act::Joint => self.change(true),
            Act::Crash => {
                let id = self.somebody();
                self.stop(id);
                let pause = TICK * self.up_to(30);
                self.start_after(pause, id);
            }
            Act::Cut => self.cut(),
            Act::Mend => self.cuts.clear(),
            Act::LateSnapshot => {
                let ids = self.ids();
                let id = self.pick(&ids);
                if let Some(node) = &mut self.machine(id).node {
                    node.disk_mut().late_snapshots.set(2);
                }
            }
        }
    }

    fn some_leader(&mut self) -> Option<u64> {
        let leaders = self.leaders();
        (!leaders.is_empty()).then(|| self.pick(&leaders))
    }

    /// Whom something befalls: the leader as often as anybody.
    fn somebody(&mut self) -> u64 {
        let ids = self.ids();
        match self.some_leader() {
            Some(leader) if self.chance(0.5) => leader,
            _ => self.pick(&ids),
        }
    }

    fn propose(&mut self, leader: u64) -> Option<(u64, u64)> {
        self.numbers += 1;
        let number = self.numbers;
        let place = self.machine(leader).node.as_mut()?.propose(number)?;
        self.judge.proposed(leader, place, &number_to_bytes(number));
        Some(place)
    }

    fn read(&mut self, reader: u64) {
        self.numbers += 1;
        let (context, least) = (self.numbers, self.judge.known());
        if let Some(node) = &mut self.machine(reader).node {
            node.read_index(context);
            self.reads.insert(context, (reader, least));
        }
    }

    /// Somebody is asked to hand the leadership over: the leader, or a follower, which passes that on.
    fn transfer(&mut self) {
        let ids = self.ids();
        let asked = match self.some_leader() {
            Some(leader) if self.chance(0.7) => leader,
            _ => self.pick(&ids),
        };
        let members = self.machines[&asked].conf.voters.clone();
        if members.is_empty() {
            return;
        }
        let target = self.pick(&members);
        if let Some(node) = &mut self.machine(asked).node {
            node.transfer_leader(target);
        }
    }

    /// A leader is asked for a change that makes sense from where it is.
    fn change(&mut self, is_joint: bool) {
        let Some(leader) = self.some_leader() else { return };
        let conf = self.machines[&leader].conf.clone();
        if conf.is_joint() {
            if !conf.auto_leave {
                self.propose_change(leader, &ConfChange::leave());
            }
            return;
        }
        let count = if is_joint { 1 + self.up_to(2) } else { 1 };
        let mut changes = Vec::new();
        let mut ids = self.ids();
        for _ in 0..count {
            let id = self.pick(&ids);
            ids.retain(|other| *other != id);
            let kinds: &[ConfChangeKind] = if conf.is_learner(id) {
                &[ConfChangeKind::AddVoter, ConfChangeKind::AddVoter, ConfChangeKind::Remove]
            } else if conf.contains(id) {
                &[ConfChangeKind::AddLearner, ConfChangeKind::Remove]
            } else {
                &[ConfChangeKind::AddVoter, ConfChangeKind::AddLearner]
            };
            let kind = self.pick(kinds);
            changes.push(ConfChangeSingle { kind, id });
        }
        let transition = match is_joint {
            true => {
                self.pick(&[Transition::Auto, Transition::JointImplicit, Transition::JointExplicit])
            }
            false => Transition::Auto,
        };
        let change = ConfChange { transition, changes, context: bytes::Bytes::new() };
        // A node of theirs that is the only voter leads before its own vote and the end of its log are durable. After a
        // power cut it may lead in the same term again, with other entries.
        let may_decide = |voters: &[u64]| match voters {
            [] => false,
            [only] => self.machines[only].kind == Kind::Ours,
            _ => true,
        };
        if conf.after(&change).is_ok_and(|next| may_decide(&next.voters)) {
            self.propose_change(leader, &change);
        }
    }

    fn propose_change(&mut self, leader: u64, change: &ConfChange) {
        let in_first_spelling = self.chance(0.5);
        let machine = self.machine(leader);
        let kind = machine.kind;
        let Some(node) = &mut machine.node else { return };
        let Some(place) = node.propose_change(change, in_first_spelling) else { return };
        self.judge.proposed(leader, place, &change.encode());
        self.judge.seen.note(match (change.is_joint(), change.changes.is_empty()) {
            (true, _) => format!("{kind:?} proposes a joint change, {:?}", change.transition),
            (false, true) => format!("{kind:?} proposes to leave"),
            (false, false) => format!("{kind:?} proposes a step, {:?}", change.changes[0].kind),
        });
    }

    /// One machine, or a few, hear nobody, or nobody hears them, or both.
    fn cut(&mut self) {
        let ids = self.ids();
        let mut island = vec![self.somebody()];
        if self.chance(0.4) {
            island.push(self.pick(&ids));
        }
        let (outward, inward) =
            self.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        for &a in &island {
            for &b in ids.iter().filter(|id| !island.contains(id)) {
                if outward {
                    self.cuts.insert((a, b));
                }
                if inward {
                    self.cuts.insert((b, a));
                }
            }
        }
    }

    /// When the faults are over, people ask for what they have a right to: a few commits, a read at each member, and the
    /// end of a joint state.
    fn act_calmly(&mut self) {
        let now = self.now;
        if let Some((place, since)) = self.rest.proposal {
            if self.judge.is_acknowledged(place) {
                self.rest.acknowledged += 1;
                self.rest.proposal = None;
            } else if since + PATIENCE < now {
                self.rest.proposal = None;
            }
        }
        let Some(leader) = self.last_leader() else { return };
        if self.rest.proposal.is_none() && self.rest.acknowledged < LAST_PROPOSALS {
            self.rest.proposal = self.propose(leader).map(|place| (place, now));
        }
        let conf = self.machines[&leader].conf.clone();
        if !conf.is_joint() {
            self.stop_who_has_left(leader, &conf);
        } else if !conf.auto_leave {
            self.propose_change(leader, &ConfChange::leave());
        }
        for member in conf.members() {
            let is_asked = self.reads.values().any(|(reader, _)| *reader == member);
            if !self.rest.readers.contains(&member) && (!is_asked || self.chance(0.5)) {
                self.read(member);
            }
        }
    }

    /// Who leads in the latest term in which somebody does.
    pub(crate) fn last_leader(&self) -> Option<u64> {
        let term = |id: &u64| self.view(*id).map_or(0, |view| view.term);
        self.leaders().into_iter().max_by_key(term)
    }

    /// Machines that are no members any more are taken away, as soon as all members know that. Before, somebody may
    /// need their votes; and a change that brings them back may be under way.
    fn stop_who_has_left(&mut self, leader: u64, conf: &ConfState) {
        let last = self.view(leader).map_or(0, |view| view.last);
        if !conf.members().iter().all(|id| self.machines[id].applied == last) {
            return;
        }
        for id in self.ids() {
            if !conf.contains(id) && self.machines[&id].node.is_some() {
                self.stop(id);
            }
        }
    }

    /// Whether the group has come to rest: it has committed what was asked for, and all are equal.
    pub(crate) fn is_at_rest(&self) -> bool {
        if self.rest.acknowledged < LAST_PROPOSALS {
            return false;
        }
        let Some(leader) = self.last_leader() else { return false };
        let Some(view) = self.view(leader) else { return false };
        let (conf, state) = (&self.machines[&leader].conf, self.machines[&leader].state);
        let is_done = |id: &u64| {
            let machine = &self.machines[id];
            machine.applied == view.last
                && machine.state == state
                && machine.conf == *conf
                && self.rest.readers.contains(id)
        };
        !conf.is_joint()
            && conf.members().iter().all(is_done)
            && self
                .machines
                .values()
                .all(|machine| conf.contains(machine.id) || machine.node.is_none())
    }
}
