//! Which engine, with which settings, in which folder.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use crate::{Engine, MemoryEngine, Result};

/// An implementation of [`Engine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Keeps nothing: tests, simulation, `--memory`.
    Memory,
    /// The default on disk, pure Rust.
    Fjall,
    /// For heavy duty; a C++ library behind the Cargo feature `rocksdb`.
    RocksDb,
}

impl Kind {
    /// All of them, compiled in or not.
    pub const ALL: [Kind; 3] = [Kind::Memory, Kind::Fjall, Kind::RocksDb];

    /// The value of `storage.engine`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Fjall => "fjall",
            Kind::RocksDb => "rocksdb",
        }
    }

    /// The byte on disk.
    pub fn to_byte(self) -> u8 {
        match self {
            Kind::Memory => 0,
            Kind::Fjall => 1,
            Kind::RocksDb => 2,
        }
    }

    /// Reads the byte on disk.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Kind::Memory => true,
            Kind::Fjall => cfg!(feature = "fjall"),
            Kind::RocksDb => cfg!(feature = "rocksdb"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown engine \"{name}\": one of memory, fjall, rocksdb"))
    }
}

/// Settings of an engine; all but the row cache concern the disk. The defaults suit a small machine that does other things as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of table blocks kept in memory.
    pub cache_bytes: u64,
    /// Most bytes of keys and values that were read lately, kept in front of the engine; 0 for none.
    pub row_cache_bytes: u64,
    /// Bytes of one memtable before it becomes a table. A family may have a few waiting to be written. fjall
    /// keeps the value that its folder was created with.
    pub memtable_bytes: u64,
    /// Threads that write tables and merge them; at least 1.
    pub worker_threads: usize,
    /// Compresses tables with LZ4: less disk, more work per read of a cold block. fjall keeps the value that its
    /// folder was created with.
    pub compression: bool,
    /// Free bytes of the disk below which writes are refused with [`DiskFull`](crate::Error::DiskFull); 0 for no such check. Room
    /// for the memtables that are still to become tables.
    pub disk_reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 128 << 20,
            row_cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            worker_threads: 2,
            compression: false,
            disk_reserve_bytes: 32 << 20,
        }
    }
}

/// Opens the engine in `dir`, which is created if it is missing. The memory engine ignores `dir`.
///
/// The caller holds the lock of the data directory and has checked that `kind` is the one it was created with
/// ([`data_dir`](crate::data_dir)).
pub fn open(kind: Kind, dir: &Path, options: &Options) -> Result<Arc<dyn Engine>> {
    match kind {
        Kind::Memory => Ok(Arc::new(MemoryEngine::with_row_cache(options.row_cache_bytes))),
        #[cfg(feature = "fjall")]
        Kind::Fjall => Ok(Arc::new(crate::fjall::FjallEngine::open(dir, options)?)),
        #[cfg(feature = "rocksdb")]
        Kind::RocksDb => Ok(Arc::new(crate::rocksdb::RocksEngine::open(dir, options)?)),
        #[cfg(not(all(feature = "fjall", feature = "rocksdb")))]
        kind => {
            let _ = (dir, options);
            Err(crate::Error::NotBuilt { kind })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_come_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(Kind::from_byte(kind.to_byte()), Some(kind));
        }
        assert_eq!(Kind::ALL.map(Kind::to_byte), [0, 1, 2], "bytes on disk never change");
        assert_eq!(Kind::from_byte(3), None);
        assert!("leveldb".parse::<Kind>().unwrap_err().contains("memory, fjall, rocksdb"));
    }

    #[test]
    fn opens_what_is_built_and_says_how_to_get_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        for kind in Kind::ALL {
            match open(kind, &dir.path().join(kind.name()), &Options::default()) {
                Ok(engine) => {
                    assert!(kind.is_built());
                    engine.sync().unwrap();
                }
                Err(error) => {
                    assert!(!kind.is_built(), "{error}");
                    assert!(error.to_string().contains(&format!("--features {kind}")), "{error}");
                }
            }
        }
    }
}
