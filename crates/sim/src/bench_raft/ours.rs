//! A group of three of this project's core.

use bytes::Bytes;
use raft::{Config, MemStorage, Message, Node, RoleKind, Storage};

use super::{Group, PROPOSAL_BYTES};

/// The core's generator: elections only.
#[derive(Debug)]
pub(super) struct Numbers(runtime::Rng);

impl raft::Rng for Numbers {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        self.0.range(u64::from(low)..u64::from(high)) as u32
    }
}

/// Three nodes and what is under way between them.
pub(super) struct Ours {
    nodes: Vec<Node<MemStorage, Numbers>>,
    mail: Vec<Message>,
    /// Its other half: what is being delivered.
    delivering: Vec<Message>,
    leader: usize,
    data: Bytes,
    messages: u64,
    applied: u64,
}

impl Ours {
    /// A group whose first node leads.
    pub(super) fn new() -> Ours {
        let node = |id| {
            let config = Config { election_ticks: 10, heartbeat_ticks: 2, ..Config::new(id) };
            let numbers = Numbers(runtime::Rng::new(id));
            Node::new(config, MemStorage::new([1, 2, 3]), numbers).expect("a new node starts")
        };
        let mut group = Ours {
            nodes: (1..=3).map(node).collect(),
            mail: Vec::new(),
            delivering: Vec::new(),
            leader: 0,
            data: Bytes::from(vec![7; PROPOSAL_BYTES]),
            messages: 0,
            applied: 0,
        };
        group.nodes[0].campaign();
        group.settle();
        assert_eq!(group.nodes[0].status().role, RoleKind::Leader);
        group
    }

    /// One tick for everybody.
    pub(super) fn tick(&mut self) {
        for node in &mut self.nodes {
            node.tick();
        }
        self.settle();
    }

    /// Carries out Readies and delivers messages until there are none.
    pub(super) fn settle(&mut self) {
        loop {
            for id in 0..self.nodes.len() {
                while self.nodes[id].has_ready() {
                    self.carry_out(id);
                }
            }
            if self.mail.is_empty() {
                return;
            }
            std::mem::swap(&mut self.mail, &mut self.delivering);
            for message in self.delivering.drain(..) {
                self.messages += 1;
                let to = (message.to - 1) as usize;
                self.nodes[to].step(message).expect("a correct peer's message is taken");
            }
        }
    }

    fn carry_out(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        let mut ready = node.ready();
        let storage = node.storage_mut();
        storage.append_owned(ready.entries);
        if let Some(hard_state) = ready.hard_state {
            storage.set_hard_state(hard_state);
        }
        self.mail.append(&mut ready.messages);
        node.persisted(ready.number);
        self.mail.append(&mut ready.messages_after_persist);
        if let Some(last) = ready.committed.last() {
            if id == self.leader {
                let proposals = ready.committed.iter().filter(|entry| !entry.data.is_empty());
                self.applied += proposals.count() as u64;
            }
            let applied = last.index;
            node.applied(applied);
            // As a store does: the log is kept short.
            if applied - node.storage().first_index() > 4096 {
                node.storage_mut().compact(applied - 1024).expect("what is applied is in the log");
            }
        }
    }
}

impl Group for Ours {
    fn commit(&mut self, count: usize) {
        for _ in 0..count {
            self.nodes[self.leader].propose(self.data.clone()).expect("the leader takes proposals");
        }
        self.settle();
    }

    fn messages(&self) -> u64 {
        self.messages
    }

    fn applied(&self) -> u64 {
        self.applied
    }
}
