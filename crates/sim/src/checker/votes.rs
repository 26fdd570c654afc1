//! A peer gives its vote of a term to one candidate, whatever happens to it in between.
//!
//! What counts is what others have seen: a vote that left the peer. That a restart has forgotten it shows when a
//! second one leaves.

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// Knows every vote that was given.
#[derive(Clone, Debug, Default)]
pub struct Votes {
    given: BTreeMap<(u64, u64), u64>,
}

impl Votes {
    /// `peer` has told somebody that its vote in `term` is for `candidate` (itself, when it asks for votes).
    ///
    /// # Errors
    /// It had given it to another one.
    pub fn given(&mut self, peer: u64, term: u64, candidate: u64) -> Verdict {
        let first = *self.given.entry((peer, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        let details = format!("peer {peer}, term {term}: for {first} and for {candidate}");
        Err(Violation::new("one vote a term", details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_vote_in_a_term_is_found() {
        let mut votes = Votes::default();
        votes.given(1, 3, 2).unwrap();
        votes.given(1, 3, 2).unwrap();
        votes.given(1, 4, 3).unwrap();
        votes.given(2, 3, 3).unwrap();
        assert!(votes.given(1, 3, 1).is_err());
    }
}
