//! Finds keys whose values have expired, a piece at a time.
//!
//! Reads hide expired values by themselves; this makes them go away. A pass only *finds*: what it finds is removed by
//! a command that looks again when it is applied (`command.rs`), never by a filter of one replica, so that replicas
//! stay equal byte for byte and a key that was written again in the meantime stays.

use engine::Snapshot;
use types::{Bytes, Cf, KeyRange};

use crate::{layout::Layout, value};

/// Bytes of keys that one command removes.
const REMOVED_BYTES_MAX: usize = 1 << 20;

/// Where a pass goes on: the first key that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    cf: Cf,
    key: Bytes,
}

/// What a piece of a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Keys that may be removed.
    pub(crate) expired: Vec<(Cf, Bytes)>,
    /// Keys looked at.
    pub(crate) examined: usize,
    /// Where to go on; `None` at the end of the data.
    pub(crate) next: Option<Cursor>,
}

/// What a call of [`crate::Storage::sweep_expired`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Keys looked at.
    pub examined: u64,
    /// Expired keys removed.
    pub removed: u64,
    /// Whether the pass has come to the end of the data; the next call begins a new one.
    pub finished: bool,
}

/// Looks at up to `keys_max` raw keys `within` a region, from `cursor` on, over all column families.
pub(crate) fn find(
    layout: Layout,
    snapshot: &dyn Snapshot,
    within: &KeyRange,
    cursor: Option<Cursor>,
    keys_max: usize,
    now_ms: u64,
) -> Result<Found, engine::Error> {
    let mut found = Found::default();
    let mut removed_bytes = 0;
    let (first, mut start) =
        cursor.map_or((Cf::Default, Bytes::new()), |cursor| (cursor.cf, cursor.key));
    for cf in Cf::ALL.into_iter().filter(|cf| first <= *cf) {
        let range = layout.raw_space().intersect(within);
        let range = range.intersect(&KeyRange::new(std::mem::take(&mut start), ""));
        let mut iter = snapshot.iter(cf.into(), &range)?;
        let mut valid = iter.seek_to_first()?;
        while valid {
            if found.examined == keys_max || REMOVED_BYTES_MAX <= removed_bytes {
                found.next = Some(Cursor { cf, key: iter.key_bytes() });
                return Ok(found);
            }
            found.examined += 1;
            let parts = value::decode(layout.api(), iter.value());
            if parts.map_err(|error| value::damaged(cf, iter.key(), error))?.is_expired(now_ms) {
                removed_bytes += iter.key().len();
                found.expired.push((cf, iter.key_bytes()));
            }
            valid = iter.next()?;
        }
    }
    Ok(found)
}
