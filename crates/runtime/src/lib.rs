//! The outside world behind small traits: time, random numbers, files and threads.
//!
//! Cores (docs/ARCHITECTURE.md) take none of these: they get time and randomness as inputs. Shells are generic over
//! [`Clock`] and [`Fs`], so that tests and the simulator put a virtual world under the same code:
//! [`real`] is the machine, [`sim`] is a disk that loses what was not synced and a clock that somebody sets.

pub mod bell;
pub mod clock;
pub mod fs;
pub mod real;
pub mod rng;
pub mod sim;
pub mod task;

pub use bell::Bell;
pub use clock::Clock;
pub use fs::{File, Fs};
pub use rng::Rng;
