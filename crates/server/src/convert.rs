//! Protobuf to the inside's types and back. Nothing below this crate sees a protobuf message.

use proto::{eraftpb, internal, kvrpcpb, metapb, pdpb};
use scheduler::{Instruction, Order, PeerChange, PeerChangeKind};
use storage::KvPair;
use types::{
    ApiMode, ApiVersion, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    RequestContext, StoreId,
};

/// The context of a request. A missing one is a context that names nothing; the store refuses it.
pub(crate) fn context(context: Option<&kvrpcpb::Context>) -> RequestContext {
    let Some(context) = context else { return RequestContext::default() };
    RequestContext {
        region_id: RegionId(context.region_id),
        epoch: context.region_epoch.as_ref().map(epoch),
        peer_id: PeerId(context.peer.as_ref().map_or(0, |peer| peer.id)),
        store_id: StoreId(context.peer.as_ref().map_or(0, |peer| peer.store_id)),
        // An unknown number is a client from the future, whose keys have a prefix.
        api_version: match kvrpcpb::ApiVersion::try_from(context.api_version) {
            Ok(kvrpcpb::ApiVersion::V1) => ApiVersion::V1,
            Ok(kvrpcpb::ApiVersion::V1ttl) => ApiVersion::V1Ttl,
            Ok(_) | Err(_) => ApiVersion::V2,
        },
        replica_read: context.replica_read,
        stale_read: context.stale_read,
    }
}

/// An epoch from the wire.
pub(crate) fn epoch(epoch: &metapb::RegionEpoch) -> RegionEpoch {
    RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version }
}

/// A range from the wire.
pub(crate) fn key_range(range: kvrpcpb::KeyRange) -> KeyRange {
    KeyRange { start: range.start_key, end: range.end_key }
}

/// A region from the wire. An unknown peer role is a learner: it counts for nothing.
pub(crate) fn region(region: metapb::Region) -> Region {
    Region {
        id: RegionId(region.id),
        range: KeyRange { start: region.start_key, end: region.end_key },
        epoch: region.region_epoch.as_ref().map(epoch).unwrap_or_default(),
        peers: region.peers.iter().map(peer).collect(),
    }
}

/// A peer from the wire.
pub(crate) fn peer(peer: &metapb::Peer) -> Peer {
    Peer {
        id: PeerId(peer.id),
        store_id: StoreId(peer.store_id),
        role: u8::try_from(peer.role)
            .ok()
            .and_then(PeerRole::from_byte)
            .unwrap_or(PeerRole::Learner),
    }
}

/// A region for the wire.
pub(crate) fn region_to_proto(region: &Region) -> metapb::Region {
    metapb::Region {
        id: region.id.0,
        start_key: region.range.start.clone(),
        end_key: region.range.end.clone(),
        region_epoch: Some(epoch_to_proto(region.epoch)),
        peers: region.peers.iter().map(peer_to_proto).collect(),
        ..metapb::Region::default()
    }
}

/// An epoch for the wire.
pub(crate) fn epoch_to_proto(epoch: RegionEpoch) -> metapb::RegionEpoch {
    metapb::RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version }
}

/// A peer for the wire.
pub(crate) fn peer_to_proto(peer: &Peer) -> metapb::Peer {
    metapb::Peer {
        id: peer.id.0,
        store_id: peer.store_id.0,
        role: i32::from(peer.role.to_byte()),
        ..metapb::Peer::default()
    }
}

/// A pair for the wire.
pub(crate) fn pair_to_proto(pair: KvPair) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key: pair.key, value: pair.value, ..kvrpcpb::KvPair::default() }
}

/// The API mode for our own wire.
pub(crate) fn api_mode_to_proto(mode: ApiMode) -> internal::ApiMode {
    match mode {
        ApiMode::V1 => internal::ApiMode::V1,
        ApiMode::V1Ttl => internal::ApiMode::V1ttl,
        ApiMode::V2 => internal::ApiMode::V2,
    }
}

/// The API mode from our own wire; `None` is one from the future.
pub(crate) fn api_mode(mode: i32) -> Option<ApiMode> {
    match internal::ApiMode::try_from(mode).ok()? {
        internal::ApiMode::V1 => Some(ApiMode::V1),
        internal::ApiMode::V1ttl => Some(ApiMode::V1Ttl),
        internal::ApiMode::V2 => Some(ApiMode::V2),
    }
}

/// The key mode for our own wire.
pub(crate) fn key_mode_to_proto(mode: Option<KeyMode>) -> internal::KeyMode {
    match mode {
        None => internal::KeyMode::Undecided,
        Some(KeyMode::Raw) => internal::KeyMode::Raw,
        Some(KeyMode::Txn) => internal::KeyMode::Txn,
    }
}

/// The key mode from our own wire; `None` is undecided.
pub(crate) fn key_mode(mode: i32) -> Option<KeyMode> {
    match internal::KeyMode::try_from(mode).ok()? {
        internal::KeyMode::Undecided => None,
        internal::KeyMode::Raw => Some(KeyMode::Raw),
        internal::KeyMode::Txn => Some(KeyMode::Txn),
    }
}

/// An order for the wire, without a header.
pub(crate) fn order_to_proto(order: Order) -> pdpb::RegionHeartbeatResponse {
    let mut out = pdpb::RegionHeartbeatResponse {
        region_id: order.region.0,
        region_epoch: Some(epoch_to_proto(order.epoch)),
        target_peer: Some(peer_to_proto(&order.leader)),
        ..pdpb::RegionHeartbeatResponse::default()
    };
    match order.instruction {
        Instruction::ChangePeer(change) => out.change_peer = Some(peer_change_to_proto(&change)),
        Instruction::ChangePeers(changes) => {
            let changes = changes.iter().map(peer_change_to_proto).collect();
            out.change_peer_v2 = Some(pdpb::ChangePeerV2 { changes });
        }
        Instruction::TransferLeader { to } => {
            let (peer, peers) = (Some(peer_to_proto(&to)), Vec::new());
            out.transfer_leader = Some(pdpb::TransferLeader { peer, peers });
        }
        Instruction::Split { keys } => {
            let policy = match keys.as_slice() {
                [] => pdpb::CheckPolicy::Approximate,
                _ => pdpb::CheckPolicy::Usekey,
            };
            out.split_region = Some(pdpb::SplitRegion { policy: policy.into(), keys });
        }
    }
    out
}

/// An order from the wire; `None` if it is none, or one that this version does not know.
pub(crate) fn order(answer: pdpb::RegionHeartbeatResponse) -> Option<Order> {
    let instruction = if let Some(change) = &answer.change_peer {
        Instruction::ChangePeer(peer_change(change)?)
    } else if let Some(several) = &answer.change_peer_v2 {
        let changes = several.changes.iter().map(peer_change).collect::<Option<_>>()?;
        Instruction::ChangePeers(changes)
    } else if let Some(transfer) = &answer.transfer_leader {
        Instruction::TransferLeader { to: peer(transfer.peer.as_ref()?) }
    } else {
        let split = answer.split_region?;
        let keys = match split.policy() {
            pdpb::CheckPolicy::Usekey => split.keys,
            pdpb::CheckPolicy::Scan | pdpb::CheckPolicy::Approximate => Vec::new(),
        };
        Instruction::Split { keys }
    };
    Some(Order {
        region: RegionId(answer.region_id),
        epoch: answer.region_epoch.as_ref().map(epoch).unwrap_or_default(),
        leader: answer.target_peer.as_ref().map(peer)?,
        instruction,
    })
}

fn peer_change_to_proto(change: &PeerChange) -> pdpb::ChangePeer {
    let change_type = match change.kind {
        PeerChangeKind::Voter => eraftpb::ConfChangeType::AddNode,
        PeerChangeKind::Learner => eraftpb::ConfChangeType::AddLearnerNode,
        PeerChangeKind::Remove => eraftpb::ConfChangeType::RemoveNode,
    };
    pdpb::ChangePeer { peer: Some(peer_to_proto(&change.peer)), change_type: change_type.into() }
}

fn peer_change(change: &pdpb::ChangePeer) -> Option<PeerChange> {
    let kind = match eraftpb::ConfChangeType::try_from(change.change_type).ok()? {
        eraftpb::ConfChangeType::AddNode => PeerChangeKind::Voter,
        eraftpb::ConfChangeType::AddLearnerNode => PeerChangeKind::Learner,
        eraftpb::ConfChangeType::RemoveNode => PeerChangeKind::Remove,
    };
    Some(PeerChange { kind, peer: change.peer.as_ref().map(peer)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_the_same_after_the_wire() {
        let peer = |id, role| Peer { id: PeerId(id), store_id: StoreId(id + 100), role };
        let change = |kind, role| PeerChange { kind, peer: peer(3, role) };
        let changes = [
            change(PeerChangeKind::Voter, PeerRole::Voter),
            change(PeerChangeKind::Learner, PeerRole::Learner),
            change(PeerChangeKind::Remove, PeerRole::Voter),
        ];
        let single = changes.into_iter().map(Instruction::ChangePeer);
        let others = [
            Instruction::ChangePeers(changes.to_vec()),
            Instruction::ChangePeers(Vec::new()),
            Instruction::TransferLeader { to: peer(4, PeerRole::Voter) },
            Instruction::Split { keys: vec!["k".into(), "m".into()] },
            Instruction::Split { keys: Vec::new() },
        ];
        for instruction in single.chain(others) {
            let sent = Order {
                region: RegionId(1),
                epoch: RegionEpoch { conf_ver: 5, version: 6 },
                leader: peer(2, PeerRole::Voter),
                instruction,
            };
            assert_eq!(order(order_to_proto(sent.clone())), Some(sent));
        }
    }

    #[test]
    fn what_is_no_order_is_none() {
        let empty = pdpb::RegionHeartbeatResponse::default();
        assert_eq!(order(empty.clone()), None);
        let merge = pdpb::RegionHeartbeatResponse {
            merge: Some(pdpb::Merge::default()),
            target_peer: Some(metapb::Peer::default()),
            ..empty.clone()
        };
        assert_eq!(order(merge), None);
        let for_nobody = pdpb::RegionHeartbeatResponse {
            change_peer_v2: Some(pdpb::ChangePeerV2::default()),
            ..empty
        };
        assert_eq!(order(for_nobody), None);
    }
}
