//! State-machine safety: who has applied up to an index has the state that everybody has there, and got there step by
//! step.

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// Knows the state after each index, by its fingerprint, and how far each peer is.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    states: BTreeMap<u64, u64>,
    peers: BTreeMap<u64, u64>,
}

impl Applied {
    /// `peer` starts, or has installed a snapshot, with the state `fingerprint` at `index`.
    ///
    /// # Errors
    /// Another peer has another state there.
    pub fn starts(&mut self, peer: u64, index: u64, fingerprint: u64) -> Verdict {
        self.peers.insert(peer, index);
        self.compare(peer, index, fingerprint)
    }

    /// `peer` has applied the entry at `index` and now has the state `fingerprint`.
    ///
    /// # Errors
    /// It has left out or repeated an index, or another peer has another state there.
    pub fn applies(&mut self, peer: u64, index: u64, fingerprint: u64) -> Verdict {
        let before = self.peers.insert(peer, index);
        if before != Some(index.wrapping_sub(1)) {
            let details = format!("peer {peer} applies {index} after {before:?}");
            return Err(Violation::new("applied step by step", details));
        }
        self.compare(peer, index, fingerprint)
    }

    /// The state at `index`, if anybody was there.
    pub fn state(&self, index: u64) -> Option<u64> {
        self.states.get(&index).copied()
    }

    fn compare(&mut self, peer: u64, index: u64, fingerprint: u64) -> Verdict {
        let first = *self.states.entry(index).or_insert(fingerprint);
        if first == fingerprint {
            return Ok(());
        }
        let details =
            format!("index {index}: peer {peer} has {fingerprint:016x}, others {first:016x}");
        Err(Violation::new("equal states at equal indexes", details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_different_state_is_found() {
        let mut applied = Applied::default();
        applied.starts(1, 0, 7).unwrap();
        applied.starts(2, 0, 7).unwrap();
        applied.applies(1, 1, 8).unwrap();
        assert!(applied.clone().applies(2, 1, 9).is_err());
        assert!(applied.starts(3, 1, 9).is_err(), "by snapshot as well");
    }

    #[test]
    fn a_skipped_and_a_repeated_index_are_found() {
        let mut applied = Applied::default();
        applied.starts(1, 4, 7).unwrap();
        applied.applies(1, 5, 8).unwrap();
        assert!(applied.clone().applies(1, 5, 8).is_err());
        assert!(applied.clone().applies(1, 7, 8).is_err());
        assert!(applied.applies(2, 1, 8).is_err(), "a peer that never started");
    }
}
