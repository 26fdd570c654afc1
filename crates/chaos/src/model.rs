//! The ledger: what was written, what was acknowledged, and whether what is there now agrees.
//!
//! Two kinds of keys. A **register** has at most one write under way at a time, so after any fault it has one of at
//! most a few known contents: the last acknowledged one, or that of a later write whose answer never came. A
//! **counter** is raised by compare-and-swap from many writers at once: each step may be acknowledged once, and no
//! acknowledged step may be missing.
//!
//! Values carry their sequence number, their key and a filler that follows from both, so that a value of another
//! key, a torn value and a value of an older write are told apart.
//!
//! Invariant: an effect is noted before its request is sent ([`Model::begin`]) and settled only by an
//! acknowledgement ([`Model::acknowledge`]), a certain refusal ([`Model::refuse`]), or the death of the process
//! together with a read of what it left behind ([`Model::settle`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged write is not there; an older content is.
    Lost {
        /// Where.
        key: Bytes,
        /// What must be there.
        expected: Content,
        /// What is there.
        found: Content,
    },
    /// A key whose deletion was acknowledged has a value.
    Resurrected {
        /// Where.
        key: Bytes,
        /// The sequence number of the value that came back.
        found: u64,
    },
    /// A value that was never written under this key, or not yet.
    Invented {
        /// Where.
        key: Bytes,
        /// Its sequence number.
        found: u64,
    },
    /// Bytes that no writer ever produced.
    Damaged {
        /// Where.
        key: Bytes,
        /// How many bytes.
        len: usize,
    },
    /// A scan shows a key that a get does not have, or the other way round.
    ScanDisagrees {
        /// Where.
        key: Bytes,
    },
    /// Two writers were told that they made the same step of a counter.
    StepTwice {
        /// The counter.
        key: Bytes,
        /// The step.
        step: u64,
    },
    /// A counter stands below a step that was acknowledged.
    StepLost {
        /// The counter.
        key: Bytes,
        /// The highest acknowledged step.
        acknowledged: u64,
        /// Where it stands.
        found: u64,
    },
    /// The scheduler handed out an id twice.
    IdTwice {
        /// The id.
        id: u64,
    },
    /// A timestamp is not above one that was handed out before it was asked for.
    TimeWentBack {
        /// The earlier one.
        before: u64,
        /// The later one.
        after: u64,
    },
    /// The process did something else that it must not do.
    Misbehaved(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { key, expected, found } => {
                write!(f, "lost write: {} has {found}, {expected} was acknowledged", name(key))
            }
            Violation::Resurrected { key, found } => {
                write!(
                    f,
                    "resurrected: {} has write {found} although a later delete was acknowledged",
                    name(key)
                )
            }
            Violation::Invented { key, found } => {
                write!(f, "invented: {} has write {found}, which was never sent there", name(key))
            }
            Violation::Damaged { key, len } => {
                write!(f, "damaged: {} has {len} bytes that nobody wrote", name(key))
            }
            Violation::ScanDisagrees { key } => {
                write!(f, "scan and get disagree about {}", name(key))
            }
            Violation::StepTwice { key, step } => {
                write!(f, "lost update: step {step} of {} was won twice", name(key))
            }
            Violation::StepLost { key, acknowledged, found } => {
                write!(
                    f,
                    "lost write: counter {} is {found}, {acknowledged} was acknowledged",
                    name(key)
                )
            }
            Violation::IdTwice { id } => write!(f, "id {id} was handed out twice"),
            Violation::TimeWentBack { before, after } => {
                write!(f, "timestamp went back: {after} was handed out after {before}")
            }
            Violation::Misbehaved(what) => f.write_str(what),
        }
    }
}

fn name(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Absent,
    /// The value of the write with this sequence number.
    Write(u64),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Absent => f.write_str("nothing"),
            Content::Write(sequence) => write!(f, "write {sequence}"),
        }
    }
}

/// When a power cut happened, as seen by an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// The disk works.
    #[default]
    On,
    /// The cut has begun and its call has not returned. On which side of the cut an answer belongs that comes now
    /// can't be told, so it counts as none.
    Failing,
    /// The disk is gone: every sync that begins now fails.
    Off,
}

/// One write under way. Dropping it says nothing about the write: it stays unanswered.
#[derive(Debug)]
#[must_use = "an answer must be noted"]
pub struct Ticket {
    key: Bytes,
    content: Content,
    /// When it was sent.
    power: Power,
}

#[derive(Debug)]
struct Register {
    /// After the last acknowledged write.
    settled: Content,
    /// After writes that were sent later and not answered. Any of them may take effect, now or later.
    unanswered: Vec<Content>,
    /// The sequence number of every value that was ever sent here.
    written: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Counter {
    acknowledged: BTreeSet<u64>,
    attempted: BTreeSet<u64>,
}

/// The ledger of one run.
#[derive(Debug, Default)]
pub struct Model {
    registers: BTreeMap<Bytes, Register>,
    counters: BTreeMap<Bytes, Counter>,
    sequence: u64,
    acknowledged: u64,
    power: Power,
    /// Answers that came while the power was failing.
    in_doubt: u64,
    violations: Vec<Violation>,
}

impl Model {
    /// Notes that a put of the next value (or, with `delete`, a delete) of `key` is about to be sent. Returns the
    /// value to send.
    pub fn begin(&mut self, key: &Bytes, effect: Effect) -> (Ticket, Option<Bytes>) {
        self.sequence += 1;
        let sequence = self.sequence;
        let register = self.registers.entry(key.clone()).or_insert_with(|| Register {
            settled: Content::Absent,
            unanswered: Vec::new(),
            written: BTreeSet::new(),
        });
        let (content, value) = match effect {
            Effect::Put => {
                register.written.insert(sequence);
                (Content::Write(sequence), Some(value_of(key, sequence)))
            }
            Effect::Delete => (Content::Absent, None),
        };
        register.unanswered.push(content);
        (Ticket { key: key.clone(), content, power: self.power }, value)
    }

    /// Notes that the power begins to fail, is off, or is back.
    pub fn set_power(&mut self, power: Power) {
        self.power = power;
    }

    /// Notes that the write was acknowledged: from now on it must be there.
    ///
    /// Unless the power is going: then the answer is no promise, and one to a write that was sent to a disk that was
    /// gone is a violation of its own.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        if self.power != Power::On {
            self.in_doubt += 1;
            if ticket.power == Power::Off {
                let key = ticket.key;
                self.violations.push(Violation::Misbehaved(format!(
                    "a write of {} was sent after the disk was gone, and acknowledged",
                    name(&key)
                )));
            }
            return;
        }
        let register =
            self.registers.get_mut(&ticket.key).expect("a ticket names a register of this ledger");
        assert!(
            register.unanswered.len() == 1,
            "a register has one write under way when one is acknowledged"
        );
        register.settled = ticket.content;
        register.unanswered.clear();
        self.acknowledged += 1;
    }

    /// Notes that the write was refused before it could have any effect.
    pub fn refuse(&mut self, ticket: Ticket) {
        let register =
            self.registers.get_mut(&ticket.key).expect("a ticket names a register of this ledger");
        let last = register.unanswered.pop();
        assert_eq!(last, Some(ticket.content), "a register has one write under way");
    }

    /// Whether a write of `key` was sent and never answered. No further write may be sent until it is settled.
    pub fn is_unanswered(&self, key: &Bytes) -> bool {
        self.registers.get(key).is_some_and(|register| !register.unanswered.is_empty())
    }

    /// Holds what a read of `key` found against the ledger. Notes a violation and returns whether all is well.
    pub fn check(&mut self, key: &Bytes, found: Option<&[u8]>) -> bool {
        match self.verdict(key, found) {
            Ok(_) => true,
            Err(violation) => {
                self.violations.push(violation);
                false
            }
        }
    }

    /// Like [`Model::check`], for the first read after the process died: what is there now is all that ever will
    /// be, so unanswered writes are settled by it.
    pub fn settle(&mut self, key: &Bytes, found: Option<&[u8]>) -> bool {
        let verdict = self.verdict(key, found);
        let Some(register) = self.registers.get_mut(key) else { return verdict.is_ok() };
        register.unanswered.clear();
        match verdict {
            Ok(content) => {
                register.settled = content;
                true
            }
            Err(violation) => {
                // One loss is one violation: later checks compare with what is there now.
                register.settled = decode(key, found).unwrap_or(register.settled);
                self.violations.push(violation);
                false
            }
        }
    }

    fn verdict(&self, key: &Bytes, found: Option<&[u8]>) -> Result<Content, Violation> {
        let content = decode(key, found)?;
        let Some(register) = self.registers.get(key) else {
            return match content {
                Content::Absent => Ok(content),
                Content::Write(found) => Err(Violation::Invented { key: key.clone(), found }),
            };
        };
        if content == register.settled || register.unanswered.contains(&content) {
            return Ok(content);
        }
        Err(match (content, register.settled) {
            (Content::Write(found), _) if !register.written.contains(&found) => {
                Violation::Invented { key: key.clone(), found }
            }
            (Content::Write(found), Content::Absent) => {
                Violation::Resurrected { key: key.clone(), found }
            }
            (found, expected) => Violation::Lost { key: key.clone(), expected, found },
        })
    }

    /// Notes that a step of a counter, from `step - 1` to `step`, is about to be tried.
    pub fn begin_step(&mut self, key: &Bytes, step: u64) {
        self.counters.entry(key.clone()).or_default().attempted.insert(step);
    }

    /// Notes that a writer was told that it made `step`.
    pub fn acknowledge_step(&mut self, key: &Bytes, step: u64) {
        if self.power != Power::On {
            self.in_doubt += 1;
            return;
        }
        let counter = self.counters.entry(key.clone()).or_default();
        if !counter.acknowledged.insert(step) {
            self.violations.push(Violation::StepTwice { key: key.clone(), step });
        }
        self.acknowledged += 1;
    }

    /// Holds where a counter stands against the ledger.
    pub fn check_counter(&mut self, key: &Bytes, found: Option<&[u8]>) -> bool {
        let counter = self.counters.entry(key.clone()).or_default();
        let violation = match decode_counter(found) {
            None => Violation::Damaged { key: key.clone(), len: found.map_or(0, <[u8]>::len) },
            Some(at) => {
                let acknowledged = counter.acknowledged.last().copied().unwrap_or(0);
                if at < acknowledged {
                    Violation::StepLost { key: key.clone(), acknowledged, found: at }
                } else if at != 0 && !counter.attempted.contains(&at) {
                    Violation::Invented { key: key.clone(), found: at }
                } else {
                    return true;
                }
            }
        };
        self.violations.push(violation);
        false
    }

    /// Notes a violation that another checker found.
    pub fn report(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// The registers that were ever written, in the order of their keys.
    pub fn registers(&self) -> Vec<Bytes> {
        self.registers.keys().cloned().collect()
    }

    /// The counters that were ever stepped, in the order of their keys.
    pub fn counters(&self) -> Vec<Bytes> {
        self.counters.keys().cloned().collect()
    }

    /// How many answers came while the power was failing: they count as no answers.
    pub fn in_doubt(&self) -> u64 {
        self.in_doubt
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

/// What a write does to its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets a new value.
    Put,
    /// Removes the key.
    Delete,
}

/// Keys that begin with this have large values only: to fill a disk quickly.
pub const LARGE: &str = "chaos/large/";

/// The value of write `sequence` of `key`: most are small, some have kilobytes, few exceed a hundred of them.
pub fn value_of(key: &[u8], sequence: u64) -> Bytes {
    let mut rng =
        fastrand::Rng::with_seed(fingerprint(key) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let filler = match rng.u32(0..256) {
        _ if key.starts_with(LARGE.as_bytes()) => 64 << 10,
        0 => 128 << 10,
        1..=15 => rng.usize(4096..16384),
        _ => rng.usize(0..256),
    };
    let mut value = Vec::with_capacity(8 + filler);
    value.extend_from_slice(&sequence.to_be_bytes());
    value.resize(8 + filler, 0);
    rng.fill(&mut value[8..]);
    value.into()
}

/// The bytes of a counter that stands at `step`.
pub fn counter_value(step: u64) -> Bytes {
    Bytes::copy_from_slice(&step.to_be_bytes())
}

/// Where a counter with these bytes stands; `None` if no counter ever wrote them.
pub fn decode_counter(found: Option<&[u8]>) -> Option<u64> {
    let Some(bytes) = found else { return Some(0) };
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// What a register with these bytes holds.
///
/// # Errors
/// [`Violation::Damaged`]: no writer ever produced them.
pub fn decode(key: &Bytes, found: Option<&[u8]>) -> Result<Content, Violation> {
    let Some(bytes) = found else { return Ok(Content::Absent) };
    let damaged = || Violation::Damaged { key: key.clone(), len: bytes.len() };
    let head = bytes.first_chunk::<8>().ok_or_else(damaged)?;
    let sequence = u64::from_be_bytes(*head);
    if value_of(key, sequence) != bytes {
        return Err(damaged());
    }
    Ok(Content::Write(sequence))
}

/// FNV-1a: enough to tell keys apart, and the same in every run.
fn fingerprint(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    fn put(model: &mut Model) -> Bytes {
        let (ticket, value) = model.begin(&key(), Effect::Put);
        model.acknowledge(ticket);
        value.unwrap()
    }

    #[test]
    fn a_kept_promise_is_no_violation() {
        let mut model = Model::default();
        let first = put(&mut model);
        assert!(model.check(&key(), Some(&first)));
        let (ticket, _) = model.begin(&key(), Effect::Delete);
        model.acknowledge(ticket);
        assert!(model.check(&key(), None));
        assert_eq!((model.acknowledged(), model.violations().len()), (2, 0));
    }

    #[test]
    fn a_lost_write_is_seen_whether_an_older_value_or_none_is_there() {
        let mut model = Model::default();
        let first = put(&mut model);
        let _second = put(&mut model);
        assert!(!model.check(&key(), Some(&first)));
        assert!(!model.check(&key(), None));
        assert_eq!(
            model.violations(),
            [
                Violation::Lost {
                    key: key(),
                    expected: Content::Write(2),
                    found: Content::Write(1)
                },
                Violation::Lost { key: key(), expected: Content::Write(2), found: Content::Absent },
            ]
        );
    }

    #[test]
    fn a_resurrected_delete_is_seen() {
        let mut model = Model::default();
        let value = put(&mut model);
        let (ticket, _) = model.begin(&key(), Effect::Delete);
        model.acknowledge(ticket);
        assert!(!model.settle(&key(), Some(&value)));
        assert_eq!(model.violations(), [Violation::Resurrected { key: key(), found: 1 }]);
    }

    #[test]
    fn an_unanswered_write_may_be_there_or_not_and_nothing_else_may() {
        let mut model = Model::default();
        let zeroth = put(&mut model);
        let first = put(&mut model);
        let (_unanswered, second) = model.begin(&key(), Effect::Put);
        assert!(model.is_unanswered(&key()));
        assert!(model.check(&key(), Some(&first)));
        assert!(model.check(&key(), second.as_deref()));
        assert!(!model.check(&key(), Some(&zeroth)));
        assert!(!model.check(&key(), None));
    }

    #[test]
    fn what_a_dead_process_left_is_final() {
        let mut model = Model::default();
        let first = put(&mut model);
        let (_unanswered, second) = model.begin(&key(), Effect::Put);
        assert!(model.settle(&key(), Some(&first)));
        assert!(!model.is_unanswered(&key()));
        // The write that was not there when the process came back must not appear later.
        assert!(!model.check(&key(), second.as_deref()));
        assert!(model.check(&key(), Some(&first)));
    }

    #[test]
    fn an_answer_while_the_power_fails_proves_nothing_and_one_from_a_lost_disk_is_a_violation() {
        let mut model = Model::default();
        let first = put(&mut model);
        let (sent_before, second) = model.begin(&key(), Effect::Put);
        model.set_power(Power::Failing);
        model.acknowledge(sent_before);
        assert!(model.is_unanswered(&key()));
        assert!(model.check(&key(), Some(&first)) && model.check(&key(), second.as_deref()));
        model.settle(&key(), Some(&first));
        model.set_power(Power::Off);
        let (sent_after, _) = model.begin(&key(), Effect::Put);
        model.acknowledge(sent_after);
        assert!(matches!(model.violations(), [Violation::Misbehaved(_)]));
        assert_eq!((model.acknowledged(), model.in_doubt()), (1, 2));
    }

    #[test]
    fn a_refused_write_must_not_be_there() {
        let mut model = Model::default();
        let first = put(&mut model);
        let (ticket, second) = model.begin(&key(), Effect::Put);
        model.refuse(ticket);
        assert!(model.check(&key(), Some(&first)));
        assert!(!model.check(&key(), second.as_deref()));
    }

    #[test]
    fn damage_and_values_of_other_keys_are_seen() {
        let mut model = Model::default();
        let value = put(&mut model);
        let torn = &value[..value.len() - 1];
        assert!(!model.check(&key(), Some(torn)));
        assert!(!model.check(&key(), Some(b"")));
        assert!(!model.check(&key(), Some(&value_of(b"other", 1))));
        assert!(
            model
                .violations()
                .iter()
                .all(|violation| matches!(violation, Violation::Damaged { .. }))
        );
        assert!(!model.check(&key(), Some(&value_of(b"k", 9))));
        assert_eq!(model.violations()[3], Violation::Invented { key: key(), found: 9 });
        assert!(!model.check(&Bytes::from_static(b"never"), Some(&value_of(b"never", 1))));
    }

    #[test]
    fn a_loss_is_reported_once_and_not_again_by_every_later_check() {
        let mut model = Model::default();
        let first = put(&mut model);
        let _second = put(&mut model);
        assert!(!model.settle(&key(), Some(&first)));
        assert!(model.settle(&key(), Some(&first)));
        assert_eq!(model.violations().len(), 1);
    }

    #[test]
    fn counters_lose_no_step_and_give_none_twice() {
        let mut model = Model::default();
        let key = key();
        for step in [1, 2] {
            model.begin_step(&key, step);
            model.acknowledge_step(&key, step);
        }
        model.begin_step(&key, 3);
        assert!(model.check_counter(&key, Some(&counter_value(2))));
        assert!(
            model.check_counter(&key, Some(&counter_value(3))),
            "an unanswered step may have been made"
        );
        assert!(!model.check_counter(&key, Some(&counter_value(1))));
        assert!(!model.check_counter(&key, None));
        assert!(!model.check_counter(&key, Some(&counter_value(4))), "nobody tried step 4");
        assert!(!model.check_counter(&key, Some(b"12")));
        model.acknowledge_step(&key, 2);
        assert_eq!(
            model.violations(),
            [
                Violation::StepLost { key: key.clone(), acknowledged: 2, found: 1 },
                Violation::StepLost { key: key.clone(), acknowledged: 2, found: 0 },
                Violation::Invented { key: key.clone(), found: 4 },
                Violation::Damaged { key: key.clone(), len: 2 },
                Violation::StepTwice { key, step: 2 },
            ]
        );
    }

    #[test]
    fn values_differ_by_key_and_sequence_and_repeat_exactly() {
        assert_eq!(value_of(b"a", 7), value_of(b"a", 7));
        assert_ne!(value_of(b"a", 7)[..8], value_of(b"a", 8)[..8]);
        let sizes: BTreeSet<usize> =
            (0..2000).map(|sequence| value_of(b"a", sequence).len()).collect();
        assert!(sizes.first() < Some(&32) && sizes.last() == Some(&(8 + (128 << 10))), "{sizes:?}");
    }
}
