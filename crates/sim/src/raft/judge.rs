//! Hears everything that clients and processes say, and hands it to the checkers.

use std::collections::BTreeMap;

use raft::{ConfState, Storage};

use super::{
    command::{Command, FOUNDED, entry_fingerprint},
    log::DiskLog,
    node::Report,
};
use crate::checker::{
    Verdict, Violation, acknowledged::Acknowledged, applied::Applied, committed::Committed,
    leaders::Leaders, order::Order, registers::Register, votes::Votes,
};

/// All checkers of a group, and what they have been told.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    leaders: Leaders,
    votes: Votes,
    committed: Committed,
    /// The write at each committed index, from the first after the founding on.
    writes_at: Vec<Option<u64>>,
    applied: Applied,
    orders: BTreeMap<u64, Order>,
    acknowledged: Acknowledged,
    registers: BTreeMap<u64, Register>,
    /// Numbers what happens, so that no two moments are the same.
    moment: u64,
    /// The register of each write.
    writes: BTreeMap<u64, u64>,
    /// The register and the beginning of each read that waits.
    reads: BTreeMap<u64, (u64, u64)>,
    /// The newest members that anybody has applied, and where in the log.
    members: (u64, ConfState),
    /// Answers that clients got.
    pub(crate) answers: Answers,
}

/// How many answers clients got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Writes that were reported lost.
    pub lost: u64,
    /// Writes and reads that were not taken.
    pub refused: u64,
}

impl Judge {
    /// The judge of a group that begins with these members.
    pub(crate) fn new(members: ConfState) -> Judge {
        let committed = Committed::after(FOUNDED.0);
        Judge { members: (FOUNDED.0, members), committed, ..Judge::default() }
    }

    /// A client asks for a write.
    pub(crate) fn write_begins(&mut self, command: Command) {
        self.moment += 1;
        self.writes.insert(command.value, command.key);
        self.registers.entry(command.key).or_default().write_begins(command.value, self.moment);
    }

    /// A client asks for a read.
    pub(crate) fn read_begins(&mut self, id: u64, key: u64) {
        self.moment += 1;
        self.reads.insert(id, (key, self.moment));
    }

    /// The newest members that anybody has applied, and where in the log.
    pub(crate) fn members(&self) -> (u64, &ConfState) {
        (self.members.0, &self.members.1)
    }

    /// The last index that anybody knows to be committed.
    pub(crate) fn last_committed(&self) -> u64 {
        self.committed.last()
    }

    /// The fingerprint of the state after `index`.
    pub(crate) fn state(&self, index: u64) -> Option<u64> {
        self.applied.state(index)
    }

    /// Terms that had a leader.
    pub(crate) fn elections(&self) -> u64 {
        self.leaders.elections()
    }

    /// Operations on registers, and how many of them were never answered.
    pub(crate) fn operations(&self) -> (u64, u64) {
        self.registers.values().fold((0, 0), |(all, open), register| {
            (all + register.operations(), open + register.open())
        })
    }

    /// A commit that this peer made durable: it knows of it at every start.
    pub(crate) fn durable_commit(&self, peer: u64) -> u64 {
        self.orders.get(&peer).map_or(0, |order| order.durable().committed)
    }

    /// What a process says. `log` is its log right after.
    ///
    /// # Errors
    /// A property does not hold.
    pub(crate) fn hear(&mut self, report: Report, log: Option<&DiskLog>) -> Verdict {
        match report {
            Report::Started { peer, numbers, fingerprint } => {
                self.orders.entry(peer).or_default().starts(peer, numbers)?;
                self.applied.starts(peer, numbers.applied, fingerprint)?;
            }
            Report::Voted { peer, term, candidate } => self.votes.given(peer, term, candidate)?,
            Report::Leads { peer, term } => {
                self.leaders.leads(peer, term)?;
                if let Some(log) = log {
                    let before = log.first_index() - 1;
                    self.committed.leads(peer, term, before, |index| log.term(index).ok())?;
                }
            }
            Report::Follows | Report::Campaigns | Report::Confirms { .. } => {}
            Report::Committed { peer, known_in, entry } => {
                let known = self.committed.last();
                let fingerprint = entry_fingerprint(&entry);
                self.committed.commit(peer, known_in, entry.index, entry.term, fingerprint)?;
                if known < self.committed.last() {
                    self.writes_at.push(Command::of(&entry).map(|command| command.value));
                }
            }
            Report::Applied { peer, index, fingerprint } => {
                self.applied.applies(peer, index, fingerprint)?;
            }
            Report::Restored { peer, index, fingerprint } => {
                self.applied.starts(peer, index, fingerprint)?;
            }
            Report::Numbers { peer, numbers } => {
                self.orders.entry(peer).or_default().is_at(peer, numbers)?;
            }
            Report::Durable { peer, numbers } => {
                self.orders.entry(peer).or_default().is_durable(numbers);
            }
            Report::Members { index, conf } => {
                if self.members.0 < index {
                    self.members = (index, conf);
                }
            }
            Report::Broken { peer, error } => {
                return Err(Violation::new(
                    "the core keeps its contract",
                    format!("{peer}: {error}"),
                ));
            }
            Report::DiskFailed => {}
            Report::Written { .. }
            | Report::Lost { .. }
            | Report::Refused { .. }
            | Report::Read { .. }
            | Report::ReadRefused { .. } => self.answered(report)?,
        }
        Ok(())
    }

    fn answered(&mut self, report: Report) -> Verdict {
        self.moment += 1;
        match report {
            Report::Written { value, index } => {
                self.answers.written += 1;
                self.acknowledged.kept(value, index)?;
                let moment = self.moment;
                if let Some(register) = self.register_of(value) {
                    register.write_ends(value, moment);
                }
            }
            Report::Lost { value, index } => {
                self.answers.lost += 1;
                self.acknowledged.lost(value, index)?;
                if let Some(register) = self.register_of(value) {
                    register.write_failed(value);
                }
            }
            Report::Refused { value } => {
                self.answers.refused += 1;
                if let Some(register) = self.register_of(value) {
                    register.write_failed(value);
                }
            }
            Report::Read { id, value } => {
                self.answers.read += 1;
                if let Some((key, begin)) = self.reads.remove(&id) {
                    self.registers.entry(key).or_default().read(value, begin, self.moment);
                }
            }
            Report::ReadRefused { id } => {
                self.answers.refused += 1;
                self.reads.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    fn register_of(&mut self, value: u64) -> Option<&mut Register> {
        self.registers.get_mut(self.writes.get(&value)?)
    }

    /// What can only be judged in the end.
    ///
    /// # Errors
    /// A property does not hold.
    pub(crate) fn finish(&self) -> Verdict {
        self.acknowledged.check(self.committed.last(), |index| {
            let at = usize::try_from(index.checked_sub(FOUNDED.0 + 1)?).ok()?;
            self.writes_at.get(at).copied().flatten()
        })?;
        for (key, register) in &self.registers {
            register.check().map_err(|violation| {
                Violation::new(violation.property, format!("register {key}: {}", violation.details))
            })?;
        }
        Ok(())
    }
}
