//! What a run over many seeds of stores must have seen.

use crate::required::Required;

/// What must happen in CI already, and what in a long run.
pub(super) const REQUIRED: &[Required] = &[
    Required { from_seeds: 150, marks: OFTEN, counts: COUNTS },
    Required { from_seeds: 3_000, marks: RARELY, counts: &[] },
];

/// Events that a hundred seeds have often, by their names in the code's `sometimes!`.
const OFTEN: &[&str] = &[
    "store: a message to a removed peer is refused",
    "store: a peer asks whether it is a member",
    "store: a peer learns that it is gone",
    "store: a peer without data is destroyed",
    "store: a read is refused in the snapshot because of a split",
    "store: a write is refused when it is applied",
    "store: a write's outcome is not known because its peer is gone",
    "store: an early message is kept",
    "store: an early message reaches the region that a split has made",
    "store: there is no lease because followers may have shown more",
];

/// Events that a hundred seeds may not have.
const RARELY: &[&str] = &[
    "store: a peer is destroyed again after a crash",
    "store: a read is refused in the snapshot because the peer is gone",
    "store: a snapshot comes before the split that makes its region",
    "store: a snapshot is installed again after a crash",
    "store: a snapshot is refused because its keys are another region's",
    "store: a snapshot is refused because who had its keys may come back",
    "store: a split is applied again after a crash",
    "store: a split replaces a peer that a message has made",
    "store: a write's outcome is not known because of a snapshot",
];

/// Counters that must not be 0.
const COUNTS: &[&str] = &[
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
    "txn_locks_resolved",
    "txns_aborted",
    "txns_committed",
    "txns_unknown",
    "writes_acknowledged",
    "writes_undetermined",
];
