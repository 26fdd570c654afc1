//! Committed entries: everybody has the same at each index, and every later leader has them all.
//!
//! An entry counts as committed from the moment when some peer says so. It was committed in that peer's term or
//! before; so a leader of any later term must have it (leader completeness). A leader of an earlier term that shows
//! up late need not.

use super::{Verdict, Violation};

/// What is known of a committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its term.
    pub term: u64,
    /// Stands for its content.
    pub fingerprint: u64,
    /// The lowest term in which a peer knew it to be committed.
    known_in: u64,
    /// The peer that said so first.
    first: u64,
}

/// The part of the log that can never change.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Where the log begins; what is before is no matter.
    before: u64,
    /// The entry at index `i` lies at `i - before - 1`. Nothing is missing: peers commit in order.
    entries: Vec<Entry>,
}

impl Committed {
    /// A log whose first entry comes after `before`.
    pub fn after(before: u64) -> Committed {
        Committed { before, entries: Vec::new() }
    }

    /// The committed entry at `index`.
    pub fn at(&self, index: u64) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
    }

    /// The index of the last one.
    pub fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.before + 1)?).ok()
    }

    /// `peer`, in its term `known_in`, says that the entry at `index` with this term and content is committed.
    ///
    /// # Errors
    /// Somebody has said otherwise, or nobody has told of an entry before.
    pub fn commit(
        &mut self,
        peer: u64,
        known_in: u64,
        index: u64,
        term: u64,
        fingerprint: u64,
    ) -> Verdict {
        if index == self.last() + 1 {
            self.entries.push(Entry { term, fingerprint, known_in, first: peer });
            return Ok(());
        }
        let last = self.last();
        let Some(entry) = self.place(index).and_then(|place| self.entries.get_mut(place)) else {
            let details = format!("peer {peer} commits {index}, but only {last} are known");
            return Err(Violation::new("committed in order", details));
        };
        entry.known_in = entry.known_in.min(known_in);
        if (entry.term, entry.fingerprint) == (term, fingerprint) {
            return Ok(());
        }
        let details = format!(
            "index {index}: peer {} has term {} ({:016x}), peer {peer} term {term} ({fingerprint:016x})",
            entry.first, entry.term, entry.fingerprint
        );
        Err(Violation::new("committed entries are equal", details))
    }

    /// `peer` is leader in `term`; its log begins after `before` and `term_at` gives the terms of its entries.
    ///
    /// # Errors
    /// An entry that was committed in an earlier term is missing, or another one is in its place.
    pub fn leads(
        &self,
        peer: u64,
        term: u64,
        before: u64,
        term_at: impl Fn(u64) -> Option<u64>,
    ) -> Verdict {
        for index in (before + 1..=self.last()).rev() {
            let Some(entry) = self.at(index).filter(|entry| entry.known_in < term) else {
                continue;
            };
            let has = term_at(index);
            if has != Some(entry.term) {
                let details = format!(
                    "peer {peer}, leader in term {term}, has at index {index} {has:?}, and term {} was \
                     committed there in term {} at the latest",
                    entry.term, entry.known_in
                );
                return Err(Violation::new("leaders have all committed entries", details));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Committed {
        let mut committed = Committed::default();
        committed.commit(1, 2, 1, 1, 100).unwrap();
        committed.commit(1, 2, 2, 2, 200).unwrap();
        committed.commit(1, 4, 3, 4, 300).unwrap();
        committed
    }

    #[test]
    fn another_term_or_content_at_a_committed_index_is_found() {
        three().commit(2, 4, 2, 2, 200).unwrap();
        assert!(three().commit(2, 4, 2, 3, 200).is_err());
        assert!(three().commit(2, 4, 2, 2, 201).is_err());
    }

    #[test]
    fn a_log_may_begin_late() {
        let mut committed = Committed::after(5);
        committed.commit(1, 6, 6, 6, 100).unwrap();
        assert_eq!(
            (committed.last(), committed.at(5), committed.at(6).unwrap().term),
            (6, None, 6)
        );
        assert!(committed.clone().commit(1, 6, 5, 6, 100).is_err());
        assert!(committed.commit(2, 6, 6, 6, 101).is_err());
    }

    #[test]
    fn a_gap_is_found() {
        assert!(three().commit(2, 4, 5, 4, 500).is_err());
        assert!(three().commit(2, 4, 0, 4, 500).is_err());
    }

    #[test]
    fn a_later_leader_without_a_committed_entry_is_found() {
        let committed = three();
        let log = |terms: &'static [u64]| {
            move |index: u64| terms.get(usize::try_from(index).unwrap() - 1).copied()
        };
        committed.leads(2, 5, 0, log(&[1, 2, 4])).unwrap();
        assert!(committed.leads(2, 5, 0, log(&[1, 2])).is_err());
        assert!(committed.leads(2, 5, 0, log(&[1, 3, 4])).is_err());
        // Before term 5 nobody needs the entry of term 4; what lies in a snapshot is not looked at.
        committed.leads(2, 4, 0, log(&[1, 2])).unwrap();
        committed.leads(2, 5, 2, log(&[9, 9, 4])).unwrap();
    }
}
