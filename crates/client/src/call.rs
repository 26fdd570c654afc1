//! One operation of a user, from its first request to its result, as a step machine.
//!
//! A call consists of pieces. A piece is one request that fits into one region, at any moment in exactly one place:
//! in the queue, at a store, at the scheduler, or waiting. So whoever drives a call ([`Call::step`]) answers every
//! output but `Done` with exactly one input, and the call ends when no piece is left.
//!
//! Invariants:
//! 1. A write that may have been executed is only sent again if its [`Effect`] allows it and the caller wants it. If it
//!    then fails in any way, the result is [`Error::Undetermined`]: the first sending may still take effect.
//! 2. No piece outlives the call's time. A wait that would end behind it is not begun.
//! 3. After `Done` there are no more outputs, and inputs are ignored.
//!
//! Sending a write again is safe in what it leaves behind, not in when: the first sending may be stuck somewhere and
//! take effect after the second was answered, over the value of another writer who came in between. TiKV's own
//! clients live with that; who cannot, chooses [`AmbiguousWrites::Report`].

use std::{collections::VecDeque, fmt, time::Duration};

use types::{Bytes, Code, KeyRange, RegionError, key::display, limits};

use crate::{
    Error, KeyLayout, RegionCache,
    backoff::{Backoff, Obstacle, splitmix64},
    raw::{self, Anchor, Merge},
    region_cache::Located,
    request::{
        Answer, Effect, Failure, Question, Reply, Request, Route, RouteReply, StoreError, Target,
    },
    txn::{
        command::Command,
        plan::{self, About},
    },
};

/// What happens to an idempotent write that got no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmbiguousWrites {
    /// It is sent again.
    #[default]
    Retry,
    /// It is reported as [`Error::Undetermined`]. For histories that a checker judges.
    Report,
}

/// How patient a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// How long it may take, retries included.
    pub timeout: Duration,
    /// How long one store may take to answer before another way is tried.
    pub attempt: Duration,
    /// What happens to an idempotent write that got no answer.
    pub ambiguous_writes: AmbiguousWrites,
}

impl Default for CallOptions {
    fn default() -> CallOptions {
        CallOptions {
            timeout: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            ambiguous_writes: AmbiguousWrites::default(),
        }
    }
}

/// Which piece of a call an output or input is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PieceId(usize);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin. The first input, once.
    Start,
    /// A store answered.
    Reply(PieceId, Reply),
    /// A store did not answer.
    Failed(PieceId, Failure),
    /// The scheduler answered, or failed to.
    Route(PieceId, RouteReply),
    /// A wait is over.
    Timer(PieceId),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a request to a store; report `NoAnswer` after `timeout`.
    Send {
        /// The piece.
        piece: PieceId,
        /// Where to.
        target: Target,
        /// What.
        request: Request,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Ask the scheduler; report an error after `timeout`.
    Ask {
        /// The piece.
        piece: PieceId,
        /// What.
        question: Question,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Come back with `Timer` after so long.
    Wait {
        /// The piece.
        piece: PieceId,
        /// How long.
        duration: Duration,
    },
    /// The call is over.
    Done(Result<Answer, Error>),
}

/// A request for one region, with what happened to it so far.
#[derive(Debug)]
struct Piece {
    /// What is to be done, in request keys.
    request: Request,
    /// What was sent last and where, while an answer is expected.
    sent: Option<Sent>,
    /// Pairs that a scan asks for at once.
    page: usize,
    backoff: Backoff,
    /// The first thing that went wrong.
    first_error: Option<Error>,
    /// Why an earlier sending of this write may have been executed.
    maybe_executed: Option<String>,
    /// A store may have seen it before.
    is_retry: bool,
    /// Questions since the last sending: more than a few, and the answers do not help.
    questions: u32,
    /// The last question, if it was for the region before this key.
    before: Option<Bytes>,
}

#[derive(Debug)]
struct Sent {
    request: Request,
    target: Target,
}

/// A region, the store of its leader and the store's address are three questions, and the region may change meanwhile.
const QUESTIONS_MAX: u32 = 6;

impl Piece {
    fn new(request: Request, seed: u64) -> Piece {
        Piece {
            request,
            sent: None,
            page: limits::CLIENT_SCAN_PAGE,
            backoff: Backoff::new(seed),
            first_error: None,
            maybe_executed: None,
            is_retry: false,
            questions: 0,
            before: None,
        }
    }

    /// The part of a batch that belongs elsewhere; it shares this piece's past.
    fn rest(&mut self, request: Request) -> Piece {
        Piece {
            first_error: self.first_error.clone(),
            maybe_executed: self.maybe_executed.clone(),
            is_retry: self.is_retry,
            ..Piece::new(request, self.backoff.fork())
        }
    }
}

/// One operation on its way.
#[derive(Debug)]
pub struct Call {
    layout: KeyLayout,
    options: CallOptions,
    operation: Operation,
    effect: Effect,
    /// Until the start: what the user asked.
    request: Option<Request>,
    started: Duration,
    deadline: Duration,
    /// Pieces that are under way; a free slot is used again.
    pieces: Vec<Option<Piece>>,
    under_way: usize,
    queue: VecDeque<Piece>,
    merge: Merge,
    random: u64,
    done: bool,
}

impl Call {
    /// An operation with user keys. The seed decides how waits are spread, nothing else.
    pub fn new(request: Request, layout: KeyLayout, options: CallOptions, seed: u64) -> Call {
        Call {
            layout,
            options,
            operation: Operation::of(&request),
            effect: request.effect(),
            merge: Merge::new(&request),
            request: Some(request),
            started: Duration::ZERO,
            deadline: Duration::ZERO,
            pieces: Vec::new(),
            under_way: 0,
            queue: VecDeque::new(),
            random: seed,
            done: false,
        }
    }

    /// Takes in what happened at `now` (a monotonic reading) and appends what to do to `outputs`.
    pub fn step(
        &mut self,
        now: Duration,
        input: Input,
        cache: &mut RegionCache,
        outputs: &mut Vec<Output>,
    ) {
        if self.done {
            return;
        }
        let mut turn = Turn { now, cache, outputs };
        let result = match input {
            Input::Start => self.on_start(now),
            Input::Reply(id, reply) => self.on_reply(id, reply, &mut turn),
            Input::Failed(id, failure) => self.on_failure(id, failure, &mut turn),
            Input::Route(id, reply) => self.on_route(id, reply, &mut turn),
            Input::Timer(id) => self.place(id, &mut turn),
        };
        if let Err(error) = result.and_then(|()| self.fill(&mut turn)) {
            return self.finish(Err(error), outputs);
        }
        if self.under_way == 0 {
            let who = "this client".to_owned();
            let answer =
                self.merge.finish().ok_or(Error::BadAnswer { who, what: "nothing".to_owned() });
            self.finish(answer, outputs);
        }
    }

    fn finish(&mut self, result: Result<Answer, Error>, outputs: &mut Vec<Output>) {
        self.done = true;
        self.pieces.clear();
        self.queue.clear();
        outputs.push(Output::Done(result));
    }

    fn on_start(&mut self, now: Duration) -> Result<(), Error> {
        let Some(request) = self.request.take() else { return Ok(()) };
        self.started = now;
        self.deadline = now.saturating_add(self.options.timeout);
        for request in raw::prepare(request, self.layout)? {
            let seed = splitmix64(&mut self.random);
            self.queue.push_back(Piece::new(request, seed));
        }
        Ok(())
    }

    /// Sets waiting pieces off, as many as may be under way.
    fn fill(&mut self, turn: &mut Turn<'_>) -> Result<(), Error> {
        while self.under_way < limits::CLIENT_REQUESTS_MAX {
            let Some(piece) = self.queue.pop_front() else { break };
            let slot = self.pieces.iter().position(Option::is_none).unwrap_or_else(|| {
                self.pieces.push(None);
                self.pieces.len() - 1
            });
            self.pieces[slot] = Some(piece);
            self.under_way += 1;
            self.place(PieceId(slot), turn)?;
        }
        Ok(())
    }

    /// Sends a piece where it belongs, or asks where that is.
    fn place(&mut self, id: PieceId, turn: &mut Turn<'_>) -> Result<(), Error> {
        let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) else { return Ok(()) };
        let left = self.deadline.saturating_sub(turn.now);
        if left.is_zero() {
            return Err(self.give_up(id, turn.now));
        }

        let located = match raw::anchor(&piece.request) {
            Anchor::At(key) => turn.cache.locate(&self.layout.region_key(&key)),
            Anchor::Before(end) if end.is_empty() => turn.cache.locate_before(&[]),
            Anchor::Before(end) => turn.cache.locate_before(&self.layout.region_key(&end)),
        };
        let location = match located {
            Located::At(location) => location,
            Located::Ask(_) if piece.questions >= QUESTIONS_MAX => {
                piece.questions = 0;
                let message = "its answers about regions do not fit together".to_owned();
                let error = Error::Scheduler { code: Code::RegionNotFound, message };
                return self.wait(id, Obstacle::Scheduler, Duration::ZERO, error, turn);
            }
            Located::Ask(question) => {
                piece.questions += 1;
                let question = match question {
                    // The last answer to that did not help: the region that it should lie before is gone.
                    Question::RegionBefore(end) if piece.before.as_ref() == Some(&end) => {
                        Question::RegionOf(end)
                    }
                    other => other,
                };
                piece.before = match &question {
                    Question::RegionBefore(end) => Some(end.clone()),
                    _ => None,
                };
                turn.outputs.push(Output::Ask { piece: id, question, timeout: left });
                return Ok(());
            }
        };

        let fitted = raw::fit(&piece.request, &location.range, piece.page, self.layout);
        let (mut part, rest) = match fitted {
            Ok(fitted) => fitted,
            Err(error) => return Err(self.failed(id, error)),
        };
        if let Some(rest) = rest {
            let rest = piece.rest(rest);
            piece.request = part.clone();
            self.queue.push_front(rest);
        }
        if let (Request::Txn(command), true) = (&mut part, piece.is_retry) {
            plan::mark_retry(command);
        }
        let mut target = location.target;
        target.context.api_version = self.layout.api_version();
        piece.questions = 0;
        piece.sent = Some(Sent { request: part.clone(), target: target.clone() });
        turn.outputs.push(Output::Send {
            piece: id,
            target,
            request: part,
            timeout: left.min(self.options.attempt),
        });
        Ok(())
    }

    fn on_reply(&mut self, id: PieceId, reply: Reply, turn: &mut Turn<'_>) -> Result<(), Error> {
        let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) else { return Ok(()) };
        let Some(sent) = piece.sent.take() else { return Ok(()) };
        let answer = match reply {
            Ok(answer) => answer,
            Err(error) => return self.on_store_error(id, &sent, error, turn),
        };
        match self.merge.absorb(&piece.request, &sent.request, answer, self.layout) {
            Err(what) => self.on_store_error(id, &sent, StoreError::Nonsense(what), turn),
            Ok(next) => {
                if piece.first_error.is_some() {
                    turn.cache.confirm(sent.target.context.region_id, sent.target.store);
                }
                match next {
                    // The walk got further: what stood in the way of the last step is no matter any more.
                    Some(request) => {
                        *piece =
                            Piece { page: piece.page, ..Piece::new(request, piece.backoff.fork()) };
                        self.place(id, turn)
                    }
                    None => {
                        self.pieces[id.0] = None;
                        self.under_way -= 1;
                        Ok(())
                    }
                }
            }
        }
    }

    fn on_store_error(
        &mut self,
        id: PieceId,
        sent: &Sent,
        error: StoreError,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let region = sent.target.context.region_id;
        let store = sent.target.store;
        let error = match error {
            StoreError::Region(error) => error,
            StoreError::NotNow(reason) => {
                let error = Error::refused(Code::ServerIsBusy, reason);
                return self.wait(id, Obstacle::NoLeader, Duration::ZERO, error, turn);
            }
            StoreError::Refused { code: Code::InvalidRequest, .. }
                if self.ask_for_less(id, sent) =>
            {
                return self.place(id, turn);
            }
            StoreError::Refused { code, message } => {
                return Err(self.failed(id, Error::Refused { code, message }));
            }
            StoreError::Nonsense(what) => {
                let who = format!("store {store} at {}", sent.target.address);
                let error = Error::BadAnswer { who, what };
                // Whatever it is that answers there, it has had the request.
                return Err(match self.effect {
                    Effect::Read => error,
                    Effect::Idempotent | Effect::Once | Effect::Decides => {
                        self.undetermined(error.to_string())
                    }
                });
            }
        };
        let (obstacle, at_least) = match &error {
            RegionError::NotLeader { leader, .. } => {
                (turn.cache.on_not_leader(region, store, leader.as_ref()), Duration::ZERO)
            }
            RegionError::EpochNotMatch { regions } => {
                turn.cache.on_epoch_not_match(region, store, regions);
                (Obstacle::Route, Duration::ZERO)
            }
            RegionError::RegionNotFound { .. } | RegionError::KeyNotInRegion { .. } => {
                turn.cache.remove(region);
                (Obstacle::Route, Duration::ZERO)
            }
            RegionError::StoreNotMatch { .. } => {
                turn.cache.forget_store(store);
                turn.cache.remove(region);
                (Obstacle::Route, Duration::ZERO)
            }
            RegionError::ServerIsBusy { retry_after, .. } => (Obstacle::Busy, *retry_after),
            RegionError::DataIsNotReady { .. } => (Obstacle::Busy, Duration::ZERO),
            RegionError::Undetermined { .. } if self.effect == Effect::Read => {
                self.may_have_been_seen(id);
                (Obstacle::Busy, Duration::ZERO)
            }
            RegionError::Undetermined { reason } if self.effect == Effect::Decides => {
                self.may_have_been_executed(id, reason);
                (Obstacle::Busy, Duration::ZERO)
            }
            RegionError::Undetermined { reason } => return Err(self.undetermined(reason.clone())),
            RegionError::RaftEntryTooLarge { .. }
            | RegionError::Invalid { .. }
            | RegionError::DiskFull { .. } => {
                return Err(self.failed(id, Error::Region(error)));
            }
        };
        self.wait(id, obstacle, at_least, Error::Region(error), turn)
    }

    /// A store refuses answers above its limit of bytes, which nobody can know before. Makes a read smaller; false if
    /// it is as small as can be.
    fn ask_for_less(&mut self, id: PieceId, sent: &Sent) -> bool {
        let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) else { return false };
        match &sent.request {
            Request::Scan { limit: 2.., .. } | Request::Txn(Command::Scan { limit: 2.., .. }) => {
                piece.page = (piece.page / 8).max(1);
                true
            }
            _ => match raw::halve(&mut piece.request) {
                Some(half) => {
                    let half = piece.rest(half);
                    self.queue.push_front(half);
                    true
                }
                None => false,
            },
        }
    }

    fn on_failure(
        &mut self,
        id: PieceId,
        failure: Failure,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) else { return Ok(()) };
        let Some(sent) = piece.sent.take() else { return Ok(()) };
        turn.cache.on_store_failure(sent.target.context.region_id, sent.target.store);
        let error = Error::StoreUnreachable {
            store: sent.target.store,
            address: sent.target.address.to_string(),
            reason: failure.reason().to_owned(),
        };
        if let Failure::NoAnswer(_) = failure {
            match (self.effect, self.options.ambiguous_writes) {
                (Effect::Read, _) => self.may_have_been_seen(id),
                (Effect::Decides, _) | (Effect::Idempotent, AmbiguousWrites::Retry) => {
                    self.may_have_been_executed(id, &error.to_string());
                }
                (Effect::Idempotent, AmbiguousWrites::Report) | (Effect::Once, _) => {
                    return Err(self.undetermined(error.to_string()));
                }
            }
        }
        self.wait(id, Obstacle::Store, Duration::ZERO, error, turn)
    }

    fn may_have_been_seen(&mut self, id: PieceId) {
        if let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) {
            piece.is_retry = true;
        }
    }

    fn may_have_been_executed(&mut self, id: PieceId, reason: &str) {
        self.may_have_been_seen(id);
        if let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) {
            piece.maybe_executed.get_or_insert_with(|| reason.to_owned());
        }
    }

    fn on_route(
        &mut self,
        id: PieceId,
        reply: RouteReply,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let route = match reply {
            Ok(route) => route,
            Err(error) if error.is_retryable() => {
                return self.wait(id, Obstacle::Scheduler, Duration::ZERO, error, turn);
            }
            Err(error) => return Err(self.failed(id, error)),
        };
        let (code, message) = match &route {
            Route::NoRegion => (Code::RegionNotFound, "no region has that key".to_owned()),
            Route::NoStore(store) => (Code::StoreUnreachable, format!("there is no store {store}")),
            // What it knows about the region is older than what a store has told us.
            Route::Region { region, .. } => {
                (Code::EpochNotMatch, format!("region {} is not up to date", region.id))
            }
            Route::Store { store, .. } => {
                (Code::StoreUnreachable, format!("store {store} has no address"))
            }
        };
        if turn.cache.learn(route) {
            return self.place(id, turn);
        }
        self.wait(id, Obstacle::Scheduler, Duration::ZERO, Error::Scheduler { code, message }, turn)
    }

    /// Lets a piece wait for the end of an obstacle, at least `at_least`, and remembers why if nothing failed before.
    fn wait(
        &mut self,
        id: PieceId,
        obstacle: Obstacle,
        at_least: Duration,
        error: Error,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let Some(piece) = self.pieces.get_mut(id.0).and_then(Option::as_mut) else { return Ok(()) };
        piece.first_error.get_or_insert(error);
        let duration = piece.backoff.next(obstacle).max(at_least);
        if self.deadline <= turn.now.saturating_add(duration) {
            return Err(self.give_up(id, turn.now));
        }
        if duration.is_zero() {
            // No deeper than this: only the first wait for a route is none.
            return self.place(id, turn);
        }
        turn.outputs.push(Output::Wait { piece: id, duration });
        Ok(())
    }

    /// The time is over.
    fn give_up(&mut self, id: PieceId, now: Duration) -> Error {
        let piece = self.pieces.get_mut(id.0).and_then(Option::as_mut);
        let (cause, maybe) =
            piece.map_or((None, None), |p| (p.first_error.take(), p.maybe_executed.take()));
        if let Some(reason) = maybe {
            return self.undetermined(reason);
        }
        let after = Duration::from_millis(
            u64::try_from(now.saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX),
        );
        Error::Timeout { operation: self.operation.to_string(), after, cause: cause.map(Box::new) }
    }

    /// A definite failure of this sending; an earlier one may have been executed all the same.
    fn failed(&mut self, id: PieceId, error: Error) -> Error {
        let maybe = self
            .pieces
            .get_mut(id.0)
            .and_then(Option::as_mut)
            .and_then(|piece| piece.maybe_executed.take());
        match maybe {
            Some(reason) => self.undetermined(format!("{reason}; sent again: {error}")),
            None => error,
        }
    }

    fn undetermined(&self, reason: String) -> Error {
        Error::Undetermined { operation: self.operation.to_string(), reason }
    }
}

/// What a step may touch besides the call.
struct Turn<'a> {
    now: Duration,
    cache: &'a mut RegionCache,
    outputs: &'a mut Vec<Output>,
}

/// The operation as errors name it. Written out only when there is an error.
#[derive(Debug)]
struct Operation {
    name: &'static str,
    subject: Subject,
}

#[derive(Debug)]
enum Subject {
    Key(Bytes),
    Keys(usize),
    Range(KeyRange),
}

impl Operation {
    fn of(request: &Request) -> Operation {
        let subject = match request {
            Request::Get { key, .. }
            | Request::Put { key, .. }
            | Request::Delete { key, .. }
            | Request::CompareAndSwap { key, .. }
            | Request::Ttl { key, .. } => Subject::Key(key.clone()),
            Request::BatchGet { keys, .. } | Request::BatchDelete { keys, .. } => {
                Subject::Keys(keys.len())
            }
            Request::BatchPut { pairs, .. } => Subject::Keys(pairs.len()),
            Request::Scan { range, .. }
            | Request::DeleteRange { range, .. }
            | Request::Checksum { range } => Subject::Range(range.clone()),
            Request::Txn(command) => match plan::about(command) {
                About::Key(key) => Subject::Key(key.clone()),
                About::Keys(keys) => Subject::Keys(keys),
                About::Range(range) => Subject::Range(range.clone()),
            },
        };
        Operation { name: request.name(), subject }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Key(key) => write!(f, "{} {}", self.name, display(key)),
            Subject::Keys(n) => write!(f, "{} of {n} keys", self.name),
            Subject::Range(range) => {
                write!(f, "{} of [{}, {})", self.name, display(&range.start), display(&range.end))
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
