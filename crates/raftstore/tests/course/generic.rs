//! The course's generic test: clients put and scan, each in a range of its own, while the network is bad, members
//! change and regions are split; nothing that was acknowledged may be missing, doubled or in the wrong order.

use types::{Bytes, KeyRange, Modify};

use super::{
    Course, ELECTION, SECOND, Settings, bytes,
    client::{Answer, Operation, Want},
    operators::{ConfChanger, NetworkChaos},
};

/// The course calls the whole of it three times in each test.
const ITERATIONS: u32 = 3;

/// How many milliseconds a client rests at most, for each client that there is: twenty clients don't make twenty times
/// the work of one.
const REST: u64 = 15;

/// What is done to the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenericTest {
    /// How many clients there are.
    pub(crate) clients: u64,
    /// The network loses messages.
    pub(crate) unreliable: bool,
    /// All stores crash after each iteration.
    pub(crate) crash: bool,
    /// The network is cut into two, each time somewhere else.
    pub(crate) partitions: bool,
    /// Logs are compacted at this length.
    pub(crate) maxraftlog: Option<u64>,
    /// Members come and go.
    pub(crate) confchange: bool,
    /// Regions are split at 200 bytes if they have 300.
    pub(crate) split: bool,
}

impl GenericTest {
    /// Nothing is done to it.
    pub(crate) const NONE: GenericTest = GenericTest {
        clients: 0,
        unreliable: false,
        crash: false,
        partitions: false,
        maxraftlog: None,
        confchange: false,
        split: false,
    };

    /// Runs the test with the seeds that `COURSE_FROM` and `COURSE_SEEDS` say, or one.
    pub(crate) fn run(self) {
        let number = |name: &str, otherwise: u64| {
            std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
        };
        let (from, seeds) = (number("COURSE_FROM", 1), number("COURSE_SEEDS", 1));
        for seed in from..from + seeds {
            println!("seed {seed}: COURSE_FROM={seed}");
            Run::new(seed, self).run();
        }
    }
}

/// A client and its keys.
#[derive(Debug)]
struct Client {
    id: u64,
    /// How many pairs it has put.
    puts: u64,
    /// How many it has scanned.
    scans: u64,
    /// The values that it has put, in order.
    last: String,
    operation: Option<Operation>,
    /// How long it rests at most after each operation.
    rest: u64,
    /// It begins nothing before.
    rests_until: u64,
}

fn key(client: u64, number: u64) -> Bytes {
    bytes(&format!("{client} {number:08}"))
}

fn value(client: u64, number: u64) -> String {
    format!("x {client} {number} y")
}

impl Client {
    fn new(id: u64, rest: u64) -> Client {
        Client { id, rest, puts: 0, scans: 0, last: String::new(), operation: None, rests_until: 0 }
    }

    /// All that it has put.
    fn range(&self) -> KeyRange {
        KeyRange::new(key(self.id, 0), key(self.id, self.puts))
    }

    fn check(&self, values: &[Bytes]) {
        let found = String::from_utf8(values.concat()).unwrap();
        assert_eq!(found, self.last, "client {} has put the latter", self.id);
    }

    /// Goes on; begins nothing new if it `stops` and has put something. Returns whether something is under way.
    fn step(&mut self, course: &mut Course, is_bad: bool, stops: bool) -> bool {
        let owes = self.puts == 0;
        let cluster = &mut course.cluster;
        let operation = match &mut self.operation {
            Some(operation) => operation,
            None if stops && !owes => return false,
            None if cluster.now() < self.rests_until => return owes,
            None => {
                let want = match cluster.rng().chance(0.5) {
                    true => Want::Change(Modify::Put {
                        cf: types::Cf::Default,
                        key: key(self.id, self.puts),
                        value: bytes(&value(self.id, self.puts)),
                    }),
                    false => Want::Scan(self.range()),
                };
                self.operation.insert(Operation::new(want, cluster.now()))
            }
        };
        if is_bad {
            operation.be_patient(cluster.now());
        }
        match operation.step(cluster) {
            None => return true,
            Some(Answer::Done) => {
                self.last += &value(self.id, self.puts);
                self.puts += 1;
            }
            Some(Answer::Values(values)) => {
                self.check(&values);
                self.scans += 1;
            }
            Some(Answer::Value(_)) => unreachable!("it has not asked for one"),
        }
        self.operation = None;
        self.rests_until = cluster.now() + cluster.rng().range(0..=self.rest);
        true
    }
}

/// One client after the iteration: reads everything, then deletes it.
#[derive(Debug)]
struct Cleaner {
    client: Client,
    operation: Operation,
    deleted: u64,
}

impl Cleaner {
    fn new(client: Client, now: u64) -> Cleaner {
        let operation = Operation::new(Want::Scan(client.range()), now);
        Cleaner { client, operation, deleted: 0 }
    }

    /// Goes on. Returns whether there is more to do.
    fn step(&mut self, course: &mut Course) -> bool {
        match self.operation.step(&mut course.cluster) {
            None => return true,
            Some(Answer::Values(values)) => self.client.check(&values),
            Some(_) => self.deleted += 1,
        }
        let (cf, key) = (types::Cf::Default, key(self.client.id, self.deleted));
        let delete = Want::Change(Modify::Delete { cf, key });
        self.operation = Operation::new(delete, course.cluster.now());
        self.deleted < self.client.puts
    }
}

struct Run {
    test: GenericTest,
    course: Course,
    clients: Vec<Client>,
    chaos: Option<NetworkChaos>,
    changer: Option<ConfChanger>,
}

impl Run {
    fn new(seed: u64, test: GenericTest) -> Run {
        let split = test.split.then_some((300, 200));
        let settings = Settings { log_gc_limit: test.maxraftlog, split };
        let mut course = Course::new(seed, 5, settings);
        course.pass(2 * ELECTION);
        Run { test, course, clients: Vec::new(), chaos: None, changer: None }
    }

    fn run(mut self) {
        for _ in 0..ITERATIONS {
            self.serve();
            if self.test.crash {
                self.course.restart_all();
            }
            self.clean();
            if let Some(limit) = self.test.maxraftlog {
                self.course.check_logs(limit);
            }
            if self.test.split {
                let first = self.course.region("");
                assert!(!first.range.end.is_empty(), "region is not split");
            }
        }
    }

    /// Clients put and scan for five seconds.
    fn serve(&mut self) {
        let rest = REST * self.test.clients;
        self.clients = (0..self.test.clients).map(|id| Client::new(id, rest)).collect();
        if self.test.unreliable || self.test.partitions {
            self.pass(300, false);
            let now = self.course.cluster.now();
            self.chaos = Some(NetworkChaos::new(self.test.unreliable, self.test.partitions, now));
        }
        if self.test.confchange {
            self.pass(100, false);
            self.changer = Some(ConfChanger::new(self.course.cluster.now()));
        }
        self.pass(5 * SECOND, false);
        if self.chaos.take().is_some() {
            self.course.heal();
            self.pass(ELECTION, true);
        }
        // Each has its own patience.
        while self.pass(1, true) {}
        let changes = self.changer.take().map_or(0, |changer| changer.done);
        let (puts, scans) = self.clients.iter().fold((0, 0), |(puts, scans), client| {
            assert!(client.puts > 0, "client {} has put nothing", client.id);
            (puts + client.puts, scans + client.scans)
        });
        assert_eq!(0 < changes, self.test.confchange, "{changes} changes of the members");
        let regions = self.course.regions().len();
        println!("{puts} puts, {scans} scans, {changes} changes of the members, {regions} regions");
    }

    /// Time passes. Returns whether anything is under way in the end.
    fn pass(&mut self, milliseconds: u64, stops: bool) -> bool {
        let mut is_busy = false;
        let is_bad = self.chaos.is_some();
        for _ in 0..milliseconds {
            self.course.pass(1);
            is_busy = false;
            for client in &mut self.clients {
                is_busy |= client.step(&mut self.course, is_bad, stops);
            }
            if let Some(chaos) = &mut self.chaos {
                chaos.step(&mut self.course);
            }
            if let Some(changer) = &mut self.changer {
                changer.step(&mut self.course, self.chaos.is_some(), stops);
                is_busy |= !changer.is_idle();
            }
        }
        is_busy
    }

    /// What was put is there, once and in order; then it is deleted.
    fn clean(&mut self) {
        let now = self.course.cluster.now();
        let clients = std::mem::take(&mut self.clients).into_iter();
        let mut cleaners: Vec<Cleaner> = clients.map(|client| Cleaner::new(client, now)).collect();
        while !cleaners.is_empty() {
            self.course.pass(1);
            cleaners.retain_mut(|cleaner| cleaner.step(&mut self.course));
        }
    }
}
