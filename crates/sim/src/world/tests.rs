//! The world with nodes that do next to nothing: they count, pass a token round, and write what they hear.

use super::*;

/// Counts what reaches it, and writes every message to its disk before it passes it on.
#[derive(Debug, Default)]
struct Counter {
    heard: u64,
    timers: u64,
    readings: Vec<u64>,
    unwritten: Vec<(JobId, Vec<u8>)>,
}

impl Node for Counter {
    type Request = u8;
    type Report = String;

    fn handle(&mut self, input: Input<u8>, context: &mut Context<'_, String>) {
        self.readings.push(context.monotonic());
        let machine = context.machine();
        match input {
            Input::Started => context.set_timer(10_000, 7),
            Input::Timer(token) => {
                assert_eq!(token, 7);
                self.timers += 1;
                context.set_timer(10_000, 7);
            }
            Input::Message { payload, .. } => {
                self.heard += 1;
                let write = DiskOp::Write {
                    file: "heard".into(),
                    offset: (self.heard - 1) * payload.len() as u64,
                    bytes: payload.clone(),
                };
                let job = context.submit(vec![write, DiskOp::Sync { file: "heard".into() }]);
                self.unwritten.push((job, payload.to_vec()));
            }
            Input::JobDone { job, result } => {
                if result.is_err() {
                    context.report(format!("m{machine} lost its disk"));
                    context.stop();
                    return;
                }
                let (oldest, payload) = self.unwritten.remove(0);
                assert_eq!(oldest, job, "jobs are done in order");
                context.send((machine + 1) % 3, &payload);
            }
            Input::Request(byte) => {
                context.report(format!("m{machine} was asked {byte}"));
                context.send((machine + 1) % 3, &[byte; 8]);
            }
        }
    }
}

fn world(seed: u64, tie_break: TieBreak, faulty: bool) -> World<Counter, &'static str> {
    let mut network = NetworkOptions::healthy(100, 500);
    if faulty {
        (network.loss, network.duplicate) = (0.02, 0.03);
        (network.reorder, network.corrupt) = (0.1, 0.05);
    }
    let options = WorldOptions {
        tie_break,
        network,
        disk: DiskOptions { latency_min: 50, latency_mean: 200, slow: 0.01 },
        clocks: vec![
            MachineClock::new(5, 0, 0),
            MachineClock::new(1_000_000, 40_000, 0),
            MachineClock::new(0, -40_000, 0),
        ],
        text: TraceText::Off,
    };
    let mut world = World::new(Seed(seed), options);
    for machine in 0..3 {
        world.start(machine, Counter::default());
    }
    world
}

fn run_until(world: &mut World<Counter, &'static str>, end: Time) {
    while world.queue.next_time().is_some_and(|time| time <= end) {
        world.step().unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_hash_and_another_seed_another() {
    let hash = |seed, tie_break| {
        let mut world = world(seed, tie_break, true);
        for byte in 0..20 {
            world.request(u64::from(byte) * 100_000, usize::from(byte) % 3, byte);
        }
        run_until(&mut world, 1_000_000);
        world.crash(1);
        world.start(1, Counter::default());
        world.freeze(2, 500_000);
        run_until(&mut world, 3_000_000);
        assert!(world.trace.events() > 800);
        assert!(world.network.counters.corrupted > 0);
        assert_eq!(world.unnoticed_damage(), 0);
        world.trace.hash()
    };
    for tie_break in [TieBreak::Fifo, TieBreak::Random] {
        assert_eq!(hash(1, tie_break), hash(1, tie_break));
        assert_ne!(hash(1, tie_break), hash(2, tie_break));
    }
}

#[test]
fn timers_follow_the_machines_own_clock() {
    let mut world = world(1, TieBreak::Fifo, false);
    run_until(&mut world, 10_000_000);
    let timers = |machine: MachineId| world.process(machine).unwrap().timers;
    assert!(timers(2) < timers(0) && timers(0) < timers(1));
    for (machine, expected) in [1000_u64, 1040, 960].into_iter().enumerate() {
        let drift = timers(machine).abs_diff(expected);
        assert!(drift <= 2, "m{machine}: {}", timers(machine));
    }
}

#[test]
fn a_frozen_machine_gets_everything_afterwards_and_its_clock_went_on() {
    let mut world = world(1, TieBreak::Fifo, false);
    world.freeze(0, 1_000_000);
    for byte in 0..5 {
        world.request(1000, 0, byte);
    }
    run_until(&mut world, 999_999);
    assert!(world.is_frozen(0) && world.take_reports().is_empty());
    run_until(&mut world, 1_000_000);
    let reports = world.take_reports();
    assert_eq!(reports.len(), 5);
    assert_eq!(*world.process(0).unwrap().readings.last().unwrap(), 1_000_005);
}

#[test]
fn after_a_crash_old_timers_and_jobs_are_not_heard() {
    let mut world = world(1, TieBreak::Fifo, false);
    world.request(0, 2, 9);
    run_until(&mut world, 300);
    world.crash(0);
    world.crash(1);
    world.start(0, Counter::default());
    run_until(&mut world, 1_000_000);
    assert!(world.process(1).is_none());
    let timers = world.process(0).unwrap().timers;
    assert!(timers <= 100, "one chain of timers, not two: {timers}");
}

#[test]
fn a_failed_sync_stops_the_process_and_the_owner_is_told() {
    let mut world = world(1, TieBreak::Fifo, false);
    world.disk_mut(1).fail_next_sync();
    world.request(0, 0, 3);
    run_until(&mut world, 1_000_000);
    assert_eq!(world.take_stopped(), [1]);
    assert!(world.process(1).is_none());
    assert!(world.take_reports().contains(&(1, "m1 lost its disk".into())));
}

#[test]
fn actions_come_back_to_their_owner_in_time() {
    let mut world = world(1, TieBreak::Fifo, false);
    world.schedule(5_000, "second");
    world.schedule(1_000, "first");
    let mut actions = Vec::new();
    while actions.len() < 2 {
        if let Some(Step::Action(action)) = world.step() {
            actions.push((world.now(), action));
        }
    }
    assert_eq!(actions, [(1_000, "first"), (5_000, "second")]);
}
