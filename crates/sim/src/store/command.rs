//! What clients write, and the state machine that carries it out.

use raftstore::{Machine, apply::Changes};
use types::{
    Bytes, Cf, Modify,
    codec::{Reader, Writer},
};

const PUT: u8 = 0;
const DELETE: u8 = 1;
const SWAP: u8 = 2;
const CHANGES: u8 = 3;

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Writes this value.
    Put(u64),
    /// Removes what is there.
    Delete,
    /// Writes `new` if `expected` is there.
    Swap { expected: Option<u64>, new: u64 },
}

impl Command {
    pub(super) fn encode(self, key: &Bytes) -> Bytes {
        let mut writer = Writer::new();
        match self {
            Command::Put(value) => writer.u8(PUT).bytes(key).u64(value),
            Command::Delete => writer.u8(DELETE).bytes(key),
            Command::Swap { expected, new } => {
                writer.u8(SWAP).bytes(key).u64(expected.unwrap_or(0)).u64(new)
            }
        };
        writer.finish().into()
    }
}

/// What a transaction has decided to change.
pub(super) fn encode_changes(changes: &[Modify]) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(CHANGES).u32(changes.len() as u32);
    for change in changes {
        match change {
            Modify::Put { cf, key, value } => {
                writer.u8(PUT).u8(cf_byte(*cf)).bytes(key).bytes(value)
            }
            Modify::Delete { cf, key } => writer.u8(DELETE).u8(cf_byte(*cf)).bytes(key),
            Modify::DeleteRange { .. } => unreachable!("no transaction removes a range"),
        };
    }
    writer.finish().into()
}

fn decode_changes(reader: &mut Reader<'_>) -> Result<Vec<Modify>, types::codec::DecodeError> {
    let mut changes = Vec::new();
    for _ in 0..reader.u32()? {
        let (kind, cf) = (reader.u8()?, Cf::ALL[usize::from(reader.u8()?)]);
        let key = reader.owned()?;
        changes.push(match kind {
            PUT => Modify::Put { cf, key, value: reader.owned()? },
            _ => Modify::Delete { cf, key },
        });
    }
    Ok(changes)
}

fn cf_byte(cf: Cf) -> u8 {
    Cf::ALL.iter().position(|other| *other == cf).expect("all are there") as u8
}

/// The state machine of every replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kv {
    /// Bytes of each value beside its number.
    pub(super) padding: usize,
}

impl Machine for Kv {
    /// What was there before; 0: nothing.
    type Answer = u64;

    fn apply(&mut self, command: &Bytes, changes: &mut Changes<'_>) -> Result<u64, engine::Error> {
        let mut reader = Reader::new(command);
        if reader.u8() == Ok(CHANGES) {
            let decided = decode_changes(&mut reader).expect("commands arrive as they were sent");
            decided.into_iter().for_each(|change| changes.push(change));
            return Ok(0);
        }
        let parse = |reader: &mut Reader<'_>| {
            let (kind, key) = (reader.u8()?, reader.owned()?);
            let (expected, new) = match kind {
                PUT => (None, Some(reader.u64()?)),
                DELETE => (None, None),
                _ => (Some(reader.u64()?), Some(reader.u64()?)),
            };
            Ok::<_, types::codec::DecodeError>((key, expected, new))
        };
        let (key, expected, new) =
            parse(&mut Reader::new(command)).expect("commands arrive as they were sent");
        let cf = Cf::Default;
        let before = changes.get(cf, &key)?.map_or(0, |bytes| value_of(&bytes));
        if expected.is_none_or(|expected| expected == before) {
            changes.push(match new {
                Some(value) => Modify::Put { cf, key, value: stored(value, self.padding) },
                None => Modify::Delete { cf, key },
            });
        }
        Ok(before)
    }
}

/// A value as it is stored: its number, and bytes that follow from it.
fn stored(value: u64, padding: usize) -> Bytes {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(8 + padding, value as u8);
    bytes.into()
}

/// The number of a stored value.
pub(super) fn value_of(bytes: &[u8]) -> u64 {
    let (number, padding) = bytes.split_first_chunk().expect("a stored value has a number");
    let value = u64::from_be_bytes(*number);
    assert!(padding.iter().all(|byte| *byte == value as u8), "a stored value is whole");
    value
}
