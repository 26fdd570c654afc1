//! The data set: which keys there are, which one is next, and values that prove that they belong to their key.
//!
//! Keys have [`KEY_BYTES`] bytes, a common prefix and a decimal number, so that they sort by number. All of them lie
//! in one buffer that is built once; taking one is a slice of it.
//!
//! A value is `crc32c(key, payload)` in four little-endian bytes, then the payload: random bytes, which no engine can
//! compress. Whoever reads it needs the key and nothing else to tell a right value from a wrong, torn or misplaced one.
//!
//! Not here: what is done with a key ([`crate::workload`]), and whether it is in the store ([`crate::load`]).

use bytes::{BufMut, Bytes, BytesMut};

use crate::{target::OpError, zipf::Zipf};

/// Length of every key, prefix included.
pub(crate) const KEY_BYTES: usize = 40;

/// What every key begins with, after the prefix.
const NAME: &[u8] = b"tinykv-bench:";

/// Bytes of a value that are its checksum; also the shortest value.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// The exponent that benchmarks mean by "zipfian".
const ZIPF_EXPONENT: f64 = 0.99;

/// A prime above every number of keys: multiplying by it modulo that number maps ranks to keys one to one and puts
/// the hot ones far apart.
const SPREAD: u64 = 2_147_483_647;

/// Bytes of random payload that values are cut from.
const POOL_BYTES: usize = 1 << 20;

/// Values are built in chunks of this size.
const ARENA_BYTES: usize = 64 << 10;

/// The keys, and how to tell whether a value is right.
#[derive(Debug)]
pub(crate) struct Dataset {
    keys: Bytes,
    /// The key after every key of the benchmark, those of larger data sets included.
    end: Bytes,
    count: u64,
    value_bytes: usize,
    /// The one key whose value every key has: the echo server stores nothing.
    fixed: Option<Bytes>,
}

impl Dataset {
    /// `count` keys (at least one) that begin with `prefix`, with values of `value_bytes` (at least
    /// [`CHECKSUM_BYTES`]).
    pub(crate) fn new(prefix: &[u8], count: u64, value_bytes: usize) -> Dataset {
        assert!(count >= 1 && value_bytes >= CHECKSUM_BYTES, "checked with the arguments");
        let mut keys = Vec::with_capacity(count as usize * KEY_BYTES);
        for index in 0..count {
            write_key(prefix, index, &mut keys);
        }
        let end = types::key::prefix_end(&[prefix, NAME].concat()).into();
        Dataset { keys: keys.into(), end, count, value_bytes, fixed: None }
    }

    /// The same keys; every value is that of [`Dataset::key`] 0.
    pub(crate) fn with_fixed_value(self) -> Dataset {
        Dataset { fixed: Some(self.key(0)), ..self }
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Length of every value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Key number `index`, below [`Dataset::count`].
    pub(crate) fn key(&self, index: u64) -> Bytes {
        let start = index as usize * KEY_BYTES;
        self.keys.slice(start..start + KEY_BYTES)
    }

    /// The end of a scan that meets no other keys.
    pub(crate) fn end(&self) -> &Bytes {
        &self.end
    }

    /// Checks that `value` was written under `key`.
    pub(crate) fn verify(&self, key: &[u8], value: &[u8]) -> Result<(), OpError> {
        let key = self.fixed.as_deref().unwrap_or(key);
        let Some((stored, payload)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
            return Err(OpError::Mismatch);
        };
        match u32::from_le_bytes(*stored) == checksum(key, payload) {
            true => Ok(()),
            false => Err(OpError::Mismatch),
        }
    }
}

/// Appends key number `index`.
fn write_key(prefix: &[u8], index: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(prefix);
    out.extend_from_slice(NAME);
    let number = index.to_string();
    out.resize(start + KEY_BYTES - number.len(), b'0');
    out.extend_from_slice(number.as_bytes());
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

/// Builds values. Each is a slice of a larger chunk, so that one costs two copies and no allocation of its own.
#[derive(Debug)]
pub(crate) struct Values {
    pool: Vec<u8>,
    arena: BytesMut,
    payload_bytes: usize,
}

impl Values {
    /// Values of `value_bytes` (at least [`CHECKSUM_BYTES`]).
    pub(crate) fn new(value_bytes: usize, rng: &mut fastrand::Rng) -> Values {
        let payload_bytes = value_bytes - CHECKSUM_BYTES;
        let mut pool = vec![0; POOL_BYTES + payload_bytes];
        rng.fill(&mut pool);
        Values { pool, arena: BytesMut::new(), payload_bytes }
    }

    /// A new value for `key`.
    pub(crate) fn build(&mut self, key: &[u8], rng: &mut fastrand::Rng) -> Bytes {
        let offset = rng.usize(..POOL_BYTES);
        let payload = &self.pool[offset..offset + self.payload_bytes];
        let len = CHECKSUM_BYTES + payload.len();
        if self.arena.capacity() < len {
            // Takes the chunk back if no value of it is alive.
            self.arena.reserve(ARENA_BYTES.max(len));
        }
        self.arena.put_u32_le(checksum(key, payload));
        self.arena.put_slice(payload);
        self.arena.split().freeze()
    }
}

/// Which key comes next.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Every key alike.
    Uniform {
        /// How many there are.
        count: u64,
    },
    /// Few keys take most requests.
    Zipfian {
        /// How many there are.
        count: u64,
        /// Which rank comes next.
        ranks: Zipf,
    },
}

impl Choice {
    /// Every key alike.
    pub(crate) fn uniform(count: u64) -> Choice {
        Choice::Uniform { count }
    }

    /// Zipfian, 0.99; hot keys lie far apart.
    pub(crate) fn zipfian(count: u64) -> Choice {
        Choice::Zipfian { count, ranks: Zipf::new(count, ZIPF_EXPONENT) }
    }

    /// The number of the next key.
    pub(crate) fn index(&self, rng: &mut fastrand::Rng) -> u64 {
        match self {
            Choice::Uniform { count } => rng.u64(..*count),
            Choice::Zipfian { count, ranks } => (ranks.rank(rng) - 1) * SPREAD % count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_have_forty_bytes_and_sort_by_number() {
        let dataset = Dataset::new(b"r\0\0\0", 1_001, 16);
        let keys: Vec<Bytes> = (0..dataset.count()).map(|index| dataset.key(index)).collect();
        assert!(keys.is_sorted());
        assert!(
            keys.iter()
                .all(|key| key.len() == KEY_BYTES && key.starts_with(b"r\0\0\0tinykv-bench:0"))
        );
        assert!(
            keys.iter().all(|key| key < dataset.end())
                && dataset.end().starts_with(b"r\0\0\0tinykv-bench")
        );
        assert_eq!(
            &Dataset::new(b"", 8, 16).key(7)[..],
            b"tinykv-bench:000000000000000000000000007"
        );
    }

    #[test]
    fn a_value_fits_its_key_and_no_other() {
        let dataset = Dataset::new(b"", 10, 256);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut values = Values::new(256, &mut rng);
        let (one, two) = (dataset.key(1), dataset.key(2));
        let value = values.build(&one, &mut rng);
        assert_eq!(value.len(), 256);
        dataset.verify(&one, &value).unwrap();
        assert!(dataset.verify(&two, &value).is_err());
        for position in [0, 3, 4, 255] {
            let mut damaged = value.to_vec();
            damaged[position] ^= 1;
            assert!(dataset.verify(&one, &damaged).is_err(), "flipped bit in byte {position}");
        }
        assert!(dataset.verify(&one, &value[..255]).is_err());
        assert!(dataset.verify(&one, b"").is_err());
    }

    #[test]
    fn values_stay_right_while_the_arena_moves_on() {
        let dataset = Dataset::new(b"", 1_000, 300);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut values = Values::new(300, &mut rng);
        let built: Vec<Bytes> =
            (0..dataset.count()).map(|index| values.build(&dataset.key(index), &mut rng)).collect();
        for (index, value) in built.iter().enumerate() {
            dataset.verify(&dataset.key(index as u64), value).unwrap();
        }
        assert_ne!(built[0], built[1]);
    }

    #[test]
    fn the_shortest_value_is_its_checksum() {
        let dataset = Dataset::new(b"", 1, CHECKSUM_BYTES);
        let mut rng = fastrand::Rng::with_seed(3);
        let value = Values::new(CHECKSUM_BYTES, &mut rng).build(&dataset.key(0), &mut rng);
        assert_eq!(value.len(), CHECKSUM_BYTES);
        dataset.verify(&dataset.key(0), &value).unwrap();
    }

    #[test]
    fn a_fixed_value_belongs_to_key_zero() {
        let plain = Dataset::new(b"", 10, 64);
        let mut rng = fastrand::Rng::with_seed(3);
        let value = Values::new(64, &mut rng).build(&plain.key(0), &mut rng);
        assert!(plain.verify(&plain.key(5), &value).is_err());
        let fixed = plain.with_fixed_value();
        fixed.verify(&fixed.key(5), &value).unwrap();
    }

    #[test]
    fn zipfian_ranks_map_to_keys_one_to_one() {
        for count in [1, 10, 1_000, 100_000] {
            let indexes: BTreeSet<u64> = (0..count).map(|rank| rank * SPREAD % count).collect();
            assert_eq!(indexes.len() as u64, count);
        }
    }

    #[test]
    fn choices_repeat_with_the_seed_and_stay_in_bounds() {
        for choice in [Choice::uniform(100), Choice::zipfian(100)] {
            let draw = || {
                let mut rng = fastrand::Rng::with_seed(9);
                (0..1_000).map(|_| choice.index(&mut rng)).collect::<Vec<_>>()
            };
            assert_eq!(draw(), draw());
            assert!(draw().iter().all(|index| *index < 100));
        }
    }
}
