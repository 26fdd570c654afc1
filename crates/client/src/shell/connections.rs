//! Addresses, connections, and what went wrong with them in a few words.
//!
//! A connection is a tonic channel: it dials when it is first used and again when it broke. Whether a request left
//! this machine decides what a failed write means, so [`failure`] looks for the one error that proves that it did not.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use types::{Code, limits};

use crate::{Error, Result, request::Failure};

/// How often a silent connection is probed, and how long a probe may take. A store that vanished without a word (its
/// machine lost power) is noticed after the sum.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Several connections to each store, used in turn.
#[derive(Debug)]
pub(super) struct Connections {
    per_store: usize,
    connect_timeout: Duration,
    stores: Mutex<HashMap<Arc<str>, Arc<Pool>>>,
}

#[derive(Debug)]
struct Pool {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Connections {
    pub(super) fn new(per_store: usize, connect_timeout: Duration) -> Connections {
        Connections { per_store: per_store.max(1), connect_timeout, stores: Mutex::default() }
    }

    /// A connection to `address`; the reason if it is no address.
    pub(super) fn get(&self, address: &Arc<str>) -> Result<Channel, String> {
        let mut stores = self.stores.lock().expect("no code under this lock panics");
        let pool = match stores.get(address) {
            Some(pool) => pool,
            None => {
                let endpoint =
                    endpoint(address, self.connect_timeout).map_err(|error| error.to_string())?;
                let channels = (0..self.per_store).map(|_| endpoint.connect_lazy()).collect();
                let pool = Pool { channels, next: AtomicUsize::new(0) };
                stores.entry(Arc::clone(address)).or_insert(Arc::new(pool))
            }
        };
        let turn = pool.next.fetch_add(1, Ordering::Relaxed);
        Ok(pool.channels[turn % pool.channels.len()].clone())
    }
}

/// `host:port` of an address that a user or the scheduler wrote.
///
/// # Errors
/// It is none, or needs TLS.
pub(super) fn host_port(address: &str) -> Result<&str> {
    let trimmed = address.trim();
    if trimmed.starts_with("https://") {
        let message =
            format!("{address}: this version has no TLS; write http://, or HOST:PORT alone");
        return Err(Error::refused(Code::NotAvailableYet, message));
    }
    let trimmed = trimmed.strip_prefix("http://").unwrap_or(trimmed);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    let has_port = |(host, port): (&str, &str)| {
        !host.is_empty()
            && port.parse::<u16>().is_ok_and(|port| port != 0)
            && !host.contains(['/', ' ', '@'])
    };
    match trimmed.rsplit_once(':').is_some_and(has_port) {
        true => Ok(trimmed),
        false => Err(Error::refused(
            Code::InvalidRequest,
            format!("\"{address}\" is no address: write HOST:PORT"),
        )),
    }
}

/// How `address` is dialled.
pub(super) fn endpoint(address: &str, connect_timeout: Duration) -> Result<Endpoint> {
    let uri = format!("http://{}", host_port(address)?);
    let endpoint = Endpoint::from_shared(uri).map_err(|error| {
        Error::refused(
            Code::InvalidRequest,
            format!("\"{address}\" is no address: {}", innermost(&error)),
        )
    })?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(PING_INTERVAL))
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::GRPC_WINDOW_BYTES)
        .initial_connection_window_size(limits::GRPC_WINDOW_BYTES))
}

/// What a status without an answer says about the request.
pub(super) fn failure(status: &Status) -> Failure {
    match sources(status).any(|error| error.is::<tonic::ConnectError>()) {
        true => Failure::NotSent(reason(status)),
        false => Failure::NoAnswer(reason(status)),
    }
}

/// Whether the status was made on this side, because the connection failed.
pub(super) fn is_transport(status: &Status) -> bool {
    StdError::source(status).is_some()
}

/// Why a status has no answer, in a few words.
pub(super) fn reason(status: &Status) -> String {
    for error in sources(status) {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return "refused".to_owned(),
                io::ErrorKind::TimedOut => return "timed out".to_owned(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return "connection lost".to_owned();
                }
                _ => {}
            }
        }
        if error.is::<tonic::TimeoutExpired>() {
            return "timed out".to_owned();
        }
    }
    match sources(status).last() {
        Some(_) => {
            let last = innermost(status);
            // HTTP/1 and TLS servers answer with something that is no HTTP/2 frame.
            match last.contains("frame") || last.contains("http2") {
                true => format!("speaks something other than gRPC ({last})"),
                false => last,
            }
        }
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

type Cause<'a> = &'a (dyn StdError + 'static);

/// The causes of a status, outermost first.
fn sources(status: &Status) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(StdError::source(status), cause)
}

/// The innermost cause of an error.
fn innermost(error: Cause<'_>) -> String {
    std::iter::successors(Some(error), cause).last().map_or_else(String::new, ToString::to_string)
}

fn cause<'a>(error: &Cause<'a>) -> Option<Cause<'a>> {
    (*error).source()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        for (text, address) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("http://127.0.0.1:2379", "127.0.0.1:2379"),
            (" http://pd.local:2379/ ", "pd.local:2379"),
            ("[::1]:2379", "[::1]:2379"),
        ] {
            assert_eq!(host_port(text), Ok(address));
            assert!(endpoint(text, Duration::from_secs(1)).is_ok());
        }
        for wrong in [
            "",
            "localhost",
            "localhost:",
            ":2379",
            "h:0",
            "h:99999",
            "http://h",
            "http://h:1/path",
            "ftp://h:1",
        ] {
            assert_eq!(host_port(wrong).unwrap_err().code(), Code::InvalidRequest, "{wrong}");
        }
        assert_eq!(host_port("https://h:1").unwrap_err().code(), Code::NotAvailableYet);
    }

    #[tokio::test]
    async fn connections_are_used_in_turn() {
        let connections = Connections::new(2, Duration::from_secs(1));
        let address: Arc<str> = "127.0.0.1:1".into();
        for _ in 0..5 {
            connections.get(&address).unwrap();
        }
        let stores = connections.stores.lock().unwrap();
        assert_eq!((stores.len(), stores[&address].channels.len()), (1, 2));
        assert_eq!(stores[&address].next.load(Ordering::Relaxed), 5);
    }
}
