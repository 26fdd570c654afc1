//! What the core says, done: persist, send, apply, in that order.

use engine::raft_log::{LogBatch, Ticket};
use raft::{Message, MessageBody, Ready, SnapshotStatus};
use types::{
    Peer as Member, PeerId, RegionError,
    codec::DecodeError,
    marks::{mutant, sometimes},
};

use super::{Flight, Peer, Read};
use crate::{
    apply::{Answered, Applied, Effect, Outcome, Task},
    error::{Error, Result},
    log_storage::to_log,
    message::{self, StoreMessage},
    snapshot::Descriptor,
    state::{ApplyState, encode_hard_state},
    store::{Output, Response, Token},
};

/// A Ready whose log writes are in a batch that is not appended yet.
#[derive(Debug)]
pub(crate) struct Persisting {
    flight: Flight,
    /// Whether it has to be synced; otherwise it is durable when those before it are.
    pub(crate) must_sync: bool,
}

impl Peer {
    /// Takes one Ready: adds what it persists to `batch` and performs the parts that wait for nothing. The core must not
    /// be used before the batch is appended and [`Peer::appended`] is told. Snapshots go to whom `may_send` says.
    pub(crate) fn take_ready<A>(
        &mut self,
        batch: &mut LogBatch,
        out: &mut Vec<Output<A>>,
        mut may_send: impl FnMut(PeerId) -> bool,
    ) -> Result<Option<Persisting>> {
        if !self.node.has_ready() {
            return Ok(None);
        }
        let region = self.region_id();
        let Ready {
            number,
            hard_state,
            entries,
            snapshot,
            must_sync,
            messages,
            messages_after_persist,
            committed,
            reads,
            reads_refused,
            role: _,
        } = self.node.ready();
        let snapshot = match snapshot {
            Some(snapshot) => {
                let descriptor = Descriptor::decode(&snapshot.data)
                    .map_err(|error| Error::damaged(region, error))?;
                if descriptor.applied.index != snapshot.meta.index {
                    return Err(Error::damaged(region, DecodeError::Invalid("snapshot's index")));
                }
                batch.reset(region.0, snapshot.meta.index, snapshot.meta.term);
                self.installing = Some(descriptor.clone());
                Some(descriptor)
            }
            None => None,
        };
        if let Some(hard_state) = hard_state {
            batch.put_state(region.0, encode_hard_state(hard_state));
        }
        batch.append(region.0, entries.into_iter().map(to_log).collect());
        for message in messages {
            let is_snapshot = matches!(message.body, MessageBody::Snapshot(_));
            match !is_snapshot || may_send(PeerId(message.to)) {
                true => self.send(message, out),
                false => self.unsent.push(message.to),
            }
        }
        if !committed.is_empty() {
            let (region_id, peer_id) = (region, self.id);
            out.push(Output::Apply(Task::Entries { region_id, peer_id, entries: committed }));
        }
        for read in reads {
            if let Some(waiting) = self.reads.remove(&read.context) {
                self.reads_at.push_back((read.index, Read { term: read.term, ..waiting }));
            }
        }
        for context in reads_refused {
            if let Some(read) = self.reads.remove(&context) {
                out.push(Output::Reply { token: read.token, result: Err(self.not_leader()) });
            }
        }
        self.serve_reads(out);
        let flight =
            Flight { number, ticket: Ticket(0), messages: messages_after_persist, snapshot };
        Ok(Some(Persisting { flight, must_sync }))
    }

    /// The batch of a Ready is appended, as `ticket`.
    pub(crate) fn appended(&mut self, persisting: Persisting, ticket: Ticket) {
        let Persisting { mut flight, must_sync } = persisting;
        let before = self.flights.back().map_or(Ticket(0), |flight| flight.ticket);
        flight.ticket = if must_sync { ticket } else { before };
        self.flights.push_back(flight);
        for to in std::mem::take(&mut self.unsent) {
            self.node.report_snapshot(to, SnapshotStatus::Failed);
        }
    }

    /// Everything up to `ticket` is durable: performs what has waited for that. Returns whether anything had.
    pub(crate) fn synced<A>(&mut self, ticket: Ticket, out: &mut Vec<Output<A>>) -> bool {
        let mut any = false;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.ticket <= ticket) {
            any = true;
            self.node.persisted(flight.number);
            for message in flight.messages {
                self.send(message, out);
            }
            if let Some(descriptor) = flight.snapshot
                && self.installing.as_ref() == Some(&descriptor)
            {
                out.push(Output::Install { peer_id: self.id, descriptor });
            }
        }
        any
    }

    /// Whether Readies wait for the disk.
    pub(crate) fn is_flying(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Answers what was waiting for these entries, and tells the core how far the applier is. The effects are the
    /// store's to perform first.
    pub(crate) fn on_applied<A>(&mut self, applied: Applied<A>, out: &mut Vec<Output<A>>) {
        let Applied { state, answers, .. } = applied;
        self.applied = state;
        for answered in answers {
            self.answer(answered, out);
        }
        // What is left up to here has another entry in its place, or a snapshot hides what is. The former means that it
        // never happened.
        while let Some((index, term, token)) = self.pop_proposal(state.index) {
            let error = match self.node.log_term(index).is_some_and(|found| found != term) {
                true => self.not_leader(),
                false => {
                    sometimes!("store: a write's outcome is not known because of a snapshot");
                    let reason = "a snapshot has taken the place of the entry".into();
                    RegionError::Undetermined { reason }
                }
            };
            out.push(Output::Reply { token, result: Err(error) });
        }
        self.node.applied(state.index);
        self.serve_reads(out);
    }

    /// The first proposal up to `index`.
    fn pop_proposal(&mut self, index: u64) -> Option<(u64, u64, Token)> {
        let entry = self.proposals.first_entry().filter(|entry| entry.key().0 <= index)?;
        let ((index, term), token) = entry.remove_entry();
        Some((index, term, token))
    }

    fn answer<A>(&mut self, answered: Answered<A>, out: &mut Vec<Output<A>>) {
        let Answered { index, term, outcome } = answered;
        let mut outcome = Some(outcome);
        while let Some((proposed_at, proposed_in, token)) = self.pop_proposal(index) {
            let is_it = (proposed_at, proposed_in) == (index, term);
            let result = match outcome.take_if(|_| is_it) {
                // Another entry is in its place, so that it never happened.
                None => Err(self.not_leader()),
                Some(Outcome::Written(answer)) => Ok(Response::Written(answer)),
                Some(Outcome::Changed(regions)) => Ok(Response::Changed(regions)),
                Some(Outcome::EpochNotMatch) => {
                    Err(RegionError::EpochNotMatch { regions: vec![self.region.clone()] })
                }
                Some(Outcome::Refused(reason)) => Err(self.invalid(reason)),
            };
            out.push(Output::Reply { token, result });
        }
    }

    /// Lets the reads go whose index is applied. Each takes its engine snapshot first and is checked against the region
    /// in that snapshot: the applier may be further than this peer knows.
    pub(crate) fn serve_reads<A>(&mut self, out: &mut Vec<Output<A>>) {
        if self.installing.is_some() {
            return;
        }
        let applied = self.applied.index;
        let waiting = std::mem::take(&mut self.reads_at);
        for (index, read) in waiting {
            if applied < index && !mutant!("read_before_applied") {
                self.reads_at.push_back((index, read));
                continue;
            }
            out.push(Output::Read {
                token: read.token,
                region_id: self.region_id(),
                version: read.version,
                term: read.term,
            });
        }
    }

    fn send<A>(&self, message: Message, out: &mut Vec<Output<A>>) {
        // Who is not known is found again when it speaks.
        let Some(to) = self.find(message.to) else { return };
        let message = StoreMessage {
            region_id: self.region_id(),
            from: self.member(),
            to,
            epoch: self.region.epoch,
            body: message::MessageBody::Raft { message, range: self.region.range.clone() },
        };
        out.push(Output::Send(Box::new(message)));
    }

    /// Says something to a member that is not of the Raft group's own messages.
    pub(crate) fn say<A>(&self, to: Member, body: message::MessageBody) -> Output<A> {
        let (region_id, from, epoch) = (self.region_id(), self.member(), self.region.epoch);
        Output::Send(Box::new(StoreMessage { region_id, from, to, epoch, body }))
    }

    /// Performs an effect on the peer itself. Returns where a snapshot stood that is of no use any more.
    pub(crate) fn take_effect(&mut self, effect: &Effect) -> Option<ApplyState> {
        // Nobody should be long without knowing it: the regions of a split vote for themselves.
        self.node.tell_commit();
        let dropped = match effect {
            Effect::CompactLog { .. } | Effect::Hash(_) | Effect::VerifyHash { .. } => None,
            _ => self.node.storage().drop_snapshot(),
        };
        match effect {
            Effect::Members { change, region } => {
                self.node.apply_conf_change(change);
                self.region = region.clone();
                self.addresses.retain(|id, _| region.peers.iter().all(|peer| peer.id != *id));
                self.is_removed = region.peers.iter().all(|peer| peer.id != self.id);
            }
            Effect::Split { regions } => self.region = regions[0].clone(),
            Effect::Installed { region } => {
                self.region = region.clone();
                self.installing = None;
            }
            Effect::CompactLog { .. }
            | Effect::Hash(_)
            | Effect::VerifyHash { .. }
            | Effect::Destroyed => {}
        }
        dropped
    }
}

/// Whether a Raft message comes from a leader.
pub(crate) fn is_from_leader(body: &MessageBody) -> bool {
    matches!(
        body,
        MessageBody::Append { .. } | MessageBody::Heartbeat { .. } | MessageBody::Snapshot(_)
    )
}
