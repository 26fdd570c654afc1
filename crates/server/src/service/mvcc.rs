//! What is stored of keys, for people: MvccGetByKey, MvccGetByStartTs, PhysicalScanLock.

use proto::kvrpcpb::{
    MvccGetByKeyRequest, MvccGetByKeyResponse, MvccGetByStartTsRequest, MvccGetByStartTsResponse,
    MvccInfo, MvccLock, MvccValue, MvccWrite, Op, PhysicalScanLockRequest,
    PhysicalScanLockResponse,
};
use txn::{LastChange, Lock, Write, WriteKind, mvcc};
use types::{Bytes, KeyRange, TimeStamp};

use super::kv::KvService;
use crate::{
    convert::context,
    convert_txn::{found_lock, lock_kind},
    errors::Answer,
};

/// Locks and records that are looked at before others get their turn.
const LOOKED_AT_ONCE: usize = 4096;

impl KvService {
    /// Everything that is stored of a key.
    pub(crate) async fn mvcc_get_by_key(
        &self,
        request: MvccGetByKeyRequest,
    ) -> MvccGetByKeyResponse {
        let context = context(request.context.as_ref());
        let key = request.key;
        let stored = types::key::encode(&key);
        let looked = self.storage().txn_look(&context, |snapshot, region| {
            let is_inside = region.range.contains(&stored);
            is_inside.then(|| mvcc::records_of(snapshot, &key)).transpose()
        });
        match self.known(looked).await {
            // Who asks the wrong region hears where it is.
            Ok(None) => match self.storage().check_txn_range(&context, &one(&key)) {
                Err(error) => MvccGetByKeyResponse::failed(&error),
                Ok(()) => MvccGetByKeyResponse::default(),
            },
            Ok(Some(records)) => {
                MvccGetByKeyResponse { info: Some(info(records)), ..Default::default() }
            }
            Err(error) => MvccGetByKeyResponse::failed(&error),
        }
    }

    /// A key of the region that a transaction has locked, committed or rolled back, and everything that is stored of it. No
    /// key and no information: there is none.
    pub(crate) async fn mvcc_get_by_start_ts(
        &self,
        request: MvccGetByStartTsRequest,
    ) -> MvccGetByStartTsResponse {
        let context = context(request.context.as_ref());
        let start_ts = TimeStamp(request.start_ts);
        let mut range = KeyRange::all();
        loop {
            let looked = self.storage().txn_look(&context, |snapshot, region| {
                let range = range.intersect(&storage::user_range(region));
                let (key, next) = mvcc::find_txn(snapshot, &range, start_ts, LOOKED_AT_ONCE)?;
                let records =
                    key.as_ref().map(|key| mvcc::records_of(snapshot, key)).transpose()?;
                Ok((key.zip(records), next))
            });
            match self.known(looked).await {
                Ok((Some((key, records)), _)) => {
                    let info = Some(info(records));
                    return MvccGetByStartTsResponse { key, info, ..Default::default() };
                }
                Ok((None, Some(next))) => range.start = next,
                Ok((None, None)) => return MvccGetByStartTsResponse::default(),
                Err(error) => return MvccGetByStartTsResponse::failed(&error),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Locks of this store, whatever its regions are and whoever leads them.
    pub(crate) async fn physical_scan_lock(
        &self,
        request: PhysicalScanLockRequest,
    ) -> PhysicalScanLockResponse {
        let context = context(request.context.as_ref());
        let max_ts = TimeStamp(request.max_ts);
        let limit = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut range = KeyRange { start: request.start_key, end: Bytes::new() };
        let mut response = PhysicalScanLockResponse::default();
        while response.locks.len() < limit {
            let left = (limit - response.locks.len()).min(LOOKED_AT_ONCE);
            let looked = self.storage().look_locally(&context, |snapshot| {
                txn::find_locks(snapshot, &range, |lock| lock.start_ts <= max_ts, left)
            });
            let (locks, next) = match looked {
                Ok(found) => found,
                Err(error) => return PhysicalScanLockResponse::failed(&error),
            };
            response.locks.extend(locks.into_iter().map(found_lock));
            match next {
                Some(next) => range.start = next,
                None => break,
            }
            tokio::task::yield_now().await;
        }
        response
    }
}

/// A key as a range.
fn one(key: &Bytes) -> KeyRange {
    KeyRange { start: key.clone(), end: [&key[..], b"\0"].concat().into() }
}

fn info(records: mvcc::KeyRecords) -> MvccInfo {
    MvccInfo {
        lock: records.lock.map(lock_info),
        writes: records.writes.into_iter().map(write_info).collect(),
        values: records
            .values
            .into_iter()
            .map(|(start_ts, value)| MvccValue { start_ts: start_ts.0, value })
            .collect(),
    }
}

fn lock_info(lock: Lock) -> MvccLock {
    let (last_change_ts, versions_to_last_change) = last_change(lock.last_change);
    MvccLock {
        r#type: lock_kind(lock.kind).into(),
        start_ts: lock.start_ts.0,
        primary: lock.primary,
        short_value: lock.short_value.unwrap_or_default(),
        ttl: lock.ttl,
        for_update_ts: lock.for_update_ts.0,
        txn_size: lock.txn_size,
        use_async_commit: lock.use_async_commit,
        secondaries: lock.secondaries,
        rollback_ts: lock.rollback_ts.into_iter().map(|ts| ts.0).collect(),
        last_change_ts,
        versions_to_last_change,
    }
}

fn write_info((commit_ts, write): (TimeStamp, Write)) -> MvccWrite {
    let (last_change_ts, versions_to_last_change) = last_change(write.last_change);
    let kind = match write.kind {
        WriteKind::Put => Op::Put,
        WriteKind::Delete => Op::Del,
        WriteKind::Lock => Op::Lock,
        WriteKind::Rollback => Op::Rollback,
    };
    MvccWrite {
        r#type: kind.into(),
        start_ts: write.start_ts.0,
        commit_ts: commit_ts.0,
        short_value: write.short_value.unwrap_or_default(),
        has_overlapped_rollback: write.has_overlapped_rollback,
        // Versions are removed on all replicas alike: nothing needs to be fenced.
        has_gc_fence: false,
        gc_fence: 0,
        last_change_ts,
        versions_to_last_change,
    }
}

/// The timestamp and the number of versions up to there, as TiKV has them: a number alone says that there was no version.
/// Ours is not counted; it is 1 when the timestamp is known.
fn last_change(last: LastChange) -> (u64, u64) {
    match last {
        LastChange::Unknown => (0, 0),
        LastChange::None => (0, 1),
        LastChange::At(ts) => (ts.0, 1),
    }
}
