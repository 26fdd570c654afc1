//! Listing locks: for ScanLock, and for commands that have to find their keys first.

use engine::{Family, Snapshot};
use types::{Bytes, Cf, KeyRange};

use crate::{
    error::Result,
    layout::stored_range,
    lock::Lock,
    reader::{decode_lock, user_key},
};

/// Locks with their keys (of the user), and the key from which to go on; `None` when there are no more.
pub type LocksPage = (Vec<(Bytes, Lock)>, Option<Bytes>);

/// The first `limit` locks on the user's keys of `range` that `filter` wants. `limit` is not zero.
///
/// At most `limit` times `SKIPPED_MAX` locks are looked at, so that a page takes bounded time where few are wanted.
pub fn find_locks(
    snapshot: &dyn Snapshot,
    range: &KeyRange,
    filter: impl Fn(&Lock) -> bool,
    limit: usize,
) -> Result<LocksPage> {
    let mut locks = snapshot.iter(Family::Lock, &stored_range(range))?;
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut is_there = !range.is_empty() && locks.seek_to_first()?;
    while is_there {
        if found.len() == limit || looked_at == limit.saturating_mul(SKIPPED_MAX) {
            return Ok((found, Some(user_key(Cf::Lock, locks.key())?.user().clone())));
        }
        let lock = decode_lock(locks.key(), locks.value())?;
        if filter(&lock) {
            found.push((user_key(Cf::Lock, locks.key())?.user().clone(), lock));
        }
        looked_at += 1;
        is_there = locks.next()?;
    }
    Ok((found, None))
}

/// How many locks are looked at for one that is wanted, before a page is ended.
const SKIPPED_MAX: usize = 64;
