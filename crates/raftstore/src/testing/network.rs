//! What lies between the stores: messages under way, what gets lost, and time as far as there is any.
//!
//! There are two ways to let a cluster go on. [`Cluster::anything`] and [`Cluster::until`] know no time: what is under
//! way arrives in any order. [`Cluster::millisecond`] lets messages and disks take as long as the seed says.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use raft::MessageBody as RaftBody;
use runtime::{Fs, Rng};
use types::StoreId;

use super::Cluster;
use crate::{
    message::{MessageBody, StoreMessage},
    snapshot::Descriptor,
    store::Input,
};

/// Milliseconds of a tick when time passes.
pub const TICK: u64 = 50;

type Drops = dyn FnMut(&StoreMessage, &mut Rng) -> bool;

/// Says which messages get lost.
pub(super) struct Filter(Box<Drops>);

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

/// A message under way.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    /// When it arrives, if time passes.
    due: u64,
    message: StoreMessage,
}

impl Cluster {
    /// From now on messages get lost for which `drops` says so, at the moment at which they would have arrived.
    pub fn add_filter(&mut self, drops: impl FnMut(&StoreMessage, &mut Rng) -> bool + 'static) {
        self.filters.push(Filter(Box::new(drops)));
    }

    /// Nothing gets lost any more because of filters.
    pub fn clear_filters(&mut self) {
        self.filters.clear();
    }

    /// Milliseconds that have passed.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Puts a message on its way.
    pub(super) fn post(&mut self, message: StoreMessage) {
        let due = self.now + if self.now == 0 { 0 } else { self.rng.range(self.delays.clone()) };
        self.network.push(UnderWay { due, message });
    }

    /// A millisecond passes: what is due arrives, disks and appliers do some of their work, and stores tick, each at
    /// its own moment of [`TICK`].
    pub fn millisecond(&mut self) {
        self.now += 1;
        let now = self.now;
        let due: Vec<UnderWay> = self.network.extract_if(.., |under| under.due <= now).collect();
        for under in due {
            self.arrive(under.message, 0.0);
        }
        let ids: Vec<StoreId> = self.nodes.keys().copied().collect();
        for id in ids {
            if (now + 7 * id.0).is_multiple_of(TICK) {
                self.tick(id);
            }
            while self.rng.chance(0.5) && self.work(id) {}
        }
    }

    /// A message arrives, perhaps not the first. Returns whether there was one.
    pub fn deliver(&mut self, loss: f64, doubling: f64) -> bool {
        if self.network.is_empty() {
            return false;
        }
        let at = self.rng.range(0..self.network.len() as u64) as usize;
        let under = match self.rng.chance(doubling) {
            true => self.network[at].clone(),
            false => self.network.remove(at),
        };
        self.arrive(under.message, loss);
        true
    }

    fn arrive(&mut self, message: StoreMessage, loss: f64) {
        let (from, to) = (message.from.store_id, message.to.store_id);
        let mut is_lost = self.rng.chance(loss)
            || self.cut.contains(&from)
            || self.cut.contains(&to)
            || !self.nodes.contains_key(&to);
        for Filter(drops) in &mut self.filters {
            is_lost |= drops(&message, &mut self.rng);
        }
        if let MessageBody::Raft { message: raft, .. } = &message.body
            && let RaftBody::Snapshot(snapshot) = &raft.body
        {
            let descriptor = Descriptor::decode(&snapshot.data).unwrap();
            let arrived = !is_lost && self.copy_snapshot(from, to, &descriptor);
            let (region_id, peer) = (message.region_id, message.to.id);
            if arrived {
                self.step(to, Input::Message(Box::new(message)));
            }
            self.step(from, Input::SnapshotSent { region_id, to: peer, arrived });
        } else if !is_lost {
            self.step(to, Input::Message(Box::new(message)));
        }
    }

    fn copy_snapshot(&mut self, from: StoreId, to: StoreId, descriptor: &Descriptor) -> bool {
        let (Some(sender), Some(receiver)) = (self.nodes.get(&from), self.nodes.get(&to)) else {
            return false;
        };
        let (region, applied) = (descriptor.region.id, descriptor.applied);
        let Some(bytes) = sender.fs.read(&sender.snapshots.made(region, applied)).unwrap() else {
            return false;
        };
        let path: PathBuf = receiver.snapshots.received(region, applied);
        receiver.fs.replace(Path::new(&path), &bytes).unwrap();
        true
    }
}
