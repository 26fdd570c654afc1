//! How a user's key becomes the key of a request, and where the regions have it.
//!
//! There are three forms of a key. The **user key** is what the application knows. The **request key** is what
//! travels to the store: the user key itself, or in API V2 the user key behind `r` (raw) or `x` (transactional) and
//! three bytes of keyspace id. The **region key** is the form that region bounds have: the request key itself in raw
//! V1, its memcomparable encoding everywhere else.
//!
//! All three keep the order of user keys.

use types::{ApiMode, ApiVersion, Bytes, KeyRange, key};

/// The first byte of raw keys in API V2.
const RAW_PREFIX: u8 = b'r';

/// The first byte of transactional keys in API V2.
const TXN_PREFIX: u8 = b'x';

/// The keyspace that every cluster has.
pub const DEFAULT_KEYSPACE: u32 = 0;

/// One more than the largest keyspace id: three bytes.
const KEYSPACE_END: u32 = 1 << 24;

/// How keys are laid out in requests and regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyLayout {
    /// Raw keys of API V1, with or without time to live: every form is the user key.
    #[default]
    RawV1,
    /// Raw keys of one keyspace.
    RawV2 {
        /// Which; below 2^24.
        keyspace: u32,
    },
    /// Transactional keys of API V1: requests have user keys, regions their encoding.
    TxnV1,
    /// Transactional keys of one keyspace.
    TxnV2 {
        /// Which; below 2^24.
        keyspace: u32,
    },
}

impl KeyLayout {
    /// The layout of raw keys in a cluster of this mode, keyspace `DEFAULT`.
    pub fn raw(mode: ApiMode) -> KeyLayout {
        match mode {
            ApiMode::V1 | ApiMode::V1Ttl => KeyLayout::RawV1,
            ApiMode::V2 => KeyLayout::RawV2 { keyspace: DEFAULT_KEYSPACE },
        }
    }

    /// The layout of transactional keys in a cluster of this mode, keyspace `DEFAULT`. A cluster of mode v1ttl has no
    /// transactions, and says so when it is asked.
    pub fn txn(mode: ApiMode) -> KeyLayout {
        match mode {
            ApiMode::V1 | ApiMode::V1Ttl => KeyLayout::TxnV1,
            ApiMode::V2 => KeyLayout::TxnV2 { keyspace: DEFAULT_KEYSPACE },
        }
    }

    /// What requests say about their keys.
    pub fn api_version(self) -> ApiVersion {
        match self {
            // Also with time to live: that is the store's business, and TiKV takes no other version for it.
            KeyLayout::RawV1 | KeyLayout::TxnV1 => ApiVersion::V1,
            KeyLayout::RawV2 { .. } | KeyLayout::TxnV2 { .. } => ApiVersion::V2,
        }
    }

    /// The keyspace that requests name, if any.
    pub fn keyspace(self) -> Option<u32> {
        match self {
            KeyLayout::RawV1 | KeyLayout::TxnV1 => None,
            KeyLayout::RawV2 { keyspace } | KeyLayout::TxnV2 { keyspace } => Some(keyspace),
        }
    }

    /// What stands before the user key in requests.
    fn prefix(self) -> Option<[u8; 4]> {
        match self {
            KeyLayout::RawV1 | KeyLayout::TxnV1 => None,
            KeyLayout::RawV2 { keyspace } => Some(prefix(RAW_PREFIX, keyspace)),
            KeyLayout::TxnV2 { keyspace } => Some(prefix(TXN_PREFIX, keyspace)),
        }
    }

    /// The request key of a user key.
    pub fn request_key(self, user: Bytes) -> Bytes {
        match self.prefix() {
            None => user,
            Some(prefix) => [&prefix[..], &user].concat().into(),
        }
    }

    /// The user key of a request key; `None` if the key is not of this layout.
    pub fn user_key(self, request: &Bytes) -> Option<Bytes> {
        match self.prefix() {
            None => Some(request.clone()),
            Some(prefix) => request.starts_with(&prefix).then(|| request.slice(prefix.len()..)),
        }
    }

    /// A range of request keys for a range of user keys. An end without bound stays inside the keyspace.
    pub fn request_range(self, user: KeyRange) -> KeyRange {
        match self.prefix() {
            None => user,
            Some(prefix) => KeyRange {
                start: self.request_key(user.start),
                end: match user.end.is_empty() {
                    true => key::prefix_end(&prefix).into(),
                    false => self.request_key(user.end),
                },
            },
        }
    }

    /// The region key of a request key. An empty end of a range has no region key.
    pub fn region_key(self, request: &Bytes) -> Bytes {
        match self {
            KeyLayout::RawV1 => request.clone(),
            KeyLayout::RawV2 { .. } | KeyLayout::TxnV1 | KeyLayout::TxnV2 { .. } => {
                key::encode(request)
            }
        }
    }

    /// The request key of a region's bound; empty bounds stay empty. `None`: no client of this layout made that bound.
    pub fn request_bound(self, bound: &Bytes) -> Option<Bytes> {
        match self {
            KeyLayout::RawV1 => Some(bound.clone()),
            _ if bound.is_empty() => Some(bound.clone()),
            _ => key::decode_exact(bound).map(Bytes::from),
        }
    }
}

/// The kind of keys and the keyspace id.
fn prefix(kind: u8, keyspace: u32) -> [u8; 4] {
    debug_assert!(keyspace < KEYSPACE_END, "a keyspace id has three bytes");
    let [_, a, b, c] = keyspace.to_be_bytes();
    [kind, a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: KeyLayout = KeyLayout::RawV2 { keyspace: 0x010203 };

    #[test]
    fn v1_leaves_keys_alone() {
        let layout = KeyLayout::raw(ApiMode::V1Ttl);
        assert_eq!(layout, KeyLayout::raw(ApiMode::V1));
        let user = Bytes::from_static(b"a\xff");
        assert_eq!(layout.request_key(user.clone()), user);
        assert_eq!(layout.region_key(&user), user);
        assert_eq!(layout.user_key(&user), Some(user.clone()));
        assert_eq!(layout.request_bound(&user), Some(user));
        assert_eq!(layout.request_range(KeyRange::all()), KeyRange::all());
        assert_eq!(layout.keyspace(), None);
    }

    #[test]
    fn v2_adds_its_prefix_and_finds_regions_by_the_encoded_key() {
        let request = V2.request_key("key".into());
        assert_eq!(&request[..], b"r\x01\x02\x03key");
        assert_eq!(V2.region_key(&request), key::encode(b"r\x01\x02\x03key"));
        assert_eq!(V2.user_key(&request), Some("key".into()));
        assert_eq!(V2.user_key(&Bytes::from_static(b"x\x01\x02\x03key")), None);
        assert_eq!(V2.request_bound(&V2.region_key(&request)), Some(request));
        assert_eq!(V2.request_bound(&Bytes::new()), Some(Bytes::new()));
        assert_eq!(V2.request_bound(&Bytes::from_static(b"not encoded")), None);
    }

    #[test]
    fn v2_ranges_stay_inside_of_their_keyspace() {
        let all = V2.request_range(KeyRange::all());
        assert_eq!(all, KeyRange::new(&b"r\x01\x02\x03"[..], &b"r\x01\x02\x04"[..]));
        let last =
            KeyLayout::RawV2 { keyspace: KEYSPACE_END - 1 }.request_range(KeyRange::new("a", ""));
        assert_eq!(last, KeyRange::new(&b"r\xff\xff\xffa"[..], &b"s"[..]));
        assert_eq!(V2.request_range(KeyRange::new("a", "b")).end, &b"r\x01\x02\x03b"[..]);
    }

    #[test]
    fn transactions_of_v1_have_plain_keys_and_encoded_regions() {
        let layout = KeyLayout::txn(ApiMode::V1);
        let user = Bytes::from_static(b"a");
        assert_eq!(layout.request_key(user.clone()), user);
        assert_eq!(layout.region_key(&user), key::encode(b"a"));
        assert_eq!(layout.request_bound(&key::encode(b"a")), Some(user));
        assert_eq!(layout.request_bound(&Bytes::new()), Some(Bytes::new()));
        let v2 = KeyLayout::txn(ApiMode::V2);
        assert_eq!(
            v2.request_range(KeyRange::all()),
            KeyRange::new(&b"x\0\0\0"[..], &b"x\0\0\x01"[..])
        );
    }

    #[test]
    fn every_form_keeps_the_order() {
        let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"aaaaaaaa", b"aaaaaaaa\0", b"\xff"];
        let txn_v2 = KeyLayout::TxnV2 { keyspace: 0x010203 };
        for layout in [KeyLayout::RawV1, V2, KeyLayout::TxnV1, txn_v2] {
            for pair in keys.windows(2) {
                let forms = |user: &'static [u8]| {
                    let request = layout.request_key(Bytes::from_static(user));
                    (layout.region_key(&request), request)
                };
                let (low, high) = (forms(pair[0]), forms(pair[1]));
                assert!(low.0 < high.0 && low.1 < high.1, "{pair:?}");
            }
        }
    }
}
