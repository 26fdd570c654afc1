//! BatchCommands: many commands over one stream, answered in any order. The fast path of the product.
//!
//! The stream of answers is a state machine that the connection polls: it takes a batch off the wire, answers point
//! gets in place from one snapshot, and keeps writes as futures until the store has them on disk. Nothing is spawned
//! and no channel is crossed per command. One slow command holds up no other: it is one of the futures.
//!
//! Invariant: every command gets exactly one answer with its id, also an unknown one; an error of a command is an answer
//! and never ends the stream. A message that is no batch at all does, with a status, after all that came before it. Answers leave as soon as there are any, at most [`limits::STREAM_ANSWERS_MAX`] at once; when
//! [`limits::STREAM_COMMANDS_MAX`] commands are under way, no more are taken off the wire.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, FuturesUnordered},
};
use proto::{
    kvrpcpb,
    tikvpb::{
        BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse,
        batch_commands_request::request::Cmd as Command,
        batch_commands_response::{Response, response::Cmd as Reply},
    },
};
use storage::View;
use tonic::Status;
use types::limits;

use super::{kv::KvService, refused::Refused, rpc_times::Method};
use crate::errors::Answer;

type Requests = BoxStream<'static, Result<BatchCommandsRequest, Status>>;
type Pending = Pin<Box<dyn Future<Output = (u64, Reply)> + Send>>;

/// The answers of one BatchCommands stream.
pub(crate) struct BatchCommands {
    kv: KvService,
    requests: Requests,
    /// The client has closed its side, the connection broke, or the process drains.
    ended: bool,
    /// Why nothing more can be read: a message that can't be decoded or is too large. Said after all answers.
    broken: Option<Status>,
    /// Commands that wait for the disk or for a read pool.
    pending: FuturesUnordered<Pending>,
    ready: Answers,
}

/// Answers that have not left yet.
#[derive(Default)]
struct Answers {
    ids: Vec<u64>,
    replies: Vec<Response>,
}

impl Answers {
    fn push(&mut self, id: u64, reply: Option<Reply>) {
        self.ids.push(id);
        self.replies.push(Response { cmd: reply });
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= limits::STREAM_ANSWERS_MAX
    }

    fn take(&mut self) -> Option<BatchCommandsResponse> {
        if self.ids.is_empty() {
            return None;
        }
        let capacity = self.ids.len();
        Some(BatchCommandsResponse {
            request_ids: std::mem::replace(&mut self.ids, Vec::with_capacity(capacity)),
            responses: std::mem::replace(&mut self.replies, Vec::with_capacity(capacity)),
            ..BatchCommandsResponse::default()
        })
    }
}

impl BatchCommands {
    /// Answers `requests` from `kv`. Ends when they end and all are answered.
    pub(crate) fn new(kv: KvService, requests: Requests) -> BatchCommands {
        BatchCommands {
            kv,
            requests,
            ended: false,
            broken: None,
            pending: FuturesUnordered::new(),
            ready: Answers::default(),
        }
    }

    /// Answers what can be answered at once, and starts the rest.
    fn on_batch(&mut self, batch: BatchCommandsRequest) {
        // One view for all gets of the batch: taken now, after every request of it has arrived.
        let mut view = None;
        let (began, mut gets) = (self.kv.times().now(), 0);
        let mut ids = batch.request_ids.into_iter();
        for request in batch.requests {
            // A batch with fewer ids than requests is malformed; what has no id can't be answered.
            let Some(id) = ids.next() else { break };
            match request.cmd {
                Some(Command::RawGet(get)) => match self.get_at_once(&mut view, &get) {
                    Some(reply) => {
                        self.ready.push(id, Some(Reply::RawGet(reply)));
                        gets += 1;
                    }
                    None => self.start_pending(id, Some(Command::RawGet(get))),
                },
                command => self.start_pending(id, command),
            }
        }
        if gets > 0 {
            self.kv.times().record(Method::RawGet, began, gets);
        }
    }

    /// `None`: the leader has to be asked first.
    fn get_at_once(
        &self,
        view: &mut Option<View>,
        get: &kvrpcpb::RawGetRequest,
    ) -> Option<kvrpcpb::RawGetResponse> {
        if view.is_none() {
            match self.kv.view() {
                Ok(fresh) => *view = Some(fresh),
                Err(error) => return Some(kvrpcpb::RawGetResponse::failed(&error)),
            }
        }
        let view = view.as_ref().expect("was filled above");
        self.kv.raw_get_in(view, get)
    }

    fn start_pending(&mut self, id: u64, command: Option<Command>) {
        match self.start(id, command) {
            Started::Answered(reply) => self.ready.push(id, reply),
            Started::Pending(future) => self.pending.push(future),
        }
    }

    /// Starts one command.
    fn start(&self, id: u64, command: Option<Command>) -> Started {
        /// A command as a future, answered in its own variant; `as` the method that is timed, if that has another name.
        macro_rules! pending {
            ($variant:ident, $method:ident, $request:expr) => {
                pending!($variant as $variant, $method, $request)
            };
            ($variant:ident as $timed:ident, $method:ident, $request:expr) => {{
                let kv = self.kv.clone();
                let request = $request;
                Started::Pending(Box::pin(async move {
                    let answer = kv.times().timed(Method::$timed, kv.$method(request));
                    (id, Reply::$variant(answer.await))
                }))
            }};
        }
        /// A command that this version refuses.
        macro_rules! refused {
            ($variant:ident) => {
                Started::Answered(Some(Reply::$variant(Refused::refused())))
            };
        }
        match command {
            Some(Command::RawGet(request)) => pending!(RawGet, raw_get, request),
            Some(Command::RawBatchGet(request)) => pending!(RawBatchGet, raw_batch_get, request),
            Some(Command::RawPut(request)) => pending!(RawPut, raw_put, request),
            Some(Command::RawBatchPut(request)) => pending!(RawBatchPut, raw_batch_put, request),
            Some(Command::RawDelete(request)) => pending!(RawDelete, raw_delete, request),
            Some(Command::RawBatchDelete(request)) => {
                pending!(RawBatchDelete, raw_batch_delete, request)
            }
            Some(Command::RawDeleteRange(request)) => {
                pending!(RawDeleteRange, raw_delete_range, request)
            }
            Some(Command::RawScan(request)) => pending!(RawScan, raw_scan, request),
            Some(Command::RawBatchScan(request)) => pending!(RawBatchScan, raw_batch_scan, request),
            Some(Command::RawCoprocessor(request)) => {
                pending!(RawCoprocessor, raw_coprocessor, request)
            }
            Some(Command::Empty(request)) => {
                Started::Answered(Some(Reply::Empty(BatchCommandsEmptyResponse {
                    test_id: request.test_id,
                })))
            }
            Some(Command::GetHealthFeedback(_)) => Started::Answered(Some(
                Reply::GetHealthFeedback(kvrpcpb::GetHealthFeedbackResponse::default()),
            )),
            Some(Command::Get(request)) => pending!(Get as KvGet, kv_get, request),
            Some(Command::Scan(request)) => pending!(Scan as KvScan, kv_scan, request),
            Some(Command::BatchGet(request)) => {
                pending!(BatchGet as KvBatchGet, kv_batch_get, request)
            }
            Some(Command::Prewrite(request)) => {
                pending!(Prewrite as KvPrewrite, kv_prewrite, request)
            }
            Some(Command::Commit(request)) => pending!(Commit as KvCommit, kv_commit, request),
            Some(Command::Cleanup(request)) => pending!(Cleanup as KvCleanup, kv_cleanup, request),
            Some(Command::BatchRollback(request)) => {
                pending!(BatchRollback as KvBatchRollback, kv_batch_rollback, request)
            }
            Some(Command::ScanLock(request)) => {
                pending!(ScanLock as KvScanLock, kv_scan_lock, request)
            }
            Some(Command::ResolveLock(request)) => {
                pending!(ResolveLock as KvResolveLock, kv_resolve_lock, request)
            }
            Some(Command::PessimisticLock(request)) => {
                pending!(PessimisticLock as KvPessimisticLock, kv_pessimistic_lock, request)
            }
            Some(Command::PessimisticRollback(request)) => {
                pending!(
                    PessimisticRollback as KvPessimisticRollback,
                    kv_pessimistic_rollback,
                    request
                )
            }
            Some(Command::CheckTxnStatus(request)) => {
                pending!(CheckTxnStatus as KvCheckTxnStatus, kv_check_txn_status, request)
            }
            Some(Command::TxnHeartBeat(request)) => {
                pending!(TxnHeartBeat as KvTxnHeartBeat, kv_txn_heart_beat, request)
            }
            Some(Command::CheckSecondaryLocks(request)) => {
                pending!(
                    CheckSecondaryLocks as KvCheckSecondaryLocks,
                    kv_check_secondary_locks,
                    request
                )
            }
            Some(Command::DeleteRange(request)) => {
                pending!(DeleteRange as KvDeleteRange, kv_delete_range, request)
            }
            Some(Command::Coprocessor(_)) => refused!(Coprocessor),
            // Unknown to us: an answer without content, so that the client does not wait for it.
            Some(_) | None => Started::Answered(None),
        }
    }
}

/// What became of a command.
enum Started {
    /// Its answer; `None` is the answer to a command that this server does not know.
    Answered(Option<Reply>),
    /// It waits for the disk or for a read pool.
    Pending(Pending),
}

impl Stream for BatchCommands {
    type Item = Result<BatchCommandsResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let mut moved = false;
            while !this.ended
                && !this.ready.is_full()
                && this.pending.len() < limits::STREAM_COMMANDS_MAX
            {
                match this.requests.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(batch))) => this.on_batch(batch),
                    // What is under way is still answered, also if the connection is gone and nobody listens.
                    Poll::Ready(Some(Err(status))) => {
                        this.ended = true;
                        this.broken = Some(status);
                    }
                    Poll::Ready(None) => this.ended = true,
                    Poll::Pending => break,
                }
                moved = true;
            }
            while !this.ready.is_full() {
                match this.pending.poll_next_unpin(cx) {
                    Poll::Ready(Some((id, reply))) => this.ready.push(id, Some(reply)),
                    Poll::Ready(None) | Poll::Pending => break,
                }
                moved = true;
            }
            if let Some(answers) = this.ready.take() {
                return Poll::Ready(Some(Ok(answers)));
            }
            if this.ended && this.pending.is_empty() {
                return Poll::Ready(this.broken.take().map(Err));
            }
            // Commands that were just started have been polled above and wake this task; nothing moved: wait.
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for BatchCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchCommands")
            .field("ended", &self.ended)
            .field("pending", &self.pending.len())
            .finish()
    }
}
