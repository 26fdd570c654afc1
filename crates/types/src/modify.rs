//! Effects on the data.

use crate::{Bytes, Cf, KeyRange};

/// One effect on the data. A write is a list of these, applied in order and atomically.
///
/// Keys and values are in stored form (docs/formats.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modify {
    /// Sets `key` to `value`, whatever it was. An empty value is a value.
    Put {
        /// Where.
        cf: Cf,
        /// The stored key.
        key: Bytes,
        /// The stored value.
        value: Bytes,
    },
    /// Removes `key`; nothing happens if it is absent.
    Delete {
        /// Where.
        cf: Cf,
        /// The stored key.
        key: Bytes,
    },
    /// Removes every key of `range`.
    DeleteRange {
        /// Where.
        cf: Cf,
        /// Stored keys; an empty end is no bound.
        range: KeyRange,
    },
}

impl Modify {
    /// Bytes of keys and values, for limits and batching.
    pub fn size(&self) -> usize {
        match self {
            Modify::Put { key, value, .. } => key.len() + value.len(),
            Modify::Delete { key, .. } => key.len(),
            Modify::DeleteRange { range, .. } => range.start.len() + range.end.len(),
        }
    }
}
