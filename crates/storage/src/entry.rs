//! A command as it lies in a log entry: `version u8 | kind u8 | fields`. docs/formats.md describes every byte.
//!
//! Integers are big-endian, strings have their length before them (`types::codec`). Every replica decodes the same
//! bytes; a version or kind that is not known stops the store, since it could not stay equal to the others.

use types::{
    Bytes, Cf, KeyRange, Modify, TimeStamp,
    codec::{DecodeError, Reader, Writer},
};

use crate::command::{Action, CompareAndSwap};

const VERSION: u8 = 1;

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;
const CHANGES: u8 = 3;
const COMPARE_AND_SWAP: u8 = 4;
const REMOVE_EXPIRED: u8 = 5;
const COLLECT: u8 = 6;

/// The bytes of a command.
pub(crate) fn encode(action: &Action) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(VERSION);
    match action {
        Action::Change(change) => put_change(&mut writer, change),
        Action::Changes(changes) => {
            writer.u8(CHANGES).u32(count(changes.len()));
            for change in changes {
                put_change(&mut writer, change);
            }
        }
        Action::Collect { safe_point, changes } => {
            writer.u8(COLLECT).u64(safe_point.0).u32(count(changes.len()));
            for change in changes {
                put_change(&mut writer, change);
            }
        }
        Action::CompareAndSwap(CompareAndSwap { cf, key, expected, new, now_ms }) => {
            writer.u8(COMPARE_AND_SWAP).u8(cf.to_byte()).bytes(key).u64(*now_ms);
            put_option(&mut writer, expected.as_ref());
            put_option(&mut writer, new.as_ref());
        }
        Action::RemoveExpired { now_ms, keys } => {
            writer.u8(REMOVE_EXPIRED).u64(*now_ms).u32(count(keys.len()));
            for (cf, key) in keys {
                writer.u8(cf.to_byte()).bytes(key);
            }
        }
    }
    writer.finish().into()
}

/// Reads what [`encode`] wrote. Keys and values are slices of `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Action, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Newer { found: version.into(), known: VERSION.into() });
    }
    let action = match reader.u8()? {
        CHANGES => Action::Changes(get_changes(bytes, &mut reader)?),
        COLLECT => Action::Collect {
            safe_point: TimeStamp(reader.u64()?),
            changes: get_changes(bytes, &mut reader)?,
        },
        COMPARE_AND_SWAP => Action::CompareAndSwap(CompareAndSwap {
            cf: get_cf(&mut reader)?,
            key: get_slice(bytes, &mut reader)?,
            now_ms: reader.u64()?,
            expected: get_option(bytes, &mut reader)?,
            new: get_option(bytes, &mut reader)?,
        }),
        REMOVE_EXPIRED => {
            let now_ms = reader.u64()?;
            let mut keys = Vec::new();
            for _ in 0..reader.u32()? {
                keys.push((get_cf(&mut reader)?, get_slice(bytes, &mut reader)?));
            }
            Action::RemoveExpired { now_ms, keys }
        }
        kind => Action::Change(get_change(kind, bytes, &mut reader)?),
    };
    reader.finish().map(|()| action)
}

fn put_change(writer: &mut Writer, change: &Modify) {
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

fn get_changes(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Vec<Modify>, DecodeError> {
    let mut changes = Vec::new();
    for _ in 0..reader.u32()? {
        let kind = reader.u8()?;
        changes.push(get_change(kind, bytes, reader)?);
    }
    Ok(changes)
}

fn get_change(kind: u8, bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Modify, DecodeError> {
    let cf = get_cf(reader)?;
    let key = get_slice(bytes, reader)?;
    match kind {
        PUT => Ok(Modify::Put { cf, key, value: get_slice(bytes, reader)? }),
        DELETE => Ok(Modify::Delete { cf, key }),
        DELETE_RANGE => {
            let range = KeyRange { start: key, end: get_slice(bytes, reader)? };
            Ok(Modify::DeleteRange { cf, range })
        }
        _ => Err(DecodeError::Invalid("kind of command")),
    }
}

fn get_cf(reader: &mut Reader<'_>) -> Result<Cf, DecodeError> {
    Cf::from_byte(reader.u8()?).ok_or(DecodeError::Invalid("column family"))
}

fn get_slice(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    reader.bytes().map(|slice| bytes.slice_ref(slice))
}

fn put_option(writer: &mut Writer, value: Option<&Bytes>) {
    match value {
        Some(value) => writer.u8(1).bytes(value),
        None => writer.u8(0),
    };
}

fn get_option(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Option<Bytes>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => get_slice(bytes, reader).map(Some),
        _ => Err(DecodeError::Invalid("mark of an optional value")),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("an entry is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn every_command_is_read_back() {
        let put = Modify::Put { cf: Cf::Write, key: bytes("k"), value: bytes("") };
        let delete = Modify::Delete { cf: Cf::Lock, key: bytes("k") };
        let range = Modify::DeleteRange { cf: Cf::Default, range: KeyRange::new("a", "") };
        let cas = CompareAndSwap {
            cf: Cf::Default,
            key: bytes("k"),
            expected: Some(bytes("")),
            new: None,
            now_ms: 7,
        };
        let expired = vec![(Cf::Default, bytes("k")), (Cf::Write, bytes("l"))];
        for action in [
            Action::Change(put.clone()),
            Action::Collect { safe_point: TimeStamp(9), changes: vec![delete.clone()] },
            Action::Changes(vec![put, delete, range]),
            Action::Changes(Vec::new()),
            Action::CompareAndSwap(cas),
            Action::RemoveExpired { now_ms: 1 << 40, keys: expired },
        ] {
            let encoded = encode(&action);
            assert_eq!(decode(&encoded), Ok(action));
            for cut in 0..encoded.len() {
                assert!(decode(&encoded.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_put_has_its_golden_bytes() {
        let put = Modify::Put { cf: Cf::Default, key: bytes("k"), value: bytes("vw") };
        let golden = [1, 0, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 2, b'v', b'w'];
        assert_eq!(&encode(&Action::Change(put))[..], golden);
        assert_eq!(
            decode(&Bytes::from_static(&[2])),
            Err(DecodeError::Newer { found: 2, known: 1 })
        );
    }

    #[test]
    fn a_removal_of_versions_has_its_golden_bytes() {
        let changes = vec![Modify::Delete { cf: Cf::Write, key: bytes("k") }];
        let golden = [1, 6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, b'k'];
        let collect = Action::Collect { safe_point: TimeStamp(9), changes };
        assert_eq!(&encode(&collect)[..], golden);
    }
}
