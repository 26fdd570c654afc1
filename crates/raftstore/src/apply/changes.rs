//! What a command may do: look at the state before it, and change it.

use engine::{Engine, Family, WriteBatch};
use types::{Bytes, Cf, Modify, RegionId, TimeStamp};

use super::Written;
use crate::state::{self, ApplyState};

/// The changes of one command. All of them take effect together.
pub struct Changes<'a> {
    engine: &'a dyn Engine,
    /// Those of the commands before it that are not in the engine yet.
    batch: &'a mut WriteBatch,
    region: RegionId,
    /// What is applied before this command.
    applied: ApplyState,
    /// Reads below it would miss versions that were removed.
    safe_point: &'a mut TimeStamp,
    own: Vec<Modify>,
}

impl std::fmt::Debug for Changes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("region", &self.region).finish_non_exhaustive()
    }
}

impl<'a> Changes<'a> {
    pub(crate) fn new(
        engine: &'a dyn Engine,
        batch: &'a mut WriteBatch,
        region: RegionId,
        applied: ApplyState,
        safe_point: &'a mut TimeStamp,
    ) -> Changes<'a> {
        Changes { engine, batch, region, applied, safe_point, own: Vec::new() }
    }

    /// The stored value of `key` before this command; its own changes are not seen.
    pub fn get(&mut self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, engine::Error> {
        self.flush()?;
        self.engine.snapshot()?.get(Family::from(cf), key)
    }

    /// Changes something.
    pub fn push(&mut self, change: Modify) {
        self.own.push(change);
    }

    /// Versions are removed that reads below `safe_point` would need. That is remembered in the batch of their removal, for
    /// the regions that this one is cut into, and in its snapshots. It only grows.
    pub fn raise_safe_point(&mut self, safe_point: TimeStamp) {
        if *self.safe_point < safe_point {
            *self.safe_point = safe_point;
            state::put_safe_point(self.batch, self.region, safe_point);
        }
    }

    /// Puts the commands before this one into the engine, with how far that is.
    fn flush(&mut self) -> Result<(), engine::Error> {
        if !self.batch.is_empty() {
            state::put_apply_state(self.batch, self.region, self.applied);
            self.engine.write(std::mem::take(self.batch))?;
        }
        Ok(())
    }

    /// Adds the changes to the batch. A delete-range is no part of one (engine contract, point 6): it is done at once,
    /// after everything before it, and before the batch that says that it was; doing it again does no harm.
    pub(crate) fn finish(mut self) -> Result<Written, engine::Error> {
        let own = std::mem::take(&mut self.own);
        if own.iter().any(|change| matches!(change, Modify::DeleteRange { .. })) {
            self.flush()?;
        }
        let mut written = Written::default();
        for change in own {
            match change {
                Modify::Put { cf, key, value } => {
                    written += Written { bytes: (key.len() + value.len()) as u64, keys: 1 };
                    self.batch.put(cf, key, value);
                }
                Modify::Delete { cf, key } => self.batch.delete(cf, key),
                Modify::DeleteRange { cf, range } => {
                    if !self.batch.is_empty() {
                        self.engine.write(std::mem::take(self.batch))?;
                    }
                    self.engine.delete_range(Family::from(cf), &range)?;
                }
            }
        }
        Ok(written)
    }
}
