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

pub use check::{Verdict, Violation};
