//! Unary calls whose request and end of stream are one HTTP/2 frame.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tower_service::Service;

/// A channel for unary calls that ends the stream in the frame of the request's only message.
///
/// tonic's own clients send the end as an empty frame of its own. When that frame comes in a packet of its own, the
/// server is woken twice for one request; it may not begin before the end. **Not for streams of requests**: they
/// would end after their first message.
#[derive(Clone, Copy, Debug)]
pub struct OneFrame<S>(pub S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for OneFrame<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request.map(|message| Body::new(EndsWithMessage { message, sent: false })))
    }
}

/// The body of a request with one message, which tonic always hands out as one frame.
struct EndsWithMessage {
    message: Body,
    sent: bool,
}

impl http_body::Body for EndsWithMessage {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.sent {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.message).poll_frame(cx);
        self.sent = frame.is_ready();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.sent || self.message.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.message.size_hint()
    }
}
