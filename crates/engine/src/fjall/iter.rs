//! A cursor over one family of a fjall snapshot.
//!
//! fjall's iterators can't be moved to a key: a seek opens a new one. They can be read from both ends, but what one
//! end has passed is gone for the other, so a cursor that turns round opens a new one as well.

use std::ops::Bound;

use ::fjall::{Readable, Slice};
use types::{Bytes, KeyRange};

use super::{Core, FjallSnapshot};
use crate::{Family, Iter, KEY_BYTES_MAX, Result};

use std::sync::Arc;

/// Keys that a seek to a place a little further on steps over before it opens a new iterator, which costs as much
/// as about this many steps.
const NEAR: usize = 8;

/// The cursor.
pub(super) struct FjallIter {
    view: ::fjall::Snapshot,
    core: Arc<Core>,
    family: Family,
    range: KeyRange,
    /// An iterator whose rest is what lies behind the current pair, seen in its direction.
    source: Option<(Direction, ::fjall::Iter)>,
    current: Option<(Slice, Slice)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

impl FjallIter {
    pub(super) fn new(snapshot: &FjallSnapshot, family: Family, range: &KeyRange) -> FjallIter {
        FjallIter {
            view: snapshot.view.clone(),
            core: snapshot.core.clone(),
            family,
            range: range.clone(),
            source: None,
            current: None,
        }
    }

    /// Opens an iterator between the bounds and takes its first pair.
    fn open(
        &mut self,
        direction: Direction,
        low: Bound<Bytes>,
        high: Bound<Bytes>,
    ) -> Result<bool> {
        self.core.poison.check()?;
        (self.source, self.current) = (None, None);
        if is_empty(&low, &high) {
            return Ok(false);
        }
        let bounds = (as_slice(&low), as_slice(&high));
        let keyspace = self.core.keyspace(self.family);
        let source = self.core.read(|| Ok(self.view.range::<&[u8], _>(keyspace, bounds)))?;
        self.source = Some((direction, source));
        self.step()
    }

    /// Takes the next pair of the open iterator.
    fn step(&mut self) -> Result<bool> {
        self.current = None;
        let Some((direction, source)) = &mut self.source else { return Ok(false) };
        let next = self.core.read(|| {
            let next = match direction {
                Direction::Forward => source.next(),
                Direction::Backward => source.next_back(),
            };
            next.map(|guard| guard.into_inner()).transpose()
        });
        self.current = next.inspect_err(|_| self.source = None)?;
        Ok(self.current.is_some())
    }

    fn heads(&self, direction: Direction) -> bool {
        self.source.as_ref().is_some_and(|(current, _)| *current == direction)
    }

    fn low(&self) -> Bound<Bytes> {
        at_or_after(&self.range.start)
    }

    fn high(&self) -> Bound<Bytes> {
        before(&self.range.end)
    }
}

impl Iter for FjallIter {
    fn seek(&mut self, key: &[u8]) -> Result<bool> {
        if self.heads(Direction::Forward)
            && self.current.as_ref().is_some_and(|(current, _)| &**current <= key)
        {
            for _ in 0..NEAR {
                match &self.current {
                    Some((current, _)) if &**current < key => self.step()?,
                    current => return Ok(current.is_some()),
                };
            }
        }
        let high = self.high();
        self.open(Direction::Forward, at_or_after(key.max(&self.range.start)), high)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        if !self.range.end.is_empty() && &self.range.end[..] <= key {
            return self.seek_to_last();
        }
        let low = self.low();
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        self.open(Direction::Backward, low, Bound::Included(Bytes::copy_from_slice(key)))
    }

    fn seek_to_first(&mut self) -> Result<bool> {
        let (low, high) = (self.low(), self.high());
        self.open(Direction::Forward, low, high)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        let (low, high) = (self.low(), self.high());
        self.open(Direction::Backward, low, high)
    }

    fn next(&mut self) -> Result<bool> {
        let Some((key, _)) = &self.current else { return Ok(false) };
        if self.heads(Direction::Forward) {
            return self.step();
        }
        let (low, high) = (Bound::Excluded(key.clone().into()), self.high());
        self.open(Direction::Forward, low, high)
    }

    fn prev(&mut self) -> Result<bool> {
        let Some((key, _)) = &self.current else { return Ok(false) };
        if self.heads(Direction::Backward) {
            return self.step();
        }
        let (low, high) = (self.low(), Bound::Excluded(key.clone().into()));
        self.open(Direction::Backward, low, high)
    }

    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.current.as_ref().expect("the cursor is valid").0
    }

    fn value(&self) -> &[u8] {
        &self.current.as_ref().expect("the cursor is valid").1
    }

    fn key_bytes(&self) -> Bytes {
        self.current.as_ref().expect("the cursor is valid").0.clone().into()
    }

    fn value_bytes(&self) -> Bytes {
        self.current.as_ref().expect("the cursor is valid").1.clone().into()
    }
}

/// The bound "at or after `key`". A key that is longer than any stored one lies behind its longest prefix that could
/// be stored and before whatever follows that; fjall panics at the key itself.
fn at_or_after(key: &[u8]) -> Bound<Bytes> {
    match key {
        [] => Bound::Unbounded,
        key if KEY_BYTES_MAX < key.len() => {
            Bound::Excluded(Bytes::copy_from_slice(&key[..KEY_BYTES_MAX]))
        }
        key => Bound::Included(Bytes::copy_from_slice(key)),
    }
}

/// The bound "before `key`", where an empty key is no bound.
fn before(key: &[u8]) -> Bound<Bytes> {
    match key {
        [] => Bound::Unbounded,
        key if KEY_BYTES_MAX < key.len() => {
            Bound::Included(Bytes::copy_from_slice(&key[..KEY_BYTES_MAX]))
        }
        key => Bound::Excluded(Bytes::copy_from_slice(key)),
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

/// Whether no key can lie between the bounds; fjall wants them in order.
fn is_empty(low: &Bound<Bytes>, high: &Bound<Bytes>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => high < low,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => high <= low,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
