//! The threads of a store, and the ways in and out.
//!
//! ```text
//!  callers ── StoreHandle ──► inbox ──► raft-poll: Store ──► Transport, Waiters, Views, Events
//!    │                          ▲         │        │
//!    │ lease reads              │         ▼        ▼
//!    └──────► Views             ├───── raft-log  raft-apply: Applier
//!                               └───── raft-jobs, raft-sync
//! ```
//!
//! | thread | owns | waits for |
//! |---|---|---|
//! | `raft-poll` | the [`Store`](crate::Store), and with it all peers | the inbox, the next tick |
//! | `raft-log` | the log's writer while it syncs or keeps house | the poll thread |
//! | `raft-apply` | the [`Applier`](crate::Applier) while it works | the poll thread |
//! | `raft-sync` | - | requests to sync the engine |
//! | `raft-jobs` | - | requests to make and remove snapshots |
//!
//! A change of threads costs about as much as a third of a sync. When nothing else waits in the inbox, the poll thread
//! therefore syncs the log and applies entries itself; under load it hands both over and goes on.
//!
//! Everything the poll thread does not own is bounded: the inbox refuses requests and drops messages when it is full;
//! what comes back from the other threads is as much as was handed to them.

mod apply;
mod handle;
mod inbox;
mod jobs;
mod log;
mod poll;
mod start;
mod transport;
mod views;

use std::task::Waker;

pub use handle::StoreHandle;
pub use jobs::KeyFormNow;
pub use log::LogSyncs;
pub use start::{HasRoom, Options, Parts, StoreShell};
pub use transport::{Inbox, Transport};
pub use views::{Moment, TickTimes, Views};

use types::{Bytes, Region, RegionError, RegionId};

use crate::{RegionReport, store::Response};

/// Who waits for what becomes of a request.
pub trait Waiter<A>: Send + 'static {
    /// Puts the answer. Returns who is to be woken, so that many answers can be put before anybody runs.
    fn answer(self, result: Result<Response<A>, RegionError>) -> Option<Waker>;

    /// A read may go on: everything that was acknowledged before it came is in the engine. The region and the term are to
    /// be checked in the snapshot that is read ([`check_read`](crate::store::check_read)).
    fn may_read(self, term: u64) -> Option<Waker>;
}

/// What a store tells its owner. Called on the store's threads; must not block.
pub trait Events: std::fmt::Debug + Send + Sync {
    /// A region that is led here has changed, or was not spoken of for a while.
    fn report(&self, report: RegionReport);

    /// A peer here has heard of no leader for long: what the scheduler knows of its region is wanted
    /// ([`StoreHandle::region_known`]), if it answers. Asked again every few seconds.
    fn ask_region(&self, region_id: RegionId);

    /// A region is large: ids for new regions that begin at `keys` are wanted, and then
    /// [`RequestKind::Split`](crate::store::RequestKind).
    fn ask_split(&self, region: Region, keys: Vec<Bytes>);

    /// A region that is led here was cut into these, in the order of their keys.
    fn was_split(&self, regions: Vec<Region>);

    /// The replica of a region here is another one than the leader's, as of before the entry `index`: these are the
    /// hashes. One of the two is wrong.
    fn inconsistent(&self, region: Region, index: u64, own: u64, leaders: u64) {
        let _ = (region, index, own, leaders);
    }

    /// The store can't go on. Said once, after everything that waited was answered.
    fn stopped(&self, error: &crate::Error);
}
