//! The plan of a command: how it is cut into commands for single regions, and how their answers become one.
//!
//! As `raw.rs` for raw requests, which calls this. Keys are sorted, so that what a region holds is a run of them.
//! Here user keys become request keys and back: everything above has user keys.

use types::{Bytes, KeyRange, TimeStamp, limits};

use super::command::{Answered, Command, KeyError, Lock, Prewrite, Reply};
use crate::{
    KeyLayout, Result,
    raw::{self, Anchor},
    request::{Direction, Pair},
};

/// Checks a command and turns it into commands with request keys, each small enough to be sent.
pub(crate) fn prepare(command: Command, layout: KeyLayout) -> Result<Vec<Command>> {
    let wrap = |key: Bytes| -> Result<Bytes> {
        raw::check_key(&key)?;
        Ok(layout.request_key(key))
    };
    let wrap_all = |keys: Vec<Bytes>| keys.into_iter().map(wrap).collect::<Result<Vec<Bytes>>>();
    Ok(match command {
        Command::Get { key, at } => vec![Command::Get { key: wrap(key)?, at }],
        Command::Scan { range, limit, .. } if range.is_empty() || limit == 0 => Vec::new(),
        Command::Scan { range, limit, keys_only, direction, at } => {
            let range = layout.request_range(range);
            vec![Command::Scan { range, limit, keys_only, direction, at }]
        }
        Command::Prewrite(mut prewrite) => {
            prewrite.primary = wrap(prewrite.primary)?;
            prewrite.secondaries = wrap_all(prewrite.secondaries)?;
            let mut mutations = std::mem::take(&mut prewrite.mutations);
            for mutation in &mut mutations {
                raw::check_value(&mutation.value)?;
                mutation.key = wrap(std::mem::take(&mut mutation.key))?;
            }
            let runs: Vec<_> =
                raw::chunks(mutations, |mutation| mutation.key.len() + mutation.value.len())
                    .collect();
            if 1 < runs.len() {
                prewrite.mode = prewrite.mode.min(super::CommitMode::Async);
            }
            runs.into_iter()
                .map(|mutations| Command::Prewrite(Prewrite { mutations, ..prewrite.clone() }))
                .collect()
        }
        Command::CheckStatus(mut check) => {
            check.primary = wrap(check.primary)?;
            vec![Command::CheckStatus(check)]
        }
        Command::HeartBeat { primary, start_ts, ttl_ms } => {
            vec![Command::HeartBeat { primary: wrap(primary)?, start_ts, ttl_ms }]
        }
        mut of_keys => {
            if let Command::Lock(lock) = &mut of_keys {
                lock.primary = wrap(std::mem::take(&mut lock.primary))?;
            }
            let keys = wrap_all(keys_of(&mut of_keys).map(std::mem::take).unwrap_or_default())?;
            raw::chunks(keys, Bytes::len).map(|keys| with_keys(&of_keys, keys)).collect()
        }
    })
}

/// The keys of a command that has keys and nothing that belongs to each of them.
fn keys_of(command: &mut Command) -> Option<&mut Vec<Bytes>> {
    match command {
        Command::BatchGet { keys, .. }
        | Command::Commit { keys, .. }
        | Command::Rollback { keys, .. }
        | Command::Unlock { keys, .. }
        | Command::CheckSecondaries { keys, .. }
        | Command::Resolve { keys, .. } => Some(keys),
        Command::Lock(lock) => Some(&mut lock.keys),
        Command::Get { .. }
        | Command::Scan { .. }
        | Command::Prewrite(_)
        | Command::CheckStatus(_)
        | Command::HeartBeat { .. } => None,
    }
}

fn with_keys(command: &Command, keys: Vec<Bytes>) -> Command {
    let mut command = command.clone();
    if let Some(slot) = keys_of(&mut command) {
        *slot = keys;
    }
    command
}

/// By which key to look for the region.
pub(crate) fn anchor(command: &Command) -> Anchor {
    let first = |keys: &Vec<Bytes>| Anchor::At(keys.first().cloned().unwrap_or_default());
    match command {
        Command::Get { key, .. } => Anchor::At(key.clone()),
        Command::Scan { range, direction: Direction::Reverse, .. } => {
            Anchor::Before(range.end.clone())
        }
        Command::Scan { range, .. } => Anchor::At(range.start.clone()),
        Command::Prewrite(prewrite) => {
            let first = prewrite.mutations.first();
            Anchor::At(first.map(|mutation| mutation.key.clone()).unwrap_or_default())
        }
        Command::CheckStatus(check) => Anchor::At(check.primary.clone()),
        Command::HeartBeat { primary, .. } => Anchor::At(primary.clone()),
        Command::BatchGet { keys, .. }
        | Command::Commit { keys, .. }
        | Command::Rollback { keys, .. }
        | Command::Unlock { keys, .. }
        | Command::CheckSecondaries { keys, .. }
        | Command::Resolve { keys, .. } => first(keys),
        Command::Lock(lock) => first(&lock.keys),
    }
}

/// Narrows a command to a region that contains its anchor, and a scan to `page` pairs. Returns what to send there and
/// the rest, which belongs elsewhere.
pub(crate) fn fit(
    command: &Command,
    region: &KeyRange,
    page: usize,
    layout: KeyLayout,
) -> Result<(Command, Option<Command>)> {
    let here = |key: &Bytes| region.contains(&layout.region_key(key));
    let mut part = command.clone();
    let rest = match &mut part {
        Command::Scan { range, limit, .. } => {
            *limit = (*limit).min(page);
            *range = raw::clamp(range, region, layout)?;
            None
        }
        Command::Prewrite(prewrite) => {
            let rest = raw::split(&mut prewrite.mutations, |mutation| here(&mutation.key));
            if rest.is_some() {
                // Two regions can't commit in one phase. If an earlier sending did, they say so.
                prewrite.mode = prewrite.mode.min(super::CommitMode::Async);
            }
            rest.map(|mutations| Command::Prewrite(Prewrite { mutations, ..prewrite.clone() }))
        }
        of_keys => keys_of(of_keys)
            .and_then(|keys| raw::split(keys, here))
            .map(|keys| with_keys(of_keys, keys)),
    };
    Ok((part, rest))
}

/// Marks a command that a store may have seen before.
pub(crate) fn mark_retry(command: &mut Command) {
    if let Command::Prewrite(prewrite) = command {
        prewrite.is_retry = true;
    }
}

/// Takes in the answer to `sent`, which was made from `command`. Returns what is left of a walk.
///
/// # Errors
/// The answer makes no sense, with the reason.
pub(crate) fn absorb(
    merged: &mut Option<Answered>,
    command: &Command,
    sent: &Command,
    answered: Answered,
    layout: KeyLayout,
) -> Result<Option<Command>, String> {
    let errors = answered.errors;
    let (mut left, mut next) = (None, None);
    let reply = match (sent, answered.reply) {
        (_, Reply::Refused) => {
            if errors.is_empty() {
                return Err("a refusal without a reason".to_owned());
            }
            // Of a walk, also what lies behind this region.
            left = Some(match sent {
                Command::Scan { .. } => command.clone(),
                _ => sent.clone(),
            });
            Reply::Refused
        }
        (Command::Get { .. }, Reply::Pairs(pairs)) if errors.is_empty() => {
            Reply::Pairs(user_pairs(pairs, layout)?)
        }
        (Command::BatchGet { .. }, Reply::Pairs(pairs)) => {
            let keys: Vec<Bytes> = errors.iter().filter_map(key_of).collect();
            if !errors.is_empty() {
                left = Some(with_keys(sent, keys));
            }
            Reply::Pairs(user_pairs(pairs, layout)?)
        }
        (Command::Scan { range, limit, .. }, Reply::Pairs(pairs)) => {
            let mut rest = command.clone();
            if let Command::Scan { range: all, limit: wanted, direction, .. } = &mut rest {
                let locked = errors.iter().find_map(key_of);
                let goes_on = match &locked {
                    // What lies before the first lock was read; go on at the lock.
                    Some(locked) => {
                        raw::check_page(range, *limit, *direction, &pairs)?;
                        *wanted -= pairs.len();
                        match direction {
                            Direction::Forward => all.start = locked.clone(),
                            Direction::Reverse => all.end = [&locked[..], &[0]].concat().into(),
                        }
                        true
                    }
                    None => raw::after_page((all, wanted, *direction), range, *limit, &pairs)?,
                };
                match locked {
                    Some(_) => left = goes_on.then_some(rest),
                    None => next = goes_on.then_some(rest),
                }
            }
            Reply::Pairs(user_pairs(pairs, layout)?)
        }
        (Command::Lock(_), Reply::Pairs(pairs)) => Reply::Pairs(user_pairs(pairs, layout)?),
        (Command::Prewrite(_), reply @ Reply::Prewritten { .. })
        | (Command::Commit { .. }, reply @ Reply::Committed(_))
        | (
            Command::Rollback { .. }
            | Command::Unlock { .. }
            | Command::Resolve { .. }
            | Command::HeartBeat { .. },
            reply @ Reply::Done,
        ) => reply,
        (Command::CheckStatus(_), Reply::Status { ttl_ms, commit_ts, action, lock }) => {
            let lock = lock.map(|lock| user_lock(*lock, layout)).transpose()?.map(Box::new);
            Reply::Status { ttl_ms, commit_ts, action, lock }
        }
        (Command::CheckSecondaries { .. }, Reply::Secondaries { locks, commit_ts }) => {
            let locks = locks
                .into_iter()
                .map(|lock| user_lock(lock, layout))
                .collect::<Result<Vec<Lock>, String>>()?;
            Reply::Secondaries { locks, commit_ts }
        }
        (sent, _) => return Err(format!("not an answer to {}", sent.name())),
    };
    let errors =
        errors.into_iter().map(|error| user_error(error, layout)).collect::<Result<Vec<_>, _>>()?;
    let left = left.map(|left| user_command(left, layout)).transpose()?.map(Box::new);
    let answered = Answered { reply, errors, left };
    *merged = Some(match merged.take() {
        None => answered,
        Some(before) => join(before, answered),
    });
    Ok(next)
}

/// Two answers about disjoint keys.
fn join(a: Answered, b: Answered) -> Answered {
    let reply = match (a.reply, b.reply) {
        (Reply::Refused, reply) | (reply, Reply::Refused) => reply,
        (Reply::Pairs(mut a), Reply::Pairs(b)) => {
            a.extend(b);
            Reply::Pairs(a)
        }
        (
            Reply::Prewritten { min_commit_ts: a, one_phase_ts },
            Reply::Prewritten { min_commit_ts: b, one_phase_ts: other },
        ) => Reply::Prewritten {
            // One that falls back takes the others with it.
            min_commit_ts: if a.min(b) == TimeStamp::ZERO { TimeStamp::ZERO } else { a.max(b) },
            one_phase_ts: one_phase_ts.max(other),
        },
        (Reply::Committed(a), Reply::Committed(b)) => Reply::Committed(a.max(b)),
        (
            Reply::Secondaries { mut locks, commit_ts: a },
            Reply::Secondaries { locks: other, commit_ts: b },
        ) => {
            locks.extend(other);
            Reply::Secondaries { locks, commit_ts: a.max(b) }
        }
        (a, _) => a,
    };
    let mut errors = a.errors;
    errors.extend(b.errors);
    let left = match (a.left, b.left) {
        (Some(mut a), Some(b)) => {
            extend(&mut a, *b);
            Some(a)
        }
        (a, b) => a.or(b),
    };
    Answered { reply, errors, left }
}

/// Puts two parts of a command together again.
fn extend(a: &mut Command, mut b: Command) {
    if let (Command::Prewrite(a), Command::Prewrite(b)) = (&mut *a, &mut b) {
        a.mutations.append(&mut b.mutations);
        a.mutations.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        a.mode = a.mode.min(b.mode);
        a.is_retry |= b.is_retry;
    } else if let (Some(a), Some(b)) = (keys_of(a), keys_of(&mut b)) {
        a.append(b);
        a.sort_unstable();
    }
}

/// The command as it was before [`prepare`].
fn user_command(mut command: Command, layout: KeyLayout) -> Result<Command, String> {
    let unwrap = |key: &mut Bytes| {
        *key = raw::user_key(key, layout)?;
        Ok::<(), String>(())
    };
    match &mut command {
        Command::Get { key, .. } | Command::HeartBeat { primary: key, .. } => unwrap(key)?,
        Command::CheckStatus(check) => unwrap(&mut check.primary)?,
        Command::Scan { range, .. } => {
            unwrap(&mut range.start)?;
            // The end of a keyspace is no key of it.
            range.end = layout.user_key(&range.end).unwrap_or_default();
        }
        Command::Prewrite(prewrite) => {
            unwrap(&mut prewrite.primary)?;
            prewrite.secondaries.iter_mut().try_for_each(unwrap)?;
            prewrite.mutations.iter_mut().try_for_each(|mutation| unwrap(&mut mutation.key))?;
        }
        Command::Lock(lock) => {
            unwrap(&mut lock.primary)?;
            lock.keys.iter_mut().try_for_each(unwrap)?;
        }
        other => {
            if let Some(keys) = keys_of(other) {
                keys.iter_mut().try_for_each(unwrap)?;
            }
        }
    }
    Ok(command)
}

fn user_pairs(pairs: Vec<Pair>, layout: KeyLayout) -> Result<Vec<Pair>, String> {
    pairs
        .into_iter()
        .map(|pair| Ok(Pair { key: raw::user_key(&pair.key, layout)?, value: pair.value }))
        .collect()
}

fn user_lock(lock: Lock, layout: KeyLayout) -> Result<Lock, String> {
    Ok(Lock {
        key: raw::user_key(&lock.key, layout)?,
        primary: raw::user_key(&lock.primary, layout)?,
        secondaries: lock
            .secondaries
            .iter()
            .map(|key| raw::user_key(key, layout))
            .collect::<Result<_, _>>()?,
        ..lock
    })
}

/// Keys in errors are for people, unless they are those of locks.
fn user_error(mut error: KeyError, layout: KeyLayout) -> Result<KeyError, String> {
    match &mut error {
        KeyError::Locked(lock) => **lock = user_lock(std::mem::take(lock), layout)?,
        KeyError::Conflict { key, .. }
        | KeyError::Exists { key }
        | KeyError::Deadlock { key, .. }
        | KeyError::LockNotFound { key } => {
            if let Some(user) = layout.user_key(key) {
                *key = user;
            }
        }
        KeyError::CommitTooEarly { .. }
        | KeyError::Unknown
        | KeyError::NotPrimary
        | KeyError::Aborted(_) => {}
    }
    Ok(error)
}

/// The key that an error about one key names.
fn key_of(error: &KeyError) -> Option<Bytes> {
    match error {
        KeyError::Locked(lock) => Some(lock.key.clone()),
        KeyError::Conflict { key, .. } => Some(key.clone()),
        _ => None,
    }
}

/// Whether the list of secondaries may be as long as this transaction's.
pub(crate) fn may_be_async(keys: &[Bytes]) -> bool {
    keys.len() <= limits::CLIENT_ASYNC_COMMIT_KEYS_MAX
        && keys.iter().map(Bytes::len).sum::<usize>() <= limits::CLIENT_ASYNC_COMMIT_BYTES_MAX
}

/// What a command is about, for errors.
pub(crate) enum About<'a> {
    Key(&'a Bytes),
    Keys(usize),
    Range(&'a KeyRange),
}

/// What a command is about.
pub(crate) fn about(command: &Command) -> About<'_> {
    match command {
        Command::Get { key, .. } | Command::HeartBeat { primary: key, .. } => About::Key(key),
        Command::CheckStatus(check) => About::Key(&check.primary),
        Command::Scan { range, .. } => About::Range(range),
        Command::Prewrite(prewrite) => About::Keys(prewrite.mutations.len()),
        Command::Lock(lock) => About::Keys(lock.keys.len()),
        Command::BatchGet { keys, .. }
        | Command::Commit { keys, .. }
        | Command::Rollback { keys, .. }
        | Command::Unlock { keys, .. }
        | Command::CheckSecondaries { keys, .. }
        | Command::Resolve { keys, .. } => match &keys[..] {
            [key] => About::Key(key),
            keys => About::Keys(keys.len()),
        },
    }
}

/// Makes a read smaller whose answer is larger than a store is willing to give. `None`: it cannot be cut.
pub(crate) fn halve(command: &mut Command) -> Option<Command> {
    match command {
        Command::BatchGet { keys, at } if keys.len() > 1 => {
            Some(Command::BatchGet { keys: keys.split_off(keys.len() / 2), at: at.clone() })
        }
        _ => None,
    }
}
