//! Which command waits for which keys.
//!
//! A command decides by what it reads and then proposes changes. Nobody else may change the same keys in between, so
//! it holds their latches from before its snapshot until its changes are applied. Every key has a queue; a command
//! enters the queues of all its keys at once, so that any two commands stand in the same order wherever they meet,
//! and nobody waits in a circle.

use std::collections::{BTreeMap, VecDeque};

use types::Bytes;

/// The queues. Ids are the caller's; one is not used again before it is released.
#[derive(Debug, Default)]
pub struct Latches {
    /// Who has a key, in front, and who waits for it.
    queues: BTreeMap<Bytes, VecDeque<u64>>,
    /// The keys of a command, and in how many queues it is not in front.
    commands: BTreeMap<u64, (Vec<Bytes>, usize)>,
}

impl Latches {
    /// Nobody has anything.
    pub fn new() -> Latches {
        Latches::default()
    }

    /// `id` wants all of `keys` (of the user, in any order, also twice). Returns whether it has them; if not, it
    /// waits, and some [`release`](Latches::release) will name it.
    pub fn acquire(&mut self, id: u64, mut keys: Vec<Bytes>) -> bool {
        debug_assert!(!self.commands.contains_key(&id), "command {id} waits already");
        keys.sort_unstable();
        keys.dedup();
        let mut missing = 0;
        for key in &keys {
            let queue = self.queues.entry(key.clone()).or_default();
            missing += usize::from(!queue.is_empty());
            queue.push_back(id);
        }
        self.commands.insert(id, (keys, missing));
        missing == 0
    }

    /// `id` is done, or gives up waiting. Returns those that have all their keys now, in the order of their ids.
    pub fn release(&mut self, id: u64) -> Vec<u64> {
        let Some((keys, _)) = self.commands.remove(&id) else { return Vec::new() };
        let mut ready = Vec::new();
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let was_front = queue.front() == Some(&id);
            queue.retain(|&other| other != id);
            let Some(&next) = queue.front() else {
                self.queues.remove(&key);
                continue;
            };
            if was_front && let Some((_, missing)) = self.commands.get_mut(&next) {
                *missing -= 1;
                if *missing == 0 {
                    ready.push(next);
                }
            }
        }
        ready.sort_unstable();
        ready
    }

    /// How many commands have or wait for keys.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether nobody has or waits for a key.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&'static str]) -> Vec<Bytes> {
        names.iter().map(|&name| Bytes::from(name)).collect()
    }

    #[test]
    fn a_key_goes_to_those_who_want_it_in_their_order() {
        let mut latches = Latches::new();
        assert!(latches.acquire(1, keys(&["a", "b", "a"])));
        assert!(!latches.acquire(2, keys(&["b", "c"])));
        assert!(!latches.acquire(3, keys(&["c"])), "2 waits for c before 3, though it has not all");
        assert!(latches.acquire(4, keys(&["d"])));
        assert_eq!(latches.release(1), [2]);
        assert_eq!(latches.release(4), []);
        assert_eq!(latches.release(2), [3]);
        assert_eq!(latches.release(3), []);
        assert!(latches.is_empty());
    }

    #[test]
    fn who_gives_up_waiting_makes_way() {
        let mut latches = Latches::new();
        assert!(latches.acquire(1, keys(&["a"])));
        assert!(!latches.acquire(2, keys(&["a", "b"])));
        assert!(!latches.acquire(3, keys(&["b"])));
        assert_eq!(latches.release(2), [3]);
        assert_eq!(latches.release(1), []);
        assert_eq!(latches.release(3), []);
        assert_eq!(latches.release(3), [], "released already");
    }

    #[test]
    fn commands_that_meet_on_two_keys_do_not_wait_in_a_circle() {
        let mut latches = Latches::new();
        assert!(latches.acquire(1, keys(&["a", "b"])));
        assert!(!latches.acquire(2, keys(&["b", "a"])));
        assert_eq!(latches.release(1), [2]);
    }
}
