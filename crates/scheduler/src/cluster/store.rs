//! Stores: what they say of themselves, what we make of it.

use types::{StoreId, codec::DecodeError, codec::Reader, codec::Writer};

use super::StoreRegions;
use crate::Now;

/// Where a store is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StoreState {
    /// In service.
    #[default]
    Up,
    /// On its way out: its regions move away.
    Offline,
    /// Gone for good. Its id is never used again.
    Tombstone,
}

impl StoreState {
    /// The number on the wire and on disk.
    pub fn to_byte(self) -> u8 {
        match self {
            StoreState::Up => 0,
            StoreState::Offline => 1,
            StoreState::Tombstone => 2,
        }
    }

    /// Reads the number on the wire and on disk.
    pub fn from_byte(byte: u8) -> Option<StoreState> {
        [StoreState::Up, StoreState::Offline, StoreState::Tombstone]
            .into_iter()
            .find(|s| s.to_byte() == byte)
    }

    /// The word shown to people, as PD has it.
    pub fn name(self) -> &'static str {
        match self {
            StoreState::Up => "Up",
            StoreState::Offline => "Offline",
            StoreState::Tombstone => "Tombstone",
        }
    }
}

/// What a store says of itself. The fields are those of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// Its id.
    pub id: StoreId,
    /// Where clients reach it: `host:port`.
    pub address: String,
    /// Where it is in its life.
    pub state: StoreState,
    /// Keys and values that placement rules refer to.
    pub labels: Vec<(String, String)>,
    /// The version of its program.
    pub version: String,
    /// The commit of its program.
    pub git_hash: String,
    /// Where other stores reach it; empty if at `address`.
    pub peer_address: String,
    /// Where its HTTP pages are.
    pub status_address: String,
    /// Where its program lies.
    pub deploy_path: String,
    /// When it was started: seconds since 1970.
    pub start_timestamp: i64,
}

impl Store {
    pub(crate) fn encode_into(&self, out: &mut Writer) {
        out.u64(self.id.0).u8(self.state.to_byte()).u64(self.start_timestamp.cast_unsigned());
        for text in [
            &self.address,
            &self.version,
            &self.git_hash,
            &self.peer_address,
            &self.status_address,
            &self.deploy_path,
        ] {
            out.bytes(text.as_bytes());
        }
        out.u32(
            u32::try_from(self.labels.len()).expect("the labels of a store fit into a message"),
        );
        for (key, value) in &self.labels {
            out.bytes(key.as_bytes()).bytes(value.as_bytes());
        }
    }

    pub(crate) fn decode(bytes: &mut Reader<'_>) -> Result<Store, DecodeError> {
        let id = StoreId(bytes.u64()?);
        let state =
            StoreState::from_byte(bytes.u8()?).ok_or(DecodeError::Invalid("store state"))?;
        let start_timestamp = bytes.u64()?.cast_signed();
        let (address, version, git_hash) = (bytes.text()?, bytes.text()?, bytes.text()?);
        let (peer_address, status_address, deploy_path) =
            (bytes.text()?, bytes.text()?, bytes.text()?);
        let labels = (0..bytes.u32()?)
            .map(|_| Ok((bytes.text()?, bytes.text()?)))
            .collect::<Result<_, _>>()?;
        Ok(Store {
            id,
            address,
            state,
            labels,
            version,
            git_hash,
            peer_address,
            status_address,
            deploy_path,
            start_timestamp,
        })
    }
}

/// What a store reports of its present state. Not kept over a restart: the next heartbeat brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Which store.
    pub store_id: StoreId,
    /// Bytes of its disk.
    pub capacity: u64,
    /// Bytes of them that are free.
    pub available: u64,
    /// Bytes that its data take.
    pub used: u64,
    /// Regions with a peer there.
    pub region_count: u32,
    /// Snapshots on their way out.
    pub sending_snapshots: u32,
    /// Snapshots on their way in.
    pub receiving_snapshots: u32,
    /// Snapshots being put in place.
    pub applying_snapshots: u32,
    /// When it was started: seconds since 1970.
    pub start_time: u32,
    /// Whether it wants to be left alone.
    pub is_busy: bool,
    /// Bytes written since the last heartbeat.
    pub bytes_written: u64,
    /// Keys written since the last heartbeat.
    pub keys_written: u64,
    /// Bytes read since the last heartbeat.
    pub bytes_read: u64,
    /// Keys read since the last heartbeat.
    pub keys_read: u64,
}

/// All that is known of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreInfo {
    /// What it says of itself.
    pub store: Store,
    /// Its last report; `None` if there was none since the scheduler was started.
    pub stats: Option<StoreStats>,
    /// When that came.
    pub last_heartbeat: Option<Now>,
    /// What the regions' reports say about it.
    pub regions: StoreRegions,
}

/// Which stores to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFilter {
    /// All of them.
    All,
    /// Those that are not gone for good.
    ExceptTombstone,
}
