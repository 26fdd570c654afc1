//! What a store knows durably of its regions, as it lies in [`Family::Meta`].
//!
//! Keys are `region id u64 | kind u8`; region 0 does not exist, its keys hold what concerns the whole store (`storage`).
//! Values are records of `types::codec` (length, CRC32C, version); docs/formats.md describes every byte.
//!
//! Both records of a region are written in the batch of the data that they speak of, so that they are never ahead of it
//! and never behind. The log beside them (`engine::raft_log`) has a base of its own; what lies between the two is
//! applied again at a start.

use engine::{Family, Snapshot, WriteBatch};
use raft::{ConfState, HardState};
use types::{
    Bytes, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId, TimeStamp,
    codec::{self, DecodeError, Reader, Writer},
    key,
};

/// The version of every record here.
const VERSION: u8 = 1;

/// Kinds of region keys.
const REGION_STATE: u8 = 1;
const APPLY_STATE: u8 = 2;
const SAFE_POINT: u8 = 3;

/// Index and term at which the log of every new group begins. Above 0, so that a peer that was not there from the
/// beginning begins with a snapshot, which says who the members are; 5 is the course's number.
pub const FIRST_INDEX: u64 = 5;
/// See [`FIRST_INDEX`].
pub const FIRST_TERM: u64 = 5;

/// What a store's peer of a region does.
///
/// That a peer is replacing its data by a snapshot is no state of its own: the log begins after what is applied then,
/// and the file of the snapshot is there until the engine has it (`store/open.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// Serves.
    #[default]
    Normal,
    /// Was destroyed here. The region is the last one known, with the peer that lived here.
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

/// How far a region's log is applied on this store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApplyState {
    /// The last entry that was applied.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl ApplyState {
    /// The state of a new group.
    pub const FIRST: ApplyState = ApplyState { index: FIRST_INDEX, term: FIRST_TERM };
}

/// Adds the state of a region to `batch`.
pub fn put_region_state(batch: &mut WriteBatch, state: &RegionState) {
    let meta_key = meta_key(state.region.id, REGION_STATE);
    batch.put(Family::Meta, meta_key, encode_region_state(state));
}

/// Adds to `batch` that nothing is known of a region.
pub fn delete_region_state(batch: &mut WriteBatch, region: RegionId) {
    batch.delete(Family::Meta, meta_key(region, REGION_STATE));
}

/// Adds how far a region is applied to `batch`.
pub fn put_apply_state(batch: &mut WriteBatch, region: RegionId, state: ApplyState) {
    let payload = Writer::new().u64(state.index).u64(state.term).finish();
    batch.put(Family::Meta, meta_key(region, APPLY_STATE), record(&payload));
}

/// Adds to `batch` that nothing is applied: the region is no longer here.
pub fn delete_apply_state(batch: &mut WriteBatch, region: RegionId) {
    batch.delete(Family::Meta, meta_key(region, APPLY_STATE));
}

/// The state of a region; `None` if nothing was ever written of it.
pub fn region_state(
    snapshot: &dyn Snapshot,
    region: RegionId,
) -> Result<Option<RegionState>, engine::Error> {
    read(snapshot, &meta_key(region, REGION_STATE), decode_region_state)
}

/// How far a region is applied; `None` if it never was.
pub fn apply_state(
    snapshot: &dyn Snapshot,
    region: RegionId,
) -> Result<Option<ApplyState>, engine::Error> {
    read(snapshot, &meta_key(region, APPLY_STATE), |bytes| {
        let mut reader = payload(bytes)?;
        let state = ApplyState { index: reader.u64()?, term: reader.u64()? };
        reader.finish().map(|()| state)
    })
}

/// Adds to `batch` that versions of a region may have been removed which reads below `safe_point` would need.
pub fn put_safe_point(batch: &mut WriteBatch, region: RegionId, safe_point: TimeStamp) {
    let payload = Writer::new().u64(safe_point.0).finish();
    batch.put(Family::Meta, meta_key(region, SAFE_POINT), record(&payload));
}

/// Adds to `batch` that there is nothing of which versions were removed.
pub fn delete_safe_point(batch: &mut WriteBatch, region: RegionId) {
    batch.delete(Family::Meta, meta_key(region, SAFE_POINT));
}

/// Below which timestamp versions of a region may have been removed; zero: none was.
pub fn safe_point(snapshot: &dyn Snapshot, region: RegionId) -> Result<TimeStamp, engine::Error> {
    let found = read(snapshot, &meta_key(region, SAFE_POINT), decode_safe_point)?;
    Ok(found.unwrap_or(TimeStamp::ZERO))
}

/// The largest safe point of all regions.
pub fn newest_safe_point(snapshot: &dyn Snapshot) -> Result<TimeStamp, engine::Error> {
    let mut newest = TimeStamp::ZERO;
    let mut iter = snapshot.iter(Family::Meta, &KeyRange::new(meta_key(RegionId(1), 0), ""))?;
    let mut valid = iter.seek_to_first()?;
    while valid {
        if let Some((_, SAFE_POINT)) = split_meta_key(iter.key()) {
            let found =
                decode_safe_point(iter.value()).map_err(|error| damaged(iter.key(), error))?;
            newest = newest.max(found);
        }
        valid = iter.next()?;
    }
    Ok(newest)
}

fn decode_safe_point(bytes: &[u8]) -> Result<TimeStamp, DecodeError> {
    let mut reader = payload(bytes)?;
    let safe_point = TimeStamp(reader.u64()?);
    reader.finish().map(|()| safe_point)
}

/// The states of all regions, tombstones included, in the order of their ids.
pub fn region_states(snapshot: &dyn Snapshot) -> Result<Vec<RegionState>, engine::Error> {
    let mut states = Vec::new();
    let mut iter = snapshot.iter(Family::Meta, &KeyRange::new(meta_key(RegionId(1), 0), ""))?;
    let mut valid = iter.seek_to_first()?;
    while valid {
        if let Some((_, REGION_STATE)) = split_meta_key(iter.key()) {
            states.push(
                decode_region_state(iter.value()).map_err(|error| damaged(iter.key(), error))?,
            );
        }
        valid = iter.next()?;
    }
    Ok(states)
}

/// The key of a record in [`Family::Meta`].
pub fn meta_key(region: RegionId, kind: u8) -> Bytes {
    Writer::new().u64(region.0).u8(kind).finish().into()
}

/// `payload` as a record.
pub fn record(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    codec::put_record(&mut out, VERSION, payload);
    out
}

/// The payload of the one record that `bytes` are.
pub fn payload(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let (version, payload, read) = codec::get_record(bytes)?;
    if version != VERSION {
        return Err(DecodeError::Newer { found: version.into(), known: VERSION.into() });
    }
    if read != bytes.len() {
        return Err(DecodeError::Invalid("end of record: bytes are left over"));
    }
    Ok(Reader::new(payload))
}

/// The record at `meta_key`, decoded; damage is an error that names the key.
pub fn read<T>(
    snapshot: &dyn Snapshot,
    meta_key: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, engine::Error> {
    let Some(value) = snapshot.get(Family::Meta, meta_key)? else { return Ok(None) };
    decode(&value).map(Some).map_err(|error| damaged(meta_key, error))
}

fn damaged(meta_key: &[u8], error: DecodeError) -> engine::Error {
    engine::Error::Corrupt {
        path: "store meta data".into(),
        detail: format!("key {}: {error}", key::display(meta_key)),
    }
}

fn split_meta_key(meta_key: &[u8]) -> Option<(RegionId, u8)> {
    let mut reader = Reader::new(meta_key);
    let parts = (RegionId(reader.u64().ok()?), reader.u8().ok()?);
    reader.finish().is_ok().then_some(parts)
}

fn encode_region_state(state: &RegionState) -> Vec<u8> {
    let RegionState { state, region } = state;
    let state = match state {
        PeerState::Normal => 0,
        PeerState::Tombstone => 2,
    };
    let mut writer = Writer::new();
    writer.u8(state);
    put_region(&mut writer, region);
    record(&writer.finish())
}

fn decode_region_state(bytes: &[u8]) -> Result<RegionState, DecodeError> {
    let mut reader = payload(bytes)?;
    let state = match reader.u8()? {
        0 => PeerState::Normal,
        2 => PeerState::Tombstone,
        _ => return Err(DecodeError::Invalid("peer state")),
    };
    let state = RegionState { state, region: get_region(&mut reader)? };
    reader.finish().map(|()| state)
}

/// Appends a region to a record or a message.
pub(crate) fn put_region(writer: &mut Writer, region: &Region) {
    writer.u64(region.id.0).bytes(&region.range.start).bytes(&region.range.end);
    writer.u64(region.epoch.conf_ver).u64(region.epoch.version);
    writer.u32(u32::try_from(region.peers.len()).expect("a region has few peers"));
    for peer in &region.peers {
        put_peer(writer, peer);
    }
}

/// Reads what [`put_region`] wrote.
pub(crate) fn get_region(reader: &mut Reader<'_>) -> Result<Region, DecodeError> {
    let id = RegionId(reader.u64()?);
    let range = KeyRange { start: reader.owned()?, end: reader.owned()? };
    let epoch = RegionEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
    let mut peers = Vec::new();
    for _ in 0..reader.u32()? {
        peers.push(get_peer(reader)?);
    }
    Ok(Region { id, range, epoch, peers })
}

pub(crate) fn put_peer(writer: &mut Writer, peer: &Peer) {
    writer.u64(peer.id.0).u64(peer.store_id.0).u8(peer.role.to_byte());
}

pub(crate) fn get_peer(reader: &mut Reader<'_>) -> Result<Peer, DecodeError> {
    Ok(Peer {
        id: PeerId(reader.u64()?),
        store_id: StoreId(reader.u64()?),
        role: PeerRole::from_byte(reader.u8()?).ok_or(DecodeError::Invalid("peer role"))?,
    })
}

/// The hard state as it lies in the Raft log beside the entries.
pub(crate) fn encode_hard_state(state: HardState) -> Bytes {
    Writer::new().u64(state.term).u64(state.vote).u64(state.commit).finish().into()
}

/// Reads what [`encode_hard_state`] wrote.
pub(crate) fn decode_hard_state(bytes: &[u8]) -> Result<HardState, DecodeError> {
    let mut reader = Reader::new(bytes);
    let state = HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? };
    reader.finish().map(|()| state)
}

/// The members of the Raft group, as the region's peers say.
///
/// In a joint state a voter is in both sets, an incoming voter in the new one, a demoting voter in the old one and a
/// learner afterwards; nobody leaves a joint state to be gone ([`role_of`] says why that is enough).
pub(crate) fn conf_of(region: &Region) -> ConfState {
    let mut conf = ConfState::default();
    let is_joint = region
        .peers
        .iter()
        .any(|peer| matches!(peer.role, PeerRole::IncomingVoter | PeerRole::DemotingVoter));
    let mut peers: Vec<&Peer> = region.peers.iter().collect();
    peers.sort_by_key(|peer| peer.id);
    for peer in peers {
        let id = peer.id.0;
        match peer.role {
            PeerRole::Voter => {
                conf.voters.push(id);
                if is_joint {
                    conf.voters_outgoing.push(id);
                }
            }
            PeerRole::Learner => conf.learners.push(id),
            PeerRole::IncomingVoter => conf.voters.push(id),
            PeerRole::DemotingVoter => {
                conf.voters_outgoing.push(id);
                conf.learners_next.push(id);
            }
        }
    }
    conf.auto_leave = is_joint;
    conf
}

/// The role of member `id` in `conf`; `None` if it is in none of its sets.
///
/// A member that votes in the old set only and is not to become a learner has no role that a region can say: a joint
/// change that removes a voter outright is refused before it is proposed. It is demoted, and removed as a learner.
pub(crate) fn role_of(conf: &ConfState, id: u64) -> Option<PeerRole> {
    let incoming = conf.voters.contains(&id);
    let outgoing = conf.voters_outgoing.contains(&id);
    match (incoming, conf.is_joint(), outgoing) {
        (true, true, false) => Some(PeerRole::IncomingVoter),
        (true, ..) => Some(PeerRole::Voter),
        (false, _, true) => Some(PeerRole::DemotingVoter),
        _ if conf.learners.contains(&id) => Some(PeerRole::Learner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region {
            id: RegionId(7),
            range: KeyRange::new("a", "bc"),
            epoch: RegionEpoch::FIRST,
            peers: vec![Peer { id: PeerId(8), store_id: StoreId(3), role: PeerRole::Learner }],
        }
    }

    #[test]
    fn records_have_their_golden_bytes() {
        assert_eq!(&meta_key(RegionId(0x0102), REGION_STATE)[..], [0, 0, 0, 0, 0, 0, 1, 2, 1]);
        assert_eq!(&meta_key(RegionId(0x0102), APPLY_STATE)[..], [0, 0, 0, 0, 0, 0, 1, 2, 2]);
        assert_eq!(&meta_key(RegionId(0x0102), SAFE_POINT)[..], [0, 0, 0, 0, 0, 0, 1, 2, 3]);
        let mut bytes = vec![2]; // tombstone
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7]); // region id
        bytes.extend([0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b', b'c']); // bounds
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]); // epoch
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1]); // one peer
        let state = RegionState { state: PeerState::Tombstone, region: region() };
        let encoded = encode_region_state(&state);
        let (version, payload, read) = codec::get_record(&encoded).unwrap();
        assert_eq!((version, payload, read), (1, &bytes[..], encoded.len()));
        assert_eq!(
            &encode_hard_state(HardState { term: 1, vote: 2, commit: 3 })[..],
            [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
        );
    }

    #[test]
    fn records_come_back_and_damage_is_noticed() {
        for state in [PeerState::Normal, PeerState::Tombstone] {
            let state = RegionState { state, region: region() };
            let bytes = encode_region_state(&state);
            assert_eq!(decode_region_state(&bytes), Ok(state));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_region_state(&damaged).is_err(), "bit {bit}");
            }
        }
        let hard_state = HardState { term: 6, vote: 9, commit: 5 };
        assert_eq!(decode_hard_state(&encode_hard_state(hard_state)), Ok(hard_state));
        assert!(decode_hard_state(&[0; 23]).is_err());
    }

    #[test]
    fn roles_and_members_say_the_same() {
        let roles =
            [PeerRole::Voter, PeerRole::Learner, PeerRole::IncomingVoter, PeerRole::DemotingVoter];
        let mut region = region();
        region.peers = (1..)
            .zip(roles)
            .map(|(id, role)| Peer { id: PeerId(id), store_id: StoreId(id), role })
            .collect();
        let conf = conf_of(&region);
        assert_eq!((&conf.voters[..], &conf.voters_outgoing[..]), (&[1, 3][..], &[1, 4][..]));
        assert_eq!((&conf.learners[..], &conf.learners_next[..]), (&[2][..], &[4][..]));
        assert_eq!(conf.check(), Ok(()));
        for (id, role) in (1..).zip(roles) {
            assert_eq!(role_of(&conf, id), Some(role));
        }
        region.peers.truncate(2);
        let conf = conf_of(&region);
        assert!(!conf.is_joint() && !conf.auto_leave);
        assert_eq!(role_of(&conf, 1), Some(PeerRole::Voter));
        assert_eq!(role_of(&conf, 9), None);
    }
}
