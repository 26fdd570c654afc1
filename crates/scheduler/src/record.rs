//! Records: what the scheduler remembers over a restart, as a sequence of facts.
//!
//! The state is what the records make of an empty one ([`Scheduler::recover`](crate::Scheduler::recover)); a snapshot
//! is a short sequence of records that makes the same state. Hence one encoding, for log and snapshot alike, described
//! in docs/formats.md and pinned by golden bytes below.

use types::{
    ApiMode, Bytes, ClusterId, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch,
    RegionId, StoreId, TimeStamp,
    codec::{DecodeError, Reader, Writer},
};

use crate::cluster::{ClusterConfig, Store};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster exists. Always the first record, and only once.
    Created {
        /// Its id.
        cluster_id: ClusterId,
        /// Which commands it takes.
        api_mode: ApiMode,
    },
    /// The first store has joined. That store and the first regions follow.
    Bootstrapped,
    /// A store says something new of itself.
    StorePut(Store),
    /// A region has a new range, epoch, peers or leader. What it overlaps is gone.
    RegionPut {
        /// The region.
        region: Region,
        /// Its leader, if known.
        leader: Option<Peer>,
    },
    /// The cluster has new settings.
    ConfigPut(ClusterConfig),
    /// The first write decided what the cluster holds.
    KeyModeLatched(KeyMode),
    /// Ids below `end` may have been handed out.
    IdWindow {
        /// The first id that was not.
        end: u64,
    },
    /// Timestamps of milliseconds before `end_ms` may have been handed out.
    TsoWindow {
        /// The first millisecond of which none was.
        end_ms: u64,
    },
    /// Versions that no read at or after this timestamp needs may go.
    GcSafePoint(TimeStamp),
    /// A service wants to keep what comes after `safe_point`.
    ServiceSafePointPut {
        /// Which service.
        service: Bytes,
        /// Its safe point.
        safe_point: TimeStamp,
        /// The last second (since 1970) in which it counts.
        expires_at: u64,
    },
    /// A service has let go, or its wish has expired.
    ServiceSafePointRemoved {
        /// Which service.
        service: Bytes,
    },
    /// Of a store that is gone for good nothing but its id is kept.
    StoreForgotten {
        /// Which store.
        store: StoreId,
    },
}

impl Record {
    /// Appends the record to `out`.
    pub fn encode_into(&self, out: &mut Writer) {
        match self {
            Record::Created { cluster_id, api_mode } => {
                out.u8(1).u64(cluster_id.0).u8(api_mode.to_byte());
            }
            Record::Bootstrapped => {
                out.u8(2);
            }
            Record::StorePut(store) => store.encode_into(out.u8(3)),
            Record::RegionPut { region, leader } => put_region(out.u8(4), region, leader.as_ref()),
            Record::ConfigPut(config) => {
                out.u8(5).u32(config.max_peer_count);
            }
            Record::KeyModeLatched(mode) => {
                out.u8(6).u8(key_mode_to_byte(*mode));
            }
            Record::IdWindow { end } => {
                out.u8(7).u64(*end);
            }
            Record::TsoWindow { end_ms } => {
                out.u8(8).u64(*end_ms);
            }
            Record::GcSafePoint(safe_point) => {
                out.u8(9).u64(safe_point.0);
            }
            Record::ServiceSafePointPut { service, safe_point, expires_at } => {
                out.u8(10).bytes(service).u64(safe_point.0).u64(*expires_at);
            }
            Record::ServiceSafePointRemoved { service } => {
                out.u8(11).bytes(service);
            }
            Record::StoreForgotten { store } => {
                out.u8(12).u64(store.0);
            }
        }
    }

    /// Reads the record at the front of `bytes`.
    ///
    /// # Errors
    /// The bytes are not those of a record.
    pub fn decode(bytes: &mut Reader<'_>) -> Result<Record, DecodeError> {
        Ok(match bytes.u8()? {
            1 => Record::Created {
                cluster_id: ClusterId(bytes.u64()?),
                api_mode: ApiMode::from_byte(bytes.u8()?)
                    .ok_or(DecodeError::Invalid("API mode"))?,
            },
            2 => Record::Bootstrapped,
            3 => Record::StorePut(Store::decode(bytes)?),
            4 => {
                let (region, leader) = get_region(bytes)?;
                Record::RegionPut { region, leader }
            }
            5 => Record::ConfigPut(ClusterConfig { max_peer_count: bytes.u32()? }),
            6 => Record::KeyModeLatched(key_mode_from_byte(bytes.u8()?)?),
            7 => Record::IdWindow { end: bytes.u64()? },
            8 => Record::TsoWindow { end_ms: bytes.u64()? },
            9 => Record::GcSafePoint(TimeStamp(bytes.u64()?)),
            10 => Record::ServiceSafePointPut {
                service: bytes.owned()?,
                safe_point: TimeStamp(bytes.u64()?),
                expires_at: bytes.u64()?,
            },
            11 => Record::ServiceSafePointRemoved { service: bytes.owned()? },
            12 => Record::StoreForgotten { store: StoreId(bytes.u64()?) },
            _ => return Err(DecodeError::Invalid("kind of record")),
        })
    }
}

fn put_region(out: &mut Writer, region: &Region, leader: Option<&Peer>) {
    out.u64(region.id.0).bytes(&region.range.start).bytes(&region.range.end);
    out.u64(region.epoch.conf_ver).u64(region.epoch.version);
    out.u32(u32::try_from(region.peers.len()).expect("the peers of a region fit into a message"));
    region.peers.iter().for_each(|peer| put_peer(out, peer));
    out.u8(u8::from(leader.is_some()));
    if let Some(leader) = leader {
        put_peer(out, leader);
    }
}

fn get_region(bytes: &mut Reader<'_>) -> Result<(Region, Option<Peer>), DecodeError> {
    let id = RegionId(bytes.u64()?);
    let range = KeyRange::new(bytes.owned()?, bytes.owned()?);
    let epoch = RegionEpoch { conf_ver: bytes.u64()?, version: bytes.u64()? };
    let peers = (0..bytes.u32()?).map(|_| get_peer(bytes)).collect::<Result<_, _>>()?;
    let leader = match bytes.u8()? {
        0 => None,
        1 => Some(get_peer(bytes)?),
        _ => return Err(DecodeError::Invalid("mark of a leader")),
    };
    Ok((Region { id, range, epoch, peers }, leader))
}

fn put_peer(out: &mut Writer, peer: &Peer) {
    out.u64(peer.id.0).u64(peer.store_id.0).u8(peer.role.to_byte());
}

fn get_peer(bytes: &mut Reader<'_>) -> Result<Peer, DecodeError> {
    Ok(Peer {
        id: PeerId(bytes.u64()?),
        store_id: StoreId(bytes.u64()?),
        role: PeerRole::from_byte(bytes.u8()?).ok_or(DecodeError::Invalid("role of a peer"))?,
    })
}

fn key_mode_to_byte(mode: KeyMode) -> u8 {
    match mode {
        KeyMode::Raw => 0,
        KeyMode::Txn => 1,
    }
}

fn key_mode_from_byte(byte: u8) -> Result<KeyMode, DecodeError> {
    match byte {
        0 => Ok(KeyMode::Raw),
        1 => Ok(KeyMode::Txn),
        _ => Err(DecodeError::Invalid("key mode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::StoreState;

    const PEER: Peer = Peer { id: PeerId(3), store_id: StoreId(1), role: PeerRole::Learner };

    fn region() -> Region {
        Region {
            id: RegionId(2),
            range: KeyRange::new("a", ""),
            epoch: RegionEpoch { conf_ver: 5, version: 6 },
            peers: vec![PEER],
        }
    }

    fn store() -> Store {
        Store {
            id: StoreId(1),
            address: "h:1".into(),
            state: StoreState::Offline,
            labels: vec![("k".into(), "v".into())],
            version: "8".into(),
            git_hash: "g".into(),
            peer_address: "p".into(),
            status_address: "s".into(),
            deploy_path: "d".into(),
            start_timestamp: -1,
        }
    }

    /// Every kind of record with its bytes, numbers in hex and text in quotes. They are on people's disks: a test that
    /// fails here wants a new kind of record, not new bytes.
    fn golden() -> Vec<(Record, &'static str)> {
        vec![
            (
                Record::Created { cluster_id: ClusterId(0x0102), api_mode: ApiMode::V2 },
                "01 0000000000000102 02",
            ),
            (Record::Bootstrapped, "02"),
            (
                Record::StorePut(store()),
                "03 0000000000000001 01 ffffffffffffffff 00000003 'h:1' 00000001 '8' 00000001 'g' 00000001 'p' \
                 00000001 's' 00000001 'd' 00000001 00000001 'k' 00000001 'v'",
            ),
            (
                Record::RegionPut { region: region(), leader: Some(PEER) },
                "04 0000000000000002 00000001 'a' 00000000 0000000000000005 0000000000000006 \
                 00000001 0000000000000003 0000000000000001 01 01 0000000000000003 0000000000000001 01",
            ),
            (
                Record::RegionPut { region: Region { peers: vec![], ..region() }, leader: None },
                "04 0000000000000002 00000001 'a' 00000000 0000000000000005 0000000000000006 00000000 00",
            ),
            (Record::ConfigPut(ClusterConfig { max_peer_count: 3 }), "05 00000003"),
            (Record::KeyModeLatched(KeyMode::Raw), "06 00"),
            (Record::KeyModeLatched(KeyMode::Txn), "06 01"),
            (Record::IdWindow { end: 1001 }, "07 00000000000003e9"),
            (Record::TsoWindow { end_ms: 3000 }, "08 0000000000000bb8"),
            (Record::GcSafePoint(TimeStamp(7)), "09 0000000000000007"),
            (
                Record::ServiceSafePointPut {
                    service: "br".into(),
                    safe_point: TimeStamp(7),
                    expires_at: 8,
                },
                "0a 00000002 'br' 0000000000000007 0000000000000008",
            ),
            (Record::ServiceSafePointRemoved { service: "br".into() }, "0b 00000002 'br'"),
            (Record::StoreForgotten { store: StoreId(9) }, "0c 0000000000000009"),
        ]
    }

    fn bytes(golden: &str) -> Vec<u8> {
        let bytes_of =
            |word: &str| match word.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
                Some(text) => text.as_bytes().to_vec(),
                None => (0..word.len())
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&word[i..i + 2], 16).unwrap())
                    .collect(),
            };
        golden.split_whitespace().flat_map(bytes_of).collect()
    }

    #[test]
    fn every_kind_has_its_golden_bytes() {
        for (record, golden) in golden() {
            let mut out = Writer::new();
            record.encode_into(&mut out);
            assert_eq!(out.finish(), bytes(golden), "{record:?}");
            let stored = bytes(golden);
            let mut reader = Reader::new(&stored);
            assert_eq!(Record::decode(&mut reader), Ok(record));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn other_bytes_are_refused_and_never_a_panic() {
        for (record, golden) in golden() {
            let whole = bytes(golden);
            for cut in 0..whole.len() {
                assert!(
                    Record::decode(&mut Reader::new(&whole[..cut])).is_err(),
                    "{record:?} cut at {cut}"
                );
            }
            for i in 0..whole.len() {
                for value in [0, 1, 2, 0x7f, 0xff] {
                    let mut changed = whole.clone();
                    changed[i] = value;
                    let _ = Record::decode(&mut Reader::new(&changed));
                }
            }
        }
        assert_eq!(
            Record::decode(&mut Reader::new(&[99])),
            Err(DecodeError::Invalid("kind of record"))
        );
    }
}
