//! Raw values as they are stored.
//!
//! In v1 the stored value is the user's. In v1ttl and v2 a trailer follows it:
//! `value | expire_at_ms u64 (only if bit 0 of flags) | flags u8`. Whether a value has expired is decided by the
//! reader's clock; the moment itself was fixed by the clock of the store that proposed the write.

use types::{ApiMode, Bytes, Cf, codec::DecodeError, key};

/// The value ends at a moment.
const HAS_EXPIRY: u8 = 1;

/// A stored value, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// How many bytes at the front are the user's.
    pub(crate) len: usize,
    /// When the value ends, in milliseconds since 1970.
    pub(crate) expire_at_ms: Option<u64>,
}

impl Parts {
    /// Whether a reader at `now_ms` does not see the value any more.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expire_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Whole seconds left, rounded up; 0 if the value never ends.
    pub(crate) fn ttl_s(&self, now_ms: u64) -> u64 {
        self.expire_at_ms.map_or(0, |at| at.saturating_sub(now_ms).div_ceil(1000))
    }
}

/// The moment at which a value ends that is written at `now_ms` with `ttl_s` seconds to live; 0 is for good.
pub(crate) fn expire_at_ms(now_ms: u64, ttl_s: u64) -> Option<u64> {
    (ttl_s != 0).then(|| now_ms.saturating_add(ttl_s.saturating_mul(1000)))
}

/// The stored form of `value`.
pub(crate) fn encode(api: ApiMode, value: Bytes, expire_at_ms: Option<u64>) -> Bytes {
    if !api.has_ttl() {
        debug_assert!(expire_at_ms.is_none(), "v1 refuses a time to live before it comes here");
        return value;
    }
    let mut stored = Vec::with_capacity(value.len() + size_of::<u64>() + 1);
    stored.extend_from_slice(&value);
    match expire_at_ms {
        Some(at) => {
            stored.extend_from_slice(&at.to_be_bytes());
            stored.push(HAS_EXPIRY);
        }
        None => stored.push(0),
    }
    stored.into()
}

/// Takes a stored value apart.
pub(crate) fn decode(api: ApiMode, stored: &[u8]) -> Result<Parts, DecodeError> {
    if !api.has_ttl() {
        return Ok(Parts { len: stored.len(), expire_at_ms: None });
    }
    let (&flags, rest) = stored.split_last().ok_or(DecodeError::Truncated)?;
    match flags {
        0 => Ok(Parts { len: rest.len(), expire_at_ms: None }),
        HAS_EXPIRY => {
            let (value, at) = rest.split_last_chunk().ok_or(DecodeError::Truncated)?;
            Ok(Parts { len: value.len(), expire_at_ms: Some(u64::from_be_bytes(*at)) })
        }
        _ => Err(DecodeError::Invalid("flags of a raw value")),
    }
}

/// The user's part of a stored value, if it has not expired at `now_ms`.
pub(crate) fn live(api: ApiMode, stored: Bytes, now_ms: u64) -> Result<Option<Bytes>, DecodeError> {
    let parts = decode(api, &stored)?;
    Ok((!parts.is_expired(now_ms)).then(|| stored.slice(..parts.len)))
}

/// What a store makes of bytes that no encoder of this cluster writes: they were damaged.
pub(crate) fn damaged(cf: Cf, stored_key: &[u8], error: impl std::fmt::Display) -> engine::Error {
    engine::Error::Corrupt {
        path: format!("column family {cf}").into(),
        detail: format!("key {}: {error}", key::display(stored_key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_have_their_golden_bytes() {
        let value = Bytes::from_static(b"abc");
        assert_eq!(&encode(ApiMode::V1, value.clone(), None)[..], b"abc");
        for api in [ApiMode::V1Ttl, ApiMode::V2] {
            assert_eq!(&encode(api, value.clone(), None)[..], b"abc\0");
            assert_eq!(
                &encode(api, value.clone(), Some(0x0102_0304_0506_0708))[..],
                b"abc\x01\x02\x03\x04\x05\x06\x07\x08\x01"
            );
            assert_eq!(&encode(api, Bytes::new(), None)[..], b"\0", "an empty value is a value");
        }
    }

    #[test]
    fn stored_values_come_back() {
        for api in [ApiMode::V1, ApiMode::V1Ttl, ApiMode::V2] {
            for value in [&b""[..], b"\x01", b"\x00\x01", b"some longer value \x01"] {
                for at in [None, Some(0), Some(7), Some(u64::MAX)] {
                    if at.is_some() && !api.has_ttl() {
                        continue;
                    }
                    let stored = encode(api, Bytes::from_static(value), at);
                    assert_eq!(
                        decode(api, &stored),
                        Ok(Parts { len: value.len(), expire_at_ms: at })
                    );
                }
            }
        }
    }

    #[test]
    fn a_value_ends_at_its_moment_and_its_seconds_are_rounded_up() {
        let at = expire_at_ms(10_000, 5).unwrap();
        let stored = encode(ApiMode::V2, Bytes::from_static(b"v"), Some(at));
        assert_eq!(live(ApiMode::V2, stored.clone(), 14_999), Ok(Some(Bytes::from_static(b"v"))));
        assert_eq!(live(ApiMode::V2, stored.clone(), 15_000), Ok(None));
        let parts = decode(ApiMode::V2, &stored).unwrap();
        assert_eq!(
            [10_000, 10_001, 14_000, 14_001, 14_999].map(|now| parts.ttl_s(now)),
            [5, 5, 1, 1, 1]
        );
        assert_eq!(expire_at_ms(10, 0), None);
        assert_eq!(expire_at_ms(10, u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn damaged_values_are_refused() {
        assert_eq!(decode(ApiMode::V2, b""), Err(DecodeError::Truncated));
        assert_eq!(decode(ApiMode::V2, b"\0\0\0\x01"), Err(DecodeError::Truncated));
        assert!(decode(ApiMode::V2, b"abc\x02").is_err(), "unknown flags");
    }
}
