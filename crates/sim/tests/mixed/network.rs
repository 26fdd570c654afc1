//! The network: it translates what is said from one kind to the other, and loses, doubles, delays and reorders it.

use raft::MessageBody;
use raft_rs::eraftpb::MessageType;

use super::{
    node::{Kind, Letter},
    plan::TICK,
    translate::unsaid,
    world::{Event, World},
};

/// A letter on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: u64,
    pub(crate) to: u64,
    letter: Letter,
}

/// How long a message takes when there are no faults; all take as long, so that they arrive in order.
const CALM_DELAY: u64 = TICK / 20;

impl World {
    /// Translates what a node says, where that is needed, and puts it on its way.
    pub(crate) fn send(&mut self, id: u64, letters: Vec<Letter>) {
        let term = self.view(id).map_or(0, |view| view.term);
        let mut for_theirs = Vec::new();
        let mut envelopes = Vec::new();
        for letter in letters {
            match letter {
                Letter::Ours(message) if self.machines[&message.to].kind == Kind::Theirs => {
                    for_theirs.push(message);
                }
                Letter::Theirs(message) if self.machines[&message.to].kind == Kind::Ours => {
                    let ours = self.interpreter.for_ours(id, term, &message);
                    envelopes.extend(ours.into_iter().map(Letter::Ours));
                }
                letter => envelopes.push(letter),
            }
        }
        envelopes.extend(self.interpreter.for_theirs(for_theirs).into_iter().map(Letter::Theirs));
        for letter in envelopes {
            let to = match &letter {
                Letter::Ours(message) => message.to,
                Letter::Theirs(message) => message.to,
            };
            self.post(Envelope { from: id, to, letter });
        }
    }

    fn post(&mut self, envelope: Envelope) {
        if self.is_calm {
            return self.after(CALM_DELAY, Event::Arrives(envelope));
        }
        if self.chance(self.plan.loss) {
            return self.lose(&envelope);
        }
        if self.chance(self.plan.doubles) {
            let delay = 1 + self.up_to(2 * self.plan.delay_max);
            self.after(delay, Event::Arrives(envelope.clone()));
        }
        let delay = 1 + self.up_to(self.plan.delay_max);
        self.after(delay, Event::Arrives(envelope));
    }

    /// The sender may learn of the loss. Of a snapshot theirs has to, or it waits for ever; ours asks again by itself.
    fn lose(&mut self, envelope: &Envelope) {
        let &Envelope { from, to, .. } = envelope;
        let kind = self.machines[&from].kind;
        if envelope.is_snapshot() {
            if kind == Kind::Theirs || self.chance(0.5) {
                self.after(TICK, Event::SnapshotSent(from, to, false));
            }
        } else if self.chance(0.2) {
            self.after(TICK / 2, Event::Unreachable(from, to));
        }
    }

    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if self.cuts.contains(&(from, to)) || self.machines[&to].node.is_none() {
            return self.lose(&envelope);
        }
        let from_kind = self.machines[&from].kind;
        if envelope.is_snapshot() {
            if from_kind == Kind::Theirs || self.chance(0.75) {
                self.after(TICK / 2, Event::SnapshotSent(from, to, true));
            }
            self.machine(to).snapshot_from = Some(from_kind);
        }
        let term = self.view(to).map_or(0, |view| view.term);
        let answers_leaders = self.plan.settings.pre_vote || self.plan.settings.check_quorum;
        if let Letter::Theirs(message) = &envelope.letter
            && let Some(answer) = unsaid(message, term, answers_leaders)
        {
            self.send(to, vec![Letter::Theirs(answer)]);
        }
        let asked_in = envelope.asks_to_campaign();
        let machine = self.machine(to);
        if let Some(term) = asked_in {
            machine.asked_by = Some((from_kind, term));
        }
        let node = machine.node.as_mut().expect("it is up");
        node.step(envelope.letter);
    }
}

impl Envelope {
    fn is_snapshot(&self) -> bool {
        match &self.letter {
            Letter::Ours(message) => matches!(message.body, MessageBody::Snapshot(_)),
            Letter::Theirs(message) => message.msg_type == MessageType::MsgSnapshot,
        }
    }

    /// The term in which a leader asks its successor to campaign.
    fn asks_to_campaign(&self) -> Option<u64> {
        match &self.letter {
            Letter::Ours(message) => {
                matches!(message.body, MessageBody::TimeoutNow).then_some(message.term)
            }
            Letter::Theirs(message) => {
                (message.msg_type == MessageType::MsgTimeoutNow).then_some(message.term)
            }
        }
    }
}
