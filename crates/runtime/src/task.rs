//! Threads with names. The only place that starts one.

use std::{io, thread};

/// Starts a thread that shows up as `name` (15 characters at most on Linux) in the machine's tools.
///
/// # Errors
/// The machine gives no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}
