//! Who waits for whom, in the whole cluster, and whether that is a circle.
//!
//! One store keeps this graph (who leads the region with the first key); every request that waits for a lock, on any
//! store, is an edge of it. The edge that would close a circle is refused: its transaction is told, and gives up. Edges
//! that nobody takes back, since their store is gone, end by themselves.

use std::collections::{BTreeMap, BTreeSet};

use types::{Bytes, TimeStamp};

use crate::WaitFor;

/// Milliseconds after which an edge is forgotten: longer than anybody waits before it asks again.
const EDGE_LASTS: u64 = 10_000;

/// Milliseconds between two looks for edges that have ended.
const SWEEP_EVERY: u64 = 1_000;

/// Edges that are kept at most. More are not recorded, and their circles end by the time-outs of who waits.
const EDGES_MAX: usize = 100_000;

/// The graph.
#[derive(Debug, Default)]
pub struct Deadlocks {
    /// For each transaction that waits: for whom, over which keys of the user, and since when.
    waits: BTreeMap<TimeStamp, BTreeMap<TimeStamp, BTreeMap<Bytes, u64>>>,
    edges: usize,
    /// When old edges were last looked for.
    swept: u64,
}

/// A circle that a new edge would have closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circle {
    /// The edges, from whom the new one waits for on; the new one is the last.
    pub chain: Vec<WaitFor>,
    /// The user's key over which somebody waits for who asked.
    pub key: Bytes,
}

impl Deadlocks {
    /// Nobody waits.
    pub fn new() -> Deadlocks {
        Deadlocks::default()
    }

    /// Somebody begins to wait, at the time `now` in milliseconds. If that closes a circle it must not: the edge is not
    /// kept then.
    pub fn wait(&mut self, edge: WaitFor, now: u64) -> Option<Circle> {
        if self.swept + SWEEP_EVERY <= now {
            self.swept = now;
            self.forget_older(now.saturating_sub(EDGE_LASTS));
        }
        let since = now.saturating_sub(EDGE_LASTS);
        if let Some(mut chain) = self.path(edge.wait_for_ts, edge.start_ts, since) {
            let key = chain.last().map(|last| last.key.clone()).unwrap_or_default();
            chain.push(edge);
            return Some(Circle { chain, key });
        }
        if self.edges < EDGES_MAX {
            let keys = self.waits.entry(edge.start_ts).or_default();
            let keys = keys.entry(edge.wait_for_ts).or_default();
            self.edges += usize::from(keys.insert(edge.key, now).is_none());
        }
        None
    }

    /// Somebody waits no longer.
    pub fn forget(&mut self, edge: &WaitFor) {
        let Some(waits) = self.waits.get_mut(&edge.start_ts) else { return };
        let Some(keys) = waits.get_mut(&edge.wait_for_ts) else { return };
        self.edges -= usize::from(keys.remove(&edge.key).is_some());
        if keys.is_empty() {
            waits.remove(&edge.wait_for_ts);
        }
        if waits.is_empty() {
            self.waits.remove(&edge.start_ts);
        }
    }

    /// A transaction waits for nobody any more.
    pub fn forget_txn(&mut self, start_ts: TimeStamp) {
        let waits = self.waits.remove(&start_ts).unwrap_or_default();
        self.edges -= waits.values().map(BTreeMap::len).sum::<usize>();
    }

    /// All edges.
    pub fn edges(&self) -> Vec<WaitFor> {
        let mut edges = Vec::with_capacity(self.edges);
        for (start_ts, waits) in &self.waits {
            for (wait_for_ts, keys) in waits {
                edges.extend(keys.keys().map(|key| WaitFor {
                    start_ts: *start_ts,
                    wait_for_ts: *wait_for_ts,
                    key: key.clone(),
                }));
            }
        }
        edges
    }

    /// How `from` waits for `to`, by way of others or not, over edges that are no older than `since`; nothing, if it does
    /// not. Who waits for itself does.
    fn path(&self, from: TimeStamp, to: TimeStamp, since: u64) -> Option<Vec<WaitFor>> {
        if from == to {
            return Some(Vec::new());
        }
        // From whom each transaction was reached, and over which key.
        let mut reached: BTreeMap<TimeStamp, (TimeStamp, Bytes)> = BTreeMap::new();
        let mut left = vec![from];
        let mut seen = BTreeSet::from([from]);
        while let Some(txn) = left.pop() {
            for (next, keys) in self.waits.get(&txn).into_iter().flatten() {
                let Some((key, _)) = keys.iter().find(|(_, begun)| since <= **begun) else {
                    continue;
                };
                if !seen.insert(*next) {
                    continue;
                }
                reached.insert(*next, (txn, key.clone()));
                if *next == to {
                    return Some(walk_back(&reached, to));
                }
                left.push(*next);
            }
        }
        None
    }

    fn forget_older(&mut self, oldest: u64) {
        self.waits.retain(|_, waits| {
            waits.retain(|_, keys| {
                let before = keys.len();
                keys.retain(|_, since| oldest <= *since);
                self.edges -= before - keys.len();
                !keys.is_empty()
            });
            !waits.is_empty()
        });
    }
}

fn walk_back(reached: &BTreeMap<TimeStamp, (TimeStamp, Bytes)>, mut to: TimeStamp) -> Vec<WaitFor> {
    let mut chain = Vec::new();
    while let Some((from, key)) = reached.get(&to) {
        chain.push(WaitFor { start_ts: *from, wait_for_ts: to, key: key.clone() });
        to = *from;
    }
    chain.reverse();
    chain
}

/// A number for a key, as deadlock errors carry one (FNV-1a; clients only show it).
pub fn key_hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(start_ts: u64, wait_for_ts: u64, key: &'static str) -> WaitFor {
        let (start_ts, wait_for_ts) = (TimeStamp(start_ts), TimeStamp(wait_for_ts));
        WaitFor { start_ts, wait_for_ts, key: Bytes::from_static(key.as_bytes()) }
    }

    #[test]
    fn the_edge_that_closes_a_circle_is_refused_with_the_whole_of_it() {
        let mut graph = Deadlocks::new();
        assert_eq!(graph.wait(edge(1, 2, "a"), 0), None);
        assert_eq!(graph.wait(edge(2, 3, "b"), 0), None);
        assert_eq!(graph.wait(edge(2, 4, "x"), 0), None);
        let circle = graph.wait(edge(3, 1, "c"), 0).unwrap();
        assert_eq!(circle.chain, [edge(1, 2, "a"), edge(2, 3, "b"), edge(3, 1, "c")]);
        assert_eq!(circle.key, "b", "over it 2 waits for 3");
        assert_eq!(graph.edges().len(), 3, "the last edge is not there");
        graph.forget(&edge(2, 3, "b"));
        assert_eq!(graph.wait(edge(3, 1, "c"), 0), None);
    }

    #[test]
    fn an_edge_stays_until_the_last_key_is_forgotten() {
        let mut graph = Deadlocks::new();
        graph.wait(edge(1, 2, "a"), 0);
        graph.wait(edge(1, 2, "b"), 0);
        graph.wait(edge(1, 2, "b"), 0);
        graph.forget(&edge(1, 2, "a"));
        graph.forget(&edge(1, 2, "never"));
        assert!(graph.wait(edge(2, 1, "c"), 0).is_some());
        graph.forget_txn(TimeStamp(1));
        assert_eq!(graph.wait(edge(2, 1, "c"), 0), None);
        assert_eq!(graph.edges(), [edge(2, 1, "c")]);
    }

    #[test]
    fn what_nobody_takes_back_ends_by_itself() {
        let mut graph = Deadlocks::new();
        graph.wait(edge(1, 2, "a"), 5);
        assert!(graph.wait(edge(2, 1, "b"), 5 + EDGE_LASTS).is_some());
        assert_eq!(graph.wait(edge(2, 1, "b"), 6 + EDGE_LASTS), None);
        graph.wait(edge(3, 4, "c"), 5 + EDGE_LASTS + SWEEP_EVERY);
        assert_eq!(graph.edges(), [edge(2, 1, "b"), edge(3, 4, "c")]);
    }

    /// Random edges: the graph never has a circle, and refuses no edge without one.
    #[test]
    fn the_graph_has_no_circle_and_refuses_nothing_else() {
        let mut state = 0x9e37_79b9_u64;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut refused = 0;
        for _ in 0..300 {
            let mut graph = Deadlocks::new();
            let mut reach = [[false; 8]; 8];
            for _ in 0..20 {
                let (from, to) = (below(8) as usize, below(8) as usize);
                let circle = graph.wait(edge(from as u64, to as u64, "k"), 0);
                assert_eq!(circle.is_some(), from == to || reach[to][from]);
                refused += u32::from(circle.is_some());
                if circle.is_none() {
                    for a in 0..8 {
                        for b in 0..8 {
                            reach[a][b] |=
                                (a == from || reach[a][from]) && (b == to || reach[to][b]);
                        }
                    }
                }
            }
        }
        assert!(1000 < refused);
    }
}
