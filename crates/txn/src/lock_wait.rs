//! Which transaction waits for which lock, and whose turn it is.
//!
//! Who finds a key locked by somebody else waits in the key's queue; the oldest transaction comes first. When the lock is
//! gone one of them is woken, and no more: it takes the key, or its client has to look at what is newer and comes back.
//! The others would find the key locked again.

use std::collections::{BTreeMap, BTreeSet};

use types::{Bytes, TimeStamp};

/// The queues of a store. Ids are the caller's; one is not used again before it has left.
#[derive(Debug, Default)]
pub struct LockWaits {
    /// Who waits for a key of the user, by age.
    queues: BTreeMap<Bytes, BTreeSet<(TimeStamp, u64)>>,
    /// Where each one waits.
    places: BTreeMap<u64, (Bytes, TimeStamp)>,
}

impl LockWaits {
    /// Nobody waits.
    pub fn new() -> LockWaits {
        LockWaits::default()
    }

    /// `id`, a request of transaction `start_ts`, waits for a key of the user.
    pub fn wait(&mut self, id: u64, key: Bytes, start_ts: TimeStamp) {
        debug_assert!(!self.places.contains_key(&id), "request {id} waits already");
        self.queues.entry(key.clone()).or_default().insert((start_ts, id));
        self.places.insert(id, (key, start_ts));
    }

    /// `id` waits no longer. Says whether it did.
    pub fn leave(&mut self, id: u64) -> bool {
        let Some((key, start_ts)) = self.places.remove(&id) else { return false };
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.remove(&(start_ts, id));
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
        true
    }

    /// The key is free: whose turn it is. Waits no longer, then.
    pub fn next(&mut self, key: &Bytes) -> Option<u64> {
        let (_, id) = *self.queues.get(key)?.first()?;
        self.leave(id);
        Some(id)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn the_oldest_comes_first_and_one_at_a_time() {
        let mut waits = LockWaits::new();
        for (id, name, start_ts) in [(1, "a", 30), (2, "a", 10), (3, "b", 5), (4, "a", 20)] {
            waits.wait(id, key(name), TimeStamp(start_ts));
        }
        assert_eq!(waits.next(&key("a")), Some(2));
        assert!(waits.leave(4), "it gives up");
        assert!(!waits.leave(4) && !waits.leave(2));
        assert_eq!(waits.next(&key("a")), Some(1));
        assert_eq!(waits.next(&key("a")), None);
        assert_eq!(waits.len(), 1);
        assert_eq!(waits.next(&key("b")), Some(3));
        assert!(waits.is_empty());
    }
}
