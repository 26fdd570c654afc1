//! What a store does with the request of a transaction: `storage`'s executor, with events instead of threads.

use std::collections::BTreeMap;

use engine::{Engine, Snapshot};
use raftstore::store::{Input, Request, RequestKind, Response, Token};
use txn::{Concurrency, Latches, Read, commands::Command};
use types::{Bytes, Modify, RegionError, RegionId, TimeStamp, key, marks::mutant};

use super::{Event, Fate, World};
use crate::{
    store::{
        command,
        machine::Answer,
        txn::{TxnAnswer, TxnCall, TxnRequest},
    },
    world::{MachineId, network::exponential},
};

/// Tokens of proposals begin here; those of clients are smaller.
const FIRST_TOKEN: u64 = 1 << 48;

/// What transactional requests of a process share. It ends with the process.
#[derive(Debug, Default)]
pub(in crate::store) struct Executor {
    latches: Latches,
    memory: Concurrency,
    /// The terms in which a leader has made sure that it knows the reads of earlier ones.
    synced: BTreeMap<RegionId, u64>,
    last: u64,
    /// Requests that wait for latches, for a timestamp, or for what they have proposed.
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    call: TxnCall,
    /// What is answered when the proposal is applied, and the locks that are published until then.
    decided: Option<(TxnAnswer, Vec<Bytes>)>,
}

impl World {
    /// A request of a transaction reaches a machine.
    pub(super) fn txn_arrives(&mut self, machine: MachineId, call: TxnCall) {
        let slot = &self.machines[machine];
        let Some(process) = &slot.process else { return self.answer(call.token, Fate::Unheard) };
        let refused = match process.views.find(call.region_id) {
            None => Some(RegionError::RegionNotFound { region: call.region_id }),
            Some(view) => {
                let is_inside = |user: &Bytes| view.region.range.contains(&key::encode(user));
                let leads = view.leader.is_some_and(|leader| leader.id == view.peer_id);
                if view.region.epoch.version != call.epoch.version
                    || !call.request.keys().iter().all(is_inside)
                {
                    Some(RegionError::EpochNotMatch { regions: vec![(*view.region).clone()] })
                } else if !leads {
                    Some(RegionError::NotLeader { region: call.region_id, leader: view.leader })
                } else {
                    None
                }
            }
        };
        if let Some(error) = refused {
            return self.answer(call.token, Fate::Error(error));
        }
        if let TxnRequest::Get { keys, version, resolved } = &call.request {
            let read = Read { version: *version, resolved, ..Read::default() };
            let executor = self.executor(machine);
            executor.memory.raise_max_ts(*version);
            if let Err(error) =
                keys.iter().try_for_each(|key| executor.memory.check_key(key, &read))
            {
                return self.answer(call.token, Fate::Txn(Box::new(TxnAnswer::Refused(error))));
            }
            let TxnCall { token, region_id, epoch, .. } = call;
            self.txn_reads.insert(token, call.request);
            let store_id = self.machines[machine].store_id;
            let kind = RequestKind::Read { replica_read: false };
            let request = Request { token, region_id, epoch, store_id, kind };
            return self.begin_read(machine, Box::new(request));
        }
        let keys = call.request.keys();
        let executor = self.executor(machine);
        executor.last += 1;
        let id = executor.last;
        let has_all = executor.latches.acquire(id, keys) || mutant!("txn_latches_are_not_held");
        executor.running.insert(id, Running { call, decided: None });
        if has_all {
            self.txn_decides(machine, id);
        }
    }

    /// A request has its latches: it is decided by what is applied, and proposed.
    fn txn_decides(&mut self, machine: MachineId, id: u64) {
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        let executor = &mut process.txns;
        let Some(Running { call, .. }) = executor.running.get(&id) else { return };
        let call = call.clone();
        let region_id = call.region_id;
        if let Some(ts) = raises_max_ts(&call.request) {
            executor.memory.raise_max_ts(ts);
        }
        let moment = process.views.moment();
        let snapshot = slot.disks.engine.snapshot().expect("the memory engine has snapshots");
        let Some(term) = process.views.leads_in(region_id, moment) else {
            let error = RegionError::NotLeader { region: region_id, leader: None };
            return self.txn_ends(machine, id, Fate::Error(error));
        };
        let needs =
            matches!(&call.request, TxnRequest::Prewrite(command) if command.needs_max_ts());
        if needs
            && !mutant!("txn_max_ts_is_not_synced")
            && executor.synced.get(&region_id) != Some(&term)
        {
            let delay = exponential(&mut slot.rng, self.options.request_delay) + 1;
            let event = Event::MaxTs { machine, life: slot.life, id, term, ts: None };
            self.schedule_event(delay, event);
            return;
        }
        let (changes, answer, published) = match decide(&call.request, &*snapshot, &executor.memory)
        {
            Ok(decided) => decided,
            Err(txn::Error::Key(error)) => {
                let fate = Fate::Txn(Box::new(TxnAnswer::Refused(error)));
                return self.txn_ends(machine, id, fate);
            }
            Err(error) => {
                self.judge.fails("transactional records can be read", error.to_string());
                return;
            }
        };
        if let Some(running) = executor.running.get_mut(&id) {
            running.decided = Some((answer.clone(), published));
        }
        if changes.is_empty() {
            return self.txn_ends(machine, id, Fate::Txn(Box::new(answer)));
        }
        let keys = changes.iter().filter_map(|change| match change {
            Modify::Put { key, .. } | Modify::Delete { key, .. } => Some(key.clone()),
            Modify::DeleteRange { .. } => None,
        });
        let keys: Vec<Bytes> = keys.collect();
        let (first, last) = (keys.iter().min().cloned(), keys.iter().max().cloned());
        let kind = RequestKind::WriteIn {
            term,
            frees: false,
            first: first.unwrap_or_default(),
            last: last.unwrap_or_default(),
            command: command::encode_changes(&changes),
        };
        let store_id = slot.store_id;
        let token = Token(FIRST_TOKEN + id);
        let request = Request { token, region_id, epoch: call.epoch, store_id, kind };
        self.input(machine, Input::Request(request));
    }

    /// A leader asks for a timestamp, and is given it a little later.
    pub(super) fn max_ts_comes(
        &mut self,
        machine: MachineId,
        (id, term): (u64, u64),
        ts: Option<TimeStamp>,
    ) {
        let Some(ts) = ts else {
            let ts = Some(self.timestamp());
            let slot = &mut self.machines[machine];
            let delay = exponential(&mut slot.rng, self.options.request_delay) + 1;
            let event = Event::MaxTs { machine, life: slot.life, id, term, ts };
            return self.schedule_event(delay, event);
        };
        if self.machines[machine].process.is_none() {
            return;
        }
        let executor = self.executor(machine);
        let Some(running) = executor.running.get(&id) else { return };
        let region_id = running.call.region_id;
        executor.memory.raise_max_ts(ts);
        executor.synced.insert(region_id, term);
        self.txn_decides(machine, id);
    }

    /// What came of proposals. Called when no store is in the middle of something.
    pub(super) fn txn_replies(&mut self) {
        while let Some((machine, token, result)) = self.txn_replied.pop_front() {
            if self.machines[machine].process.is_none() {
                continue;
            }
            let id = token.0 - FIRST_TOKEN;
            let running = self.executor(machine).running.get(&id);
            let Some(answer) = running.and_then(|running| running.decided.clone()) else {
                continue;
            };
            let fate = match result {
                Ok(_) => Fate::Txn(Box::new(answer.0)),
                Err(error) => Fate::Error(error),
            };
            self.txn_ends(machine, id, fate);
        }
    }

    /// A store says what came of a proposal of a transaction; of others it is false.
    pub(super) fn is_txn_reply(
        &mut self,
        machine: MachineId,
        token: Token,
        result: Result<Response<Answer>, RegionError>,
    ) -> Option<Result<Response<Answer>, RegionError>> {
        if token.0 < FIRST_TOKEN {
            return Some(result);
        }
        self.txn_replied.push_back((machine, token, result.map(|_| ())));
        None
    }

    /// A request is answered, and whoever has waited for its latches goes on.
    fn txn_ends(&mut self, machine: MachineId, id: u64, fate: Fate) {
        let executor = self.executor(machine);
        let Some(running) = executor.running.remove(&id) else { return };
        if let Some((_, published)) = &running.decided {
            executor.memory.release(published);
        }
        let next = executor.latches.release(id);
        self.answer(running.call.token, fate);
        for id in next {
            self.txn_decides(machine, id);
        }
    }

    /// The values that a transaction reads in a snapshot.
    pub(super) fn txn_reads(request: &TxnRequest, snapshot: &dyn Snapshot) -> TxnAnswer {
        let TxnRequest::Get { keys, version, resolved } = request else { return TxnAnswer::Done };
        let read = Read { version: *version, resolved, ..Read::default() };
        let value = |key| match read.get(snapshot, key) {
            Ok(value) => Ok(value),
            Err(txn::Error::Key(error)) => Err(error),
            Err(error) => panic!("transactional records can be read: {error}"),
        };
        TxnAnswer::Values(keys.iter().map(value).collect())
    }

    fn executor(&mut self, machine: MachineId) -> &mut Executor {
        let process = self.machines[machine].process.as_mut();
        &mut process.expect("the caller has looked").txns
    }
}

/// Changes, the answer, and the locks that are published meanwhile.
type Decided = (Vec<Modify>, TxnAnswer, Vec<Bytes>);

fn decide(
    request: &TxnRequest,
    snapshot: &dyn Snapshot,
    memory: &Concurrency,
) -> txn::Result<Decided> {
    fn run<C: Command>(
        command: &C,
        snapshot: &dyn Snapshot,
        memory: &Concurrency,
        answer: impl FnOnce(C::Answer) -> TxnAnswer,
    ) -> txn::Result<Decided> {
        let outcome = command.run(snapshot, memory)?;
        let published = C::published(&outcome.answer).to_vec();
        Ok((outcome.changes, answer(outcome.answer), published))
    }
    match request {
        TxnRequest::Get { .. } => Ok((Vec::new(), TxnAnswer::Done, Vec::new())),
        TxnRequest::Prewrite(command) => run(command, snapshot, memory, TxnAnswer::Prewritten),
        TxnRequest::Commit(command) => run(command, snapshot, memory, |_| TxnAnswer::Done),
        TxnRequest::Rollback(command) => run(command, snapshot, memory, |()| TxnAnswer::Done),
        TxnRequest::Status(command) => run(command, snapshot, memory, TxnAnswer::Status),
        TxnRequest::Secondaries(command) => run(command, snapshot, memory, TxnAnswer::Secondaries),
        TxnRequest::Resolve(command) => run(command, snapshot, memory, |_| TxnAnswer::Done),
    }
}

fn raises_max_ts(request: &TxnRequest) -> Option<TimeStamp> {
    match request {
        TxnRequest::Get { .. } => None,
        TxnRequest::Prewrite(command) => command.raises_max_ts(),
        TxnRequest::Commit(command) => command.raises_max_ts(),
        TxnRequest::Rollback(command) => command.raises_max_ts(),
        TxnRequest::Status(command) => command.raises_max_ts(),
        TxnRequest::Secondaries(command) => command.raises_max_ts(),
        TxnRequest::Resolve(command) => command.raises_max_ts(),
    }
}
