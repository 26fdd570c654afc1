//! Which commands a cluster takes, and how their keys lie on disk (TiKV's "API version").

use std::{fmt, str::FromStr};

/// `storage.api`: fixed when a cluster is bootstrapped, stored in every store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiMode {
    /// Raw or transactional, decided for good by the first write; no time to live.
    #[default]
    V1,
    /// Raw with time to live; no transactions.
    V1Ttl,
    /// Raw (keys `r…`, with time to live) and transactional (keys `x…`) side by side in keyspaces.
    V2,
}

impl ApiMode {
    /// The value of `storage.api`.
    pub fn name(self) -> &'static str {
        match self {
            ApiMode::V1 => "v1",
            ApiMode::V1Ttl => "v1ttl",
            ApiMode::V2 => "v2",
        }
    }

    /// The byte on disk.
    pub fn to_byte(self) -> u8 {
        match self {
            ApiMode::V1 => 0,
            ApiMode::V1Ttl => 1,
            ApiMode::V2 => 2,
        }
    }

    /// Reads the byte on disk.
    pub fn from_byte(byte: u8) -> Option<ApiMode> {
        [ApiMode::V1, ApiMode::V1Ttl, ApiMode::V2].into_iter().find(|mode| mode.to_byte() == byte)
    }

    /// Whether raw values carry an expiry trailer on disk (docs/formats.md).
    pub fn has_ttl(self) -> bool {
        self != ApiMode::V1
    }
}

impl fmt::Display for ApiMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ApiMode {
    type Err = String;

    fn from_str(name: &str) -> Result<ApiMode, String> {
        match name {
            "v1" | "1" => Ok(ApiMode::V1),
            "v1ttl" => Ok(ApiMode::V1Ttl),
            "v2" | "2" => Ok(ApiMode::V2),
            other => Err(format!("unknown API mode \"{other}\": one of v1, v1ttl, v2")),
        }
    }
}

/// The `api_version` that a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiVersion {
    /// The request knows no keyspaces.
    #[default]
    V1,
    /// Raw with time to live.
    V1Ttl,
    /// The request's keys begin with a keyspace prefix.
    V2,
}

/// What kind of data a V1 cluster holds. The first write latches it: raw and transactional keys in one key space
/// make each other unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMode {
    /// Keys and values as the user gave them.
    Raw,
    /// Memcomparable keys with versions.
    Txn,
}

impl KeyMode {
    /// The word shown to people.
    pub fn name(self) -> &'static str {
        match self {
            KeyMode::Raw => "raw",
            KeyMode::Txn => "transactional",
        }
    }
}

impl fmt::Display for KeyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
