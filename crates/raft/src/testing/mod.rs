//! A group in a box: nodes with disks and applications, and a network between them that does what it is told.
//! Everything is deterministic. For golden scripts and tests; the simulator has a world of its own.
//!
//! A disk has two sides: what the node reads, which is there at once, and what is durable, which follows when a write
//! is synced. A crash leaves the second. Applications keep what they have applied.

pub mod course;
pub mod draw;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    ConfChange, ConfState, Config, Entry, EntryKind, Error, HardState, MemStorage, Message, Node,
    ReadState, Ready, Rng, RoleState, Snapshot, SnapshotMeta, Storage,
};

/// Draws always the same number, so that a script can say which node times out when.
#[derive(Clone, Copy, Debug)]
pub struct FixedRng(pub u32);

impl Rng for FixedRng {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        low + self.0 % (high - low)
    }
}

/// The nodes of a [`Group`].
pub type TestNode = Node<MemStorage, FixedRng>;

/// A machine of a [`Group`]: a node or its remains, a disk, and what was applied.
#[derive(Debug)]
pub struct Machine {
    /// The settings with which the node starts.
    pub config: Config,
    /// The node; `None` while it is down.
    pub node: Option<TestNode>,
    /// What is durable.
    pub disk: MemStorage,
    /// Whether syncs stand still.
    pub is_stalled: bool,
    /// Whether the application stands still.
    pub is_slow: bool,
    /// The last entry that was applied.
    pub applied: u64,
    /// Its term.
    applied_term: u64,
    /// The members as of there.
    pub conf: ConfState,
    /// The data that were applied, as text; a snapshot carries them on.
    pub state: Vec<String>,
    writes: VecDeque<PendingWrite>,
    to_apply: VecDeque<Entry>,
    reads: Vec<ReadState>,
}

#[derive(Debug)]
struct PendingWrite {
    number: u64,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
    messages: Vec<Message>,
}

/// Something that happened, for [`draw`].
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrived.
    Delivered(Message),
    /// A message did not.
    Lost(Message),
    /// A node refused a message.
    Refused(u64, Error),
    /// An entry was applied.
    Applied(u64, Entry),
    /// The state of an application was replaced.
    Restored(u64, SnapshotMeta),
    /// A read was answered, after what it had to wait for was applied.
    Read(u64, ReadState),
    /// A read was given up.
    ReadRefused(u64, u64),
    /// A node changed its role or its leader: its id, its term, and what it is now.
    Role(u64, u64, RoleState),
}

/// Machines and the network between them.
#[derive(Debug, Default)]
pub struct Group {
    /// The machines, by id.
    pub machines: BTreeMap<u64, Machine>,
    /// Messages under way, in order.
    pub network: VecDeque<Message>,
    /// Directions in which nothing arrives.
    pub cuts: BTreeSet<(u64, u64)>,
    /// Kinds of messages that get lost.
    pub lost_kinds: BTreeSet<String>,
    /// What happened since the last look.
    pub events: Vec<Event>,
}

impl Machine {
    /// The node.
    ///
    /// # Panics
    /// If it is down.
    pub fn node(&mut self) -> &mut TestNode {
        self.node.as_mut().expect("the node is up")
    }
}

impl Group {
    /// A group of new nodes, all voters, with settings made by `config`.
    pub fn new(conf: &ConfState, config: impl Fn(u64) -> Config) -> Group {
        let mut group = Group::default();
        for id in conf.members() {
            group.add(config(id), conf.clone());
        }
        group
    }

    /// Adds a machine that believes in these members; none: it waits for a snapshot.
    pub fn add(&mut self, config: Config, conf: ConfState) {
        let mut disk = MemStorage::new([]);
        disk.set_conf_state(conf.clone());
        let machine = Machine {
            node: None,
            disk,
            is_stalled: false,
            is_slow: false,
            applied: 0,
            applied_term: 0,
            conf,
            state: Vec::new(),
            writes: VecDeque::new(),
            to_apply: VecDeque::new(),
            reads: Vec::new(),
            config,
        };
        let id = machine.config.id;
        self.machines.insert(id, machine);
        self.start(id);
    }

    /// The machine.
    ///
    /// # Panics
    /// If there is none.
    pub fn machine(&mut self, id: u64) -> &mut Machine {
        self.machines.get_mut(&id).expect("there is such a machine")
    }

    /// Its node.
    ///
    /// # Panics
    /// If there is none, or it is down.
    pub fn node(&mut self, id: u64) -> &mut TestNode {
        self.machine(id).node()
    }

    /// Starts the node from what is durable.
    ///
    /// # Panics
    /// If the disk has not what a node needs.
    pub fn start(&mut self, id: u64) {
        let machine = self.machine(id);
        let mut storage = machine.disk.clone();
        storage.set_conf_state(machine.conf.clone());
        let config = Config { applied: machine.applied, ..machine.config.clone() };
        // Each node times out one tick after the one before it.
        let rng = FixedRng(id as u32 - 1);
        let node = Node::new(config, storage, rng).expect("the disk is good");
        let event = Event::Role(id, node.term(), node.role());
        machine.node = Some(node);
        self.events.push(event);
    }

    /// Stops the node; what was not durable is lost, and what it was about to say.
    pub fn crash(&mut self, id: u64) {
        let machine = self.machine(id);
        machine.node = None;
        machine.writes.clear();
        machine.to_apply.clear();
        machine.reads.clear();
    }

    /// Takes one Ready of the node, if it has any, and writes its first part; what needs no sync is sent. Returns it
    /// for drawing.
    pub fn take_ready(&mut self, id: u64) -> Option<Ready> {
        let machine = self.machines.get_mut(&id)?;
        let node = machine.node.as_mut()?;
        if !node.has_ready() {
            return None;
        }
        let ready = node.ready();
        write(node.storage_mut(), ready.hard_state, &ready.entries, ready.snapshot.as_ref());
        machine.to_apply.extend(ready.committed.iter().cloned());
        machine.reads.extend(ready.reads.iter().copied());
        machine.writes.push_back(PendingWrite {
            number: ready.number,
            hard_state: ready.hard_state,
            entries: ready.entries.clone(),
            snapshot: ready.snapshot.clone(),
            messages: ready.messages_after_persist.clone(),
        });
        self.network.extend(ready.messages.iter().cloned());
        self.events.extend(ready.reads_refused.iter().map(|&read| Event::ReadRefused(id, read)));
        if let Some(role) = ready.role {
            self.events.push(Event::Role(id, node.term(), role));
        }
        Some(ready)
    }

    /// Makes the oldest write of the machine durable, and sends what waited for it. Returns whether there was one.
    pub fn persist_one(&mut self, id: u64) -> bool {
        let Some(machine) = self.machines.get_mut(&id) else { return false };
        let (Some(node), Some(pending)) = (&mut machine.node, machine.writes.pop_front()) else {
            return false;
        };
        write(&mut machine.disk, pending.hard_state, &pending.entries, pending.snapshot.as_ref());
        node.persisted(pending.number);
        if let Some(snapshot) = pending.snapshot {
            machine.applied = snapshot.meta.index;
            machine.applied_term = snapshot.meta.term;
            machine.conf = snapshot.meta.conf.clone();
            machine.state = String::from_utf8_lossy(&snapshot.data)
                .split_terminator(' ')
                .map(str::to_owned)
                .collect();
            machine.to_apply.clear();
            self.events.push(Event::Restored(id, snapshot.meta));
        }
        self.network.extend(pending.messages);
        true
    }

    /// The writes of the machine reach the disk in part, entries without hard states, and the power fails.
    pub fn tear(&mut self, id: u64) {
        let machine = self.machine(id);
        for pending in std::mem::take(&mut machine.writes) {
            write(&mut machine.disk, None, &pending.entries, None);
        }
        self.crash(id);
    }

    /// Applies what the node has handed out, and answers reads that waited for it.
    pub fn apply(&mut self, id: u64) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let Some(node) = &mut machine.node else { return };
        for entry in std::mem::take(&mut machine.to_apply) {
            if entry.index <= machine.applied {
                continue; // a snapshot has brought it
            }
            assert_eq!(entry.index, machine.applied + 1, "entries are applied in order");
            machine.applied = entry.index;
            machine.applied_term = entry.term;
            match entry.kind {
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => {
                    machine.state.push(String::from_utf8_lossy(&entry.data).into_owned());
                }
                EntryKind::ConfChange => {
                    let change = ConfChange::decode(&entry.data).expect("a node has encoded it");
                    machine.conf = node.apply_conf_change(&change);
                }
            }
            node.applied(entry.index);
            self.events.push(Event::Applied(id, entry));
        }
        let applied = machine.applied;
        let (answered, waiting) =
            std::mem::take(&mut machine.reads).into_iter().partition(|read| read.index <= applied);
        machine.reads = waiting;
        let answered: Vec<ReadState> = answered;
        self.events.extend(answered.into_iter().map(|read| Event::Read(id, read)));
    }

    /// Does everything that the node wants, unless its disk or its application stands still. Returns whether there was
    /// anything.
    pub fn process(&mut self, id: u64) -> bool {
        let mut has_done = false;
        while self.take_ready(id).is_some() {
            has_done = true;
            if !self.machine(id).is_stalled {
                while self.persist_one(id) {}
            }
            if !self.machine(id).is_slow {
                self.apply(id);
            }
        }
        has_done
    }

    /// Delivers the messages that are under way now, to `to` (empty: to all). What follows from them is not done yet.
    /// Returns how many there were.
    pub fn deliver(&mut self, to: &[u64]) -> usize {
        let (now, later): (VecDeque<Message>, VecDeque<Message>) =
            std::mem::take(&mut self.network)
                .into_iter()
                .partition(|message| to.is_empty() || to.contains(&message.to));
        self.network = later;
        let count = now.len();
        for message in now {
            let is_up = self.machines.get(&message.to).is_some_and(|m| m.node.is_some());
            let is_lost = !is_up
                || self.cuts.contains(&(message.from, message.to))
                || self.lost_kinds.contains(message.body.name());
            if is_lost {
                self.events.push(Event::Lost(message));
                continue;
            }
            let id = message.to;
            self.events.push(Event::Delivered(message.clone()));
            if let Err(error) = self.node(id).step(message) {
                self.events.push(Event::Refused(id, error));
            }
        }
        count
    }

    /// Processes and delivers until nothing more happens among `ids` (empty: all).
    ///
    /// # Panics
    /// If it does not come to an end.
    pub fn stabilize(&mut self, ids: &[u64]) {
        let all: Vec<u64> = self.machines.keys().copied().collect();
        let ids = if ids.is_empty() { &all[..] } else { ids };
        for _ in 0..1000 {
            let mut has_done = false;
            for &id in ids {
                has_done |= self.process(id);
            }
            has_done |= 0 < self.deliver(ids);
            if !has_done {
                return;
            }
        }
        panic!("the group does not come to rest");
    }

    /// Cuts the network between the groups of ids, and nowhere else; who is in none is alone.
    pub fn partition(&mut self, groups: &[Vec<u64>]) {
        self.cuts.clear();
        let side = |id: u64| groups.iter().position(|group| group.contains(&id));
        let ids: Vec<u64> = self.machines.keys().copied().collect();
        for &from in &ids {
            for &to in &ids {
                if from != to && (side(from).is_none() || side(from) != side(to)) {
                    self.cuts.insert((from, to));
                }
            }
        }
    }

    /// Makes a snapshot of what is applied at the machine and forgets the log up to there.
    ///
    /// # Panics
    /// If nothing was applied since the last one.
    pub fn snapshot(&mut self, id: u64) {
        let machine = self.machine(id);
        let (index, conf) = (machine.applied, machine.conf.clone());
        let mut data = machine.state.join(" ");
        data.push(' ');
        for storage in [&mut machine.disk, machine.node.as_mut().expect("it is up").storage_mut()] {
            storage.create_snapshot(index, conf.clone(), data.clone().into()).expect("it is new");
            storage.compact(index).expect("it is applied, so it is there");
        }
    }

    /// The one node that leads in the highest term, if there is one.
    pub fn leader(&self) -> Option<u64> {
        let nodes = self.machines.values().filter_map(|machine| machine.node.as_ref());
        nodes
            .filter(|node| node.role().leader == node.id())
            .max_by_key(|node| node.term())
            .map(Node::id)
    }
}

fn write(
    storage: &mut MemStorage,
    hard_state: Option<HardState>,
    entries: &[Entry],
    snapshot: Option<&Snapshot>,
) {
    if let Some(snapshot) = snapshot {
        storage.apply_snapshot(snapshot.clone()).expect("a node takes only newer snapshots");
    }
    if let Some(hard_state) = hard_state {
        storage.set_hard_state(hard_state);
    }
    storage.append(entries);
    debug_assert!(storage.first_index() <= storage.last_index() + 1);
}
