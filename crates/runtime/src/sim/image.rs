//! What one simulated file holds: for its readers, for certain on the disk, and perhaps on the disk.
//!
//! A sector (512 bytes) that was written and not yet synced has several contents that a crash may leave: the synced
//! one, every one written since, or the front of one and the back of another. The length of the file likewise. A sync
//! makes certain what was written before it began.
//!
//! A failed sync *forgets*: the pages count as clean afterwards, so that a later sync reports success without having
//! written them. They stay uncertain until they are written anew. This is what Linux does.

use std::{collections::BTreeMap, io};

use crate::Rng;

/// What a disk writes as a whole, and may tear.
pub(super) const SECTOR: usize = 512;

/// Orders writes against syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// A value since the last sync that covered it.
#[derive(Clone, Debug)]
struct Version<T> {
    written: Moment,
    /// A sync that covered it has failed.
    forgotten: bool,
    value: T,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What readers see.
    data: Vec<u8>,
    /// What is on the disk for certain, filled up to whole sectors.
    synced: Vec<u8>,
    synced_len: usize,
    /// Contents of sectors that are perhaps on the disk, oldest first.
    sectors: BTreeMap<usize, Vec<Version<Vec<u8>>>>,
    /// Lengths that are perhaps on the disk, oldest first.
    lens: Vec<Version<usize>>,
    changes: u64,
}

impl Image {
    /// A file whose bytes are all on the disk.
    pub(super) fn synced(data: Vec<u8>) -> Image {
        let mut synced = data.clone();
        synced.resize(data.len().next_multiple_of(SECTOR), 0);
        Image { synced_len: data.len(), data, synced, ..Image::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let stored = usize::try_from(offset)
            .ok()
            .and_then(|start| self.data.get(start..)?.get(..bytes.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(stored);
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if self.data.len() < end {
            self.data.resize(end, 0);
            self.note_len();
        }
        self.data[start..end].copy_from_slice(bytes);
        self.note_sectors(start, end);
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let old = self.data.len();
        if len == old {
            return Ok(());
        }
        self.data.resize(len, 0);
        self.note_len();
        // What was cut off must not come back when the file grows again.
        self.note_sectors(len, old);
        Ok(())
    }

    /// A sync begins: it will cover what was written until now.
    pub(super) fn begin_sync(&self) -> Moment {
        Moment(self.changes)
    }

    /// The sync that began at `began` has succeeded.
    pub(super) fn finish_sync(&mut self, began: Moment) {
        if let Some(len) = settle(&mut self.lens, began) {
            self.synced_len = len;
            self.synced.resize(self.synced.len().max(len.next_multiple_of(SECTOR)), 0);
        }
        self.sectors.retain(|&sector, versions| {
            if let Some(content) = settle(versions, began) {
                let start = sector * SECTOR;
                self.synced.resize(self.synced.len().max(start + SECTOR), 0);
                self.synced[start..start + SECTOR].copy_from_slice(&content);
            }
            !versions.is_empty()
        });
    }

    /// The sync that began at `began` has failed: nobody will try to write these sectors again.
    pub(super) fn fail_sync(&mut self, began: Moment) {
        for version in self.sectors.values_mut().flatten() {
            version.forgotten |= version.written <= began;
        }
        for version in &mut self.lens {
            version.forgotten |= version.written <= began;
        }
    }

    /// Turns one bit of what is stored, wherever it is stored.
    pub(super) fn flip_bit(&mut self, bit: usize) {
        let (byte, mask) = (bit / 8, 1_u8 << (bit % 8));
        let in_sector = byte % SECTOR;
        let versions = self.sectors.get_mut(&(byte / SECTOR)).into_iter().flatten();
        let copies = versions.filter_map(|version| version.value.get_mut(in_sector));
        for stored in copies.chain(self.data.get_mut(byte)).chain(self.synced.get_mut(byte)) {
            *stored ^= mask;
        }
    }

    /// What a crash may leave.
    pub(super) fn crash(&self, rng: &mut Rng) -> Vec<u8> {
        let fate = Fate::draw(rng);
        let len = self.crash_len(fate, rng);
        let mut data = self.synced.clone();
        for (&sector, versions) in &self.sectors {
            let start = sector * SECTOR;
            data.resize(data.len().max(start + SECTOR), 0);
            let old = &data[start..start + SECTOR];
            let pick = |rng: &mut Rng| match rng.range(0..=versions.len() as u64) as usize {
                0 => old,
                n => &versions[n - 1].value[..],
            };
            let content = match fate {
                Fate::AllOld => old.to_vec(),
                Fate::AllNew => versions.last().map_or(old, |version| &version.value).to_vec(),
                Fate::Mixed => {
                    let (front, back) = (pick(rng), pick(rng));
                    tear(front, back, rng)
                }
            };
            data[start..start + SECTOR].copy_from_slice(&content);
        }
        data.resize(len, 0);
        data
    }

    fn crash_len(&self, fate: Fate, rng: &mut Rng) -> usize {
        let lens: Vec<usize> = [self.synced_len]
            .into_iter()
            .chain(self.lens.iter().map(|version| version.value))
            .collect();
        let (first, last) = (lens[0], lens[lens.len() - 1]);
        match fate {
            Fate::AllOld => first,
            Fate::AllNew => last,
            // One call may grow a file in several steps, and a crash come between them.
            Fate::Mixed if rng.chance(0.3) => {
                rng.range(first.min(last) as u64..=first.max(last) as u64) as usize
            }
            Fate::Mixed => lens[rng.range(0..lens.len() as u64) as usize],
        }
    }

    fn note_len(&mut self) {
        let written = self.next_moment();
        self.lens.push(Version { written, forgotten: false, value: self.data.len() });
    }

    /// The bytes from `start` up to `end` have changed.
    fn note_sectors(&mut self, start: usize, end: usize) {
        if start >= end {
            return;
        }
        let written = self.next_moment();
        for sector in start / SECTOR..=(end - 1) / SECTOR {
            let first = (sector * SECTOR).min(self.data.len());
            let mut value = self.data[first..self.data.len().min(first + SECTOR)].to_vec();
            value.resize(SECTOR, 0);
            self.sectors.entry(sector).or_default().push(Version {
                written,
                forgotten: false,
                value,
            });
        }
    }

    fn next_moment(&mut self) -> Moment {
        self.changes += 1;
        Moment(self.changes)
    }
}

/// Removes the versions that a sync begun at `began` has made certain, or overtaken by something certain, and returns
/// the certain one. A forgotten version stays uncertain, and with it everything before.
fn settle<T: Clone>(versions: &mut Vec<Version<T>>, began: Moment) -> Option<T> {
    let covered = versions.iter().take_while(|version| version.written <= began).count();
    let newest = versions[..covered].last()?;
    if newest.forgotten {
        return None;
    }
    versions.drain(..covered).next_back().map(|version| version.value)
}

/// `front`, or sometimes its beginning and the rest of `back`; cut where the two differ, else nothing would show.
fn tear(front: &[u8], back: &[u8], rng: &mut Rng) -> Vec<u8> {
    let differs = |&i: &usize| front[i] != back[i];
    match ((0..SECTOR).find(differs), (0..SECTOR).rfind(differs)) {
        (Some(first), Some(last)) if rng.chance(0.3) => {
            let cut = rng.range(first as u64..=last as u64 + 1) as usize;
            [&front[..cut], &back[cut..]].concat()
        }
        _ => front.to_vec(),
    }
}

/// How a crash treats what was not synced. Drawn once per file, so that the pure cases are frequent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// Nothing reached the disk.
    AllOld,
    /// Everything did.
    AllNew,
    /// Each part on its own.
    Mixed,
}

impl Fate {
    pub(super) fn draw(rng: &mut Rng) -> Fate {
        match rng.range(0..4) {
            0 => Fate::AllOld,
            1 => Fate::AllNew,
            _ => Fate::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn crashes(image: &Image) -> BTreeSet<Vec<u8>> {
        let mut rng = Rng::new(7);
        (0..2000).map(|_| image.crash(&mut rng)).collect()
    }

    #[test]
    fn synced_bytes_survive_and_nothing_else_can_be_left() {
        let mut image = Image::default();
        image.write(b"one", 0).unwrap();
        let began = image.begin_sync();
        image.write(b"two", 3).unwrap();
        image.finish_sync(began);
        // "two" came after the sync began: perhaps there, perhaps zeros, perhaps torn, perhaps not in the length.
        let left = crashes(&image);
        assert!(left.iter().all(|data| data.starts_with(b"one") && data.len() <= 6), "{left:?}");
        for expected in [&b"one"[..], b"onetwo", b"one\0\0\0", b"onetw\0", b"onet"] {
            assert!(left.contains(expected), "{expected:?} never came");
        }
    }

    #[test]
    fn an_overwritten_sector_is_old_new_or_torn() {
        let mut image = Image::synced(vec![b'a'; 2 * SECTOR]);
        image.write(&[b'b'; 2 * SECTOR], 0).unwrap();
        let left = crashes(&image);
        assert!(
            left.iter()
                .all(|data| data.len() == 2 * SECTOR && data.iter().all(|b| b"ab".contains(b)))
        );
        let first = |data: &Vec<u8>| (data[0], data[SECTOR - 1], data[SECTOR]);
        let kinds: BTreeSet<_> = left.iter().map(first).collect();
        // First sector: all old, all new, torn either way; second sector independent of it.
        for kind in [(b'a', b'a', b'b'), (b'b', b'b', b'a'), (b'b', b'a', b'a'), (b'a', b'b', b'b')]
        {
            assert!(kinds.contains(&kind), "{kind:?} never came");
        }
    }

    #[test]
    fn a_failed_sync_forgets() {
        let mut image = Image::default();
        image.write(b"lost", 0).unwrap();
        image.fail_sync(image.begin_sync());
        image.finish_sync(image.begin_sync());
        assert!(
            crashes(&image).contains(&b""[..]),
            "a later success must not vouch for forgotten bytes"
        );

        image.write(b"kept", 0).unwrap();
        image.set_len(5).unwrap();
        image.finish_sync(image.begin_sync());
        assert_eq!(crashes(&image), BTreeSet::from([b"kept\0".to_vec()]));
    }

    #[test]
    fn cut_bytes_do_not_come_back() {
        let mut image = Image::synced(b"secret".to_vec());
        image.set_len(0).unwrap();
        image.finish_sync(image.begin_sync());
        image.set_len(6).unwrap();
        image.finish_sync(image.begin_sync());
        assert_eq!(crashes(&image), BTreeSet::from([vec![0; 6]]));
    }

    #[test]
    fn a_flipped_bit_is_flipped_everywhere() {
        let mut image = Image::synced(vec![0; 3]);
        image.write(&[0], 1).unwrap();
        image.flip_bit(8 + 2);
        assert_eq!(crashes(&image), BTreeSet::from([vec![0, 4, 0]]));
    }
}
