//! The state machine of the stores in a box: changes of pairs, nothing more.

use types::{
    Bytes, Cf, KeyRange, Modify,
    codec::{Reader, Writer},
};

use crate::apply::{Changes, Machine};

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;

/// Makes changes; answers what was there before the first one of a single key.
#[derive(Debug)]
pub struct KvMachine;

impl Machine for KvMachine {
    type Answer = Option<Bytes>;

    fn apply(
        &mut self,
        command: &Bytes,
        changes: &mut Changes<'_>,
    ) -> Result<Option<Bytes>, engine::Error> {
        let mut before = None;
        for change in decode(command) {
            if let Modify::Put { cf, key, .. } | Modify::Delete { cf, key } = &change {
                before = before.or(changes.get(*cf, key)?);
            }
            changes.push(change);
        }
        Ok(before)
    }
}

/// The command that makes `changes`.
pub fn command(changes: &[Modify]) -> Bytes {
    let mut writer = Writer::new();
    for change in changes {
        match change {
            Modify::Put { cf, key, value } => {
                writer.u8(PUT).u8(cf.to_byte()).bytes(key).bytes(value);
            }
            Modify::Delete { cf, key } => {
                writer.u8(DELETE).u8(cf.to_byte()).bytes(key);
            }
            Modify::DeleteRange { cf, range } => {
                writer.u8(DELETE_RANGE).u8(cf.to_byte()).bytes(&range.start).bytes(&range.end);
            }
        }
    }
    writer.finish().into()
}

fn decode(command: &Bytes) -> Vec<Modify> {
    let mut reader = Reader::new(command);
    let mut changes = Vec::new();
    while reader.remaining() > 0 {
        let kind = reader.u8().unwrap();
        let cf = Cf::from_byte(reader.u8().unwrap()).unwrap();
        let key = reader.owned().unwrap();
        changes.push(match kind {
            PUT => Modify::Put { cf, key, value: reader.owned().unwrap() },
            DELETE => Modify::Delete { cf, key },
            _ => {
                let range = KeyRange { start: key, end: reader.owned().unwrap() };
                Modify::DeleteRange { cf, range }
            }
        });
    }
    changes
}

/// The change that puts a pair into the default family.
pub fn put(key: &str, value: &str) -> Modify {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), value.as_bytes());
    Modify::Put { cf: Cf::Default, key, value: Bytes::copy_from_slice(value) }
}
