//! The vocabulary of the system. Every other crate speaks in these nouns, and no crate defines them again.
//!
//! - A **store** is one storage process with one data directory ([`StoreId`]).
//! - A **region** is a contiguous key range, the unit of replication ([`Region`], [`RegionEpoch`]).
//! - A **peer** is the replica of a region on a store ([`Peer`]).
//! - A **timestamp** is 46 bits of milliseconds and 18 bits of a counter ([`TimeStamp`]).
//! - A **column family** is one of three ordered maps that share atomic batches ([`Cf`]).
//! - A **modify** is one effect on the data ([`Modify`]); a write is a list of them.
//! - A **request context** says which region, epoch and peer a request was meant for ([`RequestContext`]).
//! - A **region error** says why a request was not served there ([`RegionError`]).
//!
//! No I/O, no threads, no clocks. Bytes that are stored or sent between stores are encoded by [`codec`];
//! every bound of the system stands in [`limits`].
#![forbid(unsafe_code)]

pub mod api;
pub mod catalogue;
pub mod cf;
pub mod codec;
pub mod context;
pub mod error;
pub mod histogram;
pub mod ids;
pub mod key;
pub mod limits;
pub mod marks;
pub mod modify;
pub mod region;
pub mod timestamp;

pub use api::{ApiMode, ApiVersion, KeyMode};
pub use bytes::Bytes;
pub use catalogue::Code;
pub use cf::Cf;
pub use context::RequestContext;
pub use error::{ErrorClass, RegionError};
pub use histogram::Histogram;
pub use ids::{ClusterId, PeerId, RegionId, StoreId};
pub use key::KeyRange;
pub use modify::Modify;
pub use region::{Peer, PeerRole, Region, RegionEpoch};
pub use timestamp::TimeStamp;
