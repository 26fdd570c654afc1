//! What must have been seen, once it is known which transactions were committed.

use std::collections::BTreeMap;

use txn::commands::MutationOp;
use types::Bytes;

use crate::client::Client;

/// A read that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub key: Bytes,
    pub at: u64,
    pub value: Option<Bytes>,
}

/// By key and commit timestamp: who wrote, and what.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    commits: BTreeMap<Bytes, BTreeMap<u64, (usize, MutationOp, Bytes)>>,
}

impl Oracle {
    /// Knows what `clients` committed.
    pub(crate) fn new(clients: &[Client]) -> Oracle {
        let mut oracle = Oracle::default();
        for (index, client) in clients.iter().enumerate() {
            let Some(commit_ts) = client.fate.expect("every transaction is decided") else {
                continue;
            };
            for mutation in client.mutations.iter().filter(|m| m.op != MutationOp::CheckNotExists) {
                let of_key = oracle.commits.entry(mutation.key.clone()).or_default();
                let was = of_key.insert(commit_ts, (index, mutation.op, mutation.value.clone()));
                assert_eq!(was, None, "two commits of {:?} at {commit_ts}", mutation.key);
            }
        }
        oracle
    }

    /// The value of `key` as of `at`.
    fn value(&self, key: &Bytes, at: u64) -> Option<Bytes> {
        let commits = self.commits.get(key)?;
        let changes = commits.range(..=at).rev().filter(|(_, (_, op, _))| *op != MutationOp::Lock);
        let (_, (_, op, value)) = changes.into_iter().next()?;
        (*op != MutationOp::Del).then(|| value.clone())
    }

    /// Every read saw what was committed.
    pub(crate) fn judge_reads(&self, reads: &[Seen]) {
        for read in reads {
            assert_eq!(read.value, self.value(&read.key, read.at), "{read:?}");
        }
    }

    /// Every transaction that was committed relied on what was so.
    pub(crate) fn judge_clients(&self, clients: &[Client]) {
        for (index, client) in clients.iter().enumerate() {
            if let (Some(told), Some(fate)) = (client.told, client.fate) {
                assert_eq!(told, fate, "client {index} was told something else: {client:#?}");
            }
            let Some(Some(commit_ts)) = client.fate else { continue };
            for mutation in &client.mutations {
                let key = &mutation.key;
                if mutation.op == MutationOp::CheckNotExists {
                    assert_eq!(self.value(key, client.start_ts), None, "{key:?} of {index}");
                    continue;
                }
                if mutation.op == MutationOp::Insert {
                    assert_eq!(self.value(key, commit_ts - 1), None, "{key:?} of {index}");
                }
                let before = self.commits[key].range(..commit_ts).next_back();
                // A pessimistic transaction rests on the moment at which it locked the key.
                let locked = client.locked.get(key);
                let since = locked.map_or(client.start_ts, |locked| locked.at);
                if let Some((before, (other, _, _))) = before {
                    assert!(
                        *before <= since,
                        "{other} committed {key:?} at {before}, {index} at {commit_ts}, seen at {since}"
                    );
                }
                if let Some(locked) = locked {
                    assert_eq!(locked.value, self.value(key, commit_ts - 1), "{key:?} of {index}");
                }
            }
        }
    }
}
