//! What a run over many seeds must have seen.

/// Rare events, by their names in the code's `sometimes!`.
pub const REQUIRED: &[&str] = &[];

/// Counters that must not be 0.
pub const REQUIRED_COUNTS: &[&str] = &[
    "clogs",
    "compactions",
    "contents_compared",
    "crashes",
    "crash_loops",
    "deaths",
    "disk_stalls",
    "applier_stalls",
    "disks_lost",
    "freezes",
    "kills",
    "partitions",
    "peers_destroyed",
    "power_cuts",
    "power_losses",
    "reads_answered",
    "reads_by_followers",
    "scans",
    "snapshots_installed",
    "splits_applied",
    "sync_errors",
    "writes_acknowledged",
    "writes_undetermined",
];
