//! What the scheduler wants done to a region, and splits, which need ids of the scheduler before they can be proposed.
//!
//! Nothing here is remembered or repeated. Whoever asked asks again: the scheduler until a report shows that it was
//! done, the store at its next look at the size of the region.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raftstore::{SplitChild, store::RequestKind};
use scheduler::{Instruction, Order, PeerChange, PeerChangeKind};
use tokio::runtime::Handle;
use types::{
    Bytes, Code, Peer, PeerRole, Region, RegionEpoch, RegionId,
    limits::{SPLIT_REGIONS_MAX, SPLITS_UNDER_WAY_MAX},
};

use super::{Placement, PlacementError, Result};

/// Proposes something to a region of this store. Never blocks; nobody waits for what comes of it.
pub(crate) type Admin = Arc<dyn Fn(RegionId, RegionEpoch, RequestKind) + Send + Sync>;

/// Carries out what is wanted of the regions of a store. Clones share it; all may be used on any thread.
#[derive(Clone)]
pub(crate) struct Orders {
    inside: Arc<Inside>,
}

struct Inside {
    placement: Placement,
    admin: Admin,
    runtime: Handle,
    /// Regions for whose split the scheduler is being asked for ids.
    splitting: Mutex<BTreeSet<RegionId>>,
}

impl Orders {
    /// Must be called on the runtime on which the scheduler is to be asked.
    pub(crate) fn new(placement: Placement, admin: Admin) -> Orders {
        let (runtime, splitting) = (Handle::current(), Mutex::default());
        Orders { inside: Arc::new(Inside { placement, admin, runtime, splitting }) }
    }

    /// Does what the scheduler wants, if the region is still as it was when that was wanted.
    pub(crate) fn carry_out(&self, order: Order) {
        if let Some(kind) = to_request(&order) {
            return (self.inside.admin)(order.region, order.epoch, kind);
        }
        let Order { region: id, epoch, instruction, .. } = order;
        match instruction {
            // The order names no peers, and those that the scheduler knows belong to its epoch.
            Instruction::Split { keys } => self.begin_split(id, async move |inside| {
                match inside.placement.region_by_id(id).await? {
                    Some(region) if region.epoch == epoch => inside.split(region, keys).await,
                    _ => Ok(()),
                }
            }),
            // A joint state is left by itself.
            Instruction::ChangePeer(_)
            | Instruction::ChangePeers(_)
            | Instruction::TransferLeader { .. } => {}
        }
    }

    /// Splits a region that is led here at `keys`: asks for ids and proposes it.
    pub(crate) fn split(&self, region: Region, keys: Vec<Bytes>) {
        self.begin_split(region.id, async move |inside| inside.split(region, keys).await);
    }

    /// Splits a region in the background, unless that is under way already or too many others are.
    fn begin_split<S>(&self, region: RegionId, split: impl FnOnce(Arc<Inside>) -> S)
    where
        S: Future<Output = Result<()>> + Send + 'static,
    {
        let mut splitting = self.inside.splitting();
        if SPLITS_UNDER_WAY_MAX <= splitting.len() || !splitting.insert(region) {
            return;
        }
        drop(splitting);
        let inside = Arc::clone(&self.inside);
        let split = split(Arc::clone(&inside));
        self.inside.runtime.spawn(async move {
            if let Err(error) = split.await {
                tracing::debug!(region = region.0, %error, code = %error.code, "a region was not split");
            }
            inside.splitting().remove(&region);
        });
    }
}

impl Inside {
    /// Asks for ids and proposes a split at those of `keys` that lie inside of the region.
    async fn split(&self, region: Region, keys: Vec<Bytes>) -> Result<()> {
        let is_inside = |key: &Bytes| region.range.start < key && region.range.contains(key);
        let keys: BTreeSet<Bytes> = keys.into_iter().filter(is_inside).collect();
        let keys: Vec<Bytes> = keys.into_iter().take(SPLIT_REGIONS_MAX as usize).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let children = split_children(&self.placement, &region, keys).await?;
        (self.admin)(region.id, region.epoch, RequestKind::Split { children });
        Ok(())
    }

    fn splitting(&self) -> MutexGuard<'_, BTreeSet<RegionId>> {
        self.splitting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The regions that a split of `region` at `keys`, [`SPLIT_REGIONS_MAX`] at most, makes; with ids of the scheduler.
pub(crate) async fn split_children(
    placement: &Placement,
    region: &Region,
    keys: Vec<Bytes>,
) -> Result<Vec<SplitChild>> {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let ids = placement.ask_batch_split(region, count).await?;
    if ids.len() != keys.len() {
        let message = format!("{count} new regions have {} ids", ids.len());
        return Err(PlacementError::new(Code::Bug, message));
    }
    let child = |(start, ids): (Bytes, scheduler::SplitIds)| SplitChild {
        start,
        region_id: ids.region,
        peer_ids: ids.peers,
    };
    Ok(keys.into_iter().zip(ids).map(child).collect())
}

/// What an order asks of the store. `None` for a split at keys, which needs ids first, and for leaving a joint state,
/// which the store does by itself.
pub(crate) fn to_request(order: &Order) -> Option<RequestKind> {
    match &order.instruction {
        Instruction::ChangePeer(change) => {
            Some(RequestKind::ChangeMembers { changes: vec![member_change(change)] })
        }
        Instruction::ChangePeers(changes) => {
            let changes: Vec<_> = changes.iter().map(member_change).collect();
            (!changes.is_empty()).then_some(RequestKind::ChangeMembers { changes })
        }
        Instruction::TransferLeader { to } => Some(RequestKind::TransferLeader { to: to.id }),
        // The store looks for the middle, and asks for ids when it knows it.
        Instruction::Split { keys } if keys.is_empty() => Some(RequestKind::SplitHalf),
        Instruction::Split { .. } => None,
    }
}

fn member_change(change: &PeerChange) -> (Option<PeerRole>, Peer) {
    let role = match change.kind {
        PeerChangeKind::Voter => Some(PeerRole::Voter),
        PeerChangeKind::Learner => Some(PeerRole::Learner),
        PeerChangeKind::Remove => None,
    };
    (role, change.peer)
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Orders({:?})", self.inside.placement)
    }
}
