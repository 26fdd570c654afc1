//! What must hold, each property in its own file. A checker is told what happened and says when it cannot be.
//!
//! Checkers know no world and no Raft implementation: they see numbers of peers, terms, indexes, fingerprints and
//! moments. So they can be tried with planted violations, and they judge every implementation alike.

pub mod acknowledged;
pub mod applied;
pub mod committed;
pub mod leaders;
pub mod order;
pub mod registers;
pub mod votes;

use std::fmt;

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// What happened, with the values.
    pub details: String,
}

impl Violation {
    /// `property` did not hold, because of `details`.
    pub fn new(property: &'static str, details: impl Into<String>) -> Violation {
        Violation { property, details: details.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.details)
    }
}

impl std::error::Error for Violation {}

/// What a checker says.
pub type Verdict = Result<(), Violation>;
