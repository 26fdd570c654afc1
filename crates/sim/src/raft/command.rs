//! What clients write, and the state machine that the log drives: registers, and a chain over everything applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{Entry, EntryKind};
use types::codec::{DecodeError, Reader, Writer};

use crate::hash::{fingerprint, mix};

/// A write of a register. Its value is unique in a run, and so is its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The register.
    pub(crate) key: u64,
    /// The value; not 0.
    pub(crate) value: u64,
}

impl Command {
    /// The data of an entry, made longer by `padding` bytes.
    pub(crate) fn encode(&self, padding: usize) -> Bytes {
        let mut writer = Writer::new();
        writer.u64(self.key).u64(self.value).bytes(&vec![self.value as u8; padding]);
        Bytes::from(writer.finish())
    }

    /// Reads what [`encode`](Command::encode) has written.
    ///
    /// # Errors
    /// The bytes are no command.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let mut reader = Reader::new(bytes);
        let command = Command { key: reader.u64()?, value: reader.u64()? };
        reader.bytes()?;
        reader.finish()?;
        Ok(command)
    }

    /// The command of an entry, if it is one.
    pub(crate) fn of(entry: &Entry) -> Option<Command> {
        if entry.kind != EntryKind::Normal || entry.data.is_empty() {
            return None;
        }
        Some(Command::decode(&entry.data).expect("an entry is what somebody has proposed"))
    }
}

/// A number that stands for an entry's kind and content.
pub(crate) fn entry_fingerprint(entry: &Entry) -> u64 {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
    };
    mix(fingerprint(&entry.data) ^ kind)
}

/// The index and the term at which a group begins. Who joins later gets a snapshot, and by it the first members, which
/// are in no entry.
pub(crate) const FOUNDED: (u64, u64) = (5, 5);

/// What the log has made of the state so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The index of the last entry that is in it.
    pub(crate) applied: u64,
    /// The term of that entry.
    pub(crate) term: u64,
    /// A hash over all entries so far, in order: two states with the same chain have the same past.
    pub(crate) chain: u64,
    /// The registers that were ever written.
    pub(crate) registers: BTreeMap<u64, u64>,
}

impl State {
    /// The state with which a group begins.
    pub(crate) fn founding() -> State {
        State { applied: FOUNDED.0, term: FOUNDED.1, ..State::default() }
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order, each once");
        self.applied = entry.index;
        self.term = entry.term;
        self.chain = mix(self.chain ^ entry_fingerprint(entry)) ^ mix(entry.term);
        if let Some(Command { key, value }) = Command::of(entry) {
            self.registers.insert(key, value);
        }
    }

    /// A number that stands for all of it.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.registers.iter().fold(mix(self.chain ^ self.applied), |hash, (key, value)| {
            mix(hash ^ mix(*key) ^ value)
        })
    }

    /// Its bytes, for snapshots and checkpoints.
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u64(self.applied).u64(self.term).u64(self.chain);
        writer.u32(u32::try_from(self.registers.len()).expect("there are few registers"));
        for (key, value) in &self.registers {
            writer.u64(*key).u64(*value);
        }
        Bytes::from(writer.finish())
    }

    /// Reads what [`encode`](State::encode) has written.
    ///
    /// # Errors
    /// The bytes are no state.
    pub(crate) fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut state = State {
            applied: reader.u64()?,
            term: reader.u64()?,
            chain: reader.u64()?,
            registers: BTreeMap::new(),
        };
        for _ in 0..reader.u32()? {
            state.registers.insert(reader.u64()?, reader.u64()?);
        }
        reader.finish()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, data: Bytes) -> Entry {
        Entry { term: 1, index, kind: EntryKind::Normal, data }
    }

    #[test]
    fn a_state_comes_back_and_its_chain_knows_the_order() {
        let one = Command { key: 1, value: 10 }.encode(3);
        let two = Command { key: 2, value: 20 }.encode(0);
        let mut state = State::default();
        state.apply(&entry(1, one.clone()));
        state.apply(&entry(2, two.clone()));
        assert_eq!(State::decode(&state.encode()).unwrap(), state);

        let mut other = State::default();
        other.apply(&entry(1, two));
        other.apply(&entry(2, one));
        assert_eq!(other.registers, state.registers);
        assert_ne!(other.fingerprint(), state.fingerprint());
    }

    #[test]
    fn noops_and_changes_of_members_are_in_the_chain_alone() {
        let mut state = State::default();
        state.apply(&entry(1, Bytes::new()));
        assert!(state.registers.is_empty() && state.chain != 0);
    }
}
