//! When a region's log is compacted: a leader proposes it, and every peer does it when that is applied and what is applied
//! is durable in the engine (`AfterSync::Compact`).

use engine::raft_log::RaftLog;

use crate::{config::StoreConfig, peer::Peer};

/// Has the log of a region compacted if it has many entries, or large ones. Followers that are a little behind are spared.
pub(super) fn compact_if_long(config: &StoreConfig, log: &RaftLog, peer: &mut Peer) {
    let region = peer.region_id().0;
    let Some(bounds) = log.bounds(region) else { return };
    let applied = peer.applied.index;
    let is_long = bounds.base_index.max(peer.compacting) + config.log_gc_entries <= applied;
    let is_large = config.log_gc_bytes < log.bytes(region);
    if !is_long && !is_large {
        return;
    }
    let slowest = peer.node.peers().map(|peer| peer.matched).min().unwrap_or(applied);
    let mut spared = applied.saturating_sub(config.log_gc_spare);
    if is_large {
        spared = spared.max(log.before_last(region, config.log_gc_bytes));
    }
    let index = slowest.max(spared).min(applied.saturating_sub(1));
    if bounds.base_index < index {
        peer.compact_log(index);
    }
}
