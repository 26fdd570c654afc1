//! Splits that the scheduler does not know of yet.
//!
//! A client that is told of a split asks the scheduler for its way to the new regions. Were the scheduler behind, it
//! would send the client back to where it came from. The answer that tells of a split therefore waits until the
//! scheduler has acknowledged it, for [`PATIENCE`] at most: data are served without a scheduler as well.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use types::{Region, RegionId};

/// For how long an answer waits.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// The regions that have come of splits of which the scheduler does not know. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unreported {
    inside: Arc<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    regions: Mutex<BTreeSet<RegionId>>,
    changed: Notify,
}

impl Unreported {
    /// A region was cut into `regions`; they are known once the result is dropped.
    pub(crate) fn begin(&self, regions: &[Region]) -> Reporting {
        let ids: Vec<RegionId> = regions.iter().map(|region| region.id).collect();
        self.lock().extend(&ids);
        Reporting { unreported: self.clone(), ids }
    }

    /// Waits until the scheduler knows `regions`, as long as is reasonable.
    pub(crate) async fn wait(&self, regions: &[Region]) {
        let known = async {
            loop {
                let changed = self.inside.changed.notified();
                if !self.has_any(regions) {
                    return;
                }
                changed.await;
            }
        };
        if self.has_any(regions) {
            // Longer would be worse than a wrong way.
            let _ = tokio::time::timeout(PATIENCE, known).await;
        }
    }

    fn has_any(&self, regions: &[Region]) -> bool {
        let unreported = self.lock();
        regions.iter().any(|region| unreported.contains(&region.id))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<RegionId>> {
        self.inside.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A split whose report is under way.
#[derive(Debug)]
pub(crate) struct Reporting {
    unreported: Unreported,
    ids: Vec<RegionId>,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let mut unreported = self.unreported.lock();
        for id in &self.ids {
            unreported.remove(id);
        }
        drop(unreported);
        self.unreported.inside.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn region(id: u64) -> Region {
        Region { id: RegionId(id), ..Region::default() }
    }

    #[test]
    fn an_answer_waits_for_the_report() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let unreported = Unreported::default();
        let (one, other) = ([region(1)], [region(3)]);
        assert!(unreported.wait(&one).now_or_never().is_some(), "nothing is known to be missing");

        let report = unreported.begin(&[region(1), region(2)]);
        assert!(unreported.wait(&other).now_or_never().is_some(), "it is about others");
        let mut waiter = Box::pin(unreported.wait(&one));
        assert!(waiter.as_mut().now_or_never().is_none());
        drop(report);
        assert!(waiter.as_mut().now_or_never().is_some(), "the report was acknowledged");

        let _lost = unreported.begin(&one);
        runtime.block_on(unreported.wait(&one));
    }
}
