//! The bare echo server: what a gRPC server of this machine costs when it does nothing.
//!
//! It has the product's shape (tonic, multi-thread tokio, the same service, messages and windows) and none of its
//! work: RawGet answers one fixed value, RawPut nothing, RawScan the fixed pair as often as asked, BatchCommands the
//! same for every command of the message, in the order of the requests. That is the floor that ratios refer to.
//!
//! It runs as a process of its own, so that its processor time is its own: the benchmark starts
//! `tinykv bench echo-server` and reads the address from its first line.

use std::{io::Write, net::SocketAddr};

use bytes::Bytes;
use futures_util::StreamExt;
use proto::{
    kvrpcpb::{
        KvPair, RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest,
        RawScanResponse,
    },
    tikvpb::{
        BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse,
        batch_commands_request as request, batch_commands_response as response,
        tikv_server::{Tikv, TikvServer},
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream, transport::Server};
use types::limits;

use crate::{
    args::EchoServerArgs,
    error::Error,
    keys::{Dataset, Values},
};

/// Pairs of one scan at most.
const SCAN_PAIRS_MAX: u32 = 10_000;

/// Answers everything with the value of one key.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pair: KvPair,
}

impl Echo {
    /// Values of `value_bytes`, as the data set's key 0 has.
    pub(crate) fn new(value_bytes: usize) -> Echo {
        let dataset = Dataset::new(b"", 1, value_bytes);
        let mut rng = fastrand::Rng::with_seed(0);
        let key = dataset.key(0);
        let value = Values::new(value_bytes, &mut rng).build(&key, &mut rng);
        // Buffers of their own: a slice of a chunk would keep the chunk.
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        Echo { pair: KvPair { key, value, ..Default::default() } }
    }

    fn get(&self) -> RawGetResponse {
        RawGetResponse { value: self.pair.value.clone(), ..Default::default() }
    }

    fn scan(&self, limit: u32) -> RawScanResponse {
        RawScanResponse {
            region_error: None,
            kvs: vec![self.pair.clone(); limit.min(SCAN_PAIRS_MAX) as usize],
        }
    }

    fn answer(&self, request: request::Request) -> response::Response {
        use request::request::Cmd as Asked;
        use response::response::Cmd;
        let cmd = match request.cmd {
            Some(Asked::RawGet(_)) => Cmd::RawGet(self.get()),
            Some(Asked::RawPut(_)) => Cmd::RawPut(RawPutResponse::default()),
            Some(Asked::RawScan(scan)) => Cmd::RawScan(self.scan(scan.limit)),
            _ => Cmd::Empty(BatchCommandsEmptyResponse::default()),
        };
        response::Response { cmd: Some(cmd) }
    }

    fn answer_all(&self, message: BatchCommandsRequest) -> BatchCommandsResponse {
        BatchCommandsResponse {
            responses: message.requests.into_iter().map(|request| self.answer(request)).collect(),
            request_ids: message.request_ids,
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl Tikv for Echo {
    async fn raw_get(&self, _: Request<RawGetRequest>) -> Result<Response<RawGetResponse>, Status> {
        Ok(Response::new(self.get()))
    }

    async fn raw_put(&self, _: Request<RawPutRequest>) -> Result<Response<RawPutResponse>, Status> {
        Ok(Response::new(RawPutResponse::default()))
    }

    async fn raw_scan(
        &self,
        request: Request<RawScanRequest>,
    ) -> Result<Response<RawScanResponse>, Status> {
        Ok(Response::new(self.scan(request.get_ref().limit)))
    }

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
        let echo = self.clone();
        let answers = request
            .into_inner()
            .map(move |message| message.map(|message| echo.answer_all(message)));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves until the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    echo: Echo,
) -> Result<(), tonic::transport::Error> {
    let connections = TcpListenerStream::new(listener).map(|connection| {
        connection.and_then(|connection| connection.set_nodelay(true).map(|()| connection))
    });
    Server::builder()
        .initial_stream_window_size(limits::GRPC_WINDOW_BYTES)
        .initial_connection_window_size(limits::GRPC_WINDOW_BYTES)
        .add_service(TikvServer::new(echo).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        .serve_with_incoming(connections)
        .await
}

/// Runs the echo server as this process: prints its address, then serves until it is killed, or until standard input
/// ends if asked to.
///
/// # Errors
/// It cannot listen there.
pub(crate) fn run(args: &EchoServerArgs) -> Result<(), Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        builder.worker_threads(workers);
    }
    let machine = |source| Error::Machine { what: "threads", source };
    let runtime = builder.enable_all().build().map_err(machine)?;
    let result = runtime.block_on(async {
        let listen = |source| Error::Listen { address: args.listen.to_string(), source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
        let address: SocketAddr = listener.local_addr().map_err(listen)?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{address}").and_then(|()| stdout.flush()).map_err(machine)?;
        let serve = tokio::spawn(serve(listener, Echo::new(args.value_size)));
        if args.until_stdin_ends {
            // The end of the parent, however it comes, ends the pipe.
            let end = tokio::task::spawn_blocking(|| {
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
            });
            tokio::select! {
                _ = end => {}
                _ = serve => {}
            }
        } else {
            let _ = serve.await;
        }
        Ok(())
    });
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_value_verifies_under_every_key() {
        let echo = Echo::new(256);
        let dataset = Dataset::new(b"", 10, 256).with_fixed_value();
        assert_eq!(echo.get().value.len(), 256);
        dataset.verify(&dataset.key(7), &echo.get().value).unwrap();
        let scan = echo.scan(3);
        assert_eq!(scan.kvs.len(), 3);
        dataset.verify(&scan.kvs[2].key, &scan.kvs[2].value).unwrap();
    }

    #[test]
    fn every_command_of_a_batch_is_answered_under_its_id() {
        let commands = [
            Some(request::request::Cmd::RawGet(RawGetRequest::default())),
            Some(request::request::Cmd::RawPut(RawPutRequest::default())),
            None,
        ];
        let message = BatchCommandsRequest {
            requests: commands.into_iter().map(|cmd| request::Request { cmd }).collect(),
            request_ids: vec![7, 9, 8],
            client_send_time_ns: 0,
        };
        let answers = Echo::new(16).answer_all(message);
        assert_eq!(answers.request_ids, [7, 9, 8]);
        let [get, put, unknown] = &answers.responses[..] else { panic!("{answers:?}") };
        assert!(matches!(get.cmd, Some(response::response::Cmd::RawGet(_))));
        assert!(matches!(put.cmd, Some(response::response::Cmd::RawPut(_))));
        assert!(matches!(unknown.cmd, Some(response::response::Cmd::Empty(_))));
    }
}
