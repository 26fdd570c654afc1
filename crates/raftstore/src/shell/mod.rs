//! What owns threads, waits and reads clocks in this crate.

mod transport;

pub use transport::{Inbox, Transport};
