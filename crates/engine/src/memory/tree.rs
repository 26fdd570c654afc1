//! An ordered map whose copies cost nothing: a B+ tree of shared nodes.
//!
//! Cloning a [`Tree`] copies one pointer. A change copies the nodes on the way from the root to its leaf if, and
//! only if, another tree still shares them, and works in place otherwise. That gives snapshots that never change
//! and writes of O(log n), whether snapshots live or not.
//!
//! Invariant: no node below the root is empty, and the `first` of every child but a node's first one is a lower
//! bound of the keys under it and an upper bound of the keys under the child before it.
//!
//! Every child carries the bytes below it, so that sizes of ranges and the middle of a range are walks down, too.
//! The map knows nothing of families, batches or durability: that is `memory.rs`.

use std::{cmp::Ordering, sync::Arc};

use types::Bytes;

/// Most entries of a leaf and most children of an inner node. Small enough that copying one is cheap, large enough
/// that a million keys are four levels.
const FANOUT: usize = 32;

/// Below this a node is merged into its neighbour, if both fit into one.
const SPARSE: usize = FANOUT / 4;

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

impl Entry {
    fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Entries, by key. Shared, so that copying a leaf touches no byte string.
    Leaf(Vec<Arc<Entry>>),
    Inner(Vec<Child>),
}

#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Parts this child's keys from those of the child before it; means nothing for the first child.
    first: Bytes,
    /// Bytes of keys and values below.
    bytes: u64,
    node: Arc<Node>,
}

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: Arc<Node>,
    bytes: u64,
}

/// Where an entry is: its leaf and its place there.
#[derive(Clone, Debug)]
pub(super) struct Position {
    leaf: Arc<Node>,
    index: usize,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Arc::new(Node::Leaf(Vec::new())), bytes: 0 }
    }
}

impl Tree {
    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Inner(children) => node = &children[route(children, key)].node,
                Node::Leaf(entries) => return find(entries, key).ok().map(|i| &entries[i].value),
            }
        }
    }

    /// Sets `key` to `value`.
    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) {
        let (delta, right) = insert(&mut self.root, Arc::new(Entry { key, value }));
        self.bytes = self.bytes.wrapping_add_signed(delta);
        if let Some(right) = right {
            let node = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(Vec::new())));
            let left = Child { first: Bytes::new(), bytes: self.bytes - right.bytes, node };
            self.root = Arc::new(Node::Inner(vec![left, right]));
        }
    }

    /// Removes `key`, if it is there.
    pub(super) fn remove(&mut self, key: &[u8]) {
        // Looking first keeps the removal of a missing key from copying nodes.
        if self.get(key).is_none() {
            return;
        }
        self.bytes -= remove(&mut self.root, key);
        while let Node::Inner(children) = &*self.root
            && children.len() == 1
        {
            self.root = children[0].node.clone();
        }
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the keys and values before `key`.
    pub(super) fn bytes_before(&self, key: &[u8]) -> u64 {
        let (mut node, mut sum) = (&self.root, 0);
        loop {
            match &**node {
                Node::Inner(children) => {
                    let i = route(children, key);
                    sum += children[..i].iter().map(|child| child.bytes).sum::<u64>();
                    node = &children[i].node;
                }
                Node::Leaf(entries) => {
                    let i = entries.partition_point(|entry| entry.key < key);
                    return sum + entries[..i].iter().map(|entry| entry.bytes()).sum::<u64>();
                }
            }
        }
    }

    /// The entry that covers byte `offset` of all keys and values laid end to end; `None` behind the last one.
    pub(super) fn at_byte(&self, mut offset: u64) -> Option<Position> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Inner(children) => {
                    let i = skip(children.iter().map(|child| child.bytes), &mut offset)?;
                    node = &children[i].node;
                }
                Node::Leaf(entries) => {
                    let index = skip(entries.iter().map(|entry| entry.bytes()), &mut offset)?;
                    return Some(Position { leaf: node.clone(), index });
                }
            }
        }
    }

    /// The first entry whose key is at or after `key`.
    pub(super) fn at_or_after(&self, key: &[u8]) -> Option<Position> {
        first_from(&self.root, key, |order| order == Ordering::Less)
    }

    /// The first entry whose key is greater than `key`.
    pub(super) fn after(&self, key: &[u8]) -> Option<Position> {
        first_from(&self.root, key, |order| order != Ordering::Greater)
    }

    /// The last entry whose key is at or before `key`.
    pub(super) fn at_or_before(&self, key: &[u8]) -> Option<Position> {
        last_until(&self.root, key, |order| order != Ordering::Greater)
    }

    /// The last entry whose key is less than `key`.
    pub(super) fn before(&self, key: &[u8]) -> Option<Position> {
        last_until(&self.root, key, |order| order == Ordering::Less)
    }

    /// The last entry.
    pub(super) fn last(&self) -> Option<Position> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Inner(children) => {
                    node = &children.last().expect("inner nodes have children").node
                }
                Node::Leaf(entries) => {
                    let index = entries.len().checked_sub(1)?;
                    return Some(Position { leaf: node.clone(), index });
                }
            }
        }
    }
}

impl Position {
    /// The entry.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.leaf.entries()[self.index]
    }

    /// Moves to the next entry of the tree that this position came from.
    pub(super) fn next(&self, tree: &Tree) -> Option<Position> {
        if self.index + 1 < self.leaf.entries().len() {
            return Some(Position { leaf: self.leaf.clone(), index: self.index + 1 });
        }
        tree.after(&self.entry().key)
    }

    /// Moves to the entry before, in the tree that this position came from.
    pub(super) fn prev(&self, tree: &Tree) -> Option<Position> {
        if 0 < self.index {
            return Some(Position { leaf: self.leaf.clone(), index: self.index - 1 });
        }
        tree.before(&self.entry().key)
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner(children) => children.len(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Node::Leaf(entries) => entries.iter().map(|entry| entry.bytes()).sum(),
            Node::Inner(children) => children.iter().map(|child| child.bytes).sum(),
        }
    }

    fn entries(&self) -> &[Arc<Entry>] {
        match self {
            Node::Leaf(entries) => entries,
            Node::Inner(_) => unreachable!("positions are in leaves"),
        }
    }

    /// Cuts a full node in two; the right half as a child of the same parent.
    fn split(&mut self) -> Option<Child> {
        if self.len() <= FANOUT {
            return None;
        }
        let (first, node) = match self {
            Node::Leaf(entries) => {
                let right = entries.split_off(entries.len() / 2);
                (right[0].key.clone(), Node::Leaf(right))
            }
            Node::Inner(children) => {
                let right = children.split_off(children.len() / 2);
                (right[0].first.clone(), Node::Inner(right))
            }
        };
        Some(Child { first, bytes: node.bytes(), node: Arc::new(node) })
    }

    /// Takes over what the neighbour to the right holds. `first` is the bound between the two.
    fn append(&mut self, first: &Bytes, right: &Node) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.extend_from_slice(right),
            (Node::Inner(left), Node::Inner(right)) => {
                let joint = left.len();
                left.extend_from_slice(right);
                left[joint].first = first.clone();
            }
            _ => unreachable!("neighbours are on one level"),
        }
    }
}

/// The child that `key` belongs to.
fn route(children: &[Child], key: &[u8]) -> usize {
    children[1..].partition_point(|child| child.first <= key)
}

fn find(entries: &[Arc<Entry>], key: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.key[..].cmp(key))
}

/// The part that covers `offset`, which becomes the offset in that part.
fn skip(parts: impl Iterator<Item = u64>, offset: &mut u64) -> Option<usize> {
    for (i, part) in parts.enumerate() {
        if *offset < part {
            return Some(i);
        }
        *offset -= part;
    }
    None
}

/// Returns by how much the bytes below have changed, and the right half of the node if it was cut in two.
fn insert(node: &mut Arc<Node>, entry: Arc<Entry>) -> (i64, Option<Child>) {
    let node = Arc::make_mut(node);
    let mut delta = entry.bytes() as i64;
    match node {
        Node::Leaf(entries) => match find(entries, &entry.key) {
            Ok(i) => delta -= std::mem::replace(&mut entries[i], entry).bytes() as i64,
            Err(i) => entries.insert(i, entry),
        },
        Node::Inner(children) => {
            let i = route(children, &entry.key);
            let right;
            (delta, right) = insert(&mut children[i].node, entry);
            children[i].bytes = children[i].bytes.wrapping_add_signed(delta);
            if let Some(right) = right {
                children[i].bytes -= right.bytes;
                children.insert(i + 1, right);
            }
        }
    }
    (delta, node.split())
}

/// Returns by how much the bytes below have shrunk.
fn remove(node: &mut Arc<Node>, key: &[u8]) -> u64 {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => find(entries, key).map_or(0, |i| entries.remove(i).bytes()),
        Node::Inner(children) => {
            let i = route(children, key);
            let removed = remove(&mut children[i].node, key);
            children[i].bytes -= removed;
            if children[i].node.len() == 0 {
                children.remove(i);
            } else if children[i].node.len() < SPARSE && 1 < children.len() {
                merge(children, i.saturating_sub(1));
            }
            removed
        }
    }
}

/// Makes one child of children `i` and `i + 1`, if they fit.
fn merge(children: &mut Vec<Child>, i: usize) {
    if FANOUT < children[i].node.len() + children[i + 1].node.len() {
        return;
    }
    let right = children.remove(i + 1);
    Arc::make_mut(&mut children[i].node).append(&right.first, &right.node);
    children[i].bytes += right.bytes;
}

/// The first entry whose comparison with `key` is not `before`.
fn first_from(node: &Arc<Node>, key: &[u8], before: fn(Ordering) -> bool) -> Option<Position> {
    match &**node {
        Node::Leaf(entries) => {
            let index = entries.partition_point(|entry| before(entry.key[..].cmp(key)));
            (index < entries.len()).then(|| Position { leaf: node.clone(), index })
        }
        // The second child tried holds greater keys only, so at most two are.
        Node::Inner(children) => children[route(children, key)..]
            .iter()
            .find_map(|child| first_from(&child.node, key, before)),
    }
}

/// The last entry whose comparison with `key` is `within`.
fn last_until(node: &Arc<Node>, key: &[u8], within: fn(Ordering) -> bool) -> Option<Position> {
    match &**node {
        Node::Leaf(entries) => {
            let index =
                entries.partition_point(|entry| within(entry.key[..].cmp(key))).checked_sub(1)?;
            Some(Position { leaf: node.clone(), index })
        }
        Node::Inner(children) => children[..=route(children, key)]
            .iter()
            .rev()
            .find_map(|child| last_until(&child.node, key, within)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::Rng;

    use super::*;

    /// Checks the invariant of the module documentation and returns the bytes below.
    fn check(node: &Node, low: Option<&Bytes>, high: Option<&Bytes>, is_root: bool) -> u64 {
        assert!(is_root || 0 < node.len(), "an empty node");
        assert!(node.len() <= FANOUT);
        match node {
            Node::Leaf(entries) => {
                assert!(entries.is_sorted_by(|a, b| a.key < b.key));
                assert!(entries.iter().all(|e| low.is_none_or(|low| low <= &e.key)));
                assert!(entries.iter().all(|e| high.is_none_or(|high| e.key < high)));
                node.bytes()
            }
            Node::Inner(children) => {
                let mut sum = 0;
                for (i, child) in children.iter().enumerate() {
                    let low = if i == 0 { low } else { Some(&child.first) };
                    let high = children.get(i + 1).map(|next| &next.first).or(high);
                    assert_eq!(child.bytes, check(&child.node, low, high, false));
                    sum += child.bytes;
                }
                sum
            }
        }
    }

    fn keys(tree: &Tree) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut at = tree.at_or_after(b"");
        while let Some(position) = at {
            out.push(position.entry().key.clone());
            at = position.next(tree);
        }
        out
    }

    #[test]
    fn equals_a_btree_map_and_copies_never_change() {
        for seed in 0..6 {
            let mut rng = Rng::new(seed);
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            let mut copies = Vec::new();
            let space = [40, 400, 4000][seed as usize % 3];
            for step in 0..3000 {
                let key = Bytes::from(format!("{:05}", rng.range(0..space)));
                if rng.chance(if step < 2000 { 0.7 } else { 0.2 }) {
                    let value = Bytes::from(vec![b'v'; rng.range(0..20) as usize]);
                    tree.insert(key.clone(), value.clone());
                    model.insert(key, value);
                } else {
                    tree.remove(&key);
                    model.remove(&key);
                }
                if step % 500 == 0 {
                    copies.push((tree.clone(), model.clone()));
                }
            }
            copies.push((tree, model));
            for (tree, model) in &copies {
                assert_eq!(tree.bytes(), check(&tree.root, None, None, true));
                assert_eq!(keys(tree), model.keys().cloned().collect::<Vec<_>>());
                for probe in 0..space {
                    let key = format!("{probe:05}").into_bytes();
                    let found = |at: Option<Position>| at.map(|p| p.entry().key.clone());
                    assert_eq!(tree.get(&key), model.get(&key[..]));
                    let from = |key: &[u8]| model.range(Bytes::copy_from_slice(key)..);
                    assert_eq!(
                        found(tree.at_or_after(&key)),
                        from(&key).next().map(|(k, _)| k.clone())
                    );
                    let after = from(&key).find(|(k, _)| **k != key).map(|(k, _)| k.clone());
                    assert_eq!(found(tree.after(&key)), after);
                    let until = model.range(..=Bytes::copy_from_slice(&key)).next_back();
                    assert_eq!(found(tree.at_or_before(&key)), until.map(|(k, _)| k.clone()));
                    let before: u64 = model
                        .range(..Bytes::copy_from_slice(&key))
                        .map(|(k, v)| (k.len() + v.len()) as u64)
                        .sum();
                    assert_eq!(tree.bytes_before(&key), before);
                }
                assert_eq!(
                    tree.last().map(|p| p.entry().key.clone()),
                    model.keys().next_back().cloned()
                );
                let mut offset = 0;
                for (key, value) in model {
                    assert_eq!(tree.at_byte(offset).unwrap().entry().key, key);
                    offset += (key.len() + value.len()) as u64;
                    assert_eq!(tree.at_byte(offset - 1).unwrap().entry().key, key);
                }
                assert!(tree.at_byte(offset).is_none());
            }
        }
    }

    #[test]
    fn what_is_removed_leaves_no_nodes_behind() {
        let mut tree = Tree::default();
        for i in 0..5_000_u32 {
            tree.insert(Bytes::copy_from_slice(&i.to_be_bytes()), Bytes::new());
        }
        for i in 0..5_000_u32 {
            tree.remove(&i.to_be_bytes());
        }
        assert_eq!((tree.root.len(), tree.bytes()), (0, 0));
        assert!(matches!(&*tree.root, Node::Leaf(_)));
    }
}
