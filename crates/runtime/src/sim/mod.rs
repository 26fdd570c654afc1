//! A virtual world for tests and the simulator: a clock that somebody sets, and a disk that loses what was not synced.
//!
//! Everything is deterministic: the same calls with the same seeds give the same world.

mod clock;
mod fs;
mod image;

pub use clock::SimClock;
pub use fs::SimFs;
