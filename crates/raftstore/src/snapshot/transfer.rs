//! The file of a snapshot on its way from one store to another: read here in pieces, written there in order.
//!
//! A file that is being received has a temporary name of its own, so that two senders of one snapshot do not meet in
//! it. It gets its name when all of it is durable; until then dropping it removes it, and what a crash leaves is
//! removed by [`Snapshots::open`]. Who carries the pieces protects them with checksums: the records in the file are
//! checked only when it is installed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use runtime::fs::{File, Fs};
use types::{Bytes, codec::DecodeError};

use super::{Descriptor, Snapshots, damaged, io as io_error};
use crate::error::Result;

/// What the name of a file that is not whole ends with.
const TEMPORARY: &str = "tmp";

impl Snapshots {
    /// The folder of the files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens a file that was made here, to be sent. It can be read to its end even if it is removed meanwhile.
    ///
    /// # Errors
    /// It is not there, or the disk failed.
    pub fn send(&self, path: &Path) -> Result<Sending> {
        let Some(bytes) = self.size(path)? else {
            return Err(io_error(path, io::ErrorKind::NotFound.into()));
        };
        let file = self.fs.open(path).map_err(|error| io_error(path, error))?;
        Ok(Sending { path: path.to_owned(), file, bytes })
    }

    /// Begins the file of a snapshot that comes from another store.
    ///
    /// # Errors
    /// The disk failed, or is full.
    pub fn receive(&self, descriptor: &Descriptor) -> Result<Receiving> {
        let path = self.received(descriptor.region.id, descriptor.applied);
        let number = self.receiving.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{number}.{TEMPORARY}"));
        let file = self.fs.open(&temporary).map_err(|error| io_error(&temporary, error))?;
        let receiving = Receiving {
            snapshots: self.clone(),
            path,
            temporary,
            file,
            bytes: descriptor.bytes,
            written: 0,
            is_whole: false,
        };
        // A name that a crash has left, if nobody has opened this folder since.
        receiving.file.set_len(0).map_err(|error| io_error(&receiving.temporary, error))?;
        Ok(receiving)
    }

    /// Removes what was being made or received when the store ended.
    pub(super) fn remove_leftovers(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        for path in fs.list(dir)? {
            if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                fs.remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The file of a snapshot that is being sent.
#[derive(Clone, Debug)]
pub struct Sending {
    path: PathBuf,
    file: Arc<dyn File>,
    bytes: u64,
}

impl Sending {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Up to `max` bytes from `offset` on; none at the end.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self, offset: u64, max: usize) -> Result<Bytes> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(max)];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| io_error(&self.path, error))?;
        Ok(bytes.into())
    }
}

/// The file of a snapshot that is being received. Dropping it before [`Receiving::finish`] removes it.
#[derive(Debug)]
pub struct Receiving {
    snapshots: Snapshots,
    path: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn File>,
    bytes: u64,
    written: u64,
    is_whole: bool,
}

impl Receiving {
    /// Bytes that are there.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends the next bytes.
    ///
    /// # Errors
    /// They are more than the snapshot has, or the disk failed or is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.written + bytes.len() as u64;
        if self.bytes < end {
            return Err(damaged(&self.temporary, DecodeError::Invalid("length: it is too long")));
        }
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| io_error(&self.temporary, error))?;
        self.written = end;
        Ok(())
    }

    /// All of it is there: makes it durable under the name that [`Snapshots::received`] says.
    ///
    /// # Errors
    /// Bytes are missing, or the disk failed.
    pub fn finish(mut self) -> Result<()> {
        if self.written != self.bytes {
            return Err(damaged(&self.temporary, DecodeError::Truncated));
        }
        let publish = || {
            self.file.sync()?;
            self.snapshots.fs.rename(&self.temporary, &self.path)
        };
        publish().map_err(|error| io_error(&self.path, error))?;
        self.is_whole = true;
        let dir = self.snapshots.dir();
        self.snapshots.fs.sync_dir(dir).map_err(|error| io_error(dir, error))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.is_whole {
            // A disk that refuses this too leaves a file that the next start removes.
            let _ = self.snapshots.fs.remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::{Rng, sim::SimFs};
    use types::{Region, RegionId};

    use super::*;
    use crate::state::ApplyState;

    const DIR: &str = "/store/snapshots";

    fn snapshots(fs: &SimFs) -> Snapshots {
        fs.create_dir_all(Path::new("/store")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        Snapshots::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap()
    }

    fn descriptor(bytes: u64) -> Descriptor {
        let region = Region { id: RegionId(7), ..Region::default() };
        Descriptor { region, applied: ApplyState { index: 9, term: 4 }, bytes }
    }

    fn files(fs: &SimFs) -> Vec<PathBuf> {
        fs.list(Path::new(DIR)).unwrap()
    }

    fn received(snapshots: &Snapshots) -> PathBuf {
        let Descriptor { region, applied, .. } = descriptor(0);
        snapshots.received(region.id, applied)
    }

    #[test]
    fn what_is_sent_in_pieces_is_received_byte_for_byte() {
        let fs = SimFs::new();
        let snapshots = snapshots(&fs);
        let made = snapshots.made(RegionId(7), descriptor(0).applied);
        let bytes: Vec<u8> = (0..100_000u32).map(|byte| (byte % 251) as u8).collect();
        fs.replace(&made, &bytes).unwrap();
        let sending = snapshots.send(&made).unwrap();
        let mut receiving = snapshots.receive(&descriptor(sending.bytes())).unwrap();
        loop {
            let piece = sending.read(receiving.written(), 4096).unwrap();
            if piece.is_empty() {
                break;
            }
            receiving.write(&piece).unwrap();
        }
        receiving.finish().unwrap();
        assert_eq!(fs.read(&received(&snapshots)).unwrap().unwrap(), bytes);
        assert_eq!(files(&fs).len(), 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made_by_sending_it() {
        let fs = SimFs::new();
        let snapshots = snapshots(&fs);
        assert!(snapshots.send(&snapshots.made(RegionId(1), descriptor(0).applied)).is_err());
        assert!(files(&fs).is_empty());
    }

    #[test]
    fn a_file_that_is_too_short_or_too_long_is_refused_and_removed() {
        let fs = SimFs::new();
        let snapshots = snapshots(&fs);
        let mut receiving = snapshots.receive(&descriptor(5)).unwrap();
        receiving.write(b"abcd").unwrap();
        assert!(receiving.finish().is_err());
        let mut receiving = snapshots.receive(&descriptor(5)).unwrap();
        receiving.write(b"abcd").unwrap();
        assert!(receiving.write(b"ef").is_err());
        drop(receiving);
        assert!(files(&fs).is_empty());
    }

    #[test]
    fn two_senders_of_one_snapshot_do_not_meet_in_its_file() {
        let fs = SimFs::new();
        let snapshots = snapshots(&fs);
        let mut first = snapshots.receive(&descriptor(4)).unwrap();
        let mut second = snapshots.clone().receive(&descriptor(4)).unwrap();
        first.write(b"ab").unwrap();
        second.write(b"abcd").unwrap();
        second.finish().unwrap();
        drop(first);
        assert_eq!(fs.read(&received(&snapshots)).unwrap().unwrap(), b"abcd");
        assert_eq!(files(&fs).len(), 1);
    }

    /// A crash at every operation: the file with the name is whole, and a start leaves nothing else.
    #[test]
    fn a_crash_leaves_the_whole_file_or_none() {
        let mut rng = Rng::new(1);
        for cut in 0.. {
            let fs = SimFs::new();
            let snapshots = snapshots(&fs);
            fs.cut_power_after(cut);
            let receive = || {
                let mut receiving = snapshots.receive(&descriptor(9_000))?;
                receiving.write(&[1; 4_500])?;
                receiving.write(&[2; 4_500])?;
                receiving.finish()
            };
            let arrived = receive().is_ok();
            let fs = fs.crash(&mut rng);
            let snapshots = Snapshots::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
            match fs.read(&received(&snapshots)).unwrap() {
                Some(bytes) => assert_eq!(bytes, [[1; 4_500], [2; 4_500]].concat()),
                None => assert!(!arrived, "it was durable"),
            }
            assert!(files(&fs).iter().all(|path| *path == received(&snapshots)));
            if arrived {
                assert!(4 < cut, "the power did go before");
                return;
            }
        }
    }
}
