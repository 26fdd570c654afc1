//! Under which key a record lies.
//!
//! All three column families order by the memcomparable form of the user's key ([`types::key`]), so that a region's
//! bounds cut them at the same place. Locks lie under it as it is; commit records and values have a timestamp behind
//! it, inverted, so that the newest version of a key comes first.

use types::{Bytes, KeyRange, TimeStamp, key};

/// Bytes of the timestamp behind a versioned key.
const TIMESTAMP: usize = 8;

/// A user's key together with its stored form, so that it is encoded once a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    encoded: Bytes,
    user: Bytes,
}

impl Key {
    /// The key of the user.
    pub fn new(user: impl Into<Bytes>) -> Key {
        let user = user.into();
        Key { encoded: key::encode(&user), user }
    }

    /// As the user has it, and as it stands in answers.
    pub fn user(&self) -> &Bytes {
        &self.user
    }

    /// Where its lock lies, and what its versions begin with.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Where its version of `ts` lies: a commit record by its commit timestamp, a value by its start timestamp.
    pub fn at(&self, ts: TimeStamp) -> Bytes {
        versioned(&self.encoded, ts)
    }

    /// The stored keys of all its versions.
    pub fn versions(&self) -> KeyRange {
        KeyRange::new(self.encoded.clone(), past_versions(&self.encoded))
    }
}

/// The stored key of the version `ts` of a key in its memcomparable form.
pub(crate) fn versioned(encoded: &[u8], ts: TimeStamp) -> Bytes {
    let mut stored = Vec::with_capacity(encoded.len() + TIMESTAMP);
    stored.extend_from_slice(encoded);
    stored.extend_from_slice(&(!ts.0).to_be_bytes());
    stored.into()
}

/// The first stored key behind every version of a key in its memcomparable form.
pub(crate) fn past_versions(encoded: &[u8]) -> Bytes {
    let mut stored = Vec::with_capacity(encoded.len() + TIMESTAMP + 1);
    stored.extend_from_slice(encoded);
    stored.extend_from_slice(&[u8::MAX; TIMESTAMP]);
    stored.push(0);
    stored.into()
}

/// Cuts the stored key of a version into the memcomparable key and the timestamp; `None` if it is too short.
pub fn split_version(stored: &[u8]) -> Option<(&[u8], TimeStamp)> {
    let (encoded, ts) = stored.split_last_chunk::<TIMESTAMP>()?;
    Some((encoded, TimeStamp(!u64::from_be_bytes(*ts))))
}

/// The stored keys of the locks and of the versions of the user's keys in `range`: both, because a version's key is
/// longer than, and so behind, the memcomparable key that it begins with.
pub fn stored_range(range: &KeyRange) -> KeyRange {
    let end = if range.end.is_empty() { Bytes::new() } else { key::encode(&range.end) };
    let start = if range.start.is_empty() { Bytes::new() } else { key::encode(&range.start) };
    KeyRange { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_key_and_then_from_new_to_old() {
        let (a, b) = (Key::new("a"), Key::new("a\0"));
        assert!(a.at(TimeStamp(2)) < a.at(TimeStamp(1)));
        assert!(a.at(TimeStamp(0)) < b.at(TimeStamp::MAX));
        assert!(a.encoded() < &a.at(TimeStamp::MAX));
        assert_eq!(split_version(&a.at(TimeStamp(7))), Some((&a.encoded()[..], TimeStamp(7))));
        assert_eq!(split_version(b"short"), None);
    }

    #[test]
    fn a_version_has_its_golden_bytes() {
        let golden = [42, 0, 0, 0, 0, 0, 0, 0, 0xf8, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(&Key::new(&[42][..]).at(TimeStamp(0))[..], golden);
    }

    #[test]
    fn all_versions_of_a_key_and_no_other_lie_in_its_range() {
        let range = Key::new("k").versions();
        for ts in [TimeStamp::ZERO, TimeStamp(5), TimeStamp::MAX] {
            assert!(range.contains(&Key::new("k").at(ts)));
            assert!(!range.contains(&Key::new("k\0").at(ts)));
            assert!(!range.contains(&Key::new("j").at(ts)));
        }
    }

    #[test]
    fn a_range_of_user_keys_holds_their_versions_and_not_those_of_its_end() {
        let range = stored_range(&KeyRange::new("b", "d"));
        for (key, inside) in [("a", false), ("b", true), ("c", true), ("d", false)] {
            assert_eq!(range.contains(Key::new(key).encoded()), inside);
            assert_eq!(range.contains(&Key::new(key).at(TimeStamp(9))), inside);
        }
        assert_eq!(stored_range(&KeyRange::all()), KeyRange::all());
    }
}
