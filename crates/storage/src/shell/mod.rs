//! What owns threads, waits and reads clocks in this crate.

mod executor;
mod inspect;
mod latched;
mod lock_waits;
mod parking;
mod proposal;
mod replicated;
mod split;
mod storage;
mod ts_limit;
mod versions;
mod view;
mod writer;

pub use executor::{Asking, Locking, Timestamps, Wanted, user_range};
pub use lock_waits::LockWait;
pub use proposal::Proposal;
pub use replicated::{RaftHandle, Replication};
pub use storage::{Commits, Storage, StorageOptions};
pub use versions::VersionCollection;
pub use view::View;
