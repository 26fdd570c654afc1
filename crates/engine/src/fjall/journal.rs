//! Drops a torn batch at the end of fjall's journal, before fjall reads it.
//!
//! A power cut in the middle of a sync may leave the pages of the last batches on the disk in any combination. fjall
//! drops a batch that ends early, or that has a hole where it expects a record. But it refuses to open when the hole
//! lies inside a large value and the end of the batch is there: the checksum is wrong, and it can't know that
//! nothing comes after. Nobody was told that such a batch is durable, so it is cut off here, if no sound batch
//! follows. If one does, the damage is not a torn tail, and fjall refuses.
//!
//! The layout is that of fjall 3. A batch is `1 | items u32 | number u64`, then per item
//! `2 | kind u8 | compression u8 | keyspace u64 | key length u16 | value length u32 | stored length u32 | key |
//! value` (or `4 | keyspace u64` for a cleared keyspace), then `3 | XXH3 of the items u64 | "FJL" 3`; integers are
//! little-endian. The file is longer than its batches, with zeros behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::{Error, Result};

const END_MAGIC: [u8; 4] = *b"FJL\x03";

/// What is found where a batch may begin.
#[derive(Debug, PartialEq)]
enum Found {
    /// A batch whose checksum is right.
    Batch,
    /// A batch from begin to end whose content is not what was written.
    Damaged,
    /// No batch, or one that does not end. fjall takes it for the end of the journal.
    Nothing,
}

/// Cuts a torn batch off the newest journal in `dir`, if there is one.
pub(super) fn drop_torn_tail(dir: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            operation: "check of the journal",
            path,
            source: Arc::new(source),
        }
    };
    // Older journals were synced before the newest was begun.
    let Some(journal) = newest(dir).map_err(failed(dir))? else { return Ok(()) };
    let Some(torn) = torn_from(&journal).map_err(failed(&journal))? else { return Ok(()) };
    let file = OpenOptions::new().write(true).open(&journal).map_err(failed(&journal))?;
    file.set_len(torn).and_then(|()| file.sync_all()).map_err(failed(&journal))
}

fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut newest = None;
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the torn batch begins, if the journal ends with one.
fn torn_from(journal: &Path) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(64 << 10, File::open(journal)?);
    loop {
        let start = reader.stream_position()?;
        match next_batch(&mut reader)? {
            Found::Batch => {}
            Found::Nothing => return Ok(None),
            Found::Damaged => {
                // Others behind it may have been torn as well.
                loop {
                    match next_batch(&mut reader)? {
                        Found::Batch => return Ok(None),
                        Found::Damaged => {}
                        Found::Nothing => return Ok(Some(start)),
                    }
                }
            }
        }
    }
}

fn next_batch(reader: &mut BufReader<File>) -> io::Result<Found> {
    match read_batch(reader) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Found::Nothing),
        result => result,
    }
}

fn read_batch(reader: &mut BufReader<File>) -> io::Result<Found> {
    let start: [u8; 13] = array(reader)?;
    if start[0] != 1 {
        reader.seek_relative(-13)?;
        return Ok(Found::Nothing);
    }
    let announced = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
    let (mut items, mut hash) = (0, Xxh3::new());
    loop {
        match array(reader)? {
            [2] => {
                let header: [u8; 20] = array(reader)?;
                let key = u16::from_le_bytes([header[10], header[11]]);
                let value = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
                hash.update(&[2]);
                hash.update(&header);
                skip(reader, u64::from(key) + u64::from(value), &mut hash)?;
                items += 1;
            }
            [4] => {
                hash.update(&[4]);
                hash.update(&array::<8>(reader)?);
                items += 1;
            }
            [3] => {
                let checksum = u64::from_le_bytes(array(reader)?);
                if array(reader)? != END_MAGIC {
                    return Ok(Found::Nothing);
                }
                let is_sound = items == announced && hash.digest() == checksum;
                return Ok(if is_sound { Found::Batch } else { Found::Damaged });
            }
            _ => return Ok(Found::Nothing),
        }
    }
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Hashes the next `len` bytes without keeping them: a damaged length may be any.
fn skip(reader: &mut impl Read, len: u64, hash: &mut Xxh3) -> io::Result<()> {
    let mut chunk = [0; 4096];
    let mut left = len;
    while 0 < left {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        reader.read_exact(&mut chunk[..part])?;
        hash.update(&chunk[..part]);
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use types::Bytes;

    use super::*;
    use crate::{
        Engine, Family, Options, WriteBatch, contract::disk::content_end, fjall::FjallEngine,
    };

    fn batch(number: u8, large: usize) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, vec![number], vec![number; large]);
        batch.put(Family::Lock, vec![number], vec![number; 10]);
        batch.delete(Family::Write, vec![number]);
        batch
    }

    fn open(dir: &Path) -> Result<FjallEngine> {
        FjallEngine::open(dir, &Options::default())
    }

    /// Three batches; where each ends.
    fn written(dir: &Path) -> Vec<u64> {
        let engine = open(dir).unwrap();
        let ends = (0..3).map(|number| {
            engine.write(batch(number, 40_000)).unwrap();
            let bytes = fs::read(dir.join("0.jnl")).unwrap();
            content_end(&bytes) as u64
        });
        ends.collect()
    }

    fn hole(dir: &Path, at: u64) {
        let mut bytes = fs::read(dir.join("0.jnl")).unwrap();
        bytes[at as usize..][..4096].fill(0);
        bytes.truncate(content_end(&bytes) + 1000);
        fs::write(dir.join("0.jnl"), bytes).unwrap();
    }

    fn values(dir: &Path) -> Vec<Option<Bytes>> {
        let snapshot = open(dir).unwrap().snapshot().unwrap();
        (0..4_u8).map(|number| snapshot.get(Family::Default, &[number]).unwrap()).collect()
    }

    #[test]
    fn a_sound_journal_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop_torn_tail(dir.path()).unwrap();
        let ends = written(dir.path());
        let journal = dir.path().join("0.jnl");
        let before = fs::metadata(&journal).unwrap().len();
        drop_torn_tail(dir.path()).unwrap();
        assert_eq!(fs::metadata(&journal).unwrap().len(), before);
        let mut reader = BufReader::new(File::open(&journal).unwrap());
        for end in ends {
            assert_eq!(next_batch(&mut reader).unwrap(), Found::Batch);
            assert_eq!(reader.stream_position().unwrap(), end);
        }
        assert_eq!(next_batch(&mut reader).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_hole_in_the_last_batch_costs_that_batch() {
        let dir = tempfile::tempdir().unwrap();
        let ends = written(dir.path());
        hole(dir.path(), ends[1] + 10_000);
        assert_eq!(torn_from(&dir.path().join("0.jnl")).unwrap(), Some(ends[1]));
        assert_eq!(values(dir.path()).iter().filter(|value| value.is_some()).count(), 2);
        open(dir.path()).unwrap().write(batch(3, 5)).unwrap();
        assert_eq!(
            values(dir.path()).iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false, true]
        );
    }

    #[test]
    fn holes_in_the_last_batches_cost_those() {
        let dir = tempfile::tempdir().unwrap();
        let ends = written(dir.path());
        hole(dir.path(), ends[0] + 10_000);
        hole(dir.path(), ends[1] + 20_000);
        assert_eq!(values(dir.path()).iter().filter(|value| value.is_some()).count(), 1);
    }

    #[test]
    fn a_hole_before_a_sound_batch_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ends = written(dir.path());
        hole(dir.path(), ends[0] + 10_000);
        assert_eq!(torn_from(&dir.path().join("0.jnl")).unwrap(), None);
        assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
    }
}
