//! The unit of atomic change.

use types::Bytes;

use crate::{Error, Family, KEY_BYTES_MAX, Result};

/// Keys and values below this are copied when an engine keeps them in memory. They come as slices of network
/// buffers, and one small slice that stayed would keep its whole buffer alive.
const SHARED_MIN: usize = 4 << 10;

/// The bytes as they may stay in memory.
pub(crate) fn owned(bytes: &Bytes) -> Bytes {
    if bytes.len() < SHARED_MIN { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key. An empty value is a value.
    Put(Family, Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Family, Bytes),
}

/// Changes that take effect together. Later changes of the same key win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    ops: Vec<Op>,
    bytes: usize,
}

impl WriteBatch {
    /// No changes.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(
        &mut self,
        family: impl Into<Family>,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put(family.into(), key, value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, family: impl Into<Family>, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.ops.push(Op::Delete(family.into(), key));
    }

    /// The changes, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The changes, in order, to keep.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// Refuses keys that no engine takes. Callers check theirs long before; an engine must not lose a write, or
    /// panic, because one of them did not.
    pub(crate) fn check(&self) -> Result<()> {
        let mut lengths = self.ops.iter().map(|op| match op {
            Op::Put(_, key, _) | Op::Delete(_, key) => key.len(),
        });
        match lengths.find(|len| !(1..=KEY_BYTES_MAX).contains(len)) {
            None => Ok(()),
            Some(len) => Err(Error::KeyLength { len }),
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
