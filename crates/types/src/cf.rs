//! Column families: three ordered maps that share snapshots and atomic batches.

use std::fmt;

/// A column family of the user's data.
///
/// Raw commands may name any of them; transactions keep values in `Default`, locks in `Lock` and commit records
/// in `Write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cf {
    /// Values. What a raw command without a column family means.
    #[default]
    Default,
    /// Locks of open transactions.
    Lock,
    /// Commit records.
    Write,
}

impl Cf {
    /// All column families, in the order in which they are stored and counted.
    pub const ALL: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];

    /// The number on disk.
    pub fn to_byte(self) -> u8 {
        match self {
            Cf::Default => 0,
            Cf::Lock => 1,
            Cf::Write => 2,
        }
    }

    /// Reads the number on disk.
    pub fn from_byte(byte: u8) -> Option<Cf> {
        Cf::ALL.get(usize::from(byte)).copied()
    }

    /// The name on the wire and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Cf::Default => "default",
            Cf::Lock => "lock",
            Cf::Write => "write",
        }
    }

    /// Reads a name from the wire; `""` is `default`. An unknown name is `None`.
    pub fn parse(name: &str) -> Option<Cf> {
        match name {
            "" | "default" => Some(Cf::Default),
            "lock" => Some(Cf::Lock),
            "write" => Some(Cf::Write),
            _ => None,
        }
    }
}

impl fmt::Display for Cf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
