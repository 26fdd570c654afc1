//! Ids: one sequence for stores, regions and peers.
//!
//! Invariant: every id handed out lies below the end of a window that was made durable first, so that no id is handed
//! out twice, whatever crashes. The ids of a window that a restart cut short are skipped.

use types::limits::ID_WINDOW;

/// Ids in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBatch {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// The state of the sequence.
#[derive(Clone, Debug)]
pub(crate) struct IdAllocator {
    /// The next id. 0 is no id.
    next: u64,
    /// Ids from here on are not covered by a window.
    window_end: u64,
}

/// Why there is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A window up to `end` is needed first. Nothing has changed.
    NeedWindow {
        /// Where it should end.
        end: u64,
    },
    /// There are no more.
    Exhausted,
}

impl Default for IdAllocator {
    fn default() -> IdAllocator {
        IdAllocator { next: 1, window_end: 1 }
    }
}

impl IdAllocator {
    /// Takes `count` ids, at least one.
    pub(crate) fn allocate(&mut self, count: u32) -> Result<IdBatch, Refusal> {
        let count = u64::from(count.max(1));
        let end = self.next.checked_add(count).ok_or(Refusal::Exhausted)?;
        if self.window_end < end {
            let window_end =
                self.next.checked_add(count.max(ID_WINDOW)).ok_or(Refusal::Exhausted)?;
            return Err(Refusal::NeedWindow { end: window_end });
        }
        let batch = IdBatch { first: self.next, last: end - 1 };
        self.next = end;
        Ok(batch)
    }

    /// The window was extended. The caller keeps back what lies beyond the durable end until this one is durable.
    pub(crate) fn extend(&mut self, window_end: u64) {
        assert!(self.window_end < window_end, "windows only grow");
        self.window_end = window_end;
    }

    /// Takes every id of the window as handed out: it may have been, before a restart.
    pub(crate) fn restart(&mut self) {
        self.next = self.window_end;
    }

    /// The end of the window.
    pub(crate) fn window_end(&self) -> u64 {
        self.window_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(ids: &mut IdAllocator, count: u32) -> (u64, u64) {
        if let Err(Refusal::NeedWindow { end }) = ids.clone().allocate(count) {
            ids.extend(end);
        }
        let batch = ids.allocate(count).unwrap();
        (batch.first, batch.last)
    }

    #[test]
    fn a_window_comes_first_and_serves_many() {
        let mut ids = IdAllocator::default();
        assert_eq!(ids.allocate(1), Err(Refusal::NeedWindow { end: 1001 }));
        assert_eq!(take(&mut ids, 1), (1, 1));
        assert_eq!(take(&mut ids, 0), (2, 2), "no count means one");
        assert_eq!(take(&mut ids, 998), (3, 1000));
        assert_eq!(ids.allocate(1), Err(Refusal::NeedWindow { end: 2001 }));
    }

    #[test]
    fn a_batch_larger_than_a_window_is_one_batch() {
        let mut ids = IdAllocator::default();
        take(&mut ids, 10);
        assert_eq!(take(&mut ids, 5000), (11, 5010));
    }

    #[test]
    fn a_restart_skips_the_rest_of_the_window() {
        let mut ids = IdAllocator::default();
        take(&mut ids, 1);
        ids.restart();
        assert_eq!(take(&mut ids, 1), (1001, 1001));
    }

    #[test]
    fn the_last_ids_are_not_followed_by_the_first() {
        let mut ids = IdAllocator { next: u64::MAX - 1500, window_end: u64::MAX - 1500 };
        assert_eq!(take(&mut ids, 1000), (u64::MAX - 1500, u64::MAX - 501));
        assert_eq!(ids.allocate(1), Err(Refusal::Exhausted));
        assert_eq!(ids.allocate(u32::MAX), Err(Refusal::Exhausted));
    }
}
