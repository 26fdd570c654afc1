//! The answer of a write that is under way.
//!
//! One allocation per write, the slot: its writer's end is a [`Ticket`] in the queue, its reader's end a
//! [`Proposal`]. A ticket that is dropped unanswered answers "undetermined" by itself, so that nobody waits for ever.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use types::RegionError;

use super::{executor::Decided, storage::Inner, writer::Duty};
use crate::{Error, Latching, Result, Swapped, command::Answer, raw::Routed};

/// A write that was proposed, and its answer to come. A future of any runtime, or [`wait`](Proposal::wait).
///
/// The command is in the queue, behind all commands proposed before, when the call that made this returns; only the
/// very first writes of a v1 cluster are queued later, when the key-mode latch has answered and this is polled.
/// It is committed without further ado, or, with [`Commits::Adaptive`](super::Commits), at the latest when this is
/// polled, waited for or dropped. Dropping it does not take the command back.
///
/// # Errors
/// [`RegionError::Undetermined`]: the write may or may not be there. Every other error is definite: it is not there.
#[must_use = "the answer says whether the write took place"]
pub struct Proposal<T> {
    state: State,
    answer: PhantomData<fn() -> T>,
}

enum State {
    /// It was never proposed.
    Refused(Error),
    /// The scheduler is asked for the key mode before it is proposed.
    Latching(Box<Latch>),
    /// It is in the queue, or answered.
    Proposed(Arc<Slot>),
    /// It is in the queue, alone: who polls this twice commits it.
    OnDuty { slot: Arc<Slot>, duty: Duty, polled: bool },
    /// The answer was taken.
    Finished,
}

struct Latch {
    asking: Latching,
    storage: Arc<Inner>,
    command: Option<Routed>,
}

/// What a proposal's answer is turned into. Implemented for the results of [`crate::Storage`]'s writes.
pub trait FromAnswer: sealed::Sealed + Sized {}

impl<T: sealed::Sealed> FromAnswer for T {}

/// In which term a read was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadTerm(pub(super) u64);

mod sealed {
    use types::Region;

    use super::{Answer, ReadTerm, Swapped};

    /// Turns the queue's answer into the caller's.
    pub trait Sealed: Sized {
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
        fn from_answer(answer: Answer) -> Option<Self>;
    }

    #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
    impl Sealed for () {
        fn from_answer(answer: Answer) -> Option<()> {
            matches!(answer, Answer::Done).then_some(())
        }
    }

    impl Sealed for ReadTerm {
        fn from_answer(answer: Answer) -> Option<ReadTerm> {
            if let Answer::Readable { term } = answer { Some(ReadTerm(term)) } else { None }
        }
    }

    #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
    impl Sealed for Swapped {
        fn from_answer(answer: Answer) -> Option<Swapped> {
            if let Answer::Swapped(swapped) = answer { Some(swapped) } else { None }
        }
    }

    #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
    impl Sealed for Vec<Region> {
        fn from_answer(answer: Answer) -> Option<Vec<Region>> {
            if let Answer::Changed(regions) = answer { Some(regions) } else { None }
        }
    }

    #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
    impl Sealed for u64 {
        fn from_answer(answer: Answer) -> Option<u64> {
            if let Answer::Removed(removed) = answer { Some(removed) } else { None }
        }
    }
}

/// Where an answer is put and waited for.
#[derive(Debug, Default)]
pub(super) struct Slot {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    Awaited(Waker),
    Answered(Result<Answer>),
    Taken,
}

impl Slot {
    /// An empty slot, and the ticket by which it is answered.
    pub(super) fn new() -> (Arc<Slot>, Ticket) {
        let slot = Arc::new(Slot::default());
        (slot.clone(), Ticket { slot: Some(slot), decided: None })
    }

    /// The same; the ticket keeps `decided` until it has answered.
    pub(super) fn keeping(decided: Decided) -> (Arc<Slot>, Ticket) {
        let slot = Arc::new(Slot::default());
        (slot.clone(), Ticket { slot: Some(slot), decided: Some(Box::new(decided)) })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Nothing panics while it holds the lock, and every content is a whole one.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, answer: Result<Answer>) -> Option<Waker> {
        match mem::replace(&mut *self.content(), Content::Answered(answer)) {
            Content::Awaited(waker) => Some(waker),
            Content::Empty | Content::Answered(_) | Content::Taken => None,
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Answer>> {
        let mut content = self.content();
        if let Content::Awaited(waker) = &*content
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        match mem::replace(&mut *content, Content::Taken) {
            Content::Empty | Content::Awaited(_) => {
                *content = Content::Awaited(cx.waker().clone());
                Poll::Pending
            }
            Content::Answered(answer) => Poll::Ready(answer),
            Content::Taken => unreachable!("a proposal forgets its slot when it takes the answer"),
        }
    }
}

/// The queue's end of a slot. Answers exactly once.
#[derive(Debug)]
pub(super) struct Ticket {
    slot: Option<Arc<Slot>>,
    #[expect(dead_code, reason = "held until it is dropped")]
    decided: Option<Box<Decided>>,
}

impl Ticket {
    /// Puts the answer; returns who is to be woken, so that many answers can be put before anybody runs.
    pub(super) fn answer(mut self, answer: Result<Answer>) -> Option<Waker> {
        self.slot.take().and_then(|slot| slot.put(answer))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if let Some(waker) = slot.put(Err(undetermined("the store stopped in the middle of it"))) {
            waker.wake();
        }
    }
}

/// The answer to a write whose fate is not known.
pub(super) fn undetermined(reason: impl fmt::Display) -> Error {
    RegionError::Undetermined { reason: reason.to_string() }.into()
}

impl<T> Proposal<T> {
    /// A proposal that was refused.
    pub(super) fn refused(error: Error) -> Proposal<T> {
        Proposal { state: State::Refused(error), answer: PhantomData }
    }

    /// A proposal in the queue, answered in `slot`.
    pub(super) fn proposed(slot: Arc<Slot>, duty: Option<Duty>) -> Proposal<T> {
        let state = match duty {
            Some(duty) => State::OnDuty { slot, duty, polled: false },
            None => State::Proposed(slot),
        };
        Proposal { state, answer: PhantomData }
    }

    /// A proposal that waits for the key mode before its command goes to the queue.
    pub(super) fn latching(asking: Latching, storage: Arc<Inner>, command: Routed) -> Proposal<T> {
        let latch = Latch { asking, storage, command: Some(command) };
        Proposal { state: State::Latching(Box::new(latch)), answer: PhantomData }
    }
}

impl<T: FromAnswer> Proposal<T> {
    /// Blocks this thread until the answer is there. Not for asynchronous tasks.
    pub fn wait(self) -> Result<T> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut proposal = pin!(self);
        loop {
            match proposal.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

impl<T: FromAnswer> Future for Proposal<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Proposal<T>>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        loop {
            match mem::replace(&mut self.state, State::Finished) {
                State::Refused(error) => return Poll::Ready(Err(error)),
                State::Latching(mut latch) => match latch.asking.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Latching(latch);
                        return Poll::Pending;
                    }
                    Poll::Ready(held) => {
                        let command = latch
                            .command
                            .take()
                            .expect("a latch has its command until it has answered");
                        self.state = latch.storage.propose_latched::<T>(held, command).state;
                    }
                },
                State::OnDuty { slot, duty, polled: false } => {
                    // Others who are about to propose go first. What they bring shares the sync, and takes the
                    // duty away: it rings the thread.
                    self.state = State::OnDuty { slot, duty, polled: true };
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::OnDuty { slot, duty, polled: true } => {
                    duty.commit();
                    self.state = State::Proposed(slot);
                }
                State::Proposed(slot) => {
                    let Poll::Ready(answer) = slot.poll(cx) else {
                        self.state = State::Proposed(slot);
                        return Poll::Pending;
                    };
                    let answer = answer.map(|answer| {
                        T::from_answer(answer).expect("a command has its own answer")
                    });
                    return Poll::Ready(answer);
                }
                State::Finished => panic!("a proposal was polled after it had answered"),
            }
        }
    }
}

impl<T> fmt::Debug for Proposal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused(_) => "Refused",
            State::Latching(_) => "Latching",
            State::Proposed(_) | State::OnDuty { .. } => "Proposed",
            State::Finished => "Finished",
        };
        f.debug_tuple("Proposal").field(&state).finish()
    }
}
