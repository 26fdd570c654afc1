//! One command of a transaction to one store: protobuf there and back.

use proto::{OneFrame, kvrpcpb as pb, tikvpb::tikv_client::TikvClient};
use tonic::{Status, transport::Channel};
use types::{Bytes, Code, RequestContext, TimeStamp};

use super::convert;
use crate::{
    Answer, Direction, Pair,
    request::{Reply as StoreReply, StoreError},
    txn::command::{
        Action, Answered, CheckStatus, Command, CommitMode, KeyError, Lock, LockKeys, Op, Prewrite,
        ReadAt, Reply,
    },
};

/// Sends `command` and turns the answer into one that calls understand.
pub(super) async fn exchange(
    store: &mut TikvClient<OneFrame<Channel>>,
    mut context: pb::Context,
    command: Command,
    at: &RequestContext,
) -> Result<StoreReply, Status> {
    let answered = match command {
        Command::Get { key, at: ReadAt { version, resolved } } => {
            context.resolved_locks = resolved.into_iter().map(|ts| ts.0).collect();
            let context = Some(context);
            let request = pb::GetRequest {
                context,
                key: key.clone(),
                version: version.0,
                ..pb::GetRequest::default()
            };
            let answer = store.kv_get(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).map(|errors| {
                let pair = (!answer.not_found).then(|| Pair { key, value: answer.value });
                whole(errors, Reply::Pairs(pair.into_iter().collect()))
            })
        }
        Command::BatchGet { keys, at: ReadAt { version, resolved } } => {
            context.resolved_locks = resolved.into_iter().map(|ts| ts.0).collect();
            let context = Some(context);
            let request = pb::BatchGetRequest {
                context,
                keys,
                version: version.0,
                ..pb::BatchGetRequest::default()
            };
            let answer = store.kv_batch_get(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).and_then(|errors| match errors[..] {
                [] => pairs(answer.pairs),
                // The pairs only say so once more.
                _ => Ok(Answered::refused(errors)),
            })
        }
        Command::Scan { range, limit, keys_only, direction, at: ReadAt { version, resolved } } => {
            context.resolved_locks = resolved.into_iter().map(|ts| ts.0).collect();
            // In reverse the wire's "start" is the upper bound.
            let (start_key, end_key, reverse) = match direction {
                Direction::Forward => (range.start, range.end, false),
                Direction::Reverse => (range.end, range.start, true),
            };
            let request = pb::ScanRequest {
                context: Some(context),
                start_key,
                end_key,
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
                version: version.0,
                key_only: keys_only,
                reverse,
                ..pb::ScanRequest::default()
            };
            let answer = store.kv_scan(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).and_then(|errors| match errors[..] {
                [] => pairs_before_lock(answer.pairs),
                _ => Ok(Answered::refused(errors)),
            })
        }
        Command::Prewrite(prewrite) => {
            let answer =
                store.kv_prewrite(prewrite_to_proto(prewrite, context)).await?.into_inner();
            region(answer.region_error, at).and_then(|()| {
                let reply = Reply::Prewritten {
                    min_commit_ts: TimeStamp(answer.min_commit_ts),
                    one_phase_ts: TimeStamp(answer.one_pc_commit_ts),
                };
                Ok(whole(key_errors(answer.errors)?, reply))
            })
        }
        Command::Commit { keys, start_ts, commit_ts, .. } => {
            let request = pb::CommitRequest {
                context: Some(context),
                start_version: start_ts.0,
                keys,
                commit_version: commit_ts.0,
                ..pb::CommitRequest::default()
            };
            let answer = store.kv_commit(request).await?.into_inner();
            refused(answer.region_error, answer.error, at)
                .map(|errors| whole(errors, Reply::Committed(TimeStamp(answer.commit_version))))
        }
        Command::Rollback { keys, start_ts } => {
            let request = pb::BatchRollbackRequest {
                context: Some(context),
                start_version: start_ts.0,
                keys,
                ..pb::BatchRollbackRequest::default()
            };
            let answer = store.kv_batch_rollback(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).map(|errors| whole(errors, Reply::Done))
        }
        Command::Lock(lock) => {
            let (keys, wants_values) = (lock.keys.clone(), lock.wants_values);
            let request = lock_to_proto(lock, context);
            let answer = store.kv_pessimistic_lock(request).await?.into_inner();
            region(answer.region_error, at).and_then(|()| {
                let errors = key_errors(answer.errors)?;
                if !errors.is_empty() || !wants_values {
                    return Ok(whole(errors, Reply::Pairs(Vec::new())));
                }
                if answer.values.len() != keys.len() || answer.not_founds.len() != keys.len() {
                    let found = answer.values.len();
                    return Err(StoreError::Nonsense(format!(
                        "{found} values of {} keys",
                        keys.len()
                    )));
                }
                let pairs =
                    keys.into_iter().zip(answer.values).map(|(key, value)| Pair { key, value });
                let found = pairs.zip(answer.not_founds).filter(|(_, not_found)| !not_found);
                Ok(Answered::ok(Reply::Pairs(found.map(|(pair, _)| pair).collect())))
            })
        }
        Command::Unlock { keys, start_ts, for_update_ts } => {
            let request = pb::PessimisticRollbackRequest {
                context: Some(context),
                start_version: start_ts.0,
                for_update_ts: for_update_ts.0,
                keys,
            };
            let answer = store.kv_pessimistic_rollback(request).await?.into_inner();
            region(answer.region_error, at)
                .and_then(|()| Ok(whole(key_errors(answer.errors)?, Reply::Done)))
        }
        Command::CheckStatus(check) => {
            let answer =
                store.kv_check_txn_status(check_to_proto(check, context)).await?.into_inner();
            let action = match answer.action() {
                pb::Action::MinCommitTsPushed => Action::Pushed,
                pb::Action::TtlExpirePessimisticRollback | pb::Action::LockNotExistDoNothing => {
                    Action::Undecided
                }
                _ => Action::None,
            };
            refused(answer.region_error, answer.error, at).map(|errors| {
                let reply = Reply::Status {
                    ttl_ms: answer.lock_ttl,
                    commit_ts: TimeStamp(answer.commit_version),
                    action,
                    lock: answer.lock_info.map(|info| Box::new(lock(*info))),
                };
                whole(errors, reply)
            })
        }
        Command::CheckSecondaries { keys, start_ts } => {
            let context = Some(context);
            let request =
                pb::CheckSecondaryLocksRequest { context, keys, start_version: start_ts.0 };
            let answer = store.kv_check_secondary_locks(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).map(|errors| {
                let reply = Reply::Secondaries {
                    locks: answer.locks.into_iter().map(lock).collect(),
                    commit_ts: TimeStamp(answer.commit_ts),
                };
                whole(errors, reply)
            })
        }
        Command::Resolve { keys, start_ts, commit_ts } => {
            let request = pb::ResolveLockRequest {
                context: Some(context),
                start_version: start_ts.0,
                commit_version: commit_ts.0,
                keys,
                ..pb::ResolveLockRequest::default()
            };
            let answer = store.kv_resolve_lock(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).map(|errors| whole(errors, Reply::Done))
        }
        Command::HeartBeat { primary, start_ts, ttl_ms } => {
            let request = pb::TxnHeartBeatRequest {
                context: Some(context),
                primary_lock: primary,
                start_version: start_ts.0,
                advise_lock_ttl: ttl_ms,
                ..pb::TxnHeartBeatRequest::default()
            };
            let answer = store.kv_txn_heart_beat(request).await?.into_inner();
            refused(answer.region_error, answer.error, at).map(|errors| whole(errors, Reply::Done))
        }
    };
    Ok(answered.map(|answered| Answer::Txn(Box::new(answered))))
}

fn prewrite_to_proto(prewrite: Prewrite, mut context: pb::Context) -> pb::PrewriteRequest {
    use pb::prewrite_request::PessimisticAction;
    context.is_retry_request = prewrite.is_retry;
    let action = |is_locked| match is_locked {
        true => PessimisticAction::DoPessimisticCheck,
        false => PessimisticAction::SkipPessimisticCheck,
    };
    let is_pessimistic = prewrite.for_update_ts != TimeStamp::ZERO;
    let pessimistic_actions = match is_pessimistic {
        true => prewrite.mutations.iter().map(|one| action(one.is_locked).into()).collect(),
        false => Vec::new(),
    };
    let mutations = prewrite.mutations.into_iter().map(|mutation| pb::Mutation {
        op: match mutation.op {
            Op::Put => pb::Op::Put,
            Op::Delete => pb::Op::Del,
            Op::Insert => pb::Op::Insert,
            Op::Lock => pb::Op::Lock,
            Op::CheckNotExists => pb::Op::CheckNotExists,
        }
        .into(),
        key: mutation.key,
        value: mutation.value,
        ..pb::Mutation::default()
    });
    pb::PrewriteRequest {
        context: Some(context),
        mutations: mutations.collect(),
        primary_lock: prewrite.primary,
        start_version: prewrite.start_ts.0,
        lock_ttl: prewrite.ttl_ms,
        pessimistic_actions,
        txn_size: prewrite.size,
        for_update_ts: prewrite.for_update_ts.0,
        min_commit_ts: prewrite.min_commit_ts.0,
        use_async_commit: prewrite.mode != CommitMode::TwoPhase,
        secondaries: prewrite.secondaries,
        try_one_pc: prewrite.mode == CommitMode::OnePhase,
        ..pb::PrewriteRequest::default()
    }
}

fn lock_to_proto(lock: LockKeys, context: pb::Context) -> pb::PessimisticLockRequest {
    let assertion = match lock.must_not_exist {
        true => pb::Assertion::NotExist,
        false => pb::Assertion::None,
    };
    let mutations = lock.keys.into_iter().map(|key| pb::Mutation {
        op: pb::Op::PessimisticLock.into(),
        key,
        assertion: assertion.into(),
        ..pb::Mutation::default()
    });
    pb::PessimisticLockRequest {
        context: Some(context),
        mutations: mutations.collect(),
        primary_lock: lock.primary,
        start_version: lock.start_ts.0,
        lock_ttl: lock.ttl_ms,
        for_update_ts: lock.for_update_ts.0,
        is_first_lock: lock.is_first,
        wait_timeout: i64::try_from(lock.wait_ms).unwrap_or(i64::MAX),
        return_values: lock.wants_values,
        min_commit_ts: lock.for_update_ts.0 + 1,
        ..pb::PessimisticLockRequest::default()
    }
}

fn check_to_proto(check: CheckStatus, context: pb::Context) -> pb::CheckTxnStatusRequest {
    pb::CheckTxnStatusRequest {
        context: Some(context),
        primary_key: check.primary,
        lock_ts: check.lock_ts.0,
        caller_start_ts: check.caller_ts.0,
        current_ts: check.current_ts.0,
        rollback_if_not_exist: check.rollback_if_unknown,
        force_sync_commit: check.force_two_phases,
        resolving_pessimistic_lock: check.met_pessimistic,
        verify_is_primary: true,
        ..pb::CheckTxnStatusRequest::default()
    }
}

/// All of it, or none.
fn whole(errors: Vec<KeyError>, reply: Reply) -> Answered {
    match errors.is_empty() {
        true => Answered::ok(reply),
        false => Answered::refused(errors),
    }
}

fn region(
    error: Option<Box<proto::errorpb::Error>>,
    context: &RequestContext,
) -> Result<(), StoreError> {
    error.map_or(Ok(()), |error| Err(convert::region_error(*error, context)))
}

/// Why a whole request was refused because of the state of a key, if it was.
fn refused(
    region_error: Option<Box<proto::errorpb::Error>>,
    error: Option<Box<pb::KeyError>>,
    context: &RequestContext,
) -> Result<Vec<KeyError>, StoreError> {
    region(region_error, context)?;
    key_errors(error.into_iter().map(|error| *error).collect())
}

fn key_errors(errors: Vec<pb::KeyError>) -> Result<Vec<KeyError>, StoreError> {
    errors.into_iter().map(key_error).collect()
}

/// Why the state of a key is against a request; as an error what has nothing to do with a key.
fn key_error(error: pb::KeyError) -> Result<KeyError, StoreError> {
    Ok(if let Some(locked) = error.locked {
        KeyError::Locked(Box::new(lock(*locked)))
    } else if let Some(conflict) = error.conflict {
        use pb::write_conflict::Reason;
        let commit_ts = match conflict.reason() {
            Reason::SelfRolledBack => TimeStamp::ZERO,
            _ => TimeStamp(conflict.conflict_commit_ts),
        };
        KeyError::Conflict { key: conflict.key, commit_ts }
    } else if let Some(exists) = error.already_exist {
        KeyError::Exists { key: exists.key }
    } else if let Some(deadlock) = error.deadlock {
        KeyError::Deadlock { key: deadlock.lock_key, lock_ts: TimeStamp(deadlock.lock_ts) }
    } else if let Some(expired) = error.commit_ts_expired {
        KeyError::CommitTooEarly { min_commit_ts: TimeStamp(expired.min_commit_ts) }
    } else if error.txn_not_found.is_some() {
        KeyError::Unknown
    } else if let Some(missing) = error.txn_lock_not_found {
        KeyError::LockNotFound { key: missing.key }
    } else if error.primary_mismatch.is_some() {
        KeyError::NotPrimary
    } else if !error.abort.is_empty() {
        // What our own servers refuse for another reason than a key has a code.
        match convert::coded(&error.abort) {
            (Some(code), message) => return Err(StoreError::Refused { code, message }),
            (None, message) => KeyError::Aborted(message),
        }
    } else if !error.retryable.is_empty() {
        return Err(StoreError::NotNow(error.retryable));
    } else {
        let message = format!("{error:?}");
        return Err(StoreError::Refused { code: Code::InvalidRequest, message });
    })
}

fn lock(info: pb::LockInfo) -> Lock {
    Lock {
        is_pessimistic: info.lock_type() == pb::Op::PessimisticLock,
        key: info.key,
        primary: info.primary_lock,
        start_ts: TimeStamp(info.lock_version),
        ttl_ms: info.lock_ttl,
        for_update_ts: TimeStamp(info.lock_for_update_ts),
        min_commit_ts: TimeStamp(info.min_commit_ts),
        is_async: info.use_async_commit,
        secondaries: info.secondaries,
    }
}

/// Pairs, and locks beside their keys.
fn pairs(pairs: Vec<pb::KvPair>) -> Result<Answered, StoreError> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for pair in pairs {
        match pair.error {
            None => found.push(Pair { key: pair.key, value: pair.value }),
            Some(error) => errors.push(with_key(key_error(*error)?, pair.key)),
        }
    }
    Ok(Answered { errors, ..Answered::ok(Reply::Pairs(found)) })
}

/// The pairs before the first lock, and all locks: the scan goes on at the first.
fn pairs_before_lock(all: Vec<pb::KvPair>) -> Result<Answered, StoreError> {
    let before = all.iter().take_while(|pair| pair.error.is_none()).count();
    let mut answered = pairs(all)?;
    if let Reply::Pairs(found) = &mut answered.reply {
        found.truncate(before);
    }
    Ok(answered)
}

/// Some stores name the key of a lock only beside it.
fn with_key(mut error: KeyError, key: Bytes) -> KeyError {
    if let KeyError::Locked(lock) = &mut error
        && lock.key.is_empty()
    {
        lock.key = key;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(key: &'static str) -> pb::KvPair {
        let info = pb::LockInfo { key: key.into(), lock_version: 5, ..pb::LockInfo::default() };
        let error = pb::KeyError { locked: Some(Box::new(info)), ..pb::KeyError::default() };
        pb::KvPair { error: Some(Box::new(error)), ..pb::KvPair::default() }
    }

    fn pair(key: &'static str) -> pb::KvPair {
        pb::KvPair { key: key.into(), value: "v".into(), ..pb::KvPair::default() }
    }

    #[test]
    fn a_scan_ends_before_its_first_lock_and_a_batch_leaves_locked_keys_out() {
        let all = || vec![pair("a"), locked("b"), pair("c"), locked("d")];
        let keys = |answered: &Answered| match &answered.reply {
            Reply::Pairs(pairs) => pairs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let scan = pairs_before_lock(all()).unwrap();
        assert_eq!((keys(&scan), scan.errors.len()), (vec!["a".into()], 2));
        let batch = pairs(all()).unwrap();
        assert_eq!((keys(&batch), batch.errors.len()), (vec!["a".into(), "c".into()], 2));
    }

    #[test]
    fn what_is_no_error_of_a_key_is_an_error_of_the_request() {
        let abort = |text: &str| pb::KeyError { abort: text.into(), ..pb::KeyError::default() };
        assert_eq!(
            key_error(abort("this cluster holds raw data [TK4101]; try: another")),
            Err(StoreError::Refused {
                code: Code::KeyModeConflict,
                message: "this cluster holds raw data".into()
            })
        );
        assert_eq!(key_error(abort("it is over")), Ok(KeyError::Aborted("it is over".into())));
        let missing = pb::KeyError {
            retryable: "no lock".into(),
            txn_lock_not_found: Some(pb::TxnLockNotFound { key: "k".into() }),
            ..pb::KeyError::default()
        };
        assert_eq!(key_error(missing), Ok(KeyError::LockNotFound { key: "k".into() }));
        let rolled_back = pb::WriteConflict {
            conflict_commit_ts: 7,
            reason: pb::write_conflict::Reason::SelfRolledBack.into(),
            ..pb::WriteConflict::default()
        };
        assert_eq!(
            key_error(pb::KeyError { conflict: Some(rolled_back), ..pb::KeyError::default() }),
            Ok(KeyError::Conflict { key: Bytes::new(), commit_ts: TimeStamp::ZERO })
        );
    }
}
