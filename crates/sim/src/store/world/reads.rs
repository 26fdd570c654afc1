//! Readers: each on a thread of its own, which may stand still between any two steps.

use engine::{Engine, Snapshot};
use raftstore::{
    shell::Moment,
    snapshot::Pairs,
    store::{Input, Request, Token, check_read},
};
use types::{Bytes, Cf, RegionId};

use super::{Event, Fate, World};
use crate::{
    store::judge::pairs,
    world::{MachineId, network::exponential},
};

impl World {
    /// How long a reader's thread takes from one step to the next.
    pub(super) fn read_delay(&mut self, machine: MachineId) -> u64 {
        let rng = &mut self.machines[machine].rng;
        let mut delay = exponential(rng, self.options.read_delay);
        if rng.chance(0.02) {
            delay *= 20;
        }
        delay
    }

    /// A reader's thread takes its snapshot.
    pub(super) fn begin_read(&mut self, machine: MachineId, request: Box<Request>) {
        let delay = self.read_delay(machine);
        let slot = &self.machines[machine];
        let Some(process) = &slot.process else { return };
        let moment = process.views.moment();
        let snapshot = slot.disks.engine.snapshot().expect("the memory engine has snapshots");
        let event = Event::LeaseRead { machine, life: slot.life, request, moment, snapshot };
        self.queue.schedule(self.now + delay, event);
    }

    /// It looks at the lease, and reads what it has or asks the store.
    pub(super) fn read_by_lease(
        &mut self,
        machine: MachineId,
        request: Request,
        moment: Moment,
        snapshot: &dyn Snapshot,
    ) {
        let Some(process) = &self.machines[machine].process else { return };
        let range = process
            .views
            .check(request.region_id, moment, |view, holds| {
                let is_same = view.region.epoch.version == request.epoch.version;
                (holds && is_same).then(|| view.region.range.clone())
            })
            .flatten();
        let Some(range) = range else {
            // The store is asked, once it hears.
            let request = Box::new(request);
            match &mut self.machines[machine].frozen {
                Some(frozen) => frozen.waiting.push(Event::Request { machine, request }),
                None => self.input(machine, Input::Request(*request)),
            }
            return;
        };
        if let Some(wanted) = self.txn_reads.get(&request.token) {
            let answer = World::txn_reads(wanted, snapshot);
            self.lease_reads += 1;
            return self.answer(request.token, Fate::Txn(Box::new(answer)));
        }
        let Some(wanted) = self.wanted.get(&request.token).cloned() else { return };
        self.lease_reads += 1;
        let seen = pairs(snapshot, &wanted.intersect(&range));
        self.answer(request.token, Fate::Read(raw(seen)));
    }

    /// The order of every reader: the engine's snapshot first, then the region in it.
    pub(super) fn read(
        &mut self,
        machine: MachineId,
        token: Token,
        (region_id, version, term): (RegionId, u64, u64),
    ) {
        let slot = &self.machines[machine];
        if slot.process.is_none() {
            return;
        }
        let txn = self.txn_reads.get(&token);
        let wanted = self.wanted.get(&token).cloned();
        if txn.is_none() && wanted.is_none() {
            return;
        }
        let snapshot = slot.disks.engine.snapshot().expect("the memory engine has snapshots");
        let fate = match check_read(&*snapshot, region_id, version, term) {
            Ok(_) if let Some(request) = txn => {
                Fate::Txn(Box::new(World::txn_reads(request, &*snapshot)))
            }
            Ok(region) => {
                let wanted = wanted.unwrap_or_default();
                // What lies outside of the region is not this read's to see.
                let range = wanted.intersect(&region.range);
                let seen = pairs(&*snapshot, &range);
                Fate::Read(raw(seen))
            }
            Err(Ok(error)) => Fate::Error(error),
            Err(Err(error)) => return self.fatal(machine, &error, "an engine can be read"),
        };
        self.answer(token, fate);
    }
}

/// The pairs that clients without transactions have written.
fn raw(pairs: Pairs) -> Vec<(Bytes, Bytes)> {
    let raw = pairs.into_iter().filter(|(cf, ..)| *cf == Cf::Default);
    raw.map(|(_, key, value)| (key, value)).collect()
}
