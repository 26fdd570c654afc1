//! What a client was told is kept: an acknowledged proposal is committed where the answer says and stays there, and a
//! proposal that was reported lost never shows up.

use std::collections::BTreeMap;

use super::{Verdict, Violation};

/// Knows what clients were told.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    kept: BTreeMap<u64, u64>,
    lost: BTreeMap<u64, u64>,
}

impl Acknowledged {
    /// Proposal `id` was acknowledged, at `index`.
    ///
    /// # Errors
    /// It was reported lost, or acknowledged at another index.
    pub fn kept(&mut self, id: u64, index: u64) -> Verdict {
        if self.lost.contains_key(&id) {
            let details = format!("proposal {id} was reported lost, then kept");
            return Err(Violation::new("answers agree", details));
        }
        let first = *self.kept.entry(id).or_insert(index);
        if first == index {
            return Ok(());
        }
        let details = format!("proposal {id} was acknowledged at {first} and at {index}");
        Err(Violation::new("answers agree", details))
    }

    /// Proposal `id`, which was to be at `index`, was reported lost for good.
    ///
    /// # Errors
    /// It was acknowledged before.
    pub fn lost(&mut self, id: u64, index: u64) -> Verdict {
        if self.kept.contains_key(&id) {
            let details = format!("proposal {id} was acknowledged, then reported lost");
            return Err(Violation::new("answers agree", details));
        }
        self.lost.insert(id, index);
        Ok(())
    }

    /// How many were acknowledged.
    pub fn count(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Compares with what is committed in the end: `id_at` gives the proposal at an index, if one is there.
    ///
    /// # Errors
    /// An acknowledged proposal is not there, or one that was reported lost is.
    pub fn check(&self, last: u64, id_at: impl Fn(u64) -> Option<u64>) -> Verdict {
        for (id, index) in &self.kept {
            let there = id_at(*index);
            if last < *index || there != Some(*id) {
                let details =
                    format!("proposal {id} was acknowledged at {index}, where {there:?} is");
                return Err(Violation::new("acknowledged proposals are kept", details));
            }
        }
        for index in 1..=last {
            if let Some(id) = id_at(index).filter(|id| self.lost.contains_key(id)) {
                let details = format!("proposal {id} was reported lost and is at {index}");
                return Err(Violation::new("lost proposals stay lost", details));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(ids: &'static [u64]) -> (u64, impl Fn(u64) -> Option<u64>) {
        (ids.len() as u64, move |index| ids.get(usize::try_from(index).unwrap() - 1).copied())
    }

    #[test]
    fn a_lost_acknowledged_proposal_is_found() {
        let mut told = Acknowledged::default();
        told.kept(11, 1).unwrap();
        told.kept(13, 3).unwrap();
        let (last, at) = log(&[11, 12, 13]);
        told.check(last, at).unwrap();
        let (last, at) = log(&[11, 12]);
        assert!(told.check(last, at).is_err());
        let (last, at) = log(&[11, 13, 12]);
        assert!(told.check(last, at).is_err());
    }

    #[test]
    fn a_proposal_that_comes_back_from_the_dead_is_found() {
        let mut told = Acknowledged::default();
        told.lost(12, 2).unwrap();
        let (last, at) = log(&[11, 13]);
        told.check(last, at).unwrap();
        let (last, at) = log(&[11, 13, 12]);
        assert!(told.check(last, at).is_err());
    }

    #[test]
    fn contradicting_answers_are_found() {
        let mut told = Acknowledged::default();
        told.kept(1, 1).unwrap();
        told.lost(2, 2).unwrap();
        assert!(told.kept(1, 2).is_err());
        assert!(told.lost(1, 1).is_err());
        assert!(told.kept(2, 2).is_err());
    }
}
