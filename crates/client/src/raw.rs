//! The plan of an operation: how it is cut into requests for single regions, and how their answers become one result.
//!
//! Point operations are one request. Batches are sorted and cut at region bounds; their parts travel side by side.
//! Ranges (scan, delete, checksum) walk from region to region, because where the next request starts is only known
//! from the last answer. Commands of transactions have the same kinds of plan, in `txn/plan.rs`; they pass through here.
//!
//! Invariant of a walk: each answer moves it strictly forward, or ends it. Answers that would not (keys out of range
//! or out of order) are nonsense, so a broken store cannot keep a client busy for ever.
//!
//! Pure functions; who is asked and when is the business of `call.rs`.

use std::collections::{BTreeMap, HashMap};

use types::{Bytes, Code, KeyRange, key, limits};

use crate::{
    Error, KeyLayout, Result,
    request::{Answer, Checksum, Direction, Pair, Request},
    txn::{
        command::{Answered, Reply},
        plan,
    },
};

/// The key by which the region of a request is found. Request keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The region that contains it.
    At(Bytes),
    /// The region with the greatest keys before it; empty is behind every key.
    Before(Bytes),
}

/// Checks a user's request and turns it into requests with request keys, each small enough to be sent. Nothing is cut
/// at region bounds yet.
pub(crate) fn prepare(request: Request, layout: KeyLayout) -> Result<Vec<Request>> {
    let wrap = |user: Bytes| -> Result<Bytes> {
        check_key(&user)?;
        Ok(layout.request_key(user))
    };
    Ok(match request {
        Request::Get { cf, key } => vec![Request::Get { cf, key: wrap(key)? }],
        Request::Ttl { cf, key } => vec![Request::Ttl { cf, key: wrap(key)? }],
        Request::Delete { cf, key } => vec![Request::Delete { cf, key: wrap(key)? }],
        Request::Put { cf, key, value, ttl_secs } => {
            check_value(&value)?;
            vec![Request::Put { cf, key: wrap(key)?, value, ttl_secs }]
        }
        Request::CompareAndSwap { cf, key, expected, new, ttl_secs } => {
            expected.iter().chain(&new).try_for_each(check_value)?;
            vec![Request::CompareAndSwap { cf, key: wrap(key)?, expected, new, ttl_secs }]
        }
        Request::BatchGet { cf, keys } => chunks(sorted_keys(keys, wrap)?, Bytes::len)
            .map(|keys| Request::BatchGet { cf, keys })
            .collect(),
        Request::BatchDelete { cf, keys } => chunks(sorted_keys(keys, wrap)?, Bytes::len)
            .map(|keys| Request::BatchDelete { cf, keys })
            .collect(),
        Request::BatchPut { cf, pairs, ttl_secs } => {
            let mut last = BTreeMap::new();
            for Pair { key, value } in pairs {
                check_value(&value)?;
                last.insert(wrap(key)?, value); // the last value of a key counts
            }
            let pairs = last.into_iter().map(|(key, value)| Pair { key, value }).collect();
            chunks(pairs, |pair| pair.key.len() + pair.value.len())
                .map(|pairs| Request::BatchPut { cf, pairs, ttl_secs })
                .collect()
        }
        Request::Scan { range, limit, .. } if range.is_empty() || limit == 0 => Vec::new(),
        Request::DeleteRange { range, .. } | Request::Checksum { range } if range.is_empty() => {
            Vec::new()
        }
        Request::Scan { cf, range, limit, keys_only, direction } => {
            vec![Request::Scan {
                cf,
                range: layout.request_range(range),
                limit,
                keys_only,
                direction,
            }]
        }
        Request::DeleteRange { cf, range } => {
            vec![Request::DeleteRange { cf, range: layout.request_range(range) }]
        }
        Request::Checksum { range } => {
            vec![Request::Checksum { range: layout.request_range(range) }]
        }
        Request::Txn(command) => {
            plan::prepare(command, layout)?.into_iter().map(Request::Txn).collect()
        }
    })
}

pub(crate) fn check_key(key: &Bytes) -> Result<()> {
    if key.len() > limits::KEY_BYTES_MAX {
        let message =
            format!("a key has {} bytes, at most {} are allowed", key.len(), limits::KEY_BYTES_MAX);
        return Err(Error::refused(Code::KeyTooLarge, message));
    }
    Ok(())
}

pub(crate) fn check_value(value: &Bytes) -> Result<()> {
    if value.len() > limits::VALUE_BYTES_MAX {
        let message = format!(
            "a value has {} bytes, at most {} are allowed",
            value.len(),
            limits::VALUE_BYTES_MAX
        );
        return Err(Error::refused(Code::ValueTooLarge, message));
    }
    Ok(())
}

fn sorted_keys(keys: Vec<Bytes>, wrap: impl Fn(Bytes) -> Result<Bytes>) -> Result<Vec<Bytes>> {
    let mut keys = keys.into_iter().map(wrap).collect::<Result<Vec<_>>>()?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Cuts `items` into runs within the limits of one request. An item that exceeds them alone is a run of its own.
pub(crate) fn chunks<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut chunk = vec![items.next()?];
        let mut bytes = size(&chunk[0]);
        while chunk.len() < limits::CLIENT_BATCH_KEYS_MAX {
            let fits = |next: &T| bytes + size(next) <= limits::CLIENT_BATCH_BYTES_MAX;
            let Some(next) = items.next_if(fits) else { break };
            bytes += size(&next);
            chunk.push(next);
        }
        Some(chunk)
    })
}

/// By which key to look for the region of `request`.
pub(crate) fn anchor(request: &Request) -> Anchor {
    let first = |key: Option<&Bytes>| Anchor::At(key.cloned().unwrap_or_default());
    match request {
        Request::Get { key, .. }
        | Request::Put { key, .. }
        | Request::Delete { key, .. }
        | Request::CompareAndSwap { key, .. }
        | Request::Ttl { key, .. } => Anchor::At(key.clone()),
        Request::BatchGet { keys, .. } | Request::BatchDelete { keys, .. } => first(keys.first()),
        Request::BatchPut { pairs, .. } => first(pairs.first().map(|pair| &pair.key)),
        Request::Scan { range, direction: Direction::Reverse, .. } => {
            Anchor::Before(range.end.clone())
        }
        Request::Scan { range, .. }
        | Request::DeleteRange { range, .. }
        | Request::Checksum { range } => Anchor::At(range.start.clone()),
        Request::Txn(command) => plan::anchor(command),
    }
}

/// Narrows `request` to a region that contains its anchor, and a scan to `page` pairs. Returns what to send there and,
/// of a batch, the rest, which belongs elsewhere.
pub(crate) fn fit(
    request: &Request,
    region: &KeyRange,
    page: usize,
    layout: KeyLayout,
) -> Result<(Request, Option<Request>)> {
    if let Request::Txn(command) = request {
        let (part, rest) = plan::fit(command, region, page, layout)?;
        return Ok((Request::Txn(part), rest.map(Request::Txn)));
    }
    let here = |key: &Bytes| region.contains(&layout.region_key(key));
    let mut part = request.clone();
    let rest = match &mut part {
        Request::BatchGet { cf, keys } => {
            split(keys, here).map(|keys| Request::BatchGet { cf: *cf, keys })
        }
        Request::BatchDelete { cf, keys } => {
            split(keys, here).map(|keys| Request::BatchDelete { cf: *cf, keys })
        }
        Request::BatchPut { cf, pairs, ttl_secs } => split(pairs, |pair| here(&pair.key))
            .map(|pairs| Request::BatchPut { cf: *cf, pairs, ttl_secs: *ttl_secs }),
        Request::Scan { range, limit, .. } => {
            *limit = (*limit).min(page);
            *range = clamp(range, region, layout)?;
            None
        }
        Request::DeleteRange { range, .. } | Request::Checksum { range } => {
            *range = clamp(range, region, layout)?;
            None
        }
        Request::Get { .. }
        | Request::Put { .. }
        | Request::Delete { .. }
        | Request::CompareAndSwap { .. }
        | Request::Ttl { .. }
        | Request::Txn(_) => None,
    };
    Ok((part, rest))
}

/// Takes everything behind the items that are `here` out of the sorted `items`.
pub(crate) fn split<T>(items: &mut Vec<T>, here: impl Fn(&T) -> bool) -> Option<Vec<T>> {
    let rest = items.split_off(items.partition_point(here));
    (!rest.is_empty()).then_some(rest)
}

pub(crate) fn clamp(range: &KeyRange, region: &KeyRange, layout: KeyLayout) -> Result<KeyRange> {
    let bound = |bound: &Bytes| {
        layout.request_bound(bound).ok_or_else(|| Error::BadAnswer {
            who: "the scheduler".to_owned(),
            what: format!("region bound {} is not a memcomparable key", key::display(bound)),
        })
    };
    Ok(range.intersect(&KeyRange { start: bound(&region.start)?, end: bound(&region.end)? }))
}

/// Cuts a batch of reads in two, because its answer is larger than a store is willing to give. `None`: it cannot be cut.
pub(crate) fn halve(request: &mut Request) -> Option<Request> {
    match request {
        Request::BatchGet { cf, keys } if keys.len() > 1 => {
            Some(Request::BatchGet { cf: *cf, keys: keys.split_off(keys.len() / 2) })
        }
        Request::Txn(command) => plan::halve(command).map(Request::Txn),
        _ => None,
    }
}

/// The answers so far.
#[derive(Debug)]
pub(crate) enum Merge {
    /// One request, one answer.
    Single(Option<Answer>),
    /// Values by user key, and the keys as the user gave them.
    Values { wanted: Vec<Bytes>, found: HashMap<Bytes, Bytes> },
    /// Pairs in the order of the walk.
    Pairs(Vec<Pair>),
    /// Nothing to remember.
    Done,
    /// Checksums of disjoint ranges.
    Checksum(Checksum),
    /// What a command of a transaction came to so far.
    Txn(Option<Answered>),
}

impl Merge {
    /// Before the first answer to `request`, which still has user keys.
    pub(crate) fn new(request: &Request) -> Merge {
        match request {
            Request::Get { .. } | Request::Ttl { .. } | Request::CompareAndSwap { .. } => {
                Merge::Single(None)
            }
            Request::BatchGet { keys, .. } => {
                Merge::Values { wanted: keys.clone(), found: HashMap::new() }
            }
            Request::Scan { .. } => Merge::Pairs(Vec::new()),
            Request::Checksum { .. } => Merge::Checksum(Checksum::default()),
            Request::Put { .. }
            | Request::BatchPut { .. }
            | Request::Delete { .. }
            | Request::BatchDelete { .. }
            | Request::DeleteRange { .. } => Merge::Done,
            Request::Txn(_) => Merge::Txn(None),
        }
    }

    /// Takes in the answer to `sent`, which was made from `request`. Returns what is left of a walk.
    ///
    /// # Errors
    /// The answer makes no sense, with the reason.
    pub(crate) fn absorb(
        &mut self,
        request: &Request,
        sent: &Request,
        answer: Answer,
        layout: KeyLayout,
    ) -> Result<Option<Request>, String> {
        match (self, sent, answer) {
            (Merge::Single(slot), Request::Get { .. }, answer @ Answer::Value(_))
            | (Merge::Single(slot), Request::Ttl { .. }, answer @ Answer::Ttl(_))
            | (
                Merge::Single(slot),
                Request::CompareAndSwap { .. },
                answer @ Answer::Swapped { .. },
            ) => {
                *slot = Some(answer);
                Ok(None)
            }
            (Merge::Values { found, .. }, Request::BatchGet { .. }, Answer::Pairs(pairs)) => {
                for pair in pairs {
                    found.insert(user_key(&pair.key, layout)?, pair.value);
                }
                Ok(None)
            }
            (Merge::Pairs(merged), Request::Scan { range, limit, .. }, Answer::Pairs(pairs)) => {
                let mut next = request.clone();
                let Request::Scan { range: left, limit: wanted, direction, .. } = &mut next else {
                    return Err("pairs for something that is no scan".to_owned());
                };
                let goes_on = after_page((left, wanted, *direction), range, *limit, &pairs)?;
                let next = goes_on.then_some(next);
                for pair in pairs {
                    merged.push(Pair { key: user_key(&pair.key, layout)?, value: pair.value });
                }
                Ok(next)
            }
            (Merge::Checksum(sum), Request::Checksum { range }, Answer::Checksum(part)) => {
                sum.crc64_xor ^= part.crc64_xor;
                sum.pairs = sum.pairs.saturating_add(part.pairs);
                sum.bytes = sum.bytes.saturating_add(part.bytes);
                Ok(after_range(request, range))
            }
            (Merge::Done, Request::DeleteRange { range, .. }, Answer::Done) => {
                Ok(after_range(request, range))
            }
            (
                Merge::Done,
                Request::Put { .. }
                | Request::BatchPut { .. }
                | Request::Delete { .. }
                | Request::BatchDelete { .. },
                Answer::Done,
            ) => Ok(None),
            (Merge::Txn(merged), Request::Txn(sent), Answer::Txn(answered)) => {
                let Request::Txn(command) = request else {
                    return Err(format!("not an answer to {}", request.name()));
                };
                let next = plan::absorb(merged, command, sent, *answered, layout)?;
                Ok(next.map(Request::Txn))
            }
            (_, sent, _) => Err(format!("not an answer to {}", sent.name())),
        }
    }

    /// The result, when nothing is left. `None`: a request was answered by nothing, which `absorb` rules out.
    pub(crate) fn finish(&mut self) -> Option<Answer> {
        match self {
            Merge::Single(answer) => answer.take(),
            Merge::Values { wanted, found } => {
                let pair = |key: Bytes| found.get(&key).cloned().map(|value| Pair { key, value });
                Some(Answer::Pairs(wanted.drain(..).filter_map(pair).collect()))
            }
            Merge::Pairs(pairs) => Some(Answer::Pairs(std::mem::take(pairs))),
            Merge::Done => Some(Answer::Done),
            Merge::Checksum(sum) => Some(Answer::Checksum(*sum)),
            // Only a read can be of nothing.
            Merge::Txn(merged) => {
                let nothing = || Answered::ok(Reply::Pairs(Vec::new()));
                Some(Answer::Txn(Box::new(merged.take().unwrap_or_else(nothing))))
            }
        }
    }
}

pub(crate) fn user_key(request: &Bytes, layout: KeyLayout) -> Result<Bytes, String> {
    layout
        .user_key(request)
        .ok_or_else(|| format!("key {} is outside of the keyspace", key::display(request)))
}

/// What is left of a walk over a range when `done` is finished.
fn after_range(request: &Request, done: &KeyRange) -> Option<Request> {
    let mut next = request.clone();
    let (Request::DeleteRange { range, .. } | Request::Checksum { range }) = &mut next else {
        return None;
    };
    if done.end == range.end {
        return None;
    }
    range.start = done.end.clone();
    Some(next)
}

/// Checks `pairs`, the answer to a scan of at most `page` pairs of `sent`.
///
/// # Errors
/// There are too many, or they lie elsewhere, or are not in order.
pub(crate) fn check_page(
    sent: &KeyRange,
    page: usize,
    direction: Direction,
    pairs: &[Pair],
) -> Result<(), String> {
    let in_order = |pair: &[Pair]| match direction {
        Direction::Forward => pair[0].key < pair[1].key,
        Direction::Reverse => pair[0].key > pair[1].key,
    };
    match pairs.len() <= page
        && pairs.windows(2).all(in_order)
        && pairs.iter().all(|pair| sent.contains(&pair.key))
    {
        true => Ok(()),
        false => Err("pairs out of range or out of order".to_owned()),
    }
}

/// Takes what the region answered, `pairs` to a page of at most `page` pairs of `sent`, off what a scan is still to
/// read: its range and limit. False if nothing is left.
///
/// # Errors
/// As [`check_page`].
pub(crate) fn after_page(
    (range, limit, direction): (&mut KeyRange, &mut usize, Direction),
    sent: &KeyRange,
    page: usize,
    pairs: &[Pair],
) -> Result<bool, String> {
    check_page(sent, page, direction, pairs)?;
    *limit -= pairs.len();
    if *limit == 0 {
        return Ok(false);
    }
    // Stores never cut an answer short: fewer pairs than asked for is the end of the region.
    match (direction, pairs.last().filter(|_| pairs.len() == page)) {
        (Direction::Forward, Some(last)) => range.start = [&last.key[..], &[0]].concat().into(),
        // Nothing lies before the first key; and if that is the empty key, an empty end would mean "no bound".
        (Direction::Reverse, Some(last)) if last.key == range.start => return Ok(false),
        (Direction::Reverse, Some(last)) => range.end = last.key.clone(),
        (Direction::Forward, None) if sent.end == range.end => return Ok(false),
        (Direction::Forward, None) => range.start = sent.end.clone(),
        (Direction::Reverse, None) if sent.start == range.start => return Ok(false),
        (Direction::Reverse, None) => range.end = sent.start.clone(),
    }
    Ok(!range.is_empty())
}
