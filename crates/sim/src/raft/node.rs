//! A process with one Raft node: the driver that carries out what the core wants.
//!
//! It keeps the contract of [`raft::Ready`] and uses all the freedom that the contract leaves: several Readies are
//! under way at once, entries are applied late, snapshots take their time, compaction comes early. Ticks follow the
//! machine's own clock, and all that are due are delivered before anything else happens.
//!
//! It answers clients and tells checkers by [`Report`]s.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::{
    ConfChange, ConfState, Config, Entry, EntryKind, HardState, Message, MessageBody, ProposeError,
    Ready, RoleKind, Snapshot, Storage,
};
use runtime::Rng;

use super::{
    codec,
    command::{Command, State},
    log::{DiskLog, Recovered},
    options::Options,
};
use crate::{
    checker::order::Numbers,
    rng::{index, pick},
    world::{Context, Input, JobId, MachineId, Node},
};

/// Machines can't have more incarnations of a disk than fit between two of these.
const PEERS_PER_DISK: u64 = 16;

/// The id of the peer that lives on `machine`, on its disk number `disk`. Never used twice.
pub(crate) fn peer_id(machine: MachineId, disk: u64) -> u64 {
    disk * PEERS_PER_DISK + machine as u64 + 1
}

/// The machine on which a peer lives.
pub(crate) fn machine_of(peer: u64) -> MachineId {
    ((peer - 1) % PEERS_PER_DISK) as MachineId
}

/// What clients and operators ask.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Writes; all or none are proposed. Each is answered on its own.
    Write(Vec<(Command, usize)>),
    /// A linearizable read of a register.
    Read {
        /// Names the read; never used twice.
        id: u64,
        /// The register.
        key: u64,
    },
    /// A change of the members.
    Change(ConfChange),
    /// A transfer of the leadership.
    Transfer(u64),
    /// An election, now.
    Campaign,
}

/// What a process tells clients and checkers.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// The peer starts with these numbers and this state.
    Started { peer: u64, numbers: Numbers, fingerprint: u64 },
    /// It has told others that it votes for `candidate` in `term`.
    Voted { peer: u64, term: u64, candidate: u64 },
    /// It leads in `term`.
    Leads { peer: u64, term: u64 },
    /// It does not lead (any more).
    Follows,
    /// It does not lead, and wants to.
    Campaigns,
    /// It has told `leader` that it follows.
    Confirms { leader: u64 },
    /// It knows an entry to be committed, in its term `known_in`.
    Committed { peer: u64, known_in: u64, entry: Entry },
    /// It has applied an entry.
    Applied { peer: u64, index: u64, fingerprint: u64 },
    /// It has a state from a snapshot.
    Restored { peer: u64, index: u64, fingerprint: u64 },
    /// Where it is.
    Numbers { peer: u64, numbers: Numbers },
    /// These are durable.
    Durable { peer: u64, numbers: Numbers },
    /// A change of the members has been applied.
    Members { index: u64, conf: ConfState },
    /// The write of `value` is committed and applied, at `index`.
    Written { value: u64, index: u64 },
    /// The write of `value` will never happen: another entry is in its place at `index`.
    Lost { value: u64, index: u64 },
    /// The write of `value` was not taken.
    Refused { value: u64 },
    /// The answer to a read.
    Read { id: u64, value: u64 },
    /// A read that has to be asked again.
    ReadRefused { id: u64 },
    /// The core refused a message with an error that means damage.
    Broken { peer: u64, error: String },
    /// The process ends because of its disk.
    DiskFailed,
}

/// Counts of what a process did, for the table at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeCounters {
    /// Snapshots installed.
    pub(crate) snapshots: u64,
    /// Compactions.
    pub(crate) compactions: u64,
    /// Changes of the members applied.
    pub(crate) changes: u64,
}

/// The core's generator.
#[derive(Debug)]
pub(crate) struct CoreRng(Rng);

impl raft::Rng for CoreRng {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        self.0.range(u64::from(low)..u64::from(high)) as u32
    }
}

/// A part 1 under way.
#[derive(Debug)]
struct Flight {
    number: u64,
    /// The job that makes it durable; without one it is durable with the flight before.
    job: Option<JobId>,
    position: (u64, u64),
    hard_state: HardState,
    messages: Vec<Message>,
    snapshot: Option<Snapshot>,
    /// The first entry that it replaces or appends, if it does, and the last entry of the log with it.
    entries: (Option<u64>, u64),
}

/// A proposal that waits for its place in the log to be applied.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    term: u64,
    value: u64,
}

/// More Readies than this in one event never end.
const READIES_MAX: u32 = 10_000;

const TICK: u64 = 1;
const APPLY: u64 = 2;
const SNAPSHOT: u64 = 3;

/// The process.
#[derive(Debug)]
pub(crate) struct RaftNode {
    core: raft::Node<DiskLog, CoreRng>,
    peer: u64,
    tick: u64,
    ticks_max: u64,
    next_tick: Option<u64>,
    log_limit: u64,
    apply_lag: u64,
    flights_max: usize,
    snapshot_delay: u64,
    /// The first job of a new disk has to be given.
    is_new: bool,
    /// What a start has found, for the report.
    found: Numbers,
    flights: VecDeque<Flight>,
    /// The last entry that is durable here.
    durable_last: u64,
    /// Jobs that no Ready waits for: checkpoints. Their positions.
    checkpoints: VecDeque<(JobId, (u64, u64), HardState)>,
    state: State,
    conf: ConfState,
    /// Committed, not applied.
    to_apply: VecDeque<Entry>,
    apply_timer: bool,
    snapshot_timer: bool,
    /// The number of the Ready whose snapshot will replace the state when it is durable.
    installing: Option<u64>,
    proposals: BTreeMap<u64, Vec<Waiting>>,
    /// Reads that the core is asked about, by their id.
    reads: BTreeMap<u64, u64>,
    /// Reads that wait for an index to be applied.
    reads_at: Vec<(u64, u64, u64)>,
    is_dirty: bool,
    /// What it did.
    pub(crate) counters: NodeCounters,
}

impl RaftNode {
    /// The process on a machine whose disk has `found`, or nothing: then `first_voters` are the group's first members,
    /// or none, and the node waits to be told.
    ///
    /// # Errors
    /// The core refuses what was found.
    pub(crate) fn new(
        peer: u64,
        options: &Options,
        found: Option<Recovered>,
        first_voters: &[u64],
        mut rng: Rng,
    ) -> Result<RaftNode, raft::Error> {
        let is_new = found.is_none();
        let (log, state) = match found {
            Some(found) => (found.log, found.state),
            None if first_voters.is_empty() => (DiskLog::create(), State::default()),
            None => (DiskLog::found(first_voters), State::founding()),
        };
        let (hard_state, conf) = log.initial_state()?;
        let numbers = Numbers {
            term: hard_state.term,
            vote: hard_state.vote,
            truncated: log.first_index() - 1,
            applied: state.applied,
            committed: hard_state.commit,
            last: log.last_index(),
        };
        let mut config = Config { id: peer, applied: state.applied, ..options.core.clone() };
        if options.priorities {
            config.priority = (peer % (u64::from(Config::PRIORITY_MAX) + 1)) as u8;
        }
        let core = raft::Node::new(config, log, CoreRng(rng.fork()))?;
        Ok(RaftNode {
            core,
            peer,
            tick: options.tick,
            ticks_max: 4 * u64::from(options.core.election_ticks),
            next_tick: None,
            log_limit: options.log_limit,
            // Some are quick and some are slow: it matters who knows of a change of the members.
            apply_lag: options.apply_lag * pick(&mut rng, &[0, 1, 1, 8]),
            flights_max: options.flights,
            snapshot_delay: options.snapshot_delay,
            is_new,
            found: numbers,
            flights: VecDeque::new(),
            durable_last: numbers.last,
            checkpoints: VecDeque::new(),
            state,
            conf,
            to_apply: VecDeque::new(),
            apply_timer: false,
            snapshot_timer: false,
            installing: None,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_at: Vec::new(),
            is_dirty: false,
            counters: NodeCounters::default(),
        })
    }

    /// Its peer's id.
    pub(crate) fn peer(&self) -> u64 {
        self.peer
    }

    /// The members, as it has applied them.
    pub(crate) fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// What the log has made of the state.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The log.
    pub(crate) fn log(&self) -> &DiskLog {
        self.core.storage()
    }

    /// Entries in the log that are not applied.
    pub(crate) fn backlog(&self) -> u64 {
        self.core.storage().last_index().saturating_sub(self.state.applied)
    }

    /// What the core believes.
    pub(crate) fn status(&self) -> raft::Status {
        self.core.status()
    }

    fn catch_up(&mut self, now: u64) {
        let Some(mut next) = self.next_tick else { return };
        let mut delivered = 0;
        while next <= now {
            next += self.tick;
            delivered += 1;
            // After a long sleep every timeout has run off; more ticks say nothing new.
            if delivered <= self.ticks_max {
                self.core.tick();
            }
        }
        self.next_tick = Some(next);
    }

    fn start(&mut self, context: &mut Context<'_, Report>) {
        let (peer, fingerprint) = (self.peer, self.state.fingerprint());
        context.report(Report::Started { peer, numbers: self.found, fingerprint });
        // The first tick comes at any moment of the first interval.
        let first = context.rng().range(1..=self.tick);
        self.next_tick = Some(context.monotonic() + first);
        context.set_timer(first, TICK);
        if self.is_new {
            let (state, conf) = (self.state.clone(), self.conf.clone());
            let ops = self.core.storage_mut().begin(&state, &conf);
            self.submit_checkpoint(ops, context);
        }
    }

    fn message(&mut self, payload: &Bytes, context: &mut Context<'_, Report>) {
        let message = codec::decode(payload).expect("the frame's checksum was right");
        if message.to != self.peer {
            return; // For who lived here before.
        }
        context.line(|| format!("{} <- {} {:?}", message.to, message.from, message));
        match self.core.step(message) {
            Ok(()) | Err(raft::Error::UnknownPeer { .. }) => {}
            Err(error) => {
                let (peer, error) = (self.peer, error.to_string());
                context.report(Report::Broken { peer, error });
            }
        }
    }

    fn request(&mut self, request: Request, context: &mut Context<'_, Report>) {
        match request {
            Request::Write(commands) => self.write(&commands, context),
            Request::Read { id, key } => match self.core.read_index(id) {
                Ok(()) => {
                    self.reads.insert(id, key);
                }
                Err(_) => context.report(Report::ReadRefused { id }),
            },
            // Refusals are everyday business.
            Request::Change(change) => {
                // The operator may have looked at older members: nobody removes the last voter.
                let after = self.core.status().conf.after(&change);
                if after.is_ok_and(|after| !after.voters.is_empty()) {
                    let _ = self.core.propose_conf_change(change);
                }
            }
            Request::Transfer(to) => {
                let _ = self.core.transfer_leader(to);
            }
            Request::Campaign => self.core.campaign(),
        }
    }

    fn write(&mut self, commands: &[(Command, usize)], context: &mut Context<'_, Report>) {
        let data = commands.iter().map(|(command, padding)| command.encode(*padding));
        let taken: Result<(u64, u64), ProposeError> = match commands {
            [(command, padding)] => self.core.propose(command.encode(*padding)),
            _ => self.core.propose_batch(data).map(|(range, term)| (range.start, term)),
        };
        for (offset, (command, _)) in (0..).zip(commands) {
            let value = command.value;
            match taken {
                Ok((first, term)) => {
                    self.proposals.entry(first + offset).or_default().push(Waiting { term, value });
                }
                Err(_) => context.report(Report::Refused { value }),
            }
        }
    }

    fn job_done(&mut self, job: JobId, context: &mut Context<'_, Report>) {
        if self.checkpoints.front().is_some_and(|(checkpoint, ..)| *checkpoint == job) {
            let (_, position, hard_state) = self.checkpoints.pop_front().expect("it is there");
            self.durable(position, hard_state, context);
        }
        // A checkpoint carries what Readies before it have handed over, but they have jobs of their own.
        if self.flights.front().is_some_and(|flight| flight.job == Some(job)) {
            self.land(context);
            while self.flights.front().is_some_and(|flight| flight.job.is_none()) {
                self.land(context);
            }
        }
    }

    /// The oldest flight is durable.
    fn land(&mut self, context: &mut Context<'_, Report>) {
        let flight = self.flights.pop_front().expect("somebody has looked");
        if flight.job.is_some() {
            self.durable(flight.position, flight.hard_state, context);
            let replaced = self.flights.iter().filter_map(|later| later.entries.0).min();
            let (_, last) = flight.entries;
            self.durable_last = replaced.map_or(last, |first| last.min(first - 1));
        }
        self.core.persisted(flight.number);
        context.line(|| format!("{} persisted {}", self.peer, flight.number));
        for message in flight.messages {
            self.send(&message, context);
        }
        if let Some(snapshot) = flight.snapshot
            && self.installing == Some(flight.number)
        {
            self.installing = None;
            self.state = State::decode(&snapshot.data).expect("it was decoded before");
            self.conf = snapshot.meta.conf;
            self.counters.snapshots += 1;
            let (peer, index) = (self.peer, self.state.applied);
            let fingerprint = self.state.fingerprint();
            context.report(Report::Restored { peer, index, fingerprint });
            context.report(Report::Members { index, conf: self.conf.clone() });
            self.core.applied(index);
            self.answer_reads(context);
        }
        self.is_dirty = true;
    }

    fn durable(
        &mut self,
        position: (u64, u64),
        hard_state: HardState,
        context: &mut Context<'_, Report>,
    ) {
        let log = self.core.storage_mut();
        log.synced(position);
        let numbers = Numbers {
            term: hard_state.term,
            vote: hard_state.vote,
            truncated: 0,
            applied: 0,
            committed: hard_state.commit,
            last: 0,
        };
        context.report(Report::Durable { peer: self.peer, numbers });
    }

    fn submit_checkpoint(
        &mut self,
        ops: Vec<crate::world::DiskOp>,
        context: &mut Context<'_, Report>,
    ) -> JobId {
        let job = context.submit(ops);
        let log = self.core.storage();
        self.checkpoints.push_back((job, log.position(), log.hard_state()));
        job
    }

    /// Takes Readies as long as there are some and they may be under way.
    fn work(&mut self, context: &mut Context<'_, Report>) {
        let mut readies = 0;
        while self.core.has_ready() && self.flights.len() < self.flights_max {
            readies += 1;
            assert!(readies < READIES_MAX, "the core wants something again and again");
            let ready = self.core.ready();
            self.carry_out(ready, context);
            self.is_dirty = true;
        }
        if self.apply_lag == 0 {
            self.apply(usize::MAX, context);
        } else if !self.to_apply.is_empty() && !self.apply_timer {
            self.apply_timer = true;
            context.set_timer(self.apply_lag, APPLY);
        }
        self.maintain(context);
        // While a snapshot is being installed, the log is ahead of the state.
        if self.is_dirty && self.installing.is_none() {
            self.is_dirty = false;
            context.report(Report::Numbers { peer: self.peer, numbers: self.numbers() });
        }
    }

    fn carry_out(&mut self, ready: Ready, context: &mut Context<'_, Report>) {
        context.line(|| format!("{} ready {}", self.peer, words(&ready)));
        let peer = self.peer;
        let term = ready.hard_state.map(|hard_state| hard_state.term);
        self.persist(&ready, context);
        if let Some(role) = ready.role {
            let term = term.unwrap_or_else(|| self.core.storage().hard_state().term);
            match role.role {
                RoleKind::Leader => context.report(Report::Leads { peer, term }),
                RoleKind::Follower => context.report(Report::Follows),
                RoleKind::PreCandidate | RoleKind::Candidate => context.report(Report::Campaigns),
            }
        }
        for message in &ready.messages {
            self.send(message, context);
        }
        let known_in = self.core.storage().hard_state().term;
        for entry in ready.committed {
            if self.durable_last < entry.index {
                let error = format!("entry {} is to be applied before it is durable", entry.index);
                context.report(Report::Broken { peer, error });
            }
            context.report(Report::Committed { peer, known_in, entry: entry.clone() });
            self.to_apply.push_back(entry);
        }
        for read in ready.reads {
            if let Some(key) = self.reads.remove(&read.context) {
                self.reads_at.push((read.index, read.context, key));
            }
        }
        for id in ready.reads_refused {
            if self.reads.remove(&id).is_some() {
                context.report(Report::ReadRefused { id });
            }
        }
        self.answer_reads(context);
    }

    /// Part 1 and part 3.
    fn persist(&mut self, ready: &Ready, context: &mut Context<'_, Report>) {
        let log = self.core.storage_mut();
        let mut job = None;
        if let Some(snapshot) = &ready.snapshot {
            let mut ops = log.install(snapshot, ready.hard_state);
            if !ready.entries.is_empty() {
                log.append(None, ready.entries.clone());
                ops.extend(log.flush());
            }
            job = Some(context.submit(ops));
            // What was committed before is in the snapshot.
            self.to_apply.clear();
            self.installing = Some(ready.number);
        } else {
            log.append(ready.hard_state, ready.entries.clone());
            if ready.must_sync {
                let ops = log.flush();
                job = Some(context.submit(ops));
            }
        }
        let log = self.core.storage();
        let first = ready.entries.first().map(|entry| entry.index);
        if let Some(first) = first {
            self.durable_last = self.durable_last.min(first - 1);
        }
        self.flights.push_back(Flight {
            entries: (first, log.last_index()),
            number: ready.number,
            job,
            position: log.position(),
            hard_state: log.hard_state(),
            messages: ready.messages_after_persist.clone(),
            snapshot: ready.snapshot.clone(),
        });
        while self.flights.front().is_some_and(|flight| flight.job.is_none()) {
            self.land(context);
        }
    }

    fn send(&self, message: &Message, context: &mut Context<'_, Report>) {
        let (peer, term) = (self.peer, message.term);
        match &message.body {
            MessageBody::Vote { .. } => {
                context.report(Report::Voted { peer, term, candidate: peer });
            }
            MessageBody::VoteResponse { granted: true } => {
                context.report(Report::Voted { peer, term, candidate: message.to });
            }
            MessageBody::HeartbeatResponse { .. } => {
                context.report(Report::Confirms { leader: message.to });
            }
            _ => {}
        }
        context.line(|| format!("{} -> {} {:?}", message.from, message.to, message));
        context.send(machine_of(message.to), &codec::encode(message));
    }

    /// Applies at most `most` entries.
    fn apply(&mut self, most: usize, context: &mut Context<'_, Report>) {
        if self.installing.is_some() {
            return;
        }
        let count = most.min(self.to_apply.len());
        if count == 0 {
            return;
        }
        for entry in self.to_apply.drain(..count).collect::<Vec<_>>() {
            self.apply_entry(&entry, context);
        }
        self.core.applied(self.state.applied);
        self.is_dirty = true;
        self.answer_reads(context);
    }

    fn apply_entry(&mut self, entry: &Entry, context: &mut Context<'_, Report>) {
        self.state.apply(entry);
        let index = entry.index;
        if entry.kind == EntryKind::ConfChange {
            let change = ConfChange::decode(&entry.data).expect("the core checks what it proposes");
            self.conf = self.core.apply_conf_change(&change);
            self.counters.changes += 1;
            context.line(|| format!("{} members at {index}: {:?}", self.peer, self.conf));
            context.report(Report::Members { index, conf: self.conf.clone() });
        }
        let (peer, fingerprint) = (self.peer, self.state.fingerprint());
        context.report(Report::Applied { peer, index, fingerprint });
        let command = Command::of(entry);
        for Waiting { term, value } in self.proposals.remove(&index).unwrap_or_default() {
            let is_it = term == entry.term && command.is_some_and(|command| command.value == value);
            context.report(match is_it {
                true => Report::Written { value, index },
                false => Report::Lost { value, index },
            });
        }
    }

    fn answer_reads(&mut self, context: &mut Context<'_, Report>) {
        if self.installing.is_some() {
            return;
        }
        let (applied, registers) = (self.state.applied, &self.state.registers);
        self.reads_at.retain(|(index, id, key)| {
            if *index <= applied {
                let value = registers.get(key).copied().unwrap_or(0);
                context.report(Report::Read { id: *id, value });
            }
            applied < *index
        });
    }

    /// Compacts a log that is too long, and makes snapshots that somebody wants.
    fn maintain(&mut self, context: &mut Context<'_, Report>) {
        if self.installing.is_some() {
            return;
        }
        let log = self.core.storage();
        let applied = self.state.applied;
        let behind = (applied + 1).saturating_sub(log.first_index());
        if log.wanted_snapshot().is_some() && !self.snapshot_timer {
            self.snapshot_timer = true;
            context.set_timer(self.snapshot_delay, SNAPSHOT);
        }
        if self.log_limit < behind && self.checkpoints.is_empty() {
            // Followers that are a little behind need no snapshot.
            let keep = index(context.rng(), (self.log_limit / 2 + 1) as usize) as u64;
            let compact_to = applied - keep.min(behind);
            let ops = self.core.storage_mut().checkpoint(&self.state, &self.conf, compact_to);
            self.submit_checkpoint(ops, context);
            self.counters.compactions += 1;
        }
    }

    fn numbers(&self) -> Numbers {
        let status = self.core.status();
        Numbers {
            term: status.term,
            vote: status.vote,
            truncated: self.core.storage().first_index() - 1,
            applied: self.state.applied,
            committed: status.committed,
            last: status.last_index,
        }
    }
}

impl Node for RaftNode {
    type Request = Request;
    type Report = Report;

    fn handle(&mut self, input: Input<Request>, context: &mut Context<'_, Report>) {
        self.catch_up(context.monotonic());
        match input {
            Input::Started => self.start(context),
            Input::Timer(TICK) => context.set_timer(self.tick, TICK),
            Input::Timer(APPLY) => {
                self.apply_timer = false;
                // Late, and in parts, but fast enough for any number of clients.
                let most = 1 + index(context.rng(), 64 + 2 * self.to_apply.len());
                self.apply(most, context);
            }
            Input::Timer(_) => {
                self.snapshot_timer = false;
                if self.installing.is_none() {
                    self.core.storage_mut().offer_snapshot(&self.state, &self.conf);
                }
            }
            Input::Message { payload, .. } => self.message(&payload, context),
            Input::JobDone { job, result: Ok(()) } => self.job_done(job, context),
            Input::JobDone { result: Err(_), .. } => {
                context.report(Report::DiskFailed);
                context.stop();
                return;
            }
            Input::Request(request) => self.request(request, context),
        }
        self.work(context);
    }
}

/// A Ready in a few words.
fn words(ready: &Ready) -> String {
    let mut words = format!("{}", ready.number);
    if let Some(HardState { term, vote, commit }) = ready.hard_state {
        words += &format!(" term {term} vote {vote} commit {commit}");
    }
    if let (Some(first), Some(last)) = (ready.entries.first(), ready.entries.last()) {
        words += &format!(" append {}..={}", first.index, last.index);
    }
    if let Some(snapshot) = &ready.snapshot {
        words += &format!(" install {}", snapshot.meta.index);
    }
    if let (Some(first), Some(last)) = (ready.committed.first(), ready.committed.last()) {
        words += &format!(" apply {}..={}", first.index, last.index);
    }
    if let Some(role) = ready.role {
        words += &format!(" {:?}, leader {}", role.role, role.leader);
    }
    if !ready.reads.is_empty() {
        words += &format!(" reads {:?}", ready.reads);
    }
    words
}
