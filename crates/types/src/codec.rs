//! How numbers, strings and records lie in bytes, on disk and between stores. No protobuf below the services.
//!
//! Fixed-width integers are big-endian. A record is `length u32 | CRC32C u32 | version u8 | payload`, where the
//! length counts version and payload and the checksum covers length, version and payload (docs/formats.md).

use crate::Bytes;

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the bytes end before the value does")]
    Truncated,
    /// The checksum does not match the bytes.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What the record says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A value that no encoder writes.
    #[error("no valid {0}")]
    Invalid(&'static str),
    /// Written by a newer version.
    #[error("version {found} is newer than {known}, the newest one known")]
    Newer {
        /// The version of the bytes.
        found: u32,
        /// The newest version that this code reads.
        known: u32,
    },
}

/// Bytes of a record before its payload: length, checksum, version.
pub const RECORD_HEADER: usize = 4 + 4 + 1;

/// Appends one record with `payload` to `out`.
pub fn put_record(out: &mut Vec<u8>, version: u8, payload: &[u8]) {
    let len = u32::try_from(payload.len() + 1).expect("a record is smaller than 4 GiB");
    let crc = record_checksum(len, version, payload);
    out.reserve(RECORD_HEADER + payload.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&crc.to_be_bytes());
    out.push(version);
    out.extend_from_slice(payload);
}

/// Reads the record at the front of `bytes`: its version, its payload and how many bytes it took.
pub fn get_record(bytes: &[u8]) -> Result<(u8, &[u8], usize), DecodeError> {
    let mut reader = Reader::new(bytes);
    let len = reader.u32()?;
    let stored = reader.u32()?;
    let body = reader.take(len as usize)?;
    let (&version, payload) = body.split_first().ok_or(DecodeError::Invalid("record length"))?;
    let computed = record_checksum(len, version, payload);
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    Ok((version, payload, RECORD_HEADER - 1 + len as usize))
}

fn record_checksum(len: u32, version: u8, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&len.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &[version]);
    crc32c::crc32c_append(crc, payload)
}

/// Appends values to a byte string. The counterpart of [`Reader`].
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty byte string.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Writer {
        self.out.push(value);
        self
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Writer {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Writer {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Writer {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A length of four bytes, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Writer {
        self.u32(u32::try_from(value.len()).expect("a byte string is smaller than 4 GiB"));
        self.out.extend_from_slice(value);
        self
    }

    /// What was written.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// Reads values from the front of a byte string.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// How much is left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length of four bytes, then the bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// Like [`bytes`](Reader::bytes), copied.
    pub fn owned(&mut self) -> Result<Bytes, DecodeError> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    /// Like [`bytes`](Reader::bytes), as text.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| DecodeError::Invalid("UTF-8 text"))
    }

    /// Refuses bytes that nobody read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Invalid("end of value: bytes are left over"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let mut out = Vec::new();
        put_record(&mut out, 1, b"one");
        put_record(&mut out, 2, b"");
        let (version, payload, read) = get_record(&out).unwrap();
        assert_eq!((version, payload, read), (1, &b"one"[..], 12));
        assert_eq!(get_record(&out[read..]).unwrap(), (2, &b""[..], 9));
    }

    #[test]
    fn a_record_has_its_golden_bytes() {
        let mut out = Vec::new();
        put_record(&mut out, 1, b"abc");
        assert_eq!(out, [0, 0, 0, 4, 0xe7, 0x07, 0x3a, 0x4f, 1, b'a', b'b', b'c']);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut out = Vec::new();
        put_record(&mut out, 1, b"some payload");
        for cut in 0..out.len() {
            assert_eq!(get_record(&out[..cut]), Err(DecodeError::Truncated));
        }
        for bit in 0..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(get_record(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn values_come_back() {
        let bytes = Writer::new().u8(1).u16(2).u32(3).u64(4).bytes(b"five").finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            (reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.bytes()),
            (Ok(1), Ok(2), Ok(3), Ok(4), Ok(&b"five"[..]))
        );
        assert_eq!(reader.finish(), Ok(()));
    }
}
