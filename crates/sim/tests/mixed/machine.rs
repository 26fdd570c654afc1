//! A machine: a node, what is durable of its log, and an application, which is durable at once.

use std::collections::VecDeque;

use raft::{ConfState, Entry, HardState, MemStorage, Snapshot, SnapshotMeta};
use runtime::Rng;

use super::{
    judge::{BASE_INDEX, BASE_TERM},
    node::{AnyNode, Kind, Letter, Settings, Work},
    values::{bytes_to_number, number_to_bytes},
};

/// A machine, up or down.
pub(crate) struct Machine {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    settings: Settings,
    pub(crate) node: Option<AnyNode>,
    /// How often it was started: what was ordered before is not for it.
    pub(crate) incarnation: u64,
    durable: MemStorage,
    /// What the application has: everything up to an entry, the members as of there, and the state.
    pub(crate) applied: u64,
    pub(crate) conf: ConfState,
    pub(crate) state: u64,
    pub(crate) writes: VecDeque<Write>,
    pub(crate) to_apply: VecDeque<Entry>,
    /// Who has sent the last snapshot.
    pub(crate) snapshot_from: Option<Kind>,
    /// The kind and the term of the leader that has asked it to campaign.
    pub(crate) asked_by: Option<(Kind, u64)>,
}

/// A write that is not durable yet.
pub(crate) struct Write {
    pub(crate) due: u64,
    work: Work,
}

/// What has happened to a machine by a write that is durable now.
pub(crate) struct Synced {
    pub(crate) hard_state: Option<HardState>,
    pub(crate) restored: Option<SnapshotMeta>,
    pub(crate) letters: Vec<Letter>,
}

impl Machine {
    /// A machine of a group's first members, or one that knows nobody, if `conf` is empty.
    pub(crate) fn new(id: u64, kind: Kind, settings: Settings, conf: &ConfState) -> Machine {
        let mut durable = MemStorage::default();
        let mut applied = 0;
        if !conf.voters.is_empty() {
            applied = BASE_INDEX;
            let meta = SnapshotMeta { index: BASE_INDEX, term: BASE_TERM, conf: conf.clone() };
            let snapshot = Snapshot { meta, data: number_to_bytes(0) };
            durable.apply_snapshot(snapshot).expect("the disk is empty");
        }
        Machine {
            id,
            kind,
            settings,
            node: None,
            incarnation: 0,
            durable,
            applied,
            conf: conf.clone(),
            state: 0,
            writes: VecDeque::new(),
            to_apply: VecDeque::new(),
            snapshot_from: None,
            asked_by: None,
        }
    }

    /// Starts the node with what is durable.
    pub(crate) fn start(&mut self, rng: Rng) {
        assert!(self.node.is_none(), "a machine has one node");
        self.incarnation += 1;
        let mut log = self.durable.clone();
        log.set_conf_state(self.conf.clone());
        self.node = Some(AnyNode::start(self.kind, self.id, self.settings, log, self.applied, rng));
        self.keep_image();
    }

    /// The node is gone, and with it what was not durable.
    pub(crate) fn stop(&mut self) {
        self.node = None;
        self.incarnation += 1;
        self.writes.clear();
        self.to_apply.clear();
        self.asked_by = None;
    }

    /// Orders a write, which will be durable at `due`.
    pub(crate) fn order_write(&mut self, due: u64, work: Work) {
        self.writes.push_back(Write { due, work });
    }

    /// The oldest write is durable.
    pub(crate) fn synced(&mut self) -> Synced {
        let Write { work, .. } = self.writes.pop_front().expect("a write was ordered");
        work.write(&mut self.durable);
        let mut restored = None;
        if let Some(snapshot) = &work.snapshot {
            (self.applied, self.conf) = (snapshot.meta.index, snapshot.meta.conf.clone());
            self.state = bytes_to_number(&snapshot.data);
            restored = Some(snapshot.meta.clone());
        }
        let index = restored.as_ref().map_or(0, |meta| meta.index);
        if let Some(node) = &mut self.node {
            node.persisted(work.number, index);
        }
        Synced { hard_state: work.hard_state, restored, letters: work.letters_after_sync }
    }

    /// The application has one more entry; `conf` are the members if it was a change.
    pub(crate) fn note_applied(&mut self, entry: &Entry, state: u64, conf: Option<ConfState>) {
        assert_eq!(entry.index, self.applied + 1, "node {} leaves no entry out", self.id);
        (self.applied, self.state) = (entry.index, state);
        self.conf = conf.unwrap_or_else(|| self.conf.clone());
    }

    /// The snapshot that the node hands out is that of the application as it is now.
    pub(crate) fn keep_image(&mut self) {
        let (conf, data) = (self.conf.clone(), number_to_bytes(self.state));
        if let Some(node) = &mut self.node
            && 0 < self.applied
        {
            // Refused if it has that one already.
            let _ = node.disk_mut().log.create_snapshot(self.applied, conf, data);
        }
    }

    /// Forgets all applied entries but the last `keep`, if it is worth the trouble.
    pub(crate) fn compact(&mut self, keep: u64) {
        let Some(node) = &mut self.node else { return };
        let index = self.applied.saturating_sub(keep);
        let first = raft::Storage::first_index(node.disk());
        if first + keep < index {
            node.disk_mut().log.compact(index).expect("what is applied is in the log");
            // The durable log may begin later, with a snapshot.
            let _ = self.durable.compact(index);
        }
    }
}
