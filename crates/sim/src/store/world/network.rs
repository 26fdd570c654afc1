//! Messages between stores, and the files of snapshots that travel with them.

use std::sync::Arc;

use raft::MessageBody as RaftBody;
use raftstore::{StoreMessage, message::MessageBody, snapshot::Descriptor, store::Input};
use runtime::Fs;
use types::Bytes;

use super::{Event, SNAPSHOT_LOST, World, event::message_number};
use crate::{
    store::machine::Answer,
    world::{MachineId, network::exponential},
};

impl World {
    pub(super) fn post(&mut self, from: MachineId, message: Box<StoreMessage>) {
        self.messages += 1;
        let to = self.machine_of(message.to.store_id).filter(|to| *to != from);
        self.trace.note(message_number(&message));
        self.trace.line(self.now, || format!("  m{from} -> {to:?} {message:?}"));
        if let MessageBody::Raft { message: raft, .. } = &message.body
            && let RaftBody::Snapshot(snapshot) = &raft.body
        {
            let descriptor = Descriptor::decode(&snapshot.data);
            let descriptor = descriptor.expect("a store sends what it has made");
            return self.post_snapshot(from, to, message, &descriptor);
        }
        // Nobody lives there any more.
        let Some(to) = to else { return };
        for time in self.network.arrivals(self.now, from, to) {
            let event = Event::Message { from, to, message: message.clone(), file: None };
            self.queue.schedule(time, event);
        }
    }

    pub(super) fn post_snapshot(
        &mut self,
        from: MachineId,
        to: Option<MachineId>,
        message: Box<StoreMessage>,
        descriptor: &Descriptor,
    ) {
        let slot = &mut self.machines[from];
        let life = slot.life;
        let Some(process) = &mut slot.process else { return };
        process.sends += 1;
        let (region_id, peer) = (message.region_id, message.to.id);
        let failed = Event::Sent { machine: from, life, region_id, to: peer, arrived: false };
        if self.options.snapshots_max < process.sends {
            self.queue.schedule(self.now + 1, failed);
            return;
        }
        let path = process.snapshots.made(descriptor.region.id, descriptor.applied);
        let (Ok(Some(bytes)), Some(to)) = (slot.disks.fs.read(&path), to) else {
            self.queue.schedule(self.now + 1, failed);
            return;
        };
        let bytes = Bytes::from(bytes);
        let slow = exponential(&mut slot.rng, self.options.snapshot_delay);
        let mut times = self.network.arrivals(self.now, from, to);
        times.truncate(1);
        match times.first() {
            None => self.queue.schedule(self.now + SNAPSHOT_LOST, failed),
            Some(time) => {
                let file = Some((bytes, life));
                let event = Event::Message { from, to, message, file };
                self.queue.schedule(time + slow, event);
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        from: MachineId,
        to: MachineId,
        message: Box<StoreMessage>,
        file: Option<(Bytes, u64)>,
    ) {
        let (region_id, peer) = (message.region_id, message.to.id);
        let runs = self.machines[to].process.is_some();
        let gets_through = self.network.lets_through(from, to) && runs;
        let Some((bytes, life)) = file else {
            if gets_through {
                self.input(to, Input::Message(message));
            } else if self.machines[from].rng.chance(0.3) {
                self.input_if_awake(from, Input::Unreachable { region_id, peer });
            }
            return;
        };
        let mut arrived = gets_through;
        if let MessageBody::Raft { message: raft, .. } = &message.body
            && let RaftBody::Snapshot(snapshot) = &raft.body
            && let Ok(descriptor) = Descriptor::decode(&snapshot.data)
            && let Some(process) = &self.machines[to].process
            && arrived
        {
            let path = process.snapshots.received(descriptor.region.id, descriptor.applied);
            match self.machines[to].disks.fs.replace(&path, &bytes) {
                Ok(()) => self.input(to, Input::Message(message)),
                Err(error) => {
                    arrived = false;
                    let source = Arc::new(error);
                    let operation = "receiving of a snapshot";
                    let error = engine::Error::Io { operation, path, source };
                    self.fatal(to, &error.into(), "a snapshot is received");
                }
            }
        }
        let event = Event::Sent { machine: from, life, region_id, to: peer, arrived };
        self.queue.schedule(self.now + 1, event);
    }

    pub(super) fn input_if_awake(&mut self, machine: MachineId, input: Input<Answer>) {
        if self.machines[machine].frozen.is_none() {
            self.input(machine, input);
        }
    }
}
