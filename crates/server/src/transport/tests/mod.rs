//! Stores that talk over loopback.

pub(crate) mod messages;
