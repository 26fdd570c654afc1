//! A node is fed sequences of inputs that nobody would send: it must neither panic nor break an invariant, and what it
//! sends must be what a correct peer may send.
//!
//! `RAFT_ARBITRARY_STEPS` says how many steps are made in all; the usual number takes seconds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use raft::{
    ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Config, Entry, EntryKind, MemStorage,
    Message, MessageBody, NUMBER_MAX, Node, ReadMode, RejectHint, Snapshot, SnapshotMeta,
    SnapshotStatus, Storage, Transition, testing::course::SeededRng,
};

/// Steps of one sequence, on average.
const SEQUENCE: usize = 200;

/// What a step is made of: its kind, and numbers whose meaning depends on it.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    from: u8,
    term: u8,
    numbers: [u8; 4],
}

fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<[u8; 4]>())
        .prop_map(|(kind, from, term, numbers)| Step { kind, from, term, numbers })
}

/// A number near `near`, or a small one, or one at the end of what there is.
fn number(choice: u8, near: u64) -> u64 {
    match choice {
        0..160 => near.saturating_add((choice % 8).into()).saturating_sub(3),
        160..246 => u64::from(choice % 8),
        246..249 => NUMBER_MAX - u64::from(choice % 3),
        249..252 => near.saturating_add(1000),
        _ => u64::MAX - u64::from(choice % 2),
    }
}

/// Mostly the node's own term. The end of what there is ends a sequence, so it is rare.
fn term(choice: u8, own: u64) -> u64 {
    match choice {
        0..180 => own.max(1),
        180..215 => own.saturating_sub(1),
        215..253 => own.saturating_add(1 + u64::from(choice % 2)),
        253 => 0,
        _ => number(246 + choice % 10, own),
    }
}

/// A node with its owner.
struct Owner {
    node: Node<MemStorage, SeededRng>,
    config: Config,
    conf: ConfState,
    applied: u64,
    to_apply: Vec<Entry>,
    to_persist: Vec<(u64, Option<SnapshotMeta>)>,
}

impl Owner {
    fn new(settings: u8) -> Owner {
        let config = Config {
            election_ticks: 4,
            heartbeat_ticks: 1,
            max_message_bytes: if settings & 1 == 0 { 100 } else { 1 << 20 },
            max_inflight_messages: 3,
            max_uncommitted_bytes: 200,
            max_entry_bytes: 100,
            max_apply_bytes: 200,
            pre_vote: settings & 2 == 0,
            check_quorum: settings & 4 == 0,
            lazy_commit: settings & 128 == 0,
            read_mode: match settings & 12 {
                0 => ReadMode::Lease { ticks: 3, drift_percent: 10 },
                _ => ReadMode::Index,
            },
            snapshot_ticks: 5,
            ..Config::new(1)
        };
        let conf = ConfState::of_voters(1..=1 + u64::from((settings >> 4) & 3));
        let mut storage = MemStorage::new([]);
        storage.set_conf_state(conf.clone());
        let node = Node::new(config.clone(), storage, SeededRng::new(settings.into())).unwrap();
        let (to_apply, to_persist) = (Vec::new(), Vec::new());
        let mut owner = Owner { node, config, conf, applied: 0, to_apply, to_persist };
        if settings & 64 == 0 {
            owner.elect();
        }
        owner
    }

    /// Everybody votes for the node: half of the sequences are about a leader.
    fn elect(&mut self) {
        self.node.campaign();
        for body in [
            MessageBody::PreVoteResponse { granted: true },
            MessageBody::VoteResponse { granted: true },
        ] {
            self.take_ready();
            self.persist();
            for from in 2..=4 {
                let message = Message { from, to: 1, term: 1, body: body.clone() };
                let _ = self.node.step(message);
            }
        }
    }

    fn message(&self, step: Step) -> Message {
        let status = self.node.status();
        let [a, b, c, d] = step.numbers;
        let index = |choice| number(choice, status.last_index);
        let term = term(step.term, status.term);
        let committed = index(d);
        let body = match step.kind % 13 {
            0 | 1 => self.append(step.numbers, term),
            2 => MessageBody::AppendResponse {
                index: index(a),
                commit: number(b, status.committed),
                reject: match c % 4 {
                    0 => Some(RejectHint { index: index(d), term: number(d, status.term) }),
                    1 => Some(RejectHint::NEEDS_SNAPSHOT),
                    _ => None,
                },
            },
            3 => MessageBody::Vote {
                last_index: index(a),
                last_term: number(b, status.term),
                commit: committed,
                commit_term: self.node.log_term(committed).unwrap_or(d.into()),
                transfer: c % 2 == 0,
            },
            4 if c % 2 == 0 => MessageBody::Committed {
                index: index(a),
                term: self.node.log_term(index(a)).unwrap_or(b.into()),
            },
            4 => MessageBody::PreVote {
                last_index: index(a),
                last_term: number(b, status.term),
                commit: committed,
                commit_term: self.node.log_term(committed).unwrap_or(d.into()),
            },
            5 => MessageBody::VoteResponse { granted: 0 < a % 4 },
            6 => MessageBody::PreVoteResponse { granted: 0 < a % 4 },
            7 => {
                MessageBody::Heartbeat { commit: number(a, status.committed), round: number(b, 2) }
            }
            8 => MessageBody::HeartbeatResponse { round: number(a, 2) },
            9 => self.snapshot(step.numbers),
            10 => MessageBody::TimeoutNow,
            11 => MessageBody::TransferLeader { target: number(a, 2) },
            _ if a % 2 == 0 => MessageBody::ReadIndex { id: number(b, 3) },
            _ => MessageBody::ReadIndexResponse {
                id: number(b, 0),
                index: (c % 2 == 0).then(|| index(d)),
            },
        };
        let from = if step.from < 250 { u64::from(step.from % 5) + 1 } else { 0 };
        let to = if step.from % 50 == 49 { 2 } else { 1 };
        Message { from, to, term, body }
    }

    fn append(&self, [a, b, c, d]: [u8; 4], message_term: u64) -> MessageBody {
        let last = self.node.status().last_index;
        let index = number(a, last);
        // Mostly what the log has there: otherwise hardly anything would be taken.
        let log_term = match b % 4 {
            0 => number(b, message_term),
            _ => self.node.log_term(index).unwrap_or(0),
        };
        let entries = (1..=u64::from(c % 4))
            .map(|at| {
                let is_bad = d == 255;
                let kind = if d % 7 == 0 { EntryKind::ConfChange } else { EntryKind::Normal };
                Entry {
                    term: if d % 2 == 0 { message_term } else { log_term.max(1) },
                    index: index.wrapping_add(at).wrapping_add(is_bad.into()),
                    kind,
                    data: match kind {
                        EntryKind::ConfChange if d % 3 == 0 => vec![d; 9].into(),
                        EntryKind::ConfChange => self.change(d).encode(),
                        EntryKind::Normal => vec![d; usize::from(d)].into(),
                    },
                }
            })
            .collect();
        MessageBody::Append { index, log_term, entries, commit: number(d, last) }
    }

    fn snapshot(&self, [a, b, c, d]: [u8; 4]) -> MessageBody {
        let status = self.node.status();
        let conf = match c % 8 {
            0 => ConfState { learners: vec![1], ..ConfState::of_voters([1, 2]) },
            1 => ConfState { voters_outgoing: vec![1, 2, 3], ..ConfState::of_voters([2, 3, 4]) },
            2 => ConfState::default(),
            _ => ConfState::of_voters([1, 2, u64::from(d % 5) + 1]),
        };
        let meta = SnapshotMeta {
            index: number(a, status.last_index),
            term: number(b, status.term),
            conf,
        };
        MessageBody::Snapshot(Box::new(Snapshot { meta, data: vec![d; 3].into() }))
    }

    fn change(&self, choice: u8) -> ConfChange {
        let kind = |choice: u8| match choice % 3 {
            0 => ConfChangeKind::AddVoter,
            1 => ConfChangeKind::AddLearner,
            _ => ConfChangeKind::Remove,
        };
        let count = choice % 3;
        let single = |at: u8| ConfChangeSingle {
            kind: kind(choice.wrapping_add(at) / 3),
            id: u64::from(choice.wrapping_add(at) % 6),
        };
        let transition = match choice / 64 {
            0 => Transition::JointExplicit,
            1 => Transition::JointImplicit,
            _ => Transition::Auto,
        };
        ConfChange { transition, changes: (0..count).map(single).collect(), ..Default::default() }
    }

    fn make(&mut self, step: Step) {
        let [a, b, ..] = step.numbers;
        match step.kind {
            0..130 => {
                // Refusals are fine.
                let _ = self.node.step(self.message(step));
            }
            130..160 => self.node.tick(),
            160..168 => {
                let data = vec![a; usize::from(b)];
                let _ = self.node.propose_batch([data.clone().into(), data.into()]);
            }
            168..174 => {
                let _ = self.node.propose_conf_change(self.change(a));
            }
            174..180 => {
                let _ = self.node.read_index(a.into());
            }
            180..184 => {
                let _ = self.node.transfer_leader(u64::from(a % 6));
            }
            184..188 => self.node.campaign(),
            188..190 => self.node.report_unreachable(u64::from(a % 6)),
            190..194 => {
                let status =
                    if b % 2 == 0 { SnapshotStatus::Finished } else { SnapshotStatus::Failed };
                self.node.report_snapshot(u64::from(a % 6), status);
            }
            194..220 => self.take_ready(),
            220..236 => self.persist(),
            236..248 => self.apply(),
            248..252 => self.compact(),
            _ => self.restart(),
        }
    }

    fn take_ready(&mut self) {
        let has_ready = self.node.has_ready();
        let ready = self.node.ready();
        let says_something = ready.hard_state.is_some()
            || !ready.entries.is_empty()
            || ready.snapshot.is_some()
            || !ready.messages.is_empty()
            || !ready.messages_after_persist.is_empty()
            || !ready.committed.is_empty()
            || !ready.reads.is_empty()
            || !ready.reads_refused.is_empty()
            || ready.role.is_some();
        assert!(has_ready || !says_something, "{ready:?}");
        // A snapshot that is not made yet leaves a Ready empty, once.
        assert!(says_something || !self.node.has_ready(), "an empty Ready is followed by another");
        for message in ready.messages.iter().chain(&ready.messages_after_persist) {
            message.check().unwrap();
            assert_eq!(message.from, 1);
        }
        let storage = self.node.storage_mut();
        if let Some(snapshot) = &ready.snapshot {
            storage.apply_snapshot(snapshot.clone()).unwrap();
        }
        if let Some(hard_state) = ready.hard_state {
            storage.set_hard_state(hard_state);
        }
        storage.append(&ready.entries);
        self.to_persist.push((ready.number, ready.snapshot.map(|snapshot| snapshot.meta)));
        self.to_apply.extend(ready.committed);
    }

    fn persist(&mut self) {
        if self.to_persist.is_empty() {
            return;
        }
        let (number, snapshot) = self.to_persist.remove(0);
        self.node.persisted(number);
        if let Some(meta) = snapshot {
            assert!(self.applied < meta.index, "a snapshot is newer than what is applied");
            self.applied = meta.index;
            self.conf = meta.conf;
            self.to_apply.clear();
        }
    }

    fn apply(&mut self) {
        for entry in std::mem::take(&mut self.to_apply) {
            if entry.index <= self.applied {
                continue; // a snapshot has brought it
            }
            assert_eq!(entry.index, self.applied + 1, "entries are applied in order");
            self.applied = entry.index;
            if entry.kind == EntryKind::ConfChange
                && let Ok(change) = ConfChange::decode(&entry.data)
            {
                self.conf = self.node.apply_conf_change(&change);
            }
            self.node.applied(entry.index);
        }
    }

    /// While a snapshot is being written there is nothing to compact.
    fn compact(&mut self) {
        if self.to_persist.iter().any(|(_, snapshot)| snapshot.is_some()) {
            return;
        }
        let (applied, conf) = (self.applied, self.conf.clone());
        let storage = self.node.storage_mut();
        if storage.first_index() <= applied {
            let _ = storage.create_snapshot(applied, conf, Default::default());
            storage.compact(applied).unwrap();
        }
    }

    /// A restart after everything was written; a group without voters has nobody left to start.
    fn restart(&mut self) {
        while !self.to_persist.is_empty() {
            self.persist();
        }
        let mut storage = self.node.storage().clone();
        storage.set_conf_state(self.conf.clone());
        if self.conf.voters.is_empty() && self.conf != ConfState::default() {
            return;
        }
        let config = Config { applied: self.applied, ..self.config.clone() };
        self.node = Node::new(config, storage, SeededRng::new(self.applied)).unwrap();
        self.to_apply.clear();
    }
}

#[test]
fn no_sequence_of_inputs_breaks_a_node() {
    let steps: usize = std::env::var("RAFT_ARBITRARY_STEPS")
        .map_or(400_000, |steps| steps.parse().expect("a number of steps"));
    let cases = steps.div_ceil(SEQUENCE);
    let config = ProptestConfig {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let made = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let sequences = (any::<u8>(), prop::collection::vec(step(), 0..=2 * SEQUENCE));
    runner
        .run(&sequences, |(settings, steps)| {
            let mut owner = Owner::new(settings);
            made.set(made.get() + steps.len());
            steps.into_iter().for_each(|step| owner.make(step));
            Ok(())
        })
        .unwrap();
    println!("{} steps made", made.get());
}
