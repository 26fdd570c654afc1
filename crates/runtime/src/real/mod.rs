//! The machine: its clock and its file system.
//!
//! The only place of the project that reads the machine's clocks. What else a shell needs from the machine, it gets
//! through [`Clock`](crate::Clock) and [`Fs`](crate::Fs).

mod clock;
mod fs;

pub use clock::RealClock;
pub use fs::RealFs;
