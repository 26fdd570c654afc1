//! Checks fjall's manifests before fjall reads them.
//!
//! The manifest of a keyspace lists its tables. fjall writes its checksum beside it and does not look at that when
//! it opens: a flipped bit there makes it drop tables from the list, and delete them as leftovers, or ask for more
//! memory than there is. So the checksum is compared here. Everything else that fjall reads (journal, tables) it
//! checks itself.
//!
//! The layout is that of fjall 3 (lsm-tree 3.1): in each folder of `keyspaces/` a file `current` with the manifest's
//! number (u64, little-endian), its XXH3 (u128, little-endian) and a zero for that kind of checksum; the manifest is
//! the file `v<number>`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_128;

use crate::{Error, Result};

/// Refuses a folder one of whose manifests is not what was written. A folder that is empty, missing or half created
/// is fine: fjall sees to those.
pub(super) fn verify(dir: &Path) -> Result<()> {
    list(&dir.join("keyspaces"))?.iter().try_for_each(|keyspace| verify_keyspace(keyspace))
}

fn verify_keyspace(keyspace: &Path) -> Result<()> {
    let current = keyspace.join("current");
    let Some(bytes) = read(&current)? else {
        // A keyspace without `current` was not created to the end, so it can't have tables yet. With tables, the
        // file is lost, and fjall would delete the rest of the keyspace.
        if list(&keyspace.join("tables"))?.is_empty() {
            return Ok(());
        }
        return Err(corrupt(&current, "it is missing, but there are tables"));
    };
    let fields = bytes
        .split_first_chunk::<8>()
        .and_then(|(number, rest)| Some((number, rest.split_first_chunk()?)));
    let Some((number, (checksum, [0]))) = fields else {
        return Err(corrupt(&current, "it has no checksum of the kind that is known"));
    };
    let manifest = keyspace.join(format!("v{}", u64::from_le_bytes(*number)));
    let Some(bytes) = read(&manifest)? else {
        return Err(corrupt(&current, "it names a manifest that is not there"));
    };
    if xxh3_128(&bytes) != u128::from_le_bytes(*checksum) {
        return Err(corrupt(&manifest, "its checksum is another one"));
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        entries => entries,
    };
    let paths = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    paths.map_err(|error| io_error("listing of a folder", dir, error))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(io_error("read of a manifest", path, error)),
    }
}

fn corrupt(path: &Path, detail: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), detail: detail.to_owned() }
}

fn io_error(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Io { operation, path: path.to_owned(), source: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Family, Options, WriteBatch, fjall::FjallEngine};

    fn created() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), &Options::default()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, "k", "v");
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        dir
    }

    #[test]
    fn what_fjall_writes_is_accepted() {
        let dir = created();
        verify(dir.path()).unwrap();
        verify(&dir.path().join("missing")).unwrap();
        verify(&dir.path().join("lock")).unwrap();
    }

    /// The last keyspace that has tables.
    fn filled(dir: &Path) -> PathBuf {
        let mut keyspaces = list(&dir.join("keyspaces")).unwrap();
        keyspaces.retain(|keyspace| !list(&keyspace.join("tables")).unwrap().is_empty());
        keyspaces.into_iter().max().unwrap()
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_refused() {
        let dir = created();
        let keyspace = filled(dir.path());
        let current = keyspace.join("current");
        let number = u64::from_le_bytes(fs::read(&current).unwrap()[..8].try_into().unwrap());
        for file in [current, keyspace.join(format!("v{number}"))] {
            let sound = fs::read(&file).unwrap();
            for bit in 0..sound.len() * 8 {
                let mut damaged = sound.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, damaged).unwrap();
                let result = verify_keyspace(&keyspace);
                assert!(matches!(result, Err(Error::Corrupt { .. })), "bit {bit} of {file:?}");
            }
            fs::write(&file, sound).unwrap();
        }
        verify(dir.path()).unwrap();
    }

    #[test]
    fn a_lost_manifest_is_refused() {
        let dir = created();
        let keyspace = filled(dir.path());
        fs::remove_file(keyspace.join("current")).unwrap();
        assert!(matches!(verify(dir.path()), Err(Error::Corrupt { .. })));
    }
}
