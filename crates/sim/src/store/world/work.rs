//! What takes its time on a machine: the sync of the log, and the applier.

use engine::raft_log::Ticket;
use raftstore::{
    apply::{Applied, Task},
    store::Input,
};
use types::RegionId;

use super::{Event, Latency, World};
use crate::{
    store::machine::Answer,
    world::{MachineId, network::exponential},
};

impl World {
    pub(super) fn disk_delay(&mut self, machine: MachineId) -> u64 {
        let slot = &mut self.machines[machine];
        let Latency { min, mean, slow } = slot.latency;
        let mut delay = min + exponential(&mut slot.rng, mean);
        if slot.rng.chance(slow) {
            delay *= 50;
        }
        slot.stalled_until.saturating_sub(self.now) + delay
    }

    pub(super) fn sync_log(&mut self, machine: MachineId) {
        let delay = self.disk_delay(machine);
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        if process.syncs_log {
            process.syncs_log_again = true;
            return;
        }
        process.syncs_log = true;
        // The disk may be done long before anybody hears of it.
        let done = match slot.rng.chance(0.5) {
            true => match process.log_writer.sync() {
                Ok(ticket) => Some(ticket),
                Err(error) => return self.fatal(machine, &error.into(), "a log is synced"),
            },
            false => None,
        };
        let event = Event::LogSync { machine, life: slot.life, done };
        self.queue.schedule(self.now + delay, event);
    }

    pub(super) fn log_is_synced(&mut self, machine: MachineId, done: Option<Ticket>) {
        let Some(process) = &mut self.machines[machine].process else { return };
        let ticket = match done {
            Some(ticket) => ticket,
            None => match process.log_writer.sync() {
                Ok(ticket) => ticket,
                Err(error) => return self.fatal(machine, &error.into(), "a log is synced"),
            },
        };
        process.syncs_log = false;
        if std::mem::take(&mut process.syncs_log_again) {
            self.sync_log(machine);
        }
        self.input(machine, Input::LogSynced(ticket));
    }

    /// A little housekeeping of the log.
    pub(super) fn maintain(&mut self, machine: MachineId) {
        let Some(process) = &mut self.machines[machine].process else { return };
        // While a sync is under way its thread is busy.
        if process.syncs_log {
            return;
        }
        match process.log_writer.maintain(16 << 10) {
            Ok(done) => {
                let durable = done.durable;
                self.input(machine, Input::LogSynced(durable));
            }
            Err(error) => self.fatal(machine, &error.into(), "a log is kept in order"),
        }
    }

    // The applier.

    pub(super) fn give(&mut self, machine: MachineId, task: Task) {
        let Some(process) = &mut self.machines[machine].process else { return };
        if let Task::Entries { region_id, peer_id, entries } = &task {
            let term = process.store.raft_status(*region_id).map_or(0, |status| status.term);
            self.judge.commits(*region_id, *peer_id, term, entries);
        }
        process.tasks.push_back(task);
        self.wake_applier(machine);
    }

    pub(super) fn wake_applier(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        if process.applies || process.tasks.is_empty() {
            return;
        }
        process.applies = true;
        let lag = exponential(&mut slot.rng, self.options.apply_lag);
        let delay = slot.applier_stalled_until.saturating_sub(self.now) + lag;
        let event = Event::Apply { machine, life: slot.life };
        self.queue.schedule(self.now + delay, event);
    }

    pub(super) fn apply(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        let count = slot.rng.range(1..=process.tasks.len() as u64) as usize;
        let tasks = process.tasks.drain(..count).collect();
        let results = match process.applier.apply(tasks) {
            Ok(results) => results,
            Err(error) => return self.fatal(machine, &error, "entries are applied"),
        };
        self.judge.applies(slot.store_id, &*slot.disks.engine, &results);
        let delay = exponential(&mut slot.rng, self.options.applied_delay);
        let event = Event::Applied { machine, life: slot.life, results };
        self.queue.schedule(self.now + delay, event);
    }

    pub(super) fn applied(&mut self, machine: MachineId, results: Vec<Applied<Answer>>) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.applies = false;
        let ids: Vec<RegionId> = results.iter().map(|applied| applied.region_id).collect();
        let moved = results.iter().any(|applied| !applied.effects.is_empty());
        self.input(machine, Input::Applied(results));
        let slot = &self.machines[machine];
        if let Some(process) = &slot.process {
            for region in ids {
                self.judge.sees_numbers(slot.store_id, region, process);
            }
            if moved {
                self.judge.sees_regions(slot.store_id, &process.store);
            }
        }
        self.wake_applier(machine);
    }
}
