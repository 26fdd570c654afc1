//! How large a region is, and where it should be cut.
//!
//! [`check`] is a job for somebody who may read a lot. Small regions are read whole. Of a larger one the beginning is
//! read, and the engine says roughly how much there is: only if that comes near to what a region may have, everything is
//! read, and keys are found at which it is cut into pieces of the size that a region should have.
//!
//! A cut never separates what belongs together: in [`KeyForm::Encoded`] all versions of a user key, in all families.

use engine::{Engine, Family, Iter, Snapshot};
use types::{Bytes, Cf, KeyRange, RegionEpoch, RegionId, key};

use crate::error::Result;

/// Bytes that are read before the engine is asked how much there is: it takes longer to answer than that.
const LOOK_BYTES: u64 = 1 << 20;

/// The most keys of one split. What is left is split again.
const SPLIT_KEYS_MAX: usize = 32;

/// When a region is too large, and what it is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitLimits {
    /// A region with so many bytes of keys and values is cut,
    pub max_bytes: u64,
    /// into pieces of about so many.
    pub split_bytes: u64,
    /// A region with so many keys is cut,
    pub max_keys: u64,
    /// into pieces of about so many.
    pub split_keys: u64,
}

impl Default for SplitLimits {
    /// TiKV's.
    fn default() -> SplitLimits {
        SplitLimits {
            max_bytes: 144 << 20,
            split_bytes: 96 << 20,
            max_keys: 1_440_000,
            split_keys: 960_000,
        }
    }
}

/// How keys are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// As users give them; a region may be cut at any of them.
    Raw,
    /// Memcomparable, perhaps with a timestamp behind it, at which a region is never cut.
    Encoded,
}

/// What is to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitAim {
    /// Whether the region is too large, and where it is to be cut then ([`check`]).
    Limits,
    /// Where its middle is ([`halve`]).
    Half,
}

/// What a look at a region has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitCheck {
    /// Bytes of keys and values, roughly; 0: not known, or none.
    pub size: u64,
    /// Keys, roughly; 0: not known, or none.
    pub keys: u64,
    /// Where the region is to be cut: ascending, strictly inside of it.
    pub split_keys: Vec<Bytes>,
}

/// A look at a region, as a job for somebody who may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitJob {
    /// The region.
    pub region_id: RegionId,
    /// Its epoch.
    pub epoch: RegionEpoch,
    /// Its range.
    pub range: KeyRange,
    /// What is wanted.
    pub aim: SplitAim,
}

impl SplitJob {
    /// Does it.
    ///
    /// # Errors
    /// The engine failed.
    pub fn run(
        &self,
        engine: &dyn Engine,
        limits: &SplitLimits,
        form: KeyForm,
    ) -> Result<SplitCheck> {
        match self.aim {
            SplitAim::Limits => check(engine, &self.range, limits, form),
            SplitAim::Half => halve(engine, &self.range, form),
        }
    }
}

/// How much lies in `range`, and where it is to be cut if that is more than `limits` allow.
///
/// # Errors
/// The engine failed.
pub fn check(
    engine: &dyn Engine,
    range: &KeyRange,
    limits: &SplitLimits,
    form: KeyForm,
) -> Result<SplitCheck> {
    let snapshot = engine.snapshot()?;
    let mut cursor = Cursor::new(&*snapshot, range)?;
    let mut cutter = Cutter::new(range, limits, form);
    let mut was_asked = false;
    while let Some((key, bytes)) = cursor.pair() {
        cutter.add(key, bytes);
        cursor.next()?;
        if !was_asked && LOOK_BYTES <= cutter.size {
            was_asked = true;
            let mut size = 0;
            for cf in Cf::ALL {
                size += engine.approximate_size(Family::from(cf), range)?;
            }
            let size = size.max(cutter.size);
            let keys =
                (u128::from(cutter.keys) * u128::from(size) / u128::from(cutter.size)) as u64;
            // An estimate may be wrong by a third (engine contract).
            if size < limits.max_bytes / 3 * 2 && keys < limits.max_keys / 3 * 2 {
                return Ok(SplitCheck { size, keys, split_keys: Vec::new() });
            }
        }
    }
    Ok(cutter.finish())
}

/// A key that cuts `range` into halves, if there is one. Says nothing of the size.
///
/// # Errors
/// The engine failed.
pub fn halve(engine: &dyn Engine, range: &KeyRange, form: KeyForm) -> Result<SplitCheck> {
    // The family that has most of it decides.
    let mut largest = (0, Family::Default);
    for cf in [Cf::Default, Cf::Write] {
        let size = engine.approximate_size(Family::from(cf), range)?;
        largest = largest.max((size, Family::from(cf)));
    }
    let snapshot = engine.snapshot()?;
    let cursor = Cursor::new(&*snapshot, range)?;
    let Some((first, _)) = cursor.pair() else { return Ok(SplitCheck::default()) };
    let first = unit(first, form);
    let middle = engine.middle_key(largest.1, range)?;
    let cut = middle.map(|middle| Bytes::copy_from_slice(unit(&middle, form)));
    let split_keys =
        cut.filter(|cut| first < &cut[..] && range.contains(cut)).into_iter().collect();
    Ok(SplitCheck { split_keys, ..SplitCheck::default() })
}

/// What of a stored key a region may be cut at.
fn unit(stored: &[u8], form: KeyForm) -> &[u8] {
    match form {
        KeyForm::Raw => stored,
        KeyForm::Encoded => &stored[..key::encoded_prefix_len(stored).unwrap_or(stored.len())],
    }
}

/// Finds the cuts while pairs go by.
struct Cutter<'a> {
    range: &'a KeyRange,
    limits: &'a SplitLimits,
    form: KeyForm,
    /// The key that the last pair belongs to.
    last: Vec<u8>,
    size: u64,
    keys: u64,
    /// Of the piece that is not cut off yet.
    piece: (u64, u64),
    /// Of the piece before it.
    before: (u64, u64),
    cuts: Vec<Bytes>,
}

impl<'a> Cutter<'a> {
    fn new(range: &'a KeyRange, limits: &'a SplitLimits, form: KeyForm) -> Cutter<'a> {
        let (last, cuts) = (Vec::new(), Vec::new());
        let (piece, before) = ((0, 0), (0, 0));
        Cutter { range, limits, form, last, size: 0, keys: 0, piece, before, cuts }
    }

    fn add(&mut self, stored: &[u8], bytes: u64) {
        let key = unit(stored, self.form);
        let is_new = key != self.last;
        self.size += bytes;
        self.piece.0 += bytes;
        if !is_new {
            return;
        }
        let is_first = self.piece.1 == 0;
        self.keys += 1;
        self.piece.1 += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        let SplitLimits { split_bytes, split_keys, .. } = *self.limits;
        let is_full = split_bytes < self.piece.0 || split_keys < self.piece.1;
        if is_full && !is_first && self.range.start < key && self.cuts.len() < SPLIT_KEYS_MAX {
            self.cuts.push(Bytes::copy_from_slice(key));
            self.before = (self.piece.0 - bytes, self.piece.1 - 1);
            self.piece = (bytes, 1);
        }
    }

    fn finish(mut self) -> SplitCheck {
        let SplitLimits { max_bytes, max_keys, .. } = *self.limits;
        let is_large = |size, keys| max_bytes <= size || max_keys <= keys;
        // A last piece that is too small stays with the one before it. For a region that is not too large, that is all.
        let (piece, before) = (self.piece, self.before);
        if !is_large(piece.0 + before.0, piece.1 + before.1) {
            self.cuts.pop();
        }
        if !is_large(self.size, self.keys) {
            self.cuts.clear();
        }
        SplitCheck { size: self.size, keys: self.keys, split_keys: self.cuts }
    }
}

/// The pairs of all families of a range, in the order of their keys.
struct Cursor {
    /// Those that have pairs left.
    iters: Vec<Box<dyn Iter>>,
}

impl Cursor {
    fn new(snapshot: &dyn Snapshot, range: &KeyRange) -> Result<Cursor> {
        let mut iters = Vec::new();
        for cf in Cf::ALL {
            let mut iter = snapshot.iter(Family::from(cf), range)?;
            if iter.seek_to_first()? {
                iters.push(iter);
            }
        }
        Ok(Cursor { iters })
    }

    /// Which one comes next.
    fn at(&self) -> Option<usize> {
        (0..self.iters.len()).min_by(|a, b| self.iters[*a].key().cmp(self.iters[*b].key()))
    }

    /// The key of the current pair, and its bytes with those of the value.
    fn pair(&self) -> Option<(&[u8], u64)> {
        let iter = &self.iters[self.at()?];
        Some((iter.key(), (iter.key().len() + iter.value().len()) as u64))
    }

    fn next(&mut self) -> Result<()> {
        if let Some(at) = self.at()
            && !self.iters[at].next()?
        {
            self.iters.swap_remove(at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
