//! Rare events that a run over many seeds must have seen. A simulator that never gets there proves nothing about there.

/// The names, as in the code's `sometimes!`.
pub const REQUIRED: &[&str] = &[];

/// With fewer seeds than this nothing is required.
pub const REQUIRED_FROM_SEEDS: u64 = 300;
