//! Which keys a raw request may name in each API mode, and how they are stored.
//!
//! In v1 and v1ttl the stored key is the user's key. In v2 it is the memcomparable form of the user's key, which
//! begins with `r` and three bytes of keyspace id; those keys form the *raw key space*, and no raw request leaves it,
//! since the transactional keys of the same cluster lie beside it.
//!
//! An empty key is refused in every mode, by reads as well: no engine stores one, and in v2 it has no prefix.

use std::borrow::Cow;

use types::{ApiMode, ApiVersion, Bytes, KeyMode, KeyRange, key, limits};

use crate::{Error, Result};

/// The first byte of a raw key in v2.
const RAW_PREFIX: u8 = b'r';
/// The key after the last raw key in v2.
const RAW_END: &[u8] = b"s";
/// The first byte and the keyspace id.
const KEYSPACE_PREFIX_BYTES: usize = 4;
/// Longest bound of a range: clients make the key after `k` by appending a zero byte.
const BOUND_BYTES_MAX: usize = limits::KEY_BYTES_MAX + 1;

/// How the keys of a cluster lie in its stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    api: ApiMode,
}

impl Layout {
    /// The layout of a cluster of mode `api`.
    pub(crate) fn new(api: ApiMode) -> Layout {
        Layout { api }
    }

    /// The mode.
    pub(crate) fn api(self) -> ApiMode {
        self.api
    }

    /// Refuses requests of another API version. Clients of v1ttl may say V1, as they do to TiKV.
    pub(crate) fn check_version(self, request: ApiVersion) -> Result<()> {
        match (self.api, request) {
            (ApiMode::V1, ApiVersion::V1)
            | (ApiMode::V1Ttl, ApiVersion::V1 | ApiVersion::V1Ttl)
            | (ApiMode::V2, ApiVersion::V2) => Ok(()),
            _ => Err(Error::ApiVersionMismatch { mode: self.api, request }),
        }
    }

    /// Refuses transactional requests of another API version than the cluster's, and keys that it does not keep for
    /// transactions. In v2 these begin with `x` and a keyspace id; old ones (V1) with `m` or `t`, as TiDB's do.
    pub(crate) fn check_txn(self, request: ApiVersion, keys: &[Bytes]) -> Result<()> {
        for key in keys {
            check_key_bytes(key)?;
        }
        let prefixes: &[u8] = match (self.api, request) {
            (ApiMode::V1, ApiVersion::V1) => return Ok(()),
            (ApiMode::V2, ApiVersion::V2) => b"x",
            (ApiMode::V2, ApiVersion::V1) => b"mt",
            _ => return Err(Error::ApiVersionMismatch { mode: self.api, request }),
        };
        let is_inside = |key: &&Bytes| key.first().is_some_and(|first| prefixes.contains(first));
        match keys.iter().find(|key| !is_inside(key)) {
            Some(key) => Err(Error::KeyspacePrefix { key: key::display(key), kind: KeyMode::Txn }),
            None => Ok(()),
        }
    }

    /// The stored form of a key, to look it up.
    pub(crate) fn stored(self, user_key: &[u8]) -> Result<Cow<'_, [u8]>> {
        self.check_key(user_key)?;
        if self.api != ApiMode::V2 {
            return Ok(Cow::Borrowed(user_key));
        }
        let mut stored = Vec::with_capacity(key::encoded_len(user_key.len()));
        key::encode_into(user_key, &mut stored);
        Ok(Cow::Owned(stored))
    }

    /// The stored form of a key, to keep.
    pub(crate) fn stored_bytes(self, user_key: Bytes) -> Result<Bytes> {
        self.check_key(&user_key)?;
        Ok(if self.api == ApiMode::V2 { key::encode(&user_key) } else { user_key })
    }

    /// The user's key of a stored one. `None`: bytes that nobody stores here.
    pub(crate) fn user_key(self, stored: Bytes) -> Option<Bytes> {
        if self.api == ApiMode::V2 {
            key::decode_exact(&stored).map(Bytes::from)
        } else {
            Some(stored)
        }
    }

    /// The stored form of the raw keys from `lower` up to but without `upper`; empty bounds are no bounds.
    pub(crate) fn stored_range(self, lower: &[u8], upper: &[u8]) -> Result<KeyRange> {
        check_bound(lower)?;
        check_bound(upper)?;
        if self.api != ApiMode::V2 {
            return Ok(KeyRange::new(Bytes::copy_from_slice(lower), Bytes::copy_from_slice(upper)));
        }
        let inside = |bound: &[u8]| bound.is_empty() || bound[0] == RAW_PREFIX;
        if !inside(lower) {
            return Err(no_prefix(lower));
        }
        if !inside(upper) && upper != RAW_END {
            return Err(no_prefix(upper));
        }
        let lower = if lower.is_empty() { &[RAW_PREFIX][..] } else { lower };
        let upper = if upper.is_empty() { RAW_END } else { upper };
        Ok(KeyRange::new(key::encode(lower), key::encode(upper)))
    }

    /// The stored form of a range of any keys, for the removal of everything in it. `held` is the kind of data of a
    /// v1 cluster: transactional keys are stored in memcomparable form.
    pub(crate) fn destroyed_range(
        self,
        start: &Bytes,
        end: &Bytes,
        held: Option<KeyMode>,
    ) -> Result<KeyRange> {
        check_bound(start)?;
        check_bound(end)?;
        if self.api != ApiMode::V2 && held != Some(KeyMode::Txn) {
            return Ok(KeyRange::new(start.clone(), end.clone()));
        }
        let encode =
            |bound: &Bytes| if bound.is_empty() { Bytes::new() } else { key::encode(bound) };
        Ok(KeyRange::new(encode(start), encode(end)))
    }

    /// Every stored key that may be a raw one.
    pub(crate) fn raw_space(self) -> KeyRange {
        match self.api {
            ApiMode::V1 | ApiMode::V1Ttl => KeyRange::all(),
            ApiMode::V2 => KeyRange::new(key::encode(&[RAW_PREFIX]), key::encode(RAW_END)),
        }
    }

    fn check_key(self, user_key: &[u8]) -> Result<()> {
        if self.api == ApiMode::V2
            && user_key.len() <= limits::KEY_BYTES_MAX
            && (user_key.len() < KEYSPACE_PREFIX_BYTES || user_key[0] != RAW_PREFIX)
        {
            return Err(no_prefix(user_key));
        }
        check_key_bytes(user_key)
    }
}

fn check_key_bytes(user_key: &[u8]) -> Result<()> {
    if limits::KEY_BYTES_MAX < user_key.len() {
        return Err(Error::KeyTooLarge { size: user_key.len() });
    }
    if user_key.is_empty() {
        return Err(Error::InvalidRequest("the key is empty".to_owned()));
    }
    Ok(())
}

fn check_bound(bound: &[u8]) -> Result<()> {
    if BOUND_BYTES_MAX < bound.len() {
        Err(Error::KeyTooLarge { size: bound.len() })
    } else {
        Ok(())
    }
}

fn no_prefix(user_key: &[u8]) -> Error {
    Error::KeyspacePrefix { key: key::display(user_key), kind: KeyMode::Raw }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Layout = Layout { api: ApiMode::V1 };
    const V1_TTL: Layout = Layout { api: ApiMode::V1Ttl };
    const V2: Layout = Layout { api: ApiMode::V2 };

    #[test]
    fn each_mode_takes_its_api_version() {
        let taken = |layout: Layout| {
            [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2]
                .map(|version| layout.check_version(version).is_ok())
        };
        assert_eq!(taken(V1), [true, false, false]);
        assert_eq!(taken(V1_TTL), [true, true, false]);
        assert_eq!(taken(V2), [false, false, true]);
    }

    #[test]
    fn keys_are_stored_as_the_mode_says_and_come_back() {
        for layout in [V1, V1_TTL] {
            assert_eq!(&layout.stored(b"k").unwrap()[..], b"k");
            assert_eq!(layout.user_key(Bytes::from_static(b"k")).unwrap(), "k");
        }
        let user_key = Bytes::from_static(b"r\0\0\0key");
        let stored = V2.stored_bytes(user_key.clone()).unwrap();
        assert_eq!(&stored[..], b"r\0\0\0key\0\xfe");
        assert_eq!(&V2.stored(&user_key).unwrap()[..], &stored[..]);
        assert_eq!(V2.user_key(stored.clone()).unwrap(), user_key);
        assert_eq!(V2.user_key(stored.slice(..5)), None);
    }

    #[test]
    fn keys_outside_of_the_raw_key_space_are_refused() {
        for key in [&b""[..], b"r", b"r\0\0", b"x\0\0\0k", b"k"] {
            assert!(matches!(V2.stored(key), Err(Error::KeyspacePrefix { .. })), "{key:?}");
        }
        assert!(matches!(V1.stored(b""), Err(Error::InvalidRequest(_))));
        assert!(matches!(
            V1.stored(&[1; limits::KEY_BYTES_MAX + 1]),
            Err(Error::KeyTooLarge { .. })
        ));
        assert!(V1.stored(&[1; limits::KEY_BYTES_MAX]).is_ok());
    }

    #[test]
    fn ranges_never_leave_the_raw_key_space() {
        assert_eq!(V1.stored_range(b"", b"").unwrap(), KeyRange::all());
        assert_eq!(V2.stored_range(b"", b"").unwrap(), V2.raw_space());
        assert_eq!(V2.stored_range(b"r", b"s").unwrap(), V2.raw_space());
        for (lower, upper) in
            [(&b"a"[..], &b""[..]), (b"r\0\0\0", b"s\0"), (b"r\0\0\0", b"x"), (b"x", b"y")]
        {
            assert!(matches!(V2.stored_range(lower, upper), Err(Error::KeyspacePrefix { .. })));
        }
        let space = V2.raw_space();
        for (user_key, inside) in
            [(&b"r\0\0\0"[..], true), (b"r\xff\xff\xff\xff", true), (b"s", false), (b"q", false)]
        {
            assert_eq!(space.contains(&key::encode(user_key)), inside, "{user_key:?}");
        }
    }

    #[test]
    fn destroyed_ranges_take_any_key() {
        let (start, end) = (Bytes::from_static(b"x\0\0\0"), Bytes::new());
        let encoded = KeyRange::new(key::encode(b"x\0\0\0"), "");
        assert_eq!(V2.destroyed_range(&start, &end, None).unwrap(), encoded);
        assert_eq!(V1.destroyed_range(&start, &end, Some(KeyMode::Txn)).unwrap(), encoded);
        assert_eq!(
            V1.destroyed_range(&start, &end, Some(KeyMode::Raw)).unwrap(),
            KeyRange::new(start, end)
        );
    }
}
