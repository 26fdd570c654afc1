//! `deadlock.Deadlock`: the stores ask the one that keeps the graph of who waits for whom.

use futures_util::StreamExt;
use proto::deadlock::{
    DeadlockRequest, DeadlockRequestType, DeadlockResponse, WaitForEntriesRequest,
    WaitForEntriesResponse, WaitForEntry, deadlock_server::Deadlock,
};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use txn::deadlock::{Circle, key_hash};
use types::TimeStamp;

use crate::{
    convert_txn::{wait, wait_to_proto},
    deadlocks::DeadlockDetector,
};

/// The service of one store.
#[derive(Clone, Debug)]
pub(crate) struct DeadlockService {
    detector: DeadlockDetector,
}

impl DeadlockService {
    pub(crate) fn new(detector: DeadlockDetector) -> DeadlockService {
        DeadlockService { detector }
    }
}

#[tonic::async_trait]
impl Deadlock for DeadlockService {
    async fn get_wait_for_entries(
        &self,
        _: Request<WaitForEntriesRequest>,
    ) -> Result<Response<WaitForEntriesResponse>, Status> {
        let entries = self.detector.edges().iter().map(wait_to_proto).collect();
        Ok(Response::new(WaitForEntriesResponse { entries }))
    }

    /// Takes edges, and answers those that would close a circle. What a stream has put in goes with it.
    async fn detect(
        &self,
        request: Request<Streaming<DeadlockRequest>>,
    ) -> Result<Response<BoxStream<DeadlockResponse>>, Status> {
        let (detector, mut watch) = (self.detector.clone(), self.detector.watch());
        let answers = request.into_inner().filter_map(move |request| {
            let answer = match request {
                Err(status) => Some(Err(status)),
                Ok(_) if !detector.leads() => {
                    let message = "this store does not lead the first region";
                    Some(Err(Status::failed_precondition(message)))
                }
                Ok(request) => {
                    let edge = request.entry.clone().unwrap_or_default();
                    match request.tp() {
                        DeadlockRequestType::Detect => {
                            watch.wait(wait(edge.clone())).map(|circle| Ok(response(edge, circle)))
                        }
                        DeadlockRequestType::CleanUpWaitFor => {
                            watch.forget(&wait(edge));
                            None
                        }
                        DeadlockRequestType::CleanUp => {
                            watch.forget_txn(TimeStamp(edge.txn));
                            None
                        }
                    }
                }
            };
            std::future::ready(answer)
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn response(edge: WaitForEntry, circle: Circle) -> DeadlockResponse {
    DeadlockResponse {
        entry: Some(edge),
        deadlock_key_hash: key_hash(&circle.key),
        wait_chain: circle.chain.iter().map(wait_to_proto).collect(),
        deadlock_key: circle.key,
    }
}
