//! The middle of a range, for engines that know the sizes of its parts.

use types::Bytes;

use crate::{Iter, Result};

/// Ranges of up to this many bytes are read to find their exact middle.
pub(crate) const EXACT_BYTES: u64 = 4 << 20;

/// A part of a range.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Its last key.
    pub(crate) last: Bytes,
    /// The bytes of its keys and values.
    pub(crate) bytes: u64,
}

/// Every pair of the cursor's range as a chunk of its own.
pub(crate) fn every_pair(iter: &mut dyn Iter) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let mut more = iter.seek_to_first()?;
    while more {
        let bytes = (iter.key().len() + iter.value().len()) as u64;
        chunks.push(Chunk { last: iter.key_bytes(), bytes });
        more = iter.next()?;
    }
    Ok(chunks)
}

/// The last key of the chunk that covers the middle; empty for no chunks. They are in the order of their keys.
pub(crate) fn middle_of(chunks: &[Chunk]) -> Bytes {
    let half = chunks.iter().map(|chunk| chunk.bytes).sum::<u64>() / 2;
    let mut sum = 0;
    let covers = |chunk: &&Chunk| {
        sum += chunk.bytes;
        half < sum
    };
    chunks.iter().find(covers).map(|chunk| chunk.last.clone()).unwrap_or_default()
}

/// The key of the cursor's range that is nearest to `guess` and greater than the first one; `None` if the range has
/// fewer than two keys.
///
/// A guess may be a key that was deleted, with nothing behind it, or not lie behind the first key.
pub(crate) fn settle(iter: &mut dyn Iter, guess: &[u8]) -> Result<Option<Bytes>> {
    if !iter.seek_to_first()? {
        return Ok(None);
    }
    let first = iter.key_bytes();
    let found = (iter.seek(guess)? && first < iter.key())
        || (iter.seek_for_prev(guess)? && first < iter.key());
    if !found {
        iter.seek(&first)?;
        if !iter.next()? {
            return Ok(None);
        }
    }
    Ok(Some(iter.key_bytes()))
}

#[cfg(test)]
mod tests {
    use types::KeyRange;

    use super::*;
    use crate::{Engine, Family, MemoryEngine, WriteBatch};

    fn chunk(last: &'static str, bytes: u64) -> Chunk {
        Chunk { last: last.into(), bytes }
    }

    #[test]
    fn the_middle_is_in_the_chunk_that_covers_it() {
        assert_eq!(middle_of(&[]), "");
        assert_eq!(middle_of(&[chunk("a", 1)]), "a");
        assert_eq!(middle_of(&[chunk("a", 5), chunk("b", 5)]), "b");
        assert_eq!(middle_of(&[chunk("a", 1), chunk("b", 9), chunk("c", 1)]), "b");
    }

    #[test]
    fn a_guess_settles_on_a_key_that_exists() {
        let engine = MemoryEngine::new();
        let settled = |guess: &str| {
            let mut iter =
                engine.snapshot().unwrap().iter(Family::Default, &KeyRange::all()).unwrap();
            settle(&mut *iter, guess.as_bytes()).unwrap()
        };
        let put = |key: &'static str| {
            let mut batch = WriteBatch::new();
            batch.put(Family::Default, key, "");
            engine.write(batch).unwrap();
        };
        assert_eq!(settled("m"), None);
        put("b");
        assert_eq!((settled(""), settled("b"), settled("m")), (None, None, None));
        put("d");
        put("f");
        let expected = [
            ("", "d"),
            ("a", "d"),
            ("b", "d"),
            ("c", "d"),
            ("d", "d"),
            ("e", "f"),
            ("f", "f"),
            ("m", "f"),
        ];
        for (guess, key) in expected {
            assert_eq!(settled(guess).unwrap(), key, "{guess}");
        }
    }
}
