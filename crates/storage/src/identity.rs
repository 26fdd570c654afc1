//! Who a store is and which regions it holds, as it lies in [`Family::Meta`].
//!
//! Keys are `region id u64 | kind u8`. Region 0 does not exist; its keys hold what concerns the whole store. Values
//! are records of `types::codec` (length, CRC32C, version); docs/formats.md describes every byte. A store with one
//! replica already writes what a replicated one reads at start, at epoch 1/1: log and apply state are all that is
//! added later.

use engine::{Engine, Family, Snapshot, WriteBatch};
use types::{
    ApiMode, Bytes, ClusterId, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch,
    RegionId, StoreId,
    codec::{self, DecodeError, Reader, Writer},
    key,
};

use crate::Result;

/// The version of every record here.
const VERSION: u8 = 1;

/// Kinds of region keys. 2 is kept for the apply state.
const REGION_STATE: u8 = 1;
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

/// What a store's peer of a region does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// Serves.
    #[default]
    Normal,
    /// Replaces its data by a region snapshot.
    Applying,
    /// Was destroyed here; only the epoch is of interest.
    Tombstone,
}

/// What a store knows durably of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionState {
    /// What the peer on this store does.
    pub state: PeerState,
    /// The region.
    pub region: Region,
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
        batch.put(Family::Meta, meta_key(region.id, REGION_STATE), encode_region_state(&state));
    }
    engine.write(batch)?;
    engine.sync()?;
    Ok(())
}

/// Reads back what [`bootstrap`] and later changes wrote; `None` if nothing was ever bootstrapped.
pub fn load(engine: &dyn Engine) -> Result<Option<Identity>> {
    let snapshot = engine.snapshot()?;
    let Some(ident) = get(&*snapshot, STORE_IDENT, decode_ident)? else { return Ok(None) };
    let key_mode = get(&*snapshot, KEY_MODE, decode_key_mode)?;

    let mut regions = Vec::new();
    let first = Bytes::copy_from_slice(&(STORE.0 + 1).to_be_bytes());
    let mut iter = snapshot.iter(Family::Meta, &KeyRange::new(first, ""))?;
    let mut valid = iter.seek_to_first()?;
    while valid {
        if let Some((_, REGION_STATE)) = split_meta_key(iter.key()) {
            regions.push(
                decode_region_state(iter.value()).map_err(|error| damaged(iter.key(), error))?,
            );
        }
        valid = iter.next()?;
    }
    Ok(Some(Identity { ident, regions, key_mode }))
}

/// Adds the record of the key-mode latch to `batch`.
pub(crate) fn record_key_mode(batch: &mut WriteBatch, mode: KeyMode) {
    batch.put(Family::Meta, meta_key(STORE, KEY_MODE), encode_key_mode(mode));
}

fn get<T>(
    snapshot: &dyn Snapshot,
    kind: u8,
    decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, engine::Error> {
    let meta_key = meta_key(STORE, kind);
    let Some(value) = snapshot.get(Family::Meta, &meta_key)? else { return Ok(None) };
    decode(&value).map(Some).map_err(|error| damaged(&meta_key, error))
}

fn damaged(meta_key: &[u8], error: DecodeError) -> engine::Error {
    engine::Error::Corrupt {
        path: "store meta data".into(),
        detail: format!("key {}: {error}", key::display(meta_key)),
    }
}

fn meta_key(region: RegionId, kind: u8) -> Bytes {
    Writer::new().u64(region.0).u8(kind).finish().into()
}

fn split_meta_key(meta_key: &[u8]) -> Option<(RegionId, u8)> {
    let mut reader = Reader::new(meta_key);
    let parts = (RegionId(reader.u64().ok()?), reader.u8().ok()?);
    reader.finish().is_ok().then_some(parts)
}

fn record(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    codec::put_record(&mut out, VERSION, payload);
    out
}

/// The payload of the one record that `bytes` are.
fn payload(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let (version, payload, read) = codec::get_record(bytes)?;
    if version != VERSION {
        return Err(DecodeError::Newer { found: version.into(), known: VERSION.into() });
    }
    if read != bytes.len() {
        return Err(DecodeError::Invalid("end of record: bytes are left over"));
    }
    Ok(Reader::new(payload))
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

fn encode_region_state(state: &RegionState) -> Vec<u8> {
    let RegionState { state, region } = state;
    let state = match state {
        PeerState::Normal => 0,
        PeerState::Applying => 1,
        PeerState::Tombstone => 2,
    };
    let mut writer = Writer::new();
    writer.u8(state).u64(region.id.0).bytes(&region.range.start).bytes(&region.range.end);
    writer.u64(region.epoch.conf_ver).u64(region.epoch.version);
    writer.u32(u32::try_from(region.peers.len()).expect("a region has few peers"));
    for peer in &region.peers {
        writer.u64(peer.id.0).u64(peer.store_id.0).u8(peer.role.to_byte());
    }
    record(&writer.finish())
}

fn decode_region_state(bytes: &[u8]) -> Result<RegionState, DecodeError> {
    let mut reader = payload(bytes)?;
    let state = match reader.u8()? {
        0 => PeerState::Normal,
        1 => PeerState::Applying,
        2 => PeerState::Tombstone,
        _ => return Err(DecodeError::Invalid("peer state")),
    };
    let id = RegionId(reader.u64()?);
    let range = KeyRange { start: reader.owned()?, end: reader.owned()? };
    let epoch = RegionEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
    let mut peers = Vec::new();
    for _ in 0..reader.u32()? {
        peers.push(Peer {
            id: PeerId(reader.u64()?),
            store_id: StoreId(reader.u64()?),
            role: PeerRole::from_byte(reader.u8()?).ok_or(DecodeError::Invalid("peer role"))?,
        });
    }
    let state = RegionState { state, region: Region { id, range, epoch, peers } };
    reader.finish().map(|()| state)
}

#[cfg(test)]
mod tests {
    use engine::MemoryEngine;

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
        assert_eq!(&meta_key(RegionId(0x0102), REGION_STATE)[..], [0, 0, 0, 0, 0, 0, 1, 2, 1]);
    }

    #[test]
    fn records_have_their_golden_bytes() {
        assert_eq!(
            golden(&encode_ident(&ident())),
            [0, 0, 0, 0, 0, 0, 0x11, 0x22, 0, 0, 0, 0, 0, 0, 0, 3, 2]
        );
        assert_eq!(golden(&encode_key_mode(KeyMode::Raw)), [1]);
        assert_eq!(golden(&encode_key_mode(KeyMode::Txn)), [2]);
        let mut bytes = vec![2]; // tombstone
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7]); // region id
        bytes.extend([0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b', b'c']); // bounds
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]); // epoch
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1]); // one peer
        let state = RegionState { state: PeerState::Tombstone, region: region() };
        assert_eq!(golden(&encode_region_state(&state)), bytes);
        // One whole record with its frame, byte by byte.
        assert_eq!(encode_key_mode(KeyMode::Raw)[..4], [0, 0, 0, 2]);
    }

    #[test]
    fn records_come_back_and_damage_is_noticed() {
        for state in [PeerState::Normal, PeerState::Applying, PeerState::Tombstone] {
            let state = RegionState { state, region: region() };
            let bytes = encode_region_state(&state);
            assert_eq!(decode_region_state(&bytes), Ok(state));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_region_state(&damaged).is_err(), "bit {bit}");
            }
        }
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
