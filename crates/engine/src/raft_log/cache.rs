//! Recent entries in memory: what is not written yet, because it can be read nowhere else, and what was written lately,
//! because it is read soon.
//!
//! Each region keeps the last entries of its log, without a hole. The bound is over all regions, and the entry that was
//! appended first goes first, whoever owns it.

use std::collections::{BTreeMap, VecDeque};

use types::Bytes;

use super::{index::Region, log::Ticket};

/// An entry in memory, beside its location.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    ticket: Ticket,
    pub(super) kind: u8,
    pub(super) data: Bytes,
}

/// Who is next to leave. An item outlives its entry if that was dropped from the log.
#[derive(Debug)]
struct Queued {
    ticket: Ticket,
    region: u64,
    index: u64,
}

/// What an entry costs beside its data: its places in the queue and in the region, allocations of `Bytes`.
const OVERHEAD: usize = 128;

/// The bound over all regions.
#[derive(Debug)]
pub(super) struct Cache {
    queue: VecDeque<Queued>,
    data_bytes: usize,
    max: usize,
}

impl Cache {
    pub(super) fn new(max: usize) -> Cache {
        Cache { queue: VecDeque::new(), data_bytes: 0, max }
    }

    /// Bytes in memory, about. What has left the log is in it until its turn to leave the queue.
    pub(super) fn bytes(&self) -> usize {
        self.data_bytes + self.queue.len() * OVERHEAD
    }

    /// Takes the entry at `index`, which is the last of its region.
    pub(super) fn push(
        &mut self,
        recent: &mut VecDeque<Recent>,
        ticket: Ticket,
        (region, index): (u64, u64),
        (kind, data): (u8, Bytes),
    ) {
        self.data_bytes += data.len();
        self.queue.push_back(Queued { ticket, region, index });
        recent.push_back(Recent { ticket, kind, data });
    }

    /// Forgets entries that are dropped from the log.
    pub(super) fn forget(&mut self, dropped: impl Iterator<Item = Recent>) {
        self.data_bytes -= dropped.map(|recent| recent.data.len()).sum::<usize>();
    }

    /// Lets go what is too much and written: `durable` is the last ticket that is.
    pub(super) fn trim(&mut self, regions: &mut BTreeMap<u64, Region>, durable: Ticket) {
        while self.max < self.bytes()
            && let Some(Queued { ticket, region, index }) = self.queue.front()
            && *ticket <= durable
        {
            if let Some(region) = regions.get_mut(region)
                && region.first_recent() == *index
                && region.recent.front().is_some_and(|recent| recent.ticket == *ticket)
            {
                self.forget(region.recent.pop_front().into_iter());
            }
            self.queue.pop_front();
        }
    }
}
