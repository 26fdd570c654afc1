//! Protobuf to the inside's types and back, and the errors of the wire in one place.

use std::time::Duration;

use proto::{errorpb, internal, kvrpcpb, metapb};
use types::{
    ApiMode, ApiVersion, Code, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch,
    RegionError, RegionId, RequestContext, StoreId,
};

use crate::{KeyLayout, Pair, request::StoreError};

/// The context of a request to a store.
pub(super) fn context(context: &RequestContext, layout: KeyLayout) -> kvrpcpb::Context {
    kvrpcpb::Context {
        region_id: context.region_id.0,
        region_epoch: context
            .epoch
            .map(|epoch| metapb::RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version }),
        peer: Some(metapb::Peer {
            id: context.peer_id.0,
            store_id: context.store_id.0,
            ..metapb::Peer::default()
        }),
        api_version: match context.api_version {
            ApiVersion::V1 => kvrpcpb::ApiVersion::V1,
            ApiVersion::V1Ttl => kvrpcpb::ApiVersion::V1ttl,
            ApiVersion::V2 => kvrpcpb::ApiVersion::V2,
        }
        .into(),
        keyspace: layout.keyspace().map(kvrpcpb::context::Keyspace::KeyspaceId),
        ..kvrpcpb::Context::default()
    }
}

/// A region from the wire.
pub(super) fn region(region: metapb::Region) -> Region {
    let epoch = region.region_epoch.unwrap_or_default();
    Region {
        id: RegionId(region.id),
        range: KeyRange { start: region.start_key, end: region.end_key },
        epoch: RegionEpoch { conf_ver: epoch.conf_ver, version: epoch.version },
        peers: region.peers.iter().map(peer).collect(),
    }
}

/// A peer from the wire. An unknown role is a learner: nobody sends requests there.
pub(super) fn peer(peer: &metapb::Peer) -> Peer {
    Peer {
        id: PeerId(peer.id),
        store_id: StoreId(peer.store_id),
        role: u8::try_from(peer.role)
            .ok()
            .and_then(PeerRole::from_byte)
            .unwrap_or(PeerRole::Learner),
    }
}

/// The store of a leader; the wire's empty peer is none.
pub(super) fn leader(leader: Option<&metapb::Peer>) -> Option<StoreId> {
    leader.filter(|peer| peer.store_id != 0).map(|peer| StoreId(peer.store_id))
}

/// A pair for the wire.
pub(super) fn pair_to_proto(pair: Pair) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key: pair.key, value: pair.value, ..kvrpcpb::KvPair::default() }
}

/// Pairs from the wire. A failure of the whole request travels as a pair that is an error.
pub(super) fn pairs(pairs: Vec<kvrpcpb::KvPair>) -> Result<Vec<Pair>, StoreError> {
    pairs
        .into_iter()
        .map(|pair| match pair.error {
            None => Ok(Pair { key: pair.key, value: pair.value }),
            Some(error) if !error.abort.is_empty() => Err(refused(&error.abort)),
            Some(error) if !error.retryable.is_empty() => Err(StoreError::NotNow(error.retryable)),
            Some(error) => Err(refused(&format!("{error:?}"))),
        })
        .collect()
}

/// A refusal in words. Our own servers write `message [CODE]; try: remedy`; of others the text is all there is.
pub(super) fn refused(text: &str) -> StoreError {
    let (code, message) = coded(text);
    StoreError::Refused { code: code.unwrap_or(Code::InvalidRequest), message }
}

/// Splits `message [CODE]; try: remedy` into code and message.
pub(super) fn coded(text: &str) -> (Option<Code>, String) {
    let found = text.rfind(" [TK").and_then(|at| {
        let (code, _) = text[at + 2..].split_once(']')?;
        Some((Code::parse(code)?, &text[..at]))
    });
    match found {
        Some((code, message)) => (Some(code), message.to_owned()),
        None => (None, text.to_owned()),
    }
}

/// Why a region refused a request. At most one reason is set; what is not known here is taken for "not now", because
/// every region error means that nothing was executed.
pub(super) fn region_error(error: errorpb::Error, context: &RequestContext) -> StoreError {
    let region = context.region_id;
    StoreError::Region(if let Some(not_leader) = error.not_leader {
        let leader = not_leader.leader.filter(|peer| peer.store_id != 0);
        RegionError::NotLeader { region, leader: leader.as_ref().map(peer) }
    } else if let Some(epoch) = error.epoch_not_match {
        RegionError::EpochNotMatch {
            regions: epoch.current_regions.into_iter().map(self::region).collect(),
        }
    } else if error.region_not_found.is_some()
        || error.mismatch_peer_id.is_some()
        || error.is_witness.is_some()
    {
        RegionError::RegionNotFound { region }
    } else if let Some(key) = error.key_not_in_region {
        let range = KeyRange { start: key.start_key, end: key.end_key };
        let region = Box::new(Region { id: RegionId(key.region_id), range, ..Region::default() });
        RegionError::KeyNotInRegion { key: key.key, region }
    } else if let Some(store) = error.store_not_match {
        RegionError::StoreNotMatch {
            request: StoreId(store.request_store_id),
            actual: StoreId(store.actual_store_id),
        }
    } else if let Some(busy) = error.server_is_busy {
        let wait = busy.backoff_ms.max(u64::from(busy.estimated_wait_ms));
        RegionError::ServerIsBusy { reason: busy.reason, retry_after: Duration::from_millis(wait) }
    } else if let Some(stale) = error.data_is_not_ready {
        RegionError::DataIsNotReady { region, peer: PeerId(stale.peer_id) }
    } else if let Some(large) = error.raft_entry_too_large {
        RegionError::RaftEntryTooLarge { region, size: large.entry_size }
    } else if let Some(undetermined) = error.undetermined_result {
        RegionError::Undetermined { reason: coded(&undetermined.message).1 }
    } else if let Some(full) = error.disk_full {
        return StoreError::Refused {
            code: Code::DiskFull,
            message: format!("the disk is full: {}", full.reason),
        };
    } else {
        return StoreError::NotNow(match error.message.is_empty() {
            true => "the region cannot serve it at the moment".to_owned(),
            false => error.message,
        });
    })
}

/// The API mode from our own wire; `None` is one from the future.
pub(super) fn api_mode(mode: i32) -> Option<ApiMode> {
    Some(match internal::ApiMode::try_from(mode).ok()? {
        internal::ApiMode::V1 => ApiMode::V1,
        internal::ApiMode::V1ttl => ApiMode::V1Ttl,
        internal::ApiMode::V2 => ApiMode::V2,
    })
}

/// The key mode from our own wire; `None` is undecided.
pub(super) fn key_mode(mode: i32) -> Option<KeyMode> {
    match internal::KeyMode::try_from(mode).ok()? {
        internal::KeyMode::Undecided => None,
        internal::KeyMode::Raw => Some(KeyMode::Raw),
        internal::KeyMode::Txn => Some(KeyMode::Txn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: errorpb::Error) -> StoreError {
        region_error(error, &RequestContext { region_id: RegionId(7), ..RequestContext::default() })
    }

    #[test]
    fn codes_are_read_from_the_text_of_our_servers() {
        let text = "this cluster holds raw data [TK4101]; try: use the other API";
        assert_eq!(
            coded(text),
            (Some(Code::KeyModeConflict), "this cluster holds raw data".to_owned())
        );
        assert_eq!(coded("TTL not enabled"), (None, "TTL not enabled".to_owned()));
        assert_eq!(coded("odd [TK"), (None, "odd [TK".to_owned()));
        assert_eq!(coded("odd [TK0000] text").0, None);
        assert_eq!(
            refused("no such thing"),
            StoreError::Refused { code: Code::InvalidRequest, message: "no such thing".to_owned() }
        );
    }

    #[test]
    fn region_errors_keep_what_calls_need() {
        let peer = metapb::Peer { id: 12, store_id: 2, ..metapb::Peer::default() };
        let not_leader = |leader| errorpb::NotLeader { region_id: 7, leader };
        let leader_of = |leader| match of(errorpb::Error {
            not_leader: Some(not_leader(leader)),
            ..Default::default()
        }) {
            StoreError::Region(RegionError::NotLeader { region: RegionId(7), leader }) => {
                leader.map(|peer| peer.id.0)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(leader_of(Some(peer)), Some(12));
        assert_eq!(leader_of(None), None);
        assert_eq!(leader_of(Some(metapb::Peer::default())), None, "an empty peer is no leader");

        let busy =
            errorpb::ServerIsBusy { reason: "full".into(), backoff_ms: 20, ..Default::default() };
        assert_eq!(
            of(errorpb::Error { server_is_busy: Some(busy), ..Default::default() }),
            StoreError::Region(RegionError::ServerIsBusy {
                reason: "full".into(),
                retry_after: Duration::from_millis(20)
            })
        );
        let mismatch = errorpb::MismatchPeerId { request_peer_id: 1, store_peer_id: 2 };
        assert_eq!(
            of(errorpb::Error { mismatch_peer_id: Some(mismatch), ..Default::default() }),
            StoreError::Region(RegionError::RegionNotFound { region: RegionId(7) })
        );
    }

    #[test]
    fn unknown_region_errors_mean_not_now() {
        let stale = errorpb::Error {
            message: "stale".into(),
            stale_command: Some(errorpb::StaleCommand {}),
            ..Default::default()
        };
        assert_eq!(of(stale), StoreError::NotNow("stale".into()));
        assert!(matches!(of(errorpb::Error::default()), StoreError::NotNow(_)));
        let full =
            errorpb::Error { disk_full: Some(errorpb::DiskFull::default()), ..Default::default() };
        assert!(matches!(of(full), StoreError::Refused { code: Code::DiskFull, .. }));
    }

    #[test]
    fn a_pair_that_is_an_error_is_the_error_of_the_request() {
        let error = kvrpcpb::KeyError {
            abort: "too much [TK4108]; try: less".into(),
            ..Default::default()
        };
        let pair = kvrpcpb::KvPair { error: Some(Box::new(error)), ..Default::default() };
        assert_eq!(
            pairs(vec![kvrpcpb::KvPair::default(), pair]),
            Err(StoreError::Refused { code: Code::InvalidRequest, message: "too much".into() })
        );
    }
}
