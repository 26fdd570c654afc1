//! Splits that a client asks for and waits for.

use raftstore::{SplitChild, store::RequestKind};
use types::{Bytes, Region, RequestContext};

use super::{Proposal, Storage, proposal::Slot, storage::Backend};
use crate::{Error, Result, regions};

impl Storage {
    /// The region that a request is for, and those of `keys` (in stored form) at which it can be cut, in order, each once:
    /// all but its own first key.
    ///
    /// # Errors
    /// `KeyNotInRegion`, and as of raw writes.
    pub fn check_split(
        &self,
        ctx: &RequestContext,
        mut keys: Vec<Bytes>,
    ) -> Result<(Region, Vec<Bytes>)> {
        let region = self.inner().checks().regions.check(ctx)?;
        for key in &keys {
            regions::check_key(&region, key)?;
        }
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| *key != region.range.start);
        Ok((Region::clone(&region), keys))
    }

    /// Cuts `region`, which is led here, and answers what has come of it, in the order of keys.
    pub fn split(&self, region: &Region, children: Vec<SplitChild>) -> Proposal<Vec<Region>> {
        let Backend::Replicated(replicated) = self.inner().backend() else {
            let reason = "the regions of a store without replication are not cut".to_owned();
            return Proposal::refused(Error::InvalidRequest(reason));
        };
        let (slot, ticket) = Slot::new();
        replicated.ask_split(region, RequestKind::Split { children }, ticket);
        Proposal::proposed(slot, None)
    }
}
