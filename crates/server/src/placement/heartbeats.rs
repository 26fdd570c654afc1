//! Heartbeats: what a store says of itself and of the regions that it leads, and the orders that come back.
//!
//! One task keeps one stream to the scheduler. It is lossy and nobody waits for it: of each region the newest report
//! alone waits to be sent, and while the scheduler is away the store serves on.
//!
//! ```text
//!  raftstore ──send──▶ newest report of each region ──stream──▶ scheduler
//!      ▲                                                           │
//!      └──────────────── on_order ◀── orders ◀─────────────────────┘
//! ```
//!
//! Invariant: what was led and not changed since is known to the scheduler, or waits here, or is reported again by
//! `resend`: after each new connection, since nobody knows what the old one has swallowed, and after reports had to be
//! dropped.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use proto::pdpb;
use raftstore::RegionReport;
use scheduler::Order;
use tokio::{sync::Notify, task::JoinSet};
use tonic::codegen::BoxStream;
use types::{Code, RegionId, StoreId, limits::REGION_REPORTS_WAITING_MAX};

use super::{Placement, PlacementError, Result, StoreReport, check};
use crate::{StopCause, convert, listen, server::Process};

/// How long it is waited before the scheduler is dialled again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How soon a store heartbeat is sent again that was not taken.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What heartbeats need of their store. The functions are called by a task.
pub(crate) struct Reporting {
    pub(crate) store_id: StoreId,
    /// How long a tick of the Raft groups is: reports count the silence of peers in ticks.
    pub(crate) tick: Duration,
    /// How often the store reports itself.
    pub(crate) store_interval: Duration,
    /// How the store is now. May read from disk.
    pub(crate) store_report: Box<dyn Fn() -> StoreReport + Send + Sync>,
    /// Has every region reported that is led here. Must not block.
    pub(crate) resend: Box<dyn Fn() + Send + Sync>,
    /// Takes an order. Must not block; it may be ignored, and comes again.
    pub(crate) on_order: Box<dyn Fn(Order) + Send + Sync>,
}

/// The way of a store's reports to the scheduler. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heartbeats {
    waiting: Arc<Waiting>,
}

/// Reports that wait to be sent.
#[derive(Debug, Default)]
struct Waiting {
    reports: Mutex<Reports>,
    /// There is a report, or another stream takes them from now on.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Reports {
    newest: BTreeMap<RegionId, RegionReport>,
    /// The region whose report was taken last. The next one comes after it, so that all have their turn.
    taken: RegionId,
    /// Reports were dropped.
    has_dropped: bool,
    /// Which stream takes reports: the newest.
    stream: u64,
}

/// What a stream finds among the reports.
enum Taken {
    Report(Box<RegionReport>),
    /// There are none, and some were dropped meanwhile.
    Dropped,
    /// There are none.
    Nothing,
    /// A newer stream takes them.
    Over,
}

impl Heartbeats {
    /// Starts the task that reports, until the process drains. If the scheduler says that the store was removed, the
    /// process is stopped.
    pub(crate) fn start(
        placement: Placement,
        reporting: Reporting,
        process: &Process,
        tasks: &mut JoinSet<()>,
    ) -> Heartbeats {
        let heartbeats = Heartbeats::default();
        let reporter = Reporter {
            placement,
            reporting: Arc::new(reporting),
            waiting: Arc::clone(&heartbeats.waiting),
        };
        let process = process.clone();
        tasks.spawn(async move {
            tokio::select! {
                removed = reporter.run() => {
                    process.stop(StopCause { code: removed.code, message: removed.message });
                }
                () = listen::until_draining(process.phase()) => {}
            }
        });
        heartbeats
    }

    /// Takes a report to the scheduler, some time. It replaces the one of the same region that still waits.
    pub(crate) fn send(&self, report: RegionReport) {
        let mut reports = self.waiting.lock();
        let id = report.region.id;
        if reports.newest.len() < REGION_REPORTS_WAITING_MAX || reports.newest.contains_key(&id) {
            reports.newest.insert(id, report);
        } else {
            reports.has_dropped = true;
        }
        drop(reports);
        self.waiting.changed.notify_one();
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports belong to a new stream from now on; says which.
    fn begin_stream(&self) -> u64 {
        let mut reports = self.lock();
        reports.stream += 1;
        // Whoever waits for the stream before has to see that it is over.
        self.changed.notify_one();
        reports.stream
    }

    fn take(&self, stream: u64) -> Taken {
        let mut reports = self.lock();
        if reports.stream != stream {
            // This wake-up was meant for the newer stream.
            self.changed.notify_one();
            return Taken::Over;
        }
        let after = (Bound::Excluded(reports.taken), Bound::Unbounded);
        let mut ids = reports.newest.range(after).chain(&reports.newest).map(|(id, _)| *id);
        let next = ids.next();
        let Some(id) = next else {
            return match std::mem::take(&mut reports.has_dropped) {
                true => Taken::Dropped,
                false => Taken::Nothing,
            };
        };
        reports.taken = id;
        let report = reports.newest.remove(&id).expect("the id was just found");
        Taken::Report(Box::new(report))
    }
}

/// What the task of a store's heartbeats has.
struct Reporter {
    placement: Placement,
    reporting: Arc<Reporting>,
    waiting: Arc<Waiting>,
}

impl Reporter {
    /// Reports for ever, on one stream after the other; returns when the store has no business in the cluster any more.
    async fn run(self) -> PlacementError {
        let (shortest, longest) = PAUSE;
        let mut pause = shortest;
        let mut is_first = true;
        loop {
            let lost = match self.open().await {
                Ok(answers) => {
                    if !is_first {
                        tracing::info!("the scheduler is back");
                        (self.reporting.resend)();
                    }
                    is_first = false;
                    pause = shortest;
                    let lost = tokio::select! {
                        lost = self.take_orders(answers) => lost,
                        removed = self.report_store() => removed,
                    };
                    tracing::warn!(error = %lost, code = %lost.code, "the stream to the scheduler has ended");
                    lost
                }
                Err(error) => {
                    tracing::debug!(%error, code = %error.code, "no stream to the scheduler");
                    error
                }
            };
            if lost.code == Code::StoreRemoved {
                return lost;
            }
            self.placement.forget_connection().await;
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(longest);
        }
    }

    async fn open(&self) -> Result<BoxStream<pdpb::RegionHeartbeatResponse>> {
        let (waiting, reporting) = (Arc::clone(&self.waiting), Arc::clone(&self.reporting));
        let stream = waiting.begin_stream();
        self.placement.open_heartbeats(reports(waiting, reporting, stream)).await
    }

    /// Takes what the scheduler says, until it says no more.
    async fn take_orders(
        &self,
        mut answers: BoxStream<pdpb::RegionHeartbeatResponse>,
    ) -> PlacementError {
        loop {
            let answer = match answers.next().await {
                Some(Ok(answer)) => answer,
                Some(Err(status)) => return status.into(),
                None => {
                    let message = "the scheduler takes no more heartbeats";
                    return PlacementError::new(Code::SchedulerUnreachable, message);
                }
            };
            let region = answer.region_id;
            match check(answer.header.clone()) {
                Err(error) if error.code == Code::StoreRemoved => return error,
                // About one report; others came later, or will.
                Err(error) => tracing::debug!(region, %error, "the scheduler refused a report"),
                Ok(()) => match convert::order(answer) {
                    Some(order) => (self.reporting.on_order)(order),
                    None => tracing::info!(region, "an order of a kind that is not known here"),
                },
            }
        }
    }

    /// Reports the store, at once and then at its interval, until the scheduler says that it was removed.
    async fn report_store(&self) -> PlacementError {
        let interval = self.reporting.store_interval.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reporting = Arc::clone(&self.reporting);
            let report = tokio::task::spawn_blocking(move || (reporting.store_report)()).await;
            let reported = match report {
                Ok(report) => self.placement.report_store(&report).await,
                Err(error) => Err(PlacementError::new(Code::Bug, error.to_string())),
            };
            match reported {
                Ok(()) => {}
                Err(error) if error.code == Code::StoreRemoved => return error,
                Err(error) => {
                    tracing::warn!(%error, code = %error.code, "the scheduler did not take a store heartbeat");
                    ticks.reset_after(STORE_RETRY.min(interval));
                }
            }
        }
    }
}

/// The reports that a stream sends: whatever waits, as long as no newer stream takes them.
fn reports(
    waiting: Arc<Waiting>,
    reporting: Arc<Reporting>,
    stream: u64,
) -> impl Stream<Item = pdpb::RegionHeartbeatRequest> + Send + 'static {
    stream::unfold((waiting, reporting), move |(waiting, reporting)| async move {
        loop {
            match waiting.take(stream) {
                Taken::Report(report) => {
                    let request = report_to_proto(&report, reporting.tick);
                    return Some((request, (waiting, reporting)));
                }
                Taken::Dropped => (reporting.resend)(),
                Taken::Nothing => waiting.changed.notified().await,
                Taken::Over => return None,
            }
        }
    })
}

/// A report for the wire, without a header.
fn report_to_proto(report: &RegionReport, tick: Duration) -> pdpb::RegionHeartbeatRequest {
    let RegionReport {
        region,
        leader,
        term,
        down_peers,
        pending_peers,
        approximate_size,
        approximate_keys,
    } = report;
    let silence = |ticks: u64| tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
    let down = |(peer, ticks): &(types::Peer, u64)| pdpb::PeerStats {
        peer: Some(convert::peer_to_proto(peer)),
        down_seconds: silence(*ticks).as_secs(),
    };
    pdpb::RegionHeartbeatRequest {
        region: Some(convert::region_to_proto(region)),
        leader: Some(convert::peer_to_proto(leader)),
        term: *term,
        down_peers: down_peers.iter().map(down).collect(),
        pending_peers: pending_peers.iter().map(convert::peer_to_proto).collect(),
        approximate_size: *approximate_size,
        approximate_keys: *approximate_keys,
        ..pdpb::RegionHeartbeatRequest::default()
    }
}

impl fmt::Debug for Reporting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reporting(store {})", self.store_id)
    }
}

#[cfg(test)]
mod tests {
    use types::{Peer, PeerId, PeerRole, Region};

    use super::*;

    fn report(region: u64, term: u64) -> RegionReport {
        let region = Region { id: RegionId(region), ..Region::default() };
        RegionReport { region, term, ..RegionReport::default() }
    }

    /// The region and the term of the next report.
    fn take(waiting: &Waiting, stream: u64) -> Option<(u64, u64)> {
        match waiting.take(stream) {
            Taken::Report(report) => Some((report.region.id.0, report.term)),
            Taken::Dropped | Taken::Nothing | Taken::Over => None,
        }
    }

    #[test]
    fn the_newest_report_of_each_region_is_sent_and_all_have_their_turn() {
        let heartbeats = Heartbeats::default();
        let waiting = &heartbeats.waiting;
        let stream = waiting.begin_stream();
        for (region, term) in [(1, 5), (2, 5), (3, 5), (1, 6)] {
            heartbeats.send(report(region, term));
        }
        assert_eq!(take(waiting, stream), Some((1, 6)));
        heartbeats.send(report(1, 7));
        assert_eq!(take(waiting, stream), Some((2, 5)), "others wait for longer");
        assert_eq!(take(waiting, stream), Some((3, 5)));
        assert_eq!(take(waiting, stream), Some((1, 7)));
        assert!(matches!(waiting.take(stream), Taken::Nothing));
    }

    #[test]
    fn what_is_dropped_is_known_once_there_is_room() {
        let heartbeats = Heartbeats::default();
        let waiting = &heartbeats.waiting;
        let stream = waiting.begin_stream();
        let max = REGION_REPORTS_WAITING_MAX as u64;
        (1..=max + 1).for_each(|region| heartbeats.send(report(region, 5)));
        heartbeats.send(report(1, 6));
        assert_eq!(
            take(waiting, stream),
            Some((1, 6)),
            "a region that waits already has its place"
        );
        (2..=max).for_each(|region| assert_eq!(take(waiting, stream), Some((region, 5))));
        assert!(matches!(waiting.take(stream), Taken::Dropped));
        assert!(matches!(waiting.take(stream), Taken::Nothing));
    }

    #[test]
    fn a_stream_whose_time_is_over_takes_nothing() {
        let heartbeats = Heartbeats::default();
        let waiting = &heartbeats.waiting;
        let (older, newer) = (waiting.begin_stream(), waiting.begin_stream());
        heartbeats.send(report(1, 5));
        assert!(matches!(waiting.take(older), Taken::Over));
        assert_eq!(take(waiting, newer), Some((1, 5)));
    }

    #[test]
    fn silence_is_counted_in_seconds() {
        let peer = Peer { id: PeerId(2), store_id: StoreId(3), role: PeerRole::Learner };
        let report = RegionReport {
            down_peers: vec![(peer, 1_234)],
            pending_peers: vec![peer],
            approximate_size: 7,
            ..report(1, 5)
        };
        let request = report_to_proto(&report, Duration::from_millis(100));
        assert_eq!(request.down_peers[0].down_seconds, 123);
        assert_eq!(request.down_peers[0].peer.as_ref(), Some(&request.pending_peers[0]));
        assert_eq!((request.approximate_size, request.term), (7, 5));
    }
}
