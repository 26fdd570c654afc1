//! What lies in the log entries of a region.
//!
//! An entry without data is the no-op of a new leader. Others begin with a kind:
//!
//! | kind | rest |
//! |---|---|
//! | 0 write | `version u64`, the command |
//! | 1 admin | `conf_ver u64, version u64`, an [`AdminCommand`] |
//!
//! An entry of kind `ConfChange` has an [`EpochAndPeers`] as its context. Every entry carries the epoch under which it
//! was proposed: when it is applied and the region has changed meanwhile, it changes nothing, at every peer alike.

use types::{
    Bytes, KeyRange, Peer, PeerId, RegionEpoch, RegionId,
    codec::{DecodeError, Reader, Writer},
};

use crate::state::{get_peer, put_peer};

const WRITE: u8 = 0;
const ADMIN: u8 = 1;

const SPLIT: u8 = 1;
const COMPACT_LOG: u8 = 2;
const COMPUTE_HASH: u8 = 3;
const VERIFY_HASH: u8 = 4;

/// An entry's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Begins a term.
    Nothing,
    /// A command for the state machine, valid while the region's range is that of `version`.
    Write { version: u64, command: Bytes },
    /// Changes the region itself.
    Admin { epoch: RegionEpoch, command: AdminCommand },
}

/// Changes a region, or what its peers keep of it. (Members change by entries of their own kind.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Cuts the region into several. It keeps its id and the keys before the first split key.
    Split {
        /// One for each new region, in order of their keys.
        children: Vec<SplitChild>,
    },
    /// Nobody needs the entries up to here any more.
    CompactLog {
        /// The last of them.
        index: u64,
    },
    /// Every replica hashes what it has before this entry.
    ComputeHash,
    /// The leader has this hash; every replica compares.
    VerifyHash {
        /// The index of the entry that had it computed.
        index: u64,
        /// The hash.
        hash: u64,
    },
}

/// A region that a split makes: from its key to that of the next one, or to the end of the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitChild {
    /// Its first key, in stored form.
    pub start: Bytes,
    /// Its id.
    pub region_id: RegionId,
    /// The ids of its peers, in the order of the region's.
    pub peer_ids: Vec<PeerId>,
}

/// What a change of the members says beside the change: when it holds, and where the members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochAndPeers {
    pub(crate) epoch: RegionEpoch,
    /// The members that are added or changed.
    pub(crate) peers: Vec<Peer>,
}

impl Payload {
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        match self {
            Payload::Nothing => {}
            Payload::Write { version, command } => {
                // One allocation of the right size, since values may be large.
                let mut bytes = Vec::with_capacity(9 + command.len());
                bytes.push(WRITE);
                bytes.extend_from_slice(&version.to_be_bytes());
                bytes.extend_from_slice(command);
                return bytes.into();
            }
            Payload::Admin { epoch, command } => {
                writer.u8(ADMIN).u64(epoch.conf_ver).u64(epoch.version);
                command.encode(&mut writer);
            }
        }
        writer.finish().into()
    }

    /// Reads an entry. Commands share its memory.
    pub(crate) fn decode(data: &Bytes) -> Result<Payload, DecodeError> {
        if data.is_empty() {
            return Ok(Payload::Nothing);
        }
        let mut reader = Reader::new(data);
        match reader.u8()? {
            WRITE => {
                let version = reader.u64()?;
                let command = data.slice(data.len() - reader.remaining()..);
                Ok(Payload::Write { version, command })
            }
            ADMIN => {
                let epoch = RegionEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
                let command = AdminCommand::decode(&mut reader)?;
                reader.finish().map(|()| Payload::Admin { epoch, command })
            }
            _ => Err(DecodeError::Invalid("kind of entry")),
        }
    }
}

impl AdminCommand {
    fn encode(&self, writer: &mut Writer) {
        match self {
            AdminCommand::Split { children } => {
                writer.u8(SPLIT).u32(len32(children.len()));
                for child in children {
                    writer.bytes(&child.start).u64(child.region_id.0);
                    writer.u32(len32(child.peer_ids.len()));
                    for id in &child.peer_ids {
                        writer.u64(id.0);
                    }
                }
            }
            AdminCommand::CompactLog { index } => {
                writer.u8(COMPACT_LOG).u64(*index);
            }
            AdminCommand::ComputeHash => {
                writer.u8(COMPUTE_HASH);
            }
            AdminCommand::VerifyHash { index, hash } => {
                writer.u8(VERIFY_HASH).u64(*index).u64(*hash);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<AdminCommand, DecodeError> {
        match reader.u8()? {
            SPLIT => {
                let mut children = Vec::new();
                for _ in 0..reader.u32()? {
                    let (start, region_id) = (reader.owned()?, RegionId(reader.u64()?));
                    let mut peer_ids = Vec::new();
                    for _ in 0..reader.u32()? {
                        peer_ids.push(PeerId(reader.u64()?));
                    }
                    children.push(SplitChild { start, region_id, peer_ids });
                }
                Ok(AdminCommand::Split { children })
            }
            COMPACT_LOG => Ok(AdminCommand::CompactLog { index: reader.u64()? }),
            COMPUTE_HASH => Ok(AdminCommand::ComputeHash),
            VERIFY_HASH => {
                Ok(AdminCommand::VerifyHash { index: reader.u64()?, hash: reader.u64()? })
            }
            _ => Err(DecodeError::Invalid("kind of admin command")),
        }
    }
}

impl EpochAndPeers {
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u64(self.epoch.conf_ver).u64(self.epoch.version).u32(len32(self.peers.len()));
        for peer in &self.peers {
            put_peer(&mut writer, peer);
        }
        writer.finish().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<EpochAndPeers, DecodeError> {
        let mut reader = Reader::new(bytes);
        let epoch = RegionEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
        let mut peers = Vec::new();
        for _ in 0..reader.u32()? {
            peers.push(get_peer(&mut reader)?);
        }
        reader.finish().map(|()| EpochAndPeers { epoch, peers })
    }
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("a list of an admin command is short")
}

/// Why a split is impossible in `range`; `None` if it is possible. `peers`: how many the region has.
pub(crate) fn refuse_split(
    range: &KeyRange,
    peers: usize,
    children: &[SplitChild],
) -> Option<&'static str> {
    let mut before = &range.start;
    if children.is_empty() {
        return Some("a split has at least one key");
    }
    for child in children {
        if child.start <= *before || !range.contains(&child.start) {
            return Some("split keys ascend, and lie strictly inside of the region");
        }
        if child.peer_ids.len() != peers {
            return Some("a new region has as many peers as the old one");
        }
        before = &child.start;
    }
    None
}

#[cfg(test)]
mod tests {
    use types::{PeerRole, StoreId};

    use super::*;

    fn child() -> SplitChild {
        SplitChild {
            start: Bytes::from_static(b"m"),
            region_id: RegionId(2),
            peer_ids: vec![PeerId(21), PeerId(22)],
        }
    }

    #[test]
    fn payloads_come_back() {
        let epoch = RegionEpoch { conf_ver: 3, version: 4 };
        let payloads = [
            Payload::Nothing,
            Payload::Write { version: 7, command: Bytes::from_static(b"put") },
            Payload::Write { version: 7, command: Bytes::new() },
            Payload::Admin { epoch, command: AdminCommand::Split { children: vec![child()] } },
            Payload::Admin { epoch, command: AdminCommand::CompactLog { index: 9 } },
            Payload::Admin { epoch, command: AdminCommand::ComputeHash },
            Payload::Admin { epoch, command: AdminCommand::VerifyHash { index: 9, hash: 7 } },
        ];
        for payload in payloads {
            let bytes = payload.encode();
            assert_eq!(Payload::decode(&bytes), Ok(payload.clone()));
            if matches!(payload, Payload::Admin { .. }) {
                for len in 1..bytes.len() {
                    assert!(Payload::decode(&bytes.slice(..len)).is_err(), "{payload:?}: {len}");
                }
            }
        }
        assert!(Payload::decode(&Bytes::from_static(&[9])).is_err());
        let peer = Peer { id: PeerId(1), store_id: StoreId(2), role: PeerRole::Learner };
        let context = EpochAndPeers { epoch, peers: vec![peer] };
        assert_eq!(EpochAndPeers::decode(&context.encode()), Ok(context));
    }

    #[test]
    fn a_command_shares_the_memory_of_its_entry() {
        let bytes = Payload::Write { version: 1, command: Bytes::from_static(b"abc") }.encode();
        let Ok(Payload::Write { command, .. }) = Payload::decode(&bytes) else { panic!() };
        assert_eq!(command.as_ptr(), bytes[9..].as_ptr());
    }

    #[test]
    fn impossible_splits_are_refused() {
        let range = KeyRange::new("a", "z");
        assert_eq!(refuse_split(&range, 2, &[child()]), None);
        for (range, peers, children) in [
            (KeyRange::new("a", "z"), 2, vec![]),
            (KeyRange::new("m", "z"), 2, vec![child()]),
            (KeyRange::new("a", "m"), 2, vec![child()]),
            (KeyRange::new("a", "z"), 3, vec![child()]),
            (KeyRange::new("a", "z"), 2, vec![child(), child()]),
        ] {
            assert!(refuse_split(&range, peers, &children).is_some(), "{range:?} {children:?}");
        }
    }
}
