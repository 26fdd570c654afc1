//! Transactional requests and errors between the wire and the inside.

use proto::{deadlock, kvrpcpb};
use txn::{
    Assertion, ConflictReason, Isolation, Key, KeyError, Lock, LockInfo, LockKind, Read, WaitFor,
    commands::{AssertionLevel, Mutation, MutationOp, PessimisticAction},
};
use types::{Bytes, TimeStamp};

/// How a request reads at `version`.
pub(crate) fn read(context: Option<&kvrpcpb::Context>, version: u64) -> Read<'_> {
    let Some(context) = context else { return Read::at(TimeStamp(version)) };
    let isolation = match context.isolation_level() {
        kvrpcpb::IsolationLevel::Si => Isolation::Snapshot,
        kvrpcpb::IsolationLevel::Rc => Isolation::ReadCommitted,
        kvrpcpb::IsolationLevel::RcCheckTs => Isolation::ReadCommittedCheckTs,
    };
    Read {
        version: TimeStamp(version),
        isolation,
        resolved: &context.resolved_locks,
        committed: &context.committed_locks,
    }
}

/// A mutation of a prewrite.
///
/// # Errors
/// One that no prewrite can have.
pub(crate) fn mutation(
    mutation: kvrpcpb::Mutation,
    action: kvrpcpb::prewrite_request::PessimisticAction,
) -> Result<Mutation, String> {
    use kvrpcpb::prewrite_request::PessimisticAction as Wire;
    let op = match mutation.op() {
        kvrpcpb::Op::Put => MutationOp::Put,
        kvrpcpb::Op::Del => MutationOp::Del,
        kvrpcpb::Op::Lock => MutationOp::Lock,
        kvrpcpb::Op::Insert => MutationOp::Insert,
        kvrpcpb::Op::CheckNotExists => MutationOp::CheckNotExists,
        other => return Err(format!("a prewrite can't have a mutation {}", other.as_str_name())),
    };
    let assertion = assertion(mutation.assertion());
    let pessimistic = match action {
        Wire::SkipPessimisticCheck => PessimisticAction::Skip,
        Wire::DoPessimisticCheck => PessimisticAction::DoPessimisticCheck,
        Wire::DoConstraintCheck => PessimisticAction::DoConstraintCheck,
    };
    Ok(Mutation { op, key: mutation.key, value: mutation.value, assertion, pessimistic })
}

pub(crate) fn assertion(assertion: kvrpcpb::Assertion) -> Assertion {
    match assertion {
        kvrpcpb::Assertion::None => Assertion::None,
        kvrpcpb::Assertion::Exist => Assertion::Exist,
        kvrpcpb::Assertion::NotExist => Assertion::NotExist,
    }
}

pub(crate) fn assertion_level(level: kvrpcpb::AssertionLevel) -> AssertionLevel {
    match level {
        kvrpcpb::AssertionLevel::Off => AssertionLevel::Off,
        kvrpcpb::AssertionLevel::Fast => AssertionLevel::Fast,
        kvrpcpb::AssertionLevel::Strict => AssertionLevel::Strict,
    }
}

/// A lock that was found on a user's key, as clients get it.
pub(crate) fn found_lock((key, lock): (Bytes, Lock)) -> kvrpcpb::LockInfo {
    lock_to_proto(lock.info(&Key::new(key)))
}

/// A lock as clients get it.
pub(crate) fn lock_to_proto(lock: LockInfo) -> kvrpcpb::LockInfo {
    let kind = lock_kind(lock.kind);
    kvrpcpb::LockInfo {
        primary_lock: lock.primary,
        lock_version: lock.start_ts.0,
        key: lock.key,
        lock_ttl: lock.ttl,
        txn_size: lock.txn_size,
        lock_type: kind.into(),
        lock_for_update_ts: lock.for_update_ts.0,
        use_async_commit: lock.use_async_commit,
        min_commit_ts: lock.min_commit_ts.0,
        secondaries: lock.secondaries,
        ..kvrpcpb::LockInfo::default()
    }
}

/// What a lock is for.
pub(crate) fn lock_kind(kind: LockKind) -> kvrpcpb::Op {
    match kind {
        LockKind::Put => kvrpcpb::Op::Put,
        LockKind::Delete => kvrpcpb::Op::Del,
        LockKind::Lock => kvrpcpb::Op::Lock,
        LockKind::Pessimistic => kvrpcpb::Op::PessimisticLock,
    }
}

/// Why a key refused a request, as clients get it. What has no field of its own ends the transaction.
pub(crate) fn key_error(error: KeyError) -> kvrpcpb::KeyError {
    let text = error.to_string();
    let mut out = kvrpcpb::KeyError::default();
    match error {
        KeyError::Locked(lock) => out.locked = Some(lock_to_proto(*lock).into()),
        KeyError::WriteConflict {
            start_ts,
            conflict_start_ts,
            conflict_commit_ts,
            key,
            primary,
            reason,
        } => {
            use kvrpcpb::write_conflict::Reason;
            let reason = match reason {
                ConflictReason::Optimistic => Reason::Optimistic,
                ConflictReason::PessimisticRetry => Reason::PessimisticRetry,
                ConflictReason::SelfRolledBack => Reason::SelfRolledBack,
                ConflictReason::RcCheckTs => Reason::RcCheckTs,
                ConflictReason::LazyUniquenessCheck => Reason::LazyUniquenessCheck,
                ConflictReason::NotLockedKeyConflict => Reason::NotLockedKeyConflict,
            };
            out.conflict = Some(kvrpcpb::WriteConflict {
                start_ts: start_ts.0,
                conflict_ts: conflict_start_ts.0,
                key,
                primary,
                conflict_commit_ts: conflict_commit_ts.0,
                reason: reason.into(),
            });
        }
        KeyError::AlreadyExist { key } => {
            out.already_exist = Some(kvrpcpb::AlreadyExist { key });
        }
        KeyError::Deadlock { lock_ts, lock_key, deadlock_key_hash, wait_chain } => {
            // Over the last edge but one somebody waits for who asked.
            let closing = wait_chain.iter().rev().nth(1);
            out.deadlock = Some(kvrpcpb::Deadlock {
                lock_ts: lock_ts.0,
                lock_key,
                deadlock_key_hash,
                deadlock_key: closing.map(|wait| wait.key.clone()).unwrap_or_default(),
                wait_chain: wait_chain.iter().map(wait_to_proto).collect(),
            });
        }
        KeyError::CommitTsExpired { start_ts, attempted_commit_ts, key, min_commit_ts } => {
            out.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                start_ts: start_ts.0,
                attempted_commit_ts: attempted_commit_ts.0,
                key,
                min_commit_ts: min_commit_ts.0,
            });
        }
        KeyError::TxnNotFound { start_ts, primary } => {
            out.txn_not_found =
                Some(kvrpcpb::TxnNotFound { start_ts: start_ts.0, primary_key: primary });
        }
        KeyError::TxnLockNotFound { key, .. } => {
            out.retryable = text;
            out.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key });
        }
        KeyError::CommitTsTooLarge { min_commit_ts, .. } => {
            out.commit_ts_too_large =
                Some(kvrpcpb::CommitTsTooLarge { commit_ts: min_commit_ts.0 });
        }
        KeyError::AssertionFailed {
            start_ts,
            key,
            assertion,
            existing_start_ts,
            existing_commit_ts,
        } => {
            let assertion = match assertion {
                Assertion::None => kvrpcpb::Assertion::None,
                Assertion::Exist => kvrpcpb::Assertion::Exist,
                Assertion::NotExist => kvrpcpb::Assertion::NotExist,
            };
            out.assertion_failed = Some(kvrpcpb::AssertionFailed {
                start_ts: start_ts.0,
                key,
                assertion: assertion.into(),
                existing_start_ts: existing_start_ts.0,
                existing_commit_ts: existing_commit_ts.0,
            });
        }
        KeyError::PrimaryMismatch(lock) => {
            out.primary_mismatch =
                Some(kvrpcpb::PrimaryMismatch { lock_info: Some(Box::new(lock_to_proto(*lock))) });
        }
        KeyError::PessimisticLockNotFound { .. }
        | KeyError::PessimisticLockRolledBack { .. }
        | KeyError::Committed { .. }
        | KeyError::RolledBack { .. }
        | KeyError::BelowSafePoint { .. }
        | KeyError::InTheFuture { .. }
        | KeyError::InvalidRequest(_) => out.abort = text,
    }
    out
}

/// An edge on the wire.
pub(crate) fn wait_to_proto(edge: &WaitFor) -> deadlock::WaitForEntry {
    deadlock::WaitForEntry {
        txn: edge.start_ts.0,
        wait_for_txn: edge.wait_for_ts.0,
        key_hash: txn::deadlock::key_hash(&edge.key),
        key: edge.key.clone(),
        ..deadlock::WaitForEntry::default()
    }
}

/// Counterpart of [`wait_to_proto`].
pub(crate) fn wait(entry: deadlock::WaitForEntry) -> WaitFor {
    WaitFor {
        start_ts: TimeStamp(entry.txn),
        wait_for_ts: TimeStamp(entry.wait_for_txn),
        key: entry.key,
    }
}

/// A pair, or why it can't be read. The key of a lock stands in the lock.
pub(crate) fn pair(key: Bytes, found: Result<Bytes, KeyError>) -> kvrpcpb::KvPair {
    match found {
        Ok(value) => kvrpcpb::KvPair { key, value, ..kvrpcpb::KvPair::default() },
        Err(error) => kvrpcpb::KvPair {
            key,
            error: Some(Box::new(key_error(error))),
            ..kvrpcpb::KvPair::default()
        },
    }
}

/// The key that an error is about, for answers that have a place for it beside the error.
pub(crate) fn key_of(error: &KeyError) -> Bytes {
    match error {
        KeyError::Locked(lock) => lock.key.clone(),
        KeyError::WriteConflict { key, .. } => key.clone(),
        _ => Bytes::new(),
    }
}
