//! What clients did and were told, with the moments, and the judgement over it.
//!
//! Every operation is noted before it is sent ([`Recorder::begin`]) and when its answer has come. An operation that is
//! never answered stays open: it may have happened at any later time, or never. At the end each key's operations go to
//! the two judges of crate `check`: one order explains all answers, and no acknowledged write is gone.
//!
//! Invariant: a moment is the time since the run's beginning in nanoseconds, and all moments differ; they are drawn
//! under one lock, a begin before its request and an end after its answer, so that their order is a real one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use check::history::{Action, Content as Held, History, Operation, Seen};
use tokio::time::Instant;

use crate::{
    kv::Failure,
    load::Ledgers,
    model::{Content, Violation, decode, value_of},
};

/// How many keys without explanation are written out operation by operation.
const KEYS_WRITTEN_OUT_MAX: usize = 3;

/// An operation that was begun.
#[derive(Debug)]
#[must_use = "an answer must be noted"]
pub struct Begun {
    key: Bytes,
    number: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Answered { end: u64, seen: Seen },
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    /// Who asked: a task of the load, or a reader of a store.
    who: u16,
    action: Action,
    begin: u64,
    state: State,
}

#[derive(Debug, Default)]
struct Records {
    last_moment: u64,
    last_value: u64,
    keys: BTreeMap<Bytes, Vec<Record>>,
    counts: Counts,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Operations that began.
    pub operations: u64,
    /// Writes that were acknowledged.
    pub acknowledged_writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Operations whose outcome stayed unknown.
    pub unknown: u64,
    /// Operations that were certainly not executed.
    pub refused: u64,
}

/// What the judges say.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Keys whose acknowledged writes are gone.
    pub lost: u64,
    /// Keys whose answers no order explains.
    pub unexplained: u64,
    /// Both in words.
    pub violations: Vec<String>,
    /// The operations of the first of these keys, a line each.
    pub written_out: String,
}

/// Notes operations. Clones share what they note.
#[derive(Clone, Debug)]
pub struct Recorder {
    records: Arc<Mutex<Records>>,
    begin: Instant,
    /// Takes violations that show at once.
    ledgers: Ledgers,
}

impl Recorder {
    /// An empty history that begins now. Values that nobody wrote are reported to `ledgers`.
    pub fn new(ledgers: Ledgers) -> Recorder {
        Recorder { records: Arc::default(), begin: Instant::now(), ledgers }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no task panics while it holds the history")
    }

    fn moment(&self, records: &mut Records) -> u64 {
        let now = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        records.last_moment = now.max(records.last_moment + 1);
        records.last_moment
    }

    /// A value that no other write has.
    pub fn new_value(&self) -> u64 {
        let mut records = self.records();
        records.last_value += 1;
        records.last_value
    }

    /// Notes that `who` is about to do `action` on `key`.
    pub fn begin(&self, who: u16, key: &Bytes, action: Action) -> Begun {
        let mut records = self.records();
        let begin = self.moment(&mut records);
        records.counts.operations += 1;
        records.counts.unknown += 1;
        let of_key = records.keys.entry(key.clone()).or_default();
        of_key.push(Record { who, action, begin, state: State::Open });
        Begun { key: key.clone(), number: of_key.len() - 1 }
    }

    /// Notes that it was answered, and what the answer says of the content before.
    pub fn answered(&self, begun: Begun, seen: Seen) {
        let mut records = self.records();
        let end = self.moment(&mut records);
        records.counts.unknown -= 1;
        let of_key = records.keys.get_mut(&begun.key).expect("it was begun");
        let record = &mut of_key[begun.number];
        record.state = State::Answered { end, seen };
        match record.action {
            Action::Read => records.counts.reads += 1,
            _ => records.counts.acknowledged_writes += 1,
        }
    }

    /// Notes what a read found.
    pub fn read(&self, begun: Begun, found: Option<&[u8]>) -> Option<Held> {
        let held = self.held(&begun.key, found)?;
        self.answered(begun, Seen::Was(held));
        Some(held)
    }

    /// Notes a failure. Unless the operation was refused for certain, it stays open.
    pub fn failed(&self, begun: Begun, failure: &Failure) {
        if let Failure::Refused(_) = failure {
            let mut records = self.records();
            records.counts.unknown -= 1;
            records.counts.refused += 1;
            let of_key = records.keys.get_mut(&begun.key).expect("it was begun");
            of_key[begun.number].state = State::Refused;
        }
    }

    /// The value that these bytes are; `None`, and a violation, if nobody wrote such bytes.
    pub fn held(&self, key: &Bytes, found: Option<&[u8]>) -> Option<Held> {
        match decode(key, found) {
            Ok(Content::Absent) => Some(None),
            Ok(Content::Write(value)) => Some(Some(value)),
            Err(violation) => {
                self.ledgers.model().report(violation);
                None
            }
        }
    }

    /// The bytes of a value.
    pub fn bytes(key: &Bytes, value: u64) -> Bytes {
        value_of(key, value)
    }

    /// Takes note of something that is wrong by itself.
    pub fn report(&self, what: String) {
        self.ledgers.model().report(Violation::Misbehaved(what));
    }

    /// How much was done so far.
    pub fn counts(&self) -> Counts {
        self.records().counts
    }

    /// The keys of the history, in order.
    pub fn keys(&self) -> Vec<Bytes> {
        self.records().keys.keys().cloned().collect()
    }

    /// Asks the judges. `last` is what each key was found to hold after everything.
    pub fn judge(&self, last: &BTreeMap<Bytes, Held>) -> Judgement {
        let records = self.records();
        let mut judgement = Judgement::default();
        let mut written_out = 0;
        for (key, of_key) in &records.keys {
            let name = String::from_utf8_lossy(key);
            let history = history(of_key);
            let mut is_good = true;
            if let Some(last) = last.get(key)
                && let Err(violation) = history.check_lost(*last)
            {
                judgement.lost += 1;
                judgement.violations.push(format!("{name}: {violation}"));
                is_good = false;
            }
            if let Err(violation) = history.check() {
                judgement.unexplained += 1;
                judgement.violations.push(format!("{name}: {violation}"));
                is_good = false;
            }
            if !is_good && written_out < KEYS_WRITTEN_OUT_MAX {
                written_out += 1;
                write_out(&mut judgement.written_out, &name, of_key);
            }
        }
        judgement
    }
}

fn history(records: &[Record]) -> History {
    let mut history = History::default();
    for record in records {
        let operation: Operation = history.begin(record.action, record.begin);
        match record.state {
            State::Open => {}
            State::Answered { end, seen } => history.answered(operation, end, seen),
            State::Refused => history.refused(operation),
        }
    }
    history
}

fn write_out(text: &mut String, key: &str, records: &[Record]) {
    for Record { who, action, begin, state } in records {
        let outcome = match state {
            State::Open => "unknown".to_owned(),
            State::Answered { end, seen } => format!("ok at {end}: {seen:?}"),
            State::Refused => "fail".to_owned(),
        };
        let _ = writeln!(text, "{key} task {who} at {begin}: {action:?} -> {outcome}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Bytes = Bytes::from_static(b"k");

    fn recorder() -> Recorder {
        Recorder::new(Ledgers::default())
    }

    fn put(recorder: &Recorder) -> u64 {
        let value = recorder.new_value();
        let begun = recorder.begin(0, &KEY, Action::Put(value));
        recorder.answered(begun, Seen::Nothing);
        value
    }

    fn read(recorder: &Recorder, value: u64) {
        let begun = recorder.begin(1, &KEY, Action::Read);
        recorder.read(begun, Some(&value_of(&KEY, value)));
    }

    #[test]
    fn an_honest_history_is_explained() {
        let recorder = recorder();
        let value = put(&recorder);
        read(&recorder, value);
        let judgement = recorder.judge(&BTreeMap::from([(KEY, Some(value))]));
        assert_eq!((judgement.lost, judgement.unexplained), (0, 0), "{judgement:?}");
        let counts = recorder.counts();
        assert_eq!((counts.operations, counts.acknowledged_writes, counts.reads), (2, 1, 1));
    }

    #[test]
    fn a_stale_read_is_found() {
        let recorder = recorder();
        let old = put(&recorder);
        let new = put(&recorder);
        read(&recorder, old);
        let judgement = recorder.judge(&BTreeMap::from([(KEY, Some(new))]));
        assert_eq!((judgement.lost, judgement.unexplained), (0, 1), "{judgement:?}");
        assert_eq!(judgement.written_out.lines().count(), 3, "{}", judgement.written_out);
    }

    #[test]
    fn a_lost_write_is_found() {
        let recorder = recorder();
        let old = put(&recorder);
        put(&recorder);
        let judgement = recorder.judge(&BTreeMap::from([(KEY, Some(old))]));
        assert_eq!((judgement.lost, judgement.unexplained), (1, 0), "{judgement:?}");
    }

    #[test]
    fn what_was_not_answered_stays_open_and_what_was_refused_has_not_happened() {
        let recorder = recorder();
        let first = put(&recorder);
        let open = recorder.new_value();
        let begun = recorder.begin(0, &KEY, Action::Put(open));
        recorder.failed(begun, &Failure::Unknown("no answer".into()));
        read(&recorder, first);
        read(&recorder, open);
        assert_eq!(recorder.judge(&BTreeMap::new()).unexplained, 0);

        let refused = recorder.new_value();
        let begun = recorder.begin(0, &KEY, Action::Put(refused));
        recorder.failed(begun, &Failure::Refused("not now".into()));
        read(&recorder, refused);
        assert_eq!(recorder.judge(&BTreeMap::new()).unexplained, 1);
        assert_eq!((recorder.counts().unknown, recorder.counts().refused), (1, 1));
    }

    #[test]
    fn bytes_that_nobody_wrote_are_a_violation() {
        let ledgers = Ledgers::default();
        let recorder = Recorder::new(ledgers.clone());
        let begun = recorder.begin(0, &KEY, Action::Read);
        assert_eq!(recorder.read(begun, Some(b"rubbish")), None);
        assert_eq!(ledgers.model().violations().len(), 1);
    }
}
