//! Commands: what a write asks of the data, checked and in stored form.
//!
//! A command is what a log entry will hold: its effect depends on it and on the state before it, never on the clock
//! or the configuration of the store that applies it. Therefore a compare-and-swap carries the proposer's clock.

use engine::Family;
use types::{Bytes, Cf, KeyMode, KeyRange, Modify, Region, TimeStamp};

/// What the queue counts for a change beside its bytes: the memory of its list entry, so that many small changes are
/// bounded as well.
const CHANGE_OVERHEAD: usize = 64;

/// A write, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// What to do.
    pub(crate) action: Action,
    /// The record of the key-mode latch, to be written with it while none is known to be durable.
    pub(crate) key_mode: Option<KeyMode>,
}

/// What a command does. All of it takes effect, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// One change, whatever is there.
    Change(Modify),
    /// Several, in order.
    Changes(Vec<Modify>),
    /// Removes versions that nobody needs who reads at or above a safe point. Reads below it are refused from then on.
    Collect {
        /// The safe point.
        safe_point: TimeStamp,
        /// Removals, in order.
        changes: Vec<Modify>,
    },
    /// A change that depends on what is there.
    CompareAndSwap(CompareAndSwap),
    /// Removes those keys whose values have expired.
    RemoveExpired {
        /// The proposer's clock.
        now_ms: u64,
        /// Stored keys.
        keys: Vec<(Cf, Bytes)>,
    },
}

/// "If the value is this, make it that."
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompareAndSwap {
    pub(crate) cf: Cf,
    /// The stored key.
    pub(crate) key: Bytes,
    /// The user's value that must be there; `None`: no value.
    pub(crate) expected: Option<Bytes>,
    /// The stored value to put; `None` to delete.
    pub(crate) new: Option<Bytes>,
    /// The proposer's clock: a value that has expired then is not there.
    pub(crate) now_ms: u64,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took effect.
    Done,
    /// The compare-and-swap was evaluated.
    Swapped(Swapped),
    /// So many expired keys were removed.
    Removed(u64),
    /// The region was changed, to these.
    Changed(Vec<Region>),
    /// Nothing was written: a read may look at the data now.
    Readable {
        /// Nothing of a later term may be shown.
        term: u64,
    },
}

/// What a compare-and-swap found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// Whether the value was the expected one, and thereby replaced.
    pub succeeded: bool,
    /// The value before; `None` if there was none.
    pub previous: Option<Bytes>,
}

impl Command {
    /// A command that writes no record of the latch.
    pub(crate) fn new(action: Action) -> Command {
        Command { action, key_mode: None }
    }

    /// Bytes of keys and values, for the limit of a log entry.
    pub(crate) fn size(&self) -> usize {
        let len = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        match &self.action {
            Action::Change(change) => change.size(),
            Action::Changes(changes) | Action::Collect { changes, .. } => {
                changes.iter().map(Modify::size).sum()
            }
            Action::CompareAndSwap(cas) => cas.key.len() + len(&cas.expected) + len(&cas.new),
            Action::RemoveExpired { keys, .. } => keys.iter().map(|(_, key)| key.len()).sum(),
        }
    }

    /// What it takes in the queue.
    pub(crate) fn cost(&self) -> usize {
        let changes = match &self.action {
            Action::Change(_) | Action::CompareAndSwap(_) => 1,
            Action::Changes(changes) | Action::Collect { changes, .. } => changes.len(),
            Action::RemoveExpired { keys, .. } => keys.len(),
        };
        self.size() + changes * CHANGE_OVERHEAD
    }

    /// The smallest and the largest stored key that it concerns. Of ranges that are deleted only their beginnings count:
    /// they were compared with the region as a whole.
    pub(crate) fn key_bounds(&self) -> Option<(Bytes, Bytes)> {
        let of = |change: &Modify| match change {
            Modify::Put { key, .. } | Modify::Delete { key, .. } => key.clone(),
            Modify::DeleteRange { range, .. } => range.start.clone(),
        };
        match &self.action {
            Action::Change(change) => Some((of(change), of(change))),
            Action::Changes(changes) | Action::Collect { changes, .. } => {
                bounds(changes.iter().map(of))
            }
            Action::CompareAndSwap(cas) => Some((cas.key.clone(), cas.key.clone())),
            Action::RemoveExpired { keys, .. } => bounds(keys.iter().map(|(_, key)| key.clone())),
        }
    }

    /// Whether all it does is to remove something: a full disk has room for that.
    pub(crate) fn frees(&self) -> bool {
        let removes = |change: &Modify| !matches!(change, Modify::Put { .. });
        match &self.action {
            Action::Change(change) => removes(change),
            Action::Changes(changes) | Action::Collect { changes, .. } => {
                changes.iter().all(removes)
            }
            Action::CompareAndSwap(cas) => cas.new.is_none(),
            Action::RemoveExpired { .. } => true,
        }
    }

    /// The ranges that it removes.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Family, &KeyRange)> {
        let changes: &[Modify] = match &self.action {
            Action::Changes(changes) | Action::Collect { changes, .. } => changes,
            Action::Change(change) => std::slice::from_ref(change),
            Action::CompareAndSwap(_) | Action::RemoveExpired { .. } => &[],
        };
        changes.iter().filter_map(|change| match change {
            Modify::DeleteRange { cf, range } => Some((Family::from(*cf), range)),
            Modify::Put { .. } | Modify::Delete { .. } => None,
        })
    }

    /// Whether its effect depends on the state before it.
    pub(crate) fn is_conditional(&self) -> bool {
        match self.action {
            Action::Change(_) | Action::Changes(_) | Action::Collect { .. } => false,
            Action::CompareAndSwap(_) | Action::RemoveExpired { .. } => true,
        }
    }
}

fn bounds(keys: impl Iterator<Item = Bytes>) -> Option<(Bytes, Bytes)> {
    let merge = |bounds: Option<(Bytes, Bytes)>, key: Bytes| match bounds {
        None => Some((key.clone(), key)),
        Some((first, last)) if key < first => Some((key, last)),
        Some((first, last)) if last < key => Some((first, key)),
        bounds => bounds,
    };
    keys.fold(None, merge)
}
