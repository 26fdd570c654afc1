//! Stores that talk over loopback.

mod files;
pub(crate) mod messages;
mod node;
mod streams;
