//! A group of three of raft-rs 0.7.

use raft_rs::{Config, RawNode, StateRole, eraftpb::Message, storage::MemStorage};
use slog::{Discard, Logger, o};

use super::{Group, PROPOSAL_BYTES};

/// Three nodes and what is under way between them.
pub(super) struct Theirs {
    nodes: Vec<RawNode<MemStorage>>,
    mail: Vec<Message>,
    delivering: Vec<Message>,
    leader: usize,
    data: Vec<u8>,
    messages: u64,
    applied: u64,
    unapplied: Vec<u64>,
}

impl Theirs {
    /// A group whose first node leads.
    pub(super) fn new(batch_append: bool) -> Theirs {
        let logger = Logger::root(Discard, o!());
        let node = |id| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 2,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                check_quorum: true,
                pre_vote: true,
                batch_append,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
            RawNode::new(&config, storage, &logger).expect("a new node starts")
        };
        let mut group = Theirs {
            nodes: (1..=3).map(node).collect(),
            mail: Vec::new(),
            delivering: Vec::new(),
            leader: 0,
            data: vec![7; PROPOSAL_BYTES],
            messages: 0,
            applied: 0,
            unapplied: vec![0; 3],
        };
        group.nodes[0].campaign().expect("a follower campaigns");
        group.settle();
        assert_eq!(group.nodes[0].raft.state, StateRole::Leader);
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
        self.mail.extend(ready.take_messages());
        let mut committed = ready.take_committed_entries();
        {
            let mut storage = node.store().wl();
            storage.append(ready.entries()).expect("entries follow what is there");
            if let Some(hard_state) = ready.hs() {
                storage.set_hardstate(hard_state.clone());
            }
        }
        self.mail.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            node.store().wl().mut_hard_state().set_commit(commit);
        }
        self.mail.extend(light.take_messages());
        committed.extend(light.take_committed_entries());
        if id == self.leader {
            let proposals = committed.iter().filter(|entry| !entry.data.is_empty());
            self.applied += proposals.count() as u64;
        }
        self.unapplied[id] += committed.len() as u64;
        node.advance_apply();
        // As a store does: the log is kept short.
        if self.unapplied[id] > 3072 {
            self.unapplied[id] = 0;
            let compact_to = node.raft.raft_log.applied.saturating_sub(1024);
            let _ = node.store().wl().compact(compact_to);
        }
    }
}

impl Group for Theirs {
    fn commit(&mut self, count: usize) {
        for _ in 0..count {
            let data = self.data.clone();
            self.nodes[self.leader].propose(Vec::new(), data).expect("the leader takes proposals");
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
