//! Identifiers. Each is a number that the scheduler hands out once and never again; 0 means "none" on the wire.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Whether this is the wire's "no such thing".
            pub fn is_none(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> $name {
                $name(id)
            }
        }
    };
}

id! {
    /// A cluster. Drawn once at its first start; every request to the scheduler names it.
    ClusterId
}
id! {
    /// A store: one storage process with one data directory.
    StoreId
}
id! {
    /// A region: one contiguous key range.
    RegionId
}
id! {
    /// A peer: the replica of one region on one store.
    PeerId
}
