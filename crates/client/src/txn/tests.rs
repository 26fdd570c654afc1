//! Machines against the world of calls, with real commands in its stores.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*, test_runner::RngSeed};
use types::{Bytes, KeyRange, TimeStamp};

use super::{
    command::{CheckStatus, Reply},
    lock,
    world::Running,
    *,
};
use crate::{
    Error, KeyLayout,
    call::world::{Fault, World},
    error::Kind,
    request::{Direction, Pair},
};

const TIMEOUT: Duration = Duration::from_secs(10);
const MODES: [CommitMode; 3] = [CommitMode::TwoPhase, CommitMode::Async, CommitMode::OnePhase];
const KEYS: [&str; 3] = ["a", "m", "z"];

fn begin(world: &mut World, locking: Locking, mode: CommitMode) -> Transaction {
    Transaction::new(world.draw(), locking, mode, world.now)
}

/// A transaction that sets all keys to one value.
fn sets_all(world: &mut World, mode: CommitMode, value: &'static str) -> Transaction {
    let mut txn = begin(world, Locking::Optimistic, mode);
    KEYS.into_iter().for_each(|key| txn.put(key.into(), value.into()));
    txn
}

fn commit(world: &mut World, txn: &Transaction) -> Option<Result<Option<TimeStamp>, Error>> {
    let finished = world.drive(Commit::new(txn.commit_plan(), TIMEOUT, 3))?;
    if let Some(then) = finished.then {
        let _ = world.command(then, TIMEOUT);
    }
    Some(finished.result)
}

fn committed(world: &mut World, txn: &Transaction) -> TimeStamp {
    commit(world, txn).unwrap().unwrap().unwrap()
}

fn scan_at(world: &mut World, version: TimeStamp) -> Vec<(String, String)> {
    let scan = Command::Scan {
        range: KeyRange::all(),
        limit: 1000,
        keys_only: false,
        direction: Direction::Forward,
        at: read::at(version),
    };
    let pairs = world.drive(Read::new(scan, TIMEOUT, 5)).unwrap().unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect()
}

fn scan(world: &mut World) -> Vec<(String, String)> {
    let version = world.draw();
    scan_at(world, version)
}

fn all(value: &str) -> Vec<(String, String)> {
    KEYS.map(|key| (key.to_owned(), value.to_owned())).to_vec()
}

/// A world in which all keys are "old", and whose client knows all regions.
fn world(layout: KeyLayout, bounds: &[&'static str]) -> World {
    let mut world = World::new(layout, bounds);
    let txn = sets_all(&mut world, CommitMode::OnePhase, "old");
    committed(&mut world, &txn);
    assert_eq!(scan(&mut world), all("old"));
    world.log.clear();
    world
}

/// The faults are over and the clients that made locks are gone for long.
fn later(world: &mut World) {
    (world.is_crashed, world.then) = (false, Fault::None);
    world.faults.clear();
    world.now += Duration::from_secs(7200);
}

/// What became of a transaction, by its primary; every lock must be resolved.
fn fate(world: &mut World, txn: &Transaction) -> Option<TimeStamp> {
    let check = CheckStatus {
        primary: txn.commit_plan().primary?,
        lock_ts: txn.start_ts(),
        caller_ts: TimeStamp::ZERO,
        current_ts: TimeStamp::MAX,
        rollback_if_unknown: true,
        force_two_phases: false,
        met_pessimistic: false,
    };
    let answered = world.command(Command::CheckStatus(check), TIMEOUT).unwrap();
    match answered.reply {
        Reply::Status { ttl_ms: 0, commit_ts, .. } => {
            (commit_ts != TimeStamp::ZERO).then_some(commit_ts)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_mode_commits_in_as_few_steps_as_it_can() {
    let layout = KeyLayout::TxnV1;
    let sendings = |mode, bounds: &[&'static str]| {
        let mut world = world(layout, bounds);
        let txn = sets_all(&mut world, mode, "new");
        let at = committed(&mut world, &txn);
        let log = std::mem::take(&mut world.log);
        assert_eq!(scan_at(&mut world, TimeStamp(at.0 - 1)), all("old"));
        assert_eq!(scan_at(&mut world, at), all("new"));
        assert_eq!(fate(&mut world, &txn), Some(at));
        assert!(world.versions.locks().is_empty());
        log.join("\n")
    };
    insta::assert_snapshot!(sendings(CommitMode::OnePhase, &[]), @"prewrite of 3 keys to region 1 on 1: ok");
    insta::assert_snapshot!(sendings(CommitMode::Async, &["m"]), @r"
    prewrite of 1 keys to region 1 on 1: ok
    prewrite of 2 keys to region 2 on 1: ok
    commit a to region 1 on 1: ok
    commit of 2 keys to region 2 on 1: ok
    ");
    // One phase is not for two regions.
    assert_eq!(sendings(CommitMode::OnePhase, &["m"]), sendings(CommitMode::Async, &["m"]));
    insta::assert_snapshot!(sendings(CommitMode::TwoPhase, &["m"]), @r"
    prewrite of 1 keys to region 1 on 1: ok
    prewrite of 2 keys to region 2 on 1: ok
    commit a to region 1 on 1: ok
    commit of 2 keys to region 2 on 1: ok
    ");
}

/// Runs a commit with a fault at every sending of it, and checks what it left behind.
fn at_every_sending(fault: &Fault, goes_on: bool) -> usize {
    let mut hit = 0;
    for layout in [KeyLayout::TxnV1, KeyLayout::TxnV2 { keyspace: 0 }] {
        for bounds in [&[][..], &["m"], &["b", "n"]] {
            for mode in MODES {
                for fall_back in [&[][..], &[true], &[false, true]] {
                    for at in 0..8 {
                        let mut world = world(layout, bounds);
                        world.versions.fall_back = fall_back.iter().copied().collect();
                        let txn = sets_all(&mut world, mode, "new");
                        world.faults = vec![Fault::None; at].into();
                        world.faults.push_back(fault.clone());
                        if goes_on {
                            world.then = fault.clone();
                        }
                        let result = commit(&mut world, &txn);
                        let case = format!("{layout:?} {bounds:?} {mode:?} {fall_back:?} {at}");
                        let case = format!("{case}: {result:?}\n{}", world.log.join("\n"));
                        hit += usize::from(world.faults.is_empty());
                        later(&mut world);
                        let found = scan(&mut world);
                        assert!(world.versions.locks().is_empty(), "{case}");
                        let fate = fate(&mut world, &txn);
                        let expected = all(if fate.is_some() { "new" } else { "old" });
                        assert_eq!(found, expected, "{case}");
                        assert_eq!(scan(&mut world), expected, "{case}");
                        match result {
                            // The client has stopped, or does not know.
                            None => {}
                            Some(Err(error)) if error.kind() == Kind::Undetermined => {
                                assert!(goes_on, "{case}");
                            }
                            Some(Err(_)) => {
                                assert!(goes_on, "{case}");
                                assert_eq!(fate, None, "{case}");
                            }
                            Some(Ok(ts)) => assert_eq!(fate, ts, "{case}"),
                        }
                    }
                }
            }
        }
    }
    hit
}

#[test]
fn a_client_that_stops_between_any_two_steps_leaves_all_or_nothing() {
    assert!(100 < at_every_sending(&Fault::Crash(false), false));
    assert!(100 < at_every_sending(&Fault::Crash(true), false));
}

#[test]
fn a_lost_request_or_answer_is_made_up_for() {
    assert!(100 < at_every_sending(&Fault::AnswerLost, false));
    assert!(100 < at_every_sending(&Fault::RequestLost, false));
    assert!(100 < at_every_sending(&Fault::Late, false));
}

#[test]
fn a_region_that_splits_between_two_steps_is_no_matter() {
    assert!(100 < at_every_sending(&Fault::Split("m"), false));
    assert!(100 < at_every_sending(&Fault::Split("c"), false));
}

#[test]
fn stores_that_vanish_leave_a_result_that_is_true() {
    assert!(100 < at_every_sending(&Fault::AnswerLost, true));
    assert!(100 < at_every_sending(&Fault::RequestLost, true));
    assert!(100 < at_every_sending(&Fault::NotSent, true));
}

#[test]
fn a_commit_whose_answers_are_all_lost_is_undetermined() {
    for mode in MODES {
        let mut world = world(KeyLayout::TxnV1, &["m"]);
        let txn = sets_all(&mut world, mode, "new");
        // Two prewrites are answered.
        world.faults = vec![Fault::None; if mode == CommitMode::TwoPhase { 2 } else { 0 }].into();
        world.then = Fault::AnswerLost;
        let error = commit(&mut world, &txn).unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Undetermined, "{mode:?}: {error}");
    }
}

#[test]
fn the_second_of_two_writers_is_told_and_leaves_nothing() {
    for mode in MODES {
        let mut world = world(KeyLayout::TxnV1, &["m"]);
        let (first, second) =
            (sets_all(&mut world, mode, "first"), sets_all(&mut world, mode, "second"));
        let at = committed(&mut world, &second);
        let error = commit(&mut world, &first).unwrap().unwrap_err();
        let key = "a".into();
        let start_ts = first.start_ts();
        assert_eq!(error, Error::WriteConflict { start_ts, conflict_commit_ts: at, key });
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(world.versions.locks().is_empty());
        assert_eq!(scan(&mut world), all("second"));
    }
}

#[test]
fn what_must_not_exist_is_checked_also_if_it_is_deleted_again() {
    for mode in MODES {
        for deletes in [false, true] {
            let mut world = world(KeyLayout::TxnV1, &["m"]);
            let mut txn = begin(&mut world, Locking::Optimistic, mode);
            txn.insert("b".into(), "1".into()).unwrap();
            txn.insert("m".into(), "1".into()).unwrap();
            if deletes {
                txn.delete("m".into());
            }
            let error = commit(&mut world, &txn).unwrap().unwrap_err();
            assert_eq!(error, Error::KeyExists { key: "m".into() }, "{mode:?}");
            assert_eq!(scan(&mut world), all("old"));
            assert!(world.versions.locks().is_empty());

            let mut txn = begin(&mut world, Locking::Optimistic, mode);
            txn.insert("n".into(), "1".into()).unwrap();
            txn.delete("n".into());
            assert_eq!(commit(&mut world, &txn), Some(Ok(None)), "nothing is written");
            txn.insert("b".into(), "1".into()).unwrap();
            assert!(txn.insert("b".into(), "1".into()).is_err());
            committed(&mut world, &txn);
            assert_eq!(scan(&mut world).len(), 4);
        }
    }
}

#[test]
fn a_reader_passes_a_transaction_that_lives_and_it_commits_later() {
    let mut world = world(KeyLayout::TxnV1, &["m"]);
    let txn = sets_all(&mut world, CommitMode::TwoPhase, "new");
    let mut writer = Running::new(Commit::new(txn.commit_plan(), TIMEOUT, 3));
    assert!(world.step(&mut writer).is_none());
    assert_eq!(world.versions.locks().len(), 3);
    let started = world.now;
    let version = world.draw();
    assert_eq!(scan_at(&mut world, version), all("old"));
    assert!(world.now - started < Duration::from_millis(100), "it did not wait");
    let finished = loop {
        if let Some(finished) = world.step(&mut writer) {
            break finished;
        }
    };
    assert!(version < finished.result.unwrap().unwrap());
    assert_eq!(scan_at(&mut world, version), all("old"));
    assert_eq!(scan(&mut world), all("new"));
}

#[test]
fn who_fell_back_on_one_key_is_not_committed_by_those_who_find_all_keys_locked() {
    let mut world = world(KeyLayout::TxnV1, &["m"]);
    world.versions.fall_back = [false, true].into();
    let txn = sets_all(&mut world, CommitMode::Async, "new");
    let mut writer = Running::new(Commit::new(txn.commit_plan(), TIMEOUT, 3));
    for _ in 0..2 {
        assert!(world.step(&mut writer).is_none());
    }
    assert_eq!(world.versions.locks().len(), 3);
    world.now += Duration::from_secs(5);
    assert_eq!(scan(&mut world), all("old"));
    let finished = loop {
        if let Some(finished) = world.step(&mut writer) {
            break finished;
        }
    };
    assert_eq!(finished.result.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(fate(&mut world, &txn), None);
}

#[test]
fn a_transaction_sees_its_own_writes_over_the_snapshot() {
    let mut world = world(KeyLayout::TxnV1, &["m"]);
    let mut txn = begin(&mut world, Locking::Optimistic, CommitMode::OnePhase);
    txn.put("b".into(), "mine".into());
    txn.put("m".into(), "mine".into());
    txn.delete("a".into());
    let mut found = |range: KeyRange, limit, direction| {
        let command = txn.scan(&range, limit, direction, false);
        let pairs = world.drive(Read::new(command, TIMEOUT, 5)).unwrap().unwrap();
        let pairs = txn.lay_over(pairs, &range, limit, direction, false);
        let text = |pair: Pair| format!("{}={}", key_text(&pair.key), key_text(&pair.value));
        pairs.into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(KeyRange::all(), 9, Direction::Forward), "b=mine m=mine z=old");
    assert_eq!(found(KeyRange::all(), 1, Direction::Forward), "b=mine");
    assert_eq!(found(KeyRange::all(), 2, Direction::Reverse), "z=old m=mine");
    assert_eq!(found(KeyRange::new("a", "m"), 9, Direction::Reverse), "b=mine");
    assert_eq!(txn.get(&"a".into()), Lookup::Known(None));
    assert!(matches!(txn.get(&"z".into()), Lookup::Ask(_)));
    let (known, ask) = txn.batch_get(&["z".into(), "b".into(), "a".into()]);
    assert_eq!(known, [Pair::new("b", "mine")]);
    assert!(matches!(ask, Some(Command::BatchGet { keys, .. }) if keys == ["z"]));
}

fn key_text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Locks keys for a pessimistic transaction.
fn lock_keys(world: &mut World, txn: &mut Transaction, keys: &[&'static str]) -> Result<(), Error> {
    let keys = keys.iter().map(|key| Bytes::from(*key));
    let Some(plan) = txn.lock_plan(keys, lock::Wish::Values) else { return Ok(()) };
    let finished = world.drive(Lock::new(plan.clone(), TIMEOUT, 9)).unwrap();
    if let Some(then) = finished.then {
        let _ = world.command(then, TIMEOUT);
    }
    txn.on_locked(plan, finished.result?);
    Ok(())
}

#[test]
fn pessimistic_locks_show_the_newest_value_and_keep_it() {
    for mode in MODES {
        let mut world = world(KeyLayout::TxnV1, &["m"]);
        let mut first = begin(&mut world, Locking::Pessimistic, mode);
        let newer = sets_all(&mut world, CommitMode::OnePhase, "newer");
        committed(&mut world, &newer);
        lock_keys(&mut world, &mut first, &["a", "z"]).unwrap();
        assert_eq!(first.locked_value(&"a".into()), Some(Some("newer".into())));
        assert_eq!(first.locked_value(&"m".into()), None);

        // Another one waits until its time is over, and does not get the keys.
        let mut second = begin(&mut world, Locking::Pessimistic, mode);
        let error = lock_keys(&mut world, &mut second, &["a"]).unwrap_err();
        assert_eq!(error.code(), types::Code::KeyLocked, "{error}");
        assert!(matches!(error, Error::Timeout { .. }));

        first.put("a".into(), "first".into());
        let at = committed(&mut world, &first);
        assert_eq!(fate(&mut world, &first), Some(at));
        lock_keys(&mut world, &mut second, &["a"]).unwrap();
        assert_eq!(second.locked_value(&"a".into()), Some(Some("first".into())));
        let command = second.rollback().unwrap();
        world.command(command, TIMEOUT).unwrap();
        assert!(world.versions.locks().is_empty());
        assert_eq!(scan(&mut world)[0].1, "first");
    }
}

#[test]
fn a_key_of_a_client_that_is_gone_is_taken_over() {
    let mut world = world(KeyLayout::TxnV1, &["m"]);
    let mut gone = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
    lock_keys(&mut world, &mut gone, &["a", "m"]).unwrap();
    // Readers do not mind such locks.
    assert_eq!(scan(&mut world), all("old"));
    world.now += Duration::from_secs(25);
    for key in ["m", "a"] {
        let mut next = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
        lock_keys(&mut world, &mut next, &[key]).unwrap();
        next.put(key.into(), "next".into());
        committed(&mut world, &next);
    }
    gone.put("a".into(), "gone".into());
    let error = commit(&mut world, &gone).unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(scan(&mut world)[0].1, "next");
    assert!(world.versions.locks().is_empty());
}

#[test]
fn a_life_sign_keeps_locks_and_ends_with_them() {
    let mut world = world(KeyLayout::TxnV1, &[]);
    let mut txn = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
    lock_keys(&mut world, &mut txn, &["a"]).unwrap();
    let mut beats = Running::new(txn.heart_beat().unwrap());
    let until = world.now + Duration::from_secs(100);
    while world.now < until {
        assert!(world.step(&mut beats).is_none());
    }
    let mut other = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
    let error = lock_keys(&mut world, &mut other, &["a"]).unwrap_err();
    assert_eq!(error.code(), types::Code::KeyLocked);
    txn.put("a".into(), "1".into());
    committed(&mut world, &txn);
    let ended = (0..9).find_map(|_| world.step(&mut beats));
    assert_eq!(ended, Some(()));
}

#[test]
fn locks_that_failed_halfway_are_taken_back() {
    let mut world = world(KeyLayout::TxnV1, &["m"]);
    let mut holder = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
    lock_keys(&mut world, &mut holder, &["z"]).unwrap();
    let mut other = begin(&mut world, Locking::Pessimistic, CommitMode::OnePhase);
    lock_keys(&mut world, &mut other, &["b"]).unwrap();
    assert!(lock_keys(&mut world, &mut other, &["a", "b", "z"]).is_err());
    let locks: Vec<Bytes> = world.versions.locks().into_iter().collect();
    assert_eq!(locks, ["b", "z"], "what was locked before stays locked");
    let plan = other.lock_plan(["a".into()], lock::Wish::Absence).unwrap();
    let finished = world.drive(Lock::new(plan, TIMEOUT, 9)).unwrap();
    assert_eq!(finished.result, Err(Error::KeyExists { key: "a".into() }));
}

/// Something that a client does.
#[derive(Clone, Debug)]
enum Action {
    /// Begins, if it has no transaction; else one of these.
    Step,
    Get(usize),
    Put(usize),
    Delete(usize),
    Commit,
    /// Stops for ever; another client comes in its place.
    Vanish,
    /// Time passes, in milliseconds.
    Sleep(u64),
    /// Something goes wrong.
    Fault(Fault),
    /// A store gives no timestamp to the next prewrite, or does.
    FallBack(bool),
}

const NAMES: [&str; 6] = ["a", "b", "m", "n", "y", "z"];

fn action() -> impl Strategy<Value = Action> {
    let key = 0..NAMES.len();
    prop_oneof![
        12 => Just(Action::Step),
        4 => key.clone().prop_map(Action::Get),
        5 => key.clone().prop_map(Action::Put),
        2 => key.prop_map(Action::Delete),
        3 => Just(Action::Commit),
        1 => Just(Action::Vanish),
        1 => (0..4000_u64).prop_map(Action::Sleep),
        1 => any::<bool>().prop_map(Action::FallBack),
        1 => prop_oneof![
            Just(Fault::AnswerLost),
            Just(Fault::RequestLost),
            Just(Fault::Late),
            Just(Fault::NotSent),
            Just(Fault::Split("m")),
            Just(Fault::Split("y")),
        ]
        .prop_map(Action::Fault),
    ]
}

/// What a client is doing.
enum Doing {
    Nothing,
    Reading(Bytes, Running<Read>),
    Locking(Action, lock::Plan, Running<Lock>),
    Committing(Running<Commit>),
}

struct Client {
    txn: Transaction,
    doing: Doing,
}

/// What is known of a transaction that wrote.
struct Record {
    txn: Transaction,
    /// What its client was told, if it was.
    told: Option<Result<Option<TimeStamp>, Error>>,
}

#[derive(Default)]
struct History {
    records: Vec<Record>,
    /// As of when, of which key, what.
    reads: Vec<(TimeStamp, Bytes, Option<Bytes>)>,
    values: usize,
}

/// How a transaction of a client ended.
enum End {
    Not,
    GivenUp,
    Told(Result<Option<TimeStamp>, Error>),
}

impl Client {
    fn new(world: &mut World, who: usize, number: usize) -> Client {
        let locking =
            if who.is_multiple_of(2) { Locking::Optimistic } else { Locking::Pessimistic };
        let txn = begin(world, locking, MODES[number % 3]);
        Client { txn, doing: Doing::Nothing }
    }

    /// Begins an action, or does a step of the one that is under way.
    fn act(&mut self, world: &mut World, action: Action, history: &mut History) -> End {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => match action {
                Action::Get(key) => {
                    let key = Bytes::from(NAMES[key]);
                    if let Lookup::Ask(command) = self.txn.get(&key) {
                        let read = Read::new(command, TIMEOUT, 1);
                        self.doing = Doing::Reading(key, Running::new(read));
                    }
                }
                Action::Put(key) | Action::Delete(key) => {
                    let keys = [Bytes::from(NAMES[key])];
                    match self.txn.locking() {
                        Locking::Optimistic => self.write(action, history),
                        Locking::Pessimistic => {
                            match self.txn.lock_plan(keys, lock::Wish::Values) {
                                None => self.write(action, history),
                                Some(plan) => {
                                    let lock = Lock::new(plan.clone(), TIMEOUT, 2);
                                    self.doing = Doing::Locking(action, plan, Running::new(lock));
                                }
                            }
                        }
                    }
                }
                Action::Commit => {
                    let commit = Commit::new(self.txn.commit_plan(), TIMEOUT, 3);
                    self.doing = Doing::Committing(Running::new(commit));
                }
                _ => {}
            },
            Doing::Reading(key, mut running) => match world.step(&mut running) {
                None => self.doing = Doing::Reading(key, running),
                Some(result) => {
                    // It may not have got past a lock in time.
                    if let Ok(pairs) = result {
                        let value = pairs.into_iter().next().map(|pair| pair.value);
                        history.reads.push((self.txn.start_ts(), key, value));
                    }
                }
            },
            Doing::Locking(action, plan, mut running) => match world.step(&mut running) {
                None => self.doing = Doing::Locking(action, plan, running),
                Some(finished) => {
                    if let Some(then) = finished.then {
                        let _ = world.command(then, TIMEOUT);
                    }
                    let Ok(locked) = finished.result else { return End::GivenUp };
                    self.txn.on_locked(plan, locked);
                    self.write(action, history);
                }
            },
            Doing::Committing(mut running) => match world.step(&mut running) {
                None => self.doing = Doing::Committing(running),
                Some(finished) => {
                    history.values += 1;
                    // Nobody is obliged to do what is left to be done.
                    if let Some(then) = finished.then.filter(|_| history.values.is_multiple_of(2)) {
                        let _ = world.command(then, TIMEOUT);
                    }
                    return End::Told(finished.result);
                }
            },
        }
        End::Not
    }

    /// Another client comes in its place.
    fn replace(&mut self, world: &mut World, who: usize, end: End, history: &mut History) {
        history.values += 1;
        let old = std::mem::replace(self, Client::new(world, who, history.values));
        let told = match end {
            End::Told(result) => Some(result),
            End::GivenUp | End::Not if matches!(old.doing, Doing::Committing(_)) => None,
            End::GivenUp | End::Not => return,
        };
        history.records.push(Record { txn: old.txn, told });
    }

    fn write(&mut self, action: Action, history: &mut History) {
        match action {
            Action::Put(key) => {
                history.values += 1;
                self.txn.put(NAMES[key].into(), format!("v{}", history.values).into());
            }
            Action::Delete(key) => self.txn.delete(NAMES[key].into()),
            _ => {}
        }
    }
}

/// Keys and what they are set to; `None`: they are removed.
type Writes = Vec<(Bytes, Option<Bytes>)>;

/// What a transaction wrote.
fn writes(txn: &Transaction) -> Writes {
    let written = |mutation: command::Mutation| match mutation.op {
        command::Op::Put | command::Op::Insert => Some((mutation.key, Some(mutation.value))),
        command::Op::Delete => Some((mutation.key, None)),
        command::Op::Lock | command::Op::CheckNotExists => None,
    };
    txn.commit_plan().mutations.into_iter().filter_map(written).collect()
}

fn check(world: &mut World, history: History) {
    later(world);
    let last = world.draw();
    let found = scan_at(world, last);
    // Locks that change nothing are in nobody's way, and stay.
    let mut commits: BTreeMap<TimeStamp, Writes> = BTreeMap::new();
    for Record { txn, told } in history.records {
        let fate = fate(world, &txn);
        match told {
            None => {}
            Some(Ok(at)) => assert_eq!(at, fate, "{txn:?}"),
            Some(Err(error)) => {
                assert!(error.kind() == Kind::Undetermined || fate.is_none(), "{error} {txn:?}");
            }
        }
        if let Some(at) = fate {
            for (commit_ts, others) in commits.range(TimeStamp(txn.start_ts().0 + 1)..at) {
                let touched = |key: &Bytes| others.iter().any(|(other, _)| other == key);
                // A pessimistic transaction has seen what was committed before it locked.
                assert!(
                    txn.locking() == Locking::Pessimistic
                        || !writes(&txn).iter().any(|(key, _)| touched(key)),
                    "{txn:?} overlaps the commit at {commit_ts}"
                );
            }
            let other = commits.insert(at, writes(&txn));
            // Two may commit at one timestamp if they have no key in common.
            if let Some(other) = other {
                let mine = writes(&txn);
                assert!(mine.iter().all(|(key, _)| other.iter().all(|(theirs, _)| theirs != key)));
                commits.entry(at).and_modify(|writes| writes.extend(other));
            }
        }
    }
    let model = |version: TimeStamp| {
        let mut map: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for (_, writes) in commits.range(..=version) {
            for (key, value) in writes {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        map
    };
    for (version, key, value) in history.reads {
        assert_eq!(model(version).get(&key), value.as_ref(), "{} at {version}", key_text(&key));
    }
    let expected: Vec<(String, String)> =
        model(last).iter().map(|(key, value)| (key_text(key), key_text(value))).collect();
    assert_eq!(found, expected);
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("CLIENT_HISTORIES").map_or(300, |cases| cases.parse().unwrap()),
        rng_seed: RngSeed::Fixed(0x0063_6c69_656e_7473),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Clients of both kinds run side by side, stop, lose answers, and meet each other's locks. At the end the map of
    /// what was committed, by the timestamps that were told, explains every read.
    #[test]
    fn what_clients_see_is_what_was_committed(actions in vec((0..4_usize, action()), 1..250)) {
        let mut world = World::new(KeyLayout::TxnV1, &["m"]);
        let mut history = History::default();
        let mut clients: Vec<Client> = (0..4).map(|who| Client::new(&mut world, who, who)).collect();
        for (who, action) in actions {
            let client = &mut clients[who];
            match action {
                Action::Sleep(ms) => world.now += Duration::from_millis(ms),
                Action::Fault(fault) => world.faults.push_back(fault),
                Action::FallBack(falls) => world.versions.fall_back.push_back(falls),
                Action::Vanish => client.replace(&mut world, who, End::Not, &mut history),
                action => match client.act(&mut world, action, &mut history) {
                    End::Not => {}
                    end => client.replace(&mut world, who, end, &mut history),
                },
            }
        }
        for (who, client) in clients.iter_mut().enumerate() {
            client.replace(&mut world, who, End::Not, &mut history);
        }
        check(&mut world, history);
    }
}
