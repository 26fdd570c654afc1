//! A client's transaction.

use std::collections::{BTreeMap, BTreeSet};

use txn::commands::{
    Commit, Mutation, MutationOp, PessimisticAction, PessimisticKey, PessimisticLock, Prewrite,
    WakeUpMode,
};
use types::{Bytes, TimeStamp};

use crate::support::ts;

/// How a client wants to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    TwoPhase,
    Async,
    OnePhase,
}

/// A pessimistic lock that a client was told it has.
#[derive(Clone, Debug)]
pub(crate) struct Locked {
    /// As of when.
    pub at: u64,
    /// What it was shown.
    pub value: Option<Bytes>,
}

/// A transaction, and what its client knows.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub start_ts: u64,
    pub is_pessimistic: bool,
    pub mode: Mode,
    pub max_commit_ts: u64,
    /// One a key. The first is the primary and no check.
    pub mutations: Vec<Mutation>,
    pub locked: BTreeMap<Bytes, Locked>,
    pub prewritten: BTreeSet<Bytes>,
    pub min_commit_ts: u64,
    /// A timestamp that it has taken, to commit at.
    pub commit_ts: Option<u64>,
    /// Some request fell back.
    pub fell_back: bool,
    /// Does nothing more of its own.
    pub is_done: bool,
    /// What the client was told: committed when, or not.
    pub told: Option<Option<u64>>,
    /// What the records say in the end.
    pub fate: Option<Option<u64>>,
    /// Requests that it sent, and that may arrive again.
    pub prewrites: Vec<Prewrite>,
    pub commits: Vec<Commit>,
    pub locks: Vec<PessimisticLock>,
}

impl Client {
    pub(crate) fn primary(&self) -> &Bytes {
        &self.mutations[0].key
    }

    /// The keys that get locks.
    pub(crate) fn keys(&self) -> Vec<Bytes> {
        let writes = self.mutations.iter().filter(|m| m.op != MutationOp::CheckNotExists);
        writes.map(|mutation| mutation.key.clone()).collect()
    }

    /// A prewrite of some of the mutations.
    pub(crate) fn prewrite(&self, mutations: Vec<Mutation>) -> Prewrite {
        let for_update_ts = self.locked.values().map(|locked| locked.at).max().unwrap_or(0);
        let constraints = mutations.iter().enumerate().filter_map(|(index, mutation)| {
            self.locked.get(&mutation.key).map(|locked| (index, ts(locked.at)))
        });
        Prewrite {
            for_update_ts_constraints: constraints.collect(),
            mutations,
            primary: self.primary().clone(),
            start_ts: ts(self.start_ts),
            lock_ttl: 3,
            txn_size: self.mutations.len() as u64,
            for_update_ts: ts(for_update_ts),
            min_commit_ts: ts(self.start_ts + 1),
            max_commit_ts: ts(self.max_commit_ts),
            use_async_commit: self.mode == Mode::Async,
            try_one_pc: self.mode == Mode::OnePhase,
            // Always sent: it is not what asks for asynchronous commit.
            secondaries: self.keys().split_off(1),
            ..Prewrite::default()
        }
    }

    /// A request to lock one key.
    pub(crate) fn lock(
        &self,
        key: &Bytes,
        for_update_ts: TimeStamp,
        force: bool,
    ) -> PessimisticLock {
        let op = self.mutations.iter().find(|mutation| mutation.key == *key).map(|m| m.op);
        let should_not_exist = op == Some(MutationOp::Insert);
        PessimisticLock {
            keys: vec![PessimisticKey { key: key.clone(), should_not_exist }],
            primary: self.primary().clone(),
            start_ts: ts(self.start_ts),
            for_update_ts,
            ttl: 3,
            min_commit_ts: TimeStamp(for_update_ts.0 + 1),
            wake_up_mode: if force { WakeUpMode::ForceLock } else { WakeUpMode::Normal },
            return_values: true,
            ..PessimisticLock::default()
        }
    }

    /// What the client says about its locks.
    pub(crate) fn mutations_to_send(&self, keys: &[Bytes]) -> Vec<Mutation> {
        let wanted = self.mutations.iter().filter(|mutation| keys.contains(&mutation.key));
        wanted
            .map(|mutation| Mutation {
                pessimistic: if self.is_pessimistic {
                    PessimisticAction::DoPessimisticCheck
                } else {
                    PessimisticAction::Skip
                },
                ..mutation.clone()
            })
            .collect()
    }
}
