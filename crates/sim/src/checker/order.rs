//! The numbers of one peer keep their order: truncated <= applied <= committed <= last, while it runs and when it
//! starts again; its term never falls; and a start finds everything that was reported durable.

use super::{Verdict, Violation};

/// The numbers of a peer at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The term.
    pub term: u64,
    /// Who has its vote in that term; 0 for nobody.
    pub vote: u64,
    /// The index up to which its log was cut off at the front.
    pub truncated: u64,
    /// The index of the last entry that it applied.
    pub applied: u64,
    /// The index of the last entry that it knows to be committed.
    pub committed: u64,
    /// The index of its last entry.
    pub last: u64,
}

/// Follows the numbers of one peer over its starts.
#[derive(Clone, Debug, Default)]
pub struct Order {
    now: Numbers,
    /// What a start must find: these were reported durable.
    durable: Numbers,
}

impl Order {
    /// The peer is at `numbers`.
    ///
    /// # Errors
    /// They are out of order, or one that only grows has fallen.
    pub fn is_at(&mut self, peer: u64, numbers: Numbers) -> Verdict {
        self.ordered(peer, numbers)?;
        let before = self.now;
        let fallen = numbers.term < before.term
            || numbers.applied < before.applied
            || numbers.committed < before.committed
            || numbers.truncated < before.truncated;
        self.now = numbers;
        if fallen {
            let details = format!("peer {peer} was at {before:?} and is at {numbers:?}");
            return Err(Violation::new("numbers only grow", details));
        }
        Ok(())
    }

    /// `durable` was reported durable to the peer's core.
    pub fn is_durable(&mut self, durable: Numbers) {
        self.durable = durable;
    }

    /// What a start must find.
    pub fn durable(&self) -> Numbers {
        self.durable
    }

    /// The peer starts with `numbers` from its disk.
    ///
    /// # Errors
    /// They are out of order, or less than what was durable.
    pub fn starts(&mut self, peer: u64, numbers: Numbers) -> Verdict {
        self.ordered(peer, numbers)?;
        let durable = self.durable;
        let lost = numbers.term < durable.term
            || (numbers.term == durable.term && durable.vote != 0 && numbers.vote != durable.vote)
            || numbers.committed < durable.committed
            || numbers.truncated < durable.truncated;
        self.now = numbers;
        if lost {
            let details = format!("peer {peer} had {durable:?} and starts with {numbers:?}");
            return Err(Violation::new("a start finds what was durable", details));
        }
        Ok(())
    }

    fn ordered(&self, peer: u64, numbers: Numbers) -> Verdict {
        let Numbers { truncated, applied, committed, last, .. } = numbers;
        if truncated <= applied && applied <= committed && committed <= last {
            return Ok(());
        }
        let details = format!("peer {peer}: {numbers:?}");
        Err(Violation::new("truncated <= applied <= committed <= last", details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Numbers =
        Numbers { term: 3, vote: 1, truncated: 1, applied: 2, committed: 3, last: 4 };

    #[test]
    fn wrong_order_is_found() {
        Order::default().is_at(1, GOOD).unwrap();
        for bad in [
            Numbers { truncated: 3, ..GOOD },
            Numbers { applied: 4, ..GOOD },
            Numbers { committed: 5, ..GOOD },
        ] {
            assert!(Order::default().is_at(1, bad).is_err());
            assert!(Order::default().starts(1, bad).is_err());
        }
    }

    #[test]
    fn falling_numbers_are_found() {
        for bad in [
            Numbers { term: 2, ..GOOD },
            Numbers { applied: 1, ..GOOD },
            Numbers { committed: 2, ..GOOD },
            Numbers { truncated: 0, ..GOOD },
        ] {
            let mut order = Order::default();
            order.is_at(1, GOOD).unwrap();
            assert!(order.is_at(1, bad).is_err(), "{bad:?}");
        }
        // A follower's log may become shorter, a restart may begin at an older state.
        let mut order = Order::default();
        order.is_at(1, GOOD).unwrap();
        order.is_at(1, Numbers { last: 3, ..GOOD }).unwrap();
        order.starts(1, Numbers { applied: 1, ..GOOD }).unwrap();
    }

    #[test]
    fn a_start_that_lost_something_durable_is_found() {
        for bad in [
            Numbers { term: 2, ..GOOD },
            Numbers { vote: 0, ..GOOD },
            Numbers { vote: 2, ..GOOD },
            Numbers { committed: 2, ..GOOD },
        ] {
            let mut order = Order::default();
            order.is_durable(GOOD);
            assert!(order.starts(1, bad).is_err(), "{bad:?}");
        }
    }
}
