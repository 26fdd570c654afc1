//! Protobuf to the inside's types and back. Nothing below this crate sees a protobuf message.

use proto::{internal, kvrpcpb, metapb};
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
