//! Whether transactions were what they say: atomic, and each reading one moment.
//!
//! In the end the stores' own records say what was committed and when. Locks that are still there are read as their
//! primaries (or, with asynchronous commit, all keys together) decide. Against that every transaction is held: what its
//! client was told, each of its reads at its timestamp, and that nobody wrote what it wrote in between.

use std::collections::BTreeMap;

use raftstore::snapshot::Pairs;
use txn::{Lock, Write, WriteKind};
use types::{Bytes, Cf, TimeStamp};

use super::clients::{BALANCE, End, Record, TxnClients, balance_of};
use crate::checker::{Verdict, Violation};

/// The versions of a key: when committed, by whom, and what.
type Versions = BTreeMap<TimeStamp, (TimeStamp, Bytes)>;

/// What lies in the stores in the end.
#[derive(Debug, Default)]
struct Stored {
    versions: BTreeMap<Bytes, Versions>,
    locks: BTreeMap<Bytes, Lock>,
}

impl TxnClients {
    /// Judges all transactions by what lies in the column families of all regions in the end.
    pub(in crate::store) fn judge(&self, pairs: &Pairs) -> Verdict {
        let mut stored = Stored::default();
        for account in self.accounts() {
            stored.versions.insert(account.clone(), Versions::new());
        }
        for (cf, at, value) in pairs {
            stored.take(*cf, at, value)?;
        }
        stored.end_locks();
        for record in &self.records {
            stored.holds(record)?;
        }
        stored.is_whole()
    }
}

impl Stored {
    fn take(&mut self, cf: Cf, at: &Bytes, value: &Bytes) -> Verdict {
        let damaged = |error: String| Violation::new("transactional records can be read", error);
        match cf {
            Cf::Lock => {
                let key = types::key::decode_exact(at).ok_or_else(|| damaged(format!("{at:?}")))?;
                let lock = Lock::decode(value).map_err(|error| damaged(error.to_string()))?;
                self.locks.insert(key.into(), lock);
            }
            Cf::Write => {
                let split = txn::layout::split_version(at)
                    .and_then(|(key, ts)| Some((types::key::decode_exact(key)?, ts)));
                let (key, commit_ts) =
                    split.ok_or_else(|| damaged(format!("write record {at:?}")))?;
                let write = Write::decode(value).map_err(|error| damaged(error.to_string()))?;
                if write.kind == WriteKind::Put {
                    let value = write.short_value.unwrap_or_default();
                    let versions = self.versions.entry(key.into()).or_default();
                    versions.insert(commit_ts, (write.start_ts, value));
                }
            }
            Cf::Default => {}
        }
        Ok(())
    }

    /// Turns locks of committed transactions into versions.
    fn end_locks(&mut self) {
        let locks = std::mem::take(&mut self.locks);
        for (key, lock) in &locks {
            let decided = self.commit_of(&lock.primary, lock.start_ts);
            let commit_ts = decided.or_else(|| self.committed_by_all(&locks, lock));
            if let Some(commit_ts) = commit_ts {
                let value = lock.short_value.clone().unwrap_or_default();
                let versions = self.versions.entry(key.clone()).or_default();
                versions.insert(commit_ts, (lock.start_ts, value));
            }
        }
    }

    /// When a transaction with asynchronous commit was committed, of which all keys are prewritten.
    fn committed_by_all(&self, locks: &BTreeMap<Bytes, Lock>, lock: &Lock) -> Option<TimeStamp> {
        let own = |key: &Bytes| locks.get(key).filter(|found| found.start_ts == lock.start_ts);
        let primary = own(&lock.primary).filter(|primary| primary.use_async_commit)?;
        let mut commit_ts = primary.min_commit_ts;
        for key in &primary.secondaries {
            match own(key) {
                Some(found) if found.use_async_commit => {
                    commit_ts = commit_ts.max(found.min_commit_ts);
                }
                Some(_) => return None,
                None => return self.commit_of(key, lock.start_ts),
            }
        }
        Some(commit_ts)
    }

    fn commit_of(&self, key: &Bytes, start_ts: TimeStamp) -> Option<TimeStamp> {
        let versions = self.versions.get(key)?;
        versions
            .iter()
            .find(|(_, (writer, _))| *writer == start_ts)
            .map(|(commit_ts, _)| *commit_ts)
    }

    /// What a key held at a moment.
    fn at(&self, key: &Bytes, version: TimeStamp) -> Option<&Bytes> {
        let versions = self.versions.get(key)?;
        versions.range(..=version).next_back().map(|(_, (_, value))| value)
    }

    /// Whether a transaction is what its client says.
    fn holds(&self, record: &Record) -> Verdict {
        let start_ts = record.start_ts;
        for (key, read) in &record.reads {
            let held = self.at(key, start_ts);
            if held != read.as_ref() {
                let details = format!(
                    "transaction {start_ts} read {read:?} of {key:?}, which held {held:?} at its start"
                );
                return Err(Violation::new("a transaction reads one moment", details));
            }
        }
        let commits: Vec<Option<TimeStamp>> =
            record.writes.iter().map(|(key, _)| self.commit_of(key, start_ts)).collect();
        let fails = |property, what: &str| {
            let details = format!("{what}: {record:?} has commits {commits:?}");
            Err(Violation::new(property, details))
        };
        if commits.iter().any(|commit| *commit != commits[0]) {
            return fails("a transaction is atomic", "in part");
        }
        match (record.end, commits.first().copied().flatten()) {
            _ if record.writes.is_empty() => {}
            (End::Committed(at), Some(found)) if at == found => {}
            (End::Committed(_), _) => {
                return fails("what was committed is there", "acknowledged");
            }
            (End::Aborted, Some(_)) => {
                return fails("what was rolled back is not there", "rolled back");
            }
            (End::Aborted, None) | (End::Unknown, _) => {}
        }
        Ok(())
    }

    /// Whether nobody's write was lost, and no money.
    fn is_whole(&self) -> Verdict {
        for (key, versions) in &self.versions {
            let mut before = TimeStamp::ZERO;
            for (commit_ts, (start_ts, _)) in versions {
                if *start_ts < before {
                    let details = format!(
                        "{key:?}: committed at {commit_ts} from {start_ts} on, over what was committed at {before}"
                    );
                    return Err(Violation::new("no update is lost", details));
                }
                before = *commit_ts;
            }
        }
        let last = |key: &Bytes| balance_of(self.at(key, TimeStamp::MAX));
        let total: u64 = self.versions.keys().map(last).sum();
        let wanted = BALANCE * self.versions.len() as u64;
        if total != wanted {
            let details = format!("{total} instead of {wanted}");
            return Err(Violation::new("no money is lost", details));
        }
        Ok(())
    }
}
