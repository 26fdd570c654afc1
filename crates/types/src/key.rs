//! Keys: ranges and the memcomparable encoding.
//!
//! The memcomparable encoding (`mce`) keeps the order of byte strings although something is appended: eight bytes
//! of key are followed by a marker, `0xFF` when another group follows, else `0xFF` minus the number of zero bytes
//! that fill the group up. It is TiKV's and MyRocks' layout. Transactional keys and every key of API V2 are stored
//! in it; region bounds are then whole groups.

use crate::Bytes;

/// Bytes of key in a group.
const GROUP: usize = 8;
/// Bytes of a group with its marker.
const ENCODED_GROUP: usize = GROUP + 1;
/// The marker of a full group.
const MARKER: u8 = 0xFF;

/// Keys from `start` on, up to but without `end`. An empty `start` is before every key, an empty `end` after all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The key after the last; empty for no bound.
    pub end: Bytes,
}

impl KeyRange {
    /// A range from `start` up to but without `end`.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: start.into(), end: end.into() }
    }

    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange::default()
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        &self.start[..] <= key && (self.end.is_empty() || key < &self.end[..])
    }

    /// Whether no key lies inside.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end <= self.start
    }

    /// Whether every key of `other` lies inside.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.start <= other.start
            && (self.end.is_empty() || (!other.end.is_empty() && other.end <= self.end))
    }

    /// The keys that lie in both; empty (`end <= start`) when there are none.
    pub fn intersect(&self, other: &KeyRange) -> KeyRange {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        KeyRange { start, end }
    }
}

/// Length of the memcomparable form of a key of `len` bytes.
pub const fn encoded_len(len: usize) -> usize {
    (len / GROUP + 1) * ENCODED_GROUP
}

/// Appends the memcomparable form of `key` to `out`.
pub fn encode_into(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_len(key.len()));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let rest = groups.remainder();
    let padding = GROUP - rest.len();
    out.extend_from_slice(rest);
    out.resize(out.len() + padding, 0);
    out.push(MARKER - padding as u8);
}

/// The memcomparable form of `key`.
pub fn encode(key: &[u8]) -> Bytes {
    let mut out = Vec::new();
    encode_into(key, &mut out);
    out.into()
}

/// Reads one memcomparable key at the front of `encoded`; returns it and how many bytes it took.
///
/// `None`: cut short, a marker that no encoder writes, or fill bytes that are not zero.
pub fn decode(encoded: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut key = Vec::with_capacity(encoded.len() / ENCODED_GROUP * GROUP);
    for (i, group) in encoded.chunks(ENCODED_GROUP).enumerate() {
        if group.len() < ENCODED_GROUP {
            return None;
        }
        let padding = usize::from(MARKER - group[GROUP]);
        if padding == 0 {
            key.extend_from_slice(&group[..GROUP]);
            continue;
        }
        if padding > GROUP || group[GROUP - padding..GROUP].iter().any(|&b| b != 0) {
            return None;
        }
        key.extend_from_slice(&group[..GROUP - padding]);
        return Some((key, (i + 1) * ENCODED_GROUP));
    }
    None
}

/// How many bytes at the front of `encoded` are one memcomparable key; `None` as for [`decode`]. Copies nothing.
pub fn encoded_prefix_len(encoded: &[u8]) -> Option<usize> {
    let is_last = |group: &[u8]| group.len() < ENCODED_GROUP || group[GROUP] != MARKER;
    let at = encoded.chunks(ENCODED_GROUP).position(is_last)?;
    let group = &encoded[at * ENCODED_GROUP..];
    let padding = usize::from(MARKER - group.get(GROUP)?);
    let is_filled = padding <= GROUP && group[GROUP - padding..GROUP].iter().all(|&byte| byte == 0);
    is_filled.then_some((at + 1) * ENCODED_GROUP)
}

/// Reads a stored key that is one memcomparable key and nothing else.
pub fn decode_exact(encoded: &[u8]) -> Option<Vec<u8>> {
    decode(encoded).filter(|(_, read)| *read == encoded.len()).map(|(key, _)| key)
}

/// The smallest key that is greater than every key that begins with `prefix`; empty (no bound) if there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            break;
        }
        end.pop();
    }
    end
}

/// `key` as people see it in errors and logs: text where printable, `\xNN` elsewhere, at most 64 bytes of it.
pub fn display(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut out = String::new();
    for &byte in key.iter().take(SHOWN) {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if key.len() > SHOWN {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_has_tikvs_bytes() {
        let cases: [(&[u8], &[u8]); 4] = [
            (b"", &[0, 0, 0, 0, 0, 0, 0, 0, 0xf7]),
            (&[1, 2, 3], &[1, 2, 3, 0, 0, 0, 0, 0, 0xfa]),
            (
                &[1, 2, 3, 4, 5, 6, 7, 8],
                &[1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0xf7],
            ),
            (b"r\0\0\0", &[b'r', 0, 0, 0, 0, 0, 0, 0, 0xfb]),
        ];
        for (key, encoded) in cases {
            assert_eq!(&encode(key)[..], encoded);
            assert_eq!(encoded_len(key.len()), encoded.len());
            assert_eq!(decode(encoded), Some((key.to_vec(), encoded.len())));
        }
    }

    #[test]
    fn encoding_keeps_order_and_comes_back() {
        let mut rng = 0x9e37_79b9_u64;
        let mut next = || {
            rng =
                rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rng >> 33
        };
        let keys: Vec<Vec<u8>> = (0..400)
            .map(|_| (0..next() % 20).map(|_| [0, 1, 0xfe, 0xff][next() as usize % 4]).collect())
            .collect();
        for a in &keys {
            assert_eq!(decode_exact(&encode(a)).as_ref(), Some(a));
            let versioned = [&encode(a)[..], &[0xff; 8]].concat();
            assert_eq!(encoded_prefix_len(&versioned), Some(encoded_len(a.len())));
            for b in &keys {
                assert_eq!(a.cmp(b), encode(a).cmp(&encode(b)));
            }
        }
    }

    #[test]
    fn damaged_encodings_are_refused() {
        for damaged in [
            &[][..],
            &[1, 2, 3],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0xff],
            &[1, 0, 0, 0, 0, 0, 0, 9, 0xf8],
            &[1, 0, 0, 0, 0, 0, 0, 9, 0xf6],
        ] {
            assert_eq!(encoded_prefix_len(damaged), None);
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[1, 2, 3]), None);
        assert_eq!(
            decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff]),
            None,
            "a group that announces another one"
        );
        assert_eq!(decode(&[1, 0, 0, 0, 0, 0, 0, 9, 0xf8]), None, "fill bytes that are not zero");
        assert_eq!(
            decode(&[0, 0, 0, 0, 0, 0, 0, 0, 0x10]),
            None,
            "a marker that no encoder writes"
        );
        assert_eq!(decode_exact(&[0, 0, 0, 0, 0, 0, 0, 0, 0xf7, 1]), None, "bytes behind the key");
    }

    #[test]
    fn ranges() {
        let range = KeyRange::new("b", "d");
        assert!(
            !range.contains(b"a")
                && range.contains(b"b")
                && range.contains(b"c\xff")
                && !range.contains(b"d")
        );
        assert!(KeyRange::all().covers(&range) && !range.covers(&KeyRange::all()));
        assert_eq!(range.intersect(&KeyRange::new("c", "")), KeyRange::new("c", "d"));
        assert!(range.intersect(&KeyRange::new("x", "")).is_empty());
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"");
    }
}
