//! Who speaks, to whom, in which cluster: said first on every stream, and refused if it is not so.
//!
//! An address may be that of another store than it was (a port used again, a data directory that was copied), or of
//! another cluster. Messages of a wrong store in a Raft group would break what its votes rest on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use proto::internal::StreamHello;
use tonic::Status;
use types::{ClusterId, StoreId};

use super::{Shared, wire};

/// Senders whose refusal is remembered; beyond them refusals are not logged.
const REMEMBERED: usize = 1000;

impl Shared {
    /// What this store says first to another one.
    pub(super) fn hello(&self, to: StoreId) -> StreamHello {
        StreamHello {
            version: wire::VERSION,
            cluster_id: self.cluster.0,
            from_store: self.own.0,
            to_store: to.0,
        }
    }

    /// Who speaks, if it may.
    ///
    /// # Errors
    /// FAILED_PRECONDITION, with what is wrong: it is of another version or cluster, or means another store.
    pub(super) fn check_hello(&self, hello: Option<StreamHello>) -> Result<StoreId, Status> {
        let Some(hello) = hello else {
            return Err(Status::invalid_argument("a stream begins with a hello"));
        };
        let StreamHello { version, cluster_id, from_store, to_store } = hello;
        let problem = if version != wire::VERSION {
            format!("this is version {} of the transport, not {version}", wire::VERSION)
        } else if ClusterId(cluster_id) != self.cluster {
            format!("this is a store of cluster {}, not of {cluster_id}", self.cluster)
        } else if StoreId(to_store) != self.own {
            format!("this is store {}, not {to_store}", self.own)
        } else if StoreId(from_store) == self.own || from_store == 0 {
            format!("there is another store {from_store}: was a data directory copied?")
        } else {
            return Ok(StoreId(from_store));
        };
        Err(Status::failed_precondition(problem))
    }
}

/// Refusals that are logged: each sender's only if it differs from its last one.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<u64, String>>);

impl Refusals {
    /// Whether the refusal of `sender` is worth a line.
    pub(super) fn is_new(&self, sender: u64, problem: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = known.len() < REMEMBERED;
        match known.get_mut(&sender) {
            Some(last) if last == problem => false,
            Some(last) => {
                problem.clone_into(last);
                true
            }
            None if has_room => {
                known.insert(sender, problem.to_owned());
                true
            }
            None => false,
        }
    }

    /// The sender was taken: a later refusal is news.
    pub(super) fn forget(&self, sender: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_news_once_until_it_changes_or_the_sender_was_taken() {
        let refusals = Refusals::default();
        assert!(refusals.is_new(1, "wrong"));
        assert!(!refusals.is_new(1, "wrong"));
        assert!(refusals.is_new(2, "wrong"));
        assert!(refusals.is_new(1, "wrong in another way"));
        refusals.forget(1);
        assert!(refusals.is_new(1, "wrong in another way"));
        for sender in 0..2 * REMEMBERED as u64 {
            refusals.is_new(sender, "many");
        }
        assert!(!refusals.is_new(u64::MAX, "one too many"));
    }
}
