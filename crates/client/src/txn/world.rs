//! The world of calls with transactions in it: the stores run the real commands over the memory engine, so that what
//! is tested against is what is shipped. One store's worth of data, whatever the regions are.

use std::{collections::BTreeSet, time::Duration};

use engine::{Engine, MemoryEngine, WriteBatch};
use types::{Bytes, Cf, KeyRange, Modify, TimeStamp};

use super::{
    Input, Machine, Output,
    command::{Action, Answered, Command, CommitMode, KeyError, Lock, Op, ReadAt, Reply},
};
use crate::{
    Answer, Error,
    call::world::World,
    request::{Direction, Pair, Request},
};

/// Versions, locks, and the cluster's clock.
#[derive(Default)]
pub(crate) struct Versions {
    engine: MemoryEngine,
    memory: txn::Concurrency,
    last_ts: TimeStamp,
    /// Prewrites are to fall back to two phases, as if nobody could be given a timestamp. Taken one by one.
    pub(crate) fall_back: std::collections::VecDeque<bool>,
}

/// What a command touches, in request keys.
pub(crate) struct Touched {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) range: Option<KeyRange>,
}

pub(crate) fn command_range(command: &Command) -> Touched {
    let keys = match command {
        Command::Scan { range, .. } => {
            return Touched { keys: Vec::new(), range: Some(range.clone()) };
        }
        Command::Get { key, .. } | Command::HeartBeat { primary: key, .. } => vec![key.clone()],
        Command::CheckStatus(check) => vec![check.primary.clone()],
        Command::Prewrite(prewrite) => {
            prewrite.mutations.iter().map(|mutation| mutation.key.clone()).collect()
        }
        Command::Lock(lock) => lock.keys.clone(),
        Command::BatchGet { keys, .. }
        | Command::Commit { keys, .. }
        | Command::Rollback { keys, .. }
        | Command::Unlock { keys, .. }
        | Command::CheckSecondaries { keys, .. }
        | Command::Resolve { keys, .. } => keys.clone(),
    };
    Touched { keys, range: None }
}

fn raw(ts: &[TimeStamp]) -> Vec<u64> {
    ts.iter().map(|ts| ts.0).collect()
}

fn lock(info: txn::LockInfo) -> Lock {
    Lock {
        key: info.key,
        primary: info.primary,
        start_ts: info.start_ts,
        ttl_ms: info.ttl,
        is_pessimistic: info.kind == txn::LockKind::Pessimistic,
        for_update_ts: info.for_update_ts,
        min_commit_ts: info.min_commit_ts,
        is_async: info.use_async_commit,
        secondaries: info.secondaries,
    }
}

fn key_error(error: txn::KeyError) -> KeyError {
    use txn::KeyError as Theirs;
    match error {
        Theirs::Locked(info) => KeyError::Locked(Box::new(lock(*info))),
        Theirs::WriteConflict { reason: txn::ConflictReason::SelfRolledBack, key, .. } => {
            KeyError::Conflict { key, commit_ts: TimeStamp::ZERO }
        }
        Theirs::WriteConflict { key, conflict_commit_ts, .. } => {
            KeyError::Conflict { key, commit_ts: conflict_commit_ts }
        }
        Theirs::AlreadyExist { key } => KeyError::Exists { key },
        Theirs::CommitTsExpired { min_commit_ts, .. } => KeyError::CommitTooEarly { min_commit_ts },
        Theirs::TxnNotFound { .. } => KeyError::Unknown,
        Theirs::TxnLockNotFound { key, .. } => KeyError::LockNotFound { key },
        Theirs::PrimaryMismatch(_) => KeyError::NotPrimary,
        Theirs::InvalidRequest(reason) => panic!("{reason}"),
        other => KeyError::Aborted(other.to_string()),
    }
}

impl Versions {
    /// Runs one command as a store does.
    pub(crate) fn run(&mut self, command: Command) -> Answered {
        match command {
            Command::Get { key, at } => {
                let resolved = raw(&at.resolved);
                match self.read(&at, &resolved).get(&*self.snapshot(), &key) {
                    Ok(value) => {
                        let pair = value.map(|value| Pair { key, value });
                        Answered::ok(Reply::Pairs(pair.into_iter().collect()))
                    }
                    Err(txn::Error::Key(error)) => Answered::refused(vec![key_error(error)]),
                    Err(error) => panic!("{error}"),
                }
            }
            Command::BatchGet { keys, at } => {
                let resolved = raw(&at.resolved);
                let (mut pairs, mut errors) = (Vec::new(), Vec::new());
                let found = self.read(&at, &resolved).batch_get(&*self.snapshot(), &keys).unwrap();
                for (key, found) in found {
                    match found {
                        Ok(value) => pairs.push(Pair { key, value }),
                        Err(error) => errors.push(key_error(error)),
                    }
                }
                Answered { errors, ..Answered::ok(Reply::Pairs(pairs)) }
            }
            Command::Scan { range, limit, keys_only, direction, at } => {
                let resolved = raw(&at.resolved);
                let options = txn::ScanOptions {
                    reverse: direction == Direction::Reverse,
                    key_only: keys_only,
                    ..txn::ScanOptions::limit(limit)
                };
                let (mut pairs, mut errors) = (Vec::new(), Vec::new());
                let read = self.read(&at, &resolved);
                for found in read.scan(&*self.snapshot(), &range, &options).unwrap() {
                    match found {
                        Ok(found) if errors.is_empty() => {
                            pairs.push(Pair { key: found.key, value: found.value });
                        }
                        Ok(_) => {}
                        Err(error) => errors.push(key_error(error)),
                    }
                }
                Answered { errors, ..Answered::ok(Reply::Pairs(pairs)) }
            }
            Command::Prewrite(prewrite) => {
                let falls_back = self.fall_back.pop_front().unwrap_or_default();
                let mode = prewrite.mode;
                let is_pessimistic = prewrite.for_update_ts != TimeStamp::ZERO;
                let mutations = prewrite.mutations.into_iter().map(|mutation| {
                    use txn::commands::{MutationOp, PessimisticAction};
                    txn::commands::Mutation {
                        op: match mutation.op {
                            Op::Put => MutationOp::Put,
                            Op::Delete => MutationOp::Del,
                            Op::Insert => MutationOp::Insert,
                            Op::Lock => MutationOp::Lock,
                            Op::CheckNotExists => MutationOp::CheckNotExists,
                        },
                        key: mutation.key,
                        value: mutation.value,
                        pessimistic: match is_pessimistic && mutation.is_locked {
                            true => PessimisticAction::DoPessimisticCheck,
                            false => PessimisticAction::Skip,
                        },
                        ..txn::commands::Mutation::default()
                    }
                });
                let answer = self.execute(&txn::commands::Prewrite {
                    mutations: mutations.collect(),
                    primary: prewrite.primary,
                    start_ts: prewrite.start_ts,
                    lock_ttl: prewrite.ttl_ms,
                    txn_size: prewrite.size,
                    for_update_ts: prewrite.for_update_ts,
                    min_commit_ts: prewrite.min_commit_ts,
                    use_async_commit: mode != CommitMode::TwoPhase,
                    try_one_pc: mode == CommitMode::OnePhase,
                    // No timestamp can be given that is allowed.
                    max_commit_ts: TimeStamp(u64::from(falls_back)),
                    secondaries: prewrite.secondaries,
                    is_retry: prewrite.is_retry,
                    ..txn::commands::Prewrite::default()
                });
                let answer = answer.expect("its errors are in the answer");
                self.memory.release(&answer.memory_locks);
                match answer.errors.is_empty() {
                    true => Answered::ok(Reply::Prewritten {
                        min_commit_ts: answer.min_commit_ts,
                        one_phase_ts: answer.one_pc_commit_ts,
                    }),
                    false => Answered::refused(answer.errors.into_iter().map(key_error).collect()),
                }
            }
            Command::Commit { keys, start_ts, commit_ts, .. } => {
                let missing_is_success = false;
                let commit =
                    txn::commands::Commit { keys, start_ts, commit_ts, missing_is_success };
                self.answer(&commit, Reply::Committed)
            }
            Command::Rollback { keys, start_ts } => {
                self.answer(&txn::commands::BatchRollback { keys, start_ts }, |()| Reply::Done)
            }
            Command::Lock(lock) => {
                let keys = lock.keys.clone();
                let wanted = |key: Bytes| txn::commands::PessimisticKey {
                    key,
                    should_not_exist: lock.must_not_exist,
                };
                let command = txn::commands::PessimisticLock {
                    keys: lock.keys.into_iter().map(wanted).collect(),
                    primary: lock.primary,
                    start_ts: lock.start_ts,
                    for_update_ts: lock.for_update_ts,
                    ttl: lock.ttl_ms,
                    min_commit_ts: TimeStamp(lock.for_update_ts.0 + 1),
                    return_values: lock.wants_values,
                    ..txn::commands::PessimisticLock::default()
                };
                self.answer(&command, |answer| {
                    let found = keys.into_iter().zip(answer.results);
                    let pair = |(key, found): (Bytes, txn::commands::LockedKey)| {
                        Some(Pair { key, value: found.value? })
                    };
                    Reply::Pairs(found.filter_map(pair).collect())
                })
            }
            Command::Unlock { keys, start_ts, for_update_ts } => {
                let command = txn::commands::PessimisticRollback { keys, start_ts, for_update_ts };
                self.answer(&command, |()| Reply::Done)
            }
            Command::CheckStatus(check) => {
                let command = txn::commands::CheckTxnStatus {
                    primary: check.primary,
                    lock_ts: check.lock_ts,
                    caller_start_ts: check.caller_ts,
                    current_ts: check.current_ts,
                    rollback_if_not_exist: check.rollback_if_unknown,
                    force_sync_commit: check.force_two_phases,
                    resolving_pessimistic_lock: check.met_pessimistic,
                    verify_is_primary: true,
                    ..txn::commands::CheckTxnStatus::default()
                };
                self.answer(&command, |status| Reply::Status {
                    ttl_ms: status.lock_ttl,
                    commit_ts: status.commit_ts,
                    action: match status.action {
                        txn::commands::TxnAction::MinCommitTsPushed => Action::Pushed,
                        txn::commands::TxnAction::TtlExpirePessimisticRollback
                        | txn::commands::TxnAction::LockNotExistDoNothing => Action::Undecided,
                        _ => Action::None,
                    },
                    lock: status.lock.map(|info| Box::new(lock(info))),
                })
            }
            Command::CheckSecondaries { keys, start_ts } => {
                let command = txn::commands::CheckSecondaryLocks { keys, start_ts };
                self.answer(&command, |found| Reply::Secondaries {
                    locks: found.locks.into_iter().map(lock).collect(),
                    commit_ts: found.commit_ts,
                })
            }
            Command::Resolve { keys, start_ts, commit_ts } => {
                let txns = [(start_ts, commit_ts)].into();
                self.answer(&txn::commands::ResolveLocks { keys, txns }, |_| Reply::Done)
            }
            Command::HeartBeat { primary, start_ts, ttl_ms } => {
                let command = txn::commands::TxnHeartBeat { primary, start_ts, advise_ttl: ttl_ms };
                self.answer(&command, |_| Reply::Done)
            }
        }
    }

    fn snapshot(&self) -> std::sync::Arc<dyn engine::Snapshot> {
        self.engine.snapshot().unwrap()
    }

    fn read<'a>(&mut self, at: &ReadAt, resolved: &'a [u64]) -> txn::Read<'a> {
        self.memory.raise_max_ts(at.version);
        txn::Read { resolved, ..txn::Read::at(at.version) }
    }

    fn execute<C: txn::commands::Command>(&mut self, command: &C) -> Result<C::Answer, KeyError> {
        if let Some(ts) = command.raises_max_ts() {
            self.memory.raise_max_ts(ts);
        }
        let outcome = match command.run(&*self.snapshot(), &self.memory) {
            Ok(outcome) => outcome,
            Err(txn::Error::Key(error)) => return Err(key_error(error)),
            Err(error) => panic!("{error}"),
        };
        let mut batch = WriteBatch::new();
        for change in outcome.changes {
            match change {
                Modify::Put { cf, key, value } => batch.put(cf, key, value),
                Modify::Delete { cf, key } => batch.delete(cf, key),
                Modify::DeleteRange { .. } => panic!("no command removes ranges"),
            }
        }
        self.engine.write(batch).unwrap();
        Ok(outcome.answer)
    }

    fn answer<C: txn::commands::Command>(
        &mut self,
        command: &C,
        reply: impl FnOnce(C::Answer) -> Reply,
    ) -> Answered {
        match self.execute(command) {
            Ok(answer) => Answered::ok(reply(answer)),
            Err(error) => Answered::refused(vec![error]),
        }
    }

    /// The keys that are locked.
    pub(crate) fn locks(&self) -> BTreeSet<Bytes> {
        let mut iter = self.snapshot().iter(Cf::Lock.into(), &KeyRange::all()).unwrap();
        let mut locks = BTreeSet::new();
        let mut found = iter.seek_to_first().unwrap();
        while found {
            locks.insert(types::key::decode_exact(iter.key()).unwrap().into());
            found = iter.next().unwrap();
        }
        locks
    }
}

/// A machine between two steps.
pub(crate) struct Running<M> {
    machine: M,
    next: Input,
}

impl<M> Running<M> {
    pub(crate) fn new(machine: M) -> Running<M> {
        Running { machine, next: Input::Start }
    }
}

impl World {
    /// A timestamp, later than all before.
    pub(crate) fn draw(&mut self) -> TimeStamp {
        let now = TimeStamp::compose(u64::try_from(self.now.as_millis()).unwrap(), 0);
        self.versions.last_ts = TimeStamp(self.versions.last_ts.0 + 1).max(now);
        self.versions.last_ts
    }

    /// Carries out a command over all regions.
    pub(crate) fn command(
        &mut self,
        command: Command,
        timeout: Duration,
    ) -> Result<Answered, Error> {
        self.options.timeout = timeout;
        match self.run(Request::Txn(command))? {
            Answer::Txn(answered) => Ok(*answered),
            other => panic!("{other:?}"),
        }
    }

    /// One step, and what it asks for; the result if it was the last.
    pub(crate) fn step<M: Machine>(&mut self, running: &mut Running<M>) -> Option<M::Result> {
        let input = std::mem::replace(&mut running.next, Input::Timer);
        running.next = match running.machine.step(self.now, input) {
            Output::Done(result) => return Some(result),
            Output::Run { command, timeout } => Input::Ran(self.command(command, timeout)),
            Output::Timestamp => Input::Timestamp(Ok(self.draw())),
            Output::Wait(duration) => {
                self.now += duration;
                Input::Timer
            }
        };
        None
    }

    /// Drives a machine to its end; `None`: the client stopped before.
    pub(crate) fn drive<M: Machine>(&mut self, machine: M) -> Option<M::Result> {
        let mut running = Running::new(machine);
        for _ in 0..100_000 {
            if self.is_crashed {
                return None;
            }
            if let Some(result) = self.step(&mut running) {
                return (!self.is_crashed).then_some(result);
            }
        }
        panic!("a machine goes on for ever");
    }
}
