//! Election safety: at most one leader a term.

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// Knows the leader of every term.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    by_term: BTreeMap<u64, u64>,
}

impl Leaders {
    /// `peer` is leader in `term`. May be told as often as one likes.
    ///
    /// # Errors
    /// Another peer was leader in that term.
    pub fn leads(&mut self, peer: u64, term: u64) -> Verdict {
        let first = *self.by_term.entry(term).or_insert(peer);
        if first == peer {
            return Ok(());
        }
        Err(Violation::new("one leader a term", format!("term {term}: peers {first} and {peer}")))
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> u64 {
        self.by_term.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_found() {
        let mut leaders = Leaders::default();
        leaders.leads(1, 5).unwrap();
        leaders.leads(1, 5).unwrap();
        leaders.leads(2, 6).unwrap();
        assert!(leaders.leads(2, 5).is_err());
        assert_eq!(leaders.elections(), 2);
    }
}
