//! The hash of a region's replica: whether all of them have the same.
//!
//! The leader has an entry applied ([`AdminCommand::ComputeHash`](crate::AdminCommand)) at which every replica takes a
//! snapshot of its engine. What is in it depends on the entries before alone, so that the hashes are equal if nothing
//! is wrong with anybody's disk or code. The leader's hash then travels in an entry of its own, and each compares.

use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use engine::{Family, Snapshot};
use types::{Cf, Region, codec::Writer};

use crate::{error::Result, state::put_region};

/// A replica as it is right before an entry, to be hashed by somebody who may wait.
#[derive(Clone, Debug)]
pub struct HashJob {
    /// The region.
    pub region: Region,
    /// The index of the entry.
    pub index: u64,
    /// The engine.
    pub snapshot: Arc<dyn Snapshot>,
}

impl HashJob {
    /// The hash: CRC-64/XZ over the region and all its pairs, family by family, each with the lengths of its parts.
    ///
    /// # Errors
    /// The engine failed.
    pub fn run(&self) -> Result<u64> {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Xz);
        let mut region = Writer::new();
        put_region(&mut region, &self.region);
        digest.update(&region.finish());
        for cf in Cf::ALL {
            digest.update(&[cf.to_byte()]);
            let mut iter = self.snapshot.iter(Family::from(cf), &self.region.range)?;
            let mut valid = iter.seek_to_first()?;
            while valid {
                for part in [iter.key(), iter.value()] {
                    digest.update(&(part.len() as u64).to_be_bytes());
                    digest.update(part);
                }
                valid = iter.next()?;
            }
        }
        Ok(digest.finalize())
    }
}
