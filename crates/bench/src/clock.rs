//! The clock of the load generator: what latencies are measured with.
//!
//! A load generator measures real time and nothing else, twice per request, so it reads the machine's clock without
//! the indirection of `runtime::Clock`. This is the only place.

use std::time::Instant;

/// Now, on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "latencies are real time; read twice per request")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
