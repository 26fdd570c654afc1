//! Prewrite: the first phase of a commit, or with asynchronous commit and in one phase the only one.
//!
//! Every key is checked and locked. A transaction that is to commit asynchronously also gets the earliest timestamp
//! at which it may: above every read that there has been. A transaction in one phase is committed at it on the spot.
//!
//! If a timestamp can't be given, the *whole request* falls back to plain locks and answers zero: this module begins
//! anew without the wish, so that a request never leaves a mixture behind. Different requests of one transaction may.

use std::collections::BTreeMap;

use engine::Snapshot;
use types::{Bytes, TimeStamp, marks::mutant};

use super::{Command, Outcome};
use crate::{
    Concurrency, LastChange,
    changes::Changes,
    error::{Assertion, ConflictReason, Error, KeyError, Result},
    layout::Key,
    lock::{Lock, LockKind},
    reader::Reader,
    write::{SHORT_VALUE_MAX, Write, WriteKind},
};

/// What a transaction does to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MutationOp {
    /// Sets a value.
    #[default]
    Put,
    /// Removes the key.
    Del,
    /// Leaves it as it is, but nobody else may change it at the same time.
    Lock,
    /// Sets the value of a key that must not exist.
    Insert,
    /// Nothing, but the key must not exist.
    CheckNotExists,
}

/// What a pessimistic transaction says about its lock on a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PessimisticAction {
    /// It has none and needs none.
    #[default]
    Skip,
    /// It has one, which must be there.
    DoPessimisticCheck,
    /// It has none, and the key must not have been written since the start.
    DoConstraintCheck,
}

/// How much of what clients assert is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssertionLevel {
    /// Nothing.
    #[default]
    Off,
    /// What costs nothing.
    Fast,
    /// Everything.
    Strict,
}

/// One change of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutation {
    /// What is done.
    pub op: MutationOp,
    /// The user's key.
    pub key: Bytes,
    /// The value of [`MutationOp::Put`] and [`MutationOp::Insert`].
    pub value: Bytes,
    /// What the client claims about the key.
    pub assertion: Assertion,
    /// For pessimistic transactions.
    pub pessimistic: PessimisticAction,
}

/// Locks keys and writes values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prewrite {
    /// What is done to which key. Of several changes of one key the last counts.
    pub mutations: Vec<Mutation>,
    /// The user's key at which the transaction is decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which others may end the transaction.
    pub lock_ttl: u64,
    /// About how many keys the transaction has.
    pub txn_size: u64,
    /// As of when the transaction locked its keys; zero: it is optimistic.
    pub for_update_ts: TimeStamp,
    /// It will not commit below this; zero: it says nothing.
    pub min_commit_ts: TimeStamp,
    /// It must not be given a commit timestamp above this; zero: any will do.
    pub max_commit_ts: TimeStamp,
    /// Asks for asynchronous commit. A list of secondaries does not: some clients always send one.
    pub use_async_commit: bool,
    /// Asks for a commit in one phase: these are all keys of the transaction.
    pub try_one_pc: bool,
    /// All keys but the primary, for asynchronous commit, if the primary is among the mutations.
    pub secondaries: Vec<Bytes>,
    /// Which assertions are checked.
    pub assertion_level: AssertionLevel,
    /// The client may have sent this before.
    pub is_retry: bool,
    /// By index of the mutation: its pessimistic lock must have been taken as of just then.
    pub for_update_ts_constraints: Vec<(usize, TimeStamp)>,
    /// Optimistic transactions: the client knows that there is nothing newer.
    pub skip_constraint_check: bool,
}

/// How a prewrite ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrewriteAnswer {
    /// Why nothing was written; all locks that are in the way, or one other reason. Empty: it was.
    pub errors: Vec<KeyError>,
    /// With asynchronous commit: the transaction commits at or above this. Zero: it falls back to two phases.
    pub min_commit_ts: TimeStamp,
    /// In one phase: the transaction is committed at this. Zero: it falls back to two phases.
    pub one_pc_commit_ts: TimeStamp,
    /// Stored keys whose locks are in [`Concurrency`] until the changes are applied or have come to nothing.
    pub memory_locks: Vec<Bytes>,
}

impl Command for Prewrite {
    type Answer = PrewriteAnswer;

    fn keys(&self) -> Vec<Bytes> {
        self.mutations.iter().map(|mutation| mutation.key.clone()).collect()
    }

    /// To see that a key does not exist is a read.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        let reads = |op| matches!(op, MutationOp::Insert | MutationOp::CheckNotExists);
        let is_read = self.mutations.iter().any(|mutation| reads(mutation.op));
        if is_read { super::latest(&[self.start_ts]) } else { None }
    }

    fn begins_at(&self) -> Option<TimeStamp> {
        Some(self.start_ts)
    }

    fn latest_ts(&self) -> Option<TimeStamp> {
        super::latest_written([self.start_ts, self.for_update_ts, self.min_commit_ts])
    }

    fn needs_max_ts(&self) -> bool {
        self.use_async_commit || self.try_one_pc
    }

    fn published(answer: &PrewriteAnswer) -> &[Bytes] {
        &answer.memory_locks
    }

    fn run(
        &self,
        snapshot: &dyn Snapshot,
        memory: &Concurrency,
    ) -> Result<Outcome<PrewriteAnswer>> {
        let wished = match (self.try_one_pc, self.use_async_commit) {
            (true, _) => Mode::OnePhase,
            (false, true) => Mode::Async,
            (false, false) => Mode::TwoPhase,
        };
        for mode in [wished, Mode::TwoPhase] {
            let mut attempt = Attempt::new(self, mode, snapshot, memory);
            let end = attempt.run();
            let Attempt { changes, published, commit_ts, locked, .. } = attempt;
            if matches!(end, Ok(End::Prewritten)) && locked.is_empty() {
                let mut answer = PrewriteAnswer { memory_locks: published, ..Default::default() };
                match mode {
                    Mode::TwoPhase => {}
                    Mode::Async => answer.min_commit_ts = commit_ts,
                    Mode::OnePhase => answer.one_pc_commit_ts = commit_ts,
                }
                return Ok(Outcome::new(changes, answer));
            }
            memory.release(&published);
            let mut answer = PrewriteAnswer::default();
            match end {
                Ok(End::FallBack) => continue,
                Ok(End::Prewritten) => answer.errors = locked,
                Ok(End::Committed(at)) => match wished {
                    Mode::TwoPhase => {}
                    Mode::Async => answer.min_commit_ts = at,
                    Mode::OnePhase => answer.one_pc_commit_ts = at,
                },
                Err(Error::Key(error)) => answer.errors = vec![error],
                Err(error) => return Err(error),
            }
            return Ok(Outcome::new(Changes::new(), answer));
        }
        unreachable!("two phases need no timestamp, and never fall back")
    }
}

/// How the transaction is to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    TwoPhase,
    Async,
    OnePhase,
}

/// How an attempt ended.
enum End {
    /// All keys were gone through.
    Prewritten,
    /// No timestamp can be given.
    FallBack,
    /// The transaction is committed already: an answer got lost, and this is asked again.
    Committed(TimeStamp),
}

/// What the lock on a key means for the mutation.
enum Found {
    /// There is none.
    Free,
    /// The transaction's own pessimistic lock.
    Pessimistic(Lock),
    /// The transaction's own lock of an earlier prewrite.
    Prewritten(Lock),
}

/// One pass over the mutations.
struct Attempt<'a> {
    request: &'a Prewrite,
    mode: Mode,
    reader: Reader<'a>,
    memory: &'a Concurrency,
    changes: Changes,
    /// Locks that others have.
    locked: Vec<KeyError>,
    /// Stored keys of the locks that were put into `memory`.
    published: Vec<Bytes>,
    /// The largest timestamp chosen so far.
    commit_ts: TimeStamp,
    /// What becomes commit records: the key, its lock, whether there is a pessimistic lock to remove.
    one_phase: Vec<(Key, Lock, bool)>,
}

impl<'a> Attempt<'a> {
    fn new(
        request: &'a Prewrite,
        mode: Mode,
        snapshot: &'a dyn Snapshot,
        memory: &'a Concurrency,
    ) -> Attempt<'a> {
        Attempt {
            request,
            mode,
            reader: Reader::new(snapshot),
            memory,
            changes: Changes::new(),
            locked: Vec::new(),
            published: Vec::new(),
            commit_ts: TimeStamp::ZERO,
            one_phase: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<End> {
        let mutations = &self.request.mutations;
        let last: BTreeMap<&Bytes, usize> =
            mutations.iter().enumerate().map(|(index, mutation)| (&mutation.key, index)).collect();
        for (index, mutation) in mutations.iter().enumerate() {
            if last.get(&mutation.key) != Some(&index) {
                continue;
            }
            let key = Key::new(mutation.key.clone());
            let error = match self.prewrite(index, mutation, &key) {
                Ok(()) => continue,
                Err(Error::Key(error)) => error,
                Err(error) => return Err(error),
            };
            if self.may_come_from_a_commit(&error)
                && !mutant!("txn_retry_commits_again")
                && let Some(at) = self.reader.txn_record(&key, self.request.start_ts)?.commit_ts()
            {
                return Ok(End::Committed(at));
            }
            match error {
                KeyError::CommitTsTooLarge { .. } => return Ok(End::FallBack),
                KeyError::Locked(_) => self.locked.push(error),
                error => return Err(error.into()),
            }
        }
        if self.mode != Mode::TwoPhase && self.commit_ts == TimeStamp::ZERO {
            // Nothing was locked; what was read still asks for a commit above it.
            let max_ts = self.memory.max_ts();
            self.commit_ts = self.earliest_commit(max_ts, TimeStamp::ZERO, TimeStamp::ZERO);
            if self.is_too_late(self.commit_ts) {
                return Ok(End::FallBack);
            }
        }
        let one_phase = std::mem::take(&mut self.one_phase);
        one_phase.into_iter().for_each(|(key, lock, was_locked)| {
            self.commit_at_once(&key, lock, was_locked);
        });
        Ok(End::Prewritten)
    }

    /// Whether an error may be there because the transaction is committed already.
    fn may_come_from_a_commit(&self, error: &KeyError) -> bool {
        match error {
            KeyError::WriteConflict { conflict_commit_ts, .. } => {
                self.request.start_ts < *conflict_commit_ts
            }
            KeyError::Locked(_)
            | KeyError::PessimisticLockNotFound { .. }
            | KeyError::CommitTsTooLarge { .. } => true,
            _ => false,
        }
    }

    fn prewrite(&mut self, index: usize, mutation: &Mutation, key: &Key) -> Result<()> {
        if mutation.op == MutationOp::CheckNotExists && self.request.is_pessimistic() {
            return Err(KeyError::InvalidRequest(
                "a pessimistic transaction can't check in its prewrite that a key does not exist"
                    .into(),
            )
            .into());
        }
        let found = self.check_lock(index, mutation, key)?;
        if let Found::Prewritten(lock) = &found {
            return self.again(lock);
        }
        let skips_check = self.request.skips_check(mutation);
        let newest = if skips_check { None } else { self.check_newer(mutation, key)? };
        self.check_assertion(mutation, key, skips_check)?;
        let kind = match mutation.op {
            MutationOp::Put | MutationOp::Insert => LockKind::Put,
            MutationOp::Del => LockKind::Delete,
            MutationOp::Lock => LockKind::Lock,
            MutationOp::CheckNotExists => return Ok(()),
        };
        let request = self.request;
        let mut lock = Lock {
            for_update_ts: request.for_update_ts,
            txn_size: request.txn_size,
            min_commit_ts: request.min_commit_ts,
            ..Lock::new(kind, request.primary.clone(), request.start_ts, request.lock_ttl)
        };
        let mut was_locked = false;
        let mut last_change = LastChange::Unknown;
        if let Found::Pessimistic(old) = found {
            // It may have been pushed, and lengthened, since.
            lock.ttl = lock.ttl.max(old.ttl);
            lock.min_commit_ts = lock.min_commit_ts.max(old.min_commit_ts);
            lock.for_update_ts = lock.for_update_ts.max(old.for_update_ts);
            last_change = old.last_change;
            was_locked = true;
        }
        if kind == LockKind::Lock {
            lock.last_change = match (last_change, newest) {
                (LastChange::Unknown, Some((at, write))) if write.is_change() => LastChange::At(at),
                (LastChange::Unknown, _) => self.reader.last_change(key)?,
                (known, _) => known,
            };
        }
        self.write(key, mutation, lock, was_locked)
    }

    /// Locks a key that was prewritten before.
    fn again(&mut self, lock: &Lock) -> Result<()> {
        match self.mode {
            Mode::TwoPhase => Ok(()),
            Mode::Async if lock.use_async_commit => {
                self.commit_ts = self.commit_ts.max(lock.min_commit_ts);
                Ok(())
            }
            // An earlier request fell back.
            Mode::Async | Mode::OnePhase => Err(self.too_late(lock.min_commit_ts)),
        }
    }

    /// Step 1 and 2: the lock that is there.
    fn check_lock(&mut self, index: usize, mutation: &Mutation, key: &Key) -> Result<Found> {
        let request = self.request;
        let must_be_locked = mutation.pessimistic == PessimisticAction::DoPessimisticCheck;
        let lost = || KeyError::PessimisticLockNotFound {
            start_ts: request.start_ts,
            key: key.user().clone(),
        };
        let Some(lock) = self.reader.load_lock(key)? else {
            if must_be_locked && request.is_pessimistic() {
                // The lock is made up for if nobody can have written meanwhile what it kept others from writing.
                let newest = self.reader.seek_write(key, TimeStamp::MAX)?;
                if newest.is_some_and(|(commit_ts, _)| request.start_ts <= commit_ts) {
                    return Err(lost().into());
                }
            }
            return Ok(Found::Free);
        };
        if lock.start_ts != request.start_ts {
            if must_be_locked && request.is_pessimistic() {
                return Err(lost().into());
            }
            let mut info = lock.info(key);
            if request.is_pessimistic() {
                // The transaction has waited for its locks already, and asks to resolve this one at once.
                info.ttl = 0;
            }
            return Err(KeyError::locked(info).into());
        }
        if !lock.is_pessimistic() {
            return Ok(Found::Prewritten(lock));
        }
        if !request.is_pessimistic() {
            return Err(KeyError::InvalidRequest(format!(
                "transaction {} has a pessimistic lock, and prewrites as an optimistic one",
                request.start_ts
            ))
            .into());
        }
        let constraint = request.for_update_ts_constraints.iter().find(|(of, _)| *of == index);
        if constraint.is_some_and(|(_, ts)| lock.for_update_ts != *ts) {
            // The lock was lost, and a stale request has taken it again over other people's writes.
            return Err(lost().into());
        }
        Ok(Found::Pessimistic(lock))
    }

    /// Step 3: nothing newer, and no rollback of this transaction. Returns the newest record.
    fn check_newer(
        &mut self,
        mutation: &Mutation,
        key: &Key,
    ) -> Result<Option<(TimeStamp, Write)>> {
        let request = self.request;
        let start_ts = request.start_ts;
        let mut newest = self.reader.seek_write(key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = &newest {
            let (commit_ts, conflict_start_ts) = (*commit_ts, write.start_ts);
            let conflict = |reason| KeyError::WriteConflict {
                start_ts,
                conflict_start_ts,
                conflict_commit_ts: commit_ts,
                key: key.user().clone(),
                primary: request.primary.clone(),
                reason,
            };
            if commit_ts == start_ts && write.tells_rollback() {
                return Err(conflict(ConflictReason::SelfRolledBack).into());
            }
            if start_ts < commit_ts {
                if !request.is_pessimistic() {
                    if mutant!("txn_writes_over_newer") {
                        break;
                    }
                    return Err(conflict(ConflictReason::Optimistic).into());
                }
                if mutation.pessimistic == PessimisticAction::DoConstraintCheck {
                    return Err(conflict(ConflictReason::LazyUniquenessCheck).into());
                }
                if request.for_update_ts < commit_ts {
                    if write.kind == WriteKind::Rollback {
                        // Rollbacks of others may come while this transaction has its lock.
                        newest = self.reader.seek_write(key, TimeStamp(commit_ts.0 - 1))?;
                        continue;
                    }
                    let key = key.user().clone();
                    return Err(KeyError::PessimisticLockNotFound { start_ts, key }.into());
                }
                // Written before the keys were locked, after the start: this transaction's rollback may lie below.
                if self.reader.txn_record(key, start_ts)?.is_rollback() {
                    return Err(conflict(ConflictReason::SelfRolledBack).into());
                }
            }
            break;
        }
        let must_not_exist = matches!(mutation.op, MutationOp::Insert | MutationOp::CheckNotExists);
        if must_not_exist && self.reader.exists(key, TimeStamp::MAX)? {
            return Err(KeyError::AlreadyExist { key: key.user().clone() }.into());
        }
        Ok(newest)
    }

    /// Step 5: what the client claims about the key.
    fn check_assertion(&mut self, mutation: &Mutation, key: &Key, skipped: bool) -> Result<()> {
        let is_checked = match self.request.assertion_level {
            AssertionLevel::Off => false,
            AssertionLevel::Fast => !skipped,
            AssertionLevel::Strict => true,
        };
        if !is_checked || mutation.assertion == Assertion::None {
            return Ok(());
        }
        let change = self.reader.change_at(key, TimeStamp::MAX)?;
        let put = change.as_ref().filter(|(_, write)| write.kind == WriteKind::Put);
        let holds = match mutation.assertion {
            Assertion::None => true,
            Assertion::Exist => put.is_some(),
            Assertion::NotExist => put.is_none(),
        };
        if holds {
            return Ok(());
        }
        if skipped {
            // The transaction may have been rolled back and overtaken: then that is the reason to give.
            self.check_newer(mutation, key)?;
        }
        let (existing_commit_ts, existing_start_ts) =
            change.map(|(commit_ts, write)| (commit_ts, write.start_ts)).unwrap_or_default();
        Err(KeyError::AssertionFailed {
            start_ts: self.request.start_ts,
            key: key.user().clone(),
            assertion: mutation.assertion,
            existing_start_ts,
            existing_commit_ts,
        }
        .into())
    }

    /// The earliest commit that nobody can miss who has read up to `max_ts`.
    fn earliest_commit(
        &self,
        max_ts: TimeStamp,
        lock_min: TimeStamp,
        for_update_ts: TimeStamp,
    ) -> TimeStamp {
        let reads = if mutant!("txn_chooses_below_reads") { TimeStamp::ZERO } else { max_ts };
        let seen = reads.max(self.request.start_ts).max(for_update_ts);
        TimeStamp(seen.0.saturating_add(1)).max(lock_min).max(self.request.min_commit_ts)
    }

    fn is_too_late(&self, commit_ts: TimeStamp) -> bool {
        let max = self.request.max_commit_ts;
        max != TimeStamp::ZERO && max < commit_ts
    }

    fn too_late(&self, min_commit_ts: TimeStamp) -> Error {
        let start_ts = self.request.start_ts;
        KeyError::CommitTsTooLarge { start_ts, min_commit_ts }.into()
    }

    /// Writes the lock and the value, or remembers them to be committed at once.
    fn write(
        &mut self,
        key: &Key,
        mutation: &Mutation,
        mut lock: Lock,
        was_locked: bool,
    ) -> Result<()> {
        if lock.kind == LockKind::Put {
            if mutation.value.len() <= SHORT_VALUE_MAX {
                lock.short_value = Some(mutation.value.clone());
            } else {
                self.changes.put_value(key, lock.start_ts, mutation.value.clone());
            }
        }
        if self.mode != Mode::TwoPhase {
            lock.use_async_commit = true;
            if key.user() == &lock.primary {
                lock.secondaries = self.request.secondaries.clone();
            }
            lock = self.memory.publish(key, |max_ts| {
                let (own, for_update_ts) = (lock.min_commit_ts, lock.for_update_ts);
                lock.min_commit_ts = self.earliest_commit(max_ts, own, for_update_ts);
                match self.is_too_late(lock.min_commit_ts) {
                    true => Err(self.too_late(lock.min_commit_ts)),
                    false => Ok(lock),
                }
            })?;
            self.commit_ts = self.commit_ts.max(lock.min_commit_ts);
            self.published.push(key.encoded().clone());
        }
        match self.mode {
            Mode::TwoPhase | Mode::Async => self.changes.put_lock(key, &lock),
            Mode::OnePhase => self.one_phase.push((key.clone(), lock, was_locked)),
        }
        Ok(())
    }

    /// One phase: the record that a commit would make of the lock.
    fn commit_at_once(&mut self, key: &Key, lock: Lock, was_locked: bool) {
        let Some(kind) = lock.write_kind() else { return };
        let write = Write {
            short_value: lock.short_value,
            last_change: lock.last_change,
            ..Write::new(kind, lock.start_ts)
        };
        self.changes.put_write(key, self.commit_ts, &write);
        if was_locked {
            self.changes.delete_lock(key);
        }
    }
}

impl Prewrite {
    fn is_pessimistic(&self) -> bool {
        self.for_update_ts != TimeStamp::ZERO
    }

    /// Whether it is known that nobody can have written the key since the transaction decided to.
    fn skips_check(&self, mutation: &Mutation) -> bool {
        if !self.is_pessimistic() {
            return self.skip_constraint_check;
        }
        match mutation.pessimistic {
            // Sent again, the transaction may have ended between.
            PessimisticAction::Skip => !self.is_retry,
            PessimisticAction::DoPessimisticCheck => true,
            PessimisticAction::DoConstraintCheck => false,
        }
    }
}
