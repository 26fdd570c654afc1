//! What the scheduler has promised: an id is handed out once for ever, a timestamp never goes back.
//!
//! Requests to the oracle are sent one after the other, so that "asked for later" is the order of the answers.
//! Both promises hold over kills, power cuts and restarts; the oracle therefore lives as long as the run.

use std::collections::HashSet;

use crate::model::Violation;

/// Every id and the highest timestamp that were handed out in one run.
#[derive(Debug, Default)]
pub struct Oracle {
    ids: HashSet<u64>,
    last_timestamp: u64,
}

impl Oracle {
    /// Takes an id that was handed out.
    ///
    /// # Errors
    /// It was handed out before.
    pub fn id(&mut self, id: u64) -> Result<(), Violation> {
        if self.ids.insert(id) { Ok(()) } else { Err(Violation::IdTwice { id }) }
    }

    /// Takes a timestamp that was asked for after all earlier ones were answered.
    ///
    /// # Errors
    /// It is not above all of them.
    pub fn timestamp(&mut self, timestamp: u64) -> Result<(), Violation> {
        let before = self.last_timestamp;
        if timestamp <= before {
            return Err(Violation::TimeWentBack { before, after: timestamp });
        }
        self.last_timestamp = timestamp;
        Ok(())
    }

    /// How many ids were taken.
    pub fn ids(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_id_is_seen_however_much_later() {
        let mut oracle = Oracle::default();
        for id in [4, 5, 1000, 7] {
            oracle.id(id).unwrap();
        }
        assert_eq!(oracle.id(4), Err(Violation::IdTwice { id: 4 }));
        assert_eq!(oracle.ids(), 4);
    }

    #[test]
    fn a_timestamp_that_goes_back_or_stands_still_is_seen() {
        let mut oracle = Oracle::default();
        oracle.timestamp(10).unwrap();
        oracle.timestamp(11).unwrap();
        assert_eq!(oracle.timestamp(11), Err(Violation::TimeWentBack { before: 11, after: 11 }));
        assert_eq!(oracle.timestamp(3), Err(Violation::TimeWentBack { before: 11, after: 3 }));
        oracle.timestamp(12).unwrap();
    }
}
