//! Clients with transactions: they move money between accounts, or look at all of them at once.
//!
//! Each does one thing after the other. It prewrites key by key, in two phases, with asynchronous commit or in one phase,
//! and ends what others have left in its way. Between any two steps it may die: then its locks are somebody else's to end,
//! and nobody knows what it has seen of its own fate.

use std::collections::BTreeMap;

use raftstore::store::Token;
use runtime::Rng;
use txn::{
    KeyError, LockInfo,
    commands::{
        BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Commit, Mutation, MutationOp, Prewrite,
        ResolveLocks, TxnAction,
    },
};
use types::{Bytes, Region, RegionError, StoreId, TimeStamp, key};

use super::{TxnAnswer, TxnCall, TxnRequest};
use crate::{
    rng::{index, pick},
    store::{
        Action,
        options::Options,
        placement::Placement,
        world::{Fate, World},
    },
    world::network::exponential,
};

/// Tokens of these clients begin here, so that others never have them.
const FIRST_TOKEN: u64 = 1 << 40;

/// What every account has in the beginning.
pub(super) const BALANCE: u64 = 100;

/// Milliseconds for which a lock lives.
const LOCK_TTL: u64 = 3_000;

/// A transaction that has not got on in so many requests is given up.
const REQUESTS_MAX: u32 = 200;

/// A transaction as its client knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) start_ts: TimeStamp,
    /// What it has read as of its start.
    pub(super) reads: Vec<(Bytes, Option<Bytes>)>,
    pub(super) writes: Vec<(Bytes, Bytes)>,
    pub(super) end: End,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody knows: its client died, or gave up.
    #[default]
    Unknown,
    /// For certain.
    Committed(TimeStamp),
    /// For certain.
    Aborted,
}

/// How a transaction is to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    TwoPhase,
    Async,
    OnePhase,
}

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    Rest,
    /// So many of the keys are read.
    Read(usize),
    /// So many of the writes are prewritten.
    Prewrite(usize),
    /// So many of the writes are committed; the first one decides.
    Commit(usize),
    /// It has failed, and its keys are freed.
    Rollback,
}

/// A lock of another transaction that is in the way.
#[derive(Clone, Debug)]
enum Resolving {
    /// Its primary is asked. `two_phases`: it is known to have fallen back from asynchronous commit.
    Status { met: LockInfo, two_phases: bool },
    /// Its secondaries are asked, of which the primary is given: it may be committed by all of them.
    Secondaries { met: LockInfo, primary: LockInfo, asked: usize, commit_ts: TimeStamp },
    /// It is ended on the key that was met.
    End { met: LockInfo, commit_ts: TimeStamp },
}

#[derive(Debug, Default)]
struct Thread {
    keys: Vec<Bytes>,
    record: Record,
    mode: Mode,
    step: Step,
    resolving: Option<Resolving>,
    /// Transactions that will not commit below what this one reads.
    resolved: Vec<u64>,
    /// It has asked to be committed in one phase.
    may_be_committed: bool,
    /// The commit timestamp, or the earliest that asynchronous commit allows so far.
    commit_ts: TimeStamp,
    requests: u32,
    waits_for: Option<Token>,
}

/// All clients with transactions, and what came of them.
#[derive(Debug)]
pub(in crate::store) struct TxnClients {
    rng: Rng,
    options: Options,
    accounts: Vec<Bytes>,
    threads: Vec<Thread>,
    /// Where keys are, as clients have heard.
    routes: BTreeMap<Bytes, (Region, StoreId)>,
    last_token: u64,
    stops: bool,
    pub(super) records: Vec<Record>,
    /// Transactions that are known to be committed, and that ended otherwise.
    pub(in crate::store) committed: u64,
    pub(in crate::store) aborted: u64,
    pub(in crate::store) unknown: u64,
    /// Locks of others that were ended.
    pub(in crate::store) resolved: u64,
}

impl TxnClients {
    pub(in crate::store) fn new(options: &Options, mut rng: Rng) -> TxnClients {
        let mut names: Vec<usize> = (0..options.keys).collect();
        crate::rng::shuffle(&mut rng, &mut names);
        names.truncate(options.accounts);
        let accounts = names.into_iter().map(|name| format!("k{name:04}").into()).collect();
        TxnClients {
            rng,
            options: options.clone(),
            accounts,
            threads: (0..options.txn_threads).map(|_| Thread::default()).collect(),
            routes: BTreeMap::new(),
            last_token: FIRST_TOKEN,
            stops: false,
            records: Vec::new(),
            committed: 0,
            aborted: 0,
            unknown: 0,
            resolved: 0,
        }
    }

    pub(super) fn accounts(&self) -> &[Bytes] {
        &self.accounts
    }

    pub(in crate::store) fn begin(&mut self, world: &mut World) {
        for thread in 0..self.threads.len() {
            self.later(world, thread);
        }
    }

    /// Nothing new is begun, and what is under way stays as it is.
    pub(in crate::store) fn stop(&mut self) {
        self.stops = true;
        for thread in 0..self.threads.len() {
            self.leave(thread);
        }
    }

    fn later(&mut self, world: &mut World, thread: usize) {
        let delay = exponential(&mut self.rng, self.options.think) + 1;
        world.schedule(delay, Action::Txn(thread));
    }

    /// The transaction of a thread is over, whatever came of it.
    fn leave(&mut self, thread: usize) {
        let done = std::mem::take(&mut self.threads[thread]);
        if matches!(done.step, Step::Rest) {
            return;
        }
        match done.record.end {
            End::Unknown => self.unknown += 1,
            End::Committed(_) => self.committed += 1,
            End::Aborted => self.aborted += 1,
        }
        self.records.push(done.record);
    }

    /// A client takes its next step.
    pub(in crate::store) fn act(
        &mut self,
        world: &mut World,
        placement: &Placement,
        number: usize,
    ) {
        if self.stops || self.threads[number].waits_for.is_some() {
            return;
        }
        let thread = &mut self.threads[number];
        thread.requests += 1;
        // It dies, or has tried for long enough.
        let is_begun = !matches!(thread.step, Step::Rest);
        if is_begun && (REQUESTS_MAX < thread.requests || self.rng.chance(0.003)) {
            self.leave(number);
            return self.later(world, number);
        }
        let request = match (&self.threads[number].resolving, &self.threads[number].step) {
            (Some(resolving), _) => self.resolve(world, number, &resolving.clone()),
            (None, Step::Rest) => return self.start(world, number),
            (None, Step::Read(at)) => self.read(number, *at),
            (None, Step::Prewrite(at)) => self.prewrite(number, *at),
            (None, Step::Commit(at)) => self.commit(number, *at),
            (None, Step::Rollback) => self.rollback(number),
        };
        self.send(world, placement, number, request);
    }

    fn start(&mut self, world: &mut World, number: usize) {
        let start_ts = world.timestamp();
        let looks = self.rng.chance(0.25);
        let count = if looks { self.accounts.len() } else { 2 + index(&mut self.rng, 2) };
        let mut keys = self.accounts.clone();
        crate::rng::shuffle(&mut self.rng, &mut keys);
        keys.truncate(count);
        let thread = &mut self.threads[number];
        thread.keys = keys;
        thread.record.start_ts = start_ts;
        thread.mode = *pick(&mut self.rng, &[Mode::TwoPhase, Mode::Async, Mode::OnePhase]);
        thread.step = Step::Read(0);
        self.later(world, number);
    }

    fn read(&self, number: usize, at: usize) -> TxnRequest {
        let thread = &self.threads[number];
        TxnRequest::Get {
            keys: vec![thread.keys[at].clone()],
            version: thread.record.start_ts,
            resolved: thread.resolved.clone(),
        }
    }

    /// Everything is read: money moves from the first account to the others, or nothing is written.
    fn decide(&mut self, number: usize) {
        let thread = &mut self.threads[number];
        let looks = self.accounts.len() <= thread.keys.len() && 3 < self.accounts.len();
        if looks {
            thread.record.end = End::Committed(TimeStamp::ZERO);
            return self.leave(number);
        }
        let start_ts = thread.record.start_ts;
        let mut balances: Vec<u64> =
            thread.record.reads.iter().map(|(_, value)| balance_of(value.as_ref())).collect();
        for at in 1..balances.len() {
            let moved = self.rng.range(0..=balances[0]);
            balances[0] -= moved;
            balances[at] += moved;
        }
        let keys = thread.keys.iter().cloned();
        thread.record.writes =
            keys.zip(balances).map(|(key, balance)| (key, value(balance, start_ts))).collect();
        thread.step = Step::Prewrite(0);
    }

    fn prewrite(&self, number: usize, at: usize) -> TxnRequest {
        let Thread { record, mode, .. } = &self.threads[number];
        let put = |(key, value): &(Bytes, Bytes)| Mutation {
            op: MutationOp::Put,
            key: key.clone(),
            value: value.clone(),
            ..Mutation::default()
        };
        let writes = match mode {
            Mode::OnePhase => &record.writes[..],
            _ => &record.writes[at..=at],
        };
        let others = record.writes[1..].iter().map(|(key, _)| key.clone());
        TxnRequest::Prewrite(Prewrite {
            mutations: writes.iter().map(put).collect(),
            primary: record.writes[0].0.clone(),
            start_ts: record.start_ts,
            lock_ttl: LOCK_TTL,
            txn_size: record.writes.len() as u64,
            // So that readers can push it.
            min_commit_ts: match mode {
                Mode::TwoPhase => TimeStamp(record.start_ts.0 + 1),
                Mode::Async | Mode::OnePhase => TimeStamp::ZERO,
            },
            use_async_commit: *mode == Mode::Async,
            try_one_pc: *mode == Mode::OnePhase,
            secondaries: if at == 0 { others.collect() } else { Vec::new() },
            ..Prewrite::default()
        })
    }

    fn commit(&self, number: usize, at: usize) -> TxnRequest {
        let Thread { record, commit_ts, .. } = &self.threads[number];
        TxnRequest::Commit(Commit {
            keys: vec![record.writes[at].0.clone()],
            start_ts: record.start_ts,
            commit_ts: *commit_ts,
            missing_is_success: false,
        })
    }

    fn rollback(&self, number: usize) -> TxnRequest {
        let record = &self.threads[number].record;
        let keys = vec![record.writes[0].0.clone()];
        TxnRequest::Rollback(BatchRollback { keys, start_ts: record.start_ts })
    }

    fn resolve(&mut self, world: &mut World, number: usize, resolving: &Resolving) -> TxnRequest {
        match resolving {
            Resolving::Status { met, two_phases } => TxnRequest::Status(CheckTxnStatus {
                primary: met.primary.clone(),
                lock_ts: met.start_ts,
                caller_start_ts: self.threads[number].record.start_ts,
                current_ts: world.timestamp(),
                rollback_if_not_exist: true,
                force_sync_commit: *two_phases,
                ..CheckTxnStatus::default()
            }),
            Resolving::Secondaries { primary, asked, .. } => {
                TxnRequest::Secondaries(CheckSecondaryLocks {
                    keys: vec![primary.secondaries[*asked].clone()],
                    start_ts: primary.start_ts,
                })
            }
            Resolving::End { met, commit_ts } => TxnRequest::Resolve(ResolveLocks {
                keys: vec![met.key.clone()],
                txns: BTreeMap::from([(met.start_ts, *commit_ts)]),
            }),
        }
    }

    fn send(
        &mut self,
        world: &mut World,
        placement: &Placement,
        number: usize,
        request: TxnRequest,
    ) {
        let first = key::encode(&request.keys()[0]);
        let Some((region, store)) = self.route(placement, &first) else {
            return self.later(world, number);
        };
        // All in one phase, as long as all are there. Who has asked for that already may be committed.
        let is_inside = |user: &Bytes| region.range.contains(&key::encode(user));
        let thread = &mut self.threads[number];
        let is_one_phase =
            matches!(request, TxnRequest::Prewrite(Prewrite { try_one_pc: true, .. }));
        if !request.keys().iter().all(is_inside) {
            match thread.may_be_committed {
                true => self.leave(number),
                false => thread.mode = Mode::TwoPhase,
            }
            return self.later(world, number);
        }
        thread.may_be_committed |= is_one_phase;
        self.last_token += 1;
        let token = Token(self.last_token);
        self.threads[number].waits_for = Some(token);
        let delay = exponential(&mut self.rng, self.options.request_delay) + 1;
        world.schedule(self.options.patience, Action::TxnPatience(number, token));
        let call = TxnCall { token, region_id: region.id, epoch: region.epoch, request };
        // The network delivers twice, now and then.
        if self.rng.chance(0.03) {
            let again = delay + exponential(&mut self.rng, 200_000);
            self.last_token += 1;
            let copy = TxnCall { token: Token(self.last_token), ..call.clone() };
            world.txn_request(again, store, copy);
        }
        world.txn_request(delay, store, call);
    }

    fn route(&mut self, placement: &Placement, first: &Bytes) -> Option<(Region, StoreId)> {
        if let Some((region, store)) = self.routes.get(first) {
            return Some((region.clone(), *store));
        }
        let (region, leader) = placement.find(first)?;
        self.routes.insert(first.clone(), (region.clone(), leader.store_id));
        Some((region, leader.store_id))
    }

    /// A client has waited long: it asks again.
    pub(in crate::store) fn gives_up(&mut self, world: &mut World, number: usize, token: Token) {
        if self.threads[number].waits_for == Some(token) {
            self.threads[number].waits_for = None;
            self.routes.clear();
            self.later(world, number);
        }
    }

    /// An answer has come.
    pub(in crate::store) fn hears(&mut self, world: &mut World, token: Token, fate: &Fate) {
        let Some(number) = self.threads.iter().position(|thread| thread.waits_for == Some(token))
        else {
            return;
        };
        self.threads[number].waits_for = None;
        match fate {
            Fate::Txn(answer) => self.goes_on(world, number, answer),
            Fate::Error(error) => self.learns(error),
            _ => self.routes.clear(),
        }
        self.later(world, number);
    }

    fn learns(&mut self, error: &RegionError) {
        match error {
            RegionError::NotLeader { region, leader: Some(leader) } => {
                for (known, store) in self.routes.values_mut() {
                    if known.id == *region {
                        *store = leader.store_id;
                    }
                }
            }
            RegionError::EpochNotMatch { regions } => {
                for known in self.routes.values_mut() {
                    let newer = regions.iter().find(|region| {
                        region.id == known.0.id && known.0.epoch.version < region.epoch.version
                    });
                    if let Some(newer) = newer {
                        known.0 = newer.clone();
                    }
                }
                // Whose key is elsewhere now is looked up again.
                self.routes.retain(|first, (region, _)| region.range.contains(first));
                if self.rng.chance(0.3) {
                    self.routes.clear();
                }
            }
            _ => self.routes.clear(),
        }
    }

    fn goes_on(&mut self, world: &mut World, number: usize, answer: &TxnAnswer) {
        if let Some(resolving) = self.threads[number].resolving.take() {
            let now = world.timestamp().physical_ms();
            return self.resolves(number, resolving, answer, now);
        }
        let thread = &mut self.threads[number];
        match (&thread.step, answer) {
            (Step::Read(at), TxnAnswer::Values(values)) => {
                let at = *at;
                match &values[0] {
                    Ok(value) => {
                        thread.record.reads.push((thread.keys[at].clone(), value.clone()));
                        thread.step = Step::Read(at + 1);
                        if at + 1 == thread.keys.len() {
                            self.decide(number);
                        }
                    }
                    Err(error) => self.meets(number, error),
                }
            }
            (Step::Prewrite(at), TxnAnswer::Prewritten(prewritten)) => {
                if let Some(error) = prewritten.errors.first() {
                    return self.meets(number, error);
                }
                let at = *at;
                if thread.mode == Mode::OnePhase && prewritten.one_pc_commit_ts != TimeStamp::ZERO {
                    thread.record.end = End::Committed(prewritten.one_pc_commit_ts);
                    return self.leave(number);
                }
                if thread.mode == Mode::Async {
                    thread.commit_ts = thread.commit_ts.max(prewritten.min_commit_ts);
                    if prewritten.min_commit_ts == TimeStamp::ZERO {
                        thread.mode = Mode::TwoPhase;
                    }
                }
                let is_last = thread.mode == Mode::OnePhase || at + 1 == thread.record.writes.len();
                if !is_last {
                    thread.step = Step::Prewrite(at + 1);
                    return;
                }
                thread.step = Step::Commit(0);
                match thread.mode {
                    Mode::Async => thread.record.end = End::Committed(thread.commit_ts),
                    Mode::TwoPhase | Mode::OnePhase => thread.commit_ts = world.timestamp(),
                }
            }
            (Step::Commit(at), TxnAnswer::Done) => {
                let at = *at;
                thread.record.end = End::Committed(thread.commit_ts);
                thread.step = Step::Commit(at + 1);
                if at + 1 == thread.record.writes.len() {
                    self.leave(number);
                }
            }
            (Step::Commit(0), TxnAnswer::Refused(KeyError::CommitTsExpired { .. })) => {
                thread.commit_ts = world.timestamp();
            }
            // Somebody has ended it: of a transaction in two phases that says that it is rolled back.
            (Step::Commit(0), TxnAnswer::Refused(KeyError::TxnLockNotFound { .. }))
                if thread.mode != Mode::Async =>
            {
                thread.record.end = End::Aborted;
                self.leave(number);
            }
            (Step::Commit(_), TxnAnswer::Refused(_)) => self.leave(number),
            (_, TxnAnswer::Refused(error)) => {
                let error = error.clone();
                self.meets(number, &error);
            }
            _ => self.leave(number),
        }
    }

    /// Something is in the way of a read or a prewrite.
    fn meets(&mut self, number: usize, error: &KeyError) {
        let thread = &mut self.threads[number];
        match (error, &thread.step) {
            (KeyError::Locked(lock), _) => {
                let met = (**lock).clone();
                thread.resolving = Some(Resolving::Status { met, two_phases: false });
            }
            // Not all is prewritten, so that nobody can have committed it: its user is told so now. The others' locks are left.
            (_, Step::Prewrite(_)) => {
                thread.record.end = End::Aborted;
                thread.step = Step::Rollback;
            }
            _ => self.leave(number),
        }
    }

    /// What is known now of a lock in the way. `now` is in milliseconds.
    fn resolves(&mut self, number: usize, resolving: Resolving, answer: &TxnAnswer, now: u64) {
        let thread = &mut self.threads[number];
        let ends = |met, commit_ts| Some(Resolving::End { met, commit_ts });
        thread.resolving = match (resolving, answer) {
            (Resolving::Status { met, .. }, TxnAnswer::Status(status)) => match &status.lock {
                // Its time is over, and the primary alone does not know what became of it.
                Some(primary)
                    if primary.use_async_commit
                        && primary.start_ts.physical_ms() + primary.ttl < now =>
                {
                    let (asked, commit_ts) = (0, primary.min_commit_ts);
                    match primary.secondaries.is_empty() {
                        true => ends(met, commit_ts),
                        false => {
                            let primary = primary.clone();
                            Some(Resolving::Secondaries { met, primary, asked, commit_ts })
                        }
                    }
                }
                _ if 0 < status.lock_ttl => {
                    if status.action == TxnAction::MinCommitTsPushed {
                        thread.resolved.push(met.start_ts.0);
                    }
                    None
                }
                _ => ends(met, status.commit_ts),
            },
            (
                Resolving::Secondaries { met, primary, asked, commit_ts },
                TxnAnswer::Secondaries(found),
            ) => match found.locks.first() {
                // It was committed on that key, or it never will be.
                None => ends(met, found.commit_ts),
                // It fell back: the primary decides.
                Some(lock) if !lock.use_async_commit => {
                    Some(Resolving::Status { met, two_phases: true })
                }
                Some(lock) => {
                    let commit_ts = commit_ts.max(lock.min_commit_ts);
                    match asked + 1 == primary.secondaries.len() {
                        true => ends(met, commit_ts),
                        false => {
                            let asked = asked + 1;
                            Some(Resolving::Secondaries { met, primary, asked, commit_ts })
                        }
                    }
                }
            },
            (Resolving::End { .. }, _) => {
                self.resolved += 1;
                None
            }
            _ => None,
        };
    }
}

/// A balance as it is stored: with the transaction that wrote it, so that no two values are alike.
fn value(balance: u64, start_ts: TimeStamp) -> Bytes {
    let mut bytes = balance.to_be_bytes().to_vec();
    bytes.extend(start_ts.0.to_be_bytes());
    bytes.into()
}

/// The balance of a stored value. Who was never written has what everybody has in the beginning.
pub(super) fn balance_of(value: Option<&Bytes>) -> u64 {
    let Some(value) = value else { return BALANCE };
    let (balance, _) = value.split_first_chunk().expect("a stored value has a balance");
    u64::from_be_bytes(*balance)
}
