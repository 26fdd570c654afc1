//! Judges of what clients saw.
//!
//! A judge is told operations: when each began, when it was answered, and what the answer said. It knows neither a
//! network nor a clock, so that the simulator and the chaos of real processes ask the same one. Each has tests that
//! plant what it must find.
#![forbid(unsafe_code)]

pub mod history;

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

/// What a judge says.
pub type Verdict = Result<(), Violation>;
