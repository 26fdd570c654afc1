//! Timestamps: many callers, one request.
//!
//! One task owns the stream to the scheduler. Whoever asks while a request is under way is part of the next one, so a
//! thousand callers cost the scheduler one request for each round trip. Each gets a timestamp of its own: the answer
//! names the last of the batch, and the batch lies directly below it.
//!
//! Invariant: a caller's timestamp was drawn after the caller had asked. That is why a request never serves callers
//! that came after it was sent.

use std::sync::{Arc, OnceLock};

use proto::pdpb::{self, pd_client::PdClient};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use types::{TimeStamp, limits};

use super::{
    connections,
    pd::{self, Scheduler},
};
use crate::{Error, Result, error::EndpointFailure};

type Waiter = oneshot::Sender<Result<TimeStamp>>;

/// Where to get timestamps. The task starts with the first caller and ends with the last owner.
#[derive(Debug)]
pub(super) struct TimestampOracle {
    scheduler: Arc<Scheduler>,
    waiters: OnceLock<mpsc::Sender<Waiter>>,
}

impl TimestampOracle {
    pub(super) fn new(scheduler: Arc<Scheduler>) -> TimestampOracle {
        TimestampOracle { scheduler, waiters: OnceLock::new() }
    }

    /// A timestamp of one's own.
    pub(super) async fn get(&self) -> Result<TimeStamp> {
        let waiters = self.waiters.get_or_init(|| {
            let (waiters, queue) = mpsc::channel(limits::CLIENT_TIMESTAMPS_WAITING_MAX);
            tokio::spawn(serve(Arc::clone(&self.scheduler), queue));
            waiters
        });
        let gone = || Error::Scheduler {
            code: types::Code::SchedulerUnreachable,
            message: "the runtime that fetched timestamps has stopped".to_owned(),
        };
        let (waiter, answer) = oneshot::channel();
        waiters.send(waiter).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A stream to one member, and the sending half of it.
struct Stream {
    address: String,
    requests: mpsc::Sender<pdpb::TsoRequest>,
    answers: Streaming<pdpb::TsoResponse>,
}

/// Serves callers in batches until nobody is left.
async fn serve(scheduler: Arc<Scheduler>, mut queue: mpsc::Receiver<Waiter>) {
    let mut stream = None;
    let mut waiters = Vec::new();
    while queue.recv_many(&mut waiters, limits::CLIENT_TIMESTAMPS_WAITING_MAX).await > 0 {
        match draw(&scheduler, &mut stream, waiters.len()).await {
            Ok(last) => {
                let first = last.0 + 1 - waiters.len() as u64;
                for (waiter, timestamp) in waiters.drain(..).zip(first..) {
                    // A caller that has given up leaves a timestamp unused.
                    let _ = waiter.send(Ok(TimeStamp(timestamp)));
                }
            }
            Err(error) => {
                for waiter in waiters.drain(..) {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Draws `count` timestamps and returns the last: over the open stream, else over a new one to whoever answers.
async fn draw(
    scheduler: &Scheduler,
    stream: &mut Option<Stream>,
    count: usize,
) -> Result<TimeStamp> {
    let mut failures = Vec::new();
    if let Some(open) = stream {
        match within(scheduler, exchange(scheduler, open, count)).await {
            Ok(last) => return Ok(last),
            // It may have broken long ago, while nobody needed it; that is no reason to fail.
            Err(Refused::Elsewhere(_)) => *stream = None,
            Err(Refused::Final(error)) => return Err(error),
        }
    }
    for address in scheduler.in_order() {
        let drawn = within(scheduler, async {
            let mut new = open(scheduler, &address).await?;
            let last = exchange(scheduler, &mut new, count).await?;
            Ok((new, last))
        });
        match drawn.await {
            Ok((new, last)) => {
                scheduler.answered(&new.address).await;
                *stream = Some(new);
                return Ok(last);
            }
            Err(Refused::Elsewhere(reason)) => {
                failures.push(EndpointFailure { endpoint: address, reason })
            }
            Err(Refused::Final(error)) => return Err(error),
        }
    }
    Err(Error::SchedulerUnreachable { failures })
}

/// Why a member gave no timestamps.
enum Refused {
    /// Another member may do better.
    Elsewhere(String),
    /// None would.
    Final(Error),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        match pd::is_elsewhere(&status) {
            true => Refused::Elsewhere(connections::reason(&status)),
            false => Refused::Final(pd::refusal(&status)),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Final(error)
    }
}

async fn within<T>(
    scheduler: &Scheduler,
    drawn: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let timeout = scheduler.timeout();
    let late = |_| Refused::Elsewhere(format!("timed out after {timeout:?}"));
    tokio::time::timeout(timeout, drawn).await.map_err(late)?
}

async fn open(scheduler: &Scheduler, address: &str) -> Result<Stream, Refused> {
    let channel = scheduler.channel(address)?;
    // One request is under way at a time.
    let (requests, outgoing) = mpsc::channel(1);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let answers = PdClient::new(channel).tso(outgoing).await?.into_inner();
    Ok(Stream { address: address.to_owned(), requests, answers })
}

async fn exchange(
    scheduler: &Scheduler,
    stream: &mut Stream,
    count: usize,
) -> Result<TimeStamp, Refused> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let request =
        pdpb::TsoRequest { header: scheduler.header(), count, ..pdpb::TsoRequest::default() };
    let ended = || Refused::Elsewhere("the stream ended".to_owned());
    stream.requests.send(request).await.map_err(|_| ended())?;
    let answer = stream.answers.message().await?.ok_or_else(ended)?;
    pd::check(answer.header.as_ref())?;
    last_of(&answer, count).map_err(|what| {
        Refused::Final(Error::BadAnswer {
            who: format!("the scheduler at {}", stream.address),
            what,
        })
    })
}

/// The last timestamp of an answer to a request for `count`.
fn last_of(answer: &pdpb::TsoResponse, count: u32) -> Result<TimeStamp, String> {
    let timestamp = answer.timestamp.ok_or("no timestamp")?;
    if answer.count != count {
        return Err(format!("{} timestamps instead of {count}", answer.count));
    }
    let (physical, logical) = (timestamp.physical, timestamp.logical);
    let (Ok(physical), Ok(logical)) = (u64::try_from(physical), u64::try_from(logical)) else {
        return Err(format!("timestamp {physical}.{logical}"));
    };
    // The whole batch lies in one millisecond.
    if logical >= types::timestamp::LOGICAL_END
        || physical >> 46 != 0
        || logical + 1 < u64::from(count)
    {
        return Err(format!("timestamp {physical}.{logical} as the last of {count}"));
    }
    Ok(TimeStamp::compose(physical, logical))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(count: u32, physical: i64, logical: i64) -> pdpb::TsoResponse {
        let timestamp = Some(pdpb::Timestamp { physical, logical, suffix_bits: 0 });
        pdpb::TsoResponse { header: None, count, timestamp }
    }

    #[test]
    fn the_last_of_a_batch_is_believed_only_if_the_batch_fits_below_it() {
        assert_eq!(last_of(&answer(3, 1000, 2), 3), Ok(TimeStamp::compose(1000, 2)));
        for wrong in [
            answer(2, 1000, 2),
            answer(3, 1000, 1),
            answer(3, 1000, 1 << 18),
            answer(3, -1, 2),
            answer(3, 1 << 46, 2),
            pdpb::TsoResponse { count: 3, ..Default::default() },
        ] {
            assert!(last_of(&wrong, 3).is_err(), "{wrong:?}");
        }
    }
}
