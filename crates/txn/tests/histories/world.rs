//! The store, its clients, and one step after the other.

use engine::Family;
use txn::{
    Error, Key, KeyError, Lock, Read, Reader, ScanOptions,
    commands::{
        BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Command, Commit, Gc, Mutation,
        MutationOp, PessimisticRollback, Prewrite, PrewriteAnswer, ResolveLocks, TxnHeartBeat,
        TxnStatus,
    },
    find_locks,
    gc::find_garbage,
};
use types::{Bytes, KeyRange, Modify, TimeStamp};

use crate::{
    client::{Client, Locked, Mode},
    oracle::{Oracle, Seen},
    support::{Store, bytes, ts},
};

const KEYS: [&str; 4] = ["a", "b", "ba", "c"];

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub what: u8,
    pub who: u8,
    pub key: u8,
    pub flags: u8,
}

/// A prewrite that was decided and is on its way through the log.
struct OnItsWay {
    changes: Vec<Modify>,
    answer: PrewriteAnswer,
    /// Who is told when it has arrived.
    asked_by: Option<(usize, Prewrite)>,
}

/// Everything.
pub(crate) struct World {
    store: Store,
    clock: u64,
    safe_point: u64,
    clients: Vec<Client>,
    reads: Vec<Seen>,
    on_its_way: Option<OnItsWay>,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            store: Store::new(),
            clock: 1,
            safe_point: 0,
            clients: Vec::new(),
            reads: Vec::new(),
            on_its_way: None,
        }
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What is on its way arrives.
    fn arrive(&mut self) {
        let Some(OnItsWay { changes, answer, asked_by }) = self.on_its_way.take() else { return };
        self.store.apply(&changes);
        self.store.memory.release(&answer.memory_locks);
        if let Some((who, request)) = asked_by {
            self.prewritten(who, &request, &answer);
        }
    }

    /// Commands wait for the latches of what is on its way.
    fn run<C: Command>(&mut self, command: &C) -> Result<C::Answer, Error> {
        self.arrive();
        self.store.run(command)
    }

    pub(crate) fn step(&mut self, action: Action) {
        let Action { what, who, key, flags } = action;
        let key = bytes(KEYS[usize::from(key) % KEYS.len()]);
        if self.clients.is_empty() || what % 16 == 0 {
            return self.begin(who, flags);
        }
        // Mostly those that began lately, so that transactions get to their end.
        let among = if flags < 0xf0 { 4 } else { self.clients.len() };
        let who = self.clients.len() - 1 - usize::from(who) % self.clients.len().min(among);
        match what % 16 {
            2 => self.lock(who, &key, flags),
            1 | 3..=5 => self.prewrite(who, &key, flags),
            6 | 7 => self.commit(who, flags),
            8 => self.give_up(who, flags),
            9 | 10 => self.read(&key, flags),
            11 => self.scan(flags),
            12 => drop(self.resolve(&key, TimeStamp::ZERO, flags & 7 == 0)),
            13 | 14 => self.send_again(who, flags),
            _ if flags < 32 => self.collect_garbage(flags),
            _ => self.commit(who, flags),
        }
    }

    fn begin(&mut self, who: u8, flags: u8) {
        let start_ts = self.now();
        let mode = [Mode::TwoPhase, Mode::Async, Mode::Async, Mode::OnePhase][usize::from(who % 4)];
        let is_pessimistic = who & 4 != 0;
        let index = self.clients.len();
        let mut mutations = Vec::new();
        for (at, key) in KEYS.iter().enumerate() {
            if flags & (1 << at) == 0 {
                continue;
            }
            let op = match (who >> 4).wrapping_add(flags >> 4).wrapping_add(at as u8) % 8 {
                0 => MutationOp::Del,
                1 => MutationOp::Lock,
                2 => MutationOp::Insert,
                // With asynchronous commit the locks alone would decide, whatever the check says.
                3 if !is_pessimistic && mode != Mode::Async => MutationOp::CheckNotExists,
                _ => MutationOp::Put,
            };
            let has_value = matches!(op, MutationOp::Put | MutationOp::Insert);
            let len = if flags & 0x80 == 0 { 8 } else { 300 };
            let value = if has_value { format!("{index:0len$}").into() } else { Bytes::new() };
            mutations.push(Mutation { op, key: bytes(key), value, ..Mutation::default() });
        }
        // The primary is a key that is written.
        mutations.sort_by_key(|mutation| mutation.op == MutationOp::CheckNotExists);
        if mutations.first().is_none_or(|first| first.op == MutationOp::CheckNotExists) {
            return;
        }
        if who & 8 != 0 {
            let writes = mutations.iter().filter(|m| m.op != MutationOp::CheckNotExists).count();
            mutations[..writes].reverse();
        }
        let max_commit_ts = if flags & 0x40 == 0 { 0 } else { start_ts + 6 };
        self.clients.push(Client {
            start_ts,
            is_pessimistic,
            mode,
            max_commit_ts,
            mutations,
            locked: Default::default(),
            prewritten: Default::default(),
            min_commit_ts: 0,
            commit_ts: None,
            fell_back: false,
            is_done: false,
            told: None,
            fate: None,
            prewrites: Vec::new(),
            commits: Vec::new(),
            locks: Vec::new(),
        });
    }

    /// A pessimistic transaction locks one of its keys.
    fn lock(&mut self, who: usize, key: &Bytes, flags: u8) {
        let client = &self.clients[who];
        let is_open = !client.is_done && client.prewrites.is_empty();
        let next = client.keys().into_iter().find(|key| !client.locked.contains_key(key));
        let key = &if flags & 32 == 0 { key.clone() } else { next.unwrap_or(key.clone()) };
        if !client.is_pessimistic || !is_open || !client.keys().contains(key) {
            return;
        }
        let for_update_ts = ts(self.now());
        let request = self.clients[who].lock(key, for_update_ts, flags & 1 == 0);
        self.clients[who].locks.push(request.clone());
        let answer = self.run(&request);
        let client = &mut self.clients[who];
        match answer {
            Ok(answer) => {
                let result = &answer.results[0];
                let at = for_update_ts.max(result.locked_with_conflict_ts).0;
                client.locked.insert(key.clone(), Locked { at, value: result.value.clone() });
            }
            Err(Error::Key(KeyError::PessimisticLockRolledBack { .. })) => client.is_done = true,
            Err(Error::Key(KeyError::Locked(_))) if flags & 2 == 0 => {
                let _ = self.resolve(key, TimeStamp::ZERO, flags & 12 == 0);
            }
            Err(Error::Key(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// A client prewrites one key, or all of them for one phase.
    fn prewrite(&mut self, who: usize, key: &Bytes, flags: u8) {
        let client = &self.clients[who];
        if client.is_done || (client.is_pessimistic && client.locked.len() < client.keys().len()) {
            return;
        }
        let all: Vec<Bytes> = client.mutations.iter().map(|m| m.key.clone()).collect();
        let next = all.iter().find(|key| !client.prewritten.contains(*key));
        let key = if flags & 32 == 0 { key } else { next.unwrap_or(key) };
        let keys = if client.mode == Mode::OnePhase { all.clone() } else { vec![key.clone()] };
        let mutations = client.mutations_to_send(&keys);
        if mutations.is_empty() {
            return;
        }
        let request =
            Prewrite { is_retry: !client.prewrites.is_empty(), ..client.prewrite(mutations) };
        self.clients[who].prewrites.push(request.clone());
        if flags & 6 == 0 {
            // It takes its time, and may come when nobody expects it any more.
            return;
        }
        self.arrive();
        let outcome = self.store.decide(&request).unwrap();
        let is_answer_lost = flags & 24 == 0;
        let asked_by = (!is_answer_lost).then_some((who, request));
        let (changes, answer) = (outcome.changes, outcome.answer);
        // Other people's reads may come before it arrives.
        self.on_its_way = Some(OnItsWay { changes, answer, asked_by });
        if flags & 1 == 0 {
            self.arrive();
        }
    }

    /// A client reads the answer.
    fn prewritten(&mut self, who: usize, request: &Prewrite, answer: &PrewriteAnswer) {
        let keys: Vec<Bytes> = request.mutations.iter().map(|m| m.key.clone()).collect();
        let client = &mut self.clients[who];
        if let Some(error) = answer.errors.first() {
            match error {
                KeyError::Locked(lock) => {
                    let key = lock.key.clone();
                    let is_over = self.clock.is_multiple_of(4);
                    let _ = self.resolve(&key, TimeStamp::ZERO, is_over);
                }
                KeyError::WriteConflict { .. } if !client.is_pessimistic => {
                    (client.told, client.is_done) = (Some(None), true);
                }
                _ => client.is_done = true,
            }
            return;
        }
        client.prewritten.extend(keys);
        match client.mode {
            Mode::TwoPhase => {}
            Mode::Async if answer.min_commit_ts == TimeStamp::ZERO => client.fell_back = true,
            Mode::Async => client.min_commit_ts = client.min_commit_ts.max(answer.min_commit_ts.0),
            Mode::OnePhase if answer.one_pc_commit_ts == TimeStamp::ZERO => client.fell_back = true,
            Mode::OnePhase => {
                client.told = Some(Some(answer.one_pc_commit_ts.0));
                client.is_done = true;
            }
        }
        let is_complete = client.prewritten.len() == client.mutations.len();
        if is_complete && client.mode == Mode::Async && !client.fell_back {
            client.told = Some(Some(client.min_commit_ts));
            client.is_done = true;
        }
    }

    /// A client commits its primary, or, when it is committed, other keys.
    fn commit(&mut self, who: usize, flags: u8) {
        let client = &self.clients[who];
        let primary = client.primary().clone();
        let start_ts = ts(client.start_ts);
        if let Some(Some(commit_ts)) = client.told {
            if client.mode == Mode::OnePhase && !client.fell_back {
                return;
            }
            let keys: Vec<Bytes> = client.keys();
            let keys = vec![keys[usize::from(flags) % keys.len()].clone()];
            let request =
                Commit { keys, start_ts, commit_ts: ts(commit_ts), missing_is_success: false };
            if self.safe_point < start_ts.0 {
                self.run(&request).unwrap();
            }
            return;
        }
        let is_complete = client.prewritten.len() == client.mutations.len();
        if client.is_done || !is_complete {
            return;
        }
        if flags & 1 == 0 && self.clients[who].commit_ts.is_none() {
            // Others come between the timestamp and the commit.
            self.clients[who].commit_ts = Some(self.now());
            return;
        }
        let commit_ts = self.clients[who].commit_ts.take();
        let commit_ts = ts(commit_ts.unwrap_or_else(|| self.now()));
        let request =
            Commit { keys: vec![primary], start_ts, commit_ts, missing_is_success: false };
        self.clients[who].commits.push(request.clone());
        let answer = self.run(&request);
        let client = &mut self.clients[who];
        match answer {
            Ok(_) => (client.told, client.is_done) = (Some(Some(commit_ts.0)), true),
            Err(Error::Key(KeyError::CommitTsExpired { .. })) => {}
            Err(Error::Key(KeyError::TxnLockNotFound { .. })) => {
                (client.told, client.is_done) = (Some(None), true);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A client rolls back, or vanishes, or says that it lives.
    fn give_up(&mut self, who: usize, flags: u8) {
        let client = &self.clients[who];
        if client.is_done {
            return;
        }
        let (keys, start_ts) = (client.keys(), ts(client.start_ts));
        match flags % 4 {
            0 => self.clients[who].is_done = true,
            1 => {
                let primary = client.primary().clone();
                let _ = self.run(&TxnHeartBeat { primary, start_ts, advise_ttl: 5 });
            }
            2 if client.is_pessimistic && client.prewrites.is_empty() => {
                self.clients[who].locked.clear();
                let for_update_ts = ts(self.clock);
                self.run(&PessimisticRollback { keys, start_ts, for_update_ts }).unwrap();
            }
            _ => {
                self.clients[who].is_done = true;
                // Somebody else may have found all its keys prewritten, and committed it.
                if self.run(&BatchRollback { keys, start_ts }).is_ok() {
                    self.clients[who].told = Some(None);
                }
            }
        }
    }

    /// A time to read at: now, or a little earlier.
    fn read_ts(&mut self, flags: u8) -> u64 {
        let now = self.now();
        now.saturating_sub(u64::from(flags >> 4)).max(self.safe_point).max(1)
    }

    fn read(&mut self, key: &Bytes, flags: u8) {
        let at = self.read_ts(flags);
        self.store.memory.raise_max_ts(ts(at));
        let (mut resolved, mut committed) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let read = Read { resolved: &resolved, committed: &committed, ..Read::at(ts(at)) };
            if self.store.memory.check_key(key, &read).is_err() {
                self.arrive();
                continue;
            }
            match read.get(self.store.snapshot().as_ref(), key) {
                Ok(value) => return self.reads.push(Seen { key: key.clone(), at, value }),
                Err(Error::Key(KeyError::Locked(lock))) if flags & 1 == 0 => {
                    let Some(status) = self.resolve(key, ts(at), flags & 14 == 0) else { return };
                    let lock_ts = lock.start_ts.0;
                    if status.lock.is_some_and(|lock| at < lock.min_commit_ts.0) {
                        resolved.push(lock_ts);
                    } else if status.commit_ts != TimeStamp::ZERO && status.commit_ts.0 <= at {
                        committed.push(lock_ts);
                    }
                }
                Err(Error::Key(KeyError::Locked(_))) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn scan(&mut self, flags: u8) {
        let at = self.read_ts(flags);
        self.store.memory.raise_max_ts(ts(at));
        let range = KeyRange::new(bytes(KEYS[usize::from(flags) % 2]), bytes("bb"));
        if self.store.memory.check_range(&range, &Read::at(ts(at))).is_err() {
            return;
        }
        let options = ScanOptions { reverse: flags & 4 == 0, ..ScanOptions::limit(10) };
        let items = self.store.scan(&range.start, &range.end, at, &options);
        let mut names: Vec<Bytes> = Vec::new();
        for item in &items {
            match item {
                Ok(pair) => {
                    names.push(pair.key.clone());
                    let value = Some(pair.value.clone());
                    self.reads.push(Seen { key: pair.key.clone(), at, value });
                }
                Err(KeyError::Locked(lock)) => names.push(lock.key.clone()),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(if options.reverse { names.is_sorted_by(|a, b| a > b) } else { names.is_sorted() });
        for key in KEYS.map(bytes) {
            if range.contains(&key) && !names.contains(&key) {
                self.reads.push(Seen { key, at, value: None });
            }
        }
    }

    /// Somebody meets the lock on `key`: asks its primary, and does what it says. `None` if that is to wait.
    fn resolve(&mut self, key: &Bytes, caller: TimeStamp, is_over: bool) -> Option<TxnStatus> {
        self.arrive();
        let lock = self.store.lock(key)?;
        let mut check = CheckTxnStatus {
            primary: lock.primary.clone(),
            lock_ts: lock.start_ts,
            caller_start_ts: caller,
            current_ts: if is_over { TimeStamp::MAX } else { ts(self.clock) },
            rollback_if_not_exist: is_over,
            resolving_pessimistic_lock: lock.is_pessimistic(),
            verify_is_primary: true,
            ..CheckTxnStatus::default()
        };
        let status = loop {
            let status = match self.run(&check) {
                Ok(status) => status,
                Err(Error::Key(KeyError::TxnNotFound { .. })) => return None,
                Err(error) => panic!("{error}"),
            };
            match &status.lock {
                None => break status,
                Some(primary)
                    if primary.use_async_commit && is_over && !check.force_sync_commit =>
                {
                    let secondaries = primary.secondaries.clone();
                    match self.ask_secondaries(lock.start_ts, secondaries) {
                        Secondaries::NotAsync => check.force_sync_commit = true,
                        Secondaries::Decided(at) => {
                            let all_are_locked = at.1;
                            let commit_ts =
                                if all_are_locked { at.0.max(primary.min_commit_ts) } else { at.0 };
                            break TxnStatus { commit_ts, ..TxnStatus::default() };
                        }
                    }
                }
                Some(_) => return Some(status),
            }
        };
        let (start_ts, keys) = (lock.start_ts, vec![key.clone()]);
        if lock.is_pessimistic() {
            let for_update_ts = lock.for_update_ts;
            self.run(&PessimisticRollback { keys, start_ts, for_update_ts }).unwrap();
        } else {
            let txns = [(start_ts, status.commit_ts)].into();
            self.run(&ResolveLocks { keys: vec![key.clone(), lock.primary], txns }).unwrap();
        }
        Some(status)
    }

    /// Whether all secondaries are locked, key by key.
    fn ask_secondaries(&mut self, start_ts: TimeStamp, keys: Vec<Bytes>) -> Secondaries {
        let mut min_commit_ts = TimeStamp::ZERO;
        for key in keys {
            let keys = vec![key];
            let answer = self.run(&CheckSecondaryLocks { keys, start_ts }).unwrap();
            match answer.locks.first() {
                Some(lock) if lock.use_async_commit => {
                    min_commit_ts = min_commit_ts.max(lock.min_commit_ts);
                }
                Some(_) => return Secondaries::NotAsync,
                None => return Secondaries::Decided((answer.commit_ts, false)),
            }
        }
        Secondaries::Decided((min_commit_ts, true))
    }

    /// A request arrives once more.
    fn send_again(&mut self, who: usize, flags: u8) {
        let client = &self.clients[who];
        if client.start_ts <= self.safe_point {
            // Its records may be gone; clients of that age are stopped by the safe point.
            return;
        }
        let pick = |len: usize| (0 < len).then(|| usize::from(flags >> 2) % len.max(1));
        match flags % 4 {
            0 | 1 => {
                let Some(index) = pick(client.prewrites.len()) else { return };
                let request = Prewrite { is_retry: true, ..client.prewrites[index].clone() };
                // Nobody listens to the answer.
                let answer = self.run(&request).unwrap();
                self.store.memory.release(&answer.memory_locks);
            }
            2 => {
                let Some(index) = pick(client.commits.len()) else { return };
                let request = client.commits[index].clone();
                if matches!(client.told, Some(Some(at)) if at == request.commit_ts.0) {
                    self.run(&request).unwrap();
                }
            }
            _ => {
                let Some(index) = pick(client.locks.len()) else { return };
                let request = client.locks[index].clone();
                let _ = self.run(&request);
            }
        }
    }

    /// Ends what began before, and removes what nobody reads any more.
    fn collect_garbage(&mut self, flags: u8) {
        let safe_point = self.clock.saturating_sub(u64::from(flags % 16) + 4).max(self.safe_point);
        self.end_all(safe_point);
        self.safe_point = safe_point;
        let snapshot = self.store.snapshot();
        let point = ts(safe_point);
        let (keys, rest) =
            find_garbage(snapshot.as_ref(), &KeyRange::all(), point, 10, 1000).unwrap();
        assert_eq!(rest, None);
        // Cut short, and finished later or not.
        let limit = if flags & 16 == 0 { 100 } else { 2 };
        let rest = self.run(&Gc { keys, safe_point: point, limit }).unwrap();
        if limit == 100 {
            assert_eq!(rest, Vec::<Bytes>::new());
            let snapshot = self.store.snapshot();
            let found = find_garbage(snapshot.as_ref(), &KeyRange::all(), point, 10, 1000).unwrap();
            assert_eq!(found, (Vec::new(), None), "nothing is left to collect");
        }
    }

    /// Ends every transaction that began at or before `until`, and finds out how.
    fn end_all(&mut self, until: u64) {
        self.arrive();
        let is_meant = |lock: &Lock| lock.start_ts.0 <= until;
        loop {
            let snapshot = self.store.snapshot();
            let (found, _) = find_locks(snapshot.as_ref(), &KeyRange::all(), is_meant, 1).unwrap();
            let Some((key, lock)) = found.into_iter().next() else { break };
            self.resolve(&key, TimeStamp::ZERO, true).expect("its time is over");
            assert_ne!(self.store.lock(&key), Some(lock), "{key:?} is resolved");
        }
        for index in 0..self.clients.len() {
            if self.clients[index].start_ts <= until && self.clients[index].fate.is_none() {
                self.clients[index].is_done = true;
                let fate = self.fate(&self.clients[index]);
                self.clients[index].fate = Some(fate);
            }
        }
    }

    /// When a transaction was committed, by its records: on all its keys at once, or on none.
    fn fate(&self, client: &Client) -> Option<u64> {
        let snapshot = self.store.snapshot();
        let mut reader = Reader::new(snapshot.as_ref());
        let mut fates = client.keys().into_iter().map(|key| {
            let record = reader.txn_record(&Key::new(key), ts(client.start_ts)).unwrap();
            record.commit_ts().map(|ts| ts.0)
        });
        let fate = fates.next().flatten();
        assert!(fates.all(|other| other == fate), "committed in part: {client:#?}");
        fate
    }

    /// Ends everything and asks the oracle.
    pub(crate) fn finish(mut self) {
        let end = self.now();
        self.end_all(end);
        assert_eq!(self.store.len(Family::Lock), 0);
        assert!(self.store.memory.is_empty());
        for key in KEYS.map(bytes) {
            let value = self.store.got(&key, end);
            self.reads.push(Seen { key, at: end, value });
        }
        let oracle = Oracle::new(&self.clients);
        oracle.judge_reads(&self.reads);
        oracle.judge_clients(&self.clients);
    }
}

/// What the secondaries of a transaction with asynchronous commit say.
enum Secondaries {
    /// The transaction fell back.
    NotAsync,
    /// A commit timestamp, zero for none; and whether it is that of all the locks.
    Decided((TimeStamp, bool)),
}
