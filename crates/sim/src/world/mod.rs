//! A virtual world: machines with a process, a disk and a clock each, a network between them, and one queue of events.
//!
//! The world knows nothing of Raft. What runs on a machine is a [`Node`], a step machine: it gets an [`Input`], and
//! through its [`Context`] it sends frames, sets timers and gives jobs to its disk. What happens outside of machines
//! (clients, operators, faults) are *actions* of the world's owner, who schedules them, is handed each when its time
//! has come, and may then do anything to the world. So stores and schedulers join by implementing `Node`.
//!
//! One thread, one queue, no clock: the same seed gives the same world. A process that crashed leaves timers and jobs
//! behind; they are addressed to an incarnation that is no more and fall on deaf ears.

pub mod clock;
pub mod disk;
pub mod network;
pub mod queue;
pub mod trace;

#[cfg(test)]
mod tests;

use std::{fmt::Debug, io};

use bytes::Bytes;
use runtime::Rng;

pub use self::{
    clock::MachineClock,
    disk::{Disk, DiskOp, DiskOptions, JobId},
    network::{Frame, FrameError, Network, NetworkCounters, NetworkOptions},
    queue::{Queue, TieBreak, Time},
    trace::{Trace, TraceText},
};
use crate::{
    hash::{fingerprint, mix},
    rng::Seed,
};

/// The number of a machine, from 0.
pub type MachineId = usize;

/// What runs on a machine.
pub trait Node {
    /// What clients ask it.
    type Request: Debug;
    /// What it tells the outside: answers, and whatever checkers want to know.
    type Report;

    /// Something has happened. Effects go through `context`.
    fn handle(&mut self, input: Input<Self::Request>, context: &mut Context<'_, Self::Report>);
}

/// What happens to a process.
#[derive(Debug)]
pub enum Input<R> {
    /// It runs now. Always the first one.
    Started,
    /// A frame has arrived, and its checksum is right.
    Message {
        /// The machine that sent it.
        from: MachineId,
        /// The content.
        payload: Bytes,
    },
    /// A timer has run off.
    Timer(u64),
    /// A job of the disk is done. After an error nothing more may be expected of this disk: stop.
    JobDone {
        /// Which.
        job: JobId,
        /// How it ended.
        result: io::Result<()>,
    },
    /// A client asks something.
    Request(R),
}

/// What a process may do while it handles an input.
#[derive(Debug)]
pub struct Context<'a, R> {
    machine: MachineId,
    now: Time,
    monotonic: u64,
    wall: i64,
    rng: &'a mut Rng,
    last_job: &'a mut JobId,
    effects: &'a mut Vec<Effect>,
    reports: &'a mut Vec<(MachineId, R)>,
    trace: &'a mut Trace,
}

#[derive(Debug)]
enum Effect {
    Send(MachineId, Frame),
    Timer(u64, u64),
    Submit(JobId, Vec<DiskOp>),
    Stop,
}

impl<R> Context<'_, R> {
    /// The machine it runs on.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// What the machine's monotonic clock shows, in microseconds.
    pub fn monotonic(&self) -> u64 {
        self.monotonic
    }

    /// What the machine takes for the date, in microseconds.
    pub fn wall(&self) -> i64 {
        self.wall
    }

    /// The world's time. Only for reports to checkers; a process that decides by it cheats.
    pub fn world_time(&self) -> Time {
        self.now
    }

    /// The process's own random numbers.
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// Sends a frame. It may be lost, late, doubled or damaged.
    pub fn send(&mut self, to: MachineId, payload: &[u8]) {
        self.effects.push(Effect::Send(to, Frame::new(payload)));
    }

    /// Asks for [`Input::Timer`] with `token` once the machine's clock has moved on by `delay` microseconds.
    pub fn set_timer(&mut self, delay: u64, token: u64) {
        self.effects.push(Effect::Timer(delay, token));
    }

    /// Gives a job to the disk. Jobs are done in the order in which they were given.
    pub fn submit(&mut self, ops: Vec<DiskOp>) -> JobId {
        *self.last_job += 1;
        self.effects.push(Effect::Submit(*self.last_job, ops));
        *self.last_job
    }

    /// Tells the outside something.
    pub fn report(&mut self, report: R) {
        self.reports.push((self.machine, report));
    }

    /// The process ends after this input, as after a failed sync. Its owner may start it anew.
    pub fn stop(&mut self) {
        self.effects.push(Effect::Stop);
    }

    /// Notes something in the trace's hash.
    pub fn note(&mut self, what: u64) {
        self.trace.note(what);
    }

    /// A line of the text trace, if there is one.
    pub fn line(&self, words: impl FnOnce() -> String) {
        let machine = self.machine;
        self.trace.line(self.now, || format!("  m{machine} {}", words()));
    }
}

#[derive(Debug)]
enum Event<R, A> {
    Deliver { from: MachineId, to: MachineId, frame: Frame },
    Timer { machine: MachineId, incarnation: u64, token: u64 },
    Job { machine: MachineId, incarnation: u64 },
    Request { machine: MachineId, request: R },
    Thaw { machine: MachineId },
    Action(A),
}

/// One machine.
#[derive(Debug)]
struct Machine<N: Node> {
    process: Option<N>,
    /// Counts the starts.
    incarnation: u64,
    disk: Disk,
    clock: MachineClock,
    rng: Rng,
    last_job: JobId,
    /// While it stands still, what would have reached it waits here.
    frozen: Option<Vec<Input<N::Request>>>,
}

/// How a world is built.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldOptions {
    /// The order of events of one moment.
    pub tie_break: TieBreak,
    /// The network.
    pub network: NetworkOptions,
    /// Every machine's disk.
    pub disk: DiskOptions,
    /// Every machine's clock; there are as many machines as clocks.
    pub clocks: Vec<MachineClock>,
    /// Whether a trace is printed.
    pub text: TraceText,
}

/// What one step of the world was.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<A> {
    /// Something inside of it.
    Inside,
    /// An action of the owner is due; nothing has been done about it.
    Action(A),
}

/// Machines, what connects them, and what happens next.
#[derive(Debug)]
pub struct World<N: Node, A> {
    now: Time,
    queue: Queue<Event<N::Request, A>>,
    machines: Vec<Machine<N>>,
    /// The network, for whoever plays the villain.
    pub network: Network,
    /// What happened so far.
    pub trace: Trace,
    effects: Vec<Effect>,
    reports: Vec<(MachineId, N::Report)>,
    stopped: Vec<MachineId>,
    unnoticed_damage: u64,
}

impl<N: Node, A: Debug> World<N, A> {
    /// A world of machines without processes.
    pub fn new(seed: Seed, options: WorldOptions) -> World<N, A> {
        let count = options.clocks.len();
        let machine = |(id, clock): (usize, &MachineClock)| Machine {
            process: None,
            incarnation: 0,
            disk: Disk::new(options.disk.clone(), seed.numbered("disk", id as u64)),
            clock: *clock,
            rng: seed.numbered("node", id as u64),
            last_job: 0,
            frozen: None,
        };
        World {
            now: 0,
            queue: Queue::new(options.tie_break, seed.stream("ties")),
            machines: options.clocks.iter().enumerate().map(machine).collect(),
            network: Network::new(count, options.network, seed.stream("network")),
            trace: Trace::new(options.text),
            effects: Vec::new(),
            reports: Vec::new(),
            stopped: Vec::new(),
            unnoticed_damage: 0,
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// The process of a machine, if it runs.
    pub fn process(&self, machine: MachineId) -> Option<&N> {
        self.machines[machine].process.as_ref()
    }

    /// The running processes with their machines.
    pub fn processes(&self) -> impl Iterator<Item = (MachineId, &N)> {
        self.machines
            .iter()
            .enumerate()
            .filter_map(|(id, machine)| Some((id, machine.process.as_ref()?)))
    }

    /// The disk of a machine.
    pub fn disk(&self, machine: MachineId) -> &Disk {
        &self.machines[machine].disk
    }

    /// The disk of a machine, to do it harm.
    pub fn disk_mut(&mut self, machine: MachineId) -> &mut Disk {
        &mut self.machines[machine].disk
    }

    /// The clock of a machine.
    pub fn clock_mut(&mut self, machine: MachineId) -> &mut MachineClock {
        &mut self.machines[machine].clock
    }

    /// What the monotonic clock of a machine shows.
    pub fn monotonic(&self, machine: MachineId) -> u64 {
        self.machines[machine].clock.monotonic(self.now)
    }

    /// A generator for a process that is about to be started on a machine.
    pub fn fork_rng(&mut self, machine: MachineId) -> Rng {
        self.machines[machine].rng.fork()
    }

    /// Damaged frames whose checksum was right. More than none is a violation.
    pub fn unnoticed_damage(&self) -> u64 {
        self.unnoticed_damage
    }

    /// Something of the owner's will happen after `delay`.
    pub fn schedule(&mut self, delay: Time, action: A) {
        self.queue.schedule(self.now + delay, Event::Action(action));
    }

    /// A client's request reaches a machine after `delay`; if nothing runs there then, nobody hears it.
    pub fn request(&mut self, delay: Time, machine: MachineId, request: N::Request) {
        self.queue.schedule(self.now + delay, Event::Request { machine, request });
    }

    /// A request reaches a machine at once.
    pub fn request_now(&mut self, machine: MachineId, request: N::Request) {
        self.deliver(machine, Input::Request(request));
    }

    /// What processes have reported since the last call, in order.
    pub fn take_reports(&mut self) -> Vec<(MachineId, N::Report)> {
        std::mem::take(&mut self.reports)
    }

    /// Machines whose process has ended itself since the last call.
    pub fn take_stopped(&mut self) -> Vec<MachineId> {
        std::mem::take(&mut self.stopped)
    }

    /// Starts a process on a machine where none runs.
    pub fn start(&mut self, machine: MachineId, process: N) {
        let slot = &mut self.machines[machine];
        assert!(slot.process.is_none(), "one process a machine");
        slot.incarnation += 1;
        slot.process = Some(process);
        self.trace.note(mix(machine as u64));
        self.trace.line(self.now, || format!("m{machine} starts"));
        self.deliver(machine, Input::Started);
    }

    /// The power of a machine goes. Its disk keeps what was synced and any part of the rest.
    pub fn crash(&mut self, machine: MachineId) {
        self.trace.line(self.now, || format!("m{machine} crashes"));
        let slot = &mut self.machines[machine];
        slot.process = None;
        slot.frozen = None;
        slot.disk.crash();
    }

    /// The disk of a machine without process is replaced by an empty one.
    pub fn wipe(&mut self, machine: MachineId) {
        self.trace.line(self.now, || format!("m{machine} loses its disk"));
        let slot = &mut self.machines[machine];
        assert!(slot.process.is_none(), "a disk is replaced while nothing runs");
        slot.disk.wipe();
    }

    /// The machine stands still for `duration`, as by SIGSTOP. Its clock goes on; what reaches it waits, and comes all
    /// at once afterwards.
    pub fn freeze(&mut self, machine: MachineId, duration: Time) {
        let slot = &mut self.machines[machine];
        if slot.frozen.is_none() {
            slot.frozen = Some(Vec::new());
            self.trace.line(self.now, || format!("m{machine} freezes"));
            self.queue.schedule(self.now + duration, Event::Thaw { machine });
        }
    }

    /// A machine that stands still goes on now.
    pub fn thaw(&mut self, machine: MachineId) {
        let Some(waiting) = self.machines[machine].frozen.take() else { return };
        self.trace.line(self.now, || format!("m{machine} goes on"));
        for input in waiting {
            self.deliver(machine, input);
        }
    }

    /// Whether a machine stands still.
    pub fn is_frozen(&self, machine: MachineId) -> bool {
        self.machines[machine].frozen.is_some()
    }

    /// When the next event happens.
    pub fn next_time(&self) -> Option<Time> {
        self.queue.next_time()
    }

    /// The next event happens. `None`: there is none.
    pub fn step(&mut self) -> Option<Step<A>> {
        let (time, event) = self.queue.pop()?;
        debug_assert!(self.now <= time, "time goes on");
        self.now = time;
        match event {
            Event::Action(action) => {
                let words = format!("{action:?}");
                self.trace.event(time, 6, [fingerprint(words.as_bytes()), 0]);
                self.trace.line(time, || words);
                return Some(Step::Action(action));
            }
            Event::Deliver { from, to, frame } => {
                let link = (from as u64) << 32 | to as u64;
                self.trace.event(time, 1, [link, frame.fingerprint()]);
                self.arrive(from, to, &frame);
            }
            Event::Timer { machine, incarnation, token } => {
                self.trace.event(time, 2, [machine as u64, token]);
                if self.machines[machine].incarnation == incarnation {
                    self.deliver(machine, Input::Timer(token));
                }
            }
            Event::Job { machine, incarnation } => {
                self.trace.event(time, 3, [machine as u64, incarnation]);
                let slot = &mut self.machines[machine];
                if slot.incarnation == incarnation && slot.process.is_some() {
                    // The disk works on while the process stands still.
                    let (job, result) = slot.disk.finish();
                    self.deliver(machine, Input::JobDone { job, result });
                }
            }
            Event::Request { machine, request } => {
                self.trace.event(time, 4, [machine as u64, 0]);
                self.trace.line(time, || format!("m{machine} is asked {request:?}"));
                self.deliver(machine, Input::Request(request));
            }
            Event::Thaw { machine } => {
                self.trace.event(time, 5, [machine as u64, 0]);
                self.thaw(machine);
            }
        }
        Some(Step::Inside)
    }

    fn arrive(&mut self, from: MachineId, to: MachineId, frame: &Frame) {
        if !self.network.lets_through(from, to) {
            return;
        }
        match frame.open() {
            Ok(payload) => self.deliver(to, Input::Message { from, payload }),
            Err(FrameError::Damaged) => {
                self.network.counters.detected += 1;
                self.trace.line(self.now, || format!("m{to} drops a damaged frame of m{from}"));
            }
            Err(FrameError::Unnoticed) => self.unnoticed_damage += 1,
        }
    }

    /// Hands `input` to the process of `machine`, if it runs, and performs what it wants.
    fn deliver(&mut self, machine: MachineId, input: Input<N::Request>) {
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        if let Some(waiting) = &mut slot.frozen {
            waiting.push(input);
            return;
        }
        let mut context = Context {
            machine,
            now: self.now,
            monotonic: slot.clock.monotonic(self.now),
            wall: slot.clock.wall(self.now),
            rng: &mut slot.rng,
            last_job: &mut slot.last_job,
            effects: &mut self.effects,
            reports: &mut self.reports,
            trace: &mut self.trace,
        };
        process.handle(input, &mut context);
        let incarnation = slot.incarnation;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(to, frame) => {
                    self.trace.note(frame.fingerprint());
                    for (time, frame) in self.network.send(self.now, machine, to, frame) {
                        let event = Event::Deliver { from: machine, to, frame };
                        self.queue.schedule(time, event);
                    }
                }
                Effect::Timer(delay, token) => {
                    let time = self.now + self.machines[machine].clock.world_duration(delay);
                    self.queue.schedule(time, Event::Timer { machine, incarnation, token });
                }
                Effect::Submit(job, ops) => {
                    let time = self.machines[machine].disk.submit(self.now, job, ops);
                    self.queue.schedule(time, Event::Job { machine, incarnation });
                }
                Effect::Stop => {
                    self.trace.line(self.now, || format!("m{machine} stops"));
                    let slot = &mut self.machines[machine];
                    if slot.process.take().is_some() {
                        slot.frozen = None;
                        slot.disk.stop();
                        self.stopped.push(machine);
                    }
                }
            }
        }
        self.effects = effects;
    }
}
