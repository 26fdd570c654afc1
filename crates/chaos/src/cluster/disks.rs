//! A disk of its own for each store: to lose its power, fail, and fill up.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;

use super::processes::{Cluster, Place};
use crate::{
    disk::{LoopDisk, allowed},
    disk_full::{LEFT_BYTES, fill},
};

/// Size of each disk. Their files are sparse.
const DISK_MIB: u64 = 512;

/// The disks of the stores.
#[derive(Debug)]
pub struct Disks(BTreeMap<Place, LoopDisk>);

impl Disks {
    /// Makes them, and moves the stores' data there; nothing may have been started yet.
    ///
    /// # Errors
    /// Why this machine does not permit it, in words.
    pub fn create(cluster: &mut Cluster) -> Result<Disks, String> {
        allowed()?;
        let mut disks = BTreeMap::new();
        for place in cluster.stores() {
            let folder = cluster.dir().join(place.to_string());
            let disk = LoopDisk::create(&folder, DISK_MIB).map_err(|error| format!("{error:#}"))?;
            cluster.node_mut(place).data = disk.path().join("data");
            disks.insert(place, disk);
        }
        Ok(Disks(disks))
    }

    /// Everything that was not synced is gone, and everything fails from now on.
    ///
    /// # Errors
    /// See [`LoopDisk::cut_power`].
    pub fn cut_power(&mut self, place: Place) -> anyhow::Result<()> {
        self.disk(place)?.cut_power()
    }

    /// The disk works again, with what was synced. The store must be dead.
    ///
    /// # Errors
    /// See [`LoopDisk::remount`].
    pub fn remount(&mut self, place: Place) -> anyhow::Result<()> {
        self.disk(place)?.remount()
    }

    /// Takes the space: all but a little, or the last byte.
    ///
    /// # Errors
    /// The file system refuses for another reason.
    pub fn fill(&mut self, place: Place, to_the_last_byte: bool) -> anyhow::Result<()> {
        let filler = self.filler(place)?;
        fill(self.disk(place)?, &filler, if to_the_last_byte { 0 } else { LEFT_BYTES })
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn free(&mut self, place: Place) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler(place)?)?)
    }

    fn filler(&mut self, place: Place) -> anyhow::Result<PathBuf> {
        Ok(self.disk(place)?.path().join("filler"))
    }

    fn disk(&mut self, place: Place) -> anyhow::Result<&mut LoopDisk> {
        self.0.get_mut(&place).with_context(|| format!("{place} has no disk"))
    }
}
