//! Listening sockets and connections: HTTP/2 settings, graceful end, one task per connection.
//!
//! Services are plain tower services over hyper, so that the hot path of a store is a comparison of a path prefix and
//! a call, without a router in between.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tonic::body::Body;
use tower::Service;
use types::limits;

use crate::handlers::{Handlers, WithHandlers};

/// What a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2 without TLS: gRPC.
    Http2,
    /// HTTP/2 or HTTP/1.1, told apart by the first bytes.
    Any,
}

/// Opens a listening socket. Port 0 takes a free one.
pub(crate) async fn bind(addr: &str) -> io::Result<TcpListener> {
    let mut last = None;
    for addr in tokio::net::lookup_host(addr).await? {
        match bind_one(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the address names no host")
    }))
}

fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    // A restart must not wait for the connections of its predecessor to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Says when to stop: first gracefully, then at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serve.
    Running,
    /// Take no new connections and requests, finish those under way.
    Draining,
    /// Drop everything.
    Stopped,
}

/// Serves connections of `listener` until the phase is [`Phase::Stopped`], or all have ended while draining.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    protocol: Protocol,
    service: S,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Small answers must not wait for more of them.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, protocol, service.clone(), phase.clone()));
                }
                // Out of file descriptors, usually: wait for some to come back instead of spinning.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = until(&mut phase, Phase::Draining) => break,
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { return },
            () = until(&mut phase, Phase::Stopped) => return connections.shutdown().await,
        }
    }
}

async fn connection<S>(
    stream: TcpStream,
    protocol: Protocol,
    service: S,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let handlers = Handlers::default();
    let mut builder = auto::Builder::new(handlers.clone());
    if protocol == Protocol::Http2 {
        builder = builder.http2_only();
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::GRPC_WINDOW_BYTES)
        .initial_connection_window_size(limits::GRPC_WINDOW_BYTES)
        .max_header_list_size(limits::GRPC_HEADER_BYTES_MAX)
        .max_concurrent_streams(None)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = WithHandlers::new(Box::pin(connection), handlers);
    let served = tokio::select! {
        served = &mut connection => served,
        () = until(&mut phase, Phase::Draining) => {
            connection.connection().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients go away in many ways; none of them is our error.
        tracing::debug!(%error, "connection ended");
    }
}

/// The messages of a client's stream, until the process drains. A stream that the client never ends (all do that:
/// BatchCommands, timestamps, heartbeats) would hold up the end of the process until its deadline.
pub(crate) fn while_running<S: Stream + Send + 'static>(
    messages: S,
    phase: &watch::Receiver<Phase>,
) -> BoxStream<'static, S::Item> {
    messages.take_until(until_draining(phase.clone())).boxed()
}

/// Returns when the process drains or stops.
pub(crate) async fn until_draining(mut phase: watch::Receiver<Phase>) {
    until(&mut phase, Phase::Draining).await;
}

async fn until(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // An error means that whoever drives the phases is gone, which is the end as well.
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}
