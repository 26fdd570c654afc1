//! Who a store is and which regions it holds, as it lies in [`Family::Meta`].
//!
//! Keys are `region id u64 | kind u8`. Region 0 does not exist; its keys hold what concerns the whole store. Values
//! are records of `types::codec` (length, CRC32C, version); docs/formats.md describes every byte. A store with one
//! replica already writes what a replicated one reads at start, at epoch 1/1: log and apply state are all that is
//! added later.

use engine::{Engine, Family, WriteBatch};
use raftstore::state::{self, PeerState, RegionState, meta_key, payload, record};
use types::{
    ApiMode, Bytes, ClusterId, KeyMode, KeyRange, Region, RegionId, StoreId,
    codec::{DecodeError, Writer},
    key,
};

use crate::Result;

/// Kinds of store keys.
const STORE_IDENT: u8 = 0x10;
const KEY_MODE: u8 = 0x11;

/// The region id of the store's own keys.
const STORE: RegionId = RegionId(0);

/// Who a store is. Written once, when its data directory is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdent {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The store.
    pub store_id: StoreId,
    /// `storage.api` of the cluster, fixed for good.
    pub api: ApiMode,
}

/// Everything that a store finds out about itself at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who it is.
    pub ident: StoreIdent,
    /// Its regions, tombstones included, in the order of their ids.
    pub regions: Vec<RegionState>,
    /// What this store remembers of the key-mode latch.
    pub key_mode: Option<KeyMode>,
}

impl Identity {
    /// The regions that the store serves.
    pub fn serving(&self) -> Vec<Region> {
        let serving = self.regions.iter().filter(|region| region.state == PeerState::Normal);
        serving.map(|state| state.region.clone()).collect()
    }
}

/// The ranges of the regions that a new cluster starts with, in the order of their keys; bounds in stored form.
///
/// v1 and v1ttl: one, everything. v2: five, split at the bounds of keyspace 0 (raw and transactional), since clients
/// take the end of a region for the end of what they asked for.
pub fn bootstrap_ranges(api: ApiMode) -> Vec<KeyRange> {
    let splits: &[&[u8]] = match api {
        ApiMode::V1 | ApiMode::V1Ttl => &[],
        ApiMode::V2 => &[b"r\0\0\0", b"r\0\0\x01", b"x\0\0\0", b"x\0\0\x01"],
    };
    let bounds: Vec<Bytes> = splits.iter().map(|split| key::encode(split)).collect();
    let starts = std::iter::once(Bytes::new()).chain(bounds.iter().cloned());
    let ends = bounds.iter().cloned().chain(std::iter::once(Bytes::new()));
    starts.zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
}

/// Writes the identity and first regions of a new store in one batch, and syncs it.
pub fn bootstrap(engine: &dyn Engine, ident: &StoreIdent, regions: &[Region]) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.put(Family::Meta, meta_key(STORE, STORE_IDENT), encode_ident(ident));
    for region in regions {
        let state = RegionState { state: PeerState::Normal, region: region.clone() };
        state::put_region_state(&mut batch, &state);
    }
    engine.write(batch)?;
    engine.sync()?;
    Ok(())
}

/// Forgets first regions that nobody was told of, durably.
pub fn forget_regions(engine: &dyn Engine, regions: &[Region]) -> Result<()> {
    let mut batch = WriteBatch::new();
    for region in regions {
        state::delete_region_state(&mut batch, region.id);
    }
    engine.write(batch)?;
    engine.sync()?;
    Ok(())
}

/// Reads back what [`bootstrap`] and later changes wrote; `None` if nothing was ever bootstrapped.
pub fn load(engine: &dyn Engine) -> Result<Option<Identity>> {
    let snapshot = engine.snapshot()?;
    let read_ident = state::read(&*snapshot, &meta_key(STORE, STORE_IDENT), decode_ident)?;
    let Some(ident) = read_ident else { return Ok(None) };
    let key_mode = state::read(&*snapshot, &meta_key(STORE, KEY_MODE), decode_key_mode)?;
    let regions = state::region_states(&*snapshot)?;
    Ok(Some(Identity { ident, regions, key_mode }))
}

/// Adds the record of the key-mode latch to `batch`.
pub(crate) fn record_key_mode(batch: &mut WriteBatch, mode: KeyMode) {
    batch.put(Family::Meta, meta_key(STORE, KEY_MODE), encode_key_mode(mode));
}

fn encode_ident(ident: &StoreIdent) -> Vec<u8> {
    record(
        &Writer::new()
            .u64(ident.cluster_id.0)
            .u64(ident.store_id.0)
            .u8(ident.api.to_byte())
            .finish(),
    )
}

fn decode_ident(bytes: &[u8]) -> Result<StoreIdent, DecodeError> {
    let mut reader = payload(bytes)?;
    let ident = StoreIdent {
        cluster_id: ClusterId(reader.u64()?),
        store_id: StoreId(reader.u64()?),
        api: ApiMode::from_byte(reader.u8()?).ok_or(DecodeError::Invalid("API mode"))?,
    };
    reader.finish().map(|()| ident)
}

fn encode_key_mode(mode: KeyMode) -> Vec<u8> {
    let byte = match mode {
        KeyMode::Raw => 1,
        KeyMode::Txn => 2,
    };
    record(&[byte])
}

fn decode_key_mode(bytes: &[u8]) -> Result<KeyMode, DecodeError> {
    let mut reader = payload(bytes)?;
    let mode = match reader.u8()? {
        1 => KeyMode::Raw,
        2 => KeyMode::Txn,
        _ => return Err(DecodeError::Invalid("key mode")),
    };
    reader.finish().map(|()| mode)
}

#[cfg(test)]
mod tests {
    use engine::MemoryEngine;
    use types::{Peer, PeerId, PeerRole, RegionEpoch, codec};

    use super::*;

    fn ident() -> StoreIdent {
        StoreIdent { cluster_id: ClusterId(0x1122), store_id: StoreId(3), api: ApiMode::V2 }
    }

    fn region() -> Region {
        Region {
            id: RegionId(7),
            range: KeyRange::new("a", "bc"),
            epoch: RegionEpoch::FIRST,
            peers: vec![Peer { id: PeerId(8), store_id: StoreId(3), role: PeerRole::Learner }],
        }
    }

    /// The payload of a record, which `types::codec` pins with its own golden bytes.
    fn golden(record: &[u8]) -> Vec<u8> {
        let (version, payload, read) = codec::get_record(record).unwrap();
        assert_eq!((version, read), (1, record.len()));
        payload.to_vec()
    }

    #[test]
    fn keys_have_their_golden_bytes() {
        assert_eq!(&meta_key(STORE, STORE_IDENT)[..], [0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        assert_eq!(&meta_key(STORE, KEY_MODE)[..], [0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
    }

    #[test]
    fn records_have_their_golden_bytes() {
        assert_eq!(
            golden(&encode_ident(&ident())),
            [0, 0, 0, 0, 0, 0, 0x11, 0x22, 0, 0, 0, 0, 0, 0, 0, 3, 2]
        );
        assert_eq!(golden(&encode_key_mode(KeyMode::Raw)), [1]);
        assert_eq!(golden(&encode_key_mode(KeyMode::Txn)), [2]);
        // One whole record with its frame, byte by byte.
        assert_eq!(encode_key_mode(KeyMode::Raw)[..4], [0, 0, 0, 2]);
    }

    #[test]
    fn a_newer_record_is_refused() {
        let mut newer = Vec::new();
        codec::put_record(&mut newer, 2, &[1]);
        assert_eq!(decode_key_mode(&newer), Err(DecodeError::Newer { found: 2, known: 1 }));
    }

    #[test]
    fn a_new_store_is_found_again_after_a_crash() {
        let engine = MemoryEngine::with_journal();
        assert_eq!(load(&engine).unwrap(), None);
        bootstrap(&engine, &ident(), &[region()]).unwrap();
        let engine = engine.crash(&mut runtime::Rng::new(1));
        let identity = load(&engine).unwrap().unwrap();
        assert_eq!((identity.ident, identity.key_mode), (ident(), None));
        assert_eq!(identity.regions, [RegionState { state: PeerState::Normal, region: region() }]);

        let mut batch = WriteBatch::new();
        record_key_mode(&mut batch, KeyMode::Raw);
        engine.write(batch).unwrap();
        assert_eq!(load(&engine).unwrap().unwrap().key_mode, Some(KeyMode::Raw));
    }

    #[test]
    fn first_regions_cover_every_key_once() {
        assert_eq!(bootstrap_ranges(ApiMode::V1), [KeyRange::all()]);
        assert_eq!(bootstrap_ranges(ApiMode::V1Ttl), [KeyRange::all()]);
        let ranges = bootstrap_ranges(ApiMode::V2);
        assert_eq!(ranges.len(), 5);
        assert!(ranges[0].start.is_empty() && ranges[4].end.is_empty());
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert!(pair[0].start < pair[0].end);
        }
        assert_eq!(ranges[1].start, &b"r\0\0\0\0\0\0\0\xfb"[..]);
        assert!(ranges[1].contains(&key::encode(b"r\0\0\0some key")));
        assert!(ranges[3].contains(&key::encode(b"x\0\0\0some key")));
    }
}
