//! How a person, or a supervisor, ends a benchmark early: SIGINT (Ctrl-C) or SIGTERM.
//!
//! Programs that the benchmark starts are in process groups of their own, so that Ctrl-C reaches this process only:
//! it still has to report what it measured, and then ends them itself.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;

/// Waits for the next signal. From the first call on, signals do not end the process by themselves.
pub(crate) async fn signalled() {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(terminate) => {
                terminate.recv().await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Does `work` unless a signal comes first.
pub(crate) async fn unless_signalled<T>(
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        result = work => result,
        () = signalled() => Err(Error::Interrupted),
    }
}
