//! The services over the wire, against a whole cluster in the test's process.

mod common;
mod pd;
mod raw;
